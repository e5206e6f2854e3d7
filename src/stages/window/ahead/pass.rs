//! A pass over the rows of all groups, one group after the other.

use super::super::frames::{Asked, Failed, Frame, Frames};
use super::super::numbers::{Number, Numbers};
use super::super::{From, STAGE};
use super::totals::Totals;
use super::{PLACE, Shared};
use crate::stages::codes::{NOT_SORTED, held};
use crate::stages::copies::Scratch;
use crate::stages::groups::grow;
use crate::stages::keys::Keys;
use crate::stages::unnest::scratch_room;
use standpipe_sdk::error::{Code, Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Batch, Bits, Budget, Column, Columns, Data, Fill, Reservation, Source, Text};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Rows that the pass works on together.
const ROWS: usize = 4 << 10;
/// Fewer where there is little memory: one row of so many bytes of it. A row that is a group of its own takes some hundred bytes of the part
/// that the pass has, beside copies of its values and scratch memory for them.
const ROW_PART: usize = 32 << 10;
const LEAST_ROWS: usize = 64;

/// What a pass does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    All,
    /// Only numbers, for a pass that cannot give them.
    Numbers,
    /// Frames, rows coming last one first; `numbered`: they have their numbers already.
    Mirrored {
        numbered: bool,
    },
}

/// Where batches go: finished rows, and rows for the next pass.
pub(super) struct Ways<'f> {
    pub(super) last: &'f mut Box<dyn Fill>,
    pub(super) next: Option<&'f mut Box<dyn Fill>>,
    /// Batches that went.
    pub(super) batches: &'f mut u64,
    /// Whether a row of them is bad.
    pub(super) any_bad: &'f mut bool,
}

/// A row that is not what it should be: its number among some rows, the call, the code, the reason.
type Bad = (usize, usize, Code, String);

pub(super) struct Pass<'p> {
    shared: &'p Shared,
    setup: &'p Setup,
    work: Work,
    keys: Keys,
    /// The key of the group whose rows are coming.
    key: Vec<u8>,
    any: bool,
    numbers: Numbers,
    /// Numbers that this pass gives.
    numbered: usize,
    frames: Option<Frames>,
    totals: Option<Totals>,
    /// Columns of the rows that come.
    width: usize,
    arena: Arena,
    scratch: Scratch,
    out: Arena,
    reservation: Reservation,
    /// Of the two arenas.
    _rooms: [Reservation; 2],
}

/// Memory for an arena, in a part of its own.
pub(super) fn room_in(part: &Arc<Budget>, setup: &Setup) -> Result<(usize, Reservation)> {
    let mut own = part.reserve();
    Ok((scratch_room(setup.share, &mut own)?, own))
}

impl<'p> Pass<'p> {
    /// Its arenas are in the first two of `rooms`.
    pub(super) fn new(
        shared: &'p Shared,
        setup: &'p Setup,
        rooms: &[Arc<Budget>],
        work: Work,
        totals: Option<Totals>,
    ) -> Result<Pass<'p>> {
        let (plan, budget) = (&shared.plan, &setup.budget);
        let numbers: Vec<Number> = match work {
            Work::Mirrored { .. } => vec![],
            Work::All | Work::Numbers => plan.numbers.clone(),
        };
        let mut width = plan.width + PLACE;
        if let Work::Mirrored { numbered: true } = work {
            width += plan.numbers.len();
        }
        let own = width + numbers.len() + totals.as_ref().map_or(0, |_| plan.totals.len() + 2);
        let frames = match work {
            _ if plan.asked.is_empty() => None,
            Work::Numbers => None,
            Work::All => Some(Frames::new(plan.asked.clone(), plan.frame(), own, false, setup)),
            Work::Mirrored { .. } => {
                let turned = plan.asked.iter().map(|asked| match asked {
                    Asked::Value { column, behind } => Asked::Value {
                        column: *column,
                        behind: -behind,
                    },
                    aggregate => aggregate.clone(),
                });
                let frame = Frame {
                    from: None,
                    to: plan.from.unwrap_or(0).saturating_neg(),
                };
                Some(Frames::new(turned.collect(), frame, own, true, setup))
            }
        };
        let (room, room_of) = room_in(&rooms[0], setup)?;
        let (out, room_of_out) = room_in(&rooms[1], setup)?;
        Ok(Pass {
            shared,
            setup,
            work,
            keys: Keys::grouping(plan.by.iter().copied()),
            key: vec![],
            any: false,
            numbered: numbers.len(),
            numbers: Numbers::new(numbers, budget),
            frames,
            totals,
            width,
            arena: Arena::new(room),
            scratch: Scratch::new(budget),
            out: Arena::new(out),
            reservation: budget.reserve(),
            _rooms: [room_of, room_of_out],
        })
    }

    /// Takes all rows of `source`, which come group by group.
    pub(super) fn run(&mut self, source: &Arc<dyn Source>, ways: &mut Ways<'_>) -> Result<()> {
        let mut reader = source.clone().reader()?;
        let mut arena = std::mem::replace(&mut self.arena, Arena::new(0));
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket)?;
            let mut rows = (self.setup.budget.limit() / ROW_PART).clamp(LEAST_ROWS, ROWS);
            while more {
                if self.setup.cancelled.load(Relaxed) {
                    return Err(Error::Cancelled);
                }
                arena.reset();
                let limit = arena.limit();
                match reader.decode(&arena, rows, false) {
                    Ok(part) => {
                        more = !part.last;
                        self.batch(part.batch, ways).map_err(|e| held(STAGE, e))?;
                    }
                    Err(Error::Memory { .. }) if rows > 1 => rows = rows.div_ceil(2),
                    Err(Error::Memory { .. }) => {
                        self.reservation.grow(limit).map_err(|e| held(STAGE, e))?;
                        arena.set_limit(2 * limit);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.close(1, ways).map_err(|e| held(STAGE, e))
    }

    fn batch(&mut self, batch: Batch<'_>, ways: &mut Ways<'_>) -> Result<()> {
        let mut lent = self.setup.budget.reserve();
        let mut ids: Vec<u32> = vec![];
        grow(&mut ids, batch.rows(), &mut lent)?;
        self.number_groups(&batch, &mut ids)?;
        if !self.frames.as_ref().is_some_and(Frames::takes_one_group) {
            let open = ids.last().copied().unwrap_or(0);
            return self.rows(&batch, &ids, open, ways);
        }
        let mut from = 0;
        let mut before = 0;
        for same in ids.chunk_by_mut(|a, b| a == b) {
            if same[0] != before {
                self.close(1, ways)?;
                before = same[0];
            }
            let columns: Vec<Column<'_>> = batch.columns().iter().map(|c| c.slice(from, same.len())).collect();
            from += same.len();
            same.fill(0);
            self.rows(&Batch::new(&columns, None, same.len()), same, 0, ways)?;
        }
        Ok(())
    }

    /// The group of each row; the one whose rows were coming is 0.
    fn number_groups(&mut self, batch: &Batch<'_>, ids: &mut Vec<u32>) -> Result<()> {
        let (keys, key, any, reservation) = (&self.keys, &mut self.key, &mut self.any, &mut self.reservation);
        self.scratch.with(|arena| {
            let block = keys.block(batch, arena)?;
            let mut group = 0;
            let mut before: &[u8] = key;
            for row in 0..batch.rows() {
                let this = block.get(row);
                if *any && this != before {
                    group += 1;
                }
                *any = true;
                before = this;
                ids.push(group);
            }
            if group > 0 || key.is_empty() {
                let last = block.get(batch.rows().saturating_sub(1));
                key.clear();
                grow(key, last.len(), reservation).map_err(|e| held(STAGE, e))?;
                key.extend_from_slice(last);
            }
            Ok(())
        })
    }

    /// Takes rows into their groups, of which those below `closed` end with them.
    fn rows(&mut self, batch: &Batch<'_>, ids: &[u32], closed: u32, ways: &mut Ways<'_>) -> Result<()> {
        let (numbers, scratch) = (&mut self.numbers, &mut self.scratch);
        scratch.with(|arena| {
            let keys = numbers.keys(batch, arena)?;
            numbers.take(batch.rows(), Some(ids), &keys).map_err(|e| held(STAGE, e))
        })?;
        if let Some(totals) = &mut self.totals {
            totals.need(ids.last().map_or(0, |&id| id as usize + 1))?;
        }
        let mut scratch = std::mem::replace(&mut self.scratch, Scratch::new(&self.setup.budget));
        let mut frames = self.frames.take();
        let outcome = scratch.with(|arena| {
            let rows = self.with_more(batch, ids, arena)?;
            let kept = &self.numbers.kept;
            let ids = arena.collect(kept.len(), |i| ids[kept[i] as usize])?;
            let done = match (self.work, &mut frames) {
                (Work::Numbers, _) => match &mut ways.next {
                    Some(next) if rows.rows() > 0 => {
                        *ways.batches += 1;
                        next.push(*ways.batches, rows)
                    }
                    _ => Ok(()),
                },
                (_, Some(frames)) => frames.take(&rows, Some(ids), closed),
                (_, None) => self.finished(&rows, &[], &[], ways),
            };
            done.and_then(|()| self.unordered(batch, ways))
                .map_err(|e| held(STAGE, e))
        });
        (self.scratch, self.frames) = (scratch, frames);
        outcome?;
        self.give(ways)?;
        self.forget(closed)
    }

    /// Groups below `closed` get no further rows.
    fn close(&mut self, closed: u32, ways: &mut Ways<'_>) -> Result<()> {
        if let Some(frames) = &mut self.frames {
            frames.take(&Batch::new(&[], None, 0), None, closed)?;
        }
        self.give(ways)?;
        self.forget(closed)
    }

    fn forget(&mut self, closed: u32) -> Result<()> {
        if let Some(totals) = &mut self.totals {
            totals.forget(closed as usize);
        }
        self.numbers.forget(closed);
        match &mut self.frames {
            Some(frames) => frames.forget(closed),
            None => Ok(()),
        }
    }

    /// The rows that are in order, with their numbers and what their groups have.
    fn with_more<'a>(&'a self, batch: &Batch<'a>, ids: &[u32], arena: &'a Arena) -> Result<Batch<'a>> {
        let kept = &self.numbers.kept;
        let whole = kept.len() == batch.rows();
        let more = self.totals.as_ref().map_or(0, |_| self.shared.plan.totals.len() + 2);
        let mut columns = Columns::new(arena, self.width + self.numbered + more)?;
        for column in batch.columns() {
            columns.push(if whole { *column } else { column.gather(kept, arena)? });
        }
        for number in 0..self.numbered {
            columns.push(self.numbers.column(number, 0, kept.len(), arena)?);
        }
        if let Some(totals) = &self.totals {
            let ids = arena.collect(kept.len(), |i| ids[kept[i] as usize])?;
            totals.columns(ids, arena, &mut columns)?;
        }
        Ok(Batch::new(columns.finish(), None, kept.len()))
    }

    /// Rows that break the order of a rank are finished: bad.
    fn unordered(&self, batch: &Batch<'_>, ways: &mut Ways<'_>) -> Result<()> {
        let plan = &self.shared.plan;
        for bad in &self.numbers.bad {
            let columns: Vec<Column<'_>> = batch.columns().iter().map(|c| c.slice(bad.row, 1)).collect();
            let arena = Arena::new(bad.text.len() + 4096);
            let call = plan.call_of(|from| from == From::Numbers(bad.number));
            let mut row: Vec<Column<'_>> = columns[..plan.own].to_vec();
            row.resize(plan.own + plan.calls.len(), Column::nulls(1));
            row.extend(reasons(&[(0, call, NOT_SORTED, bad.text.clone())], 1, &arena)?);
            row.extend(&columns[plan.width..][..PLACE]);
            *ways.any_bad = true;
            *ways.batches += 1;
            ways.last.push(*ways.batches, Batch::new(&row, None, 1))?;
        }
        Ok(())
    }

    /// Passes on the rows that frames can give.
    fn give(&mut self, ways: &mut Ways<'_>) -> Result<()> {
        let Some(mut frames) = self.frames.take() else {
            return Ok(());
        };
        let outcome = self.give_all(&mut frames, ways);
        self.frames = Some(frames);
        outcome
    }

    fn give_all(&mut self, frames: &mut Frames, ways: &mut Ways<'_>) -> Result<()> {
        let own = self.width + self.numbered + self.totals.as_ref().map_or(0, |_| self.shared.plan.totals.len() + 2);
        let (mut from, mut most) = (0, ROWS);
        let mut out = std::mem::replace(&mut self.out, Arena::new(0));
        while from < frames.len() {
            out.reset();
            let limit = out.limit();
            let rows = frames.alike(from, most.min(frames.len() - from));
            let mut failed: Vec<Failed> = vec![];
            let made = frames.give(from, rows, &mut failed, &out);
            let made = made.and_then(|made| Ok((made, frames.rows(from, rows, own, &out)?)));
            match made {
                Ok((made, batch)) => {
                    let bad: Vec<Bad> = failed
                        .into_iter()
                        .map(|f| {
                            let call = self.shared.plan.call_of(|from| from == From::Frames(f.asked));
                            (f.row, call, f.code, f.text)
                        })
                        .collect();
                    self.finished(&batch, made, &bad, ways)?;
                    from += rows;
                }
                Err(Error::Memory { .. }) if rows > 1 => most = rows.div_ceil(2),
                Err(Error::Memory { .. }) => {
                    self.reservation.grow(limit)?;
                    out.set_limit(2 * limit);
                }
                Err(error) => return Err(error),
            }
        }
        self.out = out;
        Ok(())
    }

    /// Passes on rows with all that was asked of them.
    fn finished(&self, rows: &Batch<'_>, made: &[Column<'_>], bad: &[Bad], ways: &mut Ways<'_>) -> Result<()> {
        if rows.rows() == 0 {
            return Ok(());
        }
        let plan = &self.shared.plan;
        let numbers = match self.work {
            Work::Mirrored { .. } => plan.width + PLACE,
            Work::All | Work::Numbers => self.width,
        };
        let totals = self.width + self.numbered;
        let all = rows.columns();
        let mut columns: Vec<Column<'_>> = all[..plan.own].to_vec();
        columns.extend(plan.calls.iter().map(|call| match call.from {
            From::Frames(at) => made[at],
            From::Numbers(at) => all[numbers + at],
            From::Totals(at) => all[totals + at],
        }));
        let texts = bad.iter().map(|(.., text)| text.len()).sum::<usize>();
        let mut lent = self.setup.budget.reserve();
        let wrong = self.wrong_totals(all, rows.rows());
        let texts = texts + wrong.iter().map(|(.., text)| text.len()).sum::<usize>();
        let room = reasons_bytes(rows.rows(), texts);
        let any = !bad.is_empty() || !wrong.is_empty();
        if any {
            lent.grow(room)?;
            *ways.any_bad = true;
        }
        let arena = Arena::new(room);
        let mut reasons_of: Vec<Bad> = bad.to_vec();
        reasons_of.extend(wrong);
        columns.extend(reasons(&reasons_of, rows.rows(), &arena)?);
        columns.extend(&all[plan.width..][..PLACE]);
        *ways.batches += 1;
        ways.last.push(*ways.batches, Batch::new(&columns, None, rows.rows()))
    }

    /// Rows of groups whose values do not fit.
    fn wrong_totals(&self, all: &[Column<'_>], rows: usize) -> Vec<Bad> {
        let plan = &self.shared.plan;
        let Some(at) = self
            .totals
            .as_ref()
            .map(|_| self.width + self.numbered + plan.totals.len())
        else {
            return vec![];
        };
        let (Data::String(texts), Data::Int(codes)) = (all[at].data(), all[at + 1].data()) else {
            return vec![];
        };
        let bad = (0..rows).filter(|&row| all[at].is_valid(row)).map(|row| {
            let start = (codes[row] >> 32) as usize;
            let called = plan
                .calls
                .iter()
                .position(|call| matches!(call.from, From::Totals(_)) && call.span.start as usize == start);
            let code = Code(u16::try_from(codes[row] as u32).unwrap_or_default());
            let text = String::from_utf8_lossy(texts.bytes(row)).into_owned();
            (row, called.unwrap_or(usize::MAX), code, text)
        });
        bad.collect()
    }
}

/// What [`reasons`] takes of an arena for so many rows whose texts have so many bytes.
fn reasons_bytes(rows: usize, texts: usize) -> usize {
    4096 + rows * 64 + texts
}

/// Two columns: why rows are bad, and their call and code in one number.
fn reasons<'a>(bad: &[Bad], rows: usize, arena: &'a Arena) -> Result<[Column<'a>; 2]> {
    if bad.is_empty() {
        return Ok([Column::nulls(rows), Column::nulls(rows)]);
    }
    let mut of: Vec<Option<&Bad>> = vec![None; rows];
    for bad in bad.iter().rev() {
        of[bad.0] = Some(bad);
    }
    // One block for all of them, which is known to fit.
    let bytes = of.iter().flatten().map(|(.., text)| text.len()).sum();
    let block = arena.fill(bytes, 0u8)?;
    let lens = arena.fill(rows, 0u32)?;
    let mut end = 0;
    for (len, (.., text)) in lens.iter_mut().zip(&of).filter_map(|(len, bad)| Some((len, (*bad)?))) {
        block[end..end + text.len()].copy_from_slice(text.as_bytes());
        end += text.len();
        *len = text.len() as u32;
    }
    let texts = Text::split(block, lens, true, arena)?.ok_or_else(|| Error::Panic("a reason is no text".into()))?;
    let valid = Bits::collect(arena, rows, |row| of[row].is_some())?;
    let which = arena.collect(rows, |row| {
        of[row].map_or(0, |&(_, call, code, _)| (call as u32 as i64) << 32 | i64::from(code.0))
    })?;
    Ok([Column::string(texts, Some(valid)), Column::int(which, Some(valid))])
}
