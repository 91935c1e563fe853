//! The corpus: programs that show something that others do not, and which of them is worth changing next.
//!
//! In memory and bounded. Files are the campaign's matter.

use super::seen::Key;
use crate::report::hash;
use program::Program;
use rand_chacha::rand_core::RngCore;
use std::collections::BTreeMap;

/// Most programs.
const PROGRAMS_MAX: usize = 4096;
/// Most features over all programs: 64 MiB.
const HELD_MAX: usize = 16 << 20;
/// After this part of the corpus is new, all scores are worked out anew; a score that is a little old does no harm.
const REFRESH_PART: usize = 32;
/// How much sooner a program is picked that never was: five times as often, and ever less with each pick.
const NOVELTY: f64 = 4.0;
/// Least weight of a program, as a part of the mean: none is forgotten.
const FLOOR: f64 = 0.1;

/// The name of a program in a corpus: a hash of its text.
pub fn name(program: &Program) -> u64 {
    hash(program.to_string().as_bytes())
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lines of the program.
    pub lines: u32,
    /// Guest time.
    pub ns: u64,
}

#[derive(Debug)]
struct Entry {
    program: Program,
    name: u64,
    /// What it shows, as indices into `holders`.
    features: Vec<u32>,
    cost: Cost,
    picked: u32,
    /// How rare what it shows is, and how cheap it is.
    score: f64,
}

/// The corpus.
#[derive(Debug)]
pub(super) struct Corpus {
    /// Most programs, and most features over all of them.
    limits: (usize, usize),
    entries: Vec<Entry>,
    indices: BTreeMap<Key, u32>,
    /// How many programs show each feature.
    holders: Vec<u32>,
    /// Features over all programs.
    held: usize,
    lines: u64,
    ns: u64,
    since_refresh: usize,
}

impl Default for Corpus {
    fn default() -> Corpus {
        Corpus::new(PROGRAMS_MAX, HELD_MAX)
    }
}

impl Corpus {
    fn new(programs_max: usize, held_max: usize) -> Corpus {
        Corpus {
            limits: (programs_max, held_max),
            entries: Vec::new(),
            indices: BTreeMap::new(),
            holders: Vec::new(),
            held: 0,
            lines: 0,
            ns: 0,
            since_refresh: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a program and makes room for it.
    pub fn add(&mut self, program: Program, name: u64, shows: &[Key], cost: Cost) {
        if self.entries.iter().any(|entry| entry.name == name) {
            return;
        }
        let mut features = Vec::with_capacity(shows.len());
        for key in shows {
            let new = self.holders.len() as u32;
            let index = *self.indices.entry(*key).or_insert(new);
            if index == new {
                self.holders.push(0);
            }
            self.holders[index as usize] += 1;
            features.push(index);
        }
        self.held += features.len();
        self.lines += u64::from(cost.lines);
        self.ns = self.ns.saturating_add(cost.ns);
        let mut entry = Entry { program, name, features, cost, picked: 0, score: 0.0 };
        entry.score = self.score(&entry);
        self.entries.push(entry);
        while self.entries.len() > self.limits.0 || self.held > self.limits.1 {
            self.refresh();
            self.evict();
        }
        self.since_refresh += 1;
        if self.since_refresh * REFRESH_PART >= self.entries.len() {
            self.refresh();
        }
    }

    /// A program that is worth changing, and its name.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick(&mut self, rng: &mut impl RngCore) -> (Program, u64) {
        let weight = |e: &Entry| e.score * (1.0 + NOVELTY / (1.0 + f64::from(e.picked)));
        let sum: f64 = self.entries.iter().map(weight).sum();
        let floor = FLOOR * sum / self.entries.len() as f64;
        let weights = || self.entries.iter().map(|e| weight(e).max(floor));
        let mut at = f64::from(rng.next_u32()) / f64::from(u32::MAX) * weights().sum::<f64>();
        let chosen = weights().position(|weight| {
            at -= weight;
            at <= 0.0
        });
        let last = self.entries.len() - 1;
        let entry = &mut self.entries[chosen.unwrap_or(last)];
        entry.picked = entry.picked.saturating_add(1);
        (entry.program.clone(), entry.name)
    }

    /// Rare features make a program worth more, and what it costs beyond the average makes it worth less: by at most a half for its
    /// length and as much for its time, so that what is slow by nature is still tried.
    fn score(&self, entry: &Entry) -> f64 {
        let share = |index: &u32| 1.0 / f64::from(self.holders[*index as usize].max(1));
        let rarity: f64 = entry.features.iter().map(share).sum();
        let count = (self.entries.len() as u64).max(1) as f64;
        let over = |cost: f64, sum: f64| (cost * count / sum.max(1.0)).clamp(0.25, 4.0);
        let lines = over(f64::from(entry.cost.lines), self.lines as f64);
        let time = over(entry.cost.ns as f64, self.ns as f64);
        rarity / (1.0 + lines / 2.0 + time / 2.0)
    }

    fn refresh(&mut self) {
        self.since_refresh = 0;
        let scores: Vec<f64> = self.entries.iter().map(|entry| self.score(entry)).collect();
        for (entry, score) in self.entries.iter_mut().zip(scores) {
            entry.score = score;
        }
    }

    /// Removes the program that will be missed least: one whose every feature another one shows too, if there is any.
    fn evict(&mut self) {
        let spare = |e: &Entry| e.features.iter().all(|index| self.holders[*index as usize] > 1);
        let least = self
            .entries
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| spare(b).cmp(&spare(a)).then(a.score.total_cmp(&b.score)));
        let Some(at) = least.map(|(at, _)| at) else { return };
        let entry = self.entries.remove(at);
        for index in &entry.features {
            self.holders[*index as usize] -= 1;
        }
        self.held -= entry.features.len();
        self.lines -= u64::from(entry.cost.lines);
        self.ns = self.ns.saturating_sub(entry.cost.ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::search::seen::Kernel;
    use crate::coverage::Feature;
    use program::Mount;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use std::collections::BTreeSet;

    const CHEAP: Cost = Cost { lines: 5, ns: 1000 };

    fn add(corpus: &mut Corpus, name: u64, shows: &[u32], cost: Cost) {
        let key = |pc: &u32| Key::new(Feature::site(*pc), Kernel::default());
        let keys: Vec<Key> = shows.iter().map(key).collect();
        corpus.add(Program::from_seed(name, Mount::Xfs), name, &keys, cost);
    }

    fn names(corpus: &Corpus) -> BTreeSet<u64> {
        corpus.entries.iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn what_is_evicted_shows_nothing_that_others_do_not() {
        let mut corpus = Corpus::new(3, 100);
        add(&mut corpus, 1, &[1, 2], CHEAP);
        add(&mut corpus, 2, &[3], CHEAP);
        add(&mut corpus, 3, &[4, 5, 6], CHEAP);
        add(&mut corpus, 4, &[1, 2, 7], CHEAP);
        assert_eq!(names(&corpus), [2, 3, 4].into());
        assert_eq!(corpus.held, 7);
        // The same program again is the same program.
        add(&mut corpus, 4, &[1, 2, 7], CHEAP);
        assert_eq!(corpus.len(), 3);
    }

    #[test]
    fn memory_is_bounded_even_if_everything_is_rare() {
        let mut corpus = Corpus::new(1000, 10);
        for name in 0..100 {
            let first = name as u32 * 3;
            add(&mut corpus, name, &[first, first + 1, first + 2], CHEAP);
            assert!(corpus.held <= 10);
        }
        assert_eq!(corpus.len(), 3);
    }

    #[test]
    fn rare_and_cheap_programs_are_picked_more_often_and_none_never() {
        let mut corpus = Corpus::default();
        for name in 0..10 {
            add(&mut corpus, name, &[0, 1, 2], CHEAP);
        }
        add(&mut corpus, 10, &[0, 10, 11, 12], CHEAP);
        add(&mut corpus, 11, &[0, 20, 21, 22], Cost { lines: 60, ns: 1_000_000 });
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0; 12];
        for _ in 0..5000 {
            counts[corpus.pick(&mut rng).1 as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
        assert!(counts[..10].iter().all(|count| counts[10] > 3 * count), "{counts:?}");
        assert!(counts[10] > counts[11] * 3 / 2, "{counts:?}");
    }
}
