//! Expressions as written → typed expressions: names are resolved here, types are `expr`'s business.
//!
//! `None` means that a mistake was reported (or hangs on one that was): whoever gets it says nothing more.

use super::aggregates::{Aggregating, Over};
use super::hints;
use super::names::ValueKind;
use super::report::Checker;
use super::rows::{Lookup, Rows};
use crate::diag::{Diagnostic, Span, suggest};
use crate::expr::{ArgValue, Arith, CallArg, Cmp, Expr, FPart, Issue, Lambda, LambdaArg, MatchPattern};
use crate::syntax::ast::{self, BinaryOp, ExprKind, Ident, PatternKind, TypeKind, UnaryOp};
use standpipe_sdk::{Code, Field, Type, Value};

/// How deep an expression may be once functions are put in place: evaluation walks it on a worker's stack.
const MOST_DEPTH: usize = 500;
/// How many parts it may have then.
const MOST_NODES: usize = 50_000;

/// What a name can be at one place.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    /// The columns here. In a constant they are known only to say that they cannot be used.
    pub(super) rows: Option<&'s Rows>,
    /// Columns that earlier items of the same stage made; they hide those of `rows`.
    pub(super) made: &'s [Made],
    /// Parameters of functions and lambdas, the innermost last.
    pub(super) locals: &'s [Local],
    pub(super) place: Place,
    pub(super) aggregates: Aggregates<'s>,
}

/// Whether aggregates can stand at one place.
#[derive(Clone, Copy)]
pub(super) enum Aggregates<'s> {
    No,
    /// Here: the columns of the scope are the keys.
    Here(&'s Aggregating<'s>),
    /// These are arguments of one.
    Inside,
}

/// Where an expression stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Behind a stage: it sees columns.
    Row,
    /// It is known before the run.
    Constant,
    /// The body of a `fn`.
    Function,
}

/// A column made by an earlier item.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) field: Field,
    /// Position in the stage's input.
    pub(super) index: usize,
    pub(super) guess: bool,
}

/// A parameter of a function or lambda.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) name: String,
    pub(super) value: LocalValue,
}

/// What a parameter stands for.
#[derive(Clone, Debug)]
pub(super) enum LocalValue {
    /// An argument, and how many parts it has.
    Expr(Expr, usize),
    /// An element that a lambda gets.
    Element(usize, Field),
    Guess,
}

impl<'s> Scope<'s> {
    /// Nothing but values.
    pub(super) const CONSTANT: Scope<'static> = Scope {
        rows: None,
        made: &[],
        locals: &[],
        place: Place::Constant,
        aggregates: Aggregates::No,
    };

    /// The columns of a stream.
    pub(super) fn rows(rows: &'s Rows) -> Scope<'s> {
        Scope {
            rows: Some(rows),
            made: &[],
            locals: &[],
            place: Place::Row,
            aggregates: Aggregates::No,
        }
    }

    /// A constant among the arguments of a stage.
    pub(super) fn constant_in(rows: &'s Rows) -> Scope<'s> {
        Scope {
            place: Place::Constant,
            ..Scope::rows(rows)
        }
    }

    fn column(&self, name: &str) -> Found<'s> {
        if self.place != Place::Row {
            return Found::Missing;
        }
        if let Some(made) = self.made.iter().rev().find(|made| &*made.field.name == name) {
            return if made.guess {
                Found::Guess
            } else {
                Found::Column(made.index, &made.field)
            };
        }
        let Some(rows) = self.rows else {
            return Found::Missing;
        };
        match rows.find(name) {
            Lookup::Column(index) => match rows.fields.get(index) {
                Some(field) => Found::Column(index, field),
                None => Found::Missing,
            },
            Lookup::Guess => Found::Guess,
            Lookup::Missing => Found::Missing,
        }
    }
}

enum Found<'s> {
    Column(usize, &'s Field),
    Guess,
    Missing,
}

impl<'a> Checker<'a> {
    /// A whole expression: counts afresh.
    pub(super) fn expression(&self, ast: &ast::Expr, scope: &Scope<'_>) -> Option<Expr> {
        self.nodes.set(0);
        self.too_large.set(false);
        let expr = self.expr(ast, scope)?;
        match expr.failing_constant() {
            Some(issue) => self.accept(Err(issue)),
            None => Some(expr),
        }
    }

    /// A constant's value; says so if it is none.
    pub(super) fn constant(&self, ast: &ast::Expr, scope: &Scope<'_>) -> Option<Expr> {
        let scope = Scope {
            place: Place::Constant,
            ..*scope
        };
        let expr = self.expression(ast, &scope)?;
        if expr.as_value().is_none() {
            self.report(
                Diagnostic::error("E0315", ast.span, "this is not a constant")
                    .labelled("known only while the script runs"),
            );
            return None;
        }
        Some(expr)
    }

    /// Part of an expression.
    pub(super) fn expr(&self, ast: &ast::Expr, scope: &Scope<'_>) -> Option<Expr> {
        let depth = self.depth.get();
        self.nodes.set(self.nodes.get() + 1);
        if depth >= MOST_DEPTH || self.nodes.get() > MOST_NODES {
            if !self.too_large.replace(true) {
                self.report(
                    Diagnostic::error("E0103", ast.span, "the expression is too large")
                        .labelled("here it goes too far, with the functions it calls put in place")
                        .help("`derive` gives a part of it a name and computes it once"),
                );
            }
            return None;
        }
        self.depth.set(depth + 1);
        let made = self.kind(ast, scope);
        self.depth.set(depth);
        made
    }

    /// Small: it stands on the stack once per level of nesting.
    fn kind(&self, ast: &ast::Expr, scope: &Scope<'_>) -> Option<Expr> {
        let span = ast.span;
        match &ast.kind {
            ExprKind::Name(name) => self.name(name, scope),
            ExprKind::Param(name) => self.value_named(name, ast.span, "param"),
            ExprKind::Let(name) => self.value_named(name, ast.span, "let"),
            ExprKind::Binary {
                op,
                left,
                right,
                op_span,
                ..
            } => self.binary(*op, *op_span, left, right, ast.span, scope),
            ExprKind::Unary { op, operand, .. } => {
                let operand = self.expr(operand, scope)?;
                self.accept(match op {
                    UnaryOp::Neg => Expr::neg(operand, span),
                    UnaryOp::Not => Expr::not(operand, span),
                })
            }
            ExprKind::Call { name, args } => self.call(None, name, args, ast.span, scope),
            ExprKind::Method { receiver, name, args } => self.method(receiver, name, args, ast.span, scope),
            ExprKind::Field {
                receiver,
                name,
                optional,
            } => {
                if let Some(module) = receiver.as_name().filter(|name| self.is_module(name, scope)) {
                    self.unknown_module(module);
                    return None;
                }
                let receiver = self.expr(receiver, scope)?;
                self.accept(Expr::field(receiver, &name.text, *optional, span))
            }
            ExprKind::Index { receiver, index } => {
                let receiver = self.expr(receiver, scope);
                let index = self.expr(index, scope);
                self.accept(Expr::index(receiver?, index?, false, span))
            }
            ExprKind::If {
                condition,
                then,
                otherwise,
            } => self.if_(condition, then, otherwise.as_deref(), ast.span, scope),
            ExprKind::Match {
                subject,
                arms,
                otherwise,
            } => self.match_(subject, arms, otherwise.as_deref(), ast.span, scope),
            ExprKind::List(items) => {
                let items: Vec<Option<Expr>> = items.iter().map(|item| self.expr(item, scope)).collect();
                self.accept(Expr::list(items.into_iter().collect::<Option<_>>()?, span))
            }
            ExprKind::Record(fields) => self.record(fields, span, scope),
            ExprKind::FString(parts) => self.fstring(parts, span, scope),
            ExprKind::Error => None,
            literal => self.literal(literal, ast.span),
        }
    }

    fn literal(&self, kind: &ExprKind, at: Span) -> Option<Expr> {
        let span = at;
        let constant = |value, ty| Some(Expr::constant(value, ty, span));
        match kind {
            ExprKind::Null => Some(Expr::null(span)),
            ExprKind::Bool(value) => constant(Value::Bool(*value), Type::Bool),
            ExprKind::Int(value) => constant(Value::Int(*value), Type::Int),
            ExprKind::Float { text, .. } => Some(Expr::literal_decimal(text, span)),
            ExprKind::Str(text) => constant(Value::String(text.clone()), Type::String),
            ExprKind::Bytes(bytes) => constant(Value::Bytes(bytes.clone()), Type::Bytes),
            ExprKind::Date(days) => constant(Value::Date(*days), Type::Date),
            ExprKind::Timestamp(micros) => constant(Value::Timestamp(*micros), Type::Timestamp),
            ExprKind::Duration(micros) => constant(Value::Duration(*micros), Type::Duration),
            ExprKind::Size(bytes) => constant(Value::Int(i64::try_from(*bytes).unwrap_or(i64::MAX)), Type::Int),
            ExprKind::Regex { .. } => {
                self.report(
                    Diagnostic::error("E0124", at, "a regular expression cannot stand here")
                        .labelled("it is no value")
                        .help("`text ~ /pattern/` matches it"),
                );
                None
            }
            ExprKind::Range { .. } => {
                self.report(
                    Diagnostic::error("E0124", at, "a range cannot stand here")
                        .labelled("it is no value")
                        .help("`x in a..b` tests it"),
                );
                None
            }
            ExprKind::Lambda { .. } => {
                self.report(
                    Diagnostic::error("E0124", at, "a lambda cannot stand here").labelled("only as an argument"),
                );
                None
            }
            _ => None,
        }
    }

    /// A bare name: a parameter of a function or lambda, a column, or a value.
    fn name(&self, name: &Ident, scope: &Scope<'_>) -> Option<Expr> {
        let span = name.span;
        if !name.quoted
            && let Some(local) = scope.locals.iter().rev().find(|local| local.name == name.text)
        {
            return match &local.value {
                LocalValue::Expr(expr, nodes) => {
                    self.nodes.set(self.nodes.get() + nodes);
                    Some(Expr { span, ..expr.clone() })
                }
                LocalValue::Element(slot, field) => Some(Expr::lambda_param(*slot, field, span)),
                LocalValue::Guess => None,
            };
        }
        let value = match name.quoted {
            true => None,
            false => self.names.borrow().values.get(name.text.as_str()).copied(),
        };
        match (scope.column(&name.text), value) {
            (Found::Column(index, field), None) => Some(Expr::column(index, field, span)),
            (Found::Guess, None) => None,
            (Found::Missing, Some(decl)) => self.value_named(name, name.span, decl.kind.word()),
            (Found::Guess, Some(_)) if !self.certain(name, scope) => {
                self.names.borrow_mut().used_values.insert(name.text.clone());
                None
            }
            (_, Some(decl)) => {
                self.names.borrow_mut().used_values.insert(name.text.clone());
                let (word, text) = (decl.kind.word(), &name.text);
                let what = if word == "param" { "parameter" } else { "value" };
                self.report(
                    Diagnostic::error(
                        "E0208",
                        name.span,
                        format!("`{text}` is a column here and also a {what}"),
                    )
                    .labelled("which one?")
                    .also(decl.name.span, format!("the {what}"))
                    .help(format!(
                        "`` `{text}` `` in backticks is the column, `{word}.{text}` the {what}"
                    )),
                );
                None
            }
            (Found::Missing, None) => {
                self.name_missing(name, scope);
                None
            }
        }
    }

    /// Whether a column of that name is there, even if its type is only a guess.
    fn certain(&self, name: &Ident, scope: &Scope<'_>) -> bool {
        let has = |fields: &[Field]| fields.iter().any(|field| *field.name == name.text);
        scope.rows.is_some_and(|rows| has(&rows.fields)) || scope.made.iter().any(|made| *made.field.name == name.text)
    }

    fn name_missing(&self, name: &Ident, scope: &Scope<'_>) {
        let text = &name.text;
        if let Aggregates::Here(aggregating) = scope.aggregates
            && aggregating.over != Over::Rows
            && aggregating.input.find(text) != Lookup::Missing
        {
            self.report(
                Diagnostic::error(
                    "E0516",
                    name.span,
                    format!("the column `{text}` is neither a key nor combined"),
                )
                .labelled("a group has many values of it")
                .help(format!("`first({text})` takes one, `by {text}` makes it a key")),
            );
            return;
        }
        let column_there = scope.rows.is_some_and(|rows| rows.find(text) != Lookup::Missing);
        let diagnostic = match scope.place {
            Place::Row => {
                let mut near: Option<String> = None;
                let mut diagnostic = Diagnostic::error("E0204", name.span, format!("column `{text}` not found"));
                if let Some(rows) = scope.rows {
                    let made = scope.made.iter().map(|made| &*made.field.name);
                    let own = rows.fields.iter().map(|field| &*field.name);
                    near = suggest(text, own.chain(made)).map(str::to_owned);
                    diagnostic = diagnostic.note(rows.note());
                }
                let near = near.or_else(|| self.nearest_value(text));
                if let Some(near) = near {
                    diagnostic = diagnostic.labelled(format!("`{near}` is close"));
                } else if self.names.borrow().streams.contains_key(text.as_str()) {
                    diagnostic = diagnostic.labelled("a stream has this name, no column");
                } else if crate::expr::is_function(text) {
                    diagnostic = diagnostic.labelled(format!("a function has this name: `{text}(…)`"));
                } else {
                    diagnostic = diagnostic.labelled("no column, parameter or value has this name");
                }
                diagnostic
            }
            Place::Constant if column_there => {
                Diagnostic::error("E0216", name.span, format!("the column `{text}` cannot be used here"))
                    .labelled("this is known before the first row")
            }
            Place::Function if column_there => Diagnostic::error(
                "E0216",
                name.span,
                format!("the column `{text}` cannot be used in a `fn`"),
            )
            .labelled("a `fn` sees its parameters, and the script's"),
            Place::Constant | Place::Function => {
                let near = match scope.place {
                    Place::Function => suggest(text, scope.locals.iter().map(|local| &*local.name)).map(str::to_owned),
                    _ => None,
                };
                let near = near.or_else(|| self.nearest_value(text));
                let mut diagnostic = Diagnostic::error("E0202", name.span, format!("`{text}` not found"));
                diagnostic = match near {
                    Some(near) => diagnostic.labelled(format!("`{near}` is close")),
                    None => diagnostic.labelled("no parameter or value has this name"),
                };
                if scope.place == Place::Function {
                    diagnostic =
                        diagnostic.note("a `fn` sees its parameters and the script's `param` and `let`, never columns");
                }
                diagnostic
            }
        };
        self.report(diagnostic);
    }

    /// The value a misspelt name may mean; it counts as used.
    fn nearest_value(&self, name: &str) -> Option<String> {
        let near = suggest(name, self.names.borrow().values.keys().copied()).map(str::to_owned);
        self.names.borrow_mut().used_values.extend(near.clone());
        near
    }

    /// `param.country`, `let.vat`, or a bare name that can be nothing else.
    fn value_named(&self, name: &Ident, span: Span, word: &str) -> Option<Expr> {
        let decl = self.names.borrow().values.get(name.text.as_str()).copied();
        match decl {
            Some(decl) if decl.kind.word() == word => {
                self.names.borrow_mut().used_values.insert(name.text.clone());
                if matches!(decl.kind, ValueKind::Secret) {
                    return None;
                }
                let value = self.value(&name.text)?;
                Some(Expr { span, ..value })
            }
            Some(decl) => {
                let other = decl.kind.word();
                self.report(
                    Diagnostic::error("E0202", span, format!("`{word}.{}` not found", name.text))
                        .labelled(format!("it is a `{other}`: `{other}.{}`", name.text)),
                );
                None
            }
            None => {
                let near = self.nearest_value(&name.text);
                self.report(
                    Diagnostic::error("E0202", span, format!("`{word}.{}` not found", name.text)).labelled(
                        near.map_or_else(
                            || format!("no `{word}` of this name"),
                            |near| format!("`{near}` is close"),
                        ),
                    ),
                );
                None
            }
        }
    }

    #[inline(never)]
    fn binary(
        &self,
        op: BinaryOp,
        op_span: Span,
        left: &ast::Expr,
        right: &ast::Expr,
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let span = at;
        match op {
            BinaryOp::In | BinaryOp::NotIn => return self.in_(left, right, op == BinaryOp::NotIn, at, scope),
            BinaryOp::Match => return self.matches(left, right, at, scope),
            _ => {}
        }
        let is_null = |side: &ast::Expr| matches!(side.kind, ExprKind::Null);
        if matches!(op, BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Is | BinaryOp::IsNot)
            && (is_null(left) || is_null(right))
        {
            let negated = matches!(op, BinaryOp::Ne | BinaryOp::IsNot);
            if self.options.pedantic && matches!(op, BinaryOp::Eq | BinaryOp::Ne) {
                let word = if negated { "is not null" } else { "is null" };
                self.report(
                    Diagnostic::warning("W0008", op_span, format!("`{} null` is read as `{word}`", op.text()))
                        .labelled(format!("`{word}` says it")),
                );
            }
            let side = if is_null(right) { left } else { right };
            let side = self.expr(side, scope)?;
            return self.accept(Expr::is_null(side, negated, span));
        }
        let left = self.expr(left, scope);
        let right = self.expr(right, scope);
        let (left, right) = (left?, right?);
        self.accept(apply(op, left, right, span)?)
    }

    #[inline(never)]
    fn in_(&self, left: &ast::Expr, right: &ast::Expr, negated: bool, at: Span, scope: &Scope<'_>) -> Option<Expr> {
        let span = at;
        let value = self.expr(left, scope);
        match &right.kind {
            ExprKind::Range { low, high } => {
                let low = self.expr(low, scope);
                let high = self.expr(high, scope);
                self.accept(Expr::in_range(value?, low?, high?, negated, span))
            }
            ExprKind::List(items) => {
                let items: Vec<Option<Expr>> = items.iter().map(|item| self.expr(item, scope)).collect();
                let items = items.into_iter().collect::<Option<_>>();
                self.accept(Expr::in_list(value?, items?, negated, span))
            }
            _ => {
                let list = self.expr(right, scope)?;
                let value = value?;
                if list.ty == Type::String {
                    let (part, whole) = (self.text_of(left.span), self.text_of(right.span));
                    self.report(
                        Diagnostic::error("E0301", at, "`in` looks into a list or a range, not into text")
                            .labelled("the right side is a string")
                            .help(format!("`{whole}.contains({part})`")),
                    );
                    return None;
                }
                self.accept(Expr::in_values(value, list, negated, span))
            }
        }
    }

    #[inline(never)]
    fn matches(&self, left: &ast::Expr, right: &ast::Expr, at: Span, scope: &Scope<'_>) -> Option<Expr> {
        let value = self.expr(left, scope);
        let ExprKind::Regex { pattern, flags } = &right.kind else {
            self.report(
                Diagnostic::error("E0301", right.span, "`~` needs a regular expression on its right side")
                    .labelled("written between slashes: `/pattern/i`")
                    .help("`s.contains(x)` and `s == x` compare with text"),
            );
            return None;
        };
        let made = Expr::regex(value?, pattern, flags, at);
        self.accept(made)
    }

    #[inline(never)]
    fn if_(
        &self,
        condition: &ast::Expr,
        then: &ast::Expr,
        otherwise: Option<&ast::Expr>,
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let condition = self.expr(condition, scope);
        let then = self.expr(then, scope);
        let otherwise = match otherwise {
            Some(otherwise) => self.expr(otherwise, scope).map(Some),
            None => Some(None),
        };
        self.accept(Expr::if_(condition?, then?, otherwise?, at))
    }

    #[inline(never)]
    fn match_(
        &self,
        subject: &ast::Expr,
        arms: &[ast::MatchArm],
        otherwise: Option<&ast::Expr>,
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let subject = self.expr(subject, scope);
        let mut made = Vec::with_capacity(arms.len());
        let mut whole = true;
        for arm in arms {
            let patterns: Vec<Option<MatchPattern>> = arm
                .patterns
                .iter()
                .map(|pattern| self.pattern(pattern, scope))
                .collect();
            let value = self.expr(&arm.value, scope);
            match (patterns.into_iter().collect::<Option<Vec<_>>>(), value) {
                (Some(patterns), Some(value)) => made.push((patterns, value)),
                _ => whole = false,
            }
        }
        let otherwise = match otherwise {
            Some(otherwise) => self.expr(otherwise, scope).map(Some),
            None => Some(None),
        };
        if !whole {
            return None;
        }
        self.accept(Expr::match_(subject?, made, otherwise?, at))
    }

    fn pattern(&self, pattern: &ast::Pattern, scope: &Scope<'_>) -> Option<MatchPattern> {
        Some(match &pattern.kind {
            PatternKind::Literal(ast::Expr {
                kind: ExprKind::Null, ..
            }) => MatchPattern::Null,
            PatternKind::Literal(value) => MatchPattern::Value(self.expr(value, scope)?),
            PatternKind::Range { low, high } => {
                let end = |end: &Option<ast::Expr>| match end {
                    Some(end) => self.expr(end, scope).map(Some),
                    None => Some(None),
                };
                MatchPattern::Range(end(low)?, end(high)?)
            }
        })
    }

    #[inline(never)]
    fn record(&self, fields: &[ast::RecordField], span: standpipe_sdk::Span, scope: &Scope<'_>) -> Option<Expr> {
        let made: Vec<Option<(String, Expr)>> = fields
            .iter()
            .map(|field| Some((field.name.text.clone(), self.expr(&field.value, scope)?)))
            .collect();
        self.accept(Expr::record(made.into_iter().collect::<Option<_>>()?, span))
    }

    #[inline(never)]
    fn fstring(&self, parts: &[ast::FPart], span: standpipe_sdk::Span, scope: &Scope<'_>) -> Option<Expr> {
        let made: Vec<Option<FPart>> = parts
            .iter()
            .map(|part| {
                Some(match part {
                    ast::FPart::Text(text) => FPart::Text(text.clone()),
                    ast::FPart::Expr { expr, spec } => {
                        FPart::Value(self.expr(expr, scope)?, spec.as_ref().map(|spec| spec.value.clone()))
                    }
                })
            })
            .collect();
        self.accept(Expr::fstring(made.into_iter().collect::<Option<_>>()?, span))
    }

    /// Whether `name.f(…)` means a function of a used script or plugin.
    fn is_module(&self, name: &Ident, scope: &Scope<'_>) -> bool {
        !name.quoted
            && self.names.borrow().modules.contains_key(name.text.as_str())
            && !scope.locals.iter().any(|local| local.name == name.text)
    }

    #[inline(never)]
    fn method(
        &self,
        receiver: &ast::Expr,
        name: &Ident,
        args: &[ast::Arg],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        if let Some(module) = receiver.as_name().filter(|name| self.is_module(name, scope)) {
            if let Some(plugged) = self.plugged(module, name) {
                return self.plugged_call(plugged, args, at, scope);
            }
            let combines = self.plugin_aggregate(module, name);
            if let (Some(spec), Aggregates::Here(aggregating)) = (combines, scope.aggregates) {
                return self.aggregate(aggregating, &[spec], None, spec.name, args, at);
            }
            let mut inside = *scope;
            if let Some(spec) = combines {
                self.aggregate_misplaced(spec.name, module.span.to(name.span), scope);
            } else if let Some(spec) = self.plugin_function(module, name, scope.aggregates) {
                return self.call_of(&[spec], spec.name, None, args, at, scope);
            } else if let Aggregates::Here(aggregating) = scope.aggregates {
                // It was to be an aggregate, most likely.
                inside = Scope {
                    aggregates: Aggregates::Inside,
                    ..Scope::rows(aggregating.input)
                };
            }
            // It was reported, as was a `use` that failed.
            for arg in args {
                self.argument_silently(&arg.value, &inside);
            }
            return None;
        }
        self.call(Some(receiver), name, args, at, scope)
    }

    /// Looks at an argument of something unknown, for the names it uses and their mistakes.
    fn argument_silently(&self, value: &ast::Expr, scope: &Scope<'_>) {
        if !matches!(value.kind, ExprKind::Lambda { .. } | ExprKind::Regex { .. }) {
            self.expr(value, scope);
        }
    }

    #[inline(never)]
    fn call(
        &self,
        receiver: Option<&ast::Expr>,
        name: &Ident,
        args: &[ast::Arg],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let own = self.names.borrow().functions.get(name.text.as_str()).copied();
        if let Some(def) = own {
            return self.inline(def, receiver, args, at, scope);
        }
        if let Aggregates::Here(aggregating) = scope.aggregates
            && crate::expr::is_aggregate(&name.text)
            && !args.iter().any(|arg| matches!(arg.value.kind, ExprKind::Lambda { .. }))
        {
            let overloads: Vec<_> = crate::expr::aggregate(&name.text).collect();
            return self.aggregate(aggregating, &overloads, receiver, &name.text, args, at);
        }
        if let Aggregates::Here(aggregating) = scope.aggregates
            && aggregating.over == Over::Rows
            && let Some(spec) = crate::expr::window_function(&name.text)
        {
            return self.window_call(aggregating, spec, receiver, args, at);
        }
        if !crate::expr::is_function(&name.text) {
            if let Some(kind) = TypeKind::from_word(&name.text) {
                return self.cast(&kind, name, receiver, args, at, scope);
            }
            self.function_missing(name, scope);
            for value in receiver.into_iter().chain(args.iter().map(|arg| &arg.value)) {
                self.argument_silently(value, scope);
            }
            return None;
        }
        let overloads: Vec<_> = crate::expr::function(&name.text).collect();
        self.call_of(&overloads, &name.text, receiver, args, at, scope)
    }

    /// A call of one of these functions.
    fn call_of(
        &self,
        overloads: &[&'static crate::expr::FunctionSpec],
        name: &str,
        receiver: Option<&ast::Expr>,
        args: &[ast::Arg],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let mut made = Vec::with_capacity(args.len() + 1);
        let mut whole = true;
        let positional = receiver.map(|value| (None, value));
        for (arg_name, value) in positional
            .into_iter()
            .chain(args.iter().map(|arg| (arg.name.as_ref(), &arg.value)))
        {
            match self.argument(value, scope) {
                Some(made_value) => made.push(CallArg {
                    name: arg_name.map(|name| name.text.clone()),
                    value: made_value,
                    span: value.span,
                }),
                None => whole = false,
            }
        }
        if !whole {
            return None;
        }
        let before = self.reported();
        match Expr::call_of(name, overloads, made, at) {
            Ok(expr) => Some(expr),
            // A lambda's body reported its own mistake.
            Err(_) if self.reported() > before => None,
            Err(issue) => self.accept(Err(issue)),
        }
    }

    fn argument<'c>(&'c self, value: &'c ast::Expr, scope: &Scope<'c>) -> Option<ArgValue<'c>> {
        Some(match &value.kind {
            ExprKind::Regex { pattern, flags } => ArgValue::Regex {
                pattern: pattern.clone(),
                flags: flags.clone(),
            },
            ExprKind::Lambda { params, body } => {
                let scope = *scope;
                let outer = scope
                    .locals
                    .iter()
                    .filter(|local| matches!(local.value, LocalValue::Element(..)))
                    .count();
                ArgValue::Lambda(LambdaArg {
                    params: params.iter().map(|param| param.text.clone()).collect(),
                    build: Box::new(move |fields: &[Field]| {
                        let mut locals = scope.locals.to_vec();
                        for (at, param) in params.iter().enumerate() {
                            locals.push(Local {
                                name: param.text.clone(),
                                value: match fields.get(at) {
                                    Some(field) => LocalValue::Element(outer + at, field.clone()),
                                    None => LocalValue::Guess,
                                },
                            });
                        }
                        let inner = Scope {
                            locals: &locals,
                            ..scope
                        };
                        let body = self
                            .expr(body, &inner)
                            .ok_or_else(|| Issue::new(Code(301), value.span, "the lambda has a mistake", ""))?;
                        Ok(Lambda {
                            names: params.iter().map(|param| param.text.clone()).collect(),
                            body: Box::new(body),
                        })
                    }),
                })
            }
            _ => ArgValue::Expr(self.expr(value, scope)?),
        })
    }

    /// `int(x)`, `decimal(x, 18, 2)`.
    #[inline(never)]
    fn cast(
        &self,
        kind: &TypeKind,
        name: &Ident,
        receiver: Option<&ast::Expr>,
        args: &[ast::Arg],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let values: Vec<&ast::Expr> = receiver.into_iter().chain(args.iter().map(|arg| &arg.value)).collect();
        let [value, rest @ ..] = values.as_slice() else {
            self.report(
                Diagnostic::error("E0517", at, format!("`{}` takes a value", name.text)).labelled("no value is given"),
            );
            return None;
        };
        let value = self.expr(value, scope);
        let digits = |ast: &&ast::Expr| match ast.kind {
            ExprKind::Int(n) => u8::try_from(n).ok(),
            _ => None,
        };
        let ty = match (kind, rest) {
            (_, []) => self.ty(&ast::TypeExpr {
                kind: kind.clone(),
                nullable: false,
                span: name.span,
            })?,
            (TypeKind::Decimal(None), [precision, scale]) => match (digits(precision), digits(scale)) {
                (Some(precision @ 1..=38), Some(scale)) if scale <= precision => Type::Decimal { precision, scale },
                _ => {
                    self.report(
                        Diagnostic::error("E0121", precision.span.to(scale.span), "a decimal has 1 to 38 digits")
                            .labelled("precision and scale, both literals, the scale at most the precision"),
                    );
                    return None;
                }
            },
            (_, [extra, ..]) => {
                self.report(
                    Diagnostic::error("E0517", extra.span, format!("`{}` takes one value", name.text))
                        .labelled("this is one too many"),
                );
                return None;
            }
        };
        self.accept(Expr::cast(value?, ty, at))
    }

    /// An aggregate where none can stand.
    fn aggregate_misplaced(&self, name: &str, at: Span, scope: &Scope<'_>) {
        let (label, help) = match scope.aggregates {
            Aggregates::Inside => (
                "an aggregate is given to an aggregate",
                "a second `aggregate` combines what the first one gives".to_owned(),
            ),
            _ => (
                "it combines many rows",
                format!(
                    "`aggregate {} = {name}(…)` gives it, `by` for each group",
                    name.rsplit('.').next().unwrap_or(name)
                ),
            ),
        };
        self.report(
            Diagnostic::error("E0514", at, format!("the aggregate `{name}` cannot stand here"))
                .labelled(label)
                .help(help),
        );
    }

    fn function_missing(&self, name: &Ident, scope: &Scope<'_>) {
        let text = name.text.as_str();
        let here = matches!(scope.aggregates, Aggregates::Here(_));
        if crate::expr::is_aggregate(text) {
            self.aggregate_misplaced(text, name.span, scope);
            return;
        }
        let diagnostic = if let Some(spec) = crate::expr::window_function(text) {
            let (label, help) = match scope.aggregates {
                Aggregates::Inside => (
                    "it is given to a function of the same window",
                    format!("a `window` of its own before this one: `window {text} = {spec}`"),
                ),
                Aggregates::Here(_) => (
                    "what it looks at are rows, not groups",
                    format!("a `window` before this stage: `window {text} = {spec}`"),
                ),
                Aggregates::No => (
                    "it looks at the rows around this one",
                    format!("`window {text} = {spec}` gives it, `by` within each group"),
                ),
            };
            Diagnostic::error(
                "E0521",
                name.span,
                format!("the window function `{text}` cannot stand here"),
            )
            .labelled(label)
            .help(help)
        } else {
            let names = self.names.borrow();
            let built_in = crate::expr::functions()
                .iter()
                .flat_map(|family| family.iter())
                .map(|spec| spec.name);
            let aggregates = crate::expr::aggregates().iter().flat_map(|family| family.iter());
            let aggregates = aggregates.map(|spec| spec.name).filter(|_| here);
            let rows = matches!(scope.aggregates, Aggregates::Here(here) if here.over == Over::Rows);
            let windows = crate::expr::WINDOW_FUNCTIONS.iter().map(|spec| spec.name);
            let windows = windows.filter(|_| rows);
            let known = names
                .functions
                .keys()
                .copied()
                .chain(built_in)
                .chain(aggregates)
                .chain(windows);
            let near = suggest(text, known);
            let mut diagnostic = Diagnostic::error("E0205", name.span, format!("function `{text}` not found"));
            diagnostic = match (hints::function_here(text), near) {
                (Some(hint), _) => diagnostic.labelled("not a function of this language").help(hint),
                (None, Some(near)) => diagnostic.labelled(format!("`{near}` is close")),
                (None, None) => diagnostic
                    .labelled("neither the script nor the built-ins have it")
                    .help("`standpipe functions` lists them"),
            };
            diagnostic
        };
        self.report(diagnostic);
    }

    /// An expression as a value of exactly this type, by implicit conversion only.
    pub(super) fn coerced(&self, expr: Expr, ty: &Type) -> Option<Expr> {
        if expr.ty == *ty {
            return Some(expr);
        }
        let span = expr.span;
        self.accept(Expr::coerce(expr, ty, span))
    }
}

fn apply(op: BinaryOp, left: Expr, right: Expr, span: standpipe_sdk::Span) -> Option<Result<Expr, Issue>> {
    let arith = |op, l, r| Some(Expr::arith(op, l, r, span));
    let compare = |op, l, r| Some(Expr::compare(op, l, r, span));
    match op {
        BinaryOp::Or => Some(Expr::or(left, right, span)),
        BinaryOp::And => Some(Expr::and(left, right, span)),
        BinaryOp::Eq => compare(Cmp::Eq, left, right),
        BinaryOp::Ne => compare(Cmp::Ne, left, right),
        BinaryOp::Lt => compare(Cmp::Lt, left, right),
        BinaryOp::Le => compare(Cmp::Le, left, right),
        BinaryOp::Gt => compare(Cmp::Gt, left, right),
        BinaryOp::Ge => compare(Cmp::Ge, left, right),
        BinaryOp::Is => Some(Expr::is(left, right, false, span)),
        BinaryOp::IsNot => Some(Expr::is(left, right, true, span)),
        BinaryOp::Coalesce => Some(Expr::coalesce(left, right, span)),
        BinaryOp::Catch => Some(Expr::catch(left, right, span)),
        BinaryOp::Add => arith(Arith::Add, left, right),
        BinaryOp::Sub => arith(Arith::Sub, left, right),
        BinaryOp::Mul => arith(Arith::Mul, left, right),
        BinaryOp::Div => arith(Arith::Div, left, right),
        BinaryOp::FloorDiv => arith(Arith::FloorDiv, left, right),
        BinaryOp::Rem => arith(Arith::Rem, left, right),
        BinaryOp::Pow => arith(Arith::Pow, left, right),
        BinaryOp::In | BinaryOp::NotIn | BinaryOp::Match => None,
    }
}
