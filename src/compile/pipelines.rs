//! Pipelines → nodes: heads, operators, ends.

use super::aggregates::Behind;
use super::attributes::Attributes;
use super::call::{Resolved, Resolver};
use super::draft::{Draft, Facts, NewNode, Told, out, pieces};
use super::names::{StreamKind, Unit, UnitKind};
use super::report::Checker;
use super::rows::Rows;
use crate::diag::{Diagnostic, Span, list_names};
use crate::graph::{Edge, NodeId, OnError, Op, Policy, Port};
use crate::syntax::ast::{self, HeadKind, Ident, Pipeline, StageCall};
use standpipe_sdk::spec::{
    BlockKind, Bound, Call, Class, Complaint, Item, Kind, Lineage, Make, Memory, Request, SourceFactory, StageSpec,
    Wanted,
};
use standpipe_sdk::{Field, Result, Schema, Type};
use std::cell::Cell;
use std::collections::BTreeMap;

/// How many nodes a path may have: the runtime calls from one to the next.
const MOST_DEPTH: usize = 1_000;

/// Builds the units of a script in order.
pub(super) struct Builder<'r, 'a> {
    pub(super) checker: &'r Checker<'a>,
    pub(super) attributes: &'r Attributes<'a>,
    pub(super) draft: Draft,
    /// Where streams end; `None` where a mistake hides it.
    pub(super) ends: BTreeMap<String, Option<End>>,
    /// Nodes that set rows aside, by stream.
    pub(super) rejecting: BTreeMap<String, Vec<NodeId>>,
    /// Paths that are written, and where the script says so.
    pub(super) written: BTreeMap<String, Span>,
    pub(super) standard_input: Option<Span>,
    too_long: bool,
    pub(super) tested: super::tested::Tested,
}

/// The end of a stream.
#[derive(Clone)]
pub(super) struct End {
    pub(super) edge: Edge,
    pub(super) rows: Rows,
}

/// A pipeline being built.
pub(super) struct State {
    pub(super) edge: Edge,
    pub(super) rows: Rows,
    /// Behind a sink.
    pub(super) ended: bool,
    /// Whether `@on_error` applies.
    pub(super) default_policy: bool,
}

impl<'r, 'a> Builder<'r, 'a> {
    pub(super) fn new(checker: &'r Checker<'a>, attributes: &'r Attributes<'a>) -> Self {
        Builder {
            checker,
            attributes,
            draft: Draft::default(),
            ends: BTreeMap::new(),
            rejecting: BTreeMap::new(),
            written: BTreeMap::new(),
            standard_input: None,
            too_long: false,
            tested: super::tested::Tested::default(),
        }
    }

    pub(super) fn build(mut self, units: &[Unit<'a>]) -> (Draft, Vec<super::Expected>) {
        for unit in units {
            match unit.kind {
                UnitKind::Pipeline { name, pipeline, last } => {
                    self.unit(name, pipeline, last, unit.default_policy, unit.broken);
                }
                UnitKind::Rejects(name) => self.rejects(name),
            }
        }
        let expected = self.expectations();
        (self.draft, expected)
    }

    fn unit(
        &mut self,
        name: Option<&'a Ident>,
        pipeline: &'a Pipeline,
        last: bool,
        default_policy: bool,
        broken: bool,
    ) {
        let replaced = name.and_then(|name| self.given_stream(&name.text));
        let (nodes, reported) = (self.draft.nodes.len(), self.checker.reported());
        let mut state = self.head(pipeline, default_policy);
        if broken {
            state.rows = Rows::unknown();
        }
        let late = self.stages(&mut state, &pipeline.stages);
        if let Some(late) = late {
            self.report(
                Diagnostic::error("E0510", late, "nothing can stand behind the end of a pipeline")
                    .labelled("the pipeline has ended")
                    .help("`tee { … }` gives a copy of the rows and goes on"),
            );
        }
        match name {
            Some(name) if state.ended => {
                self.report(
                    Diagnostic::error(
                        "E0510",
                        pipeline.span,
                        format!("the stream `{}` has no rows", name.text),
                    )
                    .labelled("it ends here")
                    .help(format!("without `stream {} =` it is a pipeline", name.text)),
                );
                self.ends.insert(name.text.clone(), None);
            }
            Some(name) => {
                if let Some(given) = replaced {
                    self.replace(&mut state, given, nodes, reported);
                }
                self.end(&name.text, &state);
            }
            None if state.ended => {}
            None if last => self.print(&state, pipeline),
            None => self.report(
                Diagnostic::error("E0509", pipeline.span, "this pipeline has no end")
                    .labelled("its rows go nowhere")
                    .help(
                        "`| write csv \"out.csv\"` writes them; only the last pipeline may go without, it is printed",
                    ),
            ),
        }
    }

    /// The stages one after the other; the span of one that stands behind the end.
    pub(super) fn stages(&mut self, state: &mut State, stages: &'a [StageCall]) -> Option<Span> {
        for call in stages {
            if state.ended {
                return Some(call.span);
            }
            self.stage(state, call);
        }
        None
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.checker.report(diagnostic);
    }

    /// A stream gets its name, and is handed to Rust if Rust asked for it.
    pub(super) fn end(&mut self, name: &str, state: &State) {
        let node = &mut self.draft.nodes[state.edge.from];
        if state.edge.port == Port::Out(0) && node.stream.is_none() && !matches!(node.op, Op::Route { .. }) {
            node.stream = Some(name.to_owned());
        }
        self.ends.insert(
            name.to_owned(),
            Some(End {
                edge: state.edge,
                rows: state.rows.clone(),
            }),
        );
        for output in self.checker.options.outputs.iter().filter(|output| output.name == name) {
            let schema = state.rows.schema();
            let mut node = NewNode::new(
                "output",
                Span::default(),
                vec![state.edge],
                schema.clone(),
                Op::Sink((output.make)(&schema)),
            );
            node.detail = name.to_owned();
            node.facts.reads = (0..schema.width()).collect();
            self.draft.push(node);
        }
        self.capture_stream(name, state);
    }

    /// A stream that a mistake hides.
    pub(super) fn no_end(&mut self, name: &str) {
        self.ends.entry(name.to_owned()).or_insert(None);
    }

    fn head(&mut self, pipeline: &'a Pipeline, default_policy: bool) -> State {
        let head = &pipeline.head;
        let (edge, rows) = match &head.kind {
            HeadKind::Stream(name) => match self.stream(name) {
                Some(end) => (end.edge, end.rows),
                None => self.nothing(),
            },
            HeadKind::Read(call) => self.read(call, default_policy),
            HeadKind::Table(table) => self.table(table, head.span),
            HeadKind::Rows(rows) => self.rows(rows, head.span),
            HeadKind::Range(args) => self.range(args, head.span),
        };
        State {
            edge,
            rows,
            ended: false,
            default_policy,
        }
    }

    /// Rows that nothing is known of, behind a mistake.
    pub(super) fn nothing(&mut self) -> (Edge, Rows) {
        let node = NewNode::new("nothing", Span::default(), vec![], Schema::default(), Op::Pass);
        (out(self.draft.push(node)), Rows::unknown())
    }

    /// The end of the stream of that name; says so if there is none.
    pub(super) fn stream(&mut self, name: &Ident) -> Option<End> {
        let decl = self.checker.names.borrow().streams.get(name.text.as_str()).cloned();
        let Some(decl) = decl else {
            let near = self.checker.nearest_stream(&name.text);
            let names = self.checker.names.borrow();
            let known: Vec<&str> = names.streams.keys().copied().collect();
            let note = match known.as_slice() {
                [] => "the script declares no `stream`".to_owned(),
                known => format!("streams here: {}", list_names(known, 12)),
            };
            self.report(
                Diagnostic::error("E0203", name.span, format!("stream `{}` not found", name.text))
                    .labelled(near.map_or_else(
                        || "no stream has this name".to_owned(),
                        |near| format!("`{near}` is close"),
                    ))
                    .note(note),
            );
            return None;
        };
        self.checker.names.borrow_mut().used_streams.insert(name.text.clone());
        if decl.made == StreamKind::Input && !self.ends.contains_key(&name.text) {
            self.input(&name.text);
        }
        self.ends.get(&name.text).cloned().flatten()
    }

    /// A stream that Rust feeds.
    fn input(&mut self, name: &str) {
        let Some(input) = self.checker.options.inputs.iter().find(|input| input.name == name) else {
            return;
        };
        let make = input.make.clone();
        let op = source_op(Box::new(move |setup, request| make(setup, request)), &input.schema);
        let mut node = NewNode::new("input", Span::default(), vec![], input.schema.clone(), op);
        node.detail = name.to_owned();
        let id = self.draft.push(node);
        self.draft.nodes[id].stream = Some(name.to_owned());
        let end = End {
            edge: out(id),
            rows: Rows::known(&input.schema),
        };
        self.ends.insert(name.to_owned(), Some(end));
    }

    fn stage(&mut self, state: &mut State, call: &'a StageCall) {
        if let [module, name] = call.name.as_slice()
            && let Some(plugged) = self.checker.plugged(module, name)
        {
            return self.plugged_stage(state, call, plugged);
        }
        let Some(spec) = self.checker.spec_of(call) else {
            self.checker.stage_missing(call);
            state.rows = Rows::unknown();
            self.hidden(call);
            return;
        };
        match (spec.kind, spec.block) {
            (Kind::Source, _) => {
                self.report(
                    Diagnostic::error("E0124", call.span, format!("`{}` starts a pipeline", spec.name))
                        .labelled("rows come in here already")
                        .help("`union` puts the rows of another stream behind these"),
                );
                state.rows = Rows::unknown();
            }
            (Kind::Sink, _) => self.sink(state, spec, call),
            (Kind::Wiring, BlockKind::Route) => self.route(state, spec, call),
            (Kind::Wiring, BlockKind::Tee) => self.tee(state, spec, call),
            (Kind::Wiring, BlockKind::None) => self.union(state, spec, call),
            (Kind::Probe, _) => self.probe(state, spec, call),
            _ => self.operator(state, spec, call),
        }
        if !self.too_long && self.draft.facts[state.edge.from].depth > MOST_DEPTH {
            self.too_long = true;
            self.report(
                Diagnostic::error("E0518", call.span, "the pipeline is too long")
                    .labelled(format!("the path to here has more than {MOST_DEPTH} stages")),
            );
        }
    }

    /// What an unknown stage would make: its streams, and pipelines of its own.
    pub(super) fn hidden(&mut self, call: &'a StageCall) {
        match call.block.as_ref().map(|block| &block.kind) {
            Some(ast::BlockKind::Arms(arms)) => {
                for arm in arms {
                    self.no_end(&arm.target.text);
                }
            }
            Some(ast::BlockKind::Stages(stages)) => {
                for call in stages {
                    self.hidden(call);
                }
            }
            None => {}
        }
    }

    /// The policy of a stage: its own, or the script's.
    pub(super) fn policy(&mut self, call: &'a StageCall, default_policy: bool) -> (Policy, Option<&'a str>) {
        let Some(own) = &call.on_error else {
            if !default_policy {
                return (Policy::default(), None);
            }
            let to = self.attributes.to.map(|to| to.text.as_str());
            return (self.attributes.policy, to);
        };
        let limit = own.limit.as_ref().and_then(|limit| self.checker.limit(limit));
        let (on_error, to) = match &own.policy {
            ast::Policy::Fail => (OnError::Fail, None),
            ast::Policy::Skip => (OnError::Skip, None),
            ast::Policy::Null => (OnError::Null, None),
            ast::Policy::To(name) if name.is("_") => (OnError::Skip, None),
            ast::Policy::To(name) => (OnError::To, Some(name.text.as_str())),
        };
        (Policy { on_error, limit }, to)
    }

    /// A stage that runs as one operator, behind what the host computes for it.
    fn operator(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        let (policy, to) = self.policy(call, state.default_policy);
        let mut resolved =
            Resolver::new(self.checker, &state.rows, policy.on_error == OnError::Null).resolve(spec, call);
        let behind = resolved.behind.take();
        let (told, sorted, class) = (Cell::new(None), Cell::new(None), Cell::new(Class::of(spec)));
        let bind = |call: &Call<'_>| {
            let bound = (spec.bind)(call)?;
            told.set(Some(Told::of(spec, call)));
            sorted.set((spec.sorted)(call));
            class.set((spec.class)(call).unwrap_or(Class::of(spec)));
            Ok(bound)
        };
        let Some(bound) = self.bind(bind, state, &resolved, call, &[]) else {
            self.after_mistake(state, &resolved);
            return;
        };
        let mut rows = rows_behind(&state.rows, None, &resolved, &bound);
        let guess = resolved.guess;
        state.edge = self.compute(
            state.edge,
            &state.rows,
            resolved.computed,
            &spec_name(spec, &resolved.mode),
            call,
            policy,
            to,
        );
        let width = self.draft.nodes[state.edge.from].schema.width();
        let streaming = sorted.take().filter(|sorted| self.is_sorted(state.edge, &sorted.by));
        let (streamed, verdicts) = match streaming {
            Some(streaming) => (Some(streaming.serial), streaming.verdicts),
            None => (None, None),
        };
        let is_streamed = streamed.is_some();
        let op = match bound.make {
            Make::Breaker(make) => streamed.map_or_else(|| Op::Breaker(make), Op::Serial),
            Make::RowWise(make) => Op::RowWise(make),
            Make::Serial(make) => Op::Serial(make),
            Make::Rearrange => match picks(&bound.lineage, width) {
                Some(picks) => Op::Rearrange { picks },
                None => return self.inconsistent(call),
            },
            Make::Probe(_) | Make::Source(_) | Make::Sink(_) | Make::Wiring | Make::Merge(_) => {
                return self.inconsistent(call);
            }
        };
        let mut node = NewNode::new(
            spec_name(spec, &resolved.mode),
            call.span,
            vec![state.edge],
            bound.schema,
            op,
        );
        node.detail = self.detail(call);
        let class = class.get();
        node.order = class.order;
        node.memory = class.memory;
        node.least = class.least;
        node.takes_more = class.takes_more;
        node.holds_back = class.holds_back;
        if is_streamed {
            node.memory = Memory::Constant;
            node.least = StageSpec::BASE.least;
            node.takes_more = 0;
            node.holds_back = true;
            node.detail = format!("{} (its input is sorted)", node.detail);
        }
        let mut told: Told = told.take().unwrap_or_default();
        // Without a table it lives on the order of its input.
        told.unordered &= !is_streamed;
        let breaks = matches!(node.op, Op::Breaker(_));
        node.facts = Facts {
            lineage: bound.lineage,
            reads: bound.reads,
            places: bound.needs_places || breaks,
            sorted_by: bound.sorted_by,
            reads_places: bound.needs_places,
            told,
            ..Facts::default()
        };
        // Only a stage that asks for places sets rows aside: whole rows, in which there is no value to make null.
        if bound.needs_places {
            node.policy = policy;
            if policy.on_error == OnError::Null {
                self.no_value_to_null(call);
                node.policy.on_error = OnError::Fail;
            }
        }
        let fallible = behind.as_ref().is_some_and(|behind| behind.fallible);
        if let Some(verdicts) = verdicts.filter(|_| fallible) {
            let (name, schema) = (node.name.clone(), node.schema.clone());
            let before = out(self.draft.push(node));
            let make = verdicts(policy.on_error == OnError::Null);
            node = NewNode::new(name, call.span, vec![before], schema, Op::RowWise(make));
            node.facts = Facts {
                lineage: (0..node.schema.width()).map(Lineage::From).collect(),
                places: true,
                ..Facts::default()
            };
        }
        let fails = bound.needs_places || behind.as_ref().is_some_and(|behind| behind.fallible);
        if fails && !bound.needs_places {
            node.policy = policy;
        }
        node.facts.fails = fails;
        let name = node.name.clone();
        let id = self.draft.push(node);
        if fails {
            self.feeds(id, to);
        }
        state.edge = out(id);
        if let Some(behind) = behind {
            rows = self.behind(state, &rows, behind, guess, &name, call, (policy, to));
        }
        state.rows = rows;
    }

    /// Whether the rows of `edge` are sorted by these columns.
    fn is_sorted(&self, edge: Edge, by: &[usize]) -> bool {
        let sorted = self.draft.sorted_by(edge.from);
        matches!(edge.port, Port::Out(_))
            && by.len() <= sorted.len()
            && by.iter().zip(sorted).all(|(&by, key)| key == (by, false))
    }

    /// What is computed of keys and aggregates behind the stage that gives them.
    fn behind(
        &mut self,
        state: &mut State,
        rows: &Rows,
        behind: Behind,
        guess: bool,
        name: &str,
        call: &StageCall,
        (policy, to): (Policy, Option<&str>),
    ) -> Rows {
        let given = rows.fields.len();
        let fields: Vec<Field> = rows
            .fields
            .iter()
            .chain(behind.computed.iter().map(|computed| &computed.field))
            .cloned()
            .collect();
        let is_guess = |at: usize| match at.checked_sub(given) {
            None => rows.is_guess(at),
            Some(at) => guess || behind.computed.get(at).is_none_or(|computed| computed.guess),
        };
        let field = |(name, at): &(std::sync::Arc<str>, usize)| {
            let field = fields.get(*at);
            Field::new(
                name.clone(),
                field.map_or(Type::Null, |f| f.ty.clone()),
                field.is_none_or(|f| f.nullable),
            )
        };
        let made = Rows {
            fields: behind.picks.iter().map(field).collect(),
            guessed: behind.picks.iter().map(|(_, at)| is_guess(*at)).collect(),
            missing: rows.missing.clone(),
            unknown: rows.unknown,
        };
        state.edge = self.compute(state.edge, rows, behind.computed, name, call, policy, to);
        let picks: Vec<usize> = behind.picks.iter().map(|(_, at)| *at).collect();
        let node = NewNode::new(
            name,
            call.span,
            vec![state.edge],
            made.schema(),
            Op::Rearrange { picks },
        );
        state.edge = out(self.draft.push(node));
        made
    }

    fn no_value_to_null(&self, call: &StageCall) {
        // As a default of the script, `null` says nothing of such a stage; it fails.
        if let Some(own) = &call.on_error {
            self.report(
                Diagnostic::error(
                    "E0501",
                    own.span,
                    format!("`{}` has no value that could be null", call.full_name()),
                )
                .labelled("it sets whole rows aside")
                .help("`on error skip` leaves them out, `on error to rejects` keeps them"),
            );
        }
    }

    /// Our own declaration contradicts itself.
    pub(super) fn inconsistent(&self, call: &StageCall) {
        self.report(
            Diagnostic::error(
                "E0999",
                call.span,
                format!("`{}` is declared wrongly", call.full_name()),
            )
            .labelled("its declaration contradicts itself"),
        );
    }

    /// Node `id` sets rows aside to stream `to`.
    pub(super) fn feeds(&mut self, id: NodeId, to: Option<&str>) {
        if let Some(to) = to {
            self.rejecting.entry(to.to_owned()).or_default().push(id);
            self.draft.facts[id].places = true;
        }
    }

    /// What a stage says of resolved arguments; nothing if it was reported.
    pub(super) fn bind(
        &self,
        bind: impl Fn(&Call<'_>) -> Result<Bound, Vec<Complaint>>,
        state: &State,
        resolved: &Resolved,
        call: &StageCall,
        streams: &[Schema],
    ) -> Option<Bound> {
        if resolved.broken {
            return None;
        }
        let input = input_schema(&state.rows, resolved);
        let bound = bind(&Call {
            input: &input,
            own: state.rows.fields.len(),
            streams,
            beside: resolved.beside_schema.as_ref(),
            mode: resolved.mode.as_deref(),
            items: &resolved.items,
            by: &resolved.by,
            on: &resolved.on,
            as_name: resolved.as_name.as_deref(),
            options: &resolved.options,
            columns: &resolved.columns,
            span: call.span,
        });
        match bound {
            Ok(bound) => Some(bound),
            // With a guess among the arguments the complaint may be about the guess.
            Err(_) if resolved.guess || state.rows.unknown => None,
            Err(complaints) => {
                for complaint in complaints {
                    self.checker.complain(complaint, Some(&state.rows));
                }
                None
            }
        }
    }

    /// The rows behind a stage that could not be bound: those before it, and perhaps others.
    pub(super) fn after_mistake(&self, state: &mut State, resolved: &Resolved) {
        let names = resolved.items.iter().filter_map(|item| item.name.as_ref());
        state.rows.missing.extend(names.map(|name| name.to_string()));
        state.rows.missing.extend(resolved.missing.iter().cloned());
        state.rows.unknown = true;
        // A stage that is not bound may have changed any type.
        state.rows.guessed.iter_mut().for_each(|guess| *guess = true);
    }

    /// The nodes that compute a stage's expression arguments.
    pub(super) fn compute(
        &mut self,
        edge: Edge,
        rows: &Rows,
        computed: Vec<super::call::Computed>,
        name: &str,
        call: &StageCall,
        policy: Policy,
        to: Option<&str>,
    ) -> Edge {
        let own = rows.fields.len();
        let (fields, exprs): (Vec<Field>, Vec<_>) = computed.into_iter().map(|c| (c.field, c.expr)).unzip();
        let mut edge = edge;
        let mut width = own;
        for piece in pieces(exprs, own) {
            width += piece.len();
            let schema = rows.fields.iter().chain(&fields).take(width).cloned().collect();
            let fallible = piece.iter().any(|expr| expr.fallible);
            let reads_places = piece.iter().any(|expr| expr.reads_places());
            let detail: Vec<String> = piece.iter().map(ToString::to_string).collect();
            let op = Op::Compute {
                keep: vec![true; width - piece.len()],
                exprs: piece,
            };
            let mut node = NewNode::new(name, call.span, vec![edge], schema, op);
            node.detail = detail.join(", ");
            node.facts.places = fallible || reads_places;
            node.facts.fails = fallible;
            if fallible {
                node.policy = policy;
            }
            let id = self.draft.push(node);
            if fallible {
                self.feeds(id, to);
            }
            edge = out(id);
        }
        edge
    }

    /// The arguments of a call as written, on one line.
    pub(super) fn detail(&self, call: &StageCall) -> String {
        let text = self.checker.text_of(call.span);
        let name = call.mode.as_ref().map_or(call.name_span(), |mode| mode.span);
        let from = name.end.saturating_sub(call.span.start) as usize;
        super::explain::on_one_line(text.get(from..).unwrap_or(""))
    }

    /// The rows that stages set aside to one stream.
    fn rejects(&mut self, name: &'a str) {
        let schema = reject_schema();
        let feeders = self.rejecting.remove(name).unwrap_or_default();
        let span = self
            .checker
            .names
            .borrow()
            .streams
            .get(name)
            .map_or(Span::default(), |decl| decl.span);
        let id = if feeders.is_empty() {
            // Nothing can fail: there are no rows.
            match crate::stages::from::literal(schema.clone(), vec![]).make {
                Make::Source(make) => {
                    let op = source_op(make, &schema);
                    self.draft
                        .push(NewNode::new("rejects", span, vec![], schema.clone(), op))
                }
                _ => return,
            }
        } else {
            let inputs = feeders
                .into_iter()
                .map(|from| Edge {
                    from,
                    port: Port::Rejects,
                })
                .collect();
            let mut node = NewNode::new("rejects", span, inputs, schema.clone(), Op::Rejects);
            node.detail = name.to_owned();
            node.facts.places = true;
            self.draft.push(node)
        };
        let mut state = State {
            edge: out(id),
            rows: Rows::known(&schema),
            ended: false,
            default_policy: false,
        };
        self.replace_made(name, &mut state);
        self.end(name, &state);
    }
}

/// A source that is asked for everything, until a rewrite knows better.
pub(super) fn source_op(make: SourceFactory, schema: &Schema) -> Op {
    Op::Source {
        make,
        request: Request {
            columns: vec![Wanted::Yes; schema.width()],
            places: true,
        },
    }
}

/// The stream's own columns, then those the host computes.
pub(super) fn input_schema(rows: &Rows, resolved: &Resolved) -> Schema {
    rows.fields
        .iter()
        .chain(resolved.computed.iter().map(|computed| &computed.field))
        .cloned()
        .collect()
}

/// The rows a bound stage gives, and which of them are guesses.
///
/// `beside`: the second stream, if there is one.
pub(super) fn rows_behind(rows: &Rows, beside: Option<&Rows>, resolved: &Resolved, bound: &Bound) -> Rows {
    let own = rows.fields.len();
    let guess = |lineage: &Lineage| match *lineage {
        Lineage::From(index) if index < own => rows.is_guess(index),
        Lineage::From(index) => resolved.computed.get(index - own).is_none_or(|computed| computed.guess),
        Lineage::Beside(index) => beside.is_none_or(|rows| index < rows.fields.len() && rows.is_guess(index)),
        Lineage::BesideAll => beside.is_none_or(|rows| rows.guessed.contains(&true)),
        Lineage::New => resolved.guess,
    };
    let mut missing = rows.missing.clone();
    missing.extend(resolved.missing.iter().cloned());
    Rows {
        fields: bound.schema.fields().to_vec(),
        guessed: bound.lineage.iter().map(guess).collect(),
        missing,
        unknown: rows.unknown,
    }
}

/// The picks of a stage that only rearranges.
fn picks(lineage: &[Lineage], width: usize) -> Option<Vec<usize>> {
    let pick = |lineage: &Lineage| match *lineage {
        Lineage::From(index) if index < width => Some(index),
        _ => None,
    };
    lineage.iter().map(pick).collect()
}

/// `take`, `join left`.
pub(super) fn spec_name(spec: &StageSpec, mode: &Option<String>) -> String {
    match mode {
        Some(mode) => format!("{} {mode}", spec.name),
        None => spec.name.to_owned(),
    }
}

/// The name an argument that is a stream goes by in messages.
pub(super) fn name_streams(items: &mut [Item], streams: &[Ident]) {
    for item in items {
        if let standpipe_sdk::spec::Arg::Stream(index) = item.arg
            && item.name.is_none()
        {
            item.name = streams.get(index).map(|name| name.text.as_str().into());
        }
    }
}

/// The columns of a stream of rejects.
pub(super) fn reject_schema() -> Schema {
    Schema::new(vec![
        Field::new("code", Type::String, false),
        Field::new("message", Type::String, false),
        Field::new("step", Type::String, false),
        Field::new("script_line", Type::Int, false),
        Field::new("source", Type::String, true),
        Field::new("line", Type::Int, true),
        Field::new("row", Type::Int, true),
        Field::new("byte", Type::Int, true),
        Field::new("record", Type::Json, true),
        Field::new("raw", Type::Bytes, true),
    ])
}
