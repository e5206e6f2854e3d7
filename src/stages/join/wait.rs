//! The left side waits: where the right one does not fit into memory, left rows are kept on disk in their order, their keys meet the right
//! side, and left rows go through the probers, with the right rows that they match at hand.
//!
//! How: lanes hold left rows ([`Holder`]): rows go to disk as they come ([`crate::stages::spool`]), their keys apart from them, by parts
//! ([`super::parted`]). Once the last has come, keys meet the right side ([`super::meet`]; [`super::nearest`] for `asof`). That gives copies of the
//! right rows that match, in the left side's order, and both are read again together ([`super::again`]).
//!
//! Laws
//! - The memory that all this takes at least is set aside before the first left row comes; [`least`] says how much it is.
//! - A prober does with rows that waited what it does with others: whatever it gives, sets aside or finds wrong is the same.

mod floors;
mod holder;
mod waiters;

use super::super::groups::grow_to;
use super::super::keys::Key;
use super::super::lanes::lock;
use super::super::origins::Origins;
use super::super::sort::Sort;
use super::super::spill::{Merge, Store};
use super::Plan;
use super::again::{Block, Blocks};
use super::cursor::{Cursor, Room as CursorRoom, room_bytes};
use super::meet::{HotWriter, Making, Meeting, Outs, least_load};
use super::nearest::{Nearest, RIGHT_PARTS};
use super::parted::{PartedKeys, most_parts};
use super::rest::RestOfWaiting;
use super::sides::*;
pub(super) use floors::MERGES;
pub(in crate::stages) use floors::least;
use floors::{
    PARTS, ROOMS_OF_BLOCK, SPOOLS, again_bytes, held_bytes, key_frames, making_bytes, meeting_bytes, parted_bytes,
    sorted_bytes,
};
pub(super) use holder::Holder;
use holder::Lane;
use standpipe_sdk::Breaker;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Budget, Fill, Reservation, Source};
use std::sync::{Arc, Mutex};

/// A merge may take one part of so many of the memory.
const MERGED: usize = 3;
/// A load is expected to have one part of so many of the memory, and takes one part of so many of what is free.
const LOADS_OF_BUDGET: usize = 4;
/// For tests that force it.
const FORCED_PARTS: usize = 3;

/// The sides of a join of which the left one waits.
pub(super) struct Wait {
    pub(super) plan: Arc<Plan>,
    pub(super) setup: Setup,
    pub(super) origins: Origins,
    /// Left rows.
    rows: Arc<Store>,
    /// Where their keys go; until they meet the right side.
    keys: Mutex<Option<KeysOf>>,
    lanes: Mutex<Vec<Arc<Mutex<Lane>>>>,
    /// The right side, until they meet.
    right: Mutex<Option<Arc<Sort>>>,
    /// What the meeting takes beside what the lanes hold.
    cushion: Mutex<Reservation>,
    /// Blocks of left rows that lanes are at.
    pub(super) blocks: Mutex<Vec<(u64, Arc<Block>)>>,
    /// What is left of the right side, from the meeting on.
    rest: Mutex<Option<Rest>>,
}

/// Copies of right rows, by the order of left ones.
enum Matches {
    Parted(Arc<Store>),
    Sorted(Arc<Sort>),
}

/// How left keys are kept.
enum KeysOf {
    Parted(Arc<Store>, usize),
    /// For `asof`.
    Sorted(Arc<Sort>),
}

/// What is left of the right side, and marks of what has matched.
struct Rest {
    breaker: Arc<Sort>,
    fill: Box<dyn Fill>,
    batches: u64,
    room: CursorRoom,
}

impl Wait {
    /// `right`: all rows of the right side, which take `right_bytes` in memory. Nothing is set aside before the region begins in which it meets the left
    /// one.
    pub(super) fn new(plan: &Arc<Plan>, right: Arc<Sort>, right_bytes: usize, setup: &Setup) -> Wait {
        let exact = Plan {
            // What rows have at hand has their key.
            exact: true,
            ..Plan::clone(plan)
        };
        let store = |merges: usize| Store::beside("join", &setup.budget, &setup.spill, merges);
        let keys = match plan.asof {
            Some(_) => KeysOf::Sorted(sorted(&[K_KEY], K_WIDTH, setup)),
            None => KeysOf::Parted(store(MERGES), parts(plan, right_bytes, setup)),
        };
        Wait {
            plan: Arc::new(exact),
            setup: setup.clone(),
            origins: Origins::default(),
            rows: store(SPOOLS),
            keys: Mutex::new(Some(keys)),
            lanes: Mutex::default(),
            right: Mutex::new(Some(right)),
            cushion: Mutex::new(setup.budget.reserve()),
            blocks: Mutex::default(),
            rest: Mutex::default(),
        }
    }

    /// Sets aside what the meeting takes beside what the lanes have; once.
    fn set_aside(&self) -> Result<()> {
        let (bytes, workers) = (self.setup.budget.limit(), self.setup.workers.max(1));
        let mut cushion = lock(&self.cushion);
        let wanted = meeting_bytes(bytes, workers).saturating_sub(held_bytes(bytes, workers));
        let more = wanted.saturating_sub(cushion.bytes());
        cushion.grow(more)
    }

    /// Once all left rows have come: they meet the right side. `keys` is the plan as it was bound.
    pub(super) fn meet(&self, plan: &Plan) -> Result<Blocks> {
        let taken = lock(&self.right).take().zip(lock(&self.keys).take());
        let Some((right, keys)) = taken else {
            return Err(Error::Panic("both sides of a join meet twice".into()));
        };
        let mut of_lanes = vec![];
        for lane in std::mem::take(&mut *lock(&self.lanes)) {
            of_lanes.extend(lock(&lane).close(plan)?);
        }
        let (setup, budget, workers) = (&self.setup, &self.setup.budget, self.setup.workers.max(1));
        // No other lane works meanwhile: what the cushion and the lanes give back is there.
        *lock(&self.cushion) = budget.reserve();
        let store = Store::beside("join", budget, &setup.spill, MERGES);
        let room = room_bytes(budget.limit());
        let reserve = |bytes: usize| -> Result<Reservation> {
            let mut room = budget.reserve();
            room.grow(bytes)?;
            Ok(room)
        };
        let making = || -> Result<Making> {
            Ok(Making {
                arena: Arena::new(2 * room),
                room: reserve(making_bytes(budget.limit()))?,
            })
        };
        let mut rest = match plan.mode.keeps_right() {
            true => {
                let width = plan.right_width;
                let breaker = sorted(
                    &[width + U_CHUNK, width + U_ROW, width + U_IS_ROW],
                    width + U_WIDTH,
                    setup,
                );
                Some(Rest {
                    fill: breaker.clone().filler()?,
                    breaker,
                    batches: 0,
                    room: CursorRoom::new(budget, PARTS + workers)?,
                })
            }
            false => None,
        };
        let limit = budget.limit();
        let is_sorted = matches!(keys, KeysOf::Sorted(_));
        let meeting = if is_sorted {
            sorted_bytes(limit)
        } else {
            parted_bytes(limit, workers)
        };
        // Before what is left of the right side takes all that is free.
        let ahead = reserve(again_bytes(limit, workers).saturating_sub(meeting))?;
        let (hot, matches) = match keys {
            KeysOf::Parted(of_keys, parts) => {
                let room = CursorRoom::new(budget, PARTS)?;
                let outs = Outs {
                    matches: store.writer()?,
                    rest: rest.as_mut().map(|rest| (&mut rest.fill, &mut rest.batches)),
                };
                let hot = HotWriter::new(&store, budget.reserve())?;
                let making = making()?;
                let keys_room = reserve(key_frames(workers, store.frame_bytes()))?;
                let keys = PartedKeys::new(of_lanes, budget, keys_room)?;
                drop(of_keys);
                let mut load_room = reserve(least_load(budget.limit()))?;
                let right = Cursor::new(right.merged(LOADS_OF_BUDGET)?, room);
                let free = budget.free();
                // The rest is for lists of frames.
                let _ = load_room.grow(free / 4 * 3);
                let meeting = Meeting::new(plan, right, (keys, parts), outs, hot, making, load_room, setup);
                let hot = meeting.run()?.map(Arc::new);
                (hot, Matches::Parted(store))
            }
            KeysOf::Sorted(left) => {
                let rooms = (CursorRoom::new(budget, PARTS)?, CursorRoom::new(budget, RIGHT_PARTS)?);
                let width = plan.right_width;
                let matches = sorted(&[width + C_NUMBER, width + C_ROW], width + R_WIDTH, setup);
                let fill = matches.clone().filler()?;
                let making = making()?;
                let cursors = (
                    Cursor::new(left.merged(MERGES)?, rooms.0),
                    Cursor::new(right.merged(MERGES)?, rooms.1),
                );
                Nearest::new(plan, cursors, fill, making, &setup.cancelled).run()?;
                (None, Matches::Sorted(matches))
            }
        };
        *lock(&self.rest) = rest;
        drop(ahead);
        let rooms = (CursorRoom::new(budget, PARTS)?, CursorRoom::new(budget, PARTS)?);
        let block_bytes = workers * ROOMS_OF_BLOCK * room;
        let blocks = (block_bytes, reserve(block_bytes)?);
        let left = Merge::one_of(&self.rows, budget, MERGED)?;
        let matches = match matches {
            Matches::Parted(store) => Merge::one_of(&store, budget, MERGED)?,
            Matches::Sorted(sort) => sort.merged(MERGED)?,
        };
        let (left, matches) = (Cursor::new(left, rooms.0), Cursor::new(matches, rooms.1));
        Ok(Blocks::new(left, matches, hot, blocks))
    }

    /// Right rows have matched: these, as they are sorted.
    pub(super) fn mark(&self, rows: Batch<'_>) -> Result<()> {
        match &mut *lock(&self.rest) {
            Some(rest) => {
                rest.batches += 1;
                rest.fill.push(rest.batches, rows)
            }
            None => Ok(()),
        }
    }

    /// What is left of the right side, in its order, beside marks of what has matched.
    pub(super) fn left_over(&self) -> Result<Option<Cursor>> {
        let Some(mut rest) = lock(&self.rest).take() else {
            return Ok(None);
        };
        rest.fill.done()?;
        drop(rest.fill);
        Ok(Some(Cursor::new(rest.breaker.merged(MERGES)?, rest.room)))
    }

    pub(super) fn rest(self: Arc<Self>) -> Arc<dyn Source> {
        Arc::new(RestOfWaiting::new(self))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.setup.budget
    }
}

/// All rows in the order of these columns.
fn sorted(columns: &[usize], width: usize, setup: &Setup) -> Arc<Sort> {
    let keys = columns.iter().map(|&column| Key::ascending(column)).collect();
    Sort::new("join", keys, None, width, usize::MAX, MERGES, setup)
}

/// Into how many parts left keys go: each with about as many right rows as a load has.
fn parts(plan: &Plan, right_bytes: usize, setup: &Setup) -> usize {
    if plan.left_keys.is_empty() {
        return 1;
    }
    if setup.spill.spill_rows().is_some() {
        return FORCED_PARTS;
    }
    let load = (setup.budget.limit() / LOADS_OF_BUDGET).max(1);
    // Parts are not all of one length.
    (right_bytes / 8 * 9)
        .div_ceil(load)
        .clamp(1, most_parts(setup.budget.limit()))
}

/// Room for a list, without a budget: it is never long.
pub(super) fn list<T>(len: usize) -> Result<Vec<T>> {
    let mut list = vec![];
    let mut none = Budget::new(usize::MAX).reserve();
    grow_to(&mut list, len, &mut none)?;
    Ok(list)
}
