//! The merged rows as a source.
//!
//! Laws
//! - Claims are picked one after the other, in the order of tickets; everything else is done by all lanes at the same time.
//! - A row's place is its number in the output.

use super::{Merge, Picks};
use crate::stages::codes::held;
use crate::stages::from::numbered;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Faults, Locator, Part, Reader, Source};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The merged rows as a source: claims are picked one after the other, everything else is done by all lanes at the same time.
///
/// A row's place is its number in the output.
pub struct Merged {
    state: Mutex<State>,
    tickets: AtomicU64,
    /// Everything is picked.
    over: AtomicBool,
    cancelled: Arc<AtomicBool>,
    part_rows: usize,
}

/// Which of the rows that are merged stay.
pub trait Choose: Send {
    /// Whether no further row stays.
    fn is_over(&self) -> bool;

    /// Leaves of the next rows those that stay.
    ///
    /// # Errors
    /// `Memory` if there is none for what it keeps; `Failed` if what it reads is damaged.
    fn choose(&mut self, picks: &mut Picks) -> Result<()>;
}

struct State {
    merge: Merge,
    /// If not all rows are given.
    choice: Option<Box<dyn Choose>>,
    /// The ticket that is picked for next.
    next: u64,
    /// The number of the next row.
    row: u64,
    /// Picked for lanes that have not come yet.
    ready: VecDeque<(u64, Claim)>,
}

#[derive(Default)]
struct Claim {
    picks: Picks,
    /// The number of the first row.
    row: u64,
    /// Rows that were given.
    given: usize,
}

impl Merged {
    /// For a stage that was made with these.
    pub fn new(merge: Merge, setup: &Setup) -> Merged {
        Merged::with(merge, setup.chunk_bytes, setup.cancelled.clone())
    }

    /// The same of those rows alone that `choice` leaves.
    pub fn of_chosen(merge: Merge, choice: impl Choose + 'static, setup: &Setup) -> Merged {
        let merged = Merged::new(merge, setup);
        merged.state.lock().unwrap_or_else(PoisonError::into_inner).choice = Some(Box::new(choice));
        merged
    }

    /// With parts of about `chunk_bytes`.
    pub fn with(merge: Merge, chunk_bytes: usize, cancelled: Arc<AtomicBool>) -> Merged {
        Merged {
            part_rows: (chunk_bytes / merge.row_bytes()).max(1),
            state: Mutex::new(State {
                merge,
                choice: None,
                next: 0,
                row: 0,
                ready: VecDeque::new(),
            }),
            tickets: AtomicU64::new(0),
            over: AtomicBool::new(false),
            cancelled,
        }
    }

    fn claim(&self, ticket: u64) -> Result<Claim> {
        const NAP: Duration = Duration::from_micros(100);
        loop {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = state.ready.iter().position(|(number, _)| *number == ticket) {
                let claim = state.ready.swap_remove_back(at).map(|(_, claim)| claim);
                return Ok(claim.unwrap_or_default());
            }
            let mut picks = Picks::default();
            let is_over = match state.next_picks(&mut picks) {
                Ok(is_over) => is_over,
                Err(Error::Memory { limit, .. }) if limit == state.merge.pool.limit() => {
                    // Other lanes hold all frames that there is room for.
                    drop(state);
                    std::thread::sleep(NAP);
                    continue;
                }
                Err(error) => return Err(held(state.merge.store.stage(), error)),
            };
            if is_over {
                self.over.store(true, SeqCst);
            } else if picks.is_empty() {
                // None of these rows stays.
                continue;
            }
            let (number, row) = (state.next, state.row);
            state.next += 1;
            state.row += picks.len() as u64;
            state.ready.push_back((number, Claim { picks, row, given: 0 }));
        }
    }
}

impl State {
    /// The next rows, and whether none come behind them.
    fn next_picks(&mut self, picks: &mut Picks) -> Result<bool> {
        let Some(choice) = &mut self.choice else {
            self.merge.next(self.merge.claim_rows, picks)?;
            return Ok(picks.is_empty());
        };
        if choice.is_over() {
            return Ok(true);
        }
        self.merge.next(self.merge.claim_rows, picks)?;
        let none = picks.is_empty();
        choice.choose(picks)?;
        Ok(none || choice.is_over())
    }
}

impl Source for Merged {
    fn ticket(&self) -> Option<u64> {
        (!self.over.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MergedReader {
            merged: self,
            claim: Claim::default(),
        }))
    }
}

struct MergedReader {
    merged: Arc<Merged>,
    claim: Claim,
}

impl Reader for MergedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        // The frames of the claim before go first: they may be what this one waits for.
        self.claim = Claim::default();
        self.claim = self.merged.claim(ticket)?;
        Ok(!self.claim.picks.is_empty())
    }

    fn let_go(&mut self) {
        self.claim = Claim::default();
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let Claim { picks, row, given } = &mut self.claim;
        let left = picks.len() - *given;
        let len = max_rows.min(self.merged.part_rows).clamp(1, left.max(1)).min(left);
        let rows = picks.gather(*given, len, arena)?;
        let places = numbered(*row + *given as u64, rows.rows(), arena)?;
        let batch = Batch::new(rows.columns(), Some(places), rows.rows());
        // Only now: a refused part can be asked for again, with fewer rows.
        *given += rows.rows();
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last: *given >= picks.len(),
            locator: Locator::default(),
        })
    }
}
