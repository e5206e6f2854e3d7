//! `distinct (by k)`: the first of all rows that are equal, as a whole or in some columns.
//!
//! Keys and their hashes are made before the stage's turn; in it they are looked up, batch by batch.
//!
//! Laws
//! - Rows come out as they come in: the first of equals in the order of the input.
//! - It holds a key for each row it gave. What it cannot hold goes the way of [`spill`].

mod spill;

use super::codes::held;
use super::keys;
use super::keyset::{KeySet, NONE};
use super::rowkeys::KeyMaker;
use spill::Overflow;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Item, Items, Kind, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Bits, Emitter, Faults, Flow, Prepare, Serial};

/// `distinct`.
pub const SPEC: StageSpec = StageSpec {
    name: "distinct",
    about: "The first of all equal rows; with `by`, of all that are equal in it",
    kind: Kind::Serial,
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes rows equal"),
    memory: Memory::Groups,
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
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let reads = keys::grouping(call, &rows_or(call))?;
    let maker = KeyMaker::new(&reads, |at| call.input.get(at).map(|field| &field.ty));
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
    seen: KeySet,
    /// Rows given: a key with this number is the next new one. Keys of a batch that was refused have numbers from here on.
    given: u32,
    /// Rows that came.
    rows: u64,
    own: usize,
    overflow: Overflow,
}

impl Distinct {
    fn new(maker: &KeyMaker, own: usize, setup: &Setup) -> Result<Distinct> {
        let overflow = Overflow::new(maker.keys().clone(), own, setup).map_err(|e| held("distinct", e))?;
        Ok(Distinct {
            maker: maker.clone(),
            seen: KeySet::new(&setup.budget),
            given: 0,
            rows: 0,
            own,
            overflow,
        })
    }
}

impl Serial for Distinct {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.maker.clone()))
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let keys = KeyMaker::read(&batch)?;
        let numbers = arena.fill(batch.rows(), 0u32)?;
        let stay = arena.fill(batch.rows(), 0u32)?;
        if !self.overflow.is_open() && self.seen.number(keys.hashes(), |row| keys.get(row), numbers).is_err() {
            // Keys before the refused one are in the set, and their rows are given now.
            self.overflow.open();
        }
        let mut rest = None;
        if self.overflow.is_open() {
            self.seen.find(keys.hashes(), |row| keys.get(row), numbers);
            let unknown = Bits::collect(arena, batch.rows(), |row| numbers[row] == NONE)?.indices(arena)?;
            if !unknown.is_empty() {
                rest = Some(self.overflow.prepare(batch, unknown, self.rows, arena)?);
            }
        }
        let (mut count, mut next) = (0, self.given);
        for (row, &number) in numbers.iter().enumerate() {
            stay[count] = row as u32;
            let new = number == next;
            count += usize::from(new);
            next += u32::from(new);
        }
        let rows = match count {
            0 => None,
            all if all == batch.rows() => Some(batch.with_columns(&batch.columns()[..self.own])),
            _ => Some(batch.gather(&stay[..count], self.own, arena)?),
        };
        // Only now: rows that are refused before come again.
        if let Some(rest) = rest {
            self.overflow.add(rest).map_err(|e| held("distinct", e))?;
        }
        self.given = next;
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
        let rows: Rows = (0..10_000)
            .map(|i| vec![int(i), text(&format!("a key of its own {i}")), NULL, NULL])
            .collect();
        let error = try_run(&bound(&[1]), &columns(), &rows, 100, 200_000).unwrap_err();
        assert!(error.to_string().contains("`distinct` needs"), "{error}");
    }

    /// Refuses keys from batch `at` on.
    struct Full {
        inner: Distinct,
        at: usize,
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
            self.inner.finish(out)
        }
    }

    fn full(by: &'static [usize], at: usize) -> Bound {
        let schema = columns();
        let maker = KeyMaker::new(by, |at| schema.get(at).map(|field| &field.ty));
        let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
            let inner = Distinct::new(&maker, 4, setup)?;
            Ok(Box::new(Full { inner, at }))
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
