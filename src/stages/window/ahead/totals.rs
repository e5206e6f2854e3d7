//! What aggregates give of whole groups, for a pass that meets the groups in the same order.

use super::super::STAGE;
use super::pass::room_in;
use crate::stages::codes::held;
use crate::stages::groups::grow;
use crate::stages::picked::PIECE_BYTES;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Bits, Budget, Column, Columns, Kept, Reader, Reservation, Source};
use std::sync::Arc;

/// Rows of groups that are read together.
const ROWS: usize = 1 << 10;

/// The groups that are at hand: the one whose rows are coming is the first.
pub(super) struct Totals {
    source: Arc<dyn Source>,
    reader: Box<dyn Reader>,
    /// There is more of the claim.
    more: bool,
    ended: bool,
    /// The aggregates are `keys..keys + count` of a group's columns.
    keys: usize,
    count: usize,
    pieces: Vec<Kept>,
    /// Groups of the first piece that are gone.
    gone: usize,
    /// Groups that are there and not gone.
    ready: usize,
    arena: Arena,
    reservation: Reservation,
    /// Of the arena.
    _room: Reservation,
}

impl Totals {
    pub(super) fn new(
        source: Arc<dyn Source>,
        keys: usize,
        count: usize,
        room: &Arc<Budget>,
        setup: &Setup,
    ) -> Result<Totals> {
        let (room, room_of) = room_in(room, setup)?;
        Ok(Totals {
            reader: source.clone().reader()?,
            source,
            more: false,
            ended: false,
            keys,
            count,
            pieces: vec![],
            gone: 0,
            ready: 0,
            arena: Arena::new(room),
            reservation: setup.budget.reserve(),
            _room: room_of,
        })
    }

    /// Reads on until so many groups are there.
    pub(super) fn need(&mut self, groups: usize) -> Result<()> {
        while self.ready < groups && !self.ended {
            if !self.more {
                match self.source.ticket() {
                    Some(ticket) => self.more = self.reader.claim(ticket)?,
                    None => self.ended = true,
                }
                continue;
            }
            self.read().map_err(|e| held(STAGE, e))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let mut rows = ROWS;
        loop {
            self.arena.reset();
            let limit = self.arena.limit();
            match self.reader.decode(&self.arena, rows, false) {
                Ok(part) => {
                    let (keys, count) = (self.keys, self.count);
                    let width = count + 2;
                    let mut columns = Columns::new(&self.arena, width)?;
                    for &column in &part.batch.columns()[keys..keys + count] {
                        columns.push(column);
                    }
                    let [text, code] = faults(&part, &self.arena)?;
                    columns.push(text);
                    columns.push(code);
                    let batch = Batch::new(columns.finish(), None, part.batch.rows());
                    let bytes = batch.copy_bytes();
                    grow(&mut self.pieces, 1, &mut self.reservation)?;
                    self.reservation.grow(bytes + PIECE_BYTES)?;
                    self.pieces.push(Kept::copy(&batch, bytes)?);
                    self.ready += batch.rows();
                    self.more = !part.last;
                    return Ok(());
                }
                Err(Error::Memory { .. }) if rows > 1 => rows = rows.div_ceil(2),
                Err(Error::Memory { .. }) => {
                    self.reservation.grow(limit)?;
                    self.arena.set_limit(2 * limit);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The columns of these groups: one per aggregate, what is wrong with one, and its code behind its number.
    pub(super) fn columns<'a>(&'a self, ids: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        // Where each group is: they ascend.
        let picks = arena.fill(ids.len(), (0u32, 0u32))?;
        let (mut piece, mut before) = (0u32, 0usize);
        for (pick, &id) in picks.iter_mut().zip(ids) {
            let at = self.gone + id as usize;
            while let Some(rows) = self.pieces.get(piece as usize).map(|p| p.batch().rows()) {
                if at < before + rows {
                    break;
                }
                before += rows;
                piece += 1;
            }
            *pick = (piece, (at - before) as u32);
        }
        if picks
            .iter()
            .any(|&(piece, _): &Pick| piece as usize >= self.pieces.len())
        {
            return Err(Error::Panic("a group has no values".into()));
        }
        for index in 0..self.count + 2 {
            let mut parts = Columns::new(arena, self.pieces.len())?;
            for piece in &self.pieces {
                parts.push(piece.batch().column(index));
            }
            out.push(Column::interleave(parts.finish(), picks, arena)?);
        }
        Ok(())
    }

    /// So many first groups are gone.
    pub(super) fn forget(&mut self, groups: usize) {
        self.gone += groups;
        self.ready = self.ready.saturating_sub(groups);
        while let Some(rows) = self.pieces.first().map(|piece| piece.batch().rows()) {
            if self.gone < rows {
                break;
            }
            self.gone -= rows;
            let piece = self.pieces.remove(0);
            self.reservation.shrink(piece.bytes() + PIECE_BYTES);
        }
    }
}

/// What is wrong with groups: the text, and the code with the number of the aggregate before it, by its span.
fn faults<'a>(part: &standpipe_sdk::Part<'a>, arena: &'a Arena) -> Result<[Column<'a>; 2]> {
    let rows = part.batch.rows();
    if part.faults.is_empty() {
        return Ok([Column::nulls(rows), Column::nulls(rows)]);
    }
    let bad = part.faults.by_row_in(arena)?;
    let of = |row: usize| bad.iter().find(|fault| fault.row as usize == row);
    let mut texts = TextBuilder::new(arena, rows, 0)?;
    for row in 0..rows {
        match of(row) {
            Some(fault) => texts.push(fault.message)?,
            None => texts.push_empty(),
        }
    }
    let valid = Bits::collect(arena, rows, |row| of(row).is_some())?;
    let codes = arena.collect(rows, |row| {
        of(row).map_or(0, |fault| {
            i64::from(fault.span.map_or(0, |span| span.start)) << 32 | i64::from(fault.code.0)
        })
    })?;
    Ok([
        Column::string(texts.finish()?, Some(valid)),
        Column::int(codes, Some(valid)),
    ])
}
