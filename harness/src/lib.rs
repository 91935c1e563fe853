//! The library of `pinfuzz`: targets, campaigns and reports.

pub mod target;
