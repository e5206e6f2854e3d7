//! The processes that the instances of one bound aggregate share: there is an instance per table of groups, and a process for each would be
//! too much.
//!
//! Laws
//! - A process is for one call at a time.
//! - Once one is lost, all calls fail with the same words, at once: the states are of no use without those that are gone. So an
//!   aggregate's error comes in time, however many tables it has. With the last instance this is forgotten.

use super::super::E_PROCESS;
use super::super::worker::{Lost, Worker};
use super::Failed;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Slots {
    all: Mutex<All>,
    /// What [`All::lost`] says, to be asked while calls go on.
    is_lost: AtomicBool,
}

#[derive(Default)]
struct All {
    slots: Vec<Arc<Slot>>,
    /// Where the last instance went.
    last: usize,
    /// How many instances there are.
    instances: usize,
    /// Why a process was lost.
    lost: Option<String>,
}

/// A process for several instances.
#[derive(Default)]
pub(super) struct Slot(Mutex<Housed>);

#[derive(Default)]
struct Housed {
    worker: Option<Worker>,
    /// The instances that are in it.
    ids: BTreeSet<u64>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Housed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The most processes.
    const MOST: usize = 8;

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    fn sound(&self) -> Result<(), Failed> {
        match &self.all().lost {
            Some(text) => Err(Failed::new(E_PROCESS, text)),
            None => Ok(()),
        }
    }

    fn lose(&self, text: &str) {
        // Both at once: the last instance may be forgetting it.
        let mut all = self.all();
        all.lost.get_or_insert_with(|| text.to_owned());
        self.is_lost.store(true, Relaxed);
    }

    /// Remembers that a process was lost, if that is why a call failed.
    fn seen<T>(&self, outcome: Result<T, Failed>) -> Result<T, Failed> {
        if let Err(failed) = &outcome
            && failed.status == E_PROCESS
        {
            self.lose(&failed.error.text());
        }
        // Who was called off because of another one says what that one said.
        outcome.or_else(|failed| self.sound().and(Err(failed)))
    }

    /// A new instance, in the next process.
    pub(super) fn enter(
        &self,
        id: u64,
        start: impl FnOnce() -> Result<Worker, Failed>,
        create: impl FnOnce(&mut Worker) -> Result<(), Failed>,
    ) -> Result<Arc<Slot>, Failed> {
        self.sound()?;
        let slot = {
            let mut all = self.all();
            if all.slots.is_empty() {
                let count = std::thread::available_parallelism().map_or(1, usize::from);
                all.slots.resize_with(count.min(Slots::MOST), Arc::default);
            }
            all.last = (all.last + 1) % all.slots.len();
            all.slots[all.last].clone()
        };
        let mut housed = slot.lock();
        let outcome = match &mut housed.worker {
            Some(worker) => create(worker),
            none => start().and_then(|worker| create(none.insert(worker))),
        };
        self.seen(outcome)?;
        housed.ids.insert(id);
        self.all().instances += 1;
        drop(housed);
        Ok(slot)
    }

    /// Does something in an instance's process.
    pub(super) fn within<T>(
        &self,
        id: u64,
        slot: &Slot,
        run: impl FnOnce(&mut Worker) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let mut housed = slot.lock();
        self.sound()?;
        let Housed { worker, ids } = &mut *housed;
        match worker.as_mut().filter(|_| ids.contains(&id)) {
            Some(worker) => self.seen(run(worker)),
            None => Err(Failed::new(E_PROCESS, "its process is gone")),
        }
    }

    /// An instance goes; the last one of a process gives that.
    pub(super) fn leave(
        &self,
        id: u64,
        slot: &Slot,
        destroy: impl FnOnce(u64, &mut Worker) -> Result<(), Lost>,
    ) -> Result<Option<Worker>, Lost> {
        let mut housed = slot.lock();
        let Housed { worker, ids } = &mut *housed;
        ids.remove(&id);
        // What is in the others then ends with them.
        let is_lost = self.is_lost();
        let outcome = match worker.as_mut().filter(|worker| !worker.lost && !is_lost) {
            Some(worker) => destroy(id, worker),
            None => Ok(()),
        };
        let worker = worker.take_if(|worker| worker.lost || ids.is_empty());
        if let Err(Lost::Process(text)) = &outcome {
            self.lose(text);
        }
        {
            let mut all = self.all();
            all.instances = all.instances.saturating_sub(1);
            if all.instances == 0 {
                all.lost = None;
                self.is_lost.store(false, Relaxed);
            }
        }
        outcome.map(|()| worker.filter(|worker| !worker.lost && !is_lost))
    }
}
