//! One find: a program, what a kernel made of it, and why that has no explanation.
//!
//! Builds the contents of its folder; `store` writes them. Does not decide whether a find is worth keeping.

use crate::report::oracle_name;
use crate::report::timeline::{self, Marks};
use crate::target::TargetInfo;
use checker::{Anomaly, Policy, Verdict, Wait};
use history::{Event, History};
use program::{CallId, Program};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Most calls that an anomaly's "nearest" lists: those that overlap the one that saw it come first.
const NEAREST_MAX: usize = 6;
/// Most anomalies of one run that are told in words: one mistake early on makes every later read wrong.
const ANOMALIES_SHOWN_MAX: usize = 12;

/// Where a program came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Drawn by a campaign: `pinfuzz generate --seed SEED --first NUMBER` prints it again.
    Generated {
        /// The campaign's seed.
        seed: u64,
        /// Which of its programs.
        number: u64,
    },
    /// Made by a campaign out of what came before: only this find's `program.prog` has it.
    Searched {
        /// The campaign's seed.
        seed: u64,
        /// Which of its programs.
        number: u64,
        /// In which way, such as `mutation of 0123456789abcdef.prog`.
        way: String,
    },
    /// A file of the user's.
    File(String),
}

/// How to make the same target again: what `repro` reads back from `target.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// `qemu` or `fake`.
    pub target: String,
    /// As given to `--kernel`.
    pub kernel: String,
    /// The image of the guest.
    pub image: String,
    /// As given to `--mode`.
    pub mode: String,
    /// As given to `--accel`.
    pub accel: String,
    /// As given to `--bug`, where the fake had one planted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<String>,
}

/// `target.json`.
#[derive(Serialize)]
struct TargetFile<'a> {
    schema: u32,
    pinfuzz: &'static str,
    wire: u32,
    policy: &'a str,
    origin: &'a Origin,
    select: &'a Provenance,
    #[serde(flatten)]
    info: &'a TargetInfo,
}

/// Everything that is known about a run with an anomaly.
#[derive(Clone, Debug)]
pub struct Find {
    /// What was run.
    pub program: Program,
    /// What was seen.
    pub history: History,
    /// What has no explanation; empty only if judging it broke the checker.
    pub anomalies: Vec<Anomaly>,
    /// The console of the run.
    pub console: String,
    /// The target that ran it.
    pub info: TargetInfo,
    /// How to make that target again.
    pub provenance: Provenance,
    /// Where the program came from.
    pub origin: Origin,
    /// The policy that it was judged by.
    pub policy: String,
}

impl Find {
    /// The files of the find's folder, which will live at `folder`.
    pub(super) fn files(&self, folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
        let verdict = if self.anomalies.is_empty() {
            "The checker broke on this history; see the panic message of the run.\n\n".to_string()
                + &timeline::history(&self.program, &self.history, &[])
        } else {
            let policy = Policy::named(&self.policy).unwrap_or(Policy::for_release(""));
            let waits = checker::waits(&self.program, &self.history, &policy);
            let verdict = Verdict::Anomalous(self.anomalies.clone());
            explain(&self.program, &self.history, &verdict, &waits)
        };
        let verdict = format!("{verdict}\nrepeat\n  pinfuzz repro {}\n", folder.display());
        let record =
            history::Record { program: self.program.clone(), history: self.history.clone() };
        let mut files = vec![
            ("program.prog", self.program_file().into_bytes()),
            ("history.jsonl", history::record::write(&record).into_bytes()),
            ("verdict.txt", verdict.into_bytes()),
            ("console.txt", self.console.clone().into_bytes()),
            ("target.json", self.target_file().into_bytes()),
        ];
        files.push(("repeat.sh", self.repeat_file().into_bytes()));
        files
    }

    /// The program's text; the headline follows as comments, so that the file alone already says what it is about.
    fn program_file(&self) -> String {
        let mut text = self.program.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        for anomaly in &self.anomalies {
            let _ = writeln!(text, "# {}", timeline::printable(&anomaly.to_string()));
        }
        text
    }

    fn target_file(&self) -> String {
        let file = TargetFile {
            schema: super::SCHEMA,
            pinfuzz: env!("CARGO_PKG_VERSION"),
            wire: history::wire::VERSION,
            policy: &self.policy,
            origin: &self.origin,
            select: &self.provenance,
            info: &self.info,
        };
        let mut text = serde_json::to_string_pretty(&file).expect("plain data serializes");
        text.push('\n');
        text
    }

    fn repeat_file(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| "pinfuzz".into());
        let program = quote(&program.to_string_lossy());
        let origin = match &self.origin {
            Origin::Generated { seed, number } => {
                format!("# program {number} of the campaign with seed {seed:#x}\n")
            }
            Origin::Searched { seed, number, way } => {
                let way = timeline::printable(way);
                format!("# program {number} of the guided campaign with seed {seed:#x}: {way}\n")
            }
            Origin::File(path) => format!("# from {}\n", timeline::printable(path)),
        };
        format!(
            "#!/bin/sh\n# Runs this find again, on the kernel of target.json. More options: pinfuzz repro --help\n\
             {origin}exec \"${{PINFUZZ:-{program}}}\" repro \"$(dirname \"$0\")\" --runs 6 \"$@\"\n"
        )
    }
}

/// A word that is safe inside the double quotes of a shell's `${NAME:-word}`.
fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        if matches!(letter, '"' | '$' | '`' | '\\' | '}') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// The verdict on one line.
pub fn headline(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Explained => "explained: every byte, errno, signal and wait has a cause".into(),
        Verdict::Inconclusive(reason) => {
            format!("inconclusive ({reason:?}): no anomaly, but something could not be judged")
        }
        Verdict::Anomalous(anomalies) => match &anomalies[..] {
            [one] => timeline::printable(&one.to_string()),
            many => {
                let first = many.first().map_or(String::new(), Anomaly::to_string);
                format!("{} (and {} more)", timeline::printable(&first), many.len().max(1) - 1)
            }
        },
    }
}

/// The verdict in full: the anomalies in words, the program with the guilty lines marked, and the timeline with what each blocked call waited for.
pub fn explain(program: &Program, history: &History, verdict: &Verdict, waits: &[Wait]) -> String {
    let mut text = String::new();
    let mut marks = Marks::default();
    if let Verdict::Anomalous(anomalies) = verdict {
        for anomaly in anomalies.iter().take(ANOMALIES_SHOWN_MAX) {
            describe(&mut text, program, history, anomaly);
            marks.seen.extend(anomaly.call);
            marks.named.extend(named(&anomaly.sentence));
        }
        if anomalies.len() > ANOMALIES_SHOWN_MAX {
            let _ = writeln!(text, "and {} more anomalies", anomalies.len() - ANOMALIES_SHOWN_MAX);
        }
    } else {
        let _ = writeln!(text, "{}", headline(verdict));
    }
    let _ = write!(text, "\nprogram{}\n{}", marks.legend(), timeline::program(program, &marks));
    let _ = write!(text, "\ntimeline\n{}", timeline::history(program, history, waits));
    text
}

/// One anomaly: the sentence, then what a reader looks for next.
fn describe(text: &mut String, program: &Program, history: &History, anomaly: &Anomaly) {
    let _ = writeln!(text, "{}", timeline::printable(&anomaly.to_string()));
    let _ = writeln!(text, "  oracle   {}", oracle_name(anomaly.oracle));
    if let Some(path) = anomaly.path {
        let _ = writeln!(text, "  file     {}:{}", path.mount.name(), path.file_name());
    } else if let Some(mount) = anomaly.mount {
        let _ = writeln!(text, "  mount    {}", mount.name());
    }
    let Some(call) = anomaly.call else { return };
    let lines = timeline::lines(program);
    let line = |call: CallId| lines.get(usize::from(call.0)).map_or("?", String::as_str);
    let _ = writeln!(text, "  seen by  #{} {}", call.0, line(call));
    for (near, overlaps) in nearest(history, call) {
        let how = if overlaps { "at the same time" } else { "before" };
        let _ = writeln!(text, "  nearest  #{} {} ({how})", near.0, line(near));
    }
}

/// The calls that a sentence names, as in `pwrite#4`.
fn named(sentence: &str) -> impl Iterator<Item = CallId> + '_ {
    sentence.split('#').skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok().map(CallId)
    })
}

/// The calls closest to one: those whose intervals overlap its own (`true`), then those that had just returned.
fn nearest(history: &History, call: CallId) -> Vec<(CallId, bool)> {
    let mut spans: BTreeMap<CallId, (u64, u64)> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Invoke { call, seq, .. } => {
                spans.entry(*call).or_insert((*seq, u64::MAX));
            }
            Event::Return { call, seq, .. } => {
                spans.entry(*call).and_modify(|span| span.1 = *seq);
            }
            _ => {}
        }
    }
    let Some(&(begin, end)) = spans.get(&call) else { return Vec::new() };
    let others = || spans.iter().filter(|(other, _)| **other != call);
    let mut near: Vec<(CallId, bool)> = others()
        .filter(|(_, span)| span.0 <= end && span.1 >= begin)
        .map(|(other, _)| (*other, true))
        .collect();
    let mut before: Vec<_> = others().filter(|(_, span)| span.1 < begin).collect();
    before.sort_by_key(|(_, span)| std::cmp::Reverse(span.1));
    near.extend(before.into_iter().map(|(other, _)| (*other, false)));
    near.truncate(NEAREST_MAX);
    near
}
