//! Rows as text: one line each, cells aligned.
//!
//! Laws
//! - The text of a cell shows its value whole: two cells have the same text iff they are the same value of their column's type, unless
//!   digits were asked for or the value is redacted.
//! - A long table shows its first and last rows, and a hash of all of them: no change is missed.

use crate::engine::Rows;
use crate::expr::Literal;
use sha2::{Digest as _, Sha256};
use standpipe_sdk::{Type, Value};
use std::fmt::Write as _;

/// Rows that a table shows whole.
const MOST_ROWS: usize = 200;
/// What it shows of more: so many first and so many last ones.
const HEAD: usize = 50;
const TAIL: usize = 20;

/// How columns are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Text in the place of values, by column.
    pub redact: Vec<(usize, String)>,
    /// Digits behind the point, by column.
    pub digits: Vec<(usize, usize)>,
}

/// A cell as text. Texts stand without quotes where nothing else could be meant.
pub fn cell(value: &Value, ty: &Type) -> String {
    match (value, ty) {
        (Value::Null, _) => String::new(),
        (Value::String(text), _) => {
            let plain = !text.is_empty()
                && text.trim() == text
                && !text.starts_with('"')
                && !text.contains(|c: char| c == '|' || c == '#' || c.is_control())
                && text != "null";
            if plain {
                text.clone()
            } else {
                Literal(value).to_string()
            }
        }
        (Value::Date(_) | Value::Timestamp(_), _) => Literal(value).to_string().trim_start_matches('@').to_owned(),
        (Value::Json(text), _) => text.replace('\n', " ").replace('|', "\\u007c"),
        (value, _) => Literal(value).to_string().replace('|', "\\u{7c}"),
    }
}

fn looked(value: &Value, ty: &Type, at: usize, look: &Look) -> String {
    if let Some((_, text)) = look.redact.iter().find(|(column, _)| *column == at) {
        // Whether there is a value at all is not what changes from run to run.
        return if *value == Value::Null {
            String::new()
        } else {
            text.clone()
        };
    }
    match (value, look.digits.iter().find(|(column, _)| *column == at)) {
        (Value::Float(number), Some((_, digits))) if number.is_finite() => {
            let text = format!("{number:.digits$}");
            // -0.00 and 0.00 are one number.
            match text.strip_prefix('-') {
                Some(rest) if rest.bytes().all(|b| matches!(b, b'0' | b'.')) => rest.to_owned(),
                _ => text,
            }
        }
        _ => cell(value, ty),
    }
}

/// The cells of all rows as text.
pub fn cells(rows: &Rows, look: &Look) -> Vec<Vec<String>> {
    let fields = rows.schema.fields();
    let row = |row: &Vec<Value>| {
        let cells = row.iter().zip(fields).enumerate();
        cells
            .map(|(at, (value, field))| looked(value, &field.ty, at, look))
            .collect()
    };
    rows.rows.iter().map(row).collect()
}

/// Lines of cells with bars between, aligned; no blanks at their ends.
pub fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(at))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let line = |cells: &Vec<String>| {
        let mut text = String::new();
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                text.push_str(" | ");
            }
            let _ = write!(text, "{cell:<width$}", width = widths[at]);
        }
        text.truncate(text.trim_end().len());
        text
    };
    lines.iter().map(line).collect()
}

/// The rows as a table: names, types, rows.
pub fn table(rows: &Rows, look: &Look) -> String {
    let fields = rows.schema.fields();
    let names = fields.iter().map(|field| field.name.to_string()).collect();
    let types = fields
        .iter()
        .map(|field| format!("{}{}", field.ty, if field.nullable { "?" } else { "" }))
        .collect();
    let all = cells(rows, look);
    let long = all.len() > MOST_ROWS;
    let mut shown: Vec<Vec<String>> = vec![names, types];
    match long {
        false => shown.extend(all.iter().cloned()),
        true => shown.extend(all.iter().take(HEAD).chain(&all[all.len() - TAIL..]).cloned()),
    }
    let mut lines = aligned(&shown);
    let rule: String = "-".repeat(lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(1));
    lines.insert(2, rule);
    if long {
        let left_out = format!(
            "… {} rows more, {} in all: sha256 {}",
            all.len() - HEAD - TAIL,
            all.len(),
            hash(&all)
        );
        lines.insert(3 + HEAD, left_out);
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn hash(rows: &[Vec<String>]) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        for cell in row {
            // Lengths first: no two rows of cells give the same bytes.
            hash.update((cell.len() as u64).to_le_bytes());
            hash.update(cell.as_bytes());
        }
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::{Field, Schema};

    fn rows(count: i64) -> Rows {
        Rows {
            schema: Schema::new(vec![
                Field::new("id", Type::Int, false),
                Field::new("name", Type::String, true),
                Field::new("x", Type::Float, true),
            ]),
            rows: (0..count)
                .map(|id| vec![Value::Int(id), Value::String("é".into()), Value::Float(-0.001)])
                .collect(),
        }
    }

    #[test]
    fn texts_are_told_from_nothing_and_from_what_looks_like_it() {
        for (text, shown) in [
            ("a b", "a b"),
            ("", "\"\""),
            (" a", "\" a\""),
            ("a|b", "\"a|b\""),
            ("null", "\"null\""),
            ("x\ny", "\"x\\ny\""),
        ] {
            assert_eq!(cell(&Value::String(text.into()), &Type::String), shown);
        }
        assert_eq!(cell(&Value::Null, &Type::String), "");
    }

    #[test]
    fn columns_are_aligned_and_can_be_rounded_or_redacted() {
        let look = Look {
            redact: vec![(0, "[id]".into())],
            digits: vec![(2, 2)],
        };
        assert_eq!(
            table(&rows(1), &look),
            "id   | name    | x\nint  | string? | float?\n-----------------------\n[id] | é       | 0.00\n"
        );
    }

    #[test]
    fn a_change_in_what_a_long_table_leaves_out_is_seen() {
        let (long, mut other) = (rows(1_000), rows(1_000));
        other.rows[500][1] = Value::Null;
        let (a, b) = (table(&long, &Look::default()), table(&other, &Look::default()));
        assert!(a.contains("… 930 rows more, 1000 in all: sha256 "), "{a}");
        assert_eq!(a.lines().count(), 3 + HEAD + TAIL + 1);
        assert_ne!(a, b);
    }
}
