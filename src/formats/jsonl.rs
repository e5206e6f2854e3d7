//! JSON lines: one record per line.
//!
//! [`infer`] finds a schema from a sample, [`Decoder`] turns whole lines into a batch, [`Encoder`] turns a batch into lines. Where
//! the bytes come from and go to is not known here.
//!
//! Laws
//! - Every line is validated whole (RFC 8259, UTF-8, no lone surrogates, nesting up to 256); only wanted fields are converted.
//! - A line that is not a JSON record is a row of nulls with a fault of the record; a value that does not fit its column is a null
//!   with a fault of the cell. Neither ends the block.
//! - A repeated key: the last one counts, but each is checked.
//! - Bytes are base64 (RFC 4648 with padding), durations ISO 8601 (`PT1.5S`), both as strings.

mod decode;
mod encode;
mod infer;
mod sink;
mod source;

pub use decode::Decoder;
pub use encode::{Encoder, ValueEncoder, Written};
pub use infer::{Inferred, infer, merge};

use crate::formats::options;
use standpipe_sdk::spec::{FormatSide, FormatSpec, Param};

/// Zero bytes that [`Decoder::decode`] must find behind a block.
pub const PADDING: usize = 64;

/// How JSON lines are read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Strings that are null (`null: ["", "NA"]`).
    pub nulls: Vec<String>,
    /// `extra: error`: a field that the schema does not have is a row error.
    pub extra_is_error: bool,
    /// `check: all`, with a declared schema: columns that nobody reads are checked too.
    pub check_all: bool,
}

const READ_OPTIONS: &[Param] = &[
    options::SCHEMA,
    options::NULL,
    options::INFER,
    options::EXTRA,
    options::IF_NONE,
    options::FILE_COLUMN,
    options::CHECK,
    options::ENCODING,
];
const WRITE_OPTIONS: &[Param] = &[options::APPEND];

pub const JSONL: FormatSpec = FormatSpec {
    name: "jsonl",
    about: "JSON lines: one record per line",
    extensions: &["jsonl", "ndjson"],
    read: Some(FormatSide {
        options: READ_OPTIONS,
        bind: source::bind_read,
    }),
    write: Some(FormatSide {
        options: WRITE_OPTIONS,
        bind: sink::bind_write,
    }),
};

#[cfg(test)]
mod tests;
