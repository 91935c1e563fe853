//! Counts of what was exercised: hand-made histories of small programs, and what each leaves untouched.

use harness::coverage::behaviour::{Failure, Place};
use harness::report::{Counts, Exercised};
use history::{Errno, Event, FileFacts, FileId, History, Payload, SkipReason};
use program::{CallId, Form, Mount, Program};
use std::path::Path;

const PROGRAM: &str = "pinfuzz 1
image xfs-dax
t0: f0 = open(\"a\", RDWR|CREAT|DIRECT)
t0: pwrite(f0, 0, anon, 16K) (aio)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K) &
t2: fallocate(f0, COLLAPSE_RANGE, 0, 4K) &
t0: f1 = open(\"ext4:b\", RDONLY)
t0: p0 = pipe()
";

fn invoke(call: u16, slots: &[u16]) -> Event {
    let slots = slots.iter().map(|slot| CallId(*slot)).collect();
    Event::Invoke { seq: u64::from(call) * 2, call: CallId(call), time_ns: 0, slots }
}

fn returns(call: u16, result: Result<u64, Errno>, payload: Payload) -> Event {
    Event::Return { seq: u64::from(call) * 2 + 1, call: CallId(call), time_ns: 0, result, payload }
}

fn facts(mount: Mount) -> Payload {
    let id = FileId { mount, ino: 131, generation: 7 };
    let (size, blocks, nlink, dio_mem_align, dio_offset_align) = (0, 0, 1, 0, 0);
    let dax = mount.is_dax();
    Payload::File(FileFacts { id, size, blocks, nlink, dax, dio_mem_align, dio_offset_align })
}

fn history() -> History {
    let wchan = "dax_layout_busy_page".to_string();
    let events = vec![
        invoke(0, &[]),
        returns(0, Ok(3), facts(Mount::XfsDax)),
        invoke(1, &[0]),
        returns(1, Ok(16384), Payload::None),
        invoke(2, &[0]),
        Event::Blocked { seq: 9, call: CallId(2), time_ns: 0, state: 'S', wchan },
        returns(2, Ok(0), Payload::None),
        invoke(3, &[0]),
        returns(3, Err(Errno(22)), Payload::None),
        invoke(4, &[]),
        returns(4, Err(Errno(2)), Payload::None),
        invoke(5, &[]),
        returns(5, Ok(0), Payload::None),
    ];
    History { run: 1, events }
}

fn exercised(history: &History) -> Exercised {
    Exercised::of(&Program::parse(PROGRAM).expect("the program parses"), history)
}

fn form(name: &str) -> Form {
    Form::from_name(name).unwrap_or_else(|| panic!("no form is {name}"))
}

fn at(counts: &Exercised, mount: Mount, name: &str) -> Option<Counts> {
    counts.at(Place::On(mount), form(name)).cloned()
}

#[test]
fn each_call_counts_in_all_its_forms_where_it_took_place() {
    let counts = exercised(&history());
    let once = Some(Counts { completed: 1, ..Counts::default() });
    let xfs = ["open RDWR", "open CREAT", "open DIRECT", "pwrite (aio)", "pwrite anon"];
    for name in xfs {
        assert_eq!(at(&counts, Mount::XfsDax, name), once, "{name}");
    }
    let waited = Counts { completed: 1, blocked: 1, ..Counts::default() };
    assert_eq!(at(&counts, Mount::XfsDax, "fallocate PUNCH_HOLE"), Some(waited));
    let refused =
        |errno| Counts { failed: [(Failure::Errno(errno), 1)].into(), ..Counts::default() };
    assert_eq!(at(&counts, Mount::XfsDax, "fallocate COLLAPSE_RANGE"), Some(refused(22)));
    // A file that is not there is on the mount of its name.
    assert_eq!(at(&counts, Mount::Ext4, "open RDONLY"), Some(refused(2)));
    assert_eq!(counts.at(Place::Elsewhere, form("pipe")), once.as_ref());
    assert_eq!(at(&counts, Mount::XfsDax, "pwrite (plain)"), None);
    assert_eq!(
        counts.places(),
        [Place::On(Mount::XfsDax), Place::On(Mount::Ext4), Place::Elsewhere]
    );
}

#[test]
fn what_never_returned_is_no_exercise() {
    let mut history = history();
    history.events.truncate(3);
    let counts = exercised(&history);
    let write = at(&counts, Mount::XfsDax, "pwrite (aio)").expect("it was issued");
    assert_eq!((write.unseen, write.exercised()), (1, false));
    let (reached, possible) = counts.reach(Place::On(Mount::XfsDax));
    assert_eq!(reached, 3, "the open with its access and two flags");
    assert!(possible > 100, "{possible}");
}

#[test]
fn what_the_kernel_does_not_have_is_said_and_is_no_exercise() {
    let text =
        "pinfuzz 1\nimage ext4\nt0: pin_longterm_test_start(anon, 4K, FAST)\nt0: close(f0)\n";
    let program = Program::parse(text).expect("the program parses");
    let skipped = |call, reason| Event::Skipped { seq: call, call: CallId(call as u16), reason };
    let events = vec![skipped(0, SkipReason::Unsupported), skipped(1, SkipReason::EmptySlot)];
    let counts = Exercised::of(&program, &History { run: 1, events });
    let start = form("pin_longterm_test_start FAST");
    let left_out = Counts { unsupported: 1, ..Counts::default() };
    assert_eq!(counts.at(Place::Elsewhere, start), Some(&left_out));
    assert!(!left_out.exercised());
    assert_eq!(counts.at(Place::Elsewhere, form("close")), None, "its slot was empty");
    let whole = counts.to_markdown();
    let cell = whole.lines().find(|line| line.starts_with("| pin_longterm_test_start FAST"));
    assert!(cell.is_some_and(|line| line.contains("1x")), "{whole}");
}

#[test]
fn the_tables_say_what_was_not() {
    let counts = exercised(&history());
    let text = counts.to_text(Path::new("reports/x"));
    assert!(text.contains(" on xfs-dax, "), "{text}");
    assert!(text.ends_with("`pinfuzz show --exercised reports/x` lists the rest\n"), "{text}");
    let whole = counts.to_markdown();
    for line in [
        "No call was about a file on ext4-dax, xfs.",
        // On no mount, on one mount alone, and there but never with success.
        "- fallocate: 0, KEEP_SIZE, ZERO_RANGE, ZERO_RANGE|KEEP_SIZE, INSERT_RANGE, UNSHARE_RANGE, PUNCH_HOLE_BARE, (ring)\n",
        "- fallocate: PUNCH_HOLE, COLLAPSE_RANGE, (plain)\n",
        "1 form on xfs-dax:\n\n- fallocate: COLLAPSE_RANGE\n",
        "1, 1b",
        "1 EINVAL",
    ] {
        assert!(whole.contains(line), "{line} is not in\n{whole}");
    }
    let nothing = Exercised::default();
    assert_eq!(nothing.to_text(Path::new("x")), "");
    assert!(nothing.to_markdown().contains("Nothing was."));
}

#[test]
fn counts_add_up_and_come_back_from_json() {
    let mut all = exercised(&history());
    all.extend(&exercised(&history()));
    let refused = at(&all, Mount::XfsDax, "fallocate COLLAPSE_RANGE").expect("it was issued");
    assert_eq!(refused.failed, [(Failure::Errno(22), 2)].into());
    let json = serde_json::to_value(&all).expect("plain data serializes");
    let want = serde_json::json!({ "failed": { "EINVAL": 2 } });
    assert_eq!(json["xfs-dax"]["fallocate COLLAPSE_RANGE"], want);
    assert_eq!(serde_json::from_value::<Exercised>(json).expect("it is one of ours"), all);
}

#[test]
fn a_strangers_report_is_refused_or_bounded() {
    let read = |text: &str| serde_json::from_str::<Exercised>(text);
    for wrong in [
        "{\"btrfs\": {}}",
        "{\"ext4\": {\"openat\": {}}}",
        "{\"ext4\": {\"pipe\": {\"failed\": {\"EWHAT\": 1}}}}",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let huge = format!("{{\"ext4\": {{\"close\": {{\"completed\": {}}}}}}}", u64::MAX);
    let mut one = read(&huge).expect("it is well-formed");
    one.extend(&read(&huge).expect("it is well-formed"));
    assert!(one.to_markdown().contains(&u64::MAX.to_string()));
}

#[test]
fn a_lying_guest_is_counted_once_a_line() {
    let mut lies = history();
    for _ in 0..3 {
        lies.events.extend(history().events);
    }
    // Lines that the program does not have, slots that nobody filled, errnos that do not exist.
    lies.events.push(invoke(4000, &[9, 9, 9]));
    lies.events.push(returns(4000, Err(Errno(-7)), Payload::None));
    assert_eq!(exercised(&lies), exercised(&history()));
    let made_up = vec![invoke(5, &[17]), returns(5, Err(Errno(i32::MIN)), Payload::None)];
    let counts = exercised(&History { run: 0, events: made_up });
    let pipe = counts.at(Place::Elsewhere, form("pipe")).expect("it was issued");
    assert_eq!(pipe.failed, [(Failure::Other, 1)].into());
}
