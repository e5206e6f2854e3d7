//! Keys → rows: a hash table that is built once and then only read.
//!
//! A row is 12 bytes: its code (the key itself, or a hash of it) and its id. Rows of one bucket stand together, sorted by code, then
//! in order; buckets are about as many as rows, 4 bytes each. Nothing is chained: a look-up reads one pair of bounds and a few
//! neighbouring codes.
//!
//! Laws
//! - Rows with one code stand in the order in which they were given.
//! - A long bucket (a hot key) is searched by halves, never from one end.

use super::super::groups::grow_to;
use standpipe_sdk::Reservation;
use standpipe_sdk::error::{Error, Result};
use std::ops::Range;

/// Buckets up to this length are read from one end.
const SHORT: usize = 8;

/// The table.
#[derive(Default)]
pub(super) struct Table {
    starts: Vec<u32>,
    codes: Vec<u64>,
    ids: Vec<u32>,
    shift: u32,
}

/// Spreads a code over 64 bits, of which the high ones choose a bucket.
#[inline]
fn mix(code: u64) -> u64 {
    let mut x = code ^ (code >> 32);
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x.wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

impl Table {
    /// The table of `rows` rows; `each` gives code and id of every one in order, the same ones twice.
    ///
    /// # Errors
    /// `Memory` if it does not fit.
    pub(super) fn build(
        rows: usize,
        reservation: &mut Reservation,
        each: impl Fn(&mut dyn FnMut(u64, u32)),
    ) -> Result<Table> {
        let too_many = Error::Memory {
            wanted: rows,
            used: 0,
            limit: u32::MAX as usize,
        };
        if u32::try_from(rows).is_err() {
            return Err(too_many);
        }
        let bits = rows.max(2).next_power_of_two().trailing_zeros();
        let buckets = 1usize << bits;
        let mut table = Table {
            shift: 64 - bits,
            ..Table::default()
        };
        grow_to(&mut table.starts, buckets + 1, reservation)?;
        grow_to(&mut table.codes, rows, reservation)?;
        grow_to(&mut table.ids, rows, reservation)?;
        table.starts.resize(buckets + 1, 0);
        table.codes.resize(rows, 0);
        table.ids.resize(rows, 0);

        // Count, sum up, place: a bucket's start moves to its end meanwhile, which is the next one's start.
        let Table {
            starts,
            codes,
            ids,
            shift,
        } = &mut table;
        let shift = *shift;
        each(&mut |code, _| starts[(mix(code) >> shift) as usize + 1] += 1);
        let mut sum = 0;
        for start in starts.iter_mut() {
            sum += *start;
            *start = sum;
        }
        each(&mut |code, id| {
            let next = &mut starts[(mix(code) >> shift) as usize];
            codes[*next as usize] = code;
            ids[*next as usize] = id;
            *next += 1;
        });
        starts.copy_within(0..buckets, 1);
        starts[0] = 0;
        let mut pairs: Vec<(u64, u32)> = vec![];
        let mut extra = 0;
        for bucket in 0..buckets {
            let range = starts[bucket] as usize..starts[bucket + 1] as usize;
            let (codes, ids) = (&mut codes[range.clone()], &mut ids[range]);
            if codes.is_sorted() {
                continue;
            }
            if codes.len() <= SHORT {
                insertion(codes, ids);
                continue;
            }
            // Only keys that are hot and meet another one in their bucket come here.
            let before = pairs.capacity();
            pairs.clear();
            grow_to(&mut pairs, codes.len().max(before), reservation)?;
            extra = pairs.capacity() * size_of::<(u64, u32)>();
            pairs.extend(codes.iter().copied().zip(ids.iter().copied()));
            pairs.sort_by_key(|pair| pair.0);
            for (at, &(code, id)) in pairs.iter().enumerate() {
                codes[at] = code;
                ids[at] = id;
            }
        }
        drop(pairs);
        reservation.shrink(extra);
        Ok(table)
    }

    /// A table of which nobody asks where a code is.
    pub(super) fn of_ids(ids: Vec<u32>) -> Table {
        Table {
            ids,
            ..Table::default()
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.codes.len()
    }

    /// Positions of the rows with this code.
    #[inline]
    pub(super) fn find(&self, code: u64) -> Range<usize> {
        let bucket = (mix(code) >> self.shift) as usize;
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let codes = &self.codes[start..end];
        if codes.len() > SHORT {
            let from = start + codes.partition_point(|&c| c < code);
            return from..start + codes.partition_point(|&c| c <= code);
        }
        let mut from = start;
        while from < end && self.codes[from] < code {
            from += 1;
        }
        let mut to = from;
        while to < end && self.codes[to] == code {
            to += 1;
        }
        from..to
    }

    /// The row at a position.
    #[inline]
    pub(super) fn id(&self, position: usize) -> u32 {
        self.ids[position]
    }

    /// The rows at some positions.
    pub(super) fn ids(&self, positions: Range<usize>) -> &[u32] {
        &self.ids[positions]
    }
}

/// Sorts a short bucket; equal codes keep their order.
fn insertion(codes: &mut [u64], ids: &mut [u32]) {
    for at in 1..codes.len() {
        let mut to = at;
        while to > 0 && codes[to - 1] > codes[to] {
            codes.swap(to - 1, to);
            ids.swap(to - 1, to);
            to -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::Budget;

    #[test]
    fn every_row_is_found_in_order_hot_or_not() {
        let hot = |n: u64| if n.is_multiple_of(2) { 7 } else { n };
        for codes in [
            vec![],
            vec![5],
            (0..1000).collect::<Vec<u64>>(),
            (0..1000).map(|n| n << 40).collect(),
            (0..1000).map(hot).collect(),
            vec![3; 500],
            // One bucket of many codes.
            (0..200).map(|n| n % 3).collect(),
        ] {
            let budget = Budget::new(1 << 20);
            let mut reservation = budget.reserve();
            let each = |f: &mut dyn FnMut(u64, u32)| codes.iter().zip(0..).for_each(|(&code, id)| f(code, id));
            let table = Table::build(codes.len(), &mut reservation, each).unwrap();
            assert_eq!(table.rows(), codes.len());
            for code in codes.iter().copied().chain([u64::MAX, 1 << 50]) {
                let want: Vec<u32> = (0..)
                    .zip(&codes)
                    .filter(|(_, c)| **c == code)
                    .map(|(id, _)| id)
                    .collect();
                assert_eq!(table.ids(table.find(code)), want);
            }
        }
    }
}
