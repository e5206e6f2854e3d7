//! `tap "label"`: says on stderr how many rows came by, and shows the first ones.
//!
//! Laws
//! - Rows pass as they came. The sample is bounded in rows and in text; nothing is said before the run has seen all rows.

use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Items, Kind, Make, Memory, Say, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Cell, Emitter, Faults, Flow, Schema, Serial, Type, Value};
use std::fmt::{self, Write};
use std::sync::Arc;

/// `tap`.
pub const SPEC: StageSpec = StageSpec {
    name: "tap",
    about: "Passes rows on and says on stderr how many they were and what the first ones look like",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::String), 0, 1, "a label to tell taps apart"),
    memory: Memory::Constant,
    examples: &[Example {
        script: "from range(1, 2) | tap \"numbers\"",
        output: "value\n1\n2\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

/// How many rows are shown.
const SAMPLE_ROWS: usize = 5;
/// How much of each, in bytes.
const SAMPLE_BYTES: usize = 400;

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let label: Arc<str> = match call.items.first().map(|item| &item.arg) {
        Some(Arg::Const(Value::String(label))) => label.as_str().into(),
        _ => "tap".into(),
    };
    let schema: Schema = call.own_fields().iter().cloned().collect();
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        Ok(Box::new(Tap {
            label: label.clone(),
            schema: schema.clone(),
            say: setup.say.clone(),
            rows: 0,
            shown: 0,
            sample: String::with_capacity(SAMPLE_ROWS * (SAMPLE_BYTES + 16)),
        }))
    };
    Ok(Bound::keeps(
        call,
        (0..call.own).collect(),
        Make::Serial(Box::new(make)),
    ))
}

struct Tap {
    label: Arc<str>,
    schema: Schema,
    say: Say,
    rows: u64,
    shown: usize,
    sample: String,
}

impl Serial for Tap {
    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        for row in 0..batch.rows().min(SAMPLE_ROWS - self.shown) {
            let mut line = Line {
                text: &mut self.sample,
                left: SAMPLE_BYTES,
            };
            // An error means that the line is full.
            let whole = show_row(&batch, row, &self.schema, &mut line).is_ok();
            self.sample.push_str(if whole { "\n" } else { "…\n" });
            self.shown += 1;
        }
        self.rows += batch.rows() as u64;
        let own = self.schema.width();
        Ok((Some(batch.with_columns(&batch.columns()[..own])), Flow::More))
    }

    fn finish<'a>(&mut self, _: &mut Emitter<'_, 'a>) -> Result<()> {
        let rows = if self.rows == 1 { "row" } else { "rows" };
        (self.say)(&format!("{}: {} {rows}\n{}", self.label, self.rows, self.sample));
        Ok(())
    }
}

/// Text of limited length.
struct Line<'t> {
    text: &'t mut String,
    left: usize,
}

impl Write for Line<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if s.len() <= self.left {
            self.left -= s.len();
            self.text.push_str(s);
            return Ok(());
        }
        let cut = (0..=self.left).rev().find(|&at| s.is_char_boundary(at)).unwrap_or(0);
        self.left = 0;
        self.text.push_str(&s[..cut]);
        Err(fmt::Error)
    }
}

fn show_row(batch: &Batch<'_>, row: usize, schema: &Schema, out: &mut impl Write) -> fmt::Result {
    out.write_str("  {")?;
    for (index, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(out, "{comma}{}: ", field.name)?;
        show(column.cell(row), &field.ty, out)?;
    }
    out.write_str("}")
}

/// A value as a script would write it, nearly.
fn show(cell: Cell<'_>, ty: &Type, out: &mut impl Write) -> fmt::Result {
    match (cell, ty) {
        (Cell::Null, _) => out.write_str("null"),
        (Cell::Bool(v), _) => write!(out, "{v}"),
        (Cell::Int(v), _) => write!(out, "{v}"),
        (Cell::Float(v), _) => write!(out, "{v:?}"),
        (Cell::Decimal(v), Type::Decimal { scale, .. }) => {
            let unit = 10u128.saturating_pow(u32::from(*scale));
            let sign = if v < 0 { "-" } else { "" };
            let (whole, part) = (v.unsigned_abs() / unit, v.unsigned_abs() % unit);
            match usize::from(*scale) {
                0 => write!(out, "{sign}{whole}"),
                width => write!(out, "{sign}{whole}.{part:0width$}"),
            }
        }
        (Cell::Decimal(v), _) => write!(out, "{v}"),
        (Cell::String(v), _) => write!(out, "{v:?}"),
        (Cell::Json(v), _) => out.write_str(v),
        (Cell::Bytes(v), _) => write!(out, "b\"{}\"", v.escape_ascii()),
        (Cell::Verbatim(v), _) => write!(out, "{}", String::from_utf8_lossy(v)),
        (Cell::Date(days), _) => {
            let epoch = jiff::civil::date(1970, 1, 1);
            match epoch.checked_add(jiff::Span::new().try_days(days).unwrap_or_default()) {
                Ok(date) => write!(out, "{date}"),
                Err(_) => write!(out, "day {days}"),
            }
        }
        (Cell::Timestamp(micros), _) => match jiff::Timestamp::from_microsecond(micros) {
            Ok(at) => write!(out, "{at}"),
            Err(_) => write!(out, "{micros}us"),
        },
        (Cell::Duration(micros), _) => write!(out, "{}s", micros as f64 / 1e6),
        (Cell::List(list), ty) => {
            let of = match ty {
                Type::List(item) => &item.ty,
                _ => &Type::Null,
            };
            out.write_str("[")?;
            for row in 0..list.len() {
                out.write_str(if row == 0 { "" } else { ", " })?;
                show(list.cell(row), of, out)?;
            }
            out.write_str("]")
        }
        (Cell::Record(columns, row), ty) => {
            let fields = match ty {
                Type::Record(schema) => schema.fields(),
                _ => &[],
            };
            out.write_str("{")?;
            for (index, (field, column)) in fields.iter().zip(columns).enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(out, "{comma}{}: ", field.name)?;
                show(column.cell(row), &field.ty, out)?;
            }
            out.write_str("}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn counts_and_the_first_rows_are_said_at_the_end() {
        let decimal = Type::Decimal { precision: 9, scale: 2 };
        let schema = schema(&[("n", INT), ("d", decimal), ("l", Type::list(Type::Date, true))]);
        let rows: Rows = (0..9)
            .map(|i| {
                vec![
                    int(i),
                    Value::Decimal { value: -5, scale: 2 },
                    Value::List(vec![Value::Date(i as i32), NULL]),
                ]
            })
            .collect();
        for chunk in CHUNKS {
            let bound = bind(&call(&schema, 3, &[constant(text("here"))])).unwrap();
            let got = run(&bound, &schema, &rows, chunk);
            assert_eq!(got.rows, rows);
            let lines: Vec<&str> = got.said.lines().collect();
            assert_eq!(lines.len(), 6);
            assert_eq!(lines[0], "here: 9 rows");
            assert_eq!(lines[5], "  {n: 4, d: -0.05, l: [1970-01-05, null]}");
        }
    }

    #[test]
    fn a_long_row_is_cut_at_a_character() {
        let schema = schema(&[("s", STRING)]);
        let bound = bind(&call(&schema, 1, &[])).unwrap();
        let got = run(&bound, &schema, &vec![vec![text(&"ü".repeat(1000))]], 1);
        assert!(got.said.starts_with("tap: 1 row\n  {s: \"üü") && got.said.ends_with("ü…\n"));
        assert!(got.said.len() < SAMPLE_BYTES + 20);
    }
}
