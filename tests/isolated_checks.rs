//! The checks of `standpipe plugin test` with the plugin in processes of its own: what stands for it there keeps what it promises.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use standpipe::Engine;
use standpipe::plugin::conform::{self, AGGREGATE_CHECKS, CHECKS, Outcome, SINK_CHECKS, SOURCE_CHECKS};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One check is one process: this test, for itself.
const SELF: &str = "one_check";

/// What it says then: a name that is none of a test's runs nothing, and is no failure.
const PASSED: &str = "the check has passed";

/// One check in this process, whose folder is empty; `PROJECT` has the plugin.
#[test]
#[ignore = "it is run by the others, with what it is to check"]
fn one_check() {
    let var = |name: &str| std::env::var(name).unwrap();
    let scratch = std::env::current_dir().unwrap();
    let engine = Engine::builder()
        .project(var("PROJECT"))
        .plugin_worker(env!("CARGO_BIN_EXE_standpipe"))
        .folder(&scratch)
        .workers(1)
        .build();
    let (ran, mut cases) = conform::record(|| {
        let mut pipeline = engine.compile("case.pipe", &var("SCRIPT")).unwrap();
        pipeline.run_with(|_, _| Ok(())).map(drop)
    });
    ran.unwrap();
    cases.retain(|case| case.name() == var("NAME"));
    // The one that ran.
    let case = cases.pop().unwrap();
    match conform::run(&var("CHECK"), &[case], &scratch) {
        Outcome::Passed => writeln!(std::io::stdout(), "{PASSED}").unwrap(),
        Outcome::Skipped(why) => writeln!(std::io::stdout(), "skipped: {why}").unwrap(),
        Outcome::Failed(what) => panic!("{what}"),
    }
}

/// All checks pass, but those that say they have nothing to look at: these are given.
fn must_pass(plugin: &str, library: &Path, name: &str, script: &str, checks: &[(&str, &str)], skipped: &[&str]) {
    let project = tempfile::tempdir().unwrap();
    fs::copy(library, project.path().join("lib.so")).unwrap();
    let text = format!("[plugins.{plugin}]\npath = \"lib.so\"\nisolate = \"process\"\n");
    fs::write(project.path().join("standpipe.toml"), text).unwrap();
    let mut lock = Command::new(env!("CARGO_BIN_EXE_standpipe"));
    assert!(
        lock.args(["plugin", "lock"])
            .current_dir(project.path())
            .status()
            .unwrap()
            .success()
    );
    fs::write(project.path().join("s.pipe"), script).unwrap();
    let mut explain = Command::new(env!("CARGO_BIN_EXE_standpipe"));
    let plan = explain
        .args(["explain", "s.pipe"])
        .current_dir(project.path())
        .output()
        .unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains(&format!("{name} runs in processes of its own")), "{plan}");
    let mut wrong = vec![];
    for (check, _) in checks {
        let scratch = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SELF, "--ignored", "--nocapture", "--test-threads", "1"])
            .env("PROJECT", project.path())
            .env("SCRIPT", script)
            .env("NAME", name)
            .env("CHECK", check)
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let has_run =
            out.contains(PASSED) != skipped.contains(check) && out.contains("skipped: ") == skipped.contains(check);
        if !output.status.success() || !has_run {
            wrong.push(format!("{check}: {out}{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn built(package: &str, library: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(["build", "-p", package]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("debug").join(library)
}

fn compiled(source: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolated_checks");
    fs::create_dir_all(&folder).unwrap();
    let library = folder.join(format!("lib{name}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-O1", "-shared", "-fPIC", "-I", "plugins/sdk/include", "-o"]);
    // Two tests may want it: who copies it meanwhile has all of the one that was there.
    let made = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
    let status = cc.arg(&*made).arg(source).status();
    assert!(
        status
            .expect("`cc` runs; `apt-get install build-essential` installs it")
            .success()
    );
    made.persist(&library).unwrap();
    library
}

#[test]
fn a_source_keeps_its_promises() {
    let crash = compiled("tests/plugins/crash.c", "crash");
    // The second one has snapshots that are longer than any frame.
    for how in ["none", "wide"] {
        let script = format!("use plugin crash\nread crash.well at: \"none\", how: \"{how}\"");
        must_pass(
            "crash",
            &crash,
            "crash.well",
            &script,
            SOURCE_CHECKS,
            &["refused reserve"],
        );
    }
}

#[test]
fn an_aggregate_keeps_its_promises() {
    let script = "use plugin crash\nfrom range(1, 50) | aggregate s = crash.sum(value) by k = value % 7";
    must_pass(
        "crash",
        &compiled("tests/plugins/crash.c", "crash"),
        "crash.sum",
        script,
        AGGREGATE_CHECKS,
        &[],
    );
}

#[test]
fn a_sink_keeps_its_promises() {
    let script = "use plugin odd\nfrom range(1, 50) | write odd.lines \"numbers.txt\", value";
    must_pass(
        "odd",
        &built("standpipe-odd", "libodd.so"),
        "odd.lines",
        script,
        SINK_CHECKS,
        &["refused memory"],
    );
}

#[test]
fn a_transform_and_a_function_keep_their_promises() {
    let script = "use plugin words\nfrom range(1, 50) | derive text = f\"one {value} two, and three\"\n\
        | derive n = words.count(text) | words.split text";
    for name in ["words.split", "words.count"] {
        must_pass(
            "words",
            &compiled("plugins/words/words.c", "words"),
            name,
            script,
            CHECKS,
            &["refused reserve", "snapshot"],
        );
    }
}
