//! The spilled rows of one stage: its file, and the segments that are kept for the merge.

use super::file::SpillFile;
use super::floors::{index_frames, store_frame_bytes};
use super::segment::Segment;
use super::writer::SegmentWriter;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Budget, Spill};
use std::sync::{Arc, Mutex, PoisonError};

/// The spilled rows of one stage: its file, and the segments that are kept.
pub struct Store {
    pub(super) file: Arc<SpillFile>,
    pub(super) budget: Arc<Budget>,
    pub(super) frame_bytes: usize,
    segments: Mutex<Vec<Segment>>,
}

impl Store {
    /// For a stage that is made with `setup`. Nothing is opened or reserved yet.
    pub fn new(stage: &'static str, setup: &Setup) -> Arc<Store> {
        Store::in_budget(stage, &setup.budget, &setup.spill)
    }

    /// With what of a [`Setup`] matters.
    pub fn in_budget(stage: &'static str, budget: &Arc<Budget>, spill: &Arc<Spill>) -> Arc<Store> {
        Store::beside(stage, budget, spill, 1)
    }

    /// The same for a stage that reads `merges` merges at the same time.
    pub fn beside(stage: &'static str, budget: &Arc<Budget>, spill: &Arc<Spill>, merges: usize) -> Arc<Store> {
        let frame_bytes = store_frame_bytes(budget.limit(), merges);
        Arc::new(Store {
            file: Arc::new(SpillFile::new(stage, spill.clone())),
            budget: budget.clone(),
            frame_bytes,
            segments: Mutex::default(),
        })
    }

    /// About how many encoded bytes a frame has: what it is good to append at a time.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The limit of the budget that rows are kept in.
    pub fn budget_bytes(&self) -> usize {
        self.budget.limit()
    }

    pub fn stage(&self) -> &'static str {
        self.file.stage()
    }

    pub fn spill(&self) -> &Arc<Spill> {
        self.file.spill()
    }

    /// A lane's writer, with all memory that writing takes set aside.
    ///
    /// # Errors
    /// `Memory` if the budget does not have it.
    pub fn writer(self: &Arc<Self>) -> Result<SegmentWriter> {
        // As many as the budget holds rows for, so that the list never grows when there is no memory left.
        SegmentWriter::new(self, index_frames(self.budget.limit(), self.frame_bytes))
    }

    /// The same with a list of frames of which little is in memory, however long the segment is: what is read often out of it, or by many at
    /// the same time, is read more slowly.
    ///
    /// # Errors
    /// `Memory` if the budget does not have it.
    pub fn short_writer(self: &Arc<Self>) -> Result<SegmentWriter> {
        SegmentWriter::short(self)
    }

    /// Keeps a segment for the merge.
    pub fn keep(&self, segment: Segment) {
        if segment.rows > 0 {
            self.lock().push(segment);
        }
    }

    /// The segments that were kept, from now on the caller's.
    pub fn take(&self) -> Vec<Segment> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether anything was spilled.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Memory that the largest frame of all segments takes.
    pub fn largest(&self) -> usize {
        self.lock().iter().map(Segment::largest).max().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Test hook: the file that is written to.
    #[cfg(test)]
    pub(crate) fn file(&self) -> &SpillFile {
        &self.file
    }
}
