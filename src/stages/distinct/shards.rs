//! The keys that `distinct` has seen, in shards with a lock each: lanes look up rows in all of them before their turn.
//!
//! Keys are added in the turn only, chunk by chunk. So a key that a lane finds before its turn is one of an earlier row, whatever other lanes
//! do meanwhile, and its row needs no turn any more.
//!
//! Laws
//! - Rows of a batch that is refused find the numbers that their keys got, which are not below `given` yet.

use super::super::keyset::{KeySet, NONE};
use super::super::rowkeys::RowKeys;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Budget};
use std::sync::{Arc, PoisonError, RwLock};

/// A power of two.
const SHARDS: usize = 32;

pub(super) struct Shards {
    shards: Vec<RwLock<Shard>>,
}

struct Shard {
    set: KeySet,
    /// Keys whose rows were given: one with this number is the next new one.
    given: u32,
}

/// What is known of a batch's rows.
pub(super) struct Looked<'a> {
    /// Per row: it is the first of its key.
    pub(super) new: &'a [bool],
    /// Per row: its key is not here.
    pub(super) unknown: &'a [bool],
    /// A key was refused.
    pub(super) refused: bool,
    next: [u32; SHARDS],
}

/// The rows of a batch by shard, in order within each.
struct Split<'a> {
    starts: [u32; SHARDS + 1],
    rows: &'a [u32],
    hashes: &'a [i64],
}

fn shard_of(hash: i64) -> usize {
    // The upper bits choose the slot.
    hash as usize & (SHARDS - 1)
}

impl Shards {
    pub(super) fn new(budget: &Arc<Budget>) -> Arc<Shards> {
        let shard = |_| {
            RwLock::new(Shard {
                set: KeySet::new(budget),
                given: 0,
            })
        };
        Arc::new(Shards {
            shards: (0..SHARDS).map(shard).collect(),
        })
    }

    /// The rows whose keys no earlier row is known to have.
    pub(super) fn unseen<'a>(&self, keys: &RowKeys<'_>, arena: &'a Arena) -> Result<&'a [u32]> {
        let split = Split::of(keys.hashes(), arena)?;
        let numbers = arena.fill(split.rows.len(), 0u32)?;
        let seen = arena.fill(split.rows.len(), false)?;
        for (shard, lock) in self.shards.iter().enumerate() {
            let (rows, hashes, numbers) = split.part(shard, numbers);
            if rows.is_empty() {
                continue;
            }
            let shard = lock.read().unwrap_or_else(PoisonError::into_inner);
            shard.set.find(hashes, |at| keys.get(rows[at] as usize), numbers);
            for (&row, &number) in rows.iter().zip(&*numbers) {
                seen[row as usize] = number < shard.given;
            }
        }
        let left = arena.fill(seen.len(), 0u32)?;
        let mut count = 0;
        for (row, &seen) in seen.iter().enumerate() {
            left[count] = row as u32;
            count += usize::from(!seen);
        }
        Ok(&left[..count])
    }

    /// Looks up the keys of a batch in its turn, and adds them if `add`.
    pub(super) fn look_up<'a>(&self, keys: &RowKeys<'_>, mut add: bool, arena: &'a Arena) -> Result<Looked<'a>> {
        let split = Split::of(keys.hashes(), arena)?;
        let numbers = arena.fill(split.rows.len(), 0u32)?;
        let new = arena.fill(split.rows.len(), false)?;
        let unknown = arena.fill(split.rows.len(), false)?;
        let (mut next, mut refused) = ([0; SHARDS], false);
        for (number, lock) in self.shards.iter().enumerate() {
            let (rows, hashes, numbers) = split.part(number, numbers);
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            let key = |at: usize| keys.get(rows[at] as usize);
            if add && shard.set.number(hashes, key, numbers).is_err() {
                (add, refused) = (false, true);
            }
            if !add {
                shard.set.find(hashes, key, numbers);
            }
            next[number] = shard.given;
            for (&row, &found) in rows.iter().zip(&*numbers) {
                new[row as usize] = found == next[number];
                unknown[row as usize] = found == NONE;
                next[number] += u32::from(found == next[number]);
            }
        }
        Ok(Looked {
            new,
            unknown,
            refused,
            next,
        })
    }

    /// The new rows of a batch are given.
    pub(super) fn give(&self, looked: &Looked<'_>) {
        for (lock, &next) in self.shards.iter().zip(&looked.next) {
            lock.write().unwrap_or_else(PoisonError::into_inner).given = next;
        }
    }

    /// Forgets all keys and gives the memory back.
    pub(super) fn clear(&self) {
        for lock in &self.shards {
            lock.write().unwrap_or_else(PoisonError::into_inner).set.clear();
        }
    }
}

impl<'a> Split<'a> {
    fn of(hashes: &[i64], arena: &'a Arena) -> Result<Split<'a>> {
        let mut starts = [0u32; SHARDS + 1];
        for &hash in hashes {
            starts[shard_of(hash) + 1] += 1;
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let rows = arena.fill(hashes.len(), 0u32)?;
        let mut ends = starts;
        for (row, &hash) in hashes.iter().enumerate() {
            let end = &mut ends[shard_of(hash)];
            rows[*end as usize] = row as u32;
            *end += 1;
        }
        let hashes = arena.collect(hashes.len(), |at| hashes[rows[at] as usize])?;
        Ok(Split { starts, rows, hashes })
    }

    fn part<'n>(&self, shard: usize, numbers: &'n mut [u32]) -> (&'a [u32], &'a [i64], &'n mut [u32]) {
        let range = self.starts[shard] as usize..self.starts[shard + 1] as usize;
        (
            &self.rows[range.clone()],
            &self.hashes[range.clone()],
            &mut numbers[range],
        )
    }
}
