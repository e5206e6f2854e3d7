//! The host's end of a plugin's process: it is started, asked, waited for with a limit, and lost.
//!
//! Laws
//! - A process that ends, is silent for too long or says what cannot be is lost: it is ended, and never asked again.
//! - Time counts while the host waits for the process, not while the process waits for the host; giving a batch that is taken starts it
//!   anew. A process that asks without end is as silent as one that says nothing, and called off as soon.
//! - What it says takes [`SHORT`] bytes of the host's memory. What is longer is taken into the call's memory, if that has room; if not,
//!   it is passed over, and the process goes on.
//! - Nothing that comes from it is believed: see `wire` and `arrays`. What is no answer is found out here and nowhere else: whoever asks
//!   gives what reads the answer, and gets what that made of it, or a process that is lost.

use super::shared::Shared;
use super::wire::{self, Reader, Writer, ask, tell};
use super::{Description, Isolation, Plugin};
use crate::plugin::child::{Child, Ended, seconds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use standpipe_sdk::ffi::{self, Status};
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
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
/// A frame that takes no memory of the call's, in bytes.
const SHORT: usize = 64 << 10;
/// How long a process may take to end that has closed its socket.
const LAST: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// What happened to the process.
    Process(String),
    /// The run is over, and the plugin did not mind.
    Cancelled,
    /// It is not lost: the host has no room for its answer, and passed it over.
    NoRoom,
    /// It is not lost: what it would be asked is longer than a frame.
    TooLong,
}

/// What a plugin asks of its host while it is called.
pub(super) trait Services {
    fn emit(&mut self, array: &mut Reader<'_>, shared: &mut Shared) -> wire::Read<Status>;
    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> wire::Read<Status>;
    /// Whether the call's memory has room for a frame of so many bytes.
    fn room(&mut self, bytes: usize) -> bool;
    /// It had none for what was emitted or rejected.
    fn passed_over(&mut self) -> Status;
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
    /// What has come, up to `filled`, and was not read, from `read` on. It is as long as there is room.
    inbox: Vec<u8>,
    read: usize,
    filled: usize,
    timeout: Duration,
    memory: u64,
    pub(super) lost: bool,
    /// It was lost because it did not answer in time.
    pub(super) was_silent: bool,
    /// Then, what was said of that.
    last_words: String,
    /// It was told that a run is over.
    told: bool,
    /// The number of the last call.
    call: u32,
    /// What was bound in it, and made of what was bound.
    pub(super) bounds: BTreeSet<u64>,
    pub(super) instances: BTreeSet<u64>,
}

/// A frame as it came.
struct Frame {
    kind: u8,
    call: u32,
    /// Where it lies in the inbox until the next one is read; `None` if it was passed over.
    body: Option<Range<usize>>,
}

/// Whether the host still waits.
struct Patience {
    silent: Duration,
    cancelled: Option<Instant>,
}

impl Worker {
    /// Starts a process that has loaded the plugin; with what it says of it, or why it does not load.
    pub(super) fn start(plugin: &Plugin) -> Result<(Worker, standpipe_sdk::Result<Description>), Lost> {
        let mut worker =
            Worker::spawn(plugin).map_err(|error| Lost::Process(format!("its process cannot be started: {error}")))?;
        let said = worker.answer("load", &mut Nobody, |said, _| Description::read(said))?;
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
        let frame = [&wire::head(ask::HELLO, 0, &body.0), &body.0[..]].concat();
        let files = [shared.file.as_fd(), plugin.library.as_fd(), held.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(&socket, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL);
        // If nobody took it, the process is gone, and the first answer says how.
        if sent.is_ok_and(|sent| sent < frame.len()) {
            return Err(ErrorKind::WriteZero.into());
        }
        Worker::of(child, socket, leash, shared, plugin.isolation)
    }

    /// A process at the other end of these.
    fn of(
        child: Child,
        socket: UnixStream,
        leash: UnixStream,
        shared: Shared,
        isolation: Isolation,
    ) -> std::io::Result<Worker> {
        socket.set_nonblocking(true)?;
        leash.set_nonblocking(true)?;
        Ok(Worker {
            child,
            socket,
            leash,
            shared,
            inbox: vec![],
            read: 0,
            filled: 0,
            timeout: isolation.timeout,
            memory: isolation.memory,
            lost: false,
            was_silent: false,
            last_words: String::new(),
            told: false,
            call: 0,
            bounds: BTreeSet::new(),
            instances: BTreeSet::new(),
        })
    }

    /// Whether another run can have it.
    pub(super) fn is_fit(&mut self) -> bool {
        !self.lost && !self.told && self.child.ended().is_none()
    }

    /// Asks, serves the plugin meanwhile, and gives the answer, as `read` reads it: all of it, or it is no answer. `what` is asked,
    /// in the words of the header.
    pub(super) fn ask<T>(
        &mut self,
        kind: u8,
        body: &[u8],
        what: &str,
        services: &mut dyn Services,
        read: impl FnOnce(&mut Reader<'_>, &mut Shared) -> wire::Read<T>,
    ) -> Result<T, Lost> {
        if body.len() > wire::LONGEST_BODY {
            return Err(Lost::TooLong);
        }
        self.call = self.call.wrapping_add(1);
        let mut patience = Patience::new();
        self.send(kind, body, &mut patience, services)
            .map_err(|away| self.lose(what, away))?;
        self.answer(what, services, read)
    }

    /// Serves the plugin until it is done.
    fn answer<T>(
        &mut self,
        what: &str,
        services: &mut dyn Services,
        read: impl FnOnce(&mut Reader<'_>, &mut Shared) -> wire::Read<T>,
    ) -> Result<T, Lost> {
        let answer = self.served(services).and_then(|body| {
            let Some(body) = body else { return Ok(None) };
            let mut body = Reader(&self.inbox[body]);
            let answer = read(&mut body, &mut self.shared)?;
            body.end()?;
            Ok(Some(answer))
        });
        self.settle();
        answer.map_err(|away| self.lose(what, away))?.ok_or(Lost::NoRoom)
    }

    /// Where the answer lies, if there is room for it.
    fn served(&mut self, services: &mut dyn Services) -> Result<Option<Range<usize>>, Away> {
        let mut patience = Patience::new();
        loop {
            let Frame { kind, call, body } = self.frame(&mut patience, services)?;
            // A plugin's own threads may speak whenever they like, and nobody answers.
            if kind != tell::LOG && call != self.call {
                return Err(Away::Broken);
            }
            if kind != tell::DONE {
                self.look(&mut patience, services)?;
            }
            let body = match (kind, body) {
                (tell::DONE, body) => return Ok(body),
                (_, Some(body)) => body,
                (tell::EMIT | tell::REJECT, None) => {
                    let status = services.passed_over();
                    self.send(ask::ANSWER, &status.to_le_bytes(), &mut patience, services)?;
                    continue;
                }
                _ => return Err(Away::Broken),
            };
            let mut body = Reader(&self.inbox[body]);
            let status = match kind {
                tell::EMIT => {
                    let status = services.emit(&mut body, &mut self.shared)?;
                    // Whoever is told to stop does not go on.
                    if status == ffi::OK {
                        patience.silent = Duration::ZERO;
                    }
                    status
                }
                tell::REJECT => {
                    let (row, column) = (body.u64()? as i64, body.i32()?);
                    let (code, message) = (body.bytes()?, body.bytes()?);
                    services.reject(row, column, code, message)?
                }
                tell::RESERVE => services.reserve(body.u64()? as i64),
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
            body.end()?;
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
        let head = wire::head(kind, self.call, body);
        let mut sent = 0;
        while sent < head.len() + body.len() {
            let left = [
                IoSlice::new(head.get(sent..).unwrap_or_default()),
                IoSlice::new(&body[sent.saturating_sub(head.len())..]),
            ];
            match sendmsg(
                &self.socket,
                &left,
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            ) {
                Ok(more) => sent += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT, patience, services)?,
                Err(_) => return Err(Away::Closed),
            }
        }
        Ok(())
    }

    /// The next frame.
    fn frame(&mut self, patience: &mut Patience, services: &mut dyn Services) -> Result<Frame, Away> {
        const BEFORE: usize = size_of::<u32>();
        self.settle();
        if !self.has_room(SHORT) {
            return Err(Away::NoMemory);
        }
        self.fill(BEFORE, patience, services)?;
        let len = Reader(&self.inbox[self.read..self.filled]).u32()? as usize;
        if !(wire::HEAD..=wire::LONGEST).contains(&len) {
            return Err(Away::Broken);
        }
        self.fill(BEFORE + wire::HEAD, patience, services)?;
        let (kind, call, _) = wire::parts(&self.inbox[self.read + BEFORE..self.filled])?;
        let all = BEFORE + len;
        let fits = all <= SHORT || services.room(all) && self.has_room(all);
        let body = match fits {
            true => {
                self.fill(all, patience, services)?;
                self.read += all;
                Some(self.read - (len - wire::HEAD)..self.read)
            }
            false => {
                self.pass_over(all, patience, services)?;
                None
            }
        };
        Ok(Frame { kind, call, body })
    }

    /// Makes the inbox as long as this, if the system has the memory.
    fn has_room(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.inbox.len());
        if more > 0 && self.inbox.try_reserve_exact(more).is_ok() {
            self.inbox.resize(bytes, 0);
        }
        self.inbox.len() >= bytes
    }

    /// Gives back what a long frame took.
    fn settle(&mut self) {
        let unread = self.filled - self.read;
        if self.inbox.len() > SHORT && unread <= SHORT {
            self.inbox.copy_within(self.read..self.filled, 0);
            (self.read, self.filled) = (0, unread);
            self.inbox.truncate(SHORT);
            self.inbox.shrink_to_fit();
        }
    }

    /// Waits until so many bytes have come that were not read; there is room for them.
    fn fill(&mut self, bytes: usize, patience: &mut Patience, services: &mut dyn Services) -> Result<(), Away> {
        while self.filled - self.read < bytes {
            if self.inbox.len() - self.read < bytes || self.filled == self.read {
                self.inbox.copy_within(self.read..self.filled, 0);
                (self.read, self.filled) = (0, self.filled - self.read);
            }
            match self.socket.read(&mut self.inbox[self.filled..]) {
                Ok(0) => return Err(Away::Closed),
                Ok(more) => self.filled += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN, patience, services)?,
                Err(_) => return Err(Away::Closed),
            }
        }
        Ok(())
    }

    /// Reads so many bytes that nobody wants.
    fn pass_over(&mut self, bytes: usize, patience: &mut Patience, services: &mut dyn Services) -> Result<(), Away> {
        let mut left = bytes;
        while left > 0 {
            self.fill(1, patience, services)?;
            let here = left.min(self.filled - self.read);
            self.read += here;
            left -= here;
        }
        Ok(())
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
                format!("its process answered something that is no answer in `{what}`, and was ended")
            }
            Away::NoMemory => {
                self.child.end();
                "the system has no memory for what its process says".to_owned()
            }
            Away::Silent => {
                self.was_silent = true;
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
    NoMemory,
    Cancelled,
}

impl From<wire::Broken> for Away {
    fn from(_: wire::Broken) -> Self {
        Away::Broken
    }
}

impl Patience {
    fn new() -> Patience {
        Patience {
            silent: Duration::ZERO,
            cancelled: None,
        }
    }
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
    fn emit(&mut self, _: &mut Reader<'_>, _: &mut Shared) -> wire::Read<Status> {
        Err(wire::Broken)
    }

    fn reject(&mut self, _: i64, _: i32, _: &[u8], _: &[u8]) -> wire::Read<Status> {
        Err(wire::Broken)
    }

    /// What is said of a library or of what is bound is no run's.
    fn room(&mut self, _: usize) -> bool {
        true
    }

    fn passed_over(&mut self) -> Status {
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

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Done;

    /// A process that has said this before it is asked; with the other end.
    fn that_says(said: &[u8]) -> (Worker, UnixStream) {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sleep");
        let child = Child::start(command.arg("600").stdin(Stdio::null())).unwrap();
        let (mut says, said) = (theirs.try_clone().unwrap(), said.to_vec());
        // More than a socket holds is said while it is heard.
        std::thread::spawn(move || says.write_all(&said));
        let (leash, _) = UnixStream::pair().unwrap();
        let shared = Shared::new(1 << 20).unwrap();
        let worker = Worker::of(child, socket, leash, shared, Isolation::default()).unwrap();
        (worker, theirs)
    }

    fn frame(kind: u8, call: u32, body: &[u8]) -> Vec<u8> {
        [&wire::head(kind, call, body), body].concat()
    }

    fn asked(worker: &mut Worker) -> Result<Status, Lost> {
        worker.ask(ask::FINISH, &[], "finish", &mut Nobody, |body, _| {
            Done::read(body).map(|done| done.status)
        })
    }

    /// A call whose memory has room for frames of so many bytes.
    struct Within {
        most: usize,
        passed_over: usize,
    }

    impl Services for Within {
        fn emit(&mut self, array: &mut Reader<'_>, _: &mut Shared) -> wire::Read<Status> {
            array.0 = &[];
            Ok(ffi::OK)
        }

        fn reject(&mut self, _: i64, _: i32, _: &[u8], _: &[u8]) -> wire::Read<Status> {
            Ok(ffi::OK)
        }

        fn room(&mut self, bytes: usize) -> bool {
            bytes <= self.most
        }

        fn passed_over(&mut self) -> Status {
            self.passed_over += 1;
            ffi::E_MEMORY
        }

        fn reserve(&mut self, _: i64) -> Status {
            ffi::OK
        }

        fn log(&mut self, _: &str) {}

        fn cancelled(&mut self) -> bool {
            false
        }
    }

    #[test]
    fn a_long_frame_takes_memory_of_the_call_or_is_passed_over() {
        let long = vec![0; wire::LONGEST_BODY];
        let said = [
            frame(tell::EMIT, 1, &long),
            frame(tell::DONE, 1, &long),
            frame(tell::DONE, 2, b"short"),
        ]
        .concat();
        for (most, want, passed_over) in [(usize::MAX, Ok(long.len()), 0), (SHORT, Err(Lost::NoRoom), 1)] {
            let (mut worker, mut other) = that_says(&said);
            let mut services = Within { most, passed_over: 0 };
            let mut asked = |worker: &mut Worker| {
                worker.ask(ask::FINISH, &[], "finish", &mut services, |body, _| {
                    let len = body.0.len();
                    body.0 = &[];
                    Ok(len)
                })
            };
            assert_eq!(asked(&mut worker), want);
            // What comes behind it is read as if it had not been there, and its memory is given back.
            assert_eq!(asked(&mut worker), Ok(5));
            assert!(worker.is_fit() && worker.inbox.len() == SHORT && worker.inbox.capacity() == SHORT);
            assert_eq!(services.passed_over, passed_over);
            let mut heard = [0; 4 * (4 + wire::HEAD)];
            other.read_exact(&mut heard[..2 * 9 + 4 + 9]).unwrap();
            let status = if passed_over > 0 { ffi::E_MEMORY } else { ffi::OK };
            assert_eq!(heard[18..22], status.to_le_bytes());
        }
        let (mut worker, _other) = that_says(&[]);
        let asked = worker.ask(ask::BIND, &[0; wire::LONGEST], "bind", &mut Nobody, |_, _| Ok(()));
        assert_eq!(asked, Err(Lost::TooLong));
        assert!(worker.is_fit());
    }

    #[test]
    fn what_is_no_answer_ends_the_process_and_all_else_does_not() {
        let mut done = Writer::default();
        let end = Done {
            status: 0,
            error: ffi::ErrorOut::EMPTY,
            complaint: None,
            refused: false,
        };
        end.write(&mut done);
        let done = done.0;
        let log = frame(tell::LOG, 77, b"on and on");
        let reserve = frame(tell::RESERVE, 1, &[0; 8]);
        for sound in [
            frame(tell::DONE, 1, &done),
            [&log[..], &reserve, &frame(tell::DONE, 1, &done)].concat(),
        ] {
            let (mut worker, _other) = that_says(&sound);
            assert_eq!(asked(&mut worker), Ok(0));
            assert!(worker.is_fit());
        }
        let text = "its process answered something that is no answer in `finish`, and was ended";
        for (what, said) in [
            ("no frame", b"what is said is no frame".to_vec()),
            (
                "too long for a frame",
                [&(wire::LONGEST as u32 + 1).to_le_bytes()[..], &[tell::DONE, 1, 0, 0, 0]].concat(),
            ),
            ("too short for a frame", vec![4, 0, 0, 0, tell::DONE, 1, 0, 0]),
            ("an unknown kind", frame(77, 1, &done)),
            ("a question of the host's", frame(ask::FINISH, 1, &done)),
            ("an end that is cut off", frame(tell::DONE, 1, &done[..done.len() - 1])),
            (
                "an end with more behind it",
                frame(tell::DONE, 1, &[&done[..], &[0]].concat()),
            ),
            ("the end of another call", frame(tell::DONE, 0, &done)),
            ("rows where there are none", frame(tell::EMIT, 1, &[0; 64])),
            ("a bad row where there are none", frame(tell::REJECT, 1, &[0; 20])),
            ("a number that is cut off", frame(tell::RESERVE, 1, &[0; 7])),
            ("a number with more behind it", frame(tell::RESERVE, 1, &[0; 9])),
        ] {
            let (mut worker, _other) = that_says(&said);
            assert_eq!(asked(&mut worker), Err(Lost::Process(text.into())), "{what}");
            // Ended and reaped: so it is known how it ended.
            assert_eq!(worker.child.ended(), Some(Ended::Signal(9)), "{what}");
            assert!(!worker.is_fit(), "{what}");
            assert_eq!(asked(&mut worker), Err(Lost::Process(text.into())), "{what}");
        }
    }
}
