//! How far a run is, for whoever draws it.

use standpipe_sdk::Source;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts that workers add to and a display reads.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    bytes: [AtomicU64; 4],
    total: AtomicU64,
}

impl Progress {
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
