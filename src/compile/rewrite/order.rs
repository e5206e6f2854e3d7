//! The order of the nodes: what a `union` reads first has the lower number, for sources are read by number.
//!
//! How: a topological sort with further edges, from the heads of one input of a `union` to those of the next; the head of a
//! path is the source, or the breaker, that its rows come out of. Ties keep the order of the script.

use super::replay;
use crate::compile::draft::Draft;
use crate::graph::{NodeId, Op, Port};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Why a graph cannot run yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::compile) enum Obstacle {
    /// Two `union`s want the same sources in different orders; one of them.
    UnionOrder(NodeId),
    /// What is filled and used in one region, and no replay helps.
    MeetsItself(NodeId),
}

/// Numbers the nodes so that every source stands where it is read.
pub(in crate::compile) fn sort(draft: &mut Draft) -> Result<(), Obstacle> {
    replay::insert(draft).map_err(Obstacle::MeetsItself)?;
    let count = draft.nodes.len();
    let heads = heads(draft);
    let mut before: Vec<BTreeSet<NodeId>> = draft
        .nodes
        .iter()
        .map(|node| node.inputs.iter().map(|edge| edge.from).collect())
        .collect();
    let unions: Vec<NodeId> = (0..count)
        .filter(|&id| matches!(draft.nodes[id].op, Op::Pass) && draft.nodes[id].inputs.len() > 1)
        .collect();
    for &id in &unions {
        for pair in draft.nodes[id].inputs.windows(2) {
            for &later in &heads[pair[1].from] {
                before[later].extend(&heads[pair[0].from]);
            }
        }
    }
    let mut behind: Vec<Vec<NodeId>> = vec![vec![]; count];
    let mut open: Vec<usize> = vec![0; count];
    for (id, needs) in before.iter().enumerate() {
        open[id] = needs.len();
        for &need in needs {
            behind[need].push(id);
        }
    }
    let mut ready: BinaryHeap<Reverse<NodeId>> = (0..count).filter(|&id| open[id] == 0).map(Reverse).collect();
    let mut order: Vec<NodeId> = Vec::with_capacity(count);
    while let Some(Reverse(id)) = ready.pop() {
        order.push(id);
        for &next in &behind[id] {
            open[next] -= 1;
            if open[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    if order.len() < count {
        return Err(Obstacle::UnionOrder(unions.last().copied().unwrap_or(0)));
    }
    draft.reorder(&order);
    Ok(())
}

/// For each node the sources and breakers that its rows come out of, without another breaker between.
fn heads(draft: &Draft) -> Vec<BTreeSet<NodeId>> {
    let mut heads: Vec<Option<BTreeSet<NodeId>>> = vec![None; draft.nodes.len()];
    let mut open: Vec<NodeId> = (0..draft.nodes.len()).rev().collect();
    // Nodes need not stand behind what they need yet.
    while let Some(&id) = open.last() {
        let node = &draft.nodes[id];
        let own = match node.op {
            Op::Source { .. } | Op::Breaker(_) | Op::Drain => Some(BTreeSet::from([id])),
            _ => {
                let inputs = || node.inputs.iter().filter(|edge| edge.port != Port::Built);
                open.extend(inputs().map(|edge| edge.from).filter(|&from| heads[from].is_none()));
                let all: Option<Vec<_>> = inputs().map(|edge| heads[edge.from].as_ref()).collect();
                all.map(|all| all.into_iter().flatten().copied().collect())
            }
        };
        if own.is_some() {
            heads[id] = own;
            open.pop();
        }
    }
    heads.into_iter().map(Option::unwrap_or_default).collect()
}

impl Draft {
    /// Puts the nodes into this order, which must be topological.
    pub(super) fn reorder(&mut self, order: &[NodeId]) {
        let mut number = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            number[old] = new;
        }
        self.nodes = in_order(std::mem::take(&mut self.nodes), order);
        self.facts = in_order(std::mem::take(&mut self.facts), order);
        for edge in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            edge.from = number[edge.from];
        }
    }
}

fn in_order<T>(items: Vec<T>, order: &[NodeId]) -> Vec<T> {
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    order.iter().filter_map(|&old| items[old].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{NewNode, out};
    use crate::compile::pipelines::source_op;
    use standpipe_sdk::{Error, Schema, Span};

    fn draft() -> Draft {
        let mut draft = Draft::default();
        for name in ["a", "b"] {
            let op = source_op(Box::new(|_, _| Err(Error::Cancelled)), &Schema::default());
            draft.push(NewNode::new(name, Span::default(), vec![], Schema::default(), op));
        }
        draft
    }

    fn add(draft: &mut Draft, name: &str, inputs: &[NodeId], op: Op) -> NodeId {
        let inputs = inputs.iter().copied().map(out).collect();
        draft.push(NewNode::new(name, Span::default(), inputs, Schema::default(), op))
    }

    fn names(draft: &Draft) -> Vec<&str> {
        draft.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn what_a_union_reads_first_comes_first() {
        let mut draft = draft();
        let x = add(&mut draft, "x", &[0], Op::Pass);
        let y = add(&mut draft, "y", &[1], Op::Pass);
        add(&mut draft, "union", &[y, x], Op::Pass);
        assert_eq!(sort(&mut draft), Ok(()));
        assert_eq!(names(&draft), ["b", "a", "x", "y", "union"]);
        assert_eq!(draft.nodes[4].inputs, [out(3), out(2)]);
    }

    #[test]
    fn two_unions_in_two_orders_cannot_both_be_right() {
        let mut draft = draft();
        add(&mut draft, "union", &[0, 1], Op::Pass);
        add(&mut draft, "union", &[1, 0], Op::Pass);
        assert!(matches!(sort(&mut draft), Err(Obstacle::UnionOrder(_))));
    }

    #[test]
    fn what_a_breaker_waits_for_is_replayed() {
        let mut draft = draft();
        let breaker = || Op::Breaker(Box::new(|_| Err(Error::Cancelled)));
        let sorted = add(&mut draft, "sort", &[0], breaker());
        add(&mut draft, "end", &[sorted], Op::Pass);
        assert_eq!(sort(&mut draft), Ok(()));
        assert_eq!(names(&draft), ["a", "b", "sort", "end"]);
        let sorted = draft.nodes.iter().position(|node| node.name == "sort").unwrap();
        add(&mut draft, "union", &[sorted, 0], Op::Pass);
        assert_eq!(sort(&mut draft), Ok(()));
        assert_eq!(names(&draft), ["a", "replay", "b", "sort", "replay", "end", "union"]);
        let group = crate::graph::regions::groups(&draft.nodes);
        assert_eq!(group[0], group[1]);
        assert_ne!(group[0], group[6]);
    }

    #[test]
    fn a_union_of_a_stream_with_itself_reads_it_once() {
        let mut draft = draft();
        add(&mut draft, "union", &[0, 0], Op::Pass);
        assert_eq!(sort(&mut draft), Ok(()));
        let union = draft.nodes.iter().position(|node| node.name == "union").unwrap();
        let inputs: Vec<NodeId> = draft.nodes[union].inputs.iter().map(|edge| edge.from).collect();
        let builds: Vec<NodeId> = inputs.iter().map(|&drain| draft.nodes[drain].inputs[0].from).collect();
        assert!(inputs[0] < inputs[1] && builds[0] == builds[1]);
        assert_eq!(draft.nodes[builds[0]].inputs, [out(0)]);
    }
}
