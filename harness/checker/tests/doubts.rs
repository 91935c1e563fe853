//! What is in doubt when it happens, and looked at late: races and calls without an end, each with its neighbouring wrong.

mod common;

use checker::{AnomalyKind as Kind, Oracle};
use common::*;
use history::{Payload, ReadPath, Run};

#[test]
fn a_clone_that_races_keeps_what_its_source_was() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 12K)
t1: fsync(f1) &
t0: ficlonerange(f0, 4K, f1, 8K, 4K)
t0: pwrite(f1, 0, anon, 12K)
t0: pwrite(f1, 0, anon, 12K)
t0: pread(f0, 0, anon, 16K)";
    let script = |last: Run| {
        Script::new("xfs", text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[1], 12288)
            .inv(3, &[1])
            .ok(4, &[0, 1], 0)
            .ret(3, Ok(0), Payload::None)
            .ok(5, &[1], 12288)
            .ok(6, &[1], 12288)
            .call(7, &[0], 8192, read(vec![zeros(4096), last]))
    };
    script(signed(2, 8192, 4096)).explained();
    script(signed(5, 8192, 4096)).anomalous(Kind::ForeignByte, Oracle::Leak);
    script(signed(2, 4096, 4096)).anomalous(Kind::MisplacedByte, Oracle::Bytes);
}

#[test]
fn what_a_killed_child_wrote_was_read_before_it_died() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t0: c0 = fork()
c0: pwrite(f1, 0, m0+0, 4K) &
t0: kill(c0)
t0: pwrite(f0, 0, anon, 4K) &
t1: pwrite(f0, 0, anon, 4K)";
    let script = |of_b: Run| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .open(3, 2)
            .ok(4, &[3], 4096)
            .ok(5, &[], 105)
            .inv(6, &[3, 2])
            .ok(7, &[], 0)
            .inv(8, &[0])
            .inv(9, &[0])
            .ret(8, Ok(4096), Payload::None)
            .ret(9, Ok(4096), Payload::None)
            .end(&[])
            .last(ReadPath::Read, 1, vec![signed(8, 0, 4096)])
            .last(ReadPath::Read, 2, vec![of_b])
    };
    script(signed(1, 0, 4096)).explained();
    script(signed(4, 0, 4096)).explained();
    script(signed(1, 8, 4096)).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    script(zeros(4096)).anomalous(Kind::LostByte, Oracle::Bytes);
}

#[test]
fn what_lands_behind_a_racing_truncate_may_go_at_any_time() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t1: pread(f1, 0, m0+0, 4K) &
t0: ftruncate(f0, 4000)
t0: load(m0+0, 4K)
t0: load(m0+0, 4K)";
    let script = |later: Vec<Run>| {
        Script::new("xfs", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .open(3, 2)
            .ok(4, &[3], 4096)
            .inv(5, &[3, 2])
            .ok(6, &[0], 0)
            .ret(5, Ok(4096), Payload::None)
            .call(7, &[2], 4096, read(vec![signed(4, 0, 4096)]))
            .call(8, &[2], 4096, read(later))
    };
    script(vec![signed(4, 0, 4096)]).explained();
    script(vec![signed(4, 0, 4000), zeros(96)]).explained();
    script(vec![signed(4, 0, 3992), zeros(104)]).anomalous(Kind::LostByte, Oracle::Bytes);
}

#[test]
fn advice_meets_a_mapping_of_the_length_that_it_has_then() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: mremap(m0, 4K)
t1: madvise(m0+0, 16K, REMOVE) &
t0: mremap(m0, 16K)
t0: pread(f0, 0, anon, 16K)";
    let begin = || {
        Script::new("ext4-dax", text).open(0, 1).ok(1, &[0], 16384).ok(2, &[0], 0).ok(3, &[2], 0)
    };
    let races = |runs| {
        let script = begin().inv(4, &[2]).ok(5, &[2], 0).ret(4, Ok(0), Payload::None);
        script.call(6, &[0], 16384, read(runs))
    };
    let comes_first =
        |runs| begin().fails(4, &[2], 12).ok(5, &[2], 0).call(6, &[0], 16384, read(runs));
    let some = || vec![zeros(4096), signed(1, 4096, 12288)];
    races(vec![zeros(16384)]).explained();
    races(some()).explained();
    comes_first(some()).explained();
    comes_first(vec![zeros(16384)]).anomalous(Kind::LostByte, Oracle::Bytes);
}

#[test]
fn a_direct_write_takes_whole_pages_out_of_the_cache() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t1: pwrite(f0, 0, anon, 512) &
t0: proc_mem_pwrite(m0+2048, 8)
t0: proc_mem_pwrite(m0+4096, 8)
t0: pread(f0, 0, anon, 8K)";
    let script = |runs| {
        Script::new("ext4", text)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[0], 0)
            .inv(3, &[0])
            .ok(4, &[2], 8)
            .ok(5, &[2], 8)
            .ret(3, Ok(512), Payload::None)
            .call(6, &[0], 8192, read(runs))
    };
    let kept = || vec![signed(5, 4096, 8), signed(1, 4104, 4088)];
    let first = |runs: Vec<Run>| runs.into_iter().chain(kept()).collect();
    script(first(vec![signed(3, 0, 512), signed(1, 512, 3584)])).explained();
    script(vec![signed(3, 0, 512), signed(1, 512, 7680)]).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn private_copies_are_not_taken_away() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: m1 = mmap(f0, 0, 4K, RW, PRIVATE)
t0: store(m1+0, 4K)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 4K)
t0: fallocate(f0, PUNCH_HOLE, 0, 4K)
t0: load(m1+0, 4K)
t0: load(m0+0, 4K)";
    let script = || {
        Script::new("xfs-dax", text)
            .by("revoke")
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[0], 0)
            .ok(4, &[3], 4096)
            .ok(5, &[], 0)
            .ok(6, &[5, 2], 0)
            .ok(7, &[0], 0)
            .call(8, &[3], 4096, read(vec![signed(4, 0, 4096)]))
    };
    script().call(9, &[2], 0, fault(vec![], 7, 2, 0)).explained();
    script()
        .call(9, &[2], 4096, read(vec![zeros(4096)]))
        .anomalous(Kind::MissingSignal, Oracle::Signals);
}

#[test]
fn a_pipe_is_read_up_to_the_fault_and_not_behind_it() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t0: p0 = pipe()
t0: splice(f1, 0, p0, 4K)
t0: read(p0, m0+6K, 4K)
t0: pread(f0, 0, anon, 8K)";
    let script = |runs| {
        Script::new("ext4-dax", text)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[0], 0)
            .open(3, 2)
            .ok(4, &[3], 4096)
            .ok(5, &[], 0)
            .ok(6, &[3, 5], 4096)
            .fails(7, &[5, 2], 14)
            .call(8, &[0], 8192, read(runs))
    };
    script(vec![signed(1, 0, 8192)]).explained();
    script(vec![signed(1, 0, 6144), signed(4, 0, 2048)]).explained();
    script(vec![signed(1, 0, 6136), signed(4, 0, 2056)])
        .anomalous(Kind::MisplacedByte, Oracle::Bytes);
    script(vec![signed(1, 0, 6144), signed(4, 8, 2048)])
        .anomalous(Kind::MisplacedByte, Oracle::Bytes);
}

#[test]
fn a_killed_write_stops_between_two_pages() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: c0 = fork()
c0: pwrite(f0, 512, anon, 64K) &
t0: kill(c0)";
    let script = |len: u64| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[], 105)
            .inv(2, &[0])
            .ok(3, &[], 0)
            .end(&[])
            .last(ReadPath::Read, 1, vec![zeros(512), signed(2, 512, len - 512)])
    };
    script(16384).explained();
    script(66048).explained();
    script(16392).anomalous(Kind::WrongResult, Oracle::Bytes);
    script(69632).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_dedupe_of_different_bytes_takes_nothing_away() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t0: m0 = mmap(f1, 0, 4K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 4K)
t0: fideduperange(f0, 0, 4K, f1, 0)
t0: load(m0+0, 4K)";
    let script = |status| {
        Script::new("xfs-dax", text)
            .by("revoke")
            .open(0, 1)
            .ok(1, &[0], 4096)
            .open(2, 2)
            .ok(3, &[2], 4096)
            .ok(4, &[2], 0)
            .ok(5, &[], 0)
            .ok(6, &[5, 4], 0)
            .call(7, &[0, 2], 0, Payload::Dedupe { status })
    };
    script(1).call(8, &[4], 4096, read(vec![signed(3, 0, 4096)])).explained();
    script(1)
        .call(8, &[4], 0, fault(vec![], 7, 2, 0))
        .anomalous(Kind::UnexplainedSignal, Oracle::Signals);
}
