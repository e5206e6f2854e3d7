//! Plugins in processes of their own: whatever they do, it is an error of their stage, in time; and the rows are the same.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod failures;
mod same;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
