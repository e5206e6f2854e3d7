//! Sorted pieces on disk: the [`Store`] of a stage, the [`SegmentWriter`] of a lane, [`Segment`]s and their [`Frame`]s.
//!
//! A frame is two blocks: keys and order, which the merge reads, and rows, which whoever gathers them reads and unpacks, outside the
//! merge's lock.

use super::file::{Address, SpillFile, packed_bytes};
use super::frame::{self, Bad, Reading};
use crate::stages::codes::held;
use crate::stages::groups::{grow, grow_to};
use crate::stages::keys::KeyBlock;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Batch, Budget, Kept, Reservation, Spill};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Encoded bytes of a frame, if the budget is not small: what is unpacked of it stays below the size from which the allocator asks the
/// system each time.
const FRAME_BYTES: usize = 96 << 10;
const SMALLEST_FRAME_BYTES: usize = 16 << 10;
/// Frames of this many bytes fit into a budget side by side.
const FRAMES_OF_BUDGET: usize = 1024;
/// Frames of a segment whose addresses are set aside.
const FRAMES_SET_ASIDE: usize = 128;
/// For the list of pages: of several GiB, if they are not merged.
const PAGES_SET_ASIDE: usize = 8 << 10;
/// What reading a page of frames takes for each: packed, unpacked, and the list.
const PAGE_OF_FRAME: usize = 3 * FrameAt::BYTES;
/// A segment is never expected to be longer than this, in bytes.
const FRAMES_LIMIT: usize = 1 << 30;
/// What LZ4 takes to pack a block.
const PACKER_BYTES: usize = 16 << 10;

/// What a lane sets aside for its own rows, in frames: ways in, ways out, and some rows.
pub const FRAMES_OF_LANE: usize = 10;

/// The lists of frames of what a lane wrote, in bytes, if it writes some hundred short segments.
const LISTS_OF_LANE: usize = 48 << 10;

/// A loaded frame takes about so many times its encoded bytes: keys and rows, packed and unpacked.
const FRAMES_LOADED: usize = 8;

/// About how many encoded bytes a frame has in a budget of so many bytes.
pub fn frame_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / FRAMES_OF_BUDGET).clamp(SMALLEST_FRAME_BYTES, FRAME_BYTES)
}

fn index_frames(budget_bytes: usize, frame_bytes: usize) -> usize {
    FRAMES_SET_ASIDE.max(2 * budget_bytes.min(FRAMES_LIMIT) / frame_bytes)
}

/// What a lane sets aside beside a frame for the lists of frames of what it wrote: they stay in memory, however little others leave.
/// Where frames are long, the lists fit into what one of them takes.
pub fn lists_of_lane(frame_bytes: usize) -> usize {
    LISTS_OF_LANE.saturating_sub(frame_bytes)
}

/// What one lane of a stage that spills sets aside in a budget of so many bytes before the first row: its writer,
/// [`FRAMES_OF_LANE`] and [`lists_of_lane`].
pub fn lane_floor(budget_bytes: usize) -> usize {
    lane_floor_beside(budget_bytes, 1)
}

/// The same for a stage that reads `merges` merges at the same time.
pub fn lane_floor_beside(budget_bytes: usize, merges: usize) -> usize {
    let frame = store_frame_bytes(budget_bytes, merges);
    writer_bytes(budget_bytes, frame) + FRAMES_OF_LANE * frame + lists_of_lane(frame)
}

/// What a [`SegmentWriter`] sets aside in a budget of so many bytes.
pub fn writer_floor(budget_bytes: usize) -> usize {
    writer_bytes(budget_bytes, frame_bytes(budget_bytes))
}

/// What a [`Store::short_writer`] sets aside in a store for a stage that reads `merges` merges at the same time.
pub fn short_writer_floor(budget_bytes: usize, merges: usize) -> usize {
    let contents = 2 * store_frame_bytes(budget_bytes, merges);
    contents + packed_bytes(contents) + PACKER_BYTES + FRAMES_SET_ASIDE * size_of::<FrameAt>() + PAGES_SET_ASIDE
}

/// About how many encoded bytes a frame of such a store has.
pub fn store_frame_bytes(budget_bytes: usize, merges: usize) -> usize {
    frame_bytes(budget_bytes / merges.max(1))
}

fn writer_bytes(budget_bytes: usize, frame: usize) -> usize {
    let contents = 2 * frame;
    let index = index_frames(budget_bytes, frame) * size_of::<FrameAt>();
    contents + packed_bytes(contents) + PACKER_BYTES + index
}

/// What a frame takes once it is loaded, if its rows are short.
pub fn loaded_frame(budget_bytes: usize) -> usize {
    FRAMES_LOADED * frame_bytes(budget_bytes)
}

/// The spilled rows of one stage: its file, and the segments that are kept.
pub struct Store {
    file: Arc<SpillFile>,
    budget: Arc<Budget>,
    frame_bytes: usize,
    segments: Mutex<Vec<Segment>>,
}

impl Store {
    /// For a stage that is made with `setup`. Nothing is opened or reserved yet.
    pub fn new(stage: &'static str, setup: &Setup) -> Arc<Store> {
        Store::in_budget(stage, &setup.budget, &setup.spill)
    }

    /// With what of a [`Setup`] matters.
    pub fn in_budget(stage: &'static str, budget: &Arc<Budget>, spill: &Arc<Spill>) -> Arc<Store> {
        Store::beside(stage, budget, spill, 1)
    }

    /// The same for a stage that reads `merges` merges at the same time.
    pub fn beside(stage: &'static str, budget: &Arc<Budget>, spill: &Arc<Spill>, merges: usize) -> Arc<Store> {
        let frame_bytes = store_frame_bytes(budget.limit(), merges);
        Arc::new(Store {
            file: Arc::new(SpillFile::new(stage, spill.clone())),
            budget: budget.clone(),
            frame_bytes,
            segments: Mutex::default(),
        })
    }

    /// About how many encoded bytes a frame has: what it is good to append at a time.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The limit of the budget that rows are kept in.
    pub fn budget_bytes(&self) -> usize {
        self.budget.limit()
    }

    pub fn stage(&self) -> &'static str {
        self.file.stage()
    }

    pub fn spill(&self) -> &Arc<Spill> {
        self.file.spill()
    }

    /// A lane's writer, with all memory that writing takes set aside.
    ///
    /// # Errors
    /// `Memory` if the budget does not have it.
    pub fn writer(self: &Arc<Self>) -> Result<SegmentWriter> {
        // As many as the budget holds rows for, so that the list never grows when there is no memory left.
        self.writer_of(index_frames(self.budget.limit(), self.frame_bytes))
    }

    /// The same with a list of frames of which little is in memory, however long the segment is: what is read often out of it, or by many at
    /// the same time, is read more slowly.
    ///
    /// # Errors
    /// `Memory` if the budget does not have it.
    pub fn short_writer(self: &Arc<Self>) -> Result<SegmentWriter> {
        let mut writer = self.writer_of(FRAMES_SET_ASIDE)?;
        let mut pages = Pages::new(&self.budget);
        pages.room.set_aside(PAGES_SET_ASIDE)?;
        writer.pages = Some(Box::new(pages));
        Ok(writer)
    }

    fn writer_of(self: &Arc<Self>, list: usize) -> Result<SegmentWriter> {
        let contents = 2 * self.frame_bytes;
        let mut room = self.budget.reserve();
        let mut index = self.budget.reserve();
        let mut frames = vec![];
        grow_to(&mut frames, list, &mut index)?;
        room.set_aside(contents + packed_bytes(contents) + PACKER_BYTES)?;
        room.grow(PACKER_BYTES)?;
        Ok(SegmentWriter {
            store: self.clone(),
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

    /// Keeps a segment for the merge.
    pub fn keep(&self, segment: Segment) {
        if segment.rows > 0 {
            self.lock().push(segment);
        }
    }

    /// The segments that were kept, from now on the caller's.
    pub fn take(&self) -> Vec<Segment> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether anything was spilled.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Memory that the largest frame of all segments takes.
    pub fn largest(&self) -> usize {
        self.lock().iter().map(Segment::largest).max().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Test hook: the file that is written to.
    #[cfg(test)]
    pub(crate) fn file(&self) -> &SpillFile {
        &self.file
    }
}

/// Where a frame is and what it takes.
#[derive(Clone, Copy)]
struct FrameAt {
    keys: Address,
    rows: Address,
    /// Of an arena, beside the encoded rows.
    unpacked: u32,
    count: u32,
}

/// The frames of a long segment but for the last ones: lists of them on disk.
struct Pages {
    /// Each list, and the number of its first frame.
    lists: Vec<(usize, Address)>,
    room: Reservation,
    /// Frames on them, and encoded bytes of their keys and of their rows.
    frames: usize,
    bytes: [u64; 2],
    /// The list that was read last.
    at: Mutex<Option<(usize, Vec<FrameAt>)>>,
}

impl Pages {
    fn new(budget: &Arc<Budget>) -> Pages {
        Pages {
            lists: vec![],
            room: budget.reserve(),
            frames: 0,
            bytes: [0; 2],
            at: Mutex::default(),
        }
    }

    /// The frame `index`, which is on one of them.
    fn get(&self, index: usize, file: &SpillFile) -> Result<FrameAt> {
        let page = self.lists.partition_point(|(first, _)| *first <= index) - 1;
        let (first, at) = self.lists[page];
        let mut known = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some((number, frames)) if *number == page => Ok(frames[index - first]),
            _ => {
                *known = None;
                let mut contents = room(at.bytes())?;
                let mut stored = room(at.stored_bytes())?;
                file.read(at, &mut stored, &mut contents)?;
                let frames: Vec<FrameAt> = contents.as_chunks().0.iter().map(FrameAt::decode).collect();
                let frame = frames.get(index - first).copied();
                *known = Some((page, frames));
                frame.ok_or_else(|| file.failed("read", "a list of frames is not what was written"))
            }
        }
    }
}

impl FrameAt {
    /// Bytes on a page.
    const BYTES: usize = 2 * Address::BYTES + 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keys.encode());
        out.extend_from_slice(&self.rows.encode());
        out.extend_from_slice(&self.unpacked.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    fn decode(bytes: &[u8; FrameAt::BYTES]) -> FrameAt {
        let (addresses, rest) = bytes.as_chunks::<{ Address::BYTES }>();
        let number = |from: usize| {
            rest.get(from..)
                .and_then(|b| b.first_chunk())
                .map_or(0, |b| u32::from_le_bytes(*b))
        };
        FrameAt {
            keys: Address::decode(&addresses[0]),
            rows: Address::decode(&addresses[1]),
            unpacked: number(0),
            count: number(4),
        }
    }

    /// Memory that a loaded frame takes, reading it included.
    fn bytes(&self) -> usize {
        let keys = self.keys.bytes() + 16 * self.count as usize;
        let rows = self.rows.bytes() + self.rows.stored_bytes() + self.unpacked as usize;
        // The keys are unpacked before the rows are read.
        keys + rows.max(self.keys.stored_bytes()) + 1024
    }
}

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
            let bytes = contents + packed_bytes(contents) + PACKER_BYTES;
            self.room.set_aside_from(bytes, from)?;
        }
        Ok(contents)
    }

    /// Makes room for frames that take `bytes` of memory once they are loaded.
    pub(super) fn make_room_of(&mut self, bytes: usize) -> Result<()> {
        self.room.set_aside(bytes + packed_bytes(bytes) + PACKER_BYTES)
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
            contents,
            packed,
            room,
            frames,
            ..
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
        let unpacked = u32::try_from(frame::unpacked_bytes(batch, from, len)).unwrap_or(u32::MAX);
        let at = FrameAt {
            keys: key_block,
            rows: row_block,
            unpacked,
            count: len as u32,
        };
        self.largest = self.largest.max(at.bytes());
        self.rows += len as u64;
        frames.push(at);
        Ok(())
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

/// Every width the same: its number. Else this, and lengths.
const EACH: u32 = u32::MAX;

fn keys_bound(bytes: usize, rows: usize) -> usize {
    8 + bytes + 3 * (9 + 8 * rows)
}

fn encode_keys(keys: &KeyBlock<'_>, chunks: &[u64], rows: &[u32], from: usize, len: usize, out: &mut Vec<u8>) {
    let width = keys.get(from).len();
    let every = (from..from + len).all(|row| keys.get(row).len() == width);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&(if every { width as u32 } else { EACH }).to_le_bytes());
    if !every {
        frame::encode_numbers(len, |i| keys.get(from + i).len() as u64, out);
    }
    (from..from + len).for_each(|row| out.extend_from_slice(keys.get(row)));
    frame::encode_numbers(len, |i| chunks[from + i], out);
    frame::encode_numbers(len, |i| u64::from(rows[from + i]), out);
}

/// Sorted rows on disk.
pub struct Segment {
    file: Arc<SpillFile>,
    frames: Vec<FrameAt>,
    _index: Reservation,
    pages: Option<Box<Pages>>,
    rows: u64,
    largest: usize,
}

impl Segment {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Frames it has.
    pub fn frames(&self) -> usize {
        self.paged() + self.frames.len()
    }

    /// Whether it comes from a [`Store::short_writer`].
    pub(super) fn is_of_short(&self) -> bool {
        self.pages.is_some()
    }

    fn paged(&self) -> usize {
        self.pages.as_ref().map_or(0, |pages| pages.frames)
    }

    fn frame(&self, index: usize) -> Result<FrameAt> {
        match &self.pages {
            Some(pages) if index < pages.frames => pages.get(index, &self.file),
            _ => Ok(self.frames[index - self.paged()]),
        }
    }

    /// Rows of frame `index`.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn rows_of(&self, index: usize) -> Result<usize> {
        Ok(self.frame(index)?.count as usize)
    }

    /// What the list of so many frames takes.
    pub fn list_bytes(frames: usize) -> usize {
        frames * size_of::<FrameAt>()
    }

    /// Encoded bytes of its rows.
    pub fn bytes(&self) -> u64 {
        let listed: u64 = self.frames.iter().map(|f| f.rows.bytes() as u64).sum();
        listed + self.pages.as_ref().map_or(0, |pages| pages.bytes[1])
    }

    /// Encoded bytes of its keys.
    pub fn key_bytes(&self) -> u64 {
        let listed: u64 = self.frames.iter().map(|f| f.keys.bytes() as u64).sum();
        listed + self.pages.as_ref().map_or(0, |pages| pages.bytes[0])
    }

    /// Memory that its largest frame takes.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Gives its disk back: nobody reads it any more.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn free(self) -> Result<()> {
        for index in 0..self.frames() {
            let at = self.frame(index)?;
            self.file.free(at.keys);
            self.file.free(at.rows);
        }
        Ok(())
    }

    /// Reads the keys of frame `index`, with memory of `budget` for its rows too. With `frees`, the frame's disk is given back with it: nobody
    /// loads it again.
    ///
    /// # Errors
    /// `Memory` if that is refused, `Failed` if the file is damaged.
    pub fn load(&self, index: usize, budget: &Arc<Budget>, frees: bool) -> Result<Arc<Frame>> {
        let at = self.frame(index)?;
        let mut reservation = budget.reserve();
        reservation.grow(at.bytes())?;
        let mut contents = room(at.keys.bytes())?;
        let mut stored = room(at.keys.stored_bytes())?;
        self.file.read(at.keys, &mut stored, &mut contents)?;
        drop(stored);
        let keys = Keys::decode(contents, at.count).map_err(|bad| self.bad(bad))?;
        Ok(Arc::new(Frame {
            file: self.file.clone(),
            at,
            keys,
            rows: OnceLock::new(),
            reading: Mutex::default(),
            frees,
            _reservation: reservation,
        }))
    }

    fn bad(&self, bad: Bad) -> Error {
        bad_in(&self.file, bad)
    }
}

fn bad_in(file: &SpillFile, bad: Bad) -> Error {
    match bad {
        Bad::Damaged => file.failed("read", "a block is not what was written"),
        Bad::Refused(error) => held(file.stage(), error),
    }
}

fn room(bytes: usize) -> Result<Vec<u8>> {
    let mut room = vec![];
    room.try_reserve_exact(bytes).map_err(|_| Error::Memory {
        wanted: bytes,
        used: 0,
        limit: usize::MAX,
    })?;
    room.resize(bytes, 0);
    Ok(room)
}

/// The keys and the order of a frame's rows.
struct Keys {
    contents: Vec<u8>,
    /// Where the first key starts.
    start: usize,
    /// Of every key; unless `ends` says.
    width: usize,
    ends: Vec<u32>,
    chunks: Vec<u64>,
    rows: Vec<u32>,
}

impl Keys {
    fn decode(contents: Vec<u8>, count: u32) -> std::result::Result<Keys, Bad> {
        let len = count as usize;
        let mut reading = Reading { bytes: &contents };
        if reading.u32()? != count {
            return Err(Bad::Damaged);
        }
        let width = reading.u32()?;
        let mut ends: Vec<u32> = vec![];
        let refused = |_| {
            Bad::Refused(Error::Memory {
                wanted: 8 * len,
                used: 0,
                limit: usize::MAX,
            })
        };
        let bytes = if width == EACH {
            ends.try_reserve_exact(len).map_err(refused)?;
            reading.numbers(len)?.extend(&mut ends, |n| n as u32);
            let mut sum = 0u64;
            for end in &mut ends {
                sum += u64::from(*end);
                *end = u32::try_from(sum).map_err(|_| Bad::Damaged)?;
            }
            sum as usize
        } else {
            (width as usize).checked_mul(len).ok_or(Bad::Damaged)?
        };
        let start = contents.len() - reading.bytes.len();
        reading.take(bytes)?;
        let (mut chunks, mut rows) = (vec![], vec![]);
        chunks.try_reserve_exact(len).map_err(refused)?;
        rows.try_reserve_exact(len).map_err(refused)?;
        reading.numbers(len)?.extend(&mut chunks, |n| n);
        reading.numbers(len)?.extend(&mut rows, |n| n as u32);
        Ok(Keys {
            start,
            width: width as usize,
            ends,
            chunks,
            rows,
            contents,
        })
    }

    #[inline]
    fn get(&self, row: usize) -> &[u8] {
        let (from, to) = match self.ends.get(row) {
            None => (row * self.width, (row + 1) * self.width),
            Some(&end) => (if row == 0 { 0 } else { self.ends[row - 1] as usize }, end as usize),
        };
        &self.contents[self.start + from..self.start + to]
    }
}

/// A loaded frame: keys at once, rows when somebody asks.
pub struct Frame {
    file: Arc<SpillFile>,
    at: FrameAt,
    keys: Keys,
    rows: OnceLock<Kept>,
    reading: Mutex<()>,
    frees: bool,
    _reservation: Reservation,
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.frees {
            self.file.free(self.at.keys);
            self.file.free(self.at.rows);
        }
    }
}

impl Frame {
    pub fn len(&self) -> usize {
        self.at.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.at.count == 0
    }

    /// The key of row `row`.
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }

    /// The order of row `row`: chunk, and row in it.
    #[inline]
    pub fn order(&self, row: usize) -> (u64, u32) {
        (self.keys.chunks[row], self.keys.rows[row])
    }

    /// The rows: read and unpacked by the first who asks, while others that ask wait.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn rows(&self) -> Result<Batch<'_>> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows.batch());
        }
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = self.rows.get() {
            return Ok(rows.batch());
        }
        let limit = self.at.rows.bytes().next_multiple_of(standpipe_sdk::arena::ALIGN) + self.at.unpacked as usize;
        let mut stored = room(self.at.rows.stored_bytes())?;
        let kept = Kept::make(limit, |arena| {
            let contents = arena.fill(self.at.rows.bytes(), 0u8)?;
            self.file.read(self.at.rows, &mut stored, contents)?;
            let batch = frame::decode(contents, arena)?;
            if batch.rows() == self.len() {
                Ok(batch)
            } else {
                Err(Bad::Damaged)
            }
        });
        let kept = kept.map_err(|bad| bad_in(&self.file, bad))?;
        Ok(self.rows.get_or_init(|| kept).batch())
    }
}
