//! The right side's rows: batches that are kept, and columns of rows gathered out of them.
//!
//! Laws
//! - An id is (batch, row) packed into 32 bits; ids ascend in right order.
//! - Small batches are put together, so that a gather looks at few.

use super::super::groups::grow;
use super::super::picked::{PIECE_BYTES, kinds, same_kinds};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Bits, Column, Columns, Data, Kept, RecordData, Reservation};

/// Stands for "no right row".
pub(super) const NONE: u32 = u32::MAX;
/// Batches with fewer rows are put together.
const FEW_ROWS: usize = 1 << 12;

/// Some rows in right order.
pub(super) struct Piece {
    /// What is needed of them; `None` if only their keys are.
    pub(super) kept: Option<Kept>,
    pub(super) rows: usize,
    /// Per row the code of its key; given back once the table is there.
    pub(super) codes: Vec<u64>,
    /// One bit per row: its key has no null. Empty: none has.
    pub(super) valid: Vec<u64>,
    /// For `asof`: when.
    pub(super) times: Vec<i64>,
}

impl Piece {
    pub(super) fn is_valid(&self, row: usize) -> bool {
        self.valid.is_empty() || self.valid[row / 64] >> (row % 64) & 1 == 1
    }

    fn column(&self, index: usize) -> Column<'_> {
        match &self.kept {
            Some(kept) => kept.batch().column(index),
            None => Column::absent(self.rows),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) list: Vec<Piece>,
    shift: u32,
    /// A number per batch: those with one number store the same kinds of values. Empty if all do, which is the rule.
    kinds: Vec<u32>,
}

impl Pieces {
    /// Pieces in right order.
    ///
    /// # Errors
    /// `Memory` if there are too many for an id.
    pub(super) fn new(list: Vec<Piece>) -> Result<Pieces> {
        let most = list.iter().map(|piece| piece.rows).max().unwrap_or(0).max(1);
        let shift = most.next_power_of_two().trailing_zeros();
        let fits = (list.len() as u64) << shift < u64::from(NONE);
        if !fits {
            return Err(Error::Memory {
                wanted: list.len() << shift,
                used: 0,
                limit: NONE as usize,
            });
        }
        let kinds = kinds(list.iter().filter_map(|piece| piece.kept.as_ref()));
        Ok(Pieces { list, shift, kinds })
    }

    pub(super) fn id(&self, piece: usize, row: usize) -> u32 {
        (piece << self.shift | row) as u32
    }

    #[inline]
    pub(super) fn pick(&self, id: u32) -> Pick {
        (id >> self.shift, id & ((1 << self.shift) - 1))
    }

    /// Whether any two batches can be gathered into one column.
    pub(super) fn are_alike(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many of `ids`, from the first on, can be gathered into one batch.
    pub(super) fn alike(&self, ids: &[u32]) -> usize {
        if self.kinds.is_empty() {
            return ids.len();
        }
        let kind = |id: u32| (id != NONE).then(|| self.kinds[self.pick(id).0 as usize]);
        let mut first = None;
        let other = ids.iter().position(|&id| match (first, kind(id)) {
            (_, None) => false,
            (None, some) => {
                first = some;
                false
            }
            (first, some) => first != some,
        });
        other.unwrap_or(ids.len())
    }

    /// Some columns of the rows `ids`; `NONE` gives nulls.
    pub(super) fn gather<'b>(&'b self, indices: &[usize], ids: &[u32], arena: &'b Arena) -> Result<&'b [Column<'b>]> {
        // Few rows out of many batches: only those that take part. Also where others store another kind of values.
        let all = self.are_alike() && (self.list.len() <= ids.len() || self.list.len() <= 16);
        let used: &[u32] = if all {
            arena.collect(self.list.len(), |piece| piece as u32)?
        } else {
            let used = arena.collect(ids.len(), |i| self.pick(ids[i]).0)?;
            used.sort_unstable();
            let mut count = 0;
            for at in 0..used.len() {
                if (used[at] as usize) < self.list.len() && (count == 0 || used[count - 1] != used[at]) {
                    used[count] = used[at];
                    count += 1;
                }
            }
            &used[..count]
        };
        let none = (used.len() as u32, 0);
        let picks = arena.collect(ids.len(), |i| {
            let id = ids[i];
            if id == NONE {
                return none;
            }
            let (piece, row) = self.pick(id);
            match all {
                true => (piece, row),
                false => (used.binary_search(&piece).unwrap_or(0) as u32, row),
            }
        })?;
        let some_none = ids.contains(&NONE);
        let mut columns = Columns::new(arena, indices.len())?;
        for &index in indices {
            let mut parts = Columns::new(arena, used.len() + usize::from(some_none))?;
            for &piece in used {
                parts.push(self.list[piece as usize].column(index));
            }
            if some_none {
                parts.push(Column::nulls(1));
            }
            columns.push(Column::interleave(parts.finish(), picks, arena)?);
        }
        Ok(columns.finish())
    }

    /// The same as one record column, null for `NONE`.
    pub(super) fn record<'b>(&'b self, indices: &[usize], ids: &[u32], arena: &'b Arena) -> Result<Column<'b>> {
        let columns = self.gather(indices, ids, arena)?;
        let valid = match ids.contains(&NONE) {
            true => Some(Bits::collect(arena, ids.len(), |i| ids[i] != NONE)?),
            false => None,
        };
        if columns.is_empty() {
            return Ok(Column::nulls(ids.len()));
        }
        Ok(Column::new(Data::Record(RecordData::new(columns)), valid, ids.len()))
    }
}

/// Puts small neighbours together, where there is room for it.
///
/// # Errors
/// `Memory` if there is no room for the list.
pub(super) fn put_together(list: Vec<Piece>, width: usize, reservation: &mut Reservation) -> Result<Vec<Piece>> {
    let mut out: Vec<Piece> = vec![];
    grow(&mut out, list.len(), reservation)?;
    let mut run: Vec<Piece> = vec![];
    let mut rows = 0;
    for piece in list {
        let fits = rows + piece.rows <= FEW_ROWS && run.last().is_none_or(|last| alike(last, &piece));
        if !fits {
            join_run(&mut run, width, &mut out, reservation)?;
            rows = 0;
        }
        rows += piece.rows;
        run.push(piece);
    }
    join_run(&mut run, width, &mut out, reservation)?;
    Ok(out)
}

fn alike(a: &Piece, b: &Piece) -> bool {
    match (&a.kept, &b.kept) {
        (Some(a), Some(b)) => {
            let (a, b) = (a.batch(), b.batch());
            same_kinds(&a, &b)
        }
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn join_run(run: &mut Vec<Piece>, width: usize, out: &mut Vec<Piece>, reservation: &mut Reservation) -> Result<()> {
    if run.len() <= 1 {
        out.append(run);
        return Ok(());
    }
    let rows = run.iter().map(|piece| piece.rows).sum();
    let room: usize = (run.iter().filter_map(|piece| piece.kept.as_ref()))
        .map(Kept::bytes)
        .sum();
    // Picks, views and their copy.
    let limit = room * 2 + rows * 64 + (run.len() + 4) * width.max(1) * 512 + (64 << 10);
    let cushion = limit + room + PIECE_BYTES + 3 * rows * size_of::<u64>();
    if reservation.grow(cushion).is_err() {
        // No room for both copies: then they stay what they are.
        out.append(run);
        return Ok(());
    }
    reservation.shrink(cushion);
    let pieces = std::mem::take(run);
    let mut whole = Piece {
        kept: None,
        rows,
        codes: vec![],
        valid: vec![],
        times: vec![],
    };
    let is_null = pieces.iter().any(|piece| !piece.valid.is_empty());
    grow(&mut whole.codes, rows, reservation)?;
    if is_null {
        grow(&mut whole.valid, rows.div_ceil(64), reservation)?;
        whole.valid.resize(rows.div_ceil(64), 0);
    }
    if pieces.iter().any(|piece| !piece.times.is_empty()) {
        grow(&mut whole.times, rows, reservation)?;
    }
    let mut at = 0;
    for piece in &pieces {
        whole.codes.extend_from_slice(&piece.codes);
        whole.times.extend_from_slice(&piece.times);
        if is_null {
            for row in 0..piece.rows {
                whole.valid[(at + row) / 64] |= u64::from(piece.is_valid(row)) << ((at + row) % 64);
            }
        }
        at += piece.rows;
    }
    if pieces.iter().all(|piece| piece.kept.is_some()) {
        reservation.grow(limit)?;
        let made = gathered(&pieces, width, limit).and_then(|(arena, picks)| {
            let batch = gather_all(&pieces, width, &picks, &arena)?;
            let bytes = batch.copy_bytes();
            reservation.grow(bytes + PIECE_BYTES)?;
            let kept = Kept::copy(&batch, bytes);
            if kept.is_err() {
                reservation.shrink(bytes + PIECE_BYTES);
            }
            kept
        });
        reservation.shrink(limit);
        whole.kept = Some(made?);
    }
    for piece in &pieces {
        reservation.shrink(bytes_of(piece));
    }
    out.push(whole);
    Ok(())
}

/// What a piece has reserved.
pub(super) fn bytes_of(piece: &Piece) -> usize {
    piece.kept.as_ref().map_or(0, |kept| kept.bytes() + PIECE_BYTES)
        + piece.codes.capacity() * size_of::<u64>()
        + piece.valid.capacity() * size_of::<u64>()
        + piece.times.capacity() * size_of::<i64>()
}

fn gathered(pieces: &[Piece], _: usize, limit: usize) -> Result<(Arena, Vec<Pick>)> {
    let mut picks: Vec<Pick> = vec![];
    let rows = pieces.iter().map(|piece| piece.rows).sum();
    picks.try_reserve_exact(rows).map_err(|_| Error::Memory {
        wanted: rows * size_of::<Pick>(),
        used: 0,
        limit,
    })?;
    for (at, piece) in pieces.iter().enumerate() {
        picks.extend((0..piece.rows).map(|row| (at as u32, row as u32)));
    }
    Ok((Arena::new(limit), picks))
}

fn gather_all<'b>(pieces: &'b [Piece], width: usize, picks: &[Pick], arena: &'b Arena) -> Result<Batch<'b>> {
    let mut columns = Columns::new(arena, width)?;
    for index in 0..width {
        let mut parts = Columns::new(arena, pieces.len())?;
        for piece in pieces {
            parts.push(piece.column(index));
        }
        columns.push(Column::interleave(parts.finish(), picks, arena)?);
    }
    Ok(Batch::new(columns.finish(), None, picks.len()))
}
