//! The values of literals: escapes, numbers, dates, durations, sizes, regular expressions.
//!
//! Laws
//! - The text comes from a grammar rule, so its shape is right; what is checked here is its value.
//! - A problem says where in the literal it is, in bytes from its start.

use std::ops::Range;

use jiff::civil::DateTime;

use super::ast::ExprKind;

/// What is wrong with a literal.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) code: &'static str,
    /// Within the literal.
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Problem {
    fn whole(text: &str, code: &'static str, message: String, help: &'static str) -> Problem {
        Problem {
            code,
            at: 0..text.len(),
            message,
            help,
        }
    }
}

/// Undoes the escapes of the inside of a string; problems are reported, the rest is kept. `from` is where the inside begins
/// in the literal.
pub(super) fn unescape(inside: &str, from: usize, problems: &mut Vec<Problem>) -> String {
    String::from_utf8(unescape_bytes(inside, from, false, problems)).unwrap_or_default()
}

/// The same for `b"…"`, which knows `\xff` too.
pub(super) fn unescape_bytes(inside: &str, from: usize, hex: bool, problems: &mut Vec<Problem>) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(found) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.extend_from_slice(&rest.as_bytes()[..found]);
        rest = &rest[found..];
        let start = from + inside.len() - rest.len();
        let mut chars = rest[1..].chars();
        let escaped = chars.next();
        let mut used = 1 + escaped.map_or(0, char::len_utf8);
        match escaped {
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('r') => out.push(b'\r'),
            Some('\\') => out.push(b'\\'),
            Some('"') => out.push(b'"'),
            Some('0') => out.push(0),
            Some('x') if hex => {
                let digits = rest.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                match digits {
                    Some(byte) => {
                        out.push(byte);
                        used = 4;
                    }
                    None => problems.push(bad_escape(start..start + used, "`\\x` needs two hex digits".to_owned())),
                }
            }
            Some('u') => {
                let digits = rest[2..]
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .map(|(digits, _)| digits);
                let value = digits
                    .filter(|digits| (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .and_then(char::from_u32);
                match value {
                    Some(c) => {
                        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        used = 4 + digits.map_or(0, str::len);
                    }
                    None => {
                        let message = "`\\u{…}` needs the hex digits of a character".to_owned();
                        problems.push(bad_escape(start..start + used, message));
                    }
                }
            }
            Some(other) => {
                problems.push(bad_escape(
                    start..start + used,
                    format!("unknown escape `\\{}`", other.escape_debug()),
                ));
            }
            None => {}
        }
        rest = &rest[used.min(rest.len())..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn bad_escape(at: Range<usize>, message: String) -> Problem {
    Problem {
        code: "E0107",
        at,
        message,
        help: "a backslash itself is `\\\\`; a raw string `r\"…\"` has no escapes",
    }
}

/// The inside of `r"…"`, `r#"…"#`.
pub(super) fn raw_inside(text: &str) -> &str {
    let inside = text.trim_start_matches('r').trim_matches('#');
    inside
        .strip_prefix('"')
        .and_then(|inside| inside.strip_suffix('"'))
        .unwrap_or(inside)
}

/// `1_000`. 2^63 comes back as `Err(None)`: with a minus before it, it is a literal.
pub(super) fn int(text: &str) -> Result<i64, Option<Problem>> {
    let digits = text.replace('_', "");
    match digits.parse::<u64>() {
        Ok(value) if value == 1 << 63 => Err(None),
        Ok(value) if value < 1 << 63 => Ok(value as i64),
        _ => Err(Some(too_large(text))),
    }
}

/// What is said about an int beyond 64 bits.
pub(super) fn too_large(text: &str) -> Problem {
    Problem::whole(
        text,
        "E0109",
        "int out of range".to_owned(),
        "an int has 64 bits, at most 9223372036854775807; a float is written `1e20`, an identifier as text",
    )
}

/// `0xff`.
pub(super) fn hex(text: &str) -> Result<i64, Problem> {
    i64::from_str_radix(&text.trim_start_matches("0x").replace('_', ""), 16).map_err(|_| {
        match text.trim_start_matches("0x").trim_matches('_').is_empty() {
            true => bad_number(text),
            false => too_large(text),
        }
    })
}

/// `1.5e3`: value and digits.
pub(super) fn float(text: &str) -> Result<ExprKind, Problem> {
    let digits = text.replace('_', "");
    match digits.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(ExprKind::Float { value, text: digits }),
        _ => Err(Problem::whole(
            text,
            "E0108",
            "float out of range".to_owned(),
            "the largest float is about 1.8e308; infinity is `float(\"inf\")`",
        )),
    }
}

/// `12ab`, `1.5h`.
pub(super) fn bad_number(text: &str) -> Problem {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '.');
    let prefixed = ["0x", "0b", "0o"].iter().any(|prefix| text.starts_with(prefix));
    let message = if prefixed || unit.is_empty() {
        format!("`{text}` is not a number")
    } else {
        format!(
            "a number followed by `{}`",
            unit.split(|c: char| c.is_ascii_digit()).next().unwrap_or(unit)
        )
    };
    Problem::whole(
        text,
        "E0108",
        message,
        "numbers are `1_000`, `0xff`, `1.5`, `2e10`; units are `90s`, `1h30m`, `2d`, `1w`, `64MiB`, `10kB`; a column that begins \
         with a digit stands in backticks",
    )
}

/// `1h30m` as microseconds: units fall.
pub(super) fn duration(text: &str) -> Result<i64, Problem> {
    const UNITS: [(&str, i64); 7] = [
        ("w", 7 * 86_400_000_000),
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ];
    let mut total = 0i64;
    let mut rest = text;
    let mut last = None;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
        let number = rest[..rest.len() - digits.len()].replace('_', "");
        let after = digits.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &digits[..digits.len() - after.len()];
        let Some(place) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(bad_number(text));
        };
        if last.is_some_and(|last| last >= place) {
            return Err(Problem::whole(
                text,
                "E0111",
                format!("the units of `{text}` do not fall"),
                "the larger unit comes first: `1h30m`",
            ));
        }
        last = Some(place);
        let part = number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(UNITS[place].1));
        total = match part.and_then(|part| total.checked_add(part)) {
            Some(total) => total,
            None => {
                let message = "duration out of range".to_owned();
                return Err(Problem::whole(
                    text,
                    "E0111",
                    message,
                    "a duration has at most 2^63 microseconds",
                ));
            }
        };
        rest = after;
    }
    Ok(total)
}

/// `64MiB`, `1.5GB` as bytes.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let wrong = |message: &str| {
        Problem::whole(
            text,
            "E0111",
            message.to_owned(),
            "sizes are whole bytes below 2^63: `64MiB`",
        )
    };
    let (number, scale) = UNITS
        .iter()
        .find_map(|(name, scale)| text.strip_suffix(name).map(|number| (number.replace('_', ""), *scale)))
        .ok_or_else(|| bad_number(text))?;
    let bytes = match number.split_once('.') {
        None => number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)),
        Some((whole, fraction)) => {
            let places = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
            let digits = format!("{whole}{fraction}").parse::<u128>().ok();
            let bytes = digits.zip(10u128.checked_pow(places)).and_then(|(digits, ten)| {
                let bytes = digits.checked_mul(scale.into())?;
                (bytes % ten == 0).then_some(bytes / ten)
            });
            match bytes {
                Some(bytes) => u64::try_from(bytes).ok(),
                None => return Err(wrong("not a whole number of bytes")),
            }
        }
    };
    bytes
        .filter(|bytes| *bytes < 1 << 63)
        .ok_or_else(|| wrong("size out of range"))
}

/// `@2026-01-31`, `@2026-01-31T10:00+02:00`.
pub(super) fn timestamp(text: &str) -> Result<ExprKind, Problem> {
    let wrong = |message: String| {
        Problem::whole(
            text,
            "E0110",
            message,
            "dates are `@2026-01-31`, timestamps `@2026-01-31T10:00:05.25Z`, also with `+02:00`",
        )
    };
    let inside = &text[1..];
    let Some((date, clock)) = inside.split_once('T') else {
        let date: jiff::civil::Date = inside
            .parse()
            .map_err(|_| wrong(format!("there is no day `{inside}`")))?;
        let since = date - jiff::civil::Date::constant(1970, 1, 1);
        return Ok(ExprKind::Date(since.get_days()));
    };
    let (clock, offset) = match clock.find(['Z', '+', '-']) {
        Some(at) => clock.split_at(at),
        None => (clock, "Z"),
    };
    let day: Result<jiff::civil::Date, _> = date.parse();
    day.map_err(|_| wrong(format!("there is no day `{date}`")))?;
    if clock
        .split_once('.')
        .is_some_and(|(_, fraction)| fraction.len() > 6 && fraction[6..].bytes().any(|b| b != b'0'))
    {
        return Err(wrong("a timestamp has microseconds, no finer".to_owned()));
    }
    let seconds = if clock.matches(':').count() == 1 { ":00" } else { "" };
    if clock.ends_with(":60") || clock.contains(":60.") {
        return Err(wrong(format!("there is no time `{clock}`")));
    }
    let civil: DateTime = format!("{date}T{clock}{seconds}")
        .parse()
        .map_err(|_| wrong(format!("there is no time `{clock}`")))?;
    let minutes = match offset.as_bytes() {
        [sign, ..] if offset.len() == 6 => {
            let hours = offset[1..3].parse::<i64>().unwrap_or(99);
            let minutes = offset[4..6].parse::<i64>().unwrap_or(99);
            if hours > 23 || minutes > 59 {
                return Err(wrong(format!("there is no offset `{offset}`")));
            }
            let total = hours * 60 + minutes;
            if *sign == b'-' { -total } else { total }
        }
        _ => 0,
    };
    let days = i64::from((civil.date() - jiff::civil::Date::constant(1970, 1, 1)).get_days());
    let time = civil.time();
    let of_day = (i64::from(time.hour()) * 60 + i64::from(time.minute()) - minutes) * 60 + i64::from(time.second());
    let micros = i64::from(time.subsec_nanosecond()) / 1_000;
    Ok(ExprKind::Timestamp((days * 86_400 + of_day) * 1_000_000 + micros))
}

/// What is said about `@2026-1-3`.
pub(super) fn bad_date(text: &str) -> Problem {
    Problem::whole(
        text,
        "E0110",
        format!("`{text}` is not a date"),
        "dates are `@2026-01-31`, timestamps `@2026-01-31T10:00:05.25Z`, also with `+02:00`",
    )
}

/// `/re/i`.
pub(super) fn regex(text: &str) -> Result<ExprKind, Problem> {
    let end = text.rfind('/').unwrap_or(0);
    let pattern = text.get(1..end).unwrap_or("").replace("\\/", "/");
    let flags = text.get(end + 1..).unwrap_or("");
    for (at, flag) in flags.char_indices() {
        let place = end + 1 + at;
        let known = matches!(flag, 'i' | 'm' | 's');
        if !known || flags[..at].contains(flag) {
            return Err(Problem {
                code: "E0117",
                at: place..place + 1,
                message: if known {
                    format!("flag `{flag}` twice")
                } else {
                    format!("unknown flag `{flag}`")
                },
                help: "`i` ignores case, `m` lets `^` and `$` match at lines, `s` lets `.` match a newline",
            });
        }
    }
    Ok(ExprKind::Regex {
        pattern,
        flags: flags.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let mut problems = Vec::new();
        assert_eq!(
            unescape(r#"a\n\t\r\\\"\0\u{1F600}é"#, 1, &mut problems),
            "a\n\t\r\\\"\0\u{1F600}é"
        );
        assert_eq!(unescape_bytes(r"\xff\x00", 2, true, &mut problems), [0xff, 0]);
        assert!(problems.is_empty());
        for (text, at) in [
            (r"\q", 1..3),
            (r"ab\é", 3..6),
            (r"\u{}", 1..3),
            (r"\u{110000}", 1..3),
            (r"\x41", 1..3),
        ] {
            let mut problems = Vec::new();
            unescape(text, 1, &mut problems);
            assert_eq!(problems.first().map(|problem| problem.at.clone()), Some(at), "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(int("1_000"), Ok(1000));
        assert_eq!(int("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(int("9223372036854775808"), Err(None));
        assert!(matches!(int("99999999999999999999999"), Err(Some(_))));
        assert_eq!(hex("0xff"), Ok(255));
        assert!(hex("0x_").is_err() && hex("0xffffffffffffffff").is_err());
        assert!(float("1e999").is_err());
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("1h30m"), Ok(5_400_000_000));
        assert_eq!(duration("1w"), Ok(604_800_000_000));
        assert_eq!(duration("5ms"), Ok(5_000));
        assert!(duration("30m1h").is_err() && duration("1h1h").is_err() && duration("99999999999999w").is_err());
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1.5kB"), Ok(1_500));
        assert!(size("1.5B").is_err() && size("99999999999TB").is_err());
    }

    #[test]
    fn dates_and_timestamps() {
        assert_eq!(timestamp("@1970-01-02"), Ok(ExprKind::Date(1)));
        assert_eq!(timestamp("@1969-12-31"), Ok(ExprKind::Date(-1)));
        assert_eq!(timestamp("@2026-01-31"), Ok(ExprKind::Date(20484)));
        assert_eq!(timestamp("@1970-01-01T00:00"), Ok(ExprKind::Timestamp(0)));
        assert_eq!(
            timestamp("@1970-01-01T02:00:01.5+02:00"),
            Ok(ExprKind::Timestamp(1_500_000))
        );
        assert_eq!(timestamp("@1969-12-31T23:59:59.999999Z"), Ok(ExprKind::Timestamp(-1)));
        assert_eq!(
            timestamp("@1970-01-01T00:00-01:30"),
            Ok(ExprKind::Timestamp(5_400_000_000))
        );
        for wrong in [
            "@2026-02-30",
            "@2026-13-01",
            "@2026-01-01T24:00",
            "@2026-01-01T10:60",
            "@2026-01-01T10:00:60",
            "@2026-01-01T10:00+25:00",
            "@2026-01-01T10:00:00.1234567",
        ] {
            assert!(timestamp(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn regexes() {
        assert_eq!(
            regex(r"/a\/b/i"),
            Ok(ExprKind::Regex {
                pattern: "a/b".into(),
                flags: "i".into()
            })
        );
        assert!(regex("/a/x").is_err() && regex("/a/ii").is_err());
    }
}
