//! A row that `top` keeps, and how it compares.

use super::super::bounds::Rank;
use super::super::copies::Located;
use super::super::groups::refused;
use super::super::spiller::Held;
use standpipe_sdk::error::Result;
use standpipe_sdk::interleave::Pick;
use std::cmp::Ordering;

/// Bytes of a key that an entry holds itself: two numbers with their tags, and more.
pub(super) const PREFIX_BYTES: usize = 24;

/// A row that is kept: its key, where it came from, where it is.
pub(super) struct Entry {
    pub(super) prefix: [u64; PREFIX_BYTES / 8],
    /// What the key has behind the prefix.
    pub(super) tail: Vec<u8>,
    pub(super) chunk: u64,
    pub(super) row: u32,
    pub(super) at: Pick,
}

impl Entry {
    pub(super) fn cmp(&self, other: &Entry) -> Ordering {
        self.compare_key(&other.prefix, &other.tail)
            .then_with(|| (self.chunk, self.row).cmp(&(other.chunk, other.row)))
    }

    pub(super) fn compare_key(&self, prefix: &[u64; PREFIX_BYTES / 8], tail: &[u8]) -> Ordering {
        self.prefix.cmp(prefix).then_with(|| (*self.tail).cmp(tail))
    }

    pub(super) fn rank(&self) -> Rank {
        rank(self.prefix, &self.tail, (self.chunk, self.row))
    }

    /// The whole key, with zeros behind a short one.
    pub(super) fn key(&self, out: &mut Vec<u8>) -> Result<()> {
        let bytes = PREFIX_BYTES + self.tail.len();
        out.try_reserve(bytes).map_err(|_| refused(bytes))?;
        self.prefix
            .iter()
            .for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        out.extend_from_slice(&self.tail);
        Ok(())
    }
}

/// No key begins with another: keys of the same first bytes are one key, unless something stands behind these.
pub(super) fn rank(prefix: [u64; PREFIX_BYTES / 8], tail: &[u8], order: (u64, u32)) -> Rank {
    if tail.is_empty() {
        Rank { prefix, order }
    } else {
        Rank::behind(prefix)
    }
}

pub(super) fn is_worse(a: &Entry, b: &Entry) -> bool {
    a.cmp(b) == Ordering::Greater
}

impl Located for Entry {
    fn at(&self) -> Pick {
        self.at
    }

    fn set(&mut self, at: Pick) {
        self.at = at;
    }
}

impl Held for Entry {
    fn order(&self) -> (u64, u32) {
        (self.chunk, self.row)
    }

    fn number(&self) -> Option<i64> {
        None
    }
}

/// The first bytes of a key as numbers that order like them.
pub(super) fn prefix_of(head: &[u8]) -> [u64; PREFIX_BYTES / 8] {
    let mut bytes = [0u8; PREFIX_BYTES];
    bytes[..head.len()].copy_from_slice(head);
    let (words, _) = bytes.as_chunks::<8>();
    let mut prefix = [0; PREFIX_BYTES / 8];
    for (to, word) in prefix.iter_mut().zip(words) {
        *to = u64::from_be_bytes(*word);
    }
    prefix
}
