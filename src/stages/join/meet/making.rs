//! Memory for what is made of rows: as many at a time as fit.

use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Reservation};
use std::ops::Range;

/// Memory for what is made of rows.
pub(in crate::stages::join) struct Making {
    pub(in crate::stages::join) arena: Arena,
    pub(in crate::stages::join) room: Reservation,
}

impl Making {
    /// Works on rows in as many pieces as memory makes necessary. What `work` has done when it is refused memory, it has not done.
    pub(in crate::stages::join) fn in_pieces(
        &mut self,
        range: Range<usize>,
        mut work: impl FnMut(Range<usize>, &Arena) -> Result<()>,
    ) -> Result<()> {
        let (mut from, mut len) = (range.start, range.len());
        while from < range.end {
            len = len.min(range.end - from);
            let done = work(from..from + len, &self.arena);
            self.arena.reset();
            match done {
                Ok(()) => from += len,
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(Error::Memory { .. }) => {
                    let more = self.arena.limit();
                    self.room.grow(more)?;
                    self.arena.set_limit(2 * more);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
