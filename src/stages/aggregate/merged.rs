//! Spilled groups as a source.
//!
//! How: the merge brings equal keys together; claims are runs of them, so that lanes put groups together in parallel. A group that may go
//! on in the next claim is put together under the lock, and handed on once another one begins: so a group may be as large as it likes.
//!
//! Laws
//! - The first row of a group is one of states (see [`super::spill`]), so it tells how long the group's key is.
//! - A group takes no more memory than its value does: of what its states are cut into there is one entry at a time.
//! - Where values may be as long as a row, there are only so many claims at a time that there is room for one such value in each: what
//!   is refused does not hang on which lane was faster.
//! - Of what all states of an aggregate may take together, nothing is set aside for the group that may go on: it waits until the lanes have
//!   given it back, which need not wait for it.

use super::packed::Packed;
use super::{Aggregate, Plan, key};
use crate::stages::from::numbered;
use crate::stages::spill::Merge;
use crate::stages::spill::merge::Picks;
use standpipe_sdk::aggregate::{Entry, Folds, OfRun, States};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Columns, Data, Faults, Locator, Part, Reader, Reservation, Source};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Groups of one part.
const PART_GROUPS: usize = 4 << 10;
/// How long a lane sleeps before it looks again whether others have given memory back, and how often it does.
const NAP: Duration = Duration::from_micros(100);
const ATTEMPTS: usize = 10_000;
/// Of the memory this part is for the groups, not for what is read of the disk.
const BESIDE_PART: usize = 4;
/// What one value takes, times its length: while it grows in the group that is open, in the one before that, and when it is given.
const COPIES: usize = 5;
/// Rows that are put together at a time.
const WINDOW_ROWS: usize = 4 << 10;

/// Spilled groups.
pub(super) struct Merged {
    plan: Arc<Plan>,
    state: Mutex<Merging>,
    over: AtomicBool,
    tickets: AtomicU64,
    budget: Arc<Budget>,
    cancelled: Arc<AtomicBool>,
    share: usize,
    of_run: OfRun,
    part_groups: usize,
    /// What a lane's groups should take at most, in bytes, and what is set aside for one group that may go on.
    room_bytes: usize,
    /// Claims that may be at hand at a time.
    most_claims: usize,
}

/// What is left beside the merge for one value, in a budget of so many bytes: nothing is promised to values of a good part of the memory.
pub(super) fn value_floor(budget_bytes: usize, longest: usize) -> usize {
    longest.saturating_mul(COPIES).min(budget_bytes / 2)
}

/// What groups that are put together have for themselves, whatever the merge takes: this part of the memory, and no more than that, in
/// bytes.
const GROUPS_PART: usize = 8;
const MOST_FOR_GROUPS: usize = 4 << 20;

/// The same in a budget of so many bytes.
pub(super) fn groups_floor(budget_bytes: usize) -> usize {
    (budget_bytes / GROUPS_PART).min(MOST_FOR_GROUPS)
}

/// The same where values may be as long as a row.
pub(super) fn long_floor(budget_bytes: usize, longest: usize) -> usize {
    value_floor(budget_bytes, longest).max(groups_floor(budget_bytes))
}

struct Merging {
    merge: Merge,
    /// The ticket that is picked for next.
    next: u64,
    /// The group that may go on in the next picks.
    open: Option<Box<Open>>,
    /// Groups picked so far.
    groups: u64,
    /// Picked for lanes that have not come yet.
    ready: VecDeque<(u64, Claim)>,
    /// Claims that lanes are at.
    at_hand: usize,
    window: Window,
}

/// One group by itself.
struct Open {
    key: Vec<u8>,
    together: Together,
}

/// Groups picked for one lane.
#[derive(Default)]
struct Claim {
    /// A group that began earlier, before those of the picks, until it was given.
    open: Option<Box<Open>>,
    open_given: bool,
    picks: Picks,
    /// Where each group starts in the picks, and where the last one ends.
    starts: Vec<usize>,
    /// The number of the picks' first group in the output.
    first: u64,
    /// Groups of the picks that were given.
    given: usize,
}

impl Claim {
    /// Groups of the picks.
    fn groups(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    fn is_empty(&self) -> bool {
        self.open.is_none() && self.groups() == 0
    }
}

impl Merged {
    pub(super) fn new(stage: &Aggregate) -> Result<Merged> {
        let columns = stage.plan.key_fields.len() + stage.plan.calls.len();
        let limit = stage.budget.limit();
        let (beside, most_claims) = match stage.plan.makes_long() {
            false => (limit / BESIDE_PART, usize::MAX),
            true => {
                let value = value_floor(limit, stage.of_run.longest);
                let beside = value.max(limit / BESIDE_PART);
                (beside, beside / value.max(1))
            }
        };
        let floor = match stage.plan.makes_long() {
            false => groups_floor(limit),
            true => long_floor(limit, stage.of_run.longest),
        };
        // Where there is less, that has to do.
        let budget = stage.budget.part(floor).or_else(|_| stage.budget.part(0))?;
        Ok(Merged {
            plan: stage.plan.clone(),
            state: Mutex::new(Merging {
                merge: Merge::beside(&stage.store, &stage.budget, beside)?,
                next: 0,
                open: None,
                groups: 0,
                ready: VecDeque::new(),
                at_hand: 0,
                window: Window::new(&budget, stage.share),
            }),
            over: AtomicBool::new(false),
            tickets: AtomicU64::new(0),
            budget,
            cancelled: stage.cancelled.clone(),
            share: stage.share,
            of_run: stage.of_run.clone(),
            room_bytes: (limit / BESIDE_PART).min(stage.plan.ceiling().unwrap_or(usize::MAX)) / (2 * stage.workers + 2),
            most_claims,
            part_groups: (stage.chunk_bytes / (16 * columns.max(1))).clamp(1, PART_GROUPS),
        })
    }

    fn claim(&self, ticket: u64) -> Result<Claim> {
        loop {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = state.ready.iter().position(|(number, _)| *number == ticket);
            if let Some(at) = ready {
                let claim = state.ready.swap_remove_back(at).map(|(_, claim)| claim);
                state.at_hand += 1;
                return Ok(claim.unwrap_or_default());
            }
            if state.at_hand + state.ready.len() >= self.most_claims {
                drop(state);
                std::thread::sleep(NAP);
                continue;
            }
            let mut claim = Claim::default();
            let rows = state.merge.claim_rows();
            match state.merge.next(rows, &mut claim.picks) {
                Ok(()) => {}
                Err(Error::Memory { .. }) => {
                    // Other lanes hold all frames that there is room for.
                    drop(state);
                    std::thread::sleep(NAP);
                    continue;
                }
                Err(error) => return Err(self.plan.held(error)),
            }
            let over = claim.picks.is_empty();
            self.close(&mut state, &mut claim).map_err(|e| self.plan.held(e))?;
            if claim.is_empty() && !over {
                continue;
            }
            if over {
                self.over.store(true, SeqCst);
            }
            let number = state.next;
            state.next += 1;
            state.ready.push_back((number, claim));
        }
    }

    /// A lane has let go of its claim.
    fn ended(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).at_hand -= 1;
    }

    /// Makes groups of the picks; the last one stays open unless this is the end.
    fn close(&self, state: &mut Merging, claim: &mut Claim) -> Result<()> {
        let (rows, mut at) = (claim.picks.len(), 0);
        if let Some(mut open) = state.open.take() {
            while at < rows && claim.picks.key(at).starts_with(&open.key) {
                at += 1;
            }
            open.together.take(&claim.picks, 0..at, &[], &mut state.window)?;
            if open.together.reservation.bytes() > self.room_bytes {
                open.together.slim(&mut state.window)?;
            }
            if at == rows && rows > 0 {
                state.open = Some(open);
                return Ok(());
            }
            open.together.close()?;
            claim.open = Some(open);
            state.groups += 1;
        }
        claim.first = state.groups;
        if at == rows {
            return Ok(());
        }
        let mark = self.plan.mark_bytes();
        let group_of = |row: usize| {
            let key = claim.picks.key(row);
            &key[..key.len() - mark]
        };
        let mut group = group_of(at);
        claim.starts.push(at);
        for row in at + 1..rows {
            if !claim.picks.key(row).starts_with(group) {
                claim.starts.push(row);
                group = group_of(row);
            }
        }
        let last = claim.starts.last().copied().unwrap_or(at);
        let mut open = Box::new(Open {
            key: group.to_vec(),
            together: self.with_room()?,
        });
        open.together
            .take(&claim.picks, last..rows, &[last], &mut state.window)?;
        if open.together.reservation.bytes() > self.room_bytes {
            open.together.slim(&mut state.window)?;
        }
        state.open = Some(open);
        state.groups += claim.groups() as u64;
        Ok(())
    }
}

impl Merged {
    /// For one group, with memory set aside. Lanes that are at earlier groups may have it; they give it back without being waited for.
    fn with_room(&self) -> Result<Together> {
        let mut together = Together::new(&self.plan, &self.budget, &self.of_run);
        together.waits = Some(self.cancelled.clone());
        // Where claims are counted, those at hand have what they need: what is refused now somebody else has, who may keep it.
        let attempts = if self.most_claims < usize::MAX { 0 } else { ATTEMPTS };
        for attempt in 0.. {
            if self.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            match together.reservation.set_aside(self.room_bytes) {
                Err(Error::Memory { .. }) if attempt < attempts => std::thread::sleep(NAP),
                // It may do with less.
                _ => break,
            }
        }
        Ok(together)
    }
}

impl Source for Merged {
    fn ticket(&self) -> Option<u64> {
        (!self.over.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MergedReader {
            together: Together::new(&self.plan, &self.budget, &self.of_run),
            window: Window::new(&self.budget, self.share),
            claim: Claim::default(),
            has_claim: false,
            own: Arena::new(self.share),
            own_room: self.budget.reserve(),
            part_groups: self.part_groups,
            merged: self,
        }))
    }
}

struct MergedReader {
    merged: Arc<Merged>,
    together: Together,
    window: Window,
    claim: Claim,
    /// It counts as one that is at hand.
    has_claim: bool,
    /// For one group whose values are too long for the chunk's arena.
    own: Arena,
    own_room: Reservation,
    /// Groups of one part: fewer where they take much memory.
    part_groups: usize,
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
        if self.merged.most_claims < usize::MAX || self.together.reservation.bytes() > self.merged.room_bytes {
            self.start_again();
        }
        self.claim = Claim::default();
        if std::mem::take(&mut self.has_claim) {
            self.merged.ended();
        }
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        self.forget_part();
        let what = match self.claim.open {
            Some(_) => What::Open,
            None => What::Groups(self.take(max_rows)?),
        };
        let faults = Faults::new(arena, stop_at_first);
        let fits = match self.batch(&what, arena, &faults) {
            Ok(batch) => Some(batch),
            Err(Error::Memory { .. }) if what.len() == 1 => {
                self.make_room(&what)?;
                None
            }
            // It can be asked for again, with fewer rows.
            Err(error) => return Err(error),
        };
        match &what {
            What::Open => self.claim.open_given = true,
            What::Groups(groups) => self.claim.given = groups.end,
        }
        let last = self.claim.given >= self.claim.groups();
        let this: &'a Self = self;
        let (batch, faults) = match fits {
            Some(batch) => (batch, faults),
            None => {
                let faults = Faults::new(&this.own, stop_at_first);
                (this.batch(&what, &this.own, &faults)?, faults)
            }
        };
        Ok(Part {
            batch,
            faults,
            last,
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
        if self.own.used() > 0 {
            self.own.release();
            self.own.set_limit(self.merged.share);
            self.own_room.shrink(self.own_room.bytes());
        }
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
                Err(Error::Memory { .. }) if attempts < ATTEMPTS && !self.merged.cancelled.load(SeqCst) => {
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

    /// Makes `own` as large as it takes.
    fn make_room(&mut self, what: &What) -> Result<()> {
        loop {
            let faults = Faults::new(&self.own, false);
            let made = self.batch(what, &self.own, &faults).map(|_| ());
            match made {
                Err(Error::Memory { limit, .. }) if limit == self.own.limit() => {
                    self.own_room.grow(limit).map_err(|e| self.merged.plan.held(e))?;
                    self.own.release();
                    self.own.set_limit(limit.saturating_mul(2));
                }
                made => {
                    self.own.reset();
                    return made.map_err(|e| self.merged.plan.held(e));
                }
            }
        }
    }

    fn batch<'a>(&self, what: &What, arena: &'a Arena, faults: &Faults<'a>) -> Result<Batch<'a>> {
        let (plan, claim) = (&*self.merged.plan, &self.claim);
        let (together, from, open) = match (what, &claim.open) {
            (What::Open, Some(open)) => (&open.together, claim.first - 1, Some(open)),
            (What::Open, None) => (&self.together, claim.first, None),
            (What::Groups(groups), _) => (&self.together, claim.first + groups.start as u64, None),
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
}

/// Groups that are put together, one after the other.
struct Together {
    plan: Arc<Plan>,
    calls: Vec<Call>,
    reservation: Reservation,
    /// Groups that began.
    groups: usize,
    /// Bytes of the key of the last one.
    key_bytes: usize,
    /// Of a group that may go on: until this is set, it may wait for what an aggregate's other states have.
    waits: Option<Arc<AtomicBool>>,
}

/// What one aggregate has of them.
enum Call {
    States(Box<dyn States>),
    Folds(Box<dyn Folds>),
}

impl Together {
    fn new(plan: &Arc<Plan>, budget: &Arc<Budget>, of_run: &OfRun) -> Together {
        let call = |(at, call): (usize, &super::Called)| {
            let aggregate = &call.arg.aggregate;
            match aggregate.folds(of_run.longest).filter(|_| plan.cut.contains(&at)) {
                Some(folds) => Call::Folds(folds),
                None => Call::States(aggregate.states(of_run)),
            }
        };
        Together {
            calls: plan.calls.iter().enumerate().map(call).collect(),
            plan: plan.clone(),
            reservation: budget.reserve(),
            groups: 0,
            key_bytes: 0,
            waits: None,
        }
    }

    /// Whether what was refused may be there later; then some time has gone by.
    fn waited(&self, refused: &Error, attempts: &mut usize) -> bool {
        let waits = match (refused, &self.waits) {
            (Error::Memory { limit, .. }, Some(cancelled)) => self.plan.is_ceiling(*limit) && !cancelled.load(SeqCst),
            _ => false,
        };
        *attempts += usize::from(waits);
        if waits {
            std::thread::sleep(NAP);
        }
        waits && *attempts < ATTEMPTS
    }

    fn clear(&mut self) {
        self.groups = 0;
        for call in &mut self.calls {
            match call {
                Call::States(states) => states.clear(),
                Call::Folds(folds) => folds.clear(),
            }
        }
    }

    /// The group at hand is complete, and the last one.
    fn close(&mut self) -> Result<()> {
        for call in &mut self.calls {
            match call {
                Call::States(states) => states.seal(&mut self.reservation)?,
                Call::Folds(folds) if self.groups > 0 => folds.end(&mut self.reservation)?,
                Call::Folds(_) => {}
            }
        }
        Ok(())
    }

    /// Takes these rows; a group begins at each of `starts`, the others go on.
    ///
    /// # Errors
    /// `Memory`: what was taken since `clear` is lost then.
    fn take(&mut self, picks: &Picks, rows: Range<usize>, starts: &[usize], window: &mut Window) -> Result<()> {
        let (mut at, mut next, mut most) = (rows.start, 0, WINDOW_ROWS);
        let (mut slim, mut attempts) = (false, 0);
        while at < rows.end {
            let len = most.min(rows.end - at);
            let begins = starts[next..].partition_point(|&start| start < at + len);
            let taken = self.take_window(picks, at..at + len, &starts[next..next + begins], window);
            window.arena.reset();
            match taken {
                Ok(Taken::All) => (at, next) = (at + len, next + begins),
                // Nothing has changed.
                Ok(Taken::Refused(_)) if len > 1 => most = len.div_ceil(2),
                Ok(Taken::Refused(Error::Memory { limit, .. })) if limit == window.arena.limit() => window.grow()?,
                Ok(Taken::Refused(_)) if !slim && self.groups == 1 => {
                    slim = true;
                    self.slim(window)?;
                }
                Ok(Taken::Refused(error)) if self.waited(&error, &mut attempts) => {}
                Ok(Taken::Refused(error)) => return Err(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives back what the state of the only group does not need.
    fn slim(&mut self, window: &mut Window) -> Result<()> {
        let mut attempts = 0;
        for at in 0..self.calls.len() {
            let Call::States(states) = &mut self.calls[at] else {
                continue;
            };
            let partial = loop {
                match states.partial(&[0], &window.arena) {
                    Err(Error::Memory { limit, .. }) if limit == window.arena.limit() => window.grow()?,
                    partial => break partial?,
                }
            };
            states.release(&mut self.reservation);
            while let Call::States(states) = &mut self.calls[at] {
                match states.room_to_merge(1, partial, &mut self.reservation) {
                    Ok(()) => {
                        states.merge(&[0], partial);
                        break;
                    }
                    // Others may have taken what was given back.
                    Err(refused) if self.waited(&refused, &mut attempts) => {}
                    Err(refused) => return Err(refused),
                }
            }
            window.arena.reset();
        }
        Ok(())
    }

    fn take_window(
        &mut self,
        picks: &Picks,
        rows: Range<usize>,
        starts: &[usize],
        window: &mut Window,
    ) -> Result<Taken> {
        let Window {
            wholes, groups, arena, ..
        } = window;
        wholes.clear();
        groups.clear();
        let (mut group, mut next, mut key_bytes) = (self.groups, starts.iter().peekable(), self.key_bytes);
        let mark = self.plan.mark_bytes();
        for row in rows.clone() {
            if next.next_if(|&&start| start == row).is_some() {
                group += 1;
                key_bytes = picks.key(row).len() - mark;
            }
            if mark == 0 || call_of(picks.key(row), key_bytes) == 0 {
                wholes.push(row as u32);
                groups.push(group.saturating_sub(1) as u32);
            }
        }
        let states = match &self.plan.packed {
            None => picks.gather(rows.start, rows.len(), arena),
            Some(packed) => unpacked(packed, picks, wholes, arena),
        };
        let states = match states {
            // All of one plan's rows store the same kinds of values.
            Ok(states) => states,
            Err(error @ Error::Memory { .. }) => return Ok(Taken::Refused(error)),
            Err(error) => return Err(error),
        };
        if let Err(error) = self.merge(&states, groups, group) {
            return Ok(Taken::Refused(error));
        }
        if mark == 0 {
            self.groups = group;
            return Ok(Taken::All);
        }
        self.fold(picks, rows, starts, &states)?;
        Ok(Taken::All)
    }

    /// Merges partial states; there are `count` groups in all. After a refusal nothing has changed.
    fn merge(&mut self, batch: &Batch<'_>, groups: &[u32], count: usize) -> Result<()> {
        let columns = batch.columns();
        let mut from = 0;
        for (at, call) in self.calls.iter_mut().enumerate() {
            let width = self.plan.spilled(at);
            if let Call::States(states) = call {
                states.room_to_merge(count, &columns[from..from + width], &mut self.reservation)?;
            }
            from += width;
        }
        from = 0;
        for (at, call) in self.calls.iter_mut().enumerate() {
            let width = self.plan.spilled(at);
            if let Call::States(states) = call {
                states.merge(groups, &columns[from..from + width]);
            }
            from += width;
        }
        Ok(())
    }

    /// Row by row what states are cut into. `states`: the rows that are no entries.
    fn fold(&mut self, picks: &Picks, rows: Range<usize>, starts: &[usize], states: &Batch<'_>) -> Result<()> {
        let mut counts: Vec<(usize, &[i64])> = Vec::with_capacity(self.plan.cut.len());
        let mut from = 0;
        for at in 0..self.calls.len() {
            if self.plan.cut.contains(&at) {
                match states.column(from).data() {
                    Data::Int(values) => counts.push((at, values)),
                    _ => counts.push((at, &[])),
                }
            }
            from += self.plan.spilled(at);
        }
        let (mut whole, mut starts) = (0, starts.iter().peekable());
        let reservation = &mut self.reservation;
        for row in rows {
            let key = picks.key(row);
            if starts.next_if(|&&start| start == row).is_some() {
                self.key_bytes = key.len() - size_of::<u16>();
                for call in &mut self.calls {
                    if let Call::Folds(folds) = call {
                        if self.groups > 0 {
                            folds.end(reservation)?;
                        }
                        folds.begin(reservation)?;
                    }
                }
                self.groups += 1;
            }
            let call = call_of(key, self.key_bytes);
            if call == 0 {
                for &(at, values) in &counts {
                    if let Call::Folds(folds) = &mut self.calls[at] {
                        folds.expect(values.get(whole).copied().unwrap_or_default() as u64);
                    }
                }
                whole += 1;
                continue;
            }
            let Some(Call::Folds(folds)) = self.calls.get_mut(call as usize - 1) else {
                continue;
            };
            let (frame, at) = picks.row(row);
            let batch = frame.rows()?;
            let counts = batch.column(0);
            let count = match counts.data() {
                Data::Int(values) if counts.is_valid(at) => values[at] as u64,
                _ => 1,
            };
            let value = value(&batch, at);
            let entry = Entry {
                key: &key[self.key_bytes + size_of::<u16>()..],
                order: frame.order(at),
                count,
                value,
            };
            folds.entry(entry, reservation)?;
        }
        Ok(())
    }
}

/// The partial states of these rows.
fn unpacked<'a>(packed: &Packed, picks: &'a Picks, rows: &[u32], arena: &'a Arena) -> Result<Batch<'a>> {
    let slices = arena.fill::<&[u8]>(rows.len(), &[])?;
    for (slice, &row) in slices.iter_mut().zip(rows) {
        let (frame, at) = picks.row(row as usize);
        *slice = value(&frame.rows()?, at);
    }
    Ok(Batch::new(packed.read(slices, arena)?, None, rows.len()))
}

/// The second column of spilled rows.
fn value<'a>(batch: &Batch<'a>, row: usize) -> &'a [u8] {
    match batch.column(1).data() {
        Data::Bytes(text) => text.bytes(row),
        _ => &[],
    }
}

/// The number behind the group's key.
fn call_of(key: &[u8], key_bytes: usize) -> u16 {
    match key.get(key_bytes..).and_then(|rest| rest.first_chunk::<2>()) {
        Some(number) => u16::from_be_bytes(*number),
        None => 0,
    }
}

/// Whether rows were taken.
enum Taken {
    All,
    /// None of them: fewer may come again.
    Refused(Error),
}

/// Room for looking at some rows.
struct Window {
    arena: Arena,
    room: Reservation,
    /// The rows that are no entries, and the group of each.
    wholes: Vec<u32>,
    groups: Vec<u32>,
}

impl Window {
    fn new(budget: &Arc<Budget>, share: usize) -> Window {
        Window {
            arena: Arena::new(share),
            room: budget.reserve(),
            wholes: Vec::with_capacity(WINDOW_ROWS),
            groups: Vec::with_capacity(WINDOW_ROWS),
        }
    }

    /// One row is longer than the arena.
    fn grow(&mut self) -> Result<()> {
        let limit = self.arena.limit();
        self.room.grow(limit)?;
        self.arena.set_limit(limit.saturating_mul(2));
        Ok(())
    }
}
