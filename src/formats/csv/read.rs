//! CSV text to columns.
//!
//! Laws
//! - Only requested columns are touched; a column that only text sinks get keeps its text verbatim.
//! - Rows, errors and places do not depend on where the text was cut.
//! - Nothing is allocated on the heap per chunk: the index of cell ends and the block belong to the lane, columns to the arena.
//!
//! How it works: [`index`](super::index) writes the positions of all delimiters and newlines outside quotes. If every `width`-th is a
//! newline and there are no others (the usual chunk), cell (r, c) ends at entry `r * width + c` and columns are read by
//! striding through the index. Otherwise `uneven` writes such an index for the rows that have the right number of cells,
//! and reports the others.

use crate::expr::json;
use crate::expr::scalar::scan;
use crate::formats::blocks::{BlockReader, Blocks, PADDING};
use crate::formats::codes;
use crate::formats::csv::index;
use crate::formats::lines;
use standpipe_sdk::bits::both;
use standpipe_sdk::spec::{Request, Wanted};
use standpipe_sdk::{
    Arena, Batch, Bits, Cells, Column, Columns, Data, Error, Fault, Faults, Field, Grid, Locator, Part, Place, Reader,
    Result, Schema, Source, Text, Type, View,
};
use std::cell::Cell;
use std::sync::Arc;

/// What a reader needs to know of its files.
pub(super) struct ReadPlan {
    pub schema: Schema,
    pub request: Request,
    pub files: Vec<FileLayout>,
    pub delimiter: u8,
    /// Unquoted texts that mean null.
    pub nulls: Vec<Vec<u8>>,
    /// Short rows are filled with nulls.
    pub pad: bool,
    /// The column that holds the file's path.
    pub file_column: Option<usize>,
    /// Check every declared column, also those nobody reads.
    pub check_all: bool,
    /// The script says what the columns are.
    pub declared: bool,
}

/// Where a file has the columns of the schema.
#[derive(Clone)]
pub(super) struct FileLayout {
    /// Cells of a record.
    pub width: usize,
    /// For each column of the schema, its cell; `None` = the file has none.
    pub cells: Vec<Option<usize>>,
}

/// The source of a `read csv`.
pub(super) struct CsvSource {
    pub blocks: Arc<Blocks>,
    pub plan: Arc<ReadPlan>,
}

impl Source for CsvSource {
    fn ticket(&self) -> Option<u64> {
        self.blocks.ticket()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(CsvReader {
            plan: self.plan.clone(),
            blocks: self.blocks.clone().reader(),
            index: Vec::new(),
            count: 0,
            base: 0,
            at: 0,
            even: false,
            text_is_utf8: true,
            next: Cell::new(0),
            tell_overlong: Cell::new(None),
            tell_open: Cell::new(None),
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        self.blocks.total_bytes()
    }

    fn claimed_bytes(&self) -> u64 {
        self.blocks.claimed_bytes()
    }
}

/// Index entries a lane begins with.
const ENTRIES: usize = 32 << 10;

struct CsvReader {
    plan: Arc<ReadPlan>,
    blocks: BlockReader,
    /// Positions of delimiters and newlines, relative to `base`; the first `count` count.
    index: Vec<u32>,
    count: usize,
    base: usize,
    /// Everything before this position of the buffer is indexed.
    at: usize,
    /// Every record of the index has the right number of cells.
    even: bool,
    text_is_utf8: bool,
    /// The first index entry that has not been decoded. A cell, as the decoded part borrows from `self`.
    next: Cell<usize>,
    /// Offset and line of a record that is too long.
    tell_overlong: Cell<Option<(u64, u64)>>,
    /// Position in the buffer of a last record whose quotes are not closed.
    tell_open: Cell<Option<usize>>,
}

impl Reader for CsvReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let some = self.blocks.claim(ticket)?;
        let piece = self.blocks.piece();
        (self.at, self.base, self.count) = (piece.from, piece.from, 0);
        self.next.set(0);
        self.tell_overlong.set(self.blocks.take_overlong());
        self.tell_open.set(None);
        Ok(some)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        if self.next.get() == self.count {
            self.fill_index()?;
        }
        let this: &'a CsvReader = self;
        this.part(arena, max_rows, stop_at_first)
    }
}

/// The text of a cell that begins with a quote.
enum Unquoted<'a> {
    /// As it stands between its quotes: (start, length).
    Inside(usize, usize),
    /// It has quotes of its own, or text behind the closing one.
    Escaped(&'a [u8]),
}

fn unquote(bytes: &[u8], start: usize, end: usize) -> Unquoted<'_> {
    let raw = &bytes[start..end];
    match raw {
        [b'"', inner @ .., b'"'] if memchr::memchr(b'"', inner).is_none() => Unquoted::Inside(start + 1, inner.len()),
        _ => Unquoted::Escaped(raw),
    }
}

impl CsvReader {
    /// Indexes what is left of the piece, as far as the index has room.
    fn fill_index(&mut self) -> Result<()> {
        let piece = self.blocks.piece();
        self.next.set(0);
        self.count = 0;
        self.base = self.at;
        if self.at >= piece.to {
            return Ok(());
        }
        if self.index.is_empty() {
            self.grow_index(ENTRIES)?;
        }
        loop {
            let text = &self.blocks.bytes()[self.at..piece.to];
            let found = index::index(text, self.plan.delimiter, &mut self.index);
            if found.consumed == 0 {
                self.grow_index(self.index.len() * 2)?;
                continue;
            }
            self.count = found.count;
            let covered = found.consumed;
            let records = self
                .count
                .checked_sub(1)
                .map_or(0, |last| self.index[last] as usize + 1);
            // What follows the last newline of the last piece is a record whose quotes are not closed.
            if found.open && covered == text.len() && records < text.len() {
                self.drop_open_cells();
                let records = self
                    .count
                    .checked_sub(1)
                    .map_or(0, |last| self.index[last] as usize + 1);
                self.tell_open.set(Some(self.base + records));
            }
            self.at += covered;
            let text = &self.blocks.bytes()[self.base..self.at];
            self.text_is_utf8 = found.ascii || lines::first_invalid_utf8(text).is_none();
            let width = self.plan.files[piece.file].width;
            self.even = self.text_is_utf8 && self.is_even(width, found.newlines);
            return Ok(());
        }
    }

    /// Takes the delimiters of an unfinished record off the end of the index.
    fn drop_open_cells(&mut self) {
        let text = &self.blocks.bytes()[self.base..];
        while let Some(last) = self.count.checked_sub(1)
            && text[self.index[last] as usize] != b'\n'
        {
            self.count = last;
        }
    }

    fn grow_index(&mut self, entries: usize) -> Result<()> {
        let more = entries - self.index.len();
        let refused = Error::Memory {
            wanted: more * 4,
            used: self.index.len() * 4,
            limit: self.blocks.max_record(),
        };
        self.index.try_reserve_exact(more).map_err(|_| refused)?;
        self.index.resize(entries, 0);
        Ok(())
    }

    /// Whether every `width`-th entry, and no other, is a newline. `newlines`: how many entries are, or more if the index was full.
    fn is_even(&self, width: usize, newlines: u64) -> bool {
        if width == 0 || !self.count.is_multiple_of(width) {
            return false;
        }
        let text = &self.blocks.bytes()[self.base..self.at];
        let rows = self.count / width;
        let ends = &self.index[..self.count];
        (0..rows).all(|r| text.get(ends[r * width + width - 1] as usize) == Some(&b'\n'))
            && (newlines == rows as u64
                || (ends.iter().enumerate())
                    .all(|(i, &at)| (i + 1) % width == 0 || text.get(at as usize) != Some(&b'\n')))
            && (width > 1 || rows == 0 || self.tell_open.get().is_none())
    }

    fn part<'a>(&'a self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let faults = Faults::new(arena, stop_at_first);
        let locator = self.blocks.locator();
        let piece = self.blocks.piece();
        if let Some((offset, line)) = self.tell_overlong.get() {
            let last = self.count == 0 && self.at >= piece.to && self.tell_open.get().is_none();
            let message = standpipe_sdk::build::format_in(
                arena,
                format_args!("the record is longer than {} bytes", self.blocks.max_record()),
            )?;
            let locator = Locator {
                block: &[],
                offset,
                line,
                ..locator
            };
            let part = self.bad_record(arena, faults, codes::OVERLONG, message, offset, last, locator)?;
            self.tell_overlong.set(None);
            return Ok(part);
        }
        if self.next.get() == self.count
            && let Some(at) = self.tell_open.get()
        {
            let offset = piece.offset + (at - piece.from) as u64;
            let part = self.bad_record(
                arena,
                faults,
                codes::MALFORMED,
                "the quotes are not closed",
                offset,
                true,
                locator,
            )?;
            self.tell_open.set(None);
            return Ok(part);
        }
        let plan = &self.plan;
        let layout = &plan.files[piece.file];
        let bytes = &self.blocks.bytes()[self.base..];
        let from = self.next.get();
        let first = if from == 0 { 0 } else { self.index[from - 1] + 1 };
        let (rows, next) = if self.even {
            let rows = ((self.count - from) / layout.width).min(max_rows);
            let next = from + rows * layout.width;
            let ends = &self.index[from..next];
            (
                Grid {
                    bytes,
                    width: layout.width,
                    rows,
                    ends,
                    starts: None,
                    first,
                    delimiter: plan.delimiter,
                },
                next,
            )
        } else {
            self.uneven(layout, bytes, first, max_rows, arena, &faults)?
        };
        let offset = piece.offset + (self.base - piece.from) as u64;
        let place = |row: usize| Place {
            source: piece.file as u32,
            offset: offset + rows.start_of(row) as u64,
            sub: 0,
        };
        let grid: &'a Grid<'a> = arena.one(rows)?;
        let mut columns = Columns::new(arena, plan.schema.width())?;
        for (at, field) in plan.schema.fields().iter().enumerate() {
            let wanted = &plan.request.columns[at];
            let column = match (layout.cells[at], wanted) {
                _ if plan.file_column == Some(at) => self.path_column(rows.rows, arena)?,
                (None, _) => Column::nulls(rows.rows),
                (Some(cell), Wanted::No | Wanted::Text) if plan.check_all => {
                    // Checked like a column that is read; what goes on is what was asked for.
                    let checked = self.typed_column(&rows, cell, field, arena, &faults)?;
                    if !field.nullable {
                        report_nulls(&checked, field, &faults, arena)?;
                    }
                    match wanted {
                        Wanted::Text => {
                            // A cell that failed is null under every policy that lets its row go on.
                            let text = text_column(&rows, cell, true, &plan.nulls, arena)?;
                            text.with_valid(both(text.valid(), checked.valid(), arena)?)
                        }
                        _ => Column::absent(rows.rows),
                    }
                }
                (Some(_), Wanted::No) => Column::absent(rows.rows),
                // Which texts are null is asked of every cell only where more than the empty one is, or none may be.
                (Some(cell), Wanted::Text) if plan.nulls.is_empty() && field.nullable => {
                    Column::new(Data::Cells(Cells::new(grid, cell)), None, rows.rows)
                }
                (Some(cell), Wanted::Text) => text_column(&rows, cell, true, &plan.nulls, arena)?,
                (Some(cell), _) => self.typed_column(&rows, cell, field, arena, &faults)?,
            };
            if !field.nullable && (*wanted == Wanted::Yes || layout.cells[at].is_none()) && plan.file_column != Some(at)
            {
                report_nulls(&column, field, &faults, arena)?;
            }
            columns.push(column);
        }
        let wants_places = plan.request.places || !faults.is_empty();
        let origin = if wants_places {
            Some(&*arena.collect(rows.rows, place)?)
        } else {
            None
        };
        let batch = Batch::new(columns.finish(), origin, rows.rows);
        self.next.set(next);
        let last = next == self.count && self.at >= piece.to && self.tell_open.get().is_none();
        Ok(Part {
            batch,
            faults,
            last,
            locator,
        })
    }

    /// A part of one row of nulls that stands for a record that could not be taken apart.
    #[allow(clippy::too_many_arguments)]
    fn bad_record<'a>(
        &'a self,
        arena: &'a Arena,
        faults: Faults<'a>,
        code: standpipe_sdk::Code,
        message: &'a str,
        offset: u64,
        last: bool,
        locator: Locator<'a>,
    ) -> Result<Part<'a>> {
        let columns = arena.collect(self.plan.schema.width(), |_| Column::nulls(1))?;
        let places = arena.fill(
            1,
            Place {
                source: self.blocks.piece().file as u32,
                offset,
                sub: 0,
            },
        )?;
        faults.push(record_fault(0, code, message, None))?;
        Ok(Part {
            batch: Batch::new(columns, Some(places), 1),
            faults,
            last,
            locator,
        })
    }

    /// The index of at most `max_rows` records of any number of cells; answers the entry to go on from, too.
    fn uneven<'a>(
        &'a self,
        layout: &FileLayout,
        bytes: &'a [u8],
        first: u32,
        max_rows: usize,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Grid<'a>, usize)> {
        let width = layout.width;
        let entries = &self.index[self.next.get()..self.count];
        let newlines = entries.iter().filter(|&&at| bytes[at as usize] == b'\n').count();
        let room = newlines.min(max_rows);
        let ends = arena.fill(room * width, 0u32)?;
        let starts = arena.fill(room, 0u32)?;
        let (mut row, mut used, mut start) = (0, 0, first);
        while row < room && used < entries.len() {
            let cells = entries[used..]
                .iter()
                .position(|&at| bytes[at as usize] == b'\n')
                .map_or(0, |n| n + 1);
            let record = &entries[used..used + cells];
            let Some(&end) = record.last() else { break };
            let text = &bytes[start as usize..end as usize];
            used += cells;
            let begin = std::mem::replace(&mut start, end + 1);
            if width > 1 && (text.is_empty() || text == b"\r") {
                continue;
            }
            let slots = &mut ends[row * width..(row + 1) * width];
            starts[row] = begin;
            // A bad record's cells are all empty, at its end.
            slots.fill(end);
            let bad = if !self.text_is_utf8
                && let Some(at) = lines::first_invalid_utf8(text)
            {
                starts[row] = begin;
                Some((codes::NOT_UTF8, "not UTF-8 text", Some(at as u64)))
            } else if cells == width {
                slots.copy_from_slice(record);
                None
            } else if cells < width && self.plan.pad {
                // The newline's `\r` is stripped from the last column's cell only: here that is not the record's last.
                slots.fill(end - u32::from(text.ends_with(b"\r")));
                slots[..cells - 1].copy_from_slice(&record[..cells - 1]);
                None
            } else {
                let message = standpipe_sdk::build::format_in(
                    arena,
                    format_args!(
                        "the row has {cells} cell{}, the header has {width}",
                        if cells == 1 { "" } else { "s" }
                    ),
                )?;
                Some((codes::RAGGED, message, None))
            };
            if let Some((code, message, at)) = bad {
                let piece = self.blocks.piece();
                let offset = piece.offset + (self.base - piece.from) as u64 + u64::from(begin);
                faults.push(record_fault(row, code, message, at.map(|at| offset + at)))?;
                // One empty cell per column, without a start of its own: see `extent`.
                slots.fill(begin);
            }
            row += 1;
        }
        if row < room {
            // Blank lines were counted as rows: the rest of the entries are theirs.
            used = entries.len();
        }
        let rows = Grid {
            bytes,
            width,
            rows: row,
            ends: &ends[..row * width],
            starts: Some(&starts[..row]),
            first,
            delimiter: self.plan.delimiter,
        };
        Ok((rows, self.next.get() + used))
    }

    fn path_column<'a>(&'a self, rows: usize, arena: &'a Arena) -> Result<Column<'a>> {
        Ok(Column::string(Text::repeat(self.blocks.path(), rows, arena)?, None))
    }

    fn typed_column<'a>(
        &'a self,
        rows: &Grid<'a>,
        cell: usize,
        field: &'a Field,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<Column<'a>> {
        let parse = Parse {
            rows,
            cell,
            field,
            nulls: &self.plan.nulls,
            declared: self.plan.declared,
            arena,
            faults,
        };
        Ok(match &field.ty {
            Type::String => text_column(rows, cell, false, &self.plan.nulls, arena)?,
            Type::Int => parse.column(scan::parse_int, Data::Int)?,
            Type::Float => parse.column(scan::parse_float, Data::Float)?,
            Type::Date => parse.column(scan::parse_date, Data::Date)?,
            Type::Timestamp => parse.column(scan::parse_timestamp, Data::Timestamp)?,
            Type::Duration => parse.column(scan::parse_duration, Data::Duration)?,
            Type::Decimal { precision, scale } => {
                parse.column(|text| scan::parse_decimal(text, *precision, *scale).ok(), Data::Decimal)?
            }
            Type::Bool => {
                let (values, valid) = parse.values(scan::parse_bool)?;
                Column::bool(Bits::collect(arena, rows.rows, |row| values[row])?, valid)
            }
            Type::Json => {
                let column = text_column(rows, cell, false, &self.plan.nulls, arena)?;
                let Data::String(text) = column.data() else {
                    return Ok(column);
                };
                let mut failed = Ok(());
                let valid = Bits::collect(arena, rows.rows, |row| {
                    let given = column.is_valid(row);
                    let good = given && json::is_valid(text.str(row));
                    if given && !good {
                        failed =
                            std::mem::replace(&mut failed, Ok(())).and_then(|()| parse.report(row, text.bytes(row)));
                    }
                    good
                })?;
                failed?;
                Column::new(
                    Data::Json(text),
                    if valid.is_all() { None } else { Some(valid) },
                    rows.rows,
                )
            }
            // Nothing was seen of this column; whatever comes now does not fit. Nested types are refused by the checker.
            Type::Null | Type::Bytes | Type::List(_) | Type::Record(_) => {
                parse.values(|_| None::<bool>)?;
                Column::nulls(rows.rows)
            }
        })
    }
}

fn record_fault<'a>(row: usize, code: standpipe_sdk::Code, message: &'a str, byte: Option<u64>) -> Fault<'a> {
    Fault {
        row: row as u32,
        code,
        span: None,
        column: None,
        message,
        help: None,
        byte,
        record: true,
    }
}

/// A declared field without `?` has no room for null.
fn report_nulls<'a>(column: &Column<'a>, field: &'a Field, faults: &Faults<'a>, arena: &'a Arena) -> Result<()> {
    if column.null_count() == 0 {
        return Ok(());
    }
    let bad: usize = faults.len();
    for row in 0..column.len() {
        if column.is_valid(row) || (bad > 0 && faults.iter().any(|f| f.row as usize == row)) {
            continue;
        }
        let message = standpipe_sdk::build::format_in(arena, format_args!("`{}` is null and must not be", field.name))?;
        faults.push(Fault {
            row: row as u32,
            code: codes::NULL,
            span: None,
            column: Some(&field.name),
            message,
            help: Some("`?` behind its type in the schema lets it be null"),
            byte: None,
            record: false,
        })?;
    }
    Ok(())
}

/// A text column whose views are checked to be UTF-8 by the block.
#[allow(unsafe_code)]
fn text_of<'a>(views: &'a [View], buffers: &'a [&'a [u8]]) -> Text<'a> {
    // SAFETY: every view was made by `View::new` for the buffer it names, which panics outside it. The block is UTF-8 (records
    // that are not have empty cells), cells begin and end at ASCII bytes, and unescaping only leaves quotes out; so each is UTF-8.
    unsafe { Text::new(views, buffers) }
}

fn is_null(cell: &[u8], nulls: &[Vec<u8>]) -> bool {
    cell.is_empty() || (!nulls.is_empty() && nulls.iter().any(|null| null == cell))
}

/// The validity whose words are `words`; `None` if every row is valid.
fn validity<'a>(words: &'a [u64], rows: usize) -> Option<Bits<'a>> {
    let bits = Bits::new(words, rows);
    if bits.is_all() { None } else { Some(bits) }
}

fn text_column<'a>(
    rows: &Grid<'a>,
    cell: usize,
    verbatim: bool,
    nulls: &[Vec<u8>],
    arena: &'a Arena,
) -> Result<Column<'a>> {
    let bytes = rows.bytes;
    let valid = arena.fill(rows.rows.div_ceil(64), 0u64)?;
    let mut escaped = 0;
    let mut word = 0u64;
    let views = rows.collect(cell, arena, |row, start, end| {
        let is_null = start == end || (!nulls.is_empty() && is_null(&bytes[start..end], nulls));
        word |= u64::from(!is_null) << (row % 64);
        if row % 64 == 63 {
            valid[row / 64] = std::mem::take(&mut word);
        }
        if is_null {
            View::EMPTY
        } else if verbatim || bytes[start] != b'"' {
            View::new(bytes, start, end - start, 0)
        } else {
            match unquote(bytes, start, end) {
                Unquoted::Inside(start, len) => View::new(bytes, start, len, 0),
                Unquoted::Escaped(raw) => {
                    escaped += raw.len();
                    View::EMPTY
                }
            }
        }
    })?;
    if let Some(last) = valid.last_mut()
        && !rows.rows.is_multiple_of(64)
    {
        *last = word;
    }
    let mut buffers = &*arena.fill(1, bytes)?;
    if escaped > 0 {
        let text = arena.fill(escaped + PADDING, 0u8)?;
        let mut at = 0;
        for (row, view) in views.iter_mut().enumerate() {
            let (start, end) = rows.extent(row, cell);
            if bytes.get(start) == Some(&b'"')
                && start < end
                && let Unquoted::Escaped(raw) = unquote(bytes, start, end)
            {
                let len = index::unescape(raw, &mut text[at..]);
                *view = View::new(text, at, len, 1);
                at += len;
            }
        }
        buffers = arena.collect(2, |i| if i == 0 { bytes } else { &*text })?;
    }
    let text = text_of(views, buffers);
    let data = if verbatim {
        Data::Verbatim(text)
    } else {
        Data::String(text)
    };
    Ok(Column::new(data, validity(valid, rows.rows), rows.rows))
}

/// What a cell turned out to be.
enum Parsed<T> {
    Value(T),
    Null,
    Bad,
}

impl<T> Parsed<T> {
    #[inline(always)]
    fn of(value: Option<T>) -> Self {
        value.map_or(Parsed::Bad, Parsed::Value)
    }
}

/// One column being parsed.
struct Parse<'r, 'a> {
    rows: &'r Grid<'a>,
    cell: usize,
    field: &'a Field,
    nulls: &'r [Vec<u8>],
    declared: bool,
    arena: &'a Arena,
    faults: &'r Faults<'a>,
}

impl<'a> Parse<'_, 'a> {
    fn column<T: Copy + Default + 'a>(
        &self,
        parse: impl Fn(&[u8]) -> Option<T>,
        data: impl Fn(&'a [T]) -> Data<'a>,
    ) -> Result<Column<'a>> {
        let (values, valid) = self.values(parse)?;
        Ok(Column::new(data(values), valid, self.rows.rows))
    }

    fn values<T: Copy + Default + 'a>(
        &self,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<(&'a [T], Option<Bits<'a>>)> {
        let (rows, bytes) = (self.rows, self.rows.bytes);
        let valid = self.arena.fill(rows.rows.div_ceil(64), 0u64)?;
        let mut failed = Ok(());
        let mut word = 0u64;
        let values = rows.collect(self.cell, self.arena, |row, start, end| {
            let cell = &bytes[start..end];
            let value = match cell.first() {
                None => Parsed::Null,
                Some(b'"') => match unquote(bytes, start, end) {
                    Unquoted::Inside(start, len) => Parsed::of(parse(&bytes[start..start + len])),
                    Unquoted::Escaped(_) => Parsed::Bad,
                },
                Some(_) => Parsed::of(parse(cell)),
            };
            let value = match value {
                Parsed::Value(value) => {
                    word |= 1 << (row % 64);
                    value
                }
                Parsed::Null => T::default(),
                Parsed::Bad => {
                    if cell[0] == b'"' || !is_null(cell, self.nulls) {
                        failed = std::mem::replace(&mut failed, Ok(())).and_then(|()| self.report(row, cell));
                    }
                    T::default()
                }
            };
            if row % 64 == 63 {
                valid[row / 64] = std::mem::take(&mut word);
            }
            value
        })?;
        if let Some(last) = valid.last_mut()
            && !rows.rows.is_multiple_of(64)
        {
            *last = word;
        }
        failed?;
        Ok((values, validity(valid, rows.rows)))
    }

    #[cold]
    fn report(&self, row: usize, cell: &[u8]) -> Result<()> {
        const SHOWN: usize = 60;
        let text = String::from_utf8_lossy(cell);
        let short: String = text.chars().take(SHOWN).collect();
        let dots = if short.len() < text.len() { "…" } else { "" };
        let message = match &self.field.ty {
            Type::Null => format!(
                "`{}` had no value in the sample, and now has \"{short}{dots}\"",
                self.field.name
            ),
            ty => format!("cannot parse {ty} from \"{short}{dots}\""),
        };
        self.faults.push(Fault {
            row: row as u32,
            code: codes::PARSE,
            span: None,
            column: Some(&self.field.name),
            message: self.arena.copy_str(&message)?,
            help: Some(if self.declared {
                "`on error null`, or `on error to rejects`"
            } else {
                "a `schema:` that says its type, or `on error to rejects`"
            }),
            byte: None,
            record: false,
        })?;
        Ok(())
    }
}
