//! The arguments of every call, in the order of the text form, as one typed list.
//!
//! Printing, parsing, fixing and mutating are each one `match` over [`Arg`], so that a new call needs one entry here and none
//! there. It says nothing about which values make sense.

use crate::{
    Access, Advice, Buf, Call, FallocateMode, FileSlot, GateSlot, Lane, Lease, MapFlags, MapSlot,
    MsyncFlags, Notice, OpenFlags, OwnerKind, Path, PinFlags, PipeSlot, Prot, RegionAccess,
    RegionSlot, RingSlot, Settle, Sharing, SyncFileRangeFlags, Whence,
};

/// One argument of a call, or the slot that it fills.
pub(crate) enum Arg<'a> {
    /// The file slot that the call fills, written before the `=`.
    NewFile(&'a mut FileSlot),
    /// The mapping slot that the call fills.
    NewMap(&'a mut MapSlot),
    /// The pipe slot that the call fills.
    NewPipe(&'a mut PipeSlot),
    /// The ring slot that the call fills.
    NewRing(&'a mut RingSlot),
    /// The memory region slot that the call fills.
    NewRegion(&'a mut RegionSlot),
    /// The child that the call makes.
    NewChild(&'a mut u8),
    /// A file slot in use.
    File(&'a mut FileSlot),
    /// A mapping in use, as a whole.
    Map(&'a mut MapSlot),
    /// A place in a mapping.
    MapAt(&'a mut MapSlot, &'a mut u64),
    /// A pipe in use.
    Pipe(&'a mut PipeSlot),
    /// A ring in use.
    Ring(&'a mut RingSlot),
    /// A memory region in use.
    Region(&'a mut RegionSlot),
    /// A place in a memory region.
    RegionAt(&'a mut RegionSlot, &'a mut u64),
    /// A gate that is a block device.
    DeviceGate(&'a mut GateSlot),
    /// The gate that is memory.
    MemoryGate(&'a mut GateSlot),
    /// Any gate.
    Gate(&'a mut GateSlot),
    /// A file name.
    Path(&'a mut Path),
    /// An offset in a file.
    Offset(&'a mut u64),
    /// An offset in a file at which a mapping starts.
    MapOffset(&'a mut u64),
    /// The size that a file shall have.
    Size(&'a mut u64),
    /// The length of an I/O or of an access through a mapping.
    IoLen(&'a mut u64),
    /// The length of a range whose bytes do not travel.
    RangeLen(&'a mut u64),
    /// The length of a mapping.
    MapLen(&'a mut u64),
    /// A buffer.
    Buf(&'a mut Buf),
    /// Buffers with their lengths.
    Iov(&'a mut Vec<(Buf, u64)>),
    /// How a file is opened.
    Open(&'a mut Access, &'a mut OpenFlags),
    /// Protection of a mapping.
    Prot(&'a mut Prot),
    /// How a mapping is made.
    Sharing(&'a mut Sharing, &'a mut MapFlags),
    /// Flags of msync.
    Msync(&'a mut MsyncFlags),
    /// Flags of sync_file_range.
    SyncFileRange(&'a mut SyncFileRangeFlags),
    /// Mode of fallocate.
    Mode(&'a mut FallocateMode),
    /// Advice of madvise.
    Advice(&'a mut Advice),
    /// Whence of lseek.
    Whence(&'a mut Whence),
    /// Entries of a ring.
    Entries(&'a mut u8),
    /// Another lane.
    Lane(&'a mut Lane),
    /// A lease, or an answer to the break of one.
    Lease(&'a mut Lease),
    /// The signal that tells of a break.
    Notice(&'a mut Notice),
    /// What kind of owner a lane stands for.
    Owner(&'a mut OwnerKind),
    /// How a gate settles; nothing is written where it is the usual.
    Settle(&'a mut Settle),
    /// A number of seconds.
    Seconds(&'a mut u8),
    /// What a device may do to a memory region.
    RegionAccess(&'a mut RegionAccess),
    /// How gup_test pins.
    Pin(&'a mut PinFlags),
}

impl Call {
    /// Shows every argument to `f`, the filled slot first, then in the order of the text form.
    pub(crate) fn visit(&mut self, f: &mut dyn FnMut(Arg<'_>)) {
        match self {
            Call::Open { slot, path, access, flags } => {
                f(Arg::NewFile(slot));
                f(Arg::Path(path));
                f(Arg::Open(access, flags));
            }
            Call::Dup { slot, file } => {
                f(Arg::NewFile(slot));
                f(Arg::File(file));
            }
            Call::Close { file }
            | Call::Fsync { file }
            | Call::Fdatasync { file }
            | Call::Syncfs { file }
            | Call::Statx { file }
            | Call::Fiemap { file } => f(Arg::File(file)),
            Call::Unlink { path } => f(Arg::Path(path)),
            Call::Rename { from, to } | Call::Link { from, to } => {
                f(Arg::Path(from));
                f(Arg::Path(to));
            }
            Call::Pread { file, offset, buf, len } | Call::Pwrite { file, offset, buf, len } => {
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::Buf(buf));
                f(Arg::IoLen(len));
            }
            Call::Preadv { file, offset, iov } | Call::Pwritev { file, offset, iov } => {
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::Iov(iov));
            }
            Call::Readv { file, iov } | Call::Writev { file, iov } => {
                f(Arg::File(file));
                f(Arg::Iov(iov));
            }
            Call::Lseek { file, offset, whence } => {
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::Whence(whence));
            }
            Call::Mmap { slot, file, offset, len, prot, sharing, flags } => {
                f(Arg::NewMap(slot));
                f(Arg::File(file));
                f(Arg::MapOffset(offset));
                f(Arg::MapLen(len));
                f(Arg::Prot(prot));
                f(Arg::Sharing(sharing, flags));
            }
            Call::Munmap { map } => f(Arg::Map(map)),
            Call::Mremap { map, len } => {
                f(Arg::Map(map));
                f(Arg::MapLen(len));
            }
            Call::Mprotect { map, prot } => {
                f(Arg::Map(map));
                f(Arg::Prot(prot));
            }
            Call::Load { map, offset, len } | Call::Store { map, offset, len } => {
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
            }
            Call::Msync { map, offset, len, flags } => {
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
                f(Arg::Msync(flags));
            }
            Call::Madvise { map, offset, len, advice } => {
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
                f(Arg::Advice(advice));
            }
            Call::Truncate { path, len } => {
                f(Arg::Path(path));
                f(Arg::Size(len));
            }
            Call::Ftruncate { file, len } => {
                f(Arg::File(file));
                f(Arg::Size(len));
            }
            Call::Fallocate { file, mode, offset, len } => {
                f(Arg::File(file));
                f(Arg::Mode(mode));
                f(Arg::Offset(offset));
                f(Arg::RangeLen(len));
            }
            Call::Ficlone { dst, src } => {
                f(Arg::File(dst));
                f(Arg::File(src));
            }
            Call::Ficlonerange { dst, dst_offset, src, src_offset, len } => {
                f(Arg::File(dst));
                f(Arg::Offset(dst_offset));
                f(Arg::File(src));
                f(Arg::Offset(src_offset));
                f(Arg::RangeLen(len));
            }
            Call::Fideduperange { src, src_offset, len, dst, dst_offset } => {
                f(Arg::File(src));
                f(Arg::Offset(src_offset));
                f(Arg::RangeLen(len));
                f(Arg::File(dst));
                f(Arg::Offset(dst_offset));
            }
            Call::CopyFileRange { src, src_offset, dst, dst_offset, len } => {
                f(Arg::File(src));
                f(Arg::Offset(src_offset));
                f(Arg::File(dst));
                f(Arg::Offset(dst_offset));
                f(Arg::IoLen(len));
            }
            Call::Sendfile { dst, src, src_offset, len } => {
                f(Arg::File(dst));
                f(Arg::File(src));
                f(Arg::Offset(src_offset));
                f(Arg::IoLen(len));
            }
            Call::Pipe { slot } => f(Arg::NewPipe(slot)),
            Call::SpliceToPipe { file, offset, pipe, len } => {
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::Pipe(pipe));
                f(Arg::IoLen(len));
            }
            Call::SpliceFromPipe { pipe, file, offset, len } => {
                f(Arg::Pipe(pipe));
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::IoLen(len));
            }
            Call::SyncFileRange { file, offset, len, flags } => {
                f(Arg::File(file));
                f(Arg::Offset(offset));
                f(Arg::RangeLen(len));
                f(Arg::SyncFileRange(flags));
            }
            Call::Fork { child } => f(Arg::NewChild(child)),
            Call::Exit | Call::DropCaches => {}
            Call::IoUringSetup { slot, entries } => {
                f(Arg::NewRing(slot));
                f(Arg::Entries(entries));
            }
            Call::Wait { lane } | Call::Kill { lane } | Call::Interrupt { lane } => {
                f(Arg::Lane(lane));
            }
            Call::OpenGate { slot, gate, access, flags } => {
                f(Arg::NewFile(slot));
                f(Arg::DeviceGate(gate));
                f(Arg::Open(access, flags));
            }
            Call::Hold { gate } => f(Arg::Gate(gate)),
            Call::Release { gate, settle } => {
                f(Arg::Gate(gate));
                f(Arg::Settle(settle));
            }
            Call::Vmsplice { map, offset, pipe, len } => {
                f(Arg::MapAt(map, offset));
                f(Arg::Pipe(pipe));
                f(Arg::IoLen(len));
            }
            Call::Tee { src, dst, len } => {
                f(Arg::Pipe(src));
                f(Arg::Pipe(dst));
                f(Arg::IoLen(len));
            }
            Call::ReadPipe { pipe, buf, len } => {
                f(Arg::Pipe(pipe));
                f(Arg::Buf(buf));
                f(Arg::IoLen(len));
            }
            Call::ClosePipe { pipe } => f(Arg::Pipe(pipe)),
            Call::ProcessVmReadv { map, offset, gate, len }
            | Call::ProcessVmWritev { map, offset, gate, len } => {
                f(Arg::MapAt(map, offset));
                f(Arg::MemoryGate(gate));
                f(Arg::IoLen(len));
            }
            Call::ProcMemPread { map, offset, len } | Call::ProcMemPwrite { map, offset, len } => {
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
            }
            Call::RegisterBuffers { ring, map, offset, len }
            | Call::UpdateBuffers { ring, map, offset, len } => {
                f(Arg::Ring(ring));
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
            }
            Call::CloneBuffers { ring, src } => {
                f(Arg::Ring(ring));
                f(Arg::Ring(src));
            }
            Call::UnregisterBuffers { ring } | Call::CloseRing { ring } => f(Arg::Ring(ring)),
            Call::Setlease { file, lease } => {
                f(Arg::File(file));
                f(Arg::Lease(lease));
            }
            Call::Getlease { file } | Call::SendFd { file } => f(Arg::File(file)),
            Call::Setsig { file, notice } => {
                f(Arg::File(file));
                f(Arg::Notice(notice));
            }
            Call::SetownEx { file, kind, lane } => {
                f(Arg::File(file));
                f(Arg::Owner(kind));
                f(Arg::Lane(lane));
            }
            Call::OnBreak { answer } => f(Arg::Lease(answer)),
            Call::LeaseBreakTime { seconds } => f(Arg::Seconds(seconds)),
            Call::RecvFd { slot } => f(Arg::NewFile(slot)),
            Call::RegMr { slot, map, offset, len, access } => {
                f(Arg::NewRegion(slot));
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
                f(Arg::RegionAccess(access));
            }
            Call::DeregMr { region } => f(Arg::Region(region)),
            Call::PinLongtermTestStart { buf, len, flags } => {
                f(Arg::Buf(buf));
                f(Arg::IoLen(len));
                f(Arg::Pin(flags));
            }
            Call::RdmaWrite { local, from, remote, to, len } => {
                f(Arg::RegionAt(local, from));
                f(Arg::RegionAt(remote, to));
                f(Arg::IoLen(len));
            }
            Call::RdmaRead { local, to, remote, from, len } => {
                f(Arg::RegionAt(local, to));
                f(Arg::RegionAt(remote, from));
                f(Arg::IoLen(len));
            }
            Call::PinLongtermTestRead | Call::PinLongtermTestStop => {}
            Call::PinBasicTest { map, offset, len, flags } => {
                f(Arg::MapAt(map, offset));
                f(Arg::IoLen(len));
                f(Arg::Pin(flags));
            }
        }
    }
}
