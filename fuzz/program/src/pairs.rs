//! Which meetings a program is about: a page that something holds and a change of its file's layout, or a lease and a call that
//! may break it.
//!
//! Read off the text, in its order: racing lines are taken to be issued where they stand, and most calls to succeed. It is for reach and for
//! reports, and no verdict may rest on it.

use crate::outline::Outline;
use crate::{CallId, FallocateMode, Mount, Program};
use serde::{Deserialize, Serialize};

/// Defines a fieldless enum whose variants have names for reports.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal;)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The name in reports.
            pub const fn name(self) -> &'static str { match self { $($name::$variant => $text),* } }
        }
    )*};
}

kinds! {
    /// By which means a page of a file is referenced or pinned.
    PinSource {
        /// An O_DIRECT read of another file into a mapping, in flight beside later lines
        DirectRead = "direct-read";
        /// An O_DIRECT write to another file from a mapping, in flight beside later lines
        DirectWrite = "direct-write";
        /// An O_DIRECT read that a gate holds
        GateRead = "gate-read";
        /// An O_DIRECT write that a gate holds
        GateWrite = "gate-write";
        /// As `GateRead`, as a request of io_submit(2)
        AioRead = "aio-read";
        /// As `GateWrite`, as a request of io_submit(2)
        AioWrite = "aio-write";
        /// As `GateRead`, as a request of a ring
        RingRead = "ring-read";
        /// As `GateWrite`, as a request of a ring
        RingWrite = "ring-write";
        /// As `RingRead`, into a registered buffer
        FixedRead = "fixed-read";
        /// As `RingWrite`, from a registered buffer
        FixedWrite = "fixed-write";
        /// References in a pipe
        Vmsplice = "vmsplice";
        /// References that tee(2) copied into a second pipe
        Tee = "tee";
        /// Pages of a file that splice(2) put into a pipe
        Splice = "splice";
        /// References in a pipe that only another process than the one that put them there has open
        PipeElsewhere = "pipe-elsewhere";
        /// process_vm_readv from a mapping, held by the memory gate or in flight beside later lines
        ProcessVmRead = "process-vm-read";
        /// process_vm_writev into a mapping, as above
        ProcessVmWrite = "process-vm-write";
        /// A read of /proc/self/mem, in flight beside later lines
        ProcMemRead = "proc-mem-read";
        /// A write to /proc/self/mem, in flight beside later lines
        ProcMemWrite = "proc-mem-write";
        /// Registered buffers in a shared mapping, which mainline refuses
        Registered = "registered";
        /// Registered buffers in a private mapping: pages that no file has
        RegisteredPrivate = "registered-private";
        /// A buffer under a request that a gate holds, in whose place the ring has another one by now
        Replaced = "replaced";
        /// A registered buffer in a private mapping that a second ring shares
        Cloned = "cloned";
        /// An RDMA memory region in a shared mapping: of a DAX file it is refused, of the page cache what may be written through it is, since 6.5
        Region = "region";
        /// An RDMA memory region in a private mapping: copies, be it only to be read
        RegionPrivate = "region-private";
        /// gup_test's long-term pins of a shared mapping: refused of a DAX file, and of the page cache if they are to be written; no process's end drops them
        LongtermTest = "longterm-test";
        /// gup_test's long-term pins of a private mapping: copies, be it only to be read
        LongtermTestPrivate = "longterm-test-private";
    }
    /// What is done to a file one of whose pages is held: changes of its layout, and other uses that may meet the holder.
    LayoutChange {
        /// truncate(2) to less
        TruncateDown = "truncate-down";
        /// truncate(2) to as much or more
        TruncateUp = "truncate-up";
        /// ftruncate(2) to less
        FtruncateDown = "ftruncate-down";
        /// ftruncate(2) to as much or more
        FtruncateUp = "ftruncate-up";
        /// open(2) with O_TRUNC
        OpenTruncate = "open-truncate";
        /// fallocate(2), plain
        Allocate = "allocate";
        /// FALLOC_FL_KEEP_SIZE
        AllocateKeepSize = "allocate-keep-size";
        /// FALLOC_FL_PUNCH_HOLE
        PunchHole = "punch-hole";
        /// FALLOC_FL_PUNCH_HOLE, refused
        PunchHoleBare = "punch-hole-bare";
        /// FALLOC_FL_ZERO_RANGE
        ZeroRange = "zero-range";
        /// FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
        ZeroRangeKeepSize = "zero-range-keep-size";
        /// FALLOC_FL_COLLAPSE_RANGE
        CollapseRange = "collapse-range";
        /// FALLOC_FL_INSERT_RANGE
        InsertRange = "insert-range";
        /// FALLOC_FL_UNSHARE_RANGE
        UnshareRange = "unshare-range";
        /// unlink(2) of a name of it
        Unlink = "unlink";
        /// close(2) of a descriptor when no name leads to it any more
        CloseUnlinked = "close-unlinked";
        /// rename(2) over a name of it
        RenameOver = "rename-over";
        /// FICLONE into it
        CloneOver = "clone-over";
        /// FICLONE of it
        CloneFrom = "clone-from";
        /// FICLONERANGE into it
        CloneRangeOver = "clone-range-over";
        /// FICLONERANGE out of it
        CloneRangeFrom = "clone-range-from";
        /// FIDEDUPERANGE with it as the destination
        DedupeOver = "dedupe-over";
        /// FIDEDUPERANGE with it as the source
        DedupeFrom = "dedupe-from";
        /// copy_file_range(2) into it
        CopyOver = "copy-over";
        /// madvise(MADV_REMOVE) of a mapping of it
        MadviseRemove = "madvise-remove";
        /// A write, buffered or into a DAX file
        Write = "write";
        /// A write with O_DIRECT, past the page cache
        DirectWrite = "direct-write";
        /// fsync, fdatasync, syncfs, sync_file_range or msync
        Sync = "sync";
        /// drop_caches
        DropCaches = "drop-caches";
        /// munmap(2) of a mapping of it
        Munmap = "munmap";
        /// fork(2) of a process that maps it
        Fork = "fork";
        /// The process that took the reference exits
        HolderExit = "holder-exit";
        /// The process that took the reference is killed
        HolderKill = "holder-kill";
    }
    /// What leases a file has when a call meets them.
    LeaseState {
        /// One F_RDLCK
        Read = "read";
        /// Two or more F_RDLCK of different open files
        TwoReaders = "two-readers";
        /// F_RDLCK, and a break has begun
        ReadBreaking = "read-breaking";
        /// F_WRLCK
        Write = "write";
        /// F_WRLCK, and a break to F_RDLCK has begun
        WriteDowngrading = "write-downgrading";
        /// F_WRLCK, and a break to F_UNLCK has begun
        WriteBreaking = "write-breaking";
        /// A lease whose open file only another process, or nobody but a socket, has open
        Elsewhere = "elsewhere";
        /// F_LAYOUT was asked for
        Layout = "layout";
    }
    /// What meets a lease: what breaks it, what might be thought to, and what ends it.
    Breaker {
        /// open(2) to read
        OpenRead = "open-read";
        /// open(2) to write
        OpenWrite = "open-write";
        /// open(2) to read, with O_TRUNC
        OpenReadTruncate = "open-read-truncate";
        /// open(2) to write, with O_TRUNC
        OpenWriteTruncate = "open-write-truncate";
        /// open(2) to read, with O_NONBLOCK
        OpenReadNonblock = "open-read-nonblock";
        /// open(2) to write, with O_NONBLOCK
        OpenWriteNonblock = "open-write-nonblock";
        /// truncate(2)
        Truncate = "truncate";
        /// ftruncate(2)
        Ftruncate = "ftruncate";
        /// A write through a descriptor
        Write = "write";
        /// fallocate(2)
        Fallocate = "fallocate";
        /// FICLONE, FICLONERANGE, FIDEDUPERANGE or copy_file_range(2) into it
        CloneOver = "clone-over";
        /// rename(2) of it or over it
        Rename = "rename";
        /// unlink(2)
        Unlink = "unlink";
        /// link(2)
        Link = "link";
        /// F_SETLEASE with F_RDLCK, by whomever
        SetleaseRead = "setlease-read";
        /// F_SETLEASE with F_WRLCK, by whomever
        SetleaseWrite = "setlease-write";
        /// close(2) of a descriptor of the leased open file
        CloseHolder = "close-holder";
        /// fork(2) by a process that has the leased open file
        Fork = "fork";
        /// A process that has the leased open file exits
        ExitHolder = "exit-holder";
        /// A process that has the leased open file is killed
        KillHolder = "kill-holder";
    }
}

impl LayoutChange {
    /// The change that a mode of fallocate(2) is.
    pub const fn of_mode(mode: FallocateMode) -> LayoutChange {
        match mode {
            FallocateMode::Allocate => LayoutChange::Allocate,
            FallocateMode::KeepSize => LayoutChange::AllocateKeepSize,
            FallocateMode::PunchHole => LayoutChange::PunchHole,
            FallocateMode::PunchHoleBare => LayoutChange::PunchHoleBare,
            FallocateMode::ZeroRange => LayoutChange::ZeroRange,
            FallocateMode::ZeroRangeKeepSize => LayoutChange::ZeroRangeKeepSize,
            FallocateMode::CollapseRange => LayoutChange::CollapseRange,
            FallocateMode::InsertRange => LayoutChange::InsertRange,
            FallocateMode::UnshareRange => LayoutChange::UnshareRange,
        }
    }
}

impl PinSource {
    /// Whether a page of a file there that is held so can meet the change: what no program says, or no file there is ever asked.
    ///
    /// A child has no memory gate, and a lane whose call is in flight has to end it before it exits. What splice(2) takes out
    /// of a DAX file is a copy, and O_DIRECT makes no difference to a write into one.
    pub const fn can_meet(self, change: LayoutChange, mount: Mount) -> bool {
        use PinSource as S;
        let in_call = matches!(
            self,
            S::DirectRead
                | S::DirectWrite
                | S::GateRead
                | S::GateWrite
                | S::AioRead
                | S::AioWrite
                | S::ProcMemRead
                | S::ProcMemWrite
        );
        let in_ring =
            matches!(self, S::RingRead | S::RingWrite | S::FixedRead | S::FixedWrite | S::Replaced);
        let in_pipe = matches!(self, S::Vmsplice | S::Tee | S::Splice | S::PipeElsewhere);
        let registered = matches!(
            self,
            S::Registered
                | S::RegisteredPrivate
                | S::Cloned
                | S::Region
                | S::RegionPrivate
                | S::LongtermTest
                | S::LongtermTestPrivate
        );
        let there = !(mount.is_dax() && matches!(self, S::Splice));
        there
            && match change {
                LayoutChange::HolderExit => in_pipe || in_ring || registered,
                LayoutChange::HolderKill => in_pipe || in_ring || registered || in_call,
                LayoutChange::DirectWrite => !mount.is_dax(),
                _ => true,
            }
    }

    /// Whether the hold ends with the call that takes it, or outlives it.
    pub const fn ends_with_its_call(self) -> bool {
        use PinSource as S;
        match self {
            S::DirectRead
            | S::DirectWrite
            | S::GateRead
            | S::GateWrite
            | S::AioRead
            | S::AioWrite
            | S::RingRead
            | S::RingWrite
            | S::FixedRead
            | S::FixedWrite
            | S::Replaced
            | S::ProcessVmRead
            | S::ProcessVmWrite
            | S::ProcMemRead
            | S::ProcMemWrite => true,
            S::Vmsplice
            | S::Tee
            | S::Splice
            | S::PipeElsewhere
            | S::Registered
            | S::RegisteredPrivate
            | S::Cloned
            | S::Region
            | S::RegionPrivate
            | S::LongtermTest
            | S::LongtermTestPrivate => false,
        }
    }
}

impl LeaseState {
    /// Whether a file with such leases can meet the call: where there is an F_RDLCK there is nobody who could write, F_SETLEASE refuses
    /// otherwise (fs/locks.c:check_conflicting_open, 6.1 and 6.12).
    pub const fn can_meet(self, breaker: Breaker) -> bool {
        use Breaker as B;
        use LeaseState as S;
        let read = matches!(self, S::Read | S::TwoReaders | S::ReadBreaking);
        let writes = matches!(breaker, B::Ftruncate | B::Write | B::Fallocate | B::CloneOver);
        !(read && writes)
    }
}

/// A change of a file that one of whose pages is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeldPair {
    /// By which means.
    pub source: PinSource,
    /// Where the file lives.
    pub mount: Mount,
    /// The line that took the reference.
    pub taken: CallId,
    /// What is done to the file.
    pub change: LayoutChange,
    /// The line that does it.
    pub issued: CallId,
}

/// A call that meets a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeasePair {
    /// What leases there are.
    pub state: LeaseState,
    /// Where the file lives.
    pub mount: Mount,
    /// The line that took the (first) lease.
    pub taken: CallId,
    /// What meets it.
    pub breaker: Breaker,
    /// The line that does.
    pub issued: CallId,
}

impl Program {
    /// The changes that meet a page which something probably holds then, in the order of the text.
    pub fn held_pairs(&self) -> Vec<HeldPair> {
        self.outlined().held_pairs
    }

    /// The calls that meet a lease which probably is in force then, in the order of the text.
    pub fn lease_pairs(&self) -> Vec<LeasePair> {
        self.outlined().lease_pairs
    }

    fn outlined(&self) -> Outline {
        let mut outline = Outline::default();
        self.lines.iter().for_each(|line| outline.apply(line));
        outline
    }
}
