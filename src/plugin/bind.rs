//! `bind` of a plugin's stage: its answer, checked, as what the planner takes.
//!
//! Laws
//! - `unbind` follows every `bind` that gave something, once, after the last instance.
#![allow(unsafe_code)]

use super::host;
use super::run::Instance;
use super::{WRONG_ABI, said};
use standpipe_sdk::ffi::{self, PLUGIN_FAILED, schema};
use standpipe_sdk::spec::{Bound, Call, Complaint, Lineage, Make, Setup};
use standpipe_sdk::{Code, Error, Field, Result, RowWise, Schema, Serial, Span, Type};
use std::ffi::c_void;
use std::sync::Arc;

/// A stage whose functions are there.
#[derive(Clone, Copy)]
pub(super) struct Vtable {
    pub(super) stage: &'static ffi::Stage,
    pub(super) name: &'static str,
    pub(super) bind: unsafe extern "C" fn(
        *const ffi::Stage,
        *const ffi::Host,
        *const ffi::BindIn,
        *mut ffi::BindOut,
        *mut ffi::ErrorOut,
    ) -> ffi::Status,
    pub(super) create:
        unsafe extern "C" fn(*mut c_void, *const ffi::Call, u32, *mut *mut c_void, *mut ffi::ErrorOut) -> ffi::Status,
    pub(super) process: ffi::Process,
    pub(super) destroy: unsafe extern "C" fn(*mut c_void),
}

/// A bound stage: what its instances share.
pub(super) struct Plan {
    pub(super) vtable: Vtable,
    pub(super) bound: *mut c_void,
    pub(super) span: Span,
    /// The input columns that the stage gets, and their types.
    pub(super) used: Vec<usize>,
    pub(super) types: Vec<Type>,
    pub(super) names: Vec<Arc<str>>,
    /// All columns of the output, and which of them are input columns.
    pub(super) output: Schema,
    pub(super) from: Vec<Option<usize>>,
    /// The columns that `process` gives.
    pub(super) made: Vec<Field>,
    pub(super) serial: bool,
    pub(super) rejects: bool,
}

// SAFETY: `bound` is the plugin's own; the header says that it is shared by instances on any threads.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

impl Drop for Plan {
    fn drop(&mut self) {
        if let Some(unbind) = self.vtable.stage.unbind {
            // SAFETY: `bound` came from `bind`; instances hold the plan, so the last of them is destroyed.
            unsafe { unbind(self.bound) }
        }
    }
}

impl Plan {
    /// An error with the stage's name and place.
    pub(super) fn failed(&self, what: &str) -> Error {
        Error::Failed {
            code: PLUGIN_FAILED,
            message: format!("`{}`: {what}", self.vtable.name),
            help: None,
            span: Some(self.span),
        }
    }

    /// A failure of the stage's, with its name and place; other errors as they are.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Failed { message, .. } => self.failed(&message),
            other => other,
        }
    }
}

pub(super) fn bind(vtable: Vtable, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let complain = |code: Code, what: &str| {
        let message = format!("`{}`: {what}", vtable.name);
        vec![Complaint::new(code, call.span, message, "this stage of a plugin")]
    };
    let wrong = |what: &str| complain(PLUGIN_FAILED, what);
    let input = schema::Exported::new(call.input).map_err(|e| wrong(&message_of(e)))?;
    let inputs = [input.as_ptr()];
    let given = ffi::BindIn {
        struct_size: size_of::<ffi::BindIn>() as u32,
        n_inputs: 1,
        inputs: inputs.as_ptr(),
        config_json: ffi::Str::new("{}"),
        max_workers: 0,
        flags: 0,
    };
    let (mut out, mut error) = (ffi::BindOut::EMPTY, ffi::ErrorOut::EMPTY);
    // SAFETY: the function keeps to the header (the promise to `spec_of`); all arguments are valid for the call.
    let status = unsafe {
        (vtable.bind)(
            vtable.stage,
            host::host(),
            &raw const given,
            &raw mut out,
            &raw mut error,
        )
    };
    if status < 0 {
        return Err(wrong(&said(status, &error)));
    }
    // From here on the plan's drop unbinds.
    let mut plan = Plan {
        vtable,
        bound: out.bound,
        span: call.span,
        used: vec![],
        types: vec![],
        names: vec![],
        output: Schema::default(),
        from: vec![],
        made: vec![],
        serial: out.parallelism != ffi::PAR_STATELESS,
        rejects: out.flags & ffi::F_REJECTS != 0,
    };
    // SAFETY: `bind` filled it, as Arrow's C Data Interface says, or left it released.
    let output = unsafe { schema::import(&out.schema) };
    if let Some(release) = out.schema.release {
        // SAFETY: it is not released yet, and nobody else has it.
        unsafe { release(&raw mut out.schema) }
    }
    plan.output = output.map_err(|e| wrong(&message_of(e)))?;
    understood(&out).map_err(|what| complain(WRONG_ABI, &what))?;
    // SAFETY: as the header says: arrays of these lengths that live as long as `bound`.
    unsafe { plan.columns(&out, call) }.map_err(|what| wrong(&what))?;
    Ok(bound(plan))
}

/// Whether this version can run it.
fn understood(out: &ffi::BindOut) -> Result<(), String> {
    let later = [
        (ffi::F_RETAINS_INPUT, "to keep its input"),
        (ffi::F_THREAD_AFFINE, "to stay on one thread"),
        (ffi::F_ROW_OF, "to give other rows than it gets"),
    ];
    if let Some((_, what)) = later.iter().find(|(flag, _)| out.flags & flag != 0) {
        return Err(format!("it wants {what}, which this version does not offer"));
    }
    if out.flags & ffi::F_MUST_UNDERSTAND != 0 {
        return Err(format!(
            "it needs a newer Standpipe (flags {:#x})",
            out.flags & ffi::F_MUST_UNDERSTAND
        ));
    }
    if out.flags & ffi::F_ROW_ALIGNED == 0 {
        return Err("it is not row-aligned, which this version needs".into());
    }
    match out.parallelism {
        ffi::PAR_SERIAL | ffi::PAR_STATELESS | ffi::PAR_KEYED => Ok(()),
        other => Err(format!("its parallelism {other} is none of a transform's")),
    }
}

impl Plan {
    /// Which columns it reads, and which it passes on.
    unsafe fn columns(&mut self, out: &ffi::BindOut, call: &Call<'_>) -> Result<(), String> {
        let width = call.input.width();
        let input = |column: i32| usize::try_from(column).ok().filter(|&at| at < width);
        self.used = if out.used_columns.is_null() {
            (0..width).collect()
        } else {
            // SAFETY: the caller's promise.
            let used = unsafe { std::slice::from_raw_parts(out.used_columns, out.n_used_columns as usize) };
            let used = used
                .iter()
                .map(|&c| input(c).ok_or(format!("it uses column {c}, and there are {width}")));
            used.collect::<Result<_, _>>()?
        };
        self.names = self
            .used
            .iter()
            .map(|&at| call.input.fields()[at].name.clone())
            .collect();
        self.types = self.used.iter().map(|&at| call.input.fields()[at].ty.clone()).collect();
        self.from = vec![None; self.output.width()];
        if out.from_columns.is_null() {
            self.made = self.output.fields().to_vec();
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let from = unsafe { std::slice::from_raw_parts(out.from_columns, self.output.width()) };
        for ((slot, field), &column) in self.from.iter_mut().zip(self.output.fields()).zip(from) {
            if column == -1 {
                self.made.push(field.clone());
                continue;
            }
            let at = input(column).ok_or(format!("it passes column {column} on, and there are {width}"))?;
            let source = &call.input.fields()[at];
            if source.ty != field.ty || (source.nullable && !field.nullable) {
                return Err(format!(
                    "column `{}` is to be `{source}` unchanged, and is declared as `{field}`",
                    field.name
                ));
            }
            *slot = Some(at);
        }
        Ok(())
    }
}

fn bound(plan: Plan) -> Bound {
    let (schema, reads, serial, rejects) = (plan.output.clone(), plan.used.clone(), plan.serial, plan.rejects);
    let lineage = plan
        .from
        .iter()
        .map(|from| from.map_or(Lineage::New, Lineage::From))
        .collect();
    let plan = Arc::new(plan);
    let make = if serial {
        Make::Serial(Box::new(move |setup: &Setup| -> Result<Box<dyn Serial>> {
            Ok(Box::new(Instance::new(plan.clone(), setup)?))
        }))
    } else {
        Make::RowWise(Box::new(move |setup: &Setup| -> Result<Box<dyn RowWise>> {
            Ok(Box::new(Instance::new(plan.clone(), setup)?))
        }))
    };
    Bound {
        schema,
        lineage,
        reads,
        sorted_by: vec![],
        make,
        needs_places: rejects,
    }
}

/// The words of an error without its code.
fn message_of(error: Error) -> String {
    match error {
        Error::Failed { message, .. } => message,
        other => other.to_string(),
    }
}
