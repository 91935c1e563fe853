//! Pages that are held meet every change of their file, and leases everything that may break them: in generated programs, and in small ones
//! whose pairs are known.

use super::home;
use crate::{Breaker, CallId, LayoutChange, LeaseState, Mount, PinSource, Program};
use std::collections::BTreeSet;

/// Programs in which every pair must come up: seeds 0 to this.
const SEEDS: u64 = 10_000;
/// Programs in which every pair must come up on every mount.
const SEEDS_OF_MOUNTS: u64 = 80_000;

fn parse(image: &str, lines: &str) -> Program {
    let program = Program::parse(&format!("pinfuzz 1\nimage {image}\n{lines}"));
    program.unwrap_or_else(|error| panic!("{error}"))
}

/// Which pairs came up: in the first `SEEDS` programs, wherever; and in all, on which mount.
struct Met<R, C> {
    early: BTreeSet<(R, C)>,
    everywhere: BTreeSet<(R, C, Mount)>,
}

impl<R: Copy + Ord, C: Copy + Ord> Met<R, C> {
    /// Of `SEEDS_OF_MOUNTS` programs.
    fn of(pairs: impl Fn(&Program) -> Vec<(R, C, Mount)>) -> Met<R, C> {
        let mut met = Met { early: BTreeSet::new(), everywhere: BTreeSet::new() };
        for seed in 0..SEEDS_OF_MOUNTS {
            for (row, column, mount) in pairs(&Program::from_seed(seed, home(seed))) {
                met.everywhere.insert((row, column, mount));
                if seed < SEEDS {
                    met.early.insert((row, column));
                }
            }
        }
        met
    }

    /// Nothing that can be is missing, and nothing that cannot be is there.
    fn check(
        &self,
        rows: &[R],
        columns: &[C],
        can: impl Fn(R, C, Mount) -> bool,
        name: impl Fn(R, C) -> String,
    ) {
        let mut missing = Vec::new();
        for (row, column) in rows.iter().flat_map(|r| columns.iter().map(move |c| (*r, *c))) {
            let anywhere = Mount::ALL.iter().any(|mount| can(row, column, *mount));
            if anywhere && !self.early.contains(&(row, column)) {
                missing.push(format!("{} in {SEEDS}", name(row, column)));
            }
            for mount in Mount::ALL {
                let there = self.everywhere.contains(&(row, column, mount));
                let can = can(row, column, mount);
                assert!(can || !there, "{mount} has what cannot be: {}", name(row, column));
                if can && !there {
                    missing.push(format!("{mount}: {} in {SEEDS_OF_MOUNTS}", name(row, column)));
                }
            }
        }
        assert!(missing.is_empty(), "never met: {missing:#?}");
    }
}

#[test]
fn every_source_meets_every_change() {
    let pairs = |program: &Program| {
        program.held_pairs().iter().map(|p| (p.source, p.change, p.mount)).collect()
    };
    Met::of(pairs).check(
        PinSource::ALL,
        LayoutChange::ALL,
        |source, change, mount| source.can_meet(change, mount),
        |source, change| format!("{} x {}", source.name(), change.name()),
    );
}

#[test]
fn every_lease_meets_every_breaker() {
    let pairs = |program: &Program| {
        program.lease_pairs().iter().map(|p| (p.state, p.breaker, p.mount)).collect()
    };
    Met::of(pairs).check(
        LeaseState::ALL,
        Breaker::ALL,
        |state, breaker, _| state.can_meet(breaker),
        |state, breaker| format!("{} x {}", state.name(), breaker.name()),
    );
}

fn held(program: &Program) -> Vec<(PinSource, u16, LayoutChange, u16)> {
    let pairs = program.held_pairs();
    pairs.iter().map(|p| (p.source, p.taken.0, p.change, p.issued.0)).collect()
}

#[test]
fn a_pipe_holds_until_it_is_read_or_closed_everywhere() {
    let program = parse(
        "xfs-dax",
        "t0: f0 = open(\"a\", RDWR|CREAT)\n\
         t0: pwrite(f0, 0, anon, 16K)\n\
         t0: m0 = mmap(f0, 0, 16K, RW, SHARED)\n\
         t0: p0 = pipe()\n\
         t0: vmsplice(m0+0, p0, 8K)\n\
         t0: c0 = fork()\n\
         t1: fallocate(f0, PUNCH_HOLE, 0, 4K)\n\
         t0: close(p0)\n\
         t2: truncate(\"a\", 0)\n\
         c0: read(p0, anon, 8K)\n\
         t3: truncate(\"a\", 0)\n",
    );
    use {LayoutChange as C, PinSource as S};
    assert_eq!(
        held(&program),
        [
            (S::Vmsplice, 4, C::Fork, 5),
            (S::Vmsplice, 4, C::PunchHole, 6),
            (S::PipeElsewhere, 4, C::TruncateDown, 8),
        ]
    );
}

#[test]
fn what_waits_behind_a_held_gate_is_not_issued() {
    let program = parse(
        "ext4-dax",
        "t0: f0 = open(\"a\", RDWR|CREAT)\n\
         t0: pwrite(f0, 0, anon, 16K)\n\
         t0: m0 = mmap(f0, 0, 16K, RW, SHARED)\n\
         t0: f1 = open(g0, RDWR|DIRECT)\n\
         t0: hold(g0)\n\
         t1: pread(f1, 0, m0+0, 4K)\n\
         t1: ftruncate(f0, 0)\n\
         t2: ftruncate(f0, 4K)\n\
         t0: release(g0)\n\
         t2: ftruncate(f0, 0)\n",
    );
    use {LayoutChange as C, PinSource as S};
    assert_eq!(held(&program), [(S::GateRead, 5, C::FtruncateDown, 7)]);
}

#[test]
fn a_lease_goes_from_state_to_state() {
    let program = parse(
        "ext4",
        "t0: f0 = open(\"a\", RDWR|CREAT)\n\
         t0: setlease(f0, WRLCK)\n\
         t0: ftruncate(f0, 4K)\n\
         t1: f1 = open(\"a\", RDONLY|NONBLOCK)\n\
         t1: f1 = open(\"a\", RDWR|NONBLOCK)\n\
         t1: truncate(\"a\", 0) &\n\
         t0: setlease(f0, UNLCK)\n\
         t0: close(f0)\n\
         t0: f0 = open(\"a\", RDONLY)\n\
         t0: setlease(f0, RDLCK)\n\
         t1: f1 = open(\"a\", RDONLY)\n\
         t1: setlease(f1, RDLCK)\n\
         t2: unlink(\"a\")\n",
    );
    let pairs: Vec<(LeaseState, u16, Breaker, u16)> =
        program.lease_pairs().iter().map(|p| (p.state, p.taken.0, p.breaker, p.issued.0)).collect();
    use {Breaker as B, LeaseState as S};
    assert_eq!(
        pairs,
        [
            (S::Write, 1, B::Ftruncate, 2),
            (S::Write, 1, B::OpenReadNonblock, 3),
            (S::WriteDowngrading, 1, B::OpenWriteNonblock, 4),
            (S::WriteBreaking, 1, B::Truncate, 5),
            (S::Read, 9, B::OpenRead, 10),
            (S::Read, 9, B::SetleaseRead, 11),
            (S::TwoReaders, 9, B::Unlink, 12),
        ]
    );
}

#[test]
fn every_program_can_be_asked() {
    for seed in 0..500 {
        let mut program = super::hostile(seed);
        program.fixup();
        for pair in program.held_pairs() {
            assert!(pair.taken < pair.issued && pair.issued < CallId(program.lines.len() as u16));
        }
        let _ = program.lease_pairs();
    }
}
