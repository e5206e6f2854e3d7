//! Groups that do not fit into memory: the table as a sorted segment of partial states, and segments back as groups.
//!
//! How: whoever is refused takes all locks, writes the groups in the order of their keys and starts with an empty table. At the end the
//! merge brings equal keys together; claims are runs of them, so that lanes combine states and finish groups in parallel. A run that
//! may go on in the next claim is combined at once, under the lock, and handed on.
//!
//! What will bite: nothing here may need memory of the budget that was not set aside when there was some.

use super::drain;
use super::table::Table;
use super::{Aggregate, Plan};
use crate::stages::codes::held;
use crate::stages::from::numbered;
use crate::stages::keys::KeyBlock;
use crate::stages::spill::merge::Picks;
use crate::stages::spill::{Merge, SegmentWriter, Store, lane_floor, merge_floor};
use standpipe_sdk::aggregate::States;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room};
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Faults, Kept, Locator, Part, Reader, Reservation, Source};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Groups that are written at a time, at most.
const BLOCK: usize = 1024;
/// Rows of one claim.
const CLAIM_ROWS: usize = 16 << 10;
/// Groups of one part.
const PART_GROUPS: usize = 4 << 10;

/// What writing takes, set aside.
pub(super) struct Spiller {
    writer: SegmentWriter,
    arena: Arena,
    /// The next group of each table.
    next: Vec<usize>,
    room: Reservation,
    /// For groups that take more than usual: given back while the table is written, for whoever writes it needs it.
    slack: Reservation,
    slack_bytes: usize,
}

/// The slack is this part of the memory, at most `MOST_SLACK` bytes.
const SLACK_PART: usize = 8;
const MOST_SLACK: usize = 32 << 20;

/// What is set aside to write tables, and what merging what was written takes.
pub(in crate::stages) fn least(room: &Room) -> Least {
    let slack = (room.bytes / SLACK_PART).min(MOST_SLACK);
    Least {
        takes: lane_floor(room.bytes) + slack,
        gives: merge_floor(room.bytes),
    }
}

impl Spiller {
    pub(super) fn new(store: &Arc<Store>, budget: &Arc<Budget>, tables: usize) -> Result<Spiller> {
        let bytes = 4 * store.frame_bytes();
        let (mut room, mut slack) = (budget.reserve(), budget.reserve());
        room.grow(bytes)?;
        let slack_bytes = (budget.limit() / SLACK_PART).min(MOST_SLACK);
        slack.grow(slack_bytes)?;
        Ok(Spiller {
            slack,
            slack_bytes,
            writer: store.writer()?,
            arena: Arena::new(bytes),
            next: vec![0; tables],
            room,
        })
    }

    /// Writes all groups of these tables, and empties them; how many there were.
    pub(super) fn write(
        &mut self,
        plan: &Plan,
        store: &Arc<Store>,
        tables: &mut [MutexGuard<'_, Table>],
    ) -> Result<usize> {
        let mut groups = 0;
        for table in tables.iter_mut() {
            table.seal()?;
            table.sort();
            groups += table.len();
        }
        if groups == 0 {
            return Ok(0);
        }
        self.slack.shrink(self.slack_bytes);
        let usual = self.arena.limit();
        self.next.fill(0);
        let mut heads = Heads::new(tables, &self.next);
        let mut block = BLOCK;
        loop {
            // So that a block that is too large can be made again, the heads are moved on a copy of their places.
            let picks = heads.picks(tables, &mut self.next, block);
            if picks.is_empty() {
                break;
            }
            let (mut from, mut len) = (0, picks.len());
            while from < picks.len() {
                len = len.min(picks.len() - from);
                let written = write_block(plan, tables, &picks[from..from + len], &mut self.writer, &self.arena);
                self.arena.reset();
                match written {
                    Ok(()) => from += len,
                    Err(Error::Memory { .. }) if len > 1 => {
                        len = len.div_ceil(2);
                        block = len;
                    }
                    // One group that is longer than was set aside: what was refused was often far more than is left.
                    Err(error @ Error::Memory { limit, .. }) if limit == self.arena.limit() => {
                        self.room.grow(limit).map_err(|_| error)?;
                        self.arena.set_limit(limit.saturating_mul(2));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for table in tables.iter_mut() {
            table.release();
        }
        if self.arena.limit() > usual {
            self.room.shrink(self.arena.limit() - usual);
            self.arena.release();
            self.arena.set_limit(usual);
        }
        store.keep(self.writer.finish()?);
        // Another lane may have taken it meanwhile: then the next time has less.
        let missing = self.slack_bytes - self.slack.bytes().min(self.slack_bytes);
        let _ = self.slack.grow(missing);
        Ok(groups)
    }
}

/// The tables by their next keys: the least first.
struct Heads {
    /// (prefix, table), a heap whose first is the least.
    heap: Vec<(u128, u32)>,
}

impl Heads {
    fn new(tables: &[MutexGuard<'_, Table>], next: &[usize]) -> Heads {
        let head = |at: usize| {
            let group = tables[at].sorted(next[at])?;
            Some((tables[at].key(group).0, at as u32))
        };
        let mut heads = Heads {
            heap: (0..tables.len()).filter_map(head).collect(),
        };
        for at in (0..heads.heap.len() / 2).rev() {
            heads.sift(at, tables, next);
        }
        heads
    }

    fn less(&self, a: usize, b: usize, tables: &[MutexGuard<'_, Table>], next: &[usize]) -> bool {
        let ((prefix, one), (other_prefix, two)) = (self.heap[a], self.heap[b]);
        if prefix != other_prefix {
            return prefix < other_prefix;
        }
        let tail = |table: u32| {
            let table = table as usize;
            let group = tables[table].sorted(next[table]).unwrap_or_default();
            tables[table].key(group).1
        };
        tail(one) < tail(two)
    }

    fn sift(&mut self, mut at: usize, tables: &[MutexGuard<'_, Table>], next: &[usize]) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.less(child, least, tables, next) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// The next groups, at most so many.
    fn picks(&mut self, tables: &[MutexGuard<'_, Table>], next: &mut [usize], most: usize) -> Vec<(u32, u32)> {
        let mut picks = Vec::with_capacity(most);
        while picks.len() < most {
            let Some(&(_, number)) = self.heap.first() else { break };
            let table = number as usize;
            picks.push((number, tables[table].sorted(next[table]).unwrap_or_default()));
            next[table] += 1;
            match tables[table].sorted(next[table]) {
                Some(group) => self.heap[0].0 = tables[table].key(group).0,
                None => {
                    let last = self.heap.len() - 1;
                    self.heap.swap(0, last);
                    self.heap.pop();
                }
            }
            self.sift(0, tables, next);
        }
        picks
    }
}

fn write_block(
    plan: &Plan,
    tables: &[MutexGuard<'_, Table>],
    picks: &[(u32, u32)],
    writer: &mut SegmentWriter,
    arena: &Arena,
) -> Result<()> {
    let places = drain::Places::new(tables.len(), picks.len(), |at| picks[at], arena)?;
    let mut columns = Columns::new(arena, width(plan))?;
    for at in 0..plan.calls.len() {
        let used = places.tables();
        let parts = arena.fill::<&[Column<'_>]>(used.len(), &[])?;
        for (number, &table) in used.iter().enumerate() {
            parts[number] = tables[table as usize].states[at].partial(places.groups(number), arena)?;
        }
        for column in 0..plan.partials[at] {
            let of = arena.map(parts, |part| part[column])?;
            columns.push(Column::interleave(of, places.picks(), arena)?);
        }
    }
    let batch = Batch::new(columns.finish(), None, picks.len());
    let key = |at: usize| {
        let (table, group) = picks[at];
        tables[table as usize].key(group)
    };
    let mut end = 0;
    let ends = arena.collect(picks.len() + 1, |at| {
        let before = end;
        if at < picks.len() {
            end += size_of::<u128>() + key(at).1.len();
        }
        before as u32
    })?;
    let bytes = arena.fill(end, 0u8)?;
    for (at, &from) in ends[..picks.len()].iter().enumerate() {
        let (prefix, tail) = key(at);
        let slot = &mut bytes[from as usize..][..size_of::<u128>() + tail.len()];
        slot[..size_of::<u128>()].copy_from_slice(&prefix.to_be_bytes());
        slot[size_of::<u128>()..].copy_from_slice(tail);
    }
    let keys = KeyBlock::each(bytes, ends);
    let (chunks, rows) = (arena.fill(picks.len(), 0u64)?, arena.fill(picks.len(), 0u32)?);
    writer.make_room(&batch, &keys)?;
    writer.append(&batch, &keys, chunks, rows)
}

/// Columns of all partial states side by side.
fn width(plan: &Plan) -> usize {
    plan.partials.iter().sum()
}

/// Spilled groups as a source.
pub(super) struct Merged {
    plan: Arc<Plan>,
    state: Mutex<Merging>,
    over: AtomicBool,
    tickets: AtomicU64,
    budget: Arc<Budget>,
    cancelled: Arc<AtomicBool>,
    share: usize,
    part_groups: usize,
}

struct Merging {
    merge: Merge,
    /// The ticket that is picked for next.
    next: u64,
    /// A group that may go on in the next picks.
    open: Option<Open>,
    /// Groups picked so far.
    groups: u64,
    /// Picked for lanes that have not come yet.
    ready: VecDeque<(u64, Claim)>,
    combine: Combine,
}

/// A group's key, and its partial states so far as a batch of one row.
struct Open {
    key: Vec<u8>,
    states: Kept,
    _reservation: Reservation,
}

/// Groups picked for one lane: one more than `starts` has ends if `open` is a group of its own.
#[derive(Default)]
struct Claim {
    picks: Picks,
    /// Where each group starts in the picks, and where the last one ends.
    starts: Vec<usize>,
    /// What the first group had before.
    open: Option<Open>,
    /// The number of the first group in the output.
    first: u64,
    /// Groups that were given.
    given: usize,
}

impl Claim {
    fn groups(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }
}

/// States that partial ones are combined in.
struct Combine {
    plan: Arc<Plan>,
    states: Vec<Box<dyn States>>,
    reservation: Reservation,
    arena: Arena,
    /// The group of each row.
    groups: Vec<u32>,
}

/// Rows that are combined at a time.
const COMBINE_ROWS: usize = 4 << 10;

impl Combine {
    fn new(plan: &Arc<Plan>, budget: &Arc<Budget>, share: usize) -> Combine {
        Combine {
            states: plan.calls.iter().map(|call| call.arg.aggregate.states()).collect(),
            plan: plan.clone(),
            reservation: budget.reserve(),
            arena: Arena::new(share),
            groups: vec![],
        }
    }

    fn clear(&mut self) {
        self.states.iter_mut().for_each(|states| states.clear());
    }

    /// Takes rows of partial states; there are `count` groups in all.
    fn take(&mut self, batch: &Batch<'_>, groups: &[u32], count: usize) -> Result<()> {
        // Room for all of them first: after a refusal fewer rows may come again.
        let mut from = 0;
        for (states, &width) in self.states.iter_mut().zip(&self.plan.partials) {
            let partial = &batch.columns()[from..from + width];
            states.room_to_merge(count, partial, &mut self.reservation)?;
            from += width;
        }
        from = 0;
        for (states, &width) in self.states.iter_mut().zip(&self.plan.partials) {
            states.merge(groups, &batch.columns()[from..from + width]);
            from += width;
        }
        Ok(())
    }

    /// Takes the picks of groups `first..last` of a claim.
    fn take_groups(&mut self, claim: &Claim, first: usize, last: usize) -> Result<()> {
        let count = last - first;
        if let Some(open) = claim.open.as_ref().filter(|_| first == 0) {
            self.take(&open.states.batch(), &[0], count)?;
        }
        let (mut at, mut group) = (claim.starts[first], first);
        let (end, mut most) = (claim.starts[last], COMBINE_ROWS);
        while at < end {
            let len = most.min(end - at);
            let mut arena = std::mem::replace(&mut self.arena, Arena::new(0));
            let taken = match claim.picks.gather(at, len, &arena) {
                Ok(batch) => {
                    self.groups.clear();
                    let mut number = group;
                    for row in at..at + batch.rows() {
                        while claim.starts[number + 1] <= row {
                            number += 1;
                        }
                        self.groups.push((number - first) as u32);
                    }
                    let groups = std::mem::take(&mut self.groups);
                    let taken = self.take(&batch, &groups, count);
                    self.groups = groups;
                    match taken {
                        Ok(()) => {
                            group = number;
                            Ok(batch.rows())
                        }
                        Err(Error::Memory { .. }) if len > 1 => {
                            most = len.div_ceil(2);
                            Ok(0)
                        }
                        Err(error) => Err(error),
                    }
                }
                Err(Error::Memory { .. }) if len > 1 => {
                    most = len.div_ceil(2);
                    Ok(0)
                }
                // One group's partial states of one segment: as long as they are, they were in memory once.
                Err(Error::Memory { .. }) => {
                    arena.set_limit(arena.limit().saturating_mul(2));
                    Ok(0)
                }
                Err(error) => Err(error),
            };
            arena.reset();
            self.arena = arena;
            at += taken?;
        }
        for states in &mut self.states {
            states.seal(&mut self.reservation)?;
        }
        Ok(())
    }

    /// The state of group 0 as a batch of one row.
    fn keep(&mut self, key: &[u8], budget: &Arc<Budget>) -> Result<Open> {
        let mut arena = std::mem::replace(&mut self.arena, Arena::new(0));
        let kept = loop {
            let made = (|| {
                let mut columns = Columns::new(&arena, width(&self.plan))?;
                for states in &self.states {
                    for column in states.partial(&[0], &arena)? {
                        columns.push(*column);
                    }
                }
                let batch = Batch::new(columns.finish(), None, 1);
                let mut reservation = budget.reserve();
                reservation.grow(batch.copy_bytes())?;
                Ok(Open {
                    key: key.to_vec(),
                    states: Kept::copy(&batch, batch.copy_bytes())?,
                    _reservation: reservation,
                })
            })();
            match made {
                Err(Error::Memory { wanted, used, limit }) if limit == arena.limit() && used == arena.used() => {
                    let _ = wanted;
                    arena.reset();
                    arena.set_limit(limit.saturating_mul(2));
                }
                made => break made,
            }
        };
        arena.reset();
        self.arena = arena;
        kept
    }
}

impl Merged {
    pub(super) fn new(stage: &Aggregate) -> Result<Merged> {
        let columns = stage.plan.key_fields.len() + stage.plan.calls.len();
        Ok(Merged {
            plan: stage.plan.clone(),
            state: Mutex::new(Merging {
                merge: Merge::new(&stage.store, &stage.budget)?,
                next: 0,
                open: None,
                groups: 0,
                ready: VecDeque::new(),
                combine: Combine::new(&stage.plan, &stage.budget, stage.share),
            }),
            over: AtomicBool::new(false),
            tickets: AtomicU64::new(0),
            budget: stage.budget.clone(),
            cancelled: stage.cancelled.clone(),
            share: stage.share,
            part_groups: (stage.chunk_bytes / (16 * columns.max(1))).clamp(1, PART_GROUPS),
        })
    }

    fn claim(&self, ticket: u64) -> Result<Claim> {
        const NAP: Duration = Duration::from_micros(100);
        loop {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = state.ready.iter().position(|(number, _)| *number == ticket);
            if let Some(at) = ready {
                let claim = state.ready.swap_remove_back(at).map(|(_, claim)| claim);
                return Ok(claim.unwrap_or_default());
            }
            let mut claim = Claim::default();
            match state.merge.next(CLAIM_ROWS, &mut claim.picks) {
                Ok(()) => {}
                Err(Error::Memory { .. }) => {
                    // Other lanes hold all frames that there is room for.
                    drop(state);
                    std::thread::sleep(NAP);
                    continue;
                }
                Err(error) => return Err(held(self.plan.stage, error)),
            }
            let whole = state
                .close(&mut claim, &self.budget)
                .map_err(|e| held(self.plan.stage, e))?;
            if !whole {
                continue;
            }
            if claim.groups() == 0 {
                self.over.store(true, SeqCst);
            }
            let number = state.next;
            state.next += 1;
            state.ready.push_back((number, claim));
        }
    }
}

impl Merging {
    /// Makes groups of the picks; the last one stays open unless this is the end. False if nothing is left then.
    fn close(&mut self, claim: &mut Claim, budget: &Arc<Budget>) -> Result<bool> {
        claim.first = self.groups;
        claim.open = self.open.take();
        let rows = claim.picks.len();
        if rows == 0 {
            // The end: what was open is the last group.
            if claim.open.is_some() {
                claim.starts = vec![0, 0];
                self.groups += 1;
            }
            return Ok(true);
        }
        if claim.open.as_ref().is_some_and(|open| open.key != claim.picks.key(0)) {
            // A group of its own, without rows in these picks.
            claim.starts.push(0);
        }
        claim.starts.push(0);
        for row in 1..rows {
            if claim.picks.key(row) != claim.picks.key(row - 1) {
                claim.starts.push(row);
            }
        }
        claim.starts.push(rows);
        let last = claim.groups() - 1;
        self.combine.clear();
        // `take_groups` looks at `open` for the first group only.
        self.combine.take_groups(claim, last, last + 1)?;
        self.open = Some(self.combine.keep(claim.picks.key(rows - 1), budget)?);
        self.combine.clear();
        claim.starts.pop();
        self.groups += claim.groups() as u64;
        Ok(claim.groups() > 0)
    }
}

impl Source for Merged {
    fn ticket(&self) -> Option<u64> {
        (!self.over.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MergedReader {
            combine: Combine::new(&self.plan, &self.budget, self.share),
            claim: Claim::default(),
            merged: self,
        }))
    }
}

struct MergedReader {
    merged: Arc<Merged>,
    combine: Combine,
    claim: Claim,
}

impl Reader for MergedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        // The frames of the claim before go first: they may be what this one waits for.
        self.claim = Claim::default();
        self.claim = self.merged.claim(ticket)?;
        Ok(self.claim.groups() > 0)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let left = self.claim.groups() - self.claim.given;
        let len = max_rows.min(self.merged.part_groups).clamp(1, left.max(1)).min(left);
        let (first, last) = (self.claim.given, self.claim.given + len);
        self.combine.clear();
        let taken = self.combine.take_groups(&self.claim, first, last);
        taken.map_err(|e| held(self.merged.plan.stage, e))?;
        let faults = Faults::new(arena, stop_at_first);
        let from = self.claim.first + first as u64;
        let batch = self.batch(first, last, from, arena, &faults)?;
        // Only now: a refused part can be asked for again, with fewer rows.
        self.claim.given += len;
        Ok(Part {
            batch,
            faults,
            last: self.claim.given >= self.claim.groups(),
            locator: Locator::default(),
        })
    }
}

impl MergedReader {
    fn batch<'a>(
        &self,
        first: usize,
        last: usize,
        from: u64,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<Batch<'a>> {
        let (plan, claim) = (&*self.merged.plan, &self.claim);
        let groups = last - first;
        let key = |at: usize| -> &[u8] {
            let (start, end) = (claim.starts[first + at], claim.starts[first + at + 1]);
            match &claim.open {
                Some(open) if first + at == 0 && start == end => &open.key,
                _ => claim.picks.key(start),
            }
        };
        let keys = arena.fill::<&[u8]>(groups, &[])?;
        for (at, slot) in keys.iter_mut().enumerate() {
            *slot = arena.copy(key(at))?;
        }
        let mut columns = Columns::new(arena, plan.key_fields.len() + plan.calls.len())?;
        let mut keyed = super::key::Keyed::new(keys);
        for ty in plan.key_types() {
            columns.push(keyed.column(ty, arena)?);
        }
        let numbers = arena.collect(groups, |at| at as u32)?;
        for (call, states) in plan.calls.iter().zip(&self.combine.states) {
            let mut fault = |at: usize, code, text: &str| plan.fault(call, at, code, text, key(at), faults);
            columns.push(states.finish(numbers, arena, &mut fault)?);
        }
        Ok(Batch::new(
            columns.finish(),
            Some(numbered(from, groups, arena)?),
            groups,
        ))
    }
}
