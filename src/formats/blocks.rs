//! Text cut into pieces that hold whole records: the claims of CSV and JSON lines.
//!
//! Laws
//! - A piece never spans files; every byte of a file behind its header is in exactly one piece, or in one overlong record.
//! - Where a piece is cut depends on the bytes alone, never on who came first.
//! - A claim that fails or is given up hands that on, so that no later claim waits for it.
//!
//! How it works: block `b` of a plain file is read and scanned by whoever drew it, without knowing whether it begins inside
//! quotes: [`index::scan`] finds the last record end for both cases. Only then the worker waits for block `b - 1` to hand on
//! its state and its tail (the bytes behind its last record end), settles which case holds, copies the tail into the headroom
//! before its own block, and hands on in turn. Streams (pipes, compressed files) are read inside the turn.

use crate::formats::csv::index::{self, State};
use crate::formats::input::Input;
use crate::formats::lines;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Error, Locator, Result};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Zero bytes behind every piece.
pub const PADDING: usize = 64;
/// Room before the block for the tail of the one before; grows when a tail is longer.
const HEADROOM: usize = 16 << 10;
/// How long a waiter may miss the end of the run.
const NAP: Duration = Duration::from_millis(20);
/// Bits of a ticket that number the block within its file.
const BLOCK_BITS: u32 = 40;

/// What ends a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// A newline.
    Lines,
    /// A newline outside quotes.
    Quoted { delimiter: u8 },
}

/// The texts of one source, being read.
pub struct Blocks {
    files: Vec<FileBlocks>,
    framing: Framing,
    block_bytes: usize,
    max_record: usize,
    cancelled: Arc<AtomicBool>,
    next: Mutex<(usize, u64)>,
    claimed: AtomicU64,
}

/// A file and where its records begin.
#[derive(Clone)]
pub struct Start {
    pub input: Input,
    /// Bytes before the first record: BOM and header.
    pub skip: u64,
    /// Lines in these bytes.
    pub lines: u64,
}

struct FileBlocks {
    start: Start,
    /// Blocks of a plain file; `None` = a stream.
    blocks: Option<u64>,
    hand: Mutex<Hand>,
    moved: Condvar,
    ended: AtomicBool,
}

/// What one block hands on to the next.
struct Hand {
    next: u64,
    state: State,
    tail: Vec<u8>,
    /// Offset and line of the tail's first byte.
    offset: u64,
    line: u64,
    /// Offset and line of the next block's first byte.
    block_offset: u64,
    block_line: u64,
    /// The tail belongs to a record that is too long, which began here.
    overlong: Option<(u64, u64)>,
    broken: bool,
    file: Option<Arc<fs::File>>,
    stream: Option<Box<dyn Read + Send>>,
}

impl Blocks {
    /// Ready to be claimed.
    pub fn new(starts: Vec<Start>, framing: Framing, setup: &Setup) -> Arc<Blocks> {
        // A record inside one block is never too long: whether one is must not depend on the block size.
        let block_bytes = setup.chunk_bytes.clamp(1, setup.max_record.max(1));
        let files = starts.into_iter().map(|start| {
            let blocks = start
                .input
                .size()
                .map(|size| size.saturating_sub(start.skip).div_ceil(block_bytes as u64));
            let (offset, line) = (start.skip, start.lines + 1);
            let hand = Hand {
                next: 0,
                state: State::FieldStart,
                tail: Vec::new(),
                offset,
                line,
                block_offset: offset,
                block_line: line,
                overlong: None,
                broken: false,
                file: None,
                stream: None,
            };
            FileBlocks {
                start,
                blocks,
                hand: Mutex::new(hand),
                moved: Condvar::new(),
                ended: AtomicBool::new(false),
            }
        });
        Arc::new(Blocks {
            files: files.collect(),
            framing,
            block_bytes,
            max_record: setup.max_record,
            cancelled: setup.cancelled.clone(),
            next: Mutex::new((0, 0)),
            claimed: AtomicU64::new(0),
        })
    }

    /// See [`standpipe_sdk::Source::ticket`].
    pub fn ticket(&self) -> Option<u64> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let file = self.files.get(next.0)?;
            let more = match file.blocks {
                Some(blocks) => next.1 < blocks,
                None => !file.ended.load(Relaxed),
            };
            if more {
                let ticket = (next.0 as u64) << BLOCK_BITS | next.1;
                next.1 += 1;
                return Some(ticket);
            }
            *next = (next.0 + 1, 0);
        }
    }

    /// Bytes of all files, if all are plain.
    pub fn total_bytes(&self) -> Option<u64> {
        self.files.iter().map(|f| f.start.input.size()).sum()
    }

    /// Bytes read so far (unpacked ones of streams).
    pub fn claimed_bytes(&self) -> u64 {
        self.claimed.load(Relaxed)
    }

    /// One lane's reader.
    pub fn reader(self: Arc<Self>) -> BlockReader {
        BlockReader {
            blocks: self,
            buffer: Vec::new(),
            headroom: HEADROOM,
            piece: Piece::default(),
            overlong: None,
        }
    }
}

/// A piece of text: where it is in the reader's buffer and in its file.
#[derive(Clone, Copy, Default, Debug)]
pub struct Piece {
    pub file: usize,
    pub from: usize,
    pub to: usize,
    /// Offset in the file of `from`.
    pub offset: u64,
    /// Line in the file of `from`.
    pub line: u64,
    /// The file ends with this piece.
    pub last: bool,
    /// The file ends inside quotes: its last record is not closed.
    pub open: bool,
    /// What is known of its lines, where records are lines.
    pub known: Option<Known>,
}

/// What the scan of a block tells of the lines in its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub lines: usize,
    /// Whether all bytes are below 128.
    pub ascii: bool,
}

/// One lane's way to its pieces.
pub struct BlockReader {
    blocks: Arc<Blocks>,
    buffer: Vec<u8>,
    headroom: usize,
    piece: Piece,
    overlong: Option<(u64, u64)>,
}

impl BlockReader {
    /// The piece claimed last.
    pub fn piece(&self) -> Piece {
        self.piece
    }

    /// The bytes of the piece from `from` (a position in the buffer) on, and at least [`PADDING`] readable bytes behind them.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The path of the piece's file.
    pub fn path(&self) -> &Arc<str> {
        &self.blocks.files[self.piece.file].start.input.path
    }

    /// A record that began before this piece and is longer than allowed: its offset and line, once.
    pub fn take_overlong(&mut self) -> Option<(u64, u64)> {
        self.overlong.take()
    }

    /// Whether there is such a record.
    pub fn has_overlong(&self) -> bool {
        self.overlong.is_some()
    }

    /// The longest record, in bytes.
    pub fn max_record(&self) -> usize {
        self.blocks.max_record
    }

    /// What turns places of the piece into lines.
    pub fn locator(&self) -> Locator<'_> {
        let Piece {
            from, to, offset, line, ..
        } = self.piece;
        Locator {
            path: self.path(),
            block: self.buffer.get(from..to).unwrap_or_default(),
            offset,
            line,
            ..Locator::default()
        }
    }

    /// See [`standpipe_sdk::Reader::claim`]: `false` = no record ends in this block.
    pub fn claim(&mut self, ticket: u64) -> Result<bool> {
        let blocks = self.blocks.clone();
        let (at, block) = ((ticket >> BLOCK_BITS) as usize, ticket & ((1 << BLOCK_BITS) - 1));
        let file = &blocks.files[at];
        self.overlong = None;
        self.piece = Piece {
            file: at,
            ..Piece::default()
        };
        let claimed = match file.blocks {
            Some(count) => self.claim_plain(&blocks, file, block, count),
            None => self.claim_stream(&blocks, file, block),
        };
        if claimed.is_err() {
            let mut hand = file.lock();
            hand.broken = true;
            drop(hand);
            file.moved.notify_all();
        }
        claimed
    }

    fn room(&mut self, blocks: &Blocks) -> Result<()> {
        let wanted = self.headroom + blocks.block_bytes + 1 + PADDING;
        if self.buffer.len() < wanted {
            let more = wanted - self.buffer.len();
            let used = self.buffer.len();
            let refused = |_| Error::Memory {
                wanted: more,
                used,
                limit: blocks.max_record,
            };
            self.buffer.try_reserve_exact(more).map_err(refused)?;
            self.buffer.resize(wanted, 0);
        }
        Ok(())
    }

    fn claim_plain(&mut self, blocks: &Blocks, file: &FileBlocks, block: u64, count: u64) -> Result<bool> {
        self.room(blocks)?;
        let from = file.start.skip + block * blocks.block_bytes as u64;
        let size = file.start.input.size().unwrap_or(0);
        let wanted = (size - from).min(blocks.block_bytes as u64) as usize;
        let open = {
            let mut hand = file.lock();
            match &hand.file {
                Some(open) => open.clone(),
                None => hand.file.insert(Arc::new(file.start.input.file()?)).clone(),
            }
        };
        let room = &mut self.buffer[self.headroom..self.headroom + wanted];
        let filled = read_at(&open, room, from).map_err(|e| Error::io("read", &*file.start.input.path, e))?;
        if filled < wanted {
            let shrunk = std::io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter while it was read");
            return Err(Error::io("read", &*file.start.input.path, shrunk));
        }
        blocks.claimed.fetch_add(filled as u64, Relaxed);
        let scan = Scanned::of(blocks.framing, &self.buffer[self.headroom..self.headroom + filled]);
        let mut hand = file.turn(block, &blocks.cancelled)?;
        let last = block + 1 == count;
        if last {
            hand.file = None;
        }
        let some = self.hand_on(blocks, &mut hand, filled, &scan, last)?;
        drop(hand);
        file.moved.notify_all();
        Ok(some)
    }

    fn claim_stream(&mut self, blocks: &Blocks, file: &FileBlocks, block: u64) -> Result<bool> {
        self.room(blocks)?;
        let mut hand = file.turn(block, &blocks.cancelled)?;
        if file.ended.load(Relaxed) {
            hand.next += 1;
            drop(hand);
            file.moved.notify_all();
            return Ok(false);
        }
        let failed = |e: std::io::Error| {
            if blocks.cancelled.load(Relaxed) {
                Error::Cancelled
            } else {
                Error::io("read", &*file.start.input.path, e)
            }
        };
        if hand.stream.is_none() {
            let mut stream = file.start.input.stream(blocks.cancelled.clone())?;
            std::io::copy(&mut stream.by_ref().take(file.start.skip), &mut std::io::sink()).map_err(failed)?;
            hand.stream = Some(stream);
        }
        let live = file.start.input.is_live();
        let mut filled = 0;
        let room = &mut self.buffer[self.headroom..self.headroom + blocks.block_bytes];
        let ended = loop {
            let Some(stream) = hand.stream.as_mut() else { break true };
            match stream.read(&mut room[filled..]) {
                Ok(0) => break true,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed(e)),
            }
            // Someone may be waiting for the answer to what is there already.
            if filled == room.len() || (live && memchr::memchr(b'\n', &room[..filled]).is_some()) {
                break false;
            }
        };
        blocks.claimed.fetch_add(filled as u64, Relaxed);
        let scan = Scanned::of(blocks.framing, &self.buffer[self.headroom..self.headroom + filled]);
        if ended {
            file.ended.store(true, Relaxed);
            hand.stream = None;
        }
        let some = self.hand_on(blocks, &mut hand, filled, &scan, ended)?;
        drop(hand);
        file.moved.notify_all();
        Ok(some)
    }

    /// In turn: settles where the block is cut, takes the tail over, leaves a new one.
    fn hand_on(&mut self, blocks: &Blocks, hand: &mut Hand, filled: usize, scan: &Scanned, last: bool) -> Result<bool> {
        let block_at = self.headroom;
        let block = &self.buffer[block_at..block_at + filled];
        let before = hand.state;
        let (mut cut, end, newlines) = scan.settle(before, block, blocks.framing);
        hand.next += 1;
        hand.state = end;
        let (block_offset, block_line) = (hand.block_offset, hand.block_line);
        hand.block_offset += filled as u64;
        hand.block_line += newlines;
        if last {
            cut = Some(filled);
        }
        let mut skip = 0;
        if let Some(start) = hand.overlong {
            // The rest of a record that is too long: it ends with the first record end, if that is here.
            match first_end(before, block, blocks.framing).or(last.then_some(filled)) {
                None => return Ok(false),
                Some(at) => {
                    skip = at;
                    hand.overlong = None;
                    self.overlong = Some(start);
                }
            }
            hand.tail.clear();
        } else if let Some(cut) = cut
            && !hand.tail.is_empty()
            && hand.tail.len() + cut > blocks.max_record
        {
            // The record that the tail began may be too long now that its end is here.
            let first = first_end(before, block, blocks.framing).unwrap_or(cut);
            if hand.tail.len() + first > blocks.max_record {
                skip = first;
                self.overlong = Some((hand.offset, hand.line));
                hand.tail.clear();
            }
        }
        let Some(cut) = cut else {
            self.keep_tail(blocks, hand, 0, filled)?;
            return Ok(false);
        };
        let cut = cut.max(skip);
        let tail = std::mem::take(&mut hand.tail);
        let skipped = lines::count_newlines(&self.buffer[block_at..block_at + skip]);
        // A tail has no newline.
        let mut known = match scan {
            Scanned::Lines(scan) => Some(Known {
                lines: (newlines - skipped) as usize,
                ascii: scan.ascii && (skip > 0 || tail.is_ascii()),
            }),
            Scanned::Quoted(_) => None,
        };
        let (offset, line) = if skip > 0 {
            (block_offset + skip as u64, block_line + skipped)
        } else if tail.is_empty() {
            (block_offset, block_line)
        } else {
            (hand.offset, hand.line)
        };
        self.put_before(&tail, skip)?;
        hand.tail = tail;
        hand.tail.clear();
        let block_at = self.headroom;
        let from = block_at + skip - self.piece.from;
        let mut to = block_at + cut;
        let rest = &self.buffer[to..block_at + filled];
        hand.offset = block_offset + cut as u64;
        hand.line = hand.block_line - lines::count_newlines(rest);
        self.keep_tail(blocks, hand, cut, filled)?;
        let open = last && end == State::Quoted;
        if last && to > from && self.buffer[to - 1] != b'\n' && !open {
            self.buffer[to] = b'\n';
            to += 1;
            if let Some(known) = &mut known {
                known.lines += 1;
            }
        }
        // Zeros stand behind every piece; what stood there has gone on as the tail.
        self.buffer[to..to + PADDING].fill(0);
        self.piece = Piece {
            file: self.piece.file,
            from,
            to,
            offset,
            line,
            last,
            open,
            known,
        };
        Ok(to > from || self.overlong.is_some())
    }

    /// Copies the tail of the block before into the headroom; leaves its length in `piece.from`.
    fn put_before(&mut self, tail: &[u8], skip: usize) -> Result<()> {
        self.piece.from = 0;
        if skip > 0 || tail.is_empty() {
            return Ok(());
        }
        if tail.len() > self.headroom {
            let more = tail.len().next_power_of_two() - self.headroom;
            let old = self.buffer.len();
            let refused = |_| Error::Memory {
                wanted: more,
                used: old,
                limit: self.blocks.max_record,
            };
            self.buffer.try_reserve_exact(more).map_err(refused)?;
            self.buffer.resize(old + more, 0);
            self.buffer.copy_within(self.headroom..old, self.headroom + more);
            self.headroom += more;
        }
        self.buffer[self.headroom - tail.len()..self.headroom].copy_from_slice(tail);
        self.piece.from = tail.len();
        Ok(())
    }

    /// Bytes `from..to` of the block go on to the next one, unless the record is too long by now.
    fn keep_tail(&self, blocks: &Blocks, hand: &mut Hand, from: usize, to: usize) -> Result<()> {
        let more = &self.buffer[self.headroom + from..self.headroom + to];
        if hand.tail.is_empty() && from == 0 {
            hand.offset = hand.block_offset - to as u64;
            hand.line = hand.block_line - lines::count_newlines(more);
        }
        if hand.tail.len() + more.len() > blocks.max_record {
            hand.overlong = Some((hand.offset, hand.line));
            hand.tail = Vec::new();
            return Ok(());
        }
        let used = hand.tail.len();
        let refused = |_| Error::Memory {
            wanted: more.len(),
            used,
            limit: blocks.max_record,
        };
        hand.tail.try_reserve(more.len()).map_err(refused)?;
        hand.tail.extend_from_slice(more);
        Ok(())
    }
}

impl FileBlocks {
    fn lock(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all earlier blocks of the file have handed on.
    fn turn(&self, block: u64, cancelled: &AtomicBool) -> Result<MutexGuard<'_, Hand>> {
        let mut hand = self.lock();
        while hand.next != block {
            if hand.broken || cancelled.load(Relaxed) {
                return Err(Error::Cancelled);
            }
            hand = self
                .moved
                .wait_timeout(hand, NAP)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if hand.broken { Err(Error::Cancelled) } else { Ok(hand) }
    }
}

/// What is known of a block before its turn.
enum Scanned {
    Lines(lines::LineScan),
    Quoted(index::Scan),
}

impl Scanned {
    fn of(framing: Framing, block: &[u8]) -> Scanned {
        match framing {
            Framing::Lines => Scanned::Lines(lines::scan_lines(block)),
            Framing::Quoted { delimiter } => Scanned::Quoted(index::scan(block, delimiter)),
        }
    }

    /// Last record end, state at the end, newlines.
    fn settle(&self, state: State, block: &[u8], framing: Framing) -> (Option<usize>, State, u64) {
        match (self, framing) {
            (Scanned::Quoted(scan), Framing::Quoted { delimiter }) => {
                let exact = index::advance(state, block, scan, delimiter);
                (exact.cut, exact.end, exact.newlines)
            }
            (Scanned::Lines(scan), _) => (scan.cut, State::FieldStart, scan.newlines),
            (Scanned::Quoted(scan), Framing::Lines) => (scan.cut[0], State::FieldStart, scan.newlines),
        }
    }
}

/// The position after the first record end.
fn first_end(mut state: State, block: &[u8], framing: Framing) -> Option<usize> {
    match framing {
        Framing::Lines => memchr::memchr(b'\n', block).map(|at| at + 1),
        Framing::Quoted { delimiter } => {
            for (at, &byte) in block.iter().enumerate() {
                let quoted = state == State::Quoted;
                state = state.step(byte, delimiter);
                if byte == b'\n' && !quoted {
                    return Some(at + 1);
                }
            }
            None
        }
    }
}

fn read_at(file: &fs::File, mut room: &mut [u8], mut at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while !room.is_empty() {
        match file.read_at(room, at) {
            Ok(0) => break,
            Ok(n) => {
                filled += n;
                at += n as u64;
                room = &mut room[n..];
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::input::{Encoding, resolve};
    use proptest::prelude::*;
    use standpipe_sdk::Budget;

    fn setup(chunk_bytes: usize, max_record: usize) -> Setup {
        Setup {
            budget: Budget::new(1 << 20),
            spill: standpipe_sdk::Spill::anywhere(),
            share: 1 << 20,
            workers: 1,
            chunk_bytes,
            max_record,
            sync: false,
            folder: std::path::Path::new("").into(),
            cancelled: Arc::default(),
            say: Arc::new(|_| {}),
            asked: standpipe_sdk::spec::Asked::default(),
        }
    }

    /// Pieces (offset, line, text), and overlong records (offset, line).
    type Cut = (Vec<(u64, u64, Vec<u8>)>, Vec<(u64, u64)>);

    /// (pieces as text, overlong records) of `text` cut at `block` bytes.
    fn pieces(text: &[u8], block: usize, framing: Framing, gzip: bool, max: usize) -> Cut {
        let folder = tempfile::tempdir().unwrap();
        let name = if gzip { "t.gz" } else { "t" };
        let path = folder.path().join(name);
        if gzip {
            let mut out = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
            std::io::Write::write_all(&mut out, text).unwrap();
            out.finish().unwrap();
        } else {
            fs::write(&path, text).unwrap();
        }
        let input = resolve(&[name], folder.path(), Encoding::Utf8, false)
            .unwrap()
            .remove(0);
        let blocks = Blocks::new(
            vec![Start {
                input,
                skip: 0,
                lines: 0,
            }],
            framing,
            &setup(block, max),
        );
        let mut reader = blocks.clone().reader();
        let (mut out, mut long) = (Vec::new(), Vec::new());
        while let Some(ticket) = blocks.ticket() {
            if reader.claim(ticket).unwrap() {
                long.extend(reader.take_overlong());
                let p = reader.piece();
                if let Some(known) = p.known {
                    let piece = &reader.bytes()[p.from..p.to];
                    assert_eq!(known.lines as u64, lines::count_newlines(piece));
                    assert!(!known.ascii || piece.is_ascii());
                }
                if p.to > p.from {
                    out.push((p.offset, p.line, reader.bytes()[p.from..p.to].to_vec()));
                }
            }
        }
        (out, long)
    }

    proptest! {
        #[test]
        fn no_cut_changes_the_records(text in "[ab\",\n]{0,80}", block in 1usize..20, quoted in any::<bool>(), gzip in any::<bool>()) {
            let framing = if quoted { Framing::Quoted { delimiter: b',' } } else { Framing::Lines };
            let (parts, long) = pieces(text.as_bytes(), block, framing, gzip, 1 << 20);
            prop_assert!(long.is_empty());
            let mut whole = Vec::new();
            for (offset, line, part) in &parts {
                prop_assert_eq!(*offset as usize, whole.len());
                prop_assert_eq!(*line as usize, 1 + whole.iter().filter(|&&b| b == b'\n').count());
                whole.extend_from_slice(part);
            }
            let mut want = text.into_bytes();
            let exact = index::scan_exact(State::FieldStart, &want, b',');
            if !want.is_empty() && want.last() != Some(&b'\n') && !(quoted && exact.end == State::Quoted) {
                want.push(b'\n');
            }
            prop_assert_eq!(whole, want);
            for (_, _, part) in parts.iter().rev().skip(1) {
                prop_assert_eq!(part.last(), Some(&b'\n'));
            }
        }

        #[test]
        fn overlong_records_are_told_and_left_out(lengths in prop::collection::vec(0usize..60, 1..12), block in 1usize..20) {
            let text: Vec<u8> = lengths.iter().flat_map(|&n| [vec![b'x'; n], vec![b'\n']].concat()).collect();
            let max = 25;
            let (parts, long) = pieces(&text, block, Framing::Lines, false, max);
            let seen: usize = parts.iter().map(|(_, _, p)| p.iter().filter(|&&b| b == b'\n').count()).sum();
            prop_assert_eq!(seen + long.len(), lengths.len());
            for (offset, line) in long {
                let start: usize = lengths[..line as usize - 1].iter().map(|n| n + 1).sum();
                prop_assert_eq!(start, offset as usize);
                prop_assert!(lengths[line as usize - 1] + 1 > max);
            }
        }
    }
}
