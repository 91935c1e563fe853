//! Is every page that was pinned given back, and none pinned that must not be?
//!
//! Verifies: the kernel's counters of pinned pages say the same before the program and when nothing of it is left; a wish to pin for long is
//! granted or refused as the policy's table says, and a fixed transfer goes only where a buffer is registered.
//! Assumes: the agent gave the counters time to settle: pins of an I/O are dropped after it is over.
//! Does not verify: references that are no pins (pipes), which no counter counts.

use super::errnos::{Allowed, Holds, buffer_faults, unmapped_meanwhile};
use super::{Findings, who};
use crate::model::World;
use crate::policy::{Meets, Pin, Term};
use crate::{AnomalyKind, Oracle};
use program::{Buf, Call, PinFlags, RegionAccess, Sharing};

const EIO: i32 = 5;
const ENXIO: i32 = 6;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ETIMEDOUT: i32 = 110;

/// Looks at the counters, before and after.
pub fn balance(world: &World, before: i64, after: i64, findings: &mut Findings) {
    let left = after - before;
    if left == 0 {
        return;
    }
    let pinners: Vec<String> = (0..world.program.lines.len() as u16)
        .filter(|k| world.seen[*k as usize].inv.is_some())
        .filter(|k| pins(world, *k))
        .map(|k| who(world, k))
        .collect();
    let calls = if pinners.is_empty() {
        "no call of this program pins".to_owned()
    } else {
        format!("calls that pin: {}", pinners.join(", "))
    };
    let what = if left > 0 {
        format!("{left} pages are still pinned when nothing of the program is left")
    } else {
        format!("{} pins were given back that were never taken", -left)
    };
    findings.push(crate::Anomaly {
        kind: AnomalyKind::UnbalancedPins,
        oracle: Oracle::Pins,
        call: None,
        path: None,
        mount: None,
        sentence: format!("{what}; {calls}."),
    });
}

/// Whether a call takes pins (FOLL_PIN).
fn pins(world: &World, call: u16) -> bool {
    match world.call_of(call) {
        Call::ProcessVmReadv { .. }
        | Call::ProcessVmWritev { .. }
        | Call::RegisterBuffers { .. }
        | Call::RegMr { .. }
        | Call::PinLongtermTestStart { .. }
        | Call::PinBasicTest { .. }
        | Call::UpdateBuffers { .. } => true,
        other => {
            other.buffers().next().is_some()
                && world.open_in(call, 0).is_some_and(|open| world.is_direct(open))
        }
    }
}

/// What register_buffers and update_buffers may answer: both pin alike (io_uring/rsrc.c:io_sqe_buffer_register, 6.12 and 6.1).
pub(super) fn register(world: &World, call: u16, offset: u64, len: u64, allowed: &mut Allowed) {
    match world.call_of(call) {
        Call::UpdateBuffers { .. } => {
            nothing_registered(world, call, 0, allowed);
            // While an unregister waits, the ring has no places (io_uring/rsrc.c:io_sqe_buffers_unregister, 6.12 and 6.1).
            allowed.maybe(unregistering(world, call, 0), EINVAL);
        }
        _ => allowed.maybe(may_have_buffers(world, call), EBUSY),
    }
    allowed.maybe(true, ENOMEM);
    allowed.must(len == 0, EFAULT);
    let Some(map) = world.map_in(call, 1) else {
        allowed.maybe(true, EFAULT);
        return;
    };
    let iov = [(Buf::Map(program::MapSlot(0), offset), len)];
    let (may, gup) = buffer_faults(world, call, &iov, true);
    allowed.maybe(may || gup, EFAULT);
    let file = &world.files[map.file];
    let dax = file.is_dax();
    let pin = world.policy.tables.pin(dax, map.sharing);
    long_term(world, call, 1, pin, (offset, len), allowed);
    // 6.1 finds out that a mapping is of a file only after it has pinned it.
    let late = map.sharing == Sharing::Shared || map.private.is_some();
    allowed.maybe(
        late && world.policy.tables.pin(false, Sharing::Private) == Pin::Refused(EOPNOTSUPP),
        EOPNOTSUPP,
    );
}

/// What the table says of a wish to pin a range of the mapping in that slot.
fn long_term(
    world: &World,
    call: u16,
    slot: usize,
    pin: Pin,
    (offset, len): (u64, u64),
    allowed: &mut Allowed,
) {
    let Some(map) = world.map_in(call, slot) else { return };
    let span = world.span(call);
    let steady = !unmapped_meanwhile(world, call, slot);
    match pin {
        Pin::Granted => {}
        Pin::Refused(errno) => allowed.on(Holds::of(true, steady), errno),
        Pin::RefusedUnlessCopied(errno) => {
            // Pages that are copies already are pinned without a look at the mapping (mm/gup.c:gup_fast_pte_range); where only some are, the
            // rest is missing.
            let end = offset.saturating_add(len);
            let untouched = map.private.is_some_and(|obj| {
                let (first, last) = (crate::model::page_down(offset), crate::model::page_up(end));
                world.untouched(obj, first, last, call)
            });
            // Known: a page of a shared block passes for an anonymous one, so that a short pin to read it has copied it already.
            let file = &world.files[map.file];
            let passes = world.policy.knows(crate::Known::XfsDaxPin)
                && file.on(program::Mount::XfsDax)
                && file.shared;
            allowed.on(Holds::of(true, untouched && steady && !passes), errno);
            allowed.maybe(true, EFAULT);
        }
        Pin::NeedsLease(errno) => {
            let leases = world.layout_leases(map.file);
            let may = leases.iter().any(|l| l.maybe.0 <= span.ret && l.maybe.1 >= span.inv);
            let sure =
                leases.iter().any(|l| l.sure.is_some_and(|s| s.0 <= span.inv && s.1 >= span.ret));
            allowed.on(Holds::of(!sure, !may && steady), errno);
        }
    }
}

/// What ibv_reg_mr may answer. (drivers/infiniband/core/umem.c:ib_umem_get of 6.12 and 6.1, of which only the pages can be at fault: the agent has
/// CAP_IPC_LOCK.)
pub(super) fn region(
    world: &World,
    call: u16,
    (offset, len): (u64, u64),
    access: RegionAccess,
    allowed: &mut Allowed,
) {
    allowed.maybe(true, ENOMEM);
    // Nothing is a region of one page where it begins within a page, and of none otherwise.
    let within = !offset.is_multiple_of(crate::model::PAGE);
    allowed.must(len == 0 && !within, EINVAL);
    let Some(map) = world.map_in(call, 0) else {
        allowed.maybe(true, EFAULT);
        return;
    };
    if len == 0 && !within {
        return;
    }
    let len = len.max(1);
    let tables = &world.policy.tables;
    let dax = world.files[map.file].is_dax();
    let writes = tables.region_writes(access);
    let span = world.span(call);
    let mut faults = world.faults(map, offset, len, writes, span);
    // What is only read is written by force, which is for private mappings only (mm/gup.c:check_vma_flags).
    if writes && access == RegionAccess::Read && map.private.is_some() {
        (faults.segv_may, faults.segv_must, faults.gup_may) = (None, None, None);
    }
    let gone = unmapped_meanwhile(world, call, 0) || offset.saturating_add(len) > map.len.0;
    allowed.maybe(faults.may().is_some() || faults.gup_may.is_some() || gone, EFAULT);
    // A DAX mapping is refused before its protection is looked at.
    allowed.must(faults.segv_must.is_some() && !dax, EFAULT);
    let pin = tables.region(dax, map.sharing, access);
    long_term(world, call, 0, pin, (offset, len), allowed);
}

/// What pin_longterm_test_start may answer (mm/gup_test.c:pin_longterm_test_start, 6.12): where a page is refused, what that page says.
pub(super) fn longterm_test(
    world: &World,
    call: u16,
    (buf, len, flags): (Buf, u64, PinFlags),
    allowed: &mut Allowed,
) {
    allowed.on(Holds::of(!world.tests_at(call).is_empty(), world.surely_tested(call)), EINVAL);
    let offset = match buf {
        Buf::Anon(offset) => offset.into(),
        Buf::Map(_, offset) => offset,
    };
    let whole = len > 0 && (offset | len).is_multiple_of(crate::model::PAGE);
    allowed.must(!whole, EINVAL);
    allowed.maybe(true, ENOMEM);
    if !whole || matches!(buf, Buf::Anon(_)) {
        return;
    }
    let Some(map) = world.map_in(call, 0) else {
        allowed.maybe(true, EFAULT);
        return;
    };
    let dax = world.files[map.file].is_dax();
    let faults = world.faults(map, offset, len, flags.has(PinFlags::WRITE), world.span(call));
    let gone = unmapped_meanwhile(world, call, 0) || offset.saturating_add(len) > map.len.0;
    allowed.maybe(faults.may().is_some() || faults.gup_may.is_some() || gone, EFAULT);
    // A DAX mapping is refused before its protection is looked at.
    allowed.must(faults.segv_must.is_some() && !dax, EFAULT);
    let pin = world.policy.tables.longterm_test(dax, map.sharing, flags);
    long_term(world, call, 0, pin, (offset, len), allowed);
}

/// What pin_longterm_test_read may answer (mm/gup_test.c:pin_longterm_test_read, 6.12).
pub(super) fn longterm_test_read(world: &World, call: u16, allowed: &mut Allowed) {
    let tests = world.tests_at(call);
    allowed.on(Holds::of(!world.surely_tested(call), tests.is_empty()), EINVAL);
    // Where pages are taken away from their holders, there is nothing to see.
    let taken = tests.iter().filter_map(|by| world.pinned.get(by)?.file);
    let taken = taken.into_iter().any(|file| world.may_lose_pages(call, file));
    allowed.maybe(taken, EFAULT);
}

/// What rdma_write and rdma_read may answer (drivers/infiniband/sw/rxe/rxe_resp.c:check_rkey, rxe_comp.c:do_read, 6.12 and 6.1): the side that bytes
/// come to must allow that. A region that is gone is refused on whichever side it is.
pub(super) fn rdma(world: &World, call: u16, allowed: &mut Allowed) {
    let (far, refusal) = match world.call_of(call) {
        Call::RdmaWrite { .. } => (true, EACCES),
        _ => (false, EFAULT),
    };
    let slots = world.seen[call as usize].slots;
    let region = |slot: usize| {
        let by = slots.get(slot).filter(|by| usize::from(by.0) < world.program.lines.len())?;
        match world.call_of(by.0) {
            Call::RegMr { access, .. } => Some((by.0, *access)),
            _ => None,
        }
    };
    let (Some((near, reads)), Some((remote, writes))) = (region(0), region(1)) else {
        return;
    };
    let access = if far { writes } else { reads };
    allowed.must(access == RegionAccess::Read, refusal);
    let span = world.span(call);
    let gone = |by: u16| {
        let own = World::process(world.line(call).lane);
        let lives = world.lives(by);
        let life = lives.iter().find(|life| life.process == own);
        !life.and_then(|l| l.sure).is_some_and(|(a, b)| a <= span.inv && b >= span.ret)
    };
    allowed.maybe(gone(near), EFAULT);
    allowed.maybe(gone(remote), EACCES);
    // The request may be under way when its region goes.
    allowed.maybe(gone(near) || gone(remote), EIO);
    // The device gives up on packets that a slow machine does not get back to it in time.
    allowed.maybe(true, ETIMEDOUT);
    // Where pages are taken away from their holders, nothing moves.
    let mut taken = [near, remote].into_iter().filter_map(|by| world.pinned.get(&by)?.file);
    let taken = taken.any(|file| world.may_lose_pages(call, file));
    allowed.maybe(taken, EIO);
}

/// Whether the ring that is to get a buffer may have one: an earlier one, or one that a racing call gives it.
fn may_have_buffers(world: &World, call: u16) -> bool {
    let Some(ring) = world.seen[call as usize].slots.first() else { return true };
    let span = world.span(call);
    let before = |k: u16| k != call && world.span(k).inv <= span.ret;
    world.changes_buffers(ring.0).any(|k| gives_buffer(world, k) && before(k))
}

/// Whether a call gives a ring without a buffer one.
fn gives_buffer(world: &World, call: u16) -> bool {
    matches!(world.call_of(call), Call::RegisterBuffers { .. } | Call::CloneBuffers { .. })
}

/// What clone_buffers may answer (io_uring/rsrc.c:io_register_clone_buffers, 6.12).
pub(super) fn clone(world: &World, call: u16, allowed: &mut Allowed) {
    match world.policy.clones_buffers {
        // An opcode that the kernel does not know (io_uring/io_uring.c:io_uring_register, 6.1).
        Some(false) => return allowed.must(true, EINVAL),
        Some(true) => {}
        None => allowed.maybe(true, EINVAL),
    }
    allowed.maybe(may_have_buffers(world, call), EBUSY);
    nothing_registered(world, call, 1, allowed);
    // A source that an unregister is about to empty has none any more.
    allowed.maybe(unregistering(world, call, 1), ENXIO);
    allowed.maybe(true, ENOMEM);
}

/// Whether an unregister of the ring in a slot races with the call.
fn unregistering(world: &World, call: u16, slot: usize) -> bool {
    let Some(ring) = world.seen[call as usize].slots.get(slot).map(|s| s.0) else { return true };
    let span = world.span(call);
    // One that a signal ended has emptied the ring for a while as well, so failures count.
    world.unregisters(ring).any(|k| k != call && !world.order.apart(world.span(k), span))
}

/// What unregister_buffers may answer.
pub(super) fn unregister(world: &World, call: u16, allowed: &mut Allowed) {
    nothing_registered(world, call, 0, allowed);
    // Who waits already is not joined (io_uring/rsrc.c:io_rsrc_ref_quiesce, 6.12 and 6.1).
    allowed.maybe(unregistering(world, call, 0), ENXIO);
}

/// ENXIO where the ring in a slot has nothing registered.
fn nothing_registered(world: &World, call: u16, slot: usize, allowed: &mut Allowed) {
    let span = world.span(call);
    let ring = world.seen[call as usize].slots.get(slot).map_or(u16::MAX, |s| s.0);
    let others = |give: bool| {
        world.changes_buffers(ring).filter(move |k| {
            let kind = match world.call_of(*k) {
                Call::UnregisterBuffers { .. } => !give,
                _ => give && gives_buffer(world, *k),
            };
            kind && *k != call && world.span(*k).inv <= span.ret
        })
    };
    let registered = others(true).count();
    let surely = others(true).any(|k| world.order.before(world.span(k), span))
        && others(false).all(|k| {
            let gone = world.span(k);
            others(true).any(|r| world.order.before(gone, world.span(r)))
        });
    allowed.on(Holds::of(!surely, registered == 0), ENXIO);
}

/// What a fixed transfer may answer beside what any other may.
pub(super) fn fixed(world: &World, call: u16, allowed: &mut Allowed) {
    if !world.is_fixed(call) {
        return;
    }
    let ring = world.seen[call as usize].slots.last().map_or(u16::MAX, |s| s.0);
    let ever = world.changes_buffers(ring).any(|k| gives_buffer(world, k));
    let sure = world.registration(call).is_some_and(|by| world.seen[by as usize].result.is_some());
    // Where pages are taken away from their holders, their I/O ends.
    let taken = world.may_be_taken(call);
    allowed.on(Holds::of(!sure || taken, !ever), EFAULT);
}

/// What a change of layout may answer when it meets pages that are held.
pub(super) fn refused(world: &World, call: u16, allowed: &mut Allowed) {
    let changes = match world.changed.get(&call) {
        Some(changes) if !changes.is_empty() => changes,
        _ => return,
    };
    let span = world.span(call);
    for changed in changes {
        let Some(row) = world.row(changed, Term::Long) else { continue };
        let Meets::Refused(errno) = row.meets else { continue };
        let holds = world.holds();
        let long = || holds.iter().filter(|h| h.file == changed.file && h.term == Term::Long);
        let within = |range: (u64, u64), page: u64| range.0 <= page && page < range.1;
        let may = long().any(|h| h.meets(span.inv, span.ret) && within(changed.touched, h.page));
        // Pages past the end of file are not there to be taken.
        let (min, _) = world.sizes(changed.file, span, Some(call));
        let must = changed.certain
            && long().any(|h| {
                h.covers(span.inv, span.ret) && within(changed.taken, h.page) && h.page < min
            });
        // What cannot share blocks copies the bytes instead.
        let copies = matches!(world.call_of(call), Call::CopyFileRange { .. });
        allowed.on(Holds::of(may, must && !copies), errno);
    }
}
