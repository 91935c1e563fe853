//! Could a call on a mapping, or on a buffer that is one, fail so: by what is mapped there, or is no longer?

use super::{Allowed, EACCES, EFAULT, EINVAL, ENOMEM, ENOSPC, Holds};
use crate::model::World;
use crate::model::file::Map;
use program::{Advice, Buf, Call, Sharing};

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
pub(super) fn cut(world: &World, call: u16) -> bool {
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
pub(super) fn beyond(world: &World, call: u16, map: &Map, end: u64) -> Holds {
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

pub(super) fn madvise_rules(
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
