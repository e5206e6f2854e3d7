//! The child's end: it loads the library and is to the plugin what the host is.
//!
//! Laws
//! - The plugin is called by one thread, one call at a time. What it asks of the host during a call is asked over the socket.
//! - What it gives is checked here with the host's own code, so that the words are the same; the host checks again.
//! - The process ends when the host is gone or lets go of it, whatever the plugin does.
#![allow(unsafe_code)]

mod call;
mod describe;
mod link;
mod region;

use super::wire::{Broken, Done, LONGEST_BODY, Reader, Writer, ask, cut, error_of, parts, tell};
use super::{last_words, used};
use crate::plugin::bind::{Given, Refused, Vtable};
use crate::plugin::host::Registered;
use crate::plugin::meter::{self, Meter};
use crate::plugin::run::Object;
use crate::plugin::{PLUGIN_FAILED, aggregate, begin, library, vtable_of};
use call::Rows;
use link::Link;
use region::Region;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use standpipe_sdk::ffi::{self, ErrorOut};
use standpipe_sdk::{Arena, Error, Schema};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

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
    let frame = frame(&mut socket, u32::from_le_bytes(len))?;
    let read = || {
        let (kind, _, body) = parts(&frame)?;
        let mut body = Reader(body);
        Ok((kind, body.str()?.to_owned(), body.u64()?, body.str()?.to_owned()))
    };
    let (kind, version, memory, path) = read().map_err(|Broken| broken())?;
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
fn frame(socket: &mut UnixStream, len: u32) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; len as usize];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}

/// What is bound here.
struct Bound {
    /// Instances hold it as well.
    given: Arc<Given>,
    vtable: Vtable,
    input: Rows,
    output: Rows,
    /// An aggregate's functions, and the columns of its states or why there are none.
    table: Option<aggregate::Table>,
    state: Rows,
    states: Result<Schema, String>,
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
    let link = Arc::new(Link::new(socket));
    let mut body = Writer::default();
    let loaded = load(&link, hello, &mut body).and_then(|server| match body.0.len() > LONGEST_BODY {
        true => Err(Error::failed(
            crate::plugin::DOES_NOT_LOAD,
            "what it says of itself is too long",
        )),
        false => Ok(server),
    });
    let server = match loaded {
        Ok(server) => Some(server),
        Err(error) => {
            body.0.clear();
            let (code, text) = match error {
                Error::Failed { code, message, .. } => (code, message),
                other => (PLUGIN_FAILED, other.to_string()),
            };
            body.u8(0).u32(code.0.into()).bytes(cut(&text).as_bytes());
            None
        }
    };
    let told = link.send(tell::DONE, &body.0);
    if let (Some(mut server), Ok(())) = (server, told) {
        while let Ok(question) = link.receive() {
            let Ok((kind, call, body)) = parts(&question) else {
                break;
            };
            let mut answer = Writer::default();
            last_words::begin();
            let understood = link.called(call, || server.called(kind, &mut Reader(body), &mut answer));
            if answer.0.len() > LONGEST_BODY {
                answer.0.clear();
                too_long().write(&mut answer);
            }
            if understood.is_err() || link.send(tell::DONE, &answer.0).is_err() {
                break;
            }
        }
    }
    vanish()
}

/// The end of a call whose answer is longer than a frame.
fn too_long() -> Done {
    Done {
        status: ffi::E_UNSUPPORTED,
        error: error_of("it gives more columns than can be told to another process", ""),
        complaint: None,
        refused: false,
    }
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
    to.u8(1).text(describe::text(plugin.version)).u32(stages.len() as u32);
    for stage in &stages {
        match stage {
            Some(stage) => describe::describe(stage, to.u8(1)),
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
                let run_flags = body.u32()?;
                let folder = body.str()?;
                let given = self.bounds.get(&bound).ok_or(Broken)?.given.clone();
                match Object::new(&given, self.owner((folder, run_flags)), split) {
                    Ok(object) => drop(self.objects.insert(id, (object, bound))),
                    Err(error) => {
                        done.status = ffi::E_INTERNAL;
                        done.error = error_of(&crate::plugin::bind::message_of(error), "");
                    }
                }
            }
            ask::PROCESS | ask::FINISH => {
                let output = self.rows(kind == ask::PROCESS, body, &mut done)?;
                ended(&done, answer, |rest| written(output, rest));
                return Ok(());
            }
            ask::ROOM..=ask::CLEAR => {
                let output = self.aggregate(kind, body, &mut done)?;
                ended(&done, answer, |rest| written(output, rest));
                return Ok(());
            }
            ask::SNAPSHOT => {
                let (at, len) = self.snapshot(body, &mut done)?;
                ended(&done, answer, |rest| {
                    rest.u64(at).u64(len);
                });
                return Ok(());
            }
            ask::RESTORE => self.restore(body, &mut done)?,
            ask::PUBLISH => {
                let published = self.publish(body, &mut done)?;
                ended(&done, answer, |rest| {
                    rest.u64(published.rows).u64(published.bytes);
                    rest.bytes(published.name().as_bytes());
                });
                return Ok(());
            }
            ask::DESTROY => drop(self.objects.remove(&body.u64()?)),
            _ => return Err(Broken),
        }
        done.write(answer);
        Ok(())
    }

    fn bind(&self, body: &mut Reader<'_>) -> Result<Result<Bound, Refused>, Broken> {
        let (stage, columns) = (body.u32()? as usize, body.u32()? as usize);
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
        let input = input.unwrap_or_default();
        let input = match vtable.stage.kind {
            ffi::KIND_AGGREGATE => Some(input.fields().iter().take(columns).cloned().collect()),
            _ => used(&input, list(given.out.used_columns, given.out.n_used_columns as usize)),
        };
        let input = input.unwrap_or_default();
        let table = match vtable.stage.kind {
            ffi::KIND_AGGREGATE => aggregate::table_of(&vtable).ok(),
            _ => None,
        };
        let states = match &table {
            Some(table) => aggregate::state_of(&given, table).map_err(|refused| refused.message),
            None => Ok(Schema::default()),
        };
        let from = list(given.out.from_columns, given.output.width());
        let output = super::given(vtable.stage.kind, given.out.flags, &given.output, from);
        Ok(Ok(Bound {
            vtable,
            input: Rows::new(input),
            output: Rows::new(output),
            table,
            state: Rows::new(states.as_ref().map_or(vec![], |states| states.fields().to_vec())),
            states,
            given: Arc::new(given),
        }))
    }

    fn owner(&self, of_run: (&str, u32)) -> Registered {
        let (link, logged) = (self.link.clone(), self.link.clone());
        let say = Arc::new(move |text: &str| {
            let _ = logged.send(tell::LOG, cut(text).as_bytes());
        });
        let reserve = Arc::new(move |delta: i64| link.reserve(delta));
        Registered::elsewhere(say, self.cancelled.clone(), reserve, self.meter.clone(), of_run)
    }
}

/// The end of a call, and what stands behind it if it is well.
fn ended(done: &Done, answer: &mut Writer, rest: impl FnOnce(&mut Writer)) {
    done.write(answer);
    if done.is_well() {
        rest(answer);
    }
}

/// An array that a call left, if it did.
fn written(output: Option<Vec<u8>>, answer: &mut Writer) {
    match output {
        Some(output) => answer.u8(1).0.extend(output),
        None => drop(answer.u8(0)),
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
    match (&bound.table, &bound.states) {
        (None, _) => answer.u8(0),
        (Some(_), Ok(states)) => answer.u8(1).schema(states),
        (Some(_), Err(message)) => answer.u8(2).bytes(cut(message).as_bytes()),
    };
}

fn list<'a>(numbers: *const i32, len: usize) -> Option<&'a [i32]> {
    if numbers.is_null() {
        return None;
    }
    // SAFETY: as the header says: arrays of these lengths, which live as long as what is bound.
    Some(unsafe { std::slice::from_raw_parts(numbers, len) })
}
