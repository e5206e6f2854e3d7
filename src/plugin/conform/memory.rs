//! How much of the heap this process has in use.
#![allow(unsafe_code)]

/// Bytes, of all threads; only differences mean something. `None` where the system's allocator does not say.
pub(super) fn in_use() -> Option<i64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes nothing and reads the allocator's own counters.
        let info = unsafe { libc::mallinfo2() };
        i64::try_from(info.uordblks + info.hblkhd).ok()
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
