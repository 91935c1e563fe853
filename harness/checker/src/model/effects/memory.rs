//! What changes through mappings: mmap and its kin, stores, advice, fork.

use super::*;
use crate::model::content::ObjId;
use crate::model::file::Map;
use crate::model::order::NOBODY;
use program::{Advice, MapFlags, Prot, Sharing};

impl World<'_> {
    #[expect(clippy::too_many_arguments, reason = "the call's own arguments")]
    pub(super) fn mmap(
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
        let private = (sharing == Sharing::Private)
            .then(|| self.object(Src::Through { obj: viewed, delta: offset as i64 }, Some(file)));
        let prot_reg = Lin::new(prot.0);
        let len_now = (len, len);
        let map = Map {
            filler: call,
            open,
            file,
            offset,
            len: len_now,
            sharing,
            prot: prot_reg,
            private,
        };
        self.maps.insert((process, call), map);
        if let Some(obj) = private
            && flags.has(MapFlags::POPULATE)
            && prot.has(Prot::WRITE)
        {
            // Populating a writable private mapping breaks copy-on-write at once, as far as it gets (mm/gup.c:populate_vma_page_range, 6.12).
            self.assign(
                call,
                obj,
                (0, len),
                Src::Copy { obj: viewed, delta: offset as i64, before: false },
                false,
            );
        }
    }

    pub(super) fn mremap(&mut self, call: u16, len: u64) {
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
    #[expect(clippy::too_many_arguments, reason = "the call's own arguments")]
    pub(super) fn store(
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
            if self.effect_from[call as usize] > span.inv {
                self.copy_for_pin(call, map, (first, last));
            }
            if !self.objects[obj.0 as usize].is_opaque(first, last) {
                for (a, b) in [(first, start), (end, last)] {
                    self.assign(
                        call,
                        obj,
                        (a, b),
                        Src::Copy { obj, delta: 0, before: false },
                        sure,
                    );
                }
            }
        } else {
            let (min, max) = self.sizes(map.file, span, Some(call));
            self.files[map.file].tail_stored |= end > min;
            let kind = if pinned { Kind::Pinned } else { Kind::Dirty };
            self.touch_file(call, map.file, (start, end), kind);
            // What is making the file longer meanwhile zeroes from the old end on, and may come to these bytes after they were stored: when it
            // was invoked there was nothing to zero yet (`grow`).
            self.assign(call, obj, (start.max(min), end.min(max)), zero(), false);
        }
        self.assign(call, obj, (start, end), src(start), sure);
    }

    pub(super) fn madvise(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        advice: Advice,
        result: Option<CallResult>,
    ) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        if !offset.is_multiple_of(PAGE) || len == 0 {
            return;
        }
        // How long the mapping was when the advice came to it, nobody knows who has it made longer or shorter meanwhile.
        let resized = self.any_overlap(call, |k| {
            matches!(self.call_of(k), Call::Mremap { .. })
                && self.seen[k as usize].slots.first() == self.seen[call as usize].slots.first()
        });
        let asked = page_up(offset.saturating_add(len));
        let end = if resized { asked } else { asked.min(map.len.1) };
        // ENOMEM says that a part is not mapped; the rest was advised all the same.
        let sure = !resized && matches!(result, Some(Ok(_) | Err(Errno(12))));
        let viewed = self.files[map.file].obj;
        match (advice, map.private) {
            (Advice::DontNeed, Some(obj)) => {
                let through = Src::Through { obj: viewed, delta: map.offset as i64 };
                self.assign(call, obj, (offset, end), through, sure);
                self.orphan(obj, (offset, end));
            }
            (Advice::PopulateWrite, Some(obj)) => {
                let copy = Src::Copy { obj: viewed, delta: map.offset as i64, before: false };
                self.assign(call, obj, (offset, end), copy, false);
            }
            (Advice::PopulateWrite, None) => {
                let range = (map.offset + offset, map.offset + end);
                self.touch_file(call, map.file, range, Kind::Dirty);
            }
            (Advice::Remove, None) if !matches!(result, Some(Err(Errno(13 | 14 | 22)))) => {
                let range = (map.offset + offset, map.offset + end);
                self.touch_file(call, map.file, range, Kind::Drop);
                self.assign(call, viewed, range, zero(), sure);
            }
            _ => {}
        }
    }

    pub(super) fn fork(&mut self, call: u16, child: u8) {
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
