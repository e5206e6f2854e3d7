//! Where a split of a source is in its process: `snapshot` and `restore`, which other stages may have as well.
#![allow(unsafe_code)]

use super::super::arrays::{Land, Stopped};
use super::super::wire::{Broken, Writer, ask};
use super::instance::{Asked, Instance, nothing};
use super::serving::{Landing, Serving};
use super::{Failed, entry};
use standpipe_sdk::ffi::{self, ErrorOut, Status, Write};
use std::ffi::c_void;

pub(super) unsafe extern "C" fn snapshot(
    inst: *mut c_void,
    call: *const ffi::Call,
    write: Write,
    to: *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        entry(error, || {
            let (instance, call, left) = (&mut *inst.cast::<Instance>(), &*call, &mut *error);
            instance.within(call, |instance, worker| {
                let asked = Asked::bare(ask::SNAPSHOT, "snapshot");
                let answered = instance.ask(worker, call, &mut Serving::new(call, &[]), asked, |rest, shared| {
                    let at = rest.u64()?;
                    let len = usize::try_from(rest.u64()?).map_err(|_| Broken)?;
                    match (Landing { call, shared }).load(at, len) {
                        Err(Stopped::Broken) => Err(Broken),
                        loaded => Ok(loaded.map(|bytes| (bytes, len))),
                    }
                })?;
                *left = answered.error;
                let (bytes, len) = answered.rest.map_err(|why| Serving::new(call, &[]).stopped(why))?;
                match write(to, bytes, len) {
                    ..0 => Err(Failed::new(ffi::E_MEMORY, "")),
                    _ => Ok(answered.status),
                }
            })
        })
    }
}

pub(super) unsafe extern "C" fn restore(
    inst: *mut c_void,
    call: *const ffi::Call,
    version: u32,
    bytes: *const c_void,
    len: usize,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `snapshot`; so many bytes are there, for the call.
    unsafe {
        entry(error, || {
            let (instance, call, left) = (&mut *inst.cast::<Instance>(), &*call, &mut *error);
            let mut head = Writer::default();
            head.u32(version);
            let bytes = match len {
                0 => &[],
                _ => std::slice::from_raw_parts(bytes.cast::<u8>(), len),
            };
            instance.within(call, |instance, worker| {
                let asked = Asked {
                    head,
                    bytes: Some(bytes),
                    ..Asked::bare(ask::RESTORE, "restore")
                };
                let answered = instance.ask(worker, call, &mut Serving::new(call, &[]), asked, nothing)?;
                *left = answered.error;
                Ok(answered.status)
            })
        })
    }
}
