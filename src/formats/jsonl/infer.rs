//! The schema of a sample of lines.
//!
//! Laws
//! - Columns and fields stand in the order of their first appearance; all are nullable.
//! - A line that is no record does not count: the decoder will say what is wrong with it.
//! - Recursion goes as deep as a line that was checked: at most `DEEPEST`.

use super::Reading;
use super::decode::explain;
use crate::expr::json::lexer::{self, Bad, Int, Lexer, Wrong, unescape};
use standpipe_sdk::{Error, Field, Result, Schema, Type};
use std::borrow::Cow;
use std::sync::Arc;

/// What a sample says.
#[derive(Clone, Debug)]
pub struct Inferred {
    pub schema: Schema,
    /// Lines that are records.
    pub rows: usize,
    /// Lines that are not.
    pub bad: usize,
}

/// The schema of `sample`, which is whole lines (no zeros needed behind it).
///
/// int and float make float; ints beyond 64 bits make json (float beside floats); any other mixture makes json; no value at all makes
/// null.
///
/// # Errors
/// If there are lines and none is a record: what is wrong with the first.
pub fn infer(sample: &[u8], reading: &Reading) -> Result<Inferred> {
    let lex = Lexer::new(sample, sample.len());
    let wide = Lexer::wide(sample, sample.len());
    let mut top = Shape::default();
    let (mut rows, mut bad) = (0, 0);
    let mut first_bad = None;
    let mut start = if sample.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    while start < sample.len() {
        let end = memchr::memchr(b'\n', &sample[start..]).map_or(sample.len(), |n| start + n);
        let at = lex.blanks(start);
        if at < end {
            let checked = match std::str::from_utf8(&sample[start..end]) {
                Ok(_) => wide.map_or_else(|| lex.line(at), |wide| wide.line(at)),
                Err(error) => lexer::bad(start + error.valid_up_to(), Wrong::Utf8),
            };
            match checked.and_then(|_| top.see(lex, at, &reading.nulls)) {
                Ok(_) => rows += 1,
                Err(error) => {
                    bad += 1;
                    first_bad.get_or_insert((error, start));
                }
            }
        }
        start = end + 1;
    }
    if let (0, Some((Bad { at, wrong }, start))) = (rows, first_bad) {
        let (code, message) = explain(lex, wrong, at as usize);
        let line = memchr::memchr_iter(b'\n', &sample[..start]).count() + 1;
        let byte = (at as usize + 1).saturating_sub(start);
        return Err(Error::failed(code, format!("{message}, at byte {byte} of line {line}")));
    }
    Ok(Inferred {
        schema: top.schema(),
        rows,
        bad,
    })
}

const BOOL: u8 = 1;
const INT: u8 = 2;
const LARGE: u8 = 4;
const FLOAT: u8 = 8;
const STRING: u8 = 16;
const LIST: u8 = 32;
const RECORD: u8 = 64;

/// What was seen in one place.
#[derive(Default)]
struct Shape {
    kinds: u8,
    item: Option<Box<Shape>>,
    fields: Vec<(Arc<str>, Shape)>,
    /// The field that is expected next: the one behind the field seen last.
    next: usize,
    index: hashbrown::HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
}

impl Shape {
    /// Takes in the value at `at` of a checked line; gives what is behind it.
    fn see(&mut self, lex: Lexer<'_>, at: usize, nulls: &[String]) -> Result<usize, Bad> {
        match lex.byte(at) {
            b'n' => lex.literal(at, b"null"),
            b'"' => {
                let (end, escaped) = lex.string(at + 1)?;
                let is_null = |raw: &[u8]| {
                    let text = text(raw, escaped);
                    nulls.iter().any(|null| *null == text)
                };
                if nulls.is_empty() || !is_null(lex.text(at + 1, end)) {
                    self.kinds |= STRING;
                }
                Ok(end + 1)
            }
            b't' | b'f' => {
                self.kinds |= BOOL;
                lex.skip(at, 0)
            }
            b'[' => {
                self.kinds |= LIST;
                let item = self.item.get_or_insert_default();
                let mut at = lex.blanks(at + 1);
                while lex.byte(at) != b']' {
                    at = lex.blanks(item.see(lex, at, nulls)?);
                    if lex.byte(at) == b',' {
                        at = lex.blanks(at + 1);
                    }
                }
                Ok(at + 1)
            }
            b'{' => {
                self.kinds |= RECORD;
                let mut at = lex.blanks(at + 1);
                while lex.byte(at) != b'}' {
                    let (end, escaped) = lex.string(at + 1)?;
                    let name = lex.text(at + 1, end);
                    at = lex.colon(end + 1)?;
                    at = lex.blanks(self.field(name, escaped).see(lex, at, nulls)?);
                    if lex.byte(at) == b',' {
                        at = lex.blanks(at + 1);
                    }
                }
                Ok(at + 1)
            }
            _ => {
                let (end, int) = lex.int(at)?;
                self.kinds |= match int {
                    Int::Value(_) => INT,
                    Int::Large => LARGE,
                    Int::Float => FLOAT,
                };
                Ok(end)
            }
        }
    }

    fn field(&mut self, raw: &[u8], escaped: bool) -> &mut Shape {
        let expected = self
            .fields
            .get(self.next)
            .filter(|(name, _)| !escaped && name.as_bytes() == raw);
        let index = match expected {
            Some(_) => self.next,
            None => {
                let name = text(raw, escaped);
                let count = self.fields.len();
                match self.index.get(&*name) {
                    Some(&index) => index,
                    None => {
                        let name: Arc<str> = name.into();
                        self.index.insert(name.clone(), count);
                        self.fields.push((name, Shape::default()));
                        count
                    }
                }
            }
        };
        self.next = if index + 1 < self.fields.len() { index + 1 } else { 0 };
        &mut self.fields[index].1
    }

    fn schema(&self) -> Schema {
        self.fields
            .iter()
            .map(|(name, shape)| Field::new(name.clone(), shape.ty(), true))
            .collect()
    }

    fn ty(&self) -> Type {
        match self.kinds {
            0 => Type::Null,
            BOOL => Type::Bool,
            INT => Type::Int,
            STRING => Type::String,
            LIST => Type::list(self.item.as_ref().map_or(Type::Null, |item| item.ty()), true),
            RECORD => Type::Record(self.schema()),
            kinds if kinds & FLOAT != 0 && kinds & !(INT | LARGE | FLOAT) == 0 => Type::Float,
            _ => Type::Json,
        }
    }
}

/// The text of a checked string.
fn text(raw: &[u8], escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return String::from_utf8_lossy(raw);
    }
    let mut bytes = raw.to_vec();
    let len = unescape(raw, &mut bytes);
    Cow::Owned(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// One schema for files of these two: columns of both, first those of `a`; types widened as within one file.
pub fn merge(a: &Schema, b: &Schema) -> Schema {
    let shared = a
        .fields()
        .iter()
        .map(|field| match b.position(&field.name).and_then(|at| b.get(at)) {
            Some(other) => Field::new(field.name.clone(), merge_types(&field.ty, &other.ty), true),
            None => Field::new(field.name.clone(), field.ty.clone(), true),
        });
    let added = b.fields().iter().filter(|field| a.position(&field.name).is_none());
    shared
        .chain(added.map(|field| Field::new(field.name.clone(), field.ty.clone(), true)))
        .collect()
}

fn merge_types(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (a, b) if a == b => a.clone(),
        (Type::Int, Type::Float) | (Type::Float, Type::Int) => Type::Float,
        (Type::List(a), Type::List(b)) => Type::list(merge_types(&a.ty, &b.ty), true),
        (Type::Record(a), Type::Record(b)) => Type::Record(merge(a, b)),
        _ => Type::Json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(sample: &str) -> String {
        infer(sample.as_bytes(), &Reading::default())
            .unwrap()
            .schema
            .to_string()
    }

    #[test]
    fn each_mixture_has_one_type() {
        for (values, want) in [
            (&["1", "2"][..], "a: int?"),
            (&["1", "2.5"], "a: float?"),
            (&["1e3"], "a: float?"),
            (&["1", "null"], "a: int?"),
            (&["null", "null"], "a: null"),
            (&["true", "false"], "a: bool?"),
            (&["\"1\"", "\"x\""], "a: string?"),
            (&["\"1\"", "1"], "a: json?"),
            (&["true", "1"], "a: json?"),
            (&["9223372036854775808"], "a: json?"),
            (&["9223372036854775808", "1.5"], "a: float?"),
            (&["9223372036854775807", "-9223372036854775808"], "a: int?"),
            (&["[]"], "a: list<null>?"),
            (&["[1]", "[]", "[null, 2.5]"], "a: list<float?>?"),
            (&["[[1], [\"x\"]]"], "a: list<list<json?>?>?"),
            (&["{}"], "a: {}?"),
            (
                &["{\"x\": 1}", "{\"y\": \"s\", \"x\": 2.5}"],
                "a: {x: float?, y: string?}?",
            ),
            (&["{\"x\": 1}", "[1]"], "a: json?"),
        ] {
            let sample: String = values.iter().map(|v| format!("{{\"a\":{v}}}\n")).collect();
            assert_eq!(schema(&sample), want, "{values:?}");
        }
    }

    #[test]
    fn columns_stand_in_order_of_first_appearance() {
        assert_eq!(
            schema("\u{feff}{\"b\":1}\n\n {\"a\":true, \"b\":2}\r\n{\"\\u0063\":\"x\"}"),
            "b: int?, a: bool?, c: string?"
        );
    }

    #[test]
    fn bad_lines_do_not_count_unless_there_are_only_bad_ones() {
        let found = infer(b"{\"a\":1}\n{\"a\":\"x\"\n[1]\n{\"b\":\xff}\n", &Reading::default()).unwrap();
        assert_eq!(
            (found.schema.to_string(), found.rows, found.bad),
            ("a: int?".into(), 1, 3)
        );
        let error = infer(b"\nid,name\n1,x\n", &Reading::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "E0409: not JSON: a value is expected, at byte 1 of line 2"
        );
        let nothing = infer(b"", &Reading::default()).unwrap();
        assert_eq!((nothing.rows, nothing.schema.width()), (0, 0));
    }

    #[test]
    fn named_nulls_have_no_type() {
        let reading = Reading {
            nulls: vec!["".into(), "NA".into()],
            ..Reading::default()
        };
        let found = infer(b"{\"a\":\"NA\",\"b\":\"\"}\n{\"a\":1,\"b\":\"x\"}\n", &reading).unwrap();
        assert_eq!(found.schema.to_string(), "a: int?, b: string?");
    }

    #[test]
    fn files_are_merged_as_rows_are() {
        let a = infer(b"{\"a\":1,\"b\":{\"x\":1},\"c\":null}", &Reading::default())
            .unwrap()
            .schema;
        let b = infer(
            b"{\"d\":\"s\",\"c\":[1],\"b\":{\"y\":true},\"a\":1.5}",
            &Reading::default(),
        )
        .unwrap()
        .schema;
        let both = merge(&a, &b);
        assert_eq!(
            both.to_string(),
            "a: float?, b: {x: int?, y: bool?}?, c: list<int?>?, d: string?"
        );
    }
}
