//! The C side of the ground floor: `include/standpipe_plugin.h` in Rust, and batches as Arrow arrays.
//!
//! Laws
//! - Every struct here has the layout of its namesake in the header; `tests/c_stage.rs` compares them with a C compiler.
//! - A struct made elsewhere is read only as far as its `struct_size` says it goes.
//! - What goes out is lent and counted ([`lend::Lease`]); what comes in is checked before it is believed ([`import`]).
#![allow(unsafe_code)]

pub mod import;
pub mod lend;
pub mod schema;

use std::ffi::{c_char, c_void};

/// Version of the ABI: the major one is also in [`ENTRY_SYMBOL`].
pub const ABI_MAJOR: u32 = 1;
pub const ABI_MINOR: u32 = 0;
/// The one symbol that a plugin exports.
pub const ENTRY_SYMBOL: &str = "standpipe_plugin_entry_v1";

/// What a plugin's code that is not ours says or does wrong.
pub const PLUGIN_FAILED: crate::Code = crate::Code(805);

/// `ArrowSchema`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArrowSchema {
    pub format: *const c_char,
    pub name: *const c_char,
    pub metadata: *const c_char,
    pub flags: i64,
    pub n_children: i64,
    pub children: *mut *mut ArrowSchema,
    pub dictionary: *mut ArrowSchema,
    pub release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    pub private_data: *mut c_void,
}

/// `ArrowArray`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArrowArray {
    pub length: i64,
    pub null_count: i64,
    pub offset: i64,
    pub n_buffers: i64,
    pub n_children: i64,
    pub buffers: *mut *const c_void,
    pub children: *mut *mut ArrowArray,
    pub dictionary: *mut ArrowArray,
    pub release: Option<ReleaseArray>,
    pub private_data: *mut c_void,
}

/// What `ArrowArray::release` is.
pub type ReleaseArray = unsafe extern "C" fn(*mut ArrowArray);

impl ArrowSchema {
    /// A released schema.
    pub const EMPTY: ArrowSchema = ArrowSchema {
        format: std::ptr::null(),
        name: std::ptr::null(),
        metadata: std::ptr::null(),
        flags: 0,
        n_children: 0,
        children: std::ptr::null_mut(),
        dictionary: std::ptr::null_mut(),
        release: None,
        private_data: std::ptr::null_mut(),
    };
}

impl ArrowArray {
    /// A released array.
    pub const EMPTY: ArrowArray = ArrowArray {
        length: 0,
        null_count: 0,
        offset: 0,
        n_buffers: 0,
        n_children: 0,
        buffers: std::ptr::null_mut(),
        children: std::ptr::null_mut(),
        dictionary: std::ptr::null_mut(),
        release: None,
        private_data: std::ptr::null_mut(),
    };
}

/// `sp_str`: text that somebody else owns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Str {
    pub ptr: *const c_char,
    pub len: usize,
}

// SAFETY: a pointer and a length; reading through it is the reader's own unsafe act.
unsafe impl Sync for Str {}

impl Str {
    /// Text as C sees it, as long as `text` lives.
    pub const fn new(text: &str) -> Str {
        Str {
            ptr: text.as_ptr().cast(),
            len: text.len(),
        }
    }

    /// The bytes; none for NULL or a length that no text has.
    ///
    /// # Safety
    /// Unless `ptr` is NULL, `len` bytes there are readable for `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len > isize::MAX as usize {
            return &[];
        }
        // SAFETY: the caller's promise; NULL and impossible lengths are out.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.len) }
    }
}

/// `sp_status`.
pub type Status = i32;
pub const OK: Status = 0;
pub const MORE: Status = 1;
pub const PENDING: Status = 2;
pub const EOS: Status = 3;
pub const E_CONFIG: Status = -1;
pub const E_SCHEMA: Status = -2;
pub const E_DATA: Status = -3;
pub const E_IO: Status = -4;
pub const E_UNSUPPORTED: Status = -7;
pub const E_MEMORY: Status = -5;
pub const E_CANCELLED: Status = -6;
pub const E_INTERNAL: Status = -8;
pub const E_PANIC: Status = -9;

/// `sp_error`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ErrorOut {
    pub struct_size: u32,
    pub flags: u32,
    pub row: i64,
    pub column: i32,
    pub retry_ms: u32,
    pub param: [u8; 64],
    pub message: [u8; 1024],
}

/// In `ErrorOut::flags`: only `destroy` is legal from now on.
pub const ERR_POISONED: u32 = 2;

impl ErrorOut {
    /// As the host hands it out.
    pub const EMPTY: ErrorOut = ErrorOut {
        struct_size: size_of::<ErrorOut>() as u32,
        flags: 0,
        row: -1,
        column: -1,
        retry_ms: 0,
        param: [0; 64],
        message: [0; 1024],
    };

    /// What the plugin wrote, up to the NUL; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        until_nul(&self.message)
    }

    /// The argument at fault; empty if none is.
    pub fn param(&self) -> String {
        until_nul(&self.param)
    }
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `sp_host`.
#[repr(C)]
pub struct Host {
    pub struct_size: u32,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub reserved: u32,
    pub name: Str,
    pub version: Str,
    pub alloc: unsafe extern "C" fn(*const Call, usize) -> *mut c_void,
    pub grow: unsafe extern "C" fn(*const Call, *mut c_void, usize, usize) -> *mut c_void,
    pub arena_release: ReleaseArray,
    pub emit: unsafe extern "C" fn(*const Call, *mut ArrowArray) -> Status,
    pub reject: unsafe extern "C" fn(*const Call, i64, i32, Str, Str) -> Status,
    pub reserve: unsafe extern "C" fn(*mut c_void, i64) -> Status,
    pub log: unsafe extern "C" fn(*mut c_void, i32, Str),
    pub cancelled: unsafe extern "C" fn(*mut c_void) -> i32,
    pub extension: unsafe extern "C" fn(*const c_char) -> *const c_void,
}

/// `sp_call`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub struct_size: u32,
    pub input_port: u32,
    pub host: *const Host,
    pub owner: *mut c_void,
    pub batch_seq: u64,
    pub max_rows: u64,
    pub folder: Str,
    pub run_flags: u32,
    pub reserved: u32,
}

/// In `Call::run_flags`: a sink need not wait until its output is on the disk.
pub const RUN_NO_SYNC: u32 = 1;

/// Kinds of stages.
pub const KIND_SOURCE: u32 = 1;
pub const KIND_TRANSFORM: u32 = 2;
pub const KIND_SINK: u32 = 3;
pub const KIND_SCALAR: u32 = 4;
pub const KIND_AGGREGATE: u32 = 5;

/// How memory of the plugin's own grows.
pub const MEM_BATCH: u32 = 0;
pub const MEM_CONSTANT: u32 = 1;
pub const MEM_GROUPS: u32 = 2;
pub const MEM_FRAME: u32 = 3;
pub const MEM_SPILL: u32 = 4;
pub const MEM_HELD: u32 = 5;

/// Ways to be parallel.
pub const PAR_SERIAL: u32 = 0;
pub const PAR_STATELESS: u32 = 1;
pub const PAR_KEYED: u32 = 2;
pub const PAR_SPLITS: u32 = 3;

/// Flags of a stage; those from bit 16 on must be understood.
pub const F_PRESERVES_ORDER: u32 = 1 << 0;
pub const F_NEEDS_ORDER: u32 = 1 << 1;
pub const F_ROW_ALIGNED: u32 = 1 << 2;
pub const F_DETERMINISTIC: u32 = 1 << 3;
pub const F_BLOCKING: u32 = 1 << 4;
pub const F_SNAPSHOT: u32 = 1 << 5;
pub const F_NULL_PROPAGATING: u32 = 1 << 6;
pub const F_REJECTS: u32 = 1 << 7;
pub const F_RETAINS_INPUT: u32 = 1 << 16;
pub const F_THREAD_AFFINE: u32 = 1 << 17;
pub const F_ROW_OF: u32 = 1 << 18;
pub const F_MUST_UNDERSTAND: u32 = 0xffff_0000;

/// `sp_bind_in`.
#[repr(C)]
pub struct BindIn {
    pub struct_size: u32,
    pub n_inputs: u32,
    pub inputs: *const *const ArrowSchema,
    pub config_json: Str,
    pub max_workers: u32,
    pub flags: u32,
    pub n_own: u32,
    pub reserved: u32,
}

/// `sp_bind_out`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BindOut {
    pub struct_size: u32,
    pub flags: u32,
    pub schema: ArrowSchema,
    pub bound: *mut c_void,
    pub parallelism: u32,
    pub n_splits: u32,
    pub key_columns: *const i32,
    pub n_keys: u32,
    pub max_workers: u32,
    pub used_columns: *const i32,
    pub n_used_columns: u32,
    pub memory: u32,
    pub from_columns: *const i32,
}

impl BindOut {
    /// As the host hands it out.
    pub const EMPTY: BindOut = BindOut {
        struct_size: size_of::<BindOut>() as u32,
        flags: 0,
        schema: ArrowSchema::EMPTY,
        bound: std::ptr::null_mut(),
        parallelism: 0,
        n_splits: 0,
        key_columns: std::ptr::null(),
        n_keys: 0,
        max_workers: 0,
        used_columns: std::ptr::null(),
        n_used_columns: 0,
        memory: 0,
        from_columns: std::ptr::null(),
    };
}

/// `sp_write_fn`.
pub type Write = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> Status;

/// `sp_stage`. All fields are there in every version 1; a function may be NULL.
#[repr(C)]
pub struct Stage {
    pub struct_size: u32,
    pub kind: u32,
    pub flags: u32,
    pub state_version: u32,
    pub name: *const c_char,
    pub version: *const c_char,
    pub summary: *const c_char,
    pub doc_md: *const c_char,
    pub params: *const c_char,
    pub bind:
        Option<unsafe extern "C" fn(*const Stage, *const Host, *const BindIn, *mut BindOut, *mut ErrorOut) -> Status>,
    pub unbind: Option<unsafe extern "C" fn(*mut c_void)>,
    pub create: Option<unsafe extern "C" fn(*mut c_void, *const Call, u32, *mut *mut c_void, *mut ErrorOut) -> Status>,
    pub process: Option<Process>,
    pub finish: Option<unsafe extern "C" fn(*mut c_void, *const Call, *mut ArrowArray, *mut ErrorOut) -> Status>,
    pub snapshot: Option<unsafe extern "C" fn(*mut c_void, *const Call, Write, *mut c_void, *mut ErrorOut) -> Status>,
    pub restore:
        Option<unsafe extern "C" fn(*mut c_void, *const Call, u32, *const c_void, usize, *mut ErrorOut) -> Status>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
    pub extension: Option<unsafe extern "C" fn(*const Stage, *const c_char) -> *const c_void>,
}

/// `sp_stage.process`.
pub type Process =
    unsafe extern "C" fn(*mut c_void, *const Call, *mut ArrowArray, *mut ArrowArray, *mut ErrorOut) -> Status;

// SAFETY: a stage is constant data of a library that is never unloaded; its functions say themselves what may run in parallel.
unsafe impl Sync for Stage {}
// SAFETY: as above.
unsafe impl Send for Stage {}
// SAFETY: as for a stage.
unsafe impl Sync for Plugin {}

/// What a stage of kind [`KIND_AGGREGATE`] answers with an [`Aggregate`].
pub const AGGREGATE_EXTENSION: &std::ffi::CStr = c"standpipe.aggregate/1";

/// Group numbers and rows or states of an aggregate.
pub type Gather = unsafe extern "C" fn(*mut c_void, *const Call, *const u32, *mut ArrowArray, *mut ErrorOut) -> Status;
/// How many groups there are to be, and the rows or states that come next.
pub type Room = unsafe extern "C" fn(*mut c_void, *const Call, u32, *const ArrowArray, *mut ErrorOut) -> Status;
/// Groups of an aggregate, and where their states or values go.
pub type Give =
    unsafe extern "C" fn(*mut c_void, *const Call, u32, *const u32, *mut ArrowArray, *mut ErrorOut) -> Status;

/// `sp_aggregate`. All fields are there in every version 1; `room` and `room_to_merge` may be NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Aggregate {
    pub struct_size: u32,
    pub flags: u32,
    pub state_size: usize,
    pub state_schema: Option<unsafe extern "C" fn(*mut c_void, *mut ArrowSchema, *mut ErrorOut) -> Status>,
    pub room: Option<Room>,
    pub room_to_merge: Option<Room>,
    pub update: Option<Gather>,
    pub merge: Option<Gather>,
    pub state: Option<Give>,
    pub finalize: Option<Give>,
    pub clear: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// What a stage of kind [`KIND_SINK`] may answer with a [`Sink`].
pub const SINK_EXTENSION: &std::ffi::CStr = c"standpipe.sink/1";

/// `sp_published`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Published {
    pub struct_size: u32,
    pub flags: u32,
    pub rows: u64,
    pub bytes: u64,
    pub name: [u8; 1024],
}

impl Published {
    /// As the host hands it out.
    pub const EMPTY: Published = Published {
        struct_size: size_of::<Published>() as u32,
        flags: 0,
        rows: 0,
        bytes: 0,
        name: [0; 1024],
    };

    /// What the plugin wrote, up to the NUL; what is not UTF-8 is replaced.
    pub fn name(&self) -> String {
        until_nul(&self.name)
    }
}

/// `sp_sink`. All fields are there in every version 1.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sink {
    pub struct_size: u32,
    pub flags: u32,
    pub publish: Option<Publish>,
}

/// `sp_sink.publish`.
pub type Publish = unsafe extern "C" fn(*mut c_void, *const Call, *mut Published, *mut ErrorOut) -> Status;

/// `sp_plugin`.
#[repr(C)]
pub struct Plugin {
    pub struct_size: u32,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub n_stages: u32,
    pub id: *const c_char,
    pub version: *const c_char,
    pub license: *const c_char,
    pub build_info: *const c_char,
    pub stages: *const *const Stage,
    pub init: Option<unsafe extern "C" fn(*const Host, Str, *mut ErrorOut) -> Status>,
    pub deinit: Option<unsafe extern "C" fn()>,
    pub extension: Option<unsafe extern "C" fn(*const c_char) -> *const c_void>,
}

/// The type of [`ENTRY_SYMBOL`].
pub type Entry = unsafe extern "C" fn() -> *const Plugin;
