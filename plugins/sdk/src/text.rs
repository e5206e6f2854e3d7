//! Text columns: Arrow's 16-byte string views.
//!
//! Laws
//! - A view of at most 12 bytes holds them itself, padded with zeros; a longer one holds its length, its first 4 bytes, a buffer
//!   number and an offset. So two short views are equal iff their 16 bytes are.
//! - Views of a `String` or `Json` column name valid UTF-8 within their buffer: [`Text::new`] is unsafe for that reason.
#![allow(unsafe_code)]

use crate::arena::{Arena, bytes_of};
use crate::error::Result;

/// The longest text a view holds itself.
pub const INLINE: usize = 12;

/// Bytes 0..4 length, then 12 bytes of text or (4 bytes prefix, buffer number, offset); all little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct View(u128);

impl View {
    /// The view of the empty text.
    pub const EMPTY: View = View(0);

    /// A view of `block[start..start + len]`, where `block` is buffer number `buffer`. Panics if that is outside.
    #[inline]
    pub fn new(block: &[u8], start: usize, len: usize, buffer: u32) -> View {
        if len <= INLINE {
            if let Some(chunk) = block.get(start..start + INLINE).and_then(|c| c.first_chunk::<INLINE>()) {
                let [a, b, c, d, e, f, g, h, rest @ ..] = *chunk;
                let text = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
                    | u128::from(u32::from_le_bytes(rest)) << 64;
                return View((text & mask(len)) << 32 | len as u128);
            }
            return View::short(&block[start..start + len]);
        }
        let text = &block[start..start + len];
        let prefix = u32::from_le_bytes([text[0], text[1], text[2], text[3]]);
        View::long(len as u32, prefix, buffer, start as u32)
    }

    #[inline]
    fn short(text: &[u8]) -> View {
        let mut bytes = [0u8; 16];
        bytes[0] = text.len() as u8;
        bytes[4..4 + text.len()].copy_from_slice(text);
        View(u128::from_le_bytes(bytes))
    }

    /// A view of a text that fits into it, if it does.
    pub fn inline(text: &[u8]) -> Option<View> {
        (text.len() <= INLINE).then(|| View::short(text))
    }

    #[inline]
    fn long(len: u32, prefix: u32, buffer: u32, offset: u32) -> View {
        View(u128::from(len) | u128::from(prefix) << 32 | u128::from(buffer) << 64 | u128::from(offset) << 96)
    }

    /// Length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn is_inline(self) -> bool {
        self.len() <= INLINE
    }

    /// The 16 bytes as a number: two inline views are equal iff these are.
    #[inline]
    pub fn bits(self) -> u128 {
        self.0
    }

    /// The first 4 bytes (zero-padded), as a big-endian number: orders like the text.
    #[inline]
    pub fn prefix(self) -> u32 {
        ((self.0 >> 32) as u32).swap_bytes()
    }

    fn buffer(self) -> u32 {
        (self.0 >> 64) as u32
    }

    fn offset(self) -> usize {
        (self.0 >> 96) as u32 as usize
    }

    /// The same text, its buffers moved up by `by` in the list of buffers.
    #[inline]
    #[must_use]
    pub fn rebased(self, by: u32) -> View {
        if self.is_inline() {
            self
        } else {
            View(self.0 + (u128::from(by) << 64))
        }
    }

    /// Bytes `from..from + len` of this text; shares the buffer. `bytes` is the text itself.
    #[inline]
    #[must_use]
    pub fn part(self, bytes: &[u8], from: usize, len: usize) -> View {
        let text = &bytes[from..from + len];
        if len <= INLINE {
            return if self.is_inline() {
                View((self.0 >> 32 >> (8 * from) & mask(len)) << 32 | len as u128)
            } else {
                View::new(bytes, from, len, 0)
            };
        }
        let prefix = u32::from_le_bytes([text[0], text[1], text[2], text[3]]);
        View::long(len as u32, prefix, self.buffer(), (self.offset() + from) as u32)
    }
}

/// For each length of an inline text the bits of its bytes.
const MASKS: [u128; INLINE + 1] = {
    let mut masks = [0; INLINE + 1];
    let mut len = 0;
    while len <= INLINE {
        masks[len] = (1u128 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

#[inline(always)]
fn mask(len: usize) -> u128 {
    MASKS[len]
}

/// The views of a text column and the buffers they look into.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    views: &'a [View],
    buffers: &'a [&'a [u8]],
}

impl<'a> Text<'a> {
    /// A text column. Every view must have been made for these buffers.
    ///
    /// # Safety
    /// Each view's bytes are inside its buffer, and are valid UTF-8 if the column is `String` or `Json`.
    pub unsafe fn new(views: &'a [View], buffers: &'a [&'a [u8]]) -> Self {
        Text { views, buffers }
    }

    /// Texts that are only ever read as bytes. Every view must have been made for these buffers.
    pub(crate) fn verbatim(views: &'a [View], buffers: &'a [&'a [u8]]) -> Self {
        Text { views, buffers }
    }

    /// A column of short texts that are all inline. Panics if a view is not.
    pub fn inline(views: &'a [View]) -> Self {
        assert!(views.iter().all(|v| v.is_inline()), "every view must be inline");
        Text { views, buffers: &[] }
    }

    /// The texts of lengths `lens` that stand one behind the other in `block`, sharing it. `None` if they do not fill it exactly, or
    /// (with `utf8`) are not UTF-8.
    pub fn split(block: &'a [u8], lens: &[u32], utf8: bool, arena: &'a Arena) -> Result<Option<Self>> {
        let sum: u64 = lens.iter().map(|&len| u64::from(len)).sum();
        if sum != block.len() as u64 || u32::try_from(sum).is_err() {
            return Ok(None);
        }
        let text = if utf8 {
            std::str::from_utf8(block).ok()
        } else {
            Some("")
        };
        let Some(text) = text else { return Ok(None) };
        let (mut at, mut whole) = (0, true);
        let views = arena.map(lens, |len| {
            let view = View::new(block, at, len as usize, 0);
            whole &= !utf8 || text.is_char_boundary(at);
            at += len as usize;
            view
        })?;
        if !whole {
            return Ok(None);
        }
        let buffers = arena.fill(1, block)?;
        // Every view was made for `block`; if `utf8`, that is UTF-8 and each view starts, and so ends, between two characters.
        Ok(Some(Text { views, buffers }))
    }

    /// `rows` times the same text.
    pub fn repeat(text: &'a str, rows: usize, arena: &'a Arena) -> Result<Self> {
        let views = arena.fill(rows, View::new(text.as_bytes(), 0, text.len(), 0))?;
        Ok(Text {
            views,
            buffers: arena.fill(1, text.as_bytes())?,
        })
    }

    pub fn views(&self) -> &'a [View] {
        self.views
    }

    pub fn buffers(&self) -> &'a [&'a [u8]] {
        self.buffers
    }

    pub fn len(&self) -> usize {
        self.views.len()
    }

    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// The bytes of row `row`.
    #[inline]
    pub fn bytes(&self, row: usize) -> &'a [u8] {
        let view = &self.views[row];
        let len = view.len();
        if len <= INLINE {
            // SAFETY: View is 16 plain bytes; 4 + len <= 16; the bytes live as long as the views.
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(view).cast::<u8>().add(4), len) }
        } else {
            let buffer = self.buffers[view.buffer() as usize];
            &buffer[view.offset()..view.offset() + len]
        }
    }

    /// The text of row `row`.
    #[inline]
    pub fn str(&self, row: usize) -> &'a str {
        // SAFETY: `new` promised UTF-8 for text columns; only those are read as `str`.
        unsafe { std::str::from_utf8_unchecked(self.bytes(row)) }
    }

    /// Rows `from..from + len`.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        Text {
            views: &self.views[from..from + len],
            buffers: self.buffers,
        }
    }

    /// The rows named by `indices`; the text is shared, the views are copied.
    pub fn gather(&self, indices: &[u32], arena: &'a Arena) -> Result<Self> {
        let views = arena.collect(indices.len(), |i| self.views[indices[i] as usize])?;
        Ok(Text {
            views,
            buffers: self.buffers,
        })
    }

    /// Part `f(row, text)` of every row, sharing the memory. Ranges are cut at the end of the text and moved outwards to
    /// character boundaries.
    ///
    /// For text columns (`String`, `Json`) only.
    pub fn cut(&self, arena: &'a Arena, mut f: impl FnMut(usize, &'a str) -> std::ops::Range<usize>) -> Result<Self> {
        let views = arena.collect(self.views.len(), |row| {
            let text = self.str(row);
            let range = f(row, text);
            let start = text.floor_char_boundary(range.start.min(text.len()));
            let end = text.ceil_char_boundary(range.end.clamp(start, text.len()));
            if end - start == text.len() {
                return self.views[row];
            }
            self.views[row].part(text.as_bytes(), start, end - start)
        })?;
        Ok(Text {
            views,
            buffers: self.buffers,
        })
    }

    /// Every byte through `f`, 8 at a time, if every row is at most 12 ASCII bytes. `f` must treat each byte by itself and
    /// give ASCII.
    ///
    /// Both loops are over plain 64-bit words without a branch, so that they become vector instructions.
    pub fn map_short_ascii(&self, arena: &'a Arena, f: impl Fn(u64) -> u64 + Copy) -> Result<Option<Self>> {
        // Adding this to a length above 12 gives bit 31.
        const BEYOND: u32 = (1 << 31) - 1 - INLINE as u32;
        const LENGTH: u64 = u32::MAX as u64;
        const ASCII: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let (mut low, mut high) = (0u64, 0u64);
        for view in self.views {
            let first = view.0 as u64;
            low |= first | u64::from((first as u32).wrapping_add(BEYOND));
            high |= (view.0 >> 64) as u64;
        }
        if low & (!ASCII & !LENGTH | 1 << 31) | high & !ASCII != 0 {
            return Ok(None);
        }
        // The padding stays zero unless `f` makes something of it.
        let pads = f(0) != 0;
        let views = arena.map(self.views, |view| {
            let (low, high) = (view.0 as u64, (view.0 >> 64) as u64);
            let low = f(low) & ASCII & !LENGTH | low & LENGTH;
            let mut bits = u128::from(f(high) & ASCII) << 64 | u128::from(low);
            if pads {
                bits &= mask(view.len()) << 32 | u128::from(LENGTH);
            }
            View(bits)
        })?;
        Ok(Some(Text { views, buffers: &[] }))
    }

    /// The same buffers under other views, each of which was made by [`View::part`] or is one of ours.
    ///
    /// # Safety
    /// Each view is inline (and UTF-8), or one of this column's, or a [`View::part`] of one cut at character boundaries.
    pub unsafe fn with_views(&self, views: &'a [View]) -> Self {
        Text {
            views,
            buffers: self.buffers,
        }
    }

    /// `rows` rows, each out of one of two columns: `from` says whether out of `b`, and which row. The text is shared.
    pub fn merge(
        a: &Text<'a>,
        b: &Text<'a>,
        arena: &'a Arena,
        rows: usize,
        mut from: impl FnMut(usize) -> (bool, usize),
    ) -> Result<Self> {
        let (buffers, shift) = a.joined_buffers(b, arena)?;
        let views = arena.collect(rows, |row| match from(row) {
            (false, at) => a.views[at],
            (true, at) => b.views[at].rebased(shift),
        })?;
        Ok(Text { views, buffers })
    }

    /// Both columns' buffers in one list, and by how much the second one's views must be [`View::rebased`].
    pub fn joined_buffers(&self, other: &Text<'a>, arena: &'a Arena) -> Result<(&'a [&'a [u8]], u32)> {
        if self.buffers.is_empty() {
            return Ok((other.buffers, 0));
        }
        if other.buffers.is_empty()
            || (self.buffers.len() == other.buffers.len() && std::ptr::eq(self.buffers, other.buffers))
        {
            return Ok((self.buffers, 0));
        }
        let first = self.buffers.len();
        let all = arena.collect(first + other.buffers.len(), |i| {
            if i < first {
                self.buffers[i]
            } else {
                other.buffers[i - first]
            }
        })?;
        Ok((all, first as u32))
    }

    /// Bytes that [`Text::copy_to`] takes of an arena. The two move together.
    pub fn copy_bytes(&self) -> usize {
        let long: usize = self.views.iter().map(|v| v.len()).filter(|&n| n > INLINE).sum();
        let buffers = if long == 0 {
            0
        } else {
            bytes_of::<u8>(long) + bytes_of::<&[u8]>(1)
        };
        bytes_of::<View>(self.views.len()) + buffers
    }

    /// A copy whose text lives in `arena`, only the bytes that are used.
    pub fn copy_to<'b>(&self, arena: &'b Arena) -> Result<Text<'b>> {
        let inline = |row: usize| Some(self.views[row]).filter(|view| view.is_inline());
        Text::copy_of(self.views.len(), arena, inline, |row| self.bytes(row))
    }

    /// A copy of `rows` texts: `inline(row)` is the view of a short one, `bytes(row)` any one.
    pub(crate) fn copy_of<'t>(
        rows: usize,
        arena: &'a Arena,
        inline: impl Fn(usize) -> Option<View>,
        bytes: impl Fn(usize) -> &'t [u8],
    ) -> Result<Text<'a>> {
        let long = |row| {
            if inline(row).is_some() { 0 } else { bytes(row).len() }
        };
        let long: usize = (0..rows).map(long).sum();
        let mut buffer = arena.uninit::<u8>(long)?;
        let mut at = 0;
        let views = arena.collect(rows, |row| {
            if let Some(view) = inline(row) {
                return view;
            }
            let text = bytes(row);
            for (to, &byte) in buffer[at..at + text.len()].iter_mut().zip(text) {
                to.write(byte);
            }
            let prefix = u32::from_le_bytes([text[0], text[1], text[2], text[3]]);
            let view = View::long(text.len() as u32, prefix, 0, at as u32);
            at += text.len();
            view
        })?;
        let buffers: &[&[u8]] = if long == 0 {
            &[]
        } else {
            let buffer: &'a [u8] = buffer.finish(at);
            arena.fill(1, buffer)?
        };
        Ok(Text { views, buffers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_hold_short_text_and_point_at_long_text() {
        let block = b"abc,0123456789abc,0123456789ab,x";
        let views = [
            View::new(block, 0, 3, 0),
            View::new(block, 4, 13, 0),
            View::new(block, 18, 12, 0),
            View::new(block, 31, 1, 0),
            View::new(block, 31, 0, 0),
        ];
        let buffers: [&[u8]; 1] = [block];
        // SAFETY: the views were made for this buffer, which is ASCII.
        let text = unsafe { Text::new(&views, &buffers) };
        let rows: Vec<&str> = (0..text.len()).map(|r| text.str(r)).collect();
        assert_eq!(rows, ["abc", "0123456789abc", "0123456789ab", "x", ""]);
        assert_eq!(views[0], View::inline(b"abc").unwrap());
        assert_eq!(views[4], View::EMPTY);
        let arena = Arena::new(4096);
        let copy = text.copy_to(&arena).unwrap();
        assert!((0..5).all(|r| copy.str(r) == text.str(r)));
    }

    #[test]
    fn parts_of_a_text_are_views_of_it() {
        let arena = Arena::new(1 << 20);
        let block: &[u8] = b"abc,0123456789abcdefghij,0123456789ab";
        for (start, end) in [(0, 3), (4, 24), (25, 37)] {
            let view = View::new(block, start, end - start, 0);
            let (views, buffers) = (arena.copy(&[view]).unwrap(), arena.copy(&[block]).unwrap());
            // SAFETY: the view was made for this buffer, which is ASCII.
            let text = unsafe { Text::new(views, buffers) };
            let whole = text.str(0);
            for from in 0..=whole.len() {
                for to in from..=whole.len() {
                    let cut = text.cut(&arena, |_, _| from..to).unwrap();
                    assert_eq!(cut.str(0), &whole[from..to]);
                    if to - from <= INLINE {
                        assert_eq!(cut.views()[0], View::inline(&block[start + from..start + to]).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_is_split_only_if_all_of_it_fits() {
        let arena = Arena::new(1 << 16);
        let block = "abcé and a rather long text".as_bytes();
        let split = |lens: &[u32], utf8| Text::split(block, lens, utf8, &arena).unwrap();
        let text = split(&[3, 0, 2, 23], true).unwrap();
        let rows: Vec<&str> = (0..4).map(|row| text.str(row)).collect();
        assert_eq!(rows, ["abc", "", "é", " and a rather long text"]);
        assert_eq!(split(&[4, 24], false).unwrap().bytes(0), &block[..4]);
        for (lens, utf8) in [(&[4, 24][..], true), (&[28, 1], false), (&[27], false), (&[], false)] {
            assert!(split(lens, utf8).is_none(), "{lens:?}");
        }
        assert!(Text::split(b"\xff", &[1], true, &arena).unwrap().is_none());
    }

    #[test]
    fn short_ascii_is_mapped_byte_by_byte_or_not_at_all() {
        let arena = Arena::new(1 << 16);
        let views = ["", "a", "zebra", "twelve bytes"].map(|t| View::inline(t.as_bytes()).unwrap());
        let next = |word: u64| word.wrapping_add(0x0101_0101_0101_0101);
        let mapped = Text::inline(&views).map_short_ascii(&arena, next).unwrap().unwrap();
        let rows: Vec<&str> = (0..4).map(|row| mapped.str(row)).collect();
        assert_eq!(rows, ["", "b", "{fcsb", "uxfmwf!czuft"]);
        assert_eq!(mapped.views()[1], View::inline(b"b").unwrap());
        for other in ["é", "twelve byte\u{7f}", "elevenbyteé"] {
            let views = [View::EMPTY, View::inline(other.as_bytes()).unwrap()];
            let found = Text::inline(&views).map_short_ascii(&arena, |word| word).unwrap();
            assert_eq!(found.is_some(), other.is_ascii(), "{other}");
        }
        let block: &[u8] = b"thirteen byte";
        let (views, buffers) = ([View::new(block, 0, 13, 0)], [block]);
        // SAFETY: the view was made for this buffer, which is ASCII.
        let long = unsafe { Text::new(&views, &buffers) };
        assert!(long.map_short_ascii(&arena, |word| word).unwrap().is_none());
    }
}
