//! One lane's way into the table.

use super::Aggregate;
use super::known::{KeyBits, Known};
use super::table::{Hash, KeyRows, Sharding, Table};
use standpipe_sdk::aggregate::{Input, RowOrder};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::AggregateArg;
use standpipe_sdk::{Arena, Batch, Bits, Column, Columns, Data, Fill};
use std::sync::Arc;
use std::time::Duration;

/// Groups of a lane's own table: few enough to stay in the processor's cache.
const LANE_GROUPS: usize = 4096;
/// A lane's table is in the way if it takes fewer rows than this per group before it is full.
const ROWS_PER_GROUP: usize = 8;
/// Rows that are worked on at a time.
const ROWS: usize = 16 << 10;
/// What a lane's table can do with, in frames.
pub(super) const FRAMES_OF_TABLE: usize = 2;
/// How often a lane looks whether others have given memory back before one row that does not fit is an error.
const ATTEMPTS: usize = 2000;
const NAP: Duration = Duration::from_micros(500);
/// Groups that are handed over at a time.
const FLUSH_GROUPS: usize = 1024;
/// The chunk of a lane before its first one.
const NO_CHUNK: u64 = u64::MAX;

pub(super) struct Filler {
    stage: Arc<Aggregate>,
    table: Table,
    /// The groups of the table that most rows are in; `None` if there are no such.
    known: Option<Known>,
    /// Rows since the lane's table was emptied.
    rows: usize,
    /// Rows go straight to the shards.
    direct: bool,
    arena: Arena,
    chunk: u64,
    /// Rows of the chunk so far.
    before: u32,
    done: bool,
}

/// A batch whose keys are made: everything that can be refused by the lane's arena has been done.
struct Ready<'a> {
    keys: KeyRows<'a>,
    inputs: &'a [Input<'a>],
    /// The groups are written here.
    groups: &'a mut [u32],
    /// Rows to take at a time, at most: fewer where there is room for fewer only.
    most: usize,
    attempts: usize,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        if self.chunk == NO_CHUNK {
            // Not before all lanes have set aside what they cannot do without.
            self.known = Known::new(self.stage.plan.key_fields.len(), &self.stage.budget);
        }
        if chunk != self.chunk {
            (self.chunk, self.before) = (chunk, 0);
        }
        let mut from = 0;
        while from < batch.rows() {
            let to = batch.rows().min(from + ROWS);
            self.take(&batch, from, to).map_err(|e| self.stage.plan.held(e))?;
            if self.stage.spills_after(to - from) {
                let spilled = self.flush().and_then(|()| self.stage.spill_now());
                spilled.map_err(|e| self.stage.plan.held(e))?;
            }
            from = to;
        }
        self.before = self.before.wrapping_add(batch.rows() as u32);
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.done, true) {
            self.flush().map_err(|e| self.stage.plan.held(e))?;
            self.table = Table::new(&self.stage.plan, &self.stage.of_run, &self.stage.budget);
            self.known = None;
            self.arena.release();
        }
        Ok(())
    }
}

impl Filler {
    pub(super) fn new(stage: Arc<Aggregate>) -> Result<Filler> {
        let mut table = Table::new(&stage.plan, &stage.of_run, &stage.budget);
        table.set_aside(FRAMES_OF_TABLE * stage.store.frame_bytes())?;
        let arena = Arena::new(stage.share);
        Ok(Filler {
            stage,
            table,
            known: None,
            rows: 0,
            direct: false,
            arena,
            chunk: NO_CHUNK,
            before: 0,
            done: false,
        })
    }

    /// Takes rows `from..to`, in halves where the lane's arena has no room for them.
    fn take(&mut self, batch: &Batch<'_>, from: usize, to: usize) -> Result<()> {
        let mut arena = std::mem::replace(&mut self.arena, Arena::new(0));
        let outcome = self.take_in(batch, from, to, &arena);
        arena.reset();
        self.arena = arena;
        match outcome {
            Err(Stopped::Arena(_)) if to - from > 1 => {
                let middle = from + (to - from) / 2;
                self.take(batch, from, middle)?;
                self.take(batch, middle, to)
            }
            Err(Stopped::Arena(error) | Stopped::For(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    fn take_in(&mut self, batch: &Batch<'_>, from: usize, to: usize, arena: &Arena) -> Result<(), Stopped> {
        let columns = arena.collect(batch.columns().len(), |i| batch.column(i).slice(from, to - from))?;
        let batch = Batch::new(columns, None, to - from);
        let order = RowOrder {
            chunk: self.chunk,
            before: self.before.wrapping_add(from as u32),
            rows: None,
        };
        let takes = self.takes(&batch, arena)?;
        if self.direct {
            self.known = None;
        }
        let bits = match &self.known {
            Some(_) => KeyBits::new(&self.stage.plan.keys, &batch, arena)?,
            None => None,
        };
        if let Some(bits) = bits
            && self.take_known(&batch, bits, takes, order, arena)?
        {
            return Ok(());
        }
        let keys = self.keys(&batch, arena)?;
        if self.direct {
            return self.take_by_shard(&batch, keys, takes, order, arena);
        }
        let mut ready = Ready {
            keys,
            inputs: self.inputs(&batch, takes, order, arena)?,
            groups: arena.fill(batch.rows(), 0)?,
            most: batch.rows(),
            attempts: 0,
        };
        let mut at = self.take_some(&mut ready, 0).map_err(Stopped::For)?;
        if let (Some(known), Some(bits)) = (&mut self.known, bits)
            && at == batch.rows()
            && self.table.len() > 0
        {
            known.remember(bits, ready.groups.iter().copied().enumerate());
        }
        while at < batch.rows() {
            at = self.take_some(&mut ready, at).map_err(Stopped::For)?;
        }
        Ok(())
    }

    /// Takes rows nearly all of which are in groups that are known. `false` if that is no way to take these; nothing has changed then.
    fn take_known<'a>(
        &mut self,
        batch: &Batch<'a>,
        bits: KeyBits<'_>,
        takes: &[Option<Bits<'a>>],
        order: RowOrder<'a>,
        arena: &'a Arena,
    ) -> Result<bool, Stopped> {
        let Some(known) = &mut self.known else { return Ok(false) };
        let groups = arena.fill(batch.rows(), 0u32)?;
        let unknown = known.groups(bits, groups, arena)?;
        if !Known::pays(batch.rows(), unknown.len()) {
            if known.strike() {
                self.known = None;
            }
            return Ok(false);
        }
        if self.table.len() + unknown.len() > LANE_GROUPS {
            return Ok(false);
        }
        let inputs = self.inputs(batch, takes, order, arena)?;
        let mut columns = Columns::new(arena, batch.columns().len())?;
        for at in 0..batch.columns().len() {
            columns.push(match self.stage.plan.keys.columns().any(|key| key == at) {
                true => batch.column(at).gather(unknown, arena)?,
                false => Column::nulls(unknown.len()),
            });
        }
        let keys = self.keys(&Batch::new(columns.finish(), None, unknown.len()), arena)?;
        let added = arena.fill(unknown.len(), 0u32)?;
        if self.table.room(&keys, inputs, LANE_GROUPS).is_err() {
            return Ok(false);
        }
        self.table.groups(&keys, LANE_GROUPS, added);
        let added = unknown.iter().zip(&*added).map(|(&row, &group)| (row as usize, group));
        added.clone().for_each(|(row, group)| groups[row] = group);
        if let Some(known) = &mut self.known {
            known.remember(bits, added);
        }
        self.table.update(groups, inputs);
        self.rows += batch.rows();
        self.empty_if_large().map_err(Stopped::For)?;
        Ok(true)
    }

    /// Hands the table over if it has more memory than a lane should have.
    fn empty_if_large(&mut self) -> Result<()> {
        if self.table.bytes() > self.stage.lane_bytes {
            self.flush()?;
            self.table.release();
        }
        Ok(())
    }

    fn keys<'a>(&self, batch: &Batch<'_>, arena: &'a Arena) -> Result<KeyRows<'a>> {
        let block = self.stage.plan.keys.block(batch, arena)?;
        let hashes = block.hashes(arena)?;
        Ok(KeyRows {
            prefixes: block.prefixes(arena)?,
            tails: match self.stage.plan.long {
                true => arena.collect(block.len(), |row| block.tail(row))?,
                false => &[],
            },
            hashes: arena.collect(block.len(), |row| (hashes[row] >> 32) as Hash)?,
        })
    }

    /// For each aggregate the rows that count.
    fn takes<'a>(&self, batch: &Batch<'a>, arena: &'a Arena) -> Result<&'a [Option<Bits<'a>>]> {
        let takes = arena.fill(self.stage.plan.calls.len(), None)?;
        for (take, call) in takes.iter_mut().zip(&self.stage.plan.calls) {
            *take = take_of(&call.arg, batch, arena)?;
        }
        Ok(takes)
    }

    fn inputs<'a>(
        &self,
        batch: &Batch<'a>,
        takes: &[Option<Bits<'a>>],
        order: RowOrder<'a>,
        arena: &'a Arena,
    ) -> Result<&'a [Input<'a>]> {
        let calls = &self.stage.plan.calls;
        let empty = Input {
            columns: &[],
            rows: batch.rows(),
            take: None,
            order,
        };
        let inputs = arena.fill(calls.len(), empty)?;
        for ((input, call), take) in inputs.iter_mut().zip(calls).zip(takes) {
            let columns = &call.arg.columns;
            input.columns = arena.collect(columns.len(), |i| batch.column(columns[i]))?;
            input.take = *take;
        }
        Ok(inputs)
    }

    /// Takes rows into the lane's table from `at` on, until it is full; where it stopped.
    fn take_some(&mut self, ready: &mut Ready<'_>, at: usize) -> Result<usize> {
        let rows = ready.keys.len().min(at.saturating_add(ready.most));
        if self.direct {
            // The table was in the way; the rest of these rows takes it once more.
            self.flush()?;
        }
        let keys = ready.keys.slice(at, rows);
        let parts = Parts::new(ready.inputs, at, rows);
        let owned;
        let inputs = match &parts {
            None => ready.inputs,
            Some(parts) => {
                owned = parts.inputs();
                &owned
            }
        };
        let seen = self.stage.spills();
        if let Err(error) = self.table.room(&keys, inputs, LANE_GROUPS) {
            if self.table.len() == 0 {
                self.table.release();
                match self.stage.relieve(error, seen) {
                    Err(Error::Memory { .. }) if rows - at > 1 => ready.most = (rows - at).div_ceil(2),
                    Err(Error::Memory { .. }) if ready.attempts < ATTEMPTS => {
                        ready.attempts += 1;
                        std::thread::sleep(NAP);
                    }
                    relieved => relieved?,
                }
            } else {
                self.flush()?;
                self.table.release();
            }
            return Ok(at);
        }
        let groups = &mut ready.groups[at..rows];
        let taken = self.table.groups(&keys, LANE_GROUPS, groups);
        match Parts::new(inputs, 0, taken).filter(|_| taken < keys.len()) {
            Some(parts) => self.table.update(&groups[..taken], &parts.inputs()),
            None => self.table.update(groups, inputs),
        }
        self.rows += taken;
        if taken < keys.len() {
            self.direct |= self.rows < LANE_GROUPS * ROWS_PER_GROUP;
            self.flush()?;
        }
        self.empty_if_large()?;
        Ok(at + taken)
    }

    /// Takes the rows shard by shard.
    fn take_by_shard(
        &mut self,
        batch: &Batch<'_>,
        keys: KeyRows<'_>,
        takes: &[Option<Bits<'_>>],
        order: RowOrder<'_>,
        arena: &Arena,
    ) -> Result<(), Stopped> {
        let rows = batch.rows();
        let sharding = self.stage.sharding;
        let (starts, sorted) = by_shard(keys.hashes, sharding, arena)?;
        let tails = |i: usize| keys.tails[sorted[i] as usize];
        let keys = KeyRows {
            prefixes: arena.collect(rows, |i| keys.prefixes[sorted[i] as usize])?,
            tails: if keys.tails.is_empty() {
                &[]
            } else {
                arena.collect(rows, tails)?
            },
            hashes: arena.collect(rows, |i| keys.hashes[sorted[i] as usize])?,
        };
        let calls = &self.stage.plan.calls;
        let groups = arena.fill(rows, 0u32)?;
        let empty = Input {
            columns: &[],
            rows: 0,
            take: None,
            order,
        };
        // One list of inputs per shard.
        let inputs = arena.fill(calls.len() * sharding.shards(), empty)?;
        for (number, (call, take)) in calls.iter().zip(takes).enumerate() {
            let mut columns = Columns::new(arena, call.arg.columns.len())?;
            for &column in &call.arg.columns {
                columns.push(batch.column(column).gather(sorted, arena)?);
            }
            let columns = columns.finish();
            let take = match take {
                Some(take) => Some(Bits::collect(arena, rows, |i| take.get(sorted[i] as usize))?),
                None => None,
            };
            for shard in 0..sharding.shards() {
                let (from, to) = (starts[shard] as usize, starts[shard + 1] as usize);
                inputs[shard * calls.len() + number] = Input {
                    columns: arena.collect(columns.len(), |i| columns[i].slice(from, to - from))?,
                    rows: to - from,
                    take: take.map(|take| take.slice(from, to - from)),
                    order: RowOrder {
                        rows: Some(&sorted[from..to]),
                        ..order
                    },
                };
            }
        }
        for shard in 0..sharding.shards() {
            let (from, to) = (starts[shard] as usize, starts[shard + 1] as usize);
            if from < to {
                let inputs = &inputs[shard * calls.len()..(shard + 1) * calls.len()];
                let taken = self.take_shard(shard, keys.slice(from, to), inputs, &mut groups[from..to]);
                taken.map_err(Stopped::For)?;
            }
        }
        Ok(())
    }

    fn take_shard(&self, shard: usize, keys: KeyRows<'_>, inputs: &[Input<'_>], groups: &mut [u32]) -> Result<()> {
        let mut attempts = 0;
        loop {
            let seen = self.stage.spills();
            let mut table = self.stage.shard(shard);
            match table.room(&keys, inputs, usize::MAX) {
                Ok(()) => {
                    table.groups(&keys, usize::MAX, groups);
                    table.update(groups, inputs);
                    return Ok(());
                }
                Err(error) => {
                    drop(table);
                    match self.stage.relieve(error, seen) {
                        Err(Error::Memory { .. }) if keys.len() > 1 => {
                            let (half, all) = (keys.len() / 2, keys.len());
                            for (from, to) in [(0, half), (half, all)] {
                                let owned = Parts::new(inputs, from, to);
                                let inputs = owned.as_ref().map_or_else(|| inputs.to_vec(), Parts::inputs);
                                self.take_shard(shard, keys.slice(from, to), &inputs, &mut groups[from..to])?;
                            }
                            return Ok(());
                        }
                        Err(Error::Memory { .. }) if attempts < ATTEMPTS => {
                            attempts += 1;
                            std::thread::sleep(NAP);
                        }
                        relieved => relieved?,
                    }
                }
            }
        }
    }

    /// Hands the lane's groups over to the shards.
    fn flush(&mut self) -> Result<()> {
        self.rows = 0;
        if self.table.len() == 0 {
            return Ok(());
        }
        self.table.seal()?;
        let mut hashes = vec![];
        self.table.hashes(&mut hashes);
        let mut groups: Vec<u32> = (0..self.table.len() as u32).collect();
        groups.sort_unstable_by_key(|&group| hashes[group as usize]);
        let mut arena = Arena::new(self.stage.share);
        let (mut at, mut most) = (0, FLUSH_GROUPS);
        while at < groups.len() {
            let of = |group: u32| self.stage.sharding.of(hashes[group as usize]);
            let shard = of(groups[at]);
            let same = groups[at..]
                .iter()
                .take(most)
                .take_while(|&&group| of(group) == shard)
                .count();
            match self.hand_over(shard, &groups[at..at + same], &hashes, &arena) {
                Ok(()) => at += same,
                // Their partial states are too long for the arena, all at once.
                Err(Stopped::Arena(_)) if same > 1 => most = same / 2,
                Err(Stopped::Arena(Error::Memory { wanted, used, limit })) if used.saturating_add(wanted) > limit => {
                    arena = Arena::new(limit.saturating_mul(2));
                }
                // Not even emptied shards have room for them, or the system has none for the arena: as this table is reserved already,
                // it can go to disk by itself.
                Err(Stopped::For(Error::Memory { .. }) | Stopped::Arena(_)) => {
                    self.table.sort_some(groups[at..].iter().copied());
                    self.stage.spill_lane(&mut self.table)?;
                    at = groups.len();
                }
                Err(Stopped::For(error)) => return Err(error),
            }
            arena.reset();
        }
        self.table.clear();
        if let Some(known) = &mut self.known {
            known.forget();
        }
        Ok(())
    }

    /// Hands these groups over, which are all of one shard.
    fn hand_over(&self, shard: usize, groups: &[u32], hashes: &[Hash], arena: &Arena) -> Result<(), Stopped> {
        let table = &self.table;
        let tail = |i: usize| table.key(groups[i]).1;
        let keys = KeyRows {
            prefixes: arena.collect(groups.len(), |i| table.key(groups[i]).0)?,
            tails: match self.stage.plan.long {
                true => arena.collect(groups.len(), tail)?,
                false => &[],
            },
            hashes: arena.collect(groups.len(), |i| hashes[groups[i] as usize])?,
        };
        let partial = arena.fill::<&[Column<'_>]>(table.states.len(), &[])?;
        for (partial, states) in partial.iter_mut().zip(&table.states) {
            *partial = states.partial(groups, arena)?;
        }
        let numbers = arena.fill(groups.len(), 0u32)?;
        self.merge_shard(shard, keys, partial, numbers).map_err(Stopped::For)
    }

    fn merge_shard(
        &self,
        shard: usize,
        keys: KeyRows<'_>,
        partial: &[&[Column<'_>]],
        groups: &mut [u32],
    ) -> Result<()> {
        loop {
            let seen = self.stage.spills();
            let mut table = self.stage.shard(shard);
            match table.room_to_merge(&keys, partial) {
                Ok(()) => {
                    table.groups(&keys, usize::MAX, groups);
                    table.merge(groups, partial);
                    return Ok(());
                }
                Err(error) => {
                    drop(table);
                    self.stage.relieve(error, seen)?;
                }
            }
        }
    }
}

/// The rows that count for an aggregate: no argument is null, `where:` is true.
pub(in crate::stages) fn take_of<'a>(
    arg: &AggregateArg,
    batch: &Batch<'a>,
    arena: &'a Arena,
) -> Result<Option<Bits<'a>>> {
    let mut take: Option<Bits<'a>> = None;
    let mut and = |bits: Bits<'a>| -> Result<()> {
        take = Some(match take {
            Some(take) => take.and(&bits, arena)?,
            None => bits,
        });
        Ok(())
    };
    for column in arg.columns.iter().chain(&arg.filter).map(|&at| batch.column(at)) {
        match (column.data(), column.valid()) {
            (Data::Null, _) => and(Bits::all(arena, batch.rows(), false)?)?,
            (_, Some(valid)) => and(valid)?,
            (_, None) => {}
        }
    }
    if let Some(Data::Bool(holds)) = arg.filter.map(|at| batch.column(at).data()) {
        and(holds)?;
    }
    Ok(take)
}

/// Rows by shard: where each shard's start, and the rows.
fn by_shard<'a>(hashes: &[Hash], sharding: Sharding, arena: &'a Arena) -> Result<(&'a [u32], &'a [u32])> {
    let starts = arena.fill(sharding.shards() + 1, 0u32)?;
    for &hash in hashes {
        starts[sharding.of(hash) + 1] += 1;
    }
    for shard in 0..sharding.shards() {
        starts[shard + 1] += starts[shard];
    }
    let next = arena.copy(starts)?;
    let rows = arena.fill(hashes.len(), 0u32)?;
    for (row, &hash) in hashes.iter().enumerate() {
        let slot = &mut next[sharding.of(hash)];
        rows[*slot as usize] = row as u32;
        *slot += 1;
    }
    Ok((starts, rows))
}

/// Rows of inputs, where a lane's table filled up within a batch: seldom enough to take memory of the heap.
struct Parts<'a> {
    columns: Vec<Vec<Column<'a>>>,
    inputs: Vec<Input<'a>>,
    rows: usize,
}

impl<'a> Parts<'a> {
    /// Rows `from..to` of inputs; `None` if that is all of them.
    fn new(inputs: &[Input<'a>], from: usize, to: usize) -> Option<Parts<'a>> {
        let len = to - from;
        if inputs.iter().all(|input| input.rows == len) {
            return None;
        }
        let slices = |input: &Input<'a>| input.columns.iter().map(|column| column.slice(from, len)).collect();
        let part = |input: &Input<'a>| Input {
            rows: len,
            take: input.take.map(|take| take.slice(from, len)),
            order: match input.order.rows {
                Some(rows) => RowOrder {
                    rows: Some(&rows[from..to]),
                    ..input.order
                },
                None => RowOrder {
                    before: input.order.before.wrapping_add(from as u32),
                    ..input.order
                },
            },
            ..*input
        };
        Some(Parts {
            columns: inputs.iter().map(slices).collect(),
            inputs: inputs.iter().map(part).collect(),
            rows: len,
        })
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let all = self.inputs.iter().zip(&self.columns);
        all.map(|(input, columns)| Input {
            columns,
            rows: self.rows,
            ..*input
        })
        .collect()
    }
}

/// Why rows were not taken.
enum Stopped {
    /// An arena is full; nothing has changed.
    Arena(Error),
    For(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Memory { .. } => Stopped::Arena(error),
            other => Stopped::For(other),
        }
    }
}
