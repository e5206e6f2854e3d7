//! `tail n (by k)`: the last rows, of all or of each group, in their order.
//!
//! Laws
//! - Nothing is passed on before the end.
//! - It holds `n` rows of each group, and for a while as many again; of a batch only rows that could be among the last are copied.

use super::codes::held;
use super::copies::{Copies, HeldRow, Scratch, emit};
use super::groups::{Groups, grow};
use super::keys;
use super::rowkeys::KeyMaker;
use super::take;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Items, Kind, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Emitter, Faults, Flow, Prepare, Reservation, Serial};

/// `tail`.
pub const SPEC: StageSpec = StageSpec {
    name: "tail",
    about: "The last rows; with `by`, the last of each group",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    memory: Memory::Groups,
    holds_back: true,
    least: super::copies::least,
    examples: &[
        Example {
            script: "from range(1, 100) | tail 2",
            output: "value\n99\n100\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 2}, {k: "a", n: 3}] | tail 1 by k"#,
            output: "k,n\nb,2\na,3\n",
        },
    ],
    bind: &bind,
    filters: |call| keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let (rows, reads) = take::rows_of_groups(call, "tail")?;
    let (own, grouped) = (call.own, !reads.is_empty());
    let maker = KeyMaker::of(call, &reads);
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        Ok(Box::new(Tail {
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            groups: grouped.then(|| Groups::new("tail", maker.clone(), &setup.budget)),
            own,
            rings: vec![],
            marks: vec![],
            seen: 0,
            batches: 0,
            copies: Copies::new(own, &setup.budget),
            scratch: Scratch::new(&setup.budget),
            extra: setup.budget.reserve(),
            share: setup.share,
        }))
    };
    Ok(Bound::keeps(call, reads, Make::Serial(Box::new(make))))
}

struct Tail {
    rows: usize,
    groups: Option<Groups>,
    own: usize,
    /// For each group its last rows; the next one takes the place of number `marks.next`.
    rings: Vec<Vec<HeldRow>>,
    marks: Vec<Mark>,
    /// Rows and batches so far.
    seen: u64,
    batches: u64,
    copies: Copies,
    scratch: Scratch,
    extra: Reservation,
    share: usize,
}

/// Where a group stands.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Where the next row of a full ring goes.
    next: usize,
    /// The batch that `taken` rows were chosen of.
    batch: u64,
    taken: usize,
}

impl Serial for Tail {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        self.groups.as_ref().map(Groups::prepare)
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let ids = match &mut self.groups {
            Some(groups) => Some(groups.of(&batch, arena)?),
            None => None,
        };
        let indices = arena.fill(batch.rows(), 0u32)?;
        // From here on only what is held can be refused, which ends the run.
        self.keep(&batch, ids, indices).map_err(|e| held("tail", e))?;
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let mut all = vec![];
        let kept = self.rings.iter().map(Vec::len).sum();
        let outcome = grow(&mut all, kept, &mut self.extra).and_then(|()| {
            all.extend(self.rings.drain(..).flatten());
            emit(&self.copies, &mut all, self.share, out)
        });
        outcome.map_err(|e| held("tail", e))
    }
}

impl Tail {
    fn keep(&mut self, batch: &Batch<'_>, ids: Option<&[u32]>, indices: &mut [u32]) -> Result<()> {
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        if groups > self.rings.len() {
            let more = groups - self.rings.len();
            grow(&mut self.rings, more, &mut self.extra)?;
            grow(&mut self.marks, more, &mut self.extra)?;
            self.rings.resize_with(groups, Vec::new);
            self.marks.resize(groups, Mark::default());
        }
        self.batches += 1;
        let group = |row: usize| ids.map_or(0, |ids| ids[row] as usize);
        // From behind, as many of each group as there is room for.
        let mut first = batch.rows();
        for row in (0..batch.rows()).rev() {
            let mark = &mut self.marks[group(row)];
            if mark.batch != self.batches {
                (mark.batch, mark.taken) = (self.batches, 0);
            }
            if mark.taken < self.rows {
                mark.taken += 1;
                first -= 1;
                indices[first] = row as u32;
            } else if ids.is_none() {
                break;
            }
        }
        let chosen = &indices[first..];
        let piece = self.copies.next_piece()?;
        for (number, &row) in (0u32..).zip(chosen) {
            let group = group(row as usize);
            let new = HeldRow {
                rank: 0,
                row: self.seen + u64::from(row),
                at: (piece, number),
            };
            let (ring, mark) = (&mut self.rings[group], &mut self.marks[group]);
            if ring.len() < self.rows {
                grow(ring, 1, &mut self.extra)?;
                ring.push(new);
            } else {
                ring[mark.next] = new;
                mark.next = (mark.next + 1) % self.rows;
            }
        }
        self.seen += batch.rows() as u64;
        let own = batch.with_columns(&batch.columns()[..self.own]);
        self.copies.add_some(&own, chosen, &mut self.scratch)?;
        if self.copies.is_wasteful() {
            self.copies.compact(&mut self.rings, &mut self.scratch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::stages::codes;
    use proptest::prelude::*;
    use standpipe_sdk::Schema;
    use standpipe_sdk::spec::Item;

    fn columns() -> Schema {
        schema(&[("id", INT), ("k", STRING)])
    }

    fn bound(n: i64, by: &[Item]) -> Bound {
        bind(&Call {
            by,
            ..call(&columns(), 2, &[constant(int(n))])
        })
        .unwrap()
    }

    proptest! {
        #[test]
        fn the_last_rows_of_all_or_of_each_group(
            keys in proptest::collection::vec(0i64..6, 0..90),
            n in 0i64..9,
            grouped in any::<bool>(),
            chunk in 0usize..4,
        ) {
            let key = |k: i64| if k == 0 { NULL } else { text(&format!("a key of more than twelve bytes {k}")) };
            let rows: Rows = (0..).zip(&keys).map(|(i, &k)| vec![int(i), key(k)]).collect();
            let behind = |at: usize| keys[at + 1..].iter().filter(|&&k| !grouped || k == keys[at]).count();
            let stays: Vec<usize> = (0..rows.len()).filter(|&at| behind(at) < n as usize).collect();
            let want: Rows = stays.iter().map(|&at| rows[at].clone()).collect();
            let by = if grouped { vec![column(1)] } else { vec![] };
            let got = run(&bound(n, &by), &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(got.rows, want);
            prop_assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
        }
    }

    #[test]
    fn memory_grows_with_what_is_asked_for_and_not_with_the_rows() {
        let rows: Rows = (0..20_000)
            .map(|i| {
                vec![
                    int(i),
                    text(&format!("a text of some length, to take some room: {}", i % 30)),
                ]
            })
            .collect();
        // The rows take 2 MB.
        let got = try_run(&bound(40, &[]), &columns(), &rows, 300, 900_000).unwrap();
        assert_eq!(got.rows, rows[20_000 - 40..]);
        let got = try_run(&bound(2, &[column(1)]), &columns(), &rows, 300, 900_000).unwrap();
        assert_eq!(got.rows, rows[20_000 - 60..]);
        let error = try_run(&bound(20_000, &[]), &columns(), &rows, 300, 900_000).unwrap_err();
        assert!(error.to_string().contains("`tail` needs"), "{error}");
        assert_eq!(
            codes_of(bind(&call(&columns(), 2, &[constant(int(-1))]))),
            [codes::WRONG_ARGUMENT]
        );
    }
}
