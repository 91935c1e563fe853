//! How long descriptors, mappings, pipes and rings lived, in which process: from a call that filled a slot to whatever emptied it.
//!
//! Two intervals each: when it may have been there, and when it surely was. Both are closed.

use super::World;
use super::order::NEVER;
use program::{Call, Lane};

/// Nanoseconds that the kernel may take to put down what nobody refers to any more: work queues, the end of a process.
pub const SLACK_NS: u64 = 1_000_000_000;
/// Processes: the program's first, and its children.
const PROCESSES: u8 = 1 + program::CHILDREN_MAX;

/// A time of which both ends are in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Whose.
    pub process: u8,
    /// No earlier and no later.
    pub maybe: (u64, u64),
    /// At least from here to there.
    pub sure: Option<(u64, u64)>,
}

impl Life {
    fn new(process: u8, birth: (u64, u64), death: (u64, u64)) -> Life {
        let sure = (birth.1 != NEVER && birth.1 < death.0).then(|| {
            let end = if death.0 == NEVER { NEVER } else { death.0 - 1 };
            (birth.1, end)
        });
        Life { process, maybe: (birth.0, death.1), sure }
    }
}

impl World<'_> {
    fn calls(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.program.lines.len() as u16).filter(|k| self.seen[*k as usize].inv.is_some())
    }

    /// Whether the call did what it says, or may have.
    fn may_have_done(&self, call: u16) -> bool {
        !matches!(self.seen[call as usize].result, Some(Err(_)))
    }

    /// When a process came: not before, and not after.
    pub fn birth(&self, process: u8) -> Option<(u64, u64)> {
        if process == 0 {
            return Some((0, 0));
        }
        let fork = self.calls().find(|k| {
            matches!(self.call_of(*k), Call::Fork { child } if child + 1 == process)
                && self.may_have_done(*k)
        })?;
        let span = self.span(fork);
        Some((span.inv, span.ret))
    }

    /// When a process went: not before, and not after. The end of the program counts as never: what happens then has its own events.
    pub fn death(&self, process: u8) -> (u64, u64) {
        let Some(child) = process.checked_sub(1) else { return (NEVER, NEVER) };
        let lane = Lane::Child(child);
        let mine = || self.calls().filter(move |k| self.line(*k).lane == lane);
        let (mut first, mut last) = (NEVER, NEVER);
        for k in self.calls() {
            let span = self.span(k);
            match self.call_of(k) {
                Call::Kill { lane: killed } if *killed == lane => {
                    first = first.min(span.inv);
                    if self.seen[k as usize].result == Some(Ok(0)) {
                        last = last.min(span.ret);
                    }
                }
                Call::Exit if self.line(k).lane == lane => {
                    first = first.min(span.inv);
                    last = last.min(self.watch.later(span.inv, 2 * SLACK_NS));
                }
                _ => {}
            }
        }
        // A child that has no more lines may end by itself.
        let given: usize = self.program.lines.iter().filter(|l| l.lane == lane).count();
        if mine().count() == given {
            let idle = mine().map(|k| self.span(k).ret).max();
            let idle = idle.or(self.birth(process).map(|b| b.0)).unwrap_or(NEVER);
            first = first.min(idle);
        }
        (first, last)
    }

    /// When a slot that a call filled was emptied in a process: not before, and not after.
    fn emptied(&self, filler: u16, process: u8) -> (u64, u64) {
        let (mut first, mut last) = self.death(process);
        let slot = self.call_of(filler).fills();
        let own = Self::process(self.line(filler).lane) == process;
        for k in self.calls() {
            if Self::process(self.line(k).lane) != process || k == filler || !self.may_have_done(k)
            {
                continue;
            }
            let span = self.span(k);
            match self.call_of(k) {
                Call::Close { .. }
                | Call::Munmap { .. }
                | Call::ClosePipe { .. }
                | Call::CloseRing { .. }
                | Call::DeregMr { .. }
                    if self.seen[k as usize].slots.first().is_some_and(|s| s.0 == filler) =>
                {
                    first = first.min(span.inv);
                    last = last.min(span.ret);
                }
                // Filling a used slot empties it, some time before the lane goes on.
                call if call.fills().is_some() && call.fills() == slot => {
                    if own && span.ret < self.span(filler).inv {
                        continue;
                    }
                    first = first.min(span.inv);
                    let next = self
                        .calls()
                        .filter(|n| self.line(*n).lane == self.line(k).lane)
                        .map(|n| self.span(n).inv)
                        .filter(|inv| *inv > span.ret)
                        .min();
                    let later = self.watch.later(span.ret, SLACK_NS);
                    if !own || span.inv > self.span(filler).ret {
                        last = last.min(next.unwrap_or(NEVER).min(later));
                    }
                }
                _ => {}
            }
        }
        (first, last)
    }

    /// How long what a call filled its slot with was referred to from slots, by process.
    pub fn lives(&self, filler: u16) -> Vec<Life> {
        if filler as usize >= self.program.lines.len() || !self.may_have_done(filler) {
            return Vec::new();
        }
        let own = Self::process(self.line(filler).lane);
        let span = self.span(filler);
        let first = Life::new(own, (span.inv, span.ret), self.emptied(filler, own));
        let mut all = vec![first];
        for process in (0..PROCESSES).filter(|p| *p != own && own == 0) {
            let Some(birth) = self.birth(process) else { continue };
            let inherits = first.maybe.0 <= birth.1 && first.maybe.1 >= birth.0;
            if !inherits {
                continue;
            }
            let surely = first.sure.is_some_and(|s| s.0 <= birth.0 && s.1 >= birth.1);
            let birth = if surely { birth } else { (birth.0, NEVER) };
            all.push(Life::new(process, birth, self.emptied(filler, process)));
        }
        all
    }

    /// Everything that keeps an open file: descriptors in all processes, mappings, messages under way, calls in flight.
    pub fn references(&self, open: usize) -> Vec<Life> {
        let mut all = Vec::new();
        for (filler, _) in self.fds.iter().filter(|(_, o)| **o == open) {
            all.extend(self.lives(*filler));
        }
        let mut maps: Vec<u16> =
            self.maps.iter().filter(|(_, m)| m.open == open).map(|((_, f), _)| *f).collect();
        maps.sort_unstable();
        maps.dedup();
        for filler in maps {
            all.extend(self.lives(filler));
        }
        for k in self.calls() {
            let span = self.span(k);
            let uses =
                self.seen[k as usize].slots.iter().any(|s| self.fds.get(&s.0) == Some(&open));
            if !uses {
                continue;
            }
            let process = Self::process(self.line(k).lane);
            let mut life = Life { process, maybe: (span.inv, span.ret), sure: None };
            if matches!(self.call_of(k), Call::SendFd { .. }) && self.may_have_done(k) {
                life.maybe.1 = NEVER;
                let takers: Vec<u16> = self
                    .calls()
                    .filter(|r| matches!(self.call_of(*r), Call::RecvFd { .. }))
                    .collect();
                let received = self.received(k);
                if let Some(recv) = received {
                    life.maybe.1 = self.span(recv).ret;
                    all.extend(self.lives(recv));
                }
                // From the message it goes into the descriptor, and is never without either.
                let alone = |recv: &u16| {
                    takers.iter().all(|other| {
                        let (a, b) = (self.span(*other), self.span(*recv));
                        other == recv || self.order.before(a, b) || self.order.before(b, a)
                    })
                };
                let taken =
                    takers.iter().map(|r| self.span(*r).inv).filter(|i| *i > span.inv).min();
                let until = match received.filter(alone) {
                    Some(recv) => self.span(recv).ret,
                    None => taken.map_or(NEVER, |t| t.saturating_sub(1)),
                };
                life.sure = (span.ret < until).then_some((span.ret, until));
            }
            all.push(life);
        }
        all
    }

    /// The call that took a sent descriptor out, where that is certain: the n-th of the n-th.
    fn received(&self, send: u16) -> Option<u16> {
        let done = |k: &u16| matches!(self.seen[*k as usize].result, Some(Ok(_)));
        let mut sends: Vec<u16> = self
            .calls()
            .filter(|k| matches!(self.call_of(*k), Call::SendFd { .. }))
            .filter(done)
            .collect();
        let mut recvs: Vec<u16> = self
            .calls()
            .filter(|k| matches!(self.call_of(*k), Call::RecvFd { .. }))
            .filter(done)
            .collect();
        sends.sort_by_key(|k| self.span(*k).inv);
        recvs.sort_by_key(|k| self.span(*k).inv);
        let index = sends.iter().position(|k| *k == send)?;
        recvs.get(index).copied()
    }

    /// Whether a file that a call closes surely has another descriptor all the while, in another slot or another process.
    pub fn keeps_descriptor(&self, open: usize, close: u16) -> bool {
        let span = self.span(close);
        let process = Self::process(self.line(close).lane);
        let closed = self.seen[close as usize].slots.first().map(|s| s.0);
        self.fds.iter().filter(|(_, o)| **o == open).any(|(filler, _)| {
            self.lives(*filler).iter().any(|l| {
                let own = Some(*filler) == closed && l.process == process;
                !own && l.sure.is_some_and(|s| s.0 <= span.inv && s.1 >= span.ret)
            })
        })
    }

    /// Whether something surely keeps the open file all through `from..=to`.
    pub fn surely_open(&self, open: usize, from: u64, to: u64) -> bool {
        self.references(open).iter().any(|l| l.sure.is_some_and(|s| s.0 <= from && s.1 >= to))
    }

    /// Whether something may keep the open file at some moment of `from..=to`.
    pub fn may_be_open(&self, open: usize, from: u64, to: u64) -> bool {
        self.references(open).iter().any(|l| l.maybe.0 <= to && l.maybe.1 >= from)
    }
}
