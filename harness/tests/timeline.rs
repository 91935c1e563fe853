//! What a person sees of a history: one snapshot with an event of every kind.
//!
//! The checker is not asked; the anomaly is made up.

use checker::{Anomaly, AnomalyKind, Oracle, Verdict, Wait};
use harness::report::{Signature, explain, headline, timeline};
use history::{
    Bytes, Down, Errno, Event, Extent, FaultSignal, FileFacts, FileId, History, Payload, ReadPath,
    Run, SkipReason, Splat,
};
use program::{CallId, Mount, Path, Program};

const PROGRAM: &str = "pinfuzz 1
image xfs-dax
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 64K)
t0: m0 = mmap(f0, 0, 64K, RW, SHARED)
t1: load(m0+0, 64K) &
t2: fallocate(f0, PUNCH_HOLE, 4K, 8K)
t3: close(f1)
t0: fiemap(f0)
";

fn facts() -> FileFacts {
    FileFacts {
        id: FileId { mount: Mount::XfsDax, ino: 131, generation: 0xbeef },
        size: 65536,
        blocks: 128,
        nlink: 1,
        dax: true,
        dio_mem_align: 0,
        dio_offset_align: 0,
    }
}

fn invoke(seq: u64, call: u16) -> Event {
    Event::Invoke { seq, call: CallId(call), time_ns: seq * 10_000, slots: Vec::new() }
}

fn returned(seq: u64, call: u16, result: Result<u64, Errno>, payload: Payload) -> Event {
    Event::Return { seq, call: CallId(call), time_ns: seq * 10_000, result, payload }
}

fn history() -> History {
    let data = Bytes {
        runs: vec![
            Run::Signed { run: 7, call: 1, offset: 0, len: 4096 },
            Run::Zero { len: 4096 },
            Run::Signed { run: 5, call: 2, offset: 512, len: 8 },
            Run::Raw((0..40).collect()),
        ],
    };
    let fault = Some(FaultSignal { signo: 7, code: 2, addr: 8192 });
    let path = Path { mount: Mount::XfsDax, name: 0 };
    let extent = Extent { logical: 0, physical: 0x123000, length: 65536, flags: 1 };
    let splat = Splat {
        title: "WARNING in dax_insert_entry".into(),
        text: "------------[ cut here ]------------\nWARNING: \u{1b}[31mfs/dax.c".into(),
    };
    let events = vec![
        invoke(1, 0),
        returned(2, 0, Ok(3), Payload::File(facts())),
        invoke(3, 1),
        returned(4, 1, Ok(65536), Payload::None),
        invoke(5, 2),
        returned(6, 2, Ok(0x7f00_0000_0000), Payload::Address(0x7f00_0000_0000)),
        invoke(7, 3),
        invoke(8, 4),
        Event::Blocked {
            seq: 9,
            call: CallId(4),
            time_ns: 90_000,
            state: 'D',
            wchan: "dax_layout_busy_page".into(),
        },
        returned(10, 3, Ok(8240), Payload::Read { data: data.clone(), tail_intact: false, fault }),
        returned(11, 4, Err(Errno(4)), Payload::None),
        Event::Skipped { seq: 12, call: CallId(5), reason: SkipReason::EmptySlot },
        invoke(13, 6),
        returned(14, 6, Ok(1), Payload::Extents(vec![extent])),
        Event::End { seq: 15, stuck: vec![CallId(9)], helped: vec![CallId(4)] },
        Event::Names { by: ReadPath::Read, mount: Mount::XfsDax, names: vec![(0, facts().id)] },
        Event::Final { path, by: ReadPath::Read, file: facts(), result: Ok(65536), data },
        Event::FinalExtents { path, id: facts().id, extents: vec![extent] },
        Event::Fsck { mount: Mount::Xfs, text: "xfs_repair -n\nbad btree".into() },
        Event::Console(splat),
        Event::Down(Down::Panic),
        Event::LogFull,
    ];
    History { run: 7, events }
}

fn anomaly() -> Anomaly {
    Anomaly {
        kind: AnomalyKind::StaleByte,
        oracle: Oracle::Bytes,
        call: Some(CallId(3)),
        path: Some(Path { mount: Mount::XfsDax, name: 0 }),
        mount: None,
        sentence: "#3 load(m0+0, 64K) saw what #1 wrote at 4K, after #4 had punched it".into(),
    }
}

fn wait() -> Wait {
    let sentence =
        "fallocate#4 waits for page 1 of xfs-dax:a, held by the pipe of vmsplice#2".into();
    Wait { call: CallId(4), seq: 9, sentence }
}

#[test]
fn every_event_has_words() {
    let program = Program::parse(PROGRAM).unwrap();
    let text = explain(&program, &history(), &Verdict::Anomalous(vec![anomaly()]), &[wait()]);
    insta::assert_snapshot!(text);
}

#[test]
fn signatures_name_kind_oracle_and_call() {
    let program = Program::parse(PROGRAM).unwrap();
    let mut anomaly = anomaly();
    let signature = Signature::new(&anomaly, &program, &history());
    assert_eq!(signature.to_string(), "StaleByte (bytes) seen by load");
    anomaly.oracle = Oracle::Console;
    anomaly.kind = AnomalyKind::Splat;
    anomaly.call = None;
    let signature = Signature::new(&anomaly, &program, &history());
    assert_eq!(signature.to_string(), "Splat (console): WARNING in dax_insert_entry");
}

#[test]
fn a_lying_guest_is_shown_and_not_believed() {
    let program = Program::parse(PROGRAM).unwrap();
    let mut history = history();
    history.events = vec![
        returned(1, 999, Ok(u64::MAX), Payload::Dedupe { status: i32::MIN }),
        invoke(2, u16::MAX),
        Event::Names { by: ReadPath::Read, mount: Mount::Ext4, names: vec![(255, facts().id)] },
    ];
    let text = timeline::history(&program, &history, &[]);
    assert!(text.contains("(no such call)"), "{text}");
}

#[test]
fn headlines_are_one_line() {
    let verdict = Verdict::Anomalous(vec![anomaly(), anomaly()]);
    assert_eq!(
        headline(&verdict),
        "StaleByte: #3 load(m0+0, 64K) saw what #1 wrote at 4K, after #4 had punched it (and 1 more)"
    );
}
