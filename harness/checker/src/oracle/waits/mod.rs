//! Did whoever waits wait for somebody, as long as that was there, and no longer?
//!
//! Verifies: a call that was seen to wait in a place where the kernel waits for pages or leases, that needed help, or that never returned, has a
//! holder: a page of a file whose layout it changes (by the policy's table), a lease, a gate, a pipe, or a waiter before it that has the inode's, the
//! directory's or the pipe's lock or stands before it in its ring; a change of layout did not succeed while a page that it must wait for was
//! surely held all the time; waits for pages and leases, asleep or not, can be ended by a signal, and by a kill.
//! Assumes: the agent helps a blocked call only after it has looked at it several times; a second after a holder has gone, its waiter has.
//! Does not verify: short stops that ended by themselves elsewhere in the kernel (a slow machine is not a hang).

use super::{Findings, file_name, who};
use crate::model::World;
use crate::model::change::Changed;
use crate::model::lease::conflicts;
use crate::model::order::{NEVER, Span};
use crate::model::pin::{Hold, Means};
use crate::model::watch::Stand;
use crate::policy::{Meets, Reach, Regime, Term};
use crate::{AnomalyKind, Oracle, Wait};
use program::{Call, CallId, GateSlot, Lane, Lease, Mount, OpenFlags};

/// Fewest bytes that fill a pipe: 16 buffers of a page, one byte each at worst.
const PIPE_BUFFERS: u64 = 16;
/// Nanoseconds after which a wait that was interrupted surely is over.
const DEAF_NS: u64 = 1_000_000_000;
/// Nanoseconds after which a lease past its time surely is in nobody's way.
const EXPIRED_NS: u64 = 1_000_000_000;

/// What a call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// A page.
    Page(Hold),
    /// Leases on a file, and the calls that took them.
    Lease(usize, Vec<u16>),
    /// A gate that is held.
    Gate(GateSlot),
    /// Bytes in a pipe.
    Empty(u16),
    /// Room in a pipe.
    Full(u16),
    /// Another call that uses the same pipe.
    Pipe(u16),
    /// Another call that has the lock of a file.
    Inode(u16, usize),
    /// Another call that has the lock of a mount's directory.
    Names(u16),
    /// Another request of its ring.
    Ring(u16),
    /// A lane that has not come to its end.
    Lane(Lane),
}

/// Looks at a call that was seen to stand still, and says what it waits for.
pub fn blocked(world: &mut World, stand: &Stand, findings: &mut Findings) -> Option<Wait> {
    let call = stand.call;
    world.seen.get(call as usize)?.inv?;
    world.stands(call);
    let pages = waits_for_pages(&stand.wchan);
    let lease = stand.wchan.contains("break_lease");
    let causes = causes(world, call, stand.seq, stand.seq);
    // Which of the requests in flight a ring's worker stands for is not known.
    let of_ring = |other: u16| {
        self::causes(world, other, stand.seq, stand.seq).iter().any(|c| match c {
            Cause::Page(_) => pages,
            Cause::Lease(..) => lease,
            _ => false,
        })
    };
    let fits = |c: &Cause| match c {
        Cause::Ring(other) if pages || lease => of_ring(*other),
        Cause::Page(_) => pages || !lease && stand.state != 'D',
        Cause::Lease(..) => lease || !pages && stand.state != 'D',
        // A signal ends a wait for bytes or room (fs/pipe.c:pipe_wait_readable, 6.12).
        Cause::Empty(_) | Cause::Full(_) => !pages && !lease && stand.state != 'D',
        _ => !pages && !lease,
    };
    let cause = causes.iter().find(|c| fits(c));
    let me = who(world, call);
    let unwoken = pages && unwoken(world, call, stand.seq);
    if cause.is_none() && (pages || lease) && !unwoken && !world.reflink_livelock() {
        let what = if pages { "a held page" } else { "a lease" };
        let elsewhere = elsewhere(world, call, stand.seq);
        findings.call(
            AnomalyKind::UnexplainedWait,
            Oracle::Liveness,
            call,
            format!(
                "{me} waits for {what} in {}, but there is none that it must wait for{elsewhere}.",
                stand.wchan
            ),
        );
    }
    if lease
        && matches!(world.call_of(call), Call::Open { flags, .. } if flags.has(OpenFlags::NONBLOCK))
    {
        findings.call(
            AnomalyKind::UnexplainedWait,
            Oracle::Liveness,
            call,
            format!(
                "{me} waits for a lease in {}, though it asked not to (O_NONBLOCK).",
                stand.wchan
            ),
        );
    }
    if stand.state == 'D' && (pages || lease) {
        findings.call(
            AnomalyKind::UnkillableWait,
            Oracle::Liveness,
            call,
            format!("{me} waits in {} in state D, where a signal must end the wait.", stand.wchan),
        );
    }
    if let Some(other) = circle(world, stand, &causes)
        && !world.policy.knows(crate::Known::DaxPipeDeadlock)
    {
        findings.call(
            AnomalyKind::Hang,
            Oracle::Liveness,
            call,
            format!(
                "{me} and {} wait for each other: the one has the pipe and wants the file, the other has the file and wants what is in the pipe.",
                who(world, other)
            ),
        );
    }
    let sentence = cause.or(causes.first()).map_or_else(
        || format!("{me} waits for nothing that is known"),
        |c| sentence(world, call, c),
    );
    Some(Wait { call: CallId(call), seq: stand.seq, sentence })
}

/// The other one of a deadlock: a splice that has its pipe's lock stands behind the lock of a file whose owner waits for pages in that pipe.
fn circle(world: &World, stand: &Stand, causes: &[Cause]) -> Option<u16> {
    if stand.state != 'D'
        || !matches!(
            world.call_of(stand.call),
            Call::SpliceFromPipe { .. } | Call::SpliceToPipe { .. }
        )
    {
        return None;
    }
    let (mine, _) = pipe_end(world, stand.call)?;
    let in_pipe = |k: u16| {
        self::causes(world, k, stand.seq, stand.seq).iter().any(
            |c| matches!(c, Cause::Page(Hold { means: Means::Pipe(pipe), .. }) if *pipe == mine),
        )
    };
    causes.iter().find_map(|c| match c {
        Cause::Inode(other, _) if in_pipe(*other) => Some(*other),
        _ => None,
    })
}

fn waits_for_pages(wchan: &str) -> bool {
    ["break_layouts", "break_dax_layout", "wait_dax_page"].iter().any(|w| wchan.contains(w))
}

/// Pages that are held, but that the call need not wait for: the reader wants to know.
fn elsewhere(world: &World, call: u16, at: u64) -> String {
    let files: Vec<usize> =
        world.changed.get(&call).into_iter().flatten().map(|c| c.file).collect();
    let held = world.holds().into_iter().find(|h| h.meets(at, at) && h.call != call);
    match held {
        Some(h) if files.contains(&h.file) => {
            format!(" ({} is held, but not for this)", page(world, &h))
        }
        Some(h) => format!(" ({} is held, of another file)", page(world, &h)),
        None => String::new(),
    }
}

/// Looks at a call that returned.
pub fn returned(world: &World, call: u16, findings: &mut Findings) {
    deaf(world, call, findings);
    if world.seen[call as usize].helped {
        // What it waited for was taken away by the agent, which leaves no trace of its own.
        helped(world, call, findings);
    } else {
        missing(world, call, findings);
    }
}

/// A wait for pages or a lease that went on after its thread was interrupted.
fn deaf(world: &World, call: u16, findings: &mut Findings) {
    if let Call::Kill { lane } = world.call_of(call) {
        return undying(world, call, *lane, findings);
    }
    let Some(first) = world.watch.first_stand(call) else { return };
    let spin = spins_for(world, call, first);
    let waits = waits_for_pages(&first.wchan) || first.wchan.contains("break_lease");
    if !(waits || spin.is_some()) || world.line(call).via.is_some() {
        return;
    }
    let (lane, span) = (world.line(call).lane, world.span(call));
    let heard = lines(world).find(|k| {
        let other = world.span(*k);
        matches!(world.call_of(*k), Call::Interrupt { lane: whom } if *whom == lane)
            && world.seen[*k as usize].result == Some(Ok(0))
            && other.inv > first.seq
            && world.watch.later(other.ret, DEAF_NS) < span.ret
    });
    let Some(by) = heard else { return };
    let (me, by) = (who(world, call), who(world, by));
    let what = match spin {
        Some(hold) if !world.clone_spins(call, &hold) => {
            format!(
                "{me} went on to run in the kernel for {} after {by}, which must end the wait.",
                page(world, &hold)
            )
        }
        Some(_) => return,
        None => {
            format!("{me} went on to wait in {} after {by}, which must end the wait.", first.wchan)
        }
    };
    findings.call(AnomalyKind::UnkillableWait, Oracle::Liveness, call, what);
}

/// A page that a change of layout waits for without ever sleeping, as far as it was seen to.
fn spins_for(world: &World, call: u16, stand: &Stand) -> Option<Hold> {
    if stand.state != 'R' {
        return None;
    }
    let mut all = Vec::new();
    pages(world, call, stand.seq, stand.seq, &mut all);
    all.into_iter().find_map(|cause| match cause {
        Cause::Page(hold) if hold.covers(stand.seq, stand.seq) => Some(hold),
        _ => None,
    })
}

/// A kill that came back while what it killed runs on in the kernel for a held page: whoever waits for such must die of it.
fn undying(world: &World, kill: u16, lane: Lane, findings: &mut Findings) {
    if world.seen[kill as usize].result != Some(Ok(1)) {
        return;
    }
    let span = world.span(kill);
    for call in in_flight(world, kill, span.inv, span.ret).filter(|k| world.line(*k).lane == lane) {
        let Some(stand) = world.watch.first_stand(call).filter(|s| s.seq < span.inv) else {
            continue;
        };
        let spin = spins_for(world, call, stand).filter(|h| h.covers(stand.seq, span.ret));
        let Some(hold) = spin.filter(|h| !world.clone_spins(call, h)) else { continue };
        let (me, by) = (who(world, call), who(world, kill));
        findings.call(
            AnomalyKind::UnkillableWait,
            Oracle::Liveness,
            call,
            format!(
                "{me} runs on in the kernel for {} after {by}, which must end the wait.",
                page(world, &hold)
            ),
        );
    }
}

/// Looks at the calls that never returned, when the program is over.
pub fn end(world: &World, stuck: &[CallId], helped_calls: &[CallId], findings: &mut Findings) {
    for call in helped_calls {
        if world.seen[call.0 as usize].ret.is_none() && world.seen[call.0 as usize].inv.is_some() {
            helped(world, call.0, findings);
        }
    }
    // Known: whoever meets the livelock never returns, and others wait for the file that it has locked.
    if world.reflink_livelock() || world.pin_livelock() {
        return;
    }
    for call in stuck {
        let name = who(world, call.0);
        let at = world.watch.first_stand(call.0).map(|s| s.seq);
        let was = at.and_then(|at| causes(world, call.0, at, at).first().cloned());
        let was = was.map_or_else(String::new, |c| format!(": {}", sentence(world, call.0, &c)));
        findings.call(
            AnomalyKind::Hang,
            Oracle::Liveness,
            call.0,
            format!("{name} never returned, even after its process was killed{was}."),
        );
    }
}

/// A call that ended only when the agent helped: something must have been there to wait for.
fn helped(world: &World, call: u16, findings: &mut Findings) {
    if world.reflink_livelock() || world.pin_livelock() {
        return;
    }
    let span = world.span(call);
    // What a killed child was about, it may have been about without waiting; and it is over, or stands where no signal reaches for something that was
    // there when the kill came back.
    let killed = lines(world).find(|k| {
        matches!(world.call_of(*k), Call::Kill { lane } if *lane == world.line(call).lane)
            && world.span(*k).ret > span.inv
    });
    if let Some(kill) = killed.filter(|_| span.ret == NEVER) {
        let at = world.span(kill).ret;
        let dead = world.seen[kill as usize].result == Some(Ok(0));
        let stood = world.watch.first_stand(call).is_some();
        if dead || !stood || at != NEVER && !causes(world, call, at, at).is_empty() {
            return;
        }
    }
    if unreaped(world, call) || unwoken(world, call, span.ret) {
        return;
    }
    let last = world.watch.stands.iter().map(|s| s.seq).filter(|s| *s <= span.ret).max();
    let from = world.watch.released.or(last);
    let mine = world.watch.stands.iter().filter(|s| s.call == call).map(|s| s.seq).next_back();
    // Lines that were issued only after the agent began to help are no matter of waiting, unless they were seen to.
    let (from, to) = match (from, mine) {
        (Some(at), _) if at >= span.inv && at <= span.ret => (at, at),
        (_, Some(at)) => (at, at),
        (Some(at), None) if at < span.inv => return,
        _ => (span.inv, span.ret),
    };
    if !causes(world, call, from, to).is_empty() {
        return;
    }
    let name = who(world, call);
    let first = world.watch.first_stand(call).map(|s| s.seq);
    let before = first.and_then(|at| causes(world, call, at, at).first().cloned());
    let (kind, what) = match before {
        Some(cause) => (
            AnomalyKind::Hang,
            format!(
                "{name} did not end by itself although what it waited for was gone: {}.",
                sentence(world, call, &cause)
            ),
        ),
        None => (
            AnomalyKind::UnexplainedWait,
            format!("{name} waited until it was helped, {}.", nothing(world, call)),
        ),
    };
    findings.call(kind, Oracle::Liveness, call, what);
}

/// Known: whether a layout change waits for a page that direct I/O gave back meanwhile, or stands behind one that does.
fn unwoken(world: &World, call: u16, at: u64) -> bool {
    if !world.policy.knows(crate::Known::DaxDirectIoWakesNobody) {
        return false;
    }
    let mut files = files_of(world, call);
    files.extend(world.changed.get(&call).into_iter().flatten().map(|c| c.file));
    let waits = |k: u16| {
        let stands = &world.watch.stands;
        stands.iter().any(|s| s.call == k && s.seq <= at && waits_for_pages(&s.wchan))
    };
    let waiters: Vec<u16> =
        in_flight(world, call, at, at).chain([call]).filter(|k| waits(*k)).collect();
    world.holds().iter().any(|h| {
        h.means == Means::Transfer
            && files.contains(&h.file)
            && waiters.iter().any(|k| h.call != *k && h.meets(world.span(*k).inv, at))
    })
}

/// Whether the call is a request whose ring was closed before it was over, or went with its process: nobody learns of its completion then.
fn unreaped(world: &World, call: u16) -> bool {
    let ring = world.seen[call as usize].slots.last();
    let lane = world.line(call).lane;
    world.line(call).via.is_some()
        && lines(world).any(|k| {
            let ends = match world.call_of(k) {
                Call::CloseRing { .. } => world.seen[k as usize].slots.first() == ring,
                Call::Exit => world.line(k).lane == lane,
                Call::Kill { lane: killed } => *killed == lane,
                _ => false,
            };
            ends && world.span(k).inv < world.span(call).ret
        })
}

/// Why there is no reason to wait.
fn nothing(world: &World, call: u16) -> String {
    match pipe_end(world, call) {
        Some((key, _)) => match world.pipes.get(&key) {
            Some(pipe) => {
                let inside = pipe.head.saturating_sub(pipe.tail);
                format!("though the pipe held {inside} bytes")
            }
            None => "though its pipe is unknown".to_owned(),
        },
        None => "and there is nothing in this program that it may wait for".to_owned(),
    }
}

/// A change of layout that succeeded although a page that it must wait for was held all the time.
fn missing(world: &World, call: u16, findings: &mut Findings) {
    let span = world.span(call);
    if !matches!(world.seen[call as usize].result, Some(Ok(_))) {
        return;
    }
    let changes = world.changed.get(&call).map_or(&[][..], Vec::as_slice);
    if changes.iter().all(|c| !c.certain) && !gives_back(world, call) && !lets_go(world, call) {
        return;
    }
    let holds = world.holds();
    for changed in changes.iter().filter(|c| c.certain) {
        let held = holds.iter().find(|h| {
            h.file == changed.file
                && h.call != call
                && h.covers(span.inv, span.ret)
                && !world.shares_by(h.file, call, span.ret)
                && counts(world, call, changed, h, true)
        });
        if let Some(hold) = held {
            let what = format!(
                "{} succeeded although {} was held{} all the time, for which it must wait.",
                who(world, call),
                page(world, hold),
                by(world, hold),
            );
            missed(world, call, changed.file, what, findings);
            return;
        }
    }
    if lets_go(world, call)
        && let Some(file) = world.file_in(call, 0)
        && let Some(hold) = holds
            .iter()
            .find(|h| h.file == file && h.term == Term::Long && h.covers(span.inv, span.ret))
    {
        let what = format!(
            "{} let go of a layout lease and came back, although {} was held{}: its process must be killed.",
            who(world, call),
            page(world, hold),
            by(world, hold),
        );
        missed(world, call, file, what, findings);
        return;
    }
    if gives_back(world, call)
        && let Some(file) = world.file_in(call, 0)
        && let Some(hold) = holds
            .iter()
            .find(|h| h.file == file && h.term == Term::Long && h.covers(span.inv, span.ret))
    {
        let what = format!(
            "{} gave a layout lease back although {} was held{} all the time.",
            who(world, call),
            page(world, hold),
            by(world, hold),
        );
        missed(world, call, file, what, findings);
    }
}

fn missed(world: &World, call: u16, file: usize, sentence: String, findings: &mut Findings) {
    findings.push(crate::Anomaly {
        kind: AnomalyKind::MissingWait,
        oracle: Oracle::Liveness,
        call: Some(CallId(call)),
        path: Some(world.files[file].path),
        mount: world.files[file].mount(),
        sentence,
    });
}

/// Whether the call gives a layout lease back, which waits where the policy says so.
fn gives_back(world: &World, call: u16) -> bool {
    let strict = world.policy.regime == Regime::LayoutLeaseStrict;
    let unlocks = matches!(world.call_of(call), Call::Setlease { lease: Lease::Unlock, .. });
    strict
        && unlocks
        && world.file_in(call, 0).is_some_and(|file| {
            let span = world.span(call);
            world.layout_leases(file).iter().any(|l| {
                Some(l.open) == world.open_in(call, 0)
                    && l.maybe.0 <= span.ret
                    && l.maybe.1 >= span.inv
            })
        })
}

/// Whether a call closes the last descriptor of a file with a layout lease that nobody may let go of before the pins.
fn lets_go(world: &World, call: u16) -> bool {
    let strict = world.policy.regime == Regime::LayoutLeaseStrict;
    if !strict || !matches!(world.call_of(call), Call::Close { .. }) {
        return false;
    }
    let (Some(open), Some(file)) = (world.open_in(call, 0), world.file_in(call, 0)) else {
        return false;
    };
    let span = world.span(call);
    let mine = world.seen[call as usize].slots.first().map(|s| s.0);
    let leased = world.layout_leases(file).iter().any(|l| {
        l.open == open
            && l.sure.is_some_and(|s| s.0 < span.inv && s.1.saturating_add(1) >= span.inv)
    });
    let travels = |k: u16| {
        matches!(world.call_of(k), Call::SendFd { .. }) && world.open_in(k, 0) == Some(open)
    };
    // Another descriptor, be it a child's copy of this one.
    let elsewhere = world.fds.iter().filter(|(_, o)| **o == open).any(|(filler, _)| {
        world.lives(*filler).iter().any(|l| {
            let own = Some(*filler) == mine && l.process == World::process(world.line(call).lane);
            !own && l.maybe.0 <= span.ret && l.maybe.1 >= span.inv
        })
    });
    leased && !elsewhere && !(0..world.program.lines.len() as u16).any(travels)
}

/// Whether a hold counts for a change by the policy's table: must it wait, or may it?
fn counts(world: &World, call: u16, changed: &Changed, hold: &Hold, must: bool) -> bool {
    let Some(row) = world.row(changed, hold.term) else { return false };
    let waits = match row.meets {
        Meets::Waits => true,
        Meets::MayWait => !must,
        Meets::Proceeds | Meets::Refused(_) | Meets::TakesAway => false,
    };
    let range = if must { changed.taken } else { changed.touched };
    let there = match row.reach {
        Reach::File => true,
        Reach::Range => range.0 <= hold.page && hold.page < range.1,
    };
    waits && there && (!must || world.looks(call, changed, row))
}

/// Everything that a call may wait for at some moment of `from..=to`, what tells most first.
fn causes(world: &World, call: u16, from: u64, to: u64) -> Vec<Cause> {
    let mut all = Vec::new();
    pages(world, call, from, to, &mut all);
    leases(world, call, from, to, &mut all);
    let window = Span { inv: from, ret: to, call };
    all.extend(
        world.gate_used(call).filter(|gate| world.may_be_held(*gate, window)).map(Cause::Gate),
    );
    // A block device is closed, and a suspended one, only when what is in flight is done; so the end of a ring or a process.
    pipes(world, call, from, to, &mut all);
    behind(world, call, from, to, &mut all);
    match world.call_of(call) {
        Call::Wait { lane } | Call::Kill { lane } => all.push(Cause::Lane(*lane)),
        // A process is not gone before the workers of its rings are, each of which ends what it is about (io_uring/tctx.c:io_uring_clean_tctx and
        // io-wq.c:io_wq_exit_workers, 6.12 and 6.1). What a device is about is not waited for.
        Call::Exit => {
            let lane = world.line(call).lane;
            let its = |k: &u16| world.line(*k).via.is_some() && world.line(*k).lane == lane;
            all.extend(in_flight(world, call, from, to).find(its).map(Cause::Ring));
        }
        _ => {}
    }
    all
}

fn pages(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
    let changes = match world.changed.get(&call) {
        Some(changes) => changes.clone(),
        None => world.changes(call),
    };
    let strict = gives_back(world, call);
    if changes.is_empty() && !strict {
        return;
    }
    let mut holds: Vec<Hold> = world
        .holds()
        .into_iter()
        .filter(|h| h.meets(from, to) && (h.call != call || h.means != Means::Transfer))
        .filter(|h| {
            let back = strict && h.term == Term::Long && world.file_in(call, 0) == Some(h.file);
            back || changes.iter().any(|c| c.file == h.file && counts(world, call, c, h, false))
        })
        .collect();
    holds.sort_by_key(|h| (!h.covers(from, to), h.page, h.call));
    all.extend(holds.into_iter().map(Cause::Page));
}

fn leases(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
    let Some(write) = world.breaker(call) else { return };
    for file in world.broken_files(call) {
        let Some(register) = world.leases.get(&file) else { continue };
        let window = Span { inv: from, ret: to, call };
        let now = world.watch.time(from);
        let there = register.off
            || register.states.during(window, None, &world.order).iter().flatten().any(|h| {
                let past = |d: Option<(u64, u64)>| {
                    d.is_some_and(|d| d.1 != NEVER && d.1.saturating_add(EXPIRED_NS) < now)
                };
                conflicts(h, write) && !past(h.gone) && !past(h.down.filter(|_| !write))
            });
        if there {
            let takes = |k: &u16| {
                let asks = matches!(world.call_of(*k), Call::Setlease { lease, .. } if *lease != Lease::Unlock);
                asks && world.seen[*k as usize].inv.is_some_and(|inv| inv <= to)
                    && matches!(world.seen[*k as usize].result, Some(Ok(_)))
                    && world.file_in(*k, 0) == Some(file)
            };
            all.push(Cause::Lease(file, lines(world).filter(takes).collect()));
        }
    }
}

fn lines<'a>(world: &'a World) -> impl Iterator<Item = u16> + 'a {
    (0..world.program.lines.len() as u16).filter(|k| world.seen[*k as usize].inv.is_some())
}

/// The pipe that a call may find empty or full, and whether it fills it.
fn pipe_end(world: &World, call: u16) -> Option<(u16, bool)> {
    let slot = |n: usize| world.seen[call as usize].slots.get(n).map(|s| s.0);
    match world.call_of(call) {
        Call::SpliceToPipe { .. } | Call::Vmsplice { .. } => Some((slot(1)?, true)),
        Call::SpliceFromPipe { .. } | Call::ReadPipe { .. } | Call::Tee { .. } => {
            Some((slot(0)?, false))
        }
        _ => None,
    }
}

fn pipes(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
    let Some((key, fills)) = pipe_end(world, call) else { return };
    let state = |key: u16, fills: bool| {
        world.pipes.get(&key).and_then(|pipe| {
            let inside = pipe.head.saturating_sub(pipe.tail);
            let cause = if fills { Cause::Full(key) } else { Cause::Empty(key) };
            let there = pipe.confused || if fills { inside >= PIPE_BUFFERS } else { inside == 0 };
            there.then_some(cause)
        })
    };
    all.extend(state(key, fills));
    if matches!(world.call_of(call), Call::Tee { .. })
        && let Some(dst) = world.seen[call as usize].slots.get(1)
    {
        all.extend(state(dst.0, true));
    }
    // Whoever moves bytes between a pipe and a file has the pipe's lock while it waits for the file.
    let other = in_flight(world, call, from, to).filter(|k| waited(world, *k)).find(|k| {
        pipe_end(world, *k).is_some_and(|(other, _)| other == key)
            && !matches!(world.call_of(*k), Call::Vmsplice { .. } | Call::ReadPipe { .. })
    });
    all.extend(other.map(Cause::Pipe));
}

/// Other calls that had begun by `to` and were not over at `from`.
fn in_flight<'a>(
    world: &'a World,
    call: u16,
    from: u64,
    to: u64,
) -> impl Iterator<Item = u16> + 'a {
    lines(world).filter(move |k| {
        let span = world.span(*k);
        *k != call && span.inv <= to && span.ret >= from
    })
}

/// Whether a call surely did not go straight through: it was seen to stand still, or needed help.
fn waited(world: &World, call: u16) -> bool {
    let seen = &world.seen[call as usize];
    seen.helped || seen.stuck || world.watch.first_stand(call).is_some()
}

/// Files that a call uses by descriptor or name.
fn files_of(world: &World, call: u16) -> Vec<usize> {
    let seen = &world.seen[call as usize];
    let mut files: Vec<usize> = seen
        .slots
        .iter()
        .filter_map(|s| world.fds.get(&s.0))
        .map(|open| world.opens[*open].file)
        .collect();
    files.extend(world.call_of(call).paths().flat_map(|path| world.named(call, path)));
    if let Call::Madvise { .. } = world.call_of(call) {
        files.extend(world.map_in(call, 0).map(|m| m.file));
    }
    files
}

/// Calls that never stand behind the lock of an inode.
fn takes_no_lock(call: &Call) -> bool {
    matches!(
        call,
        Call::Fsync { .. }
            | Call::Fdatasync { .. }
            | Call::Statx { .. }
            | Call::Load { .. }
            | Call::Store { .. }
            | Call::Setlease { .. }
            | Call::Getlease { .. }
            | Call::Setsig { .. }
            | Call::SetownEx { .. }
            | Call::Dup { .. }
            | Call::Vmsplice { .. }
            | Call::SendFd { .. }
            | Call::RecvFd { .. }
    )
}

fn behind(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
    let line = world.line(call);
    if let Some(via) = line.via {
        let ring = |k: &u16| world.line(*k).via.is_some_and(|v| v.ring == via.ring);
        all.extend(in_flight(world, call, from, to).find(ring).map(Cause::Ring));
    }
    if let Call::UnregisterBuffers { .. } = world.call_of(call) {
        // Requests that use the buffer come to their end first.
        let ring = world.seen[call as usize].slots.first().copied();
        let uses = |k: &u16| {
            world.line(*k).via.is_some() && world.seen[*k as usize].slots.last().copied() == ring
        };
        all.extend(in_flight(world, call, from, to).find(uses).map(Cause::Ring));
    }
    if takes_no_lock(world.call_of(call)) {
        return;
    }
    let mine = files_of(world, call);
    // A waiter for pages, or one that stands behind it, has the lock of the file. A waiter for a lease has none.
    let locks = |k: u16| {
        let changes = world.changed.get(&k).cloned().unwrap_or_else(|| world.changes(k));
        let changing = changes.iter().map(|c| c.file);
        let using = files_of(world, k).into_iter().filter(|_| !takes_no_lock(world.call_of(k)));
        changing.chain(using).find(|f| mine.contains(f) && world.files[*f].gate.is_none())
    };
    let mut waiters: Vec<u16> =
        in_flight(world, call, from, to).filter(|k| waited(world, *k)).collect();
    // The one that changes the layout is the first in the queue.
    waiters.sort_by_key(|k| (world.changed.get(k).is_none_or(Vec::is_empty), world.span(*k).inv));
    all.extend(waiters.iter().find_map(|k| locks(*k).map(|file| Cause::Inode(*k, file))));
    // Names are changed under the directory's lock, and that of the file that loses one.
    let directory = |k: u16| -> Option<Mount> {
        match world.call_of(k) {
            Call::Open { .. } | Call::Unlink { .. } | Call::Rename { .. } | Call::Link { .. } => {
                world.call_of(k).paths().next().map(|p| p.mount)
            }
            _ => None,
        }
    };
    if let Some(mount) = directory(call) {
        let same = |k: &&u16| directory(**k) == Some(mount);
        all.extend(waiters.iter().find(same).map(|k| Cause::Names(*k)));
    }
}

fn page(world: &World, hold: &Hold) -> String {
    format!("page {} of {}", hold.page / crate::model::PAGE, file_name(world, hold.file))
}

fn by(world: &World, hold: &Hold) -> String {
    let call = who(world, hold.call);
    match hold.means {
        Means::Pipe(_) => format!(" by the pipe of {call}"),
        Means::Transfer => match world.gate_used(hold.call) {
            Some(gate) => format!(" by {call}, whose I/O is with {gate}"),
            None => format!(" by the I/O of {call}"),
        },
        Means::Copy => match world.gate_used(hold.call) {
            Some(gate) => format!(" by {call}, whose copy waits for {gate}"),
            None => format!(" by {call}"),
        },
        Means::Registered(_) => format!(" by the buffer of {call}"),
        Means::Region => format!(" by the memory region of {call}"),
    }
}

fn sentence(world: &World, call: u16, cause: &Cause) -> String {
    let me = who(world, call);
    match cause {
        Cause::Page(hold) => {
            format!("{me} waits for {}, held{}", page(world, hold), by(world, hold))
        }
        Cause::Lease(file, takers) => {
            let takers: Vec<String> = takers.iter().map(|k| who(world, *k)).collect();
            let name = file_name(world, *file);
            format!("{me} waits for the lease of {} on {name}", takers.join(" or "))
        }
        Cause::Gate(gate) => format!("{me} waits for {gate}, which is held"),
        Cause::Empty(key) => format!("{me} waits for bytes in the pipe of {}", who(world, *key)),
        Cause::Full(key) => format!("{me} waits for room in the pipe of {}", who(world, *key)),
        Cause::Pipe(other) => {
            format!("{me} waits for {}, which has the pipe's lock", who(world, *other))
        }
        Cause::Inode(other, file) => {
            let (other, name) = (who(world, *other), file_name(world, *file));
            format!("{me} stands behind {other}, which has the lock of {name}")
        }
        Cause::Names(other) => {
            format!("{me} stands behind {}, which has the directory's lock", who(world, *other))
        }
        Cause::Ring(other) => {
            format!("{me} stands behind {} in its ring", who(world, *other))
        }
        Cause::Lane(lane) => format!("{me} waits for lane {lane}"),
    }
}
