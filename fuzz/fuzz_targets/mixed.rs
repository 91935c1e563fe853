//! Programs on all four mounts.

#![no_main]

pinfuzz_fuzz::guest_target!("mixed");
