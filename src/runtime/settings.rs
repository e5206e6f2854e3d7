//! How a run is to go: limits, workers, and the hooks of tests.

use standpipe_sdk::spec::{Room, Say};
use std::path::{Path, PathBuf};
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
    /// Where relative paths start, for stages that open files themselves.
    pub folder: PathBuf,
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
    /// Run stages as the script has them: no rewrite but those that decide what sources are asked for.
    pub as_written: bool,
    /// Do whatever the sizes of files, and only those, speak against.
    pub any_size: bool,
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
            folder: PathBuf::new(),
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

    /// What all stages together may reserve, in bytes: what the lanes leave, but at least a quarter.
    pub fn stages_bytes(&self) -> usize {
        let lanes = self.workers.max(1) * 2 * self.share();
        self.memory_bytes.saturating_sub(lanes).max(self.memory_bytes / 4)
    }

    /// What there is for the stages.
    pub fn room(&self) -> Room {
        Room {
            bytes: self.stages_bytes(),
            share: self.share(),
            workers: self.workers.max(1),
            max_record: self.max_record,
            columns: 0,
        }
    }

    /// What the lanes take before the first row, in bytes: two arenas and a block of input each.
    pub fn floor(&self) -> usize {
        self.workers.max(1) * (2 * *SHARE.start() + 2 * self.chunk_bytes) + self.max_record
    }
}

/// A quarter of the cgroup's or the machine's memory, from 16 to 256 MiB.
fn default_memory() -> usize {
    const MOST: usize = 256 << 20;
    const LEAST: usize = 16 << 20;
    (memory_there_is(Path::new("/")) / 4).clamp(LEAST, MOST)
}

/// The memory that the process may take, in bytes: the least of the machine's and of the limits of its cgroup and all that this one is
/// in. `root` is where `proc` and `sys` are.
fn memory_there_is(root: &Path) -> usize {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let machine = read(Path::new("proc/meminfo")).and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        let kib = line.split_whitespace().nth(1)?.parse::<usize>().ok()?;
        kib.checked_mul(1 << 10)
    });
    let mut least = machine.unwrap_or(usize::MAX);
    let mut limit = |mount: &str, own: &str, file: &str| {
        // In a container the path may be the host's, which is not there: the root of the mount is asked in any case.
        let own = Path::new(own.trim_start_matches('/'));
        for folder in own.ancestors() {
            let text = read(&Path::new(mount).join(folder).join(file));
            // "max" is no number and no limit.
            if let Some(bytes) = text.and_then(|text| text.trim().parse::<usize>().ok()) {
                least = least.min(bytes);
            }
        }
    };
    let groups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let mut of_v1 = "";
    let mut of_v2 = "";
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("0"), Some(""), Some(path)) => of_v2 = path,
            (_, Some(kinds), Some(path)) if kinds.split(',').any(|kind| kind == "memory") => of_v1 = path,
            _ => {}
        }
    }
    limit("sys/fs/cgroup", of_v2, "memory.max");
    limit("sys/fs/cgroup/unified", of_v2, "memory.max");
    limit("sys/fs/cgroup/memory", of_v1, "memory.limit_in_bytes");
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_is(files: &[(&str, &str)]) -> usize {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        memory_there_is(root.path())
    }

    #[test]
    fn the_least_limit_of_machine_and_cgroups_counts() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       4096 kB\n");
        const V2: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");
        const V1: (&str, &str) = ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/m/n\n");
        let cases: &[(&[(&str, &str)], usize)] = &[
            (&[], usize::MAX),
            (&[MACHINE], 4096 << 10),
            // Version 2: the process's own, its parent's, the mount's.
            (&[MACHINE, V2, ("sys/fs/cgroup/a/b/memory.max", "1000\n")], 1000),
            (
                &[
                    MACHINE,
                    V2,
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/a/memory.max", "2000\n"),
                ],
                2000,
            ),
            (
                &[
                    MACHINE,
                    V2,
                    ("sys/fs/cgroup/a/b/memory.max", "3000"),
                    ("sys/fs/cgroup/a/memory.max", "2000\n"),
                ],
                2000,
            ),
            (&[MACHINE, V2, ("sys/fs/cgroup/memory.max", "1500\n")], 1500),
            (&[MACHINE, V2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], 4096 << 10),
            (&[MACHINE, V2, ("sys/fs/cgroup/other/memory.max", "10\n")], 4096 << 10),
            (
                &[
                    MACHINE,
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "7\n"),
                ],
                7,
            ),
            // Version 1: a limit that nobody set is an enormous number.
            (
                &[
                    MACHINE,
                    V1,
                    ("sys/fs/cgroup/memory/m/n/memory.limit_in_bytes", "5000\n"),
                ],
                5000,
            ),
            (
                &[MACHINE, V1, ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "6000\n")],
                6000,
            ),
            (
                &[
                    MACHINE,
                    V1,
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                4096 << 10,
            ),
            // Both at once.
            (
                &[
                    ("proc/self/cgroup", "4:memory:/m\n0::/a\n"),
                    ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "800\n"),
                    ("sys/fs/cgroup/unified/a/memory.max", "700\n"),
                ],
                700,
            ),
        ];
        for (files, want) in cases {
            assert_eq!(there_is(files), *want, "{files:?}");
        }
    }
}
