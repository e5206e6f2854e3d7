//! The checks of one stage or function, each by a name that a report says.

use super::super::bind::RowsOf;
use super::super::meter::collect;
use super::drive::{Trial, Way, bind};
use super::spy::{self, Refuse};
use super::{Case, Outcome, memory};
use serde_json::Value as Json;
use standpipe_sdk::{Field, Schema, Type, ffi};

pub(super) type Check = fn(&Trial<'_>) -> Result<Option<String>, String>;

/// Names, what they say, and what they do; in the order of a report. A stage that fails the first is not asked further.
pub const CHECKS: &[(&str, &str)] = &[
    ("works", "it takes its arguments and gives what it declares"),
    (
        "bind",
        "the same arguments give the same plan; missing and wrong ones are named",
    ),
    ("newer host", "a longer table of services changes nothing"),
    ("no rows", "batches without rows"),
    ("one row", "batches of one row"),
    ("nulls", "nothing but nulls"),
    ("pieces", "batches that are pieces of longer ones"),
    ("many rows", "batches as long as they get"),
    ("batch sizes", "where batches end makes no difference"),
    ("deterministic", "the same rows give the same, as declared"),
    (
        "stateless",
        "which instance gets which batch makes no difference, as declared",
    ),
    ("lent memory", "nothing is looked at once its call is over"),
    ("refused memory", "every `alloc` and `grow` may give nothing"),
    ("refused reserve", "every `reserve` may be refused"),
    (
        "snapshot",
        "state goes through a snapshot behind every batch, as declared",
    ),
    ("own memory", "what it keeps is what it declares"),
    ("leaks", "nothing stays when instances go"),
];

/// The most refusals of one batch that are tried.
pub(super) const MOST_REFUSALS: usize = 2000;
/// Bytes of the heap that do not count.
pub(super) const NOISE: i64 = 256 << 10;

fn body(name: &str) -> Option<Check> {
    Some(match name {
        "works" => works,
        "bind" => binds,
        "newer host" => newer_host,
        "no rows" => no_rows,
        "one row" => one_row,
        "nulls" => nulls,
        "pieces" => pieces,
        "many rows" => many_rows,
        "batch sizes" => batch_sizes,
        "deterministic" => deterministic,
        "stateless" => stateless,
        "lent memory" => lent_memory,
        "refused memory" => refused_memory,
        "refused reserve" => refused_reserve,
        "snapshot" => snapshot,
        "own memory" => own_memory,
        "leaks" => leaks,
        _ => return None,
    })
}

/// Tries a check on these cases.
pub(super) fn run(name: &str, cases: &[Case]) -> Outcome {
    let body = if name == super::sink::ABORTED {
        Some(super::sink::aborted as Check)
    } else {
        body(name)
    };
    let Some(check) = body else {
        return Outcome::Failed(format!("there is no check `{name}`"));
    };
    each(cases, |case| check(&Trial::new(case)?))
}

/// What a check says of all cases together.
pub(super) fn each(cases: &[Case], check: impl Fn(&Case) -> Result<Option<String>, String>) -> Outcome {
    let (mut passed, mut skipped) = (false, None);
    for case in cases {
        match check(case) {
            Ok(None) => passed = true,
            Ok(reason) => skipped = reason,
            Err(what) => return Outcome::Failed(what),
        }
    }
    // One to look at is enough.
    let skipped = skipped.filter(|_| !passed);
    match (cases, skipped) {
        ([], _) => {
            Outcome::Failed("no arguments that it takes were found; an example in its description shows some".into())
        }
        (_, Some(reason)) => Outcome::Skipped(reason),
        (_, None) => Outcome::Passed,
    }
}

pub(super) const PASSED: Result<Option<String>, String> = Ok(None);

pub(super) fn skipped(why: &str) -> Result<Option<String>, String> {
    Ok(Some(why.into()))
}

/// Whether the same rows give the same; if not, nothing can be compared.
fn is_steady(trial: &Trial<'_>) -> Result<bool, String> {
    let rows = trial.case.rows(40);
    let (one, other) = (trial.run(&rows, Way::PLAIN)?, trial.run(&rows, Way::PLAIN)?);
    Ok(one == other)
}

/// Runs rows in two ways that must not differ.
fn alike(trial: &Trial<'_>, made: usize, way: Way, how: &str) -> Result<Option<String>, String> {
    if !is_steady(trial)? {
        return skipped("the same rows give something else each time");
    }
    let rows = trial.case.rows(made);
    trial.run(&rows, Way::PLAIN)?.must_be(&trial.run(&rows, way)?, how)?;
    PASSED
}

fn works(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let shown = trial.case.rows(0);
    if let Some(words) = trial.run(&shown, Way::PLAIN)?.gave_up {
        return Err(format!("it gives up on the rows of its own example: {words}"));
    }
    trial.run(&trial.case.rows(100), Way::PLAIN)?;
    PASSED
}

fn newer_host(trial: &Trial<'_>) -> Result<Option<String>, String> {
    trial.run(&trial.case.rows(40), Way::PLAIN)?;
    PASSED
}

fn no_rows(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let ran = trial.run(&[], Way::PLAIN)?;
    let with_empty = trial.run_empty()?;
    ran.must_be(&with_empty, "a batch without rows")?;
    PASSED
}

fn one_row(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for row in trial.case.rows(40) {
        trial.run(std::slice::from_ref(&row), Way::PLAIN)?;
    }
    PASSED
}

fn nulls(trial: &Trial<'_>) -> Result<Option<String>, String> {
    for rows in [1, 64, 65] {
        trial.run(&trial.case.nulls(rows), Way { size: 65, ..Way::PLAIN })?;
    }
    PASSED
}

fn pieces(trial: &Trial<'_>) -> Result<Option<String>, String> {
    alike(
        trial,
        70,
        Way {
            sliced: true,
            ..Way::PLAIN
        },
        "pieces of longer batches",
    )
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
        if let Some(reason) = alike(
            trial,
            100,
            Way { size, ..Way::PLAIN },
            &format!("batches of {size} rows"),
        )? {
            return skipped(&reason);
        }
    }
    PASSED
}

fn deterministic(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.flags() & ffi::F_DETERMINISTIC == 0 {
        return skipped("not declared");
    }
    let rows = trial.case.rows(60);
    let first = trial.run(&rows, Way::PLAIN)?;
    let again = Trial::new(trial.case)?.run(&rows, Way::PLAIN)?;
    first.must_be(&again, "the same rows again")?;
    PASSED
}

fn stateless(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.plan.serial {
        return skipped("not declared");
    }
    let way = Way { size: 3, ..Way::PLAIN };
    for (way, how) in [
        (Way { instances: 3, ..way }, "several instances in turns"),
        (Way { backwards: true, ..way }, "batches in another order"),
    ] {
        if !is_steady(trial)? {
            return skipped("the same rows give something else each time");
        }
        let rows = trial.case.rows(60);
        trial
            .run(&rows, Way { size: 3, ..Way::PLAIN })?
            .must_be(&trial.run(&rows, way)?, how)?;
    }
    PASSED
}

fn lent_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    // What it finds in memory that is used anew may differ each time: only where nothing is declared is that no reason to fail.
    if trial.flags() & ffi::F_DETERMINISTIC == 0 && !is_steady(trial)? {
        return skipped("the same rows give something else each time");
    }
    let rows = trial.case.rows(100);
    let poisoned = Way {
        poison: true,
        ..Way::PLAIN
    };
    let ran = trial.run(&rows, poisoned)?;
    trial
        .run(&rows, Way::PLAIN)?
        .must_be(&ran, "memory that is overwritten behind each call")?;
    PASSED
}

fn refused_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    refused(trial, Refuse::Alloc)
}

fn refused_reserve(trial: &Trial<'_>) -> Result<Option<String>, String> {
    refused(trial, Refuse::Reserve)
}

fn refused(trial: &Trial<'_>, refuse: fn(usize) -> Refuse) -> Result<Option<String>, String> {
    if !is_steady(trial)? {
        return skipped("the same rows give something else each time");
    }
    let mut rows = trial.case.rows(20);
    rows.truncate(40);
    let want = trial.run(
        &rows,
        Way {
            size: usize::MAX,
            ..Way::PLAIN
        },
    )?;
    for at in 0..MOST_REFUSALS {
        match trial.run_refused(&rows, refuse(at)) {
            Ok(None) if at == 0 => return skipped("it asks for none"),
            Ok(None) => return PASSED,
            Ok(Some(ran)) if ran.gave_up.is_some() => {}
            Ok(Some(ran)) => want.must_be(&ran, &format!("with refusal {} of them", at + 1))?,
            Err(what) => return Err(format!("refusal {}: {what}", at + 1)),
        }
    }
    PASSED
}

fn snapshot(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if trial.flags() & ffi::F_SNAPSHOT == 0 {
        return skipped("not declared");
    }
    let rows = trial.case.rows(60);
    let way = Way { size: 7, ..Way::PLAIN };
    let want = trial.run(&rows, way)?;
    for behind in 0..rows.len().div_ceil(7) {
        let ran = trial.run(
            &rows,
            Way {
                snapshot: Some(behind),
                ..way
            },
        )?;
        want.must_be(&ran, &format!("a snapshot behind batch {behind}"))?;
    }
    PASSED
}

/// Runs the rows so often that what is kept of each shows.
fn own_memory(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let Some((kept, declared)) = trial.kept(200)? else {
        return skipped("the allocator here does not count");
    };
    let class = trial.plan.given.out.memory;
    if kept > declared + NOISE {
        return Err(format!(
            "it keeps {kept} bytes after 200 batches and has declared {declared}"
        ));
    }
    if class == ffi::MEM_BATCH && declared > NOISE && trial.case.function.is_none() {
        return Err(format!(
            "it says that it keeps nothing, and has declared {declared} bytes"
        ));
    }
    PASSED
}

fn leaks(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let rows = trial.case.rows(20);
    let cycle = || -> Result<(), String> {
        for _ in 0..40 {
            // The meters of what was bound would stay, for a report.
            collect(|| Trial::new(trial.case)?.run(&rows, Way::PLAIN).map(drop)).0?;
        }
        Ok(())
    };
    leaking(cycle)
}

/// Whether heap stays each time that `cycle` runs.
pub(super) fn leaking(cycle: impl Fn() -> Result<(), String>) -> Result<Option<String>, String> {
    cycle()?;
    let Some(before) = memory::in_use() else {
        return skipped("the allocator here does not count");
    };
    cycle()?;
    let first = memory::in_use().unwrap_or(before) - before;
    cycle()?;
    let second = memory::in_use().unwrap_or(before) - before - first;
    if first > NOISE / 8 && second > NOISE / 8 {
        return Err(format!("{second} bytes stay behind 40 instances that were destroyed"));
    }
    PASSED
}

fn binds(trial: &Trial<'_>) -> Result<Option<String>, String> {
    let case = trial.case;
    let again = Trial::new(case)?;
    let same = trial.plan.given.output == again.plan.given.output
        && (trial.plan.used == again.plan.used && trial.plan.from == again.plan.from)
        && (trial.plan.serial == again.plan.serial && trial.plan.rows_of == again.plan.rows_of)
        && trial.plan.given.out.flags == again.plan.given.out.flags;
    if !same {
        return Err("the same arguments give another plan the second time".into());
    }
    if !trial.plan.serial && trial.plan.rows_of == RowsOf::Unknown {
        return Err("it says neither that it is row-aligned nor which rows it gives".into());
    }
    if case.function.is_some() {
        return PASSED;
    }
    let config: Json = serde_json::from_str(&case.config).map_err(|error| error.to_string())?;
    missing(case, &config)?;
    other_types(case, &config)?;
    PASSED
}

/// What `bind` answers to changed arguments: `None` = it takes them.
fn complaint(case: &Case, input: &Schema, config: &Json) -> Result<Option<(String, String)>, String> {
    match bind(case, input, &config.to_string()) {
        Ok(_) => Ok(None),
        Err(refused) if spy::status() == ffi::E_PANIC => Err(format!("`bind` panics: {}", refused.message)),
        Err(refused) => Ok(Some((refused.param, refused.message))),
    }
}

/// Arguments that must be there are left out.
pub(super) fn missing(case: &Case, config: &Json) -> Result<(), String> {
    let params = case.vtable.params.unwrap_or("{}");
    let params: Json = serde_json::from_str(params).map_err(|error| error.to_string())?;
    for list in ["items", "by", "on"] {
        let least = params[list]["min"].as_u64().unwrap_or(0);
        if least == 0 || config.get(list).is_none() {
            continue;
        }
        let mut without = config.clone();
        without.as_object_mut().map(|map| map.remove(list));
        match complaint(case, &case.input, &without)? {
            None => return Err(format!("it takes a call without its `{list}`, which it says it needs")),
            Some((param, message)) if param.is_empty() && message.ends_with("without a message") => {
                return Err(format!("without its `{list}` it fails without saying what is missing"));
            }
            Some(_) => {}
        }
    }
    for option in params["options"].as_array().into_iter().flatten() {
        let name = option["name"].as_str().unwrap_or("");
        if option["required"] != Json::Bool(true) || config["options"].get(name).is_none() {
            continue;
        }
        let mut without = config.clone();
        without["options"].as_object_mut().map(|map| map.remove(name));
        match complaint(case, &case.input, &without)? {
            None => return Err(format!("it takes a call without `{name}`, which it says it needs")),
            Some((param, message)) if param != name && !message.contains(name) => {
                return Err(format!("without `{name}` it complains of something else: {message}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Columns that arguments name get other types: they are taken, or the complaint says which argument it means.
fn other_types(case: &Case, config: &Json) -> Result<(), String> {
    let others = [
        Type::Null,
        Type::Bool,
        Type::Int,
        Type::Float,
        Type::String,
        Type::Date,
        Type::Bytes,
        Type::list(Type::Int, true),
        Type::Record([Field::new("x", Type::Int, true)].into_iter().collect()),
    ];
    for (at, item) in config["items"].as_array().into_iter().flatten().enumerate() {
        let Some(column) = item["column"].as_u64().and_then(|column| usize::try_from(column).ok()) else {
            continue;
        };
        for ty in &others {
            let field = |(index, field): (usize, &Field)| match index == column {
                true => Field::new(field.name.clone(), ty.clone(), true),
                false => field.clone(),
            };
            let input: Schema = case.input.fields().iter().enumerate().map(field).collect();
            let name = case.input.get(column).map_or("", |field| &*field.name);
            match complaint(case, &input, config)? {
                Some((param, message)) if param != at.to_string() && !message.contains(name) => {
                    return Err(format!(
                        "argument {at} of type `{ty}` is refused without naming it: {message}"
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
