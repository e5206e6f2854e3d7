//! One unnamed file of blocks: compressed, checksummed, counted against the disk limit.
//!
//! A block is a header of 32 bytes and what was stored. Lanes write at the same time: each takes its place behind the end first.
//!
//! Laws
//! - The header's checksum covers header, place and contents: a block that was damaged, cut off or put elsewhere is never read.
//! - Blocks that are given back make holes where the file system can; what it cannot is given back with the file.

use crate::stages::keys::hash;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use standpipe_sdk::error::{Code, Error, Result};
use standpipe_sdk::{DiskReservation, OutOfDisk, Spill};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The disk limit is reached, or the disk full.
pub const OUT_OF_DISK: Code = Code(703);
/// The spill file cannot be written or read back.
pub const SPILL_FAILED: Code = Code(704);

const MAGIC: u32 = u32::from_le_bytes(*b"SPB1");
const HEADER_BYTES: usize = 32;
/// Contents as they were.
const STORED: u32 = 0;
/// Contents of an LZ4 block.
const LZ4: u32 = 1;

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    offset: u64,
    /// On disk, header included.
    len: u32,
    /// Once it is unpacked.
    bytes: u32,
}

impl Address {
    /// Of an encoded one.
    pub const BYTES: usize = 16;

    pub fn encode(self) -> [u8; Address::BYTES] {
        let bytes = u128::from(self.bytes) << 96 | u128::from(self.len) << 64 | u128::from(self.offset);
        bytes.to_le_bytes()
    }

    pub fn decode(bytes: &[u8; Address::BYTES]) -> Address {
        let number = u128::from_le_bytes(*bytes);
        Address {
            offset: number as u64,
            len: (number >> 64) as u32,
            bytes: (number >> 96) as u32,
        }
    }

    /// Bytes of the contents.
    pub fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// What reading takes beside the contents.
    pub fn stored_bytes(self) -> usize {
        if self.is_packed() { self.len as usize } else { 0 }
    }

    fn is_packed(self) -> bool {
        self.len as usize != HEADER_BYTES + self.bytes()
    }
}

/// The file of one stage.
pub struct SpillFile {
    stage: &'static str,
    spill: Arc<Spill>,
    file: OnceLock<File>,
    opening: Mutex<()>,
    end: AtomicU64,
    disk: Mutex<DiskReservation>,
}

/// Bytes of a buffer in which a block of `bytes` can be packed.
pub fn packed_bytes(bytes: usize) -> usize {
    HEADER_BYTES + get_maximum_output_size(bytes)
}

impl SpillFile {
    /// Not opened yet: that is the first [`SpillFile::write`]'s work.
    pub fn new(stage: &'static str, spill: Arc<Spill>) -> Self {
        SpillFile {
            stage,
            file: OnceLock::new(),
            opening: Mutex::default(),
            end: AtomicU64::new(0),
            disk: Mutex::new(spill.reserve()),
            spill,
        }
    }

    pub fn spill(&self) -> &Arc<Spill> {
        &self.spill
    }

    /// Writes a block. `packed` is a buffer of at least [`packed_bytes`] for it.
    ///
    /// # Errors
    /// `Failed` with the stage, the folder and the numbers if the disk is full or the file cannot be written.
    pub fn write(&self, contents: &[u8], packed: &mut [u8]) -> Result<Address> {
        let too_long = || self.failed("write", "a block is too long");
        let bytes = u32::try_from(contents.len()).map_err(|_| too_long())?;
        let room = packed.get_mut(HEADER_BYTES..).ok_or_else(too_long)?;
        let (kind, stored) = match compress_into(contents, room) {
            Ok(stored) if stored < contents.len() => (LZ4, stored),
            _ => {
                let room = room.get_mut(..contents.len()).ok_or_else(too_long)?;
                room.copy_from_slice(contents);
                (STORED, contents.len())
            }
        };
        let block = packed.get_mut(..HEADER_BYTES + stored).ok_or_else(too_long)?;
        let len = u32::try_from(block.len()).map_err(|_| too_long())?;
        let offset = self.place(len)?;
        let at = Address { offset, len, bytes };
        let (header, contents) = block.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&header_of(at, kind, contents));
        self.write_at(block, offset)?;
        Ok(at)
    }

    /// The same as it is, with no other buffer.
    ///
    /// # Errors
    /// As [`SpillFile::write`].
    pub fn write_unpacked(&self, contents: &[u8]) -> Result<Address> {
        let len = u32::try_from(HEADER_BYTES + contents.len());
        let len = len.map_err(|_| self.failed("write", "a block is too long"))?;
        let offset = self.place(len)?;
        let bytes = len - HEADER_BYTES as u32;
        let at = Address { offset, len, bytes };
        self.write_at(&header_of(at, STORED, contents), offset)?;
        self.write_at(contents, offset + HEADER_BYTES as u64)?;
        Ok(at)
    }

    /// Takes the place behind the end for a block of `len` bytes.
    fn place(&self, len: u32) -> Result<u64> {
        self.open()?;
        self.check_free(len.into())?;
        self.lock_disk()
            .grow(len.into())
            .map_err(|refused| self.over_limit(refused))?;
        Ok(self.end.fetch_add(len.into(), Relaxed))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.open()?
            .write_all_at(bytes, offset)
            .map_err(|error| match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    self.full(bytes.len() as u64, &error)
                }
                _ => self.failed("write", &error.to_string()),
            })
    }

    /// Reads a block into `contents`, which has [`Address::bytes`] bytes; `stored` has [`Address::stored_bytes`].
    ///
    /// # Errors
    /// `Failed` with the stage, the folder and the place if it is damaged or cannot be read.
    pub fn read(&self, at: Address, stored: &mut [u8], contents: &mut [u8]) -> Result<()> {
        let damaged = |what: &str| self.failed("read", &format!("the block at byte {} is damaged: {what}", at.offset));
        let file = self.file.get().ok_or_else(|| damaged("there is no file"))?;
        let read = |bytes: &mut [u8], offset: u64| {
            let read = file.read_exact_at(bytes, offset);
            read.map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => damaged("the file ends before it"),
                _ => self.failed("read", &error.to_string()),
            })
        };
        let mut header = [0; HEADER_BYTES];
        self.spill.count_read(at.len.into());
        let packed: &[u8] = match at.is_packed() {
            true => {
                read(stored, at.offset)?;
                let (first, packed) = stored.split_first_chunk().ok_or_else(|| damaged("it is too short"))?;
                header = *first;
                packed
            }
            false => {
                read(&mut header, at.offset)?;
                read(contents, at.offset + HEADER_BYTES as u64)?;
                contents
            }
        };
        let number = |from: usize| {
            let bytes = header.get(from..from + 4).and_then(|b| b.first_chunk::<4>());
            bytes.map_or(0, |b| u32::from_le_bytes(*b))
        };
        let offset = u64::from(number(16)) | u64::from(number(20)) << 32;
        let sum = u64::from(number(24)) | u64::from(number(28)) << 32;
        let is_ours = number(0) == MAGIC
            && offset == at.offset
            && number(8) == at.bytes
            && number(12) as usize == packed.len()
            && number(4) == if at.is_packed() { LZ4 } else { STORED }
            && sum == checksum(&header[..24], packed);
        if !is_ours {
            return Err(damaged("its checksum does not fit"));
        }
        let unpacked = match at.is_packed() {
            true => decompress_into(&stored[HEADER_BYTES..], contents).is_ok_and(|n| n == at.bytes()),
            false => true,
        };
        if unpacked {
            Ok(())
        } else {
            Err(damaged("it cannot be unpacked"))
        }
    }

    /// The same into memory of its own.
    ///
    /// # Errors
    /// As [`SpillFile::read`]; `Memory` if the system refuses.
    pub(super) fn contents(&self, at: Address) -> Result<Vec<u8>> {
        let mut contents = room(at.bytes())?;
        let mut stored = room(at.stored_bytes())?;
        self.read(at, &mut stored, &mut contents)?;
        Ok(contents)
    }

    /// Nobody reads this block any more.
    pub fn free(&self, at: Address) {
        let Some(file) = self.file.get() else { return };
        use rustix::fs::{FallocateFlags, fallocate};
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Only whole pages become holes, and some file systems make none: then the disk is given back with the file.
        if fallocate(file, flags, at.offset, at.len.into()).is_ok() {
            self.lock_disk().shrink(at.len.into());
        }
    }

    /// An error of this file, in words.
    pub fn failed(&self, doing: &str, why: &str) -> Error {
        Error::failed(
            SPILL_FAILED,
            format!(
                "`{}` cannot {doing} its spill file in `{}`: {why}",
                self.stage,
                self.folder().display()
            ),
        )
    }

    pub fn stage(&self) -> &'static str {
        self.stage
    }

    fn folder(&self) -> &Path {
        self.spill.folder()
    }

    fn lock_disk(&self) -> std::sync::MutexGuard<'_, DiskReservation> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = tempfile::tempfile_in(self.folder()).map_err(|error| {
            let Error::Failed {
                code, message, span, ..
            } = self.failed("make", &error.to_string())
            else {
                return Error::Cancelled;
            };
            let help = Some("`--spill-dir` names another folder, a larger `--memory` needs none".into());
            Error::Failed {
                code,
                message,
                help,
                span,
            }
        })?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Before the disk is full for everybody else on it.
    fn check_free(&self, wanted: u64) -> Result<()> {
        let Some(free) = free_bytes(self.folder()) else {
            return Ok(());
        };
        if free >= wanted {
            return Ok(());
        }
        let message = format!(
            "`{}` needs {wanted} bytes more in `{}` beside {} in use; {free} bytes are free there",
            self.stage,
            self.folder().display(),
            self.lock_disk().bytes(),
        );
        Err(out_of_disk(
            message,
            "`--spill-dir` names another folder, a larger `--memory` spills less",
        ))
    }

    fn over_limit(&self, refused: OutOfDisk) -> Error {
        let OutOfDisk { wanted, used, limit } = refused;
        let message = format!(
            "`{}` needs {wanted} bytes more in `{}` beside {used} in use; the disk limit is {limit}",
            self.stage,
            self.folder().display()
        );
        out_of_disk(message, "a larger `--disk` or `@budget(disk: …)`")
    }

    fn full(&self, wanted: u64, error: &std::io::Error) -> Error {
        let message = format!(
            "`{}` needs {wanted} bytes more in `{}` beside {} in use: {error}",
            self.stage,
            self.folder().display(),
            self.lock_disk().bytes().saturating_sub(wanted),
        );
        out_of_disk(
            message,
            "`--spill-dir` names another folder, a larger `--memory` spills less",
        )
    }

    /// Test hook: the file itself.
    #[cfg(test)]
    pub(crate) fn raw(&self) -> &File {
        self.file.get().expect("something was spilled")
    }
}

/// So many zeros.
///
/// # Errors
/// `Memory` if the system refuses.
pub(super) fn room(bytes: usize) -> Result<Vec<u8>> {
    let mut room = vec![];
    room.try_reserve_exact(bytes).map_err(|_| Error::Memory {
        wanted: bytes,
        used: 0,
        limit: usize::MAX,
    })?;
    room.resize(bytes, 0);
    Ok(room)
}

fn out_of_disk(message: String, help: &str) -> Error {
    Error::Failed {
        code: OUT_OF_DISK,
        message,
        help: Some(help.into()),
        span: None,
    }
}

/// Bytes that are free in a folder, where the system says.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Of a block of which `stored` is stored.
fn header_of(at: Address, kind: u32, stored: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&kind.to_le_bytes());
    header[8..12].copy_from_slice(&at.bytes.to_le_bytes());
    header[12..16].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&at.offset.to_le_bytes());
    let sum = checksum(&header[..24], stored);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

fn checksum(header: &[u8], contents: &[u8]) -> u64 {
    hash(header).rotate_left(32) ^ hash(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::Disk;

    fn file(folder: &Path, limit: Option<u64>) -> SpillFile {
        SpillFile::new("sort", Spill::new(Arc::new(Disk::new(folder, limit))))
    }

    fn write(file: &SpillFile, contents: &[u8]) -> Result<Address> {
        file.write(contents, &mut vec![0; packed_bytes(contents.len())])
    }

    fn read(file: &SpillFile, at: Address) -> Result<Vec<u8>> {
        let mut contents = vec![0; at.bytes()];
        file.read(at, &mut vec![0; at.stored_bytes()], &mut contents)?;
        Ok(contents)
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u64).map(|i| hash(&i.to_le_bytes()) as u8).collect()
    }

    #[test]
    fn blocks_come_back_and_the_folder_stays_empty() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = file(folder.path(), None);
        let blocks = [vec![], vec![7; 100_000], noise(5000), b"short".to_vec()];
        let at: Vec<_> = blocks.iter().map(|b| write(&spilled, b).unwrap()).collect();
        assert!(at[1].stored_bytes() < 1000 && at[2].stored_bytes() == 0);
        for (at, block) in at.iter().zip(&blocks).rev() {
            assert_eq!(read(&spilled, *at).unwrap(), *block);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let done = spilled.spill().done();
        assert_eq!(done.written_bytes, done.read_bytes);
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = file(folder.path(), None);
        let first = write(&spilled, &[1; 300]).unwrap();
        let at = write(&spilled, &[vec![5; 300], noise(50)].concat()).unwrap();
        let other = write(&spilled, &[vec![6; 300], noise(50)].concat()).unwrap();
        for byte in 0..at.stored_bytes() as u64 {
            let mut one = [0];
            spilled.raw().read_exact_at(&mut one, at.offset + byte).unwrap();
            spilled.raw().write_all_at(&[one[0] ^ 4], at.offset + byte).unwrap();
            let Err(Error::Failed { code, message, .. }) = read(&spilled, at) else {
                panic!("byte {byte} was not found")
            };
            assert_eq!(code, SPILL_FAILED);
            let place = format!(
                "`sort` cannot read its spill file in `{}`: the block at byte {}",
                folder.path().display(),
                at.offset
            );
            assert!(message.starts_with(&place), "{message}");
            spilled.raw().write_all_at(&one, at.offset + byte).unwrap();
        }
        // A whole block in another's place, and a file that was cut off.
        let mut moved = vec![0; other.stored_bytes()];
        spilled.raw().read_exact_at(&mut moved, other.offset).unwrap();
        spilled.raw().write_all_at(&moved, at.offset).unwrap();
        assert!(read(&spilled, at).is_err());
        spilled.raw().set_len(other.offset + 40).unwrap();
        assert!(
            read(&spilled, other)
                .unwrap_err()
                .to_string()
                .contains("ends before it")
        );
        assert_eq!(read(&spilled, first).unwrap(), [1; 300]);
    }

    #[test]
    fn the_disk_limit_counts_what_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = file(folder.path(), Some(12_000));
        let at = write(&spilled, &noise(8192 - HEADER_BYTES)).unwrap();
        let error = write(&spilled, &noise(5000)).unwrap_err().to_string();
        let place = folder.path().display();
        assert_eq!(
            error,
            format!("E0703: `sort` needs 5032 bytes more in `{place}` beside 8192 in use; the disk limit is 12000")
        );
        spilled.free(at);
        assert!(spilled.lock_disk().bytes() == 0 && write(&spilled, &noise(5000)).is_ok());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = write(&file(&missing, None), b"x").unwrap_err().to_string();
        assert!(
            error.contains("`sort` cannot make its spill file in") && error.contains("missing"),
            "{error}"
        );
    }
}
