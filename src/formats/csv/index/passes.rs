//! The passes over a text, written once for all instruction sets.
//!
//! For whoever changes this: everything here is `inline(always)`, because an instruction set's intrinsics become
//! instructions only once the whole pass stands inside a function compiled for that set (see `isa`). And two things move
//! together: `Carry::structure` and the two parity checks in `ScanPass::block`, which are the same rule with one start known or
//! two assumed.

use super::{ExactScan, Indexed, Scan, State};

/// 64 bytes of text as bit masks: bit i is byte i.
#[derive(Clone, Copy)]
pub(super) struct Masks {
    pub(super) quotes: u64,
    pub(super) delimiters: u64,
    pub(super) newlines: u64,
    /// Not zero if some byte is above 127.
    pub(super) high: u64,
}

/// An instruction set. A value of such a type is the proof that this machine has it.
pub(super) trait Isa: Copy {
    fn masks(self, bytes: &[u8; 64], delimiter: u8) -> Masks;
    /// Bit i is the xor of bits 0 to i.
    fn prefix_xor(self, bits: u64) -> u64;
}

/// The masks of fewer than 64 bytes: nothing is set behind them.
#[inline(always)]
fn tail_masks<I: Isa>(isa: I, tail: &[u8], delimiter: u8) -> Masks {
    let mut padded = [0; 64];
    for (slot, byte) in padded.iter_mut().zip(tail) {
        *slot = *byte;
    }
    let masks = isa.masks(&padded, delimiter);
    // The padding could look like a delimiter.
    let real = (1 << tail.len()) - 1;
    Masks {
        quotes: masks.quotes & real,
        delimiters: masks.delimiters & real,
        newlines: masks.newlines & real,
        high: masks.high,
    }
}

/// All ones if the topmost bit is set, else zero.
#[inline(always)]
fn spread(bits: u64) -> u64 {
    (bits >> 63).wrapping_neg()
}

/// The position after the topmost bit of `mask`, whose bit 0 is at `base`.
#[inline(always)]
fn after_last(base: usize, mask: u64) -> Option<usize> {
    (mask != 0).then(|| base + 64 - mask.leading_zeros() as usize)
}

/// The last block that had something, and what.
#[derive(Clone, Copy, Default)]
struct Last {
    base: usize,
    mask: u64,
}

impl Last {
    /// Two conditional moves: whether a block has a newline cannot be predicted.
    #[inline(always)]
    fn note(&mut self, base: usize, mask: u64) {
        self.base = if mask == 0 { self.base } else { base };
        self.mask = if mask == 0 { self.mask } else { mask };
    }

    #[inline(always)]
    fn cut(self) -> Option<usize> {
        after_last(self.base, self.mask)
    }
}

#[inline(always)]
pub(super) fn scan<I: Isa>(isa: I, block: &[u8], delimiter: u8) -> Scan {
    // A quote as the very first byte is judged by `advance`.
    let mut pass = ScanPass {
        opens: 1,
        ..ScanPass::default()
    };
    let (chunks, tail) = block.as_chunks::<64>();
    let mut base = 0;
    for chunk in chunks {
        pass.block(isa, isa.masks(chunk, delimiter), base);
        base += 64;
    }
    if !tail.is_empty() {
        pass.block(isa, tail_masks(isa, tail, delimiter), base);
    }
    let outside = match block.last() {
        None => State::FieldStart,
        Some(b'"') => State::QuoteInQuoted,
        Some(&byte) if byte == b'\n' || byte == delimiter => State::FieldStart,
        Some(_) => State::Unquoted,
    };
    Scan {
        cut: pass.cut.map(Last::cut),
        clean: pass.stray.map(|bits| bits == 0),
        flips: pass.parity != 0,
        newlines: pass.newlines,
        quotes: pass.quotes != 0,
        ascii: pass.high == 0,
        outside,
        starts_quoted: block.first() == Some(&b'"'),
    }
}

#[derive(Default)]
struct ScanPass {
    /// All ones if the number of quotes so far is odd.
    parity: u64,
    /// Bit 0: a quote as the next byte may open a field.
    opens: u64,
    cut: [Last; 2],
    stray: [u64; 2],
    newlines: u64,
    quotes: u64,
    high: u64,
}

impl ScanPass {
    #[inline(always)]
    fn block<I: Isa>(&mut self, isa: I, masks: Masks, base: usize) {
        let mut inside = self.parity;
        let before = masks.delimiters | masks.newlines | masks.quotes;
        if masks.quotes != 0 {
            inside ^= isa.prefix_xor(masks.quotes);
            let unled = masks.quotes & !(before << 1 | self.opens);
            self.stray[0] |= unled & inside;
            self.stray[1] |= unled & !inside;
            self.parity = spread(inside);
            self.quotes |= masks.quotes;
        }
        self.opens = before >> 63;
        self.cut[0].note(base, masks.newlines & !inside);
        self.cut[1].note(base, masks.newlines & inside);
        self.newlines += u64::from(masks.newlines.count_ones());
        self.high |= masks.high;
    }
}

/// What a known start hands from one 64 bytes to the next.
#[derive(Clone, Copy)]
struct Carry {
    /// All ones inside quotes, else zero.
    inside: u64,
    /// Bit 0: a quote as the next byte opens a field, or is the second half of an escaped pair.
    opens: u64,
}

impl From<State> for Carry {
    #[inline(always)]
    fn from(state: State) -> Carry {
        match state {
            State::Quoted => Carry {
                inside: u64::MAX,
                opens: 0,
            },
            State::FieldStart | State::QuoteInQuoted => Carry { inside: 0, opens: 1 },
            State::Unquoted => Carry { inside: 0, opens: 0 },
        }
    }
}

impl Carry {
    /// The delimiters and newlines outside quotes, and whether quote parity was enough to know them.
    #[inline(always)]
    fn structure<I: Isa>(&mut self, isa: I, masks: Masks, bytes: &[u8], delimiter: u8) -> (u64, bool) {
        let breaks = masks.delimiters | masks.newlines;
        let top = (bytes.len() - 1) & 63;
        if masks.quotes | self.inside == 0 {
            self.opens = breaks >> top;
            return (breaks, true);
        }
        let inside = isa.prefix_xor(masks.quotes) ^ self.inside;
        let before = breaks | masks.quotes;
        if masks.quotes & inside & !(before << 1 | self.opens) != 0 {
            return (self.walk(bytes, delimiter), false);
        }
        self.inside = spread(inside);
        self.opens = before >> top;
        (breaks & !inside, true)
    }

    /// The same byte by byte, for any quotes.
    #[cold]
    #[inline(never)]
    fn walk(&mut self, bytes: &[u8], delimiter: u8) -> u64 {
        // A start of a field and a quote that closed one lead to the same states; only values tell them apart.
        let mut state = match self {
            Carry { inside: 1.., .. } => State::Quoted,
            Carry { opens: 1.., .. } => State::FieldStart,
            _ => State::Unquoted,
        };
        let mut structure = 0;
        for (at, &byte) in bytes.iter().take(64).enumerate() {
            state = state.step(byte, delimiter);
            structure |= u64::from(state == State::FieldStart) << at;
        }
        *self = Carry::from(state);
        structure
    }

    /// The state after `last`.
    #[inline(always)]
    fn state(self, last: u8) -> State {
        match self {
            Carry { inside: 1.., .. } => State::Quoted,
            Carry { opens: 0, .. } => State::Unquoted,
            _ if last == b'"' => State::QuoteInQuoted,
            _ => State::FieldStart,
        }
    }
}

#[inline(always)]
pub(super) fn scan_exact<I: Isa>(isa: I, state: State, block: &[u8], delimiter: u8) -> ExactScan {
    let Some(&last) = block.last() else {
        return ExactScan {
            cut: None,
            end: state,
            newlines: 0,
        };
    };
    let mut carry = Carry::from(state);
    let mut cut = Last::default();
    let mut newlines = 0;
    let (chunks, tail) = block.as_chunks::<64>();
    let mut base = 0;
    for chunk in chunks {
        let masks = isa.masks(chunk, delimiter);
        let (structure, _) = carry.structure(isa, masks, chunk, delimiter);
        cut.note(base, structure & masks.newlines);
        newlines += u64::from(masks.newlines.count_ones());
        base += 64;
    }
    if !tail.is_empty() {
        let masks = tail_masks(isa, tail, delimiter);
        let (structure, _) = carry.structure(isa, masks, tail, delimiter);
        cut.note(base, structure & masks.newlines);
        newlines += u64::from(masks.newlines.count_ones());
    }
    ExactScan {
        cut: cut.cut(),
        end: carry.state(last),
        newlines,
    }
}

#[inline(always)]
pub(super) fn index<I: Isa>(isa: I, records: &[u8], delimiter: u8, out: &mut [u32]) -> Indexed {
    // Behind what a `u32` can say there is only "did not fit".
    let addressable = records.get(..u32::MAX as usize).unwrap_or(records);
    let mut pass = IndexPass {
        out,
        count: 0,
        newlines: 0,
        carry: Carry::from(State::FieldStart),
        quotes: 0,
        high: 0,
        clean: true,
        full: false,
    };
    let (chunks, tail) = addressable.as_chunks::<64>();
    let mut base = 0;
    for chunk in chunks {
        pass.block(isa, isa.masks(chunk, delimiter), chunk, base, delimiter);
        if pass.full {
            break;
        }
        base += 64;
    }
    if !tail.is_empty() && !pass.full {
        pass.block(isa, tail_masks(isa, tail, delimiter), tail, base, delimiter);
    }
    let (count, consumed) = if pass.full || addressable.len() < records.len() {
        whole_records(records, &pass.out[..pass.count])
    } else {
        (pass.count, records.len())
    };
    Indexed {
        count,
        consumed,
        newlines: pass.newlines,
        quotes: pass.quotes != 0,
        clean: pass.clean,
        ascii: pass.high == 0,
        open: consumed == records.len() && pass.carry.inside != 0,
    }
}

/// How many of these positions belong to whole records, and the end of the last of these.
#[cold]
fn whole_records(records: &[u8], positions: &[u32]) -> (usize, usize) {
    let ends_record = |&at: &u32| records.get(at as usize) == Some(&b'\n');
    match positions.iter().rposition(ends_record) {
        Some(last) => (last + 1, positions[last] as usize + 1),
        None => (0, 0),
    }
}

struct IndexPass<'o> {
    out: &'o mut [u32],
    count: usize,
    newlines: u64,
    carry: Carry,
    quotes: u64,
    high: u64,
    clean: bool,
    full: bool,
}

impl IndexPass<'_> {
    #[inline(always)]
    fn block<I: Isa>(&mut self, isa: I, masks: Masks, bytes: &[u8], base: usize, delimiter: u8) {
        let (structure, clean) = self.carry.structure(isa, masks, bytes, delimiter);
        self.quotes |= masks.quotes;
        self.high |= masks.high;
        self.clean &= clean;
        self.newlines += u64::from((structure & masks.newlines).count_ones());
        // Lossless: `base` is below `u32::MAX`.
        let base = base as u32;
        match self.out.get_mut(self.count..).and_then(<[u32]>::first_chunk_mut) {
            Some(room) => self.count += put(room, structure, base),
            None => self.put_last(structure, base),
        }
    }

    /// With fewer than 64 slots left: one by one, as long as they fit.
    #[cold]
    fn put_last(&mut self, mut bits: u64, base: u32) {
        while bits != 0 {
            let Some(slot) = self.out.get_mut(self.count) else {
                self.full = true;
                return;
            };
            *slot = base.wrapping_add(bits.trailing_zeros());
            self.count += 1;
            bits &= bits.wrapping_sub(1);
        }
    }
}

/// The positions of the set bits, in order; returns how many. Slots after them get something.
///
/// Eight at a time without asking: a mispredicted branch costs more than eight needless stores.
#[inline(always)]
fn put(room: &mut [u32; 64], mut bits: u64, base: u32) -> usize {
    let count = bits.count_ones() as usize;
    for (group, slots) in room.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        if group * 8 >= count && group > 0 {
            break;
        }
        for slot in slots {
            *slot = base.wrapping_add(bits.trailing_zeros());
            bits &= bits.wrapping_sub(1);
        }
    }
    count
}
