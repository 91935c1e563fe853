//! Could each call return what it returned?
//!
//! Verifies: an errno is among those that some state during the call's interval calls for; a success where every such state forbids it.
//! Assumes: no fault is injected, memory suffices. ENOSPC is allowed wherever blocks are allocated.
//! Does not verify: which of several applicable errnos comes first; the kernel's order of checks is not a promise.
//! Sources: fs/open.c, fs/read_write.c, fs/remap_range.c, fs/splice.c, fs/ext4/extents.c, fs/xfs/xfs_file.c, mm/mmap.c, mm/madvise.c,
//! io_uring/rw.c of 6.12; where 6.1 differs the rule says so.

mod copy;
mod files;
mod memory;
mod rings;
mod transfer;

pub use memory::{buffer_faults, unmapped_meanwhile};

use super::{Findings, sources, who};
use crate::model::World;
use crate::{AnomalyKind, Oracle, Policy};
use history::{CallResult, Errno, Payload, errno};
use program::{Buf, Call, MapFlags, MsyncFlags, OpenFlags, Prot, Sharing, Whence};
use smallvec::SmallVec;

use copy::{clone_rules, dedupe_rules};
use files::fallocate_rules;
use memory::{beyond, cut, madvise_rules};
use rings::link_rules;
use transfer::{
    direct_race, may_report_eio, meets_preallocation, misaligned, read_rules, write_rules,
};

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
