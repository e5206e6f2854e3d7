//! Conditions move toward the sources: what a filter drops is not sorted, grouped, joined or kept before.
//!
//! How: each condition that must hold looks for its way alone. It passes what takes each row for itself or treats rows by the very keys
//! it is about, goes into every stream of a `union`, and into the side of a join that it reads, on a common key into both. Where it
//! has passed something that is worth it, it becomes a filter there; what is left stays where it was.
//!
//! Laws
//! - A condition that may fail, or hangs on places, stays where it is; so does one behind anything that may fail.
//! - Rows keep their numbers where somebody behind may tell them.
//! - Only what nobody else reads is passed.
//!
//! What will bite: key columns decide groups by equality, and -0.0 equals 0.0. What treats groups alike may still see rows of one
//! group that a condition tells apart, so keys with floats let no condition pass.

use crate::compile::draft::{Draft, NewNode, out};
use crate::expr::{Expr, Instead};
use crate::graph::{Edge, NodeId, Op, Port};
use standpipe_sdk::spec::{Filters, KeepsBy, Lineage};
use standpipe_sdk::{Field, Schema, Type};
use std::collections::BTreeMap;

/// Moves every filter as far as it goes.
pub(super) fn move_ahead(draft: &mut Draft) {
    let is_filter = |draft: &Draft, id: &NodeId| draft.facts[*id].told.keeps_by.is_some();
    let mut left: Vec<NodeId> = (0..draft.nodes.len()).filter(|id| is_filter(draft, id)).collect();
    left.reverse();
    while let Some(id) = left.pop() {
        let Some(filter) = Filter::at(draft, id) else { continue };
        let Some(moves) = moves(draft, &filter) else { continue };
        let number = carry_out(draft, &filter, moves);
        // The numbers of those to come.
        left.iter_mut().for_each(|id| *id = number[*id]);
    }
}

/// A filter that the script has, with what is computed for it.
struct Filter {
    id: NodeId,
    /// The node that computes the condition, if it is no column.
    compute: Option<NodeId>,
    condition: Expr,
    keeps_by: KeepsBy,
}

impl Filter {
    fn at(draft: &Draft, id: NodeId) -> Option<Filter> {
        let node = &draft.nodes[id];
        let keeps_by = draft.facts[id].told.keeps_by?;
        let &[edge] = node.inputs.as_slice() else {
            return None;
        };
        let own = node.schema.width();
        if !matches!(node.op, Op::RowWise(_)) || !matches!(edge.port, Port::Out(_)) {
            return None;
        }
        if let Some(field) = node.schema.get(keeps_by.column) {
            return Some(Filter {
                id,
                compute: None,
                condition: Expr::column(keeps_by.column, field, node.span),
                keeps_by,
            });
        }
        match &draft.nodes[edge.from].op {
            Op::Compute { exprs, keep } if keep.len() == own && consumers(draft, edge.from) == 1 => {
                let [condition] = exprs.as_slice() else { return None };
                Some(Filter {
                    id,
                    compute: Some(edge.from),
                    condition: condition.clone(),
                    keeps_by,
                })
            }
            _ => None,
        }
    }

    /// Its first node.
    fn first(&self) -> NodeId {
        self.compute.unwrap_or(self.id)
    }
}

fn consumers(draft: &Draft, id: NodeId) -> usize {
    let edges = draft.nodes.iter().flat_map(|node| &node.inputs);
    edges.filter(|edge| edge.from == id).count()
}

/// A place for a filter: in front of input `input` of node `node`.
type Target = (NodeId, usize);

/// What is to be done with one filter.
struct Moves {
    /// New filters: their conditions, and the name of the stage that they stand before.
    targets: BTreeMap<Target, (Vec<Expr>, String)>,
    /// What stays where it is.
    stay: Vec<Expr>,
}

fn moves(draft: &Draft, filter: &Filter) -> Option<Moves> {
    // A part that is computed only where the ones before it are true must not be taken from them.
    if filter.condition.fallible || filter.condition.reads_places() {
        return None;
    }
    let mut moves = Moves {
        targets: BTreeMap::new(),
        stay: vec![],
    };
    for part in filter.condition.clone().conjuncts() {
        let found = match reads_columns(&part) {
            true => ways(draft, (filter.first(), 0), &part),
            false => None,
        };
        let Some(found) = found else {
            moves.stay.push(part);
            continue;
        };
        for way in found {
            let entry = moves.targets.entry(way.target).or_insert((vec![], way.before));
            entry.0.push(way.condition);
        }
    }
    (!moves.targets.is_empty()).then_some(moves)
}

/// Where a condition ends up.
struct Way {
    target: Target,
    condition: Expr,
    before: String,
}

/// The ways of a condition from `at` on toward the sources; `None` if nothing is gained by any.
fn ways(draft: &Draft, at: Target, condition: &Expr) -> Option<Vec<Way>> {
    let edge = draft.nodes[at.0].inputs.get(at.1)?;
    if edge.port != Port::Out(0) || consumers(draft, edge.from) != 1 {
        return None;
    }
    let node = edge.from;
    let Passed { onward, gain } = pass(draft, node, condition)?;
    let further: Vec<Option<Vec<Way>>> = onward
        .iter()
        .map(|(target, condition)| ways(draft, *target, condition))
        .collect();
    if !gain && further.iter().all(Option::is_none) {
        return None;
    }
    let mut found = vec![];
    for (further, (target, condition)) in further.into_iter().zip(onward) {
        match further {
            Some(mut further) => found.append(&mut further),
            None => found.push(Way {
                target,
                condition,
                before: draft.nodes[node].name.clone(),
            }),
        }
    }
    Some(found)
}

/// A condition on the output of a node as conditions on its inputs.
struct Passed {
    onward: Vec<(Target, Expr)>,
    /// The node has less to do for it.
    gain: bool,
}

fn pass(draft: &Draft, id: NodeId, condition: &Expr) -> Option<Passed> {
    let (node, facts) = (&draft.nodes[id], &draft.facts[id]);
    if facts.fails || facts.reads_places {
        return None;
    }
    let one = |condition: Expr, gain: bool| {
        Some(Passed {
            onward: vec![((id, 0), condition)],
            gain,
        })
    };
    match &node.op {
        Op::Pass => {
            let inputs = 0..node.inputs.len();
            let onward = inputs.map(|at| Some(((id, at), moved(draft, (id, at), condition, &Some)?)));
            Some(Passed {
                onward: onward.collect::<Option<_>>()?,
                gain: false,
            })
        }
        Op::Rearrange { picks } => one(
            moved(draft, (id, 0), condition, &|column| picks.get(column).copied())?,
            false,
        ),
        Op::Compute { exprs, keep } => {
            let schema = input_schema(draft, (id, 0))?;
            let own = keep.len();
            let to = |column: usize, _| match column.checked_sub(own) {
                None => Some(Instead::Column(column_of(schema, column, condition)?)),
                Some(at) => exprs
                    .get(at)
                    .filter(|expr| expr.is_plain())
                    .cloned()
                    .map(Instead::Column),
            };
            one(condition.over(&to)?, !exprs.iter().all(Expr::is_plain))
        }
        Op::RowWise(_) | Op::Serial(_) | Op::Breaker(_) => {
            if facts.told.keeps_by.is_some() {
                // Another filter: its condition is computed first in any case.
                let other = Filter::at(draft, id)?;
                if other.condition.fallible {
                    return None;
                }
                let target = (other.first(), 0);
                return Some(Passed {
                    onward: vec![(target, moved(draft, target, condition, &Some)?)],
                    gain: false,
                });
            }
            let renumbers = match node.op {
                Op::Breaker(_) => draft.places_matter(id),
                Op::RowWise(_) => hangs_on_places(draft, id),
                _ => false,
            };
            if renumbers {
                return None;
            }
            let passed_on = |column: usize| match facts.lineage.get(column) {
                Some(&Lineage::From(column)) => Some(column),
                _ => None,
            };
            let of_keys = |column: usize| match &facts.told.filters {
                Filters::Keys(keys) => {
                    let (_, input) = keys.iter().find(|(output, _)| *output == column)?;
                    node.schema.get(column).filter(|field| is_identity(&field.ty))?;
                    Some(*input)
                }
                _ => None,
            };
            match &facts.told.filters {
                Filters::Stay => None,
                Filters::Pass => one(moved(draft, (id, 0), condition, &passed_on)?, true),
                // A condition on nothing is none on groups: the one row of no rows is not kept from coming.
                Filters::Keys(_) if !reads_columns(condition) => None,
                Filters::Keys(_) => one(moved(draft, (id, 0), condition, &of_keys)?, true),
            }
        }
        Op::Probe { .. } => into_join(draft, id, condition),
        Op::Source { .. } | Op::Drain | Op::Build(_) | Op::Sink(_) | Op::Route { .. } | Op::Rejects => None,
    }
}

/// A condition on rows that met those of a second stream.
fn into_join(draft: &Draft, id: NodeId, condition: &Expr) -> Option<Passed> {
    let facts = &draft.facts[id];
    let meets = &facts.told.meets;
    let built = draft.nodes[id].inputs.iter().find(|edge| edge.port == Port::Built)?;
    // Somebody else may use what is built.
    let build = Some(built.from).filter(|&build| consumers(draft, build) == 1);
    let (first, second) = (input_schema(draft, (id, 0))?, input_schema(draft, (built.from, 0))?);
    if hangs_on_places(draft, id) {
        return None;
    }
    // A key of one side as a key of the other: they are equal, and so is whatever is made of them.
    let other = |column: usize, from: &Schema, to: &Schema, back: bool| {
        let same = |&&(l, r): &&(usize, usize)| if back { r == column } else { l == column };
        let &(l, r) = meets.keys.iter().find(same)?;
        let other = if back { l } else { r };
        let (a, b) = (&from.get(column)?.ty, &to.get(other)?.ty);
        (a == b && is_identity(a)).then_some(other)
    };
    let lineage = |column: usize| facts.lineage.get(column);
    let of_first = |column: usize| match lineage(column) {
        Some(&Lineage::From(column)) => Some(column),
        _ => None,
    };
    let of_second = |column: usize, field: Option<usize>| match (lineage(column), field) {
        (Some(&Lineage::Beside(column)), _) => Some(Instead::Column(column_of(second, column, condition)?)),
        // A field of the record that the right row is.
        (Some(Lineage::BesideAll), Some(field)) => Some(Instead::Field(column_of(second, field, condition)?)),
        _ => None,
    };
    let mut onward = vec![];
    if meets.first
        && let Some(here) = moved(draft, (id, 0), condition, &of_first)
    {
        if let Some(build) = build
            && let Some(there) = moved_by(second, &here, &|column| other(column, first, second, false))
        {
            onward.push(((build, 0), there));
        }
        onward.push(((id, 0), here));
    } else if meets.second
        && let Some(build) = build
        && let Some(there) = condition.over(&of_second)
    {
        if let Some(here) = moved_by(first, &there, &|column| other(column, second, first, true)) {
            onward.push(((id, 0), here));
        }
        onward.push(((build, 0), there));
    }
    (!onward.is_empty()).then_some(Passed { onward, gain: true })
}

/// Whether values behind node `id` are made of the places of its rows. Of what multiplies rows, the number within those of one place
/// is a part of that, though not one that is ever told.
fn hangs_on_places(draft: &Draft, id: NodeId) -> bool {
    let reads = |at: NodeId| match &draft.nodes[at].op {
        Op::Compute { exprs, .. } => exprs.iter().any(Expr::reads_places),
        Op::Probe { pairs: Some(pairs) } => pairs.condition.reads_places(),
        _ => draft.facts[at].reads_places,
    };
    reads(id) || draft.behind(id).into_iter().any(reads)
}

fn reads_columns(condition: &Expr) -> bool {
    let mut any = false;
    condition.columns(&mut |_| any = true);
    any
}

/// Whether equal values of a type are the same in every way.
fn is_identity(ty: &Type) -> bool {
    match ty {
        Type::Float | Type::Json => false,
        Type::List(element) => is_identity(&element.ty),
        Type::Record(schema) => schema.fields().iter().all(|field| is_identity(&field.ty)),
        _ => true,
    }
}

fn input_schema(draft: &Draft, (id, input): Target) -> Option<&Schema> {
    let edge = draft.nodes[id].inputs.get(input)?;
    match edge.port {
        Port::Out(_) => Some(&draft.nodes[edge.from].schema),
        Port::Rejects | Port::Built => None,
    }
}

fn column_of(schema: &Schema, column: usize, condition: &Expr) -> Option<Expr> {
    Some(Expr::column(column, schema.get(column)?, condition.span))
}

/// A condition over the rows of an input, given which of its columns is which.
fn moved(draft: &Draft, target: Target, condition: &Expr, to: &dyn Fn(usize) -> Option<usize>) -> Option<Expr> {
    moved_by(input_schema(draft, target)?, condition, to)
}

fn moved_by(schema: &Schema, condition: &Expr, to: &dyn Fn(usize) -> Option<usize>) -> Option<Expr> {
    condition.over(&|column, _| Some(Instead::Column(column_of(schema, to(column)?, condition)?)))
}

/// All of them as one condition.
fn together(parts: Vec<Expr>) -> Option<Expr> {
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    parts.try_fold(first, |all, part| {
        let span = all.span;
        Expr::and(all, part, span).ok()
    })
}

/// Makes the new filters, and leaves of the old one what stays. Gives every node's new number.
fn carry_out(draft: &mut Draft, filter: &Filter, moves: Moves) -> Vec<NodeId> {
    let count = draft.nodes.len();
    let mut before: Vec<Vec<NodeId>> = vec![vec![]; count];
    for ((id, input), (conditions, passed)) in moves.targets {
        let edge = draft.nodes[id].inputs[input];
        let Some(condition) = together(conditions) else {
            continue;
        };
        let edge = add(draft, filter, edge, condition, Some(&passed), &mut before[id]);
        draft.nodes[id].inputs[input] = edge;
    }
    // Who reads the old filter reads what was before it, or a filter with the rest.
    let rest = match together(moves.stay) {
        // The new filters may stand right before the old one.
        Some(rest) => {
            let base = draft.nodes[filter.first()].inputs[0];
            add(draft, filter, base, rest, None, &mut before[filter.id])
        }
        None => draft.nodes[filter.first()].inputs[0],
    };
    for edge in draft.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
        if edge.from == filter.id {
            *edge = rest;
        }
    }
    if let Some(name) = draft.nodes[filter.id].stream.take() {
        let node = &mut draft.nodes[rest.from];
        if node.stream.is_none() && rest.port == Port::Out(0) && !matches!(node.op, Op::Route { .. }) {
            node.stream = Some(name);
        }
    }
    let mut order = Vec::with_capacity(draft.nodes.len());
    for (id, new) in before.into_iter().enumerate() {
        order.extend(new);
        order.push(id);
    }
    draft.reorder(&order);
    let gone = |old: NodeId| old == filter.id || Some(old) == filter.compute;
    let keep: Vec<bool> = order.iter().map(|&old| !gone(old)).collect();
    draft.retain(&keep);
    let mut number = vec![0; count];
    let mut next = 0;
    for &old in &order {
        if old < count {
            number[old] = next;
        }
        next += usize::from(!gone(old));
    }
    number
}

/// A filter of the rows of `edge`, like `filter` but with another condition; its nodes are added to `new`.
fn add(
    draft: &mut Draft,
    filter: &Filter,
    edge: Edge,
    condition: Expr,
    ahead_of: Option<&str>,
    new: &mut Vec<NodeId>,
) -> Edge {
    let (name, span) = (draft.nodes[filter.id].name.clone(), draft.nodes[filter.id].span);
    let schema = draft.nodes[edge.from].schema.clone();
    let own = schema.width();
    let text = condition.to_string();
    let mut edge = edge;
    let column = match condition.kind {
        crate::expr::Kind::Column { index, .. } => index,
        _ => {
            let field = Field::new("#0", Type::Bool, condition.nullable);
            let wide = schema.fields().iter().cloned().chain([field]).collect();
            let op = Op::Compute {
                exprs: vec![condition],
                keep: vec![true; own],
            };
            let mut node = NewNode::new(name.clone(), span, vec![edge], wide, op);
            node.detail.clone_from(&text);
            let id = draft.push(node);
            new.push(id);
            edge = out(id);
            own
        }
    };
    let op = Op::RowWise((filter.keeps_by.make)(column, own));
    let mut node = NewNode::new(name, span, vec![edge], schema, op);
    node.detail = match ahead_of {
        Some(stage) => format!("{text} (moved ahead of `{stage}`)"),
        None => text,
    };
    node.facts.lineage = (0..own).map(Lineage::From).collect();
    node.facts.reads = vec![column];
    node.facts.told.keeps_by = Some(KeepsBy {
        column,
        ..filter.keeps_by
    });
    node.facts.told.filters = Filters::Pass;
    let id = draft.push(node);
    new.push(id);
    out(id)
}
