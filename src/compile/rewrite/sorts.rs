//! Sorts that nobody would miss are left out: the rows are in that order already, or come into another one behind it that does not hang
//! on this one.
//!
//! How: a sort that goes becomes a node that passes everything on; it still reads its keys, so that sources go on checking them.
//!
//! Laws
//! - Rows keep their numbers where somebody behind may tell them: a sort numbers rows anew.
//! - Regions run one after another, and so do the errors in them, and what ends the second one does not end the first: where a sort goes
//!   and two become one, nothing in the first may fail, or nothing in the second may fail or end.

use crate::compile::draft::Draft;
use crate::graph::regions::groups;
use crate::graph::{Edge, NodeId, Op, Port};
use standpipe_sdk::spec::{Lineage, Memory, Order, SortKey};

/// Leaves out the sorts that make no difference.
pub(super) fn leave_out(draft: &mut Draft) {
    for id in 0..draft.nodes.len() {
        let Some(keys) = draft.facts[id].told.sorts.clone() else {
            continue;
        };
        if !matches!(draft.nodes[id].op, Op::Breaker(_)) || draft.places_matter(id) {
            continue;
        }
        let why = if is_known(draft, id, &keys) {
            "the rows are in this order"
        } else if comes_to_nothing(draft, id, &keys) {
            "no order is needed here"
        } else {
            continue;
        };
        let node = &mut draft.nodes[id];
        node.op = Op::Pass;
        node.order = Order::Keeps;
        node.memory = Memory::Batch;
        node.detail = format!("{} (left out: {why})", node.detail);
        let facts = &mut draft.facts[id];
        facts.sorted_by.clear();
        facts.told.sorts = None;
        facts.told.limited = None;
        facts.places = false;
    }
}

/// Whether the rows come in sorted by `keys`, and errors stay what they are.
fn is_known(draft: &Draft, id: NodeId, keys: &[SortKey]) -> bool {
    let Some(edge) = draft.nodes[id].inputs.first() else {
        return false;
    };
    let schema = &draft.nodes[edge.from].schema;
    let order = order_of(draft, edge);
    let fits = |(key, known): (&SortKey, &(usize, bool))| {
        let has_nulls = schema.get(key.column).is_none_or(|field| field.nullable);
        (key.column, key.descending) == *known && !(key.nulls_first && has_nulls)
    };
    if keys.len() > order.len() || !keys.iter().zip(&order).all(fits) {
        return false;
    }
    let group = groups(&draft.nodes);
    let region = |of: NodeId| {
        (0..draft.nodes.len())
            .filter(|at| group[*at] == group[of])
            .collect::<Vec<_>>()
    };
    let fails = |at: NodeId| draft.facts[at].fails || matches!(draft.nodes[at].op, Op::Source { .. });
    let may_end = |at: NodeId| match draft.nodes[at].op {
        Op::RowWise(_) => draft.facts[at].told.keeps_by.is_none(),
        Op::Serial(_) | Op::Probe { .. } => true,
        _ => false,
    };
    let (first, second) = (region(edge.from), region(id));
    !first.into_iter().any(fails) || !second.into_iter().any(|at| fails(at) || may_end(at))
}

/// What the rows of an edge are sorted by, nulls last.
fn order_of(draft: &Draft, edge: &Edge) -> Vec<(usize, bool)> {
    let (node, facts) = (&draft.nodes[edge.from], &draft.facts[edge.from]);
    if !matches!(edge.port, Port::Out(_)) {
        return vec![];
    }
    if !facts.sorted_by.is_empty() {
        return facts.sorted_by.clone();
    }
    let Some(before) = node.inputs.first() else {
        return vec![];
    };
    let to: &dyn Fn(usize) -> Option<usize> = match &node.op {
        Op::Rearrange { picks } => &|column| picks.iter().position(|pick| *pick == column),
        Op::Compute { .. } => &Some,
        Op::Pass if node.inputs.len() == 1 => &Some,
        Op::RowWise(_) | Op::Serial(_) | Op::Probe { .. } if node.order == Order::Keeps => {
            &|column| facts.lineage.iter().position(|from| *from == Lineage::From(column))
        }
        _ => return vec![],
    };
    let order = order_of(draft, before).into_iter();
    order
        .map_while(|(column, descending)| Some((to(column)?, descending)))
        .collect()
}

/// Whether the order ends, with nobody having seen it, in a stage that asks for none, or in a sort that has all of `keys`.
fn comes_to_nothing(draft: &Draft, id: NodeId, keys: &[SortKey]) -> bool {
    let mut columns: Vec<Option<usize>> = keys.iter().map(|key| Some(key.column)).collect();
    let own = draft.nodes[id].schema.width();
    columns
        .iter_mut()
        .for_each(|column| *column = column.filter(|&at| at < own));
    let mut at = id;
    loop {
        let mut readers = (draft.nodes.iter().enumerate()).filter(|(_, node)| node.inputs.iter().any(|e| e.from == at));
        let (Some((next, node)), None) = (readers.next(), readers.next()) else {
            return false;
        };
        let [Edge { port: Port::Out(0), .. }] = node.inputs.as_slice() else {
            return false;
        };
        let facts = &draft.facts[next];
        let to: &dyn Fn(usize) -> Option<usize> = match &node.op {
            Op::Breaker(_) if facts.told.unordered => return true,
            Op::Breaker(_) => {
                let Some(others) = &facts.told.sorts else {
                    return false;
                };
                let is_key = |column: &Option<usize>| others.iter().any(|key| Some(key.column) == *column);
                return columns.iter().all(is_key);
            }
            _ if facts.fails || facts.reads_places => return false,
            Op::Rearrange { picks } => &|column| picks.iter().position(|pick| *pick == column),
            Op::Compute { .. } | Op::Pass => &Some,
            // Each row for itself.
            Op::RowWise(_) if facts.told.filters != standpipe_sdk::spec::Filters::Stay => {
                &|column| facts.lineage.iter().position(|from| *from == Lineage::From(column))
            }
            _ => return false,
        };
        columns.iter_mut().for_each(|column| *column = column.and_then(to));
        at = next;
    }
}
