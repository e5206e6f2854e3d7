//! The left side waits: where the right one does not fit into memory, left rows are kept on disk in their order, their keys meet the right
//! side, and left rows go through the probers, with the right rows that they match at hand.
//!
//! How: lanes hold left rows ([`Holder`]): rows go to disk as they come ([`super::spool`]), their keys apart from them, by parts
//! ([`super::parted`]). Once the last has come, keys meet the right side ([`super::meet`]; [`super::nearest`] for `asof`). That gives copies of the
//! right rows that match, in the left side's order, and both are read again together ([`super::again`]).
//!
//! Laws
//! - The memory that all this takes at least is set aside before the first left row comes; [`least`] says how much it is.
//! - A prober does with rows that waited what it does with others: whatever it gives, sets aside or finds wrong is the same.

use super::super::codes::held;
use super::super::groups::grow_to;
use super::super::sort::Sort;
use super::super::spill::{
    Merge, Store, lane_floor_beside, loaded_frame, merge_least, short_writer_floor, store_frame_bytes,
};
use super::Plan;
use super::again::{Block, Blocks};
use super::cursor::{Cursor, Room as CursorRoom, cursor_bytes, room_bytes};
use super::meet::{FOUND_BYTES, HotWriter, Making, Meeting, Outs, least_load};
use super::nearest::{Nearest, RIGHT_PARTS};
use super::numbers::{Codes, times, validity};
use super::parted::{LIST_BYTES, LaneKeys, PartedKeys, bucket_of, keys_bytes, most_parts, part_of};
use super::rest::RestOfWaiting;
use super::scratch::{FIRST_ROOM, Scratch};
use super::sides::*;
use super::spool::{Spool, spool_bytes};
use standpipe_sdk::Breaker;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room, Setup};
use standpipe_sdk::{Arena, Batch, Budget, Column, Data, Fill, Hold, Reservation, Source, Waiting};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of a cursor that only passes rows on.
const PARTS: usize = 3;
/// Left rows that are made ready at a time.
const HELD_ROWS: usize = 16 << 10;
/// Memory for them.
const HELD_BYTES: usize = 128 << 10;
/// Into so many parts the memory goes for what is sorted or written at the same time, so that several joins of one script fit side by side.
pub(super) const MERGES: usize = 8;
/// The same for left rows as they wait: longer frames, of which there are fewer.
const SPOOLS: usize = 4;
/// A merge may take one part of so many of the memory.
const MERGED: usize = 3;
/// What reading a frame of hot rows takes, in frames.
const FRAMES_OF_HOT: usize = 6;
/// Blocks of a lane, in rooms of a cursor.
const ROOMS_OF_BLOCK: usize = 4;
/// A load is expected to have one part of so many of the memory, and takes one part of so many of what is free.
const LOADS_OF_BUDGET: usize = 4;
/// For tests that force it.
const FORCED_PARTS: usize = 3;

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
    let rows = short_writer_floor(budget_bytes, SPOOLS) + spool_bytes(store_frame_bytes(budget_bytes, SPOOLS));
    let keys = short_writer_floor(budget_bytes, MERGES) + keys_bytes(budget_bytes) + LIST_BYTES;
    workers * (rows + keys.max(lane_floor(budget_bytes)) + HELD_BYTES)
}

/// What the meeting, or what comes behind it, takes at least, beside what is left of the right side.
fn meeting_bytes(budget_bytes: usize, workers: usize) -> usize {
    let rest = lane_floor(budget_bytes) + cursor_bytes(budget_bytes, PARTS + workers);
    let meeting = parted_bytes(budget_bytes, workers).max(sorted_bytes(budget_bytes));
    rest + meeting.max(again_bytes(budget_bytes, workers))
}

/// What meeting by parts takes.
fn parted_bytes(budget_bytes: usize, workers: usize) -> usize {
    2 * short_writer_floor(budget_bytes, MERGES)
        + cursor_bytes(budget_bytes, PARTS)
        + merge_least(budget_bytes, MERGES)
        + making_bytes(budget_bytes)
        + key_frames(workers, store_frame_bytes(budget_bytes, MERGES))
        + least_load(budget_bytes)
}

/// What meeting in the order of keys takes.
fn sorted_bytes(budget_bytes: usize) -> usize {
    lane_floor(budget_bytes)
        + cursor_bytes(budget_bytes, PARTS)
        + cursor_bytes(budget_bytes, RIGHT_PARTS)
        + 2 * merge_least(budget_bytes, MERGES)
        + making_bytes(budget_bytes)
}

fn making_bytes(budget_bytes: usize) -> usize {
    2 * room_bytes(budget_bytes) + FOUND_BYTES
}

/// What reading both sides again takes.
fn again_bytes(budget_bytes: usize, workers: usize) -> usize {
    let rows = loaded_frame(budget_bytes / SPOOLS) / 2;
    let hot = FRAMES_OF_HOT * store_frame_bytes(budget_bytes, MERGES);
    2 * (cursor_bytes(budget_bytes, PARTS) + merge_least(budget_bytes, MERGES))
        + workers * (rows + ROOMS_OF_BLOCK * room_bytes(budget_bytes) + hot)
}

/// What reading keys takes.
fn key_frames(workers: usize, frame_bytes: usize) -> usize {
    const FRAMES_OF_KEYS: usize = 4;
    workers * FRAMES_OF_KEYS * frame_bytes
}

/// The sides of a join of which the left one waits.
pub(super) struct Wait {
    pub(super) plan: Arc<Plan>,
    pub(super) setup: Setup,
    pub(super) paths: Paths,
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            paths: Paths::default(),
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
                room: reserve(2 * room + FOUND_BYTES)?,
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
                    store: store.clone(),
                    matches: store.short_writer()?,
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
    let keys = columns.iter().map(|&column| ascending(column)).collect();
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

/// One lane's left rows.
struct Lane {
    rows: Option<Spool>,
    keys: Option<KeysOfLane>,
    scratch: Scratch,
    number: u64,
    count: u64,
}

enum KeysOfLane {
    Parted(LaneKeys, usize),
    Sorted(Box<dyn Fill>),
}

impl Lane {
    /// No more rows come; gives the keys, unless they are sorted.
    fn close(&mut self, plan: &Plan) -> Result<Option<LaneKeys>> {
        if let Some(rows) = self.rows.take() {
            rows.finish(order_of(plan))?;
        }
        self.scratch.close();
        match self.keys.take() {
            Some(KeysOfLane::Parted(keys, _)) => Ok(Some(keys)),
            Some(KeysOfLane::Sorted(mut sorted)) => sorted.done().map(|()| None),
            None => Ok(None),
        }
    }
}

/// The columns that say the order of left rows.
fn order_of(plan: &Plan) -> [usize; 2] {
    [plan.left_width + L_NUMBER, plan.left_width + L_ROW]
}

/// One lane's way in for rows that wait.
pub(super) struct Holder {
    wait: Arc<Wait>,
    lane: Arc<Mutex<Lane>>,
    plan: Arc<Plan>,
}

impl Holder {
    /// `plan` is as it was bound.
    pub(super) fn new(wait: &Arc<Wait>, plan: &Arc<Plan>) -> Result<Holder> {
        wait.set_aside()?;
        let budget = &wait.setup.budget;
        let keys = match &*lock(&wait.keys) {
            Some(KeysOf::Parted(store, parts)) => KeysOfLane::Parted(LaneKeys::new(store, budget, *parts)?, *parts),
            Some(KeysOf::Sorted(sorted)) => KeysOfLane::Sorted(sorted.clone().filler()?),
            None => return Err(Error::Panic("rows wait for what is over".into())),
        };
        let lane = Arc::new(Mutex::new(Lane {
            rows: Some(Spool::new(&wait.rows, budget)?),
            keys: Some(keys),
            scratch: Scratch::starting_with(HELD_BYTES, budget, wait.setup.share)?,
            number: 0,
            count: 0,
        }));
        lock(&wait.lanes).push(lane.clone());
        Ok(Holder {
            wait: wait.clone(),
            lane,
            plan: plan.clone(),
        })
    }
}

impl Hold for Holder {
    fn push(&mut self, chunk: &Waiting<'_>, batch: Batch<'_>) -> Result<()> {
        let mut lane = lock(&self.lane);
        let Lane {
            rows: Some(spool),
            keys: Some(keys),
            scratch,
            number,
            count,
        } = &mut *lane
        else {
            return Err(Error::Panic("rows come after their end".into()));
        };
        if *number != chunk.number {
            (*number, *count) = (chunk.number, 0);
        }
        let (mut from, mut len) = (0, HELD_ROWS);
        while from < batch.rows() {
            len = len.min(batch.rows() - from);
            let made = Waiters::of(
                &self.plan,
                &self.wait,
                chunk,
                &batch,
                from..from + len,
                *count,
                &scratch.arena,
            );
            let outcome = made.and_then(|some| {
                let rows = some.rows.rows();
                if rows > 0 {
                    let timed = some.timed_keys((*number, *count), &scratch.arena)?;
                    spool.push(&some.rows, order_of(&self.plan), &scratch.arena)?;
                    // The rows are taken: this cannot be tried again.
                    some.push_keys(keys, timed, (*number, *count))
                        .map_err(|e| held("join", e))?;
                }
                Ok(rows as u64)
            });
            scratch.arena.reset();
            match outcome {
                Ok(rows) => {
                    *count += rows;
                    from += len;
                }
                // Rather more room: many short pieces are slow.
                Err(Error::Memory { .. }) if scratch.more() => {}
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(held("join", error)),
            }
        }
        Ok(())
    }
}

/// Rows of a batch as they wait, without those that never come out, and their keys.
struct Waiters<'a> {
    rows: Batch<'a>,
    codes: Codes<'a>,
    key: Column<'a>,
    /// For `asof`.
    times: Option<Column<'a>>,
}

impl<'a> Waiters<'a> {
    fn of(
        plan: &Plan,
        wait: &'a Wait,
        chunk: &Waiting<'a>,
        batch: &Batch<'a>,
        range: std::ops::Range<usize>,
        first: u64,
        arena: &'a Arena,
    ) -> Result<Waiters<'a>> {
        let own = batch.columns().get(..plan.left_width);
        let own = own.ok_or_else(|| Error::Panic("a batch without its keys".into()))?;
        let batch = batch.with_columns(own).slice(range.start, range.len(), arena)?;
        let mut codes = Codes::of(&plan.left_keys, plan.exact, &batch, arena)?;
        let mut batch = batch;
        if let Some(valid) = codes.valid
            && plan.mode.drops_unmatched()
        {
            let rows = valid.indices(arena)?;
            batch = batch.gather(rows, batch.columns().len(), arena)?;
            codes = Codes {
                codes: arena.collect(rows.len(), |i| codes.codes[rows[i] as usize])?,
                valid: None,
            };
        }
        let key = key_column(&plan.left_keys, plan.exact, &batch, &codes, arena)?;
        let times = match plan.asof {
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
        Ok(Waiters {
            rows: left_rows(&batch, &origin, arena)?,
            codes,
            key,
            times,
        })
    }

    /// For `asof`: what is sorted of rows that have a time and a key, of which the first is the row at `order`.
    fn timed_keys(&self, order: (u64, u64), arena: &'a Arena) -> Result<Option<Batch<'a>>> {
        let Some(times) = self.times else { return Ok(None) };
        let rows = self.codes.codes.len();
        let is_some = |row: usize| times.is_valid(row) && self.key.is_valid(row);
        let bits = standpipe_sdk::Bits::collect(arena, rows, is_some)?;
        let columns = [
            times,
            self.key,
            Column::int(arena.fill(rows, order.0 as i64)?, None),
            Column::int(arena.collect(rows, |row| (order.1 + row as u64) as i64)?, None),
        ];
        let all = Batch::new(arena.copy(&columns)?, None, rows);
        let some = all.gather(bits.indices(arena)?, K_WIDTH, arena)?;
        let columns = arena.copy(some.columns())?;
        if let Data::Int(times) = some.column(K_TIME).data() {
            columns[K_TIME] = Column::int(times, None);
        }
        Ok(Some(Batch::new(columns, None, some.rows())))
    }

    /// Keys without a null, of which the first is that of the row at `order`.
    fn push_keys(&self, keys: &mut KeysOfLane, timed: Option<Batch<'_>>, order: (u64, u64)) -> Result<()> {
        match keys {
            KeysOfLane::Parted(keys, parts) => {
                let Data::Bytes(texts) = self.key.data() else {
                    return Err(Error::Panic("keys that are no bytes".into()));
                };
                for (row, &code) in self.codes.codes.iter().enumerate() {
                    if self.codes.valid.is_none_or(|valid| valid.get(row)) {
                        let part = part_of(bucket_of(code), *parts);
                        keys.push(part, texts.bytes(row), (order.0, (order.1 + row as u64) as u32))?;
                    }
                }
                Ok(())
            }
            KeysOfLane::Sorted(sorted) => match timed {
                Some(rows) if rows.rows() > 0 => sorted.push(order.0, rows),
                Some(_) => Ok(()),
                None => Err(Error::Panic("keys without their times".into())),
            },
        }
    }
}

/// Room for a list, without a budget: it is never long.
pub(super) fn list<T>(len: usize) -> Result<Vec<T>> {
    let mut list = vec![];
    let mut none = Budget::new(usize::MAX).reserve();
    grow_to(&mut list, len, &mut none)?;
    Ok(list)
}
