//! What rows on disk say about rows to come: behind a row that is preceded by as many as are wanted, none is among the first.
//!
//! Of each sorted piece that is written, some rows are remembered, each with how many stand behind the remembered one before it, up to
//! and with itself. Put in order, the counts add up to a bound.
//!
//! Laws
//! - Memory is a constant, reserved when the bounds are made.
//! - A row is ruled out only if as many rows as are wanted, all on disk, come before it.

use super::groups::grow_to;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Budget, Reservation};
use std::sync::Arc;

/// A row's place in the order: the first bytes of its key as numbers that order like them, and where it came in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    pub(super) prefix: [u64; 3],
    pub(super) order: (u64, u32),
}

impl Rank {
    /// Of a row whose key goes on behind the prefix: it counts as the last of those that begin alike.
    pub(super) fn behind(prefix: [u64; 3]) -> Rank {
        Rank {
            prefix,
            order: (u64::MAX, u32::MAX),
        }
    }
}

/// Rows of one piece that are remembered.
const OF_PIECE: usize = 64;
/// Rows that are remembered in all.
const MOST: usize = 4 * OF_PIECE;

/// What [`Bounds`] take, in bytes: less than a frame.
#[cfg(test)]
const BYTES: usize = MOST * size_of::<(Rank, u64)>();

/// The rows that are remembered.
pub(super) struct Bounds {
    /// How many rows are wanted.
    wanted: u64,
    /// Each with how many rows it stands for, ascending.
    rows: Vec<(Rank, u64)>,
    _room: Reservation,
}

impl Bounds {
    /// For the first `wanted` rows.
    ///
    /// # Errors
    /// `Memory` if the budget does not have what they take.
    pub(super) fn new(wanted: u64, budget: &Arc<Budget>) -> Result<Bounds> {
        let mut room = budget.reserve();
        let mut rows = vec![];
        grow_to(&mut rows, MOST, &mut room)?;
        Ok(Bounds {
            wanted,
            rows,
            _room: room,
        })
    }

    /// Remembers some of `count` rows that were written; `rank` is asked for the row at a position among them, in order.
    pub(super) fn add(&mut self, count: usize, rank: impl Fn(usize) -> Rank) {
        while self.rows.len() + OF_PIECE > MOST {
            self.thin_out();
        }
        let parts = OF_PIECE.min(count);
        let mut before = 0;
        for part in 1..=parts {
            let end = (count as u128 * part as u128 / parts as u128) as usize;
            self.rows.push((rank(end - 1), (end - before) as u64));
            before = end;
        }
        self.rows.sort_unstable();
        // Those behind the bound never matter again, for it only moves to the front.
        let mut sum = 0u64;
        let end = self.rows.iter().position(|(_, rows)| {
            sum = sum.saturating_add(*rows);
            sum >= self.wanted
        });
        if let Some(end) = end {
            self.rows.truncate(end + 1);
        }
    }

    /// Of two neighbours the later one stands for both.
    fn thin_out(&mut self) {
        let mut count = 0;
        for at in (0..self.rows.len()).step_by(2) {
            self.rows[count] = match self.rows.get(at + 1) {
                Some(&(rank, rows)) => (rank, rows + self.rows[at].1),
                None => self.rows[at],
            };
            count += 1;
        }
        self.rows.truncate(count);
    }

    /// The row behind which none is among the first, if there is one.
    pub(super) fn bound(&self) -> Option<Rank> {
        let sum = self.rows.iter().fold(0u64, |sum, (_, rows)| sum.saturating_add(*rows));
        let (last, _) = self.rows.last().filter(|_| sum >= self.wanted)?;
        Some(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::keys::hash;

    fn rank(value: u64) -> Rank {
        Rank {
            prefix: [value >> 3, value & 7, 0],
            order: (value, 0),
        }
    }

    #[test]
    fn no_row_that_is_wanted_is_ruled_out_and_most_others_are() {
        for (wanted, pieces, of_piece) in [(1, 5, 1), (10, 1, 10), (700, 90, 40), (5000, 60, 1000), (900, 3, 200)] {
            let budget = Budget::new(BYTES);
            let mut bounds = Bounds::new(wanted, &budget).unwrap();
            let mut all: Vec<u64> = vec![];
            for piece in 0..pieces {
                let mut values: Vec<u64> = (0..of_piece)
                    .map(|row: u64| hash(&(piece << 32 | row).to_le_bytes()) % 100_000)
                    .collect();
                values.sort_unstable();
                bounds.add(values.len(), |at| rank(values[at]));
                all.extend(values);
                all.sort_unstable();
                match (bounds.bound(), all.get(wanted as usize - 1)) {
                    (Some(bound), Some(&last)) => assert!(bound >= rank(last), "{wanted} {piece}"),
                    (bound, last) => assert!(bound.is_none() && last.is_none(), "{wanted} {piece}"),
                }
            }
            if let Some(bound) = bounds.bound() {
                let past = all.iter().filter(|&&value| rank(value) <= bound).count() as u64;
                assert!(past <= wanted + wanted / 2 + 1, "{past} of {wanted}");
            }
        }
        assert!(Bounds::new(1, &Budget::new(BYTES - 1)).is_err());
        assert!(
            BYTES <= crate::stages::spill::frame_bytes(0),
            "a frame is set aside for them"
        );
    }
}
