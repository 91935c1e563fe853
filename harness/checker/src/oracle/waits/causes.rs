//! For what may a call wait at a moment?

use super::locks::{behind, waited};
use super::missing::gives_back;
use super::{in_flight, lines};
use crate::model::World;
use crate::model::change::Changed;
use crate::model::lease::conflicts;
use crate::model::order::{NEVER, Span};
use crate::model::pin::{Hold, Means};
use crate::policy::{Meets, Reach, Term};
use program::{Call, GateSlot, Lane, Lease};

/// Fewest bytes that fill a pipe: 16 buffers of a page, one byte each at worst.
const PIPE_BUFFERS: u64 = 16;
/// Nanoseconds after which a lease past its time surely is in nobody's way.
const EXPIRED_NS: u64 = 1_000_000_000;

/// What a call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
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

/// Whether a hold counts for a change by the policy's table: must it wait, or may it?
pub(super) fn counts(world: &World, call: u16, changed: &Changed, hold: &Hold, must: bool) -> bool {
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
pub(super) fn causes(world: &World, call: u16, from: u64, to: u64) -> Vec<Cause> {
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

pub(super) fn pages(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
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

/// The pipe that a call may find empty or full, and whether it fills it.
pub(super) fn pipe_end(world: &World, call: u16) -> Option<(u16, bool)> {
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
