//! Lets chunks pass one at a time, in order.
//!
//! Laws
//! - A chunk passes each turnstile exactly once: it waits for its ticket, then leaves it to the next one.
//! - Only the run's end wakes a waiter out of turn; it then answers `Cancelled`.
//!
//! Advice: `at` and `sleepers` are both sequentially consistent on purpose. A waiter announces itself before it looks at `at` for the
//! last time, a leaver moves `at` before it looks for sleepers; in any order of the two, one of them sees the other.

use standpipe_sdk::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The position of a chunk in the order of the run: claim number and part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(u64);

/// Bits of a ticket that number the part.
const PART_BITS: u32 = 24;
/// The most parts one claim can be cut into.
pub(crate) const MAX_PARTS: u64 = 1 << PART_BITS;

impl Ticket {
    pub(crate) fn new(claim: u64, part: u64) -> Self {
        debug_assert!(part < MAX_PARTS);
        Ticket(claim << PART_BITS | part)
    }

    pub(crate) fn claim(self) -> u64 {
        self.0 >> PART_BITS
    }

    /// The ticket that follows when this part is (`last`) or is not the claim's last.
    pub(crate) fn next(self, last: bool) -> Self {
        if last {
            Ticket::new(self.claim() + 1, 0)
        } else {
            Ticket(self.0 + 1)
        }
    }

    /// As a number that orders like the tickets.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// See the module.
pub(crate) struct Turnstile {
    at: AtomicU64,
    sleepers: AtomicUsize,
    gate: Mutex<()>,
    moved: Condvar,
    /// See [`Turnstile::end`].
    end: AtomicU64,
}

/// How often a waiter looks before it sleeps. Short: with as many workers as cores, whoever has the turn needs the core.
const SPINS: usize = 64;
/// How long a sleeper may miss the end of the run.
const NAP: Duration = Duration::from_millis(20);

impl Default for Turnstile {
    fn default() -> Self {
        Turnstile {
            at: AtomicU64::default(),
            sleepers: AtomicUsize::default(),
            gate: Mutex::default(),
            moved: Condvar::default(),
            end: AtomicU64::new(u64::MAX),
        }
    }
}

impl Turnstile {
    /// Who is behind it wants nothing of what comes behind `ticket`. Only the holder of the turn may say so.
    pub(crate) fn end(&self, ticket: Ticket) {
        self.end.fetch_min(ticket.0, SeqCst);
    }

    /// Whether who is behind it wants nothing of `ticket`: known for certain once it has the turn.
    pub(crate) fn ended_before(&self, ticket: Ticket) -> bool {
        self.end.load(SeqCst) < ticket.0
    }

    /// Returns when it is `ticket`'s turn.
    ///
    /// # Errors
    /// `Cancelled` once `dead` is set.
    pub(crate) fn wait(&self, ticket: Ticket, dead: &AtomicBool) -> Result<()> {
        for _ in 0..SPINS {
            if self.at.load(SeqCst) == ticket.0 {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, SeqCst);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = loop {
            if self.at.load(SeqCst) == ticket.0 {
                break Ok(());
            }
            if dead.load(SeqCst) {
                break Err(Error::Cancelled);
            }
            gate = self
                .moved
                .wait_timeout(gate, NAP)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        drop(gate);
        self.sleepers.fetch_sub(1, SeqCst);
        answer
    }

    /// Hands the turn to `next`. Only the holder of the turn may.
    pub(crate) fn leave(&self, next: Ticket) {
        debug_assert!(self.at.load(SeqCst) <= next.0);
        self.at.store(next.0, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.moved.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_pass_in_order_whatever_the_threads_do() {
        let (turn, dead) = (Turnstile::default(), AtomicBool::new(false));
        let seen = Mutex::new(Vec::new());
        let next = AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    loop {
                        let claim = next.fetch_add(1, SeqCst);
                        if claim >= 500 {
                            return;
                        }
                        for part in 0..2 {
                            let ticket = Ticket::new(claim, part);
                            turn.wait(ticket, &dead).unwrap();
                            seen.lock().unwrap().push(ticket.number());
                            turn.leave(ticket.next(part == 1));
                        }
                    }
                });
            }
        });
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), 1000);
        assert!(seen.is_sorted());
    }

    #[test]
    fn the_end_of_the_run_wakes_a_waiter() {
        let (turn, dead) = (Turnstile::default(), AtomicBool::new(false));
        std::thread::scope(|s| {
            let waiter = s.spawn(|| turn.wait(Ticket::new(7, 0), &dead));
            dead.store(true, SeqCst);
            assert!(matches!(waiter.join().unwrap(), Err(Error::Cancelled)));
        });
    }
}
