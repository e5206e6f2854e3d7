//! Copies of rows that outlive their chunks, more of them than are wanted for long, and scratch memory to work in.
//!
//! Laws
//! - Every copy is reserved before it is made.
//! - Rows move together once what they take has doubled: moving costs a constant per row that came in.

use super::from::numbered;
use super::groups::{grow, grow_to};
use super::picked::{PIECE_BYTES, gather, kinds};
use super::unnest::{least_room, scratch_room};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{Least, Room};
use standpipe_sdk::{Arena, Batch, Budget, Emitter, Flow, Kept, Reservation};
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

/// Stands for no copy.
pub(super) const NOWHERE: Pick = (u32::MAX, 0);

/// Something that knows where a copy is.
pub(super) trait Located {
    fn at(&self) -> Pick;
    fn set(&mut self, at: Pick);
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

    /// Keeps copies of the rows of `batch` that `indices` names as the next piece; none, no piece.
    pub(super) fn add_some(&mut self, batch: &Batch<'_>, indices: &[u32], scratch: &mut Scratch) -> Result<()> {
        if indices.is_empty() {
            return Ok(());
        }
        let own = self.own;
        scratch.with(|arena| self.add(batch.gather(indices, own, arena)?))
    }

    /// Whether the rows should move together.
    pub(super) fn is_wasteful(&self) -> bool {
        self.reservation.bytes() > 2 * self.after + SOME
    }

    /// Moves the rows that are `wanted` together and gives up all others.
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
        for same in stay.chunk_by(|a, b| kind(a.0.0) == kind(b.0.0)) {
            for part in same.chunks(PIECE_ROWS) {
                let number = moved.next_piece()?;
                scratch.with(|arena| {
                    let picks = arena.collect(part.len(), |i| part[i].0)?;
                    let rows = gather(&self.pieces, picks, self.own, arena)?;
                    moved.add(rows)
                })?;
                for (row, &(_, heap, entry)) in part.iter().enumerate() {
                    wanted[heap as usize].as_mut()[entry as usize].set((number, row as u32));
                }
            }
        }
        moved.after = moved.reservation.bytes();
        *self = moved;
        Ok(())
    }
}

/// A row of the input whose copy is kept.
#[derive(Clone, Copy)]
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

/// What [`emit`] cannot do without.
pub(super) fn least(room: &Room) -> Least {
    Least {
        takes: 0,
        gives: least_room(room.share),
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
