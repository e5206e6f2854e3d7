//! `aggregate x = sum(a), r = x / count() by k`: one row per group, sorted by the keys.
//!
//! Groups live in one table of many shards, each behind a lock, shared by the lanes. A lane has a small table of its own in front:
//! where groups are few, all rows meet there and the shards see a few thousand partial states; where they are many, it would only
//! be in the way, and a batch's rows are put in order by shard, so that each shard is locked once per batch.
//!
//! Rows that come sorted by the keys need no table: see [`streamed`].
//!
//! Laws
//! - The stage knows no aggregate by name: states, partial states and values are columns of whatever the call gave.
//! - What comes out does not depend on which lane saw which rows, nor on when a lane's table was emptied.
//! - Room is made before anything is touched: a refusal leaves the table as it was.
//! - A row's place behind the stage is its number in the output.

mod drain;
mod fill;
mod index;
mod key;
mod known;
mod merged;
mod own;
mod packed;
mod spill;
mod streamed;
mod table;
#[cfg(test)]
mod tests;

use super::codes;
use super::keys::{self, Keys};
use super::spill::Store;
use fill::Filler;
pub(super) use fill::take_of;
pub(super) use key::{Keyed, shown as shown_key};
use packed::Packed;
use spill::Spiller;
pub(super) use spill::{least, least_of, least_of_long};
use standpipe_sdk::aggregate::OfRun;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    AggregateArg, Arg, ArgKind, Bound, Call, Class, Complaint, Example, Factory, Filters, Item, Items, Kind, Lineage,
    Make, Memory, Names, Order, Setup, StageSpec, Streaming, Want,
};
use standpipe_sdk::{Breaker, Budget, Code, Error, Faults, Field, Fill, RowWise, Schema, Serial, Source, Span, Type};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use streamed::{Streamed, Verdicts};
use table::{Sharding, Table};

/// `aggregate`.
pub const SPEC: StageSpec = StageSpec {
    name: "aggregate",
    about: "One row per group, sorted by the keys, of what aggregates make of its rows; nulls are one group, aggregates skip them",
    kind: Kind::Breaker,
    items: Items {
        names: Names::Always,
        ..Items::some(
            ArgKind::Aggregate,
            1,
            usize::MAX,
            "`name = expression` over aggregates, keys and earlier items",
        )
    },
    by: Items {
        names: Names::Optional,
        ..Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group")
    },
    order: Order::Creates,
    memory: Memory::Spill,
    least,
    examples: &[
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | aggregate total = sum(n), rows = count() by k"#,
            output: "k,total,rows\na,2,1\nb,4,2\n",
        },
        Example {
            script: "from range(1, 4) | aggregate spread = max(value) - min(value), even = count(where: value % 2 == 0), share = even / count()",
            output: "spread,even,share\n3,2,0.5\n",
        },
    ],
    bind: &|call| bind_as("aggregate", call),
    class: |call| {
        let least = if makes_long(call) { spill::least_of_long } else { least };
        Some(Class {
            least,
            ..Class::of(&SPEC)
        })
    },
    filters,
    unordered: |call| {
        call.items
            .iter()
            .all(|item| matches!(&item.arg, Arg::Aggregate(arg) if !arg.aggregate.ordered()))
    },
    sorted: streaming,
    ..StageSpec::BASE
};

/// What is asked for, and the columns that are read for it.
fn plan(stage: &'static str, call: &Call<'_>) -> Result<(Plan, Vec<usize>), Vec<Complaint>> {
    let by = keys::grouping(call, call.by)?;
    let mut calls = vec![];
    let mut reads = by.clone();
    for item in call.items {
        let Arg::Aggregate(arg) = &item.arg else {
            return Err(vec![Complaint::new(
                codes::WRONG_ARGUMENT,
                item.span,
                "an aggregate is needed here",
                "this is none",
            )]);
        };
        reads.extend(arg.columns.iter().copied().chain(arg.filter));
        calls.push(Called {
            arg: arg.clone(),
            span: item.span,
        });
    }
    reads.sort_unstable();
    reads.dedup();
    let name = |item: &Item, or: &Field| item.name.clone().unwrap_or_else(|| or.name.clone());
    let key_fields: Vec<Field> = by
        .iter()
        .zip(call.by)
        .filter_map(|(&at, item)| {
            let field = call.input.get(at)?;
            Some(Field::new(name(item, field), field.ty.clone(), field.nullable))
        })
        .collect();
    Ok((plan_of(stage, by, key_fields, calls), reads))
}

/// Groups by the columns `by`, which come out as `key_fields`, then what each call gives.
fn plan_of(stage: &'static str, by: Vec<usize>, key_fields: Vec<Field>, calls: Vec<Called>) -> Plan {
    let partials: Vec<Schema> = calls.iter().map(|call| call.arg.aggregate.partial()).collect();
    let folds = |at: &usize| calls[*at].arg.aggregate.folds(0).is_some();
    let mut cut: Vec<usize> = (0..calls.len()).filter(folds).collect();
    let packed = {
        let spilled = partials
            .iter()
            .enumerate()
            .flat_map(|(at, partial)| match cut.contains(&at) {
                true => vec![&Type::Int],
                false => partial.fields().iter().map(|field| &field.ty).collect(),
            });
        Packed::new(spilled).filter(|_| !cut.is_empty())
    };
    if packed.is_none() {
        cut.clear();
    }
    Plan {
        stage,
        keys: Keys::grouping(by.iter().copied()),
        by,
        partials: partials.iter().map(Schema::width).collect(),
        cut,
        packed,
        long: keys::max_width(key_fields.iter().map(|f| &f.ty)).is_none_or(|bytes| bytes > keys::PREFIX_BYTES),
        key_fields,
        calls,
    }
}

/// Binds `aggregate`, or another stage that is one.
pub(super) fn bind_as(stage: &'static str, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let (plan, reads) = plan(stage, call)?;
    let values = call.items.iter().zip(&plan.calls).map(|(item, called)| {
        let name: Arc<str> = item.name.clone().unwrap_or_else(|| called.arg.aggregate.name().into());
        Field::new(name, called.arg.aggregate.ty().clone(), called.arg.nullable)
    });
    let schema = plan.key_fields.iter().cloned().chain(values).collect();
    let lineage = vec![Lineage::New; plan.width()];
    let sorted_by = (0..plan.by.len()).map(|key| (key, false)).collect();
    Ok(Bound {
        schema,
        lineage,
        reads,
        sorted_by,
        make: Make::Breaker(made(plan)),
        needs_places: false,
    })
}

/// Groups by the columns `by`, which come out as `key_fields`, then what each call gives; sorted by the keys. `stage` is who says that
/// something does not fit.
pub(super) fn breaker(
    stage: &'static str,
    by: Vec<usize>,
    key_fields: Vec<Field>,
    calls: Vec<Called>,
) -> Factory<Arc<dyn Breaker>> {
    made(plan_of(stage, by, key_fields, calls))
}

fn made(plan: Plan) -> Factory<Arc<dyn Breaker>> {
    let plan = Arc::new(plan);
    Box::new(move |setup: &Setup| {
        let made = Aggregate::new(&plan, setup);
        Ok(Arc::new(made.map_err(|e| codes::held(plan.stage, e))?))
    })
}

/// A condition on keys keeps or drops whole groups.
fn filters(call: &Call<'_>) -> Filters {
    let key = |(at, item): (usize, &Item)| match item.arg {
        Arg::Column(column) => Some((at, column)),
        _ => None,
    };
    Filters::Keys(call.by.iter().enumerate().filter_map(key).collect())
}

/// Where rows come sorted by the keys, a group is complete when the next one begins; unless its state may be larger than memory: then
/// it must be one that can go to disk.
fn streaming(call: &Call<'_>) -> Option<Streaming> {
    let (plan, _) = plan("aggregate", call).ok()?;
    let grows = |call: &Called| !call.arg.aggregate.fixed() || call.arg.aggregate.folds(0).is_some();
    if plan.by.is_empty() || plan.calls.iter().any(grows) {
        return None;
    }
    let plan = Arc::new(plan);
    let (by, fallible, of_verdicts) = (plan.by.clone(), plan.fallible(), plan.clone());
    let serial = move |setup: &Setup| -> Result<Box<dyn Serial>> { Ok(Box::new(Streamed::new(&plan, setup))) };
    let verdicts = move |keeps: bool| -> Factory<Box<dyn RowWise>> {
        let plan = of_verdicts.clone();
        Box::new(move |_: &Setup| {
            let plan = plan.clone();
            Ok(Box::new(Verdicts { plan, keeps }))
        })
    };
    Some(Streaming {
        by,
        serial: Box::new(serial),
        verdicts: fallible.then(|| Box::new(verdicts) as _),
    })
}

/// Shards of the table per worker: lanes seldom want the same one. Each that a batch's rows are taken to costs, however few they are.
const SHARDS_PER_WORKER: usize = 8;
/// Shards of the table at most.
const MOST_SHARDS: usize = 64;
/// About what an aggregate takes in a shard with few groups, in bytes, and the part of the memory that this may be in all shards: where
/// there is little, tables of few groups each would be most of it.
const SHARD_BYTES: usize = 512;
const SHARDS_PART: usize = 16;
/// Bytes of a lane's table, at most.
const MOST_LANE_BYTES: usize = 4 << 20;

/// Whether a value of this type may be as long as a row may.
pub(super) fn is_long(ty: &Type) -> bool {
    keys::max_width([ty]).is_none()
}

fn makes_long(call: &Call<'_>) -> bool {
    let long = |item: &Item| matches!(&item.arg, Arg::Aggregate(arg) if is_long(arg.aggregate.ty()));
    call.items.iter().any(long)
}

/// What a run of the stage needs of its arguments.
struct Plan {
    stage: &'static str,
    keys: Keys,
    by: Vec<usize>,
    key_fields: Vec<Field>,
    /// A key may be longer than its prefix.
    long: bool,
    calls: Vec<Called>,
    /// How many columns each call's partial state has.
    partials: Vec<usize>,
    /// The calls whose states may be larger than memory: they are cut into entries on disk.
    cut: Vec<usize>,
    /// If there are any: the states of a group in one column.
    packed: Option<Packed>,
}

/// One aggregate, and where the script calls it.
pub(super) struct Called {
    pub(super) arg: AggregateArg,
    pub(super) span: Span,
}

impl Plan {
    /// Columns of the output.
    fn width(&self) -> usize {
        self.key_fields.len() + self.calls.len()
    }

    /// What one aggregate's states may take, if that is less than the memory.
    fn ceiling(&self) -> Option<usize> {
        self.calls.iter().filter_map(|call| call.arg.aggregate.ceiling()).min()
    }

    /// Whether a refusal with this limit is an aggregate's own.
    fn is_ceiling(&self, limit: usize) -> bool {
        self.calls
            .iter()
            .any(|call| call.arg.aggregate.ceiling() == Some(limit))
    }

    /// A refusal, as the stage says it.
    fn held(&self, error: Error) -> Error {
        codes::held_by(self.stage, error, self.calls.iter().map(|call| &call.arg.aggregate))
    }

    /// Whether what is made of a group may be as long as a row.
    fn makes_long(&self) -> bool {
        self.calls.iter().any(|call| is_long(call.arg.aggregate.ty()))
    }

    fn fallible(&self) -> bool {
        self.calls.iter().any(|call| call.arg.aggregate.fallible())
    }

    fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Bytes of a spilled row's key behind the group's: the number of the call that it is an entry of.
    fn mark_bytes(&self) -> usize {
        if self.is_cut() { size_of::<u16>() } else { 0 }
    }

    /// How many columns call `at` has on disk: its partial state, or how many entries it is cut into.
    fn spilled(&self, at: usize) -> usize {
        if self.cut.contains(&at) { 1 } else { self.partials[at] }
    }

    fn states_width(&self) -> usize {
        (0..self.calls.len()).map(|at| self.spilled(at)).sum()
    }

    fn key_types(&self) -> impl Iterator<Item = &Type> {
        self.key_fields.iter().map(|field| &field.ty)
    }

    /// Reports that what a call makes of a group does not fit; `row` is the group's in its batch.
    fn fault(&self, call: &Called, row: usize, code: Code, text: &str, key: &[u8], faults: &Faults<'_>) -> Result<()> {
        let span = Some(call.span);
        // Whatever the verdict: groups before this one may still be wanted.
        let told = faults.report(row, code, span, format_args!("{}", self.failure(text, key)));
        told.map(|_| ())
    }

    fn failure(&self, text: &str, key: &[u8]) -> String {
        match self.key_fields.as_slice() {
            [] => text.to_owned(),
            fields => format!("{text}, in the group {}", key::shown(key, fields)),
        }
    }
}

struct Aggregate {
    plan: Arc<Plan>,
    sharding: Sharding,
    shards: Vec<Mutex<Table>>,
    budget: Arc<Budget>,
    /// Bytes of a lane's arena.
    share: usize,
    /// Bytes that a lane's table may take before it is emptied.
    lane_bytes: usize,
    chunk_bytes: usize,
    of_run: OfRun,
    workers: usize,
    cancelled: Arc<AtomicBool>,
    store: Arc<Store>,
    /// Until the table is drained.
    spiller: Mutex<Option<Spiller>>,
    /// How often the table was written to disk.
    spills: AtomicU64,
    /// Rows so far, for the hook of tests that spills after so many.
    rows: AtomicUsize,
}

impl Aggregate {
    fn new(plan: &Arc<Plan>, setup: &Setup) -> Result<Aggregate> {
        let store = Store::new(plan.stage, setup);
        let workers = setup.workers.max(1);
        let fitting = setup.budget.limit() / SHARDS_PART / (SHARD_BYTES * plan.calls.len().max(1));
        let fitting = 1 << fitting.clamp(1, MOST_SHARDS).ilog2();
        let sharding = Sharding::new((SHARDS_PER_WORKER * workers).min(MOST_SHARDS).min(fitting));
        let of_run = OfRun::new(setup);
        let table = |_| Mutex::new(Table::new(plan, &of_run, &setup.budget));
        Ok(Aggregate {
            spiller: Mutex::new(Some(Spiller::new(&store, &setup.budget, sharding.shards())?)),
            plan: plan.clone(),
            shards: (0..sharding.shards()).map(table).collect(),
            sharding,
            budget: setup.budget.clone(),
            share: setup.share,
            lane_bytes: (setup.budget.limit() / (16 * workers)).min(MOST_LANE_BYTES),
            chunk_bytes: setup.chunk_bytes,
            of_run,
            workers,
            cancelled: setup.cancelled.clone(),
            store,
            spills: AtomicU64::new(0),
            rows: AtomicUsize::new(0),
        })
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Table> {
        locked(&self.shards[number])
    }

    /// How often the table was written to disk: to be asked before something that may be refused.
    fn spills(&self) -> u64 {
        self.spills.load(SeqCst)
    }

    /// Makes room in the budget after `error` said that there is none, by writing the table to disk, unless somebody did so
    /// meanwhile: whoever was refused tries again. The caller holds no lock of a shard.
    ///
    /// # Errors
    /// `Memory` if there was nothing to write: what was refused has to ask for less.
    fn relieve(&self, error: Error, seen: u64) -> Result<()> {
        let Error::Memory { .. } = error else {
            return Err(error);
        };
        let mut spiller = self.spiller.lock().unwrap_or_else(PoisonError::into_inner);
        if self.spills() != seen {
            return Ok(());
        }
        match self.spill(&mut spiller)? {
            0 => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes all groups of the table to disk; how many there were.
    fn spill(&self, spiller: &mut Option<Spiller>) -> Result<usize> {
        let Some(spiller) = spiller else { return Ok(0) };
        let mut tables: Vec<_> = self.shards.iter().map(locked).collect();
        let mut groups = 0;
        for table in &mut tables {
            table.seal()?;
            table.sort();
            groups += table.len();
        }
        match groups {
            // What was made room for and never used.
            0 => tables.iter_mut().for_each(|table| table.release()),
            _ => spiller.write(&self.plan, &self.store, &mut tables)?,
        }
        self.spills.fetch_add(1, SeqCst);
        Ok(groups)
    }

    /// Writes the sorted groups of a lane's table to disk, where there is not even room to put them into the shards.
    fn spill_lane(&self, table: &mut Table) -> Result<()> {
        let mut spiller = self.spiller.lock().unwrap_or_else(PoisonError::into_inner);
        match spiller.as_mut() {
            Some(spiller) => spiller.write(&self.plan, &self.store, &mut [table]),
            None => Ok(()),
        }
    }

    /// Counts rows; whether it is time to spill, as a test wants it.
    fn spills_after(&self, rows: usize) -> bool {
        let Some(every) = self.store.spill().spill_rows() else {
            return false;
        };
        let before = self.rows.fetch_add(rows, SeqCst);
        before / every.max(1) != (before + rows) / every.max(1)
    }

    fn spill_now(&self) -> Result<()> {
        let mut spiller = self.spiller.lock().unwrap_or_else(PoisonError::into_inner);
        self.spill(&mut spiller).map(|_| ())
    }
}

fn locked(shard: &Mutex<Table>) -> MutexGuard<'_, Table> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Breaker for Aggregate {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let plan = self.plan.clone();
        let filler = Filler::new(self).map_err(|e| plan.held(e))?;
        Ok(Box::new(filler))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        self.sorted().map_err(|e| self.plan.held(e))
    }
}

impl Aggregate {
    fn sorted(&self) -> Result<Arc<dyn Source>> {
        if self.store.is_empty() {
            let groups = self.shards.iter().map(|shard| locked(shard).len()).sum();
            // Where there is no room to put the groups in order, or for a long value that is given, the disk is the way.
            let values = match self.plan.makes_long() {
                true => drain::values_bytes(self.budget.limit(), self.of_run.longest),
                false => 0,
            };
            let room = drain::Room::new(groups, self.workers, &self.budget);
            if let (Ok(room), Ok(values)) = (room, self.budget.part(values)) {
                let take =
                    |shard| std::mem::replace(&mut *locked(shard), Table::new(&self.plan, &self.of_run, &self.budget));
                let tables = self.shards.iter().map(take).collect();
                drop(self.spiller.lock().unwrap_or_else(PoisonError::into_inner).take());
                let arenas = (values, self.share);
                let sorted =
                    drain::Sorted::new(self.plan.clone(), tables, room, arenas, self.chunk_bytes, self.workers)?;
                return Ok(Arc::new(sorted));
            }
        }
        self.spill_now()?;
        // What was set aside for writing is the merge's from now on.
        drop(self.spiller.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(Arc::new(merged::Merged::new(self)?))
    }
}
