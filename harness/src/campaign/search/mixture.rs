//! How often a new program is drawn, and how often one of the corpus is changed or crossed with another.
//!
//! Each arm gets the larger a share, the more first sights it brought lately for the guest's time; none falls below a floor. In the beginning every
//! new program shows something, and changing those at hand would be a waste; later it is the other way round. Where that turns depends on
//! kernel and vocabulary, so it is measured, not set. Time counts, since changed programs wait more often than new ones: a step may take
//! away what a call relied on.

use rand_chacha::rand_core::RngCore;

/// Ways to make a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    /// From the seed.
    Generated,
    /// A change of one.
    Mutated,
    /// A cross of two.
    Crossed,
}

const ARMS: [Arm; 3] = [Arm::Generated, Arm::Mutated, Arm::Crossed];
/// Least share of each arm in percent, to measure it by. New programs keep the breadth: nothing else comes out of what the corpus is about.
const FLOORS: [f64; 3] = [20.0, 10.0, 10.0];
/// A program's first sights count up to this: one lucky program says little about the next.
const SIGHTS_MAX: usize = 32;
/// What remains of the past with each program of an arm: some 300 programs back, a third is left.
const MEMORY: f64 = 0.997;
/// As if programs with one first sight each had taken this many seconds before: nothing is ruled out by a bad start.
const PRIOR_S: f64 = 1.0;
/// Their first sights: a program takes some 0.1 s.
const PRIOR_SIGHTS: f64 = 10.0;

/// What the arms brought.
#[derive(Debug)]
pub(super) struct Mixture {
    /// Seconds of guest time and first sights, for each arm.
    past: [(f64, f64); 3],
}

impl Default for Mixture {
    fn default() -> Mixture {
        Mixture { past: [(0.0, 0.0); 3] }
    }
}

impl Mixture {
    /// Draws an arm.
    pub fn draw(&self, rng: &mut impl RngCore) -> Arm {
        let shares = self.shares();
        let mut at = f64::from(rng.next_u32()) / f64::from(u32::MAX) * 100.0;
        for (arm, share) in ARMS.into_iter().zip(shares) {
            if at < share {
                return arm;
            }
            at -= share;
        }
        Arm::Mutated
    }

    /// A program of this arm took so long and showed so many features that had never been seen.
    pub fn reward(&mut self, arm: Arm, ns: u64, first_seen: usize) {
        let (seconds, sights) = &mut self.past[arm as usize];
        *seconds = *seconds * MEMORY + ns as f64 / 1e9;
        *sights = *sights * MEMORY + first_seen.min(SIGHTS_MAX) as f64;
    }

    /// The shares of the arms in percent.
    fn shares(&self) -> [f64; 3] {
        let worth =
            self.past.map(|(seconds, sights)| (sights + PRIOR_SIGHTS) / (seconds + PRIOR_S));
        let sum: f64 = worth.iter().sum();
        let free = 100.0 - FLOORS.iter().sum::<f64>();
        let mut shares = FLOORS;
        for (share, worth) in shares.iter_mut().zip(worth) {
            *share += free * worth / sum;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPICAL: u64 = 100_000_000;

    #[test]
    fn an_arm_that_brings_something_is_drawn_more_often_and_none_is_forgotten() {
        let mut mixture = Mixture::default();
        for _ in 0..2000 {
            mixture.reward(Arm::Generated, TYPICAL, 0);
            mixture.reward(Arm::Mutated, TYPICAL, 3);
            mixture.reward(Arm::Crossed, TYPICAL, 0);
        }
        let late = mixture.shares();
        assert!(late[1] > 60.0, "{late:?}");
        for (share, floor) in late.iter().zip(FLOORS) {
            assert!(*share >= floor, "{late:?}");
        }
        // What brought nothing for long and now does comes back.
        (0..2000).for_each(|_| mixture.reward(Arm::Mutated, TYPICAL, 0));
        (0..200).for_each(|_| mixture.reward(Arm::Crossed, TYPICAL, 5));
        assert!(mixture.shares()[2] > 40.0, "{:?}", mixture.shares());
    }

    #[test]
    fn what_takes_twice_as_long_must_bring_twice_as_much() {
        let mut mixture = Mixture::default();
        for _ in 0..2000 {
            mixture.reward(Arm::Generated, TYPICAL, 3);
            mixture.reward(Arm::Mutated, 2 * TYPICAL, 3);
            mixture.reward(Arm::Crossed, 2 * TYPICAL, 6);
        }
        let [generated, mutated, crossed] = mixture.shares();
        let free = |share: f64, arm: Arm| share - FLOORS[arm as usize];
        let (new, changed) = (free(generated, Arm::Generated), free(mutated, Arm::Mutated));
        assert!((new / changed - 2.0).abs() < 0.2, "{new} {changed}");
        assert!((new / free(crossed, Arm::Crossed) - 1.0).abs() < 0.1, "{new} {crossed}");
    }
}
