//! `row_number`, `rank`, `dense_rank`: what hangs on the rows before a row only.
//!
//! Laws
//! - Values that are ranked come in one order, the same for all groups: up or down, nulls at one end, NaN behind the numbers. The
//!   first two that differ say which; a row that breaks it is bad, and is not counted.

use super::super::aggregate::shown_key;
use super::super::groups::grow;
use super::super::keys::{KeyBlock, Keys};
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Budget, Column, Field, Reservation};
use std::cmp::Ordering;
use std::sync::Arc;

/// A number that is asked for.
#[derive(Clone)]
pub(super) enum Number {
    Row,
    Rank(Ranked),
}

/// What a rank is of.
#[derive(Clone)]
pub(super) struct Ranked {
    pub(super) column: usize,
    pub(super) field: Field,
    /// Without gaps.
    pub(super) dense: bool,
}

/// A row that breaks the order.
#[derive(Clone, Debug)]
pub(super) struct Unordered {
    pub(super) row: usize,
    /// Which number it breaks.
    pub(super) number: usize,
    pub(super) text: String,
}

/// Where a rank of a group stands.
#[derive(Clone, Default)]
struct Rank {
    first: i64,
    dense: i64,
    key: Vec<u8>,
}

/// How the values of a rank come.
#[derive(Clone, Copy, Default)]
struct Direction {
    values: Option<Ordering>,
    nulls: Option<Ordering>,
}

pub(super) struct Numbers {
    asked: Vec<Number>,
    ranks: usize,
    directions: Vec<Direction>,
    /// Rows of each group.
    rows: Vec<i64>,
    /// For each group its ranks.
    states: Vec<Rank>,
    /// For each number, those of the rows that were taken.
    given: Vec<Vec<i64>>,
    /// Rows that were taken.
    pub(super) kept: Vec<u32>,
    pub(super) bad: Vec<Unordered>,
    reservation: Reservation,
}

/// The first byte of a key.
const NULL_LAST: u8 = 3;

impl Numbers {
    pub(super) fn new(asked: Vec<Number>, budget: &Arc<Budget>) -> Numbers {
        let ranks = asked.iter().filter(|n| matches!(n, Number::Rank(_))).count();
        Numbers {
            given: vec![vec![]; asked.len()],
            directions: vec![Direction::default(); ranks],
            ranks,
            asked,
            rows: vec![],
            states: vec![],
            kept: vec![],
            bad: vec![],
            reservation: budget.reserve(),
        }
    }

    /// The keys of what is ranked: to be made before [`Numbers::take`], for that may be refused.
    pub(super) fn keys<'a>(&self, batch: &Batch<'_>, arena: &'a Arena) -> Result<Vec<KeyBlock<'a>>> {
        let ranked = self.asked.iter().filter_map(|number| match number {
            Number::Rank(ranked) => Some(ranked.column),
            Number::Row => None,
        });
        ranked
            .map(|column| Keys::grouping([column]).block(batch, arena))
            .collect()
    }

    /// Numbers the rows of a batch of `rows` rows, each in its group.
    pub(super) fn take(&mut self, rows: usize, ids: Option<&[u32]>, keys: &[KeyBlock<'_>]) -> Result<()> {
        self.bad.clear();
        self.kept.clear();
        grow(&mut self.kept, rows, &mut self.reservation)?;
        for given in &mut self.given {
            given.clear();
            grow(given, rows, &mut self.reservation)?;
        }
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        let more = groups.saturating_sub(self.rows.len());
        grow(&mut self.rows, more, &mut self.reservation)?;
        grow(&mut self.states, more * self.ranks, &mut self.reservation)?;
        self.rows.resize(self.rows.len() + more, 0);
        self.states.resize_with(self.rows.len() * self.ranks, Rank::default);
        for row in 0..rows {
            let group = ids.map_or(0, |ids| ids[row] as usize);
            if let Some(bad) = self.unordered(row, group, keys) {
                grow(&mut self.bad, 1, &mut self.reservation)?;
                self.bad.push(bad);
                continue;
            }
            self.count(row, group, keys)?;
            self.kept.push(row as u32);
        }
        Ok(())
    }

    /// Why a row cannot be taken, if so.
    fn unordered(&self, row: usize, group: usize, keys: &[KeyBlock<'_>]) -> Option<Unordered> {
        if self.rows[group] == 0 {
            return None;
        }
        for (rank, key) in keys.iter().enumerate() {
            let before = self.states[group * self.ranks + rank].key.as_slice();
            let key = key.get(row);
            let (values, direction) = compared(before, key);
            let known = match values {
                Compared::Same => continue,
                Compared::Nulls => self.directions[rank].nulls,
                Compared::Values => self.directions[rank].values,
                Compared::NanBehind => Some(Ordering::Less),
            };
            if known.is_none_or(|known| known == direction) {
                continue;
            }
            let ranks = self.asked.iter().enumerate().filter_map(|(at, number)| match number {
                Number::Rank(ranked) => Some((at, ranked)),
                Number::Row => None,
            });
            let (number, ranked) = ranks.into_iter().nth(rank)?;
            let name = if ranked.dense { "dense_rank" } else { "rank" };
            let fields = std::slice::from_ref(&ranked.field);
            return Some(Unordered {
                row,
                number,
                text: format!(
                    "`{name}` needs rows in order: {} comes after {}",
                    shown_key(key, fields),
                    shown_key(before, fields)
                ),
            });
        }
        None
    }

    fn count(&mut self, row: usize, group: usize, keys: &[KeyBlock<'_>]) -> Result<()> {
        let rows = self.rows[group] + 1;
        let states = &mut self.states[group * self.ranks..][..self.ranks];
        for ((state, key), direction) in states.iter_mut().zip(keys).zip(&mut self.directions) {
            let key = key.get(row);
            if rows > 1 && state.key == key {
                continue;
            }
            if rows > 1 {
                match compared(&state.key, key) {
                    (Compared::Nulls, order) => direction.nulls = Some(order),
                    (Compared::Values, order) => direction.values = Some(order),
                    _ => {}
                }
            }
            state.first = rows;
            state.dense += 1;
            state.key.clear();
            grow(&mut state.key, key.len(), &mut self.reservation)?;
            state.key.extend_from_slice(key);
        }
        self.rows[group] = rows;
        let mut ranks = states.iter();
        for (given, number) in self.given.iter_mut().zip(&self.asked) {
            given.push(match number {
                Number::Row => rows,
                Number::Rank(ranked) => ranks
                    .next()
                    .map_or(0, |rank| if ranked.dense { rank.dense } else { rank.first }),
            });
        }
        Ok(())
    }

    /// Number `number` of rows `from..from + rows` of those that were taken.
    pub(super) fn column<'a>(&self, number: usize, from: usize, rows: usize, arena: &'a Arena) -> Result<Column<'a>> {
        let given = &self.given[number][from..from + rows];
        Ok(Column::int(arena.copy(given)?, None))
    }

    /// Groups below `closed` are gone, and the others move down.
    pub(super) fn forget(&mut self, closed: u32) {
        let closed = (closed as usize).min(self.rows.len());
        self.rows.drain(..closed);
        for state in self.states.drain(..closed * self.ranks) {
            self.reservation.shrink(state.key.capacity());
        }
    }
}

enum Compared {
    Same,
    Nulls,
    Values,
    /// A number and NaN.
    NanBehind,
}

/// In what two keys differ, and how.
fn compared(a: &[u8], b: &[u8]) -> (Compared, Ordering) {
    let order = a.cmp(b);
    let tag = |key: &[u8]| key.first().copied().unwrap_or(NULL_LAST);
    let what = match (tag(a), tag(b)) {
        _ if order.is_eq() => Compared::Same,
        (x, y) if x == y => Compared::Values,
        (NULL_LAST, _) | (_, NULL_LAST) => Compared::Nulls,
        _ => Compared::NanBehind,
    };
    (what, order)
}
