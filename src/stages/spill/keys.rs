//! Keys and order of a frame's rows as bytes: what the merge reads.
//!
//! Laws
//! - Encoding never grows its buffer: [`keys_bound`] is what it takes at most.
//! - Damaged bytes are an error, never a panic: lengths are checked before they are used.

use super::frame::{self, Bad, Reading};
use crate::stages::keys::KeyBlock;
use standpipe_sdk::error::Error;

/// Every width the same: its number. Else this, and lengths.
const EACH: u32 = u32::MAX;

/// What keys of so many bytes and their order take encoded, at most.
pub(super) fn keys_bound(bytes: usize, rows: usize) -> usize {
    8 + bytes + 3 * (9 + 8 * rows)
}

/// Appends the keys and the order of rows `from..from + len`.
pub(super) fn encode_keys(
    keys: &KeyBlock<'_>,
    chunks: &[u64],
    rows: &[u32],
    from: usize,
    len: usize,
    out: &mut Vec<u8>,
) {
    let width = keys.get(from).len();
    let every = (from..from + len).all(|row| keys.get(row).len() == width);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&(if every { width as u32 } else { EACH }).to_le_bytes());
    if !every {
        frame::encode_numbers(len, |i| keys.get(from + i).len() as u64, out);
    }
    (from..from + len).for_each(|row| out.extend_from_slice(keys.get(row)));
    frame::encode_numbers(len, |i| chunks[from + i], out);
    frame::encode_numbers(len, |i| u64::from(rows[from + i]), out);
}

/// The keys and the order of a frame's rows.
pub(super) struct Keys {
    contents: Vec<u8>,
    /// Where the first key starts.
    start: usize,
    /// Of every key; unless `ends` says.
    width: usize,
    ends: Vec<u32>,
    pub(super) chunks: Vec<u64>,
    pub(super) rows: Vec<u32>,
}

impl Keys {
    pub(super) fn decode(contents: Vec<u8>, count: u32) -> std::result::Result<Keys, Bad> {
        let len = count as usize;
        let mut reading = Reading { bytes: &contents };
        if reading.u32()? != count {
            return Err(Bad::Damaged);
        }
        let width = reading.u32()?;
        let mut ends: Vec<u32> = vec![];
        let refused = |_| {
            Bad::Refused(Error::Memory {
                wanted: 8 * len,
                used: 0,
                limit: usize::MAX,
            })
        };
        let bytes = if width == EACH {
            ends.try_reserve_exact(len).map_err(refused)?;
            reading.numbers(len)?.extend(&mut ends, |n| n as u32);
            let mut sum = 0u64;
            for end in &mut ends {
                sum += u64::from(*end);
                *end = u32::try_from(sum).map_err(|_| Bad::Damaged)?;
            }
            sum as usize
        } else {
            (width as usize).checked_mul(len).ok_or(Bad::Damaged)?
        };
        let start = contents.len() - reading.bytes.len();
        reading.take(bytes)?;
        let (mut chunks, mut rows) = (vec![], vec![]);
        chunks.try_reserve_exact(len).map_err(refused)?;
        rows.try_reserve_exact(len).map_err(refused)?;
        reading.numbers(len)?.extend(&mut chunks, |n| n);
        reading.numbers(len)?.extend(&mut rows, |n| n as u32);
        Ok(Keys {
            start,
            width: width as usize,
            ends,
            chunks,
            rows,
            contents,
        })
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> &[u8] {
        let (from, to) = match self.ends.get(row) {
            None => (row * self.width, (row + 1) * self.width),
            Some(&end) => (if row == 0 { 0 } else { self.ends[row - 1] as usize }, end as usize),
        };
        &self.contents[self.start + from..self.start + to]
    }
}
