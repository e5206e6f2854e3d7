//! Casts: `int(x)`, `string(x)`, …, and the implicit conversions.

use super::text::build;
use crate::expr::eval::{Cx, Val};
use crate::expr::json::{self, Unescaped};
use crate::expr::scalar::civil::DAY;
use crate::expr::scalar::scan::{self, DecimalError};
use crate::expr::{Expr, JSON_KIND, OVERFLOW, PARSE, UNFIT, cell, decimal};
use standpipe_sdk::{Bits, Column, Columns, Data, ListData, RecordData, Result, Schema, Type};
use std::fmt;

/// `value` of type `from` as type `to`; `e` is the expression at fault.
pub(in crate::expr) fn cast<'a>(
    cx: &Cx<'_, 'a>,
    e: &Expr,
    (from, value): (&Type, Val<'a>),
    to: &Type,
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    if value.is_null() {
        return Ok(Val::null());
    }
    if from == to {
        return Ok(value);
    }
    let task = Task {
        cx,
        e,
        value,
        to,
        active,
    };
    let arena = cx.arena();
    match (from, to) {
        (Type::Bool, Type::Int) => {
            let Data::Bool(bits) = value.column.data() else {
                return Ok(Val::null());
            };
            task.same(Data::Int(arena.collect(bits.len(), |row| i64::from(bits.get(row)))?))
        }
        (Type::Int, Type::Float) => {
            let Data::Int(values) = value.column.data() else {
                return Ok(Val::null());
            };
            task.same(Data::Float(arena.map(values, |v| v as f64)?))
        }
        (Type::Int, Type::Decimal { precision, scale }) => {
            let values = value.ints();
            task.each(Data::Decimal, 0, |row| {
                decimal::fit(
                    decimal::shift(i128::from(values.get(row)), i32::from(*scale))?,
                    *precision,
                )
            })
        }
        (Type::Float, Type::Int) => {
            let values = value.floats();
            task.each(Data::Int, 0, |row| {
                let x = values.get(row);
                // 2^63 itself is the first float that does not fit.
                let fits = x.trunc() == x && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x);
                fits.then_some(x as i64)
            })
        }
        (Type::Float, Type::Decimal { precision, scale }) => {
            let values = value.floats();
            task.each(Data::Decimal, 0, |row| {
                decimal::from_float(values.get(row), *precision, *scale)
            })
        }
        (Type::Decimal { scale, .. }, Type::Float) => {
            let Data::Decimal(values) = value.column.data() else {
                return Ok(Val::null());
            };
            task.same(Data::Float(arena.map(values, |v| decimal::to_float(v, *scale))?))
        }
        (Type::Decimal { scale, .. }, Type::Int) => {
            let values = value.decimals();
            let unit = decimal::POWERS[(*scale).min(decimal::DIGITS) as usize];
            task.each(Data::Int, 0, |row| {
                let v = values.get(row);
                if v % unit == 0 {
                    i64::try_from(v / unit).ok()
                } else {
                    None
                }
            })
        }
        (Type::Decimal { scale: s, .. }, Type::Decimal { precision, scale }) => {
            let values = value.decimals();
            let by = i32::from(*scale) - i32::from(*s);
            task.each(Data::Decimal, 0, |row| {
                decimal::fit(decimal::shift(values.get(row), by)?, *precision)
            })
        }
        (Type::Date, Type::Timestamp) => {
            let Data::Date(days) = value.column.data() else {
                return Ok(Val::null());
            };
            task.same(Data::Timestamp(arena.map(days, |day| i64::from(day) * DAY)?))
        }
        (Type::Timestamp, Type::Date) => {
            let Data::Timestamp(micros) = value.column.data() else {
                return Ok(Val::null());
            };
            task.same(Data::Date(arena.map(micros, |m| m.div_euclid(DAY) as i32)?))
        }
        (Type::String, Type::Bytes) => match value.text() {
            Some(text) => task.same(Data::Bytes(text)),
            None => Ok(Val::null()),
        },
        (Type::String | Type::Bytes, _) => from_text(&task),
        (Type::Json, Type::List(item)) => json_list(&task, &item.ty),
        (Type::Json, Type::Record(schema)) => json_record(&task, schema),
        (Type::Json, _) => from_json(&task),
        (Type::List(_), Type::List(item)) => list(&task, from, &item.ty),
        (Type::Record(schema), Type::Record(target)) => record(&task, schema, target),
        (_, Type::String | Type::Json) => to_text(&task, from),
        // `bind` lets nothing else through.
        _ => Ok(Val::null()),
    }
}

/// One cast over one batch.
struct Task<'t, 'e, 'a> {
    cx: &'t Cx<'e, 'a>,
    e: &'t Expr,
    value: Val<'a>,
    to: &'t Type,
    active: Option<Bits<'a>>,
}

impl<'a> Task<'_, '_, 'a> {
    /// New values, one for each row of the old ones.
    fn same(&self, data: Data<'a>) -> Result<Val<'a>> {
        let column = Column::new(data, self.value.column.valid(), self.value.column.len());
        Ok(Val::new(column, self.value.constant))
    }

    /// Row by row; `None` does not fit.
    fn each<T: Copy + 'a>(
        &self,
        data: impl Fn(&'a [T]) -> Data<'a>,
        zero: T,
        f: impl Fn(usize) -> Option<T>,
    ) -> Result<Val<'a>> {
        let (values, valid) = self.cx.attempt(self.value.valid(), self.active, zero, |row| {
            let value = f(row);
            if value.is_none() {
                self.unfit(row)?;
            }
            Ok(value)
        })?;
        Ok(Val::rows(Column::new(data(values), valid, values.len())))
    }

    /// A way out, as the script would have it.
    fn help(&self) -> String {
        let default = match self.to {
            Type::Int => "0",
            Type::Float => "0.0",
            Type::Bool => "false",
            _ => "null",
        };
        format!("`{} catch {default}`, or `on error to rejects`", self.e)
    }

    #[cold]
    fn unfit(&self, row: usize) -> Result<()> {
        if self.cx.quiet(row) {
            return Ok(());
        }
        let cell = self.value.column.cell(self.value.at(row));
        let from = match &self.e.kind {
            crate::expr::Kind::Cast { e, .. } => e.ty.clone(),
            _ => Type::Null,
        };
        let mut text = String::new();
        let _ = cell::plain(&mut text, &cell, &from);
        let code = if matches!(self.to, Type::Decimal { .. }) {
            OVERFLOW
        } else {
            UNFIT
        };
        let help = self.help();
        let help = match (&from, self.to) {
            (Type::Float | Type::Decimal { .. }, Type::Int) => format!("`round(…)`, `floor(…)`, or {help}"),
            _ => help,
        };
        self.cx.fault(
            row,
            code,
            self.e,
            Some(format_args!("{help}")),
            format_args!("{text} does not fit {}", self.to),
        )
    }

    /// Says that a text is no value of the type; long texts are cut.
    #[cold]
    fn unread(&self, row: usize, text: &str) -> Result<()> {
        if self.cx.quiet(row) {
            return Ok(());
        }
        const SHOWN: usize = 60;
        let end = text.floor_char_boundary(SHOWN);
        let dots = if end < text.len() { "…" } else { "" };
        let help = self.help();
        // A decimal that is one, but of another type, says so.
        let why = match self.to {
            Type::Decimal { precision, scale } => scan::parse_decimal(text.as_bytes(), *precision, *scale).err(),
            _ => None,
        };
        let why = why
            .filter(|why| *why != DecimalError::Syntax)
            .map(|why| format!(": {why}"));
        self.cx.fault(
            row,
            PARSE,
            self.e,
            Some(format_args!("{help}")),
            format_args!(
                "cannot parse {} from {:?}{}",
                self.to,
                Shown(&text[..end], dots),
                why.as_deref().unwrap_or_default()
            ),
        )
    }

    /// Row by row out of text.
    fn parse<T: Copy + 'a>(
        &self,
        data: impl Fn(&'a [T]) -> Data<'a>,
        zero: T,
        f: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Val<'a>> {
        let Some(text) = self.value.text() else {
            return Ok(Val::null());
        };
        let (values, valid) = self.cx.attempt(self.value.valid(), self.active, zero, |row| {
            let text = text.str(self.value.at(row));
            let value = f(text.as_bytes());
            if value.is_none() {
                self.unread(row, text)?;
            }
            Ok(value)
        })?;
        Ok(Val::rows(Column::new(data(values), valid, values.len())))
    }

    /// The rows and, for a constant, as many of the same.
    fn spread(&self) -> Result<Column<'a>> {
        self.cx.spread(self.value.column, self.value.constant)
    }
}

/// A text in quotes, perhaps cut.
struct Shown<'t>(&'t str, &'t str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.0.escape_debug(), self.1)
    }
}

fn from_text<'a>(task: &Task<'_, '_, 'a>) -> Result<Val<'a>> {
    match task.to {
        Type::Int => task.parse(Data::Int, 0, scan::parse_int),
        Type::Float => task.parse(Data::Float, 0.0, scan::parse_float),
        Type::Decimal { precision, scale } => {
            task.parse(Data::Decimal, 0, |t| scan::parse_decimal(t, *precision, *scale).ok())
        }
        Type::Date => task.parse(Data::Date, 0, scan::parse_date),
        Type::Timestamp => task.parse(Data::Timestamp, 0, scan::parse_timestamp),
        Type::Duration => task.parse(Data::Duration, 0, scan::parse_duration),
        Type::Bool => {
            let Some(text) = task.value.text() else {
                return Ok(Val::null());
            };
            let (values, valid) = task.cx.attempt(task.value.valid(), task.active, false, |row| {
                let text = text.str(task.value.at(row));
                let value = scan::parse_bool(text.as_bytes());
                if value.is_none() {
                    task.unread(row, text)?;
                }
                Ok(value)
            })?;
            let bits = Bits::collect(task.cx.arena(), values.len(), |row| values[row])?;
            Ok(Val::rows(Column::bool(bits, valid)))
        }
        _ => checked_text(task),
    }
}

/// The same bytes under another type, where they are fit for it: bytes as text, text as JSON.
fn checked_text<'a>(task: &Task<'_, '_, 'a>) -> Result<Val<'a>> {
    let column = task.spread()?;
    let (text, is_json) = match column.data() {
        Data::String(text) => (text, true),
        Data::Bytes(text) => (text, false),
        _ => return Ok(Val::null()),
    };
    let (_, valid) = task.cx.attempt(column.valid(), task.active, (), |row| {
        let fine = match std::str::from_utf8(text.bytes(row)) {
            Ok(text) if is_json => json::is_valid(text),
            Ok(_) => true,
            Err(_) => false,
        };
        if fine {
            return Ok(Some(()));
        }
        if is_json {
            task.unread(row, text.str(row))?;
        } else {
            task.cx
                .fault(row, PARSE, task.e, None, format_args!("these bytes are not UTF-8"))?;
        }
        Ok(None)
    })?;
    if is_json {
        return Ok(Val::rows(Column::new(Data::Json(text), valid, column.len())));
    }
    // Bytes that are not UTF-8 must never be seen as text, not even under a null: copy the good rows.
    let text = build(task.cx, column.len(), valid, |row, out| {
        out.push_str(std::str::from_utf8(text.bytes(row)).unwrap_or_default());
    })?;
    Ok(Val::rows(Column::new(Data::String(text), valid, column.len())))
}

fn to_text<'a>(task: &Task<'_, '_, 'a>, from: &Type) -> Result<Val<'a>> {
    let column = task.value.column;
    let as_json = *task.to == Type::Json;
    let text = build(task.cx, column.len(), column.valid(), |row, out| {
        let cell = column.cell(row);
        // Writing to a String cannot fail.
        let _ = if as_json {
            cell::json(out, &cell, from)
        } else {
            cell::plain(out, &cell, from)
        };
    })?;
    task.same(if as_json { Data::Json(text) } else { Data::String(text) })
}

/// Scalars out of json: null where it is `null`.
fn from_json<'a>(task: &Task<'_, '_, 'a>) -> Result<Val<'a>> {
    let column = task.spread()?;
    let Data::Json(text) = column.data() else {
        return Ok(Val::null());
    };
    let arena = task.cx.arena();
    let is_null = |row: usize| text.str(row).trim_ascii() == "null";
    let valid = Bits::collect(arena, column.len(), |row| column.is_valid(row) && !is_null(row))?;
    if *task.to == Type::String {
        let text = build(task.cx, column.len(), Some(valid), |row, out| {
            match json::string(text.str(row)) {
                Some(inside) if inside.contains('\\') => out.extend(Unescaped(inside)),
                Some(inside) => out.push_str(inside),
                None => out.push_str(text.str(row)),
            }
        })?;
        return Ok(Val::rows(Column::new(Data::String(text), Some(valid), column.len())));
    }
    macro_rules! scalars {
        ($variant:ident, $zero:expr, $parse:expr, $quoted:expr) => {{
            let (values, valid) = task.cx.attempt(Some(valid), task.active, $zero, |row| {
                let whole = text.str(row).trim_ascii();
                let inside = if $quoted { json::string(whole) } else { Some(whole) };
                let value = inside.and_then(|t| $parse(t.as_bytes()));
                if value.is_none() {
                    unread_json(task, row, whole)?;
                }
                Ok(value)
            })?;
            (values, valid)
        }};
    }
    macro_rules! column {
        ($variant:ident, $zero:expr, $parse:expr, $quoted:expr) => {{
            let (values, valid) = scalars!($variant, $zero, $parse, $quoted);
            Ok(Val::rows(Column::new(Data::$variant(values), valid, values.len())))
        }};
    }
    match task.to {
        Type::Int => column!(Int, 0, json_int, false),
        Type::Float => column!(Float, 0.0, scan::parse_number, false),
        Type::Decimal { precision, scale } => {
            column!(
                Decimal,
                0,
                |t: &[u8]| scan::parse_decimal(t, *precision, *scale).ok(),
                false
            )
        }
        Type::Date => column!(Date, 0, scan::parse_date, true),
        Type::Timestamp => column!(Timestamp, 0, scan::parse_timestamp, true),
        Type::Duration => column!(Duration, 0, scan::parse_duration, true),
        _ => {
            let (values, valid) = scalars!(Bool, false, scan::parse_bool, false);
            let bits = Bits::collect(arena, values.len(), |row| values[row])?;
            Ok(Val::rows(Column::bool(bits, valid)))
        }
    }
}

/// An int as JSON may write it: `1`, `1.0`, `1e3`.
fn json_int(text: &[u8]) -> Option<i64> {
    scan::parse_int(text).or_else(|| i64::try_from(scan::parse_decimal(text, decimal::DIGITS, 0).ok()?).ok())
}

#[cold]
fn unread_json(task: &Task<'_, '_, '_>, row: usize, text: &str) -> Result<()> {
    let kind = json::kind(text);
    if matches!(kind, "a string" | "a number") {
        return task.unread(row, json::string(text).unwrap_or(text));
    }
    let help = task.help();
    task.cx.fault(
        row,
        JSON_KIND,
        task.e,
        Some(format_args!("{help}")),
        format_args!("the json value is {kind}, not {}", task.to),
    )
}

/// Lists out of json arrays.
fn json_list<'a>(task: &Task<'_, '_, 'a>, item: &Type) -> Result<Val<'a>> {
    let column = task.spread()?;
    let Data::Json(text) = column.data() else {
        return Ok(Val::null());
    };
    let (arena, rows) = (task.cx.arena(), column.len());
    let valid = Bits::collect(arena, rows, |row| {
        column.is_valid(row) && text.str(row).trim_ascii() != "null"
    })?;
    let (counts, valid) = task.cx.attempt(Some(valid), task.active, 0u32, |row| {
        let whole = text.str(row);
        if json::kind(whole) != "an array" {
            unread_json(task, row, whole.trim_ascii())?;
            return Ok(None);
        }
        Ok(Some(json::elements(whole).count() as u32))
    })?;
    let mut total = 0usize;
    let offsets = arena.collect(rows + 1, |row| {
        let start = total;
        total += counts.get(row).map_or(0, |&n| n as usize);
        start as i32
    })?;
    let mut next = (0..rows).filter(|&row| counts[row] > 0).flat_map(|row| {
        let parts = json::elements(text.str(row));
        parts.map(move |part| (row as u32, part.start as u32, part.end as u32))
    });
    let parts: &[(u32, u32, u32)] = arena.collect(total, |_| next.next().unwrap_or_default())?;
    let owners: &[u32] = arena.map(parts, |(row, ..)| row)?;
    let cut = text
        .gather(owners, arena)?
        .cut(arena, |at, _| parts[at].1 as usize..parts[at].2 as usize)?;
    let elements = Val::rows(Column::new(Data::Json(cut), None, total));
    let child = task.cx.within(owners, |inner| {
        let value = cast(inner, task.e, (&Type::Json, elements), item, None)?;
        inner.spread(value.column, value.constant)
    })?;
    let child = arena.one(child)?;
    Ok(Val::rows(Column::new(
        Data::List(ListData { offsets, child }),
        valid,
        rows,
    )))
}

/// Records out of json objects; a missing member is null.
fn json_record<'a>(task: &Task<'_, '_, 'a>, schema: &Schema) -> Result<Val<'a>> {
    let column = task.spread()?;
    let Data::Json(text) = column.data() else {
        return Ok(Val::null());
    };
    let (arena, rows) = (task.cx.arena(), column.len());
    let valid = Bits::collect(arena, rows, |row| {
        column.is_valid(row) && text.str(row).trim_ascii() != "null"
    })?;
    let (_, valid) = task.cx.attempt(Some(valid), task.active, (), |row| {
        let whole = text.str(row);
        if json::kind(whole) == "an object" {
            return Ok(Some(()));
        }
        unread_json(task, row, whole.trim_ascii())?;
        Ok(None)
    })?;
    let mut columns = Columns::new(arena, schema.width())?;
    for field in schema.fields() {
        let parts = arena.collect(rows, |row| match json::member(text.str(row), &field.name) {
            json::Find::At(range) => (range.start, range.end),
            _ => (0, 0),
        })?;
        let cut = text.cut(arena, |row, _| parts[row].0..parts[row].1)?;
        let there = Bits::collect(arena, rows, |row| parts[row].1 > 0 && valid.is_none_or(|v| v.get(row)))?;
        let value = Val::rows(Column::new(Data::Json(cut), Some(there), rows));
        let value = cast(task.cx, task.e, (&Type::Json, value), &field.ty, task.active)?;
        let column = task.cx.spread(value.column, value.constant)?;
        if !field.nullable {
            let missing = task.cx.attempt(valid, task.active, (), |row| {
                if parts[row].1 == 0 {
                    let message = format_args!("the json value has no field `{}`", field.name);
                    task.cx.fault(row, crate::expr::MISSING, task.e, None, message)?;
                }
                Ok(Some(()))
            })?;
            let _ = missing;
        }
        columns.push(column);
    }
    Ok(Val::rows(Column::new(
        Data::Record(RecordData::new(columns.finish())),
        valid,
        rows,
    )))
}

/// Lists element by element.
fn list<'a>(task: &Task<'_, '_, 'a>, from: &Type, item: &Type) -> Result<Val<'a>> {
    let (Data::List(lists), Type::List(old)) = (task.value.column.data(), from) else {
        return Ok(Val::null());
    };
    let column = task.spread()?;
    let Data::List(spread) = column.data() else {
        return Ok(Val::null());
    };
    let _ = lists;
    let (arena, rows) = (task.cx.arena(), column.len());
    let live = |row: usize| column.is_valid(row) && task.active.is_none_or(|a| a.get(row));
    let range = |row: usize| if live(row) { spread.range(row) } else { 0..0 };
    let mut total = 0;
    let offsets = arena.collect(rows + 1, |row| {
        let start = total;
        if row < rows {
            total += range(row).len();
        }
        start as i32
    })?;
    let mut next = (0..rows).flat_map(|row| range(row).map(move |at| (row as u32, at as u32)));
    let pairs: &[(u32, u32)] = arena.collect(total, |_| next.next().unwrap_or_default())?;
    let owners: &[u32] = arena.map(pairs, |(row, _)| row)?;
    let picks: &[u32] = arena.map(pairs, |(_, at)| at)?;
    let elements = spread.child.gather(picks, arena)?;
    let child = task.cx.within(owners, |inner| {
        let value = cast(inner, task.e, (&old.ty, Val::rows(elements)), item, None)?;
        inner.spread(value.column, value.constant)
    })?;
    let child = arena.one(child)?;
    Ok(Val::rows(Column::new(
        Data::List(ListData { offsets, child }),
        column.valid(),
        rows,
    )))
}

/// Records field by field.
fn record<'a>(task: &Task<'_, '_, 'a>, from: &Schema, to: &Schema) -> Result<Val<'a>> {
    let column = task.spread()?;
    let Data::Record(record) = column.data() else {
        return Ok(Val::null());
    };
    let arena = task.cx.arena();
    let active = standpipe_sdk::bits::both(task.active, column.valid(), arena)?;
    let mut columns = Columns::new(arena, to.width())?;
    for (index, (old, new)) in from.fields().iter().zip(to.fields()).enumerate() {
        let value = Val::rows(record.field(index, column.len()));
        let value = cast(task.cx, task.e, (&old.ty, value), &new.ty, active)?;
        columns.push(task.cx.spread(value.column, value.constant)?);
    }
    Ok(Val::rows(Column::new(
        Data::Record(RecordData::new(columns.finish())),
        column.valid(),
        column.len(),
    )))
}
