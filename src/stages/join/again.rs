//! Left rows that waited, in their old order, with the right rows that they match.
//!
//! How: left rows and copies of the right rows that they match, both in the order of the left ones, are read side by side, a *block*
//! at a time. A reader gives a block's left rows, behind whose columns stand the block's number and where in it each row's
//! matches are; the prober of the lane finds the block by its number. A left row with hot rows among its matches is the last one of its block,
//! and comes alone: its matches are looked at section by section ([`super::hot`]).
//!
//! Laws
//! - Rows that come together came in one chunk.
//! - Blocks are made in the order of tickets, by whoever comes first; a lane has one at a time, for which there always is room.

use super::super::codes::held;
use super::super::lanes::lock;
use super::super::picked::PIECE_BYTES;
use super::super::spool::ints;
use super::Plan;
use super::build::Built;
use super::cursor::{Cursor, Part};
use super::hot::Section;
use super::lookup::Span;
use super::meet::Hot;
use super::pieces::Piece;
use super::sides::*;
use super::wait::{Wait, list};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{
    Arena, Batch, Budget, Column, Columns, Faults, Kept, Locator, Part as Decoded, Reader, Reservation, Source,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// The most rows of a block, on each side, but for the last left row's matches.
const BLOCK_ROWS: usize = 4 << 10;
/// In the place of a length: the row's matches are the block's sections.
const IN_SECTIONS: u32 = u32::MAX;

/// Left rows and what they match.
pub(super) struct Block {
    rows: Part,
    spans: Vec<Span>,
    pub(super) built: Arc<Built>,
    /// The matches of the last row, if some of them are hot.
    pub(super) sections: Vec<Section>,
    pub(super) hot: Option<Arc<Hot>>,
    _rooms: Vec<Reservation>,
}

/// Where blocks are made.
pub(super) struct Blocks {
    left: Cursor,
    matches: Cursor,
    hot: Option<Arc<Hot>>,
    /// For blocks, each with rows of both sides.
    pool: Arc<Budget>,
    block_bytes: usize,
    _room: Reservation,
}

impl Blocks {
    pub(super) fn new(
        left: Cursor,
        matches: Cursor,
        hot: Option<Arc<Hot>>,
        (bytes, room): (usize, Reservation),
    ) -> Blocks {
        Blocks {
            left,
            matches,
            hot,
            pool: Budget::new(bytes),
            block_bytes: bytes,
            _room: room,
        }
    }

    fn next(&mut self, wait: &Wait) -> Result<Option<Block>> {
        let Some((part, at)) = self.left.next()? else {
            return Ok(None);
        };
        let (plan, rows) = (&wait.plan, part.batch());
        let width = plan.left_width;
        let (numbers, order) = (ints(&rows, width + L_NUMBER)?, ints(&rows, width + L_ROW)?);
        let mut spans: Vec<Span> = list((rows.rows() - at).min(BLOCK_ROWS))?;
        let mut taken = Taken::default();
        // Of the pool a block may take one lane's part.
        let most_bytes = self.block_bytes / wait.setup.workers.max(1) / 4;
        let mut to = at;
        while to < rows.rows() && to - at < BLOCK_ROWS && taken.rows < BLOCK_ROWS && taken.bytes < most_bytes {
            let start = taken.rows as u32;
            self.take(wait, (numbers[to], order[to]), &mut taken)?;
            let is_hot = !taken.sections.is_empty();
            let len = if is_hot { IN_SECTIONS } else { taken.rows as u32 - start };
            spans.push(Span { start, len });
            to += 1;
            if is_hot {
                break;
            }
        }
        self.close(&mut taken, wait)?;
        self.left.go_to(to);
        let arena = Arena::new(usize::MAX);
        let own = rows.slice(at, to - at, &arena)?;
        Ok(Some(Block {
            rows: Part::copy(&own, &self.pool, wait.budget())?,
            spans,
            built: Arc::new(Built::of_rows(taken.pieces, plan.mode.keeps_right() && plan.condition)?),
            sections: taken.sections,
            hot: self.hot.clone(),
            _rooms: taken.rooms,
        }))
    }

    /// The matches of the left row at `order`.
    fn take(&mut self, wait: &Wait, order: (i64, i64), taken: &mut Taken) -> Result<()> {
        let width = wait.plan.right_width;
        let mut held_from = taken.rows;
        while let Some((part, at)) = self.matches.next()? {
            let rows = part.batch();
            let (numbers, others) = (ints(&rows, width + C_NUMBER)?, ints(&rows, width + C_ROW)?);
            let other = (at..rows.rows()).find(|&row| (numbers[row], others[row]) != order);
            let to = other.unwrap_or(rows.rows());
            if to == at {
                break;
            }
            let (starts, lens) = (ints(&rows, width + R_CHUNK)?, ints(&rows, width + R_ROW)?);
            let mut from = at;
            for row in (at..to).filter(|&row| lens[row] < 0) {
                self.take_copies(&part, from..row, taken, wait)?;
                taken.hold(held_from);
                held_from = taken.rows;
                taken.add_hot(starts[row] as u64..(starts[row] - lens[row]) as u64);
                from = row + 1;
            }
            self.take_copies(&part, from..to, taken, wait)?;
            self.matches.go_to(to);
            if other.is_some() {
                break;
            }
        }
        if !taken.sections.is_empty() {
            taken.hold(held_from);
        }
        Ok(())
    }

    fn take_copies(&self, part: &Arc<Part>, rows: Range<usize>, taken: &mut Taken, wait: &Wait) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        taken.rows += rows.len();
        match &mut taken.open {
            Some((open, range)) if Arc::ptr_eq(open, part) && range.end == rows.start => range.end = rows.end,
            _ => {
                self.close(taken, wait)?;
                taken.open = Some((part.clone(), rows));
            }
        }
        Ok(())
    }

    /// What was taken of the part at hand becomes a piece.
    fn close(&self, taken: &mut Taken, wait: &Wait) -> Result<()> {
        let Some((part, range)) = taken.open.take() else {
            return Ok(());
        };
        let arena = Arena::new(usize::MAX);
        let rows = part.batch().slice(range.start, range.len(), &arena)?;
        let (piece, room) = piece(&rows, &self.pool, wait.budget())?;
        taken.bytes += room.bytes();
        taken.pieces.push(piece);
        taken.rooms.push(room);
        Ok(())
    }
}

#[derive(Default)]
struct Taken {
    open: Option<(Arc<Part>, Range<usize>)>,
    pieces: Vec<Piece>,
    rooms: Vec<Reservation>,
    rows: usize,
    bytes: usize,
    sections: Vec<Section>,
}

impl Taken {
    /// Copies from `from` on are a section.
    fn hold(&mut self, from: usize) {
        if self.rows > from {
            self.sections.push(Section::Held(Span {
                start: from as u32,
                len: (self.rows - from) as u32,
            }));
        }
    }

    fn add_hot(&mut self, rows: Range<u64>) {
        match self.sections.last_mut() {
            Some(Section::Hot(last)) if last.end == rows.start => last.end = rows.end,
            _ => self.sections.push(Section::Hot(rows)),
        }
    }
}

/// A copy of right rows.
pub(super) fn piece(rows: &Batch<'_>, pool: &Arc<Budget>, budget: &Arc<Budget>) -> Result<(Piece, Reservation)> {
    let bytes = rows.copy_bytes();
    let mut room = pool.reserve();
    if room.grow(bytes + PIECE_BYTES).is_err() {
        room = budget.reserve();
        room.grow(bytes + PIECE_BYTES)?;
    }
    let piece = Piece {
        kept: Some(Kept::copy(rows, bytes)?),
        rows: rows.rows(),
        codes: vec![],
        valid: vec![],
        times: vec![],
    };
    Ok((piece, room))
}

/// Things that are made one after the other and given by ticket.
pub(super) struct InOrder<S, T> {
    state: Mutex<Line<S, T>>,
    tickets: AtomicU64,
    over: AtomicBool,
}

struct Line<S, T> {
    maker: S,
    /// The ticket of the next one that is made.
    next: u64,
    /// Made for lanes that have not come yet.
    ready: VecDeque<(u64, T)>,
}

impl<S, T> InOrder<S, T> {
    pub(super) fn new(maker: S) -> Self {
        InOrder {
            state: Mutex::new(Line {
                maker,
                next: 0,
                ready: VecDeque::new(),
            }),
            tickets: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn ticket(&self) -> Option<u64> {
        (!self.over.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    /// What `ticket` stands for; `None` behind the end.
    pub(super) fn take(&self, ticket: u64, mut make: impl FnMut(&mut S) -> Result<Option<T>>) -> Result<Option<T>> {
        let mut line = lock(&self.state);
        loop {
            if let Some(at) = line.ready.iter().position(|(number, _)| *number == ticket) {
                return Ok(line.ready.remove(at).map(|(_, made)| made));
            }
            if self.over.load(SeqCst) {
                return Ok(None);
            }
            match make(&mut line.maker) {
                Ok(Some(made)) => {
                    let number = line.next;
                    line.next += 1;
                    line.ready.push_back((number, made));
                }
                Ok(None) => self.over.store(true, SeqCst),
                Err(error) => {
                    self.over.store(true, SeqCst);
                    return Err(error);
                }
            }
        }
    }
}

/// The rows that waited, as a source.
pub(super) struct Again {
    wait: Arc<Wait>,
    /// As it was bound: how keys are made.
    keys: Arc<Plan>,
    blocks: InOrder<Option<Blocks>, Block>,
}

impl Again {
    pub(super) fn new(wait: Arc<Wait>, keys: Arc<Plan>) -> Again {
        Again {
            wait,
            keys,
            blocks: InOrder::new(None),
        }
    }
}

impl Source for Again {
    fn ticket(&self) -> Option<u64> {
        self.blocks.ticket()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(AgainReader {
            again: self,
            number: 0,
            block: None,
            given: 0,
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

struct AgainReader {
    again: Arc<Again>,
    number: u64,
    block: Option<Arc<Block>>,
    /// Rows of it that were given.
    given: usize,
}

impl AgainReader {
    fn let_go(&mut self) {
        if self.block.take().is_some() {
            lock(&self.again.wait.blocks).retain(|(number, _)| *number != self.number);
        }
    }
}

impl Drop for AgainReader {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Reader for AgainReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.let_go();
        let (wait, keys) = (&self.again.wait, &self.again.keys);
        let made = self.again.blocks.take(ticket, |blocks| {
            if blocks.is_none() {
                *blocks = Some(wait.meet(keys)?);
            }
            match blocks {
                Some(made) => {
                    let next = made.next(wait)?;
                    if next.is_none() {
                        *blocks = None;
                    }
                    Ok(next)
                }
                None => Ok(None),
            }
        });
        let Some(block) = made.map_err(|e| held("join", e))? else {
            return Ok(false);
        };
        let block = Arc::new(block);
        lock(&wait.blocks).push((ticket, block.clone()));
        (self.number, self.block, self.given) = (ticket, Some(block), 0);
        Ok(true)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Decoded<'a>> {
        let Some(block) = &self.block else {
            return Err(Error::Panic("a block that is gone".into()));
        };
        let wait = &self.again.wait;
        let width = wait.plan.left_width;
        let from = self.given;
        let all = block.rows.batch();
        let end = match block.spans.len() - 1 {
            // It comes alone.
            last if !block.sections.is_empty() && from < last => last,
            last => last + 1,
        };
        let len = rows_of_chunk(&all, width, from, max_rows.max(1).min(end - from))?;
        let rows = all.slice(from, len, arena)?;
        let spans = &block.spans[from..from + len];
        let mut columns = Columns::new(arena, width + GIVEN_WIDTH)?;
        rows.columns()[..width].iter().for_each(|&column| columns.push(column));
        columns.push(Column::int(arena.fill(len, self.number as i64)?, None));
        columns.push(Column::int(arena.collect(len, |i| i64::from(spans[i].start))?, None));
        columns.push(Column::int(arena.collect(len, |i| i64::from(spans[i].len))?, None));
        let (places, traces) = wait.origins.read(&rows, width + L_ORIGIN, arena)?;
        let locator = Locator {
            chunk: ints(&rows, width + L_CHUNK)?[0] as u64,
            traces,
            ..Locator::default()
        };
        // Only now: a refused part can be asked for again, with fewer rows.
        self.given = from + len;
        Ok(Decoded {
            batch: Batch::new(columns.finish(), places, len),
            faults: Faults::new(arena, stop_at_first),
            last: self.given >= block.spans.len(),
            locator,
        })
    }
}

/// Columns behind the left side's own: the block, and where in it a row's matches are.
const GIVEN_WIDTH: usize = 3;

/// Whether the matches of the rows, of which there is one then, are the block's sections.
pub(super) fn in_sections(spans: &[Span]) -> bool {
    spans.first().is_some_and(|span| span.len == IN_SECTIONS)
}

/// The block that a batch's rows are of, and where in it their matches are.
pub(super) fn given<'a>(wait: &Wait, batch: &Batch<'a>, arena: &'a Arena) -> Result<(Arc<Block>, &'a [Span])> {
    let width = wait.plan.left_width;
    let (numbers, starts, lens) = (ints(batch, width)?, ints(batch, width + 1)?, ints(batch, width + 2)?);
    let number = numbers.first().copied().unwrap_or(-1);
    let blocks = lock(&wait.blocks);
    let block = blocks.iter().find(|(known, _)| *known == number as u64);
    let block = block.map(|(_, block)| block.clone());
    drop(blocks);
    let block = block.ok_or_else(|| Error::Panic("a block that is gone".into()))?;
    let spans = arena.collect(batch.rows(), |row| Span {
        start: starts[row] as u32,
        len: lens[row] as u32,
    })?;
    Ok((block, spans))
}
