//! An [`Origin`](crate::origin::Origin) behind the vtable.
//!
//! Laws
//! - A split advances once the host has the rows, and not before: a refused `emit` can be repeated on less.
#![allow(unsafe_code)]

use super::arguments::Arguments;
use super::transform::complain;
use super::{Failed, Own, Spec, guard, into_raw};
use crate::arena::Arena;
use crate::batch::Batch;
use crate::column::Columns;
use crate::ffi::{self, ArrowArray, BindIn, BindOut, ErrorOut, Host, Status, lend, schema};
use crate::origin::{Next, OriginSpec, Split, Splits};
use crate::types::{Schema, Type};
use std::ffi::c_void;
use std::sync::Arc;

/// # Safety
/// `stage` is NULL or the first field of a [`super::Guest`].
unsafe fn spec_of(stage: *const ffi::Stage) -> Result<&'static OriginSpec, Failed> {
    // SAFETY: the caller's promise.
    match unsafe { super::spec_of(stage) } {
        Some(Spec::Source(spec)) => Ok(spec),
        _ => Err(Failed::new(ffi::E_INTERNAL, "no source")),
    }
}

pub(super) unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    given: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call.
    unsafe {
        guard(error, || {
            let spec = spec_of(stage)?;
            let nothing = || Failed::new(ffi::E_SCHEMA, "a source has no input");
            let given = given.as_ref().filter(|given| given.n_inputs == 0).ok_or_else(nothing)?;
            let splits = splits(spec, given)?;
            let out = out.as_mut().ok_or_else(nothing)?;
            out.schema = schema::Exported::new(&splits.schema)?.take();
            out.memory = spec.stage.memory as u32;
            out.parallelism = ffi::PAR_SPLITS;
            out.n_splits = splits.count.max(1);
            out.flags = ffi::F_PRESERVES_ORDER | ffi::F_DETERMINISTIC;
            if spec.snapshots {
                out.flags |= ffi::F_SNAPSHOT;
            }
            out.bound = Arc::into_raw(Arc::new(splits)).cast_mut().cast();
            Ok(ffi::OK)
        })
    }
}

fn splits(spec: &OriginSpec, given: &BindIn) -> Result<Splits, Failed> {
    // SAFETY: a text of the host's, valid for the call.
    let config = unsafe { given.config_json.bytes() };
    let arguments = Arguments::read(config, &spec.stage).map_err(|what| Failed::new(ffi::E_CONFIG, what))?;
    let input = Schema::default();
    let call = arguments.call(&input, 0);
    (spec.bind)(&call).map_err(|complaints| complain(complaints, &arguments))
}

pub(super) struct Instance {
    splits: Arc<Splits>,
    split: Box<dyn Split>,
    own: Own,
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    call: *const ffi::Call,
    split: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, an `Arc` that `unbind` has not taken back.
    unsafe {
        guard(error, || {
            Arc::increment_strong_count(bound.cast::<Splits>());
            let splits = Arc::from_raw(bound.cast::<Splits>());
            let mut own = Own::new();
            let setup = own.setup(call);
            let split = own.counted(call, || Ok((splits.open)(&setup, split)?))?;
            *inst = into_raw(Instance { splits, split, own });
            Ok(ffi::OK)
        })
    }
}

pub(super) unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    _: *mut ArrowArray,
    _: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        let mut retry = 0;
        let status = guard(error, || {
            let Instance { splits, split, own } = &mut *inst.cast::<Instance>();
            own.counted(call, || run(splits, &mut **split, call, &mut retry))
        });
        if let Some(error) = error.as_mut().filter(|_| status == ffi::PENDING) {
            error.retry_ms = retry;
        }
        status
    }
}

/// # Safety
/// `call` is the host's call that lasts.
unsafe fn run(
    splits: &Splits,
    split: &mut dyn Split,
    call: *const ffi::Call,
    retry: &mut u32,
) -> Result<Status, Failed> {
    // SAFETY: it is dropped at the end of this function, on this thread.
    let arena = unsafe { Arena::lent(call) };
    // SAFETY: the caller's promise.
    let most = usize::try_from(unsafe { (*call).max_rows })
        .unwrap_or(usize::MAX)
        .max(1);
    match split.next(&arena, most)? {
        Next::End => Ok(ffi::EOS),
        Next::Pending(wait) => {
            *retry = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            Ok(ffi::PENDING)
        }
        Next::Rows(batch) => {
            let rows = batch.rows();
            if rows > most {
                return Err(Failed::new(
                    ffi::E_DATA,
                    format!("it gives {rows} rows where {most} are the most"),
                ));
            }
            // SAFETY: the caller's promise.
            unsafe { emit(splits, batch, call, &arena)? };
            split.advance(rows);
            Ok(ffi::MORE)
        }
    }
}

/// # Safety
/// `call` is the host's call that lasts; `arena` is its memory.
unsafe fn emit<'a>(splits: &Splits, batch: Batch<'a>, call: *const ffi::Call, arena: &'a Arena) -> Result<(), Failed> {
    // SAFETY: the caller's promise.
    let host = unsafe { &*(*call).host };
    // What does not live as long as the call's memory is copied by the host before this returns.
    let release = if arena.holds() {
        lend::release_marked
    } else {
        host.arena_release
    };
    let fields = splits.schema.fields();
    if batch.columns().len() != fields.len() {
        let message = format!(
            "it gives {} columns and declared {}",
            batch.columns().len(),
            fields.len()
        );
        return Err(Failed::new(ffi::E_SCHEMA, message));
    }
    let mut columns = Columns::new(arena, fields.len())?;
    for column in batch.columns() {
        columns.push(column.settled(arena)?);
    }
    let types: Vec<&Type> = fields.iter().map(|field| &field.ty).collect();
    let mut array = lend::give(columns.finish(), &types, batch.rows(), arena, release)?;
    // SAFETY: the call lasts, and the array is one that is given away.
    match unsafe { (host.emit)(call, &raw mut array) } {
        0.. => Ok(()),
        failed => Err(Failed::new(failed, "")),
    }
}

pub(super) unsafe extern "C" fn snapshot(
    inst: *mut c_void,
    call: *const ffi::Call,
    write: ffi::Write,
    to: *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`; `write` is the host's, and takes `to`.
    unsafe {
        guard(error, || {
            let Instance { split, own, .. } = &mut *inst.cast::<Instance>();
            let state = own.counted(call, || Ok(split.save()))?;
            Ok(write(to, state.as_ptr().cast(), state.len()))
        })
    }
}

pub(super) unsafe extern "C" fn restore(
    inst: *mut c_void,
    call: *const ffi::Call,
    _: u32,
    state: *const c_void,
    len: usize,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`; so many bytes are there for the call.
    unsafe {
        guard(error, || {
            let Instance { split, own, .. } = &mut *inst.cast::<Instance>();
            let state = ffi::Str { ptr: state.cast(), len }.bytes();
            own.counted(call, || Ok(split.restore(state)?))?;
            Ok(ffi::OK)
        })
    }
}
