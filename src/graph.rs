//! The graph of a checked script: operators that can be made, and the edges between them. Inert and printable.
//!
//! Laws
//! - Nodes are in topological order: every edge points from a lower index to a higher one.
//! - A node knows its spec's data (order, memory class, kind), never another stage's name.

pub mod regions;

use crate::expr::Expr;
use standpipe_sdk::spec::{Asked, Factory, Least, Lineage, Memory, Order, Request, Room, SourceFactory};
use standpipe_sdk::{Breaker, Build, RowWise, Schema, Serial, Sink, Span};
use std::sync::Arc;

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// A checked script, ready to run.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// One operator.
pub struct Node {
    /// The stage as the script has it: `filter`, `read csv`.
    pub name: String,
    /// What `explain` says behind the name: expressions, paths, columns.
    pub detail: String,
    pub span: Span,
    /// Where its input comes from: one edge, except for `union` and reject streams (several, in order), probes (the stream, then
    /// the build it meets) and sources (none).
    pub inputs: Vec<Edge>,
    /// The rows it gives (for a sink: the rows it takes).
    pub schema: Schema,
    pub op: Op,
    pub order: Order,
    pub memory: Memory,
    /// What it reserves however small its input is.
    pub least: fn(&Room) -> Least,
    /// What it takes beside that, in bytes.
    pub takes_more: usize,
    pub policy: Policy,
    /// It gives rows after the last one came in.
    pub holds_back: bool,
    /// Whether it holds rows back hangs on memory, and all of those who get them may have had enough before the last one: then nothing counts
    /// that came behind the last row they took.
    pub cut_short: bool,
    /// What somebody behind it may ask of the origin of its rows.
    pub asked: Asked,
    /// Name of the script's stream this node is the end of, if it is.
    pub stream: Option<String>,
}

/// Output `port` of node `from`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    pub from: NodeId,
    pub port: Port,
}

/// Which output of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// What the stage emits; only `route` has more than number 0.
    Out(usize),
    /// The rows it set aside (`on error to NAME`).
    Rejects,
    /// What a build holds, once it is full: the edge crosses from one region into another.
    Built,
}

/// What a node does. Columns nobody needs behind a node are `Absent` in its output; positions never shift.
pub enum Op {
    Source {
        make: SourceFactory,
        request: Request,
    },
    /// Appends the values of `exprs` to the input's columns; input columns whose `keep` is false become `Absent`.
    Compute {
        exprs: Vec<Expr>,
        keep: Vec<bool>,
    },
    /// Output column `i` is input column `picks[i]`.
    Rearrange {
        picks: Vec<usize>,
    },
    RowWise(Factory<Box<dyn RowWise>>),
    Serial(Factory<Box<dyn Serial>>),
    Breaker(Factory<Arc<dyn Breaker>>),
    /// Ends a region like a breaker; what it holds leaves through [`Port::Built`], any number of times.
    Build(Factory<Arc<dyn Build>>),
    /// Rows of its first input meet what the build behind its second input holds.
    Probe {
        pairs: Option<Pairs>,
    },
    /// The rows that a build gives by itself.
    Drain,
    Sink(Factory<Arc<dyn Sink>>),
    /// The last `arms` input columns are bools; a row goes to the first true one's port, else to port `arms` (which may have no
    /// edge: then it is discarded and counted). Output rows lack the bools.
    Route {
        arms: usize,
    },
    /// Whatever comes in goes out: where streams meet (`union`) or a stream has a name.
    Pass,
    /// Reject rows of all inputs, by (place, node).
    Rejects,
}

/// A condition on pairs of rows.
pub struct Pairs {
    pub condition: Expr,
    /// Where the columns it sees come from.
    pub lineage: Vec<Lineage>,
}

impl Op {
    /// Whether a node ends the region that its input is in.
    pub fn is_filled(&self) -> bool {
        matches!(self, Op::Breaker(_) | Op::Build(_))
    }

    /// Whether rows enter a region here.
    pub fn is_head(&self) -> bool {
        matches!(self, Op::Source { .. } | Op::Breaker(_) | Op::Drain)
    }
}

impl Node {
    /// The edges that connect it with what it stands in one region with: not those into a breaker, nor those out of a build.
    pub fn connected(&self) -> impl Iterator<Item = &Edge> {
        let cut = matches!(self.op, Op::Breaker(_));
        self.inputs.iter().filter(move |edge| !cut && edge.port != Port::Built)
    }
}

/// What becomes of a bad row.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum OnError {
    #[default]
    Fail,
    Skip,
    /// The failing expression or cell is null.
    Null,
    /// Out through [`Port::Rejects`].
    To,
}

/// A stage's `on error`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Policy {
    pub on_error: OnError,
    pub limit: Option<Limit>,
}

/// How many bad rows are too many.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    Count(u64),
    /// Percent of the rows the stage took; judged from row 10,000 on and at the end.
    Percent(f64),
}
