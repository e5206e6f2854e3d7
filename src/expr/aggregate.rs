//! What an aggregate is: `const` data and a function that makes it for given argument types. Adding an aggregate is one
//! [`AggregateSpec`] row in one family file of `aggregates/`.
//!
//! Laws
//! - An aggregate skips rows in which an argument is null; its states never see them.
//! - What comes out does not depend on the order in which rows or partial states come.

use crate::expr::bind::{default_value, fits, place};
use crate::expr::function::signature;
use crate::expr::{ARGUMENT, ArgValue, CallArg, Expr, Given, Issue, ParamSpec, Pattern, aggregates};
use standpipe_sdk::aggregate::Aggregate;
use standpipe_sdk::{Code, Span, Type};
use std::fmt;
use std::sync::Arc;

/// What `bind` gives; the text says what is wrong with the arguments.
pub type Bound = Result<Arc<dyn Aggregate>, String>;

/// One overload of an aggregate.
pub struct AggregateSpec {
    pub name: &'static str,
    /// One line, ends with a dot.
    pub about: &'static str,
    pub params: &'static [ParamSpec],
    /// How many parameters are columns; those behind are constants.
    pub columns: usize,
    /// The type of the result, for the reference.
    pub returns: &'static str,
    /// Run as tests, printed as documentation.
    pub examples: &'static [Example],
    pub bind: fn(&[Given<'_>]) -> Bound,
    /// What stands behind an aggregate of a library, instead of `bind`.
    pub foreign: Option<&'static dyn ForeignAggregate>,
}

/// An aggregate of a library: bound to its arguments before the run.
pub trait ForeignAggregate: Send + Sync {
    /// # Errors
    /// Why it does not take these arguments. `span`: the call's, for errors of the run.
    fn bind(&self, given: &[Given<'_>], span: Span) -> Result<Arc<dyn Aggregate>, NotTaken>;
}

/// Why a [`ForeignAggregate`] is not bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotTaken {
    /// The parameter at fault; empty if none is.
    pub param: String,
    pub message: String,
    /// Of what is no fault of the arguments.
    pub code: Option<Code>,
}

impl AggregateSpec {
    /// To build rows from with `..AggregateSpec::BASE`.
    pub const BASE: AggregateSpec = AggregateSpec {
        name: "",
        about: "",
        params: &[],
        columns: usize::MAX,
        returns: "",
        examples: &[],
        bind: |_| Err(String::new()),
        foreign: None,
    };
}

impl fmt::Debug for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `quantile(x: float, p: float) -> float`.
impl fmt::Display for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        signature(f, self.name, self.params, self.returns)
    }
}

/// Rows, a call over them, and what it gives: documentation and test in one.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// As behind `from rows`.
    pub rows: &'static str,
    /// An item of `aggregate`.
    pub call: &'static str,
    /// The result as it would be written.
    pub gives: &'static str,
}

impl Example {
    pub const fn new(rows: &'static str, call: &'static str, gives: &'static str) -> Example {
        Example { rows, call, gives }
    }
}

/// What an aggregate that keeps values takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::expr) enum Takes {
    /// Any value.
    Value,
    /// Values that can be told apart.
    Key,
}

/// A checked call.
#[derive(Clone)]
pub struct AggregateCall {
    pub aggregate: Arc<dyn Aggregate>,
    /// What is computed of each row for it.
    pub columns: Vec<Expr>,
    /// The constant arguments, as they would be written: two calls that differ in them are not the same.
    pub constants: String,
    pub span: Span,
}

/// The overloads of `name`.
pub fn aggregate(name: &str) -> impl Iterator<Item = &'static AggregateSpec> {
    aggregates()
        .iter()
        .flat_map(|family| family.iter())
        .filter(move |spec| spec.name == name)
}

/// Whether there is an aggregate called `name`.
pub fn is_aggregate(name: &str) -> bool {
    aggregate(name).next().is_some()
}

/// An overload with its arguments, and what it costs to convert them.
type Candidate = (u32, &'static AggregateSpec, Vec<(Expr, Type)>);

/// A call of the aggregate `name`; `where:` is no argument of it.
pub fn aggregate_call(name: &str, args: Vec<(Option<String>, Expr)>, span: Span) -> Result<AggregateCall, Issue> {
    let overloads: Vec<_> = aggregate(name).collect();
    aggregate_call_of(&overloads, name, args, span)
}

/// A call of one of these aggregates, which are all called `name`.
pub fn aggregate_call_of(
    overloads: &[&'static AggregateSpec],
    name: &str,
    args: Vec<(Option<String>, Expr)>,
    span: Span,
) -> Result<AggregateCall, Issue> {
    let args: Vec<CallArg<'_>> = args
        .into_iter()
        .map(|(name, value)| CallArg {
            name,
            span: value.span,
            value: ArgValue::Expr(value),
        })
        .collect();
    let mut best: Option<Candidate> = None;
    let mut why: Option<(Span, String)> = None;
    for &spec in overloads {
        match weigh(spec, &args, span) {
            Ok((cost, made)) if best.as_ref().is_none_or(|(least, ..)| cost < *least) => {
                best = Some((cost, spec, made));
            }
            Ok(_) => {}
            // An argument of the wrong type says more than a wrong number of them.
            Err(reason) if why.as_ref().is_none_or(|(at, _)| *at == span) => why = Some(reason),
            Err(_) => {}
        }
    }
    let Some((_, spec, made)) = best else {
        let (at, text) = why.unwrap_or((span, format!("there is no aggregate `{name}`")));
        let mut issue = Issue::new(ARGUMENT, at, text, "here");
        issue.helps.extend(overloads.iter().map(|spec| format!("`{spec}`")));
        return Err(issue);
    };
    let mut values = Vec::with_capacity(made.len());
    for (value, ty) in made {
        let at = value.span;
        values.push(match (&value.ty, &ty) {
            (Type::Decimal { .. }, Type::Float) => Expr::cast(value, ty, at)?,
            _ => Expr::coerce(value, &ty, at)?,
        });
    }
    let constants: Vec<_> = values.iter().map(Expr::as_value).collect();
    for (at, value) in values.iter().enumerate().skip(spec.columns) {
        if constants[at].is_none() {
            let name = spec.params.get(at).map_or("", |param| param.name);
            let message = format!("`{name}` of `{}` is a constant", spec.name);
            return Err(Issue::new(ARGUMENT, value.span, message, "not known before the run"));
        }
    }
    let given: Vec<Given<'_>> = values
        .iter()
        .zip(&constants)
        .map(|(e, value)| Given {
            ty: &e.ty,
            nullable: e.nullable,
            value: value.as_ref(),
            regex: None,
        })
        .collect();
    let bound = match spec.foreign {
        Some(foreign) => foreign.bind(&given, span).map_err(|refused| {
            let at = spec.params.iter().position(|param| param.name == refused.param);
            let at = at.and_then(|at| values.get(at)).map_or(span, |e| e.span);
            (refused.code.unwrap_or(ARGUMENT), at, refused.message)
        }),
        None => (spec.bind)(&given).map_err(|text| {
            let at = values.get(spec.columns).or(values.first()).map_or(span, |e| e.span);
            (ARGUMENT, at, text)
        }),
    };
    let aggregate =
        bound.map_err(|(code, at, text)| Issue::new(code, at, format!("`{}`: {text}", spec.name), "here"))?;
    let written: Vec<String> = values.iter().skip(spec.columns).map(ToString::to_string).collect();
    values.truncate(spec.columns);
    Ok(AggregateCall {
        aggregate,
        columns: values,
        constants: written.join(", "),
        span,
    })
}

/// What it costs to convert the arguments, and each with the type it gets.
type Weighed = (u32, Vec<(Expr, Type)>);

fn weigh(spec: &'static AggregateSpec, args: &[CallArg<'_>], span: Span) -> Result<Weighed, (Span, String)> {
    let slots = place(spec.name, spec.params, args).map_err(|text| (span, text))?;
    let (mut cost, mut made) = (0, vec![]);
    for (index, slot) in slots {
        let param = &spec.params[index];
        let value = match slot.of(args) {
            Some(CallArg {
                value: ArgValue::Expr(value),
                ..
            }) => value.clone(),
            Some(arg) => return Err((arg.span, format!("`{}` takes no regex and no lambda", spec.name))),
            None => default_value(param.default.unwrap_or("null"), span),
        };
        let fit = match (&param.ty, &value.ty) {
            (Pattern::Float, Type::Decimal { .. }) => Some((2, Type::Float)),
            (pattern, ty) => fits(pattern, ty, &[]),
        };
        let Some((extra, ty)) = fit else {
            let message = format!("`{}` of `{}` is {}, not {}", param.name, spec.name, param.ty, value.ty);
            return Err((value.span, message));
        };
        cost += extra;
        made.push((value, ty));
    }
    Ok((cost, made))
}
