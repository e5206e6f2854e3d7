//! The plugin as scripts use it: the library that is built, behind the C interface.
#![allow(clippy::unwrap_used)]

use standpipe::{Engine, Failure, Report};
use std::path::{Path, PathBuf};

/// The library stands beside the test that is linked against the crate.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libgeo.so")
}

fn run_with(
    script: &str,
    change: impl FnOnce(standpipe::engine::EngineBuilder) -> standpipe::engine::EngineBuilder,
) -> Result<(Vec<String>, Report), Failure> {
    let engine = change(Engine::builder().plugin(library())).build();
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

fn run(script: &str) -> Result<(Vec<String>, Report), Failure> {
    run_with(script, |builder| builder)
}

#[test]
fn functions_in_expressions() {
    let script = "use plugin geo (\"^1\")\n\
        from rows [{lat: 52.52, lon: 13.405}, {lat: 48.857, lon: null}, {lat: 0.0, lon: 0.0}]\n\
        | select km = round(geo.haversine(lat, lon, 48.857, 2.352) / 1000), cell = geo.geohash(lat, lon, 5)";
    let (rows, report) = run(script).unwrap();
    assert_eq!(
        rows,
        ["Int(877) String(\"u33dc\")", "Null Null", "Int(5437) String(\"s0000\")"]
    );
    let used: Vec<&str> = report.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(used, ["geo.haversine", "geo.geohash"]);
}

#[test]
fn constants_are_computed_when_the_script_is_checked() {
    let (rows, _) =
        run("use plugin geo\nlet cell = geo.geohash(57.64911, 10.40744, 11)\nfrom range(1, 2) | select c = cell")
            .unwrap();
    assert_eq!(rows, ["String(\"u4pruydqqvj\")"; 2]);
    let failed =
        run("use plugin geo\nlet cell = geo.geohash(91, 0, 3)\nfrom range(1, 2) | select c = cell").unwrap_err();
    assert!(
        failed.to_string().contains("the latitude 91 is not within -90 to 90"),
        "{failed}"
    );
}

#[test]
fn bad_rows_follow_the_policy() {
    let rows = "from rows [{lat: 10.0, n: 3}, {lat: 95.0, n: 3}, {lat: 20.0, n: 0}, {lat: 30.0, n: 2}]";
    let script = |rest: &str| format!("use plugin geo\n{rows}\n| derive lon = 1.5\n| {rest}");
    let (skipped, _) = run(&script("select c = geo.geohash(lat, lon, n) on error skip")).unwrap();
    assert_eq!(skipped, ["String(\"s1c\")", "String(\"sj\")"]);
    let (caught, _) = run(&script("select c = geo.geohash(lat, lon, n) catch \"-\"")).unwrap();
    assert_eq!(caught.len(), 4);
    let (located, _) = run(&script("geo.locate lat, lon on error skip | select n, city")).unwrap();
    assert_eq!(
        located,
        [
            "Int(3) String(\"Lagos\")",
            "Int(0) String(\"Lagos\")",
            "Int(2) String(\"Madrid\")"
        ]
    );
    let failed = run(&script("geo.locate lat, lon")).unwrap_err().to_string();
    assert!(failed.contains("the latitude 95 is not within"), "{failed}");
}

#[test]
fn rows_are_the_same_whatever_the_workers_the_chunks_and_the_cache() {
    let script = |options: &str| {
        format!(
            "use plugin geo\nfrom range(1, 20000)\n| derive lat = float(value * 7919 % 180) - 90, lon = float(value * 104729 % 360) - 180\n\
            | filter value % 3 != 0\n| geo.locate lat, lon{options}\n| select value, city, away"
        )
    };
    let (want, report) = run_with(&script(""), |builder| builder.workers(1)).unwrap();
    assert_eq!(want.len(), 13_334);
    assert!(want.iter().all(|row| !row.contains("Null")));
    assert!(
        report.plugins[0].peak_bytes > 10_000,
        "the cache counts: {:?}",
        report.plugins
    );
    for (workers, chunk, options) in [
        (1, 1 << 10, ""),
        (3, 4 << 10, ", cache: 10"),
        (4, 1 << 20, ", cache: 0"),
    ] {
        let change = |builder: standpipe::engine::EngineBuilder| builder.workers(workers).chunk_bytes(chunk);
        let (got, _) = run_with(&script(options), change).unwrap();
        assert!(got == want, "{workers} workers, chunks of {chunk}, {options}");
    }
}

#[test]
fn wrong_arguments_are_underlined() {
    let said = |rest: &str| {
        let script = format!("use plugin geo\nfrom rows [{{lat: 1.0, lon: 2.0, n: 1}}] | {rest}");
        run(&script).unwrap_err().to_string()
    };
    let all: Vec<String> = [
        "geo.locate lat, n",
        "geo.locate lat",
        "geo.locate lat, lno",
        "geo.locate lat, lon, within: -5",
        "geo.locate lat, lon, cache: -5",
        "geo.locate lat, lon, cahce: 5",
        "derive city = 1 | geo.locate lat, lon",
        "select d = geo.haversine(lat, lon, 1)",
        "select d = geo.haversine(lat, lon, \"x\", 2)",
    ]
    .map(said)
    .into();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn unread_columns_are_not_given_to_the_stage() {
    let script =
        "use plugin geo\nfrom rows [{id: 7, lat: 1.0, lon: 2.0}] | geo.locate lat, lon, within: 1e6 | select id, city";
    assert_eq!(run(script).unwrap().0, ["Int(7) String(\"Lagos\")"]);
    let script =
        "use plugin geo\nfrom rows [{id: 7, lat: 1.0, lon: 2.0}] | geo.locate lat, lon, within: 10 | select id, city";
    assert_eq!(run(script).unwrap().0, ["Int(7) Null"]);
}

#[test]
fn the_description_is_read_without_running_anything_and_its_examples_are_true() {
    let verified = standpipe::plugin::Verified::read(&library(), None).unwrap();
    let note = verified.note.as_ref().unwrap();
    verified.runs_here().unwrap();
    assert_eq!(
        (note.name(), note.version.as_str(), note.license.as_str()),
        ("geo", "1.0.0", "Apache-2.0")
    );
    let names: Vec<&str> = note.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["haversine", "geohash", "locate"]);
    assert_eq!(note.stages[2].params["options"][1]["default"], "10000");
    for example in note.stages[..2].iter().flat_map(|stage| &stage.examples) {
        let (rows, _) = run(&format!("use plugin geo\nfrom range(1, 1) | select ok = {example}")).unwrap();
        assert_eq!(rows, ["Bool(true)"], "{example}");
    }
}

#[test]
fn the_example_runs_as_its_comment_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let name = "examples/plugins/nearest_city.pipe";
    let text = std::fs::read_to_string(root.join(name)).unwrap();
    let engine = Engine::builder().plugin(library()).folder(&root).build();
    let mut pipeline = engine.compile(name, &text).unwrap();
    let mut out = vec![];
    pipeline
        .run_with(|schema, batch| {
            if out.is_empty() {
                out.push(schema.to_string());
            }
            for row in 0..batch.rows() {
                let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
                out.push(cells.collect::<Vec<_>>().join(" "));
            }
            Ok(())
        })
        .unwrap();
    insta::assert_snapshot!(out.join("\n"));
    let formatted = standpipe::syntax::format(&text).unwrap();
    assert_eq!(formatted, text);
}

#[test]
fn scripts_that_use_it_pass_their_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/positions.pipe");
    let passed = standpipe::testing::run_tests(script, &|| Engine::builder().plugin(library()));
    assert_eq!(passed, Ok(2));
}
