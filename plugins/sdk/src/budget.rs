//! The memory of a run: one limit, reservations against it.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One limit in bytes and what is reserved of it. Shared by all stages of a run.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// The most bytes ever reserved.
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// Reserves nothing yet: [`Reservation::grow`] does.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// Part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// `Memory` if the budget's limit would be passed; nothing changes then.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let limit = self.budget.limit;
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= limit);
        match self.budget.used.fetch_update(Relaxed, Relaxed, add) {
            Ok(before) => {
                self.budget.peak.fetch_max(before + bytes, Relaxed);
                self.bytes += bytes;
                Ok(())
            }
            Err(used) => Err(Error::Memory {
                wanted: bytes,
                used,
                limit,
            }),
        }
    }

    /// Gives `bytes` back (at most what is reserved).
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.used.fetch_sub(bytes, Relaxed);
        self.bytes -= bytes;
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_growth_changes_nothing() {
        let budget = Budget::new(100);
        let mut a = budget.reserve();
        let mut b = budget.reserve();
        a.grow(60).unwrap();
        assert!(matches!(
            b.grow(41),
            Err(Error::Memory {
                wanted: 41,
                used: 60,
                limit: 100
            })
        ));
        b.grow(40).unwrap();
        drop(a);
        assert_eq!((budget.used(), budget.peak()), (40, 100));
    }
}
