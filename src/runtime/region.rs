//! Cuts a graph into regions: what stays connected when the inputs of breakers are cut.
//!
//! Laws
//! - A breaker belongs to two regions: it ends the one that fills it and is a source of the one it drains into.
//! - Regions are in an order in which every breaker is filled before it is drained; ties in script order.

use crate::graph::{Graph, NodeId, Op};

/// One region.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// Its nodes, ascending. Breakers that it fills and breakers that it drains are both here.
    pub nodes: Vec<NodeId>,
    /// Where its rows come from, in the order they are read: sources and drained breakers.
    pub sources: Vec<NodeId>,
    /// Breakers that it fills.
    pub fills: Vec<NodeId>,
}

/// The regions of `graph` in the order they run.
///
/// # Errors
/// The node at which a region would have to wait for itself.
pub fn regions(graph: &Graph) -> Result<Vec<Region>, NodeId> {
    let n = graph.nodes.len();
    let is_breaker = |id: NodeId| matches!(graph.nodes[id].op, Op::Breaker(_));
    // Group by the output side: `group[id]` is the region that node `id` gives its rows to.
    let mut group: Vec<usize> = (0..n).collect();
    fn root(group: &mut [usize], mut id: usize) -> usize {
        while group[id] != id {
            group[id] = group[group[id]];
            id = group[id];
        }
        id
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        if is_breaker(id) {
            continue;
        }
        for edge in &node.inputs {
            let (a, b) = (root(&mut group, edge.from), root(&mut group, id));
            group[a.max(b)] = a.min(b);
        }
    }
    let roots: Vec<usize> = (0..n).map(|id| root(&mut group, id)).collect();
    let mut out: Vec<(usize, Region)> = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let mut at = |key: usize| match out.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                out.push((
                    key,
                    Region {
                        nodes: vec![],
                        sources: vec![],
                        fills: vec![],
                    },
                ));
                out.len() - 1
            }
        };
        let own = at(roots[id]);
        let fill = node
            .inputs
            .first()
            .filter(|_| is_breaker(id))
            .map(|edge| at(roots[edge.from]));
        if let Some(fill) = fill {
            if fill == own {
                return Err(id);
            }
            out[fill].1.nodes.push(id);
            out[fill].1.fills.push(id);
        }
        out[own].1.nodes.push(id);
        if is_breaker(id) || matches!(node.op, Op::Source { .. }) {
            out[own].1.sources.push(id);
        }
    }
    // Each round takes the first region whose drained breakers are all filled.
    let mut left: Vec<Region> = out.into_iter().map(|(_, region)| region).collect();
    let mut filled: Vec<bool> = (0..n).map(|id| !is_breaker(id)).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let Some(at) = left.iter().position(|r| r.sources.iter().all(|&s| filled[s])) else {
            return Err(left[0].nodes[0]);
        };
        let region = left.remove(at);
        for &id in &region.fills {
            filled[id] = true;
        }
        ordered.push(region);
    }
    Ok(ordered)
}
