//! The examples of every stage and function run: what the reference shows is what happens.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use standpipe::engine::{Engine, Failure};
use standpipe::expr;
use standpipe::stages;
use std::fs;
use std::path::Path;

/// Runs a script in `folder`; the error's text if it fails.
fn run(script: &str, folder: &Path) -> Result<(), String> {
    let engine = Engine::builder()
        .folder(folder)
        .sync(false)
        .workers(2)
        .say(std::sync::Arc::new(|_| {}))
        .build();
    let failed = |failure: Failure| failure.render(false);
    let mut pipeline = engine
        .compile("example.pipe", script)
        .map_err(|problems| problems.render(false))?;
    pipeline.run().map(|_| ()).map_err(failed)
}

#[test]
fn every_example_of_a_stage_prints_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    for spec in stages::list::list() {
        for example in spec.examples {
            let out = folder.path().join("out.csv");
            let _ = fs::remove_file(&out);
            let printed = match run(&format!("{}\n| write csv \"out.csv\"", example.script), folder.path()) {
                Ok(()) => fs::read_to_string(&out).unwrap(),
                Err(error) => error,
            };
            // An example of a failure has its code for output.
            if printed != example.output && !printed.starts_with(&format!("error[{}]", example.output)) {
                wrong.push(format!("{}: {}\n{printed}", spec.name, example.script));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_of_a_function_gives_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    for spec in expr::functions().iter().flat_map(|family| family.iter()) {
        for example in spec.examples {
            let out = folder.path().join("out.jsonl");
            let _ = fs::remove_file(&out);
            // `fails` must not depend on constants, so the call of a failing example is made for each row of a source.
            let gives = if example.fails.is_some() { "null" } else { example.gives };
            let script = format!(
                "from range(1, 2)\n| select gives = {gives}, call = {}\n| write jsonl \"out.jsonl\"",
                example.call
            );
            match (run(&script, folder.path()), example.fails) {
                (Ok(()), None) => {
                    let text = fs::read_to_string(&out).unwrap();
                    let same = |line: &str| {
                        let row: serde_json::Value = serde_json::from_str(line).unwrap();
                        row["gives"] == row["call"]
                    };
                    if !text.lines().all(same) {
                        wrong.push(format!("{} gives\n{text}", example.call));
                    }
                }
                (Ok(()), Some(code)) => wrong.push(format!("{} does not fail with {code}", example.call)),
                (Err(error), Some(code)) if error.contains(&code.to_string()) || error.contains("E0307") => {}
                (Err(error), _) => wrong.push(format!("{}\n{error}", example.call)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} examples\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_example_of_an_aggregate_gives_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    let (mut names, mut examples) = (std::collections::BTreeSet::new(), 0);
    for spec in expr::aggregates().iter().flat_map(|family| family.iter()) {
        assert!(
            !spec.examples.is_empty() && spec.about.ends_with('.') && !spec.returns.is_empty(),
            "`{}` says nothing of itself",
            spec.name
        );
        names.insert(spec.name);
        for example in spec.examples {
            examples += 1;
            let out = folder.path().join("out.jsonl");
            let _ = fs::remove_file(&out);
            let script = format!(
                "from rows {}\n| aggregate call = {}\n| select gives = {}, call\n| write jsonl \"out.jsonl\"",
                example.rows, example.call, example.gives
            );
            match run(&script, folder.path()) {
                Ok(()) => {
                    let text = fs::read_to_string(&out).unwrap();
                    let row: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
                    if row["gives"] != row["call"] {
                        wrong.push(format!("{} over {} gives\n{text}", example.call, example.rows));
                    }
                }
                Err(error) => wrong.push(format!("{}\n{error}", example.call)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} examples\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(names.len(), 21);
    assert!(examples >= 21);
}
