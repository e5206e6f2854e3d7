//! Values that aggregates keep: one array per form, whatever the type.
//!
//! Laws
//! - A word of 64 bits orders like its value: numbers, then nan. So do 128-bit numbers, and text by its bytes.
//! - Canonical values are equal iff their items are: -0.0 is 0.0, every nan the same. Values that are passed on are not canonical.
//! - Lists and records are kept as bytes that only this file reads; canonical ones can be told apart by them.

use crate::expr::values;
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Bits, Cell, Column, Data, Error, Result, Type, Value};
use std::cmp::Ordering;

/// One value on its way into or out of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Item<'a> {
    Word(u64),
    Wide(i128),
    Bytes(&'a [u8]),
}

impl Item<'_> {
    /// A fixed hash: approximate counts depend on it.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Item::Word(word) => mix(*word, 1),
            Item::Wide(value) => mix(*value as u64, mix((*value >> 64) as u64, 2)),
            Item::Bytes(bytes) => {
                let (words, rest) = bytes.as_chunks::<8>();
                let mut hash = bytes.len() as u64;
                for word in words {
                    hash = mix(u64::from_le_bytes(*word), hash);
                }
                let mut last = [0u8; 8];
                last[..rest.len()].copy_from_slice(rest);
                mix(u64::from_le_bytes(last), hash)
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Item::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Calls `f` with bytes that order like the item.
    pub(super) fn with_sorted_bytes<T>(self, f: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Item::Word(word) => f(&word.to_be_bytes()),
            Item::Wide(value) => f(&(value as u128 ^ 1 << 127).to_be_bytes()),
            Item::Bytes(bytes) => f(bytes),
        }
    }

    /// The item that gave those bytes.
    pub(super) fn of_sorted_bytes(form: Form, bytes: &[u8]) -> Item<'_> {
        match form {
            Form::Word => Item::Word(u64::from_be_bytes(bytes.try_into().unwrap_or_default())),
            Form::Wide => {
                let value = u128::from_be_bytes(bytes.try_into().unwrap_or_default());
                Item::Wide((value ^ 1 << 127) as i128)
            }
            Form::Bytes | Form::Nested => Item::Bytes(bytes),
        }
    }
}

/// Both words in one, every bit hanging on every bit.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// How values of a type are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Word,
    Wide,
    Bytes,
    Nested,
}

impl Form {
    pub(super) fn of(ty: &Type) -> Form {
        match ty {
            Type::Decimal { .. } => Form::Wide,
            Type::String | Type::Bytes | Type::Json => Form::Bytes,
            Type::List(_) | Type::Record(_) => Form::Nested,
            _ => Form::Word,
        }
    }

    /// The type of a partial state's column of such values.
    pub(super) fn partial(self) -> Type {
        match self {
            Form::Word => Type::Int,
            Form::Wide => super::fixed::WIDE,
            Form::Bytes | Form::Nested => Type::Bytes,
        }
    }
}

/// A float as a word that orders like it.
#[inline]
pub(super) fn float_word(value: f64, canonical: bool) -> u64 {
    let value = match canonical {
        true if value.is_nan() => f64::NAN,
        true => value + 0.0,
        false => value,
    };
    let bits = value.to_bits();
    bits ^ if bits >> 63 == 1 { u64::MAX } else { 1 << 63 }
}

#[inline]
pub(super) fn word_float(word: u64) -> f64 {
    f64::from_bits(word ^ if word >> 63 == 1 { 1 << 63 } else { u64::MAX })
}

#[inline]
pub(super) fn int_word(value: i64) -> u64 {
    value as u64 ^ 1 << 63
}

#[inline]
pub(super) fn word_int(word: u64) -> i64 {
    (word ^ 1 << 63) as i64
}

/// The value of row `row`, which is not null. Lists and records are written into `scratch`.
#[inline]
pub(super) fn item<'s>(column: &Column<'s>, row: usize, canonical: bool, scratch: &'s mut Vec<u8>) -> Item<'s> {
    match column.data() {
        Data::Bool(values) => Item::Word(u64::from(values.get(row))),
        Data::Int(values) | Data::Timestamp(values) | Data::Duration(values) => Item::Word(int_word(values[row])),
        Data::Date(values) => Item::Word(int_word(i64::from(values[row]))),
        Data::Float(values) => Item::Word(float_word(values[row], canonical)),
        Data::Decimal(values) => Item::Wide(values[row]),
        Data::String(text) | Data::Bytes(text) | Data::Json(text) | Data::Verbatim(text) => {
            Item::Bytes(text.bytes(row))
        }
        Data::List(_) | Data::Record(_) => {
            scratch.clear();
            write(&column.cell(row), canonical, scratch);
            Item::Bytes(scratch)
        }
        Data::Cells(cells) => Item::Bytes(cells.bytes(row)),
        Data::Null | Data::Absent => Item::Word(0),
    }
}

/// The value of row `row` of a partial state's column.
pub(super) fn partial_item<'a>(column: &Column<'a>, row: usize) -> Item<'a> {
    match column.data() {
        Data::Int(values) => Item::Word(values[row] as u64),
        Data::Decimal(values) => Item::Wide(values[row]),
        Data::Bytes(text) => Item::Bytes(text.bytes(row)),
        _ => Item::Word(0),
    }
}

/// How many bytes the values of these rows take beside their places.
pub(super) fn bytes_of(column: &Column<'_>, canonical: bool, rows: impl FnOnce(&mut dyn FnMut(usize))) -> usize {
    let mut total = 0;
    match column.data() {
        Data::String(text) | Data::Bytes(text) | Data::Json(text) | Data::Verbatim(text) => {
            rows(&mut |row| total += text.views()[row].len());
        }
        Data::Cells(cells) => rows(&mut |row| total += cells.bytes(row).len()),
        Data::List(_) | Data::Record(_) => {
            let mut scratch = vec![];
            rows(&mut |row| total += item(column, row, canonical, &mut scratch).bytes());
        }
        _ => {}
    }
    total
}

/// Values in one array.
pub(super) enum Store {
    Words(Vec<u64>),
    Wides(Vec<i128>),
    Bytes { bytes: Vec<u8>, ends: Vec<usize> },
}

impl Store {
    pub(super) fn new(form: Form) -> Store {
        match form {
            Form::Word => Store::Words(vec![]),
            Form::Wide => Store::Wides(vec![]),
            Form::Bytes | Form::Nested => Store::Bytes {
                bytes: vec![],
                ends: vec![],
            },
        }
    }

    /// Room for `values` more values of `more` bytes in all.
    pub(super) fn room(&mut self, values: usize, more: usize, reservation: &mut Reservation) -> Result<()> {
        match self {
            Store::Words(words) => reservation.room(words, values),
            Store::Wides(wides) => reservation.room(wides, values),
            Store::Bytes { bytes, ends } => {
                reservation.room(ends, values)?;
                reservation.room(bytes, more)
            }
        }
    }

    pub(super) fn push(&mut self, item: Item<'_>) {
        match (self, item) {
            (Store::Words(words), Item::Word(word)) => words.push(word),
            (Store::Wides(wides), Item::Wide(wide)) => wides.push(wide),
            (Store::Bytes { bytes, ends }, Item::Bytes(text)) => {
                bytes.extend_from_slice(text);
                ends.push(bytes.len());
            }
            // A column without any value.
            (Store::Words(words), _) => words.push(0),
            (Store::Wides(wides), _) => wides.push(0),
            (Store::Bytes { bytes, ends }, _) => ends.push(bytes.len()),
        }
    }

    /// Appends to a text that is not there yet: [`Store::close`] makes it one.
    pub(super) fn append(&mut self, text: &[u8]) {
        if let Store::Bytes { bytes, .. } = self {
            bytes.extend_from_slice(text);
        }
    }

    pub(super) fn close(&mut self) {
        if let Store::Bytes { bytes, ends } = self {
            ends.push(bytes.len());
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Store::Words(words) => words.len(),
            Store::Wides(wides) => wides.len(),
            Store::Bytes { ends, .. } => ends.len(),
        }
    }

    /// Forgets all but the first `len` values, and what was appended behind them.
    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Store::Words(words) => words.truncate(len),
            Store::Wides(wides) => wides.truncate(len),
            Store::Bytes { bytes, ends } => {
                ends.truncate(len);
                bytes.truncate(ends.last().copied().unwrap_or(0));
            }
        }
    }

    pub(super) fn get(&self, at: usize) -> Item<'_> {
        match self {
            Store::Words(words) => Item::Word(words[at]),
            Store::Wides(wides) => Item::Wide(wides[at]),
            Store::Bytes { bytes, ends } => {
                let start = if at == 0 { 0 } else { ends[at - 1] };
                Item::Bytes(&bytes[start..ends[at]])
            }
        }
    }

    pub(super) fn compare(&self, a: usize, b: usize) -> Ordering {
        self.get(a).cmp(&self.get(b))
    }

    pub(super) fn clear(&mut self) {
        match self {
            Store::Words(words) => words.clear(),
            Store::Wides(wides) => wides.clear(),
            Store::Bytes { bytes, ends } => {
                bytes.clear();
                ends.clear();
            }
        }
    }

    pub(super) fn free(&mut self, reservation: &mut Reservation) {
        match self {
            Store::Words(words) => reservation.free(words),
            Store::Wides(wides) => reservation.free(wides),
            Store::Bytes { bytes, ends } => {
                reservation.free(bytes);
                reservation.free(ends);
            }
        }
    }
}

/// A column of type `ty` of the items that `of` gives.
pub(super) fn column<'a, 's>(
    ty: &Type,
    rows: usize,
    arena: &'a Arena,
    of: impl Fn(usize) -> Option<Item<'s>>,
) -> Result<Column<'a>> {
    let missing = (0..rows).any(|row| of(row).is_none());
    let valid = match missing {
        true => Some(Bits::collect(arena, rows, |row| of(row).is_some())?),
        false => None,
    };
    let word = |row: usize| match of(row) {
        Some(Item::Word(word)) => word,
        _ => 0,
    };
    let int = |row: usize| word_int(word(row));
    let data = match ty {
        Type::Null => return Ok(Column::nulls(rows)),
        Type::Bool => Data::Bool(Bits::collect(arena, rows, |row| word(row) == 1)?),
        Type::Int => Data::Int(arena.collect(rows, int)?),
        Type::Timestamp => Data::Timestamp(arena.collect(rows, int)?),
        Type::Duration => Data::Duration(arena.collect(rows, int)?),
        Type::Date => Data::Date(arena.collect(rows, |row| int(row) as i32)?),
        Type::Float => Data::Float(arena.collect(rows, |row| word_float(word(row)))?),
        Type::Decimal { .. } => Data::Decimal(arena.collect(rows, |row| match of(row) {
            Some(Item::Wide(value)) => value,
            _ => 0,
        })?),
        Type::String | Type::Bytes | Type::Json => {
            let mut out = TextBuilder::new(arena, rows, 0)?;
            for row in 0..rows {
                match of(row) {
                    Some(Item::Bytes(text)) => out.push_bytes(text)?,
                    _ => out.push_empty(),
                }
            }
            let text = out.finish()?;
            match ty {
                Type::String => Data::String(text),
                Type::Bytes => Data::Bytes(text),
                _ => Data::Json(text),
            }
        }
        Type::List(_) | Type::Record(_) => {
            let owned: Vec<Value> = (0..rows)
                .map(|row| match of(row) {
                    Some(Item::Bytes(mut bytes)) => read(&mut bytes, ty),
                    _ => Value::Null,
                })
                .collect();
            let borrowed: Vec<&Value> = owned.iter().collect();
            return values::column(arena, &borrowed, ty);
        }
    };
    Ok(Column::new(data, valid, rows))
}

/// A column of a partial state of the items that `of` gives.
pub(super) fn partial_column<'a, 's>(
    form: Form,
    rows: usize,
    arena: &'a Arena,
    of: impl Fn(usize) -> Option<Item<'s>>,
) -> Result<Column<'a>> {
    match form {
        Form::Word => {
            let word = |row: usize| match of(row) {
                Some(Item::Word(word)) => word as i64,
                _ => 0,
            };
            Ok(Column::int(arena.collect(rows, word)?, None))
        }
        Form::Wide => {
            let wide = |row: usize| match of(row) {
                Some(Item::Wide(wide)) => wide,
                _ => 0,
            };
            Ok(Column::new(Data::Decimal(arena.collect(rows, wide)?), None, rows))
        }
        Form::Bytes | Form::Nested => {
            let mut out = TextBuilder::new(arena, rows, 0)?;
            for row in 0..rows {
                match of(row) {
                    Some(Item::Bytes(text)) => out.push_bytes(text)?,
                    _ => out.push_empty(),
                }
            }
            Ok(Column::new(Data::Bytes(out.finish()?), None, rows))
        }
    }
}

/// Offsets of lists: `sizes(row)` elements each.
pub(super) fn offsets(rows: usize, arena: &Arena, sizes: impl Fn(usize) -> usize) -> Result<(&[i32], usize)> {
    let mut total = 0usize;
    let offsets = arena.collect(rows + 1, |row| {
        let start = total;
        if row < rows {
            total += sizes(row);
        }
        start as i32
    })?;
    match i32::try_from(total) {
        Ok(_) => Ok((offsets, total)),
        Err(_) => Err(Error::Memory {
            wanted: total,
            used: arena.used(),
            limit: i32::MAX as usize,
        }),
    }
}

const NULL: u8 = 0;
const VALUE: u8 = 1;

/// Appends a value of a list or record.
fn write(cell: &Cell<'_>, canonical: bool, out: &mut Vec<u8>) {
    if matches!(cell, Cell::Null) {
        out.push(NULL);
        return;
    }
    out.push(VALUE);
    match *cell {
        Cell::Null => {}
        Cell::Bool(v) => out.push(u8::from(v)),
        Cell::Int(v) | Cell::Timestamp(v) | Cell::Duration(v) => out.extend_from_slice(&v.to_le_bytes()),
        Cell::Date(v) => out.extend_from_slice(&v.to_le_bytes()),
        Cell::Float(v) => out.extend_from_slice(&float_word(v, canonical).to_le_bytes()),
        Cell::Decimal(v) => out.extend_from_slice(&v.to_le_bytes()),
        Cell::String(v) | Cell::Json(v) => text(v.as_bytes(), out),
        Cell::Bytes(v) | Cell::Verbatim(v) => text(v, out),
        Cell::List(column) => {
            out.extend_from_slice(&(column.len() as u64).to_le_bytes());
            (0..column.len()).for_each(|row| write(&column.cell(row), canonical, out));
        }
        Cell::Record(columns, row) => {
            columns
                .iter()
                .for_each(|column| write(&column.cell(row), canonical, out));
        }
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The value that `write` wrote.
fn read(bytes: &mut &[u8], ty: &Type) -> Value {
    if take::<1>(bytes) == [NULL] {
        return Value::Null;
    }
    let int = |bytes: &mut &[u8]| i64::from_le_bytes(take(bytes));
    let long = |bytes: &mut &[u8]| {
        let len = (int(bytes) as usize).min(bytes.len());
        let (head, rest) = bytes.split_at(len);
        *bytes = rest;
        head.to_vec()
    };
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
    match ty {
        Type::Null => Value::Null,
        Type::Bool => Value::Bool(take::<1>(bytes) == [1]),
        Type::Int => Value::Int(int(bytes)),
        Type::Timestamp => Value::Timestamp(int(bytes)),
        Type::Duration => Value::Duration(int(bytes)),
        Type::Date => Value::Date(i32::from_le_bytes(take(bytes))),
        Type::Float => Value::Float(word_float(u64::from_le_bytes(take(bytes)))),
        Type::Decimal { scale, .. } => Value::Decimal {
            value: i128::from_le_bytes(take(bytes)),
            scale: *scale,
        },
        Type::String => Value::String(utf8(long(bytes))),
        Type::Json => Value::Json(utf8(long(bytes))),
        Type::Bytes => Value::Bytes(long(bytes)),
        Type::List(item) => {
            let len = int(bytes);
            Value::List((0..len).map(|_| read(bytes, &item.ty)).collect())
        }
        Type::Record(schema) => {
            let fields = schema.fields().iter();
            Value::Record(fields.map(|f| (f.name.to_string(), read(bytes, &f.ty))).collect())
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk::<N>() {
        Some((head, rest)) => {
            *bytes = rest;
            *head
        }
        None => [0; N],
    }
}
