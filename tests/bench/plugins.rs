//! What the way to a plugin and back costs: `cargo bench --bench plugins`.
//!
//! - `csv_filter` with and without a stage of a plugin that does nothing: at most 2 % apart. Machines drift by more than that while
//!   one of them is measured, so all are measured in several rounds, in another order each: compare within a round.
//! - An arithmetic expression, built in and as a plugin's function in C: at most 1.2 times.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use standpipe::Engine;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ROWS: usize = 400_000;
/// As many as there are pipelines to compare: each is first once.
const ROUNDS: usize = 3;

/// Orders as the generator of the other benchmarks writes them.
fn orders() -> String {
    let mut text = "id,ts,status,country,price,qty\n".to_owned();
    for id in 0..ROWS {
        let (cents, country) = (id * 7919 % 100_000, ["de", "fr", "us", "jp"][id % 4]);
        let status = ["paid", "open", "paid", "void"][id / 4 % 4];
        let _ = writeln!(
            text,
            "{id},2025-03-{:02}T10:{:02}:00Z,{status},{country},{}.{:02},{}",
            id % 28 + 1,
            id % 60,
            cents / 100,
            cents % 100,
            id % 9 + 1
        );
    }
    text
}

fn plugins(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("orders.csv"), orders()).expect("room for the orders");
    let library = folder.path().join("libplain.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/plain.c");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/include");
    let status = Command::new("cc")
        .args(["-std=c99", "-O3", "-shared", "-fPIC", "-I"])
        .args([&header, &source])
        .arg("-o")
        .arg(&library)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "`cc` builds the plugin");
    let engine = Engine::builder()
        .plugin(&library)
        .folder(folder.path())
        .workers(1)
        .build();
    let mut group = c.benchmark_group("plugins");
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(30).measurement_time(Duration::from_secs(6));
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut measure = |name: &str, pipeline: &str| {
        let script = format!("use plugin plain\n{pipeline}");
        let mut pipeline = engine
            .compile("bench.pipe", &script)
            .unwrap_or_else(|error| panic!("{error}"));
        group.bench_function(name, |b| {
            b.iter(|| {
                pipeline
                    .run_with(|_, _| Ok(()))
                    .unwrap_or_else(|error| panic!("{error}"))
            });
        });
    };
    let filter = "filter status == \"paid\" and price > 500 | select id, ts, country = upper(country), total = round(price * qty, 2)";
    let mut filters = [
        ("csv_filter", format!("read csv \"orders.csv\" | {filter}")),
        (
            "csv_filter, a stage that does nothing before it",
            format!("read csv \"orders.csv\" | plain.pass | {filter}"),
        ),
        (
            "csv_filter, a stage that does nothing behind it",
            format!("read csv \"orders.csv\" | {filter} | plain.pass"),
        ),
    ];
    for round in 1..=ROUNDS {
        for (name, pipeline) in &filters {
            measure(&format!("{name}, round {round}"), pipeline);
        }
        filters.rotate_left(1);
    }
    let floats = format!("from range(1, {ROWS}) | select x = float(value), y = 2.5 * float(value)");
    measure("x and y", &floats);
    measure("x * 1.5 + y, built in", &format!("{floats} | select z = x * 1.5 + y"));
    measure(
        "x * 1.5 + y, of a plugin",
        &format!("{floats} | select z = plain.line(x, y)"),
    );
    group.finish();
}

criterion_group!(benches, plugins);
criterion_main!(benches);
