//! Functions and stages that do what plugins should not do, and a few that are only unusual.

pub mod aggregates;
mod sinks;

use sinks::{Keeps, Lines};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::prelude::*;
use standpipe_sdk::spec::StageSpec;
use std::time::Duration;

/// Panics at the number 3.
#[scalar]
pub fn sour(x: i64) -> i64 {
    assert!(x != 3, "three is too much");
    x
}

/// Looks at nulls itself.
#[scalar]
pub fn nil(x: Option<i64>, y: Option<&str>) -> Option<bool> {
    match (x, y) {
        (None, None) => Some(true),
        (Some(_), Some(_)) => Some(false),
        _ => None,
    }
}

/// Joins what it gets, or fails.
#[scalar(name = "glue")]
pub fn joined(a: &str, b: bool, c: f64) -> Result<String, String> {
    if c < 0.0 {
        return Err(format!("{c} is below zero"));
    }
    Ok(format!("{a}/{b}/{c}"))
}

/// Says whether a number is even.
#[scalar]
pub fn even(x: i64) -> bool {
    x % 2 == 0
}

/// An odd number for each number.
#[scalar]
pub fn odd_one(x: i64) -> i64 {
    x.wrapping_mul(2).wrapping_add(1)
}

/// Panics where it is told to.
#[derive(Params)]
pub struct Panics {
    /// bind, create, push or drop
    at: String,
}

struct Bomb {
    in_push: bool,
    in_drop: bool,
}

impl Transform for Panics {
    const NAME: &'static str = "panics";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        assert!(self.at != "bind", "no binding");
        let at = self.at;
        let make = Make::RowWise(Box::new(move |_| {
            assert!(at != "create", "no creation");
            Ok(Box::new(Bomb {
                in_push: at == "push",
                in_drop: at == "drop",
            }))
        }));
        Ok(Bound::keeps(call, vec![], make))
    }
}

impl RowWise for Bomb {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        if self.in_push {
            // What a panic carries may be anything.
            std::panic::panic_any(Box::new(7));
        }
        out.last(batch)
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.in_drop, "no end");
    }
}

/// Keeps everything it sees.
#[derive(Params)]
pub struct Hoards;

struct Hoard(Vec<Vec<u8>>);

impl Transform for Hoards {
    const NAME: &'static str = "hoards";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        Ok(Bound::keeps(
            call,
            vec![],
            Make::Serial(Box::new(|_| Ok(Box::new(Hoard(vec![]))))),
        ))
    }
}

impl Serial for Hoard {
    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        self.0.push(vec![1; batch.rows() * 100]);
        Ok((Some(batch), Flow::More))
    }
}

/// Gives the last row, at the end.
#[derive(Params)]
pub struct Last {
    /// the column to give
    column: ColumnArg,
}

struct Latest {
    at: usize,
    value: Option<String>,
}

impl Transform for Last {
    const NAME: &'static str = "last";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        self.column.must_be(call, &Type::String)?;
        let at = self.column.at;
        let make = Make::Serial(Box::new(move |_| Ok(Box::new(Latest { at, value: None }))));
        let mut bound = Bound::adds(call, &[Field::new("last", Type::String, true)], vec![at], make);
        // Only that one.
        bound.schema = bound.schema.fields().last().cloned().into_iter().collect();
        bound.lineage.drain(..call.own);
        Ok(bound)
    }
}

impl Serial for Latest {
    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let column = batch.column(self.at);
        if let (Some(row), Data::String(text)) = (batch.rows().checked_sub(1), column.data()) {
            self.value = column.is_valid(row).then(|| text.str(row).to_owned());
        }
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let arena = out.arena();
        let mut text = TextBuilder::new(arena, 1, 0)?;
        text.push(self.value.as_deref().unwrap_or(""))?;
        let valid = Bits::collect(arena, 1, |_| self.value.is_some())?;
        let column = arena.fill(1, Column::string(text.finish()?, Some(valid)))?;
        out.last(Batch::new(column, None, 1)).map(drop)
    }
}

/// Loses the places of its rows.
#[derive(Params)]
pub struct Lost;

struct Losing;

impl Transform for Lost {
    const NAME: &'static str = "lost";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        Ok(Bound::keeps(
            call,
            vec![],
            Make::RowWise(Box::new(|_| Ok(Box::new(Losing)))),
        ))
    }
}

impl RowWise for Losing {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        out.last(Batch::new(batch.columns(), None, batch.rows()))
    }
}

/// A stage of a kind that does not cross the boundary.
pub struct Sorts;

impl Stage for Sorts {
    const SPEC: StageSpec = StageSpec {
        name: "sorts",
        about: "Cannot be",
        bind: &|call| Ok(Bound::keeps(call, vec![], Make::Wiring)),
        ..StageSpec::BASE
    };
}

/// Gives one row at a time, after it had nothing; three in each of two splits.
#[derive(Params)]
pub struct Drips {
    /// what it does at its second row: nothing, panic, fail, crowd, null, wait
    #[param(default = "nothing")]
    does: String,
}

struct Drip {
    does: String,
    at: i64,
    end: i64,
    dry: bool,
}

impl Origin for Drips {
    const NAME: &'static str = "drips";

    fn bind(self, _: &Call<'_>) -> Result<Splits, Vec<Complaint>> {
        Ok(Splits {
            schema: [Field::new("n", Type::Int, false)].into_iter().collect(),
            count: 2,
            open: Box::new(move |_, split| {
                let at = i64::from(split) * 3;
                let does = self.does.clone();
                Ok(Box::new(Drip {
                    does,
                    at,
                    end: at + 3,
                    dry: false,
                }))
            }),
        })
    }
}

impl Split for Drip {
    fn next<'a>(&mut self, arena: &'a Arena, max_rows: usize) -> Result<Next<'a>> {
        self.dry = !self.dry;
        if self.dry {
            return Ok(Next::Pending(Duration::from_millis(2)));
        }
        if self.at == self.end {
            return Ok(Next::End);
        }
        let mut rows = 1;
        let mut valid = None;
        if self.at == 1 {
            match self.does.as_str() {
                "panic" => panic!("no more drips"),
                "fail" => return Err(Error::failed(standpipe_sdk::Code(805), "the tap is shut")),
                "crowd" => rows = max_rows + 1,
                "null" => valid = Some(Bits::all(arena, 1, false)?),
                "wait" => return Ok(Next::Pending(Duration::from_secs(3600))),
                _ => {}
            }
        }
        let numbers = arena.fill(rows, self.at)?;
        let column = arena.fill(1, Column::int(numbers, valid))?;
        Ok(Next::Rows(Batch::new(column, None, rows)))
    }

    fn advance(&mut self, rows: usize) {
        self.at += rows as i64;
    }
}

standpipe_sdk::export! {
    id: "odd",
    functions: [sour, nil, joined, even, odd_one],
    stages: [Panics, Hoards, Last, Lost, Sorts],
    sources: [Drips],
    sinks: [Keeps, Lines],
    aggregates: [
        aggregates::Plain,
        aggregates::PanicsInBind,
        aggregates::PanicsInUpdate,
        aggregates::PanicsInMerge,
        aggregates::PanicsInWrite,
        aggregates::PanicsInValue,
        aggregates::PanicsInDrop,
        aggregates::Nulls,
        aggregates::Types,
        aggregates::Fails,
        aggregates::Lies,
        aggregates::Lasts,
        aggregates::Halves,
        aggregates::Changes,
        aggregates::Swells,
    ],
}
