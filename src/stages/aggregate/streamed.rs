//! Groups of rows that come sorted by their keys: each is given as soon as the next one begins, in memory for one group.
//!
//! How: one state at group 0 for the group that may go on, the groups of a batch behind it; then the last of them becomes group 0. What
//! may be refused of the chunk's memory comes after rows were taken, so the state before is kept until it is done.
//!
//! Laws
//! - What comes out is what the table would give: rows sorted by key, values and keys the same bit by bit.
//! - A row's place is that of the group's last row.
//! - A group whose value does not fit has its failure in two columns behind the others, until [`Verdicts`] has told it.

use super::fill::take_of;
use super::{Plan, key};
use crate::stages::keys::Keys;
use standpipe_sdk::aggregate::{Input, OfRun, RowOrder, States};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{
    Arena, Batch, Bits, Code, Column, Columns, Data, Emitter, Error, Faults, Flow, Place, Prepare, Reservation,
    RowWise, Serial, Verdict,
};
use std::sync::Arc;

pub(super) struct Streamed {
    plan: Arc<Plan>,
    states: Vec<Box<dyn States>>,
    reservation: Reservation,
    /// The key of the group that may go on, and the place of its last row.
    open: Option<Place>,
    key: Vec<u8>,
    key_room: Reservation,
    /// Batches so far: the order of rows.
    batches: u64,
}

impl Streamed {
    pub(super) fn new(plan: &Arc<Plan>, setup: &Setup) -> Streamed {
        let of_run = OfRun::new(setup);
        let states = |call: &super::Called| call.arg.aggregate.states(&of_run);
        Streamed {
            states: plan.calls.iter().map(states).collect(),
            plan: plan.clone(),
            reservation: setup.budget.reserve(),
            open: None,
            key: vec![],
            key_room: setup.budget.reserve(),
            batches: 0,
        }
    }
}

impl Serial for Streamed {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        Some(Box::new(KeysBehind(self.plan.keys.clone())))
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let keys = match batch.columns().last().map(Column::data) {
            Some(Data::Bytes(keys)) => keys,
            _ => return Err(Error::Panic("rows without their keys".into())),
        };
        // The group of each row, and the first row of each group that begins here.
        let groups = arena.fill(batch.rows(), 0u32)?;
        let starts = arena.fill(batch.rows(), 0u32)?;
        let (mut count, mut begun) = (usize::from(self.open.is_some()), 0);
        for (row, group) in groups.iter_mut().enumerate() {
            let before = match row.checked_sub(1) {
                Some(before) => Some(keys.bytes(before)),
                None => self.open.map(|_| self.key.as_slice()),
            };
            if before != Some(keys.bytes(row)) {
                starts[begun] = row as u32;
                begun += 1;
                count += 1;
            }
            *group = (count - 1) as u32;
        }
        let Some(last) = batch.rows().checked_sub(1) else {
            return Ok((None, Flow::More));
        };
        let starts = &starts[..begun];
        let group = |number: usize| -> &[u8] {
            match number.checked_sub(count - begun) {
                Some(at) => keys.bytes(starts[at] as usize),
                None => &self.key,
            }
        };
        let inputs = self.inputs(&batch, arena)?;
        let all_keys = arena.fill::<&[u8]>(count, &[])?;
        for (number, slot) in all_keys.iter_mut().enumerate() {
            *slot = arena.copy(group(number))?;
        }
        let all_keys = &*all_keys;
        let places = arena.collect(count, |number| {
            let next = starts.get(number + 1 - (count - begun)).map(|&row| row as usize);
            match next {
                Some(0) => self.open.unwrap_or_default(),
                Some(next) => batch.place(next - 1),
                None => batch.place(last),
            }
        })?;
        let before = match self.open {
            Some(_) => Some(self.partials(0, arena)?),
            None => None,
        };
        for (states, input) in self.states.iter_mut().zip(inputs) {
            let room = states.room(count, input, &mut self.reservation);
            room.map_err(|e| self.plan.held(e))?;
        }
        for (states, input) in self.states.iter_mut().zip(inputs) {
            states.update(groups, input);
        }
        match self.given(&all_keys[..count - 1], &places[..count - 1], arena) {
            Ok((rows, after)) => {
                if let Some(after) = after {
                    self.only(after)?;
                }
                self.open = Some(batch.place(last));
                self.remember(all_keys[count - 1])?;
                self.batches += 1;
                Ok((rows, Flow::More))
            }
            Err(error) => {
                // The rows may come again: as if they had never been here.
                match before {
                    Some(before) => self.only(before)?,
                    None => self.states.iter_mut().for_each(|states| states.clear()),
                }
                Err(error)
            }
        }
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let Some(place) = self.open.take() else { return Ok(()) };
        let arena = out.arena();
        let key: &[u8] = arena.copy(&self.key)?;
        let batch = self.batch(&[key], &[place], arena)?;
        out.last(batch)?;
        for states in &mut self.states {
            states.release(&mut self.reservation);
        }
        Ok(())
    }
}

/// The number of the call that failed with the code, and the message.
const FAILURE_COLUMNS: usize = 2;

/// Partial states of one group, call by call.
type Partials<'a> = &'a [&'a [Column<'a>]];

impl Streamed {
    fn inputs<'a>(&self, batch: &Batch<'a>, arena: &'a Arena) -> Result<&'a [Input<'a>]> {
        let calls = &self.plan.calls;
        let empty = Input {
            columns: &[],
            rows: batch.rows(),
            take: None,
            order: RowOrder {
                chunk: self.batches,
                ..RowOrder::default()
            },
        };
        let inputs = arena.fill(calls.len(), empty)?;
        for (input, call) in inputs.iter_mut().zip(calls) {
            let columns = &call.arg.columns;
            input.columns = arena.collect(columns.len(), |i| batch.column(columns[i]))?;
            input.take = take_of(&call.arg, batch, arena)?;
        }
        Ok(inputs)
    }

    fn partials<'a>(&self, group: u32, arena: &'a Arena) -> Result<Partials<'a>> {
        let partials = arena.fill::<&[Column<'_>]>(self.states.len(), &[])?;
        for (partial, states) in partials.iter_mut().zip(&self.states) {
            *partial = states.partial(&[group], arena)?;
        }
        Ok(partials)
    }

    /// The groups that are complete, and the state of the one behind them.
    fn given<'a>(
        &self,
        keys: &[&'a [u8]],
        places: &[Place],
        arena: &'a Arena,
    ) -> Result<(Option<Batch<'a>>, Option<Partials<'a>>)> {
        if keys.is_empty() {
            return Ok((None, None));
        }
        let after = self.partials(keys.len() as u32, arena)?;
        Ok((Some(self.batch(keys, places, arena)?), Some(after)))
    }

    /// From now on there is one group, with this state.
    fn only(&mut self, partials: Partials<'_>) -> Result<()> {
        for (states, partial) in self.states.iter_mut().zip(partials) {
            states.clear();
            // It has kept its memory.
            let room = states.room_to_merge(1, partial, &mut self.reservation);
            room.map_err(|e| self.plan.held(e))?;
            states.merge(&[0], partial);
        }
        Ok(())
    }

    fn remember(&mut self, key: &[u8]) -> Result<()> {
        self.key.clear();
        let room = self.key_room.room(&mut self.key, key.len());
        room.map_err(|e| self.plan.held(e))?;
        self.key.extend_from_slice(key);
        Ok(())
    }

    /// The first groups, with these keys and places.
    fn batch<'a>(&self, keys: &[&'a [u8]], places: &[Place], arena: &'a Arena) -> Result<Batch<'a>> {
        let (plan, rows) = (&*self.plan, keys.len());
        let mut columns = Columns::new(arena, plan.width() + FAILURE_COLUMNS)?;
        let mut keyed = key::Keyed::new(arena.copy(keys)?);
        for ty in plan.key_types() {
            columns.push(keyed.column(ty, arena)?);
        }
        let numbers = arena.collect(rows, |at| at as u32)?;
        // Of several failures of one group the first is told.
        let (mut failed, mut messages): (Vec<(usize, i64)>, Vec<String>) = (vec![], vec![]);
        for (number, states) in self.states.iter().enumerate() {
            let mut fault = |at: usize, code: Code, text: &str| {
                if !failed.iter().any(|(row, _)| *row == at) {
                    failed.push((at, (number as i64) << 32 | i64::from(code.0)));
                    messages.push(plan.failure(text, keys[at]));
                }
                Ok(())
            };
            columns.push(states.finish(numbers, arena, &mut fault)?);
        }
        if !plan.fallible() {
            // Nobody looks for them.
        } else if failed.is_empty() {
            columns.push(Column::nulls(rows));
            columns.push(Column::nulls(rows));
        } else {
            let at = |row: usize| failed.iter().position(|(failed, _)| *failed == row);
            let codes = arena.collect(rows, |row| at(row).map_or(0, |at| failed[at].1))?;
            let valid = Bits::collect(arena, rows, |row| at(row).is_some())?;
            let mut texts = TextBuilder::new(arena, rows, 0)?;
            for row in 0..rows {
                match at(row) {
                    Some(at) => texts.push(&messages[at])?,
                    None => texts.push_empty(),
                }
            }
            columns.push(Column::int(codes, Some(valid)));
            columns.push(Column::string(texts.finish()?, Some(valid)));
        }
        Ok(Batch::new(columns.finish(), Some(arena.copy(places)?), rows))
    }
}

/// Makes keys before a batch's turn: a column of bytes behind the others.
struct KeysBehind(Keys);

impl Prepare for KeysBehind {
    fn prepare<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        let block = self.0.block(&batch, arena)?;
        let mut keys = TextBuilder::new(arena, batch.rows(), block.bytes())?;
        for row in 0..batch.rows() {
            keys.push_bytes(block.get(row))?;
        }
        let mut columns = Columns::new(arena, batch.columns().len() + 1)?;
        batch.columns().iter().for_each(|column| columns.push(*column));
        columns.push(Column::new(Data::Bytes(keys.finish()?), None, batch.rows()));
        Ok(batch.with_columns(columns.finish()))
    }
}

/// Tells the failures of groups that [`Streamed`] has written behind their values. `keeps`: their rows go on, with nulls.
pub(super) struct Verdicts {
    pub(super) plan: Arc<Plan>,
    pub(super) keeps: bool,
}

impl RowWise for Verdicts {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let width = self.plan.width();
        let own = batch.with_columns(&batch.columns()[..width]);
        let (codes, texts) = match (batch.column(width).data(), batch.column(width + 1).data()) {
            (Data::Int(codes), Data::String(texts)) => (codes, texts),
            _ => return out.last(own),
        };
        let valid = batch.column(width);
        let good = arena_rows(out.arena(), batch.rows(), |row| !valid.is_valid(row))?;
        let mut end = batch.rows();
        for row in (0..batch.rows()).filter(|&row| valid.is_valid(row)) {
            let (call, code) = ((codes[row] >> 32) as usize, Code(codes[row] as u16));
            let span = self.plan.calls.get(call).map(|call| call.span);
            if out.reject(row, code, span, format_args!("{}", texts.str(row)))? == Verdict::Stop {
                end = row;
                break;
            }
        }
        let arena = out.arena();
        if self.keeps {
            return out.last(own.head(end, arena)?);
        }
        let good = &good[..good.partition_point(|&row| (row as usize) < end)];
        out.last(own.gather(good, width, arena)?)
    }
}

fn arena_rows(arena: &Arena, rows: usize, keep: impl Fn(usize) -> bool) -> Result<&[u32]> {
    let count = (0..rows).filter(|&row| keep(row)).count();
    let mut kept = (0..rows as u32).filter(|&row| keep(row as usize));
    Ok(arena.collect(count, |_| kept.next().unwrap_or_default())?)
}
