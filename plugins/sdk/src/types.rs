//! Types, fields and schemas.

use std::fmt;
use std::sync::Arc;

/// The type of a column or value. Nullability belongs to the [`Field`] or [`Item`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// The type of `null` and of a column without any value: it fits any nullable type.
    Null,
    Bool,
    Int,
    Float,
    /// `precision` digits in all (at most 38), `scale` of them behind the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Bytes,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// Microseconds.
    Duration,
    List(Arc<Item>),
    Record(Schema),
    /// Any JSON value, kept as its text.
    Json,
}

/// The element type of a list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Item {
    pub ty: Type,
    pub nullable: bool,
}

/// A named, typed column of a schema or record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Field {
    pub name: Arc<str>,
    pub ty: Type,
    pub nullable: bool,
}

impl Field {
    /// A field called `name`.
    pub fn new(name: impl Into<Arc<str>>, ty: Type, nullable: bool) -> Self {
        Field {
            name: name.into(),
            ty,
            nullable,
        }
    }
}

/// The columns of a stream, in order; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Schema {
    fields: Arc<[Field]>,
}

impl Schema {
    /// A schema of these fields. Names are meant to be distinct; the checker reports it where they are not.
    pub fn new(fields: impl Into<Arc<[Field]>>) -> Self {
        Schema { fields: fields.into() }
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.fields.len()
    }

    /// The position of the column called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| &*f.name == name)
    }

    /// The field at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&Field> {
        self.fields.get(index)
    }
}

impl FromIterator<Field> for Schema {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        Schema {
            fields: fields.into_iter().collect(),
        }
    }
}

impl Type {
    /// A list whose elements are `ty`.
    pub fn list(ty: Type, nullable: bool) -> Type {
        Type::List(Arc::new(Item { ty, nullable }))
    }

    /// Whether values have an order (`<`, sort, min).
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Type::List(_) | Type::Record(_) | Type::Json | Type::Bytes)
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Float | Type::Decimal { .. })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Float => f.write_str("float"),
            Type::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Date => f.write_str("date"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item) => write!(f, "list<{item}>"),
            Type::Record(schema) => write!(f, "{{{schema}}}"),
            Type::Json => f.write_str("json"),
        }
    }
}

fn mark(nullable: bool, ty: &Type) -> &'static str {
    if nullable && *ty != Type::Null { "?" } else { "" }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ty, mark(self.nullable, &self.ty))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.name, self.ty, mark(self.nullable, &self.ty))
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{field}")?;
        }
        Ok(())
    }
}
