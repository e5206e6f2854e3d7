//! The merge of segments: one loser tree over a cursor per segment.
//!
//! How it works: a cursor stands on a row of a loaded frame. The tree's root is the cursor with the least (key, order); its row is
//! picked, it steps on, and the path from its leaf to the root is played again. Most comparisons end at the first 16 bytes of the key, which lie
//! side by side as numbers.
//!
//! What will bite
//! - While a cursor waits for its next frame the tree says nothing: [`Merge::stalled`] comes before the next pick.
//! - A pick holds its frame. Frames take memory out of the merge's own pool, in which there is always room for one frame per cursor once no
//!   picks are held: so whoever is refused has to let picks go, or wait for others to do so. Picks are made in ticket order, so the earliest
//!   chunk never waits for a later one.

use super::firsts::Firsts;
use super::floors::{claim_rows, picks_bytes, writer_floor};
use super::loaded::Frame;
use super::segment::Segment;
use super::store::Store;
use super::writer::SegmentWriter;
use crate::stages::codes::held;
use crate::stages::from::numbered;
use crate::stages::keys::KeyBlock;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Faults, Locator, Part, Reader, Reservation, Source};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Not among the frames of the picks.
const NOWHERE: u32 = u32::MAX;

/// Sorted rows of several segments, in order.
pub struct Merge {
    store: Arc<Store>,
    cursors: Vec<Cursor>,
    /// The first 16 bytes of each cursor's key, padded with zeros.
    heads: Vec<u128>,
    /// `tree[0]` is the cursor that is first; the others are the losers on the way there.
    tree: Vec<u32>,
    /// A cursor that needs its next frame before the tree says anything.
    stalled: Option<usize>,
    /// For the frames; what it may give was reserved in `room`.
    pool: Arc<Budget>,
    /// Frames that are passed give their disk back at once.
    frees: bool,
    row_bytes: usize,
    /// Of a row's key.
    key_bytes: usize,
    claim_rows: usize,
    room: Reservation,
}

struct Cursor {
    segment: Segment,
    /// The frame to load next.
    next: usize,
    frame: Option<Arc<Frame>>,
    row: usize,
    /// The frame's number in the picks that are being made.
    number: u32,
}

/// Rows that a merge gave, in order.
#[derive(Default)]
pub struct Picks {
    frames: Vec<Arc<Frame>>,
    picks: Vec<Pick>,
}

impl Picks {
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Where row `at` is.
    #[inline]
    pub fn row(&self, at: usize) -> (&Arc<Frame>, usize) {
        let (frame, row) = self.picks[at];
        (&self.frames[frame as usize], row as usize)
    }

    /// The key of row `at`. Runs of equal keys may go on in the next picks.
    #[inline]
    pub fn key(&self, at: usize) -> &[u8] {
        let (frame, row) = self.row(at);
        frame.key(row)
    }

    /// Rows `from..from + len`, or fewer: as many as store the same kinds of values (at least one).
    ///
    /// # Errors
    /// `Memory` if `arena` is full; `Failed` if the file is damaged.
    pub fn gather<'a>(&'a self, from: usize, len: usize, arena: &'a Arena) -> Result<Batch<'a>> {
        let numbers = arena.fill(self.frames.len(), NOWHERE)?;
        let mut batches: Vec<Batch<'a>> = vec![];
        let mut picks = &self.picks[from..from + len];
        for (at, &(frame, _)) in picks.iter().enumerate() {
            let number = &mut numbers[frame as usize];
            if *number != NOWHERE {
                continue;
            }
            let batch = self.frames[frame as usize].rows()?;
            if !batches.iter().all(|other| mix(other, &batch)) {
                picks = &picks[..at];
                break;
            }
            *number = batches.len() as u32;
            batches.push(batch);
        }
        let local = arena.map(picks, |(frame, row)| (numbers[frame as usize], row))?;
        let width = batches.first().map_or(0, |b| b.columns().len());
        let mut columns = Columns::new(arena, width)?;
        for index in 0..width {
            let parts = arena.collect(batches.len(), |i| batches[i].column(index))?;
            columns.push(Column::interleave(parts, local, arena)?);
        }
        Ok(Batch::new(columns.finish(), None, local.len()))
    }

    /// The keys of rows `from..from + len`.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn keys<'a>(&self, from: usize, len: usize, arena: &'a Arena) -> Result<KeyBlock<'a>> {
        let mut end = 0usize;
        let ends = arena.collect(len + 1, |at| {
            let before = end;
            if at < len {
                end += self.key(from + at).len();
            }
            before as u32
        })?;
        let bytes = arena.fill(end, 0u8)?;
        for at in 0..len {
            let key = self.key(from + at);
            bytes[ends[at] as usize..][..key.len()].copy_from_slice(key);
        }
        Ok(KeyBlock::each(bytes, ends))
    }

    /// The order of rows `from..from + len`: chunks, and rows in them.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn orders<'a>(&self, from: usize, len: usize, arena: &'a Arena) -> Result<(&'a [u64], &'a [u32])> {
        let order = |at: usize| {
            let (frame, row) = self.row(from + at);
            frame.order(row)
        };
        Ok((
            arena.collect(len, |at| order(at).0)?,
            arena.collect(len, |at| order(at).1)?,
        ))
    }

    /// Leaves the first `len` rows.
    pub(super) fn truncate(&mut self, len: usize) {
        self.picks.truncate(len);
    }

    /// Leaves the rows whose keys `stays` says so of, asked in order.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        let mut count = 0;
        for at in 0..self.picks.len() {
            if stays(self.key(at))? {
                self.picks[count] = self.picks[at];
                count += 1;
            }
        }
        self.picks.truncate(count);
        Ok(())
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.picks.clear();
    }
}

/// Whether rows of both can be in one batch.
fn mix(a: &Batch<'_>, b: &Batch<'_>) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.mixes_with(b))
}

impl Merge {
    /// The segments that `store` kept, ready to be merged at once: where `budget` has not the memory for that, some are merged
    /// beforehand.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if not even two can be merged, the disk is full, or the file is damaged.
    pub fn new(store: &Arc<Store>, budget: &Arc<Budget>) -> Result<Merge> {
        Merge::with(store, budget, 0, 1)
    }

    /// The same where a stage reads so many merges at the same time.
    ///
    /// # Errors
    /// As [`Merge::new`].
    pub fn one_of(store: &Arc<Store>, budget: &Arc<Budget>, merges: usize) -> Result<Merge> {
        Merge::with(store, budget, 0, merges)
    }

    /// The same, but of what is free now about `beside` bytes are left for what the rows go to.
    ///
    /// # Errors
    /// As [`Merge::new`].
    pub fn beside(store: &Arc<Store>, budget: &Arc<Budget>, beside: usize) -> Result<Merge> {
        Merge::with(store, budget, beside, 1)
    }

    fn with(store: &Arc<Store>, budget: &Arc<Budget>, beside: usize, merges: usize) -> Result<Merge> {
        let stage = store.stage();
        let mut segments = store.take();
        // Half of the memory at most, so that what the rows go to has some too.
        let most = budget.limit() / (2 * merges.max(1));
        loop {
            let need = need(&segments, budget);
            let more = need / 2 + 4 * segments.iter().map(Segment::largest).max().unwrap_or(0);
            let fits = segments.len() <= 2 || need <= most;
            let free = budget.free().saturating_sub(beside);
            let wanted = [need + more, need + more / 4, need].into_iter();
            let wanted = wanted.filter(|&bytes| fits && (bytes <= free || bytes == need));
            let mut room = budget.reserve();
            let granted = wanted.into_iter().find(|&bytes| room.grow(bytes).is_ok());

            if let Some(bytes) = granted {
                return Merge::of(store, segments, room, bytes, false).map_err(|e| held(stage, e));
            }
            if segments.len() <= 2 {
                let refused = room.grow(need).err().unwrap_or(Error::Cancelled);
                return Err(held(stage, refused));
            }
            drop(room);
            let merged = reduce(store, &mut segments, budget, most).map_err(|e| held(stage, e))?;
            segments.push(merged);
        }
    }

    /// With `bytes` for frames, which `room` has reserved.
    fn of(store: &Arc<Store>, segments: Vec<Segment>, room: Reservation, bytes: usize, frees: bool) -> Result<Merge> {
        let rows: u64 = segments.iter().map(Segment::rows).sum();
        let row_bytes = segments.iter().map(Segment::bytes).sum::<u64>() / rows.max(1);
        let key_bytes = segments.iter().map(Segment::key_bytes).sum::<u64>() / rows.max(1);
        let pool = Budget::new(bytes);
        let mut cursors = Vec::with_capacity(segments.len());
        for segment in segments {
            let frame = Some(segment.load(0, &pool, frees)?);
            cursors.push(Cursor {
                segment,
                next: 1,
                frame,
                row: 0,
                number: NOWHERE,
            });
        }
        let mut merge = Merge {
            store: store.clone(),
            heads: cursors.iter().map(Cursor::head).collect(),
            tree: vec![0; cursors.len()],
            cursors,
            stalled: None,
            pool,
            frees,
            row_bytes: usize::try_from(row_bytes).unwrap_or(usize::MAX).max(1),
            key_bytes: usize::try_from(key_bytes).unwrap_or(usize::MAX),
            claim_rows: claim_rows(store.budget_bytes()),
            room,
        };
        merge.play();
        Ok(merge)
    }

    /// About how many bytes a row has.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// How many rows are good to be asked for at a time.
    pub fn claim_rows(&self) -> usize {
        self.claim_rows
    }

    /// The next `max` rows, or fewer; none at the end. What `picks` held is let go first.
    ///
    /// # Errors
    /// `Memory` if picks that are held elsewhere take all room: to be tried again. `Failed` if the file is damaged.
    pub fn next(&mut self, max: usize, picks: &mut Picks) -> Result<()> {
        picks.clear();
        for cursor in &mut self.cursors {
            cursor.number = NOWHERE;
        }
        picks.picks.try_reserve(max).map_err(|_| Error::Memory {
            wanted: max * size_of::<Pick>(),
            used: 0,
            limit: usize::MAX,
        })?;
        while picks.picks.len() < max {
            if let Some(stalled) = self.stalled {
                match self.cursors[stalled].load(&self.pool, self.frees) {
                    Ok(()) => {}
                    Err(Error::Memory { .. }) if !picks.is_empty() => break,
                    Err(error) => return Err(error),
                }
                self.stalled = None;
                self.stepped(stalled);
            }
            let Some(&first) = self.tree.first() else { break };
            let first = first as usize;
            let cursor = &mut self.cursors[first];
            let Some(frame) = &cursor.frame else { break };
            if cursor.number == NOWHERE {
                cursor.number = picks.frames.len() as u32;
                picks.frames.push(frame.clone());
            }
            picks.picks.push((cursor.number, cursor.row as u32));
            cursor.row += 1;
            if cursor.row < frame.len() {
                self.stepped(first);
            } else {
                cursor.number = NOWHERE;
                cursor.frame = None;
                if cursor.next < cursor.segment.frames() {
                    self.stalled = Some(first);
                } else {
                    self.stepped(first);
                }
            }
        }
        self.store.spill().count_merged(picks.len() as u64);
        Ok(())
    }

    /// Cursor `at` stands on another row.
    #[inline]
    fn stepped(&mut self, at: usize) {
        self.heads[at] = self.cursors[at].head();
        let mut winner = at as u32;
        let mut node = (self.cursors.len() + at) / 2;
        while node > 0 {
            let loser = self.tree[node];
            if self.less(loser as usize, winner as usize) {
                self.tree[node] = winner;
                winner = loser;
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }

    /// All games, from the leaves up.
    fn play(&mut self) {
        let count = self.cursors.len();
        let mut winners: Vec<u32> = (0..2 * count as u32).map(|n| n.saturating_sub(count as u32)).collect();
        for node in (1..count).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            let a_wins = self.less(a as usize, b as usize);
            winners[node] = if a_wins { a } else { b };
            self.tree[node] = if a_wins { b } else { a };
        }
        if count > 0 {
            self.tree[0] = winners[1];
        }
    }

    #[inline]
    fn less(&self, a: usize, b: usize) -> bool {
        match self.heads[a].cmp(&self.heads[b]) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.less_behind(a, b),
        }
    }

    /// By what is behind the first 16 bytes.
    fn less_behind(&self, a: usize, b: usize) -> bool {
        let (one, two) = (&self.cursors[a], &self.cursors[b]);
        match (&one.frame, &two.frame) {
            (Some(x), Some(y)) => {
                let (i, j) = (one.row, two.row);
                let tails = tail(x.key(i)).cmp(tail(y.key(j)));
                tails.then_with(|| x.order(i).cmp(&y.order(j))).is_lt()
            }
            (x, _) => x.is_some(),
        }
    }
}

impl Cursor {
    fn head(&self) -> u128 {
        let Some(frame) = &self.frame else { return u128::MAX };
        let key = frame.key(self.row);
        match key.first_chunk::<16>() {
            Some(head) => u128::from_be_bytes(*head),
            None => {
                let mut head = [0; 16];
                head[..key.len()].copy_from_slice(key);
                u128::from_be_bytes(head)
            }
        }
    }

    fn load(&mut self, pool: &Arc<Budget>, frees: bool) -> Result<()> {
        self.frame = Some(self.segment.load(self.next, pool, frees)?);
        self.row = 0;
        self.next += 1;
        Ok(())
    }
}

fn tail(key: &[u8]) -> &[u8] {
    key.get(16..).unwrap_or_default()
}

/// What merging these at once takes: a frame of each, and picks.
fn need(segments: &[Segment], budget: &Budget) -> usize {
    let frames: usize = segments.iter().map(Segment::largest).sum();
    frames + picks_bytes(budget.limit())
}

/// Merges as many of the shortest segments as fit into one, and takes them out of the list.
fn reduce(store: &Arc<Store>, segments: &mut Vec<Segment>, budget: &Arc<Budget>, most: usize) -> Result<Segment> {
    segments.sort_by_key(|segment| std::cmp::Reverse(segment.rows()));
    let free = budget.free();
    let is_short = segments.iter().any(Segment::is_of_short);
    let largest = segments.iter().map(Segment::largest).max().unwrap_or(0);
    let arena_bytes = 4 * store.frame_bytes() + largest;
    let beside = arena_bytes + writer_floor(budget.limit());
    let most = most.min(free.saturating_sub(beside));
    let last = |count: usize| &segments[segments.len() - count..];
    let takes = |count: usize| need(last(count), budget) + Segment::list_bytes(list_of(last(count), is_short));
    let mut count = 2;
    while count < segments.len() && takes(count + 1) <= most {
        count += 1;
    }
    let (mut writer, room) = loop {
        match room_for(store, last(count), budget, largest, arena_bytes, is_short) {
            // What was free a moment ago others have by now.
            Err(Error::Memory { .. }) if count > 2 => count = count.div_ceil(2),
            other => break other?,
        }
    };
    let some = segments.split_off(segments.len() - count);
    let bytes = need(&some, budget);
    let merge = Merge::of(store, some, room, bytes, true)?;
    rewrite(merge, &mut writer, Arena::new(arena_bytes))
}

/// Frames of what these segments become: each batch that is written may begin one that the next does not go on with.
fn list_of(some: &[Segment], is_short: bool) -> usize {
    match is_short {
        true => 0,
        false => 2 * some.iter().map(Segment::frames).sum::<usize>() + 8,
    }
}

/// All that merging `some` into one segment takes, now and not when there is no memory left.
fn room_for(
    store: &Arc<Store>,
    some: &[Segment],
    budget: &Arc<Budget>,
    largest: usize,
    arena_bytes: usize,
    is_short: bool,
) -> Result<(SegmentWriter, Reservation)> {
    let mut writer = if is_short {
        store.short_writer()?
    } else {
        store.writer()?
    };
    writer.make_room_of(largest)?;
    writer.expect(list_of(some, is_short))?;
    let mut room = budget.reserve();
    room.grow(need(some, budget) + arena_bytes)?;
    Ok((writer, room))
}

fn rewrite(mut merge: Merge, writer: &mut SegmentWriter, mut arena: Arena) -> Result<Segment> {
    let usual = merge.store.frame_bytes() / merge.row_bytes.max(merge.key_bytes);
    let usual = usual.clamp(1, merge.claim_rows);
    let mut picks = Picks::default();
    loop {
        merge.next(usual, &mut picks)?;
        if picks.is_empty() {
            // All frames are back: what they took is there for the list of the new ones.
            return writer.finish_from(&mut merge.room);
        }
        let (mut from, mut len) = (0, picks.len());
        while from < picks.len() {
            len = len.min(picks.len() - from);
            let written = (|| {
                let batch = picks.gather(from, len, &arena)?;
                let keys = picks.keys(from, batch.rows(), &arena)?;
                let (chunks, rows) = picks.orders(from, batch.rows(), &arena)?;
                writer.append(&batch, &keys, chunks, rows)?;
                Ok(batch.rows())
            })();
            match written {
                Ok(rows) => from += rows,
                // Nothing was written: gathering comes first.
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(error),
            }
            arena.reset();
        }
    }
}

/// The merged rows as a source: claims are picked one after the other, everything else is done by all lanes at the same time.
///
/// A row's place is its number in the output.
pub struct Merged {
    state: Mutex<State>,
    tickets: AtomicU64,
    /// Everything is picked.
    over: AtomicBool,
    cancelled: Arc<AtomicBool>,
    part_rows: usize,
}

struct State {
    merge: Merge,
    /// If only first rows are given.
    firsts: Option<Firsts>,
    /// The ticket that is picked for next.
    next: u64,
    /// The number of the next row.
    row: u64,
    /// Picked for lanes that have not come yet.
    ready: VecDeque<(u64, Claim)>,
}

#[derive(Default)]
struct Claim {
    picks: Picks,
    /// The number of the first row.
    row: u64,
    /// Rows that were given.
    given: usize,
}

impl Merged {
    /// For a stage that was made with these.
    pub fn new(merge: Merge, setup: &Setup) -> Merged {
        Merged::with(merge, setup.chunk_bytes, setup.cancelled.clone())
    }

    /// The same of those rows alone that are among the first.
    pub fn of_firsts(merge: Merge, firsts: Firsts, setup: &Setup) -> Merged {
        let merged = Merged::new(merge, setup);
        merged.state.lock().unwrap_or_else(PoisonError::into_inner).firsts = Some(firsts);
        merged
    }

    /// With parts of about `chunk_bytes`.
    pub fn with(merge: Merge, chunk_bytes: usize, cancelled: Arc<AtomicBool>) -> Merged {
        Merged {
            part_rows: (chunk_bytes / merge.row_bytes()).max(1),
            state: Mutex::new(State {
                merge,
                firsts: None,
                next: 0,
                row: 0,
                ready: VecDeque::new(),
            }),
            tickets: AtomicU64::new(0),
            over: AtomicBool::new(false),
            cancelled,
        }
    }

    fn claim(&self, ticket: u64) -> Result<Claim> {
        const NAP: Duration = Duration::from_micros(100);
        loop {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = state.ready.iter().position(|(number, _)| *number == ticket) {
                let claim = state.ready.swap_remove_back(at).map(|(_, claim)| claim);
                return Ok(claim.unwrap_or_default());
            }
            let mut picks = Picks::default();
            let is_over = match state.next_picks(&mut picks) {
                Ok(is_over) => is_over,
                Err(Error::Memory { limit, .. }) if limit == state.merge.pool.limit() => {
                    // Other lanes hold all frames that there is room for.
                    drop(state);
                    std::thread::sleep(NAP);
                    continue;
                }
                Err(error) => return Err(held(state.merge.store.stage(), error)),
            };
            if is_over {
                self.over.store(true, SeqCst);
            } else if picks.is_empty() {
                // None of these rows stays.
                continue;
            }
            let (number, row) = (state.next, state.row);
            state.next += 1;
            state.row += picks.len() as u64;
            state.ready.push_back((number, Claim { picks, row, given: 0 }));
        }
    }
}

impl State {
    /// The next rows, and whether none come behind them.
    fn next_picks(&mut self, picks: &mut Picks) -> Result<bool> {
        let Some(firsts) = &mut self.firsts else {
            self.merge.next(self.merge.claim_rows, picks)?;
            return Ok(picks.is_empty());
        };
        if firsts.is_over() {
            return Ok(true);
        }
        self.merge.next(self.merge.claim_rows, picks)?;
        let none = picks.is_empty();
        firsts.keep(picks)?;
        Ok(none || firsts.is_over())
    }
}

impl Source for Merged {
    fn ticket(&self) -> Option<u64> {
        (!self.over.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MergedReader {
            merged: self,
            claim: Claim::default(),
        }))
    }
}

struct MergedReader {
    merged: Arc<Merged>,
    claim: Claim,
}

impl Reader for MergedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        // The frames of the claim before go first: they may be what this one waits for.
        self.claim = Claim::default();
        self.claim = self.merged.claim(ticket)?;
        Ok(!self.claim.picks.is_empty())
    }

    fn let_go(&mut self) {
        self.claim = Claim::default();
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let Claim { picks, row, given } = &mut self.claim;
        let left = picks.len() - *given;
        let len = max_rows.min(self.merged.part_rows).clamp(1, left.max(1)).min(left);
        let rows = picks.gather(*given, len, arena)?;
        let places = numbered(*row + *given as u64, rows.rows(), arena)?;
        let batch = Batch::new(rows.columns(), Some(places), rows.rows());
        // Only now: a refused part can be asked for again, with fewer rows.
        *given += rows.rows();
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last: *given >= picks.len(),
            locator: Locator::default(),
        })
    }
}

#[cfg(test)]
mod tests;
