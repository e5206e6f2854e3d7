//! The child's end: it loads the library and is to the plugin what the host is.
//!
//! Laws
//! - The plugin is called by one thread, one call at a time. What it asks of the host during a call is asked over the socket.
//! - What it gives is checked here with the host's own code, so that the words are the same; the host checks again.
//! - The process ends when the host is gone or lets go of it, whatever the plugin does.
#![allow(unsafe_code)]

use super::arrays::{self, Land, Sink, Stopped};
use super::shared::INPUT;
use super::wire::{Broken, Done, Reader, Writer, ask, error_of, tell};
use super::{has, last_words, used};
use crate::plugin::bind::{Given, Refused, Vtable};
use crate::plugin::host::{self, Entered, Registered, Service};
use crate::plugin::meter::{self, Meter};
use crate::plugin::run::{Object, release};
use crate::plugin::{PLUGIN_FAILED, begin, library, vtable_of};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::{self, Lent};
use standpipe_sdk::ffi::{self, ArrowArray, ErrorOut, ReleaseArray, Status};
use standpipe_sdk::{Arena, Error, Field, Type};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

/// Room on the stack, as workers have in the host.
const STACK: usize = if cfg!(debug_assertions) { 256 << 20 } else { 32 << 20 };

/// A plugin's process: what a program does whose only argument is [`super::WORKER_COMMAND`]. It answers with the exit status, if
/// the process was not started as one.
pub fn work() -> u8 {
    let Ok((socket, hello)) = hello() else {
        let _ = std::io::stderr()
            .write_all(b"error: this is how standpipe runs an isolated plugin; it is not started by hand\n");
        return 2;
    };
    let served = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || serve(socket, hello));
    if let Ok(thread) = served {
        let _ = thread.join();
    }
    vanish()
}

/// Ends the process at once: nobody waits for what a library does at exit.
fn vanish() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// What the host says first.
struct Hello {
    version: String,
    memory: u64,
    path: String,
    shared: OwnedFd,
    library: OwnedFd,
    leash: OwnedFd,
}

fn hello() -> std::io::Result<(UnixStream, Hello)> {
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // A plugin that reads its input finds nothing there.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut len = [0; 4];
    let got = recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut len)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut files = vec![];
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    let (4, Ok([shared, library, leash])) = (got.bytes, <[OwnedFd; 3]>::try_from(files)) else {
        return Err(broken());
    };
    let (kind, body) = body(&mut socket, u32::from_le_bytes(len))?;
    let mut body = Reader(&body);
    let mut read = || Ok((body.str()?.to_owned(), body.u64()?, body.str()?.to_owned()));
    let (version, memory, path) = read().map_err(|Broken| broken())?;
    if kind != ask::HELLO {
        return Err(broken());
    }
    let hello = Hello {
        version,
        memory,
        path,
        shared,
        library,
        leash,
    };
    Ok((socket, hello))
}

/// The rest of a frame of this length.
fn body(socket: &mut UnixStream, len: u32) -> std::io::Result<(u8, Vec<u8>)> {
    let mut frame = vec![0; len as usize];
    socket.read_exact(&mut frame)?;
    match frame.split_first() {
        Some((kind, body)) => Ok((*kind, body.to_vec())),
        None => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// The way to the host.
struct Link {
    /// Held for the time of a frame: a plugin's own threads may log.
    socket: Mutex<UnixStream>,
    /// Who is called: only there is anybody who waits for an answer.
    thread: ThreadId,
    is_called: AtomicBool,
}

impl Link {
    fn send(&self, kind: u8, body: &[u8]) -> std::io::Result<()> {
        let mut frame = Vec::with_capacity(body.len() + 5);
        frame.extend(u32::try_from(body.len() + 1).unwrap_or(u32::MAX).to_le_bytes());
        frame.push(kind);
        frame.extend(body);
        self.socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&frame)
    }

    fn receive(&self) -> std::io::Result<(u8, Vec<u8>)> {
        // Only the thread that is called reads, and the lock is not held meanwhile.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).try_clone()?;
        let mut len = [0; 4];
        socket.read_exact(&mut len)?;
        body(&mut socket, u32::from_le_bytes(len))
    }

    /// Asks the host in the midst of a call.
    fn asked(&self, kind: u8, body: &[u8]) -> Status {
        if self.send(kind, body).is_err() {
            vanish();
        }
        match self.receive() {
            Ok((ask::ANSWER, body)) => Reader(&body).i32().unwrap_or(ffi::E_INTERNAL),
            _ => vanish(),
        }
    }

    fn reserve(&self, delta: i64) -> Status {
        if std::thread::current().id() != self.thread || !self.is_called.load(Relaxed) {
            return if delta <= 0 { ffi::OK } else { ffi::E_MEMORY };
        }
        self.asked(tell::RESERVE, &delta.to_le_bytes())
    }
}

/// The memory shared with the host, mapped for good.
struct Region {
    start: *mut u8,
    size: usize,
    /// Output of the call at hand goes here.
    next: Cell<usize>,
    /// Where the piece goes that was begun.
    piece: Cell<usize>,
}

impl Region {
    fn new(shared: &OwnedFd, output: u64) -> std::io::Result<Region> {
        let size = usize::try_from(INPUT + output).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, wherever there is room; its size is the file's, which is sealed.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                shared,
                0,
            )?
        };
        Ok(Region {
            start: start.cast(),
            size,
            next: Cell::new(INPUT as usize),
            piece: Cell::new(0),
        })
    }

    fn reset(&self) {
        self.next.set(INPUT as usize);
    }

    /// The place of `bytes` bytes of output, aligned to 64.
    fn alloc(&self, bytes: usize) -> Option<usize> {
        let at = self.next.get().next_multiple_of(64);
        let end = at.checked_add(bytes.max(1)).filter(|&end| end <= self.size)?;
        self.next.set(end);
        Some(at)
    }

    fn at(&self, at: usize) -> *mut u8 {
        self.start.wrapping_add(at)
    }
}

/// Puts output where the host finds it.
struct Giving<'r>(&'r Region);

impl Sink for Giving<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<u64, Stopped> {
        let at = bytes.as_ptr().addr().wrapping_sub(self.0.start.addr());
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.0.size) {
            return Ok(at as u64);
        }
        let at = self.start(bytes.len())?;
        self.more(bytes)?;
        Ok(at)
    }

    fn start(&mut self, bytes: usize) -> Result<u64, Stopped> {
        let at = self.0.alloc(bytes).ok_or(Stopped::NoRoom)?;
        self.0.piece.set(at);
        Ok(at as u64)
    }

    fn more(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let at = self.0.piece.get();
        // SAFETY: `start` found room for the whole piece, which nobody else was given; what is copied lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.at(at), bytes.len()) }
        self.0.piece.set(at + bytes.len());
        Ok(())
    }
}

/// Finds the input of a call where it lies.
struct Taking<'r, 'a> {
    region: &'r Region,
    arena: &'a Arena,
}

impl Land for Taking<'_, '_> {
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped> {
        let at = usize::try_from(at).map_err(|_| Stopped::Broken)?;
        match at.checked_add(bytes).is_some_and(|end| end <= self.region.size) {
            true => Ok(self.region.at(at).cast_const().cast()),
            false => Err(Stopped::Broken),
        }
    }

    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped> {
        let room = self.arena.uninit::<u8>(bytes.max(1)).map_err(|_| Stopped::NoRoom)?;
        Ok({ room }.as_mut_ptr().cast())
    }

    fn release(&self) -> ReleaseArray {
        lend::release_marked
    }
}

/// What is bound here.
struct Bound {
    /// Instances hold it as well.
    given: Arc<Given>,
    vtable: Vtable,
    input: Vec<Field>,
    input_types: Vec<Type>,
    output: Vec<Field>,
}

struct Server {
    link: Arc<Link>,
    region: Region,
    stages: Vec<Option<Vtable>>,
    /// Instances before what they are made of: so they are dropped.
    objects: BTreeMap<u64, (Object, u64)>,
    bounds: BTreeMap<u64, Bound>,
    arena: Arena,
    cancelled: Arc<AtomicBool>,
    meter: Arc<Meter>,
}

fn serve(socket: UnixStream, hello: Hello) {
    let link = Arc::new(Link {
        socket: Mutex::new(socket),
        thread: std::thread::current().id(),
        is_called: AtomicBool::new(false),
    });
    let mut body = Writer::default();
    let server = match load(&link, hello, &mut body) {
        Ok(server) => Some(server),
        Err(error) => {
            body.0.clear();
            let (code, text) = match error {
                Error::Failed { code, message, .. } => (code, message),
                other => (PLUGIN_FAILED, other.to_string()),
            };
            body.u8(0).u32(code.0.into()).bytes(text.as_bytes());
            None
        }
    };
    let told = link.send(tell::DONE, &body.0);
    if let (Some(mut server), Ok(())) = (server, told) {
        while let Ok((kind, body)) = link.receive() {
            let mut answer = Writer::default();
            last_words::begin();
            link.is_called.store(true, Relaxed);
            let understood = server.called(kind, &mut Reader(&body), &mut answer);
            link.is_called.store(false, Relaxed);
            if understood.is_err() || link.send(tell::DONE, &answer.0).is_err() {
                break;
            }
        }
    }
    vanish()
}

/// Loads the library, and writes what it is.
fn load(link: &Arc<Link>, hello: Hello, to: &mut Writer) -> Result<Server, Error> {
    let cannot = |what: String| Error::failed(crate::plugin::DOES_NOT_LOAD, what);
    if hello.version != env!("CARGO_PKG_VERSION") {
        let (theirs, ours) = (hello.version, env!("CARGO_PKG_VERSION"));
        return Err(cannot(format!(
            "its process is version {ours} of standpipe, this is {theirs}"
        )));
    }
    let system = |error: std::io::Error| cannot(format!("its process cannot be set up: {error}"));
    let cancelled = Arc::new(AtomicBool::new(false));
    watch(UnixStream::from(hello.leash), cancelled.clone()).map_err(system)?;
    let region = Region::new(&hello.shared, hello.memory).map_err(system)?;
    let size = std::fs::File::from(hello.library.try_clone().map_err(system)?)
        .metadata()
        .map_err(system)?
        .len();
    limit(hello.memory.saturating_add(2 * size)).map_err(system)?;
    // SAFETY: loading runs the library's constructors, which is what this process is for; the bytes are verified and sealed.
    let plugin =
        unsafe { library::entered(format!("/proc/self/fd/{}", hello.library.as_raw_fd()).as_ref()).map_err(cannot)? };
    // SAFETY: a plugin keeps to the contract of the header, or this process is lost.
    let stages = unsafe {
        begin(plugin, &hello.path)?;
        let table = (0..plugin.n_stages as usize).map(|at| (*plugin.stages.add(at)).as_ref());
        table.collect::<Vec<Option<&'static ffi::Stage>>>()
    };
    to.u8(1).text(text(plugin.version)).u32(stages.len() as u32);
    for stage in &stages {
        match stage {
            Some(stage) => describe(stage, to.u8(1)),
            None => drop(to.u8(0)),
        }
    }
    // SAFETY: as above. What is not as it should be is refused by the host, which sees the same.
    let stages = stages
        .into_iter()
        .map(|stage| stage.and_then(|stage| unsafe { vtable_of(stage, "").ok() }));
    Ok(Server {
        link: link.clone(),
        region,
        stages: stages.collect(),
        objects: BTreeMap::new(),
        bounds: BTreeMap::new(),
        arena: Arena::new(usize::MAX),
        cancelled,
        meter: meter::collect(|| Meter::new("")).0,
    })
}

fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: strings of a plugin are NULL or end with a NUL.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

fn describe(stage: &ffi::Stage, to: &mut Writer) {
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
    ];
    to.u8(bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum());
}

/// Ends the process when the host is gone, and passes on that a run is over.
fn watch(mut leash: UnixStream, cancelled: Arc<AtomicBool>) -> std::io::Result<()> {
    last_words::prepare(leash.try_clone()?.into());
    let thread = std::thread::Builder::new().stack_size(128 << 10);
    thread.spawn(move || {
        let mut word = [0];
        while matches!(leash.read(&mut word), Ok(1)) {
            cancelled.store(true, SeqCst);
        }
        vanish();
    })?;
    Ok(())
}

/// From now on this process may take `bytes` bytes more, and leaves no core file.
fn limit(bytes: u64) -> std::io::Result<()> {
    let sizes = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = sizes
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let has = pages * rustix::param::page_size() as u64;
    let at_most = |bytes: u64| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let _ = setrlimit(Resource::Core, at_most(0));
    setrlimit(Resource::As, at_most(has.saturating_add(bytes)))?;
    Ok(())
}

impl Server {
    /// Serves one call.
    fn called(&mut self, kind: u8, body: &mut Reader<'_>, answer: &mut Writer) -> Result<(), Broken> {
        let mut done = Done {
            status: ffi::OK,
            error: ErrorOut::EMPTY,
            complaint: None,
            refused: false,
        };
        match kind {
            ask::BIND => {
                let id = body.u64()?;
                match self.bind(body)? {
                    Ok(bound) => {
                        done.write(answer);
                        answered(&bound, answer);
                        self.bounds.insert(id, bound);
                        return Ok(());
                    }
                    Err(Refused { message, param, .. }) => {
                        done.status = ffi::E_CONFIG;
                        done.error = error_of(&message, &param);
                    }
                }
            }
            ask::UNBIND => drop(self.bounds.remove(&body.u64()?)),
            ask::CREATE => {
                let (id, bound, split) = (body.u64()?, body.u64()?, body.u32()?);
                let folder = body.str()?;
                let given = self.bounds.get(&bound).ok_or(Broken)?.given.clone();
                match Object::new(&given, self.owner(folder), split) {
                    Ok(object) => drop(self.objects.insert(id, (object, bound))),
                    Err(error) => {
                        done.status = ffi::E_INTERNAL;
                        done.error = error_of(&crate::plugin::bind::message_of(error), "");
                    }
                }
            }
            ask::PROCESS | ask::FINISH => {
                let (id, max_rows) = (body.u64()?, body.u64()?);
                let output = self.work(id, max_rows, kind == ask::PROCESS, body, &mut done)?;
                done.write(answer);
                match output {
                    Some(output) => answer.u8(1).0.extend(output),
                    None => drop(answer.u8(0)),
                }
                return Ok(());
            }
            ask::DESTROY => drop(self.objects.remove(&body.u64()?)),
            _ => return Err(Broken),
        }
        done.write(answer);
        Ok(())
    }

    fn bind(&self, body: &mut Reader<'_>) -> Result<Result<Bound, Refused>, Broken> {
        let stage = body.u32()? as usize;
        let config = std::str::from_utf8(body.bytes()?).map_err(|_| Broken)?;
        let (_max_workers, _flags, own) = (body.u32()?, body.u32()?, body.u32()?);
        let count = body.u32()?;
        let input = match count {
            0 => None,
            _ => Some(body.schema()?),
        };
        let vtable = self.stages.get(stage).copied().flatten().ok_or(Broken)?;
        let given = match Given::new(vtable, input.as_ref(), own as usize, config) {
            Ok(given) => given,
            Err(refused) => return Ok(Err(refused)),
        };
        let input = used(
            &input.unwrap_or_default(),
            list(given.out.used_columns, given.out.n_used_columns as usize),
        );
        let input = input.unwrap_or_default();
        let from = list(given.out.from_columns, given.output.width());
        let output = super::given(vtable.stage.kind, given.out.flags, &given.output, from);
        Ok(Ok(Bound {
            vtable,
            input_types: input.iter().map(|field| field.ty.clone()).collect(),
            input,
            output,
            given: Arc::new(given),
        }))
    }

    fn owner(&self, folder: &str) -> Registered {
        let (link, logged) = (self.link.clone(), self.link.clone());
        let say = Arc::new(move |text: &str| {
            let _ = logged.send(tell::LOG, text.as_bytes());
        });
        let reserve = Arc::new(move |delta: i64| link.reserve(delta));
        Registered::elsewhere(say, self.cancelled.clone(), reserve, self.meter.clone(), folder)
    }

    /// A call of `process` or `finish`; with what is left of its output.
    fn work(
        &mut self,
        id: u64,
        max_rows: u64,
        has_input: bool,
        body: &mut Reader<'_>,
        done: &mut Done,
    ) -> Result<Option<Vec<u8>>, Broken> {
        self.arena.reset();
        self.region.reset();
        let (object, bound) = self.objects.get_mut(&id).ok_or(Broken)?;
        let bound = self.bounds.get(bound).ok_or(Broken)?;
        let (arena, region) = (&self.arena, &self.region);
        let failed = |error: Error| match error {
            Error::Failed { message, .. } => message,
            other => other.to_string(),
        };
        let mut lent = None;
        if has_input {
            let array = arrays::read(body, &bound.input_types, &mut Taking { region, arena }).map_err(|_| Broken)?;
            let importer = Importer {
                arena,
                lent: None,
                arena_release: None,
                all_lasting: true,
            };
            // SAFETY: the host wrote the array, of these types and normalised; it stays where it is until the arena is reset.
            let columns = unsafe { importer.columns(&array, &bound.input) };
            let made = columns.and_then(|columns| {
                Lent::new(columns, &bound.input_types, array.length as usize, arena, &object.lease)
            });
            match made {
                Ok(made) => lent = Some(made),
                Err(error) => {
                    done.complaint = Some(failed(error));
                    return Ok(None);
                }
            }
        }
        let mut remote = Remote {
            link: &self.link,
            region,
            arena,
            bound,
            lent: lent.as_ref(),
            complaint: None,
            refused: false,
        };
        let mut call = object.call();
        call.max_rows = max_rows;
        let (mut out, mut error) = (ArrowArray::EMPTY, ErrorOut::EMPTY);
        let mut input = lent.as_ref().map(|lent| lent.array);
        // SAFETY: both stay where they are, and nobody else uses `remote`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut remote) };
        let vtable = &bound.vtable;
        // SAFETY: `create` made `inst`; the host calls no instance again that may only be destroyed; the other arguments are valid
        // for the call; the functions keep to the header, or this process is lost.
        let status = unsafe {
            match (&mut input, vtable.process, vtable.stage.finish) {
                (Some(input), Some(process), _) => {
                    process(object.inst, &raw const call, input, &raw mut out, &raw mut error)
                }
                (None, _, Some(finish)) => finish(object.inst, &raw const call, &raw mut out, &raw mut error),
                _ => return Err(Broken),
            }
        };
        drop(entered);
        let mut output = None;
        if status >= 0 && remote.complaint.is_none() && out.release.is_some() {
            // SAFETY: the call filled it, as the header says.
            match unsafe { remote.written(&out) } {
                Ok(body) => output = Some(body.0),
                Err(Stopped::NoRoom) => {
                    done.error = error_of("", "");
                    remote.refused = true;
                }
                Err(_) => {}
            }
        }
        // SAFETY: the call filled it, or left it released.
        unsafe { release(&mut out) }
        let Remote { complaint, refused, .. } = remote;
        (done.status, done.error, done.complaint, done.refused) = (status, error, complaint, refused);
        if refused && output.is_none() && status >= 0 && done.complaint.is_none() {
            // What it gave in the end found no room.
            (done.status, done.error) = (ffi::E_MEMORY, error_of("", ""));
        }
        if let (Some(lent), Some(input)) = (&lent, input)
            && let Err(error) = lent.take_back(input)
        {
            done.complaint = done.complaint.take().or(Some(failed(error)));
            done.error.flags |= ffi::ERR_POISONED;
        }
        Ok(output)
    }
}

/// What `bind` gave, for the host.
fn answered(bound: &Bound, answer: &mut Writer) {
    let (out, output) = (&bound.given.out, &bound.given.output);
    answer
        .u32(out.flags)
        .schema(output)
        .u32(out.parallelism)
        .u32(out.n_splits)
        .u32(out.max_workers);
    answer.u32(out.memory);
    answer.numbers(list(out.key_columns, out.n_keys as usize));
    answer.numbers(list(out.used_columns, out.n_used_columns as usize));
    answer.numbers(list(out.from_columns, output.width()));
}

fn list<'a>(numbers: *const i32, len: usize) -> Option<&'a [i32]> {
    if numbers.is_null() {
        return None;
    }
    // SAFETY: as the header says: arrays of these lengths, which live as long as what is bound.
    Some(unsafe { std::slice::from_raw_parts(numbers, len) })
}

/// What a call stands for here.
struct Remote<'r, 'a> {
    link: &'r Link,
    region: &'r Region,
    arena: &'a Arena,
    bound: &'r Bound,
    lent: Option<&'r Lent<'r, 'a>>,
    /// What the plugin does wrong: the call is to end.
    complaint: Option<String>,
    /// There was no room for what it gives.
    refused: bool,
}

impl Remote<'_, '_> {
    /// An array as the host reads it.
    ///
    /// # Safety
    /// As [`Importer::columns`] has it.
    unsafe fn written(&mut self, array: &ArrowArray) -> Result<Writer, Stopped> {
        let importer = Importer {
            arena: self.arena,
            lent: self.lent,
            arena_release: Some(host::host().arena_release),
            all_lasting: false,
        };
        let fields = &self.bound.output;
        // SAFETY: the caller's promise; what is marked as ours is the region's memory, which stays until the next call.
        let columns = unsafe { importer.columns(array, fields) };
        let rows = array.length as usize;
        let types: Vec<&Type> = fields.iter().map(|field| &field.ty).collect();
        let normal = columns.and_then(|columns| lend::give(columns, &types, rows, self.arena, lend::release_marked));
        let normal = match normal {
            Ok(normal) => normal,
            Err(Error::Failed { message, .. }) => {
                self.complaint = Some(message);
                return Err(Stopped::Broken);
            }
            Err(_) => return Err(Stopped::NoRoom),
        };
        let types: Vec<Type> = fields.iter().map(|field| field.ty.clone()).collect();
        let mut body = Writer::default();
        // SAFETY: `give` made it of columns of these types.
        unsafe { arrays::write(&normal, &types, &mut body, &mut Giving(self.region))? }
        Ok(body)
    }
}

impl Service for Remote<'_, '_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        match self.region.alloc(size) {
            Some(at) => self.region.at(at).cast(),
            None => {
                self.refused = true;
                std::ptr::null_mut()
            }
        }
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        let written = match &self.complaint {
            Some(_) => Err(Stopped::Broken),
            // SAFETY: the caller's promise.
            None => unsafe { self.written(array) },
        };
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        match written {
            Ok(body) => self.link.asked(tell::EMIT, &body.0),
            Err(Stopped::NoRoom) => {
                self.refused = true;
                ffi::E_MEMORY
            }
            Err(_) => ffi::E_CANCELLED,
        }
    }

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status {
        let mut body = Writer::default();
        body.u64(row as u64).i32(column).bytes(code).bytes(message);
        self.link.asked(tell::REJECT, &body.0)
    }

    fn panicked(&mut self, _: Box<dyn Any + Send>) {
        self.complaint = Some("a service of its host panicked".into());
    }
}
