//! libFuzzer's side of memory: the counters that it reads after each input, and the functions that it looks up by name.
//!
//! All that is unsafe in this package is here. Which feature belongs to which counter is the session's matter, for extra counters by hash.

#![allow(unsafe_code, reason = "libFuzzer is C++ and meets us over symbols, sections and pointers")]

use harness::coverage::sites::Sites;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Counters for what is no call site: as many as some thousand features need to collide rarely. libFuzzer scans them after each input.
const EXTRA: usize = 64 << 10;

/// libFuzzer finds them by their section. They make `ft:` grow, and never `cov:` (FuzzerTracePC.h:CollectFeatures).
// SAFETY: nothing else names this section; libFuzzer reads and clears it as bytes, on the thread that runs inputs.
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static EXTRA_COUNTERS: [AtomicU8; EXTRA] = [const { AtomicU8::new(0) }; EXTRA];

/// One counter for each call site of the kernel.
static SITE_COUNTERS: OnceLock<&'static [AtomicU8]> = OnceLock::new();

/// What `names` are looked up in.
static SITES: OnceLock<&'static Sites> = OnceLock::new();

/// An entry of a PC table, as the compiler makes them for `-fsanitize-coverage=pc-table`.
#[repr(C)]
struct PcEntry {
    pc: usize,
    flags: usize,
}

/// The flag of a function's first block.
const FUNCTION: usize = 1;

// SAFETY: these are libFuzzer's (FuzzerTracePC.cpp) and the C library's; the types are theirs.
unsafe extern "C" {
    fn __sanitizer_cov_8bit_counters_init(start: *const u8, stop: *const u8);
    fn __sanitizer_cov_pcs_init(start: *const PcEntry, stop: *const PcEntry);
    fn _exit(code: c_int) -> !;
    fn atexit(function: extern "C" fn()) -> c_int;
    /// Below, in assembly: begin and end of the counters of instrumented Rust code; both null where there is none.
    safe static pinfuzz_rust_counters: [usize; 2];
}

// Stable Rust has no weak symbols, and all of these must be: the section of counters is there only in instrumented builds, and sanitizers
// bring functions of the same names.
std::arch::global_asm!(
    ".weak __start___sancov_cntrs",
    ".weak __stop___sancov_cntrs",
    ".section .data.rel.ro.pinfuzz_rust_counters, \"aw\", @progbits",
    ".balign 8",
    ".globl pinfuzz_rust_counters",
    ".hidden pinfuzz_rust_counters",
    "pinfuzz_rust_counters:",
    ".quad __start___sancov_cntrs",
    ".quad __stop___sancov_cntrs",
    ".section .text.pinfuzz_names, \"ax\", @progbits",
    ".weak __sanitizer_symbolize_pc",
    ".type __sanitizer_symbolize_pc, @function",
    "__sanitizer_symbolize_pc: jmp {symbolize}",
    ".weak __sanitizer_get_module_and_offset_for_pc",
    ".type __sanitizer_get_module_and_offset_for_pc, @function",
    "__sanitizer_get_module_and_offset_for_pc: jmp {module}",
    ".text",
    symbolize = sym symbolize_pc,
    module = sym module_of_pc,
);

/// Makes every call site known to libFuzzer, with its address in the kernel. Once, before libFuzzer begins.
pub fn register(sites: &'static Sites) {
    let all = sites.all();
    let counters: &'static [AtomicU8] =
        all.iter().map(|_| AtomicU8::new(0)).collect::<Vec<_>>().leak();
    let mut symbol = None;
    let entry = |pc: &u32| {
        // Parts of a function that lie elsewhere (`.cold`) count as functions too: libFuzzer takes what follows an entry for its blocks.
        let first = symbol != sites.symbol(*pc);
        symbol = sites.symbol(*pc);
        PcEntry { pc: sites.address(*pc) as usize, flags: if first { FUNCTION } else { 0 } }
    };
    let table: &'static [PcEntry] = all.iter().map(entry).collect::<Vec<_>>().leak();
    if SITE_COUNTERS.set(counters).is_err() || SITES.set(sites).is_err() {
        return;
    }
    let bytes = counters.as_ptr_range();
    let entries = table.as_ptr_range();
    // SAFETY: both are leaked and never move. An AtomicU8 is a byte that may change behind a shared reference; libFuzzer reads and clears
    // them between inputs only, on the thread that runs inputs. The table has an entry for each counter.
    unsafe {
        __sanitizer_cov_8bit_counters_init(bytes.start.cast(), bytes.end.cast());
        __sanitizer_cov_pcs_init(entries.start, entries.end);
    }
}

/// Counts a call site by its number in `Sites::all`.
pub fn count_site(index: usize) {
    if let Some(counter) = SITE_COUNTERS.get().and_then(|all| all.get(index)) {
        count(counter);
    }
}

/// Counts a feature that is no call site.
pub fn count_extra(number: u64) {
    // Fibonacci hashing: numbers that differ in any bit spread over the counters.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - EXTRA.ilog2());
    count(&EXTRA_COUNTERS[spread as usize]);
}

/// Saturates: a counter that wraps to zero would say that the site was not reached.
fn count(counter: &AtomicU8) {
    // Only the thread that runs inputs writes.
    counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

/// Forgets what our own code passed since the input began, so that libFuzzer is guided by the kernel alone.
pub fn forget_rust() {
    let [start, stop] = pinfuzz_rust_counters;
    let length = stop.saturating_sub(start);
    if length > 0 {
        // SAFETY: the linker sets these to the ends of the section that the instrumentation counts in. Other threads of ours may count at the
        // same time, which loses or adds a count, as between them anyway.
        unsafe {
            std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(start), 0, length)
        }
    }
}

/// Ends the process at once: libFuzzer takes a panic, and `exit` inside an input, for a find.
pub fn leave(code: u8) -> ! {
    // SAFETY: needs nothing.
    unsafe { _exit(code.into()) }
}

/// Has a function called when libFuzzer is done.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: any function may be given. If there is no memory for it, guests end with the process anyway.
    unsafe { atexit(function) };
}

/// `__sanitizer_symbolize_pc`, as libFuzzer calls it where no sanitizer is linked (FuzzerUtil.cpp:DescribePC).
extern "C" fn symbolize_pc(
    pc: *const c_void,
    format: *const c_char,
    out: *mut c_char,
    size: usize,
) {
    // SAFETY: libFuzzer gives a C string and a buffer of that size.
    let (format, out) =
        unsafe { (CStr::from_ptr(format), std::slice::from_raw_parts_mut(out.cast::<u8>(), size)) };
    let format = format.to_str().unwrap_or_default();
    fill(out, &names::describe(SITES.get().copied(), pc.addr() as u64, format));
}

/// `__sanitizer_get_module_and_offset_for_pc`. libFuzzer prints coverage only if it is there.
extern "C" fn module_of_pc(
    _pc: *const c_void,
    module: *mut c_char,
    size: usize,
    _offset: *mut *mut c_void,
) -> c_int {
    // SAFETY: libFuzzer gives a buffer of that size.
    let module = unsafe { std::slice::from_raw_parts_mut(module.cast::<u8>(), size) };
    fill(module, "vmlinux");
    1
}

/// Writes a C string, cut where the buffer ends.
fn fill(out: &mut [u8], text: &str) {
    let length = text.len().min(out.len().saturating_sub(1));
    out[..length].copy_from_slice(&text.as_bytes()[..length]);
    out[length..].iter_mut().take(1).for_each(|byte| *byte = 0);
}

use crate::names;
