//! `merge s, t by k`: streams that are sorted become one that is.
//!
//! Each stream's order is looked at in its own turn; then all rows go where `sort` puts its own, the first stream's first, and come out
//! as they come out of a sort: what was sorted is one run there. So it holds what fits, spills the rest, and streams with a common
//! ancestor never wait for each other.
//!
//! Laws
//! - Of rows with equal keys those of an earlier stream come first; within a stream they keep their order.
//! - A row that is before the one that came before it in its stream is a bad row: it is not in the result, and the rows behind it are
//!   compared with the last good one.

use super::keys::{self, Keys};
use super::{codes, sort, top, union};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Factory, Items, Kind, Least, Make, Memory, Merging, Order, Setup,
    StageSpec,
};
use standpipe_sdk::{Arena, Batch, Columns, Data, Fault, Faults, Flow, Prepare, Reservation, Serial, Verdict};

/// `merge`.
pub const SPEC: StageSpec = StageSpec {
    name: "merge",
    about: "Streams with the same columns, each sorted by the keys, as one that is; of equal rows an earlier stream's come first, a row out of order is a row error",
    kind: Kind::Wiring,
    items: Items::some(ArgKind::Stream, 1, usize::MAX, "the other streams"),
    by: Items::some(
        ArgKind::Key,
        1,
        usize::MAX,
        "the keys that all are sorted by, the most significant first",
    ),
    options: &[keys::NULLS, union::MISSING],
    order: Order::Creates,
    memory: Memory::Spill,
    least: super::spill::least,
    examples: &[
        Example {
            script: "stream b = from rows [{t: 1, s: \"b\"}, {t: 4, s: \"b\"}]\nfrom rows [{t: 1, s: \"a\"}, {t: 3, s: \"a\"}] | merge b by t",
            output: "t,s\n1,a\n1,b\n3,a\n4,b\n",
        },
        Example {
            script: "stream b = from rows [{n: 2}, {n: null}]\nfrom rows [{n: 3}, {n: 1}] | merge b by -n",
            output: "n\n3\n2\n1\n\n",
        },
    ],
    bind: &bind,
    limited: top::of_merge,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    if !call.streams.is_empty() {
        return union::together("merge", call);
    }
    let mut complaints = vec![];
    let keys = keys::sorting(call, call.by, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let merging = Merging {
        check: check(Keys::new(keys.clone())),
        merge: sort::of_rows("merge", call, keys.clone()),
        least: |_| Least {
            takes: KEY_BYTES,
            gives: 0,
        },
    };
    let reads = keys.iter().map(|key| key.column).collect();
    let mut bound = Bound::keeps(call, reads, Make::Merge(merging));
    bound.sorted_by = keys::known_order(call, &keys);
    Ok(bound)
}

/// Bytes of a key up to which there is always room for the last one; a longer one takes what others leave.
const KEY_BYTES: usize = 4 << 10;

fn check(keys: Keys) -> Factory<Box<dyn Serial>> {
    Box::new(move |setup: &Setup| {
        let mut sorted = Sorted {
            keys: keys.clone(),
            last: vec![],
            reservation: setup.budget.reserve(),
        };
        let room = sorted.reservation.room_to(&mut sorted.last, KEY_BYTES);
        room.map_err(|e| codes::held("merge", e))?;
        Ok(Box::new(sorted))
    })
}

/// Looks at the order of a stream.
struct Sorted {
    keys: Keys,
    /// The key of the last good row; empty, which is before every key, if there is none.
    last: Vec<u8>,
    reservation: Reservation,
}

/// Puts each row's key behind its columns.
struct Keyed(Keys);

impl Prepare for Keyed {
    fn prepare<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        let mut columns = Columns::new(arena, batch.columns().len() + 1)?;
        batch.columns().iter().for_each(|&column| columns.push(column));
        columns.push(self.0.column(&batch, arena)?);
        Ok(batch.with_columns(columns.finish()))
    }
}

impl Serial for Sorted {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(Keyed(self.keys.clone())))
    }

    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        let [own @ .., key] = batch.columns() else {
            return Err(Error::Panic("rows without their keys".into()));
        };
        let Data::Bytes(keys) = key.data() else {
            return Err(Error::Panic("rows without their keys".into()));
        };
        let batch = batch.with_columns(own);
        let mut last: Option<usize> = None;
        let keep = arena.fill(batch.rows(), 0u32)?;
        let (mut kept, mut end) = (0, batch.rows());
        for row in 0..batch.rows() {
            let key = keys.bytes(row);
            if key < last.map_or(&self.last[..], |row| keys.bytes(row)) {
                let verdict = faults.push(Fault {
                    row: row as u32,
                    code: codes::NOT_SORTED,
                    span: None,
                    column: None,
                    message: "`merge` needs the rows of each stream sorted by its keys, and this one is before the row that came before it",
                    help: Some("`sort` by the same keys in that stream, before the `merge`"),
                    byte: None,
                    record: false,
                })?;
                if verdict == Verdict::Stop {
                    end = row;
                    break;
                }
                continue;
            }
            last = Some(row);
            keep[kept] = row as u32;
            kept += 1;
        }
        let rows = match kept {
            0 => None,
            all if all == batch.rows() => Some(batch),
            _ if kept == end => Some(batch.head(end, arena)?),
            _ => Some(batch.gather(&keep[..kept], own.len(), arena)?),
        };
        // Only now: a refusal must leave the state as it was.
        if let Some(row) = last {
            let key = keys.bytes(row);
            let more = key.len().saturating_sub(self.last.len());
            self.reservation
                .room(&mut self.last, more)
                .map_err(|e| codes::held("merge", e))?;
            self.last.clear();
            self.last.extend_from_slice(key);
        }
        Ok((rows, Flow::More))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::values;
    use super::*;
    use proptest::prelude::*;
    use standpipe_sdk::spec::{Item, Room};
    use standpipe_sdk::{Schema, Type, Value};

    fn columns() -> Schema {
        schema(&[("id", INT), ("k", Type::Float), ("s", STRING)])
    }

    fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
        let key = |&(at, descending): &(usize, bool)| Item {
            descending,
            ..column(at)
        };
        keys.iter().map(key).collect()
    }

    fn bound(keys: &[(usize, bool)]) -> Bound {
        let by = keyed(keys);
        bind(&Call {
            by: &by,
            ..call(&columns(), 3, &[])
        })
        .unwrap()
    }

    /// The check alone.
    fn checks(keys: &[(usize, bool)]) -> Bound {
        let mut bound = bound(keys);
        if let Make::Merge(merging) = bound.make {
            bound.make = Make::Serial(merging.check);
        }
        bound
    }

    /// Where a value stands: numbers, nan, null, whatever the direction.
    fn rank(value: &Value, descending: bool) -> (u8, f64) {
        match value {
            Value::Float(v) if v.is_nan() => (1, 0.0),
            Value::Float(v) => (0, if descending { -v } else { *v }),
            _ => (2, 0.0),
        }
    }

    proptest! {
        #[test]
        fn rows_out_of_order_are_bad_and_the_others_compared_with_the_last_good_one(
            keys in proptest::collection::vec(0u8..7, 0..40),
            descending in any::<bool>(),
            chunk in 0usize..4,
        ) {
            let value = |key: u8| match key {
                5 => Value::Float(f64::NAN),
                6 => NULL,
                key => Value::Float(f64::from(key)),
            };
            let rows: Rows = keys.iter().enumerate().map(|(id, &key)| vec![int(id as i64), value(key), text("x")]).collect();
            let (mut good, mut bad): (Rows, Vec<u64>) = (vec![], vec![]);
            for row in &rows {
                let in_order = good.last().is_none_or(|last| rank(&last[1], descending) <= rank(&row[1], descending));
                let Value::Int(id) = row[0] else { panic!("an int") };
                if in_order { good.push(row.clone()) } else { bad.push(id as u64) }
            }
            let bound = checks(&[(1, descending)]);
            let got = run(&bound, &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(format!("{:?}", got.rows), format!("{good:?}"));
            prop_assert_eq!(got.faults.iter().map(|f| f.0).collect::<Vec<_>>(), bad.clone());
            prop_assert!(got.faults.iter().all(|f| f.1 == codes::NOT_SORTED));
            let first = run_until_first_fault(&bound, &columns(), &rows, usize::MAX);
            let before = bad.first().map_or(rows.len(), |&id| id as usize);
            prop_assert_eq!(format!("{:?}", first.rows), format!("{:?}", &rows[..before]));
        }
    }

    #[test]
    fn a_refused_batch_is_looked_at_again() {
        let rows: Rows = (0..300)
            .map(|i| {
                vec![
                    int(i),
                    Value::Float((i / 3) as f64),
                    text("a text that is longer than a view"),
                ]
            })
            .collect();
        every_refusal_can_be_repeated(&checks(&[(1, false), (2, true)]), &columns(), &rows);
    }

    #[test]
    fn there_is_room_for_the_last_key_whatever_others_take() {
        let Make::Merge(merging) = bound(&[(0, false)]).make else {
            panic!("a merge")
        };
        let setup = setup(1 << 20);
        let room = Room {
            bytes: setup.budget.limit(),
            share: setup.share,
            workers: 1,
            max_record: setup.max_record,
            columns: 3,
        };
        let own = setup.with_floor((merging.least)(&room).takes).unwrap();
        let mut others = setup.budget.reserve();
        others.grow(setup.budget.free()).unwrap();
        let mut check = (merging.check)(&own).unwrap();
        let arena = Arena::new(64 << 10);
        let rows: Rows = (0..3).map(|id| vec![int(id), NULL, NULL]).collect();
        let batch = values::batch(&columns(), &rows, &arena).unwrap();
        let batch = check.prepare().unwrap().prepare(batch, &arena).unwrap();
        let (rows, _) = check.step(batch, &arena, &Faults::new(&arena, false)).unwrap();
        assert_eq!(rows.unwrap().rows(), 3);
    }

    #[test]
    fn the_order_is_known_behind_it() {
        assert_eq!(bound(&[(1, true), (0, false)]).sorted_by, [(1, true), (0, false)]);
        let lists = schema(&[("l", Type::list(INT, true))]);
        let by = keyed(&[(0, false)]);
        let no_order = bind(&Call {
            by: &by,
            ..call(&lists, 1, &[])
        });
        assert_eq!(codes_of(no_order), [codes::NO_KEY]);
    }
}
