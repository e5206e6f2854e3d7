//! F-strings: what stands behind the colon, and writing values by it.

use crate::expr::functions::Format;
use crate::expr::scalar::civil::DAY;
use crate::expr::{Expr, cell, decimal};
use standpipe_sdk::{Cell, Type};
use std::fmt::{self, Write};

/// Part of a checked f-string.
#[derive(Clone, Debug)]
pub enum Piece {
    Text(String),
    Value(Expr, Spec),
}

/// `[<>^][0][width][,][.digits]`, or a strftime pattern.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    text: String,
    align: Option<u8>,
    zero: bool,
    width: usize,
    comma: bool,
    digits: Option<u8>,
    time: Option<Format>,
}

/// The widest field, in characters.
const WIDEST: usize = 4096;

impl Spec {
    /// The specification `text` for values of type `ty`.
    pub(in crate::expr) fn parse(text: &str, ty: &Type) -> Result<Spec, String> {
        let mut spec = Spec {
            text: text.to_string(),
            ..Spec::default()
        };
        if text.contains('%') {
            if !matches!(ty, Type::Date | Type::Timestamp) {
                return Err(format!("a date pattern does not fit {ty}"));
            }
            spec.time = Some(Format::new(text)?);
            return Ok(spec);
        }
        let mut rest = text.as_bytes();
        if let [align @ (b'<' | b'>' | b'^'), tail @ ..] = rest {
            spec.align = Some(*align);
            rest = tail;
        }
        if let [b'0', tail @ ..] = rest {
            spec.zero = true;
            rest = tail;
        }
        while let [digit @ b'0'..=b'9', tail @ ..] = rest {
            spec.width = spec.width * 10 + usize::from(digit - b'0');
            rest = tail;
            if spec.width > WIDEST {
                return Err(format!("a field is at most {WIDEST} wide"));
            }
        }
        if let [b',', tail @ ..] = rest {
            spec.comma = true;
            rest = tail;
        }
        if let [b'.', tail @ ..] = rest {
            let digits = std::str::from_utf8(tail)
                .ok()
                .and_then(|t| t.parse::<u8>().ok())
                .filter(|&d| d <= decimal::DIGITS);
            spec.digits = Some(
                digits.ok_or_else(|| format!("`{text}` needs up to {} digits behind the point", decimal::DIGITS))?,
            );
            rest = &[];
        }
        if !rest.is_empty() {
            return Err(format!("`{text}` is no format"));
        }
        if !ty.is_number() && *ty != Type::Null && (spec.zero || spec.comma || spec.digits.is_some()) {
            return Err(format!("`{text}` is a format for numbers, not for {ty}"));
        }
        Ok(spec)
    }

    /// As it was written.
    pub(in crate::expr) fn text(&self) -> &str {
        &self.text
    }

    /// Appends a cell.
    pub(in crate::expr) fn write(&self, out: &mut String, cell: &Cell<'_>, ty: &Type) -> fmt::Result {
        if let Some(time) = &self.time {
            let micros = match *cell {
                Cell::Date(days) => i64::from(days) * DAY,
                Cell::Timestamp(micros) => micros,
                _ => return Ok(()),
            };
            time.write(micros, out);
            return Ok(());
        }
        let start = out.len();
        match (*cell, self.digits) {
            (Cell::Float(x), Some(digits)) if x.is_finite() => write!(out, "{x:.*}", digits as usize)?,
            (Cell::Int(n), Some(digits)) if digits > 0 => write!(out, "{n}.{:0>1$}", "", digits as usize)?,
            (Cell::Decimal(value), Some(digits)) => {
                let from = match ty {
                    Type::Decimal { scale, .. } => *scale,
                    _ => 0,
                };
                let shown = decimal::shift(value, i32::from(digits) - i32::from(from));
                match shown {
                    Some(shown) => cell::plain(
                        out,
                        &Cell::Decimal(shown),
                        &Type::Decimal {
                            precision: 38,
                            scale: digits,
                        },
                    )?,
                    None => cell::plain(out, cell, ty)?,
                }
            }
            _ => cell::plain(out, cell, ty)?,
        }
        if self.comma {
            let from = start + usize::from(out[start..].starts_with('-'));
            let whole = out[from..].bytes().take_while(u8::is_ascii_digit).count();
            for at in (1..whole).rev().filter(|at| (whole - at) % 3 == 0) {
                out.insert(from + at, ',');
            }
        }
        if self.width == 0 {
            return Ok(());
        }
        let missing = self.width.saturating_sub(out[start..].chars().count());
        if self.zero && self.align.is_none() {
            let from = start + usize::from(out[start..].starts_with('-'));
            for _ in 0..missing {
                out.insert(from, '0');
            }
            return Ok(());
        }
        let number = matches!(cell, Cell::Int(_) | Cell::Float(_) | Cell::Decimal(_));
        let left = match self.align.unwrap_or(if number { b'>' } else { b'<' }) {
            b'<' => 0,
            b'^' => missing / 2,
            _ => missing,
        };
        for _ in 0..left {
            out.insert(start, ' ');
        }
        for _ in left..missing {
            out.push(' ');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: &str, cell: Cell<'_>, ty: &Type) -> String {
        let mut out = String::new();
        Spec::parse(spec, ty).unwrap().write(&mut out, &cell, ty).unwrap();
        out
    }

    #[test]
    fn specs_do_what_they_say() {
        assert_eq!(shown(".2", Cell::Float(1.005), &Type::Float), "1.00");
        assert_eq!(shown(">8,.1", Cell::Float(-12345.67), &Type::Float), "-12,345.7");
        assert_eq!(shown("08", Cell::Int(-42), &Type::Int), "-0000042");
        assert_eq!(shown("^7", Cell::String("abc"), &Type::String), "  abc  ");
        assert_eq!(shown("<5", Cell::Int(7), &Type::Int), "7    ");
        assert_eq!(shown(",", Cell::Int(1234567), &Type::Int), "1,234,567");
        assert_eq!(
            shown("%d.%m.%Y %H:%M", Cell::Timestamp(DAY + 60_000_000), &Type::Timestamp),
            "02.01.1970 00:01"
        );
        assert_eq!(shown("%G-W%V-%u %a", Cell::Date(19723), &Type::Date), "2024-W01-1 Mon");
        assert!(Spec::parse("x", &Type::Int).is_err());
        assert!(Spec::parse("%Q", &Type::Date).is_err());
        assert!(Spec::parse(".2", &Type::String).is_err());
    }
}
