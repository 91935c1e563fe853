//! Could each call that takes, uses or gives back a reference return what it returned?
//!
//! Verifies: errnos and counts of vmsplice, tee and reads of pipes, process_vm_readv and its kin, /proc/self/mem, registered buffers, memory regions, gup_test, open
//! files that travel, and the EIO of a gate that was released so; that only what was interrupted says EINTR.
//! Assumes: the pages that a call moves go in order, and what it returns ends where the first one faults.
//! Does not verify: how much goes into a pipe in one call, beyond its bounds.
//! Sources: fs/splice.c, fs/pipe.c, mm/process_vm_access.c, fs/proc/base.c:mem_rw, io_uring/rsrc.c, block/fops.c of 6.12.

use super::Findings;
use super::counts::wrong;
use super::errnos::{Allowed, Holds, buffer_faults, unmapped_meanwhile};
use super::pins;
use crate::model::World;
use crate::model::order::NEVER;
use program::{Call, Lane, Prot, Sharing};

const ESRCH: i32 = 3;
const EINTR: i32 = 4;
/// Internal to the kernel: no call may return it.
const ERESTARTSYS: i32 = 512;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const EPIPE: i32 = 32;

/// Calls whose every answer another oracle judges, or which ask nothing of the kernel under test.
pub fn judged_elsewhere(call: &Call) -> bool {
    matches!(
        call,
        Call::Setlease { .. }
            | Call::Getlease { .. }
            | Call::Hold { .. }
            | Call::Release { .. }
            | Call::OpenGate { .. }
            | Call::LeaseBreakTime { .. }
            | Call::OnBreak { .. }
    )
}

/// Whether a signal may have ended a call early: somebody interrupted its lane, or its thread handled one.
pub fn interrupted(world: &World, call: u16) -> bool {
    let (span, lane) = (world.span(call), world.line(call).lane);
    let told = world
        .watch
        .notices
        .iter()
        .any(|n| n.lane == Some(lane) && n.seq >= span.inv && n.seq <= span.ret);
    // A signal that came before the call is on record may meet it all the same.
    told || (0..world.program.lines.len() as u16).any(|k| {
        let other = world.span(k);
        matches!(world.call_of(k), Call::Interrupt { lane: whom } if *whom == lane)
            && world.seen[k as usize].inv.is_some()
            && other.inv <= span.ret
            && (other.ret == NEVER || other.ret >= span.inv.saturating_sub(1))
    })
}

/// Whether a ring may have had something to tell the call's thread, a completion or its own end. That ends a wait as a signal would, and then the call
/// begins anew without anybody seeing it (kernel/task_work.c:task_work_add with TWA_SIGNAL, include/linux/sched/signal.h:signal_pending, 6.12 and 6.1).
fn notified(world: &World, call: u16) -> bool {
    let (span, lane) = (world.span(call), world.line(call).lane);
    (0..world.program.lines.len() as u16).any(|k| {
        let line = world.line(k);
        k != call && line.lane == lane && line.via.is_some() && world.span(k).inv <= span.ret
    })
}

/// What any call may answer.
pub(super) fn everywhere(world: &World, call: u16, allowed: &mut Allowed) {
    allowed.maybe(interrupted(world, call), EINTR);
    // Known: the one who waited for the pages of a file was to be restarted, and nobody did.
    let dedupe = matches!(world.call_of(call), Call::Fideduperange { .. })
        && world.policy.knows(crate::Known::DedupeRestarts)
        && world.file_in(call, 0).is_some_and(|f| world.files[f].on(program::Mount::XfsDax));
    allowed.maybe(dedupe && (interrupted(world, call) || notified(world, call)), ERESTARTSYS);
    pins::fixed(world, call, allowed);
    pins::refused(world, call, allowed);
    let transfer = !matches!(world.call_of(call), Call::Close { .. } | Call::OpenGate { .. });
    if let Some(gate) = world.gate_used(call).filter(|g| transfer && g.is_device()) {
        let (may, must) = world.gate_fails(gate, call);
        // Nothing to move, nothing to fail.
        let some = world.call_of(call).buffers().map(|(_, l)| l).sum::<u64>() > 0;
        let moves = some && !matches!(world.seen[call as usize].result, Some(Ok(0)));
        allowed.on(Holds::of(may, must && moves && inside(world, call)), EIO);
    }
}

/// Whether a transfer surely reaches its device: one that is refused before it, for its alignment or its place, does not.
fn inside(world: &World, call: u16) -> bool {
    let (offset, len) = match world.call_of(call) {
        Call::Pread { offset, len, .. } | Call::Pwrite { offset, len, .. } => (*offset, *len),
        _ => return false,
    };
    offset.saturating_add(len) <= program::GATE_SIZE && len > 0
}

/// Whether the memory that a call names in its first slot may fault.
fn faults(world: &World, call: u16, offset: u64, len: u64, write: bool) -> (bool, bool) {
    let Some(map) = world.map_in(call, 0) else { return (true, true) };
    let faults = world.faults(map, offset, len, write, world.span(call));
    let gone = unmapped_meanwhile(world, call, 0) || offset.saturating_add(len) > map.len.0;
    (faults.may().is_some() || faults.gup_may.is_some() || gone, faults.bus_may.is_some() || gone)
}

/// The rules of the calls that this file is about.
pub(super) fn rules(world: &World, call: u16, allowed: &mut Allowed) {
    let lane_may_be_gone = |lane: &Lane| matches!(lane, Lane::Child(_));
    match world.call_of(call) {
        Call::Vmsplice { offset, len, .. } => {
            let (may, _) = faults(world, call, *offset, *len, false);
            allowed.maybe(may, EFAULT);
            allowed.maybe(closing(world, call), EPIPE);
        }
        Call::Tee { len, .. } => {
            let slots = world.seen[call as usize].slots;
            let same = slots.len() >= 2 && slots[0] == slots[1];
            allowed.must(same && *len > 0, EINVAL);
            allowed.maybe(closing(world, call), EPIPE);
        }
        Call::ReadPipe { buf, len, .. } => {
            let (may, gup) = buffer_faults(world, call, &[(*buf, *len)], true);
            allowed.maybe(may || gup, EFAULT);
        }
        Call::ProcessVmReadv { offset, len, .. } | Call::ProcessVmWritev { offset, len, .. } => {
            let write = matches!(world.call_of(call), Call::ProcessVmWritev { .. });
            let (may, _) = faults(world, call, *offset, *len, write);
            // A signal ends the wait for the memory at the other end as a fault.
            allowed.maybe(may || interrupted(world, call), EFAULT);
            allowed.maybe(true, ENOMEM);
        }
        Call::ProcMemPread { offset, len, .. } => {
            // FOLL_FORCE: protections do not count.
            let (_, bus) = faults(world, call, *offset, *len, false);
            allowed.maybe(bus, EIO);
            allowed.maybe(true, ENOMEM);
        }
        Call::ProcMemPwrite { offset, len, .. } => {
            let (_, bus) = faults(world, call, *offset, *len, true);
            allowed.maybe(bus, EIO);
            allowed.maybe(true, ENOMEM);
            if let Some(map) = world.map_in(call, 0) {
                let prots = map.prot.during(world.span(call), None, &world.order);
                let no = |p: &u8| p & Prot::WRITE.0 == 0;
                let shared = map.sharing == Sharing::Shared;
                // Force is for private mappings only (mm/gup.c:check_vma_flags).
                let some = shared && prots.iter().any(no);
                let every = shared && prots.iter().all(no) && *len > 0;
                allowed.on(Holds::of(some, every), EIO);
            }
        }
        Call::RegisterBuffers { offset, len, .. } | Call::UpdateBuffers { offset, len, .. } => {
            pins::register(world, call, *offset, *len, allowed);
        }
        Call::CloneBuffers { .. } => pins::clone(world, call, allowed),
        Call::UnregisterBuffers { .. } => pins::unregister(world, call, allowed),
        Call::RegMr { offset, len, access, .. } => {
            pins::region(world, call, (*offset, *len), *access, allowed);
        }
        Call::PinLongtermTestStart { buf, len, flags } => {
            pins::longterm_test(world, call, (*buf, *len, *flags), allowed);
        }
        Call::PinLongtermTestRead => pins::longterm_test_read(world, call, allowed),
        Call::RdmaWrite { .. } | Call::RdmaRead { .. } => pins::rdma(world, call, allowed),
        Call::SetownEx { lane, .. } => allowed.maybe(lane_may_be_gone(lane), ESRCH),
        Call::Interrupt { .. } | Call::Kill { .. } => allowed.maybe(true, ESRCH),
        Call::RecvFd { .. } => {
            let span = world.span(call);
            let lines = || {
                (0..world.program.lines.len() as u16)
                    .filter(|k| *k != call && world.seen[*k as usize].inv.is_some())
            };
            let done = |k: &u16| matches!(world.seen[*k as usize].result, Some(Ok(_)));
            let sends = lines().filter(|k| matches!(world.call_of(*k), Call::SendFd { .. }));
            let sent =
                sends.filter(done).filter(|k| world.order.before(world.span(*k), span)).count();
            let took = lines()
                .filter(|k| matches!(world.call_of(*k), Call::RecvFd { .. }))
                .filter(|k| done(k) || world.seen[*k as usize].result.is_none())
                .filter(|k| world.span(*k).inv <= span.ret)
                .count();
            allowed.maybe(sent <= took, EAGAIN);
        }
        _ => {}
    }
}

/// Whether an end of a pipe that the call uses may be closed meanwhile.
pub(super) fn closing(world: &World, call: u16) -> bool {
    let span = world.span(call);
    let slots = world.seen[call as usize].slots;
    slots.iter().filter(|s| world.pipes.contains_key(&s.0)).any(|s| {
        let lives = world.lives(s.0);
        !lives.iter().any(|l| l.sure.is_some_and(|(a, b)| a <= span.inv && b >= span.ret))
    })
}

/// The counts of the calls that this file is about.
pub fn counts(world: &World, call: u16, n: u64, findings: &mut Findings) {
    let (len, short) = match world.call_of(call) {
        Call::Vmsplice { len, .. } => (*len, n > 0),
        // Nothing comes when nobody is left to write.
        Call::Tee { len, .. } => (*len, n > 0 || closing(world, call)),
        Call::ReadPipe { len, .. } => {
            let slot = world.seen[call as usize].slots.first();
            let pipe = slot.and_then(|s| world.pipes.get(&s.0));
            if let Some(pipe) = pipe
                && !pipe.confused
                && pipe.tail > pipe.head
            {
                let more = pipe.tail - pipe.head;
                let what = format!("at most {}: no more was put in", n.saturating_sub(more));
                wrong(world, call, n, findings, what);
                return;
            }
            (*len, n > 0 || closing(world, call))
        }
        Call::ProcessVmReadv { offset, len, .. } | Call::ProcessVmWritev { offset, len, .. } => {
            let write = matches!(world.call_of(call), Call::ProcessVmWritev { .. });
            let (may, _) = faults(world, call, *offset, *len, write);
            (*len, n > 0 && (may || interrupted(world, call)))
        }
        Call::PinBasicTest { offset, len, flags, .. } => {
            let write = flags.has(program::PinFlags::WRITE);
            let (may, _) = faults(world, call, *offset, *len, write);
            let pages = n.is_multiple_of(crate::model::PAGE);
            (*len, pages && (may || interrupted(world, call)))
        }
        Call::RdmaWrite { len, .. } | Call::RdmaRead { len, .. } => (*len, false),
        // Places that got another buffer.
        Call::UpdateBuffers { .. } => (1, false),
        Call::ProcMemPread { offset, len, .. } | Call::ProcMemPwrite { offset, len, .. } => {
            let write = matches!(world.call_of(call), Call::ProcMemPwrite { .. });
            let (may, _) = faults(world, call, *offset, *len, write);
            (*len, n > 0 && may)
        }
        _ => return,
    };
    let helped = world.seen[call as usize].helped;
    if n > len || n < len && !short && !helped {
        wrong(world, call, n, findings, format!("{len}, for nothing may end it early"));
    }
}
