//! The same test under other settings: it must come to the same.

use super::judge::Fault;
use super::script::{EngineMaker, Script};
use super::table;
use crate::engine::{Failure, Rows, TestRun};
use crate::syntax::ast::Test;
use standpipe_sdk::Value;

/// How a test is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub workers: usize,
    /// At most so many rows per chunk.
    pub chunk_rows: Option<usize>,
    /// What can spill spills after so many rows.
    pub spill_rows: Option<usize>,
    /// Arenas are overwritten after each reset.
    pub poison: bool,
}

impl Setting {
    /// Two workers, the rest as a run has it.
    pub fn plain() -> Setting {
        Setting {
            name: "as usual".into(),
            workers: 2,
            chunk_rows: None,
            spill_rows: None,
            poison: false,
        }
    }
}

/// The settings of the matrix.
pub fn settings() -> Vec<Setting> {
    let mut settings = vec![];
    for workers in [1, 3] {
        for (chunk, chunk_rows) in [
            ("chunks of 1 row", Some(1)),
            ("chunks of 7 rows", Some(7)),
            ("usual chunks", None),
        ] {
            settings.push(Setting {
                name: format!("{workers} worker{}, {chunk}", if workers == 1 { "" } else { "s" }),
                workers,
                chunk_rows,
                spill_rows: None,
                poison: true,
            });
        }
    }
    for (spill_rows, chunk_rows) in [(1, Some(1)), (3, Some(7))] {
        settings.push(Setting {
            name: format!(
                "3 workers, chunks of {} row(s), spilling after {spill_rows} row(s)",
                chunk_rows.unwrap_or(0)
            ),
            workers: 3,
            chunk_rows,
            spill_rows: Some(spill_rows),
            poison: true,
        });
    }
    settings
}

/// The first difference under each setting that has one.
pub fn differences(script: &Script, test: &Test, engine: &EngineMaker<'_>, plain: &TestRun) -> Vec<Fault> {
    let mut faults = vec![];
    for setting in settings() {
        let fault = |message: String, detail: Vec<String>| Fault {
            message: format!("{message} ({})", setting.name),
            place: script.place(test.name.span),
            detail,
        };
        faults.extend(match script.once(test, engine(), &setting) {
            Err(error) => Some(fault(format!("cannot make a folder: {error}"), vec![])),
            Ok(run) => difference(script, plain, &run).map(|(message, detail)| fault(message, detail)),
        });
    }
    faults
}

fn difference(script: &Script, plain: &TestRun, other: &TestRun) -> Option<(String, Vec<String>)> {
    let text = |outcome: &Result<_, Failure>| match outcome {
        Ok(_) => "(the run succeeded)".to_owned(),
        Err(failure) => script.explain(failure, false).trim_end().to_owned(),
    };
    let (usual, here) = (text(&plain.outcome), text(&other.outcome));
    if usual != here {
        let lines = |mark: char, text: &str| text.lines().map(|line| format!("{mark} {line}")).collect::<Vec<_>>();
        return Some((
            "the run ends otherwise".to_owned(),
            [lines('-', &usual), lines('+', &here)].concat(),
        ));
    }
    if plain.outcome.is_err() {
        // Of a run that failed only the error is promised.
        return None;
    }
    let nothing = Rows::default();
    for key in plain.rows.keys().chain(other.rows.keys()) {
        let (a, b) = (
            plain.rows.get(key).unwrap_or(&nothing),
            other.rows.get(key).unwrap_or(&nothing),
        );
        let equal = |at: usize| match (a.rows.get(at), b.rows.get(at)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (a, b) => a.is_none() && b.is_none(),
        };
        let Some(at) = (0..a.rows.len().max(b.rows.len())).find(|&at| !equal(at)) else {
            continue;
        };
        let row = |rows: &Rows| match rows.rows.get(at) {
            Some(row) => {
                let cells = row.iter().zip(a.schema.fields());
                cells.map(|(value, field)| table::cell(value, &field.ty)).collect()
            }
            None => vec!["(no row)".to_owned()],
        };
        let names = a.schema.fields().iter().map(|field| field.name.to_string()).collect();
        let lines = table::aligned(&[names, row(a), row(b)]);
        let marked = [' ', '-', '+']
            .iter()
            .zip(lines)
            .map(|(mark, line)| format!("{mark} {line}"));
        return Some((format!("row {} of {key} is another", at + 1), marked.collect()));
    }
    None
}

/// Whether two values are the same to the last bit.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Record(a), Value::Record(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((n, a), (m, b))| n == m && same(a, b))
        }
        (a, b) => a == b,
    }
}
