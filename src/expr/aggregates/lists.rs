//! `collect`, `string_join`, `mode`, `median`, `quantile`, `quantile_disc`: what needs the values themselves.

use super::log::{Finish, Keep, Logged};
use crate::expr::aggregate::{AggregateSpec, Bound, Example, Takes};
use crate::expr::{Given, ParamSpec, Pattern};
use standpipe_sdk::aggregate::ResultNulls;
use standpipe_sdk::{Type, Value};

pub(super) const AGGREGATES: &[AggregateSpec] = &[
    AggregateSpec {
        name: "collect",
        about: "The values as a list, in input order; null without values.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "list",
        examples: &[Example::new("[{v: 3}, {v: null}, {v: 1}]", "collect(v)", "[3, 1]")],
        bind: collect,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "string_join",
        about: "The texts in input order, with a text between each two.",
        params: &[
            ParamSpec::new("x", Pattern::String),
            ParamSpec::default("separator", Pattern::String, "\"\""),
        ],
        columns: 1,
        returns: "string",
        examples: &[Example::new(
            r#"[{v: "b"}, {v: "a"}, {v: null}]"#,
            r#"string_join(v, ", ")"#,
            r#""b, a""#,
        )],
        bind: string_join,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "mode",
        about: "The most frequent value, the smallest of several.",
        params: &[ParamSpec::new("x", Pattern::Ordered)],
        returns: "same",
        examples: &[Example::new("[{v: 3}, {v: 1}, {v: 3}, {v: 1}, {v: 2}]", "mode(v)", "1")],
        bind: mode,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "median",
        about: "The middle value, or the mean of the two in the middle.",
        params: &[ParamSpec::new("x", Pattern::Float)],
        returns: "float",
        examples: &[Example::new("[{v: 4}, {v: 1}, {v: 2}, {v: 8}]", "median(v)", "3.0")],
        bind: median,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "quantile",
        about: "The value below which that share of the values lies, interpolated linearly.",
        params: &[ParamSpec::new("x", Pattern::Float), ParamSpec::new("p", Pattern::Float)],
        columns: 1,
        returns: "float",
        examples: &[Example::new("[{v: 1}, {v: 2}, {v: 3}]", "quantile(v, 0.25)", "1.5")],
        bind: quantile,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "quantile_disc",
        about: "The first value, in order, whose cumulative share reaches that.",
        params: &[
            ParamSpec::new("x", Pattern::Ordered),
            ParamSpec::new("p", Pattern::Float),
        ],
        columns: 1,
        returns: "same",
        examples: &[Example::new(
            r#"[{v: "d"}, {v: "a"}, {v: "c"}, {v: "b"}]"#,
            "quantile_disc(v, 0.5)",
            r#""b""#,
        )],
        bind: quantile_disc,
        ..AggregateSpec::BASE
    },
];

fn value_type(given: &[Given<'_>]) -> Type {
    given.first().map_or(Type::Null, |x| x.ty.clone())
}

fn logged(name: &'static str, ty: Type, given: &[Given<'_>], keep: Keep, finish: Finish) -> Bound {
    Logged::bind(name, ty, ResultNulls::NoValues, given, Takes::Value, keep, finish)
}

fn collect(given: &[Given<'_>]) -> Bound {
    let ty = Type::list(value_type(given), false);
    logged("collect", ty, given, Keep::Ordered, Finish::List)
}

fn string_join(given: &[Given<'_>]) -> Bound {
    let separator = match given.get(1).and_then(|s| s.value) {
        Some(Value::String(text)) => text.as_str(),
        _ => return Err("the text between is null".into()),
    };
    let finish = Finish::Join(separator.into());
    logged("string_join", Type::String, given, Keep::Ordered, finish)
}

fn mode(given: &[Given<'_>]) -> Bound {
    logged("mode", value_type(given), given, Keep::Counted, Finish::Mode)
}

fn median(given: &[Given<'_>]) -> Bound {
    logged("median", Type::Float, given, Keep::Values, Finish::Quantile(0.5))
}

fn share(given: &[Given<'_>]) -> Result<f64, String> {
    match given.get(1).and_then(|p| p.value) {
        Some(Value::Float(share)) if (0.0..=1.0).contains(share) => Ok(*share),
        _ => Err("a share is from 0 to 1".into()),
    }
}

fn quantile(given: &[Given<'_>]) -> Bound {
    let finish = Finish::Quantile(share(given)?);
    logged("quantile", Type::Float, given, Keep::Values, finish)
}

fn quantile_disc(given: &[Given<'_>]) -> Bound {
    let finish = Finish::QuantileDisc(share(given)?);
    logged("quantile_disc", value_type(given), given, Keep::Values, finish)
}
