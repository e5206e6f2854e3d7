//! Rows on their way into their windows.

use super::open::NONE;
use super::{Shape, Time};
use crate::expr::scalar::civil;
use crate::expr::{Literal, TIME_RANGE};
use crate::stages::aggregate::take_of;
use crate::stages::codes::{LATE, held};
use crate::stages::copies::Scratch;
use crate::stages::groups::grow;
use crate::stages::rowkeys::{KeyMaker, RowKeys};
use crate::stages::window::STAGE;
use standpipe_sdk::aggregate::{Input, RowOrder};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Columns, Data, Faults, Value, Verdict};
use std::ops::RangeInclusive;

/// A batch goes to at most so many windows, a window counted once for each row: a row that goes to more comes alone.
fn most_pairs(budget_bytes: usize) -> usize {
    const PART: usize = 2 << 10;
    const LEAST: usize = 256;
    (budget_bytes / PART).max(LEAST)
}

/// The windows of such a row that are looked at together.
const SOME_PAIRS: usize = 1 << 10;

/// Rows of a batch and the windows they go to.
struct Going<'a> {
    /// Row and start of the window, for each.
    pairs: &'a [(u32, i64)],
    slots: &'a mut [u32],
    inputs: &'a [Input<'a>],
    keys: RowKeys<'a>,
    times: &'a [i64],
}

impl Time {
    /// Rows that come in time, with the watermark behind each row of the batch.
    pub(super) fn in_time<'a>(
        &self,
        batch: &Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(&'a [u32], &'a [i64], &'a [i64])> {
        let column = batch.column(self.plan.time);
        let times = match column.data() {
            Data::Timestamp(times) => times,
            _ => arena.fill(batch.rows(), 0)?,
        };
        let is_null = |row: usize| !matches!(column.data(), Data::Timestamp(_)) || !column.is_valid(row);
        let latest = arena.fill(batch.rows(), i64::MIN)?;
        let good = arena.fill(batch.rows(), 0u32)?;
        let (mut count, mut now) = (0, self.latest.unwrap_or(i64::MIN));
        let sure = self.sure_times();
        for row in 0..batch.rows() {
            let time = times[row];
            let verdict = if is_null(row) {
                faults.report(row, LATE, None, format_args!("the row has no time: it is null"))?
            } else if time < now.saturating_sub(self.plan.late) {
                let behind = Value::Duration(now.saturating_sub(time));
                let late = Value::Duration(self.plan.late);
                faults.report(
                    row,
                    LATE,
                    None,
                    format_args!(
                        "the row is {} before the latest one, and `late:` allows {}",
                        Literal(&behind),
                        Literal(&late)
                    ),
                )?
            } else if !sure.contains(&time) && !self.has_bounds(time) {
                faults.report(
                    row,
                    TIME_RANGE,
                    None,
                    format_args!("a window of the row is not in the years -9999 to 9999"),
                )?
            } else {
                now = now.max(time);
                good[count] = row as u32;
                count += 1;
                Verdict::On
            };
            if verdict == Verdict::Stop {
                latest[row..].fill(now);
                break;
            }
            latest[row] = now;
        }
        Ok((&good[..count], latest, times))
    }

    /// Times of rows all of whose windows have bounds that are timestamps, if perhaps not all of these times.
    fn sure_times(&self) -> RangeInclusive<i64> {
        let around = match self.plan.shape {
            Shape::Session { gap } => gap,
            Shape::Steps { length, step } => length.saturating_add(step),
        };
        civil::MICROS.0.saturating_add(around)..=civil::MICROS.1.saturating_sub(around)
    }

    /// Whether all windows of a row have bounds that are timestamps.
    fn has_bounds(&self, time: i64) -> bool {
        let (first, end) = match self.plan.shape {
            Shape::Session { gap } => (Some(time), time.checked_add(gap)),
            Shape::Steps { length, step } => {
                let (last, windows) = self.of_row(time);
                let last_start = last.checked_mul(step);
                (
                    (last - windows as i64 + 1).checked_mul(step),
                    last_start.and_then(|start| start.checked_add(length)),
                )
            }
        };
        [first, end].iter().all(|bound| bound.is_some_and(civil::in_range))
    }

    /// The windows of a row: the start of the last one, and how many there are, the others a step apart before it.
    fn of_row(&self, time: i64) -> (i64, usize) {
        match self.plan.shape {
            Shape::Session { .. } => (time, 1),
            Shape::Steps { length, step } => {
                let last = time.div_euclid(step);
                // The first one that still has the row: the least start above `time - length`.
                let first = time.saturating_sub(length).div_euclid(step) + 1;
                (last, (last - first + 1).max(0) as usize)
            }
        }
    }

    /// Row and start of window number `at` of a row.
    fn pair(&self, row: u32, time: i64, at: usize) -> (u32, i64) {
        let (last, windows) = self.of_row(time);
        match self.plan.shape {
            Shape::Session { .. } => (row, last),
            Shape::Steps { step, .. } => (row, (last - (windows - 1 - at) as i64).saturating_mul(step)),
        }
    }

    /// Rows go to their windows. Refused by the arena, nothing has happened.
    pub(super) fn go<'a>(&mut self, batch: &Batch<'a>, good: &[u32], times: &'a [i64], arena: &'a Arena) -> Result<()> {
        let windows = |row: &u32| self.of_row(times[*row as usize]).1;
        let total = good.iter().map(windows).fold(0, usize::saturating_add);
        let most = most_pairs(self.budget.limit());
        match good {
            &[row] if total > SOME_PAIRS => {
                let time = times[row as usize];
                let mut scratch = std::mem::replace(&mut self.scratch, Scratch::new(&self.budget));
                let mut outcome = Ok(());
                for from in (0..total).step_by(SOME_PAIRS) {
                    outcome = outcome.and_then(|()| {
                        scratch.with(|arena| {
                            let len = SOME_PAIRS.min(total - from);
                            let pairs = arena.collect(len, |i| self.pair(row, time, from + i))?;
                            let mut going = self.going(batch, pairs, times, arena)?;
                            self.take(&mut going).map_err(|e| held(STAGE, e))
                        })
                    });
                }
                self.scratch = scratch;
                outcome.map_err(|e| held(STAGE, e))?;
            }
            _ if total > most && batch.rows() > 1 => {
                // It comes again, in halves.
                return Err(Error::Memory {
                    wanted: total,
                    used: 0,
                    limit: most,
                });
            }
            _ => {
                let pairs = arena.fill(total, (0u32, 0i64))?;
                let mut slots = pairs.iter_mut();
                for &row in good {
                    let time = times[row as usize];
                    for (at, slot) in slots.by_ref().take(self.of_row(time).1).enumerate() {
                        *slot = self.pair(row, time, at);
                    }
                }
                let mut going = self.going(batch, pairs, times, arena)?;
                self.take(&mut going).map_err(|e| held(STAGE, e))?;
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// All that `take` looks at of a batch.
    fn going<'a>(
        &self,
        batch: &Batch<'a>,
        pairs: &'a [(u32, i64)],
        times: &'a [i64],
        arena: &'a Arena,
    ) -> Result<Going<'a>> {
        let total = pairs.len();
        let rows = arena.collect(total, |i| pairs[i].0)?;
        let whole = total == batch.rows() && (0..).zip(&*rows).all(|(at, &row)| row == at);
        let order = RowOrder {
            chunk: self.batches,
            before: 0,
            rows: (!whole).then_some(&*rows),
        };
        let empty = Input {
            columns: &[],
            rows: total,
            take: None,
            order,
        };
        let inputs = arena.fill(self.plan.calls.len(), empty)?;
        for (input, (arg, _)) in inputs.iter_mut().zip(&self.plan.calls) {
            let mut arg = arg.clone();
            let mut columns = Columns::new(arena, arg.columns.len() + 1)?;
            for (place, column) in arg.columns.iter_mut().chain(&mut arg.filter).enumerate() {
                let given = batch.column(*column);
                columns.push(if whole { given } else { given.gather(rows, arena)? });
                *column = place;
            }
            let given = Batch::new(columns.finish(), None, total);
            input.take = take_of(&arg, &given, arena)?;
            input.columns = &given.columns()[..arg.columns.len()];
        }
        Ok(Going {
            pairs,
            slots: arena.fill(total, NONE)?,
            inputs,
            keys: KeyMaker::read(batch)?,
            times,
        })
    }

    /// Rows go to their windows.
    fn take(&mut self, going: &mut Going<'_>) -> Result<()> {
        let (mut merged, mut lent) = (vec![], self.budget.reserve());
        for at in 0..going.pairs.len() {
            let (row, start) = going.pairs[at];
            let (key, hash) = (going.keys.get(row as usize), going.keys.hashes()[row as usize] as u64);
            going.slots[at] = match self.plan.shape {
                Shape::Steps { length, .. } => {
                    let hash = hash ^ (start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    match self.find(hash, |w| w.start == start && *w.key == *key) {
                        Some(window) => window,
                        None => {
                            let new = self.begin(hash, key, start, start.saturating_add(length))?;
                            self.open.insert_unique(hash, (hash, new), |&(hash, _)| hash);
                            new
                        }
                    }
                }
                Shape::Session { gap } => {
                    self.session(hash, key, going.times[row as usize], gap, &mut merged, &mut lent)?
                }
            };
        }
        if !merged.is_empty() {
            for slot in going.slots.iter_mut() {
                *slot = self.settled(*slot);
            }
        }
        let windows = self.windows.len();
        for (states, input) in self.states.iter_mut().zip(going.inputs) {
            states.room(windows, input, &mut self.reservation)?;
            states.update(going.slots, input);
        }
        if merged.is_empty() {
            return Ok(());
        }
        let mut into: Vec<u32> = vec![];
        grow(&mut into, merged.len(), &mut lent)?;
        into.extend(merged.iter().map(|&from| self.settled(from)));
        let reservation = &mut self.reservation;
        for states in &mut self.states {
            states.seal(reservation)?;
            self.scratch.with(|arena| {
                let partial = states.partial(&merged, arena)?;
                let room = states.room_to_merge(windows, partial, reservation);
                room.map_err(|e| held(STAGE, e))?;
                states.merge(&into, partial);
                Ok(())
            })?;
        }
        self.gone += merged.len();
        Ok(())
    }
}
