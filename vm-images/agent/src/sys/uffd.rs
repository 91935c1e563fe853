//! Memory whose page faults we answer: userfaultfd(2), missing pages only.
//!
//! Each line of a program has a place of its own, and what its pages are to hold is laid down beside it before they are touched. It
//! belongs to the process that made it: a forked child has the addresses, but the faults there are its own.

use super::{Span, result};
use history::{CallResult, Errno};
use program::{GATE_MEMORY, LINES_MAX};
use rustix::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

const PAGE: usize = 4096;
/// Bytes of one line's place.
const PLACE: usize = GATE_MEMORY as usize;
/// Bytes of all places.
const ALL: usize = PLACE * LINES_MAX;

/// The memory.
#[derive(Debug)]
pub struct Memory {
    fd: OwnedFd,
    /// Where the pages are that fault.
    pages: usize,
    /// Where their contents are.
    contents: usize,
    /// Faults that wait for the gate: addresses.
    held: Mutex<Vec<u64>>,
}

/// _IOWR(0xaa, number, a structure of that size)
const fn command(number: u32, size: usize) -> libc::Ioctl {
    (3 << 30 | (size as u32) << 16 | 0xaa << 8 | number) as libc::Ioctl
}

/// `struct uffdio_api`
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffd_msg` of a page fault.
#[repr(C)]
#[derive(Default)]
struct Message {
    event: u8,
    pad: [u8; 7],
    flags: u64,
    address: u64,
    tid: u64,
}

const UFFD_API: u64 = 0xaa;
const REGISTER_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;

/// `mmap(len, RW, MAP_PRIVATE | MAP_ANONYMOUS)` — Fresh memory, never unmapped.
fn fresh(len: usize) -> Result<usize, Errno> {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a null hint without MAP_FIXED replaces nothing.
    let addr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    result(addr as i64).map(|addr| addr as usize)
}

impl Memory {
    /// `userfaultfd()`, UFFDIO_API, UFFDIO_REGISTER — Memory of which no page is there.
    pub fn new() -> Result<Memory, Errno> {
        let flags = rustix::mm::UserfaultfdFlags::CLOEXEC;
        // SAFETY: the descriptor is only ever told of `pages`, which nothing of Rust's lives in.
        let fd = unsafe { rustix::mm::userfaultfd(flags) }.map_err(super::errno)?;
        let memory =
            Memory { fd, pages: fresh(ALL)?, contents: fresh(ALL)?, held: Mutex::default() };
        let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
        memory.ioctl(command(0x3f, size_of::<Api>()), &mut api)?;
        let (start, len) = (memory.pages as u64, ALL as u64);
        let mut register = Register { start, len, mode: REGISTER_MISSING, ioctls: 0 };
        memory.ioctl(command(0, size_of::<Register>()), &mut register)?;
        Ok(memory)
    }

    fn ioctl<T>(&self, command: libc::Ioctl, argument: &mut T) -> CallResult {
        // SAFETY: callers pass the structure that the command names.
        result(unsafe { libc::ioctl(self.fd.as_raw_fd(), command, &raw mut *argument) }.into())
    }

    /// `madvise(pages, MADV_DONTNEED)` — Before a program: no page is there.
    pub fn reset(&self) -> CallResult {
        // SAFETY: nothing of Rust's lives there.
        result(unsafe { libc::madvise(self.pages as *mut _, ALL, libc::MADV_DONTNEED) }.into())
    }

    /// The place of a line, `len` bytes of it (at most `GATE_MEMORY`); its pages will hold what `fill` writes.
    pub fn place(&self, line: usize, len: usize, fill: impl FnOnce(&mut [u8])) -> Span {
        assert!(line < LINES_MAX && len <= PLACE, "a place for each line");
        let whole = len.next_multiple_of(PAGE);
        // SAFETY: mapped for ever; a line's part is used by the lane that runs the line, and read by the kernel when a page is answered.
        fill(unsafe {
            std::slice::from_raw_parts_mut((self.contents + line * PLACE) as *mut u8, whole)
        });
        Span { addr: self.pages + line * PLACE, len }
    }

    /// The bytes of a line's place, up to the end of the page in which the first `len` end. All of these pages were touched.
    pub fn bytes(&self, line: usize, len: usize) -> &[u8] {
        assert!(line < LINES_MAX && len <= PLACE, "a place for each line");
        let whole = len.next_multiple_of(PAGE);
        // SAFETY: mapped for ever, and written by nobody once the line's call has returned.
        unsafe { std::slice::from_raw_parts((self.pages + line * PLACE) as *const u8, whole) }
    }

    /// UFFDIO_COPY — Answers a fault.
    fn answer(&self, address: u64) {
        let to = address & !(PAGE as u64 - 1);
        let from = to - self.pages as u64 + self.contents as u64;
        let mut copy = Copy { to, from, len: PAGE as u64, mode: 0, copied: 0 };
        // A page that is there already (EEXIST) is as good.
        let _ = self.ioctl(command(3, size_of::<Copy>()), &mut copy);
    }

    /// Serves faults for ever, or until the kernel wants no more; those that come while `is_held` are kept.
    pub fn serve(&self, is_held: impl Fn() -> bool) {
        loop {
            let mut message = Message::default();
            let (to, len) = ((&raw mut message).cast(), size_of::<Message>());
            // SAFETY: the message is live and as long as is said.
            match result(unsafe { libc::read(self.fd.as_raw_fd(), to, len) } as i64) {
                Ok(_) => {}
                Err(Errno(libc::EINTR | libc::EAGAIN)) => continue,
                Err(_) => return,
            }
            if message.event != EVENT_PAGEFAULT {
                continue;
            }
            // Whoever releases says so before it takes the lock: no fault is forgotten.
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if is_held() {
                held.push(message.address);
            } else {
                self.answer(message.address);
            }
        }
    }

    /// Answers what was kept.
    pub fn release(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.drain(..).for_each(|address| self.answer(address));
    }
}

/// `process_vm_readv(getpid(), to, 1, from, 1, 0)` — Copies from pages that are pinned meanwhile.
pub fn process_vm_readv(pid: u32, to: Span, from: Span) -> CallResult {
    let iov = |span: Span| libc::iovec { iov_base: span.addr as *mut _, iov_len: span.len };
    let (to, from) = (iov(to), iov(from));
    // SAFETY: spans never lie in memory that Rust owns, and the arrays outlive the call.
    result(unsafe { libc::process_vm_readv(pid as i32, &raw const to, 1, &raw const from, 1, 0) }
        as i64)
}

/// `process_vm_writev(getpid(), from, 1, to, 1, 0)` — Copies into pages that are pinned meanwhile.
pub fn process_vm_writev(pid: u32, from: Span, to: Span) -> CallResult {
    let iov = |span: Span| libc::iovec { iov_base: span.addr as *mut _, iov_len: span.len };
    let (from, to) = (iov(from), iov(to));
    // SAFETY: as in `process_vm_readv`.
    result(unsafe { libc::process_vm_writev(pid as i32, &raw const from, 1, &raw const to, 1, 0) }
        as i64)
}
