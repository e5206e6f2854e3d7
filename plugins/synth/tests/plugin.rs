//! The plugin as scripts use it: the library that is built, behind the C interface.
#![allow(clippy::unwrap_used)]

use standpipe::engine::EngineBuilder;
use standpipe::{Engine, Failure, Report};
use std::path::{Path, PathBuf};

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libsynth.so")
}

fn run_with(
    script: &str,
    change: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Result<(Vec<String>, Report), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let engine = change(Engine::builder().plugin(library()).folder(root)).build();
    let mut pipeline = engine.compile("test.pipe", script)?;
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

const ALL: &str = "use plugin synth\nread synth.rows seed: 7, rows: 150_000, \
    columns: \"id: row, b: bool, n: int?, x: float, s: string?, d: date, t: timestamp\"";

#[test]
fn rows_are_the_same_for_any_workers_and_chunks() {
    let (want, report) = run_with(ALL, |builder| builder.workers(1)).unwrap();
    assert_eq!(want.len(), 150_000);
    assert!(want[0].starts_with("Int(1) ") && want[149_999].starts_with("Int(150000) "));
    let nulls = want.iter().filter(|row| row.contains("Null")).count();
    assert!((25_000..32_000).contains(&nulls), "{nulls}");
    assert_eq!(report.plugins[0].name, "synth.rows");
    assert_eq!(report.plugins[0].rows_out, 150_000);
    for (workers, chunk) in [(2, 256 << 10), (4, 4 << 10), (3, 64 << 10)] {
        let (rows, _) = run_with(ALL, |builder| builder.workers(workers).chunk_bytes(chunk)).unwrap();
        assert!(rows == want, "{workers} workers, chunks of {chunk}");
    }
}

/// An array that a lane has no room for is asked for again, shorter: none of its rows may be lost.
#[test]
fn no_row_is_lost_where_memory_is_short() {
    let script = "use plugin synth\nread synth.rows rows: 300_000, columns: \"id: row, s: string, t: timestamp?\"
        | aggregate n = count(), sum = sum(id), last = last(id), longest = max(s)";
    let all = |builder: EngineBuilder| run_with(script, |_| builder.plugin(library())).unwrap().0;
    let want = all(Engine::builder().workers(1));
    assert!(
        want[0].starts_with("Int(300000) Int(45000150000) Int(300000) "),
        "{want:?}"
    );
    for mib in [11, 12, 14, 24] {
        for workers in [1, 2] {
            let got = all(Engine::builder().workers(workers).memory_bytes(mib << 20));
            assert_eq!(got, want, "{workers} workers, {mib} MiB");
        }
    }
}

#[test]
fn a_value_hangs_on_seed_column_and_row_only() {
    let read = |seed: u32, rows: u32, columns: &str| {
        run(&format!(
            "use plugin synth\nread synth.rows seed: {seed}, rows: {rows}, columns: \"{columns}\""
        ))
    };
    let few = read(1, 5, "a: int, b: string");
    assert_eq!(few, read(1, 100, "a: int, b: string")[..5]);
    assert!(
        few.iter()
            .zip(read(1, 5, "a: int, b: string, c: int"))
            .all(|(few, more)| more.starts_with(few))
    );
    assert_ne!(few, read(2, 5, "a: int, b: string"));
    let nullable = read(1, 50, "a: int?");
    let firm = read(1, 50, "a: int");
    assert!(nullable.iter().zip(&firm).all(|(x, y)| x == y || x == "Null"));
    assert!(nullable != firm);
    assert_eq!(read(1, 0, "a: int").len(), 0);
}

#[test]
fn a_consumer_that_has_enough_ends_it() {
    let script = "use plugin synth\nread synth.rows rows: 1_000_000_000_000 | take 3 | select id";
    assert_eq!(run(script), ["Int(1)", "Int(2)", "Int(3)"]);
    let limit = "use plugin synth\nread synth.rows rows: 400_000 | select id | filter id % 100_000 == 0";
    assert_eq!(run(limit).len(), 4);
}

#[test]
fn a_bad_row_behind_it_ends_the_run_at_its_place_in_the_script() {
    let script = "use plugin synth\nread synth.rows rows: 70_000 | select x = 1 / (id - 66_000)";
    let failed = run_with(script, |builder| builder).unwrap_err();
    insta::assert_snapshot!(failed.to_string());
}

#[test]
fn wrong_arguments_are_underlined() {
    let mut said = vec![];
    for script in [
        "read synth.rows",
        "read synth.rows rows: -1",
        "read synth.rows rows: 3, columns: \"id: row, id: int\"",
        "read synth.rows rows: 3, colums: \"id: row\"",
        "read synth.rows \"path\" rows: 3",
        "read synth.rws rows: 3",
        "read synth.rws \"path\"",
        "read synt.rows rows: 3",
        "from range(1, 3) | synth.rows rows: 3",
        "read synth.rows rows: 3 | select ids",
    ] {
        let script = format!("use plugin synth\n{script}");
        let failed = run_with(&script, |builder| builder).unwrap_err();
        said.push(failed.to_string());
    }
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn the_description_says_that_it_is_a_source() {
    let verified = standpipe::plugin::Verified::read(&library(), None).unwrap();
    let note = verified.note.unwrap();
    assert_eq!(
        (note.stages[0].name.as_str(), note.stages[0].kind.as_str()),
        ("rows", "source")
    );
}

#[test]
fn the_plan_says_its_name_once() {
    let engine = Engine::builder().plugin(library()).build();
    let pipeline = engine.compile("test.pipe", "use plugin synth\nread synth.rows rows: 3");
    let plan = pipeline.unwrap().explain().unwrap();
    assert!(plan.contains("read synth.rows rows: 3\n"), "{plan}");
}

#[test]
fn the_example_runs_as_its_comment_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("examples/plugins/orders.pipe")).unwrap();
    insta::assert_snapshot!(run(&text).join("\n"));
    assert_eq!(standpipe::syntax::format(&text).unwrap(), text);
}

#[test]
fn scripts_that_use_it_pass_their_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/orders.pipe");
    let passed = standpipe::testing::run_tests(script, &|| Engine::builder().plugin(library()));
    assert_eq!(passed, Ok(1));
}
