//! Programs whose calls go through io_uring, with registered buffers.

#![no_main]

pinfuzz_fuzz::guest_target!("uring");
