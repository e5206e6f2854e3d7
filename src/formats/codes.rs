//! The codes that formats report; the texts are in the registry of diagnostics.

use standpipe_sdk::Code;

// Bad rows.

/// A declared field without `?` is null.
pub const NULL: Code = Code(406);
/// A row has too few or too many cells.
pub const RAGGED: Code = Code(407);
/// The text is not UTF-8.
pub const NOT_UTF8: Code = Code(408);
/// A record cannot be taken apart.
pub const MALFORMED: Code = Code(409);
/// A record is longer than `max_record`.
pub const OVERLONG: Code = Code(410);
/// A number is beyond the range of its column's type.
pub const OUT_OF_RANGE: Code = Code(404);
/// A value is of another type than its column.
pub const CONFLICT: Code = Code(411);
/// A field that the schema does not have, under `extra: error`.
pub const EXTRA_FIELD: Code = Code(419);
/// A cell is not of its column's type.
pub const PARSE: Code = Code(412);

// Arguments.

/// An option has a value it does not take.
pub const WRONG_OPTION: Code = Code(501);
/// An input is not there.
pub const NOT_FOUND: Code = Code(601);
/// An input cannot be read.
pub const UNREADABLE: Code = Code(602);
/// There is nothing to take a schema from, or it cannot be one of this format.
pub const NO_SCHEMA: Code = Code(604);
/// The input lacks a declared column.
pub const MISSING_COLUMN: Code = Code(605);
/// The input has a column that is not declared.
pub const EXTRA_COLUMN: Code = Code(606);
/// The files of one `read` have different columns.
pub const FILES_DIFFER: Code = Code(608);

// Warnings.

/// A header's names were changed.
pub const RENAMED_COLUMN: Code = Code(5);
