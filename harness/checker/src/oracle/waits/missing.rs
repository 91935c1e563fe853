//! Did a call go ahead that had to wait?

use super::causes::counts;
use super::sentence::{by, page};
use crate::model::World;
use crate::oracle::{Findings, who};
use crate::policy::{Regime, Term};
use crate::{AnomalyKind, Oracle};
use program::{Call, CallId, Lease};

/// A change of layout that succeeded although a page that it must wait for was held all the time.
pub(super) fn missing(world: &World, call: u16, findings: &mut Findings) {
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
pub(super) fn gives_back(world: &World, call: u16) -> bool {
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
