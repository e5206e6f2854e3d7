//! The aggregates there are, one family per file. A new family is one `mod` line and one line in [`families`].

mod binned;
mod counts;
mod fixed;
mod fold;
mod lists;
mod log;
mod picks;
mod spread;
mod store;
mod sums;
mod wide;

pub use binned::Sum as FloatSum;

use crate::expr::aggregate::AggregateSpec;

/// Every aggregate, family by family.
pub fn families() -> &'static [&'static [AggregateSpec]] {
    &[
        counts::AGGREGATES,
        sums::AGGREGATES,
        picks::AGGREGATES,
        lists::AGGREGATES,
        spread::AGGREGATES,
    ]
}
