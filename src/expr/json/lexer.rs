//! The bytes of JSON: where strings, numbers and whole values end, and whether they are right.
//!
//! Laws
//! - Nothing recurses and nothing is allocated: a skipped value keeps its open brackets in a bit stack of [`DEEPEST`] bits.
//! - In lines a newline is never passed: it ends the line, whatever is open. In a document (`LINES` is false) it is a blank.
//! - A byte 0 is never passed, and 0 is what is read behind the block.
//! - Memory safety needs nothing from the caller; being right needs zeros behind the text.
#![allow(unsafe_code)]

use crate::expr::scalar::scan::{POWERS, number_of, parse_int, parse_number};

/// How many lists and records may be open at once.
pub(crate) const DEEPEST: usize = 256;

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// No value where one must be.
    Value,
    /// No key in quotes where one must be.
    Key,
    /// No colon behind a key.
    Colon,
    /// Neither comma nor `}`.
    RecordEnd,
    /// Neither comma nor `]`.
    ListEnd,
    /// A control character in a string.
    Control,
    /// A backslash before something else than `"\/bfnrtu`, or `\u` without four hex digits.
    Escape,
    /// Half of a surrogate pair.
    Surrogate,
    Number,
    Deep,
    /// Something behind the record.
    Trailing,
    /// The line is JSON but no record.
    NotRecord,
    Utf8,
    /// A field that the schema does not have.
    Extra,
    /// The arena refused; the error is kept by the decoder.
    Memory,
}

/// Where a line is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bad {
    pub(crate) at: u32,
    pub(crate) wrong: Wrong,
}

#[inline]
pub(crate) fn bad<T>(at: usize, wrong: Wrong) -> Result<T, Bad> {
    Err(Bad { at: at as u32, wrong })
}

/// `value`, in a way that hides from the optimiser that it equals something else.
///
/// Where a position was found by a long chain of instructions and turned out to be the guessed one, what follows can start from the
/// guess before the chain is through; unless the optimiser notices that both are equal and takes the found one after all.
#[inline(always)]
pub(crate) fn unlinked(value: usize) -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut value = value;
        // SAFETY: the text is a comment: no instruction is added, one register is said to change.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    value
}

/// What an integer turned out to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Int {
    Value(i64),
    /// An integer beyond 64 bits.
    Large,
    /// A number with a point or an exponent.
    Float,
}

/// How many of the 8 bytes, from the lowest on, are digits before the first that is none.
#[inline(always)]
fn digit_count(word: u64) -> usize {
    let x = word ^ 0x3030_3030_3030_3030;
    // A byte above 9 sets its high bit; a carry out of it only reaches bytes behind, which do not count.
    let over = (x.wrapping_add(0x7676_7676_7676_7676) | x) & 0x8080_8080_8080_8080;
    (over.trailing_zeros() / 8) as usize
}

/// The number of the first `count` (1 to 8) digits of the word.
#[inline(always)]
fn number_at_front(word: u64, count: usize) -> u64 {
    number_of(word << (64 - 8 * count))
}

/// One bit for each byte that may not stand in a string as it is.
///
/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn special_wide(chunk: &[u8; 32]) -> u32 {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };
    // SAFETY: the caller says that there is AVX2; the load reads the 32 bytes of `chunk`, unaligned.
    unsafe {
        let v = _mm256_loadu_si256(chunk.as_ptr().cast());
        let quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'"' as i8));
        let slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'\\' as i8));
        let control = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1F)), v);
        _mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, slash), control)) as u32
    }
}

/// The position of the first byte from `at` on that may not stand in a JSON string as it is: `"`, `\`, control characters.
#[inline(always)]
pub(crate) fn plain(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let mask = special(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += 16;
    }
    plain_tail(bytes, at)
}

/// Near the end: the rest 16 bytes at a time, then a look at the last 16, of which the first ones are known.
#[inline(never)]
fn plain_tail(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let mask = special(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += 16;
    }
    match bytes.last_chunk::<16>() {
        Some(last) if at < bytes.len() => {
            let mask = special(last) >> (at + 16 - bytes.len());
            if mask == 0 {
                bytes.len()
            } else {
                at + mask.trailing_zeros() as usize
            }
        }
        _ => {
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest
                .iter()
                .position(|&b| b < 0x20 || b == b'"' || b == b'\\')
                .unwrap_or(rest.len())
        }
    }
}

/// One bit for each byte that may not stand in a string as it is.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn special(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: SSE2 is part of x86-64; the load reads the 16 bytes of `chunk`, unaligned.
    unsafe {
        let v = _mm_loadu_si128(chunk.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(v, _mm_set1_epi8(b'"' as i8));
        let slash = _mm_cmpeq_epi8(v, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1F)), v);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control)) as u32
    }
}

/// One bit for each byte that may not stand in a string as it is.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn special(chunk: &[u8; 16]) -> u32 {
    let mut mask = 0;
    for (i, &b) in chunk.iter().enumerate() {
        mask |= u32::from(b < 0x20 || b == b'"' || b == b'\\') << i;
    }
    mask
}

/// One bit for each byte that is a digit.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn digits(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_set1_epi8, _mm_sub_epi8,
    };
    // SAFETY: SSE2 is part of x86-64; the load reads the 16 bytes of `chunk`, unaligned.
    unsafe {
        let v = _mm_sub_epi8(_mm_loadu_si128(chunk.as_ptr().cast()), _mm_set1_epi8(b'0' as i8));
        _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v)) as u32
    }
}

/// One bit for each byte that is a digit.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn digits(chunk: &[u8; 16]) -> u32 {
    let mut mask = 0;
    for (i, &b) in chunk.iter().enumerate() {
        mask |= u32::from(b.is_ascii_digit()) << i;
    }
    mask
}

/// Text to read JSON from, with zeros behind it. `WIDE`: see [`Lexer::wide`].
#[derive(Clone, Copy)]
pub(crate) struct Lexer<'a, const LINES: bool = true, const WIDE: bool = false> {
    block: &'a [u8],
    end: usize,
    /// One more than the last position behind which there are [`FAR`] bytes; 0 if there is none.
    far: usize,
}

/// The most bytes that are read at once.
const FAR: usize = 32;

fn far(block: &[u8]) -> usize {
    (block.len() + 1).saturating_sub(FAR)
}

impl<'a> Lexer<'a> {
    /// Lines: the first `end` bytes of `block` are text, the others zeros.
    pub(crate) fn new(block: &'a [u8], end: usize) -> Self {
        Lexer {
            block,
            end,
            far: far(block),
        }
    }
}

impl<'a> Lexer<'a, true, true> {
    /// As [`Lexer::new`], if the machine has AVX2, BMI1, BMI2 and LZCNT: such a lexer is the proof that it does.
    pub(crate) fn wide(block: &'a [u8], end: usize) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt");
        #[cfg(not(target_arch = "x86_64"))]
        let has = false;
        has.then_some(Lexer {
            block,
            end,
            far: far(block),
        })
    }
}

/// Whether `text` is one JSON value, over as many lines as it likes (RFC 8259, no lone surrogates, [`DEEPEST`] levels).
pub(crate) fn is_document(text: &[u8]) -> bool {
    let lex = Lexer::<false> {
        block: text,
        end: text.len(),
        far: far(text),
    };
    // What is behind the text reads as 0, which ends everything.
    lex.skip(lex.blanks(0), 0).is_ok_and(|end| lex.blanks(end) == lex.end)
}

impl<'a, const LINES: bool, const WIDE: bool> Lexer<'a, LINES, WIDE> {
    #[inline(always)]
    fn plain(&self, mut at: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            while let Some(chunk) = self.chunk::<32>(at) {
                // SAFETY: only `wide` makes such a lexer, and only where there is AVX2.
                let mask = unsafe { special_wide(chunk) };
                if mask != 0 {
                    return at + mask.trailing_zeros() as usize;
                }
                at += 32;
            }
            return plain_tail(self.block, at);
        }
        while let Some(chunk) = self.chunk::<16>(at) {
            let mask = special(chunk);
            if mask != 0 {
                return at + mask.trailing_zeros() as usize;
            }
            at += 16;
        }
        plain_tail(self.block, at)
    }

    /// The same text for functions that are not compiled for such a machine: there wide instructions would be calls.
    pub(crate) fn narrow(self) -> Lexer<'a, LINES> {
        Lexer {
            block: self.block,
            end: self.end,
            far: self.far,
        }
    }

    pub(crate) fn block(&self) -> &'a [u8] {
        self.block
    }

    /// The bytes `from..to`.
    #[inline(always)]
    pub(crate) fn text(&self, from: usize, to: usize) -> &'a [u8] {
        self.block.get(from..to).unwrap_or_default()
    }

    #[inline(always)]
    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.block.get(at).copied().unwrap_or(0)
    }

    /// The `N` bytes at `at`, if [`FAR`] bytes are there: one comparison.
    #[inline(always)]
    fn chunk<const N: usize>(&self, at: usize) -> Option<&'a [u8; N]> {
        const { assert!(N <= FAR) };
        if at < self.far {
            // SAFETY: `at < far` means `at + FAR <= block.len()`, and N is at most FAR.
            Some(unsafe { &*self.block.as_ptr().add(at).cast::<[u8; N]>() })
        } else {
            None
        }
    }

    #[inline(always)]
    fn eight(&self, at: usize) -> u64 {
        match self.chunk::<8>(at) {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => self.sixteen_behind(at) as u64,
        }
    }

    /// 16 bytes as a number, the first the lowest.
    #[inline(always)]
    pub(crate) fn sixteen(&self, at: usize) -> u128 {
        match self.chunk::<16>(at) {
            Some(bytes) => u128::from_le_bytes(*bytes),
            None => self.sixteen_behind(at),
        }
    }

    #[inline(never)]
    fn sixteen_behind(&self, at: usize) -> u128 {
        (0..16).fold(0, |v, i| v | u128::from(self.byte(at + i)) << (8 * i))
    }

    /// Behind blanks, tabs and carriage returns; in a document newlines, too.
    #[inline(always)]
    pub(crate) fn blanks(&self, at: usize) -> usize {
        if self.byte(at) > b' ' { at } else { self.more_blanks(at) }
    }

    #[inline]
    fn more_blanks(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\t' | b'\r') || (!LINES && self.byte(at) == b'\n') {
            at += 1;
        }
        at
    }

    /// The closing quote of the string whose first character is at `at`, and whether it has escapes. All are checked.
    #[inline(always)]
    pub(crate) fn string(&self, at: usize) -> Result<(usize, bool), Bad> {
        let at = self.plain(at);
        if self.byte(at) == b'"' {
            return Ok((at, false));
        }
        self.escaped_string(at)
    }

    #[inline(never)]
    fn escaped_string(&self, mut at: usize) -> Result<(usize, bool), Bad> {
        loop {
            match self.byte(at) {
                b'"' => return Ok((at, true)),
                b'\\' => at = plain(self.block, self.escape(at)?),
                _ => return bad(at, Wrong::Control),
            }
        }
    }

    /// Behind the escape at `at`.
    #[inline(always)]
    fn escape(&self, at: usize) -> Result<usize, Bad> {
        match self.byte(at + 1) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
            b'u' => match self.hex(at + 2) {
                Some(0xD800..0xDC00) => {
                    let low = (self.text(at + 6, at + 8) == b"\\u")
                        .then(|| self.hex(at + 8))
                        .flatten();
                    if matches!(low, Some(0xDC00..0xE000)) {
                        Ok(at + 12)
                    } else {
                        bad(at, Wrong::Surrogate)
                    }
                }
                Some(0xDC00..0xE000) => bad(at, Wrong::Surrogate),
                Some(_) => Ok(at + 6),
                None => bad(at, Wrong::Escape),
            },
            _ => bad(at, Wrong::Escape),
        }
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let mut value = 0;
        for i in 0..4 {
            value = value << 4 | char::from(self.byte(at + i)).to_digit(16)?;
        }
        Some(value)
    }

    /// Behind the digits at `at`.
    #[inline(always)]
    fn digits(&self, mut at: usize) -> usize {
        loop {
            let count = digit_count(self.eight(at));
            at += count;
            if count < 8 {
                return at;
            }
        }
    }

    /// Behind the number at `at`.
    #[inline(always)]
    pub(crate) fn number(&self, at: usize) -> Result<usize, Bad> {
        let from = at + usize::from(self.byte(at) == b'-');
        let mut end = self.digits(from);
        if end == from || (end > from + 1 && self.byte(from) == b'0') {
            return bad(at, Wrong::Number);
        }
        if self.byte(end) == b'.' {
            let fraction = end + 1;
            end = self.digits(fraction);
            if end == fraction {
                return bad(at, Wrong::Number);
            }
        }
        if self.byte(end) | 0x20 == b'e' {
            let power = end + 1 + usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            end = self.digits(power);
            if end == power {
                return bad(at, Wrong::Number);
            }
        }
        Ok(end)
    }

    /// Behind the number at `at`, and its value as an integer.
    #[inline(always)]
    pub(crate) fn int(&self, at: usize) -> Result<(usize, Int), Bad> {
        let negative = self.byte(at) == b'-';
        let from = at + usize::from(negative);
        let word = self.eight(from);
        let count = digit_count(word);
        if (1..8).contains(&count) && (word as u8 != b'0' || count == 1) {
            let end = from + count;
            let behind = self.byte(end);
            if behind != b'.' && behind | 0x20 != b'e' {
                let value = number_at_front(word, count) as i64;
                return Ok((end, Int::Value(if negative { -value } else { value })));
            }
        }
        self.long_int(at)
    }

    #[inline(never)]
    fn long_int(&self, at: usize) -> Result<(usize, Int), Bad> {
        let end = self.number(at)?;
        let text = self.text(at, end);
        let int = match parse_int(text) {
            Some(value) => Int::Value(value),
            None if text.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => Int::Float,
            None => Int::Large,
        };
        Ok((end, int))
    }

    /// Behind the number at `at`, and the nearest float, if one is near.
    #[inline(always)]
    pub(crate) fn float(&self, at: usize) -> Result<(usize, Option<f64>), Bad> {
        let negative = self.byte(at) == b'-';
        let from = at + usize::from(negative);
        let word = self.eight(from);
        let count = digit_count(word);
        if (1..8).contains(&count) && (word as u8 != b'0' || count == 1) {
            let sign = if negative { -1.0 } else { 1.0 };
            let whole = number_at_front(word, count);
            let mut end = from + count;
            if self.byte(end) == b'.' {
                let word = self.eight(end + 1);
                let count = digit_count(word);
                end += 1 + count;
                if (1..8).contains(&count) && self.byte(end) | 0x20 != b'e' {
                    // At most 14 digits: mantissa and power are exact, the division rounds once.
                    const WHOLE: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
                    let mantissa = whole * WHOLE[count & 7] + number_at_front(word, count);
                    return Ok((end, Some(sign * (mantissa as f64 / POWERS[count & 7]))));
                }
            } else if self.byte(end) | 0x20 != b'e' {
                return Ok((end, Some(sign * whole as f64)));
            }
        }
        let end = self.number(at)?;
        Ok((end, parse_number(self.text(at, end))))
    }

    /// Behind `word`, if it stands at `at`.
    #[inline(always)]
    pub(crate) fn literal(&self, at: usize, word: &[u8]) -> Result<usize, Bad> {
        if self.text(at, at + word.len()) == word {
            Ok(at + word.len())
        } else {
            bad(at, Wrong::Value)
        }
    }

    /// Behind the value at `at`, which stands in `depth` open lists and records.
    #[inline(always)]
    pub(crate) fn skip(&self, at: usize, depth: usize) -> Result<usize, Bad> {
        match self.byte(at) {
            b'"' => Ok(self.string(at + 1)?.0 + 1),
            b'-' | b'0'..=b'9' => self.number(at),
            b'{' | b'[' => self.skip_nested(at, depth),
            b't' => self.literal(at, b"true"),
            b'f' => self.literal(at, b"false"),
            b'n' => self.literal(at, b"null"),
            _ => bad(at, Wrong::Value),
        }
    }

    /// From a key to its value.
    #[inline(always)]
    fn key(&self, at: usize) -> Result<usize, Bad> {
        if self.byte(at) != b'"' {
            return bad(at, Wrong::Key);
        }
        let end = self.string(at + 1)?.0;
        self.colon(end + 1)
    }

    /// From behind a key to its value.
    #[inline(always)]
    pub(crate) fn colon(&self, at: usize) -> Result<usize, Bad> {
        let at = self.blanks(at);
        if self.byte(at) != b':' {
            return bad(at, Wrong::Colon);
        }
        Ok(self.blanks(at + 1))
    }

    #[inline(never)]
    fn skip_nested(&self, at: usize, depth: usize) -> Result<usize, Bad> {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: a wide lexer is the proof that the machine has all of these.
            return unsafe { self.skip_nested_wide(at, depth) };
        }
        self.skip_nested_body(at, depth)
    }

    /// # Safety
    /// The machine has what is enabled here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    unsafe fn skip_nested_wide(&self, at: usize, depth: usize) -> Result<usize, Bad> {
        self.skip_nested_body(at, depth)
    }

    #[inline(always)]
    fn skip_nested_body(&self, mut at: usize, depth: usize) -> Result<usize, Bad> {
        // Bit i: the i-th open bracket from here on is a record's.
        let mut kinds = [0u64; DEEPEST / 64];
        let mut open = 0;
        loop {
            // At a value.
            let first = self.byte(at);
            if matches!(first, b'{' | b'[') {
                if depth + open >= DEEPEST {
                    return bad(at, Wrong::Deep);
                }
                let record = first == b'{';
                let word = &mut kinds[open / 64 % kinds.len()];
                *word = *word & !(1 << (open % 64)) | u64::from(record) << (open % 64);
                at = self.blanks(at + 1);
                if self.byte(at) != if record { b'}' } else { b']' } {
                    open += 1;
                    if record {
                        at = self.key(at)?;
                    }
                    continue;
                }
                at += 1;
            } else {
                at = match first {
                    b'"' => self.string(at + 1)?.0 + 1,
                    b'-' | b'0'..=b'9' => self.number(at)?,
                    b't' => self.literal(at, b"true")?,
                    b'f' => self.literal(at, b"false")?,
                    b'n' => self.literal(at, b"null")?,
                    _ => return bad(at, Wrong::Value),
                };
            }
            // Behind a value.
            loop {
                if open == 0 {
                    return Ok(at);
                }
                at = self.blanks(at);
                let record = kinds[(open - 1) / 64 % kinds.len()] >> ((open - 1) % 64) & 1 == 1;
                match (self.byte(at), record) {
                    (b',', true) => {
                        at = self.key(self.blanks(at + 1))?;
                        break;
                    }
                    (b',', false) => {
                        at = self.blanks(at + 1);
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        at += 1;
                        open -= 1;
                    }
                    (_, true) => return bad(at, Wrong::RecordEnd),
                    (_, false) => return bad(at, Wrong::ListEnd),
                }
            }
        }
    }

    /// The end of the line that begins at `at` (its newline, or the end of the text), if it holds one record.
    pub(crate) fn line(&self, at: usize) -> Result<usize, Bad> {
        let at = self.blanks(at);
        let first = self.byte(at);
        let end = self.skip(at, 0)?;
        if first != b'{' {
            return bad(at, Wrong::NotRecord);
        }
        self.line_end(end)
    }

    /// The newline or end of the text behind the blanks at `at`.
    #[inline(always)]
    pub(crate) fn line_end(&self, at: usize) -> Result<usize, Bad> {
        let at = self.blanks(at);
        if self.byte(at) == b'\n' || at >= self.end {
            Ok(at)
        } else {
            bad(at, Wrong::Trailing)
        }
    }
}

/// Writes the text of a checked string without its escapes; gives its length. `out` is at least as long as `raw`.
pub(crate) fn unescape(raw: &[u8], out: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    let digit = |b: u8| char::from(b).to_digit(16).unwrap_or(0);
    let four = |at: usize| {
        raw.get(at..at + 4)
            .unwrap_or_default()
            .iter()
            .fold(0, |v, &b| v << 4 | digit(b))
    };
    while from < raw.len() {
        let run = memchr::memchr(b'\\', &raw[from..]).unwrap_or(raw.len() - from);
        out[to..to + run].copy_from_slice(&raw[from..from + run]);
        from += run;
        to += run;
        let Some(&escape) = raw.get(from + 1) else { break };
        from += 2;
        out[to] = match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = four(from);
                from += 4;
                if (0xD800..0xDC00).contains(&code) {
                    code = 0x10000 + ((code - 0xD800) << 10) + four(from + 2).wrapping_sub(0xDC00);
                    from += 6;
                }
                let mut buffer = [0; 4];
                let text = char::from_u32(code)
                    .unwrap_or(char::REPLACEMENT_CHARACTER)
                    .encode_utf8(&mut buffer);
                out[to..to + text.len()].copy_from_slice(text.as_bytes());
                to += text.len();
                continue;
            }
            other => other,
        };
        to += 1;
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_one_value() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for (text, good) in [
            ("{\n \"a\" : [1,\r\n\t-2.5e3, null], \"b\": {}\n}\n", true),
            (" \"\u{e9}\\u00e9\\n\" ", true),
            ("0", true),
            (&deep(DEEPEST), true),
            (&deep(DEEPEST + 1), false),
            (&deep(100_000), false),
            ("", false),
            ("\n", false),
            ("1 2", false),
            ("1\n2", false),
            ("[1,]", false),
            ("{\"a\":1", false),
            ("\"\n\"", false),
            ("\"\\ud83d\"", false),
            ("01", false),
            ("nan", false),
            ("[1]\0", false),
            ("\0", false),
        ] {
            assert_eq!(is_document(text.as_bytes()), good, "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn documents_are_those_of_serde(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"\\n\"", "1", "-0.5e7", "true", "null", " ", "\n", "\"", "x", "0",
            ]), 0..9),
        ) {
            let text = parts.concat();
            let want = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_document(text.as_bytes()), want, "{}", text);
        }
    }
}
