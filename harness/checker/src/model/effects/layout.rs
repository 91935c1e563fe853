//! What changes a file's size and the place of its bytes: truncate, fallocate, clones.

use super::*;
use crate::model::ObjId;
use crate::model::file::{Map, Touch};
use crate::model::maybe;
use crate::model::order::Span;
use program::FallocateMode;

impl World<'_> {
    /// Two files begin to share blocks.
    pub(super) fn shares(&mut self, a: usize, b: usize) {
        let doubt = self.files[a].on(program::Mount::XfsDax)
            && self.policy.knows(crate::Known::XfsDaxReflinkContent);
        let stale = self.files[a].on(program::Mount::XfsDax)
            && self.policy.knows(crate::Known::XfsDaxStalePage);
        for file in [a, b] {
            self.files[file].shared = true;
            self.files[file].unjudged |= doubt;
            if stale {
                self.files[file].behind_mappings = Some(Val::Any);
            }
        }
    }

    /// Zeroes what becomes part of the file when it grows to `upto`.
    pub(super) fn grow(&mut self, call: u16, file: usize, upto: u64, sure: bool) {
        if !self.files[file].tail_stored {
            return;
        }
        let known = match self.files[file].id.mount {
            program::Mount::Xfs => self.policy.knows(crate::Known::XfsUnwrittenTail),
            program::Mount::XfsDax => false,
            _ => self.policy.knows(crate::Known::Ext4DaxTailTruncate),
        };
        let sure = sure && !known;
        let span = self.span(call);
        let (min, max) = self.sizes(file, Span { ret: span.inv, ..span }, Some(call));
        let obj = self.files[file].obj;
        self.assign(call, obj, (min, max.min(upto)), zero(), false);
        self.assign(call, obj, (max, upto), zero(), sure);
    }

    pub(super) fn touch_file(&mut self, call: u16, file: usize, range: (u64, u64), kind: Kind) {
        let touch = Touch {
            span: self.span(call),
            range,
            dirties: kind != Kind::Direct,
            direct_write: kind == Kind::Direct,
            drops: matches!(kind, Kind::Direct | Kind::Drop),
            pinned: kind == Kind::Pinned,
        };
        self.touch(file, touch);
        if kind == Kind::Drop && !self.files[file].is_dax() {
            // Dropping a part of a large folio zeroes that part in place (mm/truncate.c:truncate_inode_partial_folio, 6.12), also under a
            // reference that a pipe holds.
            let streams: Vec<_> = self.pipes.values().map(|p| (p.obj, p.head)).collect();
            for (obj, head) in streams {
                self.assign(call, obj, (0, head), zero(), false);
            }
        }
    }

    pub(super) fn set_size(&mut self, call: u16, file: usize, len: u64, sure: bool) {
        let obj = self.files[file].obj;
        // What is on its way into a mapping may come to the rest of the last page after it was zeroed.
        let span = self.span(call);
        self.files[file].tail_stored |= self.files[file].touches.iter().any(|t| {
            let lands = t.dirties && !t.drops && t.range.1 > len;
            lands && t.span.call != call && !self.order.before(t.span, span)
        });
        self.touch_file(call, file, (len, u64::MAX), Kind::Drop);
        self.grow(call, file, len, sure);
        self.size_op(call, file, maybe(SizeOp::Set(len), sure));
        self.assign(call, obj, (len, u64::MAX), zero(), sure);
        // Private copies of pages past the new end are dropped as well (mm/truncate.c:truncate_pagecache, even_cows, 6.12).
        self.drop_private(call, file, page_up(len), u64::MAX, sure);
    }

    /// Private pages of a file range go back to showing the file.
    pub(super) fn drop_private(
        &mut self,
        call: u16,
        file: usize,
        start: u64,
        end: u64,
        sure: bool,
    ) {
        let maps: Vec<Map> =
            self.maps.values().filter(|m| m.file == file && m.private.is_some()).cloned().collect();
        for map in maps {
            let Some(obj) = map.private else { continue };
            let from = start.saturating_sub(map.offset);
            let to = end.saturating_sub(map.offset);
            let through = Src::Through { obj: self.files[file].obj, delta: map.offset as i64 };
            self.assign(call, obj, (from, to), through, sure);
            self.orphan(obj, (from, to));
        }
    }

    /// Private pages were dropped: what a device that has them by then brings later comes to pages that no mapping shows any more.
    pub(super) fn orphan(&mut self, obj: ObjId, (start, end): (u64, u64)) {
        for index in 0..self.inflight.len() {
            let call = self.inflight[index].1;
            if self.effect_from[call as usize] > self.span(call).inv {
                self.objects[obj.0 as usize].amend(start, end, call, |v| v.sure = false);
            }
        }
    }

    pub(super) fn truncate(
        &mut self,
        call: u16,
        path: program::Path,
        len: u64,
        result: Option<CallResult>,
    ) {
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
            // A file that an open makes meanwhile may not be known yet, though its name could be looked up already.
            for k in 0..self.program.lines.len() as u16 {
                if let (Call::Open { path: made, .. }, Some(Payload::File(facts))) =
                    (self.call_of(k), self.seen[k as usize].payload)
                    && *made == path
                    && !self.order.apart(self.span(k), span)
                {
                    self.file_by_id(facts.id, path, Some(*facts));
                }
            }
            files = (0..self.files.len()).filter(|f| self.files[*f].on(path.mount)).collect();
        }
        let sure = files.len() == 1 && result.is_some() && !names_race;
        for file in files {
            self.set_size(call, file, len, sure);
        }
    }

    /// Whether a call that changes names of the mount overlaps a span.
    pub(crate) fn names_in_motion(&self, mount: program::Mount, span: Span) -> bool {
        self.any_overlap(span.call, |k| match self.call_of(k) {
            Call::Open { path, flags, .. } => path.mount == mount && flags.has(OpenFlags::CREAT),
            Call::Unlink { path } => path.mount == mount,
            Call::Rename { to, .. } | Call::Link { to, .. } => to.mount == mount,
            _ => false,
        })
    }

    pub(super) fn fallocate(
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
        if self.files[file].on(program::Mount::Ext4Dax)
            && self.policy.knows(crate::Known::DaxUnwrittenZeroPage)
        {
            self.files[file].behind_mappings = Some(Val::Zero);
        }
        match mode {
            M::KeepSize | M::PunchHoleBare => {}
            M::Allocate | M::UnshareRange => {
                self.touch_file(call, file, (offset, end), Kind::Dirty);
                self.grow(call, file, end, sure);
                self.size_op(call, file, maybe(SizeOp::Max(vec![end]), sure));
                let stale = mode == M::UnshareRange
                    && self.files[file].on(program::Mount::XfsDax)
                    && self.policy.knows(crate::Known::DaxUnshareStale);
                if stale {
                    self.assign(call, obj, (page_down(offset), page_up(end)), any(), false);
                }
                if mode == M::UnshareRange
                    && self.files[file].on(program::Mount::Xfs)
                    && self.files[file].shared
                    && self.policy.knows(crate::Known::XfsUnshareDirty)
                {
                    // Its own range it has written back before.
                    self.files[file].never_written = true;
                    self.assign(call, obj, (0, page_down(offset)), zero(), false);
                    self.assign(call, obj, (page_up(end), u64::MAX), zero(), false);
                }
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
                self.assign(
                    call,
                    obj,
                    (offset, u64::MAX - len),
                    Src::Copy { obj, delta: len as i64, before: true },
                    sure,
                );
                self.assign(call, obj, (u64::MAX - len, u64::MAX), zero(), sure);
                self.size_op(call, file, maybe(SizeOp::Shrink(len), sure));
                // ext4 drops private copies too (fs/ext4/extents.c:ext4_collapse_range, truncate_pagecache), XFS keeps them.
                self.drop_private(call, file, page_down(offset), u64::MAX, false);
            }
            M::InsertRange => {
                self.touch_file(call, file, (offset, u64::MAX), Kind::Drop);
                self.assign(call, obj, (offset, end), zero(), sure);
                self.assign(
                    call,
                    obj,
                    (end, u64::MAX),
                    Src::Copy { obj, delta: -(len as i64), before: true },
                    sure,
                );
                self.size_op(call, file, maybe(SizeOp::Grow(len), sure));
                self.drop_private(call, file, page_down(offset), u64::MAX, false);
            }
        }
    }

    pub(super) fn clone_range(
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
            Some(Err(e)) => matches!(e.0, 4 | 5 | 12 | 28) || e == EINVAL && len != 0,
            _ => true,
        };
        let (dst, src) = (self.opens[dst].file, self.opens[src].file);
        if !may || self.files[dst].id.mount != self.files[src].id.mount {
            return;
        }
        self.shares(src, dst);
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

    /// A clone whose source changed its size meanwhile may have ended at any of the sizes it had.
    pub(super) fn amend_clone(&mut self, call: u16, dst_offset: u64, src_offset: u64, len: u64) {
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
}
