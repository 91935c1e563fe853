//! Did whoever waits wait for somebody, as long as that was there, and no longer?
//!
//! Verifies: a call that was seen to wait in a place where the kernel waits for pages or leases, that needed help, or that never returned, has a
//! holder: a page of a file whose layout it changes (by the policy's table), a lease, a gate, a pipe, or a waiter before it that has the inode's, the
//! directory's or the pipe's lock or stands before it in its ring; a change of layout did not succeed while a page that it must wait for was
//! surely held all the time; waits for pages and leases, asleep or not, can be ended by a signal, and by a kill.
//! Assumes: the agent helps a blocked call only after it has looked at it several times; a second after a holder has gone, its waiter has.
//! Does not verify: short stops that ended by themselves elsewhere in the kernel (a slow machine is not a hang).

mod causes;
mod deaf;
mod helped;
mod locks;
mod missing;
mod sentence;
mod stands;

pub use stands::blocked;

use super::{Findings, who};
use crate::model::World;
use crate::{AnomalyKind, Oracle};
use causes::causes;
use deaf::deaf;
use helped::helped;
use missing::missing;
use program::CallId;
use sentence::sentence;

fn waits_for_pages(wchan: &str) -> bool {
    ["break_layouts", "break_dax_layout", "wait_dax_page"].iter().any(|w| wchan.contains(w))
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

fn lines<'a>(world: &'a World) -> impl Iterator<Item = u16> + 'a {
    (0..world.program.lines.len() as u16).filter(|k| world.seen[*k as usize].inv.is_some())
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
