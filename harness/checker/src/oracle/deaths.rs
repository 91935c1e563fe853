//! Was every process killed for a reason?
//!
//! Verifies: a close that never returned, though nothing kept it, was cut off by a kill of the program's or the agent's, or by the kernel where the
//! policy says that it kills whoever lets go of a layout lease and leaves pins behind.
//! Assumes: a call that is neither stuck nor helped and has no end lost its process.
//! Does not verify: other calls, which the same death may cut off in other threads; closes through a ring, which end with it; closes in a child that
//! exits itself; that who must be killed is (`waits`).

use super::{Findings, file_name, who};
use crate::model::World;
use crate::policy::{Regime, Term};
use crate::{AnomalyKind, Oracle};
use program::{Call, Lane};

/// Looks at the closes that never returned, when the program is over.
pub fn end(world: &World, findings: &mut Findings) {
    let lines = || 0..world.program.lines.len() as u16;
    let is_cut_off = |k: &u16| {
        let seen = &world.seen[*k as usize];
        let lost = seen.inv.is_some() && seen.ret.is_none() && !seen.stuck && !seen.helped;
        lost && matches!(world.call_of(*k), Call::Close { .. })
    };
    for call in lines().filter(is_cut_off) {
        let process = |k: u16| World::process(world.line(k).lane);
        let killed = lines().any(|k| match world.call_of(k) {
            Call::Kill { lane: lane @ Lane::Child(_) } => {
                world.seen[k as usize].inv.is_some() && World::process(*lane) == process(call)
            }
            Call::Exit => world.seen[k as usize].inv.is_some() && process(k) == process(call),
            _ => false,
        });
        // Two threads that close at the same time die together.
        let deserved = lines().any(|k| process(k) == process(call) && may_be_killed(world, k));
        if killed || deserved || world.line(call).via.is_some() {
            continue;
        }
        let of = world.file_in(call, 0).map(|file| format!(" of {}", file_name(world, file)));
        let of = of.unwrap_or_default();
        let me = who(world, call);
        findings.call(
            AnomalyKind::UnexplainedSignal,
            Oracle::Signals,
            call,
            format!("{me} never returned: its process was killed, though no layout lease{of} was let go of with pins left."),
        );
    }
}

/// Whether a close may have been the last one of an open file that has a layout lease, with pages of the file pinned.
fn may_be_killed(world: &World, call: u16) -> bool {
    let (Some(open), Some(file)) = (world.open_in(call, 0), world.file_in(call, 0)) else {
        return false;
    };
    if world.policy.regime != Regime::LayoutLeaseStrict
        || !matches!(world.call_of(call), Call::Close { .. })
        || world.seen[call as usize].inv.is_none()
    {
        return false;
    }
    let span = world.span(call);
    let leased = world
        .layout_leases(file)
        .iter()
        .any(|l| l.open == open && l.maybe.0 <= span.ret && l.maybe.1 >= span.inv);
    let pinned = world
        .holds()
        .iter()
        .any(|h| h.file == file && h.term == Term::Long && h.meets(span.inv, span.ret));
    leased && pinned && !world.keeps_descriptor(open, call)
}
