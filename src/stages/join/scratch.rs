//! Memory for what is made of one batch: little at first, more when it is needed.

use super::super::codes::held;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Budget, Reservation};
use std::sync::Arc;

/// What it starts with, in bytes.
pub(super) const FIRST_ROOM: usize = 512 << 10;

/// An arena under a reservation.
pub(super) struct Scratch {
    pub(super) arena: Arena,
    /// The most it may grow to.
    most: usize,
    reservation: Reservation,
}

impl Scratch {
    /// At most `most` bytes.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if the budget has not even the first room.
    pub(super) fn new(budget: &Arc<Budget>, most: usize) -> Result<Scratch> {
        Scratch::starting_with(FIRST_ROOM, budget, most)
    }

    /// The same with another first room.
    ///
    /// # Errors
    /// As [`Scratch::new`].
    pub(super) fn starting_with(first_room: usize, budget: &Arc<Budget>, most: usize) -> Result<Scratch> {
        let mut reservation = budget.reserve();
        let room = most.min(first_room);
        reservation.grow(room).map_err(|e| held("join", e))?;
        Ok(Scratch {
            arena: Arena::new(room),
            most,
            reservation,
        })
    }

    /// Makes it larger, and empty; whether that was possible.
    pub(super) fn more(&mut self) -> bool {
        let room = self.arena.limit();
        let next = room.saturating_mul(4).min(self.most);
        if next <= room || self.reservation.grow(next - room).is_err() {
            return false;
        }
        self.arena = Arena::new(next);
        true
    }

    /// Gives everything back; it cannot be used any more.
    pub(super) fn close(&mut self) {
        self.arena = Arena::new(0);
        self.most = 0;
        self.reservation.shrink(self.reservation.bytes());
    }
}
