//! Scalars from text: what is an int, a float, a date in every text.
//!
//! Laws
//! - The whole text must be the value: no blanks around it, nothing behind it.
//! - Nothing wraps, rounds to infinity or is cut: what does not fit is no value of the type. (A float is the nearest one; digits
//!   of a second behind the sixth are dropped, as times are in microseconds.)

use super::civil;
use std::fmt;

/// Whether all 8 bytes are digits.
#[inline]
pub(crate) fn are_digits(eight: u64) -> bool {
    (eight & 0xF0F0_F0F0_F0F0_F0F0) | ((eight.wrapping_add(0x0606_0606_0606_0606) & 0xF0F0_F0F0_F0F0_F0F0) >> 4)
        == 0x3333_3333_3333_3333
}

/// The number that 8 digits write, the first in the lowest byte.
#[inline]
pub(crate) fn number_of(eight: u64) -> u64 {
    let v = (eight & 0x0F0F_0F0F_0F0F_0F0F).wrapping_mul(2561) >> 8;
    let v = (v & 0x00FF_00FF_00FF_00FF).wrapping_mul(6_553_601) >> 16;
    (v & 0x0000_FFFF_0000_FFFF).wrapping_mul(42_949_672_960_001) >> 32
}

#[inline]
fn eight(text: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*text.get(at..)?.first_chunk::<8>()?))
}

#[inline]
fn four(text: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*text.get(at..)?.first_chunk::<4>()?))
}

/// At most 8 digits, as 8 digits with zeros before them.
#[inline]
fn padded(digits: &[u8]) -> Option<u64> {
    let n = digits.len();
    let zeros = 0x3030_3030_3030_3030u64;
    match n {
        8 => eight(digits, 0),
        4..8 => {
            let (low, high) = (u64::from(four(digits, 0)?), u64::from(four(digits, n - 4)?));
            Some(high << 32 | low << (8 * (8 - n)) | zeros >> (8 * n))
        }
        1..4 => {
            // First, middle and last byte: of fewer than three some are the same one.
            let byte = |at: usize| u64::from(digits[at]) << (8 * at);
            let text = byte(0) | byte(n / 2) | byte(n - 1);
            Some(text << (8 * (8 - n)) | zeros >> (8 * n))
        }
        _ => None,
    }
}

/// The number written by 1 to 19 digits.
#[inline]
fn digits(text: &[u8]) -> Option<u64> {
    if text.len() <= 8 {
        let v = padded(text)?;
        return are_digits(v).then(|| number_of(v));
    }
    if text.len() > 19 {
        return None;
    }
    let (head, tail) = text.split_at(text.len() - 8);
    let low = eight(tail, 0)?;
    if !are_digits(low) {
        return None;
    }
    // 19 digits are below 10^19 < 2^64.
    Some(digits(head)? * 100_000_000 + number_of(low))
}

/// Digits with an optional `-`, no leading zero, within i64.
#[inline]
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if let [b'0', _, ..] = rest {
        return None;
    }
    let value = digits(rest)?;
    if negative {
        (value <= 1 << 63).then(|| (value as i64).wrapping_neg())
    } else {
        i64::try_from(value).ok()
    }
}

/// `true` or `false`.
#[inline]
pub fn parse_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// A number cut into its parts: `±mantissa · 10^exponent`, exact unless `lost`.
struct Number {
    negative: bool,
    mantissa: u64,
    exponent: i64,
    /// There were more digits than the mantissa holds.
    lost: bool,
}

/// The powers of ten that are exact floats.
pub(crate) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The digits at the front: how many, and `before` continued by them (meaningless behind 19 digits in all).
#[inline]
fn run(text: &[u8], before: u64) -> (usize, u64) {
    let mut at = 0;
    let mut value = before;
    while let Some(v) = eight(text, at)
        && are_digits(v)
    {
        value = value.wrapping_mul(100_000_000).wrapping_add(number_of(v));
        at += 8;
    }
    while let Some(&b) = text.get(at)
        && b.is_ascii_digit()
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(b - b'0'));
        at += 1;
    }
    (at, value)
}

/// The digits of an exponent; far ones are all as far as 2^40.
fn power_of(text: &[u8]) -> Option<i64> {
    let (down, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0i64, |v, &b| (v * 10 + i64::from(b - b'0')).min(1 << 40));
    Some(if down { -value } else { value })
}

/// The parts of a JSON number, if the text is one.
#[inline]
fn number(text: &[u8]) -> Option<Number> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, mantissa) = run(rest, 0);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return None;
    }
    let mut number = Number {
        negative,
        mantissa,
        exponent: 0,
        lost: whole > 19,
    };
    let mut rest = &rest[whole..];
    if let [b'.', fraction @ ..] = rest {
        let (count, mantissa) = run(fraction, mantissa);
        if count == 0 {
            return None;
        }
        number.mantissa = mantissa;
        number.lost = whole + count > 19;
        number.exponent = -(count as i64);
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', power @ ..] = rest {
        number.exponent += power_of(power)?;
        rest = &[];
    }
    rest.is_empty().then_some(number)
}

/// Digits with at most one point among them, at most 8 bytes in all, as a float. `None`: it is something else, or nothing.
#[inline(always)]
fn short_number(text: &[u8]) -> Option<f64> {
    let word = padded(text)?;
    let first = text[0];
    // The point's byte is 0x80 here; none other has its high bit set below the first that is found.
    let x = word ^ 0x2E2E_2E2E_2E2E_2E2E;
    let point = x.wrapping_sub(0x0101_0101_0101_0101) & !x & 0x8080_8080_8080_8080;
    if point == 0 {
        let whole = are_digits(word) && (first != b'0' || text.len() == 1);
        return whole.then(|| number_of(word) as f64);
    }
    let at = point.trailing_zeros() / 8;
    let fraction = 7 - at as usize;
    let whole = text.len() - 1 - fraction;
    if fraction == 0 || whole == 0 || (first == b'0' && whole > 1) {
        return None;
    }
    // What stands before the point moves up onto it.
    let below = (1u64 << (8 * at)) - 1;
    let above = !(below << 8 | 0xFF);
    let digits = word & above | (word & below) << 8 | 0x30;
    are_digits(digits).then(|| number_of(digits) as f64 / POWERS[fraction & 7])
}

/// A JSON number, if it is within the range of float; the nearest float.
#[inline]
pub fn parse_number(text: &[u8]) -> Option<f64> {
    if let Some(value) = short_number(text) {
        return Some(value);
    }
    let parts = number(text)?;
    // Clinger: both the mantissa and the power are exact floats, so one operation rounds once.
    if !parts.lost && parts.mantissa < 1 << 53 && (-22..=22).contains(&parts.exponent) {
        let power = POWERS[parts.exponent.unsigned_abs() as usize];
        let value = parts.mantissa as f64;
        let value = if parts.exponent < 0 {
            value / power
        } else {
            value * power
        };
        return Some(if parts.negative { -value } else { value });
    }
    let value: f64 = fast_float2::parse(text).ok()?;
    value.is_finite().then_some(value)
}

/// A JSON number, `nan`, `inf` or `-inf`.
#[inline]
pub fn parse_float(text: &[u8]) -> Option<f64> {
    if let Some(value) = parse_number(text) {
        return Some(value);
    }
    match text {
        b"nan" => Some(f64::NAN),
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Two digits.
#[inline]
fn two(a: u8, b: u8) -> Option<u32> {
    let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    (a < 10 && b < 10).then(|| u32::from(a) * 10 + u32::from(b))
}

/// A date at the front of the text, and what follows it.
#[inline]
fn date_part(text: &[u8]) -> Option<(i64, &[u8])> {
    if let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = text
        && let (Some(century), Some(year)) = (two(*y1, *y2), two(*y3, *y4))
    {
        let days = civil::checked_days(i64::from(century * 100 + year), two(*m1, *m2)?, two(*d1, *d2)?)?;
        return Some((days, rest));
    }
    // The expanded form, `+012026-01-31`: a sign and six or seven digits.
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => return None,
    };
    let length = digits.iter().position(|b| !b.is_ascii_digit())?;
    if !(6..=7).contains(&length) {
        return None;
    }
    let year = run(&digits[..length], 0).1 as i64;
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = &digits[length..] else {
        return None;
    };
    if negative && year == 0 {
        return None;
    }
    let days = civil::checked_days(if negative { -year } else { year }, two(*m1, *m2)?, two(*d1, *d2)?)?;
    Some((days, rest))
}

/// `2026-01-31`: days since 1970-01-01.
#[inline]
pub fn parse_date(text: &[u8]) -> Option<i32> {
    match date_part(text)? {
        (days, []) => i32::try_from(days).ok(),
        _ => None,
    }
}

/// A fraction of at least one digit and at most nine, in microseconds (more digits are dropped), and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let length = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    if !(1..=9).contains(&length) {
        return None;
    }
    let digits = text[..length].iter().copied().chain(std::iter::repeat(b'0'));
    let micros = digits.take(6).fold(0, |v, b| v * 10 + i64::from(b - b'0'));
    Some((micros, &text[length..]))
}

/// `2026-01-31T10:00[:00[.5]]` (a blank allowed for `T`) with `Z`, `±02`, `±0200`, `±02:00` or nothing behind it: microseconds
/// since 1970-01-01T00:00:00Z, taking a time without an offset as UTC; and whether there was one.
#[inline]
pub fn parse_timestamp_zone(text: &[u8]) -> Option<(i64, bool)> {
    let (days, rest) = date_part(text)?;
    let [b'T' | b' ', h1, h2, b':', m1, m2, rest @ ..] = rest else {
        return None;
    };
    let (hour, minute) = (two(*h1, *h2)?, two(*m1, *m2)?);
    let (mut second, mut micros, mut rest) = (0, 0, rest);
    if let [b':', s1, s2, more @ ..] = rest {
        second = two(*s1, *s2)?;
        rest = more;
        if let [b'.', digits @ ..] = rest {
            (micros, rest) = fraction(digits)?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset = match rest {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, more @ ..] => {
            let minutes = match more {
                [] => 0,
                [b':', m1, m2] | [m1, m2] => two(*m1, *m2)?,
                _ => return None,
            };
            let hours = two(*h1, *h2)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second) - offset;
    // The very first microseconds of i64 lie in a second that begins before them.
    let value = i64::try_from(i128::from(seconds) * 1_000_000 + i128::from(micros)).ok()?;
    Some((value, !rest.is_empty()))
}

/// Microseconds since 1970-01-01T00:00:00Z; without an offset the time is UTC.
#[inline]
pub fn parse_timestamp(text: &[u8]) -> Option<i64> {
    Some(parse_timestamp_zone(text)?.0)
}

/// ISO 8601 in weeks, days, hours, minutes, seconds (`PT1H30M`, `-P1DT0.25S`; a day is 24 hours), or as the language writes
/// it (`1h30m`, `-90s`, `2d`, `250ms`): microseconds.
pub fn parse_duration(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let total = match rest {
        [b'P', rest @ ..] => iso_duration(rest)?,
        _ => literal_duration(rest)?,
    };
    i64::try_from(if negative { -total } else { total }).ok()
}

/// What is behind the `P`, in microseconds.
fn iso_duration(text: &[u8]) -> Option<i128> {
    let mut rest = text;
    let mut total = 0i128;
    let mut in_time = false;
    // Units come in this order, each at most once.
    let mut least = 0;
    while !rest.is_empty() {
        if !in_time && let [b'T', more @ ..] = rest {
            in_time = true;
            rest = more;
            if rest.is_empty() {
                return None;
            }
            continue;
        }
        let length = rest.iter().position(|b| !b.is_ascii_digit())?;
        if !(1..=18).contains(&length) {
            return None;
        }
        let value = i128::from(run(&rest[..length], 0).1);
        rest = &rest[length..];
        let mut micros = 0;
        let mut fractional = false;
        if let [b'.', digits @ ..] = rest {
            (micros, rest) = fraction(digits)?;
            fractional = true;
        }
        let [unit, more @ ..] = rest else {
            return None;
        };
        let (rank, seconds) = match (in_time, unit) {
            (false, b'W') => (1, 604_800),
            (false, b'D') => (2, 86_400),
            (true, b'H') => (3, 3_600),
            (true, b'M') => (4, 60),
            (true, b'S') => (5, 1),
            _ => return None,
        };
        if rank <= least || (fractional && rank != 5) {
            return None;
        }
        least = rank;
        total += value * seconds * 1_000_000 + i128::from(micros);
        rest = more;
    }
    (least > 0).then_some(total)
}

/// Numbers with units as in a script, each with a fraction if that is whole microseconds.
fn literal_duration(text: &[u8]) -> Option<i128> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total = 0i128;
    while !rest.is_empty() {
        let whole = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let behind = match &rest[whole..] {
            [b'.', tail @ ..] => 1 + tail.iter().take_while(|b| b.is_ascii_digit()).count(),
            _ => 0,
        };
        if whole == 0 || whole > 18 || behind == 1 || behind > 10 {
            return None;
        }
        let (number, tail) = rest.split_at(whole + behind);
        let letters = tail.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let (unit, tail) = tail.split_at(letters);
        let unit: i128 = match unit {
            b"w" => 7 * 86_400_000_000,
            b"d" => 86_400_000_000,
            b"h" => 3_600_000_000,
            b"m" | b"min" => 60_000_000,
            b"s" => 1_000_000,
            b"ms" => 1_000,
            b"us" => 1,
            _ => return None,
        };
        let digits = number.iter().filter(|&&b| b != b'.');
        let value = digits.fold(0i128, |v, &b| v * 10 + i128::from(b - b'0'));
        let scale = 10i128.pow(behind.saturating_sub(1) as u32);
        if value * unit % scale != 0 {
            return None;
        }
        total += value * unit / scale;
        rest = tail;
    }
    Some(total)
}

/// Why a text is no decimal of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecimalError {
    /// No number at all.
    Syntax,
    /// More digits before the point than the type has.
    TooLarge,
    /// Digits behind the point that the type has no room for.
    TooFine,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecimalError::Syntax => "not a number",
            DecimalError::TooLarge => "too many digits",
            DecimalError::TooFine => "too many digits behind the point",
        })
    }
}

/// A JSON number as `value / 10^scale`, exactly.
///
/// # Errors
/// Says whether it is no number or which digits the type has no room for.
pub fn parse_decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, DecimalError> {
    use DecimalError::{Syntax, TooFine, TooLarge};
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let whole = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return Err(Syntax);
    }
    let (digits, mut rest) = rest.split_at(whole);
    let mut behind: &[u8] = &[];
    if let [b'.', more @ ..] = rest {
        let count = more.iter().position(|b| !b.is_ascii_digit()).unwrap_or(more.len());
        if count == 0 {
            return Err(Syntax);
        }
        (behind, rest) = more.split_at(count);
    }
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', power @ ..] => power_of(power).ok_or(Syntax)?,
        _ => return Err(Syntax),
    };
    // The value is `digits behind` · 10^(exponent - |behind|); wanted is its multiple of 10^-scale.
    let shift = exponent - behind.len() as i64 + i64::from(scale);
    let mut all = digits.iter().chain(behind).copied().skip_while(|&b| b == b'0');
    let significant = all.clone().count() as i64;
    if significant == 0 {
        return Ok(0);
    }
    // What the scale cuts off must be zeros.
    let zeros = behind
        .iter()
        .rev()
        .chain(digits.iter().rev())
        .take_while(|&&b| b == b'0')
        .count() as i64;
    if zeros < -shift {
        return Err(TooFine);
    }
    let kept = significant + shift;
    if kept > i64::from(precision.min(38)) {
        return Err(TooLarge);
    }
    // At least one digit is not zero and so kept: at most 38 digits, below 10^38 < 2^127.
    let mut value = 0i128;
    for _ in 0..kept {
        value = value * 10 + i128::from(all.next().unwrap_or(b'0') - b'0');
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::super::print;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ints_are_plain_digits_within_64_bits() {
        for (text, want) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("7", Some(7)),
            ("123", Some(123)),
            ("-1234567", Some(-1_234_567)),
            ("12345678", Some(12_345_678)),
            ("123456789", Some(123_456_789)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("007", None),
            ("-01", None),
            ("+1", None),
            ("1 ", None),
            ("12a45678", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn floats_are_json_numbers_and_three_words() {
        for text in [
            "1",
            "1.5",
            "-0.25",
            "1e3",
            "1E+3",
            "2.5e-7",
            "0",
            "123456789012345678901234567890",
            "1e308",
        ] {
            assert_eq!(parse_float(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in [
            "", "-", "1.", ".5", "+1", "01", "1e", "1e+", "1e999", "NaN", "infinity", "0x1", "1_0", "1.5 ", "1..2",
        ] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
        assert!(parse_float(b"nan").is_some_and(f64::is_nan));
        assert_eq!(parse_float(b"-inf"), Some(f64::NEG_INFINITY));
        assert!(parse_float(b"-0.0").is_some_and(|v| v == 0.0 && v.is_sign_negative()));
    }

    #[test]
    fn dates_and_times_are_iso_8601() {
        let hour = 3_600_000_000;
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01 01:00", Some(hour)),
            ("1970-01-01T02:00:00+02:00", Some(0)),
            ("1970-01-01T00:30-0030", Some(hour)),
            ("1970-01-01T00:00:00.5", Some(500_000)),
            ("1970-01-01T00:00:00.123456789Z", Some(123_456)),
            ("1970-01-01T05:00+05", Some(0)),
            ("1970-01-01", None),
            ("1970-01-01T24:00", None),
            ("1970-01-01T00:60", None),
            ("1970-01-01T00:00:60", None),
            ("1970-01-01T00:00:00.", None),
            ("1970-01-01T00:00:00z", None),
            ("1970-02-30T00:00", None),
            ("1970-01-01T00:00Zx", None),
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), want, "{text}");
        }
        assert_eq!(parse_date(b"2000-02-29"), Some(11_016));
        for text in [
            "1900-02-29",
            "2001-13-01",
            "2001-00-01",
            "2001-01-00",
            "2001-1-1",
            "20010101",
            "2001-01-01T",
            "-000000-01-01",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_duration(b"P1W2DT3H4M5.25S"), Some(788_645_250_000));
        for text in [
            "", "P", "PT", "P1DT", "1H", "PT1S1H", "PT1.5H", "P1Y", "P1M", "PT-1S", "--PT1S", "PT1",
        ] {
            assert_eq!(parse_duration(text.as_bytes()), None, "{text}");
        }
        for (text, want) in [
            ("1h30m", Some(2 * hour - hour / 2)),
            ("-1.5s", Some(-1_500_000)),
            ("2d", Some(48 * hour)),
            ("0.5us", None),
            ("5", None),
            ("-", None),
            ("1h 30m", None),
            ("1y", None),
        ] {
            assert_eq!(parse_duration(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact_or_nothing() {
        use DecimalError::{Syntax, TooFine, TooLarge};
        for (text, want) in [
            ("12.5", Ok(1250)),
            ("12.500", Ok(1250)),
            ("-0.01", Ok(-1)),
            ("1e3", Ok(100_000)),
            ("125e-1", Ok(1250)),
            ("12500e-5", Err(TooFine)),
            ("100e-4", Ok(1)),
            ("0e99999999999999", Ok(0)),
            ("12.345", Err(TooFine)),
            ("99999.99", Ok(9_999_999)),
            ("100000", Err(TooLarge)),
            ("1e99999999999", Err(TooLarge)),
            ("1e-99999999999", Err(TooFine)),
            ("", Err(Syntax)),
            ("-", Err(Syntax)),
            ("1.", Err(Syntax)),
            ("x", Err(Syntax)),
            ("1e", Err(Syntax)),
            ("1 ", Err(Syntax)),
            ("007.5", Err(Syntax)),
        ] {
            assert_eq!(parse_decimal(text.as_bytes(), 7, 2), want, "{text}");
        }
    }

    fn printed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(print::MOST);
        write(&mut out);
        assert!(out.len() <= print::MOST);
        out
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(int: i64, float: f64, days: i32, decimal: i128, scale in 0u8..=38) {
            prop_assert_eq!(parse_int(&printed(|o| print::write_int(o, int))), Some(int));
            let back = parse_float(&printed(|o| print::write_float(o, float)));
            prop_assert!(back.is_some_and(|b| b.to_bits() == float.to_bits() || b.is_nan() && float.is_nan()));
            prop_assert_eq!(parse_date(&printed(|o| print::write_date(o, days))), Some(days));
            prop_assert_eq!(parse_timestamp(&printed(|o| print::write_timestamp(o, int))), Some(int));
            prop_assert_eq!(parse_duration(&printed(|o| print::write_duration(o, int))), Some(int));
            let decimal = decimal % 10i128.pow(38);
            prop_assert_eq!(parse_decimal(&printed(|o| print::write_decimal(o, decimal, scale)), 38, scale), Ok(decimal));
        }

        #[test]
        fn floats_are_read_as_the_standard_library_reads_them(
            text in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?",
        ) {
            let want = text.parse::<f64>().ok().filter(|v| v.is_finite());
            prop_assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), want.map(f64::to_bits));
        }

        #[test]
        fn short_numbers_are_those_of_json(text in "-?[0-9.]{1,10}") {
            let json = serde_json::from_str::<f64>(&text).ok();
            prop_assert_eq!(parse_float(text.as_bytes()), json, "{}", text);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = std::str::from_utf8(&bytes).ok();
            let int = text.and_then(|t| t.parse::<i64>().ok());
            prop_assert!(parse_int(&bytes).is_none_or(|v| int == Some(v)));
            parse_float(&bytes);
            parse_date(&bytes);
            parse_timestamp(&bytes);
            parse_duration(&bytes);
            let _ = parse_decimal(&bytes, 38, 10);
        }
    }
}
