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

mod given;
mod going;
mod open;

use super::super::codes::{self, held};
use super::super::copies::Scratch;
use super::super::keys;
use super::super::rowkeys::KeyMaker;
use super::super::unnest::least_room;
use super::STAGE;
use given::OUT;
use hashbrown::HashTable;
use open::Window;
use standpipe_sdk::aggregate::{OfRun, States};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    AggregateArg, Arg, Bound, Call, Complaint, Least, Lineage, Make, Room, Setup, WINDOW_END, WINDOW_START,
};
use standpipe_sdk::{
    Arena, Batch, Budget, Emitter, Faults, Field, Flow, Place, Prepare, Reservation, Rest, Serial, Span, Type, Value,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

/// Of a batch at most so many rows are taken at a time, in a budget of so many bytes.
fn most_rows(budget_bytes: usize) -> usize {
    const PART: usize = 8 << 10;
    const LEAST: usize = 256;
    (budget_bytes / PART).max(LEAST)
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
    /// Where the last one stands that was closed.
    last_place: Option<Place>,
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
            last_place: None,
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
