//! The rows of a lane that are in memory: batches that are kept, and an entry for each row, which is what is sorted.
//!
//! Laws
//! - A batch that is refused changes nothing.

use super::super::groups::grow;
use super::super::keys::KeyBlock;
use super::super::picked::{self, PIECE_BYTES};
use super::super::spill::SegmentWriter;
use super::Sort;
use super::entry::{Entry, Piece, Tails, compare, head};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Kept, Reservation};
use std::ops::Range;
use std::sync::Arc;

/// The rows in memory.
pub(super) struct Collected {
    pub(super) entries: Vec<Entry>,
    pub(super) pieces: Vec<Piece>,
    /// For the kept rows: lives as long as the sorted source.
    pub(super) kept: Reservation,
    /// For entries and tails: given back once the order is known.
    pub(super) extra: Reservation,
}

impl Collected {
    pub(super) fn new(budget: &Arc<Budget>) -> Collected {
        Collected {
            entries: vec![],
            pieces: vec![],
            kept: budget.reserve(),
            extra: budget.reserve(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.kept.bytes() + self.extra.bytes()
    }

    pub(super) fn take(
        &mut self,
        batch: &Batch<'_>,
        keys: &KeyBlock<'_>,
        short: bool,
        chunk: u64,
        first: u32,
    ) -> Result<()> {
        let rows = batch.rows();
        let too_many = || Error::Memory {
            wanted: rows,
            used: self.pieces.len(),
            limit: u32::MAX as usize,
        };
        let piece = u32::try_from(self.pieces.len()).map_err(|_| too_many())?;
        let bytes = batch.copy_bytes();

        // All room first: nothing changes before the last refusal.
        grow(&mut self.entries, rows, &mut self.extra)?;
        grow(&mut self.pieces, 1, &mut self.extra)?;
        let charged = self.extra.bytes();
        let made = Tails::new(keys, short, &mut self.extra).and_then(|tails| {
            self.kept.grow(bytes + PIECE_BYTES)?;
            let copy = Kept::copy(batch, bytes);
            if copy.is_err() {
                self.kept.shrink(bytes + PIECE_BYTES);
            }
            Ok((tails, copy?))
        });
        let (tails, kept) = made.inspect_err(|_| self.extra.shrink(self.extra.bytes() - charged))?;
        self.entries.extend((0..rows).map(|row| Entry {
            head: head(keys.get(row)),
            piece,
            row: row as u32,
        }));
        self.pieces.push(Piece {
            rows: kept,
            chunk,
            first,
            tails,
        });
        Ok(())
    }

    pub(super) fn sort(&mut self, rows: Range<usize>) {
        let Collected { entries, pieces, .. } = self;
        entries[rows].sort_unstable_by(|a, b| compare(a, &pieces[a.piece as usize], b, &pieces[b.piece as usize]));
    }

    /// Appends the rows, which are sorted, to a segment.
    pub(super) fn write(
        &self,
        rows: Range<usize>,
        writer: &mut SegmentWriter,
        scratch: &mut Arena,
        sort: &Sort,
    ) -> Result<()> {
        let kinds = picked::kinds(self.pieces.iter().map(|p| &p.rows));
        let bytes: usize = self.pieces.iter().map(|p| p.rows.bytes()).sum();
        let row_bytes = (bytes / self.entries.len().max(1)).max(1);
        let usual = (2 * sort.store.frame_bytes() / row_bytes).clamp(1, 1 << 14);
        let (mut from, mut len) = (rows.start, usual);
        while from < rows.end {
            let some = &self.entries[from..rows.end.min(from + len)];
            let some = picked::alike(some, |e| kinds.get(e.piece as usize));
            match self.append(some, writer, scratch, sort) {
                Ok(()) => {
                    from += some.len();
                    len = usual;
                }
                // Nothing was written: gathering comes first.
                Err(Error::Memory { .. }) if some.len() > 1 => len = some.len().div_ceil(2),
                Err(error) => return Err(error),
            }
            scratch.reset();
        }
        Ok(())
    }

    fn append(&self, some: &[Entry], writer: &mut SegmentWriter, scratch: &Arena, sort: &Sort) -> Result<()> {
        let width = sort.head;
        let picks = scratch.map(some, |e| (e.piece, e.row))?;
        let batch = picked::gather_of(picks, sort.own, scratch, |piece| {
            self.pieces[piece as usize].rows.batch()
        })?;
        let piece = |at: usize| &self.pieces[some[at].piece as usize];
        let mut end = 0;
        let ends = scratch.collect(some.len() + 1, |at| {
            let before = end;
            if at < some.len() {
                end += width + piece(at).tails.get(some[at].row).len();
            }
            before as u32
        })?;
        let bytes = scratch.fill(end, 0u8)?;
        for (at, entry) in some.iter().enumerate() {
            let (head, tail) = bytes[ends[at] as usize..ends[at + 1] as usize].split_at_mut(width);
            entry.write_head(head);
            if !tail.is_empty() {
                tail.copy_from_slice(piece(at).tails.get(entry.row));
            }
        }
        let chunks = scratch.collect(some.len(), |at| piece(at).chunk)?;
        let rows = scratch.collect(some.len(), |at| piece(at).first + some[at].row)?;
        writer.append(&batch, &KeyBlock::each(bytes, ends), chunks, rows)
    }

    pub(super) fn clear(&mut self) {
        self.entries = vec![];
        self.pieces = vec![];
        self.kept.shrink(self.kept.bytes());
        self.extra.shrink(self.extra.bytes());
    }
}
