//! The testing kit: a stage or function of a plugin in an ordinary `#[test]`, without a host and without a library.
//!
//! ```
//! use standpipe_sdk::prelude::*;
//! use standpipe_sdk::testing::{self, NULL};
//! use standpipe_sdk::table;
//!
//! /// Half of a number.
//! #[scalar]
//! fn half(x: f64) -> Result<f64, String> {
//!     if x < 0.0 { Err(format!("{x} is below zero")) } else { Ok(x / 2.0) }
//! }
//!
//! let given = table!["x: float?"; 3.0; NULL; -1.0];
//! let got = testing::function::<half>().run(&given);
//! let lines = ["value: float?", "          1.5", "         null", "         null", "rejected row 2: -1 is below zero", ""];
//! assert_eq!(got.to_string(), lines.join("\n"));
//! ```
//!
//! A stage is driven in the same way: `testing::stage::<Locate>("lat: float, lon: float").column("lat").column("lon").run(&given)`.
//! What comes out prints as an aligned table, so a snapshot of it is `insta::assert_snapshot!(got)`; `insta` is the test's own
//! dependency.
//!
//! Laws
//! - Every run is done with batches of several sizes, in memory that is overwritten behind each batch, and what comes out must be the
//!   same: a stage that depends on where batches end, or looks at rows that are gone, fails any test.
//! - A column that the stage neither reads nor passes on by its own words is not there, as in a run.
//! - What is wrong with a test or a stage is a panic that says so, as in any `assert!`.

mod aggregate;
mod function;
mod stage;
mod table;

pub use aggregate::{Aggregate, aggregate};
pub use function::{Function, function};
pub use stage::{Drive, Ready, stage, stage_of};
pub use table::{Output, Reject, Table, schema};

use crate::budget::Budget;
use crate::spec::{Asked, Setup};
use crate::spill::Spill;
use crate::value::Value;
use std::fmt;
use std::sync::Arc;

/// A cell without a value.
pub const NULL: Value = Value::Null;

/// Batch sizes that must not matter.
const SIZES: [usize; 4] = [1, 2, 7, usize::MAX];
/// What an arena may hand out.
const ROOM: usize = 256 << 20;

/// A schema and rows of literals: `table!["name: string, n: int?"; "Ada", 1; "Grace", NULL]`.
///
/// # Panics
/// As [`Table::new`] does.
#[macro_export]
macro_rules! table {
    ($schema:expr $(; $($cell:expr),+ $(,)?)* $(;)?) => {
        $crate::testing::Table::new($schema, vec![$(vec![$($crate::Value::from($cell)),+]),*])
    };
}

/// What operators are made with, in tests: `memory` bytes for state of their own.
pub fn setup(memory: usize) -> Setup {
    Setup {
        budget: Budget::new(memory),
        spill: Spill::anywhere(),
        share: ROOM,
        workers: 1,
        chunk_bytes: 256 << 10,
        max_record: 8 << 20,
        sync: false,
        folder: std::path::Path::new("").into(),
        cancelled: Arc::default(),
        say: Arc::new(|_: &str| {}),
        asked: Asked::Text,
    }
}

/// What is wrong with the arguments of a stage: what it complains of, and which argument it means.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The name of an option, the number of an item from 0, or nothing for the whole call; and the words.
    pub complaints: Vec<(String, String)>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (argument, message) in &self.complaints {
            match argument.as_str() {
                "" => writeln!(f, "{message}")?,
                argument => writeln!(f, "argument {argument}: {message}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
