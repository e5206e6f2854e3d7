//! A lane's way to disk: rows that are sorted become frames, and frames a segment.
//!
//! Laws
//! - What writing takes is set aside when the writer is made; for a row that is longer than a frame, before it is taken.
//! - A refusal writes nothing: the same rows may come again, or fewer of them.

use super::file::{Address, SpillFile, packed_bytes};
use super::floors::{PACKER_BYTES, buffers_bytes};
use super::frame;
use super::keys::{encode_keys, keys_bound};
use super::lists::{FrameAt, ListWriter, WRITING_BYTES};
use super::segment::{About, Segment};
use super::store::Store;
use crate::stages::groups::grow_to;
use crate::stages::keys::KeyBlock;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Batch, Reservation};
use std::sync::Arc;

/// Writes one segment after the other.
pub struct SegmentWriter {
    store: Arc<Store>,
    blocks: Blocks,
    lists: ListWriter,
    _lists_room: Reservation,
    /// Of the segment so far.
    about: About,
}

/// Blocks on their way to disk: encoded in one buffer, packed in another.
pub(super) struct Blocks {
    file: Arc<SpillFile>,
    contents: Vec<u8>,
    packed: Vec<u8>,
    room: Reservation,
    /// What a buffer has at least, and what is set aside for both.
    usual: usize,
}

impl Blocks {
    /// Writes what `encode` appends, at most `bytes`.
    ///
    /// # Errors
    /// `Memory` for more than is usual if no room was made for it; `Failed` if the disk is full or fails.
    pub(super) fn write(&mut self, bytes: usize, encode: &dyn Fn(&mut Vec<u8>)) -> Result<Address> {
        self.make_room(bytes)?;
        self.contents.clear();
        self.packed.clear();
        self.packed.resize(packed_bytes(bytes), 0);
        encode(&mut self.contents);
        self.file.write(&self.contents, &mut self.packed)
    }

    /// Makes sure that blocks of at most `bytes` can be written.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let usual = bytes.max(self.usual);
        grow_to_fit(&mut self.contents, usual, &mut self.room)?;
        grow_to_fit(&mut self.packed, packed_bytes(usual), &mut self.room)
    }

    /// Writes a block as it is, in one buffer, for which there is no room but once.
    fn write_unpacked(&mut self, bytes: usize, encode: &dyn Fn(&mut Vec<u8>)) -> Result<Address> {
        grow_to_fit(&mut self.contents, bytes, &mut self.room)?;
        self.contents.clear();
        encode(&mut self.contents);
        self.file.write_unpacked(&self.contents)
    }

    /// Frees both buffers, and gives back what was set aside beyond what is usual.
    fn slim(&mut self) {
        let usual = buffers_bytes(self.usual);
        (self.contents, self.packed) = (vec![], vec![]);
        // Never free in between.
        if let Ok(mut room) = self.room.split_aside(usual)
            && room.set_aside(usual).is_ok()
        {
            room.shrink(usual - PACKER_BYTES);
            self.room = room;
        }
    }
}

impl SegmentWriter {
    pub(super) fn new(store: &Arc<Store>) -> Result<SegmentWriter> {
        let usual = 2 * store.frame_bytes;
        let mut room = store.budget.reserve();
        let mut lists_room = store.budget.reserve();
        lists_room.grow(WRITING_BYTES)?;
        room.set_aside(buffers_bytes(usual))?;
        room.grow(PACKER_BYTES)?;
        Ok(SegmentWriter {
            store: store.clone(),
            blocks: Blocks {
                file: store.file.clone(),
                contents: vec![],
                packed: vec![],
                room,
                usual,
            },
            lists: ListWriter::default(),
            _lists_room: lists_room,
            about: About::default(),
        })
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
            self.blocks.room.set_aside_from(buffers_bytes(contents), from)?;
        }
        Ok(contents)
    }

    /// Gives back what a row took that was longer than usual, which is written.
    pub fn slim(&mut self) {
        self.blocks.slim();
    }

    /// Makes room for frames that take `bytes` of memory once they are loaded.
    pub(super) fn make_room_of(&mut self, bytes: usize) -> Result<()> {
        self.blocks.room.set_aside(buffers_bytes(bytes))
    }

    /// Frames of the segment so far.
    pub fn frames(&self) -> usize {
        self.lists.count()
    }

    /// Whether nothing was appended since the last segment.
    pub fn is_empty(&self) -> bool {
        self.frames() == 0
    }

    /// Appends rows: keys ascend from row to row and from call to call, equal ones by (chunk, row).
    ///
    /// # Errors
    /// `Memory` for a row that [`SegmentWriter::make_room`] was not asked about: nothing was written then. `Failed` if the disk is full or
    /// fails.
    pub fn append(&mut self, batch: &Batch<'_>, keys: &KeyBlock<'_>, chunks: &[u64], rows: &[u32]) -> Result<()> {
        let lens: Vec<_> = self.lens(batch, keys).collect();
        let widest = lens.iter().map(|(_, _, bytes)| *bytes).max().unwrap_or(0);
        self.blocks.make_room(widest)?;
        for (from, len, bytes) in lens {
            self.lists
                .make_room(&mut |bytes, encode| self.blocks.write(bytes, encode))?;
            let key_block = self
                .blocks
                .write(bytes, &|out| encode_keys(keys, chunks, rows, from, len, out))?;
            let row_block = self.blocks.write(bytes, &|out| frame::encode(batch, from, len, out))?;
            self.push(key_block, row_block, frame::unpacked_bytes(batch, from, len), len);
        }
        Ok(())
    }

    /// The same of one row that is longer than usual, for which there is no room but once: it is not packed. What it takes is given back.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub fn append_long(&mut self, row: &Batch<'_>, keys: &KeyBlock<'_>, order: (u64, u32)) -> Result<()> {
        self.lists
            .make_room(&mut |bytes, encode| self.blocks.write(bytes, encode))?;
        self.slim();
        let appended = self.long_frame(row, keys, order);
        self.slim();
        appended
    }

    fn long_frame(&mut self, row: &Batch<'_>, keys: &KeyBlock<'_>, order: (u64, u32)) -> Result<()> {
        let key_bytes = keys.get(0).len();
        let bytes = frame::bound(row, 0, 1).max(keys_bound(key_bytes, 1));
        let key_block = self
            .blocks
            .write_unpacked(bytes, &|out| encode_keys(keys, &[order.0], &[order.1], 0, 1, out))?;
        let row_block = self
            .blocks
            .write_unpacked(bytes, &|out| frame::encode(row, 0, 1, out))?;
        self.push(key_block, row_block, frame::unpacked_bytes(row, 0, 1), 1);
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
            room: (2 * self.store.frame_bytes).max(self.blocks.contents.capacity()),
            from: 0,
        }
    }

    /// A frame is written.
    fn push(&mut self, keys: Address, rows: Address, unpacked: usize, len: usize) {
        let at = FrameAt {
            keys,
            rows,
            unpacked: u32::try_from(unpacked).unwrap_or(u32::MAX),
            count: len as u32,
        };
        let about = &mut self.about;
        about.largest = about.largest.max(at.bytes());
        about.rows += len as u64;
        about.bytes[0] += keys.bytes() as u64;
        about.bytes[1] += rows.bytes() as u64;
        self.lists.push(at);
    }

    /// The segment of what was appended since the last one; the writer can begin another.
    ///
    /// # Errors
    /// `Failed` if the disk is full or fails.
    pub fn finish(&mut self) -> Result<Segment> {
        let segment = self.sealed()?;
        if segment.about.rows > 0 {
            self.store.spill().count_segment();
        }
        Ok(segment)
    }

    /// The same, kept for the merge.
    ///
    /// # Errors
    /// As [`SegmentWriter::finish`].
    pub fn keep(&mut self) -> Result<()> {
        let segment = self.finish()?;
        self.store.clone().keep_with(segment, &mut self.blocks)
    }

    fn sealed(&mut self) -> Result<Segment> {
        let mut about = std::mem::take(&mut self.about);
        about.lists = self
            .lists
            .finish(&mut |bytes, encode| self.blocks.write(bytes, encode))?;
        Ok(Segment::new(&self.store.file, about))
    }

    /// Forgets what was appended since the last segment, and gives its disk back as far as that can be read: its rows are still the
    /// caller's.
    pub fn forget(&mut self) {
        let _ = self.sealed().and_then(Segment::free);
        self.lists = ListWriter::default();
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
