//! The library of `pinfuzz`: targets, campaigns and reports.

pub mod campaign;
pub mod coverage;
pub mod exit;
pub mod fuzz_target;
pub mod machine;
pub mod report;
pub mod target;
