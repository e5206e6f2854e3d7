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

mod merged;
mod passes;
mod picks;
#[cfg(test)]
mod tests;

use super::floors::claim_rows;
use super::loaded::Frame;
use super::segment::Segment;
use super::store::Store;
use crate::stages::codes::held;
pub use merged::{Choose, Merged};
use passes::{all_of, need, reduce};
use picks::NOWHERE;
pub use picks::Picks;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Budget, Reservation};
use std::cmp::Ordering;
use std::sync::Arc;

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
    /// For the frames; what it may give is reserved in `_room`.
    pool: Arc<Budget>,
    /// Frames that are passed give their disk back at once.
    frees: bool,
    row_bytes: usize,
    /// Of a row's key.
    key_bytes: usize,
    claim_rows: usize,
    _room: Reservation,
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

    /// The same of one of `merges` that leaves about `beside` bytes of what is free now.
    ///
    /// # Errors
    /// As [`Merge::new`].
    pub fn with(store: &Arc<Store>, budget: &Arc<Budget>, beside: usize, merges: usize) -> Result<Merge> {
        let stage = store.stage();
        // Half of the memory at most, so that what the rows go to has some too.
        let most = budget.limit() / (2 * merges.max(1));
        let (mut segments, mut list) = all_of(store, budget, most).map_err(|e| held(stage, e))?;
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
                room.join(list);
                return Merge::of(store, segments, room, bytes, false).map_err(|e| held(stage, e));
            }
            if segments.len() <= 2 {
                let refused = room.grow(need).err().unwrap_or(Error::Cancelled);
                return Err(held(stage, refused));
            }
            drop(room);
            let merged = reduce(store, &mut segments, budget, most).map_err(|e| held(stage, e))?;
            segments.push(merged);
            list.shrink(list.bytes().saturating_sub(segments.len() * size_of::<Segment>()));
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
            _room: room,
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
