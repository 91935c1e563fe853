//! The report of a whole run: `report.json` for programs and `report.txt` for people.
//!
//! The fields are documented in `reports/schema.md`; any change of them bumps `SCHEMA`. Does not hold finds, only where they are.

use crate::report::{Exercised, Meetings, Signature, clock};
use crate::target::{TargetInfo, TargetStats};
use checker::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Version of `report.json` and `target.json`.
pub const SCHEMA: u32 = 3;
/// Most signatures that the text lists: a screen. `report.json` has all.
const SIGNATURES_SHOWN_MAX: usize = 8;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Programs drawn from the seed.
    pub drawn: u64,
    /// Programs whose history was judged: the sum of the next three.
    pub judged: u64,
    /// Of these, explained.
    pub explained: u64,
    /// Of these, inconclusive.
    pub inconclusive: u64,
    /// Of these, anomalous.
    pub anomalous: u64,
    /// Programs that were drawn and whose history never came (infrastructure trouble, or an interrupted batch).
    pub lost: u64,
    /// Calls in the judged histories.
    pub calls: u64,
    /// Events in the judged histories.
    pub events: u64,
    /// Times that a target was started again after infrastructure trouble.
    pub retries: u64,
    /// Host nanoseconds spent in the checker.
    pub judge_ns: u64,
    /// Inconclusive verdicts by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

/// One kind of anomaly, how often it was seen, and where the kept examples are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureReport {
    /// What is counted together.
    #[serde(flatten)]
    pub signature: Signature,
    /// How many programs showed it.
    pub count: u64,
    /// The first sentence of its first example.
    pub example: String,
    /// Folders of the examples kept in full, relative to the run's folder.
    pub folders: Vec<PathBuf>,
}

/// A worker's target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// What it is.
    pub info: TargetInfo,
    /// What it did, all its incarnations together.
    pub stats: TargetStats,
    /// Programs that were judged.
    pub judged: u64,
    /// Calls in them.
    pub calls: u64,
}

/// What the programs reached, and what the search made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchReport {
    /// Whether results had a say in what ran next.
    pub guided: bool,
    /// The fuzz target.
    pub fuzz_target: String,
    /// Distinct call sites of kernels, each kernel's by itself.
    pub sites: u64,
    /// Distinct features of behaviour.
    pub behaviour: u64,
    /// Features of both kinds that reruns did not confirm.
    pub unstable: u64,
    /// Programs in the corpus.
    pub corpus: u64,
    /// Programs that were run again because they had shown something new.
    pub triages: u64,
    /// Runs that this took.
    pub reruns: u64,
    /// Seeds, and programs from the corpus' folder, that still wait for their first run.
    pub waiting: u64,
}

impl SearchReport {
    /// Such as `cov 8123 sites, 4312 behaviours, corpus 412`.
    pub fn to_words(&self) -> String {
        let mut words = String::from("cov ");
        // Kernels without KCOV show none.
        if self.sites > 0 {
            let _ = write!(words, "{} sites, ", self.sites);
        }
        let _ = write!(words, "{} behaviours", self.behaviour);
        if self.guided {
            let _ = write!(words, ", corpus {}", self.corpus);
        }
        words
    }
}

/// A run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this structure.
    pub schema: u32,
    /// Version of pinfuzz.
    pub pinfuzz: String,
    /// When the run began, UTC.
    pub started: String,
    /// Time since the first guest was ready.
    pub seconds: f64,
    /// The campaign's seed: the same seed gives the same programs.
    pub seed: u64,
    /// Home mounts, in the order in which programs take turns.
    pub images: Vec<String>,
    /// `running`, or why the run ended.
    pub state: String,
    /// Whether it ended because of trouble with machinery; what was judged before counts all the same.
    pub trouble: bool,
    /// What was counted.
    pub totals: Totals,
    /// What was reached.
    pub search: SearchReport,
    /// One entry a worker.
    pub targets: Vec<TargetReport>,
    /// Anomalies, the most frequent first.
    pub anomalies: Vec<SignatureReport>,
    /// Which forms of calls the judged programs issued, and how they ended.
    pub exercised: Exercised,
    /// What met held pages and leases in the judged programs.
    pub meetings: Meetings,
    /// Numbers of the first programs that were lost.
    pub lost: Vec<u64>,
    /// The run's folder.
    #[serde(skip)]
    pub dir: PathBuf,
}

impl Report {
    /// `report.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data serializes");
        text.push('\n');
        text
    }

    /// Reads a `report.json`.
    ///
    /// # Errors
    /// In words, where it is none, or one of another version.
    pub fn parse(text: &str) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let wrong = |error: serde_json::Error| format!("no report of a campaign: {error}");
        let Version { schema } = serde_json::from_str(text).map_err(wrong)?;
        if schema != SCHEMA {
            return Err(format!("a report of schema {schema}; this is about schema {SCHEMA}"));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// The summary that ends a campaign: what was judged on which kernel, what was found, where it is and what to do next.
    pub fn to_text(&self) -> String {
        let t = &self.totals;
        let mut text = String::new();
        let elapsed =
            clock::duration(Duration::try_from_secs_f64(self.seconds).unwrap_or_default());
        let _ = writeln!(
            text,
            "judged {} programs, {} calls in {elapsed} (seed {:#x}): {} explained, {} inconclusive, {} anomalous",
            t.judged, t.calls, self.seed, t.explained, t.inconclusive, t.anomalous
        );
        let _ = writeln!(text, "ended: {}", self.state);
        let s = &self.search;
        let triages = if s.guided {
            format!(
                ", {} triages in {} reruns, {} features unstable",
                s.triages, s.reruns, s.unstable
            )
        } else {
            ", unguided".into()
        };
        let _ = writeln!(text, "{}{triages}", s.to_words());
        for target in &self.targets {
            let TargetInfo { kernel, release, accel, mode, .. } = &target.info;
            if release.is_empty() {
                continue;
            }
            let _ = writeln!(
                text,
                "kernel {release} ({kernel}, {accel}, {mode}): {} programs, {} calls, {} in kernel calls, {} resets ({} after it went down), {} media checks",
                target.judged,
                target.calls,
                share(&target.stats),
                target.stats.resets,
                target.stats.resets_down,
                target.stats.media_checks
            );
        }
        if !t.reasons.is_empty() {
            let reasons: Vec<_> = t.reasons.iter().map(|(r, n)| format!("{r:?} {n}")).collect();
            let _ = writeln!(text, "inconclusive: {}", reasons.join(", "));
        }
        if t.lost > 0 {
            let _ = writeln!(
                text,
                "lost: {} programs whose history never came (not judged; {} retries)",
                t.lost, t.retries
            );
        }
        text += &self.exercised.to_text(&self.dir);
        text += &self.meetings.to_text();
        self.write_anomalies(&mut text);
        let _ = writeln!(text, "report: {}", self.dir.display());
        let _ = writeln!(text, "next: {}", self.next());
        text
    }

    fn write_anomalies(&self, text: &mut String) {
        for anomaly in self.anomalies.iter().take(SIGNATURES_SHOWN_MAX) {
            let _ = writeln!(text, "{:>6} x {}", anomaly.count, anomaly.signature);
            let _ = writeln!(text, "         {}", anomaly.example);
            if let Some(folder) = anomaly.folders.first() {
                let _ = writeln!(text, "         {}", self.dir.join(folder).display());
            }
        }
        if let Some(more) = self.anomalies.len().checked_sub(SIGNATURES_SHOWN_MAX + 1) {
            let _ = writeln!(text, "         and {} rarer kinds: see report.json", more + 1);
        }
    }

    fn next(&self) -> String {
        let first = self.anomalies.iter().find_map(|anomaly| anomaly.folders.first());
        match first {
            Some(folder) => {
                let folder = self.dir.join(folder);
                format!(
                    "read {0}/verdict.txt, then run `pinfuzz repro {0}` to see how often it happens again",
                    folder.display()
                )
            }
            None if self.trouble => "`pinfuzz doctor` checks this machine".into(),
            None if self.totals.judged == 0 => {
                "nothing was judged, so nothing is known: give it more time with `--time 10m`".into()
            }
            None => "nothing found: run longer (`--time 1h`), with another `--seed`, or on another `--kernel`".into(),
        }
    }
}

/// The share of guest time that was spent inside kernel calls, such as `43%`.
pub fn share(stats: &TargetStats) -> String {
    match stats.kernel_ns.saturating_mul(100).checked_div(stats.busy_ns) {
        Some(percent) => format!("{}%", percent.min(100)),
        None => "-".into(),
    }
}
