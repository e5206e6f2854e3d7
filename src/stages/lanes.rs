//! Lanes of a stage that keep rows and spill them: one that is refused the memory for a single row has the others make room.
//!
//! Laws
//! - No lane waits for another while it is locked.

use standpipe_sdk::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often other lanes may take the memory that was freed for a row before that is an error.
const ATTEMPTS: usize = 100;

/// A lane, which others may have to make room.
pub(super) type Shared<L> = Arc<Mutex<L>>;

/// All lanes of a stage.
pub(super) struct Lanes<L>(Mutex<Vec<Shared<L>>>);

impl<L> Default for Lanes<L> {
    fn default() -> Self {
        Lanes(Mutex::default())
    }
}

impl<L> Lanes<L> {
    pub(super) fn add(&self, lane: L) -> Shared<L> {
        let lane = Arc::new(Mutex::new(lane));
        lock(&self.0).push(lane.clone());
        lane
    }

    /// All of them, from now on the caller's.
    pub(super) fn take(&self) -> Vec<Shared<L>> {
        std::mem::take(&mut *lock(&self.0))
    }

    /// Has `lane` take a batch: `push` takes the rows from a number on and moves that on. Where it has nothing any more that it could spill,
    /// and still no memory for a row, `spill` is called for all others.
    ///
    /// # Errors
    /// What `push` and `spill` answer.
    pub(super) fn push(
        &self,
        lane: &Shared<L>,
        push: impl Fn(&mut L, &mut usize) -> Result<()>,
        spill: impl Fn(&mut L) -> Result<()>,
    ) -> Result<()> {
        let (mut from, mut attempts) = (0, 0);
        loop {
            let before = from;
            let outcome = push(&mut lock(lane), &mut from);
            // Each row has as many.
            attempts = if from == before { attempts + 1 } else { 1 };
            match outcome {
                Err(Error::Memory { .. }) if attempts <= ATTEMPTS => {
                    let lanes = lock(&self.0).clone();
                    for other in lanes.iter().filter(|other| !Arc::ptr_eq(other, lane)) {
                        spill(&mut lock(other))?;
                    }
                }
                other => return other,
            }
        }
    }
}

/// A panic that left it poisoned ends the run by itself.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
