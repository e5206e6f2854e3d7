//! Looking into JSON text without building anything. The text is valid JSON (readers and casts see to that); on other text
//! the answers are unspecified, but nothing panics and nothing reads outside.

pub(crate) mod lexer;

use std::ops::Range;

/// What looking for a part gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::expr) enum Find {
    /// Where it is.
    At(Range<usize>),
    /// There is none.
    Missing,
    /// The value is `null`.
    Null,
    /// The value is neither null nor of the kind that has such parts.
    Kind,
}

/// What a value is.
pub(in crate::expr) fn kind(text: &str) -> &'static str {
    match first(text) {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a bool",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

fn first(text: &str) -> Option<u8> {
    text.as_bytes().get(blanks(text.as_bytes(), 0)).copied()
}

/// Behind the string that starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the value that starts at `at`.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth == 0 {
                    return at;
                }
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b':' | b' ' | b'\n' | b'\t' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The values of an array, in order; nothing for other values.
pub(in crate::expr) fn elements(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = text.as_bytes();
    let mut at = blanks(bytes, 0);
    let mut open = bytes.get(at) == Some(&b'[');
    at += 1;
    std::iter::from_fn(move || {
        if !open {
            return None;
        }
        at = blanks(bytes, at);
        if bytes.get(at).is_none_or(|&b| b == b']') {
            open = false;
            return None;
        }
        let end = value_end(bytes, at);
        let range = at..end;
        at = blanks(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at += 1;
        } else {
            open = false;
        }
        Some(range)
    })
}

/// Element `index` of an array, from the end if negative.
pub(in crate::expr) fn element(text: &str, index: i64) -> Find {
    match first(text) {
        Some(b'[') => {}
        Some(b'n') => return Find::Null,
        _ => return Find::Kind,
    }
    let at = if index < 0 {
        let count = elements(text).count() as i64;
        count + index
    } else {
        index
    };
    match usize::try_from(at).ok().and_then(|at| elements(text).nth(at)) {
        Some(range) => Find::At(range),
        None => Find::Missing,
    }
}

/// Member `name` of an object; of several the last.
pub(in crate::expr) fn member(text: &str, name: &str) -> Find {
    let bytes = text.as_bytes();
    let mut at = blanks(bytes, 0);
    match bytes.get(at) {
        Some(b'{') => {}
        Some(b'n') => return Find::Null,
        _ => return Find::Kind,
    }
    let mut found = Find::Missing;
    at = blanks(bytes, at + 1);
    while bytes.get(at) == Some(&b'"') {
        let key_end = string_end(bytes, at);
        let key = text.get(at + 1..key_end.saturating_sub(1)).unwrap_or_default();
        let colon = blanks(bytes, key_end);
        let start = blanks(bytes, colon + 1);
        let end = value_end(bytes, start);
        if start >= end || end > bytes.len() {
            break;
        }
        if key == name || (key.contains('\\') && Unescaped(key).eq(name.chars())) {
            found = Find::At(start..end);
        }
        at = blanks(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = blanks(bytes, at + 1);
        }
    }
    found
}

/// The characters of a JSON string's inside; lone surrogates become U+FFFD.
#[derive(Clone)]
pub(in crate::expr) struct Unescaped<'t>(pub(in crate::expr) &'t str);

impl Unescaped<'_> {
    fn eq(self, other: impl Iterator<Item = char>) -> bool {
        Iterator::eq(self, other)
    }

    fn hex(&mut self) -> Option<u32> {
        let code = u32::from_str_radix(self.0.get(..4)?, 16).ok()?;
        self.0 = &self.0[4..];
        Some(code)
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let c = chars.next()?;
        self.0 = chars.as_str();
        if c != '\\' {
            return Some(c);
        }
        let c = chars.next()?;
        self.0 = chars.as_str();
        Some(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let high = self.hex()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return Some(char::from_u32(high).unwrap_or('\u{fffd}'));
                }
                let before = self.0;
                if let Some(rest) = self.0.strip_prefix("\\u") {
                    self.0 = rest;
                    if let Some(low @ 0xdc00..0xe000) = self.hex() {
                        return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    }
                }
                self.0 = before;
                '\u{fffd}'
            }
            other => other,
        })
    }
}

/// The inside of a JSON string, if the value is one.
pub(in crate::expr) fn string(text: &str) -> Option<&str> {
    let text = text.trim_matches([' ', '\n', '\t', '\r']);
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Whether `text` is one JSON value; allocates nothing.
pub(crate) fn is_valid(text: &str) -> bool {
    lexer::is_document(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_any_layout() {
        let text = r#" { "a" : [1, {"b": "x,]"}, -2.5e3 ] , "c\u0041": null, "a": [ ] , "d": {"a": 1} } "#;
        assert_eq!(member(text, "a"), Find::At(text.find("[ ]").map(|i| i..i + 3).unwrap()));
        let Find::At(range) = member(text, "cA") else { panic!() };
        assert_eq!(&text[range], "null");
        assert_eq!(member(text, "b"), Find::Missing);
        assert_eq!(member("null", "b"), Find::Null);
        assert_eq!(member("[1]", "b"), Find::Kind);
        let list = r#"[1, {"b": "x,]"}, -2.5e3 ]"#;
        let parts: Vec<&str> = elements(list).map(|r| &list[r]).collect();
        assert_eq!(parts, ["1", r#"{"b": "x,]"}"#, "-2.5e3"]);
        assert_eq!(element(list, -3), Find::At(1..2));
        assert_eq!(element(list, 3), Find::Missing);
        assert_eq!(element("[]", 0), Find::Missing);
        assert_eq!(
            Unescaped(r"a\n\u00e9\ud83d\ude00\ud83dx").collect::<String>(),
            "a\né😀\u{fffd}x"
        );
    }
}
