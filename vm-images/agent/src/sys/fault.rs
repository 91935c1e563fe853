//! Loads and stores that survive a fault, and the signal handlers of the runner.
//!
//! The copy is a few instructions of our own, so that the handler can tell a program's access from a bug of the agent: a SIGBUS or SIGSEGV
//! inside it ends the copy and is reported, one outside kills the process with a line on the console.

use super::Span;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// What the handler saw: `signo` is 0 if nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// SIGBUS or SIGSEGV.
    pub signo: i32,
    /// si_code.
    pub code: i32,
    /// si_addr.
    pub addr: u64,
}

// rdi: to, rsi: from, rdx: length, rcx: the mapping's side (decides on alignment), r8: *mut Fault. Returns the number of bytes copied.
// Ascending; aligned words of the mapping in one access, other bytes singly. rax counts only what is done at any instruction, so that the
// handler has but to go to the end.
std::arch::global_asm!(
    ".globl pinfuzz_copy",
    ".globl pinfuzz_copy_end",
    "pinfuzz_copy:",
    "xor eax, eax",
    "2:",
    "cmp rax, rdx",
    "jae 5f",
    "lea r9, [rcx + rax]",
    "test r9b, 7",
    "jnz 4f",
    "lea r9, [rax + 8]",
    "cmp r9, rdx",
    "ja 4f",
    "3:",
    "mov r10, [rsi + rax]",
    "mov [rdi + rax], r10",
    "mov rax, r9",
    "add r9, 8",
    "cmp r9, rdx",
    "jbe 3b",
    "jmp 2b",
    "4:",
    "mov r10b, [rsi + rax]",
    "mov [rdi + rax], r10b",
    "inc rax",
    "jmp 2b",
    "5:",
    "pinfuzz_copy_end:",
    "ret",
);

// SAFETY: declared as defined above.
unsafe extern "C" {
    fn pinfuzz_copy(
        to: *mut u8,
        from: *const u8,
        len: usize,
        side: usize,
        fault: *mut Fault,
    ) -> usize;
    fn pinfuzz_copy_end();
}

/// Copies from a mapping until a fault; the number of bytes and the fault.
pub fn load(to: &mut [u8], from: Span) -> (usize, Fault) {
    let mut fault = Fault::default();
    let len = to.len().min(from.len);
    // SAFETY: `to` has room for `len` bytes; `from` is not Rust's memory, and a fault on it is handled.
    let done = unsafe {
        pinfuzz_copy(to.as_mut_ptr(), from.addr as *const u8, len, from.addr, &raw mut fault)
    };
    (done, fault)
}

/// Copies into a mapping until a fault; the number of bytes and the fault.
pub fn store(to: Span, from: &[u8]) -> (usize, Fault) {
    let mut fault = Fault::default();
    let len = from.len().min(to.len);
    // SAFETY: `from` holds `len` bytes; `to` is not Rust's memory, and a fault on it is handled.
    let done =
        unsafe { pinfuzz_copy(to.addr as *mut u8, from.as_ptr(), len, to.addr, &raw mut fault) };
    (done, fault)
}

/// The descriptor of /dev/kmsg (or stderr), for a last word.
static LAST_WORD: AtomicI32 = AtomicI32::new(2);

extern "C" fn on_fault(signo: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to a handler set with SA_SIGINFO, and on x86-64 the context is a ucontext_t.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    let at = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: a fault signal carries an address.
    let addr = unsafe { info.si_addr() } as u64;
    if (pinfuzz_copy as *const () as usize..pinfuzz_copy_end as *const () as usize).contains(&at) {
        let fault = registers[libc::REG_R8 as usize] as *mut Fault;
        // SAFETY: inside the copy r8 still holds the pointer that its caller passed, which is live until it returns.
        unsafe { *fault = Fault { signo, code: info.si_code, addr } };
        registers[libc::REG_RIP as usize] = pinfuzz_copy_end as *const () as i64;
        return;
    }
    let mut line = *b"pinfuzz: agent fault, signal 00 at 0000000000000000 ip 0000000000000000\n";
    line[29] += (signo / 10) as u8;
    line[30] += (signo % 10) as u8;
    for (start, mut value) in [(35, addr), (55, at as u64)] {
        for digit in (0..16).rev() {
            line[start + digit] = b"0123456789abcdef"[(value & 15) as usize];
            value >>= 4;
        }
    }
    // SAFETY: write and _exit may be called from a handler; the buffer is live.
    unsafe {
        libc::write(LAST_WORD.load(Ordering::Relaxed), line.as_ptr().cast(), line.len());
        libc::_exit(98);
    }
}

extern "C" fn on_interrupt(_: c_int) {}

/// The signal that ends a blocked call with EINTR.
pub const INTERRUPT: i32 = libc::SIGUSR1;

/// Installs the handlers; `kmsg` gets the agent's last word.
pub fn install(kmsg: i32) {
    LAST_WORD.store(kmsg, Ordering::Relaxed);
    // Rust gives each thread an alternate stack; ours is used for overflows of the agent's own stack only.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
    let fault = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    // Without SA_RESTART: that a blocked call returns EINTR is its purpose.
    let interrupt =
        SigAction::new(SigHandler::Handler(on_interrupt), SaFlags::empty(), SigSet::empty());
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for (signal, action) in [
        (Signal::SIGBUS, fault),
        (Signal::SIGSEGV, fault),
        (Signal::SIGUSR1, interrupt),
        (Signal::SIGPIPE, ignore),
        (Signal::SIGXFSZ, ignore),
    ] {
        // SAFETY: the handlers are async-signal-safe and live for ever. None of these signals can be refused a handler.
        let _ = unsafe { sigaction(signal, &action) };
    }
}
