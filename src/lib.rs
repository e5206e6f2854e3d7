//! Standpipe: an embedded dataflow language whose pipelines run in constant memory.
//!
//! A standpipe keeps the pressure in a water main constant however the demand varies; this one keeps memory constant however
//! much data runs through. A `.pipe` script is checked against the real schemas of its inputs, planned as a graph of operators
//! and run chunk by chunk, in arenas that are reset between chunks.
//!
//! ```
//! use standpipe::Engine;
//!
//! let engine = Engine::builder().build();
//! let mut pipeline = engine.compile("squares.pipe", "from range(1, 3) | derive square = value * value")?;
//! let mut squares = vec![];
//! pipeline.run_with(|_, batch| {
//!     squares.extend((0..batch.rows()).map(|row| format!("{:?}", batch.column(1).cell(row))));
//!     Ok(())
//! })?;
//! assert_eq!(squares, ["Int(1)", "Int(4)", "Int(9)"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Laws
//! 1. **Bounded.** Memory has a limit, planned before the run and enforced during it. No stage collects its input silently.
//! 2. **Deterministic.** Same script, inputs and parameters give the same bytes, whatever the workers, the chunk size and the
//!    limit. A run may fail for lack of memory; it never succeeds with other bytes.
//! 3. **Checked first.** Every error of names, types, nullability and arguments is reported before the first row is read, all
//!    at once.
//! 4. **Nothing privileged.** Built-in stages are written against the SDK that plugin authors get.
//! 5. **Nothing lost.** A bad row or a full disk never loses, duplicates or half-publishes data without saying so.
//!
//! # The rooms
//! Dependencies point down only; `tests/house.rs` keeps it so. From the ground floor up:
//!
//! | room | what happens there |
//! |---|---|
//! | [`sdk`] | arenas, columns, batches, schemas, specs, the traits of stages: what built-ins and plugins are written against |
//! | [`diag`] | spans, diagnostics and their codes, rendering |
//! | [`syntax`] | text to syntax tree and back; knows no stage |
//! | [`expr`] | typed expressions over batches, and the functions |
//! | [`stages`] | one built-in stage per file |
//! | [`formats`] | CSV, JSON lines: source and sink side by side |
//! | [`graph`] | the plan: nodes, ports and edges; inert and printable |
//! | [`compile`] | names meet specs: resolve, check, rewrite, plan |
//! | [`runtime`] | workers, lanes, turnstiles, regions; it and `compile` never see each other |
//! | [`engine`] | the façade, whose types stand at the crate's root as well |
//! | [`testing`] | tests of scripts: fixtures, expectations, snapshots, each test again under other settings |
//!
//! The command line is a user of the façade like any other; it lives in the binary.
//!
//! # The life of a chunk
//! 1. A worker *claims* the next piece of input, cut at a record's end. What it yields are *parts*; each part is one chunk.
//! 2. The reader *decodes* the part into the chunk's arena, only the columns that something downstream reads. Text is not copied: a text
//!    column is 16-byte views into the raw block.
//! 3. The batch is *pushed* through the worker's *lane*, its own copy of the operators. A stage whose state needs every row in order
//!    stands behind a *turnstile*, which chunks pass in the order of the input, whoever works on them.
//! 4. After every chunk, empty or failed, each operator is told that the chunk has ended, so that no turnstile waits for it.
//! 5. The arena is reset and the worker claims again. A chunk never changes its thread, so at most as many exist as there are
//!    workers; after the first ones this loop allocates nothing on the heap.
//!
//! A batch borrows from its arena and a reset needs the arena alone: the borrow checker proves that nothing outlives its chunk.
//! A stage that must see all rows before its first answer (`sort`) is a *breaker*: the graph is cut into *regions* at the inputs of
//! breakers, and regions run one after another. A stage that meets a second stream (`join`) gathers it in one region, in a *build*,
//! and *probes* it in another. Where a stream would be needed in both, a *replay* keeps its rows and gives them again.
//! Outputs get their names when the last region has succeeded.

pub mod compile;
pub mod diag;
pub mod engine;
pub mod expr;
pub mod formats;
pub mod graph;
pub mod plugin;
pub mod runtime;
pub mod stages;
pub mod syntax;
pub mod testing;

pub use compile::GraphFormat;
pub use engine::{
    About, AboutParam, Engine, EngineBuilder, Failure, Feeder, IntoValue, MemoryPlan, Pipeline, Problems, Receiver,
    RunError,
};
pub use runtime::progress::Progress;
pub use runtime::report::Report;
/// What rows are made of; the ground floor, also for authors of plugins.
pub use standpipe_sdk as sdk;
pub use standpipe_sdk::{Batch, Cell, Error, Field, Schema, Type, Value};
