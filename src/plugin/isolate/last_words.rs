//! What a plugin's process says when a signal ends it: whether the system had refused it memory.
//!
//! A pointer that nobody looked at after a refused `malloc` ends in SIGSEGV, and `abort` in SIGABRT; both leave the reason in `errno`.
#![allow(unsafe_code)]

use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// The system had refused memory.
pub(super) const NO_MEMORY: u8 = b'm';

/// Where they are said.
static TO: AtomicI32 = AtomicI32::new(-1);

const SIGNALS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGFPE,
];

/// Says them to `to`, which stays open, whenever such a signal comes.
pub(super) fn prepare(to: OwnedFd) {
    // Open for as long as the process lives.
    TO.store(to.into_raw_fd(), Relaxed);
    for signal in SIGNALS {
        // SAFETY: an action of zeros is a valid one; `say` does only what a handler may: `errno`, `write`, `signal`, `raise`.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = say as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, null_mut());
        }
    }
}

/// Forgets what the system refused so far.
pub(super) fn begin() {
    // SAFETY: `errno` is the thread's own.
    unsafe { *libc::__errno_location() = 0 }
}

extern "C" fn say(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: only functions that may be called in a handler; `errno` is the thread's own. With the default action back, the same
    // signal comes again when this returns, and ends the process.
    unsafe {
        if *libc::__errno_location() == libc::ENOMEM {
            let word = NO_MEMORY;
            libc::write(TO.load(Relaxed), (&raw const word).cast(), 1);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
