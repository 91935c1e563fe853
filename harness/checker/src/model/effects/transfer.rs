//! Bytes that move by system calls: reads, writes, copies and splices, and where they land.

use super::*;
use crate::model::content::Version;
use crate::model::maybe;
use crate::model::order::{NEVER, NOBODY, Span};

/// Most pages after each of which a killed write is taken to have stopped: more than a process gets done before a kill comes.
const CUTS_MAX: u64 = 256;

impl World<'_> {
    /// A read: the file at one end, anonymous memory and mappings at the other.
    pub(super) fn read_in(&mut self, call: u16, at: At, iov: Iov, result: Option<CallResult>) {
        let Some(open) = self.open_in(call, 0) else { return };
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let (n, sure) = done(result, total);
        let file = self.opens[open].file;
        let direct = self.is_direct(open);
        if at == At::Position && result.is_some_and(|r| r.is_ok()) {
            self.pos_op(call, open, PosOp::Add(n));
        }
        let places = self.places(call, open, at);
        // What begins later may move the position all the same, and come first: `amend_read` says where the read was.
        let moving = self.places_in_motion(call, open, at);
        let source = self.files[file].obj;
        if direct {
            self.given(call, 1, iov, true);
        }
        // A registered buffer keeps its pages when the mapping gets others.
        let steady = !self.is_fixed(call) || self.still_registered(call);
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
                        let read =
                            ReadOf { obj: source, start, mapped: None, skip: k, len: in_result };
                        self.pending[call as usize].reads.push(read);
                    }
                }
                Buf::Map(_, offset) => {
                    if let Some(map) = self.map_in(call, slot).cloned() {
                        let from = |place: u64| match places[..] {
                            [p] if !moving => {
                                Src::Copy { obj: source, delta: delta(p + k, place), before: false }
                            }
                            _ => any(),
                        };
                        let known = sure && steady && places.len() == 1 && !moving;
                        self.store(call, &map, *offset, in_result, known, direct, from);
                        if in_reach > in_result {
                            let more = in_reach - in_result;
                            let place = *offset + in_result;
                            let from = |at: u64| match places[..] {
                                [p] if !moving => Src::Copy {
                                    obj: source,
                                    delta: delta(p + k + in_result, at),
                                    before: false,
                                },
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

    /// A read at a position that racing calls moved has returned: what it put into mappings came from one of the places that are left.
    pub(super) fn amend_read(&mut self, call: u16) {
        let Call::Readv { iov, .. } = self.call_of(call) else { return };
        let (Some(open), Some(Ok(n))) = (self.open_in(call, 0), self.seen[call as usize].result)
        else {
            return;
        };
        // An O_DIRECT read may deliver more than it says, and what it delivers may be lost: its bytes stay in doubt.
        let file = self.opens[open].file;
        let direct = self.is_direct(open);
        if direct || !self.places_in_motion(call, open, At::Position) {
            return;
        }
        let source = self.files[file].obj;
        let places = self.places(call, open, At::Position);
        let mut landed = Vec::new();
        let (mut k, mut slot) = (0, 1);
        for (buf, len) in iov {
            if let Buf::Map(_, offset) = buf {
                let here = n.saturating_sub(k).min(*len);
                if let Some(map) = self.map_in(call, slot) {
                    let (obj, start) = self.view(map, *offset);
                    landed.push((obj, start, here, k));
                }
                slot += 1;
            }
            k += len;
        }
        for (obj, start, here, _) in &landed {
            self.objects[obj.0 as usize].amend(*start, start + here, call, |v| {
                v.span = Span { inv: NEVER, ret: NEVER, call: NOBODY };
            });
        }
        for (obj, start, here, k) in landed {
            for place in &places {
                let src = Src::Copy { obj: source, delta: delta(place + k, start), before: false };
                self.assign(call, obj, (start, start + here), src, false);
            }
        }
        self.resolve(call);
    }

    /// A write: anonymous memory and mappings at one end, the file at the other. `base` is the offset that anonymous bytes are signed for.
    pub(super) fn write_out(
        &mut self,
        call: u16,
        at: At,
        base: u64,
        iov: Iov,
        result: Option<CallResult>,
    ) {
        let Some(open) = self.open_in(call, 0) else { return };
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let file = self.opens[open].file;
        let direct = self.is_direct(open);
        let (n, sure) = match result {
            // What was written before an O_DIRECT write failed is on the device (fs/iomap/direct-io.c, 6.12).
            Some(Err(Errno(4 | 5 | 14 | 22 | 28))) if direct => (total, false),
            other => done(other, total),
        };
        let at = if self.opens[open].flags.has(OpenFlags::APPEND) { At::Append } else { at };
        if let Some(Err(errno)) = result {
            self.failed_write(call, open, at, iov, errno, direct);
        }
        if direct
            && self.policy.knows(crate::Known::DirectWriteFault)
            && (lost_a_fault(iov, result) || self.falls_back(call, file, iov))
        {
            self.direct_write_fault(call, open, at, iov);
        }
        if direct {
            self.given(call, 1, iov, false);
        }
        let steady = !self.is_fixed(call) || self.still_registered(call);
        self.short_cow(call, open, at, iov, result);
        let position = matches!(self.call_of(call), Call::Writev { .. });
        let mut slot = 1;
        let mut parts = Vec::new();
        // What a known defect may show in place of a mapped page.
        let mut odd = Vec::new();
        let mut k = 0;
        for (buf, len) in iov {
            let here = n.saturating_sub(k).min(*len);
            match buf {
                Buf::Anon(_) => parts.push((k, here, None)),
                Buf::Map(_, offset) => {
                    let view =
                        self.map_in(call, slot).filter(|_| steady).map(|m| self.view(m, *offset));
                    let shown =
                        self.map_in(call, slot).and_then(|m| self.files[m.file].behind_mappings);
                    odd.extend(shown.map(|val| (k, here, val)));
                    parts.push((k, here, Some(view)));
                    slot += 1;
                }
            }
            k += len;
        }
        self.land(call, open, at, n, sure, position, |p| {
            let odd = odd.iter().map(|(k, here, val)| (*k, *here, Src::Vals(smallvec![*val])));
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
                .chain(odd)
                .collect()
        });
    }

    /// Whether an O_DIRECT write may be whole in spite of a page that it could not pin: ext4 writes the rest through the page cache, which reads what
    /// the processor can read (fs/ext4/file.c:ext4_dio_write_iter, 6.12).
    fn falls_back(&self, call: u16, file: usize, iov: Iov) -> bool {
        let segments = iov.iter().filter(|(buf, _)| matches!(buf, Buf::Map(..)));
        self.files[file].id.mount == program::Mount::Ext4
            && segments.zip(1..).any(|((buf, len), slot)| match (buf, self.map_in(call, slot)) {
                (Buf::Map(_, offset), Some(map)) => {
                    self.faults(map, *offset, *len, false, self.span(call)).gup_may.is_some()
                }
                _ => true,
            })
    }

    /// Known: an O_DIRECT write that met a fault leaves its range, and the size within it, in any state.
    pub(super) fn direct_write_fault(&mut self, call: u16, open: usize, at: At, iov: Iov) {
        let file = self.opens[open].file;
        let obj = self.files[file].obj;
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let mut ends = Vec::new();
        for place in self.places(call, open, at) {
            let end = place.saturating_add(total);
            self.files[file].incoherent.push((place, end));
            self.assign(call, obj, (page_down(place), page_up(end)), any(), false);
            ends.push(place);
            ends.extend(stops(iov).map(|stop| place + stop));
        }
        ends.sort_unstable();
        ends.dedup();
        self.size_op(call, file, SizeOp::Maybe(Box::new(SizeOp::Max(ends))));
    }

    /// Known: a write to shared blocks that stopped inside one leaves in the rest of that block, as far as it was to be written, what the media held.
    fn short_cow(&mut self, call: u16, open: usize, at: At, iov: Iov, result: Option<CallResult>) {
        let file = self.opens[open].file;
        let known = self.policy.knows(crate::Known::XfsDaxShortCow)
            && self.files[file].on(program::Mount::XfsDax)
            && self.files[file].shared
            && lost_a_fault(iov, result);
        let Some(Ok(n)) = result.filter(|r| known && *r != Ok(0)) else { return };
        let total: u64 = iov.iter().map(|(_, l)| *l).sum();
        let obj = self.files[file].obj;
        let (min, _) = self.sizes(file, self.span(call), Some(call));
        for place in self.places(call, open, at) {
            let stopped = place.saturating_add(n);
            let end = page_up(stopped).min(place.saturating_add(total));
            self.assign(call, obj, (stopped, end), any(), false);
            self.files[file].tail_stored |= end > min.max(stopped);
        }
    }

    /// A write that failed may have moved the size all the same.
    pub(super) fn failed_write(
        &mut self,
        call: u16,
        open: usize,
        at: At,
        iov: Iov,
        errno: Errno,
        direct: bool,
    ) {
        let file = self.opens[open].file;
        // What reached a device before it failed is entered with the bytes; it has no size to move and no page cache in use.
        let Some(mount) = self.files[file].mount() else { return };
        let writable = self.opens[open].writable();
        let mut ends = Vec::new();
        for place in self.places(call, open, at) {
            if direct && matches!(errno, Errno(4 | 5 | 14 | 22 | 28)) {
                // Pages that were read in meanwhile are dropped after a success only (fs/iomap/direct-io.c:iomap_dio_complete, 6.12).
                let total: u64 = iov.iter().map(|(_, l)| *l).sum();
                self.files[file].incoherent.push((place, place.saturating_add(total)));
                // What reached the device before an O_DIRECT write failed counts: up to a page of the buffer that could not be had.
                ends.extend(stops(iov).map(|stop| place + stop));
            }
            if writable && mount.is_xfs() && self.policy.knows(crate::Known::XfsFailedWriteSize) {
                let (min, max) = self.sizes(file, self.span(call), Some(call));
                ends.extend([page_up(min), page_up(max), place].map(|end| end.min(place)));
                self.grow(call, file, place, false);
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
    #[expect(clippy::too_many_arguments, reason = "the call's own arguments")]
    pub(super) fn land(
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
        if n == 0 {
            return;
        }
        let file = self.opens[open].file;
        let obj = self.files[file].obj;
        let failed = matches!(result, Some(Err(_)));
        let direct = self.is_direct(open);
        if at == At::Append && !failed {
            self.size_op(call, file, maybe(SizeOp::Append(n), sure));
        }
        if position && at == At::Position && !failed {
            let op = match self.call_of(call) {
                Call::Sendfile { .. } if self.position_in_motion(call, open) => {
                    PosOp::Racy(Vec::new(), n)
                }
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
            let zeroes = !(self.files[file].on(program::Mount::Ext4Dax)
                && self.policy.knows(crate::Known::Ext4DaxTail));
            self.grow(call, file, *place, sure && exact && zeroes);
            if at != At::Append {
                let mut ends = vec![place + n];
                if result.is_none() {
                    ends.extend(self.cut_short(call, *place, n));
                }
                let op = SizeOp::Max(ends);
                if !failed && self.files[file].gate.is_none() {
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

    /// Where else a write that nobody told the end of may have ended: whoever is killed stops between two pages (mm/filemap.c:generic_perform_write,
    /// fs/iomap/buffered-io.c:iomap_write_begin, fs/dax.c:dax_iomap_iter, 6.12), and a pipe may have held less than was asked for.
    fn cut_short(&self, call: u16, place: u64, n: u64) -> Vec<u64> {
        let mut ends: Vec<u64> = (1..=CUTS_MAX)
            .map(|k| page_down(place).saturating_add(k * PAGE))
            .take_while(|end| *end < place + n)
            .collect();
        if let Call::SpliceFromPipe { .. } = self.call_of(call)
            && let Some(pipe) = self.seen[call as usize].slots.first()
            && let Some(pipe) = self.pipes.get(&pipe.0)
        {
            ends.push(place + pipe.head.saturating_sub(pipe.tail).min(n));
        }
        ends
    }

    /// Offsets at which a transfer may begin, as far as is known when it is invoked.
    pub(crate) fn places(&self, call: u16, open: usize, at: At) -> Vec<u64> {
        match at {
            At::Offset(offset) => vec![offset],
            At::Position => self.opens[open].pos.before_op(self.span(call), &self.order),
            At::Append => {
                self.files[self.opens[open].file].size.before_op(self.span(call), &self.order)
            }
        }
    }

    /// Whether calls that overlap this one, and may have begun later, move what `at` depends on.
    pub(super) fn places_in_motion(&self, call: u16, open: usize, at: At) -> bool {
        match at {
            At::Offset(_) => false,
            At::Position => self.position_in_motion(call, open),
            At::Append => self.any_overlap(call, |_| true),
        }
    }

    pub(crate) fn any_overlap(&self, call: u16, which: impl Fn(u16) -> bool) -> bool {
        let span = self.span(call);
        (0..self.program.lines.len() as u16).any(|k| {
            let other = self.span(k);
            k != call
                && self.seen[k as usize].inv.is_some()
                && !self.order.apart(other, span)
                && which(k)
        })
    }

    pub(super) fn position_in_motion(&self, call: u16, open: usize) -> bool {
        self.any_overlap(call, |k| {
            let moves = matches!(
                self.call_of(k),
                Call::Readv { .. }
                    | Call::Writev { .. }
                    | Call::Lseek { .. }
                    | Call::Sendfile { .. }
            );
            let slot = self.seen[k as usize].slots.first();
            // A slot filled meanwhile is unknown yet: count it in.
            moves && slot.is_none_or(|s| self.fds.get(&s.0).is_none_or(|o| *o == open))
        })
    }

    /// A write whose place was in doubt has returned: put its bytes at every place that is left.
    pub(super) fn amend_places(&mut self, call: u16) {
        let line = self.call_of(call);
        let open = match line {
            Call::Pwrite { .. }
            | Call::Pwritev { .. }
            | Call::Writev { .. }
            | Call::Sendfile { .. } => self.open_in(call, 0),
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
            Call::Pwritev { offset, iov, .. }
                if iov.iter().all(|(b, _)| matches!(b, Buf::Anon(_))) =>
            {
                Some(*offset)
            }
            Call::Writev { iov, .. } if iov.iter().all(|(b, _)| matches!(b, Buf::Anon(_))) => {
                Some(0)
            }
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
        let result = Some(Ok(n));
        match line {
            Call::Pwrite { buf, len, .. } => {
                self.short_cow(call, open, at, &[(*buf, *len)], result)
            }
            Call::Pwritev { iov, .. } | Call::Writev { iov, .. } => {
                self.short_cow(call, open, at, iov, result);
            }
            _ => {}
        }
    }

    pub(super) fn splice_in(&mut self, call: u16, open: usize, offset: u64, n: u64) {
        let file = self.opens[open].file;
        let source = self.files[file].obj;
        let copies = self.files[file].is_dax() || self.opens[open].flags.has(OpenFlags::DIRECT);
        let span = self.span(call);
        let Some(key) = self.seen[call as usize].slots.get(1).map(|s| s.0) else { return };
        let Some(pipe) = self.pipes.get(&key).cloned() else { return };
        let confused = pipe.confused || self.pipe_raced(call, key, 0);
        let place = pipe.head;
        let src = if confused {
            any()
        } else if copies {
            Src::Copy { obj: source, delta: delta(offset, place), before: false }
        } else {
            Src::Since { obj: source, delta: delta(offset, place), since: span.inv, until: NEVER }
        };
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.confused = confused;
            pipe.head += n;
        }
        if confused {
            self.assign(call, pipe.obj, (0, u64::MAX), any(), false);
        }
        self.assign(call, pipe.obj, (place, place + n), src, true);
    }

    pub(super) fn splice_out(&mut self, call: u16, open: usize, offset: u64, n: u64) {
        let span = self.span(call);
        let Some(key) = self.seen[call as usize].slots.first().map(|s| s.0) else { return };
        let Some(pipe) = self.pipes.get(&key).cloned() else { return };
        let confused = pipe.confused || self.pipe_raced(call, key, 1);
        let place = pipe.tail;
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.confused = confused;
            pipe.tail += n;
            pipe.last_out = Some(span);
            pipe.taken.push((call, place + n));
        }
        let obj = pipe.obj;
        self.land(call, open, At::Offset(offset), n, true, false, |p| {
            let src = if confused {
                any()
            } else {
                Src::Copy { obj, delta: delta(place, p), before: false }
            };
            vec![(0, n, src)]
        });
    }
}
