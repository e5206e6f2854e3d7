//! The table of services and the calls, with somebody listening: counts, refuses, and looks at memory before and after.
//!
//! Laws
//! - Everything is passed on to the host's own services: what a plugin sees differs in what is refused only.
//! - Behind each piece of memory stand [`GUARD`] bytes that nobody may change.
#![allow(unsafe_code)]

mod aggregate;

pub(super) use aggregate::{columns_of, table_on};

use super::super::bind::Vtable;
use super::super::host;
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{self, ArrowArray, BindIn, BindOut, Call, ErrorOut, Host, Stage, Status};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

const GUARD: usize = 64;
/// What the guard is filled with, and memory before it is written to.
const MARK: u8 = 0x5C;
/// More than any arena has.
const TOO_MUCH: usize = usize::MAX >> 2;

/// What is to be refused: the n-th time, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Refuse {
    #[default]
    Nothing,
    Alloc(usize),
    Reserve(usize),
}

#[derive(Default)]
struct State {
    original: Option<Vtable>,
    /// Types of the columns that a call gets and gives.
    given: Vec<Type>,
    made: Vec<Type>,
    refuse: Refuse,
    allocs: usize,
    reserves: usize,
    reserved: i64,
    refused: bool,
    fault: Option<String>,
}

// SAFETY: what is in here are functions of a library that is never unloaded, and numbers.
unsafe impl Send for State {}

static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// Memory of this thread's call: where, and how much.
    static PIECES: RefCell<Vec<(usize, usize)>> = const { RefCell::new(vec![]) };
    /// What this thread's last call answered.
    static STATUS: Cell<Status> = const { Cell::new(ffi::OK) };
}

struct Held(MutexGuard<'static, Option<State>>);

impl Held {
    fn get(&mut self) -> &mut State {
        self.0.get_or_insert_with(State::default)
    }
}

fn state() -> Held {
    Held(STATE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A table that is longer than ours, as a later host's is.
#[repr(C)]
struct Longer {
    host: Host,
    more: [usize; 8],
}

const TABLE: Host = Host {
    struct_size: size_of::<Host>() as u32,
    alloc,
    grow,
    emit,
    reserve,
    ..host::HOST
};
static SPY: Longer = Longer {
    host: TABLE,
    more: [0; 8],
};
static LATER: Longer = Longer {
    host: Host {
        struct_size: size_of::<Longer>() as u32,
        abi_minor: ffi::ABI_MINOR + 9,
        ..TABLE
    },
    more: [0; 8],
};

/// Makes the listening table the one that plugins get.
pub(super) fn listen(as_later_host: bool) {
    host::use_table(if as_later_host { &LATER.host } else { &SPY.host });
}

/// A stage whose calls are listened to.
pub(super) fn on(vtable: Vtable) -> Vtable {
    state().get().original = Some(vtable);
    Vtable {
        bind,
        create,
        process: vtable.process.map(|_| process as ffi::Process),
        ..vtable
    }
}

/// What columns a call gets and gives.
pub(super) fn columns(given: &[Type], made: Vec<Type>) {
    let mut state = state();
    let state = state.get();
    (state.given, state.made) = (given.to_vec(), made);
}

/// From now on refuses that, and counts anew.
pub(super) fn refuse(refuse: Refuse) {
    let mut state = state();
    let state = state.get();
    (state.refuse, state.allocs, state.reserves, state.refused) = (refuse, 0, 0, false);
}

/// From now on refuses nothing; what was refused is remembered.
pub(super) fn refuse_no_more() {
    state().get().refuse = Refuse::Nothing;
}

/// Whether what was to be refused was asked for.
pub(super) fn has_refused() -> bool {
    state().get().refused
}

/// Bytes declared with `reserve`, of all instances that are there.
pub(super) fn reserved() -> i64 {
    state().get().reserved
}

/// What this thread's last call answered.
pub(super) fn status() -> Status {
    STATUS.get()
}

/// What was seen to be wrong, once.
pub(super) fn fault() -> Option<String> {
    state().get().fault.take()
}

fn wrong(what: String) {
    let mut state = state();
    let fault = &mut state.get().fault;
    *fault = fault.take().or(Some(what));
}

unsafe extern "C" fn alloc(call: *const Call, size: usize) -> *mut c_void {
    let refuse = {
        let mut state = state();
        let state = state.get();
        let refuse = state.refuse == Refuse::Alloc(state.allocs);
        state.allocs += 1;
        state.refused |= refuse;
        refuse
    };
    let wanted = match size.checked_add(GUARD) {
        Some(wanted) if !refuse => wanted,
        // The host's own way to refuse, which remembers it.
        _ => TOO_MUCH,
    };
    // SAFETY: the plugin's call, passed on.
    let memory = unsafe { (host::HOST.alloc)(call, wanted) };
    if !memory.is_null() {
        // SAFETY: the host has just given so many bytes.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), MARK, wanted) };
        PIECES.with_borrow_mut(|pieces| pieces.push((memory.addr(), size)));
    }
    memory
}

unsafe extern "C" fn grow(call: *const Call, old: *mut c_void, old_size: usize, new_size: usize) -> *mut c_void {
    // SAFETY: the plugin's call, passed on.
    let new = unsafe { alloc(call, new_size) };
    if !new.is_null() && !old.is_null() {
        let is_it = |&(at, size): &(usize, usize)| at == old.addr() && old_size <= size;
        let known = PIECES.with_borrow(|pieces| pieces.iter().any(is_it));
        if !known {
            wrong("it has memory grown that it was not given".into());
            return new;
        }
        // SAFETY: `old` is a piece of this call with at least `old_size` bytes, as was just seen; `new` has `new_size`, and is another.
        unsafe { std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), old_size.min(new_size)) }
    }
    new
}

unsafe extern "C" fn emit(call: *const Call, array: *mut ArrowArray) -> Status {
    // SAFETY: the plugin's promise: an array of its own.
    if let Some(array) = unsafe { array.as_ref() } {
        // SAFETY: as above.
        unsafe { look(array) };
    }
    // SAFETY: the plugin's call, passed on.
    unsafe { (host::HOST.emit)(call, array) }
}

unsafe extern "C" fn reserve(owner: *mut c_void, delta: i64) -> Status {
    {
        let mut state = state();
        let state = state.get();
        if delta > 0 {
            let refuse = state.refuse == Refuse::Reserve(state.reserves);
            state.reserves += 1;
            state.refused |= refuse;
            if refuse {
                return ffi::E_MEMORY;
            }
        }
    }
    // SAFETY: the plugin's call, passed on.
    let status = unsafe { (host::HOST.reserve)(owner, delta) };
    if status >= 0 {
        state().get().reserved += delta;
    }
    status
}

fn original() -> Option<Vtable> {
    state().get().original
}

unsafe extern "C" fn bind(
    stage: *const Stage,
    host: *const Host,
    given: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    let Some(vtable) = original() else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    let status = unsafe { (vtable.bind)(stage, host, given, out, error) };
    STATUS.set(status);
    status
}

unsafe extern "C" fn create(
    bound: *mut c_void,
    call: *const Call,
    split: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    let Some(vtable) = original() else {
        return ffi::E_INTERNAL;
    };
    // SAFETY: the host's call, passed on.
    let status = unsafe { (vtable.create)(bound, call, split, inst, error) };
    STATUS.set(status);
    status
}

unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const Call,
    input: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    let Some(process) = original().and_then(|vtable| vtable.process) else {
        return ffi::E_INTERNAL;
    };
    let given = state().get().given.clone();
    // SAFETY: the host's call, passed on: it lends an array of these columns.
    unsafe { watching(input, &given, out, || process(inst, call, input, out, error)) }
}

/// Looks at memory before and after a call.
///
/// # Safety
/// `input` is NULL or an array of the columns `given` that the host lends; `out` is NULL or what the call fills or leaves released.
unsafe fn watching(
    input: *const ArrowArray,
    given: &[Type],
    out: *const ArrowArray,
    run: impl FnOnce() -> Status,
) -> Status {
    let mut lent = vec![];
    // SAFETY: the caller's promise.
    if let Some(array) = unsafe { input.as_ref() } {
        // SAFETY: as above.
        unsafe { ranges_of_columns(array, given, &mut lent) };
    }
    PIECES.set(lent.iter().map(|&(at, size, _)| (at, size)).collect());
    let lent = lent.len();
    let status = run();
    let pieces = PIECES.with_borrow(Clone::clone);
    for &(at, size) in &pieces[lent..] {
        let guard: *const u8 = std::ptr::with_exposed_provenance(at + size);
        // SAFETY: a piece that `alloc` gave in this call: behind it stand `GUARD` bytes, and the arena keeps them until its reset.
        let guard = unsafe { std::slice::from_raw_parts(guard, GUARD) };
        if guard.iter().any(|&byte| byte != MARK) {
            wrong(format!("it writes behind the {size} bytes that it was given"));
        }
    }
    // SAFETY: the caller's promise.
    if let Some(array) = unsafe { out.as_ref() }.filter(|array| array.release.is_some() && status >= 0) {
        // SAFETY: as above.
        unsafe { look(array) };
    }
    STATUS.set(status);
    status
}

/// Sees whether the buffers of an array that is to be in the chunk's memory are there, as long as its rows say.
///
/// # Safety
/// An array as Arrow has it.
unsafe fn look(array: &ArrowArray) {
    let is_ours = array
        .release
        .is_some_and(|release| std::ptr::fn_addr_eq(release, host::HOST.arena_release));
    if !is_ours {
        return;
    }
    let (made, pieces) = (state().get().made.clone(), PIECES.with_borrow(Clone::clone));
    let mut ranges = vec![];
    // SAFETY: passed on.
    unsafe { ranges_of_columns(array, &made, &mut ranges) };
    for (at, size, what) in ranges {
        let inside = |&(piece, bytes): &(usize, usize)| at >= piece && at.saturating_add(size) <= piece + bytes;
        if size > 0 && !pieces.iter().any(inside) {
            wrong(format!(
                "{what} of its output takes {size} bytes, which are not in the memory that it was given: its rows go on behind it"
            ));
        }
    }
}

/// Where, how many bytes, and of what.
type Range = (usize, usize, &'static str);

/// # Safety
/// An array as Arrow has it.
unsafe fn ranges_of_columns(array: &ArrowArray, types: &[Type], out: &mut Vec<Range>) {
    if array.children.is_null() || array.n_children != types.len() as i64 {
        return;
    }
    for (at, ty) in types.iter().enumerate() {
        // SAFETY: there are as many children as types.
        if let Some(child) = unsafe { (*array.children.add(at)).as_ref() } {
            // SAFETY: passed on.
            unsafe { ranges(child, ty, out) };
        }
    }
}

/// # Safety
/// An array as Arrow has it. Of another type than `ty`, nothing is read but its list of buffers.
unsafe fn ranges(array: &ArrowArray, ty: &Type, out: &mut Vec<Range>) {
    let end = array.offset.saturating_add(array.length);
    let Ok(rows) = usize::try_from(end) else { return };
    let (Ok(buffers), false) = (usize::try_from(array.n_buffers), array.buffers.is_null()) else {
        return;
    };
    // SAFETY: there are as many buffers as it says.
    let buffers = unsafe { std::slice::from_raw_parts(array.buffers.cast_const(), buffers) };
    let mut add = |at: usize, size: usize, what| {
        if let Some(buffer) = buffers.get(at).filter(|buffer| !buffer.is_null()) {
            out.push((buffer.addr(), size, what));
        }
    };
    if array.null_count != 0 {
        add(0, rows.div_ceil(8), "a validity bitmap");
    }
    let wide = |size: usize| rows.saturating_mul(size);
    match ty {
        Type::Null | Type::Record(_) => {}
        Type::Bool => add(1, rows.div_ceil(8), "a bitmap"),
        Type::Int | Type::Float | Type::Timestamp | Type::Duration => add(1, wide(8), "a column"),
        Type::Decimal { .. } => add(1, wide(16), "a column"),
        Type::Date => add(1, wide(4), "a column"),
        Type::List(_) if rows > 0 => add(1, wide(4) + 4, "offsets"),
        Type::List(_) => {}
        // The host says that it is none of such a type.
        Type::String | Type::Bytes | Type::Json if buffers.len() < 3 => {}
        Type::String | Type::Bytes | Type::Json => {
            add(1, wide(16), "views");
            let parts = buffers.len().saturating_sub(3);
            add(parts + 2, parts * 8, "buffer sizes");
            let sizes = buffers.last().map_or(std::ptr::null(), |sizes| sizes.cast::<i64>());
            if !sizes.is_null() {
                for part in 0..parts {
                    // SAFETY: the last buffer has a size for each of the others.
                    let size = unsafe { sizes.add(part).read_unaligned() };
                    add(part + 2, usize::try_from(size).unwrap_or(0), "a text buffer");
                }
            }
        }
    }
    let inner: Vec<Type> = match ty {
        Type::List(item) => vec![item.ty.clone()],
        Type::Record(schema) => schema.fields().iter().map(|field| field.ty.clone()).collect(),
        _ => return,
    };
    // SAFETY: passed on.
    unsafe { ranges_of_columns(array, &inner, out) };
}
