//! Groups put together out of spilled rows: partial states are merged, and what states are cut into is folded entry by entry.
//!
//! Laws
//! - Rows are looked at in windows. A window that is refused memory has taken nothing, and comes again with fewer rows.
//! - The state of a group by itself is made small before a refusal counts.

use super::super::packed::Packed;
use super::super::{Called, Plan};
use super::line::{Line, Patience};
use crate::stages::spill::Picks;
use standpipe_sdk::aggregate::{Entry, Folds, OfRun, States};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Budget, Data, Reservation};
use std::ops::Range;
use std::sync::Arc;

/// Rows that are put together at a time.
const WINDOW_ROWS: usize = 4 << 10;

/// Groups that are put together, one after the other.
pub(super) struct Together {
    plan: Arc<Plan>,
    pub(super) calls: Vec<Call>,
    pub(super) reservation: Reservation,
    /// Groups that began.
    groups: usize,
    /// Bytes of the key of the last one.
    key_bytes: usize,
    /// Of a group that may go on: it waits for what an aggregate's other states have.
    pub(super) waits: Option<Arc<Line>>,
}

/// What one aggregate has of them.
pub(super) enum Call {
    States(Box<dyn States>),
    Folds(Box<dyn Folds>),
}

impl Together {
    pub(super) fn new(plan: &Arc<Plan>, budget: &Arc<Budget>, of_run: &OfRun) -> Together {
        let call = |(at, call): (usize, &Called)| {
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

    /// Whether what was refused may be there now.
    fn waited(&self, refused: &Error, patience: &mut Patience) -> Result<bool> {
        match (refused, &self.waits) {
            (Error::Memory { limit, .. }, Some(line)) if self.plan.is_ceiling(*limit) => line.waited(patience),
            _ => Ok(false),
        }
    }

    pub(super) fn clear(&mut self) {
        self.groups = 0;
        for call in &mut self.calls {
            match call {
                Call::States(states) => states.clear(),
                Call::Folds(folds) => folds.clear(),
            }
        }
    }

    /// The group at hand is complete, and the last one.
    pub(super) fn close(&mut self) -> Result<()> {
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
    pub(super) fn take(
        &mut self,
        picks: &Picks,
        rows: Range<usize>,
        starts: &[usize],
        window: &mut Window,
    ) -> Result<()> {
        let (mut at, mut next, mut most) = (rows.start, 0, WINDOW_ROWS);
        let (mut slim, mut patience) = (false, Patience::default());
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
                Ok(Taken::Refused(error)) if self.waited(&error, &mut patience)? => {}
                Ok(Taken::Refused(error)) => return Err(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives back what the state of the only group does not need.
    pub(super) fn slim(&mut self, window: &mut Window) -> Result<()> {
        let mut patience = Patience::default();
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
                    Err(refused) if self.waited(&refused, &mut patience)? => {}
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
pub(super) struct Window {
    arena: Arena,
    share: usize,
    room: Reservation,
    /// The rows that are no entries, and the group of each.
    wholes: Vec<u32>,
    groups: Vec<u32>,
}

impl Window {
    pub(super) fn new(budget: &Arc<Budget>, share: usize) -> Window {
        Window {
            arena: Arena::new(share),
            share,
            room: budget.reserve(),
            wholes: Vec::with_capacity(WINDOW_ROWS),
            groups: Vec::with_capacity(WINDOW_ROWS),
        }
    }

    /// Gives back what a long row took.
    pub(super) fn let_go(&mut self) {
        if self.room.bytes() > 0 {
            self.arena.release();
            self.arena.set_limit(self.share);
            self.room.shrink(self.room.bytes());
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
