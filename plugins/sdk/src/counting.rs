//! The heap of a plugin, counted: what an instance takes is declared to the host, which knows nothing of a library's own allocator.
//!
//! Laws
//! - Counting is per thread, so it costs an addition; a call is on one thread, and what it takes and gives back is the difference.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken, less those it has given back. Constant and without a destructor: an allocator may use it.
    static TAKEN: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counted. `export!` makes it the plugin's.
pub struct Counting;

fn count(bytes: usize, sign: i64) {
    // A thread that is ending has no counter any more.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get().wrapping_add(sign * bytes as i64)));
}

// SAFETY: every method does what the system's allocator does, with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            count(layout.size(), 1);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
        count(layout.size(), -1);
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            count(layout.size(), 1);
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(memory, layout, new_size) };
        if !moved.is_null() {
            count(layout.size(), -1);
            count(new_size, 1);
        }
        moved
    }
}

/// What this thread has taken so far, in bytes; only differences mean something. Always 0 without [`Counting`].
pub fn taken() -> i64 {
    TAKEN.try_with(Cell::get).unwrap_or(0)
}
