//! Could the call that makes a file longer, shorter or full of holes fail so?

use super::{Allowed, EBADF, EINVAL, ENOSPC, EOPNOTSUPP, Holds};
use crate::model::World;
use program::FallocateMode;

pub(super) fn fallocate_rules(
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
