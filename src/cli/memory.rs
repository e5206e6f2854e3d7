//! What the process does with memory: the allocator's settings, and what it has.
#![allow(unsafe_code)]

/// Makes the allocator give large blocks back to the system.
///
/// Blocks from 256 KiB on come from mmap for good (the default threshold moves up with use), and two allocator arenas serve any number
/// of workers: chunks do not allocate, so nobody waits for one.
pub(super) fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets parameters of the allocator, and no other thread runs yet.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
            libc::mallopt(libc::M_ARENA_MAX, 2);
        }
    }
}

/// A file that may not grow any more is an error like a full disk, not the end of the process.
pub(super) fn outlive_file_limits() {
    #[cfg(unix)]
    {
        // SAFETY: ignoring a signal installs no handler, so no code of ours runs in one; no other thread runs yet.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
    }
}

/// Resident bytes now, and the most there were, where the system says.
pub(super) fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}
