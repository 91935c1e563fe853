//! Could a call on a mapping, or on a buffer that is one, fail so: by what is mapped there, or is no longer?

use super::transfer::may_report_eio;
use super::{Allowed, EACCES, EFAULT, EINVAL, EIO, ENOMEM, ENOSPC, EOPNOTSUPP, Holds};
use crate::Policy;
use crate::model::World;
use crate::model::file::Map;
use program::{Advice, Buf, Call, MapFlags, MsyncFlags, Prot, Sharing};

/// What the calls of this family may return.
pub(super) fn rules(world: &World, policy: &Policy, call: u16, allowed: &mut Allowed) {
    match world.call_of(call) {
        Call::Mmap { prot, sharing, flags, .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            let dax = world.files[world.opens[open].file].is_dax();
            let open = &world.opens[open];
            allowed.must(!open.readable(), EACCES);
            let shared = *sharing == Sharing::Shared;
            allowed.must(shared && prot.has(Prot::WRITE) && !open.writable(), EACCES);
            if flags.has(MapFlags::SYNC) {
                allowed.must(shared && (!dax || !policy.map_sync), EOPNOTSUPP);
                // MAP_PRIVATE|MAP_SYNC sets VM_SYNC all the same (mm/mmap.c:do_mmap, 6.12).
                allowed.maybe(!shared && (!dax || !policy.map_sync), EOPNOTSUPP);
            }
        }
        Call::Mremap { .. } => {
            allowed.maybe(true, ENOMEM);
            // Advice on a part cuts a mapping in two, and mremap refuses to cross the seam (mm/mremap.c:vma_to_resize, 6.12).
            allowed.maybe(unmapped_meanwhile(world, call, 0) || cut(world, call), EFAULT);
            // After two of them raced, the agent's idea of the old length may be wrong.
            let doubt = world.map_in(call, 0).is_none_or(|m| m.len.0 != m.len.1);
            allowed.maybe(doubt, EFAULT);
        }
        Call::Mprotect { prot, .. } => {
            let Some(map) = world.map_in(call, 0) else { return };
            let writable = world.opens[map.open].writable();
            let shared = map.sharing == Sharing::Shared;
            allowed.must(shared && prot.has(Prot::WRITE) && !writable, EACCES);
            allowed.maybe(unmapped_meanwhile(world, call, 0), ENOMEM);
        }
        Call::Msync { offset, len, flags, .. } => {
            allowed.must(!offset.is_multiple_of(4096), EINVAL);
            let both = flags.has(MsyncFlags::ASYNC) && flags.has(MsyncFlags::SYNC);
            allowed.must(both, EINVAL);
            let Some(map) = world.map_in(call, 0) else { return };
            allowed.maybe(may_report_eio(world, map.file), EIO);
            allowed.on(beyond(world, call, map, offset.saturating_add(*len)), ENOMEM);
        }
        Call::Madvise { offset, len, advice, .. } => {
            madvise_rules(world, call, *offset, *len, *advice, allowed);
        }
        _ => {}
    }
}

/// Whether a buffer that is a mapping may fault when it is read (`write` false) or written.
pub fn buffer_faults(world: &World, call: u16, iov: &[(Buf, u64)], write: bool) -> (bool, bool) {
    let span = world.span(call);
    let (mut may, mut gup) = (false, false);
    let mut slot = 1;
    for (buf, len) in iov {
        if let Buf::Map(_, offset) = buf {
            match world.map_in(call, slot) {
                Some(map) => {
                    let faults = world.faults(map, *offset, *len, write, span);
                    // The mapping may have shrunk under a ring's request, or been unmapped: then its address holds nothing.
                    may |= faults.may().is_some() || offset.saturating_add(*len) > map.len.0;
                    gup |= faults.gup_may.is_some();
                    may |= unmapped_meanwhile(world, call, slot);
                }
                None => may = true,
            }
            slot += 1;
        }
    }
    (may, gup)
}

/// Whether advice that a mapping keeps was given on a part of the call's mapping.
fn cut(world: &World, call: u16) -> bool {
    let filler = world.seen[call as usize].slots.first();
    (0..world.program.lines.len() as u16).any(|k| {
        let lasting = matches!(
            world.call_of(k),
            Call::Madvise {
                advice: Advice::Normal
                    | Advice::Random
                    | Advice::Sequential
                    | Advice::HugePage
                    | Advice::NoHugePage,
                ..
            }
        );
        let seen = &world.seen[k as usize];
        lasting && seen.inv.is_some() && seen.slots.first() == filler
    })
}

/// Whether an address range of the mapping that ends at `end` reaches past what is mapped.
fn beyond(world: &World, call: u16, map: &Map, end: u64) -> Holds {
    let moving = unmapped_meanwhile(world, call, 0);
    Holds::of(moving || end > map.len.0, !moving && end > map.len.1)
}

/// Whether the mapping in a slot was unmapped, moved or shrunk in an interval that overlaps the call.
pub fn unmapped_meanwhile(world: &World, call: u16, slot: usize) -> bool {
    let Some(filler) = world.seen[call as usize].slots.get(slot).copied() else { return true };
    let span = world.span(call);
    (0..world.program.lines.len() as u16).any(|k| {
        let other = world.span(k);
        let seen = &world.seen[k as usize];
        k != call
            && seen.inv.is_some()
            && !world.order.before(span, other)
            && match world.call_of(k) {
                // The call looked its slots up before it is on record as invoked: an unmapping may be over by then.
                Call::Munmap { .. } => seen.slots.first() == Some(&filler),
                Call::Mremap { .. } => {
                    let at_lookup = other.ret > lane_idle_since(world, call);
                    seen.slots.first() == Some(&filler)
                        && (!world.order.before(other, span) || at_lookup)
                }
                // Filling a used slot unmaps what was there.
                Call::Mmap { slot, .. } => {
                    k != filler.0
                        && !world.order.before(other, world.span(filler.0)) && matches!(world.call_of(filler.0.min(world.program.lines.len() as u16 - 1)),
                        Call::Mmap { slot: other, .. } if other == slot)
                }
                _ => false,
            }
    })
}

/// When the call's lane had last returned from something: it looked up the call's slots after that.
fn lane_idle_since(world: &World, call: u16) -> u64 {
    let (span, lane) = (world.span(call), world.line(call).lane);
    (0..world.program.lines.len() as u16)
        .filter(|k| world.line(*k).lane == lane)
        .map(|k| world.span(k).ret)
        .filter(|ret| *ret < span.inv)
        .max()
        .unwrap_or(0)
}

fn madvise_rules(
    world: &World,
    call: u16,
    offset: u64,
    len: u64,
    advice: Advice,
    allowed: &mut Allowed,
) {
    allowed.must(!offset.is_multiple_of(4096), EINVAL);
    let Some(map) = world.map_in(call, 0) else { return };
    let some = len > 0;
    // The part that is mapped is advised all the same (mm/madvise.c:madvise_walk_vmas, 6.12).
    if some {
        allowed.on(beyond(world, call, map, offset.saturating_add(len)), ENOMEM);
    }
    let span = world.span(call);
    let end = crate::model::page_up(offset.saturating_add(len));
    let faults = |write| world.faults(map, offset, end - offset.min(end), write, span);
    match advice {
        Advice::Remove => {
            // vma_is_shared_maywrite (mm/madvise.c:madvise_remove, 6.12).
            let allowed_to = map.sharing == Sharing::Shared && world.opens[map.open].writable();
            allowed.must(some && !allowed_to, EACCES);
            allowed.maybe(true, ENOSPC);
        }
        Advice::PopulateRead | Advice::PopulateWrite => {
            let write = advice == Advice::PopulateWrite;
            let faults = faults(write);
            allowed.maybe(some && faults.may().is_some(), EFAULT);
            allowed.maybe(some && (faults.segv_may.is_some() || faults.gup_may.is_some()), EINVAL);
            // The last page may be past the end of file: certain failure.
            allowed.must_fail |= some && faults.must().is_some() && !allowed.errnos.is_empty();
        }
        _ => {}
    }
}
