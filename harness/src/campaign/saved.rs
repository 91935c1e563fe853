//! The folder of a run and what it holds already: nothing for a new one, everything that counts for one that goes on.
//!
//! A process may have been killed at any instant: a find that was saved but not yet written down is judged again and entered, lines that
//! were torn are cut off, numbers that may have been drawn are not drawn again.

use crate::campaign::ledger::Ledger;
use crate::campaign::search::Reached;
use crate::campaign::state::{self, State};
use crate::campaign::{Config, judge, progress, reached};
use crate::report::{Lines, OpenError, Report, ReportError, Store};
use checker::{Policy, Verdict};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest file of a run that is read.
const BYTES_MAX: u64 = 64 << 20;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One of its files says something else than it should.
    #[error("{}: {what}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It can be read, but not written to.
    #[error(transparent)]
    Write(#[from] ReportError),
}

/// A run's folder, ready to be used.
#[derive(Debug)]
pub struct Saved {
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    pub(super) seconds: f64,
    pub(super) next: u64,
    pub(super) reached: Vec<Reached>,
    pub(super) progress: Lines,
    pub(super) reached_lines: Lines,
}

impl Saved {
    /// A new run's folder under `reports`.
    pub fn create(reports: &Path, config: &Config) -> Result<Saved, ReportError> {
        let now = SystemTime::now();
        let store = Store::create(reports, config.seed, now)?;
        let (progress, _) = Lines::open(&store.dir().join(progress::FILE))?;
        let (reached_lines, _) = Lines::open(&store.dir().join(reached::FILE))?;
        let ledger = Ledger::new(now, config.workers.len());
        let reached = Vec::new();
        Ok(Saved { store, ledger, seconds: 0.0, next: 0, reached, progress, reached_lines })
    }

    /// The folder of an earlier run, and what that was told.
    pub fn open(dir: &Path) -> Result<(Saved, Config), ResumeError> {
        let store = Store::open(dir)?;
        let path = dir.join("report.json");
        let format = |what| ResumeError::Format { path: path.clone(), what };
        let report = Report::parse(&read(&path)?).map_err(format)?;

        let path = dir.join(state::FILE);
        let format = |what: String| ResumeError::Format { path: path.clone(), what };
        let state: State =
            serde_json::from_str(&read(&path)?).map_err(|error| format(error.to_string()))?;
        if state.version != state::VERSION {
            return Err(format(format!("a state of version {}", state.version)));
        }
        let config = state.config().map_err(format)?;

        let seconds = if report.seconds.is_finite() { report.seconds.max(0.0) } else { 0.0 };
        let mut ledger = Ledger::resume(report, config.workers.len());
        for find in store.finds()? {
            let relative = find.strip_prefix(dir).unwrap_or(&find).to_path_buf();
            if !ledger.has(&relative) {
                adopt(&mut ledger, &find, &relative)?;
            }
        }
        let (progress, _) = Lines::open(&dir.join(progress::FILE))?;
        let (reached_lines, text) = Lines::open(&dir.join(reached::FILE))?;
        let reached = reached::parse(&text).collect();
        let next = state.next;
        Ok((Saved { store, ledger, seconds, next, reached, progress, reached_lines }, config))
    }

    /// How long it has run, and how many programs it has drawn.
    pub fn so_far(&self) -> (f64, u64) {
        (self.seconds, self.ledger.totals.drawn)
    }
}

/// On what a find was made: that says by which rules it was judged, as in `judge`.
#[derive(Deserialize)]
struct TargetFile {
    release: String,
}

/// Judges a saved find again and enters it.
fn adopt(ledger: &mut Ledger, find: &Path, relative: &Path) -> Result<(), ResumeError> {
    let path = find.join("target.json");
    let format = |what| ResumeError::Format { path: path.clone(), what };
    let file: TargetFile =
        serde_json::from_str(&read(&path)?).map_err(|error| format(error.to_string()))?;
    let policy = Policy::for_release(&file.release);
    let path = find.join("history.jsonl");
    let format = |what| ResumeError::Format { path: path.clone(), what };
    let record =
        history::record::parse(&read(&path)?).map_err(|error| format(error.to_string()))?;
    // What broke the checker once is a find without an anomaly, and is not given to it again.
    let judged =
        std::panic::catch_unwind(|| checker::check(&record.program, &record.history, &policy));
    if let Ok(Verdict::Anomalous(anomalies)) = judged {
        ledger.adopt(&judge::signatures(&anomalies, &record.program, &record.history), relative);
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, ResumeError> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| OpenError::Read { path: path.into(), source }.into())
}
