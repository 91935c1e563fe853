//! Held pages, gates, leases and signals: each rule with its neighbouring wrong.

mod common;

use checker::{AnomalyKind as Kind, Oracle};
use common::*;
use history::{Errno, Event, Payload, Run, Splat, stamp};
use program::{Lane, Lease};

const T0: Lane = Lane::Thread(0);
const T1: Lane = Lane::Thread(1);
const EXT4_WAIT: &str = "ext4_break_layouts";
const XFS_WAIT: &str = "xfs_break_dax_layouts";

/// A page of file 1 ("a") goes into the pipe of line 2, by vmsplice#4.
fn spliced(home: &str, rest: &str) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: p0 = pipe()
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: vmsplice(m0+12K, p0, 4K)
{rest}"
    );
    Script::new(home, &text).open(0, 1).ok(1, &[0], 16384).ok(2, &[], 0).ok(3, &[0], 0).ok(
        4,
        &[3, 2],
        4096,
    )
}

#[test]
fn a_truncate_waits_for_the_page_in_a_pipe() {
    let text = "t1: ftruncate(f0, 0) &
t0: read(p0, anon, 4K)";
    let waits = |home, wchan| {
        spliced(home, text)
            .inv(5, &[0])
            .stands(5, 'S', wchan)
            .call(6, &[2], 4096, read(vec![signed(1, 12288, 4096)]))
            .ret(5, Ok(0), Payload::None)
            .end(&[])
    };
    waits("ext4-dax", EXT4_WAIT).explained();
    waits("xfs-dax", XFS_WAIT).explained();
    assert_eq!(
        waits("xfs-dax", XFS_WAIT).waits(),
        ["ftruncate#5 waits for page 3 of xfs-dax:a, held by the pipe of vmsplice#4"]
    );
    let early = |home| {
        spliced(home, text)
            .ok(5, &[0], 0)
            .call(6, &[2], 4096, read(vec![signed(1, 12288, 4096)]))
            .end(&[])
    };
    early("xfs").explained();
    early("ext4-dax").anomalous(Kind::MissingWait, Oracle::Liveness);
    let wrong = early("xfs-dax").anomalous(Kind::MissingWait, Oracle::Liveness);
    assert!(wrong.sentence.contains("page 3 of xfs-dax:a"), "{wrong}");
}

#[test]
fn which_changes_wait_is_in_the_table() {
    let early = |home, change: &str| {
        let text = format!("t1: {change}\nt0: read(p0, anon, 4K)");
        spliced(home, &text).ok(5, &[0], 0).call(6, &[2], 4096, read(vec![signed(1, 12288, 4096)]))
    };
    let punch = "fallocate(f0, PUNCH_HOLE, 0, 4K)";
    early("ext4-dax", punch).anomalous(Kind::MissingWait, Oracle::Liveness);
    early("xfs-dax", punch).anomalous(Kind::MissingWait, Oracle::Liveness);
    early("ext4", punch).explained();
    let plain = "fallocate(f0, 0, 0, 4K)";
    early("ext4-dax", plain).explained();
    early("xfs-dax", plain).anomalous(Kind::MissingWait, Oracle::Liveness);
    // 6.1 punches past the end of file, and zeroes less than a block, without a look.
    let past = "fallocate(f0, PUNCH_HOLE, 16K, 4K)";
    early("ext4-dax", past).anomalous(Kind::MissingWait, Oracle::Liveness);
    early("ext4-dax", past).by("mainline-6.1").explained();
    let part = "fallocate(f0, ZERO_RANGE, 16K, 100)";
    assert!(matches!(
        early("ext4-dax", part).by("mainline-6.1").verdict("6.12.117"),
        checker::Verdict::Explained
    ));
}

#[test]
fn the_zero_page_of_a_hole_holds_nothing() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: ftruncate(f0, 16K)
t0: p0 = pipe()
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: vmsplice(m0+0, p0, 4K)
t0: ftruncate(f0, 0)";
    Script::new("xfs-dax", text)
        .open(0, 1)
        .ok(1, &[0], 0)
        .ok(2, &[], 0)
        .ok(3, &[0], 0)
        .ok(4, &[3, 2], 4096)
        .ok(5, &[0], 0)
        .explained();
}

#[test]
fn a_wait_for_pages_needs_a_page_of_that_file() {
    let text = "t0: f1 = open(\"b\", RDWR|CREAT)
t1: ftruncate(f1, 0) &
t0: read(p0, anon, 4K)";
    let script = || {
        spliced("ext4-dax", text)
            .open(5, 2)
            .inv(6, &[5])
            .stands(6, 'S', EXT4_WAIT)
            .call(7, &[2], 4096, read(vec![signed(1, 12288, 4096)]))
            .ret(6, Ok(0), Payload::None)
            .end(&[])
    };
    let wrong = script().anomalous(Kind::UnexplainedWait, Oracle::Liveness);
    assert!(wrong.sentence.contains("of another file"), "{wrong}");
}

#[test]
fn a_wait_ends_soon_after_the_last_reference() {
    let text = "t1: ftruncate(f0, 0) &
t0: close(p0)
t0: statx(f0)";
    let script = |ms| {
        spliced("ext4-dax", text)
            .inv(5, &[0])
            .stands(5, 'S', EXT4_WAIT)
            .ok(6, &[2], 0)
            .pause(ms)
            .inv(7, &[0])
            .ret(7, Ok(0), Payload::File(facts(program::Mount::Ext4Dax, 1, 16384)))
            .stands(5, 'S', EXT4_WAIT)
            .gates()
            .ret(5, Err(Errno(4)), Payload::None)
            .end(&[5])
    };
    script(10).explained();
    let verdict = script(5000).verdict("6.12.117");
    let checker::Verdict::Anomalous(list) = verdict else { panic!("{verdict:?}") };
    assert!(list.iter().any(|a| a.kind == Kind::Hang), "{list:?}");
}

#[test]
fn a_wait_for_pages_can_be_ended_by_a_signal() {
    let text = "t1: ftruncate(f0, 0) &\nt0: interrupt(t1)\nt0: close(p0)";
    let script = |state, interrupt: bool| {
        let script = spliced("xfs-dax", text).inv(5, &[0]).stands(5, state, XFS_WAIT);
        let script = if interrupt { script.ok(6, &[], 0) } else { script };
        script.ret(5, Err(Errno(4)), Payload::None).ok(7, &[2], 0)
    };
    script('S', true).explained();
    let deaf = spliced("xfs-dax", text).inv(5, &[0]).stands(5, 'S', XFS_WAIT).ok(6, &[], 0);
    let deaf = deaf.pause(5000).ok(7, &[2], 0).ret(5, Ok(0), Payload::None);
    deaf.anomalous(Kind::UnkillableWait, Oracle::Liveness);
    script('S', false).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script('D', true).anomalous(Kind::UnkillableWait, Oracle::Liveness);
}

#[test]
fn who_stands_behind_the_waiter_says_so() {
    let text = "t1: ftruncate(f0, 0) &
t2: pread(f0, 0, anon, 4K) &
t0: close(p0)";
    let script = || {
        spliced("xfs-dax", text)
            .inv(5, &[0])
            .inv(6, &[0])
            .stands(5, 'S', XFS_WAIT)
            .stands(6, 'D', "xfs_ilock")
            .ok(7, &[2], 0)
            .ret(5, Ok(0), Payload::None)
            .ret(6, Ok(0), read(vec![]))
            .end(&[])
    };
    script().explained();
    assert_eq!(
        script().waits()[1],
        "pread#6 stands behind ftruncate#5, which has the lock of xfs-dax:a"
    );
}

#[test]
fn rings_of_two_processes_are_two_rings() {
    let script = |lane: &str, ring: u16| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: c0 = fork()
c0: r0 = io_uring_setup(8)
t0: r0 = io_uring_setup(8)
{lane}: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
{lane}: pwrite(f1, 0, anon, 4K) (r0)
t1: pread(f0, 0, anon, 4K) (r0)
t0: release(g0)"
        );
        Script::new("ext4", &text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[], 77)
            .ok(3, &[], 9)
            .ok(4, &[], 9)
            .ok(5, &[], 10)
            .ok(6, &[], 0)
            .inv(7, &[5, ring])
            .stands(7, 'S', "io_cqring_wait")
            .inv(8, &[0, 4])
            .stands(8, 'S', "io_cqring_wait")
            .gates()
            .ret(7, Ok(4096), Payload::None)
            .ret(8, Ok(4096), read(vec![signed(1, 0, 4096)]))
            .end(&[7, 8])
    };
    script("t2", 4).explained();
    let wrong = script("c0", 3).anomalous(Kind::UnexplainedWait, Oracle::Liveness);
    assert!(wrong.sentence.contains("pread#8"), "{wrong}");
}

#[test]
fn a_request_may_stand_where_another_of_its_ring_waits_for_a_page() {
    let chain = "t0: ftruncate(f0, 0) (r0, hardlink) &\nt0: pread(f0, 0, anon, 4K) (r0) &";
    let close = "t0: close(p0)";
    let setup = "t0: r0 = io_uring_setup(8)";
    let held = format!("{setup}\n{chain}\n{close}");
    spliced("xfs-dax", &held)
        .ok(5, &[], 9)
        .inv(6, &[0, 5])
        .inv(7, &[0, 5])
        .stands(7, 'S', XFS_WAIT)
        .ok(8, &[2], 0)
        .ret(6, Ok(0), Payload::None)
        .ret(7, Ok(0), read(vec![]))
        .end(&[])
        .explained();
    // A worker may be at a request of any ring of the process.
    let another = "t1: pread(f1, 0, anon, 4K) (r1) &";
    let rings = format!(
        "{setup}\nt1: r1 = io_uring_setup(8)\nt1: f1 = open(g0, RDWR|DIRECT)\nt0: hold(g0)"
    );
    let script = |chain: &str| {
        spliced("xfs-dax", &format!("{rings}\n{chain}\n{another}\n{close}"))
            .ok(5, &[], 9)
            .ok(6, &[], 10)
            .ok(7, &[], 11)
            .ok(8, &[], 0)
    };
    script("t0: ftruncate(f0, 0) (r0) &")
        .inv(9, &[0, 5])
        .inv(10, &[7, 6])
        .stands(10, 'S', XFS_WAIT)
        .ok(11, &[2], 0)
        .ret(9, Ok(0), Payload::None)
        .explained();
    script("t0: fsync(f0) (r0) &")
        .inv(9, &[0, 5])
        .inv(10, &[7, 6])
        .stands(10, 'S', XFS_WAIT)
        .anomalous(Kind::UnexplainedWait, Oracle::Liveness);
    let given_back = format!("{setup}\n{close}\n{chain}");
    spliced("xfs-dax", &given_back)
        .ok(5, &[], 9)
        .ok(6, &[2], 0)
        .pause(5000)
        .inv(7, &[0, 5])
        .inv(8, &[0, 5])
        .stands(8, 'S', XFS_WAIT)
        .ret(7, Ok(0), Payload::None)
        .ret(8, Ok(0), read(vec![]))
        .end(&[])
        .anomalous(Kind::UnexplainedWait, Oracle::Liveness);
}

#[test]
fn a_reader_of_a_pipe_sees_the_page_as_it_is_then_and_never_another_file() {
    let text = "t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 16K)
t0: store(m0+12K, 4K)
t0: read(p0, anon, 4K)";
    let script = |home, runs| {
        spliced(home, text)
            .open(5, 2)
            .ok(6, &[5], 16384)
            .call(7, &[3], 4096, Payload::Store { fault: None })
            .call(8, &[2], 4096, read(runs))
    };
    for home in ["ext4", "xfs-dax"] {
        script(home, vec![signed(1, 12288, 4096)]).explained();
        script(home, vec![signed(7, 12288, 4096)]).explained();
        script(home, vec![signed(6, 12288, 4096)]).anomalous(Kind::ForeignByte, Oracle::Leak);
    }
}

#[test]
fn tee_keeps_the_page_when_the_first_pipe_is_read() {
    let text = "t0: p1 = pipe()
t0: tee(p0, p1, 4K)
t0: read(p0, anon, 4K)
t1: ftruncate(f0, 0)
t0: read(p1, anon, 4K)";
    let data = || read(vec![signed(1, 12288, 4096)]);
    let begin =
        || spliced("ext4-dax", text).ok(5, &[], 0).ok(6, &[2, 5], 4096).call(7, &[2], 4096, data());
    begin()
        .ok(8, &[0], 0)
        .call(9, &[5], 4096, data())
        .anomalous(Kind::MissingWait, Oracle::Liveness);
    let waits = begin().inv(8, &[0]).stands(8, 'S', EXT4_WAIT);
    let waits = waits.call(9, &[5], 4096, data()).ret(8, Ok(0), Payload::None);
    waits.explained();
}

/// What lies on the device of g0 from `offset` on.
fn device(offset: u64, len: u64) -> Run {
    Run::Signed { run: RUN, call: stamp::call_gate(0), offset, len }
}

/// A read of g0 into page 1 of file 1 stands still.
fn held_read(home: &str, rest: &str) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 8K, m0+4K, 4K) &
{rest}"
    );
    Script::new(home, &text)
        .open(0, 1)
        .ok(1, &[0], 16384)
        .ok(2, &[0], 0)
        .ok(3, &[], 4)
        .ok(4, &[], 0)
        .inv(5, &[3, 2])
        .stands(5, 'D', "submit_bio_wait")
}

#[test]
fn a_held_read_lands_when_its_gate_lets_go() {
    let text = "t0: pread(f0, 4K, anon, 4K)\nt0: release(g0)\nt0: pread(f0, 4K, anon, 4K)";
    let script = |before, after| {
        held_read("xfs-dax", text)
            .call(6, &[0], 4096, read(vec![before]))
            .inv(7, &[])
            .ret(5, Ok(4096), Payload::None)
            .ret(7, Ok(0), Payload::None)
            .call(8, &[0], 4096, read(vec![after]))
    };
    script(signed(1, 4096, 4096), device(8192, 4096)).explained();
    script(device(8192, 4096), device(8192, 4096)).anomalous(Kind::ForeignByte, Oracle::Leak);
    script(signed(1, 4096, 4096), signed(1, 4096, 4096)).anomalous(Kind::StaleByte, Oracle::Bytes);
    assert_eq!(
        script(signed(1, 4096, 4096), device(8192, 4096)).waits(),
        ["pread#5 waits for g0, which is held"]
    );
}

#[test]
fn a_pin_of_a_held_read_holds_its_page() {
    let text = "t2: fallocate(f0, PUNCH_HOLE, 12K, 4K) &\nt0: release(g0)";
    let ends = |script: Script| {
        script.inv(7, &[]).ret(5, Ok(4096), Payload::None).ret(7, Ok(0), Payload::None)
    };
    let waits = |home, wchan| {
        let script = held_read(home, text).inv(6, &[0]).stands(6, 'S', wchan);
        ends(script).ret(6, Ok(0), Payload::None).end(&[])
    };
    waits("xfs-dax", XFS_WAIT).explained();
    assert_eq!(
        waits("xfs-dax", XFS_WAIT).waits()[1],
        "fallocate#6 waits for page 1 of xfs-dax:a, held by pread#5, whose I/O is with g0"
    );
    ends(held_read("ext4-dax", text).ok(6, &[0], 0)).anomalous(Kind::MissingWait, Oracle::Liveness);
    ends(held_read("ext4", text).ok(6, &[0], 0)).explained();
}

#[test]
fn what_a_device_gets_is_what_the_held_page_holds() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: f2 = open(\"b\", RDWR|CREAT)
t0: pwrite(f2, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pwrite(f1, 0, m0+0, 4K) &
t0: store(m0+0, 4K)
t0: release(g0)
t0: pread(f1, 0, anon, 4K)";
    let script = |seen| {
        Script::new("ext4-dax", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .open(2, 2)
            .ok(3, &[2], 4096)
            .ok(4, &[0], 0)
            .ok(5, &[], 5)
            .ok(6, &[], 0)
            .inv(7, &[5, 4])
            .stands(7, 'D', "submit_bio_wait")
            .call(8, &[4], 4096, Payload::Store { fault: None })
            .inv(9, &[])
            .ret(7, Ok(4096), Payload::None)
            .ret(9, Ok(0), Payload::None)
            .call(10, &[5], 4096, read(vec![seen]))
    };
    script(signed(8, 0, 4096)).explained();
    // Stored before the gate let go: the older bytes are too old, another file's are nobody's business.
    script(signed(1, 0, 4096)).anomalous(Kind::ForeignByte, Oracle::Leak);
    script(signed(3, 0, 4096)).anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_gate_fails_what_it_was_told_to_fail() {
    let script = |result| {
        held_read("xfs", "t0: release(g0, EIO)").inv(6, &[]).ret(5, result, Payload::None).ret(
            6,
            Ok(0),
            Payload::None,
        )
    };
    script(Err(Errno(5))).explained();
    script(Ok(4096)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script(Err(Errno(14))).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn memory_moves_by_process_vm_and_through_proc() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, R, SHARED)
t0: process_vm_readv(m0+0, g2, 4K)
t0: proc_mem_pread(m0+4K, 4K)
t0: proc_mem_pwrite(m0+0, 4K)
t0: m1 = mmap(f0, 0, 8K, RW, SHARED)
t0: process_vm_writev(m1+4K, g2, 4K)
t0: pread(f0, 0, anon, 8K)";
    let script = |first, write: Result<u64, Errno>, last| {
        Script::new("xfs-dax", text)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[0], 0)
            .call(3, &[2], 4096, read(vec![first]))
            .call(4, &[2], 4096, read(vec![signed(1, 4096, 4096)]))
            .inv(5, &[2])
            .ret(5, write, Payload::None)
            .ok(6, &[0], 0)
            .ok(7, &[6], 4096)
            .call(8, &[0], 8192, read(vec![signed(1, 0, 4096), last]))
    };
    let refused = Err(Errno(5));
    script(signed(1, 0, 4096), refused, signed(7, 4096, 4096)).explained();
    script(zeros(4096), refused, signed(7, 4096, 4096)).anomalous(Kind::LostByte, Oracle::Bytes);
    script(signed(1, 0, 4096), Ok(4096), signed(7, 4096, 4096))
        .anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script(signed(1, 0, 4096), refused, signed(1, 4096, 4096))
        .anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn pins_are_given_back() {
    let script = |after| {
        held_read("xfs", "t0: release(g0)")
            .inv(6, &[])
            .ret(5, Ok(4096), Payload::None)
            .ret(6, Ok(0), Payload::None)
            .event(Event::Pins { before: 3, after })
            .end(&[])
    };
    script(3).explained();
    let wrong = script(4).anomalous(Kind::UnbalancedPins, Oracle::Pins);
    assert!(wrong.sentence.contains("pread#5"), "{wrong}");
    script(2).anomalous(Kind::UnbalancedPins, Oracle::Pins);
}

fn registers(home: &str, sharing: &str) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, {sharing})
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 8K)"
    );
    Script::new(home, &text).open(0, 1).ok(1, &[0], 8192).ok(2, &[0], 0).ok(3, &[], 0)
}

#[test]
fn long_pins_are_refused_by_the_table() {
    let (mine, wrong) = (Kind::UnexplainedErrno, Oracle::Errnos);
    registers("xfs-dax", "SHARED").fails(4, &[3, 2], 95).explained();
    registers("xfs-dax", "SHARED").ok(4, &[3, 2], 0).anomalous(mine, wrong);
    registers("xfs-dax", "SHARED").fails(4, &[3, 2], 1).anomalous(mine, wrong);
    registers("ext4", "SHARED").fails(4, &[3, 2], 14).explained();
    registers("ext4", "SHARED").ok(4, &[3, 2], 0).anomalous(mine, wrong);
    registers("ext4", "PRIVATE").ok(4, &[3, 2], 0).explained();
    registers("ext4", "PRIVATE").fails(4, &[3, 2], 95).anomalous(mine, wrong);
    registers("ext4", "PRIVATE").fails(4, &[3, 2], 95).by("mainline-6.1").explained();
    registers("ext4-dax", "PRIVATE").fails(4, &[3, 2], 95).explained();
    registers("ext4-dax", "PRIVATE").ok(4, &[3, 2], 0).anomalous(mine, wrong);
    let leased = |script: Script| script.by("layout-lease");
    leased(registers("xfs-dax", "SHARED").fails(4, &[3, 2], 1)).explained();
    leased(registers("xfs-dax", "SHARED").ok(4, &[3, 2], 0)).anomalous(mine, wrong);
    registers("xfs-dax", "SHARED").ok(4, &[3, 2], 0).by("revoke").explained();
}

#[test]
fn a_pinned_page_under_a_layout_lease_is_not_truncated() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 8K)
t1: fallocate(f0, PUNCH_HOLE, 8K, 4K)
t1: ftruncate(f0, 0)";
    let script = |policy, punch: Result<u64, Errno>, truncate: Result<u64, Errno>| {
        Script::new("xfs-dax", text)
            .by(policy)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[0], 0)
            .ok(5, &[3, 2], 0)
            .inv(6, &[0])
            .ret(6, punch, Payload::None)
            .inv(7, &[0])
            .ret(7, truncate, Payload::None)
    };
    let busy = Err(Errno(26));
    for policy in ["layout-lease", "layout-lease-strict"] {
        script(policy, Ok(0), busy).explained();
        script(policy, busy, busy).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
        script(policy, Ok(0), Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    }
    script("mainline", Ok(0), busy).anomalous(Kind::UnexplainedErrno, Oracle::Leases);
}

/// A region of a shared mapping of "a", which has 16K.
fn region(policy: &str, home: &str, access: &str, result: Result<u64, Errno>) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: x0 = ibv_reg_mr(m0+0, 8K, {access})"
    );
    let script = Script::new(home, &text).by(policy).open(0, 1).ok(1, &[0], 16384).ok(2, &[0], 0);
    script.inv(3, &[2]).ret(3, result, Payload::None)
}

#[test]
fn memory_regions_are_granted_as_each_kernel_grants_them() {
    let (refused, fault) = (Err(Errno(95)), Err(Errno(14)));
    for access in ["LOCAL_READ", "LOCAL_WRITE"] {
        for policy in ["mainline-6.12", "mainline-6.1"] {
            for home in ["ext4-dax", "xfs-dax"] {
                region(policy, home, access, refused).explained();
                for wrong in [Ok(0), fault] {
                    let wrong = region(policy, home, access, wrong);
                    wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
                }
            }
            let wrong = region(policy, "ext4", access, refused);
            wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
        }
        region("mainline-6.1", "xfs", access, Ok(0)).explained();
    }
    region("mainline-6.12", "xfs", "LOCAL_READ", Ok(0)).explained();
    region("mainline-6.12", "xfs", "LOCAL_WRITE", fault).explained();
    let wrong = region("mainline-6.12", "xfs", "LOCAL_WRITE", Ok(0));
    wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    let wrong = region("mainline-6.12", "xfs", "LOCAL_READ", fault);
    wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_region_to_be_read_wants_to_write_in_6_1_alone() {
    let script = |policy: &str, sharing: &str, result| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, R, {sharing})
t0: x0 = ibv_reg_mr(m0+0, 8K, LOCAL_READ)"
        );
        let script = Script::new("ext4", &text).by(policy);
        let script = script.open(0, 1).ok(1, &[0], 16384).ok(2, &[0], 0);
        script.inv(3, &[2]).ret(3, result, Payload::None)
    };
    let fault = Err(Errno(14));
    script("mainline-6.12", "SHARED", Ok(0)).explained();
    script("mainline-6.12", "SHARED", fault).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script("mainline-6.1", "SHARED", fault).explained();
    script("mainline-6.1", "SHARED", Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    // By force, which a private mapping allows.
    script("mainline-6.1", "PRIVATE", Ok(0)).explained();
    script("mainline-6.1", "PRIVATE", fault).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_region_holds_its_pages_until_it_is_deregistered() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: setlease(f0, LAYOUT)
t0: x0 = ibv_reg_mr(m0+0, 8K, LOCAL_READ)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K)
t1: fallocate(f0, PUNCH_HOLE, 8K, 4K)
t0: ibv_dereg_mr(x0)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K)";
    let busy = Err(Errno(26));
    let script = |first, other, after| {
        Script::new("xfs-dax", text)
            .by("layout-lease")
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[0], 0)
            .ok(4, &[2], 0)
            .inv(5, &[0])
            .ret(5, first, Payload::None)
            .inv(6, &[0])
            .ret(6, other, Payload::None)
            .ok(7, &[4], 0)
            .inv(8, &[0])
            .ret(8, after, Payload::None)
    };
    script(busy, Ok(0), Ok(0)).explained();
    script(Ok(0), Ok(0), Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script(busy, busy, Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script(busy, Ok(0), busy).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

/// Two regions of private pages of "a", of which the second one's mapping is given up before bytes go there.
fn rdma(after: &str) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: store(m0+0, 8K)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: x1 = ibv_reg_mr(m0+4K, 4K, LOCAL_WRITE)
{after}"
    );
    let script = Script::new("ext4", &text).open(0, 1).ok(1, &[0], 8192).ok(2, &[0], 0);
    script.ok(3, &[2], 8192).ok(4, &[2], 0).ok(5, &[2], 0)
}

#[test]
fn rdma_writes_where_the_region_is() {
    let after = "t0: rdma_write(x0+0, x1+512, 1K)
t0: load(m0+4K, 4K)";
    let script = |runs| rdma(after).ok(6, &[4, 5], 1024).call(7, &[2], 4096, read(runs));
    let moved = vec![signed(3, 4096, 512), signed(3, 0, 1024), signed(3, 5632, 2560)];
    script(moved).explained();
    script(vec![signed(3, 4096, 4096)]).anomalous(Kind::StaleByte, Oracle::Bytes);
    rdma(after).ok(6, &[4, 5], 512).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn rdma_does_not_follow_a_mapping() {
    let after = "t0: madvise(m0+4K, 4K, DONTNEED)
t0: rdma_write(x0+0, x1+0, 4K)
t0: load(m0+4K, 4K)
t0: rdma_read(x1+0, x0+0, 4K)";
    let script = |run| {
        let script = rdma(after).ok(6, &[2], 0).ok(7, &[4, 5], 4096);
        script.call(8, &[2], 4096, read(vec![run])).ok(9, &[5, 4], 4096)
    };
    script(signed(1, 4096, 4096)).explained();
    script(signed(3, 0, 4096)).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    script(signed(3, 4096, 4096)).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn rdma_needs_a_region_that_allows_it() {
    let after = "t0: rdma_write(x1+0, x0+0, 8)
t0: rdma_read(x0+0, x1+0, 8)
t0: rdma_read(x1+0, x0+0, 8)";
    let script = |write, read, fine| {
        let script = rdma(after).inv(6, &[5, 4]).ret(6, write, Payload::None);
        let script = script.inv(7, &[4, 5]).ret(7, read, Payload::None);
        script.inv(8, &[5, 4]).ret(8, fine, Payload::None)
    };
    let (far, near) = (Err(Errno(13)), Err(Errno(14)));
    script(far, near, Ok(8)).explained();
    for wrong in [script(Ok(8), near, Ok(8)), script(far, far, Ok(8)), script(far, near, far)] {
        wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    }
}

/// A test of long-term pins in a mapping of "a", which has 16K; with SHARED pages dirty, with PRIVATE copied before.
fn longterm_test(home: &str, sharing: &str, flags: &str, result: Result<u64, Errno>) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, {sharing})
t0: store(m0+0, 16K)
t0: pin_longterm_test_start(m0+0, 8K, {flags})"
    );
    let script = Script::new(home, &text).open(0, 1).ok(1, &[0], 16384).ok(2, &[0], 0);
    script.ok(3, &[2], 16384).inv(4, &[2]).ret(4, result, Payload::None)
}

#[test]
fn tests_of_long_pins_are_granted_by_the_table() {
    let (refused, fault) = (Err(Errno(95)), Err(Errno(14)));
    let wrong = |home, sharing, flags, result| {
        let wrong = longterm_test(home, sharing, flags, result);
        wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    };
    for flags in ["0", "WRITE", "FAST", "WRITE|FAST"] {
        longterm_test("ext4-dax", "SHARED", flags, refused).explained();
        wrong("ext4-dax", "SHARED", flags, Ok(0));
        wrong("xfs-dax", "SHARED", flags, fault);
        longterm_test("xfs", "PRIVATE", flags, Ok(0)).explained();
        wrong("ext4", "PRIVATE", flags, fault);
        // The slow way looks at the mapping first, whatever its pages are.
        let copied = if flags.contains("FAST") { Ok(0) } else { refused };
        longterm_test("xfs-dax", "PRIVATE", flags, copied).explained();
        let cached = if flags.contains("WRITE") { fault } else { Ok(0) };
        longterm_test("xfs", "SHARED", flags, cached).explained();
        wrong("ext4", "SHARED", flags, refused);
    }
    wrong("ext4-dax", "PRIVATE", "WRITE", Ok(0));
    wrong("ext4", "SHARED", "WRITE|FAST", Ok(0));
    wrong("ext4", "SHARED", "FAST", fault);
}

#[test]
fn there_is_one_test_of_long_pins_at_a_time() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pin_longterm_test_start(anon, 4K, WRITE)
t1: pin_longterm_test_start(anon, 4K, WRITE)
t1: pin_longterm_test_stop()
t1: pin_longterm_test_read()
t1: pin_longterm_test_start(anon+8, 4K, 0)
t1: pin_longterm_test_start(anon, 4K, 0)";
    let script = |second, read, odd, last| {
        let script = Script::new("ext4", text).open(0, 1).ok(1, &[], 0);
        let script = script.inv(2, &[]).ret(2, second, Payload::None).ok(3, &[], 0);
        let script = script.inv(4, &[]).ret(4, read, Payload::None);
        script.inv(5, &[]).ret(5, odd, Payload::None).inv(6, &[]).ret(6, last, Payload::None)
    };
    let invalid = Err(Errno(22));
    script(invalid, invalid, invalid, Ok(0)).explained();
    for wrong in [
        script(Ok(0), invalid, invalid, Ok(0)),
        script(invalid, Ok(0), invalid, Ok(0)),
        script(invalid, invalid, Ok(0), Ok(0)),
        script(invalid, invalid, invalid, invalid),
    ] {
        wrong.anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    }
}

#[test]
fn pinned_pages_show_what_they_had_and_nothing_that_came_after_they_were_cut_off() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: pin_longterm_test_start(m0+0, 4K, 0)
t0: store(m0+8, 8)
t0: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 4K)
t0: pin_longterm_test_read()";
    let script = |runs| {
        Script::new("xfs", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[2], 0)
            .ok(4, &[2], 8)
            .ok(5, &[0], 0)
            .ok(6, &[0], 4096)
            .call(7, &[], 0, read(runs))
    };
    script(vec![signed(1, 0, 8), signed(4, 8, 8), signed(1, 16, 4080)]).explained();
    let wrong = script(vec![signed(6, 0, 4096)]).anomalous(Kind::StaleByte, Oracle::Bytes);
    assert!(wrong.sentence.contains("in the pinned pages of xfs:a"), "{wrong}");
    script(vec![signed(1, 0, 512)]).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn a_warning_of_gup_test_is_about_the_page_of_zeros() {
    let text = |flags| {
        format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: ftruncate(f0, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: pin_basic_test(m0+0, 8K, {flags})"
        )
    };
    let script = |home, flags, bytes| {
        let splat = Splat { title: "WARNING in __gup_test_ioctl".into(), text: String::new() };
        let script = Script::new(home, &text(flags)).open(0, 1).ok(1, &[0], 0).ok(2, &[0], 0);
        script.ok(3, &[2], bytes).event(Event::Console(splat))
    };
    script("ext4-dax", "FAST", 8192).explained();
    script("ext4-dax", "WRITE", 8192).anomalous(Kind::Splat, Oracle::Console);
    script("ext4", "FAST", 8192).anomalous(Kind::Splat, Oracle::Console);
    script("ext4-dax", "FAST", 4096).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn an_update_lets_go_of_one_buffer_and_holds_another() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 8K)
t0: update_buffers(r0, m0+8K, 8K)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K)
t1: fallocate(f0, PUNCH_HOLE, 8K, 4K)";
    let script = |places, old: Result<u64, Errno>, new: Result<u64, Errno>| {
        Script::new("xfs-dax", text)
            .by("layout-lease")
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[0], 0)
            .ok(5, &[3, 2], 0)
            .ok(6, &[3, 2], places)
            .inv(7, &[0])
            .ret(7, old, Payload::None)
            .inv(8, &[0])
            .ret(8, new, Payload::None)
    };
    let busy = Err(Errno(26));
    script(1, Ok(0), busy).explained();
    script(1, Ok(0), Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    // The kernel may take its time to let go of the old one.
    script(1, busy, busy).explained();
    script(2, Ok(0), busy).anomalous(Kind::WrongResult, Oracle::Bytes);
}

#[test]
fn buffers_are_replaced_and_shared_where_there_are_some() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: r1 = io_uring_setup(8)
t0: update_buffers(r0, m0+0, 8K)
t0: clone_buffers(r1, r0)
t0: register_buffers(r0, m0+0, 8K)
t0: clone_buffers(r1, r0)
t0: unregister_buffers(r0)
t0: unregister_buffers(r1)";
    let script = |policy, results: [Result<u64, Errno>; 6]| {
        let begin = Script::new("ext4", text)
            .by(policy)
            .open(0, 1)
            .ok(1, &[0], 8192)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[], 0);
        let slots: [&[u16]; 6] = [&[3, 2], &[4, 3], &[3, 2], &[4, 3], &[3], &[4]];
        (5..).zip(slots).zip(results).fold(begin, |script, ((line, slots), result)| {
            script.inv(line, slots).ret(line, result, Payload::None)
        })
    };
    let (none, unknown, mine) = (Err(Errno(6)), Err(Errno(22)), Kind::UnexplainedErrno);
    let right = [none, none, Ok(0), Ok(0), Ok(0), Ok(0)];
    script("mainline-6.12", right).explained();
    for (line, wrong) in [(0, Ok(1)), (1, Ok(0)), (1, unknown), (3, none), (4, none), (5, none)] {
        let mut results = right;
        results[line] = wrong;
        script("mainline-6.12", results).anomalous(mine, Oracle::Errnos);
    }
    let refused = Err(Errno(95));
    let old = [none, unknown, refused, unknown, none, none];
    script("mainline-6.1", old).explained();
    for (line, wrong) in [(1, none), (3, Ok(0))] {
        let mut results = old;
        results[line] = wrong;
        script("mainline-6.1", results).anomalous(mine, Oracle::Errnos);
    }
}

#[test]
fn a_chain_fails_from_its_head_on_when_a_buffer_is_not_there() {
    let text = |link: &str| {
        format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: fsync(f0) (r0, link)
t0: pread(f0, 0, m0+0, 8) (r0, fixed, {link})
t0: fsync(f0) (r0)"
        )
    };
    let script = |link: &str, [head, fixed, last]: [Result<u64, Errno>; 3]| {
        let begin = Script::new("ext4", &text(link)).open(0, 1).ok(1, &[0], 8192).ok(2, &[0], 0);
        let begin = begin.ok(3, &[], 0).inv(4, &[0, 3]).inv(5, &[0, 2, 3]).inv(6, &[0, 3]);
        let all = begin.ret(4, head, Payload::None).ret(5, fixed, Payload::None);
        all.ret(6, last, Payload::None)
    };
    let (cancelled, fault) = (Err(Errno(125)), Err(Errno(14)));
    let (mine, oracle) = (Kind::UnexplainedErrno, Oracle::Errnos);
    script("link", [cancelled, fault, cancelled]).explained();
    script("hardlink", [cancelled, fault, cancelled]).explained();
    script("link", [cancelled, Ok(8), Ok(0)]).anomalous(mine, oracle);
    script("link", [cancelled, fault, Ok(0)]).anomalous(mine, oracle);
}

#[test]
fn a_strict_layout_lease_is_not_given_back_before_its_pins() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 8K)
t1: setlease(f0, UNLCK) &
t0: unregister_buffers(r0)";
    let begin = |policy| {
        Script::new("xfs-dax", text)
            .by(policy)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[0], 0)
            .ok(5, &[3, 2], 0)
            .inv(6, &[0])
    };
    let early = |policy| begin(policy).ret(6, Ok(0), Payload::None).ok(7, &[3], 0);
    early("layout-lease").explained();
    early("layout-lease-strict").anomalous(Kind::MissingWait, Oracle::Liveness);
    let waits = begin("layout-lease-strict").stands(6, 'S', "layout_lease_wait");
    let waits = waits.ok(7, &[3], 0).ret(6, Ok(0), Payload::None);
    waits.end(&[]).explained();
}

#[test]
fn a_page_that_was_taken_away_is_gone_for_its_mapping() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 8K)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K)
t0: load(m0+0, 8)
t0: load(m0+8K, 8)";
    let script = |n, first, second: Payload| {
        Script::new("xfs-dax", text)
            .by("revoke")
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[3, 2], 0)
            .ok(5, &[0], 0)
            .call(6, &[2], n, first)
            .call(7, &[2], 8, second)
    };
    let there = || read(vec![signed(1, 8192, 8)]);
    script(0, fault(vec![], 7, 2, 0), there()).explained();
    script(8, read(vec![zeros(8)]), there()).anomalous(Kind::MissingSignal, Oracle::Signals);
}

#[test]
fn open_files_travel_in_order() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8)
t0: pwrite(f1, 0, anon, 8)
t0: send_fd(f0)
t0: send_fd(f1)
t0: f2 = recv_fd()
t0: pread(f2, 0, anon, 8)
t0: f3 = recv_fd()
t0: f4 = recv_fd()";
    let script = |seen, last: i32| {
        Script::new("xfs", text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[0], 8)
            .ok(3, &[1], 8)
            .ok(4, &[0], 0)
            .ok(5, &[1], 0)
            .ok(6, &[], 5)
            .call(7, &[6], 8, read(vec![signed(seen, 0, 8)]))
            .inv(8, &[])
            .ret(8, if last == 8 { Err(Errno(11)) } else { Ok(6) }, Payload::None)
            .fails(9, &[], 11)
    };
    script(2, 9).explained();
    script(3, 9).anomalous(Kind::ForeignByte, Oracle::Leak);
    script(2, 8).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
}

/// Thread t0 has a write lease on file 1, with descriptor 3; t1 breaks it.
fn leased(settings: &str, breaker: &str) -> Script {
    let lines = if settings.is_empty() { String::new() } else { format!("{settings}\n") };
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
{lines}t0: setlease(f0, WRLCK)
{breaker}"
    );
    let set = 1 + settings.lines().count() as u16;
    let mut script = Script::new("ext4", &text).open(0, 1);
    for call in 1..=set {
        script = script.ok(call, &[0], 0);
    }
    script
}

#[test]
fn a_lease_is_not_granted_beside_a_writer() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"a\", RDONLY)
t0: setlease(f1, RDLCK)
t0: close(f0)
t0: setlease(f1, RDLCK)";
    let script = |first: Result<u64, Errno>, second: Result<u64, Errno>| {
        Script::new("xfs", text)
            .open(0, 1)
            .open(1, 1)
            .inv(2, &[1])
            .ret(2, first, Payload::None)
            .ok(3, &[0], 0)
            .inv(4, &[1])
            .ret(4, second, Payload::None)
    };
    let again = Err(Errno(11));
    script(again, Ok(0)).explained();
    script(Ok(0), Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Leases);
    script(again, again).anomalous(Kind::UnexplainedErrno, Oracle::Leases);
    script(Err(Errno(22)), Ok(0)).anomalous(Kind::UnexplainedErrno, Oracle::Leases);
}

#[test]
fn a_breaker_waits_until_the_lease_is_gone() {
    let breaker = "t1: f1 = open(\"a\", RDWR) &\nt0: setlease(f0, UNLCK)";
    let open = || Payload::File(facts(program::Mount::Ext4, 1, 0));
    let waits = || {
        leased("", breaker)
            .inv(2, &[])
            .stands(2, 'S', "__break_lease")
            .signal(T0, 29, 0)
            .ok(3, &[0], 0)
            .ret(2, Ok(4), open())
            .end(&[])
    };
    waits().explained();
    assert_eq!(waits().waits(), ["open#2 waits for the lease of setlease#1 on ext4:a"]);
    leased("", breaker)
        .call(2, &[], 4, open())
        .signal(T0, 29, 0)
        .ok(3, &[0], 0)
        .end(&[])
        .anomalous(Kind::MissingWait, Oracle::Leases);
    // It goes by itself after 45 s, and not before.
    let expires = |ms| {
        leased("", breaker)
            .inv(2, &[])
            .stands(2, 'S', "__break_lease")
            .signal(T0, 29, 0)
            .pause(ms)
            .ret(2, Ok(4), open())
            .fails(3, &[0], 11)
            .end(&[])
    };
    expires(45_100).explained();
    expires(20_000).anomalous(Kind::MissingWait, Oracle::Leases);
}

#[test]
fn a_breaker_that_set_out_before_the_lease_was_taken_breaks_it() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: setlease(f0, WRLCK)
t0: setlease(f0, UNLCK)
t1: f1 = open(\"a\", RDWR) &
t0: setlease(f0, WRLCK)
t0: getlease(f0)
t0: setlease(f0, UNLCK)
t0: getlease(f0)";
    let open = || Payload::File(facts(program::Mount::Ext4, 1, 0));
    let script = |lease, later| {
        Script::new("ext4", text)
            .open(0, 1)
            .ok(1, &[0], 0)
            .ok(2, &[0], 0)
            .inv(3, &[])
            .ok(4, &[0], 0)
            .signal(T0, 29, 0)
            .ok(5, &[0], lease)
            .ok(6, &[0], 0)
            .ok(7, &[0], later)
            .ret(3, Ok(4), open())
            .end(&[])
    };
    script(2, 2).explained();
    script(0, 2).anomalous(Kind::WrongResult, Oracle::Leases);
    script(2, 1).anomalous(Kind::WrongResult, Oracle::Leases);
}

#[test]
fn a_breaker_does_not_take_the_lease_of_a_descriptor_that_was_copied_meanwhile() {
    let breaker = "t1: f1 = open(\"a\", RDWR) &
t0: f2 = dup(f0)
t0: close(f0)
t0: interrupt(t1)
t0: setlease(f2, UNLCK)
t0: setlease(f2, UNLCK)";
    let begin = || {
        leased("", breaker)
            .inv(2, &[])
            .stands(2, 'S', "__break_lease")
            .signal(T0, 29, 0)
            .ok(3, &[0], 4)
            .ok(4, &[0], 0)
            .ok(5, &[], 0)
            .ret(2, Err(Errno(4)), Payload::None)
            .ok(6, &[3], 0)
    };
    begin().fails(7, &[3], 11).end(&[]).explained();
    // It was given back once.
    begin().ok(7, &[3], 0).end(&[]).anomalous(Kind::UnexplainedErrno, Oracle::Leases);
}

#[test]
fn a_lease_on_another_file_is_nobody_s_reason() {
    let breaker = "t1: f1 = open(\"b\", RDWR|CREAT) &";
    let open = || Payload::File(facts(program::Mount::Ext4, 2, 0));
    leased("", breaker)
        .inv(2, &[])
        .stands(2, 'S', "__break_lease")
        .ret(2, Ok(4), open())
        .end(&[])
        .anomalous(Kind::UnexplainedWait, Oracle::Liveness);
}

#[test]
fn a_non_blocking_breaker_is_told_to_try_again() {
    let breaker = "t1: f1 = open(\"a\", RDWR|NONBLOCK)\nt0: getlease(f0)";
    let script =
        |lease| leased("", breaker).fails(2, &[], 11).signal(T0, 29, 0).ok(3, &[0], lease).end(&[]);
    script(2).explained();
    script(1).anomalous(Kind::WrongResult, Oracle::Leases);
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)\nt1: f1 = open(\"a\", RDWR|NONBLOCK)";
    Script::new("ext4", text)
        .open(0, 1)
        .fails(1, &[], 11)
        .anomalous(Kind::UnexplainedErrno, Oracle::Leases);
}

const SETTINGS: &str = "t0: setsig(f0, RT1)\nt0: setown_ex(f0, TID, t0)";

fn broken(settings: &str) -> Script {
    let breaker = "t1: f1 = open(\"a\", RDWR|NONBLOCK)";
    let call = 2 + settings.lines().count() as u16;
    leased(settings, breaker).fails(call, &[], 11)
}

#[test]
fn the_holder_of_a_broken_lease_is_told_once_and_in_person() {
    broken(SETTINGS).signal(T0, 35, 3).end(&[]).explained();
    broken(SETTINGS).end(&[]).anomalous(Kind::MissingSignal, Oracle::Notices);
    let twice = broken(SETTINGS).signal(T0, 35, 3).signal(T0, 35, 3).end(&[]);
    let twice = twice.anomalous(Kind::UnexplainedSignal, Oracle::Notices);
    assert!(twice.sentence.contains("once more"), "{twice}");
    broken(SETTINGS).signal(T1, 35, 3).end(&[]).anomalous(Kind::UnexplainedSignal, Oracle::Notices);
    broken(SETTINGS).signal(T0, 36, 3).end(&[]).anomalous(Kind::UnexplainedSignal, Oracle::Notices);
    broken(SETTINGS).signal(T0, 35, 4).end(&[]).anomalous(Kind::UnexplainedSignal, Oracle::Notices);
    // Without F_SETOWN_EX any thread of the process may run the handler.
    broken("").signal(T1, 29, 0).end(&[]).explained();
    broken("").signal(T1, 29, 3).end(&[]).anomalous(Kind::UnexplainedSignal, Oracle::Notices);
}

#[test]
fn a_child_that_is_being_made_gets_the_signal_of_its_group_without_what_it_says() {
    let script = |owner: &str, forks: bool, signals: &[i32]| {
        let settings = format!("t0: setown_ex(f0, {owner}, t0)");
        let breaker = "t0: c0 = fork() &\nt1: f1 = open(\"a\", RDWR|NONBLOCK)";
        let mut script = leased(&settings, breaker);
        script = if forks { script.inv(3, &[]) } else { script.ok(3, &[], 100) };
        script = script.inv(4, &[]);
        for code in signals {
            script = script.signal_as(T0, 29, 0, *code);
        }
        script = script.ret(4, Err(Errno(11)), Payload::None);
        script = if forks { script.ret(3, Ok(100), Payload::None) } else { script };
        script.end(&[])
    };
    script("PGRP", true, &[128]).explained();
    script("PGRP", true, &[128, 0]).explained();
    let wrong = |script: Script| script.anomalous(Kind::UnexplainedSignal, Oracle::Notices);
    wrong(script("PGRP", true, &[128, 0, 0]));
    wrong(script("PGRP", false, &[128, 0]));
    wrong(script("PID", true, &[128, 0]));
}

#[test]
fn no_signal_comes_without_a_break() {
    leased("", "t0: getlease(f0)")
        .ok(2, &[0], 1)
        .signal(T0, 29, 0)
        .end(&[])
        .anomalous(Kind::UnexplainedSignal, Oracle::Notices);
}

#[test]
fn the_handler_may_give_the_lease_back() {
    let breaker = "t1: f1 = open(\"a\", RDWR) &\nt0: getlease(f0)";
    let open = || Payload::File(facts(program::Mount::Ext4, 1, 0));
    let settings = "t0: setsig(f0, RT1)\nt0: on_break(UNLCK)";
    let script = |lease| {
        leased(settings, breaker)
            .inv(4, &[])
            .stands(4, 'S', "__break_lease")
            .signal(T0, 35, 3)
            .answered(Lease::Unlock, Ok(0))
            .ret(4, Ok(4), open())
            .ok(5, &[0], lease)
            .end(&[])
    };
    script(2).explained();
    script(1).anomalous(Kind::WrongResult, Oracle::Leases);
}

#[test]
fn a_clone_keeps_its_bytes_but_for_what_arrives_late_where_that_is_known() {
    let script = |home: &str, first: &str, seen: Vec<Run>| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: f2 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: {first}
t0: ficlonerange(f1, 8K, f0, 0, 8K)
t0: pread(f1, 8K, anon, 8K)
t0: release(g0)
t0: pread(f1, 8K, anon, 8K)
t0: fsync(f0)
t0: pread(f1, 8K, anon, 8K)"
        );
        let old = || read(vec![signed(1, 0, 8192)]);
        let waits = first.ends_with('&');
        let script = Script::new(home, &text)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .open(3, 2)
            .ok(4, &[], 5)
            .ok(5, &[], 0)
            .inv(6, &[4, 2]);
        let script = if waits {
            script.stands(6, 'D', "submit_bio_wait")
        } else {
            script.ret(6, Ok(4096), Payload::None)
        };
        let script = script.ok(7, &[3, 0], 0).call(8, &[3], 8192, old()).inv(9, &[]);
        let script = if waits { script.ret(6, Ok(4096), Payload::None) } else { script };
        // What is written back changes the clone, after it was seen to be whole.
        script
            .ret(9, Ok(0), Payload::None)
            .call(10, &[3], 8192, old())
            .ok(11, &[0], 0)
            .call(12, &[3], 8192, read(seen))
            .end(&[])
    };
    let device = |offset, len| signed(stamp::call_gate(0), offset, len);
    let held = "pread(f2, 512K, m0+4K, 4K) &";
    let late = || vec![signed(1, 0, 4096), device(512 << 10, 4096)];
    script("xfs", held, vec![signed(1, 0, 8192)]).explained();
    script("xfs", held, late()).explained();
    script("xfs", held, late()).anomalous_on("7.9.0", Kind::ForeignByte, Oracle::Leak);
    // Not the page beside it, nothing else of the device.
    let beside = vec![device(508 << 10, 4096), signed(1, 4096, 4096)];
    script("xfs", held, beside).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    let other = vec![signed(1, 0, 4096), device(0, 4096)];
    script("xfs", held, other).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    // What arrives in a page outside the range that was cloned stays there.
    let outside = "pread(f2, 512K, m0+8K, 4K) &";
    script("xfs", outside, late()).anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn a_deleted_dax_file_gives_up_held_pages_with_the_known_warning() {
    let script = |home, rest: &str, title: &str| {
        let splat = history::Splat { title: title.into(), text: title.into() };
        let unlinks = rest.starts_with("t0: unlink");
        let script = spliced(home, rest);
        let script = match (unlinks, rest.contains("\"a\"")) {
            (true, true) => script.ok(5, &[], 0),
            (true, false) => script.fails(5, &[], 2),
            (false, _) => script.ok(5, &[0], 0),
        };
        script.event(Event::Console(splat)).end(&[])
    };
    let warning = "WARNING in dax_disassociate_entry";
    script("ext4-dax", "t0: unlink(\"a\")", warning).explained();
    script("ext4-dax", "t0: fsync(f0)", warning).anomalous(Kind::Splat, Oracle::Console);
    script("ext4-dax", "t0: unlink(\"b\")", warning).anomalous(Kind::Splat, Oracle::Console);
    script("ext4-dax", "t0: unlink(\"a\")", "WARNING in dax_insert_entry")
        .anomalous(Kind::Splat, Oracle::Console);
    script("ext4", "t0: unlink(\"a\")", warning).anomalous(Kind::Splat, Oracle::Console);
    script("ext4-dax", "t0: unlink(\"a\")", warning).anomalous_on(
        "7.9.0",
        Kind::Splat,
        Oracle::Console,
    );
}

#[test]
fn what_an_earlier_run_left_at_a_page_is_not_that_somebody_holds_it() {
    let script = |home, at: &str| {
        let text =
            format!("WARNING: CPU: 1 PID: 168 at fs/dax.c:{at} dax_disassociate_entry+0x86/0xb0");
        let title = "WARNING in dax_disassociate_entry".to_owned();
        let lines = "t0: f0 = open(\"a\", RDWR|CREAT)\nt0: ftruncate(f0, 0)";
        let script = Script::new(home, lines).open(0, 1).ok(1, &[0], 0);
        script.event(Event::Console(history::Splat { title, text })).end(&[])
    };
    let (kind, oracle) = (Kind::Splat, Oracle::Console);
    script("xfs-dax", "396").explained();
    script("xfs-dax", "390").anomalous(kind, oracle);
    script("ext4-dax", "396").anomalous(kind, oracle);
    assert_eq!(script("xfs-dax", "404").verdict("6.1.192"), checker::Verdict::Explained);
    script("xfs-dax", "398").anomalous_on("6.1.192", kind, oracle);
    script("xfs-dax", "396").anomalous_on("6.17.0", kind, oracle);
}

#[test]
fn an_interrupted_dedupe_may_say_512_only_where_that_is_known() {
    let script = |home: &str, told: bool, status| {
        let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: p0 = pipe()
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: vmsplice(m0+12K, p0, 4K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t1: fideduperange(f0, 0, 4K, f1, 0) &
t0: interrupt(t1)";
        let script = Script::new(home, text)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[], 0)
            .ok(3, &[0], 0)
            .ok(4, &[3, 2], 4096)
            .open(5, 2)
            .ok(6, &[5], 4096)
            .inv(7, &[0, 5]);
        let script = if told { script.ok(8, &[], 0) } else { script };
        script.ret(7, Ok(0), Payload::Dedupe { status }).end(&[])
    };
    script("xfs-dax", true, -512).explained();
    script("xfs-dax", true, -4).explained();
    script("xfs-dax", true, -513).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script("xfs-dax", false, -512).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    script("xfs", true, -512).anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    // What a ring tells the thread that used it ends the wait as well.
    let ringed = |lane: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: r0 = io_uring_setup(4)
{lane}: fsync(f0) (r0)
t1: fideduperange(f0, 0, 4K, f0, 8K)"
        );
        let script = Script::new("xfs-dax", &text).open(0, 1).ok(1, &[], 9).ok(2, &[0, 1], 0);
        script.call(3, &[0, 0], 0, Payload::Dedupe { status: -512 }).end(&[])
    };
    ringed("t1").explained();
    ringed("t2").anomalous(Kind::UnexplainedErrno, Oracle::Errnos);
    let restarted = script("xfs-dax", true, -512);
    restarted.anomalous_on("7.9.0", Kind::UnexplainedErrno, Oracle::Errnos);
}

#[test]
fn a_pin_of_a_shared_block_that_never_ends_is_known_for_its_own_mapping_only() {
    let script = |share: &str, sharing: &str, open: &str, state| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: {share}
t0: m0 = mmap(f0, 0, 4K, RW, {sharing})
t0: f2 = open(\"xfs:c\", {open})
t0: pwrite(f2, 0, m0+0, 4K)"
        );
        let slots: &[u16] = if share.starts_with("fsync") { &[1] } else { &[1, 0] };
        let direct = Payload::File(facts(program::Mount::Xfs, 7, 0));
        Script::new("xfs-dax", &text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[0], 4096)
            .ok(3, slots, 0)
            .ok(4, &[0], 0)
            .call(5, &[], 5, direct)
            .inv(6, &[5, 4])
            .stands(6, state, "0")
            .end(&[6])
    };
    let (clone, shared) = ("ficlone(f1, f0)", "SHARED");
    let direct = "RDWR|CREAT|DIRECT";
    let wrong = |script: Script| script.anomalous(Kind::UnexplainedWait, Oracle::Liveness);
    script(clone, shared, direct, 'R').explained();
    wrong(script("fsync(f1)", shared, direct, 'R'));
    wrong(script(clone, "PRIVATE", direct, 'R'));
    wrong(script(clone, shared, "RDWR|CREAT", 'R'));
    wrong(script(clone, shared, direct, 'S'));
    let unlisted = script(clone, shared, direct, 'R');
    unlisted.anomalous_on("6.1.0", Kind::UnexplainedWait, Oracle::Liveness);
}

#[test]
fn a_guest_may_stand_still_in_a_pin_of_a_shared_block_only() {
    let script = |share: &str, pin: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: {share}
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: {pin}"
        );
        let slots: &[u16] = if share.starts_with("fsync") { &[1] } else { &[1, 0] };
        Script::new("xfs-dax", &text)
            .open(0, 1)
            .open(1, 2)
            .ok(2, &[0], 4096)
            .ok(3, slots, 0)
            .ok(4, &[0], 0)
            .inv(5, &[4])
            .event(history::Event::Down(history::Down::Hang))
    };
    let (clone, pin) = ("ficlone(f1, f0)", "process_vm_readv(m0+0, g2, 4K)");
    let verdict = script(clone, pin).verdict("6.12.117");
    assert!(matches!(verdict, checker::Verdict::Inconclusive(_)), "{verdict:?}");
    let wrong = |script: Script| script.anomalous(Kind::Hang, Oracle::Liveness);
    wrong(script("fsync(f1)", pin));
    wrong(script(clone, "munmap(m0)"));
}

#[test]
fn a_killed_call_may_outlive_the_kill_only_for_what_was_there_then() {
    let script = |first: &str, second: &str| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: c0 = fork()
c0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
c0: pwrite(f1, 0, m0+0, 4K)
t0: {first}
t0: {second}
t0: f2 = open(g1, RDWR|DIRECT)
t0: hold(g1)
t1: pwrite(f2, 0, m0+0, 4K)
t0: release(g1)"
        );
        let result = |line: &str| u64::from(line.starts_with("kill"));
        Script::new("ext4", &text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[], 77)
            .ok(4, &[], 5)
            .ok(5, &[], 0)
            .inv(6, &[4, 2])
            .stands(6, 'D', "submit_bio_wait")
            .ok(7, &[], result(first))
            .ok(8, &[], result(second))
            .pause(5000)
            .ok(9, &[], 6)
            .ok(10, &[], 0)
            .inv(11, &[9, 2])
            .stands(11, 'D', "submit_bio_wait")
            .inv(12, &[])
            .ret(11, Ok(4096), Payload::None)
            .ret(12, Ok(0), Payload::None)
            .end(&[6])
    };
    script("kill(c0)", "release(g0)").explained();
    script("release(g0)", "kill(c0)").anomalous(Kind::Hang, Oracle::Liveness);
}

#[test]
fn what_arrives_in_a_page_that_a_dedupe_dropped_is_lost() {
    let script = |same: bool, seen: Run| {
        let fill = if same { "ficlone(f1, f0)" } else { "pwrite(f1, 0, anon, 4K)" };
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: {fill}
t0: f2 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f2, 0, m0+0, 4K) &
t0: fideduperange(f1, 0, 4K, f0, 0)
t0: release(g0)
t0: pread(f0, 0, anon, 4K)"
        );
        let script =
            Script::new("xfs", &text).open(0, 1).ok(1, &[0], 4096).ok(2, &[0], 0).open(3, 2);
        let script = if same { script.ok(4, &[3, 0], 0) } else { script.ok(4, &[3], 4096) };
        let (result, status) = if same { (4096, 0) } else { (0, 1) };
        script
            .ok(5, &[], 5)
            .ok(6, &[], 0)
            .inv(7, &[5, 2])
            .stands(7, 'D', "submit_bio_wait")
            .call(8, &[3, 0], result, Payload::Dedupe { status })
            .inv(9, &[])
            .ret(7, Ok(4096), Payload::None)
            .ret(9, Ok(0), Payload::None)
            .call(10, &[0], 4096, read(vec![seen]))
    };
    let (old, new) = (|| signed(1, 0, 4096), || signed(stamp::call_gate(0), 0, 4096));
    script(true, new()).explained();
    script(true, old()).explained();
    script(false, new()).explained();
    // One that finds a difference drops nothing.
    script(false, old()).anomalous(Kind::StaleByte, Oracle::Bytes);
}

#[test]
fn what_arrives_in_a_private_page_that_was_dropped_is_lost() {
    let script = |change: &str, slots: &[u16], first: u8, last: u8| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, PRIVATE)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 0, m0+0, 8K) &
t0: {change}
t0: pwrite(f0, 4K, anon, 4K)
t0: release(g0)
t0: load(m0+0, 4K)
t0: load(m0+4K, 4K)"
        );
        let seen = |old: u8, at| match old {
            0 => device(at, 4096),
            writer => signed(writer.into(), at, 4096),
        };
        Script::new("xfs", &text)
            .open(0, 1)
            .ok(1, &[0], 16384)
            .ok(2, &[0], 0)
            .ok(3, &[], 4)
            .ok(4, &[], 0)
            .inv(5, &[3, 2])
            .stands(5, 'D', "submit_bio_wait")
            .ok(6, slots, 0)
            .ok(7, &[0], 4096)
            .inv(8, &[])
            .ret(5, Ok(8192), Payload::None)
            .ret(8, Ok(0), Payload::None)
            .call(9, &[2], 4096, read(vec![seen(first, 0)]))
            .call(10, &[2], 4096, read(vec![seen(last, 4096)]))
    };
    for (change, slots) in [("ftruncate(f0, 4K)", [0]), ("madvise(m0+4K, 4K, DONTNEED)", [2])] {
        script(change, &slots, 0, 0).explained();
        script(change, &slots, 0, 7).explained();
        // The other page was dropped by nobody, and what was cut off is not seen again.
        script(change, &slots, 1, 7).anomalous(Kind::StaleByte, Oracle::Bytes);
        script(change, &slots, 0, 1).anomalous(Kind::MisplacedByte, Oracle::Bytes);
    }
}

#[test]
fn the_rest_of_a_private_page_is_as_it_was_when_the_device_got_the_page() {
    let script = |early: u8, late: u8| {
        let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, PRIVATE)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 0, m0+0, 2K) &
t0: pwrite(f0, 0, anon, 4K)
t0: load(m0+2K, 2K)
t0: release(g0)
t0: load(m0+2K, 2K)
t0: load(m0+0, 2K)";
        Script::new("xfs", text)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[], 4)
            .ok(4, &[], 0)
            .inv(5, &[3, 2])
            .stands(5, 'D', "submit_bio_wait")
            .ok(6, &[0], 4096)
            .call(7, &[2], 2048, read(vec![signed(early.into(), 2048, 2048)]))
            .inv(8, &[])
            .ret(5, Ok(2048), Payload::None)
            .ret(8, Ok(0), Payload::None)
            .call(9, &[2], 2048, read(vec![signed(late.into(), 2048, 2048)]))
            .call(10, &[2], 2048, read(vec![device(0, 2048)]))
    };
    script(1, 1).explained();
    // Nobody wrote these into the file.
    script(1, 2).anomalous(Kind::ForeignByte, Oracle::Leak);
}

#[test]
fn only_who_lets_go_of_pins_is_killed() {
    let text = "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 4K)
t0: f1 = dup(f0)
t0: close(f0)
t0: close(f1)";
    let begin = |policy| {
        Script::new("xfs-dax", text)
            .by(policy)
            .open(0, 1)
            .ok(1, &[0], 4096)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .ok(4, &[0], 0)
            .ok(5, &[3, 2], 0)
            .ok(6, &[0], 4)
    };
    let strict = "layout-lease-strict";
    begin(strict).ok(7, &[0], 0).end(&[]).explained();
    // The second descriptor keeps the lease, and the first close must return.
    let wrong = begin(strict).inv(7, &[0]).end(&[]);
    let wrong = wrong.anomalous(Kind::UnexplainedSignal, Oracle::Signals);
    assert!(wrong.sentence.contains("close#7"), "{wrong}");
    begin(strict).ok(7, &[0], 0).inv(8, &[6]).end(&[]).explained();
    let spared = begin(strict).ok(7, &[0], 0).ok(8, &[6], 0).end(&[]);
    spared.anomalous(Kind::MissingWait, Oracle::Liveness);
    // Where nobody enforces the lease, nobody is killed for it.
    let killed = |policy| begin(policy).ok(7, &[0], 0).inv(8, &[6]).end(&[]);
    killed("layout-lease").anomalous(Kind::UnexplainedSignal, Oracle::Signals);
}

/// A page of file `held` is in a pipe, FICLONE of `a` (inode 1) to `b` (inode 2) is seen to run, and its thread is interrupted.
fn cloned_while_held(held: u16) -> Script {
    let text = format!(
        "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: f1 = open(\"b\", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 4K)
t0: m0 = mmap(f{held}, 0, 4K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 4K)
t1: ficlone(f1, f0) &
t0: interrupt(t1)
t0: getlease(f0)
t0: close(p0)"
    );
    Script::new("xfs-dax", &text)
        .open(0, 1)
        .ok(1, &[0], 4096)
        .open(2, 2)
        .ok(3, &[2], 4096)
        .ok(4, &[held * 2], 0)
        .ok(5, &[], 0)
        .ok(6, &[4, 5], 4096)
        .inv(7, &[2, 0])
        .stands(7, 'R', "")
        .ok(8, &[], 0)
}

#[test]
fn a_signal_ends_a_wait_that_does_not_sleep() {
    let deaf = |held| {
        let script = cloned_while_held(held).pause(2000).ok(9, &[0], 2).ok(10, &[5], 0);
        script.ret(7, Ok(0), Payload::None).end(&[])
    };
    // The first inode's page is slept for (6.12 and 6.1); what is known is the second's.
    deaf(1).explained();
    let first = deaf(0).anomalous(Kind::UnkillableWait, Oracle::Liveness);
    assert!(first.sentence.contains("page 0 of xfs-dax:a"), "{first}");
    deaf(1).anomalous_on("6.17.0", Kind::UnkillableWait, Oracle::Liveness);
    let heard = cloned_while_held(0).ret(7, Err(Errno(4)), Payload::None).pause(2000);
    heard.ok(9, &[0], 2).ok(10, &[5], 0).end(&[]).explained();
}

#[test]
fn a_kill_ends_a_wait_that_does_not_sleep() {
    // What stock kernels did, by their policy and by one that knows of nothing.
    for (release, file) in [("6.12.117", "history-6.12-kill"), ("6.1.192", "history-6.1-kill")] {
        let folder = "../../reports/findings/xfs-dax-clone-spins-on-a-held-page";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let text = std::fs::read_to_string(path.join(format!("{file}.jsonl")));
        let record = history::record::parse(&text.expect("the finding is there"));
        let record = record.expect("a saved history parses");
        let judged = |release| {
            let policy = checker::Policy::for_release(release);
            checker::check(&record.program, &record.history, &policy)
        };
        assert_eq!(judged(release), checker::Verdict::Explained, "{file}");
        let checker::Verdict::Anomalous(list) = judged("6.17.0") else { panic!("{file}") };
        assert_eq!(list[0].kind, Kind::UnkillableWait, "{}", list[0]);
    }
}

#[test]
fn a_page_in_hand_is_zeroed_only_by_what_drops_its_part_of_a_large_folio() {
    let script = |home: &str, change: &str, seen: Vec<Run>| {
        let text = format!(
            "t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 64K)
t0: m0 = mmap(f0, 0, 64K, RW, SHARED)
t0: hold(g2)
t1: process_vm_readv(m0+0, g2, 16K) &
t0: {change}
t0: release(g2)"
        );
        Script::new(home, &text)
            .open(0, 1)
            .ok(1, &[0], 65536)
            .ok(2, &[0], 0)
            .ok(3, &[], 0)
            .inv(4, &[2])
            .stands(4, 'S', "handle_userfault")
            .ok(5, &[0], 0)
            .inv(6, &[])
            .ret(4, Ok(16384), read(seen))
            .ret(6, Ok(0), Payload::None)
    };
    // XFS drops from the block before the range, and zeroes the part of the folio that the reader has hold of.
    let cut = || vec![signed(1, 0, 4096), zeros(12288)];
    let insert = "fallocate(f0, INSERT_RANGE, 8K, 4K)";
    script("xfs", insert, cut()).explained();
    script("ext4", insert, cut()).anomalous(Kind::LostByte, Oracle::Bytes);
    let later = "fallocate(f0, INSERT_RANGE, 12K, 4K)";
    script("xfs", later, cut()).anomalous(Kind::LostByte, Oracle::Bytes);
    script("xfs", "fsync(f0)", cut()).anomalous(Kind::LostByte, Oracle::Bytes);
    // A truncate begins at the new size.
    let shorter = |from| vec![signed(1, 0, from), zeros(16384 - from)];
    script("xfs", "ftruncate(f0, 9K)", shorter(9 << 10)).explained();
    let early = script("xfs", "ftruncate(f0, 9K)", shorter(8 << 10));
    early.anomalous(Kind::LostByte, Oracle::Bytes);
}
