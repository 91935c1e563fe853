//! A lane's life: it takes lines, issues their calls, and logs what they returned; and calls on whole processes.
//!
//! What other calls do is written elsewhere; here calls meet their slots.

use super::buf::{Memory, Seg};
use super::bug::Bug;
use super::copy::{self, Places};
use super::files;
use super::gate;
use super::gup;
use super::hold::{Ask, Part};
use super::lease;
use super::mapping::MapRef;
use super::memory::{self, MmapArgs};
use super::pipe::{self, Pipe};
use super::rdma;
use super::remote;
use super::ring::{self, Request};
use super::rw;
use super::sched::Cx;
use super::world::errno::{EAGAIN, EBUSY, EFAULT, EINTR, EINVAL, ENXIO};
use super::world::{
    Answer, Fd, Needs, OpenFile, Process, Queued, Region, Registered, Ring, World, plain,
    process_of, resolve,
};
use history::{Errno, Event, Payload, SkipReason, Splat, stamp};
use program::{Buf, Call, CallId, Lane, PAGE, RegionAccess, THREADS_MAX, Whence};
use std::rc::Rc;

/// The future of a lane: it never ends.
pub(super) async fn lane(cx: Cx<'_>) {
    loop {
        let next = cx.w().queues[cx.lane].pop_front();
        match next {
            Some(line) => {
                let id = line.0;
                cx.w().current[cx.lane] = Some(id);
                issue(cx, line).await;
                let mut w = cx.w();
                w.current[cx.lane] = None;
                w.interrupted[cx.lane] = false;
                w.poked[cx.lane] = false;
                w.progress += 1;
                let process = process_of(cx.lane);
                if std::mem::take(&mut w.killed[cx.lane]) && !w.is_dying(process) {
                    w.end_process(process);
                }
                w.reap();
            }
            None => {
                if cx.look().queues[cx.lane].is_empty() {
                    cx.park().await;
                }
            }
        }
    }
}

async fn issue(cx: Cx<'_>, (id, line): Queued) {
    // Twenty microseconds are about the time of a small call.
    for _ in 0..line.delay_us.div_ceil(20).min(64) {
        cx.w().clock += 20_000;
        cx.step().await;
    }
    let found = {
        let mut w = cx.w();
        if w.helping {
            w.skip(id, SkipReason::LaneStuck);
            return;
        }
        if matches!(line.call, Call::Hold { .. }) && w.gates.is_over() {
            w.skip(id, SkipReason::LaneStuck);
            return;
        }
        if w.process(cx.lane).is_none() || w.is_dying(process_of(cx.lane)) {
            w.skip(id, SkipReason::NoLane);
            return;
        }
        look_up(&w, cx.lane, &line)
    };
    let (needs, ring) = match found {
        Ok(found) => found,
        Err(reason) => return cx.w().skip(id, reason),
    };
    if let (Some(ring), Some(via)) = (ring, line.via) {
        let waits = !line.detached && !via.is_linked();
        let request = Request { id, call: line.call, needs, ring, flags: via.flags };
        ring::queue(&mut cx.w(), cx.lane, request);
        if waits {
            let over = |w: &World| !w.in_flight.iter().any(|(other, _)| *other == id);
            let killed = |w: &World| w.killed[cx.lane];
            cx.until("io_cqring_wait", |w| over(w) || w.helping || killed(w)).await;
        }
        return;
    }
    {
        let mut w = cx.w();
        // A signal that came before the call was handled before it.
        w.interrupted[cx.lane] = false;
        w.poked[cx.lane] = false;
        begin(&mut w, cx.lane, id, &needs);
    }
    cx.step().await;
    let answer = perform(cx, id, &line.call, &needs).await;
    drop(needs);
    if cx.look().killed[cx.lane] {
        // Nobody is left to see what it returned.
        let mut w = cx.w();
        w.in_flight.retain(|(c, _)| *c != id);
        w.progress += 1;
        return;
    }
    finish(cx, id, answer);
    if line.call == Call::Exit {
        cx.w().end_process(process_of(cx.lane));
    }
}

/// Logs that a call is about to be issued.
pub(super) fn begin(w: &mut World, lane: usize, call: CallId, needs: &Needs) {
    let (seq, time_ns) = w.tick();
    w.events.push(Event::Invoke { seq, call, time_ns, slots: needs.filled.clone() });
    w.calls += 1;
    w.in_flight.push((call, lane));
}

type Found = (Needs, Option<Rc<Ring>>);

fn look_up(w: &World, lane: usize, line: &program::Line) -> Result<Found, SkipReason> {
    // A child has no family of its own.
    let child = lane >= usize::from(THREADS_MAX);
    let unsupported = match &line.call {
        Call::Fork { child: c } => child || w.forked[usize::from(*c)],
        Call::Exit => !child,
        _ => false,
    };
    if unsupported {
        return Err(SkipReason::Unsupported);
    }
    let mut needs = resolve(w, lane, &line.call).ok_or(SkipReason::EmptySlot)?;
    let ring = match line.via {
        None => None,
        Some(via) => {
            let process = w.process(lane).ok_or(SkipReason::NoLane)?;
            let slot = process.rings[usize::from(via.ring.0)].as_ref();
            let (ring, by) = slot.ok_or(SkipReason::EmptySlot)?;
            needs.filled.push(*by);
            Some(ring.clone())
        }
    };
    let gate = needs.files.iter().any(|f| f.gate.is_some());
    if gate && !goes_with_a_device(&line.call) {
        return Err(SkipReason::Unsupported);
    }
    let named = match &line.call {
        Call::Kill { lane } | Call::SetownEx { lane, .. } => Some(*lane),
        _ => None,
    };
    if named.is_some_and(|lane| w.process(index_of(lane)).is_none()) {
        return Err(SkipReason::NoLane);
    }
    if let Call::RdmaWrite { from: near, to: far, len, .. }
    | Call::RdmaRead { to: near, from: far, len, .. } = line.call
        && [near, far].iter().zip(&needs.regions).any(|(at, region)| at + len > region.len())
    {
        return Err(SkipReason::OutOfRange);
    }
    if let Call::Load { offset, len, .. } | Call::Store { offset, len, .. } = line.call
        && offset + len > needs.maps[0].vma.borrow().len
    {
        return Err(SkipReason::OutOfRange);
    }
    Ok((needs, ring))
}

/// What may be done with the block device of a gate.
fn goes_with_a_device(call: &Call) -> bool {
    match call {
        Call::Pread { .. }
        | Call::Pwrite { .. }
        | Call::Preadv { .. }
        | Call::Pwritev { .. }
        | Call::Readv { .. }
        | Call::Writev { .. }
        | Call::Fsync { .. }
        | Call::Fdatasync { .. }
        | Call::Close { .. }
        | Call::Dup { .. }
        | Call::SendFd { .. } => true,
        Call::Lseek { whence, .. } => *whence == Whence::Set,
        _ => false,
    }
}

/// The index of a lane.
pub(super) const fn index_of(lane: Lane) -> usize {
    match lane {
        Lane::Thread(n) => (n % THREADS_MAX) as usize,
        Lane::Child(n) => (THREADS_MAX + n % program::CHILDREN_MAX) as usize,
    }
}

/// Logs the return of a call.
pub(super) fn finish(cx: Cx<'_>, call: CallId, (result, payload): Answer) {
    let mut w = cx.w();
    let by = w.in_flight.iter().find(|(c, _)| *c == call).map(|(_, lane)| *lane);
    w.in_flight.retain(|(c, _)| *c != call);
    w.progress += 1;
    if by.is_some_and(|lane| w.process(lane).is_none() || w.is_dying(process_of(lane))) {
        // A request whose ring went with its process.
        return;
    }
    let (seq, time_ns) = w.tick();
    w.events.push(Event::Return { seq, call, time_ns, result, payload });
    w.progress += 1;
}

impl World {
    /// The kernel prints a complaint.
    pub fn complain(&mut self, title: &str) {
        let text = format!("------------[ cut here ]------------\n{title}\n---[ end trace ]---\n");
        self.events.push(Event::Console(Splat { title: title.into(), text }));
    }
}

/// The memory of a call's iovec. What is written is signed for the offset it is meant for; what is read into holds poison where a bug may
/// leave it.
fn memory_of(
    w: &World,
    id: CallId,
    iov: &[(Buf, u64)],
    maps: &[MapRef],
    meant: Option<u64>,
) -> Memory {
    let poisons = w.has(Bug::ReadSkipsPage) || w.has(Bug::ReadPastEnd);
    let mut maps = maps.iter();
    let (mut at, mut segs) = (0, Vec::with_capacity(iov.len()));
    for (buf, len) in iov {
        segs.push(match *buf {
            Buf::Anon(align) => {
                let mut data = vec![0; *len as usize];
                if let Some(meant) = meant {
                    let skips = at > 0 && w.has(Bug::WritevSkipsSegment);
                    stamp::sign(&mut data, w.run, id.0, meant + if skips { 0 } else { at });
                } else if poisons {
                    stamp::sign(&mut data, w.run, stamp::CALL_POISON, at);
                }
                Seg::Anon { data, align: u64::from(align), touched: 0 }
            }
            Buf::Map(_, offset) => {
                let map = maps.next().expect("every mapping of an iovec was resolved").clone();
                Seg::Map { map, offset, len: *len as usize }
            }
        });
        at += len;
    }
    Memory::new(segs)
}

/// The memory of a transfer: the pages of a registered buffer, or what the call names.
fn memory_for(
    w: &World,
    id: CallId,
    iov: &[(Buf, u64)],
    n: &Needs,
    meant: Option<u64>,
) -> Result<Memory, Errno> {
    let Some(fixed) = &n.fixed else { return Ok(memory_of(w, id, iov, &n.maps, meant)) };
    let parts = fixed.as_ref().map_err(|e| *e)?;
    let taken = parts.iter().any(|p| p.hold.revoked.get());
    if taken {
        return Err(EFAULT);
    }
    Ok(Memory::new(parts.iter().cloned().map(Seg::Page).collect()))
}

async fn read_at(cx: Cx<'_>, f: &OpenFile, pos: u64, memory: &mut Memory) -> Result<u64, Errno> {
    match f.gate {
        Some(gate) => gate::transfer(cx, f, gate, pos, memory, false).await,
        None => rw::read(cx, f, pos, memory).await,
    }
}

async fn write_at(
    cx: Cx<'_>,
    f: &OpenFile,
    pos: u64,
    memory: &mut Memory,
) -> Result<(u64, u64), Errno> {
    match f.gate {
        Some(gate) => {
            gate::transfer(cx, f, gate, pos, memory, true).await.map(|done| (done, pos + done))
        }
        None => rw::write(cx, f, pos, memory).await,
    }
}

async fn reads(cx: Cx<'_>, id: CallId, n: &Needs, pos: Option<u64>, iov: &[(Buf, u64)]) -> Answer {
    let f = &*n.files[0];
    let memory = memory_for(&cx.look(), id, iov, n, None);
    let mut memory = match memory {
        Ok(memory) => memory,
        Err(e) => return plain(Err(e)),
    };
    let result = match pos {
        Some(pos) => read_at(cx, f, pos, &mut memory).await,
        None => {
            files::lock_position(cx, f).await;
            let result = read_at(cx, f, f.pos.get(), &mut memory).await;
            f.pos.set(f.pos.get() + result.unwrap_or(0));
            files::unlock_position(cx, f);
            result
        }
    };
    reported(result, &memory)
}

async fn writes(cx: Cx<'_>, id: CallId, n: &Needs, pos: Option<u64>, iov: &[(Buf, u64)]) -> Answer {
    let f = &*n.files[0];
    let memory = memory_for(&cx.look(), id, iov, n, Some(pos.unwrap_or(0)));
    let mut memory = match memory {
        Ok(memory) => memory,
        Err(e) => return plain(Err(e)),
    };
    let result = match pos {
        Some(pos) => write_at(cx, f, pos, &mut memory).await,
        None => {
            files::lock_position(cx, f).await;
            let result = write_at(cx, f, f.pos.get(), &mut memory).await;
            if let Ok((done, end)) = result
                && done > 0
            {
                f.pos.set(end);
            }
            files::unlock_position(cx, f);
            result
        }
    };
    plain(result.map(|(done, _)| done))
}

/// Does what a call asks.
pub(super) async fn perform(cx: Cx<'_>, id: CallId, call: &Call, n: &Needs) -> Answer {
    let file = || &*n.files[0];
    match call {
        Call::Pread { offset, buf, len, .. } => {
            reads(cx, id, n, Some(*offset), &[(*buf, *len)]).await
        }
        Call::Preadv { offset, iov, .. } => reads(cx, id, n, Some(*offset), iov).await,
        Call::Readv { iov, .. } => reads(cx, id, n, None, iov).await,
        Call::Pwrite { offset, buf, len, .. } => {
            writes(cx, id, n, Some(*offset), &[(*buf, *len)]).await
        }
        Call::Pwritev { offset, iov, .. } => writes(cx, id, n, Some(*offset), iov).await,
        Call::Writev { iov, .. } => writes(cx, id, n, None, iov).await,
        Call::Load { offset, len, .. } => {
            let (data, fault) = memory::load(cx, &n.maps[0], *offset, *len).await;
            let count = data.len() as u64;
            (
                Ok(count),
                Payload::Read { data: history::Bytes::encode(&data), tail_intact: true, fault },
            )
        }
        Call::Store { offset, len, .. } => {
            let (done, fault) = memory::store(cx, &n.maps[0], id, *offset, *len).await;
            (Ok(done), Payload::Store { fault })
        }
        Call::Truncate { path, len } => plain(files::truncate(cx, *path, *len).await),
        Call::Ftruncate { len, .. } => plain(files::ftruncate(cx, file(), *len).await),
        Call::Fallocate { mode, offset, len, .. } => {
            plain(files::fallocate(cx, file(), *mode, *offset, *len).await)
        }
        Call::Lseek { offset, whence, .. } => {
            plain(files::lseek(cx, file(), *offset, *whence).await)
        }
        Call::Fdatasync { .. } if file().gate.is_some() => plain(Ok(0)),
        Call::Fdatasync { .. } => plain(files::fdatasync(cx, file()).await),
        Call::Madvise { offset, len, advice, .. } => {
            plain(memory::madvise(cx, &n.maps[0], *offset, *len, *advice).await)
        }
        Call::Open { slot, path, access, flags } => {
            let opened = files::open(cx, *path, *access, *flags).await;
            let mut w = cx.w();
            match opened {
                Ok(file) => {
                    let facts = w.facts(file.mount, file.ino);
                    let number = w.install(cx.lane, usize::from(slot.0), file, id);
                    (Ok(number), Payload::File(facts))
                }
                Err(e) => plain(Err(e)),
            }
        }
        Call::Ficlone { .. } => {
            let p = Places { src: &n.files[1], from: 0, dst: &n.files[0], to: 0 };
            plain(copy::clone(cx, p, 0).await)
        }
        Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
            let p =
                Places { src: &n.files[1], from: *src_offset, dst: &n.files[0], to: *dst_offset };
            plain(copy::clone(cx, p, *len).await)
        }
        Call::Fideduperange { src_offset, dst_offset, len, .. } => {
            let p =
                Places { src: &n.files[0], from: *src_offset, dst: &n.files[1], to: *dst_offset };
            copy::dedupe(cx, p, *len).await
        }
        Call::CopyFileRange { src_offset, dst_offset, len, .. } => {
            let p =
                Places { src: &n.files[0], from: *src_offset, dst: &n.files[1], to: *dst_offset };
            plain(copy::copy_file_range(cx, p, *len).await)
        }
        Call::Sendfile { src_offset, len, .. } => {
            plain(copy::sendfile(cx, &n.files[0], &n.files[1], *src_offset, *len).await)
        }
        Call::SpliceToPipe { offset, len, .. } => {
            plain(copy::splice_to_pipe(cx, file(), *offset, &n.pipes[0], *len).await)
        }
        Call::SpliceFromPipe { offset, len, .. } => {
            plain(copy::splice_from_pipe(cx, &n.pipes[0], file(), *offset, *len).await)
        }
        Call::Vmsplice { offset, len, .. } => {
            plain(pipe::vmsplice(cx, &n.maps[0], *offset, &n.pipes[0], *len).await)
        }
        Call::Tee { len, .. } => plain(pipe::tee(cx, &n.pipes[0], &n.pipes[1], *len).await),
        Call::ReadPipe { buf, len, .. } => {
            let mut memory = memory_of(&cx.look(), id, &[(*buf, *len)], &n.maps, None);
            let result = pipe::read(cx, &n.pipes[0], &mut memory).await;
            reported(result, &memory)
        }
        Call::ProcessVmReadv { offset, len, .. } => {
            remote::read(cx, &n.maps[0], *offset, *len).await
        }
        Call::ProcessVmWritev { offset, len, .. } => {
            plain(remote::write(cx, &n.maps[0], id, *offset, *len).await)
        }
        Call::ProcMemPread { offset, len, .. } => remote::peek(cx, &n.maps[0], *offset, *len).await,
        Call::ProcMemPwrite { offset, len, .. } => {
            plain(remote::poke(cx, &n.maps[0], id, *offset, *len).await)
        }
        Call::UnregisterBuffers { .. } => plain(unregister(cx, &n.rings[0]).await),
        Call::Setlease { lease, .. } => plain(lease::setlease(cx, &n.files[0], *lease).await),
        Call::Close { file } => close(cx, usize::from(file.0), n).await,
        Call::Kill { lane } => plain(kill(cx, index_of(*lane)).await),
        _ => at_once(&mut cx.w(), cx.lane, id, call, n),
    }
}

/// close(2): the slot is empty at once; the strict regime kills whoever lets go of a layout lease and leaves pins behind.
async fn close(cx: Cx<'_>, slot: usize, n: &Needs) -> Answer {
    let fd = &n.files[0];
    cx.w().process_mut(cx.lane).files[slot] = None;
    // A mapping that still has the file is no descriptor.
    let (last, dies) = {
        let w = cx.look();
        let last = !w.has_descriptor(fd) && w.regime == checker::Regime::LayoutLeaseStrict;
        let lets_go = last || w.has(Bug::StrictDupKills);
        (last, lets_go && w.leaves_pins(fd) && !w.has(Bug::StrictCloseSpares))
    };
    if last {
        cx.w().forget_layout_lease_of(fd);
    }
    if dies {
        let process = process_of(cx.lane);
        cx.w().kill_process(process);
    }
    if cx.look().has(Bug::LeaseDiesWithDup) {
        cx.w().forget_leases_of(fd);
    }
    plain(Ok(0))
}

/// kill(2) with SIGKILL, and a wait of a tenth of a second: 0 if the child is gone, 1 if it is not.
async fn kill(cx: Cx<'_>, lane: usize) -> Result<u64, Errno> {
    let process = process_of(lane);
    let patience = {
        let mut w = cx.w();
        w.kill_process(process);
        let at = w.clock + KILL_WAIT_NS;
        w.deadlines.insert(cx.lane, at);
        at
    };
    cx.wait("do_wait", |w| w.procs[process].is_none() || w.clock >= patience).await;
    let mut w = cx.w();
    w.deadlines.remove(&cx.lane);
    Ok(u64::from(w.procs[process].is_some()))
}

/// How long a kill waits for the end of what it killed.
const KILL_WAIT_NS: u64 = 100_000_000;

impl World {
    /// Whether closing the file gives a layout lease up while pages of it are pinned.
    fn leaves_pins(&self, fd: &Fd) -> bool {
        self.holds_layout_lease(fd) && self.has_long_pins(fd.mount, fd.ino)
    }

    /// Whether the open file has a descriptor in some process, or in a message.
    fn has_descriptor(&self, fd: &Fd) -> bool {
        let slots = self.procs.iter().flatten().flat_map(|p| p.files.iter().flatten());
        let mut files = slots.map(|(other, _)| &other.file).chain(&self.socket);
        files.any(|file| Rc::ptr_eq(file, &fd.file))
    }

    /// Whether a process was killed, and some lane of it is still in a call.
    pub fn is_dying(&self, process: usize) -> bool {
        (0..super::sched::LANES).any(|lane| process_of(lane) == process && self.killed[lane])
    }

    /// SIGKILL: idle lanes are gone at once, those in a call when it lets them.
    pub fn kill_process(&mut self, process: usize) {
        if self.procs[process].is_none() {
            return;
        }
        let lanes = (0..super::sched::LANES).filter(|lane| process_of(*lane) == process);
        let busy: Vec<usize> = lanes.filter(|lane| self.current[*lane].is_some()).collect();
        for lane in &busy {
            self.killed[*lane] = true;
        }
        if busy.is_empty() {
            self.end_process(process);
        }
        self.progress += 1;
    }
}

/// What a read into memory reports.
fn reported(result: Result<u64, Errno>, memory: &Memory) -> Answer {
    let payload = match memory.report(result.unwrap_or(0)) {
        Some((data, tail_intact)) => Payload::Read { data, tail_intact, fault: None },
        None => Payload::None,
    };
    (result, payload)
}

/// IORING_REGISTER_BUFFERS with one buffer
fn register(w: &mut World, ring: &Ring, map: &MapRef, offset: u64, len: u64) -> Result<u64, Errno> {
    if ring.buffer.borrow().is_some() {
        return Err(EBUSY);
    }
    let fresh = pin_buffer(w, map, offset, len)?;
    ring.buffer.replace(Some(fresh));
    Ok(0)
}

/// Pins the pages of a buffer that is to be registered.
fn pin_buffer(w: &mut World, map: &MapRef, offset: u64, len: u64) -> Result<Registered, Errno> {
    if len == 0 {
        return Err(EFAULT);
    }
    let ask = Ask { write: true, pinned: true, long: true, ..Ask::default() };
    let (parts, whole) = w.grab(map, offset, len, ask);
    if let Err(e) = whole {
        if w.has(Bug::PinLeakedOnRefusal) {
            w.leak(&parts);
        }
        return Err(e);
    }
    Ok(Registered { address: map.vma.borrow().address + offset, len, parts })
}

/// IORING_REGISTER_BUFFERS_UPDATE of the one buffer: waits for nobody, and says how many places have another one. Requests keep what they have.
fn update(w: &mut World, ring: &Ring, map: &MapRef, offset: u64, len: u64) -> Result<u64, Errno> {
    if ring.buffer.borrow().is_none() {
        return Err(ENXIO);
    }
    if ring.emptied.get() {
        return Err(EINVAL);
    }
    let fresh = pin_buffer(w, map, offset, len)?;
    if w.has(Bug::UpdateKeepsOld) {
        return Ok(1);
    }
    if let Some(old) = ring.buffer.replace(Some(fresh)) {
        if w.has(Bug::UpdateLeaks) {
            w.leak(&old.parts);
        }
        if w.has(Bug::UpdateFreesInUse) && ring.fixed.get() > 0 {
            w.give_back_again(&old.parts);
        }
    }
    w.progress += 1;
    Ok(1)
}

/// IORING_REGISTER_CLONE_BUFFERS
fn clone_buffers(w: &mut World, ring: &Ring, src: &Ring) -> Result<u64, Errno> {
    if ring.buffer.borrow().is_some() {
        return Err(EBUSY);
    }
    let shared = src.buffer.borrow().clone().filter(|_| !src.emptied.get()).ok_or(ENXIO)?;
    if w.has(Bug::CloneTakesNoReference) {
        w.give_back_again(&shared.parts);
    }
    ring.buffer.replace(Some(shared));
    Ok(0)
}

/// The pages of an RDMA memory region. Nothing is a region of one page where it begins within a page.
fn region(
    w: &mut World,
    map: &MapRef,
    offset: u64,
    len: u64,
    access: RegionAccess,
) -> Result<Vec<super::hold::Part>, Errno> {
    if len == 0 && offset.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    let write = access == RegionAccess::Write;
    let ask = Ask { write, pinned: true, long: true, region: true, ..Ask::default() };
    let (parts, whole) = w.grab(map, offset, len.max(1), ask);
    if whole.is_err() && w.has(Bug::PinLeakedOnRefusal) {
        w.leak(&parts);
    }
    whole.map(|()| parts)
}

/// IORING_UNREGISTER_BUFFERS: waits for requests that use them.
async fn unregister(cx: Cx<'_>, ring: &Ring) -> Result<u64, Errno> {
    if ring.buffer.borrow().is_none() {
        return Err(ENXIO);
    }
    // Who waits already is not joined.
    if ring.emptied.replace(true) {
        return Err(ENXIO);
    }
    let idle = cx.wait("io_rsrc_ref_quiesce", |_| ring.fixed.get() == 0).await;
    ring.emptied.set(false);
    if !idle {
        return Err(EINTR);
    }
    let gone = ring.buffer.take().ok_or(ENXIO)?;
    if cx.look().has(Bug::UnregisterLeaks) {
        cx.w().leak(&gone.parts);
    }
    cx.w().progress += 1;
    Ok(0)
}

/// The pages of a registered buffer that a fixed transfer means.
pub(super) fn fixed_parts(
    w: &World,
    ring: &Ring,
    call: &Call,
    n: &Needs,
) -> Result<Vec<Part>, Errno> {
    let (Call::Pread { buf, len, .. } | Call::Pwrite { buf, len, .. }) = call else {
        return Err(EFAULT);
    };
    let (Buf::Map(_, offset), Some(map)) = (buf, n.maps.first()) else { return Err(EFAULT) };
    let address = map.vma.borrow().address + offset;
    let buffer = ring.buffer.borrow();
    let buffer = buffer.as_ref().filter(|_| !ring.emptied.get()).ok_or(EFAULT)?;
    let from = address.checked_sub(buffer.address).ok_or(EFAULT)?;
    if from + len > buffer.len {
        return Err(EFAULT);
    }
    let mut parts = super::hold::cut(&buffer.parts, from as usize, *len as usize);
    if w.has(Bug::FixedWrongBuffer) {
        parts.reverse();
    }
    Ok(parts)
}

/// Calls that are one atomic step.
fn at_once(w: &mut World, lane: usize, id: CallId, call: &Call, n: &Needs) -> Answer {
    let file = || -> &OpenFile { &n.files[0] };
    match call {
        Call::Dup { slot, .. } => {
            let own = w.has(Bug::DupOwnPosition);
            let copy = if own { Rc::new(file().reopened()) } else { n.files[0].file.clone() };
            plain(Ok(w.install(lane, usize::from(slot.0), copy, id)))
        }
        Call::OpenGate { slot, gate, access, flags } => {
            let file = Rc::new(w.open_gate(*gate, *access, *flags));
            plain(Ok(w.install(lane, usize::from(slot.0), file, id)))
        }
        Call::Hold { gate } => {
            w.gates.hold(*gate);
            plain(Ok(0))
        }
        Call::Release { gate, settle } => {
            w.gates.release(*gate, *settle);
            w.progress += 1;
            plain(Ok(0))
        }
        Call::ClosePipe { pipe } => {
            w.process_mut(lane).pipes[usize::from(pipe.0)] = None;
            n.pipes[0].put();
            w.progress += 1;
            plain(Ok(0))
        }
        Call::RegisterBuffers { offset, len, .. } => {
            plain(register(w, &n.rings[0], &n.maps[0], *offset, *len))
        }
        Call::RegMr { slot, offset, len, access, .. } => {
            let made = region(w, &n.maps[0], *offset, *len, *access);
            if let Ok(parts) = &made {
                let again = w.has(Bug::RdmaFollowsMapping) || w.has(Bug::RdmaReadsMapping);
                let map = again.then(|| n.maps[0].clone());
                let (offset, access) = (*offset, *access);
                let made = Region { parts: parts.clone(), map, offset, access };
                w.process_mut(lane).regions[usize::from(slot.0)] = Some((Rc::new(made), id));
                w.progress += 1;
            }
            plain(made.map(|_| 0))
        }
        Call::DeregMr { region } => {
            let gone = w.process_mut(lane).regions[usize::from(region.0)].take();
            if let Some((region, _)) = gone.filter(|_| w.has(Bug::DeregLeaks)) {
                w.leak(&region.parts);
            }
            w.progress += 1;
            plain(Ok(0))
        }
        Call::RdmaWrite { from, to, len, .. } => {
            plain(rdma::write(w, (&n.regions[0], *from), (&n.regions[1], *to), *len))
        }
        Call::RdmaRead { to, from, len, .. } => {
            plain(rdma::read(w, (&n.regions[0], *to), (&n.regions[1], *from), *len))
        }
        Call::PinLongtermTestStart { buf, len, flags } => {
            plain(gup::start(w, id, n.maps.first(), *buf, *len, *flags))
        }
        Call::PinLongtermTestRead => gup::read(w),
        Call::PinLongtermTestStop => plain(Ok(gup::stop(w))),
        Call::PinBasicTest { offset, len, flags, .. } => {
            plain(Ok(gup::basic(w, &n.maps[0], *offset, *len, *flags)))
        }
        Call::UpdateBuffers { offset, len, .. } => {
            plain(update(w, &n.rings[0], &n.maps[0], *offset, *len))
        }
        Call::CloneBuffers { .. } => plain(clone_buffers(w, &n.rings[0], &n.rings[1])),
        Call::CloseRing { ring } => {
            w.process_mut(lane).rings[usize::from(ring.0)] = None;
            w.progress += 1;
            plain(Ok(0))
        }
        Call::Getlease { .. } => plain(lease::getlease(w, &n.files[0])),
        Call::Setsig { notice, .. } => {
            file().notice.set(*notice);
            plain(Ok(0))
        }
        Call::SetownEx { kind, lane, .. } => lease::setown(&n.files[0], *kind, index_of(*lane)),
        Call::OnBreak { answer } => {
            w.process_mut(lane).answer = Some(*answer);
            plain(Ok(0))
        }
        Call::LeaseBreakTime { seconds } => {
            w.lease_break_time = *seconds;
            plain(Ok(0))
        }
        Call::Interrupt { lane } => {
            let lane = index_of(*lane);
            if w.current[lane].is_some() {
                w.interrupted[lane] = true;
            }
            w.progress += 1;
            plain(Ok(0))
        }
        Call::SendFd { .. } => {
            w.socket.push_back(n.files[0].file.clone());
            plain(Ok(0))
        }
        Call::RecvFd { slot } => {
            let swapped = w.has(Bug::RecvOtherFile) && w.socket.len() > 1;
            let taken = if swapped { w.socket.pop_back() } else { w.socket.pop_front() };
            plain(match taken {
                Some(file) => Ok(w.install(lane, usize::from(slot.0), file, id)),
                None => Err(EAGAIN),
            })
        }
        Call::Unlink { path } => plain(files::unlink(w, *path)),
        Call::Rename { from, to } => plain(files::rename(w, *from, *to)),
        Call::Link { from, to } => plain(files::link(w, *from, *to)),
        Call::Mmap { slot, offset, len, prot, sharing, flags, .. } => {
            let args = MmapArgs {
                offset: *offset,
                len: *len,
                prot: *prot,
                sharing: *sharing,
                flags: *flags,
            };
            match memory::mmap(w, &n.files[0].file, &args) {
                Ok(vma) => {
                    let address = vma.borrow().address;
                    let slot = &mut w.process_mut(lane).maps[usize::from(slot.0)];
                    if let Some((old, _)) = slot.replace((vma, id)) {
                        old.borrow_mut().unmap();
                    }
                    (Ok(address), Payload::Address(address))
                }
                Err(e) => plain(Err(e)),
            }
        }
        Call::Munmap { map } => {
            w.process_mut(lane).maps[usize::from(map.0)] = None;
            plain(memory::munmap(&n.maps[0]))
        }
        Call::Mremap { len, .. } => match memory::mremap(&n.maps[0], *len) {
            Ok(address) => (Ok(address), Payload::Address(address)),
            Err(e) => plain(Err(e)),
        },
        Call::Mprotect { prot, .. } => plain(memory::mprotect(&n.maps[0], *prot)),
        Call::Msync { offset, len, flags, .. } => {
            plain(memory::msync(w, &n.maps[0], *offset, *len, *flags))
        }
        Call::Pipe { slot } => {
            let pipe = Rc::new(Pipe::default());
            pipe.get();
            let slot = &mut w.process_mut(lane).pipes[usize::from(slot.0)];
            if let Some((old, _)) = slot.replace((pipe, id)) {
                old.put();
            }
            w.progress += 1;
            plain(Ok(0))
        }
        // The devices have no cache to flush.
        Call::Fsync { .. } if file().gate.is_some() => plain(Ok(0)),
        Call::Fsync { .. } => plain(files::fsync(w, file())),
        Call::SyncFileRange { offset, len, flags, .. } => {
            plain(files::sync_file_range(w, file(), *offset, *len, *flags))
        }
        Call::Syncfs { .. } => {
            files::syncfs(w, file().mount);
            plain(Ok(0))
        }
        Call::Statx { .. } => (Ok(0), Payload::File(w.facts(file().mount, file().ino))),
        Call::Fiemap { .. } => {
            let fs = &mut w.fs[file().mount];
            fs.write_back(file().ino, 0, u64::MAX);
            let extents = fs.extents(file().ino);
            (Ok(extents.len() as u64), Payload::Extents(extents))
        }
        Call::Fork { child } => plain(fork(w, lane, *child)),
        Call::DropCaches => {
            files::drop_caches(w);
            plain(Ok(0))
        }
        Call::IoUringSetup { slot, entries } => {
            let entries = usize::from(*entries).next_power_of_two();
            let ring = Rc::new(Ring { entries, ..Ring::default() });
            w.process_mut(lane).rings[usize::from(slot.0)] = Some((ring, id));
            plain(Ok(w.descriptor() as u64))
        }
        // `_exit` does not return; the lane's process ends after this.
        _ => plain(Ok(0)),
    }
}

fn fork(w: &mut World, lane: usize, child: u8) -> Result<u64, Errno> {
    let index = usize::from(child) + 1;
    let parent: Process = w.process_mut(lane).clone();
    let copy = w.fork(&parent);
    w.procs[index] = Some(copy);
    w.forked[usize::from(child)] = true;
    Ok(100 + u64::from(THREADS_MAX) + index as u64)
}

impl World {
    /// A descriptor number; no number is used twice.
    fn descriptor(&mut self) -> i32 {
        self.next_fd += 1;
        self.next_fd
    }

    /// Puts an open file into a slot, under a number of its own.
    fn install(&mut self, lane: usize, slot: usize, file: Rc<OpenFile>, id: CallId) -> u64 {
        let number = self.descriptor();
        let fd = Fd { file, number };
        self.process_mut(lane).files[slot] = Some((fd, id));
        number as u64
    }
}
