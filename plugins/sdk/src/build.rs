//! Builders: text that is made row by row, in fixed segments.
//!
//! Laws
//! - Nothing grows in place: text goes into segments of up to 64 KiB (larger only for one larger text), addressed by the views'
//!   buffer numbers.
#![allow(unsafe_code)]

use crate::arena::{Arena, Uninit};
use crate::error::Result;
use crate::text::{INLINE, Text, View};
use std::fmt;
use std::mem::MaybeUninit;

/// The usual size of a segment of text, in bytes.
pub const SEGMENT: usize = 64 << 10;

/// Builds a text column of a known number of rows.
pub struct TextBuilder<'a> {
    arena: &'a Arena,
    views: Uninit<'a, View>,
    rows: usize,
    /// Finished segments and, last, the current one's bytes so far.
    buffers: &'a mut [&'a [u8]],
    count: usize,
    segment: &'a mut [MaybeUninit<u8>],
    at: usize,
    hint: usize,
}

impl<'a> TextBuilder<'a> {
    /// For at most `rows` rows of about `bytes` bytes in all (a hint for the first segment).
    pub fn new(arena: &'a Arena, rows: usize, bytes: usize) -> Result<Self> {
        Ok(TextBuilder {
            arena,
            views: arena.uninit(rows)?,
            rows: 0,
            buffers: &mut [],
            count: 0,
            segment: &mut [],
            at: 0,
            hint: bytes.clamp(1024, SEGMENT),
        })
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a view of a text that is elsewhere: only inline views, as the buffers here are the builder's own.
    #[inline]
    fn put(&mut self, view: View) {
        self.views[self.rows].write(view);
        self.rows += 1;
    }

    /// Adds a row. Panics behind the number of rows given to `new`.
    #[inline]
    pub fn push(&mut self, text: &str) -> Result<()> {
        self.push_bytes(text.as_bytes())
    }

    /// Adds an empty row, as under a null.
    #[inline]
    pub fn push_empty(&mut self) {
        self.put(View::EMPTY);
    }

    /// Adds a row of bytes: UTF-8 if the column is to be text.
    pub fn push_bytes(&mut self, text: &[u8]) -> Result<()> {
        if let Some(view) = View::inline(text) {
            self.put(view);
            return Ok(());
        }
        let slot = self.reserve(text.len())?;
        for (to, &byte) in slot.iter_mut().zip(text) {
            to.write(byte);
        }
        self.commit(text.len());
        Ok(())
    }

    /// Adds a row of at most `max` bytes that `write` puts into the slice it gets; it answers how many it wrote.
    ///
    /// The slice is zeroed only where it must be; `write` must leave UTF-8 if the column is to be text.
    pub fn push_with(&mut self, max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<()> {
        if max <= INLINE {
            let mut short = [0u8; INLINE];
            let len = write(&mut short[..max]).min(max);
            self.put(View::inline(&short[..len]).unwrap_or(View::EMPTY));
            return Ok(());
        }
        let slot = self.reserve(max)?;
        for byte in slot.iter_mut() {
            byte.write(0);
        }
        // SAFETY: every byte of the slot has just been written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(slot.as_mut_ptr().cast::<u8>(), slot.len()) };
        let len = write(bytes).min(max);
        if let Some(view) = View::inline(&bytes[..len]) {
            self.put(view);
        } else {
            self.commit(len);
        }
        Ok(())
    }

    /// Adds a row that is `format!`ted.
    pub fn push_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        if let Some(text) = text.as_str() {
            return self.push(text);
        }
        // Measure, then write: nothing grows in place.
        let mut length = Length(0);
        let _ = fmt::write(&mut length, text);
        let mut written = None;
        self.push_with(length.0, |slot| {
            let mut fill = Fill { slot, at: 0 };
            let _ = fmt::write(&mut fill, text);
            written = Some(fill.at);
            fill.at
        })
    }

    fn reserve(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]> {
        if self.segment.len() - self.at < len {
            self.close_segment()?;
            let mut room = self.arena.uninit::<u8>(len.max(self.hint))?;
            self.hint = SEGMENT;
            // SAFETY: the slots live as long as the arena's borrow `'a`, which `room` was made with; `room` is not used again.
            self.segment = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr(), room.len()) };
            self.at = 0;
        }
        Ok(&mut self.segment[self.at..self.at + len])
    }

    /// The `len` bytes just written at the current position become a row's text.
    fn commit(&mut self, len: usize) {
        // SAFETY: `at..at + len` of the segment has just been written.
        let text = unsafe { std::slice::from_raw_parts(self.segment.as_ptr().cast::<u8>(), self.at + len) };
        let view = View::new(text, self.at, len, self.count as u32);
        self.at += len;
        self.put(view);
    }

    fn close_segment(&mut self) -> Result<()> {
        if self.at == 0 {
            return Ok(());
        }
        if self.count == self.buffers.len() {
            let more = self.arena.fill::<&'a [u8]>((self.count * 2).max(4), &[])?;
            more[..self.count].copy_from_slice(self.buffers);
            self.buffers = more;
        }
        // SAFETY: the first `at` bytes of the segment have been written, and it lives for `'a`.
        self.buffers[self.count] = unsafe { std::slice::from_raw_parts(self.segment.as_ptr().cast::<u8>(), self.at) };
        self.count += 1;
        self.segment = &mut [];
        self.at = 0;
        Ok(())
    }

    /// The column of the rows pushed. They must be UTF-8 if it becomes a `String` or `Json` column.
    ///
    /// # Errors
    /// Memory, for the list of buffers.
    pub fn finish(mut self) -> Result<Text<'a>> {
        self.close_segment()?;
        let views = self.views.finish(self.rows);
        // SAFETY: every long view was made by `commit` for the segment that became buffer `count`.
        Ok(unsafe { Text::new(views, &self.buffers[..self.count]) })
    }
}

struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 += s.len();
        Ok(())
    }
}

struct Fill<'a> {
    slot: &'a mut [u8],
    at: usize,
}

impl fmt::Write for Fill<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let slot = self.slot.get_mut(self.at..self.at + s.len()).ok_or(fmt::Error)?;
        slot.copy_from_slice(s.as_bytes());
        self.at += s.len();
        Ok(())
    }
}

/// Copies formatted text into the arena.
pub fn format_in<'a>(arena: &'a Arena, text: fmt::Arguments<'_>) -> Result<&'a str> {
    if let Some(text) = text.as_str() {
        return arena.copy_str(text);
    }
    let mut length = Length(0);
    let _ = fmt::write(&mut length, text);
    let slot = arena.fill(length.0, 0u8)?;
    let mut fill = Fill { slot, at: 0 };
    let _ = fmt::write(&mut fill, text);
    let Fill { slot, at } = fill;
    Ok(std::str::from_utf8(&slot[..at]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_length_come_back() {
        let arena = Arena::new(1 << 20);
        let texts: Vec<String> = (0..300)
            .map(|i| "xyz".repeat(i * i % 97))
            .chain(["y".repeat(100_000)])
            .collect();
        let mut builder = TextBuilder::new(&arena, texts.len() + 2, 10).unwrap();
        for text in &texts {
            builder.push(text).unwrap();
        }
        builder.push_fmt(format_args!("{}-{}", 1, "z".repeat(20))).unwrap();
        builder.push_empty();
        let column = builder.finish().unwrap();
        for (row, text) in texts.iter().enumerate() {
            assert_eq!(column.str(row), text);
        }
        assert_eq!(column.str(texts.len()), format!("1-{}", "z".repeat(20)));
        assert_eq!(column.str(texts.len() + 1), "");
    }
}
