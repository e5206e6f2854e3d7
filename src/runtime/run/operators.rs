//! The nodes of a region as lanes run them: what the lanes share of a node, and each lane's part of it.

use super::work::Lane;
use super::{RegionRun, World};
use crate::expr::{Compute, Condition, Fixed};
use crate::graph::regions::Region;
use crate::graph::{Edge, Graph, NodeId, OnError, Op, Port};
use crate::runtime::feeds::{Feed, Kind};
use crate::runtime::lane::{InOrder, Info, Node, Operator, Waits};
use crate::runtime::limit::Gate;
use crate::runtime::rejects::Held;
use crate::runtime::turnstile::Turnstile;
use standpipe_sdk::spec::{Rearrange, Setup};
use standpipe_sdk::{Arena, Breaker, Build, Error, Result, Schema, Serial, Sink, Source};
use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// Operators that lanes share.
pub(super) enum Shared {
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

impl World<'_> {
    /// What node `id` is made with.
    fn setup_of(&self, id: NodeId) -> Setup {
        Setup {
            budget: self.budgets[id].clone(),
            spill: self.spills[id].clone(),
            asked: self.graph.nodes[id].asked,
            ..self.setup.clone()
        }
    }

    pub(super) fn source(&mut self, id: NodeId) -> Result<Arc<dyn Source>> {
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
    pub(super) fn built(&self, id: NodeId) -> Result<Arc<dyn Build>> {
        let edge = self.graph.nodes[id].inputs.last();
        let build = edge.and_then(|edge| self.builds.get(edge.from)?.clone());
        build.ok_or_else(|| Error::Panic(format!("node {id} meets a build before it is filled")))
    }

    /// Whether the rows that come to probe `id` have to wait.
    pub(super) fn waits(&self, id: NodeId) -> bool {
        self.built(id).is_ok_and(|build| build.waits())
    }

    fn arena(&self) -> Arena {
        let mut arena = Arena::new(self.setup.share);
        arena.set_poison(self.settings.hooks.poison);
        arena
    }

    pub(super) fn shared(&mut self, id: NodeId, region: &Region, some_wait: bool) -> Result<Shared> {
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
    pub(super) fn operator(&self, id: NodeId, shared: &Shared, feeds: &[Feed]) -> Result<Operator> {
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

    pub(super) fn lane(
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
                end: None,
                rows_in: 0,
                bad_rows: 0,
                discarded: 0,
                gate: gates[i].clone(),
                chunk_rows: 0,
                chunk_bad: Vec::new(),
                chunk_places: Vec::new(),
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
