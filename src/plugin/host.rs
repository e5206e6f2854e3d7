//! The services that a plugin gets: one table for all, whose functions find out by themselves for whom they work.
//!
//! Laws
//! - A call's services work on its thread while it lasts, and only through its own `sp_call`: the pointer is compared with the
//!   thread's innermost call, never read. A pointer that was kept, or taken to another thread, is refused.
//! - An owner is a number, not an address: one that is gone is refused.
//! - No panic of ours crosses into C.
#![allow(unsafe_code)]

use super::meter::Meter;
use standpipe_sdk::Reservation;
use standpipe_sdk::aggregate::OfRun;
use standpipe_sdk::ffi::{self, ArrowArray, Status, Str};
use standpipe_sdk::spec::{Say, Setup, say_on_stderr};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// The services as they are.
pub(super) const HOST: ffi::Host = ffi::Host {
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

static TABLE: ffi::Host = HOST;
/// Who stands between plugins and the services, in a process that tries plugins out.
static OTHER: OnceLock<&'static ffi::Host> = OnceLock::new();

/// The table.
pub(super) fn host() -> &'static ffi::Host {
    OTHER.get().copied().unwrap_or(&TABLE)
}

/// Gives plugins another table from now on, which passes on what it gets; the first one stays.
pub(super) fn use_table(table: &'static ffi::Host) {
    let _ = OTHER.set(table);
}

/// What a call stands for: the services that work while it lasts.
pub(super) trait Service {
    /// Memory of the call's chunk; NULL if there is none.
    fn alloc(&mut self, size: usize) -> *mut c_void;

    /// # Safety
    /// The array is one that its maker gives away.
    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status;

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status;

    /// A service panicked: the call is to end.
    fn panicked(&mut self, panic: Box<dyn Any + Send>);
}

/// The innermost call of a thread: what the plugin holds, and what it stands for.
type Innermost = (*const ffi::Call, Option<*mut (dyn Service + 'static)>);

thread_local! {
    static CURRENT: Cell<Innermost> = const { Cell::new((std::ptr::null(), None)) };
}

/// Makes `service` what the thread's innermost call stands for while it lives.
pub(super) struct Entered(Innermost);

impl Entered {
    /// # Safety
    /// Until this is dropped, `call` and `service` stay where they are, and nobody else uses `service`.
    pub(super) unsafe fn new(call: *const ffi::Call, service: *mut (dyn Service + '_)) -> Entered {
        // SAFETY: only the lifetime changes. The pointer is used by `serve` alone, while this lives, and by the caller's promise
        // what it points to lives as long.
        let service = unsafe { std::mem::transmute::<*mut (dyn Service + '_), *mut (dyn Service + 'static)>(service) };
        Entered(CURRENT.replace((call, Some(service))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Runs a service for `call`; `refused` if it is not this thread's call.
fn serve<T>(call: *const ffi::Call, refused: T, run: impl FnOnce(&mut dyn Service) -> T) -> T {
    let (current, service) = CURRENT.get();
    let (false, Some(pointer)) = (current.is_null() || current != call, service) else {
        return refused;
    };
    // A service may push to stages behind: they must not reach this call.
    CURRENT.set((std::ptr::null(), None));
    // SAFETY: `Entered` lives, so this is a service that nobody else uses: the one who made it is inside the plugin, and a second
    // call of it would have found `CURRENT` empty. `run` is generic over its lifetime and so can keep nothing.
    let service = unsafe { &mut *pointer };
    let outcome = catch_unwind(AssertUnwindSafe(|| run(service)));
    CURRENT.set((current, Some(pointer)));
    match outcome {
        Ok(outcome) => outcome,
        Err(panic) => {
            service.panicked(panic);
            refused
        }
    }
}

unsafe extern "C" fn alloc(call: *const ffi::Call, size: usize) -> *mut c_void {
    serve(call, null_mut(), |service| service.alloc(size))
}

unsafe extern "C" fn grow(call: *const ffi::Call, old: *mut c_void, old_size: usize, new_size: usize) -> *mut c_void {
    let new = serve(call, null_mut(), |service| service.alloc(new_size));
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
    serve(call, ffi::E_INTERNAL, |service| {
        // SAFETY: the plugin gives an array of its own, by the header.
        match unsafe { array.as_mut() } {
            // SAFETY: as above.
            Some(array) => unsafe { service.emit(array) },
            None => ffi::E_INTERNAL,
        }
    })
}

unsafe extern "C" fn reject(call: *const ffi::Call, row: i64, column: i32, code: Str, message: Str) -> Status {
    // SAFETY: texts of the plugin's, valid for the call.
    let (code, message) = unsafe { (code.bytes(), message.bytes()) };
    serve(call, ffi::E_INTERNAL, |service| {
        service.reject(row, column, code, message)
    })
}

unsafe extern "C" fn reserve(owner: *mut c_void, delta: i64) -> Status {
    let Some(owner) = owner_of(owner) else {
        return ffi::E_INTERNAL;
    };
    let mut memory = owner.memory.lock().unwrap_or_else(PoisonError::into_inner);
    let reservation = match &mut *memory {
        OwnMemory::None => return if delta <= 0 { ffi::OK } else { ffi::E_MEMORY },
        OwnMemory::Elsewhere(reserve) => return reserve(delta),
        OwnMemory::Budget(reservation) => reservation,
    };
    let bytes = usize::try_from(delta.unsigned_abs()).unwrap_or(usize::MAX);
    if delta < 0 {
        owner.meter.reserved(-(bytes.min(reservation.bytes()) as i64));
        reservation.shrink(bytes);
        return ffi::OK;
    }
    if reservation.grow(bytes).is_ok() {
        owner.meter.reserved(bytes as i64);
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
        (owner.say)(&match owner.name {
            "" => format!("{}\n", message.trim_end()),
            name => format!("{name}: {}\n", message.trim_end()),
        });
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
    /// Before what it says; empty where another process says it.
    name: &'static str,
    say: Say,
    cancelled: Arc<AtomicBool>,
    memory: Mutex<OwnMemory>,
    meter: Arc<Meter>,
}

/// What an owner may keep beyond a call.
enum OwnMemory {
    None,
    Budget(Reservation),
    /// Another process reckons with it.
    Elsewhere(Reserve),
}

/// Reserves so many bytes, or gives them back.
pub(super) type Reserve = Arc<dyn Fn(i64) -> Status + Send + Sync>;

impl Drop for Owner {
    fn drop(&mut self) {
        if let OwnMemory::Budget(reservation) = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.meter.reserved(-(reservation.bytes() as i64));
        }
    }
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
pub(super) struct Registered {
    number: usize,
    folder: Arc<str>,
    run_flags: u32,
}

impl Registered {
    /// An owner of a run.
    pub(super) fn new(name: &'static str, setup: &Setup, meter: Arc<Meter>) -> Registered {
        let run_flags = if setup.sync { 0 } else { ffi::RUN_NO_SYNC };
        Registered::add(
            (&setup.folder.to_string_lossy(), run_flags),
            Owner {
                name,
                say: setup.say.clone(),
                cancelled: setup.cancelled.clone(),
                memory: Mutex::new(OwnMemory::Budget(setup.budget.reserve())),
                meter,
            },
        )
    }

    /// An owner that has nothing of its own: a function.
    pub(super) fn without_memory(name: &'static str, meter: Arc<Meter>) -> Registered {
        Registered::add(
            ("", 0),
            Owner {
                name,
                say: say_on_stderr(),
                cancelled: Arc::default(),
                memory: Mutex::new(OwnMemory::None),
                meter,
            },
        )
    }

    /// An owner that keeps states of a table of groups, whose memory is the table's.
    pub(super) fn of_table(name: &'static str, run: &OfRun, reserve: Reserve, meter: Arc<Meter>) -> Registered {
        Registered::add(
            ("", 0),
            Owner {
                name,
                say: run.say.clone(),
                cancelled: run.cancelled.clone(),
                memory: Mutex::new(OwnMemory::Elsewhere(reserve)),
                meter,
            },
        )
    }

    /// An owner whose memory, words and end are another process's business. `of_run`: its folder and flags.
    pub(super) fn elsewhere(
        say: Say,
        cancelled: Arc<AtomicBool>,
        reserve: Reserve,
        meter: Arc<Meter>,
        of_run: (&str, u32),
    ) -> Registered {
        Registered::add(
            of_run,
            Owner {
                name: "",
                say,
                cancelled,
                memory: Mutex::new(OwnMemory::Elsewhere(reserve)),
                meter,
            },
        )
    }

    fn add((folder, run_flags): (&str, u32), owner: Owner) -> Registered {
        let number = NEXT.fetch_add(1, Relaxed);
        OWNERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, Arc::new(owner));
        Registered {
            number,
            folder: folder.into(),
            run_flags,
        }
    }

    /// What the plugin sees.
    pub(super) fn handle(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.number)
    }

    /// What holds for the whole run.
    pub(super) fn run_flags(&self) -> u32 {
        self.run_flags
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> Str {
        Str::new(&self.folder)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        OWNERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}
