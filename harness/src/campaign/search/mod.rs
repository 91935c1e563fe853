//! Which program runs next, from what the ones before it showed.
//!
//! ```text
//! next ◀── reruns of a candidate · seeds · new programs · mutations and crosses of the corpus
//! done ──▶ something new? ──▶ candidate ──▶ reruns ──▶ stable? ──▶ corpus
//! ```
//! Pure: no thread, no file, no clock. The same seed and the same results in the same order give the same programs. Does not judge: a
//! find is a find wherever its program came from, and no verdict depends on what is decided here.
//!
//! An unguided search draws program `k` from the seed and `k` alone and keeps no corpus, but counts like the others, so that both can
//! be compared.

mod corpus;
mod mixture;
mod seen;
mod triage;

#[cfg(test)]
mod tests;

pub use corpus::{Cost, name};
pub use seen::{Kernel, Reached};

use crate::campaign::seeds;
use crate::coverage::Feature;
use arbitrary::Unstructured;
use corpus::Corpus;
use mixture::{Arm, Mixture};
use program::{Mount, Program, Vocabulary};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use seen::{Key, Seen, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use triage::Triage;

/// Bytes of entropy for one change of a program: as many as a whole new one has, so that none is made without.
const CHANGE_BYTES: usize = 4 << 10;
/// A mutation has 1, 2, 4, 8 or 16 rounds of one to four steps, each as likely. A program has some twenty lines, and one that differs in a
/// step or two mostly does the same again: with one round in the mean, mutations brought a third of what new programs did.
const ROUNDS: [u32; 5] = [1, 2, 4, 8, 16];
/// Programs of other kinds that are drawn for each rerun. In the beginning nearly every program shows something new, and running each of
/// them again would cost half of all programs; the candidates with the most at stake come first, and what the others show is seen again.
const RERUN_PRICE: u32 = 8;
/// Programs whose reruns may be saved up.
const RERUN_CREDIT_MAX: u32 = 4 * RERUN_PRICE;
/// Most programs that wait to be run for the first time, such as those of other campaigns; further ones are left where they are.
const WAITING_MAX: usize = 1 << 15;

/// What a search is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The campaign's seed.
    pub seed: u64,
    /// Home mounts; new programs take turns, and changed ones stay on them.
    pub homes: Vec<Mount>,
    /// What programs may say.
    pub vocabulary: Vocabulary,
    /// Whether results have a say.
    pub guided: bool,
    /// The number of the first program: not 0 where a campaign goes on, which must not make the same choices again.
    pub first: u64,
}

/// Where a program came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the seed and its number alone.
    Generated,
    /// From a file.
    Seed(String),
    /// A program of the corpus, by its name, with changes.
    Mutated(u64),
    /// Of two programs of the corpus.
    Crossed(u64, u64),
    /// Again, to see whether what it showed was chance.
    Rerun,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Generated => write!(f, "generated"),
            Way::Seed(file) => write!(f, "seed {file}"),
            Way::Mutated(of) => write!(f, "mutation of {of:016x}.prog"),
            Way::Crossed(one, other) => write!(f, "cross of {one:016x}.prog and {other:016x}.prog"),
            Way::Rerun => write!(f, "rerun"),
        }
    }
}

/// What came of a run, as far as the search is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Everything that it showed.
    pub features: &'a [Feature],
    /// Whether it took its guest with it. Such a program is for the judge: in the corpus, its offspring would cost a guest each.
    pub spoiled: bool,
    /// What it cost.
    pub cost: Cost,
}

/// A program that runs, or waits to.
#[derive(Debug)]
struct Seed {
    file: String,
    program: Program,
    lost: bool,
}

/// A program whose result is awaited.
#[derive(Debug)]
enum Flight {
    Drawn(Arm),
    Seed(Box<Seed>),
    Rerun(u64),
}

/// What the search has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct call sites, each kernel's by itself.
    pub sites: u64,
    /// Distinct features of behaviour.
    pub behaviour: u64,
    /// Features of both kinds that reruns did not confirm.
    pub unstable: u64,
    /// Programs in the corpus.
    pub corpus: u64,
    /// Programs whose triage is over.
    pub triages: u64,
    /// Reruns that were drawn.
    pub reruns: u64,
    /// Seeds and programs of others that wait for their first run.
    pub waiting: u64,
}

/// The search.
#[derive(Debug)]
pub struct Search {
    settings: Settings,
    rng: ChaCha8Rng,
    seen: Seen,
    corpus: Corpus,
    triage: Triage,
    mixture: Mixture,
    waiting: VecDeque<Seed>,
    /// Names of all programs that were ever offered or admitted: none needs to be offered twice.
    known: BTreeSet<u64>,
    flying: BTreeMap<u64, Flight>,
    credit: u32,
    reruns: u64,
}

impl Search {
    /// A search that knows nothing yet.
    pub fn new(settings: Settings) -> Search {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(settings.first);
        Search {
            settings,
            rng,
            seen: Seen::default(),
            corpus: Corpus::default(),
            triage: Triage::default(),
            mixture: Mixture::default(),
            waiting: VecDeque::new(),
            known: BTreeSet::new(),
            flying: BTreeMap::new(),
            credit: 0,
            reruns: 0,
        }
    }

    /// What an earlier part of the campaign reached: it counts, but its programs have to show it again.
    pub fn remember(&mut self, reached: impl IntoIterator<Item = Reached>) {
        reached.into_iter().for_each(|one| self.seen.remember(one));
    }

    /// The kernel that a target runs. Call sites are addresses, so each kernel has its own; behaviour is common to all, for what another
    /// kernel does otherwise is another feature anyway.
    pub fn kernel(&mut self, name: &str) -> Kernel {
        self.seen.kernel(name)
    }

    /// What was reached since this was last asked, in the order in which it was.
    pub fn news(&mut self) -> Vec<Reached> {
        self.seen.news()
    }

    /// Offers a program from a file, to be run before anything new. Returns whether it was not known yet.
    pub fn offer(&mut self, file: &str, mut program: Program) -> bool {
        program.fixup();
        if !self.settings.vocabulary.admits(&program) {
            program.confine(&self.settings.vocabulary);
        }
        if !self.settings.guided
            || self.waiting.len() >= WAITING_MAX
            || !self.known.insert(name(&program))
        {
            return false;
        }
        self.waiting.push_back(Seed { file: file.into(), program, lost: false });
        true
    }

    /// Whether a program of that name was offered or admitted.
    pub fn knows(&self, name: u64) -> bool {
        self.known.contains(&name)
    }

    /// The program with this number, for a guest with this kernel.
    pub fn next(&mut self, number: u64, kernel: Kernel) -> (Program, Way) {
        if !self.settings.guided {
            return (self.generated(number), Way::Generated);
        }
        if self.credit >= RERUN_PRICE
            && let Some((candidate, program)) = self.triage.draw(kernel)
        {
            self.credit -= RERUN_PRICE;
            self.reruns = self.reruns.saturating_add(1);
            self.flying.insert(number, Flight::Rerun(candidate));
            return (program, Way::Rerun);
        }
        self.credit = (self.credit + 1).min(RERUN_CREDIT_MAX);
        if let Some(seed) = self.waiting.pop_front() {
            let way = Way::Seed(seed.file.clone());
            let program = self.at_home(seed.program.clone());
            self.flying.insert(number, Flight::Seed(Box::new(seed)));
            return (program, way);
        }
        let arm =
            if self.corpus.is_empty() { Arm::Generated } else { self.mixture.draw(&mut self.rng) };
        self.flying.insert(number, Flight::Drawn(arm));
        match arm {
            Arm::Generated => (self.generated(number), Way::Generated),
            Arm::Mutated => self.mutated(),
            Arm::Crossed => self.crossed(),
        }
    }

    /// Takes the result of a run. Returns the program, with its name, if it enters the corpus with this.
    pub fn done(
        &mut self,
        number: u64,
        kernel: Kernel,
        program: &Program,
        run: Run<'_>,
    ) -> Option<(Program, u64)> {
        let first_seen = run.features.iter().filter(|f| self.seen.see(**f, kernel)).count();
        if !self.settings.guided {
            return None;
        }
        let keys: Vec<Key> = run.features.iter().map(|f| Key::new(*f, kernel)).collect();
        // A number that nobody is waiting for is that of a program that was given up as lost: what it showed is counted.
        match self.flying.remove(&number)? {
            Flight::Rerun(candidate) => return self.rerun(candidate, &keys, run),
            Flight::Drawn(arm) => self.mixture.reward(arm, run.cost.ns, first_seen),
            Flight::Seed(_) => {}
        }
        if !run.spoiled {
            let news = keys.iter().copied().filter(|key| self.seen.state(*key) == State::Loose);
            let news: BTreeSet<Key> = news.collect();
            if !news.is_empty() && !self.triage.is_full() {
                news.iter().for_each(|key| self.seen.set(*key, State::Pending));
                self.triage.open(program.clone(), kernel, news, &keys, run.cost);
            }
        }
        None
    }

    /// Notes that the result of a program will not come.
    pub fn lost(&mut self, number: u64) {
        match self.flying.remove(&number) {
            Some(Flight::Seed(mut seed)) if !seed.lost => {
                // Once more: somebody wrote it, or a campaign took pains to find it. Twice may not be chance.
                seed.lost = true;
                self.waiting.push_front(*seed);
            }
            Some(Flight::Rerun(candidate)) => {
                if let Some(candidate) = self.triage.lost(candidate) {
                    self.release(&candidate.news);
                }
            }
            Some(Flight::Seed(_) | Flight::Drawn(_)) | None => {}
        }
    }

    /// The counts as of now.
    pub fn counts(&self) -> Counts {
        let (sites, behaviour, unstable) = self.seen.counts();
        Counts {
            sites,
            behaviour,
            unstable,
            corpus: self.corpus.len() as u64,
            triages: self.triage.over(),
            reruns: self.reruns,
            waiting: self.waiting.len() as u64,
        }
    }

    /// The result of a rerun.
    fn rerun(&mut self, id: u64, keys: &[Key], run: Run<'_>) -> Option<(Program, u64)> {
        if run.spoiled {
            let news = self.triage.drop(id)?.news;
            self.release(&news);
            return None;
        }
        let candidate = self.triage.result(id, keys)?;
        let stable = candidate.stable();
        let mut gained = false;
        for key in &stable {
            gained |= self.seen.state(*key) != State::Stable;
            self.seen.set(*key, State::Stable);
        }
        for key in candidate.unstable() {
            if self.seen.state(key) != State::Stable {
                self.seen.set(key, State::Unstable);
            }
        }
        // What others were in triage for may be settled with this.
        let seen = &self.seen;
        self.triage.settle(|key| seen.state(key) == State::Pending);
        if !gained {
            return None;
        }
        let name = name(&candidate.program);
        self.known.insert(name);
        self.corpus.add(candidate.program.clone(), name, &stable, candidate.cost);
        Some((candidate.program, name))
    }

    /// Whoever shows these next is triaged for them.
    fn release(&mut self, news: &BTreeSet<Key>) {
        for key in news {
            if self.seen.state(*key) == State::Pending {
                self.seen.set(*key, State::Loose);
            }
        }
    }

    fn generated(&self, number: u64) -> Program {
        let Settings { seed, homes, vocabulary, .. } = &self.settings;
        seeds::program_with(*seed, number, homes, vocabulary)
    }

    fn mutated(&mut self) -> (Program, Way) {
        let (mut program, name) = self.corpus.pick(&mut self.rng);
        let rounds = ROUNDS[self.rng.next_u32() as usize % ROUNDS.len()];
        for _ in 0..rounds {
            let bytes = self.entropy();
            program.mutate_with(&mut Unstructured::new(&bytes), &self.settings.vocabulary);
        }
        (self.at_home(program), Way::Mutated(name))
    }

    fn crossed(&mut self) -> (Program, Way) {
        let (one, name) = self.corpus.pick(&mut self.rng);
        let (other, other_name) = self.corpus.pick(&mut self.rng);
        let bytes = self.entropy();
        let u = &mut Unstructured::new(&bytes);
        let program = one.crossover_with(&other, u, &self.settings.vocabulary);
        (self.at_home(program), Way::Crossed(name, other_name))
    }

    fn entropy(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; CHANGE_BYTES];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Brings a program back that has strayed from the homes of the campaign.
    fn at_home(&mut self, mut program: Program) -> Program {
        let homes = &self.settings.homes;
        if !homes.contains(&program.home) {
            program.home = homes[self.rng.next_u32() as usize % homes.len()];
            program.fixup();
        }
        program
    }
}
