//! Places are made only where something may ask for them: bad rows, stages that order by them. So is what a stage that holds rows back
//! has to know of their origin.

use crate::compile::draft::Draft;
use crate::graph::{OnError, Op, Port};
use standpipe_sdk::spec::Asked;

/// Tells every source whether rows need their places, and every node what is asked of the rows it gives.
pub(super) fn spread(draft: &mut Draft) {
    for id in (0..draft.nodes.len()).rev() {
        let node = &draft.nodes[id];
        // Behind a breaker a row's place is its number.
        let asked = match &node.op {
            Op::Breaker(_) | Op::Build(_) => Asked::Nothing,
            _ if !draft.facts[id].places => node.asked,
            _ if node.policy.on_error == OnError::To => Asked::Text,
            _ => node.asked.max(Asked::Line),
        };
        for edge in node.inputs.clone() {
            if edge.port != Port::Built {
                let before = &mut draft.nodes[edge.from].asked;
                *before = asked.max(*before);
            }
        }
    }
    let mut wanted: Vec<bool> = draft.facts.iter().map(|facts| facts.places).collect();
    for id in (0..draft.nodes.len()).rev() {
        for edge in draft.nodes[id].inputs.iter().filter(|edge| edge.port != Port::Built) {
            wanted[edge.from] |= wanted[id];
        }
        if let Op::Source { request, .. } = &mut draft.nodes[id].op {
            request.places = wanted[id];
        }
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
}
