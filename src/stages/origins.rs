//! Where rows came from, as columns behind others: rows that are held beyond their chunk, in memory or on disk, keep what may be asked of it.
//!
//! Laws
//! - What is read back is what was known: places, lines, paths and, if they were asked for, texts.

use super::spool::ints;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Locator, Place, Trace};
use std::sync::{Mutex, PoisonError};

/// The place; the number of the path; the line; the chunk of the source; the text. All null where nobody asks.
const SOURCE: usize = 0;
const OFFSET: usize = 1;
const SUB: usize = 2;
const PATH: usize = 3;
const LINE: usize = 4;
const CHUNK: usize = 5;
const TEXT: usize = 6;
/// Columns of an origin.
pub(super) const WIDTH: usize = 7;

/// The paths of sources, by number.
#[derive(Default)]
pub(super) struct Origins(Mutex<Vec<Box<str>>>);

impl Origins {
    /// Appends the columns of rows at `places`, of which `locator` knows more; with `texts`, what stands in their records too.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub(super) fn push<'a>(
        &self,
        columns: &mut Columns<'a>,
        rows: usize,
        places: Option<&[Place]>,
        locator: &Locator<'_>,
        texts: bool,
        arena: &'a Arena,
    ) -> Result<()> {
        let Some(places) = places else {
            (0..WIDTH).for_each(|_| columns.push(Column::nulls(rows)));
            return Ok(());
        };
        columns.push(Column::int(arena.map(places, |p| i64::from(p.source))?, None));
        columns.push(Column::int(arena.map(places, |p| p.offset as i64)?, None));
        columns.push(Column::int(arena.map(places, |p| i64::from(p.sub))?, None));
        let traces = arena.fill(rows, Trace::default())?;
        locator.trace_all(places, texts, traces);
        let mut known: Option<(&str, i64)> = None;
        let path = |at: usize| match known {
            Some((path, number)) if path == traces[at].path => number,
            _ => {
                let number = self.number(traces[at].path);
                known = Some((traces[at].path, number));
                number
            }
        };
        columns.push(Column::int(arena.collect(rows, path)?, None));
        columns.push(Column::int(arena.map(traces, |trace| trace.line as i64)?, None));
        columns.push(Column::int(arena.map(traces, |trace| trace.chunk as i64)?, None));
        columns.push(if texts {
            let bytes = traces.iter().map(|trace| trace.text.len()).sum();
            let mut texts = TextBuilder::new(arena, rows, bytes)?;
            traces.iter().try_for_each(|trace| texts.push_bytes(trace.text))?;
            Column::new(Data::Bytes(texts.finish()?), None, rows)
        } else {
            Column::nulls(rows)
        });
        Ok(())
    }

    /// The places of rows whose origin is the columns from `at` on, and what was known of them.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub(super) fn read<'a>(
        &self,
        rows: &Batch<'a>,
        at: usize,
        arena: &'a Arena,
    ) -> Result<(Option<&'a [Place]>, &'a [Trace<'a>])> {
        if matches!(rows.column(at + SOURCE).data(), Data::Null) {
            return Ok((None, &[]));
        }
        let (sources, offsets) = (ints(rows, at + SOURCE)?, ints(rows, at + OFFSET)?);
        let (subs, chunks) = (ints(rows, at + SUB)?, ints(rows, at + CHUNK)?);
        let (numbers, lines) = (ints(rows, at + PATH)?, ints(rows, at + LINE)?);
        let places = arena.collect(rows.rows(), |row| Place {
            source: sources[row] as u32,
            offset: offsets[row] as u64,
            sub: subs[row] as u32,
        })?;
        let texts = match rows.column(at + TEXT).data() {
            Data::Bytes(texts) => Some(texts),
            _ => None,
        };
        let mut known: Option<(i64, &'a str)> = None;
        let mut failed = None;
        let traces = arena.collect(rows.rows(), |row| {
            let path = match known {
                Some((number, path)) if number == numbers[row] => path,
                _ => match self.copy(numbers[row], arena) {
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
            None => Ok((Some(places), traces)),
        }
    }

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

/// How many rows from `from` on and before `to` ascend by place as rows of one file: another one begins where places do not ascend, or where
/// one place has two chunks. `at` is the first column of their origin.
///
/// # Errors
/// Never, of rows that have an origin.
pub(super) fn ascending(rows: &Batch<'_>, at: usize, from: usize, to: usize) -> Result<usize> {
    if matches!(rows.column(at + SOURCE).data(), Data::Null) {
        return Ok(to - from);
    }
    let (sources, offsets) = (ints(rows, at + SOURCE)?, ints(rows, at + OFFSET)?);
    let (subs, chunks) = (ints(rows, at + SUB)?, ints(rows, at + CHUNK)?);
    // As places are compared.
    let record = |row: usize| (sources[row] as u32, offsets[row] as u64);
    let place = |row: usize| (record(row), subs[row] as u32);
    let goes_on = |a: usize, b: usize| place(a) <= place(b) && (record(a) != record(b) || chunks[a] == chunks[b]);
    let mut end = to.min(from + 1);
    while end < to && goes_on(end - 1, end) {
        end += 1;
    }
    Ok(end - from)
}
