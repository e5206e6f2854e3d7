//! A plugin's aggregate: the same spec and the same [`Aggregate`] that a built-in has, with a vtable behind it.
//!
//! Laws
//! - Its value hangs on which rows a group has, not on their order: the header says so, so no order of rows is passed on, and a plugin
//!   that wants one is refused.
//! - Its memory is the table's whose groups it keeps states of: what it declares is reserved there, and given back with the table's.
//! - What `update` or `merge` do wrong, which cannot fail, is told by whatever is asked of the states next.
#![allow(unsafe_code)]

mod account;
mod states;

use super::bind::{Given as Bound, Refused, Vtable};
use super::isolate::isolation_of;
use super::meter::Meter;
use super::{DOES_NOT_LOAD, PROCESS_LOST, WRONG_ABI, arguments, code_of, conform, params, said, wrong_params};
use crate::expr::{AggregateSpec, ForeignAggregate, Given, NotTaken};
use standpipe_sdk::aggregate::{Aggregate, OfRun, ResultNulls, States};
use standpipe_sdk::ffi::{self, ArrowSchema, PLUGIN_FAILED, schema};
use standpipe_sdk::{Arena, Code, Error, Field, Result, Schema, Span, Type};
use std::sync::{Arc, Mutex, PoisonError};

/// The functions of an aggregate, seen to be there.
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// Bytes of a group beside what is declared.
    pub(super) state_size: usize,
    pub(super) state_schema:
        unsafe extern "C" fn(*mut std::ffi::c_void, *mut ArrowSchema, *mut ffi::ErrorOut) -> ffi::Status,
    pub(super) room: Option<ffi::Room>,
    pub(super) room_to_merge: Option<ffi::Room>,
    pub(super) update: ffi::Gather,
    pub(super) merge: ffi::Gather,
    pub(super) state: ffi::Give,
    pub(super) finalize: ffi::Give,
    pub(super) clear: unsafe extern "C" fn(*mut std::ffi::c_void),
}

/// The functions that an aggregate's extension gives.
pub(super) fn table_of(vtable: &Vtable) -> Result<Table, String> {
    let Some(extension) = vtable.stage.extension else {
        return Err("it lacks `extension`".into());
    };
    let id = ffi::AGGREGATE_EXTENSION;
    // SAFETY: the function keeps to the header (the promise to `contents_of`); what it gives is NULL or static, and begins with its size.
    let table = unsafe {
        let table = extension(vtable.stage, id.as_ptr()).cast::<ffi::Aggregate>();
        if table.is_null() {
            return Err(format!("it does not answer to `{}`", id.to_string_lossy()));
        }
        let size = (&raw const (*table).struct_size).read() as usize;
        if size < size_of::<ffi::Aggregate>() {
            return Err("the table of its functions is too short".into());
        }
        *table
    };
    let unknown = table.flags & ffi::F_MUST_UNDERSTAND;
    if unknown != 0 {
        return Err(format!("it needs a newer Standpipe (flags {unknown:#x})"));
    }
    let all = || {
        Some(Table {
            state_size: table.state_size,
            state_schema: table.state_schema?,
            room: table.room,
            room_to_merge: table.room_to_merge,
            update: table.update?,
            merge: table.merge?,
            state: table.state?,
            finalize: table.finalize?,
            clear: table.clear?,
        })
    };
    all().ok_or_else(|| "it lacks one of state_schema, update, merge, state, finalize, clear".into())
}

/// The spec of an aggregate. It is made once and stays.
pub(super) fn spec_of(vtable: Vtable) -> Result<&'static AggregateSpec> {
    let (params, columns, returns) =
        params::of_function(vtable.params).map_err(|what| wrong_params(vtable.name, &what))?;
    let unknown = vtable.stage.flags & ffi::F_MUST_UNDERSTAND;
    if unknown != 0 {
        let message = format!("`{}` needs a newer Standpipe (flags {unknown:#x})", vtable.name);
        return Err(Error::failed(WRONG_ABI, message));
    }
    let table = table_of(&vtable)
        .map_err(|what| Error::failed(DOES_NOT_LOAD, format!("the aggregate `{}`: {what}", vtable.name)))?;
    let columns = columns.min(params.len());
    let foreign: &'static Foreign = Box::leak(Box::new(Foreign { vtable, table, columns }));
    Ok(Box::leak(Box::new(AggregateSpec {
        name: vtable.name,
        about: vtable.about,
        params,
        columns,
        returns,
        foreign: Some(foreign),
        ..AggregateSpec::BASE
    })))
}

struct Foreign {
    vtable: Vtable,
    table: Table,
    columns: usize,
}

impl ForeignAggregate for Foreign {
    fn bind(&self, given: &[Given<'_>], span: Span) -> Result<Arc<dyn Aggregate>, NotTaken> {
        let field = |(at, given): (usize, &Given<'_>)| Field::new(format!("{at}"), given.ty.clone(), given.nullable);
        let input: Schema = given.iter().enumerate().map(field).collect();
        let config = arguments::of_given(given);
        let bound = Bounded::new(self.vtable, self.table, &input, self.columns, &config, span)?;
        let constants = given.iter().map(|given| given.value.cloned()).collect();
        conform::aggregated(self.vtable, self.table, self.columns, constants, &input, &config);
        Ok(Arc::new(bound))
    }
}

/// An aggregate with its argument types.
pub(super) struct Bind {
    pub(super) given: Bound,
    table: Table,
    span: Span,
    /// The arguments that are columns.
    types: Vec<Type>,
    output: Field,
    /// The columns of a state.
    state: Schema,
    rejects: bool,
    meter: Arc<Meter>,
    ceiling: Arc<account::Ceiling>,
    /// Memory for what is lent in a call, of lanes that are not in one.
    scratch: Mutex<Vec<Arena>>,
}

/// What an arena for what is lent may hand out.
const SCRATCH: usize = 1 << 30;

impl Bind {
    /// Calls `bind`.
    fn bound(
        vtable: Vtable,
        table: Table,
        input: &Schema,
        columns: usize,
        config: &str,
        span: Span,
    ) -> Result<Bind, Refused> {
        let given = Bound::new(vtable, Some(input), input.width(), config)?;
        let [output] = given.output.fields() else {
            let what = format!("an aggregate gives one column, this one {}", given.output.width());
            return Err(what.into());
        };
        let flags = given.out.flags;
        let later = [
            (ffi::F_NEEDS_ORDER, "the rows in their order"),
            (ffi::F_RETAINS_INPUT, "to keep its input"),
            (ffi::F_THREAD_AFFINE, "to stay on one thread"),
        ];
        if let Some((_, what)) = later.iter().find(|(flag, _)| flags & flag != 0) {
            return Err(abi(format!("it wants {what}, which no aggregate is given")));
        }
        let unknown = flags & ffi::F_MUST_UNDERSTAND;
        if unknown != 0 {
            return Err(abi(format!("it needs a newer Standpipe (flags {unknown:#x})")));
        }
        Ok(Bind {
            output: Field::new(vtable.name, output.ty.clone(), output.nullable),
            state: state_of(&given, &table)?,
            table,
            span,
            types: input
                .fields()
                .iter()
                .take(columns)
                .map(|field| field.ty.clone())
                .collect(),
            rejects: (vtable.stage.flags | flags) & ffi::F_REJECTS != 0,
            meter: Meter::of(&vtable),
            ceiling: account::Ceiling::new(isolation_of(vtable.stage).map(|limits| limits.memory)),
            scratch: Mutex::default(),
            given,
        })
    }

    fn failed_as(&self, code: Code, what: &str) -> Error {
        Error::Failed {
            code,
            message: format!("`{}`: {what}", self.given.vtable.name),
            help: None,
            span: Some(self.span),
        }
    }

    fn failed(&self, what: &str) -> Error {
        self.failed_as(PLUGIN_FAILED, what)
    }

    /// A failure of the aggregate's, with its name and place; other errors as they are.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Failed { code, message, .. } if code == PROCESS_LOST => self.failed_as(code, &message),
            Error::Failed { message, .. } => self.failed(&message),
            other => other,
        }
    }

    /// From now on memory of calls is overwritten once they are over.
    pub(super) fn poison(&self) {
        let mut arena = Arena::new(SCRATCH);
        arena.set_poison(true);
        *self.scratch.lock().unwrap_or_else(PoisonError::into_inner) = vec![arena];
    }

    /// Runs `f` with memory for one call.
    fn with_scratch<T>(&self, f: impl FnOnce(&Arena) -> T) -> T {
        let mut idle = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arena = idle.pop().unwrap_or_else(|| Arena::new(SCRATCH));
        drop(idle);
        let outcome = f(&arena);
        arena.reset();
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        outcome
    }
}

fn abi(message: String) -> Refused {
    Refused {
        code: WRONG_ABI,
        ..message.into()
    }
}

/// The columns of a state.
pub(super) fn state_of(given: &Bound, table: &Table) -> Result<Schema, Refused> {
    let (mut out, mut error) = (ArrowSchema::EMPTY, ffi::ErrorOut::EMPTY);
    // SAFETY: `bound` came from this aggregate's `bind`; the other arguments are valid for the call.
    let status = unsafe { (table.state_schema)(given.bound, &raw mut out, &raw mut error) };
    if status < 0 {
        return Err(Refused {
            code: code_of(status),
            ..said(status, &error).into()
        });
    }
    // SAFETY: the call filled it, as Arrow's C Data Interface says, or left it released.
    let state = unsafe { schema::import(&out) };
    if let Some(release) = out.release {
        // SAFETY: it is not released yet, and nobody else has it.
        unsafe { release(&raw mut out) }
    }
    let state = state.map_err(|error| format!("the columns of its state: {}", super::bind::message_of(error)))?;
    match state.width() {
        0 => Err("its state has no columns".to_owned().into()),
        _ => Ok(state),
    }
}

/// A bound aggregate as stages take it.
#[derive(Clone)]
pub(super) struct Bounded {
    bind: Arc<Bind>,
    /// Every group has values: a null is an error.
    strict: bool,
}

impl Bounded {
    pub(super) fn new(
        vtable: Vtable,
        table: Table,
        input: &Schema,
        columns: usize,
        config: &str,
        span: Span,
    ) -> Result<Bounded, Refused> {
        Ok(Bounded {
            bind: Arc::new(Bind::bound(vtable, table, input, columns, config, span)?),
            strict: false,
        })
    }

    pub(super) fn bind(&self) -> &Bind {
        &self.bind
    }

    pub(super) fn output(&self) -> &Field {
        &self.bind.output
    }

    pub(super) fn state(&self) -> &Schema {
        &self.bind.state
    }
}

impl Aggregate for Bounded {
    fn name(&self) -> &str {
        self.bind.given.vtable.name
    }

    fn ty(&self) -> &Type {
        &self.bind.output.ty
    }

    fn nulls(&self) -> ResultNulls {
        match self.bind.output.nullable {
            true => ResultNulls::Some,
            false => ResultNulls::NoValues,
        }
    }

    fn fallible(&self) -> bool {
        self.bind.rejects
    }

    fn ordered(&self) -> bool {
        false
    }

    fn fixed(&self) -> bool {
        self.bind.table.room.is_none()
    }

    fn strict(&self) -> Option<Arc<dyn Aggregate>> {
        Some(Arc::new(Bounded {
            strict: true,
            ..self.clone()
        }))
    }

    fn ceiling(&self) -> Option<usize> {
        self.bind.ceiling.limit()
    }

    fn partial(&self) -> Schema {
        self.bind.state.clone()
    }

    fn states(&self, run: &OfRun) -> Box<dyn States> {
        Box::new(states::Grouped::new(self.bind.clone(), run.clone(), self.strict))
    }
}

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        NotTaken {
            code: if refused.param.is_empty() {
                Some(refused.code)
            } else {
                None
            },
            param: refused.param,
            message: refused.message,
        }
    }
}
