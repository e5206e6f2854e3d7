//! `plugins/words`, the plugin in C, as scripts use it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use standpipe::engine::EngineBuilder;
use standpipe::{Engine, Failure};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The library, built as its Makefile says; it stays for the life of the test.
fn library() -> PathBuf {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libwords.so");
        let mut cc = Command::new("cc");
        cc.args([
            "-std=c99",
            "-pedantic-errors",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-fvisibility=hidden",
        ]);
        cc.args([
            "-shared",
            "-fPIC",
            "-I",
            "plugins/sdk/include",
            "plugins/words/words.c",
            "-o",
        ])
        .arg(library);
        let output = cc
            .output()
            .expect("`cc` runs; `apt-get install build-essential` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    });
    folder.path().join("libwords.so")
}

fn run_with(script: &str, change: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Result<Vec<String>, Failure> {
    let mut pipeline = change(Engine::builder().plugin(library()))
        .build()
        .compile("test.pipe", script)?;
    let mut out = vec![];
    pipeline.run_with(|_, batch| {
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
            out.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(())
    })?;
    Ok(out)
}

fn run(script: &str) -> Result<Vec<String>, Failure> {
    run_with(script, |builder| builder)
}

const TEXTS: &str = "use plugin words\nfrom rows [\
    {id: 1, text: \" two  words\"}, {id: 2, text: \"\"}, {id: 3, text: null}, {id: 4, text: \"\\t \\n\"}, \
    {id: 5, text: \"a somewhat longer text of incomprehensibilities and äöü\"}]";

#[test]
fn words_are_counted() {
    let rows = run(&format!("{TEXTS} | select id, n = words.count(text)")).unwrap();
    assert_eq!(
        rows,
        [
            "Int(1) Int(2)",
            "Int(2) Int(0)",
            "Int(3) Null",
            "Int(4) Int(0)",
            "Int(5) Int(8)"
        ]
    );
}

#[test]
fn words_become_rows() {
    let rows = run(&format!("{TEXTS} | words.split text | select id, word, at")).unwrap();
    let want = [
        (1, "two", 1),
        (1, "words", 2),
        (5, "a", 1),
        (5, "somewhat", 2),
        (5, "longer", 3),
        (5, "text", 4),
        (5, "of", 5),
        (5, "incomprehensibilities", 6),
        (5, "and", 7),
        (5, "äöü", 8),
    ];
    let want: Vec<String> = want
        .iter()
        .map(|(id, word, at)| format!("Int({id}) String({word:?}) Int({at})"))
        .collect();
    assert_eq!(rows, want);
}

#[test]
fn rows_of_one_row_keep_their_order_behind_a_sort_and_a_second_split() {
    // The sort is stable by place: rows made of one row must have places of their own, in order.
    let script = format!(
        "{TEXTS} | words.split text | rename number = at, piece = word | words.split piece | derive k = id % 1 | sort k | select piece, number, at"
    );
    let rows = run(&script).unwrap();
    let numbers: Vec<&str> = rows.iter().map(|row| row.split(' ').nth(1).unwrap()).collect();
    let want: Vec<String> = [1, 2].into_iter().chain(1..=8).map(|n| format!("Int({n})")).collect();
    assert_eq!(numbers, want);
    assert!(rows.iter().all(|row| row.ends_with("Int(1)")));
}

#[test]
fn rows_are_the_same_whatever_the_workers_and_chunks() {
    let script = "use plugin words\nfrom range(1, 5000)\n\
        | derive text = f\"row {value} has {value * 7919 % 1000} and a considerably longer word: incomprehensibility{value}\"\n\
        | filter value % 7 != 3 | words.split text | filter at != 2 | select value, word, at";
    let want = run_with(script, |builder| builder.workers(1)).unwrap();
    assert_eq!(want.len(), 4286 * 9);
    for (workers, chunk) in [(1, 1 << 10), (3, 8 << 10), (4, 1 << 20)] {
        let got = run_with(script, |builder| builder.workers(workers).chunk_bytes(chunk)).unwrap();
        assert!(got == want, "{workers} workers, chunks of {chunk}");
    }
}

#[test]
fn a_batch_that_becomes_too_large_is_halved() {
    let script = "use plugin words\nfrom range(1, 20000) | derive text = \"a b c d e f g h i j k l m n o p q r s t u v w x y z\"\n\
        | words.split text | aggregate n = count(), last = max(value)";
    let rows = run_with(script, |builder| builder.workers(1).memory_bytes(12 << 20)).unwrap();
    assert_eq!(rows, ["Int(520000) Int(20000)"]);
}

#[test]
fn wrong_arguments_are_underlined() {
    let said = |rest: &str| run(&format!("{TEXTS} | {rest}")).unwrap_err().to_string();
    let all: Vec<String> = [
        "words.split id",
        "derive word = 1 | words.split text",
        "derive n = words.count(id)",
    ]
    .map(said)
    .into();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn the_example_runs() {
    let text = std::fs::read_to_string("examples/plugins/words.pipe").unwrap();
    assert_eq!(standpipe::syntax::format(&text).unwrap(), text);
    let rows = run(&text).unwrap();
    assert_eq!(
        rows,
        [
            "String(\"the\") Int(6) Int(4) Int(1)",
            "String(\"river\") Int(2) Int(2) Int(2)",
            "String(\"to\") Int(2) Int(2) Int(2)",
        ]
    );
}

#[test]
fn scripts_that_use_it_pass_their_tests() {
    let passed = standpipe::testing::run_tests("plugins/words/tests/lines.pipe", &|| {
        Engine::builder().plugin(library())
    });
    assert_eq!(passed, Ok(1));
}
