//! Rows of a merge that are walked through one by one, within memory that was set aside for it.

use super::super::picked::PIECE_BYTES;
use super::super::spill::{Merge, Picks};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Kept, Reservation};
use std::sync::Arc;

/// Rows that are read at first, when nothing is known of their size.
const FIRST_ROWS: usize = 64;
/// The most rows of a part.
const MOST_ROWS: usize = 4 << 10;

/// Some rows that are held.
pub(super) struct Part {
    pub(super) kept: Kept,
    _room: Reservation,
}

impl Part {
    /// A copy within `pool`, else within `budget`: a row may be longer than anybody could plan for.
    pub(super) fn copy(batch: &Batch<'_>, pool: &Arc<Budget>, budget: &Arc<Budget>) -> Result<Part> {
        let bytes = batch.copy_bytes();
        let mut room = pool.reserve();
        if room.grow(bytes + PIECE_BYTES).is_err() {
            room = budget.reserve();
            room.grow(bytes + PIECE_BYTES)?;
        }
        Ok(Part {
            kept: Kept::copy(batch, bytes)?,
            _room: room,
        })
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        self.kept.batch()
    }

    pub(super) fn rows(&self) -> usize {
        self.kept.batch().rows()
    }
}

/// What a cursor may take.
pub(super) struct Room {
    /// For its arena, and for each part.
    arena_bytes: usize,
    arena: Reservation,
    pool: Arc<Budget>,
    _pool: Reservation,
    budget: Arc<Budget>,
}

impl Room {
    /// For `parts` parts at the same time.
    pub(super) fn new(budget: &Arc<Budget>, parts: usize) -> Result<Room> {
        let arena_bytes = room_bytes(budget.limit());
        let part_bytes = arena_bytes + PIECE_BYTES;
        let mut arena = budget.reserve();
        arena.grow(arena_bytes)?;
        let mut pool = budget.reserve();
        pool.grow(parts * part_bytes)?;
        Ok(Room {
            arena_bytes,
            arena,
            pool: Budget::new(parts * part_bytes),
            _pool: pool,
            budget: budget.clone(),
        })
    }
}

/// What [`Room::new`] takes for so many parts.
pub(super) fn cursor_bytes(budget_bytes: usize, parts: usize) -> usize {
    let room = room_bytes(budget_bytes);
    room + parts * (room + PIECE_BYTES)
}

/// Bytes of an arena that rows are read into, in a budget of so many bytes.
pub(super) fn room_bytes(budget_bytes: usize) -> usize {
    const PART_OF_BUDGET: usize = 1024;
    const BYTES: std::ops::RangeInclusive<usize> = (32 << 10)..=(128 << 10);
    (budget_bytes / PART_OF_BUDGET).clamp(*BYTES.start(), *BYTES.end())
}

/// A merge, and where its reader stands.
pub(super) struct Cursor {
    merge: Merge,
    picks: Picks,
    /// How many of them were copied.
    given: usize,
    arena: Arena,
    room: Room,
    /// Rows to be read next.
    rows: usize,
    /// The part at hand, and the row in it.
    part: Option<Arc<Part>>,
    at: usize,
}

impl Cursor {
    pub(super) fn new(merge: Merge, room: Room) -> Cursor {
        Cursor {
            merge,
            picks: Picks::default(),
            given: 0,
            arena: Arena::new(room.arena_bytes),
            room,
            rows: FIRST_ROWS,
            part: None,
            at: 0,
        }
    }

    /// The part that has the next row, and where in it; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Arc<Part>, usize)>> {
        loop {
            if let Some(part) = &self.part {
                if self.at < part.rows() {
                    return Ok(Some((part.clone(), self.at)));
                }
                (self.part, self.at) = (None, 0);
            }
            if self.given >= self.picks.len() {
                let rows = self.merge.claim_rows();
                self.merge.next(rows, &mut self.picks)?;
                self.given = 0;
                if self.picks.is_empty() {
                    return Ok(None);
                }
            }
            self.read()?;
        }
    }

    /// A copy of some rows, for which there is room as long as no more parts are held than were planned.
    pub(super) fn copy(&self, batch: &Batch<'_>) -> Result<Part> {
        Part::copy(batch, &self.room.pool, &self.room.budget)
    }

    /// The next row is row `at` of the part at hand.
    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    fn read(&mut self) -> Result<()> {
        self.arena.reset();
        let room = self.room.arena_bytes;
        let len = self.rows.min(self.picks.len() - self.given);
        let batch = match self.picks.gather(self.given, len, &self.arena) {
            Err(Error::Memory { .. }) if len > 1 => {
                self.rows = len / 2;
                return Ok(());
            }
            // One row that is longer: as long as the budget has more.
            Err(Error::Memory { .. }) => {
                let more = self.arena.limit();
                self.room.arena.grow(more)?;
                self.arena.set_limit(2 * more);
                return Ok(());
            }
            batch => batch?,
        };
        let rows = batch.rows();
        // Copies may be longer than what they are copies of: texts are shared in the arena.
        let bytes = batch.copy_bytes();
        if bytes > room && rows > 1 {
            self.rows = rows / 2;
            return Ok(());
        }
        let row_bytes = (bytes.max(self.arena.used()) / rows.max(1)).max(1);
        self.part = Some(Arc::new(Part::copy(&batch, &self.room.pool, &self.room.budget)?));
        self.given += rows;
        self.rows = (room / 4 * 3 / row_bytes).clamp(1, MOST_ROWS);
        Ok(())
    }
}
