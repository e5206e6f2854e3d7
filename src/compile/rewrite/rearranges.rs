//! `select … | rename … | drop …` is one step, and one that changes nothing is none.

use crate::compile::draft::Draft;
use crate::graph::{Edge, NodeId, Op, Port};
use std::collections::HashMap;

/// Merges chains of rearranging nodes and drops those that leave everything as it is.
pub(super) fn merge(draft: &mut Draft) {
    let mut keep = vec![true; draft.nodes.len()];
    let consumers = draft.consumers();
    // Who reads the output of a node that goes reads this instead.
    let mut instead: HashMap<NodeId, Edge> = HashMap::new();
    for id in 0..draft.nodes.len() {
        for edge in &mut draft.nodes[id].inputs {
            if let Some(other) = instead.get(&edge.from) {
                *edge = *other;
            }
        }
        let Some((before, port)) = draft.nodes[id].inputs.first().map(|edge| (edge.from, edge.port)) else {
            continue;
        };
        let (earlier, rest) = draft.nodes.split_at_mut(id);
        let (Some(first), Some(node)) = (earlier.get_mut(before), rest.first_mut()) else {
            continue;
        };
        let Op::Rearrange { picks } = &mut node.op else {
            continue;
        };
        // Only one consumer: else the first one's result is needed anyway.
        if let Op::Rearrange { picks: inner } = &first.op
            && consumers[before] == 1
            && keep[before]
        {
            for pick in picks.iter_mut() {
                *pick = inner[*pick];
            }
            node.inputs.clone_from(&first.inputs);
            node.detail = match first.detail.is_empty() {
                true => node.detail.clone(),
                false => format!("{} | {} {}", first.detail, node.name, node.detail),
            };
            node.name.clone_from(&first.name);
            keep[before] = false;
        }
        let Some(edge) = draft.nodes[id].inputs.first().copied() else {
            continue;
        };
        let node = &draft.nodes[id];
        let Op::Rearrange { picks } = &node.op else {
            continue;
        };
        let from = &draft.nodes[edge.from];
        let same = port == edge.port || edge.port == Port::Out(0);
        let identity = picks.len() == from.schema.width() && picks.iter().enumerate().all(|(at, pick)| at == *pick);
        if same && identity && node.schema == from.schema {
            let stream = node.stream.clone();
            let first = &mut draft.nodes[edge.from];
            if first.stream.is_none() && !matches!(first.op, Op::Route { .. }) {
                first.stream = stream;
            }
            instead.insert(id, edge);
            keep[id] = false;
        }
    }
    draft.retain(&keep);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{NewNode, out};
    use standpipe_sdk::{Field, Schema, Span, Type};

    fn schema(names: &[&str]) -> Schema {
        names.iter().map(|name| Field::new(*name, Type::Int, false)).collect()
    }

    fn node(name: &str, inputs: Vec<Edge>, names: &[&str], op: Op) -> NewNode {
        NewNode::new(name, Span::default(), inputs, schema(names), op)
    }

    #[test]
    fn chains_become_one_and_no_ops_go() {
        let mut draft = Draft::default();
        let a = draft.push(node("source", vec![], &["a", "b", "c"], Op::Pass));
        let b = draft.push(node(
            "select",
            vec![out(a)],
            &["c", "b", "a"],
            Op::Rearrange { picks: vec![2, 1, 0] },
        ));
        let c = draft.push(node(
            "drop",
            vec![out(b)],
            &["c", "a"],
            Op::Rearrange { picks: vec![0, 2] },
        ));
        let d = draft.push(node(
            "select",
            vec![out(a)],
            &["a", "b", "c"],
            Op::Rearrange { picks: vec![0, 1, 2] },
        ));
        draft.push(node("end", vec![out(c)], &["c", "a"], Op::Pass));
        draft.push(node("end", vec![out(d)], &["a", "b", "c"], Op::Pass));
        merge(&mut draft);
        let names: Vec<&str> = draft.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["source", "select", "end", "end"]);
        assert!(matches!(&draft.nodes[1].op, Op::Rearrange { picks } if *picks == [2, 0]));
        assert_eq!(draft.nodes[2].inputs, [out(1)]);
        assert_eq!(draft.nodes[3].inputs, [out(0)]);
    }

    #[test]
    fn a_result_that_two_use_stays() {
        let mut draft = Draft::default();
        let a = draft.push(node("source", vec![], &["a", "b"], Op::Pass));
        let b = draft.push(node(
            "select",
            vec![out(a)],
            &["b", "a"],
            Op::Rearrange { picks: vec![1, 0] },
        ));
        draft.push(node("drop", vec![out(b)], &["b"], Op::Rearrange { picks: vec![0] }));
        draft.push(node("drop", vec![out(b)], &["a"], Op::Rearrange { picks: vec![1] }));
        merge(&mut draft);
        assert_eq!(draft.nodes.len(), 4);
    }
}
