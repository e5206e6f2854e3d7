//! The rows that a lane of `top` keeps, and the scratch memory it works in.
//!
//! Laws
//! - Every copy is reserved before it is made.
//! - Rows move together once what they take has doubled: moving costs a constant per row that came in.

use super::super::groups::{grow, grow_to};
use super::super::picked::{PIECE_BYTES, gather, kinds};
use super::Entry;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Budget, Kept, Reservation};
use std::sync::Arc;

/// Copies of rows that may be more than are still wanted.
pub(super) struct Copies {
    own: usize,
    budget: Arc<Budget>,
    pieces: Vec<Kept>,
    reservation: Reservation,
    /// What the copies took when they were last moved together.
    after: usize,
}

/// Waste that is not worth moving rows for, in bytes.
const SOME: usize = 256 << 10;
/// Rows that move into one new piece.
const PIECE_ROWS: usize = 8 << 10;

impl Copies {
    pub(super) fn new(own: usize, budget: &Arc<Budget>) -> Self {
        Copies {
            own,
            budget: budget.clone(),
            pieces: vec![],
            reservation: budget.reserve(),
            after: 0,
        }
    }

    /// The number of the next piece.
    pub(super) fn next_piece(&self) -> Result<u32> {
        u32::try_from(self.pieces.len()).map_err(|_| Error::Memory {
            wanted: 1,
            used: self.pieces.len(),
            limit: u32::MAX as usize,
        })
    }

    pub(super) fn pieces(&self) -> &[Kept] {
        &self.pieces
    }

    pub(super) fn into_parts(self) -> (Vec<Kept>, Reservation) {
        (self.pieces, self.reservation)
    }

    /// Keeps a copy of these rows as the next piece.
    pub(super) fn add(&mut self, rows: Batch<'_>) -> Result<()> {
        // The places are those of the output: the input's are not kept.
        let rows = Batch::new(&rows.columns()[..self.own], None, rows.rows());
        let bytes = rows.copy_bytes();
        grow(&mut self.pieces, 1, &mut self.reservation)?;
        self.reservation.grow(bytes + PIECE_BYTES)?;
        match Kept::copy(&rows, bytes) {
            Ok(copy) => {
                self.pieces.push(copy);
                Ok(())
            }
            Err(error) => {
                self.reservation.shrink(bytes + PIECE_BYTES);
                Err(error)
            }
        }
    }

    /// Whether the rows should move together.
    pub(super) fn is_wasteful(&self) -> bool {
        self.reservation.bytes() > 2 * self.after + SOME
    }

    /// Moves the rows of `heaps` together and gives up all others.
    pub(super) fn compact(&mut self, heaps: &mut [Vec<Entry>], scratch: &mut Scratch) -> Result<()> {
        let mut lent = self.budget.reserve();
        let kinds = kinds(&self.pieces);
        let kind = |piece: u32| kinds.get(piece as usize).copied().unwrap_or(0);
        // Where each row is that stays, in the order of memory: rows of one piece are read one after the other.
        let mut stay: Vec<(Pick, u32, u32)> = vec![];
        grow_to(&mut stay, heaps.iter().map(Vec::len).sum(), &mut lent)?;
        for (number, heap) in heaps.iter().enumerate() {
            stay.extend((heap.iter().enumerate()).map(|(i, entry)| (entry.at, number as u32, i as u32)));
        }
        stay.sort_unstable_by_key(|&((piece, row), ..)| (kind(piece), piece, row));
        let mut moved = Copies::new(self.own, &self.budget);
        for same in stay.chunk_by(|a, b| kind(a.0.0) == kind(b.0.0)) {
            for part in same.chunks(PIECE_ROWS) {
                let number = moved.next_piece()?;
                scratch.with(|arena| {
                    let picks = arena.collect(part.len(), |i| part[i].0)?;
                    let rows = gather(&self.pieces, picks, self.own, arena)?;
                    moved.add(rows)
                })?;
                for (row, &(_, heap, entry)) in part.iter().enumerate() {
                    heaps[heap as usize][entry as usize].at = (number, row as u32);
                }
            }
        }
        moved.after = moved.reservation.bytes();
        *self = moved;
        Ok(())
    }
}

/// An arena for one block at a time, which grows with what is needed.
pub(super) struct Scratch {
    arena: Arena,
    reservation: Reservation,
}

/// What a scratch arena starts with, in bytes.
const FIRST: usize = 64 << 10;

impl Scratch {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Scratch {
            arena: Arena::new(0),
            reservation: budget.reserve(),
        }
    }

    /// What `work` makes. It is called again when the arena was too small: until then it must change nothing.
    pub(super) fn with<T>(&mut self, mut work: impl FnMut(&Arena) -> Result<T>) -> Result<T> {
        loop {
            self.arena.reset();
            match work(&self.arena) {
                Err(Error::Memory { wanted, used, limit }) if limit == self.arena.limit() => {
                    let room = wanted.saturating_add(used).max(2 * limit).max(FIRST);
                    self.reservation.grow(room - limit)?;
                    self.arena.set_limit(room);
                }
                other => return other,
            }
        }
    }
}
