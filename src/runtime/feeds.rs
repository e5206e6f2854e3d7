//! In which order the rows of a region come: out of its sources, out of stages that keep some to the end, and out of probes that let
//! rows wait.
//!
//! Laws
//! - What a stage gives at its end comes before the rows of any later source: for whoever stands behind it there is no difference.
//! - Rows that waited come behind those of the sources they came from, and before those of any later source.
//! - Ends of stages that come out of the same sources come in the order of the graph, whether rows wait or not.

use crate::graph::regions::Region;
use crate::graph::{Graph, NodeId, Op, Port};
use standpipe_sdk::spec::Asked;
use standpipe_sdk::{Arena, Faults, Locator, Part, Reader, Result, Source};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What gives rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// A source, a breaker or build that is drained.
    Source,
    /// A stage at its end.
    Finish,
    /// A probe whose rows waited.
    Again,
}

/// One of the things that give rows, which are read one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Feed {
    pub node: NodeId,
    pub kind: Kind,
    /// A stage at its end may give rows of which something can be wrong, though they came before all that was.
    pub may_fail: bool,
    /// It begins only once nobody is at an earlier claim.
    pub comes_after_all: bool,
    /// Earlier feeds whose rows nobody wants but who gets these: if these are no longer wanted, what came of those behind never was.
    pub ends: Vec<usize>,
}

/// What `region` reads, in order. `waits`: whether the rows that come to a probe wait.
pub(crate) fn of(graph: &Graph, region: &Region, waits: impl Fn(NodeId) -> bool) -> Vec<Feed> {
    type Key = (NodeId, Kind);
    let mut order: Vec<Key> = region.sources.iter().map(|&id| (id, Kind::Source)).collect();
    let some_wait = region.nodes.iter().any(|&id| waits(id) || graph.nodes[id].cut_short);
    // For each node what its rows come out of.
    let mut heads: Vec<BTreeSet<Key>> = Vec::with_capacity(region.nodes.len());
    for &id in &region.nodes {
        let mut own: BTreeSet<Key> = BTreeSet::new();
        if region.sources.contains(&id) {
            own.insert((id, Kind::Source));
        } else {
            for edge in graph.nodes[id].inputs.iter().filter(|edge| edge.port != Port::Built) {
                if let Ok(at) = region.nodes.binary_search(&edge.from) {
                    own.extend(&heads[at]);
                }
            }
        }
        let kind = match graph.nodes[id].op {
            Op::Serial(_) => Some(Kind::Finish),
            Op::Rejects if some_wait => Some(Kind::Finish),
            Op::Probe { .. } if waits(id) => Some(Kind::Again),
            _ => None,
        };
        if let Some(kind) = kind {
            let last = order.iter().rposition(|key| own.contains(key));
            let mut at = last.map_or(0, |at| at + 1);
            // Rejects come when it is known behind which row nothing counts.
            let is_rejects = matches!(graph.nodes[id].op, Op::Rejects);
            while order
                .get(at)
                .is_some_and(|key| key.1 != Kind::Source && (key.0 < id || is_rejects))
            {
                at += 1;
            }
            order.insert(at, (id, kind));
            own.insert((id, kind));
        }
        heads.push(own);
    }
    let ends = |&(id, kind): &Key| -> Vec<usize> {
        let may_end = kind == Kind::Again || (kind == Kind::Finish && graph.nodes[id].cut_short);
        if !may_end || !is_only_way(graph, region, id) {
            return vec![];
        }
        let own = region.nodes.binary_search(&id).map(|at| &heads[at]);
        let is_head = |key: &Key| own.is_ok_and(|own| own.contains(key)) && *key != (id, kind);
        (0..order.len()).filter(|&at| is_head(&order[at])).collect()
    };
    (order.iter())
        .map(|key| Feed {
            node: key.0,
            kind: key.1,
            may_fail: graph.nodes[key.0].holds_back && graph.nodes[key.0].asked != Asked::Nothing,
            comes_after_all: key.1 != Kind::Source || matches!(graph.nodes[key.0].op, Op::Drain),
            ends: ends(key),
        })
        .collect()
}

/// Whether everything that leads to `node` leads nowhere else.
fn is_only_way(graph: &Graph, region: &Region, node: NodeId) -> bool {
    let mut inside: BTreeSet<NodeId> = BTreeSet::from([node]);
    for &id in region.nodes.iter().rev().filter(|id| **id <= node) {
        if inside.contains(&id) && !region.sources.contains(&id) {
            let inputs = graph.nodes[id].inputs.iter().filter(|edge| edge.port != Port::Built);
            inside.extend(inputs.map(|edge| edge.from));
        }
    }
    let leads_in = |&id: &NodeId| {
        id == node
            || region.nodes.iter().all(|to| {
                let is_next = |edge: &crate::graph::Edge| edge.from == id && matches!(edge.port, Port::Out(_));
                inside.contains(to) || !graph.nodes[*to].inputs.iter().any(is_next)
            })
    };
    inside.iter().all(leads_in)
}

/// One ticket, for a chunk that is not read.
#[derive(Default)]
pub(crate) struct Once(AtomicBool);

impl Source for Once {
    fn ticket(&self) -> Option<u64> {
        (!self.0.swap(true, SeqCst)).then_some(0)
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Nothing))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

struct Nothing;

impl Reader for Nothing {
    fn claim(&mut self, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, _: usize, stop_at_first: bool) -> Result<Part<'a>> {
        Ok(Part {
            batch: standpipe_sdk::Batch::new(&[], None, 0),
            faults: Faults::new(arena, stop_at_first),
            last: true,
            locator: Locator::default(),
        })
    }
}
