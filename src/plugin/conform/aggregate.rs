//! What an aggregate promises, tried out: on the states that stages keep, with the plugin behind them.
//!
//! Laws
//! - Rows with a null argument never reach an aggregate, so there are none here either.
//! - Two runs are alike if the values of all groups are, and the groups that fail.

mod trial;

use super::super::aggregate::Table;
use super::super::meter::collect;
use super::drive::said;
use super::spy::{self, Refuse};
use super::{Case, Outcome, memory};
use standpipe_sdk::{Arena, Error, Result, Value, ffi};
use trial::{Trial, Way, own_words};

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
