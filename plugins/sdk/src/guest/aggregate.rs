//! A [`Combine`](crate::combine::Combine) behind the vtable: a state crosses as one column of bytes.
//!
//! Laws
//! - `room` and `room_to_merge` declare what comes next before a byte of it is taken, and are all that is refused. Afterwards an instance
//!   declares what it has. What it then has beyond that, because a state took more than it said, is asked for with the next room.
#![allow(unsafe_code)]

use super::{Failed, Own, Spec, guard, into_raw};
use crate::arena::Arena;
use crate::build::TextBuilder;
use crate::column::{Column, Data};
use crate::combine::{Arguments, CombineSpec, Combined, Groups, Values};
use crate::counting;
use crate::error::Result;
use crate::ffi::import::Importer;
use crate::ffi::{self, ArrowArray, ArrowSchema, BindIn, BindOut, ErrorOut, Host, Status, lend, schema};
use crate::text::Text;
use crate::types::{Field, Schema, Type};
use crate::value::Value;
use crate::values;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

/// # Safety
/// `stage` is NULL or the first field of a [`super::Guest`].
unsafe fn spec_of(stage: *const ffi::Stage) -> Result<&'static CombineSpec, Failed> {
    // SAFETY: the caller's promise.
    match unsafe { super::spec_of(stage) } {
        Some(Spec::Aggregate(spec)) => Ok(spec),
        _ => Err(Failed::new(ffi::E_INTERNAL, "no aggregate")),
    }
}

/// What `bind` gives.
pub(super) struct Plan {
    combined: Combined,
    /// The arguments that are columns.
    fields: Vec<Field>,
}

/// The columns of a state.
fn state() -> Schema {
    [Field::new("state", Type::Bytes, false)].into_iter().collect()
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
            let nothing = || Failed::new(ffi::E_SCHEMA, "the types of the arguments are missing");
            let given = given.as_ref().filter(|given| given.n_inputs == 1).ok_or_else(nothing)?;
            let fields = schema::import_input((*given.inputs).as_ref().ok_or_else(nothing)?)?;
            let values = constants(given.config_json.bytes(), fields.width())?;
            let args = Arguments {
                params: spec.params,
                fields: &fields,
                values: &values,
            };
            let combined = (spec.bind)(&args).map_err(|wrong| Failed {
                param: wrong.param.to_owned(),
                ..Failed::new(ffi::E_CONFIG, wrong.message)
            })?;
            let output = [Field::new("", combined.ty.clone(), combined.nullable)];
            let out = out.as_mut().ok_or_else(nothing)?;
            out.schema = schema::Exported::new(&output.into_iter().collect())?.take();
            out.memory = ffi::MEM_GROUPS;
            out.parallelism = ffi::PAR_STATELESS;
            out.flags = ffi::F_DETERMINISTIC;
            let columns = fields.fields().iter().take(spec.columns()).cloned().collect();
            let plan = Plan {
                combined,
                fields: columns,
            };
            out.bound = Arc::into_raw(Arc::new(plan)).cast_mut().cast();
            Ok(ffi::OK)
        })
    }
}

/// The constants among the arguments, one per argument.
fn constants(config: &[u8], arguments: usize) -> Result<Vec<Option<Value>>, Failed> {
    let wrong = |what| Failed::new(ffi::E_CONFIG, what);
    let items = super::arguments::constants(config).map_err(wrong)?;
    let mut values: Vec<Option<Value>> = items.into_iter().take(arguments).collect();
    values.resize(arguments, None);
    Ok(values)
}

pub(super) struct Instance {
    plan: Arc<Plan>,
    groups: Box<dyn Groups>,
    own: Own,
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    _: *const ffi::Call,
    _: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, an `Arc` that `unbind` has not taken back.
    unsafe {
        guard(error, || {
            Arc::increment_strong_count(bound.cast::<Plan>());
            let plan = Arc::from_raw(bound.cast::<Plan>());
            let groups = (plan.combined.groups)();
            *inst = into_raw(Instance {
                plan,
                groups,
                own: Own::new(),
            });
            Ok(ffi::OK)
        })
    }
}

/// The extensions of an aggregate.
pub(super) unsafe extern "C" fn extension(_: *const ffi::Stage, id: *const c_char) -> *const c_void {
    // SAFETY: the header's contract: a text with a NUL at its end, or NULL.
    let is_this = !id.is_null() && unsafe { CStr::from_ptr(id) } == ffi::AGGREGATE_EXTENSION;
    match is_this {
        true => (&raw const TABLE).cast(),
        false => std::ptr::null(),
    }
}

static TABLE: ffi::Aggregate = ffi::Aggregate {
    struct_size: size_of::<ffi::Aggregate>() as u32,
    flags: 0,
    // All of it is declared.
    state_size: 0,
    state_schema: Some(state_schema),
    room: Some(room),
    room_to_merge: Some(room_to_merge),
    update: Some(update),
    merge: Some(merge),
    state: Some(give_states),
    finalize: Some(finalize),
    clear: Some(clear),
};

unsafe extern "C" fn state_schema(_: *mut c_void, out: *mut ArrowSchema, error: *mut ErrorOut) -> Status {
    // SAFETY: the header's contract: `out` is there for the call.
    unsafe {
        guard(error, || {
            *out = schema::Exported::new(&state())?.take();
            Ok(ffi::OK)
        })
    }
}

/// Declares that the instance has, or is about to have, so many bytes.
///
/// # Safety
/// `call` is the host's call that lasts.
unsafe fn declare(own: &mut Own, call: *const ffi::Call, has: i64) -> bool {
    let delta = has.max(0) - own.declared;
    // SAFETY: the caller's promise.
    if delta != 0 && unsafe { ((*(*call).host).reserve)((*call).owner, delta) } < 0 {
        return false;
    }
    own.declared += delta;
    true
}

/// Runs what takes or gives memory, then declares what the instance has; if that is refused, the next room asks for it.
///
/// # Safety
/// As [`declare`].
unsafe fn counted<T>(instance: &mut Instance, call: *const ffi::Call, run: impl FnOnce(&mut Instance) -> T) -> T {
    let before = counting::taken();
    let outcome = run(instance);
    instance.own.heap += counting::taken().wrapping_sub(before);
    let has = instance.own.heap;
    // SAFETY: the caller's promise.
    unsafe { declare(&mut instance.own, call, has) };
    outcome
}

/// Declares what the instance has and `wanted` bytes more, then makes room for so many groups.
///
/// # Safety
/// As [`declare`].
unsafe fn make_room(
    instance: &mut Instance,
    call: *const ffi::Call,
    groups: u32,
    wanted: usize,
) -> Result<Status, Failed> {
    let full = || Failed::new(ffi::E_MEMORY, "");
    let wanted = i64::try_from(wanted).map_err(|_| full())?;
    let has = instance.own.heap.max(0);
    // SAFETY: the caller's promise.
    if !unsafe { declare(&mut instance.own, call, has.saturating_add(wanted)) } {
        return Err(full());
    }
    let before = counting::taken();
    let room = instance.groups.room(groups as usize);
    instance.own.heap += counting::taken().wrapping_sub(before);
    room.map_err(|_| full())?;
    Ok(ffi::OK)
}

unsafe extern "C" fn room(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: u32,
    args: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        guard(error, || {
            let instance = &mut *inst.cast::<Instance>();
            let rows = usize::try_from((*args).length).unwrap_or(0);
            let wanted = instance.groups.wanted(groups as usize, rows);
            make_room(instance, call, groups, wanted)
        })
    }
}

unsafe extern "C" fn room_to_merge(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: u32,
    states: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `room`; the array is lent for the call, which the arena does not outlast.
    unsafe {
        guard(error, || {
            let instance = &mut *inst.cast::<Instance>();
            let arena = Arena::lent(call);
            let text = states_of(&*states, &arena)?;
            let of = |row: usize| instance.groups.wanted_of(text.bytes(row));
            let more: usize = (0..text.len()).map(of).fold(0, usize::saturating_add);
            let wanted = instance.groups.wanted(groups as usize, 0).saturating_add(more);
            make_room(instance, call, groups, wanted)
        })
    }
}

/// The states of an array as bytes.
///
/// # Safety
/// It is what the host lends for a call that `arena` does not outlast.
unsafe fn states_of<'a>(array: &ArrowArray, arena: &'a Arena) -> Result<Text<'a>, Failed> {
    // SAFETY: the caller's promise.
    let columns = unsafe { importer(arena).columns(array, state().fields())? };
    match columns.first().map(Column::data) {
        Some(Data::Bytes(text)) => Ok(text),
        _ if array.length == 0 => Ok(TextBuilder::new(arena, 0, 0)?.finish()?),
        _ => Err(Failed::new(ffi::E_SCHEMA, "states are bytes")),
    }
}

fn importer<'a>(arena: &'a Arena) -> Importer<'a, 'a> {
    Importer {
        arena,
        lent: None,
        arena_release: None,
        all_lasting: true,
    }
}

unsafe extern "C" fn update(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: *const u32,
    args: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, nobody else uses `inst`; there is a group per row; the
    // array is lent for the call, which the arena does not outlast.
    unsafe {
        guard(error, || {
            let arena = Arena::lent(call);
            counted(&mut *inst.cast::<Instance>(), call, |instance| {
                let columns = importer(&arena).columns(&*args, &instance.plan.fields)?;
                let rows = Values {
                    columns,
                    groups: listed(groups, (*args).length as usize),
                    arena: &arena,
                };
                instance.groups.update(&rows)?;
                Ok(ffi::OK)
            })
        })
    }
}

/// So many numbers; the pointer may be NULL where there are none.
///
/// # Safety
/// They are there for `'a`.
unsafe fn listed<'a>(numbers: *const u32, len: usize) -> &'a [u32] {
    match len {
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(numbers, len) },
    }
}

unsafe extern "C" fn merge(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: *const u32,
    states: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `update`.
    unsafe {
        guard(error, || {
            let arena = Arena::lent(call);
            counted(&mut *inst.cast::<Instance>(), call, |instance| {
                let text = states_of(&*states, &arena)?;
                for (row, &group) in listed(groups, text.len()).iter().enumerate() {
                    let merged = instance.groups.merge(group, text.bytes(row));
                    merged
                        .map_err(|what| Failed::new(ffi::E_DATA, format!("it does not take its own state: {what}")))?;
                }
                Ok(ffi::OK)
            })
        })
    }
}

unsafe extern "C" fn give_states(
    inst: *mut c_void,
    call: *const ffi::Call,
    n: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, nobody else uses `inst`; there are `n` groups.
    unsafe {
        guard(error, || {
            let arena = Arena::lent(call);
            counted(&mut *inst.cast::<Instance>(), call, |instance| {
                let groups = listed(groups, n as usize);
                let (mut text, mut bytes) = (TextBuilder::new(&arena, groups.len(), 0)?, vec![]);
                for &group in groups {
                    bytes.clear();
                    instance.groups.write(group, &mut bytes);
                    text.push_bytes(&bytes)?;
                }
                let column = Column::new(Data::Bytes(text.finish()?), None, groups.len());
                give(column, &Type::Bytes, call, &arena, out)
            })
        })
    }
}

unsafe extern "C" fn finalize(
    inst: *mut c_void,
    call: *const ffi::Call,
    n: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `give_states`.
    unsafe {
        guard(error, || {
            let arena = Arena::lent(call);
            counted(&mut *inst.cast::<Instance>(), call, |instance| {
                let groups = listed(groups, n as usize);
                let mut all = Vec::with_capacity(groups.len());
                for (row, &group) in groups.iter().enumerate() {
                    all.push(match instance.groups.value(group) {
                        Ok(value) => value,
                        Err(what) => {
                            let none = ffi::Str::new("");
                            let status = ((*(*call).host).reject)(call, row as i64, -1, none, ffi::Str::new(&what));
                            if status < 0 {
                                return Err(Failed::new(status, ""));
                            }
                            Value::Null
                        }
                    });
                }
                let all: Vec<&Value> = all.iter().collect();
                let ty = &instance.plan.combined.ty;
                let column = values::column(ty, &all, &arena)?;
                give(column, ty, call, &arena, out)
            })
        })
    }
}

/// # Safety
/// `call` is the host's call that lasts, `arena` its memory, `out` what the host wants filled.
unsafe fn give<'a>(
    column: Column<'a>,
    ty: &Type,
    call: *const ffi::Call,
    arena: &'a Arena,
    out: *mut ArrowArray,
) -> Result<Status, Failed> {
    // SAFETY: the caller's promise.
    unsafe {
        *out = lend::give(&[column], &[ty], column.len(), arena, (*(*call).host).arena_release)?;
    }
    Ok(ffi::OK)
}

unsafe extern "C" fn clear(inst: *mut c_void) {
    // SAFETY: the header's contract: nobody else uses `inst`. Dropping states runs the author's code, which may panic.
    unsafe {
        guard(std::ptr::null_mut(), || {
            let instance = &mut *inst.cast::<Instance>();
            let before = counting::taken();
            instance.groups.clear();
            instance.own.heap += counting::taken().wrapping_sub(before);
            Ok(ffi::OK)
        });
    }
}
