//! The script corpus: every script of `tests/scripts/<family>/<case>.pipe` and all that can be seen of it, in one snapshot each.
//!
//! The first comment of a script says why it exists. `INSTA_UPDATE=always cargo test --test corpus` writes new snapshots; each is
//! read by a person before it is committed.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "harness/script.rs"]
mod script;

use script::{Script, Seen, Setting, corpus, visible};
use standpipe::diag::codes;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Codes that no script of the corpus can show, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("E0101", "a script of the corpus is text"),
    ("E0102", "it would be too large"),
    ("E0120", "f-strings report E0104 and E0519"),
    ("E0123", "stages report E0502"),
    ("E0307", "a constant reports what fails in it"),
    ("E0310", "comparisons report E0302"),
    ("E0313", "lists report E0305"),
    ("E0314", "`x == null` is understood"),
    ("E0316", "null takes a type everywhere"),
    ("E0410", "`max_record` is no matter of a script"),
    ("E0413", "decimals report E0401"),
    ("E0903", "every function is there"),
    ("E0418", "nothing reports it yet"),
    ("E0520", "no stage that needs an order is there yet"),
    ("E0609", "paths report E0216"),
    ("E0610", "damaged files report E0602"),
    ("E0612", "needs a reader that goes away"),
    ("E0701", "its numbers depend on the workers"),
    ("E0702", "the least memory depends on the workers"),
    ("E0703", "nothing spills yet"),
    ("E0704", "nothing spills yet"),
    ("E0803", "it needs a library: `tests/plugins.rs`"),
    ("E0804", "it needs a library: `tests/plugins.rs`"),
    ("E0805", "it needs a library: `tests/plugins.rs`"),
    ("E0806", "it needs a library: `tests/isolated.rs`"),
    ("E0998", "needs somebody who interrupts"),
    ("E0999", "would be our own mistake"),
    ("E1001", "it needs a test that runs: `tests/testing.rs`"),
    ("E1002", "it needs a test that runs: `tests/testing.rs`"),
    ("E1003", "it needs a test that runs: `tests/testing.rs`"),
    ("E1004", "it needs a test that runs: `tests/testing.rs`"),
    ("E1005", "it needs a file of tests: `tests/testing.rs`"),
    ("E1006", "it needs a test that runs: `tests/plugged.rs`"),
    ("W0001", "only `--pedantic` says it"),
    ("W0002", "nothing reports it yet"),
    ("W0003", "nothing reports it yet"),
    ("W0004", "nothing reports it yet"),
    ("W0006", "the run notes it without a code"),
    ("W0007", "the run notes it without a code"),
    ("W0008", "only `--pedantic` says it"),
];

fn section(out: &mut String, title: &str, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, "=== {title}\n{text}");
        if !text.ends_with('\n') {
            out.push('\n');
        }
    }
}

fn formatted(script: &Script) -> String {
    match standpipe::syntax::format(&script.text) {
        Err(_) => "has errors".into(),
        Ok(text) => {
            let again = standpipe::syntax::format(&text).expect("what was formatted can be parsed");
            assert_eq!(again, text, "{}: formatted twice", script.name);
            if text == script.text { "canonical".into() } else { text }
        }
    }
}

fn view(script: &Script) -> String {
    let mut out = String::new();
    section(&mut out, "fmt", &formatted(script));
    let Seen { checked, explained, .. } = script.check();
    section(&mut out, "check", &checked);
    section(&mut out, "explain", &explained);
    if explained.is_empty() {
        return out;
    }
    let ran = script.run(&Setting::usual());
    section(&mut out, "failed", &ran.failed);
    section(&mut out, "said", &ran.said);
    section(&mut out, "counts", &ran.counts.join("\n"));
    for (name, bytes) in &ran.outputs {
        let text = visible(name, bytes);
        section(&mut out, name, if text.is_empty() { "(empty)" } else { &text });
    }
    out
}

#[test]
fn every_script_gives_what_its_snapshot_shows() {
    let root = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    let (mut shown, mut names) = (BTreeSet::new(), BTreeSet::new());
    for script in corpus(root.path()) {
        let (family, case) = script.name.split_once('/').unwrap();
        names.insert(script.name.clone());
        if !script
            .text
            .lines()
            .take(2)
            .any(|line| line.starts_with("# ") || line.starts_with("## "))
        {
            wrong.push(format!("{}: the first comment says why a script exists", script.name));
        }
        let view = view(&script);
        if view.contains(&*root.path().to_string_lossy()) {
            wrong.push(format!("{}: a path of this machine is shown", script.name));
        }
        let codes: BTreeSet<&str> = codes::ALL
            .iter()
            .map(|row| row.code)
            .filter(|code| view.contains(code))
            .collect();
        if family == "errors" && case.starts_with('e') && !codes.contains(&*case[..5].to_uppercase()) {
            wrong.push(format!("{}: its code does not come", script.name));
        }
        shown.extend(codes);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(format!("snapshots/{family}"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let same = settings.bind(|| std::panic::catch_unwind(|| insta::assert_snapshot!(case, view)));
        if same.is_err() {
            wrong.push(format!("{}: the snapshot is another", script.name));
        }
    }
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let families = std::fs::read_dir(&snapshots)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in families
        .filter(|path| path.is_dir())
        .flat_map(|path| std::fs::read_dir(path).unwrap())
    {
        let path = path.unwrap().path().with_extension("");
        let name = path.strip_prefix(&snapshots).unwrap().display().to_string();
        if !names.contains(&name) && !name.starts_with("examples/") {
            wrong.push(format!("{name}: a snapshot without a script"));
        }
    }
    for row in codes::ALL {
        let elsewhere = ELSEWHERE.iter().any(|(code, _)| *code == row.code);
        if shown.contains(row.code) == elsewhere {
            let what = if elsewhere {
                "is shown after all"
            } else {
                "has no script"
            };
            wrong.push(format!("{}: {what} ({})", row.code, row.title));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
