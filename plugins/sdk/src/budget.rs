//! The memory of a run: one limit, reservations against it.
//!
//! A part of a budget ([`Budget::part`]) has a floor, which is set aside for it: what is reserved of the part comes out of that first, and only
//! beyond it out of what the whole has left, then out of what is left of the floor of that which it is a part of.
//!
//! Laws
//! - What a part reserves below its floor is never refused, whatever others do.

mod reservation;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
pub use reservation::Reservation;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One limit in bytes and what is reserved of it. Shared by all stages of a run, each of which may have a part of its own.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Whole {
        used: AtomicUsize,
        peak: AtomicUsize,
    },
    Part {
        of: Arc<Budget>,
        whole: Arc<Budget>,
        own: Mutex<Own>,
    },
}

/// What a part has.
#[derive(Debug)]
struct Own {
    used: usize,
    /// Of that which it is a part of.
    floor: usize,
    /// The same, beyond the floor.
    more: usize,
}

impl Own {
    /// What it has of the whole.
    fn of_whole(&self) -> usize {
        self.used.saturating_sub(self.floor + self.more)
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            limit,
            kind: Kind::Whole {
                used: AtomicUsize::new(0),
                peak: AtomicUsize::new(0),
            },
        })
    }

    /// A part of this one, for which `floor` bytes are set aside as long as it lives. Its limit is that of the whole.
    ///
    /// # Errors
    /// `Memory` if there are not as many.
    pub fn part(self: &Arc<Self>, floor: usize) -> Result<Arc<Self>> {
        let part = Budget {
            limit: self.limit,
            kind: Kind::Part {
                of: self.clone(),
                whole: match &self.kind {
                    Kind::Whole { .. } => self.clone(),
                    Kind::Part { whole, .. } => whole.clone(),
                },
                own: Mutex::new(Own {
                    used: 0,
                    floor: 0,
                    more: 0,
                }),
            },
        };
        part.set_floor(floor)?;
        Ok(Arc::new(part))
    }

    /// Sets that much aside for this part from now on, what it has reserved included; nothing for a whole.
    ///
    /// # Errors
    /// `Memory` if there is not as much; nothing changes then.
    pub fn set_floor(&self, bytes: usize) -> Result<()> {
        let Kind::Part { of, whole, own } = &self.kind else {
            return Ok(());
        };
        let mut own = locked(own);
        if bytes < own.floor {
            // What it has reserved it keeps.
            let kept = own.used.min(own.floor).saturating_sub(bytes);
            of.give(own.floor - bytes - kept);
            own.more += kept;
        } else {
            let held = own.more.min(bytes - own.floor);
            let added = bytes - own.floor - held;
            let back = own.of_whole().min(added);
            if Arc::ptr_eq(of, whole) {
                of.take(bytes, added - back)?;
            } else {
                of.take(bytes, added)?;
                whole.give(back);
            }
            own.more -= held;
        }
        own.floor = bytes;
        Ok(())
    }

    /// What is set aside for this part.
    pub fn floor(&self) -> usize {
        match &self.kind {
            Kind::Whole { .. } => 0,
            Kind::Part { own, .. } => locked(own).floor,
        }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes reserved now, what is set aside included; of a part without what is set aside for the part.
    pub fn used(&self) -> usize {
        match &self.kind {
            Kind::Whole { used, .. } => used.load(Relaxed),
            Kind::Part { own, .. } => locked(own).used,
        }
    }

    /// Bytes that nobody has reserved; of a part those below its floor too.
    pub fn free(&self) -> usize {
        match &self.kind {
            Kind::Whole { used, .. } => self.limit.saturating_sub(used.load(Relaxed)),
            Kind::Part { whole, .. } => whole.free().saturating_add(self.slack()),
        }
    }

    /// What is left of its floor, and of those that it stands in.
    fn slack(&self) -> usize {
        match &self.kind {
            Kind::Whole { .. } => 0,
            Kind::Part { of, own, .. } => {
                let own = locked(own);
                own.floor.saturating_sub(own.used) + of.slack()
            }
        }
    }

    /// The most bytes ever reserved of the whole.
    pub fn peak(&self) -> usize {
        match &self.kind {
            Kind::Whole { peak, .. } => peak.load(Relaxed),
            Kind::Part { whole, .. } => whole.peak(),
        }
    }

    /// `more` bytes for what somebody wants `wanted` bytes for.
    fn take(&self, wanted: usize, more: usize) -> Result<()> {
        if more == 0 {
            return Ok(());
        }
        match &self.kind {
            Kind::Whole { used, peak } => {
                let limit = self.limit;
                let add = |used: usize| used.checked_add(more).filter(|&sum| sum <= limit);
                match used.fetch_update(Relaxed, Relaxed, add) {
                    Ok(before) => {
                        peak.fetch_max(before + more, Relaxed);
                        Ok(())
                    }
                    Err(used) => Err(Error::Memory { wanted, used, limit }),
                }
            }
            Kind::Part { of, whole, own } => {
                let mut own = locked(own);
                let used = own.used.saturating_add(more);
                let beyond = used.saturating_sub(own.floor + own.more) - own.of_whole();
                match whole.take(wanted, beyond) {
                    Ok(()) => {}
                    Err(error) if Arc::ptr_eq(of, whole) => return Err(error),
                    Err(_) => {
                        of.take(wanted, beyond)?;
                        own.more += beyond;
                    }
                }
                own.used = used;
                Ok(())
            }
        }
    }

    fn give(&self, bytes: usize) {
        match &self.kind {
            Kind::Whole { used, .. } => {
                used.fetch_sub(bytes, Relaxed);
            }
            Kind::Part { of, whole, own } => {
                let mut own = locked(own);
                let before = own.used.saturating_sub(own.floor);
                own.used -= bytes;
                let back = before - own.used.saturating_sub(own.floor);
                let more = own.more.min(back);
                own.more -= more;
                of.give(more);
                whole.give(back - more);
            }
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Kind::Part { of, own, .. } = &self.kind {
            // Reservations keep their budget alive: all that is left is what is set aside.
            of.give(locked(own).floor);
        }
    }
}

fn locked(own: &Mutex<Own>) -> MutexGuard<'_, Own> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}
