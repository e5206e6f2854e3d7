//! A source that a stage reads to its end by itself: what one breaker gives, on its way into another.

use super::unnest::scratch_room;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Flow, Reservation, Source};
use std::sync::Arc;

/// Rows that are looked at together.
const ROWS: usize = 4 << 10;

/// The memory for reading, set aside: an arena for a part of a source, and one for the work on it.
pub(super) struct Parts {
    part: Arena,
    work: Arena,
    reservation: Reservation,
}

impl Parts {
    /// With about `bytes` of memory, less if there is not as much.
    pub(super) fn new(budget: &Arc<Budget>, bytes: usize) -> Result<Parts> {
        let mut reservation = budget.reserve();
        let half = scratch_room(bytes, &mut reservation)? / 2;
        Ok(Parts {
            part: Arena::new(half),
            work: Arena::new(half),
            reservation,
        })
    }

    /// Gives all of `source` to `work`; ends early once that says `Done`. Work that is refused by the arena it is given comes again with fewer
    /// rows, and for a row that is longer than usual the arenas grow as far as the budget lets them.
    ///
    /// # Errors
    /// What `source` finds wrong with a row, too: nobody else hears of it.
    pub(super) fn each(
        &mut self,
        source: &Arc<dyn Source>,
        mut work: impl for<'a> FnMut(Batch<'a>, &'a Arena) -> Result<Flow>,
    ) -> Result<()> {
        let Parts {
            part: arena,
            work: second,
            reservation,
        } = self;
        let mut reader = source.clone().reader()?;
        let mut rows = ROWS;
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket)?;
            while more {
                arena.reset();
                let part = match reader.decode(arena, rows, true) {
                    Err(Error::Memory { .. }) if rows > 1 => {
                        rows /= 2;
                        continue;
                    }
                    Err(Error::Memory { limit, .. }) if limit == arena.limit() => {
                        double(arena, reservation)?;
                        continue;
                    }
                    other => other?,
                };
                if let Some(fault) = part.faults.iter().next() {
                    return Err(Error::Failed {
                        code: fault.code,
                        message: fault.message.to_owned(),
                        help: fault.help.map(str::to_owned),
                        span: fault.span,
                    });
                }
                more = !part.last;
                // What was refused may have been one long row.
                rows = (rows * 2).min(ROWS);
                let (mut from, mut len) = (0, part.batch.rows());
                while from < part.batch.rows() {
                    second.reset();
                    len = len.min(part.batch.rows() - from);
                    let some = part.batch.slice(from, len, second);
                    match some.and_then(|some| work(some, second)) {
                        Err(Error::Memory { .. }) if len > 1 => len /= 2,
                        Err(Error::Memory { limit, .. }) if limit == second.limit() => double(second, reservation)?,
                        Ok(Flow::Done) => return Ok(()),
                        Ok(Flow::More) => from += len,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Makes an arena twice as large.
fn double(arena: &mut Arena, reservation: &mut Reservation) -> Result<()> {
    let bytes = arena.limit();
    reservation.grow(bytes)?;
    arena.set_limit(2 * bytes);
    Ok(())
}
