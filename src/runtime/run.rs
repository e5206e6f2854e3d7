//! Runs a region: workers draw tickets, read, push, and end chunks, until the input or the need for it ends.
//!
//! Laws
//! - The lowest unfinished chunk never waits for anything a later chunk holds.
//! - A panic or a cancelled run wakes every waiter.

mod claims;
mod ends;
mod operators;
mod work;

use crate::graph::regions::Region;
use crate::graph::{Graph, NodeId, Op};
use crate::runtime::feeds::{self, Feed, Kind};
use crate::runtime::floors::RegionFloor;
use crate::runtime::lane::{Node, Operator};
use crate::runtime::limit::Gate;
use crate::runtime::progress::Progress;
use crate::runtime::settings::Settings;
use claims::Claims;
use ends::Ends;
use operators::Shared;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Arena, Breaker, Budget, Build, Error, Reservation, Result, Sink, Source, Spill};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use work::{Lane, finish, work};

/// The stack of a worker: expressions go 500 deep and a path 1,000 nodes, and frames are large without optimisation.
const STACK: usize = if cfg!(debug_assertions) { 256 << 20 } else { 32 << 20 };
/// How long a lane sleeps before it looks again at what others are at.
const NAP: Duration = Duration::from_micros(200);

/// What the lanes of a running region share.
pub(crate) struct RegionRun {
    sources: Vec<Arc<dyn Source>>,
    /// What each of them is.
    feeds: Vec<Feed>,
    /// Rejects are to have the text of their records.
    pub keeps_text: bool,
    claims: Mutex<Claims>,
    /// For each lane the claim it is at; the greatest number while it is at none.
    at_work: Vec<AtomicU64>,
    ends: Mutex<Ends>,
    any_end: AtomicBool,
    /// The run is over at once: a panic or Ctrl-C.
    pub dead: Arc<AtomicBool>,
    pub panic_at: Option<(NodeId, u64)>,
    share: usize,
    poison: bool,
    chunk_rows: Option<usize>,
    refuse_after: Option<usize>,
    progress: Arc<Progress>,
}

impl RegionRun {
    pub(crate) fn arena(&self) -> Arena {
        let mut arena = Arena::new(self.share);
        arena.set_poison(self.poison);
        arena
    }

    fn kill(&self) {
        self.dead.store(true, SeqCst);
        for source in &self.sources {
            source.cancel();
        }
    }
}

/// The totals of one lane or region.
#[derive(Default)]
pub(crate) struct Totals {
    /// Per node of the region: rows in, bad rows, discarded rows.
    pub nodes: Vec<(NodeId, u64, u64, u64)>,
    pub peak_arena: usize,
    pub chunks: u64,
    pub bytes: u64,
    /// What the sources have to say.
    pub notes: Vec<String>,
}

/// Everything that is made once per run and used by its regions.
pub(crate) struct World<'g> {
    pub graph: &'g Graph,
    pub settings: &'g Settings,
    pub setup: Setup,
    /// Each node's way to the disk.
    pub spills: Vec<Arc<Spill>>,
    pub script: &'g str,
    pub progress: Arc<Progress>,
    /// Breakers by node, once filled.
    pub breakers: Vec<Option<Arc<dyn Breaker>>>,
    /// Builds by node, once filled and as long as somebody needs them.
    pub builds: Vec<Option<Arc<dyn Build>>>,
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Each node's part of the memory.
    pub budgets: Vec<Arc<Budget>>,
    /// What stays free for later regions.
    pub ahead: Reservation,
}

impl World<'_> {
    /// Sets aside what the stages of a region cannot do without. Nobody works meanwhile, so what one region gives back is there for the next.
    fn set_aside(&mut self, floor: &RegionFloor) {
        self.ahead = self.setup.budget.reserve();
        let wanted = self.budgets.iter().enumerate();
        let wanted: Vec<usize> = wanted.map(|(node, budget)| floor.of(node, budget.used())).collect();
        let lower = |budget: &Budget, bytes: usize| budget.set_floor(bytes.min(budget.floor()));
        // As much as there is, if there is less: whoever misses it says so.
        let raise = |budget: &Budget, bytes: usize| {
            let least = || budget.set_floor(bytes.min(budget.used().saturating_add(budget.free())));
            budget.set_floor(bytes).or_else(|_| least())
        };
        for change in [lower as fn(&Budget, usize) -> Result<()>, raise] {
            for (budget, &bytes) in self.budgets.iter().zip(&wanted) {
                let _ = change(budget, bytes);
            }
        }
        let _ = self.ahead.grow(floor.ahead.min(self.setup.budget.free()));
    }

    /// Runs one region to its end. `floor`: what it and later ones cannot do without.
    pub(crate) fn region(&mut self, region: &Region, floor: &RegionFloor) -> Result<Totals> {
        self.set_aside(floor);
        let waits = |id: NodeId| matches!(self.graph.nodes[id].op, Op::Probe { .. }) && self.waits(id);
        let feeds = feeds::of(self.graph, region, waits);
        let is_rejects = |id: NodeId| matches!(self.graph.nodes[id].op, Op::Rejects);
        let some_wait = feeds
            .iter()
            .any(|feed| feed.kind == Kind::Finish && is_rejects(feed.node));
        let mut shared = Vec::with_capacity(region.nodes.len());
        for &id in &region.nodes {
            shared.push(self.shared(id, region, some_wait)?);
        }
        let mut operators: Vec<Vec<Operator>> = vec![];
        for _ in 0..self.settings.workers.max(1) {
            let made = region
                .nodes
                .iter()
                .zip(&shared)
                .map(|(&id, shared)| self.operator(id, shared, &feeds));
            operators.push(made.collect::<Result<_>>()?);
        }
        let spilled = |&id: &NodeId| self.spills[id].done().segments > 0;
        self.progress.phase(region.sources.iter().any(spilled));
        let mut sources: Vec<Arc<dyn Source>> = Vec::with_capacity(feeds.len());
        for feed in &feeds {
            sources.push(match feed.kind {
                Kind::Source => self.source(feed.node)?,
                Kind::Again => self.built(feed.node)?.again()?,
                Kind::Finish => Arc::new(feeds::Once::default()),
            });
        }
        let total = sources.iter().map(|s| s.total_bytes()).sum::<Option<u64>>();
        self.progress.start(total);
        let hooks = &self.settings.hooks;
        let run = RegionRun {
            ends: Mutex::new(Ends::of(sources.len())),
            sources,
            feeds,
            keeps_text: (region.nodes.iter()).any(|&id| matches!(self.graph.nodes[id].op, Op::Rejects)),
            claims: Mutex::default(),
            at_work: (0..self.settings.workers.max(1))
                .map(|_| AtomicU64::new(u64::MAX))
                .collect(),
            any_end: AtomicBool::new(false),
            dead: self.settings.cancel.clone(),
            panic_at: hooks.panic_at,
            share: self.setup.share,
            poison: hooks.poison,
            chunk_rows: hooks.chunk_rows,
            refuse_after: hooks.refuse_after,
            progress: self.progress.clone(),
        };
        let gates: Vec<Option<Arc<Gate>>> = (region.nodes.iter())
            .map(|&id| {
                self.graph.nodes[id]
                    .policy
                    .limit
                    .map(|limit| Arc::new(Gate::new(limit)))
            })
            .collect();
        let mut lanes = Vec::new();
        for (number, operators) in operators.into_iter().enumerate() {
            lanes.push(self.lane(number, region, &run, operators, &gates, &shared)?);
        }
        let panicked: Mutex<Option<String>> = Mutex::new(None);
        let guarded = |lane: &mut Lane| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&run, lane))) {
                let mut text = panicked.lock().unwrap_or_else(PoisonError::into_inner);
                text.get_or_insert_with(|| panic_text(panic.as_ref()));
                run.kill();
            }
        };
        let spawned = std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(lanes.len());
            for lane in &mut lanes {
                let thread = std::thread::Builder::new().name("standpipe".into()).stack_size(STACK);
                match thread.spawn_scoped(scope, || guarded(lane)) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        run.kill();
                        return Err(Error::io("start", "a worker", error));
                    }
                }
            }
            // The scope waits for the work, this for the threads: their stacks are free for those that come next.
            threads.into_iter().for_each(|thread| drop(thread.join()));
            Ok(())
        });
        spawned?;
        let check = || -> Result<()> {
            if let Some(text) = panicked.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(Error::Panic(text));
            }
            if let Some(error) = run.take_error() {
                return Err(error);
            }
            if run.dead.load(SeqCst) {
                Err(Error::Cancelled)
            } else {
                Ok(())
            }
        };
        check()?;
        let last = &mut lanes[0];
        let end = on_a_worker(|| finish(&run, last));
        check()?;
        end?;
        let chunks = run.claims.lock().unwrap_or_else(PoisonError::into_inner).next;
        let mut totals = Totals {
            chunks,
            ..Totals::default()
        };
        totals.notes = run.sources.iter().flat_map(|s| s.notes()).collect();
        totals.bytes = run.sources.iter().map(|s| s.claimed_bytes()).sum();
        for (i, &id) in region.nodes.iter().enumerate() {
            let sum = |get: fn(&Node) -> u64| lanes.iter().map(|lane| get(&lane.nodes[i])).sum();
            let nulled = if let Shared::Nulled(count) | Shared::Probe(_, count) = &shared[i] {
                count.load(Relaxed)
            } else {
                0
            };
            totals.nodes.push((
                id,
                sum(|n| n.rows_in),
                sum(|n| n.bad_rows) + nulled,
                sum(|n| n.discarded),
            ));
        }
        totals.peak_arena = lanes.iter().map(|lane| lane.peak).max().unwrap_or(0);
        drop(lanes);
        for (&id, shared) in region.nodes.iter().zip(shared) {
            match shared {
                Shared::Fill(breaker) => self.breakers[id] = Some(breaker),
                Shared::Build(build) => {
                    on_a_worker(|| build.seal())?;
                    self.builds[id] = Some(build);
                }
                _ => {}
            }
        }
        Ok(totals)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a worker panicked".into())
}

/// Does some work on a thread with a worker's stack; a panic there is an error here.
fn on_a_worker(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("standpipe".into()).stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|e| Error::io("start", "a worker", e))?;
        thread
            .join()
            .unwrap_or_else(|panic| Err(Error::Panic(panic_text(panic.as_ref()))))
    })
}
