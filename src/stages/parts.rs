//! A source that a stage reads to its end by itself: what one breaker gives, on its way into another.

use super::unnest::scratch_room;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Flow, Reservation, Source};
use std::sync::Arc;

/// Rows that are looked at together.
const ROWS: usize = 4 << 10;

/// The memory for reading, set aside.
pub(super) struct Parts {
    arena: Arena,
    room: Reservation,
}

impl Parts {
    /// With about `bytes` of memory, less if there is not as much.
    pub(super) fn new(budget: &Arc<Budget>, bytes: usize) -> Result<Parts> {
        let mut room = budget.reserve();
        let arena = Arena::new(scratch_room(bytes, &mut room)?);
        Ok(Parts { arena, room })
    }

    /// Gives every part of `source` to `work`; ends early once that says `Done`. Parts leave most of the arena to `work`, unless one row
    /// alone takes more: then the arena grows as far as the budget lets it.
    ///
    /// # Errors
    /// What `source` finds wrong with a row, too: nobody else hears of it.
    pub(super) fn each(
        &mut self,
        source: &Arc<dyn Source>,
        mut work: impl for<'a> FnMut(Batch<'a>, &'a Arena) -> Result<Flow>,
    ) -> Result<()> {
        let mut reader = source.clone().reader()?;
        let mut rows = ROWS;
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket)?;
            while more {
                self.arena.reset();
                match reader.decode(&self.arena, rows, true) {
                    Err(Error::Memory { .. }) if rows > 1 => rows /= 2,
                    Err(Error::Memory { .. }) => {
                        let more = self.arena.limit();
                        self.room.grow(more)?;
                        self.arena.set_limit(2 * more);
                    }
                    Err(error) => return Err(error),
                    Ok(part) => {
                        more = !part.last;
                        if let Some(fault) = part.faults.iter().next() {
                            return Err(Error::Failed {
                                code: fault.code,
                                message: fault.message.to_owned(),
                                help: fault.help.map(str::to_owned),
                                span: fault.span,
                            });
                        }
                        if self.arena.used() > self.arena.limit() / 4 {
                            rows = (rows / 2).max(1);
                        }
                        if part.batch.rows() > 0 && work(part.batch, &self.arena)? == Flow::Done {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
