//! `standpipe test`.

mod output;
mod review;

use super::{FAILED, PluginArgs, WRONG, fail, files, parameter, say};
use clap::{Args, ValueEnum};
use standpipe::Engine;
use standpipe::testing::record::{self, Recording};
use standpipe::testing::snapshot::{self, Mode};
use standpipe::testing::{Script, Verdict, find};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[derive(Args)]
pub(super) struct TestArgs {
    /// Scripts, files of tests, and folders of them [default: the current folder]
    #[arg(value_name = "PATH")]
    targets: Vec<PathBuf>,
    /// Only tests whose name, or `script: name`, contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Make what comes the snapshots
    #[arg(long, conflicts_with_all = ["review", "ci"])]
    accept: bool,
    /// Show each snapshot that is another and ask what to do
    #[arg(long, conflicts_with = "ci")]
    review: bool,
    /// Write nothing; fail on snapshots that wait or that no test refers to. Implies --matrix
    #[arg(long)]
    ci: bool,
    /// Run each test again in chunks of one and of seven rows, with one and three workers, with all that can spill spilling
    #[arg(long)]
    matrix: bool,
    /// How outcomes are printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Write a test with the first rows of the script's inputs, which expects a snapshot of STREAM
    #[arg(long, value_name = "STREAM", conflicts_with_all = ["accept", "review", "ci", "matrix", "filter"])]
    record: Option<String>,
    /// How many rows of each input to record
    #[arg(long, value_name = "N", default_value = "20", requires = "record")]
    rows: usize,
    /// Columns whose recorded values are made up
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "record")]
    redact: Vec<String>,
    /// Set a parameter for recording
    #[arg(short = 'p', value_name = "NAME=VALUE", value_parser = parameter, requires = "record")]
    params: Vec<(String, String)>,
    #[command(flatten)]
    plugins: PluginArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
}

/// A script whose tests could not be run at all.
struct Broken {
    script: String,
    message: String,
}

/// One test, and what it came to.
struct Outcome {
    script: String,
    test: String,
    verdict: Verdict,
}

pub(super) fn run(args: &TestArgs) -> u8 {
    if let Err(status) = args.plugins.check() {
        return status;
    }
    if let Some(stream) = &args.record {
        return record(args, stream);
    }
    let mut status = 0;
    let mut scripts = vec![];
    let mut broken: Vec<Broken> = vec![];
    let mut refuse = |script: &Path, message: String| {
        say(&format!("error: {message}"));
        let script = script.display().to_string();
        broken.push(Broken { script, message });
        status = WRONG;
    };
    let here = [PathBuf::from(".")];
    let paths: &[PathBuf] = if args.targets.is_empty() { &here } else { &args.targets };
    let mut seen = BTreeSet::new();
    for path in paths {
        let found = match find(path) {
            Ok(found) => found,
            Err(error) => {
                refuse(path, format!("cannot read {}: {error}", path.display()));
                continue;
            }
        };
        for file in found {
            let shown = file.strip_prefix("./").unwrap_or(&file);
            if !seen.insert(shown.to_owned()) {
                continue;
            }
            match Script::open(shown) {
                Ok(script) if script.tests().is_empty() && !(script.means_tests() && script.is_wrong()) => {
                    if !path.is_dir() {
                        refuse(shown, format!("{} has no tests", shown.display()));
                    }
                }
                Ok(script) => scripts.push(script),
                Err(message) => refuse(shown, message),
            }
        }
    }
    scripts.retain(|script| {
        let mistakes = script.mistakes(super::colour());
        if !mistakes.is_empty() {
            say(&mistakes);
            status = WRONG;
            broken.push(Broken {
                script: script.name.clone(),
                message: script.mistakes(false),
            });
        }
        mistakes.is_empty()
    });
    let mode = match (args.accept, args.ci) {
        (true, _) => Mode::Accept,
        (_, true) => Mode::Frozen,
        _ => Mode::Propose,
    };
    let mut outcomes = run_all(args, &scripts, mode);
    if outcomes.is_empty() && args.format == Format::Text {
        return match (status, &args.filter) {
            (0, Some(filter)) => fail(&format!("no test has {filter:?} in its name")),
            (0, None) => fail("no tests here"),
            _ => status,
        };
    }
    if args.review {
        review::review(&mut outcomes);
    }
    let strays = if args.filter.is_none() {
        strays(&scripts, &outcomes)
    } else {
        vec![]
    };
    status = status.max(output::print(args.format, &outcomes, &broken, &strays, args.ci));
    if outcomes.iter().any(|outcome| outcome.verdict.is_wrong) {
        status = WRONG;
    } else if outcomes.iter().any(|outcome| !outcome.verdict.passed()) || (args.ci && !strays.is_empty()) {
        status = status.max(FAILED);
    }
    status
}

/// Runs the tests, as many at once as there are cores; what they came to in the order of the scripts.
fn run_all(args: &TestArgs, scripts: &[Script], mode: Mode) -> Vec<Outcome> {
    let wanted = |script: &Script, name: &str| match &args.filter {
        Some(filter) => format!("{}: {name}", script.name).contains(filter),
        None => true,
    };
    let mut all = vec![];
    for script in scripts {
        let tests = script
            .tests()
            .into_iter()
            .filter(|test| wanted(script, &test.name.value));
        all.extend(tests.map(|test| (script, test)));
    }
    let engine = || args.plugins.add_to(Engine::builder());
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Outcome)>> = Mutex::new(vec![]);
    let progress = output::Progress::new(
        all.len(),
        args.format == Format::Text && std::io::stderr().is_terminal(),
    );
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(all.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, (script, test))) = {
                    let at = next.fetch_add(1, SeqCst);
                    all.get(at).map(|both| (at, both))
                } {
                    let verdict = script.run(test, &engine, mode, args.matrix || args.ci);
                    let outcome = Outcome {
                        script: script.name.clone(),
                        test: test.name.value.clone(),
                        verdict,
                    };
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.push((at, outcome));
                    progress.show(done.len());
                }
            });
        }
    });
    progress.clear();
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Snapshots of these scripts that no test refers to. A script whose tests did not all run keeps its own.
fn strays(scripts: &[Script], outcomes: &[Outcome]) -> Vec<PathBuf> {
    let mut found = vec![];
    for script in scripts {
        let mut of_script = outcomes.iter().filter(|outcome| outcome.script == script.name);
        if of_script.any(|outcome| outcome.verdict.is_wrong) {
            continue;
        }
        let of_script = outcomes.iter().filter(|outcome| outcome.script == script.name);
        let referred: Vec<PathBuf> = of_script
            .flat_map(|outcome| outcome.verdict.snapshots.clone())
            .collect();
        found.extend(snapshot::unreferenced(&script.folder, &script.stem, &referred));
    }
    found
}

fn record(args: &TestArgs, stream: &str) -> u8 {
    let [path] = args.targets.as_slice() else {
        return fail("`--record` takes one script");
    };
    let (name, text) = match files::script(path) {
        Ok(script) => script,
        Err(message) => return fail(&message),
    };
    let recording = Recording {
        stream: stream.to_owned(),
        rows: args.rows,
        redact: args.redact.clone(),
        params: args.params.clone(),
    };
    let test = match record::record(&name, &text, &|| args.plugins.add_to(Engine::builder()), &recording) {
        Ok(test) => test,
        Err(message) if message.starts_with("error") => {
            say(&message);
            return WRONG;
        }
        Err(message) => return fail(&message),
    };
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let file = path.with_file_name(format!("{stem}_test.pipe"));
    match append(&file, &test) {
        Ok(()) => {
            say(&format!(
                "a test was written to {}; `standpipe test --accept {}` makes its snapshot",
                file.display(),
                path.display()
            ));
            0
        }
        Err(message) => fail(&message),
    }
}

fn append(file: &Path, test: &str) -> Result<(), String> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    let name = test.lines().next().unwrap_or_default();
    if before.contains(name) {
        return Err(format!("{} has this test already: {name}", file.display()));
    }
    let between = match before.as_str() {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let text = format!("{before}{between}{test}");
    let text = standpipe::syntax::format(&text).unwrap_or(text);
    files::replace(file, text.as_bytes())
}
