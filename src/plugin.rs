//! Stages of plugin libraries: a C vtable becomes the same spec that a built-in has.
//!
//! Laws
//! - Nothing behind here knows that a stage is foreign: [`spec_of`] gives a spec, `bind` a `RowWise` or `Serial` factory; a function
//!   is a [`FunctionSpec`], an aggregate an [`AggregateSpec`].
//! - What a plugin says is checked as far as it can be; a lie, a refusal, an error is E0805 with the stage's name.
//! - A library is never unloaded: specs, names and vtables live as long as the program.
//!
//! What this version does not take is refused by name, at load or at `bind`: input kept beyond a
//! call, instances that must stay on one thread.
#![allow(unsafe_code)]

mod aggregate;
mod arguments;
mod bind;
pub mod child;
pub mod conform;
mod elf;
mod host;
mod isolate;
mod library;
mod meter;
mod note;
mod params;
mod project;
mod run;
mod scalar;
mod sink;
mod source;

pub use isolate::{Isolation, WORKER_COMMAND, work};
pub use library::{Library, Plugins, Refusal, Verified, verify};
pub use meter::{Meter, Usage, collect, isolated, usage};
pub use note::{Note, NoteStage};
pub use project::{Entry, LOCK_FILE, Lock, Locked, PROJECT_FILE, Project};

use crate::expr::{AggregateSpec, FunctionSpec};
use standpipe_sdk::ffi::{self, PLUGIN_FAILED};
use standpipe_sdk::spec::{Bound, Call, Complaint, Kind, StageSpec};
use standpipe_sdk::{Code, Error, Result};
use std::ffi::{CStr, c_char};

/// There is no such plugin.
const NOT_FOUND: Code = Code(801);
/// It is not the file that the project trusts.
const NOT_TRUSTED: Code = Code(802);
/// The library has no valid entry point.
const DOES_NOT_LOAD: Code = Code(803);
/// Its ABI does not fit.
const WRONG_ABI: Code = Code(804);
/// Out of memory, where repeating on less is no way out.
const NO_ROOM: Code = Code(701);
/// The process of an isolated plugin was lost.
const PROCESS_LOST: Code = Code(806);

/// What a plugin brings.
#[derive(Default)]
pub struct Contents {
    pub stages: Vec<&'static StageSpec>,
    pub sources: Vec<&'static StageSpec>,
    pub sinks: Vec<&'static StageSpec>,
    pub functions: Vec<&'static FunctionSpec>,
    pub aggregates: Vec<&'static AggregateSpec>,
}

/// What a plugin brings, after its `init`; to be asked once. `path` is where the library is; names get `prefix` before them.
///
/// # Errors
/// If the plugin is made for another ABI, refuses to start, or a stage is declared wrongly.
///
/// # Safety
/// `plugin` is what the entry function of a library gave that is never unloaded and that keeps to the contract of the header.
pub unsafe fn contents_of(plugin: &'static ffi::Plugin, path: &str, prefix: &str) -> Result<Contents> {
    // SAFETY: passed on.
    unsafe { begin(plugin, path)? }
    let fail = |code, message: &str| Err(Error::failed(code, message));
    let mut contents = Contents::default();
    for at in 0..plugin.n_stages as usize {
        // SAFETY: `stages` has `n_stages` pointers to stages, by the caller's promise.
        let Some(stage) = (unsafe { (*plugin.stages.add(at)).as_ref() }) else {
            return fail(DOES_NOT_LOAD, "a stage of the plugin is NULL");
        };
        // SAFETY: the caller's promise.
        let vtable = unsafe { vtable_of(stage, prefix)? };
        match stage.kind {
            ffi::KIND_TRANSFORM => contents.stages.push(spec_of(vtable, Kind::RowWise, bind::bind)?),
            ffi::KIND_SOURCE => contents.sources.push(spec_of(vtable, Kind::Source, source::bind)?),
            ffi::KIND_SINK => contents.sinks.push(spec_of(vtable, Kind::Sink, sink::bind)?),
            ffi::KIND_SCALAR => contents.functions.push(scalar::spec_of(vtable)?),
            ffi::KIND_AGGREGATE => contents.aggregates.push(aggregate::spec_of(vtable)?),
            _ => {
                let message = format!("`{}` is of a kind that this version does not run", vtable.name);
                return fail(DOES_NOT_LOAD, &message);
            }
        }
    }
    Ok(contents)
}

/// Looks at a plugin's description, and lets it start.
///
/// # Safety
/// As [`contents_of`].
unsafe fn begin(plugin: &'static ffi::Plugin, path: &str) -> Result<()> {
    let fail = |code, message: &str| Err(Error::failed(code, message));
    if (plugin.struct_size as usize) < size_of::<ffi::Plugin>() {
        return fail(DOES_NOT_LOAD, "the plugin's description is too short");
    }
    if plugin.abi_major != ffi::ABI_MAJOR {
        let message = format!(
            "the plugin is made for ABI {}, this is {}",
            plugin.abi_major,
            ffi::ABI_MAJOR
        );
        return fail(WRONG_ABI, &message);
    }
    if plugin.stages.is_null() && plugin.n_stages > 0 {
        return fail(DOES_NOT_LOAD, "the plugin's stages are missing");
    }
    if let Some(init) = plugin.init {
        let mut error = ffi::ErrorOut::EMPTY;
        // SAFETY: the caller's promise; all arguments are valid for the call.
        let status = unsafe { init(host::host(), ffi::Str::new(path), &raw mut error) };
        if status < 0 {
            return fail(
                PLUGIN_FAILED,
                &format!("the plugin does not start: {}", said(status, &error)),
            );
        }
    }
    Ok(())
}

/// The stages of [`contents_of`], under their bare names.
///
/// # Errors
/// As [`contents_of`].
///
/// # Safety
/// As [`contents_of`].
pub unsafe fn stages_of(plugin: &'static ffi::Plugin, path: &str) -> Result<Vec<&'static StageSpec>> {
    // SAFETY: passed on.
    Ok(unsafe { contents_of(plugin, path, "")? }.stages)
}

/// A stage whose functions were seen to be there.
///
/// # Safety
/// The stage keeps to the contract of the header and lives in a library that is never unloaded.
unsafe fn vtable_of(stage: &'static ffi::Stage, prefix: &str) -> Result<bind::Vtable> {
    let fail = |message: String| Err(Error::failed(DOES_NOT_LOAD, message));
    if (stage.struct_size as usize) < size_of::<ffi::Stage>() {
        return fail("a stage's description is too short".into());
    }
    // SAFETY: strings of a stage are NULL or end with a NUL, by the caller's promise.
    let (name, about, params) = unsafe { (text(stage.name), text(stage.summary), text(stage.params)) };
    let Some(name) = name.filter(|name| is_name(name)) else {
        return fail("a stage's name is no name".into());
    };
    let (Some(bind), Some(create), Some(destroy)) = (stage.bind, stage.create, stage.destroy) else {
        return fail(format!("`{name}` lacks one of bind, create, destroy"));
    };
    if stage.process.is_none() && stage.kind != ffi::KIND_AGGREGATE {
        return fail(format!("`{name}` lacks `process`"));
    }
    let name = match prefix {
        "" => name,
        prefix => Box::leak(format!("{prefix}.{name}").into_boxed_str()),
    };
    Ok(bind::Vtable {
        stage,
        name,
        about: about.unwrap_or("").trim_end_matches('.'),
        params,
        bind,
        create,
        process: stage.process,
        destroy,
    })
}

/// The spec of a stage. It is made once and stays.
fn spec_of(
    vtable: bind::Vtable,
    kind: Kind,
    bind: fn(bind::Vtable, &Call<'_>) -> Result<Bound, Vec<Complaint>>,
) -> Result<&'static StageSpec> {
    let takes = params::of_stage(vtable.params).map_err(|what| wrong_params(vtable.name, &what))?;
    let bind = Box::leak(Box::new(move |call: &Call<'_>| bind(vtable, call)));
    Ok(Box::leak(Box::new(StageSpec {
        name: vtable.name,
        about: vtable.about,
        kind,
        modes: takes.modes,
        items: takes.items,
        by: takes.by,
        on: takes.on,
        as_name: takes.as_name,
        options: takes.options,
        order: takes.order,
        memory: takes.memory,
        least: if kind == Kind::Sink {
            sink::least_of
        } else {
            StageSpec::BASE.least
        },
        bind,
        ..StageSpec::BASE
    })))
}

fn wrong_params(name: &str, what: &str) -> Error {
    Error::failed(
        DOES_NOT_LOAD,
        format!("the parameters of `{name}` are not understood: {what}"),
    )
}

/// A name as scripts write it.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A string of a library that stays; `None` for NULL and what is not UTF-8.
unsafe fn text(text: *const c_char) -> Option<&'static str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and ends with a NUL: the promise to `vtable_of`.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// The code of a failed call.
fn code_of(status: ffi::Status) -> Code {
    match status {
        isolate::E_PROCESS => PROCESS_LOST,
        isolate::E_NO_ROOM => NO_ROOM,
        _ => PLUGIN_FAILED,
    }
}

/// What a failed call says: its own words, or the name of its status.
fn said(status: ffi::Status, error: &ffi::ErrorOut) -> String {
    let text = error.text();
    if !text.is_empty() {
        return text;
    }
    let names = [
        "config",
        "schema",
        "data",
        "io",
        "memory",
        "cancelled",
        "unsupported",
        "internal",
        "panic",
    ];
    match usize::try_from(-i64::from(status) - 1)
        .ok()
        .and_then(|at| names.get(at))
    {
        Some(name) => format!("{name} error without a message"),
        None => format!("status {status} without a message"),
    }
}
