//! `asof` where the right side does not fit: for each left row the last right row of its key that is not after it.
//!
//! How: right rows and the keys of left rows, both sorted by key, are walked through side by side. The row that is found is copied, marked with the
//! left row's order, by which copies are sorted ([`super::again`]).
//!
//! Laws
//! - Memory does not grow with a key's rows, on either side.

use super::super::picked::{self, gather_of};
use super::super::spool::ints;
use super::Plan;
use super::cursor::{Cursor, Part};
use super::meet::Making;
use super::sides::*;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Batch, Column, Fill};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Copies that are made together.
const COPIES: usize = 4 << 10;
/// Parts that copies are made of together.
const COPIED_PARTS: usize = 2;
/// Parts of the right side that are held at the same time: of the copies, the last row's, and the one at hand.
pub(super) const RIGHT_PARTS: usize = COPIED_PARTS + 3;

pub(super) struct Nearest<'j> {
    plan: &'j Plan,
    left: Cursor,
    right: Cursor,
    matches: Box<dyn Fill>,
    making: Making,
    /// The key at hand, if there is one.
    key: Vec<u8>,
    has_key: bool,
    /// The last right row of the key that is not after the left one.
    last: Option<(Arc<Part>, usize)>,
    /// Copies that are to be made, and the orders of their left rows.
    picks: Vec<Pick>,
    orders: Vec<(i64, i64)>,
    pieces: Vec<Arc<Part>>,
    batches: u64,
    cancelled: &'j AtomicBool,
}

impl<'j> Nearest<'j> {
    pub(super) fn new(
        plan: &'j Plan,
        (left, right): (Cursor, Cursor),
        matches: Box<dyn Fill>,
        making: Making,
        cancelled: &'j AtomicBool,
    ) -> Self {
        Nearest {
            plan,
            left,
            right,
            matches,
            making,
            key: vec![],
            has_key: false,
            last: None,
            picks: vec![],
            orders: vec![],
            pieces: vec![],
            batches: 0,
            cancelled,
        }
    }

    /// Walks through both sides to their ends.
    ///
    /// # Errors
    /// `Memory` if there is no room for one row of both sides; what the disk answers.
    pub(super) fn run(mut self) -> Result<()> {
        let within = self.plan.asof.and_then(|asof| asof.within);
        while let Some((part, at)) = self.left.next()? {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            let rows = part.batch();
            let times = ints(&rows, K_TIME)?;
            let (numbers, order) = (ints(&rows, K_NUMBER)?, ints(&rows, K_ROW)?);
            for row in at..rows.rows() {
                let Some(key) = key(&rows, K_KEY, row) else { continue };
                if self.before(key, times[row], within)?
                    && let Some((held, at)) = &self.last
                {
                    let piece = piece_of(&mut self.pieces, held);
                    self.picks.push((piece, *at as u32));
                    self.orders.push((numbers[row], order[row]));
                }
                if self.picks.len() >= COPIES || self.pieces.len() > COPIED_PARTS {
                    self.copy()?;
                }
            }
            self.left.go_to(rows.rows());
        }
        self.copy()?;
        self.matches.done()
    }

    /// Goes on to the last right row of `key` that is not after `time`; whether there is one that is near enough.
    fn before(&mut self, key: &[u8], time: i64, within: Option<i128>) -> Result<bool> {
        if !self.has_key || self.key != key {
            self.last = None;
            self.key.clear();
            self.key.try_reserve(key.len()).map_err(|_| Error::Memory {
                wanted: key.len(),
                used: 0,
                limit: usize::MAX,
            })?;
            self.key.extend_from_slice(key);
            self.has_key = true;
            self.skip_to(key)?;
        }
        let width = self.plan.right_width;
        while let Some((part, at)) = self.right.next()? {
            let rows = part.batch();
            let times = ints(&rows, width + R_TIME)?;
            let end = end_of_run(&rows, width + R_KEY, at, key);
            let behind = at + times[at..end].partition_point(|&t| t <= time);
            if behind == at {
                break;
            }
            self.last = Some((part.clone(), behind - 1));
            self.right.go_to(behind);
            if behind < part.rows() {
                break;
            }
        }
        let Some((part, at)) = &self.last else {
            return Ok(false);
        };
        let age = i128::from(time) - i128::from(ints(&part.batch(), width + R_TIME)?[*at]);
        Ok(within.is_none_or(|within| age <= within))
    }

    /// Passes right rows before `sought`.
    fn skip_to(&mut self, sought: &[u8]) -> Result<()> {
        let column = self.plan.right_width + R_KEY;
        while let Some((part, at)) = self.right.next()? {
            let rows = part.batch();
            let is_before = |row: usize| key(&rows, column, row).is_some_and(|key| key < sought);
            let to = (at..rows.rows()).find(|&row| !is_before(row)).unwrap_or(rows.rows());
            self.right.go_to(to);
            if to < rows.rows() {
                break;
            }
        }
        Ok(())
    }

    /// Copies of right rows for the left rows that they are the nearest of.
    fn copy(&mut self) -> Result<()> {
        let width = self.plan.right_width;
        let Nearest {
            picks,
            orders,
            pieces,
            batches,
            matches,
            making,
            ..
        } = self;
        let kinds = picked::kinds(pieces.iter().map(|part| &part.kept));
        let mut from = 0;
        while from < picks.len() {
            let some = picked::alike(&picks[from..], |pick| kinds.get(pick.0 as usize));
            let range = from..from + some.len();
            making.in_pieces(range.clone(), |some, arena| {
                let (picks, orders) = (&picks[some.clone()], &orders[some.clone()]);
                let rows = gather_of(picks, width + R_WIDTH, arena, |piece| pieces[piece as usize].batch())?;
                let columns = arena.copy(rows.columns())?;
                columns[width + C_NUMBER] = Column::int(arena.map(orders, |order| order.0)?, None);
                columns[width + C_ROW] = Column::int(arena.map(orders, |order| order.1)?, None);
                *batches += 1;
                matches.push(*batches, Batch::new(columns, None, some.len()))
            })?;
            from = range.end;
        }
        picks.clear();
        orders.clear();
        pieces.clear();
        Ok(())
    }
}

/// The number of `part` among `pieces`.
fn piece_of(pieces: &mut Vec<Arc<Part>>, part: &Arc<Part>) -> u32 {
    match pieces.iter().position(|known| Arc::ptr_eq(known, part)) {
        Some(at) => at as u32,
        None => {
            pieces.push(part.clone());
            pieces.len() as u32 - 1
        }
    }
}

/// Where the rows of `key` that start at `at` end.
fn end_of_run(rows: &Batch<'_>, column: usize, at: usize, sought: &[u8]) -> usize {
    let other = (at..rows.rows()).find(|&row| key(rows, column, row) != Some(sought));
    other.unwrap_or(rows.rows())
}
