//! Keys as they lie in the table, and back to columns.
//!
//! Laws
//! - A key is the bytes that [`crate::stages::keys`] gives: the first 16 as a number, the rest elsewhere. No key is the beginning of
//!   another, so zeros behind a short one change nothing.
//! - Two keys are equal, and ordered, as their bytes are.

use crate::expr::scalar::print::{self, Buf};
use crate::stages::values;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Bits, Column, Data, Result, Type, Value};
use std::fmt::Write as _;

const VALUE: u8 = 1;
const NAN: u8 = 2;
const ESCAPE: u8 = 0xFF;

/// Keys that are read column by column: each column moves every key on.
pub(in crate::stages) struct Keyed<'k> {
    keys: &'k mut [&'k [u8]],
}

impl<'k> Keyed<'k> {
    pub(in crate::stages) fn new(keys: &'k mut [&'k [u8]]) -> Self {
        Keyed { keys }
    }

    /// The next column, which has that type.
    pub(in crate::stages) fn column<'a>(&mut self, ty: &Type, arena: &'a Arena) -> Result<Column<'a>> {
        let rows = self.keys.len();
        let tag = |key: &[u8]| key.first().copied().unwrap_or_default();
        let missing = |key: &[u8]| !matches!(tag(key), VALUE | NAN);
        let valid = match self.keys.iter().any(|key| missing(key)) {
            true => Some(Bits::collect(arena, rows, |row| !missing(self.keys[row]))?),
            false => None,
        };
        let data = match ty {
            Type::Null => {
                self.each(|key| _ = tagged(key));
                return Ok(Column::nulls(rows));
            }
            Type::Bool => {
                let values = arena.collect(rows, |row| fixed::<1>(&mut self.keys[row]).is_some_and(|[v]| v == 1))?;
                Data::Bool(Bits::collect(arena, rows, |row| values[row])?)
            }
            Type::Int => Data::Int(self.longs(arena)?),
            Type::Timestamp => Data::Timestamp(self.longs(arena)?),
            Type::Duration => Data::Duration(self.longs(arena)?),
            Type::Float => Data::Float(arena.collect(rows, |row| {
                let key = &mut self.keys[row];
                let nan = tag(key) == NAN;
                match fixed(key).map(u64::from_be_bytes) {
                    Some(bits) => f64::from_bits(bits ^ if bits >> 63 == 1 { 1 << 63 } else { u64::MAX }),
                    None if nan => f64::NAN,
                    None => 0.0,
                }
            })?),
            Type::Date => Data::Date(arena.collect(rows, |row| {
                let bytes = fixed(&mut self.keys[row]);
                bytes.map_or(0, |bytes| (u32::from_be_bytes(bytes) ^ 1 << 31) as i32)
            })?),
            Type::Decimal { .. } => Data::Decimal(arena.collect(rows, |row| {
                let bytes = fixed(&mut self.keys[row]);
                bytes.map_or(0, |bytes| (u128::from_be_bytes(bytes) ^ 1 << 127) as i128)
            })?),
            Type::String | Type::Bytes | Type::Json => {
                let mut out = TextBuilder::new(arena, rows, 0)?;
                let mut text = vec![];
                for key in self.keys.iter_mut() {
                    match tagged(key) {
                        VALUE => {
                            let plain = unescaped(key, &mut text);
                            out.push_bytes(plain.unwrap_or(&text))?;
                        }
                        _ => out.push_empty(),
                    }
                }
                match ty {
                    Type::String => Data::String(out.finish()?),
                    _ => Data::Bytes(out.finish()?),
                }
            }
            Type::List(_) | Type::Record(_) => {
                let owned: Vec<Value> = self.keys.iter_mut().map(|key| nested(key, ty)).collect();
                let borrowed: Vec<&Value> = owned.iter().collect();
                return values::column(ty, &borrowed, arena);
            }
        };
        Ok(Column::new(data, valid, rows))
    }

    fn each(&mut self, mut f: impl FnMut(&mut &'k [u8])) {
        self.keys.iter_mut().for_each(&mut f);
    }

    fn longs<'a>(&mut self, arena: &'a Arena) -> Result<&'a [i64]> {
        Ok(arena.collect(self.keys.len(), |row| long(&mut self.keys[row]))?)
    }
}

/// The tag; the key moves behind it.
#[inline]
fn tagged(key: &mut &[u8]) -> u8 {
    match key.split_first() {
        Some((&tag, rest)) => {
            *key = rest;
            tag
        }
        None => 0,
    }
}

/// The bytes of a value, if there is one; the key moves behind it.
#[inline]
fn fixed<const N: usize>(key: &mut &[u8]) -> Option<[u8; N]> {
    if tagged(key) != VALUE {
        return None;
    }
    let (head, rest) = key.split_first_chunk::<N>()?;
    *key = rest;
    Some(*head)
}

#[inline]
fn long(key: &mut &[u8]) -> i64 {
    fixed(key).map_or(0, |bytes| (u64::from_be_bytes(bytes) ^ 1 << 63) as i64)
}

/// A text behind its tag; the key moves behind it. Where a zero byte stands in it, it is put together in `out` instead.
fn unescaped<'k>(key: &mut &'k [u8], out: &mut Vec<u8>) -> Option<&'k [u8]> {
    let whole = *key;
    let end = memchr::memchr(0, whole).unwrap_or(whole.len());
    if whole.get(end + 1) != Some(&ESCAPE) {
        *key = whole.get(end + 2..).unwrap_or_default();
        return Some(&whole[..end]);
    }
    out.clear();
    let mut at = 0;
    while let Some(&byte) = whole.get(at) {
        if byte == 0 && whole.get(at + 1) != Some(&ESCAPE) {
            break;
        }
        out.push(byte);
        at += if byte == 0 { 2 } else { 1 };
    }
    *key = whole.get(at + 2..).unwrap_or_default();
    None
}

/// A value that may be a list or record.
fn nested(key: &mut &[u8], ty: &Type) -> Value {
    match ty {
        Type::List(item) => {
            if tagged(key) != VALUE {
                return Value::Null;
            }
            let mut items = vec![];
            // Every element starts with a tag above the end.
            while key.first().is_some_and(|&tag| tag != 0) {
                items.push(nested(key, &item.ty));
            }
            tagged(key);
            Value::List(items)
        }
        Type::Record(schema) => {
            if tagged(key) != VALUE {
                return Value::Null;
            }
            let field = |f: &standpipe_sdk::Field| (f.name.to_string(), nested(key, &f.ty));
            Value::Record(schema.fields().iter().map(field).collect())
        }
        Type::String | Type::Json | Type::Bytes => {
            if tagged(key) != VALUE {
                return Value::Null;
            }
            let mut text = vec![];
            let bytes = match unescaped(key, &mut text) {
                Some(plain) => plain.to_vec(),
                None => text,
            };
            match ty {
                Type::Bytes => Value::Bytes(bytes),
                _ => Value::String(String::from_utf8(bytes).unwrap_or_default()),
            }
        }
        Type::Float => match key.first() {
            Some(&NAN) => {
                tagged(key);
                Value::Float(f64::NAN)
            }
            _ => fixed(key).map_or(Value::Null, |bytes| {
                let bits = u64::from_be_bytes(bytes);
                Value::Float(f64::from_bits(bits ^ if bits >> 63 == 1 { 1 << 63 } else { u64::MAX }))
            }),
        },
        Type::Bool => fixed::<1>(key).map_or(Value::Null, |[v]| Value::Bool(v == 1)),
        Type::Date => fixed(key).map_or(Value::Null, |bytes| {
            Value::Date((u32::from_be_bytes(bytes) ^ 1 << 31) as i32)
        }),
        Type::Decimal { scale, .. } => fixed(key).map_or(Value::Null, |bytes| Value::Decimal {
            value: (u128::from_be_bytes(bytes) ^ 1 << 127) as i128,
            scale: *scale,
        }),
        Type::Null => {
            tagged(key);
            Value::Null
        }
        Type::Int | Type::Timestamp | Type::Duration => match key.first() {
            Some(&VALUE) => {
                let value = long(key);
                match ty {
                    Type::Int => Value::Int(value),
                    Type::Timestamp => Value::Timestamp(value),
                    _ => Value::Duration(value),
                }
            }
            _ => {
                tagged(key);
                Value::Null
            }
        },
    }
}

/// The longest text of a key in a message, in characters.
const SHOWN: usize = 80;

/// `country = "DE", day = 2026-01-31`, for messages.
pub(in crate::stages) fn shown(mut key: &[u8], fields: &[standpipe_sdk::Field]) -> String {
    let mut out = String::new();
    for (at, field) in fields.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}{} = ", field.name);
        show(&nested(&mut key, &field.ty), &mut out);
    }
    out
}

fn show(value: &Value, out: &mut String) {
    let mut buf = Buf::default();
    match value {
        Value::Null => return out.push_str("null"),
        Value::Bool(v) => return out.push_str(if *v { "true" } else { "false" }),
        Value::String(v) | Value::Json(v) => {
            let cut: String = v.chars().take(SHOWN).collect();
            let dots = if cut.len() < v.len() { "…" } else { "" };
            let _ = write!(out, "\"{cut}{dots}\"");
            return;
        }
        Value::Bytes(_) => return out.push_str("bytes"),
        Value::List(_) => return out.push_str("[…]"),
        Value::Record(_) => return out.push_str("{…}"),
        Value::Int(v) => print::write_int(&mut buf, *v),
        Value::Float(v) => print::write_float(&mut buf, *v),
        Value::Decimal { value, scale } => print::write_decimal(&mut buf, *value, *scale),
        Value::Date(v) => print::write_date(&mut buf, *v),
        Value::Timestamp(v) => print::write_timestamp(&mut buf, *v),
        Value::Duration(v) => print::write_duration(&mut buf, *v),
    }
    out.push_str(buf.as_str());
}
