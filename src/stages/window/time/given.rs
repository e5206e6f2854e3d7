//! Windows that are closed, on their way out.

use super::Time;
use super::open::{NONE, key_bytes};
use crate::stages::aggregate::{Keyed, shown_key};
use crate::stages::codes::held;
use crate::stages::from::numbered;
use crate::stages::groups::grow;
use crate::stages::unnest::scratch_room;
use crate::stages::window::STAGE;
use standpipe_sdk::aggregate::{Input, RowOrder};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Code, Column, Columns, Data, Fault, Faults, Flow, Made, Reservation, Rest, Verdict};
use std::cmp::Reverse;

/// The most windows that go out together.
pub(super) const OUT: usize = 4 << 10;

/// So many windows may be gone while their states are not, before the others move together, in a budget of so many bytes.
fn some_windows(budget_bytes: usize) -> usize {
    const PART: usize = 16 << 10;
    const FEWEST: usize = 64;
    const MOST: usize = 1 << 10;
    (budget_bytes / PART).clamp(FEWEST, MOST)
}

/// A window whose value does not fit: its row, the aggregate, code and reason.
type Failed = (usize, usize, Code, String);

impl Time {
    /// The first `rows` closed windows, and those whose values do not fit: window, aggregate, code, reason.
    pub(super) fn rows<'a>(&self, rows: usize, arena: &'a Arena) -> Result<(Batch<'a>, Vec<Failed>)> {
        let plan = &*self.plan;
        let slots = arena.collect(rows, |i| self.closed[i])?;
        let window = |row: usize| &self.windows[slots[row] as usize];
        let mut columns = Columns::new(arena, plan.width)?;
        let lens = (0..rows).map(|row| window(row).key.len()).sum();
        let bytes = arena.fill(lens, 0u8)?;
        let ends = arena.fill(rows, 0usize)?;
        let mut at = 0;
        for (row, end) in ends.iter_mut().enumerate() {
            let key = &window(row).key;
            bytes[at..at + key.len()].copy_from_slice(key);
            at += key.len();
            *end = at;
        }
        let bytes: &'a [u8] = bytes;
        let keys = arena.collect(rows, |row| &bytes[if row > 0 { ends[row - 1] } else { 0 }..ends[row]])?;
        let mut keyed = Keyed::new(keys);
        for field in &plan.keys {
            columns.push(keyed.column(&field.ty, arena)?);
        }
        let starts = arena.collect(rows, |row| window(row).start)?;
        columns.push(Column::new(Data::Timestamp(starts), None, rows));
        let ends = arena.collect(rows, |row| window(row).end)?;
        columns.push(Column::new(Data::Timestamp(ends), None, rows));
        let mut failed = vec![];
        for (call, states) in self.states.iter().enumerate() {
            let column = states.finish(slots, arena, &mut |row, code, text| {
                let mut text = text.to_owned();
                if !plan.keys.is_empty() {
                    text = format!("{text}, in the group {}", shown_key(&window(row).key, &plan.keys));
                }
                failed.push((row, call, code, text));
                Ok(())
            })?;
            columns.push(column);
        }
        failed.sort_by_key(|&(row, ..)| row);
        let places = match self.ended {
            true => numbered(self.numbered, rows, arena)?,
            false => arena.collect(rows, |row| window(row).place)?,
        };
        Ok((Batch::new(columns.finish(), Some(places), rows), failed))
    }

    /// The first `rows` closed windows went out. Whether states have moved: before they say anything they are to be sealed again.
    pub(super) fn went(&mut self, rows: usize) -> Result<bool> {
        for at in self.closed.drain(..rows) {
            let window = &mut self.windows[at as usize];
            window.gone = true;
            let key = std::mem::take(&mut window.key);
            self.reservation.shrink(key_bytes(&key));
        }
        self.gone += rows;
        if self.gone > self.windows.len() - self.gone + some_windows(self.budget.limit()) {
            self.compact()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// States of windows that are gone give their memory back: those of the others move.
    fn compact(&mut self) -> Result<()> {
        let mut lent = self.budget.reserve();
        let (mut numbers, mut stay) = (vec![], vec![]);
        grow(&mut numbers, self.windows.len(), &mut lent)?;
        grow(&mut stay, self.windows.len() - self.gone, &mut lent)?;
        for (at, window) in (0u32..).zip(&self.windows) {
            numbers.push(if window.gone { NONE } else { stay.len() as u32 });
            if !window.gone {
                stay.push(at);
            }
        }
        let numbers: Vec<u32> = numbers;
        let new = |at: u32| numbers.get(at as usize).copied().unwrap_or(NONE);
        let reservation = &mut self.reservation;
        for (states, (arg, _)) in self.states.iter_mut().zip(&self.plan.calls) {
            let mut fresh = arg.aggregate.states(&self.of_run);
            states.seal(reservation)?;
            let none = Input {
                columns: &[],
                rows: 0,
                take: None,
                order: RowOrder::default(),
            };
            fresh.room(stay.len(), &none, reservation)?;
            for part in stay.chunks(OUT) {
                self.scratch.with(|arena| {
                    let partial = states.partial(part, arena)?;
                    let groups = arena.collect(part.len(), |i| new(part[i]))?;
                    let room = fresh.room_to_merge(stay.len(), partial, reservation);
                    room.map_err(|e| held(STAGE, e))?;
                    fresh.merge(groups, partial);
                    Ok(())
                })?;
            }
            states.release(reservation);
            *states = fresh;
        }
        self.windows.retain(|window| !window.gone);
        for window in &mut self.windows {
            (window.older, window.newer) = (new(window.older), new(window.newer));
        }
        self.open.iter_mut().for_each(|entry| entry.1 = new(entry.1));
        self.closed.iter_mut().for_each(|at| *at = new(*at));
        let mut ends = std::mem::take(&mut self.ends).into_vec();
        ends.retain_mut(|Reverse((_, at))| {
            *at = new(*at);
            *at != NONE
        });
        self.ends = ends.into();
        self.gone = 0;
        Ok(())
    }

    pub(super) fn seal(&mut self) -> Result<()> {
        let reservation = &mut self.reservation;
        self.states.iter_mut().try_for_each(|states| states.seal(reservation))
    }

    /// Gives the windows that are closed.
    pub(super) fn give(&mut self, give: &mut Rest<'_>) -> Result<()> {
        let (mut arena, mut reservation) = match self.out_arena.take() {
            Some(room) => room,
            None => {
                let mut reservation = self.out.reserve();
                let room = scratch_room(self.share, &mut reservation)?;
                (Arena::new(room), reservation)
            }
        };
        let outcome = self.give_in(&mut arena, &mut reservation, give);
        arena.reset();
        self.out_arena = Some((arena, reservation));
        outcome
    }

    fn give_in(&mut self, arena: &mut Arena, reservation: &mut Reservation, give: &mut Rest<'_>) -> Result<()> {
        let (mut most, mut sealed) = (OUT, false);
        while !self.closed.is_empty() {
            arena.reset();
            let limit = arena.limit();
            let rows = self.closed.len().min(most);
            if !sealed {
                self.seal()?;
            }
            sealed = true;
            let faults = Faults::new(arena, self.stops);
            match self.good(rows, &faults) {
                // What follows needs room too.
                Ok(_) if rows > 1 && arena.used() > limit / 4 && most > 64 => most = rows / 2,
                Err(Error::Memory { .. }) if rows > 1 => most = rows / 2,
                Err(Error::Memory { .. }) => {
                    reservation.grow(limit)?;
                    arena.set_limit(2 * limit);
                }
                Err(error) => return Err(error),
                Ok(made) => {
                    let flow = give(arena, made, &faults)?;
                    self.numbered += if self.ended { rows as u64 } else { 0 };
                    let stops = self.stops && !faults.is_empty();
                    sealed = !self.went(rows)?;
                    if flow == Flow::Done || stops {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Of the first `rows` closed windows those whose values fit; the others are reported.
    fn good<'a>(&self, rows: usize, faults: &Faults<'a>) -> Result<Made<'a>> {
        let arena = faults.arena();
        let (made, failed) = self.rows(rows, arena)?;
        let at = arena.collect(rows, |i| self.windows[self.closed[i] as usize].row)?;
        let made = Made {
            rows: made,
            places: made.origin().unwrap_or_default(),
            at: (!self.ended).then_some(&*at),
        };
        if failed.is_empty() {
            return Ok(made);
        }
        let good = arena.fill(rows, true)?;
        for (row, ..) in &failed {
            good[*row] = false;
        }
        let mut end = rows;
        let mut before = None;
        for &(row, call, code, ref text) in &failed {
            // Of a window the first value that does not fit.
            if before.replace(row) == Some(row) {
                continue;
            }
            let verdict = faults.push(Fault {
                row: row as u32,
                code,
                span: self.plan.calls.get(call).map(|(_, span)| *span),
                column: None,
                message: arena.copy_str(text)?,
                help: None,
                byte: None,
                record: true,
            })?;
            if verdict == Verdict::Stop {
                end = row;
                break;
            }
        }
        let kept = arena.fill(rows, 0u32)?;
        let mut count = 0;
        for (row, _) in good[..end].iter().enumerate().filter(|(_, good)| **good) {
            kept[count] = row as u32;
            count += 1;
        }
        let width = made.rows.columns().len();
        Ok(Made {
            rows: made.rows.gather(&kept[..count], width, arena)?,
            ..made
        })
    }
}
