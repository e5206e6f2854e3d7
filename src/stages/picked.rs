//! Rows picked out of batches that are kept: what `sort` and `top` give on.
//!
//! Laws
//! - Claims of the rows are gathered in parallel; a row's place is its number in the order.
//! - Only batches that store the same kinds of values become one.

use super::from::numbered;
use standpipe_sdk::error::Result;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Column, Columns, Faults, Kept, Locator, Part, Reader, Reservation, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rows of one claim.
const CLAIM_ROWS: usize = 32 << 10;
/// What a batch costs beside its bytes: its box, its arena, the allocator's own.
pub(super) const PIECE_BYTES: usize = 512;

/// Rows of batches that are kept, in an order of their own, as a source.
pub(super) struct Picked {
    pieces: Vec<Kept>,
    kinds: Vec<u32>,
    order: Vec<Pick>,
    width: usize,
    /// Rows that make about a chunk.
    part_rows: usize,
    next: AtomicU64,
    _reservations: Vec<Reservation>,
}

impl Source for Picked {
    fn ticket(&self) -> Option<u64> {
        let claims = self.order.len().div_ceil(CLAIM_ROWS) as u64;
        self.next
            .fetch_update(Relaxed, Relaxed, |claim| (claim < claims).then_some(claim + 1))
            .ok()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(PickedReader {
            picked: self,
            at: 0,
            end: 0,
        }))
    }
}

/// One lane's claim: rows `at..end` of the order.
struct PickedReader {
    picked: Arc<Picked>,
    at: usize,
    end: usize,
}

impl Reader for PickedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let rows = self.picked.order.len();
        self.at = usize::try_from(ticket)
            .unwrap_or(usize::MAX)
            .saturating_mul(CLAIM_ROWS)
            .min(rows);
        self.end = self.at.saturating_add(CLAIM_ROWS).min(rows);
        Ok(self.at < self.end)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let picked = &*self.picked;
        let len = max_rows.min(picked.part_rows).clamp(1, (self.end - self.at).max(1));
        let picks = picked
            .order
            .get(self.at..self.end.min(self.at + len))
            .unwrap_or_default();
        let picks = alike(picks, |pick| picked.kinds.get(pick.0 as usize));
        let rows = gather(&picked.pieces, picks, picked.width, arena)?;
        let places = numbered(self.at as u64, picks.len(), arena)?;
        let batch = Batch::new(rows.columns(), Some(places), picks.len());
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at += picks.len();
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last: self.at >= self.end,
            locator: Locator::default(),
        })
    }
}

impl Picked {
    /// The first `width` columns of the rows of `pieces` that `order` names, about `chunk_bytes` at a time.
    pub(super) fn new(
        pieces: Vec<Kept>,
        order: Vec<Pick>,
        width: usize,
        chunk_bytes: usize,
        reservations: Vec<Reservation>,
    ) -> Picked {
        let kinds = kinds(pieces.iter());
        let bytes: usize = pieces.iter().map(Kept::bytes).sum();
        let rows: usize = pieces.iter().map(|piece| piece.batch().rows()).sum();
        let row_bytes = (bytes / rows.max(1)).max(1);
        Picked {
            pieces,
            kinds,
            order,
            width,
            part_rows: (chunk_bytes / row_bytes).max(1),
            next: AtomicU64::new(0),
            _reservations: reservations,
        }
    }
}

/// The first of `rows` whose batches store the same kinds of values.
pub(super) fn alike<T, K: PartialEq>(rows: &[T], kind: impl Fn(&T) -> Option<K>) -> &[T] {
    let first = rows.first().and_then(&kind);
    let other = rows.iter().position(|row| kind(row) != first);
    &rows[..other.unwrap_or(rows.len())]
}

/// The first `width` columns of the rows that `picks` names, which all store the same kinds of values.
pub(super) fn gather<'a>(pieces: &'a [Kept], picks: &[Pick], width: usize, arena: &'a Arena) -> Result<Batch<'a>> {
    gather_of(picks, width, arena, |piece| pieces[piece as usize].batch())
}

/// The same, of batches that `batch_of` knows.
pub(super) fn gather_of<'a>(
    picks: &[Pick],
    width: usize,
    arena: &'a Arena,
    batch_of: impl Fn(u32) -> Batch<'a>,
) -> Result<Batch<'a>> {
    let (used, local) = taking_part(picks, arena)?;
    let mut columns = Columns::new(arena, width)?;
    for index in 0..width {
        let mut parts = Columns::new(arena, used.len())?;
        for &piece in used {
            parts.push(batch_of(piece).column(index));
        }
        columns.push(Column::interleave(parts.finish(), local, arena)?);
    }
    Ok(Batch::new(columns.finish(), None, picks.len()))
}

/// The batches that take part, ascending, and the picks as positions among them: there may be far more batches than rows here.
pub(super) fn taking_part<'a>(picks: &[Pick], arena: &'a Arena) -> Result<(&'a [u32], &'a [Pick])> {
    let used = arena.collect(picks.len(), |i| picks[i].0)?;
    used.sort_unstable();
    let mut count = 0;
    for at in 0..used.len() {
        if count == 0 || used[count - 1] != used[at] {
            used[count] = used[at];
            count += 1;
        }
    }
    let used = &used[..count];
    let local = arena.collect(picks.len(), |i| {
        let (piece, row) = picks[i];
        (used.binary_search(&piece).unwrap_or(0) as u32, row)
    })?;
    Ok((used, local))
}

/// A number per batch: batches with the same one store the same kinds of values. Empty if all do, which is the rule; a
/// `union` of formats may bring text that nobody has parsed together with text that is made.
pub(super) fn kinds<'k>(pieces: impl Iterator<Item = &'k Kept>) -> Vec<u32> {
    let mut kinds: Vec<Alike<'k>> = vec![];
    let mut numbers = vec![];
    for piece in pieces {
        let batch = piece.batch();
        let known = kinds.iter_mut().position(|kind| kind.takes(&batch));
        numbers.push(known.unwrap_or(kinds.len()) as u32);
        if known.is_none() {
            let mut kind = Alike::default();
            kind.takes(&batch);
            kinds.push(kind);
        }
    }
    if kinds.len() <= 1 { vec![] } else { numbers }
}

/// Batches that store the same kinds of values.
///
/// An all-null column mixes with everything, so a batch is compared with every batch that was taken, not with one; but one stands for all
/// that are all null in the same places.
#[derive(Default)]
pub(super) struct Alike<'a>(Vec<Batch<'a>>);

impl<'a> Alike<'a> {
    /// Takes a batch if it mixes with all that were taken.
    pub(super) fn takes(&mut self, batch: &Batch<'a>) -> bool {
        let mixes = self.0.iter().all(|other| mix(other, batch));
        if mixes && !self.0.iter().any(|other| same_kinds(other, batch)) {
            self.0.push(*batch);
        }
        mixes
    }
}

/// Whether rows of both can be in one batch.
pub(super) fn mix(a: &Batch<'_>, b: &Batch<'_>) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.mixes_with(b))
}

/// Whether both store the same kinds of values, and are all null in the same places.
pub(super) fn same_kinds(a: &Batch<'_>, b: &Batch<'_>) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.stores_as(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::{Data, ListData, Text, View};

    #[test]
    fn what_is_null_all_the_way_down_mixes_with_everything_but_tells_nothing() {
        let views = [View::inline(b"7").unwrap(); 2];
        let children = [
            Column::nulls(2),
            Column::int(&[1, 2], None),
            Column::new(Data::Verbatim(Text::inline(&views)), None, 2),
        ];
        let pieces: Vec<Kept> = [0, 1, 0, 2, 1, 2]
            .map(|at| {
                let offsets = &[0, 1, 2];
                let list = ListData {
                    offsets,
                    child: &children[at],
                };
                let columns = [Column::new(Data::List(list), None, 2)];
                Kept::copy(&Batch::new(&columns, None, 2), 1 << 10).unwrap()
            })
            .into();
        assert_eq!(kinds(pieces.iter()), [0, 0, 0, 1, 0, 1]);
    }
}
