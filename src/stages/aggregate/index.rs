//! Groups by hash: an open table of 64-bit slots, probed one after the other.
//!
//! Why not a table from elsewhere: the first probes of many keys are made in one loop of independent loads ([`Index::likely`]), which
//! the processor waits for together. That is what finding groups in a table larger than its caches comes down to.

use super::table::Hash;
use standpipe_sdk::{Reservation, Result};

/// An empty slot; no group has that number.
const EMPTY: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct Index {
    /// Hash and group; as many as a power of two, at most 5 of 8 in use.
    slots: Vec<u64>,
    len: usize,
    /// Hashes spread over 64 bits are shifted right by this.
    shift: u32,
}

impl Index {
    /// No group.
    pub(super) const NONE: u32 = u32::MAX;

    /// Room for `more` groups.
    ///
    /// # Errors
    /// `Memory` if the budget refuses; nothing changes then.
    pub(super) fn room(&mut self, more: usize, reservation: &mut Reservation) -> Result<()> {
        let wanted = (self.len + more) * 8 / 5 + 1;
        if wanted <= self.slots.len() {
            return Ok(());
        }
        let size = wanted.next_power_of_two().max(16);
        let mut slots: Vec<u64> = vec![];
        reservation.room_to(&mut slots, size)?;
        slots.resize(size, EMPTY);
        let mut old = std::mem::replace(&mut self.slots, slots);
        self.shift = 64 - size.trailing_zeros();
        for &slot in old.iter().filter(|&&slot| slot != EMPTY) {
            self.put(slot);
        }
        reservation.free(&mut old);
        Ok(())
    }

    /// The slot of a hash: all of its bits hang on all of the hash, in a shard too.
    #[inline]
    fn place(&self, hash: Hash) -> usize {
        (u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn put(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.place((slot >> 32) as Hash);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Adds a group, for which there is room.
    pub(super) fn add(&mut self, hash: Hash, group: u32) {
        self.put(u64::from(hash) << 32 | u64::from(group));
        self.len += 1;
    }

    /// For each hash the first group that has it: most likely the right one. [`Index::NONE`] where there is none.
    ///
    /// In two loops: the first has so little to do that the processor waits for the slots of many keys together; what the second
    /// does with keys that are not at their first place finds those lines in the cache.
    pub(super) fn likely(&self, hashes: &[Hash], groups: &mut [u32]) {
        let mask = self.slots.len() - 1;
        for (group, &hash) in groups.iter_mut().zip(hashes) {
            let slot = self.slots[self.place(hash) & mask];
            *group = if (slot >> 32) as Hash == hash {
                slot as u32
            } else {
                Index::NONE
            };
        }
        for (group, &hash) in groups.iter_mut().zip(hashes) {
            if *group == Index::NONE {
                *group = self.find(hash, |_| true).unwrap_or(Index::NONE);
            }
        }
    }

    /// The group of this hash that is the right one.
    #[inline]
    pub(super) fn find(&self, hash: Hash, right: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = self.place(hash);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return None;
            }
            if (slot >> 32) as Hash == hash && right(slot as u32) {
                return Some(slot as u32);
            }
            at = (at + 1) & mask;
        }
    }

    /// Calls `f` with every hash and group.
    pub(super) fn each(&self, mut f: impl FnMut(Hash, u32)) {
        for &slot in self.slots.iter().filter(|&&slot| slot != EMPTY) {
            f((slot >> 32) as Hash, slot as u32);
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }

    /// Forgets all groups and gives the memory back.
    pub(super) fn free(&mut self, reservation: &mut Reservation) {
        reservation.free(&mut self.slots);
        self.len = 0;
    }
}
