//! One run of a script in one of its tests.

use super::{Failure, Pipeline, Problems, Receiver, now_micros, receive};
use crate::compile::{self, Expected, GraphFormat, Options, SinkMaker, Testing};
use crate::diag::Diagnostic;
use crate::formats;
use crate::runtime::report::Report;
use crate::syntax::Parsed;
use crate::syntax::ast::Test;
use standpipe_sdk::{Batch, Cell, Column, Error, Field, Result as RunResult, Schema, Type, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that a test looks at, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub schema: Schema,
    pub rows: Vec<Vec<Value>>,
}

/// What came of a run.
pub struct TestRun {
    /// By the name of the stream, or the path in quotes.
    pub rows: BTreeMap<String, Rows>,
    /// What the test expects; empty if the script is wrong.
    pub expected: Vec<Expected>,
    pub plan: String,
    /// The report, or the code of what failed and what there is to say about it.
    pub outcome: Result<Report, Failure>,
}

type Captured = Arc<Mutex<BTreeMap<String, Rows>>>;

impl Pipeline {
    /// Runs the script for one of its tests; `parsed` is what its text was parsed to.
    pub(crate) fn test(&self, parsed: &Parsed, test: &Test, folder: &Path, scratch: &Path) -> TestRun {
        let captured = Captured::default();
        let capture = |key: &str| capture(&captured, key);
        let testing = Testing {
            test,
            folder,
            scratch,
            claim_rows: self.engine.shared.settings.hooks.chunk_rows,
            capture: &capture,
        };
        let mut run = TestRun {
            rows: BTreeMap::new(),
            expected: vec![],
            plan: String::new(),
            outcome: Err(Failure::Run(self.failed(Error::Cancelled, 0))),
        };
        run.outcome = self.test_with(parsed, &testing, &mut run);
        run.rows = std::mem::take(&mut *captured.lock().unwrap_or_else(PoisonError::into_inner));
        run
    }

    fn test_with(&self, parsed: &Parsed, testing: &Testing<'_>, run: &mut TestRun) -> Result<Report, Failure> {
        let shared = &self.engine.shared;
        let wrong = |diagnostics: Vec<Diagnostic>| {
            Failure::Script(Problems {
                source: self.source(),
                diagnostics,
            })
        };
        if parsed.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(wrong(parsed.diagnostics.clone()));
        }
        let options = Options {
            folder: &shared.folder,
            params: &[],
            assume_params: false,
            look: true,
            unreadable: &[],
            pedantic: false,
            rewrites: !shared.settings.hooks.as_written,
            any_size: shared.settings.hooks.any_size,
            print: None,
            inputs: &[],
            outputs: &[],
            stages: &shared.stages,
            plugins: &shared.plugins,
            formats: formats::list(),
            testing: Some(testing),
        };
        let mut compiled = compile::compile(&parsed.script, &self.text, &options);
        run.expected = std::mem::take(&mut compiled.expected);
        let Some(graph) = &compiled.graph else {
            return Err(wrong(compiled.diagnostics));
        };
        run.plan = compile::explain(graph, GraphFormat::Text);
        if let Some(refusal) = self.too_little_memory(&compiled) {
            return Err(wrong(vec![refusal]));
        }
        let mut settings = self.settings(&compiled);
        settings.cancel = self.cancel.clone();
        settings.now_micros = compiled.now_micros.unwrap_or(match settings.now_micros {
            0 => now_micros(),
            set => set,
        });
        self.run_graph(graph, &compiled, &settings)
    }
}

impl Failure {
    /// The codes of what is wrong.
    pub fn codes(&self) -> Vec<String> {
        match self {
            Failure::Script(problems) => {
                let errors = problems.diagnostics.iter().filter(|d| d.is_error());
                errors.map(|d| d.code.as_str().to_owned()).collect()
            }
            Failure::Run(error) => {
                let text = error.render(false);
                let code = text.strip_prefix("error[").and_then(|rest| rest.get(..5));
                code.map(str::to_owned).into_iter().collect()
            }
        }
    }
}

/// Sinks that keep the rows they are given.
fn capture(captured: &Captured, key: &str) -> SinkMaker {
    let (captured, key) = (captured.clone(), key.to_owned());
    Arc::new(move |schema: &Schema| {
        let empty = Rows {
            schema: schema.clone(),
            rows: vec![],
        };
        let lock = || captured.lock().unwrap_or_else(PoisonError::into_inner);
        lock().insert(key.clone(), empty);
        let (captured, key) = (captured.clone(), key.clone());
        let take: Receiver<'static> = Box::new(move |schema, batch| {
            let mut captured = captured.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(rows) = captured.get_mut(&key) {
                append_rows(&mut rows.rows, schema, batch)?;
            }
            Ok(())
        });
        receive::maker(Arc::new(Mutex::new(take)))(schema)
    })
}

fn append_rows(rows: &mut Vec<Vec<Value>>, schema: &Schema, batch: Batch<'_>) -> RunResult<()> {
    for row in 0..batch.rows() {
        let cells = schema.fields().iter().enumerate();
        rows.push(
            cells
                .map(|(at, field)| value(&batch.column(at), row, &field.ty))
                .collect::<RunResult<_>>()?,
        );
    }
    Ok(())
}

/// One cell as a value of its own.
fn value(column: &Column<'_>, row: usize, ty: &Type) -> RunResult<Value> {
    Ok(match (column.cell(row), ty) {
        (Cell::Null, _) => Value::Null,
        (Cell::Bool(v), _) => Value::Bool(v),
        (Cell::Int(v), _) => Value::Int(v),
        (Cell::Float(v), _) => Value::Float(v),
        (Cell::Decimal(value), Type::Decimal { scale, .. }) => Value::Decimal { value, scale: *scale },
        (Cell::String(v), _) => Value::String(v.into()),
        (Cell::Bytes(v), _) => Value::Bytes(v.into()),
        (Cell::Date(v), _) => Value::Date(v),
        (Cell::Timestamp(v), _) => Value::Timestamp(v),
        (Cell::Duration(v), _) => Value::Duration(v),
        (Cell::Json(v), _) => Value::Json(v.into()),
        (Cell::List(list), Type::List(item)) => {
            let items = (0..list.len()).map(|row| value(&list, row, &item.ty));
            Value::List(items.collect::<RunResult<_>>()?)
        }
        (Cell::Record(columns, row), Type::Record(schema)) => {
            let fields = schema.fields().iter().zip(columns);
            let field =
                |(field, column): (&Field, &Column<'_>)| Ok((field.name.to_string(), value(column, row, &field.ty)?));
            Value::Record(fields.map(field).collect::<RunResult<_>>()?)
        }
        (cell, ty) => return Err(Error::Panic(format!("{cell:?} in a column of `{ty}`"))),
    })
}
