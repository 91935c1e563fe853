//! Could a call that opens or names a file, or makes it longer, shorter or full of holes, fail so?

use super::{Allowed, EAGAIN, EBADF, EEXIST, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EXDEV, Holds};
use crate::model::World;
use program::{Call, FallocateMode, OpenFlags};

/// What the calls of this family may return.
pub(super) fn rules(world: &World, call: u16, allowed: &mut Allowed) {
    let span = world.span(call);
    let names = |mount, name: u8| {
        let states = world.name_states(mount, span, Some(call));
        let missing = states.iter().filter(|s| s[name as usize].is_none()).count();
        (
            Holds::of(missing > 0, missing == states.len()),
            Holds::of(missing < states.len(), missing == 0),
        )
    };
    match world.call_of(call) {
        Call::Open { path, flags, .. } => {
            let (missing, present) = names(path.mount, path.name);
            let create = flags.has(OpenFlags::CREAT);
            if !create {
                allowed.on(missing, ENOENT);
            } else if flags.has(OpenFlags::EXCL) {
                allowed.on(present, EEXIST);
            }
            allowed.maybe(create || flags.has(OpenFlags::TRUNC), ENOSPC);
            // Whether a lease is in the way is the leases oracle's question.
            allowed.maybe(flags.has(OpenFlags::NONBLOCK), EAGAIN);
        }
        Call::Unlink { path } => {
            allowed.on(names(path.mount, path.name).0, ENOENT);
            allowed.maybe(true, ENOSPC);
        }
        Call::Rename { from, to } => {
            allowed.must(from.mount != to.mount, EXDEV);
            allowed.on(names(from.mount, from.name).0, ENOENT);
            allowed.maybe(true, ENOSPC);
        }
        Call::Link { from, to } => {
            allowed.must(from.mount != to.mount, EXDEV);
            allowed.on(names(from.mount, from.name).0, ENOENT);
            // Found by its name, and without any when it came to linking (fs/namei.c:vfs_link, 6.12 and 6.1).
            let states = world.name_states(from.mount, span, Some(call));
            let found = states.iter().filter_map(|s| s[from.name as usize]);
            let lost =
                found.into_iter().any(|file| states.iter().any(|s| !s.contains(&Some(file))));
            allowed.maybe(lost, ENOENT);
            allowed.on(names(to.mount, to.name).1, EEXIST);
            allowed.maybe(true, ENOSPC);
        }
        Call::Truncate { path, .. } => {
            allowed.on(names(path.mount, path.name).0, ENOENT);
            allowed.maybe(true, ENOSPC);
        }
        Call::Ftruncate { .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            allowed.must(!world.opens[open].writable(), EINVAL);
            allowed.maybe(true, ENOSPC);
        }
        Call::Fallocate { mode, offset, len, .. } => {
            fallocate_rules(world, call, *mode, *offset, *len, allowed);
        }
        _ => {}
    }
}

fn fallocate_rules(
    world: &World,
    call: u16,
    mode: FallocateMode,
    offset: u64,
    len: u64,
    allowed: &mut Allowed,
) {
    use FallocateMode as M;
    let Some(open) = world.open_in(call, 0) else { return };
    let file = world.opens[open].file;
    let xfs = world.files[file].is_xfs();
    allowed.must(len == 0, EINVAL);
    allowed.must(mode == M::PunchHoleBare, EOPNOTSUPP);
    allowed.must(!world.opens[open].writable(), EBADF);
    allowed.must(mode == M::UnshareRange && !xfs, EOPNOTSUPP);
    allowed.maybe(true, ENOSPC);
    let aligned = offset.is_multiple_of(4096) && len.is_multiple_of(4096);
    let (min, max) = world.sizes(file, world.span(call), Some(call));
    match mode {
        M::CollapseRange => {
            allowed.must(!aligned, EINVAL);
            let end = offset.saturating_add(len);
            allowed.on(Holds::of(end >= min, end >= max), EINVAL);
        }
        M::InsertRange => {
            allowed.must(!aligned, EINVAL);
            allowed.on(Holds::of(offset >= min, offset >= max), EINVAL);
        }
        _ => {}
    }
}
