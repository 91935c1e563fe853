//! The library of `pinfuzz`: targets, campaigns and reports.

pub mod campaign;
pub mod exit;
pub mod report;
pub mod target;
