//! What `columns:` says: `id: row, name: string, at: timestamp?`.

use standpipe_sdk::{Field, Type};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The number of the row, from 1.
    Row,
    Bool,
    Int,
    Float,
    String,
    Date,
    Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
}

const KINDS: [(&str, Kind); 7] = [
    ("row", Kind::Row),
    ("bool", Kind::Bool),
    ("int", Kind::Int),
    ("float", Kind::Float),
    ("string", Kind::String),
    ("date", Kind::Date),
    ("timestamp", Kind::Timestamp),
];

impl Column {
    pub(crate) fn field(&self) -> Field {
        let ty = match self.kind {
            Kind::Row | Kind::Int => Type::Int,
            Kind::Bool => Type::Bool,
            Kind::Float => Type::Float,
            Kind::String => Type::String,
            Kind::Date => Type::Date,
            Kind::Timestamp => Type::Timestamp,
        };
        Field::new(self.name.as_str(), ty, self.nullable)
    }
}

/// The columns of such a text, or what is wrong with it.
pub(crate) fn read(text: &str) -> Result<Vec<Column>, String> {
    let mut columns: Vec<Column> = vec![];
    for part in text.split(',') {
        let part = part.trim();
        let Some((name, kind)) = part.split_once(':') else {
            return Err(format!("`{part}` is no column: it is `name: type`"));
        };
        let (name, kind) = (name.trim(), kind.trim());
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(format!("`{name}` is no name for a column"));
        }
        if columns.iter().any(|column| column.name == name) {
            return Err(format!("there are two columns `{name}`"));
        }
        let word = kind.strip_suffix('?').unwrap_or(kind).trim_end();
        let Some((_, known)) = KINDS.iter().find(|(known, _)| *known == word) else {
            let all: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
            return Err(format!("`{name}` cannot be `{word}`: there are {}", all.join(", ")));
        };
        columns.push(Column {
            name: name.to_owned(),
            kind: *known,
            nullable: kind.ends_with('?'),
        });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_or_refused_with_the_reason() {
        let column = |name: &str, kind, nullable| Column {
            name: name.into(),
            kind,
            nullable,
        };
        let read_columns = read(" id:row,at : timestamp? ").unwrap_or_default();
        assert_eq!(
            read_columns,
            [column("id", Kind::Row, false), column("at", Kind::Timestamp, true)]
        );
        for (text, what) in [
            ("", "`` is no column"),
            ("id", "`id` is no column"),
            ("id: row,", "`` is no column"),
            ("1: row", "`1` is no name"),
            ("a: int, a: row", "two columns `a`"),
            ("a: text", "`a` cannot be `text`"),
            ("a: int??", "`a` cannot be `int?`"),
        ] {
            let said = read(text).err().unwrap_or_default();
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
