//! A plugin's sink: rows in order, published when the run has come to its end, or nothing at all.
#![allow(clippy::unwrap_used)]

use standpipe::{Engine, Report};
use std::fs;
use std::path::{Path, PathBuf};

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libodd.so")
}

fn run_with(folder: &Path, workers: usize, memory: usize, script: &str) -> Result<Report, String> {
    let engine = Engine::builder()
        .plugin(library())
        .folder(folder)
        .workers(workers)
        .memory_bytes(memory)
        .chunk_bytes(4 << 10)
        .build();
    let script = format!("use plugin odd\n{script}");
    let mut pipeline = engine.compile("test.pipe", &script).map_err(|e| e.to_string())?;
    pipeline.run().map_err(|e| e.to_string())
}

fn run(folder: &Path, script: &str) -> Result<Report, String> {
    run_with(folder, 2, 64 << 20, script)
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn rows_come_in_order_whatever_the_workers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let numbers: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    fs::write(folder.join("in.csv"), format!("n\n{numbers}")).unwrap();
    for workers in [1, 2, 4] {
        let report = run_with(
            folder,
            workers,
            64 << 20,
            "read csv \"in.csv\" | write odd.lines \"out.txt\", n",
        )
        .unwrap();
        assert!(
            fs::read_to_string(folder.join("out.txt")).unwrap() == numbers,
            "{workers} workers"
        );
        let output = &report.outputs[0];
        assert_eq!(
            (output.path.as_str(), output.rows, output.bytes),
            ("out.txt", 30_000, numbers.len() as u64)
        );
        let usage = &report.plugins[0];
        assert_eq!(
            (usage.name.as_str(), usage.rows_in, usage.rows_out),
            ("odd.lines", 30_000, 0)
        );
        assert!(usage.calls > 3 && usage.seconds > 0.0, "{usage:?}");
        fs::remove_file(folder.join("out.txt")).unwrap();
    }
    assert_eq!(files(folder), ["in.csv"]);
}

#[test]
fn a_failing_run_publishes_nothing_and_leaves_nothing() {
    for (does, at) in [
        ("panic", "open"),
        ("panic", "write"),
        ("panic", "finish"),
        ("panic", "publish"),
        ("fail", "open"),
        ("fail", "write"),
        ("fail", "finish"),
        ("fail", "publish"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("out.txt"), "before").unwrap();
        // The sink that fails stands first, so that the other has something to lose.
        let script = format!(
            "stream n = from range(1, 5000)\n\
             from n | write odd.lines \"out.txt\", value, does: \"{does}\", at: \"{at}\"\n\
             from n | write csv \"other.csv\"\n\
             from n | write odd.lines \"third.txt\", value\n"
        );
        let text = run(folder, &script).unwrap_err();
        let what = match does {
            "panic" => format!("it panics: no {at}"),
            _ => format!("it does not {at}"),
        };
        assert!(
            text.contains("E0805") && text.contains("`odd.lines`") && text.contains(&what),
            "{does} {at}: {text}"
        );
        assert!(text.contains("test.pipe:3:10"), "{does} {at}: {text}");
        assert_eq!(
            fs::read_to_string(folder.join("out.txt")).unwrap(),
            "before",
            "{does} {at}"
        );
        assert_eq!(files(folder), ["out.txt"], "{does} {at}");
    }
}

#[test]
fn what_fails_elsewhere_leaves_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (script, what) in [
        (
            "from range(1, 9000) | derive x = 1 / (value - 8000) | write odd.lines \"out.txt\", value",
            "division",
        ),
        (
            "stream n = from range(1, 5000)\nfrom n | write odd.lines \"out.txt\", value\n\
             from n | write odd.lines \"no/out.txt\", value",
            "no/out.txt",
        ),
        (
            "from range(1, 9) | write odd.lines \"out.txt\", value, does: \"panic\", at: \"discard\"\n\
             from range(1, 9) | write odd.lines \"b.txt\", value, does: \"fail\", at: \"finish\"",
            "it does not finish",
        ),
    ] {
        let text = run(folder, script).unwrap_err();
        assert!(text.contains(what), "{text}");
        assert!(files(folder).is_empty(), "{:?}", files(folder));
    }
}

#[test]
fn rows_that_it_sets_aside_follow_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let script = "from range(1, 25) | write odd.lines \"out.txt\", value, does: \"reject\"";
    let text = run(folder, script).unwrap_err();
    assert!(text.contains("10 is too round") && files(folder).is_empty(), "{text}");
    let report = run(folder, &format!("{script} on error skip")).unwrap();
    assert_eq!((report.bad_rows(), report.outputs[0].rows), (2, 23));
    assert_eq!(fs::read_to_string(folder.join("out.txt")).unwrap().lines().count(), 23);
}

#[test]
fn memory_that_it_keeps_is_counted_and_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let script = "from range(1, 400000) | write odd.keeps";
    let text = run_with(folder.path(), 2, 32 << 20, script).unwrap_err();
    assert!(
        text.contains("`odd.keeps`: it has") && text.contains("more than the run's memory has room for"),
        "{text}"
    );
    let report = run_with(folder.path(), 2, 256 << 20, script).unwrap();
    assert_eq!(
        (report.outputs[0].path.as_str(), report.outputs[0].rows),
        ("odd.keeps", 0)
    );
    assert!(report.plugins[0].peak_bytes >= 40_000_000, "{:?}", report.plugins);
}

#[test]
fn wrong_calls_are_underlined() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = vec![];
    for script in [
        "from range(1, 3) | write odd.lines",
        "from range(1, 3) | write odd.lines \"out.txt\"",
        "from range(1, 3) | write odd.lines \"out.txt\", valu",
        "from range(1, 3) | derive s = \"x\" | write odd.lines \"out.txt\", s",
        "from range(1, 3) | write odd.lins \"out.txt\", value",
        "from range(1, 3) | write odd.drips \"out.txt\"",
        "from range(1, 3) | odd.lines \"out.txt\", value",
        "from range(1, 3) | write od.lines \"out.txt\", value",
        "from range(1, 3) | write odd.lines \"out.txt\", value | take 3",
        "from range(1, 3) | write odd.lines \"out.txt\", value, at: \"bind\", does: \"fail\"",
        "from range(1, 3) | write odd.lines \"out.txt\", value, at: \"bind\", does: \"panic\"",
        "stream n = from range(1, 3)\nfrom n | write odd.lines \"out.txt\", value\nfrom n | write csv \"./out.txt\"",
    ] {
        said.push(run(folder.path(), script).unwrap_err());
    }
    insta::assert_snapshot!(said.join("\n\n"));
    assert!(files(folder.path()).is_empty());
}

#[test]
fn the_plan_names_it_and_reads_only_what_it_needs() {
    let engine = Engine::builder().plugin(library()).build();
    let script = "use plugin odd\nfrom rows [{a: 1, b: \"x\"}] | write odd.lines \"out.txt\", a";
    let plan = engine.compile("test.pipe", script).unwrap().explain().unwrap();
    insta::assert_snapshot!(plan);
}
