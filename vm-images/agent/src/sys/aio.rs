//! io_submit(2): one request at a time, waited for where it was submitted. No crate of ours has it, and libaio would be one more library in C.

use super::{Segments, Span, result};
use history::{CallResult, Errno};
use rustix::fd::{AsRawFd, BorrowedFd};

/// What is asked for, by the numbers of include/uapi/linux/aio_abi.h.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// IOCB_CMD_PREAD
    Pread(Span, u64),
    /// IOCB_CMD_PWRITE
    Pwrite(Span, u64),
    /// IOCB_CMD_FSYNC
    Fsync,
    /// IOCB_CMD_FDSYNC
    Fdsync,
    /// IOCB_CMD_PREADV
    Preadv(&'a Segments, u64),
    /// IOCB_CMD_PWRITEV
    Pwritev(&'a Segments, u64),
}

/// `struct iocb` of a little-endian machine.
#[repr(C)]
#[derive(Debug, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event`
#[repr(C)]
#[derive(Debug, Default)]
struct IoEvent {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// Submits a request and waits until it is complete: what io_submit refused with, or what the request ended with.
pub fn submit(fd: BorrowedFd<'_>, request: Request<'_>) -> CallResult {
    let vector = |s: &Segments| (s.0.as_ptr() as u64, s.0.len() as u64);
    let (opcode, (buf, len), offset) = match request {
        Request::Pread(span, offset) => (0, (span.start(), span.len() as u64), offset),
        Request::Pwrite(span, offset) => (1, (span.start(), span.len() as u64), offset),
        Request::Fsync => (2, (0, 0), 0),
        Request::Fdsync => (3, (0, 0), 0),
        Request::Preadv(segments, offset) => (7, vector(segments), offset),
        Request::Pwritev(segments, offset) => (8, vector(segments), offset),
    };
    let mut iocb = Iocb {
        opcode,
        fd: fd.as_raw_fd() as u32,
        buf,
        len,
        offset: offset as i64,
        ..Iocb::default()
    };
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes the number of the context into a live variable.
    result(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
    let request = &raw mut iocb;
    // SAFETY: one request, which lives until the context is gone below; its buffer is a span, or an array of spans that the caller
    // keeps, and a span never lies in memory that Rust owns.
    let submitted =
        result(unsafe { libc::syscall(libc::SYS_io_submit, context, 1, &raw const request) });
    let outcome = match submitted {
        Ok(1) => await_event(context),
        Ok(_) => Err(Errno(libc::EIO)),
        Err(errno) => Err(errno),
    };
    // SAFETY: takes no pointers. It waits for what may still be in flight (fs/aio.c:io_destroy, 6.12 and 6.1): nothing is used any longer.
    let _ = unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    outcome
}

/// Takes the only completion of a context. A signal does not end the wait: the request would go on without us.
fn await_event(context: libc::c_ulong) -> CallResult {
    let mut event = IoEvent::default();
    loop {
        let no_timeout: *mut libc::timespec = std::ptr::null_mut();
        // SAFETY: room for the one event that is asked for.
        let taken = result(unsafe {
            libc::syscall(libc::SYS_io_getevents, context, 1, 1, &raw mut event, no_timeout)
        });
        match taken {
            Ok(1) if event.res < 0 => return Err(Errno(-event.res as i32)),
            Ok(1) => return Ok(event.res as u64),
            Ok(_) | Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}
