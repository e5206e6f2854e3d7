//! `param` and `let`: worked out when first asked for, each once.

use super::Given;
use super::expressions::Scope;
use super::names::{ValueDecl, ValueKind};
use super::report::Checker;
use crate::diag::{Diagnostic, suggest};
use crate::expr::Expr;
use crate::syntax::ast::Param;
use standpipe_sdk::{Type, Value};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The values worked out so far.
#[derive(Default)]
pub(super) struct Values<'a> {
    known: RefCell<BTreeMap<&'a str, State>>,
    /// Set when a value is asked for that hangs on a parameter without a value (`check` assumes one).
    assumed: Cell<bool>,
}

enum State {
    /// Being worked out: whoever asks for it now needs itself.
    Open,
    Done {
        value: Option<Expr>,
        assumed: bool,
    },
}

impl<'a> Checker<'a> {
    /// Works out all of them, so that mistakes in unused ones are reported too; and looks at what came from outside.
    pub(super) fn check_values(&self) {
        let names: Vec<&'a str> = self.names.borrow().values.keys().copied().collect();
        for name in names {
            self.value(name);
        }
        self.check_bindings();
        for (name, _) in self.options.params {
            let names = self.names.borrow();
            let declared = matches!(
                names.values.get(name.as_str()).map(|decl| decl.kind),
                Some(ValueKind::Param(_))
            );
            if !declared {
                let params: Vec<&str> = names
                    .values
                    .iter()
                    .filter(|(_, decl)| matches!(decl.kind, ValueKind::Param(_)))
                    .map(|(name, _)| *name)
                    .collect();
                let near = suggest(name, &params).map(|near| format!("`{near}` is close"));
                let known = match params.as_slice() {
                    [] => "the script declares no `param`".to_owned(),
                    params => format!("parameters here: {}", crate::diag::list_names(params, 12)),
                };
                self.report(
                    Diagnostic::error(
                        "E0214",
                        crate::diag::Span::default(),
                        format!("no `param {name}` in this script"),
                    )
                    .note(known)
                    .help_if(near),
                );
            }
        }
    }

    /// The value of a `param` or `let`.
    pub(super) fn value(&self, name: &str) -> Option<Expr> {
        let decl = self.names.borrow().values.get(name).copied()?;
        let key: &'a str = &decl.name.text;
        match self.values.known.borrow().get(key) {
            Some(State::Done { value, assumed }) => {
                self.values.assumed.set(self.values.assumed.get() || *assumed);
                return value.clone();
            }
            Some(State::Open) => {
                self.report(
                    Diagnostic::error("E0210", decl.name.span, format!("`{key}` needs itself"))
                        .labelled("its value leads back to it"),
                );
                return None;
            }
            None => {}
        }
        self.values.known.borrow_mut().insert(key, State::Open);
        let (nodes, around) = (self.nodes.get(), self.values.assumed.replace(false));
        let value = self.work_out(decl);
        self.nodes.set(nodes);
        let assumed = self.values.assumed.replace(around);
        self.values.assumed.set(around || assumed);
        let done = State::Done {
            value: value.clone(),
            assumed,
        };
        self.values.known.borrow_mut().insert(key, done);
        value
    }

    /// What `f` gives, and whether a value it asked for was only assumed.
    pub(super) fn assuming<T>(&self, f: impl FnOnce() -> T) -> (T, bool) {
        let around = self.values.assumed.replace(false);
        let made = f();
        let assumed = self.values.assumed.replace(around);
        self.values.assumed.set(around || assumed);
        (made, assumed)
    }

    fn work_out(&self, decl: ValueDecl<'a>) -> Option<Expr> {
        match decl.kind {
            ValueKind::Let(value) => {
                let value = self.expr(value, &Scope::CONSTANT)?;
                match value.failing_constant() {
                    Some(issue) => self.accept(Err(issue)),
                    None => Some(value),
                }
            }
            ValueKind::Param(param) => self.param(param),
            ValueKind::Secret => None,
        }
    }

    fn param(&self, param: &'a Param) -> Option<Expr> {
        let choices: Vec<Option<Expr>> = param
            .choices
            .iter()
            .map(|choice| self.expr(choice, &Scope::CONSTANT))
            .collect();
        let choices: Vec<Expr> = choices.into_iter().collect::<Option<_>>()?;
        let (ty, nullable) = match &param.ty {
            Some(ty) => self.typed(ty)?,
            None => (choices.first()?.ty.clone(), false),
        };
        for (choice, ast) in choices.iter().zip(&param.choices) {
            if choice.ty != ty {
                self.report(
                    Diagnostic::error("E0312", ast.span, "the choices have different types")
                        .labelled(format!("this is {}, the first is {ty}", choice.ty)),
                );
                return None;
            }
        }
        // The default is checked even where a value is given.
        let default = match &param.default {
            Some(default) => {
                let value = self.expr(default, &Scope::CONSTANT)?;
                Some(self.coerced(value, &ty)?)
            }
            None => None,
        };
        let given = self
            .options
            .params
            .iter()
            .rev()
            .find(|(name, _)| *name == param.name.text);
        let value = match (given, default) {
            _ if self.binding(&param.name.text).is_some() => self.bound_by_test(param, &ty, nullable)?,
            (Some((_, given)), _) => self.given(param, given, &ty, nullable)?,
            (None, Some(default)) => default,
            (None, None) if self.options.assume_params => {
                self.values.assumed.set(true);
                match choices.first() {
                    Some(choice) => choice.clone(),
                    None => Expr::constant(sample(&ty)?, ty.clone(), param.name.span),
                }
            }
            (None, None) => {
                self.report(
                    Diagnostic::error(
                        "E0215",
                        param.name.span,
                        format!("the parameter `{}` needs a value", param.name.text),
                    )
                    .labelled("it has no default")
                    .help(match self.options.testing {
                        Some(_) => format!("`with {} = …` in the test gives it one", param.name.text),
                        None => format!("`-p {}=…` gives it one", param.name.text),
                    }),
                );
                return None;
            }
        };
        if value.as_value() == Some(Value::Null) && !nullable {
            let span = param.default.as_ref().map_or(param.name.span, |default| default.span);
            self.report(
                Diagnostic::error(
                    "E0306",
                    span,
                    format!("the parameter `{}` cannot be null", param.name.text),
                )
                .labelled("this is null")
                .help(format!("`{ty}?` allows it")),
            );
            return None;
        }
        if !choices.is_empty() && !choices.iter().any(|choice| choice.as_value() == value.as_value()) {
            let known: Vec<String> = choices
                .iter()
                .map(|choice| format!("`{}`", self.text_of(choice.span)))
                .collect();
            self.report(
                Diagnostic::error(
                    "E0501",
                    (self.binding(&param.name.text)).map_or(param.name.span, |(_, value)| value.span),
                    format!("the value of `{}` is none of its choices", param.name.text),
                )
                .note(format!("choices: {}", known.join(", "))),
            );
            return None;
        }
        Some(value)
    }

    /// What the test says of a parameter.
    fn bound_by_test(&self, param: &'a Param, ty: &Type, nullable: bool) -> Option<Expr> {
        let (_, given) = self.binding(&param.name.text)?;
        let value = self.constant(given, &Scope::CONSTANT)?;
        let value = self.coerced(value, ty)?;
        if value.as_value() == Some(Value::Null) && !nullable {
            self.report(
                Diagnostic::error(
                    "E0306",
                    given.span,
                    format!("the parameter `{}` cannot be null", param.name.text),
                )
                .labelled("this is null")
                .also(param.name.span, "declared here"),
            );
            return None;
        }
        Some(value)
    }

    /// A value from outside, as the parameter's type.
    fn given(&self, param: &'a Param, given: &Given, ty: &Type, nullable: bool) -> Option<Expr> {
        let span = param.name.span;
        let made = match given {
            Given::Text(text) => {
                let text_value = Expr::constant(Value::String(text.clone()), Type::String, span);
                if *ty == Type::String {
                    return Some(text_value);
                }
                Expr::cast(text_value, ty.clone(), span)
                    .ok()
                    .filter(|expr| expr.as_value().is_some())
            }
            Given::Value(Value::Null) if nullable => Some(Expr::constant(Value::Null, ty.clone(), span)),
            Given::Value(value) => {
                let made = match type_of(value) {
                    Some(own) if own == *ty => Some(Expr::constant(value.clone(), own, span)),
                    Some(own) => Expr::coerce(Expr::constant(value.clone(), own, span), ty, span).ok(),
                    None => None,
                };
                made.filter(|expr| expr.as_value().is_some())
            }
        };
        if made.is_none() {
            let shown = match given {
                Given::Text(text) => format!("`{text}`"),
                Given::Value(_) => "the value".to_owned(),
            };
            self.report(
                Diagnostic::error(
                    "E0501",
                    param.name.span,
                    format!("{shown} given for `{}` is not {ty}", param.name.text),
                )
                .labelled(format!("declared as {ty} here")),
            );
        }
        made
    }
}

/// The type of a value, where the value alone tells it.
pub(super) fn type_of(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Float(_) => Type::Float,
        Value::Decimal { scale, .. } => Type::Decimal {
            precision: 38,
            scale: *scale,
        },
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        Value::Date(_) => Type::Date,
        Value::Timestamp(_) => Type::Timestamp,
        Value::Duration(_) => Type::Duration,
        Value::Json(_) => Type::Json,
        Value::List(items) => {
            let mut ty = Type::Null;
            for item in items.iter().filter(|item| **item != Value::Null) {
                let own = type_of(item)?;
                if ty != Type::Null && ty != own {
                    return None;
                }
                ty = own;
            }
            Type::list(ty, items.contains(&Value::Null))
        }
        Value::Record(fields) => Type::Record(
            fields
                .iter()
                .map(|(name, value)| {
                    Some(standpipe_sdk::Field::new(
                        name.as_str(),
                        type_of(value)?,
                        *value == Value::Null,
                    ))
                })
                .collect::<Option<_>>()?,
        ),
    })
}

/// Some value of a type, for checking a script without its parameters. Not zero: it may be a divisor.
fn sample(ty: &Type) -> Option<Value> {
    Some(match ty {
        Type::Null => Value::Null,
        Type::Bool => Value::Bool(true),
        Type::Int => Value::Int(1),
        Type::Float => Value::Float(1.0),
        Type::Decimal { scale, .. } => Value::Decimal {
            value: 10_i128.checked_pow(u32::from(*scale)).unwrap_or(1),
            scale: *scale,
        },
        Type::String => Value::String("text".to_owned()),
        Type::Bytes => Value::Bytes(vec![]),
        Type::Date => Value::Date(20_000),
        Type::Timestamp => Value::Timestamp(1_700_000_000_000_000),
        Type::Duration => Value::Duration(1_000_000),
        Type::List(_) => Value::List(vec![]),
        Type::Json => Value::Json("null".to_owned()),
        Type::Record(_) => return None,
    })
}
