//! Claims: the pieces of input that lanes draw, in the order in which the run counts them.
//!
//! Laws
//! - Sources are drawn from one after the other; one that comes after all is begun when nobody is at an earlier claim.

use super::{NAP, RegionRun};
use crate::runtime::feeds::Kind;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

/// How far the sources are drawn.
#[derive(Default)]
pub(super) struct Claims {
    source: usize,
    /// Nobody was at an earlier claim when the turn of the source came.
    waited: bool,
    pub(super) next: u64,
}

/// A drawn piece of input.
pub(super) struct Draw {
    pub(super) source: usize,
    pub(super) ticket: u64,
    pub(super) claim: u64,
}

impl RegionRun {
    /// The next piece, for this lane; `None` if there is none any more that counts.
    pub(super) fn draw(&self, lane: usize) -> Option<Draw> {
        self.at_work[lane].store(u64::MAX, SeqCst);
        if self.dead.load(SeqCst) {
            return None;
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let source = self.sources.get(claims.source)?;
            let feed = &self.feeds[claims.source];
            // The lock is held meanwhile, so that nobody begins another claim; who is done with one is at none before it asks for it.
            if feed.comes_after_all && !claims.waited {
                while self.at_work.iter().any(|at| at.load(SeqCst) != u64::MAX) {
                    if self.dead.load(SeqCst) {
                        return None;
                    }
                    std::thread::sleep(NAP);
                }
                claims.waited = true;
            }
            let over = self.any_end.load(SeqCst) && {
                let ends = self.ends();
                let is_done = ends.done[claims.source].is_some();
                match &ends.error {
                    // Rows before the bad one may be waiting, or held back by a stage: one of them may be bad too, or end the need for it.
                    Some(failure) if failure.is_in_the_data() => match feed.kind {
                        Kind::Source => true,
                        Kind::Finish => !feed.may_fail,
                        Kind::Again => is_done,
                    },
                    Some(_) => return None,
                    None => is_done,
                }
            };
            match if over { None } else { source.ticket() } {
                Some(ticket) => {
                    let claim = claims.next;
                    claims.next += 1;
                    self.at_work[lane].store(claim, SeqCst);
                    return Some(Draw {
                        source: claims.source,
                        ticket,
                        claim,
                    });
                }
                None => {
                    claims.source += 1;
                    claims.waited = false;
                }
            }
        }
    }
}
