//! Memory that a plugin's process shares with its host.
//!
//! Laws
//! - Its size never changes: it is sealed before anybody else has it.
//! - The host never maps it. It writes and reads with calls of the system, into memory of its own, so whatever the other side does
//!   to it meanwhile cannot change what was looked at, nor end the host.

use super::arrays::{Sink, Stopped};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Room for the input of a call. Only what is written to takes memory.
pub(super) const INPUT: u64 = 1 << 30;
/// What is kept of the memory between two calls, on either side.
const KEPT: u64 = 4 << 20;
/// Smaller pieces are gathered.
const GATHERED: usize = 64 << 10;
/// Larger ones are not.
const LARGE: usize = 16 << 10;

pub(super) struct Shared {
    pub(super) file: File,
    /// The bytes for the input of a call, and behind them for its output.
    size: u64,
    /// More than [`KEPT`] may have been written.
    large: bool,
    /// What is gathered to be written.
    gathered: Vec<u8>,
}

/// A file in memory that nobody can change any more.
pub(super) fn sealed(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

impl Shared {
    /// Memory with room for `output` bytes of output.
    pub(super) fn new(output: u64) -> std::io::Result<Shared> {
        let name = "standpipe-batches";
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        let size = INPUT + output;
        file.set_len(size)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Shared {
            file,
            size,
            large: false,
            gathered: vec![],
        })
    }

    /// Begins the input of a call.
    pub(super) fn fill(&mut self) -> Filling<'_> {
        if std::mem::take(&mut self.large) {
            for (from, to) in [(KEPT, INPUT), (INPUT + KEPT, self.size)] {
                if from < to {
                    // What is not given back is only kept longer.
                    let _ = fallocate(
                        &self.file,
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                        from,
                        to - from,
                    );
                }
            }
        }
        self.gathered.clear();
        Filling {
            shared: self,
            written: 0,
            at: 0,
        }
    }

    /// Whether `bytes` bytes lie at `at`.
    pub(super) fn has(&mut self, at: u64, bytes: u64) -> bool {
        let end = at.checked_add(bytes);
        self.large |= end.is_some_and(|end| end > INPUT + KEPT);
        end.is_some_and(|end| end <= self.size)
    }
}

/// The input of a call, as it is written.
pub(super) struct Filling<'s> {
    shared: &'s mut Shared,
    /// Up to here it is in the file; what is gathered follows.
    written: u64,
    /// The end of what was put.
    at: u64,
}

impl Filling<'_> {
    /// Writes what is gathered.
    pub(super) fn finish(&mut self) -> Result<(), Stopped> {
        let bytes = &self.shared.gathered;
        self.shared
            .file
            .write_all_at(bytes, self.written)
            .map_err(|_| Stopped::System)?;
        self.written += bytes.len() as u64;
        self.shared.gathered.clear();
        self.shared.large |= self.written > KEPT;
        Ok(())
    }
}

impl Sink for Filling<'_> {
    fn start(&mut self, bytes: usize) -> Result<u64, Stopped> {
        let start = self.at.next_multiple_of(64);
        if start.checked_add(bytes as u64).is_none_or(|end| end > INPUT) {
            return Err(Stopped::NoRoom);
        }
        let padding = (start - self.at) as usize;
        self.shared.gathered.extend(&[0; 64][..padding]);
        self.at = start;
        Ok(start)
    }

    fn more(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.at += bytes.len() as u64;
        if bytes.len() < LARGE {
            self.shared.gathered.extend(bytes);
            return match self.shared.gathered.len() < GATHERED {
                true => Ok(()),
                false => self.finish(),
            };
        }
        self.finish()?;
        self.shared
            .file
            .write_all_at(bytes, self.written)
            .map_err(|_| Stopped::System)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
