//! What is left of the right side once every left row has been looked up: rows without a match, in right order.

use super::super::codes::held;
use super::super::spool::ints;
use super::Plan;
use super::again::InOrder;
use super::build::Built;
use super::cursor::{Cursor, Part};
use super::sides::{U_CHUNK, U_IS_ROW, U_ROW};
use super::wait::Wait;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{
    Arena, Batch, Bits, Column, Columns, Data, Faults, Locator, Part as Decoded, Place, Reader, RecordData, Source,
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// The source number of these rows: they stand behind all others.
const BEHIND_ALL: u32 = u32::MAX;

/// A claim is a batch of the right side.
pub(super) struct Rest {
    plan: Arc<Plan>,
    built: Arc<Built>,
    next: AtomicUsize,
    /// For each batch how many such rows stand before it. Counted when all left rows have been looked up.
    before: OnceLock<Vec<u64>>,
}

impl Rest {
    pub(super) fn new(plan: Arc<Plan>, built: Arc<Built>) -> Rest {
        Rest {
            plan,
            built,
            next: AtomicUsize::new(0),
            before: OnceLock::new(),
        }
    }

    fn before(&self, piece: usize) -> u64 {
        let count = || {
            let mut sum = 0;
            let count = |piece| {
                let before = sum;
                sum += self.built.unmatched(piece).count() as u64;
                before
            };
            (0..self.built.pieces.list.len()).map(count).collect()
        };
        self.before.get_or_init(count).get(piece).copied().unwrap_or(0)
    }
}

impl Source for Rest {
    fn ticket(&self) -> Option<u64> {
        let pieces = match self.plan.mode.keeps_right() {
            true => self.built.pieces.list.len(),
            false => 0,
        };
        let next = |at: usize| (at < pieces).then_some(at + 1);
        self.next
            .fetch_update(Relaxed, Relaxed, next)
            .ok()
            .map(|piece| piece as u64)
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(RestReader {
            rest: self,
            piece: 0,
            at: 0,
            number: 0,
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

struct RestReader {
    rest: Arc<Rest>,
    piece: usize,
    /// The next row of the piece.
    at: usize,
    /// The number of the next row that comes out.
    number: u64,
}

impl Reader for RestReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.piece = usize::try_from(ticket).unwrap_or(usize::MAX);
        self.at = 0;
        self.number = self.rest.before(self.piece);
        Ok(self.rest.built.unmatched(self.piece).next().is_some())
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Decoded<'a>> {
        let (plan, built) = (&*self.rest.plan, &*self.rest.built);
        let piece = self.piece;
        let at = self.at;
        let rows = || built.unmatched(piece).skip_while(move |&row| (row as usize) < at);
        let count = rows().take(max_rows.max(1)).count();
        let mut next = rows();
        let ids = arena.collect(count, |_| built.pieces.id(piece, next.next().unwrap_or(0) as usize))?;
        let mut columns = Columns::new(arena, plan.width())?;
        for &(_, stand_in) in &plan.left {
            columns.push(match stand_in {
                Some(key) => built.pieces.gather(&[key], ids, arena)?[0],
                None => Column::nulls(count),
            });
        }
        if plan.record {
            columns.push(built.pieces.record(&plan.right, ids, arena)?);
        } else {
            for &column in built.pieces.gather(&plan.right, ids, arena)? {
                columns.push(column);
            }
        }
        let places = arena.collect(count, |i| Place {
            source: BEHIND_ALL,
            offset: self.number + i as u64,
            sub: 0,
        })?;
        let batch = Batch::new(columns.finish(), Some(places), count);
        let last = next.next().is_none();
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at = ids
            .last()
            .map_or(usize::MAX, |&id| built.pieces.pick(id).1 as usize + 1);
        self.number += count as u64;
        Ok(Decoded {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last,
            locator: Locator::default(),
        })
    }
}

/// The same where the left side waited: the right side's rows come sorted by their order, among marks of what has matched.
pub(super) struct RestOfWaiting {
    plan: Arc<Plan>,
    rows: InOrder<Unmatched, Unclaimed>,
}

/// Rows that are still to be looked at.
struct Unmatched {
    wait: Arc<Wait>,
    /// `None` before the first and behind the last row.
    rows: Option<Cursor>,
    is_open: bool,
    /// The last row that has matched.
    mark: Option<(i64, i64)>,
    /// The number of the next row that comes out.
    number: u64,
}

/// Rows that come out.
struct Unclaimed {
    rows: Part,
    number: u64,
}

impl RestOfWaiting {
    pub(super) fn new(wait: Arc<Wait>) -> RestOfWaiting {
        RestOfWaiting {
            plan: wait.plan.clone(),
            rows: InOrder::new(Unmatched {
                wait,
                rows: None,
                is_open: false,
                mark: None,
                number: 0,
            }),
        }
    }
}

impl Unmatched {
    fn next(&mut self) -> Result<Option<Unclaimed>> {
        if !self.is_open {
            self.is_open = true;
            self.rows = self.wait.left_over()?;
        }
        let width = self.wait.plan.right_width;
        let Some(cursor) = &mut self.rows else {
            return Ok(None);
        };
        while let Some((part, at)) = cursor.next()? {
            let rows = part.batch();
            let (chunks, numbers) = (ints(&rows, width + U_CHUNK)?, ints(&rows, width + U_ROW)?);
            let is_row = ints(&rows, width + U_IS_ROW)?;
            let arena = Arena::new(usize::MAX);
            let bits = Bits::collect(&arena, rows.rows(), |row| {
                let order = (chunks[row], numbers[row]);
                if row < at || is_row[row] == 0 {
                    self.mark = Some(order);
                    return false;
                }
                self.mark != Some(order)
            })?;
            cursor.go_to(rows.rows());
            let left = rows.gather(bits.indices(&arena)?, width, &arena)?;
            if left.rows() == 0 {
                continue;
            }
            let rows = cursor.copy(&left)?;
            let number = self.number;
            self.number += left.rows() as u64;
            return Ok(Some(Unclaimed { rows, number }));
        }
        self.rows = None;
        Ok(None)
    }
}

impl Source for RestOfWaiting {
    fn ticket(&self) -> Option<u64> {
        match self.plan.mode.keeps_right() {
            true => self.rows.ticket(),
            false => None,
        }
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(UnclaimedReader {
            rest: self,
            rows: None,
            at: 0,
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

struct UnclaimedReader {
    rest: Arc<RestOfWaiting>,
    rows: Option<Unclaimed>,
    at: usize,
}

impl Reader for UnclaimedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        (self.rows, self.at) = (None, 0);
        let rows = self.rest.rows.take(ticket, Unmatched::next);
        self.rows = rows.map_err(|e| held("join", e))?;
        Ok(self.rows.is_some())
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Decoded<'a>> {
        let plan = &self.rest.plan;
        let Some(unclaimed) = &self.rows else {
            return Err(Error::Panic("rows that are gone".into()));
        };
        let all = unclaimed.rows.batch();
        let count = max_rows.max(1).min(all.rows() - self.at);
        let rows = all.slice(self.at, count, arena)?;
        let mut columns = Columns::new(arena, plan.width())?;
        for &(_, stand_in) in &plan.left {
            columns.push(match stand_in {
                Some(key) => rows.column(key),
                None => Column::nulls(count),
            });
        }
        let right = arena.collect(plan.right.len(), |i| rows.column(plan.right[i]))?;
        if plan.record && right.is_empty() {
            columns.push(Column::nulls(count));
        } else if plan.record {
            columns.push(Column::new(Data::Record(RecordData::new(right)), None, count));
        } else {
            right.iter().for_each(|&column| columns.push(column));
        }
        let first = unclaimed.number + self.at as u64;
        let places = arena.collect(count, |i| Place {
            source: BEHIND_ALL,
            offset: first + i as u64,
            sub: 0,
        })?;
        self.at += count;
        Ok(Decoded {
            batch: Batch::new(columns.finish(), Some(places), count),
            faults: Faults::new(arena, stop_at_first),
            last: self.at >= all.rows(),
            locator: Locator::default(),
        })
    }
}

impl Plan {
    /// Columns of the output.
    pub(super) fn width(&self) -> usize {
        let right = match (self.mode.only_left(), self.record) {
            (true, _) => 0,
            (_, true) => 1,
            _ => self.right.len(),
        };
        self.left.len() + right
    }
}
