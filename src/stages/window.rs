//! `window x = lag(a), r = sum(b) rows: -6..0 by k`: what each row has of the rows around it. `window tumble 5m, n = count() on at by k`:
//! groups of rows within a time.
//!
//! Rows stay in their order, with one more column per call. Frames that look back only go through one batch after the other; others
//! are put in the order of the groups, and back again, by two sorts that spill.
//!
//! Whole groups go to disk where they must. Frames that look back only hold the rows they may still look at, windows in time hold those that are
//! open: for some of them there is memory whatever others take; beyond that a refusal ends the run (E0701).
//!
//! Laws
//! - The stage knows no aggregate by name.
//! - What a row gets hangs on the rows of its group and their order alone: not on batches, lanes, or what was on disk.

mod ahead;
mod frames;
mod numbers;
mod stream;
#[cfg(test)]
mod tests;
mod time;

use super::aggregate;
use super::codes;
use super::keys;
use super::rowkeys::KeyMaker;
use frames::{Asked, Frame};
use numbers::{Number, Ranked};
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    AggregateArg, Arg, ArgKind, Bound, Call, Class, Complaint, Example, Item, Items, Kind, Lineage, Make, Memory,
    Names, Order, Param, Setup, StageSpec, Want, WindowFunction,
};
use standpipe_sdk::{Field, Serial, Span, Type};
use std::sync::Arc;

const STAGE: &str = "window";

/// `window`.
pub const SPEC: StageSpec = StageSpec {
    name: STAGE,
    about: "Adds what each row has of the rows around it; `tumble`, `hop` and `session` make groups of rows within a time, sorted by \
            `window_end`, then the keys",
    modes: &["tumble", "hop", "session"],
    kind: Kind::Breaker,
    items: Items {
        names: Names::Always,
        ..Items::some(
            ArgKind::Window,
            1,
            usize::MAX,
            "`name = expression` over aggregates, `lag`, `lead`, `row_number`, `rank`, `dense_rank`; behind a mode word durations first",
        )
    },
    by: Items {
        names: Names::Optional,
        ..Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group")
    },
    on: Items::some(
        ArgKind::Expr(Want::Any),
        0,
        1,
        "the time of a row, for `tumble`, `hop` and `session`",
    ),
    options: &[
        Param::new(
            "rows",
            ArgKind::Frame,
            None,
            "the frame of aggregates, in rows from a row's own; without it `..0`: all rows up to it",
        ),
        Param::new(
            "late",
            ArgKind::Const(Want::Duration),
            None,
            "how far a row's time may be before the latest one so far; a row further behind is a row error",
        ),
    ],
    order: Order::Keeps,
    memory: Memory::Spill,
    examples: &[
        Example {
            script: "from rows [{n: 1}, {n: 4}, {n: 9}] | window d = n - lag(n), total = sum(n), near = avg(n) rows: -1..0",
            output: "n,d,total,near\n1,,1,1.0\n4,3,5,2.5\n9,5,13,6.5\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 5}, {k: "a", n: 3}] | window share = n / sum(n) rows: .. by k"#,
            output: "k,n,share\na,1,0.25\nb,5,1.0\na,3,0.75\n",
        },
        Example {
            script: "from rows [{n: 7}, {n: 7}, {n: 3}] | sort -n | window r = rank(n), d = dense_rank(n), i = row_number()",
            output: "n,r,d,i\n7,1,1,1\n7,1,1,2\n3,3,2,3\n",
        },
        Example {
            script: "from rows [{at: @2026-01-01T00:01:00Z}, {at: @2026-01-01T00:04:00Z}, {at: @2026-01-01T00:06:00Z}] | window tumble 5m, n = count() on at",
            output: "window_start,window_end,n\n2026-01-01T00:00:00Z,2026-01-01T00:05:00Z,2\n2026-01-01T00:05:00Z,2026-01-01T00:10:00Z,1\n",
        },
    ],
    bind: &bind,
    class: |call| Some(class(call)),
    ..StageSpec::BASE
};

fn class(call: &Call<'_>) -> Class {
    let of_rows = Class {
        order: Order::Keeps,
        memory: Memory::Frame,
        holds_back: false,
        least: stream::least,
        takes_more: 0,
    };
    match call.mode {
        Some(_) => Class {
            order: Order::Creates,
            memory: Memory::Windows,
            holds_back: true,
            least: time::least,
            takes_more: time::takes_more(call),
        },
        None if Plan::looks_ahead(call) => Class {
            memory: Memory::Spill,
            least: ahead::least(Plan::totals_of(call), Plan::goes_twice(call)),
            ..of_rows
        },
        None => of_rows,
    }
}

/// Where the column of a call comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// Number in [`Plan::asked`].
    Frames(usize),
    /// Number in [`Plan::numbers`].
    Numbers(usize),
    /// Number in [`Plan::totals`].
    Totals(usize),
}

/// A call as the script has it.
struct Called {
    from: From,
    span: Span,
    field: Field,
}

/// What a window of rows needs of its arguments.
struct Plan {
    own: usize,
    by: Vec<usize>,
    from: Option<i64>,
    to: Option<i64>,
    calls: Vec<Called>,
    asked: Vec<Asked>,
    numbers: Vec<Number>,
    /// Aggregates over whole groups.
    totals: Vec<(AggregateArg, Span)>,
    width: usize,
}

impl Plan {
    /// The frame that is followed, rows coming in their order.
    fn frame(&self) -> Frame {
        Frame {
            from: self.from,
            to: self.to.unwrap_or(0),
        }
    }

    /// The first call of which `is` holds.
    fn call_of(&self, is: impl Fn(From) -> bool) -> usize {
        self.calls.iter().position(|call| is(call.from)).unwrap_or(usize::MAX)
    }

    /// The frame as written.
    fn written(call: &Call<'_>) -> (Option<i64>, Option<i64>) {
        match call.option("rows").map(|option| &option.arg) {
            Some(&Arg::Frame(from, to)) => (from, to),
            _ => (None, Some(0)),
        }
    }

    /// Whether some row needs rows behind it.
    fn looks_ahead(call: &Call<'_>) -> bool {
        let frame = Plan::written(call).1.is_none_or(|to| to > 0);
        call.items.iter().any(|item| match &item.arg {
            Arg::Aggregate(_) => frame,
            Arg::Window(window) => window.function == WindowFunction::Lead && window.rows > 0,
            _ => false,
        })
    }

    /// Where aggregates are over whole groups: whether a value of them may be as long as a row.
    fn totals_of(call: &Call<'_>) -> Option<bool> {
        let is_long = |item: &Item| match &item.arg {
            Arg::Aggregate(arg) => Some(aggregate::is_long(arg.aggregate.ty())),
            _ => None,
        };
        let whole = Plan::written(call) == (None, None);
        let longs = call.items.iter().filter(|_| whole).filter_map(is_long);
        longs.reduce(|a, b| a | b)
    }

    /// The same of a plan that has such aggregates.
    fn makes_long(&self) -> bool {
        self.totals
            .iter()
            .any(|(arg, _)| aggregate::is_long(arg.aggregate.ty()))
    }

    /// Rows are numbered from the first to the last of a group, and followed from the last to the first.
    fn goes_twice(call: &Call<'_>) -> bool {
        use WindowFunction::{DenseRank, Rank, RowNumber};
        let aggregate = |item: &Item| matches!(item.arg, Arg::Aggregate(_));
        let number = |item: &Item| matches!(&item.arg, Arg::Window(window) if matches!(window.function, RowNumber | Rank | DenseRank));
        let (from, to) = Plan::written(call);
        from.is_some() && to.is_none() && call.items.iter().any(aggregate) && call.items.iter().any(number)
    }
}

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    if let Some(mode) = call.mode {
        return time::bind(call, mode);
    }
    let mut complaints = vec![];
    let wrong = |span, message: &str, label: &str| Complaint::new(codes::WRONG_ARGUMENT, span, message, label);
    if let Some(on) = call.on.first() {
        complaints.push(
            wrong(on.span, "a window of rows takes no `on`", "nothing here hangs on time")
                .help("`window tumble 5m, … on at` makes windows in time, `by` groups of rows"),
        );
    }
    if let Some(late) = call.option("late") {
        complaints.push(
            wrong(
                late.span,
                "a window of rows takes no `late:`",
                "nothing here hangs on time",
            )
            .help("`window tumble 5m, … on at late: 1m` makes windows in time"),
        );
    }
    let (from, to) = Plan::written(call);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let span = call.option("rows").map_or(call.span, |option| option.span);
        complaints.push(
            wrong(span, "the frame ends before it starts", "no row is in it").help(format!("`rows: {to}..{from}`")),
        );
    }
    let by = keys::grouping(call, call.by).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    });
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let plan = plan(call, by, from, to);
    let mut reads = plan.by.clone();
    for item in call.items {
        match &item.arg {
            Arg::Aggregate(arg) => reads.extend(arg.columns.iter().copied().chain(arg.filter)),
            Arg::Window(window) => reads.extend(window.column),
            _ => {}
        }
    }
    reads.sort_unstable();
    reads.dedup();
    let schema = call
        .own_fields()
        .iter()
        .chain(plan.calls.iter().map(|call| &call.field))
        .cloned()
        .collect();
    let lineage = (0..call.own).map(Lineage::From);
    let lineage = lineage.chain(plan.calls.iter().map(|_| Lineage::New)).collect();
    let fallible = call
        .items
        .iter()
        .any(|item| matches!(&item.arg, Arg::Aggregate(arg) if arg.aggregate.fallible()));
    let ranked = plan.numbers.iter().any(|number| matches!(number, Number::Rank(_)));
    let make = match Plan::looks_ahead(call) {
        true => ahead::make(plan, call),
        false => {
            let maker = KeyMaker::new(&plan.by, |at| call.input.get(at).map(|field| &field.ty));
            let plan = Arc::new(plan);
            Make::Serial(Box::new(move |setup: &Setup| -> Result<Box<dyn Serial>> {
                let maker = (!plan.by.is_empty()).then_some(&maker);
                Ok(Box::new(stream::Stream::new(&plan, maker, setup)))
            }))
        }
    };
    Ok(Bound {
        schema,
        lineage,
        reads,
        sorted_by: vec![],
        make,
        needs_places: fallible || ranked,
    })
}

fn plan(call: &Call<'_>, by: Vec<usize>, from: Option<i64>, to: Option<i64>) -> Plan {
    let mut plan = Plan {
        own: call.own,
        by,
        from,
        to,
        calls: vec![],
        asked: vec![],
        numbers: vec![],
        totals: vec![],
        width: call.input.width(),
    };
    for item in call.items {
        let name = item.name.clone().unwrap_or_else(|| "".into());
        let (from, ty, nullable) = match &item.arg {
            Arg::Aggregate(arg) => {
                let from = match to {
                    None if from.is_none() => {
                        plan.totals.push((arg.clone(), item.span));
                        From::Totals(plan.totals.len() - 1)
                    }
                    _ => {
                        plan.asked.push(Asked::Aggregate(arg.clone()));
                        From::Frames(plan.asked.len() - 1)
                    }
                };
                (from, arg.aggregate.ty().clone(), arg.nullable)
            }
            Arg::Window(window) => {
                let column = window.column.unwrap_or(0);
                let field = window.column.and_then(|at| call.input.get(at));
                let ty = field.map_or(Type::Null, |field| field.ty.clone());
                let behind = i64::try_from(window.rows).unwrap_or(i64::MAX);
                match window.function {
                    WindowFunction::Lag | WindowFunction::Lead => {
                        let lead = window.function == WindowFunction::Lead;
                        plan.asked.push(Asked::Value {
                            column,
                            behind: if lead { behind } else { -behind },
                        });
                        (From::Frames(plan.asked.len() - 1), ty, window.nullable)
                    }
                    WindowFunction::RowNumber => {
                        plan.numbers.push(Number::Row);
                        (From::Numbers(plan.numbers.len() - 1), Type::Int, false)
                    }
                    WindowFunction::Rank | WindowFunction::DenseRank => {
                        plan.numbers.push(Number::Rank(Ranked {
                            column,
                            field: field.cloned().unwrap_or_else(|| Field::new("", Type::Null, true)),
                            dense: window.function == WindowFunction::DenseRank,
                        }));
                        (From::Numbers(plan.numbers.len() - 1), Type::Int, false)
                    }
                }
            }
            _ => continue,
        };
        plan.calls.push(Called {
            from,
            span: item.span,
            field: Field::new(name, ty, nullable),
        });
    }
    plan
}
