//! Cuts a graph into regions: what stays connected when the inputs of breakers and the outputs of builds are cut.
//!
//! Laws
//! - A breaker belongs to two regions: it ends the one that fills it and is a source of the one it drains into. A build belongs
//!   to the one that fills it; what it holds is used by others.
//! - Regions are in an order in which everything is filled before it is drained or probed; ties in script order.

use crate::graph::{Graph, Node, NodeId, Op, Port};

/// One region.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its nodes, ascending. Breakers that it fills and breakers that it drains are both here.
    pub nodes: Vec<NodeId>,
    /// Where its rows come from, in the order they are read: sources, drained breakers and builds.
    pub sources: Vec<NodeId>,
    /// Breakers and builds that it fills.
    pub fills: Vec<NodeId>,
    /// Builds that it probes or drains.
    pub uses: Vec<NodeId>,
}

/// For each node a number of the region that it gives its rows to.
pub fn groups(nodes: &[Node]) -> Vec<usize> {
    let mut group: Vec<usize> = (0..nodes.len()).collect();
    fn root(group: &mut [usize], mut id: usize) -> usize {
        while group[id] != id {
            group[id] = group[group[id]];
            id = group[id];
        }
        id
    }
    for (id, node) in nodes.iter().enumerate() {
        for edge in node.connected() {
            let (a, b) = (root(&mut group, edge.from), root(&mut group, id));
            group[a.max(b)] = a.min(b);
        }
    }
    (0..nodes.len()).map(|id| root(&mut group, id)).collect()
}

/// The regions of `graph` in the order they run.
///
/// # Errors
/// The node at which a region would have to wait for itself.
pub fn regions(graph: &Graph) -> Result<Vec<Region>, NodeId> {
    let groups = groups(&graph.nodes);
    let mut out: Vec<(usize, Region)> = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let mut at = |key: usize| match out.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                out.push((key, Region::default()));
                out.len() - 1
            }
        };
        let own = at(groups[id]);
        if let (Op::Breaker(_), Some(edge)) = (&node.op, node.inputs.first()) {
            let fill = at(groups[edge.from]);
            if fill == own {
                return Err(id);
            }
            out[fill].1.nodes.push(id);
            out[fill].1.fills.push(id);
        }
        let region = &mut out[own].1;
        region.nodes.push(id);
        if matches!(node.op, Op::Build(_)) {
            region.fills.push(id);
        }
        if node.op.is_head() {
            region.sources.push(id);
        }
        let built = node.inputs.iter().filter(|edge| edge.port == Port::Built);
        region.uses.extend(built.map(|edge| edge.from));
    }
    // Each round takes the first region for which all is filled that it drains or probes.
    let mut left: Vec<Region> = out.into_iter().map(|(_, region)| region).collect();
    let mut filled: Vec<bool> = graph.nodes.iter().map(|node| !node.op.is_filled()).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready = |r: &Region| r.sources.iter().chain(&r.uses).all(|&id| filled[id]);
        let Some(at) = left.iter().position(ready) else {
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
