//! What cargo-fuzz targets that run programs in guests have in common: libFuzzer on one side, a `Target` and the checker on the other.
//!
//! ```text
//! options    what the environment asks for, and what libFuzzer is told beyond its command line
//! inputs     texts to programs, mutation and crossing of them
//! session    one input: run it, judge it, count what it reached
//! trust      which features are stable enough to be counted
//! counters   libFuzzer's side of memory: the only unsafe code
//! names      addresses of the kernel in words
//! ```
//! Does not search: libFuzzer does. Knows nothing of calls, oracles and guests.

pub mod counters;
pub mod inputs;
mod names;
pub mod options;
pub mod session;
mod trust;

/// The fuzz target of that name, as `harness::fuzz_target` describes it.
#[macro_export]
macro_rules! guest_target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::session::init($name),
            |bytes: &[u8]| -> libfuzzer_sys::Corpus { $crate::session::run(bytes) }
        );
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::inputs::mutate($crate::session::target(), data, size, max_size, seed)
        });
        libfuzzer_sys::fuzz_crossover!(|a: &[u8], b: &[u8], out: &mut [u8], seed: u32| {
            $crate::inputs::cross($crate::session::target(), a, b, out, seed)
        });
    };
}
