//! Columns that only stages further up have read are dropped before anything keeps rows: a condition's column is not sorted along.
//!
//! Laws
//! - Only what keeps or multiplies rows gets a node before it: elsewhere a column costs nothing.
//! - A dropped column stays where it is, `Absent`.

use crate::compile::draft::{Draft, NewNode, out};
use crate::graph::{NodeId, Op, Port};
use standpipe_sdk::spec::{Lineage, Memory, Wanted};

/// Adds the nodes that drop what is there and not needed; `needs` is what each node needs of its first input.
pub(super) fn drop(draft: &mut Draft, needs: &[Vec<Wanted>]) {
    let count = draft.nodes.len();
    let there = there(draft);
    let mut before: Vec<Vec<NodeId>> = vec![vec![]; count];
    for id in 0..count {
        let keeps_rows = match &draft.nodes[id].op {
            Op::Breaker(_) | Op::Build(_) | Op::Probe { .. } => true,
            // Of groups it is keys that are kept.
            Op::Serial(_) => matches!(draft.nodes[id].memory, Memory::Frame | Memory::Spill | Memory::Held),
            _ => false,
        };
        let Some(edge) = draft.nodes[id].inputs.first().copied().filter(|_| keeps_rows) else {
            continue;
        };
        let from = &draft.nodes[edge.from];
        let unread: Vec<bool> = (there[edge.from].iter().zip(&needs[id]))
            .map(|(there, need)| *there && *need == Wanted::No)
            .collect();
        if !matches!(edge.port, Port::Out(_)) || !unread.contains(&true) || unread.len() != from.schema.width() {
            continue;
        }
        let names = from.schema.fields().iter().zip(&unread);
        let names: Vec<&str> = names.filter(|(_, unread)| **unread).map(|(f, _)| &*f.name).collect();
        let detail = names.join(", ");
        let op = Op::Compute {
            exprs: vec![],
            keep: unread.iter().map(|unread| !unread).collect(),
        };
        let (name, span, schema) = (draft.nodes[id].name.clone(), draft.nodes[id].span, from.schema.clone());
        let mut node = NewNode::new(name, span, vec![edge], schema, op);
        node.detail = detail;
        let new = draft.push(node);
        before[id].push(new);
        draft.nodes[id].inputs[0] = out(new);
    }
    let mut order = Vec::with_capacity(draft.nodes.len());
    for (id, new) in before.into_iter().enumerate() {
        order.extend(new);
        order.push(id);
    }
    draft.reorder(&order);
}

/// Which columns of its output each node gives values to.
fn there(draft: &Draft) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(draft.nodes.len());
    for (id, node) in draft.nodes.iter().enumerate() {
        let width = node.schema.width();
        let input = node.inputs.first().map_or(&[][..], |edge| &all[edge.from][..]);
        let built = node.inputs.iter().find(|edge| edge.port == Port::Built);
        let beside = built.map_or(&[][..], |edge| &all[edge.from][..]);
        let at = |list: &[bool], column: usize| list.get(column).copied().unwrap_or(true);
        let of = |lineage: &Lineage| match *lineage {
            Lineage::From(column) => at(input, column),
            Lineage::Beside(column) => at(beside, column),
            Lineage::BesideAll | Lineage::New => true,
        };
        let mut there: Vec<bool> = match &node.op {
            Op::Source { request, .. } => request.columns.iter().map(|need| *need != Wanted::No).collect(),
            Op::Compute { exprs, keep } => (keep.iter().enumerate())
                .map(|(column, keep)| *keep && at(input, column))
                .chain(exprs.iter().map(|_| true))
                .collect(),
            Op::Rearrange { picks } => picks.iter().map(|&pick| at(input, pick)).collect(),
            Op::Pass if node.inputs.len() > 1 => vec![true; width],
            Op::Pass | Op::Route { .. } | Op::Build(_) => input.to_vec(),
            // A drain's rows come of the build alone.
            Op::Drain if draft.facts[id].lineage.is_empty() => beside.to_vec(),
            Op::Drain | Op::Rejects | Op::Sink(_) => vec![true; width],
            Op::RowWise(_) | Op::Serial(_) | Op::Breaker(_) | Op::Probe { .. } => {
                draft.facts[id].lineage.iter().map(of).collect()
            }
        };
        there.resize(width, true);
        all.push(there);
    }
    all
}
