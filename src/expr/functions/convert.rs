//! Functions between values and their texts that are no casts: encodings, hashes, numbers in other clothes, json.
//!
//! Laws
//! - `decode_*` and `parse_*` take exactly what they document; anything else is a row error that quotes the text.
//! - `hash64` is XXH64 with seed 0 and never changes: scripts and partitions rely on its numbers.

use super::math::divide_near;
use super::text::{Pen, Quoted};
use crate::expr::decimal::POWERS;
use crate::expr::function::{Args, Eval, Example, FunctionSpec, ParamSpec, Pattern, Returns};
use crate::expr::scalar::print::{self, Put};
use crate::expr::{DOMAIN, PARSE, json};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Column, Data, Result, Type};
use std::fmt::Write;

const TEXT: &[ParamSpec] = &[ParamSpec::new("text", Pattern::String)];
const BYTES: &[ParamSpec] = &[ParamSpec::new("bytes", Pattern::Bytes)];
const BASE: ParamSpec = ParamSpec::default("base", Pattern::Int, "10");
const GROUP: ParamSpec = ParamSpec::default("group", Pattern::String, "\",\"");
const DIGITS: ParamSpec = ParamSpec::default("digits", Pattern::Int, "0");

/// A function that gives text for text or bytes.
const fn encoding(
    name: &'static str,
    about: &'static str,
    params: &'static [ParamSpec],
    examples: &'static [Example],
    eval: Eval,
) -> FunctionSpec {
    FunctionSpec {
        name,
        about,
        params,
        returns: Returns::String,
        examples,
        eval,
        ..FunctionSpec::BASE
    }
}

/// The conversions.
pub(in crate::expr) const FUNCTIONS: &[FunctionSpec] = &[
    encoding(
        "encode_base64",
        "The bytes of the text in base64, padded with `=`.",
        TEXT,
        &[
            Example::value(r#"encode_base64("Öl")"#, r#""w5Zs""#),
            Example::value(r#"encode_base64("a")"#, r#""YQ==""#),
            Example::value("encode_base64(null)", "null"),
        ],
        encode_base64,
    ),
    encoding(
        "encode_base64",
        "The bytes in base64, padded with `=`.",
        BYTES,
        &[
            Example::value(r#"encode_base64(b"ab")"#, r#""YWI=""#),
            Example::value(r#"encode_base64(b"")"#, r#""""#),
        ],
        encode_base64,
    ),
    FunctionSpec {
        name: "decode_base64",
        about: "The bytes of a text in base64, with or without its padding.",
        params: TEXT,
        returns: Returns::Bytes,
        fallible: true,
        examples: &[
            Example::value(r#"decode_base64("YWI=")"#, r#"b"ab""#),
            Example::value(r#"decode_base64("YWI")"#, r#"b"ab""#),
            Example::fails(r#"decode_base64("Y*")"#, PARSE),
            Example::value("decode_base64(null)", "null"),
        ],
        eval: decode_base64,
        ..FunctionSpec::BASE
    },
    encoding(
        "encode_hex",
        "The bytes of the text, two hexadecimal digits each.",
        TEXT,
        &[
            Example::value(r#"encode_hex("aö")"#, r#""61c3b6""#),
            Example::value("encode_hex(null)", "null"),
        ],
        encode_hex,
    ),
    encoding(
        "encode_hex",
        "The bytes, two hexadecimal digits each.",
        BYTES,
        &[
            Example::value(r#"encode_hex(b"az")"#, r#""617a""#),
            Example::value(r#"encode_hex(b"")"#, r#""""#),
        ],
        encode_hex,
    ),
    FunctionSpec {
        name: "decode_hex",
        about: "The bytes of a text of hexadecimal digits.",
        params: TEXT,
        returns: Returns::Bytes,
        fallible: true,
        examples: &[
            Example::value(r#"decode_hex("617A")"#, r#"b"az""#),
            Example::fails(r#"decode_hex("617")"#, PARSE),
            Example::value("decode_hex(null)", "null"),
        ],
        eval: decode_hex,
        ..FunctionSpec::BASE
    },
    encoding(
        "encode_url",
        "The text as a part of a URL: all but letters, digits and `-_.~` become `%XX`.",
        TEXT,
        &[
            Example::value(r#"encode_url("a b/ü")"#, r#""a%20b%2F%C3%BC""#),
            Example::value("encode_url(null)", "null"),
        ],
        encode_url,
    ),
    FunctionSpec {
        name: "decode_url",
        about: "The text with every `%XX` replaced by its byte; `+` stays.",
        params: TEXT,
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value(r#"decode_url("a%20b%2f%C3%BC")"#, r#""a b/ü""#),
            Example::fails(r#"decode_url("100%")"#, PARSE),
            Example::fails(r#"decode_url("%FF")"#, PARSE),
            Example::value("decode_url(null)", "null"),
        ],
        eval: decode_url,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "hash64",
        about: "A 64-bit hash of the text (XXH64 with seed 0), the same for ever.",
        params: TEXT,
        returns: Returns::Int,
        examples: &[
            Example::value(r#"hash64("abc")"#, "4952883123889572249"),
            Example::value(r#"hash64("")"#, "-1205034819632174695"),
            Example::value("hash64(null)", "null"),
        ],
        eval: hash64,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "hash64",
        about: "A 64-bit hash of the bytes (XXH64 with seed 0), the same for ever.",
        params: BYTES,
        returns: Returns::Int,
        examples: &[
            Example::value(r#"hash64(b"abc") == hash64("abc")"#, "true"),
            Example::value(r#"hash64(b"")"#, "-1205034819632174695"),
        ],
        eval: hash64,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "parse_json",
        about: "The JSON value that the text holds.",
        params: TEXT,
        returns: Returns::Json,
        fallible: true,
        examples: &[
            Example::value(r#"parse_json(" [1, 2] ")"#, "[1, 2]"),
            Example::fails(r#"parse_json("{a: 1}")"#, PARSE),
            Example::fails(r#"parse_json("")"#, PARSE),
            Example::value("parse_json(null)", "null"),
        ],
        eval: parse_json,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "parse_int",
        about: "The int that the text gives in base 2 to 36; a sign is allowed, a prefix is not.",
        params: &[TEXT[0], BASE],
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value(r#"parse_int("-ff", 16)"#, "-255"),
            Example::value(r#"parse_int("007")"#, "7"),
            Example::fails(r#"parse_int("12,5O")"#, PARSE),
            Example::fails(r#"parse_int("9223372036854775808")"#, PARSE),
            Example::fails(r#"parse_int("1", 37)"#, DOMAIN),
            Example::value("parse_int(null)", "null"),
        ],
        eval: parse_int,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "parse_number",
        about: "The float that the text gives with this decimal point; `group` may stand between the digits before it.",
        params: &[TEXT[0], ParamSpec::default("point", Pattern::String, "\".\""), GROUP],
        returns: Returns::Float,
        fallible: true,
        examples: &[
            Example::value(r#"parse_number("1,234,567.5")"#, "1234567.5"),
            Example::value(r#"parse_number("-1.234,5", ",", ".")"#, "-1234.5"),
            Example::fails(r#"parse_number("12,5O", ",", ".")"#, PARSE),
            Example::value("parse_number(null)", "null"),
        ],
        eval: parse_number,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_int",
        about: "The int as text in base 2 to 36, in small letters.",
        params: &[ParamSpec::new("n", Pattern::Int), BASE],
        returns: Returns::String,
        fallible: true,
        examples: &[
            Example::value("format_int(255, 16)", r#""ff""#),
            Example::value("format_int(-5, 2)", r#""-101""#),
            Example::fails("format_int(1, 1)", DOMAIN),
            Example::value("format_int(null, 16)", "null"),
        ],
        eval: format_int,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_number",
        about: "The int in groups of three digits, with `digits` zeros behind the point.",
        params: &[ParamSpec::new("x", Pattern::Int), DIGITS, GROUP],
        returns: Returns::String,
        examples: &[
            Example::value("format_number(1234567)", r#""1,234,567""#),
            Example::value(r#"format_number(-999, 1, "'")"#, r#""-999.0""#),
            Example::value("format_number(null)", "null"),
        ],
        eval: format_number,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_number",
        about: "The decimal in groups of three digits, rounded to `digits` digits behind the point.",
        params: &[ParamSpec::new("x", Pattern::Decimal), DIGITS, GROUP],
        returns: Returns::String,
        examples: &[
            Example::value("format_number(decimal(\"1234.565\", 10, 3), 2)", r#""1,234.57""#),
            Example::value("format_number(decimal(\"-0.4\", 10, 1))", r#""0""#),
        ],
        eval: format_number,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_number",
        about: "The float in groups of three digits, rounded to `digits` (0 to 30) digits behind the point.",
        params: &[ParamSpec::new("x", Pattern::Float), DIGITS, GROUP],
        returns: Returns::String,
        examples: &[
            Example::value("format_number(1234567.891, 2)", r#""1,234,567.89""#),
            Example::value(r#"format_number(1e6, 1, "")"#, r#""1000000.0""#),
            Example::value("format_number(-0.2)", r#""0""#),
        ],
        eval: format_number,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_bytes",
        about: "A number of bytes in the largest fitting unit of 1024: `1.5 MiB`.",
        params: &[ParamSpec::new("bytes", Pattern::Int)],
        returns: Returns::String,
        examples: &[
            Example::value("format_bytes(1_572_864)", r#""1.5 MiB""#),
            Example::value("format_bytes(1023)", r#""1023 B""#),
            Example::value("format_bytes(null)", "null"),
        ],
        eval: format_bytes,
        ..FunctionSpec::BASE
    },
];

// ---- encodings ----

const HEX: &[u8; 16] = b"0123456789abcdef";
const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

fn encode_base64<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| {
        let bytes = texts.bytes(row);
        out.push_with(bytes.len().div_ceil(3) * 4, |slot| {
            let mut pen = Pen::new(slot);
            print::write_base64(&mut pen, bytes);
            pen.at()
        })
    })
}

/// A column of texts that are bytes.
fn as_bytes<'a>(column: Column<'a>, rows: usize) -> Column<'a> {
    match column.data() {
        Data::String(text) => Column::new(Data::Bytes(text), column.valid(), rows),
        _ => column,
    }
}

fn decode_base64<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let column = args.try_strings(|row, out| {
        let text = texts.bytes(row);
        let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
        let padded = text.len() == digits.len() || text.len().is_multiple_of(4);
        let whole = digits.len() % 4 != 1 && padded;
        // Bits behind the last byte must be 0, so that a value has one text only.
        let spare = [0, 0, 15, 3][digits.len() % 4];
        let last = digits.last().and_then(|&byte| sextet(byte)).unwrap_or(0);
        if !whole || digits.iter().any(|&byte| sextet(byte).is_none()) || last & spare != 0 {
            return args.fault(row, PARSE, format_args!("{} is not base64", Quoted(texts.get(row))));
        }
        out.push_with(digits.len() * 3 / 4, |slot| {
            for (to, from) in slot.chunks_mut(3).zip(digits.chunks(4)) {
                let digit = |i: usize| u32::from(from.get(i).and_then(|&byte| sextet(byte)).unwrap_or(0));
                let bits = digit(0) << 18 | digit(1) << 12 | digit(2) << 6 | digit(3);
                for (i, to) in to.iter_mut().enumerate() {
                    *to = (bits >> (16 - 8 * i)) as u8;
                }
            }
            slot.len()
        })?;
        Ok(Some(()))
    })?;
    Ok(as_bytes(column, args.rows()))
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

fn encode_hex<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_strings(|row, out| {
        let bytes = texts.bytes(row);
        out.push_with(bytes.len() * 2, |slot| {
            for (to, &byte) in slot.chunks_exact_mut(2).zip(bytes) {
                to.copy_from_slice(&hex(byte, HEX));
            }
            slot.len()
        })
    })
}

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

/// The byte of two hexadecimal digits.
fn from_hex(digits: &[u8]) -> Option<u8> {
    let digit = |i: usize| digits.get(i).and_then(|&byte| char::from(byte).to_digit(16));
    Some((digit(0)? << 4 | digit(1)?) as u8)
}

fn decode_hex<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let column = args.try_strings(|row, out| {
        let text = texts.bytes(row);
        if text.chunks(2).any(|pair| from_hex(pair).is_none()) {
            return args.fault(
                row,
                PARSE,
                format_args!("{} is not pairs of hexadecimal digits", Quoted(texts.get(row))),
            );
        }
        out.push_with(text.len() / 2, |slot| {
            for (to, pair) in slot.iter_mut().zip(text.chunks(2)) {
                *to = from_hex(pair).unwrap_or(0);
            }
            slot.len()
        })?;
        Ok(Some(()))
    })?;
    Ok(as_bytes(column, args.rows()))
}

fn encode_url<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    args.map_strings(|row, out| {
        let bytes = texts.bytes(row);
        let len = bytes.iter().map(|&byte| if plain(byte) { 1 } else { 3 }).sum();
        out.push_with(len, |slot| {
            let mut pen = Pen::new(slot);
            for &byte in bytes {
                if plain(byte) {
                    pen.put(&[byte]);
                } else {
                    pen.put(b"%");
                    pen.put(&hex(byte, UPPER_HEX));
                }
            }
            pen.at()
        })
    })
}

/// The bytes behind a text with `%XX` in it; `None` for a `%` without two hexadecimal digits.
fn url_bytes(text: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, behind) = rest.split_first()?;
        if first != b'%' {
            rest = behind;
            return Some(Some(first));
        }
        let (pair, behind) = behind.split_at_checked(2).unwrap_or((behind, &[]));
        rest = behind;
        Some(from_hex(pair))
    })
}

fn decode_url<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let arena = args.arena();
    args.try_strings(|row, out| {
        let text = texts.bytes(row);
        if !text.contains(&b'%') {
            return out.push_bytes(text).map(Some);
        }
        let len = url_bytes(text).count();
        let mut whole = true;
        let mut bytes = url_bytes(text).map(|byte| {
            whole &= byte.is_some();
            byte.unwrap_or(0)
        });
        let decoded = arena.collect(len, |_| bytes.next().unwrap_or(0))?;
        drop(bytes);
        match std::str::from_utf8(decoded) {
            Ok(text) if whole => out.push(text).map(Some),
            Ok(_) => args.fault(
                row,
                PARSE,
                format_args!("a `%` without two hexadecimal digits in {}", Quoted(texts.get(row))),
            ),
            Err(_) => args.fault(
                row,
                PARSE,
                format_args!("{} does not stand for UTF-8 text", Quoted(texts.get(row))),
            ),
        }
    })
}

// ---- hashes ----

fn hash64<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    args.map_ints(|row| xxh64(texts.bytes(row)) as i64)
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 with seed 0.
fn xxh64(bytes: &[u8]) -> u64 {
    let round = |lane: u64, word: u64| {
        lane.wrapping_add(word.wrapping_mul(P2))
            .rotate_left(31)
            .wrapping_mul(P1)
    };
    let (blocks, mut rest) = bytes.as_chunks::<32>();
    let mut hash = if blocks.is_empty() {
        P5
    } else {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let [a, b, c, d] = lanes;
        let mixed = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        let mixed = mixed.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        lanes.iter().fold(mixed, |hash, &lane| {
            (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4)
        })
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*word)))
            .rotate_left(27)
            .wrapping_mul(P1)
            .wrapping_add(P4);
        rest = behind;
    }
    if let Some((word, behind)) = rest.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*word));
        hash = (hash ^ word.wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = behind;
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(P5))
            .rotate_left(11)
            .wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P2);
    hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

// ---- json and numbers ----

fn parse_json<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let checked = args.try_bools(|row| {
        if json::is_valid(texts.get(row)) {
            return Ok(Some(true));
        }
        args.fault(row, PARSE, format_args!("{} is not JSON", Quoted(texts.get(row))))
    })?;
    let blank = |c: char| matches!(c, ' ' | '\n' | '\t' | '\r');
    let trimmed = args.map_parts(0, |_, text| {
        let start = text.len() - text.trim_start_matches(blank).len();
        start..start.max(text.trim_end_matches(blank).len())
    })?;
    match trimmed.data() {
        Data::String(text) => Ok(Column::new(Data::Json(text), checked.valid(), args.rows())),
        _ => Ok(trimmed),
    }
}

/// The base in this row, if there is such a base.
fn base(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|base| (2..=36).contains(base))
}

fn parse_int<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, bases) = (args.strings(0), args.ints(1));
    args.try_ints(|row| {
        let (text, n) = (texts.get(row), bases.get(row));
        let Some(base) = base(n) else {
            return args.fault(row, DOMAIN, format_args!("a base is from 2 to 36, not {n}"));
        };
        match i64::from_str_radix(text, base) {
            Ok(value) => Ok(Some(value)),
            Err(_) => args.fault(
                row,
                PARSE,
                format_args!("cannot parse int in base {n} from {}", Quoted(text)),
            ),
        }
    })
}

fn parse_number<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (texts, points, groups) = (args.strings(0), args.strings(1), args.strings(2));
    args.try_floats(|row| {
        let text = texts.get(row);
        match plain_number(text, points.get(row), groups.get(row)) {
            Some(value) => Ok(Some(value)),
            None => args.fault(row, PARSE, format_args!("cannot parse number from {}", Quoted(text))),
        }
    })
}

fn plain_number(text: &str, point: &str, group: &str) -> Option<f64> {
    let mut slot = [0u8; 400];
    let mut pen = Pen::new(&mut slot);
    let (whole, fraction) = if point.is_empty() {
        (text, None)
    } else {
        text.split_once(point)
            .map_or((text, None), |(whole, fraction)| (whole, Some(fraction)))
    };
    let mut rest = whole;
    if !group.is_empty() {
        while let Some((digits, behind)) = rest.split_once(group) {
            // A group separator stands between digits.
            if !digits.ends_with(|c: char| c.is_ascii_digit()) || !behind.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            pen.put(digits.as_bytes());
            rest = behind;
        }
    }
    pen.put(rest.as_bytes());
    if let Some(fraction) = fraction {
        pen.put(b".");
        pen.put(fraction.as_bytes());
    }
    let len = pen.at();
    // Longer than any number that people write: what was cut off must not go unseen.
    if text.len() > slot.len() / 2 {
        return None;
    }
    let number = &slot[..len];
    let digits = number
        .strip_prefix(b"-")
        .or(number.strip_prefix(b"+"))
        .unwrap_or(number);
    if !digits
        .first()
        .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
    {
        return None;
    }
    fast_float2::parse::<f64, _>(number.strip_prefix(b"+").unwrap_or(number)).ok()
}

fn format_int<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (numbers, bases) = (args.ints(0), args.ints(1));
    args.try_strings(|row, out| {
        let (n, wanted) = (numbers.get(row), bases.get(row));
        let Some(base) = base(wanted) else {
            return args.fault(row, DOMAIN, format_args!("a base is from 2 to 36, not {wanted}"));
        };
        let mut slot = [0u8; 65];
        let mut at = slot.len();
        let mut rest = n.unsigned_abs();
        loop {
            at -= 1;
            let digit = char::from_digit((rest % u64::from(base)) as u32, base).unwrap_or('0');
            slot[at] = digit as u8;
            rest /= u64::from(base);
            if rest == 0 {
                break;
            }
        }
        if n < 0 {
            at -= 1;
            slot[at] = b'-';
        }
        out.push_bytes(&slot[at..]).map(Some)
    })
}

/// The most digits that `format_number` writes behind the point.
const MOST_DIGITS: i64 = 30;

fn format_number<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (digits, groups) = (args.ints(1), args.strings(2));
    let ty = args.ty(0);
    let (ints, decimals, floats) = (args.ints(0), args.decimals(0), args.floats(0));
    args.map_strings(|row, out| {
        let wanted = digits.get(row).clamp(0, MOST_DIGITS) as usize;
        // A float has at most 309 digits before the point.
        let mut slot = [0u8; 400];
        let mut pen = Pen::new(&mut slot);
        let written = match ty {
            Type::Float => {
                let value = floats.get(row);
                if !value.is_finite() {
                    let name = if value.is_nan() {
                        "nan"
                    } else if value > 0.0 {
                        "inf"
                    } else {
                        "-inf"
                    };
                    return out.push(name);
                }
                write!(pen, "{value:.wanted$}")
            }
            Type::Decimal { scale, .. } => {
                let (value, scale) = (decimals.get(row), usize::from(*scale));
                let kept = wanted.min(scale);
                let unit = POWERS.get(scale - kept).copied().unwrap_or(1);
                let value = divide_near(value, unit);
                let sign = if value < 0 { "-" } else { "" };
                let split = POWERS.get(kept).copied().unwrap_or(1).unsigned_abs();
                let (whole, fraction) = (value.unsigned_abs() / split, value.unsigned_abs() % split);
                let zeros = wanted - kept;
                match (wanted, kept) {
                    (0, _) => write!(pen, "{sign}{whole}"),
                    (_, 0) => write!(pen, "{sign}{whole}.{:0zeros$}", 0),
                    (_, _) if zeros == 0 => write!(pen, "{sign}{whole}.{fraction:0kept$}"),
                    _ => write!(pen, "{sign}{whole}.{fraction:0kept$}{:0zeros$}", 0),
                }
            }
            _ => match wanted {
                0 => write!(pen, "{}", ints.get(row)),
                _ => write!(pen, "{}.{:0wanted$}", ints.get(row), 0),
            },
        };
        let len = if written.is_ok() { pen.at() } else { 0 };
        let number = &slot[..len];
        push_grouped(out, number, groups.bytes(row))
    })
}

/// Pushes a written number with `group` between every three digits before the point, without the sign of zero.
fn push_grouped(out: &mut TextBuilder<'_>, number: &[u8], group: &[u8]) -> Result<()> {
    let (sign, digits) = match number.split_first() {
        Some((b'-', digits)) if digits.iter().any(|byte| (b'1'..=b'9').contains(byte)) => (&number[..1], digits),
        Some((b'-', digits)) => (&number[..0], digits),
        _ => (&number[..0], number),
    };
    let whole = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = digits.split_at(whole);
    let groups = whole.len().saturating_sub(1) / 3;
    out.push_with(sign.len() + digits.len() + groups * group.len(), |slot| {
        let mut pen = Pen::new(slot);
        pen.put(sign);
        let (first, rest) = whole.split_at(whole.len() - groups * 3);
        pen.put(first);
        for three in rest.chunks(3) {
            pen.put(group);
            pen.put(three);
        }
        pen.put(fraction);
        pen.at()
    })
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

fn format_bytes<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let counts = args.ints(0);
    args.map_strings(|row, out| {
        let count = counts.get(row);
        let sign = if count < 0 { "-" } else { "" };
        let size = count.unsigned_abs();
        let mut power = (63 - size.max(1).leading_zeros()) as usize / 10;
        if power == 0 {
            return out.push_fmt(format_args!("{count} B"));
        }
        let tenths = |power: usize| (u128::from(size) * 10 + (1u128 << (10 * power - 1))) >> (10 * power);
        // 1023.96 KiB would be written 1024.0 KiB.
        if tenths(power) >= 10_240 && power + 1 < UNITS.len() {
            power += 1;
        }
        let (tenths, unit) = (tenths(power), UNITS.get(power).copied().unwrap_or_default());
        out.push_fmt(format_args!("{sign}{}.{} {unit}", tenths / 10, tenths % 10))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_xxh64() {
        let table: [(&[u8], u64); 4] = [
            (b"", 0xEF46_DB37_51D8_E999),
            (b"a", 0xD24E_C4F1_A98C_6E5B),
            (b"abc", 0x44BC_2CF5_AD77_0999),
            (b"The quick brown fox jumps over the lazy dog", 0x0B24_2D36_1FDA_71BC),
        ];
        for (text, hash) in table {
            assert_eq!(xxh64(text), hash, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn numbers_with_groups_are_read_only_where_groups_may_stand() {
        let table = [
            ("1,234.5", Some(1234.5)),
            ("+1,234", Some(1234.0)),
            ("-0.5", Some(-0.5)),
            (".5", Some(0.5)),
            ("1e3", Some(1000.0)),
            ("1,,2", None),
            (",1", None),
            ("1,", None),
            ("1,234.5,6", None),
            ("1.2.3", None),
            ("+-1", None),
            ("nan", None),
            ("inf", None),
            ("", None),
            ("-", None),
            (" 1", None),
        ];
        for (text, want) in table {
            assert_eq!(plain_number(text, ".", ","), want, "{text}");
        }
        assert_eq!(plain_number(&"1".repeat(300), ".", ","), None);
        assert_eq!(plain_number("1 234,5", ",", " "), Some(1234.5));
        assert_eq!(plain_number("12", "", ""), Some(12.0));
    }

    #[test]
    fn urls_with_broken_escapes_are_seen() {
        let whole = |text: &str| url_bytes(text.as_bytes()).collect::<Option<Vec<u8>>>();
        assert_eq!(whole("a%20b"), Some(b"a b".to_vec()));
        for broken in ["%", "%2", "a%zz", "%%20", "%+1"] {
            assert_eq!(whole(broken), None, "{broken}");
        }
    }
}
