//! Where claims wait for their lanes, and lanes for their claims.
//!
//! Laws
//! - Nobody sleeps while this is locked.
//! - Claims that are ready or at hand are earlier than the one that is being made: they end without it.

use super::{ATTEMPTS, Claim, NAP};
use crate::stages::lanes::lock;
use standpipe_sdk::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How long a lane may miss the end of the run.
const LONG_NAP: Duration = Duration::from_millis(10);

/// Where lanes stand for claims.
pub(super) struct Line {
    pub(super) claims: Mutex<Claims>,
    /// A claim was made, or let go.
    pub(super) moved: Condvar,
    cancelled: Arc<AtomicBool>,
}

/// Claims that were made.
#[derive(Default)]
pub(super) struct Claims {
    /// For lanes that have not come yet.
    pub(super) ready: VecDeque<(u64, Claim)>,
    /// Those that lanes are at.
    at_hand: usize,
}

impl Claims {
    /// That of a ticket, which is at hand from now on.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Claim> {
        let at = self.ready.iter().position(|(number, _)| *number == ticket)?;
        let (_, claim) = self.ready.swap_remove_back(at)?;
        self.at_hand += 1;
        Some(claim)
    }

    pub(super) fn count(&self) -> usize {
        self.at_hand + self.ready.len()
    }
}

impl Line {
    pub(super) fn new(cancelled: &Arc<AtomicBool>) -> Line {
        Line {
            claims: Mutex::default(),
            moved: Condvar::new(),
            cancelled: cancelled.clone(),
        }
    }

    /// Asked wherever somebody waits.
    ///
    /// # Errors
    /// `Cancelled` if the run is over.
    pub(super) fn go_on(&self) -> Result<()> {
        match self.cancelled.load(SeqCst) {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Until a claim is made or let go.
    pub(super) fn wait(&self, claims: MutexGuard<'_, Claims>) {
        // Whoever panicked with it ends the run.
        drop(self.moved.wait_timeout(claims, LONG_NAP));
    }

    /// Whether memory that was refused whoever makes claims may be there now: some lane had some, and time has gone by.
    ///
    /// # Errors
    /// `Cancelled` if the run is over.
    pub(super) fn waited(&self, patience: &mut Patience) -> Result<bool> {
        self.go_on()?;
        if patience.attempts == 0 || patience.is_last {
            return Ok(false);
        }
        patience.attempts -= 1;
        // It may have been given back since it was refused: once more, then.
        patience.is_last = lock(&self.claims).count() == 0;
        if !patience.is_last {
            std::thread::sleep(NAP);
        }
        Ok(true)
    }

    /// A lane has let go of its claim.
    pub(super) fn ended(&self) {
        lock(&self.claims).at_hand -= 1;
        self.moved.notify_all();
    }
}

/// How often memory that is refused is asked for again.
pub(super) struct Patience {
    attempts: usize,
    /// Nobody has any to give back.
    is_last: bool,
}

impl Patience {
    /// As long as some lane has a claim.
    pub(super) fn without_end() -> Patience {
        Patience {
            attempts: usize::MAX,
            is_last: false,
        }
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            attempts: ATTEMPTS,
            is_last: false,
        }
    }
}
