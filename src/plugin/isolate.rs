//! `isolate = "process"`: a plugin's library in child processes, behind the same vtable.
//!
//! How it works. A child is this program (or one that the embedding host names) with a hidden subcommand. It gets the verified bytes of
//! the library as a sealed file in memory, loads them, and is to the plugin what the host is: it has the host's own table of services,
//! binds and checks with the host's own code. The host has a table of stand-ins (`proxy`), so that nothing above the vtable knows. A
//! call is a frame over a socket (`wire`); rows lie in memory that both share (`shared`, `arrays`).
//!
//! Laws
//! - Nothing of the library runs in the host: what a plugin does ends its child at most, and is E0806 with the stage's name.
//! - A call waits for its child no longer than the timeout; a child dies with its host, whatever it does.
//! - The same rows, rejections and errors as without: children check what the plugin gives as the host does, and the host again.
//!
//! One child per instance of a stage: so stages run in parallel as they would in threads, one's fault is never another's, and no child
//! has two calls at once. Functions have no instances that differ: they share as many children as workers call them at once. An
//! aggregate has an instance per table of groups, and there may be many: they share a few children, each for one call at a time; half of
//! a child's memory is for their states, and what is more goes to disk as for want of the run's memory. A child whose instances are gone
//! waits for the next; one waits for good once nothing is bound.

mod arrays;
mod last_words;
mod proxy;
mod serve;
mod shared;
mod wire;
mod worker;

pub(super) use proxy::isolation_of;
pub use serve::work;
pub use worker::WORKER_COMMAND;

use super::{DOES_NOT_LOAD, PROCESS_LOST};
use standpipe_sdk::ffi::{self, Status};
use standpipe_sdk::{Code, Error, Field, Result, Schema, Type};
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::{Broken, Read, Reader};
use worker::{Lost, Worker};

/// The status of a call whose process was lost. It never comes from a plugin.
pub(super) const E_PROCESS: Status = -100;

/// The status of a call that gave rows for which the host has no room, and which cannot be asked for again. It never comes from a plugin.
pub(super) const E_NO_ROOM: Status = -101;

/// The limits of a plugin in processes of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Isolation {
    /// How long a call may be silent.
    pub timeout: Duration,
    /// What a process may take of memory beside the program and the library, in bytes; and the most that one call may give.
    pub memory: u64,
}

impl Default for Isolation {
    fn default() -> Self {
        Isolation {
            timeout: Duration::from_secs(10),
            memory: 256 << 20,
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in processes of its own: timeout {}, memory {}",
            super::child::seconds(self.timeout),
            worker::shown(self.memory)
        )
    }
}

/// A plugin whose library is loaded in children only. It lives as long as the program.
struct Plugin {
    /// Where its library was, for its `init`.
    path: String,
    /// The program of its processes.
    worker: PathBuf,
    /// The library's verified bytes.
    library: OwnedFd,
    isolation: Isolation,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    workers: Vec<Worker>,
    /// Bound stages and functions.
    bound: usize,
}

impl Plugin {
    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process, if possible one in which this is bound.
    fn take(&self, bound: Option<u64>) -> Result<Worker, Lost> {
        let found = {
            let workers = &mut self.idle().workers;
            let best = workers
                .iter()
                .rposition(|w| bound.is_some_and(|id| w.bounds.contains(&id)));
            let at = best.or(workers.len().checked_sub(1));
            at.map(|at| workers.swap_remove(at))
        };
        if let Some(mut worker) = found
            && worker.is_fit()
        {
            return Ok(worker);
        }
        match Worker::start(self)? {
            (worker, Ok(_)) => Ok(worker),
            (_, Err(Error::Failed { message, .. })) => Err(Lost::Process(message)),
            (_, Err(other)) => Err(Lost::Process(other.to_string())),
        }
    }

    fn give(&self, mut worker: Worker) {
        if worker.is_fit() {
            self.idle().workers.push(worker);
        }
    }
}

/// A plugin's table whose functions work in processes of their own.
///
/// # Errors
/// What the process says: as for a library that is loaded here; or that there is no process.
pub(super) fn open(bytes: &[u8], path: &str, worker: PathBuf, isolation: Isolation) -> Result<&'static ffi::Plugin> {
    let cannot = |what: String| Error::failed(DOES_NOT_LOAD, what);
    let library = shared::sealed("standpipe-plugin", bytes).map_err(|e| cannot(format!("no private copy: {e}")))?;
    let plugin: &'static Plugin = Box::leak(Box::new(Plugin {
        path: path.to_owned(),
        worker,
        library,
        isolation,
        idle: Mutex::default(),
    }));
    let (worker, description) = Worker::start(plugin).map_err(|lost| match lost {
        Lost::Process(text) => Error::failed(PROCESS_LOST, text),
        Lost::Cancelled => Error::Cancelled,
        Lost::NoRoom | Lost::TooLong => cannot("what it is does not fit into a frame".into()),
    })?;
    let description = description?;
    plugin.give(worker);
    Ok(proxy::table(plugin, description))
}

/// What a process says of its library.
struct Description {
    version: Option<CString>,
    stages: Vec<Option<Described>>,
}

/// A stage as its table says it is.
struct Described {
    struct_size: u32,
    kind: u32,
    flags: u32,
    state_version: u32,
    /// Name, version, summary, doc, params.
    texts: [Option<CString>; 5],
    /// Which functions are there: see [`has`].
    has: u32,
    /// What its extension for its kind answers, if it does.
    table: Option<Table>,
}

/// The table of a sink or an aggregate, as far as it goes.
struct Table {
    struct_size: u32,
    flags: u32,
    state_size: u64,
    /// Which functions are there: see [`table_has`].
    has: u32,
}

/// Bits of [`Described::has`].
mod has {
    pub(super) const BIND: u32 = 1;
    pub(super) const UNBIND: u32 = 2;
    pub(super) const CREATE: u32 = 4;
    pub(super) const PROCESS: u32 = 8;
    pub(super) const FINISH: u32 = 16;
    pub(super) const DESTROY: u32 = 32;
    pub(super) const EXTENSION: u32 = 64;
    pub(super) const SNAPSHOT: u32 = 128;
    pub(super) const RESTORE: u32 = 256;
}

/// Bits of [`Table::has`].
mod table_has {
    pub(super) const PUBLISH: u32 = 1;
    pub(super) const STATE_SCHEMA: u32 = 2;
    pub(super) const ROOM: u32 = 4;
    pub(super) const ROOM_TO_MERGE: u32 = 8;
    pub(super) const UPDATE: u32 = 16;
    pub(super) const MERGE: u32 = 32;
    pub(super) const STATE: u32 = 64;
    pub(super) const FINALIZE: u32 = 128;
    pub(super) const CLEAR: u32 = 256;
}

impl Description {
    fn read(from: &mut Reader<'_>) -> Read<Result<Description>> {
        if !from.flag()? {
            let code = u16::try_from(from.u32()?).map_err(|_| Broken)?;
            return Ok(Err(Error::failed(Code(code), from.str()?)));
        }
        let text = |from: &mut Reader<'_>| -> Read<Option<CString>> {
            from.text()?
                .map(|text| CString::new(text).map_err(|_| Broken))
                .transpose()
        };
        let version = text(from)?;
        let count = from.count(1)?;
        let mut stages = vec![];
        for _ in 0..count {
            if !from.flag()? {
                stages.push(None);
                continue;
            }
            stages.push(Some(Described {
                struct_size: from.u32()?,
                kind: from.u32()?,
                flags: from.u32()?,
                state_version: from.u32()?,
                texts: [text(from)?, text(from)?, text(from)?, text(from)?, text(from)?],
                has: from.u32()?,
                table: match from.flag()? {
                    false => None,
                    true => Some(Table {
                        struct_size: from.u32()?,
                        flags: from.u32()?,
                        state_size: from.u64()?,
                        has: from.u32()?,
                    }),
                },
            }));
        }
        Ok(Ok(Description { version, stages }))
    }
}

/// The columns of the arrays that a stage or function gives. Both ends reckon with it.
fn given(kind: u32, flags: u32, output: &Schema, from: Option<&[i32]>) -> Vec<Field> {
    let fields = output.fields().iter();
    match kind {
        // With a null argument or behind a rejected row anything may stand, and so it may for a group that has no value.
        ffi::KIND_SCALAR | ffi::KIND_AGGREGATE => {
            return fields
                .map(|field| Field::new(field.name.clone(), field.ty.clone(), true))
                .collect();
        }
        // Whatever they say of rows of their input.
        ffi::KIND_SOURCE | ffi::KIND_SINK => return fields.cloned().collect(),
        _ => {}
    }
    let told = flags & (ffi::F_ROW_ALIGNED | ffi::F_ROW_OF) != 0;
    let from = from.filter(|_| told);
    let is_made = |at: usize| from.is_none_or(|from| from.get(at).is_none_or(|&column| column == -1));
    let made = fields.enumerate().filter(|(at, _)| is_made(*at));
    let mut made: Vec<Field> = made.map(|(_, field)| field.clone()).collect();
    if flags & ffi::F_ROW_OF != 0 && flags & ffi::F_ROW_ALIGNED == 0 {
        made.push(Field::new("row_of", Type::Date, false));
    }
    made
}

/// The columns of the input that a stage gets; none if it wants what is not there.
fn used(input: &Schema, used: Option<&[i32]>) -> Option<Vec<Field>> {
    let Some(used) = used else {
        return Some(input.fields().to_vec());
    };
    let field = |&at: &i32| usize::try_from(at).ok().and_then(|at| input.get(at)).cloned();
    used.iter().map(field).collect()
}
