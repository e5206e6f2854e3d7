//! Sizes on the command line and in messages.

use std::str::FromStr;

/// A number of bytes: `64MiB`, `10kB`, `4096`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size(pub usize);

const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[digits.len()..];
        let wrong = || "a size is a number with B, kB, MB, GB, KiB, MiB or GiB, as in 64MiB".to_string();
        let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let number: u64 = digits.replace('_', "").parse().map_err(|_| wrong())?;
        let bytes = number
            .checked_mul(factor)
            .and_then(|b| usize::try_from(b).ok())
            .ok_or("the size is too large")?;
        if bytes == 0 {
            Err("the size must be above 0".into())
        } else {
            Ok(Size(bytes))
        }
    }
}

/// `12.3 MiB`.
pub(super) fn shown(bytes: u64) -> String {
    let names = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut at = 0;
    while value >= 1024.0 && at + 1 < names.len() {
        value /= 1024.0;
        at += 1;
    }
    if at == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", names[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("10kB".parse(), Ok(Size(10_000)));
        assert_eq!("4_096".parse(), Ok(Size(4096)));
        for wrong in ["", "x", "1.5GiB", "-1", "0", "12XB", "99999999999TiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!((shown(512), shown(1536)), ("512 B".to_string(), "1.5 KiB".to_string()));
    }
}
