//! What an aggregate of a plugin has declared for the states of one table of groups, and what of the table's reservation that is.
//!
//! Laws
//! - Memory is only taken while a room is made: then the table's reservation is here. What is declared otherwise has to fit into what is
//!   held already.
//! - What is held stays held until all of it is given back: the next room takes it first.

use crate::plugin::meter::Meter;
use standpipe_sdk::ffi::{self, Status};
use standpipe_sdk::{Error, Reservation, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Account {
    ledger: Mutex<Ledger>,
    meter: Arc<Meter>,
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
    pub(super) fn new(meter: Arc<Meter>) -> Account {
        Account {
            ledger: Mutex::default(),
            meter,
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
            self.meter.reserved(-(bytes as i64));
            return ffi::OK;
        }
        let declared = ledger.declared.saturating_add(bytes);
        let more = declared.saturating_sub(ledger.held);
        if more > 0 {
            let Some(open) = &mut ledger.open else {
                return ffi::E_MEMORY;
            };
            if let Err(error) = open.grow(more) {
                ledger.refused = Some(error);
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
        let account = Account::new(Meter::new("a.b"));
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
}
