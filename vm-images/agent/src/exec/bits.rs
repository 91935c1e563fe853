//! The kernel's numbers of flags and modes.

use program::{Access, FallocateMode, OpenFlags, SyncFileRangeFlags};
use rustix::fs::{FallocateFlags, OFlags};

pub(super) fn open_flags(access: Access, flags: OpenFlags) -> OFlags {
    let mut bits = OFlags::CLOEXEC
        | match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::WriteOnly => OFlags::WRONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
    for (flag, bit) in [
        (OpenFlags::CREAT, OFlags::CREATE),
        (OpenFlags::EXCL, OFlags::EXCL),
        (OpenFlags::TRUNC, OFlags::TRUNC),
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::DIRECT, OFlags::DIRECT),
        (OpenFlags::DSYNC, OFlags::DSYNC),
        (OpenFlags::SYNC, OFlags::SYNC),
        (OpenFlags::NONBLOCK, OFlags::NONBLOCK),
    ] {
        if flags.has(flag) {
            bits |= bit;
        }
    }
    bits
}

pub(super) fn fallocate_bits(mode: FallocateMode) -> u32 {
    let keep = FallocateFlags::KEEP_SIZE;
    match mode {
        FallocateMode::Allocate => FallocateFlags::empty(),
        FallocateMode::KeepSize => keep,
        FallocateMode::PunchHole => FallocateFlags::PUNCH_HOLE | keep,
        FallocateMode::ZeroRange => FallocateFlags::ZERO_RANGE,
        FallocateMode::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | keep,
        FallocateMode::CollapseRange => FallocateFlags::COLLAPSE_RANGE,
        FallocateMode::InsertRange => FallocateFlags::INSERT_RANGE,
        FallocateMode::UnshareRange => FallocateFlags::UNSHARE_RANGE,
        FallocateMode::PunchHoleBare => FallocateFlags::PUNCH_HOLE,
    }
    .bits()
}

pub(super) fn sync_bits(flags: SyncFileRangeFlags) -> u32 {
    let mut bits = 0;
    for (flag, bit) in [
        (SyncFileRangeFlags::WAIT_BEFORE, libc::SYNC_FILE_RANGE_WAIT_BEFORE),
        (SyncFileRangeFlags::WRITE, libc::SYNC_FILE_RANGE_WRITE),
        (SyncFileRangeFlags::WAIT_AFTER, libc::SYNC_FILE_RANGE_WAIT_AFTER),
    ] {
        if flags.has(flag) {
            bits |= bit;
        }
    }
    bits
}
