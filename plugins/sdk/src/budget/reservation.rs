//! Bytes of a budget that somebody holds, and room in lists under them.
//!
//! Laws
//! - A refusal changes nothing.
//! - What is set aside is never refused again; what moves from one reservation to another is never free in between.

use super::Budget;
use crate::error::{Error, Result};
use std::sync::Arc;

impl Budget {
    /// Reserves nothing yet: [`Reservation::grow`] does.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
            floor: 0,
        }
    }
}

/// Bytes of a budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    /// What its holder has asked for.
    bytes: usize,
    /// The least that it has of the budget, asked for or not.
    floor: usize,
}

impl Reservation {
    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// `Memory` if the budget's limit would be passed; nothing changes then.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let wanted = self.bytes.saturating_add(bytes);
        self.take(bytes, wanted.saturating_sub(self.bytes.max(self.floor)))?;
        self.bytes = wanted;
        Ok(())
    }

    /// Sets `bytes` of the budget aside for good: growing up to there is never refused from now on, whatever was given back.
    ///
    /// # Errors
    /// `Memory` if the budget's limit would be passed; nothing changes then.
    pub fn set_aside(&mut self, bytes: usize) -> Result<()> {
        let floor = self.floor.max(bytes);
        self.take(bytes, floor.saturating_sub(self.bytes.max(self.floor)))?;
        self.floor = floor;
        Ok(())
    }

    /// [`Reservation::set_aside`] with what `from` has, as far as that goes: nobody else can take it in between.
    ///
    /// # Errors
    /// `Memory` if that is not enough and the budget has no more; nothing changes then.
    pub fn set_aside_from(&mut self, bytes: usize, from: &mut Reservation) -> Result<()> {
        debug_assert!(Arc::ptr_eq(&self.budget, &from.budget), "two budgets");
        let floor = self.floor.max(bytes);
        let more = floor.saturating_sub(self.bytes.max(self.floor));
        let moved = more.min(from.spare());
        self.take(bytes, more - moved)?;
        from.bytes -= moved;
        self.floor = floor;
        Ok(())
    }

    /// Moves at most `bytes` of what `from` has here: they are no longer its own, and never free in between.
    pub fn move_from(&mut self, bytes: usize, from: &mut Reservation) {
        debug_assert!(Arc::ptr_eq(&self.budget, &from.budget), "two budgets");
        // What is asked for here below what is set aside is reserved already.
        let held = self.floor.saturating_sub(self.bytes);
        let moved = bytes.saturating_sub(held).min(from.spare());
        self.bytes += held.min(bytes) + moved;
        from.bytes -= moved;
    }

    /// What is reserved beyond what is set aside.
    fn spare(&self) -> usize {
        self.bytes.saturating_sub(self.floor)
    }

    fn take(&self, wanted: usize, more: usize) -> Result<()> {
        self.budget.take(wanted, more)
    }

    /// A reservation of its own for `bytes` of what is reserved here: nobody else can take them in between.
    ///
    /// # Errors
    /// `Memory` if more is set aside than would be left, and the budget has no more; nothing changes then.
    pub fn split(&mut self, bytes: usize) -> Result<Reservation> {
        let mut part = self.budget.reserve();
        let moved = bytes.min(self.bytes);
        let before = self.bytes.max(self.floor);
        let after = (self.bytes - moved).max(self.floor) + bytes;
        self.take(bytes, after.saturating_sub(before))?;
        self.bytes -= moved;
        part.bytes = bytes;
        Ok(part)
    }

    /// The same of all that is reserved or set aside here, and nothing more of the budget: if less is left than is set aside, no more than that
    /// is set aside until it is asked for again.
    ///
    /// # Errors
    /// `Memory` if that is less than `bytes`; nothing changes then.
    pub fn split_aside(&mut self, bytes: usize) -> Result<Reservation> {
        let all = self.bytes.max(self.floor);
        let Some(left) = all.checked_sub(bytes) else {
            return Err(Error::Memory {
                wanted: bytes,
                used: self.bytes,
                limit: all,
            });
        };
        self.floor = self.floor.min(left);
        self.bytes = self.bytes.min(left);
        let mut part = self.budget.reserve();
        part.bytes = bytes;
        Ok(part)
    }

    /// Takes over what another reservation of the same budget has.
    pub fn join(&mut self, mut other: Reservation) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget), "two budgets");
        let before = self.bytes.max(self.floor) + other.bytes.max(other.floor);
        self.bytes += other.bytes;
        (other.bytes, other.floor) = (0, 0);
        self.budget.give(before - self.bytes.max(self.floor));
    }

    /// Gives `bytes` back (at most what is reserved), except for what is set aside.
    pub fn shrink(&mut self, bytes: usize) {
        let before = self.bytes.max(self.floor);
        self.bytes -= bytes.min(self.bytes);
        self.budget.give(before - self.bytes.max(self.floor));
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room in `values` for `more` values, doubling unless there is only room for less: the old block counts until the new one is
    /// there.
    ///
    /// # Errors
    /// `Memory` if the budget or the system refuses; nothing changes then.
    pub fn room<T>(&mut self, values: &mut Vec<T>, more: usize) -> Result<()> {
        let wanted = values.len().saturating_add(more);
        if wanted <= values.capacity() {
            return Ok(());
        }
        let capacity = values.capacity();
        let mut outcome = Ok(());
        for usual in [capacity.saturating_mul(2), capacity / 4 * 5, 0] {
            outcome = self.room_to(values, wanted.max(usual).max(4));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Makes the capacity `capacity` values.
    ///
    /// # Errors
    /// `Memory` if the budget or the system refuses; nothing changes then.
    pub fn room_to<T>(&mut self, values: &mut Vec<T>, capacity: usize) -> Result<()> {
        let old = values.capacity() * size_of::<T>();
        let new = capacity.saturating_mul(size_of::<T>());
        self.grow(new)?;
        if values.try_reserve_exact(capacity.saturating_sub(values.len())).is_err() {
            self.shrink(new);
            return Err(Error::Memory {
                wanted: new,
                used: old,
                limit: usize::MAX,
            });
        }
        self.shrink(old);
        Ok(())
    }

    /// Frees the memory of `values`.
    pub fn free<T>(&mut self, values: &mut Vec<T>) {
        self.shrink(values.capacity() * size_of::<T>());
        *values = vec![];
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give(self.bytes.max(self.floor));
    }
}
