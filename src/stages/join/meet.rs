//! Left rows that wait meet the right side: for each of their keys the right rows that have it.
//!
//! How: right rows come part by part, sorted by their keys' buckets. As many as fit into memory are held, with a table of their keys: a
//! *load*. The part's left keys are looked up in it, in the order of their rows, and what they find is copied, marked with that order:
//! what one load gives is sorted already, and [`super::again`] merges what all of them gave. A key with many right rows in a load is *hot*: its
//! rows are written once, and left rows say where.
//!
//! Laws
//! - Memory does not grow with a key's rows, on either side.
//! - A hot key takes disk once, however many left rows have it.
//! - A part that does not fit makes more loads, and its left keys are read once for each: skew costs time, nothing else.

mod found;
mod hot;
mod load;
mod making;

use super::super::spill::{Frame, SegmentWriter};
use super::super::spool::orders;
use super::Plan;
use super::cursor::{Cursor, Part};
use super::parted::{PartedKeys, part_of};
use super::pieces::{NONE, Piece};
use super::sides::*;
pub(super) use found::FOUND_BYTES;
use found::{COPIES, Found};
pub(super) use hot::{Hot, HotWriter};
use load::{Load, LongRun};
pub(super) use load::{least_load, loaded_bytes};
pub(super) use making::Making;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Bits, Budget, Column, Columns, Fill, Kept, Reservation};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Right rows of one key in one load from which on they are hot.
const RUN_ROWS: usize = 256;
/// More rows than [`MANY_ROWS`] of which more copies than this would be made become hot.
const MOST_COPIES: usize = 1 << 20;
const MANY_ROWS: usize = 32;
/// The same for tests that force it.
const FORCED_COPIES: usize = 8;

/// Where what comes out goes.
pub(super) struct Outs<'o> {
    pub(super) matches: SegmentWriter,
    pub(super) rest: Option<Leftover<'o>>,
}

/// Right rows that nothing has matched, or that something may yet match, and how many batches of them there were.
pub(super) type Leftover<'o> = (&'o mut Box<dyn Fill>, &'o mut u64);

/// Both sides while they meet.
pub(super) struct Meeting<'j> {
    plan: &'j Plan,
    right: Cursor,
    keys: Arc<PartedKeys>,
    parts: usize,
    outs: Outs<'j>,
    hot: HotWriter,
    /// For loads: at most so many bytes.
    load_room: Reservation,
    making: Making,
    budget: Arc<Budget>,
    found: Found,
    /// Rows of a load, at most.
    load_rows: usize,
    run_rows: usize,
    many_rows: usize,
    most_copies: usize,
    readers: usize,
    cancelled: &'j AtomicBool,
}

impl<'j> Meeting<'j> {
    /// `load_room` is what loads may take.
    pub(super) fn new(
        plan: &'j Plan,
        right: Cursor,
        (keys, parts): (PartedKeys, usize),
        outs: Outs<'j>,
        hot: HotWriter,
        making: Making,
        load_room: Reservation,
        setup: &'j Setup,
    ) -> Self {
        let forced = setup.spill.spill_rows();
        Meeting {
            plan,
            right,
            keys: Arc::new(keys),
            parts,
            outs,
            hot,
            load_room,
            making,
            budget: setup.budget.clone(),
            found: Found::default(),
            load_rows: forced.map_or(usize::MAX, |rows| rows.max(2)),
            run_rows: forced.unwrap_or(RUN_ROWS).clamp(1, RUN_ROWS),
            many_rows: forced.map_or(MANY_ROWS, |_| 1),
            most_copies: forced.map_or(MOST_COPIES, |_| FORCED_COPIES),
            readers: setup.workers.max(1),
            cancelled: &setup.cancelled,
        }
    }

    /// Walks through both sides to their ends.
    ///
    /// # Errors
    /// `Memory` if there is no room for one row of both sides; what the disk answers.
    pub(super) fn run(mut self) -> Result<Option<Hot>> {
        for part in 0..self.parts {
            while let Some(mut load) = self.load(part)? {
                self.look_up(part, &mut load)?;
                self.left_over_of(&load)?;
            }
        }
        // Keys with a null: they match nothing.
        while let Some((part, at)) = self.right.next()? {
            self.left_over(&part, at..part.rows())?;
            self.right.go_to(part.rows());
        }
        drop((self.right, self.keys, self.outs, self.load_room, self.making));
        self.hot.finish(self.budget.reserve(), self.readers)
    }

    /// The next right rows of a part, as many as fit; `None` if there are no more.
    fn load(&mut self, part: usize) -> Result<Option<Load>> {
        let column = self.plan.right_width + R_TIME;
        let pool = Budget::new(self.load_room.bytes());
        let mut room = pool.reserve();
        let mut list: Vec<Piece> = vec![];
        let mut rows = 0;
        while let Some((held, at)) = self.right.next()? {
            let batch = held.batch();
            let is_in = |row: usize| bucket(&batch, column, row).is_some_and(|b| part_of(b, self.parts) == part);
            let mut end = (at..batch.rows()).find(|&row| !is_in(row)).unwrap_or(batch.rows());
            end = end.min(at.saturating_add(self.load_rows - rows));
            if end == at {
                break;
            }
            let arena = Arena::new(usize::MAX);
            let some = batch.slice(at, end - at, &arena)?;
            let (bytes, takes) = (some.copy_bytes(), loaded_bytes(&some));
            if room.grow(takes).is_err() {
                if !list.is_empty() {
                    break;
                }
                // Longer than anybody could plan for.
                room = self.budget.reserve();
                room.grow(takes)?;
            }
            list.push(Piece {
                kept: Some(Kept::copy(&some, bytes)?),
                rows: some.rows(),
                codes: vec![],
                valid: vec![],
                times: vec![],
            });
            rows += some.rows();
            self.right.go_to(end);
            if end < batch.rows() {
                break;
            }
        }
        // Where it is forced there are some short ones first, not short ones only.
        self.load_rows = self.load_rows.saturating_mul(2);
        match list.is_empty() {
            true => Ok(None),
            false => Load::new(self.plan, list, rows, room).map(Some),
        }
    }

    /// The left keys of the part meet the rows of a load.
    fn look_up(&mut self, part: usize, load: &mut Load) -> Result<()> {
        let keys = self.keys.clone();
        let mut reading = keys.read(part);
        while let Some((frame, rows)) = reading.next()? {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            self.look_up_some(&frame, rows, load)?;
        }
        self.copy(load)?;
        self.outs.matches.keep()
    }

    fn look_up_some(&mut self, frame: &Frame, rows: Range<usize>, load: &mut Load) -> Result<()> {
        let plan = self.plan;
        let asks = !load.matched.is_empty();
        for row in rows {
            let key = frame.key(row);
            let run = load.table.find(plan.code_of(key));
            if run.is_empty() {
                continue;
            }
            let order = frame.order(row);
            if run.len() > self.many_rows
                && !plan.decides()
                && let Some(start) = self.hot_run(&run, key, load)?
            {
                self.found
                    .hot
                    .push((self.found.ids.len() as u32, start, run.len() as u64));
                self.found.push(NONE, order);
            } else {
                for at in run {
                    let id = load.table.id(at);
                    if !plan.exact && load.key(plan, id) != Some(key) {
                        continue;
                    }
                    if plan.decides() {
                        self.found.push(NONE, order);
                        break;
                    }
                    if asks {
                        load.mark(id);
                    }
                    self.found.push(id, order);
                    if self.found.ids.len() >= COPIES {
                        self.copy(load)?;
                    }
                }
            }
            if self.found.ids.len() >= COPIES {
                self.copy(load)?;
            }
        }
        Ok(())
    }

    /// Where the rows of a run are among the hot ones, if it is hot; else one more left row copies it.
    fn hot_run(&mut self, run: &Range<usize>, key: &[u8], load: &mut Load) -> Result<Option<u64>> {
        if !load.runs.contains_key(&run.start) {
            let mut ids = load.table.ids(run.clone()).iter();
            let is_one = self.plan.exact || ids.all(|&id| load.key(self.plan, id) == Some(key));
            if is_one && !load.matched.is_empty() {
                run.clone().for_each(|at| load.mark(load.table.id(at)));
            }
            let known = LongRun {
                is_one,
                copies: 0,
                hot: None,
            };
            load.runs.insert(run.start, known);
        }
        let Some(known) = load.runs.get_mut(&run.start) else {
            return Ok(None);
        };
        if !known.is_one {
            return Ok(None);
        }
        if known.hot.is_none() {
            known.copies += 1;
            if run.len() <= self.run_rows && known.copies * run.len() <= self.most_copies {
                return Ok(None);
            }
            let start = self.hot.rows;
            known.hot = Some(start);
            self.write_hot(run.clone(), load)?;
            return Ok(Some(start));
        }
        Ok(known.hot)
    }

    fn write_hot(&mut self, run: Range<usize>, load: &Load) -> Result<()> {
        let (plan, hot) = (self.plan, &mut self.hot);
        let mut from = run.start;
        while from < run.end {
            let some = from..run.end.min(from + COPIES);
            let some = some.start..some.start + load.pieces.alike(load.table.ids(some));
            self.making.in_pieces(some.clone(), |some, arena| {
                let rows = load.gather(plan, load.table.ids(some), arena)?;
                hot.append(&rows, arena)
            })?;
            from = some.end;
        }
        Ok(())
    }

    /// Copies what left rows have found.
    fn copy(&mut self, load: &Load) -> Result<()> {
        let width = self.plan.right_width;
        let (plan, found, matches) = (self.plan, &mut self.found, &mut self.outs.matches);
        let mut from = 0;
        while from < found.ids.len() {
            let some = from..from + load.pieces.alike(&found.ids[from..]);
            self.making.in_pieces(some.clone(), |some, arena| {
                let first = found.before + some.start as u64;
                let rows = load.gather(plan, &found.ids[some.clone()], arena)?;
                let columns = arena.copy(rows.columns())?;
                let left = &found.orders[some.clone()];
                columns[width + C_NUMBER] = Column::int(arena.map(left, |order| order.0 as i64)?, None);
                columns[width + C_ROW] = Column::int(arena.map(left, |order| i64::from(order.1))?, None);
                // What is gathered for nothing but `NONE` is null, and nobody reads an order out of that.
                if found.ids[some.clone()].contains(&NONE) {
                    let hot = found.hot_of(&some);
                    let mut starts = hot.iter();
                    let column = columns[width + R_CHUNK];
                    columns[width + R_CHUNK] =
                        found.patched(&column, &some, arena, || starts.next().map(|h| h.1 as i64))?;
                    let mut lens = hot.iter();
                    let column = columns[width + R_ROW];
                    columns[width + R_ROW] =
                        found.patched(&column, &some, arena, || lens.next().map(|h| -(h.2 as i64)))?;
                }
                let rows = Batch::new(columns, None, some.len());
                let keys = orders(left.len(), |at| (left[at].0, left[at].1.into()), arena)?;
                // One left row's matches keep the order in which they were found.
                let chunks = arena.collect(left.len(), |at| first + at as u64)?;
                let none = arena.fill(left.len(), 0u32)?;
                matches.make_room(&rows, &keys)?;
                matches.append(&rows, &keys, chunks, none)
            })?;
            from = some.end;
        }
        found.clear();
        Ok(())
    }

    /// Right rows of a load that nothing has matched by key, or all of them if a condition decides later.
    fn left_over_of(&mut self, load: &Load) -> Result<()> {
        let Some((rest, batches)) = &mut self.outs.rest else {
            return Ok(());
        };
        let plan = self.plan;
        for (piece, of) in load.pieces.list.iter().enumerate() {
            let matched = load.matched.get(piece);
            let is_matched = |row: usize| matched.is_some_and(|bits| bits[row / 64] >> (row % 64) & 1 == 1);
            let mut from = 0;
            while from < of.rows {
                let to = of.rows.min(from + COPIES);
                self.making.in_pieces(from..to, |some, arena| {
                    let bits = Bits::collect(arena, some.len(), |at| !is_matched(some.start + at))?;
                    let ids = arena.map(bits.indices(arena)?, |at| {
                        load.pieces.id(piece, some.start + at as usize)
                    })?;
                    if ids.is_empty() {
                        return Ok(());
                    }
                    let rows = load.gather(plan, ids, arena)?;
                    **batches += 1;
                    rest.push(**batches, unmatched(plan, &rows, arena)?)
                })?;
                from = to;
            }
        }
        Ok(())
    }

    fn left_over(&mut self, part: &Part, range: Range<usize>) -> Result<()> {
        let plan = self.plan;
        let Some((rest, batches)) = &mut self.outs.rest else {
            return Ok(());
        };
        self.making.in_pieces(range, |some, arena| {
            let rows = part.batch().slice(some.start, some.len(), arena)?;
            **batches += 1;
            rest.push(**batches, unmatched(plan, &rows, arena)?)
        })
    }
}

impl Plan {
    /// The right side only decides by its keys: nobody asks for its rows.
    pub(super) fn decides(&self) -> bool {
        self.mode.only_left() && !self.condition
    }
}

/// Right rows as those that are left over are sorted.
fn unmatched<'a>(plan: &Plan, rows: &Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
    let width = plan.right_width;
    let mut columns = Columns::new(arena, width + U_WIDTH)?;
    rows.columns()[..width].iter().for_each(|&column| columns.push(column));
    columns.push(rows.column(width + R_CHUNK));
    columns.push(rows.column(width + R_ROW));
    columns.push(Column::int(arena.fill(rows.rows(), 1)?, None));
    Ok(Batch::new(columns.finish(), None, rows.rows()))
}
