//! The bugs that can be planted into the fake kernel, one at a time.
//!
//! Each imitates a mistake that real kernels make or have made. It fires in its own condition only and leaves everything else
//! right, so that an oracle that misses it is blind in exactly one known place. It does not say how a find is worded: that
//! is the checker's matter.

use checker::{Oracle, Regime};

macro_rules! bugs {
    ($($variant:ident, $name:literal, [$($oracle:ident),+], $sentence:literal;)*) => {
        /// A mistake of the fake kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug { $(#[doc = $sentence] $variant),* }

        impl Bug {
            /// Every bug.
            pub const ALL: &'static [Bug] = &[$(Bug::$variant),*];

            /// Its name on command lines and in test output.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$variant => $name),* }
            }

            /// The kernel bug that it imitates, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Bug::$variant => $sentence),* }
            }

            /// The oracles that are meant to find it: any one of them is enough.
            pub const fn expected(self) -> &'static [Oracle] {
                match self { $(Bug::$variant => &[$(Oracle::$oracle),+]),* }
            }
        }
    };
}

bugs! {
    PunchKeepsMapping, "punch-keeps-mapping", [Bytes, Leak, Media],
        "Punching a hole frees the blocks, but the file's map still points at them.";
    PunchSkipsEdges, "punch-skips-edges", [Bytes],
        "Punching a hole leaves the bytes of partly covered blocks as they were.";
    TruncateKeepsTail, "truncate-keeps-tail", [Bytes],
        "Truncating down and up again shows the old bytes behind the former end of file.";
    ExtendingWriteKeepsTail, "extending-write-keeps-tail", [Bytes],
        "A write past the end of file exposes what was stored through a mapping behind the old end.";
    TornCopy, "torn-copy", [Bytes],
        "A write that ends inside a page copies only half of its last word.";
    UnshareInvalid, "unshare-invalid", [Errnos],
        "An unsupported mode of fallocate gives EINVAL instead of EOPNOTSUPP.";
    WriteReadOnlySucceeds, "write-read-only-succeeds", [Errnos],
        "A write through a read-only descriptor reports success.";
    TruncateRace, "truncate-race", [Bytes],
        "An extending truncate zeroes a tail that it measured before it held the lock, and wipes a racing write.";
    CloneSharesStores, "clone-shares-stores", [Bytes, Leak],
        "A store through a mapping of a reflinked file goes to the shared block without copying it first.";
    CloneSharesWrites, "clone-shares-writes", [Bytes, Leak],
        "A write to a reflinked file goes to the shared block without copying it first.";
    CloneSharesDirect, "clone-shares-direct", [Bytes, Leak],
        "An O_DIRECT write to a reflinked file goes to the shared block without copying it first.";
    SigbusAddress, "sigbus-address", [Signals],
        "SIGBUS names the address one page behind the access.";
    SigbusCode, "sigbus-code", [Signals],
        "SIGBUS past the end of file carries BUS_OBJERR instead of BUS_ADRERR.";
    SigbusMissing, "sigbus-missing", [Signals, Bytes],
        "A load past the end of file reads a page of zeros instead of raising SIGBUS.";
    ProtectionIgnored, "protection-ignored", [Signals],
        "A store succeeds after mprotect has taken the right to write.";
    TruncateSizeOffByOne, "truncate-size-off-by-one", [Bytes, Errnos],
        "Truncating to an unaligned length leaves the size one byte too large.";
    CollapseShift, "collapse-shift", [Bytes],
        "Collapsing a range of several blocks shifts the last extent one block too little.";
    InsertShift, "insert-shift", [Bytes],
        "Inserting a range of several blocks shifts the last extent one block too little.";
    SpliceNotWoken, "splice-not-woken", [Liveness],
        "Whoever waits in splice for an empty pipe is not woken when data arrive.";
    FsyncDropsDirty, "fsync-drops-dirty", [Bytes, Media],
        "fsync marks the last dirty page of a file clean without writing it.";
    MsyncDropsDirty, "msync-drops-dirty", [Bytes, Media],
        "msync marks the pages of a mapping clean without writing them.";
    DontNeedDropsDirty, "dontneed-drops-dirty", [Bytes],
        "MADV_DONTNEED on a shared mapping throws dirty pages of the page cache away.";
    DirectWriteKeepsCache, "direct-write-keeps-cache", [Bytes],
        "An O_DIRECT write leaves the old page in the page cache.";
    DirectReadSkipsFlush, "direct-read-skips-flush", [Bytes, Leak],
        "An O_DIRECT read does not write dirty pages back first.";
    UnwrittenShowsBlock, "unwritten-shows-block", [Leak],
        "Reading an unwritten extent gives what was on the media before.";
    NewBlockNotZeroed, "new-block-not-zeroed", [Leak],
        "A partial write into a hole leaves the rest of the new block as it was on the media.";
    HoleLoadShowsBlock, "hole-load-shows-block", [Leak],
        "A load from a hole maps a free block instead of the zero page.";
    PrivateReachesFile, "private-reaches-file", [Bytes, Leak],
        "A store through a private mapping goes to the file's page.";
    ForkSharesPrivate, "fork-shares-private", [Bytes, Leak],
        "The private copies of a mapping's pages stay shared after fork: parent and child see each other's stores.";
    PunchDropsPrivate, "punch-drops-private", [Bytes],
        "Punching a hole throws away private copies of its pages.";
    TruncateKeepsPrivate, "truncate-keeps-private", [Bytes, Signals, Leak],
        "Truncating keeps private copies of pages past the new end of file, and shows them when the file grows again.";
    MremapLosesStores, "mremap-loses-stores", [Bytes],
        "Stores through a shared mapping that mremap has grown do not reach the file.";
    CopyRangeOffset, "copy-range-offset", [Bytes],
        "copy_file_range rounds an unaligned source offset down to a block.";
    CloneShort, "clone-short", [Bytes, Leak],
        "FICLONE of several blocks leaves out the last one.";
    DedupeIgnoresDifference, "dedupe-ignores-difference", [Bytes, Errnos],
        "FIDEDUPERANGE looks at the first block only and reports different data as the same.";
    DedupeWrongBlock, "dedupe-wrong-block", [Bytes],
        "FIDEDUPERANGE of several blocks shares the first block at every place.";
    SendfileRepeatsPage, "sendfile-repeats-page", [Bytes],
        "sendfile of more than one page sends the first page twice.";
    SplicePageReplaced, "splice-page-replaced", [Bytes, Leak],
        "Bytes spliced into a pipe from a DAX file change when the file is written later.";
    AppendIgnored, "append-ignored", [Bytes, Errnos],
        "A write through an O_APPEND descriptor lands at the offset it names.";
    DupOwnPosition, "dup-own-position", [Bytes, Errnos],
        "A duplicated descriptor has a file position of its own.";
    RenameKeepsOldName, "rename-keeps-old-name", [Bytes, Errnos, Media],
        "rename leaves the old name behind.";
    RenameLosesTarget, "rename-loses-target", [Bytes, Errnos, Media],
        "rename onto an existing name removes both names.";
    LinkCountStuck, "link-count-stuck", [Bytes, Errnos, Media],
        "Removing one of several links does not lower the link count.";
    UnlinkFreesOpen, "unlink-frees-open", [Bytes, Leak, Media],
        "Removing the last name frees the blocks although the file is still open.";
    ExclIgnored, "excl-ignored", [Errnos],
        "O_CREAT|O_EXCL opens a file that exists.";
    OpenTruncKeepsData, "open-trunc-keeps-data", [Bytes],
        "O_TRUNC sets the size to zero but leaves the first block for the next writer to find.";
    LinkStartsEarly, "link-starts-early", [Order, Bytes, Leak],
        "A linked io_uring request starts before the one it is linked to has finished.";
    LinkSurvivesFailure, "link-survives-failure", [Order, Errnos],
        "A link chain of io_uring goes on after a request has failed.";
    HardlinkCancelled, "hardlink-cancelled", [Order, Errnos],
        "A hard-linked io_uring request is cancelled after the one before it failed.";
    DrainIgnored, "drain-ignored", [Order, Bytes, Errnos],
        "A draining io_uring request starts while earlier ones are still running.";
    UringFullLength, "uring-full-length", [Errnos, Bytes],
        "A short io_uring read completes with the length that was asked for.";
    DoubleAllocation, "double-allocation", [Media, Leak, Bytes],
        "fallocate hands out a block that another file already owns.";
    BlockLeak, "block-leak", [Media],
        "Truncating forgets to free one block.";
    SeekDataLate, "seek-data-late", [Errnos, Bytes],
        "SEEK_DATA behind a hole names a place one block behind the start of the data.";
    SeekHoleEarly, "seek-hole-early", [Errnos, Bytes],
        "SEEK_HOLE names the last block of the data before the hole.";
    KeepSizeGrows, "keep-size-grows", [Errnos, Bytes],
        "FALLOC_FL_KEEP_SIZE past the end of file changes the size.";
    ZeroRangeKeepsLast, "zero-range-keeps-last", [Bytes],
        "FALLOC_FL_ZERO_RANGE leaves the data of its last whole block.";
    ZeroRangeKeepsCache, "zero-range-keeps-cache", [Bytes],
        "FALLOC_FL_ZERO_RANGE leaves old pages in the page cache.";
    RemountLosesWrite, "remount-loses-write", [Bytes, Media],
        "Unmounting forgets the last block of a file of several.";
    WritebackMisplaced, "writeback-misplaced", [Bytes, Leak, Media],
        "Writing a page of a fragmented file back puts it into the block of the page before.";
    ShortRead, "short-read", [Errnos, Bytes],
        "A read that starts unaligned and crosses a page boundary stops there.";
    ReadPastEnd, "read-past-end", [Errnos, Bytes],
        "A read at or past the end of file reports the full length.";
    ReadSkipsPage, "read-skips-page", [Bytes],
        "A read of several pages counts its last page but does not copy it.";
    ReadWritesTail, "read-writes-tail", [Bytes, Errnos],
        "A buffered read that ends at the end of file also writes the rest of the page into the buffer.";
    WritevSkipsSegment, "writev-skips-segment", [Bytes],
        "A vectored write counts its second segment but repeats the first one's bytes.";
    FsyncFails, "fsync-fails", [Errnos],
        "fsync reports EIO on a healthy device after a hole was punched.";
    WarnOnCollapse, "warn-on-collapse", [Console],
        "Collapsing a range of a mapped file trips a warning.";
    PanicOnInsert, "panic-on-insert", [Console],
        "Inserting a range into a mapped file panics.";
    FdatasyncHangs, "fdatasync-hangs", [Liveness],
        "fdatasync of a file with unwritten extents never returns.";
    SignalWrongThread, "signal-wrong-thread", [Notices],
        "The break of a lease is told to the thread next to the one that F_SETOWN_EX named.";
    SignalTwice, "signal-twice", [Notices],
        "The break of a lease is told twice.";
    SignalEachBreaker, "signal-each-breaker", [Notices],
        "Everybody who meets a lease that is being broken has its holder told again.";
    SignalMissing, "signal-missing", [Notices],
        "The break of a lease is told to nobody.";
    SignalFd, "signal-fd", [Notices],
        "The signal of a lease names a descriptor that was never asked for one.";
    SignalCode, "signal-code", [Notices],
        "The signal of a lease carries POLL_IN instead of POLL_MSG.";
    SignalNumber, "signal-number", [Notices],
        "The break of a lease is told by SIGIO although F_SETSIG asked for another signal.";
    LeaseBesideWriter, "lease-beside-writer", [Leases],
        "A read lease is granted on a file that is open for writing.";
    WriteLeaseShared, "write-lease-shared", [Leases],
        "A write lease is granted on a file that somebody else has open.";
    BreakNotWaitedFor, "break-not-waited-for", [Leases],
        "Whoever breaks a lease by writing goes ahead without waiting for its holder.";
    NonblockWaits, "nonblock-waits", [Liveness, Leases],
        "An O_NONBLOCK open waits for the break of a lease.";
    BreakerNotWoken, "breaker-not-woken", [Liveness],
        "Whoever waits for a lease is not woken when it is given back.";
    LeaseWaitIgnoresSignals, "lease-wait-ignores-signals", [Liveness],
        "Whoever waits for a lease cannot be interrupted.";
    GetleaseShowsOld, "getlease-shows-old", [Leases],
        "F_GETLEASE names the lease as it was before its break began.";
    DowngradeUnlocks, "downgrade-unlocks", [Leases],
        "Asking for a read lease gives up the one that was held.";
    LeaseSurvivesClose, "lease-survives-close", [Leases, Liveness],
        "A lease outlives the last descriptor of its open file.";
    LeaseDiesWithDup, "lease-dies-with-dup", [Leases],
        "Closing a duplicate of a descriptor drops the lease of the open file.";
    BreakTimeIgnored, "break-time-ignored", [Leases],
        "A lease is taken away at once, whatever lease-break-time says.";
    ExpiredLeaseStays, "expired-lease-stays", [Leases, Liveness],
        "A lease that is not given back in time stays.";
    LayoutChangeDoesNotWait, "layout-change-does-not-wait", [Liveness],
        "A layout change goes ahead while pages of the DAX file are held.";
    WaitsForFirstPageOnly, "waits-for-first-page-only", [Liveness],
        "A layout change looks at the first page of the file only.";
    WaitIgnoresReferences, "wait-ignores-references", [Liveness],
        "A layout change waits for pins, but not for plain references.";
    LayoutWaitNotWoken, "layout-wait-not-woken", [Liveness],
        "A layout change that waits for a page is not woken when the page is given back.";
    LayoutWaitUnkillable, "layout-wait-unkillable", [Liveness],
        "A layout change that waits for a page cannot be interrupted.";
    PageCacheWaits, "page-cache-waits", [Liveness],
        "A layout change of a file in the page cache waits for references to its pages.";
    PinnedBlockReused, "pinned-block-reused", [Bytes, Leak, Liveness],
        "A layout change frees blocks whose pages are held, and others are given them.";
    VmspliceCopies, "vmsplice-copies", [Bytes, Leak, Liveness],
        "vmsplice copies the bytes of the page into the pipe.";
    TeeLosesReference, "tee-loses-reference", [Bytes, Leak, Liveness],
        "tee puts the bytes of the page into the second pipe, and no reference to it.";
    PinLeakedOnShort, "pin-leaked-on-short", [Pins],
        "A transfer whose buffer ends early forgets to give back its pages.";
    PinLeakedOnError, "pin-leaked-on-error", [Pins],
        "A transfer that its device has failed forgets to give back its pages.";
    PinLeakedOnRefusal, "pin-leaked-on-refusal", [Pins],
        "Registering a buffer that is refused half-way forgets the pages that it had.";
    UnregisterLeaks, "unregister-leaks", [Pins],
        "Unregistering a buffer forgets to give back its pages.";
    UpdateLeaks, "update-leaks", [Pins],
        "Another buffer takes the place of a registered one, whose pages are not given back.";
    UpdateFreesInUse, "update-frees-in-use", [Pins],
        "An update gives the pages of the old buffer back at once, and a request that uses them does so again.";
    UpdateKeepsOld, "update-keeps-old", [Errnos, Bytes],
        "An update of a registered buffer reports success and leaves the old one in its place.";
    CloneTakesNoReference, "clone-takes-no-reference", [Pins],
        "Rings share a buffer without counting how many, and each gives its pages back.";
    LongTermPinAllowed, "long-term-pin-allowed", [Errnos, Pins],
        "Pages of a DAX file can be pinned for as long as user space likes.";
    LongTermPinErrno, "long-term-pin-errno", [Errnos, Pins],
        "Pinning pages of a DAX file for long is refused with EFAULT.";
    LayoutLeaseKnown, "layout-lease-known", [Leases],
        "F_SETLEASE with F_LAYOUT reports success and does nothing.";
    FixedWrongBuffer, "fixed-wrong-buffer", [Bytes],
        "A transfer through a registered buffer takes its pages in the wrong order.";
    RemoteWriteLost, "remote-write-lost", [Bytes],
        "process_vm_writev counts its last page but does not write it.";
    RemoteWriteNotDirty, "remote-write-not-dirty", [Bytes],
        "process_vm_writev leaves the pages of the page cache clean.";
    ProcMemNoForce, "proc-mem-no-force", [Errnos],
        "/proc/self/mem does not write to a private mapping that is read-only.";
    GateErrorLost, "gate-error-lost", [Errnos, Bytes],
        "A transfer that its device has failed reports success.";
    PartialCountsTwice, "partial-counts-twice", [Bytes, Errnos],
        "A transfer that its device does in two parts counts the first one twice.";
    RecvOtherFile, "recv-other-file", [Bytes, Errnos],
        "Of several descriptors under way in a socket the last one arrives first.";
    InterruptIgnored, "interrupt-ignored", [Liveness],
        "A signal does not end an interruptible wait.";
    KillLeavesLease, "kill-leaves-lease", [Leases, Liveness],
        "The leases of a process that is killed stay.";
    PinWithoutLease, "pin-without-lease", [Errnos, Pins],
        "Pages of a DAX file can be pinned for long without a layout lease.";
    PinnedRangeChanges, "pinned-range-changes", [Errnos, Pins],
        "A layout change of a range that is pinned succeeds.";
    UnpinnedRangeRefused, "unpinned-range-refused", [Errnos, Pins],
        "A layout change is refused because other pages of the file are pinned.";
    LayoutLeaseShared, "layout-lease-shared", [Leases],
        "Two open files have a layout lease on one file.";
    StrictUnlockDoesNotWait, "strict-unlock-does-not-wait", [Leases, Liveness],
        "A layout lease can be given back while pages of the file are pinned.";
    StrictCloseSpares, "strict-close-spares", [Leases, Liveness],
        "Closing a file with a layout lease and pins left has no consequence.";
    StrictDupKills, "strict-dup-kills", [Signals],
        "Closing one of several descriptors of a file with a layout lease and pins left kills the process.";
    RevokeKeepsMapping, "revoke-keeps-mapping", [Signals],
        "A page that was taken away stays mapped.";
    RevokeKeepsBlock, "revoke-keeps-block", [Leak, Bytes],
        "A page that is taken away goes to another file while transfers into it are under way.";
    RegionOnDax, "region-on-dax", [Errnos, Pins],
        "An RDMA memory region can be made of pages of a DAX file.";
    RegionWritesPageCache, "region-writes-page-cache", [Errnos, Pins],
        "A device gets pages of the page cache to write to, without telling the file system.";
    DeregLeaks, "dereg-leaks", [Pins],
        "Deregistering a memory region forgets to give back its pages.";
    RegionOutlivesProcess, "region-outlives-process", [Pins],
        "The memory regions of a process that has ended keep their pages.";
    RdmaFollowsMapping, "rdma-follows-mapping", [Bytes, Leak],
        "An RDMA write lands in the page that the mapping has by now, and not in the one that was pinned.";
    RdmaReadsMapping, "rdma-reads-mapping", [Bytes, Leak],
        "An RDMA transfer takes its bytes out of the page that the mapping has by now.";
    RdmaIgnoresAccess, "rdma-ignores-access", [Errnos],
        "An RDMA write goes into a region that does not allow it.";
    LongtermTestLeaks, "longterm-test-leaks", [Pins],
        "Stopping a test of long-term pins forgets to give back its pages.";
    LongtermTestFollowsFile, "longterm-test-follows-file", [Bytes, Leak],
        "A long-term pin shows the page that its file has by now, and not the one that was pinned.";
    LongtermTestTwice, "longterm-test-twice", [Errnos],
        "A second test of long-term pins is begun while there is one.";
}

impl Bug {
    /// The regime under which it can show.
    pub const fn regime(self) -> Regime {
        match self {
            Bug::PinWithoutLease | Bug::PinnedRangeChanges | Bug::UnpinnedRangeRefused => {
                Regime::LayoutLease
            }
            Bug::LayoutLeaseShared
            | Bug::StrictUnlockDoesNotWait
            | Bug::StrictCloseSpares
            | Bug::StrictDupKills => Regime::LayoutLeaseStrict,
            Bug::RevokeKeepsMapping | Bug::RevokeKeepsBlock => Regime::Revoke,
            _ => Regime::Mainline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_sentences_end() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|b| b.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(Bug::ALL.len() >= 40, "{}", Bug::ALL.len());
        for bug in Bug::ALL {
            assert!(bug.sentence().ends_with('.'), "{bug:?}");
            assert!(!bug.expected().is_empty(), "{bug:?}");
        }
    }
}
