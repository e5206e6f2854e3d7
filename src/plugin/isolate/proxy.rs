//! The stand-ins in the host's table: each call goes to a process, and what it asks of the host comes back here.
#![allow(unsafe_code)]

mod aggregate;
mod bound;
mod instance;
mod serving;
mod sink;
mod slots;
mod source;

use super::super::params;
use super::wire::{Done, error_of};
use super::worker::Lost;
use super::{Described, Description, E_NO_ROOM, E_PROCESS, Isolation, Plugin, has};
use standpipe_sdk::ffi::{self, ErrorOut, Status};
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;
use std::sync::atomic::AtomicU64;

/// A stage in the table.
#[repr(C)]
struct Proxy {
    /// First, so that the pointer that the host gives back is one to all of this.
    stage: ffi::Stage,
    plugin: &'static Plugin,
    number: u32,
    table: Option<Table>,
}

/// What its extension answers with.
enum Table {
    Sink(ffi::Sink),
    /// With it comes how many arguments are columns.
    Aggregate(ffi::Aggregate, usize),
}

/// The limits of the processes that a stage's calls go to, if it is a stand-in.
pub(in crate::plugin) fn isolation_of(stage: &'static ffi::Stage) -> Option<Isolation> {
    let ours = Some(bound::bind as *const ());
    if stage.bind.map(|bind| bind as *const ()) != ours {
        return None;
    }
    let proxy: *const Proxy = std::ptr::from_ref(stage).cast();
    // SAFETY: only the stages of `table` have this `bind`, and each is the first field of a `Proxy`, to all of which its pointer leads.
    Some(unsafe { (*proxy).plugin.isolation })
}

/// The table of a plugin. It stays.
pub(super) fn table(plugin: &'static Plugin, description: Description) -> &'static ffi::Plugin {
    let text = |text: Option<CString>| -> *const c_char { text.map_or(null(), |text| text.into_raw().cast_const()) };
    let mut stages: Vec<*const ffi::Stage> = vec![];
    for (number, described) in description.stages.into_iter().enumerate() {
        stages.push(match described {
            None => null(),
            Some(described) => {
                let table = described.table.as_ref();
                let proxy: &'static Proxy = Box::leak(Box::new(Proxy {
                    table: table.and_then(|table| match described.kind {
                        ffi::KIND_SINK => Some(Table::Sink(sink::table(table))),
                        ffi::KIND_AGGREGATE => Some(Table::Aggregate(
                            aggregate::table(table),
                            columns(described.texts[4].as_deref()),
                        )),
                        _ => None,
                    }),
                    stage: stage(described, text),
                    plugin,
                    number: number as u32,
                }));
                // A pointer to all of it, also where only the stage is read.
                std::ptr::from_ref(proxy).cast()
            }
        });
    }
    let stages: &'static [*const ffi::Stage] = Vec::leak(stages);
    Box::leak(Box::new(ffi::Plugin {
        struct_size: size_of::<ffi::Plugin>() as u32,
        abi_major: ffi::ABI_MAJOR,
        abi_minor: ffi::ABI_MINOR,
        n_stages: stages.len() as u32,
        id: null(),
        version: text(description.version),
        license: null(),
        build_info: null(),
        stages: stages.as_ptr(),
        init: None,
        deinit: None,
        extension: None,
    }))
}

/// How many arguments of an aggregate are columns.
fn columns(params: Option<&CStr>) -> usize {
    let params = params.and_then(|params| params.to_str().ok());
    // What is wrong with them is found out by who asks for more.
    params::of_function(params).map_or(0, |(params, columns, _)| columns.min(params.len()))
}

fn stage(described: Described, text: impl Fn(Option<CString>) -> *const c_char) -> ffi::Stage {
    let has = |bit: u32| described.has & bit != 0;
    let [name, version, summary, doc_md, params] = described.texts.map(text);
    ffi::Stage {
        struct_size: described.struct_size,
        kind: described.kind,
        flags: described.flags,
        state_version: described.state_version,
        name,
        version,
        summary,
        doc_md,
        params,
        bind: has(has::BIND).then_some(bound::bind as _),
        unbind: has(has::BIND).then_some(bound::unbind as _),
        create: has(has::CREATE).then_some(instance::create as _),
        process: has(has::PROCESS).then_some(instance::process as _),
        finish: has(has::FINISH).then_some(instance::finish as _),
        snapshot: has(has::SNAPSHOT).then_some(source::snapshot as _),
        restore: has(has::RESTORE).then_some(source::restore as _),
        destroy: has(has::DESTROY).then_some(instance::destroy as _),
        extension: has(has::EXTENSION).then_some(extension as _),
    }
}

unsafe extern "C" fn extension(stage: *const ffi::Stage, id: *const c_char) -> *const c_void {
    // SAFETY: the header's contract: the stage is one of `table`'s, the first field of a `Proxy`, and `id` a text that ends with a NUL.
    let (proxy, id) = unsafe { (&*stage.cast::<Proxy>(), CStr::from_ptr(id)) };
    match &proxy.table {
        Some(Table::Aggregate(table, _)) if id == ffi::AGGREGATE_EXTENSION => std::ptr::from_ref(table).cast(),
        Some(Table::Sink(table)) if id == ffi::SINK_EXTENSION => std::ptr::from_ref(table).cast(),
        _ => null(),
    }
}

/// Numbers of what is bound and created, in all processes.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Why a call fails.
struct Failed {
    status: Status,
    error: Box<ErrorOut>,
}

impl Failed {
    fn new(status: Status, text: &str) -> Failed {
        Failed {
            status,
            error: Box::new(error_of(text, "")),
        }
    }
}

impl From<Lost> for Failed {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Process(text) => Failed::new(E_PROCESS, &text),
            Lost::Cancelled => Failed::new(ffi::E_CANCELLED, ""),
            // The host refused it, and knows.
            Lost::NoRoom => Failed::new(ffi::E_MEMORY, ""),
            Lost::TooLong => Failed::new(
                ffi::E_UNSUPPORTED,
                "it has more columns or longer arguments than can be told to another process",
            ),
        }
    }
}

/// Runs an entry; what fails or panics in it becomes its status.
///
/// # Safety
/// `error` is NULL or points to the error that the host gave.
unsafe fn entry(error: *mut ErrorOut, run: impl FnOnce() -> Result<Status, Failed>) -> Status {
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let failed = match outcome {
        Ok(Ok(status)) => return status,
        Ok(Err(failed)) => failed,
        Err(_) => Failed::new(ffi::E_INTERNAL, "the host's side of its process panicked"),
    };
    // SAFETY: the caller's promise.
    if let Some(error) = unsafe { error.as_mut() } {
        *error = *failed.error;
    }
    failed.status
}

/// The status of a call, and the error that it left.
fn ended(done: Done) -> Result<(Status, ErrorOut), Failed> {
    if let Some(text) = done.complaint {
        let mut failed = Failed::new(ffi::E_INTERNAL, &text);
        failed.error.flags = done.error.flags;
        return Err(failed);
    }
    if done.status < 0 {
        return Err(Failed {
            status: match done.status {
                // Ours alone.
                E_PROCESS | E_NO_ROOM => ffi::E_INTERNAL,
                status => status,
            },
            error: Box::new(done.error),
        });
    }
    Ok((done.status, done.error))
}
