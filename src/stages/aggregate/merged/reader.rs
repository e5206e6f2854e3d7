//! One lane's way through a claim: groups are put together, a part at a time, and given on.
//!
//! Laws
//! - A part whose memory is refused is made of fewer groups; a group by itself has all the memory that there is, in an arena of its own if
//!   the chunk's has no room for its values.

use super::super::key;
use super::super::own::Own;
use super::together::{Call, Together, Window};
use super::{ATTEMPTS, Claim, Merged, NAP};
use crate::stages::from::numbered;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Columns, Faults, Locator, Part, Reader};
use std::ops::Range;
use std::sync::Arc;

/// The reader of one lane.
pub(super) struct MergedReader {
    merged: Arc<Merged>,
    together: Together,
    window: Window,
    claim: Claim,
    /// It counts as one that is at hand.
    has_claim: bool,
    own: Own,
    /// Groups of one part: fewer where they take much memory.
    part_groups: usize,
}

impl MergedReader {
    pub(super) fn new(merged: Arc<Merged>) -> MergedReader {
        MergedReader {
            together: Together::new(&merged.plan, &merged.budget, &merged.of_run),
            window: Window::new(&merged.budget, merged.share),
            claim: Claim::default(),
            has_claim: false,
            own: Own::new(&merged.budget, merged.share),
            part_groups: merged.part_groups,
            merged,
        }
    }
}

impl Reader for MergedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        self.let_go();
        self.claim = self.merged.claim(ticket)?;
        self.has_claim = true;
        Ok(!self.claim.is_empty())
    }

    fn let_go(&mut self) {
        self.forget_part();
        if std::mem::take(&mut self.has_claim) {
            self.start_again();
            self.window.let_go();
            self.claim = Claim::default();
            self.merged.line.ended();
        }
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        self.forget_part();
        let what = match self.claim.open {
            Some(_) => What::Open,
            None => What::Groups(self.take(max_rows)?),
        };
        let faults = Faults::new(arena, stop_at_first);
        let fits = match batch(&self.merged, &self.claim, &self.together, &what, arena, &faults) {
            Ok(batch) => Some(batch),
            Err(Error::Memory { .. }) if what.len() == 1 => {
                let (merged, claim, together) = (&self.merged, &self.claim, &self.together);
                self.own.make_room(&merged.plan, |own| {
                    batch(merged, claim, together, &what, own, &Faults::new(own, false)).map(|_| ())
                })?;
                None
            }
            // It can be asked for again, with fewer rows.
            Err(error) => return Err(error),
        };
        let MergedReader {
            merged,
            claim,
            together,
            own,
            ..
        } = self;
        let (batch, faults) = match fits {
            Some(batch) => (batch, faults),
            None => {
                let own = own.arena();
                let faults = Faults::new(own, stop_at_first);
                let made = batch(merged, claim, together, &what, own, &faults)?;
                // Long values are not here twice while they are looked at.
                match &what {
                    What::Open => claim.open = None,
                    What::Groups(_) => *together = Together::new(&merged.plan, &merged.budget, &merged.of_run),
                }
                (made, faults)
            }
        };
        match &what {
            What::Open => claim.open_given = true,
            What::Groups(groups) => claim.given = groups.end,
        }
        Ok(Part {
            batch,
            faults,
            last: claim.given >= claim.groups(),
            locator: Locator::default(),
        })
    }
}

impl Drop for MergedReader {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// What a part gives.
enum What {
    /// The group that began earlier.
    Open,
    /// These groups of the picks.
    Groups(Range<usize>),
}

impl What {
    fn len(&self) -> usize {
        match self {
            What::Open => 1,
            What::Groups(groups) => groups.len(),
        }
    }
}

impl MergedReader {
    /// Lets go of what the part before took.
    fn forget_part(&mut self) {
        if std::mem::take(&mut self.claim.open_given) {
            self.claim.open = None;
        }
        self.own.clear();
    }

    /// Puts the next groups of the picks together: at most so many, fewer if memory is refused.
    fn take(&mut self, max: usize) -> Result<Range<usize>> {
        let left = self.claim.groups() - self.claim.given;
        let mut len = max.min(self.part_groups).clamp(1, left.max(1)).min(left);
        let mut attempts = 0;
        loop {
            let (first, last) = (self.claim.given, self.claim.given + len);
            let Claim { starts, picks, .. } = &self.claim;
            self.together.clear();
            let rows = starts[first]..starts[last];
            let taken = self.together.take(picks, rows, &starts[first..last], &mut self.window);
            match taken.and_then(|()| self.together.close()) {
                Ok(()) => {
                    if self.together.reservation.bytes() > self.merged.room_bytes {
                        self.part_groups = len.div_ceil(2);
                    }
                    return Ok(first..last);
                }
                Err(Error::Memory { .. }) if len > 1 => {
                    self.start_again();
                    len = len.div_ceil(2);
                    self.part_groups = len;
                }
                Err(Error::Memory { .. }) if attempts < ATTEMPTS => {
                    self.merged.line.go_on()?;
                    self.start_again();
                    attempts += 1;
                    std::thread::sleep(NAP);
                }
                Err(error) => return Err(self.merged.plan.held(error)),
            }
        }
    }

    fn start_again(&mut self) {
        self.together = Together::new(&self.merged.plan, &self.merged.budget, &self.merged.of_run);
    }
}

/// The groups that `what` names: those of `together`, unless it is the open one.
fn batch<'a>(
    merged: &Merged,
    claim: &Claim,
    together: &Together,
    what: &What,
    arena: &'a Arena,
    faults: &Faults<'a>,
) -> Result<Batch<'a>> {
    let plan = &*merged.plan;
    let (together, from, open) = match (what, &claim.open) {
        (What::Open, Some(open)) => (&open.together, claim.first - 1, Some(open)),
        (What::Open, None) => (together, claim.first, None),
        (What::Groups(groups), _) => (together, claim.first + groups.start as u64, None),
    };
    let first = match what {
        What::Open => 0,
        What::Groups(groups) => groups.start,
    };
    let key = |at: usize| -> &[u8] {
        match open {
            Some(open) => &open.key,
            None => {
                let key = claim.picks.key(claim.starts[first + at]);
                &key[..key.len() - plan.mark_bytes()]
            }
        }
    };
    let groups = what.len();
    let keys = arena.fill::<&[u8]>(groups, &[])?;
    for (at, slot) in keys.iter_mut().enumerate() {
        *slot = arena.copy(key(at))?;
    }
    let mut columns = Columns::new(arena, plan.key_fields.len() + plan.calls.len())?;
    let mut keyed = key::Keyed::new(keys);
    for ty in plan.key_types() {
        columns.push(keyed.column(ty, arena)?);
    }
    let numbers = arena.collect(groups, |at| at as u32)?;
    for (call, states) in plan.calls.iter().zip(&together.calls) {
        let mut fault = |at: usize, code, text: &str| plan.fault(call, at, code, text, key(at), faults);
        columns.push(match states {
            Call::States(states) => states.finish(numbers, arena, &mut fault)?,
            Call::Folds(folds) => folds.finish(arena, &mut fault)?,
        });
    }
    let places = numbered(from, groups, arena)?;
    Ok(Batch::new(columns.finish(), Some(places), groups))
}
