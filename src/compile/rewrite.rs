//! What is done to a graph before it runs. One file per rewrite.
//!
//! Laws
//! - No rewrite changes which rows fail, or what comes out.
//! - Positions never shift: a column nobody needs stays, `Absent`.
//! - They know stages by what their specs say, never by name.

mod dead;
mod filters;
mod first;
mod liveness;
mod order;
mod places;
mod rearranges;
mod replay;
mod sieves;
mod sorts;
mod unread;

use super::draft::Draft;
use super::report::Checker;
use crate::diag::Diagnostic;
use crate::graph::{Graph, NodeId, Op, Port};
use crate::stages::spill;
use order::Obstacle;
use standpipe_sdk::spec::Memory;

/// Puts the nodes into the order they are read in; says so if there is none.
pub(super) fn order(draft: &mut Draft, checker: &Checker<'_>) {
    let (id, what, label) = match order::sort(draft) {
        Ok(()) => return,
        Err(Obstacle::UnionOrder(id)) => (
            id,
            "streams put together in two orders",
            "another stage wants the same streams the other way round",
        ),
        Err(Obstacle::MeetsItself(id)) => (
            id,
            "a stage whose rows meet those that come in",
            "it would have to wait for itself",
        ),
    };
    let Some(node) = draft.nodes.get(id) else {
        return;
    };
    checker.report(
        Diagnostic::error("E0901", node.span, format!("{what} is not available yet"))
            .labelled(label)
            .help("reading the source a second time keeps them apart"),
    );
}

/// The graph, and before that, if `all` are wanted, every rewrite. Without them what does not run is left out, and sources are asked for
/// what is read: that decides which cells are checked. `any_size`: also those that only the sizes of files speak against.
pub(super) fn finish(mut draft: Draft, all: bool, any_size: bool) -> Graph {
    dead::remove(&mut draft);
    if all {
        filters::move_ahead(&mut draft);
        sorts::leave_out(&mut draft);
        rearranges::merge(&mut draft);
        first::limit(&mut draft);
        sieves::insert(&mut draft, any_size);
    }
    let needs = liveness::spread(&mut draft);
    if all {
        unread::drop(&mut draft, &needs);
    }
    places::spread(&mut draft);
    let meets = draft.nodes.iter().any(|node| matches!(node.op, Op::Probe { .. }));
    for node in draft
        .nodes
        .iter_mut()
        .filter(|node| meets && matches!(node.op, Op::Rejects))
    {
        // Where rows wait for a right side on disk, what is set aside before waits for what is set aside behind.
        node.memory = Memory::Spill;
        node.least = spill::least;
    }
    Graph { nodes: draft.nodes }
}

impl Draft {
    /// How many edges leave each node.
    fn consumers(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for edge in self.nodes.iter().flat_map(|node| &node.inputs) {
            counts[edge.from] += 1;
        }
        counts
    }

    /// The nodes behind node `id` that still have its rows before they are numbered anew: a breaker is the last on its path.
    fn behind(&self, id: NodeId) -> Vec<NodeId> {
        let mut reached = vec![false; self.nodes.len()];
        reached[id] = true;
        let mut found = vec![];
        for at in id + 1..self.nodes.len() {
            let node = &self.nodes[at];
            let goes_on = |from: NodeId| reached[from] && (from == id || !self.nodes[from].op.is_filled());
            if node
                .inputs
                .iter()
                .any(|edge| edge.port != Port::Built && goes_on(edge.from))
            {
                reached[at] = true;
                found.push(at);
            }
        }
        found
    }

    /// Whether anybody behind node `id` looks at places, or tells them: then rows there must keep their numbers.
    fn places_matter(&self, id: NodeId) -> bool {
        self.behind(id).into_iter().any(|at| {
            let facts = &self.facts[at];
            match &self.nodes[at].op {
                // What it tells are the numbers of its own rows.
                Op::Breaker(_) => facts.reads_places,
                _ => facts.places || facts.fails || facts.reads_places,
            }
        })
    }

    /// Keeps the nodes for which `keep` is true; no edge of a kept node may come from one that goes.
    fn retain(&mut self, keep: &[bool]) {
        let mut number: Vec<NodeId> = Vec::with_capacity(keep.len());
        let mut next = 0;
        for &keep in keep {
            number.push(next);
            next += usize::from(keep);
        }
        let mut kept = keep.iter();
        self.nodes.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.facts.retain(|_| kept.next().copied().unwrap_or(true));
        for edge in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            edge.from = number[edge.from];
        }
    }
}
