//! Which program is number `k` of a campaign: a function of the seed alone, whatever the workers and the clock do.
//!
//! Does not generate programs: `Program::from_seed_with` does.

use program::{Mount, Program, Vocabulary};

/// Program `number` of the campaign with this seed; homes take turns.
///
/// # Panics
/// If `homes` is empty.
pub fn program(seed: u64, number: u64, homes: &[Mount]) -> Program {
    program_with(seed, number, homes, &Vocabulary::USUAL)
}

/// As `program`, of a vocabulary.
///
/// # Panics
/// If `homes` is empty.
pub fn program_with(seed: u64, number: u64, homes: &[Mount], vocabulary: &Vocabulary) -> Program {
    let home = homes[(number % homes.len() as u64) as usize];
    Program::from_seed_with(mix(seed, number), home, vocabulary)
}

/// Spreads a campaign's seed over its programs (the finalizer of SplitMix64), so that neighbouring seeds share no programs.
fn mix(seed: u64, number: u64) -> u64 {
    let mut x = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A seed for a campaign that was given none.
pub fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.unwrap_or_default().as_nanos() as u64;
    // 32 bits are enough to tell campaigns apart, and short enough to be typed.
    mix(nanoseconds, u64::from(std::process::id())) >> 32
}
