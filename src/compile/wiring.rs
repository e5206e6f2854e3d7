//! `route`, `tee`, `union`, `merge`: edges of the graph, and what checks and sorts the rows where they meet.

use super::call::Resolver;
use super::draft::{Facts, NewNode, Told, out};
use super::pipelines::{Builder, State, name_streams};
use super::rows::Rows;
use crate::diag::Diagnostic;
use crate::expr::Expr;
use crate::graph::{Edge, OnError, Op, Port};
use crate::syntax::ast::{self, RouteArm, StageCall};
use standpipe_sdk::spec::{Arg, Call, Item, Make, Merging, Setup, StageSpec};
use standpipe_sdk::{Field, Schema, Type, Value};
use std::cell::Cell;
use std::sync::Arc;

impl<'r, 'a> Builder<'r, 'a> {
    /// `route { when c => s, else => _ }`: conditions become the last columns, arms become ports.
    pub(super) fn route(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        state.ended = true;
        let resolved = Resolver::new(self.checker, &state.rows, false).resolve(spec, call);
        let Some(ast::BlockKind::Arms(arms)) = call.block.as_ref().map(|block| &block.kind) else {
            self.hidden(call);
            return;
        };
        if resolved.broken {
            self.hidden(call);
            return;
        }
        let (policy, to) = self.policy(call, state.default_policy);
        let (conditions, otherwise): (Vec<&RouteArm>, Vec<&RouteArm>) =
            arms.iter().partition(|arm| arm.condition.is_some());
        if otherwise.is_empty() {
            self.report(
                Diagnostic::error("E0502", call.span, "`else` is missing")
                    .labelled("rows that match no arm would go nowhere")
                    .help("`else => _` discards and counts them"),
            );
        }
        let resolver = Resolver::new(self.checker, &state.rows, policy.on_error == OnError::Null);
        let computed = resolver.conditions(arms).computed;
        state.edge = self.compute(state.edge, &state.rows, computed, spec.name, call, policy, to);
        let schema = state.rows.schema();
        let mut node = NewNode::new(
            spec.name,
            call.span,
            vec![state.edge],
            schema,
            Op::Route { arms: conditions.len() },
        );
        node.detail = self.detail(call);
        let id = self.draft.push(node);
        for (port, arm) in conditions.iter().chain(otherwise.first()).enumerate() {
            if arm.target.is("_") {
                continue;
            }
            let mut arm_state = State {
                edge: Edge {
                    from: id,
                    port: Port::Out(port),
                },
                rows: state.rows.clone(),
                ended: false,
                default_policy: state.default_policy,
            };
            // A stream that is defined twice was reported; the first one counts.
            self.replace_made(&arm.target.text, &mut arm_state);
            self.end(&arm.target.text, &arm_state);
        }
        state.edge = out(id);
    }

    /// `tee { … }`: the same rows into another pipeline.
    pub(super) fn tee(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        let resolved = Resolver::new(self.checker, &state.rows, false).resolve(spec, call);
        let Some(ast::BlockKind::Stages(stages)) = call.block.as_ref().map(|block| &block.kind) else {
            return;
        };
        if resolved.broken {
            self.hidden(call);
            return;
        }
        let mut copy = State {
            edge: state.edge,
            rows: state.rows.clone(),
            ended: false,
            default_policy: state.default_policy,
        };
        if let Some(late) = self.stages(&mut copy, stages) {
            self.report(
                Diagnostic::error("E0510", late, "nothing can stand behind the end of a pipeline")
                    .labelled("the copy has ended"),
            );
        } else if !copy.ended {
            let last = stages.last().map_or(call.span, |stage| stage.span);
            self.report(
                Diagnostic::error("E0509", last, format!("the copy of `{}` has no end", spec.name))
                    .labelled("its rows go nowhere")
                    .help("`| write csv \"copy.csv\"` writes them"),
            );
        }
    }

    /// `union s, t`: streams end to end; `merge s, t by k`: in the order of keys.
    pub(super) fn union(&mut self, state: &mut State, spec: &'static StageSpec, call: &'a StageCall) {
        let mut resolved = Resolver::new(self.checker, &state.rows, false).resolve(spec, call);
        name_streams(&mut resolved.items, &resolved.streams);
        let ends: Vec<_> = resolved.streams.iter().map(|name| self.stream(name)).collect();
        let known = ends.iter().flatten().all(|end| !end.rows.unknown) && ends.iter().all(Option::is_some);
        if !known {
            resolved.guess = true;
            resolved.broken = true;
        }
        let streams: Vec<Schema> = ends.iter().flatten().map(|end| end.rows.schema()).collect();
        let Some(bound) = self.bind(spec.bind, state, &resolved, call, &streams) else {
            // What is not resolved is used all the same.
            self.checker.seen_in(call);
            self.after_mistake(state, &resolved);
            return;
        };
        let ends: Vec<_> = ends.into_iter().flatten().collect();
        let mut inputs = vec![self.aligned(state.edge, &state.rows, &bound.schema, call)];
        for item in &resolved.items {
            if let Arg::Stream(index) = item.arg
                && let Some(end) = ends.get(index)
            {
                inputs.push(self.aligned(end.edge, &end.rows, &bound.schema, call));
            }
        }
        let rows = Rows {
            missing: state.rows.missing.clone(),
            ..Rows::known(&bound.schema)
        };
        if spec.by.max > 0 {
            return self.merge(state, spec, call, rows, resolved.options, inputs);
        }
        let mut node = NewNode::new(spec.name, call.span, inputs, bound.schema, Op::Pass);
        node.detail = self.detail(call);
        node.order = spec.order;
        node.memory = spec.memory;
        state.edge = out(self.draft.push(node));
        state.rows = rows;
    }

    /// Streams with the columns of `rows`, each checked to be sorted, in one order.
    fn merge(
        &mut self,
        state: &mut State,
        spec: &'static StageSpec,
        call: &'a StageCall,
        rows: Rows,
        options: Vec<(&'static str, Item)>,
        inputs: Vec<Edge>,
    ) {
        let (policy, to) = self.policy(call, state.default_policy);
        let mut resolved = Resolver::new(self.checker, &rows, policy.on_error == OnError::Null).by(spec, call);
        resolved.options = options;
        state.rows = rows;
        let told = Cell::new(None);
        let bind = |call: &Call<'_>| {
            let bound = (spec.bind)(call)?;
            told.set(Some(Told::of(spec, call)));
            Ok(bound)
        };
        let Some(bound) = self.bind(bind, state, &resolved, call, &[]) else {
            self.after_mistake(state, &resolved);
            return;
        };
        let Make::Merge(Merging { check, merge, least }) = bound.make else {
            return self.inconsistent(call);
        };
        let check = Arc::new(check);
        let mut checked = Vec::with_capacity(inputs.len());
        for input in inputs {
            let computed = resolved.computed.clone();
            let edge = self.compute(input, &state.rows, computed, spec.name, call, policy, to);
            let check = check.clone();
            let make = Box::new(move |setup: &Setup| check(setup));
            let edge = self.checked(edge, make, &bound.reads, spec.name, call, policy, to);
            self.draft.nodes[edge.from].least = least;
            checked.push(edge);
        }
        let computed = resolved.computed.iter().map(|computed| &computed.field);
        let schema = state.rows.fields.iter().chain(computed).cloned().collect();
        let mut node = NewNode::new(spec.name, call.span, checked, schema, Op::Pass);
        node.detail = "one after the other".to_owned();
        let all = out(self.draft.push(node));
        let mut node = NewNode::new(spec.name, call.span, vec![all], bound.schema, Op::Breaker(merge));
        node.detail = self.detail(call);
        node.order = spec.order;
        node.memory = spec.memory;
        node.least = spec.least;
        node.facts = Facts {
            lineage: bound.lineage,
            reads: bound.reads,
            places: true,
            sorted_by: bound.sorted_by,
            told: told.take().unwrap_or_default(),
            ..Facts::default()
        };
        state.edge = out(self.draft.push(node));
    }

    /// A stream with the columns of `schema`: found by name, widened, null where it has none.
    fn aligned(&mut self, edge: Edge, rows: &Rows, schema: &Schema, call: &StageCall) -> Edge {
        let own = rows.fields.len();
        let span = call.span;
        let mut computed: Vec<super::call::Computed> = vec![];
        let mut picks = Vec::with_capacity(schema.width());
        for field in schema.fields() {
            let made = match rows.fields.iter().position(|own| own.name == field.name) {
                Some(index) if same_form(&rows.fields[index].ty, &field.ty) => {
                    picks.push(index);
                    continue;
                }
                Some(index) => {
                    let column = Expr::column(index, &rows.fields[index], span);
                    match Expr::coerce(column.clone(), &field.ty, span) {
                        Ok(expr) => Some(expr),
                        Err(_) => self.checker.accept(Expr::cast(column, field.ty.clone(), span)),
                    }
                }
                None => Some(Expr::constant(Value::Null, field.ty.clone(), span)),
            };
            let Some(expr) = made else { continue };
            picks.push(own + computed.len());
            computed.push(super::call::Computed {
                field: Field::new(field.name.clone(), field.ty.clone(), field.nullable),
                expr,
                guess: false,
            });
        }
        let name = call.full_name();
        let edge = self.compute(edge, rows, computed, &name, call, crate::graph::Policy::default(), None);
        let identical = picks.len() == own && picks.iter().enumerate().all(|(at, pick)| at == *pick);
        if identical {
            return edge;
        }
        let node = NewNode::new(name, span, vec![edge], schema.clone(), Op::Rearrange { picks });
        out(self.draft.push(node))
    }
}

/// Whether values of both types are kept in the same way: only nullability within differs.
fn same_form(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::List(_), Type::List(_)) | (Type::Record(_), Type::Record(_)) => true,
        (from, to) => from == to,
    }
}
