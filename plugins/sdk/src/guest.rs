//! The plugin's side of the boundary: specs and operators of Rust behind the C vtable. `export!` makes the tables, the code is here.
//!
//! Laws
//! - No panic crosses the boundary: every entry runs inside [`guard`]. After one, only `destroy` is legal.
//! - What a stage emits is where the host put it or borrows from it: memory comes from the call's own arena, and only what is held
//!   beside it, or lies elsewhere, is copied by the host.
//! - A row-wise stage gets the columns that it reads, and of its output the host is given those that it made.
#![allow(unsafe_code)]

mod aggregate;
mod arguments;
pub mod describe;
mod function;
mod sink;
mod source;
mod transform;

use crate::budget::Budget;
use crate::combine::CombineSpec;
use crate::counting;
use crate::error::{Error, Result};
use crate::ffi::{self, ErrorOut, Host, Status};
use crate::origin::{OriginSpec, Splits};
use crate::scalar::ScalarSpec;
use crate::spec::{Asked, Setup, StageSpec};
use crate::spill::{Disk, Spill};
use std::any::Any;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A stage or function as it stands in the plugin's table.
#[repr(C)]
pub struct Guest {
    /// First, so that the pointer that the host gives back is one to all of this.
    stage: ffi::Stage,
    spec: Spec,
}

enum Spec {
    Stage(&'static StageSpec),
    Function(&'static ScalarSpec),
    Source(&'static OriginSpec),
    Aggregate(&'static CombineSpec),
}

// SAFETY: constant data; the pointers in it are to constant data as well.
unsafe impl Sync for Guest {}

/// Text of a table: it ends with a NUL.
type Text = &'static [u8];

const fn text(text: Text) -> *const c_char {
    text.as_ptr().cast()
}

/// What a table entry is of.
///
/// # Safety
/// `stage` is NULL or the first field of a [`Guest`].
unsafe fn spec_of(stage: *const ffi::Stage) -> Option<&'static Spec> {
    // SAFETY: the caller's promise; guests are static.
    unsafe { stage.cast::<Guest>().as_ref() }.map(|guest| &guest.spec)
}

impl Guest {
    /// A stage. Its texts end with a NUL.
    pub const fn stage(spec: &'static StageSpec, name: Text, about: Text, params: Text) -> Guest {
        Guest {
            stage: ffi::Stage {
                bind: Some(transform::bind),
                unbind: Some(unbind::<transform::Plan>),
                create: Some(transform::create),
                process: Some(transform::process),
                finish: Some(transform::finish),
                destroy: Some(destroy::<transform::Instance>),
                ..table(ffi::KIND_TRANSFORM, 0, name, about, params)
            },
            spec: Spec::Stage(spec),
        }
    }

    /// A source. Its texts end with a NUL.
    pub const fn source(spec: &'static OriginSpec, name: Text, about: Text, params: Text) -> Guest {
        Guest {
            stage: ffi::Stage {
                bind: Some(source::bind),
                unbind: Some(unbind::<Splits>),
                create: Some(source::create),
                process: Some(source::process),
                snapshot: if spec.snapshots { Some(source::snapshot) } else { None },
                restore: if spec.snapshots { Some(source::restore) } else { None },
                destroy: Some(destroy::<source::Instance>),
                ..table(ffi::KIND_SOURCE, 0, name, about, params)
            },
            spec: Spec::Source(spec),
        }
    }

    /// A sink: a stage whose `bind` gives a [`Make::Sink`](crate::spec::Make::Sink). Its texts end with a NUL.
    pub const fn sink(spec: &'static StageSpec, name: Text, about: Text, params: Text) -> Guest {
        Guest {
            stage: ffi::Stage {
                bind: Some(sink::bind),
                unbind: Some(unbind::<sink::Plan>),
                create: Some(sink::create),
                process: Some(sink::process),
                finish: Some(sink::finish),
                destroy: Some(destroy::<sink::Instance>),
                extension: Some(sink::extension),
                ..table(ffi::KIND_SINK, 0, name, about, params)
            },
            spec: Spec::Stage(spec),
        }
    }

    /// An aggregate. Its texts end with a NUL.
    pub const fn aggregate(spec: &'static CombineSpec, name: Text, about: Text, params: Text) -> Guest {
        let rejects = if spec.fallible { ffi::F_REJECTS } else { 0 };
        Guest {
            stage: ffi::Stage {
                bind: Some(aggregate::bind),
                unbind: Some(unbind::<aggregate::Plan>),
                create: Some(aggregate::create),
                destroy: Some(destroy::<aggregate::Instance>),
                extension: Some(aggregate::extension),
                ..table(ffi::KIND_AGGREGATE, rejects, name, about, params)
            },
            spec: Spec::Aggregate(spec),
        }
    }

    /// A function. Its texts end with a NUL.
    pub const fn function(spec: &'static ScalarSpec, name: Text, about: Text, params: Text) -> Guest {
        let propagates = match spec.nulls {
            crate::scalar::Nulls::Propagate => ffi::F_NULL_PROPAGATING,
            crate::scalar::Nulls::Own => 0,
        };
        let rejects = if spec.fallible { ffi::F_REJECTS } else { 0 };
        // A host looks at the nulls of a propagating function's column too, so it may have some of its own.
        Guest {
            stage: ffi::Stage {
                bind: Some(function::bind),
                unbind: None,
                create: Some(function::create),
                process: Some(function::process),
                finish: None,
                destroy: Some(function::destroy),
                ..table(ffi::KIND_SCALAR, propagates | rejects, name, about, params)
            },
            spec: Spec::Function(spec),
        }
    }
}

/// `unbind` where `bind` gave an `Arc` of a `T`.
///
/// # Safety
/// The header's contract: once, with what `bind` gave.
unsafe extern "C" fn unbind<T>(bound: *mut c_void) {
    // SAFETY: the caller's promise. Dropping runs the author's code, which may panic.
    unsafe {
        guard(std::ptr::null_mut(), || {
            drop(Arc::from_raw(bound.cast::<T>()));
            Ok(ffi::OK)
        });
    }
}

/// `destroy` where `create` gave a `Box` of a `T`.
///
/// # Safety
/// The header's contract: once, with what `create` gave.
unsafe extern "C" fn destroy<T>(inst: *mut c_void) {
    // SAFETY: the caller's promise. Dropping runs the author's code, which may panic.
    unsafe {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(inst.cast::<T>()));
            Ok(ffi::OK)
        });
    }
}

const fn table(kind: u32, flags: u32, name: Text, about: Text, params: Text) -> ffi::Stage {
    ffi::Stage {
        struct_size: size_of::<ffi::Stage>() as u32,
        kind,
        flags,
        state_version: 0,
        name: text(name),
        version: std::ptr::null(),
        summary: text(about),
        doc_md: std::ptr::null(),
        params: text(params),
        bind: None,
        unbind: None,
        create: None,
        process: None,
        finish: None,
        snapshot: None,
        restore: None,
        destroy: None,
        extension: None,
    }
}

/// What the entry function gives. Texts end with a NUL.
pub const fn plugin(
    id: Text,
    version: Text,
    license: Text,
    note: Text,
    stages: &'static [&'static Guest],
) -> ffi::Plugin {
    ffi::Plugin {
        struct_size: size_of::<ffi::Plugin>() as u32,
        abi_major: ffi::ABI_MAJOR,
        abi_minor: ffi::ABI_MINOR,
        n_stages: stages.len() as u32,
        id: text(id),
        version: text(version),
        license: text(license),
        // So that no linker drops it.
        build_info: text(note),
        // A pointer to a `Guest` is one to its first field.
        stages: stages.as_ptr().cast(),
        init: Some(init),
        deinit: None,
        extension: None,
    }
}

/// Panics are caught and become errors of the run: that they also print is for those who ask for a backtrace.
unsafe extern "C" fn init(_: *const Host, _: ffi::Str, _: *mut ErrorOut) -> Status {
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v.is_empty() || v == "0") {
        // A library has a hook of its own; the host's stays as it is.
        std::panic::set_hook(Box::new(|_| {}));
    }
    ffi::OK
}

/// Why an entry fails.
struct Failed {
    status: Status,
    message: String,
    param: String,
}

impl Failed {
    fn new(status: Status, message: impl Into<String>) -> Failed {
        Failed {
            status,
            message: message.into(),
            param: String::new(),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Memory { .. } => Failed::new(ffi::E_MEMORY, ""),
            Error::Cancelled => Failed::new(ffi::E_CANCELLED, ""),
            Error::Io { .. } => Failed::new(ffi::E_IO, error.to_string()),
            Error::Failed { message, help, .. } => {
                let help = help.map(|help| format!("; {help}")).unwrap_or_default();
                Failed::new(ffi::E_DATA, message + &help)
            }
            other => Failed::new(ffi::E_INTERNAL, other.to_string()),
        }
    }
}

/// Runs an entry; what fails or panics in it becomes its status.
///
/// # Safety
/// `error` is NULL or points to the error that the host gave.
unsafe fn guard(error: *mut ErrorOut, entry: impl FnOnce() -> Result<Status, Failed>) -> Status {
    let outcome = catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|panic| {
        let what = words(&*panic).unwrap_or("it gives no words").to_owned();
        // What a panic carries may panic again where it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(panic)));
        Err(Failed::new(ffi::E_PANIC, format!("it panics: {what}")))
    });
    match outcome {
        Ok(status) => status,
        Err(failed) => {
            // SAFETY: the caller's promise.
            if let Some(error) = unsafe { error.as_mut() } {
                write(&mut error.message, &failed.message);
                write(&mut error.param, &failed.param);
                if failed.status == ffi::E_PANIC {
                    error.flags |= ffi::ERR_POISONED;
                }
            }
            failed.status
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> Option<&str> {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// As much of `text` as there is room for, and a NUL.
fn write(to: &mut [u8], text: &str) {
    let mut end = text.len().min(to.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to[..end].copy_from_slice(&text.as_bytes()[..end]);
    to[end] = 0;
}

/// What an instance has of its own, and what the host was told of it.
struct Own {
    budget: Arc<Budget>,
    cancelled: Arc<AtomicBool>,
    /// Bytes of the heap, as far as calls of this instance took them.
    heap: i64,
    declared: i64,
}

impl Own {
    fn new() -> Own {
        Own {
            budget: Budget::new(usize::MAX),
            cancelled: Arc::default(),
            heap: 0,
            declared: 0,
        }
    }

    /// What operators are made with. The host's limit is not known in here: what is reserved is declared behind each call.
    fn setup(&self, call: *const ffi::Call) -> Setup {
        // SAFETY: a call of the host's, with its table of services, which lives as long as the program.
        let (host, owner): (&'static Host, usize) = unsafe { (&*(*call).host, (*call).owner.addr()) };
        // SAFETY: as above; the text is valid for the call.
        let folder = unsafe { String::from_utf8_lossy(folder_of(call)).into_owned() };
        Setup {
            budget: self.budget.clone(),
            // Nothing of a plugin goes to disk: the run's limit is not known in here.
            spill: Spill::new(Arc::new(Disk::new(std::env::temp_dir(), Some(0)))),
            share: 64 << 20,
            workers: 1,
            chunk_bytes: 256 << 10,
            max_record: 8 << 20,
            // SAFETY: as above.
            sync: unsafe { run_flags_of(call) } & ffi::RUN_NO_SYNC == 0,
            folder: Path::new(&folder).into(),
            cancelled: self.cancelled.clone(),
            // The host keeps the origin of rows itself.
            asked: Asked::Nothing,
            say: Arc::new(move |text| {
                // SAFETY: an owner is a number for the host, who refuses one that is gone.
                unsafe {
                    (host.log)(
                        std::ptr::without_provenance_mut(owner),
                        0,
                        ffi::Str::new(text.trim_end()),
                    );
                }
            }),
        }
    }

    /// Runs a call, then declares what the instance has now.
    ///
    /// # Safety
    /// `call` is the host's call that lasts.
    unsafe fn counted<T>(
        &mut self,
        call: *const ffi::Call,
        run: impl FnOnce() -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        // SAFETY: the caller's promise.
        let (host, owner) = unsafe { (&*(*call).host, (*call).owner) };
        // SAFETY: as above.
        self.cancelled.store(unsafe { (host.cancelled)(owner) } != 0, Relaxed);
        let before = counting::taken();
        let outcome = run();
        self.heap += counting::taken().wrapping_sub(before);
        let has = self
            .heap
            .max(i64::try_from(self.budget.used()).unwrap_or(i64::MAX))
            .max(0);
        let delta = has - self.declared;
        if delta == 0 {
            return outcome;
        }
        // SAFETY: as above.
        let status = unsafe { (host.reserve)(owner, delta) };
        if status < 0 {
            outcome?;
            let message = format!("it has {has} bytes of its own, more than the run's memory has room for");
            return Err(Failed::new(ffi::E_INTERNAL, message));
        }
        self.declared = has;
        outcome
    }
}

/// Where relative paths start, as far as the host says it.
///
/// # Safety
/// `call` is the host's call that lasts for `'c`.
unsafe fn folder_of<'c>(call: *const ffi::Call) -> &'c [u8] {
    const END: usize = std::mem::offset_of!(ffi::Call, folder) + size_of::<ffi::Str>();
    // SAFETY: the caller's promise; a field is read only where the struct goes that far.
    unsafe {
        match (*call).struct_size as usize >= END {
            true => (*call).folder.bytes(),
            false => &[],
        }
    }
}

/// What holds for the whole run, as far as the host says it.
///
/// # Safety
/// As [`folder_of`].
unsafe fn run_flags_of(call: *const ffi::Call) -> u32 {
    const END: usize = std::mem::offset_of!(ffi::Call, run_flags) + size_of::<u32>();
    // SAFETY: the caller's promise; a field is read only where the struct goes that far.
    unsafe {
        match (*call).struct_size as usize >= END {
            true => (*call).run_flags,
            false => 0,
        }
    }
}

/// A box as C holds it.
fn into_raw<T>(value: T) -> *mut c_void {
    Box::into_raw(Box::new(value)).cast()
}
