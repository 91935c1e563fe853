//! Programs that meet bugs of the fake which generated programs meet seldom, or never.

#![allow(dead_code, reason = "each test file uses its part of it")]

use harness::target::fake::Bug;
use program::Program;

/// Schedules under which each is run: races need some one among many.
pub const SCHEDULES: u64 = 64;

/// Programs that meet bugs which generated programs meet seldom.
pub const TRIGGERS: &[(Bug, &str)] = &[
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
        Bug::RdmaFollowsMapping,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_WRITE)
t0: x1 = ibv_reg_mr(m0+4K, 4K, LOCAL_READ)
t0: madvise(m0+0, 4K, DONTNEED)
t0: rdma_write(x1+0, x0+0, 4K)
t0: load(m0+0, 4K)
"#,
    ),
    (
        Bug::RdmaReadsMapping,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: m1 = mmap(f0, 4K, 4K, RW, PRIVATE)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 8K)
t0: x1 = ibv_reg_mr(m1+0, 4K, LOCAL_WRITE)
t0: rdma_read(x1+0, x0+0, 4K)
t0: load(m1+0, 4K)
"#,
    ),
    (
        Bug::RdmaIgnoresAccess,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: x1 = ibv_reg_mr(m0+4K, 4K, LOCAL_READ)
t0: rdma_write(x1+0, x0+0, 4K)
"#,
    ),
    (
        Bug::LongtermTestLeaks,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pin_longterm_test_start(anon, 4K, WRITE)
t0: pin_longterm_test_stop()
"#,
    ),
    (
        Bug::LongtermTestFollowsFile,
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: pin_longterm_test_start(m0+0, 4K, FAST)
t0: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 4K)
t0: pin_longterm_test_read()
"#,
    ),
    (
        Bug::LongtermTestTwice,
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pin_longterm_test_start(anon, 4K, WRITE)
t0: pin_longterm_test_start(anon, 4K, FAST)
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
        Bug::StrictCloseSpares,
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 8K)
t0: close(f0)
"#,
    ),
    (
        Bug::StrictDupKills,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 8K)
t0: f1 = dup(f0)
t0: close(f0)
"#,
    ),
    (
        Bug::RevokeKeepsBlock,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 8K)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 0, m0+0, 8K) (r0, fixed)
t0: ftruncate(f0, 0)
t0: f2 = open("b", RDWR|CREAT)
t0: pwrite(f2, 0, anon, 8K)
t0: release(g0)
t0: wait(t1)
t0: pread(f2, 0, anon, 8K)
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

/// The program that is made for a bug.
pub fn trigger(bug: Bug) -> Option<Program> {
    let (_, text) = TRIGGERS.iter().find(|(of, _)| *of == bug)?;
    Some(Program::parse(&format!("pinfuzz 1\n{text}")).expect("a trigger parses"))
}
