//! Was every signal that tells of a lease due, and did every due one come, once, to the right place?
//!
//! Verifies: each break of a lease that surely began told the lease's owner, with the signal, si_code, si_fd and thread or process that F_SETSIG and
//! F_SETOWN_EX asked for, before the program was over; and no other such signal came (fs/fcntl.c:send_sigio_to_task, 6.12 and 6.1).
//! Assumes: RLIMIT_SIGPENDING suffices; the handler runs in every process of the program.
//! Does not verify: how many of several signals of one number without a queue (SIGIO) came: they coalesce. Signals to a process that may have ended.

use super::pairing::Pairing;
use super::{Findings, file_name, who};
use crate::model::World;
use crate::model::lease::Due;
use crate::model::watch::Notice;
use crate::{AnomalyKind, Oracle};
use program::{Call, Lane, Lease, Notice as Sig, OwnerKind};

const SIGIO: i32 = 29;
/// SIGRTMIN of the C library is 34.
const RT1: i32 = 35;
const RT2: i32 = 36;
const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 128;
const POLL_MSG: i32 = 3;
/// POLLIN | POLLRDNORM | POLLMSG.
const BAND: i64 = 0x441;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Thread(Lane),
    Process(u8),
    /// Every process of the group.
    Group,
}

/// A signal that a break sends, or may send.
#[derive(Clone, Debug)]
struct Expected {
    due: Due,
    /// What F_SETSIG may have asked for.
    signals: Vec<Sig>,
    owners: Vec<Owner>,
    /// Descriptors' numbers that F_SETLEASE was called with.
    fds: Vec<i32>,
    /// When the break began.
    from: u64,
    /// Whether somebody forked when it began.
    forking: bool,
    /// Whether it surely was sent, and where it goes surely lived.
    sure: bool,
}

/// Where a signal that is expected may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// A process of the group.
    In(Option<u8>),
    /// A child that was being made: what a group gets meanwhile it gets as well, but without the siginfo (kernel/signal.c:__send_signal_locked,
    /// kernel/fork.c:copy_process, 6.12 and 6.1).
    Newborn,
}

/// Looks at the whole run when it is over.
pub fn end(world: &World, findings: &mut Findings) {
    let expected: Vec<Expected> =
        world.dues.iter().map(|d| expect(world, d)).chain(layout_breaks(world)).collect();
    let notices = &world.watch.notices;
    // A group gets one signal for each of its processes.
    let mut places: Vec<(usize, Place)> = Vec::new();
    for (k, e) in expected.iter().enumerate() {
        if e.owners.contains(&Owner::Group) {
            let mut processes: Vec<_> = notices.iter().map(process_of).collect();
            processes.sort_unstable();
            processes.dedup();
            places.extend(processes.into_iter().map(|p| (k, Place::In(p))));
            places.extend(e.forking.then_some((k, Place::Newborn)));
        } else {
            places.push((k, Place::Anywhere));
        }
    }
    let mut pairing = Pairing::new(places.len(), notices.len(), |place, n| {
        let ((k, place), n) = (places[place], &notices[n]);
        let e = &expected[k];
        match place {
            Place::Anywhere => matches(e, n),
            Place::In(process) => matches(e, n) && process_of(n) == process,
            Place::Newborn => n.seq >= e.from && is_bare(e, n),
        }
    });
    // Sure ones take their signals first, then those that may have been sent.
    let mut missing = Vec::new();
    for (k, e) in expected.iter().enumerate().filter(|(_, e)| e.sure) {
        let full = |place: &usize| places[*place].0 == k && places[*place].1 != Place::Newborn;
        let mut own = (0..places.len()).filter(full);
        if !own.any(|place| pairing.pair_left(place)) {
            missing.push(e);
        }
    }
    for (i, notice) in notices.iter().enumerate() {
        if pairing.pair_right(i) {
            continue;
        }
        let sentence = unexplained(world, notice, &expected);
        findings.push(crate::Anomaly {
            kind: AnomalyKind::UnexplainedSignal,
            oracle: Oracle::Notices,
            call: None,
            path: None,
            mount: None,
            sentence,
        });
    }
    for e in missing {
        // Signals without a queue are one while the first has not been taken.
        let queued = e.signals.iter().all(|s| matches!(s, Sig::Rt1 | Sig::Rt2));
        let same = |n: &Notice| n.seq >= e.from && n.signo == SIGIO && right_place(e, n);
        if !queued && notices.iter().any(same) {
            continue;
        }
        findings.push(crate::Anomaly {
            kind: AnomalyKind::MissingSignal,
            oracle: Oracle::Notices,
            call: Some(program::CallId(e.due.by)),
            path: Some(world.files[e.due.file].path),
            mount: world.files[e.due.file].mount(),
            sentence: format!(
                "{} broke a lease on {}, but the signal that is due for it did not come: {}.",
                who(world, e.due.by),
                file_name(world, e.due.file),
                describe(e)
            ),
        });
    }
}

fn process_of(notice: &Notice) -> Option<u8> {
    notice.lane.map(World::process)
}

fn number(signal: Sig) -> i32 {
    match signal {
        Sig::Default | Sig::Io => SIGIO,
        Sig::Rt1 => RT1,
        Sig::Rt2 => RT2,
    }
}

fn right_signal(e: &Expected, n: &Notice) -> bool {
    e.signals.iter().any(|signal| match signal {
        Sig::Default => n.signo == SIGIO && n.code == SI_KERNEL && n.fd == 0,
        signal => {
            n.signo == number(*signal)
                && n.code == POLL_MSG
                && e.fds.contains(&n.fd)
                && n.band == BAND
        }
    })
}

/// Whether it is the signal without what it says of itself.
fn is_bare(e: &Expected, n: &Notice) -> bool {
    e.signals.iter().any(|s| number(*s) == n.signo) && (n.code, n.fd, n.band) == (SI_USER, 0, 0)
}

fn right_place(e: &Expected, n: &Notice) -> bool {
    e.owners.iter().any(|owner| match owner {
        Owner::Thread(lane) => n.lane == Some(*lane),
        // A thread of the agent's own is one of the program's process.
        Owner::Process(process) => process_of(n).map_or(*process == 0, |p| p == *process),
        Owner::Group => true,
    })
}

fn matches(e: &Expected, n: &Notice) -> bool {
    n.seq >= e.from && right_signal(e, n) && right_place(e, n)
}

fn describe(e: &Expected) -> String {
    let signals: Vec<String> = e
        .signals
        .iter()
        .map(|s| match s {
            Sig::Default => format!("signal {SIGIO} (si_code {SI_KERNEL})"),
            s => format!("signal {} (si_code {POLL_MSG}, si_fd {:?})", number(*s), e.fds),
        })
        .collect();
    let owners: Vec<String> = e
        .owners
        .iter()
        .map(|o| match o {
            Owner::Thread(lane) => format!("the thread of {lane}"),
            Owner::Process(0) => "the program's process".to_owned(),
            Owner::Process(n) => format!("the process of c{}", n - 1),
            Owner::Group => "the process group".to_owned(),
        })
        .collect();
    format!("{} to {}", signals.join(" or "), owners.join(" or "))
}

fn unexplained(world: &World, n: &Notice, expected: &[Expected]) -> String {
    let whom = n.lane.map_or_else(|| "the program's process".to_owned(), |l| l.to_string());
    let got = format!(
        "{whom} got signal {} (si_code {}, si_fd {}, si_band {:#x})",
        n.signo, n.code, n.fd, n.band
    );
    let near = expected.iter().filter(|e| e.from <= n.seq);
    let near: Vec<&Expected> = near.collect();
    let mut other = near.iter().filter(|e| right_signal(e, n) || right_place(e, n));
    match other.next() {
        None => format!("{got}, but no lease was broken that asks for it."),
        Some(e) if matches(e, n) => {
            format!("{got} once more than {} broke a lease that asks for it.", who(world, e.due.by))
        }
        Some(e) => {
            format!("{got}; when {} broke a lease, due was: {}.", who(world, e.due.by), describe(e))
        }
    }
}

/// What a break asks for: the settings that the open file may have had then.
fn expect(world: &World, due: &Due) -> Expected {
    let begun = world.begun(due.by);
    let signals = signals(world, due.open, begun.inv, begun.ret);
    let owners = owners(world, due.open, begun.inv, begun.ret);
    let mut fds: Vec<i32> = lines(world)
        .filter(|k| matches!(world.call_of(*k), Call::Setlease { .. }))
        .filter(|k| world.open_in(*k, 0) == Some(due.open))
        .filter_map(|k| world.number(world.seen[k as usize].slots.first()?.0))
        .collect();
    // The handler's own answer names the descriptor by the number that it was told.
    fds.sort_unstable();
    fds.dedup();
    let lives = |process: u8| world.birth(process).is_some() && world.death(process).0 > begun.ret;
    let reachable = owners.iter().all(|o| match o {
        Owner::Thread(lane) => World::process(*lane) == 0,
        Owner::Process(p) => *p == 0 && lives(*p),
        Owner::Group => true,
    });
    let known = signals.len() == 1 && owners.len() == 1;
    let sure = due.sure && known && reachable && world.watch.end.is_some();
    let forking = lines(world).any(|k| {
        let span = world.span(k);
        let overlaps = span.inv <= begun.ret && span.ret >= begun.inv;
        matches!(world.call_of(k), Call::Fork { .. }) && overlaps
    });
    Expected { due: *due, signals, owners, fds, from: begun.inv, forking, sure }
}

fn lines<'a>(world: &'a World) -> impl Iterator<Item = u16> + 'a {
    (0..world.program.lines.len() as u16).filter(|k| world.seen[*k as usize].inv.is_some())
}

/// Calls that may have taken the lease away from an open file, and with it what F_SETSIG and F_SETOWN_EX had set.
fn removals(world: &World, open: usize) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = lines(world)
        .filter(|k| matches!(world.call_of(*k), Call::Setlease { lease: Lease::Unlock, .. }))
        .filter(|k| world.open_in(*k, 0) == Some(open))
        .filter(|k| !matches!(world.seen[*k as usize].result, Some(Err(_))))
        .map(|k| (world.span(k).inv, world.span(k).ret))
        .collect();
    all.extend(
        world
            .watch
            .notices
            .iter()
            .filter(|n| matches!(n.answer, Some((Lease::Unlock, Ok(_)))))
            .map(|n| (n.seq, world.watch.later(n.seq, 1_000_000_000))),
    );
    // A lease that was broken may have gone by its time.
    all.extend(world.dues.iter().filter(|d| d.open == open).map(|d| {
        let from = world.begun(d.by).inv;
        let soonest = world.soonest_expiry(d.by);
        (soonest.max(from), u64::MAX)
    }));
    all
}

/// Values that a setting may have between `from` and `to`: the last one surely set before, unless a removal may have come after it; and any set
/// meanwhile.
fn settings<T: Clone + PartialEq>(
    sets: &[(u64, u64, T)],
    removals: &[(u64, u64)],
    first: T,
    (from, to): (u64, u64),
) -> Vec<T> {
    let mut all = Vec::new();
    let last = sets.iter().filter(|(_, ret, _)| *ret < from).max_by_key(|(_, ret, _)| *ret);
    let since = last.map_or(0, |(_, ret, _)| *ret);
    let began = last.map_or(0, |(inv, _, _)| *inv);
    // A removal surely after the last setting, and surely before now, leaves the first value alone.
    let removed = removals.iter().any(|(inv, ret)| *inv > since && *ret < from);
    let maybe = removals.iter().any(|(inv, ret)| *ret >= began && *inv <= to);
    match last {
        Some((_, _, value)) if !removed => all.push(value.clone()),
        _ => all.push(first.clone()),
    }
    if maybe {
        all.push(first);
    }
    for (inv, ret, value) in sets {
        if *inv <= to && *ret >= from || *ret < from && *ret >= began && *inv <= since {
            all.push(value.clone());
        }
    }
    let mut unique: Vec<T> = Vec::new();
    for value in all {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}

fn signals(world: &World, open: usize, from: u64, to: u64) -> Vec<Sig> {
    let sets: Vec<(u64, u64, Sig)> = lines(world)
        .filter(|k| world.open_in(*k, 0) == Some(open))
        .filter(|k| !matches!(world.seen[*k as usize].result, Some(Err(_))))
        .filter_map(|k| match world.call_of(k) {
            Call::Setsig { notice, .. } => Some((world.span(k).inv, world.span(k).ret, *notice)),
            _ => None,
        })
        .collect();
    settings(&sets, &removals(world, open), Sig::Default, (from, to))
}

fn owners(world: &World, open: usize, from: u64, to: u64) -> Vec<Owner> {
    let mine = |k: &u16| {
        world.open_in(*k, 0) == Some(open)
            && !matches!(world.seen[*k as usize].result, Some(Err(_)))
    };
    let sets: Vec<(u64, u64, Owner)> = lines(world)
        .filter(mine)
        .filter_map(|k| match world.call_of(k) {
            Call::SetownEx { kind, lane, .. } => {
                let owner = match kind {
                    OwnerKind::Tid => Owner::Thread(*lane),
                    OwnerKind::Pid => Owner::Process(World::process(*lane)),
                    OwnerKind::Pgrp => Owner::Group,
                };
                Some((world.span(k).inv, world.span(k).ret, owner))
            }
            _ => None,
        })
        .collect();
    // Where none is set, F_SETLEASE names the process that calls it.
    let mut takers: Vec<u8> = lines(world)
        .filter(mine)
        .filter(|k| matches!(world.call_of(*k), Call::Setlease { lease, .. } if *lease != Lease::Unlock))
        .map(|k| World::process(world.line(k).lane))
        .collect();
    takers.extend(world.watch.notices.iter().filter_map(|n| match n.answer {
        Some((Lease::Read | Lease::Write, Ok(_))) => process_of(n),
        _ => None,
    }));
    takers.sort_unstable();
    takers.dedup();
    let none = settings(&sets, &removals(world, open), Owner::Process(u8::MAX), (from, to));
    let mut all = Vec::new();
    for owner in none {
        if owner == Owner::Process(u8::MAX) {
            all.extend(takers.iter().map(|p| Owner::Process(*p)));
        } else {
            all.push(owner);
        }
    }
    all
}

/// Under a policy with layout leases: whoever tries to change the layout of a leased file tells the lease's holder.
fn layout_breaks<'a>(world: &'a World) -> impl Iterator<Item = Expected> + 'a {
    let on = world.policy.regime.has_layout_leases();
    lines(world).filter(move |_| on).flat_map(move |by| {
        let changes = world.changed.get(&by).cloned().unwrap_or_default();
        changes.into_iter().flat_map(move |changed| {
            let leases = world.layout_leases(changed.file);
            leases.into_iter().filter_map(move |lease| {
                let span = world.span(by);
                if lease.maybe.0 > span.ret || lease.maybe.1 < span.inv {
                    return None;
                }
                let due = Due { by, file: changed.file, open: lease.open, sure: false };
                let mut e = expect(world, &due);
                // Surely told is who holds the lease when a change is refused for his pins.
                let refused = world.seen[by as usize].result == Some(Err(history::Errno(26)));
                let known = e.signals.len() == 1 && e.owners == [Owner::Process(0)];
                let held = lease.sure.is_some_and(|s| s.0 <= span.inv && s.1 + 1 >= span.inv);
                let first = world
                    .changed
                    .iter()
                    .filter(|(k, c)| {
                        **k != by
                            && c.iter().any(|c| c.file == changed.file)
                            && world.span(**k).inv < span.inv
                    })
                    .count()
                    == 0;
                e.sure = refused && known && held && first && world.watch.end.is_some();
                Some(e)
            })
        })
    })
}

impl World<'_> {
    /// The first place in the order at which a lease that this call broke may have gone by its time.
    fn soonest_expiry(&self, by: u16) -> u64 {
        let ns = self.soonest_deadline(by);
        if ns == u64::MAX { u64::MAX } else { self.watch.at(ns) }
    }
}
