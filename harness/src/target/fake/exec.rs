//! A lane's life: it takes lines, issues their calls, and logs what they returned.
//!
//! What a call does is written elsewhere; here calls meet their slots.

use super::buf::{Memory, Seg};
use super::bug::Bug;
use super::copy::{self, Places};
use super::files;
use super::mapping::MapRef;
use super::memory::{self, MmapArgs};
use super::pipe::Pipe;
use super::ring::{self, Request};
use super::rw;
use super::sched::Cx;
use super::world::{
    Answer, Needs, OpenFile, Process, Queued, Ring, World, plain, process_of, resolve,
};
use history::{Errno, Event, Payload, SkipReason, Splat, stamp};
use program::{Buf, Call, CallId, THREADS_MAX};
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
                w.progress += 1;
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
        if w.process(cx.lane).is_none() {
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
            cx.until("io_cqring_wait", |w| over(w) || w.helping).await;
        }
        return;
    }
    begin(&mut cx.w(), cx.lane, id, &needs);
    cx.step().await;
    let answer = perform(cx, id, &line.call, &needs).await;
    drop(needs);
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
    // What a child may not do: its parent's rings and a family of its own.
    let child = lane >= usize::from(THREADS_MAX);
    let unsupported = match line.call {
        Call::Fork { child: c } => child || w.forked[usize::from(c)],
        Call::IoUringSetup { .. } => child,
        Call::Exit => !child,
        _ => child && line.via.is_some(),
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
    if let Call::Load { offset, len, .. } | Call::Store { offset, len, .. } = line.call
        && offset + len > needs.maps[0].vma.borrow().len
    {
        return Err(SkipReason::OutOfRange);
    }
    Ok((needs, ring))
}

/// Logs the return of a call.
pub(super) fn finish(cx: Cx<'_>, call: CallId, (result, payload): Answer) {
    let mut w = cx.w();
    w.in_flight.retain(|(c, _)| *c != call);
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

async fn reads(cx: Cx<'_>, id: CallId, n: &Needs, pos: Option<u64>, iov: &[(Buf, u64)]) -> Answer {
    let f = &*n.files[0];
    let mut memory = memory_of(&cx.look(), id, iov, &n.maps, None);
    let result = match pos {
        Some(pos) => rw::read(cx, f, pos, &mut memory).await,
        None => {
            files::lock_position(cx, f).await;
            let result = rw::read(cx, f, f.pos.get(), &mut memory).await;
            f.pos.set(f.pos.get() + result.unwrap_or(0));
            files::unlock_position(cx, f);
            result
        }
    };
    let payload = match memory.report(result.unwrap_or(0)) {
        Some((data, tail_intact)) => Payload::Read { data, tail_intact, fault: None },
        None => Payload::None,
    };
    (result, payload)
}

async fn writes(cx: Cx<'_>, id: CallId, n: &Needs, pos: Option<u64>, iov: &[(Buf, u64)]) -> Answer {
    let f = &*n.files[0];
    let mut memory = memory_of(&cx.look(), id, iov, &n.maps, Some(pos.unwrap_or(0)));
    let result = match pos {
        Some(pos) => rw::write(cx, f, pos, &mut memory).await,
        None => {
            files::lock_position(cx, f).await;
            let result = rw::write(cx, f, f.pos.get(), &mut memory).await;
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
                    w.process_mut(cx.lane).files[usize::from(slot.0)] = Some((file, id));
                    (Ok(w.descriptor()), Payload::File(facts))
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
        _ => at_once(&mut cx.w(), cx.lane, id, call, n),
    }
}

/// Calls that are one atomic step.
fn at_once(w: &mut World, lane: usize, id: CallId, call: &Call, n: &Needs) -> Answer {
    let file = || -> &OpenFile { &n.files[0] };
    match call {
        Call::Close { file } => {
            w.process_mut(lane).files[usize::from(file.0)] = None;
            plain(Ok(0))
        }
        Call::Dup { slot, .. } => {
            let own = w.has(Bug::DupOwnPosition);
            let copy = if own { Rc::new(file().reopened()) } else { n.files[0].clone() };
            w.process_mut(lane).files[usize::from(slot.0)] = Some((copy, id));
            plain(Ok(w.descriptor()))
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
            match memory::mmap(w, &n.files[0], &args) {
                Ok(vma) => {
                    let address = vma.borrow().address;
                    let slot = &mut w.process_mut(lane).maps[usize::from(slot.0)];
                    if let Some((old, _)) = slot.replace((vma, id)) {
                        old.borrow_mut().dead = true;
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
            plain(Ok(w.descriptor()))
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
    /// A descriptor number; programs name slots, so it is only for the reader.
    fn descriptor(&mut self) -> u64 {
        self.next_fd += 1;
        self.next_fd
    }
}
