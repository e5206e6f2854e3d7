//! Runs a region: workers draw tickets, read, push, and end chunks, until the input or the need for it ends.
//!
//! Laws
//! - The lowest unfinished chunk never waits for anything a later chunk holds.
//! - What ends a run is the least (chunk, place, node), whichever worker came first.
//! - A panic or a cancelled run wakes every waiter.

use crate::expr::{Compute, Condition, Fixed};
use crate::graph::regions::Region;
use crate::graph::{Edge, Graph, NodeId, OnError, Op, Port};
use crate::runtime::feeds::{self, Feed, Kind};
use crate::runtime::floors::RegionFloor;
use crate::runtime::lane::{Chunk, Edges, InOrder, Info, LastEdges, Node, Operator, Waits, first_of};
use crate::runtime::limit::Gate;
use crate::runtime::progress::Progress;
use crate::runtime::rejects::Held;
use crate::runtime::settings::Settings;
use crate::runtime::turnstile::{MAX_PARTS, Ticket, Turnstile};
use standpipe_sdk::spec::{Rearrange, Setup};
use standpipe_sdk::{
    Arena, Batch, Breaker, Budget, Build, Downstream, Emitter, Error, Faults, Flow, Locator, Place, Reader,
    Reservation, Result, Schema, Serial, Sink, Source, Spill,
};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rows tried at first when a whole claim does not fit its arena.
const FEWER_ROWS: usize = 1 << 14;
/// The stack of a worker: expressions go 500 deep and a path 1,000 nodes, and frames are large without optimisation.
const STACK: usize = if cfg!(debug_assertions) { 256 << 20 } else { 32 << 20 };
/// The source number of the chunk that follows the last one: no source's end concerns it.
const NO_SOURCE: usize = usize::MAX;
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

#[derive(Default)]
struct Claims {
    source: usize,
    /// Nobody was at an earlier claim when the turn of the source came.
    waited: bool,
    next: u64,
}

#[derive(Default)]
struct Ends {
    error: Option<Failure>,
    /// For each source the ticket number after which nobody wants its rows.
    done: Vec<Option<u64>>,
    /// For each source behind which of its rows nothing is rejected: order of the chunk, and the last place in it that counts.
    cuts: Vec<Option<(u64, Option<Place>)>>,
}

/// What ends the run.
struct Failure {
    /// The number of the chunk that what failed came in.
    order: u64,
    ticket: u64,
    /// The chunk is of rows that waited: it may be one of several that came as one.
    waited: bool,
    error: Error,
}

impl Failure {
    /// Something is wrong with the data: what stands before it and has not come yet may be wrong too.
    fn is_in_the_data(&self) -> bool {
        matches!(self.error, Error::Row(_) | Error::Io { .. })
    }

    /// From where on nothing matters.
    fn at(&self) -> (u64, Place) {
        match &self.error {
            Error::Row(row) => (self.order, row.place),
            _ => (self.order, Place::default()),
        }
    }
}

/// A drawn piece of input.
struct Draw {
    source: usize,
    ticket: u64,
    claim: u64,
}

impl RegionRun {
    pub(crate) fn arena(&self) -> Arena {
        let mut arena = Arena::new(self.share);
        arena.set_poison(self.poison);
        arena
    }

    fn draw(&self, lane: usize) -> Option<Draw> {
        self.at_work[lane].store(u64::MAX, SeqCst);
        if self.dead.load(SeqCst) {
            return None;
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let source = self.sources.get(claims.source)?;
            let feed = &self.feeds[claims.source];
            // The lock is held meanwhile, so that nobody begins another claim; who is done with one is at none before it asks for it.
            if feed.comes_after_all && !claims.waited {
                while self.at_work.iter().any(|at| at.load(SeqCst) != u64::MAX) {
                    if self.dead.load(SeqCst) {
                        return None;
                    }
                    std::thread::sleep(NAP);
                }
                claims.waited = true;
            }
            let over = self.any_end.load(SeqCst) && {
                let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                let is_done = ends.done[claims.source].is_some();
                match &ends.error {
                    // Rows before the bad one may be waiting, or held back by a stage: one of them may be bad too, or end the need for it.
                    Some(failure) if failure.is_in_the_data() => match feed.kind {
                        Kind::Source => true,
                        Kind::Finish => !feed.may_fail,
                        Kind::Again => is_done,
                    },
                    Some(_) => return None,
                    None => is_done,
                }
            };
            match if over { None } else { source.ticket() } {
                Some(ticket) => {
                    let claim = claims.next;
                    claims.next += 1;
                    self.at_work[lane].store(claim, SeqCst);
                    return Some(Draw {
                        source: claims.source,
                        ticket,
                        claim,
                    });
                }
                None => {
                    claims.source += 1;
                    claims.waited = false;
                }
            }
        }
    }

    /// Whether an earlier chunk ended the run, or the need for this source.
    pub(crate) fn ended_before(&self, ticket: Ticket, order: u64, source: usize) -> bool {
        if !self.any_end.load(SeqCst) {
            return false;
        }
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let is_earlier =
            |it: &Failure| it.order < order || (it.waited && it.order == order && it.ticket < ticket.number());
        ends.error.as_ref().is_some_and(is_earlier)
            || (ends.done.get(source).copied().flatten()).is_some_and(|end| end < ticket.number())
    }

    /// The run ends with `error` of something that came in the chunk of number `order`, unless an earlier chunk ends it, or the need for
    /// this source, first: so it is judged when its turn has come, once nobody is at an earlier claim.
    fn fail(&self, ticket: Ticket, order: u64, source: usize, error: Error) {
        if matches!(error, Error::Cancelled) {
            return;
        }
        let earlier = |at: &AtomicU64| at.load(SeqCst) < ticket.claim();
        while self.at_work.iter().any(earlier) && !self.dead.load(SeqCst) {
            std::thread::sleep(NAP);
        }
        if self.ended_before(ticket, order, source) {
            return;
        }
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Failure {
            order,
            ticket: ticket.number(),
            waited: self.feeds.get(source).is_some_and(|feed| feed.kind == Kind::Again),
            error,
        };
        ends.error = Some(match ends.error.take() {
            Some(old) if old.order < order => old,
            Some(old) if old.order == order => {
                // Of chunks that came as one the earlier one counts, whatever the places say.
                if old.waited && new.waited && old.ticket != new.ticket {
                    if old.ticket < new.ticket { old } else { new }
                } else {
                    new.waited &= old.waited;
                    new.error = first_of(Some(old.error), new.error);
                    new
                }
            }
            _ => new,
        });
        self.any_end.store(true, SeqCst);
    }

    /// The same for what went wrong with `chunk`.
    fn fail_at(&self, chunk: &Chunk<'_>, error: Error) {
        let order = match &error {
            Error::Row(row) => chunk.locator.chunk_of(row.place),
            _ => chunk.order,
        };
        self.fail(chunk.ticket, order, chunk.source, error);
    }

    /// From where on nothing matters any more, if something failed.
    fn failed(&self) -> Option<(u64, Place)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.error.as_ref().map(Failure::at)
    }

    /// Nobody wants more of this source behind the chunk, of which the rows up to `end` have counted.
    fn done(&self, ticket: Ticket, order: u64, source: usize, end: Option<Place>) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = ends.done[source].is_none_or(|at| ticket.number() < at);
        if is_first {
            ends.done[source] = Some(ticket.number());
            ends.cuts[source] = Some((order, end));
        }
        self.cut(&mut ends, source, order, end, is_first);
    }

    /// Nobody wants more of what a stage gives at its end: of the input, the rows up to `end` have counted. What is rejected of the rows it
    /// did give comes of itself only up to there.
    fn enough(&self, source: usize, order: u64, end: Place) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut(&mut ends, source, order, Some(end), true);
    }

    /// What had come from the feeds that `source` ends was for its rows alone.
    fn cut(&self, ends: &mut Ends, source: usize, order: u64, end: Option<Place>, is_first: bool) {
        let before = &self.feeds[source].ends;
        if is_first {
            before.iter().for_each(|&from| ends.cuts[from] = Some((order, end)));
        }
        let is_behind = |it: &Failure| !it.waited && it.order >= order;
        if !before.is_empty() && ends.error.as_ref().is_some_and(is_behind) {
            // What came before the bad row was enough.
            ends.error = None;
        }
        self.any_end.store(true, SeqCst);
    }

    /// Whether nobody wants what a stage gives at its end: who gets it had enough of what came before. Rows may have been held all the same,
    /// of a chunk that was at work on another lane.
    fn had_enough(&self, source: usize) -> bool {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        self.feeds[source].ends.iter().any(|&from| ends.cuts[from].is_some())
    }

    /// Whether what was rejected there never counted.
    fn is_cut(&self, source: usize, order: u64, place: Place) -> bool {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match ends.cuts.get(source).copied().flatten() {
            Some((at, end)) => order > at || (order == at && end.is_some_and(|end| place > end)),
            None => false,
        }
    }

    /// Nobody wants more of this source, which changes nothing for others.
    fn stop(&self, source: usize, ticket: Ticket) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let done = &mut ends.done[source];
        *done = Some(done.map_or(ticket.number(), |at| at.min(ticket.number())));
        self.any_end.store(true, SeqCst);
    }

    fn kill(&self) {
        self.dead.store(true, SeqCst);
        for source in &self.sources {
            source.cancel();
        }
    }
}

/// One worker's nodes, readers and memory.
struct Lane {
    number: usize,
    nodes: Vec<Node>,
    /// For each source of the region: its reader and the lane position of its node.
    readers: Vec<(Box<dyn Reader>, usize)>,
    arena: Arena,
    spares: RefCell<Vec<Arena>>,
    peak: usize,
    /// The rejects that wait, by node.
    held: Vec<(NodeId, Arc<Held>)>,
}

/// Operators that lanes share.
enum Shared {
    Serial(Arc<(Turnstile, Mutex<Box<dyn Serial>>)>),
    Sink(Arc<dyn Sink>, Arc<(Turnstile, ())>),
    Fill(Arc<dyn Breaker>),
    Build(Arc<dyn Build>),
    /// The build that is met, and how many pairs were made null.
    Probe(Arc<dyn Build>, Arc<AtomicU64>),
    /// Rejects that wait for others.
    Held(Arc<Held>),
    /// How many values were made null.
    Nulled(Arc<AtomicU64>),
    Own,
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
            ends: Mutex::new(Ends {
                error: None,
                done: vec![None; sources.len()],
                cuts: vec![None; sources.len()],
            }),
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
            if let Some(failure) = run.ends.lock().unwrap_or_else(PoisonError::into_inner).error.take() {
                return Err(failure.error);
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

    /// What node `id` is made with.
    fn setup_of(&self, id: NodeId) -> Setup {
        Setup {
            budget: self.budgets[id].clone(),
            spill: self.spills[id].clone(),
            asked: self.graph.nodes[id].asked,
            ..self.setup.clone()
        }
    }

    fn source(&mut self, id: NodeId) -> Result<Arc<dyn Source>> {
        match &self.graph.nodes[id].op {
            Op::Source { make, request } => make(&self.setup_of(id), request),
            Op::Drain => self.built(id)?.drain(),
            _ => match self.breakers[id].take() {
                Some(breaker) => breaker.drain(),
                None => Err(Error::Panic(format!("node {id} is drained before it is filled"))),
            },
        }
    }

    /// The build that node `id` drains or probes: its last input.
    fn built(&self, id: NodeId) -> Result<Arc<dyn Build>> {
        let edge = self.graph.nodes[id].inputs.last();
        let build = edge.and_then(|edge| self.builds.get(edge.from)?.clone());
        build.ok_or_else(|| Error::Panic(format!("node {id} meets a build before it is filled")))
    }

    /// Whether the rows that come to probe `id` have to wait.
    fn waits(&self, id: NodeId) -> bool {
        self.built(id).is_ok_and(|build| build.waits())
    }

    fn arena(&self) -> Arena {
        let mut arena = Arena::new(self.setup.share);
        arena.set_poison(self.settings.hooks.poison);
        arena
    }

    fn shared(&mut self, id: NodeId, region: &Region, some_wait: bool) -> Result<Shared> {
        Ok(match &self.graph.nodes[id].op {
            Op::Serial(make) => Shared::Serial(Arc::new((Turnstile::default(), Mutex::new(make(&self.setup_of(id))?)))),
            Op::Sink(make) => {
                let sink = make(&self.setup_of(id))?;
                self.sinks.push(sink.clone());
                Shared::Sink(sink, Arc::new((Turnstile::default(), ())))
            }
            Op::Compute { .. } => Shared::Nulled(Arc::default()),
            Op::Build(make) => Shared::Build(make(&self.setup_of(id))?),
            Op::Probe { .. } => Shared::Probe(self.built(id)?, Arc::default()),
            Op::Rejects if some_wait => Shared::Held(Arc::new(Held::new(&self.setup_of(id))?)),
            Op::Breaker(make) if region.fills.contains(&id) => Shared::Fill(make(&self.setup_of(id))?),
            _ => Shared::Own,
        })
    }

    /// One lane's part of node `id`.
    fn operator(&self, id: NodeId, shared: &Shared, feeds: &[Feed]) -> Result<Operator> {
        let node = &self.graph.nodes[id];
        let null_on_error = node.policy.on_error == OnError::Null;
        let fixed = Fixed {
            now_micros: self.settings.now_micros,
        };
        Ok(match (&node.op, shared) {
            (Op::Compute { exprs, keep }, Shared::Nulled(nulled)) => {
                let compute = Compute::new(exprs, keep.as_slice().into(), null_on_error, fixed);
                Operator::Compute(compute.count_into(nulled.clone()))
            }
            (Op::Rearrange { picks }, _) => Operator::RowWise(Box::new(Rearrange { picks: picks.clone() })),
            (Op::RowWise(make), _) => Operator::RowWise(make(&self.setup_of(id))?),
            (_, Shared::Serial(serial)) => {
                let prepare = serial.1.lock().unwrap_or_else(PoisonError::into_inner).prepare();
                Operator::Serial(InOrder::new(serial.clone()), prepare)
            }
            (_, Shared::Sink(sink, turn)) => Operator::Sink(sink.clone().writer()?, InOrder::new(turn.clone())),
            (_, Shared::Fill(breaker)) => Operator::Fill(breaker.clone().filler()?),
            (_, Shared::Build(build)) => Operator::Fill(build.clone().filler()?),
            (Op::Probe { pairs }, Shared::Probe(build, nulled)) => {
                let judge = pairs
                    .as_ref()
                    .map(|pairs| Condition::new(pairs.condition.clone(), null_on_error, fixed, nulled.clone()));
                let again = feeds
                    .iter()
                    .position(|feed| feed.node == id && feed.kind == Kind::Again);
                let waits = match again {
                    Some(again) => Some(Waits {
                        hold: build.clone().holder()?,
                        again,
                    }),
                    None => None,
                };
                Operator::Probe(build.clone().prober()?, judge, waits)
            }
            (Op::Route { arms }, _) => Operator::Route(*arms),
            (Op::Rejects, _) => Operator::Rejects {
                rows: vec![],
                pen: self.arena(),
                held: match shared {
                    Shared::Held(held) => Some(held.lane()?),
                    _ => None,
                },
            },
            _ => Operator::Pass,
        })
    }

    fn lane(
        &self,
        number: usize,
        region: &Region,
        run: &RegionRun,
        operators: Vec<Operator>,
        gates: &[Option<Arc<Gate>>],
        shared: &[Shared],
    ) -> Result<Lane> {
        let at = |id: NodeId| region.nodes.binary_search(&id).ok();
        let mut nodes = Vec::with_capacity(region.nodes.len());
        for (i, (&id, op)) in region.nodes.iter().zip(operators).enumerate() {
            let node = &self.graph.nodes[id];
            let drained = region.sources.contains(&id);
            let (mut outs, mut rejects) = (Vec::new(), None);
            // A breaker's consumers belong to the region that drains it.
            if !matches!(op, Operator::Fill(_)) {
                for (to, edge) in self.edges_from(id) {
                    let Some(to) = at(to) else { continue };
                    match edge.port {
                        Port::Built => {}
                        Port::Rejects => rejects = Some(to),
                        Port::Out(port) => {
                            while outs.len() <= port {
                                outs.push(Vec::new());
                            }
                            outs[port].push(to);
                        }
                    }
                }
            }
            let input = match node.inputs.first() {
                Some(edge) if !drained => taken_by(self.graph, id, edge.from),
                _ => node.schema.clone(),
            };
            nodes.push(Node {
                id,
                info: Arc::new(Info {
                    name: node.name.as_str().into(),
                    span: node.span,
                    script_line: line_of(self.script, node.span.start),
                    policy: node.policy,
                    input,
                }),
                op,
                outs,
                rejects,
                done: false,
                rows_in: 0,
                bad_rows: 0,
                discarded: 0,
                gate: gates[i].clone(),
                chunk_rows: 0,
                chunk_bad: Vec::new(),
            });
        }
        let mut readers = Vec::with_capacity(run.feeds.len());
        for (source, feed) in run.sources.iter().zip(&run.feeds) {
            let at = at(feed.node).ok_or_else(|| Error::Panic("a source outside its region".into()))?;
            readers.push((source.clone().reader()?, at));
        }
        Ok(Lane {
            number,
            nodes,
            readers,
            arena: run.arena(),
            spares: RefCell::default(),
            peak: 0,
            held: (region.nodes.iter().zip(shared))
                .filter_map(|(&id, shared)| match shared {
                    Shared::Held(held) => Some((id, held.clone())),
                    _ => None,
                })
                .collect(),
        })
    }

    fn edges_from(&self, id: NodeId) -> impl Iterator<Item = (NodeId, Edge)> + '_ {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes.flat_map(move |(to, node)| node.inputs.iter().filter(move |e| e.from == id).map(move |e| (to, *e)))
    }
}

/// The rows that the stage of `node` takes from `from`, as its reject records show them: without the columns that were computed
/// for its own arguments.
fn taken_by(graph: &Graph, node: NodeId, mut from: NodeId) -> Schema {
    let mut width = graph.nodes[from].schema.width();
    while let Op::Compute { keep, .. } = &graph.nodes[from].op
        && graph.nodes[from].span == graph.nodes[node].span
        && let [before] = graph.nodes[from].inputs.as_slice()
    {
        width = keep.len();
        from = before.from;
    }
    let fields = graph.nodes[from].schema.fields();
    fields[..width.min(fields.len())].iter().cloned().collect()
}

/// The line (from 1) of byte `at` of a script.
fn line_of(script: &str, at: u32) -> u32 {
    let before = script.as_bytes().get(..at as usize).unwrap_or_default();
    before.iter().filter(|&&b| b == b'\n').count() as u32 + 1
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

/// A worker's life.
fn work(run: &RegionRun, lane: &mut Lane) {
    while let Some(draw) = run.draw(lane.number) {
        if run.feeds[draw.source].kind == Kind::Finish {
            finish_early(run, lane, &draw);
            continue;
        }
        // Also when the run has ended meanwhile: a later claim may wait for what this one hands on.
        let claimed = lane.readers[draw.source].0.claim(draw.ticket);
        let mut part = 0;
        match claimed {
            Ok(true) => {
                let most = run.chunk_rows.unwrap_or(usize::MAX);
                let (mut rows, mut refuse) = (most, run.refuse_after);
                loop {
                    match one_part(run, lane, &draw, part, rows, refuse) {
                        // The hook refuses anew in every part; without it, what fitted fits again.
                        Outcome::Part if run.refuse_after.is_some() => {
                            (part, rows, refuse) = (part + 1, most, run.refuse_after);
                        }
                        Outcome::Part => part += 1,
                        Outcome::Last => break,
                        Outcome::Refused => (rows, refuse) = ((rows / 2).min(FEWER_ROWS), None),
                    }
                }
            }
            Ok(false) => empty_chunk(run, lane, &draw, None),
            Err(error) => empty_chunk(run, lane, &draw, Some(error)),
        }
        lane.readers[draw.source].0.let_go();
        run.progress.read(run.sources[draw.source].as_ref(), draw.source);
    }
    for node in &mut lane.nodes {
        if let Operator::Fill(fill) = &mut node.op
            && let Err(error) = fill.done()
        {
            let last = Ticket::new(u64::MAX >> 24, 0);
            run.fail(last, last.number(), NO_SOURCE, error);
        }
    }
}

enum Outcome {
    Part,
    Last,
    /// The arena had no room for the part; nothing has happened.
    Refused,
}

/// Decodes one part of the claim and pushes it through the lane.
fn one_part(run: &RegionRun, lane: &mut Lane, draw: &Draw, part: u64, rows: usize, refuse: Option<usize>) -> Outcome {
    let Lane {
        nodes,
        readers,
        arena,
        spares,
        peak,
        ..
    } = lane;
    let (reader, head) = &mut readers[draw.source];
    let ticket = Ticket::new(draw.claim, part);
    let stop = nodes[*head].info.policy.on_error == OnError::Fail;
    if let Some(n) = refuse {
        arena.refuse_after(n);
    }
    let outcome = match reader.decode(arena, rows, stop) {
        Err(Error::Memory { .. }) if rows > 1 => Outcome::Refused,
        Err(error) => {
            let chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), spares);
            run.fail_at(&chunk, error);
            end_chunk(run, nodes, &chunk);
            Outcome::Last
        }
        Ok(decoded) => {
            // Too many parts for the numbering, or the run is over: this one is the last.
            let over = part + 1 >= MAX_PARTS;
            let mut chunk = chunk_of(run, draw.source, ticket, false, decoded.locator, spares);
            let comes_again = run.feeds[draw.source].kind == Kind::Again;
            let mut ended = run.ended_before(ticket, chunk.first, draw.source);
            if ended && comes_again {
                // The rows that waited come in order: none of those behind it counts. What a stage gave at its end may stand before them.
                match run.feeds.iter().any(|feed| feed.may_fail) {
                    true => ended = false,
                    false => run.stop(draw.source, ticket),
                }
            }
            let last = decoded.last || over || ended;
            chunk.last_part = last;
            let (before, later) = nodes.split_at_mut(*head + 1);
            let flow = before[*head].admit(decoded.batch, &decoded.faults, arena, later, *head + 1, &chunk);
            run.progress.rows(decoded.batch.rows() as u64);
            if !matches!(flow, Ok(Flow::Done)) {
                // Some consumer goes on: what one of them had enough of is not the end.
                chunk.end_place.set(None);
            }
            match flow {
                Ok(Flow::More) => {}
                Ok(Flow::Done) => run.done(ticket, chunk.order, draw.source, chunk.end_place.get()),
                Err(error) => run.fail_at(&chunk, error),
            }
            end_chunk(run, nodes, &chunk);
            if last { Outcome::Last } else { Outcome::Part }
        }
    };
    *peak = arena.used().max(*peak);
    arena.reset();
    arena.refuse_after(usize::MAX);
    outcome
}

fn chunk_of<'r>(
    run: &'r RegionRun,
    source: usize,
    ticket: Ticket,
    last_part: bool,
    locator: Locator<'r>,
    spares: &'r RefCell<Vec<Arena>>,
) -> Chunk<'r> {
    let order = match run.feeds.get(source) {
        Some(feed) if feed.kind == Kind::Again => locator.chunk,
        _ => ticket.number(),
    };
    Chunk {
        ticket,
        source,
        order,
        first: locator.traces.iter().map(|trace| trace.chunk).min().unwrap_or(order),
        last_part,
        run,
        locator: Locator {
            chunk: order,
            ..locator
        },
        spares,
        end_place: Cell::new(None),
    }
}

fn empty_chunk(run: &RegionRun, lane: &mut Lane, draw: &Draw, error: Option<Error>) {
    let ticket = Ticket::new(draw.claim, 0);
    let chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), &lane.spares);
    if let Some(error) = error {
        run.fail(ticket, ticket.number(), draw.source, error);
    }
    end_chunk(run, &mut lane.nodes, &chunk);
}

fn end_chunk(run: &RegionRun, nodes: &mut [Node], chunk: &Chunk<'_>) {
    for i in 0..nodes.len() {
        let (before, later) = nodes.split_at_mut(i + 1);
        if let Err(error) = before[i].end_chunk(later, i + 1, chunk) {
            run.fail_at(chunk, error);
        }
    }
}

/// A chunk in which one node says what it has left to say, before later sources are read.
fn finish_early(run: &RegionRun, lane: &mut Lane, draw: &Draw) {
    let at = lane.readers[draw.source].1;
    let ticket = Ticket::new(draw.claim, 0);
    let mut chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), &lane.spares);
    // After an error only what stands before it is given.
    chunk.first = 0;
    let (before, later) = lane.nodes.split_at_mut(at + 1);
    let node = &mut before[at];
    let mut order = ticket.number();
    let outcome = match &mut node.op {
        Operator::Rejects { pen, .. } => {
            let outs = &node.outs;
            let held = lane.held.iter().find(|(id, _)| *id == node.id);
            held.map_or(Ok(()), |(_, held)| {
                let is_cut = |source, order, place| run.is_cut(source, order, place);
                held.give(pen, is_cut, |rows, arena| {
                    let mut edges = Edges {
                        outs,
                        later: &mut *later,
                        base: at + 1,
                        chunk: &chunk,
                        last: false,
                    };
                    edges.push(0, arena, rows, false)
                })
            })
        }
        _ if run.had_enough(draw.source) => Ok(()),
        _ => finish_node(node, later, at + 1, &chunk, &lane.arena, &mut order),
    };
    if let Err(error) = outcome {
        run.fail(ticket, order, draw.source, error);
    }
    end_chunk(run, &mut lane.nodes, &chunk);
    lane.peak = lane.arena.used().max(lane.peak);
    lane.arena.reset();
}

/// A serial stage says what it has left to say; after an error, what of it stands before that. `order`: the chunk that what fails now came in.
fn finish_node(
    node: &mut Node,
    later: &mut [Node],
    base: usize,
    chunk: &Chunk<'_>,
    arena: &Arena,
    order: &mut u64,
) -> Result<()> {
    let Operator::Serial(serial, _) = &node.op else {
        return Ok(());
    };
    let failed = chunk.run.failed();
    let faults = Faults::new(arena, node.info.policy.on_error == OnError::Fail);
    let mut last = LastEdges {
        edges: Edges {
            outs: &node.outs,
            later,
            base,
            chunk,
            last: false,
        },
        failed,
        enough: None,
    };
    let mut out = Emitter::new(arena, &faults, &mut last);
    let mut state = serial.shared.1.lock().unwrap_or_else(PoisonError::into_inner);
    let done = state.finish(&mut out);
    drop(state);
    if let Some((order, end)) = last.enough {
        chunk.run.enough(chunk.source, order, end);
    }
    if let Some((chunk, _)) = last.failed
        && last.failed != failed
    {
        *order = chunk;
    }
    if failed.is_some() {
        return done;
    }
    // Bad rows of what the stage held: they have no row of the input. After an error they are behind it.
    let rows = faults.iter().map(|fault| fault.row as usize + 1).max().unwrap_or(0);
    node.settle_end(done, Batch::new(&[], None, rows), &faults, later, base, chunk)
}

/// One chunk more, behind the last, in which limits are judged for the last time.
fn finish(run: &RegionRun, lane: &mut Lane) -> Result<()> {
    let claims = run.claims.lock().unwrap_or_else(PoisonError::into_inner).next;
    let ticket = Ticket::new(claims, 0);
    let chunk = chunk_of(run, NO_SOURCE, ticket, true, Locator::default(), &lane.spares);
    let nodes = &mut lane.nodes;
    let mut outcome = Ok(());
    for node in nodes.iter() {
        if let Some(too_many) = node.gate.as_ref().and_then(|gate| gate.end()) {
            outcome = Err(first_of(outcome.err(), node.too_many(&too_many, &chunk.locator)));
        }
    }
    if let Err(error) = outcome {
        run.fail(ticket, ticket.number(), NO_SOURCE, error);
    }
    end_chunk(run, nodes, &chunk);
    let mut ends = run.ends.lock().unwrap_or_else(PoisonError::into_inner);
    match ends.error.take() {
        Some(failure) => Err(failure.error),
        None => Ok(()),
    }
}
