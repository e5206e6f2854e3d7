//! Expectations against what came of a run.

use super::script::Script;
use super::snapshot::{self, Mode};
use super::table::{self, Look};
use super::{diff, matrix};
use crate::compile::{Expected, What};
use crate::engine::{Rows, TestRun};
use crate::expr::Cmp;
use crate::syntax::ast::Test;
use standpipe_sdk::{Schema, Value};
use std::path::PathBuf;
use std::time::Duration;

/// What is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One line.
    pub message: String,
    /// Where it stands: `orders_test.pipe:12`.
    pub place: String,
    /// The difference, line by line.
    pub detail: Vec<String>,
}

/// What a test came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Empty if it passed.
    pub faults: Vec<Fault>,
    /// Snapshots that it refers to.
    pub snapshots: Vec<PathBuf>,
    /// Those of them that wait for somebody to accept them.
    pub pending: Vec<PathBuf>,
    /// How many were written.
    pub accepted: usize,
    /// The script or the test is wrong: nothing ran.
    pub is_wrong: bool,
    pub elapsed: Duration,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn broken(message: String) -> Verdict {
        Verdict {
            faults: vec![Fault {
                message,
                place: String::new(),
                detail: vec![],
            }],
            ..Verdict::default()
        }
    }
}

fn holds(op: Cmp, a: i64, b: i64) -> bool {
    match op {
        Cmp::Eq => a == b,
        Cmp::Ne => a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
    }
}

pub(super) fn judge(script: &Script, test: &Test, run: &TestRun, mode: Mode) -> Verdict {
    let mut verdict = Verdict::default();
    let wanted: Vec<(&Expected, &String)> = (run.expected.iter())
        .filter_map(|expected| match &expected.what {
            What::Error { code } => Some((expected, code)),
            _ => None,
        })
        .collect();
    let fault = |place: String, message: String, detail: Vec<String>| Fault { message, place, detail };
    match &run.outcome {
        Err(failure) => {
            let codes = failure.codes();
            // A script that does not compile leaves no expectations: those of the text count.
            let from_text = super::judge::codes_of(test);
            let met = !from_text.is_empty() && from_text.iter().all(|code| codes.contains(code));
            if !met {
                verdict.is_wrong = matches!(failure, crate::engine::Failure::Script(_));
                let message = match from_text.first() {
                    Some(code) => format!("expected error {code}, got {}", codes.join(", ")),
                    None if verdict.is_wrong => "the script and the test do not fit".to_owned(),
                    None => "the run failed".to_owned(),
                };
                let text = script.explain(failure, false);
                verdict.faults.push(fault(
                    script.place(test.name.span),
                    message,
                    text.trim_end().lines().map(str::to_owned).collect(),
                ));
            }
            let keys = run.expected.iter().filter_map(|expected| match &expected.what {
                What::Snapshot { key, .. } => Some(key.as_str()),
                What::Plan => Some("plan"),
                _ => None,
            });
            verdict
                .snapshots
                .extend(keys.map(|key| script.snapshot(&test.name.value, key)));
            return verdict;
        }
        Ok(_) => {
            for (expected, code) in wanted {
                verdict.faults.push(fault(
                    script.place(expected.span),
                    format!("expected error {code}, the run succeeded"),
                    vec![],
                ));
            }
        }
    }
    let Ok(report) = &run.outcome else { return verdict };
    let nothing = Rows::default();
    for expected in &run.expected {
        let rows = |key: &String| run.rows.get(key).unwrap_or(&nothing);
        let mut say = |message: String, detail: Vec<String>| {
            verdict.faults.push(fault(script.place(expected.span), message, detail));
        };
        match &expected.what {
            What::Rows {
                key,
                columns,
                rows: wanted,
                any_order,
                within,
            } => {
                let detail = rows_differ(rows(key), columns, wanted, *any_order, *within);
                if !detail.is_empty() {
                    say(format!("the rows of {key} are not those expected"), detail);
                }
            }
            What::Schema { key, differs } => {
                if !differs.is_empty() {
                    say(format!("the schema of {key} is another"), differs.clone());
                }
            }
            What::Count { key, op, rows: wanted } => {
                let got = rows(key).rows.len() as i64;
                if !holds(*op, got, *wanted) {
                    say(format!("{key} has {got} rows; {}", script.quote(expected.span)), vec![]);
                }
            }
            What::PeakMemory { op, bytes } => {
                let arenas = report.peak_arena_bytes.saturating_mul(report.workers.max(1));
                let got = arenas.saturating_add(report.peak_reserved_bytes) as i64;
                if !holds(*op, got, *bytes) {
                    say(
                        format!("the peak of memory is {got} bytes; {}", script.quote(expected.span)),
                        vec![],
                    );
                }
            }
            What::PeakDisk { op, bytes } => {
                let got = report.peak_spilled_bytes as i64;
                if !holds(*op, got, *bytes) {
                    say(
                        format!("the peak on disk is {got} bytes; {}", script.quote(expected.span)),
                        vec![],
                    );
                }
            }
            What::Error { .. } => {}
            What::Snapshot { .. } | What::Plan => {
                let (key, body, info) = match &expected.what {
                    What::Snapshot { key, redact, digits } => {
                        let look = Look {
                            redact: redact.clone(),
                            digits: digits.clone(),
                        };
                        let rows = rows(key);
                        (key.as_str(), table::table(rows, &look), Some(rows))
                    }
                    _ => ("plan", run.plan.clone(), None),
                };
                let path = script.snapshot(&test.name.value, key);
                let header = snapshot::Header {
                    script: script.name.clone(),
                    test: test.name.value.clone(),
                    stream: key.trim_matches('"').to_owned(),
                    schema: info.map(|rows| schema(&rows.schema)),
                    rows: info.map(|rows| rows.rows.len()),
                };
                verdict.snapshots.push(path.clone());
                match snapshot::compare(&path, &header, &body, mode) {
                    Ok(snapshot::Compared::Same) => {}
                    Ok(snapshot::Compared::Accepted) => verdict.accepted += 1,
                    Ok(snapshot::Compared::Differs { old, pending }) => {
                        let message = match &old {
                            Some(_) => format!("the snapshot of {key} is another: {}", path.display()),
                            None => format!("{key} has no snapshot yet: {}", path.display()),
                        };
                        let detail = match old {
                            Some(old) => diff::texts(&old, &body),
                            None => diff::new(&body),
                        };
                        verdict.faults.push(fault(script.place(expected.span), message, detail));
                        verdict.pending.extend(pending.then_some(path));
                    }
                    Err(message) => verdict.faults.push(fault(script.place(expected.span), message, vec![])),
                }
            }
        }
    }
    verdict
}

/// The codes that a test expects, as it says.
pub(super) fn codes_of(test: &Test) -> Vec<String> {
    use crate::syntax::ast::{Expect, TestStepKind};
    let steps = test.steps.iter().filter_map(|step| match &step.kind {
        TestStepKind::Expect(Expect::Error { code }) => Some(code.text.clone()),
        _ => None,
    });
    steps.collect()
}

fn schema(schema: &Schema) -> String {
    let fields: Vec<String> = schema.fields().iter().map(ToString::to_string).collect();
    fields.join(", ")
}

/// The difference of the named columns; empty if there is none.
fn rows_differ(
    got: &Rows,
    columns: &[usize],
    wanted: &[Vec<Option<Value>>],
    any_order: bool,
    within: Option<f64>,
) -> Vec<String> {
    let meets = |wanted: &[Option<Value>], row: &[Value]| {
        let cells = wanted.iter().zip(columns);
        let mut cells = cells.filter_map(|(value, &at)| Some((value.as_ref()?, row.get(at)?)));
        cells.all(|(wanted, got)| equal(wanted, got, within))
    };
    // Wanted rows in the order of what they met.
    let mut order: Vec<Option<usize>> = vec![];
    if any_order {
        let mut left: Vec<usize> = (0..wanted.len()).collect();
        for row in &got.rows {
            let met = left.iter().position(|&at| meets(&wanted[at], row));
            order.push(met.map(|at| left.remove(at)));
        }
        if left.is_empty() && order.iter().all(Option::is_some) {
            return vec![];
        }
        let mut left = left.into_iter();
        for place in order.iter_mut().filter(|place| place.is_none()) {
            *place = left.next();
        }
        order.extend(left.map(Some));
    } else {
        let same =
            got.rows.len() == wanted.len() && got.rows.iter().zip(wanted).all(|(row, wanted)| meets(wanted, row));
        if same {
            return vec![];
        }
        order = (0..wanted.len()).map(Some).collect();
    }
    let fields = got.schema.fields();
    let names: Vec<String> = columns
        .iter()
        .filter_map(|&at| Some(fields.get(at)?.name.to_string()))
        .collect();
    let cell = |value: &Value, at: usize| {
        fields
            .get(at)
            .map_or_else(String::new, |field| table::cell(value, &field.ty))
    };
    let mut is: Vec<Vec<String>> = vec![names.clone()];
    is.extend(
        got.rows
            .iter()
            .map(|row| columns.iter().map(|&at| cell(&row[at], at)).collect()),
    );
    let mut should = vec![names];
    for (place, at) in order.iter().enumerate().filter_map(|(place, at)| Some((place, (*at)?))) {
        let cells = wanted[at].iter().zip(columns);
        let line = cells.map(|(value, &column)| {
            let real = got.rows.get(place).map(|row| &row[column]);
            match (value, real) {
                // What is near enough, or nothing is said of, is shown as it is: only true differences are marked.
                (Some(value), Some(real)) if equal(value, real, within) => cell(real, column),
                (None, Some(real)) => cell(real, column),
                (Some(value), _) => cell(value, column),
                (None, None) => String::new(),
            }
        });
        should.push(line.collect());
    }
    diff::tables(&should, &is)
}

/// Whether an expected value is the one that is there.
fn equal(wanted: &Value, got: &Value, within: Option<f64>) -> bool {
    match (wanted, got) {
        (Value::Float(a), Value::Float(b)) => {
            let near = within.is_some_and(|within| (a - b).abs() <= within);
            // -0.0 equals 0.0, as in the language; NaN is expected by writing it.
            near || a == b || (a.is_nan() && b.is_nan())
        }
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b, within)),
        (Value::Record(a), Value::Record(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((n, a), (m, b))| n == m && equal(a, b, within))
        }
        (Value::Json(a), Value::Json(b)) => {
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            a == b || parse(a).is_some_and(|a| Some(a) == parse(b))
        }
        (wanted, got) => matrix::same(wanted, got),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::{Field, Type};

    fn got() -> Rows {
        Rows {
            schema: Schema::new(vec![
                Field::new("id", Type::Int, false),
                Field::new("x", Type::Float, true),
            ]),
            rows: vec![
                vec![Value::Int(1), Value::Float(0.1 + 0.2)],
                vec![Value::Int(2), Value::Null],
            ],
        }
    }

    fn wanted(rows: &[(i64, Option<f64>)]) -> Vec<Vec<Option<Value>>> {
        let row = |&(id, x): &(i64, Option<f64>)| vec![Some(Value::Int(id)), Some(x.map_or(Value::Null, Value::Float))];
        rows.iter().map(row).collect()
    }

    #[test]
    fn rows_are_met_in_order_or_in_any_exactly_or_nearly() {
        let both = wanted(&[(1, Some(0.3)), (2, None)]);
        let turned = wanted(&[(2, None), (1, Some(0.3))]);
        let differ =
            |rows: &[Vec<Option<Value>>], any, within| !rows_differ(&got(), &[0, 1], rows, any, within).is_empty();
        assert!(differ(&both, false, None));
        assert!(!differ(&both, false, Some(1e-9)));
        assert!(differ(&turned, false, Some(1e-9)));
        assert!(!differ(&turned, true, Some(1e-9)));
        assert!(differ(&both[..1], true, Some(1e-9)));
        assert!(differ(
            &wanted(&[(1, Some(0.3)), (2, None), (2, None)]),
            true,
            Some(1e-9)
        ));
    }

    #[test]
    fn only_cells_that_differ_are_marked() {
        let rows = wanted(&[(1, Some(0.3)), (3, None)]);
        assert_eq!(
            rows_differ(&got(), &[0, 1], &rows, false, Some(1e-9)).join("\n"),
            "  id    | x\n  1     | 0.30000000000000004\n~ 3 → 2 |"
        );
        // A row that says nothing of a column.
        let open = vec![vec![Some(Value::Int(1)), None], vec![Some(Value::Int(2)), None]];
        assert!(rows_differ(&got(), &[0, 1], &open, false, None).is_empty());
    }
}
