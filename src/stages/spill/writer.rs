//! A lane's way to disk: rows that are sorted become frames, and frames a segment.
//!
//! Laws
//! - What writing takes is set aside when the writer is made; for a row that is longer than a frame, before it is taken.
//! - A refusal writes nothing: the same rows may come again, or fewer of them.

use super::file::{Address, packed_bytes};
use super::floors::{FRAMES_SET_ASIDE, PACKER_BYTES, PAGES_SET_ASIDE, buffers_bytes};
use super::frame;
use super::index::{FrameAt, Pages};
use super::keys::{encode_keys, keys_bound};
use super::segment::Segment;
use super::store::Store;
use crate::stages::groups::{grow, grow_to};
use crate::stages::keys::KeyBlock;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Batch, Reservation};
use std::sync::Arc;

/// What reading a page of frames takes for each: packed, unpacked, and the list.
const PAGE_OF_FRAME: usize = 3 * FrameAt::BYTES;

/// Writes one segment after the other.
pub struct SegmentWriter {
    store: Arc<Store>,
    contents: Vec<u8>,
    packed: Vec<u8>,
    /// For the two buffers.
    room: Reservation,
    frames: Vec<FrameAt>,
    index: Reservation,
    /// Of a short writer.
    pages: Option<Box<Pages>>,
    rows: u64,
    largest: usize,
}

impl SegmentWriter {
    /// With room in its list for so many frames.
    pub(super) fn new(store: &Arc<Store>, list: usize) -> Result<SegmentWriter> {
        let mut room = store.budget.reserve();
        let mut index = store.budget.reserve();
        let mut frames = vec![];
        grow_to(&mut frames, list, &mut index)?;
        room.set_aside(buffers_bytes(2 * store.frame_bytes))?;
        room.grow(PACKER_BYTES)?;
        Ok(SegmentWriter {
            store: store.clone(),
            contents: vec![],
            packed: vec![],
            room,
            frames,
            index,
            pages: None,
            rows: 0,
            largest: 0,
        })
    }

    /// The same whose list goes to disk, page by page.
    pub(super) fn short(store: &Arc<Store>) -> Result<SegmentWriter> {
        let mut writer = SegmentWriter::new(store, FRAMES_SET_ASIDE)?;
        let mut pages = Pages::new(&store.budget);
        pages.room.set_aside(PAGES_SET_ASIDE)?;
        writer.pages = Some(Box::new(pages));
        Ok(writer)
    }

    /// Makes sure that any single row of `batch` can be written later on. To be asked before the batch is taken.
    ///
    /// # Errors
    /// `Memory` if there is no room for it.
    pub fn make_room(&mut self, batch: &Batch<'_>, keys: &KeyBlock<'_>) -> Result<()> {
        let mut nothing = self.store.budget.reserve();
        self.make_room_from(batch, keys, &mut nothing)
    }

    /// The same, with memory that `from` has: no other lane can take it in between.
    ///
    /// # Errors
    /// `Memory` if that is not enough and the budget has no more.
    pub fn make_room_from(&mut self, batch: &Batch<'_>, keys: &KeyBlock<'_>, from: &mut Reservation) -> Result<()> {
        let rows = batch.rows();
        if frame::bound(batch, 0, rows) <= 2 * self.store.frame_bytes {
            return Ok(());
        }
        let longest_key = (0..rows).map(|row| keys.get(row).len()).max().unwrap_or(0);
        self.room_for_widest(batch, longest_key, from).map(|_| ())
    }

    /// The same for keys of which the longest has `longest_key` bytes; about what the widest row takes, if it is a wide one.
    ///
    /// # Errors
    /// `Memory` if there is no room for it.
    pub fn make_room_for(&mut self, batch: &Batch<'_>, longest_key: usize) -> Result<usize> {
        let frames = 2 * self.store.frame_bytes;
        if longest_key < frames / 2 && frame::bound(batch, 0, batch.rows()) <= frames {
            return Ok(0);
        }
        let mut nothing = self.store.budget.reserve();
        self.room_for_widest(batch, longest_key, &mut nothing)
    }

    fn room_for_widest(&mut self, batch: &Batch<'_>, longest_key: usize, from: &mut Reservation) -> Result<usize> {
        let widest = (0..batch.rows())
            .map(|row| frame::bound(batch, row, 1))
            .max()
            .unwrap_or(0);
        let contents = widest.max(keys_bound(longest_key, 1));
        if contents > 2 * self.store.frame_bytes {
            self.room.set_aside_from(buffers_bytes(contents), from)?;
        }
        Ok(contents)
    }

    /// Gives back what a row took that was longer than usual, which is written.
    pub fn slim(&mut self) {
        let usual = buffers_bytes(2 * self.store.frame_bytes);
        (self.contents, self.packed) = (vec![], vec![]);
        // Never free in between.
        if let Ok(mut room) = self.room.split_aside(usual)
            && room.set_aside(usual).is_ok()
        {
            room.shrink(usual - PACKER_BYTES);
            self.room = room;
        }
    }

    /// Makes room for frames that take `bytes` of memory once they are loaded.
    pub(super) fn make_room_of(&mut self, bytes: usize) -> Result<()> {
        self.room.set_aside(buffers_bytes(bytes))
    }

    /// Makes room in the list of frames for so many of the segment that is begun.
    ///
    /// # Errors
    /// `Memory` if there is none.
    pub(super) fn expect(&mut self, frames: usize) -> Result<()> {
        if frames <= self.frames.capacity() {
            return Ok(());
        }
        grow_to(&mut self.frames, frames, &mut self.index)
    }

    /// Frames that the segment can still get before its list of them grows.
    pub fn frames_left(&self) -> usize {
        self.frames.capacity() - self.frames.len()
    }

    /// Frames of the segment so far.
    pub fn frames(&self) -> usize {
        self.pages.as_ref().map_or(0, |pages| pages.frames) + self.frames.len()
    }

    /// Whether its list of frames has no more room that was set aside: then this segment should end.
    pub fn is_full(&self) -> bool {
        const FRAMES_OF_A_BATCH: usize = 4;
        self.frames_left() < FRAMES_OF_A_BATCH
    }

    /// Whether nothing was appended since the last segment.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Appends rows: keys ascend from row to row and from call to call, equal ones by (chunk, row).
    ///
    /// # Errors
    /// `Memory` for a row that [`SegmentWriter::make_room`] was not asked about, or if the list of frames cannot grow: nothing was
    /// written then. `Failed` if the disk is full or fails.
    pub fn append(&mut self, batch: &Batch<'_>, keys: &KeyBlock<'_>, chunks: &[u64], rows: &[u32]) -> Result<()> {
        let lens: Vec<_> = self.lens(batch, keys).collect();
        if self.frames_left() < lens.len() {
            self.page()?;
            grow(&mut self.frames, lens.len(), &mut self.index)?;
        }
        for (from, len, bytes) in lens {
            self.frame(batch, keys, chunks, rows, from, len, bytes)?;
        }
        Ok(())
    }

    /// The same of one row that is longer than usual, for which there is no room but once: it is not packed. What it takes is given back.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub fn append_long(&mut self, row: &Batch<'_>, keys: &KeyBlock<'_>, order: (u64, u32)) -> Result<()> {
        self.slim();
        let appended = self.long_frame(row, keys, order);
        self.slim();
        appended
    }

    fn long_frame(&mut self, row: &Batch<'_>, keys: &KeyBlock<'_>, order: (u64, u32)) -> Result<()> {
        let key_bytes = keys.get(0).len();
        let bytes = frame::bound(row, 0, 1).max(keys_bound(key_bytes, 1));
        grow(&mut self.frames, 1, &mut self.index)?;
        grow_to(&mut self.contents, bytes, &mut self.room)?;
        encode_keys(keys, &[order.0], &[order.1], 0, 1, &mut self.contents);
        let key_block = self.store.file.write_unpacked(&self.contents)?;
        self.contents.clear();
        frame::encode(row, 0, 1, &mut self.contents);
        let row_block = self.store.file.write_unpacked(&self.contents)?;
        self.push(key_block, row_block, frame::unpacked_bytes(row, 0, 1), 1);
        Ok(())
    }

    /// The list of frames goes to disk, if that is how this writer works.
    fn page(&mut self) -> Result<()> {
        let SegmentWriter {
            store,
            contents,
            packed,
            room,
            frames,
            pages: Some(pages),
            ..
        } = self
        else {
            return Ok(());
        };
        if frames.is_empty() {
            return Ok(());
        }
        pages.room.room(&mut pages.lists, 1)?;
        let bytes = frames.len() * FrameAt::BYTES;
        contents.clear();
        packed.clear();
        let usual = 2 * store.frame_bytes;
        grow_to_fit(contents, bytes.max(usual), room)?;
        grow_to_fit(packed, packed_bytes(bytes.max(usual)), room)?;
        packed.resize(packed_bytes(bytes), 0);
        frames.iter().for_each(|frame| frame.encode(contents));
        let at = store.file.write(contents, packed)?;
        pages.lists.push((pages.frames, at));
        pages.frames += frames.len();
        pages.bytes[0] += frames.iter().map(|f| f.keys.bytes() as u64).sum::<u64>();
        pages.bytes[1] += frames.iter().map(|f| f.rows.bytes() as u64).sum::<u64>();
        frames.clear();
        Ok(())
    }

    /// How the rows are cut into frames.
    fn lens<'r>(&self, batch: &'r Batch<'r>, keys: &'r KeyBlock<'r>) -> Lens<'r> {
        let all = batch.rows();
        let key_bytes = (0..all).map(|row| keys.get(row).len()).sum();
        let per_row = (frame::bound(batch, 0, all).max(keys_bound(key_bytes, all)) / all.max(1)).max(1);
        let most = (self.store.frame_bytes / per_row).clamp(1, 1 << 16);
        Lens {
            batch,
            keys,
            // Frames of the same length, not some long ones and a short one.
            usual: all.div_ceil(all.div_ceil(most).max(1)),
            room: (2 * self.store.frame_bytes).max(self.contents.capacity()),
            from: 0,
        }
    }

    fn frame(
        &mut self,
        batch: &Batch<'_>,
        keys: &KeyBlock<'_>,
        chunks: &[u64],
        rows: &[u32],
        from: usize,
        len: usize,
        bytes: usize,
    ) -> Result<()> {
        let SegmentWriter {
            contents, packed, room, ..
        } = self;
        contents.clear();
        packed.clear();
        let usual = 2 * self.store.frame_bytes;
        grow_to_fit(contents, bytes.max(usual), room)?;
        grow_to_fit(packed, packed_bytes(bytes.max(usual)), room)?;
        packed.resize(packed_bytes(bytes), 0);

        encode_keys(keys, chunks, rows, from, len, contents);
        let key_block = self.store.file.write(contents, packed)?;
        contents.clear();
        frame::encode(batch, from, len, contents);
        let row_block = self.store.file.write(contents, packed)?;
        self.push(key_block, row_block, frame::unpacked_bytes(batch, from, len), len);
        Ok(())
    }

    /// A frame is written.
    fn push(&mut self, keys: Address, rows: Address, unpacked: usize, len: usize) {
        let at = FrameAt {
            keys,
            rows,
            unpacked: u32::try_from(unpacked).unwrap_or(u32::MAX),
            count: len as u32,
        };
        self.largest = self.largest.max(at.bytes());
        self.rows += len as u64;
        self.frames.push(at);
    }

    /// The segment of what was appended since the last one; the writer can begin another. Give the memory of the rows back before.
    ///
    /// # Errors
    /// `Memory` if its list of frames does not fit.
    pub fn finish(&mut self) -> Result<Segment> {
        let mut kept = self.store.budget.reserve();
        let mut frames = vec![];
        grow_to(&mut frames, self.frames.len(), &mut kept)?;
        Ok(self.segment(frames, kept))
    }

    /// The last segment: its list of frames stays where it is.
    pub fn finish_last(mut self) -> Segment {
        let kept = std::mem::replace(&mut self.index, self.store.budget.reserve());
        let frames = std::mem::take(&mut self.frames);
        self.segment(frames, kept)
    }

    /// The same while the rows are still in memory: the list of frames counts from now on instead of as much of `rows`' reservation, which
    /// is given back soon. Other lanes cannot take it in between.
    ///
    /// # Errors
    /// As [`SegmentWriter::finish`].
    pub fn finish_from(&mut self, rows: &mut Reservation) -> Result<Segment> {
        let bytes = self.frames.len() * size_of::<FrameAt>();
        let mut frames = vec![];
        if frames.try_reserve_exact(self.frames.len()).is_err() {
            return self.finish();
        }
        let kept = rows.split(bytes)?;
        Ok(self.segment(frames, kept))
    }

    /// The same where the budget has no more: out of all that `aside` has, what it sets aside included, until it sets that aside again.
    ///
    /// # Errors
    /// As [`SegmentWriter::finish`].
    pub fn finish_aside(&mut self, aside: &mut Reservation) -> Result<Segment> {
        let mut frames = vec![];
        if frames.try_reserve_exact(self.frames.len()).is_err() {
            return self.finish();
        }
        let kept = aside.split_aside(self.frames.len() * size_of::<FrameAt>())?;
        Ok(self.segment(frames, kept))
    }

    /// Forgets what was appended since the last segment, and gives its disk back: its rows are still the caller's.
    pub fn forget(&mut self) {
        for at in self.frames.drain(..) {
            self.store.file.free(at.keys);
            self.store.file.free(at.rows);
        }
        self.pages = self.pages.take().map(|_| Box::new(Pages::new(&self.store.budget)));
        self.rows = 0;
        self.largest = 0;
    }

    fn segment(&mut self, mut frames: Vec<FrameAt>, kept: Reservation) -> Segment {
        frames.append(&mut self.frames);
        self.store.spill().count_segment();
        let is_read = self.pages.as_ref().is_some_and(|pages| pages.frames > 0);
        let budget = &self.store.budget;
        let pages = self.pages.as_mut().map(|pages| {
            let mut other = Box::new(Pages::new(budget));
            if is_read {
                // Refused, the next list finds room when it is needed, or not.
                let _ = other.room.set_aside(PAGES_SET_ASIDE);
                std::mem::swap(pages, &mut other);
            }
            other
        });
        let read = if is_read { FRAMES_SET_ASIDE * PAGE_OF_FRAME } else { 0 };
        Segment {
            file: self.store.file.clone(),
            frames,
            _index: kept,
            pages,
            rows: std::mem::take(&mut self.rows),
            largest: std::mem::take(&mut self.largest) + read,
        }
    }
}

/// Frames to be: the first row of each, how many it has, and the bytes that either of its blocks takes at most.
struct Lens<'r> {
    batch: &'r Batch<'r>,
    keys: &'r KeyBlock<'r>,
    usual: usize,
    /// What a block may take.
    room: usize,
    from: usize,
}

impl Iterator for Lens<'_> {
    type Item = (usize, usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.from;
        let mut len = self.usual.min(self.batch.rows() - from);
        if len == 0 {
            return None;
        }
        let bytes_of = |len: usize| {
            let keys = (from..from + len).map(|row| self.keys.get(row).len()).sum();
            frame::bound(self.batch, from, len).max(keys_bound(keys, len))
        };
        let mut bytes = bytes_of(len);
        while bytes > self.room && len > 1 {
            len = len.div_ceil(2);
            bytes = bytes_of(len);
        }
        self.from += len;
        Some((from, len, bytes))
    }
}

fn grow_to_fit<T>(values: &mut Vec<T>, capacity: usize, room: &mut Reservation) -> Result<()> {
    if values.capacity() >= capacity {
        return Ok(());
    }
    // What is there is of no use any more: so it never counts beside the new one.
    room.shrink(values.capacity() * size_of::<T>());
    *values = vec![];
    grow_to(values, capacity, room)
}
