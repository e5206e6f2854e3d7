//! `sample n seed: 7`: some of the rows, each as likely as any other, in their order.
//!
//! Row number `r`, from 0, has the rank `mix(mix(seed) + r)`; the rows of the `n` least ranks stay. `mix` is the finaliser of splitmix64.
//!
//! Laws
//! - Which rows stay depends on the seed, `n` and the number of rows alone.
//! - It holds `n` rows, and for a while as many again, as far as they fit into memory; what does not fit goes the way of [`super::chosen`].

use super::chosen::{BLOCK_ROWS, Chooses, Chosen, RankBounds};
use super::codes::held;
use super::copies::HeldRow;
use super::groups::grow;
use super::keys::append;
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
    memory: Memory::Spill,
    holds_back: true,
    to_the_end: true,
    least: super::chosen::least,
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
        let ranks = Ranks {
            seed,
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            seen: 0,
            heap: vec![],
            bounds: RankBounds::new(rows, setup).map_err(|e| held("sample", e))?,
            indices: Vec::with_capacity(BLOCK_ROWS),
        };
        let chosen = Some(Chosen::new("sample", own, setup)?);
        Ok(Box::new(Sample { ranks, chosen }))
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
    ranks: Ranks,
    /// `None` at the end: what it took is there for those that come behind.
    chosen: Option<Chosen>,
}

/// The rows of the least ranks so far.
struct Ranks {
    seed: u64,
    rows: usize,
    /// Rows so far.
    seen: u64,
    /// A heap: the greatest rank first.
    heap: Vec<HeldRow>,
    /// What the rows on disk say about the ranks of those to come.
    bounds: RankBounds,
    /// The rows of a block that are kept.
    indices: Vec<u32>,
}

fn is_worse(a: &HeldRow, b: &HeldRow) -> bool {
    (a.rank, a.row) > (b.rank, b.row)
}

impl Serial for Sample {
    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        if let Some(chosen) = &mut self.chosen {
            chosen.take(&mut self.ranks, &batch)?;
        }
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let Sample { ranks, chosen } = self;
        let Some(mut chosen) = chosen.take() else {
            return Ok(());
        };
        if !chosen.has_spilled() {
            let mut heap = std::mem::take(&mut ranks.heap);
            return chosen.give_held(&mut heap, out);
        }
        ranks.spill(&mut chosen).map_err(|e| held("sample", e))?;
        chosen.give_firsts(ranks.rows as u64, false, out)
    }
}

impl Chooses for Ranks {
    fn choose(&mut self, chosen: &mut Chosen, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()> {
        if chosen.copies.is_wasteful() {
            let heaps = std::slice::from_mut(&mut self.heap);
            chosen.copies.compact(heaps, &mut chosen.scratch)?;
        }
        let piece = chosen.copies.next_piece()?;
        let kept = self.keep(rows, piece, &mut chosen.extra);
        let taken = kept.and_then(|()| chosen.copy(batch, from, rows, &self.indices, 0));
        match taken {
            Ok(()) => self.seen += rows as u64,
            Err(_) => self.forget(chosen, piece),
        }
        taken
    }

    fn spill(&mut self, chosen: &mut Chosen) -> Result<()> {
        self.heap.sort_unstable_by_key(|row| (row.rank, row.row));
        let heap = &self.heap;
        chosen.write(1, &|_| heap, &|_, row: &HeldRow, key| {
            append(&row.rank.to_be_bytes(), key)?;
            append(&row.row.to_be_bytes(), key)
        })?;
        self.bounds.add(&self.heap);
        self.heap = vec![];
        chosen.clear();
        Ok(())
    }

    fn held(&self) -> usize {
        self.heap.len()
    }
}

impl Ranks {
    /// The rows of the least ranks go into the heap; `indices` names them.
    fn keep(&mut self, rows: usize, piece: u32, extra: &mut Reservation) -> Result<()> {
        self.indices.clear();
        for at in 0..rows {
            let row = self.seen + at as u64;
            let new = HeldRow {
                rank: mix(self.seed.wrapping_add(row)),
                row,
                at: (piece, self.indices.len() as u32),
            };
            if new.rank > self.bounds.most {
                continue;
            }
            if self.heap.len() < self.rows {
                grow(&mut self.heap, 1, extra)?;
                self.heap.push(new);
                heap::sift_up(&mut self.heap, is_worse);
            } else if self.heap.first().is_some_and(|worst| is_worse(worst, &new)) {
                self.heap[0] = new;
                heap::sift_down(&mut self.heap, is_worse);
            } else {
                continue;
            }
            self.indices.push(at as u32);
        }
        Ok(())
    }

    /// The rows of piece `piece`, which is not there, leave the heap.
    fn forget(&mut self, chosen: &mut Chosen, piece: u32) {
        self.heap.retain(|row| row.at.0 != piece);
        // The worst first, and all others behind it in order: a heap.
        self.heap
            .sort_unstable_by_key(|row| std::cmp::Reverse((row.rank, row.row)));
        if self.heap.is_empty() {
            self.heap = vec![];
            chosen.clear();
        }
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
                    let spilling = run_spilling(&bound(n, seed), &columns(), &rows(count), chunk, 3);
                    for got in [run(&bound(n, seed), &columns(), &rows(count), chunk), spilling] {
                        assert_eq!(got.rows, want);
                        assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
                    }
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
    fn what_does_not_fit_goes_to_disk_but_for_rows_that_are_known_not_to_be_chosen() {
        // The rows take 10 MB.
        let many = rows(100_000);
        let got = try_run(&bound(50, 3), &columns(), &many, 300, 2_500_000).unwrap();
        assert_eq!(got.rows.len(), 50);
        let want = run(&bound(40_000, 3), &columns(), &many, 300).rows;
        let mut refused = 0;
        for limit in (300_000..4_000_000).step_by(900_000) {
            match try_run(&bound(40_000, 3), &columns(), &many, 300, limit) {
                Ok(got) => assert!(got.rows == want, "{limit}"),
                Err(error) => {
                    refused += 1;
                    assert!(
                        limit < 1_500_000 && error.to_string().contains("`sample` needs"),
                        "{error}"
                    );
                }
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn rows_of_greater_ranks_than_those_on_disk_are_not_kept() {
        let budget = setup(8 << 20);
        let Make::Serial(make) = &bound(1000, 3).make else {
            panic!("serial")
        };
        let disk = standpipe_sdk::Disk::new(std::env::temp_dir(), None).spill_rows(Some(300));
        let setup = Setup {
            spill: standpipe_sdk::Spill::new(std::sync::Arc::new(disk)),
            ..budget
        };
        let mut sample = make(&setup).unwrap();
        for rows in rows(60_000).chunks(100) {
            let arena = Arena::new(1 << 20);
            let batch = super::super::values::batch(&columns(), rows, &arena).unwrap();
            sample.step(batch, &arena, &Faults::new(&arena, true)).unwrap();
        }
        let segments = setup.spill.done().segments;
        // All rows would be 200 segments.
        assert!((4..40).contains(&segments), "{segments}");
    }
}
