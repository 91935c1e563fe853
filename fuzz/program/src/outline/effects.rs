//! What the calls probably do to slots, names, sizes, pipes and gates.

use super::{Mapping, OpenFile, Outline, PIPE_BUFFERS, Piece, PipeFill, Registered, Ring, Space};
use crate::{
    Access, Buf, CHILDREN_MAX, Call, CallId, FallocateMode, FileSlot, GATE_SIZE, GATES_MAX,
    GateSlot, Lane, Lease, Line, Mount, OpenFlags, PAGE, PIPES_MAX, Path, PinSource,
};

impl Outline {
    /// The line has its effect: what it waited for, if anything, is gone.
    pub(super) fn take_effect(&mut self, id: CallId, line: &Line) {
        self.effect(id, line);
        if matches!(
            line.call.kind(),
            crate::CallKind::Open
                | crate::CallKind::OpenGate
                | crate::CallKind::Close
                | crate::CallKind::Dup
                | crate::CallKind::Mmap
                | crate::CallKind::Munmap
                | crate::CallKind::Exit
                | crate::CallKind::Kill
                | crate::CallKind::RecvFd
        ) {
            self.drop_leases();
        }
    }

    fn effect(&mut self, id: CallId, line: &Line) {
        let lane = line.lane;
        match &line.call {
            Call::Open { slot, path, access, flags } => {
                self.open(lane, *slot, *path, *access, *flags)
            }
            Call::Close { file } => *self.file_mut(lane, *file) = None,
            Call::Dup { slot, file } => {
                if let Some(file) = self.file(lane, *file) {
                    *self.file_mut(lane, *slot) = Some(file);
                }
            }
            Call::Unlink { path } => *self.name_mut(*path) = None,
            Call::Rename { from, to } if from.mount == to.mount && from != to => {
                if let Some(inode) = self.name_mut(*from).take() {
                    *self.name_mut(*to) = Some(inode);
                }
            }
            Call::Link { from, to } if from.mount == to.mount => {
                let inode = self.lookup(*from);
                let name = self.name_mut(*to);
                *name = name.or(inode);
            }
            Call::Pwrite { file, offset, len, .. } => {
                self.grow(self.file(lane, *file), offset.saturating_add(*len));
            }
            Call::Pwritev { file, offset, iov } => {
                let len = iov.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
                self.grow(self.file(lane, *file), offset.saturating_add(len));
            }
            Call::Writev { file, iov } => {
                let len = iov.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
                self.grow(self.file(lane, *file), len);
            }
            Call::Mmap { slot, file, offset, len, prot, sharing, .. } => {
                if let Some(file) = self.file(lane, *file) {
                    *self.map_mut(lane, *slot) = Some(Mapping {
                        inode: file.inode,
                        offset: *offset,
                        len: *len,
                        prot: *prot,
                        sharing: *sharing,
                        writable_file: file.can_write(),
                        description: file.description,
                    });
                }
            }
            Call::Munmap { map } => *self.map_mut(lane, *map) = None,
            Call::Mremap { map, len } => {
                if let Some(mapping) = self.map_mut(lane, *map) {
                    mapping.len = *len;
                }
            }
            Call::Mprotect { map, prot } => {
                if let Some(mapping) = self.map_mut(lane, *map) {
                    mapping.prot = *prot;
                }
            }
            Call::Truncate { path, len } => {
                if let Some(inode) = self.lookup(*path) {
                    self.inodes[inode].size = *len;
                }
            }
            Call::Ftruncate { file, len } => {
                if let Some(file) = self.file(lane, *file).filter(OpenFile::can_write) {
                    self.inodes[file.inode].size = *len;
                }
            }
            Call::Fallocate { file, mode, offset, len } => {
                let file = self.file(lane, *file);
                self.fallocate(file, *mode, *offset, *len);
            }
            Call::Ficlone { dst, src } => {
                if let Some(src) = self.file(lane, *src) {
                    let size = self.size_of(&src);
                    self.grow(self.file(lane, *dst), size);
                }
            }
            Call::Ficlonerange { dst, dst_offset, src, src_offset, len } => {
                let wanted = if *len == 0 { u64::MAX } else { *len };
                let len = self.available(self.file(lane, *src), *src_offset, wanted);
                self.grow(self.file(lane, *dst), dst_offset.saturating_add(len));
            }
            Call::CopyFileRange { src, src_offset, dst, dst_offset, len } => {
                let len = self.available(self.file(lane, *src), *src_offset, *len);
                self.grow(self.file(lane, *dst), dst_offset.saturating_add(len));
            }
            Call::Sendfile { dst, src, src_offset, len } => {
                let len = self.available(self.file(lane, *src), *src_offset, *len);
                self.grow(self.file(lane, *dst), len);
            }
            Call::Pipe { slot } => {
                self.pipes.push(PipeFill::default());
                let index = self.pipes.len() - 1;
                self.spaces[Outline::space_index(lane)].pipes[usize::from(slot.0 % PIPES_MAX)] =
                    Some(index);
                self.drop_pipes();
            }
            Call::SpliceToPipe { file, offset, pipe, len } => {
                let open = self.file(lane, *file);
                let len = self.available(open, *offset, *len);
                if let (Some(open), Some(pipe)) = (open, self.pipe_index(lane, *pipe)) {
                    let room = PIPE_BUFFERS.saturating_sub(self.pipes[pipe].buffers) * PAGE;
                    let bytes = len.min(room);
                    // Of a DAX file, and past the page cache, it is a copy that travels.
                    let direct = open.flags.has(OpenFlags::DIRECT);
                    let copies = direct || self.inodes[open.inode].is_dax();
                    let of = (!copies).then_some((open.inode, PinSource::Splice));
                    let piece = Piece { bytes, of, taken: id, space: Outline::space_index(lane) };
                    self.fill_pipe(pipe, Outline::buffers_for(*offset, bytes), piece);
                }
            }
            Call::SpliceFromPipe { pipe, file, offset, len } => {
                let file = self.file(lane, *file).filter(|file| file.can_write());
                if let (Some(file), Some(pipe)) = (file, self.pipe_index(lane, *pipe)) {
                    let len = self.drain_pipe(pipe, *len);
                    self.grow(Some(file), offset.saturating_add(len));
                }
            }
            Call::ReadPipe { pipe, len, .. } => {
                if let Some(pipe) = self.pipe_index(lane, *pipe) {
                    self.drain_pipe(pipe, *len);
                }
            }
            Call::Vmsplice { map, offset, pipe, len } => {
                if let (Some(mapping), Some(pipe)) =
                    (self.map(lane, *map), self.pipe_index(lane, *pipe))
                {
                    let room = PIPE_BUFFERS.saturating_sub(self.pipes[pipe].buffers) * PAGE;
                    let bytes = (*len).min(room).min(mapping.len.saturating_sub(*offset));
                    let of = Some((mapping.inode, PinSource::Vmsplice));
                    let piece = Piece { bytes, of, taken: id, space: Outline::space_index(lane) };
                    self.fill_pipe(pipe, Outline::buffers_for(*offset, bytes), piece);
                }
            }
            Call::Tee { src, dst, len } => {
                if let (Some(src), Some(dst)) =
                    (self.pipe_index(lane, *src), self.pipe_index(lane, *dst))
                    && src != dst
                {
                    let mut left = *len;
                    for mut piece in self.pipes[src].pieces.clone() {
                        let room = PIPE_BUFFERS.saturating_sub(self.pipes[dst].buffers) * PAGE;
                        piece.bytes = piece.bytes.min(left).min(room);
                        left -= piece.bytes;
                        piece.of = piece.of.map(|(inode, _)| (inode, PinSource::Tee));
                        (piece.taken, piece.space) = (id, Outline::space_index(lane));
                        self.fill_pipe(dst, piece.bytes.div_ceil(PAGE), piece);
                    }
                }
            }
            Call::ClosePipe { pipe } => {
                let space = &mut self.spaces[Outline::space_index(lane)];
                space.pipes[usize::from(pipe.0 % PIPES_MAX)] = None;
                self.drop_pipes();
            }
            Call::Fork { child } => {
                let child = usize::from(child % CHILDREN_MAX);
                let mut space = self.space(lane).clone();
                space.rings = Default::default();
                space.regions = Default::default();
                self.spaces[1 + child] = space;
                (self.forked[child], self.alive[child]) = (true, true);
            }
            Call::Exit => {
                if let Lane::Child(child) = lane {
                    self.end_child(child);
                }
            }
            Call::Kill { lane: Lane::Child(child) } => {
                self.forget_lane(Lane::Child(*child));
                self.end_child(*child);
            }
            Call::IoUringSetup { slot, .. } => {
                self.end_ring(lane, slot.0);
                *self.ring_mut(lane, *slot) = Some(Ring::default());
            }
            Call::CloseRing { ring } => {
                self.end_ring(lane, ring.0);
                *self.ring_mut(lane, *ring) = None;
            }
            Call::RegisterBuffers { ring, map, offset, len } => {
                if self.map(lane, *map).is_some()
                    && *len > 0
                    && let Some(ring) = self.ring_mut(lane, *ring)
                {
                    let registered = Registered { map: *map, offset: *offset, len: *len };
                    ring.registered.get_or_insert(registered);
                }
            }
            Call::UpdateBuffers { ring, map, offset, len } => {
                if self.map(lane, *map).is_some()
                    && *len > 0
                    && let Some(ring) = self.ring_mut(lane, *ring)
                    && let Some(registered) = &mut ring.registered
                {
                    *registered = Registered { map: *map, offset: *offset, len: *len };
                }
            }
            Call::CloneBuffers { ring, src } => {
                let shared = self.ring_mut(lane, *src).and_then(|src| src.registered);
                if let Some(ring) = self.ring_mut(lane, *ring) {
                    ring.registered = ring.registered.or(shared);
                }
            }
            Call::UnregisterBuffers { ring } => {
                self.end_ring(lane, ring.0);
                if let Some(ring) = self.ring_mut(lane, *ring) {
                    ring.registered = None;
                }
            }
            Call::RegMr { slot, map, len, access, .. } => {
                let there = self.map(lane, *map).is_some() && *len > 0;
                let region = there.then_some((*len, *access == crate::RegionAccess::Write));
                *self.region_mut(lane, *slot) = region;
            }
            Call::DeregMr { region } => {
                self.end_region(lane, region.0);
                *self.region_mut(lane, *region) = None;
            }
            Call::PinLongtermTestStart { buf, len, .. } => {
                let there = match buf {
                    Buf::Anon(_) => true,
                    Buf::Map(map, _) => self.map(lane, *map).is_some(),
                };
                self.tested |= there && *len > 0;
            }
            Call::PinLongtermTestStop => {
                self.drop_holds(|hold| hold.until == super::references::Until::Stopped);
                self.tested = false;
            }
            Call::OpenGate { slot, gate, access, flags } => {
                self.open_gate(lane, *slot, *gate, *access, *flags);
            }
            Call::Hold { gate } => self.held[usize::from(gate.0 % GATES_MAX)] = true,
            Call::Release { gate, .. } => {
                self.held[usize::from(gate.0 % GATES_MAX)] = false;
                self.drop_holds(|hold| hold.until == super::references::Until::Released(*gate));
            }
            Call::Setlease { file, lease } => {
                if let Some(file) = self.file(lane, *file) {
                    self.setlease(id, lane, file, *lease);
                }
            }
            Call::LeaseBreakTime { seconds } => self.break_time = *seconds,
            Call::OnBreak { answer } => {
                let answer = Some(*answer).filter(|answer| *answer != Lease::Layout);
                self.spaces[Outline::space_index(lane)].answer = answer;
            }
            Call::SendFd { file } => {
                let file = self.file(lane, *file);
                self.socket.extend(file);
            }
            Call::RecvFd { slot } => {
                if let Some(file) = self.socket.pop_front() {
                    *self.file_mut(lane, *slot) = Some(file);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, lane: Lane, slot: FileSlot, path: Path, access: Access, flags: OpenFlags) {
        let inode = match self.lookup(path) {
            Some(_) if flags.has(OpenFlags::CREAT) && flags.has(OpenFlags::EXCL) => return,
            Some(inode) => inode,
            None if flags.has(OpenFlags::CREAT) => self.new_inode(path.mount, 0, None),
            None => return,
        };
        *self.name_mut(path) = Some(inode);
        // Only one that does not wait comes here while a lease is in the way.
        if self.conflicts(inode, access != Access::ReadOnly) {
            return;
        }
        if flags.has(OpenFlags::TRUNC) {
            self.inodes[inode].size = 0;
        }
        let description = self.describe(inode, access);
        *self.file_mut(lane, slot) = Some(OpenFile { inode, access, flags, description });
    }

    fn new_inode(&mut self, mount: Mount, size: u64, gate: Option<GateSlot>) -> usize {
        self.inodes.push(super::Inode { mount, size, gate });
        self.inodes.len() - 1
    }

    fn open_gate(
        &mut self,
        lane: Lane,
        slot: FileSlot,
        gate: GateSlot,
        access: Access,
        flags: OpenFlags,
    ) {
        let known = self.inodes.iter().position(|inode| inode.gate == Some(gate));
        let inode = known.unwrap_or_else(|| self.new_inode(Mount::Ext4, GATE_SIZE, Some(gate)));
        let description = self.describe(inode, access);
        *self.file_mut(lane, slot) = Some(OpenFile { inode, access, flags, description });
    }

    fn end_ring(&mut self, lane: Lane, ring: u8) {
        let until = super::references::Until::Unregistered(Outline::space_index(lane), ring);
        self.drop_holds(|hold| hold.until == until);
    }

    pub(super) fn end_region(&mut self, lane: Lane, region: u8) {
        let space = Outline::space_index(lane);
        let until = super::references::Until::Deregistered(space, region % crate::REGIONS_MAX);
        self.drop_holds(|hold| hold.until == until);
    }

    /// Everything that a child had is closed. What a device still does for it goes on.
    fn end_child(&mut self, child: u8) {
        let index = usize::from(child % CHILDREN_MAX);
        for ring in 0..crate::RINGS_MAX {
            self.end_ring(Lane::Child(child), ring);
        }
        for region in 0..crate::REGIONS_MAX {
            self.end_region(Lane::Child(child), region);
        }
        self.spaces[1 + index] = Space::default();
        self.alive[index] = false;
        self.drop_pipes();
    }

    fn fallocate(&mut self, file: Option<OpenFile>, mode: FallocateMode, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let Some(file) = file.filter(OpenFile::can_write) else { return };
        let size = &mut self.inodes[file.inode].size;
        let whole_pages = offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        match mode {
            FallocateMode::Allocate | FallocateMode::ZeroRange => *size = (*size).max(end),
            FallocateMode::CollapseRange if whole_pages && end < *size => *size -= len,
            FallocateMode::InsertRange if whole_pages && offset < *size => {
                *size = size.saturating_add(len);
            }
            _ => {}
        }
    }
}
