//! Mutation and crossover leave fixed programs, change something, and never panic.

use super::{entropy, home, hostile};
use crate::{Call, LINES_MAX, LayoutChange, Line, PinSource, Program};
use arbitrary::Unstructured;
use std::collections::BTreeSet;

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

#[test]
fn what_holds_pages_is_moved_and_swapped() {
    let text = "pinfuzz 1\n\
                image xfs-dax\n\
                t0: f0 = open(\"a\", RDWR|CREAT)\n\
                t0: pwrite(f0, 0, anon, 64K)\n\
                t0: m0 = mmap(f0, 0, 64K, RW, SHARED)\n\
                t0: p0 = pipe()\n\
                t0: r0 = io_uring_setup(8)\n\
                t0: f1 = open(g0, RDWR|DIRECT)\n\
                t0: hold(g0)\n\
                t1: pread(f1, 0, m0+0, 4K)\n\
                t2: ftruncate(f0, 0)\n\
                t0: release(g0)\n";
    let before = Program::parse(text).expect("the program parses");
    let (mut sources, mut changes) = (BTreeSet::new(), BTreeSet::new());
    let mut releases = BTreeSet::new();
    for seed in 0..80_000 {
        let mut program = before.clone();
        program.mutate(&mut Unstructured::new(&entropy(seed, 512)));
        for pair in program.held_pairs() {
            sources.insert(pair.source);
            changes.insert(pair.change);
        }
        let release = |line: &Line| matches!(line.call, Call::Release { .. });
        releases.extend(program.lines.iter().position(release));
    }
    use {LayoutChange as C, PinSource as S};
    let want = [S::GateRead, S::GateWrite, S::Vmsplice, S::ProcessVmRead, S::Registered, S::Region];
    let want = want.into_iter().collect::<BTreeSet<_>>();
    assert!(sources.is_superset(&want), "{sources:?}");
    let want = [C::FtruncateDown, C::PunchHole, C::CollapseRange, C::Allocate, C::ZeroRange];
    let want = want.into_iter().collect::<BTreeSet<_>>();
    assert!(changes.is_superset(&want), "{changes:?}");
    assert!(releases.len() >= 6, "{releases:?}");
}
