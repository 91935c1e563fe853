//! Does every synchronous signal have a cause, the right code and the right address; did every due one come?
//!
//! Verifies: SIGBUS (BUS_ADRERR) exactly where the page is past the end of file, SIGSEGV (SEGV_ACCERR) exactly where the protection forbids, at the
//! first byte not transferred.
//! Assumes: the agent's loads and stores go upwards in words of at most eight bytes.
//! Does not verify: which of two racing causes it was; either explains.

use super::{Findings, who};
use crate::model::World;
use crate::{AnomalyKind, Oracle};
use history::{FaultSignal, Payload};
use program::Call;

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
const BUS_ADRERR: i32 = 2;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;

/// Looks at a load or store that returned.
pub fn look(world: &World, call: u16, findings: &mut Findings) {
    let (offset, len, write) = match world.call_of(call) {
        Call::Load { offset, len, .. } => (*offset, *len, false),
        Call::Store { offset, len, .. } => (*offset, *len, true),
        _ => return,
    };
    let Some(Ok(n)) = world.seen[call as usize].result else { return };
    let fault = match world.seen[call as usize].payload {
        Some(Payload::Read { fault, .. } | Payload::Store { fault }) => *fault,
        _ => None,
    };
    let Some(map) = world.map_in(call, 0) else { return };
    let faults = world.faults(map, offset, len, write, world.span(call));
    let name = who(world, call);
    let at = offset.saturating_add(n);
    let unmapped = super::errnos::unmapped_meanwhile(world, call, 0);
    let Some(fault) = fault else {
        if n != len {
            findings.call(
                AnomalyKind::WrongResult,
                Oracle::Signals,
                call,
                format!("{name} stopped after {n} of {len} bytes without a signal."),
            );
        } else if let Some(must) = faults.must()
            && !unmapped
        {
            findings.call(
                AnomalyKind::MissingSignal,
                Oracle::Signals,
                call,
                format!("{name} went through, but from mapping offset {must:#x} on it must fault."),
            );
        }
        return;
    };
    if faults.must().is_some_and(|must| must < at) && !unmapped {
        findings.call(
            AnomalyKind::MissingSignal,
            Oracle::Signals,
            call,
            format!("{name} faulted at mapping offset {at:#x} only, which is too late."),
        );
        return;
    }
    if let Some(why) = unexplained(&fault, at, &faults, unmapped) {
        findings.call(
            AnomalyKind::UnexplainedSignal,
            Oracle::Signals,
            call,
            format!(
                "{name} got signal {} (si_code {}) at mapping offset {:#x} after {n} bytes: {why}.",
                fault.signo, fault.code, fault.addr
            ),
        );
    }
}

fn unexplained(
    fault: &FaultSignal,
    at: u64,
    faults: &crate::model::Faults,
    unmapped: bool,
) -> Option<&'static str> {
    // The word that faulted begins at `at`; the address may be any byte of it that lies in the faulting page.
    let near = fault.addr >= at as i64 && fault.addr < at as i64 + 8;
    if !near {
        return Some("the address is not where the access had come to");
    }
    let here = fault.addr as u64;
    match (fault.signo, fault.code) {
        (SIGBUS, BUS_ADRERR) => match faults.bus_may {
            Some(may) if here >= may => None,
            _ => Some("the page is not past the end of file in any state during the access"),
        },
        (SIGSEGV, SEGV_ACCERR) if faults.segv_may.is_some() => None,
        (SIGSEGV, SEGV_ACCERR | SEGV_MAPERR) if unmapped => None,
        (SIGSEGV, SEGV_ACCERR) => Some("the protection allowed the access all the time"),
        (SIGSEGV, SEGV_MAPERR) => Some("the mapping was there all the time"),
        (SIGBUS, _) => Some(
            "no media or memory error was injected, and this is not the code of an access past the end",
        ),
        _ => Some("this signal has no cause here"),
    }
}
