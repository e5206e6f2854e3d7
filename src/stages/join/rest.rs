//! What is left of the right side once every left row has been looked up: rows without a match, in right order.

use super::Plan;
use super::build::Built;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Column, Columns, Faults, Locator, Part, Place, Reader, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The source number of these rows: they stand behind all others.
const BEHIND_ALL: u32 = u32::MAX;

/// A claim is a batch of the right side.
pub(super) struct Rest {
    plan: Arc<Plan>,
    built: Arc<Built>,
    next: AtomicUsize,
}

impl Rest {
    pub(super) fn new(plan: Arc<Plan>, built: Arc<Built>) -> Rest {
        Rest {
            plan,
            built,
            next: AtomicUsize::new(0),
        }
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
}

impl Reader for RestReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.piece = usize::try_from(ticket).unwrap_or(usize::MAX);
        self.at = 0;
        Ok(self.rest.built.unmatched(self.piece).next().is_some())
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
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
            offset: u64::from(ids[i]),
            sub: 0,
        })?;
        let batch = Batch::new(columns.finish(), Some(places), count);
        let last = next.next().is_none();
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at = ids
            .last()
            .map_or(usize::MAX, |&id| built.pieces.pick(id).1 as usize + 1);
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last,
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
