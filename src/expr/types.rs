//! Which types meet, and what becomes of them: the implicit conversions and the casts.

use crate::expr::{Expr, Kind, decimal};
use standpipe_sdk::{Field, Type, Value};

/// The type both can be converted to without loss or a cast.
pub(in crate::expr) fn common(a: &Type, b: &Type) -> Option<Type> {
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (Type::Int, Type::Float) | (Type::Float, Type::Int) => Type::Float,
        (Type::Int, Type::Decimal { precision, scale }) | (Type::Decimal { precision, scale }, Type::Int) => {
            wider((19, 0), (*precision, *scale))
        }
        (Type::Decimal { precision: p, scale: s }, Type::Decimal { precision, scale }) => {
            wider((*p, *s), (*precision, *scale))
        }
        (Type::List(a), Type::List(b)) => Type::list(common(&a.ty, &b.ty)?, a.nullable || b.nullable),
        (Type::Record(a), Type::Record(b)) if a.width() == b.width() => {
            let fields = a.fields().iter().zip(b.fields());
            let field = |(a, b): (&Field, &Field)| {
                let ty = if a.name == b.name {
                    common(&a.ty, &b.ty)?
                } else {
                    return None;
                };
                Some(Field::new(a.name.clone(), ty, a.nullable || b.nullable))
            };
            Type::Record(fields.map(field).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn wider(a: (u8, u8), b: (u8, u8)) -> Type {
    let scale = a.1.max(b.1);
    let whole = (a.0 - a.1).max(b.0 - b.1);
    Type::Decimal {
        precision: (whole + scale).min(decimal::DIGITS),
        scale,
    }
}

/// The common type of expressions; literals adapt to decimals beside them.
pub(in crate::expr) fn common_of<'e>(items: impl Iterator<Item = &'e Expr> + Clone) -> Option<Type> {
    let decimals = items.clone().any(|e| matches!(e.ty, Type::Decimal { .. }));
    items
        .map(|e| seen_as(e, decimals))
        .try_fold(Type::Null, |a, b| common(&a, &b))
}

/// The type of an expression as it counts beside a decimal (`decimals`) or anything else.
fn seen_as(e: &Expr, decimals: bool) -> Type {
    match (&e.kind, decimals) {
        (Kind::FloatText { text, .. }, true) => match literal(text) {
            Some((value, scale)) => of_value(value, scale),
            None => e.ty.clone(),
        },
        (Kind::Constant(Value::Int(n)), true) => of_value(i128::from(*n), 0),
        _ => e.ty.clone(),
    }
}

fn of_value(value: i128, scale: u8) -> Type {
    let digits = value.unsigned_abs().checked_ilog10().map_or(1, |n| n + 1) as u8;
    Type::Decimal {
        precision: digits.max(scale).min(decimal::DIGITS),
        scale,
    }
}

/// The exact value and scale of a literal with a point.
pub(in crate::expr) fn literal(text: &str) -> Option<(i128, u8)> {
    let (value, exponent) = decimal::parts(text.as_bytes())?;
    if exponent > 0 {
        return Some((decimal::fit(decimal::shift(value, exponent)?, decimal::DIGITS)?, 0));
    }
    let scale = u8::try_from(exponent.unsigned_abs())
        .ok()
        .filter(|&s| s <= decimal::DIGITS)?;
    Some((decimal::fit(value, decimal::DIGITS)?, scale))
}

/// Whether `from` becomes `to` without a cast.
pub(in crate::expr) fn is_implicit(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (a, b) if a == b => true,
        (Type::Null, _) | (Type::Int, Type::Float | Type::Decimal { .. }) => true,
        (Type::Decimal { precision: p, scale: s }, Type::Decimal { precision, scale }) => {
            s <= scale && p - s <= precision - scale
        }
        (Type::List(a), Type::List(b)) => is_implicit(&a.ty, &b.ty) && (b.nullable || !a.nullable),
        (Type::Record(a), Type::Record(b)) => {
            a.width() == b.width()
                && a.fields()
                    .iter()
                    .zip(b.fields())
                    .all(|(a, b)| a.name == b.name && is_implicit(&a.ty, &b.ty) && (b.nullable || !a.nullable))
        }
        _ => false,
    }
}

/// Whether a cast can fail; `None`: there is no such cast.
pub(in crate::expr) fn cast_fails(from: &Type, to: &Type) -> Option<bool> {
    Some(match (from, to) {
        (a, b) if a == b => false,
        (Type::Null, _) => false,
        (Type::Bool, Type::Int | Type::String | Type::Json) => false,
        (Type::Int, Type::Float | Type::String | Type::Json) => false,
        (Type::Int, Type::Decimal { precision, scale }) => precision - scale < 19,
        (Type::Float, Type::String | Type::Json) => false,
        (Type::Float, Type::Int | Type::Decimal { .. }) => true,
        (Type::Decimal { .. }, Type::Float | Type::String | Type::Json) => false,
        (Type::Decimal { .. }, Type::Int) => true,
        (Type::Decimal { precision: p, scale: s }, Type::Decimal { precision, scale }) => {
            precision - scale < p - s || (scale < s && precision - scale < p - s + 1)
        }
        (Type::String, Type::Bytes) => false,
        (
            Type::String | Type::Json,
            Type::Bool
            | Type::Int
            | Type::Float
            | Type::Decimal { .. }
            | Type::Date
            | Type::Timestamp
            | Type::Duration
            | Type::Json,
        ) => true,
        (Type::Json, Type::String) => false,
        (Type::Json, Type::List(item)) => cast_fails(&Type::Json, &item.ty).map(|_| true)?,
        (Type::Json, Type::Record(schema)) => {
            for field in schema.fields() {
                cast_fails(&Type::Json, &field.ty)?;
            }
            true
        }
        (Type::Bytes, Type::String) => true,
        (Type::Date, Type::Timestamp | Type::String | Type::Json) => false,
        (Type::Timestamp, Type::Date | Type::String | Type::Json) => false,
        (Type::Duration, Type::String | Type::Json) => false,
        (Type::List(_) | Type::Record(_), Type::Json) => false,
        (Type::List(a), Type::List(b)) => cast_fails(&a.ty, &b.ty)? || (a.nullable && !b.nullable),
        (Type::Record(a), Type::Record(b)) if a.width() == b.width() => {
            let mut fails = false;
            for (a, b) in a.fields().iter().zip(b.fields()) {
                if a.name != b.name {
                    return None;
                }
                fails |= cast_fails(&a.ty, &b.ty)? || (a.nullable && !b.nullable);
            }
            fails
        }
        _ => return None,
    })
}
