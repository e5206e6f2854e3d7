//! A row as it is sorted: the head of its key as numbers, and the batch that it is in, with the tails of longer keys.
//!
//! Laws
//! - Entries compare as their whole keys do, then as the rows came.

use super::super::groups::grow_to;
use super::super::keys::KeyBlock;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Kept, Reservation};
use std::cmp::Ordering;

/// Bytes of a key in its entry: those of two numbers, and a little. Longer keys are read where they are.
pub(super) const HEAD_BYTES: usize = 24;

/// A row: the first bytes of its key as numbers, its batch and its number in it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) head: [u64; HEAD_BYTES / 8],
    pub(super) piece: u32,
    pub(super) row: u32,
}

impl Entry {
    /// As many of the key's first bytes as `out` has room for.
    #[inline]
    pub(super) fn write_head(&self, out: &mut [u8]) {
        let (whole, rest) = out.as_chunks_mut::<8>();
        // Byte by byte where there are less than eight: a copy of any length would be a call.
        if let Some(&last) = self.head.get(whole.len()) {
            let bytes = (0..rest.len()).map(|at| (last >> (56 - 8 * at)) as u8);
            rest.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        }
        for (bytes, number) in whole.iter_mut().zip(self.head) {
            *bytes = number.to_be_bytes();
        }
    }
}

/// A batch that is kept, and what its rows' keys have behind their heads.
pub(super) struct Piece {
    pub(super) rows: Kept,
    pub(super) chunk: u64,
    /// The number of the first row in the chunk.
    pub(super) first: u32,
    pub(super) tails: Tails,
}

/// What the keys of a batch have behind their heads.
#[derive(Default)]
pub(super) struct Tails {
    bytes: Vec<u8>,
    /// A zero, then where each row's tail ends; empty if all keys are short.
    ends: Vec<u32>,
}

impl Tails {
    pub(super) fn new(keys: &KeyBlock<'_>, short: bool, room: &mut Reservation) -> Result<Tails> {
        let mut tails = Tails::default();
        if short {
            return Ok(tails);
        }
        grow_to(&mut tails.ends, keys.len() + 1, room)?;
        let bytes = (0..keys.len()).map(|row| tail(keys.get(row)).len()).sum();
        grow_to(&mut tails.bytes, bytes, room)?;
        tails.ends.push(0);
        for row in 0..keys.len() {
            tails.bytes.extend_from_slice(tail(keys.get(row)));
            // A block of keys has at most 32 bits of bytes.
            tails.ends.push(tails.bytes.len() as u32);
        }
        Ok(tails)
    }

    #[inline]
    pub(super) fn get(&self, row: u32) -> &[u8] {
        match self.ends.get(row as usize..row as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// What is not in the entry of a key.
fn tail(key: &[u8]) -> &[u8] {
    key.get(HEAD_BYTES..).unwrap_or_default()
}

/// The first bytes of a key as numbers, zeros behind it.
#[inline]
pub(super) fn head(key: &[u8]) -> [u64; HEAD_BYTES / 8] {
    let mut head = [0; HEAD_BYTES / 8];
    let (whole, rest) = key[..key.len().min(HEAD_BYTES)].as_chunks::<8>();
    for (number, bytes) in head.iter_mut().zip(whole) {
        *number = u64::from_be_bytes(*bytes);
    }
    if let Some(last) = head.get_mut(whole.len()) {
        let rest = rest.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let bits = 8 * (key.len().min(HEAD_BYTES) % 8);
        *last = if bits == 0 { 0 } else { rest << (64 - bits) };
    }
    head
}

/// By (key, chunk, batch, row). Batches of one chunk are in one lane, so their numbers compare.
#[inline]
pub(super) fn compare(a: &Entry, in_a: &Piece, b: &Entry, in_b: &Piece) -> Ordering {
    a.head
        .cmp(&b.head)
        .then_with(|| in_a.tails.get(a.row).cmp(in_b.tails.get(b.row)))
        .then_with(|| (in_a.chunk, a.piece, a.row).cmp(&(in_b.chunk, b.piece, b.row)))
}
