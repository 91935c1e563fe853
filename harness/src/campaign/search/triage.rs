//! Triage: runs a program that showed something new again, to tell what it does from what happened to happen.
//!
//! Does not know what is new: `seen` does. Reruns are programs of the campaign like all others, and judged.

use super::corpus::Cost;
use super::seen::{Kernel, Key};
use program::Program;
use std::collections::{BTreeMap, BTreeSet};

/// Most runs of a candidate, the first included.
const RUNS_MAX: u8 = 4;
/// Runs that must show a feature. Two tell chance from habit for half the price of three; a feature that is noise and gets through costs one place
/// in the corpus, which its next eviction gives back.
const RUNS_MIN: u8 = 2;
/// Most candidates at a time. What else is new while so many wait is seen again later, if it is worth anything.
const CANDIDATES_MAX: usize = 256;
/// Runs of a candidate that may be lost before it is given up: it may be what breaks the machinery.
const LOST_MAX: u8 = 2;

/// A program that showed something new.
#[derive(Debug)]
pub(super) struct Candidate {
    pub program: Program,
    pub cost: Cost,
    /// What is at stake: features that were new when it first showed them, and are not settled.
    pub news: BTreeSet<Key>,
    kernel: Kernel,
    /// In how many of its runs each feature was seen.
    shown: BTreeMap<Key, u8>,
    runs: u8,
    flying: u8,
    lost: u8,
}

impl Candidate {
    fn shown(&self, key: Key) -> u8 {
        self.shown.get(&key).copied().unwrap_or(0)
    }

    fn take(&mut self, keys: &[Key]) {
        self.runs = self.runs.saturating_add(1);
        for key in keys {
            let count = self.shown.entry(*key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Whether further runs could not change what is said of what is at stake.
    fn is_decided(&self) -> bool {
        let left = RUNS_MAX.saturating_sub(self.runs);
        let decided = |key: &Key| {
            let shown = self.shown(*key);
            shown >= RUNS_MIN || shown + left < RUNS_MIN
        };
        self.news.iter().all(decided)
    }

    /// Whether another run should be started now: as many at once as are needed in any case, then one at a time.
    fn wants_run(&self) -> bool {
        self.runs + self.flying < RUNS_MIN.max(self.runs + 1)
    }

    /// Everything that it shows again and again, new or not.
    pub fn stable(&self) -> Vec<Key> {
        self.shown.iter().filter(|(_, count)| **count >= RUNS_MIN).map(|(key, _)| *key).collect()
    }

    /// What was at stake and did not come again often enough; and what else showed now and then, if all runs were made.
    pub fn unstable(&self) -> Vec<Key> {
        let all = self.runs >= RUNS_MAX;
        let rare = self.shown.iter().filter(|(_, count)| **count < RUNS_MIN).map(|(key, _)| *key);
        rare.filter(|key| all || self.news.contains(key)).collect()
    }
}

/// All candidates.
#[derive(Debug, Default)]
pub(super) struct Triage {
    candidates: BTreeMap<u64, Candidate>,
    opened: u64,
    over: u64,
}

impl Triage {
    pub fn is_full(&self) -> bool {
        self.candidates.len() >= CANDIDATES_MAX
    }

    /// Triages that are over, however they ended.
    pub fn over(&self) -> u64 {
        self.over
    }

    /// A new candidate, after its first run.
    pub fn open(
        &mut self,
        program: Program,
        kernel: Kernel,
        news: BTreeSet<Key>,
        keys: &[Key],
        cost: Cost,
    ) {
        let shown = BTreeMap::new();
        let mut candidate =
            Candidate { program, cost, news, kernel, shown, runs: 0, flying: 0, lost: 0 };
        candidate.take(keys);
        self.candidates.insert(self.opened, candidate);
        self.opened += 1;
    }

    /// A candidate that is to be run again on this kernel: the one with the most at stake.
    pub fn draw(&mut self, kernel: Kernel) -> Option<(u64, Program)> {
        let wanting =
            self.candidates.iter_mut().filter(|(_, c)| c.kernel == kernel && c.wants_run());
        // Of equals, the oldest.
        let (id, best) = wanting.rev().max_by_key(|(_, c)| c.news.len())?;
        best.flying += 1;
        Some((*id, best.program.clone()))
    }

    /// Takes a rerun's features; returns the candidate once it is decided.
    pub fn result(&mut self, id: u64, keys: &[Key]) -> Option<Candidate> {
        let candidate = self.candidates.get_mut(&id)?;
        candidate.flying = candidate.flying.saturating_sub(1);
        candidate.take(keys);
        if candidate.is_decided() { self.drop(id) } else { None }
    }

    /// A rerun was lost; returns the candidate if it is given up for that.
    pub fn lost(&mut self, id: u64) -> Option<Candidate> {
        let candidate = self.candidates.get_mut(&id)?;
        candidate.flying = candidate.flying.saturating_sub(1);
        candidate.lost += 1;
        if candidate.lost >= LOST_MAX { self.drop(id) } else { None }
    }

    /// Ends a triage.
    pub fn drop(&mut self, id: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&id)?;
        self.over = self.over.saturating_add(1);
        Some(candidate)
    }

    /// Takes from every candidate what is no longer at stake, and ends the triage of those for whom nothing is left.
    pub fn settle(&mut self, at_stake: impl Fn(Key) -> bool) {
        self.candidates.retain(|_, candidate| {
            candidate.news.retain(|key| at_stake(*key));
            let goes_on = !candidate.news.is_empty();
            self.over = self.over.saturating_add(u64::from(!goes_on));
            goes_on
        });
    }
}
