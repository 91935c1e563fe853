//! Was each lease granted, refused and kept as its file's other users call for?
//!
//! Verifies: F_SETLEASE and F_GETLEASE against the open files and leases that there may have been; that whoever opens or truncates a leased file waits
//! until the lease is gone, given down or past its time, and with O_NONBLOCK is told so only then.
//! Assumes: time stamps of the history, to a second; nobody but the program opens its files.
//! Does not verify: which of several racing breakers was first; leases of a file once layout leases are granted on it (the policy's own tests do).

use super::{Findings, file_name, who};
use crate::model::World;
use crate::model::lease::conflicts;
use crate::model::order::{NOBODY, Span};
use crate::policy::Regime;
use crate::{AnomalyKind, Oracle};
use history::{Errno, errno};
use program::{Call, Lease, Mount, OpenFlags};

const EAGAIN: Errno = Errno(11);
const EINVAL: Errno = Errno(22);

/// Looks at a call that returned.
pub fn look(world: &mut World, call: u16, findings: &mut Findings) {
    if world.seen[call as usize].helped {
        return;
    }
    match world.call_of(call) {
        Call::Setlease { lease, .. } => set(world, call, *lease, findings),
        Call::Getlease { .. } => {
            if let Some(Err(e)) = world.seen[call as usize].result {
                let what = format!("{} failed with {}.", who(world, call), errno::name(e));
                findings.call(AnomalyKind::UnexplainedErrno, Oracle::Leases, call, what);
            }
        }
        Call::Open { .. } => told_to_try_again(world, call, findings),
        Call::Truncate { .. } => {}
        _ => return,
    }
    let files = match world.call_of(call) {
        Call::Setlease { .. } | Call::Getlease { .. } => {
            world.file_in(call, 0).into_iter().collect()
        }
        _ => world.broken_files(call),
    };
    let span = world.span(call);
    let after = Span { inv: span.ret + 1, ret: span.ret + 1, call: NOBODY };
    for file in files {
        if world.lease_states(file, after).is_none_or(|s| !s.is_empty()) {
            continue;
        }
        report(world, call, file, findings);
        // What follows would be judged by states that are not.
        if let Some(register) = world.leases.get_mut(&file) {
            register.off = true;
        }
    }
}

/// No order of the calls explains this one.
fn report(world: &World, call: u16, file: usize, findings: &mut Findings) {
    let (me, name) = (who(world, call), file_name(world, file));
    let holders = holders(world, file, call);
    let (kind, what) = match (world.call_of(call), world.seen[call as usize].result) {
        (Call::Open { .. } | Call::Truncate { .. }, Some(Ok(_))) => (
            AnomalyKind::MissingWait,
            format!("{me} went through although {name} was leased{holders} all the time."),
        ),
        (Call::Getlease { .. }, Some(Ok(what))) => {
            let what = match what {
                0 => "F_RDLCK",
                1 => "F_WRLCK",
                _ => "F_UNLCK",
            };
            (
                AnomalyKind::WrongResult,
                format!("{me} says {what}, which no order of the calls explains{holders}."),
            )
        }
        (_, Some(Ok(_))) => (
            AnomalyKind::UnexplainedErrno,
            format!("{me} succeeded where other leases on {name} forbid it{holders}."),
        ),
        (_, Some(Err(e))) => (
            AnomalyKind::UnexplainedErrno,
            format!(
                "{me} failed with {}, but the leases on {name} call for none{holders}.",
                errno::name(e)
            ),
        ),
        (_, None) => return,
    };
    findings.push(crate::Anomaly {
        kind,
        oracle: Oracle::Leases,
        call: Some(program::CallId(call)),
        path: Some(world.files[file].path),
        mount: world.files[file].mount(),
        sentence: what,
    });
}

/// The calls that took leases on the file and succeeded, for the sentence.
fn holders(world: &World, file: usize, call: u16) -> String {
    let by: Vec<String> = (0..call.max(world.program.lines.len() as u16))
        .filter(|k| *k != call && matches!(world.call_of(*k), Call::Setlease { .. }))
        .filter(|k| world.seen[*k as usize].inv.is_some_and(|i| i <= world.span(call).ret))
        .filter(|k| matches!(world.seen[*k as usize].result, Some(Ok(_))))
        .filter(|k| world.file_in(*k, 0) == Some(file))
        .map(|k| who(world, k))
        .collect();
    if by.is_empty() { String::new() } else { format!(" (see {})", by.join(", ")) }
}

fn set(world: &World, call: u16, lease: Lease, findings: &mut Findings) {
    let Some(result) = world.seen[call as usize].result else { return };
    let Some(open) = world.open_in(call, 0) else { return };
    let file = world.opens[open].file;
    let span = world.span(call);
    let (me, name) = (who(world, call), file_name(world, file));
    let regime = world.policy.regime;
    let mut wrong = |what: String| {
        findings.call(AnomalyKind::UnexplainedErrno, Oracle::Leases, call, what);
    };
    if lease == Lease::Layout {
        let knows = regime.has_layout_leases();
        match result {
            Ok(_) if !knows => wrong(format!("{me} got a layout lease, which no kernel grants.")),
            Err(EINVAL) if !knows || !world.files[file].is_dax() => {}
            Err(EAGAIN) if knows => {}
            Err(e) => wrong(format!("{me} failed with {}.", errno::name(e))),
            Ok(_) => {
                if regime == Regime::LayoutLeaseStrict
                    && let Some(other) = other_layout_lease(world, call, open)
                {
                    let other = who(world, other);
                    wrong(format!(
                        "{me} got a layout lease on {name} beside that of {other}, which is exclusive."
                    ));
                }
            }
        }
        return;
    }
    // Whoever else has it open, and whether that surely is so.
    let others: Vec<usize> = (0..world.opens.len())
        .filter(|o| world.opens[*o].file == file)
        .filter(|o| match lease {
            Lease::Read => world.opens[*o].writable(),
            Lease::Write => *o != open,
            _ => false,
        })
        .collect();
    match result {
        Ok(_) => {
            let there = others.iter().find(|o| world.surely_open(**o, span.inv, span.ret));
            if let Some(other) = there {
                let by = world.fds.iter().find(|(_, o)| *o == other).map(|(f, _)| *f);
                let by = by.map_or_else(String::new, |by| format!(" by {}", who(world, by)));
                let how = if lease == Lease::Read { "for writing" } else { "elsewhere" };
                wrong(format!("{me} was granted although {name} was open {how}{by} all the time."));
            }
        }
        Err(EAGAIN) if lease != Lease::Unlock => {
            let open_elsewhere = others.iter().any(|o| world.may_be_open(*o, span.inv, span.ret));
            let racing = world.any_overlap(call, |k| {
                let path = world.call_of(k).paths().next();
                world.breaker(k).is_some()
                    && path.is_some_and(|p| Some(p.mount) == world.files[file].mount())
            });
            let leased = world.lease_states(file, span).is_none_or(|states| {
                states
                    .iter()
                    .flatten()
                    .any(|h| h.open != open && (lease == Lease::Write || h.gone.is_some()))
            });
            if !open_elsewhere && !racing && !leased {
                wrong(format!(
                    "{me} failed with EAGAIN, but nobody had {name} open in the way, and no other lease was on it."
                ));
            }
        }
        Err(EAGAIN) => {}
        Err(e) => wrong(format!("{me} failed with {}.", errno::name(e))),
    }
}

/// Another open file that surely holds a layout lease on the same file all through the call.
fn other_layout_lease(world: &World, call: u16, open: usize) -> Option<u16> {
    let span = world.span(call);
    let file = world.opens[open].file;
    world
        .layout_leases(file)
        .into_iter()
        .find(|l| l.open != open && l.sure.is_some_and(|s| s.0 <= span.inv && s.1 >= span.ret))
        .map(|l| l.call)
}

/// EAGAIN of a non-blocking open needs a lease in the way.
fn told_to_try_again(world: &World, call: u16, findings: &mut Findings) {
    let Call::Open { flags, path, .. } = world.call_of(call) else { return };
    let told = world.seen[call as usize].result == Some(Err(EAGAIN));
    if !told || !flags.has(OpenFlags::NONBLOCK) {
        return;
    }
    let Some(write) = world.breaker(call) else { return };
    let span = world.span(call);
    let mount: Mount = path.mount;
    let explained = world.leases.iter().any(|(file, _)| {
        world.files[*file].on(mount)
            && world
                .lease_states(*file, span)
                .is_none_or(|states| states.iter().flatten().any(|h| conflicts(h, write)))
    });
    if !explained {
        let what = format!("{} failed with EAGAIN, but no lease was in its way.", who(world, call));
        findings.call(AnomalyKind::UnexplainedErrno, Oracle::Leases, call, what);
    }
}
