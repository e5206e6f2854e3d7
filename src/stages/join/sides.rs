//! Rows of both sides as they are sorted and merged when the right side does not fit into memory.
//!
//! Each side's own columns come first, at the positions that they have everywhere else; what is needed to sort, match and restore a
//! row stands behind them.
//!
//! Laws
//! - Rows have the same key if and only if their keys match; a key with a null is null.

use super::super::keys::{Key, Keys, hash};
use super::Plan;
use super::numbers::Codes;
use super::parted::bucket_of;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Locator, Place, Text, Trace, View};
use std::sync::{Mutex, PoisonError};

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
/// Its place, and what was known of it.
const L_SOURCE: usize = 3;
const L_OFFSET: usize = 4;
const L_SUB: usize = 5;
const L_PATH: usize = 6;
const L_LINE: usize = 7;
/// The chunk of its source.
const L_FROM: usize = 8;
const L_TEXT: usize = 9;
pub(super) const L_WIDTH: usize = 10;

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

/// A key that sorts by column `column`, nulls last.
pub(super) fn ascending(column: usize) -> Key {
    Key {
        column,
        descending: false,
        nulls_first: false,
    }
}

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

/// What is known of where left rows came from: the paths of their sources, by number.
#[derive(Default)]
pub(super) struct Paths(Mutex<Vec<Box<str>>>);

impl Paths {
    fn number(&self, path: &str) -> i64 {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = paths.iter().position(|known| **known == *path).unwrap_or_else(|| {
            paths.push(path.into());
            paths.len() - 1
        });
        at as i64
    }

    fn copy<'a>(&self, number: i64, arena: &'a Arena) -> Result<&'a str> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = usize::try_from(number).ok().and_then(|at| paths.get(at));
        arena.copy_str(path.map_or("", |path| path))
    }
}

/// The columns behind the own ones of left rows that are to wait.
pub(super) struct Origin<'o, 'l> {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) chunk: u64,
    pub(super) locator: Locator<'l>,
    pub(super) texts: bool,
    pub(super) paths: &'o Paths,
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
    let Some(places) = batch.origin() else {
        (L_SOURCE..L_WIDTH).for_each(|_| columns.push(Column::nulls(rows)));
        return Ok(Batch::new(columns.finish(), None, rows));
    };
    columns.push(Column::int(arena.map(places, |p| i64::from(p.source))?, None));
    columns.push(Column::int(arena.map(places, |p| p.offset as i64)?, None));
    columns.push(Column::int(arena.map(places, |p| i64::from(p.sub))?, None));
    let traces = arena.fill(rows, Trace::default())?;
    origin.locator.trace_all(places, origin.texts, traces);
    let mut known: Option<(&str, i64)> = None;
    let path = |at: usize| match known {
        Some((path, number)) if path == traces[at].path => number,
        _ => {
            let number = origin.paths.number(traces[at].path);
            known = Some((traces[at].path, number));
            number
        }
    };
    columns.push(Column::int(arena.collect(rows, path)?, None));
    columns.push(Column::int(arena.map(traces, |trace| trace.line as i64)?, None));
    columns.push(Column::int(arena.map(traces, |trace| trace.chunk as i64)?, None));
    if origin.texts {
        let bytes = traces.iter().map(|trace| trace.text.len()).sum();
        let mut texts = TextBuilder::new(arena, rows, bytes)?;
        traces.iter().try_for_each(|trace| texts.push_bytes(trace.text))?;
        columns.push(Column::new(Data::Bytes(texts.finish()?), None, rows));
    } else {
        columns.push(Column::nulls(rows));
    }
    Ok(Batch::new(columns.finish(), None, rows))
}

/// How many of the left rows of `width` own columns from `at` on, at most `most`, came in one chunk, and ascend by place as rows of one file:
/// so they come again.
pub(super) fn rows_of_chunk(rows: &Batch<'_>, width: usize, at: usize, most: usize) -> Result<usize> {
    let chunks = ints(rows, width + L_CHUNK)?;
    let end = rows.rows().min(at + most);
    let mut to = at + 1;
    if matches!(rows.column(width + L_SOURCE).data(), Data::Null) {
        while to < end && chunks[to] == chunks[at] {
            to += 1;
        }
        return Ok(to - at);
    }
    let (sources, offsets) = (ints(rows, width + L_SOURCE)?, ints(rows, width + L_OFFSET)?);
    let (subs, from) = (ints(rows, width + L_SUB)?, ints(rows, width + L_FROM)?);
    // As places are compared.
    let record = |row: usize| (sources[row] as u32, offsets[row] as u64);
    let place = |row: usize| (record(row), subs[row] as u32);
    let goes_on = |a: usize, b: usize| place(a) <= place(b) && (record(a) != record(b) || from[a] == from[b]);
    while to < end && chunks[to] == chunks[at] && goes_on(to - 1, to) {
        to += 1;
    }
    Ok(to - at)
}

/// The places of left rows of `width` own columns, and what was known of them.
pub(super) fn origin_of<'a>(
    rows: &Batch<'a>,
    width: usize,
    paths: &Paths,
    arena: &'a Arena,
) -> Result<(Option<&'a [Place]>, &'a [Trace<'a>])> {
    if matches!(rows.column(width + L_SOURCE).data(), Data::Null) {
        return Ok((None, &[]));
    }
    let (sources, offsets) = (ints(rows, width + L_SOURCE)?, ints(rows, width + L_OFFSET)?);
    let subs = ints(rows, width + L_SUB)?;
    let (numbers, lines) = (ints(rows, width + L_PATH)?, ints(rows, width + L_LINE)?);
    let chunks = ints(rows, width + L_FROM)?;
    let places = arena.collect(rows.rows(), |row| Place {
        source: sources[row] as u32,
        offset: offsets[row] as u64,
        sub: subs[row] as u32,
    })?;
    let texts = match rows.column(width + L_TEXT).data() {
        Data::Bytes(texts) => Some(texts),
        _ => None,
    };
    let mut known: Option<(i64, &'a str)> = None;
    let mut failed = None;
    let found = arena.collect(rows.rows(), |row| {
        let path = match known {
            Some((number, path)) if number == numbers[row] => path,
            _ => match paths.copy(numbers[row], arena) {
                Ok(path) => {
                    known = Some((numbers[row], path));
                    path
                }
                Err(error) => {
                    failed = Some(error);
                    ""
                }
            },
        };
        Trace {
            place: places[row],
            chunk: chunks[row] as u64,
            path,
            line: lines[row] as u64,
            text: texts.map_or(&[], |texts| texts.bytes(row)),
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok((Some(places), found)),
    }
}

/// An int column without nulls.
pub(super) fn ints<'a>(rows: &Batch<'a>, column: usize) -> Result<&'a [i64]> {
    match rows.column(column).data() {
        Data::Int(values) => Ok(values),
        _ => Err(Error::Panic("spilled rows without their order".into())),
    }
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
