//! The host's end of a plugin's process: it is started, asked, waited for with a limit, and lost.
//!
//! Laws
//! - A process that ends, is silent for too long or says what cannot be is lost: it is ended, and never asked again.
//! - Time counts while the host waits for the process, not while the process waits for the host; giving a batch that is taken starts it
//!   anew. A process that asks without end is as silent as one that says nothing, and called off as soon.
//! - Nothing that comes from it is believed: see `wire` and `arrays`.

use super::Plugin;
use super::shared::Shared;
use super::wire::{self, Reader, Writer, ask, tell};
use crate::plugin::child::{Child, Ended, seconds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use standpipe_sdk::ffi::{self, Status};
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The subcommand that makes a program a plugin's process.
pub const WORKER_COMMAND: &str = "plugin-worker";
/// How long at most nobody looks whether the run was cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// How long a plugin has to end by itself once the run is cancelled.
const GRACE: Duration = Duration::from_millis(500);
/// What a message counts at most, while the host says it: nobody answers it, so without this a process could say some without end.
const WORDS: Duration = Duration::from_millis(1);
/// How long a process may take to end that has closed its socket.
const LAST: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// What happened to the process.
    Process(String),
    /// The run is over, and the plugin did not mind.
    Cancelled,
}

/// What a plugin asks of its host while it is called.
pub(super) trait Services {
    fn emit(&mut self, array: &mut Reader<'_>, shared: &mut Shared) -> Status;
    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status;
    fn reserve(&mut self, delta: i64) -> Status;
    fn log(&mut self, text: &str);
    fn cancelled(&mut self) -> bool;
}

pub(super) struct Worker {
    child: Child,
    socket: UnixStream,
    /// Closed, it ends the process, whatever that does. It tells the process that a run is over, and the host its last words.
    leash: UnixStream,
    pub(super) shared: Shared,
    /// What has come and was not read, from `read` on.
    inbox: Vec<u8>,
    read: usize,
    /// What is written to it as a frame.
    outbox: Vec<u8>,
    timeout: Duration,
    memory: u64,
    pub(super) lost: bool,
    /// Then, what was said of that.
    last_words: String,
    /// It was told that a run is over.
    told: bool,
    /// What was bound in it, and made of what was bound.
    pub(super) bounds: BTreeSet<u64>,
    pub(super) instances: BTreeSet<u64>,
}

/// Whether the host still waits.
struct Patience {
    silent: Duration,
    cancelled: Option<Instant>,
}

impl Worker {
    /// Starts a process that has loaded the plugin; with what it says of it.
    pub(super) fn start(plugin: &Plugin) -> Result<(Worker, Vec<u8>), Lost> {
        let mut worker =
            Worker::spawn(plugin).map_err(|error| Lost::Process(format!("its process cannot be started: {error}")))?;
        let said = worker.answer("load", &mut Nobody)?;
        Ok((worker, said))
    }

    fn spawn(plugin: &Plugin) -> std::io::Result<Worker> {
        let (socket, theirs) = UnixStream::pair()?;
        let (leash, held) = UnixStream::pair()?;
        let shared = Shared::new(plugin.isolation.memory)?;
        let mut command = Command::new(&plugin.worker);
        command.arg(WORKER_COMMAND).stdin(OwnedFd::from(theirs));
        // What a plugin prints is not data.
        command.stdout(match std::io::stderr().as_fd().try_clone_to_owned() {
            Ok(stderr) => Stdio::from(stderr),
            Err(_) => Stdio::null(),
        });
        let child = Child::start(&mut command)?;
        drop(command);
        let mut body = Writer::default();
        body.bytes(env!("CARGO_PKG_VERSION").as_bytes())
            .u64(plugin.isolation.memory);
        body.bytes(plugin.path.as_bytes());
        let mut frame = Vec::new();
        framed(ask::HELLO, &body.0, &mut frame);
        let files = [shared.file.as_fd(), plugin.library.as_fd(), held.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(&socket, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL);
        // If nobody took it, the process is gone, and the first answer says how.
        if sent.is_ok_and(|sent| sent < frame.len()) {
            return Err(ErrorKind::WriteZero.into());
        }
        socket.set_nonblocking(true)?;
        leash.set_nonblocking(true)?;
        Ok(Worker {
            child,
            socket,
            leash,
            shared,
            inbox: vec![],
            read: 0,
            outbox: vec![],
            timeout: plugin.isolation.timeout,
            memory: plugin.isolation.memory,
            lost: false,
            last_words: String::new(),
            told: false,
            bounds: BTreeSet::new(),
            instances: BTreeSet::new(),
        })
    }

    /// Whether another run can have it.
    pub(super) fn is_fit(&mut self) -> bool {
        !self.lost && !self.told && self.child.ended().is_none()
    }

    /// Asks, serves the plugin meanwhile, and gives the answer. `what` is asked, in the words of the header.
    pub(super) fn ask(
        &mut self,
        kind: u8,
        body: &[u8],
        what: &str,
        services: &mut dyn Services,
    ) -> Result<Vec<u8>, Lost> {
        let mut patience = Patience::new();
        self.send(kind, body, &mut patience, services)
            .map_err(|lost| self.lose(what, lost))?;
        self.answer(what, services)
    }

    /// Serves the plugin until it is done.
    fn answer(&mut self, what: &str, services: &mut dyn Services) -> Result<Vec<u8>, Lost> {
        self.served(services).map_err(|lost| self.lose(what, lost))
    }

    fn served(&mut self, services: &mut dyn Services) -> Result<Vec<u8>, Away> {
        let mut patience = Patience::new();
        loop {
            let (kind, body) = self.frame(&mut patience, services)?;
            let mut body = Reader(&body);
            if kind != tell::DONE {
                self.look(&mut patience, services)?;
            }
            let status = match kind {
                tell::DONE => return Ok(body.0.to_vec()),
                tell::EMIT => {
                    let status = services.emit(&mut body, &mut self.shared);
                    // Whoever is told to stop does not go on.
                    if status == ffi::OK {
                        patience.silent = Duration::ZERO;
                    }
                    status
                }
                tell::REJECT => {
                    let mut read = || Ok((body.u64()? as i64, body.i32()?, body.bytes()?, body.bytes()?));
                    let (row, column, code, message) = read().map_err(|wire::Broken| Away::Broken)?;
                    services.reject(row, column, code, message)
                }
                tell::RESERVE => services.reserve(body.u64().map_err(|wire::Broken| Away::Broken)? as i64),
                tell::LOG => {
                    let start = Instant::now();
                    services.log(&String::from_utf8_lossy(body.0));
                    patience.silent += start.elapsed().min(WORDS);
                    if patience.silent >= self.timeout {
                        return Err(Away::Silent);
                    }
                    continue;
                }
                _ => return Err(Away::Broken),
            };
            self.send(ask::ANSWER, &status.to_le_bytes(), &mut patience, services)?;
        }
    }

    fn send(
        &mut self,
        kind: u8,
        body: &[u8],
        patience: &mut Patience,
        services: &mut dyn Services,
    ) -> Result<(), Away> {
        if self.lost {
            return Err(Away::Gone);
        }
        let mut frame = std::mem::take(&mut self.outbox);
        framed(kind, body, &mut frame);
        let mut left = &frame[..];
        while !left.is_empty() {
            match rustix::net::send(&self.socket, left, SendFlags::NOSIGNAL) {
                Ok(sent) => left = &left[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT, patience, services)?,
                Err(_) => return Err(Away::Closed),
            }
        }
        self.outbox = frame;
        Ok(())
    }

    /// The next frame.
    fn frame(&mut self, patience: &mut Patience, services: &mut dyn Services) -> Result<(u8, Vec<u8>), Away> {
        loop {
            let mut waiting = Reader(&self.inbox[self.read..]);
            if let Ok(len) = waiting.u32() {
                let len = len as usize;
                if len == 0 || len > wire::LONGEST {
                    return Err(Away::Broken);
                }
                if let Some((kind, body)) = waiting.0.get(..len).and_then(<[u8]>::split_first) {
                    let frame = (*kind, body.to_vec());
                    self.read += 4 + len;
                    return Ok(frame);
                }
            }
            self.inbox.drain(..self.read);
            self.read = 0;
            let before = self.inbox.len();
            self.inbox.resize(before + (64 << 10), 0);
            let got = self.socket.read(&mut self.inbox[before..]);
            self.inbox.truncate(before + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return Err(Away::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN, patience, services)?,
                Err(_) => return Err(Away::Closed),
            }
        }
    }

    /// Waits until the socket is ready, as long as there is patience.
    fn wait(&mut self, ready: PollFlags, patience: &mut Patience, services: &mut dyn Services) -> Result<(), Away> {
        loop {
            let left = self.timeout.saturating_sub(patience.silent);
            if left.is_zero() {
                return Err(Away::Silent);
            }
            let slice = left.min(LOOK);
            let start = Instant::now();
            let mut polled = [PollFd::new(&self.socket, ready)];
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(slice.subsec_nanos().max(1)),
            };
            let answer = poll(&mut polled, Some(&timeout));
            patience.silent += start.elapsed();
            match answer {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                _ => return Ok(()),
            }
            self.look(patience, services)?;
        }
    }

    /// Looks whether the run is over: the process is told, and has some time then.
    fn look(&mut self, patience: &mut Patience, services: &mut dyn Services) -> Result<(), Away> {
        match patience.cancelled {
            Some(since) if since.elapsed() > GRACE => return Err(Away::Cancelled),
            None if services.cancelled() => {
                patience.cancelled = Some(Instant::now());
                self.told = true;
                let _ = self.leash.write(b"c");
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends a process that has no answer.
    fn lose(&mut self, what: &str, away: Away) -> Lost {
        self.lost = true;
        let text = match away {
            Away::Cancelled => {
                self.child.end();
                return Lost::Cancelled;
            }
            // It was called off before.
            Away::Gone if self.told && self.last_words.is_empty() => return Lost::Cancelled,
            Away::Gone => match self.last_words.as_str() {
                "" => "its process is gone".to_owned(),
                words => words.to_owned(),
            },
            Away::Broken => {
                self.child.end();
                format!("what its process says in `{what}` cannot be understood; it was ended")
            }
            Away::Silent => {
                self.child.end();
                let limit = seconds(self.timeout);
                format!("its process did not answer in `{what}` within {limit}, and was ended")
            }
            Away::Closed => {
                let ended = self.child.wait(LAST).unwrap_or_else(|| self.child.end());
                let out_of_memory = matches!(ended, Ended::Signal(_)) && self.lacked_memory();
                let memory = match out_of_memory {
                    true => format!(", after its limit of {} had refused it memory", shown(self.memory)),
                    false => String::new(),
                };
                format!("its process was lost in `{what}`: {ended}{memory}")
            }
        };
        self.last_words.clone_from(&text);
        Lost::Process(text)
    }

    /// Whether its last words are that the system had refused it memory.
    fn lacked_memory(&mut self) -> bool {
        let mut words = [0; 64];
        matches!(self.leash.read(&mut words), Ok(1..)) && words[0] == super::last_words::NO_MEMORY
    }
}

/// Why there is no answer, before it is put into words.
#[derive(Clone, Copy)]
enum Away {
    Gone,
    Closed,
    Silent,
    Broken,
    Cancelled,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            silent: Duration::ZERO,
            cancelled: None,
        }
    }
}

fn framed(kind: u8, body: &[u8], frame: &mut Vec<u8>) {
    frame.clear();
    let len = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
    frame.extend(len.to_le_bytes());
    frame.push(kind);
    frame.extend(body);
}

/// `256MiB`
pub(super) fn shown(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    match whole {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// There is nothing to be asked: no call of an instance.
pub(super) struct Nobody;

impl Services for Nobody {
    fn emit(&mut self, _: &mut Reader<'_>, _: &mut Shared) -> Status {
        ffi::E_INTERNAL
    }

    fn reject(&mut self, _: i64, _: i32, _: &[u8], _: &[u8]) -> Status {
        ffi::E_INTERNAL
    }

    fn reserve(&mut self, _: i64) -> Status {
        ffi::E_INTERNAL
    }

    fn log(&mut self, text: &str) {
        standpipe_sdk::spec::say_on_stderr()(text);
    }

    fn cancelled(&mut self) -> bool {
        false
    }
}
