//! Mutation and crossover leave fixed programs, change something, and never panic.

use super::{entropy, home, hostile};
use crate::{LINES_MAX, Program};
use arbitrary::Unstructured;

fn is_fixed(program: &Program, seed: u64) {
    let mut again = program.clone();
    again.fixup();
    assert_eq!(&again, program, "seed {seed}");
    assert_eq!(Program::parse(&program.to_string()).as_ref(), Ok(program), "seed {seed}");
}

#[test]
fn mutants_are_fixed_and_mostly_different() {
    let mut different = 0;
    for seed in 0..2_000 {
        let mut program = Program::from_seed(seed, home(seed));
        let before = program.clone();
        for round in 0..4 {
            let bytes = entropy(seed * 4 + round + 1_000_000, 1024);
            program.mutate(&mut Unstructured::new(&bytes));
            is_fixed(&program, seed);
        }
        different += u32::from(program != before);
    }
    assert!(different > 1_900, "only {different} of 2000 programs were changed");
}

#[test]
fn mutation_is_total() {
    for seed in 0..1_000 {
        let mut program = hostile(seed);
        let bytes = entropy(seed, (seed % 64) as usize);
        program.mutate(&mut Unstructured::new(&bytes));
        is_fixed(&program, seed);
    }
}

#[test]
fn mutation_can_start_from_nothing() {
    let mut program = Program { home: home(0), lines: Vec::new() };
    for seed in 0..500 {
        program.mutate(&mut Unstructured::new(&entropy(seed, 512)));
        is_fixed(&program, seed);
    }
    assert!(program.lines.len() > 8 && program.lines.len() <= LINES_MAX);
}

#[test]
fn crosses_are_fixed_and_at_home() {
    for seed in 0..2_000 {
        let one = Program::from_seed(seed, home(seed));
        let other = Program::from_seed(seed + 1, home(seed + 1));
        let bytes = entropy(seed, 256);
        let cross = one.crossover(&other, &mut Unstructured::new(&bytes));
        assert_eq!(cross.home, one.home);
        is_fixed(&cross, seed);
    }
}
