//! The ledger: everything that a campaign counts, in one place behind one lock.
//!
//! Does no I/O. Its maps are ordered, so that equal campaigns give equal reports.

use crate::campaign::Config;
use crate::report::{
    Exercised, Meetings, Report, SCHEMA, SearchReport, Signature, SignatureReport, Store,
    TargetReport, Totals, clock,
};
use crate::target::TargetInfo;
use checker::{AnomalyKind, Verdict};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Examples of one signature that are kept in full: a second and a third show what the first has by accident.
const KEPT_PER_SIGNATURE_MAX: usize = 3;
/// Finds that are kept in full over all signatures: a kernel that is wrong everywhere must not fill the disk (a find takes some
/// 100 KiB).
const KEPT_MAX: usize = 300;
/// Numbers of lost programs that are remembered.
const LOST_MAX: usize = 32;

/// What is known about a signature.
#[derive(Clone, Debug, Default)]
struct Entry {
    count: u64,
    example: String,
    /// Examples that are being saved or have been.
    wanted: usize,
    folders: Vec<PathBuf>,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Ledger {
    /// The campaign as a whole.
    pub totals: Totals,
    /// One entry a worker.
    pub targets: Vec<TargetReport>,
    meetings: Meetings,
    exercised: Exercised,
    was_ready: Vec<bool>,
    /// When the run began, UTC.
    started: String,
    entries: BTreeMap<Signature, Entry>,
    kept: usize,
    lost: Vec<u64>,
}

/// What a display needs, as of now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whether a guest is ready, or has been.
    pub ready: bool,
    /// Time with a guest, of this process and those before it.
    pub seconds: f64,
    /// The counts.
    pub totals: Totals,
    /// The workers' targets.
    pub targets: Vec<TargetReport>,
    /// Anomalous programs by kind.
    pub kinds: BTreeMap<AnomalyKind, u64>,
    /// Signatures.
    pub signatures: u64,
    /// What was reached.
    pub search: SearchReport,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(started: SystemTime, workers: usize) -> Ledger {
        Ledger {
            totals: Totals::default(),
            targets: vec![TargetReport::default(); workers],
            meetings: Meetings::default(),
            exercised: Exercised::default(),
            was_ready: vec![false; workers],
            started: clock::rfc3339(started),
            entries: BTreeMap::new(),
            kept: 0,
            lost: Vec::new(),
        }
    }

    /// The ledger of a run that goes on.
    pub fn resume(report: Report, workers: usize) -> Ledger {
        let mut ledger = Ledger::new(SystemTime::UNIX_EPOCH, workers);
        ledger.started = report.started;
        ledger.totals = report.totals;
        ledger.meetings = report.meetings;
        ledger.exercised = report.exercised;
        ledger.lost = report.lost;
        // What there is for workers that are no more is kept too; their number only grows.
        for (id, target) in report.targets.into_iter().enumerate() {
            match ledger.targets.get_mut(id) {
                Some(mine) => *mine = target,
                None => ledger.targets.push(target),
            }
        }
        let mut folders = std::collections::BTreeSet::new();
        for anomaly in report.anomalies {
            folders.extend(anomaly.folders.iter().cloned());
            let wanted = anomaly.folders.len();
            let (count, example, folders) = (anomaly.count, anomaly.example, anomaly.folders);
            ledger.entries.insert(anomaly.signature, Entry { count, example, wanted, folders });
        }
        ledger.kept = folders.len();
        ledger
    }

    /// Whether a find in this folder is in the ledger.
    pub fn has(&self, folder: &Path) -> bool {
        self.entries.values().any(|entry| entry.folders.iter().any(|known| known == folder))
    }

    /// Enters a find that was saved and not written down before the process ended.
    pub fn adopt(&mut self, seen: &BTreeMap<Signature, String>, folder: &Path) {
        self.wanted(seen);
        // It is there, whatever the limits say: they were kept when it was saved, in another order.
        for signature in seen.keys() {
            let entry = self.entries.entry(signature.clone()).or_default();
            entry.folders.push(folder.to_path_buf());
        }
        self.totals.judged = self.totals.judged.saturating_add(1);
        self.totals.anomalous = self.totals.anomalous.saturating_add(1);
        self.totals.drawn = self.totals.drawn.max(self.totals.judged);
    }

    /// Notes that a worker's target is ready.
    pub fn ready(&mut self, id: usize, info: TargetInfo) {
        self.targets[id].info = info;
        self.was_ready[id] = true;
    }

    /// Whether a worker ever had a target that was ready.
    pub fn was_ready(&self, id: usize) -> bool {
        self.was_ready[id]
    }

    /// Notes programs that the target did not bring back.
    pub fn lose(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.totals.lost += 1;
            if self.lost.len() < LOST_MAX {
                self.lost.push(number);
            }
        }
    }

    /// Counts one verdict.
    pub fn judged(&mut self, id: usize, calls: u64, events: u64, judge_ns: u64, verdict: &Verdict) {
        let totals = &mut self.totals;
        totals.judged += 1;
        totals.calls += calls;
        totals.events += events;
        totals.judge_ns += judge_ns;
        self.targets[id].judged += 1;
        self.targets[id].calls += calls;
        match verdict {
            Verdict::Explained => totals.explained += 1,
            Verdict::Anomalous(_) => totals.anomalous += 1,
            Verdict::Inconclusive(reason) => {
                totals.inconclusive += 1;
                *totals.reasons.entry(*reason).or_default() += 1;
            }
        }
    }

    /// Counts what met in a judged run, and what was exercised by it.
    pub fn met(&mut self, meetings: &Meetings, exercised: &Exercised) {
        self.meetings.extend(meetings);
        self.exercised.extend(exercised);
    }

    /// Counts the signatures of one anomalous run, each with its sentence, and says whether it shall be kept in full; then room is set aside for it.
    pub fn wanted(&mut self, seen: &BTreeMap<Signature, String>) -> bool {
        let mut new = false;
        for (signature, sentence) in seen {
            let entry = self.entries.entry(signature.clone()).or_default();
            if entry.example.is_empty() {
                entry.example = sentence.clone();
            }
            entry.count += 1;
            new |= entry.wanted < KEPT_PER_SIGNATURE_MAX;
        }
        if !new || self.kept >= KEPT_MAX {
            return false;
        }
        self.kept += 1;
        for signature in seen.keys() {
            self.entries.entry(signature.clone()).or_default().wanted += 1;
        }
        true
    }

    /// Notes where a run was saved.
    pub fn kept(&mut self, seen: &BTreeMap<Signature, String>, folder: &Path) {
        for signature in seen.keys() {
            let entry = self.entries.entry(signature.clone()).or_default();
            if entry.folders.len() < KEPT_PER_SIGNATURE_MAX
                && !entry.folders.iter().any(|f| f == folder)
            {
                entry.folders.push(folder.to_path_buf());
            }
        }
    }

    /// What a display needs.
    pub fn snapshot(&self, seconds: f64) -> Snapshot {
        let mut kinds = BTreeMap::new();
        for (signature, entry) in &self.entries {
            *kinds.entry(signature.kind).or_default() += entry.count;
        }
        let (totals, targets) = (self.totals.clone(), self.targets.clone());
        let (signatures, search) = (self.entries.len() as u64, SearchReport::default());
        Snapshot { ready: false, seconds, totals, targets, kinds, signatures, search }
    }

    /// The report as of now.
    pub fn report(
        &self,
        config: &Config,
        store: &Store,
        seconds: f64,
        search: SearchReport,
        state: &str,
        trouble: bool,
    ) -> Report {
        let mut anomalies: Vec<SignatureReport> = self
            .entries
            .iter()
            .map(|(signature, entry)| SignatureReport {
                signature: signature.clone(),
                count: entry.count,
                example: entry.example.clone(),
                folders: entry.folders.clone(),
            })
            .collect();
        anomalies.sort_by_key(|anomaly| std::cmp::Reverse(anomaly.count));
        Report {
            schema: SCHEMA,
            pinfuzz: env!("CARGO_PKG_VERSION").into(),
            started: self.started.clone(),
            seconds,
            seed: config.seed,
            images: config.homes.iter().map(|home| home.name().to_string()).collect(),
            state: state.into(),
            trouble,
            totals: self.totals.clone(),
            search,
            targets: self.targets.clone(),
            anomalies,
            exercised: self.exercised.clone(),
            meetings: self.meetings.clone(),
            lost: self.lost.clone(),
            dir: store.dir().to_path_buf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checker::Oracle;

    #[test]
    fn every_find_that_lies_there_is_adopted() {
        let mut ledger = Ledger::new(SystemTime::UNIX_EPOCH, 1);
        let signature = Signature {
            kind: AnomalyKind::Hang,
            oracle: Oracle::Liveness,
            call: "splice".into(),
            splat: String::new(),
        };
        let seen = BTreeMap::from([(signature, "Hang".to_string())]);
        let folders: Vec<PathBuf> =
            (0..2 * KEPT_PER_SIGNATURE_MAX).map(|n| format!("anomalies/hang-{n}").into()).collect();
        folders.iter().for_each(|folder| ledger.adopt(&seen, folder));
        assert!(folders.iter().all(|folder| ledger.has(folder)));
        assert_eq!(ledger.totals.anomalous, folders.len() as u64);
        // And no further one is kept for it.
        assert!(!ledger.wanted(&seen));
    }
}
