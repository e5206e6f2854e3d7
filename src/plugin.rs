//! Stages of plugin libraries: a C vtable becomes the same spec that a built-in has.
//!
//! Laws
//! - Nothing behind here knows that a stage is foreign: [`spec_of`] gives a spec, `bind` a `RowWise` or `Serial` factory.
//! - What a plugin says is checked as far as it can be; a lie, a refusal, an error is E0805 with the stage's name.
//! - A library is never unloaded: specs, names and vtables live as long as the program.
//!
//! What this version does not take is refused by name, at load or at `bind`: other kinds than transforms, arguments, stages that
//! are not row-aligned, input kept beyond a call.
#![allow(unsafe_code)]

mod bind;
mod host;
mod run;

use standpipe_sdk::ffi::{self, PLUGIN_FAILED};
use standpipe_sdk::spec::{Kind, Memory, Order, StageSpec};
use standpipe_sdk::{Code, Error, Result};
use std::ffi::{CStr, c_char};

/// The library has no valid entry point.
const DOES_NOT_LOAD: Code = Code(803);
/// Its ABI does not fit.
const WRONG_ABI: Code = Code(804);

/// The specs of a plugin's stages, after its `init`; to be asked once. `path` is where the library is.
///
/// # Errors
/// If the plugin is made for another ABI, refuses to start, or a stage is declared wrongly.
///
/// # Safety
/// `plugin` is what the entry function of a library gave that is never unloaded and that keeps to the contract of the header.
pub unsafe fn stages_of(plugin: &'static ffi::Plugin, path: &str) -> Result<Vec<&'static StageSpec>> {
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
    let stage = |at: usize| {
        // SAFETY: `stages` has `n_stages` pointers to stages, by the caller's promise.
        match unsafe { (*plugin.stages.add(at)).as_ref() } {
            // SAFETY: passed on.
            Some(stage) => unsafe { spec_of(stage) },
            None => Err(Error::failed(DOES_NOT_LOAD, "a stage of the plugin is NULL")),
        }
    };
    (0..plugin.n_stages as usize).map(stage).collect()
}

/// The spec of one stage. It is made once and stays.
///
/// # Errors
/// If the stage is declared wrongly, or is of a kind that this version does not run.
///
/// # Safety
/// The stage keeps to the contract of the header and lives in a library that is never unloaded.
pub unsafe fn spec_of(stage: &'static ffi::Stage) -> Result<&'static StageSpec> {
    let fail = |message: String| Err(Error::failed(DOES_NOT_LOAD, message));
    if (stage.struct_size as usize) < size_of::<ffi::Stage>() {
        return fail("a stage's description is too short".into());
    }
    // SAFETY: strings of a stage are NULL or end with a NUL, by the caller's promise.
    let (name, about) = unsafe { (text(stage.name), text(stage.summary)) };
    let Some(name) = name.filter(|name| is_name(name)) else {
        return fail("a stage's name is no name".into());
    };
    if stage.kind != ffi::KIND_TRANSFORM {
        return fail(format!("`{name}` is no transform: this version runs only those"));
    }
    if !stage.params_schema.is_null() {
        return fail(format!("`{name}` takes arguments: this version gives none"));
    }
    let (Some(bind), Some(create), Some(process), Some(destroy)) =
        (stage.bind, stage.create, stage.process, stage.destroy)
    else {
        return fail(format!("`{name}` lacks one of bind, create, process, destroy"));
    };
    let vtable = bind::Vtable {
        stage,
        name,
        bind,
        create,
        process,
        destroy,
    };
    let bind = Box::leak(Box::new(move |call: &standpipe_sdk::spec::Call<'_>| {
        bind::bind(vtable, call)
    }));
    Ok(Box::leak(Box::new(StageSpec {
        name,
        about: about.unwrap_or("").trim_end_matches('.'),
        kind: Kind::RowWise,
        order: Order::Keeps,
        memory: Memory::Held,
        bind,
        ..StageSpec::BASE
    })))
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
    // SAFETY: not NULL, and ends with a NUL: the promise to `spec_of`.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
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
