//! Columns to lines.
//!
//! Laws
//! - One line per row, every column in it (null as `null`), no blanks: `{"id":1,"ip":"10.0.0.1"}`.
//! - What a value needs is reserved before it is written, and may be refused.
//! - A cell that passed through from CSV unread is written bare only where its column is no string column and it is a JSON number or
//!   bool; so a string column never turns into numbers because nobody read it.

use crate::expr::json::lexer::{plain, special};
use crate::expr::scalar::{print, scan};
use standpipe_sdk::{Batch, Cell, Column, Data, Error, Result, Schema, Type};

/// What writing had to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// `nan` and `inf` that became null.
    pub not_finite: u64,
}

/// Writes batches of one schema as lines.
pub struct Encoder {
    fields: Box<[Shape]>,
    /// Bytes that a row takes beside the texts in it.
    row_bytes: usize,
}

/// How a column is written.
struct Shape {
    prefix: Prefix,
    kind: Kind,
}

/// `{"key":` or `,"key":`; nothing before elements of a list.
#[derive(Default)]
struct Prefix {
    text: Box<[u8]>,
    /// The text again, if it is short enough: copying a fixed number of bytes and taking some back is faster.
    short: Option<[u8; SHORT]>,
}

const SHORT: usize = 32;

impl Prefix {
    fn new(text: String) -> Prefix {
        let text: Box<[u8]> = text.into_bytes().into();
        let mut short = [0; SHORT];
        let short = match short.get_mut(..text.len()) {
            Some(slot) => {
                slot.copy_from_slice(&text);
                Some(short)
            }
            None => None,
        };
        Prefix { text, short }
    }

    #[inline(always)]
    fn write(&self, out: &mut Vec<u8>) {
        match &self.short {
            Some(short) => {
                let end = out.len() + self.text.len();
                out.extend_from_slice(short);
                out.truncate(end);
            }
            None => out.extend_from_slice(&self.text),
        }
    }
}

enum Kind {
    String,
    Float,
    Decimal(u8),
    List(Box<Shape>),
    Record(Box<[Shape]>),
    Other,
}

impl Shape {
    fn new(prefix: Prefix, ty: &Type) -> Shape {
        let kind = match ty {
            Type::String => Kind::String,
            Type::Float => Kind::Float,
            Type::Decimal { scale, .. } => Kind::Decimal(*scale),
            Type::List(item) => Kind::List(Box::new(Shape::new(Prefix::default(), &item.ty))),
            Type::Record(schema) => Kind::Record(shapes(schema)),
            _ => Kind::Other,
        };
        Shape { prefix, kind }
    }
}

fn shapes(schema: &Schema) -> Box<[Shape]> {
    let mut out = vec![];
    for (i, field) in schema.fields().iter().enumerate() {
        let name = serde_json::to_string(&*field.name).unwrap_or_default();
        let prefix = format!("{}{name}:", if i == 0 { '{' } else { ',' });
        out.push(Shape::new(Prefix::new(prefix), &field.ty));
    }
    out.into()
}

impl Encoder {
    /// For batches of this schema.
    pub fn new(schema: &Schema) -> Self {
        let fields = shapes(schema);
        let row_bytes = 4 + SHORT + fields.iter().map(|f| f.prefix.text.len() + print::MOST).sum::<usize>();
        Encoder { fields, row_bytes }
    }

    /// Adds one line per row of `batch` to `out`.
    ///
    /// # Errors
    /// `Memory` if `out` cannot grow; it holds the lines before then, and part of one.
    pub fn encode(&self, batch: &Batch<'_>, out: &mut Vec<u8>) -> Result<Written> {
        self.encode_rows(batch, 0..batch.rows(), out)
    }

    /// The same for some rows.
    pub fn encode_rows(&self, batch: &Batch<'_>, rows: std::ops::Range<usize>, out: &mut Vec<u8>) -> Result<Written> {
        let mut line = Line {
            out,
            written: Written::default(),
            row_bytes: self.row_bytes,
        };
        let columns = batch.columns();
        for row in rows {
            line.reserve(0)?;
            for (field, column) in self.fields.iter().zip(columns) {
                field.prefix.write(line.out);
                line.value(&field.kind, column, row)?;
            }
            line.out
                .extend_from_slice(if self.fields.is_empty() { b"{}\n" } else { b"}\n" });
        }
        Ok(line.written)
    }
}

/// Writes single values of one type as JSON text: what a CSV cell of a list or record holds.
pub struct ValueEncoder {
    kind: Kind,
}

impl ValueEncoder {
    /// For values of this type.
    pub fn new(ty: &Type) -> Self {
        ValueEncoder {
            kind: Shape::new(Prefix::default(), ty).kind,
        }
    }

    /// Adds row `row` of `column` to `out`; bytes as bare base64.
    ///
    /// # Errors
    /// `Memory` if `out` cannot grow.
    pub fn encode(&self, column: &Column<'_>, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut line = Line {
            out,
            written: Written::default(),
            row_bytes: 2 * print::MOST,
        };
        line.reserve(0)?;
        if let Cell::Bytes(bytes) = column.cell(row) {
            line.reserve(bytes.len() / 3 * 4 + 8)?;
            print::write_base64(line.out, bytes);
            return Ok(());
        }
        line.value(&self.kind, column, row)
    }
}

struct Line<'o> {
    out: &'o mut Vec<u8>,
    written: Written,
    /// Always free, so that scalars and prefixes of the row need no further look.
    row_bytes: usize,
}

impl Line<'_> {
    /// Room for `bytes` and the rest of the row.
    #[inline(always)]
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        let wanted = bytes.saturating_add(self.row_bytes);
        if self.out.capacity() - self.out.len() >= wanted {
            return Ok(());
        }
        self.grow(wanted)
    }

    #[cold]
    fn grow(&mut self, wanted: usize) -> Result<()> {
        self.out.try_reserve(wanted).map_err(|_| Error::Memory {
            wanted,
            used: self.out.len(),
            limit: self.out.capacity(),
        })
    }

    #[inline(always)]
    fn value(&mut self, kind: &Kind, column: &Column<'_>, row: usize) -> Result<()> {
        // The everyday types here, the others as cells.
        if column.valid().is_none_or(|valid| valid.get(row)) {
            match column.data() {
                Data::String(text) => return self.string(text.bytes(row)),
                Data::Int(values) => {
                    print::write_int(self.out, values[row]);
                    return Ok(());
                }
                Data::Float(values) if values[row].is_finite() => {
                    print::write_float(self.out, values[row]);
                    return Ok(());
                }
                Data::Verbatim(text) => return self.verbatim(kind, text.bytes(row)),
                _ => {}
            }
        }
        self.other(kind, column.cell(row))
    }

    fn not_finite(&mut self) {
        self.written.not_finite += 1;
        self.out.extend_from_slice(b"null");
    }

    #[inline(never)]
    fn other(&mut self, kind: &Kind, cell: Cell<'_>) -> Result<()> {
        let out = &mut *self.out;
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Cell::Int(value) => print::write_int(out, value),
            Cell::Float(value) if value.is_finite() => print::write_float(out, value),
            Cell::Float(_) => self.not_finite(),
            Cell::Decimal(value) => {
                let scale = if let Kind::Decimal(scale) = kind { *scale } else { 0 };
                print::write_decimal(out, value, scale);
            }
            Cell::String(text) => return self.string(text.as_bytes()),
            Cell::Date(value) => self.quoted(|out| print::write_date(out, value)),
            Cell::Timestamp(value) => self.quoted(|out| print::write_timestamp(out, value)),
            Cell::Duration(value) => self.quoted(|out| print::write_duration(out, value)),
            Cell::Bytes(bytes) => {
                self.reserve(bytes.len() / 3 * 4 + 8)?;
                self.quoted(|out| print::write_base64(out, bytes));
            }
            Cell::Json(text) => {
                self.reserve(text.len())?;
                write_json(self.out, text.as_bytes());
            }
            Cell::Verbatim(text) => return self.verbatim(kind, text),
            Cell::List(elements) => {
                let other = Shape {
                    prefix: Prefix::default(),
                    kind: Kind::Other,
                };
                let item = if let Kind::List(item) = kind { item } else { &other };
                out.push(b'[');
                for i in 0..elements.len() {
                    self.reserve(print::MOST + 2)?;
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.value(&item.kind, &elements, i)?;
                }
                self.reserve(1)?;
                self.out.push(b']');
            }
            Cell::Record(columns, row) => {
                let fields: &[Shape] = if let Kind::Record(fields) = kind { fields } else { &[] };
                for (field, column) in fields.iter().zip(columns) {
                    self.reserve(field.prefix.text.len() + print::MOST)?;
                    field.prefix.write(self.out);
                    self.value(&field.kind, column, row)?;
                }
                self.reserve(2)?;
                self.out.extend_from_slice(if fields.is_empty() { b"{}" } else { b"}" });
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    #[inline(always)]
    fn string(&mut self, text: &[u8]) -> Result<()> {
        self.reserve(text.len() + 2)?;
        self.out.push(b'"');
        if let Some(short) = short_text(text)
            && special(&short.to_le_bytes()) == 0
        {
            let end = self.out.len() + text.len();
            self.out.extend_from_slice(&short.to_le_bytes());
            self.out.truncate(end);
            self.out.push(b'"');
            return Ok(());
        }
        let clean = plain(text, 0);
        self.out.extend_from_slice(&text[..clean]);
        if clean < text.len() {
            self.escaped(&text[clean..])?;
        }
        self.out.push(b'"');
        Ok(())
    }

    /// The rest of a string, from its first character that needs an escape.
    #[inline(never)]
    fn escaped(&mut self, mut rest: &[u8]) -> Result<()> {
        while let Some((&special, behind)) = rest.split_first() {
            let clean = plain(behind, 0);
            self.reserve(clean + 8)?;
            let short = match special {
                b'"' | b'\\' => special,
                8 => b'b',
                9 => b't',
                10 => b'n',
                12 => b'f',
                13 => b'r',
                _ => 0,
            };
            if short == 0 {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(special >> 4 & 1)], HEX[usize::from(special & 15)]);
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            } else {
                self.out.extend_from_slice(&[b'\\', short]);
            }
            self.out.extend_from_slice(&behind[..clean]);
            rest = &behind[clean..];
        }
        self.reserve(1)
    }

    /// A CSV cell as it stood in its file.
    fn verbatim(&mut self, kind: &Kind, cell: &[u8]) -> Result<()> {
        if let [b'"', inner @ ..] = cell {
            let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
            return self.unquoted(inner);
        }
        if !matches!(kind, Kind::String) {
            // Most texts are told from numbers and bools by their first byte.
            let first = cell.first().copied().unwrap_or_default();
            if (first.is_ascii_digit() || first == b'-') && is_json_number(cell) || scan::parse_bool(cell).is_some() {
                self.reserve(cell.len())?;
                self.out.extend_from_slice(cell);
                return Ok(());
            }
            if matches!(kind, Kind::Float) && scan::parse_float(cell).is_some() {
                self.not_finite();
                return Ok(());
            }
        }
        self.string(cell)
    }

    /// The inside of a quoted CSV cell: two quotes are one.
    fn unquoted(&mut self, inner: &[u8]) -> Result<()> {
        let Some(mut quote) = memchr::memchr(b'"', inner) else {
            return self.string(inner);
        };
        let mut rest = inner;
        self.reserve(inner.len() + 2)?;
        self.out.push(b'"');
        loop {
            // Up to the first quote and with it; the second one, if it is there, is dropped.
            let (head, tail) = rest.split_at((quote + 1).min(rest.len()));
            let clean = plain(head, 0);
            self.reserve(head.len())?;
            self.out.extend_from_slice(&head[..clean]);
            self.escaped(&head[clean..])?;
            rest = tail.strip_prefix(b"\"").unwrap_or(tail);
            if rest.is_empty() {
                break;
            }
            quote = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        }
        self.reserve(1)?;
        self.out.push(b'"');
        Ok(())
    }
}

/// A text of 4 to 16 bytes as a number, the first byte the lowest; blanks behind it.
#[inline(always)]
fn short_text(text: &[u8]) -> Option<u128> {
    let len = text.len();
    let filler = u128::from_le_bytes([b' '; 16]);
    if (8..=16).contains(&len) {
        let (low, high) = (text.first_chunk::<8>()?, text.last_chunk::<8>()?);
        let high = u128::from(u64::from_le_bytes(*high)) << (8 * (len - 8));
        let filler = filler.checked_shl(8 * len as u32).unwrap_or(0);
        return Some(u128::from(u64::from_le_bytes(*low)) | high | filler);
    }
    if (4..8).contains(&len) {
        let (low, high) = (text.first_chunk::<4>()?, text.last_chunk::<4>()?);
        let high = u128::from(u32::from_le_bytes(*high)) << (8 * (len - 4));
        return Some(u128::from(u32::from_le_bytes(*low)) | high | filler << (8 * len));
    }
    None
}

/// Whether a whole cell is a JSON number: `-? (0 | [1-9] digits) (. digits)? ([eE] [+-]? digits)?`.
#[inline]
fn is_json_number(cell: &[u8]) -> bool {
    // A cell is short and has no readable bytes behind it: the lexer's wide loads would all take their slow way.
    let digits = |from: usize| from + cell[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(cell.first() == Some(&b'-'));
    let mut at = digits(start);
    if at == start || (cell[start] == b'0' && at > start + 1) {
        return false;
    }
    if cell.get(at) == Some(&b'.') {
        let from = at + 1;
        at = digits(from);
        if at == from {
            return false;
        }
    }
    if matches!(cell.get(at), Some(b'e' | b'E')) {
        let from = at + 1 + usize::from(matches!(cell.get(at + 1), Some(b'+' | b'-')));
        at = digits(from);
        if at == from {
            return false;
        }
    }
    at == cell.len()
}

/// JSON text on one line: newlines can only be blanks between its tokens.
fn write_json(out: &mut Vec<u8>, text: &[u8]) {
    let from = out.len();
    out.extend_from_slice(text);
    if memchr::memchr2(b'\n', b'\r', text).is_some() {
        for byte in &mut out[from..] {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// How many bytes a base64 text holds, if it is one.
pub(super) fn base64_length(text: &[u8]) -> Option<usize> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    let digits = &text[..text.len() - padding];
    if !digits.iter().all(|&b| sextet(b).is_some()) {
        return None;
    }
    // The bits that no byte uses are zeros, so that each value has one text.
    let last = digits.last().and_then(|&b| sextet(b)).unwrap_or(0);
    let unused = [0, 3, 15][padding.min(2)];
    (last & unused == 0).then_some(text.len() / 4 * 3 - padding)
}

/// The bytes of a base64 text, put into `out`; how many.
pub(super) fn from_base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let length = base64_length(text)?;
    for (i, four) in text.chunks(4).enumerate() {
        let bits = four.iter().fold(0, |v, &b| v << 6 | sextet(b).unwrap_or(0));
        for (j, shift) in [16, 8, 0].into_iter().enumerate() {
            if let (Some(slot), true) = (out.get_mut(3 * i + j), 3 * i + j < length) {
                *slot = (bits >> shift) as u8;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::is_json_number;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cell_is_a_number_iff_serde_json_says_so(cell in "[-+.eE019]{0,8}") {
            prop_assert_eq!(is_json_number(cell.as_bytes()), serde_json::from_str::<serde::de::IgnoredAny>(&cell).is_ok());
        }
    }
}
