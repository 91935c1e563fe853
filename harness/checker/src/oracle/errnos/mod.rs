//! Could each call return what it returned?
//!
//! Verifies: an errno is among those that some state during the call's interval calls for; a success where every such state forbids it.
//! Assumes: no fault is injected, memory suffices. ENOSPC is allowed wherever blocks are allocated.
//! Does not verify: which of several applicable errnos comes first; the kernel's order of checks is not a promise.
//! Sources: fs/open.c, fs/read_write.c, fs/remap_range.c, fs/splice.c, fs/ext4/extents.c, fs/xfs/xfs_file.c, mm/mmap.c, mm/madvise.c,
//! io_uring/rw.c of 6.12; where 6.1 differs the rule says so.

use super::{Findings, sources, who};
use crate::model::World;
use crate::model::file::Map;
use crate::model::order::{completes_link, link_predecessor};
use crate::{AnomalyKind, Oracle, Policy};
use history::{CallResult, Errno, Payload, errno};
use program::{
    Advice, Buf, Call, FallocateMode, MapFlags, MsyncFlags, OpenFlags, Prot, Sharing, Whence,
};
use smallvec::SmallVec;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EBADF: i32 = 9;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EFAULT: i32 = 14;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EPIPE: i32 = 32;
const EOPNOTSUPP: i32 = 95;
const ECANCELED: i32 = 125;

/// Whether a condition holds during a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Never,
    Maybe,
    Always,
}

impl Holds {
    pub(super) fn when(certain: bool) -> Holds {
        if certain { Holds::Always } else { Holds::Never }
    }

    /// From "in some state" and "in every state".
    pub(super) fn of(some: bool, every: bool) -> Holds {
        match (some, every) {
            (_, true) => Holds::Always,
            (true, false) => Holds::Maybe,
            (false, false) => Holds::Never,
        }
    }
}

/// What a call may return.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    errnos: SmallVec<[i32; 8]>,
    must_fail: bool,
}

impl Allowed {
    pub(super) fn on(&mut self, holds: Holds, errno: i32) {
        if holds != Holds::Never {
            self.errnos.push(errno);
        }
        self.must_fail |= holds == Holds::Always;
    }

    pub(super) fn maybe(&mut self, condition: bool, errno: i32) {
        if condition {
            self.on(Holds::Maybe, errno);
        }
    }

    pub(super) fn must(&mut self, condition: bool, errno: i32) {
        self.on(Holds::when(condition), errno);
    }
}

/// Looks at a call that returned.
pub fn look(world: &World, policy: &Policy, call: u16, findings: &mut Findings) {
    let Some(result) = world.seen[call as usize].result else { return };
    if world.seen[call as usize].helped {
        // Help closes pipes and interrupts: what comes of it is not the kernel's choice.
        return;
    }
    if sources::judged_elsewhere(world.call_of(call)) {
        return;
    }
    let mut allowed = Allowed::default();
    rules(world, policy, call, &mut allowed);
    sources::everywhere(world, call, &mut allowed);
    link_rules(world, call, &mut allowed);
    allowed.maybe(closed_meanwhile(world, call), EBADF);
    let list = || match allowed.errnos.as_slice() {
        [] => "no error is possible here".to_owned(),
        some => {
            let names: Vec<String> = some.iter().map(|e| errno::name(Errno(*e))).collect();
            format!("only {} may come here", names.join(", "))
        }
    };
    match effective(world, call, result) {
        Err(errno) if !allowed.errnos.contains(&errno.0) => findings.call(
            AnomalyKind::UnexplainedErrno,
            Oracle::Errnos,
            call,
            format!("{} failed with {}; {}.", who(world, call), errno::name(errno), list()),
        ),
        Ok(n) if allowed.must_fail => findings.call(
            AnomalyKind::UnexplainedErrno,
            Oracle::Errnos,
            call,
            format!("{} succeeded ({n}) where it must fail; {}.", who(world, call), list()),
        ),
        _ => {}
    }
}

/// The result, with a dedupe's status in its place: the ioctl succeeds while the one destination fails.
fn effective(world: &World, call: u16, result: CallResult) -> CallResult {
    match (result, world.seen[call as usize].payload) {
        (Ok(_), Some(Payload::Dedupe { status })) if *status < 0 => Err(Errno(-*status)),
        _ => result,
    }
}

/// A request is cancelled when the one before it in a soft-linked chain did not succeed in full, and when one of its chain is refused as it is
/// submitted: the whole chain fails then, from its head on and whatever its links (io_uring/io_uring.c:io_submit_fail_init, 6.12 and 6.1).
fn link_rules(world: &World, call: u16, allowed: &mut Allowed) {
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

/// Whether an O_DIRECT transfer may be refused for its alignment.
fn misaligned(world: &World, open: usize, offset: Option<u64>, iov: &[(Buf, u64)]) -> bool {
    let open = &world.opens[open];
    let file = &world.files[open.file];
    if !open.flags.has(OpenFlags::DIRECT) || file.is_dax() {
        return false;
    }
    // The device of a gate has sectors of 512 bytes.
    let unknown = if file.gate.is_some() { (512, 512) } else { (0, 0) };
    let (mem, off) = file.facts.map_or(unknown, |f| (f.dio_mem_align, f.dio_offset_align));
    // Unknown alignment counts as the strictest that a 4 KiB block device may have.
    let (mem, off) = (u64::from(mem.max(1)), if off == 0 { 4096 } else { u64::from(off) });
    let total: u64 = iov.iter().map(|(_, l)| *l).sum();
    offset.is_none_or(|o| !o.is_multiple_of(off))
        || !total.is_multiple_of(off)
        || iov.iter().any(|(buf, len)| {
            let at = match buf {
                Buf::Anon(at) => u64::from(*at),
                Buf::Map(_, at) => *at,
            };
            !at.is_multiple_of(mem.max(512)) || !len.is_multiple_of(off)
        })
}

/// Whether a descriptor that the call uses was closed, or its slot filled anew, by a call that is not surely later. The call
/// looks its slots up before it is on record as invoked.
fn closed_meanwhile(world: &World, call: u16) -> bool {
    let span = world.span(call);
    let slots = world.seen[call as usize].slots;
    (0..world.program.lines.len() as u16).any(|k| {
        let seen = &world.seen[k as usize];
        let closes = match world.call_of(k) {
            Call::Close { .. } | Call::ClosePipe { .. } | Call::CloseRing { .. } => {
                seen.slots.first().is_some_and(|s| slots.contains(s))
            }
            Call::Open { slot, .. }
            | Call::Dup { slot, .. }
            | Call::OpenGate { slot, .. }
            | Call::RecvFd { slot } => slots.iter().any(|s| {
                s.0 != k
                    && !world.order.before(world.span(k), world.span(s.0))
                    && matches!(world.program.lines.get(s.0 as usize).map(|l| &l.call),
                        Some(Call::Open { slot: other, .. } | Call::Dup { slot: other, .. }
                            | Call::OpenGate { slot: other, .. } | Call::RecvFd { slot: other }) if other == slot)
            }),
            _ => false,
        };
        k != call && closes && seen.inv.is_some() && !world.order.before(span, world.span(k))
    })
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

/// Whether the file's page cache and its device were in a race that the kernel reports as EIO (see KERNEL rule in `model::World::touch`).
fn may_report_eio(world: &World, file: usize) -> bool {
    !world.files[file].incoherent.is_empty()
}

/// Whether an O_DIRECT transfer raced with something that dirties pages of its file: XFS then refuses a delayed extent with EIO
/// (fs/iomap/direct-io.c:iomap_dio_iter, 6.12).
fn direct_race(world: &World, call: u16, open: usize) -> bool {
    let open = &world.opens[open];
    if !open.flags.has(OpenFlags::DIRECT) || world.files[open.file].is_dax() {
        return false;
    }
    let span = world.span(call);
    world.files[open.file]
        .touches
        .iter()
        .any(|t| t.dirties && t.span.call != call && !world.order.apart(t.span, span))
}

fn read_rules(
    world: &World,
    call: u16,
    slot: usize,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
    allowed: &mut Allowed,
) {
    let Some(open) = world.open_in(call, slot) else { return };
    allowed.must(!world.opens[open].readable(), EBADF);
    allowed.maybe(misaligned(world, open, offset, iov), EINVAL);
    let (may, gup) = buffer_faults(world, call, iov, true);
    allowed.maybe(may || gup, EFAULT);
    allowed.maybe(direct_race(world, call, open) || into_itself(world, call, open, iov), EIO);
    let len = iov.iter().map(|(_, len)| len).fold(0, |sum: u64, len| sum.saturating_add(*len));
    allowed.maybe(meets_preallocation(world, call, open, offset, len), EIO);
}

/// Known: whether an O_DIRECT read that reaches past the end of file may meet a delayed extent there, see `Known::XfsDirectReadDelalloc`.
fn meets_preallocation(
    world: &World,
    call: u16,
    open: usize,
    offset: Option<u64>,
    len: u64,
) -> bool {
    let file = world.opens[open].file;
    let (min, _) = world.sizes(file, world.span(call), Some(call));
    world.policy.knows(crate::Known::XfsDirectReadDelalloc)
        && world.files[file].on(program::Mount::Xfs)
        && world.files[file].shared
        && super::counts::is_direct(world, open)
        && offset.is_none_or(|offset| offset.saturating_add(len) > min)
}

/// Whether an O_DIRECT read has a mapping of its own file for a buffer: faulting it in may delay an extent of the very range that is read
/// (fs/iomap/direct-io.c:iomap_dio_iter, IOMAP_DELALLOC, 6.12).
fn into_itself(world: &World, call: u16, open: usize, iov: &[(Buf, u64)]) -> bool {
    let mapped = iov.iter().filter(|(buf, _)| matches!(buf, Buf::Map(..))).count();
    super::counts::is_direct(world, open)
        && (1..=mapped)
            .any(|slot| world.map_in(call, slot).is_some_and(|m| m.file == world.opens[open].file))
}

fn write_rules(
    world: &World,
    call: u16,
    slot: usize,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
    allowed: &mut Allowed,
) {
    let Some(open) = world.open_in(call, slot) else { return };
    allowed.must(!world.opens[open].writable(), EBADF);
    // With O_APPEND the place is the end of file, which may have any alignment.
    let offset = offset.filter(|_| !world.opens[open].flags.has(OpenFlags::APPEND));
    allowed.maybe(misaligned(world, open, offset, iov), EINVAL);
    let (may, gup) = buffer_faults(world, call, iov, false);
    allowed.maybe(may || gup, EFAULT);
    allowed.maybe(true, ENOSPC);
    allowed.maybe(direct_race(world, call, open), EIO);
    // Known: the retry of an unaligned O_DIRECT write that met a fault comes back as EAGAIN through a ring's worker.
    let known =
        world.policy.knows(crate::Known::DirectWriteFault) && world.line(call).via.is_some();
    allowed.maybe(may && known && super::counts::is_direct(world, open), EAGAIN);
}

fn rules(world: &World, policy: &Policy, call: u16, allowed: &mut Allowed) {
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
        Call::Pread { offset, buf, len, .. } => {
            read_rules(world, call, 0, Some(*offset), &[(*buf, *len)], allowed);
        }
        Call::Preadv { offset, iov, .. } => {
            read_rules(world, call, 0, Some(*offset), iov, allowed);
        }
        Call::Readv { iov, .. } => read_rules(world, call, 0, None, iov, allowed),
        Call::Pwrite { offset, buf, len, .. } => {
            write_rules(world, call, 0, Some(*offset), &[(*buf, *len)], allowed);
        }
        Call::Pwritev { offset, iov, .. } => {
            write_rules(world, call, 0, Some(*offset), iov, allowed);
        }
        Call::Writev { iov, .. } => write_rules(world, call, 0, None, iov, allowed),
        Call::Lseek { offset, whence, .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            if *whence != Whence::Set {
                let (min, max) = world.sizes(world.opens[open].file, span, None);
                allowed.on(Holds::of(*offset >= min, *offset >= max), ENXIO);
                // No data behind the offset: what is there is judged by the seeks oracle.
                allowed.maybe(*whence == Whence::Data, ENXIO);
            }
        }
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
            let direct = [src, dst].iter().any(|o| {
                world.opens[*o].flags.has(OpenFlags::DIRECT)
                    && !world.files[world.opens[*o].file].is_dax()
            });
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
            allowed.maybe(super::sources::closing(world, call), EPIPE);
        }
        Call::SpliceFromPipe { len, .. } => {
            let Some(open) = world.open_in(call, 1) else { return };
            let some = *len > 0;
            let bad = !world.opens[open].writable();
            allowed.on(Holds::of(bad, bad && some), EBADF);
            let append = world.opens[open].flags.has(OpenFlags::APPEND);
            allowed.on(Holds::of(append, append && some), EINVAL);
            // What lies in the pipe may have any alignment.
            let direct = world.opens[open].flags.has(OpenFlags::DIRECT)
                && !world.files[world.opens[open].file].is_dax();
            allowed.maybe(direct, EINVAL);
            allowed.maybe(true, ENOSPC);
            allowed.maybe(direct_race(world, call, open), EIO);
        }
        Call::Fsync { .. } | Call::Fdatasync { .. } | Call::SyncFileRange { .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            allowed.maybe(may_report_eio(world, world.opens[open].file), EIO);
        }
        Call::Syncfs { .. } => {
            allowed.maybe((0..world.files.len()).any(|f| may_report_eio(world, f)), EIO);
        }
        Call::IoUringSetup { entries, .. } => allowed.must(*entries == 0, EINVAL),
        Call::Close { .. }
        | Call::Dup { .. }
        | Call::Munmap { .. }
        | Call::Load { .. }
        | Call::Store { .. }
        | Call::Statx { .. }
        | Call::Fiemap { .. }
        | Call::Pipe { .. }
        | Call::Fork { .. }
        | Call::Exit
        | Call::DropCaches
        | Call::Wait { .. } => {}
        _ => sources::rules(world, call, allowed),
    }
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
