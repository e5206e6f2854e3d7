//! `standpipe plugin test`: what a library promises, tried out check by check.
//!
//! How it works: this process only starts others, one per check, and reads what each says in a line of its own; a child that crashes,
//! hangs or exits has failed its check.
//!
//! Laws
//! - Nothing of the library runs in this process.
//! - A child that says nothing has not passed.

mod arguments;

use super::plugin::refused;
use super::{FAILED, fail, print_data};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use standpipe::Engine;
use standpipe::plugin::child::Child;
use standpipe::plugin::conform::{self, AGGREGATE_CHECKS, CHECKS, Outcome, SINK_CHECKS, SOURCE_CHECKS};
use standpipe::plugin::{Note, Plugins, Verified};
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[derive(Args)]
pub(super) struct TestArgs {
    /// The library, or the name of one of the project's plugins
    #[arg(value_name = "FILE|NAME")]
    plugin: PathBuf,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// How long one check may take, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Be the child that does this
    #[arg(long, hide = true, requires = "stage")]
    check: Option<String>,
    /// Only this stage or function
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What stands before the line that a child says.
const MARK: &str = "standpipe-check:";
/// The most that is read of a child.
const MOST: u64 = 16 << 20;
/// The check that lists what there is.
const LOADS: &str = "loads";

/// What a child says.
#[derive(Clone, Serialize, Deserialize, Default)]
struct Said {
    status: String,
    #[serde(default)]
    message: String,
    /// Of [`LOADS`].
    #[serde(default)]
    stages: Vec<String>,
    /// Those of them that are sources.
    #[serde(default)]
    sources: Vec<String>,
    /// Those among them that are aggregates.
    #[serde(default)]
    aggregates: Vec<String>,
    /// Those of them that are sinks.
    #[serde(default)]
    sinks: Vec<String>,
}

/// One line of the report.
#[derive(Serialize)]
struct Line {
    stage: String,
    check: String,
    /// ok, failed, skipped
    status: String,
    message: String,
}

#[derive(Serialize)]
struct Report {
    plugin: String,
    version: String,
    checks: Vec<Line>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub(super) fn test(args: &TestArgs) -> u8 {
    let verified = match found(&args.plugin) {
        Ok(verified) => verified,
        Err(status) => return status,
    };
    match (&args.check, &args.stage) {
        (Some(check), Some(stage)) => say(&child(&verified, check, stage)),
        _ => parent(args, &verified),
    }
}

fn found(plugin: &Path) -> Result<Verified, u8> {
    let is_name = plugin.components().count() == 1 && plugin.extension().is_none() && !plugin.exists();
    let verified = match is_name {
        true => Plugins::default().verified(&plugin.to_string_lossy()),
        false => Verified::read(plugin, None).and_then(|verified| verified.runs_here().map(|()| verified)),
    };
    verified.map_err(|refusal| refused(&refusal))
}

fn say(said: &Said) -> u8 {
    match serde_json::to_string(said) {
        Ok(json) => print_data(format!("\n{MARK}{json}\n").as_bytes()),
        Err(error) => fail(&error.to_string()),
    }
}

fn outcome(outcome: Outcome) -> Said {
    let (status, message) = match outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Skipped(why) => ("skipped", why),
        Outcome::Failed(what) => ("failed", what),
    };
    Said {
        status: status.into(),
        message,
        ..Said::default()
    }
}

/// A folder that goes with this process, which is in it from now on.
fn scratch() -> Result<tempfile::TempDir, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for its files: {error}"))?;
    std::env::set_current_dir(folder.path()).map_err(|error| format!("no folder for its files: {error}"))?;
    Ok(folder)
}

/// One check, in this process.
fn child(verified: &Verified, check: &str, stage: &str) -> Said {
    let name = verified.name();
    let plugins = Plugins {
        paths: vec![verified.path.clone()],
        folder: PathBuf::new(),
        worker: None,
    };
    let library = match plugins.open(&name, None) {
        Ok(library) => library,
        Err(refusal) => return outcome(Outcome::Failed(refusal.message)),
    };
    if check == LOADS {
        let all = library
            .functions()
            .chain(library.stages())
            .chain(library.sources())
            .chain(library.sinks())
            .chain(library.aggregates());
        let stages: Vec<String> = all.map(str::to_owned).collect();
        return Said {
            status: "ok".into(),
            message: String::new(),
            sources: library.sources().map(str::to_owned).collect(),
            sinks: library.sinks().map(str::to_owned).collect(),
            stages,
            aggregates: library.aggregates().map(str::to_owned).collect(),
        };
    }
    // What a sink writes on the way is nobody's business.
    let scratch = match scratch() {
        Ok(scratch) => scratch,
        Err(what) => return outcome(Outcome::Failed(what)),
    };
    let engine = Engine::builder().plugin(&verified.path).folder(scratch.path());
    let engine = engine.workers(1).build();
    let examples = (verified.note.iter())
        .flat_map(|note| &note.stages)
        .find(|noted| noted.name == stage)
        .map_or(&[][..], |noted| &noted.examples);
    let scripts = arguments::scripts(&name, library, stage, examples);
    let full = format!("{name}.{stage}");
    let mut cases = vec![];
    let (mut made, mut refusal) = (0, String::new());
    for script in scripts {
        if cases.len() >= 3 || (script.is_made && made > 0) {
            break;
        }
        let (compiled, mut recorded) = conform::record(|| {
            let mut pipeline = engine.compile("case.pipe", &script.text)?;
            // How it ends is the business of the checks: here it only shows its rows.
            let _ = pipeline.run_with(|_, _| Ok(()));
            Ok::<(), standpipe::Failure>(())
        });
        recorded.retain(|case| case.name() == full);
        match compiled {
            Ok(()) => {
                made += usize::from(script.is_made && !recorded.is_empty());
                cases.extend(recorded.pop());
            }
            Err(error) if !script.is_made => refusal = format!("; its example is refused: {error}"),
            Err(_) => {}
        }
    }
    let mut said = outcome(conform::run(check, &cases, scratch.path()));
    if cases.is_empty() {
        said.message += &refusal;
    }
    said
}

fn parent(args: &TestArgs, verified: &Verified) -> u8 {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return fail(&format!("cannot find this program: {error}")),
    };
    let limit = Duration::from_secs(args.timeout);
    let ask = |check: &str, stage: &str| {
        let mut command = Command::new(&program);
        command.args(["plugin", "test"]).arg(&verified.path);
        command.args(["--check", check, "--stage", stage]);
        ended(command, limit)
    };
    let mut lines = vec![];
    let mut add = |stage: &str, check: &str, said: Said| {
        lines.push(Line {
            stage: stage.to_owned(),
            check: check.to_owned(),
            status: said.status,
            message: said.message,
        });
    };
    let loaded = ask(LOADS, "-");
    let loads = loaded.status == "ok";
    let Said {
        stages,
        sources,
        sinks,
        aggregates,
        ..
    } = loaded.clone();
    add("", LOADS, loaded);
    if loads {
        add("", "description", described(verified.note.as_ref(), &stages));
        let wanted = |name: &&String| args.stage.as_ref().is_none_or(|wanted| wanted == *name);
        let mut seen = 0;
        for stage in stages.iter().filter(wanted) {
            seen += 1;
            let mut works = true;
            let checks = match () {
                () if sources.contains(stage) => SOURCE_CHECKS,
                () if sinks.contains(stage) => SINK_CHECKS,
                () if aggregates.contains(stage) => AGGREGATE_CHECKS,
                () => CHECKS,
            };
            for (check, _) in checks {
                let said = match works {
                    true => ask(check, stage),
                    false => outcome(Outcome::Skipped("it does not work".into())),
                };
                works &= *check != "works" || said.status != "failed";
                add(stage, check, said);
            }
            add(stage, "examples", examples(&program, verified, stage, limit));
        }
        if let (0, Some(wanted)) = (seen, &args.stage) {
            return fail(&format!(
                "`{}` has no `{wanted}`, but {}",
                verified.name(),
                stages.join(", ")
            ));
        }
    }
    let count = |status: &str| lines.iter().filter(|line| line.status == status).count();
    let report = Report {
        plugin: verified.name(),
        version: verified
            .note
            .as_ref()
            .map_or_else(String::new, |note| note.version.clone()),
        passed: count("ok"),
        failed: count("failed"),
        skipped: count("skipped"),
        checks: lines,
    };
    let text = match args.format {
        Format::Text => shown(&report),
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => json + "\n",
            Err(error) => return fail(&error.to_string()),
        },
    };
    let failed = if report.failed > 0 { FAILED } else { 0 };
    print_data(text.as_bytes()).max(failed)
}

/// Runs a child to its end, and reads what it says.
fn ended(mut command: Command, limit: Duration) -> Said {
    let failed = |what: String| outcome(Outcome::Failed(what));
    let (ended, out, _) = match output(&mut command, limit) {
        Ok(output) => output,
        Err(what) => return failed(what),
    };
    let line = out.lines().rev().find_map(|line| line.strip_prefix(MARK));
    match line.and_then(|line| serde_json::from_str(line).ok()) {
        Some(said) => said,
        None => failed(ended),
    }
}

/// How a child ended in words, what it printed, and whether its exit status was 0.
fn output(command: &mut Command, limit: Duration) -> Result<(String, String, bool), String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = Child::start(command).map_err(|error| format!("it does not start: {error}"))?;
    let out = child.process().stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![];
        if let Some(out) = out {
            let _ = out.take(MOST).read_to_end(&mut bytes);
        }
        bytes
    });
    let ended = child.wait_or_end(limit);
    let bytes = reader.join().unwrap_or_default();
    let good = ended == standpipe::plugin::child::Ended::Exit(0);
    Ok((ended.to_string(), String::from_utf8_lossy(&bytes).into_owned(), good))
}

/// Whether the description names what the library brings.
fn described(note: Option<&Note>, stages: &[String]) -> Said {
    let Some(note) = note else {
        return outcome(Outcome::Failed(
            "the library carries no description; `SP_NOTE` or `export!` gives it one".into(),
        ));
    };
    let noted: Vec<&String> = note.stages.iter().map(|stage| &stage.name).collect();
    let mut wrong = vec![];
    wrong.extend(
        stages
            .iter()
            .filter(|name| !noted.contains(name))
            .map(|name| format!("`{name}` is not in it")),
    );
    wrong.extend(
        noted
            .iter()
            .filter(|name| !stages.contains(name))
            .map(|name| format!("`{name}` is in it and not in the library")),
    );
    outcome(match wrong.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(wrong.join("; ")),
    })
}

/// Whether the examples are true, and print what they say.
fn examples(program: &Path, verified: &Verified, stage: &str, limit: Duration) -> Said {
    let noted = (verified.note.iter())
        .flat_map(|note| &note.stages)
        .find(|noted| noted.name == stage);
    let Some(noted) = noted.filter(|noted| !noted.examples.is_empty()) else {
        return outcome(Outcome::Skipped("it has none".into()));
    };
    for (at, example) in noted.examples.iter().enumerate() {
        let (script, want) = match noted.kind.as_str() {
            "transform" | "source" | "sink" | "aggregate" => (example.clone(), noted.prints.get(at).cloned()),
            _ => (
                format!(
                    "use plugin {}\nfrom range(1, 1) | select ok = ({example})",
                    verified.name()
                ),
                Some("ok\ntrue\n".into()),
            ),
        };
        let folder = match tempfile::tempdir() {
            Ok(folder) => folder,
            Err(error) => return outcome(Outcome::Failed(format!("no folder for its files: {error}"))),
        };
        let mut command = Command::new(program);
        command.args(["run", "-e", &script, "--plugin"]).arg(&verified.path);
        command.current_dir(folder.path());
        let (ended, out, good) = match output(&mut command, limit) {
            Ok(output) => output,
            Err(what) => return outcome(Outcome::Failed(what)),
        };
        if !good {
            return outcome(Outcome::Failed(format!("example {}: {ended}", at + 1)));
        }
        if want.as_ref().is_some_and(|want| *want != out) {
            let what = format!(
                "example {} prints {out:?}, and says {:?}",
                at + 1,
                want.unwrap_or_default()
            );
            return outcome(Outcome::Failed(what));
        }
    }
    outcome(Outcome::Passed)
}

fn shown(report: &Report) -> String {
    let width = report.checks.iter().map(|line| line.check.len()).max().unwrap_or(0);
    let mut out = format!("{} {}\n", report.plugin, report.version);
    let mut stage = "";
    for line in &report.checks {
        if line.stage != stage {
            stage = &line.stage;
            let _ = writeln!(out, "\n{}.{stage}", report.plugin);
        }
        let status = if line.status == "failed" {
            "FAILED"
        } else {
            &line.status
        };
        let text = format!("  {status:8} {:width$}  {}", line.check, line.message);
        let _ = writeln!(out, "{}", text.trim_end());
    }
    let _ = writeln!(
        out,
        "\n{} checks: {} ok, {} failed, {} skipped",
        report.checks.len(),
        report.passed,
        report.failed,
        report.skipped
    );
    out
}
