//! `publish` of a sink in its process.
#![allow(unsafe_code)]

use super::super::wire::ask;
use super::super::{Table, table_has};
use super::entry;
use super::instance::{Asked, Instance};
use super::serving::Serving;
use standpipe_sdk::ffi::{self, ErrorOut, Status};
use std::ffi::c_void;

/// The table that stands for the plugin's, as long as that is.
pub(super) fn table(described: &Table) -> ffi::Sink {
    ffi::Sink {
        struct_size: described.struct_size,
        flags: described.flags,
        publish: (described.has & table_has::PUBLISH != 0).then_some(publish as _),
    }
}

unsafe extern "C" fn publish(
    inst: *mut c_void,
    call: *const ffi::Call,
    out: *mut ffi::Published,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`; `out` is our own host's.
    unsafe {
        entry(error, || {
            let (instance, call, out, left) = (&mut *inst.cast::<Instance>(), &*call, &mut *out, &mut *error);
            instance.within(call, |instance, worker| {
                let asked = Asked::bare(ask::PUBLISH, "publish");
                let answered = instance.ask(worker, call, &mut Serving::new(call, &[]), asked, |rest, _| {
                    (out.rows, out.bytes) = (rest.u64()?, rest.u64()?);
                    let name = rest.bytes()?;
                    // Readers look for the NUL or the end.
                    let len = name.len().min(out.name.len());
                    out.name[..len].copy_from_slice(&name[..len]);
                    Ok(())
                })?;
                *left = answered.error;
                Ok(answered.status)
            })
        })
    }
}
