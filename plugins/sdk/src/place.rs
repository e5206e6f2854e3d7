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

/// What turns a [`Place`] of one chunk into words: path and line.
///
/// `block` holds the chunk's text and starts at byte `offset` and line `line` of the source; sources without lines leave
/// it empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Locator<'a> {
    pub path: &'a str,
    pub block: &'a [u8],
    pub offset: u64,
    /// Line number (from 1) of the block's first byte; 0 = the source has no lines.
    pub line: u64,
}

impl<'a> Locator<'a> {
    /// The line (from 1) of the record at `place`, if the source has lines.
    pub fn line_of(&self, place: Place) -> Option<u64> {
        if self.line == 0 {
            return None;
        }
        let end = place.offset.checked_sub(self.offset)? as usize;
        let before = self.block.get(..end)?;
        Some(self.line + before.iter().filter(|&&b| b == b'\n').count() as u64)
    }

    /// The text of the record at `place` up to `len` bytes, for reject rows.
    pub fn text_of(&self, place: Place, len: usize) -> &'a [u8] {
        let from = place.offset.saturating_sub(self.offset) as usize;
        let rest = self.block.get(from..).unwrap_or_default();
        &rest[..rest.len().min(len)]
    }
}
