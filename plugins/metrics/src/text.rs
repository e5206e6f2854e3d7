//! The words of line protocol: what stands for itself, what is escaped, and what cannot be said.

use standpipe_sdk::Cell;
use std::fmt::Write;

/// Why something cannot be written.
pub(crate) type Bad = &'static str;

/// The name of a measurement.
pub(crate) fn name(text: &str, out: &mut String) -> Result<(), Bad> {
    escaped(text, &[',', ' '], out)
}

/// A tag, its name, or the name of a field.
pub(crate) fn key(text: &str, out: &mut String) -> Result<(), Bad> {
    escaped(text, &[',', '=', ' '], out)
}

fn escaped(text: &str, special: &[char], out: &mut String) -> Result<(), Bad> {
    if text.contains(['\n', '\r']) {
        return Err("has a line break, which it cannot have here");
    }
    // A backslash stands for itself unless something follows that it would escape: at the end that is what comes next.
    if text.ends_with('\\') || text.split('\\').skip(1).any(|rest| rest.starts_with(special)) {
        return Err("has a backslash before what is escaped by one");
    }
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    Ok(())
}

/// The value of a field, which is not null. `scale` is a decimal's.
pub(crate) fn field(cell: Cell<'_>, scale: u8, out: &mut String) -> Result<(), Bad> {
    // Writing to a string cannot fail.
    let _ = match cell {
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Int(value) => write!(out, "{value}i"),
        Cell::Float(value) if value.is_finite() => write!(out, "{value:?}"),
        Cell::Float(_) => return Err("is not a finite number"),
        Cell::Decimal(value) => {
            let (digits, scale) = (value.unsigned_abs().to_string(), usize::from(scale));
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            let sign = if value < 0 { "-" } else { "" };
            match part {
                "" => write!(out, "{sign}{whole}"),
                part => write!(out, "{sign}{whole}.{part}"),
            }
        }
        Cell::String(value) => {
            out.push('"');
            for c in value.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
            Ok(())
        }
        _ => return Err("is of a type that no field has"),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_escaped() {
        let mut out = String::new();
        assert_eq!((name("a b,c=d", &mut out), out.as_str()), (Ok(()), "a\\ b\\,c=d"));
        out.clear();
        assert_eq!(
            (key("a b,c=d\\e", &mut out), out.as_str()),
            (Ok(()), "a\\ b\\,c\\=d\\e")
        );
        for bad in ["a\nb", "a\rb", "a\\", "a\\ b", "a\\=b", "\\,"] {
            assert!(key(bad, &mut out).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fields_say_their_type() {
        let cases = [
            (Cell::Bool(true), "true"),
            (Cell::Int(-3), "-3i"),
            (Cell::Float(1.0), "1.0"),
            (Cell::Float(1e300), "1e300"),
            (Cell::Float(-0.0), "-0.0"),
            (Cell::Decimal(12345), "12.345"),
            (Cell::Decimal(-5), "-0.005"),
            (Cell::String("say \"a\\b\"\n, c=d"), "\"say \\\"a\\\\b\\\"\n, c=d\""),
        ];
        for (cell, want) in cases {
            let mut out = String::new();
            assert_eq!((field(cell, 3, &mut out), out.as_str()), (Ok(()), want));
        }
        let mut out = String::new();
        assert_eq!((field(Cell::Decimal(7), 0, &mut out), out.as_str()), (Ok(()), "7"));
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(field(Cell::Float(bad), 0, &mut out).is_err());
        }
    }
}
