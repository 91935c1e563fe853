//! Could a call that moves bytes from one file into another, or lets them share blocks, fail so?

use super::{Allowed, EBADF, EINVAL, ENOSPC, EOPNOTSUPP, EXDEV, Holds};
use crate::model::World;
use program::OpenFlags;

pub(super) fn clone_rules(
    world: &World,
    call: u16,
    dst_offset: u64,
    src_offset: u64,
    len: u64,
    allowed: &mut Allowed,
) {
    let (Some(dst), Some(src)) = (world.open_in(call, 0), world.open_in(call, 1)) else { return };
    let append = world.opens[dst].flags.has(OpenFlags::APPEND);
    allowed.must(!world.opens[src].readable(), EBADF);
    allowed.must(!world.opens[dst].writable() || append, EBADF);
    let (a, b) = (world.opens[src].file, world.opens[dst].file);
    let across = world.files[a].id.mount != world.files[b].id.mount;
    allowed.must(across, EXDEV);
    allowed.must(!across && !world.files[a].is_xfs(), EOPNOTSUPP);
    let span = world.span(call);
    let (min, max) = world.sizes(a, span, Some(call));
    let (_, dst_max) = world.sizes(b, span, Some(call));
    // Without these, a request is plainly right: aligned starts, a range inside the source, and an end that is aligned or both ends of file.
    let aligned = src_offset.is_multiple_of(4096) && dst_offset.is_multiple_of(4096);
    let end = if len == 0 { min } else { src_offset.saturating_add(len) };
    let inside = min == max && end <= min && src_offset <= min;
    let tail = end.is_multiple_of(4096)
        || (end == min && dst_offset.saturating_add(end.saturating_sub(src_offset)) >= dst_max);
    allowed.maybe(!(aligned && inside && tail && a != b), EINVAL);
    // An unaligned start with something to clone is always refused.
    allowed.must(!across && !aligned && src_offset < min && world.files[a].is_xfs(), EINVAL);
    allowed.maybe(true, ENOSPC);
}

pub(super) fn dedupe_rules(
    world: &World,
    call: u16,
    src_offset: u64,
    len: u64,
    dst_offset: u64,
    allowed: &mut Allowed,
) {
    let (Some(src), Some(dst)) = (world.open_in(call, 0), world.open_in(call, 1)) else { return };
    let (a, b) = (world.opens[src].file, world.opens[dst].file);
    allowed.must(!world.opens[src].readable(), EINVAL);
    let across = world.files[a].id.mount != world.files[b].id.mount;
    allowed.on(Holds::of(across, across), EXDEV);
    // Without remap_file_range the source refuses the ioctl, the destination its part (fs/remap_range.c, 6.12).
    let xfs = world.files[a].is_xfs();
    allowed.must(!xfs, EOPNOTSUPP);
    allowed.maybe(!world.files[b].is_xfs(), EINVAL);
    let span = world.span(call);
    let (min, max) = world.sizes(a, span, None);
    let end = src_offset.saturating_add(len);
    allowed.on(Holds::of(end > min, end > max), EINVAL);
    let (dst_min, _) = world.sizes(b, span, None);
    let aligned = src_offset.is_multiple_of(4096)
        && dst_offset.is_multiple_of(4096)
        && len.is_multiple_of(4096);
    let inside = dst_offset.saturating_add(len) <= dst_min;
    allowed.maybe(!aligned || !inside || a == b, EINVAL);
    allowed.maybe(!world.opens[dst].writable(), EBADF);
}
