//! Rows that are needed again: the host puts a replay where one stream feeds two things of which one waits for the other.
//!
//! Every lane copies its batches, into memory as long as a replay's part of it lasts, then to disk, one segment for each lane with frames
//! of each chunk's own. The rows then are given again in the order of their chunks, to as many regions as want them.
//!
//! Laws
//! - The rows come in the order in which they went in; a row's place is its number.
//! - Everything is reserved before it is allocated. A replay leaves most of the memory to what runs beside it: its lanes together hold
//!   at most a quarter.

use super::codes::held;
use super::from::numbered;
use super::groups::{grow, grow_to};
use super::keys::Keys;
use super::spill::{Frame, Segment, SegmentWriter, Store, loaded_frame, writer_floor};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Memory, Room, Setup};
use standpipe_sdk::{
    Arena, Batch, Budget, Build, Faults, Fill, Kept, Locator, Part, Probe, Reader, Reservation, Source,
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How its memory grows.
pub const MEMORY: Memory = Memory::Spill;
/// What a batch costs beside its bytes: its box, its arena, the allocator's own.
const PIECE_BYTES: usize = 512;
/// The part of the memory that the rows of a replay may take: a quarter.
const PART_OF_BUDGET: usize = 4;
/// Rows that are written at once.
const WRITTEN_ROWS: usize = 1 << 12;
/// What numbering so many rows takes of an arena, and lists of their columns.
const NUMBERS_BYTES: usize = WRITTEN_ROWS * 32 + (256 << 10);

/// What keeping rows cannot do without: each lane can write them.
pub fn keeps(room: &Room) -> Least {
    Least {
        takes: room.workers * (writer_floor(room.bytes) + NUMBERS_BYTES + cushion_bytes(room.bytes)),
        gives: 0,
    }
}

/// What giving them again cannot do without: each lane holds a frame.
pub fn gives(room: &Room) -> Least {
    Least {
        takes: 0,
        gives: room.workers * loaded_frame(room.bytes),
    }
}

/// What lists of what is on disk may take of a budget, whatever others take: this part of it, within bounds, in bytes.
const CUSHION_PART: usize = 64;
const LEAST_CUSHION: usize = 128 << 10;
const MOST_CUSHION: usize = 4 << 20;

fn cushion_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / CUSHION_PART).clamp(LEAST_CUSHION, MOST_CUSHION)
}

/// A replay with nothing in it.
pub fn make(setup: &Setup) -> Result<Arc<dyn Build>> {
    Ok(Arc::new(Replay {
        budget: setup.budget.clone(),
        store: Store::new("replay", setup),
        most_bytes: setup.budget.limit() / PART_OF_BUDGET / setup.workers.max(1),
        lanes: Mutex::default(),
        rows: OnceLock::new(),
    }))
}

struct Replay {
    budget: Arc<Budget>,
    store: Arc<Store>,
    /// What one lane may hold in memory.
    most_bytes: usize,
    lanes: Mutex<Vec<Lane>>,
    rows: OnceLock<Arc<Rows>>,
}

/// What one lane has collected.
struct Lane {
    pieces: Vec<Piece>,
    reservation: Reservation,
    /// For the list of what is on disk, whatever others take.
    cushion: Reservation,
    cushion_bytes: usize,
    held_rows: usize,
    /// Whether what comes goes to disk.
    spills: bool,
    writer: SegmentWriter,
    writing: Option<Writing>,
    numbers: Arena,
    _numbers: Reservation,
}

/// The chunk that is being written: its first frame, and how many of its rows are.
struct Writing {
    chunk: u64,
    first: u32,
    rows: usize,
}

struct Piece {
    /// Its chunk; once all is there, how many rows stand before it.
    order: u64,
    rows: Stored,
}

enum Stored {
    Memory(Box<Kept>),
    /// In the segment of a lane, from this frame on. Small: it may be all that is in memory of a chunk.
    Disk {
        segment: u32,
        first: u32,
        rows: u32,
    },
    /// On its way from one to the other.
    Nowhere,
}

impl Piece {
    fn rows(&self) -> u64 {
        match &self.rows {
            Stored::Memory(kept) => kept.batch().rows() as u64,
            Stored::Disk { rows, .. } => u64::from(*rows),
            Stored::Nowhere => 0,
        }
    }
}

/// All rows in order.
struct Rows {
    pieces: Vec<Piece>,
    /// Of each lane, if it wrote any.
    segments: Vec<Option<Segment>>,
    /// Memory that the largest frame on disk takes.
    largest: usize,
    budget: Arc<Budget>,
    _reservations: Vec<Reservation>,
}

impl Build for Replay {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let mut numbers = self.budget.reserve();
        numbers.grow(NUMBERS_BYTES).map_err(|e| held("replay", e))?;
        let mut cushion = self.budget.reserve();
        let cushion_bytes = cushion_bytes(self.budget.limit());
        cushion.grow(cushion_bytes).map_err(|e| held("replay", e))?;
        let lane = Lane {
            pieces: vec![],
            reservation: self.budget.reserve(),
            cushion,
            cushion_bytes,
            held_rows: 0,
            spills: false,
            writer: self.store.writer().map_err(|e| held("replay", e))?,
            writing: None,
            numbers: Arena::new(NUMBERS_BYTES),
            _numbers: numbers,
        };
        Ok(Box::new(Filler {
            replay: self,
            lane: Some(lane),
        }))
    }

    fn seal(&self) -> Result<()> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut reservation = self.budget.reserve();
        let mut pieces = vec![];
        let mut segments = vec![];
        let mut kept = vec![];
        for lane in lanes {
            // What writing took is free from here on, but for the lists of frames.
            let Lane {
                pieces,
                reservation,
                mut writer,
                ..
            } = lane;
            segments.push(match writer.is_empty() {
                true => None,
                false => Some(writer.finish()?),
            });
            kept.push((pieces, reservation));
        }
        let count = kept.iter().map(|(pieces, _)| pieces.len()).sum();
        grow_to(&mut pieces, count, &mut reservation).map_err(|e| held("replay", e))?;
        let mut reservations = vec![reservation];
        for (number, (mut more, mut reservation)) in (0..).zip(kept) {
            for piece in &mut more {
                if let Stored::Disk { segment, .. } = &mut piece.rows {
                    *segment = number;
                }
            }
            pieces.append(&mut more);
            // What is kept is not more than the lanes had beside what writing took.
            reservation.free(&mut more);
            reservations.push(reservation);
        }
        // Stable: the batches of one chunk are in one lane, in order.
        pieces.sort_by_key(|piece: &Piece| piece.order);
        let mut rows = 0;
        for piece in &mut pieces {
            piece.order = rows;
            rows += piece.rows();
        }
        let largest = segments.iter().flatten().map(Segment::largest);
        let rows = Rows {
            largest: largest.max().unwrap_or(0),
            budget: self.budget.clone(),
            pieces,
            segments,
            _reservations: reservations,
        };
        // Sealed once: nobody has set it.
        let _ = self.rows.set(Arc::new(rows));
        Ok(())
    }

    fn prober(self: Arc<Self>) -> Result<Box<dyn Probe>> {
        Err(Error::Panic("a replay is not probed".into()))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        match self.rows.get() {
            Some(rows) => Ok(Arc::new(Again {
                rows: rows.clone(),
                next: AtomicUsize::new(0),
            })),
            None => Err(Error::Panic("a replay is read before it is full".into())),
        }
    }
}

struct Filler {
    replay: Arc<Replay>,
    /// `None` once it is done.
    lane: Option<Lane>,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        match &mut self.lane {
            Some(lane) if batch.rows() > 0 => lane.take(&self.replay, chunk, &batch).map_err(|e| held("replay", e)),
            _ => Ok(()),
        }
    }

    fn done(&mut self) -> Result<()> {
        if let Some(mut lane) = self.lane.take() {
            lane.end_of_chunk().map_err(|e| held("replay", e))?;
            let mut lanes = self.replay.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.push(lane);
        }
        Ok(())
    }
}

impl Lane {
    fn take(&mut self, replay: &Replay, chunk: u64, batch: &Batch<'_>) -> Result<()> {
        // The places are those of the replay: the input's are not kept.
        let kept = Batch::new(batch.columns(), None, batch.rows());
        let asked = replay
            .store
            .spill()
            .spill_rows()
            .is_some_and(|rows| self.held_rows >= rows);
        if !self.spills && !asked {
            match self.hold(replay, chunk, &kept) {
                Err(Error::Memory { .. }) => {}
                outcome => return outcome,
            }
        }
        self.spills = true;
        self.write(chunk, &kept)
    }

    fn hold(&mut self, replay: &Replay, chunk: u64, kept: &Batch<'_>) -> Result<()> {
        let bytes = kept.copy_bytes();
        if self.reservation.bytes() + bytes + PIECE_BYTES > replay.most_bytes {
            return Err(Error::Memory {
                wanted: bytes,
                used: self.reservation.bytes(),
                limit: replay.most_bytes,
            });
        }
        grow(&mut self.pieces, 1, &mut self.reservation)?;
        self.reservation.grow(bytes + PIECE_BYTES)?;
        match Kept::copy(kept, bytes) {
            Ok(rows) => {
                self.held_rows += kept.rows();
                self.pieces.push(Piece {
                    order: chunk,
                    rows: Stored::Memory(Box::new(rows)),
                });
                Ok(())
            }
            Err(error) => {
                self.reservation.shrink(bytes + PIECE_BYTES);
                Err(error)
            }
        }
    }

    fn write(&mut self, chunk: u64, batch: &Batch<'_>) -> Result<()> {
        if self.writing.as_ref().is_some_and(|writing| writing.chunk != chunk) {
            self.end_of_chunk()?;
        }
        let mut writing = self.writing.take().unwrap_or_else(|| Writing {
            chunk,
            first: self.writer.frames() as u32,
            rows: 0,
        });
        let mut from = 0;
        while from < batch.rows() {
            let len = WRITTEN_ROWS.min(batch.rows() - from);
            let numbers = &self.numbers;
            let part = batch.slice(from, len, numbers)?;
            let keys = Keys::grouping([]).block(&part, numbers)?;
            let chunks = numbers.fill(len, chunk)?;
            let rows = numbers.collect(len, |row| (writing.rows + row) as u32)?;
            self.writer.make_room(&part, &keys)?;
            self.writer.append(&part, &keys, chunks, rows)?;
            self.numbers.reset();
            from += len;
            writing.rows += len;
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// Where the rows are that were written since the last chunk.
    fn written(&mut self) -> Option<Piece> {
        let Writing { chunk, first, rows } = self.writing.take()?;
        Some(Piece {
            order: chunk,
            rows: Stored::Disk {
                segment: 0,
                first,
                rows: rows as u32,
            },
        })
    }

    fn end_of_chunk(&mut self) -> Result<()> {
        let Some(piece) = self.written() else {
            return Ok(());
        };
        self.grow_list()?;
        self.pieces.push(piece);
        // The next list finds room again, for which rows in memory go to disk if there is no other way.
        loop {
            let missing = self.cushion_bytes.saturating_sub(self.cushion.bytes());
            if self.cushion.grow(missing).is_ok() || !self.let_go_of_some()? {
                return Ok(());
            }
        }
    }

    /// Makes room for one more piece: with what others leave, with what rows in memory take, with the cushion.
    fn grow_list(&mut self) -> Result<()> {
        loop {
            let refused = match grow(&mut self.pieces, 1, &mut self.reservation) {
                Err(error @ Error::Memory { .. }) => error,
                other => return other,
            };
            if self.let_go_of_some()? {
                continue;
            }
            let (old, more) = (self.pieces.capacity(), self.pieces.capacity() / 4 + 4);
            let bytes = |pieces: usize| pieces * size_of::<Piece>();
            if bytes(old + more) > self.cushion.bytes() {
                return Err(refused);
            }
            let room = self.cushion.split(bytes(old + more))?;
            if self.pieces.try_reserve_exact(more).is_err() {
                self.cushion.join(room);
                return Err(refused);
            }
            self.reservation.join(room);
            // What the list took before is free again.
            let before = self.reservation.split(bytes(old))?;
            self.cushion.join(before);
        }
    }

    /// Writes a batch that is held in memory; whether there was one.
    fn let_go_of_some(&mut self) -> Result<bool> {
        let is_held = |piece: &Piece| matches!(piece.rows, Stored::Memory(_));
        let Some(at) = self.pieces.iter().rposition(is_held) else {
            return Ok(false);
        };
        let chunk = self.pieces[at].order;
        let Stored::Memory(kept) = std::mem::replace(&mut self.pieces[at].rows, Stored::Nowhere) else {
            return Ok(false);
        };
        self.spills = true;
        self.write(chunk, &kept.batch())?;
        if let Some(piece) = self.written() {
            self.pieces[at] = piece;
        }
        let bytes = kept.bytes() + PIECE_BYTES;
        drop(kept);
        self.reservation.shrink(bytes);
        Ok(true)
    }
}

/// One reading of the rows: a claim is a piece.
struct Again {
    rows: Arc<Rows>,
    next: AtomicUsize,
}

impl Source for Again {
    fn ticket(&self) -> Option<u64> {
        let pieces = self.rows.pieces.len();
        let next = |at: usize| (at < pieces).then_some(at + 1);
        self.next
            .fetch_update(Relaxed, Relaxed, next)
            .ok()
            .map(|piece| piece as u64)
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        // For one frame at a time, whatever others take meanwhile.
        let mut reservation = self.rows.budget.reserve();
        reservation.grow(self.rows.largest).map_err(|e| held("replay", e))?;
        Ok(Box::new(AgainReader {
            rows: self.rows.clone(),
            piece: 0,
            at: 0,
            out: 0,
            next_frame: 0,
            frame: None,
            budget: Budget::new(self.rows.largest),
            _reservation: reservation,
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

struct AgainReader {
    rows: Arc<Rows>,
    piece: usize,
    /// Rows of the batch at hand that are out.
    at: usize,
    /// Rows of the piece that are out.
    out: u64,
    next_frame: usize,
    frame: Option<Arc<Frame>>,
    budget: Arc<Budget>,
    _reservation: Reservation,
}

impl Reader for AgainReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.piece = usize::try_from(ticket).unwrap_or(usize::MAX);
        (self.at, self.out, self.next_frame, self.frame) = (0, 0, 0, None);
        Ok(self.piece < self.rows.pieces.len())
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let piece = &self.rows.pieces[self.piece];
        let all = match &piece.rows {
            Stored::Memory(kept) => kept.batch(),
            Stored::Nowhere => return Err(Error::Panic("rows that are gone".into())),
            Stored::Disk { segment, first, .. } => {
                if self.frame.as_ref().is_some_and(|frame| self.at >= frame.len()) {
                    (self.at, self.frame) = (0, None);
                    self.next_frame += 1;
                }
                if self.frame.is_none() {
                    let Some(segment) = &self.rows.segments[*segment as usize] else {
                        return Err(Error::Panic("rows of a lane that wrote none".into()));
                    };
                    self.frame = Some(segment.load(*first as usize + self.next_frame, &self.budget, false)?);
                }
                match &self.frame {
                    Some(frame) => frame.rows()?,
                    None => return Err(Error::Panic("a frame that is gone".into())),
                }
            }
        };
        let from = self.at;
        let rows = max_rows.max(1).min(all.rows() - from);
        let places = numbered(piece.order + self.out, rows, arena)?;
        let part = all.slice(from, rows, arena)?;
        let batch = Batch::new(part.columns(), Some(places), rows);
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at = from + rows;
        self.out += rows as u64;
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last: self.out >= piece.rows(),
            locator: Locator::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::values;
    use super::*;

    fn write(build: &Arc<dyn Build>, schema: &standpipe_sdk::Schema, rows: &[Vec<standpipe_sdk::Value>]) {
        let mut lanes = [build.clone().filler().unwrap(), build.clone().filler().unwrap()];
        let arena = Arena::new(1 << 20);
        // Chunk 0 in the second lane, chunk 1 in the first, two batches of chunk 2 in the second.
        for (lane, chunk, range) in [(1, 0, 0..10), (0, 1, 10..20), (1, 2, 20..21), (1, 2, 21..rows.len())] {
            let batch = values::batch(schema, &rows[range], &arena).unwrap();
            lanes[lane].push(chunk, batch).unwrap();
        }
        lanes.iter_mut().for_each(|lane| lane.done().unwrap());
        build.seal().unwrap();
    }

    #[test]
    fn rows_come_again_in_the_order_of_their_chunks_as_often_as_asked() {
        let schema = schema(&[("n", INT), ("s", STRING)]);
        let row = |n: i64| {
            vec![
                int(n),
                if n % 5 == 0 {
                    NULL
                } else {
                    text("a text that is longer than a view")
                },
            ]
        };
        let rows: Vec<Vec<standpipe_sdk::Value>> = (0..50).map(row).collect();
        for spill_rows in [None, Some(0), Some(5)] {
            let mut setup = setup(4 << 20);
            let disk = standpipe_sdk::spill::Disk::new(std::env::temp_dir(), None).spill_rows(spill_rows);
            setup.spill = standpipe_sdk::spill::Spill::new(Arc::new(disk));
            let build = make(&setup).unwrap();
            write(&build, &schema, &rows);
            assert_eq!(setup.spill.done().segments > 0, spill_rows.is_some());
            for max_rows in [1, 7, 100] {
                let got = read_all(&build.clone().drain().unwrap(), &schema, max_rows);
                assert_eq!(got.rows, rows);
                assert!(
                    got.places
                        .iter()
                        .enumerate()
                        .all(|(at, place)| place.offset == at as u64)
                );
            }
            drop(build);
            assert_eq!(setup.budget.used(), 0);
        }
    }

    #[test]
    fn what_is_kept_is_counted_once() {
        const CHUNKS: u64 = 5000;
        let schema = schema(&[("n", INT)]);
        let setup = setup(64 << 20);
        let build = make(&setup).unwrap();
        let mut filler = build.clone().filler().unwrap();
        let mut bytes = 0;
        for chunk in 0..CHUNKS {
            let arena = Arena::new(4 << 10);
            let batch = values::batch(&schema, &[vec![int(chunk as i64)]], &arena).unwrap();
            bytes += Batch::new(batch.columns(), None, 1).copy_bytes() + PIECE_BYTES + size_of::<Piece>();
            filler.push(chunk, batch).unwrap();
        }
        filler.done().unwrap();
        build.seal().unwrap();
        assert_eq!(setup.spill.done().segments, 0);
        assert_eq!(setup.budget.used(), bytes);
    }

    #[test]
    fn what_does_not_fit_goes_to_disk() {
        let schema = schema(&[("n", INT)]);
        let rows: Vec<Vec<standpipe_sdk::Value>> = (0..100_000).map(|n| vec![int(n)]).collect();
        let setup = setup(2 << 20);
        let build = make(&setup).unwrap();
        let mut filler = build.clone().filler().unwrap();
        for (chunk, part) in rows.chunks(9_000).enumerate() {
            let arena = Arena::new(1 << 20);
            filler
                .push(chunk as u64, values::batch(&schema, part, &arena).unwrap())
                .unwrap();
        }
        filler.done().unwrap();
        drop(filler);
        build.seal().unwrap();
        assert!(setup.spill.done().segments > 0);
        assert_eq!(read_all(&build.drain().unwrap(), &schema, 5_000).rows, rows);
    }
}
