//! The examples run from the root of the repository, as a reader would run them, and give what their snapshots show.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "harness/script.rs"]
mod script;

use script::{Setting, examples, visible};
use std::fmt::Write as _;
use std::process::Command;

fn compare(name: &str, view: &str) -> bool {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots/examples");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| std::panic::catch_unwind(|| insta::assert_snapshot!(name, view)).is_ok())
}

/// The one that stands between two programs.
fn is_a_filter(text: &str) -> bool {
    text.contains("\"-\"")
}

#[test]
fn every_example_gives_what_its_snapshot_shows() {
    let root = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    for script in examples(root.path()) {
        if standpipe::syntax::format(&script.text).ok().as_deref() != Some(script.text.as_str()) {
            wrong.push(format!("{}: not as `standpipe fmt` writes it", script.name));
        }
        if !script.text.starts_with("## ") {
            wrong.push(format!("{}: it opens with what it shows", script.name));
        }
        if is_a_filter(&script.text) {
            continue;
        }
        let checked = script.check();
        let ran = script.run(&Setting::usual());
        let mut view = String::new();
        let texts = [
            ("check", &checked.checked),
            ("failed", &ran.failed),
            ("said", &ran.said),
        ];
        for (title, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let _ = writeln!(view, "=== {title}\n{}", text.trim_end());
        }
        let _ = writeln!(view, "=== counts\n{}", ran.counts.join("\n"));
        for (name, bytes) in &ran.outputs {
            let _ = write!(view, "=== {name}\n{}", visible(name, bytes));
        }
        if !compare(script.name.trim_start_matches("examples/"), &view) {
            wrong.push(format!("{}: the snapshot is another", script.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_filter_stands_between_two_programs() {
    let input = std::fs::File::open("examples/data/requests.csv").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .args(["run", "examples/05_stdin_filter.pipe", "--no-sync"])
        .stdin(input)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{stderr}");
    assert!(compare("05_stdin_filter", &stdout), "the snapshot is another");
}
