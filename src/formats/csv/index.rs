//! Where the cells of CSV text end, found 64 bytes at a time.
//!
//! Laws
//! - The meaning is RFC 4180 as csv-core has it with `\n` as the terminator: a quote opens only as the first byte of a
//!   field; inside, `""` is one quote; bytes between the closing quote and the delimiter are literal (`"ab"cd` is
//!   `abcd`), and so is a quote in a field that did not begin with one (`5" pipe`). A `\r` is an ordinary byte here.
//! - Every answer is exact for any bytes, and the same from every instruction set and for every way of cutting the text
//!   into blocks. Speed depends on the text, meaning never does.
//! - Nothing is allocated, nothing outside the given slices is touched.
//!
//! How it works: for 64 bytes at a time there are bit masks of the quotes, delimiters and newlines. The running parity of
//! the quotes (a prefix xor, one carry-less multiply) says which bytes are inside quotes. Parity errs only where a quote
//! that is not the first byte of a field would open one. Such a *stray* quote is visible in the masks: it would turn the
//! parity to "inside", and the byte before it is neither a delimiter nor a newline (both outside, as parity was even) nor
//! a quote (one that has just closed, so that the two are an escaped pair). Without a stray quote, parity is exact, by
//! induction over the quotes. Closing quotes need no check: what follows one is outside in any case.
//!
//! With a known start a stray quote costs a scalar walk over its own 64 bytes. A [`scan`] does not know where it starts: it
//! gives both answers, each with a bit saying whether it can be trusted, and [`advance`] picks one or walks again.
//!
//! The delimiter is any byte but `\n` and `"`.

mod isa;
mod passes;

use isa::Kernel;

/// What stands between two bytes of CSV text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Before the first byte of a field.
    #[default]
    FieldStart,
    /// In a field that has no open quote.
    Unquoted,
    /// In a quoted field: delimiters and newlines are text.
    Quoted,
    /// After a quote inside a quoted field: the closing one, unless another follows.
    QuoteInQuoted,
}

impl State {
    /// The state after `byte`.
    #[inline]
    pub fn step(self, byte: u8, delimiter: u8) -> State {
        match (self, byte) {
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) => State::Quoted,
            (State::FieldStart | State::QuoteInQuoted, b'"') => State::Quoted,
            (_, b'\n') => State::FieldStart,
            (_, byte) if byte == delimiter => State::FieldStart,
            _ => State::Unquoted,
        }
    }
}

/// What one pass over a block found without knowing how the block begins.
///
/// Pairs are indexed by the assumption: `[0]` the block begins outside quotes, `[1]` inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The position after the last newline outside quotes.
    pub cut: [Option<usize>; 2],
    /// Whether `cut` and the end can be trusted; for `[0]` also see [`advance`], which knows the byte before.
    pub clean: [bool; 2],
    /// Whether the block turns outside into inside and back: it has an odd number of quotes.
    pub flips: bool,
    /// How many `\n` bytes there are, inside quotes or not.
    pub newlines: u64,
    /// Whether there is a quote at all.
    pub quotes: bool,
    /// Whether all bytes are below 128.
    pub ascii: bool,
    /// The state after the block if that is outside quotes.
    outside: State,
    /// The block's first byte is a quote, which opens or not depending on the byte before.
    starts_quoted: bool,
}

/// What a block holds, given how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactScan {
    /// The position after the last newline that ends a record.
    pub cut: Option<usize>,
    /// The state after the block.
    pub end: State,
    /// How many `\n` bytes there are, inside quotes or not.
    pub newlines: u64,
}

/// What [`index`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// Positions written.
    pub count: usize,
    /// Bytes these positions cover: all of them, or up to the end of the last whole record that fitted.
    pub consumed: usize,
    /// Newlines that end a record, in what was read (they may lie behind `consumed`).
    pub newlines: u64,
    /// Whether there is a quote in what was read (it may lie behind `consumed`).
    pub quotes: bool,
    /// Whether every quote opens or closes a field or is half of an escaped pair, in what was read.
    pub clean: bool,
    /// Whether all bytes that were read are below 128.
    pub ascii: bool,
    /// Whether the text ends inside quotes; then the last field is everything after the last position.
    pub open: bool,
}

/// One pass over a block whose first state is not known yet; [`advance`] makes it exact.
pub fn scan(block: &[u8], delimiter: u8) -> Scan {
    Kernel::chosen().scan(block, delimiter)
}

/// The pass over a block that begins in `state`.
pub fn scan_exact(state: State, block: &[u8], delimiter: u8) -> ExactScan {
    Kernel::chosen().scan_exact(state, block, delimiter)
}

/// The exact answer for a block that begins in `state` from its `scan`: at once if quote parity was enough, else by a
/// second pass.
pub fn advance(state: State, block: &[u8], scan: &Scan, delimiter: u8) -> ExactScan {
    if block.is_empty() {
        return ExactScan {
            cut: None,
            end: state,
            newlines: 0,
        };
    }
    let inside = state == State::Quoted;
    let side = usize::from(inside);
    // The one thing `scan` could not see: a quote as the first byte, after an unquoted byte, is stray.
    if !scan.clean[side] || (scan.starts_quoted && state == State::Unquoted) {
        return scan_exact(state, block, delimiter);
    }
    let end = if inside != scan.flips {
        State::Quoted
    } else {
        scan.outside
    };
    ExactScan {
        cut: scan.cut[side],
        end,
        newlines: scan.newlines,
    }
}

/// Writes into `out`, in order, the positions of all delimiters and newlines of `records` that are outside quotes.
///
/// `records` begins at the start of a record. If `out` is too small, as many whole records as fit are indexed: `consumed`
/// is then the position after a newline, `records[consumed..]` is for the next call, and 0 means that not even one fits. Else
/// `consumed == records.len()`, and a last record without a newline has no position for its end. Slots of `out` after
/// `count` are overwritten too. Positions are `u32`: only the whole records in the first 4 GiB are ever indexed.
pub fn index(records: &[u8], delimiter: u8, out: &mut [u32]) -> Indexed {
    Kernel::chosen().index(records, delimiter, out)
}

/// The value of a raw cell that begins with a quote, written to `out`; returns its length.
///
/// Shapes: `out.len() >= cell.len()`. A cell that does not begin with a quote is copied.
pub fn unescape(cell: &[u8], out: &mut [u8]) -> usize {
    debug_assert!(out.len() >= cell.len());
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(slot) = out.get_mut(len..len + bytes.len()) {
            slot.copy_from_slice(bytes);
            len += bytes.len();
        }
    };
    let Some(mut rest) = cell.strip_prefix(b"\"") else {
        put(cell);
        return len;
    };
    while let Some(quote) = memchr::memchr(b'"', rest) {
        let (text, after) = rest.split_at(quote);
        // An escaped pair gives its first quote; after the closing quote everything is literal.
        match after {
            [b'"', b'"', after @ ..] => {
                put(text);
                put(b"\"");
                rest = after;
            }
            _ => {
                put(text);
                rest = after.get(1..).unwrap_or_default();
                break;
            }
        }
    }
    put(rest);
    len
}

/// Whether a raw cell that begins with a quote also has its closing quote.
pub fn is_closed(cell: &[u8]) -> bool {
    let Some(mut rest) = cell.strip_prefix(b"\"") else {
        return false;
    };
    while let Some(quote) = memchr::memchr(b'"', rest) {
        match rest.get(quote + 1) {
            Some(b'"') => rest = rest.get(quote + 2..).unwrap_or_default(),
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests;
