//! Where rows end: `write` and printing.

use super::call::{Resolved, Resolver};
use super::draft::NewNode;
use super::pipelines::{Builder, State};
use super::sources::{STANDARD, paths};
use crate::diag::{Diagnostic, Span};
use crate::graph::{Edge, Op, Policy};
use crate::stages::write::none_sink;
use crate::syntax::ast::{self, Ident, Pipeline, StageCall};
use standpipe_sdk::spec::{Bound, Factory, Make, StageSpec};
use standpipe_sdk::{Code, Error, Sink};
use std::sync::Arc;

impl<'a> Builder<'_, 'a> {
    /// `write F path`, `write none`
    pub(super) fn sink(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        state.ended = true;
        let (policy, to) = self.policy(call, state.default_policy && call.on_error.is_some());
        if let Some(to) = to {
            self.report(
                Diagnostic::error(
                    "E0901",
                    call.span,
                    format!("`on error to {to}` at the end of a pipeline is not available yet"),
                )
                .labelled("rows that cannot be written")
                .help("`on error skip` counts them"),
            );
        }
        if let Some(by) = call.by.first().filter(|_| spec.by.max == 0) {
            self.report(
                Diagnostic::error("E0901", by.span, format!("`{} … by` is not available yet", spec.name))
                    .labelled("one file for each value"),
            );
            return;
        }
        if let Some((module, name, at)) = call.member() {
            return self.write_plugin(state, call, &module, &name, at, policy);
        }
        // `write none`: a word that is no format.
        let word = match (&call.mode, call.items.as_slice()) {
            (Some(mode), _) => Some(mode),
            (None, [item]) => item.expr().and_then(ast::Expr::as_name),
            (None, _) => None,
        };
        let own_mode = word.filter(|word| spec.modes.contains(&word.text.as_str()));
        let (bound, text, name, computed) = match own_mode {
            Some(mode) => {
                let plain = StageCall {
                    mode: Some(mode.clone()),
                    items: if call.mode.is_some() {
                        call.items.clone()
                    } else {
                        vec![]
                    },
                    ..call.clone()
                };
                let resolved = Resolver::new(self.checker, &state.rows, false).resolve(spec, &plain);
                let bound = self.bind(spec.bind, state, &resolved, call, &[]);
                (bound, false, format!("{} {}", spec.name, mode.text), resolved.computed)
            }
            None => {
                let Some((format, side)) = self.format(call, |format| format.write.as_ref()) else {
                    return;
                };
                let (mut resolved, assumed) = self.checker.assuming(|| {
                    Resolver::new(self.checker, &state.rows, false).resolve_format(spec, side.options, call)
                });
                if !assumed {
                    self.one_writer(call, &resolved);
                }
                self.tested.writing = paths(&resolved, call).into_iter().map(|(path, _)| path).collect();
                let bound = self.bind_format(side, &state.rows, &mut resolved, call);
                (bound, true, format!("{} {}", spec.name, format.name), resolved.computed)
            }
        };
        let Some(bound) = bound else {
            return;
        };
        let captured = match text {
            true => self.capture_sink(&state.rows),
            false => None,
        };
        let text = text && captured.is_none();
        let edge = self.compute(state.edge, &state.rows, computed, &name, call, policy, None);
        let detail = if own_mode.is_some() {
            String::new()
        } else {
            self.detail(call)
        };
        self.ends_in(state, spec, bound, name, call, detail, policy, (edge, text, captured));
    }

    /// `write geo.features …`: a sink of a plugin. Its arguments stand behind the first `from` items.
    fn write_plugin(
        &mut self,
        state: &State,
        call: &'a StageCall,
        module: &Ident,
        name: &Ident,
        from: usize,
        policy: Policy,
    ) {
        let Some(spec) = self.checker.plugin_sink(module, name) else {
            self.checker.seen_in(call);
            return;
        };
        let own = StageCall {
            name: vec![module.clone(), name.clone()],
            mode: None,
            items: call.items[from..].to_vec(),
            ..call.clone()
        };
        let (resolved, assumed) = self
            .checker
            .assuming(|| Resolver::new(self.checker, &state.rows, false).resolve(spec, &own));
        if assumed {
            // Where it goes is not known without the parameter.
            let name = format!("write {}", spec.name);
            let nowhere = Op::Sink(Box::new(|_| Ok(none_sink())));
            let mut node = NewNode::new(name, call.span, vec![state.edge], state.rows.schema(), nowhere);
            node.detail = self.detail(&own);
            self.draft.push(node);
            return;
        }
        // The plugin writes by itself, and its process may be another one.
        let first = paths(&resolved, &own).into_iter().next();
        if let Some((_, span)) = first.filter(|(path, _)| path == STANDARD) {
            self.report(
                Diagnostic::error(
                    "E0901",
                    span,
                    format!("`{}` cannot write to standard output yet", spec.name),
                )
                .labelled("standard output")
                .help("the name of a file; `-` is for the built-in formats, as in `write csv \"-\"`"),
            );
            return;
        }
        self.one_writer(&own, &resolved);
        self.tested.writing = paths(&resolved, &own).into_iter().map(|(path, _)| path).collect();
        let Some(bound) = self.bind(spec.bind, state, &resolved, &own, &[]) else {
            return;
        };
        let captured = self.capture_sink(&state.rows);
        let name = format!("write {}", spec.name);
        let edge = self.compute(state.edge, &state.rows, resolved.computed, &name, call, policy, None);
        let detail = self.detail(&own);
        self.ends_in(state, spec, bound, name, call, detail, policy, (edge, false, captured));
    }

    /// The node of a bound sink; with the edge that leads to it come whether it takes cells as text, and what stands in its place.
    fn ends_in(
        &mut self,
        state: &State,
        spec: &StageSpec,
        bound: Bound,
        name: String,
        call: &StageCall,
        detail: String,
        policy: Policy,
        (edge, text, captured): (Edge, bool, Option<Factory<Arc<dyn Sink>>>),
    ) {
        let Make::Sink(make) = bound.make else {
            return self.inconsistent(call);
        };
        let make = captured.unwrap_or(make);
        let mut node = NewNode::new(name, call.span, vec![edge], state.rows.schema(), Op::Sink(make));
        node.detail = detail;
        node.order = spec.order;
        node.memory = spec.memory;
        node.least = spec.least;
        node.policy = policy;
        node.facts.lineage = bound.lineage;
        node.facts.reads = match self.checker.options.testing {
            Some(_) => (0..state.rows.fields.len()).collect(),
            None => bound.reads,
        };
        node.facts.text = text;
        node.facts.places = bound.needs_places;
        self.draft.push(node);
    }

    fn one_writer(&mut self, call: &StageCall, resolved: &Resolved) {
        for (path, span) in paths(resolved, call) {
            self.claim_path(&path, span);
        }
    }

    /// Each path has one writer.
    fn claim_path(&mut self, path: &str, span: Span) {
        let key = if path == STANDARD {
            path.to_owned()
        } else {
            plain_path(path)
        };
        let Some(earlier) = self.written.insert(key, span) else {
            return;
        };
        let diagnostic = if path == STANDARD {
            Diagnostic::error("E0611", span, "standard output is written twice")
                .labelled("the second writer")
                .help("`union` puts the rows of both into one")
        } else {
            Diagnostic::error("E0607", span, format!("`{path}` is written twice"))
                .labelled("the second writer")
                .help("`union` puts the rows of both into one file")
        };
        self.report(if earlier == Span::default() {
            diagnostic
        } else {
            diagnostic.also(earlier, "the first")
        });
    }

    /// The last pipeline without a sink is printed.
    pub(super) fn print(&mut self, state: &State, pipeline: &Pipeline) {
        let end = Span::new(pipeline.span.end.saturating_sub(1) as usize, pipeline.span.end as usize);
        self.claim_path(STANDARD, pipeline.stages.last().map_or(end, |stage| stage.span));
        let schema = state.rows.schema();
        let captured = self.capture_path(STANDARD, &state.rows);
        let text = captured.is_none();
        let make: Factory<Arc<dyn Sink>> = match (captured, self.checker.options.print) {
            (Some(captured), _) => captured,
            (None, Some(print)) => print(&schema),
            (None, None) => Box::new(|_| Err(Error::failed(Code(509), "nothing was given to print the rows to"))),
        };
        let mut node = NewNode::new("print", pipeline.span, vec![state.edge], schema.clone(), Op::Sink(make));
        node.facts.lineage = (0..schema.width()).map(standpipe_sdk::spec::Lineage::From).collect();
        node.facts.text = text;
        if !text {
            node.facts.reads = (0..schema.width()).collect();
        }
        self.draft.push(node);
    }
}

/// A path without `.` and `a/..`, so that two ways to write one path are seen as one.
fn plain_path(path: &str) -> String {
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|last| !last.is_empty() && *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
