//! Did a signal end the wait, and a kill?

use super::causes::{Cause, pages};
use super::sentence::page;
use super::{in_flight, lines, waits_for_pages};
use crate::model::World;
use crate::model::pin::Hold;
use crate::model::watch::Stand;
use crate::oracle::{Findings, who};
use crate::{AnomalyKind, Oracle};
use program::{Call, Lane};

/// Nanoseconds after which a wait that was interrupted surely is over.
const DEAF_NS: u64 = 1_000_000_000;

/// A wait for pages or a lease that went on after its thread was interrupted.
pub(super) fn deaf(world: &World, call: u16, findings: &mut Findings) {
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
