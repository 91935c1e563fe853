//! Programs at home on XFS with DAX.

#![no_main]

pinfuzz_fuzz::guest_target!("xfs_dax");
