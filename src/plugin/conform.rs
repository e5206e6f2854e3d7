//! What a plugin promises, tried out: the checks behind `standpipe plugin test`.
//!
//! How it works: a script with the stage in it is compiled while [`record`] listens, which gives *cases*: the stage as it was bound, with
//! the columns and arguments that the host really computes, and the rows of the script. A [`check`](run) then drives the host's own
//! objects with such a case, over a table of services ([`spy`]) that can refuse, watches what is written, and sees what each call
//! answered. So what passes here is what runs there, and there is no second host.
//!
//! Laws
//! - One check is one process: the table of services is the process's, a crash ends that check alone.
//! - A stage that gives up with words of its own (`SP_E_DATA`) is no fault; it must do so every time. A panic is one, and so is
//!   whatever the host refuses to believe.

mod aggregate;
mod checks;
mod data;
mod drive;
mod memory;
mod sink;
mod source;
mod spy;

pub use aggregate::AGGREGATE_CHECKS;
pub use checks::CHECKS;
pub use sink::CHECKS as SINK_CHECKS;
pub use source::CHECKS as SOURCE_CHECKS;

use super::aggregate::Table;
use super::bind::Vtable;
use aggregate::Aggregated;
use standpipe_sdk::{Batch, Schema, Value, ffi, values};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// How a check went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    /// It has nothing to look at.
    Skipped(String),
    Failed(String),
}

/// The most rows of a script that a case keeps.
const MOST_ROWS: usize = 200;

/// A stage or function with arguments that it takes.
pub struct Case {
    vtable: Vtable,
    /// A function, with those of its arguments that are constants.
    function: Option<Vec<Option<Value>>>,
    input: Schema,
    own: usize,
    config: String,
    rows: Vec<Vec<Value>>,
    /// An aggregate; its arguments that are constants stand in `function`.
    aggregate: Option<Aggregated>,
}

/// Tries a check on these cases. Once per process: what plugins get as their host is the check's from now on.
///
/// `scratch` is a folder for nothing else, in which the process is: sinks write into it, and all files in it are deleted between trials.
pub fn run(name: &str, cases: &[Case], scratch: &Path) -> Outcome {
    sink::try_in(scratch);
    spy::listen(name == "newer host");
    match cases.first() {
        Some(case) if case.aggregate.is_some() => aggregate::run(name, cases),
        Some(case) if case.vtable.stage.kind == ffi::KIND_SOURCE => source::run(name, cases),
        _ => checks::run(name, cases),
    }
}

impl Case {
    /// The qualified name of the stage or function.
    pub fn name(&self) -> &'static str {
        self.vtable.name
    }

    fn is_sink(&self) -> bool {
        self.vtable.stage.kind == ffi::KIND_SINK
    }
}

static RECORDING: AtomicBool = AtomicBool::new(false);
static CASES: Mutex<Vec<Case>> = Mutex::new(vec![]);

/// Runs `f`; with what it gave comes what was bound meanwhile, by anybody in this process, and the rows that it got.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Vec<Case>) {
    CASES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    RECORDING.store(true, Relaxed);
    let outcome = f();
    RECORDING.store(false, Relaxed);
    let cases = std::mem::take(&mut *CASES.lock().unwrap_or_else(PoisonError::into_inner));
    (outcome, cases)
}

/// Hears that something was bound.
pub(super) fn bound(vtable: Vtable, function: Option<Vec<Option<Value>>>, input: &Schema, own: usize, config: &str) {
    if RECORDING.load(Relaxed) {
        CASES.lock().unwrap_or_else(PoisonError::into_inner).push(Case {
            vtable,
            function,
            input: input.clone(),
            own,
            config: config.to_owned(),
            rows: vec![],
            aggregate: None,
        });
    }
}

/// Hears that an aggregate was bound.
pub(super) fn aggregated(
    vtable: Vtable,
    table: Table,
    columns: usize,
    constants: Vec<Option<Value>>,
    input: &Schema,
    config: &str,
) {
    bound(vtable, Some(constants), input, input.width(), config);
    if RECORDING.load(Relaxed)
        && let Some(case) = CASES.lock().unwrap_or_else(PoisonError::into_inner).last_mut()
    {
        case.aggregate = Some(Aggregated { table, columns });
    }
}

/// Hears which rows a stage gets; columns that it does not read have no values.
pub(super) fn seen(name: &str, batch: &Batch<'_>) {
    if !RECORDING.load(Relaxed) {
        return;
    }
    let mut cases = CASES.lock().unwrap_or_else(PoisonError::into_inner);
    let case = cases.iter_mut().rev().find(|case| case.vtable.name == name);
    if let Some(case) = case.filter(|case| case.rows.len() < MOST_ROWS) {
        let rows = values::rows(batch, &case.input);
        case.rows.extend(rows);
    }
}
