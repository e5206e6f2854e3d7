//! Standpipe: an embedded dataflow language whose pipelines run in constant memory.
//!
//! A standpipe keeps the pressure in a water main constant however the demand varies; this one keeps memory constant however

pub mod compile;
pub mod diag;
pub mod expr;
pub mod formats;
pub mod graph;
pub mod plugin;
pub mod runtime;
pub mod stages;
pub mod syntax;
