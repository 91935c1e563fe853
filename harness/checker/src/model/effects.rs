//! What each call does to the model, given what it returned.
//!
//! Effects are entered when a call is invoked, because calls that race with it may already see them; the history is complete, so
//! the outcome is known by then. What depends on calls that began later is amended when it returns.

use super::content::{ObjId, Src, Version};
use super::file::{Map, NameOp, Open, Pipe, PosOp, SetProt, SizeOp, Touch};
use super::lin::Lin;
use super::order::{NEVER, NOBODY, Span};
use super::value::Val;
use super::{PAGE, ReadOf, World, maybe, page_down, page_up};
use history::{CallResult, Errno, Payload};
use program::{
    Advice, Buf, Call, FallocateMode, MapFlags, OpenFlags, Prot, Sharing,
};
use smallvec::smallvec;

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
                self.name_op(call, from.mount, result, NameOp::Link { from: a, to: b }, a);
            }
            Call::Pread { offset, buf, len, .. } => {
                self.read_in(call, At::Offset(*offset), &[(*buf, *len)], result);
            }
            Call::Preadv { offset, iov, .. } => self.read_in(call, At::Offset(*offset), iov, result),
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
                if let (Some(Ok(_)), Some(map)) = (result, key.and_then(|k| self.maps.get_mut(&k))) {
                    map.prot.push(span, SetProt(prot.0), settled, &self.order);
                }
            }
            Call::Load { offset, .. } => {
                if let (Some(map), Some(Ok(n))) = (self.map_in(call, 0), result) {
                    let (obj, start) = self.view(map, *offset);
                    self.pending[call as usize].reads.push(ReadOf { obj, start, skip: 0, len: n });
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
                    let source = self.files[self.opens[src].file].obj;
                    self.into_file(call, dst, At::Offset(*dst_offset), n, sure, false, |p| {
                        vec![(0, n, Src::Copy { obj: source, delta: delta(*src_offset, p), before: false })]
                    });
                }
            }
            Call::Sendfile { src_offset, len, .. } => {
                if let (Some(dst), Some(src)) = (self.open_in(call, 0), self.open_in(call, 1)) {
                    let (n, sure) = done(result, *len);
                    let source = self.files[self.opens[src].file].obj;
                    self.into_file(call, dst, At::Position, n, sure, true, |p| {
                        vec![(0, n, Src::Copy { obj: source, delta: delta(*src_offset, p), before: false })]
                    });
                }
            }
            Call::Pipe { .. } => {
                if let Some(Ok(_)) = result {
                    let obj = self.object(any(), None);
                    let pipe = Pipe { obj, head: 0, tail: 0, last: [None; 2], confused: false };
                    self.pipes.insert(call, pipe);
                }
            }
            Call::SpliceToPipe { offset, .. } => {
                if let (Some(open), Some(Ok(n))) = (self.open_in(call, 0), result) {
                    self.splice_in(call, open, *offset, n);
                }
            }
            Call::SpliceFromPipe { offset, .. } => {
                if let (Some(open), Some(Ok(n))) = (self.open_in(call, 1), result) {
                    self.splice_out(call, open, *offset, n);
                }
            }
            _ => {}
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
            Call::Pwrite { .. } | Call::Pwritev { .. } | Call::Writev { .. } | Call::Sendfile { .. } => {
                self.amend_places(call);
            }
            Call::Ficlone { .. } => self.amend_clone(call, 0, 0, 0),
            Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
                self.amend_clone(call, *dst_offset, *src_offset, *len);
            }
            _ => {}
        }
    }

    /// A clone whose source changed its size meanwhile may have ended at any of the sizes it had.
    fn amend_clone(&mut self, call: u16, dst_offset: u64, src_offset: u64, len: u64) {
        let (Some(dst), Some(src)) = (self.open_in(call, 0), self.open_in(call, 1)) else { return };
        let (dst, src) = (self.opens[dst].file, self.opens[src].file);
        let sizes = self.files[src].size.during(self.span(call), Some(call), &self.order);
        let ends = clone_ends(&sizes, dst_offset, src_offset, len);
        self.files[dst].size.amend(call, |op| {
            if let SizeOp::Maybe(op) = op {
                **op = SizeOp::Max(ends);
            }
        });
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
            // An open that never returned may have created or truncated: which file is unknown.
            (None, _) => self.overflow = true,
            (Some(Err(_)), _) => {}
        }
    }

    /// Zeroes what becomes part of the file when it grows to `upto`.
    fn grow(&mut self, call: u16, file: usize, upto: u64, sure: bool) {
        if !self.files[file].tail_stored {
            return;
        }
        let span = self.span(call);
        let (min, max) = self.sizes(file, Span { ret: span.inv, ..span }, Some(call));
        let obj = self.files[file].obj;
        self.assign(call, obj, (min, max.min(upto)), zero(), false);
        self.assign(call, obj, (max, upto), zero(), sure);
    }

    fn touch_file(&mut self, call: u16, file: usize, range: (u64, u64), kind: Kind) {
        let touch = Touch {
            span: self.span(call),
            range,
            dirties: kind != Kind::Direct,
            direct_write: kind == Kind::Direct,
            drops: matches!(kind, Kind::Direct | Kind::Drop),
            pinned: kind == Kind::Pinned,
        };
        self.touch(file, touch);
    }

    fn set_size(&mut self, call: u16, file: usize, len: u64, sure: bool) {
        let obj = self.files[file].obj;
        self.touch_file(call, file, (len, u64::MAX), Kind::Drop);
        self.grow(call, file, len, sure);
        self.size_op(call, file, maybe(SizeOp::Set(len), sure));
        self.assign(call, obj, (len, u64::MAX), zero(), sure);
        // Private copies of pages past the new end are dropped as well (mm/truncate.c:truncate_pagecache, even_cows, 6.12).
        self.drop_private(call, file, page_up(len), u64::MAX, sure);
    }

    /// Private pages of a file range go back to showing the file.
    fn drop_private(&mut self, call: u16, file: usize, start: u64, end: u64, sure: bool) {
        let maps: Vec<Map> =
            self.maps.values().filter(|m| m.file == file && m.private.is_some()).cloned().collect();
        for map in maps {
            let Some(obj) = map.private else { continue };
            let from = start.saturating_sub(map.offset);
            let to = end.saturating_sub(map.offset);
            let through = Src::Through { obj: self.files[file].obj, delta: map.offset as i64 };
            self.assign(call, obj, (from, to), through, sure);
        }
    }

    fn truncate(&mut self, call: u16, path: program::Path, len: u64, result: Option<CallResult>) {
        let name = path.name as usize;
        match result {
            Some(Err(Errno(2))) => {
                self.name_op(call, path.mount, result, NameOp::Absent { name }, name);
                return;
            }
            Some(Err(_)) => return,
            _ => {}
        }
        let span = self.span(call);
        self.name_op(call, path.mount, result, NameOp::Present { name }, name);
        let states = self.name_states(path.mount, span, None);
        let mut files: Vec<usize> =
            states.iter().filter_map(|s| s[name]).map(|f| f as usize).collect();
        files.sort_unstable();
        files.dedup();
        // Names may also change later within the interval: then any of the files may be meant.
        let names_race = self.names_in_motion(path.mount, span);
        if names_race {
            files = (0..self.files.len()).filter(|f| self.files[*f].id.mount == path.mount).collect();
        }
        let sure = files.len() == 1 && result.is_some() && !names_race;
        for file in files {
            self.set_size(call, file, len, sure);
        }
    }

    /// Whether a call that changes names of the mount overlaps a span.
    fn names_in_motion(&self, mount: program::Mount, span: Span) -> bool {
        (0..self.program.lines.len() as u16).any(|k| {
            let other = self.span(k);
            let overlaps = k != span.call
                && self.seen[k as usize].inv.is_some()
                && !self.order.before(other, span)
                && !self.order.before(span, other);
            overlaps
                && match self.call_of(k) {
                    Call::Open { path, flags, .. } => {
                        path.mount == mount && flags.has(OpenFlags::CREAT)
                    }
                    Call::Unlink { path } => path.mount == mount,
                    Call::Rename { to, .. } | Call::Link { to, .. } => to.mount == mount,
                    _ => false,
                }
        })
    }

    fn fallocate(
        &mut self,
        call: u16,
        file: usize,
        mode: FallocateMode,
        offset: u64,
        len: u64,
        result: Option<CallResult>,
    ) {
        use FallocateMode as M;
        // A failure half-way may have done part of its work: ENOSPC, EIO, EINTR.
        let sure = matches!(result, Some(Ok(_)));
        let may = match result {
            Some(Err(Errno(e))) => matches!(e, 4 | 5 | 12 | 28),
            _ => true,
        };
        if !may {
            return;
        }
        let end = offset.saturating_add(len);
        let obj = self.files[file].obj;
        let span = self.span(call);
        match mode {
            M::KeepSize | M::PunchHoleBare => {}
            M::Allocate | M::UnshareRange => {
                self.touch_file(call, file, (offset, end), Kind::Dirty);
                self.grow(call, file, end, sure);
                self.size_op(call, file, maybe(SizeOp::Max(vec![end]), sure));
            }
            M::PunchHole | M::ZeroRange | M::ZeroRangeKeepSize => {
                self.touch_file(call, file, (offset, end), Kind::Drop);
                if mode == M::ZeroRange {
                    self.grow(call, file, end, sure);
                    self.size_op(call, file, maybe(SizeOp::Max(vec![end]), sure));
                }
                self.assign(call, obj, (offset, end), zero(), sure);
            }
            M::CollapseRange => {
                self.touch_file(call, file, (offset, u64::MAX), Kind::Drop);
                self.assign(call, obj, (offset, u64::MAX - len), Src::Copy { obj, delta: len as i64, before: true }, sure);
                self.assign(call, obj, (u64::MAX - len, u64::MAX), zero(), sure);
                self.size_op(call, file, maybe(SizeOp::Shrink(len), sure));
                // ext4 drops private copies too (fs/ext4/extents.c:ext4_collapse_range, truncate_pagecache), XFS keeps them.
                self.drop_private(call, file, page_down(offset), u64::MAX, false);
            }
            M::InsertRange => {
                self.touch_file(call, file, (offset, u64::MAX), Kind::Drop);
                self.assign(call, obj, (offset, end), zero(), sure);
                self.assign(call, obj, (end, u64::MAX), Src::Copy { obj, delta: -(len as i64), before: true }, sure);
                self.size_op(call, file, maybe(SizeOp::Grow(len), sure));
                self.drop_private(call, file, page_down(offset), u64::MAX, false);
            }
        }
        let _ = span;
    }

    fn clone_range(
        &mut self,
        call: u16,
        (dst, src): (usize, usize),
        dst_offset: u64,
        src_offset: u64,
        len: u64,
        result: Option<CallResult>,
    ) {
        let (Some(dst), Some(src)) = (self.open_in(call, dst), self.open_in(call, src)) else {
            return;
        };
        let sure = matches!(result, Some(Ok(_)));
        // A range that ends past the source's end is cloned up to there and then refused (fs/ioctl.c:ioctl_file_clone, 6.12).
        let may = match result {
            Some(Err(e)) => {
                matches!(e.0, 4 | 5 | 12 | 28) || e == EINVAL && len != 0
            }
            _ => true,
        };
        let (dst, src) = (self.opens[dst].file, self.opens[src].file);
        if !may || self.files[dst].id.mount != self.files[src].id.mount {
            return;
        }
        let span = self.span(call);
        // What races with it may change the source's size, and so how much is cloned: amended on return.
        let racing = self.any_overlap(call, |_| true);
        let sizes = self.files[src].size.during(Span { ret: span.inv, ..span }, None, &self.order);
        let ends = clone_ends(&sizes, dst_offset, src_offset, len);
        let end = ends.iter().copied().max().unwrap_or(0);
        if end == 0 && !racing {
            // Nothing to clone: nothing happens, not even to the size (fs/remap_range.c:__generic_remap_file_range_prep, 6.12).
            return;
        }
        let sure = sure && !racing && ends.len() == 1;
        let end = if racing { u64::MAX } else { end };
        let (from, to) = (self.files[src].obj, self.files[dst].obj);
        self.touch_file(call, dst, (dst_offset, end), Kind::Drop);
        self.grow(call, dst, end, sure);
        self.files[dst].tail_stored |= self.files[src].tail_stored;
        self.size_op(call, dst, maybe(SizeOp::Max(ends), sure));
        let copy = Src::Copy { obj: from, delta: delta(src_offset, dst_offset), before: false };
        self.assign(call, to, (dst_offset, page_up(end)), copy, sure);
    }

    fn mmap(
        &mut self,
        call: u16,
        open: usize,
        offset: u64,
        len: u64,
        prot: Prot,
        sharing: Sharing,
        flags: MapFlags,
    ) {
        let file = self.opens[open].file;
        let viewed = self.files[file].obj;
        let process = Self::process(self.line(call).lane);
        let private = (sharing == Sharing::Private).then(|| {
            self.object(Src::Through { obj: viewed, delta: offset as i64 }, Some(file))
        });
        let prot_reg = Lin::new(prot.0);
        let len_now = (len, len);
        let map = Map { open, file, offset, len: len_now, sharing, prot: prot_reg, private };
        self.maps.insert((process, call), map);
        if let Some(obj) = private
            && flags.has(MapFlags::POPULATE)
            && prot.has(Prot::WRITE)
        {
            // Populating a writable private mapping breaks copy-on-write at once, as far as it gets (mm/gup.c:populate_vma_page_range, 6.12).
            self.assign(call, obj, (0, len), Src::Copy { obj: viewed, delta: offset as i64, before: false }, false);
        }
    }

    fn mremap(&mut self, call: u16, len: u64) {
        let Some(key) = self.map_key(call, 0) else { return };
        let Some(map) = self.maps.get(&key).cloned() else { return };
        if let Some(obj) = map.private
            && len < map.len.1
        {
            let through = Src::Through { obj: self.files[map.file].obj, delta: map.offset as i64 };
            self.assign(call, obj, (len, u64::MAX), through, true);
        }
        let racing = self.any_overlap(call, |k| matches!(self.call_of(k), Call::Mremap { .. }));
        if let Some(map) = self.maps.get_mut(&key) {
            map.len = if racing { (map.len.0.min(len), map.len.1.max(len)) } else { (len, len) };
        }
    }

    /// Bytes arrive in memory at a mapping: stores, and reads whose buffer it is.
    fn store(
        &mut self,
        call: u16,
        map: &Map,
        offset: u64,
        n: u64,
        sure: bool,
        pinned: bool,
        src: impl Fn(u64) -> Src,
    ) {
        if n == 0 {
            return;
        }
        let (obj, start) = self.view(map, offset);
        let end = start + n;
        let span = self.span(call);
        if map.private.is_some() {
            // Copy on write: the rest of each page touched is a copy of what it showed.
            let (first, last) = (page_down(start), page_up(end));
            if !self.objects[obj.0 as usize].is_opaque(first, last) {
                for (a, b) in [(first, start), (end, last)] {
                    self.assign(call, obj, (a, b), Src::Copy { obj, delta: 0, before: false }, sure);
                }
            }
        } else {
            let (min, _) = self.sizes(map.file, span, Some(call));
            self.files[map.file].tail_stored |= end > min;
            let kind = if pinned { Kind::Pinned } else { Kind::Dirty };
            self.touch_file(call, map.file, (start, end), kind);
        }
        self.assign(call, obj, (start, end), src(start), sure);
    }

    /// A read: the file at one end, anonymous memory and mappings at the other.
    fn read_in(&mut self, call: u16, at: At, iov: Iov, result: Option<CallResult>) {
        let Some(open) = self.open_in(call, 0) else { return };
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let (n, sure) = done(result, total);
        let file = self.opens[open].file;
        let direct = self.opens[open].flags.has(OpenFlags::DIRECT) && !self.files[file].id.mount.is_dax();
        if at == At::Position && result.is_some_and(|r| r.is_ok()) {
            self.pos_op(call, open, PosOp::Add(n));
        }
        let places = self.places(call, open, at);
        let source = self.files[file].obj;
        // An O_DIRECT read that failed may have delivered a part. One that succeeds goes on past the end of file to the end of the buffer,
        // with zeros there, and only the count is trimmed (fs/iomap/direct-io.c:__iomap_dio_rw, iomap_dio_hole_iter, 6.12).
        let failed_part = matches!(result, Some(Err(Errno(4 | 5 | 14 | 22))));
        let reach = if direct && (failed_part || n > 0) { total } else { n };
        let mut k = 0;
        let mut slot = 1;
        for (buf, len) in iov {
            let in_result = n.saturating_sub(k).min(*len);
            let in_reach = reach.saturating_sub(k).min(*len);
            match buf {
                Buf::Anon(_) => {
                    if in_result > 0 && result.is_some() {
                        let start = places.first().map_or(0, |p| p + k);
                        let read = ReadOf { obj: source, start, skip: k, len: in_result };
                        self.pending[call as usize].reads.push(read);
                    }
                }
                Buf::Map(_, offset) => {
                    if let Some(map) = self.map_in(call, slot).cloned() {
                        let from = |place: u64| match places[..] {
                            [p] => Src::Copy { obj: source, delta: delta(p + k, place), before: false },
                            _ => any(),
                        };
                        let known = sure && places.len() == 1;
                        self.store(call, &map, *offset, in_result, known, direct, from);
                        if in_reach > in_result {
                            let more = in_reach - in_result;
                            let place = *offset + in_result;
                            let from = |at: u64| match places[..] {
                                [p] => Src::Copy { obj: source, delta: delta(p + k + in_result, at), before: false },
                                _ => any(),
                            };
                            self.store(call, &map, place, more, false, direct, from);
                        }
                    }
                    slot += 1;
                }
            }
            k += len;
        }
    }

    /// A write: anonymous memory and mappings at one end, the file at the other. `base` is the offset that anonymous bytes are signed for.
    fn write_out(&mut self, call: u16, at: At, base: u64, iov: Iov, result: Option<CallResult>) {
        let Some(open) = self.open_in(call, 0) else { return };
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let file = self.opens[open].file;
        let direct = self.opens[open].flags.has(OpenFlags::DIRECT) && !self.files[file].id.mount.is_dax();
        let (n, sure) = match result {
            // What was written before an O_DIRECT write failed is on the device (fs/iomap/direct-io.c, 6.12).
            Some(Err(Errno(4 | 5 | 14 | 22 | 28))) if direct => (total, false),
            other => done(other, total),
        };
        let at = if self.opens[open].flags.has(OpenFlags::APPEND) { At::Append } else { at };
        if let Some(Err(errno)) = result {
            self.failed_write(call, open, at, iov, errno, direct);
        }
        if direct && self.policy.knows(crate::Known::DirectWriteFault) && lost_a_fault(iov, result) {
            self.direct_write_fault(call, open, at, iov);
        }
        let position = matches!(self.call_of(call), Call::Writev { .. });
        let mut slot = 1;
        let mut parts = Vec::new();
        let mut k = 0;
        for (buf, len) in iov {
            let here = n.saturating_sub(k).min(*len);
            match buf {
                Buf::Anon(_) => parts.push((k, here, None)),
                Buf::Map(_, offset) => {
                    let view = self.map_in(call, slot).map(|m| self.view(m, *offset));
                    parts.push((k, here, Some(view)));
                    slot += 1;
                }
            }
            k += len;
        }
        self.into_file(call, open, at, n, sure, position, |p| {
            parts
                .iter()
                .map(|(k, here, view)| {
                    let src = match view {
                        None => signed(call, delta(base + k, p + k)),
                        Some(Some((obj, start))) => {
                            Src::Copy { obj: *obj, delta: delta(*start, p + k), before: false }
                        }
                        Some(None) => any(),
                    };
                    (*k, *here, src)
                })
                .collect()
        });
    }

    /// Known: an O_DIRECT write that met a fault leaves its range, and the size within it, in any state.
    fn direct_write_fault(&mut self, call: u16, open: usize, at: At, iov: Iov) {
        let file = self.opens[open].file;
        let obj = self.files[file].obj;
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let mut ends = Vec::new();
        for place in self.places(call, open, at) {
            let end = place.saturating_add(total);
            self.assign(call, obj, (page_down(place), page_up(end)), any(), false);
            ends.push(place);
            ends.extend(stops(iov).map(|stop| place + stop));
        }
        ends.sort_unstable();
        ends.dedup();
        self.size_op(call, file, SizeOp::Maybe(Box::new(SizeOp::Max(ends))));
    }

    /// A write that failed may have moved the size all the same.
    fn failed_write(
        &mut self,
        call: u16,
        open: usize,
        at: At,
        iov: Iov,
        errno: Errno,
        direct: bool,
    ) {
        let file = self.opens[open].file;
        let mount = self.files[file].id.mount;
        let writable = self.opens[open].writable();
        let mut ends = Vec::new();
        for place in self.places(call, open, at) {
            if direct && matches!(errno, Errno(4 | 5 | 14 | 22 | 28)) {
                // What reached the device before an O_DIRECT write failed counts: up to a page of the buffer that could not be had.
                ends.extend(stops(iov).map(|stop| place + stop));
            }
            if writable
                && mount.is_dax()
                && !mount.is_xfs()
                && self.policy.knows(crate::Known::Ext4DaxFailedWriteSize)
            {
                ends.push(place.saturating_sub(u64::from(errno.0.unsigned_abs())));
            }
        }
        ends.sort_unstable();
        ends.dedup();
        if !ends.is_empty() {
            self.size_op(call, file, SizeOp::Maybe(Box::new(SizeOp::Max(ends))));
        }
    }

    /// Bytes arrive in a file by a system call: parts (offset within the transfer, length, source) for a given place.
    fn into_file(
        &mut self,
        call: u16,
        open: usize,
        at: At,
        n: u64,
        sure: bool,
        position: bool,
        parts: impl Fn(u64) -> Vec<(u64, u64, Src)>,
    ) {
        let result = self.seen[call as usize].result;
        if n == 0 || matches!(result, Some(Err(_))) && n == 0 {
            return;
        }
        let file = self.opens[open].file;
        let obj = self.files[file].obj;
        let failed = matches!(result, Some(Err(_)));
        let direct = self.opens[open].flags.has(OpenFlags::DIRECT) && !self.files[file].id.mount.is_dax();
        if at == At::Append && !failed {
            self.size_op(call, file, maybe(SizeOp::Append(n), sure));
        }
        if position && at == At::Position && !failed {
            let op = match self.call_of(call) {
                Call::Sendfile { .. } if self.position_in_motion(call, open) => PosOp::Racy(Vec::new(), n),
                _ => PosOp::Add(n),
            };
            self.pos_op(call, open, op);
        }
        let places = self.places(call, open, at);
        if position && at == At::Append && !failed {
            self.pos_op(call, open, PosOp::OneOf(places.iter().map(|p| p + n).collect()));
        }
        let span = self.span(call);
        let (min, _) = self.sizes(file, Span { ret: span.inv, ..span }, Some(call));
        let exact = places.len() == 1 && !self.places_in_motion(call, open, at);
        for place in &places {
            let kind = if direct { Kind::Direct } else { Kind::Dirty };
            self.touch_file(call, file, (*place, place + n), kind);
            if direct && *place > min {
                // The old end of file is zeroed through the page cache first (fs/xfs/xfs_file.c:xfs_file_write_checks, 6.12).
                self.touch_file(call, file, (min, *place), Kind::Dirty);
            }
            let zeroes = !(self.files[file].id.mount == program::Mount::Ext4Dax
                && self.policy.knows(crate::Known::Ext4DaxTail));
            self.grow(call, file, *place, sure && exact && zeroes);
            if at != At::Append {
                let op = SizeOp::Max(vec![place + n]);
                if !failed {
                    self.size_op(call, file, maybe(op, sure && exact));
                }
            }
            for (k, len, src) in parts(*place) {
                let range = (place + k, place + k + len);
                self.assign(call, obj, range, src, sure && exact);
            }
        }
        if !exact {
            // Until it is known where the bytes went, they may be anywhere.
            let version = Version { span: self.span(call), sure: false, src: any() };
            let settled = self.settled();
            self.objects[obj.0 as usize].assign(0, u64::MAX, &version, settled, &self.order);
        }
    }

    /// Offsets at which a transfer may begin, as far as is known when it is invoked.
    pub(crate) fn places(&self, call: u16, open: usize, at: At) -> Vec<u64> {
        match at {
            At::Offset(offset) => vec![offset],
            At::Position => self.opens[open].pos.before_op(self.span(call), &self.order),
            At::Append => self.files[self.opens[open].file].size.before_op(self.span(call), &self.order),
        }
    }

    /// Whether calls that overlap this one, and may have begun later, move what `at` depends on.
    fn places_in_motion(&self, call: u16, open: usize, at: At) -> bool {
        match at {
            At::Offset(_) => false,
            At::Position => self.position_in_motion(call, open),
            At::Append => self.any_overlap(call, |_| true),
        }
    }

    fn any_overlap(&self, call: u16, which: impl Fn(u16) -> bool) -> bool {
        let span = self.span(call);
        (0..self.program.lines.len() as u16).any(|k| {
            let other = self.span(k);
            k != call
                && self.seen[k as usize].inv.is_some()
                && !self.order.before(other, span)
                && !self.order.before(span, other)
                && which(k)
        })
    }

    fn position_in_motion(&self, call: u16, open: usize) -> bool {
        self.any_overlap(call, |k| {
            let moves = matches!(
                self.call_of(k),
                Call::Readv { .. } | Call::Writev { .. } | Call::Lseek { .. } | Call::Sendfile { .. }
            );
            let slot = self.seen[k as usize].slots.first();
            // A slot filled meanwhile is unknown yet: count it in.
            moves && slot.is_none_or(|s| self.fds.get(&s.0).is_none_or(|o| *o == open))
        })
    }

    /// A write whose place was in doubt has returned: put its bytes at every place that is left.
    fn amend_places(&mut self, call: u16) {
        let line = self.call_of(call);
        let open = match line {
            Call::Pwrite { .. } | Call::Pwritev { .. } | Call::Writev { .. } | Call::Sendfile { .. } => {
                self.open_in(call, 0)
            }
            _ => None,
        };
        let (Some(open), Some(Ok(n))) = (open, self.seen[call as usize].result) else { return };
        let append = self.opens[open].flags.has(OpenFlags::APPEND);
        let at = match line {
            _ if append && !matches!(line, Call::Sendfile { .. }) => At::Append,
            Call::Writev { .. } | Call::Sendfile { .. } => At::Position,
            _ => return,
        };
        if !self.places_in_motion(call, open, at) || n == 0 {
            return;
        }
        let obj = self.files[self.opens[open].file].obj;
        let places = self.places(call, open, at);
        let span = self.span(call);
        // Whatever was entered for it before is replaced by: each byte of it, at each place it may have gone to.
        self.objects[obj.0 as usize].amend(0, u64::MAX, call, |v| {
            v.span = Span { inv: NEVER, ret: NEVER, call: NOBODY };
        });
        if matches!(line, Call::Sendfile { .. }) {
            let ends = places.iter().map(|p| p + n).collect();
            self.opens[open].pos.amend(call, |op| *op = PosOp::Racy(ends, n));
        }
        let settled = self.settled();
        let simple = match line {
            Call::Pwrite { offset, buf: Buf::Anon(_), .. } => Some(*offset),
            Call::Pwritev { offset, iov, .. } if iov.iter().all(|(b, _)| matches!(b, Buf::Anon(_))) => {
                Some(*offset)
            }
            Call::Writev { iov, .. } if iov.iter().all(|(b, _)| matches!(b, Buf::Anon(_))) => Some(0),
            _ => None,
        };
        for place in places {
            let src = simple.map_or_else(any, |base| signed(call, delta(base, place)));
            let version = Version { span, sure: false, src };
            let range = (place, place.saturating_add(n));
            self.objects[obj.0 as usize].assign(range.0, range.1, &version, settled, &self.order);
            if at == At::Position {
                let op = SizeOp::Maybe(Box::new(SizeOp::Max(vec![range.1])));
                let file = self.opens[open].file;
                self.size_op(call, file, op);
            }
        }
    }

    fn madvise(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        advice: Advice,
        result: Option<CallResult>,
    ) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        if offset % PAGE != 0 || len == 0 {
            return;
        }
        let end = page_up(offset.saturating_add(len)).min(map.len.1);
        // ENOMEM says that a part is not mapped; the rest was advised all the same.
        let sure = matches!(result, Some(Ok(_) | Err(Errno(12))));
        let viewed = self.files[map.file].obj;
        match (advice, map.private) {
            (Advice::DontNeed, Some(obj)) => {
                let through = Src::Through { obj: viewed, delta: map.offset as i64 };
                self.assign(call, obj, (offset, end), through, sure);
            }
            (Advice::PopulateWrite, Some(obj)) => {
                let copy = Src::Copy { obj: viewed, delta: map.offset as i64, before: false };
                self.assign(call, obj, (offset, end), copy, false);
            }
            (Advice::PopulateWrite, None) => {
                let range = (map.offset + offset, map.offset + end);
                self.touch_file(call, map.file, range, Kind::Dirty);
            }
            (Advice::Remove, None) => {
                if !matches!(result, Some(Err(Errno(13 | 22 | 14)))) {
                    let range = (map.offset + offset, map.offset + end);
                    self.touch_file(call, map.file, range, Kind::Drop);
                    self.assign(call, viewed, range, zero(), sure);
                }
            }
            _ => {}
        }
    }

    fn splice_in(&mut self, call: u16, open: usize, offset: u64, n: u64) {
        let file = self.opens[open].file;
        let source = self.files[file].obj;
        let copies = self.files[file].id.mount.is_dax()
            || self.opens[open].flags.has(OpenFlags::DIRECT);
        let span = self.span(call);
        let Some(key) = self.seen[call as usize].slots.get(1).map(|s| s.0) else { return };
        let Some(pipe) = self.pipes.get(&key).cloned() else { return };
        let confused = pipe.confused || pipe.last[0].is_some_and(|l| !self.order.before(l, span));
        let place = pipe.head;
        let src = if confused {
            any()
        } else if copies {
            Src::Copy { obj: source, delta: delta(offset, place), before: false }
        } else {
            Src::Since { obj: source, delta: delta(offset, place), since: span.inv }
        };
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.confused = confused;
            pipe.head += n;
            pipe.last[0] = Some(span);
        }
        if confused {
            self.assign(call, pipe.obj, (0, u64::MAX), any(), false);
        }
        self.assign(call, pipe.obj, (place, place + n), src, true);
    }

    fn splice_out(&mut self, call: u16, open: usize, offset: u64, n: u64) {
        let span = self.span(call);
        let Some(key) = self.seen[call as usize].slots.first().map(|s| s.0) else { return };
        let Some(pipe) = self.pipes.get(&key).cloned() else { return };
        let confused = pipe.confused || pipe.last[1].is_some_and(|l| !self.order.before(l, span));
        let place = pipe.tail;
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.confused = confused;
            pipe.tail += n;
            pipe.last[1] = Some(span);
        }
        let obj = pipe.obj;
        self.into_file(call, open, At::Offset(offset), n, true, false, |p| {
            let src = if confused { any() } else { Src::Copy { obj, delta: delta(place, p), before: false } };
            vec![(0, n, src)]
        });
    }

    fn fork(&mut self, call: u16, child: u8) {
        let parent = Self::process(self.line(call).lane);
        let span = self.span(call);
        let maps: Vec<(u16, Map)> = self
            .maps
            .iter()
            .filter(|((p, _), _)| *p == parent)
            .map(|((_, filler), map)| (*filler, map.clone()))
            .collect();
        for (filler, mut map) in maps {
            if let Some(obj) = map.private {
                let mut content = self.objects[obj.0 as usize].clone();
                let order = &self.order;
                // The child has a store that raced with the fork, or not.
                content.amend_all(|v| {
                    if !order.before(v.span, span) && v.span.call != NOBODY {
                        v.sure = false;
                    }
                });
                let owner = self.owner[obj.0 as usize];
                self.objects.push(content);
                self.owner.push(owner);
                let ever = self.ever[obj.0 as usize].clone();
                self.ever.push(ever);
                map.private = Some(ObjId(self.objects.len() as u32 - 1));
            }
            self.maps.insert((child.saturating_add(1), filler), map);
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
