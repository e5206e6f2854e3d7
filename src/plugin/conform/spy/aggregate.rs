//! The functions of an aggregate, with somebody listening.
#![allow(unsafe_code)]

use super::super::super::aggregate::Table;
use super::{state, watching};
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{self, ArrowArray, Call, ErrorOut, Status};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// What is listened to, the columns of its arguments and of its states, and its value.
struct Heard {
    table: Table,
    arguments: Vec<Type>,
    state: Vec<Type>,
    value: Vec<Type>,
}

static HEARD: Mutex<Option<Heard>> = Mutex::new(None);

fn heard<T>(f: impl FnOnce(&Heard) -> T) -> Option<T> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(f)
}

/// An aggregate whose calls are listened to.
pub(in crate::plugin::conform) fn table_on(table: Table) -> Table {
    *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Heard {
        table,
        arguments: vec![],
        state: vec![],
        value: vec![],
    });
    Table {
        room: table.room.map(|_| room as ffi::Room),
        room_to_merge: table.room_to_merge.map(|_| room_to_merge as ffi::Room),
        update,
        merge,
        state: give_states,
        finalize,
        ..table
    }
}

/// What columns its calls get and give.
pub(in crate::plugin::conform) fn columns_of(arguments: &[Type], state: Vec<Type>, value: Type) {
    if let Some(heard) = HEARD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        (heard.arguments, heard.state, heard.value) = (arguments.to_vec(), state, vec![value]);
    }
}

/// Looks at memory before and after a call that gives the columns `made`.
///
/// # Safety
/// `input` is NULL or an array of the columns `given` that the host lends; `out` is NULL or what the call fills.
unsafe fn listening(
    input: *const ArrowArray,
    given: &[Type],
    out: *mut ArrowArray,
    made: Vec<Type>,
    run: impl FnOnce() -> Status,
) -> Status {
    state().get().made = made;
    // SAFETY: the caller's promise.
    unsafe { watching(input, given, out, run) }
}

unsafe extern "C" fn room(
    inst: *mut c_void,
    call: *const Call,
    groups: u32,
    args: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((Some(room), given)) = heard(|heard| (heard.table.room, heard.arguments.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(args, &given, std::ptr::null_mut(), vec![], || {
            room(inst, call, groups, args, error)
        })
    }
}

unsafe extern "C" fn room_to_merge(
    inst: *mut c_void,
    call: *const Call,
    groups: u32,
    states: *const ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((Some(room), given)) = heard(|heard| (heard.table.room_to_merge, heard.state.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(states, &given, std::ptr::null_mut(), vec![], || {
            room(inst, call, groups, states, error)
        })
    }
}

unsafe extern "C" fn update(
    inst: *mut c_void,
    call: *const Call,
    groups: *const u32,
    args: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((update, given)) = heard(|heard| (heard.table.update, heard.arguments.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(args, &given, std::ptr::null_mut(), vec![], || {
            update(inst, call, groups, args, error)
        })
    }
}

unsafe extern "C" fn merge(
    inst: *mut c_void,
    call: *const Call,
    groups: *const u32,
    states: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((merge, given)) = heard(|heard| (heard.table.merge, heard.state.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(states, &given, std::ptr::null_mut(), vec![], || {
            merge(inst, call, groups, states, error)
        })
    }
}

unsafe extern "C" fn give_states(
    inst: *mut c_void,
    call: *const Call,
    n: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((give, made)) = heard(|heard| (heard.table.state, heard.state.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(std::ptr::null(), &[], out, made, || {
            give(inst, call, n, groups, out, error)
        })
    }
}

unsafe extern "C" fn finalize(
    inst: *mut c_void,
    call: *const Call,
    n: u32,
    groups: *const u32,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some((give, made)) = heard(|heard| (heard.table.finalize, heard.value.clone())) else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    unsafe {
        listening(std::ptr::null(), &[], out, made, || {
            give(inst, call, n, groups, out, error)
        })
    }
}
