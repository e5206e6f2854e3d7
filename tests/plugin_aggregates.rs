//! `standpipe plugin test` of aggregates: those that behave pass, in C and in Rust, and each promise that a bad one breaks is seen; what the
//! host sees at run time is an error of the stage.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use standpipe::Engine;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = "tests/plugins/bad_sums.c";

fn compiled(name: &str, more: &[&str]) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let library = folder.path().join(format!("lib{name}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]);
    cc.args(more)
        .args(["-I", "plugins/sdk/include", SOURCE, "-o"])
        .arg(&library);
    let output = cc
        .output()
        .expect("`cc` runs; `apt-get install build-essential` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn bad() -> &'static Path {
    static BAD: OnceLock<PathBuf> = OnceLock::new();
    BAD.get_or_init(|| compiled("bad_sums", &[]))
}

fn built(package: &str, library: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(["build", "-p", package]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("debug").join(library)
}

/// The exit status, what it says, and the status and message of each check of one aggregate.
fn test(library: &Path, more: &[&str]) -> (Option<i32>, String, Vec<(String, String, String)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standpipe"));
    command.args(["plugin", "test", "--format", "json", "--timeout", "20"]);
    let output = command.arg(library).args(more).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = report["checks"].as_array().unwrap();
    let lines = lines
        .iter()
        .filter(|line| line["stage"] != "")
        .map(|line| (text(line, "check"), text(line, "status"), text(line, "message")));
    let lines = lines.collect();
    (output.status.code(), out, lines)
}

/// The aggregate, the check that sees what it does, and what that says.
const SEEN: &[(&str, &str, &str)] = &[
    ("crashes", "works", "SIGSEGV"),
    ("exits", "works", "exited with status 0"),
    ("short", "works", "it gives 2 values for 3 groups"),
    ("overlong", "works", "its rows go on behind it"),
    ("overruns", "works", "it writes behind the"),
    ("types", "works", "buffers, not"),
    ("keeps", "works", "it kept input beyond the call"),
    ("scribbles", "works", "it changes the input that is only lent"),
    ("rejects", "works", "it rejects groups and did not say so"),
    ("full", "works", "it gives up on the rows of its own example"),
    ("empty", "no rows", "SIGSEGV"),
    ("cramped", "many rows", "SIGSEGV"),
    ("batchy", "batch sizes", "batches of 1 rows: group 0 is"),
    ("random", "deterministic", "the same rows again"),
    ("lasts", "order", "the rows from the last to the first"),
    ("forgets", "merging", "states of 2 parts of the rows"),
    ("loses", "state", "states that went through their columns"),
    ("remembers", "lent memory", "memory that is overwritten"),
    ("trusts", "refused memory", "SIGSEGV"),
    ("headstrong", "refused reserve", "SIGABRT"),
    ("hoards", "own memory", "after 200 batches"),
    ("leaks", "leaks", "stay behind"),
];

#[test]
fn every_broken_promise_is_seen() {
    let mut missed = vec![];
    for (name, check, what) in SEEN {
        let (status, _, lines) = test(bad(), &["--stage", name]);
        let line = lines.iter().find(|line| line.0 == *check).unwrap();
        if line.1 != "failed" || !line.2.contains(what) || status != Some(1) {
            missed.push(format!("{name}: {line:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_bad_aggregate_is_tried() {
    let source = std::fs::read_to_string(SOURCE).unwrap();
    let names = source.split_once("names[N_FAULTS] = {").unwrap().1;
    let names: Vec<&str> = names
        .split_once("};")
        .unwrap()
        .0
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    let seen: Vec<&str> = ["sums"]
        .into_iter()
        .chain(SEEN.iter().map(|(name, ..)| *name))
        .collect();
    assert_eq!(names, seen);
}

fn must_pass(library: &Path, more: &[&str]) {
    let (status, out, lines) = test(library, more);
    assert!(status != Some(2) && !lines.is_empty(), "{out}");
    // Nothing is passed over but what there is nothing of.
    for (check, status, message) in &lines {
        let known = check == "refused reserve" || check == "examples";
        assert!(
            status == "ok" || (status == "skipped" && known),
            "{check}: {status}: {message}"
        );
    }
}

#[test]
fn one_in_c_passes() {
    must_pass(bad(), &["--stage", "sums"]);
}

#[test]
fn those_in_rust_pass() {
    must_pass(&built("standpipe-quantiles", "libquantiles.so"), &[]);
    must_pass(&built("standpipe-odd", "libodd.so"), &["--stage", "adds"]);
}

#[test]
fn promises_that_one_in_rust_breaks_are_seen() {
    let library = built("standpipe-odd", "libodd.so");
    for (name, check, what) in [
        ("panics_in_update", "works", "it panics: no update"),
        ("panics_in_value", "works", "it panics: no value"),
        ("panics_in_merge", "no rows", "it panics: no merge"),
        ("panics_in_write", "no rows", "it panics: no state"),
        ("types", "works", "is not of type `int`"),
        ("lies", "works", "it rejects groups and did not say so"),
        ("lasts", "order", "the rows from the last to the first"),
        ("halves", "merging", "states of 2 parts"),
        ("changes", "deterministic", "the same rows again"),
    ] {
        let (_, out, lines) = test(&library, &["--stage", name]);
        let line = lines.iter().find(|line| line.0 == check).unwrap();
        assert!(line.1 == "failed" && line.2.contains(what), "{name}: {line:?}\n{out}");
    }
}

fn outcome(library: &Path, script: &str) -> Result<Vec<String>, String> {
    let engine = Engine::builder().plugin(library).workers(2).build();
    let script = format!("use plugin bad_sums\n{script}");
    let mut pipeline = engine
        .compile("test.pipe", &script)
        .map_err(|error| error.to_string())?;
    let mut out = vec![];
    let ran = pipeline.run_with(|_, batch| {
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
            out.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(())
    });
    ran.map(|_| out).map_err(|error| error.to_string())
}

#[test]
fn what_the_host_sees_is_an_error_of_the_call() {
    let script = |name: &str| {
        format!("from rows [{{x: 1, k: 1}}, {{x: null, k: 1}}, {{x: 3, k: 2}}] | aggregate s = bad_sums.{name}(x) by k")
    };
    assert_eq!(
        outcome(bad(), &script("sums")).unwrap(),
        ["Int(1) Int(1)", "Int(2) Int(3)"]
    );
    for (name, what) in [
        ("short", "it gives 0 values for 1 groups"),
        ("types", "buffers, not"),
        ("keeps", "it kept input beyond the call"),
        ("rejects", "it rejects groups and did not say so"),
    ] {
        let text = outcome(bad(), &script(name)).unwrap_err();
        assert!(
            text.contains("E0805") && text.contains(&format!("`bad_sums.{name}`")) && text.contains(what),
            "{name}: {text}"
        );
        assert!(text.contains("^^^"), "{text}");
    }
    // One that never has room is out of memory.
    let text = outcome(bad(), &script("full")).unwrap_err();
    assert!(text.contains("E0701"), "{text}");
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let script = "from range(1, 3) | aggregate s = bad_sums.sums(value)";
    let lacks = compiled("lacks_sums", &["-DLACKS"]);
    let text = outcome(&lacks, script).unwrap_err();
    assert!(
        text.contains("E0803")
            && text.contains("the aggregate `bad_sums.sums`: it lacks one of state_schema, update, merge"),
        "{text}"
    );
    let ordered = compiled("ordered_sums", &["-DORDERED"]);
    let text = outcome(&ordered, script).unwrap_err();
    assert!(
        text.contains("E0804") && text.contains("it wants the rows in their order, which no aggregate is given"),
        "{text}"
    );
}
