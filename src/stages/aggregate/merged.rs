//! Spilled groups as a source.
//!
//! How: the merge brings equal keys together; claims are runs of them, so that lanes put groups together in parallel. A group that may go
//! on in the next claim is put together by whoever makes claims, and handed on once another one begins: so a group may be as large as it likes.
//!
//! Laws
//! - The first row of a group is one of states (see [`super::spill`]), so it tells how long the group's key is.
//! - A group takes no more memory than its value does: of what its states are cut into there is one entry at a time.
//! - Where values may be as long as a row, there are only so many claims at a time that there is room for one such value in each: what
//!   is refused does not hang on which lane was faster.
//! - Of what all states of an aggregate may take together, nothing is set aside for the group that may go on: it waits until the lanes have
//!   given it back, which need not wait for it.
//! - A lane without a claim holds no memory, and claims are taken and let go without what their maker has locked: so the maker may sleep until
//!   others give memory back, and does not once there is no claim.

mod line;
mod reader;
mod together;

use super::{Aggregate, Plan};
use crate::stages::lanes::lock;
use crate::stages::spill::{Merge, Picks};
use line::{Line, Patience};
use reader::MergedReader;
use standpipe_sdk::aggregate::OfRun;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Budget, Reader, Source};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;
use together::{Together, Window};

/// Groups of one part.
const PART_GROUPS: usize = 4 << 10;
/// How long a lane sleeps before it looks again whether others have given memory back, and how often it does.
const NAP: Duration = Duration::from_micros(100);
const ATTEMPTS: usize = 10_000;
/// Of the memory this part is for the groups, not for what is read of the disk.
const BESIDE_PART: usize = 4;
/// What one value takes, times its length: while it grows in the group that is open, in the one before that, and when it is given.
const COPIES: usize = 5;

/// Spilled groups.
pub(super) struct Merged {
    plan: Arc<Plan>,
    maker: Mutex<Maker>,
    line: Arc<Line>,
    over: AtomicBool,
    tickets: AtomicU64,
    budget: Arc<Budget>,
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

/// Where claims are made, one after the other.
struct Maker {
    merge: Merge,
    /// The ticket that is picked for next.
    next: u64,
    /// The group that may go on in the next picks.
    open: Option<Box<Open>>,
    /// Groups picked so far.
    groups: u64,
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
            maker: Mutex::new(Maker {
                merge: Merge::beside(&stage.store, &stage.budget, beside)?,
                next: 0,
                open: None,
                groups: 0,
                window: Window::new(&budget, stage.share),
            }),
            line: Arc::new(Line::new(&stage.cancelled)),
            over: AtomicBool::new(false),
            tickets: AtomicU64::new(0),
            budget,
            share: stage.share,
            of_run: stage.of_run.clone(),
            room_bytes: (limit / BESIDE_PART).min(stage.plan.ceiling().unwrap_or(usize::MAX)) / (2 * stage.workers + 2),
            most_claims,
            part_groups: (stage.chunk_bytes / (16 * columns.max(1))).clamp(1, PART_GROUPS),
        })
    }

    fn claim(&self, ticket: u64) -> Result<Claim> {
        loop {
            self.line.go_on()?;
            let mut claims = lock(&self.line.claims);
            if let Some(claim) = claims.take(ticket) {
                return Ok(claim);
            }
            let maker = (claims.count() < self.most_claims).then(|| self.maker.try_lock());
            let mut maker = match maker {
                Some(Ok(maker)) => maker,
                Some(Err(TryLockError::Poisoned(maker))) => maker.into_inner(),
                None | Some(Err(TryLockError::WouldBlock)) => {
                    self.line.wait(claims);
                    continue;
                }
            };
            drop(claims);
            let made = self.make(&mut maker);
            maker.window.let_go();
            let made = made.map_err(|e| self.plan.held(e))?;
            let mut claims = lock(&self.line.claims);
            if let Some(claim) = made {
                claims.ready.push_back((maker.next, claim));
                maker.next += 1;
            }
            // Whoever is woken finds nobody at it.
            drop(maker);
            drop(claims);
            self.line.moved.notify_all();
        }
    }

    /// The next groups; `None` if the only one goes on.
    fn make(&self, maker: &mut Maker) -> Result<Option<Claim>> {
        let mut claim = Claim::default();
        let rows = maker.merge.claim_rows();
        let mut patience = Patience::without_end();
        loop {
            match maker.merge.next(rows, &mut claim.picks) {
                Ok(()) => break,
                // Other lanes hold all frames that there is room for.
                Err(Error::Memory { .. }) if self.line.waited(&mut patience)? => {}
                Err(error) => return Err(error),
            }
        }
        let over = claim.picks.is_empty();
        self.close(maker, &mut claim)?;
        if over {
            self.over.store(true, SeqCst);
        }
        Ok((over || !claim.is_empty()).then_some(claim))
    }

    /// Makes groups of the picks; the last one stays open unless this is the end.
    fn close(&self, maker: &mut Maker, claim: &mut Claim) -> Result<()> {
        let (rows, mut at) = (claim.picks.len(), 0);
        if let Some(mut open) = maker.open.take() {
            while at < rows && claim.picks.key(at).starts_with(&open.key) {
                at += 1;
            }
            open.together.take(&claim.picks, 0..at, &[], &mut maker.window)?;
            if open.together.reservation.bytes() > self.room_bytes {
                open.together.slim(&mut maker.window)?;
            }
            if at == rows && rows > 0 {
                maker.open = Some(open);
                return Ok(());
            }
            open.together.close()?;
            open.together.waits = None;
            claim.open = Some(open);
            maker.groups += 1;
        }
        claim.first = maker.groups;
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
            .take(&claim.picks, last..rows, &[last], &mut maker.window)?;
        if open.together.reservation.bytes() > self.room_bytes {
            open.together.slim(&mut maker.window)?;
        }
        maker.open = Some(open);
        maker.groups += claim.groups() as u64;
        Ok(())
    }

    /// For one group, with memory set aside. Lanes that are at earlier groups may have it; they give it back without being waited for.
    fn with_room(&self) -> Result<Together> {
        let mut together = Together::new(&self.plan, &self.budget, &self.of_run);
        together.waits = Some(self.line.clone());
        // Where claims are counted, those at hand have what they need: what is refused now somebody else has, who may keep it.
        let waits = self.most_claims == usize::MAX;
        let mut patience = Patience::default();
        while together.reservation.set_aside(self.room_bytes).is_err() {
            if !waits || !self.line.waited(&mut patience)? {
                // It may do with less.
                break;
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
        Ok(Box::new(MergedReader::new(self)))
    }
}
