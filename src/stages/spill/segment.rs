//! Sorted pieces on disk, frame by frame.
//!
//! A frame is two blocks: keys and order, which the merge reads, and rows, which whoever gathers them reads and unpacks, outside the
//! merge's lock.

use super::file::SpillFile;
use super::index::{FrameAt, Pages};
use super::loaded::Frame;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Budget, Reservation};
use std::sync::Arc;

/// Sorted rows on disk.
pub struct Segment {
    pub(super) file: Arc<SpillFile>,
    pub(super) frames: Vec<FrameAt>,
    pub(super) _index: Reservation,
    pub(super) pages: Option<Box<Pages>>,
    pub(super) rows: u64,
    pub(super) largest: usize,
}

impl Segment {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Frames it has.
    pub fn frames(&self) -> usize {
        self.paged() + self.frames.len()
    }

    /// Whether it comes from a [`Store::short_writer`](super::Store::short_writer).
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
        Frame::load(&self.file, self.frame(index)?, budget, frees)
    }
}
