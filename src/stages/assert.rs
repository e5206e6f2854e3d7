//! `assert expr, f"message"`: rows for which a condition is not true are bad rows.
//!
//! Laws
//! - False and null are both bad; good rows go on as they came, and without a copy if all are good.

use super::codes;
use super::filter::Truth;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{Arg, ArgKind, Bound, Call, Complaint, Example, Items, Kind, Make, StageSpec, Want};
use standpipe_sdk::{Batch, Cell, Emitter, Flow, RowWise, Value, Verdict};
use std::sync::Arc;

/// `assert`.
pub const SPEC: StageSpec = StageSpec {
    name: "assert",
    about: "Rows where a condition is false or null are row errors, with a message",
    kind: Kind::RowWise,
    items: Items::some(
        ArgKind::Each(&[ArgKind::Expr(Want::Bool), ArgKind::Expr(Want::String)]),
        1,
        2,
        "the condition and what to say of a row that fails it",
    ),
    examples: &[Example {
        script: "from rows [{n: 1}, {n: -2}, {n: null}] | assert n > 0, f\"n is {n}\" on error skip",
        output: "n\n1\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

/// What is said of a row if the script says nothing.
const DEFAULT_MESSAGE: &str = "the condition is not true";

#[derive(Clone)]
enum Message {
    Column(usize),
    Text(Arc<str>),
}

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let Some((condition, _)) = call.items.first().and_then(|item| call.column_of(item)) else {
        return Err(vec![]);
    };
    let mut reads = vec![condition];
    let message = match call.items.get(1).map(|item| &item.arg) {
        Some(&Arg::Column(index)) => {
            reads.push(index);
            Message::Column(index)
        }
        Some(Arg::Const(Value::String(text))) => Message::Text(text.as_str().into()),
        _ => Message::Text(DEFAULT_MESSAGE.into()),
    };
    let own = call.own;
    let make = move |_: &_| {
        let message = message.clone();
        Ok(Box::new(Assert {
            condition,
            message,
            own,
        }) as Box<dyn RowWise>)
    };
    Ok(Bound {
        needs_places: true,
        ..Bound::keeps(call, reads, Make::RowWise(Box::new(make)))
    })
}

struct Assert {
    condition: usize,
    message: Message,
    own: usize,
}

impl RowWise for Assert {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let truth = Truth::of(&batch.column(self.condition));
        let good = truth.count();
        if good == batch.rows() {
            return out.last(batch.with_columns(&batch.columns()[..self.own]));
        }
        let mut end = batch.rows();
        for row in (0..batch.rows()).filter(|&row| !truth.get(row)) {
            let text = match &self.message {
                Message::Text(text) => text,
                Message::Column(index) => match batch.column(*index).cell(row) {
                    Cell::String(text) => text,
                    _ => DEFAULT_MESSAGE,
                },
            };
            if out.reject(row, codes::ASSERT_FAILED, None, format_args!("{text}"))? == Verdict::Stop {
                end = row;
                break;
            }
        }
        let good = truth.indices(out.arena())?;
        let good = &good[..good.partition_point(|&row| (row as usize) < end)];
        if good.is_empty() {
            return Ok(Flow::More);
        }
        let rows = batch.gather(good, self.own, out.arena())?;
        out.last(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn false_and_null_are_bad_rows_with_the_message() {
        let schema = schema(&[("id", INT), ("ok", BOOL), ("why", STRING)]);
        let items = [column(1), column(2)];
        let bound = bind(&call(&schema, 1, &items)).unwrap();
        let rows: Rows = (0..20)
            .map(|i| {
                let ok = match i % 5 {
                    3 => NULL,
                    4 => bool(false),
                    _ => bool(true),
                };
                vec![int(i), ok, if i == 3 { NULL } else { text(&format!("row {i} is bad")) }]
            })
            .collect();
        for chunk in CHUNKS {
            let got = run(&bound, &schema, &rows, chunk);
            let want: Rows = (0..20).filter(|i| i % 5 < 3).map(|i| vec![int(i)]).collect();
            assert_eq!(got.rows, want);
            assert_eq!(got.faults.len(), 8);
            assert_eq!(got.faults[0], (3, codes::ASSERT_FAILED, DEFAULT_MESSAGE.to_string()));
            assert_eq!(got.faults[1], (4, codes::ASSERT_FAILED, "row 4 is bad".to_string()));
        }
        every_refusal_can_be_repeated(&bound, &schema, &rows);
        let first = run_until_first_fault(&bound, &schema, &rows, 20);
        assert_eq!(first.rows, [[int(0)], [int(1)], [int(2)]]);
        assert_eq!(first.faults.len(), 1);
    }
}
