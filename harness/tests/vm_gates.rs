//! Gates, pins, leases and signals on real guests: what is held stands where it must, and goes on when it is let go.
//!
//! What a kernel does is asked of events only; verdicts are the checker's tests. Needs what `vm_guest` needs.

use harness::target::Target;
use harness::target::qemu::{Config, Mode, QemuTarget};
use history::{Errno, Event, SkipReason};
use program::{Lane, Lease, Program};
use std::sync::Mutex;

/// Guests compete for few processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a run showed.
struct Seen {
    text: String,
    events: Vec<Event>,
}

impl Seen {
    #[track_caller]
    fn found<T>(&self, what: &str, found: Option<T>) -> T {
        found.unwrap_or_else(|| panic!("{what}:\n{}\n{:#?}", self.text, self.events))
    }

    /// Place in the order and result of a line's Return.
    #[track_caller]
    fn returned(&self, line: u16) -> (u64, Result<u64, Errno>) {
        let found = self.events.iter().find_map(|event| match event {
            Event::Return { seq, call, result, .. } if call.0 == line => Some((*seq, *result)),
            _ => None,
        });
        self.found(&format!("line {line} did not return"), found)
    }

    #[track_caller]
    fn result(&self, line: u16) -> Result<u64, Errno> {
        self.returned(line).1
    }

    /// Where a line was seen to stand, in order.
    fn stands(&self, line: u16) -> Vec<(u64, char, &str)> {
        let mut stands = Vec::new();
        for event in &self.events {
            if let Event::Blocked { seq, call, state, wchan, .. } = event
                && call.0 == line
            {
                stands.push((*seq, *state, wchan.as_str()));
            }
        }
        stands
    }

    #[track_caller]
    fn stood(&self, line: u16) -> (u64, char, &str) {
        self.found(&format!("line {line} was not blocked"), self.stands(line).first().copied())
    }

    fn gates_released(&self) -> Option<u64> {
        self.events.iter().find_map(|event| match event {
            Event::GatesReleased { seq } => Some(*seq),
            _ => None,
        })
    }

    #[track_caller]
    fn helped(&self) -> Vec<u16> {
        let helped = self.events.iter().find_map(|event| match event {
            Event::End { stuck, helped, .. } if stuck.is_empty() => Some(helped),
            _ => None,
        });
        self.found("no end, or someone is stuck", helped).iter().map(|call| call.0).collect()
    }

    fn skipped(&self, line: u16) -> Option<SkipReason> {
        self.events.iter().find_map(|event| match event {
            Event::Skipped { call, reason, .. } if call.0 == line => Some(*reason),
            _ => None,
        })
    }

    #[track_caller]
    fn nothing_stays_pinned(&self) {
        let pins = self.events.iter().find_map(|event| match event {
            Event::Pins { before, after } => Some((*before, *after)),
            _ => None,
        });
        assert_eq!(self.found("pins are not told", pins), (0, 0), "{}", self.text);
    }
}

/// A guest of one kernel.
struct Guest {
    target: QemuTarget,
    /// Whether the end of a direct read wakes who waits for its pages. In 6.1 it does not: `__bio_release_pages` puts them by
    /// `folio_put_refs`, which knows nothing of DAX pages (block/bio.c, 6.1).
    wakes: bool,
}

impl Guest {
    fn new(kernel: &str) -> Guest {
        let config = Config { kernel: kernel.into(), ..Config::default() };
        let target = QemuTarget::new(&config, &|line| eprintln!("{line}"));
        let target = target.unwrap_or_else(|error| panic!("{error}"));
        Guest { target, wakes: kernel != "debian:6.1" }
    }

    #[track_caller]
    fn run(&mut self, image: &str, lines: &str) -> Seen {
        let text = format!("pinfuzz 1\nimage {image}\n{lines}");
        let program = Program::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut programs = Some(program).into_iter();
        let mut seen = None;
        while !self
            .target
            .run_batch(&mut || programs.next(), &mut |done| seen = Some(done.history.events))
            .unwrap()
        {}
        Seen { text, events: seen.expect("the program came back") }
    }
}

/// Where a layout change waits for the pages of a DAX file.
fn layout_wait(image: &str) -> Option<&'static str> {
    match image {
        "ext4-dax" => Some("ext4_break_layouts"),
        "xfs-dax" => Some("xfs_break_dax_layouts"),
        _ => None,
    }
}

const IMAGES: [&str; 4] = ["ext4-dax", "xfs-dax", "ext4", "xfs"];

/// Sixteen pages of a file, mapped.
const MAPPED: &str = "t0: f0 = open(\"a\", RDWR|CREAT)\n\
                      t0: pwrite(f0, 0, anon, 64K)\n\
                      t0: m0 = mmap(f0, 0, 64K, RW, SHARED)\n";

/// DMA into a mapping is in flight when its file is truncated.
fn direct_io_is_held_by_a_device(guest: &mut Guest) {
    for image in IMAGES {
        let seen = guest.run(
            image,
            &format!(
                "{MAPPED}t0: f1 = open(g0, RDWR|DIRECT)\n\
                 t0: hold(g0)\n\
                 t1: pread(f1, 0, m0+0, 64K)\n\
                 t2: ftruncate(f0, 0)\n\
                 t0: release(g0)\n\
                 t0: wait(t1)\n\
                 t0: wait(t2)\n"
            ),
        );
        let (_, state, wchan) = seen.stood(5);
        assert_eq!((state, wchan), ('D', "submit_bio_wait"), "{image}");
        let (released, read) = (seen.returned(7).0, seen.returned(5));
        assert_eq!(read.1, Ok(64 << 10), "{image}");
        assert_eq!(seen.result(6), Ok(0), "{image}");
        let stands = seen.stands(6);
        match layout_wait(image) {
            None => assert!(stands.is_empty() && seen.returned(6).0 < released, "{image}"),
            Some(wait) => {
                assert!(stands.iter().all(|s| (s.1, s.2) == ('S', wait)), "{image}: {stands:?}");
                assert!(seen.stood(6).0 < released && seen.returned(6).0 > read.0, "{image}");
                // Where nobody wakes it, it is seen to stand again after the read was over.
                assert_eq!(stands.iter().any(|s| s.0 > read.0), !guest.wakes, "{image}");
                assert_eq!(seen.helped().contains(&6), !guest.wakes, "{image}");
            }
        }
        assert_eq!(seen.gates_released(), None);
        seen.nothing_stays_pinned();
    }
}

/// What is still held at the end is let go by the agent, requests of rings as well; held I/O can also be made to fail.
fn gates_open_at_the_end(guest: &mut Guest) {
    let seen = guest.run(
        "xfs",
        &format!(
            "{MAPPED}t0: f1 = open(g0, RDWR|DIRECT)\n\
             t0: r0 = io_uring_setup(8)\n\
             t0: hold(g0)\n\
             t1: pwrite(f1, 0, m0+0, 4K) &\n\
             t1: hold(g0)\n\
             t2: pread(f1, 8K, m0+8K, 4K) (r0) &\n\
             t3: fsync(f1)\n\
             t3: statx(f1)\n"
        ),
    );
    let released = seen.gates_released().expect("the agent released a gate");
    for line in [6, 8] {
        assert!(seen.stood(line).0 < released && seen.returned(line).0 > released, "line {line}");
        assert_eq!(seen.result(line), Ok(4096), "line {line}");
    }
    assert_eq!(seen.skipped(7), Some(SkipReason::LaneStuck), "no gate is held after the end");
    assert_eq!(seen.result(9), Ok(0));
    assert_eq!(seen.skipped(10), Some(SkipReason::Unsupported));
    assert_eq!(seen.helped(), [6, 8]);
    seen.nothing_stays_pinned();

    let seen = guest.run(
        "ext4",
        "t0: f1 = open(g0, RDWR|DIRECT)\n\
         t0: r0 = io_uring_setup(8)\n\
         t0: hold(g0)\n\
         t1: pread(f1, 0, anon, 8K) &\n\
         t2: pwrite(f1, 0, anon, 8K) (r0) &\n\
         t0: wait(t2)\n\
         t0: release(g0, EIO)\n\
         t0: wait(t1)\n\
         t0: wait(t2)\n\
         t0: pread(f1, 0, anon, 8K)\n",
    );
    let eio = Err(Errno(5));
    assert_eq!((seen.result(3), seen.result(4), seen.result(9)), (eio, eio, Ok(8192)));
    assert!(seen.helped().is_empty());
}

/// A child that waits for held I/O dies when the I/O is let go, and not before.
fn a_held_child_dies_late(guest: &mut Guest) {
    let seen = guest.run(
        "xfs",
        "t0: f1 = open(g0, RDWR|DIRECT)\n\
         t0: c0 = fork()\n\
         t0: hold(g0)\n\
         c0: pread(f1, 0, anon, 8K)\n\
         t0: kill(c0)\n\
         t0: release(g0)\n\
         t0: wait(c0)\n",
    );
    assert_eq!((seen.stood(3).1, seen.result(4)), ('D', Ok(1)));
    assert_eq!((seen.result(6), seen.helped()), (Ok(0), vec![3]));
    seen.nothing_stays_pinned();
}

/// A pipe holds pages until it is read or closed, its copy as well.
fn pages_are_held_by_a_pipe(guest: &mut Guest) {
    for image in IMAGES {
        let seen = guest.run(
            image,
            &format!(
                "{MAPPED}t0: p0 = pipe()\n\
                 t0: p1 = pipe()\n\
                 t0: vmsplice(m0+0, p0, 16K)\n\
                 t0: tee(p0, p1, 4K)\n\
                 t0: close(p0)\n\
                 t2: fallocate(f0, PUNCH_HOLE, 32K, 4K)\n\
                 t0: read(p1, anon, 4K)\n\
                 t0: wait(t2)\n"
            ),
        );
        assert_eq!(
            (seen.result(5), seen.result(6), seen.result(9)),
            (Ok(16384), Ok(4096), Ok(4096))
        );
        let stands = seen.stands(8);
        let at: Vec<_> = stands.iter().map(|s| (s.1, s.2)).collect();
        assert_eq!(at.first().copied(), layout_wait(image).map(|wait| ('S', wait)), "{image}");
        assert_eq!((seen.result(8), seen.helped()), (Ok(0), vec![]), "{image}");
        seen.nothing_stays_pinned();
    }
}

/// process_vm_writev pins its pages until the memory gate lets go.
fn pages_are_held_by_a_page_fault(guest: &mut Guest) {
    for image in ["ext4-dax", "xfs-dax"] {
        let seen = guest.run(
            image,
            &format!(
                "{MAPPED}t0: hold(g2)\n\
                 t1: process_vm_writev(m0+4096, g2, 8K)\n\
                 t2: ftruncate(f0, 0)\n\
                 t0: release(g2)\n\
                 t0: wait(t2)\n\
                 t0: process_vm_readv(m0+0, g2, 4K)\n"
            ),
        );
        assert_eq!((seen.stood(4).1, seen.stood(4).2), ('S', "handle_userfault"), "{image}");
        assert_eq!((seen.stood(5).1, Some(seen.stood(5).2)), ('S', layout_wait(image)), "{image}");
        assert_eq!((seen.result(4), seen.result(5)), (Ok(8192), Ok(0)), "{image}");
        assert!(seen.returned(5).0 > seen.returned(6).0 && seen.helped().is_empty(), "{image}");
        // Nothing of the file is left.
        assert_eq!(seen.result(8), Err(Errno(14)), "{image}");
        seen.nothing_stays_pinned();
    }
}

/// The break of a lease is told to the thread that was named, and waited for.
fn leases_are_broken(guest: &mut Guest) {
    for image in ["ext4-dax", "xfs"] {
        let seen = guest.run(
            image,
            "t0: f0 = open(\"a\", RDWR|CREAT)\n\
             t0: setsig(f0, RT2)\n\
             t0: setown_ex(f0, TID, t3)\n\
             t0: setlease(f0, WRLCK)\n\
             t1: truncate(\"a\", 4K)\n\
             t0: setlease(f0, UNLCK)\n\
             t0: wait(t1)\n\
             t0: setsig(f0, SIGIO)\n\
             t0: on_break(UNLCK)\n\
             t0: setlease(f0, WRLCK)\n\
             t1: f1 = open(\"a\", RDONLY)\n\
             t0: setlease(f0, LAYOUT)\n",
        );
        assert_eq!((seen.stood(4).1, seen.stood(4).2), ('S', "__break_lease"), "{image}");
        assert!(seen.returned(4).0 > seen.stood(4).0 && seen.helped().is_empty(), "{image}");
        assert!(seen.result(10).is_ok(), "{image}");
        assert_eq!(seen.result(11), Err(Errno(22)), "{image}");
        let fd = seen.result(0).expect("opened") as i32;
        let told: Vec<_> = seen
            .events
            .iter()
            .filter_map(|event| match event {
                &Event::Signal { lane, signo, fd, answer, .. } => Some((lane, signo, fd, answer)),
                _ => None,
            })
            .collect();
        assert_eq!(told.len(), 2, "{image}: {told:?}");
        assert_eq!(told[0], (Some(Lane::Thread(3)), 36, fd, None), "{image}");
        let answer = Some((Lease::Unlock, Ok(0)));
        assert_eq!((told[1].1, told[1].2, told[1].3), (29, fd, answer), "{image}");
    }
}

fn all(kernel: &str) {
    let _one = ONE_AT_A_TIME.lock();
    let mut guest = Guest::new(kernel);
    direct_io_is_held_by_a_device(&mut guest);
    gates_open_at_the_end(&mut guest);
    a_held_child_dies_late(&mut guest);
    pages_are_held_by_a_pipe(&mut guest);
    pages_are_held_by_a_page_fault(&mut guest);
    leases_are_broken(&mut guest);
}

#[test]
fn pins_gates_and_leases_on_debian_6_12() {
    all("debian:6.12");
}

#[test]
fn pins_gates_and_leases_on_debian_6_1() {
    all("debian:6.1");
}

/// What is held stays held for as long in every run.
#[test]
fn held_pages_repeat_themselves_bit_for_bit() {
    let _one = ONE_AT_A_TIME.lock();
    let config = Config { mode: Mode::Exact, ..Config::default() };
    let target = QemuTarget::new(&config, &|line| eprintln!("{line}"));
    let mut target = target.unwrap_or_else(|error| panic!("{error}"));
    let program = Program::parse(&format!(
        "pinfuzz 1\nimage xfs-dax\n{MAPPED}t0: f1 = open(g0, RDWR|DIRECT)\n\
         t0: setsig(f0, RT1)\n\
         t0: setlease(f0, WRLCK)\n\
         t0: hold(g0)\n\
         t0: hold(g2)\n\
         t1: pread(f1, 0, m0+0, 4K) &\n\
         t2: process_vm_readv(m0+4096, g2, 8K) &\n\
         t3: truncate(\"a\", 0) &\n\
         t0: wait(t1)\n\
         t0: release(g2)\n"
    ));
    let program = program.unwrap_or_else(|error| panic!("{error}"));
    let first = target.execute(&program).unwrap();
    let released = |event: &Event| matches!(event, Event::GatesReleased { .. });
    assert!(first.history.events.iter().any(released), "{:#?}", first.history.events);
    for _ in 0..2 {
        let again = target.execute(&program).unwrap();
        assert!(again.history == first.history, "not the same history");
    }
}
