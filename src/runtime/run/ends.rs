//! What ends a run, or the need for one of its sources.
//!
//! Laws
//! - What ends a run is the least (chunk, place, node), whichever worker came first.

use super::{NAP, RegionRun};
use crate::runtime::feeds::Kind;
use crate::runtime::lane::{Chunk, first_of};
use crate::runtime::turnstile::Ticket;
use standpipe_sdk::{Error, Place};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{MutexGuard, PoisonError};

/// Ends so far.
pub(super) struct Ends {
    pub(super) error: Option<Failure>,
    /// For each source the ticket number after which nobody wants its rows.
    pub(super) done: Vec<Option<u64>>,
    /// For each source behind which of its rows nothing is rejected: order of the chunk, and the last place in it that counts.
    cuts: Vec<Option<(u64, Option<Place>)>>,
}

/// What ends the run.
pub(super) struct Failure {
    /// The number of the chunk that what failed came in.
    order: u64,
    ticket: u64,
    /// The chunk is of rows that waited: it may be one of several that came as one.
    waited: bool,
    error: Error,
}

impl Ends {
    /// None yet, of so many sources.
    pub(super) fn of(sources: usize) -> Ends {
        Ends {
            error: None,
            done: vec![None; sources],
            cuts: vec![None; sources],
        }
    }
}

impl Failure {
    /// Something is wrong with the data: what stands before it and has not come yet may be wrong too.
    pub(super) fn is_in_the_data(&self) -> bool {
        matches!(self.error, Error::Row(_) | Error::Io { .. })
    }

    /// From where on nothing matters.
    fn at(&self) -> (u64, Place) {
        match &self.error {
            Error::Row(row) => (self.order, row.place),
            _ => (self.order, Place::default()),
        }
    }
}

impl RegionRun {
    pub(super) fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ended the run; told once.
    pub(super) fn take_error(&self) -> Option<Error> {
        self.ends().error.take().map(|failure| failure.error)
    }

    /// Whether an earlier chunk ended the run, or the need for this source.
    pub(crate) fn ended_before(&self, ticket: Ticket, order: u64, source: usize) -> bool {
        if !self.any_end.load(SeqCst) {
            return false;
        }
        let ends = self.ends();
        let is_earlier =
            |it: &Failure| it.order < order || (it.waited && it.order == order && it.ticket < ticket.number());
        ends.error.as_ref().is_some_and(is_earlier)
            || (ends.done.get(source).copied().flatten()).is_some_and(|end| end < ticket.number())
    }

    /// Whether nobody wants anything of this chunk of a source. Of rows that come again, some may stand before others that ended it.
    pub(crate) fn is_unwanted(&self, ticket: Ticket, order: u64, source: usize) -> bool {
        let is_source = self.feeds.get(source).is_some_and(|feed| feed.kind == Kind::Source);
        is_source && self.ended_before(ticket, order, source)
    }

    /// The run ends with `error` of something that came in the chunk of number `order`, unless an earlier chunk ends it, or the need for
    /// this source, first: so it is judged when its turn has come, once nobody is at an earlier claim.
    pub(super) fn fail(&self, ticket: Ticket, order: u64, source: usize, error: Error) {
        if matches!(error, Error::Cancelled) {
            return;
        }
        let earlier = |at: &AtomicU64| at.load(SeqCst) < ticket.claim();
        while self.at_work.iter().any(earlier) && !self.dead.load(SeqCst) {
            std::thread::sleep(NAP);
        }
        if self.ended_before(ticket, order, source) {
            return;
        }
        let mut ends = self.ends();
        let mut new = Failure {
            order,
            ticket: ticket.number(),
            waited: self.feeds.get(source).is_some_and(|feed| feed.kind == Kind::Again),
            error,
        };
        ends.error = Some(match ends.error.take() {
            Some(old) if old.order < order => old,
            Some(old) if old.order == order => {
                // Of chunks that came as one the earlier one counts, whatever the places say.
                if old.waited && new.waited && old.ticket != new.ticket {
                    if old.ticket < new.ticket { old } else { new }
                } else {
                    new.waited &= old.waited;
                    new.error = first_of(Some(old.error), new.error);
                    new
                }
            }
            _ => new,
        });
        self.any_end.store(true, SeqCst);
    }

    /// The same for what went wrong with `chunk`.
    pub(super) fn fail_at(&self, chunk: &Chunk<'_>, error: Error) {
        let order = match &error {
            Error::Row(row) => chunk.locator.chunk_of(row.place),
            _ => chunk.order,
        };
        self.fail(chunk.ticket, order, chunk.source, error);
    }

    /// From where on nothing matters any more, if something failed.
    pub(super) fn failed(&self) -> Option<(u64, Place)> {
        let ends = self.ends();
        ends.error.as_ref().map(Failure::at)
    }

    /// Nobody wants more of this source behind the chunk, of which the rows up to `end` have counted.
    pub(super) fn done(&self, ticket: Ticket, order: u64, source: usize, end: Option<Place>) {
        let mut ends = self.ends();
        let is_first = ends.done[source].is_none_or(|at| ticket.number() < at);
        if is_first {
            ends.done[source] = Some(ticket.number());
            ends.cuts[source] = Some((order, end));
        }
        self.cut(&mut ends, source, order, end, is_first);
    }

    /// Nobody wants more of what a stage gives at its end: of the input, the rows up to `end` have counted. What is rejected of the rows it
    /// did give comes of itself only up to there.
    pub(super) fn enough(&self, source: usize, order: u64, end: Place) {
        let mut ends = self.ends();
        self.cut(&mut ends, source, order, Some(end), true);
    }

    /// What had come from the feeds that `source` ends was for its rows alone.
    fn cut(&self, ends: &mut Ends, source: usize, order: u64, end: Option<Place>, is_first: bool) {
        let before = &self.feeds[source].ends;
        if is_first {
            before.iter().for_each(|&from| ends.cuts[from] = Some((order, end)));
        }
        let is_behind = |it: &Failure| !it.waited && it.order >= order;
        if !before.is_empty() && ends.error.as_ref().is_some_and(is_behind) {
            // What came before the bad row was enough.
            ends.error = None;
        }
        self.any_end.store(true, SeqCst);
    }

    /// Whether nobody wants what a stage gives at its end: who gets it had enough of what came before. Rows may have been held all the same,
    /// of a chunk that was at work on another lane.
    pub(super) fn had_enough(&self, source: usize) -> bool {
        let ends = self.ends();
        self.feeds[source].ends.iter().any(|&from| ends.cuts[from].is_some())
    }

    /// Whether what was rejected there never counted.
    pub(super) fn is_cut(&self, source: usize, order: u64, place: Place) -> bool {
        let ends = self.ends();
        match ends.cuts.get(source).copied().flatten() {
            Some((at, end)) => order > at || (order == at && end.is_some_and(|end| place > end)),
            None => false,
        }
    }

    /// Nobody wants more of this source, which changes nothing for others.
    pub(super) fn stop(&self, source: usize, ticket: Ticket) {
        let mut ends = self.ends();
        let done = &mut ends.done[source];
        *done = Some(done.map_or(ticket.number(), |at| at.min(ticket.number())));
        self.any_end.store(true, SeqCst);
    }
}
