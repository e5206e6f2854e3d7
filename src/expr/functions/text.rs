//! Text functions.
//!
//! Laws
//! - Positions and lengths count characters (Unicode scalar values) from 0; negative positions count from the end.
//! - A part of a text shares its memory; only new text is written, after it has been measured.
//! - Upper and lower case go character by character, without regard to the language or to the end of a word.

use crate::expr::function::{Args, Example, FunctionSpec, Given, Nulls, ParamSpec, Pattern, Returns};
use crate::expr::scalar::print::Put;
use crate::expr::{DOMAIN, INDEX};
use memchr::memmem;
use regex::{CaptureLocations, Regex};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Bits, Column, Columns, Data, Field, ListData, RecordData, Result, Schema, Text, Type};
use std::any::Any;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

const TEXT: ParamSpec = ParamSpec::new("text", Pattern::String);
const PART: ParamSpec = ParamSpec::new("part", Pattern::String);
const SEPARATOR: ParamSpec = ParamSpec::new("separator", Pattern::String);
const COUNT: ParamSpec = ParamSpec::new("n", Pattern::Int);
const REGEX: ParamSpec = ParamSpec::new("regex", Pattern::Regex);

/// The longest text that `repeat` and `pad_*` make, in bytes.
const LONGEST: usize = 64 << 20;

/// The text functions.
pub(in crate::expr) const FUNCTIONS: &[FunctionSpec] = &[
    FunctionSpec {
        name: "upper",
        about: "The text in upper case.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"upper("Straße 7")"#, r#""STRASSE 7""#),
            Example::value(r#"upper("")"#, r#""""#),
            Example::value("upper(null)", "null"),
        ],
        eval: upper,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "lower",
        about: "The text in lower case.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"lower("ÄpFeL")"#, r#""äpfel""#),
            Example::value("lower(null)", "null"),
        ],
        eval: lower,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "capitalize",
        about: "The text with its first character in upper case, the others as they are.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"capitalize("élan Vital")"#, r#""Élan Vital""#),
            Example::value("capitalize(null)", "null"),
        ],
        eval: capitalize,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "title",
        about: "The first letter of each word in upper case, the others in lower case.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"title("o'NEILL van der berg")"#, r#""O'Neill Van Der Berg""#),
            Example::value("title(null)", "null"),
        ],
        eval: title,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "trim",
        about: "The text without white space at its ends.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"trim("  a b\t")"#, r#""a b""#),
            Example::value(r#"trim(" ")"#, r#""""#),
            Example::value("trim(null)", "null"),
        ],
        eval: trim,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "trim_start",
        about: "The text without white space at its start.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"trim_start(" a ")"#, r#""a ""#),
            Example::value("trim_start(null)", "null"),
        ],
        eval: trim_start,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "trim_end",
        about: "The text without white space at its end.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"trim_end(" a ")"#, r#"" a""#),
            Example::value("trim_end(null)", "null"),
        ],
        eval: trim_end,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "remove_prefix",
        about: "The text without `part` at its start, if it starts with it.",
        params: &[TEXT, PART],
        returns: Returns::String,
        examples: &[
            Example::value(r#"remove_prefix("id-7", "id-")"#, r#""7""#),
            Example::value(r#"remove_prefix("7", "id-")"#, r#""7""#),
            Example::value(r#"remove_prefix(null, "id-")"#, "null"),
        ],
        eval: remove_prefix,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "remove_suffix",
        about: "The text without `part` at its end, if it ends with it.",
        params: &[TEXT, PART],
        returns: Returns::String,
        examples: &[
            Example::value(r#"remove_suffix("a.csv", ".csv")"#, r#""a""#),
            Example::value(r#"remove_suffix("a.csv", null)"#, "null"),
        ],
        eval: remove_suffix,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "length",
        about: "How many characters the text has.",
        params: &[TEXT],
        returns: Returns::Int,
        examples: &[
            Example::value(r#"length("Öl")"#, "2"),
            Example::value(r#"length("")"#, "0"),
            Example::value("length(null)", "null"),
        ],
        eval: length,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "byte_length",
        about: "How many bytes the text has in UTF-8.",
        params: &[TEXT],
        returns: Returns::Int,
        examples: &[
            Example::value(r#"byte_length("Öl")"#, "3"),
            Example::value("byte_length(null)", "null"),
        ],
        eval: byte_length,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "byte_length",
        about: "How many bytes there are.",
        params: &[ParamSpec::new("bytes", Pattern::Bytes)],
        returns: Returns::Int,
        examples: &[
            Example::value(r#"byte_length(b"abc")"#, "3"),
            Example::value(r#"byte_length(b"")"#, "0"),
        ],
        eval: byte_length,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "is_blank",
        about: "Whether the text is empty or white space only.",
        params: &[TEXT],
        returns: Returns::Bool,
        examples: &[
            Example::value(r#"is_blank(" \t")"#, "true"),
            Example::value(r#"is_blank("a")"#, "false"),
            Example::value("is_blank(null)", "null"),
        ],
        eval: is_blank,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "starts_with",
        about: "Whether the text begins with `part`.",
        params: &[TEXT, PART],
        returns: Returns::Bool,
        examples: &[
            Example::value(r#"starts_with("banana", "ba")"#, "true"),
            Example::value(r#"starts_with("banana", "")"#, "true"),
            Example::value(r#"starts_with(null, "ba")"#, "null"),
        ],
        eval: starts_with,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "ends_with",
        about: "Whether the text ends with `part`.",
        params: &[TEXT, PART],
        returns: Returns::Bool,
        examples: &[
            Example::value(r#"ends_with("banana", "na")"#, "true"),
            Example::value(r#"ends_with("banana", null)"#, "null"),
        ],
        eval: ends_with,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "contains",
        about: "Whether `part` occurs in the text.",
        params: &[TEXT, PART],
        returns: Returns::Bool,
        examples: &[
            Example::value(r#"contains("banana", "nan")"#, "true"),
            Example::value(r#"contains("banana", "NAN")"#, "false"),
            Example::value(r#"contains(null, "nan")"#, "null"),
        ],
        prepare: Some(prepare_needle),
        eval: contains,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "find",
        about: "Where `part` first occurs in the text, in characters from 0; null if it does not.",
        params: &[TEXT, PART],
        returns: Returns::Int,
        nulls: Nulls::Own,
        examples: &[
            Example::value(r#"find("übermut", "mut")"#, "4"),
            Example::value(r#"find("banana", "x")"#, "null"),
            Example::value(r#"find(null, "x")"#, "null"),
        ],
        prepare: Some(prepare_needle),
        eval: find,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "replace",
        about: "The text with every `part` replaced, from left to right.",
        params: &[TEXT, PART, ParamSpec::new("with", Pattern::String)],
        returns: Returns::String,
        examples: &[
            Example::value(r#"replace("1.234.567", ".", "")"#, r#""1234567""#),
            Example::value(r#"replace("aaa", "aa", "b")"#, r#""ba""#),
            Example::value(r#"replace("abc", "", "-")"#, r#""abc""#),
            Example::value(r#"replace("abc", "b", null)"#, "null"),
        ],
        prepare: Some(prepare_needle),
        eval: replace,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "replace_regex",
        about: "The text with every match replaced; `$1` and `${name}` in `with` are groups, `$$` is `$`.",
        params: &[TEXT, REGEX, ParamSpec::new("with", Pattern::String)],
        returns: Returns::String,
        examples: &[
            Example::value(r#"replace_regex("a1b22", /[0-9]+/, "_")"#, r#""a_b_""#),
            Example::value(
                r#"replace_regex("Doe, Jane", /(\w+), (?<first>\w+)/, "${first} $1")"#,
                r#""Jane Doe""#,
            ),
            Example::value(r#"replace_regex(null, /a/, "b")"#, "null"),
        ],
        prepare: Some(prepare_replacement),
        eval: replace_regex,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "count_matches",
        about: "How often the regex matches, without overlaps.",
        params: &[TEXT, REGEX],
        returns: Returns::Int,
        examples: &[
            Example::value(r#"count_matches("a1b22", /[0-9]+/)"#, "2"),
            Example::value("count_matches(null, /a/)", "null"),
        ],
        eval: count_matches,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "extract_match",
        about: "The first match of the regex, or group `n` of it; null if there is none.",
        params: &[TEXT, REGEX, ParamSpec::default("n", Pattern::Int, "0")],
        returns: Returns::String,
        nulls: Nulls::Own,
        examples: &[
            Example::value(r#"extract_match("order 4711", /[0-9]+/)"#, r#""4711""#),
            Example::value(r#"extract_match("a=1", /(\w)=(\w)/, 2)"#, r#""1""#),
            Example::value(r#"extract_match("none", /[0-9]+/)"#, "null"),
            Example::value("extract_match(null, /a/)", "null"),
        ],
        prepare: Some(prepare_group),
        eval: extract_match,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "extract_regex",
        about: "The named groups of the first match, as a record; null if there is no match.",
        params: &[TEXT, REGEX],
        returns: Returns::Of(group_record),
        nulls: Nulls::Own,
        examples: &[
            Example::value(
                r#"extract_regex("10.0.0.1 GET", /(?<ip>\S+) (?<verb>\S+)(?<rest> .*)?/)"#,
                r#"{ip: "10.0.0.1", verb: "GET", rest: null}"#,
            ),
            Example::value(r#"extract_regex("-", /(?<ip>\d+)/)"#, "null"),
            Example::value(r#"extract_regex(null, /(?<ip>\d+)/)"#, "null"),
        ],
        prepare: Some(prepare_group),
        eval: extract_regex,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "split",
        about: "The parts of the text between separators; its characters if the separator is empty.",
        params: &[TEXT, SEPARATOR],
        returns: Returns::Strings,
        examples: &[
            Example::value(r#"split("a,b,,c", ",")"#, r#"["a", "b", "", "c"]"#),
            Example::value(r#"split("", ",")"#, r#"[""]"#),
            Example::value(r#"split("äb", "")"#, r#"["ä", "b"]"#),
            Example::value(r#"split(null, ",")"#, "null"),
        ],
        eval: split,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "split_part",
        about: "Part `n` (from 0, negative from the end) of the text between separators.",
        params: &[TEXT, SEPARATOR, COUNT],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value(r#"split_part("a/b/c", "/", 1)"#, r#""b""#),
            Example::value(r#"split_part("a/b/c", "/", -1)"#, r#""c""#),
            Example::fails(r#"split_part("a/b/c", "/", 3)"#, INDEX),
            Example::value(r#"split_part(null, "/", 3)"#, "null"),
        ],
        eval: split_part,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "substring",
        about: "The text from character `from` on; negative positions count from the end.",
        params: &[TEXT, ParamSpec::new("from", Pattern::Int)],
        returns: Returns::String,
        examples: &[
            Example::value(r#"substring("überall", 1)"#, r#""berall""#),
            Example::value(r#"substring("abc", 9)"#, r#""""#),
            Example::value("substring(null, 1)", "null"),
        ],
        eval: substring,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "substring",
        about: "At most `len` characters of the text from character `from` on.",
        params: &[
            TEXT,
            ParamSpec::new("from", Pattern::Int),
            ParamSpec::new("len", Pattern::Int),
        ],
        returns: Returns::String,
        examples: &[
            Example::value(r#"substring("2026-01-31", 5, 2)"#, r#""01""#),
            Example::value(r#"substring("abc", -2, 9)"#, r#""bc""#),
            Example::value(r#"substring("abc", 1, null)"#, "null"),
        ],
        eval: substring,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "left",
        about: "The first `n` characters; if `n` is negative, all but the last `-n`.",
        params: &[TEXT, COUNT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"left("Ärger", 2)"#, r#""Är""#),
            Example::value(r#"left("abc", -1)"#, r#""ab""#),
            Example::value("left(null, 2)", "null"),
        ],
        eval: left,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "right",
        about: "The last `n` characters; if `n` is negative, all but the first `-n`.",
        params: &[TEXT, COUNT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"right("Gruß", 2)"#, r#""uß""#),
            Example::value(r#"right("abc", 0)"#, r#""""#),
            Example::value("right(null, 2)", "null"),
        ],
        eval: right,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "repeat",
        about: "The text `n` times.",
        params: &[TEXT, COUNT],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value(r#"repeat("ab", 3)"#, r#""ababab""#),
            Example::value(r#"repeat("ab", -1)"#, r#""""#),
            Example::fails(r#"repeat("ab", 9_000_000_000)"#, DOMAIN),
            Example::value("repeat(null, 3)", "null"),
        ],
        eval: repeat,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "reverse",
        about: "The characters of the text in reverse order.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"reverse("añb")"#, r#""bña""#),
            Example::value("reverse(null)", "null"),
        ],
        eval: reverse,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "pad_start",
        about: "The text with `fill` before it, `width` characters wide; a longer text stays as it is.",
        params: &[
            TEXT,
            ParamSpec::new("width", Pattern::Int),
            ParamSpec::default("fill", Pattern::String, "\" \""),
        ],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value(r#"pad_start("7", 3, "0")"#, r#""007""#),
            Example::value(r#"pad_start("1234", 3)"#, r#""1234""#),
            Example::value(r#"pad_start("x", 5, "ab")"#, r#""ababx""#),
            Example::value("pad_start(null, 3)", "null"),
        ],
        eval: pad_start,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "pad_end",
        about: "The text with `fill` behind it, `width` characters wide; a longer text stays as it is.",
        params: &[
            TEXT,
            ParamSpec::new("width", Pattern::Int),
            ParamSpec::default("fill", Pattern::String, "\" \""),
        ],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value(r#"pad_end("ä", 3, ".")"#, r#""ä..""#),
            Example::value(r#"pad_end("x", 3, "")"#, r#""x""#),
            Example::value("pad_end(null, 3)", "null"),
        ],
        eval: pad_end,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "concat",
        about: "All texts one after the other.",
        params: &[TEXT, ParamSpec::variadic("more", Pattern::String)],
        returns: Returns::String,
        examples: &[
            Example::value(r#"concat("a", "b", "c")"#, r#""abc""#),
            Example::value(r#"concat("a")"#, r#""a""#),
            Example::value(r#"concat("a", null)"#, "null"),
        ],
        eval: concat,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "natural_key",
        about: "A text that sorts as `text` does if runs of digits count by their value: `sort natural_key(name)`.",
        params: &[TEXT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"natural_key("a9") < natural_key("a10")"#, "true"),
            Example::value(r#"natural_key("v007") == natural_key("v7")"#, "true"),
            Example::value("natural_key(null)", "null"),
        ],
        eval: natural_key,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "char_code",
        about: "The code point of the first character.",
        params: &[TEXT],
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value(r#"char_code("€uro")"#, "8364"),
            Example::fails(r#"char_code("")"#, DOMAIN),
            Example::value("char_code(null)", "null"),
        ],
        eval: char_code,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "from_char_code",
        about: "The character with this code point.",
        params: &[COUNT],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value("from_char_code(8364)", r#""€""#),
            Example::fails("from_char_code(0xD800)", DOMAIN),
            Example::value("from_char_code(null)", "null"),
        ],
        eval: from_char_code,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "edit_distance",
        about: "How many characters must be added, taken away or changed to get from one text to the other (Levenshtein).",
        params: &[TEXT, ParamSpec::new("other", Pattern::String)],
        returns: Returns::Int,
        examples: &[
            Example::value(r#"edit_distance("kitten", "sitting")"#, "3"),
            Example::value(r#"edit_distance("", "äb")"#, "2"),
            Example::value(r#"edit_distance(null, "a")"#, "null"),
        ],
        eval: edit_distance,
        ..FunctionSpec::BASE
    },
];

/// A value in a message: quoted, control characters escaped, cut behind 40 characters.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for (i, c) in self.0.chars().enumerate() {
            if i == 40 {
                f.write_char('…')?;
                break;
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        f.write_char('"')
    }
}

/// Whether an argument is null in this row, for functions that decide about nulls themselves.
pub(super) fn any_null(args: &Args<'_, '_>, row: usize) -> bool {
    (0..args.len()).any(|index| args.regex(index).is_none() && args.is_null(index, row))
}

/// Argument `index` with a view per row; `None` if it is null throughout.
fn views<'a>(args: &Args<'_, 'a>, index: usize) -> Result<Option<Text<'a>>> {
    Ok(match args.column(index)?.data() {
        Data::String(text) => Some(text),
        _ => None,
    })
}

// ---- case ----

fn upper<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let long = |text: &'a str, out: &mut TextBuilder<'a>| {
        if text.is_ascii() {
            return push_bytewise(out, text, |byte| byte.to_ascii_uppercase());
        }
        push_chars(out, text.chars().flat_map(char::to_uppercase))
    };
    args.map_ascii(0, |word| word ^ between(word, b'a', b'z') >> 2, long)
}

fn lower<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let long = |text: &'a str, out: &mut TextBuilder<'a>| {
        if text.is_ascii() {
            return push_bytewise(out, text, |byte| byte.to_ascii_lowercase());
        }
        push_chars(out, text.chars().flat_map(char::to_lowercase))
    };
    args.map_ascii(0, |word| word ^ between(word, b'A', b'Z') >> 2, long)
}

/// The high bit of each of the 8 ASCII bytes that is from `first` to `last`; shifted by 2 it is the bit of case.
#[inline(always)]
fn between(word: u64, first: u8, last: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // No sum carries into the next byte: below 0x80 each byte and each summand is at most 0x7f.
    let from_first = word.wrapping_add(ONES * u64::from(0x80 - first));
    let behind_last = word.wrapping_add(ONES * u64::from(0x7f - last));
    from_first & !behind_last & (ONES << 7)
}

fn capitalize<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| {
        let mut rest = texts.get(row).chars();
        let first = rest.next();
        push_chars(out, first.into_iter().flat_map(char::to_uppercase).chain(rest))
    })
}

fn title<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| {
        let mut before = ' ';
        let cased = texts.get(row).chars().flat_map(move |c| {
            // A word is letters and digits: behind anything else, also a quote, the next one begins.
            let inside = before.is_alphanumeric();
            before = c;
            let (up, low) = (c.to_uppercase(), c.to_lowercase());
            let (up, low) = if inside { (None, Some(low)) } else { (Some(up), None) };
            up.into_iter().flatten().chain(low.into_iter().flatten())
        });
        push_chars(out, cased)
    })
}

/// Pushes `text` byte by byte through `f`; both are ASCII.
fn push_bytewise(out: &mut TextBuilder<'_>, text: &str, f: impl Fn(u8) -> u8) -> Result<()> {
    out.push_with(text.len(), |slot| {
        for (to, &byte) in slot.iter_mut().zip(text.as_bytes()) {
            *to = f(byte);
        }
        text.len()
    })
}

/// Pushes characters as one row: measured first, then written.
pub(super) fn push_chars(out: &mut TextBuilder<'_>, chars: impl Iterator<Item = char> + Clone) -> Result<()> {
    let len = chars.clone().map(char::len_utf8).sum();
    out.push_with(len, |slot| {
        let mut at = 0;
        for c in chars {
            at += c.encode_utf8(&mut slot[at..]).len();
        }
        at
    })
}

// ---- parts ----

fn trim<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    args.map_parts(0, |_, text| {
        let start = trimmed_start(text);
        start..start.max(trimmed_end(text))
    })
}

fn trim_start<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    args.map_parts(0, |_, text| trimmed_start(text)..text.len())
}

fn trim_end<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    args.map_parts(0, |_, text| 0..trimmed_end(text))
}

#[inline]
fn trimmed_start(text: &str) -> usize {
    match text.as_bytes().first() {
        Some(b'!'..=b'~') | None => 0,
        _ => text.len() - text.trim_start().len(),
    }
}

#[inline]
fn trimmed_end(text: &str) -> usize {
    match text.as_bytes().last() {
        Some(b'!'..=b'~') | None => text.len(),
        _ => text.trim_end().len(),
    }
}

fn remove_prefix<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let parts = args.strings(1);
    args.map_parts(0, |row, text| {
        let part = parts.bytes(row);
        let start = if text.as_bytes().starts_with(part) {
            part.len()
        } else {
            0
        };
        start..text.len()
    })
}

fn remove_suffix<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let parts = args.strings(1);
    args.map_parts(0, |row, text| {
        let part = parts.bytes(row);
        let cut = if text.as_bytes().ends_with(part) { part.len() } else { 0 };
        0..text.len() - cut
    })
}

/// The byte where character `chars` begins; the length of the text if it has no more than that many.
#[inline]
fn offset(text: &str, chars: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[..chars.min(bytes.len())].is_ascii() {
        return chars.min(bytes.len());
    }
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

/// The byte where the last `chars` characters begin; 0 if the text has fewer.
#[inline]
fn offset_back(text: &str, chars: usize) -> usize {
    if chars == 0 {
        return text.len();
    }
    let tail = text.len().saturating_sub(chars);
    if text.as_bytes()[tail..].is_ascii() {
        return tail;
    }
    text.char_indices().nth_back(chars - 1).map_or(0, |(at, _)| at)
}

fn count(n: i64) -> usize {
    usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX)
}

/// The byte where position `n` is; negative positions count from the end.
#[inline]
fn position(text: &str, n: i64) -> usize {
    if n >= 0 {
        offset(text, count(n))
    } else {
        offset_back(text, count(n))
    }
}

fn substring<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let from = args.ints(1);
    if args.len() < 3 {
        return args.map_parts(0, |row, text| position(text, from.get(row))..text.len());
    }
    let lens = args.ints(2);
    args.map_parts(0, |row, text| {
        let start = position(text, from.get(row));
        let len = count(lens.get(row).max(0));
        start..start + text.get(start..).map_or(0, |rest| offset(rest, len))
    })
}

fn left<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let n = args.ints(1);
    args.map_parts(0, |row, text| 0..position(text, n.get(row)))
}

fn right<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let n = args.ints(1);
    args.map_parts(0, |row, text| {
        let n = n.get(row);
        let start = if n >= 0 {
            offset_back(text, count(n))
        } else {
            offset(text, count(n))
        };
        start..text.len()
    })
}

fn split<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (rows, arena, valid) = (args.rows(), args.arena(), args.valid());
    let Some(text) = views(args, 0)? else {
        return Ok(Column::nulls(rows));
    };
    let separators = args.strings(1);
    let mut total = 0usize;
    let offsets: &[i32] = arena.collect(rows + 1, |row| {
        let start = total as i32;
        if row < rows && valid.is_none_or(|v| v.get(row)) {
            total += parts(text.bytes(row), separators.bytes(row));
        }
        start
    })?;
    let mut row = 0;
    let origin: &[u32] = arena.collect(total, |part| {
        while offsets[row + 1] as usize <= part {
            row += 1;
        }
        row as u32
    })?;
    let (mut last, mut at) = (u32::MAX, 0);
    let parts = text.gather(origin, arena)?.cut(arena, |part, text| {
        if origin[part] != last {
            (last, at) = (origin[part], 0);
        }
        let range = next_part(text, separators.bytes(last as usize), at);
        at = range.end + separators.bytes(last as usize).len();
        range
    })?;
    let child = arena.one(Column::string(parts, None))?;
    Ok(Column::new(Data::List(ListData { offsets, child }), valid, rows))
}

/// How many parts `split` gives.
fn parts(text: &[u8], separator: &[u8]) -> usize {
    match separator {
        [] => text.iter().filter(|&&byte| (byte as i8) >= -0x40).count(),
        &[one] => memchr::memchr_iter(one, text).count() + 1,
        _ => memmem::find_iter(text, separator).count() + 1,
    }
}

/// The part that begins at byte `at`.
fn next_part(text: &str, separator: &[u8], at: usize) -> Range<usize> {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let len = match separator {
        [] => text
            .get(at..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8),
        &[one] => memchr::memchr(one, rest).unwrap_or(rest.len()),
        _ => memmem::find(rest, separator).unwrap_or(rest.len()),
    };
    at..at + len
}

fn split_part<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (rows, arena) = (args.rows(), args.arena());
    let Some(text) = views(args, 0)? else {
        return Ok(Column::nulls(rows));
    };
    let (separators, numbers) = (args.strings(1), args.ints(2));
    let ranges = arena.fill(rows, (0u32, 0u32))?;
    let checked = args.try_bools(|row| {
        let (text, separator, n) = (text.str(row), separators.bytes(row), numbers.get(row));
        let total = if n < 0 {
            parts(text.as_bytes(), separator)
        } else {
            usize::MAX
        };
        let wanted = if n < 0 {
            total.checked_sub(count(n))
        } else {
            Some(count(n))
        };
        let Some(range) = wanted.and_then(|n| nth_part(text, separator, n)) else {
            return args.fault(
                row,
                INDEX,
                format_args!(
                    "{} has no part {n}: it has {}",
                    Quoted(text),
                    parts(text.as_bytes(), separator)
                ),
            );
        };
        ranges[row] = (range.start as u32, range.end as u32);
        Ok(Some(true))
    })?;
    let cut = text.cut(arena, |row, _| ranges[row].0 as usize..ranges[row].1 as usize)?;
    Ok(Column::string(cut, checked.valid()))
}

fn nth_part(text: &str, separator: &[u8], n: usize) -> Option<Range<usize>> {
    if separator.is_empty() && text.is_empty() {
        return None;
    }
    let mut range = next_part(text, separator, 0);
    for _ in 0..n {
        let at = range.end + separator.len();
        // Behind the last part there is nothing; an empty last part begins exactly at the end.
        if range.end >= text.len() || (separator.is_empty() && at >= text.len()) {
            return None;
        }
        range = next_part(text, separator, at);
    }
    Some(range)
}

// ---- looking ----

fn length<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_ints(|row| {
        let text = texts.get(row);
        let chars = if text.is_ascii() {
            text.len()
        } else {
            text.chars().count()
        };
        chars as i64
    })
}

fn byte_length<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    match texts.text() {
        Some(text) => args.map_ints(|row| text.views()[row].len() as i64),
        None => args.map_ints(|row| texts.bytes(row).len() as i64),
    }
}

fn is_blank<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_bools(|row| texts.get(row).chars().all(char::is_whitespace))
}

fn starts_with<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, parts) = (args.strings(0), args.strings(1));
    args.map_bools(|row| texts.bytes(row).starts_with(parts.bytes(row)))
}

fn ends_with<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, parts) = (args.strings(0), args.strings(1));
    args.map_bools(|row| texts.bytes(row).ends_with(parts.bytes(row)))
}

/// The searcher for a constant second argument.
struct Needle(Option<memmem::Finder<'static>>);

fn prepare_needle(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    let text = given.get(1).and_then(Given::text);
    Ok(Arc::new(Needle(
        text.map(|text| memmem::Finder::new(text).into_owned()),
    )))
}

/// What finds the second argument: the prepared searcher, or a new one per row.
fn searcher<'e>(args: &Args<'e, '_>) -> impl Fn(&[u8], &[u8]) -> Option<usize> + use<'e> {
    let finder = args.prepared::<Needle>().and_then(|needle| needle.0.as_ref());
    move |text, part| match (finder, part) {
        (Some(finder), _) => finder.find(text),
        (None, &[one]) => memchr::memchr(one, text),
        (None, _) => memmem::find(text, part),
    }
}

fn contains<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, parts, search) = (args.strings(0), args.strings(1), searcher(args));
    args.map_bools(|row| search(texts.bytes(row), parts.bytes(row)).is_some())
}

fn find<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, parts, search) = (args.strings(0), args.strings(1), searcher(args));
    args.try_ints(|row| {
        if any_null(args, row) {
            return Ok(None);
        }
        let at = search(texts.bytes(row), parts.bytes(row));
        Ok(at
            .and_then(|at| texts.get(row).get(..at))
            .map(|before| before.chars().count() as i64))
    })
}

fn char_code<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.try_ints(|row| match texts.get(row).chars().next() {
        Some(c) => Ok(Some(i64::from(u32::from(c)))),
        None => args.fault(row, DOMAIN, format_args!("an empty text has no first character")),
    })
}

fn from_char_code<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let codes = args.ints(0);
    args.try_strings(|row, out| {
        let code = codes.get(row);
        match u32::try_from(code).ok().and_then(char::from_u32) {
            Some(c) => out.push(c.encode_utf8(&mut [0; 4])).map(Some),
            None => args.fault(row, DOMAIN, format_args!("{code} is not the code point of a character")),
        }
    })
}

fn edit_distance<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, others) = (args.strings(0), args.strings(1));
    let rows = args.rows();
    let longest = (0..rows).map(|row| others.bytes(row).len()).max().unwrap_or(0);
    // One row of the usual table, and the characters it is compared with; both reused for every row.
    let distances = args.arena().fill(longest + 1, 0u32)?;
    let letters = args.arena().fill(longest, '\0')?;
    args.map_ints(|row| {
        let mut width = 0;
        for c in others.get(row).chars() {
            letters[width] = c;
            width += 1;
            distances[width] = width as u32;
        }
        distances[0] = 0;
        for (i, c) in texts.get(row).chars().enumerate() {
            let mut diagonal = distances[0];
            distances[0] = i as u32 + 1;
            for j in 0..width {
                let changed = diagonal + u32::from(letters[j] != c);
                diagonal = distances[j + 1];
                distances[j + 1] = changed.min(diagonal + 1).min(distances[j] + 1);
            }
        }
        i64::from(distances[width])
    })
}

// ---- making ----

fn replace<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, parts, withs) = (args.strings(0), args.strings(1), args.strings(2));
    let search = searcher(args);
    args.map_strings(|row, out| {
        let (text, part, with) = (texts.get(row).as_bytes(), parts.bytes(row), withs.bytes(row));
        if part.is_empty() {
            return out.push_bytes(text);
        }
        let next = |from: usize| search(&text[from..], part).map(|at| from + at);
        let (mut from, mut hits) = (0, 0);
        while let Some(at) = next(from) {
            hits += 1;
            from = at + part.len();
        }
        if hits == 0 {
            return out.push_bytes(text);
        }
        out.push_with(text.len() - hits * part.len() + hits * with.len(), |slot| {
            let mut pen = Pen::new(slot);
            let mut from = 0;
            while let Some(at) = next(from) {
                pen.put(&text[from..at]);
                pen.put(with);
                from = at + part.len();
            }
            pen.put(&text[from..]);
            pen.at()
        })
    })
}

fn repeat<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, times) = (args.strings(0), args.ints(1));
    args.try_strings(|row, out| {
        let (text, n) = (texts.bytes(row), times.get(row).max(0));
        let Some(len) = count(n).checked_mul(text.len()).filter(|&len| len <= LONGEST) else {
            return args.fault(
                row,
                DOMAIN,
                format_args!("{} {n} times is longer than {LONGEST} bytes", Quoted(texts.get(row))),
            );
        };
        out.push_with(len, |slot| {
            for to in slot.chunks_exact_mut(text.len().max(1)) {
                to.copy_from_slice(text);
            }
            len
        })?;
        Ok(Some(()))
    })
}

fn reverse<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| push_chars(out, texts.get(row).chars().rev()))
}

fn pad_start<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pad(args, true)
}

fn pad_end<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pad(args, false)
}

fn pad<'a>(args: &Args<'_, 'a>, before: bool) -> Result<Column<'a>> {
    let (texts, widths, fills) = (args.strings(0), args.ints(1), args.strings(2));
    args.try_strings(|row, out| {
        let (text, width, fill) = (texts.get(row), count(widths.get(row).max(0)), fills.get(row));
        let missing = width.saturating_sub(text.chars().count());
        if missing == 0 || fill.is_empty() {
            return out.push(text).map(Some);
        }
        if missing.checked_mul(fill.len()).is_none_or(|len| len > LONGEST) {
            return args.fault(
                row,
                DOMAIN,
                format_args!("a width of {width} is more than a text may have"),
            );
        }
        let fill = fill.chars().cycle().take(missing);
        if before {
            push_chars(out, fill.chain(text.chars()))?;
        } else {
            push_chars(out, text.chars().chain(fill))?;
        }
        Ok(Some(()))
    })
}

fn concat<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.arena().collect(args.len(), |index| args.strings(index))?;
    args.map_strings(|row, out| {
        let len = texts.iter().map(|text| text.bytes(row).len()).sum();
        out.push_with(len, |slot| {
            let mut pen = Pen::new(slot);
            for text in texts.iter() {
                pen.put(text.bytes(row));
            }
            pen.at()
        })
    })
}

/// A run of digits becomes its length (one digit up to 8, else `9` and ten digits) and the digits without leading zeros: so a
/// longer number is behind a shorter one, and digits keep their place among other characters.
fn natural_key<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| {
        let text = texts.bytes(row);
        let mut len = 0;
        natural_pieces(text, |piece| len += piece.len());
        out.push_with(len, |slot| {
            let mut pen = Pen::new(slot);
            natural_pieces(text, |piece| pen.put(piece));
            pen.at()
        })
    })
}

fn natural_pieces(text: &[u8], mut put: impl FnMut(&[u8])) {
    let mut rest = text;
    while !rest.is_empty() {
        let words = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
        let (before, from) = rest.split_at(words);
        put(before);
        let digits = from
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(from.len());
        let (run, behind) = from.split_at(digits);
        rest = behind;
        if run.is_empty() {
            continue;
        }
        let zeros = run.iter().position(|&byte| byte != b'0').unwrap_or(run.len());
        let run = &run[zeros..];
        if run.len() <= 8 {
            put(&[b'0' + run.len() as u8]);
        } else {
            let mut coded = *b"90000000000";
            let mut len = run.len();
            for slot in coded.iter_mut().skip(1).rev() {
                *slot = b'0' + (len % 10) as u8;
                len /= 10;
            }
            put(&coded);
        }
        put(run);
    }
}

/// Writes pieces one behind the other; what does not fit is cut.
pub(super) struct Pen<'s> {
    slot: &'s mut [u8],
    at: usize,
}

impl<'s> Pen<'s> {
    pub(super) fn new(slot: &'s mut [u8]) -> Pen<'s> {
        Pen { slot, at: 0 }
    }

    /// Where it is: how many bytes are written.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl Put for Pen<'_> {
    fn put(&mut self, piece: &[u8]) {
        if let Some(to) = self.slot.get_mut(self.at..self.at + piece.len()) {
            to.copy_from_slice(piece);
            self.at += piece.len();
        }
    }
}

impl fmt::Write for Pen<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

// ---- regular expressions ----

/// Room for the groups of a match: made once per worker, then used again.
#[derive(Default)]
struct Groups {
    free: Mutex<Vec<CaptureLocations>>,
}

impl Groups {
    fn take(&self, regex: &Regex) -> CaptureLocations {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| regex.capture_locations())
    }

    fn give(&self, groups: CaptureLocations) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(groups);
    }
}

/// Runs `f` with the regex argument 1 and room for its groups; null if there is no regex.
fn with_groups<'a>(
    args: &Args<'_, 'a>,
    f: impl FnOnce(&Regex, &mut CaptureLocations) -> Result<Column<'a>>,
) -> Result<Column<'a>> {
    let (Some(regex), Some(pool)) = (args.regex(1), args.prepared::<Groups>()) else {
        return Ok(Column::nulls(args.rows()));
    };
    let mut groups = pool.take(regex);
    let column = f(regex, &mut groups);
    pool.give(groups);
    column
}

fn prepare_group(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    if let (Some(regex), Some(n)) = (given.get(1).and_then(|g| g.regex), given.get(2).and_then(Given::int))
        && usize::try_from(n).map_or(true, |n| n >= regex.captures_len())
    {
        return Err(format!(
            "the regex has no group {n}: it has {}",
            regex.captures_len() - 1
        ));
    }
    Ok(Arc::new(Groups::default()))
}

fn prepare_replacement(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    if let (Some(regex), Some(with)) = (given.get(1).and_then(|g| g.regex), given.get(2).and_then(Given::text)) {
        let mut unknown = None;
        template(with, |piece| {
            if let Piece::Group(name) = piece
                && group_number(regex, name).is_none()
            {
                unknown = Some(name);
            }
        });
        if let Some(name) = unknown {
            return Err(format!("the regex has no group `{name}`; `$$` stands for `$`"));
        }
    }
    Ok(Arc::new(Groups::default()))
}

/// A piece of a replacement text.
enum Piece<'t> {
    Text(&'t str),
    /// A group by number or name.
    Group(&'t str),
}

/// The pieces of a replacement text. A `$` before anything else than a name, `{name}` or `$` is itself.
fn template<'t>(with: &'t str, mut put: impl FnMut(Piece<'t>)) {
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        put(Piece::Text(before));
        let behind = &from[1..];
        if let Some(next) = behind.strip_prefix('$') {
            put(Piece::Text("$"));
            rest = next;
            continue;
        }
        if let Some((name, next)) = behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            put(Piece::Group(name));
            rest = next;
            continue;
        }
        // `$1st` is group 1 and `st`; a name is as long as it can be.
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = if behind.starts_with(|c: char| c.is_ascii_digit()) {
            behind.find(|c: char| !c.is_ascii_digit())
        } else {
            behind.find(|c: char| !word(c))
        };
        let (name, next) = behind.split_at(end.unwrap_or(behind.len()));
        if name.is_empty() {
            put(Piece::Text("$"));
        } else {
            put(Piece::Group(name));
        }
        rest = next;
    }
    put(Piece::Text(rest));
}

fn group_number(regex: &Regex, name: &str) -> Option<usize> {
    match name.parse() {
        Ok(n) => Some(n).filter(|&n: &usize| n < regex.captures_len()),
        Err(_) => regex.capture_names().position(|known| known == Some(name)),
    }
}

fn replace_regex<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, withs) = (args.strings(0), args.strings(2));
    with_groups(args, |regex, groups| {
        args.map_strings(|row, out| {
            let (text, with) = (texts.get(row), withs.get(row));
            if !regex.is_match(text) {
                return out.push(text);
            }
            let mut len = 0;
            replaced(regex, groups, text, with, |piece| len += piece.len());
            out.push_with(len, |slot| {
                let mut pen = Pen::new(slot);
                replaced(regex, groups, text, with, |piece| pen.put(piece.as_bytes()));
                pen.at()
            })
        })
    })
}

/// The pieces of `text` with every match replaced.
fn replaced(regex: &Regex, groups: &mut CaptureLocations, text: &str, with: &str, mut put: impl FnMut(&str)) {
    let plain = !with.contains('$');
    let mut from = 0;
    for hit in regex.find_iter(text) {
        put(&text[from..hit.start()]);
        from = hit.end();
        if plain {
            put(with);
            continue;
        }
        regex.captures_read_at(groups, text, hit.start());
        template(with, |piece| match piece {
            Piece::Text(text) => put(text),
            Piece::Group(name) => {
                if let Some((start, end)) = group_number(regex, name).and_then(|n| groups.get(n)) {
                    put(&text[start..end]);
                }
            }
        });
    }
    put(&text[from..]);
}

fn count_matches<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let Some(regex) = args.regex(1) else {
        return Ok(Column::nulls(args.rows()));
    };
    args.map_ints(|row| regex.find_iter(texts.get(row)).count() as i64)
}

/// Where a group is in its text; `NOWHERE` if it took no part in the match.
type Found = (u32, u32);
const NOWHERE: Found = (u32::MAX, u32::MAX);

fn found(at: Option<(usize, usize)>) -> Found {
    at.map_or(NOWHERE, |(start, end)| (start as u32, end as u32))
}

fn extract_match<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (rows, arena) = (args.rows(), args.arena());
    let Some(text) = views(args, 0)? else {
        return Ok(Column::nulls(rows));
    };
    let numbers = args.ints(2);
    with_groups(args, |regex, groups| {
        let spans = arena.collect(rows, |row| {
            if any_null(args, row) {
                return NOWHERE;
            }
            let n = usize::try_from(numbers.get(row)).unwrap_or(usize::MAX);
            if n == 0 {
                return found(regex.find(text.str(row)).map(|hit| (hit.start(), hit.end())));
            }
            found(regex.captures_read(groups, text.str(row)).and_then(|_| groups.get(n)))
        })?;
        found_texts(args, text, |row| spans[row])
    })
}

/// The found parts of a text, sharing its memory.
fn found_texts<'a>(args: &Args<'_, 'a>, text: Text<'a>, at: impl Fn(usize) -> Found) -> Result<Column<'a>> {
    let valid = Bits::collect(args.arena(), args.rows(), |row| at(row) != NOWHERE)?;
    let cut = text.cut(args.arena(), |row, _| match at(row) {
        NOWHERE => 0..0,
        (start, end) => start as usize..end as usize,
    })?;
    Ok(Column::string(cut, Some(valid)))
}

/// The type of `extract_regex`: a record of the group names.
fn group_record(given: &[Given<'_>]) -> Result<Type, String> {
    let names = given
        .get(1)
        .and_then(|g| g.regex)
        .into_iter()
        .flat_map(Regex::capture_names)
        .flatten();
    let fields: Vec<Field> = names.map(|name| Field::new(name, Type::String, true)).collect();
    if fields.is_empty() {
        return Err("the regex names no group: write `(?<name>…)`, or use `extract_match`".to_string());
    }
    Ok(Type::Record(Schema::new(fields)))
}

fn extract_regex<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (rows, arena) = (args.rows(), args.arena());
    let Some(text) = views(args, 0)? else {
        return Ok(Column::nulls(rows));
    };
    with_groups(args, |regex, groups| {
        let width = regex.capture_names().flatten().count();
        let named = |k: usize| {
            let mut named = regex.capture_names().enumerate().filter(|(_, name)| name.is_some());
            named.nth(k).map_or(0, |(n, _)| n)
        };
        let numbers = arena.collect(width, named)?;
        let spans = arena.fill(rows * width, NOWHERE)?;
        let matched = Bits::collect(arena, rows, |row| {
            if args.is_null(0, row) || regex.captures_read(groups, text.str(row)).is_none() {
                return false;
            }
            for (k, &n) in numbers.iter().enumerate() {
                spans[row * width + k] = found(groups.get(n));
            }
            true
        })?;
        let mut columns = Columns::new(arena, width)?;
        for k in 0..width {
            columns.push(found_texts(args, text, |row| spans[row * width + k])?);
        }
        let record = Data::Record(RecordData::new(columns.finish()));
        Ok(Column::new(record, Some(matched), rows))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_from_both_ends() {
        let table = [("", 0), ("abc", 3), ("äöü", 3), ("aä€😀", 4)];
        for (text, chars) in table {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for n in 0..=chars {
                assert_eq!(offset(text, n), starts[n], "{text} {n}");
                assert_eq!(offset_back(text, n), starts[chars - n], "{text} -{n}");
            }
            for far in [chars + 1, usize::MAX] {
                assert_eq!((offset(text, far), offset_back(text, far)), (text.len(), 0));
            }
            assert_eq!(position(text, i64::MIN), 0);
            assert_eq!(position(text, i64::MAX), text.len());
        }
    }

    #[test]
    fn parts_are_those_of_str_split() {
        for separator in [",", "ab", "é"] {
            for text in ["", ",", "a,b,,c", ",a,", "abab", "xabyabz", "é", "aéé"] {
                let want: Vec<&str> = text.split(separator).collect();
                assert_eq!(
                    parts(text.as_bytes(), separator.as_bytes()),
                    want.len(),
                    "{text:?} by {separator:?}"
                );
                let got: Vec<&str> = (0..want.len())
                    .map(|n| &text[nth_part(text, separator.as_bytes(), n).unwrap()])
                    .collect();
                assert_eq!(got, want, "{text:?} by {separator:?}");
                assert_eq!(
                    nth_part(text, separator.as_bytes(), want.len()),
                    None,
                    "{text:?} by {separator:?}"
                );
            }
        }
        assert_eq!(nth_part("äb", b"", 1), Some(2..3));
        assert_eq!(nth_part("äb", b"", 2), None);
        assert_eq!((nth_part("", b"", 0), parts(b"", b"")), (None, 0));
    }

    #[test]
    fn natural_keys_sort_by_value() {
        let key = |text: &str| {
            let mut key = vec![];
            natural_pieces(text.as_bytes(), |piece| key.extend_from_slice(piece));
            key
        };
        let sorted = [
            "",
            "a",
            "a0",
            "a1",
            "a2b",
            "a2c",
            "a10",
            "a99999999",
            "a100000000",
            "a123456789012",
            "b1",
        ];
        for pair in sorted.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        assert_eq!(key("x007y"), key("x7y"));
    }

    #[test]
    fn replacements_know_their_groups() {
        let pieces = |with: &str| {
            let mut all = String::new();
            template(with, |piece| match piece {
                Piece::Text(text) => all.push_str(text),
                Piece::Group(name) => all.push_str(&format!("<{name}>")),
            });
            all
        };
        let table = [
            ("a", "a"),
            ("$1", "<1>"),
            ("$1st", "<1>st"),
            ("${1}st $$ $", "<1>st $ $"),
            ("$name-$x_1", "<name>-<x_1>"),
            ("${open", "${open"),
            ("$ä", "$ä"),
        ];
        for (with, want) in table {
            assert_eq!(pieces(with), want, "{with}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        assert_eq!(Quoted("a\nb").to_string(), "\"a\\nb\"");
        assert_eq!(Quoted(&"ä".repeat(41)).to_string(), format!("\"{}…\"", "ä".repeat(40)));
    }
}
