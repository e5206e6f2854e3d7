//! Bitmaps: validity of a column, values of a bool column.
//!
//! Laws
//! - Arrow's layout: bit `i` is bit `i % 8` of byte `i / 8`, least significant first, in 64-bit little-endian words.
//! - Bits behind the end may be anything; every reader masks them.

use crate::arena::Arena;
use crate::error::Result;

#[cfg(target_endian = "big")]
compile_error!("bitmaps and string views are laid out for little-endian machines");

/// `len` bits starting at bit `offset` of `words`.
#[derive(Clone, Copy, Debug)]
pub struct Bits<'a> {
    words: &'a [u64],
    offset: usize,
    len: usize,
}

impl<'a> Bits<'a> {
    /// The first `len` bits of `words`. Panics if there are fewer.
    pub fn new(words: &'a [u64], len: usize) -> Self {
        assert!(
            len <= words.len() * 64,
            "a bitmap of {len} bits needs more words than {}",
            words.len()
        );
        Bits { words, offset: 0, len }
    }

    /// A bitmap whose bit `i` is `bit(i)`.
    pub fn collect(arena: &'a Arena, len: usize, mut bit: impl FnMut(usize) -> bool) -> Result<Self> {
        let words = arena.collect(len.div_ceil(64), |w| {
            let mut word = 0u64;
            for b in 0..(len - w * 64).min(64) {
                word |= u64::from(bit(w * 64 + b)) << b;
            }
            word
        })?;
        Ok(Bits { words, offset: 0, len })
    }

    /// A bitmap whose 64-bit word `w` is `word(w)`.
    pub fn collect_words(arena: &'a Arena, len: usize, word: impl FnMut(usize) -> u64) -> Result<Self> {
        Ok(Bits {
            words: arena.collect(len.div_ceil(64), word)?,
            offset: 0,
            len,
        })
    }

    /// `len` bits that are all `bit`.
    pub fn all(arena: &'a Arena, len: usize, bit: bool) -> Result<Self> {
        Bits::collect_words(arena, len, |_| if bit { u64::MAX } else { 0 })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of 64-bit words that hold the bits.
    pub fn words(&self) -> usize {
        self.len.div_ceil(64)
    }

    /// Bit `row`. Panics if it is behind the end of the words.
    #[inline]
    pub fn get(&self, row: usize) -> bool {
        debug_assert!(row < self.len);
        let bit = self.offset + row;
        self.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// The words as they lie in memory, if the first bit is the first one of the first word.
    pub fn as_words(&self) -> Option<&'a [u64]> {
        (self.offset == 0).then_some(self.words)
    }

    /// Bits `64 * w ..` as a word; bits behind the end are 0.
    #[inline]
    pub fn word(&self, w: usize) -> u64 {
        let bit = self.offset + w * 64;
        let (at, shift) = (bit / 64, bit % 64);
        let mut word = self.words[at] >> shift;
        if shift > 0
            && let Some(next) = self.words.get(at + 1)
        {
            word |= next << (64 - shift);
        }
        let left = self.len - w * 64;
        if left < 64 { word & ((1 << left) - 1) } else { word }
    }

    /// `len` bits from bit `from` on. Panics if there are fewer.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        assert!(from + len <= self.len, "bits {from}..{} of {}", from + len, self.len);
        Bits {
            words: self.words,
            offset: self.offset + from,
            len,
        }
    }

    /// How many bits are 1.
    pub fn count(&self) -> usize {
        (0..self.words()).map(|w| self.word(w).count_ones() as usize).sum()
    }

    pub fn is_all(&self) -> bool {
        self.count() == self.len
    }

    /// The positions of the 1 bits, ascending.
    pub fn ones(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.words()).flat_map(move |w| {
            let mut word = self.word(w);
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let b = word.trailing_zeros() as usize;
                word &= word - 1;
                Some(w * 64 + b)
            })
        })
    }

    /// The positions of the 1 bits, as indices for [`crate::Column::gather`].
    pub fn indices(&self, arena: &'a Arena) -> Result<&'a [u32]> {
        let mut out = arena.uninit::<u32>(self.count())?;
        let mut at = 0;
        for w in 0..self.words() {
            let mut word = self.word(w);
            while word != 0 {
                out[at].write((w * 64) as u32 + word.trailing_zeros());
                at += 1;
                word &= word - 1;
            }
        }
        Ok(out.finish(at))
    }

    /// Bits that are 1 in both.
    pub fn and(&self, other: &Bits<'_>, arena: &'a Arena) -> Result<Self> {
        Bits::collect_words(arena, self.len, |w| self.word(w) & other.word(w))
    }

    /// Bits that are 1 in either.
    pub fn or(&self, other: &Bits<'_>, arena: &'a Arena) -> Result<Self> {
        Bits::collect_words(arena, self.len, |w| self.word(w) | other.word(w))
    }

    /// Bits that are 1 here and 0 in `other`.
    pub fn and_not(&self, other: &Bits<'_>, arena: &'a Arena) -> Result<Self> {
        Bits::collect_words(arena, self.len, |w| self.word(w) & !other.word(w))
    }

    /// Every bit turned round.
    pub fn not(&self, arena: &'a Arena) -> Result<Self> {
        Bits::collect_words(arena, self.len, |w| !self.word(w))
    }
}

/// The validity of a row that needs both inputs: 1 where both are valid; `None` means all valid.
pub fn both<'a>(a: Option<Bits<'a>>, b: Option<Bits<'a>>, arena: &'a Arena) -> Result<Option<Bits<'a>>> {
    Ok(match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) => Some(a.and(&b, arena)?),
    })
}
