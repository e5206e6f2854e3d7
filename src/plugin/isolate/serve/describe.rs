//! What a library's tables say, for the host.
#![allow(unsafe_code)]

use super::super::wire::Writer;
use super::super::{has, table_has};
use standpipe_sdk::ffi;
use std::ffi::{CStr, c_char, c_void};

/// A text of a plugin's table; none for NULL and what is not UTF-8.
pub(super) fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: strings of a plugin are NULL or end with a NUL.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// Writes a stage as [`Described`](super::super::Described) reads it.
pub(super) fn describe(stage: &ffi::Stage, to: &mut Writer) {
    to.u32(stage.struct_size);
    if (stage.struct_size as usize) < size_of::<ffi::Stage>() {
        // No more of it may be read.
        to.u32(0)
            .u32(0)
            .u32(0)
            .text(None)
            .text(None)
            .text(None)
            .text(None)
            .text(None)
            .u32(0)
            .u8(0);
        return;
    }
    to.u32(stage.kind).u32(stage.flags).u32(stage.state_version);
    for it in [stage.name, stage.version, stage.summary, stage.doc_md, stage.params] {
        to.text(text(it));
    }
    let bits = [
        (stage.bind.is_some(), has::BIND),
        (stage.unbind.is_some(), has::UNBIND),
        (stage.create.is_some(), has::CREATE),
        (stage.process.is_some(), has::PROCESS),
        (stage.finish.is_some(), has::FINISH),
        (stage.destroy.is_some(), has::DESTROY),
        (stage.extension.is_some(), has::EXTENSION),
        (stage.snapshot.is_some(), has::SNAPSHOT),
        (stage.restore.is_some(), has::RESTORE),
    ];
    to.u32(sum(&bits));
    let id = match stage.kind {
        ffi::KIND_SINK => ffi::SINK_EXTENSION,
        ffi::KIND_AGGREGATE => ffi::AGGREGATE_EXTENSION,
        _ => {
            to.u8(0);
            return;
        }
    };
    let table = match stage.extension {
        // SAFETY: the function keeps to the header, or this process is lost.
        Some(extension) => unsafe { extension(stage, id.as_ptr()) },
        None => std::ptr::null(),
    };
    if table.is_null() {
        to.u8(0);
        return;
    }
    to.u8(1);
    // SAFETY: by the header, under this name stands a table of this kind, which begins with its size and lives as long as the library.
    unsafe {
        match stage.kind {
            ffi::KIND_SINK => sink(table, to),
            _ => aggregate(table, to),
        }
    }
}

fn sum(bits: &[(bool, u32)]) -> u32 {
    bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum()
}

/// # Safety
/// There is an `sp_sink`, as long as its size says.
unsafe fn sink(table: *const c_void, to: &mut Writer) {
    // SAFETY: the caller's promise: a table begins with its size, and is read no further.
    unsafe {
        let size = table.cast::<u32>().read();
        to.u32(size);
        if (size as usize) < size_of::<ffi::Sink>() {
            to.u32(0).u64(0).u32(0);
            return;
        }
        let table = &*table.cast::<ffi::Sink>();
        to.u32(table.flags).u64(0);
        to.u32(sum(&[(table.publish.is_some(), table_has::PUBLISH)]));
    }
}

/// # Safety
/// There is an `sp_aggregate`, as long as its size says.
unsafe fn aggregate(table: *const c_void, to: &mut Writer) {
    // SAFETY: as above.
    unsafe {
        let size = table.cast::<u32>().read();
        to.u32(size);
        if (size as usize) < size_of::<ffi::Aggregate>() {
            to.u32(0).u64(0).u32(0);
            return;
        }
        let table = &*table.cast::<ffi::Aggregate>();
        to.u32(table.flags).u64(table.state_size as u64);
        to.u32(sum(&[
            (table.state_schema.is_some(), table_has::STATE_SCHEMA),
            (table.room.is_some(), table_has::ROOM),
            (table.room_to_merge.is_some(), table_has::ROOM_TO_MERGE),
            (table.update.is_some(), table_has::UPDATE),
            (table.merge.is_some(), table_has::MERGE),
            (table.state.is_some(), table_has::STATE),
            (table.finalize.is_some(), table_has::FINALIZE),
            (table.clear.is_some(), table_has::CLEAR),
        ]));
    }
}
