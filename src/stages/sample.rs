//! `sample n seed: 7`: some of the rows, each as likely as any other, in their order.
//!
//! Row number `r`, from 0, has the rank `mix(mix(seed) + r)`; the rows of the `n` least ranks stay. `mix` is the finaliser of splitmix64.
//!
//! Laws
//! - Which rows stay depends on the seed, `n` and the number of rows alone.
//! - It holds `n` rows, and for a while as many again.

use super::codes::held;
use super::copies::{Copies, HeldRow, Scratch, emit};
use super::groups::grow;
use super::{heap, take};
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Items, Kind, Make, Memory, Param, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Emitter, Faults, Flow, Reservation, Serial};

/// `sample`.
pub const SPEC: StageSpec = StageSpec {
    name: "sample",
    about: "Rows chosen by chance, the same ones for the same seed, in their order",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    options: &[Param::new(
        "seed",
        ArgKind::Const(Want::Int),
        Some("0"),
        "another number chooses other rows",
    )],
    memory: Memory::Frame,
    holds_back: true,
    least: super::copies::least,
    examples: &[
        Example {
            script: "from range(1, 1_000) | sample 3 seed: 7",
            output: "value\n57\n188\n640\n",
        },
        Example {
            script: "from range(1, 3) | sample 10 seed: 7",
            output: "value\n1\n2\n3\n",
        },
    ],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let Some(rows) = take::count(call, "sample", &mut complaints) else {
        return Err(complaints);
    };
    let (own, seed) = (call.own, mix(call.int("seed").unwrap_or(0) as u64));
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        Ok(Box::new(Sample {
            seed,
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            seen: 0,
            chosen: vec![],
            copies: Copies::new(own, &setup.budget),
            scratch: Scratch::new(&setup.budget),
            extra: setup.budget.reserve(),
            share: setup.share,
        }))
    };
    Ok(Bound::keeps(call, vec![], Make::Serial(Box::new(make))))
}

/// Spreads a number over all 64 bits.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

struct Sample {
    seed: u64,
    rows: usize,
    /// Rows so far.
    seen: u64,
    /// A heap: the greatest rank first.
    chosen: Vec<HeldRow>,
    copies: Copies,
    scratch: Scratch,
    extra: Reservation,
    share: usize,
}

fn is_worse(a: &HeldRow, b: &HeldRow) -> bool {
    (a.rank, a.row) > (b.rank, b.row)
}

impl Serial for Sample {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let indices = arena.fill(batch.rows(), 0u32)?;
        // From here on only what is held can be refused, which ends the run.
        self.choose(&batch, indices).map_err(|e| held("sample", e))?;
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        emit(&self.copies, &mut self.chosen, self.share, out).map_err(|e| held("sample", e))
    }
}

impl Sample {
    fn choose(&mut self, batch: &Batch<'_>, indices: &mut [u32]) -> Result<()> {
        let piece = self.copies.next_piece()?;
        let mut count = 0;
        for at in 0..batch.rows() {
            let row = self.seen;
            self.seen += 1;
            let new = HeldRow {
                rank: mix(self.seed.wrapping_add(row)),
                row,
                at: (piece, count as u32),
            };
            if self.chosen.len() < self.rows {
                grow(&mut self.chosen, 1, &mut self.extra)?;
                self.chosen.push(new);
                heap::sift_up(&mut self.chosen, is_worse);
            } else if self.chosen.first().is_some_and(|worst| is_worse(worst, &new)) {
                self.chosen[0] = new;
                heap::sift_down(&mut self.chosen, is_worse);
            } else {
                continue;
            }
            indices[count] = at as u32;
            count += 1;
        }
        self.copies.add_some(batch, &indices[..count], &mut self.scratch)?;
        if self.copies.is_wasteful() {
            self.copies
                .compact(std::slice::from_mut(&mut self.chosen), &mut self.scratch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::stages::codes;
    use standpipe_sdk::Schema;
    use standpipe_sdk::spec::Arg;

    fn columns() -> Schema {
        schema(&[("id", INT), ("s", STRING)])
    }

    fn rows(count: i64) -> Rows {
        (0..count)
            .map(|i| vec![int(i), text(&format!("a text of some length, to take some room: {i}"))])
            .collect()
    }

    fn bound(n: i64, seed: i64) -> Bound {
        let options = [("seed", argument(None, Arg::Const(int(seed))))];
        bind(&Call {
            options: &options,
            ..call(&columns(), 2, &[constant(int(n))])
        })
        .unwrap()
    }

    #[test]
    fn the_least_ranks_stay_whatever_the_chunks() {
        for (n, count) in [(0, 50), (1, 50), (7, 500), (50, 50), (80, 50), (20, 0)] {
            for seed in [0, 7, -1] {
                let mut ranked: Vec<i64> = (0..count).collect();
                ranked.sort_by_key(|&row| mix(mix(seed as u64).wrapping_add(row as u64)));
                ranked.truncate(n as usize);
                ranked.sort_unstable();
                let want: Rows = ranked.iter().map(|&row| rows(count)[row as usize].clone()).collect();
                for chunk in CHUNKS {
                    let got = run(&bound(n, seed), &columns(), &rows(count), chunk);
                    assert_eq!(got.rows, want);
                    assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
                }
            }
        }
        assert_ne!(
            run(&bound(5, 1), &columns(), &rows(500), 7).rows,
            run(&bound(5, 2), &columns(), &rows(500), 7).rows
        );
        assert_eq!(
            codes_of(bind(&call(&columns(), 2, &[constant(int(-1))]))),
            [codes::WRONG_ARGUMENT]
        );
    }

    #[test]
    fn every_row_is_as_likely_as_any_other() {
        let mut hits = [0u32; 40];
        for seed in 0..4000 {
            for row in run(&bound(4, seed), &columns(), &rows(40), usize::MAX).rows {
                let standpipe_sdk::Value::Int(id) = row[0] else {
                    panic!("an int")
                };
                hits[id as usize] += 1;
            }
        }
        // 400 expected, with a deviation of 19.
        assert!(hits.iter().all(|hits| (310..490).contains(hits)), "{hits:?}");
    }

    #[test]
    fn memory_grows_with_the_sample_and_not_with_the_rows() {
        let many = rows(20_000);
        // The rows take 2 MB.
        assert_eq!(
            try_run(&bound(50, 3), &columns(), &many, 300, 900_000)
                .unwrap()
                .rows
                .len(),
            50
        );
        let error = try_run(&bound(20_000, 3), &columns(), &many, 300, 900_000).unwrap_err();
        assert!(error.to_string().contains("`sample` needs"), "{error}");
    }
}
