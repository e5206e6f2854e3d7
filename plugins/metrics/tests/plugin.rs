//! The plugin as scripts use it: the library that is built, behind the C interface.
#![allow(clippy::unwrap_used)]

use standpipe::engine::EngineBuilder;
use standpipe::{Engine, Report};
use std::fs;
use std::path::{Path, PathBuf};

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libmetrics.so")
}

/// What a script writes to `out.lp`, and the report.
fn run_with(script: &str, change: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Result<(String, Report), String> {
    let folder = tempfile::tempdir().unwrap();
    let engine = change(Engine::builder().plugin(library()).folder(folder.path())).build();
    let script = format!("use plugin metrics\n{script}");
    let mut pipeline = engine
        .compile("test.pipe", &script)
        .map_err(|error| error.to_string())?;
    let outcome = pipeline.run().map_err(|error| error.to_string());
    let out = fs::read_to_string(folder.path().join("out.lp"));
    assert_eq!(out.is_ok(), outcome.is_ok(), "{out:?}");
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, usize::from(outcome.is_ok()), "something is left");
    Ok((out.unwrap_or_default(), outcome?))
}

fn run(script: &str) -> Result<String, String> {
    run_with(script, |builder| builder).map(|(out, _)| out)
}

const ROWS: &str = "from rows [
    {at: @2026-01-31T00:00:00Z, host: \"a b\", disk: \"/\", busy: 0.5, jobs: 3, ok: true, say: \"a \\\"b\\\"\", cost: 1.5},
    {at: @1969-12-31T23:59:59.999999Z, host: \"\", disk: null, busy: null, jobs: -4, ok: false, say: null, cost: null}
  ]";

#[test]
fn rows_are_lines() {
    let script =
        format!("{ROWS} | write metrics.lines \"out.lp\", at, measurement: \"the load\", tags: \"host, disk\"");
    insta::assert_snapshot!(run(&script).unwrap());
    let script = format!(
        "{ROWS} | select at, cost | filter cost != null | write metrics.lines \"out.lp\", at, measurement: \"m\""
    );
    assert_eq!(run(&script).unwrap(), "m cost=1.5 1769817600000000000\n");
}

#[test]
fn lines_are_the_same_for_any_workers_and_chunks() {
    let script = "from range(1, 50_000)
        | derive at = @2026-01-31T00:00:00Z + value * 1s, host = f\"host {value % 7}\", x = if value % 3 == 0 then null else value / 2
        | write metrics.lines \"out.lp\", at, measurement: \"m\", tags: \"host\"";
    let (want, report) = run_with(script, |builder| builder.workers(1)).unwrap();
    assert!(
        want.starts_with("m,host=host\\ 1 value=1i,x=0.5 1769817601000000000\n"),
        "{}",
        &want[..80]
    );
    assert_eq!(want.lines().count(), 50_000);
    let output = &report.outputs[0];
    assert_eq!(
        (output.path.as_str(), output.rows, output.bytes),
        ("out.lp", 50_000, want.len() as u64)
    );
    for (workers, chunk) in [(2, 256 << 10), (4, 4 << 10)] {
        let (out, _) = run_with(script, |builder| builder.workers(workers).chunk_bytes(chunk)).unwrap();
        assert!(out == want, "{workers} workers, chunks of {chunk}");
    }
}

#[test]
fn what_the_format_cannot_say_is_a_bad_row() {
    let bad = "from rows [
        {at: @2026-01-31T00:00:00Z, tag: \"x\", n: 1},
        {at: null, tag: \"x\", n: 2},
        {at: @2026-01-31T00:00:00Z, tag: \"x\\ny\", n: 3},
        {at: @2026-01-31T00:00:00Z, tag: \"x\", n: null},
        {at: @9999-01-31T00:00:00Z, tag: \"x\", n: 5},
        {at: @2026-01-31T00:00:00Z, tag: \"x\", n: 6}
      ] | derive v = if n == 6 then float(\"nan\") else null
      | write metrics.lines \"out.lp\", at, measurement: \"m\", tags: \"tag\"";
    insta::assert_snapshot!(run(bad).unwrap_err());
    let (out, report) = run_with(&format!("{bad} on error skip"), |builder| builder).unwrap();
    assert_eq!(out, "m,tag=x n=1i 1769817600000000000\n");
    assert_eq!((report.bad_rows(), report.outputs[0].rows), (5, 1));
}

#[test]
fn wrong_arguments_are_underlined() {
    let mut said = vec![];
    for tail in [
        "at, measurement: \"\"",
        "at",
        "host, measurement: \"m\"",
        "at, measurement: \"m\", tags: \"hst\"",
        "at, measurement: \"m\", tags: \"at\"",
        "at, measurement: \"m\", tags: \"n\"",
        "at, measurement: \"a\\nb\"",
    ] {
        let rows = "from rows [{at: @2026-01-31T00:00:00Z, host: \"a\", n: 1}]";
        said.push(run(&format!("{rows} | write metrics.lines \"out.lp\", {tail}")).unwrap_err());
    }
    for rows in ["d: @2026-01-31", "l: [1]"] {
        let rows = format!("from rows [{{at: @2026-01-31T00:00:00Z, {rows}}}]");
        said.push(
            run(&format!(
                "{rows} | write metrics.lines \"out.lp\", at, measurement: \"m\""
            ))
            .unwrap_err(),
        );
    }
    said.push(
        run("from rows [{at: @2026-01-31T00:00:00Z}] | write metrics.lines \"out.lp\", at, measurement: \"m\"")
            .unwrap_err(),
    );
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn the_example_runs_as_its_comment_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("examples/plugins/takings.pipe")).unwrap();
    assert_eq!(standpipe::syntax::format(&text).unwrap(), text);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("takings.lp");
    let engine = Engine::builder().plugin(library()).folder(root).build();
    let mut pipeline = engine.compile("test.pipe", &text).unwrap();
    pipeline.param_text("to", to.display().to_string());
    pipeline.run().unwrap();
    let out = fs::read_to_string(to).unwrap();
    insta::assert_snapshot!(out.lines().take(12).collect::<Vec<_>>().join("\n"));
}

#[test]
fn scripts_that_use_it_pass_their_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load.pipe");
    let passed = standpipe::testing::run_tests(script, &|| Engine::builder().plugin(library()));
    assert_eq!(passed, Ok(1));
}
