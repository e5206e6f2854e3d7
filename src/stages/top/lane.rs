//! What one lane of `top` keeps, and its way to disk.
//!
//! How it works: rows come in blocks. Those that come into the heaps are copied as one piece; if anything is refused before the copy is there,
//! the block's rows leave the heaps, and the block comes again once there is memory, or in parts. What they had pushed out is missed by
//! nobody: better rows than those have come, or come again.
//!
//! Laws
//! - What taking a row and writing all of them takes is set aside when the lane is made.
//! - After a refusal every row that was taken is in a heap with its copy, or on disk.

use super::super::bounds::Rank;
use super::super::copies::{Copies, Scratch};
use super::super::groups::{Groups, grow, grow_to, refused};
use super::super::heap;
use super::super::lanes::lock;
use super::super::rowkeys::KeyMaker;
use super::super::spill::end_group;
use super::super::spiller::{COPY_FRAMES, LIST_FRAMES, Lists, SCRATCH_FRAMES, Spiller};
use super::entry::{Entry, PREFIX_BYTES, is_worse, prefix_of, rank};
use super::{Top, heads};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Batch, Reservation};
use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;

/// Rows of a batch that are looked at together: what bounds the scratch memory.
const BLOCK_ROWS: usize = 4 << 10;
/// What a piece of a key on the heap costs beside its bytes.
const TAIL_BYTES: usize = 16;

/// What one lane has collected, and what it works and spills with.
pub(super) struct Lane {
    pub(super) best: Best,
    scratch: Scratch,
    /// What of it writing the longest of the rows that are held takes, if that is more than usual.
    row_scratch: usize,
    spiller: Spiller,
    /// The key of the row that is looked at.
    key: Vec<u8>,
    /// The rows of a block that are kept.
    chosen: Vec<u32>,
    /// The chunk and how many of its rows have come.
    at: (u64, u32),
    /// Rows of the next block.
    block_rows: usize,
    /// Refusals of all lanes that this one knows of.
    refusals: u64,
    /// Which of the bounds it knows.
    version: u64,
}

/// The best rows so far.
pub(super) struct Best {
    /// `None`: all rows are one group.
    pub(super) groups: Option<Groups>,
    /// For each group the best rows, the worst of them first.
    pub(super) heaps: Vec<Vec<Entry>>,
    /// For each group the head of the worst row, once there are as many rows as are wanted.
    cuts: Vec<u64>,
    pub(super) copies: Copies,
    /// For heaps, cuts and tails, and what is set aside for them.
    extra: Reservation,
    extra_aside: usize,
    /// Rows in all heaps.
    entries: usize,
    /// Of all rows, if they are one group: none behind this one is wanted.
    bound: Option<Rank>,
    /// Bytes of the longest key of a row that came in lately.
    longest: usize,
}

impl Lane {
    pub(super) fn new(top: &Top) -> Result<Lane> {
        let (budget, frame) = (&top.setup.budget, top.store.frame_bytes());
        let mut best = Best {
            groups: None,
            heaps: vec![],
            cuts: vec![],
            copies: Copies::new(top.own, budget),
            extra: budget.reserve(),
            extra_aside: LIST_FRAMES * frame,
            entries: 0,
            bound: None,
            longest: 0,
        };
        best.copies.set_aside(COPY_FRAMES * frame)?;
        best.extra.set_aside(best.extra_aside)?;
        if let Some(maker) = &top.by {
            let mut groups = Groups::new(top.stage, maker.clone(), budget);
            groups.set_aside(frame)?;
            best.groups = Some(groups);
        }
        Ok(Lane {
            best,
            scratch: Scratch::with_room(budget, SCRATCH_FRAMES * frame)?,
            row_scratch: 0,
            spiller: Spiller::new(&top.store, top.own)?,
            key: vec![],
            chosen: Vec::with_capacity(BLOCK_ROWS),
            at: (0, 0),
            block_rows: BLOCK_ROWS,
            refusals: 0,
            version: 0,
        })
    }

    /// Takes the rows from `from` on, and moves that on. After a refusal the rest may come again.
    pub(super) fn push(&mut self, top: &Top, chunk: u64, batch: &Batch<'_>, from: &mut usize) -> Result<()> {
        if self.at.0 != chunk {
            self.at = (chunk, 0);
        }
        let refusals = top.refusals.load(Relaxed);
        if self.refusals != refusals {
            self.refusals = refusals;
            // Another lane was refused. A lane that holds much makes room, so that not always the one with little has to.
            if self.best.bytes() > top.setup.budget.limit() / (2 * top.setup.workers.max(1)) {
                self.spill(top)?;
            }
        }
        while *from < batch.rows() {
            let rows = self.block_rows.min(batch.rows() - *from);
            match self.block(top, batch, *from, rows) {
                Ok(()) => {
                    *from += rows;
                    self.at.1 = self.at.1.saturating_add(rows as u32);
                    self.block_rows = (2 * self.block_rows).min(BLOCK_ROWS);
                }
                Err(Error::Memory { .. }) if self.best.entries >= rows => {
                    top.refusals.fetch_add(1, Relaxed);
                    self.spill(top)?;
                }
                Err(Error::Memory { .. }) if rows > 1 => self.block_rows = rows.div_ceil(2),
                Err(error) => return Err(error),
            }
        }
        let forced = top.store.spill().spill_rows();
        if forced.is_some_and(|rows| self.best.entries >= rows) {
            self.spill(top)?;
        }
        Ok(())
    }

    /// What is needed no more once all rows are here.
    pub(super) fn rest(&mut self, top: &Top) {
        let usual = SCRATCH_FRAMES * top.store.frame_bytes();
        self.scratch.shrink(usual.max(self.row_scratch));
    }

    /// Keeps what may be among the first of rows `from..from + rows`. Refused, it has taken none of them.
    fn block(&mut self, top: &Top, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()> {
        let best = &mut self.best;
        if best.copies.is_wasteful() {
            best.copies.compact(&mut best.heaps, &mut self.scratch)?;
        }
        let version = top.version.load(Relaxed);
        if self.version != version {
            self.version = version;
            best.bound = lock(&top.bounds).as_ref().and_then(|bounds| bounds.bound());
        }
        let piece = best.copies.next_piece()?;
        let taken = self.take(top, batch, from, rows);
        if taken.is_err() {
            self.best.forget(piece);
        }
        taken
    }

    fn take(&mut self, top: &Top, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()> {
        let Lane {
            best,
            scratch,
            row_scratch,
            spiller,
            key,
            chosen,
            at,
            ..
        } = self;
        // What the budget refuses is within; what the arena refuses comes again in a larger one, and nothing happens twice.
        scratch.with(|arena| {
            let block = batch.slice(from, rows, arena)?;
            let heads = heads::of(&top.keys, block.columns(), rows, arena)?;
            let ids = match &best.groups {
                Some(groups) => Some((groups.prepared(block, arena)?, arena.fill(rows, 0u32)?)),
                None => None,
            };
            let (Some((prepared, ids)), Some(groups)) = (ids, &mut best.groups) else {
                return Ok(best.choose(top, &block, heads, None, *at, key, chosen));
            };
            let numbered = groups.number(&prepared, ids);
            let taken = numbered.and_then(|()| best.choose(top, &block, heads, Some(&*ids), *at, key, chosen));
            Ok(taken.and_then(|()| best.add_groups(chosen, &prepared)))
        })??;
        if chosen.is_empty() {
            return Ok(());
        }
        let scratch_bytes = scratch.with(|arena| {
            let block = batch.slice(from, rows, arena)?;
            let rows = block.gather(chosen, top.own, arena)?;
            let room = spiller.make_room(&rows, best.longest);
            Ok(room.and_then(|bytes| best.copies.add(rows).map(|()| bytes)))
        })??;
        scratch.ensure(scratch_bytes)?;
        *row_scratch = scratch_bytes.max(*row_scratch);
        Ok(())
    }

    /// All rows in memory go to disk. After an error those that are in no segment are still here: it can be tried again.
    pub(super) fn spill(&mut self, top: &Top) -> Result<()> {
        if self.best.entries == 0 {
            return Ok(());
        }
        // What the last segment took of it.
        let _ = self.best.extra.set_aside(self.best.extra_aside);
        self.best.sort();
        self.write()?;
        if let (None, Some(heap)) = (&self.best.groups, self.best.heaps.first())
            && let Some(bounds) = &mut *lock(&top.bounds)
        {
            bounds.add(heap.len(), |at| heap[at].rank());
            top.version.fetch_add(1, Relaxed);
        }
        self.best.clear();
        self.row_scratch = 0;
        Ok(())
    }

    /// Writes all rows, which are sorted.
    fn write(&mut self) -> Result<()> {
        let Lane {
            best, scratch, spiller, ..
        } = self;
        let Best {
            groups, heaps, copies, ..
        } = best;
        let groups = groups.as_ref();
        // Reserved with the heaps.
        let order = match groups.map_or(Ok(vec![]), |groups| groups.in_order(heaps.len())) {
            Ok(order) => order,
            Err(error) => {
                heaps.iter_mut().for_each(|heap| heap.reverse());
                return Err(error);
            }
        };
        let place = |at: usize| order.get(at).map_or(at, |(_, group)| *group as usize);
        let maker = groups.map(Groups::maker);
        let lists = Lists {
            count: heaps.len(),
            list: &|at| heaps[place(at)].as_slice(),
            key: &|at, entry: &Entry, out| {
                let Some(maker) = maker else { return entry.key(out) };
                maker.sortable(order[at].0, out)?;
                let group = out.len();
                entry.key(out)?;
                end_group(out, group)
            },
            copies,
        };
        let written = spiller.segment(&lists, scratch);
        if written.is_err() {
            // They become heaps again.
            heaps.iter_mut().for_each(|heap| heap.reverse());
        }
        written
    }
}

impl Best {
    fn bytes(&self) -> usize {
        self.copies.bytes() + self.extra.bytes()
    }

    /// Offers each row of a block to its group; those that come in are `chosen`, also if another one pushes them out again. `at`: the
    /// chunk, and the first row's number in it.
    fn choose(
        &mut self,
        top: &Top,
        block: &Batch<'_>,
        heads: &[u64],
        ids: Option<&[u32]>,
        at: (u64, u32),
        key: &mut Vec<u8>,
        chosen: &mut Vec<u32>,
    ) -> Result<()> {
        chosen.clear();
        self.longest = 0;
        let piece = self.copies.next_piece()?;
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        if groups > self.heaps.len() {
            let more = groups - self.heaps.len();
            grow(&mut self.heaps, more, &mut self.extra)?;
            grow(&mut self.cuts, more, &mut self.extra)?;
            if ids.is_some() {
                self.extra.grow(more * Groups::ORDER_BYTES)?;
            }
            self.heaps.resize_with(groups, Vec::new);
            self.cuts.resize(groups, u64::MAX);
        }
        if let (Some(bound), [cut]) = (self.bound, &mut self.cuts[..]) {
            *cut = bound.prefix[0].min(*cut);
        }
        for (row, &head) in heads.iter().enumerate() {
            let group = ids.map_or(0, |ids| ids[row] as usize);
            if head > self.cuts[group] {
                continue;
            }
            key.clear();
            top.order.encode(block.columns(), row, key)?;
            let order = (at.0, at.1.saturating_add(row as u32));
            if self.offer(top.rows, group, key, order, (piece, chosen.len() as u32))? {
                chosen.push(row as u32);
            }
        }
        Ok(())
    }

    /// The longest key has its group's before it.
    fn add_groups(&mut self, chosen: &[u32], prepared: &Batch<'_>) -> Result<()> {
        let keys = KeyMaker::read(prepared)?;
        let longest = chosen.iter().map(|&row| keys.get(row as usize).len()).max();
        self.longest += longest.map_or(0, KeyMaker::sortable_bytes);
        Ok(())
    }

    /// Takes a row into its group, if it is better than the worst one there; it came later than all of them.
    fn offer(&mut self, most: usize, group: usize, key: &[u8], order: (u64, u32), at: Pick) -> Result<bool> {
        let (head, tail) = key.split_at(key.len().min(PREFIX_BYTES));
        let prefix = prefix_of(head);
        let heap = &mut self.heaps[group];
        let full = heap.len() >= most;
        if full && heap[0].compare_key(&prefix, tail) != Ordering::Greater {
            return Ok(false);
        }
        if self.bound.is_some_and(|bound| rank(prefix, tail, order) > bound) {
            return Ok(false);
        }
        if !full && heap.len() == heap.capacity() {
            let capacity = most.min((2 * heap.capacity()).max(4));
            grow_to(heap, capacity, &mut self.extra)?;
        }
        let mut rest = vec![];
        if !tail.is_empty() {
            self.extra.grow(tail.len() + TAIL_BYTES)?;
            if rest.try_reserve_exact(tail.len()).is_err() {
                self.extra.shrink(tail.len() + TAIL_BYTES);
                return Err(refused(tail.len()));
            }
            rest.extend_from_slice(tail);
        }
        self.longest = self.longest.max(key.len());
        let entry = Entry {
            prefix,
            tail: rest,
            chunk: order.0,
            row: order.1,
            at,
        };
        if full {
            let gone = std::mem::replace(&mut heap[0], entry);
            if !gone.tail.is_empty() {
                self.extra.shrink(gone.tail.len() + TAIL_BYTES);
            }
            heap::sift_down(heap, is_worse);
        } else {
            heap.push(entry);
            heap::sift_up(heap, is_worse);
            self.entries += 1;
        }
        if heap.len() >= most {
            self.cuts[group] = heap[0].prefix[0].min(self.cuts[group]);
        }
        Ok(true)
    }

    /// The rows of piece `piece`, which is not there yet, leave the heaps.
    fn forget(&mut self, piece: u32) {
        let Best {
            heaps, extra, entries, ..
        } = self;
        for heap in heaps {
            let before = heap.len();
            heap.retain(|entry| {
                let stays = entry.at.0 != piece;
                if !stays && !entry.tail.is_empty() {
                    extra.shrink(entry.tail.len() + TAIL_BYTES);
                }
                stays
            });
            if heap.len() < before {
                *entries -= before - heap.len();
                // The worst first, and all others behind it in order: a heap.
                heap.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        if *entries == 0 {
            self.clear();
        }
    }

    /// Each group's rows in order, without those that are no longer wanted.
    fn sort(&mut self) {
        let bound = self.bound;
        for heap in &mut self.heaps {
            heap.sort_unstable_by(Entry::cmp);
            if let Some(bound) = bound {
                heap.truncate(heap.partition_point(|entry| entry.rank() <= bound));
            }
        }
    }

    /// Gives all memory back but what is set aside.
    fn clear(&mut self) {
        self.heaps = vec![];
        self.cuts = vec![];
        self.copies.clear_with(&mut self.extra, self.extra_aside);
        self.entries = 0;
        if let Some(groups) = &mut self.groups {
            groups.clear();
        }
    }
}
