//! Windows of rows that look back only: rows go through, each with what its group has seen.
//!
//! Laws
//! - A batch changes the state once, when it comes first. What its rows give is made from then on, as often as the arena refuses it, and
//!   in as many parts.
//! - Bad rows go out; a row that breaks the order of a rank was never there.

use super::super::codes::{NOT_SORTED, held};
use super::super::copies::{Scratch, waste_bytes};
use super::super::groups::{self, Groups};
use super::super::rowkeys::KeyMaker;
use super::frames::{Failed, Frames};
use super::numbers::Numbers;
use super::{From, Plan, STAGE};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room, Setup};
use standpipe_sdk::{Arena, Batch, Bits, Columns, Faults, Flow, Prepare, Serial, Verdict};
use std::sync::Arc;

/// Of a batch at most so many rows are taken at a time, in a budget of so many bytes: what they take until they are given is little of it.
fn most_rows(budget_bytes: usize) -> usize {
    const PART: usize = 8 << 10;
    const LEAST: usize = 256;
    (budget_bytes / PART).max(LEAST)
}

/// What it has for frames of some rows in some hundred groups.
const FRAMES_BYTES: usize = 640 << 10;

/// What it cannot do without if groups are few and values are short; beyond that, it takes what others leave.
pub(super) fn least(room: &Room) -> Least {
    let groups = groups::least(room);
    Least {
        takes: groups.takes + FRAMES_BYTES + waste_bytes(room.bytes),
        ..groups
    }
}

pub(super) struct Stream {
    plan: Arc<Plan>,
    groups: Option<Groups>,
    frames: Frames,
    numbers: Numbers,
    scratch: Scratch,
    most_rows: usize,
    /// Rows of the batch that is at hand, and how many have been given.
    rows: usize,
    given: usize,
}

impl Stream {
    pub(super) fn new(plan: &Arc<Plan>, maker: Option<&KeyMaker>, setup: &Setup) -> Stream {
        let budget = &setup.budget;
        Stream {
            groups: maker.map(|maker| Groups::new(STAGE, maker.clone(), budget)),
            frames: Frames::new(plan.asked.clone(), plan.frame(), 0, false, setup),
            numbers: Numbers::new(plan.numbers.clone(), budget),
            scratch: Scratch::new(budget),
            most_rows: most_rows(budget.limit()),
            plan: plan.clone(),
            rows: 0,
            given: 0,
        }
    }

    /// Takes a batch that was not seen before.
    fn take(&mut self, batch: &Batch<'_>, arena: &Arena) -> Result<()> {
        let ids = match &mut self.groups {
            Some(groups) => Some(groups.of(batch, arena)?),
            None => None,
        };
        let keys = self.numbers.keys(batch, arena)?;
        // From here on only what is held can be refused, which ends the run.
        self.take_rows(batch, ids, &keys).map_err(|e| held(STAGE, e))?;
        (self.rows, self.given) = (batch.rows(), 0);
        Ok(())
    }

    fn take_rows(
        &mut self,
        batch: &Batch<'_>,
        ids: Option<&[u32]>,
        keys: &[super::super::keys::KeyBlock<'_>],
    ) -> Result<()> {
        self.numbers.take(batch.rows(), ids, keys)?;
        let (kept, frames) = (&self.numbers.kept, &mut self.frames);
        if kept.len() == batch.rows() {
            return frames.take(batch, ids, 0);
        }
        self.scratch.with(|arena| {
            let rows = batch.gather(kept, batch.columns().len(), arena)?;
            let ids = match ids {
                Some(ids) => Some(&*arena.collect(kept.len(), |i| ids[kept[i] as usize])?),
                None => None,
            };
            frames.take(&rows, ids, 0).map_err(|e| held(STAGE, e))
        })
    }
}

impl Serial for Stream {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        self.groups.as_ref().map(Groups::prepare)
    }

    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        if self.given == self.rows && batch.rows() > self.most_rows {
            // Nothing has happened: it comes again, in halves.
            return Err(Error::Memory {
                wanted: batch.rows(),
                used: 0,
                limit: self.most_rows,
            });
        }
        if self.given == self.rows {
            self.take(&batch, arena)?;
        }
        // The rows of this part among those of the batch, and among those that were taken.
        let part = self.given..(self.given + batch.rows()).min(self.rows);
        let from = self.numbers.kept.partition_point(|&row| (row as usize) < part.start);
        let to = self.numbers.kept.partition_point(|&row| (row as usize) < part.end);
        let rows = to - from;
        let mut failed: Vec<Failed> = vec![];
        let made = self.frames.give(from, rows, &mut failed, arena)?;
        let own = self.plan.own;
        let mut columns = Columns::new(arena, own + self.plan.calls.len())?;
        let taken = arena.collect(rows, |i| self.numbers.kept[from + i] - part.start as u32)?;
        let whole = rows == batch.rows();
        for &column in &batch.columns()[..own] {
            columns.push(if whole { column } else { column.gather(taken, arena)? });
        }
        for call in &self.plan.calls {
            columns.push(match call.from {
                From::Frames(at) => made[at],
                From::Numbers(at) => self.numbers.column(at, from, rows, arena)?,
                From::Totals(_) => return Err(standpipe_sdk::Error::Panic("a window that looks ahead".into())),
            });
        }
        let origin = match batch.origin() {
            Some(places) if !whole => Some(&*arena.collect(rows, |i| places[taken[i] as usize])?),
            places => places,
        };
        let out = Batch::new(columns.finish(), origin, rows);

        // Bad rows in their order; behind the first that ends the run nothing goes on.
        let mut bad: Vec<(usize, usize, standpipe_sdk::Code, &str)> = vec![];
        let unordered = self.numbers.bad.iter().filter(|bad| part.contains(&bad.row));
        bad.extend(unordered.map(|b| {
            let call = self.plan.call_of(|from| from == From::Numbers(b.number));
            (b.row - part.start, call, NOT_SORTED, b.text.as_str())
        }));
        bad.extend(failed.iter().map(|f| {
            let call = self.plan.call_of(|from| from == From::Frames(f.asked));
            (taken[f.row] as usize, call, f.code, f.text.as_str())
        }));
        bad.sort_by_key(|&(row, ..)| row);
        let mut end = usize::MAX;
        for &(row, call, code, text) in &bad {
            let span = self.plan.calls.get(call).map(|call| call.span);
            if faults.report(row, code, span, format_args!("{text}"))? == Verdict::Stop {
                end = row;
                break;
            }
        }
        let out = if failed.is_empty() && end == usize::MAX {
            out
        } else {
            let mut good = arena.fill(rows, true)?.to_vec();
            failed.iter().for_each(|f| good[f.row] = false);
            let keep = Bits::collect(arena, rows, |row| good[row] && (taken[row] as usize) < end)?;
            out.gather(keep.indices(arena)?, out.columns().len(), arena)?
        };
        self.given = part.end;
        Ok(((out.rows() > 0).then_some(out), Flow::More))
    }
}
