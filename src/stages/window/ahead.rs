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
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Call, Factory, Least, Make, Room, Setup};
use standpipe_sdk::{Arena, Batch, Breaker, Code, Column, Columns, Data, Fill, Part, Reader, Source, Type};
use std::sync::{Arc, Mutex, PoisonError};
use totals::Totals;

/// What such a window cannot do without: two sorts one after the other, of which the second is filled while the first gives its rows; a
/// third one between them where it goes over the rows `twice`; the groups of aggregates over whole ones.
pub(super) fn least(totals: bool, twice: bool) -> fn(&Room) -> Least {
    match (totals, twice) {
        (false, false) => |room| sorts(room, 1),
        (false, true) => |room| sorts(room, 2),
        (true, _) => |room| {
            let (sorts, groups) = (sorts(room, 1), aggregate::least(room));
            Least {
                takes: sorts.takes + groups.takes,
                gives: sorts.gives + groups.gives + least_room(room.share),
            }
        },
    }
}

fn sorts(room: &Room, before_last: usize) -> Least {
    let (lane, merge) = (lane_floor(room.bytes), merge_floor(room.bytes));
    Least {
        takes: (room.workers + 1) * lane + (room.bytes / PASS_PART).min(MOST_FOR_PASS),
        gives: before_last * (lane + merge) + 2 * least_room(room.share),
    }
}

/// The columns that say where a row stands in the input: its chunk, and the number in it.
const PLACE: usize = 2;
/// What the first sort may keep of the memory, as a part of it.
const ROWS_PART: usize = 4;
/// What the sorts may that are filled while it gives its rows.
const LAST_PART: usize = 8;
/// What stays free for the pass between them: groups of aggregates over whole ones would take it, and the pass cannot spill.
const PASS_PART: usize = 16;
/// And at most that much.
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
        let key = |column, descending| Key {
            column,
            descending,
            nulls_first: false,
        };
        let mut keys: Vec<Key> = self.plan.by.iter().map(|&at| key(at, false)).collect();
        if mirrored {
            keys.extend((0..PLACE).map(|at| key(self.plan.width + at, true)));
        }
        let most = setup.budget.limit() / part;
        let places = if mirrored { place_width() } else { Some(0) };
        let longest = self.longest.zip(places).map(|(group, place)| group + place);
        sort::breaker_of(STAGE, keys, longest, width, most)(setup)
    }

    /// A sort by the order of the input.
    fn by_order(&self, setup: &Setup) -> Result<Arc<dyn Breaker>> {
        let width = self.plan.own + self.plan.calls.len() + 2;
        let key = |at| Key {
            column: width + at,
            descending: false,
            nulls_first: false,
        };
        sort::breaker_of(
            STAGE,
            (0..PLACE).map(key).collect(),
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
    rows: Arc<dyn Breaker>,
    totals: Option<Arc<dyn Breaker>>,
    last: Arc<dyn Breaker>,
    /// Its only way in: from the start, so that it has its memory.
    into_last: Mutex<Option<Box<dyn Fill>>>,
    /// Until the pass begins.
    for_pass: Mutex<Reservation>,
}

impl Ahead {
    fn new(shared: &Arc<Shared>, setup: &Setup) -> Result<Ahead> {
        let last = shared.by_order(setup)?;
        let mirrored = shared.mirrored() && !shared.numbers_first();
        let mut for_pass = setup.budget.reserve();
        let taken = for_pass.grow((setup.budget.limit() / PASS_PART).min(MOST_FOR_PASS));
        taken.map_err(|e| held(STAGE, e))?;
        let part = ROWS_PART * setup.workers.max(1);
        Ok(Ahead {
            rows: shared.by_group(shared.plan.width + PLACE, mirrored, part, setup)?,
            totals: match &shared.totals {
                Some(make) => Some(make(setup)?),
                None => None,
            },
            for_pass: Mutex::new(for_pass),
            into_last: Mutex::new(Some(last.clone().filler()?)),
            last,
            shared: shared.clone(),
            setup: setup.clone(),
        })
    }
}

impl Breaker for Ahead {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        Ok(Box::new(Filler {
            rows: self.rows.clone().filler()?,
            totals: match &self.totals {
                Some(totals) => Some(totals.clone().filler()?),
                None => None,
            },
            scratch: Scratch::new(&self.setup.budget),
            chunk: u64::MAX,
            before: 0,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let taken = self.into_last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut last = match taken {
            Some(filler) => filler,
            None => return Err(Error::Panic("a window is drained twice".into())),
        };
        let (shared, setup) = (&self.shared, &self.setup);
        *self.for_pass.lock().unwrap_or_else(PoisonError::into_inner) = setup.budget.reserve();
        let plan = &shared.plan;
        let mut source = self.rows.clone().drain()?;
        let mut batches = 0;
        if shared.numbers_first() {
            let next = shared.by_group(plan.width + PLACE + plan.numbers.len(), true, LAST_PART, setup)?;
            let mut into = next.clone().filler()?;
            let mut ways = Ways {
                last: &mut last,
                next: Some(&mut into),
                batches: &mut batches,
            };
            Pass::new(shared, setup, Work::Numbers, None)?.run(&source, &mut ways)?;
            into.done()?;
            source = next.drain()?;
        }
        let totals = match &self.totals {
            Some(totals) => Some(Totals::new(
                totals.clone().drain()?,
                plan.by.len(),
                plan.totals.len(),
                setup,
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
        };
        Pass::new(shared, setup, work, totals)?.run(&source, &mut ways)?;
        // The rows by group are gone before the last sort takes what it needs.
        drop(source);
        last.done()?;
        drop(last);
        Ok(Arc::new(Reported {
            inner: self.last.clone().drain()?,
            shared: shared.clone(),
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
        let before = self.before as i64;
        let rows = &mut self.rows;
        // The sort's refusals are final, so they are not this memory's.
        let pushed = self.scratch.with(|arena| {
            let chunks = arena.fill(batch.rows(), chunk as i64)?;
            let numbers = arena.collect(batch.rows(), |row| before + row as i64)?;
            let mut columns = Columns::new(arena, batch.columns().len() + PLACE)?;
            for &column in batch.columns() {
                columns.push(column);
            }
            columns.push(Column::int(chunks, None));
            columns.push(Column::int(numbers, None));
            rows.push(chunk, Batch::new(columns.finish(), None, batch.rows()))
        });
        pushed.map_err(|e| held(STAGE, e))?;
        self.before += batch.rows() as u64;
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
}

impl Source for Reported {
    fn ticket(&self) -> Option<u64> {
        self.inner.ticket()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(ReportedReader {
            inner: self.inner.clone().reader()?,
            shared: self.shared.clone(),
        }))
    }

    fn cancel(&self) {
        self.inner.cancel();
    }
}

struct ReportedReader {
    inner: Box<dyn Reader>,
    shared: Arc<Shared>,
}

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
        let part = self.inner.decode(arena, max_rows, stop_at_first)?;
        let all = part.batch.columns();
        if let (Data::String(texts), Data::Int(which)) = (all[width].data(), all[width + 1].data()) {
            for row in (0..part.batch.rows()).filter(|&row| all[width].is_valid(row)) {
                let (call, code) = (which[row] >> 32, which[row] as u32);
                let span = usize::try_from(call).ok().and_then(|call| plan.calls.get(call));
                let text = String::from_utf8_lossy(texts.bytes(row));
                let code = Code(u16::try_from(code).unwrap_or_default());
                // Whatever the verdict: who admits the rows ends at the first bad one.
                part.faults
                    .report(row, code, span.map(|call| call.span), format_args!("{text}"))?;
            }
        }
        Ok(Part {
            batch: part.batch.with_columns(&all[..width]),
            ..part
        })
    }
}
