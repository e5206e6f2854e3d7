//! Built-in stages: one file each, each a `const` spec and what it runs, and [`list`].
//!
//! Laws
//! - A stage is written against the SDK only; nothing here knows the parser, the checker or the runtime.
//! - Columns that arrive `Absent` are passed on untouched: `lineage` and `reads` of what `bind` answers are exact.
//! - State that grows with the data is reserved before it is touched: a refusal leaves a stage as it was.

pub mod aggregate;
pub mod assert;
mod bounds;
pub mod cast;
mod chosen;
pub mod codes;
mod copies;
pub mod dedup;
pub mod derive;
pub mod describe;
pub mod distinct;
pub mod drop;
pub mod each;
pub mod fill;
pub mod filter;
pub mod flatten;
pub mod from;
pub mod groups;
mod heap;
pub mod join;
pub mod keys;
mod keyset;
mod lanes;
pub mod list;
pub mod merge;
pub mod nest;
pub mod number;
mod origins;
mod parts;
mod picked;
pub mod pivot;
pub mod read;
pub mod rename;
pub mod replay;
pub mod route;
mod rowkeys;
pub mod sample;
pub mod select;
pub mod set;
pub mod skip;
pub mod sort;
pub mod spill;
mod spiller;
mod spool;
pub mod tail;
pub mod take;
pub mod tap;
pub mod tee;
#[cfg(test)]
mod testing;
pub mod top;
pub mod union;
pub mod unnest;
pub mod unpivot;
pub mod window;
pub mod write;

pub use standpipe_sdk::values;
