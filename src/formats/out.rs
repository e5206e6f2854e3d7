//! Encoded bytes on their way to a file: a buffer that a lane uses again and again.
//!
//! Laws
//! - What a value needs is reserved, and may be refused, before it is written; writing itself never allocates.
//! - The memory behind what is written is initialised, so a write of a fixed number of bytes, of which only the first count, is two
//!   instructions and no `unsafe`.

use crate::expr::scalar::print::Put;
use standpipe_sdk::{Error, Result};

/// See the module.
#[derive(Default, Debug)]
pub struct Out {
    /// All of it initialised.
    room: Vec<u8>,
    len: usize,
}

impl Out {
    /// Nothing written, no room.
    pub const fn new() -> Self {
        Out {
            room: Vec::new(),
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is written.
    pub fn as_slice(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Room for `bytes` more.
    ///
    /// # Errors
    /// `Memory` if there is none; nothing changes then.
    #[inline(always)]
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.room.len() - self.len >= bytes {
            return Ok(());
        }
        self.grow(bytes)
    }

    #[cold]
    fn grow(&mut self, bytes: usize) -> Result<()> {
        const FIRST: usize = 4 << 10;
        let (used, limit) = (self.len, self.room.len());
        let refused = |_| Error::Memory {
            wanted: bytes,
            used,
            limit,
        };
        let wanted = self.len.saturating_add(bytes);
        let wanted = wanted.max(self.room.len().saturating_mul(2)).max(FIRST);
        self.room.try_reserve_exact(wanted - self.room.len()).map_err(refused)?;
        self.room.resize(wanted, 0);
        Ok(())
    }

    /// Appends one byte. Panics if it was not reserved, as do the others.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.room[self.len] = byte;
        self.len += 1;
    }

    /// Appends bytes.
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.room[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Appends the first `len` of `bytes`; all `N` must have been reserved.
    #[inline(always)]
    pub fn extend_fixed<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        debug_assert!(len <= N);
        self.room[self.len..self.len + N].copy_from_slice(bytes);
        self.len += len;
    }
}

impl Put for Out {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_and_nothing_else() {
        let mut out = Out::new();
        out.reserve(40).unwrap();
        out.push(b'a');
        out.extend(b"bcd");
        out.extend_fixed(b"efghijklmnopqrst", 2);
        assert_eq!(out.as_slice(), b"abcdef");
        out.truncate(2);
        out.extend(b"x");
        assert_eq!((out.as_slice(), out.len()), (&b"abx"[..], 3));
        out.reserve(100_000).unwrap();
        assert_eq!(out.as_slice(), b"abx");
        assert!(out.reserve(usize::MAX).is_err());
        out.clear();
        assert!(out.is_empty());
    }
}
