//! The functions of an aggregate's table in its process.
//!
//! Laws
//! - `clear` cannot fail: what goes wrong in it is told by whatever is asked of the instance next.
#![allow(unsafe_code)]

use super::super::wire::{Broken, Writer, ask};
use super::super::{Table, table_has};
use super::bound::Bound;
use super::instance::{Asked, Instance};
use super::serving::Serving;
use super::{Failed, entry};
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{self, ArrowArray, ArrowSchema, ErrorOut, Status, schema};
use std::ffi::c_void;

/// The table that stands for the plugin's, as long as that is.
pub(super) fn table(described: &Table) -> ffi::Aggregate {
    let has = |bit: u32| described.has & bit != 0;
    ffi::Aggregate {
        struct_size: described.struct_size,
        flags: described.flags,
        state_size: usize::try_from(described.state_size).unwrap_or(usize::MAX),
        state_schema: has(table_has::STATE_SCHEMA).then_some(state_schema as _),
        room: has(table_has::ROOM).then_some(room as _),
        room_to_merge: has(table_has::ROOM_TO_MERGE).then_some(room_to_merge as _),
        update: has(table_has::UPDATE).then_some(update as _),
        merge: has(table_has::MERGE).then_some(merge as _),
        state: has(table_has::STATE).then_some(state as _),
        finalize: has(table_has::FINALIZE).then_some(finalize as _),
        clear: has(table_has::CLEAR).then_some(clear as _),
    }
}

unsafe extern "C" fn state_schema(bound: *mut c_void, out: *mut ArrowSchema, error: *mut ErrorOut) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, and the others are valid for the call.
    unsafe {
        entry(error, || {
            let states = match &(*bound.cast::<Bound>()).states {
                Ok(states) => schema::Exported::new(states).map_err(|e| Failed::new(ffi::E_SCHEMA, &e.to_string()))?,
                Err(message) => return Err(Failed::new(ffi::E_SCHEMA, message)),
            };
            *out = states.take();
            Ok(ffi::OK)
        })
    }
}

/// Which columns an array of a call has.
#[derive(Clone, Copy)]
enum Part {
    Arguments,
    States,
    Values,
}

impl Part {
    fn types(self, bound: &Bound) -> &[Type] {
        match self {
            Part::Arguments => &bound.input,
            Part::States => &bound.state,
            Part::Values => &bound.output,
        }
    }
}

/// A call that makes room.
///
/// # Safety
/// The header's contract for `room`.
unsafe fn make_room(
    of: (u8, &'static str, Part),
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: u32,
    rows: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let (kind, what, part) = of;
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        entry(error, || {
            let (instance, call) = (&mut *inst.cast::<Instance>(), &*call);
            let bound = instance.bound.clone();
            let mut head = Writer::default();
            head.u32(groups);
            let asked = Asked {
                head,
                input: Some((&*rows, part.types(&bound))),
                ..Asked::bare(kind, what)
            };
            run(instance, call, asked, &mut *error)
        })
    }
}

/// A call without output.
fn run(instance: &mut Instance, call: &ffi::Call, asked: Asked<'_>, error: &mut ErrorOut) -> Result<Status, Failed> {
    instance.within(call, |instance, worker| {
        let mut serving = Serving::new(call, &[]).of(&instance.bound);
        let answered = instance.ask(worker, call, &mut serving, asked, |rest, _| match rest.flag()? {
            true => Err(Broken),
            false => Ok(()),
        })?;
        *error = answered.error;
        Ok(answered.status)
    })
}

unsafe extern "C" fn room(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: u32,
    rows: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: passed on.
    unsafe { make_room((ask::ROOM, "room", Part::Arguments), inst, call, groups, rows, error) }
}

unsafe extern "C" fn room_to_merge(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: u32,
    rows: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let of = (ask::ROOM_TO_MERGE, "room_to_merge", Part::States);
    // SAFETY: passed on.
    unsafe { make_room(of, inst, call, groups, rows, error) }
}

/// A call that takes rows to their groups.
///
/// # Safety
/// The header's contract for `update`.
unsafe fn gather(
    of: (u8, &'static str, Part),
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: *const u32,
    rows: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let (kind, what, part) = of;
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`; there is a group per row.
    unsafe {
        entry(error, || {
            let (instance, call, rows) = (&mut *inst.cast::<Instance>(), &*call, &*rows);
            let bound = instance.bound.clone();
            let asked = Asked {
                groups: Some(listed(groups, rows.length as usize)),
                input: Some((rows, part.types(&bound))),
                ..Asked::bare(kind, what)
            };
            run(instance, call, asked, &mut *error)
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

unsafe extern "C" fn update(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: *const u32,
    rows: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: passed on.
    unsafe {
        gather(
            (ask::UPDATE, "update", Part::Arguments),
            inst,
            call,
            groups,
            rows,
            error,
        )
    }
}

unsafe extern "C" fn merge(
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: *const u32,
    rows: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: passed on.
    unsafe { gather((ask::MERGE, "merge", Part::States), inst, call, groups, rows, error) }
}

/// A call that gives an array of what groups have.
///
/// # Safety
/// The header's contract for `state`.
unsafe fn give(
    of: (u8, &'static str, Part),
    inst: *mut c_void,
    call: *const ffi::Call,
    groups: &[u32],
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let (kind, what, part) = of;
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        entry(error, || {
            let (instance, call) = (&mut *inst.cast::<Instance>(), &*call);
            let bound = instance.bound.clone();
            let asked = Asked {
                groups: Some(groups),
                ..Asked::bare(kind, what)
            };
            instance.rows(call, asked, part.types(&bound), &mut *out, &mut *error)
        })
    }
}

unsafe extern "C" fn state(
    inst: *mut c_void,
    call: *const ffi::Call,
    len: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: passed on; so many groups are there for the call.
    unsafe {
        let of = (ask::STATE, "state", Part::States);
        give(of, inst, call, listed(groups, len as usize), out, error)
    }
}

unsafe extern "C" fn finalize(
    inst: *mut c_void,
    call: *const ffi::Call,
    len: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: passed on; so many groups are there for the call.
    unsafe {
        let of = (ask::FINALIZE, "finalize", Part::Values);
        give(of, inst, call, listed(groups, len as usize), out, error)
    }
}

unsafe extern "C" fn clear(inst: *mut c_void) {
    // SAFETY: the header's contract: nobody else uses `inst`.
    unsafe {
        entry(std::ptr::null_mut(), || {
            let instance = &mut *inst.cast::<Instance>();
            let call = instance.call();
            let asked = Asked::bare(ask::CLEAR, "clear");
            let mut left = ErrorOut::EMPTY;
            run(instance, &call, asked, &mut left)
        });
    }
}
