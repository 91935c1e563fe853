//! The calls of a program: one variant per system call (or per use of a mapping), arguments as typed slots.
//!
//! The names are the kernel's own. Offsets and lengths are in bytes. What each call does to the truth is the
//! checker's matter; how it is issued is the agent's.

use crate::resource::{
    Buf, FileSlot, GateSlot, Lane, MapSlot, Path, PipeSlot, RegionSlot, RingSlot,
};
use serde::{Deserialize, Serialize};

/// Most lines one program may hold; bounds the work of every later station.
pub const LINES_MAX: usize = 64;
/// Longest single I/O, mapping access or mapping, in bytes.
pub const IO_MAX: u64 = 512 << 10;
/// Largest file offset or size a program may name, in bytes. Small, so that programs meet in the same pages, and four
/// times the files of a batch fit the smallest media.
pub const FILE_MAX: u64 = 4 << 20;
/// Most segments in one preadv or pwritev.
pub const IOV_MAX: usize = 4;
/// Longest start delay of a line, in microseconds.
pub const DELAY_US_MAX: u16 = 5000;
/// Size of the block device behind a gate, in bytes.
pub const GATE_SIZE: u64 = 1 << 20;
/// Most bytes that one process_vm_readv or process_vm_writev moves through the memory gate.
pub const GATE_MEMORY: u64 = 64 << 10;
/// Longest lease-break-time that a program may set, in seconds.
pub const LEASE_BREAK_TIME_MAX: u8 = 60;
/// Entries of an io_uring.
pub const RING_ENTRIES_MAX: u8 = 32;

/// Index of a line in its program: the identity of a call in histories, stamps and verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u16);

/// Defines a set of flags with a text name for each bit, in the order in which they print.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $repr:ty { $($(#[$fdoc:meta])* $flag:ident = $bit:expr, $text:literal;)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $repr);
        impl $name {
            $($(#[$fdoc])* pub const $flag: $name = $name($bit);)*
            /// Every flag with its text name, in printing order.
            pub const NAMES: &'static [(&'static str, $name)] = &[$(($text, $name::$flag)),*];
            /// All known bits.
            pub const ALL: $name = $name(0 $(| $bit)*);
            /// Whether every bit of `other` is set.
            pub const fn has(self, other: $name) -> bool { self.0 & other.0 == other.0 }
            /// With the bits of `other` as well.
            pub const fn with(self, other: $name) -> $name { $name(self.0 | other.0) }
            /// Without the bits of `other`.
            pub const fn without(self, other: $name) -> $name { $name(self.0 & !other.0) }
        }
    )*};
}

flags! {
    /// Flags of open(2), beside the access mode.
    OpenFlags: u16 {
        /// O_CREAT
        CREAT = 1, "CREAT";
        /// O_EXCL
        EXCL = 2, "EXCL";
        /// O_TRUNC
        TRUNC = 4, "TRUNC";
        /// O_APPEND
        APPEND = 8, "APPEND";
        /// O_DIRECT
        DIRECT = 16, "DIRECT";
        /// O_DSYNC
        DSYNC = 32, "DSYNC";
        /// O_SYNC
        SYNC = 64, "SYNC";
        /// O_NONBLOCK: does not wait for the break of a lease
        NONBLOCK = 128, "NONBLOCK";
    }
    /// PROT_ bits of mmap(2) and mprotect(2). None set is PROT_NONE, printed `NONE`.
    Prot: u8 {
        /// PROT_READ
        READ = 1, "R";
        /// PROT_WRITE
        WRITE = 2, "W";
    }
    /// Flags of mmap(2) beside SHARED and PRIVATE.
    MapFlags: u8 {
        /// MAP_SYNC (with MAP_SHARED_VALIDATE; meaningful on SHARED only)
        SYNC = 1, "SYNC";
        /// MAP_POPULATE
        POPULATE = 2, "POPULATE";
    }
    /// Flags of msync(2).
    MsyncFlags: u8 {
        /// MS_ASYNC
        ASYNC = 1, "ASYNC";
        /// MS_SYNC
        SYNC = 2, "SYNC";
        /// MS_INVALIDATE
        INVALIDATE = 4, "INVALIDATE";
    }
    /// Flags of sync_file_range(2).
    SyncFileRangeFlags: u8 {
        /// SYNC_FILE_RANGE_WAIT_BEFORE
        WAIT_BEFORE = 1, "WAIT_BEFORE";
        /// SYNC_FILE_RANGE_WRITE
        WRITE = 2, "WRITE";
        /// SYNC_FILE_RANGE_WAIT_AFTER
        WAIT_AFTER = 4, "WAIT_AFTER";
    }
    /// How an io_uring request is queued.
    SqeFlags: u8 {
        /// IOSQE_IO_LINK: the next request of this ring starts after this one.
        LINK = 1, "link";
        /// IOSQE_IO_DRAIN: starts after all earlier requests of the ring.
        DRAIN = 2, "drain";
        /// IOSQE_ASYNC: is handed to a worker thread at once.
        ASYNC = 4, "async";
        /// IOSQE_IO_HARDLINK: as link, and the chain survives an error.
        HARDLINK = 8, "hardlink";
        /// IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED: the buffer lies in the ring's registered one.
        FIXED = 16, "fixed";
    }
    /// How gup_test pins.
    PinFlags: u8 {
        /// FOLL_WRITE (PIN_LONGTERM_TEST_FLAG_USE_WRITE): the pages are pinned to be written
        WRITE = 1, "WRITE";
        /// pin_user_pages_fast rather than pin_user_pages (PIN_LONGTERM_TEST_FLAG_USE_FAST)
        FAST = 2, "FAST";
    }
}

/// Defines a fieldless enum whose variants have text names.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal;)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// Every variant with its text name.
            pub const NAMES: &'static [(&'static str, $name)] = &[$(($text, $name::$variant)),*];
            /// The text name.
            pub const fn name(self) -> &'static str { match self { $($name::$variant => $text),* } }
            /// The variant of that name.
            pub fn from_name(name: &str) -> Option<$name> {
                $name::NAMES.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
            }
        }
    )*};
}

names! {
    /// Access mode of open(2).
    Access {
        /// O_RDONLY
        ReadOnly = "RDONLY";
        /// O_WRONLY
        WriteOnly = "WRONLY";
        /// O_RDWR
        ReadWrite = "RDWR";
    }
    /// Whether stores through a mapping reach the file.
    Sharing {
        /// MAP_SHARED (MAP_SHARED_VALIDATE when a flag needs it)
        Shared = "SHARED";
        /// MAP_PRIVATE
        Private = "PRIVATE";
    }
    /// Mode of fallocate(2).
    FallocateMode {
        /// 0: allocate, extending the file
        Allocate = "0";
        /// FALLOC_FL_KEEP_SIZE
        KeepSize = "KEEP_SIZE";
        /// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        PunchHole = "PUNCH_HOLE";
        /// FALLOC_FL_ZERO_RANGE
        ZeroRange = "ZERO_RANGE";
        /// FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
        ZeroRangeKeepSize = "ZERO_RANGE|KEEP_SIZE";
        /// FALLOC_FL_COLLAPSE_RANGE
        CollapseRange = "COLLAPSE_RANGE";
        /// FALLOC_FL_INSERT_RANGE
        InsertRange = "INSERT_RANGE";
        /// FALLOC_FL_UNSHARE_RANGE
        UnshareRange = "UNSHARE_RANGE";
        /// FALLOC_FL_PUNCH_HOLE without KEEP_SIZE, which the kernel must refuse (EOPNOTSUPP)
        PunchHoleBare = "PUNCH_HOLE_BARE";
    }
    /// Advice of madvise(2).
    Advice {
        /// MADV_NORMAL
        Normal = "NORMAL";
        /// MADV_RANDOM
        Random = "RANDOM";
        /// MADV_SEQUENTIAL
        Sequential = "SEQUENTIAL";
        /// MADV_WILLNEED
        WillNeed = "WILLNEED";
        /// MADV_DONTNEED
        DontNeed = "DONTNEED";
        /// MADV_COLD
        Cold = "COLD";
        /// MADV_PAGEOUT
        PageOut = "PAGEOUT";
        /// MADV_POPULATE_READ
        PopulateRead = "POPULATE_READ";
        /// MADV_POPULATE_WRITE
        PopulateWrite = "POPULATE_WRITE";
        /// MADV_HUGEPAGE
        HugePage = "HUGEPAGE";
        /// MADV_NOHUGEPAGE
        NoHugePage = "NOHUGEPAGE";
        /// MADV_REMOVE: punches a hole into the mapped file
        Remove = "REMOVE";
    }
    /// What is asked of F_SETLEASE.
    Lease {
        /// F_RDLCK
        Read = "RDLCK";
        /// F_WRLCK
        Write = "WRLCK";
        /// F_UNLCK
        Unlock = "UNLCK";
        /// F_LAYOUT (16) of the RFC of June 2019, which no released kernel knows
        Layout = "LAYOUT";
    }
    /// Signal that F_SETSIG asks for.
    Notice {
        /// 0: SIGIO without si_fd
        Default = "DEFAULT";
        /// SIGIO, with si_fd
        Io = "SIGIO";
        /// SIGRTMIN + 1
        Rt1 = "RT1";
        /// SIGRTMIN + 2
        Rt2 = "RT2";
    }
    /// Whom F_SETOWN_EX names.
    OwnerKind {
        /// F_OWNER_TID: the thread of a lane
        Tid = "TID";
        /// F_OWNER_PID: the process of a lane
        Pid = "PID";
        /// F_OWNER_PGRP: the process group of a lane
        Pgrp = "PGRP";
    }
    /// How the I/O that a gate holds is settled when it is released.
    Settle {
        /// In order, as asked
        Complete = "COMPLETE";
        /// With EIO
        Fail = "EIO";
        /// The last request first (g1 only)
        Reverse = "REVERSE";
        /// Each request in two parts, the second after all first ones (g1 only)
        Partial = "PARTIAL";
    }
    /// What the device may do to a memory region.
    RegionAccess {
        /// IBV_ACCESS_REMOTE_READ: it may read, for whichever side asks
        Read = "LOCAL_READ";
        /// IBV_ACCESS_LOCAL_WRITE, _REMOTE_WRITE and _REMOTE_READ: it may read and write
        Write = "LOCAL_WRITE";
    }
    /// Whence of lseek(2).
    Whence {
        /// SEEK_SET
        Set = "SET";
        /// SEEK_HOLE
        Hole = "HOLE";
        /// SEEK_DATA
        Data = "DATA";
    }
}

/// One system call, or one access through a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields carry the syscall's own argument names")]
pub enum Call {
    /// `f0 = open("a", RDWR|CREAT)`: a slot in use is left to the earlier file, closed after the open succeeded.
    Open { slot: FileSlot, path: Path, access: Access, flags: OpenFlags },
    /// `close(f0)`
    Close { file: FileSlot },
    /// `f1 = dup(f0)`
    Dup { slot: FileSlot, file: FileSlot },
    /// `unlink("a")`
    Unlink { path: Path },
    /// `rename("a", "b")`
    Rename { from: Path, to: Path },
    /// `link("a", "b")`
    Link { from: Path, to: Path },
    /// `pread(f0, 0, anon, 4K)`
    Pread { file: FileSlot, offset: u64, buf: Buf, len: u64 },
    /// `pwrite(f0, 0, m0+512, 4K)`
    Pwrite { file: FileSlot, offset: u64, buf: Buf, len: u64 },
    /// `preadv(f0, 0, [anon 4K, m0+0 512])`
    Preadv { file: FileSlot, offset: u64, iov: Vec<(Buf, u64)> },
    /// `pwritev(f0, 0, [anon 4K, m0+0 512])`
    Pwritev { file: FileSlot, offset: u64, iov: Vec<(Buf, u64)> },
    /// `readv(f0, [anon 4K])`: at the file position
    Readv { file: FileSlot, iov: Vec<(Buf, u64)> },
    /// `writev(f0, [anon 4K])`: at the file position
    Writev { file: FileSlot, iov: Vec<(Buf, u64)> },
    /// `lseek(f0, 4K, SET)`
    Lseek { file: FileSlot, offset: u64, whence: Whence },
    /// `m0 = mmap(f0, 0, 64K, RW, SHARED|POPULATE)`: a slot in use is unmapped after the mmap succeeded.
    Mmap {
        slot: MapSlot,
        file: FileSlot,
        offset: u64,
        len: u64,
        prot: Prot,
        sharing: Sharing,
        flags: MapFlags,
    },
    /// `munmap(m0)`: the whole mapping
    Munmap { map: MapSlot },
    /// `mremap(m0, 128K)`: MREMAP_MAYMOVE
    Mremap { map: MapSlot, len: u64 },
    /// `mprotect(m0, R)`: the whole mapping
    Mprotect { map: MapSlot, prot: Prot },
    /// `load(m0+8, 8)`: reads `len` bytes in ascending order, up to the first fault
    Load { map: MapSlot, offset: u64, len: u64 },
    /// `store(m0+8, 8)`: writes `len` signed bytes in ascending order, up to the first fault
    Store { map: MapSlot, offset: u64, len: u64 },
    /// `msync(m0+0, 64K, SYNC)`
    Msync { map: MapSlot, offset: u64, len: u64, flags: MsyncFlags },
    /// `madvise(m0+0, 64K, DONTNEED)`
    Madvise { map: MapSlot, offset: u64, len: u64, advice: Advice },
    /// `truncate("a", 4K)`
    Truncate { path: Path, len: u64 },
    /// `ftruncate(f0, 4K)`
    Ftruncate { file: FileSlot, len: u64 },
    /// `fallocate(f0, PUNCH_HOLE, 4K, 8K)`
    Fallocate { file: FileSlot, mode: FallocateMode, offset: u64, len: u64 },
    /// `ficlone(f1, f0)`: the destination comes first, as in ioctl_ficlone(2)
    Ficlone { dst: FileSlot, src: FileSlot },
    /// `ficlonerange(f1, 0, f0, 4K, 8K)`: dst, dst offset, src, src offset, length (0 is to the end)
    Ficlonerange { dst: FileSlot, dst_offset: u64, src: FileSlot, src_offset: u64, len: u64 },
    /// `fideduperange(f0, 0, 4K, f1, 8K)`: src, src offset, length, dst, dst offset
    Fideduperange { src: FileSlot, src_offset: u64, len: u64, dst: FileSlot, dst_offset: u64 },
    /// `copy_file_range(f0, 0, f1, 4K, 8K)`: src, src offset, dst, dst offset, length
    CopyFileRange { src: FileSlot, src_offset: u64, dst: FileSlot, dst_offset: u64, len: u64 },
    /// `sendfile(f1, f0, 0, 8K)`: dst at its file position, src, src offset, length
    Sendfile { dst: FileSlot, src: FileSlot, src_offset: u64, len: u64 },
    /// `p0 = pipe()`: O_NONBLOCK is not set; a slot in use is closed first
    Pipe { slot: PipeSlot },
    /// `splice(f0, 0, p0, 4K)`: file to pipe
    SpliceToPipe { file: FileSlot, offset: u64, pipe: PipeSlot, len: u64 },
    /// `splice(p0, f0, 0, 4K)`: pipe to file
    SpliceFromPipe { pipe: PipeSlot, file: FileSlot, offset: u64, len: u64 },
    /// `fsync(f0)`
    Fsync { file: FileSlot },
    /// `fdatasync(f0)`
    Fdatasync { file: FileSlot },
    /// `sync_file_range(f0, 0, 4K, WRITE)`
    SyncFileRange { file: FileSlot, offset: u64, len: u64, flags: SyncFileRangeFlags },
    /// `syncfs(f0)`
    Syncfs { file: FileSlot },
    /// `statx(f0)`
    Statx { file: FileSlot },
    /// `fiemap(f0)`: FS_IOC_FIEMAP over the whole file, with FIEMAP_FLAG_SYNC
    Fiemap { file: FileSlot },
    /// `c0 = fork()`: only from a thread lane; the child runs the lines of lane `c0` from here on
    Fork { child: u8 },
    /// `exit()`: ends the child lane it stands on (`_exit(0)`)
    Exit,
    /// `drop_caches()`: writes 3 to /proc/sys/vm/drop_caches (clean caches only, nothing is synced first)
    DropCaches,
    /// `r0 = io_uring_setup(8)`
    IoUringSetup { slot: RingSlot, entries: u8 },
    /// `wait(t1)`: the conductor waits until that lane has nothing more to do
    Wait { lane: Lane },
    /// `f0 = open(g0, RDWR|DIRECT)`: the block device of a gate, with O_DIRECT always
    OpenGate { slot: FileSlot, gate: GateSlot, access: Access, flags: OpenFlags },
    /// `hold(g0)`: what goes through the gate from now on is accepted and does not complete
    Hold { gate: GateSlot },
    /// `release(g0)`, `release(g0, EIO)`: settles what the gate holds, and holds nothing any more
    Release { gate: GateSlot, settle: Settle },
    /// `vmsplice(m0+0, p0, 4K)`: references to the pages go into the pipe
    Vmsplice { map: MapSlot, offset: u64, pipe: PipeSlot, len: u64 },
    /// `tee(p0, p1, 4K)`: the second pipe gets references to what the first one holds, which stays there
    Tee { src: PipeSlot, dst: PipeSlot, len: u64 },
    /// `read(p0, anon, 4K)`: takes bytes out of a pipe
    ReadPipe { pipe: PipeSlot, buf: Buf, len: u64 },
    /// `close(p0)`: both ends, in this process
    ClosePipe { pipe: PipeSlot },
    /// `process_vm_readv(m0+0, g2, 4K)`: from a mapping of this process into the memory gate's pages. The pages of the mapping are pinned until
    /// the gate lets go.
    ProcessVmReadv { map: MapSlot, offset: u64, gate: GateSlot, len: u64 },
    /// `process_vm_writev(m0+0, g2, 4K)`: from the memory gate's pages, signed for the place in the mapping, into a mapping of this process
    ProcessVmWritev { map: MapSlot, offset: u64, gate: GateSlot, len: u64 },
    /// `proc_mem_pread(m0+0, 4K)`: reads a mapping through /proc/self/mem (FOLL_FORCE)
    ProcMemPread { map: MapSlot, offset: u64, len: u64 },
    /// `proc_mem_pwrite(m0+0, 4K)`: writes a mapping through /proc/self/mem (FOLL_FORCE)
    ProcMemPwrite { map: MapSlot, offset: u64, len: u64 },
    /// `register_buffers(r0, m0+0, 8K)`: IORING_REGISTER_BUFFERS with that one buffer
    RegisterBuffers { ring: RingSlot, map: MapSlot, offset: u64, len: u64 },
    /// `update_buffers(r0, m1+0, 8K)`: IORING_REGISTER_BUFFERS_UPDATE: that buffer takes the place of the registered one, which requests in flight
    /// keep until they are over
    UpdateBuffers { ring: RingSlot, map: MapSlot, offset: u64, len: u64 },
    /// `clone_buffers(r1, r0)`: IORING_REGISTER_CLONE_BUFFERS: the first ring shares what the second one has registered
    CloneBuffers { ring: RingSlot, src: RingSlot },
    /// `unregister_buffers(r0)`: IORING_UNREGISTER_BUFFERS
    UnregisterBuffers { ring: RingSlot },
    /// `close(r0)`: ends the ring, and with it what it had registered
    CloseRing { ring: RingSlot },
    /// `setlease(f0, RDLCK)`: fcntl(F_SETLEASE)
    Setlease { file: FileSlot, lease: Lease },
    /// `getlease(f0)`: fcntl(F_GETLEASE)
    Getlease { file: FileSlot },
    /// `setsig(f0, RT1)`: fcntl(F_SETSIG)
    Setsig { file: FileSlot, notice: Notice },
    /// `setown_ex(f0, TID, t1)`: fcntl(F_SETOWN_EX)
    SetownEx { file: FileSlot, kind: OwnerKind, lane: Lane },
    /// `on_break(UNLCK)`: from now on the signal handler answers each break of a lease in this process by F_SETLEASE with that; `LAYOUT` is never
    OnBreak { answer: Lease },
    /// `lease_break_time(2)`: seconds, written to /proc/sys/fs/lease-break-time
    LeaseBreakTime { seconds: u8 },
    /// `kill(c0)`: SIGKILL to a child, and waits for its end
    Kill { lane: Lane },
    /// `interrupt(t1)`: a signal without SA_RESTART to the thread of a lane
    Interrupt { lane: Lane },
    /// `send_fd(f0)`: SCM_RIGHTS into the program's socket pair
    SendFd { file: FileSlot },
    /// `f1 = recv_fd()`: takes the oldest descriptor out of the socket pair
    RecvFd { slot: FileSlot },
    /// `x0 = ibv_reg_mr(m0+0, 8K, LOCAL_WRITE)`: IB_USER_VERBS_CMD_REG_MR at the soft-RoCE device. The pages are pinned for as long as the region
    /// lives; one that the slot had is deregistered after that succeeded.
    RegMr { slot: RegionSlot, map: MapSlot, offset: u64, len: u64, access: RegionAccess },
    /// `ibv_dereg_mr(x0)`: IB_USER_VERBS_CMD_DEREG_MR
    DeregMr { region: RegionSlot },
    /// `pin_longterm_test_start(m0+0, 8K, WRITE|FAST)`: PIN_LONGTERM_TEST_START of gup_test. The kernel has one place for such pins, which all processes
    /// share: while it is taken, no other is granted.
    PinLongtermTestStart { buf: Buf, len: u64, flags: PinFlags },
    /// `pin_longterm_test_read()`: PIN_LONGTERM_TEST_READ: brings out what all the pinned pages hold, whatever is mapped where they were found
    PinLongtermTestRead,
    /// `pin_longterm_test_stop()`: PIN_LONGTERM_TEST_STOP
    PinLongtermTestStop,
    /// `pin_basic_test(m0+0, 8K, WRITE)`: PIN_BASIC_TEST of gup_test, or with `FAST` PIN_FAST_BENCHMARK: pins whole pages one by one and gives them back
    /// at once. Returns how many bytes it came to, which the kernel writes into `struct gup_test`.
    PinBasicTest { map: MapSlot, offset: u64, len: u64, flags: PinFlags },
    /// `rdma_write(x0+0, x1+4K, 8K)`: IBV_WR_RDMA_WRITE, through a reliable connection of the device with itself: bytes of the first region go into the
    /// second one. Returns their number, or as an error how the request completed: EACCES where the far region does not allow it
    /// (IBV_WC_REM_ACCESS_ERR), EFAULT where the near one does not (IBV_WC_LOC_PROT_ERR), ETIMEDOUT where nothing answers (IBV_WC_RETRY_EXC_ERR), EIO
    /// otherwise.
    RdmaWrite { local: RegionSlot, from: u64, remote: RegionSlot, to: u64, len: u64 },
    /// `rdma_read(x0+0, x1+4K, 8K)`: IBV_WR_RDMA_READ, as above: bytes of the second region come into the first one
    RdmaRead { local: RegionSlot, to: u64, remote: RegionSlot, from: u64, len: u64 },
}

/// How a line's call is issued through io_uring instead of as a system call: `(r0, link)`.
///
/// Pread, Pwrite, Preadv, Pwritev, Fsync, Fdatasync, Fallocate, Ftruncate, SpliceToPipe, SpliceFromPipe and Madvise
/// have a ring form; `fixup` removes the attribute from all others. Lines with `link` or `hardlink` queue up and are submitted with
/// the first line of the same lane and ring that has neither (fixup clears the last one's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The ring.
    pub ring: RingSlot,
    /// IOSQE_ flags.
    pub flags: SqeFlags,
}

/// One line: a call on a lane, and how it is issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Who issues it.
    pub lane: Lane,
    /// What is issued.
    pub call: Call,
    /// Through a ring, if set.
    pub via: Option<Via>,
    /// By io_submit(2), and waited for by io_getevents(2): `(aio)`. Pread, Pwrite, Preadv, Pwritev, Fsync and Fdatasync have this form; `fixup`
    /// removes it from all others, and from what goes through a ring.
    pub aio: bool,
    /// Microseconds that the lane waits before it issues the call: `(delay 20us)`.
    pub delay_us: u16,
    /// `&`: the next line starts without waiting for this one.
    pub detached: bool,
}

/// A whole program: what the text form, the generator and the corpus hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The mount where paths without a prefix live; `image xfs-dax` in the text form.
    pub home: Mount,
    /// The lines, in order.
    pub lines: Vec<Line>,
}

pub use crate::resource::Mount;
