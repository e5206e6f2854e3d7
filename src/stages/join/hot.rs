//! The right rows of a hot key, read from disk frame by frame.

use super::super::codes::held;
use super::again::{Block, piece};
use super::build::Built;
use super::lookup::Span;
use super::meet::Hot;
use super::wait::Wait;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Budget, Reservation};
use std::ops::Range;
use std::sync::Arc;

/// The frames of one left row's matches.
pub(super) struct Sections<'w> {
    wait: &'w Wait,
    hot: Arc<Hot>,
    rows: Range<u64>,
    /// The first row of the next one.
    next: u64,
    pool: Arc<Budget>,
    /// What the one at hand takes.
    room: Option<Reservation>,
}

impl<'w> Sections<'w> {
    pub(super) fn new(wait: &'w Wait, block: &Block) -> Result<Sections<'w>> {
        let Some((hot, rows)) = &block.hot else {
            return Err(Error::Panic("a row that is not hot".into()));
        };
        Ok(Sections {
            wait,
            hot: hot.clone(),
            next: rows.start,
            rows: rows.clone(),
            pool: hot.pool.clone(),
            room: None,
        })
    }

    /// From the first row on once more.
    pub(super) fn again(&mut self) {
        self.next = self.rows.start;
    }

    /// The rows of the next frame, and where in it the matches are. The one before has to be gone.
    pub(super) fn next(&mut self) -> Result<Option<(Built, Span)>> {
        self.room = None;
        if self.next >= self.rows.end {
            return Ok(None);
        }
        let (built, room, to) = self.read().map_err(|e| held("join", e))?;
        let span = Span {
            start: 0,
            len: (to - self.next) as u32,
        };
        (self.next, self.room) = (to, Some(room));
        Ok(Some((built, span)))
    }

    fn read(&self) -> Result<(Built, Reservation, u64)> {
        let at = self
            .hot
            .starts
            .partition_point(|&start| start <= self.next)
            .saturating_sub(1);
        let frame = self.hot.segment.load(at, &self.pool, false)?;
        let (start, end) = (self.hot.starts[at], self.hot.starts[at] + frame.len() as u64);
        let to = end.min(self.rows.end);
        let arena = Arena::new(usize::MAX);
        let from = (self.next - start) as usize;
        let rows = frame.rows()?.slice(from, (to - self.next) as usize, &arena)?;
        let (piece, room) = piece(&rows, &self.pool, self.wait.budget())?;
        let mark = self.wait.plan.mode.keeps_right() && self.wait.plan.condition;
        Ok((Built::of_rows(vec![piece], mark)?, room, to))
    }
}
