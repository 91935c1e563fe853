//! Pages that are held meet every change of their file, and leases everything that may break them: in generated programs, and in small ones
//! whose pairs are known.

use super::home;
use crate::{Breaker, CallId, LayoutChange, LeaseState, PinSource, Program};
use std::collections::BTreeMap;

/// Programs in which every pair must come up: seeds 0 to this.
const SEEDS: u64 = 10_000;

fn parse(image: &str, lines: &str) -> Program {
    let program = Program::parse(&format!("pinfuzz 1\nimage {image}\n{lines}"));
    program.unwrap_or_else(|error| panic!("{error}"))
}

/// A child has no rings and no memory gate, and a lane whose call is in flight has to end it before it exits.
fn can_meet(source: PinSource, change: LayoutChange) -> bool {
    use PinSource as S;
    let in_call = matches!(
        source,
        S::DirectRead
            | S::DirectWrite
            | S::GateRead
            | S::GateWrite
            | S::ProcMemRead
            | S::ProcMemWrite
    );
    let in_pipe = matches!(source, S::Vmsplice | S::Tee | S::Splice | S::PipeElsewhere);
    let in_region = matches!(source, S::Region | S::RegionPrivate);
    match change {
        LayoutChange::HolderExit => in_pipe || in_region,
        LayoutChange::HolderKill => in_pipe || in_region || in_call,
        _ => true,
    }
}

/// Where there is an F_RDLCK there is nobody who could write: F_SETLEASE refuses.
fn can_break(state: LeaseState, breaker: Breaker) -> bool {
    use Breaker as B;
    use LeaseState as S;
    let read = matches!(state, S::Read | S::TwoReaders | S::ReadBreaking);
    let writes = matches!(breaker, B::Ftruncate | B::Write | B::Fallocate | B::CloneOver);
    !(read && writes)
}

/// The counts of pairs as a table, rows and columns by name.
fn table<R: Copy + Ord, C: Copy + Ord>(
    rows: &[(R, &str)],
    columns: &[(C, &str)],
    counts: &BTreeMap<(R, C), u64>,
) -> String {
    let mut text = String::new();
    for (column, name) in columns {
        text += &format!("{name:22}");
        for (row, _) in rows {
            text += &format!(" {:5}", counts.get(&(*row, *column)).copied().unwrap_or(0));
        }
        text += "\n";
    }
    let head: Vec<&str> = rows.iter().map(|(_, name)| *name).collect();
    format!("{}\n{text}", head.join(" | "))
}

#[test]
fn every_source_meets_every_change() {
    let mut counts: BTreeMap<(PinSource, LayoutChange), u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        for pair in Program::from_seed(seed, home(seed)).held_pairs() {
            *counts.entry((pair.source, pair.change)).or_default() += 1;
        }
    }
    let sources: Vec<_> = PinSource::ALL.iter().map(|s| (*s, s.name())).collect();
    let changes: Vec<_> = LayoutChange::ALL.iter().map(|c| (*c, c.name())).collect();
    println!("{}", table(&sources, &changes, &counts));
    let all = sources.iter().flat_map(|s| changes.iter().map(move |c| (*s, *c)));
    let missing: Vec<String> = all
        .filter(|((source, _), (change, _))| can_meet(*source, *change))
        .filter(|((source, _), (change, _))| !counts.contains_key(&(*source, *change)))
        .map(|((_, source), (_, change))| format!("{source} x {change}"))
        .collect();
    assert!(missing.is_empty(), "seeds 0 to {SEEDS} never had: {missing:#?}");
}

#[test]
fn every_lease_meets_every_breaker() {
    let mut counts: BTreeMap<(LeaseState, Breaker), u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        for pair in Program::from_seed(seed, home(seed)).lease_pairs() {
            *counts.entry((pair.state, pair.breaker)).or_default() += 1;
        }
    }
    let states: Vec<_> = LeaseState::ALL.iter().map(|s| (*s, s.name())).collect();
    let breakers: Vec<_> = Breaker::ALL.iter().map(|b| (*b, b.name())).collect();
    println!("{}", table(&states, &breakers, &counts));
    let all = states.iter().flat_map(|s| breakers.iter().map(move |b| (*s, *b)));
    let missing: Vec<String> = all
        .filter(|((state, _), (breaker, _))| can_break(*state, *breaker))
        .filter(|((state, _), (breaker, _))| !counts.contains_key(&(*state, *breaker)))
        .map(|((_, state), (_, breaker))| format!("{state} x {breaker}"))
        .collect();
    assert!(missing.is_empty(), "seeds 0 to {SEEDS} never had: {missing:#?}");
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
