//! Streams that are needed a second time, once something else is full, are read again from a replay.
//!
//! Three things cannot happen in one region: that a build or breaker is filled and used, that a `union` reads one source for two
//! of its inputs, and that a stage that gives rows only at the end of its region stands before an input of a `union` that another one
//! follows. All are mended by the same cut: some nodes that hang on nothing outside (what fills the build; what the
//! inputs share; the input) keep their region, and every edge from them into what has to wait becomes a replay: a build that keeps the rows,
//! and a source that gives them again.
//!
//! Bad rows go into their stream phase by phase, and a stage that may keep rows for the end of its region begins a phase: whether it does,
//! which depends on the memory there is, must not be seen in the order. So what is set aside before it and behind it is kept apart.
//!
//! Laws
//! - What is cut off is closed under "its input is": so a cut never makes a new wait for what is inside it.
//! - Only edges into what has to wait are cut; other consumers go on as they are.
//! - Rejects leave a cut by a reject node of their own; those of the earlier region come first.

use crate::compile::draft::{Draft, NewNode, out};
use crate::graph::regions::groups;
use crate::graph::{Edge, Node, NodeId, Op, Port};
use crate::stages::replay;
use standpipe_sdk::spec::Memory;
use std::collections::{BTreeMap, BTreeSet};

/// Inserts the replays that are needed.
///
/// # Errors
/// The node at which nothing helps.
pub(super) fn insert(draft: &mut Draft) -> Result<(), NodeId> {
    // Every cut settles one node for good; the numbers change with each.
    let most = draft.nodes.len() * 2;
    for _ in 0..=most {
        if let Some((shared, union)) = shared_by_union(draft) {
            cut(draft, &shared, Users::Inputs(union));
            continue;
        }
        if let Some((own, union)) = held_before_more(draft) {
            if !cut(draft, &own, Users::Inputs(union)) {
                return Err(union);
            }
            continue;
        }
        if let Some((rejects, phases)) = rejects_of_phases(draft) {
            split_phases(draft, rejects, phases);
            continue;
        }
        let Some(waits) = waits_for_itself(draft) else {
            return Ok(());
        };
        let mended = waits.iter().any(|&id| {
            let mut inside = ancestors(draft, id);
            // A breaker itself belongs to the region behind it.
            if matches!(draft.nodes[id].op, Op::Build(_)) {
                inside.insert(id);
            }
            cut(draft, &inside, Users::Of(id))
        });
        if !mended {
            return Err(waits.first().copied().unwrap_or(0));
        }
    }
    Err(0)
}

/// Whether some cut is needed.
pub(super) fn is_needed(draft: &Draft) -> bool {
    shared_by_union(draft).is_some()
        || held_before_more(draft).is_some()
        || rejects_of_phases(draft).is_some()
        || waits_for_itself(draft).is_some()
}

/// Who has to wait for a cut.
#[derive(Clone, Copy)]
enum Users {
    /// Whoever drains or probes what this node holds.
    Of(NodeId),
    /// This `union`, each of whose inputs is read by itself.
    Inputs(NodeId),
}

/// The nodes in the same region that the rows of `id` come from, without itself.
fn ancestors(draft: &Draft, id: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut open: Vec<NodeId> = match draft.nodes[id].op {
        // Its input belongs to the region that it ends.
        Op::Breaker(_) => draft.nodes[id].inputs.iter().map(|edge| edge.from).collect(),
        _ => draft.nodes[id].connected().map(|edge| edge.from).collect(),
    };
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(draft.nodes[id].connected().map(|edge| edge.from));
        }
    }
    found
}

fn is_union(draft: &Draft, id: NodeId) -> bool {
    matches!(draft.nodes[id].op, Op::Pass) && draft.nodes[id].inputs.len() > 1
}

/// What two inputs of a `union` share, and the `union`.
fn shared_by_union(draft: &Draft) -> Option<(BTreeSet<NodeId>, NodeId)> {
    for id in (0..draft.nodes.len()).filter(|&id| is_union(draft, id)) {
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        for edge in &draft.nodes[id].inputs {
            let mut own = ancestors(draft, edge.from);
            own.insert(edge.from);
            let shared: BTreeSet<NodeId> = own.intersection(&seen).copied().collect();
            if !shared.is_empty() {
                return Some((shared, id));
            }
            seen.extend(own);
        }
    }
    None
}

/// An input of a `union` that has rows left when the next one's turn comes, with all it hangs on, and the `union`.
fn held_before_more(draft: &Draft) -> Option<(BTreeSet<NodeId>, NodeId)> {
    for id in (0..draft.nodes.len()).filter(|&id| is_union(draft, id)) {
        let inputs = &draft.nodes[id].inputs;
        for edge in &inputs[..inputs.len() - 1] {
            let mut own = ancestors(draft, edge.from);
            own.insert(edge.from);
            if own.iter().any(|&id| draft.nodes[id].holds_back) {
                return Some((own, id));
            }
        }
    }
    None
}

/// A reject node that is fed in several phases of one region, and its inputs phase by phase.
fn rejects_of_phases(draft: &Draft) -> Option<(NodeId, Vec<Vec<Edge>>)> {
    for (id, node) in draft.nodes.iter().enumerate() {
        if !matches!(node.op, Op::Rejects) {
            continue;
        }
        // Ordered by how many stages begin a phase before it, then by the script.
        let mut phases: BTreeMap<(usize, Vec<NodeId>), Vec<Edge>> = BTreeMap::new();
        for &edge in &node.inputs {
            let mut before: Vec<NodeId> = ancestors(draft, edge.from).into_iter().collect();
            let may_hold_back = |&id: &NodeId| {
                let node = &draft.nodes[id];
                node.holds_back && node.memory == Memory::Spill && !draft.facts[id].told.to_the_end
            };
            before.retain(may_hold_back);
            phases.entry((before.len(), before)).or_default().push(edge);
        }
        if phases.len() > 1 {
            return Some((id, phases.into_values().collect()));
        }
    }
    None
}

/// Puts a reject node of its own and a replay before each phase's part of what was reject node `id`.
fn split_phases(draft: &mut Draft, id: NodeId, phases: Vec<Vec<Edge>>) {
    let count = draft.nodes.len();
    let (mut new, mut drained) = (vec![], vec![]);
    for inputs in phases {
        let node = &draft.nodes[id];
        let detail = node.detail.clone();
        let mut node = NewNode::new(node.name.clone(), node.span, inputs, node.schema.clone(), Op::Rejects);
        node.detail = detail;
        node.facts.places = true;
        let phase = draft.push(node);
        new.push(phase);
        let built = kept(draft, out(phase), &mut new);
        drained.push(again(draft, built, phase, &mut new));
    }
    let all = &mut draft.nodes[id];
    (all.op, all.inputs) = (Op::Pass, drained);
    draft.facts[id].places = false;
    let order: Vec<NodeId> = (0..id).chain(new).chain(id..count).collect();
    draft.reorder(&order);
}

/// What each filled node is filled in and used in: (node, region that fills it, region that uses it).
fn waits(draft: &Draft, group: &[usize]) -> Vec<(NodeId, usize, usize)> {
    let mut waits = vec![];
    for (id, node) in draft.nodes.iter().enumerate() {
        if let (Op::Breaker(_), Some(edge)) = (&node.op, node.inputs.first()) {
            waits.push((id, group[edge.from], group[id]));
        }
        for edge in node.inputs.iter().filter(|edge| edge.port == Port::Built) {
            waits.push((edge.from, group[edge.from], group[id]));
        }
    }
    waits
}

/// The breakers and builds of which one waits for itself, if there is such a one.
fn waits_for_itself(draft: &Draft) -> Option<Vec<NodeId>> {
    let group = groups(&draft.nodes);
    let waits = waits(draft, &group);
    let mut left: BTreeSet<usize> = group.iter().copied().collect();
    loop {
        let ready: Vec<usize> = (left.iter().copied())
            .filter(|group| !waits.iter().any(|(_, fill, used)| used == group && left.contains(fill)))
            .collect();
        if ready.is_empty() {
            break;
        }
        for group in ready {
            left.remove(&group);
        }
    }
    let mut stuck: Vec<NodeId> = (waits.iter())
        .filter(|(_, fill, used)| left.contains(fill) && left.contains(used))
        .map(|(id, ..)| *id)
        .collect();
    stuck.dedup();
    (!stuck.is_empty()).then_some(stuck)
}

/// The regions that come to be if no edge leaves `inside`, and which of them have to wait for it.
fn waiting(draft: &Draft, inside: &BTreeSet<NodeId>, users: Users) -> (Vec<usize>, BTreeSet<usize>) {
    let mut group: Vec<usize> = (0..draft.nodes.len()).collect();
    fn root(group: &[usize], mut id: usize) -> usize {
        while group[id] != id {
            id = group[id];
        }
        id
    }
    for (id, node) in draft.nodes.iter().enumerate() {
        for edge in node
            .connected()
            .filter(|edge| inside.contains(&edge.from) == inside.contains(&id))
        {
            let (a, b) = (root(&group, edge.from), root(&group, id));
            group[a.max(b)] = a.min(b);
        }
    }
    let group: Vec<usize> = (0..group.len()).map(|id| root(&group, id)).collect();
    let waits = waits(draft, &group);
    let mut waiting: BTreeSet<usize> = match users {
        Users::Of(id) => waits.iter().filter(|w| w.0 == id).map(|w| w.2).collect(),
        Users::Inputs(union) => BTreeSet::from([group[union]]),
    };
    loop {
        let more: Vec<usize> = (waits.iter())
            .filter(|(_, fill, used)| waiting.contains(fill) && !waiting.contains(used))
            .map(|(.., used)| *used)
            .collect();
        if more.is_empty() {
            return (group, waiting);
        }
        waiting.extend(more);
    }
}

/// Cuts the edges from `inside` into what has to wait; whether there were any.
fn cut(draft: &mut Draft, inside: &BTreeSet<NodeId>, users: Users) -> bool {
    let mut inside = inside.clone();
    // Reject nodes that only what is inside feeds belong to it.
    loop {
        let more: Vec<NodeId> = (draft.nodes.iter().enumerate())
            .filter(|(id, node)| {
                let fed = node.inputs.iter().all(|edge| inside.contains(&edge.from));
                matches!(node.op, Op::Rejects) && !inside.contains(id) && fed
            })
            .map(|(id, _)| id)
            .collect();
        if more.is_empty() {
            break;
        }
        inside.extend(more);
    }
    let (group, waiting) = waiting(draft, &inside, users);
    // New nodes stand in front of an old one or behind it.
    let count = draft.nodes.len();
    let mut before: Vec<Vec<NodeId>> = vec![vec![]; count];
    let mut behind: Vec<Vec<NodeId>> = vec![vec![]; count];
    let mut drains: BTreeMap<(NodeId, usize, usize), Edge> = BTreeMap::new();
    let mut builds: BTreeMap<(NodeId, usize), Edge> = BTreeMap::new();
    let mut any = false;
    for (id, group) in group.iter().enumerate() {
        // A breaker's input stays in the region that fills it.
        let filled = matches!(draft.nodes[id].op, Op::Breaker(_));
        if filled || inside.contains(&id) || !waiting.contains(group) {
            continue;
        }
        if matches!(draft.nodes[id].op, Op::Rejects) {
            any |= split_rejects(draft, id, &inside, &mut before, &mut behind);
            continue;
        }
        let is_user = matches!(users, Users::Inputs(union) if union == id);
        for at in 0..draft.nodes[id].inputs.len() {
            let edge = draft.nodes[id].inputs[at];
            let Port::Out(port) = edge.port else { continue };
            if !inside.contains(&edge.from) {
                continue;
            }
            any = true;
            let reader = match users {
                Users::Of(_) => 0,
                Users::Inputs(_) if is_user => at,
                Users::Inputs(union) => input_of(draft, union, id),
            };
            let drained = match drains.get(&(edge.from, port, reader)) {
                Some(&drained) => drained,
                None => {
                    let built = match builds.get(&(edge.from, port)) {
                        Some(&built) => built,
                        None => kept(draft, edge, &mut behind[edge.from]),
                    };
                    builds.insert((edge.from, port), built);
                    let drained = again(draft, built, edge.from, &mut behind[edge.from]);
                    drains.insert((edge.from, port, reader), drained);
                    drained
                }
            };
            draft.nodes[id].inputs[at] = drained;
        }
    }
    let mut order = Vec::with_capacity(draft.nodes.len());
    for id in 0..count {
        order.append(&mut before[id]);
        order.push(id);
        order.append(&mut behind[id]);
    }
    draft.reorder(&order);
    any
}

/// Which input of a `union` a node leads to.
fn input_of(draft: &Draft, union: NodeId, id: NodeId) -> usize {
    let inputs = &draft.nodes[union].inputs;
    let leads = |edge: &Edge| edge.from == id || ancestors(draft, edge.from).contains(&id);
    inputs.iter().position(leads).unwrap_or(usize::MAX)
}

/// The replay that keeps the rows of `edge`; new nodes are added to `behind`.
pub(super) fn kept(draft: &mut Draft, edge: Edge, behind: &mut Vec<NodeId>) -> Edge {
    let from = &draft.nodes[edge.from];
    let is_replay = matches!(from.op, Op::Drain) && draft.facts[edge.from].lineage.is_empty();
    if let (true, Some(built)) = (is_replay, from.inputs.first()) {
        return *built;
    }
    // An earlier cut may have put one there: a build that nobody but a replay drains.
    let is_drained = |id: NodeId| {
        let drains = |(at, node): (NodeId, &Node)| {
            matches!(node.op, Op::Drain) && draft.facts[at].lineage.is_empty() && node.inputs[0].from == id
        };
        draft.nodes.iter().enumerate().any(drains)
    };
    let keeps = |id: &NodeId| {
        let node = &draft.nodes[*id];
        matches!(node.op, Op::Build(_)) && node.inputs == [edge] && is_drained(*id)
    };
    if let Some(build) = (0..draft.nodes.len()).find(keeps) {
        return Edge {
            from: build,
            port: Port::Built,
        };
    }
    let (span, schema, name) = (from.span, from.schema.clone(), from.name.clone());
    let op = Op::Build(Box::new(replay::make));
    let mut node = NewNode::new("replay", span, vec![edge], schema, op);
    node.detail = format!("keeps the rows of `{name}`");
    node.memory = replay::MEMORY;
    node.least = replay::keeps;
    let build = draft.push(node);
    behind.push(build);
    Edge {
        from: build,
        port: Port::Built,
    }
}

/// What a replay keeps of node `of`, once more.
pub(super) fn again(draft: &mut Draft, built: Edge, of: NodeId, behind: &mut Vec<NodeId>) -> Edge {
    let of = &draft.nodes[of];
    let (span, schema, name) = (of.span, of.schema.clone(), of.name.clone());
    let mut node = NewNode::new("replay", span, vec![built], schema, Op::Drain);
    node.detail = match name.as_str() {
        "replay" => of.detail.clone(),
        name => format!("the rows of `{name}` again"),
    };
    node.least = replay::gives;
    let drain = draft.push(node);
    behind.push(drain);
    out(drain)
}

/// What `inside` sets aside goes through a reject node of its own, ahead of the rest; whether there was anything.
fn split_rejects(
    draft: &mut Draft,
    id: NodeId,
    inside: &BTreeSet<NodeId>,
    before: &mut [Vec<NodeId>],
    behind: &mut [Vec<NodeId>],
) -> bool {
    let inputs = std::mem::take(&mut draft.nodes[id].inputs);
    let (early, late): (Vec<Edge>, Vec<Edge>) = inputs.iter().partition(|edge| inside.contains(&edge.from));
    draft.nodes[id].inputs = late;
    if early.is_empty() {
        return false;
    }
    let (span, schema) = (draft.nodes[id].span, draft.nodes[id].schema.clone());
    let (name, detail, stream) = {
        let node = &mut draft.nodes[id];
        (node.name.clone(), node.detail.clone(), node.stream.take())
    };
    let mut node = NewNode::new(name.clone(), span, early, schema.clone(), Op::Rejects);
    node.detail.clone_from(&detail);
    node.facts.places = true;
    let early = draft.push(node);
    let mut new = vec![early];
    let built = kept(draft, out(early), &mut new);
    let drained = again(draft, built, early, &mut new);
    before[id].append(&mut new);
    let mut node = NewNode::new(name, span, vec![drained, out(id)], schema, Op::Pass);
    node.detail = detail;
    let both = draft.push(node);
    draft.nodes[both].stream = stream;
    for (_, node) in draft.nodes.iter_mut().enumerate().filter(|(at, _)| *at != both) {
        for edge in node.inputs.iter_mut().filter(|edge| edge.from == id) {
            edge.from = both;
        }
    }
    behind[id].push(both);
    true
}
