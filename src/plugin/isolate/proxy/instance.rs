//! Instances in processes: `create`, `process`, `finish` and `destroy` of the stand-ins.
#![allow(unsafe_code)]

use super::super::arrays::{self, Land, Sink, Stopped};
use super::super::shared::Shared;
use super::super::wire::{Done, Read, Reader, Writer, ask, write};
use super::super::worker::{Lost, Worker, shown};
use super::super::{E_NO_ROOM, E_PROCESS, PROCESS_LOST};
use super::bound::{Bound, gone};
use super::serving::{Landing, Serving};
use super::slots::Slot;
use super::{Failed, NEXT, ended, entry};
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{self, ArrowArray, ErrorOut, Host, Status};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What `create` gives.
pub(super) struct Instance {
    pub(super) bound: Arc<Bound>,
    id: u64,
    home: Home,
    host: &'static Host,
    owner: *mut c_void,
}

/// Where an instance is.
enum Home {
    /// A stage's: in a process of its own, as long as there is one.
    Own(Option<Worker>),
    /// A function's: in each process that happens to be asked.
    Any,
    /// An aggregate's: in a process that others are in as well.
    Slot(Arc<Slot>),
}

/// A call as a process is asked for it.
pub(super) struct Asked<'r> {
    pub(super) kind: u8,
    /// In the words of the header.
    pub(super) what: &'static str,
    /// What stands behind the number of the instance.
    pub(super) head: Writer,
    /// Bytes that it is lent.
    pub(super) bytes: Option<&'r [u8]>,
    /// Numbers of groups, of an aggregate.
    pub(super) groups: Option<&'r [u32]>,
    /// What it is lent, and of what types that is.
    pub(super) input: Option<(&'r ArrowArray, &'r [Type])>,
}

impl Asked<'_> {
    /// A call that is lent nothing, with no arguments but its instance.
    pub(super) fn bare(kind: u8, what: &'static str) -> Self {
        Asked {
            kind,
            what,
            head: Writer::default(),
            bytes: None,
            groups: None,
            input: None,
        }
    }
}

/// The end of a call that went well.
pub(super) struct Answered<T> {
    pub(super) status: Status,
    pub(super) error: ErrorOut,
    /// What stands behind it.
    pub(super) rest: T,
}

/// An answer that has nothing behind its end.
pub(super) fn nothing(_: &mut Reader<'_>, _: &mut Shared) -> Read<()> {
    Ok(())
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    call: *const ffi::Call,
    split: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, an `Arc` that `unbind` has not taken back; the call and its host's
    // table, which stays for good, are valid.
    unsafe {
        entry(error, || {
            Arc::increment_strong_count(bound.cast::<Bound>());
            let bound = Arc::from_raw(bound.cast::<Bound>());
            let kind = bound.proxy.stage.kind;
            let mut instance = Instance {
                // A function has one instance in each process.
                id: match kind {
                    ffi::KIND_SCALAR => bound.id,
                    _ => NEXT.fetch_add(1, Relaxed),
                },
                home: Home::Any,
                host: &*(*call).host,
                owner: (*call).owner,
                bound,
            };
            match kind {
                ffi::KIND_SCALAR => {}
                ffi::KIND_AGGREGATE => {
                    let slots = &instance.bound.slots;
                    let start = || instance.bound.worker();
                    let slot = slots.enter(instance.id, start, |worker| instance.create(worker, &*call, 0))?;
                    instance.home = Home::Slot(slot);
                }
                _ => {
                    let mut worker = instance.bound.worker()?;
                    instance.create(&mut worker, &*call, split)?;
                    instance.home = Home::Own(Some(worker));
                }
            }
            *inst = Box::into_raw(Box::new(instance)).cast();
            Ok(ffi::OK)
        })
    }
}

impl Instance {
    /// Makes the instance in a process.
    fn create(&self, worker: &mut Worker, call: &ffi::Call, split: u32) -> Result<(), Failed> {
        let mut body = Writer::default();
        body.u64(self.id).u64(self.bound.id).u32(split).u32(call.run_flags);
        // SAFETY: a text of the host's, valid for the call.
        body.bytes(unsafe { call.folder.bytes() });
        let mut serving = Serving::new(call, &self.bound.output).of(&self.bound);
        let done = worker.ask(ask::CREATE, &body.0, "create", &mut serving, |body, _| Done::read(body))?;
        ended(done)?;
        worker.instances.insert(self.id);
        Ok(())
    }

    /// A call of the instance's own, where the header has none: its owner's services are there, those of a call are not.
    pub(super) fn call(&self) -> ffi::Call {
        ffi::Call {
            struct_size: size_of::<ffi::Call>() as u32,
            input_port: 0,
            host: self.host,
            owner: self.owner,
            batch_seq: 0,
            max_rows: 0,
            folder: ffi::Str::new(""),
            run_flags: 0,
            reserved: 0,
        }
    }

    /// Does something in the instance's process.
    pub(super) fn within<T>(
        &mut self,
        call: &ffi::Call,
        run: impl FnOnce(&Self, &mut Worker) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        match &mut self.home {
            Home::Own(worker) => {
                let gone = || Failed::new(E_PROCESS, "its process is gone");
                let mut worker = worker.take().ok_or_else(gone)?;
                let outcome = run(self, &mut worker);
                self.home = Home::Own(Some(worker));
                outcome
            }
            Home::Slot(slot) => {
                let slot = slot.clone();
                self.bound.slots.within(self.id, &slot, |worker| run(self, worker))
            }
            Home::Any => {
                let mut worker = self.bound.worker()?;
                if !worker.instances.contains(&self.id) {
                    self.create(&mut worker, call, 0)?;
                }
                let outcome = run(self, &mut worker);
                self.bound.proxy.plugin.give(worker);
                outcome
            }
        }
    }

    /// Asks for a call that went well. `rest` reads what stands behind its end.
    pub(super) fn ask<T>(
        &self,
        worker: &mut Worker,
        call: &ffi::Call,
        serving: &mut Serving<'_>,
        asked: Asked<'_>,
        rest: impl FnOnce(&mut Reader<'_>, &mut Shared) -> Read<T>,
    ) -> Result<Answered<T>, Failed> {
        let mut body = Writer::default();
        body.u64(self.id).0.extend(asked.head.0);
        if asked.input.is_some() || asked.groups.is_some() || asked.bytes.is_some() {
            let mut filling = worker.shared.fill();
            let mut fill = || {
                if let Some(bytes) = asked.bytes {
                    let at = filling.put(bytes)?;
                    body.u64(at).u64(bytes.len() as u64);
                }
                if let Some(groups) = asked.groups {
                    let at = filling.start(size_of_val(groups))?;
                    body.u64(at).u32(groups.len() as u32);
                    for group in groups {
                        filling.more(&group.to_le_bytes())?;
                    }
                }
                if let Some((input, types)) = asked.input {
                    // SAFETY: the host's contract: the input has the columns that are used, normalised.
                    unsafe { arrays::write(input, types, &mut body, &mut filling)? }
                }
                filling.finish()
            };
            fill().map_err(|why| {
                if why == Stopped::NoRoom {
                    // The host is to know that this is a lack of memory: it asks itself for more than it can have.
                    let _ = Landing {
                        call,
                        shared: &mut worker.shared,
                    }
                    .room(1 << 46);
                }
                serving.stopped(why)
            })?;
        }
        let read = |body: &mut Reader<'_>, shared: &mut Shared| {
            let done = Done::read(body)?;
            Ok(match done.is_well() {
                true => (rest(body, shared).map(Some)?, done),
                false => (None, done),
            })
        };
        let answer = worker.ask(asked.kind, &body.0, asked.what, serving, read);
        let (rest, done) = match answer {
            Err(Lost::NoRoom) => return Err(self.no_room()),
            answer => answer?,
        };
        if let Some(stopped) = serving.stop {
            return Err(serving.stopped(stopped));
        }
        let refused = done.refused && done.status == ffi::E_MEMORY && done.error.message[0] == 0;
        let ended = ended(done).map_err(|mut failed| {
            if refused {
                let memory = shown(self.bound.proxy.plugin.isolation.memory);
                write(
                    &mut failed.error.message,
                    &format!("one call gives more than its memory of {memory} has room for"),
                );
            }
            failed
        });
        let (status, error) = ended?;
        // It is there where the call is well, and only then.
        let rest = rest.ok_or_else(|| Failed::new(ffi::E_INTERNAL, "its call ended and did not"))?;
        Ok(Answered { status, error, rest })
    }

    /// The host had no room for what a call gave, and knows.
    fn no_room(&self) -> Failed {
        match self.bound.proxy.stage.kind {
            // The split is behind these rows already: they cannot be asked for again.
            ffi::KIND_SOURCE => Failed::new(E_NO_ROOM, "there is no room for its rows"),
            _ => Failed::new(ffi::E_MEMORY, ""),
        }
    }

    /// A call that may give an array of the columns `output`.
    pub(super) fn rows(
        &mut self,
        call: &ffi::Call,
        asked: Asked<'_>,
        output: &[Type],
        out: &mut ArrowArray,
        error: &mut ErrorOut,
    ) -> Result<Status, Failed> {
        self.within(call, |this, worker| {
            let mut serving = Serving::new(call, output).of(&this.bound);
            let rest = |rest: &mut Reader<'_>, shared: &mut Shared| match rest.flag()? {
                false => Ok(None),
                true => arrays::arrived(rest, output, &mut Landing { call, shared }).map(Some),
            };
            let answered = this.ask(worker, call, &mut serving, asked, rest)?;
            *error = answered.error;
            if let Some(arrived) = answered.rest {
                *out = arrived.map_err(|why| match why {
                    Stopped::NoRoom => this.no_room(),
                    why => serving.stopped(why),
                })?;
            }
            Ok(answered.status)
        })
    }

    /// A call of `process` or `finish`.
    fn run(
        &mut self,
        call: &ffi::Call,
        asked: Asked<'_>,
        out: &mut ArrowArray,
        error: &mut ErrorOut,
    ) -> Result<Status, Failed> {
        let bound = self.bound.clone();
        self.rows(call, asked, &bound.output, out, error)
    }
}

/// The arguments of `process` and `finish` that are no rows.
fn head(call: &ffi::Call) -> Writer {
    let mut head = Writer::default();
    head.u64(call.max_rows);
    head
}

pub(super) unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    input: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, but that a source gets no input; and nobody else uses `inst`.
    unsafe {
        entry(error, || {
            let (instance, call, left) = (&mut *inst.cast::<Instance>(), &*call, &mut *error);
            let bound = instance.bound.clone();
            let asked = Asked {
                head: head(call),
                input: input.as_ref().map(|input| (input, &*bound.input)),
                ..Asked::bare(ask::PROCESS, "process")
            };
            instance.run(call, asked, &mut *out, left)
        })
    }
}

pub(super) unsafe extern "C" fn finish(
    inst: *mut c_void,
    call: *const ffi::Call,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`.
    unsafe {
        entry(error, || {
            let (instance, call, left) = (&mut *inst.cast::<Instance>(), &*call, &mut *error);
            let asked = Asked {
                head: head(call),
                ..Asked::bare(ask::FINISH, "finish")
            };
            instance.run(call, asked, &mut *out, left)
        })
    }
}

pub(super) unsafe extern "C" fn destroy(inst: *mut c_void) {
    // SAFETY: the header's contract: once, with what `create` gave.
    unsafe {
        entry(std::ptr::null_mut(), || {
            let Instance {
                bound,
                id,
                home,
                host,
                owner,
            } = *Box::from_raw(inst.cast::<Instance>());
            let outcome = match home {
                Home::Own(Some(mut worker)) if !worker.lost && !bound.hangs.load(Relaxed) => {
                    let outcome = destroyed(id, &mut worker);
                    if worker.was_silent {
                        bound.hangs.store(true, Relaxed);
                    }
                    outcome.map(|()| bound.proxy.plugin.give(worker))
                }
                Home::Slot(slot) => bound.slots.leave(id, &slot, destroyed).map(|worker| {
                    if let Some(worker) = worker {
                        bound.proxy.plugin.give(worker);
                    }
                }),
                _ => Ok(()),
            };
            // All its rows are given: whoever runs the script is told, once whatever the others do, and the run stands.
            if let Err(Lost::Process(text)) = outcome
                && !bound.told.swap(true, Relaxed)
            {
                let text = format!("warning[{PROCESS_LOST}]: {text}");
                (host.log)(owner, 0, ffi::Str::new(&text));
            }
            Ok(ffi::OK)
        });
    }
}

/// Destroys an instance in its process.
fn destroyed(id: u64, worker: &mut Worker) -> Result<(), Lost> {
    worker.instances.remove(&id);
    gone(worker, ask::DESTROY, id, "destroy")
}
