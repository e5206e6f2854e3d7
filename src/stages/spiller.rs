//! Rows that are held, on their way to disk: what a stage keeps in lists and has no memory for becomes sorted segments.
//!
//! Laws
//! - Nothing of the lists changes here: after a refusal all rows are in no segment yet.
//! - What writing a row takes is set aside when the spiller is made; for a row that is longer than usual, before it is held ([`Spiller::make_room`]).

use super::copies::{Copies, Located, Scratch};
use super::keys::KeyBlock;
use super::picked::{gather, kinds};
use super::spill::{SegmentWriter, Store};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Column, Columns, Data};
use std::sync::Arc;

/// What is set aside of a lane's frames ([`FRAMES_OF_LANE`](super::spill::FRAMES_OF_LANE)): for work, for copies, and for lists. The one
/// that is left is for groups or bounds.
pub(super) const SCRATCH_FRAMES: usize = 4;
pub(super) const COPY_FRAMES: usize = 3;
pub(super) const LIST_FRAMES: usize = 2;

/// A row that is held.
pub(super) trait Held: Located {
    /// Where it came in: what rows of equal keys are told apart by.
    fn order(&self) -> (u64, u32);

    /// Its number, if the rows on disk are to have one as their first column.
    fn number(&self) -> Option<i64>;
}

/// What the lists that writing takes have of one row.
const ROW_BYTES: usize = 64;

/// The way of one lane's rows to disk.
pub(super) struct Spiller {
    writer: SegmentWriter,
    frame_bytes: usize,
    own: usize,
    key: Vec<u8>,
}

/// The next row: in which of the lists, counted in their order, and which one of it.
#[derive(Clone, Copy, Default)]
struct Cursor {
    list: usize,
    row: usize,
}

/// Appends the key of a row of a list.
pub(super) type KeyOf<'k, E> = dyn Fn(usize, &E, &mut Vec<u8>) -> Result<()> + 'k;

/// Lists of held rows, which are sorted, in their order.
pub(super) struct Lists<'l, 'e, E> {
    /// How many.
    pub(super) count: usize,
    /// The lists by their place in the order.
    pub(super) list: &'l dyn Fn(usize) -> &'e [E],
    /// The key of a row of a list: by it rows ascend.
    pub(super) key: &'l KeyOf<'l, E>,
    pub(super) copies: &'l Copies,
}

impl<E: Held> Lists<'_, '_, E> {
    fn get(&self, at: (u32, u32)) -> &E {
        &(self.list)(at.0 as usize)[at.1 as usize]
    }

    /// The rows from `cursor` on, and where the next one is.
    fn walk<'a>(&self, cursor: &mut Cursor, most: usize, arena: &'a Arena) -> Result<&'a [(u32, u32)]> {
        let rows = arena.fill(most, (0u32, 0u32))?;
        let mut count = 0;
        while count < most && cursor.list < self.count {
            if cursor.row < (self.list)(cursor.list).len() {
                rows[count] = (cursor.list as u32, cursor.row as u32);
                count += 1;
                cursor.row += 1;
            } else {
                (cursor.list, cursor.row) = (cursor.list + 1, 0);
            }
        }
        Ok(&rows[..count])
    }

    /// Whether there is a row at `cursor` or behind it.
    fn has(&self, mut cursor: Cursor) -> bool {
        while cursor.list < self.count {
            if cursor.row < (self.list)(cursor.list).len() {
                return true;
            }
            (cursor.list, cursor.row) = (cursor.list + 1, 0);
        }
        false
    }
}

impl Spiller {
    /// For rows of `own` columns.
    ///
    /// # Errors
    /// `Memory` if the budget does not have what is to be set aside.
    pub(super) fn new(store: &Arc<Store>, own: usize) -> Result<Spiller> {
        Ok(Spiller {
            writer: store.writer()?,
            frame_bytes: store.frame_bytes(),
            own,
            key: vec![],
        })
    }

    /// Makes sure that any row of `rows`, with a key of at most `key_bytes`, can be written later on. To be asked before they are held. About how
    /// many bytes of scratch memory that takes then, if it is more than usual.
    ///
    /// # Errors
    /// `Memory` if there is no room for it.
    pub(super) fn make_room(&mut self, rows: &Batch<'_>, key_bytes: usize) -> Result<usize> {
        let widest = self.writer.make_room_for(rows, key_bytes)?;
        if widest <= self.frame_bytes {
            return Ok(0);
        }
        // Texts stay where they are when rows are gathered, elements of lists do not.
        let is_nested = |column: &Column<'_>| matches!(column.data(), Data::List(_) | Data::Record(_));
        let gathered = match rows.columns().iter().any(is_nested) {
            true => 3 * widest,
            false => 0,
        };
        Ok(gathered + key_bytes + 2 * self.frame_bytes)
    }

    /// Keeps a segment of all rows.
    ///
    /// # Errors
    /// `Memory` if there is no room for a row; `Failed` if the disk is full or fails. Nothing was written then.
    pub(super) fn segment<E: Held>(&mut self, lists: &Lists<'_, '_, E>, scratch: &mut Scratch) -> Result<()> {
        let written = self.write(lists, scratch).and_then(|()| self.writer.keep());
        if written.is_err() {
            self.writer.forget();
        }
        written
    }

    fn write<E: Held>(&mut self, lists: &Lists<'_, '_, E>, scratch: &mut Scratch) -> Result<()> {
        let Spiller {
            writer,
            frame_bytes,
            own,
            key,
        } = self;
        let kinds = kinds(lists.copies.pieces().iter());
        let usual = (2 * *frame_bytes / (lists.copies.row_bytes() + ROW_BYTES)).clamp(1, 1 << 14);
        let (mut cursor, mut len) = (Cursor::default(), usual);
        while lists.has(cursor) {
            let work = |arena: &Arena| {
                let mut next = cursor;
                let some = lists.walk(&mut next, len, arena)?;
                let kind = |at: &(u32, u32)| kinds.get(lists.get(*at).at().0 as usize).copied();
                let alike = super::picked::alike(some, |at| Some(kind(at)));
                if alike.len() < some.len() {
                    next = cursor;
                    lists.walk(&mut next, alike.len(), arena)?;
                }
                append(writer, lists, alike, *own, key, arena)?;
                Ok(next)
            };
            // A single row has all the memory that there is.
            let next = if len > 1 {
                scratch.within(work)
            } else {
                scratch.with(work)
            };
            match next {
                Ok(next) => (cursor, len) = (next, usual),
                // Nothing was written: gathering comes first.
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn append<E: Held>(
    writer: &mut SegmentWriter,
    lists: &Lists<'_, '_, E>,
    some: &[(u32, u32)],
    own: usize,
    key: &mut Vec<u8>,
    arena: &Arena,
) -> Result<()> {
    let picks: &[Pick] = arena.collect(some.len(), |i| lists.get(some[i]).at())?;
    let rows = gather(lists.copies.pieces(), picks, own, arena)?;
    let mut columns = Columns::new(arena, own + 1)?;
    if some.first().is_some_and(|at| lists.get(*at).number().is_some()) {
        let numbers = arena.collect(some.len(), |i| lists.get(some[i]).number().unwrap_or(0))?;
        columns.push(Column::int(numbers, None));
    }
    for &column in rows.columns() {
        columns.push(column);
    }
    let rows = Batch::new(columns.finish(), None, some.len());

    let ends = arena.fill(some.len() + 1, 0u32)?;
    let mut end = 0usize;
    for (&at, slot) in some.iter().zip(&mut ends[1..]) {
        key.clear();
        (lists.key)(at.0 as usize, lists.get(at), key)?;
        end += key.len();
        *slot = u32::try_from(end).map_err(|_| Error::Memory {
            wanted: end,
            used: arena.used(),
            limit: arena.limit(),
        })?;
    }
    let bytes = arena.fill(end, 0u8)?;
    let mut start = 0;
    for (&at, &end) in some.iter().zip(&ends[1..]) {
        key.clear();
        (lists.key)(at.0 as usize, lists.get(at), key)?;
        bytes[start..end as usize].copy_from_slice(key);
        start = end as usize;
    }
    let chunks = arena.collect(some.len(), |i| lists.get(some[i]).order().0)?;
    let numbers = arena.collect(some.len(), |i| lists.get(some[i]).order().1)?;
    writer.append(&rows, &KeyBlock::each(bytes, ends), chunks, numbers)
}
