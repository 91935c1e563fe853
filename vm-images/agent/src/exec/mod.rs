//! Issuing one call: slots are looked up, memory is prepared, the Invoke is recorded, the system call made, the Return recorded.
//!
//! Results are recorded as seen; nothing is retried. `link`ed lines are only queued here (see `ring`).

mod bits;
mod gup;
mod leases;
mod pins;
mod request;

use crate::control::{Control, LaneControl, lane_index};
use crate::facts::facts;
use crate::io::{Direction, Place, Transfer};
use crate::record::{Moment, Recorder, learn_pid, now};
use crate::ring::Ring;
use crate::run::Run;
use crate::slots::{Handle, Map, Pipe, Table};
use crate::sys::aio::{Request, submit};
use crate::sys::arena::{self, Area, Mapping};
use crate::sys::fault::{self, Fault};
use crate::sys::kcov::Trace;
use crate::sys::{self, Pool, Span};
pub use gup::open_gup_test;

use bits::{fallocate_bits, open_flags, sync_bits};
use history::{Bytes, CallResult, FaultSignal, Payload, SkipReason};
use program::{Buf, Call, CallId, FileSlot, IO_MAX, Lane, MapSlot, PipeSlot, Whence};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::process::Pid;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A delay shorter than this is spun: sleeping takes longer.
const SPIN_MAX: Duration = Duration::from_micros(50);

/// How often a child whose rings have requests in flight looks for completions: nobody else can, for the queues are in its memory alone.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a lane owns.
pub struct LaneState {
    /// Index, as in `Control::lanes`.
    pub index: usize,
    /// Free buffers.
    pub pool: Pool,
    /// Bytes for loads and stores.
    pub scratch: Vec<u8>,
    /// What the kernel writes down of this thread, from its first covered line on.
    trace: Option<Trace>,
}

impl LaneState {
    /// Of lane `index`.
    pub fn new(index: usize) -> LaneState {
        LaneState { index, pool: Pool::default(), scratch: vec![], trace: None }
    }

    /// Has the kernel write down what this thread passes, or not.
    fn trace(&mut self, on: bool) {
        if on && self.trace.is_none() {
            self.trace = Trace::new().ok();
        }
        if let Some(trace) = &mut self.trace {
            trace.switch(on);
        }
    }
}

/// Why a line is not issued, as an error so that `?` leads out.
type Issue<T> = Result<T, SkipReason>;

/// One line on its way.
struct Exec<'a> {
    run: &'a Run,
    recorder: Recorder,
    lane: &'a mut LaneState,
    line: usize,
    slots: Vec<CallId>,
}

/// Runs one line on its lane, from delay to Return.
pub fn run_line(run: &Run, lane: &mut LaneState, line: usize) {
    let recorder = run.recorder;
    let Some(text) = run.program.lines.get(line) else { return };
    if recorder.control.is_ending() {
        return recorder.skipped(line, SkipReason::LaneStuck);
    }
    delay(Duration::from_micros(text.delay_us.into()));
    let reached = run.reached();
    lane.trace(reached.is_some());
    let mut exec = Exec { run, recorder, lane, line, slots: vec![] };
    let issued = match text.via {
        Some(via) => exec.through_ring(&text.call, via, text.detached),
        None => exec.call(&text.call),
    };
    if let Err(reason) = issued {
        recorder.skipped(line, reason);
    }
    // What the kernel does for a ring of this thread between two lines is found at the end of the second.
    if let (Some(reached), Some(trace)) = (reached, &exec.lane.trace) {
        reached.take(trace);
    }
}

fn delay(how_long: Duration) {
    if how_long >= SPIN_MAX {
        std::thread::sleep(how_long);
    } else if !how_long.is_zero() {
        let until = now() + how_long.as_nanos() as u64;
        while now() < until {
            std::hint::spin_loop();
        }
    }
}

/// A rustix result as an observation.
fn seen<T>(result: rustix::io::Result<T>, value: impl FnOnce(T) -> u64) -> CallResult {
    result.map(value).map_err(sys::errno)
}

fn done(result: rustix::io::Result<()>) -> CallResult {
    seen(result, |()| 0)
}

fn count(result: rustix::io::Result<usize>) -> CallResult {
    seen(result, |n| n as u64)
}

/// Makes the call that a request of io_submit(2) stands for.
fn directly(fd: BorrowedFd<'_>, request: Request<'_>) -> CallResult {
    match request {
        Request::Pread(span, offset) => sys::pread(fd, span, offset),
        Request::Pwrite(span, offset) => sys::pwrite(fd, span, offset),
        Request::Preadv(segments, offset) => sys::readv(fd, segments, Some(offset)),
        Request::Pwritev(segments, offset) => sys::writev(fd, segments, Some(offset)),
        Request::Fsync => done(rustix::fs::fsync(fd)),
        Request::Fdsync => done(rustix::fs::fdatasync(fd)),
    }
}

impl Exec<'_> {
    fn id(&self) -> CallId {
        CallId(self.line as u16)
    }

    fn table(&self) -> &Table {
        &self.run.table
    }

    /// A file. What a call would do to the device of a gate is not asked.
    fn file(&mut self, slot: FileSlot) -> Issue<Arc<Handle>> {
        let file = self.any_file(slot)?;
        if file.gate.is_some() { Err(SkipReason::Unsupported) } else { Ok(file) }
    }

    /// A file, or the device of a gate.
    fn any_file(&mut self, slot: FileSlot) -> Issue<Arc<Handle>> {
        let found = self.table().lock().file(slot).ok_or(SkipReason::EmptySlot)?;
        self.slots.push(found.by);
        if let Some(gate) = found.it.gate {
            self.recorder.control.goes_through(gate, self.line);
        }
        Ok(found.it)
    }

    fn map(&mut self, slot: MapSlot) -> Issue<Map> {
        let found = self.table().lock().map(slot).ok_or(SkipReason::EmptySlot)?;
        self.slots.push(found.by);
        Ok(found.it)
    }

    fn pipe(&mut self, slot: PipeSlot) -> Issue<Pipe> {
        let found = self.table().lock().pipe(slot).ok_or(SkipReason::EmptySlot)?;
        self.slots.push(found.by);
        Ok(found.it)
    }

    fn place(&mut self, buf: Buf, len: u64) -> Issue<(Place, usize)> {
        if len > IO_MAX {
            return Err(SkipReason::OutOfRange);
        }
        let place = match buf {
            Buf::Anon(at) => Place::Anon(at),
            Buf::Map(slot, offset) => {
                Place::Mapped(self.map(slot)?.area.span(offset, len).ok_or(SkipReason::OutOfRange)?)
            }
        };
        Ok((place, len as usize))
    }

    fn transfer(&mut self, direction: Direction, parts: &[(Place, usize)]) -> Issue<Transfer> {
        Transfer::new(&mut self.lane.pool, self.run.number, direction, parts)
            .map_err(|_| SkipReason::Unsupported)
    }

    fn writes(&self, offset: u64) -> Direction {
        Direction::Write { call: self.line as u16, offset }
    }

    /// Records the Invoke and makes the call.
    fn issue<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let began = self.recorder.invoke(self.line, std::mem::take(&mut self.slots));
        let value = call();
        self.recorder.control.kernel_ns.fetch_add(now().saturating_sub(began), Ordering::Relaxed);
        value
    }

    fn moment(&self) -> Moment {
        self.recorder.moment()
    }

    fn returned(
        &self,
        end: Moment,
        result: CallResult,
        payload: impl FnOnce() -> Payload,
    ) -> Issue<()> {
        self.recorder.returned(self.line, end, result, payload);
        Ok(())
    }

    /// A call that reports nothing beside its result.
    fn plain(&mut self, call: impl FnOnce() -> CallResult) -> Issue<()> {
        let result = self.issue(call);
        self.returned(self.moment(), result, || Payload::None)
    }

    /// A read or write.
    fn moved(
        &mut self,
        transfer: Transfer,
        call: impl FnOnce(&Transfer) -> CallResult,
    ) -> Issue<()> {
        let result = self.issue(|| call(&transfer));
        let end = self.moment();
        self.returned(end, result, || transfer.payload(result))?;
        transfer.give_back(&mut self.lane.pool);
        Ok(())
    }

    fn parts(&mut self, iov: &[(Buf, u64)]) -> Issue<Vec<(Place, usize)>> {
        iov.iter().map(|(buf, len)| self.place(*buf, *len)).collect()
    }

    fn call(&mut self, call: &Call) -> Issue<()> {
        let run = self.run;
        let aio = run.program.lines.get(self.line).is_some_and(|line| line.aio);
        let io = if aio { submit } else { directly };
        match *call {
            Call::Open { slot, path, access, flags } => {
                let place = run.place(path.mount).ok_or(SkipReason::Unsupported)?;
                let name = [path.file_name() as u8];
                let bits = open_flags(access, flags);
                let result =
                    self.issue(|| rustix::fs::openat(&place.dir, &name[..], bits, 0o644.into()));
                self.opened(slot, result.map(|fd| Handle::new(fd, path.mount)))
            }
            Call::Dup { slot, file } => {
                let file = self.any_file(file)?;
                let result = self.issue(|| rustix::io::dup(&file));
                let result = result.and_then(|fd| match run.table.is_tombstone(fd.as_fd()) {
                    true => Err(rustix::io::Errno::BADF),
                    false => Ok(file.same(fd)),
                });
                let value = seen(result, |handle| self.put_file(slot, handle));
                self.returned(self.moment(), value, || Payload::None)
            }
            Call::Close { file } => {
                let found = self.table().lock().take_file(file).ok_or(SkipReason::EmptySlot)?;
                self.slots.push(found.by);
                self.plain(|| run.table.close(found.it))
            }
            Call::Unlink { path } => {
                let place = run.place(path.mount).ok_or(SkipReason::Unsupported)?;
                let name = [path.file_name() as u8];
                self.plain(|| {
                    done(rustix::fs::unlinkat(&place.dir, &name[..], rustix::fs::AtFlags::empty()))
                })
            }
            Call::Rename { from, to } => {
                let (a, b) = (run.place(from.mount), run.place(to.mount));
                let (a, b) = (a.ok_or(SkipReason::Unsupported)?, b.ok_or(SkipReason::Unsupported)?);
                let (from, to) = ([from.file_name() as u8], [to.file_name() as u8]);
                self.plain(|| done(rustix::fs::renameat(&a.dir, &from[..], &b.dir, &to[..])))
            }
            Call::Link { from, to } => {
                let (a, b) = (run.place(from.mount), run.place(to.mount));
                let (a, b) = (a.ok_or(SkipReason::Unsupported)?, b.ok_or(SkipReason::Unsupported)?);
                let (from, to) = ([from.file_name() as u8], [to.file_name() as u8]);
                let none = rustix::fs::AtFlags::empty();
                self.plain(|| done(rustix::fs::linkat(&a.dir, &from[..], &b.dir, &to[..], none)))
            }
            Call::Pread { file, offset, buf, len } => {
                let file = self.any_file(file)?;
                let part = self.place(buf, len)?;
                let transfer = self.transfer(Direction::Read, &[part])?;
                self.moved(transfer, |t| io(file.as_fd(), Request::Pread(t.span(), offset)))
            }
            Call::Pwrite { file, offset, buf, len } => {
                let file = self.any_file(file)?;
                let part = self.place(buf, len)?;
                let transfer = self.transfer(self.writes(offset), &[part])?;
                self.moved(transfer, |t| io(file.as_fd(), Request::Pwrite(t.span(), offset)))
            }
            Call::Preadv { file, offset, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                let transfer = self.transfer(Direction::Read, &parts)?;
                self.moved(transfer, |t| io(file.as_fd(), Request::Preadv(t.vector(), offset)))
            }
            Call::Pwritev { file, offset, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                let transfer = self.transfer(self.writes(offset), &parts)?;
                self.moved(transfer, |t| io(file.as_fd(), Request::Pwritev(t.vector(), offset)))
            }
            Call::Readv { file, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                let transfer = self.transfer(Direction::Read, &parts)?;
                self.moved(transfer, |t| sys::readv(file.as_fd(), t.vector(), None))
            }
            Call::Writev { file, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                // The file position is the kernel's to know: bytes are signed for the offset from where the write begins.
                let transfer = self.transfer(self.writes(0), &parts)?;
                self.moved(transfer, |t| sys::writev(file.as_fd(), t.vector(), None))
            }
            Call::Lseek { file, offset, whence } => {
                let file = match whence {
                    Whence::Set => self.any_file(file)?,
                    Whence::Hole | Whence::Data => self.file(file)?,
                };
                let to = match whence {
                    Whence::Set => SeekFrom::Start(offset),
                    Whence::Hole => SeekFrom::Hole(offset),
                    Whence::Data => SeekFrom::Data(offset),
                };
                self.plain(|| seen(rustix::fs::seek(&file, to), |at| at))
            }
            Call::Mmap { slot, file, offset, len, prot, sharing, flags } => {
                let file = self.file(file)?;
                let (place, how) = (self.line, Mapping { prot, sharing, flags });
                let (result, area) =
                    self.issue(|| arena::map(place, file.as_fd(), offset, len, how));
                let id = self.id();
                if let Some(area) = area {
                    let old = self.table().lock().put_map(slot, Map { area, offset }, id);
                    old.map(|old| arena::unmap(old.it.area));
                }
                self.returned(self.moment(), result, || address(result))
            }
            Call::Munmap { map } => {
                let found = self.table().lock().take_map(map).ok_or(SkipReason::EmptySlot)?;
                self.slots.push(found.by);
                self.plain(|| arena::unmap(found.it.area))
            }
            Call::Mremap { map: slot, len } => {
                let map = self.map(slot)?;
                let by = self.slots[0];
                let result = self.issue(|| arena::remap(map.area, len));
                if let Ok(addr) = result {
                    let mut slots = run.table.lock();
                    if slots
                        .map(slot)
                        .is_some_and(|now| now.by == by && now.it.area.addr() == map.area.addr())
                    {
                        slots.put_map(slot, Map { area: arena::remapped(addr, len), ..map }, by);
                    }
                }
                self.returned(self.moment(), result, || address(result))
            }
            Call::Mprotect { map, prot } => {
                let map = self.map(map)?;
                self.plain(|| arena::protect(map.area, prot))
            }
            Call::Load { map, offset, len } => {
                let (map, span) = self.access(map, offset, len)?;
                let mut bytes = std::mem::take(&mut self.lane.scratch);
                bytes.resize(span.len(), 0);
                let (got, fault) = self.issue(|| fault::load(&mut bytes, span));
                let end = self.moment();
                self.returned(end, Ok(got as u64), || Payload::Read {
                    data: Bytes::encode(&bytes[..got]),
                    tail_intact: true,
                    fault: signal(fault, map.area),
                })?;
                self.lane.scratch = bytes;
                Ok(())
            }
            Call::Store { map, offset, len } => {
                let (map, span) = self.access(map, offset, len)?;
                let mut bytes = std::mem::take(&mut self.lane.scratch);
                bytes.resize(span.len(), 0);
                let meant = map.offset.saturating_add(offset);
                history::stamp::sign(&mut bytes, run.number, self.line as u16, meant);
                let (put, fault) = self.issue(|| fault::store(span, &bytes));
                let end = self.moment();
                self.lane.scratch = bytes;
                self.returned(end, Ok(put as u64), || Payload::Store {
                    fault: signal(fault, map.area),
                })
            }
            Call::Msync { map, offset, len, flags } => {
                let span = self.part(map, offset, len)?;
                self.plain(|| arena::sync(span, flags))
            }
            Call::Madvise { map, offset, len, advice } => {
                let span = self.part(map, offset, len)?;
                self.plain(|| arena::advise(span, advice))
            }
            Call::Truncate { path, len } => {
                let place = run.place(path.mount).ok_or(SkipReason::Unsupported)?;
                let path = place.path_of(path.name);
                self.plain(|| sys::truncate(&path, len))
            }
            Call::Ftruncate { file, len } => {
                let file = self.file(file)?;
                self.plain(|| done(rustix::fs::ftruncate(&file, len)))
            }
            Call::Fallocate { file, mode, offset, len } => {
                let file = self.file(file)?;
                let mode = FallocateFlags::from_bits_retain(fallocate_bits(mode));
                self.plain(|| done(rustix::fs::fallocate(&file, mode, offset, len)))
            }
            Call::Ficlone { dst, src } => {
                let (dst, src) = (self.file(dst)?, self.file(src)?);
                self.plain(|| done(rustix::fs::ioctl_ficlone(&dst, &src)))
            }
            Call::Ficlonerange { dst, dst_offset, src, src_offset, len } => {
                let (dst, src) = (self.file(dst)?, self.file(src)?);
                self.plain(|| {
                    sys::clone_range(dst.as_fd(), dst_offset, src.as_fd(), src_offset, len)
                })
            }
            Call::Fideduperange { src, src_offset, len, dst, dst_offset } => {
                let (src, dst) = (self.file(src)?, self.file(dst)?);
                let (result, status) = self.issue(|| {
                    sys::dedupe_range(src.as_fd(), src_offset, len, dst.as_fd(), dst_offset)
                });
                self.returned(self.moment(), result, || match result {
                    Ok(_) => Payload::Dedupe { status },
                    Err(_) => Payload::None,
                })
            }
            Call::CopyFileRange { src, mut src_offset, dst, mut dst_offset, len } => {
                let (src, dst) = (self.file(src)?, self.file(dst)?);
                let (from, to) = (Some(&mut src_offset), Some(&mut dst_offset));
                self.plain(|| {
                    count(rustix::fs::copy_file_range(&src, from, &dst, to, len as usize))
                })
            }
            Call::Sendfile { dst, src, mut src_offset, len } => {
                let (dst, src) = (self.file(dst)?, self.file(src)?);
                self.plain(|| {
                    count(rustix::fs::sendfile(&dst, &src, Some(&mut src_offset), len as usize))
                })
            }
            Call::Pipe { slot } => {
                let old = self.table().lock().take_pipe(slot);
                let made = self.issue(|| {
                    if let Some(old) = old {
                        let _ = run.table.close(old.it.write);
                        let _ = run.table.close(old.it.read);
                    }
                    rustix::pipe::pipe()
                });
                let result = seen(made, |(read, write)| {
                    let mount = run.program.home;
                    let pipe =
                        Pipe { read: Handle::new(read, mount), write: Handle::new(write, mount) };
                    // Whoever raced with this line has filled the slot meanwhile.
                    if let Some(old) = run.table.lock().put_pipe(slot, pipe, self.id()) {
                        let _ = run.table.close(old.it.write);
                        let _ = run.table.close(old.it.read);
                    }
                    0
                });
                self.returned(self.moment(), result, || Payload::None)
            }
            Call::SpliceToPipe { file, mut offset, pipe, len } => {
                let (file, pipe) = (self.file(file)?, self.pipe(pipe)?);
                let none = rustix::pipe::SpliceFlags::empty();
                self.plain(|| {
                    count(rustix::pipe::splice(
                        &file,
                        Some(&mut offset),
                        &pipe.write,
                        None,
                        len as usize,
                        none,
                    ))
                })
            }
            Call::SpliceFromPipe { pipe, file, mut offset, len } => {
                let (pipe, file) = (self.pipe(pipe)?, self.file(file)?);
                let none = rustix::pipe::SpliceFlags::empty();
                self.plain(|| {
                    count(rustix::pipe::splice(
                        &pipe.read,
                        None,
                        &file,
                        Some(&mut offset),
                        len as usize,
                        none,
                    ))
                })
            }
            Call::Fsync { file } => {
                let file = self.any_file(file)?;
                self.plain(|| io(file.as_fd(), Request::Fsync))
            }
            Call::Fdatasync { file } => {
                let file = self.any_file(file)?;
                self.plain(|| io(file.as_fd(), Request::Fdsync))
            }
            Call::SyncFileRange { file, offset, len, flags } => {
                let file = self.file(file)?;
                self.plain(|| sys::sync_file_range(file.as_fd(), offset, len, sync_bits(flags)))
            }
            Call::Syncfs { file } => {
                let file = self.file(file)?;
                self.plain(|| done(rustix::fs::syncfs(&file)))
            }
            Call::Statx { file } => {
                let file = self.file(file)?;
                let looked = self.issue(|| facts(&file, file.mount));
                let looked = match self.table().is_tombstone(file.as_fd()) {
                    true => Err(rustix::io::Errno::BADF),
                    false => looked,
                };
                let result = looked.map(|_| 0).map_err(sys::errno);
                self.returned(self.moment(), result, || looked.map_or(Payload::None, Payload::File))
            }
            Call::Fiemap { file } => {
                let file = self.file(file)?;
                let (result, extents) = self.issue(|| sys::fiemap(file.as_fd()));
                self.returned(self.moment(), result, || match result {
                    Ok(_) => Payload::Extents(extents),
                    Err(_) => Payload::None,
                })
            }
            Call::Fork { child } => self.fork(child),
            Call::Exit => {
                if self.lane.index < program::THREADS_MAX.into() {
                    return Err(SkipReason::Unsupported);
                }
                // The conductor records the Return when it has reaped this process.
                self.issue(|| sys::exit(0))
            }
            Call::DropCaches => self.plain(|| done(run.drop_caches())),
            Call::IoUringSetup { slot, entries } => {
                let made = self.issue(|| Ring::new(entries, run.ring_ops.clone()));
                let id = self.id();
                let result = made.map(|(ring, number)| {
                    let ring = Arc::new(ring);
                    let mut slots = run.table.lock();
                    slots.all_rings.push(ring.clone());
                    slots.put_ring(slot, ring, id);
                    number
                });
                self.returned(self.moment(), result, || Payload::None)
            }
            // The conductor's own.
            Call::Wait { .. } => Err(SkipReason::Unsupported),
            _ => self.pins(call),
        }
    }

    fn opened(&mut self, slot: FileSlot, result: rustix::io::Result<Arc<Handle>>) -> Issue<()> {
        // The look comes before the Return takes its place, so that the facts belong to the call's interval; and before the slot is filled, for then
        // another lane may fill it anew and put a tombstone under the number.
        let looked = result.as_ref().ok().and_then(|handle| facts(handle, handle.mount).ok());
        let value = seen(result, |handle| self.put_file(slot, handle));
        self.returned(self.moment(), value, || looked.map_or(Payload::None, Payload::File))
    }

    /// Fills a slot, closes what it held, and returns the new descriptor's number.
    fn put_file(&self, slot: FileSlot, handle: Arc<Handle>) -> u64 {
        use rustix::fd::AsRawFd;
        let number = handle.as_fd().as_raw_fd() as u64;
        let old = self.table().lock().put_file(slot, handle, self.id());
        if let Some(old) = old {
            let _ = self.table().close(old.it);
        }
        number
    }

    /// The range of a load or store.
    fn access(&mut self, slot: MapSlot, offset: u64, len: u64) -> Issue<(Map, Span)> {
        let map = self.map(slot)?;
        let inside =
            offset.checked_add(len).is_some_and(|end| end <= map.area.len && len <= IO_MAX);
        let span = map.area.span(offset, len).filter(|_| inside).ok_or(SkipReason::OutOfRange)?;
        Ok((map, span))
    }

    /// A range that the kernel judges.
    fn part(&mut self, slot: MapSlot, offset: u64, len: u64) -> Issue<Span> {
        self.map(slot)?.area.span(offset, len).ok_or(SkipReason::OutOfRange)
    }

    fn fork(&mut self, child: u8) -> Issue<()> {
        let index = lane_index(Lane::Child(child)).ok_or(SkipReason::Unsupported)?;
        let lane: &LaneControl = &self.recorder.control.lanes[index];
        if self.lane.index >= program::THREADS_MAX.into() || lane.pid.load(Ordering::Acquire) != 0 {
            return Err(SkipReason::Unsupported);
        }
        // The table's lock is the only one of ours that the child wants: nobody else may hold it while memory is copied.
        let began = self.recorder.invoke(self.line, std::mem::take(&mut self.slots));
        lane.renew();
        let guard = self.run.table.lock();
        let has_rings = !guard.all_rings.is_empty();
        let result = sys::fork();
        drop(guard);
        if result == Ok(0) {
            sys::die_with_parent();
            let mut slots = self.run.table.lock();
            slots.forget_regions();
            if !slots.all_rings.is_empty() {
                slots.forget_rings();
                sys::ring::leave_all();
            }
            drop(slots);
            lane.ready.store(1, Ordering::Release);
            let pid = learn_pid();
            lane.tid.store(pid, Ordering::Release);
            lane.pid.store(pid, Ordering::Release);
            self.lane.index = index;
            // The parent's; the child makes its own.
            self.lane.trace = None;
            let (run, recorder) = (self.run, self.recorder);
            let reap = |lane: &mut LaneState| {
                let rings = run.table.lock().all_rings.clone();
                rings.iter().for_each(|ring| ring.reap(&recorder, &mut lane.pool));
                rings.iter().any(|ring| ring.is_busy())
            };
            serve(recorder.control, self.lane, reap, |lane, line| run_line(run, lane, line));
        }
        if let Ok(pid) = result {
            // A ring that is closed later ends only if the child has left it.
            while has_rings
                && lane.ready.load(Ordering::Acquire) == 0
                && !crate::look::is_dead(Pid::from_raw(pid as i32).unwrap_or(Pid::INIT))
            {
                std::thread::yield_now();
            }
            lane.tid.store(pid as u32, Ordering::Release);
            lane.pid.store(pid as u32, Ordering::Release);
        }
        self.recorder.control.kernel_ns.fetch_add(now().saturating_sub(began), Ordering::Relaxed);
        self.returned(self.moment(), result, || Payload::None)
    }
}

/// Serves a lane's queue for ever. What `look` finds to do between lines it does; it says whether it wants to look again soon.
pub fn serve(
    control: &'static Control,
    lane: &mut LaneState,
    mut look: impl FnMut(&mut LaneState) -> bool,
    mut each: impl FnMut(&mut LaneState, usize),
) -> ! {
    // Spinning helps only if another processor can post meanwhile.
    let spins =
        if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) { 2000 } else { 0 };
    let mine = &control.lanes[lane.index];
    loop {
        let finished = mine.finished.get();
        let again = look(lane);
        for _ in 0..spins {
            if again || mine.posted.get() != finished {
                break;
            }
            std::hint::spin_loop();
        }
        mine.posted.wait_while(finished, again.then_some(LOOK_AGAIN));
        if let Some(line) = control.current(lane.index) {
            each(lane, line);
            mine.finished.bump();
        }
    }
}

fn address(result: CallResult) -> Payload {
    result.map_or(Payload::None, Payload::Address)
}

fn signal(fault: Fault, area: Area) -> Option<FaultSignal> {
    let addr = fault.addr.wrapping_sub(area.addr() as u64) as i64;
    (fault.signo != 0).then_some(FaultSignal { signo: fault.signo, code: fault.code, addr })
}
