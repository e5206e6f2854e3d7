//! A frame that was read back: keys at once, rows when somebody asks.

use super::file::{SpillFile, room};
use super::frame::{self, Bad};
use super::keys::Keys;
use super::lists::FrameAt;
use crate::stages::codes::held;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Batch, Budget, Kept, Reservation};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A loaded frame.
pub struct Frame {
    file: Arc<SpillFile>,
    at: FrameAt,
    keys: Keys,
    rows: OnceLock<Kept>,
    reading: Mutex<()>,
    frees: bool,
    _reservation: Reservation,
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.frees {
            self.file.free(self.at.keys);
            self.file.free(self.at.rows);
        }
    }
}

impl Frame {
    /// Reads the keys, with memory of `budget` for the rows too. With `frees`, the disk is given back with the frame.
    ///
    /// # Errors
    /// `Memory` if that is refused, `Failed` if the file is damaged.
    pub(super) fn load(file: &Arc<SpillFile>, at: FrameAt, budget: &Arc<Budget>, frees: bool) -> Result<Arc<Frame>> {
        let mut reservation = budget.reserve();
        reservation.grow(at.bytes())?;
        let contents = file.contents(at.keys)?;
        let keys = Keys::decode(contents, at.count).map_err(|bad| bad_in(file, bad))?;
        Ok(Arc::new(Frame {
            file: file.clone(),
            at,
            keys,
            rows: OnceLock::new(),
            reading: Mutex::default(),
            frees,
            _reservation: reservation,
        }))
    }

    pub fn len(&self) -> usize {
        self.at.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.at.count == 0
    }

    /// The key of row `row`.
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }

    /// The order of row `row`: chunk, and row in it.
    #[inline]
    pub fn order(&self, row: usize) -> (u64, u32) {
        (self.keys.chunks[row], self.keys.rows[row])
    }

    /// The rows: read and unpacked by the first who asks, while others that ask wait.
    ///
    /// # Errors
    /// `Failed` if the file is damaged.
    pub fn rows(&self) -> Result<Batch<'_>> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows.batch());
        }
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = self.rows.get() {
            return Ok(rows.batch());
        }
        let limit = self.at.rows.bytes().next_multiple_of(standpipe_sdk::arena::ALIGN) + self.at.unpacked as usize;
        let mut stored = room(self.at.rows.stored_bytes())?;
        let kept = Kept::make(limit, |arena| {
            let contents = arena.fill(self.at.rows.bytes(), 0u8)?;
            self.file.read(self.at.rows, &mut stored, contents)?;
            let batch = frame::decode(contents, arena)?;
            if batch.rows() == self.len() {
                Ok(batch)
            } else {
                Err(Bad::Damaged)
            }
        });
        let kept = kept.map_err(|bad| bad_in(&self.file, bad))?;
        Ok(self.rows.get_or_init(|| kept).batch())
    }
}

fn bad_in(file: &SpillFile, bad: Bad) -> Error {
    match bad {
        Bad::Damaged => file.failed("read", "a block is not what was written"),
        Bad::Refused(error) => held(file.stage(), error),
    }
}
