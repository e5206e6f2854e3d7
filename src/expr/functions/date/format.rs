//! strftime formats, of functions and of f-strings: read once, then written and parsed without allocating.
//!
//! Laws
//! - What is written with a format that names the whole time is read back as the same time.
//! - Parsing takes the whole text; a number has at most its field's digits, names are taken in any case.

use super::{DAY, HOUR, MINUTE, SECOND, civil, iso_week, iso_weekday, of_year, valid_day};
use crate::expr::functions::text::{Pen, Quoted};
use crate::expr::scalar::print::Put;
use standpipe_sdk::Result;
use standpipe_sdk::build::TextBuilder;

/// A strftime format, read once. `%n` writes a fixed field with leading zeros (or blanks), `%-n` without.
#[derive(Clone, Debug)]
pub(in crate::expr) struct Format {
    source: Box<str>,
    pieces: Vec<Piece>,
    /// The longest text it writes, in bytes.
    longest: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    /// What, and what fills it up on the left.
    Field(Field, Fill),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fill {
    Zero,
    Blank,
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Field {
    Year,
    ShortYear,
    WeekYear,
    Week,
    Month,
    MonthName,
    ShortMonth,
    Day,
    DayOfYear,
    Weekday,
    /// 0 (Sunday) to 6.
    WeekdayFromSunday,
    WeekdayName,
    ShortWeekday,
    Quarter,
    Hour,
    Hour12,
    Minute,
    Second,
    /// Digits of the fraction of a second.
    Fraction(u8),
    /// `.25`, nothing without a fraction.
    DotFraction,
    Half,
    LowerHalf,
    Offset,
    Unix,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

impl Format {
    /// Reads a format.
    pub(in crate::expr) fn new(source: &str) -> Result<Format, String> {
        let mut pieces = vec![];
        read_format(source, &mut pieces)?;
        let longest = pieces.iter().map(Piece::longest).sum();
        Ok(Format {
            source: source.into(),
            pieces,
            longest,
        })
    }

    /// Whether texts can be read with it, not only written.
    pub(super) fn check_readable(&self) -> Result<(), String> {
        for piece in &self.pieces {
            if let Piece::Field(
                Field::WeekYear | Field::Week | Field::Weekday | Field::WeekdayFromSunday | Field::Quarter,
                _,
            ) = piece
            {
                return Err("`%G`, `%V`, `%u`, `%w` and `%q` can be written, not read".to_string());
            }
        }
        let has = |wanted: &[Field]| {
            let is = |piece: &Piece| matches!(piece, Piece::Field(field, _) if wanted.contains(field));
            self.pieces.iter().any(is)
        };
        if !self.source.is_empty() && !has(&[Field::Year, Field::ShortYear, Field::Unix]) {
            return Err(format!("{} names no year: `%Y`, `%y` or `%s`", Quoted(&self.source)));
        }
        Ok(())
    }

    /// The format as it was given.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Adds the text of a timestamp as a row.
    pub(in crate::expr) fn push(&self, micros: i64, out: &mut TextBuilder<'_>) -> Result<()> {
        out.push_with(self.longest, |slot| {
            let mut pen = Pen::new(slot);
            self.write(micros, &mut pen);
            pen.at()
        })
    }

    /// Appends the text of a timestamp.
    pub(in crate::expr) fn write(&self, micros: i64, pen: &mut impl Put) {
        let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
        let (year, month, day) = civil::date(days);
        let name = |names: &[&'static str], n: i64| names.get(n as usize).copied().unwrap_or_default();
        for piece in &self.pieces {
            let (field, fill) = match piece {
                Piece::Text(text) => {
                    pen.put(text.as_bytes());
                    continue;
                }
                Piece::Field(field, fill) => (*field, *fill),
            };
            let hour = rest / HOUR;
            let (value, width) = match field {
                Field::Year => (year, 4),
                Field::ShortYear => (year.rem_euclid(100), 2),
                Field::WeekYear => (iso_week(days).0, 4),
                Field::Week => (iso_week(days).1, 2),
                Field::Month => (i64::from(month), 2),
                Field::Day => (i64::from(day), 2),
                Field::DayOfYear => (of_year(days), 3),
                Field::Weekday => (iso_weekday(days), 1),
                Field::WeekdayFromSunday => (iso_weekday(days) % 7, 1),
                Field::Quarter => (i64::from(month.div_ceil(3)), 1),
                Field::Hour => (hour, 2),
                Field::Hour12 => ((hour + 11) % 12 + 1, 2),
                Field::Minute => (rest / MINUTE % 60, 2),
                Field::Second => (rest / SECOND % 60, 2),
                Field::Unix => (micros.div_euclid(SECOND), 1),
                Field::MonthName => {
                    pen.put(name(&MONTHS, i64::from(month) - 1).as_bytes());
                    continue;
                }
                Field::ShortMonth => {
                    pen.put(short(name(&MONTHS, i64::from(month) - 1)));
                    continue;
                }
                Field::WeekdayName => {
                    pen.put(name(&WEEKDAYS, iso_weekday(days) - 1).as_bytes());
                    continue;
                }
                Field::ShortWeekday => {
                    pen.put(short(name(&WEEKDAYS, iso_weekday(days) - 1)));
                    continue;
                }
                Field::Half => {
                    pen.put(if hour < 12 { b"AM" } else { b"PM" });
                    continue;
                }
                Field::LowerHalf => {
                    pen.put(if hour < 12 { b"am" } else { b"pm" });
                    continue;
                }
                Field::Offset => {
                    pen.put(b"+0000");
                    continue;
                }
                Field::Fraction(digits) => {
                    put_fraction(pen, rest % SECOND, usize::from(digits));
                    continue;
                }
                Field::DotFraction => {
                    let mut digits = 6;
                    let mut value = rest % SECOND;
                    while digits > 0 && value % 10 == 0 {
                        value /= 10;
                        digits -= 1;
                    }
                    if digits > 0 {
                        pen.put(b".");
                        put_fraction(pen, rest % SECOND, digits);
                    }
                    continue;
                }
            };
            put_number(pen, value, width, fill);
        }
    }

    /// Reads a timestamp; `None` if the text is none in this format.
    pub(in crate::expr) fn parse(&self, text: &str) -> Option<i64> {
        let mut rest = text.as_bytes();
        let mut read = Read::default();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => {
                    for &byte in text.as_bytes() {
                        // One blank stands for any number of them, but for one at least.
                        let (&first, behind) = rest.split_first()?;
                        rest = match byte {
                            b' ' if first == b' ' => behind.trim_ascii_start(),
                            _ if first == byte => behind,
                            _ => return None,
                        };
                    }
                }
                Piece::Field(field, _) => rest = read.field(*field, rest)?,
            }
        }
        if rest.is_empty() { read.micros() } else { None }
    }
}

impl Piece {
    fn longest(&self) -> usize {
        match self {
            Piece::Text(text) => text.len(),
            // A year of a row that is not asked for may have more than four digits.
            Piece::Field(Field::Year | Field::WeekYear, _) => 8,
            Piece::Field(Field::MonthName | Field::WeekdayName, _) => 9,
            Piece::Field(Field::Unix, _) => 20,
            Piece::Field(Field::Fraction(_) | Field::DotFraction, _) => 10,
            Piece::Field(_, _) => 5,
        }
    }
}

fn read_format(source: &str, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let mut rest = source;
    while !rest.is_empty() {
        let Some(at) = rest.find('%') else {
            pieces.push(Piece::Text(rest.into()));
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].into()));
        }
        rest = &rest[at + 1..];
        let mut fill = None;
        for (flag, meant) in [('-', Fill::Nothing), ('_', Fill::Blank), ('0', Fill::Zero)] {
            if let Some(behind) = rest.strip_prefix(flag) {
                (fill, rest) = (Some(meant), behind);
            }
        }
        if let Some(behind) = rest.strip_prefix(".f") {
            pieces.push(Piece::Field(Field::DotFraction, Fill::Nothing));
            rest = behind;
            continue;
        }
        let mut chars = rest.chars();
        let mut letter = chars.next();
        let digits = letter.and_then(|c| c.to_digit(10)).filter(|n| (1..=9).contains(n));
        if digits.is_some() {
            letter = chars.next();
            if letter != Some('f') {
                return Err(format!(
                    "behind `%` and a digit in {} only `f` can stand",
                    Quoted(source)
                ));
            }
        }
        rest = chars.as_str();
        let field = match letter {
            Some('Y') => Field::Year,
            Some('y') => Field::ShortYear,
            Some('G') => Field::WeekYear,
            Some('V') => Field::Week,
            Some('m') => Field::Month,
            Some('B') => Field::MonthName,
            Some('b' | 'h') => Field::ShortMonth,
            Some('d') => Field::Day,
            Some('e') => {
                fill = fill.or(Some(Fill::Blank));
                Field::Day
            }
            Some('j') => Field::DayOfYear,
            Some('u') => Field::Weekday,
            Some('w') => Field::WeekdayFromSunday,
            Some('A') => Field::WeekdayName,
            Some('a') => Field::ShortWeekday,
            Some('q') => Field::Quarter,
            Some('H') => Field::Hour,
            Some('I') => Field::Hour12,
            Some('M') => Field::Minute,
            Some('S') => Field::Second,
            Some('f') => Field::Fraction(digits.unwrap_or(6) as u8),
            Some('p') => Field::Half,
            Some('P') => Field::LowerHalf,
            Some('z') => Field::Offset,
            Some('s') => Field::Unix,
            Some(short @ ('F' | 'T' | 'D' | 'R')) => {
                let long = match short {
                    'F' => "%Y-%m-%d",
                    'T' => "%H:%M:%S",
                    'D' => "%m/%d/%y",
                    _ => "%H:%M",
                };
                read_format(long, pieces)?;
                continue;
            }
            Some(literal @ ('%' | 'n' | 't' | 'Z')) => {
                let text = match literal {
                    'n' => "\n",
                    't' => "\t",
                    // All times are.
                    'Z' => "UTC",
                    _ => "%",
                };
                pieces.push(Piece::Text(text.into()));
                continue;
            }
            Some(other) => return Err(format!("`%{other}` in {} means nothing", Quoted(source))),
            None => return Err(format!("{} ends with `%`; a percent sign is `%%`", Quoted(source))),
        };
        pieces.push(Piece::Field(field, fill.unwrap_or(Fill::Zero)));
    }
    Ok(())
}

/// The first three letters of a name.
fn short(name: &str) -> &[u8] {
    name.as_bytes().get(..3).unwrap_or_default()
}

fn put_number(pen: &mut impl Put, value: i64, width: usize, fill: Fill) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value.unsigned_abs());
    if value < 0 {
        pen.put(b"-");
    }
    for _ in digits.len()..width {
        match fill {
            Fill::Zero => pen.put(b"0"),
            Fill::Blank => pen.put(b" "),
            Fill::Nothing => {}
        }
    }
    pen.put(digits.as_bytes());
}

/// The first `digits` digits of a fraction of a second.
fn put_fraction(pen: &mut impl Put, micros: i64, digits: usize) {
    let mut text = *b"000000000";
    let mut value = micros;
    for slot in text[..6].iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
    pen.put(&text[..digits.min(9)]);
}

/// What has been read of a text.
#[derive(Default)]
struct Read {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    afternoon: Option<bool>,
    offset_seconds: i64,
    unix: Option<i64>,
}

impl Read {
    /// Reads a field at the start of `text`; gives what is behind it.
    fn field<'t>(&mut self, field: Field, text: &'t [u8]) -> Option<&'t [u8]> {
        match field {
            Field::Year => {
                let (negative, digits) = match text.split_first() {
                    Some((b'-', rest)) => (true, rest),
                    _ => (false, text),
                };
                let (year, rest) = number(digits, 4)?;
                self.year = Some(if negative { -year } else { year });
                Some(rest)
            }
            Field::ShortYear => {
                let (year, rest) = number(text, 2)?;
                // As POSIX has it: 69 to 99 are the last century's.
                self.year = Some(if year < 69 { 2000 + year } else { 1900 + year });
                Some(rest)
            }
            Field::Month => {
                let (month, rest) = number(text, 2)?;
                self.month = Some(month);
                Some(rest)
            }
            Field::MonthName | Field::ShortMonth => {
                let (month, rest) = named(&MONTHS, text)?;
                self.month = Some(month + 1);
                Some(rest)
            }
            Field::Day => {
                let (day, rest) = number(text.trim_ascii_start(), 2)?;
                self.day = Some(day);
                Some(rest)
            }
            Field::DayOfYear => {
                let (day, rest) = number(text, 3)?;
                self.day_of_year = Some(day);
                Some(rest)
            }
            // The name of the day is read, and believed.
            Field::WeekdayName | Field::ShortWeekday => Some(named(&WEEKDAYS, text)?.1),
            Field::Hour => {
                let (hour, rest) = number(text, 2)?;
                self.hour = hour;
                (hour < 24).then_some(rest)
            }
            Field::Hour12 => {
                let (hour, rest) = number(text, 2)?;
                self.hour = hour;
                self.afternoon.get_or_insert(false);
                (1..=12).contains(&hour).then_some(rest)
            }
            Field::Minute => {
                let (minute, rest) = number(text, 2)?;
                self.minute = minute;
                (minute < 60).then_some(rest)
            }
            Field::Second => {
                let (second, rest) = number(text, 2)?;
                self.second = second;
                (second < 60).then_some(rest)
            }
            Field::Fraction(_) => {
                let (micros, rest) = fraction(text)?;
                self.micros = micros;
                Some(rest)
            }
            Field::DotFraction => match text.split_first() {
                Some((b'.', behind)) => {
                    let (micros, rest) = fraction(behind)?;
                    self.micros = micros;
                    Some(rest)
                }
                _ => Some(text),
            },
            Field::Half | Field::LowerHalf => {
                let (half, rest) = text.split_at_checked(2)?;
                self.afternoon = Some(if half.eq_ignore_ascii_case(b"pm") {
                    true
                } else if half.eq_ignore_ascii_case(b"am") {
                    false
                } else {
                    return None;
                });
                Some(rest)
            }
            Field::Offset => {
                let (sign, rest) = match text.split_first()? {
                    (b'Z' | b'z', rest) => return Some(rest),
                    (b'+', rest) => (1, rest),
                    (b'-', rest) => (-1, rest),
                    _ => return None,
                };
                let (hours, rest) = exactly_two(rest)?;
                let (minutes, rest) = exactly_two(rest.strip_prefix(b":").unwrap_or(rest)).unwrap_or((0, rest));
                self.offset_seconds = sign * (hours * 3600 + minutes * 60);
                (hours < 24 && minutes < 60).then_some(rest)
            }
            Field::Unix => {
                let (negative, digits) = match text.split_first() {
                    Some((b'-', rest)) => (true, rest),
                    _ => (false, text),
                };
                let (seconds, rest) = number(digits, 12)?;
                self.unix = Some(if negative { -seconds } else { seconds });
                Some(rest)
            }
            Field::WeekYear | Field::Week | Field::Weekday | Field::WeekdayFromSunday | Field::Quarter => None,
        }
    }

    fn micros(&self) -> Option<i64> {
        if let Some(seconds) = self.unix {
            return Some(seconds.checked_mul(SECOND)? + self.micros).filter(|&micros| civil::in_range(micros));
        }
        let year = self.year?;
        let day = match self.day_of_year {
            Some(day) => {
                let length = if civil::month_length(year, 2) == 29 { 366 } else { 365 };
                (1..=length).contains(&day).then(|| civil::days(year, 1, 1) + day - 1)?
            }
            None => valid_day(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let hour = match self.afternoon {
            Some(afternoon) if self.hour <= 12 => self.hour % 12 + if afternoon { 12 } else { 0 },
            _ => self.hour,
        };
        let seconds = hour * 3600 + self.minute * 60 + self.second - self.offset_seconds;
        Some(day * DAY + seconds * SECOND + self.micros).filter(|&micros| civil::in_range(micros))
    }
}

/// One to `most` digits at the start of `text`.
fn number(text: &[u8], most: usize) -> Option<(i64, &[u8])> {
    let len = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let (digits, rest) = text.split_at(len);
    Some((digits.iter().fold(0, |n, byte| n * 10 + i64::from(byte - b'0')), rest))
}

fn exactly_two(text: &[u8]) -> Option<(i64, &[u8])> {
    match text {
        [a, b, rest @ ..] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Some((i64::from(a - b'0') * 10 + i64::from(b - b'0'), rest))
        }
        _ => None,
    }
}

/// One to nine digits of a fraction of a second, cut to microseconds.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let (_, rest) = number(text, 9)?;
    let digits = &text[..text.len() - rest.len()];
    let digit = |i: usize| digits.get(i).map_or(0, |byte| i64::from(byte - b'0'));
    Some(((0..6).fold(0, |n, i| n * 10 + digit(i)), rest))
}

/// Which of `names`, in full or by its first three letters, stands at the start of `text`.
fn named<'t>(names: &[&str], text: &'t [u8]) -> Option<(i64, &'t [u8])> {
    let starts = |name: &str| {
        text.get(..name.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(name.as_bytes()))
    };
    let (which, len) = names.iter().enumerate().find_map(|(i, name)| {
        let len = [name.len(), 3].into_iter().find(|&len| starts(&name[..len]))?;
        Some((i, len))
    })?;
    Some((which as i64, &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_times_are_those_of_jiff() {
        // jiff's `%u`, `%w`, `%e`, `%I` and so on mean the same; its `%f` has nine digits, and its `%s` cuts a fraction before 1970 upwards.
        let source = "%Y-%m-%d %H:%M:%S|%y|%G-W%V-%u|%w|%j|%A %a %B %b|%e|%-d|%_m|%I %p|%F|%T|%D|%R|%%|%3f|%6f|%q";
        let format = Format::new(source).unwrap();
        for step in -400..400i64 {
            let micros = step * 86_399_123_456_789 / 3 + 17;
            let mut slot = [0; 400];
            let mut pen = Pen::new(&mut slot);
            format.write(micros, &mut pen);
            let len = pen.at();
            let time = jiff::Timestamp::from_microsecond(micros)
                .unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC);
            let got = std::str::from_utf8(&slot[..len]).unwrap();
            assert_eq!(got, time.strftime(source).to_string(), "{micros}");
        }
    }

    #[test]
    fn written_times_are_read_back() {
        let times = [
            0,
            1,
            -1,
            951_782_400_000_000,
            -377_705_116_800_000_000,
            253_402_300_799_999_999,
        ];
        for source in [
            "%Y-%m-%dT%H:%M:%S.%f",
            "%d %b %Y %I:%M:%S %p %6f",
            "%A, %j/%Y %T%.f",
            "%s.%f",
            "%B %-d, %Y %T %f%z",
        ] {
            let format = Format::new(source).unwrap();
            format.check_readable().unwrap();
            for micros in times {
                let mut slot = [0; 100];
                let mut pen = Pen::new(&mut slot);
                format.write(micros, &mut pen);
                let len = pen.at();
                let text = std::str::from_utf8(&slot[..len]).unwrap();
                assert_eq!(format.parse(text), Some(micros), "{text} by {source}");
            }
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        let table = [
            ("%Y-%m-%d", "2026-02-29"),
            ("%Y-%m-%d", "2026-13-01"),
            ("%Y-%m-%d", "2026-01-31 "),
            ("%Y-%m-%d", "2026-01"),
            ("%Y-%m-%d", ""),
            ("%Y-%m-%d", "2026-01-001"),
            ("%F %T", "2026-01-31 24:00:00"),
            ("%F %T", "2026-01-31 10:60:00"),
            ("%F %I %p", "2026-01-31 13 PM"),
            ("%F %I %p", "2026-01-31 12 XM"),
            ("%Y %j", "2025 366"),
            ("%b %Y", "Jän 2026"),
            ("%F%z", "2026-01-31+24:00"),
            ("%F%z", "9999-12-31-23:59"),
        ];
        for (source, text) in table {
            let read = Format::new(source).unwrap().parse(text);
            let want = if source == "%F%z" && text.starts_with("9999") {
                // 9999-12-31T23:59Z is the last day still.
                Some(253_402_300_740_000_000)
            } else {
                None
            };
            assert_eq!(read, want, "{text} by {source}");
        }
    }

    #[test]
    fn a_bad_format_is_refused() {
        for bad in ["%", "%Q", "%3d", "100%"] {
            assert!(Format::new(bad).is_err(), "{bad}");
        }
        for unreadable in ["%V %Y", "%d.%m."] {
            assert!(
                Format::new(unreadable).unwrap().check_readable().is_err(),
                "{unreadable}"
            );
        }
    }
}
