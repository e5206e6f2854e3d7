//! Kernels that a row passes, each alone on one core, on text like the benchmark's: `cargo bench --bench kernels`.
//!
//! Throughput is bytes of the text that is read or written, or rows.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use standpipe::expr::{Arith, Cmp, Evaluator, Expr};
use standpipe::formats::csv::index;
use standpipe::formats::jsonl;
use standpipe::formats::out::Out;
use standpipe::sdk::{Arena, Batch, Cells, Column, Data, Faults, Field, Grid, Schema, Span, Type, Value};
use std::hint::black_box;

const AT: Span = Span { start: 0, end: 0 };
const ROWS: usize = 4096;
const WIDTH: usize = 6;

/// Orders as CSV; one in eight has a quoted note.
fn orders() -> Vec<u8> {
    let mut text = String::new();
    for id in 0..ROWS {
        let note = if id % 8 == 0 {
            "\"gift, wrap \"\"nicely\"\"\""
        } else {
            "leave at door"
        };
        let (cents, user) = (id * 7919 % 100_000, id * 104_729 % 3_000_000);
        text += &format!(
            "{id},2025-03-{:02}T10:{:02}:00Z,paid,{}.{:02},user{user}@example.com,{note}\n",
            id % 28 + 1,
            id % 60,
            cents / 100,
            cents % 100
        );
    }
    text.into_bytes()
}

/// The same as JSON lines.
fn events() -> Vec<u8> {
    let mut text = String::new();
    for id in 0..ROWS {
        let (cents, user) = (id * 7919 % 100_000, id * 104_729 % 3_000_000);
        text += &format!(
            "{{\"id\":{id},\"ts\":\"2025-03-{:02}T10:{:02}:00Z\",\"status\":\"paid\",\"price\":{}.{:02},\"email\":\"user{user}@example.com\",\"client\":{{\"ip\":\"10.0.{}.1\",\"ua\":\"Mozilla/5.0 (X11; Linux x86_64)\"}}}}\n",
            id % 28 + 1,
            id % 60,
            cents / 100,
            cents % 100,
            id % 256
        );
    }
    text.into_bytes()
}

fn csv(c: &mut Criterion) {
    let text = orders();
    let mut group = c.benchmark_group("csv");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("scan", |b| b.iter(|| index::scan(black_box(&text), b',')));
    let mut ends = vec![0; text.len()];
    group.bench_function("index", |b| b.iter(|| index::index(black_box(&text), b',', &mut ends)));
    group.finish();
}

fn json(c: &mut Criterion) {
    let text = events();
    let reading = jsonl::Reading::default();
    let inferred = jsonl::infer(&text, &reading).expect("the sample is JSON lines");
    let block = [text.as_slice(), &[0; jsonl::PADDING]].concat();
    let mut decoder = jsonl::Decoder::new(&inferred.schema, &[], &reading);
    let mut arena = Arena::new(16 << 20);
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("decode", |b| {
        b.iter(|| {
            {
                let faults = Faults::new(&arena, false);
                let read = decoder.decode(&block, text.len(), 0, 0, usize::MAX, &arena, &faults, false);
                black_box(read.expect("there is room"));
            }
            arena.reset();
        });
    });
    group.bench_function("infer", |b| b.iter(|| jsonl::infer(black_box(&text), &reading)));
    let faults = Faults::new(&arena, false);
    let read = decoder.decode(&block, text.len(), 0, 0, usize::MAX, &arena, &faults, false);
    let (batch, _) = read.expect("there is room");
    let encoder = jsonl::Encoder::new(&inferred.schema);
    let mut out = Out::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            encoder.encode(&batch, &mut out).expect("there is room");
        });
    });
    group.finish();
}

/// CSV cells that nobody read, as JSON lines.
fn verbatim(c: &mut Criterion) {
    let text = [orders().as_slice(), &[0; 64]].concat();
    let mut ends = vec![0; text.len()];
    let found = index::index(&text[..text.len() - 64], b',', &mut ends);
    let grid = Grid {
        bytes: &text,
        width: WIDTH,
        rows: ROWS,
        ends: &ends[..found.count],
        starts: None,
        first: 0,
        delimiter: b',',
    };
    let types = [
        Type::Int,
        Type::Timestamp,
        Type::String,
        Type::Float,
        Type::String,
        Type::String,
    ];
    let schema: Schema = types
        .into_iter()
        .enumerate()
        .map(|(i, ty)| Field::new(format!("column_{i}"), ty, true))
        .collect();
    let columns: Vec<Column<'_>> = (0..WIDTH)
        .map(|at| Column::new(Data::Cells(Cells::new(&grid, at)), None, ROWS))
        .collect();
    let batch = Batch::new(&columns, None, ROWS);
    let encoder = jsonl::Encoder::new(&schema);
    let mut out = Out::new();
    let mut group = c.benchmark_group("verbatim");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("to_json", |b| {
        b.iter(|| {
            out.clear();
            encoder.encode(&batch, &mut out).expect("there is room");
        });
    });
    group.finish();
}

fn expressions(c: &mut Criterion) {
    let mut arena = Arena::new(16 << 20);
    let prices: Vec<f64> = (0..ROWS).map(|i| (i * 7919 % 100_000) as f64 / 100.0).collect();
    let counts: Vec<i64> = (0..ROWS).map(|i| i as i64 % 9 + 1).collect();
    let words: Vec<standpipe::sdk::View> = ["paid", "pending", "failed", "refunded"]
        .iter()
        .cycle()
        .take(ROWS)
        .filter_map(|word| standpipe::sdk::View::inline(word.as_bytes()))
        .collect();
    let columns = [
        Column::float(&prices, None),
        Column::int(&counts, None),
        Column::string(standpipe::sdk::Text::inline(&words), None),
    ];
    let column = |index: usize, ty: Type| Expr::column(index, &Field::new("c", ty, true), AT);
    let price = || column(0, Type::Float);
    let constant = |value: Value, ty: Type| Expr::constant(value, ty, AT);
    let table = [
        ("multiply", Expr::arith(Arith::Mul, price(), column(1, Type::Int), AT)),
        (
            "add_ints",
            Expr::arith(Arith::Add, column(1, Type::Int), column(1, Type::Int), AT),
        ),
        (
            "compare_floats",
            Expr::compare(Cmp::Gt, price(), constant(Value::Float(500.0), Type::Float), AT),
        ),
        (
            "compare_texts",
            Expr::compare(
                Cmp::Eq,
                column(2, Type::String),
                constant(Value::String("paid".into()), Type::String),
                AT,
            ),
        ),
    ];
    let evaluator = Evaluator::default();
    let mut group = c.benchmark_group("expressions");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, expr) in table {
        let expr = expr.expect("the types fit");
        group.bench_with_input(BenchmarkId::from_parameter(name), &expr, |b, expr| {
            b.iter(|| {
                {
                    let faults = Faults::new(&arena, true);
                    let batch = Batch::new(&columns, None, ROWS);
                    black_box(
                        evaluator
                            .eval(expr, &batch, &arena, &faults, None)
                            .expect("there is room"),
                    );
                }
                arena.reset();
            });
        });
    }
    group.finish();
}

criterion_group!(kernels, csv, json, verbatim, expressions);
criterion_main!(kernels);
