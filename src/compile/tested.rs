//! A script in a test: what stands in the place of its inputs, where its rows go, what is expected of them.
//!
//! Laws
//! - Nothing is read from outside but what `given` names, nothing is written: sinks hand their rows to the test or drop them.
//! - No file of the script is looked at, not even for its columns: whether a test passes hangs on no data but its own.
//! - What nothing expects or ends is not run, so an input behind a replaced stream need not be given.

use super::draft::{NewNode, out};
use super::expressions::Scope;
use super::pipelines::{Builder, State};
use super::report::Checker;
use super::rows::Rows;
use super::{SinkMaker, call::Resolved};
use crate::diag::{Diagnostic, Span, list_names, suggest};
use crate::expr::Cmp;
use crate::graph::{Edge, NodeId, Op};
use crate::stages::from;
use crate::syntax::ast::{
    BinaryOp, Binding, Expect, Expr, GivenTarget, GivenValue, Ident, StageCall, Subject, TestStepKind,
};
use standpipe_sdk::spec::{Arg, Factory, FormatSide, FormatSpec};
use standpipe_sdk::{Schema, Sink, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

mod expected;
mod given;
mod plugged;

pub use expected::{Expected, What};

/// What a script is compiled with for one of its tests.
pub struct Testing<'a> {
    pub test: &'a crate::syntax::ast::Test,
    /// Where paths of the test start.
    pub folder: &'a Path,
    /// A folder of its own, for what has to lie in a file.
    pub scratch: &'a Path,
    /// Rows that a worker takes of what is given, where not as usual.
    pub claim_rows: Option<usize>,
    /// Makes the sink of what is expected, by its key: the name of a stream, a path in quotes.
    pub capture: &'a (dyn Fn(&str) -> SinkMaker + Sync),
}

/// What a builder knows of the test.
#[derive(Default)]
pub(super) struct Tested {
    /// Inputs that are not replaced, with what is wrong where rows of them are needed.
    pending: Vec<(NodeId, Vec<Diagnostic>)>,
    /// Steps of the test that replaced something.
    used: BTreeSet<Span>,
    /// Paths that the script reads.
    reads: BTreeSet<String>,
    /// The paths of the sink being made.
    pub(super) writing: Vec<String>,
    /// Rows that sinks were given.
    written: BTreeMap<String, Rows>,
}

/// What stands in the place of a source.
pub(super) enum Replacement {
    Rows(Schema, Vec<Vec<Value>>),
    /// The same source, another file.
    File,
    /// A mistake that was reported.
    Nothing,
    /// It is not replaced.
    None,
}

/// The key of a path.
pub(super) fn path_key(path: &str) -> String {
    format!("{path:?}")
}

fn key_of(subject: &Subject) -> String {
    if subject.is_path {
        path_key(&subject.name.text)
    } else {
        subject.name.text.clone()
    }
}

impl<'a> Checker<'a> {
    /// What stands behind `with` in the test.
    fn bindings(&self) -> impl Iterator<Item = &'a Binding> + use<'a> {
        let steps = self.options.testing.map_or(&[][..], |testing| &testing.test.steps);
        steps.iter().flat_map(|step| match &step.kind {
            TestStepKind::With(bindings) => bindings.as_slice(),
            _ => &[],
        })
    }

    /// What the test says of the parameter `name`, or of `now`: where its name stands, and its value.
    pub(super) fn binding(&self, name: &str) -> Option<(Span, &'a Expr)> {
        self.bindings().find_map(|binding| match binding {
            Binding::Value { name: own, value } if own.text == name => Some((own.span, value)),
            _ => None,
        })
    }

    /// What `now()` gives.
    pub(super) fn now_of_test(&self) -> Option<i64> {
        let (_, given) = self.binding("now")?;
        let value = self.constant(given, &Scope::CONSTANT)?;
        match value.as_value() {
            Some(Value::Timestamp(micros)) => Some(micros),
            _ => {
                self.report(
                    Diagnostic::error("E1004", given.span, "`now` is a timestamp")
                        .labelled(format!("this is {}", value.ty))
                        .help("`now = @2026-01-31T00:00:00Z`"),
                );
                None
            }
        }
    }

    /// Names in `with` that are no parameters, and those that stand twice.
    pub(super) fn check_bindings(&self) {
        let names = self.names.borrow();
        let params: Vec<&str> = names
            .values
            .iter()
            .filter(|(_, decl)| decl.kind.word() == "param")
            .map(|(name, _)| *name)
            .collect();
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        let mut once = |name: String, span: Span| {
            if let Some(earlier) = seen.insert(name.clone(), span) {
                self.report(
                    Diagnostic::error("E0119", span, format!("`{name}` is given twice"))
                        .labelled("the second")
                        .also(earlier, "the first"),
                );
            }
        };
        for binding in self.bindings() {
            let ident = match binding {
                Binding::Value { name, .. } => name,
                Binding::Plugged(plugged) => {
                    once(plugged.full_name(), plugged.name_span());
                    continue;
                }
            };
            let name = ident.text.as_str();
            once(name.to_owned(), ident.span);
            if name == "now" || params.contains(&name) {
                continue;
            }
            let near = suggest(name, params.iter().copied().chain(["now"]));
            let known = match params.as_slice() {
                [] => "the script declares no `param`; `now` can be set".to_owned(),
                params => format!("parameters here: {}, and `now`", list_names(params, 12)),
            };
            self.report(
                Diagnostic::error("E0214", ident.span, format!("no `param {name}` in this script"))
                    .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                    .note(known),
            );
        }
    }
}

impl<'a> Builder<'_, 'a> {
    /// A source of rows that the test gives.
    pub(super) fn given(&mut self, span: Span, schema: Schema, rows: Vec<Vec<Value>>) -> (Edge, Rows) {
        let detail = super::sources::count_rows(rows.len());
        let claim_rows = self.checker.options.testing.and_then(|testing| testing.claim_rows);
        let bound = match claim_rows {
            Some(claim_rows) => from::literal_in_claims(schema, rows, claim_rows),
            None => from::literal(schema, rows),
        };
        self.literal("given", detail, span, bound)
    }

    /// Rows of a stream go to the test if it expects something of them.
    pub(super) fn capture_stream(&mut self, name: &str, state: &State) {
        let Some(testing) = self.checker.options.testing else {
            return;
        };
        let expected = subjects(testing.test).any(|subject| !subject.is_path && subject.name.text == name);
        if !expected {
            return;
        }
        let schema = state.rows.schema();
        let make = (testing.capture)(name)(&schema);
        let mut node = NewNode::new(
            "expect",
            Span::default(),
            vec![state.edge],
            schema.clone(),
            Op::Sink(make),
        );
        node.detail = name.to_owned();
        node.facts.reads = (0..schema.width()).collect();
        self.draft.push(node);
    }

    /// What a sink does in a test: nothing outside of it.
    pub(super) fn capture_sink(&mut self, rows: &Rows) -> Option<Factory<Arc<dyn Sink>>> {
        self.checker.options.testing?;
        let paths = std::mem::take(&mut self.tested.writing);
        let path = paths.first().cloned().unwrap_or_default();
        self.capture_path(&path, rows)
    }

    pub(super) fn capture_path(&mut self, path: &str, rows: &Rows) -> Option<Factory<Arc<dyn Sink>>> {
        let testing = self.checker.options.testing?;
        self.tested.written.insert(path.to_owned(), rows.clone());
        Some((testing.capture)(&path_key(path))(&rows.schema()))
    }

    /// Only what the test looks at and what the script ends in is run.
    fn prune(&mut self) {
        let count = self.draft.nodes.len();
        let mut alive = vec![false; count];
        for id in (0..count).rev() {
            let node = &self.draft.nodes[id];
            alive[id] |= matches!(node.op, Op::Sink(_));
            if alive[id] {
                for edge in &node.inputs {
                    alive[edge.from] = true;
                }
            }
        }
        for (id, diagnostics) in std::mem::take(&mut self.tested.pending) {
            if alive.get(id).copied().unwrap_or(false) {
                diagnostics.into_iter().for_each(|diagnostic| self.report(diagnostic));
            }
        }
        if self.checker.has_errors() {
            return;
        }
        let mut places = vec![0; count];
        let mut next = 0;
        for (place, alive) in places.iter_mut().zip(&alive) {
            *place = next;
            next += usize::from(*alive);
        }
        let mut keep = alive.iter();
        self.draft.nodes.retain(|_| keep.next().copied().unwrap_or(false));
        let mut keep = alive.iter();
        self.draft.facts.retain(|_| keep.next().copied().unwrap_or(false));
        for node in &mut self.draft.nodes {
            for edge in &mut node.inputs {
                edge.from = places[edge.from];
            }
        }
    }
}

/// What the expectations of a test look at.
fn subjects(test: &crate::syntax::ast::Test) -> impl Iterator<Item = &Subject> {
    test.steps.iter().filter_map(|step| match &step.kind {
        TestStepKind::Expect(
            Expect::Rows { stream, .. }
            | Expect::Schema { stream, .. }
            | Expect::Count { stream, .. }
            | Expect::Snapshot { stream, .. },
        ) => Some(stream),
        _ => None,
    })
}
