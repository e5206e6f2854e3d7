//! Both sides, sorted by key, meet: for each left row the right rows that have its key.
//!
//! How: the two are walked through side by side. Right rows of one key are a *run*. A short run is held, and copied for each left row that has
//! its key, marked with that row's order. A long one is *hot*: it is written once, and left rows say where. What comes out
//! is sorted by the order of the left rows ([`super::again`]).
//!
//! Laws
//! - Memory does not grow with a key's rows, on either side.
//! - A hot key takes disk once, however many left rows have it.

use super::super::keys::Keys;
use super::super::picked::{self, gather_of};
use super::super::spill::{Segment, SegmentWriter, Store};
use super::cursor::{Cursor, Part};
use super::sides::*;
use super::{Mode, Plan};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Data, Fill, Reservation};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The most rows of a run that is held.
const RUN_ROWS: usize = 256;
/// The most parts that it is in.
const RUN_PARTS: usize = 2;
/// A run of more rows than [`MANY_ROWS`] of which more copies than this would be made becomes hot.
const MOST_COPIES: usize = 1 << 20;
const MANY_ROWS: usize = 32;
/// The same for tests that force it.
const FORCED_COPIES: usize = 8;
/// Copies that are made together.
const COPIES: usize = 4 << 10;
/// Parts that copies are made of together.
const COPIED_PARTS: usize = 2;
/// Parts of the right side that are held at the same time: of the run, of the copies, and the one at hand.
pub(super) const RIGHT_PARTS: usize = RUN_PARTS + COPIED_PARTS + 2;

/// What has to be sorted of what came out.
pub(super) struct Outs<'o> {
    pub(super) left: Box<dyn Fill>,
    pub(super) matches: Box<dyn Fill>,
    /// Right rows that nothing has matched, or that something may yet match, and how many batches of them there were.
    pub(super) rest: Option<(&'o mut Box<dyn Fill>, &'o mut u64)>,
}

/// Hot right rows, run after run.
pub(super) struct Hot {
    pub(super) segment: Segment,
    /// The first row of each frame.
    pub(super) starts: Vec<u64>,
    /// For frames and copies of their rows, as many as there are lanes.
    pub(super) pool: Arc<Budget>,
    _rooms: [Reservation; 2],
}

/// The right rows of the key at hand.
enum Run {
    None,
    Held(Vec<(Arc<Part>, Range<usize>)>),
    /// From this row on, so many.
    Hot(u64, u64),
}

pub(super) struct Meeting<'j> {
    plan: &'j Plan,
    left: Cursor,
    right: Cursor,
    outs: Outs<'j>,
    /// The key at hand, if there is one.
    key: Vec<u8>,
    has_key: bool,
    run: Run,
    /// For `asof`: the last right row of the key that is not after the left one.
    last: Option<(Arc<Part>, usize)>,
    /// How many copies were made of the run.
    copies: usize,
    hot: HotWriter,
    /// Copies that are to be made.
    picks: Vec<Pick>,
    parents: Vec<u32>,
    pieces: Vec<Arc<Part>>,
    scratch: Arena,
    scratch_room: Reservation,
    batches: u64,
    run_rows: usize,
    many_rows: usize,
    most_copies: usize,
    /// Who reads hot rows.
    readers: usize,
    cancelled: &'j AtomicBool,
}

/// Writes hot runs.
pub(super) struct HotWriter {
    writer: SegmentWriter,
    rows: u64,
    starts: Vec<u64>,
    starts_room: Reservation,
}

impl HotWriter {
    pub(super) fn new(store: &Arc<Store>, room: Reservation) -> Result<HotWriter> {
        Ok(HotWriter {
            writer: store.writer()?,
            rows: 0,
            starts: vec![],
            starts_room: room,
        })
    }

    fn append(&mut self, rows: &Batch<'_>, arena: &Arena) -> Result<()> {
        let count = rows.rows();
        let keys = Keys::grouping([]).block(rows, arena)?;
        let chunks = arena.collect(count, |at| self.rows + at as u64)?;
        let numbers = arena.fill(count, 0u32)?;
        self.writer.make_room(rows, &keys)?;
        self.writer.append(rows, &keys, chunks, numbers)?;
        self.rows += count as u64;
        Ok(())
    }

    /// `room`, or more if that is needed, is for those who read the rows.
    fn finish(mut self, mut room: Reservation, readers: usize) -> Result<Option<Hot>> {
        if self.rows == 0 {
            return Ok(None);
        }
        let segment = self.writer.finish()?;
        self.starts_room.room_to(&mut self.starts, segment.frames())?;
        let mut start = 0;
        for frame in 0..segment.frames() {
            self.starts.push(start);
            start += segment.rows_of(frame) as u64;
        }
        // Each reader: a frame, and a copy of its rows.
        let bytes = 2 * readers * segment.largest();
        room.grow(bytes.saturating_sub(room.bytes()))?;
        Ok(Some(Hot {
            segment,
            starts: self.starts,
            pool: Budget::new(bytes),
            _rooms: [self.starts_room, room],
        }))
    }
}

impl<'j> Meeting<'j> {
    pub(super) fn new(
        plan: &'j Plan,
        left: Cursor,
        right: Cursor,
        outs: Outs<'j>,
        hot: HotWriter,
        (scratch, scratch_room): (Arena, Reservation),
        setup: &'j Setup,
    ) -> Self {
        let forced = setup.spill.spill_rows();
        Meeting {
            plan,
            left,
            right,
            outs,
            key: vec![],
            has_key: false,
            run: Run::None,
            last: None,
            copies: 0,
            hot,
            picks: vec![],
            parents: vec![],
            pieces: vec![],
            scratch,
            scratch_room,
            batches: 0,
            run_rows: forced.unwrap_or(RUN_ROWS).clamp(1, RUN_ROWS),
            many_rows: forced.map_or(MANY_ROWS, |_| 1),
            most_copies: forced.map_or(MOST_COPIES, |_| FORCED_COPIES),
            readers: setup.workers.max(1),
            cancelled: &setup.cancelled,
        }
    }

    /// Walks through both sides to their ends.
    ///
    /// # Errors
    /// `Memory` if there is no room for one row of both sides; what the disk answers.
    pub(super) fn run(mut self, hot_room: Reservation) -> Result<Option<Hot>> {
        while let Some((part, at)) = self.left.next()? {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            self.meet(&part, at)?;
            self.left.go_to(part.rows());
        }
        self.run = Run::None;
        self.last = None;
        if self.outs.rest.is_some() {
            while let Some((part, at)) = self.right.next()? {
                self.left_over(&part, at..part.rows())?;
                self.right.go_to(part.rows());
            }
        }
        self.outs.left.done()?;
        self.outs.matches.done()?;
        self.hot.finish(hot_room, self.readers)
    }

    /// The rows of one part of the left side, from `from` on.
    fn meet(&mut self, part: &Arc<Part>, from: usize) -> Result<()> {
        let (plan, rows) = (self.plan, part.batch());
        let width = plan.left_width;
        let count = rows.rows() - from;
        // For each row where its hot rows start, how many they are, and whether there is any match.
        let mut hot: Vec<(i64, i64)> = vec![];
        let refused = |_| Error::Memory {
            wanted: count * size_of::<(i64, i64)>(),
            used: 0,
            limit: usize::MAX,
        };
        hot.try_reserve_exact(count).map_err(refused)?;
        let decides = plan.mode.only_left() && !plan.condition;
        for row in from..rows.rows() {
            let key = key(&rows, width + L_KEY, row);
            let mut found = (NONE, NONE);
            match (key, plan.asof) {
                (None, _) => {}
                (Some(key), Some(asof)) => {
                    let times = rows.column(width + L_TIME);
                    if let (Data::Int(at), true) = (times.data(), times.is_valid(row)) {
                        let near = self.before(key, at[row], asof.within)?;
                        if near {
                            self.copy_last(row)?;
                            found = (COPIED, NONE);
                        }
                    }
                }
                (Some(key), None) => {
                    if !self.has_key || self.key != key {
                        self.seek(key)?;
                    }
                    found = match &self.run {
                        Run::None => found,
                        _ if decides => (FOUND, 0),
                        Run::Hot(start, len) => (*start as i64, *len as i64),
                        Run::Held(_) => self.copy_run(row)?,
                    };
                }
            }
            hot.push(found);
            if self.picks.len() >= COPIES || self.pieces.len() > COPIED_PARTS {
                self.make_copies(&rows)?;
            }
        }
        self.make_copies(&rows)?;
        self.keep_left(&rows, from, &hot)
    }

    /// Copies the run for left row `row`, or makes it hot.
    fn copy_run(&mut self, row: usize) -> Result<(i64, i64)> {
        let Run::Held(parts) = &self.run else {
            return Ok((NONE, NONE));
        };
        let len: usize = parts.iter().map(|(_, range)| range.len()).sum();
        if len > self.many_rows && (self.copies + 1) * len > self.most_copies {
            let parts = parts.clone();
            let start = self.hot.rows;
            for (part, range) in parts {
                self.write_hot(&part, range)?;
            }
            self.run = Run::Hot(start, len as u64);
            return Ok((start as i64, len as i64));
        }
        self.copies += 1;
        for (part, range) in parts {
            let piece = piece_of(&mut self.pieces, part);
            for at in range.clone() {
                self.picks.push((piece, at as u32));
                self.parents.push(row as u32);
            }
        }
        Ok((COPIED, NONE))
    }

    fn copy_last(&mut self, row: usize) -> Result<()> {
        if let Some((part, at)) = &self.last {
            let piece = piece_of(&mut self.pieces, part);
            self.picks.push((piece, *at as u32));
            self.parents.push(row as u32);
        }
        Ok(())
    }

    /// The run of `key`, which is not before the key at hand.
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.begin(key)?;
        if !self.skip_to(key)? {
            return Ok(());
        }
        // Copies of an earlier run hold parts that this one needs the room of.
        let mut held: Vec<(Arc<Part>, Range<usize>)> = vec![];
        let (mut rows, mut start) = (0, None);
        while let Some((part, at)) = self.right.next()? {
            let range = at..end_of_run(&part.batch(), self.plan.right_width + R_KEY, at, key);
            if range.is_empty() {
                break;
            }
            rows += range.len();
            if self.outs.rest.is_some() && self.plan.condition {
                self.left_over(&part, range.clone())?;
            }
            let is_hot = start.is_some() || rows > self.run_rows || held.len() == RUN_PARTS;
            if is_hot && !self.plan.decides() {
                start.get_or_insert(self.hot.rows);
                for (part, range) in std::mem::take(&mut held) {
                    self.write_hot(&part, range)?;
                }
                self.write_hot(&part, range.clone())?;
            } else if !is_hot {
                held.push((part.clone(), range.clone()));
            }
            self.right.go_to(range.end);
            if range.end < part.rows() {
                break;
            }
        }
        self.run = match start {
            Some(start) => Run::Hot(start, rows as u64),
            None => Run::Held(held),
        };
        Ok(())
    }

    /// Goes on to the last right row of `key` that is not after `time`; whether there is one that is near enough.
    fn before(&mut self, key: &[u8], time: i64, within: Option<i128>) -> Result<bool> {
        if !self.has_key || self.key != key {
            self.begin(key)?;
            self.skip_to(key)?;
        }
        let width = self.plan.right_width;
        while let Some((part, at)) = self.right.next()? {
            let rows = part.batch();
            let times = ints(&rows, width + R_TIME)?;
            let end = end_of_run(&rows, width + R_KEY, at, key);
            let behind = at + times[at..end].partition_point(|&t| t <= time);
            if behind == at {
                break;
            }
            self.last = Some((part.clone(), behind - 1));
            self.right.go_to(behind);
            if behind < part.rows() {
                break;
            }
        }
        let Some((part, at)) = &self.last else {
            return Ok(false);
        };
        let age = i128::from(time) - i128::from(ints(&part.batch(), width + R_TIME)?[*at]);
        Ok(within.is_none_or(|within| age <= within))
    }

    /// A new key.
    fn begin(&mut self, key: &[u8]) -> Result<()> {
        self.run = Run::None;
        self.last = None;
        self.copies = 0;
        self.key.clear();
        self.key.try_reserve(key.len()).map_err(|_| Error::Memory {
            wanted: key.len(),
            used: 0,
            limit: usize::MAX,
        })?;
        self.key.extend_from_slice(key);
        self.has_key = true;
        Ok(())
    }

    /// Passes right rows before `key`; whether a row of `key` follows.
    fn skip_to(&mut self, sought: &[u8]) -> Result<bool> {
        let column = self.plan.right_width + R_KEY;
        while let Some((part, at)) = self.right.next()? {
            let rows = part.batch();
            let is_before = |row: usize| key(&rows, column, row).is_some_and(|key| key < sought);
            let to = (at..rows.rows()).find(|&row| !is_before(row)).unwrap_or(rows.rows());
            if to > at {
                self.left_over(&part, at..to)?;
                self.right.go_to(to);
            }
            if to < rows.rows() {
                return Ok(key(&rows, column, to) == Some(sought));
            }
        }
        Ok(false)
    }

    fn write_hot(&mut self, part: &Part, range: Range<usize>) -> Result<()> {
        let (plan, hot) = (self.plan, &mut self.hot);
        in_pieces(range, &mut self.scratch, &mut self.scratch_room, |some, arena| {
            let rows = part.batch().slice(some.start, some.len(), arena)?;
            // Nobody asks for these.
            let columns = arena.copy(rows.columns())?;
            columns[plan.right_width + R_KEY] = Column::nulls(some.len());
            columns[plan.right_width + R_TIME] = Column::nulls(some.len());
            hot.append(&Batch::new(columns, None, some.len()), arena)
        })
    }

    /// Right rows that nothing has matched by key, or all of them if a condition decides later.
    fn left_over(&mut self, part: &Part, range: Range<usize>) -> Result<()> {
        let width = self.plan.right_width;
        let Some((rest, batches)) = &mut self.outs.rest else {
            return Ok(());
        };
        in_pieces(range, &mut self.scratch, &mut self.scratch_room, |some, arena| {
            let rows = part.batch().slice(some.start, some.len(), arena)?;
            let mut columns = Columns::new(arena, width + U_WIDTH)?;
            rows.columns()[..width].iter().for_each(|&column| columns.push(column));
            columns.push(rows.column(width + R_CHUNK));
            columns.push(rows.column(width + R_ROW));
            columns.push(Column::int(arena.fill(some.len(), 1)?, None));
            **batches += 1;
            rest.push(**batches, Batch::new(columns.finish(), None, some.len()))
        })
    }

    /// Copies of right rows for the left rows `left` that they match.
    fn make_copies(&mut self, left: &Batch<'_>) -> Result<()> {
        let width = self.plan.right_width;
        let Meeting {
            plan,
            picks,
            parents,
            pieces,
            outs,
            batches,
            ..
        } = self;
        let kinds = picked::kinds(pieces.iter().map(|part| &part.kept));
        let mut from = 0;
        while from < picks.len() {
            let some = picked::alike(&picks[from..], |pick| kinds.get(pick.0 as usize));
            let range = from..from + some.len();
            in_pieces(
                range.clone(),
                &mut self.scratch,
                &mut self.scratch_room,
                |some, arena| {
                    let (picks, parents) = (&picks[some.clone()], &parents[some.clone()]);
                    let rows = gather_of(picks, width + R_WIDTH, arena, |piece| pieces[piece as usize].batch())?;
                    let columns = arena.copy(rows.columns())?;
                    let of_left = |column: usize| left.column(plan.left_width + column).gather(parents, arena);
                    columns[width + C_NUMBER] = of_left(L_NUMBER)?;
                    columns[width + C_ROW] = of_left(L_ROW)?;
                    *batches += 1;
                    outs.matches.push(*batches, Batch::new(columns, None, some.len()))
                },
            )?;
            from = range.end;
        }
        picks.clear();
        parents.clear();
        pieces.clear();
        Ok(())
    }

    /// Left rows from `from` on that come out, or of which it is not known yet.
    fn keep_left(&mut self, rows: &Batch<'_>, from: usize, hot: &[(i64, i64)]) -> Result<()> {
        let (plan, width) = (self.plan, self.plan.left_width);
        let stays = |row: usize| {
            let found = hot[row - from].0 != NONE;
            match plan.mode {
                Mode::Left | Mode::Full | Mode::Asof => true,
                Mode::Anti => !found || plan.condition,
                Mode::Inner | Mode::Right | Mode::Semi => found,
            }
        };
        let Meeting { outs, batches, .. } = self;
        in_pieces(
            from..rows.rows(),
            &mut self.scratch,
            &mut self.scratch_room,
            |some, arena| {
                let bits = standpipe_sdk::Bits::collect(arena, some.len(), |at| stays(some.start + at))?;
                let indices = arena.map(bits.indices(arena)?, |at| at + some.start as u32)?;
                if indices.is_empty() {
                    return Ok(());
                }
                let kept = rows.gather(indices, rows.columns().len(), arena)?;
                let columns = arena.copy(kept.columns())?;
                let is_hot = |row: u32| hot[row as usize - from].1 != NONE;
                let valid = standpipe_sdk::Bits::collect(arena, indices.len(), |at| is_hot(indices[at]))?;
                let starts = arena.map(indices, |row| hot[row as usize - from].0)?;
                let lens = arena.map(indices, |row| hot[row as usize - from].1)?;
                columns[width + L_HOT] = Column::int(starts, Some(valid));
                columns[width + L_HOT_ROWS] = Column::int(lens, Some(valid));
                *batches += 1;
                outs.left.push(*batches, Batch::new(columns, None, indices.len()))
            },
        )
    }
}

/// No match.
const NONE: i64 = i64::MIN;
/// Matches are copied.
const COPIED: i64 = i64::MIN + 1;

impl Plan {
    /// The right side only decides by its keys: nobody asks for its rows.
    pub(super) fn decides(&self) -> bool {
        self.mode.only_left() && !self.condition
    }
}

/// The number of `part` among `pieces`.
fn piece_of(pieces: &mut Vec<Arc<Part>>, part: &Arc<Part>) -> u32 {
    match pieces.iter().position(|known| Arc::ptr_eq(known, part)) {
        Some(at) => at as u32,
        None => {
            pieces.push(part.clone());
            pieces.len() as u32 - 1
        }
    }
}

/// Where the rows of `key` that start at `at` end.
fn end_of_run(rows: &Batch<'_>, column: usize, at: usize, sought: &[u8]) -> usize {
    let other = (at..rows.rows()).find(|&row| key(rows, column, row) != Some(sought));
    other.unwrap_or(rows.rows())
}

/// Works on rows in as many pieces as `arena` makes necessary. What `work` has done when it is refused memory, it has not done.
fn in_pieces(
    range: Range<usize>,
    arena: &mut Arena,
    room: &mut Reservation,
    mut work: impl FnMut(Range<usize>, &Arena) -> Result<()>,
) -> Result<()> {
    let (mut from, mut len) = (range.start, range.len());
    while from < range.end {
        len = len.min(range.end - from);
        let done = work(from..from + len, arena);
        arena.reset();
        match done {
            Ok(()) => from += len,
            Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
            Err(Error::Memory { .. }) => {
                let more = arena.limit();
                room.grow(more)?;
                arena.set_limit(2 * more);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
