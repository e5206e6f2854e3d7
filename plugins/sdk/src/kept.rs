//! Batches that outlive their chunk, in memory of their own.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::batch::Batch;
use crate::error::Result;

/// A batch and the arena it lives in.
///
/// Invariant: `batch` borrows only from `*arena`, which is boxed (never moves), is never reset or written to again, and is
/// dropped with it.
pub struct Kept {
    batch: Batch<'static>,
    bytes: usize,
    _arena: Box<Arena>,
}

impl Kept {
    /// A copy of `batch` of at most `limit` bytes; [`Batch::copy_bytes`] is the limit that fits.
    ///
    /// # Errors
    /// `Memory` if the copy needs more.
    pub fn copy(batch: &Batch<'_>, limit: usize) -> Result<Kept> {
        Kept::make(limit, |arena| batch.copy_to(arena))
    }

    /// What `make` makes in an arena of `limit` bytes.
    ///
    /// # Errors
    /// `Memory` if there is no such arena, and what `make` answers.
    pub fn make<E: From<crate::Error>>(
        limit: usize,
        make: impl for<'a> FnOnce(&'a Arena) -> Result<Batch<'a>, E>,
    ) -> Result<Kept, E> {
        let arena = Box::new(Arena::with_room(limit)?);
        let made = make(&arena)?;
        // SAFETY: only the lifetime changes. `make` works for every lifetime `'a`, so what it gives borrows from `*arena` alone (or
        // from what is there for ever); the box keeps that at one address as long as `batch` exists, nothing else can reach the
        // arena, and `Kept::batch` hands the batch out only under `&self`.
        let batch = unsafe { std::mem::transmute::<Batch<'_>, Batch<'static>>(made) };
        Ok(Kept {
            batch,
            bytes: arena.used(),
            _arena: arena,
        })
    }

    /// The batch; borrowed from `self`.
    pub fn batch(&self) -> Batch<'_> {
        self.batch
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

// SAFETY: `&Kept` gives out the batch, which is plain shared data, and a number; the arena, whose cells are not `Sync`, cannot
// be reached through it.
unsafe impl Sync for Kept {}
