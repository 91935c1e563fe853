//! Leases of a file: all states that some order of the calls explains (fs/locks.c, 6.12; the same in 6.1).
//!
//! A breaker is two operations: it begins the break, and it goes through. A lease past its deadline goes when somebody looks, and not before.
//! Files on which nobody ever asked for a lease have no register.

use super::lin::{Lin, Step};
use super::order::{NEVER, NOBODY, Span};
use super::{World, watch};
use crate::policy::{Breaks, breaks};
use history::Errno;
use program::{Access, Call, Lane, Lease, OpenFlags};
use std::collections::BTreeSet;

/// Nanoseconds by which the kernel's clock of jiffies may be off.
const TICK_NS: u64 = 50_000_000;
/// Nanoseconds after which somebody who looks surely finds a lease expired.
const LATE_NS: u64 = 1_000_000_000;
/// Seconds of lease-break-time at the start of a program.
const BREAK_TIME: u8 = 45;

/// When a broken lease goes by itself: not before, and surely by then. `NEVER` where the time is 0.
pub type Deadline = (u64, u64);

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Of this open file.
    pub open: usize,
    /// A write lease.
    pub write: bool,
    /// Must become a read lease.
    pub down: Option<Deadline>,
    /// Must go.
    pub gone: Option<Deadline>,
}

/// The leases of one file, by open file.
pub type LeaseState = Vec<Held>;

/// What a call did, or saw, of the leases of a file.
#[expect(missing_docs, reason = "fields are the call's own arguments")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseDo {
    /// F_SETLEASE succeeded.
    Set { open: usize, write: bool },
    /// F_SETLEASE with F_UNLCK succeeded.
    Unlock { open: usize },
    /// F_SETLEASE with F_UNLCK found none.
    None { open: usize },
    /// F_GETLEASE said this.
    Get { open: usize, what: u64 },
    /// Somebody who opens or truncates begins to break what is in the way.
    Break { write: bool, deadline: Deadline },
    /// Somebody who opens or truncates went through.
    Pass { write: bool },
    /// Somebody was told to try again, and began the break.
    Refused { write: bool, deadline: Deadline },
    /// The last reference to the open file went.
    Drop { open: usize },
    /// It may have happened.
    Maybe(Box<LeaseDo>),
}

/// With its times: not before, and not after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOp {
    /// What.
    pub what: LeaseDo,
    /// When, in nanoseconds.
    pub ns: (u64, u64),
}

/// Whether a lease stands in the way of an action.
pub fn conflicts(held: &Held, write: bool) -> bool {
    breaks(write, held.write) != Breaks::Nothing
}

/// States after somebody looked at the clock.
fn expire(state: &LeaseState, ns: (u64, u64)) -> Vec<LeaseState> {
    let mut all = vec![Vec::new()];
    for held in state {
        let mut fates: Vec<Option<Held>> = Vec::new();
        let past = |d: Option<Deadline>| {
            d.map_or((false, false), |d| (d.0 != NEVER && d.0 <= ns.1, d.1 != NEVER && d.1 < ns.0))
        };
        let ((gone_may, gone_must), (down_may, down_must)) = (past(held.gone), past(held.down));
        if !gone_must && !down_must {
            fates.push(Some(*held));
        }
        if down_may && !gone_must {
            fates.push(Some(Held { write: false, down: None, ..*held }));
        }
        if gone_may {
            fates.push(None);
        }
        all = all
            .iter()
            .flat_map(|s: &LeaseState| {
                fates.iter().map(move |fate| {
                    let mut s = s.clone();
                    s.extend(fate);
                    s
                })
            })
            .collect();
    }
    all
}

impl LeaseDo {
    fn after(&self, state: &LeaseState) -> Vec<LeaseState> {
        let mine = |open: usize| state.iter().position(|h| h.open == open);
        let without = |at: usize| {
            let mut s = state.clone();
            s.remove(at);
            s
        };
        match self {
            LeaseDo::Set { open, write } => {
                let others = || state.iter().filter(|h| h.open != *open);
                if *write && others().next().is_some() || others().any(|h| h.gone.is_some()) {
                    return Vec::new();
                }
                let mut s = state.clone();
                match mine(*open) {
                    Some(at) => {
                        s[at].write = *write;
                        if !write {
                            s[at].down = None;
                        }
                    }
                    None => {
                        s.push(Held { open: *open, write: *write, down: None, gone: None });
                        s.sort_unstable();
                    }
                }
                vec![s]
            }
            LeaseDo::Unlock { open } => mine(*open).map(without).into_iter().collect(),
            LeaseDo::None { open } => {
                if mine(*open).is_none() {
                    vec![state.clone()]
                } else {
                    Vec::new()
                }
            }
            LeaseDo::Get { open, what } => {
                let target = mine(*open).map_or(2, |at| match state[at] {
                    Held { gone: Some(_), .. } => 2,
                    Held { down: Some(_), .. } => 0,
                    Held { write, .. } => u64::from(write),
                });
                if target == *what { vec![state.clone()] } else { Vec::new() }
            }
            LeaseDo::Break { write, deadline } => vec![begin(state, *write, *deadline)],
            LeaseDo::Pass { write } => {
                if state.iter().any(|h| conflicts(h, *write)) {
                    Vec::new()
                } else {
                    vec![state.clone()]
                }
            }
            LeaseDo::Refused { write, deadline } => {
                if state.iter().any(|h| conflicts(h, *write)) {
                    vec![begin(state, *write, *deadline)]
                } else {
                    Vec::new()
                }
            }
            LeaseDo::Drop { open } => vec![mine(*open).map_or_else(|| state.clone(), without)],
            LeaseDo::Maybe(what) => {
                let mut all = what.after(state);
                all.push(state.clone());
                all
            }
        }
    }

    /// Whether it runs the clock first (fs/locks.c:time_out_leases).
    fn looks(&self) -> bool {
        match self {
            LeaseDo::Unlock { .. } | LeaseDo::None { .. } | LeaseDo::Drop { .. } => false,
            LeaseDo::Maybe(what) => what.looks(),
            _ => true,
        }
    }
}

fn begin(state: &LeaseState, write: bool, deadline: Deadline) -> LeaseState {
    state
        .iter()
        .map(|held| {
            let mut held = *held;
            match breaks(write, held.write) {
                Breaks::ToNone => held.gone = held.gone.or(Some(deadline)),
                Breaks::ToRead if held.gone.is_none() => held.down = held.down.or(Some(deadline)),
                _ => {}
            }
            held
        })
        .collect()
}

impl Step<LeaseState> for LeaseOp {
    fn step(&self, state: &LeaseState) -> Vec<LeaseState> {
        let looked = if self.what.looks() { expire(state, self.ns) } else { vec![state.clone()] };
        let mut all: Vec<LeaseState> = looked.iter().flat_map(|s| self.what.after(s)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The leases of one file.
#[derive(Clone, Debug)]
pub struct Register {
    /// All possible states.
    pub states: Lin<LeaseState, LeaseOp>,
    /// Not judged any more: what happened is beyond what is tracked, or was reported already.
    pub off: bool,
    /// Opens and truncates that were entered.
    breakers: BTreeSet<u16>,
}

/// A break that began: whom it must tell, or may have to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Who broke.
    pub by: u16,
    /// Of which file.
    pub file: usize,
    /// Whose lease.
    pub open: usize,
    /// Whether a signal surely was sent.
    pub sure: bool,
}

impl<'a> World<'a> {
    /// Whether the line is an open or truncate that may meet a lease, and whether it would write. The access mode alone counts.
    pub fn breaker(&self, call: u16) -> Option<bool> {
        match self.call_of(call) {
            Call::Open { access, .. } => Some(*access != Access::ReadOnly),
            Call::Truncate { .. } => Some(true),
            _ => None,
        }
    }

    /// The files that an open or truncate may have led to.
    pub fn broken_files(&self, call: u16) -> Vec<usize> {
        if let Some(open) = self.fds.get(&call)
            && matches!(self.call_of(call), Call::Open { .. })
        {
            return vec![self.opens[*open].file];
        }
        self.call_of(call).paths().flat_map(|path| self.named(call, path)).collect()
    }

    /// Smallest and largest lease-break-time that may count at a moment of a span, in seconds; `None` for never.
    fn break_times(&self, span: Span) -> Vec<Option<u64>> {
        let mut last: Option<(u64, u8)> = None;
        let mut all = Vec::new();
        for k in 0..self.program.lines.len() as u16 {
            let Call::LeaseBreakTime { seconds } = self.call_of(k) else { continue };
            let other = self.span(k);
            if other.ret < span.inv && self.seen[k as usize].result == Some(Ok(0)) {
                last = last.max(Some((other.ret, *seconds)));
            } else if self.seen[k as usize].inv.is_some() && other.inv <= span.ret {
                all.push(*seconds);
            }
        }
        all.push(last.map_or(BREAK_TIME, |(_, seconds)| seconds));
        all.into_iter().map(|s| (s > 0).then_some(u64::from(s))).collect()
    }

    fn deadline(&self, begun: Span) -> Deadline {
        let times = self.break_times(begun);
        let ns = |s: u64| s * 1_000_000_000;
        let from = self.watch.time(begun.inv);
        let to = if begun.ret == NEVER { NEVER } else { self.watch.time(begun.ret) };
        let first = times.iter().flatten().min().map_or(NEVER, |s| from + ns(*s) - TICK_NS);
        let last = if times.contains(&None) || to == NEVER {
            NEVER
        } else {
            times.iter().flatten().max().map_or(NEVER, |s| to + ns(*s) + LATE_NS)
        };
        (first, last)
    }

    /// The time at which a lease that the call broke may go by itself at the earliest.
    pub fn soonest_deadline(&self, call: u16) -> u64 {
        self.deadline(self.begun(call)).0
    }

    fn ns(&self, span: Span) -> (u64, u64) {
        let from = self.watch.time(span.inv);
        (from, if span.ret == NEVER { NEVER } else { self.watch.time(span.ret) })
    }

    /// A holder's descriptors may be gone by now without a call that says so: his process ended.
    fn fade(&mut self, file: usize, span: Span) {
        let Some(states) = self.lease_states(file, span) else { return };
        let mut opens: Vec<usize> = states.iter().flatten().map(|h| h.open).collect();
        opens.sort_unstable();
        opens.dedup();
        for open in opens {
            if !self.surely_open(open, span.inv, span.ret) {
                let what = LeaseDo::Maybe(Box::new(LeaseDo::Drop { open }));
                self.push_lease(file, Span { call: NOBODY, ..span }, what);
            }
        }
    }

    fn lease_op(&mut self, file: usize, span: Span, what: LeaseDo) {
        if what.looks() {
            self.fade(file, span);
        }
        self.push_lease(file, span, what);
    }

    fn push_lease(&mut self, file: usize, span: Span, what: LeaseDo) {
        let (settled, ns) = (self.idle_since(), self.ns(span));
        let Some(register) = self.leases.get_mut(&file) else { return };
        if register.off {
            return;
        }
        register.states.push(span, LeaseOp { what, ns }, settled, &self.order);
        register.off |= register.states.overflowed();
    }

    /// Whether a file may have a lease on it during a span.
    pub fn lease_states(&self, file: usize, span: Span) -> Option<Vec<LeaseState>> {
        let register = self.leases.get(&file).filter(|r| !r.off)?;
        Some(register.states.during(span, None, &self.order))
    }

    /// The part of a call's time before it was seen to stand still: a breaker has begun the break by then, a transfer has its pages.
    pub fn begun(&self, call: u16) -> Span {
        let span = self.span(call);
        let stand = self.watch.first_stand(call).map_or(NEVER, |s| s.seq);
        Span { ret: span.ret.min(stand), ..span }
    }

    /// Enters what a call that is being invoked does to leases.
    pub(super) fn lease_effects(&mut self, call: u16) {
        let span = self.span(call);
        let result = self.seen[call as usize].result;
        let maybe = |what: LeaseDo| {
            if result.is_some() { what } else { LeaseDo::Maybe(Box::new(what)) }
        };
        match self.call_of(call) {
            Call::Setlease { lease, .. } => {
                let Some(open) = self.open_in(call, 0) else { return };
                let file = self.opens[open].file;
                self.leases.entry(file).or_insert_with(|| Register {
                    states: Lin::new(Vec::new()),
                    off: false,
                    breakers: BTreeSet::new(),
                });
                // Whoever is on his way to the file already may come to this lease.
                for index in 0..self.inflight.len() {
                    self.breaker_comes(self.inflight[index].1, file);
                }
                let Some(register) = self.leases.get_mut(&file) else { return };
                // Where layout leases are granted, one call may speak of either kind.
                register.off |= *lease == Lease::Layout && matches!(result, Some(Ok(_)));
                let what = match (lease, result) {
                    (Lease::Layout, _) => return,
                    (Lease::Unlock, Some(Err(Errno(11)))) => LeaseDo::None { open },
                    (_, Some(Err(_))) => return,
                    (Lease::Unlock, _) => maybe(LeaseDo::Unlock { open }),
                    (lease, _) => maybe(LeaseDo::Set { open, write: *lease == Lease::Write }),
                };
                self.lease_op(file, span, what);
            }
            Call::Getlease { .. } => {
                if let (Some(open), Some(Ok(what))) = (self.open_in(call, 0), result) {
                    let file = self.opens[open].file;
                    self.lease_op(file, span, LeaseDo::Get { open, what });
                }
            }
            Call::Open { .. } => {
                self.breaker_begins(call);
                self.drops(call);
            }
            Call::Truncate { .. } => self.breaker_begins(call),
            Call::Close { .. } | Call::Munmap { .. } | Call::Exit | Call::Kill { .. } => {
                self.drops(call);
            }
            other if other.fills().is_some() => self.drops(call),
            _ => {}
        }
    }

    /// Enters the leases that there are when a breaker sets out. One that is taken later enters him itself.
    fn breaker_begins(&mut self, call: u16) {
        let span = self.span(call);
        for file in self.broken_files(call) {
            let states = self.lease_states(file, span);
            if states.is_some_and(|states| states.iter().any(|state| !state.is_empty())) {
                self.breaker_comes(call, file);
            }
        }
    }

    /// Enters once what a breaker that is under way does to the leases of a file.
    fn breaker_comes(&mut self, call: u16, file: usize) {
        let Some(write) = self.breaker(call) else { return };
        let files = self.broken_files(call);
        let first = self.leases.get_mut(&file).is_some_and(|r| r.breakers.insert(call));
        if !files.contains(&file) || !first {
            return;
        }
        let span = self.span(call);
        let result = self.seen[call as usize].result;
        let nonblock = matches!(self.call_of(call), Call::Open { flags, .. } if flags.has(OpenFlags::NONBLOCK));
        let certain = files.len() == 1;
        let begun = self.begun(call);
        let deadline = self.deadline(begun);
        let doubt = |what: LeaseDo| {
            if certain { what } else { LeaseDo::Maybe(Box::new(what)) }
        };
        match result {
            Some(Ok(_)) => {
                self.lease_op(file, begun, doubt(LeaseDo::Break { write, deadline }));
                let stood = self.watch.first_stand(call).map_or(span.inv, |s| s.seq);
                let rest = Span { inv: stood.min(span.ret), ..span };
                self.lease_op(file, rest, doubt(LeaseDo::Pass { write }));
            }
            Some(Err(Errno(11))) if nonblock => {
                self.lease_op(file, span, doubt(LeaseDo::Refused { write, deadline }));
            }
            // ENOENT, EEXIST and their like come before the file is looked at.
            Some(Err(Errno(2 | 9 | 13 | 17))) => {}
            _ => {
                let what = LeaseDo::Break { write, deadline };
                self.lease_op(file, begun, LeaseDo::Maybe(Box::new(what)));
            }
        }
    }

    /// Whether a call can take a reference of an open file: one that fills a slot does so by what was in it.
    fn may_end_reference(&self, call: u16, open: usize) -> bool {
        let Some(slot) = self.call_of(call).fills() else { return true };
        let files = self.fds.iter().filter(|(_, o)| **o == open).map(|(filler, _)| *filler);
        let maps = self.maps.iter().filter(|(_, m)| m.open == open).map(|((_, filler), _)| *filler);
        files.chain(maps).any(|filler| self.call_of(filler).fills() == Some(slot))
    }

    /// A call that empties slots may take the last reference of an open file, and its lease.
    fn drops(&mut self, call: u16) {
        let span = self.span(call);
        let files: Vec<usize> =
            self.leases.iter().filter(|(_, r)| !r.off).map(|(f, _)| *f).collect();
        for file in files {
            let Some(states) = self.lease_states(file, span) else { continue };
            let mut opens: Vec<usize> = states.iter().flatten().map(|h| h.open).collect();
            opens.retain(|open| self.may_end_reference(call, *open));
            opens.sort_unstable();
            opens.dedup();
            for open in opens {
                let refs = self.references(open);
                let kept =
                    refs.iter().any(|l| l.sure.is_some_and(|s| s.0 <= span.inv && s.1 >= span.ret));
                if kept {
                    continue;
                }
                // References that end by this very call, or before it.
                let end = refs.iter().map(|l| l.maybe.1).max().unwrap_or(0);
                let begins = refs.iter().any(|l| l.maybe.0 <= span.ret && l.maybe.1 >= span.inv);
                // A reference that is taken meanwhile is not among them.
                let others = (0..self.program.lines.len() as u16).any(|k| {
                    let other = self.span(k);
                    let takes = matches!(self.call_of(k), Call::SendFd { .. } | Call::Fork { .. });
                    let takes = takes || self.call_of(k).fills().is_some();
                    k != call && takes && other.inv > span.inv && other.inv <= span.ret
                });
                if end <= span.ret && !others {
                    self.lease_op(file, span, LeaseDo::Drop { open });
                } else if begins || end < NEVER {
                    let drop = LeaseDo::Maybe(Box::new(LeaseDo::Drop { open }));
                    let span = Span { ret: if end == NEVER { span.ret } else { end }, ..span };
                    self.lease_op(file, span, drop);
                }
            }
        }
        // A child that ends unseen takes its descriptors with it.
        if let Call::Fork { child } = self.call_of(call)
            && self.program.lines.iter().all(|l| l.lane != Lane::Child(*child))
        {
            self.leases.values_mut().for_each(|r| r.off = true);
        }
    }

    /// A handler ran: it may have given a lease back or down.
    pub fn handled(&mut self, notice: &watch::Notice) {
        let Some((lease, Ok(_))) = notice.answer else { return };
        let process = notice.lane.map_or(0, Self::process);
        let next = (0..self.program.lines.len() as u16)
            .filter(|k| Some(self.line(*k).lane) == notice.lane)
            .flat_map(|k| [self.seen[k as usize].inv, self.seen[k as usize].ret])
            .flatten()
            .filter(|seq| *seq > notice.seq)
            .min();
        let ret = next.unwrap_or(NEVER).min(self.watch.later(notice.seq, LATE_NS));
        let span = Span { inv: notice.seq, ret, call: NOBODY };
        let opens: Vec<usize> = self
            .fds
            .iter()
            .filter(|(filler, _)| self.number(**filler) == Some(notice.fd))
            .filter(|(filler, _)| {
                let alive = |l: &super::life::Life| {
                    l.process == process && l.maybe.0 <= span.inv && l.maybe.1 >= span.inv
                };
                self.lives(**filler).iter().any(alive)
            })
            .map(|(_, open)| *open)
            .collect();
        let [open] = opens[..] else {
            for open in opens {
                let file = self.opens[open].file;
                self.leases.entry(file).and_modify(|r| r.off = true);
            }
            return;
        };
        let what = match lease {
            Lease::Unlock => LeaseDo::Unlock { open },
            Lease::Read => LeaseDo::Set { open, write: false },
            Lease::Write => LeaseDo::Set { open, write: true },
            Lease::Layout => return,
        };
        self.lease_op(self.opens[open].file, span, what);
    }

    /// The descriptor's number that a call gave out.
    pub fn number(&self, filler: u16) -> Option<i32> {
        let result = self.seen.get(filler as usize)?.result?;
        i32::try_from(result.ok()?).ok()
    }

    /// Whom the break that a call began must tell, or may have to. To be asked when the break has surely begun.
    pub fn dues(&self, call: u16) -> Vec<Due> {
        let Some(write) = self.breaker(call) else { return Vec::new() };
        let began = self.begun(call);
        let result = self.seen[call as usize].result;
        let through = !matches!(result, Some(Err(e)) if e != Errno(11) && e != Errno(4));
        let mut all = Vec::new();
        let files = self.broken_files(call);
        for file in &files {
            let Some(register) = self.leases.get(file) else { continue };
            if register.off {
                all.extend(self.any_due(call, *file));
                continue;
            }
            let states = register.states.before_op(began, &self.order);
            let tells = |state: &LeaseState| -> Vec<usize> {
                let told = state.iter().filter(|h| match breaks(write, h.write) {
                    Breaks::ToNone => h.gone.is_none(),
                    Breaks::ToRead => h.down.is_none() && h.gone.is_none(),
                    Breaks::Nothing => false,
                });
                told.map(|h| h.open).collect()
            };
            let mut opens: Vec<usize> = states.iter().flat_map(tells).collect();
            opens.sort_unstable();
            opens.dedup();
            let stood = self.watch.first_stand(call).is_some();
            for open in opens {
                let always = !states.is_empty() && states.iter().all(|s| tells(s).contains(&open));
                let sure = always && files.len() == 1 && through && (result.is_some() || stood);
                all.push(Due { by: call, file: *file, open, sure });
            }
        }
        all
    }

    /// Without knowledge of the leases: any open file that ever asked for one.
    fn any_due(&self, call: u16, file: usize) -> Vec<Due> {
        let mut opens: Vec<usize> = (0..self.program.lines.len() as u16)
            .filter(|k| matches!(self.call_of(*k), Call::Setlease { .. }))
            .filter(|k| self.seen[*k as usize].inv.is_some())
            .filter_map(|k| self.open_in(k, 0))
            .filter(|o| self.opens[*o].file == file)
            .collect();
        opens.sort_unstable();
        opens.dedup();
        opens.into_iter().map(|open| Due { by: call, file, open, sure: false }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(write: bool) -> LeaseState {
        vec![Held { open: 0, write, down: None, gone: None }]
    }

    fn op(what: LeaseDo, ns: (u64, u64)) -> LeaseOp {
        LeaseOp { what, ns }
    }

    #[test]
    fn a_reader_passes_a_read_lease_and_waits_for_a_write_lease() {
        let pass = op(LeaseDo::Pass { write: false }, (5, 6));
        assert_eq!(pass.step(&held(false)), vec![held(false)]);
        assert!(pass.step(&held(true)).is_empty());
        let write = op(LeaseDo::Pass { write: true }, (5, 6));
        assert!(write.step(&held(false)).is_empty());
    }

    #[test]
    fn a_broken_lease_goes_by_itself_when_somebody_looks_after_its_time_and_not_before() {
        let breaking = op(LeaseDo::Break { write: true, deadline: (100, 200) }, (1, 2));
        let state = breaking.step(&held(true)).remove(0);
        let get = |what, ns| op(LeaseDo::Get { open: 0, what }, ns).step(&state);
        assert_eq!(get(2, (50, 60)), vec![state.clone()]);
        let pass = |ns| op(LeaseDo::Pass { write: true }, ns).step(&state);
        assert!(pass((50, 99)).is_empty());
        assert_eq!(pass((50, 150)), vec![LeaseState::new()]);
        assert_eq!(op(LeaseDo::Unlock { open: 0 }, (300, 301)).step(&state), vec![vec![]]);
        assert!(get(1, (300, 301)).is_empty());
    }

    #[test]
    fn a_downgrade_may_grow_into_a_removal() {
        let down = begin(&held(true), false, (100, 200));
        assert_eq!(down[0].down, Some((100, 200)));
        let both = begin(&down, true, (300, 400));
        assert_eq!((both[0].down, both[0].gone), (Some((100, 200)), Some((300, 400))));
        let read = LeaseDo::Set { open: 0, write: false }.after(&down);
        assert_eq!(read, vec![held(false)]);
    }
}
