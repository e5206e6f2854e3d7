//! `standpipe plugin test`: our own plugins pass, and each promise that a bad one breaks is seen; what the host sees at run time is an
//! error of the stage.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use standpipe::Engine;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn compiled(source: &str, name: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let library = folder.path().join(format!("lib{name}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]);
    cc.args(["-I", "plugins/sdk/include", source, "-o"]).arg(&library);
    let output = cc
        .output()
        .expect("`cc` runs; `apt-get install build-essential` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn bad() -> &'static Path {
    static BAD: OnceLock<PathBuf> = OnceLock::new();
    BAD.get_or_init(|| compiled("tests/plugins/bad.c", "bad"))
}

fn test(library: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standpipe"));
    let output = command
        .args(["plugin", "test"])
        .arg(library)
        .args(more)
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &err)
}

/// The stage, the check that sees what it does, and what that says.
const SEEN: &[(&str, &str, &str)] = &[
    ("crashes", "works", "SIGSEGV"),
    ("hangs", "works", "did not answer within 3 s"),
    ("exits", "works", "exited with status 0"),
    ("keeps", "works", "it kept input beyond the call"),
    ("short", "works", "it gives "),
    ("overlong", "works", "its rows go on behind it"),
    ("overruns", "works", "it writes behind the"),
    ("nulls", "works", "without nulls"),
    ("types", "works", "buffers, not"),
    ("scribbles", "works", "it changes the input that is only lent"),
    ("rejects", "works", "it rejects rows and did not say so"),
    ("rows", "works", "the rows it lists do not ascend"),
    ("ends", "works", "it ends the stream, which only a serial stage can"),
    ("careless", "bind", "SIGSEGV"),
    ("takes_all", "bind", "without its `items`"),
    ("mute", "bind", "is refused without naming it"),
    ("impure", "bind", "another plan the second time"),
    ("old", "newer host", "unsupported"),
    ("empty", "no rows", "SIGSEGV"),
    ("single", "one row", "SIGSEGV"),
    ("hollow", "nulls", "SIGSEGV"),
    ("cramped", "many rows", "SIGSEGV"),
    ("batchy", "batch sizes", "batches of 1 rows: row"),
    ("counts", "stateless", "several instances in turns"),
    ("random", "deterministic", "the same rows again"),
    ("remembers", "lent memory", "memory that is overwritten"),
    ("trusts", "refused memory", "SIGSEGV"),
    ("forgets", "refused memory", "with refusal"),
    ("headstrong", "refused reserve", "SIGABRT"),
    ("hoards", "own memory", "after 200 batches"),
    ("leaks", "leaks", "stay behind"),
    ("amnesic", "snapshot", "a snapshot behind batch 0"),
];

/// What is not seen, where it belongs.
fn missed(library: &Path, seen: &[(&str, &str, &str)]) -> Vec<String> {
    let mut missed = vec![];
    for (stage, check, what) in seen {
        let (status, out) = test(library, &["--stage", stage, "--format", "json", "--timeout", "3"]);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        let lines = report["checks"].as_array().unwrap();
        let line = lines
            .iter()
            .find(|line| line["stage"] == *stage && line["check"] == *check)
            .unwrap();
        if line["status"] != "failed" || !line["message"].as_str().unwrap().contains(what) || status != Some(1) {
            missed.push(format!("{stage}: {check}: {line}"));
        }
        let description = lines.iter().find(|line| line["check"] == "description").unwrap();
        let message = description["message"].as_str().unwrap();
        assert!(message.contains("`crashes` is not in it"), "{message}");
    }
    missed
}

/// The bad stages that a library in C has.
fn names(source: &str) -> Vec<String> {
    let (_, names) = source.split_once("names[N_FAULTS] = {").unwrap();
    let (names, _) = names.split_once("};").unwrap();
    names.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The stages of a list, as the library has them in order.
fn in_order(seen: &[(&str, &str, &str)], source: &str) -> Vec<String> {
    let all = names(source);
    all.into_iter()
        .filter(|name| seen.iter().any(|(stage, ..)| stage == name))
        .collect()
}

#[test]
fn every_broken_promise_is_seen() {
    let missed = missed(bad(), SEEN);
    assert!(missed.is_empty(), "{missed:#?}");
    let source = std::fs::read_to_string("tests/plugins/bad.c").unwrap();
    assert_eq!(names(&source), in_order(SEEN, &source));
}

/// The same of sinks.
const SEEN_OF_SINKS: &[(&str, &str, &str)] = &[
    ("crashes", "works", "SIGSEGV"),
    ("exits", "works", "exited with status 0"),
    ("keeps", "works", "it kept input beyond the call"),
    ("gives", "works", "it gives rows"),
    ("rejects", "works", "it rejects rows and did not say so"),
    ("careless", "bind", "without its `items`"),
    ("impure", "bind", "another plan the second time"),
    ("old", "newer host", "unsupported"),
    ("empty", "no rows", "SIGSEGV"),
    ("hollow", "nulls", "SIGSEGV"),
    ("cramped", "many rows", "SIGSEGV"),
    ("batchy", "batch sizes", "batches of 1 rows: row"),
    ("random", "deterministic", "the same rows again"),
    ("remembers", "lent memory", "memory that is overwritten"),
    ("forgets", "refused memory", "with refusal"),
    ("headstrong", "refused reserve", "SIGABRT"),
    ("hoards", "own memory", "after 200 batches"),
    ("leaks", "leaks", "stay behind"),
    (
        "litters",
        "aborted",
        "a run that ends behind 0 batches leaves `out.part`",
    ),
    ("eager", "aborted", "a run that ends behind 0 batches leaves `out`"),
    (
        "early",
        "aborted",
        "a run that ends once its output is complete leaves `out`",
    ),
];

#[test]
fn every_broken_promise_of_a_sink_is_seen() {
    let library = compiled("tests/plugins/bad_sink.c", "bad_sink");
    let missed = missed(&library, SEEN_OF_SINKS);
    assert!(missed.is_empty(), "{missed:#?}");
    let (_, out) = test(&library, &["--stage", "fine"]);
    let failed: Vec<&str> = out.lines().filter(|line| line.contains("FAILED")).collect();
    assert!(
        failed.len() == 1 && failed[0].contains("`crashes` is not in it"),
        "{out}"
    );
    let source = std::fs::read_to_string("tests/plugins/bad_sink.c").unwrap();
    let names = names(&source).into_iter().filter(|name| name != "fine");
    assert_eq!(names.collect::<Vec<_>>(), in_order(SEEN_OF_SINKS, &source));
}

#[test]
fn sinks_that_behave_pass() {
    must_pass(&compiled("tests/plugins/sum.c", "sum"));
    let (status, out) = test(&built("standpipe-odd", "libodd.so"), &["--stage", "lines"]);
    assert!(status == Some(0) && out.contains("  ok       aborted"), "{out}");
    assert!(!Path::new("numbers.txt").exists());
}

#[test]
fn what_the_host_sees_is_an_error_of_the_stage() {
    for (stage, check, what) in SEEN {
        let is_harmless =
            *check == "works" && !["crashes", "hangs", "exits", "overlong", "overruns", "scribbles"].contains(stage);
        if !is_harmless {
            continue;
        }
        let engine = Engine::builder().plugin(bad()).workers(2).build();
        let script = format!("use plugin bad\nfrom rows [{{x: 1}}, {{x: null}}, {{x: 3}}] | bad.{stage} x");
        let outcome = engine.compile("test.pipe", &script).map_err(|error| error.to_string());
        let outcome =
            outcome.and_then(|mut pipeline| pipeline.run_with(|_, _| Ok(())).map_err(|error| error.to_string()));
        let text = outcome.unwrap_err();
        assert!(
            text.contains("E0805") && text.contains(&format!("`bad.{stage}`")) && text.contains(what),
            "{stage}: {text}"
        );
    }
}

fn must_pass(library: &Path) {
    let (status, out) = test(library, &[]);
    assert!(
        status == Some(0) && out.contains(" 0 failed") && out.contains("  ok       works"),
        "{out}"
    );
}

#[test]
fn the_plugin_in_c_passes() {
    must_pass(&compiled("plugins/words/words.c", "words"));
}

fn built(package: &str, library: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(["build", "-p", package]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("debug").join(library)
}

#[test]
fn the_plugin_in_rust_passes() {
    must_pass(&built("standpipe-geo", "libgeo.so"));
}

#[test]
fn the_source_in_rust_passes_with_all_its_splits() {
    let (status, out) = test(&built("standpipe-synth", "libsynth.so"), &[]);
    assert_eq!(status, Some(0), "{out}");
    let lines = [
        "synth.rows",
        "  ok       splits",
        "  ok       snapshot",
        " 0 failed, 0 skipped",
    ];
    for line in lines {
        assert!(out.contains(line), "{line}\n{out}");
    }
}

/// The same of sources.
const SEEN_OF_SOURCES: &[(&str, &str, &str)] = &[
    ("crashes", "works", "SIGSEGV"),
    ("hangs", "works", "did not answer within 3 s"),
    ("exits", "works", "exited with status 0"),
    ("crowds", "works", "it gives 100 rows where 16 are the most"),
    ("overlong", "works", "its rows go on behind it"),
    ("overruns", "works", "it writes behind the"),
    ("nulls", "works", "without nulls"),
    ("twice", "works", "it gives two arrays in one call"),
    ("rejects", "works", "it rejects a row, and has no input"),
    ("careless", "bind", "without `of`, which it says it needs"),
    ("impure", "bind", "another plan the second time"),
    ("old", "newer host", "unsupported"),
    ("shared", "splits", "the last split first: row 0 of split"),
    ("batchy", "batch sizes", "at most 1 rows a call: row 1 of split 0"),
    ("random", "deterministic", "the same arguments again: row 0"),
    ("remembers", "lent memory", "memory that is overwritten"),
    ("trusts", "refused memory", "SIGSEGV"),
    ("skips", "refused memory", "the rows of the same call again"),
    ("headstrong", "refused reserve", "SIGABRT"),
    ("hoards", "own memory", "and has declared 0"),
    ("leaks", "leaks", "stay behind"),
    ("amnesic", "snapshot", "a snapshot behind call 1"),
];

#[test]
fn every_broken_promise_of_a_source_is_seen() {
    let library = compiled("tests/plugins/bad_source.c", "bad_source");
    let missed = missed(&library, SEEN_OF_SOURCES);
    assert!(missed.is_empty(), "{missed:#?}");
    let (_, out) = test(&library, &["--stage", "fine"]);
    let failed: Vec<&str> = out.lines().filter(|line| line.contains("FAILED")).collect();
    assert!(
        failed.len() == 1 && failed[0].contains("`crashes` is not in it"),
        "{out}"
    );
    let source = std::fs::read_to_string("tests/plugins/bad_source.c").unwrap();
    let names = names(&source).into_iter().filter(|name| name != "fine");
    assert_eq!(names.collect::<Vec<_>>(), in_order(SEEN_OF_SOURCES, &source));
}

#[test]
fn panics_and_memory_of_a_plugin_in_rust_are_seen() {
    let library = built("standpipe-odd", "libodd.so");
    for (stage, what) in [
        ("sour", "FAILED   works            it panics: three is too much"),
        (
            "hoards",
            "FAILED   own memory       it says that it keeps nothing, and has declared",
        ),
        ("lost", "it loses the places of its rows"),
        ("sorts", "no arguments that it takes were found"),
    ] {
        let (status, out) = test(&library, &["--stage", stage]);
        let out = out.replace("`odd.sour`: ", "");
        assert!(status == Some(1) && out.contains(what), "{stage}: {out}");
    }
}

#[test]
fn a_library_that_is_none_is_refused() {
    let (status, out) = test(Path::new("Cargo.toml"), &[]);
    assert!(status == Some(1) && out.contains("E0803"), "{out}");
    let (status, out) = test(bad(), &["--stage", "nothing"]);
    assert!(
        status == Some(2) && out.contains("`bad` has no `nothing`, but crashes, hangs"),
        "{out}"
    );
    let (status, out) = test(Path::new("nothing"), &[]);
    assert!(status == Some(1) && out.contains("E0801"), "{out}");
}
