//! A [`StageSpec`] of a sink behind the vtable.
//!
//! Laws
//! - There is one writer, which the host calls in the order of the rows: what it encodes is written at once.
//! - An instance that goes before its outputs were published discards them.
#![allow(unsafe_code)]

use super::arguments::Arguments;
use super::function::reject;
use super::transform::{batch, complain, one_input, one_is_needed, spec_of};
use super::{Failed, Own, guard, into_raw, write};
use crate::arena::Arena;
use crate::error::Error;
use crate::fault::Faults;
use crate::ffi::{self, ArrowArray, BindIn, BindOut, ErrorOut, Host, Status};
use crate::spec::{Factory, Lineage, Make, Say, StageSpec};
use crate::stage::{Published, Sink, Writer};
use crate::types::{Field, Schema};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

/// What `bind` gives.
pub(super) struct Plan {
    make: Factory<Arc<dyn Sink>>,
    /// All columns of the input, those that the sink gets, and their fields.
    width: usize,
    used: Vec<i32>,
    fields: Vec<Field>,
}

pub(super) unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    given: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, the inputs are Arrow schemas.
    unsafe {
        guard(error, || {
            let spec = spec_of(stage)?;
            let (given, input) = one_input(given)?;
            let (plan, rejects) = plan(spec, &input, given)?;
            let out = out.as_mut().ok_or_else(one_is_needed)?;
            out.memory = spec.memory as u32;
            out.parallelism = ffi::PAR_SERIAL;
            out.flags = ffi::F_NEEDS_ORDER | ffi::F_DETERMINISTIC | if rejects { ffi::F_REJECTS } else { 0 };
            out.used_columns = plan.used.as_ptr();
            out.n_used_columns = plan.used.len() as u32;
            // The list is the plan's and stays where it is.
            out.bound = Arc::into_raw(Arc::new(plan)).cast_mut().cast();
            Ok(ffi::OK)
        })
    }
}

/// With it comes whether the sink sets rows aside.
fn plan(spec: &StageSpec, input: &Schema, given: &BindIn) -> Result<(Plan, bool), Failed> {
    // SAFETY: a text of the host's, valid for the call.
    let config = unsafe { given.config_json.bytes() };
    let arguments = Arguments::read(config, spec).map_err(|what| Failed::new(ffi::E_CONFIG, what))?;
    let call = arguments.call(input, (given.n_own as usize).min(input.width()));
    let bound = (spec.bind)(&call).map_err(|complaints| complain(complaints, &arguments))?;
    let Make::Sink(make) = bound.make else {
        return Err(Failed::new(ffi::E_UNSUPPORTED, "it is exported as a sink, and is none"));
    };
    let mut reads = bound.reads;
    // What it passes on, it writes.
    reads.extend(bound.lineage.iter().filter_map(|lineage| match lineage {
        Lineage::From(at) => Some(*at),
        _ => None,
    }));
    reads.sort_unstable();
    reads.dedup();
    let plan = Plan {
        make,
        width: input.width(),
        used: reads.iter().map(|&at| at as i32).collect(),
        fields: reads.iter().filter_map(|&at| input.get(at)).cloned().collect(),
    };
    Ok((plan, bound.needs_places))
}

pub(super) struct Instance {
    plan: Arc<Plan>,
    /// Before the sink, which it may hold.
    writer: Box<dyn Writer>,
    sink: Arc<dyn Sink>,
    own: Own,
    say: Say,
    /// What was published and the host has not asked for yet, the last one first.
    published: Option<Vec<Published>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.published.is_none() {
            self.sink.discard();
        }
    }
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    call: *const ffi::Call,
    _: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, an `Arc` that `unbind` has not taken back.
    unsafe {
        guard(error, || {
            Arc::increment_strong_count(bound.cast::<Plan>());
            let plan = Arc::from_raw(bound.cast::<Plan>());
            let mut own = Own::new();
            let setup = own.setup(call);
            let say = setup.say.clone();
            let (sink, writer) = own.counted(call, || {
                let sink = (plan.make)(&setup)?;
                match sink.clone().writer() {
                    Ok(writer) => Ok((sink, writer)),
                    Err(error) => {
                        sink.discard();
                        Err(error.into())
                    }
                }
            })?;
            *inst = into_raw(Instance {
                plan,
                writer,
                sink,
                own,
                say,
                published: None,
            });
            Ok(ffi::OK)
        })
    }
}

pub(super) unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    input: *mut ArrowArray,
    _: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, nobody else uses `inst`, and the input is lent for the
    // call, which the arena does not outlast.
    unsafe {
        guard(error, || {
            let Instance { plan, writer, own, .. } = &mut *inst.cast::<Instance>();
            own.counted(call, || take(plan, &mut **writer, call, &*input))
        })
    }
}

/// # Safety
/// `call` is the host's call that lasts, and `input` is what it lends.
unsafe fn take(
    plan: &Plan,
    writer: &mut dyn Writer,
    call: *const ffi::Call,
    input: &ArrowArray,
) -> Result<Status, Failed> {
    // SAFETY: it is dropped at the end of this function, on this thread.
    let arena = unsafe { Arena::lent(call) };
    // SAFETY: the caller's promise.
    let batch = unsafe { batch(&plan.used, &plan.fields, plan.width, input, &arena)? };
    let faults = Faults::new(&arena, false);
    if let Err(error) = writer.encode(batch, &faults) {
        writer.forget();
        return Err(error.into());
    }
    writer.write().map_err(|error| match error {
        // It has the rows: they must not come again.
        Error::Memory { .. } => Failed::new(ffi::E_INTERNAL, "it has no memory to write its rows"),
        other => other.into(),
    })?;
    // SAFETY: the caller's promise.
    match unsafe { reject(call, &faults) } {
        Ok(true) => Ok(ffi::OK),
        Ok(false) => Ok(ffi::EOS),
        // It has the rows: they must not come again.
        Err(failed) if failed.status == ffi::E_MEMORY => Err(Failed::new(
            ffi::E_INTERNAL,
            "there is no memory for the rows it sets aside",
        )),
        Err(failed) => Err(failed),
    }
}

pub(super) unsafe extern "C" fn finish(
    inst: *mut c_void,
    call: *const ffi::Call,
    _: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`.
    unsafe {
        guard(error, || {
            let Instance { sink, own, .. } = &mut *inst.cast::<Instance>();
            own.counted(call, || Ok(sink.finish()?))?;
            Ok(ffi::OK)
        })
    }
}

static PUBLISHES: ffi::Sink = ffi::Sink {
    struct_size: size_of::<ffi::Sink>() as u32,
    flags: 0,
    publish: Some(publish),
};

pub(super) unsafe extern "C" fn extension(_: *const ffi::Stage, id: *const c_char) -> *const c_void {
    // SAFETY: the header's contract: a text that ends with a NUL.
    match !id.is_null() && unsafe { CStr::from_ptr(id) } == ffi::SINK_EXTENSION {
        true => (&raw const PUBLISHES).cast(),
        false => std::ptr::null(),
    }
}

unsafe extern "C" fn publish(
    inst: *mut c_void,
    call: *const ffi::Call,
    out: *mut ffi::Published,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`; `out` is what the host made, as long as ours at least: it was there from the first version on.
    unsafe {
        guard(error, || {
            let instance = &mut *inst.cast::<Instance>();
            let Instance {
                sink,
                own,
                say,
                published,
                ..
            } = instance;
            if published.is_none() {
                let mut all = own.counted(call, || Ok(sink.publish()?))?;
                all.reverse();
                *published = Some(all);
                for note in sink.notes() {
                    say(&format!("{note}\n"));
                }
            }
            let left = published.get_or_insert_default();
            let out = &mut *out;
            if let Some(Published { path, rows, bytes }) = left.pop() {
                (out.rows, out.bytes) = (rows, bytes);
                write(&mut out.name, &path);
            }
            Ok(if left.is_empty() { ffi::OK } else { ffi::MORE })
        })
    }
}
