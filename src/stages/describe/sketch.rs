//! How many values there are: exactly while they are few, then HyperLogLog with 4,096 registers.
//!
//! Laws
//! - What a sketch says depends on the set of hashes it was given, not on their order or on how sketches were merged.

use super::super::groups::grow_to;
use standpipe_sdk::Reservation;
use standpipe_sdk::error::Result;

/// The most hashes that are kept.
const FEW: usize = 1 << 10;
const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// What one takes.
pub(super) const BYTES: usize = 2 * FEW * size_of::<u64>() + REGISTERS;

pub(super) struct Sketch {
    /// Slots, zero being free; none once there are too many.
    few: Vec<u64>,
    len: usize,
    registers: Vec<u8>,
}

impl Sketch {
    pub(super) fn new(room: &mut Reservation) -> Result<Sketch> {
        let (mut few, mut registers) = (vec![], vec![]);
        grow_to(&mut few, 2 * FEW, room)?;
        grow_to(&mut registers, REGISTERS, room)?;
        few.resize(2 * FEW, 0);
        registers.resize(REGISTERS, 0);
        Ok(Sketch { few, len: 0, registers })
    }

    pub(super) fn add(&mut self, hash: u64) {
        let register = &mut self.registers[(hash >> (64 - REGISTER_BITS)) as usize];
        let rank = (hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() as u8 + 1;
        *register = rank.max(*register);
        if self.few.is_empty() {
            return;
        }
        let hash = hash.max(1);
        let mut at = hash as usize % (2 * FEW);
        while self.few[at] != 0 {
            if self.few[at] == hash {
                return;
            }
            at = (at + 1) % (2 * FEW);
        }
        if self.len == FEW {
            self.few = vec![];
            return;
        }
        self.few[at] = hash;
        self.len += 1;
    }

    pub(super) fn merge(&mut self, other: &Sketch) {
        for (register, &rank) in self.registers.iter_mut().zip(&other.registers) {
            *register = rank.max(*register);
        }
        if other.few.is_empty() {
            self.few = vec![];
        }
        for &hash in other.few.iter().filter(|hash| **hash != 0) {
            self.add(hash);
        }
    }

    pub(super) fn estimate(&self) -> u64 {
        if !self.few.is_empty() {
            return self.len as u64;
        }
        let m = REGISTERS as f64;
        // In whole numbers, so that the order of the registers says nothing.
        let sum: u128 = self
            .registers
            .iter()
            .map(|&rank| 1u128 << (64 - u32::from(rank).min(64)))
            .sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / (sum as f64 / 2f64.powi(64));
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        if raw <= 2.5 * m && empty > 0 {
            return (m * (m / empty as f64).ln()).round() as u64;
        }
        raw.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::keys::hash;
    use standpipe_sdk::Budget;

    fn sketch(values: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::new(&mut Budget::new(1 << 20).reserve()).unwrap();
        values
            .into_iter()
            .for_each(|value| sketch.add(hash(&value.to_le_bytes())));
        sketch
    }

    #[test]
    fn few_are_counted_and_many_estimated() {
        for count in [0, 1, 2, 100, 1023, 1024] {
            assert_eq!(sketch((0..count).chain(0..count)).estimate(), count);
        }
        for count in [1025u64, 3000, 10_000, 30_000, 100_000, 1_000_000] {
            let estimate = sketch(0..count).estimate();
            assert!(estimate.abs_diff(count) < count / 20, "{count}: {estimate}");
        }
    }

    #[test]
    fn merging_in_any_way_gives_the_same() {
        for (a, b) in [(10, 20), (600, 600), (1024, 1), (5, 5000), (5000, 5), (3000, 4000)] {
            let want = sketch(0..a + b).estimate();
            let (mut one, other) = (sketch(0..a), sketch(a..a + b));
            one.merge(&other);
            assert_eq!(one.estimate(), want);
            let (one, mut other) = (sketch(0..a + 1), sketch(a..a + b));
            other.merge(&one);
            assert_eq!(other.estimate(), want);
        }
    }
}
