//! Reports: what a run found, in words and as data, saved so that nothing is ever half there.
//!
//! Does not run or judge anything. `store` writes, `lines` grows, `find` is one find's folder, `summary` is the whole run, `timeline` shows a
//! history, `signature` says which anomalies are counted together, `meetings` counts what met held pages and leases, `exercised` which forms of
//! calls were issued at all.

pub mod clock;
mod columns;
mod exercised;
mod find;
mod lines;
mod meetings;
mod signature;
mod store;
mod summary;
pub mod timeline;

pub use exercised::{Counts, Exercised};
pub use find::{Find, Origin, Provenance, explain, headline};
pub use lines::Lines;
pub use meetings::{Axis, Meetings, Meets, Outcomes, Table};
pub use signature::{Signature, oracle_name, slug};
pub use store::{OpenError, Store, hash, write_atomically};
pub use summary::{Report, SCHEMA, SearchReport, SignatureReport, TargetReport, Totals, share};

use std::path::PathBuf;

/// A report could not be written: a full disk, a folder that may not be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct ReportError {
    /// What was being written.
    pub path: PathBuf,
    /// Why it failed.
    pub source: std::io::Error,
}

impl ReportError {
    /// Trouble with this path.
    pub fn new(path: impl Into<PathBuf>, source: std::io::Error) -> ReportError {
        ReportError { path: path.into(), source }
    }
}
