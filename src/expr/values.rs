//! Between owned values and columns: constants into a chunk's arena, cells back out.

use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Bits, Cell, Column, Columns, Data, ListData, RecordData, Result, Text, Type, Value};

/// A column of these values, which are of type `ty` or null.
pub(in crate::expr) fn column<'a>(arena: &'a Arena, values: &[&Value], ty: &Type) -> Result<Column<'a>> {
    let len = values.len();
    if values.iter().all(|v| **v == Value::Null) && len > 0 {
        return Ok(Column::nulls(len));
    }
    let valid = if values.iter().any(|v| **v == Value::Null) {
        Some(Bits::collect(arena, len, |i| *values[i] != Value::Null)?)
    } else {
        None
    };
    let long = |i: usize| match values[i] {
        Value::Int(v) | Value::Timestamp(v) | Value::Duration(v) => *v,
        _ => 0,
    };
    let data = match ty {
        Type::Null => Data::Null,
        Type::Bool => Data::Bool(Bits::collect(arena, len, |i| *values[i] == Value::Bool(true))?),
        Type::Int => Data::Int(arena.collect(len, long)?),
        Type::Timestamp => Data::Timestamp(arena.collect(len, long)?),
        Type::Duration => Data::Duration(arena.collect(len, long)?),
        Type::Float => Data::Float(arena.collect(len, |i| match values[i] {
            Value::Float(v) => *v,
            _ => 0.0,
        })?),
        Type::Decimal { .. } => Data::Decimal(arena.collect(len, |i| match values[i] {
            Value::Decimal { value, .. } => *value,
            _ => 0,
        })?),
        Type::Date => Data::Date(arena.collect(len, |i| match values[i] {
            Value::Date(v) => *v,
            _ => 0,
        })?),
        Type::String => Data::String(texts(arena, values)?),
        Type::Bytes => Data::Bytes(texts(arena, values)?),
        Type::Json => Data::Json(texts(arena, values)?),
        Type::List(item) => {
            let size = |value: &Value| match value {
                Value::List(items) => items.len(),
                _ => 0,
            };
            let mut at = 0;
            let offsets = arena.collect(len + 1, |i| {
                let start = at;
                at += values.get(i).map_or(0, |v| size(v));
                start as i32
            })?;
            let mut items = values.iter().flat_map(|value| match value {
                Value::List(items) => items.as_slice(),
                _ => &[],
            });
            let null = &Value::Null;
            let total = values.iter().map(|v| size(v)).sum();
            let scratch: &Arena = arena;
            let elements = scratch.collect(total, |_| items.next().unwrap_or(null))?;
            let child = arena.one(column(arena, elements, &item.ty)?)?;
            Data::List(ListData { offsets, child })
        }
        Type::Record(schema) => {
            let mut columns = Columns::new(arena, schema.width())?;
            let null = &Value::Null;
            for (index, field) in schema.fields().iter().enumerate() {
                let scratch: &Arena = arena;
                let of = scratch.collect(len, |i| match values[i] {
                    Value::Record(fields) => fields.get(index).map_or(null, |(_, v)| v),
                    _ => null,
                })?;
                columns.push(column(arena, of, &field.ty)?);
            }
            Data::Record(RecordData::new(columns.finish()))
        }
    };
    Ok(Column::new(data, valid, len))
}

fn texts<'a>(arena: &'a Arena, values: &[&Value]) -> Result<Text<'a>> {
    let mut out = TextBuilder::new(arena, values.len(), 0)?;
    for value in values {
        match value {
            Value::String(text) | Value::Json(text) => out.push(text)?,
            Value::Bytes(bytes) => out.push_bytes(bytes)?,
            _ => out.push_empty(),
        }
    }
    out.finish()
}

/// The value of a cell of type `ty`.
pub(crate) fn of_cell(cell: &Cell<'_>, ty: &Type) -> Value {
    match *cell {
        Cell::Null => Value::Null,
        Cell::Bool(v) => Value::Bool(v),
        Cell::Int(v) => Value::Int(v),
        Cell::Float(v) => Value::Float(v),
        Cell::Decimal(value) => Value::Decimal {
            value,
            scale: match ty {
                Type::Decimal { scale, .. } => *scale,
                _ => 0,
            },
        },
        Cell::String(v) => Value::String(v.to_string()),
        Cell::Bytes(v) | Cell::Verbatim(v) => Value::Bytes(v.to_vec()),
        Cell::Date(v) => Value::Date(v),
        Cell::Timestamp(v) => Value::Timestamp(v),
        Cell::Duration(v) => Value::Duration(v),
        Cell::Json(v) => Value::Json(v.to_string()),
        Cell::List(column) => {
            let item = match ty {
                Type::List(item) => item.ty.clone(),
                _ => Type::Null,
            };
            Value::List((0..column.len()).map(|row| of_cell(&column.cell(row), &item)).collect())
        }
        Cell::Record(columns, row) => match ty {
            Type::Record(schema) => {
                let fields = schema.fields().iter().zip(columns);
                Value::Record(
                    fields
                        .map(|(f, c)| (f.name.to_string(), of_cell(&c.cell(row), &f.ty)))
                        .collect(),
                )
            }
            _ => Value::Null,
        },
    }
}
