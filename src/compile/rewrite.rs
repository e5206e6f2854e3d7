//! What is done to a graph before it runs. One file per rewrite.
//!
//! Laws
//! - No rewrite changes which rows fail, or what comes out.
//! - Positions never shift: a column nobody needs stays, `Absent`.

mod dead;
mod first;
mod liveness;
mod order;
mod places;
mod rearranges;
mod replay;

use super::draft::Draft;
use super::report::Checker;
use crate::diag::Diagnostic;
use crate::graph::{Graph, NodeId};
use order::Obstacle;

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

/// Every rewrite, and the graph that comes of it.
pub(super) fn finish(mut draft: Draft) -> Graph {
    rearranges::merge(&mut draft);
    dead::remove(&mut draft);
    first::limit(&mut draft);
    liveness::spread(&mut draft);
    places::spread(&mut draft);
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
