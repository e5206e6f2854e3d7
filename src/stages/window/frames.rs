//! What each row's frame gives: aggregates over the rows around it, and values of rows at a distance.
//!
//! How: aggregates keep states in *slots*, and all of them move in step. Each row gets a slot; the frame of a group is two stacks.
//! Rows come to the back, whose values are one slot; they leave at the front, where each row's slot holds what the rows from it up
//! to the turn are together. When the front is empty, it is made of the back, newest row first, and the back starts anew. So a row is
//! joined three times, however wide the frame is. What is to be done for a batch is one list of [`Step`]s for all aggregates.
//! Aggregates whose states cannot be joined cheaply (`median`, `collect`) keep one state per group where frames only grow, and are
//! computed of the frame's rows anew where they move.
//!
//! Laws
//! - Rows come by [`Frames::take`], and nothing of them is given up before the next one: [`Frames::give`] may be called again.
//! - A row waits for the rows of its group that it looks ahead at, or for the end of the group.
//! - What the arena of `give` refuses changes nothing; what `take` is refused ends the run.

use super::super::aggregate::take_of;
use super::super::codes::held;
use super::super::copies::{Copies, Located, NOWHERE, Scratch};
use super::super::groups::grow;
use super::super::picked::{alike, gather, kinds, taking_part};
use super::super::values;
use super::STAGE;
use crate::expr::value_of_cell;
use standpipe_sdk::aggregate::{Input, OfRun, OnFault, RowOrder, States, Step};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{AggregateArg, Setup};
use standpipe_sdk::{Arena, Batch, Code, Column, Columns, Kept, Reservation, Value};
use std::collections::VecDeque;

/// What is asked of each row.
#[derive(Clone)]
pub(super) enum Asked {
    /// The value of a column so many rows behind it (before it, if negative).
    Value { column: usize, behind: i64 },
    /// An aggregate over the rows of its frame.
    Aggregate(AggregateArg),
}

/// Which rows around a row are its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// `None` = from the first row on.
    pub(super) from: Option<i64>,
    pub(super) to: i64,
}

/// A row whose aggregate has no value.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// Counted from the first row that was given.
    pub(super) row: usize,
    /// Number of what was asked.
    pub(super) asked: usize,
    pub(super) code: Code,
    pub(super) text: String,
}

/// How an aggregate follows the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Steps,
    /// One state per group, asked after each row.
    Growing,
    /// Of the frame's rows, each time.
    Anew,
}

struct Combined {
    arg: AggregateArg,
    way: Way,
    states: Box<dyn States>,
    /// For [`Way::Growing`]: the values of this batch's rows, and those that have none.
    values: Vec<Value>,
    failed: Vec<(usize, Code, String)>,
}

/// Stands for no slot.
const NO_SLOT: u32 = u32::MAX;
/// Rows of frames that are worked on together.
const ROWS_ANEW: usize = 32 << 10;

/// A row that is still wanted.
#[derive(Clone, Copy)]
struct Row {
    at: Pick,
    slot: u32,
}

impl Located for Row {
    fn at(&self) -> Pick {
        self.at
    }

    fn set(&mut self, at: Pick) {
        self.at = at;
    }
}

/// Where a group stands; rows have numbers from 0.
#[derive(Default)]
struct Group {
    /// How many there are.
    rows: u64,
    /// The next one that is given.
    out: u64,
    /// The frame is `left..right`; those before `turn` are in front.
    left: u64,
    right: u64,
    turn: u64,
    /// The slot of those behind, plus one.
    back: u32,
    /// The number of the first row in `wanted`.
    first: u64,
    wanted: VecDeque<Row>,
    /// The batch that touched it last.
    batch: u64,
}

impl AsMut<[Row]> for Group {
    fn as_mut(&mut self) -> &mut [Row] {
        self.wanted.make_contiguous()
    }
}

impl Group {
    fn row(&self, number: u64) -> Option<&Row> {
        self.wanted.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn slot(&self, number: u64) -> u32 {
        self.row(number).map_or(NO_SLOT, |row| row.slot)
    }
}

/// A row that can be given.
#[derive(Clone, Copy)]
struct Out {
    group: u32,
    number: u64,
    left: u64,
    right: u64,
    slot: u32,
}

/// Something that happens to an aggregate of [`Way::Growing`].
#[derive(Clone, Copy)]
enum Event {
    /// The row comes into the frame of its group.
    Take(u32, Pick),
    /// The group's value is wanted.
    Value(u32),
}

/// What is written down while the rows of a batch are gone through.
#[derive(Default)]
struct Book {
    /// The slots of the rows that came.
    fresh: Vec<u32>,
    steps: Vec<Step>,
    events: Vec<Event>,
    outs: Vec<Out>,
    /// Slots to be had again once the batch is done.
    retired: Vec<u32>,
    free: Vec<u32>,
    slots: u32,
}

/// What frames are followed for.
struct What {
    frame: Frame,
    steps: bool,
    /// Some aggregate is computed of the frame's rows.
    frames: bool,
    events: bool,
}

pub(super) struct Frames {
    what: What,
    /// How many rows behind it a row waits for.
    ahead: u64,
    /// How many rows before it are looked at one by one.
    before: u64,
    /// The rows come last one first.
    mirrored: bool,
    asked: Vec<Asked>,
    combined: Vec<Combined>,
    own: usize,
    /// The columns of rows that are kept; where each input column is among them.
    kept: Vec<usize>,
    groups: Vec<Group>,
    touched: Vec<u32>,
    book: Book,
    copies: Copies,
    kinds: Vec<u32>,
    scratch: Scratch,
    values: Scratch,
    reservation: Reservation,
    batches: u64,
    /// Rows that growing frames took so far: in a batch more or fewer than it has, since a frame that ends later takes them later.
    taken: u64,
}

impl Frames {
    /// `own`: how many first columns of each row are kept until it is given, for [`Frames::rows`].
    pub(super) fn new(asked: Vec<Asked>, frame: Frame, own: usize, mirrored: bool, setup: &Setup) -> Frames {
        let (budget, of_run) = (&setup.budget, OfRun::new(setup));
        let mut combined = vec![];
        let (mut ahead, mut before) = (0, 0);
        let mut kept: Vec<usize> = (0..own).collect();
        let mut keep = |column: usize| {
            if !kept.contains(&column) {
                kept.push(column);
            }
        };
        for asked in &asked {
            match asked {
                Asked::Value { column, behind } => {
                    keep(*column);
                    ahead = ahead.max(u64::try_from(*behind).unwrap_or(0));
                    before = before.max(u64::try_from(behind.saturating_neg()).unwrap_or(0));
                }
                Asked::Aggregate(arg) => {
                    let states = arg.aggregate.states(&of_run);
                    let way = match (states.takes_steps(), frame.from) {
                        (true, _) => Way::Steps,
                        (false, None) => Way::Growing,
                        (false, Some(_)) => Way::Anew,
                    };
                    if way != Way::Steps {
                        arg.columns.iter().copied().chain(arg.filter).for_each(&mut keep);
                    }
                    ahead = ahead.max(u64::try_from(frame.to).unwrap_or(0));
                    combined.push(Combined {
                        arg: arg.clone(),
                        way,
                        states,
                        values: vec![],
                        failed: vec![],
                    });
                }
            }
        }
        Frames {
            what: What {
                frame,
                steps: combined.iter().any(|c| c.way == Way::Steps),
                events: combined.iter().any(|c| c.way == Way::Growing),
                frames: !combined.is_empty(),
            },
            ahead,
            before,
            mirrored,
            asked,
            combined,
            copies: Copies::new(kept.len(), budget),
            kept,
            own,
            groups: vec![],
            touched: vec![],
            book: Book::default(),
            kinds: vec![],
            scratch: Scratch::new(budget),
            values: Scratch::new(budget),
            reservation: budget.reserve(),
            batches: 0,
            taken: 0,
        }
    }

    /// Whether groups that are closed have to be forgotten before the next one's rows come.
    pub(super) fn takes_one_group(&self) -> bool {
        self.what.events
    }

    /// How many rows can be given.
    pub(super) fn len(&self) -> usize {
        self.book.outs.len()
    }

    /// Takes the rows of a batch, each into its group. Groups below `closed` get no further rows. What was to be given is given up.
    pub(super) fn take(&mut self, batch: &Batch<'_>, ids: Option<&[u32]>, closed: u32) -> Result<()> {
        self.settle()?;
        self.batches += 1;
        let rows = batch.rows();
        let groups = match ids {
            None => 1,
            Some(ids) => ids.iter().max().map_or(0, |&id| id as usize + 1),
        };
        let more = groups.max(closed as usize).saturating_sub(self.groups.len());
        grow(&mut self.groups, more, &mut self.reservation)?;
        self.groups.resize_with(self.groups.len() + more, Group::default);
        let piece = self.keep(batch)?;
        self.book.room(rows, &mut self.reservation)?;
        for row in 0..rows {
            let id = ids.map_or(0, |ids| ids[row]);
            let slot = match self.what.steps {
                true => self.book.fresh_slot(),
                false => NO_SLOT,
            };
            let at = piece.map_or(NOWHERE, |piece| (piece, row as u32));
            self.add(id, Row { at, slot })?;
            let group = &mut self.groups[id as usize];
            while group.out + self.ahead < group.rows {
                self.book.give(group, id, &self.what, &mut self.reservation)?;
            }
        }
        let wait = self.ahead > 0;
        for id in (0..closed).filter(|_| wait) {
            let group = &mut self.groups[id as usize];
            if group.out < group.rows {
                let more = (group.rows - group.out) as usize;
                self.book.room(more, &mut self.reservation)?;
                touch(group, id, self.batches, &mut self.touched, &mut self.reservation)?;
                while group.out < group.rows {
                    self.book.give(group, id, &self.what, &mut self.reservation)?;
                }
            }
        }
        self.combine(batch)?;
        self.grow_on()
    }

    /// A copy of the rows that may be looked at again.
    fn keep(&mut self, batch: &Batch<'_>) -> Result<Option<u32>> {
        if self.kept.is_empty() || batch.rows() == 0 {
            return Ok(None);
        }
        let piece = self.copies.next_piece()?;
        let (copies, kept) = (&mut self.copies, &self.kept);
        self.scratch.with(|arena| {
            let mut columns = Columns::new(arena, kept.len())?;
            for &at in kept {
                columns.push(batch.column(at));
            }
            copies.add(Batch::new(columns.finish(), None, batch.rows()))
        })?;
        if self.own > 0 {
            self.kinds = kinds(self.copies.pieces().iter());
        }
        Ok(Some(piece))
    }

    fn add(&mut self, id: u32, row: Row) -> Result<()> {
        let group = &mut self.groups[id as usize];
        touch(group, id, self.batches, &mut self.touched, &mut self.reservation)?;
        if group.wanted.len() == group.wanted.capacity() {
            let more = group.wanted.len().max(2);
            let bytes = more * size_of::<Row>();
            self.reservation.grow(bytes)?;
            if group.wanted.try_reserve_exact(more).is_err() {
                self.reservation.shrink(bytes);
                return Err(no_memory(bytes));
            }
        }
        group.wanted.push_back(row);
        group.rows += 1;
        Ok(())
    }

    /// Aggregates of steps take the batch.
    fn combine(&mut self, batch: &Batch<'_>) -> Result<()> {
        if !self.what.steps {
            return Ok(());
        }
        let (book, reservation) = (&mut self.book, &mut self.reservation);
        let (combined, mirrored, number) = (&mut self.combined, self.mirrored, self.batches);
        self.scratch.with(|arena| {
            let rows = batch.rows();
            let clears = arena.collect(rows, |row| Step::Clear(book.fresh[row]))?;
            let order = match mirrored {
                false => RowOrder {
                    chunk: number,
                    before: 0,
                    rows: None,
                },
                true => RowOrder {
                    chunk: u64::MAX - number,
                    before: 0,
                    rows: Some(arena.collect(rows, |row| (rows - row) as u32)?),
                },
            };
            let steps = || (0..combined.len()).filter(|&at| combined[at].way == Way::Steps);
            let empty = input_of(None, batch, order, arena)?;
            let inputs = arena.fill(steps().count(), empty)?;
            for (input, at) in inputs.iter_mut().zip(steps()) {
                let arg = (rows > 0).then_some(&combined[at].arg);
                *input = input_of(arg, batch, order, arena)?;
            }
            // Nothing is wanted of the arena from here on: it is done once.
            let steps = combined.iter_mut().filter(|c| c.way == Way::Steps);
            for (combined, input) in steps.zip(inputs) {
                let states = &mut combined.states;
                let room = states.room(book.slots as usize, input, reservation);
                room.map_err(|e| held(STAGE, e))?;
                states.steps(clears);
                states.update(&book.fresh, input);
                states.steps(&book.steps);
            }
            Ok(())
        })
    }

    /// Aggregates whose frames only grow take what came into them, and are asked row by row.
    fn grow_on(&mut self) -> Result<()> {
        if !self.what.events {
            return Ok(());
        }
        let (copies, kept, reservation) = (&self.copies, &self.kept, &mut self.reservation);
        let (groups, mirrored, events) = (self.groups.len(), self.mirrored, &self.book.events);
        for combined in self.combined.iter_mut().filter(|c| c.way == Way::Growing) {
            combined.values.clear();
            combined.failed.clear();
            grow(&mut combined.values, self.book.outs.len(), reservation)?;
            let mut arg = combined.arg.clone();
            for column in arg.columns.iter_mut().chain(&mut arg.filter) {
                *column = kept.iter().position(|k| k == column).unwrap_or(0);
            }
            let mut taken = self.taken;
            for events in events.chunks(ROWS_ANEW) {
                let values = &mut self.values;
                self.scratch.with(|arena| {
                    let took = |event: &&Event| matches!(event, Event::Take(..));
                    let count = events.iter().filter(took).count();
                    let mut rows = events.iter().filter_map(|event| match event {
                        Event::Take(_, at) => Some(*at),
                        Event::Value(_) => None,
                    });
                    let picks = arena.collect(count, |_| rows.next().unwrap_or(NOWHERE))?;
                    let batch = gather(copies.pieces(), picks, kept.len(), arena)?;
                    let input = input_of(Some(&arg), &batch, RowOrder::default(), arena)?;
                    // One row of it at a time, in memory that is had once.
                    let columns = arena.copy(input.columns)?;
                    let mut row = 0;
                    for &event in events {
                        let done = match event {
                            Event::Take(group, _) => {
                                for (column, all) in columns.iter_mut().zip(input.columns) {
                                    *column = all.slice(row, 1);
                                }
                                let counts = input.take.is_none_or(|take| take.get(row));
                                row += 1;
                                taken += 1;
                                let one = Input {
                                    columns: &*columns,
                                    rows: 1,
                                    take: None,
                                    order: RowOrder {
                                        chunk: if mirrored { u64::MAX - taken } else { taken },
                                        before: 0,
                                        rows: None,
                                    },
                                };
                                take_one(
                                    combined.states.as_mut(),
                                    group,
                                    groups,
                                    counts.then_some(&one),
                                    reservation,
                                )
                            }
                            Event::Value(group) => combined.ask(group, values, reservation),
                        };
                        done.map_err(|e| held(STAGE, e))?;
                    }
                    Ok(())
                })?;
            }
        }
        self.taken += events.iter().filter(|event| matches!(event, Event::Take(..))).count() as u64;
        Ok(())
    }

    /// The columns of what was asked, of rows `from..from + rows` of those that can be given. Rows whose aggregate has no value are null
    /// and told to `failed`.
    pub(super) fn give<'a>(
        &mut self,
        from: usize,
        rows: usize,
        failed: &mut Vec<Failed>,
        arena: &'a Arena,
    ) -> Result<&'a [Column<'a>]> {
        let mut columns = Columns::new(arena, self.asked.len())?;
        let mut next = 0;
        for number in 0..self.asked.len() {
            let outs = &self.book.outs[from..from + rows];
            let column = match self.asked[number] {
                Asked::Value { column, behind } => {
                    let (groups, pieces) = (&self.groups, self.copies.pieces());
                    let place = self.kept.iter().position(|&k| k == column).unwrap_or(0);
                    let copied = self.scratch.with(|scratch| {
                        let picks = scratch.collect(rows, |i| at_distance(groups, &outs[i], behind))?;
                        let column = value_column(pieces, picks, place, scratch)?;
                        // The arena's own refusal is the batch's, not the scratch memory's.
                        Ok(column.copy_to(arena))
                    });
                    copied.map_err(|e| held(STAGE, e))??
                }
                Asked::Aggregate(_) => {
                    let combined = &mut self.combined[next];
                    next += 1;
                    let mut fault = |row: usize, code: Code, text: &str| {
                        failed.push(Failed {
                            row,
                            asked: number,
                            code,
                            text: text.to_owned(),
                        });
                        Ok(())
                    };
                    match combined.way {
                        Way::Steps => {
                            let slots = arena.collect(rows, |i| outs[i].slot)?;
                            combined.states.finish(slots, arena, &mut fault)?
                        }
                        Way::Growing => {
                            let all = from..from + rows;
                            for (at, code, text) in combined.failed.iter().filter(|(at, ..)| all.contains(at)) {
                                fault(at - from, *code, text)?;
                            }
                            let values = arena.collect(rows, |i| &combined.values[from + i])?;
                            values::column(combined.arg.aggregate.ty(), values, arena)?
                        }
                        Way::Anew => {
                            let mut anew = Anew {
                                groups: &self.groups,
                                copies: &self.copies,
                                kept: &self.kept,
                                mirrored: self.mirrored,
                                scratch: &mut self.scratch,
                                reservation: &mut self.reservation,
                            };
                            anew.column(combined, outs, &mut fault, arena)?
                        }
                    }
                }
            };
            columns.push(column);
        }
        Ok(columns.finish())
    }

    /// Of these rows, how many first ones [`Frames::rows`] can give as one batch.
    pub(super) fn alike(&self, from: usize, rows: usize) -> usize {
        if self.kinds.is_empty() {
            return rows;
        }
        let kind = |out: &Out| self.kinds.get(at_distance(&self.groups, out, 0).0 as usize).copied();
        let outs = &self.book.outs[from..from + rows];
        alike(outs, kind).len()
    }

    /// The first `own` columns of those rows themselves.
    pub(super) fn rows<'a>(&'a self, from: usize, rows: usize, own: usize, arena: &'a Arena) -> Result<Batch<'a>> {
        let outs = &self.book.outs[from..from + rows];
        let picks = arena.collect(rows, |i| at_distance(&self.groups, &outs[i], 0))?;
        gather(self.copies.pieces(), picks, own, arena)
    }

    /// Groups below `closed` are gone, and the others move down.
    pub(super) fn forget(&mut self, closed: u32) -> Result<()> {
        if closed == 0 {
            return Ok(());
        }
        self.settle()?;
        let closed = (closed as usize).min(self.groups.len());
        for group in self.groups.drain(..closed) {
            self.reservation.shrink(group.wanted.capacity() * size_of::<Row>());
            if self.what.steps {
                let back = (group.back > 0).then(|| group.back - 1);
                grow(&mut self.book.free, group.wanted.len() + 1, &mut self.reservation)?;
                self.book
                    .free
                    .extend(group.wanted.iter().map(|row| row.slot).chain(back));
            }
        }
        for combined in self.combined.iter_mut().filter(|c| c.way == Way::Growing) {
            combined.states.clear();
        }
        Ok(())
    }

    /// What no row to come can want is given up.
    fn settle(&mut self) -> Result<()> {
        for id in self.touched.drain(..) {
            let Some(group) = self.groups.get_mut(id as usize) else {
                continue;
            };
            group.batch = 0;
            let mut first = group.out.saturating_sub(self.before);
            if self.what.frames {
                first = first.min(group.right);
                if self.what.frame.from.is_some() {
                    first = first.min(group.left);
                }
            }
            while group.first < first {
                let Some(row) = group.wanted.pop_front() else { break };
                if self.what.steps {
                    grow(&mut self.book.retired, 1, &mut self.reservation)?;
                    self.book.retired.push(row.slot);
                }
                group.first += 1;
            }
        }
        let book = &mut self.book;
        if self.what.steps {
            grow(&mut book.retired, book.outs.len(), &mut self.reservation)?;
            book.retired.extend(book.outs.iter().map(|out| out.slot));
        }
        book.fresh.clear();
        book.outs.clear();
        book.steps.clear();
        book.events.clear();
        grow(&mut book.free, book.retired.len(), &mut self.reservation)?;
        book.free.append(&mut book.retired);
        if self.copies.is_wasteful() {
            self.copies.compact(&mut self.groups, &mut self.scratch)?;
        }
        Ok(())
    }
}

/// Remembers that a group has to be looked at again.
fn touch(group: &mut Group, id: u32, batch: u64, touched: &mut Vec<u32>, reservation: &mut Reservation) -> Result<()> {
    if group.batch != batch {
        grow(touched, 1, reservation)?;
        touched.push(id);
        group.batch = batch;
    }
    Ok(())
}

impl Book {
    /// For so many rows that come or are given.
    fn room(&mut self, rows: usize, reservation: &mut Reservation) -> Result<()> {
        grow(&mut self.fresh, rows, reservation)?;
        grow(&mut self.outs, rows, reservation)
    }

    fn fresh_slot(&mut self) -> u32 {
        let slot = self.slot();
        self.fresh.push(slot);
        slot
    }

    fn slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// The next row of a group is given: its frame moves to it.
    fn give(&mut self, group: &mut Group, id: u32, what: &What, reservation: &mut Reservation) -> Result<()> {
        let mut slot = NO_SLOT;
        if what.steps || what.frames {
            // Numbers are far below 2^63, so only the script's can be too large.
            let number = i64::try_from(group.out).unwrap_or(i64::MAX);
            let rows = i64::try_from(group.rows).unwrap_or(i64::MAX);
            let to = number.saturating_add(what.frame.to).saturating_add(1).clamp(0, rows) as u64;
            let from = what.frame.from.map_or(0, |from| number.saturating_add(from).max(0)) as u64;
            while group.right < to {
                self.comes(group, id, what, reservation)?;
            }
            while group.left < from.min(group.right) {
                self.goes(group, what, reservation)?;
            }
        }
        if what.steps {
            slot = self.slot();
            grow(&mut self.steps, 2, reservation)?;
            let front = (group.left < group.turn).then(|| group.slot(group.left));
            match (front, group.back.checked_sub(1)) {
                (Some(front), None) => self.steps.push(Step::Copy(slot, front)),
                (None, Some(back)) => self.steps.push(Step::Copy(slot, back)),
                (Some(front), Some(back)) => self.steps.extend([Step::Copy(slot, front), Step::Join(slot, back)]),
                (None, None) => self.steps.push(Step::Clear(slot)),
            }
        }
        if what.events {
            grow(&mut self.events, 1, reservation)?;
            self.events.push(Event::Value(id));
        }
        grow(&mut self.outs, 1, reservation)?;
        self.outs.push(Out {
            group: id,
            number: group.out,
            left: group.left,
            right: group.right,
            slot,
        });
        group.out += 1;
        Ok(())
    }

    /// The next row comes into the frame.
    fn comes(&mut self, group: &mut Group, id: u32, what: &What, reservation: &mut Reservation) -> Result<()> {
        let Some(&row) = group.row(group.right) else {
            return Err(Error::Panic("a row of a frame was given up too early".into()));
        };
        group.right += 1;
        if what.events {
            grow(&mut self.events, 1, reservation)?;
            self.events.push(Event::Take(id, row.at));
        }
        if what.steps {
            grow(&mut self.steps, 1, reservation)?;
            match group.back.checked_sub(1) {
                Some(back) => self.steps.push(Step::Join(back, row.slot)),
                None => {
                    let back = self.slot();
                    group.back = back + 1;
                    self.steps.push(Step::Copy(back, row.slot));
                }
            }
        }
        Ok(())
    }

    /// The first row leaves the frame.
    fn goes(&mut self, group: &mut Group, what: &What, reservation: &mut Reservation) -> Result<()> {
        if what.steps && group.left >= group.turn {
            let rows = (group.right - group.left) as usize;
            grow(&mut self.steps, rows, reservation)?;
            for number in (group.left + 1..group.right).rev() {
                self.steps.push(Step::Join(group.slot(number - 1), group.slot(number)));
            }
            group.turn = group.right;
            if let Some(back) = group.back.checked_sub(1) {
                grow(&mut self.retired, 1, reservation)?;
                self.retired.push(back);
            }
            group.back = 0;
        }
        group.left += 1;
        Ok(())
    }
}

/// What an aggregate is given of a batch; nothing of it without an aggregate.
fn input_of<'a>(
    arg: Option<&AggregateArg>,
    batch: &Batch<'a>,
    order: RowOrder<'a>,
    arena: &'a Arena,
) -> Result<Input<'a>> {
    let columns = arg.map_or(&[][..], |arg| &arg.columns);
    Ok(Input {
        columns: arena.collect(columns.len(), |i| batch.column(columns[i]))?,
        rows: batch.rows(),
        take: match arg {
            Some(arg) => take_of(arg, batch, arena)?,
            None => None,
        },
        order,
    })
}

/// Gives a group one row, if it counts, and room for the group in any case.
fn take_one(
    states: &mut dyn States,
    group: u32,
    groups: usize,
    row: Option<&Input<'_>>,
    reservation: &mut Reservation,
) -> Result<()> {
    match row {
        Some(row) => {
            states.room(groups, row, reservation)?;
            states.update_sealed(&[group], row, reservation)
        }
        None => {
            let none = Input {
                columns: &[],
                rows: 0,
                take: None,
                order: RowOrder::default(),
            };
            states.room(groups, &none, reservation)?;
            states.update_sealed(&[], &none, reservation)
        }
    }
}

impl Combined {
    /// Remembers a group's value.
    fn ask(&mut self, group: u32, scratch: &mut Scratch, reservation: &mut Reservation) -> Result<()> {
        let (states, ty, failed, row) = (
            &self.states,
            self.arg.aggregate.ty(),
            &mut self.failed,
            self.values.len(),
        );
        let value = scratch.with(|arena| {
            let column = states.finish(&[group], arena, &mut |_, code, text| {
                failed.push((row, code, text.to_owned()));
                Ok(())
            })?;
            Ok(value_of_cell(&column.cell(0), ty))
        })?;
        grow(&mut self.values, 1, reservation)?;
        self.values.push(value);
        Ok(())
    }
}

/// Where the row is that stands so many rows behind another one.
fn at_distance(groups: &[Group], out: &Out, behind: i64) -> Pick {
    let group = &groups[out.group as usize];
    let number = out.number.checked_add_signed(behind);
    number
        .and_then(|number| group.row(number))
        .map_or(NOWHERE, |row| row.at)
}

/// Column `place` of the rows that `picks` names, null where there is none.
fn value_column<'a>(pieces: &'a [Kept], picks: &[Pick], place: usize, arena: &'a Arena) -> Result<Column<'a>> {
    let (used, local) = taking_part(picks, arena)?;
    let mut parts = Columns::new(arena, used.len())?;
    for &piece in used {
        parts.push(match pieces.get(piece as usize) {
            Some(piece) => piece.batch().column(place),
            None => Column::nulls(1),
        });
    }
    Column::interleave(parts.finish(), local, arena)
}

/// What is computed of the rows of frames anew.
struct Anew<'f> {
    groups: &'f [Group],
    copies: &'f Copies,
    kept: &'f [usize],
    mirrored: bool,
    scratch: &'f mut Scratch,
    reservation: &'f mut Reservation,
}

impl Anew<'_> {
    fn column<'a>(
        &mut self,
        combined: &mut Combined,
        outs: &[Out],
        fault: OnFault<'_>,
        arena: &'a Arena,
    ) -> Result<Column<'a>> {
        let mut arg = combined.arg.clone();
        for column in arg.columns.iter_mut().chain(&mut arg.filter) {
            *column = self.kept.iter().position(|k| k == column).unwrap_or(0);
        }
        let mut blocks = Columns::new(arena, outs.len().max(1))?;
        let picks = arena.fill(outs.len(), (0u32, 0u32))?;
        let (mut at, mut block) = (0, 0);
        while at < outs.len() {
            let (mut rows, mut to) = (0, at);
            while to < outs.len() && (to == at || rows < ROWS_ANEW) {
                rows += (outs[to].right - outs[to].left) as usize;
                to += 1;
            }
            combined.states.clear();
            self.update(combined, &arg, &outs[at..to], rows)
                .map_err(|e| held(STAGE, e))?;
            let groups = arena.collect(to - at, |i| i as u32)?;
            let column = combined
                .states
                .finish(groups, arena, &mut |row, code, text| fault(at + row, code, text))?;
            for (row, pick) in (0..).zip(&mut picks[at..to]) {
                *pick = (block, row);
            }
            blocks.push(column);
            block += 1;
            at = to;
        }
        match blocks.finish() {
            [one] => Ok(*one),
            blocks => Column::interleave(blocks, picks, arena),
        }
    }

    /// The states of some rows, of all rows of their frames.
    fn update(&mut self, combined: &mut Combined, arg: &AggregateArg, outs: &[Out], rows: usize) -> Result<()> {
        let (groups, copies, kept, mirrored) = (self.groups, self.copies, self.kept, self.mirrored);
        let (states, reservation) = (&mut combined.states, &mut *self.reservation);
        self.scratch.with(|arena| {
            let mut of = outs.iter().zip(0u32..).flat_map(|(out, number)| {
                let row = move |at: u64| (number, groups[out.group as usize].row(at), (at - out.left) as u32);
                (out.left..out.right).map(row)
            });
            let all = arena.collect(rows, |_| match of.next() {
                Some((number, Some(row), place)) => (number, row.at, place),
                _ => (0, NOWHERE, 0),
            })?;
            let picks = arena.collect(rows, |i| all[i].1)?;
            let ids = arena.collect(rows, |i| all[i].0)?;
            let places = arena.collect(rows, |i| if mirrored { u32::MAX - all[i].2 } else { all[i].2 })?;
            let order = RowOrder {
                chunk: 0,
                before: 0,
                rows: Some(places),
            };
            let batch = gather(copies.pieces(), picks, kept.len(), arena)?;
            let input = input_of(Some(arg), &batch, order, arena)?;
            let room = states.room(outs.len(), &input, reservation);
            room.map_err(|e| held(STAGE, e))?;
            states.update(ids, &input);
            states.seal(reservation).map_err(|e| held(STAGE, e))
        })
    }
}

fn no_memory(bytes: usize) -> Error {
    Error::Memory {
        wanted: bytes,
        used: 0,
        limit: usize::MAX,
    }
}
