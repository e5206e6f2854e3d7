//! Rows of literals, and how they are printed.

use super::SIZES;
use crate::arena::Arena;
use crate::error::Error;
use crate::types::{Field, Schema, Type};
use crate::value::Value;
use crate::values;
use std::fmt;

/// The columns that a text names, as the language writes them: `id: int, tags: list<string>?, at: {lat: float, lon: float}`.
///
/// # Panics
/// If it names none.
pub fn schema(text: &str) -> Schema {
    match parse(text) {
        Some(schema) => schema,
        None => panic!("`{text}` is no schema; `name: string, n: int?` is one"),
    }
}

fn parse(text: &str) -> Option<Schema> {
    let parts = split(text);
    let mut fields = vec![];
    for part in parts.iter().filter(|part| !part.trim().is_empty()) {
        let (name, ty) = part.split_once(':')?;
        let (ty, nullable) = type_of(ty.trim())?;
        fields.push(Field::new(name.trim(), ty, nullable));
    }
    Some(fields.into_iter().collect())
}

/// The parts between commas that stand in no bracket.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (vec![], 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '<' | '{' | '(' => depth += 1,
            '>' | '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A type, and whether it may be null.
fn type_of(text: &str) -> Option<(Type, bool)> {
    let (text, nullable) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
    let inside = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(item) = inside("list<", ">") {
        let (ty, nulls) = type_of(item.trim())?;
        return Some((Type::list(ty, nulls), nullable));
    }
    if let Some(fields) = inside("{", "}") {
        return Some((Type::Record(parse(fields)?), nullable));
    }
    if let Some(digits) = inside("decimal(", ")") {
        let (precision, scale) = digits.split_once(',')?;
        let ty = Type::Decimal {
            precision: precision.trim().parse().ok()?,
            scale: scale.trim().parse().ok()?,
        };
        return Some((ty, nullable));
    }
    let plain = [
        Type::Null,
        Type::Bool,
        Type::Int,
        Type::Float,
        Type::String,
        Type::Bytes,
        Type::Date,
        Type::Timestamp,
        Type::Duration,
        Type::Json,
    ];
    let found = plain.into_iter().find(|ty| ty.to_string() == text);
    found.map(|ty| (ty, nullable))
}

/// Rows with their columns; [`table!`](crate::table) writes one.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    schema: Schema,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// Rows with the columns that `schema` names.
    ///
    /// # Panics
    /// If the schema is none, a row has more or fewer cells than it, or a cell is not of its column's type.
    pub fn new(schema: &str, rows: Vec<Vec<Value>>) -> Table {
        Table::of(super::schema(schema), rows)
    }

    /// The same with a schema that is there already.
    ///
    /// # Panics
    /// As [`Table::new`].
    pub fn of(schema: Schema, rows: Vec<Vec<Value>>) -> Table {
        for (at, row) in rows.iter().enumerate() {
            assert!(
                row.len() == schema.width(),
                "row {at} has {} cells for {} columns",
                row.len(),
                schema.width()
            );
            for (cell, field) in row.iter().zip(schema.fields()) {
                assert!(
                    *cell != Value::Null || field.nullable || field.ty == Type::Null,
                    "row {at}: `{field}` has no nulls; `{}: {}?` has",
                    field.name,
                    field.ty
                );
            }
        }
        let arena = Arena::new(usize::MAX);
        if let Err(error) = values::batch(&schema, &rows, &arena) {
            panic!("{}", words(&error));
        }
        Table { schema, rows }
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn rows(&self) -> &[Vec<Value>] {
        &self.rows
    }
}

pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Failed { message, help, .. } => {
            let help = help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
            format!("{message}{help}")
        }
        other => other.to_string(),
    }
}

/// As an aligned table: a line of columns with their types, a line per row. Text is in quotes, numbers are to the right.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.schema, &self.rows, f)
    }
}

/// A row that was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The number of the row among all that were given, from 0.
    pub row: usize,
    pub message: String,
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    pub schema: Schema,
    pub rows: Vec<Vec<Value>>,
    pub rejects: Vec<Reject>,
    /// The stage has ended the stream by itself.
    pub ended: bool,
}

/// The table of what came out, then a line per rejected row.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.schema, &self.rows, f)?;
        for Reject { row, message } in &self.rejects {
            writeln!(f, "rejected row {row}: {message}")?;
        }
        if self.ended {
            writeln!(f, "ended")?;
        }
        Ok(())
    }
}

impl Output {
    pub(super) fn new(schema: Schema) -> Output {
        Output {
            schema,
            rows: vec![],
            rejects: vec![],
            ended: false,
        }
    }

    /// The values of the column called `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn column(&self, name: &str) -> Vec<Value> {
        match self.schema.position(name) {
            Some(at) => self.rows.iter().map(|row| row[at].clone()).collect(),
            None => panic!("there is no column `{name}`, but {}", self.schema),
        }
    }

    /// As [`Display`](fmt::Display) prints it.
    pub fn to_table(&self) -> String {
        self.to_string()
    }

    /// That `other`, which is of batches of at most `size` rows, is the same.
    pub(super) fn must_be(&self, other: &Output, size: usize) {
        let equal = |a: &[Vec<Value>], b: &[Vec<Value>]| format!("{a:?}") == format!("{b:?}");
        assert!(
            equal(&self.rows, &other.rows) && self.rejects == other.rejects && self.ended == other.ended,
            "what comes out depends on where batches end\n-- all rows in one batch:\n{self}-- batches of {size}:\n{other}"
        );
    }
}

fn print(schema: &Schema, rows: &[Vec<Value>], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let heads: Vec<String> = schema.fields().iter().map(ToString::to_string).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let width = |at: usize| {
        let cells = cells.iter().filter_map(|row| row.get(at));
        cells
            .chain([&heads[at]])
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut line = |cells: &[String], is_head: bool| {
        let mut out = String::new();
        for (at, (cell, field)) in cells.iter().zip(schema.fields()).enumerate() {
            let gap = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            let right = field.ty.is_number() && !is_head;
            out += if at > 0 { " | " } else { "" };
            out += &if right { gap + cell } else { cell.clone() + &gap };
        }
        writeln!(f, "{}", out.trim_end())
    };
    line(&heads, true)?;
    cells.iter().try_for_each(|row| line(row, false))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) => format!("{v:?}"),
        Value::Decimal { value, scale } => {
            let sign = if *value < 0 { "-" } else { "" };
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(*scale) + 1);
            let (whole, part) = digits.split_at(digits.len() - usize::from(*scale));
            let point = if part.is_empty() { "" } else { "." };
            format!("{sign}{whole}{point}{part}")
        }
        Value::String(v) => format!("{v:?}"),
        Value::Json(v) => format!("json {v}"),
        Value::Bytes(v) => format!("0x{}", v.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Date(days) => date(i64::from(*days)),
        Value::Timestamp(micros) => {
            let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
            let (seconds, part) = (rest / 1_000_000, rest % 1_000_000);
            let part = if part == 0 {
                String::new()
            } else {
                format!(".{part:06}")
            };
            let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            format!("{}T{clock}{part}Z", date(days))
        }
        Value::Duration(micros) => format!("{micros}us"),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Record(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, v)| format!("{name}: {}", shown(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A day of the calendar, by its number from 1970-01-01: counted in years that begin in March, 400 of which have 146,097 days.
fn date(days: i64) -> String {
    let from_march = days + 719_468;
    let (era, day) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = match month {
        10.. => (month - 9, era * 400 + year + 1),
        _ => (month + 3, era * 400 + year),
    };
    format!("{year:04}-{month:02}-{of_month:02}")
}

/// The parts of rows that batches of at most `size` rows have.
pub(super) fn parts(rows: &[Vec<Value>], size: usize) -> impl Iterator<Item = (usize, &[Vec<Value>])> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let part = &rows[at..rows.len().min(at.saturating_add(size))];
        let from = at;
        at += part.len();
        (!part.is_empty()).then_some((from, part))
    })
}

/// Runs with batches of every size, and sees that it makes no difference.
pub(super) fn at_all_sizes<E>(run: impl Fn(usize) -> Result<Output, E>) -> Result<Output, E> {
    let whole = run(usize::MAX)?;
    for size in SIZES {
        whole.must_be(&run(size)?, size);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_read_as_they_are_printed() {
        for text in [
            "",
            "id: int",
            "a: string?, b: list<int?>?, c: {lat: float, tags: list<string>}?, d: decimal(10,2)",
        ] {
            assert_eq!(schema(text).to_string(), text);
        }
        for bad in ["id", "id: integer", "a: list<", "d: decimal(1)"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_of_the_calendar() {
        let days = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_000, "2024-10-04"),
            (-719_162, "0001-01-01"),
        ];
        for (number, want) in days {
            assert_eq!(date(number), want);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let table = crate::table![
            "name: string?, n: int, x: decimal(9,2), at: timestamp";
            "Grace", 12, Value::Decimal { value: -5, scale: 2 }, Value::Timestamp(1_500_000);
            Value::Null, 7, Value::Decimal { value: 100, scale: 0 }, Value::Timestamp(-1_000_000);
        ];
        let want = "\
name: string? | n: int | x: decimal(9,2) | at: timestamp
\"Grace\"       |     12 |           -0.05 | 1970-01-01T00:00:01.500000Z
null          |      7 |             100 | 1969-12-31T23:59:59Z
";
        assert_eq!(table.to_string(), want);
    }

    #[test]
    #[should_panic(expected = "row 1: `n: int` has no nulls")]
    fn a_null_needs_a_column_that_has_some() {
        let _ = crate::table!["n: int"; 1; Value::Null];
    }

    #[test]
    #[should_panic(expected = "is not of type `int`")]
    fn a_cell_is_of_its_columns_type() {
        let _ = crate::table!["n: int"; "one"];
    }
}
