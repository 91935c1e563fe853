//! What passes through gates and registered buffers, other ways into a mapping's memory, and open files that travel.

use super::*;
use crate::model::content::Content;
use crate::model::file::{File, Map};
use crate::model::order::NEVER;
use history::{FileId, stamp};
use program::{Access, Advice, CallId, GATE_SIZE, GateSlot, Mount, RegionAccess, SqeFlags};

/// The pages of a range of a mapping, as a range of bytes.
pub(super) const fn pages_of(offset: u64, len: u64) -> (u64, u64) {
    (page_down(offset), page_up(offset.saturating_add(len)))
}

/// What a ring has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The call that gave it to this ring.
    by: u16,
    /// The call that pinned its pages; none if that is not certain.
    pinned: Option<u16>,
}

impl World<'_> {
    pub(super) fn open_gate(
        &mut self,
        call: u16,
        gate: GateSlot,
        access: Access,
        flags: OpenFlags,
        result: Option<CallResult>,
    ) {
        if !matches!(result, Some(Ok(_))) {
            return;
        }
        let file = match self.gates.get(&gate) {
            Some(file) => *file,
            None => {
                let file = self.device(gate);
                self.gates.insert(gate, file);
                file
            }
        };
        self.opens.push(Open { file, access, flags, pos: Lin::new(0) });
        self.fds.insert(call, self.opens.len() - 1);
    }

    /// The block device behind a gate.
    fn device(&mut self, gate: GateSlot) -> usize {
        let first = Val::Signed { call: stamp::call_gate(gate.0), delta: 0 };
        let index = self.files.len();
        let obj = self.object(zero(), Some(index));
        self.objects[obj.0 as usize] = Content::new(Src::Vals(smallvec![first]));
        let whole = crate::model::value::Cand { start: 0, end: GATE_SIZE, val: first };
        self.ever[obj.0 as usize].push(whole);
        // No file of a mount has such a number.
        let id = FileId { mount: Mount::Ext4, ino: u64::MAX - u64::from(gate.0), generation: 0 };
        self.files.push(File {
            id,
            gate: Some(gate),
            obj,
            size: Lin::new(GATE_SIZE),
            path: program::Path { mount: Mount::Ext4, name: 0 },
            facts: None,
            touches: Vec::new(),
            incoherent: Vec::new(),
            tail_stored: false,
            unjudged: false,
            shared: false,
            never_written: false,
            late_dma: false,
            behind_mappings: None,
        });
        index
    }

    /// Notes what a call through a gate can do before the gate is released: nothing to memory or to the device. Must come before its effects.
    ///
    /// What leaves memory is what the pages hold when the gate lets go. A page in the page cache may have been cut off from its file by
    /// then, and keeps what it had; so there, any moment since the call counts. So it does for what a ublk server writes: its kernel side copies when the
    /// request is handed over, not when it is settled (drivers/block/ublk_drv.c:ublk_map_io, 6.12).
    pub(super) fn behind_gate(&mut self, call: u16) {
        let Some(gate) = self.gate_used(call) else { return };
        let Some(from) = self.held_until(gate, self.span(call).inv) else { return };
        let writes = matches!(
            self.call_of(call),
            Call::Pwrite { .. } | Call::Pwritev { .. } | Call::Writev { .. }
        );
        // A hole shows the page of zeros, and whoever holds that holds it also when the file has got a page there.
        let span = self.span(call);
        let steady = |slot: usize, offset: u64, len: u64| {
            self.map_in(call, slot).is_some_and(|m| {
                let file = &self.files[m.file];
                let pages = page_down(offset) / PAGE..page_up(offset.saturating_add(len)) / PAGE;
                let real = |page: u64| self.real_page(m, page * PAGE, span);
                m.private.is_none() && file.is_dax() && !file.shared && pages.into_iter().all(real)
            })
        };
        let mapped = self.call_of(call).buffers().filter_map(|(b, len)| match b {
            Buf::Map(_, offset) => Some((offset, len)),
            Buf::Anon(_) => None,
        });
        let late = |(slot, (offset, len))| gate != GateSlot::UBLK && steady(slot, offset, len);
        if !writes || (1..).zip(mapped).all(late) {
            self.effect_from[call as usize] = from;
        }
    }

    /// Notes which pages of mappings a transfer was given, and whether each surely is the file's own: what is written into was allocated first.
    pub(super) fn given(&mut self, call: u16, first_slot: usize, iov: Iov, written: bool) {
        let span = self.span(call);
        let mut slot = first_slot;
        let mut real = Vec::new();
        for (buf, len) in iov {
            let Buf::Map(_, offset) = buf else { continue };
            if let Some(map) = self.map_in(call, slot) {
                let mut page = page_down(*offset);
                while page < offset + len {
                    let own = map.private.is_none() && !self.files[map.file].shared;
                    real.push(own && (written || self.real_page(map, page, span)));
                    page += PAGE;
                }
            }
            slot += 1;
        }
        if !real.is_empty() {
            self.real.insert(call, real);
        }
    }

    /// Bytes of a mapping leave by process_vm_readv or /proc/self/mem.
    pub(super) fn read_memory(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        result: Option<CallResult>,
    ) {
        if let (Some(map), Some(Ok(n))) = (self.map_in(call, 0), result) {
            let n = n.min(len);
            let (obj, start) = self.view(map, offset);
            let read = ReadOf { obj, start, mapped: Some(map.file), skip: 0, len: n };
            self.pending[call as usize].reads.push(read);
        }
    }

    /// Signed bytes enter a mapping by process_vm_writev or /proc/self/mem.
    pub(super) fn write_memory(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        pinned: bool,
        result: Option<CallResult>,
    ) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        let (n, sure) = done(result, len);
        let meant = map.offset + offset;
        self.store(call, &map, offset, n, sure, pinned, |place| signed(call, delta(meant, place)));
    }

    /// The call that pinned the buffer that a fixed transfer names, if the transfer's range surely lies in it.
    pub fn registration(&self, call: u16) -> Option<u16> {
        self.fixed.get(&call).copied()
    }

    /// Notes the buffer of a fixed transfer as it is invoked: later an update may have put another one in its place.
    pub(super) fn note_buffer(&mut self, call: u16) {
        let ring = self.seen[call as usize].slots.last();
        let Some(ring) = ring.map(|s| s.0).filter(|_| self.is_fixed(call)) else { return };
        let Some(by) = self.buffer_of(ring, call) else { return };
        let (Call::RegisterBuffers { offset: from, len: size, .. }
        | Call::UpdateBuffers { offset: from, len: size, .. }) = self.call_of(by)
        else {
            return;
        };
        let (Call::Pread { buf, len, .. } | Call::Pwrite { buf, len, .. }) = self.call_of(call)
        else {
            return;
        };
        let Buf::Map(_, offset) = buf else { return };
        let same = self.seen[by as usize].slots.get(1) == self.seen[call as usize].slots.get(1);
        if same && *from <= *offset && offset + len <= from + size {
            self.fixed.insert(call, by);
        }
    }

    /// The call that pinned what a ring surely has registered all through another call's begin: nobody may have changed that meanwhile.
    fn buffer_of(&self, ring: u16, user: u16) -> Option<u16> {
        let Registered { by, pinned } = *self.registered.get(&ring)?;
        let (given, used) = (self.span(by), self.span(user));
        let clear = self
            .changes_buffers(ring)
            .filter(|k| *k != by && *k != user)
            .all(|k| self.order.before(self.span(k), given) || self.submitted_before(user, k));
        // While an unregister waits, be it in vain, the ring has no buffer for newcomers (io_uring/rsrc.c:io_sqe_buffers_unregister, 6.12 and 6.1).
        let full = self
            .unregisters(ring)
            .filter(|k| matches!(self.seen[*k as usize].result, Some(Err(_))))
            .all(|k| self.order.before(self.span(k), used) || self.submitted_before(user, k));
        pinned.filter(|_| clear && full && self.order.before(given, used))
    }

    /// Calls that ask for the end of a ring's buffers, whatever came of it.
    pub fn unregisters(&self, ring: u16) -> impl Iterator<Item = u16> + '_ {
        (0..self.program.lines.len() as u16).filter(move |k| {
            let seen = &self.seen[*k as usize];
            matches!(self.call_of(*k), Call::UnregisterBuffers { .. })
                && seen.inv.is_some()
                && seen.slots.first().is_some_and(|s| s.0 == ring)
        })
    }

    /// Calls that give a ring a buffer or take one away, or may have.
    pub fn changes_buffers(&self, ring: u16) -> impl Iterator<Item = u16> + '_ {
        (0..self.program.lines.len() as u16).filter(move |k| {
            let seen = &self.seen[*k as usize];
            let changes = matches!(
                self.call_of(*k),
                Call::RegisterBuffers { .. }
                    | Call::UpdateBuffers { .. }
                    | Call::CloneBuffers { .. }
                    | Call::UnregisterBuffers { .. }
                    | Call::CloseRing { .. }
            );
            changes
                && seen.inv.is_some()
                && seen.slots.first().is_some_and(|s| s.0 == ring)
                && !matches!(seen.result, Some(Err(_)))
        })
    }

    /// Whether the kernel surely had a call in hand before another began. A request finds its buffer when it is submitted
    /// (io_uring/rw.c:io_prep_rw_fixed, 6.12; io_prep_rw, 6.1), however long it then waits.
    fn submitted_before(&self, call: u16, other: u16) -> bool {
        let later = self.span(other).inv;
        let (mine, its) = (self.line(call), self.line(other));
        let stood = self.watch.first_stand(call).is_some_and(|s| s.seq < later);
        let linked = mine.via.is_some_and(|via| via.is_linked());
        self.order.before(self.span(call), self.span(other))
            || mine.via.is_some() && stood
            || mine.lane == its.lane && call < other && !linked
    }

    /// Whether a call goes through a registered buffer.
    pub fn is_fixed(&self, call: u16) -> bool {
        self.line(call).via.is_some_and(|v| v.flags.has(SqeFlags::FIXED))
    }

    /// Whether the mapping of a fixed transfer surely still shows the pages that were registered: nothing replaced or dropped them since.
    pub(super) fn still_registered(&self, call: u16) -> bool {
        let Some(by) = self.registration(call) else { return false };
        self.surely_stays(by, self.seen[call as usize].slots.get(1).copied(), call)
    }

    /// Whether a mapping surely still shows, until a call is over, the pages that another one pinned in it.
    pub(super) fn surely_stays(&self, by: u16, map: Option<CallId>, call: u16) -> bool {
        let (since, until) = (self.span(by).inv, self.span(call).ret);
        !(0..self.program.lines.len() as u16).any(|k| {
            let span = self.span(k);
            let moves = match self.call_of(k) {
                Call::Fork { .. } => true,
                Call::Madvise { advice: Advice::DontNeed | Advice::PageOut, .. }
                | Call::Munmap { .. }
                | Call::Mremap { .. } => self.seen[k as usize].slots.first() == map.as_ref(),
                Call::Mmap { .. } => Some(k) != map.map(|f| f.0),
                Call::Truncate { .. }
                | Call::Ftruncate { .. }
                | Call::Fallocate { .. }
                | Call::Ficlone { .. }
                | Call::Ficlonerange { .. }
                | Call::CopyFileRange { .. }
                | Call::Fideduperange { .. } => true,
                Call::Open { flags, .. } => flags.has(OpenFlags::TRUNC),
                _ => false,
            };
            moves && self.seen[k as usize].inv.is_some() && span.ret >= since && span.inv <= until
        })
    }

    pub(super) fn register(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        result: Option<CallResult>,
    ) {
        // A refusal may come after the pages were pinned, and so copied (io_uring/rsrc.c:io_pin_pages, 6.1).
        let refused = matches!(result, Some(Err(_)));
        if !refused {
            self.given(call, 1, &[(Buf::Map(program::MapSlot(0), offset), len)], true);
        }
        if let Some(map) = self.map_in(call, 1).cloned() {
            self.copy_for_pin(call, &map, pages_of(offset, len));
        }
        if !refused && let Some(ring) = self.seen[call as usize].slots.first().map(|s| s.0) {
            self.registered.insert(ring, Registered { by: call, pinned: Some(call) });
        }
    }

    /// A pin of pages of a private mapping wants its own copy of each, and makes it before the call can stand still with the pages.
    pub(super) fn copy_for_pin(&mut self, call: u16, map: &Map, (first, last): (u64, u64)) {
        let Some(obj) = map.private else { return };
        if !self.objects[obj.0 as usize].is_opaque(first, last) {
            let viewed = self.files[map.file].obj;
            let copy = Src::Copy { obj: viewed, delta: map.offset as i64, before: false };
            self.assign_in(self.begun(call), obj, (first, last), copy, false);
        }
    }

    /// Two rings share a buffer: the pages stay pinned until neither has it.
    pub(super) fn clone_buffers(&mut self, call: u16, result: Option<CallResult>) {
        let slots = &self.seen[call as usize].slots;
        let (Some(ring), Some(src)) = (slots.first().map(|s| s.0), slots.get(1).map(|s| s.0))
        else {
            return;
        };
        if !matches!(result, Some(Err(_))) {
            let pinned = self.buffer_of(src, call);
            self.registered.insert(ring, Registered { by: call, pinned });
        }
    }

    pub(super) fn unregister(&mut self, call: u16) {
        if let (Some(ring), Some(Ok(_))) =
            (self.seen[call as usize].slots.first(), self.seen[call as usize].result)
        {
            self.registered.remove(&ring.0);
        }
    }

    /// A memory region pins its pages: in a private mapping copies, which are made first, also before a page that is refused.
    pub(super) fn register_region(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        access: RegionAccess,
        result: Option<CallResult>,
    ) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        if !matches!(result, Some(Err(_))) {
            let (obj, start) = self.view(&map, offset);
            self.pinned.insert(call, Pinned { obj, start, len, file: Some(map.file) });
        }
        let pages = pages_of(offset, len);
        if map.private.is_some() {
            return self.copy_for_pin(call, &map, pages);
        }
        let writes = self.policy.tables.region_writes(access);
        if writes {
            self.dirty_pages(call, &map, pages);
        }
        self.given(call, 0, &[(Buf::Map(program::MapSlot(0), offset), len)], writes);
    }

    /// What the device may have written is dirtied when it is given back, whether it was written or not (drivers/infiniband/core/umem.c:__ib_umem_release,
    /// 6.12 and 6.1).
    pub(super) fn deregister_region(&mut self, call: u16) {
        let Some(by) = self.seen[call as usize].slots.first().map(|s| s.0) else { return };
        if by as usize >= self.program.lines.len() {
            return;
        }
        if let Call::RegMr { offset, len, access, .. } = self.call_of(by)
            && self.policy.tables.region_writes(*access)
            && let Some(map) = self.map_in(by, 0).filter(|map| map.private.is_none()).cloned()
        {
            self.dirty_pages(call, &map, pages_of(*offset, *len));
        }
    }

    pub(super) fn dirty_pages(&mut self, call: u16, map: &Map, (first, last): (u64, u64)) {
        self.touch_file(call, map.file, (map.offset + first, map.offset + last), Kind::Dirty);
    }

    pub(super) fn send_fd(&mut self, call: u16, result: Option<CallResult>) {
        if let (Some(open), Some(Ok(_)) | None) = (self.open_in(call, 0), result) {
            self.sent.push((call, open));
        }
    }

    /// Which open file came out of the socket pair: the oldest, unless calls that raced leave a doubt that matters.
    pub(super) fn recv_fd(&mut self, call: u16) {
        if !matches!(self.seen[call as usize].result, Some(Ok(_))) {
            return;
        }
        let span = self.span(call);
        let Some((first, open)) = self.sent.first().copied() else {
            self.malformed = true;
            return;
        };
        let raced = |other: u16, with: u16| {
            let (a, b) = (self.span(other), self.span(with));
            other != with && !self.order.before(a, b) && !self.order.before(b, a)
        };
        let doubt = self.sent.iter().any(|(s, o)| *o != open && raced(*s, first))
            || self.seen[first as usize].ret.is_none()
            || (0..self.program.lines.len() as u16).any(|k| {
                let other = matches!(self.call_of(k), Call::RecvFd { .. })
                    && matches!(self.seen[k as usize].result, Some(Ok(_)) | None)
                    && self.seen[k as usize].inv.is_some();
                other && raced(k, call) && self.sent.iter().any(|(_, o)| *o != open)
            });
        self.overflow |= doubt;
        debug_assert!(span.ret != NEVER, "it has returned");
        self.sent.remove(0);
        self.fds.insert(call, open);
    }
}
