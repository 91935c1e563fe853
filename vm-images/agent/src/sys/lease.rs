//! Leases and who is told of their break: fcntl(2) with the kernel's own numbers.

use super::result;
use history::CallResult;
use program::{Lease, Notice, OwnerKind};
use rustix::fd::{AsRawFd, BorrowedFd};

/// The kernel's number of a lease.
pub const fn number(lease: Lease) -> i32 {
    match lease {
        Lease::Read => libc::F_RDLCK,
        Lease::Write => libc::F_WRLCK,
        Lease::Unlock => libc::F_UNLCK,
        // F_LAYOUT of the RFC of June 2019.
        Lease::Layout => 16,
    }
}

/// The signal of a notice; 0 is the kernel's default.
pub fn signal(notice: Notice) -> i32 {
    match notice {
        Notice::Default => 0,
        Notice::Io => libc::SIGIO,
        Notice::Rt1 => libc::SIGRTMIN() + 1,
        Notice::Rt2 => libc::SIGRTMIN() + 2,
    }
}

/// `fcntl(fd, F_SETLEASE, lease)` — Takes, changes or gives up the lease of an open file. May be called from a signal handler.
pub fn set(fd: i32, lease: Lease) -> CallResult {
    // SAFETY: takes no pointers; a number that is no descriptor's is an error.
    result(unsafe { libc::fcntl(fd, libc::F_SETLEASE, number(lease)) }.into())
}

/// `fcntl(fd, F_GETLEASE)` — The lease that an open file has, or is to have once it is broken.
pub fn get(fd: BorrowedFd<'_>) -> CallResult {
    // SAFETY: takes no pointers.
    result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLEASE) }.into())
}

/// `fcntl(fd, F_SETSIG, signal)` — Which signal tells of a break.
pub fn set_signal(fd: BorrowedFd<'_>, notice: Notice) -> CallResult {
    const F_SETSIG: i32 = 10;
    // SAFETY: takes no pointers.
    result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal(notice)) }.into())
}

/// `fcntl(fd, F_SETOWN_EX, &owner)` — Whom it tells.
pub fn set_owner(fd: BorrowedFd<'_>, kind: OwnerKind, id: i32) -> CallResult {
    /// `struct f_owner_ex`
    #[repr(C)]
    struct Owner {
        kind: i32,
        pid: i32,
    }
    const F_SETOWN_EX: i32 = 15;
    let kind = match kind {
        OwnerKind::Tid => 0,
        OwnerKind::Pid => 1,
        OwnerKind::Pgrp => 2,
    };
    let owner = Owner { kind, pid: id };
    // SAFETY: the argument has the command's type and outlives the call.
    result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) }.into())
}
