//! Columns to lines.
//!
//! Laws
//! - One line per row, every column in it (null as `null`), no blanks: `{"id":1,"ip":"10.0.0.1"}`.
//! - What a value needs is reserved before it is written, and may be refused.
//! - A cell that passed through from CSV unread is written bare only where its column is no string column and it is a JSON number or
//!   bool; so a string column never turns into numbers because nobody read it.

use crate::expr::json::lexer::{digits, plain, special};
use crate::expr::scalar::{print, scan};
use crate::formats::out::Out;
use standpipe_sdk::{Batch, Cell, Cells, Column, Data, Result, Schema, Text, Type};

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
    fn write(&self, out: &mut Out) {
        match &self.short {
            Some(short) => out.extend_fixed(short, self.text.len()),
            None => out.extend(&self.text),
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
        let row_bytes = 4 + SHORT + WIDE + fields.iter().map(|f| f.prefix.text.len() + print::MOST).sum::<usize>();
        Encoder { fields, row_bytes }
    }

    /// Adds one line per row of `batch` to `out`.
    ///
    /// # Errors
    /// `Memory` if `out` cannot grow; it holds the lines before then, and part of one.
    pub fn encode(&self, batch: &Batch<'_>, out: &mut Out) -> Result<Written> {
        self.encode_rows(batch, 0..batch.rows(), out)
    }

    /// The same for some rows.
    pub fn encode_rows(&self, batch: &Batch<'_>, rows: std::ops::Range<usize>, out: &mut Out) -> Result<Written> {
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
                .extend(if self.fields.is_empty() { &b"{}\n"[..] } else { b"}\n" });
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
    pub fn encode(&self, column: &Column<'_>, row: usize, out: &mut Out) -> Result<()> {
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
    out: &'o mut Out,
    written: Written,
    /// Always free, so that scalars and prefixes of the row need no further look.
    row_bytes: usize,
}

impl Line<'_> {
    /// Room for `bytes` and the rest of the row.
    #[inline(always)]
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.out.reserve(bytes.saturating_add(self.row_bytes))
    }

    #[inline(always)]
    fn value(&mut self, kind: &Kind, column: &Column<'_>, row: usize) -> Result<()> {
        // The everyday types here, the others as cells.
        if let Data::Cells(cells) = column.data() {
            return self.raw_cell(kind, &cells, row);
        }
        if column.valid().is_none_or(|valid| valid.get(row)) {
            match column.data() {
                Data::String(text) => return self.view(&text, row),
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

    /// A value within a list or record: as [`Line::value`], in a small frame, as these go deep.
    #[inline(never)]
    fn inner(&mut self, kind: &Kind, column: &Column<'_>, row: usize) -> Result<()> {
        self.value(kind, column, row)
    }

    fn not_finite(&mut self) {
        self.written.not_finite += 1;
        self.out.extend(b"null");
    }

    #[inline(never)]
    fn other(&mut self, kind: &Kind, cell: Cell<'_>) -> Result<()> {
        let out = &mut *self.out;
        match cell {
            Cell::Null => out.extend(b"null"),
            Cell::Bool(value) => out.extend(if value { &b"true"[..] } else { b"false" }),
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
                    self.inner(&item.kind, &elements, i)?;
                }
                self.reserve(1)?;
                self.out.push(b']');
            }
            Cell::Record(columns, row) => {
                let fields: &[Shape] = if let Kind::Record(fields) = kind { fields } else { &[] };
                for (field, column) in fields.iter().zip(columns) {
                    self.reserve(field.prefix.text.len() + print::MOST)?;
                    field.prefix.write(self.out);
                    self.inner(&field.kind, column, row)?;
                }
                self.reserve(2)?;
                self.out.extend(if fields.is_empty() { &b"{}"[..] } else { b"}" });
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn quoted(&mut self, write: impl FnOnce(&mut Out)) {
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    /// A text of a column: short ones are in their views.
    #[inline(always)]
    fn view(&mut self, text: &Text<'_>, row: usize) -> Result<()> {
        let view = text.views()[row];
        if view.is_inline() {
            let (bytes, len) = ((view.bits() >> 32).to_le_bytes(), view.len());
            if special(&bytes) & ((1 << len) - 1) == 0 {
                self.reserve(len)?;
                self.out.push(b'"');
                self.out.extend_fixed(&bytes, len);
                self.out.push(b'"');
                return Ok(());
            }
        }
        self.string(text.bytes(row))
    }

    #[inline(always)]
    fn string(&mut self, text: &[u8]) -> Result<()> {
        self.reserve(text.len() + 2)?;
        self.out.push(b'"');
        let clean = plain(text, 0);
        self.out.extend(&text[..clean]);
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
                self.out.extend(&[b'\\', b'u', b'0', b'0', high, low]);
            } else {
                self.out.extend(&[b'\\', short]);
            }
            self.out.extend(&behind[..clean]);
            rest = &behind[clean..];
        }
        self.reserve(1)
    }

    /// A CSV cell where it stands in its block.
    #[inline(always)]
    fn raw_cell(&mut self, kind: &Kind, cells: &Cells<'_>, row: usize) -> Result<()> {
        let (start, end) = cells.extent(row);
        let (block, len) = (cells.block(), end - start);
        if len == 0 {
            self.out.extend_fixed(b"null", 4);
            return Ok(());
        }
        // Nearly every cell is short and has as many bytes behind it.
        if let Some(wide) = block.get(start..).and_then(|rest| rest.first_chunk::<WIDE>())
            && len <= WIDE
            && wide[0] != b'"'
        {
            let is_string = matches!(kind, Kind::String);
            if !is_string && wide[0].is_ascii_digit() {
                match number_shape(wide, len) {
                    NumberShape::Number => {
                        self.reserve(len)?;
                        self.out.extend_fixed(wide, len);
                        return Ok(());
                    }
                    NumberShape::Unsure => return self.verbatim(kind, &block[start..end]),
                    NumberShape::Other => {}
                }
            } else if !is_string {
                return self.verbatim(kind, &block[start..end]);
            }
            if special_wide(wide) & low_bits(len) == 0 {
                self.reserve(len)?;
                self.out.push(b'"');
                self.out.extend_fixed(wide, len);
                self.out.push(b'"');
                return Ok(());
            }
        }
        self.verbatim(kind, &block[start..end])
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
                self.out.extend(cell);
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
            self.out.extend(&head[..clean]);
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

/// The bytes of a cell that are looked at together.
const WIDE: usize = 32;

/// The lowest `count` bits.
#[inline(always)]
fn low_bits(count: usize) -> u32 {
    debug_assert!(count <= 32);
    ((1u64 << count) - 1) as u32
}

#[inline(always)]
fn halves(wide: &[u8; WIDE]) -> (&[u8; 16], &[u8; 16]) {
    let (low, high) = wide.as_chunks::<16>().0.split_at(1);
    (&low[0], &high[0])
}

/// One bit for each byte that may not stand in a string as it is.
#[inline(always)]
fn special_wide(wide: &[u8; WIDE]) -> u32 {
    let (low, high) = halves(wide);
    special(low) | special(high) << 16
}

/// What a cell that begins with a digit looks like.
enum NumberShape {
    /// `12`, `0.5`: a JSON number.
    Number,
    /// No JSON number.
    Other,
    /// There is an exponent: look closer.
    Unsure,
}

/// The shape of the first `len` bytes, the first of which is a digit; as [`is_json_number`], without a loop.
#[inline(always)]
fn number_shape(wide: &[u8; WIDE], len: usize) -> NumberShape {
    let (low, high) = halves(wide);
    let others = !(digits(low) | digits(high) << 16) & low_bits(len);
    let whole = if others == 0 {
        len
    } else {
        others.trailing_zeros() as usize
    };
    if wide[0] == b'0' && whole > 1 {
        return NumberShape::Other;
    }
    if others == 0 {
        return NumberShape::Number;
    }
    let behind = others & (others - 1);
    match wide[whole % WIDE] {
        b'.' if behind == 0 && whole + 1 < len => NumberShape::Number,
        b'.' if behind == 0 => NumberShape::Other,
        b'.' => match wide[behind.trailing_zeros() as usize % WIDE] {
            b'e' | b'E' => NumberShape::Unsure,
            _ => NumberShape::Other,
        },
        b'e' | b'E' => NumberShape::Unsure,
        _ => NumberShape::Other,
    }
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
fn write_json(out: &mut Out, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + 1..];
    }
    out.extend(rest);
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
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cell_is_a_number_iff_serde_json_says_so(cell in "[-+.eE019]{0,8}") {
            prop_assert_eq!(is_json_number(cell.as_bytes()), serde_json::from_str::<serde::de::IgnoredAny>(&cell).is_ok());
        }

        #[test]
        fn the_shape_of_a_number_is_that_of_the_slow_look(cell in "[0-9][-+.eE019:]{0,31}|[0-9]{1,20}(\\.[0-9]{0,11})?", behind in "[0-9.e\"x]{32}") {
            let mut wide = [0; WIDE];
            let text = format!("{cell}{behind}");
            wide.copy_from_slice(&text.as_bytes()[..WIDE]);
            let want = is_json_number(cell.as_bytes());
            match number_shape(&wide, cell.len()) {
                NumberShape::Number => prop_assert!(want),
                NumberShape::Other => prop_assert!(!want),
                NumberShape::Unsure => prop_assert!(cell.contains(['e', 'E'])),
            }
        }
    }
}
