//! Behind whom may a call stand: in the queue for a lock, or in a ring?

use super::causes::Cause;
use super::in_flight;
use crate::model::World;
use program::{Call, Mount};

/// Whether a call surely did not go straight through: it was seen to stand still, or needed help.
pub(super) fn waited(world: &World, call: u16) -> bool {
    let seen = &world.seen[call as usize];
    seen.helped || seen.stuck || world.watch.first_stand(call).is_some()
}

/// Files that a call uses by descriptor or name.
pub(super) fn files_of(world: &World, call: u16) -> Vec<usize> {
    let seen = &world.seen[call as usize];
    let mut files: Vec<usize> = seen
        .slots
        .iter()
        .filter_map(|s| world.fds.get(&s.0))
        .map(|open| world.opens[*open].file)
        .collect();
    files.extend(world.call_of(call).paths().flat_map(|path| world.named(call, path)));
    if let Call::Madvise { .. } = world.call_of(call) {
        files.extend(world.map_in(call, 0).map(|m| m.file));
    }
    files
}

/// Calls that never stand behind the lock of an inode.
fn takes_no_lock(call: &Call) -> bool {
    matches!(
        call,
        Call::Fsync { .. }
            | Call::Fdatasync { .. }
            | Call::Statx { .. }
            | Call::Load { .. }
            | Call::Store { .. }
            | Call::Setlease { .. }
            | Call::Getlease { .. }
            | Call::Setsig { .. }
            | Call::SetownEx { .. }
            | Call::Dup { .. }
            | Call::Vmsplice { .. }
            | Call::SendFd { .. }
            | Call::RecvFd { .. }
    )
}

pub(super) fn behind(world: &World, call: u16, from: u64, to: u64, all: &mut Vec<Cause>) {
    let ring = |k: &u16| world.same_ring(call, *k);
    all.extend(in_flight(world, call, from, to).find(ring).map(Cause::Ring));
    if let Call::UnregisterBuffers { .. } = world.call_of(call) {
        // Requests that use the buffer come to their end first.
        let ring = world.seen[call as usize].slots.first().copied();
        let uses = |k: &u16| {
            world.line(*k).via.is_some() && world.seen[*k as usize].slots.last().copied() == ring
        };
        all.extend(in_flight(world, call, from, to).find(uses).map(Cause::Ring));
    }
    if takes_no_lock(world.call_of(call)) {
        return;
    }
    let mine = files_of(world, call);
    // A waiter for pages, or one that stands behind it, has the lock of the file. A waiter for a lease has none.
    let locks = |k: u16| {
        let changes = world.changed.get(&k).cloned().unwrap_or_else(|| world.changes(k));
        let changing = changes.iter().map(|c| c.file);
        let using = files_of(world, k).into_iter().filter(|_| !takes_no_lock(world.call_of(k)));
        changing.chain(using).find(|f| mine.contains(f) && world.files[*f].gate.is_none())
    };
    let mut waiters: Vec<u16> =
        in_flight(world, call, from, to).filter(|k| waited(world, *k)).collect();
    // The one that changes the layout is the first in the queue.
    waiters.sort_by_key(|k| (world.changed.get(k).is_none_or(Vec::is_empty), world.span(*k).inv));
    all.extend(waiters.iter().find_map(|k| locks(*k).map(|file| Cause::Inode(*k, file))));
    // Names are changed under the directory's lock, and that of the file that loses one.
    let directory = |k: u16| -> Option<Mount> {
        match world.call_of(k) {
            Call::Open { .. } | Call::Unlink { .. } | Call::Rename { .. } | Call::Link { .. } => {
                world.call_of(k).paths().next().map(|p| p.mount)
            }
            _ => None,
        }
    };
    if let Some(mount) = directory(call) {
        let same = |k: &&u16| directory(**k) == Some(mount);
        all.extend(waiters.iter().find(same).map(|k| Cause::Names(*k)));
    }
}
