//! The ground floor of Standpipe: what a stage, a format or a function is written against, built-in or plugin.
//!
//! A pipeline moves [`Batch`]es of [`Column`]s. Everything in a batch borrows from the [`Arena`] of its chunk, and resetting
//! the arena takes `&mut`: the borrow checker proves that nothing outlives its chunk. Stages are described by `const`
//! [`spec::StageSpec`]s and run as [`RowWise`], [`Serial`], [`Breaker`], [`Source`] or [`Sink`] objects.
//!
//! Laws
//! - Columns have Arrow's layout: LSB-first validity bitmaps (1 = valid), 16-byte string views, 32-bit list offsets.
//! - Every allocation that grows with the data can be refused; nobody here aborts for lack of memory.
//! - Nothing here knows a stage, a format or a function by name.

pub mod aggregate;
pub mod arena;
pub mod batch;
pub mod bits;
pub mod budget;
pub mod build;
pub mod cells;
pub mod column;
pub mod error;
pub mod fault;
pub mod ffi;
pub mod interleave;
pub mod kept;
pub mod place;
pub mod spec;
pub mod spill;
pub mod stage;
pub mod text;
pub mod types;
pub mod value;

pub use arena::Arena;
pub use batch::Batch;
pub use bits::Bits;
pub use budget::{Budget, Reservation};
pub use cells::{Cells, Grid};
pub use column::{Column, Columns, Data, ListData, RecordData};
pub use error::{Code, Error, Result, RowError, Span};
pub use fault::{Fault, Faults, Verdict};
pub use kept::Kept;
pub use place::{Locator, Place, Trace};
pub use spill::{Disk, DiskReservation, OutOfDisk, Spill, Spilled};
pub use stage::{
    Breaker, Build, Downstream, Emitter, Fill, Flow, Judge, Part, Prepare, Probe, Published, Reader, RowWise, Serial,
    Sink, Source, Writer,
};
pub use text::{Text, View};
pub use types::{Field, Item, Schema, Type};
pub use value::{Cell, Value};
