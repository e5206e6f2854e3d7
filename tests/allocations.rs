//! Nothing is allocated on the heap per chunk: four times the chunks, not one allocation more.

#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)]

use standpipe::engine::Engine;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const CHUNK: usize = 16 << 10;

/// Orders as CSV text of about `chunks` chunks, every row like the one 500 rows before.
fn orders(chunks: usize) -> String {
    let mut text = String::from("id,status,country,price,qty,note\n");
    let mut row = 0usize;
    while text.len() < chunks * CHUNK {
        let k = row % 500;
        let note = if k.is_multiple_of(10) {
            "\"gift, wrap \"\"nicely\"\"\""
        } else {
            ""
        };
        let status = ["paid", "pending", "failed"][k % 3];
        let _ = writeln!(
            text,
            "{},{status},de{},{}.{:02},{},{note}",
            1000 + k,
            k % 7,
            k % 90,
            k % 100,
            1 + k % 9
        );
        row += 1;
    }
    text
}

/// Allocations and chunks of one run over `chunks` chunks.
fn run(chunks: usize, workers: usize, format: &str) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("orders.csv"), orders(chunks)).unwrap();
    let script = format!(
        r#"read csv "orders.csv"
             | filter status == "paid" and price > 10 and note is null
             | derive total = round(price * qty, 2), name = f"{{upper(country)}}-{{id}}"
             | select id, name, total, big = if total > 100 then "yes" else "no"
             | write {format} "out""#
    );
    let engine = Engine::builder()
        .folder(folder.path())
        .workers(workers)
        .chunk_bytes(CHUNK)
        .sync(false)
        .build();
    let mut pipeline = engine.compile("test", &script).unwrap();
    let before = ALLOCATIONS.load(SeqCst);
    let report = pipeline.run().unwrap();
    let allocations = ALLOCATIONS.load(SeqCst) - before;
    assert!(report.outputs[0].rows > 0);
    (allocations, report.chunks)
}

#[test]
fn four_times_the_chunks_take_not_one_allocation_more() {
    // One test, so that no other thread of this program allocates meanwhile.
    for format in ["csv", "jsonl"] {
        run(20, 1, format);
        let (few, chunks) = run(50, 1, format);
        let (many, more_chunks) = run(200, 1, format);
        assert!(more_chunks >= 4 * chunks - 4, "{chunks} and {more_chunks} chunks");
        assert_eq!(
            many, few,
            "{chunks} chunks took {few} allocations, {more_chunks} took {many} ({format})"
        );
        // With several workers it is chance how far each warms up; a chunk more still takes nothing.
        let (few, chunks) = run(200, 3, format);
        let (many, more_chunks) = run(800, 3, format);
        assert!(
            many < few + 60,
            "{chunks} chunks took {few} allocations, {more_chunks} took {many} ({format}, 3 workers)"
        );
    }
}
