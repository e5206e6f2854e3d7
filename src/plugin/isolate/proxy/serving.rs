//! What a call stands for on the host's side: its services, as a process uses them.
#![allow(unsafe_code)]

use super::super::E_PROCESS;
use super::super::arrays::{self, Land, Stopped};
use super::super::shared::Shared;
use super::super::wire::{Read, Reader};
use super::super::worker::Services;
use super::Failed;
use super::bound::Bound;
use super::slots::Slots;
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{self, Host, ReleaseArray, Status};
use std::ffi::c_void;
use std::mem::MaybeUninit;

/// What a call stands for while its process is asked: the host's services, as the process uses them.
pub(super) struct Serving<'r> {
    call: &'r ffi::Call,
    /// The columns of what it may emit.
    output: &'r [Type],
    /// What is served is over once this is lost.
    slots: Option<&'r Slots>,
    /// What of the call's memory is for frames.
    held_bytes: usize,
    /// Why what the process gave did not arrive: the plugin only passes the news on.
    pub(super) stop: Option<Stopped>,
}

impl<'r> Serving<'r> {
    pub(super) fn new(call: &'r ffi::Call, output: &'r [Type]) -> Self {
        Serving {
            call,
            output,
            slots: None,
            held_bytes: 0,
            stop: None,
        }
    }

    /// A call of an instance of this: where one process of an aggregate is lost, nobody waits for the others.
    pub(super) fn of(self, bound: &'r Bound) -> Self {
        Serving {
            slots: Some(&bound.slots),
            ..self
        }
    }

    fn host(&self) -> &'r Host {
        // SAFETY: a call has its host's table, which outlives it.
        unsafe { &*self.call.host }
    }

    pub(super) fn stopped(&self, why: Stopped) -> Failed {
        match why {
            // The host refused it, and knows.
            Stopped::NoRoom => Failed::new(ffi::E_MEMORY, ""),
            Stopped::Broken => Failed::new(ffi::E_INTERNAL, "what is for its process cannot be written"),
            Stopped::System => Failed::new(E_PROCESS, "the system has no memory for what its process gets or gives"),
        }
    }
}

impl Services for Serving<'_> {
    fn emit(&mut self, array: &mut Reader<'_>, shared: &mut Shared) -> Read<Status> {
        if self.stop.is_some() {
            array.0 = &[];
            return Ok(ffi::E_CANCELLED);
        }
        let call = self.call;
        Ok(
            match arrays::arrived(array, self.output, &mut Landing { call, shared })? {
                // SAFETY: the call lasts, on this thread; the array is one that is given away.
                Ok(mut array) => unsafe { (self.host().emit)(call, &raw mut array) },
                Err(why) => {
                    self.stop = Some(why);
                    if why == Stopped::NoRoom {
                        ffi::E_MEMORY
                    } else {
                        ffi::E_CANCELLED
                    }
                }
            },
        )
    }

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Read<Status> {
        let text = |bytes: &[u8]| ffi::Str {
            ptr: bytes.as_ptr().cast(),
            len: bytes.len(),
        };
        // SAFETY: the call lasts, on this thread; the texts are there as long as it does.
        Ok(unsafe { (self.host().reject)(self.call, row, column, text(code), text(message)) })
    }

    fn room(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.held_bytes);
        // SAFETY: the call lasts, on this thread. Nobody uses this memory: it stands for what the worker takes.
        let has_room = more == 0 || !unsafe { (self.host().alloc)(self.call, more) }.is_null();
        if has_room {
            self.held_bytes += more;
        }
        has_room
    }

    fn passed_over(&mut self) -> Status {
        self.stop = self.stop.or(Some(Stopped::NoRoom));
        ffi::E_MEMORY
    }

    fn reserve(&mut self, delta: i64) -> Status {
        // SAFETY: an owner is a number for the host.
        unsafe { (self.host().reserve)(self.call.owner, delta) }
    }

    fn log(&mut self, text: &str) {
        // SAFETY: as above.
        unsafe { (self.host().log)(self.call.owner, 0, ffi::Str::new(text)) }
    }

    fn cancelled(&mut self) -> bool {
        // SAFETY: as above.
        self.slots.is_some_and(Slots::is_lost) || unsafe { (self.host().cancelled)(self.call.owner) != 0 }
    }
}

/// Brings arrays into the memory of a call.
pub(super) struct Landing<'r> {
    pub(super) call: &'r ffi::Call,
    pub(super) shared: &'r mut Shared,
}

impl Land for Landing<'_> {
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped> {
        if !self.shared.has(at, bytes as u64) {
            return Err(Stopped::Broken);
        }
        let room = self.room(bytes)?;
        // SAFETY: the host gave so many bytes, which nobody else has; what is not written yet is not read.
        let mut left = unsafe { std::slice::from_raw_parts_mut(room.cast::<MaybeUninit<u8>>(), bytes) };
        let mut from = at;
        while !left.is_empty() {
            match rustix::io::pread(&self.shared.file, &mut *left, from) {
                Ok(([], _)) => return Err(Stopped::System),
                Ok((read, _)) => {
                    let read = read.len();
                    from += read as u64;
                    left = &mut left[read..];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Stopped::System),
            }
        }
        Ok(room.cast_const())
    }

    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped> {
        // SAFETY: the call lasts, on this thread: it is what asks the process.
        let room = unsafe { ((*self.call.host).alloc)(self.call, bytes) };
        match room.is_null() {
            true => Err(Stopped::NoRoom),
            false => Ok(room),
        }
    }

    fn release(&self) -> ReleaseArray {
        // SAFETY: a call has its host's table.
        unsafe { (*self.call.host).arena_release }
    }
}
