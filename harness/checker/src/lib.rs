//! Judges a History of a Program against a Policy: pure and total.
//!
//! Knows no machine, no file and no clock. The model says what each place may have held at each time; the oracles compare.

mod check;
pub mod model;
pub mod oracle;
pub mod policy;
mod verdict;

pub use check::{check, waits};
pub use policy::{Known, Policy, Regime};
pub use verdict::*;
