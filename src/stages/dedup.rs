//! `dedup (by k)`: the first of each run of equal rows, as a whole or in some columns.
//!
//! Laws
//! - A row goes iff the row just before it is equal; only the last row's key is kept.

use super::codes::held;
use super::distinct::rows_or;
use super::groups::grow_to;
use super::keys;
use super::rowkeys::KeyMaker;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Items, Kind, Least, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Faults, Flow, Prepare, Reservation, Serial};

/// `dedup`.
pub const SPEC: StageSpec = StageSpec {
    name: "dedup",
    about: "The first of equal rows that follow each other; with `by`, of those equal in it; nulls are equal, so are nans",
    kind: Kind::Serial,
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes rows equal"),
    memory: Memory::Constant,
    least: |_| Least {
        takes: KEY_BYTES,
        gives: 0,
    },
    examples: &[
        Example {
            script: "from rows [{n: 1}, {n: 1}, {n: 2}, {n: 1}] | dedup",
            output: "n\n1\n2\n1\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | dedup by k"#,
            output: "k,n\na,1\nb,3\n",
        },
    ],
    bind: &bind,
    ..StageSpec::BASE
};

/// For a key that is not too long.
const KEY_BYTES: usize = 4 << 10;

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let reads = keys::grouping(call, &rows_or(call))?;
    let maker = KeyMaker::of(call, &reads);
    let own = call.own;
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        Ok(Box::new(Dedup {
            maker: maker.clone(),
            last: vec![],
            started: false,
            reservation: setup.budget.reserve(),
            own,
        }))
    };
    Ok(Bound::keeps(call, reads, Make::Serial(Box::new(make))))
}

struct Dedup {
    maker: KeyMaker,
    /// The key of the row before, once there was one.
    last: Vec<u8>,
    started: bool,
    reservation: Reservation,
    own: usize,
}

impl Serial for Dedup {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.maker.clone()))
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let keys = KeyMaker::read(&batch)?;
        let hashes = keys.hashes();
        let stay = arena.fill(batch.rows(), 0u32)?;
        let mut count = 0;
        for row in 0..batch.rows() {
            let same = match row.checked_sub(1) {
                Some(before) => hashes[before] == hashes[row] && keys.get(before) == keys.get(row),
                None => self.started && self.last == keys.get(0),
            };
            stay[count] = row as u32;
            count += usize::from(!same);
        }
        let rows = match count {
            0 => None,
            all if all == batch.rows() => Some(batch.with_columns(&batch.columns()[..self.own])),
            _ => Some(batch.gather(&stay[..count], self.own, arena)?),
        };
        if let Some(last) = batch.rows().checked_sub(1) {
            self.remember(keys.get(last)).map_err(|e| held("dedup", e))?;
        }
        Ok((rows, Flow::More))
    }
}

impl Dedup {
    fn remember(&mut self, key: &[u8]) -> Result<()> {
        self.last.clear();
        if self.last.capacity() < key.len() {
            grow_to(&mut self.last, key.len(), &mut self.reservation)?;
        }
        self.last.extend_from_slice(key);
        self.started = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;
    use standpipe_sdk::{Schema, Type, Value};

    fn columns() -> Schema {
        schema(&[("k", STRING), ("f", Type::Float), ("n", INT)])
    }

    fn bound(by: &[usize]) -> Bound {
        let by: Vec<_> = by.iter().map(|&at| column(at)).collect();
        bind(&Call {
            by: &by,
            ..call(&columns(), 3, &[])
        })
        .unwrap()
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let words = ["", "a", "a text that is longer than a view holds"];
        let word = prop_oneof![1 => Just(NULL), 3 => proptest::sample::select(words.map(text).to_vec())];
        let floats = [0.0, -0.0, f64::NAN];
        let float = prop_oneof![Just(NULL), proptest::sample::select(floats.map(Value::Float).to_vec())];
        (word, float, 0..2i64).prop_map(|(k, f, n)| vec![k, f, int(n)])
    }

    proptest! {
        #[test]
        fn a_row_goes_iff_the_one_before_is_equal(
            rows in proptest::collection::vec(row(), 0..80),
            which in 0usize..4,
            chunk in 0usize..4,
        ) {
            let by = [&[0][..], &[1], &[0, 2], &[]][which];
            let same = |a: &Value, b: &Value| match (a, b) {
                (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
                (a, b) => a == b,
            };
            let all = [0, 1, 2];
            let compared = if by.is_empty() { &all[..] } else { by };
            let stays = |at: usize| at == 0 || !compared.iter().all(|&c| same(&rows[at][c], &rows[at - 1][c]));
            let want: Rows = (0..rows.len()).filter(|&at| stays(at)).map(|at| rows[at].clone()).collect();
            let got = run(&bound(by), &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(format!("{:?}", got.rows), format!("{want:?}"));
        }
    }

    #[test]
    fn a_refused_batch_can_come_again() {
        let rows: Rows = (0..60)
            .map(|i| vec![text(&format!("name {}", i / 3)), NULL, int(i / 2)])
            .collect();
        every_refusal_can_be_repeated(&bound(&[0]), &columns(), &rows);
        every_refusal_can_be_repeated(&bound(&[2, 1]), &columns(), &rows);
    }
}
