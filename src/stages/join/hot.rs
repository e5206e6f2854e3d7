//! The matches of one left row that has more of them than are held at a time: copies, and rows of hot keys that are read from disk frame by
//! frame.

use super::super::codes::held;
use super::again::{Block, piece};
use super::build::Built;
use super::lookup::Span;
use super::meet::Hot;
use super::wait::Wait;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Reservation};
use std::ops::Range;
use std::sync::Arc;

/// Some of the matches.
pub(super) enum Section {
    /// Copies, by where they are in the block.
    Held(Span),
    /// Hot rows.
    Hot(Range<u64>),
}

/// The matches, section by section.
pub(super) struct Sections<'w> {
    wait: &'w Wait,
    block: &'w Block,
    at: usize,
    /// Hot rows of the section at hand that were read.
    read: u64,
    /// What the one at hand takes.
    room: Option<Reservation>,
}

impl<'w> Sections<'w> {
    pub(super) fn new(wait: &'w Wait, block: &'w Block) -> Sections<'w> {
        Sections {
            wait,
            block,
            at: 0,
            read: 0,
            room: None,
        }
    }

    /// From the first row on once more.
    pub(super) fn again(&mut self) {
        (self.at, self.read) = (0, 0);
    }

    /// The next rows, and where in them the matches are. Those before have to be gone.
    pub(super) fn next(&mut self) -> Result<Option<(Arc<Built>, Span)>> {
        self.room = None;
        loop {
            match (self.block.sections.get(self.at), &self.block.hot) {
                (None, _) => return Ok(None),
                (Some(Section::Held(span)), _) => {
                    self.at += 1;
                    return Ok(Some((self.block.built.clone(), *span)));
                }
                (Some(Section::Hot(rows)), Some(hot)) if rows.start + self.read < rows.end => {
                    let left = rows.start + self.read..rows.end;
                    let (built, room, to) = self.read(hot, &left).map_err(|e| held("join", e))?;
                    let span = Span {
                        start: 0,
                        len: (to - left.start) as u32,
                    };
                    self.read += to - left.start;
                    self.room = Some(room);
                    return Ok(Some((Arc::new(built), span)));
                }
                (Some(Section::Hot(_)), _) => (self.at, self.read) = (self.at + 1, 0),
            }
        }
    }

    /// The first of some hot rows: those of one frame, and where they end.
    fn read(&self, hot: &Hot, rows: &Range<u64>) -> Result<(Built, Reservation, u64)> {
        let at = hot
            .starts
            .partition_point(|&start| start <= rows.start)
            .saturating_sub(1);
        let frame = hot.segment.load(at, &hot.pool, false)?;
        let (start, end) = (hot.starts[at], hot.starts[at] + frame.len() as u64);
        let to = end.min(rows.end);
        let arena = Arena::new(usize::MAX);
        let from = (rows.start - start) as usize;
        let rows = frame.rows()?.slice(from, (to - rows.start) as usize, &arena)?;
        let (piece, room) = piece(&rows, &hot.pool, self.wait.budget())?;
        let mark = self.wait.plan.mode.keeps_right() && self.wait.plan.condition;
        Ok((Built::of_rows(vec![piece], mark)?, room, to))
    }
}
