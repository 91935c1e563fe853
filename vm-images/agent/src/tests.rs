//! Programs on this machine's own file system, through the same lanes, calls and log as in a guest.
//!
//! What DAX does is not tested here, nor how PID 1 replaces a runner: those need a guest.

use crate::control::Control;
use crate::gates::Gates;
use crate::pid1::Supervisor;
use crate::record::Recorder;
use crate::run::Environment;
use crate::runner::Runner;
use crate::{mounts::Mounts, sys};
use history::memory::Memory;
use history::wire::{Job, Note, RunOptions, SHM_SIZE, read_log, slot, sort_events};
use history::{Errno, Event, Payload, ReadPath, Run, SkipReason, stamp};
use program::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

struct Bench {
    runner: Runner,
    control: &'static Control,
    memory: Memory<'static>,
    next: u32,
    _root: tempfile::TempDir,
}

/// Memory as from the host, and a place for runs.
fn ground() -> (Memory<'static>, tempfile::TempDir, Arc<Environment>) {
    // As from the host: what a forked child writes is seen here.
    let file = tempfile::tempfile().expect("a file");
    file.set_len(SHM_SIZE).expect("room");
    let words = sys::map_words(&file, SHM_SIZE as usize).expect("a mapping");
    let memory = Memory::new(words).expect("large enough");
    let root = tempfile::tempdir().expect("a directory");
    for mount in Mount::ALL {
        std::fs::create_dir(root.path().join(mount.name())).expect("a mount's place");
    }
    let environment = Environment {
        root: root.path().to_owned(),
        drop_caches: None,
        stat_refresh: None,
        lease_break_time: None,
        clear_warn_once: None,
        kmsg: None,
        ring_ops: Arc::new(sys::supported_ops()),
        gates: Gates::default(),
        rdma: false,
        gup_test: false,
        reached: None,
    };
    (memory, root, Arc::new(environment))
}

fn bench() -> &'static Mutex<Bench> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    BENCH.get_or_init(|| {
        let (memory, root, environment) = ground();
        let control: &'static Control = sys::shared().expect("a page");
        sys::fault::install(2);
        sys::notice::install(control);
        let runner = Runner::new(control, memory, environment, Mounts::default()).expect("threads");
        Mutex::new(Bench { runner, control, memory, next: 1, _root: root })
    })
}

/// Runs the lines on mount `ext4` and gives the run's number and its events, sorted.
fn play(lines: Vec<Line>) -> (u32, Vec<Event>) {
    play_within(20, lines)
}

/// Runs a program; a call that stands still for that long counts as blocked.
fn play_within(block_after_ms: u32, lines: Vec<Line>) -> (u32, Vec<Event>) {
    let mut bench = bench().lock().unwrap_or_else(PoisonError::into_inner);
    let number = bench.next;
    bench.next += 1;
    bench.memory.word(history::wire::slot_offset(0) + slot::LOG_LEN).store(0, Ordering::Relaxed);
    let recorder = Recorder::new(bench.control, bench.memory, 0, true);
    let options = RunOptions { keep: false, record: true, cover: false, block_after_ms };
    bench.runner.run(recorder, number, Program { home: Mount::Ext4, lines }, options);
    let notes = read_log(&bench.memory.log_bytes(0)).expect("well formed");
    let event = |note| match note {
        Note::Event(event) => event,
        other => panic!("{other:?}"),
    };
    let mut events: Vec<Event> = notes.into_iter().map(event).collect();
    sort_events(&mut events);
    (number, events)
}

fn on(lane: u8, call: Call) -> Line {
    Line { lane: Lane::Thread(lane), call, via: None, aio: false, delay_us: 0, detached: false }
}

fn in_child(call: Call) -> Line {
    Line { lane: Lane::Child(0), ..on(0, call) }
}

fn detached(line: Line) -> Line {
    Line { detached: true, ..line }
}

fn ring(line: Line, flags: SqeFlags) -> Line {
    Line { via: Some(Via { ring: RingSlot(0), flags }), ..line }
}

const F0: FileSlot = FileSlot(0);
const F1: FileSlot = FileSlot(1);
const M0: MapSlot = MapSlot(0);
const P0: PipeSlot = PipeSlot(0);
const ANON: Buf = Buf::Anon(0);

fn path(name: u8) -> Path {
    Path { mount: Mount::Ext4, name }
}

fn open(slot: FileSlot, name: u8) -> Call {
    Call::Open { slot, path: path(name), access: Access::ReadWrite, flags: OpenFlags::CREAT }
}

fn pwrite(offset: u64, len: u64) -> Call {
    Call::Pwrite { file: F0, offset, buf: ANON, len }
}

fn pread(offset: u64, len: u64) -> Call {
    Call::Pread { file: F0, offset, buf: ANON, len }
}

fn mmap(len: u64) -> Call {
    let prot = Prot::READ.with(Prot::WRITE);
    Call::Mmap {
        slot: M0,
        file: F0,
        offset: 0,
        len,
        prot,
        sharing: Sharing::Shared,
        flags: MapFlags::default(),
    }
}

/// Result and payload of a line.
fn returned(events: &[Event], line: u16) -> (Result<u64, Errno>, Payload) {
    let found = events.iter().find_map(|e| match e {
        Event::Return { call, result, payload, .. } if call.0 == line => {
            Some((*result, payload.clone()))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("line {line} did not return: {events:#?}"))
}

fn seq_of(events: &[Event], line: u16, invoke: bool) -> u64 {
    let found = events.iter().find_map(|e| match e {
        Event::Invoke { call, seq, .. } if invoke && call.0 == line => Some(*seq),
        Event::Return { call, seq, .. } if !invoke && call.0 == line => Some(*seq),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("line {line}: {events:#?}"))
}

fn skipped(events: &[Event], line: u16) -> Option<SkipReason> {
    events.iter().find_map(|e| match e {
        Event::Skipped { call, reason, .. } if call.0 == line => Some(*reason),
        _ => None,
    })
}

fn read_runs(events: &[Event], line: u16) -> Vec<Run> {
    match returned(events, line).1 {
        Payload::Read { data, .. } => data.runs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_read_back_by_every_path() {
    let (run, events) =
        play(vec![on(0, open(F0, 0)), on(1, pwrite(4096, 5000)), on(0, pread(4000, 8192))]);
    let (opened, facts) = returned(&events, 0);
    assert!(opened.is_ok());
    let Payload::File(facts) = facts else { panic!("{facts:?}") };
    assert_eq!((facts.size, facts.nlink, facts.id.mount), (0, 1, Mount::Ext4));
    assert_eq!(returned(&events, 1), (Ok(5000), Payload::None));
    let written = Run::Signed { run, call: 1, offset: 4096, len: 5000 };
    assert_eq!(returned(&events, 2).0, Ok(5096));
    assert_eq!(read_runs(&events, 2), [Run::Zero { len: 96 }, written.clone()]);
    let finals: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Final { by, result, data, file, .. } => {
                assert_eq!(file.id, facts.id);
                Some((*by, *result, data.runs.clone()))
            }
            _ => None,
        })
        .collect();
    let expected = vec![Run::Zero { len: 4096 }, written];
    for by in [ReadPath::Read, ReadPath::Mapping, ReadPath::Direct, ReadPath::AfterDropCaches] {
        let found = finals.iter().find(|f| f.0 == by).unwrap_or_else(|| panic!("{by:?}"));
        // tmpfs of older kernels refuses O_DIRECT.
        if found.1 != Err(Errno(libc::EINVAL)) {
            assert_eq!(*found, (by, Ok(9096), expected.clone()));
        }
    }
    assert!(
        events.iter().any(|e| matches!(e, Event::Names { names, .. } if *names == [(0, facts.id)]))
    );
    assert!(events.iter().any(
        |e| matches!(e, Event::End { stuck, helped, .. } if stuck.is_empty() && helped.is_empty())
    ));
}

#[test]
fn an_invoke_names_the_lines_that_filled_its_slots() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Dup { slot: F1, file: F0 }),
        on(0, pwrite(0, 8192)),
        on(0, mmap(8192)),
        on(0, Call::Mremap { map: M0, len: 4096 }),
        on(0, Call::Pread { file: F1, offset: 0, buf: Buf::Map(M0, 8), len: 16 }),
        on(0, Call::Load { map: M0, offset: 4090, len: 16 }),
    ]);
    let slots = events.iter().find_map(|e| match e {
        Event::Invoke { call: CallId(5), slots, .. } => Some(slots.clone()),
        _ => None,
    });
    assert_eq!(slots, Some(vec![CallId(1), CallId(3)]));
    assert_eq!(returned(&events, 5), (Ok(16), Payload::None));
    assert_eq!(skipped(&events, 6), Some(SkipReason::OutOfRange));
    assert_eq!(skipped(&play(vec![on(0, pread(0, 8))]).1, 0), Some(SkipReason::EmptySlot));
}

#[test]
fn a_load_past_the_end_of_file_ends_at_the_fault() {
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 4096)),
        on(0, mmap(12288)),
        on(0, Call::Load { map: M0, offset: 4001, len: 300 }),
        on(0, Call::Store { map: M0, offset: 8200, len: 8 }),
        on(0, Call::Store { map: M0, offset: 16, len: 24 }),
        on(0, pread(0, 64)),
        on(0, Call::Munmap { map: M0 }),
    ]);
    let (result, payload) = returned(&events, 3);
    assert_eq!(result, Ok(95));
    let Payload::Read { data, fault: Some(fault), .. } = payload else { panic!("{payload:?}") };
    assert_eq!(data.runs, [Run::Signed { run, call: 1, offset: 4001, len: 95 }]);
    assert_eq!((fault.signo, fault.code, fault.addr), (libc::SIGBUS, 2, 4096));
    let (result, payload) = returned(&events, 4);
    assert_eq!(result, Ok(0));
    assert!(matches!(payload, Payload::Store { fault: Some(f) } if f.addr == 8200));
    assert_eq!(returned(&events, 5), (Ok(24), Payload::Store { fault: None }));
    let signed = |call, offset, len| Run::Signed { run, call, offset, len };
    assert_eq!(read_runs(&events, 6), [signed(1, 0, 16), signed(5, 16, 24), signed(1, 40, 24)]);
}

#[test]
fn poison_past_the_count_is_watched() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 100)),
        on(0, pread(0, 4096)),
        on(0, pread(4096, 8)),
    ]);
    for line in [2, 3] {
        assert!(matches!(returned(&events, line).1, Payload::Read { tail_intact: true, .. }));
    }
    assert_eq!(read_runs(&events, 3), []);
}

#[test]
fn a_blocked_splice_is_seen_and_helped() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Pipe { slot: P0 }),
        on(1, Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 4096 }),
        detached(on(1, pwrite(0, 8))),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
        on(0, pwrite(0, 16)),
    ]);
    let blocked: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Blocked { call, state, .. } => Some((call.0, *state)),
            _ => None,
        })
        .collect();
    // Once when it was waited for, and again when the program waited for its lane.
    assert_eq!(blocked, [(2, 'S'), (2, 'S')]);
    assert_eq!(returned(&events, 2).0, Ok(0));
    assert_eq!(skipped(&events, 3), Some(SkipReason::LaneStuck));
    assert_eq!(returned(&events, 4).0, Ok(1));
    assert_eq!(returned(&events, 5).0, Ok(16));
    let end = events.iter().find(|e| matches!(e, Event::End { .. }));
    assert!(
        matches!(end, Some(Event::End { stuck, helped, .. }) if stuck.is_empty() && *helped == [CallId(2)]),
        "{end:?}"
    );
}

#[test]
fn a_child_is_not_taken_for_the_one_before_it_that_was_killed_in_a_ring() {
    let child = usize::from(program::THREADS_MAX);
    {
        let bench = bench().lock().unwrap_or_else(PoisonError::into_inner);
        let lane = &bench.control.lanes[child];
        lane.in_ring.store(1, Ordering::Release);
        lane.own_wait.store(1, Ordering::Release);
    }
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::Fork { child: 0 }),
        Line::new(Lane::Child(0), Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 }),
    ]);
    let (state, wchan) = blocked(&events, 3).expect("an empty pipe is waited for");
    assert!(state == 'S' && !wchan.contains("cqring"), "{state} in {wchan}");
}

#[test]
fn a_blocked_splice_goes_on_when_the_program_helps() {
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, open(F1, 1)),
        on(0, pwrite(0, 4096)),
        on(0, Call::Pipe { slot: P0 }),
        on(1, Call::SpliceFromPipe { pipe: P0, file: F1, offset: 0, len: 4096 }),
        on(0, Call::SpliceToPipe { file: F0, offset: 0, pipe: P0, len: 4096 }),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
        on(0, Call::Pread { file: F1, offset: 0, buf: Buf::Anon(8), len: 4096 }),
    ]);
    assert!(events.iter().any(|e| matches!(e, Event::Blocked { call: CallId(4), .. })));
    assert_eq!(returned(&events, 4).0, Ok(4096));
    assert_eq!(returned(&events, 6).0, Ok(0));
    assert_eq!(read_runs(&events, 7), [Run::Signed { run, call: 2, offset: 0, len: 4096 }]);
}

#[test]
fn a_child_has_its_own_copy_of_private_memory() {
    let private = match mmap(4096) {
        Call::Mmap { slot, file, offset, len, prot, flags, .. } => {
            Call::Mmap { slot, file, offset, len, prot, flags, sharing: Sharing::Private }
        }
        other => other,
    };
    let (run, events) = play(vec![
        in_child(pread(0, 8)),
        on(0, open(F0, 0)),
        on(0, pwrite(0, 4096)),
        on(0, private),
        on(0, Call::Store { map: M0, offset: 0, len: 8 }),
        on(2, Call::Fork { child: 0 }),
        in_child(Call::Store { map: M0, offset: 0, len: 8 }),
        in_child(Call::Load { map: M0, offset: 0, len: 8 }),
        on(0, Call::Load { map: M0, offset: 0, len: 8 }),
        in_child(Call::Exit),
        in_child(pread(0, 8)),
    ]);
    assert_eq!(skipped(&events, 0), Some(SkipReason::NoLane));
    let stored = |call| [Run::Signed { run, call, offset: 0, len: 8 }];
    assert_eq!(read_runs(&events, 7), stored(6));
    assert_eq!(read_runs(&events, 8), stored(4));
    assert_eq!(returned(&events, 9).0, Ok(0));
    assert_eq!(skipped(&events, 10), Some(SkipReason::NoLane));
}

#[test]
fn a_blocked_child_is_killed_and_its_call_is_cut_off() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::Fork { child: 0 }),
        in_child(Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 }),
    ]);
    let end = events.iter().find(|e| matches!(e, Event::End { .. }));
    assert!(matches!(end, Some(Event::End { helped, .. }) if *helped == [CallId(3)]), "{end:?}");
}

#[test]
fn detached_lines_overlap_and_a_delay_comes_before_the_invoke() {
    let late = Line { delay_us: 4000, ..detached(on(1, pwrite(0, 8))) };
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        late,
        on(0, pwrite(8, 8)),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
    ]);
    assert!(seq_of(&events, 2, false) < seq_of(&events, 1, true));
    assert!(seq_of(&events, 1, false) < seq_of(&events, 3, false));
}

#[test]
fn what_an_open_says_of_its_file_is_true_though_its_slot_is_filled_anew() {
    for _ in 0..20 {
        let pairs =
            (0..24).flat_map(|_| [detached(on(1, open(F0, 1))), detached(on(0, open(F0, 0)))]);
        let (_, events) =
            play(pairs.chain([on(0, Call::Wait { lane: Lane::Thread(1) })]).collect());
        let mut seen = std::collections::BTreeSet::new();
        for line in 0..48 {
            match returned(&events, line).1 {
                Payload::File(facts) => seen.insert((line % 2, facts.id.ino)),
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
    }
}

#[test]
fn a_close_that_races_closes_and_frees_no_number() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, open(F1, 1)),
        on(0, Call::Pipe { slot: P0 }),
        on(1, Call::SpliceFromPipe { pipe: P0, file: F1, offset: 0, len: 8 }),
        on(0, Call::Close { file: F1 }),
        on(0, open(F1, 2)),
        on(0, Call::Statx { file: F1 }),
        on(0, Call::Close { file: F1 }),
        on(0, Call::Close { file: F1 }),
    ]);
    assert_eq!(returned(&events, 4).0, Ok(0));
    let number = |line| returned(&events, line).0.expect("open");
    assert_ne!(number(1), number(5));
    assert_eq!(returned(&events, 7).0, Ok(0));
    assert_eq!(skipped(&events, 8), Some(SkipReason::EmptySlot));
}

#[test]
fn a_chain_of_a_ring_runs_in_order() {
    // Nothing blocks here, and a busy machine may take its time for a worker.
    let (run, events) = play_within(
        10_000,
        vec![
            on(0, open(F0, 0)),
            on(0, Call::IoUringSetup { slot: RingSlot(0), entries: 8 }),
            ring(on(0, pwrite(0, 4096)), SqeFlags::LINK),
            ring(on(0, Call::Fsync { file: F0 }), SqeFlags::LINK),
            ring(on(0, pread(0, 4096)), SqeFlags::default()),
            detached(ring(on(0, pwrite(4096, 4096)), SqeFlags::ASYNC)),
            on(1, Call::Wait { lane: Lane::Thread(0) }),
            on(1, pread(4096, 8)),
        ],
    );
    if returned(&events, 1).0 == Err(Errno(libc::ENOSYS))
        || returned(&events, 1).0 == Err(Errno(libc::EPERM))
    {
        return;
    }
    assert!(seq_of(&events, 4, true) < seq_of(&events, 2, false));
    assert_eq!(read_runs(&events, 4), [Run::Signed { run, call: 2, offset: 0, len: 4096 }]);
    assert!(seq_of(&events, 5, false) < seq_of(&events, 6, false));
    assert_eq!(read_runs(&events, 7), [Run::Signed { run, call: 5, offset: 4096, len: 8 }]);
    let slots = events.iter().find_map(|e| match e {
        Event::Invoke { call: CallId(3), slots, .. } => Some(slots.clone()),
        _ => None,
    });
    assert_eq!(slots, Some(vec![CallId(0), CallId(1)]));
}

#[test]
fn a_blocked_request_of_a_ring_is_seen_and_helped() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::IoUringSetup { slot: RingSlot(0), entries: 8 }),
        on(0, Call::Pipe { slot: P0 }),
        ring(
            on(0, Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 }),
            SqeFlags::default(),
        ),
        on(1, pwrite(0, 8)),
    ]);
    if returned(&events, 1).0.is_err() {
        return;
    }
    assert!(
        events.iter().any(|e| matches!(e, Event::Blocked { call: CallId(3), .. })),
        "{events:#?}"
    );
    assert_eq!(returned(&events, 3).0, Ok(0));
    let end = events.iter().find(|e| matches!(e, Event::End { .. }));
    assert!(
        matches!(end, Some(Event::End { stuck, helped, .. }) if stuck.is_empty() && *helped == [CallId(3)]),
        "{end:?}"
    );
}

#[test]
fn a_mapped_buffer_past_its_mapping_is_the_kernels_matter() {
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 8192)),
        on(0, mmap(4096)),
        on(0, Call::Pwrite { file: F0, offset: 8192, buf: Buf::Map(M0, 4000), len: 200 }),
        on(
            0,
            Call::Pwritev {
                file: F0,
                offset: 0,
                iov: vec![(ANON, 8), (Buf::Map(M0, 16), 8), (Buf::Anon(3), 8)],
            },
        ),
        on(0, pread(0, 24)),
        on(
            0,
            Call::Preadv {
                file: F0,
                offset: 0,
                iov: vec![(ANON, 8), (Buf::Map(M0, 64), 8), (Buf::Anon(3), 80)],
            },
        ),
        on(0, Call::Load { map: M0, offset: 64, len: 8 }),
    ]);
    assert_eq!(returned(&events, 3).0, Ok(96));
    let signed = |call, offset, len| Run::Signed { run, call, offset, len };
    assert_eq!(returned(&events, 4).0, Ok(24));
    assert_eq!(read_runs(&events, 5), [signed(4, 0, 8), signed(1, 16, 8), signed(4, 16, 8)]);
    assert_eq!(read_runs(&events, 7), [signed(1, 16, 8)]);
    assert_ne!(stamp::word(run, 1, 0), 0);
}

/// The notes of slot 0, after a job that a supervisor had done.
fn supervise(supervisor: &mut Supervisor, job: &Job) -> Vec<Note> {
    assert!(supervisor.memory.put_job(0, 1, job));
    supervisor.job(0);
    read_log(&supervisor.memory.log_bytes(0)).expect("well formed")
}

#[test]
fn a_killed_runner_is_replaced_and_its_run_is_finished() {
    let (memory, _root, environment) = ground();
    let mut supervisor =
        Supervisor::with(memory, environment, Mounts::default()).expect("a runner");
    let options = RunOptions { keep: false, record: true, cover: false, block_after_ms: 60_000 };
    let job = |lines| Job::Run { run: 9, program: Program { home: Mount::Ext4, lines }, options };
    let (first, control) = (supervisor.runner, supervisor.control);
    let over = Arc::new(AtomicBool::new(false));
    let seen_over = over.clone();
    let killer = std::thread::spawn(move || {
        while control.stage(3) != crate::control::stage::INVOKED {
            assert!(
                !seen_over.load(Ordering::Acquire),
                "the run was over before it stood in line 3"
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        rustix::process::kill_process(first, rustix::process::Signal::KILL).expect("alive");
    });
    let notes = supervise(
        &mut supervisor,
        &job(vec![
            on(0, open(F0, 0)),
            on(0, pwrite(0, 4096)),
            on(0, Call::Pipe { slot: P0 }),
            detached(on(1, Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 })),
            detached(on(1, pwrite(0, 8))),
            on(0, Call::Wait { lane: Lane::Thread(1) }),
        ]),
    );
    over.store(true, Ordering::Release);
    assert!(killer.join().is_ok(), "{notes:?}");
    assert_ne!(supervisor.runner, first);
    assert!(
        notes.iter().any(|n| matches!(n, Note::Trouble(what) if what.contains("died"))),
        "{notes:?}"
    );
    let events: Vec<Event> = notes
        .into_iter()
        .filter_map(|note| match note {
            Note::Event(event) => Some(event),
            _ => None,
        })
        .collect();
    let end = events.iter().find(|e| matches!(e, Event::End { .. }));
    // The conductor was waiting in line 5 when its process died.
    let helped = [CallId(3), CallId(5)];
    assert!(
        matches!(end, Some(Event::End { stuck, helped: h, .. }) if stuck.is_empty() && *h == helped),
        "{end:?}"
    );
    assert_eq!(skipped(&events, 4), Some(SkipReason::LaneStuck));
    let read = |e: &Event| {
        matches!(e, Event::Final { by: ReadPath::AfterDropCaches, result: Ok(4096), .. })
    };
    assert!(events.iter().any(read), "{events:?}");

    let notes = supervise(&mut supervisor, &job(vec![on(0, open(F0, 0)), on(0, pwrite(0, 8))]));
    assert!(
        notes.iter().any(|n| matches!(
            n,
            Note::Event(Event::Return { call: CallId(1), result: Ok(8), .. })
        ))
    );
    assert!(!notes.iter().any(|n| matches!(n, Note::Trouble(_))), "{notes:?}");
    let _ = rustix::process::kill_process(supervisor.runner, rustix::process::Signal::KILL);
}

#[test]
fn a_malformed_job_is_trouble_and_nothing_more() {
    let (memory, _root, environment) = ground();
    let mut supervisor =
        Supervisor::with(memory, environment, Mounts::default()).expect("a runner");
    for len in [0, 3, u32::MAX] {
        memory.word(history::wire::slot_offset(0) + slot::JOB_LEN).store(len, Ordering::Relaxed);
        memory.word(history::wire::slot_offset(0) + slot::LOG_LEN).store(0, Ordering::Relaxed);
        supervisor.job(0);
        let notes = read_log(&memory.log_bytes(0)).expect("well formed");
        assert!(matches!(&notes[..], [Note::Trouble(_)]), "{notes:?}");
    }
    // What is well formed may still name slots, lanes and files that do not exist.
    let mad = [
        Line { lane: Lane::Thread(9), ..on(0, pwrite(0, 8)) },
        on(0, Call::Close { file: FileSlot(200) }),
        on(0, Call::Wait { lane: Lane::Child(77) }),
        on(3, Call::Fork { child: 99 }),
        on(
            0,
            Call::Open {
                slot: FileSlot(99),
                path: path(250),
                access: Access::ReadWrite,
                flags: OpenFlags::CREAT,
            },
        ),
        on(0, open(F0, 0)),
        on(0, mmap(u64::MAX)),
        on(0, pwrite(u64::MAX, u64::MAX)),
        on(
            0,
            Call::Preadv {
                file: F0,
                offset: u64::MAX,
                iov: vec![(Buf::Map(MapSlot(9), u64::MAX), 8); 4000],
            },
        ),
        ring(on(0, pread(0, 8)), SqeFlags(255)),
        on(2, Call::Exit),
    ];
    let options = RunOptions { keep: false, record: true, cover: false, block_after_ms: 50 };
    let program = Program { home: Mount::Xfs, lines: mad.to_vec() };
    let notes = supervise(&mut supervisor, &Job::Run { run: u32::MAX, program, options });
    assert!(!notes.iter().any(|n| matches!(n, Note::Trouble(_))), "{notes:?}");
    assert!(notes.iter().any(|n| matches!(n, Note::Event(Event::End { .. }))));
    let _ = rustix::process::kill_process(supervisor.runner, rustix::process::Signal::KILL);
}

#[test]
fn a_pipe_keeps_the_pages_that_a_truncate_took_away() {
    let (p1, read) = (PipeSlot(1), |pipe, len| Call::ReadPipe { pipe, buf: ANON, len });
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 8192)),
        on(0, mmap(8192)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::Pipe { slot: p1 }),
        on(0, Call::Vmsplice { map: M0, offset: 4096, pipe: P0, len: 4096 }),
        on(0, Call::Tee { src: P0, dst: p1, len: 100 }),
        on(1, Call::Ftruncate { file: F0, len: 0 }),
        on(0, read(P0, 4096)),
        on(0, read(p1, 4096)),
        on(0, Call::ClosePipe { pipe: P0 }),
        on(0, read(P0, 1)),
        on(0, Call::ProcMemPread { map: M0, offset: 0, len: 8 }),
    ]);
    let held = |len| [Run::Signed { run, call: 1, offset: 4096, len }];
    assert_eq!(returned(&events, 5).0, Ok(4096));
    assert_eq!(returned(&events, 6).0, Ok(100));
    assert_eq!(read_runs(&events, 8), held(4096));
    assert_eq!((returned(&events, 9).0, read_runs(&events, 9)), (Ok(100), held(100).into()));
    assert_eq!(returned(&events, 10), (Ok(0), Payload::None));
    assert_eq!(skipped(&events, 11), Some(SkipReason::EmptySlot));
    assert_eq!(returned(&events, 12).0, Err(Errno(libc::EIO)));
}

#[test]
fn the_memory_file_reads_and_writes_a_mapping() {
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 64)),
        on(0, mmap(4096)),
        on(0, Call::ProcMemPwrite { map: M0, offset: 8, len: 16 }),
        on(0, Call::ProcMemPread { map: M0, offset: 0, len: 32 }),
        on(0, pread(0, 32)),
    ]);
    let signed = |call, offset, len| Run::Signed { run, call, offset, len };
    let expected = vec![signed(1, 0, 8), signed(3, 8, 16), signed(1, 24, 8)];
    assert_eq!(returned(&events, 3), (Ok(16), Payload::None));
    assert_eq!((read_runs(&events, 4), read_runs(&events, 5)), (expected.clone(), expected));
}

/// Lane, signal, si_fd and answer.
type Told = (Option<Lane>, i32, i32, Option<(Lease, Result<u64, Errno>)>);

fn signals(events: &[Event]) -> Vec<Told> {
    let signal = |event: &Event| match event {
        Event::Signal { lane, signo, fd, answer, .. } => Some((*lane, *signo, *fd, *answer)),
        _ => None,
    };
    events.iter().filter_map(signal).collect()
}

fn blocked(events: &[Event], line: u16) -> Option<(char, String)> {
    events.iter().find_map(|e| match e {
        Event::Blocked { call, state, wchan, .. } if call.0 == line => {
            Some((*state, wchan.clone()))
        }
        _ => None,
    })
}

#[test]
fn the_break_of_a_lease_reaches_the_thread_that_was_named() {
    let again = |flags| Call::Open { slot: F1, path: path(0), access: Access::ReadWrite, flags };
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Setsig { file: F0, notice: Notice::Rt1 }),
        on(0, Call::SetownEx { file: F0, kind: OwnerKind::Tid, lane: Lane::Thread(3) }),
        on(0, Call::Setlease { file: F0, lease: Lease::Write }),
        on(0, Call::Setlease { file: F0, lease: Lease::Layout }),
        on(1, again(OpenFlags::NONBLOCK)),
        on(1, again(OpenFlags::default())),
        on(0, Call::Getlease { file: F0 }),
        on(0, Call::Setlease { file: F0, lease: Lease::Unlock }),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
    ]);
    let fd = returned(&events, 0).0.expect("opened") as i32;
    assert_eq!(returned(&events, 4).0, Err(Errno(libc::EINVAL)));
    assert_eq!(returned(&events, 5).0, Err(Errno(libc::EAGAIN)));
    assert_eq!(blocked(&events, 6).map(|b| b.0), Some('S'));
    assert_eq!(returned(&events, 7).0, Ok(libc::F_UNLCK as u64));
    assert!(returned(&events, 6).0.is_ok() && returned(&events, 9).0 == Ok(0));
    assert_eq!(signals(&events), [(Some(Lane::Thread(3)), libc::SIGRTMIN() + 1, fd, None)]);
}

/// The handler restarts what it interrupts: a thread that breaks its own process's lease waits on, and the answer ends the wait.
#[test]
fn a_handler_answers_the_break_of_a_lease() {
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Setsig { file: F0, notice: Notice::Io }),
        on(0, Call::Setlease { file: F0, lease: Lease::Write }),
        on(0, Call::OnBreak { answer: Lease::Unlock }),
        on(0, open(F1, 0)),
        on(0, Call::Getlease { file: F0 }),
    ]);
    let fd = returned(&events, 0).0.expect("opened") as i32;
    assert!(returned(&events, 4).0.is_ok());
    assert_eq!(returned(&events, 5).0, Ok(libc::F_UNLCK as u64));
    let signals = signals(&events);
    assert_eq!(signals.len(), 1);
    assert_eq!(
        (signals[0].1, signals[0].2, signals[0].3),
        (libc::SIGIO, fd, Some((Lease::Unlock, Ok(0))))
    );
}

#[test]
fn a_descriptor_travels_from_child_to_parent() {
    let (_, events) = play(vec![
        on(0, Call::Fork { child: 0 }),
        in_child(open(F0, 0)),
        in_child(pwrite(0, 16)),
        in_child(Call::Lseek { file: F0, offset: 8, whence: Whence::Set }),
        on(0, Call::RecvFd { slot: F1 }),
        in_child(Call::SendFd { file: F0 }),
        on(0, Call::RecvFd { slot: F1 }),
        on(0, Call::Readv { file: F1, iov: vec![(ANON, 16)] }),
    ]);
    assert_eq!(returned(&events, 4).0, Err(Errno(libc::EAGAIN)));
    assert_eq!(returned(&events, 5).0, Ok(0));
    assert!(returned(&events, 6).0.is_ok());
    // The position is the open file's.
    assert_eq!(returned(&events, 7).0, Ok(8));
}

#[test]
fn a_killed_child_does_not_come_back_and_an_interrupted_call_says_so() {
    let splice = Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 };
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::Fork { child: 0 }),
        detached(in_child(splice.clone())),
        on(0, Call::Wait { lane: Lane::Child(0) }),
        on(0, Call::Kill { lane: Lane::Child(0) }),
        detached(on(1, splice)),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
        on(0, Call::Interrupt { lane: Lane::Thread(1) }),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
        in_child(pwrite(0, 8)),
    ]);
    assert_eq!(returned(&events, 4).0, Ok(1));
    assert_eq!(returned(&events, 5).0, Ok(0));
    assert_eq!(returned(&events, 6).0, Err(Errno(libc::EINTR)));
    assert_eq!(returned(&events, 9).0, Ok(0));
    assert_eq!(skipped(&events, 10), Some(SkipReason::NoLane));
    let cut_off = |e: &Event| matches!(e, Event::End { stuck, helped, .. } if stuck.is_empty() && *helped == [CallId(3)]);
    assert!(events.iter().any(cut_off), "{events:#?}");
}

#[test]
fn a_registered_buffer_is_used_until_its_ring_ends() {
    let prot = Prot::READ.with(Prot::WRITE);
    let private = Call::Mmap {
        slot: M0,
        file: F0,
        offset: 0,
        len: 8192,
        prot,
        sharing: Sharing::Private,
        flags: MapFlags::default(),
    };
    let register = Call::RegisterBuffers { ring: RingSlot(0), map: M0, offset: 0, len: 8192 };
    let into = Call::Pread { file: F0, offset: 0, buf: Buf::Map(M0, 4096), len: 512 };
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 8192)),
        on(0, private),
        on(0, Call::IoUringSetup { slot: RingSlot(0), entries: 4 }),
        ring(on(0, into.clone()), SqeFlags::FIXED),
        on(0, register),
        on(0, Call::Fork { child: 0 }),
        ring(on(0, into.clone()), SqeFlags::FIXED),
        on(0, Call::Load { map: M0, offset: 4096, len: 8 }),
        on(0, Call::UnregisterBuffers { ring: RingSlot(0) }),
        on(0, Call::UnregisterBuffers { ring: RingSlot(0) }),
        on(0, Call::CloseRing { ring: RingSlot(0) }),
        ring(on(0, into), SqeFlags::default()),
    ]);
    assert_eq!(returned(&events, 4).0, Err(Errno(libc::EFAULT)));
    assert_eq!(returned(&events, 5).0, Ok(0));
    assert_eq!(returned(&events, 7).0, Ok(512));
    assert_eq!(read_runs(&events, 8), [Run::Signed { run, call: 1, offset: 0, len: 8 }]);
    assert_eq!(returned(&events, 9).0, Ok(0));
    assert_eq!(returned(&events, 10).0, Err(Errno(libc::ENXIO)));
    assert_eq!(returned(&events, 11).0, Ok(0));
    assert_eq!(skipped(&events, 12), Some(SkipReason::EmptySlot));
}

/// This machine's kernel is asked for no device.
#[test]
fn a_guest_without_a_device_leaves_memory_regions_out() {
    let shared = Call::Mmap {
        slot: M0,
        file: F0,
        offset: 0,
        len: 8192,
        prot: Prot::READ,
        sharing: Sharing::Shared,
        flags: MapFlags::default(),
    };
    let (slot, access) = (RegionSlot(0), RegionAccess::Read);
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 8192)),
        on(0, shared),
        on(0, Call::RegMr { slot, map: M0, offset: 0, len: 8192, access }),
        on(0, Call::DeregMr { region: slot }),
    ]);
    assert_eq!(skipped(&events, 3), Some(SkipReason::Unsupported));
    assert_eq!(skipped(&events, 4), Some(SkipReason::EmptySlot));
}

/// Nor has it gup_test.
#[test]
fn a_guest_without_gup_test_leaves_its_calls_out() {
    let (buf, flags) = (Buf::Anon(0), program::PinFlags::WRITE);
    let (_, events) = play(vec![
        on(0, Call::PinLongtermTestStart { buf, len: 4096, flags }),
        on(0, Call::PinLongtermTestRead),
        on(0, Call::PinLongtermTestStop),
    ]);
    for line in 0..3 {
        assert_eq!(skipped(&events, line), Some(SkipReason::Unsupported));
    }
}

/// The child alone can reap what its ring completes, and with it goes what has not completed.
#[test]
fn a_child_has_a_ring_of_its_own_until_it_is_killed() {
    let setup = Call::IoUringSetup { slot: RingSlot(0), entries: 4 };
    let splice = Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 };
    let (run, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, pwrite(0, 4096)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::Fork { child: 0 }),
        in_child(setup),
        detached(ring(in_child(pread(0, 8)), SqeFlags::ASYNC)),
        on(0, Call::Wait { lane: Lane::Child(0) }),
        ring(on(0, pread(0, 8)), SqeFlags::default()),
        detached(ring(in_child(splice), SqeFlags::default())),
        on(0, Call::Wait { lane: Lane::Child(0) }),
        on(0, Call::Kill { lane: Lane::Child(0) }),
    ]);
    assert_eq!(read_runs(&events, 5), [Run::Signed { run, call: 1, offset: 0, len: 8 }]);
    assert_eq!(returned(&events, 6).0, Ok(0));
    assert_eq!(skipped(&events, 7), Some(SkipReason::EmptySlot), "the ring is the child's");
    assert_eq!(returned(&events, 9).0, Ok(1));
    assert!(blocked(&events, 8).is_some());
    assert_eq!(returned(&events, 10).0, Ok(0));
    let cut_off = |e: &Event| matches!(e, Event::End { stuck, helped, .. } if stuck.is_empty() && *helped == [CallId(8)]);
    assert!(events.iter().any(cut_off), "{events:#?}");
}

/// A request that waits for ever: its ring ends, and its line is cut off.
#[test]
fn a_ring_that_is_closed_cuts_its_requests_off() {
    let splice = Call::SpliceFromPipe { pipe: P0, file: F0, offset: 0, len: 8 };
    let (_, events) = play(vec![
        on(0, open(F0, 0)),
        on(0, Call::Pipe { slot: P0 }),
        on(0, Call::IoUringSetup { slot: RingSlot(0), entries: 4 }),
        detached(ring(on(1, splice), SqeFlags::default())),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
        on(0, Call::CloseRing { ring: RingSlot(0) }),
        on(0, Call::Wait { lane: Lane::Thread(1) }),
    ]);
    assert_eq!(returned(&events, 4).0, Ok(1));
    assert!(blocked(&events, 3).is_some());
    assert_eq!(returned(&events, 5).0, Ok(0));
    assert_eq!(returned(&events, 6).0, Ok(0));
    let cut_off = |e: &Event| matches!(e, Event::End { helped, .. } if *helped == [CallId(3)]);
    assert!(events.iter().any(cut_off), "{events:#?}");
}
