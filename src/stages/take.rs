//! `take n (by k)`: the first rows, of all or of each group.
//!
//! Laws
//! - Without `by` it says `Done` with its last row: nothing behind it is claimed.
//! - With `by` it cannot know the end; it holds a key and a count per group.

use super::codes;
use super::groups::{self, Groups};
use super::keys;
use super::rowkeys::KeyMaker;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Item, Items, Kind, Make, Memory, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Faults, Flow, Prepare, Serial, Value};

/// `take`.
pub const SPEC: StageSpec = StageSpec {
    name: "take",
    about: "The first rows; with `by`, the first of each group",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    memory: Memory::Groups,
    examples: &[
        Example {
            script: "from range(1, 100) | take 2",
            output: "value\n1\n2\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | take 1 by k"#,
            output: "k,n\na,1\nb,3\n",
        },
    ],
    bind: &bind,
    class: |call| Some(groups::class(&SPEC, call)),
    filters: |call| keys::filters(call, call.by),
    first: |call| match (call.by, call.items) {
        ([], [item]) => rows_of(item),
        _ => None,
    },
    ..StageSpec::BASE
};

/// A number of rows.
fn rows_of(item: &Item) -> Option<u64> {
    match item.arg {
        Arg::Const(Value::Int(rows)) => u64::try_from(rows).ok(),
        _ => None,
    }
}

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    bind_as(call, "take", false)
}

/// Binds `take` or, with `rest`, `skip`.
pub(super) fn bind_as(call: &Call<'_>, stage: &'static str, rest: bool) -> Result<Bound, Vec<Complaint>> {
    let (rows, reads) = rows_of_groups(call, stage)?;
    let own = call.own;
    let by = reads.clone();
    let maker = KeyMaker::of(call, &by);
    let make = move |setup: &standpipe_sdk::spec::Setup| -> Result<Box<dyn Serial>> {
        Ok(match (by.is_empty(), rest) {
            (true, false) => Box::new(Take { left: rows, own }),
            (true, true) => Box::new(Skip { left: rows, own }),
            (false, rest) => Box::new(PerGroup {
                groups: Groups::new(stage, maker.clone(), &setup.budget),
                rows,
                rest,
                own,
            }),
        })
    };
    Ok(Bound::keeps(call, reads, Make::Serial(Box::new(make))))
}

/// So many rows of each group, and the columns that make one.
pub(super) fn rows_of_groups(call: &Call<'_>, stage: &str) -> Result<(u64, Vec<usize>), Vec<Complaint>> {
    let mut complaints = vec![];
    let rows = count(call, stage, &mut complaints);
    let by = keys::groups(call, &mut complaints);
    match rows {
        Some(rows) if complaints.is_empty() => Ok((rows, by)),
        _ => Err(complaints),
    }
}

/// The first item, a number of rows.
pub(super) fn count(call: &Call<'_>, stage: &str, complaints: &mut Vec<Complaint>) -> Option<u64> {
    let item = call.items.first()?;
    let Arg::Const(Value::Int(rows)) = item.arg else {
        complaints.push(Complaint::new(
            codes::WRONG_ARGUMENT,
            item.span,
            format!("`{stage}` takes a number of rows"),
            "not a whole number",
        ));
        return None;
    };
    let rows = u64::try_from(rows);
    if rows.is_err() {
        complaints.push(Complaint::new(
            codes::WRONG_ARGUMENT,
            item.span,
            format!("`{stage}` takes a number of rows from 0 on"),
            "this is negative",
        ));
    }
    rows.ok()
}

struct Take {
    left: u64,
    own: usize,
}

impl Serial for Take {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let rows = (batch.rows() as u64).min(self.left);
        let head = batch
            .with_columns(&batch.columns()[..self.own])
            .head(rows as usize, arena)?;
        self.left -= rows;
        let flow = if self.left == 0 { Flow::Done } else { Flow::More };
        Ok(((rows > 0).then_some(head), flow))
    }
}

struct Skip {
    left: u64,
    own: usize,
}

impl Serial for Skip {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let gone = (batch.rows() as u64).min(self.left);
        let stay = batch.rows() - gone as usize;
        let tail = batch
            .with_columns(&batch.columns()[..self.own])
            .slice(gone as usize, stay, arena)?;
        self.left -= gone;
        Ok(((stay > 0).then_some(tail), Flow::More))
    }
}

/// The first `rows` rows of each group, or the rest.
struct PerGroup {
    groups: Groups,
    rows: u64,
    rest: bool,
    own: usize,
}

impl Serial for PerGroup {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(self.groups.prepare())
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        // What can be refused comes before the counting; the gathering behind it takes its counts back.
        let ids = self.groups.of(&batch, arena)?;
        let stay = arena.fill(batch.rows(), 0u32)?;
        let mut count = 0;
        for (row, &id) in ids.iter().enumerate() {
            if (self.groups.count(id) < self.rows) != self.rest {
                stay[count] = row as u32;
                count += 1;
            }
        }
        if count == 0 {
            return Ok((None, Flow::More));
        }
        if count == batch.rows() {
            return Ok((Some(batch.with_columns(&batch.columns()[..self.own])), Flow::More));
        }
        match batch.gather(&stay[..count], self.own, arena) {
            Ok(rows) => Ok((Some(rows), Flow::More)),
            Err(error) => {
                self.groups.uncount(ids);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Item;

    fn rows() -> Rows {
        (0..100)
            .map(|i| {
                vec![
                    int(i),
                    if i % 11 == 3 {
                        NULL
                    } else {
                        text(&format!("group {}", i % 7))
                    },
                ]
            })
            .collect()
    }

    fn bound(n: i64, by: &[Item]) -> Bound {
        let schema = schema(&[("id", INT), ("k", STRING)]);
        bind(&Call {
            by,
            ..call(&schema, 2, &[constant(int(n))])
        })
        .unwrap()
    }

    #[test]
    fn the_first_rows_and_then_done() {
        let schema = schema(&[("id", INT), ("k", STRING)]);
        for n in [0, 1, 7, 50, 100, 1000] {
            for chunk in CHUNKS {
                let got = run(&bound(n, &[]), &schema, &rows(), chunk);
                assert_eq!(got.rows, rows()[..(n as usize).min(100)]);
                assert_eq!(got.done, n <= 100);
            }
        }
        let negative = [constant(int(-1))];
        assert_eq!(codes_of(bind(&call(&schema, 2, &negative))), [codes::WRONG_ARGUMENT]);
    }

    #[test]
    fn the_first_rows_of_each_group_nulls_being_one() {
        let schema = schema(&[("id", INT), ("k", STRING)]);
        let mut seen: Vec<(standpipe_sdk::Value, usize)> = vec![];
        let want: Rows = rows()
            .into_iter()
            .filter(|row| match seen.iter_mut().find(|(k, _)| *k == row[1]) {
                Some((_, n)) => {
                    *n += 1;
                    *n <= 2
                }
                None => {
                    seen.push((row[1].clone(), 1));
                    true
                }
            })
            .collect();
        assert_eq!(want.len(), 16);
        for chunk in CHUNKS {
            assert_eq!(run(&bound(2, &[column(1)]), &schema, &rows(), chunk).rows, want);
        }
        every_refusal_can_be_repeated(&bound(2, &[column(1)]), &schema, &rows());
    }

    #[test]
    fn too_many_groups_name_the_stage() {
        let schema = schema(&[("id", INT), ("k", STRING)]);
        let rows: Rows = (0..10_000)
            .map(|i| vec![int(i), text(&format!("a key of its own {i}"))])
            .collect();
        let error = try_run(&bound(1, &[column(1)]), &schema, &rows, 100, 200_000).unwrap_err();
        assert!(error.to_string().contains("`take` needs"), "{error}");
    }
}
