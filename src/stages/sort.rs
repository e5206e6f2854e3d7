//! `sort -a, b nulls: first`: all rows in another order.
//!
//! Each lane keeps its batches and, per row, an entry: the first 24 bytes of the key, and where the row is. Longer keys keep the
//! rest beside the batch. A lane sorts its entries when it is done; the drain merges them into one list of rows, and claims
//! of that list are gathered in parallel.
//!
//! A lane that is refused memory sorts what it has, writes it to disk as a segment and starts again; once one lane has done so, all do
//! at the end, and the drain merges segments.
//!
//! Laws
//! - Rows with equal keys keep the order of their chunks: entries compare by (key, chunk, batch, row).
//! - Everything is reserved before it is allocated: a refusal leaves a lane as it was, and able to spill, for which it has set memory aside.
//! - A row's place behind a sort is its number in the output.

use super::codes::held;
use super::groups::{grow, grow_to};
use super::keys::{self, Key, KeyBlock, Keys};
use super::picked::{self, PIECE_BYTES, Picked};
use super::spill::{Merge, Merged, Segment, SegmentWriter, Store, lists_of_lane};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Factory, Filters, Items, Kind, Make, Memory, Order, Setup, SortKey,
    StageSpec,
};
use standpipe_sdk::{Arena, Batch, Breaker, Budget, Column, Fill, Kept, Reservation, Source};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// `sort`.
pub const SPEC: StageSpec = StageSpec {
    name: "sort",
    about: "Orders rows by keys, `-` turning one round; nan and then null stand last either way, equal rows keep their order",
    kind: Kind::Breaker,
    items: Items::some(ArgKind::Key, 1, usize::MAX, "keys, the most significant first"),
    options: &[keys::NULLS],
    order: Order::Creates,
    memory: Memory::Spill,
    least: super::spill::least,
    examples: &[
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | sort -k, n"#,
            output: "k,n\nb,1\nb,3\na,2\n",
        },
        Example {
            script: "from rows [{id: 1, n: 2}, {id: 2, n: null}, {id: 3, n: 1}] | sort n nulls: first",
            output: "id,n\n2,\n3,1\n1,2\n",
        },
    ],
    bind: &bind,
    filters: |_| Filters::Pass,
    limited: super::top::of_sort,
    sorts,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, call.items, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let reads = keys.iter().map(|key| key.column).collect();
    let sorted_by = keys::known_order(call, &keys);
    let mut bound = Bound::keeps(call, reads, Make::Breaker(of_rows("sort", call, keys)));
    bound.sorted_by = sorted_by;
    Ok(bound)
}

/// All rows of a call in the order of `keys`.
pub(super) fn of_rows(stage: &'static str, call: &Call<'_>, keys: Vec<Key>) -> Factory<Arc<dyn Breaker>> {
    let types = keys.iter().filter_map(|key| call.input.get(key.column)).map(|f| &f.ty);
    let longest = keys::max_width(types);
    breaker(stage, keys, longest, call.own)
}

fn sorts(call: &Call<'_>) -> Option<Vec<SortKey>> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, call.items, &mut complaints).into_iter();
    let keys = keys.map(|key| SortKey {
        column: key.column,
        descending: key.descending,
        nulls_first: key.nulls_first,
    });
    complaints.is_empty().then(|| keys.collect())
}

/// All rows in the order of `keys`, of which none is longer than `longest` bytes; the first `own` columns of them are passed on.
/// `stage` is who says that something does not fit.
pub(crate) fn breaker(
    stage: &'static str,
    keys: Vec<Key>,
    longest: Option<usize>,
    own: usize,
) -> Factory<Arc<dyn Breaker>> {
    breaker_of(stage, keys, longest, own, usize::MAX)
}

/// The same, of which a lane keeps no more than `most` bytes in memory.
pub(super) fn breaker_of(
    stage: &'static str,
    keys: Vec<Key>,
    longest: Option<usize>,
    own: usize,
    most: usize,
) -> Factory<Arc<dyn Breaker>> {
    Box::new(move |setup: &Setup| Ok(Sort::new(stage, keys.clone(), longest, own, most, 1, setup)))
}

/// What a segment has at most, unless there is memory for more than a few of them.
const SEGMENT_BYTES: usize = 16 << 20;
/// How often other lanes may take the memory that was freed for a row before that is an error.
const ATTEMPTS: usize = 100;

/// Rows that are being sorted.
pub(super) struct Sort {
    stage: &'static str,
    keys: Keys,
    /// Bytes of each key that are in its entry, the rest of which are zeros.
    head: usize,
    /// That is all of every key.
    short: bool,
    own: usize,
    /// Bytes of a lane's rows from which on it spills, whatever there is.
    most: usize,
    /// How many such sorts the stage reads at the same time.
    merges: usize,
    setup: Setup,
    store: Arc<Store>,
    /// How often a lane was refused memory.
    refusals: AtomicU64,
    /// All lanes: one that is refused the memory for a single row has the others make room.
    lanes: Mutex<Vec<Arc<Mutex<Lane>>>>,
}

/// Bytes of a key in its entry: those of two numbers, and a little. Longer keys are read where they are.
const HEAD_BYTES: usize = 24;

/// A row: the first bytes of its key as numbers, its batch and its number in it.
#[derive(Clone, Copy)]
struct Entry {
    head: [u64; HEAD_BYTES / 8],
    piece: u32,
    row: u32,
}

impl Entry {
    /// As many of the key's first bytes as `out` has room for.
    #[inline]
    fn write_head(&self, out: &mut [u8]) {
        let (whole, rest) = out.as_chunks_mut::<8>();
        // Byte by byte where there are less than eight: a copy of any length would be a call.
        if let Some(&last) = self.head.get(whole.len()) {
            let bytes = (0..rest.len()).map(|at| (last >> (56 - 8 * at)) as u8);
            rest.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        }
        for (bytes, number) in whole.iter_mut().zip(self.head) {
            *bytes = number.to_be_bytes();
        }
    }
}

/// A batch that is kept, and what its rows' keys have behind their heads.
struct Piece {
    rows: Kept,
    chunk: u64,
    /// The number of the first row in the chunk.
    first: u32,
    tails: Tails,
}

#[derive(Default)]
struct Tails {
    bytes: Vec<u8>,
    /// A zero, then where each row's tail ends; empty if all keys are short.
    ends: Vec<u32>,
}

impl Tails {
    #[inline]
    fn get(&self, row: u32) -> &[u8] {
        match self.ends.get(row as usize..row as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// What one lane has collected, and what it spills with.
struct Lane {
    rows: Collected,
    writer: SegmentWriter,
    /// For keys, and for rows on their way to disk.
    scratch: Arena,
    scratch_room: Reservation,
    /// The chunk that is being taken, and how many of its rows have been.
    chunk: u64,
    chunk_rows: u32,
    /// Refusals of all lanes that this one knows of.
    refusals: u64,
}

/// The rows in memory.
struct Collected {
    entries: Vec<Entry>,
    pieces: Vec<Piece>,
    /// For the kept rows: lives as long as the sorted source.
    kept: Reservation,
    /// For entries and tails: given back once the order is known.
    extra: Reservation,
}

impl Sort {
    /// See [`breaker_of`]; of the memory it leaves so much that `merges` of them can be read at the same time.
    pub(super) fn new(
        stage: &'static str,
        keys: Vec<Key>,
        longest: Option<usize>,
        own: usize,
        most: usize,
        merges: usize,
        setup: &Setup,
    ) -> Arc<Sort> {
        let short = longest.filter(|&bytes| bytes <= HEAD_BYTES);
        Arc::new(Sort {
            stage,
            keys: Keys::new(keys),
            head: short.unwrap_or(HEAD_BYTES),
            short: short.is_some(),
            own,
            most,
            merges,
            setup: setup.clone(),
            store: Store::beside(stage, &setup.budget, &setup.spill, merges),
            refusals: AtomicU64::new(0),
            lanes: Mutex::default(),
        })
    }

    /// Once all lanes are done: nothing stays in memory.
    pub(super) fn to_disk(&self) -> Result<()> {
        for lane in std::mem::take(&mut *lock(&self.lanes)) {
            lock(&lane).spill(self).map_err(|e| held(self.stage, e))?;
        }
        Ok(())
    }

    /// Once all lanes are done: all rows in order, out of segments on disk, where so many merges are read at the same time.
    pub(super) fn merged(&self, merges: usize) -> Result<Merge> {
        self.to_disk()?;
        Merge::one_of(&self.store, &self.setup.budget, merges)
    }
}

impl Breaker for Sort {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let lane = Lane::new(&self).map_err(|e| held(self.stage, e))?;
        let lane = Arc::new(Mutex::new(lane));
        lock(&self.lanes).push(lane.clone());
        Ok(Box::new(Filler { lane, sort: self }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let lanes = std::mem::take(&mut *lock(&self.lanes));
        if self.store.is_empty() {
            let rows = lanes.iter().map(|lane| lock(lane).take_rows(&self)).collect();
            let (rows, error) = match merge(rows, &self.setup.budget, self.setup.chunk_bytes, self.own) {
                Ok(sorted) => return Ok(Arc::new(sorted)),
                Err(refused) => refused,
            };
            // Everything fits but the list of it: then it is spilled after all.
            if !matches!(error, Error::Memory { .. }) {
                return Err(held(self.stage, error));
            }
            for (lane, rows) in lanes.iter().zip(rows) {
                lock(lane).rows = rows;
            }
        }
        for lane in lanes {
            lock(&lane).spill(&self).map_err(|e| held(self.stage, e))?;
        }
        let merge = Merge::one_of(&self.store, &self.setup.budget, self.merges)?;
        Ok(Arc::new(Merged::new(merge, &self.setup)))
    }
}

struct Filler {
    sort: Arc<Sort>,
    lane: Arc<Mutex<Lane>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let (mut from, mut attempts) = (0, 0);
        loop {
            let before = from;
            let outcome = lock(&self.lane).push(&self.sort, chunk, &batch, &mut from);
            // Each row has as many.
            attempts = if from == before { attempts + 1 } else { 1 };
            match outcome {
                Err(Error::Memory { .. }) if attempts <= ATTEMPTS => self.others_make_room()?,
                other => return other.map_err(|e| held(self.sort.stage, e)),
            }
        }
    }

    fn done(&mut self) -> Result<()> {
        let mut lane = lock(&self.lane);
        if self.sort.store.is_empty() {
            let all = lane.rows.entries.len();
            lane.rows.sort(0..all);
            Ok(())
        } else {
            lane.spill(&self.sort).map_err(|e| held(self.sort.stage, e))
        }
    }
}

impl Filler {
    /// This lane has nothing that it could spill, and still no memory for a row. No lane waits for another while it is locked.
    fn others_make_room(&self) -> Result<()> {
        let lanes = lock(&self.sort.lanes).clone();
        for other in lanes.iter().filter(|other| !Arc::ptr_eq(other, &self.lane)) {
            lock(other).spill(&self.sort).map_err(|e| held(self.sort.stage, e))?;
        }
        Ok(())
    }
}

/// What a lane sets aside for copies of rows.
fn kept_aside(frame_bytes: usize) -> usize {
    3 * frame_bytes
}

/// And for entries and lists.
fn extra_aside(frame_bytes: usize) -> usize {
    3 * frame_bytes + lists_of_lane(frame_bytes)
}

impl Lane {
    fn new(sort: &Sort) -> Result<Lane> {
        let frame = sort.store.frame_bytes();
        let budget = &sort.setup.budget;
        let mut rows = Collected::new(budget);
        let mut scratch_room = budget.reserve();
        scratch_room.set_aside(4 * frame)?;
        scratch_room.grow(4 * frame)?;
        // What is needed to take a row or two, however little the other stages leave.
        rows.kept.set_aside(kept_aside(frame))?;
        rows.extra.set_aside(extra_aside(frame))?;
        Ok(Lane {
            rows,
            writer: sort.store.writer()?,
            scratch: Arena::new(4 * frame),
            scratch_room,
            chunk: 0,
            chunk_rows: 0,
            refusals: 0,
        })
    }

    fn take_rows(&mut self, sort: &Sort) -> Collected {
        std::mem::replace(&mut self.rows, Collected::new(&sort.setup.budget))
    }

    /// Takes the rows from `from` on, and moves that on. After a refusal the rest may come again.
    fn push(&mut self, sort: &Sort, chunk: u64, batch: &Batch<'_>, from: &mut usize) -> Result<()> {
        if self.chunk != chunk {
            (self.chunk, self.chunk_rows) = (chunk, 0);
        }
        let refusals = sort.refusals.load(Relaxed);
        if self.refusals != refusals {
            self.refusals = refusals;
            // Another lane was refused. A lane that holds much makes room, so that not always the one with little has to.
            if self.rows.bytes() > sort.setup.budget.limit() / (2 * sort.setup.workers.max(1)) {
                self.spill(sort)?;
            }
        }
        let mut columns: Vec<Column<'_>> = vec![];
        let mut len = batch.rows();
        while *from < batch.rows() {
            len = len.min(batch.rows() - *from);
            columns.clear();
            columns.extend(batch.columns().iter().map(|c| c.slice(*from, len)));
            let taken = self.take(sort, &Batch::new(&columns, None, len));
            self.scratch.reset();
            match taken {
                Ok(()) => {
                    *from += len;
                    self.chunk_rows = self.chunk_rows.saturating_add(len as u32);
                }
                Err(Error::Memory { .. }) if !self.rows.entries.is_empty() => {
                    sort.refusals.fetch_add(1, Relaxed);
                    self.spill(sort)?;
                }
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                // One row that is longer than what is set aside for the ways of a row: as long as the budget has more.
                Err(Error::Memory { .. }) => {
                    let more = self.scratch.limit();
                    self.scratch_room.grow(more)?;
                    self.scratch.set_limit(2 * more);
                }
                Err(error) => return Err(error),
            }
        }
        let forced = sort.store.spill().spill_rows();
        if forced.is_some_and(|rows| self.rows.entries.len() >= rows) || self.rows.bytes() > sort.most {
            self.spill(sort)?;
        }
        Ok(())
    }

    fn take(&mut self, sort: &Sort, batch: &Batch<'_>) -> Result<()> {
        let keys = sort.keys.block(batch, &self.scratch)?;
        let kept = Batch::new(&batch.columns()[..sort.own], None, batch.rows());
        self.writer.make_room(&kept, &keys)?;
        self.rows.take(&kept, &keys, sort.short, self.chunk, self.chunk_rows)
    }

    /// All rows in memory go to disk, as segments of a length that is sorted and gathered without leaving the caches too often. After an
    /// error the rows that are in no segment are still here: it can be tried again.
    fn spill(&mut self, sort: &Sort) -> Result<()> {
        if self.rows.entries.is_empty() {
            return Ok(());
        }
        let _ = self.rows.extra.set_aside(extra_aside(sort.store.frame_bytes()));
        let all = self.rows.entries.len();
        let row_bytes = (self.rows.bytes() / all).max(1);
        let rows = (SEGMENT_BYTES.max(sort.setup.budget.limit() / 8) / row_bytes).max(1);
        let rows = all.div_ceil(all.div_ceil(rows));
        let mut from = 0;
        while from < all {
            let to = all.min(from + rows);
            match self.spill_some(from..to, sort) {
                Ok((segment, to)) => {
                    sort.store.keep(segment);
                    from = to;
                }
                Err(error) => {
                    self.writer.forget();
                    self.rows.entries.drain(..from);
                    return Err(error);
                }
            }
        }
        self.rows.clear();
        Ok(())
    }

    /// A segment of the first of these rows, and where they end: usually with the last.
    fn spill_some(&mut self, rows: Range<usize>, sort: &Sort) -> Result<(Segment, usize)> {
        self.rows.sort(rows.clone());
        let to = self.rows.write(rows, &mut self.writer, &mut self.scratch, sort)?;
        let last = to == self.rows.entries.len();
        // The entries alone take more than a list of frames, unless there are so few that what is set aside is all there is.
        match self.writer.finish_from(&mut self.rows.extra) {
            Err(Error::Memory { .. }) if last => {
                // There is nothing left that could be tried again, so that the list must not be refused. What it is given of what is set
                // aside comes back as soon as there is any memory.
                self.rows.clear();
                let finished = self.writer.finish_aside(&mut self.rows.extra);
                finished.map_err(|e| held(sort.stage, e))
            }
            other => other,
        }
        .map(|segment| (segment, to))
    }
}

impl Collected {
    fn new(budget: &Arc<Budget>) -> Collected {
        Collected {
            entries: vec![],
            pieces: vec![],
            kept: budget.reserve(),
            extra: budget.reserve(),
        }
    }

    fn bytes(&self) -> usize {
        self.kept.bytes() + self.extra.bytes()
    }

    fn take(&mut self, batch: &Batch<'_>, keys: &KeyBlock<'_>, short: bool, chunk: u64, first: u32) -> Result<()> {
        let rows = batch.rows();
        let too_many = || Error::Memory {
            wanted: rows,
            used: self.pieces.len(),
            limit: u32::MAX as usize,
        };
        let piece = u32::try_from(self.pieces.len()).map_err(|_| too_many())?;
        let bytes = batch.copy_bytes();

        // All room first: nothing changes before the last refusal.
        grow(&mut self.entries, rows, &mut self.extra)?;
        grow(&mut self.pieces, 1, &mut self.extra)?;
        let charged = self.extra.bytes();
        let made = Tails::new(keys, short, &mut self.extra).and_then(|tails| {
            self.kept.grow(bytes + PIECE_BYTES)?;
            let copy = Kept::copy(batch, bytes);
            if copy.is_err() {
                self.kept.shrink(bytes + PIECE_BYTES);
            }
            Ok((tails, copy?))
        });
        let (tails, kept) = made.inspect_err(|_| self.extra.shrink(self.extra.bytes() - charged))?;
        self.entries.extend((0..rows).map(|row| Entry {
            head: head(keys.get(row)),
            piece,
            row: row as u32,
        }));
        self.pieces.push(Piece {
            rows: kept,
            chunk,
            first,
            tails,
        });
        Ok(())
    }

    fn sort(&mut self, rows: Range<usize>) {
        let Collected { entries, pieces, .. } = self;
        entries[rows].sort_unstable_by(|a, b| compare(a, &pieces[a.piece as usize], b, &pieces[b.piece as usize]));
    }

    /// Appends the rows, which are sorted, to a segment; where they end if its list of frames has no room for all of them.
    fn write(&self, rows: Range<usize>, writer: &mut SegmentWriter, scratch: &mut Arena, sort: &Sort) -> Result<usize> {
        let kinds = picked::kinds(self.pieces.iter().map(|p| &p.rows));
        let bytes: usize = self.pieces.iter().map(|p| p.rows.bytes()).sum();
        let row_bytes = (bytes / self.entries.len().max(1)).max(1);
        let usual = (2 * sort.store.frame_bytes() / row_bytes).clamp(1, 1 << 14);
        let (mut from, mut len) = (rows.start, usual);
        while from < rows.end && (from == rows.start || !writer.is_full()) {
            let some = &self.entries[from..rows.end.min(from + len)];
            let some = picked::alike(some, |e| kinds.get(e.piece as usize));
            match self.append(some, writer, scratch, sort) {
                Ok(()) => {
                    from += some.len();
                    len = usual;
                }
                // Nothing was written: gathering comes first.
                Err(Error::Memory { .. }) if some.len() > 1 => len = some.len().div_ceil(2),
                Err(error) => return Err(error),
            }
            scratch.reset();
        }
        Ok(from)
    }

    fn append(&self, some: &[Entry], writer: &mut SegmentWriter, scratch: &Arena, sort: &Sort) -> Result<()> {
        let width = sort.head;
        let picks = scratch.map(some, |e| (e.piece, e.row))?;
        let batch = picked::gather_of(picks, sort.own, scratch, |piece| {
            self.pieces[piece as usize].rows.batch()
        })?;
        let piece = |at: usize| &self.pieces[some[at].piece as usize];
        let mut end = 0;
        let ends = scratch.collect(some.len() + 1, |at| {
            let before = end;
            if at < some.len() {
                end += width + piece(at).tails.get(some[at].row).len();
            }
            before as u32
        })?;
        let bytes = scratch.fill(end, 0u8)?;
        for (at, entry) in some.iter().enumerate() {
            let (head, tail) = bytes[ends[at] as usize..ends[at + 1] as usize].split_at_mut(width);
            entry.write_head(head);
            if !tail.is_empty() {
                tail.copy_from_slice(piece(at).tails.get(entry.row));
            }
        }
        let chunks = scratch.collect(some.len(), |at| piece(at).chunk)?;
        let rows = scratch.collect(some.len(), |at| piece(at).first + some[at].row)?;
        writer.append(&batch, &KeyBlock::each(bytes, ends), chunks, rows)
    }

    fn clear(&mut self) {
        self.entries = vec![];
        self.pieces = vec![];
        self.kept.shrink(self.kept.bytes());
        self.extra.shrink(self.extra.bytes());
    }
}

impl Tails {
    fn new(keys: &KeyBlock<'_>, short: bool, room: &mut Reservation) -> Result<Tails> {
        let mut tails = Tails::default();
        if short {
            return Ok(tails);
        }
        grow_to(&mut tails.ends, keys.len() + 1, room)?;
        let bytes = (0..keys.len()).map(|row| tail(keys.get(row)).len()).sum();
        grow_to(&mut tails.bytes, bytes, room)?;
        tails.ends.push(0);
        for row in 0..keys.len() {
            tails.bytes.extend_from_slice(tail(keys.get(row)));
            // A block of keys has at most 32 bits of bytes.
            tails.ends.push(tails.bytes.len() as u32);
        }
        Ok(tails)
    }
}

/// What is not in the entry of a key.
fn tail(key: &[u8]) -> &[u8] {
    key.get(HEAD_BYTES..).unwrap_or_default()
}

#[inline]
fn head(key: &[u8]) -> [u64; HEAD_BYTES / 8] {
    let mut head = [0; HEAD_BYTES / 8];
    let (whole, rest) = key[..key.len().min(HEAD_BYTES)].as_chunks::<8>();
    for (number, bytes) in head.iter_mut().zip(whole) {
        *number = u64::from_be_bytes(*bytes);
    }
    if let Some(last) = head.get_mut(whole.len()) {
        let rest = rest.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let bits = 8 * (key.len().min(HEAD_BYTES) % 8);
        *last = if bits == 0 { 0 } else { rest << (64 - bits) };
    }
    head
}

/// By (key, chunk, batch, row). Batches of one chunk are in one lane, so their numbers compare.
#[inline]
fn compare(a: &Entry, in_a: &Piece, b: &Entry, in_b: &Piece) -> Ordering {
    a.head
        .cmp(&b.head)
        .then_with(|| in_a.tails.get(a.row).cmp(in_b.tails.get(b.row)))
        .then_with(|| (in_a.chunk, a.piece, a.row).cmp(&(in_b.chunk, b.piece, b.row)))
}

/// One list of all rows, and the batches they are in. What does not fit comes back.
fn merge(
    mut lanes: Vec<Collected>,
    budget: &Arc<Budget>,
    chunk_bytes: usize,
    width: usize,
) -> Result<Picked, (Vec<Collected>, Error)> {
    let rows: usize = lanes.iter().map(|l| l.entries.len()).sum();
    let mut reservation = budget.reserve();
    let mut order: Vec<Pick> = vec![];
    let mut kept: Vec<Kept> = vec![];
    let all = lanes.iter().map(|l| l.pieces.len()).sum();
    let room = grow_to(&mut order, rows, &mut reservation).and_then(|()| grow_to(&mut kept, all, &mut reservation));
    if let Err(error) = room {
        return Err((lanes, error));
    }
    lanes.retain(|lane| !lane.entries.is_empty());
    let mut bases = vec![];
    let mut pieces = 0usize;
    for lane in &lanes {
        bases.push(pieces as u32);
        pieces += lane.pieces.len();
    }
    // A heap of the lanes by their next entries: `heap[0]` holds the least.
    let mut heap: Vec<usize> = (0..lanes.len()).collect();
    let mut next = vec![0usize; lanes.len()];
    let less = |a: usize, b: usize, next: &[usize]| match (lanes[a].entries.get(next[a]), lanes[b].entries.get(next[b]))
    {
        (Some(x), Some(y)) => {
            compare(
                x,
                &lanes[a].pieces[x.piece as usize],
                y,
                &lanes[b].pieces[y.piece as usize],
            ) == Ordering::Less
        }
        (x, _) => x.is_some(),
    };
    let sift = |heap: &mut Vec<usize>, mut at: usize, next: &[usize]| {
        loop {
            let least = [2 * at + 1, 2 * at + 2]
                .into_iter()
                .filter(|&child| child < heap.len())
                .fold(at, |least, child| {
                    if less(heap[child], heap[least], next) {
                        child
                    } else {
                        least
                    }
                });
            if least == at {
                break;
            }
            heap.swap(at, least);
            at = least;
        }
    };
    for at in (0..heap.len() / 2).rev() {
        sift(&mut heap, at, &next);
    }
    for _ in 0..rows {
        let lane = heap[0];
        let entry = lanes[lane].entries[next[lane]];
        order.push((bases[lane] + entry.piece, entry.row));
        next[lane] += 1;
        sift(&mut heap, 0, &next);
    }

    let mut reservations = vec![reservation];
    for lane in lanes {
        kept.extend(lane.pieces.into_iter().map(|piece| piece.rows));
        reservations.push(lane.kept);
    }
    Ok(Picked::new(kept, order, width, chunk_bytes, reservations))
}

#[cfg(test)]
mod tests {
    use super::super::codes;
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Arg;
    use standpipe_sdk::spec::Item;
    use standpipe_sdk::{Data, Disk, Schema, Spill, Type, Value};

    fn rows() -> (Schema, Rows) {
        let schema = schema(&[
            ("id", INT),
            ("f", Type::Float),
            ("s", STRING),
            ("l", Type::list(INT, true)),
        ]);
        let floats = [1.5, -0.0, f64::NAN, 0.0, -3.0];
        let rows = (0..500)
            .map(|i: i64| {
                let float = if i % 11 == 4 {
                    NULL
                } else {
                    Value::Float(floats[(i * 7 % 5) as usize])
                };
                let name = if i % 13 == 2 {
                    NULL
                } else {
                    text(&format!("a rather long name, number {}", i * 31 % 17))
                };
                vec![int(i), float, name, Value::List((0..i % 3).map(int).collect())]
            })
            .collect();
        (schema, rows)
    }

    fn rank(value: &Value, nulls_first: bool) -> u8 {
        match value {
            Value::Null if nulls_first => 0,
            Value::Null => 3,
            Value::Float(v) if v.is_nan() => 2,
            _ => 1,
        }
    }

    fn slow(rows: &Rows, keys: &[(usize, bool)], nulls_first: bool) -> Vec<i64> {
        let mut sorted = rows.clone();
        sorted.sort_by(|a, b| {
            keys.iter().fold(Ordering::Equal, |order, &(at, descending)| {
                order.then_with(|| {
                    let (a, b) = (&a[at], &b[at]);
                    let order = match (a, b) {
                        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                        (Value::String(a), Value::String(b)) => a.cmp(b),
                        (Value::Int(a), Value::Int(b)) => a.cmp(b),
                        _ => Ordering::Equal,
                    };
                    let order = if descending { order.reverse() } else { order };
                    rank(a, nulls_first).cmp(&rank(b, nulls_first)).then(order)
                })
            })
        });
        ids(&sorted)
    }

    fn ids(rows: &Rows) -> Vec<i64> {
        rows.iter()
            .map(|row| {
                if let Value::Int(id) = row[0] {
                    id
                } else {
                    panic!("an int")
                }
            })
            .collect()
    }

    fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
        keys.iter()
            .map(|&(at, descending)| Item {
                descending,
                ..column(at)
            })
            .collect()
    }

    #[test]
    fn the_order_is_the_languages_and_stable_whatever_the_lanes_and_chunks() {
        let (schema, rows) = rows();
        for keys in [
            &[(1, false)][..],
            &[(1, true)],
            &[(2, false)],
            &[(2, true), (1, false)],
            &[(1, true), (2, true)],
        ] {
            for first in [false, true] {
                let options = [(
                    "nulls",
                    argument(None, Arg::Word(if first { "first" } else { "last" }.into())),
                )];
                let items = keyed(keys);
                let bound = bind(&Call {
                    options: &options,
                    ..call(&schema, 4, &items)
                })
                .unwrap();
                assert_eq!(bound.sorted_by, if first { &[] } else { keys });
                let want = slow(&rows, keys, first);
                for chunk in CHUNKS {
                    let got = run(&bound, &schema, &rows, chunk);
                    assert_eq!(ids(&got.rows), want);
                    assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
                    for row in got.rows.iter().take(50) {
                        let Value::Int(id) = row[0] else { panic!("an int") };
                        assert_eq!(format!("{row:?}"), format!("{:?}", rows[id as usize]));
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_the_memory_it_is_the_same_order_or_an_error_that_names_the_stage() {
        let (schema, rows) = rows();
        let items = keyed(&[(2, false)]);
        let bound = bind(&call(&schema, 4, &items)).unwrap();
        let want = slow(&rows, &[(2, false)], false);
        let mut refused = 0;
        for limit in (100_000..3_000_000).step_by(90_000) {
            match try_run(&bound, &schema, &rows, 50, limit) {
                Ok(got) => assert_eq!(ids(&got.rows), want),
                Err(error) => {
                    refused += 1;
                    assert!(
                        limit < 1_500_000 && error.to_string().contains("`sort` needs "),
                        "{limit}: {error}"
                    );
                }
            }
        }
        assert!(refused > 1, "{refused}");
    }

    #[test]
    fn rows_of_every_length_are_spilled_in_a_small_memory() {
        let schema = schema(&[("id", INT), ("s", STRING)]);
        let lens = [0, 5, 40, 3_000, 30_000, 10, 60_000, 1];
        let rows: Rows = (0..400)
            .map(|i| {
                vec![
                    int(i),
                    text(&format!("{:03}", i * 37 % 400).repeat(lens[i as usize % 8])),
                ]
            })
            .collect();
        let items = keyed(&[(1, true)]);
        let bound = bind(&call(&schema, 2, &items)).unwrap();
        let got = try_run(&bound, &schema, &rows, 13, 8 << 20).unwrap();
        assert_eq!(ids(&got.rows), slow(&rows, &[(1, true)], false));
    }

    #[test]
    fn what_is_spilled_in_pieces_needs_nothing_of_what_others_took() {
        let setup = setup(64 << 20);
        let schema = schema(&[("id", INT), ("s", STRING)]);
        let wide = text(&"a text that makes the row long ".repeat(60));
        let rows: Rows = (0..500).map(|i| vec![int(i * 7919 % 500), wide.clone()]).collect();
        let bound = bind(&call(&schema, 2, &keyed(&[(0, false)]))).unwrap();
        let Make::Breaker(make) = &bound.make else {
            panic!("a breaker")
        };
        let breaker = make(&setup).unwrap();
        let mut filler = breaker.clone().filler().unwrap();
        let arena = Arena::new(4 << 20);
        let batch = super::super::values::batch(&schema, &rows, &arena).unwrap();
        let mut other = setup.budget.reserve();
        for chunk in 0..44 {
            if chunk == 42 {
                // Somebody takes all there is, down to the last byte.
                other.grow(setup.budget.free()).unwrap();
            }
            filler.push(chunk, batch).unwrap();
        }
        assert!(setup.spill.done().segments > 1, "in one piece");
        drop(other);
        filler.done().unwrap();
        drop(filler);
        let got = ids(&read_all(&breaker.drain().unwrap(), &schema, 1000).rows);
        assert!(got.len() == 44 * 500 && got.is_sorted());
    }

    #[test]
    fn a_spill_that_was_refused_can_be_tried_again_and_loses_and_doubles_nothing() {
        let setup = setup(64 << 20);
        let schema = schema(&[("id", INT), ("s", STRING)]);
        let sort = Sort {
            stage: "sort",
            keys: Keys::grouping([0]),
            head: 9,
            short: true,
            own: 2,
            most: usize::MAX,
            merges: 1,
            setup: setup.clone(),
            store: Store::new("sort", &setup),
            refusals: AtomicU64::new(0),
            lanes: Mutex::default(),
        };
        let mut lane = Lane::new(&sort).unwrap();
        let wide = text(&"so long ".repeat(220));
        // Twenty thousand rows make two segments; the one row that is much longer, for which the writer has no room, is in the second.
        let rows: Rows = (0..19_999)
            .map(|i| vec![int(i * 7919 % 19_999), wide.clone()])
            .collect();
        for (chunk, rows) in rows.chunks(500).enumerate() {
            let arena = Arena::new(4 << 20);
            let batch = super::super::values::batch(&schema, rows, &arena).unwrap();
            lane.push(&sort, chunk as u64, &batch, &mut 0).unwrap();
        }
        let arena = Arena::new(4 << 20);
        let longest = vec![vec![int(19_999), text(&"so long ".repeat(80_000))]];
        let batch = super::super::values::batch(&schema, &longest, &arena).unwrap();
        let keys = sort.keys.block(&batch, &arena).unwrap();
        lane.rows.take(&batch, &keys, true, 40, 0).unwrap();
        let mut other = setup.budget.reserve();
        other.grow(setup.budget.free()).unwrap();
        for _ in 0..2 {
            assert!(matches!(lane.spill(&sort), Err(Error::Memory { .. })));
            assert!(
                setup.spill.done().segments > 0 && lane.rows.entries.len() < 20_000,
                "some of it"
            );
            assert!(!lane.rows.entries.is_empty());
        }
        drop(other);
        lane.spill(&sort).unwrap();
        let sorted = Arc::new(Merged::new(Merge::new(&sort.store, &setup.budget).unwrap(), &setup));
        let sorted: Arc<dyn Source> = sorted;
        assert_eq!(
            ids(&read_all(&sorted, &schema, 1000).rows),
            (0..20_000).collect::<Vec<i64>>()
        );
    }

    #[test]
    fn a_lane_sets_aside_what_the_plan_says() {
        let setup = setup(64 << 20);
        let (schema, _) = rows();
        let bound = bind(&call(&schema, 4, &keyed(&[(2, false)]))).unwrap();
        let Make::Breaker(make) = &bound.make else {
            panic!("a breaker")
        };
        let lane = make(&setup).unwrap().filler().unwrap();
        assert_eq!(setup.budget.used(), super::super::spill::lane_floor(64 << 20));
        drop(lane);
        assert_eq!(setup.budget.used(), 0);
    }

    #[test]
    fn lists_are_no_keys() {
        let (schema, _) = rows();
        assert_eq!(codes_of(bind(&call(&schema, 4, &[column(3)]))), [codes::NO_KEY]);
        let options = [("nulls", argument(None, Arg::Word("middle".into())))];
        let items = keyed(&[(0, false)]);
        let wrong = Call {
            options: &options,
            ..call(&schema, 4, &items)
        };
        assert_eq!(codes_of(bind(&wrong)), [codes::WRONG_ARGUMENT]);
    }

    #[test]
    fn batches_that_store_other_kinds_are_kept_apart() {
        for spill_rows in [None, Some(3)] {
            let disk = Disk::new(std::env::temp_dir(), None).spill_rows(spill_rows);
            let setup = Setup {
                spill: Spill::new(Arc::new(disk)),
                ..setup(4 << 20)
            };
            other_kinds(&setup);
        }
    }

    fn other_kinds(setup: &Setup) {
        let sort = Arc::new(Sort {
            stage: "sort",
            keys: Keys::grouping([0]),
            head: 9,
            short: true,
            own: 2,
            most: usize::MAX,
            merges: 1,
            setup: setup.clone(),
            store: Store::new("sort", setup),
            refusals: AtomicU64::new(0),
            lanes: Mutex::default(),
        });
        let arena = Arena::new(1 << 16);
        let views = [standpipe_sdk::View::inline(b"007").unwrap(); 2];
        let texts = standpipe_sdk::Text::inline(&views);
        let verbatim = Column::new(Data::Verbatim(texts), None, 2);
        let mut filler = sort.clone().filler().unwrap();
        for (chunk, second) in [Column::nulls(2), verbatim, Column::int(&[8, 9], None)]
            .into_iter()
            .enumerate()
        {
            let columns = [Column::int(&[1, 2], None), second];
            let columns = arena.copy(&columns).unwrap();
            filler.push(chunk as u64, Batch::new(columns, None, 2)).unwrap();
        }
        filler.done().unwrap();
        let schema = schema(&[("k", INT), ("v", STRING)]);
        let got = read_all(&sort.drain().unwrap(), &schema, 100);
        let seven = Value::Bytes(b"007".to_vec());
        assert_eq!(
            got.rows,
            [
                vec![int(1), NULL],
                vec![int(1), seven.clone()],
                vec![int(1), int(8)],
                vec![int(2), NULL],
                vec![int(2), seven],
                vec![int(2), int(9)],
            ]
        );
    }
}
