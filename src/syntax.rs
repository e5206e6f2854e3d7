//! Text to syntax tree and back. Knows no stage and no function by name.

pub mod ast;
mod build;
mod format;
mod layout;
mod literal;
mod message;
mod parse;
mod scan;
mod table;

pub use format::format;
pub use parse::{Comment, Parsed, decode, on_deep_stack, parse};
pub use scan::is_reserved;

#[cfg(test)]
mod tests;
