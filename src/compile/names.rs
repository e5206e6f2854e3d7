//! The names a script declares, one namespace each, and the order in which its pipelines can be built.
//!
//! Laws
//! - A name stands once in its namespace; of two the first counts.
//! - What is not available yet is said once, at its declaration; uses of it stay silent.

use super::attributes::Attributes;
use super::report::Checker;
use crate::diag::{Diagnostic, Span, suggest};
use crate::plugin::Library;
use crate::syntax::ast::{
    Binding, BlockKind, Expect, Expr, FnDef, GivenTarget, HeadKind, Ident, ItemKind, OnError, Pipeline, Policy, Schema,
    StageCall, StageDef, Str, Test, TestStepKind, UseTarget,
};
use standpipe_sdk::spec::{ArgKind, StageSpec};
use std::collections::{BTreeMap, BTreeSet};

/// Index into the units.
pub(super) type UnitId = usize;

/// Everything a script declares.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) values: BTreeMap<&'a str, ValueDecl<'a>>,
    pub(super) functions: BTreeMap<&'a str, &'a FnDef>,
    pub(super) stages: BTreeMap<&'a str, &'a StageDef>,
    pub(super) schemas: BTreeMap<&'a str, &'a Schema>,
    /// Aliases of `use`.
    pub(super) modules: BTreeMap<&'a str, Span>,
    /// Those of plugins that are loaded.
    pub(super) plugins: BTreeMap<&'a str, &'static Library>,
    /// In a test: those that nothing has needed yet, with the `use` that names them.
    pub(super) unopened: BTreeMap<&'a str, (&'a Ident, Option<&'a Str>)>,
    /// In a test: what the script uses of plugins, as `geo.locate`.
    pub(super) called: BTreeSet<String>,
    pub(super) streams: BTreeMap<&'a str, StreamDecl>,
    /// Functions that call themselves; calls of them stay silent.
    pub(super) broken_functions: BTreeSet<&'a str>,
    /// Streams, values … that something uses.
    pub(super) used_streams: BTreeSet<String>,
    pub(super) used_values: BTreeSet<String>,
}

/// A declared value.
#[derive(Clone, Copy)]
pub(super) struct ValueDecl<'a> {
    pub(super) name: &'a Ident,
    pub(super) kind: ValueKind<'a>,
}

/// How a value is declared.
#[derive(Clone, Copy)]
pub(super) enum ValueKind<'a> {
    Param(&'a crate::syntax::ast::Param),
    Let(&'a Expr),
    Secret,
}

impl ValueKind<'_> {
    /// The word that makes a name unambiguous.
    pub(super) fn word(self) -> &'static str {
        match self {
            ValueKind::Param(_) => "param",
            ValueKind::Let(_) => "let",
            ValueKind::Secret => "secret",
        }
    }
}

/// A declared stream.
#[derive(Clone, Debug)]
pub(super) struct StreamDecl {
    pub(super) span: Span,
    pub(super) made: StreamKind,
}

/// What makes a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamKind {
    /// `stream s = …`
    Declared,
    /// An arm of a `route`.
    Arm,
    /// `on error to s`
    Rejects,
    /// Rust.
    Input,
}

/// What is built in one piece.
#[derive(Clone, Copy)]
pub(super) enum UnitKind<'a> {
    Pipeline {
        name: Option<&'a Ident>,
        pipeline: &'a Pipeline,
        /// Nothing stands behind it: it may lack a sink.
        last: bool,
    },
    /// The rows that stages set aside to one stream.
    Rejects(&'a str),
}

/// A unit and whether `@on_error` applies to it.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    pub(super) kind: UnitKind<'a>,
    pub(super) default_policy: bool,
    /// It needs itself.
    pub(super) broken: bool,
}

impl<'a> Checker<'a> {
    /// Gathers the declarations and checks those that need nothing else.
    pub(super) fn declare(&self) {
        for item in &self.script.items {
            match &item.kind {
                ItemKind::Use(used) => {
                    let span = match &used.target {
                        UseTarget::Script(path) => path.span,
                        UseTarget::Plugin { name, .. } => name.span,
                    };
                    match &used.target {
                        UseTarget::Plugin { name, version } => {
                            let alias = used.alias.as_ref().unwrap_or(name);
                            match self.options.testing {
                                // It may all be replaced.
                                Some(_) => {
                                    let mut names = self.names.borrow_mut();
                                    names.unopened.insert(&alias.text, (name, version.as_ref()));
                                }
                                None => drop(self.use_plugin(name, version.as_ref(), &alias.text)),
                            }
                        }
                        UseTarget::Script(path)
                            if [".so", ".dylib", ".dll"].iter().any(|end| path.value.ends_with(end)) =>
                        {
                            self.plugin_path(path);
                        }
                        UseTarget::Script(_) => self.report(
                            Diagnostic::error("E0901", item.span, "`use` of another script is not available yet")
                                .labelled("this version reads one script"),
                        ),
                    }
                    let name = match (&used.alias, &used.target) {
                        (Some(alias), _) => Some(alias),
                        (None, UseTarget::Plugin { name, .. }) => Some(name),
                        (None, UseTarget::Script(_)) => None,
                    };
                    if let Some(name) = name {
                        self.names.borrow_mut().modules.entry(&name.text).or_insert(span);
                    }
                }
                ItemKind::Param(param) => self.declare_value(ValueDecl {
                    name: &param.name,
                    kind: ValueKind::Param(param),
                }),
                ItemKind::Let(value) => self.declare_value(ValueDecl {
                    name: &value.name,
                    kind: ValueKind::Let(&value.value),
                }),
                ItemKind::Secret(secret) => {
                    self.report(
                        Diagnostic::error("E0901", item.span, "`secret` is not available yet")
                            .labelled("nothing in this version takes a secret"),
                    );
                    self.declare_value(ValueDecl {
                        name: &secret.name,
                        kind: ValueKind::Secret,
                    });
                }
                ItemKind::Schema(schema) => {
                    let earlier = self
                        .names
                        .borrow()
                        .schemas
                        .get(schema.name.text.as_str())
                        .map(|s| s.name.span);
                    match earlier {
                        Some(earlier) => self.twice("schema", &schema.name, earlier),
                        None => drop(self.names.borrow_mut().schemas.insert(&schema.name.text, schema)),
                    }
                }
                ItemKind::Fn(def) => {
                    let earlier = self
                        .names
                        .borrow()
                        .functions
                        .get(def.name.text.as_str())
                        .map(|f| f.name.span);
                    match earlier {
                        Some(earlier) => self.twice("function", &def.name, earlier),
                        None => drop(self.names.borrow_mut().functions.insert(&def.name.text, def)),
                    }
                }
                ItemKind::Stage(def) => {
                    self.report(
                        Diagnostic::error("E0901", def.name.span, "`stage` fragments are not available yet")
                            .labelled("declared here")
                            .help("the stages of its body, written where it is called, do the same"),
                    );
                    let earlier = self
                        .names
                        .borrow()
                        .stages
                        .get(def.name.text.as_str())
                        .map(|s| s.name.span);
                    match earlier {
                        Some(earlier) => self.twice("stage", &def.name, earlier),
                        None => drop(self.names.borrow_mut().stages.insert(&def.name.text, def)),
                    }
                }
                ItemKind::Stream(stream) => self.declare_stream(&stream.name, StreamKind::Declared),
                ItemKind::Test(test) => self.tested(test),
                ItemKind::Pipeline(_) | ItemKind::Attribute(_) => {}
            }
        }
        for item in &self.script.items {
            match &item.kind {
                ItemKind::Stream(stream) => self.declare_made(&stream.pipeline.head, &stream.pipeline.stages),
                ItemKind::Pipeline(pipeline) => self.declare_made(&pipeline.head, &pipeline.stages),
                _ => {}
            }
        }
        for input in self.options.inputs {
            // A stream of the script wins over one from outside.
            self.names
                .borrow_mut()
                .streams
                .entry(&input.name)
                .or_insert(StreamDecl {
                    span: Span::default(),
                    made: StreamKind::Input,
                });
        }
        self.check_schemas();
        self.check_values();
        self.check_functions();
    }

    /// What a test names is used by it.
    fn tested(&self, test: &Test) {
        let mut names = self.names.borrow_mut();
        for step in &test.steps {
            match &step.kind {
                TestStepKind::Expect(
                    Expect::Rows { stream, .. }
                    | Expect::Schema { stream, .. }
                    | Expect::Count { stream, .. }
                    | Expect::Snapshot { stream, .. },
                ) if !stream.is_path => drop(names.used_streams.insert(stream.name.text.clone())),
                TestStepKind::Given {
                    target: GivenTarget::Stream(stream),
                    ..
                } => drop(names.used_streams.insert(stream.text.clone())),
                TestStepKind::With(bindings) => {
                    names
                        .used_values
                        .extend(bindings.iter().filter_map(|binding| match binding {
                            Binding::Value { name, .. } => Some(name.text.clone()),
                            Binding::Plugged(_) => None,
                        }));
                }
                _ => {}
            }
        }
    }

    fn twice(&self, what: &str, name: &Ident, earlier: Span) {
        self.report(
            Diagnostic::error(
                "E0201",
                name.span,
                format!("the {what} `{}` is defined twice", name.text),
            )
            .labelled("the second")
            .also(earlier, "the first"),
        );
    }

    fn declare_value(&self, decl: ValueDecl<'a>) {
        let earlier = self
            .names
            .borrow()
            .values
            .get(decl.name.text.as_str())
            .map(|v| v.name.span);
        match earlier {
            Some(earlier) => self.twice("value", decl.name, earlier),
            None => drop(self.names.borrow_mut().values.insert(&decl.name.text, decl)),
        }
    }

    fn declare_stream(&self, name: &'a Ident, made: StreamKind) {
        let earlier = self.names.borrow().streams.get(name.text.as_str()).cloned();
        match earlier {
            // Several stages may feed one stream of rejects.
            Some(earlier) if earlier.made == StreamKind::Rejects && made == StreamKind::Rejects => {}
            Some(earlier) => {
                self.report(
                    Diagnostic::error(
                        "E0201",
                        name.span,
                        format!("the stream `{}` is defined twice", name.text),
                    )
                    .labelled("the second")
                    .also(earlier.span, "the first")
                    .help_if((made == StreamKind::Arm).then_some("`when a or b => s` sends both to one stream")),
                );
            }
            None => {
                let decl = StreamDecl { span: name.span, made };
                self.names.borrow_mut().streams.insert(&name.text, decl);
            }
        }
    }

    /// The streams that stages make: arms of `route`, rejects.
    fn declare_made(&self, head: &'a crate::syntax::ast::Head, stages: &'a [StageCall]) {
        if let HeadKind::Read(call) = &head.kind {
            self.declare_by_stage(call);
        }
        for call in stages {
            self.declare_by_stage(call);
        }
    }

    fn declare_by_stage(&self, call: &'a StageCall) {
        if let Some(OnError {
            policy: Policy::To(name),
            ..
        }) = &call.on_error
            && !name.is("_")
        {
            self.declare_stream(name, StreamKind::Rejects);
        }
        match call.block.as_ref().map(|block| &block.kind) {
            Some(BlockKind::Arms(arms)) => {
                for arm in arms.iter().filter(|arm| !arm.target.is("_")) {
                    self.declare_stream(&arm.target, StreamKind::Arm);
                }
            }
            Some(BlockKind::Stages(stages)) => {
                for call in stages {
                    self.declare_by_stage(call);
                }
            }
            None => {}
        }
    }

    /// The pipelines and reject streams in an order in which each stands behind what it needs, ties in script order.
    pub(super) fn units(&self, attributes: &Attributes<'a>) -> Vec<Unit<'a>> {
        let mut kinds: Vec<UnitKind<'a>> = vec![];
        let last = self
            .script
            .items
            .iter()
            .rposition(|item| matches!(item.kind, ItemKind::Pipeline(_)));
        for (at, item) in self.script.items.iter().enumerate() {
            match &item.kind {
                ItemKind::Stream(stream) => kinds.push(UnitKind::Pipeline {
                    name: Some(&stream.name),
                    pipeline: &stream.pipeline,
                    last: false,
                }),
                ItemKind::Pipeline(pipeline) => kinds.push(UnitKind::Pipeline {
                    name: None,
                    pipeline,
                    last: Some(at) == last,
                }),
                _ => {}
            }
        }
        // Who makes which stream.
        let mut makers: BTreeMap<&'a str, Vec<UnitId>> = BTreeMap::new();
        let mut needs: Vec<BTreeMap<&'a str, Span>> = vec![];
        let mut rejects: Vec<&'a str> = vec![];
        for (id, kind) in kinds.iter().enumerate() {
            let UnitKind::Pipeline { name, pipeline, .. } = kind else {
                continue;
            };
            let mut links = Links {
                checker: self,
                needs: BTreeMap::new(),
                arms: vec![],
                rejects: vec![],
            };
            links.pipeline(pipeline);
            if let Some(name) = name {
                makers.entry(&name.text).or_insert_with(|| vec![id]);
            }
            for arm in links.arms {
                makers.entry(arm).or_insert_with(|| vec![id]);
            }
            for name in links.rejects {
                if !rejects.contains(&name) {
                    rejects.push(name);
                }
                let feeders = makers.entry(name).or_default();
                if feeders.last() != Some(&id) {
                    feeders.push(id);
                }
            }
            needs.push(links.needs);
        }
        if let Some(to) = attributes.to.filter(|to| !rejects.contains(&to.text.as_str())) {
            rejects.push(&to.text);
        }
        // The makers of a stream of rejects feed a unit of its own, which then is the maker.
        let mut before: Vec<Vec<(UnitId, Span)>> = vec![vec![]; kinds.len()];
        for name in &rejects {
            let id = kinds.len();
            kinds.push(UnitKind::Rejects(name));
            let feeders = makers.insert(name, vec![id]).unwrap_or_default();
            before.push(feeders.into_iter().map(|feeder| (feeder, Span::default())).collect());
        }
        for (id, needs) in needs.iter().enumerate() {
            for (name, span) in needs {
                for &maker in makers.get(name).into_iter().flatten() {
                    before[id].push((maker, *span));
                }
            }
        }
        let exempt = match attributes
            .to
            .and_then(|to| makers.get(to.text.as_str()))
            .and_then(|m| m.first())
        {
            Some(&target) => {
                let exempt = behind(target, &before);
                // Everything else feeds the target.
                for (id, kind) in kinds.iter().enumerate() {
                    if matches!(kind, UnitKind::Pipeline { .. }) && !exempt.contains(&id) {
                        before[target].push((id, Span::default()));
                    }
                }
                exempt
            }
            None => BTreeSet::new(),
        };
        let (order, broken) = self.sort(&kinds, &before);
        order
            .into_iter()
            .map(|id| Unit {
                kind: kinds[id],
                default_policy: !exempt.contains(&id),
                broken: broken.contains(&id),
            })
            .collect()
    }

    /// Depth first, without recursion: scripts can have many streams. Cycles are reported and their units marked.
    fn sort(&self, kinds: &[UnitKind<'a>], before: &[Vec<(UnitId, Span)>]) -> (Vec<UnitId>, BTreeSet<UnitId>) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; kinds.len()];
        let mut order = vec![];
        let mut broken = BTreeSet::new();
        for root in 0..kinds.len() {
            let mut path: Vec<(UnitId, usize)> = vec![];
            if marks[root] == Mark::New {
                marks[root] = Mark::Open;
                path.push((root, 0));
            }
            while let Some((id, next)) = path.last_mut() {
                let (here, link) = (*id, before[*id].get(*next).copied());
                *next += 1;
                match link {
                    None => {
                        marks[here] = Mark::Done;
                        order.push(here);
                        path.pop();
                    }
                    Some((to, _)) if marks[to] == Mark::New => {
                        marks[to] = Mark::Open;
                        path.push((to, 0));
                    }
                    Some((to, span)) if marks[to] == Mark::Open => {
                        let from = path.iter().position(|&(id, _)| id == to).unwrap_or(0);
                        let ring: Vec<UnitId> = path[from..].iter().map(|&(id, _)| id).collect();
                        if !ring.iter().any(|id| broken.contains(id)) {
                            self.report_cycle(kinds, before, &ring, span);
                        }
                        broken.extend(ring);
                    }
                    Some(_) => {}
                }
            }
        }
        (order, broken)
    }

    fn report_cycle(&self, kinds: &[UnitKind<'a>], before: &[Vec<(UnitId, Span)>], ring: &[UnitId], last: Span) {
        let mut spans: Vec<(Span, String)> = vec![];
        for (at, &id) in ring.iter().enumerate() {
            let next = ring[(at + 1) % ring.len()];
            let span = before[id]
                .iter()
                .find(|(to, _)| *to == next)
                .map_or(last, |(_, span)| *span);
            if span != Span::default() {
                spans.push((span, format!("needs `{}`", self.text_of(span))));
            } else if let UnitKind::Rejects(name) = kinds[id]
                && let Some(decl) = self.names.borrow().streams.get(name)
            {
                spans.push((decl.span, "feeds it".to_owned()));
            }
        }
        let mut spans = spans.into_iter();
        let Some((span, label)) = spans.next() else {
            return;
        };
        let mut diagnostic = Diagnostic::error("E0210", span, "these streams need one another").labelled(label);
        for (span, label) in spans {
            diagnostic = diagnostic.also(span, label);
        }
        self.report(diagnostic);
    }

    /// Streams, parameters and values that nothing uses.
    pub(super) fn report_unused(&self, units: &[Unit<'a>]) {
        if !self.options.unreadable.is_empty() || units.iter().any(|unit| unit.broken) {
            return;
        }
        let names = self.names.borrow();
        for (name, decl) in &names.values {
            if !name.starts_with('_') && !names.used_values.contains(*name) && !matches!(decl.kind, ValueKind::Secret) {
                self.report(unused(decl.kind.word(), name, decl.name.span));
            }
        }
        for (name, decl) in &names.streams {
            let taken = self.options.outputs.iter().any(|output| output.name == **name);
            if name.starts_with('_') || names.used_streams.contains(*name) || taken || decl.made == StreamKind::Input {
                continue;
            }
            let mut diagnostic = unused("stream", name, decl.span);
            if decl.made == StreamKind::Rejects {
                diagnostic = diagnostic.help(format!(
                    "`from {name} | write jsonl \"rejects.jsonl\"` keeps its rows, `on error skip` only counts them"
                ));
            }
            self.report(diagnostic);
        }
    }

    /// The stream a misspelt name may mean; it counts as used.
    pub(super) fn nearest_stream(&self, name: &str) -> Option<String> {
        let near = suggest(name, self.names.borrow().streams.keys().copied()).map(str::to_owned);
        self.names.borrow_mut().used_streams.extend(near.clone());
        near
    }
}

fn unused(what: &str, name: &str, span: Span) -> Diagnostic {
    Diagnostic::error("E0209", span, format!("nothing uses the {what} `{name}`"))
        .labelled("declared here")
        .help(format!("`_{name}` keeps it"))
}

/// The units that need `target`, directly or not.
fn behind(target: UnitId, before: &[Vec<(UnitId, Span)>]) -> BTreeSet<UnitId> {
    let mut consumers: Vec<Vec<UnitId>> = vec![vec![]; before.len()];
    for (consumer, needs) in before.iter().enumerate() {
        for (need, _) in needs {
            consumers[*need].push(consumer);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![target];
    while let Some(id) = next.pop() {
        next.extend(consumers[id].iter().copied().filter(|&consumer| found.insert(consumer)));
    }
    found
}

/// What a pipeline needs and makes.
struct Links<'c, 'a> {
    checker: &'c Checker<'a>,
    needs: BTreeMap<&'a str, Span>,
    arms: Vec<&'a str>,
    rejects: Vec<&'a str>,
}

impl<'a> Links<'_, 'a> {
    fn pipeline(&mut self, pipeline: &'a Pipeline) {
        match &pipeline.head.kind {
            HeadKind::Stream(name) => self.need(name),
            HeadKind::Read(call) => self.stage(call),
            HeadKind::Table(_) | HeadKind::Rows(_) | HeadKind::Range(_) => {}
        }
        for call in &pipeline.stages {
            self.stage(call);
        }
    }

    fn need(&mut self, name: &'a Ident) {
        self.needs.entry(&name.text).or_insert(name.span);
    }

    fn stage(&mut self, call: &'a StageCall) {
        let reported = self.checker.reported();
        if let Some(spec) = self.checker.spec_of(call) {
            self.streams_of(call, spec);
        }
        // What keeps a plugin from being used is said where the pipeline is built.
        self.checker.take_back(reported);
        if let Some(OnError {
            policy: Policy::To(name),
            ..
        }) = &call.on_error
            && !name.is("_")
        {
            self.rejects.push(&name.text);
        }
        match call.block.as_ref().map(|block| &block.kind) {
            Some(BlockKind::Arms(arms)) => {
                self.arms.extend(
                    arms.iter()
                        .filter(|arm| !arm.target.is("_"))
                        .map(|arm| arm.target.text.as_str()),
                );
            }
            Some(BlockKind::Stages(stages)) => {
                for call in stages {
                    self.stage(call);
                }
            }
            None => {}
        }
    }

    fn streams_of(&mut self, call: &'a StageCall, spec: &StageSpec) {
        for (at, item) in call.items.iter().enumerate() {
            if super::call::kind_at(spec.items.arg, at) == Some(ArgKind::Stream)
                && let Some(name) = item.expr().and_then(Expr::as_name)
            {
                self.need(name);
            }
        }
    }
}
