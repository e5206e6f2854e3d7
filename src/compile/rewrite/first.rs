//! Of what only the first rows are wanted, no more is made: `sort … | take 3` keeps three rows.
//!
//! How: from a node whose output is the first rows of its input, backwards over nodes that keep every row and its order, to a
//! breaker that can be limited. What stands between must not fail: a row that fails is one that comes no more.
//!
//! Laws
//! - Only a breaker that nobody else reads is limited.
//! - The node that takes the first rows stays: it ends the stream.

use crate::compile::draft::Draft;
use crate::graph::{NodeId, Op, Port};

/// More rows than this are sorted: a heap of so many is hardly faster.
const MOST_ROWS: u64 = 100_000;

/// Limits what only first rows are wanted of.
pub(super) fn limit(draft: &mut Draft) {
    let consumers = draft.consumers();
    for id in 0..draft.nodes.len() {
        let Some(rows) = draft.facts[id].told.first.filter(|rows| *rows <= MOST_ROWS) else {
            continue;
        };
        let Some(breaker) = breaker_before(draft, id, &consumers) else {
            continue;
        };
        if let Some(limited) = draft.facts[breaker].told.limited.take() {
            let node = &mut draft.nodes[breaker];
            node.op = Op::Breaker((limited.0)(rows));
            node.detail = match rows {
                1 => format!("{} (only the first row)", node.detail),
                _ => format!("{} (only the first {rows} rows)", node.detail),
            };
        }
    }
}

/// The breaker whose rows node `id` gets, all of them and in their order, and nobody else.
fn breaker_before(draft: &Draft, mut id: NodeId, consumers: &[usize]) -> Option<NodeId> {
    loop {
        let [edge] = draft.nodes[id].inputs.as_slice() else {
            return None;
        };
        if consumers[edge.from] != 1 || edge.port != Port::Out(0) {
            return None;
        }
        id = edge.from;
        match &draft.nodes[id].op {
            Op::Breaker(_) => return Some(id),
            Op::Rearrange { .. } => {}
            Op::Compute { exprs, .. } if exprs.iter().all(|expr| !expr.fallible) => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{Limit, NewNode, out};
    use crate::expr::Expr;
    use standpipe_sdk::{Error, Field, Schema, Span, Type};
    use std::sync::Arc;

    fn add(draft: &mut Draft, from: &[NodeId], op: Op) -> NodeId {
        let inputs = from.iter().copied().map(out).collect();
        draft.push(NewNode::new("n", Span::default(), inputs, Schema::default(), op))
    }

    fn breaker(draft: &mut Draft) -> NodeId {
        let source = add(draft, &[], Op::Pass);
        let id = add(draft, &[source], Op::Breaker(Box::new(|_| Err(Error::Cancelled))));
        let make = |_| -> standpipe_sdk::spec::Factory<Arc<dyn standpipe_sdk::Breaker>> {
            Box::new(|_| Err(Error::Cancelled))
        };
        draft.facts[id].told.limited = Some(Limit(Arc::new(make)));
        id
    }

    fn take(draft: &mut Draft, from: NodeId, rows: u64) {
        let id = add(draft, &[from], Op::Serial(Box::new(|_| Err(Error::Cancelled))));
        draft.facts[id].told.first = Some(rows);
    }

    fn compute(fallible: bool) -> Op {
        let mut expr = Expr::column(0, &Field::new("a", Type::Int, true), Span::default());
        expr.fallible = fallible;
        Op::Compute {
            exprs: vec![expr],
            keep: vec![true],
        }
    }

    fn is_limited(draft: &mut Draft, id: NodeId) -> bool {
        limit(draft);
        draft.nodes[id].detail.contains("only the first")
    }

    #[test]
    fn a_breaker_is_limited_through_what_keeps_its_rows() {
        let mut draft = Draft::default();
        let sort = breaker(&mut draft);
        let select = add(&mut draft, &[sort], Op::Rearrange { picks: vec![] });
        let derive = add(&mut draft, &[select], compute(false));
        take(&mut draft, derive, 3);
        assert!(is_limited(&mut draft, sort));
    }

    #[test]
    fn not_if_others_read_it_or_rows_may_go_or_there_are_many() {
        let mut draft = Draft::default();
        let shared = breaker(&mut draft);
        take(&mut draft, shared, 3);
        add(&mut draft, &[shared], Op::Pass);
        let fails = breaker(&mut draft);
        let derive = add(&mut draft, &[fails], compute(true));
        take(&mut draft, derive, 3);
        let filtered = breaker(&mut draft);
        let filter = add(
            &mut draft,
            &[filtered],
            Op::RowWise(Box::new(|_| Err(Error::Cancelled))),
        );
        take(&mut draft, filter, 3);
        let many = breaker(&mut draft);
        take(&mut draft, many, MOST_ROWS + 1);
        for id in [shared, fails, filtered, many] {
            assert!(!is_limited(&mut draft, id));
        }
    }
}
