//! Where a split of a source is in its process: `snapshot` and `restore`, which other stages may have as well.
#![allow(unsafe_code)]

use super::super::wire::{LONGEST_SNAPSHOT, Writer, ask};
use super::instance::{Asked, Instance, nothing};
use super::serving::Serving;
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
                let answered = instance.ask(worker, call, &mut Serving::new(call, &[]), asked, |_, rest, _| {
                    let bytes = rest.bytes()?;
                    Ok(write(to, bytes.as_ptr().cast(), bytes.len()))
                })?;
                *left = answered.error;
                match answered.rest {
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
            if len > LONGEST_SNAPSHOT {
                return Err(Failed::new(ffi::E_UNSUPPORTED, "the snapshot is too long"));
            }
            let mut head = Writer::default();
            head.u32(version).bytes(match len {
                0 => &[],
                _ => std::slice::from_raw_parts(bytes.cast::<u8>(), len),
            });
            instance.within(call, |instance, worker| {
                let asked = Asked {
                    head,
                    ..Asked::bare(ask::RESTORE, "restore")
                };
                let answered = instance.ask(worker, call, &mut Serving::new(call, &[]), asked, nothing)?;
                *left = answered.error;
                Ok(answered.status)
            })
        })
    }
}
