//! A child process that is never left behind: started, waited for, ended, and how it ended in words.
//!
//! Laws
//! - It leads a process group of its own: Ctrl-C at a terminal does not reach it, and what it started ends with it.
//! - Nothing waits longer than it is told to; a dropped child is ended and reaped.
//! - A process number is used only before its process is reaped: until then nobody else has it.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as Process, Command, ExitStatus};
use std::time::{Duration, Instant};

/// The longest pause between two looks at a child that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// A running child, or one that has ended.
#[derive(Debug)]
pub struct Child {
    process: Process,
    pid: Option<Pid>,
    ended: Option<Ended>,
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It exited, with this status.
    Exit(i32),
    /// A signal ended it, by its number.
    Signal(i32),
    /// It did not end in this time, and was ended.
    Timeout(Duration),
    /// Somebody else has asked the system how it ended.
    Unknown,
}

impl Child {
    /// Starts a child. Where its standard streams go is the command's business.
    ///
    /// # Errors
    /// If the system does not start it.
    pub fn start(command: &mut Command) -> std::io::Result<Child> {
        let process = command.process_group(0).spawn()?;
        Ok(Child {
            pid: Pid::from_raw(i32::try_from(process.id()).unwrap_or(0)),
            process,
            ended: None,
        })
    }

    /// The process itself: its streams are taken from here.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_some() {
            return self.ended;
        }
        // Looked at and left unreaped: its group still has its number.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match self.pid.map(|pid| waitid(WaitId::Pid(pid), options)) {
            Some(Ok(None)) => None,
            _ => Some(self.end()),
        }
    }

    /// Waits until it has ended, at most so long.
    pub fn wait(&mut self, at_most: Duration) -> Option<Ended> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            let left = at_most.saturating_sub(start.elapsed());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Waits at most so long, then ends it.
    pub fn wait_or_end(&mut self, at_most: Duration) -> Ended {
        if let Some(ended) = self.wait(at_most) {
            return ended;
        }
        self.end();
        let ended = Ended::Timeout(at_most);
        self.ended = Some(ended);
        ended
    }

    /// Ends it and everything in its group, at once, and reaps it. What has ended by itself stays so.
    pub fn end(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        // A child that has left its group.
        let _ = self.process.kill();
        let ended = self.process.wait().map_or(Ended::Unknown, Ended::from);
        self.ended = Some(ended);
        ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => Ended::Unknown,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exit(code) => write!(f, "it exited with status {code}"),
            Ended::Signal(number) => match signal_name(*number) {
                Some((name, about)) => write!(f, "it ended with {name} ({about})"),
                None => write!(f, "it ended with signal {number}"),
            },
            Ended::Timeout(limit) => write!(f, "it did not answer within {}", seconds(*limit)),
            Ended::Unknown => f.write_str("it is gone"),
        }
    }
}

/// `10 s`, `0.5 s`
pub fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

fn signal_name(number: i32) -> Option<(&'static str, &'static str)> {
    let names = [
        (Signal::ABORT, "SIGABRT", "it gave up by itself"),
        (Signal::SEGV, "SIGSEGV", "it touched memory that is not its own"),
        (Signal::BUS, "SIGBUS", "it touched memory that is not there"),
        (Signal::ILL, "SIGILL", "an instruction that does not exist"),
        (Signal::TRAP, "SIGTRAP", "a trap"),
        (Signal::FPE, "SIGFPE", "arithmetic that cannot be done"),
        (
            Signal::KILL,
            "SIGKILL",
            "somebody killed it, or the system was out of memory",
        ),
        (Signal::TERM, "SIGTERM", "somebody asked it to end"),
        (Signal::INT, "SIGINT", "it was interrupted"),
        (Signal::HUP, "SIGHUP", "its terminal went away"),
        (Signal::PIPE, "SIGPIPE", "nobody read what it wrote"),
        (Signal::ALARM, "SIGALRM", "its alarm rang"),
        (Signal::XCPU, "SIGXCPU", "its time on the processor was used up"),
        (Signal::XFSZ, "SIGXFSZ", "a file became too large"),
        (Signal::SYS, "SIGSYS", "a system call that is forbidden"),
    ];
    let found = names.iter().find(|(signal, ..)| signal.as_raw() == number);
    found.map(|(_, name, about)| (*name, *about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        Child::start(&mut command).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn how_it_ended_is_told() {
        let cases = [
            ("exit 3", Ended::Exit(3), "it exited with status 3"),
            (
                "kill -SEGV $$",
                Ended::Signal(11),
                "it ended with SIGSEGV (it touched memory that is not its own)",
            ),
            ("kill -USR1 $$", Ended::Signal(10), "it ended with signal 10"),
        ];
        for (script, want, text) in cases {
            let mut child = shell(script);
            assert_eq!(child.wait(LONG), Some(want), "{script}");
            assert_eq!((child.ended(), child.end()), (Some(want), want));
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_it_started() {
        // The second one holds the pipe open for as long as it lives.
        let mut child = shell("sleep 600 & sleep 600");
        let mut out = child.process().stdout.take().unwrap();
        let start = Instant::now();
        assert_eq!(child.wait(Duration::from_millis(20)), None);
        let ended = child.wait_or_end(Duration::from_millis(50));
        assert_eq!(ended, Ended::Timeout(Duration::from_millis(50)));
        assert_eq!(ended.to_string(), "it did not answer within 0.05 s");
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn what_it_started_ends_with_it_when_it_ends_by_itself() {
        let mut child = shell("sleep 600 & exit 0");
        let mut out = child.process().stdout.take().unwrap();
        assert_eq!(child.wait(LONG), Some(Ended::Exit(0)));
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    }

    #[test]
    fn a_dropped_child_is_reaped() {
        let child = shell("sleep 600");
        let pid = child.pid.unwrap();
        drop(child);
        assert!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_err());
    }
}
