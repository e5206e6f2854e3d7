//! Groups by key, and their states: a shard of the stage's table, or a lane's small one.
//!
//! Laws
//! - `room` and `room_to_merge` can be refused and change nothing; `groups`, `update` and `merge` behind them cannot.
//! - The number of a group is its position in every array here and in every aggregate's states.

use super::Plan;
use super::index::Index;
use standpipe_sdk::aggregate::{Input, OfRun, RowOrder, States};
use standpipe_sdk::{Budget, Column, Error, Reservation, Result};
use std::cmp::Ordering;
use std::sync::Arc;

/// What a hash is in the table: its shard is in the upper bits.
pub(super) type Hash = u32;

/// How hashes are shared out to shards.
#[derive(Clone, Copy)]
pub(super) struct Sharding {
    bits: u32,
}

impl Sharding {
    /// To `shards` of them, or to the next power of two.
    pub(super) fn new(shards: usize) -> Sharding {
        let bits = shards.next_power_of_two().trailing_zeros();
        Sharding {
            bits: bits.min(Hash::BITS),
        }
    }

    pub(super) fn shards(self) -> usize {
        1 << self.bits
    }

    /// The shard of a hash.
    #[inline]
    pub(super) fn of(self, hash: Hash) -> usize {
        (u64::from(hash) >> (Hash::BITS - self.bits)) as usize
    }
}

/// Keys that go to one table: `keys[i]`, and the hash of each.
#[derive(Clone, Copy)]
pub(super) struct KeyRows<'a> {
    pub(super) prefixes: &'a [u128],
    /// What keys have behind their prefix; empty if no key can have any.
    pub(super) tails: &'a [&'a [u8]],
    pub(super) hashes: &'a [Hash],
}

impl<'a> KeyRows<'a> {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> KeyRows<'a> {
        KeyRows {
            prefixes: &self.prefixes[from..to],
            tails: if self.tails.is_empty() {
                &[]
            } else {
                &self.tails[from..to]
            },
            hashes: &self.hashes[from..to],
        }
    }

    fn tail(&self, row: usize) -> &'a [u8] {
        self.tails.get(row).copied().unwrap_or_default()
    }
}

pub(super) struct Table {
    index: Index,
    prefixes: Vec<u128>,
    /// What keys have behind the prefix, one behind the other, and where each ends; unused where no key can be that long.
    tails: Vec<u8>,
    ends: Vec<usize>,
    long: bool,
    /// Once sorted: the groups by key.
    order: Vec<u32>,
    pub(super) states: Vec<Box<dyn States>>,
    reservation: Reservation,
}

impl Table {
    pub(super) fn new(plan: &Plan, of_run: &OfRun, budget: &Arc<Budget>) -> Table {
        Table {
            index: Index::default(),
            prefixes: vec![],
            tails: vec![],
            ends: vec![],
            long: plan.long,
            order: vec![],
            states: plan
                .calls
                .iter()
                .map(|call| call.arg.aggregate.states(of_run))
                .collect(),
            reservation: budget.reserve(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// The key of a group: its first bytes as a number, and the rest.
    pub(super) fn key(&self, group: u32) -> (u128, &[u8]) {
        (self.prefixes[group as usize], self.tail(group as usize))
    }

    fn tail(&self, group: usize) -> &[u8] {
        if !self.long {
            return &[];
        }
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.tails[start..self.ends[group]]
    }

    pub(super) fn compare(&self, group: u32, prefix: u128, tail: &[u8]) -> Ordering {
        let own = self.key(group);
        own.0.cmp(&prefix).then_with(|| own.1.cmp(tail))
    }

    /// The hash of every group, by group.
    pub(super) fn hashes(&self, out: &mut Vec<Hash>) {
        out.clear();
        out.resize(self.len(), 0);
        self.index.each(|hash, group| out[group as usize] = hash);
    }

    /// Room for that many new groups of these keys.
    fn room_for_keys(&mut self, keys: &KeyRows<'_>, more: usize) -> Result<()> {
        let too_many = Error::Memory {
            wanted: more,
            used: self.len(),
            limit: u32::MAX as usize,
        };
        if self.len() + more > u32::MAX as usize {
            return Err(too_many);
        }
        self.reservation.room(&mut self.prefixes, more)?;
        // What `sort` takes too: the table may be sorted because there is no room left.
        let groups = self.len() + more;
        self.reservation.room(&mut self.order, groups)?;
        if self.long {
            let bytes = keys.tails.iter().map(|tail| tail.len()).sum();
            self.reservation.room(&mut self.ends, more)?;
            self.reservation.room(&mut self.tails, bytes)?;
        }
        self.index.room(more, &mut self.reservation)?;
        Ok(())
    }

    /// Room for these keys and what their rows add to each aggregate.
    /// There will be `most` groups at most.
    pub(super) fn room(&mut self, keys: &KeyRows<'_>, inputs: &[Input<'_>], most: usize) -> Result<()> {
        let more = keys.len().min(most.saturating_sub(self.len()));
        self.room_for_keys(keys, more)?;
        let groups = self.len() + more;
        for (states, input) in self.states.iter_mut().zip(inputs) {
            states.room(groups, input, &mut self.reservation)?;
        }
        Ok(())
    }

    /// Room for these keys and partial states, one list of columns per aggregate.
    pub(super) fn room_to_merge(&mut self, keys: &KeyRows<'_>, partial: &[&[Column<'_>]]) -> Result<()> {
        self.room_for_keys(keys, keys.len())?;
        let groups = self.len() + keys.len();
        for (states, partial) in self.states.iter_mut().zip(partial) {
            states.room_to_merge(groups, partial, &mut self.reservation)?;
        }
        Ok(())
    }

    /// The group of each key, until there are `most` groups; how many keys that were.
    ///
    /// In steps of independent loads, which are waited for together: where the index would have each key, whether its group has
    /// that key; and one key after the other only for what is new.
    pub(super) fn groups(&mut self, keys: &KeyRows<'_>, most: usize, groups: &mut [u32]) -> usize {
        self.index.likely(keys.hashes, groups);
        for (row, slot) in groups.iter_mut().enumerate() {
            if *slot != Index::NONE && !self.is(*slot, keys.prefixes[row], keys.tail(row)) {
                *slot = Index::NONE;
            }
        }
        for (row, slot) in groups.iter_mut().enumerate() {
            if *slot != Index::NONE {
                continue;
            }
            let (hash, prefix, tail) = (keys.hashes[row], keys.prefixes[row], keys.tail(row));
            *slot = match self.index.find(hash, |group| self.is(group, prefix, tail)) {
                Some(group) => group,
                None if self.len() >= most => return row,
                None => self.add(hash, prefix, tail),
            };
        }
        groups.len()
    }

    #[inline]
    fn is(&self, group: u32, prefix: u128, tail: &[u8]) -> bool {
        if self.prefixes[group as usize] != prefix {
            return false;
        }
        if !self.long {
            return true;
        }
        let own = self.tail(group as usize);
        // Not by comparing where there is nothing to compare: the C library reads at the address of an empty slice too, with all
        // bytes masked out, and where no page is there the processor takes a detour of hundreds of cycles.
        own.len() == tail.len() && (own.is_empty() || own == tail)
    }

    fn add(&mut self, hash: Hash, prefix: u128, tail: &[u8]) -> u32 {
        let group = self.prefixes.len() as u32;
        self.prefixes.push(prefix);
        if self.long {
            self.tails.extend_from_slice(tail);
            self.ends.push(self.tails.len());
        }
        self.index.add(hash, group);
        group
    }

    pub(super) fn update(&mut self, groups: &[u32], inputs: &[Input<'_>]) {
        for (states, input) in self.states.iter_mut().zip(inputs) {
            states.update(groups, input);
        }
    }

    pub(super) fn merge(&mut self, groups: &[u32], partial: &[&[Column<'_>]]) {
        for (states, partial) in self.states.iter_mut().zip(partial) {
            states.merge(groups, partial);
        }
    }

    /// Nothing more comes. A table without groups takes nothing for it: there may be nothing left to take.
    pub(super) fn seal(&mut self) -> Result<()> {
        if self.len() == 0 {
            return Ok(());
        }
        for states in &mut self.states {
            states.seal(&mut self.reservation)?;
        }
        Ok(())
    }

    /// Adds the group without keys, that no row is in.
    pub(super) fn add_empty(&mut self) -> Result<()> {
        let keys = KeyRows {
            prefixes: &[0],
            tails: &[],
            hashes: &[0],
        };
        let none = Input {
            columns: &[],
            rows: 0,
            take: None,
            order: RowOrder::default(),
        };
        let inputs = vec![none; self.states.len()];
        self.room(&keys, &inputs, usize::MAX)?;
        self.groups(&keys, usize::MAX, &mut [0]);
        Ok(())
    }

    /// Sets memory aside for a few rows: however little others leave, they find room.
    pub(super) fn set_aside(&mut self, bytes: usize) -> Result<()> {
        self.reservation.set_aside(bytes)
    }

    /// Brings the groups into the order of their keys, without more memory.
    pub(super) fn sort(&mut self) {
        self.sort_some(0..self.len() as u32);
    }

    /// Forgets the other groups as far as [`Table::sorted`] is concerned.
    pub(super) fn sort_some(&mut self, groups: impl Iterator<Item = u32>) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(groups);
        order.sort_unstable_by(|&a, &b| {
            let (prefix, tail) = self.key(b);
            self.compare(a, prefix, tail)
        });
        self.order = order;
    }

    /// The `at`-th group in the order of keys.
    pub(super) fn sorted(&self, at: usize) -> Option<u32> {
        self.order.get(at).copied()
    }

    /// Bytes of the budget it has.
    pub(super) fn bytes(&self) -> usize {
        self.reservation.bytes()
    }

    /// The same as `release`, but `bytes` of the memory are the other's then: nobody else can take them in between.
    pub(super) fn release_to(&mut self, other: &mut Reservation, bytes: usize) {
        other.move_from(bytes, &mut self.reservation);
        self.release();
    }

    /// Forgets all groups and gives the memory back.
    pub(super) fn release(&mut self) {
        let reservation = &mut self.reservation;
        self.index.free(reservation);
        reservation.free(&mut self.prefixes);
        reservation.free(&mut self.tails);
        reservation.free(&mut self.ends);
        reservation.free(&mut self.order);
        self.states.iter_mut().for_each(|states| states.release(reservation));
    }

    /// Forgets all groups and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.prefixes.clear();
        self.tails.clear();
        self.ends.clear();
        self.order.clear();
        self.states.iter_mut().for_each(|states| states.clear());
    }

    /// The key of a group, put together in `out`.
    pub(super) fn write_key(&self, group: u32, out: &mut Vec<u8>) {
        let (prefix, tail) = self.key(group);
        out.clear();
        out.extend_from_slice(&prefix.to_be_bytes());
        out.extend_from_slice(tail);
    }
}
