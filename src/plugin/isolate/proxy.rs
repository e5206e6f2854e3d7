//! The stand-ins in the host's table: each call goes to a process, and what it asks of the host comes back here.
#![allow(unsafe_code)]

use super::arrays::{self, Land, Stopped};
use super::shared::Shared;
use super::wire::{Broken, Done, Reader, Writer, ask, error_of, write};
use super::worker::{Lost, Nobody, Services, Worker, shown};
use super::{Described, Description, E_PROCESS, Isolation, Plugin, given, has, used};
use standpipe_sdk::ffi::{self, ArrowArray, BindIn, BindOut, ErrorOut, Host, ReleaseArray, Status, schema};
use standpipe_sdk::{Field, Schema, Type};
use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A stage in the table.
#[repr(C)]
struct Proxy {
    /// First, so that the pointer that the host gives back is one to all of this.
    stage: ffi::Stage,
    plugin: &'static Plugin,
    number: u32,
}

/// The limits of the processes that a stage's calls go to, if it is a stand-in.
pub(in crate::plugin) fn isolation_of(stage: &'static ffi::Stage) -> Option<Isolation> {
    let ours = Some(bind as *const ());
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
                let stage = stage(described, text);
                let number = number as u32;
                let proxy: &'static Proxy = Box::leak(Box::new(Proxy { stage, plugin, number }));
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

fn stage(described: Described, text: impl Fn(Option<CString>) -> *const c_char) -> ffi::Stage {
    let has = |bit: u8| described.has & bit != 0;
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
        bind: has(has::BIND).then_some(bind as _),
        unbind: has(has::BIND).then_some(unbind as _),
        create: has(has::CREATE).then_some(create as _),
        process: has(has::PROCESS).then_some(process as _),
        finish: has(has::FINISH).then_some(finish as _),
        snapshot: None,
        restore: None,
        destroy: has(has::DESTROY).then_some(destroy as _),
        extension: None,
    }
}

/// Numbers of what is bound and created, in all processes.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What `bind` gives.
struct Bound {
    proxy: &'static Proxy,
    id: u64,
    /// What was asked and answered: another process is to answer the same.
    question: Vec<u8>,
    answer: Vec<u8>,
    input: Vec<Type>,
    output: Vec<Type>,
    key: Option<Vec<i32>>,
    used: Option<Vec<i32>>,
    from: Option<Vec<i32>>,
}

/// What a successful `bind` answers, behind its [`Done`].
struct Answer {
    flags: u32,
    schema: Schema,
    parallelism: u32,
    n_splits: u32,
    max_workers: u32,
    memory: u32,
    key: Option<Vec<i32>>,
    used: Option<Vec<i32>>,
    from: Option<Vec<i32>>,
}

impl Answer {
    fn read(from: &mut Reader<'_>) -> Result<Answer, Broken> {
        let answer = Answer {
            flags: from.u32()?,
            schema: from.schema()?,
            parallelism: from.u32()?,
            n_splits: from.u32()?,
            max_workers: from.u32()?,
            memory: from.u32()?,
            key: from.numbers()?,
            used: from.numbers()?,
            from: from.numbers()?,
        };
        // The host takes this list to be as long as the output is wide.
        match answer
            .from
            .as_ref()
            .is_none_or(|from| from.len() == answer.schema.width())
        {
            true => Ok(answer),
            false => Err(Broken),
        }
    }
}

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
        }
    }
}

impl From<Broken> for Failed {
    fn from(_: Broken) -> Self {
        Failed::new(E_PROCESS, "what its process answers cannot be understood")
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

/// Reads the end of a call that must have gone well.
fn done(reader: &mut Reader<'_>) -> Result<Status, Failed> {
    let done = Done::read(reader)?;
    ended(done).map(|(status, _)| status)
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
            // Ours alone.
            status: if done.status == E_PROCESS {
                ffi::E_INTERNAL
            } else {
                done.status
            },
            error: Box::new(done.error),
        });
    }
    Ok((done.status, done.error))
}

unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    asked: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: the stage is one of `table`'s, the first field of a `Proxy`; all pointers are valid for the
    // call; the inputs are Arrow schemas, the arguments a text.
    unsafe {
        entry(error, || {
            let (proxy, asked, out) = (&*stage.cast::<Proxy>(), &*asked, &mut *out);
            let id = NEXT.fetch_add(1, Relaxed);
            let mut question = Writer::default();
            question.u32(proxy.number).bytes(asked.config_json.bytes());
            question
                .u32(asked.max_workers)
                .u32(asked.flags)
                .u32(asked.n_own)
                .u32(asked.n_inputs);
            let mut input = Schema::default();
            for at in 0..asked.n_inputs as usize {
                let schema = schema::import_input(&**asked.inputs.add(at));
                input = schema.map_err(|e| Failed::new(ffi::E_SCHEMA, &e.to_string()))?;
                question.schema(&input);
            }
            let question = question.0;
            let mut worker = proxy.plugin.take(None)?;
            let answer = worker.ask(ask::BIND, &with_id(id, &question), "bind", &mut Nobody)?;
            let mut reader = Reader(&answer);
            let status = match done(&mut reader) {
                Ok(status) => status,
                Err(failed) => {
                    proxy.plugin.give(worker);
                    return Err(failed);
                }
            };
            worker.bounds.insert(id);
            let read = Answer::read(&mut reader)?;
            let no_schema = |e: standpipe_sdk::Error| Failed::new(ffi::E_SCHEMA, &e.to_string());
            let schema = schema::Exported::new(&read.schema).map_err(no_schema)?;
            proxy.plugin.give(worker);
            let output = given(proxy.stage.kind, read.flags, &read.schema, read.from.as_deref());
            let types = |fields: Vec<Field>| fields.into_iter().map(|field| field.ty).collect();
            let bound = Arc::new(Bound {
                proxy,
                id,
                question,
                input: used(&input, read.used.as_deref()).map(types).unwrap_or_default(),
                output: types(output),
                key: read.key,
                used: read.used,
                from: read.from,
                answer,
            });
            let list = |list: &Option<Vec<i32>>| list.as_ref().map_or((null(), 0), |list| (list.as_ptr(), list.len()));
            // The lists are the plan's and stay where they are.
            let (key, used, from) = (list(&bound.key), list(&bound.used), list(&bound.from));
            out.flags = read.flags;
            out.schema = schema.take();
            out.parallelism = read.parallelism;
            (out.n_splits, out.max_workers, out.memory) = (read.n_splits, read.max_workers, read.memory);
            (out.key_columns, out.n_keys) = (key.0, key.1 as u32);
            (out.used_columns, out.n_used_columns) = (used.0, used.1 as u32);
            out.from_columns = from.0;
            proxy.plugin.idle().bound += 1;
            out.bound = Arc::into_raw(bound).cast_mut().cast();
            Ok(status)
        })
    }
}

fn with_id(id: u64, body: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], body].concat()
}

unsafe extern "C" fn unbind(bound: *mut c_void) {
    // SAFETY: the header's contract: once, with what `bind` gave.
    unsafe {
        entry(std::ptr::null_mut(), || {
            let bound = Arc::from_raw(bound.cast::<Bound>());
            let plugin = bound.proxy.plugin;
            let (has_it, others): (Vec<Worker>, Vec<Worker>) = {
                let mut idle = plugin.idle();
                idle.bound -= 1;
                let workers = std::mem::take(&mut idle.workers);
                workers
                    .into_iter()
                    .partition(|worker| worker.bounds.contains(&bound.id))
            };
            plugin.idle().workers.extend(others);
            for mut worker in has_it {
                worker.bounds.remove(&bound.id);
                let instance = worker.instances.remove(&bound.id);
                let id = bound.id.to_le_bytes();
                // A process that is lost here is missed by nobody.
                let destroyed = !instance || worker.ask(ask::DESTROY, &id, "destroy", &mut Nobody).is_ok();
                if destroyed && worker.ask(ask::UNBIND, &id, "unbind", &mut Nobody).is_ok() {
                    plugin.give(worker);
                }
            }
            let mut idle = plugin.idle();
            if idle.bound == 0 {
                let kept = idle.workers.len().min(1);
                let more = idle.workers.split_off(kept);
                drop(idle);
                drop(more);
            }
            Ok(ffi::OK)
        });
    }
}

/// What `create` gives.
struct Instance {
    bound: Arc<Bound>,
    id: u64,
    /// A stage's own process; functions share theirs.
    worker: Option<Worker>,
    is_stage: bool,
    host: &'static Host,
    owner: *mut c_void,
}

impl Bound {
    /// A process in which this is bound.
    fn worker(&self) -> Result<Worker, Failed> {
        let mut worker = self.proxy.plugin.take(Some(self.id))?;
        if worker.bounds.contains(&self.id) {
            return Ok(worker);
        }
        let answer = worker.ask(ask::BIND, &with_id(self.id, &self.question), "bind", &mut Nobody)?;
        if answer != self.answer {
            return Err(Failed::new(
                ffi::E_INTERNAL,
                "its `bind` gives another answer the second time",
            ));
        }
        worker.bounds.insert(self.id);
        Ok(worker)
    }
}

unsafe extern "C" fn create(
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
            let is_stage = bound.proxy.stage.kind != ffi::KIND_SCALAR;
            let mut instance = Instance {
                // A function has one instance in each process.
                id: if is_stage { NEXT.fetch_add(1, Relaxed) } else { bound.id },
                worker: None,
                is_stage,
                host: &*(*call).host,
                owner: (*call).owner,
                bound,
            };
            if is_stage {
                let mut worker = instance.bound.worker()?;
                instance.create(&mut worker, &*call, split)?;
                instance.worker = Some(worker);
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
        body.u64(self.id).u64(self.bound.id).u32(split);
        // SAFETY: a text of the host's, valid for the call.
        body.bytes(unsafe { call.folder.bytes() });
        let answer = worker.ask(ask::CREATE, &body.0, "create", &mut Serving::new(call, &self.bound))?;
        done(&mut Reader(&answer))?;
        worker.instances.insert(self.id);
        Ok(())
    }

    fn run(
        &mut self,
        call: &ffi::Call,
        input: Option<&ArrowArray>,
        out: &mut ArrowArray,
        error: &mut ErrorOut,
    ) -> Result<Status, Failed> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None if self.is_stage => return Err(Failed::new(E_PROCESS, "its process is gone")),
            None => {
                let mut worker = self.bound.worker()?;
                if !worker.instances.contains(&self.id) {
                    self.create(&mut worker, call, 0)?;
                }
                worker
            }
        };
        let outcome = self.asked(&mut worker, call, input, out, error);
        match self.is_stage {
            true => self.worker = Some(worker),
            false => self.bound.proxy.plugin.give(worker),
        }
        outcome
    }

    fn asked(
        &self,
        worker: &mut Worker,
        call: &ffi::Call,
        input: Option<&ArrowArray>,
        out: &mut ArrowArray,
        error: &mut ErrorOut,
    ) -> Result<Status, Failed> {
        let mut serving = Serving::new(call, &self.bound);
        let mut body = Writer::default();
        body.u64(self.id).u64(call.max_rows);
        let (kind, what) = match input {
            Some(input) => {
                let mut filling = worker.shared.fill();
                // SAFETY: the host's contract: the input has the columns that `bind` said are used, normalised.
                let written = unsafe { arrays::write(input, &self.bound.input, &mut body, &mut filling) };
                written.and_then(|()| filling.finish()).map_err(|why| {
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
                (ask::PROCESS, "process")
            }
            None => (ask::FINISH, "finish"),
        };
        let answer = worker.ask(kind, &body.0, what, &mut serving)?;
        let mut reader = Reader(&answer);
        let done = Done::read(&mut reader)?;
        let has_more = reader.flag()?;
        if let Some(stopped) = serving.stop {
            return Err(serving.stopped(stopped));
        }
        let refused = done.refused && done.status == ffi::E_MEMORY && done.error.message[0] == 0;
        let (status, left) = ended(done).map_err(|mut failed| {
            if refused {
                let memory = shown(self.bound.proxy.plugin.isolation.memory);
                write(
                    &mut failed.error.message,
                    &format!("one call gives more than its memory of {memory} has room for"),
                );
            }
            failed
        })?;
        *error = left;
        if has_more {
            let mut landing = Landing {
                call,
                shared: &mut worker.shared,
            };
            *out = arrays::read(&mut reader, &self.bound.output, &mut landing).map_err(|why| serving.stopped(why))?;
        }
        Ok(status)
    }
}

unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    input: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, and nobody else uses `inst`.
    unsafe {
        entry(error, || {
            let (instance, left) = (&mut *inst.cast::<Instance>(), &mut *error);
            instance.run(&*call, Some(&*input), &mut *out, left)
        })
    }
}

unsafe extern "C" fn finish(
    inst: *mut c_void,
    call: *const ffi::Call,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`.
    unsafe {
        entry(error, || {
            let (instance, left) = (&mut *inst.cast::<Instance>(), &mut *error);
            instance.run(&*call, None, &mut *out, left)
        })
    }
}

unsafe extern "C" fn destroy(inst: *mut c_void) {
    // SAFETY: the header's contract: once, with what `create` gave.
    unsafe {
        entry(std::ptr::null_mut(), || {
            let mut instance = Box::from_raw(inst.cast::<Instance>());
            let Some(mut worker) = instance.worker.take().filter(|worker| !worker.lost) else {
                return Ok(ffi::OK);
            };
            worker.instances.remove(&instance.id);
            match worker.ask(ask::DESTROY, &instance.id.to_le_bytes(), "destroy", &mut Nobody) {
                Ok(_) => instance.bound.proxy.plugin.give(worker),
                // All its rows are given: whoever runs the script is told, and the run stands.
                Err(Lost::Process(text)) => {
                    let text = format!("warning[{}]: {text}", super::PROCESS_LOST);
                    (instance.host.log)(instance.owner, 0, ffi::Str::new(&text));
                }
                Err(Lost::Cancelled) => {}
            }
            Ok(ffi::OK)
        });
    }
}

/// What a call stands for while its process is asked: the host's services, as the process uses them.
struct Serving<'r> {
    call: &'r ffi::Call,
    bound: &'r Bound,
    /// Why what the process gave did not arrive: the plugin only passes the news on.
    stop: Option<Stopped>,
}

impl<'r> Serving<'r> {
    fn new(call: &'r ffi::Call, bound: &'r Bound) -> Self {
        Serving {
            call,
            bound,
            stop: None,
        }
    }

    fn host(&self) -> &'r Host {
        // SAFETY: a call has its host's table, which outlives it.
        unsafe { &*self.call.host }
    }

    fn stopped(&self, why: Stopped) -> Failed {
        match why {
            // The host refused it, and knows.
            Stopped::NoRoom => Failed::new(ffi::E_MEMORY, ""),
            Stopped::Broken => Failed::new(E_PROCESS, "what its process gives cannot be understood"),
            Stopped::System => Failed::new(E_PROCESS, "the system has no memory for what its process gets or gives"),
        }
    }
}

impl Services for Serving<'_> {
    fn emit(&mut self, array: &mut Reader<'_>, shared: &mut Shared) -> Status {
        if self.stop.is_some() {
            return ffi::E_CANCELLED;
        }
        let call = self.call;
        match arrays::read(array, &self.bound.output, &mut Landing { call, shared }) {
            // SAFETY: the call lasts, on this thread; the array is one that is given away.
            Ok(mut array) => unsafe { (self.host().emit)(call, &raw mut array) },
            Err(why) => {
                self.stop = Some(why);
                if why == Stopped::NoRoom {
                    ffi::E_MEMORY
                } else {
                    ffi::E_CANCELLED
                }
            }
        }
    }

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status {
        let text = |bytes: &[u8]| ffi::Str {
            ptr: bytes.as_ptr().cast(),
            len: bytes.len(),
        };
        // SAFETY: the call lasts, on this thread; the texts are there as long as it does.
        unsafe { (self.host().reject)(self.call, row, column, text(code), text(message)) }
    }

    fn reserve(&mut self, delta: i64) -> Status {
        // SAFETY: an owner is a number for the host.
        unsafe { (self.host().reserve)(self.call.owner, delta) }
    }

    fn log(&mut self, text: &str) {
        // SAFETY: as above.
        unsafe { (self.host().log)(self.call.owner, 0, ffi::Str::new(text)) }
    }

    fn cancelled(&mut self) -> bool {
        // SAFETY: as above.
        unsafe { (self.host().cancelled)(self.call.owner) != 0 }
    }
}

/// Brings arrays into the memory of a call.
struct Landing<'r> {
    call: &'r ffi::Call,
    shared: &'r mut Shared,
}

impl Land for Landing<'_> {
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped> {
        if !self.shared.has(at, bytes as u64) {
            return Err(Stopped::Broken);
        }
        let room = self.room(bytes)?;
        // SAFETY: the host gave so many bytes, which nobody else has; what is not written yet is not read.
        let mut left = unsafe { std::slice::from_raw_parts_mut(room.cast::<MaybeUninit<u8>>(), bytes) };
        let mut from = at;
        while !left.is_empty() {
            match rustix::io::pread(&self.shared.file, &mut *left, from) {
                Ok(([], _)) => return Err(Stopped::System),
                Ok((read, _)) => {
                    let read = read.len();
                    from += read as u64;
                    left = &mut left[read..];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Stopped::System),
            }
        }
        Ok(room.cast_const())
    }

    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped> {
        // SAFETY: the call lasts, on this thread: it is what asks the process.
        let room = unsafe { ((*self.call.host).alloc)(self.call, bytes) };
        match room.is_null() {
            true => Err(Stopped::NoRoom),
            false => Ok(room),
        }
    }

    fn release(&self) -> ReleaseArray {
        // SAFETY: a call has its host's table.
        unsafe { (*self.call.host).arena_release }
    }
}
