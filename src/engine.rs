//! The façade: compile a script, give it parameters and rows, run it, look at what happened.
//!
//! ```
//! use standpipe::Engine;
//!
//! let engine = Engine::builder().workers(2).build();
//! let mut pipeline = engine.compile("sum.pipe", "param most: int = 3\nfrom range(1, 10) | filter value <= most")?;
//! pipeline.param("most", 2);
//! let mut seen = Vec::new();
//! pipeline.run_with(|_, batch| {
//!     seen.extend((0..batch.rows()).map(|row| format!("{:?}", batch.column(0).cell(row))));
//!     Ok(())
//! })?;
//! assert_eq!(seen, ["Int(1)", "Int(2)"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod about;
mod feed;
mod memory;
mod receive;
mod tested;

pub use about::{About, AboutParam};
pub use memory::MemoryPlan;
pub use tested::{Rows, TestRun};

use crate::compile::{self, Compiled, Given, GraphFormat, Input, Options, Output, SinkMaker};
use crate::diag::{self, DataPlace, Diagnostic, Source as Text};
use crate::formats;
use crate::graph::{Graph, Op};
use crate::plugin::{self, Plugins};
use crate::runtime::progress::Progress;
use crate::runtime::report::Report;
use crate::runtime::settings::{Hooks, Settings};
use crate::runtime::{self};
use crate::stages;
use crate::syntax;
use standpipe_sdk::spec::{Factory, FormatSpec, Make, Say, StageSpec};
use standpipe_sdk::{Batch, Error, Kept, Result as RunResult, Schema, Sink, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Settings and surroundings that scripts run in.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    folder: PathBuf,
    /// `false`: a `@budget(memory:)` of the script gives way to the memory set here.
    script_decides: bool,
    pedantic: bool,
    inputs: Vec<(String, Schema)>,
    outputs: Vec<String>,
    on_start: Option<OnStart>,
    stages: Vec<&'static StageSpec>,
    formats: Vec<&'static FormatSpec>,
    plugins: Plugins,
}

/// Makes an [`Engine`].
pub struct EngineBuilder {
    shared: Shared,
}

impl EngineBuilder {
    /// Threads that work on chunks; all cores by default.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.shared.settings.workers = workers.max(1);
        self
    }

    /// The memory of a run, in bytes; it wins over `@budget(memory:)` of a script.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.shared.settings.memory_bytes = bytes;
        self.shared.script_decides = false;
        self
    }

    /// About how much input one chunk takes, in bytes.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.shared.settings.chunk_bytes = bytes.max(1);
        self
    }

    /// The longest record, in bytes.
    #[must_use]
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.shared.settings.max_record = bytes.max(1);
        self
    }

    /// Where what does not fit into memory goes; the system's folder for temporary files by default.
    #[must_use]
    pub fn spill_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.shared.settings.spill_dir = folder.into();
        self
    }

    /// The most bytes of it at one time; it wins over `@budget(disk:)` of a script. By default, what is free there.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.shared.settings.disk_bytes = Some(bytes);
        self
    }

    /// Where relative paths start; the current folder by default.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.shared.folder = folder.into();
        self
    }

    /// Whether outputs are synced to disk before they get their names; they are by default.
    #[must_use]
    pub fn sync(mut self, on: bool) -> Self {
        self.shared.settings.sync = on;
        self
    }

    /// What `now()` gives, in microseconds since 1970-01-01T00:00:00Z; the start of each run by default.
    #[must_use]
    pub fn now_micros(mut self, micros: i64) -> Self {
        self.shared.settings.now_micros = micros;
        self
    }

    /// Where stages say things to people (`tap`); stderr by default.
    #[must_use]
    pub fn say(mut self, say: Say) -> Self {
        self.shared.settings.say = say;
        self
    }

    /// Warn about what is only questionable.
    #[must_use]
    pub fn pedantic(mut self, on: bool) -> Self {
        self.shared.pedantic = on;
        self
    }

    /// A stream that scripts can use and [`Pipeline::feed`] gives the rows of.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, schema: Schema) -> Self {
        self.shared.inputs.push((name.into(), schema));
        self
    }

    /// A stream of the scripts whose rows [`Pipeline::receive`] takes.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.shared.outputs.push(name.into());
        self
    }

    /// What to call when a script has been checked and its first row is about to be read; it gets the warnings.
    #[must_use]
    pub fn on_start(mut self, call: OnStart) -> Self {
        self.shared.on_start = Some(call);
        self
    }

    /// A stage beside the built-in ones, of Rust or of a plugin. Where two have one name, the earlier one is meant.
    #[must_use]
    pub fn stage(mut self, spec: &'static StageSpec) -> Self {
        self.shared.stages.push(spec);
        self
    }

    /// A format beside the built-in ones, for `read` and `write`. Where two have one name, the earlier one is meant.
    #[must_use]
    pub fn format(mut self, spec: &'static FormatSpec) -> Self {
        self.shared.formats.push(spec);
        self
    }

    /// A plugin's library that scripts can use: trusted, because the caller names it. It wins over the project's of that name.
    #[must_use]
    pub fn plugin(mut self, path: impl Into<PathBuf>) -> Self {
        self.shared.plugins.paths.push(path.into());
        self
    }

    /// The program that runs the processes of plugins with `isolate = "process"`: `standpipe` itself, or one that calls
    /// [`plugin::work`] when its first argument is [`plugin::WORKER_COMMAND`]. Without one such plugins are refused.
    #[must_use]
    pub fn plugin_worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.shared.plugins.worker = Some(program.into());
        self
    }

    /// The folder of the project that says which plugins there are and which are trusted, or one below it; where relative paths
    /// start by default.
    #[must_use]
    pub fn project(mut self, folder: impl Into<PathBuf>) -> Self {
        self.shared.plugins.folder = folder.into();
        self
    }

    /// Hooks for tests of the engine itself.
    #[doc(hidden)]
    #[must_use]
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.shared.settings.hooks = hooks;
        self
    }

    pub fn build(mut self) -> Engine {
        if self.shared.plugins.folder.as_os_str().is_empty() {
            self.shared.plugins.folder.clone_from(&self.shared.folder);
        }
        Engine {
            shared: Arc::new(self.shared),
        }
    }
}

impl Engine {
    /// An engine with defaults: all cores, a quarter of what the machine or the cgroup has of memory, from 16 to 256 MiB.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            shared: Shared {
                settings: Settings::default(),
                folder: PathBuf::new(),
                script_decides: true,
                pedantic: false,
                inputs: vec![],
                outputs: vec![],
                on_start: None,
                stages: stages::list::list().to_vec(),
                formats: formats::list().to_vec(),
                plugins: Plugins::default(),
            },
        }
    }

    /// Reads a script and checks it against the schemas of its inputs. Where a parameter has no default, the schemas may depend
    /// on its value: then the check waits for [`Pipeline::check`] or the run.
    ///
    /// # Errors
    /// Every problem of the script.
    pub fn compile(&self, name: &str, text: &str) -> Result<Pipeline, Problems> {
        let mut pipeline = self.open(name, text);
        let parsed = syntax::parse(text);
        if parsed.diagnostics.iter().any(Diagnostic::is_error) || !pipeline.lacks_values(&parsed.script) {
            pipeline.warnings = pipeline.check()?.diagnostics;
        }
        Ok(pipeline)
    }

    /// A script that is checked only when it is run (or [`Pipeline::check`] is called), with the parameters it has then.
    pub fn open(&self, name: &str, text: &str) -> Pipeline {
        Pipeline {
            engine: self.clone(),
            name: name.into(),
            text: text.into(),
            params: vec![],
            feeds: vec![],
            receivers: vec![],
            cancel: Arc::default(),
            progress: Arc::default(),
            warnings: vec![],
        }
    }

    /// The memory of a run, in bytes, where the script does not say.
    pub fn memory_bytes(&self) -> usize {
        self.shared.settings.memory_bytes
    }
}

/// Told when a checked script begins to run; see [`EngineBuilder::on_start`].
pub type OnStart = Arc<dyn Fn(&Problems) + Send + Sync>;
/// Takes rows that come out of a pipeline, in order: the stream's schema and a batch that is gone after the call.
pub type Receiver<'r> = Box<dyn FnMut(&Schema, Batch<'_>) -> RunResult<()> + Send + 'r>;
/// Gives rows to a pipeline, batch by batch; `None` at the end.
pub type Feeder = Box<dyn FnMut() -> RunResult<Option<Kept>> + Send>;

/// A checked script.
pub struct Pipeline {
    engine: Engine,
    name: String,
    text: String,
    params: Vec<(String, Given)>,
    feeds: Vec<(String, Feeder)>,
    receivers: Vec<(String, Receiver<'static>)>,
    cancel: Arc<AtomicBool>,
    progress: Arc<Progress>,
    warnings: Vec<Diagnostic>,
}

impl Pipeline {
    /// Sets a parameter.
    pub fn param(&mut self, name: impl Into<String>, value: impl IntoValue) -> &mut Self {
        self.params.push((name.into(), Given::Value(value.into_value())));
        self
    }

    /// Sets a parameter to a text that is read by the parameter's type, as from a command line.
    pub fn param_text(&mut self, name: impl Into<String>, text: impl Into<String>) -> &mut Self {
        self.params.push((name.into(), Given::Text(text.into())));
        self
    }

    /// Gives the rows of an [`EngineBuilder::input`]. Each run takes a feeder; set it again before the next.
    pub fn feed(&mut self, name: impl Into<String>, feeder: Feeder) -> &mut Self {
        self.feeds.push((name.into(), feeder));
        self
    }

    /// Gives the rows of an [`EngineBuilder::input`] as values.
    ///
    /// # Errors
    /// If a row does not have the stream's schema.
    pub fn feed_rows(&mut self, name: &str, rows: &[Vec<Value>]) -> RunResult<&mut Self> {
        let found = self.engine.shared.inputs.iter().find(|(n, _)| n == name);
        let schema = found.map(|(_, schema)| schema.clone()).unwrap_or_default();
        let mut kept = Some(feed::kept(&schema, rows)?);
        Ok(self.feed(name, Box::new(move || Ok(kept.take()))))
    }

    /// Takes the rows of an [`EngineBuilder::output`]. Each run uses the receiver up; set it again before the next.
    pub fn receive(&mut self, name: impl Into<String>, receiver: Receiver<'static>) -> &mut Self {
        self.receivers.push((name.into(), receiver));
        self
    }

    /// Checks the script with the parameters set so far; what it answers are only warnings.
    ///
    /// # Errors
    /// Every problem of the script.
    pub fn check(&self) -> Result<Problems, Problems> {
        let (compiled, mut diagnostics) = self.compiled(true, None)?;
        if let Some(refusal) = self.too_little_memory(&compiled) {
            diagnostics.push(refusal);
            return Err(Problems {
                source: self.source(),
                diagnostics,
            });
        }
        Ok(Problems {
            source: self.source(),
            diagnostics,
        })
    }

    /// Whether a parameter has neither a value nor a default.
    fn lacks_values(&self, script: &syntax::ast::Script) -> bool {
        script.items.iter().any(|item| match &item.kind {
            syntax::ast::ItemKind::Param(param) => {
                param.default.is_none() && !self.params.iter().any(|(name, _)| *name == param.name.text)
            }
            _ => false,
        })
    }

    /// Warnings of the check.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The text of warnings, for people.
    pub fn render_warnings(&self, colour: bool) -> String {
        diag::render_all(&self.warnings, &[self.source()], colour)
    }

    /// How far the run is; to be read from another thread.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Set to `true` to end the run.
    pub fn cancel(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    /// The plan as text: stages, expressions, schemas, order, memory.
    ///
    /// # Errors
    /// Problems of the script with these parameters.
    pub fn explain(&self) -> Result<String, Problems> {
        self.explain_as(GraphFormat::Text)
    }

    /// The plan as text or as a drawing.
    ///
    /// # Errors
    /// Problems of the script with these parameters.
    pub fn explain_as(&self, format: GraphFormat) -> Result<String, Problems> {
        let print = printer(&self.engine.shared.folder);
        let (compiled, _) = self.compiled(true, Some(&print))?;
        let mut plan = compiled
            .graph
            .as_ref()
            .map(|graph| compile::explain(graph, format))
            .unwrap_or_default();
        let isolated = plugin::isolated(&compiled.meters);
        if format == GraphFormat::Text && !isolated.is_empty() {
            plan += "plugins\n";
            for line in isolated.lines() {
                plan += &format!("   {line}\n");
            }
        }
        Ok(plan)
    }

    /// Runs the script. A last pipeline without a sink prints CSV to standard output.
    ///
    /// # Errors
    /// Problems of the script, or why the run failed; no output has changed then.
    pub fn run(&mut self) -> Result<Report, Failure> {
        let print = printer(&self.engine.shared.folder);
        self.run_printing(Some(&print))
    }

    /// Runs the script; the rows of a last pipeline without a sink go to `receiver`, in order.
    ///
    /// # Errors
    /// As [`Pipeline::run`], and what `receiver` answers.
    pub fn run_with(&mut self, receiver: impl FnMut(&Schema, Batch<'_>) -> RunResult<()>) -> Result<Report, Failure> {
        let slot = receive::Slot::new(Box::new(receiver));
        slot.lend(|maker| self.run_printing(Some(maker)))
    }

    fn run_printing(&mut self, print: Option<&SinkMaker>) -> Result<Report, Failure> {
        let shared = self.engine.shared.clone();
        let inputs = feed::inputs(&shared.inputs, std::mem::take(&mut self.feeds));
        let outputs = receive::outputs(std::mem::take(&mut self.receivers));
        let (compiled, warnings) = self.compiled_with(false, print, &inputs, &outputs)?;
        if let Some(refusal) = self.too_little_memory(&compiled) {
            return Err(Failure::Script(Problems {
                source: self.source(),
                diagnostics: vec![refusal],
            }));
        }
        let mut settings = self.settings(&compiled);
        settings.cancel = self.cancel.clone();
        if settings.now_micros == 0 {
            settings.now_micros = now_micros();
        }
        if let Some(on_start) = &shared.on_start {
            on_start(&Problems {
                source: self.source(),
                diagnostics: warnings.clone(),
            });
        }
        self.warnings = warnings;
        let graph = compiled
            .graph
            .as_ref()
            .ok_or_else(|| Failure::Run(self.failed(Error::Panic("no graph".into()), 0)))?;
        self.run_graph(graph, &compiled, &settings)
    }

    /// Runs what was compiled.
    fn run_graph(&self, graph: &Graph, compiled: &Compiled, settings: &Settings) -> Result<Report, Failure> {
        let mut report = runtime::run(graph, &self.text, settings, &self.progress).map_err(|error| {
            let sinks = graph.nodes.iter().filter(|node| matches!(node.op, Op::Sink(_))).count();
            Failure::Run(self.failed(error, sinks))
        })?;
        report.plugins = plugin::usage(&compiled.meters);
        Ok(report)
    }

    /// The settings of a run of this script: what it says itself counts where the host does not say otherwise.
    fn settings(&self, compiled: &Compiled) -> Settings {
        let shared = &self.engine.shared;
        let mut settings = shared.settings.clone();
        settings.folder.clone_from(&shared.folder);
        if shared.script_decides
            && let Some(bytes) = compiled.limits.memory
        {
            settings.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        settings.disk_bytes = settings.disk_bytes.or(compiled.limits.disk);
        settings
    }

    fn compiled(
        &self,
        assume_params: bool,
        print: Option<&SinkMaker>,
    ) -> Result<(Compiled, Vec<Diagnostic>), Problems> {
        let shared = &self.engine.shared;
        let inputs = feed::inputs(&shared.inputs, vec![]);
        let outputs = receive::outputs(shared.outputs.iter().map(|n| (n.clone(), receive::nobody())).collect());
        let default = printer(&shared.folder);
        self.compiled_with(assume_params, print.or(Some(&default)), &inputs, &outputs)
    }

    fn compiled_with(
        &self,
        assume_params: bool,
        print: Option<&SinkMaker>,
        inputs: &[Input],
        outputs: &[Output],
    ) -> Result<(Compiled, Vec<Diagnostic>), Problems> {
        let shared = &self.engine.shared;
        let parsed = syntax::parse(&self.text);
        let unreadable: Vec<_> = parsed
            .diagnostics
            .iter()
            .filter(|d| d.is_error())
            .map(|d| d.primary.span)
            .collect();
        let options = Options {
            folder: &shared.folder,
            params: &self.params,
            assume_params,
            look: true,
            unreadable: &unreadable,
            pedantic: shared.pedantic,
            rewrites: !shared.settings.hooks.as_written,
            any_size: shared.settings.hooks.any_size,
            print,
            inputs,
            outputs,
            stages: &shared.stages,
            plugins: &shared.plugins,
            formats: &shared.formats,
            testing: None,
        };
        let mut compiled = compile::compile(&parsed.script, &self.text, &options);
        let mut diagnostics = parsed.diagnostics;
        diagnostics.append(&mut compiled.diagnostics);
        diagnostics.sort_by_key(|d| d.primary.span.start);
        if compiled.graph.is_none() || diagnostics.iter().any(Diagnostic::is_error) {
            return Err(Problems {
                source: self.source(),
                diagnostics,
            });
        }
        Ok((compiled, diagnostics))
    }

    fn source(&self) -> Text {
        Text::new(self.name.as_str(), self.text.as_str())
    }

    fn failed(&self, error: Error, sinks: usize) -> RunError {
        RunError {
            source: self.source(),
            error,
            sinks,
        }
    }
}

/// Every problem of a script.
pub struct Problems {
    source: Text,
    pub diagnostics: Vec<Diagnostic>,
}

impl Problems {
    /// For people.
    pub fn render(&self, colour: bool) -> String {
        diag::render_all(&self.diagnostics, std::slice::from_ref(&self.source), colour)
    }

    /// For programs: an object per diagnostic.
    pub fn json_objects(&self) -> Vec<serde_json::Value> {
        diag::json_objects(&self.diagnostics, std::slice::from_ref(&self.source))
    }
}

/// Why a run failed.
pub struct RunError {
    source: Text,
    pub error: Error,
    /// Outputs that the script has: what was not published.
    pub sinks: usize,
}

impl RunError {
    /// For people: the place in the script, and the place in the data.
    pub fn render(&self, colour: bool) -> String {
        let sources = std::slice::from_ref(&self.source);
        let diagnostic = match &self.error {
            Error::Row(row) => {
                let mut d = Diagnostic::error(known(row.code), row.span, row.message.as_str()).labelled("here");
                if let Some(source) = &row.source {
                    d = d.at_data(&DataPlace {
                        source: source.clone(),
                        line: row.line,
                        row: None,
                        byte: row.byte,
                        column: row.column.clone(),
                    });
                } else if let Some(column) = &row.column {
                    d = d.note(format!("column `{column}`"));
                }
                d.help_if(row.help.clone())
            }
            Error::Failed {
                code,
                message,
                help,
                span,
            } => {
                let Some(span) = span else {
                    let help = help.as_ref().map(|h| format!("\n  = help: {h}")).unwrap_or_default();
                    return format!("error[{code}]: {message}{help}\n");
                };
                Diagnostic::error(known(*code), *span, message.as_str())
                    .labelled("here")
                    .help_if(help.clone())
            }
            Error::Memory { wanted, used, limit } => {
                return format!(
                    "error[E0701]: out of memory: {wanted} bytes wanted beside {used} in use, limit {limit}\n  = help: a larger `--memory`, or fewer `--workers`\n"
                );
            }
            Error::Io { doing, source, .. } => {
                let code = match (*doing, source.kind()) {
                    ("read", std::io::ErrorKind::NotFound) => "E0601",
                    ("read", _) => "E0602",
                    ("write" | "publish", _) => "E0603",
                    // The system has no memory for a thread.
                    ("start", _) => "E0701",
                    _ => "E0999",
                };
                return format!("error[{code}]: {}\n", self.error);
            }
            Error::Closed => {
                let left = if self.sinks > 1 {
                    "; no other output was published either"
                } else {
                    ""
                };
                return format!("error[E0612]: the reader of standard output went away{left}\n");
            }
            Error::Cancelled => return "error[E0998]: interrupted, nothing was published\n".into(),
            Error::Panic(text) => {
                return format!(
                    "error[E0999]: internal error: {text}\n  = help: a report of it with the script is welcome\n"
                );
            }
        };
        diag::render(&diagnostic, sources, colour)
    }
}

/// The registry's text of a code.
fn known(code: standpipe_sdk::Code) -> &'static str {
    diag::codes::info(&code.to_string()).map_or("E0999", |info| info.code)
}

/// Why there is no report: the script, or the run.
pub enum Failure {
    Script(Problems),
    Run(RunError),
}

impl Failure {
    /// For people.
    pub fn render(&self, colour: bool) -> String {
        match self {
            Failure::Script(problems) => problems.render(colour),
            Failure::Run(error) => error.render(colour),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::Script(problems)
    }
}

macro_rules! shown {
    ($($ty:ty),*) => {$(
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.render(false).trim_end())
            }
        }
        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl std::error::Error for $ty {}
    )*};
}
shown!(Problems, RunError, Failure);

/// What a parameter can be given.
pub trait IntoValue {
    fn into_value(self) -> Value;
}

macro_rules! values {
    ($($ty:ty => $make:expr),* $(,)?) => {$(
        impl IntoValue for $ty {
            fn into_value(self) -> Value {
                let make: fn($ty) -> Value = $make;
                make(self)
            }
        }
    )*};
}
values! {
    Value => |v| v,
    bool => Value::Bool,
    i32 => |v| Value::Int(v.into()),
    i64 => Value::Int,
    f64 => Value::Float,
    &str => |v| Value::String(v.into()),
    String => Value::String,
}

/// Prints CSV to standard output.
fn printer(folder: &Path) -> SinkMaker {
    let folder = folder.to_path_buf();
    Arc::new(move |schema: &Schema| -> Factory<Arc<dyn Sink>> {
        match formats::csv::sink(schema.clone(), "-".into(), &folder, false, true, b',') {
            Make::Sink(make) => make,
            _ => Box::new(|_| Err(Error::Panic("a printer is a sink".into()))),
        }
    })
}

fn now_micros() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
