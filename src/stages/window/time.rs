//! Windows in time: `tumble 5m`, `hop 5m, 1m`, `session 30m`.
//!
//! A window takes the rows from its start up to, not including, its end. Tumbling and hopping windows start at whole multiples of their
//! step since 1970; a session goes from its first row to `gap` behind its last one, and rows less than that apart are in one.
//! The watermark is the latest time so far. A row further before it than `late:` is late, which is a row error. A window whose end no
//! row can be before any more is closed: its memory is what is wanted of it, until it goes out.
//!
//! Laws
//! - Windows go out by end, then by key. When they are closed does not matter to that: whatever comes later ends later.
//! - Whether a row is late hangs on the rows before it alone.
//! - What the arena of a batch refuses is refused before the state changes.
//! - All windows that a row closes go out at that row, in as many batches as they need: where a chunk ends changes nothing.

use super::super::aggregate::{Keyed, shown_key, take_of};
use super::super::codes::{self, LATE, held};
use super::super::copies::Scratch;
use super::super::from::numbered;
use super::super::groups::grow;
use super::super::keys;
use super::super::rowkeys::{KeyMaker, RowKeys};
use super::super::unnest::{least_room, scratch_room};
use super::STAGE;
use crate::expr::scalar::civil;
use crate::expr::{Literal, TIME_RANGE};
use hashbrown::HashTable;
use standpipe_sdk::aggregate::{Input, OfRun, RowOrder, States};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    AggregateArg, Arg, Bound, Call, Complaint, Least, Lineage, Make, Room, Setup, WINDOW_END, WINDOW_START,
};
use standpipe_sdk::{
    Arena, Batch, Budget, Code, Column, Columns, Data, Emitter, Fault, Faults, Field, Flow, Place, Prepare,
    Reservation, Rest, Serial, Span, Type, Value, Verdict,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Which windows there are, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// Of that length, one each step.
    Steps {
        length: i64,
        step: i64,
    },
    Session {
        gap: i64,
    },
}

struct Plan {
    shape: Shape,
    late: i64,
    time: usize,
    keys: Vec<Field>,
    calls: Vec<(AggregateArg, Span)>,
    width: usize,
}

/// Such a stage, bound.
pub(super) fn bind(call: &Call<'_>, mode: &str) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let wrong = |span, message: String, label: &str| Complaint::new(codes::WRONG_ARGUMENT, span, message, label);
    let durations: Vec<(i64, Span)> = durations(call).collect();
    for &(_, span) in durations.iter().filter(|(micros, _)| *micros <= 0) {
        complaints.push(wrong(span, "a window has a length above zero".into(), "not above zero"));
    }
    let shape = match (mode, durations.as_slice()) {
        ("tumble", &[(length, _)]) => Some(Shape::Steps { length, step: length }),
        ("hop", &[(length, _), (step, span)]) => {
            if step > length {
                complaints.push(
                    wrong(
                        span,
                        "windows that hop further than they are long leave rows out".into(),
                        "longer than the window",
                    )
                    .help("`hop 5m, 1m`: windows of five minutes, one each minute"),
                );
            }
            Some(Shape::Steps { length, step })
        }
        ("session", &[(gap, _)]) => Some(Shape::Session { gap }),
        (_, all) => {
            let (needs, example) = match mode {
                "hop" => ("a length and a step", "`window hop 5m, 1m, n = count() on at`"),
                "session" => (
                    "the time without rows that ends it",
                    "`window session 30m, n = count() on at`",
                ),
                _ => ("a length", "`window tumble 5m, n = count() on at`"),
            };
            let span = all.last().map_or(call.span, |&(_, span)| span);
            complaints.push(wrong(span, format!("`window {mode}` needs {needs}"), "here").help(example));
            None
        }
    };
    if let Some(rows) = call.option("rows") {
        complaints.push(
            wrong(
                rows.span,
                format!("`window {mode}` takes no `rows:`"),
                "its frame is a time",
            )
            .help("a `window` without a mode word looks at rows"),
        );
    }
    let late = match call.option("late").map(|late| (&late.arg, late.span)) {
        Some((Arg::Const(Value::Duration(micros)), span)) => {
            if *micros < 0 {
                complaints.push(wrong(span, "`late:` is no negative duration".into(), "negative"));
            }
            *micros
        }
        _ => 0,
    };
    let time = match call.on.first() {
        None => {
            complaints.push(
                Complaint::new(
                    codes::NEEDS_ON,
                    call.span,
                    format!("`window {mode}` needs `on …`: the time of a row"),
                    "the argument is missing",
                )
                .help(format!("`window {mode} 5m, n = count() on at`")),
            );
            None
        }
        Some(item) => call.column_of(item).map(|(at, field)| {
            if field.ty != Type::Timestamp && field.ty != Type::Null {
                complaints.push(
                    Complaint::new(
                        codes::OTHER_TYPE,
                        item.span,
                        "the time of a row is a timestamp",
                        format!("this is {}", field.ty),
                    )
                    .help("a cast makes one: `on timestamp(day)`"),
                );
            }
            at
        }),
    };
    let by = keys::grouping(call, call.by).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    });
    let calls: Vec<(AggregateArg, Span)> = call
        .items
        .iter()
        .filter_map(|item| match &item.arg {
            Arg::Aggregate(arg) => Some((arg.clone(), item.span)),
            _ => None,
        })
        .collect();
    let (Some(shape), Some(time), true) = (shape, time, complaints.is_empty()) else {
        return Err(complaints);
    };
    let key_fields: Vec<Field> = by
        .iter()
        .zip(call.by)
        .filter_map(|(&at, item)| {
            let field = call.input.get(at)?;
            let name = item.name.clone().unwrap_or_else(|| field.name.clone());
            Some(Field::new(name, field.ty.clone(), field.nullable))
        })
        .collect();
    let bounds = [WINDOW_START, WINDOW_END].map(|name| Field::new(name, Type::Timestamp, false));
    let values = call.items.iter().filter_map(|item| match &item.arg {
        Arg::Aggregate(arg) => {
            let name: Arc<str> = item.name.clone().unwrap_or_else(|| arg.aggregate.name().into());
            Some(Field::new(name, arg.aggregate.ty().clone(), arg.nullable))
        }
        _ => None,
    });
    let schema: standpipe_sdk::Schema = key_fields.iter().cloned().chain(bounds).chain(values).collect();
    let mut reads: Vec<usize> = by.iter().copied().chain([time]).collect();
    for (arg, _) in &calls {
        reads.extend(arg.columns.iter().copied().chain(arg.filter));
    }
    reads.sort_unstable();
    reads.dedup();
    // Bytes that order like the keys, also of a single text.
    let maker = KeyMaker::new(&by, |_| None);
    let lineage = vec![Lineage::New; schema.width()];
    let mut sorted_by = vec![(by.len() + 1, false)];
    sorted_by.extend((0..by.len()).map(|key| (key, false)));
    let plan = Arc::new(Plan {
        shape,
        late,
        time,
        keys: key_fields,
        calls,
        width: schema.width(),
    });
    Ok(Bound {
        schema,
        lineage,
        reads,
        sorted_by,
        make: Make::Serial(Box::new(move |setup: &Setup| -> Result<Box<dyn Serial>> {
            Ok(Box::new(Time::new(&plan, &maker, setup)?))
        })),
        needs_places: true,
    })
}

/// Stands for no window.
const NONE: u32 = u32::MAX;
/// States of windows that are gone, before the others move together.
const SOME: usize = 1 << 10;

/// The same in a budget of so many bytes.
fn some_windows(budget_bytes: usize) -> usize {
    const PART: usize = 16 << 10;
    const FEWEST: usize = 64;
    (budget_bytes / PART).clamp(FEWEST, SOME)
}

/// Of a batch at most so many rows are taken at a time, in a budget of so many bytes.
fn most_rows(budget_bytes: usize) -> usize {
    const PART: usize = 8 << 10;
    const LEAST: usize = 256;
    (budget_bytes / PART).max(LEAST)
}

/// A batch goes to at most so many windows, a window counted once for each row: a row that goes to more comes alone.
fn most_pairs(budget_bytes: usize) -> usize {
    const PART: usize = 2 << 10;
    const LEAST: usize = 256;
    (budget_bytes / PART).max(LEAST)
}

/// The windows of such a row that are looked at together.
const SOME_PAIRS: usize = 1 << 10;

/// The most windows that go out together.
const OUT: usize = 4 << 10;

/// A window; its number is that of its states.
struct Window {
    key: Box<[u8]>,
    start: i64,
    end: i64,
    hash: u64,
    /// Sessions of the same key that are open, by their start.
    older: u32,
    newer: u32,
    /// The window that took its rows over.
    into: u32,
    /// It went out, or another one took its rows over.
    gone: bool,
    /// Where the row stands that closed it, and its number in its batch.
    place: Place,
    row: u32,
}

struct Time {
    plan: Arc<Plan>,
    maker: KeyMaker,
    share: usize,
    /// Bytes of a value, at most.
    of_run: OfRun,
    /// The latest time so far.
    latest: Option<i64>,
    windows: Vec<Window>,
    /// Windows that take rows, by key, and by start too where they do not move; of sessions of one key, the last that began.
    open: HashTable<(u64, u32)>,
    /// Their ends, or what these were.
    ends: BinaryHeap<Reverse<(i64, u32)>>,
    /// Windows on their way out.
    closed: VecDeque<u32>,
    /// Windows that are gone: their states are not.
    gone: usize,
    states: Vec<Box<dyn States>>,
    batches: u64,
    /// Whether no further row comes.
    ended: bool,
    /// Windows that went out since then.
    numbered: u64,
    /// Whether the policy ends the run at the first bad window.
    stops: bool,
    scratch: Scratch,
    budget: Arc<Budget>,
    /// For windows that go out for themselves.
    out: Arc<Budget>,
    out_arena: Option<(Arena, Reservation)>,
    reservation: Reservation,
}

/// Rows of a batch and the windows they go to.
struct Going<'a> {
    /// Row and start of the window, for each.
    pairs: &'a [(u32, i64)],
    slots: &'a mut [u32],
    inputs: &'a [Input<'a>],
    keys: RowKeys<'a>,
    times: &'a [i64],
}

impl Time {
    fn new(plan: &Arc<Plan>, maker: &KeyMaker, setup: &Setup) -> Result<Time> {
        let out = setup.budget.part(least_room(setup.share)).map_err(|e| held(STAGE, e))?;
        let of_run = OfRun::new(setup);
        Ok(Time {
            out,
            states: (plan.calls.iter().map(|(arg, _)| arg.aggregate.states(&of_run))).collect(),
            of_run,
            plan: plan.clone(),
            maker: maker.clone(),
            share: setup.share,
            latest: None,
            windows: vec![],
            open: HashTable::new(),
            ends: BinaryHeap::new(),
            closed: VecDeque::new(),
            gone: 0,
            batches: 0,
            ended: false,
            numbered: 0,
            stops: false,
            out_arena: None,
            scratch: Scratch::new(&setup.budget),
            budget: setup.budget.clone(),
            reservation: setup.budget.reserve(),
        })
    }

    /// Rows that come in time, with the watermark behind each row of the batch.
    fn in_time<'a>(
        &self,
        batch: &Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(&'a [u32], &'a [i64], &'a [i64])> {
        let column = batch.column(self.plan.time);
        let times = match column.data() {
            Data::Timestamp(times) => times,
            _ => arena.fill(batch.rows(), 0)?,
        };
        let is_null = |row: usize| !matches!(column.data(), Data::Timestamp(_)) || !column.is_valid(row);
        let latest = arena.fill(batch.rows(), i64::MIN)?;
        let good = arena.fill(batch.rows(), 0u32)?;
        let (mut count, mut now) = (0, self.latest.unwrap_or(i64::MIN));
        let sure = self.sure_times();
        for row in 0..batch.rows() {
            let time = times[row];
            let verdict = if is_null(row) {
                faults.report(row, LATE, None, format_args!("the row has no time: it is null"))?
            } else if time < now.saturating_sub(self.plan.late) {
                let behind = Value::Duration(now.saturating_sub(time));
                let late = Value::Duration(self.plan.late);
                faults.report(
                    row,
                    LATE,
                    None,
                    format_args!(
                        "the row is {} before the latest one, and `late:` allows {}",
                        Literal(&behind),
                        Literal(&late)
                    ),
                )?
            } else if !sure.contains(&time) && !self.has_bounds(time) {
                faults.report(
                    row,
                    TIME_RANGE,
                    None,
                    format_args!("a window of the row is not in the years -9999 to 9999"),
                )?
            } else {
                now = now.max(time);
                good[count] = row as u32;
                count += 1;
                Verdict::On
            };
            if verdict == Verdict::Stop {
                latest[row..].fill(now);
                break;
            }
            latest[row] = now;
        }
        Ok((&good[..count], latest, times))
    }

    /// Times of rows all of whose windows have bounds that are timestamps, if perhaps not all of these times.
    fn sure_times(&self) -> RangeInclusive<i64> {
        let around = match self.plan.shape {
            Shape::Session { gap } => gap,
            Shape::Steps { length, step } => length.saturating_add(step),
        };
        civil::MICROS.0.saturating_add(around)..=civil::MICROS.1.saturating_sub(around)
    }

    /// Whether all windows of a row have bounds that are timestamps.
    fn has_bounds(&self, time: i64) -> bool {
        let (first, end) = match self.plan.shape {
            Shape::Session { gap } => (Some(time), time.checked_add(gap)),
            Shape::Steps { length, step } => {
                let (last, windows) = self.of_row(time);
                let last_start = last.checked_mul(step);
                (
                    (last - windows as i64 + 1).checked_mul(step),
                    last_start.and_then(|start| start.checked_add(length)),
                )
            }
        };
        [first, end].iter().all(|bound| bound.is_some_and(civil::in_range))
    }

    /// The windows of a row: the start of the last one, and how many there are, the others a step apart before it.
    fn of_row(&self, time: i64) -> (i64, usize) {
        match self.plan.shape {
            Shape::Session { .. } => (time, 1),
            Shape::Steps { length, step } => {
                let last = time.div_euclid(step);
                // The first one that still has the row: the least start above `time - length`.
                let first = time.saturating_sub(length).div_euclid(step) + 1;
                (last, (last - first + 1).max(0) as usize)
            }
        }
    }

    /// Row and start of window number `at` of a row.
    fn pair(&self, row: u32, time: i64, at: usize) -> (u32, i64) {
        let (last, windows) = self.of_row(time);
        match self.plan.shape {
            Shape::Session { .. } => (row, last),
            Shape::Steps { step, .. } => (row, (last - (windows - 1 - at) as i64).saturating_mul(step)),
        }
    }

    /// Rows go to their windows. Refused by the arena, nothing has happened.
    fn go<'a>(&mut self, batch: &Batch<'a>, good: &[u32], times: &'a [i64], arena: &'a Arena) -> Result<()> {
        let windows = |row: &u32| self.of_row(times[*row as usize]).1;
        let total = good.iter().map(windows).fold(0, usize::saturating_add);
        let most = most_pairs(self.budget.limit());
        match good {
            &[row] if total > SOME_PAIRS => {
                let time = times[row as usize];
                let mut scratch = std::mem::replace(&mut self.scratch, Scratch::new(&self.budget));
                let mut outcome = Ok(());
                for from in (0..total).step_by(SOME_PAIRS) {
                    outcome = outcome.and_then(|()| {
                        scratch.with(|arena| {
                            let len = SOME_PAIRS.min(total - from);
                            let pairs = arena.collect(len, |i| self.pair(row, time, from + i))?;
                            let mut going = self.going(batch, pairs, times, arena)?;
                            self.take(&mut going).map_err(|e| held(STAGE, e))
                        })
                    });
                }
                self.scratch = scratch;
                outcome.map_err(|e| held(STAGE, e))?;
            }
            _ if total > most && batch.rows() > 1 => {
                // It comes again, in halves.
                return Err(Error::Memory {
                    wanted: total,
                    used: 0,
                    limit: most,
                });
            }
            _ => {
                let pairs = arena.fill(total, (0u32, 0i64))?;
                let mut slots = pairs.iter_mut();
                for &row in good {
                    let time = times[row as usize];
                    for (at, slot) in slots.by_ref().take(self.of_row(time).1).enumerate() {
                        *slot = self.pair(row, time, at);
                    }
                }
                let mut going = self.going(batch, pairs, times, arena)?;
                self.take(&mut going).map_err(|e| held(STAGE, e))?;
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// All that `take` looks at of a batch.
    fn going<'a>(
        &self,
        batch: &Batch<'a>,
        pairs: &'a [(u32, i64)],
        times: &'a [i64],
        arena: &'a Arena,
    ) -> Result<Going<'a>> {
        let total = pairs.len();
        let rows = arena.collect(total, |i| pairs[i].0)?;
        let whole = total == batch.rows() && (0..).zip(&*rows).all(|(at, &row)| row == at);
        let order = RowOrder {
            chunk: self.batches,
            before: 0,
            rows: (!whole).then_some(&*rows),
        };
        let empty = Input {
            columns: &[],
            rows: total,
            take: None,
            order,
        };
        let inputs = arena.fill(self.plan.calls.len(), empty)?;
        for (input, (arg, _)) in inputs.iter_mut().zip(&self.plan.calls) {
            let mut arg = arg.clone();
            let mut columns = Columns::new(arena, arg.columns.len() + 1)?;
            for (place, column) in arg.columns.iter_mut().chain(&mut arg.filter).enumerate() {
                let given = batch.column(*column);
                columns.push(if whole { given } else { given.gather(rows, arena)? });
                *column = place;
            }
            let given = Batch::new(columns.finish(), None, total);
            input.take = take_of(&arg, &given, arena)?;
            input.columns = &given.columns()[..arg.columns.len()];
        }
        Ok(Going {
            pairs,
            slots: arena.fill(total, NONE)?,
            inputs,
            keys: KeyMaker::read(batch)?,
            times,
        })
    }

    /// Rows go to their windows.
    fn take(&mut self, going: &mut Going<'_>) -> Result<()> {
        let mut merged = vec![];
        for at in 0..going.pairs.len() {
            let (row, start) = going.pairs[at];
            let (key, hash) = (going.keys.get(row as usize), going.keys.hashes()[row as usize] as u64);
            going.slots[at] = match self.plan.shape {
                Shape::Steps { length, .. } => {
                    let hash = hash ^ (start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    match self.find(hash, |w| w.start == start && *w.key == *key) {
                        Some(window) => window,
                        None => {
                            let new = self.begin(hash, key, start, start.saturating_add(length))?;
                            self.open.insert_unique(hash, (hash, new), |&(hash, _)| hash);
                            new
                        }
                    }
                }
                Shape::Session { gap } => self.session(hash, key, going.times[row as usize], gap, &mut merged)?,
            };
        }
        if !merged.is_empty() {
            for slot in going.slots.iter_mut() {
                *slot = self.settled(*slot);
            }
        }
        let windows = self.windows.len();
        for (states, input) in self.states.iter_mut().zip(going.inputs) {
            states.room(windows, input, &mut self.reservation)?;
            states.update(going.slots, input);
        }
        if merged.is_empty() {
            return Ok(());
        }
        let into: Vec<u32> = merged.iter().map(|&from| self.settled(from)).collect();
        let reservation = &mut self.reservation;
        for states in &mut self.states {
            states.seal(reservation)?;
            self.scratch.with(|arena| {
                let partial = states.partial(&merged, arena)?;
                let room = states.room_to_merge(windows, partial, reservation);
                room.map_err(|e| held(STAGE, e))?;
                states.merge(&into, partial);
                Ok(())
            })?;
        }
        self.gone += merged.len();
        Ok(())
    }

    fn find(&self, hash: u64, is: impl Fn(&Window) -> bool) -> Option<u32> {
        let found = self
            .open
            .find(hash, |&(h, at)| h == hash && is(&self.windows[at as usize]));
        found.map(|&(_, at)| at)
    }

    /// A new window, which no table knows.
    fn begin(&mut self, hash: u64, key: &[u8], start: i64, end: i64) -> Result<u32> {
        let at = u32::try_from(self.windows.len()).ok().filter(|&at| at != NONE);
        let at = at.ok_or_else(|| no_room(1))?;
        grow(&mut self.windows, 1, &mut self.reservation)?;
        if self.open.len() == self.open.capacity() {
            let before = self.open.allocation_size();
            let slots = (self.open.len() * 2).max(16);
            let most = (slots * 8 / 7 + 1).next_power_of_two() * (size_of::<(u64, u32)>() + 1) + 64;
            self.reservation.grow(most)?;
            if self
                .open
                .try_reserve(slots - self.open.len(), |&(hash, _)| hash)
                .is_err()
            {
                self.reservation.shrink(most);
                return Err(no_room(most));
            }
            let after = self.open.allocation_size();
            self.reservation.shrink((before + most).saturating_sub(after));
        }
        if self.ends.len() == self.ends.capacity() {
            let more = self.ends.len().max(16);
            let bytes = more * size_of::<Reverse<(i64, u32)>>();
            self.reservation.grow(bytes)?;
            if self.ends.try_reserve_exact(more).is_err() {
                self.reservation.shrink(bytes);
                return Err(no_room(bytes));
            }
        }
        self.reservation.grow(key_bytes(key))?;
        let mut copy = vec![];
        if copy.try_reserve_exact(key.len()).is_err() {
            self.reservation.shrink(key_bytes(key));
            return Err(no_room(key.len()));
        }
        copy.extend_from_slice(key);
        self.windows.push(Window {
            key: copy.into_boxed_slice(),
            hash,
            start,
            end,
            older: NONE,
            newer: NONE,
            into: NONE,
            gone: false,
            place: Place::default(),
            row: 0,
        });
        self.ends.push(Reverse((end, at)));
        Ok(at)
    }

    /// The session of a row. Others that it joins to it are `merged`.
    fn session(&mut self, hash: u64, key: &[u8], time: i64, gap: i64, merged: &mut Vec<u32>) -> Result<u32> {
        let end = time.saturating_add(gap);
        let head = self.find(hash, |window| *window.key == *key);
        // From the newest one back: most rows belong to that one.
        let (mut newer, mut at) = (NONE, head.unwrap_or(NONE));
        while at != NONE && self.windows[at as usize].start >= end {
            (newer, at) = (at, self.windows[at as usize].older);
        }
        if at == NONE || self.windows[at as usize].end <= time {
            let new = self.begin(hash, key, time, end)?;
            let window = &mut self.windows[new as usize];
            (window.newer, window.older) = (newer, at);
            if at != NONE {
                self.windows[at as usize].newer = new;
            }
            match (newer, head) {
                (NONE, Some(head)) => self.replace(hash, head, new),
                (NONE, None) => _ = self.open.insert_unique(hash, (hash, new), |&(hash, _)| hash),
                (newer, _) => self.windows[newer as usize].older = new,
            }
            return Ok(new);
        }
        let window = &mut self.windows[at as usize];
        window.start = window.start.min(time);
        window.end = window.end.max(end);
        loop {
            let other = self.windows[at as usize].older;
            if other == NONE || self.windows[other as usize].end <= time {
                return Ok(at);
            }
            grow(merged, 1, &mut self.reservation)?;
            merged.push(other);
            let window = &mut self.windows[other as usize];
            let (start, older) = (window.start, window.older);
            (window.into, window.gone) = (at, true);
            let key = std::mem::take(&mut window.key);
            self.reservation.shrink(key_bytes(&key));
            let window = &mut self.windows[at as usize];
            window.start = window.start.min(start);
            window.older = older;
            if older != NONE {
                self.windows[older as usize].newer = at;
            }
        }
    }

    /// The window that has the rows of another one now.
    fn settled(&self, mut at: u32) -> u32 {
        while self.windows[at as usize].into != NONE {
            at = self.windows[at as usize].into;
        }
        at
    }

    /// The table knows `new` in place of `old`.
    fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(entry) = self.open.find_mut(hash, |&(_, at)| at == old) {
            entry.1 = new;
        }
    }

    /// Closes the windows that end up to `mark`, by end, then by key. `place` says where an end is passed: the place, the row of the batch.
    fn close(&mut self, mark: i64, place: impl Fn(i64) -> (Place, u32)) -> Result<()> {
        let before = self.closed.len();
        while let Some(&Reverse((end, at))) = self.ends.peek().filter(|Reverse((end, _))| *end <= mark) {
            self.ends.pop();
            let window = &mut self.windows[at as usize];
            if window.gone {
                continue;
            }
            if window.end > end {
                self.ends.push(Reverse((window.end, at)));
                continue;
            }
            (window.place, window.row) = place(end);
            let (hash, older, newer) = (window.hash, window.older, window.newer);
            if older != NONE {
                self.windows[older as usize].newer = newer;
            }
            if newer != NONE {
                self.windows[newer as usize].older = older;
            } else if older != NONE {
                self.replace(hash, at, older);
            } else if let Ok(entry) = self.open.find_entry(hash, |&(_, known)| known == at) {
                entry.remove();
            }
            if self.closed.len() == self.closed.capacity() {
                let more = self.closed.len().max(16);
                self.reservation.grow(more * size_of::<u32>())?;
                if self.closed.try_reserve_exact(more).is_err() {
                    return Err(no_room(more));
                }
            }
            self.closed.push_back(at);
        }
        let windows = &self.windows;
        let key = |at: &u32| {
            let window = &windows[*at as usize];
            (window.end, &window.key)
        };
        let new = &mut self.closed.make_contiguous()[before..];
        new.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        Ok(())
    }

    /// The first `rows` closed windows, and those whose values do not fit: window, aggregate, code, reason.
    fn rows<'a>(&self, rows: usize, arena: &'a Arena) -> Result<(Batch<'a>, Vec<Failed>)> {
        let plan = &*self.plan;
        let slots = arena.collect(rows, |i| self.closed[i])?;
        let window = |row: usize| &self.windows[slots[row] as usize];
        let mut columns = Columns::new(arena, plan.width)?;
        let lens = (0..rows).map(|row| window(row).key.len()).sum();
        let bytes = arena.fill(lens, 0u8)?;
        let ends = arena.fill(rows, 0usize)?;
        let mut at = 0;
        for (row, end) in ends.iter_mut().enumerate() {
            let key = &window(row).key;
            bytes[at..at + key.len()].copy_from_slice(key);
            at += key.len();
            *end = at;
        }
        let bytes: &'a [u8] = bytes;
        let keys = arena.collect(rows, |row| &bytes[if row > 0 { ends[row - 1] } else { 0 }..ends[row]])?;
        let mut keyed = Keyed::new(keys);
        for field in &plan.keys {
            columns.push(keyed.column(&field.ty, arena)?);
        }
        let starts = arena.collect(rows, |row| window(row).start)?;
        columns.push(Column::new(Data::Timestamp(starts), None, rows));
        let ends = arena.collect(rows, |row| window(row).end)?;
        columns.push(Column::new(Data::Timestamp(ends), None, rows));
        let mut failed = vec![];
        for (call, states) in self.states.iter().enumerate() {
            let column = states.finish(slots, arena, &mut |row, code, text| {
                let mut text = text.to_owned();
                if !plan.keys.is_empty() {
                    text = format!("{text}, in the group {}", shown_key(&window(row).key, &plan.keys));
                }
                failed.push((row, call, code, text));
                Ok(())
            })?;
            columns.push(column);
        }
        failed.sort_by_key(|&(row, ..)| row);
        let places = match self.ended {
            true => numbered(self.numbered, rows, arena)?,
            false => arena.collect(rows, |row| window(row).place)?,
        };
        Ok((Batch::new(columns.finish(), Some(places), rows), failed))
    }

    /// The first `rows` closed windows went out. Whether states have moved: before they say anything they are to be sealed again.
    fn went(&mut self, rows: usize) -> Result<bool> {
        for at in self.closed.drain(..rows) {
            let window = &mut self.windows[at as usize];
            window.gone = true;
            let key = std::mem::take(&mut window.key);
            self.reservation.shrink(key_bytes(&key));
        }
        self.gone += rows;
        if self.gone > self.windows.len() - self.gone + some_windows(self.budget.limit()) {
            self.compact()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// States of windows that are gone give their memory back: those of the others move.
    fn compact(&mut self) -> Result<()> {
        let mut lent = self.budget.reserve();
        let (mut numbers, mut stay) = (vec![], vec![]);
        grow(&mut numbers, self.windows.len(), &mut lent)?;
        grow(&mut stay, self.windows.len() - self.gone, &mut lent)?;
        for (at, window) in (0u32..).zip(&self.windows) {
            numbers.push(if window.gone { NONE } else { stay.len() as u32 });
            if !window.gone {
                stay.push(at);
            }
        }
        let numbers: Vec<u32> = numbers;
        let new = |at: u32| numbers.get(at as usize).copied().unwrap_or(NONE);
        let reservation = &mut self.reservation;
        for (states, (arg, _)) in self.states.iter_mut().zip(&self.plan.calls) {
            let mut fresh = arg.aggregate.states(&self.of_run);
            states.seal(reservation)?;
            let none = Input {
                columns: &[],
                rows: 0,
                take: None,
                order: RowOrder::default(),
            };
            fresh.room(stay.len(), &none, reservation)?;
            for part in stay.chunks(OUT) {
                self.scratch.with(|arena| {
                    let partial = states.partial(part, arena)?;
                    let groups = arena.collect(part.len(), |i| new(part[i]))?;
                    let room = fresh.room_to_merge(stay.len(), partial, reservation);
                    room.map_err(|e| held(STAGE, e))?;
                    fresh.merge(groups, partial);
                    Ok(())
                })?;
            }
            states.release(reservation);
            *states = fresh;
        }
        self.windows.retain(|window| !window.gone);
        for window in &mut self.windows {
            (window.older, window.newer) = (new(window.older), new(window.newer));
        }
        self.open.iter_mut().for_each(|entry| entry.1 = new(entry.1));
        self.closed.iter_mut().for_each(|at| *at = new(*at));
        let mut ends = std::mem::take(&mut self.ends).into_vec();
        ends.retain_mut(|Reverse((_, at))| {
            *at = new(*at);
            *at != NONE
        });
        self.ends = ends.into();
        self.gone = 0;
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        let reservation = &mut self.reservation;
        self.states.iter_mut().try_for_each(|states| states.seal(reservation))
    }
}

impl Serial for Time {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(self.maker.clone()))
    }

    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        let most = most_rows(self.budget.limit());
        if batch.rows() > most {
            // Nothing has happened: it comes again, in halves.
            return Err(Error::Memory {
                wanted: batch.rows(),
                used: 0,
                limit: most,
            });
        }
        let (good, latest, times) = self.in_time(&batch, arena, faults)?;
        self.go(&batch, good, times, arena)?;
        // Nothing of the arena is needed from here on: what is refused ends the run.
        let Some(&now) = latest.last().filter(|now| **now != i64::MIN) else {
            return Ok((None, Flow::More));
        };
        self.latest = Some(now);
        self.stops = faults.stops();
        let late = self.plan.late;
        let closing = |end: i64| {
            let row = latest.partition_point(|&time| time.saturating_sub(late) < end);
            (batch.place(row), row as u32)
        };
        let closed = self.close(now.saturating_sub(late), closing);
        closed.map_err(|e| held(STAGE, e))?;
        let rows = self.closed.len();
        if rows == 0 {
            return Ok((None, Flow::More));
        }
        self.seal().map_err(|e| held(STAGE, e))?;
        if rows <= OUT.max(batch.rows()) {
            match self.rows(rows, arena) {
                Ok((made, failed)) if failed.is_empty() => {
                    self.went(rows).map_err(|e| held(STAGE, e))?;
                    return Ok((Some(made), Flow::More));
                }
                Ok(_) | Err(Error::Memory { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((None, Flow::More))
    }

    fn has_rest(&self) -> bool {
        !self.closed.is_empty()
    }

    fn rest(&mut self, give: &mut Rest<'_>) -> Result<()> {
        self.give(give).map_err(|e| held(STAGE, e))
    }

    fn finish<'a>(&mut self, _: &mut Emitter<'_, 'a>) -> Result<()> {
        self.ended = true;
        let closed = self.close(i64::MAX, |_| (Place::default(), 0));
        closed.map_err(|e| held(STAGE, e))
    }
}

/// What it has for some hundreds of windows with short values.
const WINDOWS_BYTES: usize = 640 << 10;

/// What it cannot do without, and what the last windows go through.
pub(super) fn least(room: &Room) -> Least {
    Least {
        takes: WINDOWS_BYTES,
        gives: least_room(room.share),
    }
}

/// The durations of a call.
fn durations<'a>(call: &'a Call<'_>) -> impl Iterator<Item = (i64, Span)> + 'a {
    call.items.iter().filter_map(|item| match item.arg {
        Arg::Const(Value::Duration(micros)) => Some((micros, item.span)),
        _ => None,
    })
}

/// What windows take beside that, in bytes, of which one row may open as many as it closes.
pub(super) fn takes_more(call: &Call<'_>) -> usize {
    const WINDOW: i64 = 320;
    const VALUE: i64 = 64;
    let mut durations = durations(call).map(|(micros, _)| micros);
    let (Some(length), Some(step @ 1..)) = (durations.next(), durations.next()) else {
        return 0;
    };
    // More than any machine has is enough to say.
    const MOST: i64 = 1 << 50;
    let windows = length / step + 1;
    let bytes = windows.saturating_mul(2 * (WINDOW + VALUE * call.items.len() as i64));
    usize::try_from(bytes.clamp(0, MOST)).unwrap_or(usize::MAX)
}

impl Time {
    /// Gives the windows that are closed.
    fn give(&mut self, give: &mut Rest<'_>) -> Result<()> {
        let (mut arena, mut reservation) = match self.out_arena.take() {
            Some(room) => room,
            None => {
                let mut reservation = self.out.reserve();
                let room = scratch_room(self.share, &mut reservation)?;
                (Arena::new(room), reservation)
            }
        };
        let outcome = self.give_in(&mut arena, &mut reservation, give);
        arena.reset();
        self.out_arena = Some((arena, reservation));
        outcome
    }

    fn give_in(&mut self, arena: &mut Arena, reservation: &mut Reservation, give: &mut Rest<'_>) -> Result<()> {
        let (mut most, mut sealed) = (OUT, false);
        while !self.closed.is_empty() {
            arena.reset();
            let limit = arena.limit();
            let rows = self.closed.len().min(most);
            if !sealed {
                self.seal()?;
            }
            sealed = true;
            let faults = Faults::of_each(arena, self.stops);
            match self.good(rows, &faults) {
                // What follows needs room too.
                Ok(_) if rows > 1 && arena.used() > limit / 4 && most > 64 => most = rows / 2,
                Err(Error::Memory { .. }) if rows > 1 => most = rows / 2,
                Err(Error::Memory { .. }) => {
                    reservation.grow(limit)?;
                    arena.set_limit(2 * limit);
                }
                Err(error) => return Err(error),
                Ok(made) => {
                    let flow = give(arena, made, &faults)?;
                    self.numbered += if self.ended { rows as u64 } else { 0 };
                    let stops = self.stops && !faults.is_empty();
                    sealed = !self.went(rows)?;
                    if flow == Flow::Done || stops {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Of the first `rows` closed windows those whose values fit; the others are reported.
    fn good<'a>(&self, rows: usize, faults: &Faults<'a>) -> Result<Batch<'a>> {
        let arena = faults.arena();
        let (made, failed) = self.rows(rows, arena)?;
        if failed.is_empty() {
            return Ok(made);
        }
        let good = arena.fill(rows, true)?;
        for (row, ..) in &failed {
            good[*row] = false;
        }
        let mut end = rows;
        let mut before = None;
        for &(row, call, code, ref text) in &failed {
            // Of a window the first value that does not fit.
            if before.replace(row) == Some(row) {
                continue;
            }
            let at = match self.ended {
                true => u32::try_from(self.numbered + row as u64).unwrap_or(u32::MAX),
                false => self.windows[self.closed[row] as usize].row,
            };
            let verdict = faults.push(Fault {
                row: at,
                code,
                span: self.plan.calls.get(call).map(|(_, span)| *span),
                column: None,
                message: arena.copy_str(text)?,
                help: None,
                byte: None,
                record: self.ended,
            })?;
            if verdict == Verdict::Stop {
                end = row;
                break;
            }
        }
        let kept = arena.fill(rows, 0u32)?;
        let mut count = 0;
        for (row, _) in good[..end].iter().enumerate().filter(|(_, good)| **good) {
            kept[count] = row as u32;
            count += 1;
        }
        made.gather(&kept[..count], made.columns().len(), arena)
    }
}

/// A window whose value does not fit: its row, the aggregate, code and reason.
type Failed = (usize, usize, Code, String);

/// What a key takes beside its window.
fn key_bytes(key: &[u8]) -> usize {
    key.len() + 16
}

fn no_room(wanted: usize) -> Error {
    Error::Memory {
        wanted,
        used: 0,
        limit: usize::MAX,
    }
}
