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
use program::Call;
use smallvec::SmallVec;

use rings::link_rules;

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

/// What the call itself may return: each family has a file.
fn rules(world: &World, policy: &Policy, call: u16, allowed: &mut Allowed) {
    match world.call_of(call) {
        Call::Open { .. }
        | Call::Unlink { .. }
        | Call::Rename { .. }
        | Call::Link { .. }
        | Call::Truncate { .. }
        | Call::Ftruncate { .. }
        | Call::Fallocate { .. } => files::rules(world, call, allowed),
        Call::Pread { .. }
        | Call::Preadv { .. }
        | Call::Readv { .. }
        | Call::Pwrite { .. }
        | Call::Pwritev { .. }
        | Call::Writev { .. }
        | Call::Lseek { .. }
        | Call::Fsync { .. }
        | Call::Fdatasync { .. }
        | Call::SyncFileRange { .. }
        | Call::Syncfs { .. } => transfer::rules(world, call, allowed),
        Call::Mmap { .. }
        | Call::Mremap { .. }
        | Call::Mprotect { .. }
        | Call::Msync { .. }
        | Call::Madvise { .. } => memory::rules(world, policy, call, allowed),
        Call::Ficlone { .. }
        | Call::Ficlonerange { .. }
        | Call::Fideduperange { .. }
        | Call::CopyFileRange { .. }
        | Call::Sendfile { .. }
        | Call::SpliceToPipe { .. }
        | Call::SpliceFromPipe { .. } => copy::rules(world, call, allowed),
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
