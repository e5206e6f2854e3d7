//! Columns made of constants and back: what literal sources and tests stand on.

use crate::build::TextBuilder;
use crate::error::{Code, Error, Result};
use crate::{Arena, Batch, Bits, Cell, Column, Columns, Data, Field, ListData, RecordData, Schema, Text, Type, Value};

/// A constant is not of the type of its column: whoever checked it let it pass.
pub const BAD_CONSTANT: Code = Code(999);

impl Value {
    /// What a column of type `ty` holds in a row.
    pub fn of(cell: Cell<'_>, ty: &Type) -> Value {
        match (cell, ty) {
            (Cell::Bool(v), _) => Value::Bool(v),
            (Cell::Int(v), _) => Value::Int(v),
            (Cell::Float(v), _) => Value::Float(v),
            (Cell::Decimal(value), ty) => Value::Decimal {
                value,
                scale: match ty {
                    Type::Decimal { scale, .. } => *scale,
                    _ => 0,
                },
            },
            (Cell::String(v), _) => Value::String(v.into()),
            (Cell::Bytes(v) | Cell::Verbatim(v), _) => Value::Bytes(v.into()),
            (Cell::Date(v), _) => Value::Date(v),
            (Cell::Timestamp(v), _) => Value::Timestamp(v),
            (Cell::Duration(v), _) => Value::Duration(v),
            (Cell::Json(v), _) => Value::Json(v.into()),
            (Cell::List(list), Type::List(item)) => {
                Value::List((0..list.len()).map(|row| Value::of(list.cell(row), &item.ty)).collect())
            }
            (Cell::Record(columns, row), Type::Record(schema)) => {
                let field = |(f, c): (&Field, &Column<'_>)| (f.name.to_string(), Value::of(c.cell(row), &f.ty));
                Value::Record(schema.fields().iter().zip(columns).map(field).collect())
            }
            (Cell::Null | Cell::List(_) | Cell::Record(..), _) => Value::Null,
        }
    }
}

/// The rows of a batch as values.
pub fn rows(batch: &Batch<'_>, schema: &Schema) -> Vec<Vec<Value>> {
    let row = |row: usize| {
        let cells = batch.columns().iter().zip(schema.fields());
        cells
            .map(|(column, field)| Value::of(column.cell(row), &field.ty))
            .collect()
    };
    (0..batch.rows()).map(row).collect()
}

/// The rows as a batch without places. A row that is too short is filled up with nulls.
///
/// # Errors
/// `Memory` if the arena is full; `Failed` if a value is not of its column's type.
pub fn batch<'a>(schema: &Schema, rows: &[Vec<Value>], arena: &'a Arena) -> Result<Batch<'a>> {
    let mut columns = Columns::new(arena, schema.width())?;
    for (index, field) in schema.fields().iter().enumerate() {
        columns.push(cells(&field.ty, rows, index, arena)?);
    }
    Ok(Batch::new(columns.finish(), None, rows.len()))
}

/// Column `index` of `rows`.
pub fn cells<'a>(ty: &Type, rows: &[Vec<Value>], index: usize, arena: &'a Arena) -> Result<Column<'a>> {
    let values = arena.collect(rows.len(), |row| rows[row].get(index).unwrap_or(&Value::Null))?;
    column(ty, values, arena)
}

/// A column of these values. Ints may stand for floats and decimals, decimals of a smaller scale for larger ones.
pub fn column<'a>(ty: &Type, values: &[&Value], arena: &'a Arena) -> Result<Column<'a>> {
    let len = values.len();
    let nulls = values.iter().filter(|v| matches!(v, Value::Null)).count();
    if nulls == len && len > 0 {
        return Ok(Column::nulls(len));
    }
    let mut misfit = None;
    let data = {
        let mut bad = |value: &Value| misfit = misfit.take().or(Some(format!("{value:?}")));
        match ty {
            Type::Null => Data::Null,
            Type::Bool => Data::Bool(Bits::collect(arena, len, |i| match values[i] {
                Value::Bool(v) => *v,
                other => zero(other, &mut bad),
            })?),
            Type::Int => Data::Int(arena.collect(len, |i| match values[i] {
                Value::Int(v) => *v,
                other => zero(other, &mut bad),
            })?),
            Type::Float => Data::Float(arena.collect(len, |i| match values[i] {
                Value::Float(v) => *v,
                Value::Int(v) => *v as f64,
                other => zero(other, &mut bad),
            })?),
            Type::Decimal { scale, .. } => Data::Decimal(arena.collect(len, |i| {
                let (value, from) = match values[i] {
                    Value::Decimal { value, scale } => (*value, *scale),
                    Value::Int(v) => (i128::from(*v), 0),
                    other => (zero(other, &mut bad), *scale),
                };
                let lifted = scale
                    .checked_sub(from)
                    .and_then(|by| 10i128.checked_pow(u32::from(by))?.checked_mul(value));
                lifted.unwrap_or_else(|| zero(values[i], &mut bad))
            })?),
            Type::Date => Data::Date(arena.collect(len, |i| match values[i] {
                Value::Date(v) => *v,
                other => zero(other, &mut bad),
            })?),
            Type::Timestamp => Data::Timestamp(arena.collect(len, |i| match values[i] {
                Value::Timestamp(v) => *v,
                other => zero(other, &mut bad),
            })?),
            Type::Duration => Data::Duration(arena.collect(len, |i| match values[i] {
                Value::Duration(v) => *v,
                other => zero(other, &mut bad),
            })?),
            Type::String => Data::String(text(values, arena, |v| match v {
                Value::String(v) => v.as_bytes(),
                other => zero(other, &mut bad),
            })?),
            Type::Json => Data::Json(text(values, arena, |v| match v {
                Value::Json(v) => v.as_bytes(),
                other => zero(other, &mut bad),
            })?),
            Type::Bytes => Data::Bytes(text(values, arena, |v| match v {
                Value::Bytes(v) => v,
                other => zero(other, &mut bad),
            })?),
            Type::List(item) => {
                let mut total = 0usize;
                let offsets = arena.collect(len + 1, |i| {
                    let start = total;
                    total += match values.get(i) {
                        Some(Value::List(v)) => v.len(),
                        Some(other) => zero(other, &mut bad),
                        None => 0,
                    };
                    start as i32
                })?;
                let mut elements = values.iter().flat_map(|v| match v {
                    Value::List(v) => v.as_slice(),
                    _ => &[],
                });
                let elements = arena.collect(total, |_| elements.next().unwrap_or(&Value::Null))?;
                let child = arena.one(column(&item.ty, elements, arena)?)?;
                Data::List(ListData { offsets, child })
            }
            Type::Record(schema) => {
                let mut columns = Columns::new(arena, schema.width())?;
                for field in schema.fields() {
                    let of = |value: &&'_ Value| -> Option<usize> {
                        let Value::Record(fields) = value else { return None };
                        fields.iter().position(|(name, _)| **name == *field.name)
                    };
                    let fields = arena.collect(len, |i| match (values[i], of(&values[i])) {
                        (Value::Record(fields), Some(at)) => &fields[at].1,
                        _ => &Value::Null,
                    })?;
                    columns.push(column(&field.ty, fields, arena)?);
                }
                for value in values {
                    if !matches!(value, Value::Record(_) | Value::Null) {
                        bad(value);
                    }
                }
                Data::Record(RecordData::new(columns.finish()))
            }
        }
    };
    if let Some(value) = misfit {
        let message = format!("the constant {value} is not of type `{ty}`");
        return Err(Error::failed(BAD_CONSTANT, message));
    }
    let valid = match nulls {
        0 => None,
        _ => Some(Bits::collect(arena, len, |i| !matches!(values[i], Value::Null))?),
    };
    Ok(Column::new(data, valid, len))
}

/// What stands under a null; anything else is a misfit.
fn zero<T: Default>(value: &Value, bad: &mut impl FnMut(&Value)) -> T {
    if !matches!(value, Value::Null) {
        bad(value);
    }
    T::default()
}

fn text<'a, 'v>(
    values: &[&'v Value],
    arena: &'a Arena,
    mut bytes: impl FnMut(&'v Value) -> &'v [u8],
) -> Result<Text<'a>> {
    let long = values.iter().map(|&v| match v {
        Value::String(v) | Value::Json(v) => v.len(),
        Value::Bytes(v) => v.len(),
        _ => 0,
    });
    let mut builder = TextBuilder::new(arena, values.len(), long.sum())?;
    for value in values {
        builder.push_bytes(bytes(value))?;
    }
    builder.finish()
}
