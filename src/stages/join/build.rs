//! Gathers the right side: every lane keeps what is needed of its batches; once all is there, the table is built.
//!
//! Laws
//! - Everything is reserved before it is allocated.
//! - Rows that can match nothing are not kept, unless they come out without a match.

use super::super::codes::held;
use super::super::groups::{grow, grow_to};
use super::super::keys::Keys;
use super::Plan;
use super::pieces::{PIECE_BYTES, Piece, Pieces, put_together};
use super::probe::Prober;
use super::rest::Rest;
use super::scratch::Scratch;
use super::table::Table;
use standpipe_sdk::bits::both;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Bits, Budget, Build, Column, Columns, Data, Fill, Kept, Probe, Reservation, Source};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A join between its two streams.
pub(super) struct Join {
    pub(super) plan: Arc<Plan>,
    pub(super) budget: Arc<Budget>,
    pub(super) share: usize,
    lanes: Mutex<Vec<Lane>>,
    built: OnceLock<Arc<Built>>,
}

/// The right side, complete.
pub(super) struct Built {
    pub(super) pieces: Pieces,
    pub(super) table: Table,
    /// For `asof`: when, by position in the table.
    pub(super) times: Vec<i64>,
    /// For each batch one bit per row: some left row has matched it. Empty where nobody asks.
    matched: Vec<Vec<AtomicU64>>,
    _reservations: Vec<Reservation>,
}

struct Lane {
    pieces: Vec<(u64, Piece)>,
    reservation: Reservation,
}

impl Join {
    pub(super) fn new(plan: Arc<Plan>, setup: &Setup) -> Join {
        Join {
            plan,
            budget: setup.budget.clone(),
            share: setup.share,
            lanes: Mutex::default(),
            built: OnceLock::new(),
        }
    }

    fn built(&self) -> Result<Arc<Built>> {
        let built = self.built.get().cloned();
        built.ok_or_else(|| Error::Panic("a join is probed before its right side is full".into()))
    }
}

impl Build for Join {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let lane = Lane {
            pieces: vec![],
            reservation: self.budget.reserve(),
        };
        Ok(Box::new(Filler {
            scratch: Scratch::new(&self.budget, self.share)?,
            lane: Some(lane),
            join: self,
        }))
    }

    fn seal(&self) -> Result<()> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let built = Built::new(&self.plan, lanes, &self.budget).map_err(|e| held("join", e))?;
        // Sealed once: nobody has set it.
        let _ = self.built.set(Arc::new(built));
        Ok(())
    }

    fn prober(self: Arc<Self>) -> Result<Box<dyn Probe>> {
        let built = self.built()?;
        Ok(Box::new(Prober::new(&self, built)))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Rest::new(self.plan.clone(), self.built()?)))
    }
}

struct Filler {
    join: Arc<Join>,
    /// For what is computed of one batch.
    scratch: Scratch,
    /// `None` once it is done.
    lane: Option<Lane>,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let Some(lane) = &mut self.lane else {
            return Ok(());
        };
        loop {
            let outcome = lane.take(&self.join.plan, chunk, &batch, &self.scratch.arena);
            self.scratch.arena.reset();
            match outcome {
                Err(Error::Memory { .. }) if self.scratch.more() => {}
                outcome => return outcome,
            }
        }
    }

    fn done(&mut self) -> Result<()> {
        if let Some(lane) = self.lane.take() {
            let mut lanes = self.join.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.push(lane);
        }
        self.scratch.close();
        Ok(())
    }
}

impl Lane {
    fn take(&mut self, plan: &Plan, chunk: u64, batch: &Batch<'_>, arena: &Arena) -> Result<()> {
        let keys = Codes::of(&plan.right_keys, plan.exact, batch, arena)?;
        let mut valid = keys.valid;
        if let Some(asof) = plan.asof {
            valid = both(valid, validity(&batch.column(asof.right), arena)?, arena)?;
        }
        let (batch, codes, valid) = match valid {
            Some(valid) if !plan.mode.keeps_right() => {
                let rows = valid.indices(arena)?;
                let codes = &*arena.collect(rows.len(), |i| keys.codes[rows[i] as usize])?;
                (batch.gather(rows, batch.columns().len(), arena)?, codes, None)
            }
            valid => (*batch, keys.codes, valid),
        };
        let rows = batch.rows();
        if rows == 0 {
            return Ok(());
        }
        let before = self.reservation.bytes();
        let piece = self.piece(plan, &batch, codes, valid, arena);
        match piece.and_then(|piece| Ok((grow(&mut self.pieces, 1, &mut self.reservation)?, piece))) {
            Ok(((), piece)) => {
                self.pieces.push((chunk, piece));
                Ok(())
            }
            Err(error) => {
                self.reservation.shrink(self.reservation.bytes() - before);
                Err(held("join", error))
            }
        }
    }

    fn piece(
        &mut self,
        plan: &Plan,
        batch: &Batch<'_>,
        codes: &[u64],
        valid: Option<Bits<'_>>,
        arena: &Arena,
    ) -> Result<Piece> {
        let rows = batch.rows();
        let mut piece = Piece {
            kept: None,
            rows,
            codes: vec![],
            valid: vec![],
            times: vec![],
        };
        grow_to(&mut piece.codes, rows, &mut self.reservation)?;
        piece.codes.extend_from_slice(codes);
        if let Some(valid) = valid {
            grow_to(&mut piece.valid, valid.words(), &mut self.reservation)?;
            piece.valid.extend((0..valid.words()).map(|w| valid.word(w)));
        }
        if let Some(asof) = plan.asof {
            grow_to(&mut piece.times, rows, &mut self.reservation)?;
            let times = times(&batch.column(asof.right), arena)?;
            piece.times.extend_from_slice(times);
        }
        let needed = plan.needed();
        let all = batch.columns();
        if needed
            .iter()
            .any(|&index| all.get(index).is_some_and(|column| !column.is_absent()))
        {
            let mut columns = Columns::new(arena, all.len())?;
            for (index, column) in all.iter().enumerate() {
                columns.push(match needed.contains(&index) {
                    true => *column,
                    false => Column::absent(rows),
                });
            }
            let batch = Batch::new(columns.finish(), None, rows);
            let bytes = batch.copy_bytes();
            self.reservation.grow(bytes + PIECE_BYTES)?;
            piece.kept = Some(Kept::copy(&batch, bytes)?);
        }
        Ok(piece)
    }
}

impl Plan {
    /// Columns of the right input that are looked at once the table is there.
    fn needed(&self) -> Vec<usize> {
        let mut needed: Vec<usize> = vec![];
        if !self.mode.only_left() || self.condition {
            needed.extend(&self.right);
        }
        if !self.exact {
            needed.extend(&self.right_keys);
        }
        needed.extend(self.left.iter().filter_map(|(_, stand_in)| *stand_in));
        needed
    }
}

impl Built {
    fn new(plan: &Plan, lanes: Vec<Lane>, budget: &Arc<Budget>) -> Result<Built> {
        let mut reservation = budget.reserve();
        let mut list: Vec<(u64, Piece)> = vec![];
        grow(
            &mut list,
            lanes.iter().map(|lane| lane.pieces.len()).sum(),
            &mut reservation,
        )?;
        let mut reservations = vec![];
        for lane in lanes {
            list.extend(lane.pieces);
            reservations.push(lane.reservation);
        }
        // Stable: the batches of one chunk are in one lane, in order.
        list.sort_by_key(|(chunk, _)| *chunk);
        let mut pieces: Vec<Piece> = vec![];
        grow(&mut pieces, list.len(), &mut reservation)?;
        pieces.extend(list.into_iter().map(|(_, piece)| piece));
        let width = pieces
            .iter()
            .filter_map(|piece| piece.kept.as_ref())
            .map(|kept| kept.batch().columns().len());
        let width = width.max().unwrap_or(0);
        let pieces = put_together(pieces, width, &mut reservation)?;
        let mut pieces = Pieces::new(pieces)?;
        let valid_rows = |piece: &Piece| (0..piece.rows).filter(|&row| piece.is_valid(row)).count();
        let rows = pieces.list.iter().map(valid_rows).sum();
        let table = Table::build(rows, &mut reservation, |f| {
            for (at, piece) in pieces.list.iter().enumerate() {
                for (row, &code) in piece.codes.iter().enumerate() {
                    if piece.is_valid(row) {
                        f(code, pieces.id(at, row));
                    }
                }
            }
        })?;
        let mut times = vec![];
        if plan.asof.is_some() {
            grow_to(&mut times, rows, &mut reservation)?;
            times.extend(table.ids(0..rows).iter().map(|&id| {
                let (piece, row) = pieces.pick(id);
                pieces.list[piece as usize].times[row as usize]
            }));
        }
        let mut matched = vec![];
        if plan.mode.keeps_right() {
            for piece in &pieces.list {
                let mut bits: Vec<AtomicU64> = vec![];
                grow_to(&mut bits, piece.rows.div_ceil(64), &mut reservation)?;
                bits.resize_with(piece.rows.div_ceil(64), AtomicU64::default);
                grow(&mut matched, 1, &mut reservation)?;
                matched.push(bits);
            }
        }
        for piece in &mut pieces.list {
            let bytes = piece.codes.capacity() * size_of::<u64>() + piece.times.capacity() * size_of::<i64>();
            piece.codes = vec![];
            piece.times = vec![];
            reservation.shrink(bytes.min(reservation.bytes()));
        }
        reservations.push(reservation);
        Ok(Built {
            pieces,
            table,
            times,
            matched,
            _reservations: reservations,
        })
    }

    /// A left row has matched the row `id`.
    pub(super) fn mark(&self, id: u32) {
        let (piece, row) = self.pieces.pick(id);
        if let Some(word) = self
            .matched
            .get(piece as usize)
            .and_then(|bits| bits.get(row as usize / 64))
        {
            let bit = 1 << (row % 64);
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, Relaxed);
            }
        }
    }

    /// Rows of a batch that nobody has matched.
    pub(super) fn unmatched(&self, piece: usize) -> impl Iterator<Item = u32> + '_ {
        let rows = self.pieces.list[piece].rows;
        let is_matched = move |row: &usize| {
            let word = self.matched.get(piece).and_then(|bits| bits.get(row / 64));
            word.is_some_and(|word| word.load(Relaxed) >> (row % 64) & 1 == 1)
        };
        (0..rows).filter(move |row| !is_matched(row)).map(|row| row as u32)
    }
}

/// The keys of a batch as numbers.
pub(super) struct Codes<'a> {
    pub(super) codes: &'a [u64],
    /// Where no key is null; `None` = everywhere.
    pub(super) valid: Option<Bits<'a>>,
}

impl<'a> Codes<'a> {
    /// `exact`: the key itself, else a hash of the keys.
    pub(super) fn of(keys: &[usize], exact: bool, batch: &Batch<'a>, arena: &'a Arena) -> Result<Codes<'a>> {
        let rows = batch.rows();
        let mut valid = None;
        for &key in keys {
            valid = both(valid, validity(&batch.column(key), arena)?, arena)?;
        }
        let codes: &[u64] = match keys {
            [] => arena.fill(rows, 0)?,
            [key] if exact => exact_codes(&batch.column(*key), arena)?,
            _ => {
                let keys = Keys::grouping(keys.iter().copied());
                keys.block(batch, arena)?.hashes(arena)?
            }
        };
        Ok(Codes { codes, valid })
    }
}

/// Where a column has values; `None` = everywhere.
pub(super) fn validity<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<Option<Bits<'a>>> {
    match column.data() {
        Data::Null | Data::Absent => Ok(Some(Bits::all(arena, column.len(), false)?)),
        _ => Ok(column.valid()),
    }
}

/// A key of a type that [`super::is_exact`]. Equal keys have equal codes.
fn exact_codes<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<&'a [u64]> {
    Ok(match column.data() {
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => arena.map(v, |v| v as u64)?,
        Data::Date(v) => arena.map(v, |v| v as u64)?,
        Data::Float(v) => arena.map(v, |v| {
            let bits = if v.is_nan() { f64::NAN } else { v + 0.0 };
            bits.to_bits()
        })?,
        Data::Bool(v) => arena.collect(column.len(), |row| u64::from(v.get(row)))?,
        _ => arena.fill(column.len(), 0)?,
    })
}

/// A time or number as an int with the same order.
pub(super) fn times<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<&'a [i64]> {
    Ok(match column.data() {
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => v,
        Data::Date(v) => arena.map(v, i64::from)?,
        Data::Float(v) => arena.map(v, |v| {
            let bits = if v.is_nan() { f64::NAN.abs() } else { v + 0.0 }.to_bits() as i64;
            // Negative numbers the other way round.
            if bits < 0 { bits ^ i64::MAX } else { bits }
        })?,
        _ => arena.fill(column.len(), 0)?,
    })
}
