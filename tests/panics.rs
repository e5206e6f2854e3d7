//! A panic in any node, with four workers: the run ends within a second, says so, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

use standpipe::engine::{Engine, Failure};
use standpipe::runtime::settings::Hooks;
use standpipe_sdk::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Every kind of node: source, computed and rearranged columns, row-wise, serial, route, breaker and what drains it, rejects, sinks.
const SCRIPT: &str = r#"
stream good = read csv "in.csv" on error to bad
  | filter a % 7 != 3
  | derive b = 100 // (a % 11), tags = [a, a + 1] on error to bad
  | unnest tags as tag
  | number as n

from good | route { when n % 2 == 0 => even, else => odd }
from even | sort -tag | drop b | write csv "even.csv"
from odd | take 100_000 by a | tap "odd" | write jsonl "odd.jsonl"
from bad | write jsonl "bad.jsonl"
"#;

fn engine(folder: &std::path::Path, panic_at: Option<(usize, u64)>) -> Engine {
    let hooks = Hooks {
        panic_at,
        ..Hooks::default()
    };
    Engine::builder()
        .folder(folder)
        .workers(4)
        .chunk_bytes(4 << 10)
        .memory_bytes(64 << 20)
        .sync(false)
        .say(std::sync::Arc::new(|_| {}))
        .hooks(hooks)
        .build()
}

#[test]
fn a_panic_in_any_node_ends_the_run_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("a,c\n");
    for i in 0..20_000 {
        let _ = writeln!(text, "{}{i},x", if i % 500 == 77 { "bad" } else { "" });
    }
    std::fs::write(folder.path().join("in.csv"), text).unwrap();
    let script = SCRIPT.replace(
        "read csv \"in.csv\"",
        "read csv \"in.csv\" schema: {a: int, c: string?}",
    );
    let report = engine(folder.path(), None)
        .compile("all.pipe", &script)
        .unwrap()
        .run()
        .unwrap();
    assert!(report.stages.len() > 12, "{} nodes", report.stages.len());
    for name in ["even.csv", "odd.jsonl", "bad.jsonl"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    for node in 0..report.stages.len() {
        let name = &report.stages[node].name;
        // Claim 3 of the text; what drains a breaker may have fewer claims.
        let (mut outcome, mut elapsed) = (None, Duration::ZERO);
        for claim in [3, 0] {
            let mut pipeline = engine(folder.path(), Some((node, claim)))
                .compile("all.pipe", &script)
                .unwrap();
            let start = Instant::now();
            let ended = pipeline.run();
            elapsed = start.elapsed();
            if let Err(failure) = ended {
                outcome = Some(failure);
                break;
            }
        }
        let Some(Failure::Run(failure)) = outcome else {
            panic!("node {node} ({name}): no panic was seen")
        };
        assert!(
            matches!(&failure.error, Error::Panic(text) if text.contains("a test asked")),
            "node {node} ({name}): {failure}"
        );
        assert!(
            elapsed < Duration::from_secs(1),
            "node {node} ({name}) took {elapsed:?}"
        );
        let left: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        // A run that reached its end before the panic was asked for has published; clear that away.
        assert!(
            left.iter().all(|n| !n.ends_with(".part")),
            "node {node} ({name}) left {left:?}"
        );
        for name in left.iter().filter(|n| *n != "in.csv") {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}
