//! The honest fake against the kernel's rules for held pages, gates, leases and signals: hand-written programs with exact results.

use checker::Regime;
use harness::target::Target;
use harness::target::fake::{FakeConfig, FakeTarget};
use history::{Errno, Event, Payload, stamp};
use program::{CallId, Lane, Lease, Program};

type Outcome = Result<u64, i32>;

/// What a program gave.
struct Run {
    events: Vec<Event>,
}

/// Lane, signal, si_code, si_fd, and what the handler answered.
type Signalled = (Option<Lane>, i32, i32, i32, Option<(Lease, Outcome)>);

impl Run {
    fn under(regime: Regime, text: &str) -> Run {
        let text = format!("pinfuzz 1\n{text}");
        let program = Program::parse(&text).expect("the test's program parses");
        let config = FakeConfig { regime, batch: 1, ..FakeConfig::default() };
        let history = FakeTarget::new(config).execute(&program).expect("no trouble").history;
        Run { events: history.events }
    }

    fn of(text: &str) -> Run {
        Run::under(Regime::Mainline, text)
    }

    fn result(&self, line: u16) -> Option<Outcome> {
        self.events.iter().find_map(|e| match e {
            Event::Return { call, result, .. } if *call == CallId(line) => {
                Some(result.map_err(|Errno(e)| e))
            }
            _ => None,
        })
    }

    fn blocked(&self, line: u16) -> Option<(char, &str)> {
        self.events.iter().find_map(|e| match e {
            Event::Blocked { call, state, wchan, .. } if *call == CallId(line) => {
                Some((*state, wchan.as_str()))
            }
            _ => None,
        })
    }

    fn at(&self, what: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().position(what).expect("the event is there")
    }

    fn returned_at(&self, line: u16) -> usize {
        self.at(|e| matches!(e, Event::Return { call, .. } if *call == CallId(line)))
    }

    fn bytes(&self, line: u16) -> Vec<u8> {
        let of = |e: &&Event| matches!(e, Event::Return { call, .. } if *call == CallId(line));
        match self.events.iter().find(of) {
            Some(Event::Return { payload: Payload::Read { data, .. }, .. }) => {
                data.expand().expect("the fake's bytes are valid")
            }
            other => panic!("line {line}: {other:?}"),
        }
    }

    fn helped(&self) -> Vec<u16> {
        let end = self.events.iter().find_map(|e| match e {
            Event::End { helped, stuck, .. } => {
                assert_eq!(stuck[..], [], "nobody is stuck");
                Some(helped.iter().map(|c| c.0).collect())
            }
            _ => None,
        });
        end.expect("the program ends")
    }

    fn pins(&self) -> Option<i64> {
        self.events.iter().find_map(|e| match e {
            Event::Pins { before, after } => Some(after - before),
            _ => None,
        })
    }

    fn signals(&self) -> Vec<Signalled> {
        let signals = self.events.iter().filter_map(|e| match e {
            Event::Signal { lane, signo, code, fd, answer, .. } => {
                let answer = answer.map(|(l, r)| (l, r.map_err(|Errno(e)| e)));
                Some((*lane, *signo, *code, *fd, answer))
            }
            _ => None,
        });
        signals.collect()
    }
}

/// The bytes that a device holds at first.
fn device(gate: u8, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stamp::sign(&mut bytes, 1, stamp::call_gate(gate), offset);
    bytes
}

#[test]
fn a_held_read_pins_and_a_layout_change_waits_for_it() {
    for (image, wchan) in [("ext4-dax", "ext4_break_layouts"), ("xfs-dax", "xfs_break_dax_layouts")]
    {
        let run = Run::of(&format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 64K)
t0: m0 = mmap(f0, 0, 64K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 4K, m0+8K, 4K) &
t0: wait(t1)
t2: fallocate(f0, PUNCH_HOLE, 32K, 4K)
t3: pread(f0, 0, anon, 8)
t0: release(g0)
t0: wait(t2)
t0: wait(t3)
t0: pread(f0, 8K, anon, 4K)
"#
        ));
        assert_eq!(run.blocked(5), Some(('D', "submit_bio_wait")));
        assert_eq!(
            run.blocked(7),
            Some(('S', wchan)),
            "the hole is elsewhere, the file is the same"
        );
        assert_eq!(run.blocked(8).map(|b| b.0), Some('D'), "the waiter has the inode's lock");
        for line in [5, 7, 8] {
            assert!(run.returned_at(line) > run.returned_at(4), "line {line}");
        }
        assert_eq!(run.result(7), Some(Ok(0)));
        assert_eq!(run.bytes(12), device(0, 4096, 4096), "{image}");
        assert!(run.helped().is_empty());
        assert_eq!(run.pins(), Some(0));
    }
}

#[test]
fn the_page_cache_lets_go_of_what_is_held() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 4K)
t0: f1 = open(g1, RDWR|DIRECT)
t0: hold(g1)
t1: pread(f1, 0, m0+4K, 4K)
t0: ftruncate(f0, 0)
t0: ftruncate(f0, 8K)
t0: release(g1)
t0: wait(t1)
t0: pread(f0, 0, anon, 8K)
t0: read(p0, anon, 4K)
"#,
    );
    assert_eq!((run.result(8), run.blocked(8)), (Some(Ok(0)), None));
    assert_eq!(run.result(7), Some(Ok(4096)));
    assert_eq!(run.bytes(12), [0; 8192], "what the device delivered is lost");
    let mut first = vec![0; 4096];
    stamp::sign(&mut first, 1, 1, 0);
    assert_eq!(run.bytes(13), first, "the pipe keeps its page");
}

#[test]
fn a_pipe_holds_a_page_until_its_last_reader() {
    let run = Run::of(
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: p0 = pipe()
t0: p1 = pipe()
t0: vmsplice(m0+100, p0, 16)
t0: tee(p0, p1, 64K)
t0: read(p0, anon, 64K)
t0: munmap(m0)
t1: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 0)
t0: read(p1, anon, 64K)
t0: wait(t1)
"#,
    );
    assert_eq!((run.result(5), run.result(6)), (Some(Ok(16)), Some(Ok(16))));
    assert_eq!(run.blocked(9), Some(('S', "xfs_break_dax_layouts")));
    assert!(run.returned_at(9) > run.returned_at(7));
    let mut first = vec![0; 16];
    stamp::sign(&mut first, 1, 1, 100);
    assert_eq!((run.bytes(7), run.bytes(11)), (first.clone(), first));
    assert!(run.helped().is_empty());
}

#[test]
fn a_wait_ends_by_a_signal() {
    let run = Run::of(
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 4K)
t1: ftruncate(f0, 4K)
t0: interrupt(t1)
t0: statx(f0)
"#,
    );
    assert_eq!(run.result(5), Some(Err(4)));
    assert!(run.helped().is_empty());
}

#[test]
fn a_mapping_that_is_taken_away_keeps_its_file_open_no_longer() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: ftruncate(f0, 4K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: close(f0)
t0: f1 = open(g0, RDWR|DIRECT)
t0: f0 = open("a", RDWR)
t0: hold(g0)
t1: pwrite(f1, 0, m0+0, 4K) &
t0: wait(t1)
t0: setlease(f0, WRLCK)
t0: munmap(m0)
t0: setlease(f0, WRLCK)
t0: lseek(f1, 2M, SET)
"#,
    );
    assert_eq!(run.blocked(7), Some(('D', "submit_bio_wait")));
    assert_eq!([9, 11, 12].map(|line| run.result(line)), [Err(11), Ok(0), Err(22)].map(Some));
}

#[test]
fn a_signal_that_comes_before_a_call_is_handled_before_it() {
    let run = Run::of(
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 4K)
t1: ftruncate(f0, 4K) (delay 500us) &
t0: interrupt(t1)
t0: wait(t1)
t0: close(p0)
"#,
    );
    let invoked = run.at(|e| matches!(e, Event::Invoke { call: CallId(5), .. }));
    assert!(run.returned_at(6) < invoked);
    assert_eq!(run.result(5), Some(Ok(0)));
}

#[test]
fn whoever_still_waits_at_the_end_is_helped_in_order() {
    let run = Run::of(
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pwrite(f1, 0, m0+0, 4K) &
t2: truncate("a", 4K)
"#,
    );
    let released = run.at(|e| matches!(e, Event::GatesReleased { .. }));
    assert!(run.returned_at(5) > released && run.returned_at(6) > released);
    assert_eq!((run.result(5), run.result(6)), (Some(Ok(4096)), Some(Ok(0))));
    assert_eq!(run.helped(), [5, 6]);
    let pins = run.at(|e| matches!(e, Event::Pins { .. }));
    assert!(matches!(run.events[pins + 1], Event::End { .. }));
}

#[test]
fn the_memory_gate_holds_a_copy_and_its_pages() {
    let run = Run::of(
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: hold(g2)
t1: process_vm_writev(m0+8, g2, 4K)
t2: fallocate(f0, PUNCH_HOLE, 4K, 4K)
t0: release(g2)
t0: wait(t2)
t0: pread(f0, 0, anon, 8K)
t0: process_vm_readv(m0+0, g2, 16)
t0: hold(g2)
t1: process_vm_readv(m0+0, g2, 16)
t0: interrupt(t1)
"#,
    );
    assert_eq!(run.blocked(4), Some(('S', "handle_userfault")));
    assert_eq!((run.result(4), run.result(5)), (Some(Ok(4096)), Some(Ok(0))));
    assert!(run.returned_at(5) > run.returned_at(6));
    let mut written = vec![0; 4088];
    stamp::sign(&mut written, 1, 4, 8);
    assert_eq!(run.bytes(8)[8..4096], written);
    assert_eq!(run.bytes(8)[4096..], [0; 4096]);
    assert_eq!(run.bytes(9), run.bytes(8)[..16]);
    assert_eq!(run.result(11), Some(Err(14)));
}

#[test]
fn devices_settle_as_they_are_told() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open(g0, RDWR|DIRECT)
t0: f1 = open(g1, RDWR|DIRECT)
t0: pread(f0, 512, anon, 1K)
t0: pread(f1, 0, anon+8, 512)
t0: pread(f1, 8, anon, 512)
t0: pread(f1, 1M, anon, 512)
t0: pwrite(f1, 1M, anon, 512)
t0: pread(f1, 1044480, anon, 8K)
t0: hold(g0)
t1: pread(f0, 0, anon, 512) &
t0: wait(t1)
t0: release(g0, EIO)
t0: wait(t1)
t0: hold(g1)
t1: pwrite(f1, 0, anon, 1K) &
t2: pwrite(f1, 512, anon, 1K) &
t0: wait(t1)
t0: wait(t2)
t0: release(g1, REVERSE)
t0: wait(t1)
t0: wait(t2)
t0: pread(f1, 0, anon, 2K)
t0: ftruncate(f1, 0)
"#,
    );
    assert_eq!(run.bytes(2), device(0, 512, 1024));
    assert_eq!((run.result(3), run.result(4)), (Some(Err(22)), Some(Err(22))));
    assert_eq!((run.result(5), run.result(6)), (Some(Ok(0)), Some(Err(28))));
    assert_eq!(run.result(7), Some(Ok(4096)));
    assert_eq!(run.result(9), Some(Err(5)));
    let read = run.bytes(21);
    let mut expected = device(1, 0, 2048);
    stamp::sign(&mut expected[512..1536], 1, 15, 512);
    stamp::sign(&mut expected[..1024], 1, 14, 0);
    assert_eq!(read, expected, "the request that came first was done last");
    assert_eq!(run.result(22), None);
}

#[test]
fn long_term_pins_follow_the_table() {
    for (image, shared) in [("ext4", 14), ("xfs", 14), ("ext4-dax", 95), ("xfs-dax", 95)] {
        let run = Run::of(&format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: m1 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 8K)
t0: unregister_buffers(r0)
t0: register_buffers(r0, m1+0, 8K)
t0: store(m1+0, 8K)
t0: register_buffers(r0, m1+0, 8K)
t0: unregister_buffers(r0)
"#
        ));
        assert_eq!((run.result(5), run.result(6)), (Some(Err(shared)), Some(Err(6))), "{image}");
        let dax = image.ends_with("dax");
        assert_eq!(run.result(7), Some(if dax { Err(95) } else { Ok(0) }), "{image}");
        assert_eq!(run.result(9), Some(if dax { Ok(0) } else { Err(16) }), "{image}");
        assert_eq!((run.result(10), run.pins()), (Some(Ok(0)), Some(0)));
    }
}

#[test]
fn memory_regions_follow_the_table() {
    for (image, read, write) in [
        ("ext4", Ok(0), Err(14)),
        ("xfs", Ok(0), Err(14)),
        ("ext4-dax", Err(95), Err(95)),
        ("xfs-dax", Err(95), Err(95)),
    ] {
        let run = Run::of(&format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: m1 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: x0 = ibv_reg_mr(m0+0, 8K, LOCAL_READ)
t0: x1 = ibv_reg_mr(m0+0, 8K, LOCAL_WRITE)
t0: x1 = ibv_reg_mr(m1+0, 8K, LOCAL_READ)
t0: store(m1+0, 8K)
t0: x1 = ibv_reg_mr(m1+512, 4K, LOCAL_WRITE)
t0: x1 = ibv_reg_mr(m1+4K, 0, LOCAL_WRITE)
t0: x1 = ibv_reg_mr(m1+1, 0, LOCAL_READ)
t0: mprotect(m1, R)
t0: x0 = ibv_reg_mr(m1+0, 8K, LOCAL_WRITE)
t0: x0 = ibv_reg_mr(m1+0, 8K, LOCAL_READ)
t0: c0 = fork()
c0: ibv_dereg_mr(x1)
t0: ibv_dereg_mr(x1)
t0: ibv_dereg_mr(x1)
"#
        ));
        assert_eq!((run.result(4), run.result(5)), (Some(read), Some(write)), "{image}");
        assert_eq!(run.result(6), Some(read), "{image}");
        assert_eq!((run.result(8), run.result(9)), (Some(Ok(0)), Some(Err(22))), "{image}");
        assert_eq!(run.result(10), Some(Ok(0)), "{image}");
        let dax = image.ends_with("dax");
        assert_eq!(run.result(12), Some(if dax { Err(95) } else { Err(14) }), "{image}");
        assert_eq!(run.result(13), Some(Ok(0)), "{image}");
        // A child has no part in what its parent registered.
        assert_eq!(run.result(15), None, "{image}");
        assert_eq!((run.result(16), run.result(17)), (Some(Ok(0)), None), "{image}");
        assert_eq!(run.pins(), Some(0), "{image}");
    }
}

#[test]
fn a_private_region_to_be_read_keeps_what_it_saw() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
t0: pwrite(f0, 0, anon, 8K)
t0: load(m0+0, 8K)
"#,
    );
    let mut expected = vec![0; 8192];
    stamp::sign(&mut expected[..4096], 1, 1, 0);
    stamp::sign(&mut expected[4096..], 1, 4, 4096);
    assert_eq!(run.bytes(5), expected);
}

#[test]
fn rdma_moves_bytes_between_the_pages_that_were_pinned() {
    let run = Run::of(
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, PRIVATE)
t0: m1 = mmap(f0, 0, 4K, RW, SHARED)
t0: x0 = ibv_reg_mr(m0+512, 8K, LOCAL_WRITE)
t0: x1 = ibv_reg_mr(m1+0, 4K, LOCAL_READ)
t0: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 16K)
t0: rdma_read(x0+512, x1+1024, 2K)
t0: rdma_write(x0+512, x1+0, 2K)
t0: rdma_read(x1+0, x0+512, 2K)
t0: x1 = ibv_reg_mr(m0+8K, 8K, LOCAL_WRITE)
t0: rdma_write(x0+512, x1+4K, 2K)
t0: load(m0+12K, 2K)
t0: rdma_read(x1+7K, x0+0, 2K)
"#,
    );
    assert_eq!(run.result(8), Some(Ok(2048)));
    assert_eq!((run.result(9), run.result(10)), (Some(Err(13)), Some(Err(14))));
    assert_eq!(run.result(12), Some(Ok(2048)));
    let mut expected = vec![0; 2048];
    stamp::sign(&mut expected, 1, 1, 1024);
    assert_eq!(run.bytes(13), expected, "what the cached page held before it was cut off");
    assert_eq!(run.result(14), None, "past the end of a region");
    assert_eq!(run.pins(), Some(0));
}

#[test]
fn a_test_of_long_pins_keeps_the_pages_that_it_found() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: c0 = fork()
c0: pin_longterm_test_start(m0+4K, 4K, FAST)
t0: kill(c0)
t0: ftruncate(f0, 0)
t0: pwrite(f0, 0, anon, 8K)
t0: pin_longterm_test_start(anon, 8K, WRITE)
t0: pin_longterm_test_read()
t0: pin_longterm_test_stop()
t0: pin_longterm_test_read()
t0: pin_longterm_test_start(anon, 8K, WRITE)
t0: pin_longterm_test_read()
"#,
    );
    let signed = |call, offset, len| {
        let mut bytes = vec![0; len];
        stamp::sign(&mut bytes, 1, call, offset);
        bytes
    };
    assert_eq!(run.result(8), Some(Err(22)), "a child's pins outlive it");
    assert_eq!(run.bytes(9), signed(1, 4096, 4096), "the file has another page by now");
    assert_eq!((run.result(10), run.result(11)), (Some(Ok(0)), Some(Err(22))));
    assert_eq!(run.bytes(13), signed(12, 0, 8192));
    assert_eq!(run.pins(), Some(0), "the last close gives back what nobody stopped");
}

#[test]
fn pins_that_are_given_back_at_once_come_to_the_end_of_file() {
    for image in ["xfs", "xfs-dax"] {
        let run = Run::of(&format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: ftruncate(f0, 8K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: pin_basic_test(m0+0, 16K, 0)
t0: pin_basic_test(m0+8K, 4K, FAST)
"#
        ));
        assert_eq!((run.result(4), run.result(5)), (Some(Ok(8192)), Some(Ok(0))), "{image}");
        // The page of zeros is not pinned, of which gup_test complains.
        let told = run.events.iter().any(|event| matches!(event, Event::Console(_)));
        assert_eq!(told, image == "xfs-dax", "{image}");
    }
}

#[test]
fn fixed_transfers_use_the_registered_pages() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+4K, 4K)
t0: f1 = open(g0, RDWR|DIRECT)
t0: pread(f1, 0, m0+4608, 512) (r0, fixed)
t0: pread(f1, 0, m0+0, 512) (r0, fixed)
t0: load(m0+4608, 512)
t0: hold(g0)
t1: pread(f1, 4K, m0+4K, 512) (r0, fixed) &
t2: unregister_buffers(r0)
t0: release(g0)
t0: wait(t2)
t0: close(r0)
"#,
    );
    assert_eq!((run.result(6), run.result(7)), (Some(Ok(512)), Some(Err(14))));
    assert_eq!(run.bytes(8), device(0, 0, 512));
    assert_eq!(run.blocked(11), Some(('S', "io_rsrc_ref_quiesce")));
    assert_eq!(run.result(11), Some(Ok(0)));
    assert_eq!(run.pins(), Some(0));
}

#[test]
fn an_update_waits_for_nobody_and_requests_keep_what_they_have() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: update_buffers(r0, m0+0, 8K)
t0: register_buffers(r0, m0+0, 8K)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 4K, m0+0, 512) (r0, fixed)
t0: update_buffers(r0, m0+8K, 8K)
t0: pread(f1, 0, m0+0, 512) (r0, fixed)
t2: unregister_buffers(r0)
t0: release(g0)
t0: wait(t2)
t0: load(m0+0, 512)
"#,
    );
    assert_eq!((run.result(4), run.result(5)), (Some(Err(6)), Some(Ok(0))));
    assert_eq!((run.blocked(9), run.result(9)), (None, Some(Ok(1))));
    assert_eq!((run.result(8), run.result(10)), (Some(Ok(512)), Some(Err(14))));
    assert_eq!(run.blocked(11), Some(('S', "io_rsrc_ref_quiesce")), "for the old buffer as well");
    assert_eq!(run.bytes(14), device(0, 4096, 512));
    assert_eq!(run.pins(), Some(0));
}

#[test]
fn rings_share_a_buffer_until_the_last_one_lets_go() {
    let run = Run::of(
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: r1 = io_uring_setup(8)
t0: clone_buffers(r1, r0)
t0: register_buffers(r0, m0+0, 8K)
t0: clone_buffers(r1, r0)
t0: clone_buffers(r1, r0)
t0: close(r0)
t0: f1 = open(g0, RDWR|DIRECT)
t0: pread(f1, 0, m0+512, 512) (r1, fixed)
t0: load(m0+512, 512)
t0: unregister_buffers(r1)
"#,
    );
    assert_eq!(
        (run.result(5), run.result(7), run.result(8)),
        (Some(Err(6)), Some(Ok(0)), Some(Err(16)))
    );
    assert_eq!((run.result(11), run.result(13)), (Some(Ok(512)), Some(Ok(0))));
    assert_eq!(run.bytes(12), device(0, 0, 512));
    assert_eq!(run.pins(), Some(0));
}

#[test]
fn a_child_has_rings_of_its_own() {
    let run = Run::of(
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: r0 = io_uring_setup(8)
t0: f1 = open(g0, RDWR|DIRECT)
t0: c0 = fork()
c0: r0 = io_uring_setup(8)
c0: register_buffers(r0, m0+0, 8K)
c0: pread(f1, 0, m0+0, 512) (r0, fixed)
c0: load(m0+0, 512)
t0: load(m0+0, 512)
t0: pread(f1, 0, m0+0, 512) (r0, fixed)
t0: hold(g0)
c0: pread(f1, 0, m0+0, 512) (r0, fixed) &
c0: exit()
t0: release(g0)
"#,
    );
    assert_eq!((run.result(7), run.result(8)), (Some(Ok(0)), Some(Ok(512))));
    assert_eq!(run.bytes(9), device(0, 0, 512));
    assert_ne!(run.bytes(10), device(0, 0, 512), "the parent has pages of its own");
    assert_eq!(run.result(11), Some(Err(14)), "and nothing registered");
    assert_eq!((run.result(13), run.result(14)), (None, Some(Ok(0))));
    assert_eq!(run.pins(), Some(0));
}

#[test]
fn proc_mem_goes_past_the_protection_of_private_mappings_only() {
    let run = Run::of(
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 6K)
t0: m0 = mmap(f0, 0, 12K, R, SHARED)
t0: m1 = mmap(f0, 0, 8K, NONE, PRIVATE)
t0: proc_mem_pwrite(m0+0, 16)
t0: proc_mem_pwrite(m1+0, 16)
t0: proc_mem_pread(m1+0, 16)
t0: proc_mem_pread(m0+4K, 8K)
t0: proc_mem_pread(m0+8K, 4K)
"#,
    );
    assert_eq!((run.result(4), run.result(5)), (Some(Err(5)), Some(Ok(16))));
    let mut written = vec![0; 16];
    stamp::sign(&mut written, 1, 5, 0);
    assert_eq!(run.bytes(6), written);
    assert_eq!((run.result(7), run.result(8)), (Some(Ok(4096)), Some(Err(5))));
}

#[test]
fn leases_are_granted_broken_and_answered() {
    let run = Run::of(
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: setlease(f0, RDLCK)
t0: setlease(f0, UNLCK)
t0: setlease(f0, LAYOUT)
t0: setown_ex(f0, TID, t2)
t0: setsig(f0, RT1)
t0: setlease(f0, WRLCK)
t0: getlease(f0)
t1: f1 = open("a", RDONLY|NONBLOCK)
t1: f1 = open("a", RDONLY|NONBLOCK)
t0: getlease(f0)
t1: f1 = open("a", RDWR)
t0: getlease(f0)
t0: setlease(f0, UNLCK)
t0: wait(t1)
t0: setlease(f0, UNLCK)
"#,
    );
    let expected = [Err(11), Err(11), Err(22), Ok(0), Ok(0), Ok(0), Ok(1), Err(11), Err(11), Ok(0)];
    for (line, expected) in (1..).zip(expected) {
        assert_eq!(run.result(line), Some(expected), "line {line}");
    }
    assert_eq!(run.blocked(11), Some(('S', "__break_lease")));
    assert_eq!((run.result(12), run.result(13)), (Some(Ok(2)), Some(Ok(0))));
    assert!(run.returned_at(11) > run.returned_at(12));
    assert_eq!(run.result(15), Some(Err(11)));
    let fd = run.result(0).and_then(Result::ok).expect("it opened") as i32;
    let told = (Some(Lane::Thread(2)), 35, 3, fd, None);
    assert_eq!(run.signals(), [told, told], "once for the reader, once for the writer");
}

#[test]
fn handlers_answer_and_time_takes_what_is_not_given_back() {
    let run = Run::of(
        r#"image ext4
t0: f0 = open("a", RDONLY|CREAT)
t0: on_break(UNLCK)
t0: setlease(f0, WRLCK)
t0: setsig(f0, SIGIO)
t1: f1 = open("a", RDONLY)
t0: close(f1)
t0: on_break(LAYOUT)
t0: lease_break_time(1)
t0: setlease(f0, RDLCK)
t1: truncate("a", 0)
"#,
    );
    assert!(matches!(run.result(4), Some(Ok(_))));
    let signals = run.signals();
    assert_eq!(signals.len(), 2);
    assert_eq!(signals[0].4, Some((Lease::Unlock, Ok(0))));
    assert_eq!(
        (signals[1].1, signals[1].2, signals[1].3),
        (29, 128, 0),
        "F_SETSIG went with the lease"
    );
    assert_eq!(run.blocked(9), Some(('S', "__break_lease")));
}

#[test]
fn a_child_is_killed_at_once_or_when_its_device_is_done() {
    let run = Run::of(
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t0: c0 = fork()
t0: c1 = fork()
c0: pread(f1, 0, m0+0, 4K)
c1: ftruncate(f0, 0)
t0: kill(c1)
t0: kill(c0)
t0: release(g0)
t0: ftruncate(f0, 0)
"#,
    );
    assert_eq!((run.result(7), run.result(8)), (None, None));
    assert_eq!((run.result(9), run.result(10)), (Some(Ok(0)), Some(Ok(1))));
    assert_eq!(run.result(12), Some(Ok(0)));
    assert_eq!((run.helped(), run.pins()), (vec![], Some(0)));
}

#[test]
fn a_descriptor_that_travels_is_the_same_open_file() {
    let run = Run::of(
        r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = recv_fd()
t0: send_fd(f0)
t0: setlease(f0, WRLCK)
t0: close(f0)
t0: f1 = recv_fd()
t0: getlease(f1)
t0: writev(f1, [anon 8])
t0: writev(f1, [anon 8])
t0: statx(f1)
"#,
    );
    assert_eq!(run.result(1), Some(Err(11)));
    assert_eq!(run.result(6), Some(Ok(1)));
    let of = |e: &&Event| matches!(e, Event::Return { call, .. } if *call == CallId(9));
    let Some(Event::Return { payload: Payload::File(facts), .. }) = run.events.iter().find(of)
    else {
        panic!("statx reports")
    };
    assert_eq!(facts.size, 16);
}

const LEASED: &str = r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 4K)
t0: setlease(f0, LAYOUT)
t0: register_buffers(r0, m0+0, 4K)
t0: fallocate(f0, PUNCH_HOLE, 0, 8K)
t0: fallocate(f0, PUNCH_HOLE, 8K, 4K)
t1: setlease(f0, UNLCK)
t0: unregister_buffers(r0)
t0: wait(t1)
t0: register_buffers(r0, m0+0, 4K)
t0: ftruncate(f0, 0)
"#;

#[test]
fn a_layout_lease_lets_pin_and_refuses_changes() {
    for regime in [Regime::LayoutLease, Regime::LayoutLeaseStrict] {
        let run = Run::under(regime, LEASED);
        let expected = [Err(1), Ok(0), Ok(0), Err(26), Ok(0), Ok(0), Ok(0)];
        for (line, expected) in (4..).zip(expected) {
            assert_eq!(run.result(line), Some(expected), "{regime:?} line {line}");
        }
        let strict = regime == Regime::LayoutLeaseStrict;
        assert_eq!(run.blocked(9).is_some(), strict);
        assert_eq!((run.result(12), run.result(13)), (Some(Err(1)), Some(Ok(0))));
        assert_eq!(run.signals().len(), 1);
    }
}

#[test]
fn a_strict_layout_lease_is_exclusive_and_dies_with_its_process() {
    let run = Run::under(
        Regime::LayoutLeaseStrict,
        r#"image ext4-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: f1 = open("a", RDWR)
t0: m0 = mmap(f1, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: setlease(f0, LAYOUT)
t0: setlease(f1, LAYOUT)
t0: register_buffers(r0, m0+0, 4K)
t0: close(f0)
t0: statx(f1)
"#,
    );
    assert_eq!((run.result(5), run.result(6)), (Some(Ok(0)), Some(Err(11))));
    assert_eq!((run.result(7), run.result(8), run.result(9)), (Some(Ok(0)), None, None));
    assert_eq!((run.helped(), run.pins()), (vec![], Some(0)));
}

#[test]
fn revoked_pages_are_gone_for_mappings_and_pins() {
    let run = Run::under(
        Regime::Revoke,
        r#"image xfs-dax
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: r0 = io_uring_setup(8)
t0: register_buffers(r0, m0+0, 8K)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 0, m0+4K, 4K) (r0, fixed)
t0: fallocate(f0, PUNCH_HOLE, 4K, 4K)
t0: pwrite(f0, 4K, anon, 4K)
t0: release(g0)
t0: wait(t1)
t0: pread(f1, 0, m0+4K, 4K) (r0, fixed)
t0: load(m0+4K, 8)
t0: load(m0+0, 8)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: load(m0+4K, 4K)
"#,
    );
    assert_eq!((run.result(8), run.blocked(8)), (Some(Ok(0)), None));
    assert_eq!((run.result(7), run.result(12)), (Some(Ok(4096)), Some(Err(14))));
    assert_eq!((run.result(13), run.result(14)), (Some(Ok(0)), Some(Ok(8))));
    let mut written = vec![0; 4096];
    stamp::sign(&mut written, 1, 9, 4096);
    assert_eq!(run.bytes(16), written);
}
