//! The groups as a source, sorted by key.
//!
//! The keys' range is cut into pieces of about as many groups each, by a sample; a piece is a claim, and is sorted by the lane that
//! claims it. So sorting and finishing run in parallel, and nothing is sorted twice.

use super::own::Own;
use super::table::Table;
use super::{Plan, key};
use crate::stages::from::numbered;
use standpipe_sdk::error::Result;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Error, Faults, Locator, Part, Reader, Reservation, Source};
use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Groups of one claim, about.
const CLAIM_GROUPS: usize = 16 << 10;
/// Groups per claim that are looked at to find out where to cut.
const SAMPLE: usize = 32;
/// Rows of one part.
const PART_ROWS: usize = 4 << 10;
/// What is left for a value that is too long for a chunk's arena, times the longest one's length; but no more than one part of so many of
/// the memory.
const COPIES: usize = 2;
const VALUES_PART: usize = 4;

/// That, in a budget of so many bytes.
pub(super) fn values_bytes(budget_bytes: usize, longest: usize) -> usize {
    longest.saturating_mul(COPIES).min(budget_bytes / VALUES_PART)
}

/// A group: its table and its number there.
type Group = (u32, u32);

pub(super) struct Sorted {
    plan: Arc<Plan>,
    tables: Vec<Table>,
    /// The groups, piece by piece.
    groups: Vec<Group>,
    /// Where each piece starts, and the end of the last.
    starts: Vec<usize>,
    part_rows: usize,
    next: AtomicU64,
    /// For groups that are too long for a chunk's arena, and how long that is.
    values: (Arc<Budget>, usize),
    _reservation: Reservation,
}

/// Room for putting groups in order.
pub(super) struct Room {
    pieces: Vec<u32>,
    groups: Vec<Group>,
    reservation: Reservation,
}

impl Room {
    pub(super) fn new(groups: usize, workers: usize, budget: &Arc<Budget>) -> Result<Room> {
        let mut room = Room {
            pieces: vec![],
            groups: vec![],
            reservation: budget.reserve(),
        };
        room.reservation.room_to(&mut room.pieces, groups)?;
        room.reservation.room_to(&mut room.groups, groups)?;
        // For the pieces being sorted, each twice as large as it should be.
        let piece = groups.min(2 * CLAIM_GROUPS) * size_of::<(u128, Group)>();
        room.reservation.grow(workers * piece)?;
        Ok(room)
    }
}

impl Sorted {
    pub(super) fn new(
        plan: Arc<Plan>,
        mut tables: Vec<Table>,
        room: Room,
        values: (Arc<Budget>, usize),
        chunk_bytes: usize,
        workers: usize,
    ) -> Result<Sorted> {
        if plan.key_fields.is_empty() && tables.iter().all(|table| table.len() == 0) {
            // One row, also for no input.
            tables[0].add_empty()?;
        }
        for table in &mut tables {
            table.seal()?;
        }
        let Room {
            pieces: mut pieces_of,
            mut groups,
            mut reservation,
        } = room;
        let total: usize = tables.iter().map(Table::len).sum();
        let pieces = total.div_ceil(CLAIM_GROUPS).max(1);
        let cuts = cuts(&tables, pieces, total);
        let key = |group: Group| tables[group.0 as usize].key(group.1);
        // Side by side: every group is compared with some of them.
        let cut_keys: Vec<(u128, &[u8])> = cuts.iter().map(|&cut| key(cut)).collect();
        pieces_of.resize(total, 0);
        let mut starts = vec![0usize; cuts.len() + 2];
        for (piece, count) in count(&tables, &cut_keys, &mut pieces_of, workers)
            .into_iter()
            .enumerate()
        {
            starts[piece + 1] = starts[piece] + count;
        }
        groups.resize(total, (0, 0));
        let mut next = starts.clone();
        let numbered = tables.iter().enumerate();
        let all = numbered.flat_map(|(table, groups)| (0..groups.len() as u32).map(move |group| (table as u32, group)));
        for (group, &piece) in all.zip(&pieces_of) {
            let slot = &mut next[piece as usize];
            groups[*slot] = group;
            *slot += 1;
        }
        reservation.free(&mut pieces_of);
        let columns = plan.key_fields.len() + plan.calls.len();
        Ok(Sorted {
            part_rows: (chunk_bytes / (16 * columns.max(1))).clamp(1, PART_ROWS),
            plan,
            tables,
            groups,
            starts,
            next: AtomicU64::new(0),
            values,
            _reservation: reservation,
        })
    }
}

/// For each group the piece that it goes to, and how many groups go to each. The keys are all over the memory, so several threads wait
/// for them at the same time: the lanes are idle meanwhile.
fn count(tables: &[Table], cuts: &[(u128, &[u8])], pieces_of: &mut [u32], workers: usize) -> Vec<usize> {
    let mut rest = pieces_of;
    let each = tables.iter().map(|table| {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(table.len());
        rest = others;
        (table, own)
    });
    let each = Mutex::new(each.collect::<Vec<_>>().into_iter());
    let sums = Mutex::new(vec![0usize; cuts.len() + 1]);
    let next = || each.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut counts = vec![0usize; cuts.len() + 1];
        while let Some((table, pieces)) = next() {
            for (group, piece) in pieces.iter_mut().enumerate() {
                let key = table.key(group as u32);
                *piece = cuts.partition_point(|&cut| cut <= key) as u32;
                counts[*piece as usize] += 1;
            }
        }
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    };
    let groups: usize = tables.iter().map(Table::len).sum();
    std::thread::scope(|scope| {
        for _ in 1..workers.min(groups / CLAIM_GROUPS) {
            // One that the system refuses leaves its work to the others.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    sums.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Groups at which to cut, ascending: one fewer than pieces.
fn cuts(tables: &[Table], pieces: usize, total: usize) -> Vec<Group> {
    if pieces < 2 {
        return vec![];
    }
    let step = (total / (pieces * SAMPLE)).max(1);
    let mut sample: Vec<Group> = vec![];
    for (table, groups) in tables.iter().enumerate() {
        sample.extend(
            (0..groups.len() as u32)
                .step_by(step)
                .map(|group| (table as u32, group)),
        );
    }
    sample.sort_unstable_by(|&a, &b| compare(tables, a, b));
    let cut = |piece: usize| sample.get(piece * sample.len() / pieces).copied();
    (1..pieces).filter_map(cut).collect()
}

fn compare(tables: &[Table], a: Group, b: Group) -> Ordering {
    let (prefix, tail) = tables[b.0 as usize].key(b.1);
    tables[a.0 as usize].compare(a.1, prefix, tail)
}

impl Source for Sorted {
    fn ticket(&self) -> Option<u64> {
        let claims = self.starts.len() as u64 - 1;
        self.next
            .fetch_update(Relaxed, Relaxed, |claim| (claim < claims).then_some(claim + 1))
            .ok()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        let (budget, share) = &self.values;
        Ok(Box::new(Piece {
            own: Own::new(budget, *share),
            sorted: self,
            groups: vec![],
            from: 0,
            at: 0,
        }))
    }
}

/// One lane's claim.
struct Piece {
    sorted: Arc<Sorted>,
    /// The groups in order, with their keys' prefixes.
    groups: Vec<(u128, Group)>,
    /// Groups in the pieces before.
    from: usize,
    at: usize,
    own: Own,
}

impl Reader for Piece {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let sorted = &self.sorted;
        let piece = usize::try_from(ticket).unwrap_or(usize::MAX - 1);
        let (Some(&from), Some(&to)) = (sorted.starts.get(piece), sorted.starts.get(piece + 1)) else {
            return Ok(false);
        };
        self.groups.clear();
        (self.from, self.at) = (from, 0);
        // Reserved by `Room`.
        self.groups.try_reserve(to - from).map_err(|_| {
            let refused = Error::Memory {
                wanted: (to - from) * size_of::<(u128, Group)>(),
                used: from,
                limit: usize::MAX,
            };
            sorted.plan.held(refused)
        })?;
        for &group in &sorted.groups[from..to] {
            self.groups
                .push((sorted.tables[group.0 as usize].key(group.1).0, group));
        }
        let tables = &sorted.tables;
        self.groups
            .sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| compare(tables, a.1, b.1)));
        Ok(from < to)
    }

    fn let_go(&mut self) {
        self.own.clear();
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let rows = max_rows
            .min(self.sorted.part_rows)
            .clamp(1, (self.groups.len() - self.at).max(1))
            .min(self.groups.len() - self.at);
        self.own.clear();
        let from = (self.from + self.at) as u64;
        let groups = &self.groups[self.at..self.at + rows];
        let faults = Faults::new(arena, stop_at_first);
        let fits = match self.sorted.batch(groups, from, arena, &faults) {
            Err(Error::Memory { .. }) if rows == 1 => {
                self.own.make_room(&self.sorted.plan, |own| {
                    let made = self.sorted.batch(groups, from, own, &Faults::new(own, false));
                    made.map(|_| ())
                })?;
                None
            }
            other => Some(other?),
        };
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at += rows;
        let this: &'a Self = self;
        let (batch, faults) = match fits {
            Some(batch) => (batch, faults),
            None => {
                let groups = &this.groups[this.at - rows..this.at];
                let faults = Faults::new(this.own.arena(), stop_at_first);
                (this.sorted.batch(groups, from, this.own.arena(), &faults)?, faults)
            }
        };
        Ok(Part {
            batch,
            faults,
            last: this.at >= this.groups.len(),
            locator: Locator::default(),
        })
    }
}

impl Sorted {
    fn batch<'a>(
        &'a self,
        groups: &[(u128, Group)],
        from: u64,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<Batch<'a>> {
        let rows = groups.len();
        let plan = &*self.plan;
        let mut columns = Columns::new(arena, plan.key_fields.len() + plan.calls.len())?;
        let heads = arena.collect(rows, |row| groups[row].0.to_be_bytes())?;
        let keys: &mut [&[u8]] = match plan.long {
            false => arena.collect(rows, |row| &heads[row][..])?,
            true => {
                // Prefix and tail side by side.
                let whole = arena.fill::<&[u8]>(rows, &[])?;
                for (row, slot) in whole.iter_mut().enumerate() {
                    let (table, group) = groups[row].1;
                    let (_, tail) = self.tables[table as usize].key(group);
                    let head = &heads[row];
                    *slot = arena.collect(head.len() + tail.len(), |i| {
                        head.get(i)
                            .or_else(|| tail.get(i - head.len()))
                            .copied()
                            .unwrap_or_default()
                    })?;
                }
                whole
            }
        };
        let mut keyed = key::Keyed::new(keys);
        for ty in plan.key_types() {
            columns.push(keyed.column(ty, arena)?);
        }

        let places = Places::new(self.tables.len(), rows, |row| groups[row].1, arena)?;
        for (at, call) in plan.calls.iter().enumerate() {
            let mut parts = Columns::new(arena, places.tables().len())?;
            for (number, &table) in places.tables().iter().enumerate() {
                let (table, of) = (&self.tables[table as usize], places.groups(number));
                let mut fault = |i: usize, code, text: &str| -> Result<()> {
                    let mut key = vec![];
                    table.write_key(of[i], &mut key);
                    plan.fault(call, places.row(number, i), code, text, &key, faults)
                };
                parts.push(table.states[at].finish(of, arena, &mut fault)?);
            }
            columns.push(Column::interleave(parts.finish(), places.picks(), arena)?);
        }
        Ok(Batch::new(columns.finish(), Some(numbered(from, rows, arena)?), rows))
    }
}

/// Groups of several tables in one order: which tables those are, which of the groups are each one's, and where each is among those.
pub(super) struct Places<'a> {
    /// The tables that have any of the groups.
    tables: &'a [u32],
    /// Where each one's groups start, and the end of the last.
    starts: &'a [u32],
    /// The groups, table by table, and the row of each.
    groups: &'a [u32],
    rows: &'a [u32],
    picks: &'a [Pick],
}

impl<'a> Places<'a> {
    /// Row `r` is group `of(r).1` of table `of(r).0`.
    pub(super) fn new(tables: usize, rows: usize, of: impl Fn(usize) -> Group, arena: &'a Arena) -> Result<Self> {
        let counts = arena.fill(tables, 0u32)?;
        for row in 0..rows {
            counts[of(row).0 as usize] += 1;
        }
        let used = counts.iter().filter(|&&count| count > 0).count();
        let (numbers, starts) = (arena.fill(used, 0u32)?, arena.fill(used + 1, 0u32)?);
        // From here on a table's count is its number among those that are used.
        let with_groups = counts.iter_mut().enumerate().filter(|(_, count)| **count > 0);
        for (number, (table, count)) in with_groups.enumerate() {
            numbers[number] = table as u32;
            starts[number + 1] = starts[number] + *count;
            *count = number as u32;
        }
        let next = arena.copy(starts)?;
        let (groups, of_rows) = (arena.fill(rows, 0u32)?, arena.fill(rows, 0u32)?);
        let picks = arena.fill::<Pick>(rows, (0, 0))?;
        for (row, pick) in picks.iter_mut().enumerate() {
            let (table, group) = of(row);
            let number = counts[table as usize];
            let slot = &mut next[number as usize];
            groups[*slot as usize] = group;
            of_rows[*slot as usize] = row as u32;
            *pick = (number, *slot - starts[number as usize]);
            *slot += 1;
        }
        Ok(Places {
            tables: numbers,
            starts,
            groups,
            rows: of_rows,
            picks,
        })
    }

    /// The tables that have any of the groups; what follows goes by the position here.
    pub(super) fn tables(&self) -> &'a [u32] {
        self.tables
    }

    /// The groups of the `number`-th of these tables.
    pub(super) fn groups(&self, number: usize) -> &'a [u32] {
        &self.groups[self.starts[number] as usize..self.starts[number + 1] as usize]
    }

    /// The row of its `at`-th group.
    fn row(&self, number: usize, at: usize) -> usize {
        self.rows[self.starts[number] as usize + at] as usize
    }

    /// For each row its table's number, and where it is among that table's groups.
    pub(super) fn picks(&self) -> &'a [Pick] {
        self.picks
    }
}
