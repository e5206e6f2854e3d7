//! `distinct (by k)`: the first of all rows that are equal, as a whole or in some columns.
//!
//! Keys and their hashes are made before the stage's turn, and rows whose keys were seen go at once; in the turn the others are looked up
//! and their keys added.
//!
//! Laws
//! - Rows come out as they come in: the first of equals in the order of the input.
//! - It holds a key for each row it gave. What it cannot hold goes the way of [`spill`].

mod shards;
mod spill;

use super::codes::held;
use super::keys;
use super::rowkeys::KeyMaker;
use shards::Shards;
use spill::Overflow;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Item, Items, Kind, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Emitter, Faults, Flow, Locator, Prepare, Serial, Spill};
use std::sync::Arc;

/// `distinct`.
pub const SPEC: StageSpec = StageSpec {
    name: "distinct",
    about: "The first of all equal rows; with `by`, of all that are equal in it; nulls are equal, so are nans",
    kind: Kind::Serial,
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes rows equal"),
    memory: Memory::Spill,
    holds_back: true,
    least: spill::least,
    examples: &[
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 2}, {k: "a", n: 1}] | distinct"#,
            output: "k,n\na,1\nb,2\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 2}, {k: "A", n: 3}] | distinct by lower(k)"#,
            output: "k,n\na,1\nb,2\n",
        },
    ],
    bind: &bind,
    filters: |call| keys::filters(call, &rows_or(call)),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let reads = keys::grouping(call, &rows_or(call))?;
    let maker = KeyMaker::of(call, &reads);
    let own = call.own;
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> { Ok(Box::new(Distinct::new(&maker, own, setup)?)) };
    Ok(Bound::keeps(call, reads, Make::Serial(Box::new(make))))
}

/// The items of `by`, or every column of the stream.
pub(super) fn rows_or(call: &Call<'_>) -> Vec<Item> {
    if !call.by.is_empty() {
        return call.by.to_vec();
    }
    let whole = |at| Item {
        name: None,
        arg: Arg::Column(at),
        descending: false,
        span: call.span,
    };
    (0..call.own).map(whole).collect()
}

struct Distinct {
    maker: KeyMaker,
    seen: Arc<Shards>,
    /// Rows that were looked up.
    rows: u64,
    own: usize,
    overflow: Overflow,
    spill: Arc<Spill>,
}

impl Distinct {
    fn new(maker: &KeyMaker, own: usize, setup: &Setup) -> Result<Distinct> {
        let overflow = Overflow::new(own, setup).map_err(|e| held("distinct", e))?;
        Ok(Distinct {
            maker: maker.clone(),
            seen: Shards::new(&setup.budget),
            rows: 0,
            own,
            overflow,
            spill: setup.spill.clone(),
        })
    }
}

/// Makes keys, and leaves out the rows whose keys were seen.
struct Unseen {
    maker: KeyMaker,
    seen: Arc<Shards>,
}

impl Prepare for Unseen {
    fn prepare<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        let batch = self.maker.prepare(batch, arena)?;
        let left = self.seen.unseen(&KeyMaker::read(&batch)?, arena)?;
        if left.len() == batch.rows() {
            return Ok(batch);
        }
        batch.gather(left, batch.columns().len(), arena)
    }
}

impl Serial for Distinct {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(Unseen {
            maker: self.maker.clone(),
            seen: self.seen.clone(),
        }))
    }

    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        self.step_from(batch, arena, faults, &Locator::default())
    }

    fn step_from<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        _: &Faults<'a>,
        locator: &Locator<'_>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        if batch.rows() == 0 {
            return Ok((None, Flow::More));
        }
        if self.spill.spill_rows().is_some_and(|rows| self.rows >= rows as u64) {
            self.overflow.open();
        }
        let keys = KeyMaker::read(&batch)?;
        let looked = self.seen.look_up(&keys, !self.overflow.is_open(), arena)?;
        if looked.refused {
            self.overflow.open();
        }
        let stay = arena.fill(batch.rows(), 0u32)?;
        let rest = arena.fill(batch.rows(), 0u32)?;
        let (mut stays, mut rests) = (0, 0);
        // Behind a row that comes later, also a new one must wait: it may have found a place for its key, but not for itself.
        let mut late = !self.overflow.is_empty();
        for row in 0..batch.rows() {
            late |= looked.unknown[row];
            stay[stays] = row as u32;
            rest[rests] = row as u32;
            stays += usize::from(looked.new[row] && !late);
            rests += usize::from(looked.unknown[row] || (looked.new[row] && late));
        }
        let rest = match rests {
            0 => None,
            _ => Some(
                self.overflow
                    .prepare(batch, &rest[..rests], self.rows, locator, arena)?,
            ),
        };
        let rows = match stays {
            0 => None,
            all if all == batch.rows() => Some(batch.with_columns(&batch.columns()[..self.own])),
            _ => Some(batch.gather(&stay[..stays], self.own, arena)?),
        };
        // Only now: rows that are refused before come again.
        if let Some(rest) = rest {
            self.overflow.add(rest).map_err(|e| held("distinct", e))?;
        }
        self.seen.give(&looked);
        self.rows += batch.rows() as u64;
        Ok((rows, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        // What comes now needs the memory, and nobody asks for keys any more.
        self.seen.clear();
        self.overflow.finish(out).map_err(|e| held("distinct", e))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::stages::codes;
    use proptest::prelude::*;
    use standpipe_sdk::{Schema, Type, Value};

    fn columns() -> Schema {
        schema(&[("id", INT), ("k", STRING), ("f", Type::Float), ("n", INT)])
    }

    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (a, b) => a == b,
        }
    }

    /// Each row compared with all before it.
    fn slow(rows: &Rows, by: &[usize]) -> Rows {
        let mut kept: Rows = vec![];
        for row in rows {
            if !kept.iter().any(|other| by.iter().all(|&at| same(&row[at], &other[at]))) {
                kept.push(row.clone());
            }
        }
        kept
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let words = ["", "a", "aa", "\u{0}", "a text that is longer than a view holds", "ÿ"];
        let word = prop_oneof![1 => Just(NULL), 6 => proptest::sample::select(words.map(text).to_vec())];
        let floats = [0.0, -0.0, f64::NAN, -f64::NAN, 1.5];
        let float = prop_oneof![Just(NULL), proptest::sample::select(floats.map(Value::Float).to_vec())];
        (0..3i64, word, float, 0..3i64).prop_map(|(id, k, f, n)| vec![int(id), k, f, int(n)])
    }

    fn bound(by: &[usize]) -> Bound {
        let by: Vec<Item> = by.iter().map(|&at| column(at)).collect();
        bind(&Call {
            by: &by,
            ..call(&columns(), 4, &[])
        })
        .unwrap()
    }

    proptest! {
        #[test]
        fn the_first_of_equal_rows_stays(
            rows in proptest::collection::vec(row(), 0..80),
            which in 0usize..5,
            chunk in 0usize..4,
        ) {
            let by = [&[][..], &[1], &[2], &[3], &[1, 2]][which];
            let got = run(&bound(by), &columns(), &rows, CHUNKS[chunk]);
            let all = [0, 1, 2, 3];
            let want = slow(&rows, if by.is_empty() { &all } else { by });
            prop_assert_eq!(format!("{:?}", got.rows), format!("{want:?}"));
        }
    }

    #[test]
    fn a_refused_batch_gives_all_its_rows_when_it_comes_again() {
        let rows: Rows = (0..300)
            .map(|i| {
                vec![
                    int(i),
                    text(&format!("one of not so many names {}", i * 7 % 90)),
                    NULL,
                    int(i % 8),
                ]
            })
            .collect();
        for by in [&[1][..], &[3], &[0], &[1, 3]] {
            every_refusal_can_be_repeated(&bound(by), &columns(), &rows);
            assert_eq!(run(&bound(by), &columns(), &rows, 7).rows, slow(&rows, by));
        }
    }

    #[test]
    fn what_cannot_be_told_apart_and_what_does_not_fit() {
        let json = schema(&[("id", INT), ("j", Type::Json)]);
        assert_eq!(codes_of(bind(&call(&json, 2, &[]))), [codes::NO_KEY]);
        let error = try_run(
            &bound(&[1]),
            &columns(),
            &vec![vec![int(1), text("x"), NULL, NULL]],
            1,
            50_000,
        )
        .unwrap_err();
        assert!(error.to_string().contains("`distinct` needs"), "{error}");
    }

    /// Refuses keys from batch `at` on, and at the end everything but `left` bytes.
    struct Full {
        inner: Distinct,
        at: usize,
        left: usize,
    }

    impl Serial for Full {
        fn prepare(&self) -> Option<Box<dyn Prepare>> {
            self.inner.prepare()
        }

        fn step<'a>(
            &mut self,
            batch: Batch<'a>,
            arena: &'a Arena,
            faults: &Faults<'a>,
        ) -> Result<(Option<Batch<'a>>, Flow)> {
            if self.at == 0 {
                self.inner.overflow.open();
            }
            self.at = self.at.saturating_sub(1);
            self.inner.step(batch, arena, faults)
        }

        fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
            let budget = self.inner.overflow.budget();
            let mut others = budget.reserve();
            others.grow(budget.free().saturating_sub(self.left))?;
            self.inner.finish(out)
        }
    }

    fn full(by: &'static [usize], at: usize) -> Bound {
        full_beside_others(by, at, usize::MAX)
    }

    fn full_beside_others(by: &'static [usize], at: usize, left: usize) -> Bound {
        let schema = columns();
        let maker = KeyMaker::new(by, |at| schema.get(at).map(|field| &field.ty));
        let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
            let inner = Distinct::new(&maker, 4, setup)?;
            Ok(Box::new(Full { inner, at, left }))
        };
        let mut bound = bound(by);
        bound.make = Make::Serial(Box::new(make));
        bound
    }

    proptest! {
        #[test]
        fn keys_that_do_not_fit_change_nothing(
            rows in proptest::collection::vec(row(), 0..80),
            which in 0usize..4,
            at in 0usize..6,
            chunk in 0usize..4,
        ) {
            let by = [&[1][..], &[2], &[1, 2], &[0, 1, 2, 3]][which];
            let got = run(&full(by, at), &columns(), &rows, CHUNKS[chunk]);
            let want = run(&bound(by), &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(format!("{:?}", got.rows), format!("{:?}", want.rows));
            prop_assert_eq!(got.places, want.places);
        }
    }

    #[test]
    fn what_does_not_fit_goes_to_disk() {
        let rows: Rows = (0..60_000i64)
            .map(|i| {
                let key = if i % 3 == 0 { i % 90 } else { i * 7919 % 30_000 };
                vec![
                    int(i),
                    text(&format!("the key of this row, which is some bytes long: {key}")),
                    NULL,
                    int(key),
                ]
            })
            .collect();
        let want = run(&bound(&[1]), &columns(), &rows, 1000).rows;
        // The keys take 2.5 MB, the rows four times as much.
        for limit in [2_000_000, 3_000_000, 5_000_000] {
            assert_eq!(
                try_run(&bound(&[1]), &columns(), &rows, 1000, limit).unwrap().rows,
                want
            );
        }
    }

    #[test]
    fn what_the_end_takes_is_no_more_than_what_the_plan_sets_aside() {
        let rows: Rows = (0..20_000i64)
            .map(|i| vec![int(i), text(&format!("key {}", i * 7919 % 6000)), NULL, NULL])
            .collect();
        let want = run(&bound(&[1]), &columns(), &rows, 1000).rows;
        let room = |bytes: usize| standpipe_sdk::spec::Room {
            bytes,
            share: 8 << 20,
            workers: 2,
            max_record: 1 << 20,
            columns: 4,
        };
        let left = (SPEC.least)(&room(64 << 20)).gives;
        // What is held would be free once it is written.
        let got = run_spilling(&full_beside_others(&[1], 3, left), &columns(), &rows, 1000, 500);
        assert_eq!(got.rows, want);
    }

    #[test]
    fn many_rows_whose_keys_do_not_fit() {
        let rows: Rows = (0..20_000i64)
            .map(|i| {
                let key = if i % 3 == 0 { i % 90 } else { i * 7919 % 6000 };
                vec![
                    int(i),
                    text(&format!("the key of this row, which is some bytes long: {key}")),
                    NULL,
                    int(key),
                ]
            })
            .collect();
        for by in [&[1][..], &[3]] {
            let want = run(&bound(by), &columns(), &rows, 1000).rows;
            for (at, chunk) in [(0, 1000), (3, 1000), (10, 77)] {
                assert_eq!(run(&full(by, at), &columns(), &rows, chunk).rows, want);
            }
        }
    }
}
