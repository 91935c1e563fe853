//! Which features are stable enough to be counted: what shows for the first time must show again.
//!
//! libFuzzer believes that an input always does the same. A kernel does not: a journal commits when it is time, a page is reclaimed. An
//! input that was kept for such a feature is kept for nothing, and a merge drops or keeps others for it. So a run with a feature that nobody
//! knows is repeated, and the feature counts if most of the runs show it. What is known already is believed: it makes no input interesting, and
//! repeating every run would cost as much as all the rest.
//!
//! The table lives as long as the process. A merge runs each input once in a process, in a fixed order, and so gets the same answers as long as the
//! kernel does.

use harness::coverage::Feature;
use std::collections::BTreeMap;

/// Runs of an input that shows something new.
pub(crate) const RUNS: usize = 3;
/// In how many of them a feature must show.
const NEEDED: usize = 2;
/// How often a feature may fail before it is never counted again: whatever comes and goes would have every other run repeated.
const FAILURES_MAX: u8 = 3;

/// What is known of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Showed reliably once.
    Stable,
    /// Came and went, in so many inputs.
    Unstable(u8),
}

/// What is known of all features.
#[derive(Debug, Default)]
pub(crate) struct Trust(BTreeMap<Feature, Standing>);

impl Trust {
    /// The features of an input that count. `again` runs it once more.
    pub(crate) fn settle(
        &mut self,
        first: Vec<Feature>,
        mut again: impl FnMut() -> Vec<Feature>,
    ) -> Vec<Feature> {
        if !first.iter().any(|feature| self.is_open(*feature)) {
            return first
                .into_iter()
                .filter(|f| self.0.get(f) == Some(&Standing::Stable))
                .collect();
        }
        let mut seen: BTreeMap<Feature, usize> = BTreeMap::new();
        for run in std::iter::once(first).chain((1..RUNS).map(|_| again())) {
            run.into_iter().for_each(|feature| *seen.entry(feature).or_default() += 1);
        }
        for (feature, runs) in &seen {
            if !self.is_open(*feature) {
                continue;
            }
            let standing = self.0.entry(*feature).or_insert(Standing::Unstable(0));
            match standing {
                _ if *runs >= NEEDED => *standing = Standing::Stable,
                Standing::Unstable(failures) => *failures += 1,
                Standing::Stable => {}
            }
        }
        let stable = |feature: &Feature| self.0.get(feature) == Some(&Standing::Stable);
        seen.into_iter().filter(|(f, runs)| *runs >= NEEDED && stable(f)).map(|(f, _)| f).collect()
    }

    /// Whether more has to be known of a feature.
    fn is_open(&self, feature: Feature) -> bool {
        match self.0.get(&feature) {
            None => true,
            Some(Standing::Stable) => false,
            Some(Standing::Unstable(failures)) => *failures < FAILURES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(pcs: &[u32]) -> Vec<Feature> {
        pcs.iter().map(|pc| Feature::site(*pc)).collect()
    }

    /// Settles an input whose runs show these, and says how many runs that took.
    fn settle(trust: &mut Trust, runs: [&[u32]; RUNS]) -> (Vec<Feature>, usize) {
        let mut next = 1;
        let counted = trust.settle(sites(runs[0]), || {
            next += 1;
            sites(runs[next - 1])
        });
        (counted, next)
    }

    #[test]
    fn what_shows_again_counts_and_is_believed_from_then_on() {
        let mut trust = Trust::default();
        assert_eq!(settle(&mut trust, [&[1, 2], &[1], &[1, 2]]), (sites(&[1, 2]), 3));
        assert_eq!(settle(&mut trust, [&[1], &[], &[]]), (sites(&[1]), 1));
        // It may show late, and what is known is not counted where most runs lack it.
        assert_eq!(settle(&mut trust, [&[1, 3], &[3, 4], &[3, 4]]), (sites(&[3, 4]), 3));
    }

    #[test]
    fn what_comes_and_goes_does_not_count_and_is_given_up() {
        let mut trust = Trust::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(settle(&mut trust, [&[1, 9], &[1], &[1]]), (sites(&[1]), 3));
        }
        assert_eq!(settle(&mut trust, [&[1, 9], &[1, 9], &[1, 9]]), (sites(&[1]), 1));
    }

    #[test]
    fn what_failed_once_may_still_prove_stable() {
        let mut trust = Trust::default();
        settle(&mut trust, [&[9], &[], &[]]);
        assert_eq!(settle(&mut trust, [&[9], &[9], &[]]), (sites(&[9]), 3));
        assert_eq!(settle(&mut trust, [&[9], &[], &[]]), (sites(&[9]), 1));
    }
}
