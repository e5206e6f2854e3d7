//! Typed expressions over batches: what the checker builds, and what runs.
//!
//! Every constructor checks types, inserts implicit conversions, works out type, nullability and fallibility, and folds
//! constants; what it refuses is an [`Issue`]. Names of columns, parameters and user functions were resolved before.
//!
//! Laws
//! - A value of an expression depends on its row only (and on [`Fixed`] and the row's place): never on the batch around it.
//! - Evaluation is vectorised; a fallible expression runs only for the rows that need it, so a branch not taken cannot fail.
//! - A failing row is null and reported once; nothing wraps, nothing is silently null.
//! - Nothing is allocated on the heap per batch.

pub mod aggregate;
mod aggregates;
mod bind;
mod cell;
mod choose;
mod codes;
mod compute;
mod condition;
mod decimal;
mod eval;
mod format;
mod function;
mod functions;
pub(crate) mod json;
mod kernel;
#[cfg(test)]
mod oracle;
pub mod scalar;
mod set;
mod share;
mod show;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod walk;
pub mod window;

pub use aggregate::{
    AggregateCall, AggregateSpec, ForeignAggregate, NotTaken, aggregate, aggregate_call, aggregate_call_of,
    is_aggregate,
};
pub use aggregates::{FloatSum, families as aggregates};
pub use bind::run_example;
pub use codes::*;
pub use compute::Compute;
pub use condition::Condition;
pub use eval::Evaluator;
pub use format::Piece;
pub use function::{
    Args, Bools, Eval, Example, Foreign, ForeignCall, FunctionSpec, Given, Lists, Nulls, ParamSpec, Pattern, Prepare,
    Returns, Strings, Values,
};
pub use functions::families as functions;
pub use set::Set;
pub(crate) use show::Literal;
pub(crate) use values::of_cell as value_of_cell;
pub use walk::Instead;
pub use window::{WINDOW_FUNCTIONS, WindowCall, WindowSpec, window_call, window_function};

use regex::Regex;
use standpipe_sdk::{Code, Field, Span, Type, Value};
use std::any::Any;
use std::sync::Arc;

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: Kind,
    pub ty: Type,
    /// Whether a row may be null.
    pub nullable: bool,
    /// Whether a row may fail.
    pub fallible: bool,
    pub span: Span,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    pub code: Code,
    pub span: Span,
    pub message: String,
    /// Words under the underlined place.
    pub label: String,
    pub helps: Vec<String>,
    pub labels: Vec<(Span, String)>,
}

/// What an expression does. Its business is this room's.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A column of the batch.
    Column {
        index: usize,
        name: Arc<str>,
    },
    /// A parameter of an enclosing lambda.
    Param {
        slot: usize,
        name: Arc<str>,
    },
    Constant(Value),
    /// A literal with a point, which beside a decimal is one.
    FloatText {
        value: f64,
        text: Arc<str>,
    },
    Arith {
        op: Arith,
        l: Box<Expr>,
        r: Box<Expr>,
    },
    Neg(Box<Expr>),
    Compare {
        op: Cmp,
        l: Box<Expr>,
        r: Box<Expr>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull {
        e: Box<Expr>,
        negated: bool,
    },
    Is {
        l: Box<Expr>,
        r: Box<Expr>,
        negated: bool,
    },
    Coalesce(Box<Expr>, Box<Expr>),
    Catch(Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    Match {
        subject: Box<Expr>,
        arms: Vec<(Vec<MatchPattern>, Expr)>,
        otherwise: Box<Expr>,
    },
    /// Among constants of the left side's own type.
    InSet {
        e: Box<Expr>,
        items: Vec<Expr>,
        set: Arc<Set>,
        negated: bool,
    },
    InAny {
        e: Box<Expr>,
        items: Vec<Expr>,
        negated: bool,
    },
    InValues {
        e: Box<Expr>,
        list: Box<Expr>,
        negated: bool,
    },
    InRange {
        e: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        negated: bool,
    },
    Regex {
        e: Box<Expr>,
        regex: Arc<Regex>,
        flags: String,
    },
    /// A field of a record.
    Field {
        e: Box<Expr>,
        index: usize,
        name: Arc<str>,
    },
    /// A field of a json object.
    JsonField {
        e: Box<Expr>,
        name: Arc<str>,
        optional: bool,
    },
    /// An element of a list or of a json array.
    Index {
        e: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    List(Vec<Expr>),
    Record(Vec<(Arc<str>, Expr)>),
    Format(Vec<Piece>),
    /// To the expression's type; `implicit` ones are not printed.
    Cast {
        e: Box<Expr>,
        implicit: bool,
    },
    Call {
        spec: &'static FunctionSpec,
        args: Vec<Argument>,
        prepared: Option<Arc<dyn Any + Send + Sync>>,
    },
}

/// `+ - * / // % **`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

/// `== != < <= > >=`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What an arm of `match` accepts.
#[derive(Clone, Debug)]
pub enum MatchPattern {
    Value(Expr),
    /// Both ends included; at least one is there.
    Range(Option<Expr>, Option<Expr>),
    Null,
}

/// Part of an f-string.
#[derive(Clone, Debug)]
pub enum FPart {
    Text(String),
    /// The value and what stands behind the colon.
    Value(Expr, Option<String>),
}

/// A call's argument as it was written.
pub struct CallArg<'c> {
    pub name: Option<String>,
    pub value: ArgValue<'c>,
    pub span: Span,
}

/// What an argument is.
pub enum ArgValue<'c> {
    Expr(Expr),
    Lambda(LambdaArg<'c>),
    Regex { pattern: String, flags: String },
}

/// A lambda whose parameters have no types yet.
pub struct LambdaArg<'c> {
    pub params: Vec<String>,
    /// Checks the body, given a field per parameter. The body refers to parameter `i` as [`Expr::lambda_param`].
    pub build: BuildLambda<'c>,
}

/// Checks a lambda's body, given a field per parameter.
pub type BuildLambda<'c> = Box<dyn FnOnce(&[Field]) -> Result<Lambda, Issue> + 'c>;

/// A lambda with a checked body.
#[derive(Clone, Debug)]
pub struct Lambda {
    pub names: Vec<String>,
    pub body: Box<Expr>,
}

/// An argument of a checked call.
#[derive(Clone, Debug)]
pub enum Argument {
    Value(Expr),
    Lambda(Lambda),
    Regex(Arc<Regex>),
}

/// What is fixed for a whole run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed {
    /// What `now()` gives, in microseconds since 1970-01-01T00:00:00Z.
    pub now_micros: i64,
}

impl Issue {
    /// An issue without help.
    pub fn new(code: Code, span: Span, message: impl Into<String>, label: impl Into<String>) -> Issue {
        Issue {
            code,
            span,
            message: message.into(),
            label: label.into(),
            helps: vec![],
            labels: vec![],
        }
    }

    /// The same with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Issue {
        self.helps.push(help.into());
        self
    }
}

/// The overloads of `name`.
pub fn function(name: &str) -> impl Iterator<Item = &'static FunctionSpec> + Clone {
    functions()
        .iter()
        .flat_map(|family| family.iter())
        .filter(move |spec| spec.name == name)
}

/// Whether there is a function called `name`.
pub fn is_function(name: &str) -> bool {
    function(name).next().is_some()
}
