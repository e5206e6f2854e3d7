//! F-strings, and text made row by row.

use crate::expr::eval::{Cx, Val};
use crate::expr::format::Piece;
use standpipe_sdk::bits::both;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Bits, Column, Columns, Data, Result, Text};
use std::cell::Cell;

/// What the text of one row may keep between rows and batches, in bytes.
const KEPT: usize = 64 << 10;

thread_local! {
    // One buffer per worker, grown by the first rows, so that rows cost no allocation.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

/// A text column: `write` appends a row's text to an empty buffer, for the rows that are valid.
pub(in crate::expr) fn build<'a>(
    cx: &Cx<'_, 'a>,
    rows: usize,
    valid: Option<Bits<'a>>,
    mut write: impl FnMut(usize, &mut String),
) -> Result<Text<'a>> {
    let mut out = TextBuilder::new(cx.arena(), rows, rows * 16)?;
    let mut scratch = SCRATCH.take();
    let mut result = Ok(());
    for row in 0..rows {
        scratch.clear();
        if valid.is_none_or(|v| v.get(row)) {
            write(row, &mut scratch);
        }
        result = out.push(&scratch);
        if result.is_err() {
            break;
        }
    }
    scratch.clear();
    scratch.shrink_to(KEPT);
    SCRATCH.set(scratch);
    result?;
    out.finish()
}

/// `f"…"`: null where a value in it is.
pub(in crate::expr) fn format<'a>(cx: &Cx<'_, 'a>, pieces: &[Piece], active: Option<Bits<'a>>) -> Result<Val<'a>> {
    let mut columns = Columns::new(cx.arena(), pieces.len())?;
    let mut constants = Columns::new(cx.arena(), pieces.len())?;
    let mut valid = None;
    let mut null = false;
    for piece in pieces {
        let value = match piece {
            Piece::Text(_) => Val::null(),
            Piece::Value(e, _) => {
                let value = cx.eval(e, active)?;
                null |= value.is_null();
                valid = both(valid, value.valid(), cx.arena())?;
                value
            }
        };
        columns.push(value.column);
        // An empty column stands for "not constant".
        constants.push(if value.constant {
            Column::nulls(1)
        } else {
            Column::nulls(0)
        });
    }
    if null {
        return Ok(Val::null());
    }
    let (columns, constants) = (columns.finish(), constants.finish());
    let text = build(cx, cx.rows(), valid, |row, out| {
        for ((piece, column), constant) in pieces.iter().zip(columns).zip(constants) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(e, spec) => {
                    let at = if constant.is_empty() { row } else { 0 };
                    // Writing to a String cannot fail.
                    let _ = spec.write(out, &column.cell(at), &e.ty);
                }
            }
        }
    })?;
    Ok(Val::rows(Column::new(Data::String(text), valid, cx.rows())))
}
