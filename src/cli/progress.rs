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
        let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()) as u64;
        let rows = progress.rows_read();
        let rate = match done {
            0 => format!("{} rows/s", per_second(rows)),
            _ => format!("{} at {}/s", shown(done), shown(per_second(done))),
        };
        let memory = memory::resident().map_or(0, |(now, _)| now);
        line.set_message(format!(
            "{rows} rows, {rate}, memory {} of {}",
            shown(memory),
            shown(limit as u64)
        ));
    }
}
