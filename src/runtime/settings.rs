//! How a run is to go: limits, workers, and the hooks of tests.

use standpipe_sdk::spec::Say;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The settings of one run.
#[derive(Clone)]
pub struct Settings {
    /// Threads that work on chunks.
    pub workers: usize,
    /// About how much input one chunk takes, in bytes.
    pub chunk_bytes: usize,
    /// The memory of the run, in bytes.
    pub memory_bytes: usize,
    /// Where what does not fit into memory goes.
    pub spill_dir: PathBuf,
    /// The most bytes of it; `None` = what is free there.
    pub disk_bytes: Option<u64>,
    /// The longest record, in bytes.
    pub max_record: usize,
    /// Outputs are synced to disk before they get their names.
    pub sync: bool,
    /// Microseconds since the epoch that `now()` gives.
    pub now_micros: i64,
    /// Set from outside (Ctrl-C) to end the run.
    pub cancel: Arc<AtomicBool>,
    /// Where stages say things to people (`tap`).
    pub say: Say,
    /// Hooks for tests; the default does nothing.
    pub hooks: Hooks,
}

/// What tests can make worse.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// At most so many rows per chunk.
    pub chunk_rows: Option<usize>,
    /// Overwrite every arena after each reset.
    pub poison: bool,
    /// In every chunk, refuse the allocation after so many.
    pub refuse_after: Option<usize>,
    /// What can spill spills after so many rows.
    pub spill_rows: Option<usize>,
    /// Panic when this node of the graph sees this claim.
    pub panic_at: Option<(usize, u64)>,
}

/// The least and the most of a lane's share of the memory, in bytes.
const SHARE: std::ops::RangeInclusive<usize> = (256 << 10)..=(32 << 20);

impl Default for Settings {
    fn default() -> Self {
        Settings {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            chunk_bytes: 256 << 10,
            memory_bytes: default_memory(),
            spill_dir: std::env::temp_dir(),
            disk_bytes: None,
            max_record: 8 << 20,
            sync: true,
            now_micros: 0,
            cancel: Arc::default(),
            say: Arc::new(|text| eprint!("{text}")),
            hooks: Hooks::default(),
        }
    }
}

impl Settings {
    /// What one arena of a lane may hand out, in bytes: an eighth of the memory over the workers, each having two.
    pub fn share(&self) -> usize {
        (self.memory_bytes / (8 * self.workers.max(1))).clamp(*SHARE.start(), *SHARE.end())
    }

    /// What the lanes take before the first row, in bytes: two arenas and a block of input each.
    pub fn floor(&self) -> usize {
        self.workers.max(1) * (2 * *SHARE.start() + 2 * self.chunk_bytes) + self.max_record
    }
}

/// min(256 MiB, a quarter of the cgroup's or the machine's memory).
fn default_memory() -> usize {
    const MOST: usize = 256 << 20;
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let cgroup = limits
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<usize>()
            .ok()
            .map(|kib| kib << 10)
    });
    let least = [cgroup, machine].into_iter().flatten().min().unwrap_or(usize::MAX);
    (least / 4).clamp(16 << 20, MOST)
}
