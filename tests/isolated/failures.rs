//! Whatever a plugin does, it is an error of its stage, in time, and nothing is left.

use super::{ISOLATED, built, cli, processes, project, project_of};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);

const HOWS: &[&str] = &["segv", "abort", "exit", "loop", "eat"];

/// Ways to say what is no answer.
const NONSENSE: &[&str] = &["noise", "kind", "short"];

/// Runs a script for each place and way to fail; `script` has them behind its rows. What they say, of all.
fn failures(folder: &Path, places: &[&str], script: &str) -> String {
    failing(folder, places, HOWS, script)
}

fn failing(folder: &Path, places: &[&str], hows: &[&str], script: &str) -> String {
    let mut seen = String::new();
    for at in places {
        for how in hows {
            let script = script.replace("FAIL", &format!("at: \"{at}\", how: \"{how}\""));
            fs::write(folder.join("s.pipe"), script).unwrap();
            let start = Instant::now();
            let (status, stdout, stderr) = cli(folder, &["run", "s.pipe"]);
            let took = start.elapsed();
            assert!(took < TIMEOUT + Duration::from_secs(1), "{at} {how}: {took:?}");
            // What is seen in `bind` is seen by the check.
            let want = if ["bind", "state_schema"].contains(at) { 2 } else { 1 };
            assert_eq!((status, stdout.as_str()), (Some(want), ""), "{at} {how}: {stderr}");
            assert!(
                !folder.join("out.csv").exists() && !folder.join("sum.txt").exists(),
                "{at} {how}: something was published"
            );
            let first = stderr.lines().find(|line| line.contains("error[")).unwrap_or(&stderr);
            let _ = writeln!(seen, "{at} {how}: {first}");
            assert_eq!(processes(folder), 0, "{at} {how}: a process is left");
        }
    }
    seen
}

#[test]
fn whatever_ends_or_hangs_a_plugin_is_an_error_of_its_stage_in_time() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let script = "use plugin crash\nfrom range(1, 10) | crash.crash FAIL | write csv \"out.csv\"\n";
    let seen = failures(folder.path(), &["bind", "create", "process", "finish"], script);
    insta::assert_snapshot!(seen);
}

#[test]
fn whatever_ends_or_hangs_a_sink_is_its_error_in_time_and_nothing_is_published() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let folder = folder.path();
    // The one that fails stands first, so that the other has something to lose.
    let script = "use plugin crash\nstream n = from range(1, 10)\nfrom n | write crash.drain \"sum.txt\", value, FAIL\n\
        from n | write csv \"out.csv\"\n";
    let seen = failures(folder, &["bind", "create", "process", "finish", "publish"], script);
    insta::assert_snapshot!(seen);
    fs::write(
        folder.join("s.pipe"),
        script.replace("FAIL", "at: \"none\", how: \"none\""),
    )
    .unwrap();
    let (status, _, stderr) = cli(folder, &["run", "s.pipe"]);
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(fs::read_to_string(folder.join("sum.txt")).unwrap(), "55\n");
    assert!(folder.join("out.csv").exists());
}

#[test]
fn whatever_ends_or_hangs_a_source_is_its_error_in_time() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let script = "use plugin crash\nread crash.well FAIL | write csv \"out.csv\"\n";
    let seen = failures(folder.path(), &["bind", "create", "process"], script);
    insta::assert_snapshot!(seen);
}

#[test]
fn whatever_ends_or_hangs_an_aggregate_is_its_error_in_time() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let script = "use plugin crash\nfrom range(1, 20_000) | aggregate s = crash.sum(value, FAIL) by k = value % 7000\
        | write csv \"out.csv\"\n";
    // With an instance that goes, others in its process go as well: here that is an error too.
    let places = [
        "bind",
        "state_schema",
        "create",
        "room",
        "update",
        "state",
        "room_to_merge",
        "merge",
        "finalize",
        "destroy",
    ];
    let seen = failures(folder.path(), &places, script);
    insta::assert_snapshot!(seen);
}

#[test]
fn what_is_no_answer_is_an_error_that_says_so_wherever_it_is_said() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let folder = folder.path();
    let stage: &[&str] = &["bind", "create", "process", "finish"];
    let aggregate: &[&str] = &[
        "bind",
        "state_schema",
        "create",
        "room",
        "update",
        "state",
        "room_to_merge",
        "merge",
        "finalize",
    ];
    for (places, script) in [
        (stage, "from range(1, 10) | crash.crash FAIL | write csv \"out.csv\""),
        (&stage[..3], "read crash.well FAIL | write csv \"out.csv\""),
        (stage, "from range(1, 10) | write crash.drain \"sum.txt\", value, FAIL"),
        (
            aggregate,
            "from range(1, 20_000) | aggregate s = crash.sum(value, FAIL) by k = value % 7000 | write csv \"out.csv\"",
        ),
        (
            &["clear"],
            "from range(1, 600_000) | aggregate s = crash.sum(value, FAIL) by k = value * 7919 % 300_007\
             | write csv \"out.csv\"",
        ),
    ] {
        let script = format!("@budget(memory: 24MiB)\nuse plugin crash\n{script}\n");
        for line in failing(folder, places, NONSENSE, &script).lines() {
            let at = line.split(' ').next().unwrap().replace("state_schema", "bind");
            let want = format!("its process answered something that is no answer in `{at}`, and was ended");
            assert!(
                line.contains("error[E0806]") && line.ends_with(&want),
                "{line}\n{script}"
            );
        }
    }
    // What it does before it is ended is its own.
    let script =
        "use plugin crash\nfrom range(1, 3) | write crash.drain \"sum.txt\", value, at: \"publish\", how: \"short\"";
    fs::write(folder.join("s.pipe"), script).unwrap();
    let (status, _, stderr) = cli(folder, &["run", "s.pipe"]);
    let want = "its process answered something that is no answer in `publish`, and was ended";
    assert!(status == Some(1) && stderr.contains(want), "{stderr}");
}

#[test]
fn a_process_that_has_said_what_is_no_answer_is_not_asked_again() {
    let folder = project("crash", Some(""));
    let engine = standpipe::Engine::builder()
        .project(folder.path())
        .plugin_worker(env!("CARGO_BIN_EXE_standpipe"))
        .workers(1)
        .build();
    let run = |script: &str| {
        let mut rows = 0;
        let mut pipeline = engine
            .compile("s.pipe", &format!("use plugin crash\n{script}"))
            .unwrap();
        let outcome = pipeline.run_with(|_, batch| {
            rows += batch.rows();
            Ok(())
        });
        outcome.map(|_| rows).map_err(|error| error.render(false))
    };
    let sound = "from range(1, 3) | crash.crash at: \"none\", how: \"none\" | derive x = crash.boom(value)";
    assert_eq!(run(sound), Ok(3));
    let function = "from range(8, 10) | derive x = crash.boom(value)".to_owned();
    let stages = NONSENSE.iter().flat_map(|how| {
        ["create", "process", "finish"].map(|at| format!("from range(1, 3) | crash.crash at: \"{at}\", how: \"{how}\""))
    });
    for script in stages.chain([function]) {
        let error = run(&script).unwrap_err();
        assert!(
            error.contains("answered something that is no answer"),
            "{script}: {error}"
        );
        assert_eq!(run(sound), Ok(3), "{script}");
    }
}

#[test]
fn what_goes_wrong_while_states_are_forgotten_is_told_by_the_next_call() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let script = "@budget(memory: 24MiB)\nuse plugin crash\nfrom range(1, 600_000)\
        | aggregate s = crash.sum(value, FAIL) by k = value * 7919 % 300_007 | write csv \"out.csv\"\n";
    let seen = failures(folder.path(), &["clear"], script);
    insta::assert_snapshot!(seen);
}

#[test]
fn what_ends_a_plugin_once_its_rows_are_given_is_a_warning() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let folder = folder.path();
    for script in [
        "from range(1, 3) | crash.crash FAIL",
        "from range(1, 3) | write csv \"-\"\nfrom range(1, 3) | write crash.drain \"sum.txt\", value, FAIL",
    ] {
        for how in ["segv", "exit", "loop", "eat"] {
            let script = script.replace("FAIL", &format!("at: \"destroy\", how: \"{how}\""));
            fs::write(folder.join("s.pipe"), format!("use plugin crash\n{script}\n")).unwrap();
            let start = Instant::now();
            let (status, stdout, stderr) = cli(folder, &["run", "s.pipe"]);
            let took = start.elapsed();
            assert!(took < TIMEOUT + Duration::from_secs(1), "{script}: {took:?}");
            assert_eq!(
                (status, stdout.as_str()),
                (Some(0), "value\n1\n2\n3\n"),
                "{script}: {stderr}"
            );
            assert!(
                stderr.contains("warning[E0806]") && stderr.contains("destroy"),
                "{script}: {stderr}"
            );
            if script.contains("sum.txt") {
                assert_eq!(fs::read_to_string(folder.join("sum.txt")).unwrap(), "6\n");
            }
            assert_eq!(processes(folder), 0, "{script}: a process is left");
        }
    }
}

#[test]
fn a_split_that_ends_its_process_when_it_goes_is_one_warning_whatever_the_others_do() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let folder = folder.path();
    let numbers: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    for (how, times) in [("segv", 10), ("exit", 10), ("short", 5), ("loop", 1)] {
        let script =
            format!("use plugin crash\nread crash.well at: \"destroy\", how: \"{how}\" | write csv \"out.csv\"\n");
        fs::write(folder.join("s.pipe"), script).unwrap();
        for workers in ["1", "2", "4"] {
            for _ in 0..times {
                let _ = fs::remove_file(folder.join("out.csv"));
                let start = Instant::now();
                let (status, _, stderr) = cli(folder, &["run", "s.pipe", "--workers", workers]);
                let took = start.elapsed();
                // However many hang, nobody waits for more than one.
                assert!(took < TIMEOUT + Duration::from_secs(1), "{how} {workers}: {took:?}");
                let warnings = stderr.matches("crash.well: warning[E0806]").count();
                assert_eq!((status, warnings), (Some(0), 1), "{how} {workers}: {stderr}");
                assert!(stderr.contains("`destroy`"), "{how} {workers}: {stderr}");
                let out = fs::read_to_string(folder.join("out.csv")).unwrap();
                assert!(out == format!("n\n{numbers}"), "{how} {workers}");
                assert_eq!(processes(folder), 0, "{how} {workers}: a process is left");
            }
        }
    }
}

#[test]
fn states_that_are_lost_with_a_table_of_others_are_an_error_for_any_number_of_workers() {
    let folder = project("crash", Some(""));
    let folder = folder.path();
    let script = "use plugin crash\nfrom range(1, 20_000)\
        | aggregate s = crash.sum(value, at: \"destroy\", how: \"exit\") by k = value % 7000\n";
    fs::write(folder.join("s.pipe"), script).unwrap();
    for workers in ["1", "2", "4"] {
        for _ in 0..5 {
            let (status, _, stderr) = cli(folder, &["run", "s.pipe", "--workers", workers]);
            let (warnings, errors) = (stderr.matches("warning[E0806]"), stderr.matches("error[E0806]"));
            assert_eq!(
                (status, warnings.count(), errors.count()),
                (Some(1), 1, 1),
                "{workers}: {stderr}"
            );
        }
    }
}

#[test]
fn what_is_killed_from_outside_leaves_no_process() {
    use std::os::unix::process::ExitStatusExt;
    let folder = project("crash", Some("timeout = \"60s\"\n"));
    let folder = folder.path();
    let stage = "crash.crash FAIL";
    let sum = "aggregate s = crash.sum(value, FAIL) by k = value % 7";
    for (signal, stage, at, how) in [
        ("-INT", stage, "process", "loop"),
        ("-TERM", stage, "process", "loop"),
        ("-KILL", stage, "process", "loop"),
        ("-INT", stage, "process", "emit"),
        ("-INT", stage, "process", "log"),
        ("-INT", stage, "process", "reserve"),
        ("-INT", sum, "create", "loop"),
        ("-INT", sum, "update", "loop"),
        ("-INT", sum, "finalize", "loop"),
    ] {
        let stage = stage.replace("FAIL", &format!("at: \"{at}\", how: \"{how}\""));
        let script = format!("use plugin crash\nfrom range(1, 10) | {stage} | write csv \"out.csv\"\n");
        fs::write(folder.join("s.pipe"), script).unwrap();
        let mut host = Command::new(env!("CARGO_BIN_EXE_standpipe"))
            .args(["run", "s.pipe"])
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while processes(folder) < 2 {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it does not start its process"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        // So that the plugin is in its loop.
        std::thread::sleep(Duration::from_millis(300));
        let killed = Command::new("kill").args([signal, &host.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = host.try_wait().unwrap() {
                break ended;
            }
            if start.elapsed() > Duration::from_secs(5) {
                host.kill().unwrap();
                panic!("{signal} {at} {how}: it goes on");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(
            ended.code() == Some(1) || ended.signal() == Some(9),
            "{signal} {at} {how}: {ended}"
        );
        while processes(folder) > 0 {
            assert!(start.elapsed() < Duration::from_secs(5), "{signal}: a process is left");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!folder.join("out.csv").exists(), "{signal}");
    }
}

#[test]
fn what_is_said_of_an_aggregate_is_said_where_the_host_wants_it() {
    use std::sync::{Arc, Mutex};
    let folder = project("crash", Some(""));
    let said = Arc::new(Mutex::new(String::new()));
    let into = said.clone();
    let engine = standpipe::Engine::builder()
        .project(folder.path())
        .plugin_worker(env!("CARGO_BIN_EXE_standpipe"))
        .workers(1)
        .say(Arc::new(move |text| into.lock().unwrap().push_str(text)))
        .build();
    let script = "use plugin crash\nfrom range(1, 10) | aggregate s = crash.sum(value, at: \"destroy\", how: \"exit\")";
    let mut pipeline = engine.compile("s.pipe", script).unwrap();
    let _ = pipeline.run_with(|_, _| Ok(()));
    let said = said.lock().unwrap();
    assert!(said.contains("crash.sum: warning[E0806]"), "{said}");
}

#[test]
fn what_asks_without_end_and_minds_no_answer_is_an_error_in_time() {
    let folder = project("crash", Some("timeout = \"1s\"\n"));
    let folder = folder.path();
    for script in [
        // The rows are enough after three.
        "from range(1, 10) | crash.crash FAIL | take 3",
        "read crash.well FAIL",
    ] {
        for how in ["emit", "log", "reserve"] {
            let script = script.replace("FAIL", &format!("at: \"process\", how: \"{how}\""));
            fs::write(
                folder.join("s.pipe"),
                format!("use plugin crash\n{script} | write csv \"out.csv\"\n"),
            )
            .unwrap();
            let host = Command::new("timeout")
                .args(["-s", "KILL", "20", env!("CARGO_BIN_EXE_standpipe"), "run", "s.pipe"])
                .current_dir(folder)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&host.stderr);
            let end = stderr.lines().find(|line| line.starts_with("error["));
            let want = match how == "emit" && script.starts_with("read") {
                // The first thing it does wrong.
                true => "it gives two arrays in one call",
                false => "its process did not answer in `process` within 1 s, and was ended",
            };
            assert!(
                end.is_some_and(|end| end.contains(want)),
                "{script}: {:?} {end:?}",
                host.status
            );
            assert!(
                host.status.code() == Some(1) && !folder.join("out.csv").exists(),
                "{script}"
            );
            assert_eq!(processes(folder), 0, "{script}: a process is left");
        }
    }
}

#[test]
fn a_failing_run_with_an_isolated_sink_leaves_nothing() {
    let odd = built("standpipe-odd", "libodd.so");
    let folder = project_of("odd", &odd, ISOLATED);
    let folder = folder.path();
    fs::write(folder.join("out.txt"), "before").unwrap();
    let run = |script: &str, more: &[&str]| {
        fs::write(folder.join("s.pipe"), format!("use plugin odd\n{script}")).unwrap();
        let (status, _, stderr) = cli(folder, &[&["run", "s.pipe"], more].concat());
        assert_eq!(status, Some(1), "{stderr}");
        assert_eq!(fs::read_to_string(folder.join("out.txt")).unwrap(), "before");
        let is_left = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
        assert!(!fs::read_dir(folder).unwrap().flatten().any(|entry| is_left(&entry)));
        assert_eq!(processes(folder), 0, "a process is left");
        stderr
    };
    for at in ["open", "write", "finish", "publish"] {
        for does in ["panic", "fail", "abort"] {
            let script =
                format!("from range(1, 9) | write odd.lines \"out.txt\", value, does: \"{does}\", at: \"{at}\"");
            let stderr = run(&script, &[]);
            let what = match does {
                "panic" => format!("it panics: no {at}"),
                // Nobody is left who could remove anything.
                "abort" => "its process was lost".to_owned(),
                _ => format!("it does not {at}"),
            };
            assert!(stderr.contains("`odd.lines`") && stderr.contains(&what), "{stderr}");
        }
    }
    let elsewhere = "from range(1, 9000) | derive x = 1 / (value - 8000) | write odd.lines \"out.txt\", value";
    assert!(run(elsewhere, &["--workers", "2"]).contains("division"));
    let stderr = run("from range(1, 900_000) | write odd.keeps", &["--memory", "24MiB"]);
    assert!(stderr.contains("`odd.keeps`: it has"), "{stderr}");
}
