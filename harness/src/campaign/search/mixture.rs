//! How often a new program is drawn, and how often one of the corpus is changed or crossed with another.
//!
//! Each arm gets the larger a share, the more first sights it brought lately; none falls below a floor. In the beginning every new program
//! shows something, and changing those at hand would be a waste; later it is the other way round. Where that turns depends on kernel and
//! vocabulary, so it is measured, not set.

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
const SIGHTS_MAX: usize = 8;
/// What remains of the past with each program of an arm: some 300 programs back, a third is left.
const MEMORY: f64 = 0.997;
/// As if this many programs with one first sight each had been drawn before: nothing is ruled out by a bad start.
const PRIOR: f64 = 8.0;

/// What the arms brought.
#[derive(Debug)]
pub(super) struct Mixture {
    /// Programs and their first sights, for each arm.
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

    /// A program of this arm showed so many features that had never been seen.
    pub fn reward(&mut self, arm: Arm, first_seen: usize) {
        let (programs, sights) = &mut self.past[arm as usize];
        *programs = *programs * MEMORY + 1.0;
        *sights = *sights * MEMORY + first_seen.min(SIGHTS_MAX) as f64;
    }

    /// The shares of the arms in percent.
    fn shares(&self) -> [f64; 3] {
        let worth = self.past.map(|(programs, sights)| (sights + PRIOR / 8.0) / (programs + PRIOR));
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

    #[test]
    fn an_arm_that_brings_something_is_drawn_more_often_and_none_is_forgotten() {
        let mut mixture = Mixture::default();
        for _ in 0..2000 {
            mixture.reward(Arm::Generated, 0);
            mixture.reward(Arm::Mutated, 3);
            mixture.reward(Arm::Crossed, 0);
        }
        let late = mixture.shares();
        assert!(late[1] > 60.0, "{late:?}");
        for (share, floor) in late.iter().zip(FLOORS) {
            assert!(*share >= floor, "{late:?}");
        }
        // What brought nothing for long and now does comes back.
        (0..2000).for_each(|_| mixture.reward(Arm::Mutated, 0));
        (0..200).for_each(|_| mixture.reward(Arm::Crossed, 5));
        assert!(mixture.shares()[2] > 40.0, "{:?}", mixture.shares());
    }
}
