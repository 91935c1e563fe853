//! Fixup is total and idempotent, and what it leaves keeps the rules.

use super::{home, hostile};
use crate::{CHILDREN_MAX, Call, FILE_MAX, IO_MAX, LINES_MAX, Lane, Mount, PAGE, Program};
use insta::assert_snapshot;

/// The program of these lines, fixed, as text without its first two lines.
fn fixed(lines: &str) -> String {
    let mut program =
        Program::parse(&format!("pinfuzz 1\nimage xfs\n{lines}")).expect("it is a program");
    program.fixup();
    let text = program.to_string();
    text.lines().skip(2).collect::<Vec<_>>().join("\n")
}

/// What every fixed program keeps, whatever it was before.
fn keeps_the_rules(program: &Program, seed: u64) {
    assert!(program.lines.len() <= LINES_MAX);
    let mut forked = [0; CHILDREN_MAX as usize];
    let mut alive = [false; CHILDREN_MAX as usize];
    for (index, line) in program.lines.iter().enumerate() {
        let place = || format!("seed {seed}, line {index}: {line}\n{program}");
        if let Lane::Child(n) = line.lane {
            assert!(alive[usize::from(n)], "{}", place());
        }
        match &line.call {
            Call::Fork { child } => {
                assert!(matches!(line.lane, Lane::Thread(_)), "{}", place());
                forked[usize::from(*child)] += 1;
                assert_eq!(forked[usize::from(*child)], 1, "{}", place());
                alive[usize::from(*child)] = true;
            }
            Call::Exit => match line.lane {
                Lane::Child(n) => alive[usize::from(n)] = false,
                Lane::Thread(_) => panic!("{}", place()),
            },
            Call::Wait { lane } => assert_ne!(*lane, line.lane, "{}", place()),
            Call::Mmap { offset, len, .. } => {
                assert!(offset % PAGE == 0 && len % PAGE == 0 && *len > 0, "{}", place());
                assert!(*len <= IO_MAX && offset + len <= FILE_MAX, "{}", place());
            }
            _ => {}
        }
        assert!(!line.detached || line.call.kind().can_detach(), "{}", place());
        assert!(line.call.buffers().map(|(_, len)| len).sum::<u64>() <= IO_MAX, "{}", place());
        assert!(!line.aio || line.call.kind().has_aio_form() && line.via.is_none(), "{}", place());
        if let Some(via) = line.via {
            assert!(line.call.kind().has_ring_form(), "{}", place());
            if via.is_linked() {
                let next = program.lines[index + 1..].iter().find(|next| next.lane == line.lane);
                let next = next.unwrap_or_else(|| panic!("{}", place()));
                assert_eq!(next.via.map(|via| via.ring), Some(via.ring), "{}", place());
            }
        }
    }
}

#[test]
fn it_is_total_and_idempotent() {
    for seed in 0..20_000 {
        let mut program = hostile(seed);
        program.fixup();
        keeps_the_rules(&program, seed);
        let once = program.clone();
        program.fixup();
        assert_eq!(program, once, "seed {seed}\n{once}");
    }
}

#[test]
fn generated_programs_need_no_repair() {
    for seed in 0..3_000 {
        let program = Program::from_seed(seed, home(seed));
        keeps_the_rules(&program, seed);
        let mut again = program.clone();
        again.fixup();
        assert_eq!(again, program, "seed {seed}");
    }
}

#[test]
fn a_slot_that_was_never_filled_becomes_one_that_was() {
    assert_snapshot!(fixed(
        "t0: f2 = open(\"a\", RDWR|CREAT)\nt0: pread(f0, 0, m1+8, 8)\nt0: m3 = mmap(f1, 0, 4K, R, SHARED)\n\
         t0: pwrite(f2, 0, m0+8, 8) (r0)\nt0: fsync(f2)\nt0: splice(p1, f0, 0, 1)\n"
    ), @r#"
        t0: f2 = open("a", RDWR|CREAT)
        t0: pread(f2, 0, anon+8, 8)
        t0: m3 = mmap(f2, 0, 4K, R, SHARED)
        t0: pwrite(f2, 0, m3+8, 8)
        t0: fsync(f2)
        t0: splice(p1, f2, 0, 1)
        "#);
}

#[test]
fn ranges_stay_within_the_mapping() {
    assert_snapshot!(fixed(
        "t0: f0 = open(\"a\", RDWR|CREAT)\nt0: m0 = mmap(f0, 1, 5000, R, SHARED)\nt0: load(m0+8K, 8)\n\
         t0: load(m0+8191, 8)\nt0: load(m0+8K, 0)\nt0: mremap(m0, 4K)\nt0: pread(f0, 3, m0+5000, 4095)\n"
    ), @r#"
        t0: f0 = open("a", RDWR|CREAT)
        t0: m0 = mmap(f0, 0, 8K, R, SHARED)
        t0: load(m0+0, 8)
        t0: load(m0+8191, 1)
        t0: load(m0+8K, 0)
        t0: mremap(m0, 4K)
        t0: pread(f0, 3, m0+904, 3192)
        "#);
}

#[test]
fn chains_end_where_their_lane_goes_on_otherwise() {
    assert_snapshot!(fixed(
        "t0: f0 = open(\"a\", RDWR|CREAT)\nt0: r0 = io_uring_setup(2)\nt0: r1 = io_uring_setup(8)\n\
         t0: pwrite(f0, 0, anon, 8) (r0, link)\nt1: statx(f0)\nt0: fsync(f0) (r0, hardlink, drain)\n\
         t0: fsync(f0) (r1, link)\nt0: fsync(f0) (r1, link)\nt0: statx(f0) (r1)\nt1: fsync(f0) (r0, link)\n"
    ), @r#"
        t0: f0 = open("a", RDWR|CREAT)
        t0: r0 = io_uring_setup(2)
        t0: r1 = io_uring_setup(8)
        t0: pwrite(f0, 0, anon, 8) (r0, link)
        t1: statx(f0)
        t0: fsync(f0) (r0, drain)
        t0: fsync(f0) (r1, link)
        t0: fsync(f0) (r1)
        t0: statx(f0)
        t1: fsync(f0) (r0)
        "#);
}

#[test]
fn children_live_between_fork_and_exit() {
    assert_snapshot!(fixed(
        "c0: f0 = open(\"a\", RDWR|CREAT)\nc0: exit()\nt1: c0 = fork() &\nc0: c0 = fork()\nt0: c0 = fork()\n\
         c0: fsync(f0)\nc0: wait(c0)\nc0: exit()\nc0: fsync(f0)\nt0: wait(t0)\nt0: wait(c0) &\n"
    ), @r#"
        t0: f0 = open("a", RDWR|CREAT)
        t1: c0 = fork()
        t0: c1 = fork()
        c0: fsync(f0)
        c0: exit()
        t0: fsync(f0)
        t0: wait(c0)
        "#);
    assert_snapshot!(fixed("t0: wait(c1)\nt0: wait(t1)\n"), @"t0: wait(t1)");
}

#[test]
fn a_child_does_not_share_the_rings_of_its_parent() {
    assert_snapshot!(fixed(
        "t0: f0 = open(\"a\", RDWR|CREAT)\nt0: r0 = io_uring_setup(8)\nt0: c0 = fork()\nc0: fsync(f0) (r0)\n\
         c0: r1 = io_uring_setup(8)\nc0: fsync(f0) (r0)\n"
    ), @r#"
        t0: f0 = open("a", RDWR|CREAT)
        t0: r0 = io_uring_setup(8)
        t0: c0 = fork()
        c0: fsync(f0)
        c0: r1 = io_uring_setup(8)
        c0: fsync(f0) (r1)
        "#);
}

#[test]
fn offsets_of_io_are_left_as_they_are() {
    let lines = "t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)\nt0: pwrite(f0, 4095, anon+1, 4097)\n\
                 t0: pwrite(f0, 4M, anon, 512K)";
    assert_eq!(fixed(lines), lines);
}

#[test]
fn an_empty_program_stays_one() {
    let mut program = Program { home: Mount::Xfs, lines: Vec::new() };
    program.fixup();
    assert!(program.lines.is_empty());
}
