//! A sorted stream that is walked through row by row, within memory that was set aside for it.

use super::super::picked::PIECE_BYTES;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Kept, Reader, Reservation, Source};
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
    /// For its arena; parts are about half of that.
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
        let mut arena = budget.reserve();
        arena.grow(arena_bytes)?;
        let mut pool = budget.reserve();
        pool.grow(parts * arena_bytes)?;
        Ok(Room {
            arena_bytes,
            arena,
            pool: Budget::new(parts * arena_bytes),
            _pool: pool,
            budget: budget.clone(),
        })
    }
}

/// Bytes of an arena that rows are read into, in a budget of so many bytes.
pub(super) fn room_bytes(budget_bytes: usize) -> usize {
    const PART_OF_BUDGET: usize = 2048;
    const BYTES: std::ops::RangeInclusive<usize> = (32 << 10)..=(128 << 10);
    (budget_bytes / PART_OF_BUDGET).clamp(*BYTES.start(), *BYTES.end())
}

/// A stream, and where its reader stands.
pub(super) struct Cursor {
    source: Arc<dyn Source>,
    reader: Box<dyn Reader>,
    arena: Arena,
    room: Room,
    /// The claim has more.
    open: bool,
    /// Rows to be read next.
    rows: usize,
    /// The part at hand, and the row in it.
    part: Option<Arc<Part>>,
    at: usize,
}

impl Cursor {
    pub(super) fn new(source: Arc<dyn Source>, room: Room) -> Result<Cursor> {
        Ok(Cursor {
            reader: source.clone().reader()?,
            source,
            arena: Arena::new(room.arena_bytes),
            room,
            open: false,
            rows: FIRST_ROWS,
            part: None,
            at: 0,
        })
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
            if !self.open {
                let Some(ticket) = self.source.ticket() else {
                    return Ok(None);
                };
                self.open = self.reader.claim(ticket)?;
                continue;
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
        let part = match self.reader.decode(&self.arena, self.rows, true) {
            Err(Error::Memory { .. }) if self.rows > 1 => {
                self.rows /= 2;
                return Ok(());
            }
            // One row that is longer: as long as the budget has more.
            Err(Error::Memory { .. }) => {
                let more = self.arena.limit();
                self.room.arena.grow(more)?;
                self.arena.set_limit(2 * more);
                return Ok(());
            }
            part => part?,
        };
        self.open = !part.last;
        let rows = part.batch.rows();
        if rows == 0 {
            return Ok(());
        }
        let batch = Batch::new(part.batch.columns(), None, rows);
        // Copies may be longer than what they are copies of: texts are shared in the arena.
        let row_bytes = (batch.copy_bytes().max(self.arena.used()) / rows).max(1);
        self.part = Some(Arc::new(Part::copy(&batch, &self.room.pool, &self.room.budget)?));
        self.rows = (room / 2 / row_bytes).clamp(1, MOST_ROWS);
        Ok(())
    }
}
