//! What no sink hangs on does not run: streams that are kept for later, sources behind them.

use crate::compile::draft::Draft;
use crate::graph::Op;

/// Removes the nodes that lead to no sink and no `route`.
pub(super) fn remove(draft: &mut Draft) {
    let mut keep: Vec<bool> = draft
        .nodes
        .iter()
        .map(|node| matches!(node.op, Op::Sink(_) | Op::Route { .. }))
        .collect();
    for id in (0..draft.nodes.len()).rev() {
        if keep[id] {
            for edge in &draft.nodes[id].inputs {
                keep[edge.from] = true;
            }
        }
    }
    draft.retain(&keep);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{NewNode, out};
    use standpipe_sdk::{Schema, Span};

    #[test]
    fn only_what_leads_to_a_sink_stays() {
        let node = |name: &str, inputs, op| NewNode::new(name, Span::default(), inputs, Schema::default(), op);
        let mut draft = Draft::default();
        let a = draft.push(node("a", vec![], Op::Pass));
        let b = draft.push(node("b", vec![], Op::Pass));
        draft.push(node("c", vec![out(a), out(b)], Op::Pass));
        let d = draft.push(node("d", vec![out(b)], Op::Pass));
        draft.push(node("e", vec![out(d)], Op::Route { arms: 0 }));
        remove(&mut draft);
        let names: Vec<&str> = draft.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["b", "d", "e"]);
        assert_eq!(draft.nodes[2].inputs, [out(1)]);
    }
}
