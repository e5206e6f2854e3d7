//! What an author of a plugin writes: stages and functions, and [`export!`](crate::export) for all of them.
//!
//! A stage of a plugin is what a built-in one is: a [`StageSpec`] whose `bind` gives a [`Bound`]. `#[derive(Params)]` makes the
//! arguments of a struct, [`Transform`] the rest. A function is a plain Rust function with `#[scalar]` before it. An aggregate is a
//! [`Combine`](crate::combine::Combine).
//!
//! [`testing`](crate::testing) drives both in an ordinary `#[test]`; `standpipe plugin test` tries out the library that is built. It takes
//! arguments and rows from [`Transform::EXAMPLES`] and `#[scalar(example = …)]`, and makes some up of the declared types: a stage
//! that takes special arguments only needs an example.
//!
//! ```
//! use standpipe_sdk::prelude::*;
//!
//! /// Twice a number.
//! #[scalar]
//! fn twice(x: i64) -> i64 {
//!     x.wrapping_mul(2)
//! }
//!
//! /// Gives the length of a text.
//! #[derive(Params)]
//! struct Length {
//!     /// the column with the text
//!     text: ColumnArg,
//!     /// the name of the new column
//!     #[param(default = "length")]
//!     name: String,
//! }
//!
//! impl Transform for Length {
//!     const NAME: &'static str = "length";
//!
//!     fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
//!         self.text.must_be(call, &Type::String)?;
//!         let added = [Field::new(self.name.as_str(), Type::Int, true)];
//!         let at = self.text.at;
//!         Ok(Bound::adds(call, &added, vec![at], Make::RowWise(Box::new(move |_| Ok(Box::new(Lengths { at }))))))
//!     }
//! }
//!
//! struct Lengths {
//!     at: usize,
//! }
//!
//! impl RowWise for Lengths {
//!     fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
//!         let column = batch.column(self.at);
//!         let lengths = match column.data() {
//!             Data::String(text) => out.arena().collect(text.len(), |row| text.bytes(row).len() as i64)?,
//!             _ => out.arena().fill(batch.rows(), 0)?,
//!         };
//!         let made = Column::int(lengths, column.valid());
//!         let wider = batch.beside(&[made], out.arena())?;
//!         out.last(wider)
//!     }
//! }
//!
//! standpipe_sdk::export! { id: "org.example.measures", functions: [twice], stages: [Length] }
//! # fn main() {}
//! ```

use crate::error::{Code, Span};
use crate::spec::{Arg, ArgKind, Bound, Call, Complaint, Example, Item, Items, Memory, Order, Param, StageSpec, Want};
use crate::types::Type;
use crate::value::Value;

/// An argument has a value that it cannot have.
const WRONG_VALUE: Code = Code(501);
/// A column has another type than the stage needs.
const WRONG_TYPE: Code = Code(301);

/// A type whose stage can be exported. Every [`Transform`] is one.
pub trait Stage {
    const SPEC: StageSpec;
}

/// A struct whose fields are a stage's arguments; `#[derive(Params)]` makes it one.
pub trait Params: Sized {
    /// The doc comment's first line.
    const ABOUT: &'static str;
    /// Fields of type [`ColumnArg`] and those with `#[param(item)]`: what stands behind the name.
    const ITEMS: Items;
    /// The others: `name: value`.
    const OPTIONS: &'static [Param];

    /// # Errors
    /// Every argument that is missing or has a wrong value.
    fn of(call: &Call<'_>) -> Result<Self, Vec<Complaint>>;
}

/// A stage that makes rows of rows.
pub trait Transform: Params + 'static {
    /// What scripts call it, behind the plugin's name.
    const NAME: &'static str;
    const MEMORY: Memory = Memory::Batch;
    const ORDER: Order = Order::Keeps;
    /// Whole scripts with the stage in them, printed as documentation. `standpipe plugin test` takes arguments and rows from them.
    const EXAMPLES: &'static [Example] = &[];

    /// Arguments and input schema in, output schema and operator out. It is pure: checks, `explain` and editors call it.
    ///
    /// # Errors
    /// What is wrong with the arguments: the host underlines it in the script.
    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>>;
}

impl<T: Transform> Stage for T {
    const SPEC: StageSpec = StageSpec {
        name: T::NAME,
        about: T::ABOUT,
        items: T::ITEMS,
        options: T::OPTIONS,
        memory: T::MEMORY,
        order: T::ORDER,
        examples: T::EXAMPLES,
        bind: &|call| T::of(call)?.bind(call),
        ..StageSpec::BASE
    };
}

/// A type that an argument arrives as.
pub trait FromArg: Sized {
    /// What the argument is.
    const KIND: ArgKind;
    /// Whether it may be left out.
    const OPTIONAL: bool = false;

    /// # Errors
    /// Why the value cannot be one of this type.
    fn from_arg(arg: &Arg) -> Result<Self, String>;

    /// What it is where it was not given.
    fn absent() -> Option<Self> {
        None
    }
}

/// A column of the input, by name; its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColumnArg {
    pub at: usize,
}

impl ColumnArg {
    /// # Errors
    /// If the column has another type; the message says which.
    pub fn must_be(self, call: &Call<'_>, ty: &Type) -> Result<(), Vec<Complaint>> {
        let Some(field) = call.input.get(self.at).filter(|field| field.ty != *ty) else {
            return Ok(());
        };
        let items = call.items.iter().chain(call.options.iter().map(|(_, item)| item));
        let found = items
            .into_iter()
            .find(|item| matches!(item.arg, Arg::Column(at) if at == self.at));
        let span = found.map_or(call.span, |item| item.span);
        let message = format!("`{}` is {}, and must be {ty}", field.name, field.ty);
        Err(vec![Complaint::new(WRONG_TYPE, span, message, "of another type")])
    }
}

impl FromArg for ColumnArg {
    const KIND: ArgKind = ArgKind::Column;
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        match arg {
            Arg::Column(at) => Ok(ColumnArg { at: *at }),
            _ => Err("a column is needed here".into()),
        }
    }
}

impl FromArg for bool {
    const KIND: ArgKind = ArgKind::Const(Want::Bool);
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        match arg {
            Arg::Const(Value::Bool(value)) => Ok(*value),
            _ => Err("true or false is needed here".into()),
        }
    }
}

impl FromArg for i64 {
    const KIND: ArgKind = ArgKind::Const(Want::Int);
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        match arg {
            Arg::Const(Value::Int(value)) => Ok(*value),
            _ => Err("an int is needed here".into()),
        }
    }
}

impl FromArg for usize {
    const KIND: ArgKind = ArgKind::Const(Want::Int);
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        usize::try_from(i64::from_arg(arg)?).map_err(|_| "it cannot be below zero".into())
    }
}

impl FromArg for f64 {
    const KIND: ArgKind = ArgKind::Const(Want::Number);
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        match arg {
            Arg::Const(Value::Float(value)) => Ok(*value),
            Arg::Const(Value::Int(value)) => Ok(*value as f64),
            Arg::Const(Value::Decimal { value, scale }) => Ok(*value as f64 / 10f64.powi((*scale).into())),
            _ => Err("a number is needed here".into()),
        }
    }
}

impl FromArg for String {
    const KIND: ArgKind = ArgKind::Const(Want::String);
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        match arg {
            Arg::Const(Value::String(value)) => Ok(value.clone()),
            _ => Err("text is needed here".into()),
        }
    }
}

impl<T: FromArg> FromArg for Option<T> {
    const KIND: ArgKind = T::KIND;
    const OPTIONAL: bool = true;
    fn from_arg(arg: &Arg) -> Result<Self, String> {
        T::from_arg(arg).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// An argument, read; what is wrong with it goes into `wrong`. For `#[derive(Params)]`.
pub fn read<T: FromArg>(item: Option<&Item>, name: &str, call: Span, wrong: &mut Vec<Complaint>) -> Option<T> {
    let Some(item) = item else {
        let absent = T::absent();
        if absent.is_none() {
            wrong.push(Complaint::new(
                WRONG_VALUE,
                call,
                format!("`{name}` is missing"),
                "here",
            ));
        }
        return absent;
    };
    match T::from_arg(&item.arg) {
        Ok(value) => Some(value),
        Err(message) => {
            wrong.push(Complaint::new(
                WRONG_VALUE,
                item.span,
                format!("`{name}`: {message}"),
                "here",
            ));
            None
        }
    }
}
