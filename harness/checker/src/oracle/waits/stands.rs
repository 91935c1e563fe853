//! Is there something to wait for, for a call that was seen to stand still?

use super::causes::{Cause, causes, pipe_end};
use super::helped::unwoken;
use super::sentence::{page, sentence};
use super::{in_flight, waits_for_pages};
use crate::model::World;
use crate::model::pin::{Hold, Means};
use crate::model::watch::Stand;
use crate::oracle::{Findings, who};
use crate::{AnomalyKind, Oracle, Wait};
use program::{Call, CallId, OpenFlags};

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
    // Nor is it known of which ring it is: the workers are the threads' (io_uring/tctx.c:io_init_wq_offload, 6.12 and 6.1).
    let line = world.line(call);
    let workers = |k: &u16| {
        let other = world.line(*k);
        other.via.is_some() && World::process(other.lane) == World::process(line.lane)
    };
    let at_work = line.via.is_some()
        && in_flight(world, call, stand.seq, stand.seq).filter(workers).any(of_ring);
    if cause.is_none() && (pages || lease) && !at_work && !unwoken && !world.reflink_livelock() {
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
