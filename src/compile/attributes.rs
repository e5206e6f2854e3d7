//! `@budget`, `@on_error` and what is not available yet.

use super::expressions::Scope;
use super::report::Checker;
use super::{Limits, names::StreamKind};
use crate::diag::{Diagnostic, Span, list_names, suggest};
use crate::graph::{Limit, OnError, Policy};
use crate::syntax::ast::{Attribute, AttributeArg, ErrorLimit, ExprKind, Ident, ItemKind, OptionValue};
use standpipe_sdk::Value;
use std::collections::BTreeMap;

/// What the attributes of a script say.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    pub(super) limits: Limits,
    /// The policy of stages without one.
    pub(super) policy: Policy,
    /// Where that policy sends rows to.
    pub(super) to: Option<&'a Ident>,
}

const KNOWN: &[&str] = &["budget", "on_error", "checkpoint"];

impl<'a> Checker<'a> {
    pub(super) fn attributes(&self) -> Attributes<'a> {
        let mut made = Attributes::default();
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &self.script.items {
            let ItemKind::Attribute(attribute) = &item.kind else {
                continue;
            };
            let name = &attribute.name;
            if let Some(earlier) = seen.insert(&name.text, name.span) {
                self.report(
                    Diagnostic::error("E0119", name.span, format!("`@{}` is given twice", name.text))
                        .labelled("the second")
                        .also(earlier, "the first"),
                );
                continue;
            }
            match name.text.as_str() {
                "budget" => self.budget(attribute, &mut made.limits),
                "on_error" => self.default_policy(attribute, &mut made),
                "checkpoint" => self.report(
                    Diagnostic::error("E0901", item.span, "`@checkpoint` is not available yet")
                        .labelled("a run starts from the beginning"),
                ),
                other => self.report(
                    Diagnostic::error("E0513", name.span, format!("attribute `@{other}` not found"))
                        .labelled(suggest(other, KNOWN).map_or_else(String::new, |near| format!("`@{near}` is close")))
                        .note(format!("attributes: {}", list_names(KNOWN, 9))),
                ),
            }
        }
        made
    }

    fn budget(&self, attribute: &'a Attribute, limits: &mut Limits) {
        for arg in &attribute.args {
            let slot = match arg.name.as_ref().map(|name| name.text.as_str()) {
                Some("memory") => &mut limits.memory,
                Some("disk") => &mut limits.disk,
                _ => {
                    self.unknown_argument(attribute, arg, "`memory:` and `disk:`");
                    continue;
                }
            };
            let size = match &arg.value {
                OptionValue::Expr(value) => match self.constant(value, &Scope::CONSTANT) {
                    Some(value) => match value.as_value() {
                        Some(Value::Int(bytes)) => u64::try_from(bytes).ok().filter(|bytes| *bytes > 0),
                        _ => None,
                    },
                    None => continue,
                },
                _ => None,
            };
            match size {
                Some(size) => *slot = Some(size),
                None => self.report(
                    Diagnostic::error("E0705", arg.value.span(), "this is not a limit")
                        .labelled("a size such as `256MiB`"),
                ),
            }
        }
    }

    fn default_policy(&self, attribute: &'a Attribute, made: &mut Attributes<'a>) {
        for arg in &attribute.args {
            let value = match &arg.value {
                OptionValue::Expr(value) => Some(value),
                _ => None,
            };
            match (
                arg.name.as_ref().map(|name| name.text.as_str()),
                value.map(|value| &value.kind),
            ) {
                (Some("to"), Some(ExprKind::Name(name))) if name.is("_") => made.policy.on_error = OnError::Skip,
                (Some("to"), Some(ExprKind::Name(name))) => {
                    made.policy.on_error = OnError::To;
                    made.to = Some(name);
                    let mut names = self.names.borrow_mut();
                    let earlier = names.streams.get(name.text.as_str()).cloned();
                    match earlier {
                        Some(earlier) if earlier.made != StreamKind::Rejects => {
                            drop(names);
                            made.to = None;
                            self.report(
                                Diagnostic::error(
                                    "E0201",
                                    name.span,
                                    format!("the stream `{}` is defined twice", name.text),
                                )
                                .labelled("`@on_error` makes it")
                                .also(earlier.span, "the first"),
                            );
                        }
                        Some(_) => {}
                        None => {
                            let decl = super::names::StreamDecl {
                                span: name.span,
                                made: StreamKind::Rejects,
                            };
                            names.streams.insert(&name.text, decl);
                        }
                    }
                }
                (None, Some(ExprKind::Name(name))) if name.is("skip") => made.policy.on_error = OnError::Skip,
                (None, Some(ExprKind::Name(name))) if name.is("fail") => made.policy.on_error = OnError::Fail,
                (None, Some(ExprKind::Null)) => made.policy.on_error = OnError::Null,
                (Some("limit"), _) => {
                    let limit = match &arg.value {
                        OptionValue::Percent { value, span } => ErrorLimit::Percent {
                            value: *value,
                            span: *span,
                        },
                        OptionValue::Expr(value) => ErrorLimit::Count(value.clone()),
                        _ => {
                            self.unknown_argument(
                                attribute,
                                arg,
                                "`to: stream`, `skip`, `null`, `fail` and `limit: 1%`",
                            );
                            continue;
                        }
                    };
                    made.policy.limit = self.limit(&limit);
                }
                _ => self.unknown_argument(attribute, arg, "`to: stream`, `skip`, `null`, `fail` and `limit: 1%`"),
            }
        }
    }

    fn unknown_argument(&self, attribute: &Attribute, arg: &AttributeArg, known: &str) {
        self.report(
            Diagnostic::error(
                "E0503",
                arg.span,
                format!("`@{}` does not take this", attribute.name.text),
            )
            .labelled(format!("it takes {known}")),
        );
    }

    /// How many bad rows are too many.
    pub(super) fn limit(&self, limit: &ErrorLimit) -> Option<Limit> {
        match limit {
            ErrorLimit::Percent { value, span } if !(0.0..=100.0).contains(value) => {
                self.report(
                    Diagnostic::error("E0501", *span, "a limit is between 0 % and 100 %").labelled("out of range"),
                );
                None
            }
            ErrorLimit::Percent { value, .. } => Some(Limit::Percent(*value)),
            ErrorLimit::Count(count) => {
                let value = self.constant(count, &Scope::CONSTANT)?;
                match value.as_value() {
                    Some(Value::Int(count)) if count >= 0 => Some(Limit::Count(count.unsigned_abs())),
                    _ => {
                        self.report(
                            Diagnostic::error("E0501", count.span, "this is not a number of rows")
                                .labelled("a limit is a count, or a percentage such as `1%`"),
                        );
                        None
                    }
                }
            }
        }
    }
}
