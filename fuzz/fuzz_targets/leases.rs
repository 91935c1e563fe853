//! Programs about leases and what breaks them.

#![no_main]

pinfuzz_fuzz::guest_target!("leases");
