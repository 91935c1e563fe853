//! Could a call that moves bytes from one file into another, or lets them share blocks, fail so?

use super::transfer::{direct_race, meets_preallocation, misaligned};
use super::{Allowed, EBADF, EINVAL, EIO, ENOSPC, EOPNOTSUPP, EPIPE, EXDEV, Holds};
use crate::model::World;
use crate::oracle::sources;
use program::{Buf, Call, OpenFlags};

/// What the calls of this family may return.
pub(super) fn rules(world: &World, call: u16, allowed: &mut Allowed) {
    let span = world.span(call);
    match world.call_of(call) {
        Call::Ficlone { .. } => clone_rules(world, call, 0, 0, 0, allowed),
        Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
            clone_rules(world, call, *dst_offset, *src_offset, *len, allowed);
        }
        Call::Fideduperange { src_offset, len, dst_offset, .. } => {
            dedupe_rules(world, call, *src_offset, *len, *dst_offset, allowed);
        }
        Call::CopyFileRange { src_offset, dst_offset, len, .. } => {
            let (Some(src), Some(dst)) = (world.open_in(call, 0), world.open_in(call, 1)) else {
                return;
            };
            let append = world.opens[dst].flags.has(OpenFlags::APPEND);
            allowed.must(!world.opens[src].readable(), EBADF);
            allowed.must(!world.opens[dst].writable() || append, EBADF);
            let (a, b) = (world.opens[src].file, world.opens[dst].file);
            // Neither ext4 nor XFS has a copy_file_range operation, so two superblocks are refused
            // (fs/read_write.c:generic_copy_file_checks, 6.12 and 6.1).
            allowed.must(world.files[a].id.mount != world.files[b].id.mount, EXDEV);
            let overlap = src_offset.abs_diff(*dst_offset) < *len;
            allowed.maybe(a == b && overlap, EINVAL);
            let aligned = |o: u64| o.is_multiple_of(4096);
            let direct = [src, dst].iter().any(|open| world.is_direct(*open));
            let (min, max) = world.sizes(a, span, Some(call));
            let whole = aligned(*src_offset) && aligned(*dst_offset) && aligned(*len);
            let inside = src_offset.saturating_add(*len) <= min;
            allowed.maybe(direct && !(whole && inside && aligned(max)), EINVAL);
            allowed.maybe(true, ENOSPC);
            allowed.maybe(direct_race(world, call, src) || direct_race(world, call, dst), EIO);
            allowed.maybe(meets_preallocation(world, call, src, Some(*src_offset), *len), EIO);
        }
        Call::Sendfile { src_offset, len, .. } => {
            let (Some(dst), Some(src)) = (world.open_in(call, 0), world.open_in(call, 1)) else {
                return;
            };
            allowed.must(!world.opens[src].readable(), EBADF);
            allowed.must(!world.opens[dst].writable(), EBADF);
            // Refused before anything is moved, unless there is nothing to move (fs/splice.c:do_splice_direct, 6.12).
            let append = world.opens[dst].flags.has(OpenFlags::APPEND);
            allowed.on(Holds::of(append, append && *len > 0), EINVAL);
            let anon = [(Buf::Anon(0), *len)];
            allowed.maybe(misaligned(world, src, Some(*src_offset), &anon), EINVAL);
            allowed.maybe(misaligned(world, dst, None, &anon), EINVAL);
            allowed.maybe(true, ENOSPC);
            allowed.maybe(direct_race(world, call, src) || direct_race(world, call, dst), EIO);
            allowed.maybe(meets_preallocation(world, call, src, Some(*src_offset), *len), EIO);
        }
        Call::SpliceToPipe { offset, len, .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            allowed.on(
                Holds::of(!world.opens[open].readable(), !world.opens[open].readable() && *len > 0),
                EBADF,
            );
            allowed.maybe(misaligned(world, open, Some(*offset), &[(Buf::Anon(0), *len)]), EINVAL);
            allowed.maybe(direct_race(world, call, open), EIO);
            allowed.maybe(meets_preallocation(world, call, open, Some(*offset), *len), EIO);
            allowed.maybe(sources::closing(world, call), EPIPE);
        }
        Call::SpliceFromPipe { len, .. } => {
            let Some(open) = world.open_in(call, 1) else { return };
            let some = *len > 0;
            let bad = !world.opens[open].writable();
            allowed.on(Holds::of(bad, bad && some), EBADF);
            let append = world.opens[open].flags.has(OpenFlags::APPEND);
            allowed.on(Holds::of(append, append && some), EINVAL);
            // What lies in the pipe may have any alignment.
            allowed.maybe(world.is_direct(open), EINVAL);
            allowed.maybe(true, ENOSPC);
            allowed.maybe(direct_race(world, call, open), EIO);
        }
        _ => {}
    }
}

fn clone_rules(
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

fn dedupe_rules(
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
