//! What one lane of a sort has collected, and its way to disk.
//!
//! Laws
//! - What taking a row and writing all of them takes is set aside when the lane is made.
//! - After a refusal every row that was taken is in memory or on disk, once.

use super::super::keys::KeyBlock;
use super::super::spill::SegmentWriter;
use super::Sort;
use super::collected::Collected;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Column, Reservation};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// What a segment has at most, unless there is memory for more than a few of them.
const SEGMENT_BYTES: usize = 16 << 20;

/// What one lane has collected, and what it spills with.
pub(super) struct Lane {
    pub(super) rows: Collected,
    writer: SegmentWriter,
    /// For keys, and for rows on their way to disk.
    scratch: Arena,
    scratch_room: Reservation,
    /// The chunk that is being taken, and how many of its rows have been.
    chunk: u64,
    chunk_rows: u32,
    /// Refusals of all lanes that this one knows of.
    refusals: u64,
}

/// What a lane sets aside for copies of rows.
fn kept_aside(frame_bytes: usize) -> usize {
    3 * frame_bytes
}

/// And for entries.
fn extra_aside(frame_bytes: usize) -> usize {
    3 * frame_bytes
}

impl Lane {
    pub(super) fn new(sort: &Sort) -> Result<Lane> {
        let frame = sort.store.frame_bytes();
        let budget = &sort.setup.budget;
        let mut rows = Collected::new(budget);
        let mut scratch_room = budget.reserve();
        scratch_room.set_aside(4 * frame)?;
        scratch_room.grow(4 * frame)?;
        // What is needed to take a row or two, however little the other stages leave.
        rows.kept.set_aside(kept_aside(frame))?;
        rows.extra.set_aside(extra_aside(frame))?;
        Ok(Lane {
            rows,
            writer: sort.store.writer()?,
            scratch: Arena::new(4 * frame),
            scratch_room,
            chunk: 0,
            chunk_rows: 0,
            refusals: 0,
        })
    }

    pub(super) fn take_rows(&mut self, sort: &Sort) -> Collected {
        std::mem::replace(&mut self.rows, Collected::new(&sort.setup.budget))
    }

    /// Takes the rows from `from` on, and moves that on. After a refusal the rest may come again.
    pub(super) fn push(&mut self, sort: &Sort, chunk: u64, batch: &Batch<'_>, from: &mut usize) -> Result<()> {
        if self.chunk != chunk {
            (self.chunk, self.chunk_rows) = (chunk, 0);
        }
        let refusals = sort.refusals.load(Relaxed);
        if self.refusals != refusals {
            self.refusals = refusals;
            // Another lane was refused. A lane that holds much makes room, so that not always the one with little has to.
            if self.rows.bytes() > sort.setup.budget.limit() / (2 * sort.setup.workers.max(1)) {
                self.spill(sort)?;
            }
        }
        let mut columns: Vec<Column<'_>> = vec![];
        let mut len = batch.rows();
        while *from < batch.rows() {
            len = len.min(batch.rows() - *from);
            columns.clear();
            columns.extend(batch.columns().iter().map(|c| c.slice(*from, len)));
            let taken = self.take(sort, &Batch::new(&columns, None, len));
            self.scratch.reset();
            match taken {
                Ok(()) => {
                    *from += len;
                    self.chunk_rows = self.chunk_rows.saturating_add(len as u32);
                }
                Err(Error::Memory { .. }) if !self.rows.entries.is_empty() => {
                    sort.refusals.fetch_add(1, Relaxed);
                    self.spill(sort)?;
                }
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(Error::Memory { .. }) => match self.write_at_once(sort, &Batch::new(&columns, None, 1)) {
                    Ok(()) => {
                        *from += 1;
                        self.chunk_rows = self.chunk_rows.saturating_add(1);
                    }
                    // Its key is longer than what is set aside for that: as long as the budget has more.
                    Err(Error::Memory { limit, .. }) if limit == self.scratch.limit() => {
                        self.scratch_room.grow(limit)?;
                        self.scratch.set_limit(2 * limit);
                    }
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        let forced = sort.store.spill().spill_rows();
        if forced.is_some_and(|rows| self.rows.entries.len() >= rows) || self.rows.bytes() > sort.most {
            self.spill(sort)?;
        }
        Ok(())
    }

    /// One row for which there is no room beside a copy of it, while no other is in memory: a segment of its own.
    fn write_at_once(&mut self, sort: &Sort, row: &Batch<'_>) -> Result<()> {
        self.scratch.reset();
        let written = (|| {
            let keys = sort.keys.block(row, &self.scratch)?;
            let key = keys.get(0);
            // As long as that of an entry, which is padded.
            let padded = self
                .scratch
                .collect(key.len().max(sort.head), |at| key.get(at).copied().unwrap_or(0))?;
            let ends = self.scratch.collect(2, |at| (at * padded.len()) as u32)?;
            let (keys, kept) = (
                KeyBlock::each(padded, ends),
                Batch::new(&row.columns()[..sort.own], None, 1),
            );
            self.writer.append_long(&kept, &keys, (self.chunk, self.chunk_rows))?;
            self.writer.keep()
        })();
        self.scratch.reset();
        if written.is_err() {
            self.writer.forget();
        }
        written
    }

    fn take(&mut self, sort: &Sort, batch: &Batch<'_>) -> Result<()> {
        let keys = sort.keys.block(batch, &self.scratch)?;
        let kept = Batch::new(&batch.columns()[..sort.own], None, batch.rows());
        self.writer.make_room(&kept, &keys)?;
        self.rows.take(&kept, &keys, sort.short, self.chunk, self.chunk_rows)
    }

    /// All rows in memory go to disk, as segments of a length that is sorted and gathered without leaving the caches too often. After an
    /// error the rows that are in no segment are still here: it can be tried again.
    pub(super) fn spill(&mut self, sort: &Sort) -> Result<()> {
        if self.rows.entries.is_empty() {
            return Ok(());
        }
        let all = self.rows.entries.len();
        let row_bytes = (self.rows.bytes() / all).max(1);
        let rows = (SEGMENT_BYTES.max(sort.setup.budget.limit() / 8) / row_bytes).max(1);
        let rows = all.div_ceil(all.div_ceil(rows));
        let mut from = 0;
        while from < all {
            let to = all.min(from + rows);
            if let Err(error) = self.segment(from..to, sort) {
                self.writer.forget();
                self.rows.entries.drain(..from);
                return Err(error);
            }
            from = to;
        }
        self.rows.clear();
        self.writer.slim();
        Ok(())
    }

    fn segment(&mut self, rows: Range<usize>, sort: &Sort) -> Result<()> {
        self.rows.sort(rows.clone());
        self.rows.write(rows, &mut self.writer, &mut self.scratch, sort)?;
        self.writer.keep()
    }
}
