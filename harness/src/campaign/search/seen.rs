//! Every feature that any run has shown, and what became of it.
//!
//! Does not know programs. Bounded: a kernel has some hundred thousand call sites, and behaviour is made of small numbers.

use crate::coverage::Feature;
use std::collections::BTreeMap;

/// Most features that are told apart: 50 MiB of memory. What comes after is not counted, and steers nothing.
const FEATURES_MAX: usize = 1 << 20;
/// Where the kernel's index stands in the key of a call site; above its 32 bits of address.
const KERNEL_SHIFT: u32 = 32;

/// A kernel among those of a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel(u16);

/// A feature, with its kernel if it is a call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

impl Key {
    pub fn new(feature: Feature, kernel: Kernel) -> Key {
        match feature.as_site() {
            Some(pc) => Key(u64::from(kernel.0) << KERNEL_SHIFT | u64::from(pc)),
            None => Key(feature.number()),
        }
    }
}

/// What became of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Seen, and never in a triage: whoever shows it is a candidate.
    Loose,
    /// A candidate is in triage for it.
    Pending,
    /// A triage did not confirm it. It makes no candidate; another program's triage may still confirm it.
    Unstable,
    /// A program of the corpus shows it again and again.
    Stable,
}

/// Something that was reached, in words that outlive the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// A call site of the kernel of this name.
    Site(String, u32),
    /// Behaviour, by its number.
    Behaviour(u64),
}

/// All features.
#[derive(Debug, Default)]
pub(super) struct Seen {
    states: BTreeMap<Key, State>,
    kernels: Vec<String>,
    sites: u64,
    behaviour: u64,
    unstable: u64,
    news: Vec<(Feature, Kernel)>,
}

impl Seen {
    pub fn kernel(&mut self, name: &str) -> Kernel {
        let at = self.kernels.iter().position(|known| known == name).unwrap_or_else(|| {
            self.kernels.push(name.into());
            self.kernels.len() - 1
        });
        // A campaign has at most as many kernels as workers.
        Kernel(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// Notes a feature; returns whether it was never seen before.
    pub fn see(&mut self, feature: Feature, kernel: Kernel) -> bool {
        let key = Key::new(feature, kernel);
        if self.states.contains_key(&key) || self.states.len() >= FEATURES_MAX {
            return false;
        }
        self.states.insert(key, State::Loose);
        match feature.as_site() {
            Some(_) => self.sites += 1,
            None => self.behaviour += 1,
        }
        self.news.push((feature, kernel));
        true
    }

    pub fn remember(&mut self, reached: Reached) {
        let (feature, kernel) = match reached {
            Reached::Site(name, pc) => (Feature::site(pc), self.kernel(&name)),
            Reached::Behaviour(number) => (Feature::behaviour(number), Kernel::default()),
        };
        self.see(feature, kernel);
        self.news.clear();
    }

    pub fn news(&mut self) -> Vec<Reached> {
        let news = std::mem::take(&mut self.news);
        let words = news.into_iter().map(|(feature, kernel)| match feature.as_site() {
            Some(pc) => Reached::Site(self.kernels[usize::from(kernel.0)].clone(), pc),
            None => Reached::Behaviour(feature.number()),
        });
        words.collect()
    }

    /// What became of a feature. One that is too much for the memory is taken for unstable, and steers nothing.
    pub fn state(&self, key: Key) -> State {
        self.states.get(&key).copied().unwrap_or(State::Unstable)
    }

    pub fn set(&mut self, key: Key, state: State) {
        if let Some(old) = self.states.get_mut(&key) {
            self.unstable -= u64::from(*old == State::Unstable);
            self.unstable += u64::from(state == State::Unstable);
            *old = state;
        }
    }

    /// Call sites, behaviour, and how much of both is unstable.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.sites, self.behaviour, self.unstable)
    }
}
