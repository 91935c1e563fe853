//! Properties of programs, over many seeds. A failure prints its seed.

mod fixup;
mod mutate;
mod pairs;
mod parse;
mod reach;
mod round_trip;
mod seeds;
mod vocabulary;

use crate::{Line, Mount, Program};
use arbitrary::{Arbitrary, Unstructured};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bytes that depend on nothing but the seed.
fn entropy(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The mount that a test takes as home for a seed.
fn home(seed: u64) -> Mount {
    Mount::ALL[(seed % 4) as usize]
}

/// A program of arbitrary lines, which fixup has not seen.
fn hostile(seed: u64) -> Program {
    let bytes = entropy(seed, 8 << 10);
    let mut u = Unstructured::new(&bytes);
    let count = u.int_in_range(0..=100).unwrap_or(0);
    let lines =
        (0..count).map(|_| Line::arbitrary(&mut u).expect("zeros serve when bytes run out"));
    Program { home: home(seed), lines: lines.collect() }
}
