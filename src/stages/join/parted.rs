//! Keys of left rows that wait, apart from the rows: by *part*, in the order of the rows.
//!
//! A part is a range of buckets, which a key's hash chooses; right rows of one part are looked at together. A lane collects each part's keys
//! and writes them as frames of one segment, so that a part's keys are read without those of the others.
//!
//! Laws
//! - Memory for the keys of all parts is set aside when a lane is made.
//! - A part's keys come in the order of their rows, whatever the lanes.

use super::super::keys::{KeyBlock, hash};
use super::super::spill::{Frame, Segment, SegmentWriter, Store};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Batch, Budget, Reservation};
use std::ops::Range;
use std::sync::Arc;

/// How many buckets there are: the most parts.
pub(super) const BUCKETS: usize = 256;
/// The most keys of a frame, and the fewest.
const MOST_KEYS: usize = 4 << 10;
const FEWEST_KEYS: usize = 256;
/// What a key is expected to take, without its order.
const KEY_BYTES: usize = 16;
/// What a lane's keys may take of the budget.
const PART_OF_BUDGET: usize = 96;
const BYTES: Range<usize> = 128 << 10..512 << 10;

/// The bucket of a code.
#[inline]
pub(super) fn bucket_of(code: u64) -> usize {
    (hash(&code.to_le_bytes()) >> 56) as usize
}

/// The part that a bucket is in, of so many.
#[inline]
pub(super) fn part_of(bucket: usize, parts: usize) -> usize {
    bucket * parts / BUCKETS
}

/// For the lists of frames.
pub(super) const LIST_BYTES: usize = 64 << 10;

/// What a lane sets aside for keys, beside its writer and [`LIST_BYTES`].
pub(super) fn keys_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / PART_OF_BUDGET).clamp(BYTES.start, BYTES.end)
}

/// The most parts whose frames are not too short.
pub(super) fn most_parts(budget_bytes: usize) -> usize {
    (keys_bytes(budget_bytes) / FEWEST_KEYS / (KEY_BYTES + ORDER_BYTES)).min(BUCKETS)
}

const ORDER_BYTES: usize = size_of::<u32>() + size_of::<u64>() + size_of::<u32>();

/// Keys that are collected.
struct Keys {
    bytes: Vec<u8>,
    /// A zero, then where each key ends.
    ends: Vec<u32>,
    numbers: Vec<u64>,
    rows: Vec<u32>,
}

/// One lane's keys.
pub(super) struct LaneKeys {
    parts: Vec<Keys>,
    most: usize,
    writer: SegmentWriter,
    written: Written,
    room: Reservation,
}

/// Keys on disk.
struct Written {
    /// Once it is complete.
    segment: Option<Segment>,
    /// For each part its frames.
    frames: Vec<Vec<u32>>,
    room: Reservation,
}

impl LaneKeys {
    /// # Errors
    /// `Memory` if the budget does not have what is to be set aside.
    pub(super) fn new(store: &Arc<Store>, budget: &Arc<Budget>, parts: usize) -> Result<LaneKeys> {
        let mut room = budget.reserve();
        let mut list_room = budget.reserve();
        list_room.set_aside(LIST_BYTES)?;
        let bytes = keys_bytes(budget.limit());
        let most = (bytes / parts.max(1) / (KEY_BYTES + ORDER_BYTES)).clamp(FEWEST_KEYS, MOST_KEYS);
        let mut list = vec![];
        for _ in 0..parts {
            let mut keys = Keys {
                bytes: vec![],
                ends: vec![],
                numbers: vec![],
                rows: vec![],
            };
            room.room_to(&mut keys.bytes, most * KEY_BYTES)?;
            room.room_to(&mut keys.ends, most + 1)?;
            room.room_to(&mut keys.numbers, most)?;
            room.room_to(&mut keys.rows, most)?;
            keys.ends.push(0);
            list.push(keys);
        }
        Ok(LaneKeys {
            parts: list,
            most,
            writer: store.writer()?,
            written: Written {
                segment: None,
                frames: vec![vec![]; parts],
                room: list_room,
            },
            room,
        })
    }

    /// Takes the key of the row at `(number, row)`, which is behind all before it.
    ///
    /// # Errors
    /// `Memory` if there is no room for a long key, or the list of frames; what the disk answers.
    pub(super) fn push(&mut self, part: usize, key: &[u8], (number, row): (u64, u32)) -> Result<()> {
        let keys = &self.parts[part];
        if keys.rows.len() == self.most || keys.bytes.len() + key.len() > keys.bytes.capacity() {
            self.flush(part)?;
        }
        let keys = &mut self.parts[part];
        if key.len() > keys.bytes.capacity() {
            self.room.room(&mut keys.bytes, key.len())?;
        }
        keys.bytes.extend_from_slice(key);
        keys.ends.push(keys.bytes.len() as u32);
        keys.numbers.push(number);
        keys.rows.push(row);
        Ok(())
    }

    fn flush(&mut self, part: usize) -> Result<()> {
        let LaneKeys {
            parts, writer, written, ..
        } = self;
        let keys = &mut parts[part];
        let count = keys.rows.len();
        if count == 0 {
            return Ok(());
        }
        let block = KeyBlock::each(&keys.bytes, &keys.ends);
        let rows = Batch::new(&[], None, count);
        writer.make_room(&rows, &block)?;
        let first = writer.frames();
        writer.append(&rows, &block, &keys.numbers, &keys.rows)?;
        let frames = &mut written.frames[part];
        written.room.room(frames, writer.frames() - first)?;
        frames.extend((first..writer.frames()).map(|frame| frame as u32));
        keys.bytes.clear();
        keys.ends.truncate(1);
        keys.numbers.clear();
        keys.rows.clear();
        Ok(())
    }

    /// All that was taken, on disk.
    fn finish(mut self) -> Result<Written> {
        for part in 0..self.parts.len() {
            self.flush(part)?;
        }
        let LaneKeys {
            mut writer,
            mut written,
            ..
        } = self;
        written.segment = Some(writer.finish()?);
        Ok(written)
    }
}

/// The keys of all lanes.
pub(super) struct PartedKeys {
    lanes: Vec<Written>,
    pool: Arc<Budget>,
    budget: Arc<Budget>,
    _room: Reservation,
}

impl PartedKeys {
    /// `room` is for a frame of each lane.
    pub(super) fn new(lanes: Vec<LaneKeys>, budget: &Arc<Budget>, room: Reservation) -> Result<PartedKeys> {
        Ok(PartedKeys {
            lanes: lanes.into_iter().map(LaneKeys::finish).collect::<Result<_>>()?,
            pool: Budget::new(room.bytes()),
            budget: budget.clone(),
            _room: room,
        })
    }

    /// The keys of one part, in the order of their rows. Whoever reads holds a frame of each lane.
    pub(super) fn read(&self, part: usize) -> Reading<'_> {
        let lanes = self.lanes.iter().map(|written| At {
            written,
            part,
            next: 0,
            frame: None,
            row: 0,
        });
        Reading {
            budgets: [&self.pool, &self.budget],
            lanes: lanes.collect(),
        }
    }
}

/// Where one lane's keys are read.
struct At<'k> {
    written: &'k Written,
    part: usize,
    next: usize,
    frame: Option<Arc<Frame>>,
    row: usize,
}

impl At<'_> {
    /// The order of its next row.
    fn order(&mut self, [pool, budget]: [&Arc<Budget>; 2]) -> Result<Option<(u64, u32)>> {
        loop {
            if let Some(frame) = &self.frame {
                if self.row < frame.len() {
                    return Ok(Some(frame.order(self.row)));
                }
                self.frame = None;
            }
            let frame = self.written.frames[self.part].get(self.next);
            let Some((segment, &frame)) = self.written.segment.as_ref().zip(frame) else {
                return Ok(None);
            };
            self.frame = Some(match segment.load(frame as usize, pool, false) {
                // Keys that are longer than anybody could plan for.
                Err(Error::Memory { .. }) => segment.load(frame as usize, budget, false)?,
                loaded => loaded?,
            });
            (self.next, self.row) = (self.next + 1, 0);
        }
    }
}

/// A part's keys that are being read.
pub(super) struct Reading<'k> {
    budgets: [&'k Arc<Budget>; 2],
    lanes: Vec<At<'k>>,
}

impl Reading<'_> {
    /// The next rows: a frame, and where they are in it.
    pub(super) fn next(&mut self) -> Result<Option<(Arc<Frame>, Range<usize>)>> {
        let mut first: Option<(usize, (u64, u32))> = None;
        let mut end = None;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let Some(order) = lane.order(self.budgets)? else {
                continue;
            };
            match first {
                Some((_, known)) if known < order => end = Some(end.map_or(order, |end: (u64, u32)| end.min(order))),
                Some((_, known)) => {
                    (first, end) = (Some((at, order)), Some(known));
                }
                None => first = Some((at, order)),
            }
        }
        let Some((at, _)) = first else { return Ok(None) };
        let lane = &mut self.lanes[at];
        let Some(frame) = lane.frame.clone() else {
            return Ok(None);
        };
        let from = lane.row;
        let mut to = from + 1;
        while to < frame.len() && end.is_none_or(|end| frame.order(to) < end) {
            to += 1;
        }
        lane.row = to;
        Ok(Some((frame, from..to)))
    }
}
