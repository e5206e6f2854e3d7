//! The checks of a source: its splits, driven through the host's own lanes.
//!
//! Laws
//! - What a split gives is compared as far as both readings went: a source may be longer than anybody wants to wait for.

use super::super::bind::Given;
use super::super::meter::collect;
use super::super::source::{self, Lane, Splits};
use super::checks::{MOST_REFUSALS, NOISE, PASSED, missing, skipped};
use super::drive::{own_words, said, short};
use super::spy::{self, Refuse};
use super::{Case, Outcome, memory};
use serde_json::Value as Json;
use standpipe_sdk::spec::{Request, Wanted};
use standpipe_sdk::testing::setup;
use standpipe_sdk::{Arena, Error, Reader, Result, Schema, Span, ffi, values};
use std::sync::Arc;

type Check = fn(&Trial<'_>) -> Result<Option<String>, String>;

/// Names and what they say, in the order of a report. A source that fails the first is not asked further.
pub const CHECKS: &[(&str, &str)] = &[
    ("works", "it takes its arguments and gives what it declares"),
    ("bind", "the same arguments give the same plan; missing ones are named"),
    ("newer host", "a longer table of services changes nothing"),
    (
        "splits",
        "a split's rows hang on its number alone: in any order, side by side, on several threads",
    ),
    ("batch sizes", "how many rows are asked for makes no difference"),
    ("deterministic", "the same arguments give the same rows, as declared"),
    ("lent memory", "nothing is looked at once its call is over"),
    (
        "refused memory",
        "every `alloc`, `grow` and `emit` may be refused: no row is lost",
    ),
    ("refused reserve", "every `reserve` may be refused"),
    ("snapshot", "a split goes on where it was saved, as declared"),
    ("own memory", "what it keeps is what it declares"),
    ("leaks", "nothing stays when instances go"),
];

/// What an arena may hand out, and what a plugin may reserve.
const ROOM: usize = 512 << 20;
/// The most splits that are read, and the most rows of each.
const MOST_SPLITS: u64 = 12;
const MOST_ROWS: usize = 3000;
/// Rows of a call, as usual.
const SIZE: usize = 16;

fn body(name: &str) -> Option<Check> {
    Some(match name {
        "works" | "newer host" => works,
        "bind" => binds,
        "splits" => splits,
        "batch sizes" => batch_sizes,
        "deterministic" => deterministic,
        "lent memory" => lent_memory,
        "refused memory" => |trial| refused(trial, Refuse::Alloc),
        "refused reserve" => |trial| refused(trial, Refuse::Reserve),
        "snapshot" => snapshot,
        "own memory" => own_memory,
        "leaks" => leaks,
        _ => return None,
    })
}

/// Tries a check on these cases, as [`super::checks::run`] does.
pub(super) fn run(name: &str, cases: &[Case]) -> Outcome {
    let Some(check) = body(name) else {
        return Outcome::Failed(format!("there is no check `{name}` of sources"));
    };
    super::checks::each(cases, |case| check(&Trial::new(case)?))
}

/// A bound case.
struct Trial<'c> {
    case: &'c Case,
    plan: Arc<source::Plan>,
}

/// How splits are read.
#[derive(Clone, Copy)]
struct Way {
    /// Rows of a call.
    size: usize,
    /// The last split comes first.
    backwards: bool,
    /// All splits are open at once, and take turns.
    turns: bool,
    /// Memory is overwritten once a call is over.
    poison: bool,
    /// It goes through a snapshot behind this call of each split.
    snapshot: Option<usize>,
}

const PLAIN: Way = Way {
    size: SIZE,
    backwards: false,
    turns: false,
    poison: false,
    snapshot: None,
};

/// The rows of each split, and whether it came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Read {
    rows: Vec<String>,
    ended: bool,
    /// It gave up, with words of its own.
    gave_up: Option<String>,
}

/// A split being read.
struct Piece {
    lane: Lane,
    arena: Arena,
    number: usize,
    calls: usize,
    read: Read,
}

impl Piece {
    fn is_over(&self) -> bool {
        self.read.ended || self.read.gave_up.is_some() || self.read.rows.len() >= MOST_ROWS
    }
}

impl<'c> Trial<'c> {
    fn new(case: &'c Case) -> Result<Trial<'c>, String> {
        let given = bind(case, &case.config)?;
        let plan = Arc::new(source::plan_of(given, Span::default())?);
        Ok(Trial { case, plan })
    }

    fn open(&self) -> Arc<Splits> {
        let types = self.plan.fields.iter().map(|field| field.ty.clone());
        spy::columns(&[], types.collect());
        let request = Request {
            columns: vec![Wanted::Yes; self.plan.fields.len()],
            places: true,
        };
        Arc::new(Splits::new(self.plan.clone(), &setup(ROOM), &request))
    }

    fn count(&self) -> usize {
        self.plan.splits.min(MOST_SPLITS) as usize
    }

    fn piece(&self, source: &Arc<Splits>, number: usize, poison: bool) -> Result<Piece, String> {
        let mut lane = source.clone().lane();
        lane.claim(number as u64).map_err(|error| said(&error))?;
        let mut arena = Arena::new(ROOM);
        arena.set_poison(poison);
        Ok(Piece {
            lane,
            arena,
            number,
            calls: 0,
            read: Read::default(),
        })
    }

    /// One call. What the host does not believe, a panic, memory that is not its own is an error.
    fn step(&self, piece: &mut Piece, way: Way) -> Result<(), String> {
        let outcome = self.decode(piece, way.size);
        if let Err(error) = outcome {
            match own_words(&error) {
                Some(words) => piece.read.gave_up = Some(words),
                None => return Err(spy::fault().unwrap_or_else(|| said(&error))),
            }
        }
        spy::fault().map_or(Ok(()), Err)
    }

    fn decode(&self, piece: &mut Piece, size: usize) -> Result<()> {
        let Piece {
            lane,
            arena,
            read,
            calls,
            ..
        } = piece;
        arena.reset();
        let part = lane.decode(arena, size, false)?;
        let rows = values::rows(&part.batch, &self.plan.given.output);
        read.rows.extend(rows.iter().map(|row| format!("{row:?}")));
        read.ended = part.last;
        *calls += 1;
        Ok(())
    }

    fn read(&self, way: Way) -> Result<Vec<Read>, String> {
        spy::refuse(Refuse::Nothing);
        let source = self.open();
        let count = self.count();
        let mut order: Vec<usize> = (0..count).collect();
        if way.backwards {
            order.reverse();
        }
        let mut done: Vec<Read> = vec![Read::default(); count];
        let mut open: Vec<Piece> = vec![];
        for number in order {
            open.push(self.piece(&source, number, way.poison)?);
            // Side by side, each gets ahead of those that were opened later.
            while !way.turns && !open.is_empty() {
                self.turn(&source, &mut open, &mut done, way)?;
            }
        }
        while !open.is_empty() {
            self.turn(&source, &mut open, &mut done, way)?;
        }
        Ok(done)
    }

    /// One call of each open split.
    fn turn(&self, source: &Arc<Splits>, open: &mut Vec<Piece>, done: &mut [Read], way: Way) -> Result<(), String> {
        for piece in &mut *open {
            self.step(piece, way)?;
            if way.snapshot == Some(piece.calls) && !piece.is_over() {
                let state = piece.lane.snapshot(&piece.arena).map_err(|error| said(&error))?;
                let mut other = self.piece(source, piece.number, way.poison)?;
                other.lane.restore(&state, &other.arena).map_err(|error| said(&error))?;
                piece.lane = other.lane;
            }
        }
        for at in (0..open.len())
            .rev()
            .filter(|&at| open[at].is_over())
            .collect::<Vec<_>>()
        {
            let piece = open.swap_remove(at);
            done[piece.number] = piece.read;
        }
        Ok(())
    }
}

fn bind(case: &Case, config: &str) -> Result<Given, String> {
    super::drive::bind(case, &Schema::default(), config).map_err(|refused| refused.message)
}

/// That two readings give the same, as far as both went.
fn same(want: &[Read], got: &[Read], how: &str) -> Result<(), String> {
    for (split, (want, got)) in want.iter().zip(got).enumerate() {
        let len = match (want.ended, got.ended) {
            (true, true) => want.rows.len().max(got.rows.len()),
            (true, false) => got.rows.len(),
            (false, true) => want.rows.len(),
            (false, false) => want.rows.len().min(got.rows.len()),
        };
        if let Some(at) = (0..len).find(|&at| want.rows.get(at) != got.rows.get(at)) {
            let shown = |row: Option<&String>| row.map_or("nothing".to_owned(), |row| short(row));
            return Err(format!(
                "{how}: row {at} of split {split} is {}, and was {}",
                shown(got.rows.get(at)),
                shown(want.rows.get(at))
            ));
        }
        if want.gave_up.is_some() != got.gave_up.is_some() {
            return Err(format!("{how}: split {split} ends in another way"));
        }
    }
    Ok(())
}

/// Whether the same splits give the same; if not, nothing can be compared.
fn is_steady(trial: &Trial<'_>) -> Result<bool, String> {
    Ok(same(&trial.read(PLAIN)?, &trial.read(PLAIN)?, "").is_ok())
}

const UNSTEADY: &str = "the same splits give something else each time";

fn alike(trial: &Trial<'_>, way: Way, how: &str) -> Result<(), String> {
    same(&trial.read(PLAIN)?, &trial.read(way)?, how)
}

fn works(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for read in trial.read(PLAIN)? {
        if let Some(words) = read.gave_up {
            return Err(format!("it gives up with the arguments of its own example: {words}"));
        }
    }
    PASSED
}

fn binds(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let again = Trial::new(trial.case)?;
    let (one, other) = (&trial.plan, &again.plan);
    if one.given.output != other.given.output
        || one.splits != other.splits
        || one.given.out.flags != other.given.out.flags
    {
        return Err("the same arguments give another plan the second time".into());
    }
    let config: Json = serde_json::from_str(&trial.case.config).map_err(|error| error.to_string())?;
    missing(trial.case, &config)?;
    PASSED
}

fn splits(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.count() < 2 {
        return skipped("there is one");
    }
    // Without a promise of determinism too: which lane reads a split first hangs on the clock.
    let ways = [
        (
            "the last split first",
            Way {
                backwards: true,
                ..PLAIN
            },
        ),
        ("splits side by side", Way { turns: true, ..PLAIN }),
    ];
    for (how, way) in ways {
        alike(trial, way, how)?;
    }
    let want = trial.read(PLAIN)?;
    let source = trial.open();
    let threads = std::thread::scope(|scope| {
        let read = |number| {
            let mut piece = trial.piece(&source, number, false)?;
            while !piece.is_over() {
                trial.step(&mut piece, PLAIN)?;
            }
            Ok(piece.read)
        };
        let threads: Vec<_> = (0..trial.count())
            .map(|number| scope.spawn(move || read(number)))
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(read) => read,
            Err(_) => Err("the host panics".to_owned()),
        });
        joined.collect::<Result<Vec<Read>, String>>()
    });
    same(&want, &threads?, "splits on several threads")?;
    PASSED
}

fn batch_sizes(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if !is_steady(trial)? {
        return skipped(UNSTEADY);
    }
    for size in [1, 2, 7, 1000, usize::MAX] {
        alike(trial, Way { size, ..PLAIN }, &format!("at most {size} rows a call"))?;
    }
    PASSED
}

fn deterministic(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.plan.given.out.flags & ffi::F_DETERMINISTIC == 0 {
        return skipped("not declared");
    }
    let again = Trial::new(trial.case)?.read(PLAIN)?;
    same(&trial.read(PLAIN)?, &again, "the same arguments again")?;
    PASSED
}

fn lent_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    // What it finds in memory that is used anew may differ each time: only where nothing is declared is that no reason to fail.
    if trial.plan.given.out.flags & ffi::F_DETERMINISTIC == 0 && !is_steady(trial)? {
        return skipped(UNSTEADY);
    }
    alike(
        trial,
        Way { poison: true, ..PLAIN },
        "memory that is overwritten behind each call",
    )?;
    PASSED
}

/// Reads the first split with something refused once; where that was memory, the same rows are asked for again, fewer at a time.
fn refused(trial: &Trial<'_>, refuse: fn(usize) -> Refuse) -> Result<Option<String>, String> {
    if !is_steady(trial)? {
        return skipped(UNSTEADY);
    }
    let want = trial.read(PLAIN)?;
    let calls = 6;
    for at in 0..MOST_REFUSALS {
        let what = |what: String| format!("refusal {}: {what}", at + 1);
        spy::refuse(refuse(at));
        let source = trial.open();
        let gave_up = || spy::has_refused() && spy::status() != ffi::E_PANIC;
        let mut piece = match trial.piece(&source, 0, false) {
            Ok(piece) => piece,
            Err(_) if gave_up() => continue,
            Err(words) => return Err(what(words)),
        };
        while !piece.is_over() && piece.calls < calls {
            match trial.decode(&mut piece, 16) {
                Ok(()) => {}
                // The host asks again, for less.
                Err(Error::Memory { .. }) if spy::has_refused() => match trial.decode(&mut piece, 8) {
                    Ok(()) => {}
                    Err(error) => return Err(what(said(&error))),
                },
                Err(_) if gave_up() => piece.read.gave_up = Some(String::new()),
                Err(error) => return Err(what(said(&error))),
            }
            spy::fault().map_or(Ok(()), |words| Err(what(words)))?;
        }
        if !spy::has_refused() {
            return if at == 0 { skipped("it asks for none") } else { PASSED };
        }
        if piece.read.gave_up.is_none() {
            same(
                &want[..1],
                &[piece.read],
                &what("the rows of the same call again".into()),
            )?;
        }
    }
    PASSED
}

fn snapshot(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.plan.given.out.flags & ffi::F_SNAPSHOT == 0 {
        return skipped("not declared");
    }
    for behind in 1..6 {
        let way = Way {
            snapshot: Some(behind),
            size: 5,
            ..PLAIN
        };
        alike(trial, way, &format!("a snapshot behind call {behind}"))?;
    }
    PASSED
}

/// Reads the first split so far that what is kept of each row shows.
fn own_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    spy::refuse(Refuse::Nothing);
    let declared = spy::reserved();
    let source = trial.open();
    let mut before = None;
    let mut open = vec![];
    for number in 0..trial.count() {
        let mut piece = trial.piece(&source, number, false)?;
        for _ in 0..60 {
            if piece.is_over() {
                break;
            }
            trial.step(&mut piece, Way { size: 16, ..PLAIN })?;
            piece.read.rows.clear();
            piece.arena.reset();
            before = before.or(memory::in_use());
        }
        open.push(piece);
    }
    let (Some(before), Some(now)) = (before, memory::in_use()) else {
        return skipped("the allocator here does not count");
    };
    let declared = spy::reserved() - declared;
    // An open split has an arena of its own, the host's.
    let hosts: usize = open.iter().map(|piece| piece.arena.peak() + (64 << 10)).sum();
    if now - before > declared + NOISE + hosts as i64 {
        return Err(format!("it keeps {} bytes and has declared {declared}", now - before));
    }
    PASSED
}

fn leaks(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let cycle = || -> Result<(), String> {
        for _ in 0..40 {
            // The meters of what was bound would stay, for a report.
            let read = || {
                let trial = Trial::new(trial.case)?;
                let source = trial.open();
                for number in 0..trial.count().min(2) {
                    trial.step(&mut trial.piece(&source, number, false)?, PLAIN)?;
                }
                Ok::<(), String>(())
            };
            collect(read).0?;
        }
        Ok(())
    };
    super::checks::leaking(cycle)
}
