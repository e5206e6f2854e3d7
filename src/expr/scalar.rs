//! Scalars and text: the one place that says how a number, a date or a duration is written and what is read as one.
//!
//! Casts, f-strings and functions use it, and so do the text formats: `string(x)`, `f"{x}"`, a CSV cell and a JSON value show the
//! same text, and `int(s)`, a CSV cell and a JSON string read the same texts.
//!
//! Laws
//! - What [`mod@print`] writes [`scan`] reads as the same value, bit for bit (`nan` as some NaN).
//! - Text is the value and nothing else: no blanks, no `+`, and no leading zeros in ints, floats and decimals, so that `007` stays
//!   text wherever it is met.
//! - Nothing is rounded away: a decimal with more digits than its type has room for is no value of the type, in a cast as in a
//!   file. (A float is the nearest one; digits of a second behind the sixth are dropped, as times are in microseconds.)
//! - float: JSON numbers within its range, `nan`, `inf`, `-inf`; `1e999` is none.
//! - date and timestamp: ISO 8601, a blank allowed for `T`; years outside 0..=9999 in the expanded form, `+012026-01-31`. A date
//!   is no timestamp: `timestamp(date(s))` says that midnight is meant.
//! - duration: written as ISO 8601 in hours, minutes and seconds (`PT1H30M`), as every other time is ISO 8601 in text; read as that or
//!   as the language's literal (`1h30m`).

pub mod civil;
pub mod print;
pub mod scan;
