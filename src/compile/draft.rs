//! The graph while it is made: nodes, and beside each what the rewrites need to know of it.
//!
//! Laws
//! - `facts` has one entry per node.
//! - Nodes are added behind what they need, so their order is topological.

use crate::expr::Expr;
use crate::graph::{Edge, Node, NodeId, Op, Policy, Port};
use standpipe_sdk::spec::{
    Asked, Call, Filters, KeepsBy, Least, Limited, Lineage, Meets, Memory, Order, Room, Sieve, SortKey, StageSpec,
};
use standpipe_sdk::{Schema, Span};

/// A graph that is not finished.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) nodes: Vec<Node>,
    pub(super) facts: Vec<Facts>,
}

/// What the rewrites know of a node beyond what runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Where each output column comes from; empty where the op tells it.
    pub(super) lineage: Vec<Lineage>,
    /// Input columns whose values it looks at.
    pub(super) reads: Vec<usize>,
    /// A sink that writes text: it takes columns verbatim.
    pub(super) text: bool,
    /// It asks for the places of rows, or sets rows aside.
    pub(super) places: bool,
    /// What its output is sorted by.
    pub(super) sorted_by: Vec<(usize, bool)>,
    /// How many nodes the longest path to it has.
    pub(super) depth: usize,
    /// A row may fail in it.
    pub(super) fails: bool,
    /// The stage itself looks at the places of its rows.
    pub(super) reads_places: bool,
    /// Of a source: how large its files are, where that is known.
    pub(super) file_bytes: Option<u64>,
    /// What its spec says of the call.
    pub(super) told: Told,
}

/// What a spec says of a call that was bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// So many first rows of its input are its output.
    pub(super) first: Option<u64>,
    /// What to run where only first rows of its output are wanted.
    pub(super) limited: Option<Limit>,
    /// The column it keeps rows by, where it does nothing else.
    pub(super) keeps_by: Option<KeepsBy>,
    /// Which conditions behind it could as well stand before it.
    pub(super) filters: Filters,
    pub(super) meets: Meets,
    /// What may leave rows of the second stream out that none of the first one meets.
    pub(super) sieve: Option<Sieving>,
    /// What it sorts by, where it does nothing else.
    pub(super) sorts: Option<Vec<SortKey>>,
    /// The order of its input makes no difference.
    pub(super) unordered: bool,
    /// It gives nothing before the last row came in.
    pub(super) to_the_end: bool,
}

impl Told {
    pub(super) fn of(spec: &StageSpec, call: &Call<'_>) -> Told {
        Told {
            first: (spec.first)(call),
            limited: (spec.limited)(call).map(Limit),
            keeps_by: (spec.keeps_by)(call),
            filters: (spec.filters)(call),
            meets: (spec.meets)(call),
            sieve: (spec.sieve)(call).map(Sieving),
            sorts: (spec.sorts)(call),
            unordered: (spec.unordered)(call),
            to_the_end: spec.to_the_end,
        }
    }
}

/// A [`Limited`] among facts.
#[derive(Clone)]
pub(super) struct Limit(pub(super) Limited);

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limit")
    }
}

/// A [`Sieve`] among facts.
#[derive(Clone)]
pub(super) struct Sieving(pub(super) Sieve);

impl std::fmt::Debug for Sieving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sieving")
    }
}

/// A node to add; `inputs` are its first edges.
pub(super) struct NewNode {
    pub(super) name: String,
    pub(super) detail: String,
    pub(super) span: Span,
    pub(super) inputs: Vec<Edge>,
    pub(super) schema: Schema,
    pub(super) op: Op,
    pub(super) order: Order,
    pub(super) memory: Memory,
    pub(super) policy: Policy,
    pub(super) least: fn(&Room) -> Least,
    pub(super) takes_more: usize,
    pub(super) holds_back: bool,
    pub(super) facts: Facts,
}

impl NewNode {
    /// A row-wise node without policy or facts.
    pub(super) fn new(name: impl Into<String>, span: Span, inputs: Vec<Edge>, schema: Schema, op: Op) -> NewNode {
        NewNode {
            name: name.into(),
            detail: String::new(),
            span,
            inputs,
            schema,
            op,
            order: Order::Keeps,
            memory: Memory::Batch,
            policy: Policy::default(),
            least: |_| Least::default(),
            takes_more: 0,
            holds_back: false,
            facts: Facts::default(),
        }
    }
}

impl Draft {
    pub(super) fn push(&mut self, new: NewNode) -> NodeId {
        let id = self.nodes.len();
        let mut facts = new.facts;
        for edge in &new.inputs {
            if let Some(before) = self.facts.get(edge.from) {
                facts.depth = facts.depth.max(before.depth + 1);
            }
        }
        self.nodes.push(Node {
            name: new.name,
            detail: new.detail,
            span: new.span,
            inputs: new.inputs,
            schema: new.schema,
            op: new.op,
            order: new.order,
            memory: new.memory,
            policy: new.policy,
            least: new.least,
            takes_more: new.takes_more,
            holds_back: new.holds_back,
            cut_short: false,
            asked: Asked::Nothing,
            stream: None,
        });
        self.facts.push(facts);
        id
    }

    /// What the rows that leave a node are sorted by: position and whether it descends, the most significant first. Nulls are last.
    pub(super) fn sorted_by(&self, id: NodeId) -> Vec<(usize, bool)> {
        let (Some(node), Some(facts)) = (self.nodes.get(id), self.facts.get(id)) else {
            return vec![];
        };
        if !facts.sorted_by.is_empty() || node.order == Order::Creates {
            return facts.sorted_by.clone();
        }
        let [edge] = node.inputs.as_slice() else { return vec![] };
        if !matches!(edge.port, Port::Out(_)) {
            return vec![];
        }
        let place = |column: usize| match &node.op {
            Op::Compute { .. } | Op::Pass | Op::Route { .. } => Some(column),
            Op::Rearrange { picks } => picks.iter().position(|&pick| pick == column),
            Op::RowWise(_) | Op::Serial(_) => facts.lineage.iter().position(|&from| from == Lineage::From(column)),
            _ => None,
        };
        let before = self.sorted_by(edge.from).into_iter();
        before
            .map_while(|(column, descending)| Some((place(column)?, descending)))
            .collect()
    }

    /// How many columns come in at input `at` of a node.
    pub(super) fn input_width(&self, id: NodeId, at: usize) -> usize {
        let edge = self.nodes[id].inputs.get(at);
        edge.map_or(0, |edge| match edge.port {
            // The bools of a `route` stay behind.
            Port::Out(_) | Port::Built => self.nodes[edge.from].schema.width(),
            Port::Rejects => self.nodes[id].schema.width(),
        })
    }
}

/// Output 0 of a node.
pub(super) fn out(from: NodeId) -> Edge {
    Edge {
        from,
        port: Port::Out(0),
    }
}

/// The computed expressions in pieces that can be evaluated at once: a piece reads no column that it makes itself.
///
/// `own`: how many columns stand before the first computed one.
pub(super) fn pieces(exprs: Vec<Expr>, own: usize) -> Vec<Vec<Expr>> {
    let mut pieces: Vec<Vec<Expr>> = vec![];
    let mut start = own;
    for (at, expr) in exprs.into_iter().enumerate() {
        let mut reads_own_piece = false;
        expr.columns(&mut |column| reads_own_piece |= column >= start);
        match pieces.last_mut() {
            Some(piece) if !reads_own_piece => piece.push(expr),
            _ => {
                start = own + at;
                pieces.push(vec![expr]);
            }
        }
    }
    pieces
}
