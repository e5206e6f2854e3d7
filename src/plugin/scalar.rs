//! A plugin's scalar function: arguments go in as lent columns, one column comes back.
//!
//! Laws
//! - A function that can fail sees only rows that count, one that cannot may see any.
//! - An instance works for one batch at a time; there are as many as workers were in it at once.
#![allow(unsafe_code)]

use super::bind::{Given as Bound, Refused, Vtable};
use super::host::{self, Entered, Registered, Service};
use super::meter::Meter;
use super::run::{Object, lend, release};
use super::{PROCESS_LOST, arguments, code_of, conform, params, said, wrong_params};
use crate::expr::{Args, Foreign, ForeignCall, FunctionSpec, Given, Nulls, Returns};
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::Lent;
use standpipe_sdk::ffi::{self, ArrowArray, PLUGIN_FAILED, Status};
use standpipe_sdk::{Arena, Bits, Code, Column, Columns, Error, Field, Result, Schema, Type};
use std::any::Any;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The spec of a function. It is made once and stays.
pub(super) fn spec_of(vtable: Vtable) -> Result<&'static FunctionSpec> {
    let (params, _, returns) = params::of_function(vtable.params).map_err(|what| wrong_params(vtable.name, &what))?;
    let flags = vtable.stage.flags;
    let unknown = flags & ffi::F_MUST_UNDERSTAND;
    if unknown != 0 {
        let message = format!("`{}` needs a newer Standpipe (flags {unknown:#x})", vtable.name);
        return Err(Error::failed(super::WRONG_ABI, message));
    }
    let foreign: &'static Function = Box::leak(Box::new(Function { vtable }));
    Ok(Box::leak(Box::new(FunctionSpec {
        name: vtable.name,
        about: vtable.about,
        params,
        returns: Returns::Bound(returns),
        nulls: match flags & ffi::F_NULL_PROPAGATING {
            0 => Nulls::Own,
            _ => Nulls::Propagate,
        },
        fallible: flags & ffi::F_REJECTS != 0,
        foreign: Some(foreign),
        ..FunctionSpec::FOREIGN
    })))
}

struct Function {
    vtable: Vtable,
}

impl Foreign for Function {
    fn bind(&self, given: &[Given<'_>]) -> Result<(Field, Arc<dyn ForeignCall>), String> {
        let vtable = self.vtable;
        let field = |(at, given): (usize, &Given<'_>)| Field::new(format!("{at}"), given.ty.clone(), given.nullable);
        let input: Schema = given.iter().enumerate().map(field).collect();
        let config = arguments::of_given(given);
        let bound = Bound::new(vtable, Some(&input), given.len(), &config);
        let bound = bound.map_err(|Refused { message, param, .. }| match param.as_str() {
            "" => message,
            param => format!("`{param}`: {message}"),
        })?;
        let [output] = bound.output.fields() else {
            return Err(format!(
                "a function gives one column, this one {}",
                bound.output.width()
            ));
        };
        let output = output.clone();
        let constants = || given.iter().map(|given| given.value.cloned()).collect();
        conform::bound(vtable, Some(constants()), &input, given.len(), &config);
        let call = Bind {
            types: given.iter().map(|given| given.ty.clone()).collect(),
            output: output.clone(),
            rejects: vtable.stage.flags & ffi::F_REJECTS != 0,
            idle: Mutex::default(),
            meter: Meter::of(&vtable),
            bound,
        };
        Ok((output, Arc::new(call)))
    }
}

/// A function with its argument types.
struct Bind {
    types: Vec<Type>,
    output: Field,
    rejects: bool,
    /// Instances that nobody uses. They stand before `bound`, whose drop unbinds.
    idle: Mutex<Vec<Object>>,
    meter: Arc<Meter>,
    bound: Bound,
}

impl ForeignCall for Bind {
    fn eval<'a>(&self, args: &Args<'_, 'a>) -> Result<Column<'a>> {
        let (rows, arena) = (args.rows(), args.arena());
        let mut columns = Columns::new(arena, self.types.len())?;
        for at in 0..self.types.len() {
            columns.push(args.column(at)?);
        }
        let columns = columns.finish();
        if !self.rejects {
            return self.call(args, columns, rows, None);
        }
        let active = Bits::collect(arena, rows, |row| args.is_active(row))?;
        if active.is_all() {
            return self.call(args, columns, rows, None);
        }
        let picks = active.indices(arena)?;
        let mut picked = Columns::new(arena, columns.len())?;
        for column in columns {
            picked.push(column.gather(picks, arena)?);
        }
        let some = self.call(args, picked.finish(), picks.len(), Some(picks))?;
        // Back to their rows; the others are null.
        let mut next = 0;
        let places = arena.collect(rows, |row| {
            let here = active.get(row);
            next += u32::from(here);
            if here { (0, next - 1) } else { (1, 0) }
        })?;
        Column::interleave(&[some, Column::nulls(1)], places, arena)
    }
}

impl Bind {
    fn failed(&self, what: &str) -> Error {
        self.failed_as(PLUGIN_FAILED, what)
    }

    fn failed_as(&self, code: Code, what: &str) -> Error {
        Error::failed(code, format!("`{}`: {what}", self.bound.vtable.name))
    }

    fn named(&self, error: Error) -> Error {
        match error {
            Error::Failed {
                code: PROCESS_LOST,
                message,
                ..
            } => self.failed_as(PROCESS_LOST, &message),
            Error::Failed { message, .. } => self.failed(&message),
            other => other,
        }
    }

    fn object(&self) -> Result<Object> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(object) = idle {
            return Ok(object);
        }
        let owner = Registered::without_memory(self.bound.vtable.name, self.meter.clone());
        Object::new(&self.bound, owner, 0).map_err(|error| self.named(error))
    }

    /// The values of `rows` rows. `picks`: which rows of the batch they are.
    fn call<'a>(
        &self,
        args: &Args<'_, 'a>,
        columns: &'a [Column<'a>],
        rows: usize,
        picks: Option<&[u32]>,
    ) -> Result<Column<'a>> {
        let Some(process) = self.bound.vtable.process else {
            return Err(self.failed("it has no `process`"));
        };
        let arena = args.arena();
        let mut object = self.object()?;
        let lent = Lent::new(columns, &self.types, rows, arena, &object.lease).map_err(|e| self.named(e))?;
        let mut calling = Calling {
            bind: self,
            args,
            rows,
            picks,
            arena,
            bad: vec![],
            refused: None,
            error: None,
            panic: None,
        };
        let call = object.call();
        let (mut input, mut out, mut error) = (lent.array, ArrowArray::EMPTY, ffi::ErrorOut::EMPTY);
        let start = Instant::now();
        // SAFETY: both stay where they are, and nobody else uses `calling`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut calling) };
        // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to the
        // header (the promise to `contents_of`).
        let status = unsafe {
            process(
                object.inst,
                &raw const call,
                &raw mut input,
                &raw mut out,
                &raw mut error,
            )
        };
        drop(entered);
        self.meter.called(rows, rows, start.elapsed());
        // SAFETY: `process` filled `out`, or left it released.
        let outcome = unsafe { calling.end(status, &error, &mut out, &lent) };
        let returned = lent.take_back(input);
        object.ended(status, &error, returned.is_err());
        let (panic, bad) = (calling.panic.take(), std::mem::take(&mut calling.bad));
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
        let column = outcome?;
        returned.map_err(|e| self.named(e))?;
        if !object.broken {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(object);
        }
        if bad.is_empty() {
            return Ok(column);
        }
        // What was rejected is null.
        let valid = Bits::collect(arena, rows, |row| {
            column.is_valid(row) && bad.binary_search(&row).is_err()
        })?;
        match column.data() {
            standpipe_sdk::Data::Null => Ok(column),
            _ => Ok(column.with_valid(Some(valid))),
        }
    }
}

/// What a call of `process` stands for, as the host's services see it.
struct Calling<'r, 'e, 'a> {
    bind: &'r Bind,
    args: &'r Args<'e, 'a>,
    rows: usize,
    picks: Option<&'r [u32]>,
    arena: &'a Arena,
    /// Rejected rows, ascending at the end.
    bad: Vec<usize>,
    refused: Option<Error>,
    error: Option<Error>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Service for Calling<'_, '_, '_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        lend(self.arena, size, &mut self.refused)
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        ffi::E_UNSUPPORTED
    }

    fn reject(&mut self, row: i64, _: i32, code: &[u8], message: &[u8]) -> Status {
        let row = match usize::try_from(row) {
            Ok(row) if row < self.rows && self.bind.rejects => row,
            _ => {
                let what = match self.bind.rejects {
                    true => format!("it rejects row {row}, which is not there"),
                    false => "it rejects rows and did not say so".into(),
                };
                self.error = Some(self.bind.failed(&what));
                return ffi::E_CANCELLED;
            }
        };
        let (code, message) = (String::from_utf8_lossy(code), String::from_utf8_lossy(message));
        let place = self.picks.map_or(row, |picks| picks[row] as usize);
        let outcome = match &*code {
            "" => self.args.fault::<()>(place, PLUGIN_FAILED, format_args!("{message}")),
            code => self
                .args
                .fault(place, PLUGIN_FAILED, format_args!("{message} ({code})")),
        };
        match outcome {
            Ok(_) => {
                self.bad.push(row);
                ffi::OK
            }
            Err(error) => {
                self.error = Some(error);
                ffi::E_CANCELLED
            }
        }
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) {
        self.panic = Some(panic);
    }
}

impl<'a> Calling<'_, '_, 'a> {
    /// The end of the call: the column that it gives.
    ///
    /// # Safety
    /// As [`Importer::columns`] has it, if `out` is not released.
    unsafe fn end(
        &mut self,
        status: Status,
        error: &ffi::ErrorOut,
        out: &mut ArrowArray,
        lent: &Lent<'_, 'a>,
    ) -> Result<Column<'a>> {
        self.bad.sort_unstable();
        let mut outcome = match self.error.take() {
            Some(error) => Err(error),
            None if status >= 0 => Ok(Column::nulls(0)),
            None => Err(match (status, self.refused.take()) {
                (ffi::E_MEMORY, Some(refused)) => refused,
                _ => self.bind.failed_as(code_of(status), &said(status, error)),
            }),
        };
        if outcome.is_ok() && self.panic.is_none() {
            // SAFETY: the caller's promise.
            outcome = unsafe { self.take(out, lent) };
        }
        // SAFETY: the caller's promise.
        unsafe { release(out) }
        outcome
    }

    unsafe fn take(&self, out: &ArrowArray, lent: &Lent<'_, 'a>) -> Result<Column<'a>> {
        let importer = Importer {
            arena: self.arena,
            lent: Some(lent),
            arena_release: Some(host::host().arena_release),
            all_lasting: false,
        };
        let output = &self.bind.output;
        // With a null argument or behind a rejected row anything may stand.
        let nullable = Field::new(output.name.clone(), output.ty.clone(), true);
        let field = std::slice::from_ref(&nullable);
        // SAFETY: the caller's promise; what is marked as ours is the chunk's memory, which `'a` borrows.
        let columns = unsafe { importer.columns(out, field) }.map_err(|e| self.bind.named(e))?;
        match columns {
            [column] if column.len() == self.rows => {
                let strict = !output.nullable && self.bind.bound.vtable.stage.flags & ffi::F_NULL_PROPAGATING == 0;
                if strict && (0..self.rows).any(|row| !column.is_valid(row) && self.bad.binary_search(&row).is_err()) {
                    return Err(self.bind.failed("it says that it gives no null, and gives one"));
                }
                Ok(*column)
            }
            _ => Err(self
                .bind
                .failed(&format!("it gives {} rows for {}", out.length, self.rows))),
        }
    }
}
