//! The only unsafe code of the agent: system calls that take raw addresses, shared memory, fork and signals.
//!
//! Wrappers return what the kernel returned, raw. Addresses that programs choose are confined to the arena (see `arena`) and to
//! buffers that are never unmapped, so no program can reach the agent's own memory.
#![expect(unsafe_code, reason = "this is the one place for it")]

pub mod aio;
pub mod arena;
pub mod dm;
pub mod fault;
pub mod gup;
pub mod kcov;
pub mod lease;
mod memory;
pub mod notice;
pub mod rdma;
pub mod ring;
pub mod ublk;
pub mod uffd;
pub mod verbs;

pub use memory::{Buffer, Pool, map_words, shared};
pub use ring::{Queue, supported_ops};

use history::{CallResult, Errno, Extent};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal};
use std::ffi::CStr;

/// A range of memory that a call may read or write: in the arena or in a `Buffer`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    addr: usize,
    len: usize,
}

impl Span {
    /// The first address.
    pub fn start(self) -> u64 {
        self.addr as u64
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len
    }
}

/// An array of segments whose address stays the same for as long as it lives, for requests in flight.
#[derive(Debug)]
pub struct Segments(Box<[libc::iovec]>);

// SAFETY: the pointers lead to the arena or to buffers, which no thread owns and nothing unmaps behind the kernel's back.
unsafe impl Send for Segments {}

impl Segments {
    /// Of these spans.
    pub fn new(spans: &[Span]) -> Segments {
        let iov = |s: &Span| libc::iovec { iov_base: s.addr as *mut _, iov_len: s.len };
        Segments(spans.iter().map(iov).collect())
    }
}

/// What a libc call returned, with the error number if it was -1.
fn result(value: i64) -> CallResult {
    match value {
        -1 => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        value => Ok(value as u64),
    }
}

/// An error of nix as an observation.
fn observed(error: nix::Error) -> Errno {
    Errno(error as i32)
}

/// A rustix error as an observation.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

/// `close(fd)` — Closes a descriptor and says what the kernel said.
pub fn close(fd: OwnedFd) -> CallResult {
    nix::unistd::close(fd).map(|()| 0).map_err(observed)
}

/// `dup3(from, onto, O_CLOEXEC)` — Puts another file under the number `onto`, closing what it stood for.
pub fn replace(from: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> CallResult {
    // SAFETY: both are open; the owner of `onto` still owns an open descriptor afterwards.
    result(unsafe { libc::dup3(from.as_raw_fd(), onto.as_raw_fd(), libc::O_CLOEXEC) }.into())
}

/// `truncate(path, len)` — Changes a file's size by name.
pub fn truncate(path: &CStr, len: u64) -> CallResult {
    nix::unistd::truncate(path, len as i64).map(|()| 0).map_err(observed)
}

/// `pread(fd, span, offset)` — Reads into a span.
pub fn pread(fd: BorrowedFd<'_>, span: Span, offset: u64) -> CallResult {
    // SAFETY: a span never lies in memory that Rust owns.
    result(
        unsafe { libc::pread(fd.as_raw_fd(), span.addr as *mut _, span.len, offset as i64) } as i64
    )
}

/// `read(fd, span)` — Takes bytes out of a pipe.
pub fn read(fd: BorrowedFd<'_>, span: Span) -> CallResult {
    // SAFETY: as in `pread`.
    result(unsafe { libc::read(fd.as_raw_fd(), span.addr as *mut _, span.len) } as i64)
}

/// `vmsplice(fd, span, 0)` — Puts references to pages into a pipe.
pub fn vmsplice(fd: BorrowedFd<'_>, span: Span) -> CallResult {
    let iov = libc::iovec { iov_base: span.addr as *mut _, iov_len: span.len };
    // SAFETY: a span never lies in memory that Rust owns; the array outlives the call.
    result(unsafe { libc::vmsplice(fd.as_raw_fd(), &raw const iov, 1, 0) } as i64)
}

/// `pwrite(fd, span, offset)` — Writes from a span.
pub fn pwrite(fd: BorrowedFd<'_>, span: Span, offset: u64) -> CallResult {
    // SAFETY: as in `pread`; the kernel only reads.
    result(unsafe { libc::pwrite(fd.as_raw_fd(), span.addr as *const _, span.len, offset as i64) }
        as i64)
}

/// `preadv(fd, segments, offset)`, or `readv` without an offset — Reads into several spans.
pub fn readv(fd: BorrowedFd<'_>, to: &Segments, offset: Option<u64>) -> CallResult {
    let (fd, iov, count) = (fd.as_raw_fd(), to.0.as_ptr(), to.0.len() as i32);
    result(match offset {
        // SAFETY: as in `pread`; the array outlives the call.
        Some(offset) => unsafe { libc::preadv(fd, iov, count, offset as i64) },
        // SAFETY: as above.
        None => unsafe { libc::readv(fd, iov, count) },
    } as i64)
}

/// `pwritev(fd, segments, offset)`, or `writev` without an offset — Writes from several spans.
pub fn writev(fd: BorrowedFd<'_>, from: &Segments, offset: Option<u64>) -> CallResult {
    let (fd, iov, count) = (fd.as_raw_fd(), from.0.as_ptr(), from.0.len() as i32);
    result(match offset {
        // SAFETY: as in `readv`; the kernel only reads.
        Some(offset) => unsafe { libc::pwritev(fd, iov, count, offset as i64) },
        // SAFETY: as above.
        None => unsafe { libc::writev(fd, iov, count) },
    } as i64)
}

/// `sync_file_range(fd, offset, len, flags)` — Starts or awaits writeback of a range.
pub fn sync_file_range(fd: BorrowedFd<'_>, offset: u64, len: u64, flags: u32) -> CallResult {
    // SAFETY: takes no pointers.
    result(
        unsafe { libc::sync_file_range(fd.as_raw_fd(), offset as i64, len as i64, flags) }.into(),
    )
}

/// `ioctl(fd, FS_IOC_GETVERSION)` — The generation of an inode; 0 where the file system has none.
pub fn generation(fd: BorrowedFd<'_>) -> u32 {
    let mut value: libc::c_long = 0;
    // SAFETY: the kernel writes an int (though the request's number says long) into a live variable.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETVERSION, &raw mut value) } {
        0 => value as u32,
        _ => 0,
    }
}

/// `ioctl(dst, FICLONERANGE, ..)` — Shares a range of `src` with `dst`.
pub fn clone_range(
    dst: BorrowedFd<'_>,
    dst_offset: u64,
    src: BorrowedFd<'_>,
    src_offset: u64,
    len: u64,
) -> CallResult {
    let range = libc::file_clone_range {
        src_fd: src.as_raw_fd().into(),
        src_offset,
        src_length: len,
        dest_offset: dst_offset,
    };
    // SAFETY: the argument is of the type that the request names, and outlives the call.
    result(unsafe { libc::ioctl(dst.as_raw_fd(), libc::FICLONERANGE, &raw const range) }.into())
}

/// `struct file_dedupe_range` with room for one `file_dedupe_range_info`.
#[repr(C)]
struct DedupeRange {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved: u32,
}

/// _IOWR(0x94, 54, struct file_dedupe_range), which is 24 bytes without its array.
const FIDEDUPERANGE: libc::Ioctl = 0xc018_9436;

/// `ioctl(src, FIDEDUPERANGE, ..)` — Shares a range if the bytes are the same. Returns bytes_deduped, and the status of the destination.
pub fn dedupe_range(
    src: BorrowedFd<'_>,
    src_offset: u64,
    len: u64,
    dst: BorrowedFd<'_>,
    dst_offset: u64,
) -> (CallResult, i32) {
    let mut range = DedupeRange {
        src_offset,
        src_length: len,
        dest_count: 1,
        reserved1: 0,
        reserved2: 0,
        dest_fd: dst.as_raw_fd().into(),
        dest_offset: dst_offset,
        bytes_deduped: 0,
        status: 0,
        reserved: 0,
    };
    // SAFETY: the argument has the layout that the request names with one destination, and outlives the call.
    let value = unsafe { libc::ioctl(src.as_raw_fd(), FIDEDUPERANGE, &raw mut range) };
    (result(value.into()).map(|_| range.bytes_deduped), range.status)
}

/// Most extents that one FIEMAP reports here; a file of a program has fewer.
const EXTENTS_MAX: usize = 512;

/// `struct fiemap_extent`
#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with its array.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; EXTENTS_MAX],
}

/// _IOWR('f', 11, struct fiemap), which is 32 bytes without its array.
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b;
const FIEMAP_FLAG_SYNC: u32 = 1;

/// `ioctl(fd, FS_IOC_FIEMAP, ..)` — The extents of a whole file, after writing it back. The result is their number.
pub fn fiemap(fd: BorrowedFd<'_>) -> (CallResult, Vec<Extent>) {
    let none = FiemapExtent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved64: [0; 2],
        flags: 0,
        reserved: [0; 3],
    };
    let mut map = Box::new(Fiemap {
        start: 0,
        length: u64::MAX,
        flags: FIEMAP_FLAG_SYNC,
        mapped_extents: 0,
        extent_count: EXTENTS_MAX as u32,
        reserved: 0,
        extents: [none; EXTENTS_MAX],
    });
    // SAFETY: the argument has room for as many extents as it says, and outlives the call.
    let value = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *map) };
    if value != 0 {
        return (result(value.into()), vec![]);
    }
    let count = (map.mapped_extents as usize).min(EXTENTS_MAX);
    let extent = |e: &FiemapExtent| Extent {
        logical: e.logical,
        physical: e.physical,
        length: e.length,
        flags: e.flags,
    };
    (Ok(count as u64), map.extents[..count].iter().map(extent).collect())
}

/// `fork()` — Returns 0 in the child. Only the calling thread lives on there: whoever calls this holds every lock that the child
/// will want.
pub fn fork() -> CallResult {
    // SAFETY: glibc's fork keeps its allocator usable in the child, and the caller holds the agent's own locks.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Parent { child }) => Ok(child.as_raw() as u64),
        Ok(nix::unistd::ForkResult::Child) => Ok(0),
        Err(error) => Err(observed(error)),
    }
}

/// `_exit(status)` — Ends the process without running anything else.
pub fn exit(status: i32) -> ! {
    // SAFETY: does not return and takes no pointers.
    unsafe { libc::_exit(status) }
}

/// `tgkill(pid, tid, sig)` — Sends a signal to one thread.
pub fn signal_thread(pid: Pid, tid: Pid, signal: i32) -> CallResult {
    let (pid, tid) = (pid.as_raw_nonzero().get(), tid.as_raw_nonzero().get());
    // SAFETY: takes no pointers; a thread that is gone is an error that changes nothing.
    result(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) })
}

/// `prctl(PR_SET_PDEATHSIG, SIGKILL)` — Dies with the thread that forked this process.
pub fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// `io_uring_enter(fd, 0, 1, GETEVENTS | EXT_ARG, timeout)` — Waits for a completion; its value is found in the queue.
pub fn ring_wait(fd: impl AsFd, nanoseconds: i64) {
    #[repr(C)]
    struct GetEventsArg {
        sigmask: u64,
        sigmask_size: u32,
        min_wait: u32,
        timeout: u64,
    }
    const GETEVENTS: u32 = 1;
    const EXT_ARG: u32 = 8;
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let arg = GetEventsArg {
        sigmask: 0,
        sigmask_size: 8,
        min_wait: 0,
        timeout: (&raw const timeout) as u64,
    };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the argument and the timeout outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            0,
            1,
            GETEVENTS | EXT_ARG,
            &raw const arg,
            size_of::<GetEventsArg>(),
        )
    };
}
