//! A set of keys as bytes, numbered in the order in which they came: what tells rows apart.
//!
//! Keys lie one behind the other in segments, each behind its number and its length. The table holds for each key 32 bits of
//! its hash and where it is, so that growing moves 8 bytes per key and never looks at one. Whole batches are looked up: the
//! slots and then the keys of some rows are touched before the first of them is compared, so that the memory answers for
//! all of them at once.
//!
//! Laws
//! - Everything is reserved before it is allocated, and allocated before anything changes: after a refusal the same rows may come
//!   again, and find the numbers that earlier ones of them got.
//! - Numbers ascend in the order of first rows; nothing that leaves a stage depends on hashes.

use super::groups::{grow, grow_to};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Budget, Reservation};
use std::sync::Arc;

/// Bytes of keys that are allocated together, at most. Keys never move, so that growing never copies them.
const SEGMENT_BYTES: usize = 1 << SEGMENT_BITS;
const SEGMENT_BITS: u32 = 16;
/// The first segment, behind which each is twice as long as the one before: most scripts have few groups.
const FIRST_SEGMENT_BYTES: usize = 1 << 10;
/// Places are counted in units of so many bytes.
const UNIT: usize = 4;
/// Number and length.
const HEADER: usize = 8;
/// A key that is longer than this has an allocation of its own.
const LONG_BYTES: usize = SEGMENT_BYTES / 4;
/// Of a length: the key is a long one, and this is its number among those.
const LONG: u32 = 1 << 31;
/// The table's first size, in bits of slots.
const FIRST_BITS: u32 = 6;
/// Rows that are looked up together.
const WINDOW: usize = 64;
/// Slots that are looked at for a key before it is compared.
const NEAR: usize = 4;

/// Stands for the number of a key that is not there.
pub(super) const NONE: u32 = u32::MAX;

/// The keys seen so far.
pub(super) struct KeySet {
    /// A power of two of slots: the hash in the upper half, where the key is, plus one, in the lower; 0 = free.
    slots: Vec<u64>,
    bits: u32,
    len: u32,
    segments: Vec<Vec<u8>>,
    long: Vec<Vec<u8>>,
    reservation: Reservation,
}

impl KeySet {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        KeySet {
            slots: vec![],
            bits: 0,
            len: 0,
            segments: vec![],
            long: vec![],
            reservation: budget.reserve(),
        }
    }

    /// Sets `bytes` of the budget aside for keys.
    pub(super) fn set_aside(&mut self, bytes: usize) -> Result<()> {
        self.reservation.set_aside(bytes)
    }

    /// Forgets all keys and gives the memory back.
    pub(super) fn clear(&mut self) {
        (self.slots, self.segments, self.long) = (vec![], vec![], vec![]);
        (self.bits, self.len) = (0, 0);
        self.reservation.shrink(self.reservation.bytes());
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The number of each row's key, given its hash; keys that are new are added.
    ///
    /// # Errors
    /// `Memory` if a new key does not fit. Keys before it have been added.
    pub(super) fn number<'k>(
        &mut self,
        hashes: &[i64],
        key: impl Fn(usize) -> &'k [u8],
        numbers: &mut [u32],
    ) -> Result<()> {
        let mut from = 0;
        for (hashes, numbers) in hashes.chunks(WINDOW).zip(numbers.chunks_mut(WINDOW)) {
            self.touch(hashes);
            for (at, (&hash, number)) in hashes.iter().zip(numbers).enumerate() {
                *number = self.number_of(short(hash), key(from + at))?;
            }
            from += WINDOW;
        }
        Ok(())
    }

    /// The number of each row's key, [`NONE`] for those that are not here.
    pub(super) fn find<'k>(&self, hashes: &[i64], key: impl Fn(usize) -> &'k [u8], numbers: &mut [u32]) {
        if self.slots.is_empty() {
            return numbers.fill(NONE);
        }
        let mut from = 0;
        for (hashes, numbers) in hashes.chunks(WINDOW).zip(numbers.chunks_mut(WINDOW)) {
            self.touch(hashes);
            for (at, (&hash, number)) in hashes.iter().zip(numbers).enumerate() {
                *number = self.look_up(short(hash), key(from + at)).unwrap_or(NONE);
            }
            from += WINDOW;
        }
    }

    /// Loads what the lookups of these rows will most likely read.
    fn touch(&self, hashes: &[i64]) {
        if self.slots.is_empty() {
            return;
        }
        let mut sum = 0u64;
        for &hash in hashes {
            sum = sum.wrapping_add(self.slots[self.slot(short(hash))]);
        }
        // Keys stand a few slots behind where they belong. No branch on what is found: loads wait for branches that were guessed
        // wrongly.
        let mask = self.slots.len() - 1;
        for &hash in hashes {
            let (hash, mut place) = (short(hash), 0);
            let first = self.slot(hash);
            for behind in 0..NEAR {
                let slot = self.slots[(first + behind) & mask];
                let same = u32::from(slot >> 32 == u64::from(hash)).wrapping_neg();
                place = (place & !same) | (slot as u32 & same);
            }
            let (segment, at) = split(place.max(1) - 1);
            if let Some(segment) = self.segments.get(segment) {
                let byte = |at: usize| u64::from(segment.get(at).copied().unwrap_or(0));
                sum = sum.wrapping_add(byte(at) + byte(at + HEADER + 24));
            }
        }
        std::hint::black_box(sum);
    }

    fn slot(&self, hash: u32) -> usize {
        (u64::from(hash) >> (32 - self.bits)) as usize
    }

    /// Number and length of the key at `place`.
    fn header(&self, place: u32) -> (u32, u32) {
        let (segment, at) = split(place);
        let bytes = self.segments[segment].get(at..at + HEADER).unwrap_or(&[0; HEADER]);
        let word = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        (word(0), word(4))
    }

    fn key_at(&self, place: u32) -> &[u8] {
        let (_, len) = self.header(place);
        if len & LONG != 0 {
            return &self.long[(len & !LONG) as usize];
        }
        let (segment, at) = split(place);
        &self.segments[segment][at + HEADER..][..len as usize]
    }

    fn number_of(&mut self, hash: u32, key: &[u8]) -> Result<u32> {
        if self.len as usize >= self.slots.len() / 4 * 3 {
            self.widen()?;
        }
        match self.look_up(hash, key) {
            Ok(number) => Ok(number),
            Err(at) => {
                let number = self.len;
                let place = self.store(number, key)?;
                self.slots[at] = u64::from(hash) << 32 | u64::from(place + 1);
                self.len += 1;
                Ok(number)
            }
        }
    }

    /// The number of a key, or the slot where it would be.
    fn look_up(&self, hash: u32, key: &[u8]) -> std::result::Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut at = self.slot(hash);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Err(at);
            }
            if slot >> 32 == u64::from(hash) && self.key_at(slot as u32 - 1) == key {
                return Ok(self.header(slot as u32 - 1).0);
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts a key behind the others; where it is.
    fn store(&mut self, number: u32, key: &[u8]) -> Result<u32> {
        let is_long = key.len() > LONG_BYTES;
        let inside = if is_long { 0 } else { key.len() };
        let bytes = (HEADER + inside).next_multiple_of(UNIT);
        if self
            .segments
            .last()
            .is_none_or(|s| s.capacity().min(SEGMENT_BYTES) - s.len() < bytes)
        {
            grow(&mut self.segments, 1, &mut self.reservation)?;
            let before = self.segments.len().min(SEGMENT_BITS as usize);
            let usual = (FIRST_SEGMENT_BYTES << before).min(SEGMENT_BYTES);
            let mut segment = vec![];
            grow_to(&mut segment, usual.max(bytes), &mut self.reservation)?;
            self.segments.push(segment);
        }
        let segment = self.segments.len() - 1;
        let start = self.segments[segment].len();
        // One less than the greatest number: a slot holds the place plus one.
        let place = (segment * (SEGMENT_BYTES / UNIT) + start / UNIT) as u64;
        let place = u32::try_from(place)
            .ok()
            .filter(|place| *place < u32::MAX)
            .ok_or_else(|| full(bytes))?;
        let len = if is_long {
            grow(&mut self.long, 1, &mut self.reservation)?;
            let mut copy = vec![];
            grow_to(&mut copy, key.len(), &mut self.reservation)?;
            copy.extend_from_slice(key);
            self.long.push(copy);
            LONG | (self.long.len() - 1) as u32
        } else {
            key.len() as u32
        };
        let segment = &mut self.segments[segment];
        segment.extend_from_slice(&number.to_le_bytes());
        segment.extend_from_slice(&len.to_le_bytes());
        segment.extend_from_slice(&key[..inside]);
        segment.resize(start + bytes, 0);
        Ok(place)
    }

    /// Twice the slots: a slot's hash says where it goes, in the same order.
    fn widen(&mut self) -> Result<()> {
        let bits = (self.bits + 1).max(FIRST_BITS);
        if bits > 32 {
            return Err(full(1));
        }
        let mut slots = vec![];
        grow_to(&mut slots, 1 << bits, &mut self.reservation)?;
        slots.resize(1 << bits, 0);
        let old = std::mem::replace(&mut self.slots, slots);
        self.bits = bits;
        let mask = self.slots.len() - 1;
        for &slot in old.iter().filter(|slot| **slot != 0) {
            let mut at = self.slot((slot >> 32) as u32);
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
        self.reservation.shrink(old.capacity() * size_of::<u64>());
        Ok(())
    }

    /// The keys by number.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().enumerate().flat_map(move |(number, segment)| {
            let mut at = 0;
            std::iter::from_fn(move || {
                let place = (number * (SEGMENT_BYTES / UNIT) + at / UNIT) as u32;
                (at < segment.len()).then(|| {
                    let (_, len) = self.header(place);
                    let inside = if len & LONG != 0 { 0 } else { len as usize };
                    at += (HEADER + inside).next_multiple_of(UNIT);
                    self.key_at(place)
                })
            })
        })
    }
}

/// The part of a hash that is kept: its upper bits choose the slot.
fn short(hash: i64) -> u32 {
    (hash >> 32) as u32
}

fn split(place: u32) -> (usize, usize) {
    let at = place as usize * UNIT;
    (at >> SEGMENT_BITS, at & (SEGMENT_BYTES - 1))
}

fn full(wanted: usize) -> Error {
    Error::Memory {
        wanted,
        used: usize::MAX,
        limit: usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(i: u32) -> Vec<u8> {
        match i % 5 {
            0 => i.to_be_bytes().to_vec(),
            1 => format!("key number {i}, which is some bytes long").into_bytes(),
            2 if i % 97 == 2 => vec![(i % 251) as u8; LONG_BYTES + i as usize % 100],
            3 if i % 89 == 3 => vec![],
            _ => vec![i as u8, (i >> 8) as u8],
        }
    }

    /// A bad one, so that slots are fought for.
    fn hash(key: &[u8]) -> u64 {
        (key.iter().fold(7u64, |h, &b| {
            h.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(b) + 1)
        })) & 0xFFF0_0000_0000_0000
    }

    #[test]
    fn numbers_ascend_with_first_rows_and_survive_refusals() {
        let keys: Vec<Vec<u8>> = (0..6000u32)
            .map(|i| key(i.wrapping_mul(2_654_435_761) % 3000))
            .collect();
        let hashes: Vec<i64> = keys.iter().map(|k| hash(k) as i64).collect();
        let mut seen: HashMap<&[u8], u32> = HashMap::new();
        let want: Vec<u32> = keys
            .iter()
            .map(|k| {
                let next = seen.len() as u32;
                *seen.entry(k).or_insert(next)
            })
            .collect();
        for limit in [50, 3000, 100_000, 300_000, 1_000_000, 8 << 20] {
            let budget = Budget::new(limit);
            let mut set = KeySet::new(&budget);
            let mut numbers = vec![0; keys.len()];
            match set.number(&hashes, |row| &keys[row], &mut numbers) {
                Ok(()) => {
                    assert!(limit > 100_000);
                    assert_eq!(numbers, want);
                    let all: Vec<&[u8]> = set.keys().collect();
                    assert_eq!(all.len(), seen.len());
                    assert!(all.iter().enumerate().all(|(number, key)| seen[key] == number as u32));
                }
                Err(error) => {
                    assert!(matches!(error, Error::Memory { .. }) && limit < 8 << 20);
                    let before = set.len();
                    // What was added is found again, with the same number.
                    let known = want.iter().position(|&n| n >= before).unwrap();
                    set.number(&hashes[..known], |row| &keys[row], &mut numbers[..known])
                        .unwrap();
                    assert_eq!(numbers[..known], want[..known]);
                    assert!(set.number(&hashes, |row| &keys[row], &mut numbers).is_err());
                    set.find(&hashes, |row| &keys[row], &mut numbers);
                    let found = |n: u32| if n < before { n } else { NONE };
                    assert!(numbers.iter().zip(&want).all(|(&number, &want)| number == found(want)));
                    assert_eq!((set.len(), set.keys().count()), (before, before as usize));
                }
            }
            assert!(budget.used() <= limit);
            drop(set);
            assert_eq!(budget.used(), 0);
        }
    }
}
