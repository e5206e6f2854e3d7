//! What a person at a terminal sees of a run: the progress line, and messages that do not tear it.
//!
//! Laws
//! - The line is on stderr, on a terminal only, and gone before anything else is written there.

use super::memory;
use super::size::shown;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use standpipe::Progress;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(100);
/// A run shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// The stderr of a run.
#[derive(Default)]
pub(super) struct Screen {
    bar: Mutex<Option<ProgressBar>>,
    over: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Screen {
    /// Whether anybody watches.
    pub(super) fn is_watched(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Draws the progress of a run with `limit` bytes of memory until [`Screen::end`].
    pub(super) fn start(self: &Arc<Self>, progress: Arc<Progress>, limit: usize) {
        if self.is_watched() {
            let screen = self.clone();
            let thread = std::thread::spawn(move || screen.draw(&progress, limit));
            *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
    }

    /// Says something without tearing the line.
    pub(super) fn say(&self, text: &str) {
        match &*self.bar() {
            Some(bar) => bar.suspend(|| super::say(text)),
            None => super::say(text),
        }
    }

    /// Takes the line away for good.
    pub(super) fn end(&self) {
        if self.over.swap(true, SeqCst) {
            return;
        }
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, progress: &Progress, limit: usize) {
        let start = Instant::now();
        while !self.over.load(SeqCst) {
            std::thread::park_timeout(TICK);
            if start.elapsed() >= PATIENCE && !self.over.load(SeqCst) {
                self.draw_once(progress, limit, start.elapsed());
            }
        }
    }

    fn draw_once(&self, progress: &Progress, limit: usize, elapsed: Duration) {
        let (done, total) = (progress.bytes_read(), progress.bytes_total());
        let mut bar = self.bar();
        let line = bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let known = "{bar:24} {percent}% {msg}, {eta} left";
            let template = if total.is_some() { known } else { "{spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        line.set_position(done);
        let memory = memory::resident().map_or(0, |(now, _)| now);
        line.set_message(message(&Seen::of(progress, memory, limit as u64, elapsed)));
    }
}

/// What the line shows.
struct Seen {
    rows: u64,
    bytes: u64,
    elapsed: Duration,
    memory: u64,
    limit: u64,
    /// On disk now, and ever written there.
    spilled: (u64, u64),
    merging: bool,
}

impl Seen {
    fn of(progress: &Progress, memory: u64, limit: u64, elapsed: Duration) -> Seen {
        Seen {
            rows: progress.rows_read(),
            bytes: progress.bytes_read(),
            elapsed,
            memory,
            limit,
            spilled: progress.spilled_bytes(),
            merging: progress.is_merging(),
        }
    }
}

fn message(seen: &Seen) -> String {
    let per_second = |count: u64| (count as f64 / seen.elapsed.as_secs_f64()) as u64;
    let rate = match seen.bytes {
        0 => format!("{} rows/s", per_second(seen.rows)),
        bytes => format!("{} at {}/s", shown(bytes), shown(per_second(bytes))),
    };
    let disk = match seen.spilled {
        (_, 0) => String::new(),
        (now, ever) => format!(", {} on disk ({} spilled)", shown(now), shown(ever)),
    };
    format!(
        "{}{} rows, {rate}, memory {} of {}{disk}",
        if seen.merging { "merging, " } else { "" },
        seen.rows,
        shown(seen.memory),
        shown(seen.limit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_of_the_disk_once_something_is_there() {
        let mut seen = Seen {
            rows: 1000,
            bytes: 0,
            elapsed: Duration::from_secs(2),
            memory: 3 << 20,
            limit: 64 << 20,
            spilled: (0, 0),
            merging: false,
        };
        assert_eq!(message(&seen), "1000 rows, 500 rows/s, memory 3.0 MiB of 64.0 MiB");
        seen.bytes = 4 << 20;
        seen.spilled = (5 << 20, 6 << 20);
        let reading = "1000 rows, 4.0 MiB at 2.0 MiB/s, memory 3.0 MiB of 64.0 MiB, 5.0 MiB on disk (6.0 MiB spilled)";
        assert_eq!(message(&seen), reading);
        seen.merging = true;
        assert_eq!(message(&seen), format!("merging, {reading}"));
    }
}
