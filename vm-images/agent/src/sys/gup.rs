//! gup_test: the requests of /sys/kernel/debug/gup_test (mm/gup_test.h, 6.12; 6.1 has no PIN_LONGTERM_TEST_START and its kin).

use super::{Span, result};
use history::CallResult;
use program::{PAGE, PinFlags};
use rustix::fd::{AsRawFd, BorrowedFd};

/// _IOWR('g', 2, struct gup_test)
const PIN_FAST_BENCHMARK: libc::Ioctl = 0xc050_6702;
/// _IOWR('g', 5, struct gup_test)
const PIN_BASIC_TEST: libc::Ioctl = 0xc050_6705;
/// _IOW('g', 7, struct pin_longterm_test)
const PIN_LONGTERM_TEST_START: libc::Ioctl = 0x4018_6707;
/// _IO('g', 8)
const PIN_LONGTERM_TEST_STOP: libc::Ioctl = 0x6708;
/// _IOW('g', 9, __u64)
const PIN_LONGTERM_TEST_READ: libc::Ioctl = 0x4008_6709;
/// FOLL_WRITE (include/linux/mm_types.h, 6.12)
const FOLL_WRITE: u32 = 1;

/// `struct gup_test`
#[repr(C)]
#[derive(Default)]
struct GupTest {
    get_delta_usec: u64,
    put_delta_usec: u64,
    addr: u64,
    size: u64,
    nr_pages_per_call: u32,
    gup_flags: u32,
    test_flags: u32,
    which_pages: [u32; 8],
}

/// `struct pin_longterm_test`
#[repr(C)]
struct PinLongtermTest {
    addr: u64,
    size: u64,
    flags: u32,
}

/// `ioctl(gup_test, PIN_LONGTERM_TEST_START, ..)` — Pins a range for as long as nobody stops that.
pub fn longterm_test_start(fd: BorrowedFd<'_>, span: Span, flags: PinFlags) -> CallResult {
    // The kernel's flags are the program's: PIN_LONGTERM_TEST_FLAG_USE_WRITE is 1, _USE_FAST 2.
    let test =
        PinLongtermTest { addr: span.start(), size: span.len() as u64, flags: flags.0.into() };
    // SAFETY: the argument is of the type that the request names, and outlives the call; the kernel only refers to the range.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), PIN_LONGTERM_TEST_START, &raw const test) }.into())
}

/// `ioctl(gup_test, PIN_LONGTERM_TEST_READ, ..)` — Copies all pinned pages to a span, which must have room for them.
pub fn longterm_test_read(fd: BorrowedFd<'_>, span: Span) -> CallResult {
    let to = span.start();
    // SAFETY: the argument outlives the call. The kernel asks for no length: the callers' span has room for what any line of the program pins, and
    // lies where a page more would meet nothing of Rust's.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), PIN_LONGTERM_TEST_READ, &raw const to) }.into())
}

/// `ioctl(gup_test, PIN_LONGTERM_TEST_STOP)` — Gives all pinned pages back.
pub fn longterm_test_stop(fd: BorrowedFd<'_>) -> CallResult {
    // SAFETY: takes no pointers.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), PIN_LONGTERM_TEST_STOP) }.into())
}

/// `ioctl(gup_test, PIN_BASIC_TEST or PIN_FAST_BENCHMARK, ..)` — Pins whole pages, one by one, and gives them back. Returns how many bytes it came to.
pub fn basic_test(fd: BorrowedFd<'_>, span: Span, flags: PinFlags) -> CallResult {
    assert!((span.len() as u64).is_multiple_of(PAGE), "a part of a page is none");
    let mut test = GupTest {
        addr: span.start(),
        size: span.len() as u64,
        nr_pages_per_call: 1,
        gup_flags: if flags.has(PinFlags::WRITE) { FOLL_WRITE } else { 0 },
        ..GupTest::default()
    };
    let request = if flags.has(PinFlags::FAST) { PIN_FAST_BENCHMARK } else { PIN_BASIC_TEST };
    // SAFETY: the argument is of the type that the request names, and outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut test) };
    result(done.into()).map(|_| test.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_layout() {
        let size = |request: libc::Ioctl| (request >> 16 & 0x3fff) as usize;
        assert_eq!(size(PIN_BASIC_TEST), size_of::<GupTest>());
        assert_eq!(size(PIN_FAST_BENCHMARK), size_of::<GupTest>());
        assert_eq!(size(PIN_LONGTERM_TEST_START), size_of::<PinLongtermTest>());
        assert_eq!(size(PIN_LONGTERM_TEST_READ), size_of::<u64>());
        assert_eq!((PinFlags::WRITE.0, PinFlags::FAST.0), (1, 2));
    }
}
