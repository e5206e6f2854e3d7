//! Rows that a merge gave: each is a frame, which is held, and a row of it.

use super::super::loaded::Frame;
use crate::stages::keys::KeyBlock;
use crate::stages::picked::Alike;
use standpipe_sdk::error::Result;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Column, Columns};
use std::sync::Arc;

/// Not among the frames of the picks.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Rows that a merge gave, in order.
#[derive(Default)]
pub struct Picks {
    pub(super) frames: Vec<Arc<Frame>>,
    pub(super) picks: Vec<Pick>,
}

impl Picks {
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Where row `at` is.
    #[inline]
    pub fn row(&self, at: usize) -> (&Arc<Frame>, usize) {
        let (frame, row) = self.picks[at];
        (&self.frames[frame as usize], row as usize)
    }

    /// The key of row `at`. Runs of equal keys may go on in the next picks.
    #[inline]
    pub fn key(&self, at: usize) -> &[u8] {
        let (frame, row) = self.row(at);
        frame.key(row)
    }

    /// Rows `from..from + len`, or fewer: as many as store the same kinds of values (at least one).
    ///
    /// # Errors
    /// `Memory` if `arena` is full; `Failed` if the file is damaged.
    pub fn gather<'a>(&'a self, from: usize, len: usize, arena: &'a Arena) -> Result<Batch<'a>> {
        let numbers = arena.fill(self.frames.len(), NOWHERE)?;
        let mut batches: Vec<Batch<'a>> = vec![];
        let mut kind = Alike::default();
        let mut picks = &self.picks[from..from + len];
        for (at, &(frame, _)) in picks.iter().enumerate() {
            let number = &mut numbers[frame as usize];
            if *number != NOWHERE {
                continue;
            }
            let batch = self.frames[frame as usize].rows()?;
            if !kind.takes(&batch) {
                picks = &picks[..at];
                break;
            }
            *number = batches.len() as u32;
            batches.push(batch);
        }
        let local = arena.map(picks, |(frame, row)| (numbers[frame as usize], row))?;
        let width = batches.first().map_or(0, |b| b.columns().len());
        let mut columns = Columns::new(arena, width)?;
        for index in 0..width {
            let parts = arena.collect(batches.len(), |i| batches[i].column(index))?;
            columns.push(Column::interleave(parts, local, arena)?);
        }
        Ok(Batch::new(columns.finish(), None, local.len()))
    }

    /// The keys of rows `from..from + len`.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn keys<'a>(&self, from: usize, len: usize, arena: &'a Arena) -> Result<KeyBlock<'a>> {
        let mut end = 0usize;
        let ends = arena.collect(len + 1, |at| {
            let before = end;
            if at < len {
                end += self.key(from + at).len();
            }
            before as u32
        })?;
        let bytes = arena.fill(end, 0u8)?;
        for at in 0..len {
            let key = self.key(from + at);
            bytes[ends[at] as usize..][..key.len()].copy_from_slice(key);
        }
        Ok(KeyBlock::each(bytes, ends))
    }

    /// The order of rows `from..from + len`: chunks, and rows in them.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn orders<'a>(&self, from: usize, len: usize, arena: &'a Arena) -> Result<(&'a [u64], &'a [u32])> {
        let order = |at: usize| {
            let (frame, row) = self.row(from + at);
            frame.order(row)
        };
        Ok((
            arena.collect(len, |at| order(at).0)?,
            arena.collect(len, |at| order(at).1)?,
        ))
    }

    /// Leaves the first `len` rows.
    pub(in crate::stages::spill) fn truncate(&mut self, len: usize) {
        self.picks.truncate(len);
    }

    /// Leaves the rows whose keys `stays` says so of, asked in order.
    ///
    /// # Errors
    /// The first that `stays` answers.
    pub fn retain(&mut self, mut stays: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        let mut count = 0;
        for at in 0..self.picks.len() {
            if stays(self.key(at))? {
                self.picks[count] = self.picks[at];
                count += 1;
            }
        }
        self.picks.truncate(count);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.picks.clear();
    }
}
