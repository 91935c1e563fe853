//! Issuing the calls that hold pages on purpose, and those that let them go.

use super::{Exec, Issue, count, seen};
use crate::io::Direction;
use crate::rdma::{Region, Verbs, transfer};
use crate::record::pid;
use crate::ring::Ring;
use crate::run::Run;
use crate::slots::Handle;
use crate::sys::verbs::Opcode;
use crate::sys::{self, Span, ring as requests, uffd};
use history::bytes::signed_prefix;
use history::stamp::{CALL_POISON, sign};
use history::{Bytes, Errno, Payload, SkipReason};
use program::{Buf, Call, GATE_MEMORY, GateSlot, MapSlot, RegionAccess, RegionSlot, RingSlot};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `open("/proc/self/mem")`: of the process whose lane this is.
fn own_memory(access: OFlags) -> Issue<OwnedFd> {
    open("/proc/self/mem", access | OFlags::CLOEXEC, Mode::empty())
        .map_err(|_| SkipReason::Unsupported)
}

/// The memory gate, if it is this process's and has room.
fn memory_gate(run: &Run, len: u64) -> Issue<&uffd::Memory> {
    let memory = run.gates().memory().ok_or(SkipReason::Unsupported)?;
    if len > GATE_MEMORY { Err(SkipReason::OutOfRange) } else { Ok(memory) }
}

impl Exec<'_> {
    pub(super) fn pins(&mut self, call: &Call) -> Issue<()> {
        let run = self.run;
        match *call {
            Call::OpenGate { slot, gate, access, .. } => {
                if !run.gates().has(gate) {
                    return Err(SkipReason::Unsupported);
                }
                let opened = self.issue(|| run.gates().open(gate, access));
                let opened = opened.ok_or(SkipReason::Unsupported)?;
                let home = run.program.home;
                let result =
                    seen(opened, |fd| self.put_file(slot, Handle::of_gate(fd, home, gate)));
                self.returned(self.moment(), result, || Payload::None)
            }
            Call::Hold { gate } => {
                self.usable(gate)?;
                let control = self.recorder.control;
                if control.gates_over.load(Ordering::Acquire) != 0 {
                    // The program is over but for what the gates held.
                    return Err(SkipReason::LaneStuck);
                }
                self.plain(|| run.gates().hold(control, gate))
            }
            Call::Release { gate, settle } => {
                self.usable(gate)?;
                let control = self.recorder.control;
                self.own_wait(|it| it.plain(|| run.gates().release(control, gate, settle)))
            }
            Call::Vmsplice { map, offset, pipe, len } => {
                let span = self.part(map, offset, len)?;
                let pipe = self.pipe(pipe)?;
                self.plain(|| sys::vmsplice(pipe.write.as_fd(), span))
            }
            Call::Tee { src, dst, len } => {
                let (src, dst) = (self.pipe(src)?, self.pipe(dst)?);
                let none = rustix::pipe::SpliceFlags::empty();
                self.plain(|| count(rustix::pipe::tee(&src.read, &dst.write, len as usize, none)))
            }
            Call::ReadPipe { pipe, buf, len } => {
                let pipe = self.pipe(pipe)?;
                let part = self.place(buf, len)?;
                let transfer = self.transfer(Direction::Read, &[part])?;
                self.moved(transfer, |t| sys::read(pipe.read.as_fd(), t.span()))
            }
            Call::ClosePipe { pipe } => {
                let found = self.table().lock().take_pipe(pipe).ok_or(SkipReason::EmptySlot)?;
                self.slots.push(found.by);
                self.plain(|| {
                    let write = run.table.close(found.it.write);
                    run.table.close(found.it.read).and(write)
                })
            }
            Call::ProcessVmReadv { map, offset, len, .. } => {
                let memory = memory_gate(run, len)?;
                let span = self.part(map, offset, len)?;
                let (line, number) = (self.line, run.number);
                let place =
                    memory.place(line, len as usize, |page| sign(page, number, CALL_POISON, 0));
                let result = self.issue(|| uffd::process_vm_readv(pid(), place, span));
                self.returned(self.moment(), result, || {
                    let arrived = result.unwrap_or(0) as usize;
                    let (new, tail) = memory.bytes(line, arrived).split_at(arrived);
                    let intact = signed_prefix(tail, number, CALL_POISON, arrived as u64);
                    let tail_intact = intact == tail.len();
                    Payload::Read { data: Bytes::encode(new), tail_intact, fault: None }
                })
            }
            Call::ProcessVmWritev { map, offset, len, .. } => {
                let memory = memory_gate(run, len)?;
                let (span, at) = self.part_for_store(map, offset, len)?;
                let (call, number) = (self.line as u16, run.number);
                let place =
                    memory.place(self.line, len as usize, |page| sign(page, number, call, at));
                self.plain(|| uffd::process_vm_writev(pid(), place, span))
            }
            Call::ProcMemPread { map, offset, len } => {
                let span = self.part(map, offset, len)?;
                let memory = own_memory(OFlags::RDONLY)?;
                let part = self.place(Buf::Anon(0), len)?;
                let transfer = self.transfer(Direction::Read, &[part])?;
                self.moved(transfer, |t| sys::pread(memory.as_fd(), t.span(), span.start()))
            }
            Call::ProcMemPwrite { map, offset, len } => {
                let (span, at) = self.part_for_store(map, offset, len)?;
                let memory = own_memory(OFlags::WRONLY)?;
                let part = self.place(Buf::Anon(0), len)?;
                let transfer = self.transfer(self.writes(at), &[part])?;
                self.moved(transfer, |t| sys::pwrite(memory.as_fd(), t.span(), span.start()))
            }
            Call::RegisterBuffers { ring, map, offset, len } => {
                let ring = self.ring(ring)?;
                let span = self.part(map, offset, len)?;
                let ring = ring.descriptor().ok_or(SkipReason::EmptySlot)?;
                self.plain(|| requests::register_buffer(ring.as_fd(), span))
            }
            Call::UpdateBuffers { ring, map, offset, len } => {
                let ring = self.ring(ring)?;
                let span = self.part(map, offset, len)?;
                let ring = ring.descriptor().ok_or(SkipReason::EmptySlot)?;
                self.plain(|| requests::update_buffer(ring.as_fd(), span))
            }
            Call::CloneBuffers { ring, src } => {
                let (ring, src) = (self.ring(ring)?, self.ring(src)?);
                let ring = ring.descriptor().ok_or(SkipReason::EmptySlot)?;
                let src = src.descriptor().ok_or(SkipReason::EmptySlot)?;
                self.plain(|| requests::clone_buffers(ring.as_fd(), src.as_fd()))
            }
            Call::UnregisterBuffers { ring } => {
                let ring = self.ring(ring)?;
                let ring = ring.descriptor().ok_or(SkipReason::EmptySlot)?;
                self.plain(|| requests::unregister_buffers(ring.as_fd()))
            }
            Call::CloseRing { ring } => self.close_ring(ring),
            Call::RegMr { slot, map, offset, len, access } => {
                let span = self.part(map, offset, len)?;
                self.register_region(slot, span, access)
            }
            Call::DeregMr { region } => {
                let found = self.table().lock().take_region(region).ok_or(SkipReason::EmptySlot)?;
                self.slots.push(found.by);
                self.plain(|| found.it.deregister())
            }
            Call::RdmaWrite { local, from, remote, to, len } => {
                self.rdma(Opcode::Write, (local, from), (remote, to), len)
            }
            Call::RdmaRead { local, to, remote, from, len } => {
                self.rdma(Opcode::Read, (local, to), (remote, from), len)
            }
            Call::PinLongtermTestStart { .. }
            | Call::PinLongtermTestRead
            | Call::PinLongtermTestStop
            | Call::PinBasicTest { .. } => self.gup_test(call),
            _ => self.leases(call),
        }
    }

    fn ring(&mut self, slot: RingSlot) -> Issue<Arc<Ring>> {
        let found = self.table().lock().ring(slot).ok_or(SkipReason::EmptySlot)?;
        self.slots.push(found.by);
        Ok(found.it)
    }

    /// What the slot had is deregistered once the new one is there.
    fn register_region(&mut self, slot: RegionSlot, span: Span, access: RegionAccess) -> Issue<()> {
        if !self.run.has_rdma() {
            return Err(SkipReason::Unsupported);
        }
        let mut slots = self.run.table.lock();
        let verbs = match slots.verbs.clone() {
            Some(verbs) => verbs,
            None => {
                let verbs = Arc::new(Verbs::open().map_err(|_| SkipReason::Unsupported)?);
                slots.verbs.insert(verbs).clone()
            }
        };
        drop(slots);
        let (id, table) = (self.id(), &self.run.table);
        self.plain(|| {
            let region = Region::register(&verbs, span, access)?;
            let old = table.lock().put_region(slot, region, id);
            old.map_or(Ok(0), |old| old.it.deregister())
        })
    }

    /// A transfer between two regions, through a connection made for it.
    fn rdma(
        &mut self,
        opcode: Opcode,
        (local, near): (RegionSlot, u64),
        (remote, far): (RegionSlot, u64),
        len: u64,
    ) -> Issue<()> {
        let slots = self.run.table.lock();
        let near = slots.region_sides(local, near, len)?;
        let far = slots.region_sides(remote, far, len)?;
        let verbs = slots.verbs.clone().ok_or(SkipReason::EmptySlot)?;
        drop(slots);
        self.slots.extend([near.by, far.by]);
        let connection = verbs.connect().map_err(|_| SkipReason::Unsupported)?;
        let ((near, _), (_, far)) = (near.it, far.it);
        self.own_wait(|it| it.plain(|| transfer(&connection, opcode, near, far, len)))
    }

    fn close_ring(&mut self, slot: RingSlot) -> Issue<()> {
        let ring = self.ring(slot)?;
        let mut slots = self.run.table.lock();
        slots.take_ring(slot);
        slots.all_rings.retain(|other| !Arc::ptr_eq(other, &ring));
        drop(slots);
        // What has completed is seen.
        ring.reap(&self.recorder, &mut self.lane.pool);
        let (recorder, run) = (self.recorder, self.run);
        let closed = self.issue(|| ring.close(&recorder, &run.table));
        // Two lanes that close one ring: the second one's descriptor is closed already.
        let (result, leaving) = closed.unwrap_or((Err(Errno(libc::EBADF)), None));
        self.run.table.lock().leaving.extend(leaving);
        self.returned(self.moment(), result, || Payload::None)
    }

    /// A range that the kernel judges, and the file offset that is meant by its first byte.
    fn part_for_store(&mut self, slot: MapSlot, offset: u64, len: u64) -> Issue<(Span, u64)> {
        let map = self.map(slot)?;
        let span = map.area.span(offset, len).ok_or(SkipReason::OutOfRange)?;
        Ok((span, map.offset.saturating_add(offset)))
    }

    fn usable(&self, gate: GateSlot) -> Issue<()> {
        self.run.gates().has(gate).then_some(()).ok_or(SkipReason::Unsupported)
    }

    /// What is done here may take a while, and nobody is blocked.
    pub(super) fn own_wait(&mut self, what: impl FnOnce(&mut Self) -> Issue<()>) -> Issue<()> {
        let waits = &self.recorder.control.lanes[self.lane.index].own_wait;
        waits.store(1, Ordering::Release);
        let done = what(self);
        waits.store(0, Ordering::Release);
        done
    }
}
