//! Could a request of a ring be cancelled because of another one that it is linked with?

use super::{Allowed, EBADF, ECANCELED, EFAULT, Holds};
use crate::model::World;
use crate::model::order::{completes_link, link_predecessor};
use history::Errno;

/// A request is cancelled when the one before it in a soft-linked chain did not succeed in full, and when one of its chain is refused as it is
/// submitted: the whole chain fails then, from its head on and whatever its links (io_uring/io_uring.c:io_submit_fail_init, 6.12 and 6.1).
pub(super) fn link_rules(world: &World, call: u16, allowed: &mut Allowed) {
    let issued = |k: usize| world.seen[k].inv.is_some();
    // A fixed transfer looks for its buffer then.
    let refused =
        |k: u16| world.is_fixed(k) && world.seen[k as usize].result == Some(Err(Errno(EFAULT)));
    let chain = |k: u16| link_predecessor(world.program, k as usize, issued);
    let refused_later = (call + 1..world.program.lines.len() as u16).any(|k| {
        let back = |k: &u16| chain(*k).map(|(before, _)| before as u16);
        refused(k) && std::iter::successors(Some(k), back).any(|before| before == call)
    });
    allowed.maybe(refused_later, ECANCELED);
    let Some((before, hard)) = link_predecessor(world.program, call as usize, issued) else {
        return;
    };
    let seen = &world.seen[before];
    match seen.result {
        // Or later, when a hard link survives it (io_uring/rw.c:io_import_iovec, 6.1).
        Some(Err(_)) if hard && refused(before as u16) => allowed.maybe(true, ECANCELED),
        Some(Err(Errno(ECANCELED))) => allowed.must(true, ECANCELED),
        // A descriptor that is gone fails any request (io_uring/io_uring.c:io_assign_file, 6.12).
        Some(Err(Errno(EBADF))) if !hard => allowed.maybe(true, ECANCELED),
        Some(result) if !hard && !completes_link(&world.program.lines[before].call, &result) => {
            // A short transfer breaks a chain in most paths, an error in all (io_uring/rw.c:io_complete_rw, 6.12).
            allowed.on(if result.is_err() { Holds::Always } else { Holds::Maybe }, ECANCELED);
        }
        None if seen.inv.is_some() => allowed.maybe(true, ECANCELED),
        _ => {}
    }
}
