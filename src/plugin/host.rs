//! The services that a plugin gets: one table for all, whose functions find out by themselves for whom they work.
//!
//! Laws
//! - A call's services work on its thread while it lasts, and only through its own `sp_call`: the pointer is compared with the
//!   thread's innermost call, never read. A pointer that was kept, or taken to another thread, is refused.
//! - An owner is a number, not an address: one that is gone is refused.
//! - No panic of ours crosses into C.
#![allow(unsafe_code)]

use super::run::Calling;
use standpipe_sdk::Reservation;
use standpipe_sdk::ffi::{self, ArrowArray, Status, Str};
use standpipe_sdk::spec::{Say, Setup};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

static HOST: ffi::Host = ffi::Host {
    struct_size: size_of::<ffi::Host>() as u32,
    abi_major: ffi::ABI_MAJOR,
    abi_minor: ffi::ABI_MINOR,
    reserved: 0,
    name: Str::new("standpipe"),
    version: Str::new(env!("CARGO_PKG_VERSION")),
    alloc,
    grow,
    arena_release,
    emit,
    reject,
    reserve,
    log,
    cancelled,
    extension,
};

/// The table.
pub(super) fn host() -> &'static ffi::Host {
    &HOST
}

/// The innermost call of a thread: what the plugin holds, and what it stands for.
type Innermost = (*const ffi::Call, *mut c_void);

thread_local! {
    static CURRENT: Cell<Innermost> = const { Cell::new((std::ptr::null(), null_mut())) };
}

/// Makes `calling` the thread's innermost call while it lives.
pub(super) struct Entered(Innermost);

impl Entered {
    /// # Safety
    /// Until this is dropped, `call` and `calling` stay where they are, and nobody else uses `calling`.
    pub(super) unsafe fn new(call: *const ffi::Call, calling: *mut Calling<'_, '_, '_>) -> Entered {
        Entered(CURRENT.replace((call, calling.cast())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Runs a service for `call`; `refused` if it is not this thread's call.
fn serve<T>(call: *const ffi::Call, refused: T, service: impl FnOnce(&mut Calling<'_, '_, '_>) -> T) -> T {
    let (current, calling) = CURRENT.get();
    if current.is_null() || current != call {
        return refused;
    }
    // A service may push to stages behind: they must not reach this call.
    CURRENT.set((std::ptr::null(), null_mut()));
    // SAFETY: `Entered` lives, so `calling` is a `Calling` that nobody else uses: the one who made it is inside the plugin, and a
    // second service for it would have found `CURRENT` empty. Its lifetimes end behind the `Entered`; `service` is generic over
    // them and so can keep nothing.
    let calling = unsafe { &mut *calling.cast::<Calling<'_, '_, '_>>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| service(calling)));
    CURRENT.set((current, std::ptr::from_mut(calling).cast()));
    match outcome {
        Ok(outcome) => outcome,
        Err(panic) => {
            calling.panic = Some(panic);
            refused
        }
    }
}

unsafe extern "C" fn alloc(call: *const ffi::Call, size: usize) -> *mut c_void {
    serve(call, null_mut(), |calling| calling.alloc(size))
}

unsafe extern "C" fn grow(call: *const ffi::Call, old: *mut c_void, old_size: usize, new_size: usize) -> *mut c_void {
    let new = serve(call, null_mut(), |calling| calling.alloc(new_size));
    if !new.is_null() && !old.is_null() {
        // SAFETY: the plugin says that `old_size` bytes are at `old`, which is its own memory of this chunk; `new` is fresh, and has
        // `new_size`.
        unsafe { std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), old_size.min(new_size)) }
    }
    new
}

/// Only the marks are to be set: the memory is the arena's.
unsafe extern "C" fn arena_release(array: *mut ArrowArray) {
    // SAFETY: Arrow's contract: an array of the plugin's making, not yet released, whose children are there.
    unsafe {
        let Some(array) = array.as_mut() else { return };
        array.release = None;
        if array.children.is_null() {
            return;
        }
        for at in 0..array.n_children.max(0) as usize {
            if let Some(child) = (*array.children.add(at)).as_mut()
                && let Some(release) = child.release
            {
                release(child);
            }
        }
    }
}

unsafe extern "C" fn emit(call: *const ffi::Call, array: *mut ArrowArray) -> Status {
    serve(call, ffi::E_INTERNAL, |calling| {
        // SAFETY: the plugin gives an array of its own, by the header.
        match unsafe { array.as_mut() } {
            // SAFETY: as above.
            Some(array) => unsafe { calling.emit(array) },
            None => ffi::E_INTERNAL,
        }
    })
}

unsafe extern "C" fn reject(call: *const ffi::Call, row: i64, column: i32, code: Str, message: Str) -> Status {
    // SAFETY: texts of the plugin's, valid for the call.
    let (code, message) = unsafe { (code.bytes(), message.bytes()) };
    serve(call, ffi::E_INTERNAL, |calling| {
        calling.reject(row, column, code, message)
    })
}

unsafe extern "C" fn reserve(owner: *mut c_void, delta: i64) -> Status {
    let Some(owner) = owner_of(owner) else {
        return ffi::E_INTERNAL;
    };
    let mut reservation = owner.reservation.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = usize::try_from(delta.unsigned_abs()).unwrap_or(usize::MAX);
    if delta < 0 {
        reservation.shrink(bytes);
        return ffi::OK;
    }
    if reservation.grow(bytes).is_ok() {
        ffi::OK
    } else {
        ffi::E_MEMORY
    }
}

unsafe extern "C" fn log(owner: *mut c_void, _level: i32, message: Str) {
    let Some(owner) = owner_of(owner) else { return };
    // SAFETY: a text of the plugin's, valid for the call.
    let message = String::from_utf8_lossy(unsafe { message.bytes() });
    let _ = catch_unwind(AssertUnwindSafe(|| {
        (owner.say)(&format!("{}: {}\n", owner.name, message.trim_end()));
    }));
}

unsafe extern "C" fn cancelled(owner: *mut c_void) -> i32 {
    owner_of(owner).is_none_or(|owner| owner.cancelled.load(Relaxed)).into()
}

unsafe extern "C" fn extension(_id: *const c_char) -> *const c_void {
    std::ptr::null()
}

/// Who an instance is to the services that work on any thread.
struct Owner {
    name: &'static str,
    say: Say,
    cancelled: Arc<AtomicBool>,
    reservation: Mutex<Reservation>,
}

static OWNERS: RwLock<BTreeMap<usize, Arc<Owner>>> = RwLock::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn owner_of(owner: *mut c_void) -> Option<Arc<Owner>> {
    OWNERS
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&owner.addr())
        .cloned()
}

/// A number in the list of owners; it is gone when this is dropped, and what it reserved is given back.
pub(super) struct Registered(usize);

impl Registered {
    pub(super) fn new(name: &'static str, setup: &Setup) -> Registered {
        let owner = Owner {
            name,
            say: setup.say.clone(),
            cancelled: setup.cancelled.clone(),
            reservation: Mutex::new(setup.budget.reserve()),
        };
        let number = NEXT.fetch_add(1, Relaxed);
        OWNERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, Arc::new(owner));
        Registered(number)
    }

    /// What the plugin sees.
    pub(super) fn handle(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.0)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        OWNERS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
