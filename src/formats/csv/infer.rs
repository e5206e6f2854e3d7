//! Headers and column types from the first rows of a CSV file.

use crate::expr::scalar::scan;
use crate::formats::csv::index::{self, State};
use standpipe_sdk::{Field, Schema, Type};

/// The cells of the first records of `text`, decoded: `None` = an empty cell without quotes.
pub struct Records<'t> {
    text: &'t [u8],
    at: usize,
    delimiter: u8,
}

/// One cell: its value, and whether it was quoted.
pub type Cell = Option<(Vec<u8>, bool)>;

impl<'t> Records<'t> {
    pub fn new(text: &'t [u8], delimiter: u8) -> Self {
        Records { text, at: 0, delimiter }
    }

    /// Where the next record begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next record, blank lines left out where there are several columns; `None` at the end of the text.
    pub fn next(&mut self, skip_blank: bool) -> Option<Vec<Cell>> {
        loop {
            if self.at >= self.text.len() {
                return None;
            }
            let (mut state, mut start, mut cells) = (State::FieldStart, self.at, Vec::new());
            let mut end = self.text.len();
            for (i, &byte) in self.text.iter().enumerate().skip(self.at) {
                let quoted = state == State::Quoted;
                state = state.step(byte, self.delimiter);
                if quoted {
                    continue;
                }
                if byte == self.delimiter {
                    cells.push(cell(&self.text[start..i]));
                    start = i + 1;
                } else if byte == b'\n' {
                    end = i;
                    break;
                }
            }
            let last = &self.text[start..end];
            self.at = (end + 1).min(self.text.len());
            if end == self.text.len() {
                self.at = end;
            }
            let last = last.strip_suffix(b"\r").unwrap_or(last);
            if cells.is_empty() && last.is_empty() && skip_blank {
                continue;
            }
            cells.push(cell(last));
            return Some(cells);
        }
    }
}

fn cell(raw: &[u8]) -> Cell {
    match raw.first() {
        None => None,
        Some(b'"') => {
            let mut value = vec![0; raw.len()];
            let len = index::unescape(raw, &mut value);
            value.truncate(len);
            Some((value, true))
        }
        Some(_) => Some((raw.to_vec(), false)),
    }
}

/// Column names of a header record: empty ones become `column_3`, repeated ones `name_2`. The flags say whether any did.
pub fn names(header: &[Cell]) -> (Vec<String>, bool) {
    let mut names: Vec<String> = Vec::with_capacity(header.len());
    let mut changed = false;
    for (i, cell) in header.iter().enumerate() {
        let text = cell
            .as_ref()
            .map(|(value, _)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default();
        let base = if text.is_empty() {
            format!("column_{}", i + 1)
        } else {
            text.clone()
        };
        let mut name = base.clone();
        let mut n = 1;
        while names.contains(&name) {
            n += 1;
            name = format!("{base}_{n}");
        }
        changed |= name != text;
        names.push(name);
    }
    (names, changed)
}

/// What the values of one column have been so far.
#[derive(Clone, Copy)]
struct Guess {
    any: bool,
    bool: bool,
    int: bool,
    float: bool,
    date: bool,
    timestamp: bool,
}

impl Guess {
    const START: Guess = Guess {
        any: false,
        bool: true,
        int: true,
        float: true,
        date: true,
        timestamp: true,
    };

    fn add(&mut self, value: &[u8]) {
        self.any = true;
        self.bool = self.bool && scan::parse_bool(value).is_some();
        self.int = self.int && scan::parse_int(value).is_some();
        self.float = self.float && scan::parse_float(value).is_some();
        self.date = self.date && scan::parse_date(value).is_some();
        self.timestamp = self.timestamp && scan::parse_timestamp(value).is_some() && scan::parse_date(value).is_none();
    }

    fn ty(self) -> Type {
        match self {
            Guess { any: false, .. } => Type::Null,
            Guess { bool: true, .. } => Type::Bool,
            Guess { int: true, .. } => Type::Int,
            Guess { float: true, .. } => Type::Float,
            Guess { date: true, .. } => Type::Date,
            Guess { timestamp: true, .. } => Type::Timestamp,
            _ => Type::String,
        }
    }
}

/// The type of a column with these values; null if there are none.
pub fn type_of<'t>(values: impl Iterator<Item = &'t str>) -> Type {
    let mut guess = Guess::START;
    values.for_each(|value| guess.add(value.as_bytes()));
    guess.ty()
}

/// The schema of `names` after looking at up to `rows` records. Every field is nullable. `nulls` are texts that mean null.
pub fn schema(names: &[String], records: &mut Records<'_>, rows: usize, nulls: &[Vec<u8>]) -> Schema {
    let mut guesses = vec![Guess::START; names.len()];
    for _ in 0..rows {
        let Some(record) = records.next(names.len() > 1) else {
            break;
        };
        for (guess, cell) in guesses.iter_mut().zip(&record) {
            match cell {
                None => {}
                Some((value, false)) if nulls.contains(value) => {}
                Some((value, _)) => guess.add(value),
            }
        }
    }
    let fields = names
        .iter()
        .zip(guesses)
        .map(|(name, guess)| Field::new(name.as_str(), guess.ty(), true));
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(text: &str) -> String {
        let mut records = Records::new(text.as_bytes(), b',');
        let (names, _) = names(&records.next(true).unwrap());
        schema(&names, &mut records, 100, &[b"NA".to_vec()]).to_string()
    }

    #[test]
    fn types_are_those_that_every_value_has() {
        assert_eq!(infer("a,b,c\n1,1.5,true\n-2,3,false\n"), "a: int?, b: float?, c: bool?");
        assert_eq!(infer("a,b,c\n007,+49,1e3\n"), "a: string?, b: string?, c: float?");
        assert_eq!(infer("a,b\n2026-01-31,2026-01-31 10:00\n"), "a: date?, b: timestamp?");
        assert_eq!(
            infer("a,b\n2026-01-31,1\n2026-01-31T00:00:00Z,x\n"),
            "a: string?, b: string?"
        );
        assert_eq!(infer("a,b,c\n,NA,\"\"\n\n,NA,x\n"), "a: null, b: null, c: string?");
        assert_eq!(
            infer("a,,a,column_2\r\n1,2,3,4\r\n"),
            "a: int?, column_2: int?, a_2: int?, column_2_2: int?"
        );
        assert_eq!(
            infer("\"x\ny\",z\n9223372036854775807,9223372036854775808\n"),
            "x\ny: int?, z: float?"
        );
    }
}
