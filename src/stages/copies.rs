//! Copies of rows that outlive their chunks, more of them than are wanted for long, and scratch memory to work in.
//!
//! Laws
//! - Every copy is reserved before it is made.
//! - Rows move together once what they take has doubled: moving costs a constant per row that came in.

use super::from::numbered;
use super::groups::{grow, grow_to};
use super::picked::{PIECE_BYTES, gather, kinds};
use super::unnest::scratch_room;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Budget, Emitter, Flow, Kept, Reservation};
use std::sync::Arc;

/// Copies of rows that may be more than are still wanted.
pub(super) struct Copies {
    own: usize,
    budget: Arc<Budget>,
    pieces: Vec<Kept>,
    reservation: Reservation,
    /// Rows of all pieces.
    rows: usize,
    /// What the copies took when they were last moved together.
    after: usize,
}

/// Stands for no copy.
pub(super) const NOWHERE: Pick = (u32::MAX, 0);

/// Something that knows where a copy is.
pub(super) trait Located {
    fn at(&self) -> Pick;
    fn set(&mut self, at: Pick);
}

/// Waste that is not worth moving rows for, in a budget of so many bytes: a small part of it.
pub(super) fn waste_bytes(budget_bytes: usize) -> usize {
    const PART: usize = 32;
    const BYTES: std::ops::RangeInclusive<usize> = (16 << 10)..=(256 << 10);
    (budget_bytes / PART).clamp(*BYTES.start(), *BYTES.end())
}

/// Rows that move into one new piece.
const PIECE_ROWS: usize = 8 << 10;

impl Copies {
    pub(super) fn new(own: usize, budget: &Arc<Budget>) -> Self {
        Copies {
            own,
            budget: budget.clone(),
            pieces: vec![],
            reservation: budget.reserve(),
            rows: 0,
            after: 0,
        }
    }

    /// Sets `bytes` of the budget aside for copies.
    pub(super) fn set_aside(&mut self, bytes: usize) -> Result<()> {
        self.reservation.set_aside(bytes)
    }

    /// Gives up all copies; what is set aside stays.
    fn clear(&mut self) {
        self.pieces = vec![];
        self.reservation.shrink(self.reservation.bytes());
        (self.rows, self.after) = (0, 0);
    }

    /// The same once the lists of them are gone, which `extra` was for: that has `aside` bytes set aside again, of what the copies had, so that
    /// nobody else can take them in between.
    pub(super) fn clear_with(&mut self, extra: &mut Reservation, aside: usize) {
        // Refused, it is as much as there was.
        let _ = extra.set_aside_from(aside, &mut self.reservation);
        extra.shrink(extra.bytes());
        self.clear();
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.reservation.bytes()
    }

    /// About what one row takes.
    pub(super) fn row_bytes(&self) -> usize {
        let bytes: usize = self.pieces.iter().map(Kept::bytes).sum();
        bytes / self.rows.max(1)
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
                self.rows += rows.rows();
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
        self.reservation.bytes() > 2 * self.after + waste_bytes(self.budget.limit())
    }

    /// Moves the rows that are `wanted` together and gives up all others. Refused, all is as it was.
    pub(super) fn compact<E: Located, G: AsMut<[E]>>(&mut self, wanted: &mut [G], scratch: &mut Scratch) -> Result<()> {
        let mut lent = self.budget.reserve();
        let kinds = kinds(self.pieces.iter());
        let kind = |piece: u32| kinds.get(piece as usize).copied().unwrap_or(0);
        // Where each row is that stays, in the order of memory: rows of one piece are read one after the other.
        let mut stay: Vec<(Pick, u32, u32)> = vec![];
        grow_to(
            &mut stay,
            wanted.iter_mut().map(|heap| heap.as_mut().len()).sum(),
            &mut lent,
        )?;
        for (number, heap) in wanted.iter_mut().enumerate() {
            let here = heap
                .as_mut()
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.at() != NOWHERE);
            stay.extend(here.map(|(i, entry)| (entry.at(), number as u32, i as u32)));
        }
        stay.sort_unstable_by_key(|&((piece, row), ..)| (kind(piece), piece, row));
        let mut moved = Copies::new(self.own, &self.budget);
        for same in stay.chunk_by_mut(|a, b| kind(a.0.0) == kind(b.0.0)) {
            for part in same.chunks_mut(PIECE_ROWS) {
                let number = moved.next_piece()?;
                scratch.with(|arena| {
                    let picks = arena.collect(part.len(), |i| part[i].0)?;
                    let rows = gather(&self.pieces, picks, self.own, arena)?;
                    moved.add(rows)
                })?;
                (0..).zip(part).for_each(|(row, stays)| stays.0 = (number, row));
            }
        }
        for (at, heap, entry) in stay {
            wanted[heap as usize].as_mut()[entry as usize].set(at);
        }
        self.clear();
        let after = moved.reservation.bytes();
        (self.pieces, self.rows, self.after) = (moved.pieces, moved.rows, after);
        self.reservation.join(moved.reservation);
        Ok(())
    }
}

/// A row of the input whose copy is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldRow {
    /// What it is chosen by.
    pub(super) rank: u64,
    /// Its number in the input.
    pub(super) row: u64,
    pub(super) at: Pick,
}

impl Located for HeldRow {
    fn at(&self) -> Pick {
        self.at
    }

    fn set(&mut self, at: Pick) {
        self.at = at;
    }
}

/// Passes on the rows that `wanted` names, in the order of the input, in a scratch arena of at most `share` bytes. A row's place is its
/// number: the chunk that could tell its line is long gone.
pub(super) fn emit(copies: &Copies, wanted: &mut [HeldRow], share: usize, out: &mut Emitter<'_, '_>) -> Result<()> {
    wanted.sort_unstable_by_key(|row| row.row);
    let mut reservation = copies.budget.reserve();
    let mut scratch = Arena::new(scratch_room(share, &mut reservation)?);
    let kinds = kinds(copies.pieces.iter());
    let kind = |row: &HeldRow| kinds.get(row.at.0 as usize).copied().unwrap_or(0);
    let mut number = 0;
    for alike in wanted.chunk_by(|a, b| kind(a) == kind(b)) {
        let (mut from, mut rows) = (0, EMIT_ROWS);
        while from < alike.len() {
            scratch.reset();
            let part = &alike[from..alike.len().min(from + rows)];
            let made = scratch.collect(part.len(), |i| part[i].at).and_then(|picks| {
                let batch = gather(&copies.pieces, picks, copies.own, &scratch)?;
                let places = numbered(number, part.len(), &scratch)?;
                Ok(Batch::new(batch.columns(), Some(places), part.len()))
            });
            match made {
                // What follows needs room too: a batch takes at most a quarter.
                Ok(_) if part.len() > 1 && scratch.used() > scratch.limit() / 4 => rows = part.len() / 2,
                Err(Error::Memory { .. }) if part.len() > 1 => rows = part.len() / 2,
                Err(error) => return Err(error),
                Ok(batch) => {
                    if out.emit_in(&scratch, batch)? == Flow::Done {
                        return Ok(());
                    }
                    from += part.len();
                    number += part.len() as u64;
                }
            }
        }
    }
    Ok(())
}

/// The most rows that are passed on at once.
const EMIT_ROWS: usize = 4 << 10;

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

    /// With `bytes` set aside for good.
    ///
    /// # Errors
    /// `Memory` if the budget does not have them.
    pub(super) fn with_room(budget: &Arc<Budget>, bytes: usize) -> Result<Self> {
        let mut scratch = Scratch::new(budget);
        scratch.reservation.set_aside(bytes)?;
        scratch.ensure(bytes)?;
        Ok(scratch)
    }

    /// Makes the arena at least `bytes` large.
    ///
    /// # Errors
    /// `Memory` if the budget does not have that.
    pub(super) fn ensure(&mut self, bytes: usize) -> Result<()> {
        let limit = self.arena.limit();
        if bytes > limit {
            self.reservation.grow(bytes - limit)?;
            self.arena.set_limit(bytes);
        }
        Ok(())
    }

    /// Makes the arena `bytes` large again, if it is larger.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if self.arena.limit() > bytes {
            self.reservation.shrink(self.arena.limit() - bytes);
            self.arena = Arena::new(bytes);
        }
    }

    /// What `work` makes. It is called again when the arena was too small: until then it must change nothing.
    pub(super) fn with<T>(&mut self, mut work: impl FnMut(&Arena) -> Result<T>) -> Result<T> {
        loop {
            match self.within(&mut work) {
                Err(Error::Memory { wanted, used, limit }) if limit == self.arena.limit() => {
                    self.ensure(wanted.saturating_add(used).max(2 * limit).max(FIRST))?;
                }
                other => return other,
            }
        }
    }

    /// What `work` makes in an arena as large as it is.
    pub(super) fn within<T>(&mut self, mut work: impl FnMut(&Arena) -> Result<T>) -> Result<T> {
        self.arena.reset();
        work(&self.arena)
    }
}
