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

/// Lanes remember nothing where that would take more than one part in so many of all memory: others need it more.
const BUDGETS: usize = 64;

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
        let bytes = SLOTS * (columns * size_of::<u128>() + size_of::<u32>());
        if !(1..=COLUMNS).contains(&columns) || bytes > budget.limit() / BUDGETS {
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
        let Known {
            bits,
            groups,
            reservation,
            ..
        } = &mut known;
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
        let folded = (bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ ((bits >> 64) as u64).wrapping_mul(0xa076_1d64_78bd_642f);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::testing::{BOOL, INT, STRING, schema, text};
    use crate::stages::values;
    use standpipe_sdk::{Schema, Type, Value};

    /// Rows of four columns; texts of 13 bytes and more do not stand in their views.
    fn rows(from: i64, to: i64) -> Vec<Vec<Value>> {
        let row = |n: i64| {
            let name = match n % 4 {
                0 => text(&format!("k{}", n % 8)),
                1 => text("a text of more than twelve bytes"),
                2 => text(""),
                _ => Value::Null,
            };
            let half = if n % 5 == 0 {
                Value::Null
            } else {
                Value::Float(n as f64 / 2.0)
            };
            vec![Value::Int(n % 7), name, half, Value::Bool(n % 3 == 0)]
        };
        (from..to).map(row).collect()
    }

    fn columns() -> Schema {
        schema(&[("a", INT), ("b", STRING), ("c", Type::Float), ("d", BOOL)])
    }

    /// The groups that are found, by row; `None` for rows whose key is unknown.
    fn found(known: &Known, bits: KeyBits<'_>, arena: &Arena) -> Vec<Option<u32>> {
        let mut groups = vec![0; bits.rows];
        let unknown = known.groups(bits, &mut groups, arena).unwrap();
        let known = |(row, group)| (!unknown.contains(&(row as u32))).then_some(group);
        groups.into_iter().enumerate().map(known).collect()
    }

    #[test]
    fn what_is_remembered_is_found_and_nothing_else_is() {
        let budget = Budget::new(16 << 20);
        let arena = Arena::new(1 << 22);
        let batch = values::batch(&columns(), &rows(0, 300), &arena).unwrap();
        let more = values::batch(&columns(), &rows(250, 400), &arena).unwrap();
        for width in 1..=COLUMNS {
            for first in 0..=COLUMNS - width {
                let keys = Keys::grouping(first..first + width);
                // A group is a key, here: the number of the first row that has it.
                let encoded = |batch: &Batch<'_>| -> Vec<Vec<u8>> {
                    let block = keys.block(batch, &arena).unwrap();
                    (0..block.len()).map(|row| block.get(row).to_vec()).collect()
                };
                let all = encoded(&batch);
                let group = |key: &Vec<u8>| all.iter().position(|k| k == key).map(|at| at as u32);
                let mut known = Known::new(width, &budget).unwrap();
                let bits = KeyBits::new(&keys, &batch, &arena).unwrap().unwrap();
                assert!(
                    found(&known, bits, &arena).iter().all(Option::is_none),
                    "it knows nothing yet"
                );
                known.remember(bits, all.iter().map(|key| group(key).unwrap()).enumerate());

                let elsewhere = |row: usize| batch_has_long_text(&keys, row);
                let want: Vec<_> = (0..300)
                    .map(|row| group(&all[row]).filter(|_| !elsewhere(row)))
                    .collect();
                assert_eq!(found(&known, bits, &arena), want, "{width} columns from {first}");
                let bits = KeyBits::new(&keys, &more, &arena).unwrap().unwrap();
                let later = encoded(&more);
                let later = later.iter().enumerate();
                let want: Vec<_> = later
                    .map(|(row, key)| group(key).filter(|_| !elsewhere(250 + row)))
                    .collect();
                assert_eq!(
                    found(&known, bits, &arena),
                    want,
                    "{width} columns from {first}, later rows"
                );
                known.forget();
                assert!(found(&known, bits, &arena).iter().all(Option::is_none), "it forgot");
            }
        }
    }

    fn batch_has_long_text(keys: &Keys, row: usize) -> bool {
        row % 4 == 1 && keys.columns().any(|column| column == 1)
    }

    #[test]
    fn only_so_many_are_remembered_and_others_are_still_told_apart() {
        let (budget, arena) = (Budget::new(16 << 20), Arena::new(1 << 20));
        let many: Vec<i64> = (0..5 * SLOTS as i64).collect();
        let columns = [Column::int(&many, None)];
        let batch = Batch::new(&columns, None, many.len());
        let bits = KeyBits::new(&Keys::grouping([0]), &batch, &arena).unwrap().unwrap();
        let mut known = Known::new(1, &budget).unwrap();
        known.remember(bits, (0..many.len()).map(|row| (row, row as u32)));
        let found = found(&known, bits, &arena);
        assert_eq!(found.iter().flatten().count(), KEYS);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(row, group)| group.is_none_or(|g| g as usize == row))
        );
    }

    #[test]
    fn it_is_given_up_where_it_is_no_use_or_has_no_room() {
        let budget = Budget::new(16 << 20);
        assert!(Known::new(1, &Budget::new(1 << 20)).is_none());
        assert!(Known::new(0, &budget).is_none());
        assert!(Known::new(COLUMNS + 1, &budget).is_none());
        let mut known = Known::new(1, &budget).unwrap();
        assert!((0..10 * STRIKES).all(|_| !known.strike()), "there was nothing to know");
        known.len = 1;
        assert_eq!((0..=STRIKES).map(|_| known.strike()).filter(|&up| up).count(), 1);
        assert!(Known::pays(80, 10) && !Known::pays(80, 11));
    }
}
