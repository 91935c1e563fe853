//! The queues of an io_uring, with requests on spans.

use super::{Segments, Span};
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
