//! Sorted pieces on disk, frame by frame.
//!
//! A frame is two blocks: keys and order, which the merge reads, and rows, which whoever gathers them reads and unpacks, outside the
//! merge's lock.

use super::file::SpillFile;
use super::lists::{ListReader, Lists, reading_bytes};
use super::loaded::Frame;
use standpipe_sdk::Budget;
use standpipe_sdk::error::Result;
use std::sync::Arc;

/// Sorted rows on disk. It takes the same little memory however long it is.
pub struct Segment {
    pub(super) file: Arc<SpillFile>,
    pub(super) about: About,
    pub(super) reader: ListReader,
}

/// What is known of a segment.
#[derive(Clone, Copy, Default)]
pub(super) struct About {
    pub(super) lists: Lists,
    pub(super) rows: u64,
    /// Memory that its largest frame takes.
    pub(super) largest: usize,
    /// Encoded, of keys and of rows.
    pub(super) bytes: [u64; 2],
}

impl About {
    pub(super) const BYTES: usize = Lists::BYTES + 32;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.lists.encode(out);
        for number in [self.rows, self.largest as u64, self.bytes[0], self.bytes[1]] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8; About::BYTES]) -> About {
        let (lists, numbers) = bytes.split_at(Lists::BYTES);
        let (numbers, _) = numbers.as_chunks::<8>();
        let number = |at: usize| numbers.get(at).map_or(0, |b| u64::from_le_bytes(*b));
        About {
            lists: lists.first_chunk().map(Lists::decode).unwrap_or_default(),
            rows: number(0),
            largest: number(1) as usize,
            bytes: [number(2), number(3)],
        }
    }
}

impl Segment {
    pub(super) fn new(file: &Arc<SpillFile>, about: About) -> Segment {
        Segment {
            file: file.clone(),
            about,
            reader: ListReader::default(),
        }
    }

    pub fn rows(&self) -> u64 {
        self.about.rows
    }

    /// Frames it has.
    pub fn frames(&self) -> usize {
        self.about.lists.count
    }

    /// Rows of frame `index`.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn rows_of(&self, index: usize) -> Result<usize> {
        let frame = self.reader.get(&self.about.lists, index, &self.file)?;
        Ok(frame.count as usize)
    }

    /// Encoded bytes of its rows.
    pub fn bytes(&self) -> u64 {
        self.about.bytes[1]
    }

    /// Encoded bytes of its keys.
    pub fn key_bytes(&self) -> u64 {
        self.about.bytes[0]
    }

    /// Memory that its largest frame takes, finding it included.
    pub fn largest(&self) -> usize {
        self.about.largest + reading_bytes(self.frames())
    }

    /// Gives its disk back: nobody reads it any more.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn free(self) -> Result<()> {
        for index in 0..self.frames() {
            let at = self.reader.get(&self.about.lists, index, &self.file)?;
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
        let frame = self.reader.get(&self.about.lists, index, &self.file)?;
        Frame::load(&self.file, frame, budget, frees)
    }
}
