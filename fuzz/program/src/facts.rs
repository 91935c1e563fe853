//! What can be said of a call without running it: its kind, its name, the slots and buffers that it uses, and how it may
//! be issued.
//!
//! Nothing here depends on what a kernel did.

use crate::args::Arg;
use crate::{
    Access, Advice, Buf, Call, FallocateMode, FileSlot, GateSlot, Lane, Lease, Line, MapFlags,
    MapSlot, Mount, MsyncFlags, Notice, OpenFlags, OwnerKind, Path, PinFlags, PipeSlot, Program,
    Prot, RegionAccess, RegionSlot, RingSlot, Settle, Sharing, SyncFileRangeFlags, Whence,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Size of a base page. The alignment that mmap(2) asks of offsets, on every machine that we run.
pub const PAGE: u64 = 4096;

const F0: FileSlot = FileSlot(0);
const F1: FileSlot = FileSlot(1);
const M0: MapSlot = MapSlot(0);
const P0: PipeSlot = PipeSlot(0);
const A: Path = Path { mount: Mount::XfsDax, name: 0 };
const B: Path = Path { mount: Mount::XfsDax, name: 1 };
const R0: RingSlot = RingSlot(0);
const X0: RegionSlot = RegionSlot(0);
const ANON: Buf = Buf::Anon(0);

/// Defines the kinds with their text names, and a plain call of each kind, from which the parser and the generator start.
macro_rules! kinds {
    ($($kind:ident = $text:literal, $template:expr;)*) => {
        /// Which variant of [`Call`] it is: for statistics, swarm weights and tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the variants are those of `Call`")]
        pub enum CallKind { $($kind),* }

        impl CallKind {
            /// Every kind, in the order of the variants of [`Call`].
            pub const ALL: &'static [CallKind] = &[$(CallKind::$kind),*];

            /// The name in the text form. Kinds that share one (splice, open, close) differ by the letter of their first argument.
            pub const fn name(self) -> &'static str {
                match self { $(CallKind::$kind => $text),* }
            }

            /// A plain call of this kind.
            pub(crate) fn template(self) -> Call {
                match self { $(CallKind::$kind => $template),* }
            }
        }

        impl Call {
            /// Which kind of call it is.
            pub const fn kind(&self) -> CallKind {
                match self { $(Call::$kind { .. } => CallKind::$kind),* }
            }
        }
    };
}

kinds! {
    Open = "open", Call::Open { slot: F0, path: A, access: Access::ReadWrite, flags: OpenFlags::CREAT };
    Close = "close", Call::Close { file: F0 };
    Dup = "dup", Call::Dup { slot: F1, file: F0 };
    Unlink = "unlink", Call::Unlink { path: A };
    Rename = "rename", Call::Rename { from: A, to: B };
    Link = "link", Call::Link { from: A, to: B };
    Pread = "pread", Call::Pread { file: F0, offset: 0, buf: ANON, len: PAGE };
    Pwrite = "pwrite", Call::Pwrite { file: F0, offset: 0, buf: ANON, len: PAGE };
    Preadv = "preadv", Call::Preadv { file: F0, offset: 0, iov: vec![(ANON, PAGE)] };
    Pwritev = "pwritev", Call::Pwritev { file: F0, offset: 0, iov: vec![(ANON, PAGE)] };
    Readv = "readv", Call::Readv { file: F0, iov: vec![(ANON, PAGE)] };
    Writev = "writev", Call::Writev { file: F0, iov: vec![(ANON, PAGE)] };
    Lseek = "lseek", Call::Lseek { file: F0, offset: 0, whence: Whence::Set };
    Mmap = "mmap", Call::Mmap {
        slot: M0, file: F0, offset: 0, len: PAGE, prot: Prot::READ.with(Prot::WRITE),
        sharing: Sharing::Shared, flags: MapFlags(0),
    };
    Munmap = "munmap", Call::Munmap { map: M0 };
    Mremap = "mremap", Call::Mremap { map: M0, len: PAGE };
    Mprotect = "mprotect", Call::Mprotect { map: M0, prot: Prot::READ };
    Load = "load", Call::Load { map: M0, offset: 0, len: 8 };
    Store = "store", Call::Store { map: M0, offset: 0, len: 8 };
    Msync = "msync", Call::Msync { map: M0, offset: 0, len: PAGE, flags: MsyncFlags::SYNC };
    Madvise = "madvise", Call::Madvise { map: M0, offset: 0, len: PAGE, advice: Advice::DontNeed };
    Truncate = "truncate", Call::Truncate { path: A, len: 0 };
    Ftruncate = "ftruncate", Call::Ftruncate { file: F0, len: 0 };
    Fallocate = "fallocate", Call::Fallocate {
        file: F0, mode: FallocateMode::Allocate, offset: 0, len: PAGE,
    };
    Ficlone = "ficlone", Call::Ficlone { dst: F1, src: F0 };
    Ficlonerange = "ficlonerange", Call::Ficlonerange {
        dst: F1, dst_offset: 0, src: F0, src_offset: 0, len: PAGE,
    };
    Fideduperange = "fideduperange", Call::Fideduperange {
        src: F0, src_offset: 0, len: PAGE, dst: F1, dst_offset: 0,
    };
    CopyFileRange = "copy_file_range", Call::CopyFileRange {
        src: F0, src_offset: 0, dst: F1, dst_offset: 0, len: PAGE,
    };
    Sendfile = "sendfile", Call::Sendfile { dst: F1, src: F0, src_offset: 0, len: PAGE };
    Pipe = "pipe", Call::Pipe { slot: P0 };
    SpliceToPipe = "splice", Call::SpliceToPipe { file: F0, offset: 0, pipe: P0, len: PAGE };
    SpliceFromPipe = "splice", Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: PAGE };
    Fsync = "fsync", Call::Fsync { file: F0 };
    Fdatasync = "fdatasync", Call::Fdatasync { file: F0 };
    SyncFileRange = "sync_file_range", Call::SyncFileRange {
        file: F0, offset: 0, len: PAGE, flags: SyncFileRangeFlags::WRITE,
    };
    Syncfs = "syncfs", Call::Syncfs { file: F0 };
    Statx = "statx", Call::Statx { file: F0 };
    Fiemap = "fiemap", Call::Fiemap { file: F0 };
    Fork = "fork", Call::Fork { child: 0 };
    Exit = "exit", Call::Exit;
    DropCaches = "drop_caches", Call::DropCaches;
    IoUringSetup = "io_uring_setup", Call::IoUringSetup { slot: R0, entries: 8 };
    Wait = "wait", Call::Wait { lane: Lane::Thread(1) };
    OpenGate = "open", Call::OpenGate {
        slot: F0, gate: GateSlot::DM, access: Access::ReadWrite, flags: OpenFlags::DIRECT,
    };
    Hold = "hold", Call::Hold { gate: GateSlot::DM };
    Release = "release", Call::Release { gate: GateSlot::DM, settle: Settle::Complete };
    Vmsplice = "vmsplice", Call::Vmsplice { map: M0, offset: 0, pipe: P0, len: PAGE };
    Tee = "tee", Call::Tee { src: P0, dst: PipeSlot(1), len: PAGE };
    ReadPipe = "read", Call::ReadPipe { pipe: P0, buf: ANON, len: PAGE };
    ClosePipe = "close", Call::ClosePipe { pipe: P0 };
    ProcessVmReadv = "process_vm_readv", Call::ProcessVmReadv {
        map: M0, offset: 0, gate: GateSlot::MEMORY, len: PAGE,
    };
    ProcessVmWritev = "process_vm_writev", Call::ProcessVmWritev {
        map: M0, offset: 0, gate: GateSlot::MEMORY, len: PAGE,
    };
    ProcMemPread = "proc_mem_pread", Call::ProcMemPread { map: M0, offset: 0, len: PAGE };
    ProcMemPwrite = "proc_mem_pwrite", Call::ProcMemPwrite { map: M0, offset: 0, len: PAGE };
    RegisterBuffers = "register_buffers", Call::RegisterBuffers {
        ring: R0, map: M0, offset: 0, len: PAGE,
    };
    UpdateBuffers = "update_buffers", Call::UpdateBuffers {
        ring: R0, map: M0, offset: 0, len: PAGE,
    };
    CloneBuffers = "clone_buffers", Call::CloneBuffers { ring: RingSlot(1), src: R0 };
    UnregisterBuffers = "unregister_buffers", Call::UnregisterBuffers { ring: R0 };
    CloseRing = "close", Call::CloseRing { ring: R0 };
    Setlease = "setlease", Call::Setlease { file: F0, lease: Lease::Read };
    Getlease = "getlease", Call::Getlease { file: F0 };
    Setsig = "setsig", Call::Setsig { file: F0, notice: Notice::Rt1 };
    SetownEx = "setown_ex", Call::SetownEx {
        file: F0, kind: OwnerKind::Tid, lane: Lane::Thread(0),
    };
    OnBreak = "on_break", Call::OnBreak { answer: Lease::Unlock };
    LeaseBreakTime = "lease_break_time", Call::LeaseBreakTime { seconds: 1 };
    Kill = "kill", Call::Kill { lane: Lane::Child(0) };
    Interrupt = "interrupt", Call::Interrupt { lane: Lane::Thread(1) };
    SendFd = "send_fd", Call::SendFd { file: F0 };
    RecvFd = "recv_fd", Call::RecvFd { slot: F1 };
    RegMr = "ibv_reg_mr", Call::RegMr {
        slot: X0, map: M0, offset: 0, len: PAGE, access: RegionAccess::Read,
    };
    DeregMr = "ibv_dereg_mr", Call::DeregMr { region: X0 };
    PinLongtermTestStart = "pin_longterm_test_start", Call::PinLongtermTestStart {
        buf: Buf::Map(M0, 0), len: PAGE, flags: PinFlags(0),
    };
    PinLongtermTestRead = "pin_longterm_test_read", Call::PinLongtermTestRead;
    PinLongtermTestStop = "pin_longterm_test_stop", Call::PinLongtermTestStop;
    PinBasicTest = "pin_basic_test", Call::PinBasicTest {
        map: M0, offset: 0, len: PAGE, flags: PinFlags(0),
    };
    RdmaWrite = "rdma_write", Call::RdmaWrite {
        local: X0, from: 0, remote: RegionSlot(1), to: 0, len: PAGE,
    };
    RdmaRead = "rdma_read", Call::RdmaRead {
        local: X0, to: 0, remote: RegionSlot(1), from: 0, len: PAGE,
    };
}

/// A slot of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// An open file.
    File(FileSlot),
    /// A mapping.
    Map(MapSlot),
    /// A pipe.
    Pipe(PipeSlot),
    /// An io_uring.
    Ring(RingSlot),
    /// An RDMA memory region.
    Region(RegionSlot),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::File(slot) => slot.fmt(f),
            Slot::Map(slot) => slot.fmt(f),
            Slot::Pipe(slot) => slot.fmt(f),
            Slot::Ring(slot) => slot.fmt(f),
            Slot::Region(slot) => slot.fmt(f),
        }
    }
}

/// How a call treats the memory of its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The call stores into its buffers, as read(2) does.
    IntoBuffer,
    /// The call loads from its buffers, as write(2) does.
    FromBuffer,
}

impl CallKind {
    /// Whether the call has a form as an io_uring request.
    pub const fn has_ring_form(self) -> bool {
        matches!(
            self,
            CallKind::Fallocate
                | CallKind::Ftruncate
                | CallKind::SpliceToPipe
                | CallKind::SpliceFromPipe
                | CallKind::Madvise
        ) || self.has_aio_form()
    }

    /// Whether the call has a form as a request of io_submit(2).
    pub const fn has_aio_form(self) -> bool {
        matches!(
            self,
            CallKind::Pread
                | CallKind::Pwrite
                | CallKind::Preadv
                | CallKind::Pwritev
                | CallKind::Fsync
                | CallKind::Fdatasync
        )
    }

    /// Whether the next line may start before this call has returned. `fork`, `exit` and `io_uring_setup` say which lanes and
    /// rings there are, which later lines must know; a `wait` that nobody waits for says nothing; and what holds or hits other lanes does so at a
    /// certain place of the program.
    pub const fn can_detach(self) -> bool {
        !matches!(
            self,
            CallKind::Fork
                | CallKind::Exit
                | CallKind::IoUringSetup
                | CallKind::Wait
                | CallKind::Hold
                | CallKind::Release
                | CallKind::OnBreak
                | CallKind::LeaseBreakTime
                | CallKind::Kill
                | CallKind::Interrupt
        )
    }

    /// Whether it is a call of gup_test.
    pub const fn is_gup_test(self) -> bool {
        matches!(
            self,
            CallKind::PinLongtermTestStart
                | CallKind::PinLongtermTestRead
                | CallKind::PinLongtermTestStop
                | CallKind::PinBasicTest
        )
    }

    /// What the call does to the memory of its buffers, if it takes buffers.
    pub const fn direction(self) -> Option<Direction> {
        match self {
            CallKind::Pread | CallKind::Preadv | CallKind::Readv | CallKind::ReadPipe => {
                Some(Direction::IntoBuffer)
            }
            CallKind::Pwrite | CallKind::Pwritev | CallKind::Writev => Some(Direction::FromBuffer),
            _ => None,
        }
    }
}

impl Call {
    /// The name in the text form, which is the system call's own.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The buffers with their lengths, in the order of the text form.
    pub fn buffers(&self) -> impl Iterator<Item = (Buf, u64)> + '_ {
        let one = match self {
            Call::Pread { buf, len, .. }
            | Call::Pwrite { buf, len, .. }
            | Call::ReadPipe { buf, len, .. } => Some((*buf, *len)),
            _ => None,
        };
        let many: &[(Buf, u64)] = match self {
            Call::Preadv { iov, .. }
            | Call::Pwritev { iov, .. }
            | Call::Readv { iov, .. }
            | Call::Writev { iov, .. } => iov,
            _ => &[],
        };
        one.into_iter().chain(many.iter().copied())
    }

    /// The slot that the call fills when it succeeds.
    pub fn fills(&self) -> Option<Slot> {
        match self {
            Call::Open { slot, .. }
            | Call::Dup { slot, .. }
            | Call::OpenGate { slot, .. }
            | Call::RecvFd { slot } => Some(Slot::File(*slot)),
            Call::Mmap { slot, .. } => Some(Slot::Map(*slot)),
            Call::Pipe { slot } => Some(Slot::Pipe(*slot)),
            Call::IoUringSetup { slot, .. } => Some(Slot::Ring(*slot)),
            Call::RegMr { slot, .. } => Some(Slot::Region(*slot)),
            _ => None,
        }
    }

    /// The slots that the call uses (not the one that it fills), in the order of the text form.
    pub fn uses(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        let push_buf = |slots: &mut Vec<Slot>, buf: &Buf| {
            if let Buf::Map(map, _) = buf {
                slots.push(Slot::Map(*map));
            }
        };
        self.clone().visit(&mut |arg| match arg {
            Arg::File(slot) => slots.push(Slot::File(*slot)),
            Arg::Map(slot) | Arg::MapAt(slot, _) => slots.push(Slot::Map(*slot)),
            Arg::Pipe(slot) => slots.push(Slot::Pipe(*slot)),
            Arg::Ring(slot) => slots.push(Slot::Ring(*slot)),
            Arg::Region(slot) | Arg::RegionAt(slot, _) => slots.push(Slot::Region(*slot)),
            Arg::Buf(buf) => push_buf(&mut slots, buf),
            Arg::Iov(iov) => iov.iter().for_each(|(buf, _)| push_buf(&mut slots, buf)),
            _ => {}
        });
        slots
    }

    /// The paths that the call names, in the order of the text form.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        let (first, second) = match self {
            Call::Open { path, .. } | Call::Unlink { path } | Call::Truncate { path, .. } => {
                (Some(*path), None)
            }
            Call::Rename { from, to } | Call::Link { from, to } => (Some(*from), Some(*to)),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl Program {
    /// Whether there are calls that may pin pages for longer than a moment: then the kernel's counters are looked at around the run.
    pub fn may_pin(&self) -> bool {
        self.lines.iter().any(|line| match line.call {
            Call::Open { flags, .. } => flags.has(OpenFlags::DIRECT),
            Call::OpenGate { .. }
            | Call::Vmsplice { .. }
            | Call::Tee { .. }
            | Call::ProcessVmReadv { .. }
            | Call::ProcessVmWritev { .. }
            | Call::ProcMemPread { .. }
            | Call::ProcMemPwrite { .. }
            | Call::RegisterBuffers { .. }
            | Call::RegMr { .. }
            | Call::PinLongtermTestStart { .. }
            | Call::PinBasicTest { .. }
            | Call::UpdateBuffers { .. } => true,
            _ => false,
        })
    }

    /// Whether there are calls of gup_test.
    pub fn uses_gup_test(&self) -> bool {
        self.lines.iter().any(|line| line.call.kind().is_gup_test())
    }
}

impl Line {
    /// A line that issues the call as a plain system call and waits for it.
    pub const fn new(lane: Lane, call: Call) -> Line {
        Line { lane, call, via: None, aio: false, delay_us: 0, detached: false }
    }

    /// The slots that the line uses: those of its call, then the ring it is issued through.
    pub fn uses(&self) -> Vec<Slot> {
        let mut slots = self.call.uses();
        slots.extend(self.via.map(|via| Slot::Ring(via.ring)));
        slots
    }
}
