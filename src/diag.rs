//! Spans and diagnostics: what is said about a script before it runs, and how an error of a run is shown.
//!
//! Laws
//! - Every diagnostic has a stable code out of [`codes`]; a code is never reused.
//! - It points (a primary span), knows (labels, notes) and helps (a way out). No "you", no trailing dot, names in
//!   backticks.
//! - Nothing here fails: a span outside its text is clamped, not trusted.

pub mod codes;
mod diagnostic;
mod render;
mod suggest;

pub use codes::{Code, CodeInfo};
pub use diagnostic::{DataPlace, Diagnostic, FileId, Label, Severity};
pub use render::{Source, json, json_objects, line_column, render, render_all};
pub use standpipe_sdk::Span;
pub use suggest::{list_names, suggest};
