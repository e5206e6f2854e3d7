//! Windows of rows that look at rows behind: whole groups, frames that end later, `lead`.
//!
//! How: all rows are sorted by group, with the number each has in the input. One pass goes over them, group after group, and what it
//! gives is sorted by that number. Both sorts spill. Aggregates over whole groups are the stage `aggregate`, fed with the same rows:
//! its groups come out in the same order, so that the pass meets each group's values with its first row. Frames that are open at
//! their end go over the rows of a group from the last one to the first.
//!
//! Laws
//! - A bad row travels with the reason in a column of its own, and is reported where its place in the order is known again.

mod pass;
mod totals;

use super::super::aggregate;
use super::super::codes::held;
use super::super::copies::Scratch;
use super::super::keys::{self, Key};
use super::super::sort;
use super::super::spill::{lane_floor, merge_floor};
use super::super::unnest::least_room;
use super::frames::Asked;
use super::{Plan, STAGE};
use pass::{Pass, Ways, Work};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Call, Factory, Least, Make, Room, Setup};
use standpipe_sdk::{
    Arena, Batch, Breaker, Budget, Code, Column, Columns, Data, Fault, Faults, Fill, Part, Reader, Source, Type,
};
use std::sync::Arc;
use totals::Totals;

/// What such a window cannot do without: where there are aggregates over whole groups, their groups (whether values of them may be `long` is
/// the question), and where it goes over the rows `twice`, a sort between the two.
pub(super) fn least(totals: Option<bool>, twice: bool) -> fn(&Room) -> Least {
    match (totals, twice) {
        (None, false) => |room| Floors::of(room, None).least(false),
        (None, true) => |room| Floors::of(room, None).least(true),
        (Some(false), _) => |room| Floors::of(room, Some(aggregate::least(room))).least(false),
        (Some(true), _) => |room| Floors::of(room, Some(aggregate::least_of_long(room))).least(false),
    }
}

/// What each of those that work at the same time has for itself.
#[derive(Clone, Copy)]
struct Floors {
    /// The sort by groups: its lanes.
    lanes: usize,
    totals: Least,
    /// The pass that goes over what that gives.
    pass: usize,
    /// Each arena of it, and of what reads totals; and how many there are.
    room: usize,
    rooms: usize,
    /// Any other sort, while it is filled.
    lane: usize,
    /// And while it gives its rows: then those before it are gone.
    merge: usize,
    /// The ways in.
    fill: usize,
}

impl Floors {
    fn of(room: &Room, totals: Option<Least>) -> Floors {
        let (lane, merge) = (lane_floor(room.bytes), merge_floor(room.bytes));
        Floors {
            lanes: room.workers * lane,
            totals: totals.unwrap_or_default(),
            pass: (room.bytes / PASS_PART).clamp(LEAST_FOR_PASS, MOST_FOR_PASS),
            room: least_room(room.share),
            rooms: if totals.is_some() { 3 } else { 2 },
            lane,
            merge,
            fill: room.workers * SCRATCH_BYTES,
        }
    }

    fn least(self, twice: bool) -> Least {
        let pass = self.pass + self.rooms * self.room;
        let sorts = if twice { 2 } else { 1 };
        Least {
            takes: self.lanes + self.totals.takes + self.fill,
            gives: self.lanes.max(self.merge) + self.gives_totals() + pass + sorts * self.lane,
        }
    }

    fn gives_totals(self) -> usize {
        self.totals.takes.max(self.totals.gives)
    }
}

/// Rows that are given their places at a time, for which there is room in that.
const FILL_ROWS: usize = 2 << 10;
const SCRATCH_BYTES: usize = 64 << 10;

/// The columns that say where a row stands in the input: its chunk, and the number in it.
const PLACE: usize = 2;
/// What the first sort may keep of the memory, as a part of it.
const ROWS_PART: usize = 4;
/// What the sorts may that are filled while it gives its rows.
const LAST_PART: usize = 8;
/// What the pass between them has for frames, which cannot spill: this part of the memory, within bounds, in bytes.
const PASS_PART: usize = 16;
const LEAST_FOR_PASS: usize = 640 << 10;
const MOST_FOR_PASS: usize = 4 << 20;

/// How such a window runs.
pub(super) fn make(plan: Plan, call: &Call<'_>) -> Make {
    let types = |at: &usize| call.input.get(*at).map(|field| &field.ty);
    let longest = keys::max_width(plan.by.iter().filter_map(types));
    let totals = (!plan.totals.is_empty()).then(|| {
        let fields = plan.by.iter().filter_map(|&at| call.input.get(at)).cloned().collect();
        let calls = plan.totals.iter().map(|(arg, span)| aggregate::Called {
            arg: arg.clone(),
            span: *span,
        });
        aggregate::breaker(STAGE, plan.by.clone(), fields, calls.collect())
    });
    let shared = Arc::new(Shared { plan, longest, totals });
    Make::Breaker(Box::new(move |setup: &Setup| {
        Ok(Arc::new(Ahead::new(&shared, setup)?) as Arc<dyn Breaker>)
    }))
}

struct Shared {
    plan: Plan,
    /// Bytes of the longest key of a group.
    longest: Option<usize>,
    totals: Option<Factory<Arc<dyn Breaker>>>,
}

impl Shared {
    /// Frames go from the last row to the first.
    fn mirrored(&self) -> bool {
        self.plan.to.is_none() && self.plan.asked.iter().any(|asked| matches!(asked, Asked::Aggregate(_)))
    }

    /// Numbers are given by a pass of their own: from the first row to the last.
    fn numbers_first(&self) -> bool {
        self.mirrored() && !self.plan.numbers.is_empty()
    }

    /// A sort by group, then by the order of the input or against it; `width` columns are passed on.
    fn by_group(&self, width: usize, mirrored: bool, part: usize, setup: &Setup) -> Result<Arc<dyn Breaker>> {
        let mut keys: Vec<Key> = self.plan.by.iter().map(|&at| Key::ascending(at)).collect();
        if mirrored {
            keys.extend((0..PLACE).map(|at| Key {
                descending: true,
                ..Key::ascending(self.plan.width + at)
            }));
        }
        let most = setup.budget.limit() / part;
        let places = if mirrored { place_width() } else { Some(0) };
        let longest = self.longest.zip(places).map(|(group, place)| group + place);
        sort::breaker_of(STAGE, keys, longest, width, most)(setup)
    }

    /// A sort by the order of the input.
    fn by_order(&self, setup: &Setup) -> Result<Arc<dyn Breaker>> {
        let width = self.plan.own + self.plan.calls.len() + 2;
        sort::breaker_of(
            STAGE,
            (0..PLACE).map(|at| Key::ascending(width + at)).collect(),
            place_width(),
            width,
            setup.budget.limit() / LAST_PART,
        )(setup)
    }
}

/// Bytes of the columns that say where a row stands, as a key.
fn place_width() -> Option<usize> {
    keys::max_width([&Type::Int; PLACE])
}

struct Ahead {
    shared: Arc<Shared>,
    setup: Setup,
    floors: Floors,
    rows: Sorting,
    totals: Option<Sorting>,
    /// The ways in's.
    fill: Setup,
}

/// A breaker, and its part of the memory.
struct Sorting {
    breaker: Arc<dyn Breaker>,
    budget: Arc<Budget>,
}

impl Sorting {
    fn new(make: impl FnOnce(&Setup) -> Result<Arc<dyn Breaker>>, floor: usize, setup: &Setup) -> Result<Sorting> {
        let setup = with_floor(setup, floor)?;
        Ok(Sorting {
            breaker: make(&setup)?,
            budget: setup.budget,
        })
    }

    fn drain(&self) -> Result<Arc<dyn Source>> {
        self.breaker.clone().drain()
    }

    /// The same, for which it has `floor` bytes from now on.
    fn drain_with(&self, floor: usize) -> Result<Arc<dyn Source>> {
        self.budget.set_floor(floor).map_err(|e| held(STAGE, e))?;
        self.drain()
    }

    /// Its rows are gone.
    fn end(&self) -> Result<()> {
        self.budget.set_floor(0)
    }
}

fn with_floor(setup: &Setup, floor: usize) -> Result<Setup> {
    setup.with_floor(floor).map_err(|e| held(STAGE, e))
}

impl Ahead {
    fn new(shared: &Arc<Shared>, setup: &Setup) -> Result<Ahead> {
        let room = Room {
            bytes: setup.budget.limit(),
            share: setup.share,
            workers: setup.workers.max(1),
            max_record: setup.max_record,
            columns: 0,
        };
        let totals = shared.totals.as_ref().map(|_| match shared.plan.makes_long() {
            true => aggregate::least_of_long(&room),
            false => aggregate::least(&room),
        });
        let floors = Floors::of(&room, totals);
        let mirrored = shared.mirrored() && !shared.numbers_first();
        let part = ROWS_PART * room.workers;
        let by_group = |setup: &Setup| shared.by_group(shared.plan.width + PLACE, mirrored, part, setup);
        Ok(Ahead {
            rows: Sorting::new(by_group, floors.lanes, setup)?,
            totals: match &shared.totals {
                Some(make) => Some(Sorting::new(make, floors.totals.takes, setup)?),
                None => None,
            },
            fill: with_floor(setup, floors.fill)?,
            floors,
            shared: shared.clone(),
            setup: setup.clone(),
        })
    }
}

impl Breaker for Ahead {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        Ok(Box::new(Filler {
            rows: self.rows.breaker.clone().filler()?,
            totals: match &self.totals {
                Some(totals) => Some(totals.breaker.clone().filler()?),
                None => None,
            },
            scratch: Scratch::new(&self.fill.budget),
            chunk: u64::MAX,
            before: 0,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let (shared, setup, floors) = (&self.shared, &self.setup, self.floors);
        // What is new comes first: what holds rows may have all the rest, and can do with less.
        let mut raised = self.fill.budget.set_floor(0);
        raised = raised.and_then(|()| self.rows.budget.set_floor(floors.lanes.max(floors.merge)));
        if let Some(totals) = &self.totals {
            raised = raised.and_then(|()| totals.budget.set_floor(floors.gives_totals()));
        }
        raised.map_err(|e| held(STAGE, e))?;
        let pass = &with_floor(setup, floors.pass)?;
        let rooms = (0..floors.rooms).map(|_| Ok(with_floor(setup, floors.room)?.budget));
        let rooms: &Vec<Arc<Budget>> = &rooms.collect::<Result<_>>()?;
        let sort_last = Sorting::new(|setup| shared.by_order(setup), floors.lane, setup)?;
        let mut last = sort_last.breaker.clone().filler()?;
        let plan = &shared.plan;
        let mut between = None;
        if shared.numbers_first() {
            let width = plan.width + PLACE + plan.numbers.len();
            let by_group = |setup: &Setup| shared.by_group(width, true, LAST_PART, setup);
            between = Some(Sorting::new(by_group, floors.lane, setup)?);
        }
        // The merge takes what is free: so what comes after it has its own by now.
        let mut source = self.rows.drain()?;
        let (mut batches, mut any_bad) = (0, false);
        if let Some(next) = &between {
            let mut into = next.breaker.clone().filler()?;
            let mut ways = Ways {
                last: &mut last,
                next: Some(&mut into),
                batches: &mut batches,
                any_bad: &mut any_bad,
            };
            Pass::new(shared, pass, rooms, Work::Numbers, None)?.run(&source, &mut ways)?;
            into.done()?;
            drop((source, into));
            self.rows.end()?;
            source = next.drain_with(floors.merge)?;
        }
        let totals = match &self.totals {
            Some(totals) => Some(Totals::new(
                totals.drain()?,
                plan.by.len(),
                plan.totals.len(),
                &rooms[2],
                pass,
            )?),
            None => None,
        };
        let work = match shared.mirrored() {
            true => Work::Mirrored {
                numbered: shared.numbers_first(),
            },
            false => Work::All,
        };
        let mut ways = Ways {
            last: &mut last,
            next: None,
            batches: &mut batches,
            any_bad: &mut any_bad,
        };
        Pass::new(shared, pass, rooms, work, totals)?.run(&source, &mut ways)?;
        // The rows by group are gone before the last sort takes what it needs.
        drop((source, between));
        self.rows.end()?;
        if let Some(totals) = &self.totals {
            totals.end()?;
        }
        last.done()?;
        drop(last);
        Ok(Arc::new(Reported {
            inner: sort_last.drain_with(floors.merge)?,
            shared: shared.clone(),
            any_bad,
        }))
    }
}

/// A lane's way in: rows get their number in the input.
struct Filler {
    rows: Box<dyn Fill>,
    totals: Option<Box<dyn Fill>>,
    scratch: Scratch,
    chunk: u64,
    before: u64,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        if chunk != self.chunk {
            (self.chunk, self.before) = (chunk, 0);
        }
        if let Some(totals) = &mut self.totals {
            totals.push(chunk, batch)?;
        }
        let mut from = 0;
        while from < batch.rows() {
            let len = FILL_ROWS.min(batch.rows() - from);
            let before = self.before as i64;
            let rows = &mut self.rows;
            // The sort's refusals are final, so they are not this memory's.
            let pushed = self.scratch.with(|arena| {
                let chunks = arena.fill(len, chunk as i64)?;
                let numbers = arena.collect(len, |row| before + row as i64)?;
                let mut columns = Columns::new(arena, batch.columns().len() + PLACE)?;
                for &column in batch.columns() {
                    columns.push(column.slice(from, len));
                }
                columns.push(Column::int(chunks, None));
                columns.push(Column::int(numbers, None));
                rows.push(chunk, Batch::new(columns.finish(), None, len))
            });
            pushed.map_err(|e| held(STAGE, e))?;
            self.before += len as u64;
            from += len;
        }
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        if let Some(totals) = &mut self.totals {
            totals.done()?;
        }
        self.rows.done()
    }
}

/// What the last sort gives, bad rows reported.
struct Reported {
    inner: Arc<dyn Source>,
    shared: Arc<Shared>,
    any_bad: bool,
}

impl Source for Reported {
    fn ticket(&self) -> Option<u64> {
        self.inner.ticket()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(ReportedReader {
            inner: self.inner.clone().reader()?,
            shared: self.shared.clone(),
            any_bad: self.any_bad,
        }))
    }

    fn cancel(&self) {
        self.inner.cancel();
    }
}

struct ReportedReader {
    inner: Box<dyn Reader>,
    shared: Arc<Shared>,
    any_bad: bool,
}

/// If any row is bad, so many come at a time at most, and as many as have room for their faults in this part of a chunk's memory.
const FAULTY_ROWS: usize = 4 << 10;
const FAULTS_PART: usize = 4;

impl Reader for ReportedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.inner.claim(ticket)
    }

    fn let_go(&mut self) {
        self.inner.let_go();
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let plan = &self.shared.plan;
        let width = plan.own + plan.calls.len();
        // Rows that are read do not come again: what is said of them has its room before.
        let (max_rows, faults) = match self.any_bad {
            true => {
                let rows = arena.limit() / FAULTS_PART / Faults::BYTES;
                let rows = max_rows.min(rows.clamp(1, FAULTY_ROWS));
                (rows, Faults::with_room(arena, rows, stop_at_first)?)
            }
            false => (max_rows, Faults::new(arena, stop_at_first)),
        };
        let part = self.inner.decode(arena, max_rows, stop_at_first)?;
        let all = part.batch.columns();
        if let (Data::String(texts), Data::Int(which)) = (all[width].data(), all[width + 1].data()) {
            for row in (0..part.batch.rows()).filter(|&row| all[width].is_valid(row)) {
                let (call, code) = (which[row] >> 32, which[row] as u32);
                let span = usize::try_from(call).ok().and_then(|call| plan.calls.get(call));
                let message = std::str::from_utf8(texts.bytes(row));
                // Whatever the verdict: who admits the rows ends at the first bad one.
                faults.push(Fault {
                    row: row as u32,
                    code: Code(u16::try_from(code).unwrap_or_default()),
                    span: span.map(|call| call.span),
                    column: None,
                    message: message.map_err(|_| Error::Panic("a reason is no text".into()))?,
                    help: None,
                    byte: None,
                    record: false,
                })?;
            }
        }
        Ok(Part {
            batch: part.batch.with_columns(&all[..width]),
            faults,
            ..part
        })
    }
}
