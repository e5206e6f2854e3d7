//! Rows of both sides as they are sorted and merged when the right side does not fit into memory.
//!
//! Each side's own columns come first, at the positions that they have everywhere else; what is needed to sort, match and restore a
//! row stands behind them.
//!
//! Laws
//! - Rows have the same key if and only if their keys match; a key with a null is null.

use super::super::keys::{Keys, hash};
use super::super::origins::{self, Origins};
use super::super::spool::ints;
use super::Plan;
use super::numbers::Codes;
use super::parted::bucket_of;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Locator, Text, View};

/// Behind the right side's own columns: when (`asof`) or the bucket of the key, null as the key is; the key, and the row's order in its
/// stream. Sorted by the bucket, or by the key.
pub(super) const R_TIME: usize = 0;
pub(super) const R_KEY: usize = 1;
pub(super) const R_CHUNK: usize = 2;
pub(super) const R_ROW: usize = 3;
pub(super) const R_WIDTH: usize = 4;

/// The same of a row that matches a left one, sorted by that one's order, which stands where time and key stood. A negative row stands
/// for so many hot rows; where they start stands in the place of the chunk.
pub(super) const C_NUMBER: usize = 0;
pub(super) const C_ROW: usize = 1;

/// Behind the left side's own columns, which are not sorted: the order of the row in its stream.
pub(super) const L_NUMBER: usize = 0;
pub(super) const L_ROW: usize = 1;
/// The chunk it came in: an end of a stage is one too.
pub(super) const L_CHUNK: usize = 2;
/// Its origin.
pub(super) const L_ORIGIN: usize = 3;
pub(super) const L_WIDTH: usize = L_ORIGIN + origins::WIDTH;

/// A left row's key and time for `asof`, without the row: sorted by key.
pub(super) const K_TIME: usize = 0;
pub(super) const K_KEY: usize = 1;
pub(super) const K_NUMBER: usize = 2;
pub(super) const K_ROW: usize = 3;
pub(super) const K_WIDTH: usize = 4;

/// What is left of the right side, sorted by its order: order, whether it is a row (else it says that this one has matched).
pub(super) const U_CHUNK: usize = 0;
pub(super) const U_ROW: usize = 1;
pub(super) const U_IS_ROW: usize = 2;
pub(super) const U_WIDTH: usize = 3;

/// The keys of a batch as one column of bytes.
pub(super) fn key_column<'a>(
    keys: &[usize],
    exact: bool,
    batch: &Batch<'a>,
    codes: &Codes<'a>,
    arena: &'a Arena,
) -> Result<Column<'a>> {
    let rows = codes.codes.len();
    let text = if keys.is_empty() {
        Text::inline(arena.fill(rows, View::EMPTY)?)
    } else if exact {
        let view = |code: u64| View::inline(&code.to_be_bytes()).unwrap_or(View::EMPTY);
        Text::inline(arena.map(codes.codes, view)?)
    } else {
        let block = Keys::grouping(keys.iter().copied()).block(batch, arena)?;
        let mut text = TextBuilder::new(arena, rows, block.bytes())?;
        for row in 0..rows {
            text.push_bytes(block.get(row))?;
        }
        text.finish()?
    };
    Ok(Column::new(Data::Bytes(text), codes.valid, rows))
}

/// The buckets of keys as one column.
pub(super) fn bucket_column<'a>(codes: &Codes<'a>, arena: &'a Arena) -> Result<Column<'a>> {
    let buckets = arena.map(codes.codes, |code| bucket_of(code) as i64)?;
    Ok(Column::int(buckets, codes.valid))
}

/// The bucket of a row's key; `None` if it has a null.
pub(super) fn bucket(rows: &Batch<'_>, column: usize, row: usize) -> Option<usize> {
    let column = rows.column(column);
    match column.data() {
        Data::Int(buckets) if column.is_valid(row) => Some(buckets[row] as usize),
        _ => None,
    }
}

impl Plan {
    /// The code of a key as [`key_column`] makes it: what [`Codes`] says of the row.
    #[inline]
    pub(super) fn code_of(&self, key: &[u8]) -> u64 {
        match key.first_chunk::<8>() {
            Some(code) if self.exact => u64::from_be_bytes(*code),
            _ if self.left_keys.is_empty() => 0,
            _ => hash(key),
        }
    }
}

/// Right rows as they are sorted; `own` are their own columns, `sorted` is the first one behind them, `first` is the order of the first row.
pub(super) fn right_rows<'a>(
    own: &[Column<'a>],
    key: Column<'a>,
    sorted: Column<'a>,
    (chunk, first): (u64, u64),
    arena: &'a Arena,
) -> Result<Batch<'a>> {
    let rows = key.len();
    let mut columns = Columns::new(arena, own.len() + R_WIDTH)?;
    own.iter().for_each(|&column| columns.push(column));
    columns.push(sorted);
    columns.push(key);
    columns.push(Column::int(arena.fill(rows, chunk as i64)?, None));
    columns.push(Column::int(
        arena.collect(rows, |row| (first + row as u64) as i64)?,
        None,
    ));
    Ok(Batch::new(columns.finish(), None, rows))
}

/// The columns behind the own ones of left rows that are to wait.
pub(super) struct Origin<'o, 'l> {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) chunk: u64,
    pub(super) locator: Locator<'l>,
    pub(super) texts: bool,
    pub(super) origins: &'o Origins,
}

/// Left rows as they wait.
pub(super) fn left_rows<'a>(batch: &Batch<'a>, origin: &Origin<'_, 'a>, arena: &'a Arena) -> Result<Batch<'a>> {
    let rows = batch.rows();
    let mut columns = Columns::new(arena, batch.columns().len() + L_WIDTH)?;
    batch.columns().iter().for_each(|&column| columns.push(column));
    columns.push(Column::int(arena.fill(rows, origin.number as i64)?, None));
    columns.push(Column::int(
        arena.collect(rows, |row| (origin.first + row as u64) as i64)?,
        None,
    ));
    columns.push(Column::int(arena.fill(rows, origin.chunk as i64)?, None));
    let places = batch.origin();
    let origins = origin.origins;
    origins.push(&mut columns, rows, places, &origin.locator, origin.texts, arena)?;
    Ok(Batch::new(columns.finish(), None, rows))
}

/// How many of the left rows of `width` own columns from `at` on, at most `most`, came in one chunk, and ascend by place as rows of one file:
/// so they come again.
pub(super) fn rows_of_chunk(rows: &Batch<'_>, width: usize, at: usize, most: usize) -> Result<usize> {
    let chunks = ints(rows, width + L_CHUNK)?;
    let end = rows.rows().min(at + most);
    let mut to = at + 1;
    while to < end && chunks[to] == chunks[at] {
        to += 1;
    }
    origins::ascending(rows, width + L_ORIGIN, at, to)
}

/// The key of a row; `None` if it has a null.
pub(super) fn key<'a>(rows: &Batch<'a>, column: usize, row: usize) -> Option<&'a [u8]> {
    let column = rows.column(column);
    match column.data() {
        Data::Bytes(keys) if column.is_valid(row) => Some(keys.bytes(row)),
        _ => None,
    }
}

/// Some right columns, absent where nobody looks at them.
pub(super) fn needed_columns<'a>(
    plan: &Plan,
    batch: Option<Batch<'a>>,
    rows: usize,
    arena: &'a Arena,
) -> Result<&'a [Column<'a>]> {
    let needed = plan.given();
    let mut columns = Columns::new(arena, plan.right_width)?;
    for index in 0..plan.right_width {
        let column = batch.and_then(|batch| batch.columns().get(index).copied());
        columns.push(match column {
            Some(column) if needed.contains(&index) => column,
            _ => Column::absent(rows),
        });
    }
    Ok(columns.finish())
}
