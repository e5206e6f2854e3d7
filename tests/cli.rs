//! The command line as a stranger meets it: exit status, what goes where, and what is left behind.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use assert_cmd::Command;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command as Plain, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a call came to: status, stdout, stderr.
struct Seen {
    status: i32,
    out: String,
    err: String,
}

/// Calls the program in `folder` with `stdin` as its input.
fn call_with(folder: &Path, args: &[&str], stdin: &str) -> Seen {
    let outcome = Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .current_dir(folder)
        .args(args)
        .write_stdin(stdin)
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let seen = Seen {
        status: outcome.status.code().unwrap_or(-1),
        out: text(outcome.stdout),
        err: text(outcome.stderr),
    };
    assert!(!seen.err.contains("panicked"), "{args:?}: {}", seen.err);
    assert!(!seen.err.contains('\x1b'), "{args:?}: colour without a terminal");
    seen
}

fn call(folder: &Path, args: &[&str]) -> Seen {
    call_with(folder, args, "")
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_script_runs_and_prints_csv() {
    let folder = folder(&[
        ("in.csv", "id,city\n1,Rome\n2,Oslo\n"),
        ("a.pipe", "read csv \"in.csv\" | filter id > 1"),
    ]);
    for args in [
        ["run", "a.pipe"].as_slice(),
        &["run", "-e", "read csv \"in.csv\" | filter id > 1"],
    ] {
        let seen = call(folder.path(), args);
        assert_eq!(
            (seen.status, seen.out.as_str(), seen.err.as_str()),
            (0, "id,city\n2,Oslo\n", ""),
            "{args:?}"
        );
    }
}

#[test]
fn a_dash_reads_the_script_from_standard_input() {
    let folder = folder(&[]);
    let seen = call_with(folder.path(), &["run", "-"], "from range(1, 2)");
    assert_eq!((seen.status, seen.out.as_str()), (0, "value\n1\n2\n"), "{}", seen.err);
    let seen = call_with(
        folder.path(),
        &["run", "-e", "read csv \"-\" | take 1"],
        "a,b\n1,x\n2,y\n",
    );
    assert_eq!((seen.status, seen.out.as_str()), (0, "a,b\n1,x\n"), "{}", seen.err);
    let seen = call_with(folder.path(), &["check", "-"], "from range(1, 2) | filtre value > 1");
    assert_eq!(seen.status, 2);
    assert!(seen.err.contains("`filter` is close"), "{}", seen.err);
}

#[test]
fn a_wrong_script_or_command_line_is_status_2_and_stdout_stays_empty() {
    let folder = folder(&[("wrong.pipe", "from range(1, 2) | filter vale > 1"), ("bytes.pipe", "")]);
    fs::write(folder.path().join("bytes.pipe"), b"from \xff").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["run", "wrong.pipe"], "E0204"),
        (&["check", "wrong.pipe"], "E0204"),
        (&["explain", "wrong.pipe"], "E0204"),
        (&["run", "bytes.pipe"], "UTF-8"),
        (&["run", "none.pipe"], "cannot read `none.pipe`"),
        (&["run", "."], "cannot read `.`"),
        (&["check", "none.pipe"], "cannot read `none.pipe`"),
        (&["fmt", "none.pipe"], "cannot read `none.pipe`"),
        (&["run"], "required"),
        (&["run", "--memroy", "1MiB", "wrong.pipe"], "--memory"),
        (&["run", "--memory", "many", "wrong.pipe"], "many"),
        (&["run", "--memory", "-1", "wrong.pipe"], "-1"),
        (&["run", "--workers", "0", "wrong.pipe"], "1..=1024"),
        (&["run", "-p", "novalue", "wrong.pipe"], "NAME=VALUE"),
        (&["run", "wrong.pipe", "-e", "from range(1, 2)"], "cannot be used with"),
        (&["frobnicate"], "frobnicate"),
        (&["explain", "E9999"], "E9999"),
        (&["stages", "filtre"], "`filter` is close"),
        (&["functions", "uper"], "`upper` is close"),
        (&["formats", "csvv"], "`csv` is close"),
        (&["completions", "dos"], "dos"),
    ];
    for (args, words) in cases {
        let seen = call(folder.path(), args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}: {}", seen.err);
        assert!(seen.err.contains(words), "{args:?}: {}", seen.err);
    }
}

#[test]
fn what_is_not_available_yet_says_so() {
    let folder = folder(&[("a.pipe", "from range(1, 2)")]);
    let cases: &[&[&str]] = &[
        &["run", "a.pipe", "--resume", "state"],
        &["run", "a.pipe", "--secret", "pg=env:PG"],
    ];
    for args in cases {
        let seen = call(folder.path(), args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}");
        assert!(seen.err.contains("not available yet"), "{args:?}: {}", seen.err);
    }
}

#[test]
fn parameters_are_read_by_their_type() {
    let script = "param least: int = 2\nparam most: int\nfrom range(1, 9) | filter value >= least and value <= most";
    let folder = folder(&[("a.pipe", script)]);
    let seen = call(folder.path(), &["run", "a.pipe", "-p", "most=3"]);
    assert_eq!((seen.status, seen.out.as_str()), (0, "value\n2\n3\n"), "{}", seen.err);
    let seen = call(
        folder.path(),
        &["run", "-p", "least=3", "-p", "most=9", "a.pipe", "-p", "most=4"],
    );
    assert_eq!(
        (seen.status, seen.out.as_str()),
        (0, "value\n3\n4\n"),
        "the last one counts: {}",
        seen.err
    );
    let wrong: &[(&[&str], &str)] = &[
        (&["run", "a.pipe"], "`most`"),
        (&["run", "a.pipe", "-p", "most=many"], "`many`"),
        (&["run", "a.pipe", "-p", "most=3", "-p", "mots=3"], "E0214"),
    ];
    for (args, words) in wrong {
        let seen = call(folder.path(), args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}: {}", seen.err);
        assert!(seen.err.contains(words), "{args:?}: {}", seen.err);
    }
    // `check` and `explain` go on without a value.
    assert_eq!(call(folder.path(), &["check", "a.pipe"]).status, 0);
    assert_eq!(call(folder.path(), &["explain", "a.pipe"]).status, 0);
}

#[test]
fn every_problem_is_reported_at_once() {
    let folder = folder(&[(
        "a.pipe",
        "from range(1, 2)\n  | filter vale > 1\n  | derive x = uper(\"a\")\n  | srot value\n",
    )]);
    let seen = call(folder.path(), &["check", "a.pipe"]);
    for code in ["E0204", "E0205", "E0206"] {
        assert!(seen.err.contains(code), "{code}: {}", seen.err);
    }
}

#[test]
fn a_failed_run_is_status_1_and_leaves_nothing_behind() {
    let folder = folder(&[("out.csv", "before\n"), ("in.csv", "n\n1\n2\nx\n")]);
    let script =
        "read csv \"in.csv\" | derive m = int(n) | tee { | write jsonl \"new.jsonl\" } | write csv \"out.csv\"";
    let seen = call(folder.path(), &["run", "-e", script]);
    assert_eq!(seen.status, 1, "{}", seen.err);
    assert!(seen.err.contains("in.csv, line 4"), "{}", seen.err);
    assert_eq!(names(folder.path()), ["in.csv", "out.csv"]);
    assert_eq!(fs::read_to_string(folder.path().join("out.csv")).unwrap(), "before\n");
}

#[test]
fn a_run_that_succeeds_leaves_its_outputs_and_nothing_else() {
    let folder = folder(&[("out.csv", "before\n")]);
    for sync in [&[][..], &["--no-sync"]] {
        let args = [
            &[
                "run",
                "-e",
                "from range(1, 2) | write csv \"out.csv\"",
                "--report",
                "report.json",
            ],
            sync,
        ]
        .concat();
        let seen = call(folder.path(), &args);
        assert_eq!((seen.status, seen.out.as_str(), seen.err.as_str()), (0, "", ""));
        assert_eq!(
            fs::read_to_string(folder.path().join("out.csv")).unwrap(),
            "value\n1\n2\n"
        );
        assert_eq!(names(folder.path()), ["out.csv", "report.json"]);
    }
    let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["outputs"][0]["path"], "out.csv");
    assert_eq!(report["outputs"][0]["rows"], 2);
}

#[test]
fn a_report_counts_the_rows_of_all_sources_and_outputs() {
    let folder = folder(&[("in.csv", "n\n1\n2\n")]);
    let script = "from range(1, 3) | sort -value | write none\nread csv \"in.csv\" | write csv \"out.csv\"";
    let seen = call(folder.path(), &["run", "-e", script, "--report", "report.json"]);
    assert_eq!(seen.status, 0, "{}", seen.err);
    let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["rows_read"], 5);
    let rows: Vec<u64> = report["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["rows"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, [3, 2]);
}

#[test]
fn a_reader_that_goes_away_costs_no_other_output_in_silence() {
    let folder = folder(&[]);
    let script = "from range(1, 10_000_000) | tee { | write csv \"out.csv\" } | write csv \"-\"";
    let mut child = Plain::new(env!("CARGO_BIN_EXE_standpipe"))
        .current_dir(folder.path())
        .args(["run", "-e", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    drop(child.stdout.take());
    let outcome = child.wait_with_output().unwrap();
    let err = String::from_utf8(outcome.stderr).unwrap();
    assert!(outcome.status.code() == Some(1) && err.contains("E0612"), "{err}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anything_is_published() {
    let folder = folder(&[]);
    let seen = call(
        folder.path(),
        &[
            "run",
            "-e",
            "from range(1, 2) | write csv \"out.csv\"",
            "--report",
            "none/r.json",
        ],
    );
    assert_eq!(seen.status, 1);
    assert!(seen.err.contains("none/r.json"), "{}", seen.err);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_input_that_cannot_be_read_is_status_1() {
    let folder = folder(&[]);
    for path in ["none.csv", "none-*.csv", "."] {
        let script = format!("read csv \"{path}\"");
        let seen = call(folder.path(), &["run", "-e", &script]);
        assert_eq!((seen.status, seen.out.as_str()), (1, ""), "{path}: {}", seen.err);
        assert!(
            seen.err.contains(path) && seen.err.contains("-e:1:"),
            "{path}: {}",
            seen.err
        );
    }
}

#[test]
fn outputs_that_cannot_be_written_are_status_1() {
    let folder = folder(&[("file", "")]);
    fs::create_dir(folder.path().join("taken")).unwrap();
    for path in ["/proc/none/out.csv", "file/out.csv", "taken", "/dev/full"] {
        let script = format!("from range(1, 100_000) | write csv \"{path}\"");
        let seen = call(folder.path(), &["run", "-e", &script]);
        assert_eq!((seen.status, seen.out.as_str()), (1, ""), "{path}: {}", seen.err);
        assert!(
            seen.err.contains("E0603") && seen.err.contains(path),
            "{path}: {}",
            seen.err
        );
        assert!(
            !seen.err.contains(".part"),
            "a temporary name is nobody's business: {}",
            seen.err
        );
    }
    assert_eq!(names(folder.path()), ["file", "taken"]);
}

#[test]
fn a_full_standard_output_is_status_1() {
    let folder = folder(&[]);
    let all: &[&[&str]] = &[
        &["run", "-e", "from range(1, 100_000)"],
        &["stages"],
        &["explain", "E0412"],
    ];
    for args in all {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let child = Plain::new(env!("CARGO_BIN_EXE_standpipe"))
            .current_dir(folder.path())
            .args(*args)
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{args:?}");
        let err = String::from_utf8(outcome.stderr).unwrap();
        assert!(err.contains("standard output"), "{args:?}: {err}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let folder = folder(&[]);
    let all: &[&[&str]] = &[
        &["run", "-e", "from range(1, 1_000_000_000_000)"],
        &["completions", "bash"],
    ];
    for args in all {
        let mut child = Plain::new(env!("CARGO_BIN_EXE_standpipe"))
            .current_dir(folder.path())
            .args(*args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        drop(child.stdout.take());
        let outcome = child.wait_with_output().unwrap();
        let err = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!((outcome.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn an_interrupt_ends_the_run_and_publishes_nothing() {
    let folder = folder(&[]);
    for (signal, script) in [
        ("-INT", "from range(1, 1_000_000_000_000) | write csv \"out.csv\""),
        ("-TERM", "from range(1, 1_000_000_000_000) | write csv \"out.csv\""),
        // Nothing comes in, and nothing ever will.
        (
            "-INT",
            "schema S { a: int }\nread csv \"-\" schema: S header: false | write csv \"out.csv\"",
        ),
    ] {
        let mut child = Plain::new(env!("CARGO_BIN_EXE_standpipe"))
            .current_dir(folder.path())
            .args(["run", "-e", script])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its temporary file tells that it runs.
        let start = Instant::now();
        while names(folder.path()).is_empty() && start.elapsed() < Duration::from_secs(10) && script.starts_with("from")
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            Plain::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let stdin = child.stdin.take();
        let outcome = child.wait_with_output().unwrap();
        drop(stdin);
        let err = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{signal} {script}: {err}");
        assert!(err.contains("interrupted"), "{signal} {script}: {err}");
        assert!(
            names(folder.path()).is_empty(),
            "{signal} {script}: {:?}",
            names(folder.path())
        );
    }
}

#[test]
fn bad_rows_that_were_set_aside_are_counted_on_stderr() {
    let folder = folder(&[("in.csv", "n\n1\nx\n3\n")]);
    let seen = call(
        folder.path(),
        &["run", "-e", "read csv \"in.csv\" | derive m = int(n) on error skip"],
    );
    assert_eq!((seen.status, seen.out.as_str()), (0, "n,m\n1,1\n3,3\n"), "{}", seen.err);
    assert!(seen.err.contains("1 bad row"), "{}", seen.err);
}

#[test]
fn warnings_are_said_and_do_not_stop_the_run() {
    let folder = folder(&[("in.csv", "a,a\n1,2\n")]);
    let seen = call(folder.path(), &["run", "-e", "read csv \"in.csv\""]);
    assert_eq!((seen.status, seen.out.as_str()), (0, "a,a_2\n1,2\n"), "{}", seen.err);
    assert!(seen.err.contains("warning["), "{}", seen.err);
}

#[test]
fn check_speaks_json_to_programs() {
    let folder = folder(&[
        ("good.pipe", "from range(1, 2)"),
        ("bad.pipe", "from range(1, 2)\n  | filter vale > 1"),
    ]);
    let seen = call(folder.path(), &["check", "--format", "json", "good.pipe", "bad.pipe"]);
    assert_eq!((seen.status, seen.err.as_str()), (2, ""));
    let found: serde_json::Value = serde_json::from_str(&seen.out).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["code"], "E0204");
    assert_eq!(found[0]["file"], "bad.pipe");
    assert_eq!((&found[0]["line"], &found[0]["column"]), (&2.into(), &12.into()));
    let seen = call(folder.path(), &["check", "--format", "json", "good.pipe"]);
    assert_eq!((seen.status, seen.out.as_str()), (0, "[]\n"));
}

#[test]
fn fmt_rewrites_only_what_is_not_canonical() {
    let folder = folder(&[
        ("a.pipe", "from   range(1,2)\n\n\n|filter value>1\n"),
        ("wrong.pipe", "from |"),
    ]);
    let seen = call(folder.path(), &["fmt", "--check", "a.pipe"]);
    assert_eq!((seen.status, seen.out.as_str()), (1, ""));
    assert!(seen.err.contains("a.pipe"), "{}", seen.err);
    let seen = call(folder.path(), &["fmt", "a.pipe"]);
    assert_eq!((seen.status, seen.out.as_str(), seen.err.as_str()), (0, "", ""));
    let text = fs::read_to_string(folder.path().join("a.pipe")).unwrap();
    let seen = call_with(folder.path(), &["fmt", "-"], "from   range(1,2)\n\n\n|filter value>1\n");
    assert_eq!((seen.status, seen.out.as_str()), (0, text.as_str()));
    assert_eq!(call(folder.path(), &["fmt", "--check", "a.pipe"]).status, 0);
    let seen = call(folder.path(), &["fmt", "wrong.pipe"]);
    assert_eq!((seen.status, seen.out.as_str()), (2, ""));
    assert_eq!(names(folder.path()), ["a.pipe", "wrong.pipe"]);
}

#[test]
fn explain_shows_the_plan_the_memory_and_the_codes() {
    let folder = folder(&[(
        "a.pipe",
        "from range(1, 9) | filter value > 2 | sort -value | write csv \"out.csv\"",
    )]);
    let seen = call(folder.path(), &["explain", "e0412"]);
    assert_eq!((seen.status, seen.err.as_str()), (0, ""));
    assert!(seen.out.starts_with("E0412"), "{}", seen.out);
    let seen = call(folder.path(), &["explain", "a.pipe"]);
    assert!(
        seen.status == 0 && seen.out.contains("region 2") && seen.out.contains("sort"),
        "{}",
        seen.out
    );
    let seen = call(folder.path(), &["explain", "a.pipe", "--graph", "dot"]);
    assert!(seen.status == 0 && seen.out.starts_with("digraph"), "{}", seen.out);
    let seen = call(folder.path(), &["explain", "a.pipe", "--graph", "mermaid"]);
    assert!(seen.status == 0 && seen.out.starts_with("flowchart"), "{}", seen.out);
    let seen = call(folder.path(), &["explain", "a.pipe", "--memory"]);
    assert!(
        seen.status == 0 && seen.out.contains("limit") && seen.out.contains("sort") && seen.out.contains("together"),
        "{}",
        seen.out
    );
    let sessions =
        "from range(0, 3) | select t = @2026-01-01T00:00:00Z + value * 1h | window session 30m, n = count() on t";
    std::fs::write(folder.path().join("sessions.pipe"), sessions).unwrap();
    let seen = call(folder.path(), &["explain", "sessions.pipe", "--memory"]);
    assert!(seen.out.contains("window session  windows "), "{}", seen.out);
    let small = "@budget(memory: 9MiB)\nfrom range(1, 9) | sort -value | write csv \"out.csv\"";
    let folder = self::folder(&[("small.pipe", small), ("a.pipe", "")]);
    for args in [["check", "small.pipe"], ["run", "small.pipe"]] {
        let seen = call(folder.path(), &args);
        assert!(
            seen.status == 2 && seen.err.contains("error[E0702]") && seen.err.contains("the limit is 9.0 MiB"),
            "{args:?}: {}",
            seen.err
        );
    }
    let seen = call(folder.path(), &["explain", "small.pipe", "--memory"]);
    assert!(
        seen.status == 2
            && seen.out.contains("does not fit")
            && seen.out.contains("smaller `--max-record` or `--chunk`"),
        "{}",
        seen.out
    );
    // What the least is made of, and no "most" that is less than it.
    let row = |name: &str| -> Vec<String> {
        let mut lines = seen.out.lines().map(|line| line.split_whitespace().map(str::to_owned));
        lines
            .find_map(|words| {
                Some(words.collect::<Vec<_>>()).filter(|words| words.first().is_some_and(|word| word == name))
            })
            .unwrap_or_default()
    };
    assert!(
        row("floor").join(" ").ends_with("and a record of 8.0 MiB"),
        "{}",
        seen.out
    );
    assert!(row("together").contains(&"-".to_owned()), "{}", seen.out);
    let seen = call(
        folder.path(),
        &["run", "small.pipe", "--memory", "1GiB", "--chunk", "10GiB"],
    );
    assert!(
        seen.status == 2 && seen.err.contains("E0702") && seen.err.contains("or `--chunk`"),
        "{}",
        seen.err
    );
    let folder = self::folder(&[("a.pipe", "")]);
    assert!(names(folder.path()) == ["a.pipe"], "explain writes nothing");
}

#[test]
fn the_reference_is_printed_from_the_declarations() {
    let folder = folder(&[]);
    for stage in standpipe::stages::list::list() {
        let seen = call(folder.path(), &["stages", stage.name]);
        assert!(
            seen.status == 0 && seen.out.contains(stage.about),
            "{}: {}",
            stage.name,
            seen.out
        );
    }
    for (args, words) in [
        (["stages"].as_slice(), "filter"),
        (&["functions"], "upper"),
        (&["functions", "upper"], "upper("),
        (&["formats"], "jsonl"),
        (&["formats", "csv"], "delimiter"),
    ] {
        let seen = call(folder.path(), args);
        assert!(
            seen.status == 0 && seen.out.contains(words) && seen.err.is_empty(),
            "{args:?}: {}",
            seen.out
        );
    }
}

#[test]
fn every_command_has_help() {
    let folder = folder(&[(
        "a.pipe",
        "## Numbers up to a limit.\n\n## The last one.\nparam most: int = 3\nfrom range(1, 9) | filter value <= most",
    )]);
    for command in [
        "run",
        "check",
        "explain",
        "fmt",
        "test",
        "stages",
        "functions",
        "formats",
        "plugin",
        "completions",
    ] {
        let seen = call(folder.path(), &[command, "--help"]);
        assert_eq!((seen.status, seen.err.as_str()), (0, ""), "{command}");
        assert!(seen.out.contains("Usage: standpipe"), "{command}: {}", seen.out);
    }
    let seen = call(folder.path(), &["--version"]);
    assert_eq!(
        (seen.status, seen.out.trim_end()),
        (0, concat!("standpipe ", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(call(folder.path(), &["--help"]).status, 0);
    assert_eq!(call(folder.path(), &[]).status, 2);
    let seen = call(folder.path(), &["run", "a.pipe", "--help"]);
    for words in ["Numbers up to a limit.", "-p most=", "int", "The last one.", "3"] {
        assert!(seen.status == 0 && seen.out.contains(words), "{words}: {}", seen.out);
    }
}

#[test]
fn shells_get_completions() {
    let folder = folder(&[]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let seen = call(folder.path(), &["completions", shell]);
        assert!(seen.status == 0 && seen.out.contains("explain"), "{shell}");
    }
}
