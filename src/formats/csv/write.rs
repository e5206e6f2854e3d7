//! Rows to CSV text.
//!
//! Laws
//! - Null is an empty cell, the empty string is `""`: reading the text again gives the same rows.
//! - A cell is quoted only if it has to be.
//! - Verbatim cells go out as they came in, unless they hold this file's delimiter outside quotes.

use crate::expr::scalar::print;
use crate::formats::jsonl::ValueEncoder;
use crate::formats::out::Out;
use crate::formats::output::RowEncoder;
use standpipe_sdk::{Batch, Cell, Column, Data, Result, Schema, Text, Type};

/// Bytes that a scalar and the delimiter behind it take at most.
const SCALAR: usize = print::MOST + 1;

/// Encodes rows of one schema.
pub(in crate::formats) struct CsvEncoder {
    schema: Schema,
    delimiter: u8,
    special: Box<[bool; 256]>,
    /// Room that a row needs beside the texts in it.
    row_bytes: usize,
    /// For each column: how it becomes JSON text, if it is nested.
    encoders: Vec<ValueEncoder>,
    /// Scratch for that text.
    nested: Out,
}

impl CsvEncoder {
    pub(in crate::formats) fn new(schema: Schema, delimiter: u8) -> Self {
        let mut special = Box::new([false; 256]);
        for byte in [delimiter, b'"', b'\n', b'\r'] {
            special[usize::from(byte)] = true;
        }
        let encoders = schema
            .fields()
            .iter()
            .map(|field| ValueEncoder::new(&field.ty))
            .collect();
        CsvEncoder {
            row_bytes: schema.width() * SCALAR + 2,
            schema,
            delimiter,
            special,
            encoders,
            nested: Out::new(),
        }
    }

    /// The header line.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut line = Vec::new();
        for (i, field) in self.schema.fields().iter().enumerate() {
            if i > 0 {
                line.push(self.delimiter);
            }
            let name = field.name.as_bytes();
            if name.is_empty() || self.is_special(name) {
                line.push(b'"');
                line.extend(
                    name.iter()
                        .flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte == b'"'))),
                );
                line.push(b'"');
            } else {
                line.extend_from_slice(name);
            }
        }
        line.push(b'\n');
        line
    }

    fn is_special(&self, text: &[u8]) -> bool {
        text.iter().any(|&b| self.special[usize::from(b)])
    }

    /// Room for `bytes` and the scalars of the rest of the row.
    #[inline(always)]
    fn reserve(&self, bytes: usize, out: &mut Out) -> Result<()> {
        out.reserve(bytes.saturating_add(self.row_bytes))
    }

    #[inline(always)]
    fn view(&self, text: &Text<'_>, row: usize, out: &mut Out) -> Result<()> {
        let view = text.views()[row];
        if view.is_inline() && !view.is_empty() {
            // Padding is zeros, which need no quotes.
            let bytes = view.bits() >> 32;
            if !has_special(bytes as u64, self.delimiter) && !has_special((bytes >> 64) as u64, self.delimiter) {
                out.extend_fixed(&bytes.to_le_bytes(), view.len());
                return Ok(());
            }
        }
        self.text(text.bytes(row), out)
    }

    #[inline]
    fn text(&self, text: &[u8], out: &mut Out) -> Result<()> {
        if text.is_empty() {
            out.extend(b"\"\"");
        } else if self.is_special(text) {
            return self.quoted(text, out);
        } else {
            self.reserve(text.len(), out)?;
            out.extend(text);
        }
        Ok(())
    }

    #[inline]
    fn verbatim(&self, cell: &[u8], same_delimiter: bool, out: &mut Out) -> Result<()> {
        // A cell that is not quoted has no newline; its quotes, if any, are literal for every reader.
        if same_delimiter || cell.first() == Some(&b'"') || !cell.contains(&self.delimiter) {
            self.reserve(cell.len(), out)?;
            out.extend(cell);
            Ok(())
        } else {
            self.quoted(cell, out)
        }
    }

    /// The text in quotes, its quotes doubled.
    #[inline(never)]
    fn quoted(&self, text: &[u8], out: &mut Out) -> Result<()> {
        self.reserve(text.len().saturating_mul(2).saturating_add(2), out)?;
        out.push(b'"');
        for &byte in text {
            if byte == b'"' {
                out.push(b'"');
            }
            out.push(byte);
        }
        out.push(b'"');
        Ok(())
    }

    fn cell(&mut self, column: &Column<'_>, at: usize, ty: &Type, row: usize, out: &mut Out) -> Result<()> {
        if !column.is_valid(row) {
            return Ok(());
        }
        match column.data() {
            Data::Absent | Data::Null => {}
            Data::Verbatim(text) => return self.verbatim(text.bytes(row), false, out),
            Data::Cells(cells) => return self.verbatim(cells.bytes(row), cells.delimiter() == self.delimiter, out),
            Data::Int(v) => print::write_int(out, v[row]),
            Data::Float(v) => print::write_float(out, v[row]),
            Data::String(text) => return self.view(&text, row, out),
            Data::Json(text) => return self.text(text.bytes(row), out),
            Data::Bool(v) => out.extend(if v.get(row) { &b"true"[..] } else { b"false" }),
            Data::Date(v) => print::write_date(out, v[row]),
            Data::Timestamp(v) => print::write_timestamp(out, v[row]),
            Data::Duration(v) => print::write_duration(out, v[row]),
            Data::Decimal(v) => {
                let scale = if let Type::Decimal { scale, .. } = ty {
                    *scale
                } else {
                    0
                };
                print::write_decimal(out, v[row], scale);
            }
            Data::Bytes(_) | Data::List(_) | Data::Record(_) => {
                let mut nested = std::mem::take(&mut self.nested);
                nested.clear();
                let outcome = self.encoders[at].encode(column, row, &mut nested);
                let outcome = outcome.and_then(|()| self.text(nested.as_slice(), out));
                self.nested = nested;
                return outcome;
            }
        }
        Ok(())
    }
}

/// Whether one of the 8 bytes is a quote, a line end or the delimiter.
#[inline(always)]
fn has_special(word: u64, delimiter: u8) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of `x` is zero where the word has the wanted one; borrows only reach bytes above one that is found already.
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
    let found = |byte: u8| zeros(word ^ (ONES * u64::from(byte)));
    found(b'"') | found(b'\n') | found(b'\r') | found(delimiter) != 0
}

/// A cell as it is read by people: no quotes around it, nothing doubled.
///
/// # Errors
/// `Memory` if `out` cannot grow.
pub fn write_plain(out: &mut Out, column: &Column<'_>, ty: &Type, row: usize) -> Result<()> {
    let mut text = |bytes: &[u8]| {
        out.reserve(bytes.len())?;
        out.extend(bytes);
        Ok(())
    };
    match column.cell(row) {
        Cell::String(value) | Cell::Json(value) => text(value.as_bytes()),
        Cell::Verbatim(cell) if cell.first() == Some(&b'"') => {
            let mut plain = vec![0; cell.len()];
            let len = super::index::unescape(cell, &mut plain);
            text(&plain[..len])
        }
        Cell::Verbatim(cell) => text(cell),
        _ => {
            let schema = Schema::new(vec![standpipe_sdk::Field::new("", ty.clone(), true)]);
            out.reserve(SCALAR)?;
            CsvEncoder::new(schema, b'\n').cell(column, 0, ty, row, out)
        }
    }
}

impl RowEncoder for CsvEncoder {
    fn encode(&mut self, batch: Batch<'_>, out: &mut Out) -> Result<()> {
        let schema = self.schema.clone();
        for row in 0..batch.rows() {
            self.reserve(0, out)?;
            for (i, (column, field)) in batch.columns().iter().zip(schema.fields()).enumerate() {
                if i > 0 {
                    out.push(self.delimiter);
                }
                self.cell(column, i, &field.ty, row, out)?;
            }
            out.push(b'\n');
        }
        Ok(())
    }
}
