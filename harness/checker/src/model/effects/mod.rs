//! What each call does to the model, given what it returned.
//!
//! Effects are entered when a call is invoked, because calls that race with it may already see them; the history is complete, so
//! the outcome is known by then. What depends on calls that began later is amended when it returns.

use crate::model::content::Src;
use crate::model::file::{NameOp, Open, Pipe, PosOp, SetProt, SizeOp};
use crate::model::lin::Lin;
use crate::model::value::Val;
use crate::model::{PAGE, ReadOf, World, page_down, page_up};
use history::{CallResult, Errno, Payload};
use program::{Buf, Call, OpenFlags};
use smallvec::smallvec;

mod held;
mod late;
mod layout;
mod memory;
mod pinned;
mod pipes;
mod transfer;

pub use held::Registered;
pub use pinned::{Pinned, Shown};

/// Where a transfer lands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At this offset.
    Offset(u64),
    /// At the file position, which moves along.
    Position,
    /// At the end of file (O_APPEND), whatever offset was given.
    Append,
}

/// One end of a transfer that is not the file: buffers in turn.
type Iov<'a> = &'a [(Buf, u64)];

const EINVAL: Errno = Errno(22);

fn signed(call: u16, delta: i64) -> Src {
    Src::Vals(smallvec![Val::Signed { call, delta }])
}

fn zero() -> Src {
    Src::Vals(smallvec![Val::Zero])
}

fn any() -> Src {
    Src::Vals(smallvec![Val::Any])
}

/// Difference of two offsets, as a delta from place to source.
fn delta(source: u64, place: u64) -> i64 {
    (source as i64).wrapping_sub(place as i64)
}

impl<'a> World<'a> {
    /// Enters the effects of a call that is being invoked.
    pub(super) fn effects(&mut self, call: u16) {
        let result = self.seen[call as usize].result;
        self.behind_gate(call);
        self.note_buffer(call);
        match self.call_of(call) {
            Call::Open { path, access, flags, .. } => {
                self.open(call, *path, *access, *flags, result);
            }
            Call::Dup { .. } => {
                if let (Some(open), Some(Ok(_))) = (self.open_in(call, 0), result) {
                    self.fds.insert(call, open);
                }
            }
            Call::Unlink { path } => {
                let name = path.name as usize;
                self.name_op(call, path.mount, result, NameOp::Unlink { name }, name);
            }
            Call::Rename { from, to } if from.mount == to.mount => {
                let (a, b) = (from.name as usize, to.name as usize);
                self.name_op(call, from.mount, result, NameOp::Rename { from: a, to: b }, a);
            }
            Call::Link { from, to } if from.mount == to.mount => {
                let (a, b) = (from.name as usize, to.name as usize);
                // ENOENT does not say that the name was absent: the file may have lost it after it was found.
                if result != Some(Err(Errno(2))) {
                    self.name_op(call, from.mount, result, NameOp::Link { from: a, to: b }, a);
                }
            }
            Call::Pread { offset, buf, len, .. } => {
                self.read_in(call, At::Offset(*offset), &[(*buf, *len)], result);
            }
            Call::Preadv { offset, iov, .. } => {
                self.read_in(call, At::Offset(*offset), iov, result)
            }
            Call::Readv { iov, .. } => self.read_in(call, At::Position, iov, result),
            Call::Pwrite { offset, buf, len, .. } => {
                self.write_out(call, At::Offset(*offset), *offset, &[(*buf, *len)], result);
            }
            Call::Pwritev { offset, iov, .. } => {
                self.write_out(call, At::Offset(*offset), *offset, iov, result);
            }
            Call::Writev { iov, .. } => self.write_out(call, At::Position, 0, iov, result),
            Call::Lseek { .. } => {
                if let (Some(open), Some(Ok(to))) = (self.open_in(call, 0), result) {
                    self.pos_op(call, open, PosOp::Set(to));
                }
            }
            Call::Mmap { offset, len, prot, sharing, flags, .. } => {
                if let (Some(open), Some(Ok(_))) = (self.open_in(call, 0), result) {
                    self.mmap(call, open, *offset, page_up(*len), *prot, *sharing, *flags);
                }
            }
            Call::Mremap { len, .. } => {
                if let Some(Ok(_)) = result {
                    self.mremap(call, page_up(*len));
                }
            }
            Call::Mprotect { prot, .. } => {
                let key = self.map_key(call, 0);
                let (span, settled) = (self.span(call), self.idle_since());
                let sure = matches!(result, Some(Ok(_)));
                let may = sure || matches!(result, Some(Err(Errno(12))) | None);
                if let (true, Some(map)) = (may, key.and_then(|k| self.maps.get_mut(&k))) {
                    map.prot.push(span, SetProt { to: prot.0, sure }, settled, &self.order);
                }
            }
            Call::Load { offset, .. } => {
                if let (Some(map), Some(Ok(n))) = (self.map_in(call, 0), result) {
                    let (obj, start) = self.view(map, *offset);
                    let read = ReadOf { obj, start, mapped: Some(map.file), skip: 0, len: n };
                    self.pending[call as usize].reads.push(read);
                }
            }
            Call::Store { offset, len, .. } => {
                if let Some(map) = self.map_in(call, 0).cloned() {
                    let (n, sure) = done(result, *len);
                    let meant = map.offset + offset;
                    self.store(call, &map, *offset, n, sure, false, |place| {
                        signed(call, delta(meant, place))
                    });
                }
            }
            Call::Madvise { offset, len, advice, .. } => {
                self.madvise(call, *offset, *len, *advice, result);
            }
            Call::Truncate { path, len } => self.truncate(call, *path, *len, result),
            Call::Ftruncate { len, .. } => {
                if let Some(open) = self.open_in(call, 0) {
                    let file = self.opens[open].file;
                    if !matches!(result, Some(Err(_))) {
                        self.set_size(call, file, *len, result.is_some());
                    }
                }
            }
            Call::Fallocate { mode, offset, len, .. } => {
                if let Some(open) = self.open_in(call, 0) {
                    let file = self.opens[open].file;
                    self.fallocate(call, file, *mode, *offset, *len, result);
                }
            }
            Call::Ficlone { .. } => self.clone_range(call, (0, 1), 0, 0, 0, result),
            Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
                self.clone_range(call, (0, 1), *dst_offset, *src_offset, *len, result);
            }
            Call::CopyFileRange { src_offset, dst_offset, len, .. } => {
                if let (Some(src), Some(dst)) = (self.open_in(call, 0), self.open_in(call, 1)) {
                    let (n, sure) = done(result, *len);
                    self.shares(self.opens[src].file, self.opens[dst].file);
                    let source = self.files[self.opens[src].file].obj;
                    self.land(call, dst, At::Offset(*dst_offset), n, sure, false, |p| {
                        vec![(
                            0,
                            n,
                            Src::Copy { obj: source, delta: delta(*src_offset, p), before: false },
                        )]
                    });
                    // By reflink, where it can: pages of the destination then leave the page cache.
                    let file = self.opens[dst].file;
                    if self.files[file].is_xfs() && n > 0 {
                        let end = page_up(dst_offset.saturating_add(n));
                        self.touch_file(call, file, (page_down(*dst_offset), end), Kind::Drop);
                    }
                }
            }
            Call::Fideduperange { len, dst_offset, .. } => {
                if let (Some(src), Some(dst)) = (self.open_in(call, 0), self.open_in(call, 1)) {
                    let (src, dst) = (self.opens[src].file, self.opens[dst].file);
                    self.shares(src, dst);
                    // The destination's pages are dropped before its blocks are replaced by equal ones, also pages that are held
                    // (fs/xfs/xfs_reflink.c:xfs_reflink_remap_prep, 6.12).
                    let seen = &self.seen[call as usize];
                    let differs = matches!(seen.payload, Some(Payload::Dedupe { status: 1.. }));
                    let end = dst_offset.saturating_add(*len);
                    if !differs
                        && !matches!(result, Some(Err(_)))
                        && self.files[dst].on(program::Mount::Xfs)
                    {
                        self.touch_file(call, dst, (*dst_offset, end), Kind::Drop);
                    }
                    // Known: a false "same" gives the destination the source's unwritten extents.
                    let same = matches!(
                        self.seen[call as usize].payload,
                        Some(Payload::Dedupe { status: 0 })
                    );
                    let known = self.files[dst].on(program::Mount::XfsDax)
                        && self.policy.knows(crate::Known::DaxDedupeMedia);
                    if same && known {
                        let range = (*dst_offset, dst_offset.saturating_add(*len));
                        let obj = self.files[dst].obj;
                        self.assign(call, obj, range, zero(), false);
                    }
                }
            }
            Call::Sendfile { src_offset, len, .. } => {
                if let (Some(dst), Some(src)) = (self.open_in(call, 0), self.open_in(call, 1)) {
                    let (n, sure) = done(result, *len);
                    let source = self.files[self.opens[src].file].obj;
                    self.land(call, dst, At::Position, n, sure, true, |p| {
                        vec![(
                            0,
                            n,
                            Src::Copy { obj: source, delta: delta(*src_offset, p), before: false },
                        )]
                    });
                }
            }
            Call::Pipe { .. } => {
                if let Some(Ok(_)) = result {
                    let obj = self.object(any(), None);
                    let pipe = Pipe {
                        obj,
                        head: 0,
                        tail: 0,
                        last_out: None,
                        confused: false,
                        refs: Vec::new(),
                        taken: Vec::new(),
                    };
                    self.pipes.insert(call, pipe);
                }
            }
            Call::SpliceToPipe { offset, .. } => match (self.open_in(call, 0), result) {
                (Some(open), Some(Ok(n))) => self.splice_in(call, open, *offset, n),
                (Some(_), None) => self.lost_in_pipes(call),
                _ => {}
            },
            Call::SpliceFromPipe { offset, len, .. } => match (self.open_in(call, 1), result) {
                (Some(open), Some(Ok(n))) => self.splice_out(call, open, *offset, n),
                (Some(open), None) => {
                    self.lost_in_pipes(call);
                    let part = |_| vec![(0, *len, any())];
                    self.land(call, open, At::Offset(*offset), *len, false, false, part);
                }
                _ => {}
            },
            Call::OpenGate { gate, access, flags, .. } => {
                self.open_gate(call, *gate, *access, *flags, result);
            }
            Call::Vmsplice { offset, len, .. } => self.vmsplice(call, *offset, *len, result),
            Call::Tee { len, .. } => self.tee(call, *len, result),
            Call::ReadPipe { buf, len, .. } => self.read_pipe(call, *buf, *len, result),
            Call::ProcessVmReadv { offset, len, .. } => {
                self.given(call, 0, &[(Buf::Map(program::MapSlot(0), *offset), *len)], false);
                self.read_memory(call, *offset, *len, result);
            }
            Call::ProcessVmWritev { offset, len, .. } => {
                self.given(call, 0, &[(Buf::Map(program::MapSlot(0), *offset), *len)], true);
                self.write_memory(call, *offset, *len, true, result);
            }
            Call::ProcMemPread { offset, len, .. } => {
                self.read_memory(call, *offset, *len, result);
            }
            Call::ProcMemPwrite { offset, len, .. } => {
                self.write_memory(call, *offset, *len, false, result);
            }
            Call::RegisterBuffers { offset, len, .. } | Call::UpdateBuffers { offset, len, .. } => {
                self.register(call, *offset, *len, result);
            }
            Call::RegMr { offset, len, access, .. } => {
                self.register_region(call, *offset, *len, *access, result);
            }
            Call::RdmaWrite { from, to, len, .. } => {
                self.rdma(call, (0, *from), (1, *to), *len, result);
            }
            Call::RdmaRead { to, from, len, .. } => {
                self.rdma(call, (1, *from), (0, *to), *len, result);
            }
            Call::DeregMr { .. } => self.deregister_region(call),
            Call::PinLongtermTestStart { buf, len, flags } => {
                self.longterm_test_start(call, *buf, *len, *flags, result);
            }
            Call::PinLongtermTestRead => self.longterm_test_read(call),
            Call::PinBasicTest { offset, len, flags, .. } => {
                self.basic_test(call, *offset, *len, *flags);
            }
            Call::CloneBuffers { .. } => self.clone_buffers(call, result),
            Call::SendFd { .. } => self.send_fd(call, result),
            // They only hold, ask or tell; `model/gate`, `model/pin` and `model/lease` read them off the history.
            Call::Close { .. }
            | Call::Munmap { .. }
            | Call::Msync { .. }
            | Call::Fsync { .. }
            | Call::Fdatasync { .. }
            | Call::SyncFileRange { .. }
            | Call::Syncfs { .. }
            | Call::Statx { .. }
            | Call::Fiemap { .. }
            | Call::Rename { .. }
            | Call::Link { .. }
            | Call::Fork { .. }
            | Call::Exit
            | Call::DropCaches
            | Call::IoUringSetup { .. }
            | Call::Wait { .. }
            | Call::Hold { .. }
            | Call::Release { .. }
            | Call::ClosePipe { .. }
            | Call::UnregisterBuffers { .. }
            | Call::CloseRing { .. }
            | Call::PinLongtermTestStop
            | Call::Setlease { .. }
            | Call::Getlease { .. }
            | Call::Setsig { .. }
            | Call::SetownEx { .. }
            | Call::OnBreak { .. }
            | Call::LeaseBreakTime { .. }
            | Call::Kill { .. }
            | Call::Interrupt { .. }
            | Call::RecvFd { .. } => {}
        }
    }

    /// What can only be said once everything that raced with the call is known.
    pub(super) fn after_return(&mut self, call: u16) {
        match self.call_of(call) {
            Call::Fork { child } => {
                if let Some(Ok(_)) = self.seen[call as usize].result {
                    self.fork(call, *child);
                }
            }
            Call::Readv { .. } => self.amend_read(call),
            Call::Pwrite { .. }
            | Call::Pwritev { .. }
            | Call::Writev { .. }
            | Call::Sendfile { .. } => {
                self.amend_places(call);
            }
            Call::UnregisterBuffers { .. } | Call::CloseRing { .. } => self.unregister(call),
            Call::RecvFd { .. } => self.recv_fd(call),
            Call::Ficlone { .. } => self.amend_clone(call, 0, 0, 0),
            Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
                self.amend_clone(call, *dst_offset, *src_offset, *len);
            }
            _ => {}
        }
    }

    /// An open that never returned: its process was killed while it waited. It may have created or truncated.
    fn open_lost(&mut self, call: u16, path: program::Path, flags: OpenFlags) {
        let name = path.name as usize;
        let states = self.name_states(path.mount, self.span(call), None);
        let racing = self.names_in_motion(path.mount, self.span(call));
        if flags.has(OpenFlags::CREAT) && (racing || states.iter().any(|s| s[name].is_none())) {
            // Which file it made is unknown.
            self.overflow = true;
            return;
        }
        if flags.has(OpenFlags::TRUNC) {
            let files: Vec<usize> = (0..self.files.len())
                .filter(|f| racing || states.iter().any(|s| s[name] == Some(*f as u32)))
                .filter(|f| self.files[*f].on(path.mount))
                .collect();
            for file in files {
                self.set_size(call, file, 0, false);
            }
        }
    }

    fn map_key(&self, call: u16, n: usize) -> Option<(u8, u16)> {
        let filler = self.seen[call as usize].slots.get(n)?.0;
        Some((Self::process(self.line(call).lane), filler))
    }

    fn pos_op(&mut self, call: u16, open: usize, op: PosOp) {
        let (span, settled) = (self.span(call), self.idle_since());
        self.opens[open].pos.push(span, op, settled, &self.order);
        self.overflow |= self.opens[open].pos.overflowed();
    }

    fn size_op(&mut self, call: u16, file: usize, op: SizeOp) {
        let (span, settled) = (self.span(call), self.idle_since());
        self.files[file].size.push(span, op, settled, &self.order);
        self.overflow |= self.files[file].size.overflowed();
    }

    fn name_op(
        &mut self,
        call: u16,
        mount: program::Mount,
        result: Option<CallResult>,
        op: NameOp,
        looked_up: usize,
    ) {
        let op = match result {
            Some(Ok(_)) => op,
            Some(Err(Errno(2))) => NameOp::Absent { name: looked_up },
            Some(Err(_)) => return,
            None => NameOp::Maybe(Box::new(op)),
        };
        let (span, settled) = (self.span(call), self.idle_since());
        let Some(names) = self.names.get_mut(&mount) else { return };
        names.push(span, op, settled, &self.order);
        self.overflow |= names.overflowed();
    }

    fn open(
        &mut self,
        call: u16,
        path: program::Path,
        access: program::Access,
        flags: OpenFlags,
        result: Option<CallResult>,
    ) {
        let name = path.name as usize;
        let create = flags.has(OpenFlags::CREAT);
        let exclusive = flags.has(OpenFlags::EXCL);
        match (result, self.seen[call as usize].payload) {
            (Some(Ok(_)), Some(Payload::File(facts))) => {
                let file = self.file_by_id(facts.id, path, Some(*facts));
                let op = NameOp::Open { name, file: file as u32, create, exclusive };
                self.name_op(call, path.mount, result, op, name);
                if flags.has(OpenFlags::TRUNC) {
                    self.set_size(call, file, 0, true);
                }
                self.opens.push(Open { file, access, flags, pos: Lin::new(0) });
                self.fds.insert(call, self.opens.len() - 1);
            }
            (Some(Ok(_)), _) => self.malformed = true,
            (Some(Err(Errno(2))), _) => {
                self.name_op(call, path.mount, result, NameOp::Absent { name }, name);
            }
            (Some(Err(Errno(17))), _) => {
                self.name_op(call, path.mount, Some(Ok(0)), NameOp::Present { name }, name);
            }
            (None, _) => self.open_lost(call, path, flags),
            (Some(Err(_)), _) => {}
        }
    }
}

/// How a call meets the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It may dirty pages.
    Dirty,
    /// It may dirty pages, and drops some.
    Drop,
    /// It writes to the device past the page cache.
    Direct,
    /// It writes into pinned pages.
    Pinned,
}

/// Whether a write whose buffer is a mapping came back with less than all.
fn lost_a_fault(iov: Iov, result: Option<CallResult>) -> bool {
    let total: u64 = iov.iter().map(|(_, l)| *l).sum();
    let mapped = iov.iter().any(|(buf, _)| matches!(buf, Buf::Map(..)));
    mapped && !matches!(result, Some(Ok(n)) if n >= total)
}

/// Where an O_DIRECT write may stop in its buffer: at the start of a segment, and at pages of segments that are mappings, rounded down to sectors.
fn stops(iov: Iov) -> impl Iterator<Item = u64> {
    let mut k = 0;
    let mut all = Vec::new();
    for (buf, len) in iov {
        all.push(k / 512 * 512);
        if let Buf::Map(_, offset) = buf {
            let mut page = page_down(*offset) + PAGE;
            while page < offset + len {
                all.push((k + page - offset) / 512 * 512);
                page += PAGE;
            }
        }
        k += len;
    }
    all.into_iter().filter(|stop| *stop > 0)
}

/// Where a clone ends in its destination, by the sizes that its source may have; 0 where there is nothing to clone. Length 0 is to the end.
fn clone_ends(sizes: &[u64], dst_offset: u64, src_offset: u64, len: u64) -> Vec<u64> {
    let mut ends: Vec<u64> = sizes
        .iter()
        .map(|size| if len == 0 { *size } else { (*size).min(src_offset.saturating_add(len)) })
        .map(|end| end.saturating_sub(src_offset))
        .map(|n| if n == 0 { 0 } else { dst_offset.saturating_add(n) })
        .collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// How many bytes a transfer surely or possibly moved.
fn done(result: Option<CallResult>, total: u64) -> (u64, bool) {
    match result {
        Some(Ok(n)) => (n.min(total), true),
        Some(Err(_)) => (0, false),
        None => (total, false),
    }
}
