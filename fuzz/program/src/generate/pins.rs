//! Makes one call of the kinds that hold and lease, wherever a program has what they need.
//!
//! Programs that are about holding and leasing are written by `held` and `leases`; here the same calls come up anywhere.

use super::Writer;
use super::calls::Use;
use crate::outline::Ring;
use crate::{
    Access, Buf, Call, CallKind, GATE_MEMORY, GateSlot, Lane, Lease, OpenFlags, OwnerKind, PAGE,
    PinFlags, PipeSlot, Prot, REGIONS_MAX, RegionAccess, RegionSlot, RingSlot, Settle,
};

impl Writer<'_, '_> {
    /// The kind itself where there is what it needs, or what must come first.
    pub(super) fn settle_pin(&mut self, kind: CallKind, lane: Lane) -> CallKind {
        use CallKind as K;
        let space = self.outline.space(lane);
        let has_file = space.files.iter().any(Option::is_some);
        let has_map = space.maps.iter().any(Option::is_some);
        let rings = space.rings.iter().flatten().count();
        let has_ring = rings > 0;
        let registered = space.rings.iter().flatten().any(|ring| ring.registered.is_some());
        let full = space.pipes.iter().flatten().any(|pipe| self.outline.pipes[*pipe].bytes > 0);
        let pipes = space.pipes.iter().flatten().count();
        match kind {
            K::OpenGate | K::LeaseBreakTime | K::OnBreak => kind,
            // Children have no memory gate.
            K::ProcessVmReadv | K::ProcessVmWritev if matches!(lane, Lane::Child(_)) => {
                if has_map {
                    K::ProcMemPread
                } else {
                    K::Fsync
                }
            }
            // Whoever is to be hit must be there.
            K::Kill if self.outline.alive.contains(&true) => kind,
            K::Interrupt if self.shape.threads > 1 => kind,
            K::Kill | K::Interrupt => K::Fsync,
            K::Hold if !self.has_device(lane) => K::OpenGate,
            K::Hold | K::Release => kind,
            K::RecvFd if self.outline.socket.is_empty() => K::SendFd,
            // Mostly where there is something to see, or to end.
            K::PinLongtermTestStart if self.outline.tested && self.dice.chance(70) => {
                K::PinLongtermTestRead
            }
            K::PinLongtermTestRead | K::PinLongtermTestStop
                if !self.outline.tested && self.dice.chance(80) =>
            {
                K::PinLongtermTestStart
            }
            K::PinLongtermTestStart | K::PinLongtermTestRead | K::PinLongtermTestStop => kind,
            _ if !has_file => K::Open,
            K::Vmsplice
            | K::ProcessVmReadv
            | K::ProcessVmWritev
            | K::RegisterBuffers
            | K::RegMr
            | K::UpdateBuffers
            | K::ProcMemPread
            | K::ProcMemPwrite
            | K::PinBasicTest
                if !has_map =>
            {
                K::Mmap
            }
            K::Vmsplice | K::Tee | K::ReadPipe | K::ClosePipe if pipes == 0 => K::Pipe,
            K::Vmsplice if self.roomy_pipe(lane).is_none() => K::ReadPipe,
            K::Tee if pipes < 2 => K::Pipe,
            K::Tee | K::ReadPipe if !full && !has_map => K::SpliceToPipe,
            K::Tee | K::ReadPipe if !full => K::Vmsplice,
            K::RegisterBuffers | K::UpdateBuffers | K::UnregisterBuffers | K::CloseRing
                if !has_ring =>
            {
                K::IoUringSetup
            }
            // Both ends, one of which may be written to, mostly.
            K::RdmaWrite | K::RdmaRead if space.regions.iter().flatten().count() < 2 => {
                if has_map {
                    K::RegMr
                } else {
                    K::Mmap
                }
            }
            K::RegMr | K::DeregMr
                if space.regions.iter().all(Option::is_some) && self.dice.chance(50) =>
            {
                self.dice.pick(&[K::RdmaWrite, K::RdmaRead])
            }
            K::DeregMr if space.regions.iter().all(Option::is_none) => {
                if has_map {
                    K::RegMr
                } else {
                    K::Mmap
                }
            }
            K::RegMr if space.regions.iter().any(Option::is_some) && self.dice.chance(30) => {
                K::DeregMr
            }
            K::CloneBuffers if rings < 2 => K::IoUringSetup,
            // There is something to replace or to share, mostly.
            K::UpdateBuffers | K::CloneBuffers if !registered && has_map => K::RegisterBuffers,
            _ => kind,
        }
    }

    fn has_device(&self, lane: Lane) -> bool {
        let files = self.outline.space(lane).files;
        files.iter().flatten().any(|file| self.outline.inodes[file.inode].gate.is_some())
    }

    /// A pipe with room for a few pages.
    fn roomy_pipe(&self, lane: Lane) -> Option<(PipeSlot, u64)> {
        let pipes = self.outline.space(lane).pipes;
        let rooms = (0..).zip(pipes).filter_map(|(n, pipe)| {
            let taken = self.outline.pipes[pipe?].buffers;
            Some((PipeSlot(n), (crate::outline::PIPE_BUFFERS - taken).div_ceil(2)))
        });
        rooms.max_by_key(|(_, room)| *room).filter(|(_, room)| *room > 1)
    }

    /// A pipe that holds something, and how many bytes.
    fn full_pipe(&mut self, lane: Lane) -> Option<(PipeSlot, u64)> {
        let pipes = self.outline.space(lane).pipes;
        let full: Vec<(PipeSlot, u64)> = (0..)
            .zip(pipes)
            .filter_map(|(n, pipe)| Some((PipeSlot(n), self.outline.pipes[pipe?].bytes)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        self.dice.pick_some(&full)
    }

    fn some_ring(&mut self, lane: Lane, suits: impl Fn(&Ring) -> bool) -> RingSlot {
        let rings = self.outline.space(lane).rings;
        let fit: Vec<u8> = (0..)
            .zip(rings)
            .filter(|(_, r)| r.as_ref().is_some_and(&suits))
            .map(|(n, _)| n)
            .collect();
        RingSlot(self.dice.pick_some(&fit).unwrap_or(0))
    }

    /// A call of that kind. If a slot that it needs is empty, it names the empty slot.
    pub(super) fn pin_call(&mut self, kind: CallKind, lane: Lane) -> Call {
        use CallKind as K;
        match kind {
            K::OpenGate => Call::OpenGate {
                slot: self.new_file(lane),
                gate: self.dice.pick(&[GateSlot::DM, GateSlot::UBLK]),
                access: self.dice.pick(&[Access::ReadWrite, Access::ReadWrite, Access::ReadOnly]),
                flags: OpenFlags::DIRECT,
            },
            K::Hold => Call::Hold {
                gate: self.dice.pick(&[GateSlot::DM, GateSlot::UBLK, GateSlot::MEMORY]),
            },
            K::Release => {
                let gates = [GateSlot::DM, GateSlot::UBLK, GateSlot::MEMORY];
                let held: Vec<GateSlot> =
                    gates.into_iter().filter(|g| self.outline.held[usize::from(g.0)]).collect();
                let gate = self.dice.pick_some(&held).unwrap_or(GateSlot::DM);
                let (_, settle) = self.dice.pick(Settle::NAMES);
                Call::Release { gate, settle }
            }
            K::Vmsplice => {
                let (map, mapping) = self.map(lane, Prot::READ);
                let (pipe, room) = self.roomy_pipe(lane).unwrap_or((PipeSlot(0), 1));
                let (offset, len) = self.map_pages(mapping);
                Call::Vmsplice { map, offset, pipe, len: len.min(room * PAGE) }
            }
            K::Tee => {
                let (src, bytes) = self.full_pipe(lane).unwrap_or((PipeSlot(0), PAGE));
                let roomy = self.roomy_pipe(lane).filter(|(pipe, _)| *pipe != src);
                let (dst, room) = roomy.unwrap_or((PipeSlot(1), 1));
                Call::Tee { src, dst, len: bytes.min(room * PAGE) }
            }
            K::ReadPipe => {
                let (pipe, bytes) = self.full_pipe(lane).unwrap_or((PipeSlot(0), PAGE));
                let len = if self.dice.chance(40) { self.len(1).clamp(1, bytes) } else { bytes };
                let (buf, len) = self.buf(lane, true, 1, len);
                Call::ReadPipe { pipe, buf, len }
            }
            K::ClosePipe => {
                let pipes = self.outline.space(lane).pipes;
                let open: Vec<u8> =
                    (0..).zip(pipes).filter(|(_, p)| p.is_some()).map(|(n, _)| n).collect();
                Call::ClosePipe { pipe: PipeSlot(self.dice.pick_some(&open).unwrap_or(0)) }
            }
            K::ProcessVmReadv | K::ProcessVmWritev | K::ProcMemPread | K::ProcMemPwrite => {
                let into = matches!(kind, K::ProcessVmWritev | K::ProcMemPwrite);
                let (map, mapping) = self.map(lane, if into { Prot::WRITE } else { Prot::READ });
                let (offset, len) = self.map_access(mapping);
                let (gate, short) = (GateSlot::MEMORY, len.min(GATE_MEMORY));
                match kind {
                    K::ProcessVmReadv => Call::ProcessVmReadv { map, offset, gate, len: short },
                    K::ProcessVmWritev => Call::ProcessVmWritev { map, offset, gate, len: short },
                    K::ProcMemPread => Call::ProcMemPread { map, offset, len },
                    _ => Call::ProcMemPwrite { map, offset, len },
                }
            }
            K::RegisterBuffers => {
                let ring = self.some_ring(lane, |ring| ring.registered.is_none());
                let (map, mapping) = self.map(lane, Prot::WRITE);
                let (offset, len) = self.map_pages(mapping);
                Call::RegisterBuffers { ring, map, offset, len }
            }
            K::UpdateBuffers => {
                let ring = self.some_ring(lane, |ring| ring.registered.is_some());
                let (map, mapping) = self.map(lane, Prot::WRITE);
                let (offset, len) = self.map_pages(mapping);
                Call::UpdateBuffers { ring, map, offset, len }
            }
            K::CloneBuffers => Call::CloneBuffers {
                ring: self.some_ring(lane, |ring| ring.registered.is_none()),
                src: self.some_ring(lane, |ring| ring.registered.is_some()),
            },
            K::UnregisterBuffers => Call::UnregisterBuffers {
                ring: self.some_ring(lane, |ring| ring.registered.is_some()),
            },
            K::CloseRing => Call::CloseRing { ring: self.some_ring(lane, |_| true) },
            K::RegMr => {
                let access = self.region_access();
                let (map, mapping) = self.map(lane, Prot::READ);
                let (offset, len) = match self.dice.chance(50) {
                    true => self.map_access(mapping),
                    false => self.map_pages(mapping),
                };
                Call::RegMr { slot: self.new_region(lane), map, offset, len, access }
            }
            K::DeregMr => {
                let regions = self.outline.space(lane).regions;
                let there: Vec<u8> =
                    (0..).zip(regions).filter_map(|(n, region)| region.map(|_| n)).collect();
                Call::DeregMr { region: RegionSlot(self.dice.pick_some(&there).unwrap_or(0)) }
            }
            K::RdmaWrite | K::RdmaRead => self.rdma(lane),
            K::PinLongtermTestStart => {
                let flags = self.pin_flags();
                let has_map = self.outline.space(lane).maps.iter().any(Option::is_some);
                let (buf, len) = if has_map && !self.dice.chance(15) {
                    let (map, mapping) = self.map(lane, Prot::READ);
                    let (offset, len) = self.map_pages(mapping);
                    (Buf::Map(map, offset), len)
                } else {
                    (Buf::Anon(0), self.dice.between(1, 4) * PAGE)
                };
                let len = if self.dice.chance(4) { len - 1 } else { len };
                Call::PinLongtermTestStart { buf, len, flags }
            }
            K::PinLongtermTestRead | K::PinLongtermTestStop => kind.template(),
            K::PinBasicTest => {
                let flags = self.pin_flags();
                let write = flags.has(PinFlags::WRITE);
                let (map, mapping) = self.map(lane, if write { Prot::WRITE } else { Prot::READ });
                let (offset, len) = self.map_pages(mapping);
                Call::PinBasicTest { map, offset, len, flags }
            }
            _ => self.lease_call(kind, lane),
        }
    }

    /// To write or not, fast or not.
    pub(in crate::generate) fn pin_flags(&mut self) -> PinFlags {
        PinFlags(self.dice.below(4) as u8)
    }

    /// A slot for a memory region: an empty one, mostly.
    pub(super) fn new_region(&mut self, lane: Lane) -> RegionSlot {
        let regions = self.outline.space(lane).regions;
        match regions.iter().position(Option::is_none) {
            Some(free) if self.dice.chance(85) => RegionSlot(free as u8),
            _ => RegionSlot(self.dice.below(u64::from(REGIONS_MAX)) as u8),
        }
    }

    /// Bytes from one region of the lane's process to another: mostly into one that may be written to.
    pub(in crate::generate) fn rdma(&mut self, lane: Lane) -> Call {
        let regions = self.outline.space(lane).regions;
        let written = regions.iter().position(|region| region.is_some_and(|(_, write)| write));
        let into = match written {
            Some(written) if !self.dice.chance(10) => written as u8,
            _ => self.dice.below(2) as u8,
        };
        let out_of = if self.dice.chance(90) { 1 - into } else { into };
        let len_of = |region: u8| regions[usize::from(region)].map_or(PAGE, |(len, _)| len);
        let mut place = |region: u8| {
            let len = len_of(region);
            match self.dice.below(4) {
                0 | 1 => 0,
                2 => self.dice.below(len.div_ceil(PAGE)) * PAGE,
                _ => self.dice.below(len),
            }
        };
        let (to, from) = (place(into), place(out_of));
        let most = (len_of(into) - to).min(len_of(out_of) - from).max(1);
        let len = if self.dice.chance(60) { most } else { self.len(1).clamp(1, most) };
        let (into, out_of) = (RegionSlot(into), RegionSlot(out_of));
        match self.dice.chance(50) {
            true => Call::RdmaWrite { local: out_of, from, remote: into, to, len },
            false => Call::RdmaRead { local: into, to, remote: out_of, from, len },
        }
    }

    pub(super) fn region_access(&mut self) -> RegionAccess {
        self.dice.pick(RegionAccess::NAMES).1
    }

    fn lease_call(&mut self, kind: CallKind, lane: Lane) -> Call {
        use CallKind as K;
        let (file, open) = self.file(lane, Use::Any);
        match kind {
            K::Setlease => {
                // What can be granted, mostly: F_RDLCK where the descriptor does not write.
                let likely = match open {
                    Some(open) if !open.can_write() => Lease::Read,
                    _ => Lease::Write,
                };
                let lease =
                    self.dice.pick(&[likely, likely, Lease::Unlock, Lease::Read, Lease::Layout]);
                Call::Setlease { file, lease }
            }
            K::Getlease => Call::Getlease { file },
            K::Setsig => Call::Setsig { file, notice: self.notice() },
            K::SetownEx => {
                let (_, owner) = self.dice.pick(OwnerKind::NAMES);
                let lanes = self.shape.lanes(&self.outline.alive);
                Call::SetownEx { file, kind: owner, lane: self.dice.pick(&lanes) }
            }
            K::OnBreak => Call::OnBreak {
                answer: self.dice.pick(&[
                    Lease::Unlock,
                    Lease::Unlock,
                    Lease::Unlock,
                    Lease::Read,
                    Lease::Read,
                    Lease::Layout,
                    Lease::Write,
                ]),
            },
            K::LeaseBreakTime => Call::LeaseBreakTime { seconds: self.dice.pick(&[1, 1, 2, 0]) },
            K::SendFd => Call::SendFd { file },
            K::RecvFd => Call::RecvFd { slot: self.new_file(lane) },
            K::Kill => {
                let child = self.outline.alive.iter().position(|alive| *alive).unwrap_or(0);
                Call::Kill { lane: Lane::Child(child as u8) }
            }
            K::Interrupt => {
                let threads = u64::from(self.shape.threads);
                let to = Lane::Thread(self.dice.below(threads) as u8);
                let to = if to == lane { Lane::Thread((self.dice.below(4)) as u8) } else { to };
                Call::Interrupt { lane: to }
            }
            _ => kind.template(),
        }
    }

    /// Buffers of a request that goes through what a ring has registered: inside of it, mostly.
    pub(super) fn fixed_buf(&mut self, lane: Lane, ring: RingSlot) -> Option<(Buf, u64)> {
        let ring = self.outline.space(lane).rings[usize::from(ring.0)]?;
        let registered = ring.registered?;
        let first = self.dice.below(registered.len / PAGE);
        let len = (self.dice.between(1, 4) * PAGE).min(registered.len - first * PAGE);
        Some((Buf::Map(registered.map, registered.offset + first * PAGE), len))
    }
}
