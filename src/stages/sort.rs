//! `sort -a, b nulls: first`: all rows in another order.
//!
//! Each lane keeps its batches and, per row, an entry: the first 24 bytes of the key, and where the row is. Longer keys keep the
//! rest beside the batch. A lane sorts its entries when it is done; the drain merges them into one list of rows, and claims
//! of that list are gathered in parallel.
//!
//! A lane that is refused memory sorts what it has, writes it to disk as a segment and starts again; once one lane has done so, all do
//! at the end, and the drain merges segments.
//!
//! Laws
//! - Rows with equal keys keep the order of their chunks: entries compare by (key, chunk, batch, row).
//! - Everything is reserved before it is allocated: a refusal leaves a lane as it was, and able to spill, for which it has set memory aside.
//! - A row's place behind a sort is its number in the output.

mod collected;
mod entry;
mod lane;
mod merged;
#[cfg(test)]
mod tests;

use super::codes::held;
use super::keys::{self, Key, Keys};
use super::lanes::{Lanes, Shared, lock};
use super::spill::{Merge, Merged, Store};
use entry::HEAD_BYTES;
use lane::Lane;
use merged::merge;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Factory, Filters, Items, Kind, Make, Memory, Order, Setup, SortKey,
    StageSpec,
};
use standpipe_sdk::{Batch, Breaker, Fill, Source};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// `sort`.
pub const SPEC: StageSpec = StageSpec {
    name: "sort",
    about: "Orders rows by keys, `-` turning one round; nan and then null stand last either way, equal rows keep their order",
    kind: Kind::Breaker,
    items: Items::some(ArgKind::Key, 1, usize::MAX, "keys, the most significant first"),
    options: &[keys::NULLS],
    order: Order::Creates,
    memory: Memory::Spill,
    least: super::spill::least,
    examples: &[
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | sort -k, n"#,
            output: "k,n\nb,1\nb,3\na,2\n",
        },
        Example {
            script: "from rows [{id: 1, n: 2}, {id: 2, n: null}, {id: 3, n: 1}] | sort n nulls: first",
            output: "id,n\n2,\n3,1\n1,2\n",
        },
    ],
    bind: &bind,
    filters: |_| Filters::Pass,
    limited: super::top::of_sort,
    sorts,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, call.items, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let reads = keys.iter().map(|key| key.column).collect();
    let sorted_by = keys::known_order(call, &keys);
    let mut bound = Bound::keeps(call, reads, Make::Breaker(of_rows("sort", call, keys)));
    bound.sorted_by = sorted_by;
    Ok(bound)
}

/// All rows of a call in the order of `keys`.
pub(super) fn of_rows(stage: &'static str, call: &Call<'_>, keys: Vec<Key>) -> Factory<Arc<dyn Breaker>> {
    let types = keys.iter().filter_map(|key| call.input.get(key.column)).map(|f| &f.ty);
    let longest = keys::max_width(types);
    breaker(stage, keys, longest, call.own)
}

fn sorts(call: &Call<'_>) -> Option<Vec<SortKey>> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, call.items, &mut complaints).into_iter();
    let keys = keys.map(|key| SortKey {
        column: key.column,
        descending: key.descending,
        nulls_first: key.nulls_first,
    });
    complaints.is_empty().then(|| keys.collect())
}

/// All rows in the order of `keys`, of which none is longer than `longest` bytes; the first `own` columns of them are passed on.
/// `stage` is who says that something does not fit.
pub(crate) fn breaker(
    stage: &'static str,
    keys: Vec<Key>,
    longest: Option<usize>,
    own: usize,
) -> Factory<Arc<dyn Breaker>> {
    breaker_of(stage, keys, longest, own, usize::MAX)
}

/// The same, of which a lane keeps no more than `most` bytes in memory.
pub(super) fn breaker_of(
    stage: &'static str,
    keys: Vec<Key>,
    longest: Option<usize>,
    own: usize,
    most: usize,
) -> Factory<Arc<dyn Breaker>> {
    Box::new(move |setup: &Setup| Ok(Sort::new(stage, keys.clone(), longest, own, most, 1, setup)))
}

/// Rows that are being sorted.
pub(super) struct Sort {
    stage: &'static str,
    keys: Keys,
    /// Bytes of each key that are in its entry, the rest of which are zeros.
    head: usize,
    /// That is all of every key.
    short: bool,
    own: usize,
    /// Bytes of a lane's rows from which on it spills, whatever there is.
    most: usize,
    /// How many such sorts the stage reads at the same time.
    merges: usize,
    setup: Setup,
    store: Arc<Store>,
    /// How often a lane was refused memory.
    refusals: AtomicU64,
    lanes: Lanes<Lane>,
}

impl Sort {
    /// See [`breaker_of`]; of the memory it leaves so much that `merges` of them can be read at the same time.
    pub(super) fn new(
        stage: &'static str,
        keys: Vec<Key>,
        longest: Option<usize>,
        own: usize,
        most: usize,
        merges: usize,
        setup: &Setup,
    ) -> Arc<Sort> {
        let short = longest.filter(|&bytes| bytes <= HEAD_BYTES);
        Arc::new(Sort {
            stage,
            keys: Keys::new(keys),
            head: short.unwrap_or(HEAD_BYTES),
            short: short.is_some(),
            own,
            most,
            merges,
            setup: setup.clone(),
            store: Store::beside(stage, &setup.budget, &setup.spill, merges),
            refusals: AtomicU64::new(0),
            lanes: Lanes::default(),
        })
    }

    /// Once all lanes are done: nothing stays in memory.
    pub(super) fn to_disk(&self) -> Result<()> {
        for lane in self.lanes.take() {
            lock(&lane).spill(self).map_err(|e| held(self.stage, e))?;
        }
        Ok(())
    }

    /// Once all lanes are done: all rows in order, out of segments on disk, where so many merges are read at the same time.
    pub(super) fn merged(&self, merges: usize) -> Result<Merge> {
        self.merged_beside(merges, 0)
    }

    /// The same where of what is free now about `beside` bytes are left.
    pub(super) fn merged_beside(&self, merges: usize, beside: usize) -> Result<Merge> {
        self.to_disk()?;
        Merge::with(&self.store, &self.setup.budget, beside, merges)
    }
}

impl Breaker for Sort {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let lane = Lane::new(&self).map_err(|e| held(self.stage, e))?;
        let lane = self.lanes.add(lane);
        Ok(Box::new(Filler { lane, sort: self }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let lanes = self.lanes.take();
        if self.store.is_empty() {
            let rows = lanes.iter().map(|lane| lock(lane).take_rows(&self)).collect();
            let (rows, error) = match merge(rows, &self.setup.budget, self.setup.chunk_bytes, self.own) {
                Ok(sorted) => return Ok(Arc::new(sorted)),
                Err(refused) => refused,
            };
            // Everything fits but the list of it: then it is spilled after all.
            if !matches!(error, Error::Memory { .. }) {
                return Err(held(self.stage, error));
            }
            for (lane, rows) in lanes.iter().zip(rows) {
                lock(lane).rows = rows;
            }
        }
        for lane in lanes {
            lock(&lane).spill(&self).map_err(|e| held(self.stage, e))?;
        }
        let merge = Merge::one_of(&self.store, &self.setup.budget, self.merges)?;
        Ok(Arc::new(Merged::new(merge, &self.setup)))
    }
}

struct Filler {
    sort: Arc<Sort>,
    lane: Shared<Lane>,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let sort = &*self.sort;
        let push = |lane: &mut Lane, from: &mut usize| lane.push(sort, chunk, &batch, from);
        let pushed = sort.lanes.push(&self.lane, push, |lane| lane.spill(sort));
        pushed.map_err(|e| held(sort.stage, e))
    }

    fn done(&mut self) -> Result<()> {
        let mut lane = lock(&self.lane);
        if self.sort.store.is_empty() {
            let all = lane.rows.entries.len();
            lane.rows.sort(0..all);
            Ok(())
        } else {
            lane.spill(&self.sort).map_err(|e| held(self.sort.stage, e))
        }
    }
}
