//! The command line: arguments in, one call of the library, an exit status out.
//!
//! Laws
//! - Data goes to stdout, everything else to stderr.
//! - Exit status: 0 done, 1 the run failed, 2 the script or the command line is wrong.
//! - Only the library's public doors are used here.

mod files;
mod memory;
mod new;
mod plugin;
mod plugin_test;
mod progress;
mod reference;
mod run;
mod size;
mod table;
mod test;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use size::Size;
use standpipe::diag::codes;
use standpipe::engine::EngineBuilder;
use standpipe::plugin::Verified;
use standpipe::{Engine, GraphFormat, Pipeline, Problems};
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

/// The run failed, or a file is not as it should be.
const FAILED: u8 = 1;
/// The script or the command line is wrong.
const WRONG: u8 = 2;

/// Runs `.pipe` scripts: dataflow in constant memory.
#[derive(Parser)]
#[command(
    name = "standpipe",
    version,
    about,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a script
    Run(RunArgs),
    /// Check scripts against the schemas of their inputs; nothing is run or written
    Check(CheckArgs),
    /// Show how a script would run, or what an error code means
    Explain(ExplainArgs),
    /// Write scripts in their canonical form
    Fmt(FmtArgs),
    /// Run the tests of scripts
    Test(test::TestArgs),
    /// The stages, or one of them
    Stages { name: Option<String> },
    /// The functions, or one of them
    Functions { name: Option<String> },
    /// The file formats, or one of them
    Formats { name: Option<String> },
    /// Look at plugins, and say which are trusted
    Plugin {
        #[command(subcommand)]
        command: plugin::PluginCommand,
    },
    /// What the processes of isolated plugins run
    #[command(name = standpipe::plugin::WORKER_COMMAND, hide = true)]
    PluginWorker,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Where a script comes from, and what it is given.
#[derive(Args)]
struct ScriptArgs {
    /// The script; `-` reads it from standard input
    #[arg(required_unless_present_any = ["text", "help"])]
    file: Option<PathBuf>,
    /// The script itself
    #[arg(short = 'e', value_name = "SCRIPT", conflicts_with = "file")]
    text: Option<String>,
    /// Set a parameter of the script
    #[arg(short = 'p', value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
}

#[derive(Args)]
#[command(disable_help_flag = true)]
struct RunArgs {
    #[command(flatten)]
    script: ScriptArgs,
    /// Print this help, or with a script what it says about itself and its parameters
    #[arg(short, long)]
    help: bool,
    /// The memory of the run [default: a quarter of what the machine, or its cgroup, lets it have, from 16MiB to 256MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Where what does not fit into memory goes [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// The most bytes that may lie there [default: what is free]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// Threads that work on chunks [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// How much input one chunk takes [default: 256KiB]
    #[arg(long, value_name = "SIZE")]
    chunk: Option<Size>,
    /// The longest record [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    max_record: Option<Size>,
    /// Write a report of the run as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Do not sync outputs to disk before they get their names
    #[arg(long)]
    no_sync: bool,
    /// Not available yet
    #[arg(long, hide = true)]
    resume: Option<PathBuf>,
    /// Not available yet
    #[arg(long, hide = true)]
    secret: Vec<String>,
    #[command(flatten)]
    plugins: PluginArgs,
}

/// Plugins that the command line names.
#[derive(Args)]
struct PluginArgs {
    /// A plugin's library that the script may use, locked or not
    #[arg(long = "plugin", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl PluginArgs {
    /// Says which of them are refused, whether a script uses them or not.
    fn check(&self) -> Result<(), u8> {
        let seen = |path| Verified::read(path, None).and_then(|verified| verified.runs_here());
        let refusals = self.paths.iter().filter_map(|path| seen(path).err());
        let refused = refusals.fold(false, |_, refusal| {
            plugin::refused(&refusal);
            true
        });
        if refused { Err(WRONG) } else { Ok(()) }
    }

    fn add_to(&self, engine: EngineBuilder) -> EngineBuilder {
        let engine = match std::env::current_exe() {
            Ok(program) => engine.plugin_worker(program),
            Err(_) => engine,
        };
        self.paths.iter().fold(engine, EngineBuilder::plugin)
    }
}

#[derive(Args)]
struct CheckArgs {
    /// The scripts; `-` reads one from standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Set a parameter of the scripts
    #[arg(short = 'p', value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// How problems are printed
    #[arg(long, value_enum, default_value = "text")]
    format: ReportFormat,
    /// Warn about what is only questionable
    #[arg(long)]
    pedantic: bool,
    #[command(flatten)]
    plugins: PluginArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    Text,
    Json,
}

#[derive(Args)]
struct ExplainArgs {
    /// A script, or a code such as E0412
    what: String,
    /// Set a parameter of the script
    #[arg(short = 'p', value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// What the run may take of memory, and the stages that share it
    #[arg(long, conflicts_with = "graph")]
    memory: bool,
    /// How the graph is printed
    #[arg(long, value_enum, default_value = "text")]
    graph: Drawing,
    #[command(flatten)]
    plugins: PluginArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Drawing {
    Text,
    Dot,
    Mermaid,
}

#[derive(Args)]
struct FmtArgs {
    /// The scripts; `-` formats standard input to standard output
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; exit status 1 if a script is not canonical
    #[arg(long)]
    check: bool,
}

/// `NAME=VALUE`.
fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("a parameter is given as NAME=VALUE".into()),
    }
}

/// The program.
pub(crate) fn main() -> ExitCode {
    memory::tune();
    memory::outlive_file_limits();
    quiet_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() { WRONG } else { 0 };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    let status = catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
        let text = text
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        say(&format!(
            "error[E0999]: internal error: {text}\n  = help: a report of it with the script is welcome"
        ));
        FAILED
    });
    ExitCode::from(status)
}

fn dispatch(command: Command) -> u8 {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check(&args),
        Command::Explain(args) => explain(&args),
        Command::Fmt(args) => fmt(&args),
        Command::Test(args) => test::run(&args),
        Command::Plugin { command } => plugin::run(&command),
        Command::PluginWorker => standpipe::plugin::work(),
        Command::Stages { name } => show(reference::stages(name.as_deref())),
        Command::Functions { name } => show(reference::functions(name.as_deref())),
        Command::Formats { name } => show(reference::formats(name.as_deref())),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "standpipe", &mut text);
            print_data(&text)
        }
    }
}

/// A panic is reported once, as an error of the run or of the program; who asks for a backtrace gets the default message too.
fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v.is_empty() || v == "0") {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Whether messages are coloured.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A message for people.
fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody may be listening any more; that is no reason to fail.
    let _ = stderr.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stderr.write_all(b"\n");
    }
}

fn fail(text: &str) -> u8 {
    say(&format!("error: {text}"));
    WRONG
}

/// The exit status of what is wrong with a script: a file that is not there or cannot be read is not the script's fault.
fn status_of(problems: &Problems) -> u8 {
    let of_files = ["E0601", "E0602", "E0603"];
    let mut errors = problems.diagnostics.iter().filter(|d| d.is_error());
    if errors.all(|d| of_files.contains(&d.code.as_str())) {
        FAILED
    } else {
        WRONG
    }
}

fn not_yet(what: &str) -> u8 {
    say(&format!("error[E0901]: {what} is not available yet"));
    WRONG
}

/// Data on standard output; a reader that has gone is no error.
fn print_data(bytes: &[u8]) -> u8 {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            say(&format!("error: cannot write standard output: {error}"));
            FAILED
        }
    }
}

fn show(page: Result<String, String>) -> u8 {
    match page {
        Ok(text) => print_data(text.as_bytes()),
        Err(message) => fail(&message),
    }
}

/// A script with its parameters.
fn pipeline(engine: &Engine, name: &str, text: &str, params: &[(String, String)]) -> Pipeline {
    let mut pipeline = engine.open(name, text);
    for (name, value) in params {
        pipeline.param_text(name.as_str(), value.as_str());
    }
    pipeline
}

fn check(args: &CheckArgs) -> u8 {
    if let Err(status) = args.plugins.check() {
        return status;
    }
    let engine = args.plugins.add_to(Engine::builder().pedantic(args.pedantic)).build();
    let mut status = 0;
    let mut all = Vec::new();
    for file in &args.files {
        let (name, text) = match files::script(file) {
            Ok(script) => script,
            Err(message) => {
                status = fail(&message);
                continue;
            }
        };
        let pipeline = pipeline(&engine, &name, &text, &args.params);
        let outcome = match pipeline.check() {
            Ok(report) => report,
            Err(problems) => {
                status = status.max(status_of(&problems));
                problems
            }
        };
        match args.format {
            ReportFormat::Json => all.extend(outcome.json_objects()),
            ReportFormat::Text => {
                let text = outcome.render(colour());
                if !text.is_empty() {
                    say(&text);
                }
            }
        }
    }
    if args.format == ReportFormat::Json {
        let text = serde_json::to_string_pretty(&all).unwrap_or_else(|_| "[]".into());
        status = status.max(print_data(format!("{text}\n").as_bytes()));
    }
    status
}

fn explain(args: &ExplainArgs) -> u8 {
    if let Some(info) = codes::info(&args.what) {
        return print_data(format!("{}: {}\n\n{}\n", info.code, info.title, info.text).as_bytes());
    }
    let looks_like_code =
        args.what.len() == 5 && args.what.starts_with(['E', 'W']) && args.what[1..].bytes().all(|b| b.is_ascii_digit());
    if looks_like_code {
        return fail(&format!("there is no code {}", args.what));
    }
    let (name, text) = match files::script(&PathBuf::from(&args.what)) {
        Ok(script) => script,
        Err(message) => return fail(&message),
    };
    let format = match args.graph {
        Drawing::Text => GraphFormat::Text,
        Drawing::Dot => GraphFormat::Dot,
        Drawing::Mermaid => GraphFormat::Mermaid,
    };
    if let Err(status) = args.plugins.check() {
        return status;
    }
    let engine = args.plugins.add_to(Engine::builder()).build();
    let pipeline = pipeline(&engine, &name, &text, &args.params);
    if args.memory {
        return explain_memory(&pipeline);
    }
    match pipeline.explain_as(format) {
        Ok(text) => print_data(text.as_bytes()),
        Err(problems) => {
            say(&problems.render(colour()));
            status_of(&problems)
        }
    }
}

fn explain_memory(pipeline: &Pipeline) -> u8 {
    match pipeline.explain_memory() {
        Ok(plan) => print_data(plan.text.as_bytes()).max(if plan.fits { 0 } else { WRONG }),
        Err(problems) => {
            say(&problems.render(colour()));
            status_of(&problems)
        }
    }
}

fn fmt(args: &FmtArgs) -> u8 {
    let mut status = 0;
    for file in &args.files {
        let (name, text) = match files::script(file) {
            Ok(script) => script,
            Err(message) => {
                status = fail(&message);
                continue;
            }
        };
        let formatted = match standpipe::syntax::format(&text) {
            Ok(formatted) => formatted,
            Err(diagnostics) => {
                let source = standpipe::diag::Source::new(name, text);
                say(&standpipe::diag::render_all(&diagnostics, &[source], colour()));
                status = WRONG;
                continue;
            }
        };
        let outcome = if args.check {
            if formatted != text {
                say(&format!("{name} is not canonical; `standpipe fmt {name}` makes it so"));
                status = status.max(FAILED);
            }
            0
        } else if file.as_os_str() == "-" {
            print_data(formatted.as_bytes())
        } else if formatted != text {
            match files::replace(file, formatted.as_bytes()) {
                Ok(()) => 0,
                Err(message) => {
                    say(&format!("error: {message}"));
                    FAILED
                }
            }
        } else {
            0
        };
        status = status.max(outcome);
    }
    status
}
