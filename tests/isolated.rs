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
            let want = if *at == "bind" { 2 } else { 1 };
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
fn what_ends_a_plugin_once_its_rows_are_given_is_a_warning() {
    let folder = project("crash", Some("timeout = \"1s\"\nmemory = \"64MiB\"\n"));
    let folder = folder.path();
    for how in ["segv", "exit", "loop", "eat"] {
        let script = format!("use plugin crash\nfrom range(1, 3) | crash.crash at: \"destroy\", how: \"{how}\"\n");
        fs::write(folder.join("s.pipe"), script).unwrap();
        let start = Instant::now();
        let (status, stdout, stderr) = cli(folder, &["run", "s.pipe"]);
        assert!(
            start.elapsed() < TIMEOUT + Duration::from_secs(1),
            "{how}: {:?}",
            start.elapsed()
        );
        assert_eq!(
            (status, stdout.as_str()),
            (Some(0), "value\n1\n2\n3\n"),
            "{how}: {stderr}"
        );
        assert!(
            stderr.contains("E0806") && stderr.contains("destroy"),
            "{how}: {stderr}"
        );
        assert_eq!(processes(folder), 0, "{how}: a process is left");
    }
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
    let script = "use plugin words\nfrom range(1, 3) | derive six = words.double(value, times: 6) | words.repeat value, most: 3\n";
    let limits = "in processes of its own: timeout 0.5 s, memory 64MiB";
    for isolated in [false, true] {
        let folder = project("words", isolated.then_some("timeout = \"500ms\"\nmemory = \"64MiB\"\n"));
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let (status, plan, stderr) = cli(folder.path(), &["explain", "s.pipe"]);
        assert_eq!(status, Some(0), "{stderr}");
        for name in ["words.double", "words.repeat"] {
            let line = format!("   {name} runs {limits}\n");
            assert_eq!(plan.matches(&line).count(), usize::from(isolated), "{plan}");
        }
        let (status, _, stderr) = cli(folder.path(), &["run", "s.pipe", "--report", "report.json"]);
        assert_eq!(status, Some(0), "{stderr}");
        let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
        assert_eq!(report.matches(limits).count(), if isolated { 2 } else { 0 }, "{report}");
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
