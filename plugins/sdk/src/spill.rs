//! The disk of a run: where what does not fit into memory goes, how much of it there may be, and what has been done with it.
//!
//! A run has one [`Disk`]; each stage of it gets a [`Spill`] of its own, which counts what that stage does.
//!
//! Laws
//! - Disk is reserved before it is written, and given back with the reservation.
//! - Nothing here opens a file: that is a stage's (or its host's) work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The folder and the disk limit of a run. Shared by all stages.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Bytes; the greatest number: no limit.
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    total: AtomicU64,
    spill_rows: Option<usize>,
}

impl Disk {
    /// `limit` bytes in `folder`; `None` = what the file system has.
    pub fn new(folder: impl Into<PathBuf>, limit: Option<u64>) -> Self {
        Disk {
            folder: folder.into(),
            limit: limit.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            total: AtomicU64::new(0),
            spill_rows: None,
        }
    }

    /// Test hook: every stage spills after so many rows.
    #[must_use]
    pub fn spill_rows(mut self, rows: Option<usize>) -> Self {
        self.spill_rows = rows;
        self
    }

    /// The most bytes that were reserved at one time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes ever reserved.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

/// One stage's way to the disk of a run.
#[derive(Debug)]
pub struct Spill {
    disk: Arc<Disk>,
    written: AtomicU64,
    read: AtomicU64,
    segments: AtomicU64,
    merged_rows: AtomicU64,
}

/// What a stage has done with the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spilled {
    /// Bytes written, as they lie on disk.
    pub written_bytes: u64,
    /// Bytes read back.
    pub read_bytes: u64,
    /// Sorted pieces written.
    pub segments: u64,
    /// Rows that went through a merge, once per merge.
    pub merged_rows: u64,
}

impl Spill {
    /// For one stage.
    pub fn new(disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Spill {
            disk,
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            merged_rows: AtomicU64::new(0),
        })
    }

    /// In the folder that the system has for this, without a limit.
    pub fn anywhere() -> Arc<Self> {
        Spill::new(Arc::new(Disk::new(std::env::temp_dir(), None)))
    }

    pub fn folder(&self) -> &Path {
        &self.disk.folder
    }

    /// Test hook: spill after so many rows, whatever fits.
    pub fn spill_rows(&self) -> Option<usize> {
        self.disk.spill_rows
    }

    /// Reserves nothing yet: [`DiskReservation::grow`] does.
    pub fn reserve(self: &Arc<Self>) -> DiskReservation {
        DiskReservation {
            spill: self.clone(),
            bytes: 0,
        }
    }

    /// Counts bytes read back.
    pub fn count_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Relaxed);
    }

    /// Counts a sorted piece.
    pub fn count_segment(&self) {
        self.segments.fetch_add(1, Relaxed);
    }

    /// Counts rows that went through a merge.
    pub fn count_merged(&self, rows: u64) {
        self.merged_rows.fetch_add(rows, Relaxed);
    }

    /// What the stage has done so far.
    pub fn done(&self) -> Spilled {
        Spilled {
            written_bytes: self.written.load(Relaxed),
            read_bytes: self.read.load(Relaxed),
            segments: self.segments.load(Relaxed),
            merged_rows: self.merged_rows.load(Relaxed),
        }
    }
}

/// The disk limit would be passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfDisk {
    pub wanted: u64,
    pub used: u64,
    pub limit: u64,
}

/// Part of the disk; given back when dropped.
#[derive(Debug)]
pub struct DiskReservation {
    spill: Arc<Spill>,
    bytes: u64,
}

impl DiskReservation {
    /// Reserves `bytes` more, which are about to be written.
    ///
    /// # Errors
    /// If the limit would be passed; nothing changes then.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OutOfDisk> {
        let disk = &*self.spill.disk;
        let add = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= disk.limit);
        match disk.used.fetch_update(Relaxed, Relaxed, add) {
            Ok(before) => {
                disk.peak.fetch_max(before + bytes, Relaxed);
                disk.total.fetch_add(bytes, Relaxed);
                self.spill.written.fetch_add(bytes, Relaxed);
                self.bytes += bytes;
                Ok(())
            }
            Err(used) => Err(OutOfDisk {
                wanted: bytes,
                used,
                limit: disk.limit,
            }),
        }
    }

    /// Gives `bytes` back (at most what is reserved).
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.spill.disk.used.fetch_sub(bytes, Relaxed);
        self.bytes -= bytes;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for DiskReservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_growth_changes_nothing_and_stages_are_counted_apart() {
        let disk = Arc::new(Disk::new("/tmp", Some(100)));
        let (one, two) = (Spill::new(disk.clone()), Spill::new(disk.clone()));
        let (mut a, mut b) = (one.reserve(), two.reserve());
        a.grow(60).unwrap();
        let refused = OutOfDisk {
            wanted: 41,
            used: 60,
            limit: 100,
        };
        assert_eq!(b.grow(41), Err(refused));
        b.grow(40).unwrap();
        a.shrink(10);
        assert_eq!((one.done().written_bytes, two.done().written_bytes), (60, 40));
        assert_eq!((disk.used(), disk.peak(), disk.total()), (90, 100, 100));
        drop((a, b));
        assert_eq!(disk.used(), 0);
    }
}
