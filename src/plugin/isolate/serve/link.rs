//! The way to the host.

use super::super::wire::{Reader, ask, head, parts, tell};
use super::{frame, vanish};
use standpipe_sdk::ffi::{self, Status};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

/// The way to the host.
pub(super) struct Link {
    /// Held for the time of a frame: a plugin's own threads may log.
    socket: Mutex<UnixStream>,
    /// Who is called: only there is anybody who waits for an answer.
    thread: ThreadId,
    is_called: AtomicBool,
    /// The number of the last call.
    call: AtomicU32,
}

impl Link {
    /// For calls on this thread.
    pub(super) fn new(socket: UnixStream) -> Link {
        Link {
            socket: Mutex::new(socket),
            thread: std::thread::current().id(),
            is_called: AtomicBool::new(false),
            call: AtomicU32::new(0),
        }
    }

    /// Runs a call of the host's.
    pub(super) fn called<T>(&self, call: u32, run: impl FnOnce() -> T) -> T {
        self.call.store(call, Relaxed);
        self.is_called.store(true, Relaxed);
        let outcome = run();
        self.is_called.store(false, Relaxed);
        outcome
    }

    pub(super) fn send(&self, kind: u8, body: &[u8]) -> std::io::Result<()> {
        let head = head(kind, self.call.load(Relaxed), body);
        let frame = [&head, body].concat();
        self.socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&frame)
    }

    /// What stands behind the length of the next frame.
    pub(super) fn receive(&self) -> std::io::Result<Vec<u8>> {
        // Only the thread that is called reads, and the lock is not held meanwhile.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).try_clone()?;
        let mut len = [0; 4];
        socket.read_exact(&mut len)?;
        frame(&mut socket, u32::from_le_bytes(len))
    }

    /// Asks the host in the midst of a call.
    pub(super) fn asked(&self, kind: u8, body: &[u8]) -> Status {
        if self.send(kind, body).is_err() {
            vanish();
        }
        let answer = self.receive();
        match answer.as_deref().map(parts) {
            Ok(Ok((ask::ANSWER, _, body))) => Reader(body).i32().unwrap_or(ffi::E_INTERNAL),
            _ => vanish(),
        }
    }

    pub(super) fn reserve(&self, delta: i64) -> Status {
        if std::thread::current().id() != self.thread || !self.is_called.load(Relaxed) {
            return if delta <= 0 { ffi::OK } else { ffi::E_MEMORY };
        }
        self.asked(tell::RESERVE, &delta.to_le_bytes())
    }
}
