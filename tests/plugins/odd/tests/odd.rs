//! What a plugin does wrong is an error of its stage, and the run ends as any failed run does.
#![allow(clippy::unwrap_used)]

use standpipe::Engine;
use std::path::PathBuf;

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libodd.so")
}

fn run_in(memory: usize, script: &str) -> Result<Vec<String>, String> {
    let engine = Engine::builder()
        .plugin(library())
        .workers(2)
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
    run_in(64 << 20, script)
}

fn said(script: &str) -> String {
    match run(script) {
        Ok(rows) => panic!("{script} gives {rows:?}"),
        Err(text) => text,
    }
}

#[test]
fn a_panic_is_an_error_of_the_stage() {
    for (at, what) in [
        ("bind", "it panics: no binding"),
        ("create", "it panics: no creation"),
        ("push", "it panics: it gives no words"),
    ] {
        let text = said(&format!("from range(1, 9) | odd.panics at: \"{at}\""));
        assert!(
            text.contains("E0805") && text.contains("`odd.panics`") && text.contains(what),
            "{at}: {text}"
        );
    }
    // Nobody can do anything about a destructor: it is caught, and nothing happens.
    assert_eq!(run("from range(1, 9) | odd.panics at: \"drop\"").unwrap().len(), 9);
    let text = said("from range(1, 9) | select x = odd.sour(value)");
    assert!(
        text.contains("E0805") && text.contains("`odd.sour`: it panics: three is too much"),
        "{text}"
    );
    let text = said("let x = odd.sour(3)\nfrom range(1, 2) | select y = x");
    assert!(text.contains("three is too much"), "{text}");
}

#[test]
fn memory_that_is_kept_is_counted_and_has_a_limit() {
    let script = "from range(1, 400000) | odd.hoards | aggregate n = count()";
    let text = run_in(32 << 20, script).unwrap_err();
    assert!(
        text.contains("`odd.hoards`: it has") && text.contains("more than the run's memory has room for"),
        "{text}"
    );
    assert_eq!(run_in(256 << 20, script).unwrap(), ["Int(400000)"]);
}

#[test]
fn nulls_and_failures_of_functions() {
    let rows = "from rows [{x: 1, s: \"a\", c: 1.5}, {x: null, s: null, c: 2.0}, {x: 2, s: null, c: -1.0}]";
    assert_eq!(
        run(&format!("{rows} | select v = odd.nil(x, s)")).unwrap(),
        ["Bool(false)", "Bool(true)", "Null"]
    );
    assert_eq!(
        run(&format!("{rows} | select v = odd.even(x)")).unwrap(),
        ["Bool(false)", "Null", "Bool(true)"]
    );
    let glue = format!("{rows} | select v = odd.glue(s ?? \"-\", x == 1, c)");
    assert!(said(&glue).contains("-1 is below zero"));
    assert_eq!(
        run(&format!("{glue} on error null")).unwrap(),
        ["String(\"a/true/1.5\")", "Null", "Null"],
        "a null argument makes it null as well"
    );
    assert_eq!(
        run(&format!(
            "{rows} | filter odd.glue(\"x\", true, c) catch \"bad\" == \"bad\" | select c"
        ))
        .unwrap(),
        ["Float(-1.0)"]
    );
    assert_eq!(
        run("from rows [{x: null}] | select a = odd.nil(x, null), b = odd.even(null)").unwrap(),
        ["Bool(true) Null"]
    );
    assert!(run("from range(1, 0) | select a = odd.even(value)").unwrap().is_empty());
}

#[test]
fn what_a_serial_stage_has_left_comes_at_the_end() {
    let script = "from range(1, 5000) | derive t = f\"text number {value}\" | odd.last t | derive n = 1";
    assert_eq!(run(script).unwrap(), ["String(\"text number 5000\") Int(1)"]);
    assert_eq!(
        run("from range(1, 0) | derive t = \"x\" | odd.last t").unwrap(),
        ["Null"]
    );
}

#[test]
fn what_cannot_cross_the_boundary_is_refused() {
    let text = said("from range(1, 3) | odd.sorts");
    assert!(text.contains("do not run behind the C interface yet"), "{text}");
    let text = said("from range(1, 3) | odd.lost");
    assert!(text.contains("it loses the places of its rows"), "{text}");
}

#[test]
fn a_source_that_drips_gives_all_its_rows_in_order() {
    let rows = run("read odd.drips").unwrap();
    assert_eq!(rows, ["Int(0)", "Int(1)", "Int(2)", "Int(3)", "Int(4)", "Int(5)"]);
    assert_eq!(
        run("read odd.drips | take 4 | aggregate n = count()").unwrap(),
        ["Int(4)"]
    );
}

#[test]
fn what_a_source_does_wrong_is_an_error_of_it() {
    for (does, what) in [
        ("panic", "it panics: no more drips"),
        ("fail", "the tap is shut"),
        ("crowd", "are the most"),
        ("null", "it is declared without nulls and has some"),
    ] {
        let text = said(&format!("read odd.drips does: \"{does}\""));
        assert!(
            text.contains("E0805") && text.contains("`odd.drips`") && text.contains(what),
            "{does}: {text}"
        );
    }
}

#[test]
fn a_run_that_waits_for_a_source_can_be_cancelled() {
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::{Duration, Instant};
    let engine = Engine::builder().plugin(library()).workers(2).build();
    let script = "use plugin odd\nread odd.drips does: \"wait\"";
    let mut pipeline = engine.compile("test.pipe", script).unwrap();
    let cancel = pipeline.cancel();
    let start = Instant::now();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            cancel.store(true, SeqCst);
        });
        pipeline.run_with(|_, _| Ok(()))
    });
    assert!(outcome.is_err());
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(150) && took < Duration::from_secs(20),
        "{took:?}"
    );
}
