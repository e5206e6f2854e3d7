//! Tests of scripts: `standpipe test`, and the same for Rust programs.
//!
//! A test gives a script rows instead of its inputs, runs it in a folder of its own and looks at its streams. Nothing is read from
//! outside and nothing is written. [`Script::open`] finds the tests of a script, [`Script::run`] runs one of them.
//!
//! Laws
//! - The clock stands still at 2000-01-01T00:00:00Z unless the test sets `now`.
//! - Whatever the settings, a test gives the same rows and the same error: [`matrix`] runs it again under many and compares.
//! - A snapshot is written beside its name first (`.snap.new`); only who accepts it changes what is expected.

pub mod diff;
mod hosts;
mod judge;
pub mod matrix;
pub mod record;
pub mod script;
pub mod snapshot;
pub mod table;

pub use crate::assert_pipeline_snapshot;
pub use hosts::{Fixture, run_tests};
pub use judge::{Fault, Verdict};
pub use script::{Script, find};
