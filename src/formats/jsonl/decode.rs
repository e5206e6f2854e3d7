//! Lines to columns.
//!
//! How it works: every record level of the schema has *slots*, one per key seen so far. Behind each slot stands the slot that followed
//! it last time, so the next separator and key (`,"key":`) are found by one comparison of 16 bytes. A value goes straight into its column's slice; strings without escapes
//! become views into the block. For whoever changes this:
//! - A column (`Writer`) is filled lazily: rows between `filled` and the row being written are null. That is how missing fields cost
//!   nothing, and why a row that turns out bad is taken back by setting `filled` back (`truncate`).
//! - Faults of cells wait in `pending` until their row is known to be sound, so that a bad record has no faults of cells.
//! - Recursion goes as deep as the schema does, and no deeper than `DEEPEST`.
#![allow(unsafe_code)]

use super::{PADDING, Reading};
use crate::expr::json::lexer::{Bad, DEEPEST, Int, Lexer, Wrong, bad, unescape, unlinked};
use crate::expr::scalar::scan;
use crate::formats::codes::{CONFLICT, EXTRA_FIELD, MALFORMED, NOT_UTF8, NULL, OUT_OF_RANGE};
use standpipe_sdk::build::format_in;
use standpipe_sdk::spec::Wanted;
use standpipe_sdk::{
    Arena, Batch, Bits, Code, Column, Columns, Data, Error, Fault, Faults, Field, ListData, Place, RecordData, Result,
    Schema, Text, Type, Verdict, View,
};

/// How many unknown keys a record level learns, so that they are skipped fast.
const LEARNED: usize = 512;
/// How many faults of one row are kept; the cells of all are null.
const FAULTS_PER_ROW: usize = 16;
/// The most bytes of a value that a message shows.
const EXCERPT: usize = 40;

/// Decodes blocks of lines into batches of one schema. One per lane; what it remembers between blocks only makes it fast.
pub struct Decoder {
    nodes: Vec<Node>,
    levels: Vec<Level>,
    /// Per column of the schema: its node, if it is wanted.
    roots: Vec<Option<u32>>,
    nulls: Vec<String>,
    extra_is_error: bool,
    check_all: bool,
    ignored: u64,
    spare: Vec<Writer<'static>>,
    pending: Vec<Pending>,
    scratch: Vec<u8>,
}

/// One wanted field, or the elements of one.
struct Node {
    kind: Kind,
    nullable: bool,
    /// Checked only: nothing is stored and the column is absent.
    hidden: bool,
    ty: Type,
    /// For messages: `client.ip`, `tags[]`.
    path: Box<str>,
    /// Elements to make room for at first, if this is below a list.
    room: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Decimal { precision: u8, scale: u8 },
    String,
    Bytes,
    Date,
    Timestamp,
    Duration,
    Json,
    List { child: u32 },
    Record { level: u32 },
}

/// The keys of one record type.
struct Level {
    /// Slot 0 matches nothing; its `next` is the first key.
    slots: Vec<Slot>,
    names: hashbrown::HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    /// Per field of the record's schema.
    fields: Vec<Option<u32>>,
    /// Wanted fields that may not be null.
    required: Vec<u32>,
    learned: usize,
}

/// A key and what is done with its value.
struct Slot {
    /// The first 16 bytes of `,"key":` under `mask`; the byte of the separator is 0, as it may be another one.
    word: u128,
    mask: u128,
    /// Bytes of all of it.
    len: usize,
    /// The bytes behind those 16.
    rest: Box<[u8]>,
    action: Action,
    /// The slot that followed this one last time.
    next: u32,
    /// The length of the last text that was this key's value, and how many had that length in a row.
    usual: usize,
    streak: u32,
}

/// After so many texts of one length in a row the next one is expected to have it, too.
const STREAK: u32 = 16;

#[derive(Clone, Copy)]
enum Action {
    Skip,
    /// A field that the schema does not have.
    Unknown,
    Put(u32),
    /// The everyday columns, which are asked for first: strings that are never null by their text, ints, floats.
    String(u32),
    Int(u32),
    Float(u32),
    /// A record, and its level.
    Record(u32, u32),
}

impl Slot {
    /// A slot that no key matches: whatever is masked by 0 is not 1.
    fn none() -> Slot {
        Slot {
            word: 1,
            mask: 0,
            len: 0,
            rest: Box::default(),
            action: Action::Unknown,
            next: 0,
            usual: 0,
            streak: 0,
        }
    }

    /// The slot of a key; `raw` is how it stands in JSON, without quotes.
    fn new(raw: &[u8], action: Action) -> Slot {
        let key = [b"\0\"", raw, b"\":"].concat();
        let head = key.len().min(16);
        let word = key[..head].iter().rev().fold(0u128, |v, &b| v << 8 | u128::from(b));
        Slot {
            word,
            mask: if head == 16 { u128::MAX } else { (1 << (8 * head)) - 1 },
            len: key.len(),
            rest: key[head..].into(),
            action,
            next: 0,
            usual: 0,
            streak: 0,
        }
    }
}

/// A column being filled.
struct Writer<'a> {
    values: Values<'a>,
    /// Made when the first null comes; 1 = has a value.
    valid: Option<&'a mut [u64]>,
    /// Rows there is room for.
    room: usize,
    /// Rows that have a value or are null; those behind are null once a later one is written.
    filled: usize,
    /// Elements in all, of a list.
    elements: usize,
}

enum Values<'a> {
    /// No values: records, and columns of type null.
    None,
    Bool(&'a mut [u64]),
    Int(&'a mut [i64]),
    Float(&'a mut [f64]),
    Decimal(&'a mut [i128]),
    Date(&'a mut [i32]),
    Text(&'a mut [View]),
    /// One more than rows.
    Offsets(&'a mut [i32]),
}

/// A fault of a cell whose row is not yet known to be sound.
struct Pending {
    node: u32,
    at: u32,
    end: u32,
    why: Why,
}

#[derive(Clone, Copy)]
enum Why {
    Type,
    Range,
    NoValue,
    Decimal(scan::DecimalError),
}

impl Decoder {
    /// For lines with the fields of `schema`, of which `wanted` are read (one per field; missing ones are wanted).
    pub fn new(schema: &Schema, wanted: &[Wanted], reading: &Reading) -> Self {
        let mut decoder = Decoder {
            nodes: vec![],
            levels: vec![],
            roots: vec![],
            nulls: reading.nulls.clone(),
            extra_is_error: reading.extra_is_error,
            check_all: reading.check_all,
            ignored: 0,
            spare: vec![],
            pending: Vec::with_capacity(FAULTS_PER_ROW),
            scratch: vec![],
        };
        let top = decoder.level("", schema, |i| wanted.get(i).cloned().unwrap_or(Wanted::Yes));
        decoder.roots = decoder.levels[top as usize].fields.clone();
        decoder
    }

    /// How many values of fields outside the schema were passed over so far.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn level(&mut self, path: &str, schema: &Schema, wanted: impl Fn(usize) -> Wanted) -> u32 {
        let index = self.levels.len();
        self.levels.push(Level {
            slots: vec![],
            names: hashbrown::HashMap::default(),
            fields: vec![],
            required: vec![],
            learned: 0,
        });
        let mut slots = vec![Slot::none()];
        let mut names = hashbrown::HashMap::<_, _, foldhash::fast::RandomState>::default();
        let mut fields = vec![];
        let mut required = vec![];
        for (i, Field { name, ty, nullable }) in schema.fields().iter().enumerate() {
            let path = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            let node = self.node(&path, ty, *nullable, &wanted(i));
            if let (Some(node), false) = (node, *nullable) {
                required.push(node);
            }
            let raw = serde_json::to_string(&**name).unwrap_or_default();
            let raw = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
            slots.push(Slot::new(raw.as_bytes(), self.action(node)));
            names.insert(name.as_bytes().into(), slots.len() as u32 - 1);
            fields.push(node);
        }
        // At first the fields are expected in the schema's order.
        let last = slots.len() - 1;
        for (i, slot) in slots.iter_mut().enumerate().take(last) {
            slot.next = i as u32 + 1;
        }
        self.levels[index] = Level {
            slots,
            names,
            fields,
            required,
            learned: 0,
        };
        index as u32
    }

    /// What is done with the values of a node, if they are wanted.
    fn action(&self, node: Option<u32>) -> Action {
        let Some(at) = node else { return Action::Skip };
        match self.nodes.get(at as usize) {
            Some(node) if node.hidden => Action::Put(at),
            Some(Node { kind: Kind::String, .. }) if self.nulls.is_empty() => Action::String(at),
            Some(Node { kind: Kind::Int, .. }) => Action::Int(at),
            Some(Node { kind: Kind::Float, .. }) => Action::Float(at),
            Some(Node {
                kind: Kind::Record { level },
                ..
            }) => Action::Record(at, *level),
            _ => Action::Put(at),
        }
    }

    fn node(&mut self, path: &str, ty: &Type, nullable: bool, wanted: &Wanted) -> Option<u32> {
        let hidden = *wanted == Wanted::No;
        if hidden && !self.check_all {
            return None;
        }
        let index = self.nodes.len();
        self.nodes.push(Node {
            kind: Kind::Null,
            nullable,
            hidden,
            ty: ty.clone(),
            path: path.into(),
            room: 0,
        });
        self.nodes[index].kind = match ty {
            Type::Null => Kind::Null,
            Type::Bool => Kind::Bool,
            Type::Int => Kind::Int,
            Type::Float => Kind::Float,
            Type::Decimal { precision, scale } => Kind::Decimal {
                precision: *precision,
                scale: *scale,
            },
            Type::String => Kind::String,
            Type::Bytes => Kind::Bytes,
            Type::Date => Kind::Date,
            Type::Timestamp => Kind::Timestamp,
            Type::Duration => Kind::Duration,
            Type::Json => Kind::Json,
            Type::List(item) => {
                let child = self.node(
                    &format!("{path}[]"),
                    &item.ty,
                    item.nullable,
                    if hidden { wanted } else { &Wanted::Yes },
                );
                child.map_or(Kind::Null, |child| Kind::List { child })
            }
            Type::Record(schema) => {
                let level = self.level(path, schema, |i| match wanted {
                    Wanted::Fields(fields) => fields.get(i).cloned().unwrap_or(Wanted::No),
                    Wanted::No => Wanted::No,
                    Wanted::Text | Wanted::Yes => Wanted::Yes,
                });
                Kind::Record { level }
            }
        };
        Some(index as u32)
    }

    /// Decodes lines from the front of `padded[..len]`, at most `max_rows` rows; gives the batch and how many bytes were read, which
    /// end behind a line. `padded` holds at least [`PADDING`] zeros behind `len`; only the last line may lack its newline.
    /// `base_offset` is where the block begins in source number `source`.
    ///
    /// Bad rows are in the batch, with nulls, and in `faults`; behind [`Verdict::Stop`] no further line is read.
    ///
    /// # Errors
    /// `Memory` if the arena refuses; the same lines may come again then.
    pub fn decode<'a>(
        &mut self,
        padded: &'a [u8],
        len: usize,
        base_offset: u64,
        source: u32,
        max_rows: usize,
        arena: &'a Arena,
        faults: &Faults<'a>,
        places: bool,
    ) -> Result<(Batch<'a>, usize)> {
        let lines = LinesOf::measure(&padded[..len], max_rows);
        self.decode_lines(padded, lines, base_offset, source, arena, faults, places)
    }

    /// As [`Decoder::decode`], of lines that are counted already. `padded` holds at least [`PADDING`] readable bytes behind them.
    pub(super) fn decode_lines<'a>(
        &mut self,
        padded: &'a [u8],
        lines: LinesOf,
        base_offset: u64,
        source: u32,
        arena: &'a Arena,
        faults: &Faults<'a>,
        places: bool,
    ) -> Result<(Batch<'a>, usize)> {
        match Lexer::wide(padded, lines.len) {
            Some(lex) => self.decode_with(lex, lines, base_offset, source, arena, faults, places),
            None => {
                let lex = Lexer::new(padded, lines.len);
                self.decode_with(lex, lines, base_offset, source, arena, faults, places)
            }
        }
    }

    pub(super) fn decode_with<'a, const WIDE: bool>(
        &mut self,
        lex: Lexer<'a, true, WIDE>,
        LinesOf { lines, len: end, ascii }: LinesOf,
        base_offset: u64,
        source: u32,
        arena: &'a Arena,
        faults: &Faults<'a>,
        places: bool,
    ) -> Result<(Batch<'a>, usize)> {
        let padded = lex.block();
        assert!(
            padded.len() >= end + PADDING && padded.len() < i32::MAX as usize,
            "a block has {PADDING} bytes behind its text and less than 2 GiB"
        );
        let block_is_utf8 = ascii || std::str::from_utf8(&padded[..end]).is_ok();
        let origin = arena.fill(if places { lines } else { 0 }, Place::default())?;
        self.pending.clear();

        let mut writers: Vec<Writer<'a>> = std::mem::take(&mut self.spare);
        for node in &self.nodes {
            writers.push(Writer::new(node, 0, arena)?);
        }
        for node in self.roots.iter().flatten() {
            let node = *node as usize;
            writers[node] = Writer::new(&self.nodes[node], lines, arena)?;
        }
        let mut run = Run {
            lex,
            arena,
            nodes: &self.nodes,
            levels: &mut self.levels,
            writers,
            escapes: Escapes::new(arena),
            pending: &mut self.pending,
            nulls: &self.nulls,
            scratch: &mut self.scratch,
            extra_is_error: self.extra_is_error,
            ignored: &mut self.ignored,
            refused: None,
        };

        let mut row = 0;
        let mut at = if base_offset == 0 && padded.starts_with(b"\xEF\xBB\xBF") {
            3.min(end)
        } else {
            0
        };
        while at < end {
            let start = at;
            at = run.lex.blanks(at);
            if at >= end {
                break;
            }
            if run.lex.byte(at) == b'\n' {
                at += 1;
                continue;
            }
            if places {
                origin[row] = Place {
                    source,
                    offset: base_offset + start as u64,
                    sub: 0,
                };
            }
            let result = if block_is_utf8 {
                Ok(())
            } else {
                check_utf8(&padded[start..end], start)
            };
            match result.and_then(|()| run.row(row, at)) {
                Ok(behind) => {
                    at = behind + 1;
                    row += 1;
                    if !run.pending.is_empty() && run.report(row - 1, base_offset, faults)? == Verdict::Stop {
                        break;
                    }
                }
                Err(error) => {
                    if let Some(refused) = run.refused.take() {
                        return Err(refused);
                    }
                    run.take_back(&self.roots, row);
                    let from = (error.at as usize).max(start).min(end);
                    at = memchr::memchr(b'\n', &padded[from..end]).map_or(end, |n| from + n + 1);
                    let verdict = report_record(error, run.lex.narrow(), row, start, base_offset, faults)?;
                    row += 1;
                    if verdict == Verdict::Stop {
                        break;
                    }
                }
            }
        }

        let buffers = run.escapes.finish(padded)?;
        let mut writers = run.writers;
        let columns = columns(
            &mut writers,
            &mut self.nodes,
            &self.levels,
            &self.roots,
            row,
            buffers,
            arena,
        )?;
        // The allocation stays for the next block; `map` changes only the lifetime of no elements.
        writers.clear();
        self.spare = writers.into_iter().map(|_| unreachable!("it was cleared")).collect();
        let origin = places.then(|| &origin[..row]);
        Ok((Batch::new(columns, origin, row), at.min(end)))
    }
}

/// The lines at the front of a block that are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinesOf {
    /// How many there are, or more.
    pub(super) lines: usize,
    /// Their bytes.
    pub(super) len: usize,
    /// Whether all bytes are below 128; `false` = not known.
    pub(super) ascii: bool,
}

impl LinesOf {
    /// The first lines of `text`, at most `max_rows`.
    pub(super) fn measure(text: &[u8], max_rows: usize) -> LinesOf {
        let (lines, len) = measure(text, max_rows);
        LinesOf {
            lines,
            len,
            ascii: text[..len].is_ascii(),
        }
    }
}

/// How many rows there can be, at most `max_rows`, and where they end.
fn measure(text: &[u8], max_rows: usize) -> (usize, usize) {
    if max_rows < text.len() / 64
        && let Some(last) = memchr::memchr_iter(b'\n', text).nth(max_rows.saturating_sub(1))
    {
        return (max_rows, if max_rows == 0 { 0 } else { last + 1 });
    }
    let newlines = memchr::memchr_iter(b'\n', text).count();
    let lines = newlines + usize::from(text.last().is_some_and(|&b| b != b'\n'));
    if lines <= max_rows {
        return (lines, text.len());
    }
    match max_rows.checked_sub(1) {
        None => (0, 0),
        Some(last) => (
            max_rows,
            memchr::memchr_iter(b'\n', text)
                .nth(last)
                .map_or(text.len(), |at| at + 1),
        ),
    }
}

/// Whether the line at the front of `rest`, which stands at `start`, is UTF-8.
fn check_utf8(rest: &[u8], start: usize) -> Result<(), Bad> {
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    match std::str::from_utf8(line) {
        Ok(_) => Ok(()),
        Err(error) => bad(start + error.valid_up_to(), Wrong::Utf8),
    }
}

impl<'a> Writer<'a> {
    fn new(node: &Node, room: usize, arena: &'a Arena) -> Result<Self> {
        let values = match node.kind {
            _ if node.hidden => Values::None,
            Kind::Null | Kind::Record { .. } => Values::None,
            Kind::Bool => Values::Bool(arena.fill(room.div_ceil(64), 0)?),
            Kind::Int | Kind::Timestamp | Kind::Duration => Values::Int(arena.fill(room, 0)?),
            Kind::Float => Values::Float(arena.fill(room, 0.0)?),
            Kind::Decimal { .. } => Values::Decimal(arena.fill(room, 0)?),
            Kind::Date => Values::Date(arena.fill(room, 0)?),
            Kind::String | Kind::Bytes | Kind::Json => Values::Text(arena.fill(room, View::EMPTY)?),
            Kind::List { .. } => Values::Offsets(arena.fill(room + 1, 0)?),
        };
        Ok(Writer {
            values,
            valid: None,
            room,
            filled: 0,
            elements: 0,
        })
    }

    /// Room for `room` rows, those so far copied.
    fn grow(&mut self, room: usize, arena: &'a Arena) -> Result<()> {
        fn longer<'a, T: Copy>(old: &mut &'a mut [T], len: usize, with: T, arena: &'a Arena) -> Result<()> {
            let new = arena.fill(len, with)?;
            new[..old.len()].copy_from_slice(old);
            *old = new;
            Ok(())
        }
        match &mut self.values {
            Values::None => {}
            Values::Bool(v) => longer(v, room.div_ceil(64), 0, arena)?,
            Values::Int(v) => longer(v, room, 0, arena)?,
            Values::Float(v) => longer(v, room, 0.0, arena)?,
            Values::Decimal(v) => longer(v, room, 0, arena)?,
            Values::Date(v) => longer(v, room, 0, arena)?,
            Values::Text(v) => longer(v, room, View::EMPTY, arena)?,
            Values::Offsets(v) => longer(v, room + 1, 0, arena)?,
        }
        if let Some(valid) = &mut self.valid {
            longer(valid, room.div_ceil(64), u64::MAX, arena)?;
        }
        self.room = room;
        Ok(())
    }

    /// The rows from `filled` to `to` become null.
    fn pad(&mut self, to: usize, arena: &'a Arena) -> Result<()> {
        if self.filled >= to {
            return Ok(());
        }
        if self.valid.is_none() {
            self.valid = Some(arena.fill(self.room.div_ceil(64), u64::MAX)?);
        }
        if let Some(valid) = &mut self.valid {
            for row in self.filled..to {
                valid[row / 64] &= !(1 << (row % 64));
            }
        }
        if let Values::Offsets(offsets) = &mut self.values {
            offsets[self.filled + 1..=to].fill(self.elements as i32);
        }
        self.filled = to;
        Ok(())
    }

    #[inline(always)]
    fn set<T>(slots: &mut [T], row: usize, value: T) {
        if let Some(slot) = slots.get_mut(row) {
            *slot = value;
        }
    }
}

/// What follows in a record.
enum NextKey {
    /// A key: its slot, and the position behind its colon.
    Slot(usize, usize),
    /// The position of its `}`.
    End(usize),
}

/// One call of `decode`.
struct Run<'d, 'a, const WIDE: bool> {
    lex: Lexer<'a, true, WIDE>,
    arena: &'a Arena,
    nodes: &'d [Node],
    levels: &'d mut Vec<Level>,
    writers: Vec<Writer<'a>>,
    escapes: Escapes<'a>,
    pending: &'d mut Vec<Pending>,
    nulls: &'d [String],
    scratch: &'d mut Vec<u8>,
    extra_is_error: bool,
    ignored: &'d mut u64,
    refused: Option<Error>,
}

impl<'a, const WIDE: bool> Run<'_, 'a, WIDE> {
    /// The line whose record stands at `at` becomes row `row`; gives the end of the line.
    #[inline(always)]
    fn row(&mut self, row: usize, at: usize) -> Result<usize, Bad> {
        if self.lex.byte(at) != b'{' {
            // Not JSON at all, or JSON that is no record.
            return self.lex.narrow().line(at);
        }
        let end = self.record(0, row, at, 1)?;
        self.lex.line_end(end)
    }

    /// The record of level `level` whose `{` is at `at`, at depth `depth`; gives what is behind its `}`.
    fn record(&mut self, level: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: a wide lexer is the proof that the machine has all of these.
            return unsafe { self.record_wide(level, row, at, depth) };
        }
        self.record_narrow(level, row, at, depth)
    }

    /// A frame of its own: the other machine's is not to stand on the stack as well.
    #[inline(never)]
    fn record_narrow(&mut self, level: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        self.record_body(level, row, at, depth)
    }

    /// The same, as instructions of newer machines.
    ///
    /// # Safety
    /// The machine has what is enabled here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    unsafe fn record_wide(&mut self, level: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        self.record_body(level, row, at, depth)
    }

    #[inline(always)]
    fn record_body(&mut self, level: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        // Lent from the level while its record is read: a level never holds itself.
        let mut slots = std::mem::take(&mut self.levels[level].slots);
        let end = self.fields(&mut slots, level, row, at, depth);
        self.levels[level].slots = slots;
        let end = end?;
        if !self.levels[level].required.is_empty() {
            self.close(level, row, end)?;
        }
        Ok(end + 1)
    }

    /// The fields of a record; gives the position of its `}`.
    #[inline(always)]
    fn fields(
        &mut self,
        slots: &mut Vec<Slot>,
        level: usize,
        row: usize,
        mut at: usize,
        depth: usize,
    ) -> Result<usize, Bad> {
        let mut separator = b'{';
        let mut before = 0;
        loop {
            // At the separator, unless there are blanks before it or the record ends here.
            let guess = slots[before].next as usize;
            let slot = &slots[guess];
            if self.lex.sixteen(at) & slot.mask == slot.word | u128::from(separator)
                && (slot.rest.is_empty() || self.lex.text(at + 16, at + slot.len) == &*slot.rest)
            {
                at += slot.len;
                before = guess;
            } else if separator == b',' && self.lex.byte(at) == b'}' {
                return Ok(at);
            } else {
                match self.next_key(slots, level, before, separator, at)? {
                    NextKey::Slot(found, value) => {
                        before = found;
                        at = value;
                    }
                    NextKey::End(end) => return Ok(end),
                }
            }
            separator = b',';
            let slot = &mut slots[before];
            at = match slot.action {
                Action::Skip if self.lex.byte(at) == b'"' => self.text_end(slot, at + 1)?.0 + 1,
                Action::Skip => self.lex.skip(self.lex.blanks(at), depth)?,
                Action::String(node) if self.lex.byte(at) == b'"' => {
                    let (end, escaped) = self.text_end(slot, at + 1)?;
                    if escaped {
                        self.other_string(node as usize, row, at + 1, end, escaped, depth)?
                    } else {
                        self.put_string(node as usize, row, at + 1, end)?
                    }
                }
                Action::Int(node) if matches!(self.lex.byte(at), b'-' | b'0'..=b'9') => {
                    self.int(node as usize, row, at, depth)?
                }
                Action::Float(node) if matches!(self.lex.byte(at), b'-' | b'0'..=b'9') => {
                    self.float(node as usize, row, at, depth)?
                }
                Action::Record(node, level) if self.lex.byte(at) == b'{' && depth < DEEPEST => {
                    self.claim(node as usize, row)?;
                    self.record(level as usize, row, at, depth + 1)?
                }
                Action::Put(node)
                | Action::String(node)
                | Action::Int(node)
                | Action::Float(node)
                | Action::Record(node, _) => self.value(node as usize, row, self.lex.blanks(at), depth)?,
                Action::Unknown => {
                    at = self.lex.blanks(at);
                    if self.extra_is_error {
                        return bad(at, Wrong::Extra);
                    }
                    *self.ignored += 1;
                    self.lex.skip(at, depth)?
                }
            };
        }
    }

    /// As [`Lexer::string`], of the value of a key.
    ///
    /// Where texts of one length follow each other (times, codes), the end is known before it is found: what comes behind need not wait
    /// for the search, which only confirms.
    #[inline(always)]
    fn text_end(&self, slot: &mut Slot, from: usize) -> Result<(usize, bool), Bad> {
        let (end, escaped) = self.lex.string(from)?;
        if slot.streak < STREAK {
            slot.streak = if slot.usual == end - from { slot.streak + 1 } else { 0 };
            slot.usual = end - from;
            return Ok((end, escaped));
        }
        if slot.usual == end - from {
            return Ok((from + unlinked(slot.usual), escaped));
        }
        slot.streak = 0;
        Ok((end, escaped))
    }

    /// The next key of a record, or its end.
    ///
    /// `at` is where `separator` was expected, followed at once by the key that came behind slot `before` last time.
    #[inline(never)]
    fn next_key(
        &mut self,
        slots: &mut Vec<Slot>,
        level: usize,
        before: usize,
        separator: u8,
        mut at: usize,
    ) -> Result<NextKey, Bad> {
        let first = separator == b'{';
        at = self.lex.blanks(at);
        if !first && self.lex.byte(at) == b'}' {
            return Ok(NextKey::End(at));
        }
        if self.lex.byte(at) != separator {
            return bad(at, Wrong::RecordEnd);
        }
        at = self.lex.blanks(at + 1);
        if first && self.lex.byte(at) == b'}' {
            return Ok(NextKey::End(at));
        }
        // Blanks behind the separator are no reason to forget what is expected.
        let guess = slots[before].next as usize;
        let slot = &slots[guess];
        if slot.rest.is_empty() && self.lex.sixteen(at) & slot.mask >> 8 == slot.word >> 8 && slot.len > 0 {
            return Ok(NextKey::Slot(guess, at + slot.len - 1));
        }
        let (found, value) = self.key(slots, level, at)?;
        slots[before].next = found;
        Ok(NextKey::Slot(found as usize, value))
    }

    /// The end of a record: fields that may not be null have come.
    #[inline]
    fn close(&mut self, level: usize, row: usize, at: usize) -> Result<(), Bad> {
        for i in 0..self.levels[level].required.len() {
            let node = self.levels[level].required[i] as usize;
            if self.writers[node].filled <= row {
                self.null(node, row, at, at)?;
            }
        }
        Ok(())
    }

    /// The slot of the key at `at`, which was not the one expected, and the position of its value.
    #[inline(never)]
    fn key(&mut self, slots: &mut Vec<Slot>, level: usize, at: usize) -> Result<(u32, usize), Bad> {
        if self.lex.byte(at) != b'"' {
            return bad(at, Wrong::Key);
        }
        let (end, escaped) = self.lex.narrow().string(at + 1)?;
        let value = self.lex.colon(end + 1)?;
        let raw = self.lex.text(at + 1, end);
        if escaped {
            self.plain_text(raw)?;
            let slot = self.levels[level].names.get(self.scratch.as_slice()).copied();
            return Ok((slot.unwrap_or(0), value));
        }
        let level = &mut self.levels[level];
        if let Some(&slot) = level.names.get(raw) {
            return Ok((slot, value));
        }
        if level.learned == LEARNED || raw.len() > 256 {
            return Ok((0, value));
        }
        level.learned += 1;
        slots.push(Slot::new(raw, Action::Unknown));
        let slot = slots.len() as u32 - 1;
        level.names.insert(raw.into(), slot);
        Ok((slot, value))
    }

    /// Puts the text of a checked string without its escapes into `scratch`.
    fn plain_text(&mut self, raw: &[u8]) -> Result<(), Bad> {
        self.scratch.clear();
        if self.scratch.try_reserve(raw.len()).is_err() {
            return self.refuse(Error::Memory {
                wanted: raw.len(),
                used: self.arena.used(),
                limit: self.arena.limit(),
            });
        }
        self.scratch.resize(raw.len(), 0);
        let len = unescape(raw, self.scratch);
        self.scratch.truncate(len);
        Ok(())
    }

    #[cold]
    fn refuse<T>(&mut self, error: Error) -> Result<T, Bad> {
        self.refused = Some(error);
        bad(0, Wrong::Memory)
    }

    /// Makes row `row` of a column the one to be written next.
    #[inline(always)]
    fn claim(&mut self, node: usize, row: usize) -> Result<&mut Writer<'a>, Bad> {
        let writer = &self.writers[node];
        if !(writer.filled == row && row < writer.room && writer.valid.is_none()) {
            self.claim_slowly(node, row)?;
        }
        let writer = &mut self.writers[node];
        writer.filled = row + 1;
        Ok(writer)
    }

    #[inline(never)]
    fn claim_slowly(&mut self, node: usize, row: usize) -> Result<(), Bad> {
        if self.writers[node].filled > row {
            // A repeated key: what came before is forgotten.
            truncate(&mut self.writers, self.nodes, self.levels, node, row);
        }
        let writer = &mut self.writers[node];
        let mut grown = Ok(());
        if row >= writer.room {
            let room = (writer.room * 2).max(self.nodes[node].room).max(row + 1).max(64);
            grown = writer.grow(room, self.arena);
        }
        if let Err(error) = grown.and_then(|()| writer.pad(row, self.arena)) {
            return self.refuse(error);
        }
        if let Some(valid) = &mut writer.valid {
            valid[row / 64] |= 1 << (row % 64);
        }
        Ok(())
    }

    /// Row `row` of a column is null, because of what stands at `at..end`.
    #[inline(never)]
    fn null(&mut self, node: usize, row: usize, at: usize, end: usize) -> Result<(), Bad> {
        if !self.nodes[node].nullable {
            self.complain(node, at, end, Why::NoValue);
        }
        self.clear(node, row)
    }

    fn clear(&mut self, node: usize, row: usize) -> Result<(), Bad> {
        let arena = self.arena;
        let writer = self.claim(node, row)?;
        writer.filled = row;
        match writer.pad(row + 1, arena) {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(error),
        }
    }

    fn complain(&mut self, node: usize, at: usize, end: usize, why: Why) {
        if self.pending.len() < FAULTS_PER_ROW {
            self.pending.push(Pending {
                node: node as u32,
                at: at as u32,
                end: end as u32,
                why,
            });
        }
    }

    /// The value at `at` does not fit its column.
    #[inline(never)]
    fn conflict(&mut self, node: usize, row: usize, at: usize, depth: usize, why: Why) -> Result<usize, Bad> {
        let end = self.lex.narrow().skip(at, depth)?;
        self.complain(node, at, end, why);
        self.clear(node, row)?;
        Ok(end)
    }

    /// The value at `at`, in `depth` open lists and records, becomes row `row` of a column; gives what is behind it.
    fn value(&mut self, node: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        let first = self.lex.byte(at);
        if first == b'n' {
            let end = self.lex.literal(at, b"null")?;
            self.null(node, row, at, end)?;
            return Ok(end);
        }
        if first == b'"' {
            let (end, escaped) = self.lex.narrow().string(at + 1)?;
            return self.string(node, row, at + 1, end, escaped, depth);
        }
        if matches!(first, b'-' | b'0'..=b'9') {
            match self.nodes[node].kind {
                Kind::Int => return self.int(node, row, at, depth),
                Kind::Float => return self.float(node, row, at, depth),
                _ => {}
            }
        }
        self.other_value(node, row, at, depth)
    }

    /// The number at `at` becomes row `row` of an int column.
    #[cfg_attr(not(debug_assertions), inline(always))] // frames go deep without optimisation
    fn int(&mut self, node: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        let (end, int) = self.lex.int(at)?;
        let value = match int {
            Int::Value(value) => value,
            Int::Large => return self.conflict(node, row, at, depth, Why::Range),
            Int::Float => return self.conflict(node, row, at, depth, Why::Type),
        };
        if let Values::Int(slots) = &mut self.claim(node, row)?.values {
            Writer::set(slots, row, value);
        }
        Ok(end)
    }

    /// The number at `at` becomes row `row` of a float column.
    #[cfg_attr(not(debug_assertions), inline(always))] // frames go deep without optimisation
    fn float(&mut self, node: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        let (end, float) = self.lex.float(at)?;
        let Some(value) = float else {
            return self.conflict(node, row, at, depth, Why::Range);
        };
        if let Values::Float(slots) = &mut self.claim(node, row)?.values {
            Writer::set(slots, row, value);
        }
        Ok(end)
    }

    /// The text `from..end` of the block becomes row `row` of a string column.
    #[cfg_attr(not(debug_assertions), inline(always))] // frames go deep without optimisation
    fn put_string(&mut self, node: usize, row: usize, from: usize, end: usize) -> Result<usize, Bad> {
        let view = View::new(self.lex.block(), from, end - from, 0);
        if let Values::Text(slots) = &mut self.claim(node, row)?.values {
            Writer::set(slots, row, view);
        }
        Ok(end + 1)
    }

    /// The string `from..end` becomes row `row` of a column.
    #[inline]
    fn string(
        &mut self,
        node: usize,
        row: usize,
        from: usize,
        end: usize,
        escaped: bool,
        depth: usize,
    ) -> Result<usize, Bad> {
        if matches!(self.nodes[node].kind, Kind::String) && !escaped && self.nulls.is_empty() {
            return self.put_string(node, row, from, end);
        }
        self.other_string(node, row, from, end, escaped, depth)
    }

    /// As [`Run::string`], for whatever column.
    #[inline(never)]
    fn other_string(
        &mut self,
        node: usize,
        row: usize,
        from: usize,
        end: usize,
        escaped: bool,
        depth: usize,
    ) -> Result<usize, Bad> {
        let raw = self.lex.text(from, end);
        let kind = self.nodes[node].kind;
        if escaped && !(matches!(kind, Kind::String | Kind::Json) && self.nulls.is_empty()) {
            self.plain_text(raw)?;
        }
        let text: &[u8] = if escaped { self.scratch } else { raw };
        if self.nulls.iter().any(|null| null.as_bytes() == text) {
            self.null(node, row, from - 1, end + 1)?;
            return Ok(end + 1);
        }
        let mut why = Why::Type;
        match kind {
            Kind::String | Kind::Json => {
                let view = if matches!(kind, Kind::Json) {
                    View::new(self.lex.block(), from - 1, end + 2 - from, 0)
                } else if escaped {
                    match self.escapes.put(raw.len(), |slot| unescape(raw, slot)) {
                        Ok(view) => view,
                        Err(error) => return self.refuse(error),
                    }
                } else {
                    View::new(self.lex.block(), from, end - from, 0)
                };
                if let Values::Text(slots) = &mut self.claim(node, row)?.values {
                    Writer::set(slots, row, view);
                }
                return Ok(end + 1);
            }
            Kind::Bytes if super::encode::base64_length(text).is_some() => {
                let put = self
                    .escapes
                    .put(text.len(), |slot| super::encode::from_base64(text, slot).unwrap_or(0));
                let view = match put {
                    Ok(view) => view,
                    Err(error) => return self.refuse(error),
                };
                if let Values::Text(slots) = &mut self.claim(node, row)?.values {
                    Writer::set(slots, row, view);
                }
                return Ok(end + 1);
            }
            Kind::Date => {
                if let Some(value) = scan::parse_date(text) {
                    if let Values::Date(slots) = &mut self.claim(node, row)?.values {
                        Writer::set(slots, row, value);
                    }
                    return Ok(end + 1);
                }
            }
            Kind::Timestamp | Kind::Duration => {
                let value = if matches!(kind, Kind::Timestamp) {
                    scan::parse_timestamp(text)
                } else {
                    scan::parse_duration(text)
                };
                if let Some(value) = value {
                    if let Values::Int(slots) = &mut self.claim(node, row)?.values {
                        Writer::set(slots, row, value);
                    }
                    return Ok(end + 1);
                }
            }
            Kind::Decimal { precision, scale } => match scan::parse_decimal(text, precision, scale) {
                Ok(value) => {
                    if let Values::Decimal(slots) = &mut self.claim(node, row)?.values {
                        Writer::set(slots, row, value);
                    }
                    return Ok(end + 1);
                }
                Err(error) => why = Why::Decimal(error),
            },
            _ => {}
        }
        self.conflict(node, row, from - 1, depth, why)
    }

    /// A value that is no string, for the columns that are not of the everyday types.
    #[inline(never)]
    fn other_value(&mut self, node: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        let first = self.lex.byte(at);
        match (self.nodes[node].kind, first) {
            (Kind::Bool, b't' | b'f') => {
                let value = first == b't';
                let end = self.lex.literal(at, if value { b"true" } else { b"false" })?;
                if let Values::Bool(words) = &mut self.claim(node, row)?.values
                    && let Some(word) = words.get_mut(row / 64)
                {
                    *word = *word & !(1 << (row % 64)) | u64::from(value) << (row % 64);
                }
                Ok(end)
            }
            (Kind::Decimal { precision, scale }, b'-' | b'0'..=b'9') => {
                let end = self.lex.number(at)?;
                match scan::parse_decimal(self.lex.text(at, end), precision, scale) {
                    Ok(value) => {
                        if let Values::Decimal(slots) = &mut self.claim(node, row)?.values {
                            Writer::set(slots, row, value);
                        }
                        Ok(end)
                    }
                    Err(error) => self.conflict(node, row, at, depth, Why::Decimal(error)),
                }
            }
            (Kind::Json, _) => {
                let end = self.lex.narrow().skip(at, depth)?;
                let view = View::new(self.lex.block(), at, end - at, 0);
                if let Values::Text(slots) = &mut self.claim(node, row)?.values {
                    Writer::set(slots, row, view);
                }
                Ok(end)
            }
            (Kind::Record { level }, b'{') => {
                if depth >= DEEPEST {
                    return bad(at, Wrong::Deep);
                }
                self.claim(node, row)?;
                self.record(level as usize, row, at, depth + 1)
            }
            (Kind::List { child }, b'[') => {
                if depth >= DEEPEST {
                    return bad(at, Wrong::Deep);
                }
                self.list(node, child as usize, row, at + 1, depth + 1)
            }
            _ => self.conflict(node, row, at, depth, Why::Type),
        }
    }

    /// The list behind its `[`, at depth `depth`.
    fn list(&mut self, node: usize, child: usize, row: usize, at: usize, depth: usize) -> Result<usize, Bad> {
        let mut count = self.claim(node, row)?.elements;
        let mut at = self.lex.blanks(at);
        if self.lex.byte(at) == b']' {
            at += 1;
        } else {
            loop {
                at = self.value(child, count, at, depth)?;
                count += 1;
                at = self.lex.blanks(at);
                match self.lex.byte(at) {
                    b',' => at = self.lex.blanks(at + 1),
                    b']' => break,
                    _ => return bad(at, Wrong::ListEnd),
                }
            }
            at += 1;
        }
        let writer = &mut self.writers[node];
        writer.elements = count;
        if let Values::Offsets(offsets) = &mut writer.values {
            Writer::set(offsets, row + 1, count as i32);
        }
        Ok(at)
    }

    /// Forgets what was written of row `row` and of its cells' faults.
    fn take_back(&mut self, roots: &[Option<u32>], row: usize) {
        self.pending.clear();
        for node in roots.iter().flatten() {
            truncate(&mut self.writers, self.nodes, self.levels, *node as usize, row);
        }
    }

    /// The waiting faults of the row's cells.
    #[inline(never)]
    fn report(&mut self, row: usize, base_offset: u64, faults: &Faults<'a>) -> Result<Verdict> {
        let mut verdict = Verdict::On;
        for Pending { node, at, end, why } in self.pending.drain(..) {
            let node = &self.nodes[node as usize];
            let text = excerpt(self.lex.text(at as usize, end as usize));
            let (ty, path) = (&node.ty, &node.path);
            let (code, message) = match why {
                Why::Type => (
                    CONFLICT,
                    format_in(self.arena, format_args!("cannot read {text} as {ty}"))?,
                ),
                Why::Range => (
                    OUT_OF_RANGE,
                    format_in(self.arena, format_args!("{text} is beyond the range of {ty}"))?,
                ),
                Why::Decimal(error) => (
                    OUT_OF_RANGE,
                    format_in(self.arena, format_args!("cannot read {text} as {ty}: {error}"))?,
                ),
                Why::NoValue => (
                    NULL,
                    format_in(self.arena, format_args!("no value for `{path}`, which is {ty}"))?,
                ),
            };
            let help = match why {
                Why::NoValue => format_in(self.arena, format_args!("`{ty}?` in the schema allows null"))?,
                Why::Decimal(_) => "a decimal of more digits in `schema:`",
                Why::Type | Why::Range => {
                    let better = type_of(self.lex.byte(at as usize), text);
                    format_in(
                        self.arena,
                        format_args!("declare the column as `{better}?` with `schema:`"),
                    )?
                }
            };
            verdict = faults.push(Fault {
                row: row as u32,
                code,
                span: None,
                column: Some(self.arena.copy_str(path)?),
                message,
                help: Some(help),
                byte: Some(base_offset + u64::from(at)),
                record: false,
            })?;
        }
        Ok(verdict)
    }
}

/// At most `EXCERPT` bytes of a value, for a message.
fn excerpt(text: &[u8]) -> &str {
    let text = &text[..text.len().min(EXCERPT)];
    match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// A type that holds the value which begins so.
fn type_of(first: u8, text: &str) -> &'static str {
    match first {
        b'"' => "string",
        b't' | b'f' => "bool",
        b'-' | b'0'..=b'9' if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) => "float",
        b'-' | b'0'..=b'9' if text.len() < 19 => "int",
        _ => "json",
    }
}

/// A line that is no record of this schema.
#[inline(never)]
fn report_record<'a>(
    Bad { at, wrong }: Bad,
    lex: Lexer<'a>,
    row: usize,
    start: usize,
    base_offset: u64,
    faults: &Faults<'a>,
) -> Result<Verdict> {
    let (code, message) = explain(lex, wrong, at as usize);
    let arena = faults.arena();
    let column = at as usize + 1 - start;
    let message = format_in(arena, format_args!("{message}, at byte {column} of the line"))?;
    faults.push(Fault {
        row: row as u32,
        code,
        span: None,
        column: None,
        message,
        help: (wrong == Wrong::Extra).then_some("without `extra: error` such fields are passed over"),
        byte: Some(base_offset + u64::from(at)),
        record: true,
    })
}

/// What is wrong, in words.
pub(super) fn explain(lex: Lexer<'_>, wrong: Wrong, at: usize) -> (Code, &'static str) {
    let at_end = matches!(
        wrong,
        Wrong::Value | Wrong::Key | Wrong::Colon | Wrong::RecordEnd | Wrong::ListEnd | Wrong::Control
    ) && matches!(lex.byte(at), b'\n' | 0);
    match wrong {
        _ if at_end => (MALFORMED, "not JSON: the line ends within the record"),
        Wrong::Value => (MALFORMED, "not JSON: a value is expected"),
        Wrong::Key => (MALFORMED, "not JSON: a key in quotes is expected"),
        Wrong::Colon => (MALFORMED, "not JSON: `:` is expected behind a key"),
        Wrong::RecordEnd => (MALFORMED, "not JSON: `,` or `}` is expected"),
        Wrong::ListEnd => (MALFORMED, "not JSON: `,` or `]` is expected"),
        Wrong::Control => (MALFORMED, "not JSON: a control character in a string"),
        Wrong::Escape => (MALFORMED, "not JSON: an unknown escape in a string"),
        Wrong::Surrogate => (MALFORMED, "not JSON: half of a surrogate pair"),
        Wrong::Number => (MALFORMED, "not JSON: not a number"),
        Wrong::Trailing => (MALFORMED, "not JSON lines: something stands behind the record"),
        Wrong::Deep => (MALFORMED, "lists and records are nested deeper than 256"),
        Wrong::NotRecord => (MALFORMED, "the line is not a record"),
        Wrong::Utf8 => (NOT_UTF8, "not UTF-8"),
        Wrong::Extra => (EXTRA_FIELD, "a field that the schema does not have"),
        Wrong::Memory => (MALFORMED, "out of memory"),
    }
}

/// Sets a column back to its first `rows` rows.
fn truncate(writers: &mut [Writer<'_>], nodes: &[Node], levels: &[Level], node: usize, rows: usize) {
    let writer = &mut writers[node];
    if writer.filled <= rows {
        return;
    }
    writer.filled = rows;
    match nodes[node].kind {
        Kind::List { child } => {
            if let Values::Offsets(offsets) = &writer.values {
                writer.elements = offsets.get(rows).copied().unwrap_or(0) as usize;
            }
            let elements = writer.elements;
            truncate(writers, nodes, levels, child as usize, elements);
        }
        Kind::Record { level } => {
            for field in levels[level as usize].fields.iter().flatten() {
                truncate(writers, nodes, levels, *field as usize, rows);
            }
        }
        _ => {}
    }
}

/// The finished columns of one record type.
fn columns<'a>(
    writers: &mut [Writer<'a>],
    nodes: &mut [Node],
    levels: &[Level],
    fields: &[Option<u32>],
    rows: usize,
    buffers: &'a [&'a [u8]],
    arena: &'a Arena,
) -> Result<&'a [Column<'a>]> {
    let mut columns = Columns::new(arena, fields.len())?;
    for field in fields {
        columns.push(match field {
            Some(node) if !nodes[*node as usize].hidden => {
                column(writers, nodes, levels, *node as usize, rows, buffers, arena)?
            }
            _ => Column::absent(rows),
        });
    }
    Ok(columns.finish())
}

fn column<'a>(
    writers: &mut [Writer<'a>],
    nodes: &mut [Node],
    levels: &[Level],
    node: usize,
    rows: usize,
    buffers: &'a [&'a [u8]],
    arena: &'a Arena,
) -> Result<Column<'a>> {
    let writer = &mut writers[node];
    if writer.room < rows {
        writer.grow(rows, arena)?;
    }
    writer.pad(rows, arena)?;
    let valid = writer.valid.take().map(|words| Bits::new(&*words, rows));
    let elements = writer.elements;
    let data = match std::mem::replace(&mut writer.values, Values::None) {
        Values::None => match nodes[node].kind {
            Kind::Record { level } => {
                let fields = &levels[level as usize].fields;
                Data::Record(RecordData::new(columns(
                    writers, nodes, levels, fields, rows, buffers, arena,
                )?))
            }
            _ => return Ok(Column::nulls(rows)),
        },
        Values::Bool(words) => Data::Bool(Bits::new(&*words, rows)),
        Values::Int(values) => {
            let values = &values[..rows];
            match nodes[node].kind {
                Kind::Timestamp => Data::Timestamp(values),
                Kind::Duration => Data::Duration(values),
                _ => Data::Int(values),
            }
        }
        Values::Float(values) => Data::Float(&values[..rows]),
        Values::Decimal(values) => Data::Decimal(&values[..rows]),
        Values::Date(values) => Data::Date(&values[..rows]),
        Values::Text(views) => {
            // SAFETY: every view was made by `View::new` for the block (buffer 0) or by `Escapes::put` for its segment. A view into the
            // block is a whole JSON string or value, which begins and ends at ASCII characters, of a block or line that was checked to be
            // UTF-8; unescaped text consists of parts of such a string and of whole characters. Views of rows that were taken back are of
            // the same block.
            let text = unsafe { Text::new(&views[..rows], buffers) };
            match nodes[node].kind {
                Kind::Json => Data::Json(text),
                Kind::Bytes => Data::Bytes(text),
                _ => Data::String(text),
            }
        }
        Values::Offsets(offsets) => {
            let Kind::List { child } = nodes[node].kind else {
                return Ok(Column::nulls(rows));
            };
            let child_column = column(writers, nodes, levels, child as usize, elements, buffers, arena)?;
            remember(nodes, levels, child as usize, elements + elements / 8);
            Data::List(ListData {
                offsets: &offsets[..=rows],
                child: arena.one(child_column)?,
            })
        }
    };
    Ok(Column::new(data, valid, rows))
}

/// The next block's lists begin with the room that this block's needed.
fn remember(nodes: &mut [Node], levels: &[Level], node: usize, room: usize) {
    nodes[node].room = room;
    if let Kind::Record { level } = nodes[node].kind {
        for field in levels[level as usize].fields.iter().flatten() {
            remember(nodes, levels, *field as usize, room);
        }
    }
}

/// Text that stands nowhere in the block: strings without their escapes, bytes out of base64. In segments, as nothing grows in place.
struct Escapes<'a> {
    arena: &'a Arena,
    segment: &'a mut [u8],
    at: usize,
    /// Full segments; the block is buffer 0.
    full: &'a mut [&'a [u8]],
    count: usize,
}

impl<'a> Escapes<'a> {
    const FIRST: usize = 4 << 10;
    const SEGMENT: usize = 64 << 10;

    fn new(arena: &'a Arena) -> Self {
        Escapes {
            arena,
            segment: &mut [],
            at: 0,
            full: &mut [],
            count: 0,
        }
    }

    /// A view of what `write` puts into a slice of `max` bytes; it answers how many it wrote.
    fn put(&mut self, max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<View> {
        if self.segment.len() - self.at < max {
            self.close()?;
            let size = if self.count == 0 { Self::FIRST } else { Self::SEGMENT };
            self.segment = self.arena.fill(max.max(size), 0)?;
            self.at = 0;
        }
        let len = write(&mut self.segment[self.at..self.at + max]).min(max);
        let view = View::new(self.segment, self.at, len, self.count as u32 + 1);
        self.at += len;
        Ok(view)
    }

    /// The current segment is full.
    fn close(&mut self) -> Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        if self.count == self.full.len() {
            let more = self.arena.fill::<&'a [u8]>((self.count * 2).max(4), &[])?;
            more[..self.count].copy_from_slice(self.full);
            self.full = more;
        }
        let segment: &'a mut [u8] = std::mem::take(&mut self.segment);
        self.full[self.count] = segment;
        self.count += 1;
        Ok(())
    }

    /// The buffers of all views: `block`, then the segments.
    fn finish(mut self, block: &'a [u8]) -> Result<&'a [&'a [u8]]> {
        self.close()?;
        let full = &*self.full;
        Ok(self
            .arena
            .collect(self.count + 1, |i| if i == 0 { block } else { full[i - 1] })?)
    }
}
