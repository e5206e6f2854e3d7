//! A stage as written against its spec: every argument gets its place, or a diagnostic.
//!
//! Laws
//! - An expression argument that is a column is that column; any other is computed behind the stream's own columns.
//! - An argument with a mistake becomes a guess where that is possible, so that the stage still says what its output is.

use super::aggregates::Behind;
use super::expressions::{Local, LocalValue, Made, Scope};
use super::hints;
use super::report::Checker;
use super::rows::{Lookup, Rows};
use crate::diag::{Diagnostic, Span, list_names, suggest};
use crate::expr::{Expr, Kind as ExprForm};
use crate::syntax::ast::{self, ExprKind, Ident, ItemValue, OptionValue, StageCall, StageItem, StageOption};
use standpipe_sdk::spec::{Arg, ArgKind, BlockKind, Item, Items, Lineage, Names, Param, StageSpec, Want};
use standpipe_sdk::{Field, Schema, Type, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The arguments of a call, resolved.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) items: Vec<Item>,
    pub(super) by: Vec<Item>,
    pub(super) on: Vec<Item>,
    pub(super) options: Vec<(&'static str, Item)>,
    pub(super) columns: Vec<Item>,
    pub(super) mode: Option<String>,
    pub(super) as_name: Option<String>,
    /// What the host computes, in order, behind the stream's own columns.
    pub(super) computed: Vec<Computed>,
    /// What the host computes behind the stage, of the aggregates it gives.
    pub(super) behind: Option<Behind>,
    /// Streams that arguments name.
    pub(super) streams: Vec<Ident>,
    /// What the host computes of the rows of the stream beside, behind its own columns.
    pub(super) beside: Vec<Computed>,
    /// The columns of the stream beside, then those.
    pub(super) beside_schema: Option<Schema>,
    /// The condition on pairs, and where the columns it sees come from.
    pub(super) pairs: Option<(Expr, Vec<Lineage>)>,
    /// Columns that would be there without a mistake.
    pub(super) missing: BTreeSet<String>,
    /// Something about the call was reported, or hangs on what was.
    pub(super) guess: bool,
    /// It cannot be bound.
    pub(super) broken: bool,
}

/// A column the host computes.
#[derive(Clone)]
pub(super) struct Computed {
    pub(super) field: Field,
    pub(super) expr: Expr,
    pub(super) guess: bool,
}

/// What argument `at` of a list is; `None` where there is none.
pub(super) fn kind_at(kind: ArgKind, at: usize) -> Option<ArgKind> {
    match kind {
        ArgKind::Each(kinds) => kinds.get(at).copied(),
        kind => Some(kind),
    }
}

impl<'a> Checker<'a> {
    /// The spec of a call, built-in or a plugin's; `None` for fragments and unknown names.
    pub(super) fn spec_of(&self, call: &StageCall) -> Option<&'static StageSpec> {
        match call.name.as_slice() {
            [name] if !self.names.borrow().stages.contains_key(name.text.as_str()) => self.spec_named(&name.text),
            [module, name] => self.plugin_stage(module, name),
            _ => None,
        }
    }

    pub(super) fn spec_named(&self, name: &str) -> Option<&'static StageSpec> {
        self.options.stages.iter().copied().find(|spec| spec.name == name)
    }

    /// Says why a call has no spec.
    pub(super) fn stage_missing(&self, call: &StageCall) {
        self.seen_in(call);
        let Some(name) = call.name.first() else {
            return;
        };
        if call.name.len() > 1 {
            if !self.plugin_stage_missing(call) {
                self.unknown_module(name);
            }
            return;
        }
        let text = name.text.as_str();
        if self.names.borrow().stages.contains_key(text) {
            // Said at its declaration.
            return;
        }
        let span = call.name_span();
        let available = |stage: &str| {
            let first = stage.split(' ').next().unwrap_or(stage);
            self.spec_named(first).is_some()
        };
        let diagnostic = if hints::STAGES.contains(&text) {
            Diagnostic::error("E0902", span, format!("`{text}` is not available yet"))
                .labelled("this version cannot run it")
        } else if let Some(here) = hints::stage_here(text) {
            let later = if available(here) {
                ""
            } else {
                ", which is not available yet"
            };
            Diagnostic::error("E0206", span, format!("stage `{text}` not found"))
                .labelled(format!("it is called `{here}` here{later}"))
        } else if let Some(form) = hints::form_here(text) {
            Diagnostic::error("E0206", span, format!("stage `{text}` not found"))
                .labelled("not a stage")
                .help(form)
        } else if self.options.formats.iter().any(|format| format.name == text) {
            Diagnostic::error("E0206", span, format!("stage `{text}` not found"))
                .labelled("this is a format")
                .help(format!("`write {text} \"path\"`, `read {text} \"path\"`"))
        } else {
            let names = self.options.stages.iter().map(|spec| spec.name);
            let near = suggest(text, names);
            Diagnostic::error("E0206", span, format!("stage `{text}` not found"))
                .labelled(near.map_or_else(
                    || "no stage has this name".to_owned(),
                    |near| format!("`{near}` is close"),
                ))
                .help_if(near.is_none().then_some("`standpipe stages` lists them"))
        };
        self.report(diagnostic);
    }
}

/// Resolves one call.
pub(super) struct Resolver<'r, 'a> {
    pub(super) checker: &'r Checker<'a>,
    pub(super) rows: &'r Rows,
    /// The rows of a second stream that meets the first.
    pub(super) beside: Option<&'r Rows>,
    /// Policy `null`: what fails is null.
    pub(super) null_on_error: bool,
    /// Columns that earlier items of a progressive list made.
    made: Vec<Made>,
    /// The stage's name, for messages.
    stage: String,
    pub(super) out: Resolved,
}

impl<'r, 'a> Resolver<'r, 'a> {
    pub(super) fn new(checker: &'r Checker<'a>, rows: &'r Rows, null_on_error: bool) -> Self {
        Resolver {
            checker,
            rows,
            beside: None,
            null_on_error,
            made: vec![],
            stage: String::new(),
            out: Resolved::default(),
        }
    }

    /// The same, with a second stream at hand.
    pub(super) fn beside(mut self, rows: &'r Rows) -> Self {
        self.beside = Some(rows);
        self
    }

    /// All arguments of a call to `spec`.
    pub(super) fn resolve(mut self, spec: &StageSpec, call: &StageCall) -> Resolved {
        self.stage = call.full_name();
        let moved = self.mode(spec, call);
        if self.out.broken {
            // It is not clear which stage the rest belongs to.
            self.checker.seen_in(call);
            return self.out;
        }
        let mut items: Vec<&StageItem> = moved.iter().collect();
        items.extend(&call.items);
        match spec.items.arg {
            _ if spec.options.iter().any(|param| matches!(param.arg, ArgKind::Spread(_))) => {
                self.count(spec.items, &items, call, "");
                self.clauses(spec, call);
                self.out.items = self.spread(spec, call);
            }
            // The items see the keys.
            ArgKind::Aggregate => {
                self.clauses(spec, call);
                self.out.items = self.aggregates(spec.items, &items, &[], call);
            }
            // The items see the keys, and their types hang on the frame.
            ArgKind::Window => {
                self.clauses(spec, call);
                self.options_of(spec.options, &[], call, spec.name);
                self.out.items = self.aggregates(spec.items, &items, &[], call);
            }
            // Computed once the columns are known.
            ArgKind::PerColumn => self.clauses(spec, call),
            // The keys see the columns of all streams: [`Resolver::by`].
            ArgKind::Stream if spec.by.max > 0 => self.out.items = self.list(spec.items, &items, call, ""),
            _ => {
                self.out.items = self.list(spec.items, &items, call, "");
                self.clauses(spec, call);
            }
        }
        if spec.items.arg != ArgKind::Window {
            self.options_of(spec.options, &[], call, spec.name);
        }
        if spec.items.arg == ArgKind::PerColumn {
            self.per_column(spec, &items, call);
        }
        self.block(spec, call);
        self.out.beside_schema = self.beside.map(|rows| {
            let computed = self.out.beside.iter().map(|computed| &computed.field);
            rows.fields.iter().chain(computed).cloned().collect()
        });
        self.out
    }

    /// The clauses alone, of a call whose items are resolved.
    pub(super) fn by(mut self, spec: &StageSpec, call: &StageCall) -> Resolved {
        self.stage = call.full_name();
        self.clauses(spec, call);
        self.out
    }

    /// Paths and options of `read` and `write`.
    pub(super) fn resolve_format(mut self, spec: &StageSpec, format: &'static [Param], call: &StageCall) -> Resolved {
        let items: Vec<&StageItem> = call.items.iter().collect();
        let wants = Items {
            min: spec.items.min.max(1),
            ..spec.items
        };
        self.out.items = self.list(wants, &items, call, "");
        self.out.mode = call.mode.as_ref().map(|mode| mode.text.clone());
        self.clauses(spec, call);
        self.options_of(spec.options, format, call, spec.name);
        self.block(spec, call);
        self.out
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.out.guess = true;
        self.checker.report(diagnostic);
    }

    /// The mode word; one that the stage does not have may have been meant as its first item.
    fn mode(&mut self, spec: &StageSpec, call: &StageCall) -> Option<StageItem> {
        let mode = call.mode.as_ref()?;
        if spec.modes.contains(&mode.text.as_str()) {
            self.out.mode = Some(mode.text.clone());
            return None;
        }
        let (name, word) = (spec.name, &mode.text);
        if !spec.modes.is_empty() {
            let near = suggest(word, spec.modes);
            self.report(
                Diagnostic::error("E0505", mode.span, format!("`{name}` has no mode `{word}`"))
                    .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                    .note(format!("modes: {}", list_names(spec.modes, 12))),
            );
            return None;
        }
        if self.checker.spec_named(word).is_some() && self.rows.find(word) == Lookup::Missing {
            self.report(
                Diagnostic::error("E0116", mode.span, format!("a `|` is missing before `{word}`"))
                    .labelled("this is a stage of its own")
                    .help(format!("`{name} | {word} …`")),
            );
            self.out.broken = true;
            return None;
        }
        if spec.items.max == 0 {
            self.report(
                Diagnostic::error("E0505", mode.span, format!("`{name}` takes nothing here")).labelled("not expected"),
            );
            return None;
        }
        let next = call
            .items
            .first()
            .map(|item| self.checker.text_of(item.span))
            .unwrap_or("…");
        self.report(
            Diagnostic::error("E0505", mode.span, format!("a comma is missing behind `{word}`"))
                .labelled(format!("read as a mode of `{name}`, which has none"))
                .help(format!("`{name} {word}, {next}`")),
        );
        Some(StageItem {
            name: None,
            span: mode.span,
            value: ItemValue::Expr(ast::Expr {
                kind: ExprKind::Name(mode.clone()),
                parenthesised: false,
                span: mode.span,
            }),
        })
    }

    fn clauses(&mut self, spec: &StageSpec, call: &StageCall) {
        let by: Vec<&StageItem> = call.by.iter().collect();
        if spec.by.max == 0 && !by.is_empty() {
            self.clause_not_allowed(spec, "by", by[0].span);
        } else {
            self.out.by = self.list(spec.by, &by, call, "by ");
        }
        let on: Vec<&StageItem> = call.on.iter().collect();
        if spec.on.max == 0 && !on.is_empty() {
            self.clause_not_allowed(spec, "on", on[0].span);
        } else {
            self.out.on = self.list(spec.on, &on, call, "on ");
        }
        if let Some(name) = &call.as_name {
            match spec.as_name {
                Some(_) => self.out.as_name = Some(name.text.clone()),
                None => self.clause_not_allowed(spec, "as", name.span),
            }
        }
    }

    fn clause_not_allowed(&mut self, spec: &StageSpec, clause: &str, span: Span) {
        self.report(
            Diagnostic::error("E0511", span, format!("`{}` takes no `{clause}`", spec.name))
                .labelled("not allowed here"),
        );
    }

    /// A list of items. `clause`: `by `, `on ` or nothing, for messages.
    fn list(&mut self, wants: Items, items: &[&StageItem], call: &StageCall, clause: &str) -> Vec<Item> {
        self.count(wants, items, call, clause);
        let stage = call.full_name();
        let mut made = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate().take(wants.max) {
            let Some(kind) = kind_at(wants.arg, at) else {
                break;
            };
            match &item.value {
                ItemValue::Expr(value) => made.extend(self.item(wants, kind, item, value)),
                ItemValue::All | ItemValue::AllOf(_) if !wants.star => {
                    self.report(
                        Diagnostic::error("E0124", item.span, format!("`{stage}` takes no `*`")).labelled("not here"),
                    );
                }
                ItemValue::All => self.all(items, item.span, &mut made),
                ItemValue::AllOf(name) => self.all_of(name, item.span, &mut made),
            }
        }
        made
    }

    /// One expression, computed for each of the columns that `on` or `type:` names, which is `it` there.
    fn per_column(&mut self, spec: &StageSpec, items: &[&StageItem], call: &StageCall) {
        self.count(spec.items, items, call, "");
        let Some((item, ItemValue::Expr(value))) = items.first().map(|item| (item, &item.value)) else {
            self.out.broken = true;
            return;
        };
        if item.name.is_some() {
            self.item_name(spec.items, spec.items.arg, item, value);
            self.checker.seen(value);
            self.out.broken = true;
            return;
        }
        let ty = self.out.options.iter().find_map(|(_, option)| match &option.arg {
            Arg::Type(ty) => Some(ty),
            _ => None,
        });
        let mut columns: Vec<usize> = (self.out.on.iter())
            .filter_map(|item| if let Arg::Column(at) = item.arg { Some(at) } else { None })
            .collect();
        if columns.is_empty()
            && let Some(ty) = ty
        {
            columns.extend((0..self.rows.fields.len()).filter(|&at| self.rows.fields[at].ty == *ty));
        }
        if columns.is_empty() {
            self.checker.seen(value);
        }
        for at in columns {
            let field = self.rows.fields[at].clone();
            let column = Expr::column(at, &field, value.span);
            let it = Local {
                name: "it".to_owned(),
                value: match self.rows.is_guess(at) {
                    true => LocalValue::Guess,
                    false => LocalValue::Expr(column, 1),
                },
            };
            let scope = Scope {
                locals: &[it],
                ..Scope::rows(self.rows)
            };
            let before = self.checker.reported();
            let arg = match self.checker.expression(value, &scope) {
                Some(Expr {
                    kind: ExprForm::Column { index, .. },
                    ..
                }) => index,
                Some(expr) => self.compute(expr, Some(field.name.clone()), false),
                None => {
                    self.out.guess = true;
                    let expr = Expr::constant(Value::Null, Type::Null, value.span);
                    self.compute(expr, Some(field.name.clone()), true)
                }
            };
            self.out.columns.push(Item {
                name: Some(field.name),
                arg: Arg::Column(arg),
                descending: false,
                span: item.span,
            });
            // What is wrong with one column is most likely wrong with all.
            if self.checker.reported() > before {
                break;
            }
        }
    }

    /// Says whether there are too many or too few items.
    fn count(&mut self, wants: Items, items: &[&StageItem], call: &StageCall, clause: &str) {
        let stage = call.full_name();
        if items.len() > wants.max {
            let extra = items[wants.max];
            let takes = match wants.max {
                0 => "takes nothing here".to_owned(),
                1 => "takes one".to_owned(),
                max => format!("takes {max}"),
            };
            self.report(
                Diagnostic::error("E0504", extra.span, format!("too many arguments for `{stage}`"))
                    .labelled(format!("`{stage}` {clause}{takes}")),
            );
        }
        self.enough(wants, items.len(), call, clause);
    }

    /// Says so if there are too few items.
    pub(super) fn enough(&mut self, wants: Items, items: usize, call: &StageCall, clause: &str) {
        let stage = call.full_name();
        if items < wants.min {
            let message = match wants.about {
                "" => format!("`{stage}` {clause}needs an argument"),
                about if clause.is_empty() => format!("`{stage}` needs {about}"),
                about => format!("`{stage}` needs `{clause}…`: {about}"),
            };
            self.report(Diagnostic::error("E0502", call.name_span(), message).labelled("the argument is missing"));
            self.out.broken = true;
        }
    }

    fn item(&mut self, wants: Items, kind: ArgKind, item: &StageItem, value: &ast::Expr) -> Option<Item> {
        let name = self.item_name(wants, kind, item, value);
        let (value, descending) = match kind {
            ArgKind::Key => self.key(item, value)?,
            _ => (value, false),
        };
        let Some(name) = name else {
            if item.name.is_some() {
                // Read as a comparison its value has the wrong type; in its place stands a guess.
                self.checker.seen(value);
                return self.guess(kind, value.span).map(|arg| Item {
                    name: None,
                    arg,
                    descending,
                    span: item.span,
                });
            }
            // A name is missing: its expression still is looked at.
            self.argument(kind, value, None);
            return None;
        };
        let arg = self.argument(kind, value, name.clone());
        match (arg, name) {
            (Some(arg), name) => {
                if wants.progressive
                    && let (Some(name), Arg::Column(index)) = (&name, &arg)
                {
                    self.remember(name.clone(), *index);
                }
                Some(Item {
                    name,
                    arg,
                    descending,
                    span: item.span,
                })
            }
            (None, Some(name)) => {
                self.out.missing.insert(name.to_string());
                None
            }
            (None, None) => None,
        }
    }

    /// The name of an item: `Some(None)` if it has none and needs none, `None` if one is missing.
    pub(super) fn item_name(
        &mut self,
        wants: Items,
        kind: ArgKind,
        item: &StageItem,
        value: &ast::Expr,
    ) -> Option<Option<Arc<str>>> {
        if let Some(name) = &item.name {
            if wants.names == Names::Never {
                let (left, right) = (self.checker.text_of(name.span), self.checker.text_of(value.span));
                let diagnostic = match kind {
                    ArgKind::Expr(Want::Bool) | ArgKind::Match => {
                        Diagnostic::error("E0112", item.span, "`=` does not compare, `==` does")
                            .labelled("read as a name and its value")
                            .help(format!("`{left} == {right}`"))
                    }
                    _ => Diagnostic::error("E0503", name.span, format!("no name can stand here: `{left} =`"))
                        .labelled("not expected"),
                };
                self.report(diagnostic);
                return None;
            }
            return Some(Some(name.text.as_str().into()));
        }
        if wants.names == Names::Never {
            if kind == ArgKind::Match {
                return Some(value.as_name().map(|name| name.text.as_str().into()));
            }
            return Some(None);
        }
        let own: Option<Arc<str>> = self_name(value).map(Into::into);
        match wants.names {
            Names::Optional if own.is_some() => Some(own),
            Names::Optional if !matches!(kind, ArgKind::Expr(_)) => Some(None),
            _ => {
                let text = self.checker.text_of(value.span);
                let help = match value.as_name() {
                    Some(_) if wants.names == Names::Always => format!("`name = {text}`"),
                    _ => format!("`name = {text}` names its column"),
                };
                self.report(
                    Diagnostic::error("E0515", item.span, "this needs a name")
                        .labelled("no name stands before it")
                        .help(help),
                );
                None
            }
        }
    }

    /// A sort key: a column, a call or something in parentheses, behind an optional `-`.
    fn key<'e>(&mut self, item: &'e StageItem, value: &'e ast::Expr) -> Option<(&'e ast::Expr, bool)> {
        let (key, descending) = item.key().unwrap_or((value, false));
        let plain = key.parenthesised
            || matches!(
                key.kind,
                ExprKind::Name(_)
                    | ExprKind::Call { .. }
                    | ExprKind::Method { .. }
                    | ExprKind::Field { .. }
                    | ExprKind::Index { .. }
                    | ExprKind::Error
            );
        if plain {
            return Some((key, descending));
        }
        let text = self.checker.text_of(item.span);
        let stage = self.stage.clone();
        let diagnostic = match &key.kind {
            ExprKind::Binary {
                op: ast::BinaryOp::Sub,
                left,
                right,
                ..
            } => {
                let (left, right) = (self.checker.text_of(left.span), self.checker.text_of(right.span));
                Diagnostic::error("E0501", item.span, format!("this is read as `{left}` minus `{right}`"))
                    .labelled("one key")
                    .help(format!(
                        "`{stage} {left}, -{right}` takes two keys, `{stage} ({left} - {right})` the difference"
                    ))
            }
            _ => Diagnostic::error(
                "E0501",
                item.span,
                "a key is a column, a call or something in parentheses",
            )
            .labelled("an expression of its own")
            .help(format!("`({text})`")),
        };
        self.report(diagnostic);
        None
    }

    /// Later items see it.
    fn remember(&mut self, name: Arc<str>, index: usize) {
        let own = self.rows.fields.len();
        let (field, guess) = if index < own {
            (self.rows.fields.get(index), self.rows.is_guess(index))
        } else {
            let computed = self.out.computed.get(index - own);
            (computed.map(|c| &c.field), computed.is_none_or(|c| c.guess))
        };
        if let Some(field) = field {
            let field = Field::new(name, field.ty.clone(), field.nullable);
            self.made.push(Made { field, index, guess });
        }
    }

    /// One argument that was written as an expression.
    fn argument(&mut self, kind: ArgKind, value: &ast::Expr, name: Option<Arc<str>>) -> Option<Arg> {
        match kind {
            ArgKind::Expr(want) => Some(self.computed(value, want, name)),
            ArgKind::Key => Some(self.computed(value, Want::Any, name)),
            // Computed once per column, when these are known.
            ArgKind::PerColumn => None,
            ArgKind::Column => self.column(value).map(Arg::Column),
            ArgKind::Const(want) => self.constant(value, want),
            ArgKind::Word => match &value.kind {
                ExprKind::Name(word) => Some(Arg::Word(word.text.as_str().into())),
                ExprKind::Str(word) => Some(Arg::Word(word.as_str().into())),
                // `missing: null`
                ExprKind::Null | ExprKind::Bool(_) => Some(Arg::Word(self.checker.text_of(value.span).into())),
                _ => self.wrong(value.span, "a word is needed here", "not a word"),
            },
            ArgKind::Words => self.words(value),
            ArgKind::Stream => match &value.kind {
                ExprKind::Name(name) => {
                    self.out.streams.push(name.clone());
                    Some(Arg::Stream(self.out.streams.len() - 1))
                }
                _ => self.wrong(value.span, "the name of a stream is needed here", "not a name"),
            },
            ArgKind::Match => self.matched(value),
            ArgKind::Pairs => self.pairs(value),
            ArgKind::Type => match value.to_type() {
                Some(ty) => self.ty(&ty),
                None => self.wrong(value.span, "a type is needed here", "not a type"),
            },
            // Their parts were told apart by position, or by what they compute.
            ArgKind::Each(_) | ArgKind::Aggregate | ArgKind::Spread(_) | ArgKind::Window => None,
            ArgKind::Frame => self.wrong(
                value.span,
                "a range of rows is needed here: `-6..0`, `..`",
                "not a range",
            ),
        }
    }

    pub(super) fn wrong(&mut self, span: Span, message: &str, label: &str) -> Option<Arg> {
        self.out.broken = true;
        self.report(Diagnostic::error("E0501", span, message).labelled(label));
        None
    }

    fn ty(&mut self, written: &ast::TypeExpr) -> Option<Arg> {
        let ty = self.checker.ty(written);
        if ty.is_none() {
            self.out.guess = true;
            self.out.broken = true;
        }
        ty.map(Arg::Type)
    }

    fn words(&mut self, value: &ast::Expr) -> Option<Arg> {
        let word = |value: &ast::Expr| -> Option<Arc<str>> {
            match &value.kind {
                ExprKind::Name(word) => Some(word.text.as_str().into()),
                ExprKind::Str(word) => Some(word.as_str().into()),
                _ => None,
            }
        };
        let words = match &value.kind {
            ExprKind::List(items) => items.iter().map(word).collect::<Option<Vec<_>>>(),
            _ => word(value).map(|word| vec![word]),
        };
        match words {
            Some(words) => Some(Arg::Words(words)),
            None => self.wrong(
                value.span,
                "a list of words is needed here: `[a, b]`",
                "not a list of words",
            ),
        }
    }

    /// A column of the input, by name.
    fn column(&mut self, value: &ast::Expr) -> Option<usize> {
        let Some(name) = value.as_name() else {
            self.report(
                Diagnostic::error("E0501", value.span, "the name of a column is needed here").labelled("an expression"),
            );
            return None;
        };
        self.column_named(name)
    }

    fn column_named(&mut self, name: &Ident) -> Option<usize> {
        match self.rows.find(&name.text) {
            Lookup::Column(index) => Some(index),
            Lookup::Guess => {
                self.out.guess = true;
                self.rows.fields.iter().position(|field| *field.name == name.text)
            }
            Lookup::Missing => {
                let near = self.rows.nearest(&name.text);
                let label = near.map_or_else(
                    || "no column here has this name".to_owned(),
                    |near| format!("`{near}` is close"),
                );
                self.report(
                    Diagnostic::error("E0204", name.span, format!("column `{}` not found", name.text))
                        .labelled(label)
                        .note(self.rows.note()),
                );
                None
            }
        }
    }

    /// Something in the place of an argument with a mistake, if there can be something.
    fn guess(&mut self, kind: ArgKind, span: Span) -> Option<Arg> {
        self.out.guess = true;
        match kind {
            ArgKind::Expr(want) => {
                let expr = Expr::constant(Value::Null, stand_in(want), span);
                Some(Arg::Column(self.compute(expr, None, true)))
            }
            _ => {
                self.out.broken = true;
                None
            }
        }
    }

    /// An expression argument: a column as it is, or one that the host computes.
    fn computed(&mut self, value: &ast::Expr, want: Want, name: Option<Arc<str>>) -> Arg {
        let scope = Scope {
            made: &self.made,
            ..Scope::rows(self.rows)
        };
        let expr = self.checker.expression(value, &scope);
        let expr = expr.and_then(|expr| {
            if fits(want, &expr.ty) {
                return Some(expr);
            }
            self.checker
                .report(not_wanted(want, &expr.ty, value.span, self.checker.text_of(value.span)));
            None
        });
        match expr {
            Some(Expr {
                kind: ExprForm::Column { index, .. },
                ..
            }) => Arg::Column(index),
            Some(expr) => Arg::Column(self.compute(expr, name, false)),
            None => {
                self.out.guess = true;
                let expr = Expr::constant(Value::Null, stand_in(want), value.span);
                Arg::Column(self.compute(expr, name, true))
            }
        }
    }

    /// A new computed column; its position.
    pub(super) fn compute(&mut self, expr: Expr, name: Option<Arc<str>>, guess: bool) -> usize {
        let nullable = expr.nullable || (self.null_on_error && expr.fallible);
        let name = name.unwrap_or_else(|| format!("#{}", self.out.computed.len()).into());
        self.out.computed.push(Computed {
            field: Field::new(name, expr.ty.clone(), nullable),
            expr,
            guess,
        });
        self.rows.fields.len() + self.out.computed.len() - 1
    }

    pub(super) fn constant(&mut self, value: &ast::Expr, want: Want) -> Option<Arg> {
        // A word where text is meant: `header: none`.
        let made = self.checker.constant(value, &Scope::constant_in(self.rows));
        let Some(made) = made else {
            self.out.guess = true;
            self.out.broken = true;
            return None;
        };
        if !fits(want, &made.ty) {
            self.report(not_wanted(want, &made.ty, value.span, self.checker.text_of(value.span)));
            self.out.broken = true;
            return None;
        }
        made.as_value().map(Arg::Const)
    }

    /// `*`: the columns that the list does not name.
    fn all(&mut self, items: &[&StageItem], span: Span, made: &mut Vec<Item>) {
        let mut named: BTreeSet<String> = BTreeSet::new();
        for item in items {
            match &item.value {
                ItemValue::Expr(value) => {
                    named.extend(
                        item.name
                            .as_ref()
                            .map(|name| name.text.clone())
                            .or_else(|| self_name(value).map(str::to_owned)),
                    );
                }
                ItemValue::AllOf(column) => {
                    if let Lookup::Column(index) = self.rows.find(&column.text)
                        && let Some(Type::Record(fields)) = self.rows.fields.get(index).map(|field| &field.ty)
                    {
                        named.insert(column.text.clone());
                        named.extend(fields.fields().iter().map(|field| field.name.to_string()));
                    }
                }
                ItemValue::All => {}
            }
        }
        for (index, field) in self.rows.fields.iter().enumerate() {
            if !named.contains(&*field.name) {
                made.push(Item {
                    name: Some(field.name.clone()),
                    arg: Arg::Column(index),
                    descending: false,
                    span,
                });
            }
        }
    }

    /// `c.*`: the fields of a record column.
    fn all_of(&mut self, name: &Ident, span: Span, made: &mut Vec<Item>) {
        let Some(index) = self.column_named(name) else {
            return;
        };
        let Some(field) = self.rows.fields.get(index).cloned() else {
            return;
        };
        let Type::Record(fields) = &field.ty else {
            if !self.rows.is_guess(index) {
                self.report(
                    Diagnostic::error("E0301", span, format!("`{}` has no fields", name.text))
                        .labelled(format!("it is {}, not a record", field.ty)),
                );
            }
            return;
        };
        for part in fields.fields() {
            let column = Expr::column(index, &field, name.span);
            let Some(expr) = self.checker.accept(Expr::field(column, &part.name, false, span)) else {
                self.out.guess = true;
                continue;
            };
            let position = self.compute(expr, Some(part.name.clone()), false);
            made.push(Item {
                name: Some(part.name.clone()),
                arg: Arg::Column(position),
                descending: false,
                span,
            });
        }
    }

    /// `key: value`, of two lists of declarations.
    fn options_of(&mut self, first: &'static [Param], second: &'static [Param], call: &StageCall, stage: &str) {
        let params = || first.iter().chain(second);
        let open = params().find(|param| param.name == Param::ANY_COLUMN);
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for option in &call.options {
            let key = option.name.text.as_str();
            if !seen.insert(key) {
                // The parser said so.
                continue;
            }
            match (params().find(|param| param.name == key), open) {
                (Some(param), None) => {
                    if let Some(arg) = self.option(param, option) {
                        self.out.options.push((param.name, arg));
                    }
                }
                (_, Some(param)) => self.open_option(param, option),
                (None, None) => {
                    let known: Vec<&str> = params().map(|param| param.name).collect();
                    let near = suggest(key, &known);
                    let note = match known.as_slice() {
                        [] => format!("`{stage}` has no options"),
                        known => format!("options of `{stage}`: {}", list_names(known, 20)),
                    };
                    self.report(
                        Diagnostic::error("E0503", option.name.span, format!("`{stage}` has no option `{key}:`"))
                            .labelled(near.map_or_else(|| "not known".to_owned(), |near| format!("`{near}:` is close")))
                            .note(note),
                    );
                }
            }
        }
        if let Some(param) = open.filter(|param| param.required && call.options.is_empty()) {
            self.report(
                Diagnostic::error(
                    "E0502",
                    call.name_span(),
                    format!("`{stage}` needs a column: `{stage} column: …`"),
                )
                .labelled(format!("missing: {}", param.about)),
            );
            self.out.broken = true;
            return;
        }
        for param in params().filter(|param| param.name != Param::ANY_COLUMN) {
            if seen.contains(param.name) {
                continue;
            }
            if param.required {
                self.report(
                    Diagnostic::error("E0502", call.name_span(), format!("`{stage}` needs `{}:`", param.name))
                        .labelled(format!("missing: {}", param.about)),
                );
                self.out.broken = true;
            } else if let Some(arg) = param.default.and_then(|text| default(param.arg, text)) {
                let item = Item {
                    name: None,
                    arg,
                    descending: false,
                    span: call.span,
                };
                self.out.options.push((param.name, item));
            }
        }
    }

    fn option(&mut self, param: &Param, option: &StageOption) -> Option<Item> {
        let arg = self.option_value(param.arg, &option.value)?;
        Some(Item {
            name: None,
            arg,
            descending: false,
            span: option.span,
        })
    }

    fn option_value(&mut self, kind: ArgKind, value: &OptionValue) -> Option<Arg> {
        if kind == ArgKind::Type {
            return match value.to_type() {
                Some(ty) => self.ty(&ty),
                None => self.wrong(value.span(), "a type is needed here", "not a type"),
            };
        }
        if kind == ArgKind::Frame {
            return self.frame(value);
        }
        match value.to_expr() {
            Some(expr) => self.argument(kind, &expr, None),
            None => {
                let label = match value {
                    OptionValue::Percent { .. } => "a percentage",
                    OptionValue::OpenRange { .. } => "an open range",
                    OptionValue::Type(_) | OptionValue::Expr(_) => "a type",
                };
                self.wrong(value.span(), "this option takes another kind of value", label)
            }
        }
    }

    /// `-6..0`, `..0`, `..`.
    fn frame(&mut self, value: &OptionValue) -> Option<Arg> {
        let (low, high) = match value {
            OptionValue::OpenRange { low, high, .. } => (low.as_ref(), high.as_ref()),
            OptionValue::Expr(ast::Expr {
                kind: ExprKind::Range { low, high },
                ..
            }) => (Some(&**low), Some(&**high)),
            other => {
                return self.wrong(
                    other.span(),
                    "a range of rows is needed here: `-6..0`, `..`",
                    "not a range",
                );
            }
        };
        let mut ends = [None, None];
        for (end, value) in ends.iter_mut().zip([low, high]) {
            let Some(value) = value else { continue };
            match self.constant(value, Want::Int)? {
                Arg::Const(Value::Int(rows)) => *end = Some(rows),
                _ => return self.wrong(value.span, "a number of rows is needed here", "not a number"),
            }
        }
        Some(Arg::Frame(ends[0], ends[1]))
    }

    /// An option named after a column: `cast a: int`.
    fn open_option(&mut self, param: &Param, option: &StageOption) {
        let column = self.column_named(&option.name);
        let arg = match param.arg {
            ArgKind::Type => {
                let ty = match option.value.to_type() {
                    Some(ty) => self.checker.ty(&ty),
                    None => {
                        self.report(
                            Diagnostic::error("E0501", option.value.span(), "a type is needed here")
                                .labelled("not a type"),
                        );
                        None
                    }
                };
                match (column, ty) {
                    (Some(index), Some(ty)) => self.cast(index, ty, option),
                    _ => None,
                }
            }
            kind => self.option_value(kind, &option.value),
        };
        let name: Arc<str> = option.name.text.as_str().into();
        match (arg, column) {
            (Some(arg), Some(_)) => self.out.columns.push(Item {
                name: Some(name),
                arg,
                descending: false,
                span: option.span,
            }),
            _ => {
                // The column's type would be another one: a guess from here on.
                self.out.guess = true;
                if let Some(index) = column {
                    let ty = self.rows.fields.get(index).map_or(Type::Null, |field| field.ty.clone());
                    let expr = Expr::constant(Value::Null, ty, option.span);
                    let position = self.compute(expr, Some(name.clone()), true);
                    self.out.columns.push(Item {
                        name: Some(name),
                        arg: Arg::Column(position),
                        descending: false,
                        span: option.span,
                    });
                }
            }
        }
    }

    fn cast(&mut self, index: usize, ty: Type, option: &StageOption) -> Option<Arg> {
        if self.rows.is_guess(index) {
            return None;
        }
        let field = self.rows.fields.get(index)?;
        let span = option.span;
        let column = Expr::column(index, field, option.name.span);
        let made = self.checker.accept(Expr::cast(column, ty, span))?;
        let name = field.name.clone();
        Some(match made.kind {
            ExprForm::Column { index, .. } => Arg::Column(index),
            _ => Arg::Column(self.compute(made, Some(name), false)),
        })
    }

    fn block(&mut self, spec: &StageSpec, call: &StageCall) {
        let found = match call.block.as_ref().map(|block| &block.kind) {
            None => BlockKind::None,
            Some(ast::BlockKind::Arms(_)) => BlockKind::Route,
            Some(ast::BlockKind::Stages(_)) => BlockKind::Tee,
        };
        if found == spec.block {
            return;
        }
        self.out.broken = true;
        let name = spec.name;
        let diagnostic = match (&call.block, spec.block) {
            (Some(block), BlockKind::None) => {
                Diagnostic::error("E0511", block.span, format!("`{name}` takes no braces")).labelled("not allowed here")
            }
            (Some(block), BlockKind::Route) => Diagnostic::error("E0501", block.span, format!("`{name}` takes arms"))
                .labelled("`{ when c => s, else => _ }`"),
            (Some(block), BlockKind::Tee) => Diagnostic::error("E0501", block.span, format!("`{name}` takes stages"))
                .labelled("`{ filter … | write … }`"),
            (None, BlockKind::Route) => {
                Diagnostic::error("E0502", call.name_span(), format!("`{name}` needs its arms"))
                    .labelled(format!("`{name} {{ when c => s, else => _ }}`"))
            }
            (None, _) => Diagnostic::error("E0502", call.name_span(), format!("`{name}` needs its stages"))
                .labelled(format!("`{name} {{ filter … | write … }}`")),
        };
        self.report(diagnostic);
    }

    /// The conditions of a `route`, each computed, each only for rows that no earlier one took.
    pub(super) fn conditions(mut self, arms: &[ast::RouteArm]) -> Resolved {
        let own = self.rows.fields.len();
        for condition in arms.iter().filter_map(|arm| arm.condition.as_ref()) {
            let made = self.checker.expression(condition, &Scope::rows(self.rows));
            let made = made.and_then(|expr| match fits(Want::Bool, &expr.ty) {
                true => Some(expr),
                false => {
                    let text = self.checker.text_of(condition.span);
                    self.checker
                        .report(not_wanted(Want::Bool, &expr.ty, condition.span, text));
                    None
                }
            });
            match made {
                Some(mut expr) => {
                    if expr.fallible {
                        for (at, earlier) in self.out.computed.iter().enumerate().rev() {
                            let span = expr.span;
                            let taken = Expr::column(own + at, &earlier.field, span);
                            let no = Expr::constant(Value::Bool(false), Type::Bool, span);
                            match self.checker.accept(Expr::if_(taken, no, Some(expr.clone()), span)) {
                                Some(guarded) => expr = guarded,
                                None => self.out.guess = true,
                            }
                        }
                    }
                    self.compute(expr, None, false);
                }
                None => self.out.guess = true,
            }
        }
        self.out
    }
}

/// The name an expression has of itself: a column's, or the last field's of a path.
fn self_name(value: &ast::Expr) -> Option<&str> {
    match &value.kind {
        ExprKind::Name(name) => Some(&name.text),
        ExprKind::Field { receiver, name, .. } => {
            self_name(receiver)?;
            Some(&name.text)
        }
        _ => None,
    }
}

/// Whether a type is what an argument wants.
pub(super) fn fits(want: Want, ty: &Type) -> bool {
    match want {
        Want::Any => true,
        Want::Bool => *ty == Type::Bool,
        Want::Int => *ty == Type::Int,
        Want::Number => ty.is_number(),
        Want::String => *ty == Type::String,
        Want::List => matches!(ty, Type::List(_)),
        Want::Record => matches!(ty, Type::Record(_)),
        Want::Duration => *ty == Type::Duration,
        Want::Ordered => ty.is_ordered(),
    }
}

pub(super) fn not_wanted(want: Want, ty: &Type, span: Span, text: &str) -> Diagnostic {
    let (code, what, help) = match want {
        Want::Bool => ("E0304", "a condition is a bool", condition_help(ty, text)),
        Want::Int => ("E0301", "an int is needed here", None),
        Want::Number => ("E0301", "a number is needed here", None),
        Want::String => ("E0301", "text is needed here", None),
        Want::List => ("E0301", "a list is needed here", None),
        Want::Record => ("E0301", "a record is needed here", None),
        Want::Duration => ("E0301", "a duration is needed here: `5m`", None),
        Want::Ordered => ("E0309", "a value with an order is needed here", None),
        Want::Any => ("E0301", "another value is needed here", None),
    };
    Diagnostic::error(code, span, what)
        .labelled(format!("this is {ty}"))
        .help_if(help)
}

fn condition_help(ty: &Type, text: &str) -> Option<String> {
    let text = if text.contains(' ') {
        format!("({text})")
    } else {
        text.to_owned()
    };
    match ty {
        Type::Int | Type::Float | Type::Decimal { .. } => Some(format!("`{text} != 0` is a condition")),
        Type::String => Some(format!("`{text} != \"\"` is a condition")),
        _ => None,
    }
}

/// A type for a guess, so that the stage can be bound.
fn stand_in(want: Want) -> Type {
    match want {
        Want::Bool => Type::Bool,
        Want::Int | Want::Number => Type::Int,
        Want::String => Type::String,
        Want::List => Type::list(Type::Null, true),
        Want::Duration => Type::Duration,
        Want::Any | Want::Record | Want::Ordered => Type::Null,
    }
}

/// A default as its declaration writes it.
fn default(kind: ArgKind, text: &str) -> Option<Arg> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Some(match kind {
        ArgKind::Word => Arg::Word(quoted.unwrap_or(text).into()),
        ArgKind::Const(want) => Arg::Const(match (want, text) {
            (_, "null") => return None,
            (_, "true") => Value::Bool(true),
            (_, "false") => Value::Bool(false),
            (Want::List, "[]") => Value::List(vec![]),
            _ => match (quoted, text.replace('_', "").parse::<i64>(), text.parse::<f64>()) {
                (Some(text), ..) => Value::String(text.to_owned()),
                (None, Ok(int), _) => Value::Int(int),
                (None, Err(_), Ok(float)) => Value::Float(float),
                (None, Err(_), Err(_)) => Value::String(text.to_owned()),
            },
        }),
        _ => return None,
    })
}
