//! Did whoever waits wait for a reason, and return once it was gone?
//!
//! Verifies: a call that needed help, or never returned, waits for a pipe that is empty or full.
//! Assumes: the agent helps a blocked call only after it has looked at it several times.
//! Does not verify: how long a call took that returned by itself (a slow machine is not a hang).

use super::{Findings, who};
use crate::model::World;
use crate::{AnomalyKind, Oracle};
use program::{Call, CallId};

/// Bytes that a pipe takes at least before it is full: 16 buffers of a page, one byte each at worst.
const PIPE_BUFFERS: u64 = 16;

/// Looks at the calls that the agent had to help, and at those that never returned.
pub fn end(world: &World, stuck: &[CallId], helped: &[CallId], findings: &mut Findings) {
    // Known: whoever meets the livelock never returns, and others wait for the file that it has locked.
    if world.reflink_livelock() {
        return;
    }
    for call in stuck {
        findings.call(
            AnomalyKind::Hang,
            Oracle::Liveness,
            call.0,
            format!("{} never returned, even after its process was killed.", who(world, call.0)),
        );
    }
    for call in helped {
        if let Some(why) = unexplained(world, call.0) {
            let name = who(world, call.0);
            findings.call(
                AnomalyKind::UnexplainedWait,
                Oracle::Liveness,
                call.0,
                format!("{name} waited until it was helped, {why}."),
            );
        }
    }
}

/// Why a wait has no reason, if it has none.
fn unexplained(world: &World, call: u16) -> Option<String> {
    let seen = world.seen.get(call as usize)?;
    // A request that is linked or drained behind a blocked one waits with it; so does one that shares its ring.
    if waits_for_another(world, call) {
        return None;
    }
    let (key, fills) = match world.call_of(call) {
        Call::SpliceToPipe { .. } => (seen.slots.get(1)?, true),
        Call::SpliceFromPipe { .. } => (seen.slots.first()?, false),
        _ => return Some("and there is nothing in this program that it may wait for".into()),
    };
    let pipe = world.pipes.get(&key.0)?;
    if pipe.confused {
        return None;
    }
    let inside = pipe.head.saturating_sub(pipe.tail);
    if fills && inside < PIPE_BUFFERS {
        return Some(format!("though the pipe held {inside} bytes only"));
    }
    if !fills && inside > 0 {
        return Some(format!("though the pipe held {inside} bytes"));
    }
    None
}

/// Whether another call that was helped or stuck stands before this one in its ring or on its lane.
fn waits_for_another(world: &World, call: u16) -> bool {
    let held = |k: u16| world.seen[k as usize].helped || world.seen[k as usize].stuck;
    let line = world.line(call);
    let same_ring = |k: u16| {
        let other = world.line(k);
        line.via.is_some() && other.via.map(|v| v.ring) == line.via.map(|v| v.ring)
    };
    // An unlinked wait for completions of a ring comes back with whatever completes first.
    (0..world.program.lines.len() as u16).any(|k| k != call && held(k) && same_ring(k))
}
