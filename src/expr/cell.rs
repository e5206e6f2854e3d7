//! Cells as text: what `string(x)`, f-strings and `json(x)` give.

use crate::expr::scalar::print::{self, Buf};
use standpipe_sdk::{Cell, Type};
use std::fmt::{self, Write};

/// Appends the text of a scalar cell to `out`; `scale` is a decimal's. Lists and records become JSON.
pub(in crate::expr) fn plain(out: &mut String, cell: &Cell<'_>, ty: &Type) -> fmt::Result {
    let mut buf = Buf::default();
    match *cell {
        Cell::Null => return Ok(()),
        Cell::Bool(v) => return out.write_str(if v { "true" } else { "false" }),
        Cell::String(v) | Cell::Json(v) => return out.write_str(v),
        Cell::Bytes(v) | Cell::Verbatim(v) => return out.write_str(std::str::from_utf8(v).unwrap_or_default()),
        Cell::Int(v) => print::write_int(&mut buf, v),
        Cell::Float(v) => print::write_float(&mut buf, v),
        Cell::Decimal(v) => print::write_decimal(&mut buf, v, scale(ty)),
        Cell::Date(v) => print::write_date(&mut buf, v),
        Cell::Timestamp(v) => print::write_timestamp(&mut buf, v),
        Cell::Duration(v) => print::write_duration(&mut buf, v),
        Cell::List(_) | Cell::Record(..) => return json(out, cell, ty),
    }
    out.write_str(buf.as_str())
}

/// Appends a cell as JSON.
pub(in crate::expr) fn json(out: &mut String, cell: &Cell<'_>, ty: &Type) -> fmt::Result {
    match *cell {
        Cell::Null => out.write_str("null"),
        Cell::Float(v) if !v.is_finite() => out.write_str("null"),
        Cell::Json(v) => out.write_str(v),
        Cell::Bool(_) | Cell::Int(_) | Cell::Float(_) | Cell::Decimal(_) => plain(out, cell, ty),
        Cell::String(v) => json_string(out, v),
        // As the JSON formats have it.
        Cell::Bytes(v) | Cell::Verbatim(v) => {
            out.push('"');
            print::write_base64(out, v);
            out.push('"');
            Ok(())
        }
        Cell::List(column) => {
            let Type::List(item) = ty else { return Ok(()) };
            out.write_char('[')?;
            for row in 0..column.len() {
                if row > 0 {
                    out.write_char(',')?;
                }
                json(out, &column.cell(row), &item.ty)?;
            }
            out.write_char(']')
        }
        Cell::Record(columns, row) => {
            let Type::Record(schema) = ty else { return Ok(()) };
            out.write_char('{')?;
            for (i, (field, column)) in schema.fields().iter().zip(columns).enumerate() {
                if i > 0 {
                    out.write_char(',')?;
                }
                json_string(out, &field.name)?;
                out.write_char(':')?;
                json(out, &column.cell(row), &field.ty)?;
            }
            out.write_char('}')
        }
        _ => {
            out.write_char('"')?;
            plain(out, cell, ty)?;
            out.write_char('"')
        }
    }
}

/// Appends `text` as a JSON string.
fn json_string(out: &mut String, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.write_str(&text[from..at])?;
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}")?;
        } else {
            out.write_str(escape)?;
        }
        from = at + 1;
    }
    out.write_str(&text[from..])?;
    out.write_char('"')
}

fn scale(ty: &Type) -> u8 {
    match ty {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    }
}
