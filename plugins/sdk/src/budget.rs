//! The memory of a run: one limit, reservations against it.

//!
//! A part of a budget ([`Budget::part`]) has a floor, which is set aside for it: what is reserved of the part comes out of that first, and only
//! beyond it out of what the whole has left, then out of what is left of the floor of that which it is a part of.
//!
//! Laws
//! - What a part reserves below its floor is never refused, whatever others do.

use crate::error::{Error, Result};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_free_in_between() {
        let budget = Budget::new(100);
        let mut all = budget.reserve();
        all.grow(100).unwrap();
        let part = all.split(30).unwrap();
        assert_eq!((all.bytes(), part.bytes(), budget.used()), (70, 30, 100));
        drop(all);
        assert_eq!(budget.used(), 30);
        drop(part);
        let mut floor = budget.reserve();
        floor.set_aside(60).unwrap();
        floor.grow(60).unwrap();
        let part = floor.split(40).unwrap();
        assert_eq!((floor.bytes(), part.bytes(), budget.used()), (20, 40, 100));
        assert!(floor.split(1).is_err());
        assert_eq!((floor.bytes(), budget.used()), (20, 100));
    }

    #[test]
    fn two_reservations_become_one() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.reserve(), budget.reserve());
        a.grow(30).unwrap();
        b.grow(70).unwrap();
        a.join(b);
        assert_eq!((a.bytes(), budget.used()), (100, 100));
        let mut floor = budget.reserve();
        let part = a.split(60).unwrap();
        drop(a);
        floor.set_aside(40).unwrap();
        floor.join(part);
        assert_eq!((floor.bytes(), budget.used()), (60, 60));
        drop(floor);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_moved_is_never_free_in_between() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.reserve(), budget.reserve());
        a.grow(70).unwrap();
        b.grow(30).unwrap();
        b.move_from(20, &mut a);
        assert_eq!((a.bytes(), b.bytes(), budget.used()), (50, 50, 100));
        // Of what is set aside nothing is moved.
        a.set_aside(40).unwrap();
        b.move_from(20, &mut a);
        assert_eq!((a.bytes(), b.bytes(), budget.used()), (40, 60, 100));
        a.shrink(40);
        assert_eq!(budget.used(), 100);
        let mut c = budget.reserve();
        c.set_aside_from(30, &mut b).unwrap();
        assert_eq!((b.bytes(), c.bytes(), budget.used()), (30, 0, 100));
        c.grow(30).unwrap();
        assert!(c.grow(1).is_err() && c.set_aside_from(61, &mut b).is_err());
        assert_eq!((b.bytes(), budget.used()), (30, 100));
        c.set_aside_from(60, &mut b).unwrap();
        drop((a, c));
        assert_eq!((b.bytes(), budget.used()), (0, 0));
    }

    #[test]
    fn what_is_set_aside_can_be_given_to_another() {
        let budget = Budget::new(100);
        let mut a = budget.reserve();
        a.set_aside(60).unwrap();
        a.grow(50).unwrap();
        assert!(a.split_aside(61).is_err());
        let part = a.split_aside(10).unwrap();
        assert_eq!((a.bytes(), part.bytes(), budget.used()), (50, 10, 60));
        a.shrink(50);
        assert_eq!(budget.used(), 60);
        drop(part);
        assert_eq!(budget.used(), 50);
        a.set_aside(60).unwrap();
        assert_eq!(budget.used(), 60);
        // Of what is reserved beyond that, first.
        a.grow(100).unwrap();
        let part = a.split_aside(30).unwrap();
        assert_eq!((a.bytes(), part.bytes(), budget.used()), (70, 30, 100));
        a.shrink(70);
        assert_eq!(budget.used(), 90);
        a.grow(70).unwrap();
        let more = a.split_aside(40).unwrap();
        assert_eq!((a.bytes(), more.bytes(), budget.used()), (30, 40, 100));
        a.shrink(30);
        assert_eq!(budget.used(), 100);
        drop((a, part, more));
        assert_eq!(budget.used(), 0);
    }

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

    #[test]
    fn what_a_part_takes_below_its_floor_is_never_refused() {
        let whole = Budget::new(100);
        let part = whole.part(40).unwrap();
        assert_eq!(
            (part.limit(), part.used(), part.free(), whole.free()),
            (100, 0, 100, 60)
        );
        assert!(whole.part(61).is_err());
        let (mut own, mut other) = (part.reserve(), whole.reserve());
        other.grow(60).unwrap();
        assert!(other.grow(1).is_err());
        for _ in 0..2 {
            own.grow(40).unwrap();
            assert!(matches!(
                own.grow(1),
                Err(Error::Memory {
                    wanted: 1,
                    used: 100,
                    limit: 100
                })
            ));
            own.shrink(40);
        }
        // Beyond the floor it is as everybody is.
        other.shrink(30);
        own.grow(70).unwrap();
        assert!(own.grow(1).is_err() && other.grow(1).is_err());
        assert_eq!((part.used(), part.free(), whole.used()), (70, 0, 100));
        own.shrink(20);
        assert_eq!((part.free(), whole.used()), (20, 80));
        own.shrink(20);
        assert_eq!((part.free(), whole.used()), (40, 70));
        drop((own, part));
        assert_eq!((whole.used(), whole.peak()), (30, 100));
    }

    #[test]
    fn floors_change_and_stand_in_each_other() {
        let whole = Budget::new(100);
        let part = whole.part(0).unwrap();
        let mut other = whole.reserve();
        other.grow(40).unwrap();
        part.set_floor(60).unwrap();
        let inner = part.part(40).unwrap();
        let mut a = inner.reserve();
        assert_eq!((inner.free(), part.free(), whole.used()), (60, 20, 100));
        // What the whole has left comes first, then what the part has.
        other.shrink(5);
        a.grow(45).unwrap();
        assert_eq!((part.used(), whole.used()), (40, 100));
        a.grow(20).unwrap();
        assert!(a.grow(1).is_err());
        assert_eq!((part.used(), whole.used()), (60, 100));
        // And that is given back first.
        a.shrink(20);
        assert_eq!((part.used(), whole.used()), (40, 100));
        a.shrink(5);
        assert_eq!((part.used(), whole.used()), (40, 95));
        // A higher floor takes nothing twice, a lower one nothing that is reserved.
        a.grow(15).unwrap();
        assert_eq!((part.used(), whole.used()), (55, 95));
        inner.set_floor(60).unwrap();
        assert!(inner.set_floor(66).is_err());
        assert_eq!((part.used(), whole.used()), (60, 95));
        inner.set_floor(20).unwrap();
        part.set_floor(20).unwrap();
        assert_eq!((part.used(), whole.used()), (55, 90));
        assert!(part.set_floor(66).is_err());
        part.set_floor(65).unwrap();
        assert_eq!(whole.used(), 100);
        part.set_floor(0).unwrap();
        a.shrink(20);
        assert_eq!((part.used(), whole.used()), (35, 70));
        drop((a, inner));
        assert_eq!((part.used(), whole.used()), (0, 35));
        part.set_floor(60).unwrap();
        drop(part);
        assert_eq!(whole.used(), 35);
    }

    #[test]
    fn what_is_set_aside_is_never_refused_again() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.reserve(), budget.reserve());
        a.set_aside(30).unwrap();
        b.grow(70).unwrap();
        assert!(b.grow(1).is_err() && a.set_aside(31).is_err());
        for _ in 0..2 {
            a.grow(10).unwrap();
            a.grow(20).unwrap();
            assert!(a.grow(1).is_err());
            assert_eq!((a.bytes(), budget.used()), (30, 100));
            a.shrink(25);
            assert_eq!((a.bytes(), budget.used()), (5, 100));
            a.shrink(25);
        }
        drop(b);
        a.grow(50).unwrap();
        assert_eq!(budget.used(), 50);
        a.shrink(45);
        assert_eq!(budget.used(), 30);
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
