//! Plugins in processes of their own: whatever they do, it is an error of their stage, in time; and the rows are the same.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            panic!("{command:?} does not run ({error}); `apt-get install build-essential` installs a C compiler")
        }
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn cli(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .args(arguments)
        .current_dir(folder))
}

/// A project with a plugin of `tests/plugins`, isolated or not, and locked.
fn project(name: &str, limits: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join(format!("lib{name}.so"));
    let (status, _, stderr) = run(Command::new("cc")
        .args(["-std=c99", "-O0", "-shared", "-fPIC", "-I", "plugins/sdk/include", "-o"])
        .arg(&library)
        .arg(format!("tests/plugins/{name}.c")));
    assert_eq!(status, Some(0), "{stderr}");
    let isolate = limits.map_or(String::new(), |limits| format!("isolate = \"process\"\n{limits}"));
    let text = format!("[plugins.{name}]\npath = \"lib{name}.so\"\n{isolate}");
    fs::write(folder.path().join("standpipe.toml"), text).unwrap();
    assert_eq!(cli(folder.path(), &["plugin", "lock"]).0, Some(0));
    folder
}

/// How many processes have this folder as theirs: none may be left.
fn processes(folder: &Path) -> usize {
    let is_here = |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(is_here)
        .filter(|&here| here)
        .count()
}

const HOWS: &[&str] = &["segv", "abort", "exit", "loop", "eat"];

/// Runs a script for each place and way to fail; `script` has them behind its rows. What they say, of all.
fn failures(folder: &Path, places: &[&str], script: &str) -> String {
    let mut seen = String::new();
    for at in places {
        for how in HOWS {
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
fn a_split_that_ends_its_process_when_it_goes_is_the_last_one() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let script = "use plugin crash\nread crash.well FAIL | write csv \"out.csv\"\n";
    let seen = failures(folder.path(), &["destroy"], script);
    insta::assert_snapshot!(seen);
}

#[test]
fn a_function_that_ends_its_process_is_an_error_of_its_call() {
    let folder = project("crash", Some(""));
    let script = "use plugin crash\nfrom range(1, 6) | derive x = crash.boom(value) | select sum = x + 1\n";
    fs::write(folder.path().join("s.pipe"), script).unwrap();
    let (status, stdout, stderr) = cli(folder.path(), &["run", "s.pipe"]);
    assert_eq!((status, stdout.lines().count()), (Some(0), 7), "{stderr}");
    fs::write(folder.path().join("s.pipe"), script.replace("6", "8")).unwrap();
    let (status, _, stderr) = cli(folder.path(), &["run", "s.pipe"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("error[E0806]: `crash.boom`") && stderr.contains("SIGSEGV"),
        "{stderr}"
    );
}

#[test]
fn an_isolated_plugin_gives_the_same_rows_and_rejects() {
    let script = "use plugin words\n\
        from range(1, 20000)\n\
        | derive n = value % 5, six = words.double(value % 9, times: 6)\n\
        | words.repeat n, most: 3 on error to rejects\n\
        | derive t = f\"a text that is longer than a view holds, {value}\", bad = words.double(n - 1, times: 2) on error null\n\
        | write csv \"out.csv\"\n\
        from rejects | write csv \"rejects.csv\"\n";
    let outcome = |limits: Option<&str>| {
        let folder = project("words", limits);
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let (status, _, stderr) = cli(folder.path(), &["run", "s.pipe"]);
        assert_eq!(status, Some(0), "{stderr}");
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        (read("out.csv"), read("rejects.csv"))
    };
    let here = outcome(None);
    assert!(here.0.lines().count() > 5000 && here.1.lines().count() > 1000);
    assert_eq!(outcome(Some("")), here);
}

#[test]
fn the_plan_and_the_report_say_that_it_runs_in_processes_of_its_own() {
    says_so(
        "crash",
        "use plugin crash\nread crash.well at: \"none\", how: \"none\" | aggregate s = crash.sum(n) \
         | write crash.drain \"sum.txt\", s, at: \"none\", how: \"none\"\n",
        &["crash.well", "crash.sum", "crash.drain"],
    );
    let script = "use plugin words\nfrom range(1, 3) | derive six = words.double(value, times: 6) | words.repeat value, most: 3\n";
    says_so("words", script, &["words.double", "words.repeat"]);
}

fn says_so(plugin: &str, script: &str, names: &[&str]) {
    let limits = "in processes of its own: timeout 0.5 s, memory 64MiB";
    for isolated in [false, true] {
        let folder = project(plugin, isolated.then_some("timeout = \"500ms\"\nmemory = \"64MiB\"\n"));
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let (status, plan, stderr) = cli(folder.path(), &["explain", "s.pipe"]);
        assert_eq!(status, Some(0), "{stderr}");
        for name in names {
            let line = format!("   {name} runs {limits}\n");
            assert_eq!(plan.matches(&line).count(), usize::from(isolated), "{plan}");
        }
        let (status, _, stderr) = cli(folder.path(), &["run", "s.pipe", "--report", "report.json"]);
        assert_eq!(status, Some(0), "{stderr}");
        let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
        let count = if isolated { names.len() } else { 0 };
        assert_eq!(report.matches(limits).count(), count, "{report}");
    }
}

#[test]
fn what_is_killed_from_outside_leaves_no_process() {
    use std::os::unix::process::ExitStatusExt;
    let folder = project("crash", Some("timeout = \"60s\"\n"));
    let folder = folder.path();
    let script =
        "use plugin crash\nfrom range(1, 10) | crash.crash at: \"process\", how: \"loop\" | write csv \"out.csv\"\n";
    fs::write(folder.join("s.pipe"), script).unwrap();
    for signal in ["-INT", "-TERM", "-KILL"] {
        let mut host = Command::new(env!("CARGO_BIN_EXE_standpipe"))
            .args(["run", "s.pipe"])
            .current_dir(folder)
            .stderr(std::process::Stdio::null())
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
        let ended = host.wait().unwrap();
        assert!(
            ended.code() == Some(1) || ended.signal() == Some(9),
            "{signal}: {ended}"
        );
        while processes(folder) > 0 {
            assert!(start.elapsed() < Duration::from_secs(5), "{signal}: a process is left");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!folder.join("out.csv").exists(), "{signal}");
    }
}

/// A library of this workspace, built.
fn built(package: &str, library: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let (status, _, stderr) = run(Command::new(cargo).args(["build", "-p", package]));
    assert_eq!(status, Some(0), "{stderr}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("debug").join(library)
}

/// A project with a copy of a library, locked.
fn project_of(name: &str, library: &Path, isolate: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(library, folder.path().join("lib.so")).unwrap();
    let text = format!("[plugins.{name}]\npath = \"lib.so\"\n{isolate}");
    fs::write(folder.path().join("standpipe.toml"), text).unwrap();
    assert_eq!(cli(folder.path(), &["plugin", "lock"]).0, Some(0));
    folder
}

const ISOLATED: &str = "isolate = \"process\"\n";

/// What a script gives that must give the same in processes of its own, for one worker and for two: what it prints, its `out.txt`, and
/// the outputs that the report names.
fn same_for_all(name: &str, library: &Path, script: &str) -> [String; 3] {
    let mut want = None;
    for isolate in ["", ISOLATED] {
        let folder = project_of(name, library, isolate);
        let folder = folder.path();
        fs::write(folder.join("s.pipe"), script).unwrap();
        for workers in ["1", "2"] {
            let arguments = ["run", "s.pipe", "--workers", workers, "--report", "report.json"];
            let (status, stdout, stderr) = cli(folder, &arguments);
            assert_eq!(status, Some(0), "{stderr}");
            let report = fs::read_to_string(folder.join("report.json")).unwrap();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let out = fs::read_to_string(folder.join("out.txt")).unwrap_or_default();
            let got = [stdout, out, report["outputs"].to_string()];
            assert!(
                want.get_or_insert_with(|| got.clone()) == &got,
                "{isolate} {workers}\n{script}"
            );
            assert_eq!(processes(folder), 0, "a process is left");
        }
    }
    want.unwrap()
}

#[test]
fn an_isolated_sink_writes_the_same_bytes() {
    let odd = built("standpipe-odd", "libodd.so");
    let numbers: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    let script = "use plugin odd\nfrom range(1, 30_000) | write odd.lines \"out.txt\", value";
    let [_, out, report] = same_for_all("odd", &odd, script);
    assert!(out == numbers && report.contains("out.txt"), "{report}");
    let metrics = built("standpipe-metrics", "libmetrics.so");
    let script = "use plugin metrics\nfrom range(1, 30_000) | derive at = @2026-01-31T00:00:00Z + value * 1s, host = f\"host {value % 7}\"\
        | write metrics.lines \"out.txt\", at measurement: \"m\", tags: \"host\"";
    let [_, out, _] = same_for_all("metrics", &metrics, script);
    assert_eq!(out.lines().count(), 30_000);
    // Rows that it sets aside, and what it says once it is done.
    let script = "use plugin odd\nfrom range(1, 30_000) | derive t = f\"{value} is longer than any view\"\
        | write odd.lines \"out.txt\", value, does: \"reject\" on error skip";
    let [_, out, report] = same_for_all("odd", &odd, script);
    assert!(out.lines().count() == 27_000 && report.contains("27000"), "{report}");
    // One whose `finish` publishes, and one that has a `publish`.
    let folder = project("sum", None);
    let script = "use plugin sum\nfrom range(1, 100_000) | write sum.total \"out.txt\", value";
    let [_, out, _] = same_for_all("sum", &folder.path().join("libsum.so"), script);
    assert_eq!(out, "5000050000\n");
    let folder = project("crash", None);
    let script =
        "use plugin crash\nfrom range(1, 100_000) | write crash.drain \"out.txt\", value, at: \"none\", how: \"none\"";
    let [_, out, report] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert_eq!(out, "5000050000\n");
    assert!(report.contains("the sum in out.txt"), "{report}");
}

#[test]
fn a_sink_is_told_that_it_need_not_wait_for_the_disk() {
    let odd = built("standpipe-odd", "libodd.so");
    let crash = project("crash", None);
    for isolate in ["", ISOLATED] {
        let folder = project_of("odd", &odd, isolate);
        let script = "use plugin odd\nfrom range(1, 3) | write odd.lines \"out.txt\", value, does: \"note\"\n";
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        for (more, want) in [(None, "sync true"), (Some("--no-sync"), "sync false")] {
            let arguments: Vec<&str> = ["run", "s.pipe"].into_iter().chain(more).collect();
            let (status, _, stderr) = cli(folder.path(), &arguments);
            assert!(status == Some(0) && stderr.contains(want), "{isolate}{want}: {stderr}");
        }
        let folder = project_of("crash", &crash.path().join("libcrash.so"), isolate);
        let script =
            "use plugin crash\nfrom range(1, 3) | write crash.drain \"out.txt\", value, at: \"none\", how: \"none\"\n";
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        for (more, want) in [(None, false), (Some("--no-sync"), true)] {
            let arguments: Vec<&str> = ["run", "s.pipe", "--report", "r.json"]
                .into_iter()
                .chain(more)
                .collect();
            let (status, _, stderr) = cli(folder.path(), &arguments);
            assert_eq!(status, Some(0), "{stderr}");
            let report = fs::read_to_string(folder.path().join("r.json")).unwrap();
            assert_eq!(report.contains("not synced"), want, "{isolate}: {report}");
        }
    }
}

#[test]
fn an_isolated_source_gives_the_same_rows() {
    let synth = built("standpipe-synth", "libsynth.so");
    let script = "use plugin synth\nread synth.rows seed: 7, rows: 200_000, columns: \"id: row, name: string?, price: float?, on: date\"\
        | filter id % 40 < 3 | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("synth", &synth, script);
    assert_eq!(out.lines().count(), 15_001);
    // The first rows only: what is read ahead is dropped.
    let script = "use plugin synth\nread synth.rows rows: 1_000_000_000_000 | take 3 | select id";
    let [out, ..] = same_for_all("synth", &synth, script);
    assert_eq!(out, "id\n1\n2\n3\n");
    // One that has nothing now, again and again.
    let odd = built("standpipe-odd", "libodd.so");
    let [out, ..] = same_for_all("odd", &odd, "use plugin odd\nread odd.drips");
    assert_eq!(out, "n\n0\n1\n2\n3\n4\n5\n");
    let folder = project("crash", None);
    let script = "use plugin crash\nread crash.well at: \"none\", how: \"none\" | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert!(out.starts_with("n\n1\n2\n") && out.ends_with("\n20000\n") && out.lines().count() == 20_001);
}

#[test]
fn an_isolated_aggregate_gives_the_same_values() {
    let quantiles = built("standpipe-quantiles", "libquantiles.so");
    for (groups, lines) in [("20_011", 20_012), ("3", 4)] {
        let script = format!(
            "use plugin quantiles\nfrom range(1, 100_000)
            | derive x = float(value * 7919 % 100_003) * 1.5 - 20_000.0, k = value * 31 % {groups}
            | aggregate n = count(), half = quantiles.quantile(x), most = quantiles.quantile(x, 1.0, where: value % 3 == 0),
                all = quantiles.sketch(x, error: 0.001) by k
            | select k, n, half, most, p90 = all.p90, count = all.count, max = all.max | write csv \"out.txt\""
        );
        let [_, out, _] = same_for_all("quantiles", &quantiles, &script);
        assert_eq!(out.lines().count(), lines);
    }
    let script =
        "use plugin quantiles\nfrom range(1, 400) | window q = quantiles.quantile(value, 1.0) rows: -1..0 | select q";
    let [out, ..] = same_for_all("quantiles", &quantiles, script);
    assert_eq!(out.lines().count(), 401);
    let folder = project("crash", None);
    let script = "use plugin crash\nfrom range(1, 100_000) | aggregate s = crash.sum(value), t = sum(value) by k = value % 30_000\
        | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert_eq!(out.lines().count(), 30_001);
    for line in out.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[1], cells[2], "{line}");
    }
}

#[test]
fn states_of_an_isolated_aggregate_go_to_disk_for_want_of_memory_of_the_run_or_of_its_processes() {
    let script = "use plugin crash\nfrom range(1, 600_000) | aggregate s = crash.sum(value) by k = value * 7919 % 300_007\
        | write csv \"out.csv\"";
    let run = |limits: Option<&str>, more: &[&str]| {
        let folder = project("crash", limits);
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let arguments = [&["run", "s.pipe", "--report", "report.json"], more].concat();
        let (status, _, stderr) = cli(folder.path(), &arguments);
        assert_eq!(status, Some(0), "{stderr}");
        let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let spilled = report["peak_spilled_bytes"].as_u64().unwrap();
        (fs::read_to_string(folder.path().join("out.csv")).unwrap(), spilled)
    };
    let (want, spilled) = run(None, &["--memory", "256MiB"]);
    assert_eq!(spilled, 0);
    for (limits, memory, spills) in [
        ("", "256MiB", false),
        ("", "24MiB", true),
        // States of all groups take 2.4 MB.
        ("memory = \"4MiB\"\n", "256MiB", true),
    ] {
        for workers in ["1", "2"] {
            let (out, spilled) = run(Some(limits), &["--memory", memory, "--workers", workers]);
            assert!(out == want, "{limits} {memory} {workers}");
            assert_eq!(spilled > 0, spills, "{limits} {memory} {workers}");
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
        for does in ["panic", "fail"] {
            let script =
                format!("from range(1, 9) | write odd.lines \"out.txt\", value, does: \"{does}\", at: \"{at}\"");
            let stderr = run(&script, &[]);
            let what = match does {
                "panic" => format!("it panics: no {at}"),
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

/// The example of a plugin gives the same bytes.
fn same_in_processes_of_its_own(name: &str, library: &Path, example: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(library, folder.path().join("lib.so")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(root.join("examples"), folder.path().join("examples")).unwrap();
    let outcome = |isolate: &str| {
        let text = format!("[plugins.{name}]\npath = \"lib.so\"\n{isolate}");
        fs::write(folder.path().join("standpipe.toml"), text).unwrap();
        assert_eq!(cli(folder.path(), &["plugin", "lock"]).0, Some(0));
        let (status, stdout, stderr) = cli(folder.path(), &["run", example]);
        assert_eq!(status, Some(0), "{stderr}");
        stdout
    };
    let here = outcome("");
    assert!(here.lines().count() > 2, "{here}");
    assert_eq!(outcome("isolate = \"process\"\n"), here);
}

#[test]
fn the_examples_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("libwords.so");
    let (status, _, stderr) = run(Command::new("cc")
        .args([
            "-std=c99",
            "-O1",
            "-shared",
            "-fPIC",
            "-I",
            "plugins/sdk/include",
            "plugins/words/words.c",
            "-o",
        ])
        .arg(&words));
    assert_eq!(status, Some(0), "{stderr}");
    same_in_processes_of_its_own("words", &words, "examples/plugins/words.pipe");
    let geo = built("standpipe-geo", "libgeo.so");
    same_in_processes_of_its_own("geo", &geo, "examples/plugins/nearest_city.pipe");
}

#[test]
fn limits_that_are_not_understood_say_so() {
    let folder = project("words", None);
    let say = |text: &str| {
        let text = format!("[plugins.words]\npath = \"libwords.so\"\n{text}");
        fs::write(folder.path().join("standpipe.toml"), text).unwrap();
        let (status, stdout, stderr) = cli(folder.path(), &["plugin", "list"]);
        format!("{status:?}\n{stdout}{stderr}").replace(folder.path().to_str().unwrap(), "PROJECT")
    };
    let isolated = "isolate = \"process\"\n";
    let cases = [
        isolated.to_owned(),
        format!("{isolated}timeout = \"500ms\"\nmemory = \"2GiB\"\n"),
        format!("{isolated}timeout = \"soon\"\n"),
        format!("{isolated}memory = \"1KiB\"\n"),
        "timeout = \"1s\"\n".to_owned(),
        "isolate = \"thread\"\n".to_owned(),
    ];
    let mut seen = String::new();
    for case in cases {
        let _ = writeln!(seen, "-- {}\n{}", case.trim().replace('\n', ", "), say(&case));
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn a_host_without_a_program_for_the_processes_is_told_how_to_have_one() {
    let folder = project("words", Some(""));
    let engine = standpipe::Engine::builder().project(folder.path()).build();
    let script = "use plugin words\nfrom range(1, 3) | words.count_up";
    let error = engine.compile("test.pipe", script).err().unwrap().render(false);
    insta::assert_snapshot!(error);
    // `standpipe` itself is one.
    let engine = standpipe::Engine::builder()
        .project(folder.path())
        .plugin_worker(env!("CARGO_BIN_EXE_standpipe"))
        .build();
    engine.compile("test.pipe", script).unwrap();
}
