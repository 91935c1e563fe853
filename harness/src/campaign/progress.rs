//! `progress.jsonl`: what was reached by when, one line every few seconds, to compare campaigns by.

use crate::campaign::Snapshot;
use serde::Serialize;

/// The file's name in the run's folder.
pub(super) const FILE: &str = "progress.jsonl";

/// One line; described in `reports/schema.md`.
#[derive(Serialize)]
struct Line {
    seconds: f64,
    programs: u64,
    calls: u64,
    sites: u64,
    behaviour: u64,
    unstable: u64,
    corpus: u64,
    triages: u64,
    reruns: u64,
    anomalous: u64,
    signatures: u64,
}

/// The line for what there is now.
pub(super) fn line(now: &Snapshot) -> String {
    let (totals, search) = (&now.totals, &now.search);
    let line = Line {
        // Milliseconds are plenty.
        seconds: (now.seconds * 1000.0).round() / 1000.0,
        programs: totals.judged,
        calls: totals.calls,
        sites: search.sites,
        behaviour: search.behaviour,
        unstable: search.unstable,
        corpus: search.corpus,
        triages: search.triages,
        reruns: search.reruns,
        anomalous: totals.anomalous,
        signatures: now.signatures,
    };
    let mut text = serde_json::to_string(&line).expect("plain data serializes");
    text.push('\n');
    text
}
