//! Groups that do not fit into memory: tables as sorted segments.
//!
//! How: whoever is refused takes all locks, writes the groups in the order of their keys and starts with empty tables. A group is a row
//! of partial states, and behind it, for each aggregate whose states may be larger than memory, one row per entry of its state: so no row
//! is longer than a value. The key of a row is the group's, then the number of the aggregate (0: the row of states), then the entry's
//! own key; [`super::merged`] reads them again.
//!
//! Laws
//! - Nothing here needs memory of the budget that was not set aside when there was some, unless a row is longer than [`SLACK_PART`] of it
//!   allows; and what was set aside stays so, whatever other lanes take meanwhile.
//! - What is written of a group begins with a row of its states.

use super::packed::Packed;
use super::table::Table;
use super::{Plan, drain, merged};
use crate::stages::heap;
use crate::stages::keys::KeyBlock;
use crate::stages::spill::{SegmentWriter, Store, frame_bytes, lane_floor, merge_floor};
use standpipe_sdk::aggregate::Entry;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{Least, Room};
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Data, Reservation, Text};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Rows that are written at a time, at most.
const BLOCK: usize = 1024;

/// What writing takes, set aside.
pub(super) struct Spiller {
    writer: SegmentWriter,
    arena: Arena,
    /// The next group of each table.
    next: Vec<usize>,
    picks: Vec<(u32, u32)>,
    rows: Vec<Row>,
    /// The arena's.
    room: Reservation,
    /// For rows that take more than usual: the arena or the writer has what is taken of it from then on.
    slack: Reservation,
}

/// The slack is this part of the memory, at most `MOST_SLACK` bytes.
const SLACK_PART: usize = 8;
const MOST_SLACK: usize = 32 << 20;

/// What is set aside to write tables, and what merging what was written takes.
pub(in crate::stages) fn least(room: &Room) -> Least {
    least_of(room.bytes, room.workers)
}

/// The same in a budget of so many bytes.
pub(in crate::stages) fn least_of(budget_bytes: usize, workers: usize) -> Least {
    let slack = (budget_bytes / SLACK_PART).min(MOST_SLACK);
    let tables = workers * super::fill::FRAMES_OF_TABLE * frame_bytes(budget_bytes);
    Least {
        takes: lane_floor(budget_bytes) + slack + tables,
        gives: merge_floor(budget_bytes) + merged::groups_floor(budget_bytes),
    }
}

/// The same where a value that is made of a group may be as long as a row.
pub(in crate::stages) fn least_of_long(room: &Room) -> Least {
    Least {
        gives: merge_floor(room.bytes) + merged::long_floor(room.bytes, room.max_record),
        ..least(room)
    }
}

impl Spiller {
    pub(super) fn new(store: &Arc<Store>, budget: &Arc<Budget>, tables: usize) -> Result<Spiller> {
        let bytes = 4 * store.frame_bytes();
        let (mut room, mut slack) = (budget.reserve(), budget.reserve());
        room.set_aside(bytes)?;
        slack.grow((budget.limit() / SLACK_PART).min(MOST_SLACK))?;
        Ok(Spiller {
            slack,
            writer: store.writer()?,
            arena: Arena::new(bytes),
            next: vec![0; tables],
            picks: Vec::with_capacity(BLOCK),
            rows: Vec::with_capacity(BLOCK),
            room,
        })
    }

    /// Writes all groups of these tables, which are sealed and sorted, as one segment, and empties the tables.
    pub(super) fn write<T: DerefMut<Target = Table>>(
        &mut self,
        plan: &Plan,
        store: &Arc<Store>,
        tables: &mut [T],
    ) -> Result<()> {
        self.next.fill(0);
        let mut heads = Heads::new(tables, &self.next);
        let mut block = BLOCK;
        loop {
            heads.picks(tables, &mut self.next, &mut self.picks);
            if self.picks.is_empty() {
                break;
            }
            let mut cursor = Cursor::default();
            loop {
                cursor.rows(plan, tables, &self.picks, &mut self.rows);
                if self.rows.is_empty() {
                    break;
                }
                self.write_rows(plan, tables, &mut block)?;
            }
        }
        self.writer.keep()?;
        // Taken over before the tables give it back: what long rows took is made good.
        let usual = (store.budget_bytes() / SLACK_PART).min(MOST_SLACK);
        for table in tables.iter_mut() {
            let missing = usual.saturating_sub(self.slack.bytes());
            table.release_to(&mut self.slack, missing);
        }
        // A lane's table keeps what it has set aside: then it is what is free now, if nobody was faster.
        let _ = self.slack.grow(usual.saturating_sub(self.slack.bytes()));
        Ok(())
    }

    /// Writes the rows of `self.rows`, about `block` at a time; fewer if they are long.
    fn write_rows(&mut self, plan: &Plan, tables: &[impl Deref<Target = Table>], block: &mut usize) -> Result<()> {
        let mut from = 0;
        while from < self.rows.len() {
            let len = (*block).min(self.rows.len() - from);
            let rows = &self.rows[from..from + len];
            let (arena, picks) = (&self.arena, &self.picks);
            let written = write_block(plan, tables, picks, rows, &mut self.writer, &mut self.slack, arena);
            self.arena.reset();
            match written {
                Ok(()) => from += len,
                Err(Error::Memory { .. }) if len > 1 => *block = len.div_ceil(2),
                // One row that is longer than was expected.
                Err(Error::Memory { limit, .. }) if limit == self.arena.limit() => {
                    let more = limit.saturating_mul(2);
                    self.room.set_aside_from(more, &mut self.slack)?;
                    self.arena.set_limit(more);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A row to write, of a group among those that were picked: its states, or an entry of one of them.
#[derive(Clone, Copy)]
struct Row {
    pick: u32,
    /// 0 for the states, else the number of the call and one.
    call: u16,
    entry: u32,
}

/// Where the rows of picked groups go on.
#[derive(Default)]
struct Cursor {
    pick: usize,
    call: usize,
    entry: usize,
}

impl Cursor {
    /// The next rows, as many as there is room for in `rows`.
    fn rows(&mut self, plan: &Plan, tables: &[impl Deref<Target = Table>], picks: &[(u32, u32)], rows: &mut Vec<Row>) {
        rows.clear();
        while let Some(&(table, group)) = picks.get(self.pick)
            && rows.len() < BLOCK
        {
            let row = |call: usize, entry: usize| Row {
                pick: self.pick as u32,
                call: call as u16,
                entry: entry as u32,
            };
            if self.call == 0 {
                rows.push(row(0, 0));
                self.call = 1;
                continue;
            }
            let Some(&call) = plan.cut.get(self.call - 1) else {
                (self.pick, self.call, self.entry) = (self.pick + 1, 0, 0);
                continue;
            };
            let entries = tables[table as usize].states[call].entries(group);
            let to = entries.min(self.entry + BLOCK - rows.len());
            rows.extend((self.entry..to).map(|entry| row(call + 1, entry)));
            self.entry = to;
            if to == entries {
                (self.call, self.entry) = (self.call + 1, 0);
            }
        }
    }
}

/// The tables by their next keys: the least first.
struct Heads {
    /// (prefix, table), a heap whose first is the least.
    heap: Vec<(u128, u32)>,
}

impl Heads {
    fn new(tables: &[impl Deref<Target = Table>], next: &[usize]) -> Heads {
        let head = |at: usize| {
            let group = tables[at].sorted(next[at])?;
            Some((tables[at].key(group).0, at as u32))
        };
        let mut heap: Vec<_> = (0..tables.len()).filter_map(head).collect();
        heap::build(&mut heap, |a, b| is_less(a, b, tables, next));
        Heads { heap }
    }

    /// The next groups, as many as there is room for in `picks`.
    fn picks(&mut self, tables: &[impl Deref<Target = Table>], next: &mut [usize], picks: &mut Vec<(u32, u32)>) {
        picks.clear();
        while picks.len() < BLOCK {
            let Some(&(_, number)) = self.heap.first() else { break };
            let table = number as usize;
            picks.push((number, tables[table].sorted(next[table]).unwrap_or_default()));
            next[table] += 1;
            match tables[table].sorted(next[table]) {
                Some(group) => self.heap[0].0 = tables[table].key(group).0,
                None => {
                    let last = self.heap.len() - 1;
                    self.heap.swap(0, last);
                    self.heap.pop();
                }
            }
            heap::sift_down(&mut self.heap, |a, b| is_less(a, b, tables, next));
        }
    }
}

#[inline]
fn is_less(a: &(u128, u32), b: &(u128, u32), tables: &[impl Deref<Target = Table>], next: &[usize]) -> bool {
    if a.0 != b.0 {
        return a.0 < b.0;
    }
    let tail = |table: u32| {
        let table = table as usize;
        let group = tables[table].sorted(next[table]).unwrap_or_default();
        tables[table].key(group).1
    };
    tail(a.1) < tail(b.1)
}

/// Rows on their way to disk.
struct Block<'r, T> {
    plan: &'r Plan,
    tables: &'r [T],
    picks: &'r [(u32, u32)],
    rows: &'r [Row],
}

fn write_block<T: Deref<Target = Table>>(
    plan: &Plan,
    tables: &[T],
    picks: &[(u32, u32)],
    rows: &[Row],
    writer: &mut SegmentWriter,
    slack: &mut Reservation,
    arena: &Arena,
) -> Result<()> {
    let block = Block {
        plan,
        tables,
        picks,
        rows,
    };
    let columns = match &plan.packed {
        None => block.states(arena)?,
        Some(packed) => block.packed(packed, arena)?,
    };
    let batch = Batch::new(columns, None, rows.len());
    let keys = block.keys(arena)?;
    let (chunks, numbers) = (arena.fill(rows.len(), 0u64)?, arena.fill(rows.len(), 0u32)?);
    block.each_entry(|row, entry| (chunks[row], numbers[row]) = entry.order);
    writer.make_room_from(&batch, &keys, slack)?;
    writer.append(&batch, &keys, chunks, numbers)
}

impl<T: Deref<Target = Table>> Block<'_, T> {
    fn key(&self, row: &Row) -> (u128, &[u8]) {
        let (table, group) = self.picks[row.pick as usize];
        self.tables[table as usize].key(group)
    }

    /// Calls `f` with the number of each row that is an entry, and the entry.
    fn each_entry(&self, mut f: impl FnMut(usize, Entry<'_>)) {
        for (at, _) in self.rows.iter().enumerate().filter(|(_, row)| row.call > 0) {
            self.entry(at, &mut |entry| f(at, entry));
        }
    }

    /// Calls `f` with the entry that row `at` is.
    fn entry(&self, at: usize, f: &mut dyn FnMut(Entry<'_>)) {
        let row = &self.rows[at];
        let (table, group) = self.picks[row.pick as usize];
        let states = &self.tables[table as usize].states[(row.call as usize).saturating_sub(1)];
        states.entry(group, row.entry as usize, f);
    }

    /// The groups of the rows that are no entries.
    fn groups<'a>(&self, arena: &'a Arena) -> Result<&'a [(u32, u32)]> {
        let wholes = || self.rows.iter().filter(|row| row.call == 0);
        let mut next = wholes();
        let group = |_| next.next().map_or((0, 0), |row| self.picks[row.pick as usize]);
        Ok(arena.collect(wholes().count(), group)?)
    }

    /// For each table that has any of those groups the columns of all partial states, or how many entries they are cut into.
    fn partials<'a>(&self, places: &drain::Places<'_>, arena: &'a Arena) -> Result<&'a [&'a [Column<'a>]]> {
        let parts = arena.fill::<&[Column<'_>]>(places.tables().len(), &[])?;
        for (number, &table) in places.tables().iter().enumerate() {
            let groups = places.groups(number);
            let mut columns = Columns::new(arena, self.plan.states_width())?;
            for (at, states) in self.tables[table as usize].states.iter().enumerate() {
                if self.plan.cut.contains(&at) {
                    let entries = arena.map(groups, |group| states.entries(group) as i64)?;
                    columns.push(Column::int(entries, None));
                } else {
                    states.partial(groups, arena)?.iter().for_each(|c| columns.push(*c));
                }
            }
            parts[number] = columns.finish();
        }
        Ok(parts)
    }

    /// One column per column of partial states: where no state is cut, so that there are no other rows.
    fn states<'a>(&self, arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let groups = self.groups(arena)?;
        let places = drain::Places::new(self.tables.len(), groups.len(), |at| groups[at], arena)?;
        let parts = self.partials(&places, arena)?;
        let mut columns = Columns::new(arena, self.plan.states_width())?;
        for column in 0..self.plan.states_width() {
            let of = arena.map(parts, |part| part[column])?;
            columns.push(Column::interleave(of, places.picks(), arena)?);
        }
        Ok(columns.finish())
    }

    /// How often an entry came, and its value or a group's partial states.
    fn packed<'a>(&self, packed: &Packed, arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let rows = self.rows.len();
        let groups = self.groups(arena)?;
        let places = drain::Places::new(self.tables.len(), groups.len(), |at| groups[at], arena)?;
        let parts = self.partials(&places, arena)?;
        let mut columns = Columns::new(arena, 2)?;
        let (mut counted, mut valued) = (false, !groups.is_empty());
        self.each_entry(|_, entry| {
            counted |= entry.count != 1;
            valued |= !entry.value.is_empty();
        });
        columns.push(match counted {
            false => Column::nulls(rows),
            true => {
                let counts = arena.fill(rows, 1i64)?;
                self.each_entry(|row, entry| counts[row] = entry.count as i64);
                Column::int(counts, None)
            }
        });
        if !valued {
            columns.push(Column::nulls(rows));
            return Ok(columns.finish());
        }
        // Twice: how long they are, then all of them in one piece.
        let lens = arena.fill(rows, 0u32)?;
        let mut total = 0;
        self.each_value(packed, parts, places.picks(), |row, value| {
            lens[row] = value.len() as u32;
            total += value.len();
        });
        let bytes = arena.fill(total, 0u8)?;
        let mut at = 0;
        self.each_value(packed, parts, places.picks(), |_, value| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        });
        match Text::split(bytes, lens, false, arena)? {
            Some(text) => columns.push(Column::new(Data::Bytes(text), None, rows)),
            None => columns.push(Column::nulls(rows)),
        }
        Ok(columns.finish())
    }

    /// Calls `f` with the value of each entry, and with the packed states of each row that is none.
    fn each_value(&self, packed: &Packed, parts: &[&[Column<'_>]], picks: &[Pick], mut f: impl FnMut(usize, &[u8])) {
        let (mut picks, mut bytes) = (picks.iter(), vec![]);
        for (at, row) in self.rows.iter().enumerate() {
            if row.call > 0 {
                self.entry(at, &mut |entry| f(at, entry.value));
            } else if let Some(&(part, group)) = picks.next() {
                bytes.clear();
                packed.write(parts[part as usize], group as usize, &mut bytes);
                f(at, &bytes);
            }
        }
    }

    fn keys<'a>(&self, arena: &'a Arena) -> Result<KeyBlock<'a>> {
        let mark = if self.plan.is_cut() { size_of::<u16>() } else { 0 };
        let ends = arena.fill(self.rows.len() + 1, 0u32)?;
        for (end, row) in ends[1..].iter_mut().zip(self.rows) {
            *end = (size_of::<u128>() + self.key(row).1.len() + mark) as u32;
        }
        self.each_entry(|row, entry| ends[row + 1] += entry.key.len() as u32);
        for at in 1..ends.len() {
            ends[at] += ends[at - 1];
        }
        let bytes = arena.fill(ends[self.rows.len()] as usize, 0u8)?;
        for (&from, row) in ends.iter().zip(self.rows) {
            let (prefix, tail) = self.key(row);
            let slot = &mut bytes[from as usize..];
            slot[..size_of::<u128>()].copy_from_slice(&prefix.to_be_bytes());
            slot[size_of::<u128>()..][..tail.len()].copy_from_slice(tail);
            if mark > 0 {
                slot[size_of::<u128>() + tail.len()..][..mark].copy_from_slice(&row.call.to_be_bytes());
            }
        }
        self.each_entry(|row, entry| {
            let end = ends[row + 1] as usize;
            bytes[end - entry.key.len()..end].copy_from_slice(entry.key);
        });
        Ok(KeyBlock::each(bytes, ends))
    }
}
