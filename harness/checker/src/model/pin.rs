//! Who holds which pages of which file by which means, from when surely to when surely, and from when possibly to when possibly.

use super::file::Map;
use super::life::SLACK_NS;
use super::order::{NEVER, Span};
use super::{PAGE, World, page_down};
use crate::policy::Term;
use program::{Buf, Call};

/// By what a page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A reference in that pipe (by its filler).
    Pipe(u16),
    /// An I/O in flight.
    Transfer,
    /// A copy by process_vm_readv and its kin, or through /proc/self/mem.
    Copy,
    /// A buffer registered with that ring (by its filler).
    Registered(u16),
    /// An RDMA memory region (by the call that made it).
    Region,
    /// gup_test (by the call that began the test).
    LongtermTest,
}

/// From when to when, the ends included.
type Time = (u64, u64);

/// A page of a file, held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The call that took it.
    pub call: u16,
    /// By what.
    pub means: Means,
    /// For how long such holds are meant.
    pub term: Term,
    /// Of which file.
    pub file: usize,
    /// Offset of the page.
    pub page: u64,
    /// It may be held in this time.
    pub maybe: Time,
    /// It surely is in this time, and surely is the file's own page.
    pub sure: Option<Time>,
}

impl Hold {
    /// Whether it may be there at some moment of a span.
    pub fn meets(&self, from: u64, to: u64) -> bool {
        self.maybe.0 <= to && self.maybe.1 >= from
    }

    /// Whether it surely is there all through a span.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.sure.is_some_and(|(a, b)| a <= from && b >= to)
    }
}

impl World<'_> {
    /// All holds of pages of files that the program made, as far as calls are on record by now.
    pub fn holds(&self) -> Vec<Hold> {
        let mut all = Vec::new();
        self.pipe_holds(&mut all);
        for call in 0..self.program.lines.len() as u16 {
            if self.seen[call as usize].inv.is_some() {
                self.call_holds(call, &mut all);
            }
        }
        // A layout change that began before the hold was sure, and is not over, may have taken the page out of the file.
        for hold in &mut all {
            if let Some((from, _)) = hold.sure {
                let began = self.span(hold.call).inv;
                let touches = &self.files[hold.file].touches;
                if touches.iter().any(|t| {
                    t.drops && t.span.call != hold.call && t.span.inv <= from && t.span.ret >= began
                }) {
                    hold.sure = None;
                }
            }
        }
        all
    }

    fn pipe_holds(&self, all: &mut Vec<Hold>) {
        for (key, pipe) in &self.pipes {
            if pipe.refs.is_empty() {
                continue;
            }
            let lives = self.lives(*key);
            let until = lives.iter().map(|l| l.maybe.1).max().unwrap_or(NEVER);
            let surely = lives.iter().filter_map(|l| l.sure).map(|s| s.1).max().unwrap_or(0);
            for r in &pipe.refs {
                let span = self.span(r.call);
                let taken = pipe.taken.iter().find(|(_, upto)| *upto >= r.place.1);
                let taken = taken.filter(|_| !pipe.confused).map(|(call, _)| self.span(*call));
                let last = taken.map_or(NEVER, |t| t.ret).min(until);
                let first = taken.map_or(NEVER, |t| t.inv.saturating_sub(1)).min(surely);
                let sure = r.real && !pipe.confused && span.ret != NEVER && span.ret <= first;
                all.push(Hold {
                    call: r.call,
                    means: Means::Pipe(*key),
                    term: Term::Short,
                    file: r.file,
                    page: r.page,
                    maybe: (span.inv, self.watch.later(last, SLACK_NS)),
                    sure: sure.then_some((span.ret, first)),
                });
            }
        }
    }

    fn call_holds(&self, call: u16, all: &mut Vec<Hold>) {
        let span = self.span(call);
        let over = self.watch.later(span.ret, SLACK_NS);
        let one = |offset: &u64, len: &u64| vec![(Buf::Map(program::MapSlot(0), *offset), *len)];
        let (first_slot, iov, means) = match self.call_of(call) {
            Call::ProcessVmReadv { offset, len, .. }
            | Call::ProcessVmWritev { offset, len, .. }
            | Call::ProcMemPread { offset, len, .. }
            | Call::ProcMemPwrite { offset, len, .. }
            | Call::PinBasicTest { offset, len, .. } => (0, one(offset, len), Means::Copy),
            Call::RegisterBuffers { offset, len, .. } | Call::UpdateBuffers { offset, len, .. } => {
                let Some(ring) = self.seen[call as usize].slots.first() else { return };
                (1, one(offset, len), Means::Registered(ring.0))
            }
            Call::RegMr { offset, len, .. } => {
                // In a private mapping every page is a copy first, be it only to be read (mm/internal.h:gup_must_unshare, 6.12; FOLL_WRITE in 6.1).
                let private = self.map_in(call, 0).is_some_and(|map| map.private.is_some());
                if private || matches!(self.seen[call as usize].result, Some(Err(_))) {
                    return;
                }
                (0, one(offset, len), Means::Region)
            }
            Call::PinLongtermTestStart { buf, len, .. } => {
                let private = self.map_in(call, 0).is_some_and(|map| map.private.is_some());
                if private || matches!(self.seen[call as usize].result, Some(Err(_))) {
                    return;
                }
                (0, vec![(*buf, *len)], Means::LongtermTest)
            }
            other => (1, other.buffers().collect(), Means::Transfer),
        };
        let (maybe, sure) = match means {
            Means::Registered(ring) => match self.registered_for(call, ring) {
                Some(times) => times,
                None => ((span.inv, over), None),
            },
            Means::Region => self.region_lives(call),
            Means::LongtermTest => self.test_life(call),
            _ => ((span.inv, over), self.surely_in_flight(call)),
        };
        let long = matches!(means, Means::Registered(_) | Means::Region | Means::LongtermTest);
        let term = if long { Term::Long } else { Term::Short };
        let real = self.real.get(&call);
        let (mut slot, mut index) = (first_slot, 0);
        for (buf, len) in &iov {
            let Buf::Map(_, offset) = buf else { continue };
            if let Some(map) = self.map_in(call, slot) {
                for page in pages(map, *offset, *len) {
                    let own = real.and_then(|r| r.get(index)).copied().unwrap_or(false);
                    index += 1;
                    all.push(Hold {
                        call,
                        means,
                        term,
                        file: map.file,
                        page,
                        maybe,
                        sure: sure.filter(|_| own),
                    });
                }
            }
            slot += 1;
        }
    }

    /// When an I/O or a copy surely has its pages: it stands still and its gate is held. None if that is not known.
    fn surely_in_flight(&self, call: u16) -> Option<(u64, u64)> {
        let gate = self.gate_used(call)?;
        let released = self.held_until(gate, self.span(call).inv)?;
        let stand = self.watch.first_stand(call)?;
        if self.line(call).via.is_some() {
            // A request that is queued behind another of its ring has no pages yet.
            let busy = (0..self.program.lines.len() as u16).any(|k| {
                let other = self.span(k);
                k != call
                    && self.same_ring(call, k)
                    && other.inv < stand.seq
                    && other.ret > self.span(call).inv
            });
            if busy || self.is_fixed(call) {
                return None;
            }
        }
        // With its process goes what it has in hand. A signal ends the wait of a copy while its gate is still held.
        let died = self.death(Self::process(self.line(call).lane)).0;
        let until = released.min(died).min(self.span(call).ret).saturating_sub(1);
        (stand.seq <= until).then_some((stand.seq, until))
    }

    /// When a memory region was there. A child has no part in it. It is gone when the call that ends it returns, or its process is
    /// (drivers/infiniband/sw/rxe/rxe_pool.c:__rxe_cleanup waits for who uses it, 6.12 and 6.1).
    fn region_lives(&self, call: u16) -> (Time, Option<Time>) {
        let own = Self::process(self.line(call).lane);
        let life = self.lives(call).into_iter().find(|life| life.process == own);
        let (from, to) = life.map_or((self.span(call).inv, NEVER), |life| life.maybe);
        ((from, to), life.and_then(|life| life.sure))
    }

    /// When a registered buffer was there; none if registering failed. What rings share by then counts as held; how long that surely is, is not asked.
    fn registered_for(&self, call: u16, ring: u16) -> Option<(Time, Option<Time>)> {
        let span = self.span(call);
        if matches!(self.seen[call as usize].result, Some(Err(_))) {
            return None;
        }
        let lives = self.lives(ring);
        let mut first = lives.iter().filter_map(|l| l.sure).map(|s| s.1).min().unwrap_or(0);
        for k in self.takes_away(ring).filter(|k| *k != call) {
            let inv = self.span(k).inv;
            if inv > span.ret {
                first = first.min(inv.saturating_sub(1));
            } else if self.span(k).ret > span.inv {
                first = 0;
            }
        }
        let last = self.last_in_ring(call, ring, 0);
        let sure = (span.ret != NEVER && span.ret <= first).then_some((span.ret, first));
        Some(((span.inv, self.watch.later(last, SLACK_NS)), sure))
    }

    /// Calls that take a buffer out of a ring, or may have.
    fn takes_away(&self, ring: u16) -> impl Iterator<Item = u16> + '_ {
        self.changes_buffers(ring).filter(|k| {
            matches!(self.call_of(*k), Call::UnregisterBuffers { .. } | Call::UpdateBuffers { .. })
        })
    }

    /// When what a call gave to a ring is gone from it at the latest, and from the rings that share it by then. `seen` are the calls that were asked.
    fn last_in_ring(&self, given: u16, ring: u16, seen: u64) -> u64 {
        let span = self.span(given);
        let mut last = self.lives(ring).iter().map(|l| l.maybe.1).max().unwrap_or(NEVER);
        for k in self.takes_away(ring).filter(|k| *k != given && self.span(*k).inv > span.ret) {
            let gone = match self.call_of(k) {
                // It waits for nobody: requests in flight keep the old buffer, and 6.1 lets go of it a second later
                // (io_uring/rsrc.c:io_rsrc_node_ref_zero).
                Call::UpdateBuffers { .. } => {
                    let requests = self.requests_in(ring, k).map(|r| self.span(r).ret);
                    let kept = requests.max().unwrap_or(0).max(self.span(k).ret);
                    self.watch.later(kept, 2 * SLACK_NS)
                }
                _ => self.span(k).ret,
            };
            last = last.min(gone);
        }
        let seen = seen | 1 << given;
        let shares = (0..self.program.lines.len() as u16).filter(|k| {
            let its = &self.seen[*k as usize];
            matches!(self.call_of(*k), Call::CloneBuffers { .. })
                && its.inv.is_some()
                && !matches!(its.result, Some(Err(_)))
                && its.slots.get(1).is_some_and(|s| s.0 == ring)
                && self.span(*k).ret >= span.inv
                && seen >> *k & 1 == 0
        });
        let others = shares.filter_map(|k| {
            let ring = self.seen[k as usize].slots.first()?.0;
            Some(self.last_in_ring(k, ring, seen))
        });
        others.max().unwrap_or(0).max(last)
    }

    /// Requests of a ring that were not over when a call began.
    fn requests_in(&self, ring: u16, call: u16) -> impl Iterator<Item = u16> + '_ {
        let span = self.span(call);
        (0..self.program.lines.len() as u16).filter(move |k| {
            let its = &self.seen[*k as usize];
            self.line(*k).via.is_some()
                && its.slots.last().is_some_and(|s| s.0 == ring)
                && its.inv.is_some_and(|inv| inv <= span.ret)
                && self.span(*k).ret >= span.inv
        })
    }

    /// Whether a call other than `by` may have made a file share blocks by some time: then a held page may not be the file's any more.
    pub fn shares_by(&self, file: usize, by: u16, time: u64) -> bool {
        (0..self.program.lines.len() as u16).any(|k| {
            let shares = matches!(
                self.call_of(k),
                Call::Ficlone { .. }
                    | Call::Ficlonerange { .. }
                    | Call::Fideduperange { .. }
                    | Call::CopyFileRange { .. }
            );
            let mine = |n| self.open_in(k, n).is_some_and(|o| self.opens[o].file == file);
            let Span { inv, .. } = self.span(k);
            shares && k != by && inv <= time && (mine(0) || mine(1))
        })
    }
}

/// File offsets of the pages of a range of a mapping.
fn pages(map: &Map, offset: u64, len: u64) -> impl Iterator<Item = u64> + use<> {
    let (start, end) = (map.offset + offset, map.offset + offset.saturating_add(len));
    let first = page_down(start) / PAGE;
    (first..end.div_ceil(PAGE).max(first)).map(|n| n * PAGE)
}

/// A layout lease, where the policy has such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutLease {
    /// The call that took it.
    pub call: u16,
    /// The open file that holds it.
    pub open: usize,
    /// It may be held in this time.
    pub maybe: (u64, u64),
    /// It surely is in this time.
    pub sure: Option<(u64, u64)>,
}

impl World<'_> {
    /// Layout leases on a file. A change of the layout that anybody tries may break one.
    pub fn layout_leases(&self, file: usize) -> Vec<LayoutLease> {
        use program::Lease;
        let mut all = Vec::new();
        for k in 0..self.program.lines.len() as u16 {
            let takes = matches!(self.call_of(k), Call::Setlease { lease: Lease::Layout, .. });
            let failed = matches!(self.seen[k as usize].result, Some(Err(_)));
            let Some(open) = self.open_in(k, 0).filter(|_| takes && !failed) else { continue };
            if self.opens[open].file != file || self.seen[k as usize].inv.is_none() {
                continue;
            }
            let span = self.span(k);
            let refs = self.references(open);
            let mut last = refs.iter().map(|l| l.maybe.1).max().unwrap_or(NEVER);
            let kept = refs.iter().filter_map(|l| l.sure).filter(|s| s.0 <= span.ret);
            let mut first = kept.map(|s| s.1).max().unwrap_or(0);
            for n in 0..self.program.lines.len() as u16 {
                let other = self.span(n);
                let (Some(inv), seen) = (self.seen[n as usize].inv, &self.seen[n as usize]) else {
                    continue;
                };
                if n == k || other.ret < span.inv {
                    continue;
                }
                let unlocks = matches!(self.call_of(n), Call::Setlease { lease, .. } if *lease != Lease::Layout)
                    && self.open_in(n, 0) == Some(open)
                    && !matches!(seen.result, Some(Err(_)));
                if unlocks && inv > span.ret {
                    last = last.min(other.ret);
                }
                let changes = self.changed.get(&n).map_or_else(|| self.changes(n), Clone::clone);
                // A file that is mapped outlives its descriptors, but not everywhere its lease.
                let closes = matches!(self.call_of(n), Call::Close { .. })
                    && self.open_in(n, 0) == Some(open)
                    && !self.keeps_descriptor(open, n);
                if unlocks || closes || changes.iter().any(|c| c.file == file) {
                    first = first.min(inv.saturating_sub(1));
                }
            }
            // Whoever handles the signal may give it back.
            let answered =
                self.watch.notices.iter().find(|n| n.answer.is_some() && n.seq >= span.inv);
            first = answered.map_or(first, |n| first.min(n.seq));
            let sure = (span.ret != NEVER && span.ret <= first).then_some((span.ret, first));
            all.push(LayoutLease { call: k, open, maybe: (span.inv, last), sure });
        }
        all
    }
}
