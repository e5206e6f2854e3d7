//! Where the frames of a segment are: lists on disk, and lists of those, of which a few are in memory.
//!
//! How it works: a list has at most [`ENTRIES`] entries. Once one of frames is full it is written, and its address is the next entry of the
//! list above it, and so on; the address of the topmost one is all that a segment keeps. Every list but the last of its level is full, so that a
//! frame's number says in which lists it is.
//!
//! Laws
//! - Neither writing nor reading takes more memory where a segment is longer, but for a list for each level.

use super::file::{Address, SpillFile};
use standpipe_sdk::error::Result;
use std::sync::{Mutex, PoisonError};

/// Entries of a list.
const ENTRIES: usize = 64;
/// Levels above the frames: more of them than any disk can hold.
const LEVELS: usize = 6;

/// Where a frame is and what it takes.
#[derive(Clone, Copy)]
pub(super) struct FrameAt {
    pub(super) keys: Address,
    pub(super) rows: Address,
    /// Of an arena, beside the encoded rows.
    pub(super) unpacked: u32,
    pub(super) count: u32,
}

impl FrameAt {
    /// Bytes in a list.
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
    pub(super) fn bytes(&self) -> usize {
        let keys = self.keys.bytes() + 16 * self.count as usize;
        let rows = self.rows.bytes() + self.rows.stored_bytes() + self.unpacked as usize;
        // The keys are unpacked before the rows are read.
        keys + rows.max(self.keys.stored_bytes()) + 1024
    }
}

/// What writing lists takes.
pub(super) const WRITING_BYTES: usize = ENTRIES * (size_of::<FrameAt>() + LEVELS * Address::BYTES);

/// What reading the lists of so many frames takes: one of each level, and the buffer that one is unpacked from.
pub(super) fn reading_bytes(frames: usize) -> usize {
    let list = |entries: usize, bytes: usize| entries.min(ENTRIES) * bytes;
    let (mut all, mut entries) = (2 * list(frames, FrameAt::BYTES), frames.div_ceil(ENTRIES));
    while entries > 1 {
        all += list(entries, Address::BYTES);
        entries = entries.div_ceil(ENTRIES);
    }
    all
}

/// How a list is written: its entries are appended to a buffer.
pub(super) type Write<'w> = dyn FnMut(usize, &dyn Fn(&mut Vec<u8>)) -> Result<Address> + 'w;

/// Lists that are being written.
#[derive(Default)]
pub(super) struct ListWriter {
    frames: Vec<FrameAt>,
    levels: [Vec<Address>; LEVELS],
    count: usize,
}

impl ListWriter {
    /// Frames so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Makes room for a frame: what is full goes to disk. What [`WRITING_BYTES`] says is all that this takes.
    pub(super) fn make_room(&mut self, write: &mut Write<'_>) -> Result<()> {
        if self.frames.len() < ENTRIES {
            return Ok(());
        }
        self.write_frames(write)?;
        for level in 0..LEVELS - 1 {
            if self.levels[level].len() < ENTRIES {
                break;
            }
            self.write_level(level, write)?;
        }
        Ok(())
    }

    /// A frame is written, for which room was made.
    pub(super) fn push(&mut self, frame: FrameAt) {
        self.frames.push(frame);
        self.count += 1;
    }

    /// The topmost list, and how many levels there are; nothing without frames.
    pub(super) fn finish(&mut self, write: &mut Write<'_>) -> Result<Lists> {
        if !self.frames.is_empty() {
            self.write_frames(write)?;
        }
        for level in 0..LEVELS {
            let is_top = self.levels[level + 1..].iter().all(Vec::is_empty);
            match self.levels[level].as_slice() {
                &[top] if is_top => {
                    self.levels[level].clear();
                    let count = std::mem::take(&mut self.count);
                    return Ok(Lists {
                        top: Some((top, level)),
                        count,
                    });
                }
                [] => {}
                _ => self.write_level(level, write)?,
            }
        }
        Ok(Lists::default())
    }

    fn write_frames(&mut self, write: &mut Write<'_>) -> Result<()> {
        let frames = &self.frames;
        let bytes = frames.len() * FrameAt::BYTES;
        let at = write(bytes, &|out| frames.iter().for_each(|frame| frame.encode(out)))?;
        self.frames.clear();
        self.levels[0].push(at);
        Ok(())
    }

    fn write_level(&mut self, level: usize, write: &mut Write<'_>) -> Result<()> {
        let list = &self.levels[level];
        let bytes = list.len() * Address::BYTES;
        let at = write(bytes, &|out| {
            list.iter().for_each(|at| out.extend_from_slice(&at.encode()));
        })?;
        self.levels[level].clear();
        if let Some(above) = self.levels.get_mut(level + 1) {
            above.push(at);
        }
        Ok(())
    }
}

/// The lists of a segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Lists {
    /// The topmost one, and the number of levels below it that are lists of lists.
    top: Option<(Address, usize)>,
    /// Frames.
    pub(super) count: usize,
}

impl Lists {
    pub(super) const BYTES: usize = Address::BYTES + 16;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (top, levels) = self
            .top
            .map_or(([0; Address::BYTES], 0), |(at, levels)| (at.encode(), levels));
        out.extend_from_slice(&top);
        out.extend_from_slice(&(levels as u64).to_le_bytes());
        out.extend_from_slice(&(self.count as u64).to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8; Lists::BYTES]) -> Lists {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |at: usize| numbers.get(at).map_or(0, |b| u64::from_le_bytes(*b) as usize);
        let count = number(3);
        let top = bytes.first_chunk().map(|at| (Address::decode(at), number(2)));
        Lists {
            top: top.filter(|_| count > 0),
            count,
        }
    }
}

/// Reads lists: those on the way to the frame that was asked for last are in memory.
#[derive(Default)]
pub(super) struct ListReader {
    /// Of each level, from the frames up.
    known: Mutex<Vec<Option<List>>>,
}

/// A list in memory: which one of its level, and what it says.
struct List {
    number: usize,
    contents: Vec<u8>,
}

impl ListReader {
    /// The frame with this number.
    pub(super) fn get(&self, lists: &Lists, frame: usize, file: &SpillFile) -> Result<FrameAt> {
        let damaged = || file.failed("read", "a list of frames is not what was written");
        let (mut at, levels) = lists.top.filter(|_| frame < lists.count).ok_or_else(damaged)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.resize_with(levels + 1, || None);
        for level in (0..=levels).rev() {
            let number = frame / ENTRIES.pow(level as u32 + 1);
            let slot = known.get_mut(level).ok_or_else(damaged)?;
            let contents = match slot {
                Some(list) if list.number == number => &list.contents,
                _ => {
                    // Not both in memory.
                    *slot = None;
                    let contents = file.contents(at)?;
                    &slot.insert(List { number, contents }).contents
                }
            };
            let entry = frame / ENTRIES.pow(level as u32) % ENTRIES;
            if level == 0 {
                let frame = contents.as_chunks().0.get(entry).map(FrameAt::decode);
                return frame.ok_or_else(damaged);
            }
            at = contents
                .as_chunks()
                .0
                .get(entry)
                .map(Address::decode)
                .ok_or_else(damaged)?;
        }
        Err(damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::Spill;

    fn address(at: usize) -> Address {
        Address::decode(&(at as u128 | 100 << 64 | 1000 << 96).to_le_bytes())
    }

    #[test]
    fn every_frame_is_found_again_however_many_there_are() {
        let counts = [
            1,
            63,
            64,
            65,
            128,
            64 * 64 - 1,
            64 * 64,
            64 * 64 + 1,
            64 * 64 * 3 + 70,
            64 * 64 * 64 + 5,
        ];
        for count in counts {
            let file = SpillFile::new("sort", Spill::anywhere());
            let mut writer = ListWriter::default();
            let mut packed = vec![0; 1 << 16];
            let mut write = |bytes: usize, encode: &dyn Fn(&mut Vec<u8>)| {
                let mut contents = vec![];
                encode(&mut contents);
                assert_eq!(contents.len(), bytes);
                file.write(&contents, &mut packed)
            };
            for frame in 0..count {
                writer.make_room(&mut write).unwrap();
                writer.push(FrameAt {
                    keys: address(frame),
                    rows: address(frame + 1),
                    unpacked: 3,
                    count: frame as u32,
                });
            }
            let lists = writer.finish(&mut write).unwrap();
            let mut encoded = vec![];
            lists.encode(&mut encoded);
            let lists = Lists::decode(encoded.first_chunk().unwrap());
            assert_eq!(lists.count, count);
            let reader = ListReader::default();
            let step = (count / 1000).max(1);
            for frame in (0..count).step_by(step).chain((0..count).rev().step_by(step)) {
                let found = reader.get(&lists, frame, &file).unwrap();
                assert_eq!((found.count, found.keys), (frame as u32, address(frame)));
            }
            assert!(reader.get(&lists, count, &file).is_err());
            // Another one can be begun.
            assert_eq!(writer.finish(&mut write).unwrap().count, 0);
        }
    }
}
