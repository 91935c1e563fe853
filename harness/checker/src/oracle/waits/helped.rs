//! Was there something to wait for, for a call that ended only when the agent helped?

use super::causes::{causes, pipe_end};
use super::locks::files_of;
use super::sentence::sentence;
use super::{in_flight, lines, waits_for_pages};
use crate::model::World;
use crate::model::order::NEVER;
use crate::model::pin::Means;
use crate::oracle::{Findings, who};
use crate::{AnomalyKind, Oracle};
use program::Call;

/// A call that ended only when the agent helped: something must have been there to wait for.
pub(super) fn helped(world: &World, call: u16, findings: &mut Findings) {
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
pub(super) fn unwoken(world: &World, call: u16, at: u64) -> bool {
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
