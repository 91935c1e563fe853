//! Counts of meetings: hand-made histories of small programs, each with the one outcome that a reader would give it.
//!
//! Which lines meet is the business of crate `program`, and tested there.

use harness::report::{Meetings, Outcomes};
use history::{Errno, Event, History, Payload, SkipReason};
use program::{Breaker, CallId, LayoutChange, LeaseState, Mount, PinSource, Program};

/// A pipe holds a page of a file (#4) that is punched (#5).
const PIPE: &str = "pinfuzz 1
image xfs-dax
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 8K)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K) &
";

/// An I/O through a gate holds a page of a file (#5) that is truncated (#6).
const GATE: &str = "pinfuzz 1
image ext4-dax
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: f1 = open(g0, RDWR|DIRECT)
t0: hold(g0)
t1: pread(f1, 0, m0+0, 4K) &
t2: ftruncate(f0, 0) &
t0: release(g0)
";

/// A lease (#1) and an open that breaks it (#2).
const LEASE: &str = "pinfuzz 1
image ext4
t0: f0 = open(\"a\", RDWR|CREAT)
t0: setlease(f0, WRLCK)
t1: f1 = open(\"a\", RDONLY) &
";

const EINTR: Errno = Errno(4);
const EIO: Errno = Errno(5);
const EINVAL: Errno = Errno(22);

/// One observation of a line; its place in the list is its place in time.
#[derive(Clone, Copy)]
enum Saw {
    Begins(u16),
    Returns(u16),
    Fails(u16, Errno),
    Waits(u16),
    LeftOut(u16),
}
use Saw::{Begins, Fails, LeftOut, Returns, Waits};

fn event(index: usize, saw: Saw) -> Event {
    let (seq, time_ns) = (index as u64 + 1, index as u64 * 1000);
    let returns = |call, result| {
        let payload = Payload::None;
        Event::Return { seq, call: CallId(call), time_ns, result, payload }
    };
    match saw {
        Begins(call) => Event::Invoke { seq, call: CallId(call), time_ns, slots: Vec::new() },
        Returns(call) => returns(call, Ok(0)),
        Fails(call, errno) => returns(call, Err(errno)),
        Waits(call) => {
            let wchan = "dax_layout_busy_page".into();
            Event::Blocked { seq, call: CallId(call), time_ns, state: 'S', wchan }
        }
        LeftOut(call) => Event::Skipped { seq, call: CallId(call), reason: SkipReason::EmptySlot },
    }
}

fn meetings(program: &str, saw: &[Saw]) -> Meetings {
    let program = Program::parse(program).expect("the program parses");
    let events = saw.iter().enumerate().map(|(index, saw)| event(index, *saw)).collect();
    Meetings::of(&program, &History { run: 1, events })
}

#[track_caller]
fn punched(saw: &[Saw], want: Outcomes) {
    let meetings = meetings(PIPE, saw);
    let mounts = Mount::ALL;
    let seen = meetings.held.at(&mounts, PinSource::Vmsplice, LayoutChange::PunchHole);
    assert_eq!(seen, want);
    assert_eq!(meetings.held.mounts(), [Mount::XfsDax]);
    assert_eq!(meetings.held.reach(&mounts, PinSource::Vmsplice).0, u64::from(want.met()));
    assert!(meetings.leases.is_empty());
}

#[track_caller]
fn truncated(saw: &[Saw], want: Outcomes) {
    let seen = meetings(GATE, saw);
    let at = &[Mount::Ext4Dax];
    assert_eq!(seen.held.at(at, PinSource::GateRead, LayoutChange::FtruncateDown), want);
}

const NONE: Outcomes = Outcomes { completed: 0, refused: 0, unseen: 0, missed: 0, blocked: 0 };
const COMPLETED: Outcomes = Outcomes { completed: 1, ..NONE };
const REFUSED: Outcomes = Outcomes { refused: 1, ..NONE };
const UNSEEN: Outcomes = Outcomes { unseen: 1, ..NONE };
const MISSED: Outcomes = Outcomes { missed: 1, ..NONE };

#[test]
fn a_change_completes_or_is_refused() {
    punched(&[Begins(4), Returns(4), Begins(5), Returns(5)], COMPLETED);
    punched(&[Begins(4), Returns(4), Begins(5), Fails(5, EINVAL)], REFUSED);
}

#[test]
fn waiting_is_counted_beside_how_it_ended() {
    let begins = [Begins(4), Returns(4), Begins(5), Waits(5), Waits(5)];
    let and = |last: &[Saw]| [&begins, last].concat();
    punched(&and(&[Returns(5)]), Outcomes { blocked: 1, ..COMPLETED });
    punched(&and(&[Fails(5, EINTR)]), Outcomes { blocked: 1, ..REFUSED });
    punched(&and(&[]), Outcomes { blocked: 1, ..UNSEEN });
}

#[test]
fn what_never_ran_or_never_returned_is_unseen() {
    punched(&[], UNSEEN);
    punched(&[Begins(4), Returns(4), LeftOut(5)], UNSEEN);
    punched(&[Begins(4), Returns(4), Begins(5)], UNSEEN);
    assert!(!UNSEEN.met(), "it may have stood before its first look at the file");
}

#[test]
fn a_page_that_nobody_took_is_missed() {
    punched(&[LeftOut(4), Begins(5), Returns(5)], MISSED);
    punched(&[Begins(4), Fails(4, EINVAL), Begins(5), Returns(5)], MISSED);
    punched(&[Begins(5), Waits(5), Returns(5), Begins(4), Returns(4)], MISSED);
    punched(&[Begins(5), Begins(4), Returns(4), Returns(5)], COMPLETED);
}

#[test]
fn io_holds_its_page_while_it_runs_and_however_it_ends() {
    truncated(&[Begins(5), Begins(6), Returns(6), Returns(5)], COMPLETED);
    truncated(&[Begins(5), Begins(6), Fails(5, EIO), Returns(6)], COMPLETED);
    truncated(&[Begins(5), Begins(6), Returns(6)], COMPLETED);
    truncated(&[Begins(5), Returns(5), Begins(6), Returns(6)], MISSED);
    truncated(&[Begins(5), Fails(5, EIO), Begins(6), Returns(6)], MISSED);
}

#[test]
fn a_breaker_meets_a_lease_that_was_granted() {
    let opened = |saw: &[Saw]| {
        meetings(LEASE, saw).leases.at(&[Mount::Ext4], LeaseState::Write, Breaker::OpenRead)
    };
    let waits = [Begins(1), Returns(1), Begins(2), Waits(2), Returns(2)];
    assert_eq!(opened(&waits), Outcomes { blocked: 1, ..COMPLETED });
    assert_eq!(opened(&[Begins(1), Fails(1, Errno(11)), Begins(2), Returns(2)]), MISSED);
}

#[test]
fn a_dedupe_whose_destination_was_refused_is_refused() {
    let program = Program::parse(
        "pinfuzz 1\nimage xfs\nt0: f0 = open(\"a\", RDWR|CREAT)\nt0: pwrite(f0, 0, anon, 16K)\n\
         t0: m0 = mmap(f0, 0, 16K, RW, SHARED)\nt0: p0 = pipe()\nt0: vmsplice(m0+0, p0, 8K)\n\
         t0: f1 = open(\"b\", RDWR|CREAT)\nt0: fideduperange(f0, 0, 4K, f1, 0)\n",
    )
    .expect("the program parses");
    let returned = |status| {
        let mut events: Vec<Event> = [Begins(4), Returns(4), Begins(6)]
            .into_iter()
            .enumerate()
            .map(|(i, s)| event(i, s))
            .collect();
        let payload = Payload::Dedupe { status };
        events.push(Event::Return { seq: 9, call: CallId(6), time_ns: 0, result: Ok(0), payload });
        let meetings = Meetings::of(&program, &History { run: 1, events });
        meetings.held.at(&[Mount::Xfs], PinSource::Vmsplice, LayoutChange::DedupeFrom)
    };
    assert_eq!(returned(-22), REFUSED);
    assert_eq!(returned(1), COMPLETED, "contents that differ are an answer");
}

/// Some runs, with an outcome of each kind.
fn several() -> Meetings {
    let mut all = Meetings::default();
    let waits = [Begins(4), Returns(4), Begins(5), Waits(5), Returns(5)];
    for saw in [&waits[..], &[], &[Begins(5), Returns(5)]] {
        all.extend(&meetings(PIPE, saw));
    }
    all.extend(&meetings(GATE, &[Begins(5), Begins(6), Fails(6, EINVAL)]));
    all.extend(&meetings(LEASE, &[Begins(1), Returns(1), Begins(2), Returns(2)]));
    all
}

#[test]
fn the_short_table_fits_the_end_of_a_campaign() {
    let text = several().to_text();
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    insta::assert_snapshot!(text);
    assert_eq!(Meetings::default().to_text(), "", "nothing is said of nothing");
}

#[test]
fn few_pairs_that_were_never_met_are_named() {
    let mut all = several();
    for source in PinSource::ALL {
        for change in LayoutChange::ALL.iter().filter(|change| **change != LayoutChange::Munmap) {
            all.held.add(Mount::XfsDax, *source, *change, COMPLETED);
        }
    }
    for source in &PinSource::ALL[4..] {
        all.held.add(Mount::Ext4Dax, *source, LayoutChange::Munmap, REFUSED);
    }
    let text = all.to_text();
    let want = "  never met: direct-read x munmap, direct-write x munmap, gate-read x munmap\n  \
                never met: gate-write x munmap\n";
    assert!(text.contains(want), "{text}");
    assert!(all.to_markdown().contains("\nNever met: 4 pairs.\n\n- direct-read: munmap\n"));
}

#[test]
fn the_whole_table_is_markdown() {
    let text = several().to_markdown();
    let columns = |line: &str| line.matches('|').count();
    let mut above = 0;
    for line in text.lines() {
        assert!(above == 0 || columns(line) == 0 || columns(line) == above, "{line}");
        above = columns(line);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_report_gives_back_what_it_says() {
    let all = several();
    let json = serde_json::to_value(&all).expect("plain data serializes");
    let cell = &json["held"]["xfs-dax"]["vmsplice"]["punch-hole"];
    let want = serde_json::json!({ "completed": 1, "unseen": 1, "missed": 1, "blocked": 1 });
    assert_eq!(*cell, want, "counts that are zero are left out");
    assert_eq!(serde_json::from_value::<Meetings>(json).expect("it is one of ours"), all);
}

#[test]
fn a_strangers_report_is_refused_or_bounded() {
    let read = |held: &str| {
        serde_json::from_str::<Meetings>(&format!("{{\"held\": {held}, \"leases\": {{}}}}"))
    };
    let error = read("{\"btrfs\": {}}").expect_err("no such mount");
    assert!(error.to_string().contains("there is no mount `btrfs`"), "{error}");
    assert!(read("{\"ext4\": {\"glue\": {}}}").is_err());
    let most = u64::MAX;
    let huge = format!("{{\"completed\": {most}}}");
    let huge = format!("{{\"ext4\": {{\"tee\": {{\"munmap\": {huge}, \"fork\": {huge}}}}}}}");
    let text = read(&huge).expect("it is well-formed").to_text();
    assert!(text.contains(&most.to_string()), "{text}");
}
