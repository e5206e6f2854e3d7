//! Tests of pipelines in Rust programs: rows in, a snapshot out.
//!
//! ```
//! use standpipe::testing::Fixture;
//!
//! let table = Fixture::new("stream big = read csv \"orders.csv\" | filter total > 10\nfrom big | write csv \"big.csv\"")
//!     .given("orders.csv", "id | total\n1 | 8\n2 | 12")
//!     .run("big")?;
//! assert_eq!(table, "id   | total\nint? | int?\n------------\n2    | 12\n");
//! # Ok::<(), String>(())
//! ```

use super::matrix::{self, Setting};
use super::script::{EngineMaker, Script};
use super::snapshot::Mode;
use super::table::{self, Look};
use crate::engine::{Engine, EngineBuilder};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A script with rows in the place of its inputs.
#[derive(Clone)]
pub struct Fixture {
    text: String,
    steps: String,
    folder: PathBuf,
    engine: fn() -> EngineBuilder,
}

impl Fixture {
    /// A script and no rows yet.
    pub fn new(script: impl Into<String>) -> Fixture {
        Fixture {
            text: script.into(),
            steps: String::new(),
            folder: PathBuf::new(),
            engine: Engine::builder,
        }
    }

    /// The engine that scripts run in: with stages, functions and plugins of the host.
    #[must_use]
    pub fn engine(mut self, engine: fn() -> EngineBuilder) -> Fixture {
        self.engine = engine;
        self
    }

    /// Rows for the source with this path, as the lines of a `table { }`: names first, cells between bars.
    #[must_use]
    pub fn given(mut self, path: &str, table: &str) -> Fixture {
        let _ = write!(self.steps, "  given {path:?} = table {{\n{}\n  }}\n", table.trim_end());
        self
    }

    /// Rows in the place of a stream.
    #[must_use]
    pub fn given_stream(mut self, name: &str, table: &str) -> Fixture {
        let _ = write!(self.steps, "  given {name} = table {{\n{}\n  }}\n", table.trim_end());
        self
    }

    /// The value of a parameter, or of `now`, as a literal of the language: `@2026-01-31`.
    #[must_use]
    pub fn with(mut self, name: &str, literal: &str) -> Fixture {
        let _ = writeln!(self.steps, "  with {name} = {literal}");
        self
    }

    /// The rows of a stream as an aligned table; the same ones whatever the workers, the chunks, and what spills.
    ///
    /// # Errors
    /// What is wrong with the script or the rows, why the run failed, or which setting made a difference.
    pub fn run(&self, stream: &str) -> Result<String, String> {
        let tests = format!("test \"fixture\" {{\n{}  expect {stream} snapshot\n}}\n", self.steps);
        let tests = crate::diag::Source::new("fixture", tests);
        let script = Script::new("script", "script", &self.folder, self.text.clone(), Some(tests));
        let mistakes = script.mistakes(false);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let tests = script.tests();
        let test = tests.last().ok_or("there is no test")?;
        let run = script
            .once(test, (self.engine)(), &Setting::plain())
            .map_err(|error| format!("cannot make a folder for the run: {error}"))?;
        if let Err(failure) = &run.outcome {
            return Err(script.explain(failure, false));
        }
        if let Some(fault) = matrix::differences(&script, test, &self.engine, &run).first() {
            return Err(format!("{}\n{}", fault.message, fault.detail.join("\n")));
        }
        let rows = run
            .rows
            .get(stream)
            .ok_or_else(|| format!("there are no rows of `{stream}`"))?;
        Ok(table::table(rows, &Look::default()))
    }
}

/// Runs the tests of a script, in it and beside it, as `standpipe test --ci` does: under all settings, nothing is written. How many
/// there are. For plugins: the engine knows the library.
///
/// ```no_run
/// # use standpipe::{Engine, testing};
/// let passed = testing::run_tests("tests/geo.pipe", &|| Engine::builder().plugin("target/debug/libgeo.so"))?;
/// assert!(passed > 0);
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// What is wrong with the script, or which tests fail and why.
pub fn run_tests(path: impl AsRef<Path>, engine: &EngineMaker<'_>) -> Result<usize, String> {
    let script = Script::open(path.as_ref())?;
    let mistakes = script.mistakes(false);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let tests = script.tests();
    let mut said = String::new();
    for test in &tests {
        let verdict = script.run(test, engine, Mode::Frozen, true);
        for fault in verdict.faults {
            let _ = writeln!(said, "{}: {}: {}", test.name.value, fault.place, fault.message);
            said.push_str(
                &fault
                    .detail
                    .iter()
                    .map(|line| format!("  {line}\n"))
                    .collect::<String>(),
            );
        }
    }
    if said.is_empty() { Ok(tests.len()) } else { Err(said) }
}

/// Compares the rows of a stream with an `insta` snapshot: `assert_pipeline_snapshot!(fixture, "stream")`, or with a name of the
/// snapshot before both. The caller's crate has `insta` among its dev-dependencies; all of its settings and `cargo insta review` apply.
///
/// It panics as `insta` does, and if the script is wrong or a setting makes a difference.
#[macro_export]
macro_rules! assert_pipeline_snapshot {
    ($fixture:expr, $stream:expr $(,)?) => {
        match $fixture.run($stream) {
            Ok(table) => ::insta::assert_snapshot!(table),
            Err(problem) => panic!("{problem}"),
        }
    };
    ($name:expr, $fixture:expr, $stream:expr $(,)?) => {
        match $fixture.run($stream) {
            Ok(table) => ::insta::assert_snapshot!($name, table),
            Err(problem) => panic!("{problem}"),
        }
    };
}
