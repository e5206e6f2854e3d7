//! Functions of rows in their order: what `window` knows beside the aggregates. Adding one is one row in [`WINDOW_FUNCTIONS`], and what
//! the stage makes of its [`WindowFunction`].

use crate::expr::bind::{default_value, fits, place};
use crate::expr::function::signature;
use crate::expr::{ARGUMENT, ArgValue, CallArg, Expr, Issue, ParamSpec, Pattern};
use standpipe_sdk::spec::WindowFunction;
use standpipe_sdk::{Span, Type, Value};

/// A function of rows in their order.
#[derive(Clone, Copy, Debug)]
pub struct WindowSpec {
    pub name: &'static str,
    /// One line, ends with a dot.
    pub about: &'static str,
    pub params: &'static [ParamSpec],
    /// The type of the result, for the reference.
    pub returns: &'static str,
    pub function: WindowFunction,
}

/// All of them.
pub const WINDOW_FUNCTIONS: &[WindowSpec] = &[
    WindowSpec {
        name: "lag",
        about: "The value `n` rows before this one, null where there is none.",
        params: &[
            ParamSpec::new("x", Pattern::Any),
            ParamSpec::default("n", Pattern::Int, "1"),
        ],
        returns: "same",
        function: WindowFunction::Lag,
    },
    WindowSpec {
        name: "lead",
        about: "The value `n` rows behind this one, null where there is none.",
        params: &[
            ParamSpec::new("x", Pattern::Any),
            ParamSpec::default("n", Pattern::Int, "1"),
        ],
        returns: "same",
        function: WindowFunction::Lead,
    },
    WindowSpec {
        name: "row_number",
        about: "The number of the row, from 1.",
        params: &[],
        returns: "int",
        function: WindowFunction::RowNumber,
    },
    WindowSpec {
        name: "rank",
        about: "The number of the first row with the same value; rows must be in the order of `x`.",
        params: &[ParamSpec::new("x", Pattern::Ordered)],
        returns: "int",
        function: WindowFunction::Rank,
    },
    WindowSpec {
        name: "dense_rank",
        about: "How many different values there are up to this one; rows must be in the order of `x`.",
        params: &[ParamSpec::new("x", Pattern::Ordered)],
        returns: "int",
        function: WindowFunction::DenseRank,
    },
];

/// The function called `name`.
pub fn window_function(name: &str) -> Option<&'static WindowSpec> {
    WINDOW_FUNCTIONS.iter().find(|spec| spec.name == name)
}

impl std::fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        signature(f, self.name, self.params, self.returns)
    }
}

/// A checked call.
#[derive(Clone, Debug)]
pub struct WindowCall {
    pub function: WindowFunction,
    /// What is computed of each row for it.
    pub column: Option<Expr>,
    /// How many rows away.
    pub rows: u64,
    pub ty: Type,
    pub nullable: bool,
}

/// A call of `spec`.
pub fn window_call(spec: &WindowSpec, args: Vec<(Option<String>, Expr)>, span: Span) -> Result<WindowCall, Issue> {
    let args: Vec<CallArg<'_>> = args
        .into_iter()
        .map(|(name, value)| CallArg {
            name,
            span: value.span,
            value: ArgValue::Expr(value),
        })
        .collect();
    let wrong = |at: Span, text: String| {
        let mut issue = Issue::new(ARGUMENT, at, text, "here");
        issue.helps.push(format!("`{spec}`"));
        issue
    };
    let slots = place(spec.name, spec.params, &args).map_err(|text| wrong(span, text))?;
    let (mut column, mut rows) = (None, 0);
    for (index, slot) in slots {
        let param = &spec.params[index];
        let value = match slot.of(&args) {
            Some(CallArg {
                value: ArgValue::Expr(value),
                ..
            }) => value.clone(),
            Some(arg) => {
                let text = format!("`{}` takes no regex and no lambda", spec.name);
                return Err(wrong(arg.span, text));
            }
            None => default_value(param.default.unwrap_or("null"), span),
        };
        if fits(&param.ty, &value.ty, &[]).is_none() {
            let text = format!("`{}` of `{}` is {}, not {}", param.name, spec.name, param.ty, value.ty);
            return Err(wrong(value.span, text));
        }
        if param.name != "n" {
            column = Some(value);
            continue;
        }
        rows = match value.as_value() {
            Some(Value::Int(n)) => u64::try_from(n).map_err(|_| {
                let other = match spec.function {
                    WindowFunction::Lag => "`lead` looks at rows behind",
                    _ => "`lag` looks at rows before",
                };
                let mut issue = Issue::new(
                    ARGUMENT,
                    value.span,
                    format!("`n` of `{}` is negative", spec.name),
                    "a number of rows",
                );
                issue.helps.push(other.to_owned());
                issue
            })?,
            Some(_) => return Err(wrong(value.span, format!("`n` of `{}` is a number of rows", spec.name))),
            None => {
                let text = format!("`n` of `{}` is a constant", spec.name);
                return Err(Issue::new(ARGUMENT, value.span, text, "not known before the run"));
            }
        };
    }
    let (ty, nullable) = match spec.function {
        WindowFunction::Lag | WindowFunction::Lead => {
            let nullable = rows > 0 || column.as_ref().is_none_or(|x| x.nullable);
            (column.as_ref().map_or(Type::Null, |x| x.ty.clone()), nullable)
        }
        WindowFunction::RowNumber | WindowFunction::Rank | WindowFunction::DenseRank => (Type::Int, false),
    };
    Ok(WindowCall {
        function: spec.function,
        column,
        rows,
        ty,
        nullable,
    })
}
