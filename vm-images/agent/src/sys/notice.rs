//! The signals that tell of the break of a lease: handled where they arrive, and kept in the shared page until someone writes them into the log.
//!
//! The handler does nothing that a handler may not do: atomics, the clock, one fcntl. It restarts what it interrupted: the break of a
//! lease by the process that holds it would otherwise end its own wait (and with it the truth about who waits for whom); what a signal does
//! to a call that waits is asked by `interrupt`.

use super::lease;
use crate::control::Control;
use crate::record::now;
use crate::signals::SignalSlot;
use program::{Lease, Notice};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Where they are kept: set before the handlers are.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());

/// What this process answers, as an index into `Lease::NAMES`; a forked child takes it along.
static ANSWER: AtomicU32 = AtomicU32::new(NEVER);
const NEVER: u32 = u32::MAX;

/// What this process answers each break with from now on.
pub fn answer_with(lease: Lease) {
    let index = Lease::NAMES.iter().position(|(_, l)| *l == lease && *l != Lease::Layout);
    ANSWER.store(index.map_or(NEVER, |index| index as u32), Ordering::Release);
}

fn answer() -> Option<Lease> {
    Lease::NAMES.get(ANSWER.load(Ordering::Acquire) as usize).map(|(_, lease)| *lease)
}

/// The fields of `siginfo_t` of a signal about a descriptor.
#[repr(C)]
struct PollInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    band: i64,
    fd: c_int,
}

/// si_code of a signal that the kernel sends without more: it names no descriptor.
const SI_KERNEL: i32 = 0x80;

extern "C" fn on_notice(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: set before the handler was, to a page that lives for ever.
    let Some(control) = (unsafe { CONTROL.load(Ordering::Acquire).as_ref() }) else { return };
    // SAFETY: errno is the thread's own.
    let errno = unsafe { &mut *libc::__errno_location() };
    let errno_before = *errno;
    let seq = control.seq.fetch_add(1, Ordering::AcqRel);
    let time_ns = now().saturating_sub(control.began.load(Ordering::Relaxed));
    // SAFETY: the kernel passes a whole siginfo_t, which begins with these fields whatever the signal tells.
    let info = unsafe { &*info.cast::<PollInfo>() };
    let answered = answer()
        .filter(|_| info.code != SI_KERNEL && info.fd >= 0)
        .map(|lease| (lease, lease::set(info.fd, lease)));
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    control.keep_signal(&SignalSlot::of(
        seq,
        time_ns,
        control.lane_of(tid),
        (info.signo, info.code, info.fd, info.band),
        answered,
    ));
    *errno = errno_before;
}

/// Installs the handlers of this process, which its children take along.
pub fn install(control: &'static Control) {
    CONTROL.store(std::ptr::from_ref(control).cast_mut(), Ordering::Release);
    let signals = [Notice::Io, Notice::Rt1, Notice::Rt2].map(lease::signal);
    // SAFETY: the handler is async-signal-safe and lives for ever; the structure is initialised. (nix has no real-time signals.)
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_notice as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // One at a time: each has its place in the order before the next begins.
        signals.iter().for_each(|signal| {
            libc::sigaddset(&raw mut action.sa_mask, *signal);
        });
        for signal in signals {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}
