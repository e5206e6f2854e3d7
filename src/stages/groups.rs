//! Rows numbered by group: what the stages that keep a count per key stand on.
//!
//! Laws
//! - Everything is reserved before it is allocated, and allocated before anything changes: after a refusal the same rows may come
//!   again.
//! - Group numbers ascend in the order of first rows; nothing that leaves a stage depends on hashes.

use super::codes::held;
use super::keys::Keys;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Reservation};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Bytes of keys that are allocated together. Keys never move, so that growing never copies them.
const SEGMENT_BYTES: usize = 64 << 10;
/// The first segment: most scripts have few groups.
const FIRST_SEGMENT_BYTES: usize = 1 << 10;

/// The groups seen so far and a count for each.
pub struct Groups {
    stage: &'static str,
    keys: Keys,
    hasher: RandomState,
    table: HashTable<u32>,
    groups: Vec<Group>,
    segments: Vec<Vec<u8>>,
    reservation: Reservation,
    /// The key being looked up.
    key: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Group {
    segment: u32,
    start: u32,
    len: u32,
    rows: u64,
}

impl Groups {
    /// No groups yet.
    pub fn new(stage: &'static str, keys: Keys, budget: &Arc<Budget>) -> Self {
        Groups {
            stage,
            keys,
            hasher: RandomState::default(),
            table: HashTable::new(),
            groups: vec![],
            segments: vec![],
            reservation: budget.reserve(),
            key: vec![],
        }
    }

    /// The group of each row. New groups have counted no rows yet, so asking twice changes nothing.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if a new group does not fit; `Memory` if `arena` is full.
    pub fn of<'a>(&mut self, batch: &Batch<'_>, arena: &'a Arena) -> Result<&'a [u32]> {
        let ids = arena.fill(batch.rows(), 0u32)?;
        for (row, id) in ids.iter_mut().enumerate() {
            self.key.clear();
            self.keys
                .encode(batch.columns(), row, &mut self.key)
                .map_err(|e| held(self.stage, e))?;
            let hash = self.hasher.hash_one(&*self.key);
            let known = self
                .table
                .find(hash, |&g| key_of(&self.groups, &self.segments, g) == self.key);
            *id = match known {
                Some(&group) => group,
                None => self.add(hash).map_err(|e| held(self.stage, e))?,
            };
        }
        Ok(ids)
    }

    /// The encoded key of group `id`.
    pub(super) fn key(&self, id: u32) -> &[u8] {
        key_of(&self.groups, &self.segments, id)
    }

    /// Rows counted of group `id`.
    pub fn rows(&self, id: u32) -> u64 {
        self.groups[id as usize].rows
    }

    /// Counts a row of group `id`; answers how many came before it.
    pub fn count(&mut self, id: u32) -> u64 {
        let rows = &mut self.groups[id as usize].rows;
        *rows += 1;
        *rows - 1
    }

    /// Takes back one [`Groups::count`] for each of `ids`.
    pub fn uncount(&mut self, ids: &[u32]) {
        for &id in ids {
            self.groups[id as usize].rows -= 1;
        }
    }

    fn add(&mut self, hash: u64) -> Result<u32> {
        let full = |wanted| Error::Memory {
            wanted,
            used: usize::MAX,
            limit: usize::MAX,
        };
        let id = u32::try_from(self.groups.len()).map_err(|_| full(1))?;
        let len = u32::try_from(self.key.len()).map_err(|_| full(self.key.len()))?;

        // All room first: nothing below this block can fail.
        grow(&mut self.groups, 1, &mut self.reservation)?;
        if self
            .segments
            .last()
            .is_none_or(|s| s.capacity() - s.len() < self.key.len())
        {
            grow(&mut self.segments, 1, &mut self.reservation)?;
            let usual = if self.segments.is_empty() {
                FIRST_SEGMENT_BYTES
            } else {
                SEGMENT_BYTES
            };
            let mut segment = vec![];
            grow_to(&mut segment, usual.max(self.key.len()), &mut self.reservation)?;
            self.segments.push(segment);
        }
        if self.table.len() == self.table.capacity() {
            // Old and new table exist side by side while the groups move over.
            let old = self.table.allocation_size();
            let new = (2 * old).max(64);
            self.reservation.grow(new)?;
            let (groups, segments, hasher) = (&self.groups, &self.segments, &self.hasher);
            let moved = self
                .table
                .try_reserve(1, |&g| hasher.hash_one(key_of(groups, segments, g)));
            if moved.is_err() {
                self.reservation.shrink(new);
                return Err(full(new));
            }
            self.reservation
                .shrink(old + new.saturating_sub(self.table.allocation_size()));
        }

        let segment = self.segments.len() - 1;
        let bytes = &mut self.segments[segment];
        let start = bytes.len() as u32;
        bytes.extend_from_slice(&self.key);
        self.groups.push(Group {
            segment: segment as u32,
            start,
            len,
            rows: 0,
        });
        let (groups, segments, hasher) = (&self.groups, &self.segments, &self.hasher);
        self.table
            .insert_unique(hash, id, |&g| hasher.hash_one(key_of(groups, segments, g)));
        Ok(id)
    }
}

fn key_of<'g>(groups: &[Group], segments: &'g [Vec<u8>], id: u32) -> &'g [u8] {
    let group = groups[id as usize];
    &segments[group.segment as usize][group.start as usize..][..group.len as usize]
}

/// Makes room for `more` values, doubling, under `reservation`.
///
/// # Errors
/// `Memory` if the budget or the system refuses; nothing changes then.
pub(super) fn grow<T>(values: &mut Vec<T>, more: usize, reservation: &mut Reservation) -> Result<()> {
    let wanted = values.len().saturating_add(more);
    if wanted <= values.capacity() {
        return Ok(());
    }
    grow_to(values, wanted.max(values.capacity() * 2).max(4), reservation)
}

/// Makes the capacity `capacity` values, under `reservation`: the old block counts until the new one is there.
pub(super) fn grow_to<T>(values: &mut Vec<T>, capacity: usize, reservation: &mut Reservation) -> Result<()> {
    let (old, new) = (
        values.capacity() * size_of::<T>(),
        capacity.saturating_mul(size_of::<T>()),
    );
    reservation.grow(new)?;
    if values.try_reserve_exact(capacity.saturating_sub(values.len())).is_err() {
        reservation.shrink(new);
        return Err(Error::Memory {
            wanted: new,
            used: old,
            limit: usize::MAX,
        });
    }
    reservation.shrink(old);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::values;
    use standpipe_sdk::{Field, Schema, Type, Value};

    #[test]
    fn groups_are_numbered_by_first_rows_and_survive_a_refusal() {
        let schema: Schema = [Field::new("k", Type::String, true)].into_iter().collect();
        let rows: Vec<Vec<Value>> = (0..5000)
            .map(|i| {
                vec![if i % 700 == 3 {
                    Value::Null
                } else {
                    Value::String(format!("key number {}", i % 700))
                }]
            })
            .collect();
        let arena = Arena::new(1 << 24);
        let batch = values::batch(&schema, &rows, &arena).unwrap();
        for limit in [100, 2_000, 10_000, 50_000, 70_000, 150_000, 1 << 20] {
            let budget = Budget::new(limit);
            let mut groups = Groups::new("take", Keys::grouping([0]), &budget);
            match groups.of(&batch, &arena) {
                Ok(ids) => {
                    assert!(limit > 50_000);
                    assert!(ids.iter().enumerate().all(|(i, &id)| id as usize == i % 700));
                }
                Err(Error::Failed { message, .. }) => {
                    assert!(limit < 1 << 20 && message.starts_with("`take` needs "), "{message}");
                    let before = groups.groups.len();
                    assert_eq!(groups.table.len(), before);
                    assert!(groups.of(&batch, &arena).is_err());
                    assert_eq!(groups.groups.len(), before);
                }
                Err(other) => panic!("{other}"),
            }
            assert!(budget.used() <= limit);
            drop(groups);
            assert_eq!(budget.used(), 0);
        }
    }
}
