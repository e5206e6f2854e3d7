//! Places are made only where something may ask for them: bad rows, stages that order by them, those behind whose last row nothing counts.
//! So is what a stage that holds rows back has to know of their origin.

use crate::compile::draft::Draft;
use crate::graph::{OnError, Op, Port};
use crate::stages::sort;
use standpipe_sdk::spec::{Asked, Memory};

/// Tells every source whether rows need their places, and every node what is asked of the rows it gives.
pub(super) fn spread(draft: &mut Draft) {
    mark_cut_short(draft);
    for id in (0..draft.nodes.len()).rev() {
        let node = &draft.nodes[id];
        // Behind a breaker a row's place is its number.
        let asked = match &node.op {
            Op::Breaker(_) | Op::Build(_) => Asked::Nothing,
            _ if node.cut_short => node.asked.max(Asked::Line),
            _ if !draft.facts[id].places => node.asked,
            _ if node.policy.on_error == OnError::To => Asked::Text,
            _ => node.asked.max(Asked::Line),
        };
        if draft.nodes[id].cut_short {
            draft.nodes[id].asked = asked;
        }
        for edge in draft.nodes[id].inputs.clone() {
            if edge.port != Port::Built {
                let before = &mut draft.nodes[edge.from].asked;
                *before = asked.max(*before);
            }
        }
    }
    let cut_short = draft.nodes.iter().map(|node| node.cut_short);
    let mut wanted: Vec<bool> = (draft.facts.iter().zip(cut_short))
        .map(|(facts, cut_short)| facts.places || cut_short)
        .collect();
    for id in (0..draft.nodes.len()).rev() {
        for edge in draft.nodes[id].inputs.iter().filter(|edge| edge.port != Port::Built) {
            wanted[edge.from] |= wanted[id];
        }
        if let Op::Source { request, .. } = &mut draft.nodes[id].op {
            request.places = wanted[id];
        }
    }
}

/// Marks the stages of which [`Node::cut_short`](crate::graph::Node::cut_short) holds.
fn mark_cut_short(draft: &mut Draft) {
    // Whether some who get a node's rows want a limited number of them, and whether some want all.
    let mut limited = vec![false; draft.nodes.len()];
    let mut wanted = vec![false; draft.nodes.len()];
    for id in (0..draft.nodes.len()).rev() {
        let is_enough = draft.facts[id].told.first.is_some() || (limited[id] && !wanted[id]);
        let node = &mut draft.nodes[id];
        let may_hold_back = node.holds_back && node.memory == Memory::Spill && !draft.facts[id].told.to_the_end;
        node.cut_short = may_hold_back && limited[id] && !wanted[id];
        let is_limited = is_enough && !matches!(node.op, Op::Breaker(_) | Op::Build(_));
        let users = if is_limited { &mut limited } else { &mut wanted };
        for edge in node.inputs.iter().filter(|edge| matches!(edge.port, Port::Out(_))) {
            users[edge.from] = true;
        }
    }
    if draft.nodes.iter().any(|node| node.cut_short) {
        // Rejects wait in the order of the input until it is known how far that counts.
        let rejects = draft.nodes.iter_mut().filter(|node| matches!(node.op, Op::Rejects));
        rejects.for_each(|node| node.least = sort::SPEC.least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{NewNode, out};
    use crate::compile::pipelines::source_op;
    use standpipe_sdk::{Error, Schema, Span};

    #[test]
    fn only_sources_before_a_stage_that_asks_give_places() {
        let schema = Schema::default();
        let source = || source_op(Box::new(|_, _| Err(Error::Cancelled)), &Schema::default());
        let node = |inputs, op| NewNode::new("n", Span::default(), inputs, schema.clone(), op);
        let mut draft = Draft::default();
        let a = draft.push(node(vec![], source()));
        let b = draft.push(node(vec![], source()));
        let c = draft.push(node(vec![out(a)], Op::Pass));
        let mut asks = node(vec![out(c)], Op::Pass);
        asks.facts.places = true;
        draft.push(asks);
        draft.push(node(vec![out(b)], Op::Pass));
        spread(&mut draft);
        let places = |id: usize| match &draft.nodes[id].op {
            Op::Source { request, .. } => Some(request.places),
            _ => None,
        };
        assert_eq!((places(a), places(b)), (Some(true), Some(false)));
    }

    #[test]
    fn what_holds_rows_back_is_cut_short_if_nobody_wants_all() {
        let schema = Schema::default();
        let node = |inputs, op| NewNode::new("n", Span::default(), inputs, schema.clone(), op);
        let source = || source_op(Box::new(|_, _| Err(Error::Cancelled)), &Schema::default());
        let cut_short = |all_wanted: bool, to_the_end: bool| {
            let mut draft = Draft::default();
            let read = draft.push(node(vec![], source()));
            let mut holds = node(vec![out(read)], Op::Pass);
            holds.holds_back = true;
            holds.memory = Memory::Spill;
            holds.facts.told.to_the_end = to_the_end;
            let holds = draft.push(holds);
            let mut takes = node(vec![out(holds)], Op::Pass);
            takes.facts.told.first = Some(3);
            draft.push(takes);
            if all_wanted {
                draft.push(node(vec![out(holds)], Op::Pass));
            }
            spread(&mut draft);
            let Op::Source { request, .. } = &draft.nodes[read].op else {
                return None;
            };
            assert_eq!(request.places, draft.nodes[holds].cut_short);
            Some((draft.nodes[holds].cut_short, draft.nodes[holds].asked))
        };
        assert_eq!(cut_short(false, false), Some((true, Asked::Line)));
        assert_eq!(cut_short(true, false), Some((false, Asked::Nothing)));
        // Nothing that could have come earlier, in more memory, ends the need for the rest of the input.
        assert_eq!(cut_short(false, true), Some((false, Asked::Nothing)));
    }
}
