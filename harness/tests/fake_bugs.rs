//! Every planted bug is live: some program's history differs from the honest fake's, which a checker could notice.
//!
//! It does not ask whether a checker does notice.

use harness::target::Target;
use harness::target::fake::{Bug, FakeConfig, FakeTarget};
use program::{Mount, Program};

/// Programs that meet bugs which generated programs meet seldom.
const TRIGGERS: &[(Bug, &str)] = &[
    (
        Bug::RegionOnDax,
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
"#,
    ),
    (
        Bug::RegionWritesPageCache,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_WRITE)
"#,
    ),
    (
        Bug::DeregLeaks,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: ibv_dereg_mr(x0)
"#,
    ),
    (
        Bug::RegionOutlivesProcess,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: c0 = fork()
c0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: kill(c0)
"#,
    ),
    (
        Bug::RecvOtherFile,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t0: send_fd(f0)
t0: send_fd(f1)
t0: f2 = recv_fd()
t0: pread(f2, 0, anon, 4K)
"#,
    ),
    (
        Bug::DedupeIgnoresDifference,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: copy_file_range(f0, 0, f1, 0, 8K)
t0: pwrite(f1, 4K, anon, 4K)
t0: fideduperange(f0, 0, 8K, f1, 0)
"#,
    ),
    (
        Bug::DedupeWrongBlock,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: sendfile(f1, f0, 0, 8K)
t0: fideduperange(f0, 0, 8K, f1, 0)
"#,
    ),
    (
        Bug::ExclIgnored,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("a", RDWR|CREAT|EXCL)
"#,
    ),
    (
        Bug::DontNeedDropsDirty,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: store(m0+0, 4K)
t0: madvise(m0+0, 8K, DONTNEED)
t0: load(m0+0, 8K)
"#,
    ),
    (
        Bug::PunchDropsPrivate,
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: store(m0+0, 8)
t0: fallocate(f0, PUNCH_HOLE, 0, 4K)
t0: load(m0+0, 8)
"#,
    ),
    (
        Bug::ForkSharesPrivate,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: store(m0+0, 8)
t0: c0 = fork()
c0: store(m0+8, 8)
t0: load(m0+0, 16)
"#,
    ),
    (
        Bug::ExtendingWriteKeepsTail,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 100)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: store(m0+200, 8)
t0: pwrite(f0, 8K, anon, 8)
t0: pread(f0, 0, anon, 8K)
"#,
    ),
    (
        Bug::TruncateRace,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 100)
t1: ftruncate(f0, 8K) &
t2: pwrite(f0, 100, anon, 64) &
t0: wait(t1)
t0: wait(t2)
"#,
    ),
    (
        Bug::WriteReadOnlySucceeds,
        r#"image ext4
t0: f0 = open("a", RDONLY|CREAT)
t0: pwrite(f0, 0, anon, 100)
"#,
    ),
    (
        Bug::DrainIgnored,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: r0 = io_uring_setup(8)
t1: pwrite(f0, 0, anon, 256K) (r0) &
t1: pread(f0, 0, anon, 256K) (r0, drain)
"#,
    ),
    (
        Bug::SeekDataLate,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 16K, anon, 8K)
t0: lseek(f0, 0, DATA)
"#,
    ),
    (
        Bug::SeekHoleEarly,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 12K)
t0: ftruncate(f0, 64K)
t0: lseek(f0, 0, HOLE)
"#,
    ),
    (
        Bug::CloneSharesStores,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: ficlone(f1, f0)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: store(m0+0, 8)
t0: pread(f1, 0, anon, 8K)
"#,
    ),
    (
        Bug::CloneSharesWrites,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: ficlone(f1, f0)
t0: pwrite(f0, 0, anon, 4K)
t0: fsync(f0)
t0: pread(f1, 0, anon, 8K)
"#,
    ),
    (
        Bug::CloneSharesDirect,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT|DIRECT)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: ficlone(f1, f0)
t0: pwrite(f0, 0, anon, 4K)
t0: pread(f1, 0, anon, 8K)
"#,
    ),
    (
        Bug::AppendIgnored,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT|APPEND)
t0: pwrite(f0, 0, anon, 4K)
t0: pwrite(f0, 0, anon, 4K)
"#,
    ),
    (
        Bug::SplicePageReplaced,
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: p0 = pipe()
t0: pwrite(f0, 0, anon, 4K)
t0: splice(f0, 0, p0, 4K)
t0: pwrite(f0, 0, anon, 4K)
t0: splice(p0, f1, 0, 4K)
"#,
    ),
    (
        Bug::SpliceNotWoken,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: p0 = pipe()
t0: pwrite(f0, 0, anon, 4K)
t1: splice(p0, f1, 0, 4K)
t0: splice(f0, 0, p0, 4K)
"#,
    ),
];

/// Seeds tried per bug; most are met far sooner.
const SEEDS: u64 = 20_000;

fn trigger(bug: Bug) -> Option<Program> {
    let (_, text) = TRIGGERS.iter().find(|(of, _)| *of == bug)?;
    Some(Program::parse(&format!("pinfuzz 1\n{text}")).expect("a trigger parses"))
}

/// Where the program's history under the bug first differs from the honest one: the schedule or generator seed.
fn differs(programs: impl Iterator<Item = (u64, Program)>, bug: Bug) -> Option<u64> {
    let (mut seeds, regime) = (programs.peekable(), bug.regime());
    let target = |bug, seed| FakeTarget::new(FakeConfig { seed, bug, batch: 1, regime });
    let (mut honest, mut wrong) = (target(None, 1), target(Some(bug), 1));
    let fixed = trigger(bug).is_some();
    seeds.find_map(|(seed, program)| {
        if fixed {
            (honest, wrong) = (target(None, seed), target(Some(bug), seed));
        }
        let a = honest.execute(&program).expect("the fake has no trouble").history;
        let b = wrong.execute(&program).expect("the fake has no trouble").history;
        (a.events != b.events).then_some(seed)
    })
}

#[test]
fn every_bug_is_live() {
    for &bug in Bug::ALL {
        let found = match trigger(bug) {
            // Races need some schedule among many.
            Some(program) => differs((0..64).map(|seed| (seed, program.clone())), bug),
            None => {
                let draw = |seed| (seed, Program::from_seed(seed, Mount::ALL[seed as usize % 4]));
                differs((0..SEEDS).map(draw), bug)
            }
        };
        assert!(found.is_some(), "{} shows in no program", bug.name());
    }
}

#[test]
fn triggers_are_sequential_or_say_why_not() {
    for (bug, text) in TRIGGERS {
        let races = text.contains(" &\n");
        let allowed = matches!(bug, Bug::TruncateRace | Bug::DrainIgnored);
        assert_eq!(races, allowed, "{}", bug.name());
    }
}
