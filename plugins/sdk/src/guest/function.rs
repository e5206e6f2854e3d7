//! A [`ScalarSpec`] behind the vtable.
#![allow(unsafe_code)]

use super::{Failed, Spec, guard};
use crate::arena::Arena;
use crate::error::Result;
use crate::fault::Faults;
use crate::ffi::import::Importer;
use crate::ffi::{self, ArrowArray, BindIn, BindOut, ErrorOut, Host, Status, lend, schema};
use crate::scalar::{Nulls, Rows, ScalarSpec};
use crate::types::{Field, Schema, Type};
use std::ffi::c_void;

/// The function that a table entry is of.
///
/// # Safety
/// `stage` is NULL or the first field of a [`super::Guest`].
unsafe fn spec_of(stage: *const ffi::Stage) -> Result<&'static ScalarSpec, Failed> {
    // SAFETY: the caller's promise.
    match unsafe { super::spec_of(stage) } {
        Some(Spec::Function(spec)) => Ok(spec),
        _ => Err(Failed::new(ffi::E_INTERNAL, "no function")),
    }
}

pub(super) unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    _: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call.
    unsafe {
        guard(error, || {
            let spec = spec_of(stage)?;
            let nullable = spec.nullable || spec.nulls == Nulls::Own;
            let output: Schema = [Field::new("", spec.returns.ty(), nullable)].into_iter().collect();
            let out = out.as_mut().ok_or_else(|| Failed::new(ffi::E_INTERNAL, "no output"))?;
            out.schema = schema::Exported::new(&output)?.take();
            // The spec is all that is bound.
            out.bound = stage.cast_mut().cast();
            out.parallelism = ffi::PAR_STATELESS;
            out.flags = ffi::F_ROW_ALIGNED | ffi::F_PRESERVES_ORDER | ffi::F_DETERMINISTIC;
            Ok(ffi::OK)
        })
    }
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    _: *const ffi::Call,
    _: u32,
    inst: *mut *mut c_void,
    _: *mut ErrorOut,
) -> Status {
    // A function has no state: its instance is what is bound.
    // SAFETY: the header's contract.
    unsafe { *inst = bound };
    ffi::OK
}

pub(super) unsafe extern "C" fn destroy(_: *mut c_void) {}

pub(super) unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    input: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call; `inst` is what `create` gave, a table entry; the input
    // is lent for the call, which the arena does not outlast.
    unsafe {
        guard(error, || {
            let spec = spec_of(inst.cast::<ffi::Stage>())?;
            let arena = Arena::lent(call);
            let fields: Vec<Field> = spec
                .params
                .iter()
                .map(|p| Field::new(p.name, p.ty.ty(), true))
                .collect();
            let importer = Importer {
                arena: &arena,
                lent: None,
                arena_release: None,
                all_lasting: true,
            };
            let columns = importer.columns(&*input, &fields)?;
            let faults = Faults::new(&arena, false);
            let rows = Rows {
                columns,
                len: (*input).length as usize,
                arena: &arena,
                faults: &faults,
            };
            let column = (spec.eval)(&rows)?;
            if !reject(call, &faults)? {
                return Ok(ffi::EOS);
            }
            let ty: Type = spec.returns.ty();
            *out = lend::give(&[column], &[&ty], rows.len, &arena, (*(*call).host).arena_release)?;
            Ok(ffi::OK)
        })
    }
}

/// Tells the host which rows are bad; `false` = it wants no more.
///
/// # Safety
/// `call` is the host's call that lasts.
pub(super) unsafe fn reject(call: *const ffi::Call, faults: &Faults<'_>) -> Result<bool, Failed> {
    for fault in faults.by_row()? {
        // SAFETY: the caller's promise; the text lives for the call.
        let status = unsafe {
            let none = ffi::Str::new("");
            ((*(*call).host).reject)(call, fault.row.into(), -1, none, ffi::Str::new(fault.message))
        };
        match status {
            ffi::EOS => return Ok(false),
            0.. => {}
            failed => return Err(Failed::new(failed, "")),
        }
    }
    faults.clear();
    Ok(true)
}
