//! KCOV: the kernel writes down which call sites a thread passes (Documentation/dev-tools/kcov.rst, 6.12).

use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the kernel offers it.
const PATH: &str = "/sys/kernel/debug/kcov";
/// Places for addresses in a thread's trace. A megabyte that is faulted in page by page takes some 100,000; what no longer fits is lost.
const ENTRIES: usize = 256 << 10;
/// _IOR('c', 1, unsigned long)
const KCOV_INIT_TRACE: libc::Ioctl = 0x8008_6301;
/// _IO('c', 100)
const KCOV_ENABLE: libc::Ioctl = 0x6364;
/// _IO('c', 101)
const KCOV_DISABLE: libc::Ioctl = 0x6365;
/// Write down addresses.
const KCOV_TRACE_PC: libc::c_ulong = 0;

/// Whether the kernel has it.
pub fn exists() -> bool {
    std::path::Path::new(PATH).exists()
}

/// The trace of the thread that made it. The thread keeps it for as long as it lives.
#[derive(Debug)]
pub struct Trace {
    fd: rustix::fd::OwnedFd,
    /// How many addresses follow, and they.
    words: &'static [AtomicU64],
    on: bool,
}

impl Trace {
    /// `ioctl(fd, KCOV_INIT_TRACE, entries)`, `mmap(entries, RW, MAP_SHARED, fd, 0)` — A trace, not switched on.
    pub fn new() -> rustix::io::Result<Trace> {
        let fd = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: takes a number.
        if unsafe { libc::ioctl(fd.as_raw_fd(), KCOV_INIT_TRACE, ENTRIES) } != 0 {
            return Err(rustix::io::Errno::NOMEM);
        }
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let len = ENTRIES * size_of::<u64>();
        // SAFETY: a null hint without MAP_FIXED replaces nothing.
        let addr = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd.as_fd(), 0) }?;
        // SAFETY: mapped for `len` bytes, page-aligned and never unmapped; the kernel writes there on behalf of one thread, which is the one
        // that reads.
        let words = unsafe { std::slice::from_raw_parts(addr.cast::<AtomicU64>(), ENTRIES) };
        Ok(Trace { fd, words, on: false })
    }

    /// `ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC)`, `ioctl(fd, KCOV_DISABLE, 0)` — Starts and stops writing for the calling thread.
    pub fn switch(&mut self, on: bool) {
        if self.on == on {
            return;
        }
        let (request, what) = if on { (KCOV_ENABLE, KCOV_TRACE_PC) } else { (KCOV_DISABLE, 0) };
        // SAFETY: takes a number.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), request, what) } == 0 {
            self.on = on;
        }
        self.words[0].store(0, Ordering::Relaxed);
    }

    /// Hands out what was written since the last time, in the order of passing, and makes room.
    pub fn drain(&self, mut each: impl FnMut(u64)) {
        if !self.on {
            return;
        }
        let count = self.words[0].load(Ordering::Relaxed) as usize;
        self.words[1..].iter().take(count).for_each(|word| each(word.load(Ordering::Relaxed)));
        self.words[0].store(0, Ordering::Relaxed);
    }
}
