//! Rows to CSV text.
//!
//! Laws
//! - Null is an empty cell, the empty string is `""`: reading the text again gives the same rows.
//! - A cell is quoted only if it has to be.
//! - Verbatim cells go out as they came in, unless they hold this file's delimiter outside quotes.

use crate::expr::scalar::print;
use crate::formats::jsonl::ValueEncoder;
use crate::formats::output::RowEncoder;
use standpipe_sdk::{Batch, Column, Data, Error, Result, Schema, Type};

/// Bytes a number takes at most.
const NUMBER: usize = 48;

/// Encodes rows of one schema.
pub(in crate::formats) struct CsvEncoder {
    schema: Schema,
    delimiter: u8,
    special: Box<[bool; 256]>,
    /// For each column: how it becomes JSON text, if it is nested.
    encoders: Vec<ValueEncoder>,
    /// Scratch for that text.
    nested: Vec<u8>,
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
            schema,
            delimiter,
            special,
            encoders,
            nested: Vec::new(),
        }
    }

    /// The header line.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, field) in self.schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(self.delimiter);
            }
            self.text(field.name.as_bytes(), &mut out);
        }
        out.push(b'\n');
        out
    }

    #[inline]
    fn text(&self, text: &[u8], out: &mut Vec<u8>) {
        if text.is_empty() {
            out.extend_from_slice(b"\"\"");
        } else if text.iter().any(|&b| self.special[usize::from(b)]) {
            quoted(text, out);
        } else {
            out.extend_from_slice(text);
        }
    }

    #[inline]
    fn verbatim(&self, cell: &[u8], out: &mut Vec<u8>) {
        // A cell that is not quoted has no newline; its quotes, if any, are literal for every reader.
        if cell.first() == Some(&b'"') || !cell.contains(&self.delimiter) {
            out.extend_from_slice(cell);
        } else {
            quoted(cell, out);
        }
    }

    fn cell(&mut self, column: &Column<'_>, at: usize, ty: &Type, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if !column.is_valid(row) {
            return Ok(());
        }
        match column.data() {
            Data::Absent | Data::Null => {}
            Data::Verbatim(text) => self.verbatim(text.bytes(row), out),
            Data::Int(v) => print::write_int(out, v[row]),
            Data::Float(v) => print::write_float(out, v[row]),
            Data::String(text) => self.text(text.bytes(row), out),
            Data::Json(text) => self.text(text.bytes(row), out),
            Data::Bool(v) => out.extend_from_slice(if v.get(row) { b"true" } else { b"false" }),
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
                self.text(&nested, out);
                self.nested = nested;
                return outcome;
            }
        }
        Ok(())
    }
}

/// A cell as it is read by people: no quotes around it, nothing doubled.
///
/// # Errors
/// `Memory` if `out` cannot grow.
pub fn write_plain(out: &mut Vec<u8>, column: &Column<'_>, ty: &Type, row: usize) -> Result<()> {
    match column.data() {
        Data::String(text) | Data::Json(text) => out.extend_from_slice(text.bytes(row)),
        Data::Verbatim(text) => {
            let cell = text.bytes(row);
            if cell.first() == Some(&b'"') {
                let mut plain = vec![0; cell.len()];
                let len = super::index::unescape(cell, &mut plain);
                out.extend_from_slice(&plain[..len]);
            } else {
                out.extend_from_slice(cell);
            }
        }
        _ => {
            let schema = Schema::new(vec![standpipe_sdk::Field::new("", ty.clone(), true)]);
            CsvEncoder::new(schema, b'\n').cell(column, 0, ty, row, out)?;
        }
    }
    Ok(())
}

/// The text in quotes, its quotes doubled.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

impl RowEncoder for CsvEncoder {
    fn encode(&mut self, batch: Batch<'_>, out: &mut Vec<u8>) -> Result<()> {
        let schema = self.schema.clone();
        let width = schema.width();
        // Room for the numbers of all rows; longer text grows the buffer as it must.
        let wanted = batch.rows() * width * NUMBER / 2;
        out.try_reserve(wanted).map_err(|_| Error::Memory {
            wanted,
            used: out.len(),
            limit: out.capacity(),
        })?;
        for row in 0..batch.rows() {
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
