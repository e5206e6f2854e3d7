//! The functions there are, one family per file. A new family is one `mod` line and one line in [`families`].

mod convert;
mod date;
#[cfg(test)]
mod examples;
mod list;
mod math;
mod null;
mod text;

pub(in crate::expr) use date::Format;

use crate::expr::function::FunctionSpec;

/// Every function, family by family.
pub fn families() -> &'static [&'static [FunctionSpec]] {
    &[
        text::FUNCTIONS,
        math::FUNCTIONS,
        null::FUNCTIONS,
        date::FUNCTIONS,
        convert::FUNCTIONS,
        list::FUNCTIONS,
    ]
}
