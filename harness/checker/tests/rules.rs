//! Each rule with its neighbouring wrong: what is explained, and what next to it is not.

mod common;

use checker::{AnomalyKind as Kind, Oracle, Reason, Verdict};
use common::*;
use history::{Down, Event, Payload, ReadPath, Run, Splat};

const WRITE_READ: &str = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: pwrite(f0, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)";

fn write_read(runs: Vec<Run>) -> Script {
    Script::new("xfs-dax", WRITE_READ).open(0, 1).ok(1, &[0], 4096).ok(2, &[0], 4096).call(
        3,
        &[0],
        4096,
        read(runs),
    )
}

#[test]
fn the_last_write_is_read_and_nothing_else() {
    write_read(vec![signed(2, 0, 4096)]).explained();
    let stale = write_read(vec![signed(1, 0, 4096)]).anomalous(Kind::StaleByte, Oracle::Bytes);
    assert!(stale.sentence.contains("pwrite#1"), "{stale}");
    write_read(vec![zeros(4096)]).anomalous(Kind::LostByte, Oracle::Bytes);
    write_read(vec![signed(2, 8, 4096)]).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    let foreign = Run::Signed { run: RUN - 1, call: 2, offset: 0, len: 4096 };
    write_read(vec![foreign]).anomalous(Kind::ForeignByte, Oracle::Leak);
    let mut torn: Vec<u8> = (0..8).map(|o| history::stamp::byte(RUN, 2, o)).collect();
    torn[4] ^= 0x40;
    write_read(vec![Run::Raw(torn), signed(2, 8, 4088)]).anomalous(Kind::TornByte, Oracle::Bytes);
    write_read(vec![signed(2, 0, 4000), signed(history::stamp::CALL_POISON, 4000, 96)])
        .anomalous(Kind::TornByte, Oracle::Bytes);
}

#[test]
fn racing_writes_give_either_and_a_finished_race_stays_decided() {
    let race = |first: Run, second: Run| {
        let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K) &
t1: pwrite(f0, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)";
        Script::new("ext4-dax", text)
            .open(0, 1)
            .inv(1, &[0])
            .inv(2, &[0])
            .ret(1, Ok(4096), Payload::None)
            .ret(2, Ok(4096), Payload::None)
            .call(3, &[0], 4096, read(vec![first]))
            .call(4, &[0], 4096, read(vec![second]))
    };
    race(signed(1, 0, 4096), signed(1, 0, 4096)).explained();
    race(signed(2, 0, 4096), signed(2, 0, 4096)).explained();
    race(zeros(4096), zeros(4096)).anomalous(Kind::LostByte, Oracle::Bytes);
    race(signed(1, 0, 4096), signed(2, 0, 4096)).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn truncation_zeroes_and_growth_shows_zeros() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: ftruncate(f0, 100)
t0: ftruncate(f0, 8K)
t0: pread(f0, 0, anon, 16K)";
    let script = |n, runs| {
        Script::new("xfs", text).open(0, 1).ok(1, &[0], 8192).ok(2, &[0], 0).ok(3, &[0], 0).call(
            4,
            &[0],
            n,
            read(runs),
        )
    };
    script(8192, vec![signed(1, 0, 100), zeros(8092)]).explained();
    script(8192, vec![signed(1, 0, 8192)]).anomalous(Kind::StaleByte, Oracle::Bytes);
    script(8191, vec![signed(1, 0, 100), zeros(8091)]).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn collapse_shifts_by_its_length_and_not_by_a_block_more() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: fallocate(f0, COLLAPSE_RANGE, 4K, 4K)
t0: pread(f0, 0, anon, 16K)";
    let script = |runs| {
        Script::new("ext4", text).open(0, 1).ok(1, &[0], 16384).ok(2, &[0], 0).call(
            3,
            &[0],
            12288,
            read(runs),
        )
    };
    script(vec![signed(1, 0, 4096), signed(1, 8192, 8192)]).explained();
    script(vec![signed(1, 0, 4096), signed(1, 4096, 8192)])
        .anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn a_clone_is_a_snapshot() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: ficlone(f1, f0)
t0: pwrite(f0, 0, anon, 4K)
t0: pread(f1, 0, anon, 8K)";
    let script = |runs| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[0], 8192)
            .ok(3, &[1, 0], 0)
            .ok(4, &[0], 4096)
            .call(5, &[1], 8192, read(runs))
    };
    script(vec![signed(2, 0, 8192)]).explained();
    script(vec![signed(4, 0, 4096), signed(2, 4096, 4096)])
        .anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_load_past_the_end_gets_sigbus_there_and_nowhere_else() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 100)
t0: m0 = mmap(f0, 0, 8K, R, SHARED)
t0: load(m0+4088, 16)";
    let script = |n, payload| {
        Script::new("xfs-dax", text).open(0, 1).ok(1, &[0], 100).ok(2, &[0], 0).call(
            3,
            &[2],
            n,
            payload,
        )
    };
    script(8, fault(vec![zeros(8)], 7, 2, 4096)).explained();
    script(16, read(vec![zeros(16)])).anomalous(Kind::MissingSignal, Oracle::Signals);
    script(8, fault(vec![zeros(8)], 7, 2, 8192))
        .anomalous(Kind::UnexplainedSignal, Oracle::Signals);
    script(8, fault(vec![zeros(8)], 7, 4, 4096))
        .anomalous(Kind::UnexplainedSignal, Oracle::Signals);
    script(0, fault(vec![], 7, 2, 4088)).anomalous(Kind::UnexplainedSignal, Oracle::Signals);
}

#[test]
fn what_must_be_refused_may_not_succeed_and_the_other_way_round() {
    let text = "t0: f0 = open(\"a\", RDONLY|CREAT)
t0: pwrite(f0, 0, anon, 8)";
    Script::new("ext4", text).open(0, 1).fails(1, &[0], 9).explained();
    Script::new("ext4", text)
        .open(0, 1)
        .fails(1, &[0], 22)
        .anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    Script::new("ext4", text)
        .open(0, 1)
        .ok(1, &[0], 8)
        .anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_link_orders_what_real_time_does_not() {
    let text = "t0: r0 = io_uring_setup(8)
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K) (r0, link)
t0: pread(f0, 0, anon, 4K) (r0)";
    let script = |n, runs| {
        Script::new("xfs", text)
            .ok(0, &[], 0)
            .open(1, 1)
            .inv(2, &[1, 0])
            .inv(3, &[1, 0])
            .ret(2, Ok(4096), Payload::None)
            .ret(3, Ok(n), read(runs))
    };
    script(4096, vec![signed(2, 0, 4096)]).explained();
    script(4096, vec![zeros(4096)]).anomalous(Kind::BrokenOrder, Oracle::Order);
}

#[test]
fn a_private_store_copies_its_page_and_stays_private() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: store(m0+0, 8)
t0: pwrite(f0, 0, anon, 8K)
t0: load(m0+0, 8192)
t0: pread(f0, 0, anon, 8K)";
    let script = |load: Vec<Run>, file: Vec<Run>| {
        Script::new("ext4-dax", text)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[0], 0)
            .call(3, &[2], 8, Payload::Store { fault: None })
            .ok(4, &[0], 8192)
            .call(5, &[2], 8192, read(load))
            .call(6, &[0], 8192, read(file))
    };
    let mine = vec![signed(3, 0, 8), signed(1, 8, 4088), signed(4, 4096, 4096)];
    script(mine.clone(), vec![signed(4, 0, 8192)]).explained();
    script(mine, vec![signed(3, 0, 8), signed(4, 8, 8184)])
        .anomalous(Kind::ForeignByte, Oracle::Leak);
    let seen_through = vec![signed(3, 0, 8), signed(4, 8, 8184)];
    script(seen_through, vec![signed(4, 0, 8192)]).anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_direct_write_may_lose_only_to_what_raced_with_it() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)
t0: f1 = open(\"a\", RDWR)
t0: pwrite(f1, 0, anon, 4K)
t0: pwrite(f0, 0, anon, 4K) &
t1: pwrite(f1, 0, anon, 8)
t0: pread(f1, 0, anon, 4K)";
    let script = |racing: bool| {
        let script = Script::new("xfs", text).open(0, 1).open(1, 1).ok(2, &[1], 4096);
        let script = if racing {
            script.inv(3, &[0]).inv(4, &[1]).ret(3, Ok(4096), Payload::None).ret(
                4,
                Ok(8),
                Payload::None,
            )
        } else {
            script.ok(4, &[1], 8).ok(3, &[0], 4096)
        };
        script.call(5, &[1], 4096, read(vec![signed(4, 0, 8), signed(2, 8, 4088)]))
    };
    script(true).explained();
    script(false).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn a_page_in_a_pipe_may_change_with_its_file_where_it_is_shared() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: p0 = pipe()
t0: splice(f0, 0, p0, 4K)
t0: pwrite(f0, 0, anon, 4K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: splice(p0, f1, 0, 4K)
t0: pread(f1, 0, anon, 4K)";
    let script = |home, runs| {
        Script::new(home, text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[], 0)
            .ok(3, &[0, 2], 4096)
            .ok(4, &[0], 4096)
            .open(5, 2)
            .ok(6, &[2, 5], 4096)
            .call(7, &[5], 4096, read(runs))
    };
    script("ext4", vec![signed(1, 0, 4096)]).explained();
    script("ext4", vec![signed(4, 0, 4096)]).explained();
    script("ext4-dax", vec![signed(1, 0, 4096)]).explained();
    script("ext4-dax", vec![signed(4, 0, 4096)]).anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_wait_needs_a_reason() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: p0 = pipe()
t0: splice(f0, 0, p0, 4K)
t1: splice(p0, f0, 0, 4K)";
    let script = |filled: bool| {
        let script = Script::new("ext4-dax", text).open(0, 1).ok(1, &[0], 4096).ok(2, &[], 0);
        let script = if filled { script.ok(3, &[0, 2], 4096) } else { script };
        script.inv(4, &[2, 0]).ret(4, Ok(0), Payload::None).end(&[4])
    };
    script(false).explained();
    script(true).anomalous(Kind::UnexplainedWait, Oracle::Liveness);
}

#[test]
fn the_media_hold_what_was_read() {
    let script = |media| {
        write_read(vec![signed(2, 0, 4096)])
            .end(&[])
            .last(ReadPath::Read, 1, vec![signed(2, 0, 4096)])
            .last(ReadPath::Media, 1, media)
    };
    script(vec![signed(2, 0, 4096)]).explained();
    script(vec![signed(1, 0, 4096)]).anomalous(Kind::StaleByte, Oracle::Media);
}

#[test]
fn a_name_leads_to_the_file_it_was_given_to() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: rename(\"a\", \"b\")
t0: f2 = open(\"b\", RDWR)";
    let script = |ino| Script::new("xfs", text).open(0, 1).open(1, 2).ok(2, &[], 0).open(3, ino);
    script(1).explained();
    script(2).anomalous(Kind::WrongResult, Oracle::Errnos);
}

#[test]
fn a_link_may_lose_its_file_only_to_a_racing_call() {
    let script = |removal: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t1: {removal} &
t0: link(\"a\", \"c\")"
        );
        Script::new("xfs", &text).open(0, 1).open(1, 2)
    };
    let none = || Payload::None;
    let enoent = Err(history::Errno(2));
    let racing = |removal| script(removal).inv(2, &[]).inv(3, &[]).ret(2, Ok(0), none());
    racing("rename(\"b\", \"a\")").ret(3, enoent, none()).explained();
    racing("unlink(\"a\")").ret(3, enoent, none()).explained();
    // The file keeps a name, or the name had another file before.
    let anomaly = |script: Script| {
        script.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    };
    anomaly(racing("rename(\"b\", \"d\")").ret(3, enoent, none()));
    anomaly(script("rename(\"b\", \"a\")").ok(2, &[], 0).fails(3, &[], 2));
}

#[test]
fn a_direct_write_of_its_whole_length_may_have_lost_a_block_only_to_a_page_that_cannot_be_pinned() {
    let text = |home: &str, prot: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: ftruncate(f1, 4K)
t0: m0 = mmap(f1, 0, 4K, {prot}, SHARED)
t0: pwritev(f0, 0, [anon 1K, m0+0 3K])
t0: pread(f0, 0, anon, 4K)"
        );
        let script = Script::new(home, &text).open(0, 1).open(1, 2).ok(2, &[1], 0).ok(3, &[1], 0);
        script.ok(4, &[0, 3], 4096).call(5, &[0], 4096, read(vec![zeros(4096)]))
    };
    text("ext4", "W").explained();
    text("ext4", "RW").anomalous(Kind::LostByte, Oracle::Bytes);
    // XFS has no second way, and 6.1 keeps the fault.
    text("xfs", "W").anomalous(Kind::LostByte, Oracle::Bytes);
    text("ext4", "W").anomalous_on("6.1.0", Kind::LostByte, Oracle::Bytes);
}

#[test]
fn a_sendfile_to_a_direct_file_ends_before_an_odd_rest() {
    let text = |flags: &str| {
        format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 100000)
t0: f1 = open(\"b\", RDWR|CREAT{flags})
t0: sendfile(f1, f0, 0, 128K)"
        )
    };
    let script = |flags, n| {
        let script = Script::new("ext4", &text(flags)).open(0, 1).ok(1, &[0], 100_000);
        script.open(2, 2).ok(3, &[2, 0], n)
    };
    script("|DIRECT", 65536).explained();
    script("", 100_000).explained();
    script("", 65536).anomalous(Kind::WrongResult, Oracle::Bytes);
    script("|DIRECT", 16384).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_read_into_a_mapping_of_its_own_file_moves_bytes() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: preadv(f0, 0, [anon 4K, m0+716 8K])
t0: pread(f0, 716, anon, 8)";
    let script = |seen| {
        Script::new("ext4", text)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .call(3, &[0, 2], 12288, read(vec![signed(1, 0, 4096)]))
            .call(4, &[0], 8, read(vec![seen]))
    };
    script(signed(1, 4096, 8)).explained();
    script(signed(1, 716, 8)).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn a_known_defect_is_explained_only_where_the_policy_lists_it() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: pwrite(f0, 8K, m0+0, 512)
t0: statx(f0)";
    let script = |home, size| {
        let mount = program::Mount::from_name(home).expect("a mount");
        Script::new(home, text).open(0, 1).ok(1, &[0], 0).fails(2, &[0, 1], 14).call(
            3,
            &[0],
            0,
            Payload::File(facts(mount, 1, size)),
        )
    };
    script("ext4-dax", 8192 - 14).explained();
    script("ext4-dax", 0).explained();
    script("ext4-dax", 8192).anomalous(Kind::WrongResult, Oracle::Bytes);
    script("xfs-dax", 8192 - 14).anomalous(Kind::WrongResult, Oracle::Bytes);
    script("ext4-dax", 8192 - 14).anomalous_on("7.9.0", Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_read_into_a_buffer_that_faults_does_not_look_like_the_end_of_file() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: ftruncate(f0, 8K)
t0: m0 = mmap(f1, 0, 4K, RW, SHARED)
t0: pread(f0, 0, m0+0, 512)";
    let script = |home| {
        Script::new(home, text).open(0, 1).open(1, 2).ok(2, &[0], 0).ok(3, &[1], 0).ok(
            4,
            &[0, 3],
            0,
        )
    };
    script("xfs-dax").explained();
    script("xfs").anomalous(Kind::WrongResult, Oracle::Bytes);
    script("xfs-dax").anomalous_on("7.9.0", Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_line_that_was_left_out_does_not_end_a_chain() {
    let text = "t0: r0 = io_uring_setup(8)
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pread(f0, 0, anon, 8) (r0, link)
t0: ftruncate(f0, 0) (r0)
t0: fsync(f0) (r0)";
    let script = |result: history::CallResult| {
        let script =
            Script::new("xfs", text).ok(0, &[], 0).open(1, 1).inv(2, &[1, 0]).inv(4, &[1, 0]);
        script.ret(2, Err(history::Errno(9)), Payload::None).ret(4, result, Payload::None)
    };
    let cancelled = Err(history::Errno(125));
    assert!(matches!(script(cancelled).verdict("6.12.117"), checker::Verdict::Anomalous(list)
        if list.iter().all(|a| a.call == Some(program::CallId(2)))));
}

#[test]
fn an_unmapping_may_be_over_before_the_call_that_meets_it_is_on_record() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t1: munmap(m0) &
t0: pread(f0, 0, m0+0, 4K)";
    let script = |slot| {
        Script::new("xfs", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[slot], 0)
            .fails(4, &[0, 2], 14)
    };
    script(2).explained();
    script(1).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_read_at_one_of_several_positions_settles_nothing() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: ftruncate(f0, 8K)
t0: pwrite(f0, 0, anon, 8K) &
t1: fallocate(f0, PUNCH_HOLE, 0, 8K)
t0: lseek(f0, 4K, SET) &
t1: lseek(f0, 0, SET)
t0: readv(f0, [anon 4K])
t0: pread(f0, 0, anon, 4K)";
    let script = |race| {
        let script = Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 0)
            .inv(2, &[0])
            .inv(3, &[0])
            .ret(2, Ok(8192), Payload::None)
            .ret(3, Ok(0), Payload::None);
        let script = if race {
            script.inv(4, &[0]).inv(5, &[0]).ret(4, Ok(4096), Payload::None)
        } else {
            script.ok(4, &[0], 4096).inv(5, &[0])
        };
        script.ret(5, Ok(0), Payload::None).call(6, &[0], 4096, read(vec![zeros(4096)])).call(
            7,
            &[0],
            4096,
            read(vec![signed(2, 0, 4096)]),
        )
    };
    script(true).explained();
    script(false).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn splices_that_race_for_a_pipe_come_in_either_order() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: p0 = pipe()
t0: splice(f0, 0, p0, 8K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: splice(p0, f1, 0, 4K) &
t1: splice(p0, f1, 4K, 4K)
t0: pread(f1, 0, anon, 8K)";
    let script = |race, runs| {
        let script = Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[], 0)
            .ok(3, &[0, 2], 8192)
            .open(4, 2);
        let script = if race {
            script.inv(5, &[2, 4]).inv(6, &[2, 4]).ret(5, Ok(4096), Payload::None).ret(
                6,
                Ok(4096),
                Payload::None,
            )
        } else {
            script.ok(5, &[2, 4], 4096).ok(6, &[2, 4], 4096)
        };
        script.call(7, &[4], 8192, read(runs))
    };
    let swapped = || vec![signed(1, 4096, 4096), signed(1, 0, 4096)];
    script(true, vec![signed(1, 0, 8192)]).explained();
    script(true, swapped()).explained();
    script(false, vec![signed(1, 0, 8192)]).explained();
    script(false, swapped()).anomalous(Kind::MisplacedByte, Oracle::Bytes);
}

#[test]
fn a_short_write_to_shared_blocks_leaves_the_rest_of_its_block_in_doubt_and_no_more() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 12K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: ficlone(f1, f0)
t0: f2 = open(\"c\", RDWR|CREAT)
t0: m0 = mmap(f2, 0, 4K, RW, SHARED)
t0: pwritev(f1, 0, [anon 1K, m0+0 4K])
t0: pread(f1, 0, anon, 12K)";
    let script = |runs| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 12288)
            .open(2, 2)
            .ok(3, &[2, 0], 0)
            .open(4, 3)
            .ok(5, &[4], 0)
            .ok(6, &[2, 5], 1024)
            .call(7, &[2], 12288, read(runs))
    };
    let foreign = |offset, len| Run::Signed { run: RUN - 1, call: 2, offset, len };
    let right = || vec![signed(6, 0, 1024), signed(1, 1024, 11264)];
    let leak = || vec![signed(6, 0, 1024), foreign(1024, 3072), signed(1, 4096, 8192)];
    script(right()).explained();
    script(leak()).explained();
    script(leak()).anomalous_on("7.9.0", Kind::ForeignByte, Oracle::Leak);
    // What was written stays written, and the blocks behind the one in which it stopped were not touched.
    script(vec![foreign(0, 4096), signed(1, 4096, 8192)])
        .anomalous(Kind::ForeignByte, Oracle::Leak);
    script(vec![signed(6, 0, 1024), signed(1, 1024, 3072), zeros(8192)])
        .anomalous(Kind::LostByte, Oracle::Bytes);
    // Without sharing there is no copy that could stop half-way.
    let text = text.replace("ficlone(f1, f0)", "pwrite(f1, 0, anon, 12K)");
    let runs = vec![signed(6, 0, 1024), foreign(1024, 3072), signed(3, 4096, 8192)];
    Script::new("xfs-dax", &text)
        .open(0, 1)
        .ok(1, &[0], 12288)
        .open(2, 2)
        .ok(3, &[2], 12288)
        .open(4, 3)
        .ok(5, &[4], 0)
        .ok(6, &[2, 5], 1024)
        .call(7, &[2], 12288, read(runs))
        .anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_growing_file_shows_no_stored_tail_but_where_that_is_known() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: fallocate(f0, 0, 0, 1K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: store(m0+2K, 512)
t0: ftruncate(f0, 8K)
t0: pread(f0, 0, anon, 4K)";
    let script = |home, runs| {
        Script::new(home, text)
            .open(0, 1)
            .ok(1, &[0], 0)
            .ok(2, &[0], 0)
            .ok(3, &[2], 512)
            .ok(4, &[0], 0)
            .call(5, &[0], 4096, read(runs))
    };
    let tail = || vec![zeros(2048), signed(3, 2048, 512), zeros(1536)];
    script("xfs", vec![zeros(4096)]).explained();
    script("xfs", tail()).anomalous(Kind::StaleByte, Oracle::Bytes);
    assert_eq!(script("xfs", tail()).verdict("6.1.0"), Verdict::Explained);
    script("xfs-dax", tail()).anomalous_on("6.1.0", Kind::StaleByte, Oracle::Bytes);
    let beside = vec![zeros(2560), signed(3, 2560, 512), zeros(1024)];
    script("xfs", beside).anomalous_on("6.1.0", Kind::MisplacedByte, Oracle::Bytes);
}

#[test]
fn an_unshare_keeps_what_is_dirty_but_where_that_is_known() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: ficlone(f1, f0)
t0: pwrite(f0, 0, anon, 12K)
t0: fallocate(f0, UNSHARE_RANGE, 4K, 4K)";
    let script = |text: &str, home: &str| {
        Script::new(home, text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[0], 4096)
            .ok(3, &[1, 0], 0)
            .ok(4, &[0], 12288)
            .ok(5, &[0], 0)
            .end(&[])
            .last(ReadPath::Read, 1, vec![signed(4, 0, 12288)])
    };
    let known = |script: Script| assert_eq!(script.verdict("6.1.0"), Verdict::Explained);
    let lost = || vec![signed(4, 0, 8192), zeros(4096)];
    known(script(text, "xfs").last(ReadPath::Direct, 1, lost()));
    known(script(text, "xfs").last(ReadPath::AfterDropCaches, 1, vec![signed(4, 0, 8192)]));
    let lost_in_6_12 = script(text, "xfs").last(ReadPath::Direct, 1, lost());
    lost_in_6_12.anomalous(Kind::LostByte, Oracle::Bytes);
    // The range itself is written back, nothing but zeros comes in place of the rest, and the page cache keeps the size.
    script(text, "xfs")
        .last(ReadPath::Direct, 1, vec![signed(4, 0, 4096), zeros(8192)])
        .anomalous_on("6.1.0", Kind::LostByte, Oracle::Bytes);
    script(text, "xfs")
        .last(ReadPath::Direct, 1, vec![signed(2, 0, 4096), signed(4, 4096, 8192)])
        .anomalous_on("6.1.0", Kind::StaleByte, Oracle::Bytes);
    script(text, "xfs").last(ReadPath::Mapping, 1, vec![signed(4, 0, 8192)]).anomalous_on(
        "6.1.0",
        Kind::WrongResult,
        Oracle::Bytes,
    );
    // Nor without sharing.
    let text = text.replace("ficlone(f1, f0)", "fsync(f1)");
    Script::new("xfs", &text)
        .open(0, 1)
        .open(1, 2)
        .ok(2, &[0], 4096)
        .ok(3, &[1], 0)
        .ok(4, &[0], 12288)
        .ok(5, &[0], 0)
        .end(&[])
        .last(ReadPath::Direct, 1, lost())
        .anomalous_on("6.1.0", Kind::LostByte, Oracle::Bytes);
}

#[test]
fn a_read_at_the_position_may_come_after_one_that_began_later() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 12K, 4K, RW, SHARED)
t0: readv(f0, [m0+0 4K]) &
t1: readv(f0, [anon 4K])
t0: load(m0+0, 8)";
    let script = |loaded, first| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .inv(3, &[0, 2])
            .inv(4, &[0])
            .ret(3, Ok(4096), Payload::None)
            .ret(4, Ok(4096), read(vec![signed(1, first, 4096)]))
            .call(5, &[2], 8, read(vec![signed(1, loaded, 8)]))
    };
    script(0, 4096).explained();
    script(4096, 0).explained();
    script(8192, 0).anomalous(Kind::MisplacedByte, Oracle::Bytes);
}

#[test]
fn what_is_learned_of_a_file_says_nothing_of_what_a_pipe_has_of_it() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K) &
t1: pwrite(f0, 0, anon, 4K)
t0: p0 = pipe()
t0: splice(f0, 0, p0, 4K)
t0: fallocate(f0, PUNCH_HOLE, 0, 4K) &
t1: pwrite(f0, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: splice(p0, f1, 0, 4K)
t0: pread(f1, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)";
    let script = |piped: Run, file: Run| {
        Script::new("xfs", text)
            .open(0, 1)
            .inv(1, &[0])
            .inv(2, &[0])
            .ret(1, Ok(4096), Payload::None)
            .ret(2, Ok(4096), Payload::None)
            .ok(3, &[], 0)
            .ok(4, &[0, 3], 4096)
            .inv(5, &[0])
            .inv(6, &[0])
            .ret(5, Ok(0), Payload::None)
            .ret(6, Ok(4096), Payload::None)
            .call(7, &[0], 4096, read(vec![zeros(4096)]))
            .open(8, 2)
            .ok(9, &[3, 8], 4096)
            .call(10, &[8], 4096, read(vec![piped]))
            .call(11, &[0], 4096, read(vec![file]))
    };
    script(signed(1, 0, 4096), zeros(4096)).explained();
    script(signed(6, 0, 4096), zeros(4096)).explained();
    script(signed(6, 8, 4096), zeros(4096)).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    script(zeros(4096), signed(6, 0, 4096)).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn what_stands_still_is_the_known_livelock_only_with_its_warning_and_shared_extents() {
    let splat = |title: &str| Event::Console(Splat { title: title.into(), text: title.into() });
    let script = |share: &str, events: Vec<Event>| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: {share}
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: madvise(m0+0, 4K, POPULATE_WRITE)"
        );
        let slots: &[u16] = if share.starts_with("fsync") { &[1] } else { &[1, 0] };
        let script = Script::new("xfs-dax", &text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, slots, 0)
            .ok(3, &[0], 0)
            .inv(4, &[3]);
        events.into_iter().fold(script, Script::event)
    };
    let stuck = || Event::End { seq: 99, stuck: vec![program::CallId(4)], helped: vec![] };
    let (hang, warning) = (Event::Down(Down::Hang), "WARNING in insert_pfn");
    script("ficlone(f1, f0)", vec![stuck(), splat(warning)]).explained();
    let down = script("ficlone(f1, f0)", vec![splat(warning), hang.clone()]);
    let truncated = Verdict::Inconclusive(Reason::Truncated);
    assert_eq!(down.verdict("6.12.117"), truncated);
    script("ficlone(f1, f0)", vec![hang.clone()]).anomalous(Kind::Hang, Oracle::Liveness);
    script("ficlone(f1, f0)", vec![stuck()]).anomalous(Kind::Hang, Oracle::Liveness);
    script("fsync(f1)", vec![splat(warning)]).anomalous(Kind::Splat, Oracle::Console);
    script("fsync(f1)", vec![splat("WARNING in dax_insert_entry"), hang.clone()])
        .anomalous(Kind::Hang, Oracle::Liveness);
    script("ficlone(f1, f0)", vec![splat(warning), Event::Down(Down::Panic)])
        .anomalous(Kind::Splat, Oracle::Console);
}

#[test]
fn what_is_submitted_behind_a_drain_waits_for_what_came_before_it() {
    let text = |flag: &str| {
        format!(
            "t0: r0 = io_uring_setup(8)
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pread(f0, 0, anon, 4K) (r0, async) &
t0: fsync(f0) (r0{flag}) &
t0: pwrite(f0, 0, anon, 4K) (r0) &"
        )
    };
    let script = |flag, n, runs| {
        Script::new("xfs", &text(flag))
            .ok(0, &[], 0)
            .open(1, 1)
            .inv(2, &[1, 0])
            .inv(3, &[1, 0])
            .inv(4, &[1, 0])
            .ret(2, Ok(n), read(runs))
            .ret(3, Ok(0), Payload::None)
            .ret(4, Ok(4096), Payload::None)
    };
    script("", 4096, vec![signed(4, 0, 4096)]).explained();
    script(", drain", 0, vec![]).explained();
    script(", drain", 4096, vec![signed(4, 0, 4096)]).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_device_has_no_holes_and_no_positions_behind_its_end() {
    let seek = |what: &str, result| {
        let text = format!("t0: f0 = open(g0, RDWR|DIRECT)\nt0: lseek(f0, {what})");
        Script::new("xfs", &text).ok(0, &[], 4).inv(1, &[0]).ret(1, result, Payload::None)
    };
    seek("1M, SET", Ok(1 << 20)).explained();
    for what in ["1048577, SET", "0, DATA", "0, HOLE"] {
        seek(what, Err(history::Errno(22))).explained();
        seek(what, Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    }
    seek("1M, SET", Err(history::Errno(22))).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_copy_onto_itself_may_bring_back_what_it_read_before_another_write() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t1: pread(f0, 0, m0+0, 4K) &
t0: pwrite(f0, 0, anon, 4K)
t0: load(m0+0, 4K)";
    let script = |races: bool, seen: u16| {
        let script = Script::new("xfs-dax", text).open(0, 1).ok(1, &[0], 4096).ok(2, &[0], 0);
        let script = if races {
            script.inv(3, &[0, 2]).ok(4, &[0], 4096).ret(3, Ok(4096), Payload::None)
        } else {
            script.ok(3, &[0, 2], 4096).ok(4, &[0], 4096)
        };
        script.call(5, &[2], 4096, read(vec![signed(seen, 0, 4096)]))
    };
    script(true, 1).explained();
    script(true, 4).explained();
    script(false, 4).explained();
    script(false, 1).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn a_drain_orders_nothing_of_the_ring_that_had_its_slot_before() {
    let text = "t0: r0 = io_uring_setup(8)
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K) (r0, async) &
t0: r0 = io_uring_setup(8)
t0: pread(f0, 0, anon, 4K) (r0, drain) &";
    let script = |ring, n, runs| {
        Script::new("xfs", text)
            .ok(0, &[], 0)
            .open(1, 1)
            .inv(2, &[1, 0])
            .ok(3, &[], 0)
            .inv(4, &[1, ring])
            .ret(4, Ok(n), read(runs))
            .ret(2, Ok(4096), Payload::None)
    };
    script(3, 0, vec![]).explained();
    script(3, 4096, vec![signed(2, 0, 4096)]).explained();
    script(0, 0, vec![]).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn what_is_stored_past_the_end_may_be_zeroed_by_a_write_that_extends_the_file_meanwhile() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 100)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: pwrite(f0, 8K, anon, 8) &
t1: store(m0+200, 8)
t0: pread(f0, 200, anon, 8)";
    let script = |racing: bool, seen| {
        let script = Script::new("xfs", text).open(0, 1).ok(1, &[0], 100).ok(2, &[0], 0);
        let stored = Payload::Store { fault: None };
        let script = if racing {
            let script = script.inv(3, &[0]).inv(4, &[2]).ret(4, Ok(8), stored);
            script.ret(3, Ok(8), Payload::None)
        } else {
            script.ok(3, &[0], 8).call(4, &[2], 8, stored)
        };
        script.call(5, &[0], 8, read(vec![seen]))
    };
    script(true, zeros(8)).explained();
    script(true, signed(4, 200, 8)).explained();
    script(true, signed(1, 200, 8)).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    script(false, zeros(8)).anomalous(Kind::LostByte, Oracle::Bytes);
}

#[test]
fn a_truncate_may_meet_a_file_before_the_open_that_makes_it_is_on_record() {
    let text = "t0: truncate(\"a\", 8K) &
t1: f0 = open(\"a\", RDWR|CREAT)
t0: statx(f0)";
    let script = |result: history::CallResult, size| {
        let xfs = program::Mount::from_name("xfs").expect("a mount");
        Script::new("xfs", text).inv(0, &[]).open(1, 1).ret(0, result, Payload::None).call(
            2,
            &[1],
            0,
            Payload::File(facts(xfs, 1, size)),
        )
    };
    script(Ok(0), 8192).explained();
    script(Ok(0), 100).anomalous(Kind::WrongResult, Oracle::Bytes);
    script(Err(history::Errno(2)), 0).explained();
    script(Err(history::Errno(2)), 8192).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_direct_read_may_meet_a_preallocation_only_behind_the_end_of_a_cloned_xfs_file() {
    let script = |home: &str, flags: &str, clone: &str, read: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)
t0: f2 = open(\"a\", {flags})
t0: pwrite(f2, 0, anon, 64K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: {clone}
t0: pread(f0, 0, anon, {read})"
        );
        Script::new(home, &text)
            .open(0, 1)
            .open(1, 1)
            .ok(2, &[1], 65536)
            .open(3, 2)
            .ok(4, &[3, 0], 0)
            .fails(5, &[0], 5)
    };
    let clone = "ficlone(f1, f0)";
    script("xfs", "RDWR", clone, "128K").explained();
    let wrong = |s: Script| s.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    wrong(script("xfs", "RDWR", clone, "64K"));
    wrong(script("xfs", "RDWR", "fsync(f1)", "128K"));
    wrong(script("xfs", "RDWR|DIRECT", clone, "128K"));
    wrong(script("xfs-dax", "RDWR", clone, "128K"));
}
