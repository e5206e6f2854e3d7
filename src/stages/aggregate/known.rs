//! Keys that a lane has seen, by the bits of their columns: the group of a row that has one is found without encoding its key.
//!
//! It pays where a few keys are in nearly all rows; where they are not, it is switched off.
//!
//! Laws
//! - It only remembers what the lane's table said: equal bits are the same key. The same key may have other bits (-0.0, a NaN), and is
//!   then found the long way.
//! - Who empties the table calls [`Known::forget`].

use crate::stages::keys::Keys;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Budget, Column, Data, Reservation};
use std::sync::Arc;

/// Keys have that many columns at most.
const COLUMNS: usize = 4;
/// Places for keys; a power of two.
const SLOTS: usize = 1024;
/// Keys that are remembered at most: a search for another soon meets a free place.
const KEYS: usize = SLOTS / 2;
/// One row in so many may be unknown.
const ROWS_PER_UNKNOWN: usize = 8;
/// So often may more rows be unknown before it is switched off.
const STRIKES: u32 = 4;

/// The bits of what no row has: a free place.
const FREE: u128 = u128::MAX;
/// The bits of null.
const NULL: u128 = u128::MAX - 1;
/// The bits of what its bits do not tell: text that stands elsewhere.
const ELSEWHERE: u128 = u128::MAX - 2;

pub(super) struct Known {
    columns: usize,
    /// The bits of a key's columns, one key behind the other.
    bits: Vec<u128>,
    groups: Vec<u32>,
    len: usize,
    strikes: u32,
    reservation: Reservation,
}

/// The bits of the key columns of a batch.
#[derive(Clone, Copy)]
pub(super) struct KeyBits<'a> {
    columns: [&'a [u128]; COLUMNS],
    rows: usize,
}

impl Known {
    /// `None` if keys of that many columns are not remembered, or there is no memory to do so.
    pub(super) fn new(columns: usize, budget: &Arc<Budget>) -> Option<Known> {
        if !(1..=COLUMNS).contains(&columns) {
            return None;
        }
        let mut known = Known {
            columns,
            bits: vec![],
            groups: vec![],
            len: 0,
            strikes: 0,
            reservation: budget.reserve(),
        };
        let Known { bits, groups, reservation, .. } = &mut known;
        reservation.room_to(bits, SLOTS * columns).ok()?;
        reservation.room_to(groups, SLOTS).ok()?;
        bits.resize(SLOTS * columns, FREE);
        groups.resize(SLOTS, 0);
        Some(known)
    }

    pub(super) fn forget(&mut self) {
        if self.len > 0 {
            self.bits.fill(FREE);
            self.len = 0;
        }
    }

    /// Says that it was no use; whether it should be given up.
    pub(super) fn strike(&mut self) -> bool {
        self.strikes += u32::from(self.len > 0);
        self.strikes > STRIKES
    }

    /// Whether it is worth while to look further at rows of which that many are unknown.
    pub(super) fn pays(rows: usize, unknown: usize) -> bool {
        unknown <= rows / ROWS_PER_UNKNOWN
    }

    /// Writes the group of every row whose key is remembered; the rows of which it is not, in order.
    pub(super) fn groups<'a>(&self, keys: KeyBits<'_>, groups: &mut [u32], arena: &'a Arena) -> Result<&'a [u32]> {
        let unknown = arena.fill(keys.rows, 0u32)?;
        let found = match self.columns {
            1 => self.look::<1>(keys, groups, unknown),
            2 => self.look::<2>(keys, groups, unknown),
            3 => self.look::<3>(keys, groups, unknown),
            _ => self.look::<COLUMNS>(keys, groups, unknown),
        };
        Ok(&unknown[..found])
    }

    /// The same for keys of `N` columns; how many are unknown.
    fn look<const N: usize>(&self, keys: KeyBits<'_>, groups: &mut [u32], unknown: &mut [u32]) -> usize {
        let slots = self.bits.as_chunks::<N>().0;
        let columns: [&[u128]; N] = std::array::from_fn(|i| &keys.columns[i][..keys.rows]);
        let mut missed = 0;
        // A first look at one place, without a branch; what is not there is searched for.
        for (row, group) in groups[..keys.rows].iter_mut().enumerate() {
            let key: [u128; N] = std::array::from_fn(|i| columns[i][row]);
            let at = place(&key);
            *group = self.groups[at];
            unknown[missed] = row as u32;
            missed += usize::from(slots[at] != key);
        }
        let mut left = 0;
        for i in 0..missed {
            let row = unknown[i] as usize;
            let key: [u128; N] = std::array::from_fn(|i| columns[i][row]);
            let at = search(slots, &key);
            if slots[at] == key {
                groups[row] = self.groups[at];
            } else {
                unknown[left] = row as u32;
                left += 1;
            }
        }
        left
    }

    /// Remembers the groups of these rows' keys, as many as there is room for.
    pub(super) fn remember(&mut self, keys: KeyBits<'_>, rows: impl Iterator<Item = (usize, u32)>) {
        match self.columns {
            1 => self.learn::<1>(keys, rows),
            2 => self.learn::<2>(keys, rows),
            3 => self.learn::<3>(keys, rows),
            _ => self.learn::<COLUMNS>(keys, rows),
        }
    }

    fn learn<const N: usize>(&mut self, keys: KeyBits<'_>, rows: impl Iterator<Item = (usize, u32)>) {
        let slots = self.bits.as_chunks_mut::<N>().0;
        for (row, group) in rows {
            let key: [u128; N] = std::array::from_fn(|i| keys.columns[i][row]);
            if self.len == KEYS {
                return;
            }
            let at = search(slots, &key);
            if slots[at] != key && !key.contains(&ELSEWHERE) {
                slots[at] = key;
                self.groups[at] = group;
                self.len += 1;
            }
        }
    }
}

/// Where a key is looked for first.
#[inline(always)]
fn place<const N: usize>(key: &[u128; N]) -> usize {
    let mut hash = 0u64;
    for &bits in key {
        let folded = (bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((bits >> 64) as u64).wrapping_mul(0xa076_1d64_78bd_642f);
        hash = hash.rotate_left(29).wrapping_add(folded);
    }
    (hash.wrapping_mul(0xe703_7ed1_a0b4_28db) >> (64 - SLOTS.trailing_zeros())) as usize
}

/// Where a key is, or the free place where it would be: one always is, since half are.
fn search<const N: usize>(slots: &[[u128; N]], key: &[u128; N]) -> usize {
    let mut at = place(key);
    while slots[at] != *key && slots[at] != [FREE; N] {
        at = (at + 1) % SLOTS;
    }
    at
}

impl<'a> KeyBits<'a> {
    /// Of the key columns of `batch`; `None` if one is of a kind whose bits do not tell its values.
    pub(super) fn new(keys: &Keys, batch: &Batch<'_>, arena: &'a Arena) -> Result<Option<KeyBits<'a>>> {
        let mut made = KeyBits {
            columns: [&[]; COLUMNS],
            rows: batch.rows(),
        };
        for (bits, column) in made.columns.iter_mut().zip(keys.columns()) {
            match bits_of(&batch.column(column), arena)? {
                Some(of) => *bits = of,
                None => return Ok(None),
            }
        }
        Ok(Some(made))
    }
}

fn bits_of<'a>(column: &Column<'_>, arena: &'a Arena) -> Result<Option<&'a [u128]>> {
    fn made<'a>(column: &Column<'_>, arena: &'a Arena, of: impl Fn(usize) -> u128) -> Result<Option<&'a [u128]>> {
        let rows = column.len();
        Ok(Some(match column.valid() {
            None => &*arena.collect(rows, of)?,
            Some(valid) => arena.collect(rows, |row| if valid.get(row) { of(row) } else { NULL })?,
        }))
    }
    match column.data() {
        Data::Bool(v) => made(column, arena, |row| u128::from(v.get(row))),
        Data::Date(v) => made(column, arena, |row| u128::from(v[row] as u32)),
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => made(column, arena, |row| u128::from(v[row] as u64)),
        Data::Float(v) => made(column, arena, |row| u128::from(v[row].to_bits())),
        Data::String(text) | Data::Bytes(text) | Data::Json(text) | Data::Verbatim(text) => {
            let views = text.views();
            made(column, arena, |row| {
                let view = views[row];
                if view.is_inline() { view.bits() } else { ELSEWHERE }
            })
        }
        Data::Null | Data::Absent | Data::Decimal(_) | Data::List(_) | Data::Record(_) | Data::Cells(_) => Ok(None),
    }
}
