//! How far a run is, for whoever draws it.

use standpipe_sdk::{Disk, Source};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts that workers add to and a display reads.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    bytes: [AtomicU64; 4],
    total: AtomicU64,
    merging: AtomicBool,
    /// The disk of the run.
    disk: Mutex<Option<Arc<Disk>>>,
}

impl Progress {
    /// A run starts, which spills to `disk`.
    pub(crate) fn run(&self, disk: &Arc<Disk>) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk.clone());
    }

    /// A region is about to start: it merges what was spilled, or not.
    pub(crate) fn phase(&self, merging: bool) {
        self.merging.store(merging, Relaxed);
    }

    /// A region starts; `total` bytes are to be read, where that is known.
    pub(crate) fn start(&self, total: Option<u64>) {
        for bytes in &self.bytes {
            bytes.store(0, Relaxed);
        }
        self.total.store(total.unwrap_or(0), Relaxed);
    }

    pub(crate) fn rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Relaxed);
    }

    /// Source number `at` has been read up to where it says.
    pub(crate) fn read(&self, source: &dyn Source, at: usize) {
        self.bytes[at % self.bytes.len()].store(source.claimed_bytes(), Relaxed);
    }

    /// Whether the region at work merges what was spilled.
    pub fn is_merging(&self) -> bool {
        self.merging.load(Relaxed)
    }

    /// Bytes that lie on disk, and all that were ever written there.
    pub fn spilled_bytes(&self) -> (u64, u64) {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.as_ref().map_or((0, 0), |disk| (disk.used(), disk.total()))
    }

    /// Rows read so far.
    pub fn rows_read(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Bytes read so far of this region's sources.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.iter().map(|b| b.load(Relaxed)).sum()
    }

    /// Bytes there are to read, if all sources know.
    pub fn bytes_total(&self) -> Option<u64> {
        Some(self.total.load(Relaxed)).filter(|&total| total > 0)
    }
}
