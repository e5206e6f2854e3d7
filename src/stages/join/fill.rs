//! One lane's right rows: kept as long as they fit, sorted by key if they do not.

use super::super::codes::held;
use super::super::groups::{grow, grow_to};
use super::super::picked::PIECE_BYTES;
use super::Plan;
use super::build::Join;
use super::meet::loaded_bytes;
use super::numbers::{Codes, times, validity};
use super::pieces::{Piece, bytes_of};
use super::scratch::Scratch;
use super::sides::{bucket_column, key_column, needed_columns, right_rows};
use standpipe_sdk::bits::both;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Bits, Column, Columns, Fill, Kept, Reservation};
use std::sync::Arc;

/// Rows that are made ready for sorting at a time.
const SORTED_ROWS: usize = 16 << 10;

/// A lane while it is filled.
pub(super) struct Filler {
    join: Arc<Join>,
    /// `None` once it is done.
    lane: Option<Lane>,
}

impl Filler {
    pub(super) fn new(join: Arc<Join>, sorted: Box<dyn Fill>) -> Result<Filler> {
        let lane = Lane {
            scratch: Scratch::new(&join.budget, join.share)?,
            pieces: vec![],
            reservation: join.budget.reserve(),
            held_rows: 0,
            sorted,
            spills: false,
            chunk: 0,
            chunk_rows: 0,
            sorted_bytes: 0,
        };
        Ok(Filler { join, lane: Some(lane) })
    }
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let join = &self.join;
        let Some(lane) = &mut self.lane else {
            return Ok(());
        };
        if !lane.spills && !join.spills(lane.held_rows) {
            if lane.keep(&join.plan, chunk, &batch)? {
                return Ok(());
            }
            join.spill();
        }
        lane.spill(&join.plan)?;
        lane.sort(&join.plan, chunk, &batch)
    }

    fn done(&mut self) -> Result<()> {
        if let Some(mut lane) = self.lane.take() {
            if self.join.spills(lane.held_rows) {
                lane.spill(&self.join.plan)?;
            }
            self.join.keep(lane);
        }
        Ok(())
    }
}

/// What a lane has.
pub(super) struct Lane {
    /// For what is computed of one batch.
    scratch: Scratch,
    pub(super) pieces: Vec<(u64, Piece)>,
    pub(super) reservation: Reservation,
    held_rows: usize,
    /// Where rows go that do not fit.
    pub(super) sorted: Box<dyn Fill>,
    /// They do.
    spills: bool,
    /// The chunk that is being sorted, and how many of its rows are.
    chunk: u64,
    chunk_rows: u64,
    /// Bytes of rows that were sorted, as they are in memory.
    pub(super) sorted_bytes: usize,
}

impl Lane {
    /// Keeps a batch, if there is room for it.
    fn keep(&mut self, plan: &Plan, chunk: u64, batch: &Batch<'_>) -> Result<bool> {
        loop {
            let arena = &self.scratch.arena;
            let piece = piece(plan, batch, &mut self.reservation, arena);
            let kept = piece.map(|piece| {
                let Some(piece) = piece else { return true };
                if grow(&mut self.pieces, 1, &mut self.reservation).is_err() {
                    self.reservation.shrink(bytes_of(&piece));
                    return false;
                }
                self.held_rows += piece.rows;
                self.pieces.push((chunk, piece));
                true
            });
            self.scratch.arena.reset();
            match kept {
                Ok(kept) => return Ok(kept),
                Err(Refused::Arena(_)) if self.scratch.more() => {}
                Err(Refused::Arena(Error::Memory { .. }) | Refused::Room) => return Ok(false),
                Err(Refused::Arena(error)) => return Err(error),
            }
        }
    }

    /// From now on rows are sorted; what was held too.
    pub(super) fn spill(&mut self, plan: &Plan) -> Result<()> {
        self.spills = true;
        for (chunk, piece) in std::mem::take(&mut self.pieces) {
            self.in_slices(chunk, piece.rows, &piece, |piece, from, len, at, arena| {
                let codes = Codes {
                    codes: &piece.codes[from..from + len],
                    valid: match piece.valid.is_empty() {
                        true => None,
                        false => Some(Bits::new(&piece.valid, piece.rows).slice(from, len)),
                    },
                };
                let batch = match &piece.kept {
                    Some(kept) => Some(kept.batch().slice(from, len, arena)?),
                    None => None,
                };
                let none = Batch::new(&[], None, len);
                let key = key_column(&plan.right_keys, plan.exact, &batch.unwrap_or(none), &codes, arena)?;
                let sorted = match piece.times.get(from..from + len) {
                    Some(times) if plan.asof.is_some() => Column::int(arena.copy(times)?, None),
                    _ => bucket_column(&codes, arena)?,
                };
                right_rows(
                    needed_columns(plan, batch, len, arena)?,
                    key,
                    sorted,
                    (chunk, at),
                    arena,
                )
            })?;
            self.reservation.shrink(bytes_of(&piece));
        }
        self.held_rows = 0;
        self.reservation.shrink(self.reservation.bytes());
        Ok(())
    }

    /// Sorts a batch.
    fn sort(&mut self, plan: &Plan, chunk: u64, batch: &Batch<'_>) -> Result<()> {
        self.in_slices(chunk, batch.rows(), batch, |batch, from, len, at, arena| {
            let (batch, codes) = matchable(plan, &batch.slice(from, len, arena)?, arena)?;
            let key = key_column(&plan.right_keys, plan.exact, &batch, &codes, arena)?;
            let sorted = match plan.asof {
                Some(asof) => Column::int(times(&batch.column(asof.right), arena)?, None),
                None => bucket_column(&codes, arena)?,
            };
            let own = needed_columns(plan, Some(batch), batch.rows(), arena)?;
            right_rows(own, key, sorted, (chunk, at), arena)
        })
    }

    /// Sorts what `make` makes of some rows (from, so many), the first of which has this number in its chunk.
    fn in_slices<D>(
        &mut self,
        chunk: u64,
        rows: usize,
        data: &D,
        make: impl for<'a> Fn(&'a D, usize, usize, u64, &'a Arena) -> Result<Batch<'a>>,
    ) -> Result<()> {
        if self.chunk != chunk {
            (self.chunk, self.chunk_rows) = (chunk, 0);
        }
        let (mut from, mut len) = (0, SORTED_ROWS);
        while from < rows {
            len = len.min(rows - from);
            let made = make(data, from, len, self.chunk_rows, &self.scratch.arena);
            let outcome = match made {
                Ok(batch) if batch.rows() == 0 => Ok((0, 0)),
                Ok(batch) => {
                    let bytes = loaded_bytes(&batch);
                    self.sorted.push(chunk, batch).map(|()| (batch.rows() as u64, bytes))
                }
                Err(error) => Err(error),
            };
            self.scratch.arena.reset();
            match outcome {
                Ok((count, bytes)) => {
                    self.chunk_rows += count;
                    self.sorted_bytes = self.sorted_bytes.saturating_add(bytes);
                    from += len;
                }
                // Rather more room: many short pieces are slow to sort.
                Err(Error::Memory { .. }) if self.scratch.more() => {}
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(held("join", error)),
            }
        }
        Ok(())
    }
}

/// Why a batch is not kept.
enum Refused {
    /// What is computed of it has no room; or any other error.
    Arena(Error),
    /// It has no room itself.
    Room,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Arena(error)
    }
}

/// What is kept of a batch; nothing of it is reserved if it is refused.
fn piece(
    plan: &Plan,
    batch: &Batch<'_>,
    reservation: &mut Reservation,
    arena: &Arena,
) -> std::result::Result<Option<Piece>, Refused> {
    let (batch, codes) = matchable(plan, batch, arena)?;
    let rows = batch.rows();
    if rows == 0 {
        return Ok(None);
    }
    let times = match plan.asof {
        Some(asof) => times(&batch.column(asof.right), arena)?,
        None => &[],
    };
    let (needed, all) = (plan.needed(), batch.columns());
    let is_needed = |index: usize| needed.contains(&index);
    let any = (all.iter().enumerate()).any(|(index, column)| is_needed(index) && !column.is_absent());
    let batch = match any {
        false => None,
        true => {
            let mut columns = Columns::new(arena, all.len())?;
            for (index, column) in all.iter().enumerate() {
                columns.push(match is_needed(index) {
                    true => *column,
                    false => Column::absent(rows),
                });
            }
            Some(Batch::new(columns.finish(), None, rows))
        }
    };
    let before = reservation.bytes();
    let kept = keep(batch, &codes, times, reservation);
    kept.map(Some).map_err(|error| {
        reservation.shrink(reservation.bytes() - before);
        match error {
            Error::Memory { .. } => Refused::Room,
            error => Refused::Arena(error),
        }
    })
}

fn keep(batch: Option<Batch<'_>>, codes: &Codes<'_>, times: &[i64], reservation: &mut Reservation) -> Result<Piece> {
    let mut piece = Piece {
        kept: None,
        rows: codes.codes.len(),
        codes: vec![],
        valid: vec![],
        times: vec![],
    };
    grow_to(&mut piece.codes, piece.rows, reservation)?;
    piece.codes.extend_from_slice(codes.codes);
    if let Some(valid) = codes.valid {
        grow_to(&mut piece.valid, valid.words(), reservation)?;
        piece.valid.extend((0..valid.words()).map(|w| valid.word(w)));
    }
    grow_to(&mut piece.times, times.len(), reservation)?;
    piece.times.extend_from_slice(times);
    if let Some(batch) = batch {
        let bytes = batch.copy_bytes();
        reservation.grow(bytes + PIECE_BYTES)?;
        piece.kept = Some(Kept::copy(&batch, bytes)?);
    }
    Ok(piece)
}

impl Plan {
    /// Columns of the right input that are looked at once the table is there.
    fn needed(&self) -> Vec<usize> {
        let mut needed = self.given();
        if !self.exact {
            needed.extend(&self.right_keys);
        }
        needed
    }

    /// Columns of the right input that come out or that the condition sees.
    pub(super) fn given(&self) -> Vec<usize> {
        let mut given: Vec<usize> = vec![];
        if !self.mode.only_left() || self.condition {
            given.extend(&self.right);
        }
        given.extend(self.left.iter().filter_map(|(_, stand_in)| *stand_in));
        given
    }
}

/// The rows of a batch that can match something or come out anyway, and their keys.
fn matchable<'a>(plan: &Plan, batch: &Batch<'a>, arena: &'a Arena) -> Result<(Batch<'a>, Codes<'a>)> {
    let mut codes = Codes::of(&plan.right_keys, plan.exact, batch, arena)?;
    if let Some(asof) = plan.asof {
        codes.valid = both(codes.valid, validity(&batch.column(asof.right), arena)?, arena)?;
    }
    match codes.valid {
        Some(valid) if !plan.mode.keeps_right() => {
            let rows = valid.indices(arena)?;
            let batch = batch.gather(rows, batch.columns().len(), arena)?;
            let codes = &*arena.collect(rows.len(), |i| codes.codes[rows[i] as usize])?;
            Ok((batch, Codes { codes, valid: None }))
        }
        _ => Ok((*batch, codes)),
    }
}
