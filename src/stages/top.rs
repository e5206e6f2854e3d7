//! `top n on -a, b (by k)`: the first rows of an order, without ordering the others.
//!
//! Each lane keeps, per group, a heap of its best rows so far. For every batch a lower bound of the first 8 bytes of each key is
//! made column-at-a-time ([`heads`]); only rows that this does not rule out get a key of their own. Rows that are
//! kept are copied; once half of the copies are of rows that better ones have pushed out, the others move together.
//!
//! A lane that is refused memory writes its rows to disk as a segment and starts again; once one lane has done so, all do at the end, and
//! the drain merges the segments as far as the first rows go. What is on disk rules rows out that come later ([`super::bounds`]).
//!
//! Laws
//! - Of rows with equal keys the first in the input wins: entries compare by (key, chunk, row).
//! - Memory grows with the rows that are kept, never with those that come by.
//! - The output is sorted by the group, then by the keys; a row's place is its number in it.

mod entry;
mod heads;
mod lane;
mod merged;
#[cfg(test)]
mod tests;

use super::bounds::Bounds;
use super::codes::held;
use super::keys::{self, Key, Keys};
use super::lanes::{Lanes, Shared, lock};
use super::rowkeys::KeyMaker;
use super::spill::{Firsts, Merge, Merged, Store};
use super::take;
use lane::Lane;
use merged::merge;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Factory, Item, Items, Kind, Limited, Make, Memory, Order, Setup,
    StageSpec, Want,
};
use standpipe_sdk::{Batch, Breaker, Fill, Source};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// `top`.
pub const SPEC: StageSpec = StageSpec {
    name: "top",
    about: "The first rows in an order; with `by`, of each group, sorted by the groups: `sort` and `take` without the sort; nulls stand last, of equal rows the first ones win",
    kind: Kind::Breaker,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    on: Items::some(ArgKind::Key, 1, usize::MAX, "keys, the most significant first"),
    options: &[keys::NULLS],
    order: Order::Creates,
    memory: Memory::Spill,
    least: super::spill::least,
    examples: &[
        Example {
            script: "from rows [{id: 1, n: 5}, {id: 2, n: 9}, {id: 3, n: null}, {id: 4, n: 9}] | top 2 on -n",
            output: "id,n\n2,9\n4,9\n",
        },
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | top 1 on -n by k"#,
            output: "k,n\na,2\nb,3\n",
        },
    ],
    bind: &bind,
    filters: |call| keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let rows = take::count(call, "top", &mut complaints);
    let keys = keys::sorting(call, call.on, &mut complaints);
    let by = keys::groups(call, &mut complaints);
    let (Some(rows), true) = (rows, complaints.is_empty()) else {
        return Err(complaints);
    };
    let order: Vec<Key> = by
        .iter()
        .copied()
        .map(Key::ascending)
        .chain(keys.iter().copied())
        .collect();
    let reads = order.iter().map(|key| key.column).collect();
    let maker = KeyMaker::of(call, &by);
    let make = breaker("top", rows, keys, (!by.is_empty()).then_some(maker), call.own);
    let mut bound = Bound::keeps(call, reads, Make::Breaker(make));
    bound.sorted_by = keys::known_order(call, &order);
    Ok(bound)
}

/// The first rows of a `sort`.
pub(super) fn of_sort(call: &Call<'_>) -> Option<Limited> {
    limited("sort", call, call.items)
}

/// The first rows of a `merge`.
pub(super) fn of_merge(call: &Call<'_>) -> Option<Limited> {
    limited("merge", call, call.by)
}

fn limited(stage: &'static str, call: &Call<'_>, items: &[Item]) -> Option<Limited> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, items, &mut complaints);
    let own = call.own;
    complaints
        .is_empty()
        .then(|| -> Limited { Arc::new(move |rows| breaker(stage, rows, keys.clone(), None, own)) })
}

/// The first `rows` rows of each group in the order of `keys`; `stage` is who says that something does not fit.
pub(super) fn breaker(
    stage: &'static str,
    rows: u64,
    keys: Vec<Key>,
    by: Option<KeyMaker>,
    own: usize,
) -> Factory<Arc<dyn Breaker>> {
    Box::new(move |setup: &Setup| {
        Ok(Arc::new(Top {
            stage,
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            order: Keys::new(keys.clone()),
            keys: keys.clone(),
            by: by.clone(),
            own,
            store: Store::new(stage, setup),
            setup: setup.clone(),
            refusals: AtomicU64::new(0),
            bounds: Mutex::default(),
            version: AtomicU64::new(0),
            lanes: Lanes::default(),
        }))
    })
}

struct Top {
    stage: &'static str,
    /// The most rows of a group.
    rows: usize,
    keys: Vec<Key>,
    order: Keys,
    by: Option<KeyMaker>,
    own: usize,
    setup: Setup,
    store: Arc<Store>,
    /// How often a lane was refused memory.
    refusals: AtomicU64,
    /// What is on disk, unless there are groups, and how often that has changed.
    bounds: Mutex<Option<Bounds>>,
    version: AtomicU64,
    lanes: Lanes<Lane>,
}

impl Top {
    fn lane(&self) -> Result<Lane> {
        let mut bounds = lock(&self.bounds);
        if self.by.is_none() && bounds.is_none() {
            *bounds = Some(Bounds::new(self.rows as u64, &self.setup.budget)?);
        }
        drop(bounds);
        Lane::new(self)
    }
}

impl Breaker for Top {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let lane = self.lane().map_err(|e| held(self.stage, e))?;
        let lane = self.lanes.add(lane);
        Ok(Box::new(Filler { lane, top: self }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let lanes = self.lanes.take();
        *lock(&self.bounds) = None;
        if self.store.is_empty() {
            match merge(&mut lanes.iter().map(|lane| lock(lane)).collect::<Vec<_>>(), &self) {
                Ok(picked) => return Ok(Arc::new(picked)),
                // Everything fits but the list of it: then it is spilled after all.
                Err(Error::Memory { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for lane in lanes {
            lock(&lane).spill(&self).map_err(|e| held(self.stage, e))?;
        }
        let merge = Merge::new(&self.store, &self.setup.budget)?;
        let firsts = Firsts::new(self.rows as u64, self.by.is_some());
        Ok(Arc::new(Merged::of_chosen(merge, firsts, &self.setup)))
    }
}

struct Filler {
    top: Arc<Top>,
    lane: Shared<Lane>,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        if self.top.rows == 0 {
            return Ok(());
        }
        let top = &*self.top;
        let push = |lane: &mut Lane, from: &mut usize| lane.push(top, chunk, &batch, from);
        let pushed = top.lanes.push(&self.lane, push, |lane| lane.spill(top));
        pushed.map_err(|e| held(top.stage, e))
    }

    fn done(&mut self) -> Result<()> {
        let mut lane = lock(&self.lane);
        lane.rest(&self.top);
        match self.top.store.is_empty() {
            true => Ok(()),
            false => lane.spill(&self.top).map_err(|e| held(self.top.stage, e)),
        }
    }
}
