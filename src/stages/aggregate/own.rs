//! An arena of a lane's own for one group whose values are too long for the chunk's.

use super::Plan;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Budget, Reservation};
use std::sync::Arc;

/// See the module. It is empty until a group needs it.
pub(super) struct Own {
    arena: Arena,
    /// What it takes beyond a lane's share.
    room: Reservation,
    share: usize,
}

impl Own {
    /// `share`: bytes of a lane's arena.
    pub(super) fn new(budget: &Arc<Budget>, share: usize) -> Own {
        Own {
            arena: Arena::new(share),
            room: budget.reserve(),
            share,
        }
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Makes it as large as `make` takes, which puts the group there.
    ///
    /// # Errors
    /// `Failed` with the stage's name if the budget does not have that; what else `make` says.
    pub(super) fn make_room(&mut self, plan: &Plan, make: impl Fn(&Arena) -> Result<()>) -> Result<()> {
        loop {
            match make(&self.arena) {
                Err(Error::Memory { limit, wanted, used }) if limit == self.arena.limit() => {
                    // Not twice as much: a long value may be all that there is room for.
                    let needed = used.saturating_add(wanted).saturating_sub(limit);
                    let mut more = needed.max(limit / 4);
                    if self.room.grow(more).is_err() {
                        more = needed;
                        self.room.grow(more).map_err(|e| plan.held(e))?;
                    }
                    self.arena.release();
                    self.arena.set_limit(limit.saturating_add(more));
                }
                made => {
                    self.arena.reset();
                    return made.map_err(|e| plan.held(e));
                }
            }
        }
    }

    /// Lets go of the group that was put there.
    pub(super) fn clear(&mut self) {
        if self.arena.used() > 0 {
            self.arena.release();
            self.arena.set_limit(self.share);
            self.room.shrink(self.room.bytes());
        }
    }
}
