//! Where rows come from: `read` and literal sources.

use super::call::{Resolved, Resolver};
use super::draft::{NewNode, out};
use super::hints;
use super::pipelines::{Builder, State, source_op};
use super::rows::Rows;
use super::tested::Replacement;
use crate::diag::{Diagnostic, Span, suggest};
use crate::formats::input;
use crate::graph::{Edge, OnError, Op, Policy};
use crate::stages::from;
use crate::syntax::ast::{self, Ident, StageCall, Table};
use standpipe_sdk::spec::{Arg, Bound, Call, Complaint, FormatSide, FormatSpec, Kind, Make, Plan, StageSpec};
use standpipe_sdk::{Field, Schema, Value};

/// Standard input or output.
pub(super) const STANDARD: &str = "-";

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
        let (edge, rows) = self.source(spec, format.name, bound, call, policy, to);
        if let (true, Some(facts)) = (self.checker.options.look, self.draft.facts.get_mut(edge.from)) {
            let paths = paths(&resolved, call);
            let paths: Vec<&str> = paths.iter().map(|(path, _)| path.as_str()).collect();
            let is_all = paths.len() == call.items.len();
            facts.file_bytes = input::bytes_on_disk(&paths, self.checker.options.folder).filter(|_| is_all);
        }
        (edge, rows)
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
        if let Some(plugged) = self.checker.plugged(module, name) {
            return self.plugged_source(call, plugged);
        }
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
    pub(super) fn format(
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

    /// `from table { … }`
    pub(super) fn table(&mut self, table: &'a Table, span: Span) -> (Edge, Rows) {
        match self.checker.table_rows(table) {
            Some((schema, rows)) => {
                let detail = count_rows(rows.len());
                let (edge, rows) = self.literal("from table", detail, span, from::literal(schema, rows));
                self.as_large_as_its_text(edge, span);
                (edge, rows)
            }
            None => self.nothing(),
        }
    }

    /// `from rows [ … ]`
    pub(super) fn rows(&mut self, rows: &'a [ast::Expr], span: Span) -> (Edge, Rows) {
        match self.checker.record_rows(rows, span) {
            Some((schema, rows)) => {
                let detail = count_rows(rows.len());
                let (edge, rows) = self.literal("from rows", detail, span, from::literal(schema, rows));
                self.as_large_as_its_text(edge, span);
                (edge, rows)
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

    fn as_large_as_its_text(&mut self, edge: Edge, span: Span) {
        if let Some(facts) = self.draft.facts.get_mut(edge.from) {
            facts.file_bytes = Some(u64::from(span.end - span.start));
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
pub(super) fn paths(resolved: &Resolved, call: &StageCall) -> Vec<(String, Span)> {
    let path = |(item, written): (&standpipe_sdk::spec::Item, &ast::StageItem)| match &item.arg {
        Arg::Const(Value::String(path)) => Some((path.clone(), written.span)),
        _ => None,
    };
    resolved.items.iter().zip(&call.items).filter_map(path).collect()
}
