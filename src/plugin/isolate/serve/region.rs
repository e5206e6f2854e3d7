//! The memory that a plugin's process shares with its host: input lies in it, and output is put there.
#![allow(unsafe_code)]

use super::super::arrays::{Land, Sink, Stopped};
use super::super::shared::INPUT;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use standpipe_sdk::Arena;
use standpipe_sdk::ffi::{ReleaseArray, lend};
use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::OwnedFd;

/// The memory shared with the host, mapped for good.
pub(super) struct Region {
    start: *mut u8,
    size: usize,
    /// Output of the call at hand goes here.
    next: Cell<usize>,
    /// Where the piece goes that was begun.
    piece: Cell<usize>,
}

impl Region {
    pub(super) fn new(shared: &OwnedFd, output: u64) -> std::io::Result<Region> {
        let size = usize::try_from(INPUT + output).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, wherever there is room; its size is the file's, which is sealed.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                shared,
                0,
            )?
        };
        Ok(Region {
            start: start.cast(),
            size,
            next: Cell::new(INPUT as usize),
            piece: Cell::new(0),
        })
    }

    pub(super) fn reset(&self) {
        self.next.set(INPUT as usize);
    }

    /// The place of `bytes` bytes of output, aligned to 64.
    pub(super) fn alloc(&self, bytes: usize) -> Option<usize> {
        let at = self.next.get().next_multiple_of(64);
        let end = at.checked_add(bytes.max(1)).filter(|&end| end <= self.size)?;
        self.next.set(end);
        Some(at)
    }

    pub(super) fn at(&self, at: usize) -> *mut u8 {
        self.start.wrapping_add(at)
    }
}

/// Puts output where the host finds it.
pub(super) struct Giving<'r>(pub(super) &'r Region);

impl Sink for Giving<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<u64, Stopped> {
        let at = bytes.as_ptr().addr().wrapping_sub(self.0.start.addr());
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.0.size) {
            return Ok(at as u64);
        }
        let at = self.start(bytes.len())?;
        self.more(bytes)?;
        Ok(at)
    }

    fn start(&mut self, bytes: usize) -> Result<u64, Stopped> {
        let at = self.0.alloc(bytes).ok_or(Stopped::NoRoom)?;
        self.0.piece.set(at);
        Ok(at as u64)
    }

    fn more(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let at = self.0.piece.get();
        // SAFETY: `start` found room for the whole piece, which nobody else was given; what is copied lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.at(at), bytes.len()) }
        self.0.piece.set(at + bytes.len());
        Ok(())
    }
}

/// Finds the input of a call where it lies.
pub(super) struct Taking<'r, 'a> {
    pub(super) region: &'r Region,
    pub(super) arena: &'a Arena,
}

impl Land for Taking<'_, '_> {
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped> {
        let at = usize::try_from(at).map_err(|_| Stopped::Broken)?;
        match at.checked_add(bytes).is_some_and(|end| end <= self.region.size) {
            true => Ok(self.region.at(at).cast_const().cast()),
            false => Err(Stopped::Broken),
        }
    }

    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped> {
        let room = self.arena.uninit::<u8>(bytes.max(1)).map_err(|_| Stopped::NoRoom)?;
        Ok({ room }.as_mut_ptr().cast())
    }

    fn release(&self) -> ReleaseArray {
        lend::release_marked
    }
}
