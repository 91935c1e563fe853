//! What gup_test and memory regions pin, what they show of it, and what RDMA writes there: the pages that they found, whatever their file or mapping
//! has by now.

use super::*;
use crate::model::change::Changed;
use crate::model::content::ObjId;
use crate::model::order::NEVER;
use crate::policy::Change;
use program::{Advice, PinFlags};

const TIMED_OUT: Errno = Errno(110);

/// What a test of long-term pins, or a memory region, has pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Whose pages.
    pub obj: ObjId,
    /// From where in it.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
    /// The file that the pages are of, or are copies of; none of anonymous memory.
    pub file: Option<usize>,
}

/// What an object shows that was made for one look at pinned pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The pages as their owner has them.
    pub of: ObjId,
    /// Since when they are pinned.
    pub since: u64,
}

impl World<'_> {
    pub(super) fn longterm_test_start(
        &mut self,
        call: u16,
        buf: Buf,
        len: u64,
        flags: PinFlags,
        result: Option<CallResult>,
    ) {
        let refused = matches!(result, Some(Err(_)));
        let tested = match buf {
            Buf::Anon(_) => {
                let obj = self.object(signed(call, 0), None);
                Pinned { obj, start: 0, len, file: None }
            }
            Buf::Map(_, offset) => {
                let Some(map) = self.map_in(call, 0).cloned() else { return };
                // Neither comes to a page (mm/gup_test.c:pin_longterm_test_start, mm/gup.c:check_vma_flags, 6.12).
                if !matches!(result, Some(Err(Errno(22 | 95)))) {
                    self.copy_for_pin(call, &map, held::pages_of(offset, len));
                }
                if !refused {
                    self.given(call, 0, &[(buf, len)], flags.has(PinFlags::WRITE));
                }
                let (obj, start) = self.view(&map, offset);
                Pinned { obj, start, len, file: Some(map.file) }
            }
        };
        if !refused {
            self.pinned.insert(call, tested);
        }
    }

    /// What the pages hold that are pinned: anything that their owner had since, for as long as they surely were its pages.
    pub(super) fn longterm_test_read(&mut self, call: u16) {
        let seen = &self.seen[call as usize];
        let (Some(Ok(_)), Some(Payload::Read { data, .. })) = (seen.result, seen.payload) else {
            return;
        };
        let len = data.runs.iter().map(history::Run::len).fold(0, u64::saturating_add);
        let tests = self.tests_at(call);
        let known = match tests.as_slice() {
            [by] => self.pinned.get(by).filter(|t| t.len == len).map(|t| (*by, *t)),
            _ => None,
        };
        let (obj, start, mapped) = match known {
            Some((by, tested)) => match tested.file {
                Some(file) => {
                    let all = (tested.start, tested.start + tested.len);
                    (self.pinned_pages(call, by, tested, all), tested.start, Some(file))
                }
                None => (tested.obj, tested.start, None),
            },
            None => (self.object(any(), None), 0, None),
        };
        let read = ReadOf { obj, start, mapped, skip: 0, len };
        self.pending[call as usize].reads.push(read);
    }

    /// How many bytes a look at the pinned pages must bring, if that is certain.
    pub fn tested_len(&self, call: u16) -> Option<u64> {
        match self.tests_at(call).as_slice() {
            [by] => self.pinned.get(by).map(|tested| tested.len),
            _ => None,
        }
    }

    /// An object that shows what pages may hold that are pinned, in the offsets of whose pages they are.
    fn pinned_pages(&mut self, call: u16, by: u16, pinned: Pinned, range: (u64, u64)) -> ObjId {
        let since = self.span(by).inv;
        let obj = self.object(Src::Vals(smallvec![]), pinned.file);
        self.shown.insert(obj, Shown { of: pinned.obj, since });
        let mut page = page_down(range.0);
        while page < range.1 {
            let until = self.cut_off(by, pinned, page, self.span(call).inv);
            let seen = Src::Since { obj: pinned.obj, delta: 0, since, until };
            self.assign(call, obj, (page, page + PAGE), seen, false);
            page += PAGE;
        }
        if let Some(arrived) = self.arrived.get(&pinned.obj).copied() {
            let through = Src::Through { obj: arrived, delta: 0 };
            self.assign(call, obj, range, through, false);
        }
        obj
    }

    /// Bytes go from one region to another: from the pages of the one to those of the other, as they were when they were pinned. The places are slots
    /// of the call, and offsets in their regions.
    pub(super) fn rdma(
        &mut self,
        call: u16,
        (source, from): (usize, u64),
        (target, to): (usize, u64),
        len: u64,
        result: Option<CallResult>,
    ) {
        let region = |slot: usize| {
            let by = self.seen[call as usize].slots.get(slot)?.0;
            self.pinned.get(&by).map(|pinned| (by, *pinned))
        };
        let (Some((out_of, source)), Some((into, target))) = (region(source), region(target))
        else {
            return;
        };
        // What is refused is refused before a byte has moved, but not where somebody takes the region away meanwhile, or no answer came in time.
        let raced = self.any_overlap(call, |k| matches!(self.call_of(k), Call::DeregMr { .. }));
        if matches!(result, Some(Err(errno)) if errno != TIMED_OUT) && !raced {
            return;
        }
        let sure = matches!(result, Some(Ok(_)));
        let first = source.start + from;
        let shown = self.pinned_pages(call, out_of, source, (first, first + len));
        let (start, end) = (target.start + to, target.start + to + len);
        let delta = delta(first, start);
        // What the pages have got that way they keep, whoever looks at them by whatever region.
        let arrived = match self.arrived.get(&target.obj).copied() {
            Some(arrived) => arrived,
            None => {
                let arrived = self.object(Src::Vals(smallvec![]), target.file);
                self.arrived.insert(target.obj, arrived);
                arrived
            }
        };
        self.assign(
            call,
            arrived,
            (start, end),
            Src::Copy { obj: shown, delta, before: false },
            false,
        );
        let private = self.map_in(into, 0).is_some_and(|map| map.private.is_some());
        let map = self.seen[into as usize].slots.first().copied();
        let stays = private && self.surely_stays(into, map, call);
        let mut at = start;
        while at < end {
            let next = (page_down(at) + PAGE).min(end);
            if self.cut_off(into, target, page_down(at), self.span(call).inv) == NEVER {
                let copy = Src::Copy { obj: shown, delta, before: false };
                self.assign(call, target.obj, (at, next), copy, sure && stays);
            }
            at = next;
        }
        if let Some(file) = target.file.filter(|_| !private) {
            // 6.1 alone, of the page cache: the device writes to it and tells nobody before the region goes.
            self.touch_file(call, file, (start, end), Kind::Pinned);
            let (min, _) = self.sizes(file, self.span(call), Some(call));
            self.files[file].tail_stored |= end > min;
            if !self.files[file].is_dax() {
                self.files[file].incoherent.push((page_down(start), page_up(end)));
            }
            // Known: what is dirtied so late goes to blocks that a clone has as well. Which clones, and when, is not followed here.
            let clones = |line: &program::Line| {
                matches!(
                    line.call,
                    Call::Ficlone { .. }
                        | Call::Ficlonerange { .. }
                        | Call::Fideduperange { .. }
                        | Call::CopyFileRange { .. }
                )
            };
            self.overflow |= self.files[file].on(program::Mount::Xfs)
                && self.policy.knows(crate::Known::XfsLateDma)
                && self.program.lines.iter().any(clones);
        }
    }

    /// From when on a pinned page surely is no page of its file or mapping any more, so that nobody else can change it.
    fn cut_off(&self, by: u16, tested: Pinned, page: u64, before: u64) -> u64 {
        // What goes to registered pages goes there without a look at the mapping.
        let lines = &self.program.lines;
        let past_the_mapping =
            |call: &Call| matches!(call, Call::RegisterBuffers { .. } | Call::UpdateBuffers { .. });
        if lines.iter().any(|line| past_the_mapping(&line.call)) {
            return NEVER;
        }
        let private = self.map_in(by, 0).is_some_and(|map| map.private.is_some());
        let cuts = |k: &u16| {
            let (seen, span) = (&self.seen[*k as usize], self.span(*k));
            let over = seen.inv.is_some() && span.inv > self.span(by).ret && span.ret < before;
            let alone = || !self.any_overlap(*k, |_| true);
            if !over || !matches!(seen.result, Some(Ok(_))) {
                return false;
            }
            let same = seen.slots.first() == self.seen[by as usize].slots.first()
                && Self::process(self.line(*k).lane) == Self::process(self.line(by).lane);
            let takes = match self.call_of(*k) {
                Call::Munmap { .. } => private && same,
                Call::Madvise { offset, len, advice: Advice::DontNeed, .. } => {
                    private && same && *offset <= page && page + PAGE <= offset + len
                }
                // To nothing: a large folio that is cut at the new end stays in the cache, for whoever holds it keeps it from being split
                // (mm/truncate.c:truncate_inode_partial_folio, 6.12).
                _ => {
                    let all = |c: &Changed| {
                        c.change == Change::Size && c.taken.0 == 0 && Some(c.file) == tested.file
                    };
                    let changed = self.changed.get(k).is_some_and(|c| c.iter().any(all));
                    let cached = tested.file.is_some_and(|f| !self.files[f].is_dax());
                    !private && cached && changed
                }
            };
            takes && alone()
        };
        let calls = (0..lines.len() as u16).filter(cuts);
        calls.map(|k| self.span(k).ret).min().unwrap_or(NEVER)
    }

    /// The tests whose pins may be there at some moment of a call.
    pub fn tests_at(&self, call: u16) -> Vec<u16> {
        let span = self.span(call);
        let meets = |k: &u16| {
            let ((from, to), _) = self.test_life(*k);
            from <= span.ret && to >= span.inv
        };
        self.tests().filter(|k| *k != call).filter(meets).collect()
    }

    /// Whether the pins of some test surely are there all through a call.
    pub fn surely_tested(&self, call: u16) -> bool {
        let span = self.span(call);
        self.tests().filter(|k| *k != call).any(|k| {
            let (_, sure) = self.test_life(k);
            sure.is_some_and(|(from, to)| from <= span.inv && to >= span.ret)
        })
    }

    /// Calls that began a test, or may have.
    fn tests(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.program.lines.len() as u16).filter(|k| {
            let seen = &self.seen[*k as usize];
            matches!(self.call_of(*k), Call::PinLongtermTestStart { .. })
                && seen.inv.is_some()
                && !matches!(seen.result, Some(Err(_)))
        })
    }

    /// When the pins of a test may be there, and when they surely are. No process's end drops them: all have the same open file
    /// (mm/gup_test.c:gup_test_release, 6.12), until the program is over.
    pub fn test_life(&self, start: u16) -> ((u64, u64), Option<(u64, u64)>) {
        let span = self.span(start);
        let (mut first, mut last) = (NEVER, NEVER);
        for k in 0..self.program.lines.len() as u16 {
            let seen = &self.seen[k as usize];
            let stops = matches!(self.call_of(k), Call::PinLongtermTestStop) && seen.inv.is_some();
            let stop = self.span(k);
            if !stops || self.order.before(stop, span) {
                continue;
            }
            first = first.min(stop.inv.saturating_sub(1));
            if stop.inv > span.ret {
                last = last.min(stop.ret);
            }
        }
        let sure = (span.ret != NEVER && span.ret <= first).then_some((span.ret, first));
        ((span.inv, last), sure)
    }

    /// Pins that are given back at once: what is to be written is faulted in for that, and so dirtied or copied.
    pub(super) fn basic_test(&mut self, call: u16, offset: u64, len: u64, flags: PinFlags) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        let writes = flags.has(PinFlags::WRITE);
        self.given(call, 0, &[(Buf::Map(program::MapSlot(0), offset), len)], writes);
        if writes && map.private.is_some() {
            self.copy_for_pin(call, &map, held::pages_of(offset, len));
        } else if writes {
            self.dirty_pages(call, &map, held::pages_of(offset, len));
        }
    }

    /// Whether a call may have pinned the page of zeros, and been told by the kernel that it is not pinned: `verify_dma_pinned` warns of that
    /// (mm/gup_test.c, mm/gup.c:try_grab_folio, 6.12).
    pub fn tests_zero_page(&self) -> bool {
        (0..self.program.lines.len() as u16).any(|k| {
            let reads = |flags: PinFlags| !flags.has(PinFlags::WRITE);
            matches!(self.call_of(k), Call::PinBasicTest { flags, .. } if reads(*flags))
                && self.seen[k as usize].inv.is_some()
                && self.map_in(k, 0).is_some_and(|map| self.files[map.file].is_dax())
                && self.real.get(&k).is_some_and(|pages| pages.contains(&false))
        })
    }
}
