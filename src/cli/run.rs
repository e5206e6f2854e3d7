//! `standpipe run`.

use super::files::NewFile;
use super::progress::Screen;
use super::size::shown;
use super::table::Table;
use super::{Cli, FAILED, RunArgs, colour, fail, files, memory, not_yet, pipeline, print_data, say, status_of};
use clap::CommandFactory;
use standpipe::{Engine, Error, Failure, Pipeline, Report, RunError};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

pub(super) fn run(args: &RunArgs) -> u8 {
    if args.help && args.script.text.is_none() && args.script.file.is_none() {
        return print_data(usage().as_bytes());
    }
    if let Some(option) = not_available(args) {
        return not_yet(option);
    }
    let (name, text) = match (&args.script.text, &args.script.file) {
        (Some(text), _) => ("-e".to_string(), text.clone()),
        (None, Some(file)) => match files::script(file) {
            Ok(script) => script,
            Err(message) => return fail(&message),
        },
        (None, None) => return fail("a script is needed"),
    };
    let screen = Arc::new(Screen::default());
    let running = Arc::new(AtomicBool::new(false));
    let engine = engine(args, &screen, &running);
    let mut pipeline = pipeline(&engine, &name, &text, &args.script.params);
    if args.help {
        return print_data(script_help(&name, &pipeline).as_bytes());
    }
    if let Err(status) = args.plugins.check() {
        return status;
    }
    // Before the run: a report that cannot be written should not cost hours.
    let report = match args.report.as_deref().map(NewFile::begin).transpose() {
        Ok(report) => report,
        Err(message) => return failed(&message),
    };
    catch_interrupts(&pipeline, running);
    screen.start(pipeline.progress(), engine.memory_bytes());
    let outcome = if std::io::stdout().is_terminal() {
        run_as_table(&mut pipeline, &screen)
    } else {
        pipeline.run()
    };
    screen.end();
    match outcome {
        Ok(done) => {
            summary(&done, screen.is_watched());
            report.map_or(0, |file| write_report(&done, file))
        }
        Err(Failure::Script(problems)) => {
            say(&problems.render(colour()));
            status_of(&problems)
        }
        Err(Failure::Run(error)) => status_of_run(&error),
    }
}

fn failed(message: &str) -> u8 {
    say(&format!("error: {message}"));
    FAILED
}

fn status_of_run(error: &RunError) -> u8 {
    // Whoever read our output has had enough, and nothing else was to be written.
    if matches!(error.error, Error::Closed) && error.sinks <= 1 {
        return 0;
    }
    say(&error.render(colour()));
    FAILED
}

/// The first Ctrl-C ends the run in order, a second one, or one before the run has begun, at once.
fn catch_interrupts(pipeline: &Pipeline, running: Arc<AtomicBool>) {
    let cancel = pipeline.cancel();
    // Where signals cannot be caught, they end the process as they always did.
    let _ = ctrlc::set_handler(move || {
        if !running.load(SeqCst) || cancel.swap(true, SeqCst) {
            say("error[E0998]: interrupted");
            std::process::exit(i32::from(FAILED));
        }
    });
}

fn not_available(args: &RunArgs) -> Option<&'static str> {
    let options = [
        (args.resume.is_some(), "`--resume`"),
        (!args.secret.is_empty(), "`--secret`"),
    ];
    options.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
}

fn engine(args: &RunArgs, screen: &Arc<Screen>, running: &Arc<AtomicBool>) -> Engine {
    let (warner, speaker, running) = (screen.clone(), screen.clone(), running.clone());
    let mut engine = args.plugins.add_to(Engine::builder());
    engine = engine
        .sync(!args.no_sync)
        .say(Arc::new(move |text| speaker.say(text)))
        .on_start(Arc::new(move |warnings| {
            running.store(true, SeqCst);
            if !warnings.diagnostics.is_empty() {
                warner.say(&warnings.render(colour()));
            }
        }));
    if let Some(size) = args.memory {
        engine = engine.memory_bytes(size.0);
    }
    if let Some(folder) = &args.spill_dir {
        engine = engine.spill_dir(folder);
    }
    if let Some(size) = args.disk {
        engine = engine.disk_bytes(size.0 as u64);
    }
    if let Some(workers) = args.workers {
        engine = engine.workers(workers.into());
    }
    if let Some(size) = args.chunk {
        engine = engine.chunk_bytes(size.0);
    }
    if let Some(size) = args.max_record {
        engine = engine.max_record(size.0);
    }
    engine.build()
}

/// The rows of a last pipeline without a sink go to the terminal as a table.
fn run_as_table(pipeline: &mut Pipeline, screen: &Screen) -> Result<Report, Failure> {
    let mut table = Table::default();
    let mut stdout = std::io::stdout().lock();
    let failed = |e| Error::io("write", "standard output", e);
    let report = pipeline.run_with(|schema, batch| {
        screen.end();
        table.print(schema, &batch, &mut stdout).map_err(failed)
    });
    if report.as_ref().is_ok_and(|report| report.outputs.is_empty()) && !table.has_rows() {
        screen.say("no rows");
    }
    report
}

/// What happened, in a line or two.
fn summary(report: &Report, is_watched: bool) {
    let bad = report.bad_rows();
    for note in &report.notes {
        say(&format!("note: {note}"));
    }
    if is_watched {
        let mut text = format!("{} read", rows_of(report.rows_read));
        for output in &report.outputs {
            let _ = write!(text, ", {} to {}", rows_of(output.rows), output.path);
        }
        if bad > 0 {
            let _ = write!(text, ", {} set aside", bad_rows(bad));
        }
        let _ = write!(text, " in {:.2} s", report.elapsed.as_secs_f64());
        if let Some((_, peak)) = memory::resident() {
            let _ = write!(text, ", peak memory {}", shown(peak));
        }
        say(&text);
    } else if bad > 0 {
        say(&format!("note: {} set aside", bad_rows(bad)));
    }
}

fn rows_of(count: u64) -> String {
    if count == 1 {
        "1 row".into()
    } else {
        format!("{count} rows")
    }
}

fn bad_rows(count: u64) -> String {
    if count == 1 {
        "1 bad row".into()
    } else {
        format!("{count} bad rows")
    }
}

fn write_report(report: &Report, file: NewFile) -> u8 {
    let text = serde_json::to_string_pretty(report).unwrap_or_default();
    match file.finish((text + "\n").as_bytes()) {
        Ok(()) => 0,
        Err(message) => failed(&message),
    }
}

/// The help of `run` without a script.
fn usage() -> String {
    let mut all = Cli::command();
    all.build();
    let run = all.find_subcommand_mut("run");
    run.map(|run| run.render_help().to_string()).unwrap_or_default()
}

/// What a script says about itself.
fn script_help(name: &str, pipeline: &Pipeline) -> String {
    let about = pipeline.about();
    let mut out = String::new();
    if let Some(doc) = &about.doc {
        let _ = writeln!(out, "{doc}\n");
    }
    let dots = if about.params.is_empty() {
        ""
    } else {
        " [-p NAME=VALUE]…"
    };
    let _ = writeln!(out, "Usage: standpipe run {name}{dots}");
    if !about.params.is_empty() {
        out.push_str("\nParameters:\n");
    }
    for param in &about.params {
        let default = param
            .default
            .as_ref()
            .map_or("required".into(), |value| format!("default: {value}"));
        let _ = writeln!(out, "  -p {}=…  {} [{default}]", param.name, param.takes);
        for line in param.doc.iter().flat_map(|doc| doc.lines()) {
            let _ = writeln!(out, "          {line}");
        }
    }
    out.push_str("\n`standpipe run --help` shows the options of every run.\n");
    out
}
