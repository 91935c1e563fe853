//! Programs at home on ext4 with DAX.

#![no_main]

pinfuzz_fuzz::guest_target!("ext4_dax");
