//! The rows of `distinct` whose keys do not fit into memory.
//!
//! How it works: once memory is refused the set of keys is frozen; it still says which rows are further ones of rows given. The others go to a
//! sort by key, which goes to disk where it must; at the end the first row of each key comes out of it, and a second sort brings those
//! into the order of the input. All of them come behind the rows that were given before, which came earlier.
//!
//! Laws
//! - What sorting takes at least is set aside when the stage is made.
//! - Rows keep what may be asked of their origin, as columns before their own: place and chunk, file, line and text.

use super::super::codes::held;
use super::super::keys::{Key, Keys, max_width};
use super::super::parts::Parts;
use super::super::sort;
use super::super::spill::{lane_floor, merge_floor};
use super::super::unnest::LEAST_ROOM;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Asked, Least, Room, Setup};
use standpipe_sdk::{
    Arena, Batch, Breaker, Column, Columns, Data, Emitter, Fill, Flow, Locator, Place, Reservation, Text, Trace, Type,
};
use std::sync::Arc;

/// The columns of a row that is sorted: its key, its number in the input, its origin (nulls if nobody asks for it), then its own.
const KEY: usize = 0;
const NUMBER: usize = 1;
/// Source, offset, counter.
const PLACE: usize = 2;
const CHUNK: usize = PLACE + 3;
const LINE: usize = CHUNK + 1;
const PATH: usize = LINE + 1;
const TEXT: usize = PATH + 1;
const OWN: usize = TEXT + 1;
/// Memory that the set of keys leaves for sorting: this part, within bounds, in bytes.
const PART_OF_MEMORY: usize = 16;
const LEAST_BYTES: usize = 32 << 10;
const MOST_BYTES: usize = 8 << 20;

/// What is set aside to sort rows by their keys; at the end they are merged, and the first ones sorted again.
pub(super) fn least(room: &Room) -> Least {
    let lane = lane_floor(room.bytes);
    Least {
        takes: lane + cushion_bytes(room.bytes),
        gives: lane + LEAST_ROOM + merge_floor(room.bytes),
    }
}

fn cushion_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / PART_OF_MEMORY).clamp(LEAST_BYTES, MOST_BYTES)
}

/// Where rows go that nobody can remember.
pub(super) struct Overflow {
    setup: Setup,
    keys: Keys,
    own: usize,
    breaker: Arc<dyn Breaker>,
    filler: Box<dyn Fill>,
    /// Given up when the set is frozen.
    cushion: Reservation,
    open: bool,
    batches: u64,
}

impl Overflow {
    pub(super) fn new(keys: Keys, own: usize, setup: &Setup) -> Result<Overflow> {
        let breaker = sort::breaker("distinct", vec![ascending(KEY)], None, OWN + own)(setup)?;
        let filler = breaker.clone().filler()?;
        let mut cushion = setup.budget.reserve();
        cushion.grow(cushion_bytes(setup.budget.limit()))?;
        Ok(Overflow {
            setup: setup.clone(),
            keys,
            own,
            breaker,
            filler,
            cushion,
            open: false,
            batches: 0,
        })
    }

    #[cfg(test)]
    pub(super) fn budget(&self) -> Arc<standpipe_sdk::Budget> {
        self.setup.budget.clone()
    }

    /// Whether the set of keys is frozen.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether no row came here.
    pub(super) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// From now on rows are sorted.
    pub(super) fn open(&mut self) {
        self.cushion.shrink(self.cushion.bytes());
        self.open = true;
    }

    /// The rows of `batch` that `indices` names, as they are sorted; `first` is the number of the batch's first row, `locator` tells where
    /// they came from.
    pub(super) fn prepare<'a>(
        &self,
        batch: Batch<'a>,
        indices: &[u32],
        first: u64,
        locator: &Locator<'_>,
        arena: &'a Arena,
    ) -> Result<Batch<'a>> {
        let rows = batch.gather(indices, batch.columns().len(), arena)?;
        let mut columns = Columns::new(arena, OWN + self.own)?;
        columns.push(self.keys.column(&rows, arena)?);
        columns.push(Column::int(
            arena.map(indices, |row| (first + u64::from(row)) as i64)?,
            None,
        ));
        match rows.origin().filter(|_| self.setup.asked != Asked::Nothing) {
            None => (PLACE..OWN).for_each(|_| columns.push(Column::nulls(rows.rows()))),
            Some(places) => {
                let traces = arena.fill(places.len(), Trace::default())?;
                locator.trace_all(places, self.setup.asked == Asked::Text, traces);
                let numbers = |of: &dyn Fn(&Trace<'_>) -> i64| arena.collect(traces.len(), |row| of(&traces[row]));
                let texts = |of: &dyn for<'t> Fn(&Trace<'t>) -> &'t [u8]| -> Result<Text<'a>> {
                    let bytes = traces.iter().map(|trace| of(trace).len()).sum();
                    let mut texts = TextBuilder::new(arena, traces.len(), bytes)?;
                    traces.iter().try_for_each(|trace| texts.push_bytes(of(trace)))?;
                    texts.finish()
                };
                columns.push(Column::int(numbers(&|t| i64::from(t.place.source))?, None));
                columns.push(Column::int(numbers(&|t| t.place.offset as i64)?, None));
                columns.push(Column::int(numbers(&|t| i64::from(t.place.sub))?, None));
                columns.push(Column::int(numbers(&|t| t.chunk as i64)?, None));
                columns.push(Column::int(numbers(&|t| t.line as i64)?, None));
                columns.push(Column::string(texts(&|t| t.path.as_bytes())?, None));
                columns.push(Column::new(Data::Bytes(texts(&|t| t.text)?), None, rows.rows()));
            }
        }
        for &column in &rows.columns()[..self.own] {
            columns.push(column);
        }
        Ok(Batch::new(columns.finish(), None, rows.rows()))
    }

    /// Takes rows that were prepared.
    pub(super) fn add(&mut self, rows: Batch<'_>) -> Result<()> {
        self.filler.push(self.batches, rows)?;
        self.batches += 1;
        Ok(())
    }

    /// The first rows of all keys that came here, in the order of the input. The set of keys is gone by now.
    pub(super) fn finish(&mut self, out: &mut Emitter<'_, '_>) -> Result<()> {
        if self.batches == 0 {
            return Ok(());
        }
        self.filler.done()?;
        // The second sort sets its memory aside before the first one takes what there is for its merge, and for the way from one to the other
        // there is no more than what both leave.
        let in_order = sort::breaker(
            "distinct",
            vec![ascending(NUMBER)],
            max_width([&Type::Int]),
            OWN + self.own,
        )(&self.setup)?;
        let mut filler = in_order.clone().filler()?;
        let budget = &self.setup.budget;
        let usual = (budget.limit() / PART_OF_MEMORY).min(self.setup.share);
        let left = budget.free().saturating_sub(merge_floor(budget.limit()));
        let mut parts = Parts::new(budget, usual.min(left).max(LEAST_ROOM))?;
        let by_key = self.breaker.clone().drain()?;
        // The last row's key: rows with the same one may follow in the next part.
        let mut last: Option<Vec<u8>> = None;
        let mut batches = 0;
        parts.each(&by_key, |rows, arena| {
            let rows = first_of_runs(rows, &mut last, arena)?;
            if rows.rows() > 0 {
                filler.push(batches, rows).map_err(|e| held("distinct", e))?;
                batches += 1;
            }
            Ok(Flow::More)
        })?;
        drop(by_key);
        filler.done()?;
        drop(filler);
        parts.each(&in_order.drain()?, |rows, arena| emit(rows, arena, out))
    }
}

fn ascending(column: usize) -> Key {
    Key {
        column,
        descending: false,
        nulls_first: false,
    }
}

/// The rows whose key is not that of the row before.
fn first_of_runs<'a>(rows: Batch<'a>, last: &mut Option<Vec<u8>>, arena: &'a Arena) -> Result<Batch<'a>> {
    let Data::Bytes(keys) = rows.column(KEY).data() else {
        return Err(Error::Panic("rows without their keys".into()));
    };
    let stay = arena.fill(rows.rows(), 0u32)?;
    let mut count = 0;
    for row in 0..rows.rows() {
        let same = match row.checked_sub(1) {
            Some(before) => keys.bytes(before) == keys.bytes(row),
            None => last.as_deref() == Some(keys.bytes(0)),
        };
        stay[count] = row as u32;
        count += usize::from(!same);
    }
    let firsts = rows.gather(&stay[..count], rows.columns().len(), arena)?;
    if let Some(end) = rows.rows().checked_sub(1) {
        let key = keys.bytes(end);
        let mut copy = last.take().unwrap_or_default();
        copy.clear();
        copy.try_reserve(key.len()).map_err(|_| Error::Memory {
            wanted: key.len(),
            used: 0,
            limit: usize::MAX,
        })?;
        copy.extend_from_slice(key);
        *last = Some(copy);
    }
    Ok(firsts)
}

/// Passes a batch on as it came in: its own columns, and where its rows came from.
fn emit<'a>(rows: Batch<'a>, arena: &'a Arena, out: &mut Emitter<'_, '_>) -> Result<Flow> {
    let own = Batch::new(&rows.columns()[OWN..], None, rows.rows());
    let ints = |at: usize| match rows.column(at).data() {
        Data::Int(values) => values,
        _ => &[],
    };
    let (Data::String(paths), Data::Bytes(texts)) = (rows.column(PATH).data(), rows.column(TEXT).data()) else {
        return out.emit_in(arena, own).map_err(|e| held("distinct", e));
    };
    let (sources, offsets, subs) = (ints(PLACE), ints(PLACE + 1), ints(PLACE + 2));
    let (chunks, lines) = (ints(CHUNK), ints(LINE));
    let traces = arena.collect(rows.rows(), |row| Trace {
        place: Place {
            source: sources[row] as u32,
            offset: offsets[row] as u64,
            sub: subs[row] as u32,
        },
        chunk: chunks[row] as u64,
        path: paths.str(row),
        line: lines[row] as u64,
        text: texts.bytes(row),
    })?;
    let places = &*arena.map(traces, |trace| trace.place)?;
    // Another source begins where places do not ascend, or one place has two chunks.
    let record = |trace: &Trace<'_>| (trace.place.source, trace.place.offset);
    let goes_on = |a: &Trace<'_>, b: &Trace<'_>| a.place < b.place && (record(a) != record(b) || a.chunk == b.chunk);
    let mut from = 0;
    for traces in traces.chunk_by(goes_on) {
        let own = match own.slice(from, traces.len(), arena) {
            Err(error) if from > 0 => return Err(held("distinct", error)),
            other => other?,
        };
        let own = Batch::new(own.columns(), Some(&places[from..from + traces.len()]), traces.len());
        let locator = Locator {
            traces,
            ..Locator::default()
        };
        // From here on nothing may come again.
        if out.emit_held(arena, own, &locator).map_err(|e| held("distinct", e))? == Flow::Done {
            return Ok(Flow::Done);
        }
        from += traces.len();
    }
    Ok(Flow::More)
}
