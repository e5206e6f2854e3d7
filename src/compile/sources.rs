//! Where rows come from and where they end: `read`, `write`, literal sources, printing.

use super::call::{Resolved, Resolver};
use super::draft::{NewNode, out};
use super::hints;
use super::pipelines::{Builder, State, source_op};
use super::rows::Rows;
use super::tested::Replacement;
use crate::diag::{Diagnostic, Span, suggest};
use crate::graph::{Edge, OnError, Op, Policy};
use crate::stages::from;
use crate::syntax::ast::{self, Ident, Pipeline, StageCall, Table};
use standpipe_sdk::spec::{Arg, Bound, Call, Complaint, Factory, FormatSide, FormatSpec, Kind, Make, Plan, StageSpec};
use standpipe_sdk::{Code, Error, Field, Schema, Sink, Value};
use std::sync::Arc;

/// Standard input or output.
const STANDARD: &str = "-";

impl<'r, 'a> Builder<'r, 'a> {
    /// `read F path, …`
    pub(super) fn read(&mut self, call: &'a StageCall, default_policy: bool) -> (Edge, Rows) {
        let Some(spec) = self.checker.spec_of(call).filter(|spec| spec.kind == Kind::Source) else {
            self.checker.stage_missing(call);
            return self.nothing();
        };
        if let Some((module, name, at)) = call.member() {
            return self.read_plugin(call, &module, &name, at, default_policy);
        }
        let (policy, to) = self.policy(call, default_policy);
        let Some((format, side)) = self.format(call, |format| format.read.as_ref()) else {
            return self.nothing();
        };
        let rows = Rows::default();
        let (mut resolved, assumed) = self
            .checker
            .assuming(|| Resolver::new(self.checker, &rows, false).resolve_format(spec, side.options, call));
        if assumed {
            // Which file it is, and so what its columns are, is not known without the parameter.
            let name = format!("{} {}", spec.name, format.name);
            let mut node = NewNode::new(name, call.span, vec![], Schema::default(), Op::Pass);
            node.detail = self.detail(call);
            return (out(self.draft.push(node)), Rows::unknown());
        }
        self.one_standard_input(call, &resolved);
        if self.checker.options.testing.is_some() {
            let read = paths(&resolved, call).into_iter().map(|(path, _)| path).collect();
            match self.given_source(read, format, side, &rows, &mut resolved, call) {
                Replacement::Rows(schema, values) => {
                    let (edge, rows) = self.given(call.span, schema, values);
                    self.draft.nodes[edge.from].policy = policy;
                    self.feeds(edge.from, to);
                    return (edge, rows);
                }
                Replacement::Nothing => return self.nothing(),
                Replacement::File => {}
                Replacement::None => return self.not_given(side, &rows, &resolved, call),
            }
        }
        let Some(bound) = self.bind_format(side, &rows, &mut resolved, call) else {
            return self.nothing();
        };
        self.source(spec, format.name, bound, call, policy, to)
    }

    /// `read synth.rows …`: a source of a plugin. Its arguments stand behind the first `from` items.
    fn read_plugin(
        &mut self,
        call: &'a StageCall,
        module: &Ident,
        name: &Ident,
        from: usize,
        default_policy: bool,
    ) -> (Edge, Rows) {
        let (policy, to) = self.policy(call, default_policy);
        let Some(spec) = self.checker.plugin_source(module, name) else {
            self.checker.seen_in(call);
            return self.nothing();
        };
        let own = StageCall {
            name: vec![module.clone(), name.clone()],
            mode: None,
            items: call.items[from..].to_vec(),
            ..call.clone()
        };
        let rows = Rows::default();
        let (resolved, assumed) = self
            .checker
            .assuming(|| Resolver::new(self.checker, &rows, false).resolve(spec, &own));
        if assumed {
            let mut node = NewNode::new(
                format!("read {}", spec.name),
                call.span,
                vec![],
                Schema::default(),
                Op::Pass,
            );
            node.detail = self.detail(&own);
            return (out(self.draft.push(node)), Rows::unknown());
        }
        let state = State {
            edge: out(0),
            rows,
            ended: false,
            default_policy: false,
        };
        let Some(bound) = self.bind(spec.bind, &state, &resolved, &own, &[]) else {
            return self.nothing();
        };
        self.source(spec, spec.name, bound, &own, policy, to)
    }

    /// The node of a bound source.
    fn source(
        &mut self,
        spec: &'static StageSpec,
        format: &str,
        bound: Bound,
        call: &StageCall,
        policy: Policy,
        to: Option<&'a str>,
    ) -> (Edge, Rows) {
        let Make::Source(make) = bound.make else {
            self.inconsistent(call);
            return self.nothing();
        };
        let schema = match policy.on_error {
            // Any cell that cannot be read is null.
            OnError::Null => bound
                .schema
                .fields()
                .iter()
                .map(|f| Field::new(f.name.clone(), f.ty.clone(), true))
                .collect(),
            _ => bound.schema,
        };
        let mut node = NewNode::new(
            format!("read {format}"),
            call.span,
            vec![],
            schema.clone(),
            source_op(make, &schema),
        );
        node.detail = self.detail(call);
        node.order = spec.order;
        node.memory = spec.memory;
        node.policy = policy;
        node.facts.sorted_by = bound.sorted_by;
        let id = self.draft.push(node);
        self.feeds(id, to);
        (out(id), Rows::known(&schema))
    }

    /// The format that the mode word names, and its side.
    fn format(
        &self,
        call: &StageCall,
        side: impl Fn(&'static FormatSpec) -> Option<&'static FormatSide>,
    ) -> Option<(&'static FormatSpec, &'static FormatSide)> {
        let stage = call.full_name();
        let formats = self.checker.options.formats;
        let Some(mode) = &call.mode else {
            let path = call
                .items
                .iter()
                .find_map(|item| match item.expr().map(|expr| &expr.kind) {
                    Some(ast::ExprKind::Str(path)) => Some(path.as_str()),
                    _ => None,
                });
            let by_name = path.and_then(|path| {
                let plain = path.trim_end_matches(".gz").trim_end_matches(".zst");
                formats
                    .iter()
                    .find(|format| format.extensions.iter().any(|end| plain.ends_with(end)))
            });
            let format = by_name.map_or("csv", |format| format.name);
            let shown = path.map_or_else(|| "\"path\"".to_owned(), |path| format!("{path:?}"));
            self.report(
                Diagnostic::error("E0217", call.name_span(), format!("`{stage}` needs a format"))
                    .labelled("no format stands behind it")
                    .help(format!("`{stage} {format} {shown}`")),
            );
            return None;
        };
        let found = formats.iter().copied().find(|format| format.name == mode.text);
        match found {
            Some(format) => match side(format) {
                Some(side) => Some((format, side)),
                None => {
                    self.report(
                        Diagnostic::error(
                            "E0904",
                            mode.span,
                            format!("`{stage} {}` is not available yet", mode.text),
                        )
                        .labelled("this format goes one way only"),
                    );
                    None
                }
            },
            None => {
                self.format_missing(mode, &stage);
                None
            }
        }
    }

    fn format_missing(&self, mode: &Ident, stage: &str) {
        let text = mode.text.as_str();
        if hints::FORMATS.contains(&text) {
            self.report(
                Diagnostic::error("E0904", mode.span, format!("the format `{text}` is not available yet"))
                    .labelled(format!("this version cannot {stage} it")),
            );
            return;
        }
        let names: Vec<&str> = self.checker.options.formats.iter().map(|format| format.name).collect();
        let near = suggest(text, &names);
        self.report(
            Diagnostic::error("E0217", mode.span, format!("format `{text}` not found"))
                .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                .note(format!("formats: {}", crate::diag::list_names(&names, 12))),
        );
    }

    pub(super) fn bind_format(
        &self,
        side: &FormatSide,
        rows: &Rows,
        resolved: &mut Resolved,
        call: &StageCall,
    ) -> Option<Bound> {
        let state = State {
            edge: out(0),
            rows: rows.clone(),
            ended: false,
            default_policy: false,
        };
        let warn = |complaint: Complaint| self.checker.complain(complaint, None);
        let plan = Plan {
            folder: self.checker.options.folder,
            look: self.checker.options.look,
            warn: &warn,
        };
        self.bind(|call: &Call<'_>| (side.bind)(call, &plan), &state, resolved, call, &[])
    }

    fn one_standard_input(&mut self, call: &StageCall, resolved: &Resolved) {
        for (path, span) in paths(resolved, call) {
            if path == STANDARD
                && let Some(earlier) = self.standard_input.replace(span)
            {
                self.report(
                    Diagnostic::error("E0611", span, "standard input is read twice")
                        .labelled("the second reader")
                        .also(earlier, "the first")
                        .help("`stream` gives its rows a name; a stream may be used any number of times"),
                );
            }
        }
    }

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
        let Make::Sink(make) = bound.make else {
            return self.inconsistent(call);
        };
        let captured = match text {
            true => self.capture_sink(&state.rows),
            false => None,
        };
        let text = text && captured.is_none();
        let make = captured.unwrap_or(make);
        let edge = self.compute(state.edge, &state.rows, computed, &name, call, policy, None);
        let mut node = NewNode::new(name, call.span, vec![edge], state.rows.schema(), Op::Sink(make));
        node.detail = if own_mode.is_some() {
            String::new()
        } else {
            self.detail(call)
        };
        node.order = spec.order;
        node.memory = spec.memory;
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

    /// `from table { … }`
    pub(super) fn table(&mut self, table: &'a Table, span: Span) -> (Edge, Rows) {
        match self.checker.table_rows(table) {
            Some((schema, rows)) => {
                let detail = count_rows(rows.len());
                self.literal("from table", detail, span, from::literal(schema, rows))
            }
            None => self.nothing(),
        }
    }

    /// `from rows [ … ]`
    pub(super) fn rows(&mut self, rows: &'a [ast::Expr], span: Span) -> (Edge, Rows) {
        match self.checker.record_rows(rows, span) {
            Some((schema, rows)) => {
                let detail = count_rows(rows.len());
                self.literal("from rows", detail, span, from::literal(schema, rows))
            }
            None => self.nothing(),
        }
    }

    /// `from range(a, b)`
    pub(super) fn range(&mut self, args: &'a [ast::Arg], span: Span) -> (Edge, Rows) {
        let mut ends = vec![];
        for arg in args {
            let value = self.checker.constant(&arg.value, &super::expressions::Scope::CONSTANT);
            match value.map(|value| value.as_value()) {
                Some(Some(Value::Int(end))) => ends.push(end),
                Some(_) => self.report(
                    Diagnostic::error("E0301", arg.value.span, "the ends of a range are ints").labelled("not an int"),
                ),
                None => {}
            }
        }
        if args.len() != 2 {
            self.report(
                Diagnostic::error("E0517", span, "`range` takes its first and its last number")
                    .labelled(format!("{} given", args.len())),
            );
        }
        match (ends.as_slice(), args.len()) {
            (&[first, last], 2) => self.literal(
                "from range",
                format!("({first}, {last})"),
                span,
                from::range(first, last),
            ),
            _ => self.nothing(),
        }
    }

    pub(super) fn literal(&mut self, name: &str, detail: String, span: Span, bound: Bound) -> (Edge, Rows) {
        let Make::Source(make) = bound.make else {
            return self.nothing();
        };
        let op = source_op(make, &bound.schema);
        let mut node = NewNode::new(name, span, vec![], bound.schema.clone(), op);
        node.detail = detail;
        let id = self.draft.push(node);
        (out(id), Rows::known(&bound.schema))
    }
}

pub(super) fn count_rows(rows: usize) -> String {
    format!("{rows} row{}", if rows == 1 { "" } else { "s" })
}

/// The constant paths of a call, and where each stands.
fn paths(resolved: &Resolved, call: &StageCall) -> Vec<(String, Span)> {
    let path = |(item, written): (&standpipe_sdk::spec::Item, &ast::StageItem)| match &item.arg {
        Arg::Const(Value::String(path)) => Some((path.clone(), written.span)),
        _ => None,
    };
    resolved.items.iter().zip(&call.items).filter_map(path).collect()
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
