//! The queues of an io_uring, with requests on spans.

use super::{Segments, Span, result};
use history::{CallResult, Errno};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};

/// A request, not yet queued.
pub type Request = squeue::Entry;

/// The queues.
pub struct Queue(IoUring);

/// `io_uring_register(fd, IORING_REGISTER_PROBE)` — The opcodes that the kernel has.
pub fn supported_ops() -> Vec<u8> {
    let mut probe = Probe::new();
    let probed = IoUring::new(2).and_then(|ring| ring.submitter().register_probe(&mut probe));
    match probed {
        Ok(()) => (0..=u8::MAX).filter(|op| probe.is_supported(*op)).collect(),
        Err(_) => vec![],
    }
}

impl Queue {
    /// `io_uring_setup(entries)` — Makes a ring.
    pub fn new(entries: u32) -> Result<Queue, Errno> {
        IoUring::new(entries).map(Queue).map_err(|e| Errno(e.raw_os_error().unwrap_or(0)))
    }

    /// The descriptor's number.
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// A second descriptor of the ring, to wait on without the lock that guards the queues.
    pub fn descriptor(&self) -> Result<rustix::fd::OwnedFd, rustix::io::Errno> {
        // SAFETY: the ring is open for as long as `self` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 0)
    }

    /// Whether `count` requests can be queued at once.
    pub fn has_room(&mut self, count: usize) -> bool {
        let queue = self.0.submission();
        queue.capacity() - queue.len() >= count
    }

    /// `io_uring_enter(fd, n, 0, 0)` — Queues requests and submits all of them. Those that the kernel did not take stay queued.
    pub fn submit(&mut self, requests: &[Request]) -> CallResult {
        // SAFETY: requests are made below from spans, segments and descriptors that their owner keeps until the completion.
        let pushed = unsafe { self.0.submission().push_multiple(requests) };
        pushed.map_err(|_| Errno(libc::EAGAIN))?;
        self.0.submit().map(|n| n as u64).map_err(|e| Errno(e.raw_os_error().unwrap_or(0)))
    }

    /// The completions that have arrived: user data and result.
    pub fn completions(&mut self) -> Vec<(u64, CallResult)> {
        let value = |n: i32| if n < 0 { Err(Errno(-n)) } else { Ok(n as u64) };
        self.0.completion().map(|cqe| (cqe.user_data(), value(cqe.result()))).collect()
    }

    /// Whether completions wait in the kernel for room in the queue.
    pub fn overflowed(&mut self) -> bool {
        self.0.submission().cq_overflow()
    }
}

/// `io_uring_register(fd, opcode, argument, count)`
fn register<T>(fd: impl AsFd, opcode: u32, argument: *const T, count: u32) -> CallResult {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: callers pass as many arguments (or bytes, where the opcode counts these) as they say, of the opcode's type, which outlive the call.
    result(unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, argument, count) })
}

/// IORING_REGISTER_BUFFERS — Registers one buffer, with index 0: its pages are pinned until it is unregistered, or the ring ends.
pub fn register_buffer(fd: impl AsFd, span: Span) -> CallResult {
    let iov = libc::iovec { iov_base: span.addr as *mut _, iov_len: span.len };
    register(fd, 0, &raw const iov, 1)
}

/// IORING_REGISTER_BUFFERS_UPDATE — Puts another buffer in the place of index 0, and says how many places that were. Requests in flight keep
/// the old one.
pub fn update_buffer(fd: impl AsFd, span: Span) -> CallResult {
    /// `struct io_uring_rsrc_update2` of include/uapi/linux/io_uring.h
    #[repr(C)]
    struct Update {
        offset: u32,
        resv: u32,
        data: u64,
        tags: u64,
        nr: u32,
        resv2: u32,
    }
    let iov = libc::iovec { iov_base: span.addr as *mut _, iov_len: span.len };
    let data = (&raw const iov).addr() as u64;
    let update = Update { offset: 0, resv: 0, data, tags: 0, nr: 1, resv2: 0 };
    // The kernel wants the size in the place of the count (io_uring/rsrc.c:io_register_rsrc_update, 6.12 and 6.1).
    register(fd, 16, &raw const update, size_of::<Update>() as u32)
}

/// IORING_REGISTER_CLONE_BUFFERS — Shares all buffers of another ring.
pub fn clone_buffers(fd: impl AsFd, src: BorrowedFd<'_>) -> CallResult {
    // `struct io_uring_clone_buffers` of include/uapi/linux/io_uring.h (6.12): descriptor, flags, and padding of nothing.
    let clone = [src.as_raw_fd() as u32, 0, 0, 0, 0, 0, 0, 0];
    register(fd, 30, &raw const clone, 1)
}

/// IORING_UNREGISTER_BUFFERS — Lets go of all buffers.
pub fn unregister_buffers(fd: impl AsFd) -> CallResult {
    register(fd, 1, std::ptr::null::<u8>(), 0)
}

/// IORING_REGISTER_FILES — Gives the ring a file to keep.
pub fn register_file(fd: impl AsFd, file: BorrowedFd<'_>) -> CallResult {
    let number = file.as_raw_fd();
    register(fd, 2, &raw const number, 1)
}

/// Closes and unmaps every ring of this process: in a forked child, which would otherwise keep them from ending.
pub fn leave_all() {
    let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for entry in fds {
        let is_ring = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[io_uring]");
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|_| is_ring) {
            // SAFETY: whoever owned it was forgotten by the caller.
            unsafe { libc::close(number) };
        }
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|line| line.ends_with("anon_inode:[io_uring]")) {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(a, b)| number(a).zip(number(b))) {
            // SAFETY: as above.
            unsafe { libc::munmap(start as *mut _, end - start) };
        }
    }
}

fn raw(fd: BorrowedFd<'_>) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

/// IORING_OP_READ
pub fn read(fd: BorrowedFd<'_>, span: Span, offset: u64) -> Request {
    opcode::Read::new(raw(fd), span.addr as *mut u8, span.len as u32).offset(offset).build()
}

/// IORING_OP_WRITE
pub fn write(fd: BorrowedFd<'_>, span: Span, offset: u64) -> Request {
    opcode::Write::new(raw(fd), span.addr as *const u8, span.len as u32).offset(offset).build()
}

/// IORING_OP_READ_FIXED, into a part of the registered buffer
pub fn read_fixed(fd: BorrowedFd<'_>, span: Span, offset: u64) -> Request {
    let (addr, len) = (span.addr as *mut u8, span.len as u32);
    opcode::ReadFixed::new(raw(fd), addr, len, 0).offset(offset).build()
}

/// IORING_OP_WRITE_FIXED, from a part of the registered buffer
pub fn write_fixed(fd: BorrowedFd<'_>, span: Span, offset: u64) -> Request {
    let (addr, len) = (span.addr as *const u8, span.len as u32);
    opcode::WriteFixed::new(raw(fd), addr, len, 0).offset(offset).build()
}

/// IORING_OP_READV
pub fn readv(fd: BorrowedFd<'_>, segments: &Segments, offset: u64) -> Request {
    opcode::Readv::new(raw(fd), segments.0.as_ptr(), segments.0.len() as u32).offset(offset).build()
}

/// IORING_OP_WRITEV
pub fn writev(fd: BorrowedFd<'_>, segments: &Segments, offset: u64) -> Request {
    opcode::Writev::new(raw(fd), segments.0.as_ptr(), segments.0.len() as u32)
        .offset(offset)
        .build()
}

/// IORING_OP_FSYNC
pub fn fsync(fd: BorrowedFd<'_>, data_only: bool) -> Request {
    let flags = if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
    opcode::Fsync::new(raw(fd)).flags(flags).build()
}

/// IORING_OP_FALLOCATE
pub fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, len: u64) -> Request {
    opcode::Fallocate::new(raw(fd), len).offset(offset).mode(mode).build()
}

/// IORING_OP_FTRUNCATE
pub fn ftruncate(fd: BorrowedFd<'_>, len: u64) -> Request {
    opcode::Ftruncate::new(raw(fd), len).build()
}

/// IORING_OP_SPLICE; -1 stands for no offset.
pub fn splice(
    from: BorrowedFd<'_>,
    from_offset: i64,
    to: BorrowedFd<'_>,
    to_offset: i64,
    len: u32,
) -> Request {
    opcode::Splice::new(raw(from), from_offset, raw(to), to_offset, len).build()
}

/// IORING_OP_MADVISE
pub fn madvise(span: Span, advice: i32) -> Request {
    opcode::Madvise::new(span.addr as *const _, span.len as i64, advice).build()
}
