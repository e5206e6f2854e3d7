//! From syntax tree to graph: the one room where names meet specs.
//!
//! Resolve → check → rewrite → graph. [`compile`] reads the schemas of the script's sources and writes nothing.
//!
//! Laws
//! - Every problem of a script is reported at once; what follows from a problem that was reported is not reported again.
//! - Stages never see expressions: an expression argument becomes a computed column behind the stream's own.
//! - A stage is known by its spec's data, never by its name.
//! - No rewrite changes which rows fail.

mod aggregates;
mod attributes;
mod call;
mod draft;
mod explain;
mod expressions;
mod functions;
mod hints;
mod literals;
mod names;
mod pipelines;
mod plugins;
mod probes;
mod report;
mod rewrite;
mod rows;
mod sinks;
mod sources;
mod tested;
mod types;
mod values;
mod wiring;

#[cfg(test)]
mod tests;

use crate::diag::{Diagnostic, Span};
use crate::graph::Graph;
use crate::plugin::{self, Meter, Plugins};
use crate::syntax::ast::Script;
use standpipe_sdk::spec::{Factory, FormatSpec, Request, Setup, StageSpec};
use standpipe_sdk::{Schema, Sink, Source, Value};
use std::path::Path;
use std::sync::Arc;
pub use tested::{Expected, Testing, What};

pub use explain::{GraphFormat, explain};

/// Makes the sink of a schema: what prints the last pipeline, or hands rows to Rust.
pub type SinkMaker = Arc<dyn Fn(&Schema) -> Factory<Arc<dyn Sink>> + Send + Sync>;

/// Makes the source of rows that come from Rust.
pub type SourceMaker = Arc<dyn Fn(&Setup, &Request) -> standpipe_sdk::Result<Arc<dyn Source>> + Send + Sync>;

/// The value of a `param`, from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// As typed on a command line: parsed by the parameter's type.
    Text(String),
    /// As a program gives it: it must have the parameter's type.
    Value(Value),
}

/// A stream that Rust feeds: `from NAME`.
#[derive(Clone)]
pub struct Input {
    pub name: String,
    pub schema: Schema,
    pub make: SourceMaker,
}

/// A stream whose rows Rust takes.
#[derive(Clone)]
pub struct Output {
    pub name: String,
    pub make: SinkMaker,
}

/// What the checker is told beside the script.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where relative paths start.
    pub folder: &'a Path,
    /// Values of parameters; for a name that stands twice the last one counts.
    pub params: &'a [(String, Given)],
    /// A parameter that needs a value and has none gets one of its type, so that `check` can go on. Such a graph is not to be run.
    pub assume_params: bool,
    /// Look at the files for their schemas.
    pub look: bool,
    /// Where the parser reported errors: what looks unused may be used there, what is said of such a statement only follows.
    pub unreadable: &'a [Span],
    /// Warn about what is only questionable.
    pub pedantic: bool,
    /// Rewrite the graph before it runs. Without it the result is the same, later: for tests.
    pub rewrites: bool,
    /// Rewrite also what only the sizes of files speak against: for tests.
    pub any_size: bool,
    /// The sink of a last pipeline without one.
    pub print: Option<&'a SinkMaker>,
    pub inputs: &'a [Input],
    pub outputs: &'a [Output],
    pub stages: &'a [&'static StageSpec],
    /// Where the plugins come from that the script uses.
    pub plugins: &'a Plugins,
    pub formats: &'a [&'static FormatSpec],
    /// The test of the script that it is run for.
    pub testing: Option<&'a Testing<'a>>,
}

/// What `@budget` says, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub memory: Option<u64>,
    pub disk: Option<u64>,
}

/// What a script came to.
pub struct Compiled {
    /// There iff no diagnostic is an error.
    pub graph: Option<Graph>,
    /// In the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    pub limits: Limits,
    /// What was bound of plugins.
    pub meters: Vec<Arc<Meter>>,
    /// What the test expects, where it is compiled for one.
    pub expected: Vec<Expected>,
    /// What `now()` gives in the test.
    pub now_micros: Option<i64>,
}

/// Room for the deepest expression in a build without optimisation; pages that are not touched cost nothing.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 256 << 20 } else { 64 << 20 };

/// Checks `script`, whose text is `text`, and plans it.
///
/// Expressions are walked by recursion: it works on a thread with a stack of its own, or on the caller's if there is none to be had.
pub fn compile(script: &Script, text: &str, options: &Options<'_>) -> Compiled {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, || work(script, text, options)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => work(script, text, options),
        }
    })
}

/// Whether a diagnostic only says again that something could not be read: it is about that very text, misses what stands there, or
/// misses the name that it declares.
fn follows_from_syntax(diagnostic: &Diagnostic, text: &str, unreadable: &[Span]) -> bool {
    let at = diagnostic.primary.span;
    let overlaps = |error: &Span| error.start < at.end && at.start < error.end;
    // Nothing but blanks between `derive` and what is wrong with its first item.
    let is_next = |error: &Span| {
        at.end <= error.start
            && Span {
                start: at.end,
                end: error.start,
            }
            .of(text)
            .trim()
            .is_empty()
    };
    if unreadable.iter().any(overlaps) {
        return true;
    }
    match diagnostic.code.as_str() {
        "E0502" => unreadable.iter().any(is_next),
        "E0202" | "E0203" | "E0205" | "E0207" if !unreadable.is_empty() => {
            let name = at.of(text).trim_matches('`');
            let declares = |word: &str| text.contains(&format!("{word} {name}"));
            !name.is_empty()
                && ["stream", "to", "let", "param", "fn", "schema"]
                    .into_iter()
                    .any(declares)
        }
        _ => false,
    }
}

fn work(script: &Script, text: &str, options: &Options<'_>) -> Compiled {
    let (mut compiled, meters) = plugin::collect(|| checked(script, text, options));
    compiled.meters = meters;
    compiled
}

fn checked(script: &Script, text: &str, options: &Options<'_>) -> Compiled {
    let checker = report::Checker::new(script, text, options);
    checker.declare();
    let attributes = checker.attributes();
    let units = checker.units(&attributes);
    let (mut draft, expected) = pipelines::Builder::new(&checker, &attributes).build(&units);
    let now_micros = checker.now_of_test();
    checker.report_unused(&units);
    if !checker.has_errors() {
        rewrite::order(&mut draft, &checker);
    }
    let mut diagnostics = checker.finish();
    diagnostics.retain(|d| !follows_from_syntax(d, text, options.unreadable));
    let graph = if diagnostics.iter().any(Diagnostic::is_error) {
        None
    } else {
        Some(rewrite::finish(draft, options.rewrites, options.any_size))
    };
    Compiled {
        graph,
        diagnostics,
        limits: attributes.limits,
        meters: vec![],
        expected,
        now_micros,
    }
}
