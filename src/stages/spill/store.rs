//! The spilled rows of one stage: its file, and the segments that are kept for the merge.
//!
//! Laws
//! - However many segments are kept, they take little memory: most of what is known of them is on disk, group by group.

use super::file::{Address, SpillFile};
use super::floors::store_frame_bytes;
use super::segment::{About, Segment};
use super::writer::{Blocks, SegmentWriter};
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Budget, Spill};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Segments of a group.
pub(super) const GROUP: usize = 64;

/// The spilled rows of one stage: its file, and the segments that are kept.
pub struct Store {
    pub(super) file: Arc<SpillFile>,
    pub(super) budget: Arc<Budget>,
    pub(super) frame_bytes: usize,
    kept: Mutex<Kept>,
}

/// Segments in their order: those of `first`, of `groups`, which are on disk, and of `last`.
#[derive(Default)]
struct Kept {
    first: VecDeque<Segment>,
    groups: VecDeque<Address>,
    last: VecDeque<Segment>,
    count: usize,
    rows: u64,
    largest: usize,
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
            kept: Mutex::default(),
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
        SegmentWriter::new(self)
    }

    /// Keeps a segment for the merge, behind all that are kept. Of many, what is known goes to disk, through `blocks`.
    ///
    /// # Errors
    /// `Failed` if the disk is full or fails.
    pub(super) fn keep_with(&self, segment: Segment, blocks: &mut Blocks) -> Result<()> {
        let mut kept = self.lock();
        kept.push(segment);
        while kept.last.len() > GROUP {
            let Kept { last, groups, .. } = &mut *kept;
            let group = blocks.write(GROUP * About::BYTES, &|out| {
                last.iter().take(GROUP).for_each(|segment| segment.about.encode(out));
            })?;
            groups.push_back(group);
            last.drain(..GROUP);
        }
        Ok(())
    }

    /// Keeps one of few segments.
    pub(super) fn keep(&self, segment: Segment) {
        self.lock().push(segment);
    }

    /// The first segment, from now on the caller's.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub(super) fn take_first(&self) -> Result<Option<Segment>> {
        self.lock().pop(&self.file)
    }

    /// Of segments that follow one another leaves the last ones that have `most` rows together, and gives the disk of the others back. How many
    /// rows are left.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn leave_last(&self, most: u64) -> Result<u64> {
        let mut kept = self.lock();
        while let Some(first) = kept.pop(&self.file)? {
            if kept.rows < most {
                kept.unpop(first);
                break;
            }
            first.free()?;
        }
        Ok(kept.rows)
    }

    /// How many segments are kept.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Memory that the largest frame of all segments takes.
    pub fn largest(&self) -> usize {
        self.lock().largest
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Test hook: the file that is written to.
    #[cfg(test)]
    pub(crate) fn file(&self) -> &SpillFile {
        &self.file
    }
}

impl Kept {
    fn push(&mut self, segment: Segment) {
        if segment.rows() > 0 {
            self.count += 1;
            self.rows += segment.rows();
            self.largest = self.largest.max(segment.largest());
            self.last.push_back(segment);
        }
    }

    fn pop(&mut self, file: &Arc<SpillFile>) -> Result<Option<Segment>> {
        if self.first.is_empty() {
            match self.groups.pop_front() {
                Some(group) => {
                    let contents = file.contents(group)?;
                    file.free(group);
                    let group = contents.as_chunks().0.iter().map(About::decode);
                    self.first.extend(group.map(|about| Segment::new(file, about)));
                }
                None => std::mem::swap(&mut self.first, &mut self.last),
            }
        }
        let first = self.first.pop_front();
        if let Some(segment) = &first {
            self.count -= 1;
            self.rows -= segment.rows();
        }
        Ok(first)
    }

    fn unpop(&mut self, first: Segment) {
        self.count += 1;
        self.rows += first.rows();
        self.first.push_front(first);
    }
}
