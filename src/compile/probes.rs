//! Stages that meet a second stream: it is gathered in one region, and the first stream's rows meet it in another.
//!
//! How: the second stream ends in a build. The probe has two inputs, its rows and the build; what the build gives by itself is a
//! source of its own that is read behind the probed rows.

use super::call::{Computed, Resolver, fits, not_wanted};
use super::draft::{Facts, NewNode, Told, out};
use super::expressions::Scope;
use super::pipelines::{Builder, State, name_streams, rows_behind, spec_name};
use super::rows::{Lookup, Rows};
use crate::diag::Diagnostic;
use crate::expr::{Expr, Kind as ExprForm};
use crate::graph::{Edge, OnError, Op, Pairs, Policy, Port};
use crate::syntax::ast::{self, BinaryOp, ExprKind, Ident, StageCall};
use standpipe_sdk::spec::{Arg, Call, Compare, Factory, Item, Lineage, Make, Probing, StageSpec, Want};
use standpipe_sdk::{Field, Schema, Serial, Type};
use std::cell::Cell;

impl<'r, 'a> Resolver<'r, 'a> {
    /// What is compared of both streams: a name, or `a == b`.
    pub(super) fn matched(&mut self, value: &ast::Expr) -> Option<Arg> {
        let other = self.beside?;
        let (left, right, compare, shared) = match &value.kind {
            ExprKind::Name(_) => (value, value, Compare::Equal, true),
            ExprKind::Binary { op, left, right, .. } if *op == BinaryOp::Eq => {
                (&**left, &**right, Compare::Equal, false)
            }
            ExprKind::Binary { op, left, right, .. } if *op == BinaryOp::Ge => {
                (&**left, &**right, Compare::NotBefore, false)
            }
            ExprKind::Error => {
                self.out.guess = true;
                self.out.broken = true;
                return None;
            }
            _ => {
                self.out.broken = true;
                self.report(
                    Diagnostic::error("E0501", value.span, "rows are matched by a name or by `a == b`")
                        .labelled("neither of them")
                        .help("`where:` takes any other condition"),
                );
                return None;
            }
        };
        let left_side = self.side(left, self.rows, shared);
        let right_side = self.side(right, other, shared);
        let Some((left_expr, right_expr)) = left_side.zip(right_side) else {
            self.out.guess = true;
            self.out.broken = true;
            return None;
        };
        let Some((left_expr, right_expr)) = one_type(left_expr, right_expr) else {
            self.out.broken = true;
            return None;
        };
        let Some((left_expr, right_expr)) = self.comparable(left_expr, right_expr, value) else {
            self.out.broken = true;
            return None;
        };
        let left = match left_expr.kind {
            ExprForm::Column { index, .. } => index,
            _ => self.compute(left_expr, None, false),
        };
        let right = match right_expr.kind {
            ExprForm::Column { index, .. } => index,
            _ => self.compute_beside(right_expr, other),
        };
        Some(Arg::Match {
            left,
            right,
            shared,
            compare,
        })
    }

    /// One side, over its own rows.
    fn side(&mut self, value: &ast::Expr, rows: &Rows, shared: bool) -> Option<Expr> {
        if shared
            && let Some(name) = value.as_name()
            && rows.find(&name.text) == Lookup::Missing
        {
            self.key_missing(name, rows);
            return None;
        }
        self.checker.expression(value, &Scope::rows(rows))
    }

    fn key_missing(&mut self, name: &Ident, rows: &Rows) {
        let here = std::ptr::eq(rows, self.rows);
        let text = &name.text;
        let near = rows.nearest(text);
        let other = near.unwrap_or("other");
        let (side, help) = match here {
            true => ("on the left", format!("`on {other} == {text}`")),
            false => ("on the right", format!("`on {text} == {other}`")),
        };
        let columns = rows.note().replacen("rows here", &format!("rows {side}"), 1);
        self.report(
            Diagnostic::error("E0204", name.span, format!("column `{text}` not found {side}"))
                .labelled(near.map_or_else(|| "both sides need it".to_owned(), |near| format!("`{near}` is close")))
                .note(columns)
                .help(help),
        );
    }

    /// Says so if the sides still are of two types.
    fn comparable(&mut self, left: Expr, right: Expr, value: &ast::Expr) -> Option<(Expr, Expr)> {
        if left.ty == right.ty {
            return Some((left, right));
        }
        let (l, r) = (left.ty.clone(), right.ty.clone());
        let text = |span| self.checker.text_of(span);
        let help = match (&l, &r) {
            (Type::Int, Type::Float) | (_, Type::String) => {
                format!("`{}({}) == {}`", r, text(left.span), text(right.span))
            }
            _ => format!("`{} == {}({})`", text(left.span), l, text(right.span)),
        };
        self.report(
            Diagnostic::error("E0302", value.span, "rows are matched by values of one type")
                .labelled(format!("`{l}` on the left, `{r}` on the right"))
                .help(help),
        );
        None
    }

    /// A new computed column of the second stream; its position.
    fn compute_beside(&mut self, expr: Expr, rows: &Rows) -> usize {
        let nullable = expr.nullable || (self.null_on_error && expr.fallible);
        let name = format!("#{}", self.out.beside.len());
        self.out.beside.push(Computed {
            field: Field::new(name, expr.ty.clone(), nullable),
            expr,
            guess: false,
        });
        rows.fields.len() + self.out.beside.len() - 1
    }

    /// A condition on pairs: it sees the first stream's columns and the second one's, as a record if that has a name.
    pub(super) fn pairs(&mut self, value: &ast::Expr) -> Option<Arg> {
        let (rows, lineage) = self.pair_rows()?;
        let made = self.checker.expression(value, &Scope::rows(&rows));
        let made = made.and_then(|expr| match fits(Want::Bool, &expr.ty) {
            true => Some(expr),
            false => {
                let text = self.checker.text_of(value.span);
                self.checker.report(not_wanted(Want::Bool, &expr.ty, value.span, text));
                None
            }
        });
        match made {
            Some(expr) => {
                self.out.pairs = Some((expr, lineage));
                Some(Arg::Pairs)
            }
            None => {
                self.out.guess = true;
                self.out.broken = true;
                None
            }
        }
    }

    /// The columns of a pair and where they come from.
    fn pair_rows(&self) -> Option<(Rows, Vec<Lineage>)> {
        let other = self.beside?;
        let mut rows = self.rows.clone();
        let mut lineage: Vec<Lineage> = (0..rows.fields.len()).map(Lineage::From).collect();
        rows.unknown |= other.unknown;
        if let Some(name) = &self.out.as_name {
            rows.fields
                .push(Field::new(name.as_str(), Type::Record(other.schema()), false));
            rows.guessed.push(other.unknown || other.guessed.contains(&true));
            lineage.push(Lineage::BesideAll);
            return Some((rows, lineage));
        }
        let shared = |field: &Field| {
            let is_key = |item: &Item| {
                matches!(item.arg, Arg::Match { shared: true, .. }) && item.name.as_ref() == Some(&field.name)
            };
            self.out.on.iter().any(is_key)
        };
        for (index, field) in other.fields.iter().enumerate() {
            if !shared(field) {
                rows.fields.push(field.clone());
                rows.guessed.push(other.is_guess(index));
                lineage.push(Lineage::Beside(index));
            }
        }
        rows.missing.extend(other.missing.iter().cloned());
        Some((rows, lineage))
    }
}

/// Brings an int beside a decimal, decimals of two scales, and null to one type; other types stay as they are.
fn one_type(left: Expr, right: Expr) -> Option<(Expr, Expr)> {
    // An int has up to 19 digits.
    const INT_DIGITS: u8 = 19;
    const MOST_DIGITS: u8 = 38;
    let common = match (&left.ty, &right.ty) {
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (Type::Int, &Type::Decimal { precision, scale }) | (&Type::Decimal { precision, scale }, Type::Int) => {
            Type::Decimal {
                precision: precision.max(INT_DIGITS.saturating_add(scale)).min(MOST_DIGITS),
                scale,
            }
        }
        (&Type::Decimal { precision: p, scale: s }, &Type::Decimal { precision: q, scale: t }) => {
            let (scale, whole) = (s.max(t), p.saturating_sub(s).max(q.saturating_sub(t)));
            Type::Decimal {
                precision: whole.saturating_add(scale).min(MOST_DIGITS),
                scale,
            }
        }
        _ => return Some((left, right)),
    };
    let bring = |expr: Expr| {
        let span = expr.span;
        match expr.ty == common {
            true => Some(expr),
            false => Expr::coerce(expr, &common, span).ok(),
        }
    };
    Some((bring(left)?, bring(right)?))
}

impl<'r, 'a> Builder<'r, 'a> {
    /// A stage whose first item is a stream that its rows meet.
    pub(super) fn probe(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        let (policy, to) = self.policy(call, state.default_policy);
        let name = call.items.first().and_then(|item| item.expr()?.as_name());
        let end = name.and_then(|name| self.stream(name));
        let other = end.as_ref().map_or_else(Rows::unknown, |end| end.rows.clone());
        let mut resolved = Resolver::new(self.checker, &state.rows, policy.on_error == OnError::Null)
            .beside(&other)
            .resolve(spec, call);
        name_streams(&mut resolved.items, &resolved.streams);
        if end.is_none() || other.unknown {
            resolved.guess = true;
            resolved.broken = true;
        }
        let told = Cell::new(None);
        let bind = |call: &Call<'_>| {
            let bound = (spec.bind)(call)?;
            told.set(Some(Told::of(spec, call)));
            Ok(bound)
        };
        let bound = self.bind(bind, state, &resolved, call, &[other.schema()]);
        let (Some(bound), Some(end)) = (bound, end) else {
            self.after_mistake(state, &resolved);
            return;
        };
        let rows = rows_behind(&state.rows, Some(&other), &resolved, &bound);
        let Make::Probe(probing) = bound.make else {
            return self.inconsistent(call);
        };
        let Probing {
            build,
            reads,
            rest,
            checks,
        } = probing;
        let stage = spec_name(spec, &resolved.mode);
        let mut left = self.compute(state.edge, &state.rows, resolved.computed, &stage, call, policy, to);
        let mut right = self.compute(end.edge, &other, resolved.beside, &stage, call, policy, to);
        if let Some([first, second]) = checks {
            left = self.checked(left, first, &bound.reads, &stage, call, policy, to);
            right = self.checked(right, second, &reads, &stage, call, policy, to);
        }

        let schema = self.draft.nodes[right.from].schema.clone();
        let mut node = NewNode::new(stage.clone(), call.span, vec![right], schema, Op::Build(build));
        node.detail = "gathers the right side".to_owned();
        node.order = spec.order;
        node.memory = spec.memory;
        node.least = spec.least;
        node.facts.reads = reads;
        let built = Edge {
            from: self.draft.push(node),
            port: Port::Built,
        };

        let pairs = resolved.pairs.map(|(condition, lineage)| Pairs { condition, lineage });
        let may_fail = pairs.as_ref().is_some_and(|pairs| pairs.condition.fallible);
        let mut node = NewNode::new(
            stage.clone(),
            call.span,
            vec![left, built],
            bound.schema.clone(),
            Op::Probe { pairs },
        );
        node.detail = self.detail(call);
        node.order = spec.order;
        node.memory = spec.memory;
        node.least = spec.least;
        node.facts = Facts {
            lineage: bound.lineage.clone(),
            reads: bound.reads,
            places: may_fail,
            fails: may_fail,
            sorted_by: bound.sorted_by,
            told: told.take().unwrap_or_default(),
            ..Facts::default()
        };
        if may_fail {
            node.policy = policy;
        }
        let probe = self.draft.push(node);
        if may_fail {
            self.feeds(probe, to);
        }
        state.edge = out(probe);
        state.rows = rows;
        if rest {
            let mut node = NewNode::new(stage.clone(), call.span, vec![built], bound.schema.clone(), Op::Drain);
            node.detail = "gives what is left of the right side".to_owned();
            node.least = spec.least;
            node.facts.lineage = bound.lineage;
            let left_over = out(self.draft.push(node));
            let inputs = vec![state.edge, left_over];
            let mut node = NewNode::new(stage, call.span, inputs, bound.schema, Op::Pass);
            node.detail = "one after the other".to_owned();
            state.edge = out(self.draft.push(node));
        }
    }

    /// A stream through a stage that looks at its order.
    pub(super) fn checked(
        &mut self,
        edge: Edge,
        make: Factory<Box<dyn Serial>>,
        reads: &[usize],
        stage: &str,
        call: &StageCall,
        policy: Policy,
        to: Option<&str>,
    ) -> Edge {
        let schema: Schema = self.draft.nodes[edge.from].schema.clone();
        let width = schema.width();
        let mut node = NewNode::new(stage, call.span, vec![edge], schema, Op::Serial(make));
        node.detail = "checks the order".to_owned();
        node.facts = Facts {
            lineage: (0..width).map(Lineage::From).collect(),
            reads: reads.to_vec(),
            places: true,
            fails: true,
            reads_places: true,
            ..Facts::default()
        };
        node.policy = policy;
        if policy.on_error == OnError::Null {
            node.policy.on_error = OnError::Fail;
        }
        let id = self.draft.push(node);
        self.feeds(id, to);
        out(id)
    }
}
