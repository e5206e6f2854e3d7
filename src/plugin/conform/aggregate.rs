//! What an aggregate promises, tried out: on the states that stages keep, with the plugin behind them.
//!
//! Laws
//! - Rows with a null argument never reach an aggregate, so there are none here either.
//! - Two runs are alike if the values of all groups are, and the groups that fail.

use super::super::aggregate::{Bounded, Table};
use super::super::meter::collect;
use super::drive::said;
use super::spy::{self, Refuse};
use super::{Case, Outcome, memory};
use standpipe_sdk::aggregate::{Aggregate, Input, RowOrder, States};
use standpipe_sdk::{
    Arena, Batch, Bits, Budget, Column, Error, Reservation, Result, Schema, Span, Type, Value, ffi, values,
};

/// What makes a case one of an aggregate.
pub(super) struct Aggregated {
    pub(super) table: Table,
    /// How many of the arguments are columns.
    pub(super) columns: usize,
}

/// Names, and what they say; in the order of a report.
pub const AGGREGATE_CHECKS: &[(&str, &str)] = &[
    ("works", "it takes its arguments and gives what it declares"),
    ("bind", "the same arguments give the same types"),
    ("newer host", "a longer table of services changes nothing"),
    ("no rows", "groups and states without rows, batches without rows"),
    ("one row", "batches of one row"),
    (
        "pieces",
        "batches that are pieces of longer ones, rows that do not count",
    ),
    ("many rows", "batches as long as they get"),
    ("batch sizes", "where batches end makes no difference"),
    ("deterministic", "the same rows give the same"),
    ("order", "the order of rows makes no difference"),
    (
        "merging",
        "states of some of the rows each come together to the state of all, in any order",
    ),
    ("state", "states go through their columns behind every batch"),
    ("lent memory", "nothing is looked at once its call is over"),
    ("refused memory", "every `alloc` and `grow` may give nothing"),
    ("refused reserve", "every `reserve` may be refused"),
    ("own memory", "what it keeps is what it declares"),
    ("leaks", "nothing stays when instances go"),
];

type Check = fn(&Trial<'_>) -> Result<Option<String>, String>;

fn body(name: &str) -> Option<Check> {
    Some(match name {
        "works" => works,
        "bind" => binds,
        "newer host" => |trial| trial.run(&trial.rows(40), Way::PLAIN).map(|_| None),
        "no rows" => no_rows,
        "one row" => one_row,
        "pieces" => pieces,
        "many rows" => many_rows,
        "batch sizes" => batch_sizes,
        "deterministic" => deterministic,
        "order" => order,
        "merging" => merging,
        "state" => through_columns,
        "lent memory" => lent_memory,
        "refused memory" => |trial| refused(trial, Refuse::Alloc),
        "refused reserve" => |trial| refused(trial, Refuse::Reserve),
        "own memory" => own_memory,
        "leaks" => leaks,
        _ => return None,
    })
}

/// Tries a check on these cases of one aggregate, as [`super::run`] does.
pub(super) fn run(name: &str, cases: &[Case]) -> Outcome {
    let Some(check) = body(name) else {
        return Outcome::Failed(format!("there is no check `{name}` of aggregates"));
    };
    let mut skipped = None;
    for case in cases {
        let tried = Trial::new(case).and_then(|trial| check(&trial));
        match tried {
            Ok(reason) => skipped = reason,
            Err(what) => return Outcome::Failed(spy::fault().unwrap_or(what)),
        }
    }
    skipped.map_or(Outcome::Passed, Outcome::Skipped)
}

/// What an arena may hand out, and what a plugin may reserve.
const ROOM: usize = 512 << 20;
const GROUPS: usize = 3;
/// The most refusals of one run that are tried.
const MOST_REFUSALS: usize = 2000;
/// Bytes of the heap that do not count.
const NOISE: i64 = 256 << 10;

/// How rows are given.
#[derive(Clone, Copy)]
struct Way {
    /// Rows of a batch.
    size: usize,
    /// States that the batches are dealt to, and that are put together in the end; from the last to the first if backwards.
    parts: usize,
    backwards: bool,
    /// Rows come from the last to the first.
    rows_backwards: bool,
    poison: bool,
    /// Batches are pieces of longer ones, whose other rows do not count.
    sliced: bool,
    /// States go through their columns behind each batch.
    through: bool,
}

impl Way {
    const PLAIN: Way = Way {
        size: 16,
        parts: 1,
        backwards: false,
        rows_backwards: false,
        poison: false,
        sliced: false,
        through: false,
    };
}

/// What came out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Ran {
    /// By group.
    values: Vec<String>,
    rejects: Vec<String>,
    gave_up: Option<String>,
}

impl Ran {
    fn must_be(&self, other: &Ran, how: &str) -> Result<(), String> {
        if let Some(at) =
            (0..self.values.len().max(other.values.len())).find(|&at| self.values.get(at) != other.values.get(at))
        {
            let shown = |ran: &Ran| {
                ran.values
                    .get(at)
                    .map_or("nothing", String::as_str)
                    .chars()
                    .take(120)
                    .collect::<String>()
            };
            return Err(format!(
                "{how}: group {at} is {}, and was {}",
                shown(other),
                shown(self)
            ));
        }
        if self.rejects != other.rejects {
            let (want, got) = (self.rejects.join("; "), other.rejects.join("; "));
            return Err(format!("{how}: it rejects `{got}`, and rejected `{want}`"));
        }
        if self.gave_up.is_some() != other.gave_up.is_some() {
            return Err(format!("{how}: it ends in another way"));
        }
        Ok(())
    }
}

/// A bound aggregate.
struct Trial<'c> {
    case: &'c Case,
    bounded: Bounded,
    /// The arguments that are columns.
    columns: Schema,
}

/// States, and the memory that they are made with.
struct Kept {
    states: Box<dyn States>,
    reservation: Reservation,
}

impl<'c> Trial<'c> {
    fn new(case: &'c Case) -> Result<Trial<'c>, String> {
        let Some(aggregated) = &case.aggregate else {
            return Err("it is no aggregate".into());
        };
        let (vtable, table) = (spy::on(case.vtable), spy::table_on(aggregated.table));
        let bounded = Bounded::new(
            vtable,
            table,
            &case.input,
            aggregated.columns,
            &case.config,
            Span::default(),
        );
        let bounded = bounded.map_err(|refused| refused.message)?;
        let columns: Schema = case.input.fields().iter().take(aggregated.columns).cloned().collect();
        let types: Vec<Type> = columns.fields().iter().map(|field| field.ty.clone()).collect();
        let state = bounded.state().fields().iter().map(|field| field.ty.clone()).collect();
        spy::columns_of(&types, state, bounded.output().ty.clone());
        Ok(Trial { case, bounded, columns })
    }

    /// The rows of the example, then made ones; none with a null.
    fn rows(&self, made: usize) -> Vec<Vec<Value>> {
        let columns = self.columns.width();
        let mut rows = self.case.rows(made);
        rows.iter_mut().for_each(|row| row.truncate(columns));
        rows.retain(|row| !row.contains(&Value::Null));
        rows
    }

    fn kept(&self) -> Kept {
        Kept {
            states: self.bounded.states(8 << 20),
            reservation: Budget::new(ROOM).reserve(),
        }
    }

    /// Gives it rows, row i to group i modulo [`GROUPS`]. What the host does not believe, a panic, memory that is not its own is an
    /// error.
    fn run(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran, String> {
        spy::refuse(Refuse::Nothing);
        self.run_with(rows, way)
    }

    fn run_with(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran, String> {
        let outcome = self.tried(rows, way);
        let ran = match outcome {
            Ok(ran) => ran,
            Err(error) => match own_words(&error) {
                Some(words) => Ran {
                    gave_up: Some(words),
                    ..Ran::default()
                },
                None => return Err(spy::fault().unwrap_or_else(|| said(&error))),
            },
        };
        spy::fault().map_or(Ok(ran), Err)
    }

    fn tried(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran> {
        if way.poison {
            self.bounded.bind().poison();
        }
        let mut numbered: Vec<(u32, Vec<Value>)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| ((at % GROUPS) as u32, row.clone()))
            .collect();
        if way.rows_backwards {
            numbered.reverse();
        }
        let mut all: Vec<Kept> = (0..way.parts.max(1)).map(|_| self.kept()).collect();
        let mut data = Arena::new(ROOM);
        data.set_poison(way.poison);
        let parts = all.len();
        for (at, part) in numbered.chunks(way.size.clamp(1, numbered.len().max(1))).enumerate() {
            self.give(&mut all[at % parts], part, way, &data)?;
            data.reset();
            if way.through {
                let fresh = self.through(&mut all[at % parts], &data)?;
                all[at % parts] = fresh;
                data.reset();
            }
        }
        if way.backwards {
            all.reverse();
        }
        // Groups without rows have states as well.
        for kept in &mut all {
            self.give(kept, &[], way, &data)?;
        }
        let mut all = all.into_iter();
        let mut whole = all.next().unwrap_or_else(|| self.kept());
        for mut other in all {
            self.join(&mut other, &mut whole, &data)?;
            data.reset();
        }
        self.finished(&mut whole, &data)
    }

    /// Updates with one batch; what is refused is asked for once more.
    fn give(&self, kept: &mut Kept, rows: &[(u32, Vec<Value>)], way: Way, data: &Arena) -> Result<()> {
        let own = |rows: &[(u32, Vec<Value>)]| rows.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>();
        let around = match way.sliced {
            true => own(&rows[..rows.len().min(3)]),
            false => vec![],
        };
        let longer: Vec<Vec<Value>> = around
            .iter()
            .cloned()
            .chain(own(rows))
            .chain(around.iter().cloned())
            .collect();
        let batch = values::batch(&self.columns, &longer, data)?;
        let whole: Batch<'_> = match way.sliced {
            // From the second row on: what stands around the rows is there, and does not count.
            true if !around.is_empty() => batch.slice(1, longer.len() - 1, data)?,
            _ => batch,
        };
        let before = around.len().saturating_sub(1);
        let mut groups = vec![0u32; whole.rows()];
        for (at, (group, _)) in rows.iter().enumerate() {
            groups[before + at] = *group;
        }
        let take = match around.is_empty() {
            true => None,
            false => Some(Bits::collect(data, whole.rows(), |row| {
                (before..before + rows.len()).contains(&row)
            })?),
        };
        let input = Input {
            columns: whole.columns(),
            rows: whole.rows(),
            take,
            order: RowOrder::default(),
        };
        let seen = values::rows(&whole, &self.columns);
        twice(|| kept.states.room(GROUPS, &input, &mut kept.reservation))?;
        kept.states.update(&groups, &input);
        if format!("{seen:?}") != format!("{:?}", values::rows(&whole, &self.columns)) {
            return Err(Error::failed(
                ffi::PLUGIN_FAILED,
                "it changes the input that is only lent",
            ));
        }
        kept.states.seal(&mut kept.reservation)
    }

    /// New states with what these are.
    fn through(&self, kept: &mut Kept, data: &Arena) -> Result<Kept> {
        let mut fresh = self.kept();
        self.join(kept, &mut fresh, data)?;
        Ok(fresh)
    }

    /// Puts the states of all groups into the other ones.
    fn join(&self, from: &mut Kept, to: &mut Kept, data: &Arena) -> Result<()> {
        let groups: Vec<u32> = (0..GROUPS as u32).collect();
        from.states.seal(&mut from.reservation)?;
        let partial: &[Column<'_>] = twice(|| from.states.partial(&groups, data))?;
        twice(|| to.states.room_to_merge(GROUPS, partial, &mut to.reservation))?;
        to.states.merge(&groups, partial);
        to.states.seal(&mut to.reservation)?;
        from.states.release(&mut from.reservation);
        Ok(())
    }

    fn finished(&self, kept: &mut Kept, data: &Arena) -> Result<Ran> {
        let groups: Vec<u32> = (0..GROUPS as u32).collect();
        kept.states.seal(&mut kept.reservation)?;
        let mut ran = Ran::default();
        let column = twice(|| {
            ran.rejects.clear();
            kept.states.finish(&groups, data, &mut |group, _, words| {
                ran.rejects.push(format!("group {group}: {words}"));
                Ok(())
            })
        })?;
        let ty = &self.bounded.output().ty;
        ran.values = (0..column.len())
            .map(|row| format!("{:?}", Value::of(column.cell(row), ty)))
            .collect();
        kept.states.release(&mut kept.reservation);
        if kept.reservation.bytes() > 0 {
            let what = format!("{} bytes stay reserved for no groups", kept.reservation.bytes());
            return Err(Error::failed(ffi::PLUGIN_FAILED, what));
        }
        Ok(ran)
    }
}

/// Once more where memory was refused because a check wanted it so: then it is there.
fn twice<T>(mut f: impl FnMut() -> Result<T>) -> Result<T> {
    match f() {
        Err(Error::Memory { .. }) if spy::has_refused() => {
            spy::refuse_no_more();
            f()
        }
        outcome => outcome,
    }
}

/// What an aggregate says that gives up, rather than the host about it.
fn own_words(error: &Error) -> Option<String> {
    let status = spy::status();
    let gives_up = status < 0 && status != ffi::E_PANIC && status != ffi::E_INTERNAL && status != ffi::E_CANCELLED;
    gives_up.then(|| said(error))
}

const PASSED: Result<Option<String>, String> = Ok(None);

/// Runs rows in two ways that must not differ.
fn alike(trial: &Trial<'_>, made: usize, way: Way, how: &str) -> Result<Option<String>, String> {
    let rows = trial.rows(made);
    trial.run(&rows, Way::PLAIN)?.must_be(&trial.run(&rows, way)?, how)?;
    PASSED
}

fn works(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let shown = trial.rows(0);
    if let Some(words) = trial.run(&shown, Way::PLAIN)?.gave_up {
        return Err(format!("it gives up on the rows of its own example: {words}"));
    }
    trial.run(&trial.rows(100), Way::PLAIN)?;
    PASSED
}

fn binds(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let again = Trial::new(trial.case)?;
    let same = trial.bounded.output() == again.bounded.output() && trial.bounded.state() == again.bounded.state();
    match same {
        true => PASSED,
        false => Err("the same arguments give other types the second time".into()),
    }
}

fn no_rows(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let none = trial.run(&[], Way::PLAIN)?;
    let joined = trial.run(&[], Way { parts: 3, ..Way::PLAIN })?;
    none.must_be(&joined, "states without rows that are put together")?;
    // A state without rows changes nothing.
    let rows: Vec<_> = trial.rows(10).into_iter().take(2).collect();
    let way = Way {
        parts: 5,
        size: 1,
        ..Way::PLAIN
    };
    let want = trial.run(&rows, Way::PLAIN)?;
    want.must_be(&trial.run(&rows, way)?, "a state without rows that is put to it")?;
    PASSED
}

fn one_row(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for row in trial.rows(40) {
        trial.run(std::slice::from_ref(&row), Way::PLAIN)?;
    }
    PASSED
}

fn pieces(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let way = Way {
        sliced: true,
        ..Way::PLAIN
    };
    alike(trial, 70, way, "pieces of longer batches")
}

fn many_rows(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let way = Way {
        size: usize::MAX,
        ..Way::PLAIN
    };
    alike(trial, 20_000, way, "all rows in one batch")
}

fn batch_sizes(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for size in [1, 2, 7, 64, usize::MAX] {
        alike(
            trial,
            100,
            Way { size, ..Way::PLAIN },
            &format!("batches of {size} rows"),
        )?;
    }
    PASSED
}

fn deterministic(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let rows = trial.rows(60);
    let first = trial.run(&rows, Way::PLAIN)?;
    let again = Trial::new(trial.case)?.run(&rows, Way::PLAIN)?;
    first.must_be(&again, "the same rows again")?;
    PASSED
}

fn order(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let way = Way {
        rows_backwards: true,
        ..Way::PLAIN
    };
    alike(trial, 100, way, "the rows from the last to the first")
}

fn merging(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for (parts, backwards) in [(2, false), (2, true), (5, false), (5, true)] {
        let way = Way {
            size: 3,
            parts,
            backwards,
            ..Way::PLAIN
        };
        let order = if backwards { ", the last first" } else { "" };
        alike(trial, 100, way, &format!("states of {parts} parts of the rows{order}"))?;
    }
    PASSED
}

fn through_columns(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let way = Way {
        size: 7,
        through: true,
        ..Way::PLAIN
    };
    alike(trial, 60, way, "states that went through their columns")
}

fn lent_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let way = Way {
        poison: true,
        sliced: true,
        through: true,
        ..Way::PLAIN
    };
    alike(trial, 100, way, "memory that is overwritten behind each call")
}

fn refused(trial: &Trial<'_>, refuse: fn(usize) -> Refuse) -> Result<Option<String>, String> {
    let mut rows = trial.rows(20);
    rows.truncate(40);
    let way = Way {
        parts: 2,
        through: true,
        ..Way::PLAIN
    };
    let want = trial.run(&rows, way)?;
    for at in 0..MOST_REFUSALS {
        spy::refuse(refuse(at));
        let outcome = trial.run_with(&rows, way);
        let refused = spy::has_refused();
        spy::refuse(Refuse::Nothing);
        match outcome {
            Err(_) if refused && spy::status() == ffi::E_PANIC => return Err("refused memory makes it panic".into()),
            Err(what) => return Err(format!("refusal {}: {what}", at + 1)),
            Ok(_) if !refused && at == 0 => return Ok(Some("it asks for none".into())),
            Ok(_) if !refused => return PASSED,
            Ok(ran) if ran.gave_up.is_some() => {}
            Ok(ran) => want.must_be(&ran, &format!("with refusal {} of them", at + 1))?,
        }
    }
    PASSED
}

/// Gives so many rows that what is kept of each shows.
fn own_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let words = |error: Error| spy::fault().unwrap_or_else(|| said(&error));
    spy::refuse(Refuse::Nothing);
    let (mut kept, mut data) = (trial.kept(), Arena::new(ROOM));
    let rows = trial.rows(64);
    let declared = spy::reserved();
    let mut before = None;
    for at in 0..200usize {
        let mut part: Vec<(u32, Vec<Value>)> = (rows.iter().enumerate())
            .map(|(row, cells)| ((row % GROUPS) as u32, cells.clone()))
            .collect();
        // Every batch has numbers of its own, so that what is kept by value shows as well.
        for (row, cell) in part.iter_mut().flat_map(|(_, cells)| cells).enumerate() {
            match cell {
                Value::Int(v) => *v = (at * 1000 + row) as i64,
                Value::Float(v) => *v = (at * 1000 + row) as f64 * 1.7,
                Value::String(v) => *v = format!("text {}", at * 1000 + row),
                _ => {}
            }
        }
        match trial.give(&mut kept, &part, Way::PLAIN, &data) {
            Err(error) if own_words(&error).is_some() => return PASSED,
            outcome => outcome.map_err(words)?,
        }
        data.reset();
        if at == 4 {
            before = memory::in_use();
        }
    }
    let (Some(before), Some(now)) = (before, memory::in_use()) else {
        return Ok(Some("the allocator here does not count".into()));
    };
    let size = trial.case.aggregate.as_ref().map_or(0, |case| case.table.state_size) * GROUPS;
    let declared = spy::reserved() - declared + size as i64;
    let bytes = now - before;
    kept.states.release(&mut kept.reservation);
    match bytes > declared + NOISE {
        true => Err(format!(
            "it keeps {bytes} bytes after 200 batches and has declared {declared}"
        )),
        false => PASSED,
    }
}

fn leaks(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let rows = trial.rows(20);
    let way = Way {
        parts: 2,
        through: true,
        ..Way::PLAIN
    };
    let cycle = || -> Result<(), String> {
        for _ in 0..40 {
            // The meters of what was bound would stay, for a report.
            collect(|| Trial::new(trial.case)?.run(&rows, way).map(drop)).0?;
        }
        Ok(())
    };
    cycle()?;
    let Some(before) = memory::in_use() else {
        return Ok(Some("the allocator here does not count".into()));
    };
    cycle()?;
    let first = memory::in_use().unwrap_or(before) - before;
    cycle()?;
    let second = memory::in_use().unwrap_or(before) - before - first;
    match first > NOISE / 8 && second > NOISE / 8 {
        true => Err(format!("{second} bytes stay behind 40 instances that were destroyed")),
        false => PASSED,
    }
}
