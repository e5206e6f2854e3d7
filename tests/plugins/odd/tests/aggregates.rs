//! What an aggregate of a plugin does wrong is an error of its stage, under its call.
#![allow(clippy::unwrap_used)]

use standpipe::Engine;
use std::path::PathBuf;

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libodd.so")
}

fn run_in(memory: usize, workers: usize, script: &str) -> Result<Vec<String>, String> {
    let engine = Engine::builder()
        .plugin(library())
        .workers(workers)
        .memory_bytes(memory)
        .build();
    let script = format!("use plugin odd\n{script}");
    let mut pipeline = engine.compile("test.pipe", &script).map_err(|e| e.to_string())?;
    let mut out = vec![];
    let outcome = pipeline.run_with(|_, batch| {
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
            out.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(())
    });
    outcome.map_err(|e| e.to_string())?;
    Ok(out)
}

fn run(script: &str) -> Result<Vec<String>, String> {
    run_in(64 << 20, 2, script)
}

#[test]
fn a_panic_or_a_lie_is_an_error_under_the_call() {
    let mut said = vec![];
    for name in [
        "panics_in_bind",
        "panics_in_update",
        "panics_in_merge",
        "panics_in_write",
        "panics_in_value",
        "nulls",
        "types",
        "lies",
    ] {
        // With a key every group has values, so that none may be null.
        let script = format!("from range(-3, -1) | aggregate n = count(), s = odd.{name}(value) by k = value < 0");
        said.push(run_in(64 << 20, 1, &script).unwrap_err());
    }
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn destructors_that_panic_are_caught() {
    // One group: a second panic while the first one unwinds ends any process.
    let script = "from range(1, 9) | aggregate s = odd.panics_in_drop(value)";
    assert_eq!(run(script).unwrap(), ["Int(45)"]);
}

#[test]
fn a_group_without_a_value_follows_the_policy() {
    let script = "from range(-4, 4) | aggregate s = odd.fails(value) by k = value > 0";
    let text = run(script).unwrap_err();
    assert!(
        text.contains("E0805") && text.contains("`odd.fails`: -10 is below zero, in the group k = false"),
        "{text}"
    );
    assert_eq!(run(&format!("{script} on error skip")).unwrap(), ["Bool(true) Int(10)"]);
    assert_eq!(
        run(&format!("{script} on error null")).unwrap(),
        ["Bool(false) Null", "Bool(true) Int(10)"]
    );
}

#[test]
fn it_stands_beside_built_ins_in_every_stage_that_takes_aggregates() {
    let rows = "from rows [{k: \"a\", x: 1}, {k: \"b\", x: 2}, {k: \"a\", x: 3}, {k: \"b\", x: null}]";
    for (script, want) in [
        (
            "aggregate a = odd.adds(x), b = sum(x) by k",
            vec!["String(\"a\") Int(4) Int(4)", "String(\"b\") Int(2) Int(2)"],
        ),
        (
            "sort k | aggregate a = odd.adds(x) by k",
            vec!["String(\"a\") Int(4)", "String(\"b\") Int(2)"],
        ),
        ("aggregate a = odd.adds(x, where: x > 1) ?? 0", vec!["Int(5)"]),
        ("pivot key: k value: odd.adds(x) columns: [a, b]", vec!["Int(4) Int(2)"]),
        (
            "window s = odd.adds(x) rows: -1..0 | select s",
            vec!["Int(1)", "Int(3)", "Int(5)", "Int(3)"],
        ),
        (
            "window s = odd.adds(x) rows: .. by k | select s",
            vec!["Int(4)", "Int(2)", "Int(4)", "Int(2)"],
        ),
    ] {
        match run(&format!("{rows} | {script}")) {
            Ok(got) => assert_eq!(got, want, "{script}"),
            Err(text) => panic!("{script}: {text}"),
        }
    }
}

/// Groups of a megabyte each: what is declared has a limit, and what does not fit goes to disk.
#[test]
fn states_that_are_large_are_counted_and_go_to_disk() {
    let script =
        "from range(1, 2000) | aggregate s = odd.swells(value) by k = value % 100 | aggregate n = count(), s = sum(s)";
    let want = ["Int(100) Int(2001000)"];
    for workers in [1, 2] {
        assert_eq!(run_in(512 << 20, workers, script).unwrap(), want);
        assert_eq!(run_in(64 << 20, workers, script).unwrap(), want);
    }
}
