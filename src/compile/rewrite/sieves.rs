//! Of the right side of a join only those rows are kept that some left key wants, where the left side is small: `small | join big on id`.
//!
//! How: left order stays, so the right side is still the one that is gathered; but the left side is read first. Its rows are kept and come
//! again (a replay), its keys fill a sieve, and what is gathered is what that lets through of the right side.
//!
//! What is known of sizes are those of files, as they are on disk: a side is as large as all the files above it, and a table that stands in
//! the script counts as its text. Filters make a side smaller by who knows how much; that counts for nothing. What may make it larger (on
//! the left) or as good as nothing (on the right) leaves the size unknown, and then all stays as it is: a wrong guess costs time, nothing else.
//!
//! Laws
//! - Sizes of files decide, never memory or workers; and they decide nothing but how long it takes, and which of two errors in two files
//!   ends a run: the left one's, as that is read first.
//! - The left side would have been read to its end anyhow.
//! - Left rows that come again are numbered anew: nobody behind may tell their places, nor hang on them.
//! - It takes one cut and no other: where more would have to wait, or be set aside in another order, all stays as it is.

use super::replay;
use crate::compile::draft::{Draft, NewNode, Sieving, out};
use crate::expr::Expr;
use crate::graph::{Edge, NodeId, Op, Port};
use standpipe_sdk::spec::{Filters, Lineage};
use std::collections::BTreeSet;

/// A left side is small if the right one is so many times larger: it is copied, and comes again only after the right side was read.
const TIMES: u64 = 8;
/// A smaller right side is gathered about as fast as it is sifted, and fits into memory.
const LEAST_RIGHT_BYTES: u64 = 16 << 20;
/// Of more keys than such a left side has a sieve would know too little, and its rows are written to disk and read again.
const MOST_LEFT_BYTES: u64 = 256 << 20;

/// Whether a right side is so large beside a left one that it is sifted.
fn is_worth_it(left_bytes: u64, right_bytes: u64) -> bool {
    right_bytes >= LEAST_RIGHT_BYTES && left_bytes <= MOST_LEFT_BYTES.min(right_bytes / TIMES)
}

/// Puts a sieve before every right side for which it is worth it; before all for which one can stand if `any_size`.
pub(super) fn insert(draft: &mut Draft, any_size: bool) {
    while let Some((id, sieving)) = next(draft) {
        if let Some(join) = Join::at(draft, id, any_size) {
            put_before(draft, &join, sieving);
        }
    }
}

/// A node whose second stream may be sifted; it is asked about once.
fn next(draft: &mut Draft) -> Option<(NodeId, Sieving)> {
    let all = draft.facts.iter_mut().enumerate();
    all.filter_map(|(id, facts)| Some((id, facts.told.sieve.take()?)))
        .next()
}

/// A join whose right side is much larger than its left one.
struct Join {
    probe: NodeId,
    build: NodeId,
    left: Edge,
    right: Edge,
    left_bytes: u64,
    right_bytes: u64,
}

impl Join {
    fn at(draft: &Draft, probe: NodeId, any_size: bool) -> Option<Join> {
        let &[left, built] = draft.nodes[probe].inputs.as_slice() else {
            return None;
        };
        let build = built.from;
        let &[right] = draft.nodes[build].inputs.as_slice() else {
            return None;
        };
        let is_plain = built.port == Port::Built && [left, right].iter().all(|edge| matches!(edge.port, Port::Out(_)));
        // What is left of a gathered side may come out too, or it is somebody else's as well.
        if !is_plain || draft.consumers()[build] != 1 {
            return None;
        }
        let (left_above, right_above) = (above(draft, left.from), above(draft, right.from));
        let left_bytes = bytes(draft, &left_above, may_multiply)?;
        let right_bytes = bytes(draft, &right_above, may_leave_little)?;
        let possible = left_above.is_disjoint(&right_above) && !tells_places(draft, probe) && is_read_up(draft, probe);
        (possible && (any_size || is_worth_it(left_bytes, right_bytes))).then_some(Join {
            probe,
            build,
            left,
            right,
            left_bytes,
            right_bytes,
        })
    }
}

/// All that a node's rows come from, through breakers and builds too, and the node itself.
fn above(draft: &Draft, id: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::from([id]);
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let before = draft.nodes[id].inputs.iter().map(|edge| edge.from);
        open.extend(before.filter(|&from| found.insert(from)));
    }
    found
}

/// The sizes of the files among some nodes, if nothing in between makes them say nothing.
fn bytes(draft: &Draft, nodes: &BTreeSet<NodeId>, blurs: fn(&Draft, NodeId) -> bool) -> Option<u64> {
    let mut bytes = 0_u64;
    for &id in nodes {
        if matches!(draft.nodes[id].op, Op::Source { .. }) {
            bytes = bytes.saturating_add(draft.facts[id].file_bytes?);
        } else if blurs(draft, id) {
            return None;
        }
    }
    Some(bytes)
}

/// Whether a node may give several rows for one.
fn may_multiply(draft: &Draft, id: NodeId) -> bool {
    let told = &draft.facts[id].told;
    match draft.nodes[id].op {
        Op::RowWise(_) => told.keeps_by.is_none(),
        // Pairs of all with all. By keys the rows of both sides are counted; more come of keys that are twice on both.
        Op::Probe { .. } => told.meets.keys.is_empty() && !draft.facts[id].lineage.iter().all(is_own),
        _ => false,
    }
}

fn is_own(lineage: &Lineage) -> bool {
    matches!(lineage, Lineage::From(_))
}

/// Whether the rows of a node may be few, however many it takes.
fn may_leave_little(draft: &Draft, id: NodeId) -> bool {
    let told = &draft.facts[id].told;
    match draft.nodes[id].op {
        Op::Breaker(_) => told.sorts.is_none(),
        _ => told.first.is_some(),
    }
}

/// Whether somebody tells the places of the rows that a node takes, or something hangs on them.
fn tells_places(draft: &Draft, id: NodeId) -> bool {
    let facts = &draft.facts[id];
    let in_values = |id: NodeId| match &draft.nodes[id].op {
        Op::Compute { exprs, .. } => exprs.iter().any(Expr::reads_places),
        Op::Probe { pairs: Some(pairs) } => pairs.condition.reads_places(),
        _ => false,
    };
    facts.places
        || facts.fails
        || facts.reads_places
        || draft.places_matter(id)
        || in_values(id)
        || draft.behind(id).into_iter().any(in_values)
}

/// Whether somebody gets all rows of a node, however many those are.
fn is_read_up(draft: &Draft, id: NodeId) -> bool {
    let mut gets_all = vec![false; draft.nodes.len()];
    gets_all[id] = true;
    for (at, node) in draft.nodes.iter().enumerate().skip(id + 1) {
        let mut outs = node.inputs.iter().filter(|edge| matches!(edge.port, Port::Out(_)));
        if !outs.any(|edge| gets_all[edge.from]) {
            continue;
        }
        gets_all[at] = match node.op {
            Op::Breaker(_) | Op::Build(_) | Op::Sink(_) => return true,
            // Each row for itself, or all of them: it does not end by itself.
            Op::RowWise(_) | Op::Serial(_) => draft.facts[at].told.filters == Filters::Pass,
            _ => true,
        };
    }
    false
}

/// Puts the sieve before the right side, if that takes no more than this.
fn put_before(draft: &mut Draft, join: &Join, Sieving(sieve): Sieving) {
    let count = draft.nodes.len();
    let (span, name) = (draft.nodes[join.probe].span, draft.nodes[join.probe].name.clone());
    let [of_left, of_right] = sieve.reads;

    let mut new = vec![];
    let kept = replay::kept(draft, join.left, &mut new);
    let left_again = replay::again(draft, kept, join.left.from, &mut new);

    let schema = draft.nodes[join.left.from].schema.clone();
    let op = Op::Build((sieve.make)(join.left_bytes));
    let mut node = NewNode::new(name.clone(), span, vec![join.left], schema, op);
    node.detail = "gathers the keys of the left side".to_owned();
    node.memory = sieve.memory;
    node.least = sieve.least;
    node.facts.reads = of_left;
    let keys = Edge {
        from: draft.push(node),
        port: Port::Built,
    };

    let schema = draft.nodes[join.right.from].schema.clone();
    let width = schema.width();
    let op = Op::Probe { pairs: None };
    let mut node = NewNode::new(name, span, vec![join.right, keys], schema, op);
    let times = join.right_bytes / join.left_bytes.max(1);
    node.detail = format!("(leaves right rows out that no left key wants: left files are {times} times smaller)");
    node.memory = sieve.memory;
    node.least = sieve.least;
    node.facts.reads = of_right;
    node.facts.lineage = (0..width).map(Lineage::From).collect();
    let wanted = out(draft.push(node));

    draft.nodes[join.build].inputs[0] = wanted;
    draft.nodes[join.probe].inputs[0] = left_again;
    if replay::is_needed(draft) || super::order::sort(draft).is_err() {
        draft.nodes[join.build].inputs[0] = join.right;
        draft.nodes[join.probe].inputs[0] = join.left;
        draft.nodes.truncate(count);
        draft.facts.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_side_is_sifted_if_it_is_large_and_the_left_one_small() {
        const MIB: u64 = 1 << 20;
        for (left, right, wanted) in [
            (0, 0, false),
            (1, 16 * MIB - 1, false),
            (0, 16 * MIB, true),
            (2 * MIB, 16 * MIB, true),
            (2 * MIB + 1, 16 * MIB, false),
            (256 * MIB, 1 << 40, true),
            (256 * MIB + 1, 1 << 40, false),
        ] {
            assert_eq!(is_worth_it(left, right), wanted, "{left} beside {right}");
        }
    }
}
