//! How many pages the kernel counts as pinned.
//!
//! The counters are kept for each processor and added up when they are refreshed. What a ring or a request had pinned goes when a worker of
//! the kernel gets to it, so the end is waited for. A buffer that an update put out of a ring goes a second later
//! (io_uring/rsrc.c:io_rsrc_node_ref_zero, 6.1; at once in 6.12), and the end of its ring waits for that (io_uring/io_uring.c:io_ring_ctx_free, 6.1).

use crate::record::now;
use crate::run::Environment;
use std::time::Duration;

/// How long the counters may take to settle: the second of 6.1, and as much again. Only what is lost is waited for in vain, once.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How often they are looked at.
const POLL: Duration = Duration::from_millis(5);

impl Environment {
    /// `nr_foll_pin_acquired - nr_foll_pin_released` of /proc/vmstat, refreshed; none where the kernel does not count.
    pub fn pinned(&self) -> Option<i64> {
        // The kernel complains of counters below zero here; they are counted all the same.
        let _ = rustix::io::pwrite(self.stat_refresh.as_ref()?, b"1", 0);
        let text = std::fs::read_to_string("/proc/vmstat").ok()?;
        let value = |name: &str| -> Option<i64> {
            text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
        };
        Some(value("nr_foll_pin_acquired ")? - value("nr_foll_pin_released ")?)
    }

    /// The same, once it is `before` or nothing, or has had its time.
    pub fn pinned_at_rest(&self, before: i64) -> Option<i64> {
        let until = now() + SETTLE_MAX.as_nanos() as u64;
        loop {
            let pinned = self.pinned()?;
            if pinned == 0 || pinned == before || now() > until {
                return Some(pinned);
            }
            std::thread::sleep(POLL);
        }
    }
}
