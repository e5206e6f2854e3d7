//! The script's own functions: checked once where they are declared, put in place where they are called.
//!
//! Laws
//! - A function sees its parameters and the script's values; never columns, never the names around the call.
//! - A null argument for a parameter without `?` makes the call null, whatever the body does with it.

use super::expressions::{Aggregates, Local, LocalValue, Place, Scope};
use super::report::{Checker, walk};
use crate::diag::{Diagnostic, Span, suggest};
use crate::expr::Expr;
use crate::syntax::ast::{self, ExprKind, FnDef, FnParam};
use standpipe_sdk::{Field, Type};
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Checker<'a> {
    /// Checks every function with its parameters as declared.
    pub(super) fn check_functions(&self) {
        self.find_recursion();
        let all: Vec<&'a FnDef> = self.names.borrow().functions.values().copied().collect();
        for def in all {
            let broken = self.names.borrow().broken_functions.contains(def.name.text.as_str());
            if !broken && self.check_function(def).is_none() {
                // Its calls would only repeat what was said.
                self.names.borrow_mut().broken_functions.insert(&def.name.text);
            }
        }
    }

    fn check_function(&self, def: &'a FnDef) -> Option<()> {
        if crate::expr::is_function(&def.name.text) && self.options.pedantic {
            self.report(
                Diagnostic::warning("W0001", def.name.span, format!("`{}` hides a built-in", def.name.text))
                    .labelled("calls mean this one"),
            );
        }
        let mut locals = vec![];
        let mut whole = true;
        let mut seen = BTreeSet::new();
        for (at, param) in def.params.iter().enumerate() {
            // A name that stands twice was reported by the parser.
            whole &= seen.insert(param.name.text.as_str());
            let value = match self.param_type(param) {
                Some((ty, nullable)) => {
                    if let Some(default) = &param.default {
                        whole &= self.default_of(param, default, &ty, nullable).is_some();
                    }
                    let field = Field::new(param.name.text.as_str(), ty, nullable);
                    LocalValue::Expr(Expr::column(at, &field, param.span), 1)
                }
                None => {
                    whole = false;
                    LocalValue::Guess
                }
            };
            locals.push(Local {
                name: param.name.text.clone(),
                value,
            });
        }
        let scope = Scope {
            rows: None,
            made: &[],
            locals: &locals,
            place: Place::Function,
            aggregates: Aggregates::No,
        };
        let body = self.expression(&def.body, &scope);
        if let Some(returns) = &def.returns {
            let (ty, nullable) = self.typed(returns)?;
            let body = self.coerced(body?, &ty)?;
            if body.nullable && !nullable {
                self.report(
                    Diagnostic::error("E0306", def.body.span, format!("`{}` may be null", def.name.text))
                        .labelled("null for some arguments")
                        .also(returns.span, "says it never is")
                        .help(format!("`{ty}?` allows it, `?? default` gives a value instead")),
                );
                return None;
            }
        } else {
            body?;
        }
        whole.then_some(())
    }

    fn param_type(&self, param: &FnParam) -> Option<(Type, bool)> {
        self.typed(&param.ty)
    }

    fn default_of(&self, param: &FnParam, default: &ast::Expr, ty: &Type, nullable: bool) -> Option<Expr> {
        let value = self.expression(default, &Scope::CONSTANT)?;
        let value = self.coerced(value, ty)?;
        if value.nullable && !nullable {
            self.report(
                Diagnostic::error("E0306", default.span, format!("`{}` cannot be null", param.name.text))
                    .labelled("a null default")
                    .help(format!("`{}: {ty}?` allows it", param.name.text)),
            );
            return None;
        }
        Some(value)
    }

    /// The body with the arguments in place of the parameters.
    pub(super) fn inline(
        &self,
        def: &'a FnDef,
        receiver: Option<&ast::Expr>,
        args: &[ast::Arg],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Expr> {
        let given = self.bind_arguments(def, receiver, args, at);
        // Arguments are checked even if the call is wrong: their mistakes are their own.
        let mut values: Vec<Option<(Expr, usize)>> = vec![];
        for argument in given.values.iter().flatten() {
            let before = self.nodes.get();
            let value = self.expr(argument, scope);
            values.push(value.map(|value| (value, self.nodes.get() - before)));
        }
        let broken = self.names.borrow().broken_functions.contains(def.name.text.as_str());
        if broken || !given.whole {
            return None;
        }
        let mut values = values.into_iter();
        let mut locals = Vec::with_capacity(def.params.len());
        let mut null_if: Option<Expr> = None;
        for (param, argument) in def.params.iter().zip(&given.values) {
            let (ty, nullable) = self.param_type(param)?;
            let (value, nodes) = match argument {
                Some(_) => {
                    let (value, nodes) = values.next()??;
                    (self.argument_of(value, &ty, param)?, nodes)
                }
                None => (self.default_of(param, param.default.as_ref()?, &ty, nullable)?, 1),
            };
            if value.nullable && !nullable {
                self.nodes.set(self.nodes.get() + nodes);
                let null = self.accept(Expr::is_null(value.clone(), false, value.span))?;
                null_if = Some(match null_if {
                    Some(earlier) => self.accept(Expr::or(earlier, null, at))?,
                    None => null,
                });
            }
            locals.push(Local {
                name: param.name.text.clone(),
                value: LocalValue::Expr(value, nodes),
            });
        }
        let inner = Scope {
            rows: None,
            made: &[],
            locals: &locals,
            place: Place::Function,
            aggregates: Aggregates::No,
        };
        let mut body = self.expr(&def.body, &inner)?;
        if let Some(returns) = &def.returns {
            let ty = self.ty(returns)?;
            body = self.coerced(body, &ty)?;
        }
        match null_if {
            Some(null_if) => {
                let span = at;
                let null = Expr::null(span);
                self.accept(Expr::if_(null_if, null, Some(body), span))
            }
            None => Some(body),
        }
    }

    /// An argument as the parameter's type.
    fn argument_of(&self, value: Expr, ty: &Type, param: &FnParam) -> Option<Expr> {
        if value.ty == *ty {
            return Some(value);
        }
        let (span, found) = (value.span, value.ty.clone());
        match Expr::coerce(value, ty, span) {
            Ok(value) => Some(value),
            Err(_) => {
                self.report(
                    Diagnostic::error("E0301", span, format!("`{}` takes {ty}", param.name.text))
                        .labelled(format!("this is {found}"))
                        .also(param.span, "declared here"),
                );
                None
            }
        }
    }

    fn bind_arguments<'e>(
        &self,
        def: &FnDef,
        receiver: Option<&'e ast::Expr>,
        args: &'e [ast::Arg],
        at: Span,
    ) -> Bound<'e> {
        let mut values: Vec<Option<&'e ast::Expr>> = vec![None; def.params.len()];
        let mut whole = true;
        let mut next = 0;
        let all = receiver
            .map(|value| (None, value))
            .into_iter()
            .chain(args.iter().map(|arg| (arg.name.as_ref(), &arg.value)));
        for (name, value) in all {
            let index = match name {
                None => {
                    next += 1;
                    next - 1
                }
                Some(name) => match def.params.iter().position(|param| param.name.text == name.text) {
                    Some(index) => index,
                    None => {
                        let near = suggest(&name.text, def.params.iter().map(|param| param.name.text.as_str()));
                        self.report(
                            Diagnostic::error(
                                "E0503",
                                name.span,
                                format!("`{}` has no parameter `{}`", def.name.text, name.text),
                            )
                            .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                            .also(def.name.span, "declared here"),
                        );
                        whole = false;
                        continue;
                    }
                },
            };
            match values.get_mut(index) {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => {
                    self.report(
                        Diagnostic::error(
                            "E0506",
                            value.span,
                            format!("`{}` is given twice", def.params[index].name.text),
                        )
                        .labelled("the second value"),
                    );
                    whole = false;
                }
                None => {
                    self.report(
                        Diagnostic::error(
                            "E0517",
                            value.span,
                            format!("too many arguments for `{}`", def.name.text),
                        )
                        .labelled(format!("it takes {}", def.params.len()))
                        .also(def.name.span, "declared here"),
                    );
                    whole = false;
                    break;
                }
            }
        }
        for (param, value) in def.params.iter().zip(&values) {
            if value.is_none() && param.default.is_none() && whole {
                self.report(
                    Diagnostic::error("E0502", at, format!("`{}` needs `{}`", def.name.text, param.name.text))
                        .labelled("the argument is missing")
                        .also(param.span, "it has no default"),
                );
                whole = false;
            }
        }
        Bound { values, whole }
    }

    /// Functions that call themselves, directly or not; without recursion of our own.
    fn find_recursion(&self) {
        let functions = self.names.borrow().functions.clone();
        let mut calls: BTreeMap<&'a str, Vec<(&'a str, Span)>> = BTreeMap::new();
        for (name, def) in &functions {
            let mut found = vec![];
            called(&def.body, &mut found);
            for param in &def.params {
                if let Some(default) = &param.default {
                    called(default, &mut found);
                }
            }
            found.retain(|(name, _)| functions.contains_key(name));
            calls.insert(name, found);
        }
        let mut done: BTreeSet<&'a str> = BTreeSet::new();
        for root in functions.keys() {
            let mut path: Vec<(&'a str, usize)> = vec![];
            let mut on_path: BTreeSet<&'a str> = BTreeSet::new();
            if !done.contains(root) {
                path.push((root, 0));
                on_path.insert(root);
            }
            while let Some((name, next)) = path.last_mut() {
                let (here, link) = (*name, calls.get(name).and_then(|calls| calls.get(*next)).copied());
                *next += 1;
                let Some((to, span)) = link else {
                    done.insert(here);
                    on_path.remove(here);
                    path.pop();
                    continue;
                };
                if on_path.contains(to) {
                    let from = path.iter().position(|&(name, _)| name == to).unwrap_or(0);
                    let ring: Vec<&'a str> = path[from..].iter().map(|&(name, _)| name).collect();
                    let mut names = self.names.borrow_mut();
                    let new = !ring.iter().any(|name| names.broken_functions.contains(name));
                    names.broken_functions.extend(ring);
                    drop(names);
                    if new {
                        self.report(
                            Diagnostic::error("E0211", span, format!("`{to}` calls itself"))
                                .labelled("this call leads back to it")
                                .also(functions[to].name.span, "declared here"),
                        );
                    }
                } else if !done.contains(to) {
                    on_path.insert(to);
                    path.push((to, 0));
                }
            }
        }
    }
}

struct Bound<'e> {
    /// One per parameter.
    values: Vec<Option<&'e ast::Expr>>,
    whole: bool,
}

/// Every function called in `root`.
fn called<'e>(root: &'e ast::Expr, found: &mut Vec<(&'e str, Span)>) {
    walk(root, &mut |expr| {
        if let ExprKind::Call { name, .. } | ExprKind::Method { name, .. } = &expr.kind {
            found.push((&name.text, name.span));
        }
    });
}
