//! The left side waits: where the right one does not fit into memory, both are sorted by key, meet, and left rows go through the probers
//! in their old order, with the right rows that they match at hand.
//!
//! How: lanes hold left rows ([`Holder`]), sorted by key, until the last has come. Then the sides meet ([`super::meet`]): that gives left rows
//! and, apart from them, right rows that match one, both of which are sorted by the left side's order and read again together
//! ([`super::again`]).
//!
//! Laws
//! - The memory that all this takes at least is set aside before the first left row comes; [`least`] says how much it is.
//! - A prober does with rows that waited what it does with others: whatever it gives, sets aside or finds wrong is the same.

use super::super::codes::held;
use super::super::groups::grow_to;
use super::super::sort::Sort;
use super::super::spill::{Store, lane_floor_beside};
use super::Plan;
use super::again::{Block, Blocks};
use super::cursor::{Cursor, Room as CursorRoom, room_bytes};
use super::meet::{HotWriter, Meeting, Outs, RIGHT_PARTS};
use super::numbers::{Codes, times, validity};
use super::rest::RestOfWaiting;
use super::scratch::{FIRST_ROOM, Scratch};
use super::sides::*;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room, Setup};
use standpipe_sdk::{Arena, Batch, Breaker, Budget, Column, Fill, Hold, Reservation, Source, Waiting};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of a cursor that only passes rows on.
const PARTS: usize = 3;
/// Left rows that are made ready for sorting at a time.
const HELD_ROWS: usize = 16 << 10;
/// Memory for them.
const HELD_BYTES: usize = 128 << 10;
/// Into so many parts the memory goes for sorts that are read at the same time: four (both sides, then what both gave, beside what is
/// left of the right one), each of them with half of its part, so that several joins of one script fit side by side.
pub(super) const MERGES: usize = 8;
/// What reading a frame of hot rows takes, in frames.
const FRAMES_OF_HOT: usize = 8;
/// Blocks of a lane, in rooms of a cursor.
const ROOMS_OF_BLOCK: usize = 3;

/// What a join cannot do without: while it gathers the right side, and while the left one meets it.
pub(in crate::stages) fn least(room: &Room) -> Least {
    let scratch = room.share.min(FIRST_ROOM);
    Least {
        takes: room.workers * (lane_floor(room.bytes) + scratch),
        gives: held_bytes(room.bytes, room.workers).max(meeting_bytes(room.bytes, room.workers))
            + room.workers * scratch,
    }
}

/// What a lane sets aside of a budget of so many bytes for sorting one side.
fn lane_floor(budget_bytes: usize) -> usize {
    lane_floor_beside(budget_bytes, MERGES)
}

/// What the lanes set aside for left rows that wait.
fn held_bytes(budget_bytes: usize, workers: usize) -> usize {
    workers * (lane_floor(budget_bytes) + HELD_BYTES)
}

/// What the meeting and what comes behind it take at least: three sorts and what writes hot rows, the rooms, and two merges.
fn meeting_bytes(budget_bytes: usize, workers: usize) -> usize {
    const MERGES_BYTES: usize = 1 << 20;
    let rooms = (1 + PARTS) + (1 + RIGHT_PARTS) + 3 * (1 + PARTS) + 2 + workers * (ROOMS_OF_BLOCK + 1);
    4 * lane_floor(budget_bytes) + rooms * room_bytes(budget_bytes) + MERGES_BYTES
}

/// The sides of a join of which the left one waits.
pub(super) struct Wait {
    pub(super) plan: Arc<Plan>,
    pub(super) setup: Setup,
    pub(super) paths: Paths,
    /// The left side, until it is full.
    left: Mutex<Option<Arc<Sort>>>,
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

/// What is left of the right side, and marks of what has matched.
struct Rest {
    breaker: Arc<Sort>,
    fill: Box<dyn Fill>,
    batches: u64,
    room: CursorRoom,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wait {
    /// `right`: all rows of the right side. Nothing is set aside before the region begins in which it meets the left one.
    pub(super) fn new(plan: &Arc<Plan>, right: Arc<Sort>, setup: &Setup) -> Wait {
        let width = plan.left_width;
        let waiting = sorted(&[width + L_KEY], width + L_WIDTH, setup);
        let exact = Plan {
            // What rows have at hand has their key.
            exact: true,
            ..Plan::clone(plan)
        };
        Wait {
            plan: Arc::new(exact),
            setup: setup.clone(),
            paths: Paths::default(),
            left: Mutex::new(Some(waiting)),
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
    pub(super) fn meet(&self, keys: &Plan) -> Result<Blocks> {
        let taken = lock(&self.right).take().zip(lock(&self.left).take());
        let Some((right, waiting)) = taken else {
            return Err(Error::Panic("both sides of a join meet twice".into()));
        };
        for lane in std::mem::take(&mut *lock(&self.lanes)) {
            lock(&lane).close()?;
        }
        let (setup, budget, workers) = (&self.setup, &self.setup.budget, self.setup.workers.max(1));
        let (left_width, right_width) = (keys.left_width, keys.right_width);
        // No other lane works meanwhile: what the cushion and the lanes give back is there.
        *lock(&self.cushion) = budget.reserve();
        let store = Store::beside("join", budget, &setup.spill, MERGES);
        let room = room_bytes(budget.limit());
        let reserve = |bytes: usize| -> Result<Reservation> {
            let mut room = budget.reserve();
            room.grow(bytes)?;
            Ok(room)
        };
        let left = sorted(
            &[left_width + L_NUMBER, left_width + L_ROW],
            left_width + L_WIDTH,
            setup,
        );
        let matches = sorted(
            &[right_width + C_NUMBER, right_width + C_ROW],
            right_width + R_WIDTH,
            setup,
        );
        let mut rest = match keys.mode.keeps_right() {
            true => {
                let keys = [right_width + U_CHUNK, right_width + U_ROW, right_width + U_IS_ROW];
                let breaker = sorted(&keys, right_width + U_WIDTH, setup);
                Some(Rest {
                    fill: breaker.clone().filler()?,
                    breaker,
                    batches: 0,
                    room: CursorRoom::new(budget, PARTS + workers)?,
                })
            }
            false => None,
        };
        let outs = Outs {
            left: left.clone().filler()?,
            matches: matches.clone().filler()?,
            rest: rest.as_mut().map(|rest| (&mut rest.fill, &mut rest.batches)),
        };
        let (left_room, right_room) = (CursorRoom::new(budget, PARTS)?, CursorRoom::new(budget, RIGHT_PARTS)?);
        let again = (CursorRoom::new(budget, PARTS)?, CursorRoom::new(budget, PARTS)?);
        let scratch = (Arena::new(2 * room), reserve(2 * room)?);
        let block_bytes = workers * ROOMS_OF_BLOCK * room;
        let blocks = (block_bytes, reserve(block_bytes)?);
        let hot = HotWriter::new(&store, budget.reserve())?;
        let hot_room = reserve(workers * FRAMES_OF_HOT * store.frame_bytes())?;
        // Merges take what is left.
        let right = Cursor::new(right.drain()?, right_room)?;
        let waiting = Cursor::new(waiting.drain()?, left_room)?;
        let meeting = Meeting::new(keys, waiting, right, outs, hot, scratch, setup);
        let hot = meeting.run(hot_room)?.map(Arc::new);
        *lock(&self.rest) = rest;
        let left = Cursor::new(left.drain()?, again.0)?;
        let matches = Cursor::new(matches.drain()?, again.1)?;
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
        Ok(Some(Cursor::new(rest.breaker.drain()?, rest.room)?))
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
    let keys = columns.iter().map(|&column| ascending(column)).collect();
    Sort::new("join", keys, false, width, usize::MAX, MERGES, setup)
}

/// One lane's left rows.
struct Lane {
    sorted: Option<Box<dyn Fill>>,
    scratch: Scratch,
    number: u64,
    rows: u64,
}

impl Lane {
    fn close(&mut self) -> Result<()> {
        if let Some(mut sorted) = self.sorted.take() {
            sorted.done()?;
        }
        self.scratch.close();
        Ok(())
    }
}

/// One lane's way in for rows that wait.
pub(super) struct Holder {
    wait: Arc<Wait>,
    lane: Arc<Mutex<Lane>>,
    keys: Arc<Plan>,
}

impl Holder {
    pub(super) fn new(wait: &Arc<Wait>, keys: &Arc<Plan>) -> Result<Holder> {
        wait.set_aside()?;
        let sorted = match &*lock(&wait.left) {
            Some(sorted) => sorted.clone().filler()?,
            None => return Err(Error::Panic("rows wait for what is over".into())),
        };
        let lane = Arc::new(Mutex::new(Lane {
            sorted: Some(sorted),
            scratch: Scratch::starting_with(HELD_BYTES, &wait.setup.budget, wait.setup.share)?,
            number: 0,
            rows: 0,
        }));
        lock(&wait.lanes).push(lane.clone());
        Ok(Holder {
            wait: wait.clone(),
            lane,
            keys: keys.clone(),
        })
    }
}

impl Hold for Holder {
    fn push(&mut self, chunk: &Waiting<'_>, batch: Batch<'_>) -> Result<()> {
        let mut lane = lock(&self.lane);
        let Lane {
            sorted: Some(sorted),
            scratch,
            number,
            rows,
        } = &mut *lane
        else {
            return Err(Error::Panic("rows come after their end".into()));
        };
        if *number != chunk.number {
            (*number, *rows) = (chunk.number, 0);
        }
        let (mut from, mut len) = (0, HELD_ROWS);
        while from < batch.rows() {
            len = len.min(batch.rows() - from);
            let made = prepared(
                &self.keys,
                &self.wait,
                chunk,
                &batch,
                from..from + len,
                *rows,
                &scratch.arena,
            );
            let outcome = match made {
                Ok(some) if some.rows() == 0 => Ok(0),
                Ok(some) => sorted.push(chunk.number, some).map(|()| some.rows() as u64),
                Err(error) => Err(error),
            };
            scratch.arena.reset();
            match outcome {
                Ok(count) => {
                    *rows += count;
                    from += len;
                }
                // Rather more room: many short pieces are slow to sort.
                Err(Error::Memory { .. }) if scratch.more() => {}
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(held("join", error)),
            }
        }
        Ok(())
    }
}

/// Rows of a batch as they are sorted; without those that never come out.
fn prepared<'a>(
    plan: &Plan,
    wait: &'a Wait,
    chunk: &Waiting<'a>,
    batch: &Batch<'a>,
    range: std::ops::Range<usize>,
    first: u64,
    arena: &'a Arena,
) -> Result<Batch<'a>> {
    let own = batch.columns().get(..plan.left_width);
    let own = own.ok_or_else(|| Error::Panic("a batch without its keys".into()))?;
    let batch = batch.with_columns(own).slice(range.start, range.len(), arena)?;
    let mut codes = Codes::of(&plan.left_keys, plan.exact, &batch, arena)?;
    let mut batch = batch;
    if let Some(valid) = codes.valid
        && (plan.mode.drops_unmatched())
    {
        let rows = valid.indices(arena)?;
        batch = batch.gather(rows, batch.columns().len(), arena)?;
        codes = Codes {
            codes: arena.collect(rows.len(), |i| codes.codes[rows[i] as usize])?,
            valid: None,
        };
    }
    let key = key_column(&plan.left_keys, plan.exact, &batch, &codes, arena)?;
    let at = match plan.asof {
        Some(asof) => {
            let column = batch.column(asof.left);
            let valid = validity(&column, arena)?;
            Some(Column::int(times(&column, arena)?, valid))
        }
        None => None,
    };
    let origin = Origin {
        number: chunk.number,
        first,
        chunk: chunk.chunk,
        locator: chunk.locator,
        texts: chunk.texts,
        paths: &wait.paths,
    };
    left_rows(&batch, key, at, &origin, arena)
}

/// Room for a list, without a budget: it is never long.
pub(super) fn list<T>(len: usize) -> Result<Vec<T>> {
    let mut list = vec![];
    let mut none = Budget::new(usize::MAX).reserve();
    grow_to(&mut list, len, &mut none)?;
    Ok(list)
}
