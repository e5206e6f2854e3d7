//! The plugin as scripts use it: the library that is built, behind the C interface.
#![allow(clippy::unwrap_used)]

use standpipe::engine::EngineBuilder;
use standpipe::{Engine, Failure, Report};
use std::path::{Path, PathBuf};

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libquantiles.so")
}

fn run_with(
    script: &str,
    change: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Result<(Vec<String>, Report), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let engine = change(Engine::builder().plugin(library()).folder(root)).build();
    let script = match script.contains("use plugin") {
        true => script.to_owned(),
        false => format!("use plugin quantiles\n{script}"),
    };
    let mut pipeline = engine.compile("test.pipe", &script)?;
    let mut out = vec![];
    let report = pipeline.run_with(|_, batch| {
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
            out.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(())
    })?;
    Ok((out, report))
}

fn run(script: &str) -> Vec<String> {
    run_with(script, |builder| builder).unwrap().0
}

/// Many groups of few values, and few groups of many.
const MANY: &str = "from range(1, 300_000)
    | derive x = float(value * 7919 % 100_003) * 1.5 - 20_000.0, k = value * 31 % 20_011
    | aggregate n = count(), half = quantiles.quantile(x), most = quantiles.quantile(x, 1.0, where: value % 3 == 0),
        all = quantiles.sketch(x, error: 0.001) by k
    | select k, n, half, most, p90 = all.p90, count = all.count, max = all.max";
const FEW: &str = "from range(1, 300_000)
    | derive x = float(value * 7919 % 100_003) * 1.5 - 20_000.0, k = value % 3
    | aggregate n = count(), half = quantiles.quantile(x, error: 0.0001), all = quantiles.sketch(x) by k
    | select k, n, half, p99 = all.p99, min = all.min";

#[test]
fn what_comes_out_is_the_same_for_any_workers_chunks_and_memory() {
    for script in [MANY, FEW] {
        let (want, report) = run_with(script, |builder| builder.workers(1)).unwrap();
        assert!(want.len() == 20_011 || want.len() == 3, "{}", want.len());
        let used: Vec<_> = report.plugins.iter().map(|p| (p.name.as_str(), p.rows_in)).collect();
        assert_eq!(used[0].0, "quantiles.quantile");
        assert!(used[0].1 >= 300_000, "{used:?}");
        assert!(report.plugins[0].peak_bytes > 0);
        for (workers, chunk, memory) in [
            (2, 256 << 10, 256 << 20),
            (4, 4 << 10, 256 << 20),
            (1, 64 << 10, 12 << 20),
            (3, 64 << 10, 16 << 20),
        ] {
            let limits = |builder: EngineBuilder| builder.workers(workers).chunk_bytes(chunk).memory_bytes(memory);
            let (rows, _) = run_with(script, limits).unwrap();
            assert!(rows == want, "{workers} workers, chunks of {chunk}, {memory} bytes");
        }
    }
}

#[test]
fn groups_go_to_disk_where_memory_is_short() {
    let (want, _) = run_with(MANY, |builder| builder.workers(2)).unwrap();
    let (rows, report) = run_with(MANY, |builder| builder.workers(2).memory_bytes(12 << 20)).unwrap();
    assert!(rows == want);
    assert!(report.peak_spilled_bytes > 0, "{report:?}");
}

#[test]
fn what_comes_out_is_near_the_exact_quantile() {
    let script = "from range(1, 100_000)
        | aggregate a = quantile_disc(float(value), 0.9), b = quantiles.quantile(value, 0.9, error: 0.001)
        | select near = abs(a - b) <= a / 1000";
    assert_eq!(run(script), ["Bool(true)"]);
}

#[test]
fn it_stands_wherever_an_aggregate_can() {
    assert_eq!(
        run("from rows [{x: 1.0, k: \"a\"}, {x: null, k: \"b\"}, {x: 3.0, k: \"a\"}]
            | aggregate q = quantiles.quantile(x, 1.0) ?? -1.0, n = count() by k"),
        ["String(\"a\") Float(3.0) Int(2)", "String(\"b\") Float(-1.0) Int(1)"]
    );
    assert_eq!(
        run("from range(1, 0) | aggregate q = quantiles.quantile(value)"),
        ["Null"]
    );
    // Sorted by the key it needs no table.
    assert_eq!(
        run("from range(0, 5) | derive k = value / 2 | sort k | aggregate q = quantiles.quantile(value, 1.0) by k")
            .len(),
        6
    );
    assert_eq!(
        run("from range(1, 4) | window q = quantiles.quantile(value, 1.0) rows: -1..0 | select q"),
        ["Float(1.0)", "Float(2.0)", "Float(3.0)", "Float(4.0)"]
    );
    assert_eq!(
        run("from range(1, 4)
            | aggregate spread = quantiles.quantile(value, 1.0) - min(value), again = round(quantiles.quantile(value, 1.0))"),
        ["Float(3.0) Int(4)"]
    );
}

#[test]
fn wrong_arguments_are_underlined() {
    let mut said = vec![];
    for script in [
        "aggregate q = quantiles.quantile(value, 1.5)",
        "aggregate q = quantiles.quantile(value, 0.5, error: 0)",
        "aggregate q = quantiles.quantile(value, value)",
        "aggregate q = quantiles.quantile(\"a\")",
        "aggregate q = quantiles.quantile()",
        "aggregate q = quantiles.quantile(value, eror: 0.1)",
        "aggregate q = quantiles.quantle(value)",
        "aggregate q = quantiles.quantile(quantiles.quantile(value))",
        "derive q = quantiles.quantile(value)",
        "quantiles.quantile value",
        "aggregate q = quantile(value, 0.5), r = quantiles.quantile(values, 0.5)",
    ] {
        let failed = run_with(&format!("from range(1, 3) | {script}"), |builder| builder).unwrap_err();
        said.push(failed.to_string());
    }
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn the_plan_shows_it() {
    let engine = Engine::builder().plugin(library()).build();
    let script =
        "use plugin quantiles\nfrom range(1, 9) | aggregate q = quantiles.quantile(value, 0.9) by k = value % 2";
    let plan = engine.compile("test.pipe", script).unwrap().explain().unwrap();
    insta::assert_snapshot!(plan);
}

#[test]
fn the_description_says_that_it_has_aggregates() {
    let verified = standpipe::plugin::Verified::read(&library(), None).unwrap();
    let note = verified.note.unwrap();
    let stages: Vec<_> = note
        .stages
        .iter()
        .map(|stage| (stage.name.as_str(), stage.kind.as_str()))
        .collect();
    assert_eq!(stages, [("quantile", "aggregate"), ("sketch", "aggregate")]);
    assert_eq!(note.stages[0].params["columns"], 1);
    for stage in &note.stages {
        assert_eq!(stage.examples.len(), stage.prints.len());
    }
}

#[test]
fn the_example_runs_as_its_comment_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("examples/plugins/latency.pipe")).unwrap();
    insta::assert_snapshot!(run(&text).join("\n"));
    assert_eq!(standpipe::syntax::format(&text).unwrap(), text);
}

#[test]
fn scripts_that_use_it_pass_their_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow.pipe");
    let passed = standpipe::testing::run_tests(script, &|| Engine::builder().plugin(library()));
    assert_eq!(passed, Ok(1));
}
