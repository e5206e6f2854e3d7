//! Bump allocation for one chunk.
//!
//! Laws
//! - Memory never moves: a slice handed out stays valid until `reset`, and `reset` takes `&mut`.
//! - `used` only grows between resets, and is what the budget is charged for.
//! - Nothing with a `Drop` impl goes in: the arena frees bytes, not values. `hold` keeps shared values alive beside it.
//! - Every allocation is aligned to 64 bytes and may be refused.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::ffi::Call;
use bumpalo::Bump;
use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Alignment of every allocation, in bytes.
pub const ALIGN: usize = 64;
/// What a poisoned arena is filled with after a reset.
pub const POISON: u8 = 0xA5;

/// The memory of one chunk.
pub struct Arena {
    bump: Bump,
    used: Cell<usize>,
    limit: usize,
    peak: usize,
    held: RefCell<Vec<Arc<dyn Any + Send + Sync>>>,
    poison: bool,
    /// Test hook: allocations left until one is refused; `usize::MAX` = never.
    refuse_after: Cell<usize>,
    /// The memory is a host's, who takes it back.
    lender: Option<Lender>,
}

/// A host that lends memory for the time of a call.
#[derive(Clone, Copy)]
struct Lender {
    alloc: unsafe extern "C" fn(*const Call, usize) -> *mut c_void,
    call: *const Call,
}

// SAFETY: the call and its memory belong to one thread. An arena with a lender is a local of the function that the host called
// (`Arena::lent` demands it), and what borrows from an arena cannot leave its thread, since an arena is not `Sync`.
unsafe impl Send for Lender {}

impl Arena {
    /// An arena that hands out at most `limit` bytes between two resets.
    pub fn new(limit: usize) -> Self {
        Arena {
            bump: Bump::new(),
            used: Cell::new(0),
            limit,
            peak: 0,
            held: RefCell::default(),
            poison: false,
            refuse_after: Cell::new(usize::MAX),
            lender: None,
        }
    }

    /// An arena whose memory is that of a call: it stays where it is when the arena goes, and the host takes it back.
    ///
    /// # Safety
    /// `call` is a call that lasts, and the arena is dropped, on this thread, before it ends. It is not `reset`.
    pub(crate) unsafe fn lent(call: *const Call) -> Self {
        let mut arena = Arena::new(usize::MAX);
        // SAFETY: the caller's promise: a call, with a host.
        let alloc = unsafe { (*(*call).host).alloc };
        arena.lender = Some(Lender { alloc, call });
        arena
    }

    /// Whether values are held that go when the arena goes.
    pub(crate) fn holds(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    /// An arena of `limit` bytes that takes its memory now, in one block.
    ///
    /// # Errors
    /// `Memory` if the system has no block of that size.
    pub fn with_room(limit: usize) -> Result<Self> {
        let refused = |_| Error::Memory {
            wanted: limit,
            used: 0,
            limit,
        };
        let mut arena = Arena::new(limit);
        arena.bump = Bump::try_with_capacity(limit.saturating_add(ALIGN)).map_err(refused)?;
        Ok(arena)
    }

    /// Test hook: overwrite all memory on every reset, so that a value kept too long is seen.
    pub fn set_poison(&mut self, on: bool) {
        self.poison = on;
    }

    /// Test hook: refuse the allocation after the next `allocations`.
    pub fn refuse_after(&self, allocations: usize) {
        self.refuse_after.set(allocations);
    }

    /// Bytes handed out since the last reset.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// The most bytes ever handed out between two resets.
    pub fn peak(&self) -> usize {
        self.peak.max(self.used.get())
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the limit; what is handed out already stays.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn raw(&self, layout: Layout) -> Result<std::ptr::NonNull<u8>> {
        let size = layout.size().checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
        let refused = || Error::Memory {
            wanted: size,
            used: self.used.get(),
            limit: self.limit,
        };
        let used = self.used.get().checked_add(size).ok_or_else(refused)?;
        if used > self.limit {
            return Err(refused());
        }
        match self.refuse_after.get() {
            usize::MAX => {}
            0 => {
                self.refuse_after.set(usize::MAX);
                return Err(refused());
            }
            n => self.refuse_after.set(n - 1),
        }
        if let Some(lender) = self.lender {
            // SAFETY: the call lasts, and this is its thread: the promise to `lent`.
            let memory = unsafe { (lender.alloc)(lender.call, size) }.cast::<u8>();
            let memory = std::ptr::NonNull::new(memory).filter(|memory| memory.addr().get() % ALIGN == 0);
            self.used.set(used);
            return memory.ok_or_else(refused);
        }
        let layout = Layout::from_size_align(size, ALIGN).map_err(|_| refused())?;
        let memory = self.bump.try_alloc_layout(layout).map_err(|_| refused())?;
        self.used.set(used);
        Ok(memory)
    }

    /// Room for `len` values, to be written and then finished.
    #[allow(clippy::mut_from_ref)] // each call hands out memory of its own
    pub fn uninit<T: Copy>(&self, len: usize) -> Result<Uninit<'_, T>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        if len == 0 {
            return Ok(Uninit { slots: &mut [] });
        }
        if size_of::<T>() == 0 {
            // SAFETY: values without a size take no memory, so any aligned address holds `len` of them.
            let slots = unsafe { std::slice::from_raw_parts_mut(std::ptr::NonNull::dangling().as_ptr(), len) };
            return Ok(Uninit { slots });
        }
        let layout = Layout::array::<T>(len).map_err(|_| Error::Memory {
            wanted: usize::MAX,
            used: self.used(),
            limit: self.limit,
        })?;
        let memory = self.raw(layout)?.cast::<MaybeUninit<T>>();
        // SAFETY: `memory` is aligned to 64 >= align_of::<T>(), holds `len` slots, is lent to nobody else, and stays valid
        // until `reset`, which needs `&mut self` and so cannot happen while the returned borrow of `self` lives.
        let slots = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) };
        Ok(Uninit { slots })
    }

    /// `len` values, the i-th being `f(i)`.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub fn collect<T: Copy>(&self, len: usize, mut f: impl FnMut(usize) -> T) -> Result<&mut [T]> {
        let out = self.uninit::<T>(len)?;
        for (i, slot) in out.slots.iter_mut().enumerate() {
            slot.write(f(i));
        }
        Ok(out.finish_mut(len))
    }

    /// `f` of every value.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub fn map<A: Copy, T: Copy>(&self, a: &[A], mut f: impl FnMut(A) -> T) -> Result<&mut [T]> {
        let out = self.uninit::<T>(a.len())?;
        for (slot, &a) in out.slots.iter_mut().zip(a) {
            slot.write(f(a));
        }
        Ok(out.finish_mut(a.len()))
    }

    /// `f` of every pair of values; as many as the shorter slice has.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub fn map2<A: Copy, B: Copy, T: Copy>(&self, a: &[A], b: &[B], mut f: impl FnMut(A, B) -> T) -> Result<&mut [T]> {
        let len = a.len().min(b.len());
        let out = self.uninit::<T>(len)?;
        for ((slot, &a), &b) in out.slots.iter_mut().zip(a).zip(b) {
            slot.write(f(a, b));
        }
        Ok(out.finish_mut(len))
    }

    /// `len` copies of `value`.
    #[allow(clippy::mut_from_ref)]
    pub fn fill<T: Copy>(&self, len: usize, value: T) -> Result<&mut [T]> {
        self.collect(len, |_| value)
    }

    /// A copy of `values`.
    #[allow(clippy::mut_from_ref)]
    pub fn copy<T: Copy>(&self, values: &[T]) -> Result<&mut [T]> {
        let out = self.uninit::<T>(values.len())?;
        out.slots.copy_from_slice(as_uninit(values));
        Ok(out.finish_mut(values.len()))
    }

    /// A copy of `text`.
    pub fn copy_str(&self, text: &str) -> Result<&str> {
        let bytes = self.copy(text.as_bytes())?;
        // SAFETY: the bytes are a copy of a `str`.
        Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
    }

    /// One value.
    #[allow(clippy::mut_from_ref)]
    pub fn one<T: Copy>(&self, value: T) -> Result<&mut T> {
        match self.fill(1, value)? {
            [one] => Ok(one),
            // Only a zero-sized T gets here, and those are not kept.
            _ => Err(Error::Memory {
                wanted: 0,
                used: self.used(),
                limit: self.limit,
            }),
        }
    }

    /// Keeps a shared value alive until the next reset.
    pub fn hold<T: Send + Sync + 'static>(&self, value: Arc<T>) -> &T {
        let pointer = Arc::as_ptr(&value);
        self.held.borrow_mut().push(value);
        // SAFETY: the Arc just stored keeps the value alive and unmoved until `held` is cleared, which only `reset` and drop
        // do; both need the borrow of `self` that the result carries to be over.
        unsafe { &*pointer }
    }

    /// Takes everything back. All memory stays for the next chunk, in one block.
    pub fn reset(&mut self) {
        self.peak = self.peak.max(self.used.get());
        self.held.get_mut().clear();
        if self.poison {
            // SAFETY: `&mut self` proves that nothing borrows from the arena; the ranges are the allocated parts of its blocks.
            for (start, len) in unsafe { self.bump.iter_allocated_chunks_raw() } {
                // SAFETY: `start..start + len` is memory of a block that nothing borrows any more.
                unsafe { std::ptr::write_bytes(start, POISON, len) };
            }
        }
        let blocks = {
            let mut chunks = self.bump.iter_allocated_chunks();
            chunks.by_ref().take(2).count()
        };
        self.bump.reset();
        if blocks > 1 {
            // bumpalo keeps only its newest block; one block at the high-water mark ends the growing.
            let want = (self.peak + self.peak / 8).max(4096);
            if let Ok(bump) = Bump::try_with_capacity(want) {
                self.bump = bump;
            }
        }
        self.used.set(0);
    }

    /// Gives all memory back to the system.
    pub fn release(&mut self) {
        self.held.get_mut().clear();
        self.bump = Bump::new();
        self.used.set(0);
    }
}

/// Bytes that `len` values take of an arena.
pub(crate) fn bytes_of<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(ALIGN)
}

fn as_uninit<T: Copy>(values: &[T]) -> &[MaybeUninit<T>] {
    // SAFETY: MaybeUninit<T> has T's layout, and an initialised value is a valid MaybeUninit.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// Slots that are being written. `slot.write(v)` through indexing, then [`Uninit::finish`].
pub struct Uninit<'a, T> {
    slots: &'a mut [MaybeUninit<T>],
}

impl<T> std::ops::Deref for Uninit<'_, T> {
    type Target = [MaybeUninit<T>];
    fn deref(&self) -> &Self::Target {
        self.slots
    }
}

impl<T> std::ops::DerefMut for Uninit<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.slots
    }
}

impl<'a, T: Copy> Uninit<'a, T> {
    pub(crate) fn finish_mut(self, written: usize) -> &'a mut [T] {
        debug_assert!(written <= self.slots.len());
        let slots = &mut self.slots[..written];
        // SAFETY: callers in this crate have written the first `written` slots.
        unsafe { std::slice::from_raw_parts_mut(slots.as_mut_ptr().cast(), slots.len()) }
    }

    /// The first `written` values. The caller must have written them: only this crate calls it.
    pub(crate) fn finish(self, written: usize) -> &'a [T] {
        self.finish_mut(written)
    }

    /// The first `written` values.
    ///
    /// # Safety
    /// The first `written` slots have been written.
    pub unsafe fn assume_init(self, written: usize) -> &'a mut [T] {
        self.finish_mut(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_size_are_still_counted() {
        let arena = Arena::new(1 << 10);
        let mut calls = 0;
        assert_eq!(arena.collect(3, |_| calls += 1).unwrap().len(), 3);
        assert_eq!((calls, arena.used()), (3, 0));
    }

    #[test]
    fn the_limit_counts_what_is_handed_out() {
        let mut arena = Arena::new(256);
        assert_eq!(arena.fill(8, 1u64).unwrap(), &[1; 8]);
        assert_eq!(arena.used(), 64);
        assert!(matches!(
            arena.fill(64, 0u64),
            Err(Error::Memory {
                wanted: 512,
                used: 64,
                limit: 256
            })
        ));
        arena.reset();
        assert_eq!(arena.used(), 0);
        assert_eq!(arena.fill(32, 0u64).unwrap().len(), 32);
    }

    #[test]
    fn a_reset_leaves_one_block_that_is_large_enough() {
        let mut arena = Arena::new(1 << 20);
        for _ in 0..3 {
            for i in 0..100 {
                arena.fill(1000, i as u64 & 3).unwrap();
            }
            arena.reset();
        }
        let before = arena.bump.allocated_bytes();
        for _ in 0..100 {
            arena.fill(1000, 1u64).unwrap();
        }
        assert_eq!(arena.bump.allocated_bytes(), before);
    }

    #[test]
    fn held_values_live_until_reset() {
        let mut arena = Arena::new(1024);
        let value = Arc::new(String::from("kept"));
        let kept: &String = arena.hold(value.clone());
        assert_eq!(kept, "kept");
        assert_eq!(Arc::strong_count(&value), 2);
        arena.reset();
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_forced_refusal_comes_once() {
        let arena = Arena::new(1024);
        arena.refuse_after(1);
        assert!(arena.fill(1, 0u8).is_ok());
        assert!(arena.fill(1, 0u8).is_err());
        assert!(arena.fill(1, 0u8).is_ok());
    }
}
