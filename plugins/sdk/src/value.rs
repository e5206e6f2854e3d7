//! Single values: owned ([`Value`], constants of a plan) and borrowed ([`Cell`], one row of a column).

use crate::column::Column;

/// A constant: a literal, a parameter, a folded expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// `value / 10^scale`.
    Decimal {
        value: i128,
        scale: u8,
    },
    String(String),
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// Microseconds.
    Duration(i64),
    List(Vec<Value>),
    Record(Vec<(String, Value)>),
    /// JSON text.
    Json(String),
}

macro_rules! values_from {
    ($($ty:ty => $variant:ident;)*) => {$(
        impl From<$ty> for Value {
            fn from(value: $ty) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}
values_from! {
    bool => Bool;
    i32 => Int;
    i64 => Int;
    f64 => Float;
    &str => String;
    String => String;
}

/// `None` is null.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// One row of a column: what slow paths (tables, JSON of nested values, tests) look at.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// The unscaled value; the scale is in the type.
    Decimal(i128),
    String(&'a str),
    Bytes(&'a [u8]),
    Date(i32),
    Timestamp(i64),
    Duration(i64),
    Json(&'a str),
    /// A cell as it stood in a CSV file, quotes and all.
    Verbatim(&'a [u8]),
    /// The elements, as a column of their own.
    List(Column<'a>),
    /// The record's columns and the row in them.
    Record(&'a [Column<'a>], usize),
}
