//! Do names lead to the files that the calls gave them to?
//!
//! Verifies: some order of the calls explains which file each open reached and which names came and went.
//! Assumes: the directory is the run's own.
//! Does not verify: directory timestamps.

use super::{Findings, who};
use crate::model::World;
use crate::model::file::NameState;
use crate::model::order::{NOBODY, Span};
use crate::{AnomalyKind, Oracle};
use program::{Call, Mount};

/// Looks at a call that used a name and returned.
pub fn look(world: &mut World, call: u16, findings: &mut Findings) {
    let mount: Mount = match world.call_of(call) {
        Call::Open { path, .. } | Call::Unlink { path } | Call::Truncate { path, .. } => path.mount,
        Call::Rename { from, .. } | Call::Link { from, .. } => from.mount,
        _ => return,
    };
    let span = world.span(call);
    let after = Span { inv: span.ret + 1, ret: span.ret + 1, call: NOBODY };
    if !world.name_states(mount, after, None).is_empty() {
        return;
    }
    // An errno that cannot be is the errnos oracle's; here it is the file behind the name.
    if findings.is_empty() {
        findings.call(
            AnomalyKind::WrongResult,
            Oracle::Errnos,
            call,
            format!(
                "{}: no order of the calls explains which file this name led to.",
                who(world, call)
            ),
        );
    }
    // Go on from what it said.
    let mut state: NameState = world
        .name_states(mount, Span { inv: span.inv, ret: span.inv, call: NOBODY }, Some(call))
        .first()
        .copied()
        .unwrap_or([None; program::NAMES_MAX as usize]);
    if let (Call::Open { path, .. }, Some(open)) = (world.call_of(call), world.fds.get(&call)) {
        state[path.name as usize] = Some(world.opens[*open].file as u32);
    }
    if let Some(register) = world.names.get_mut(&mount) {
        register.reset(vec![state]);
    }
}
