//! What an aggregate of a plugin has declared for the states of one table of groups, and what of the table's reservation that is.
//!
//! Laws
//! - Memory is only taken while a room is made: then the table's reservation is here. What is declared otherwise has to fit into what is
//!   held already.
//! - What is held stays held until all of it is given back: the next room takes it first.
//! - What all tables of an isolated aggregate have declared together stays under a ceiling: half of the memory that one of their
//!   processes may take. What is more is refused, as for want of the run's memory.

use crate::plugin::meter::Meter;
use standpipe_sdk::ffi::{self, Status};
use standpipe_sdk::{Error, Reservation, Result};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most that all tables of an aggregate may have declared.
pub(super) struct Ceiling {
    declared: AtomicUsize,
    limit: usize,
}

impl Ceiling {
    /// For an aggregate whose processes may take so many bytes, if it has such.
    pub(super) fn new(memory: Option<u64>) -> Arc<Ceiling> {
        Arc::new(Ceiling {
            declared: AtomicUsize::new(0),
            limit: memory.map_or(usize::MAX, |bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX)),
        })
    }

    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit < usize::MAX).then_some(self.limit)
    }

    fn declare(&self, bytes: usize) -> Result<()> {
        let more = |used: usize| used.checked_add(bytes).filter(|&all| all <= self.limit);
        let declared = self.declared.fetch_update(Relaxed, Relaxed, more);
        declared.map(drop).map_err(|used| Error::Memory {
            wanted: bytes,
            used,
            limit: self.limit,
        })
    }

    fn give_back(&self, bytes: usize) {
        self.declared.fetch_sub(bytes, Relaxed);
    }
}

pub(super) struct Account {
    ledger: Mutex<Ledger>,
    meter: Arc<Meter>,
    ceiling: Arc<Ceiling>,
}

#[derive(Default)]
struct Ledger {
    /// The table's, while a room is made.
    open: Option<Reservation>,
    /// Bytes of the table's reservation that are for these states.
    held: usize,
    /// Bytes that are declared of them.
    declared: usize,
    refused: Option<Error>,
}

impl Account {
    pub(super) fn new(meter: Arc<Meter>, ceiling: Arc<Ceiling>) -> Account {
        Account {
            ledger: Mutex::default(),
            meter,
            ceiling,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares so many bytes more, or fewer.
    pub(super) fn declare(&self, delta: i64) -> Status {
        let mut ledger = self.ledger();
        let ledger = &mut *ledger;
        let bytes = usize::try_from(delta.unsigned_abs()).unwrap_or(usize::MAX);
        if delta <= 0 {
            let bytes = bytes.min(ledger.declared);
            ledger.declared -= bytes;
            self.ceiling.give_back(bytes);
            self.meter.reserved(-(bytes as i64));
            return ffi::OK;
        }
        if let Err(error) = self.ceiling.declare(bytes) {
            ledger.refused = Some(error);
            return ffi::E_MEMORY;
        }
        let declared = ledger.declared.saturating_add(bytes);
        let more = declared.saturating_sub(ledger.held);
        if more > 0 {
            let grown = match &mut ledger.open {
                Some(open) => open.grow(more).map_err(Some),
                None => Err(None),
            };
            if let Err(error) = grown {
                self.ceiling.give_back(bytes);
                ledger.refused = error.or(ledger.refused.take());
                return ffi::E_MEMORY;
            }
            ledger.held += more;
        }
        ledger.declared = declared;
        self.meter.reserved(delta);
        ffi::OK
    }

    /// Runs `f` while memory can be taken from `reservation`. With its outcome comes what refused some, if anything did.
    pub(super) fn with_room<T>(
        &self,
        reservation: &mut Reservation,
        f: impl FnOnce() -> T,
    ) -> Result<(T, Option<Error>)> {
        let none = reservation.split(0)?;
        let whole = std::mem::replace(reservation, none);
        {
            let mut ledger = self.ledger();
            ledger.open = Some(whole);
            ledger.refused = None;
        }
        let guard = Closing {
            account: self,
            reservation,
        };
        let outcome = f();
        drop(guard);
        Ok((outcome, self.ledger().refused.take()))
    }

    /// All of it, to be given back: nothing is declared any more.
    pub(super) fn close(&self) -> usize {
        let mut ledger = self.ledger();
        self.meter.reserved(-(ledger.declared as i64));
        self.ceiling.give_back(ledger.declared);
        ledger.declared = 0;
        std::mem::take(&mut ledger.held)
    }
}

/// Puts the reservation back, also where something panics.
struct Closing<'r> {
    account: &'r Account,
    reservation: &'r mut Reservation,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(whole) = self.account.ledger().open.take() {
            *self.reservation = whole;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::Budget;

    #[test]
    fn memory_is_taken_while_a_room_is_made_only() {
        let budget = Budget::new(1000);
        let mut table = budget.reserve();
        let account = Account::new(Meter::new("a.b"), Ceiling::new(None));
        assert_eq!(account.declare(1), ffi::E_MEMORY);
        let (status, refused) = account.with_room(&mut table, || account.declare(600)).unwrap();
        assert_eq!((status, refused.is_none(), table.bytes()), (ffi::OK, true, 600));
        assert_eq!(account.declare(-200), ffi::OK);
        assert_eq!(account.declare(150), ffi::OK, "it is held");
        assert_eq!(account.declare(51), ffi::E_MEMORY);
        let (status, refused) = account.with_room(&mut table, || account.declare(500)).unwrap();
        assert_eq!((status, refused.is_some(), table.bytes()), (ffi::E_MEMORY, true, 600));
        table.shrink(account.close());
        assert_eq!((table.bytes(), budget.used()), (0, 0));
    }

    #[test]
    fn tables_of_an_isolated_aggregate_stay_under_one_ceiling() {
        let budget = Budget::new(10_000);
        let (mut one, mut two) = (budget.reserve(), budget.reserve());
        let ceiling = Ceiling::new(Some(2000));
        let account = || Account::new(Meter::new("a.b"), ceiling.clone());
        let (a, b) = (account(), account());
        let declare = |account: &Account, table: &mut Reservation, bytes| {
            let (status, refused) = account.with_room(table, || account.declare(bytes)).unwrap();
            assert_eq!(status < 0, refused.is_some());
            status
        };
        assert_eq!(declare(&a, &mut one, 600), ffi::OK);
        assert_eq!(declare(&b, &mut two, 401), ffi::E_MEMORY);
        assert_eq!((declare(&b, &mut two, 400), two.bytes()), (ffi::OK, 400));
        assert_eq!(a.declare(-600), ffi::OK);
        assert_eq!(declare(&b, &mut two, 600), ffi::OK);
        // Refused by the budget, nothing of the ceiling is taken.
        let mut none = Budget::new(0).reserve();
        drop(b);
        assert_eq!(declare(&account(), &mut none, 1000), ffi::E_MEMORY);
        assert_eq!(declare(&account(), &mut one, 1000), ffi::OK);
    }
}
