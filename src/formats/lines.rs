//! Text in lines: where it can be cut, and its lines.
//!
//! Laws
//! - A line ends with `\n`; a last line without one is a line if it has a byte. `\r` belongs to the line.
//! - Nothing is allocated.

use memchr::{memchr, memchr_iter, memrchr};

/// What a block of lines holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineScan {
    /// The position after the last newline.
    pub cut: Option<usize>,
    /// How many `\n` bytes there are.
    pub newlines: u64,
    /// Whether all bytes are below 128.
    pub ascii: bool,
}

/// One look at a block, which needs nothing from the block before.
pub fn scan_lines(block: &[u8]) -> LineScan {
    LineScan {
        cut: memrchr(b'\n', block).map(|at| at + 1),
        newlines: count_newlines(block),
        ascii: block.is_ascii(),
    }
}

/// How many `\n` bytes there are.
pub fn count_newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// The lines of `text`, in order.
pub fn lines(text: &[u8]) -> Lines<'_> {
    Lines { text, at: 0 }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'t> {
    /// Where the line begins in the text.
    pub at: usize,
    /// The line without its `\n`.
    pub text: &'t [u8],
}

/// See [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Iterator for Lines<'t> {
    type Item = Line<'t>;

    #[inline]
    fn next(&mut self) -> Option<Line<'t>> {
        let at = self.at;
        let rest = self.text.get(at..).filter(|rest| !rest.is_empty())?;
        let len = memchr(b'\n', rest).unwrap_or(rest.len());
        self.at = at + len + 1;
        Some(Line {
            at,
            text: rest.get(..len).unwrap_or(rest),
        })
    }
}

impl std::iter::FusedIterator for Lines<'_> {}

/// The position of the first byte that is no part of valid UTF-8.
pub fn first_invalid_utf8(bytes: &[u8]) -> Option<usize> {
    // ASCII is skipped in runs short enough to stay near the first other byte, long enough for vectors.
    let runs = bytes.chunks(512);
    let plain = runs.take_while(|run| run.is_ascii()).map(<[u8]>::len).sum();
    let rest = bytes.get(plain..).unwrap_or_default();
    std::str::from_utf8(rest).err().map(|error| plain + error.valid_up_to())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &[u8]) -> Vec<(usize, &[u8])> {
        lines(text).map(|line| (line.at, line.text)).collect()
    }

    #[test]
    fn lines_and_their_places() {
        assert_eq!(split(b""), []);
        assert_eq!(split(b"\n"), [(0, &b""[..])]);
        assert_eq!(split(b"a"), [(0, &b"a"[..])]);
        assert_eq!(split(b"a\r\n\nb"), [(0, &b"a\r"[..]), (3, b""), (4, b"b")]);
        assert_eq!(split(b"a\nb\n"), [(0, &b"a"[..]), (2, b"b")]);
    }

    proptest! {
        #[test]
        fn a_scan_is_what_one_sees(text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>(), Just(b'x')], 0..300)) {
            let newlines = text.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let expected = LineScan {
                cut: text.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1),
                newlines,
                ascii: text.iter().all(|&byte| byte < 128),
            };
            prop_assert_eq!(scan_lines(&text), expected);
            let mut expected: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(lines(&text).map(|line| line.text).collect::<Vec<_>>(), expected);
            prop_assert!(lines(&text).all(|line| text[line.at..].starts_with(line.text)));
        }

        #[test]
        fn invalid_bytes_are_found_where_they_are(before in 0usize..1100, text in ".{0,20}", bad in prop::collection::vec(any::<u8>(), 0..5), after in 0usize..600) {
            let mut bytes = vec![b'a'; before];
            bytes.extend(text.bytes());
            bytes.extend(bad);
            bytes.resize(bytes.len() + after, b'b');
            let expected = std::str::from_utf8(&bytes).err().map(|error| error.valid_up_to());
            prop_assert_eq!(first_invalid_utf8(&bytes), expected);
        }
    }
}
