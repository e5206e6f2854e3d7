//! Where a row came from, independent of chunks, workers and machines.

/// The position of a row in the input: source number, byte offset (or row number), counter of an expansion.
///
/// Places order errors, rejects, stable sorts and everything else that must not depend on how the input was cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Place {
    /// Number of the file (or other source) in the order the script names them.
    pub source: u32,
    /// Byte offset of the record in its source, or its row number where there are no bytes.
    pub offset: u64,
    /// Row number within an expansion (`unnest`), else 0.
    pub sub: u32,
}

/// The longest piece of a record's text that is kept for reject rows, in bytes.
pub const TEXT_BYTES: usize = 4 << 10;

/// What is known of the origin of a row that a stage held back beyond its chunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace<'a> {
    pub place: Place,
    /// The number of the chunk it came in with.
    pub chunk: u64,
    pub path: &'a str,
    /// Line number (from 1) of the record; 0 = the source has no lines.
    pub line: u64,
    /// The first line of the record's text, at most [`TEXT_BYTES`].
    pub text: &'a [u8],
}

/// What turns the [`Place`]s of one chunk into words: path and line.
///
/// `block` holds the chunk's text and starts at byte `offset` and line `line` of the source; sources without lines leave
/// it empty. Rows that were held back have `traces` instead, ascending by place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Locator<'a> {
    pub path: &'a str,
    pub block: &'a [u8],
    pub offset: u64,
    /// Line number (from 1) of the block's first byte; 0 = the source has no lines.
    pub line: u64,
    /// The number of the chunk; of rows that waited ([`crate::Hold`]) the one they came in.
    pub chunk: u64,
    pub traces: &'a [Trace<'a>],
}

impl<'a> Locator<'a> {
    /// Of the record at `place`; of the one that a row was made of by an expansion.
    fn trace(&self, place: Place) -> Option<&'a Trace<'a>> {
        let behind = self.traces.partition_point(|trace| trace.place <= place);
        let trace = self.traces.get(behind.checked_sub(1)?)?;
        ((trace.place.source, trace.place.offset) == (place.source, place.offset)).then_some(trace)
    }

    /// The path of the file of the record at `place`; empty if it came from none.
    pub fn path_of(&self, place: Place) -> &'a str {
        self.trace(place).map_or(self.path, |trace| trace.path)
    }

    /// The number of the chunk that the record at `place` came in with.
    pub fn chunk_of(&self, place: Place) -> u64 {
        self.trace(place).map_or(self.chunk, |trace| trace.chunk)
    }

    /// Whether the record at `place` came from a text: then its offset counts bytes, else rows.
    pub fn has_lines(&self, place: Place) -> bool {
        self.trace(place).map_or(self.line, |trace| trace.line) > 0
    }

    /// The line (from 1) of the record at `place`, if the source has lines.
    pub fn line_of(&self, place: Place) -> Option<u64> {
        if let Some(trace) = self.trace(place) {
            return Some(trace.line).filter(|&line| line > 0);
        }
        if self.line == 0 {
            return None;
        }
        let end = usize::try_from(place.offset.checked_sub(self.offset)?).ok()?;
        Some(self.line + newlines(self.block.get(..end)?))
    }

    /// The first line of the text of the record at `place`, at most [`TEXT_BYTES`], for reject rows; empty if it is not here.
    pub fn text_of(&self, place: Place) -> &'a [u8] {
        if let Some(trace) = self.trace(place) {
            return trace.text;
        }
        let from = usize::try_from(place.offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let rest = self.block.get(from..).unwrap_or_default();
        let rest = &rest[..rest.len().min(TEXT_BYTES)];
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// The traces of rows at `places`, which ascend, into `traces`, whose length is theirs. Texts only if they are asked for.
    pub fn trace_all(&self, places: &[Place], texts: bool, traces: &mut [Trace<'a>]) {
        // Lines are counted on from the row before: a chunk is looked through once.
        let (mut at, mut line) = (0, self.line);
        for (trace, &place) in traces.iter_mut().zip(places) {
            if let Some(known) = self.trace(place) {
                *trace = Trace { place, ..*known };
                continue;
            }
            let end = usize::try_from(place.offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            if end < at {
                (at, line) = (0, self.line);
            }
            if self.line > 0
                && let Some(between) = self.block.get(at..end)
            {
                (at, line) = (end, line + newlines(between));
            }
            *trace = Trace {
                place,
                chunk: self.chunk,
                path: self.path,
                line,
                text: if texts { self.text_of(place) } else { &[] },
            };
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_back_is_found_as_it_was_in_its_chunk() {
        let block = b"a\n\"b\nb\"\r\ncc\n";
        let chunk = Locator {
            path: "f",
            block,
            offset: 100,
            line: 7,
            chunk: 3,
            traces: &[],
        };
        let places = [100, 102, 109].map(|offset| Place {
            offset,
            ..Place::default()
        });
        let mut traces = [Trace::default(); 3];
        chunk.trace_all(&places, true, &mut traces);
        let later = Locator {
            traces: &traces,
            ..Locator::default()
        };
        for (place, line) in places.into_iter().zip([7, 8, 10]) {
            // What an expansion makes of the row too.
            for place in [place, Place { sub: 5, ..place }] {
                assert_eq!(chunk.line_of(place), Some(line));
                assert_eq!(later.line_of(place), Some(line));
                assert_eq!((later.path_of(place), later.chunk_of(place)), ("f", 3));
                assert_eq!(later.text_of(place), chunk.text_of(place));
                assert!(later.has_lines(place));
            }
        }
        assert_eq!(later.text_of(places[1]), b"\"b");
        // And once more.
        let mut again = [Trace::default(); 3];
        later.trace_all(&places, true, &mut again);
        assert_eq!(format!("{again:?}"), format!("{traces:?}"));
        // Rows without lines, and rows that nobody traced.
        let elsewhere = Place {
            offset: 101,
            ..Place::default()
        };
        assert_eq!(later.line_of(elsewhere), None);
        assert!(!later.has_lines(elsewhere) && later.text_of(elsewhere).is_empty());
    }
}
