//! What an author of an aggregate writes: states that rows go into, that are put together, and that a value is made of.
//!
//! Laws
//! - What comes out hangs on which rows a group has, never on the order of `update` and `merge`, nor on where batches end: the host
//!   takes rows on many workers, and writes states to disk and reads them again where memory is short.
//! - A state is its bytes: what [`Combine::write`] writes, [`Combine::read`] makes the same state of, perhaps in another process.
//! - Memory is asked for before it is taken: the SDK declares [`Combine::ROW_BYTES`] for each row, and [`Combine::room_of`] for each
//!   state, before `update` and `merge`, and afterwards what the states really have.

use crate::arena::Arena;
use crate::column::Column;
use crate::error::{Error, Result};
use crate::ffi::PLUGIN_FAILED;
use crate::plugin::FromArg;
use crate::scalar::Take;
use crate::spec::{Arg, Example};
use crate::types::{Schema, Type};
use crate::value::Value;
use std::collections::TryReserveError;
use std::sync::Arc;

/// An aggregate of a plugin. The value of this type is one that is bound: its argument types and constants are known.
///
/// ```
/// use standpipe_sdk::prelude::*;
/// use standpipe_sdk::{table, testing};
///
/// /// The largest distance between two values of a group.
/// struct Spread;
///
/// impl Combine for Spread {
///     const NAME: &'static str = "spread";
///     const ABOUT: &'static str = "The distance between the least value and the greatest";
///     const PARAMS: &'static [CombineParam] = &[CombineParam::column("x", "float")];
///     const RETURNS: &'static str = "float?";
///     type State = Option<(f64, f64)>;
///
///     fn bind(_: &Arguments<'_>) -> Result<Self, Wrong> {
///         Ok(Spread)
///     }
///     fn ty(&self) -> Type {
///         Type::Float
///     }
///     fn start(&self) -> Self::State {
///         None
///     }
///     fn update(&self, states: &mut [Self::State], rows: &Values<'_>) -> Result<()> {
///         for (&x, &group) in rows.get::<f64>(0)?.iter().zip(rows.groups) {
///             self.merge(&mut states[group as usize], Some((x, x)));
///         }
///         Ok(())
///     }
///     fn merge(&self, state: &mut Self::State, other: Self::State) {
///         *state = match (*state, other) {
///             (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
///             (one, other) => one.or(other),
///         };
///     }
///     fn write(&self, state: &Self::State, out: &mut Vec<u8>) {
///         if let Some((least, most)) = state {
///             out.extend(least.to_le_bytes().into_iter().chain(most.to_le_bytes()));
///         }
///     }
///     fn read(&self, bytes: &[u8]) -> Result<Self::State, String> {
///         let number = |at: usize| Some(f64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
///         Ok(number(0).zip(number(8)))
///     }
///     fn value(&self, state: &Self::State) -> Result<Option<Value>, String> {
///         Ok(state.map(|(least, most)| Value::Float(most - least)))
///     }
/// }
///
/// let given = table!["x: float?"; 3.0; NULL; -1.0];
/// # use standpipe_sdk::testing::NULL;
/// let got = testing::aggregate::<Spread>().run(&given);
/// assert_eq!(got.to_string(), "value: float?\n          4.0\n");
/// ```
pub trait Combine: Sized + Send + Sync + 'static {
    /// What scripts call it, behind the plugin's name.
    const NAME: &'static str;
    /// One line, without a dot.
    const ABOUT: &'static str;
    /// What it takes: columns, then constants.
    const PARAMS: &'static [CombineParam];
    /// The type of what comes out, for people: `float?`.
    const RETURNS: &'static str;
    /// Whole scripts with the aggregate in them, printed as documentation. `standpipe plugin test` takes arguments and rows from them.
    const EXAMPLES: &'static [Example] = &[];
    /// Bytes of the heap that one row adds to a state, at most. What doubles when it is full adds as much as it has: a state that may
    /// be large grows by fixed steps.
    const ROW_BYTES: usize = 0;
    /// Whether [`Combine::value`] fails for some groups.
    const FALLIBLE: bool = false;

    /// What is kept of one group.
    type State: Send;

    /// Types and constants in, a bound aggregate out. It is pure: checks, `explain` and editors call it.
    ///
    /// # Errors
    /// What is wrong with which argument: the host underlines it in the script.
    fn bind(args: &Arguments<'_>) -> Result<Self, Wrong>;

    /// The type of what comes out.
    fn ty(&self) -> Type;

    /// Whether a group may be null although it has values; one without any may always be.
    fn nullable(&self) -> bool {
        false
    }

    /// The state of a group without rows.
    fn start(&self) -> Self::State;

    /// Takes rows: row r goes to `states[rows.groups[r]]`. No argument is null.
    ///
    /// # Errors
    /// Any ends the run.
    fn update(&self, states: &mut [Self::State], rows: &Values<'_>) -> Result<()>;

    /// Puts the rows of two states together.
    fn merge(&self, state: &mut Self::State, other: Self::State);

    /// Appends the state as bytes.
    fn write(&self, state: &Self::State, out: &mut Vec<u8>);

    /// The state that gave those bytes.
    ///
    /// # Errors
    /// That these are no state's: ends the run.
    fn read(&self, bytes: &[u8]) -> Result<Self::State, String>;

    /// Bytes of the heap that the state of these bytes takes, at most.
    fn room_of(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    /// What a group comes to.
    ///
    /// # Errors
    /// Why the group has no value: a bad row of the output, with `FALLIBLE` only.
    fn value(&self, state: &Self::State) -> Result<Option<Value>, String>;
}

/// A parameter of an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct CombineParam {
    pub name: &'static str,
    /// As in the header: `float` (an int is converted, a decimal too), `int`, `string`, …, `number`, `ordered`, `list`, `any`.
    pub ty: &'static str,
    /// Known before the run.
    pub constant: bool,
    /// A literal of the language: `0`, `"x"`, `true`; `None` = it must be given.
    pub default: Option<&'static str>,
}

impl CombineParam {
    /// Something of each row. These come first.
    pub const fn column(name: &'static str, ty: &'static str) -> CombineParam {
        CombineParam {
            name,
            ty,
            constant: false,
            default: None,
        }
    }

    /// Something that is known before the run.
    pub const fn constant(name: &'static str, ty: &'static str, default: Option<&'static str>) -> CombineParam {
        CombineParam {
            name,
            ty,
            constant: true,
            default,
        }
    }
}

/// What an aggregate is bound to.
pub struct Arguments<'c> {
    pub(crate) params: &'static [CombineParam],
    /// One field per parameter.
    pub(crate) fields: &'c Schema,
    /// The constants among them.
    pub(crate) values: &'c [Option<Value>],
}

impl Arguments<'_> {
    fn at(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.name == name)
    }

    /// The type of an argument.
    pub fn ty(&self, name: &str) -> Type {
        let field = self.at(name).and_then(|at| self.fields.get(at));
        field.map_or(Type::Null, |field| field.ty.clone())
    }

    /// A constant, as `f64`, `i64`, `String`, `bool` or an `Option` of one.
    ///
    /// # Errors
    /// If it is null or of another type.
    pub fn constant<T: FromArg>(&self, name: &'static str) -> Result<T, Wrong> {
        let value = self.at(name).and_then(|at| self.values.get(at)?.clone());
        match value {
            None | Some(Value::Null) => T::absent().ok_or_else(|| Wrong::new(name, "it cannot be null")),
            Some(value) => T::from_arg(&Arg::Const(value)).map_err(|what| Wrong::new(name, what)),
        }
    }
}

/// What is wrong with an argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// A parameter's name; empty for the call as a whole.
    pub param: &'static str,
    pub message: String,
}

impl Wrong {
    pub fn new(param: &'static str, message: impl Into<String>) -> Wrong {
        Wrong {
            param,
            message: message.into(),
        }
    }
}

/// Rows for an aggregate: no argument is null.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// One per parameter that is a column.
    pub columns: &'a [Column<'a>],
    /// The state that each row goes to.
    pub groups: &'a [u32],
    pub arena: &'a Arena,
}

impl<'a> Values<'a> {
    /// Argument `at` of all rows: `&[f64]`, `&[i64]`, `Text`, `Bits`.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn get<T: Take<'a>>(&self, at: usize) -> Result<T::Column> {
        let missing = || Error::failed(PLUGIN_FAILED, "an argument is missing");
        T::column(*self.columns.get(at).ok_or_else(missing)?, self.arena)
    }
}

/// An aggregate as the tables have it.
pub struct CombineSpec {
    pub name: &'static str,
    pub about: &'static str,
    pub params: &'static [CombineParam],
    pub returns: &'static str,
    pub examples: &'static [Example],
    pub fallible: bool,
    pub bind: &'static (dyn Fn(&Arguments<'_>) -> Result<Combined, Wrong> + Sync),
}

impl CombineSpec {
    /// How many parameters are columns.
    pub const fn columns(&self) -> usize {
        let mut at = 0;
        while at < self.params.len() && !self.params[at].constant {
            at += 1;
        }
        at
    }
}

/// A bound aggregate, whatever its state is.
pub struct Combined {
    pub ty: Type,
    pub nullable: bool,
    /// The states of no groups.
    pub groups: Box<dyn Fn() -> Box<dyn Groups> + Send + Sync>,
}

/// States of one aggregate, by the number of their group.
pub trait Groups: Send {
    /// Bytes that room for so many groups in all takes beside what there is, and so many rows.
    fn wanted(&self, groups: usize, rows: usize) -> usize;

    /// Bytes that merging the state of these bytes may take.
    fn wanted_of(&self, bytes: &[u8]) -> usize;

    /// Makes room for so many groups in all.
    ///
    /// # Errors
    /// If the system has none; nothing changes then.
    fn room(&mut self, groups: usize) -> Result<(), TryReserveError>;

    /// See [`Combine::update`]; groups that are not there yet begin.
    ///
    /// # Errors
    /// As there.
    fn update(&mut self, rows: &Values<'_>) -> Result<()>;

    /// Puts the state of these bytes into a group's.
    ///
    /// # Errors
    /// If they are none.
    fn merge(&mut self, group: u32, bytes: &[u8]) -> Result<(), String>;

    /// Appends a group's state as bytes.
    fn write(&mut self, group: u32, out: &mut Vec<u8>);

    /// What a group comes to.
    ///
    /// # Errors
    /// See [`Combine::value`].
    fn value(&mut self, group: u32) -> Result<Value, String>;

    /// Forgets all groups, and their memory.
    fn clear(&mut self);
}

/// A type whose aggregate can be exported. Every [`Combine`] is one.
pub trait Aggregated {
    const SPEC: CombineSpec;
}

impl<T: Combine> Aggregated for T {
    const SPEC: CombineSpec = CombineSpec {
        name: T::NAME,
        about: T::ABOUT,
        params: T::PARAMS,
        returns: T::RETURNS,
        examples: T::EXAMPLES,
        fallible: T::FALLIBLE,
        bind: &|args| {
            let bound = Arc::new(T::bind(args)?);
            Ok(Combined {
                ty: bound.ty(),
                nullable: bound.nullable(),
                groups: Box::new(move || {
                    Box::new(Held {
                        combine: bound.clone(),
                        states: vec![],
                    })
                }),
            })
        },
    };
}

struct Held<T: Combine> {
    combine: Arc<T>,
    states: Vec<T::State>,
}

impl<T: Combine> Held<T> {
    /// Begins the groups up to this one.
    fn reach(&mut self, group: u32) -> &mut T::State {
        let at = group as usize;
        while self.states.len() <= at {
            self.states.push(self.combine.start());
        }
        &mut self.states[at]
    }

    /// The capacity for so many groups.
    fn capacity(&self, groups: usize) -> usize {
        match groups <= self.states.capacity() {
            true => self.states.capacity(),
            false => groups.max(self.states.capacity() / 4 * 5).max(4),
        }
    }
}

impl<T: Combine> Groups for Held<T> {
    fn wanted(&self, groups: usize, rows: usize) -> usize {
        let more = self.capacity(groups) - self.states.capacity();
        // The old place of the states counts until the new one is there.
        let old = if more > 0 { self.states.capacity() } else { 0 };
        (more + old) * size_of::<T::State>() + rows.saturating_mul(T::ROW_BYTES)
    }

    fn wanted_of(&self, bytes: &[u8]) -> usize {
        // The state that is read, and what the group's grows by.
        self.combine.room_of(bytes).saturating_mul(2)
    }

    fn room(&mut self, groups: usize) -> Result<(), TryReserveError> {
        let capacity = self.capacity(groups);
        self.states.try_reserve_exact(capacity - self.states.len())
    }

    fn update(&mut self, rows: &Values<'_>) -> Result<()> {
        if let Some(&last) = rows.groups.iter().max() {
            self.reach(last);
        }
        self.combine.update(&mut self.states, rows)
    }

    fn merge(&mut self, group: u32, bytes: &[u8]) -> Result<(), String> {
        let other = self.combine.read(bytes)?;
        self.reach(group);
        self.combine.merge(&mut self.states[group as usize], other);
        Ok(())
    }

    fn write(&mut self, group: u32, out: &mut Vec<u8>) {
        self.reach(group);
        self.combine.write(&self.states[group as usize], out);
    }

    fn value(&mut self, group: u32) -> Result<Value, String> {
        self.reach(group);
        let value = self.combine.value(&self.states[group as usize])?;
        Ok(value.unwrap_or(Value::Null))
    }

    fn clear(&mut self) {
        self.states = vec![];
    }
}
