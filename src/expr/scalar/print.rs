//! Scalars as text: what is written for a number, a date, a duration.
//!
//! Laws
//! - Each function but [`write_base64`] appends at most [`MOST`] bytes; the caller of a `Vec` has reserved them, so nothing here allocates.
//! - What is written is read back by [`super::scan`] as the same value, bit for bit (`nan` as some NaN).
//! - All output is ASCII.

use super::civil::{self, DAY};

/// No scalar takes more bytes than this.
pub const MOST: usize = 64;

/// What text is appended to.
pub trait Put {
    /// Appends bytes, which are whole characters of UTF-8.
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Put for String {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.push_str(std::str::from_utf8(bytes).unwrap_or_default());
    }
}

/// A short text on the stack, of at most [`MOST`] bytes; what is beyond them is left out.
#[derive(Clone, Debug)]
pub struct Buf {
    bytes: [u8; MOST],
    len: usize,
}

impl Default for Buf {
    #[inline]
    fn default() -> Self {
        Buf {
            bytes: [0; MOST],
            len: 0,
        }
    }
}

impl Buf {
    /// The text so far.
    #[inline]
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..self.len).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl Put for Buf {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            slot.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

const PAIRS: [u8; 200] = {
    let mut pairs = [0u8; 200];
    let mut i = 0;
    while i < 100 {
        pairs[2 * i] = b'0' + (i / 10) as u8;
        pairs[2 * i + 1] = b'0' + (i % 10) as u8;
        i += 1;
    }
    pairs
};

/// Two digits.
#[inline]
fn pair(value: u32) -> [u8; 2] {
    let at = 2 * (value as usize % 100);
    [PAIRS[at], PAIRS[at + 1]]
}

/// `-12`.
#[inline]
pub fn write_int(out: &mut impl Put, value: i64) {
    out.put(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that is read back as the same float and seen to be one: `21.0`, `0.1`, `1e21`, `nan`, `inf`, `-inf`.
#[inline]
pub fn write_float(out: &mut impl Put, value: f64) {
    if !value.is_finite() {
        let text: &[u8] = match (value.is_nan(), value > 0.0) {
            (true, _) => b"nan",
            (false, true) => b"inf",
            (false, false) => b"-inf",
        };
        return out.put(text);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    // zmij writes `1e+21`, for large numbers only.
    if value.abs() >= 1e15
        && let Some(plus) = text.iter().position(|&b| b == b'+')
    {
        out.put(&text[..plus]);
        return out.put(&text[plus + 1..]);
    }
    out.put(text);
}

#[inline]
fn write_day(out: &mut impl Put, days: i64) {
    let (year, month, day) = civil::date(days);
    if (0..=9999).contains(&year) {
        let year = year as u32;
        let ([a, b], [c, d], [e, f], [g, h]) = (pair(year / 100), pair(year), pair(month), pair(day));
        return out.put(&[a, b, c, d, b'-', e, f, b'-', g, h]);
    }
    // ISO 8601's expanded form: a sign and at least six digits.
    out.put(if year < 0 { b"-" } else { b"+" });
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(year.unsigned_abs()).as_bytes();
    out.put(&b"000000"[..6usize.saturating_sub(digits.len())]);
    out.put(digits);
    let ([e, f], [g, h]) = (pair(month), pair(day));
    out.put(&[b'-', e, f, b'-', g, h]);
}

/// `2026-01-31`; years outside 0..=9999 as `+012026-01-31`.
#[inline]
pub fn write_date(out: &mut impl Put, days: i32) {
    write_day(out, i64::from(days));
}

/// `.` and the fraction of a second without trailing zeros, if there is one.
fn write_fraction(out: &mut impl Put, micros: u32) {
    if micros == 0 {
        return;
    }
    let ([a, b], [c, d], [e, f]) = (pair(micros / 10_000), pair(micros / 100), pair(micros));
    let digits = [b'.', a, b, c, d, e, f];
    let zeros = digits.iter().rev().take_while(|&&b| b == b'0').count();
    out.put(&digits[..digits.len() - zeros]);
}

/// `2026-01-31T10:00:00Z`, `2026-01-31T10:00:00.5Z`.
#[inline]
pub fn write_timestamp(out: &mut impl Put, micros: i64) {
    write_day(out, micros.div_euclid(DAY));
    let rest = micros.rem_euclid(DAY);
    let seconds = (rest / 1_000_000) as u32;
    let ([a, b], [c, d], [e, f]) = (pair(seconds / 3600), pair(seconds / 60 % 60), pair(seconds % 60));
    out.put(&[b'T', a, b, b':', c, d, b':', e, f]);
    write_fraction(out, (rest % 1_000_000) as u32);
    out.put(b"Z");
}

/// ISO 8601 in hours, minutes and seconds: `PT1H30M`, `-PT0.25S`, `PT0S`; never days, which are not always 24 hours there.
pub fn write_duration(out: &mut impl Put, micros: i64) {
    if micros < 0 {
        out.put(b"-");
    }
    out.put(b"PT");
    let rest = micros.unsigned_abs();
    let (hours, minutes, seconds) = (rest / 3_600_000_000, rest / 60_000_000 % 60, rest / 1_000_000 % 60);
    let fraction = (rest % 1_000_000) as u32;
    let mut part = |value: u64, fraction: u32, unit: u8| {
        out.put(itoa::Buffer::new().format(value).as_bytes());
        write_fraction(out, fraction);
        out.put(&[unit]);
    };
    if hours > 0 {
        part(hours, 0, b'H');
    }
    if minutes > 0 {
        part(minutes, 0, b'M');
    }
    if seconds > 0 || fraction > 0 || rest == 0 {
        part(seconds, fraction, b'S');
    }
}

/// `value / 10^scale` with exactly `scale` digits behind the point: `12.50`, `-0.05`, `7`.
#[inline]
pub fn write_decimal(out: &mut impl Put, value: i128, scale: u8) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    if value < 0 {
        out.put(b"-");
    }
    // A type's scale is at most 38; this keeps `MOST` true whatever comes.
    let scale = usize::from(scale.min(38));
    if scale == 0 {
        return out.put(digits);
    }
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.put(b"0.");
        out.put(&[b'0'; 38][..scale - digits.len()]);
    } else {
        out.put(&digits[..whole]);
        out.put(b".");
    }
    out.put(&digits[whole..]);
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes in base64 (RFC 4648) with padding: 4 bytes per 3 begun, so the one text here that is longer than [`MOST`].
pub fn write_base64(out: &mut impl Put, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        let mut four = [18, 12, 6, 0].map(|shift| BASE64[(bits >> shift & 63) as usize]);
        for unused in &mut four[chunk.len() + 1..] {
            *unused = b'=';
        }
        out.put(&four);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::with_capacity(MOST);
        write(&mut out);
        assert!(out.len() <= MOST, "{out:?}");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_short_and_seen_to_be_floats() {
        for (value, want) in [
            (21.0, "21.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e21, "1e21"),
            (-1.5e300, "-1.5e300"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (5e-324, "5e-324"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(text(|out| write_float(out, value)), want);
        }
    }

    #[test]
    fn times_have_one_form() {
        for (micros, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_769_853_600_000_000, "2026-01-31T10:00:00Z"),
            (1_769_853_600_500_000, "2026-01-31T10:00:00.5Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
            (i64::MAX, "+294247-01-10T04:00:54.775807Z"),
        ] {
            assert_eq!(text(|out| write_timestamp(out, micros)), want);
        }
        assert_eq!(text(|out| write_date(out, -719_528)), "0000-01-01");
        assert_eq!(text(|out| write_date(out, i32::MAX)), "+5881580-07-11");
        for (micros, want) in [
            (0, "PT0S"),
            (1_500_000, "PT1.5S"),
            (-5_400_000_000, "-PT1H30M"),
            (172_800_000_000, "PT48H"),
            (i64::MIN, "-PT2562047788H54.775808S"),
        ] {
            assert_eq!(text(|out| write_duration(out, micros)), want);
        }
    }

    #[test]
    fn decimals_keep_their_scale() {
        for (value, scale, want) in [
            (1250, 2, "12.50"),
            (-5, 2, "-0.05"),
            (7, 0, "7"),
            (0, 3, "0.000"),
            (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
        ] {
            assert_eq!(text(|out| write_decimal(out, value, scale)), want);
        }
    }
}
