//! Rows that wait on disk in their order, until it is known what becomes of them.
//!
//! Laws
//! - Nothing is sorted: what a lane takes ascends, and lanes are merged when the rows are read again.
//! - The memory that this takes is set aside when a lane is made.

use super::keys::KeyBlock;
use super::picked::{self, PIECE_BYTES};
use super::spill::{SegmentWriter, Store};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Column, Data, Kept, Reservation};
use std::sync::Arc;

/// Short batches that are collected, at most.
const MOST_BATCHES: usize = 128;
/// Bytes of a row's order as a key.
pub(super) const ORDER_BYTES: usize = 16;
/// What the order of a row takes as it is written, and some more.
const ROW_BYTES: usize = 2 * ORDER_BYTES;

/// What a lane sets aside beside its writer: short batches, and all of them in one.
pub(super) fn spool_bytes(frame_bytes: usize) -> usize {
    3 * frame_bytes
}

/// One lane's way to disk.
pub(super) struct Spool {
    store: Arc<Store>,
    writer: SegmentWriter,
    /// Batches too short to be written by themselves.
    short: Vec<Kept>,
    short_bytes: usize,
    arena: Arena,
    _room: Reservation,
}

impl Spool {
    /// # Errors
    /// `Memory` if the budget does not have what is to be set aside.
    pub(super) fn new(store: &Arc<Store>, budget: &Arc<Budget>) -> Result<Spool> {
        let mut room = budget.reserve();
        room.grow(spool_bytes(store.frame_bytes()))?;
        Ok(Spool {
            store: store.clone(),
            writer: store.writer()?,
            short: vec![],
            short_bytes: 0,
            arena: Arena::new(2 * store.frame_bytes()),
            _room: room,
        })
    }

    /// Takes rows that are behind all before them; `order` are the columns that say so.
    ///
    /// # Errors
    /// `Memory` before anything was taken; what the disk answers.
    pub(super) fn push(&mut self, rows: &Batch<'_>, order: [usize; 2]) -> Result<()> {
        let bytes = rows.copy_bytes() + PIECE_BYTES;
        let is_short = bytes < self.store.frame_bytes() / 2;
        let fits = self.short_bytes + bytes <= self.store.frame_bytes() && self.short.len() < MOST_BATCHES;
        if !is_short || !fits {
            self.flush(order)?;
        }
        if is_short {
            self.short.push(Kept::copy(rows, bytes)?);
            self.short_bytes += bytes;
            return Ok(());
        }
        self.writer.make_room_for(rows, ORDER_BYTES)?;
        let most = (self.arena.limit() / ROW_BYTES).max(1);
        let mut columns: Vec<Column<'_>> = vec![];
        for from in (0..rows.rows()).step_by(most) {
            let len = most.min(rows.rows() - from);
            columns.clear();
            columns.extend(rows.columns().iter().map(|column| column.slice(from, len)));
            let some = Batch::new(&columns, None, len);
            let written = write(&mut self.writer, &some, order, &self.arena);
            self.arena.reset();
            written?;
        }
        Ok(())
    }

    /// Writes the short batches.
    fn flush(&mut self, order: [usize; 2]) -> Result<()> {
        let Spool {
            writer,
            short,
            short_bytes,
            arena,
            ..
        } = self;
        let kinds = picked::kinds(short.iter());
        let kind = |at: usize| kinds.get(at);
        let mut from = 0;
        while from < short.len() {
            let mut to = from + 1;
            while to < short.len() && kind(to) == kind(from) {
                to += 1;
            }
            let some = &short[from..to];
            let width = some[0].batch().columns().len();
            let written = (|| {
                let count = some.iter().map(|kept| kept.batch().rows()).sum();
                let mut next = (0, 0);
                let picks = arena.collect(count, |_| {
                    while next.1 >= some[next.0].batch().rows() {
                        next = (next.0 + 1, 0);
                    }
                    let pick = (next.0 as u32, next.1 as u32);
                    next.1 += 1;
                    pick
                })?;
                let rows = picked::gather(some, picks, width, arena)?;
                write(writer, &rows, order, arena)
            })();
            arena.reset();
            match written {
                Ok(()) => from = to,
                // No room for all of them in one: one after the other.
                Err(Error::Memory { .. }) => {
                    for kept in some {
                        let own = Arena::new(usize::MAX);
                        write(writer, &kept.batch(), order, &own)?;
                    }
                    from = to;
                }
                Err(error) => return Err(error),
            }
        }
        short.clear();
        *short_bytes = 0;
        Ok(())
    }

    /// All that was taken, on disk.
    pub(super) fn finish(mut self, order: [usize; 2]) -> Result<()> {
        self.flush(order)?;
        self.writer.keep()
    }
}

fn write(writer: &mut SegmentWriter, rows: &Batch<'_>, [number, row]: [usize; 2], arena: &Arena) -> Result<()> {
    let (numbers, order) = (ints(rows, number)?, ints(rows, row)?);
    let keys = orders(rows.rows(), |at| (numbers[at] as u64, order[at] as u64), arena)?;
    let none = arena.fill(rows.rows(), 0u64)?;
    let first = arena.fill(rows.rows(), 0u32)?;
    writer.make_room(rows, &keys)?;
    writer.append(rows, &keys, none, first)
}

/// An int column without nulls.
pub(super) fn ints<'a>(rows: &Batch<'a>, column: usize) -> Result<&'a [i64]> {
    match rows.column(column).data() {
        Data::Int(values) => Ok(values),
        _ => Err(Error::Panic("spilled rows without their order".into())),
    }
}

/// Rows by their order: `(number, row)` of each.
pub(super) fn orders<'a>(rows: usize, of: impl Fn(usize) -> (u64, u64), arena: &'a Arena) -> Result<KeyBlock<'a>> {
    let bytes = arena.fill(rows * ORDER_BYTES, 0u8)?;
    for (at, key) in bytes.as_chunks_mut::<ORDER_BYTES>().0.iter_mut().enumerate() {
        let (number, row) = of(at);
        *key = (u128::from(number) << 64 | u128::from(row)).to_be_bytes();
    }
    Ok(KeyBlock::every(bytes, ORDER_BYTES, rows))
}
