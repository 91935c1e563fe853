//! The honest fake against what the kernel's rules say: hand-written programs with exact results, a byte array as the simplest possible
//! second model, and thousands of generated programs that it must survive.

use harness::target::Target;
use harness::target::fake::{FakeConfig, FakeTarget};
use history::{Bytes, Errno, Event, FaultSignal, Payload, ReadPath, SkipReason};
use program::{Call, CallId, Mount, Program};

fn target(seed: u64) -> FakeTarget {
    FakeTarget::new(FakeConfig { seed, batch: 1, ..FakeConfig::default() })
}

fn events(text: &str) -> Vec<Event> {
    let program = Program::parse(&format!("pinfuzz 1\n{text}")).expect("the test's program parses");
    target(1).execute(&program).expect("the fake has no trouble").history.events
}

type Outcome = Result<u64, i32>;

/// What each line returned, in the order of the lines.
fn results(text: &str) -> Vec<Option<Outcome>> {
    let lines = text.lines().filter(|l| l.contains(": ")).count();
    let mut results = vec![None; lines];
    for event in events(text) {
        if let Event::Return { call, result, .. } = event {
            results[usize::from(call.0)] = Some(result.map_err(|Errno(e)| e));
        }
    }
    results
}

fn payload(events: &[Event], line: u16) -> &Payload {
    let of = |e: &&Event| matches!(e, Event::Return { call, .. } if *call == CallId(line));
    match events.iter().find(of) {
        Some(Event::Return { payload, .. }) => payload,
        _ => panic!("line {line} has not returned"),
    }
}

fn read(events: &[Event], line: u16) -> (Vec<u8>, Option<FaultSignal>) {
    match payload(events, line) {
        Payload::Read { data, fault, .. } => {
            (data.expand().expect("the fake's bytes are valid"), *fault)
        }
        other => panic!("line {line} reported {other:?}"),
    }
}

#[test]
fn a_truncate_to_the_same_size_zeroes_what_was_stored_behind_the_end() {
    for image in ["ext4-dax", "xfs-dax", "ext4", "xfs"] {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 3K)
t0: m0 = mmap(f0, 0, 4K, RW, SHARED)
t0: store(m0+3K, 1K)
t0: ftruncate(f0, 3K)
t0: load(m0+3K, 1K)"#
        );
        assert_eq!(read(&events(&text), 5), (vec![0; 1024], None), "{image}");
    }
}

fn fallocates(image: &str) -> Vec<Option<Outcome>> {
    let text = format!(
        r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("a", RDONLY)
t0: pwrite(f0, 0, anon, 16K)
t0: fallocate(f0, PUNCH_HOLE_BARE, 0, 4K)
t0: fallocate(f1, PUNCH_HOLE_BARE, 0, 4K)
t0: fallocate(f1, PUNCH_HOLE, 0, 4K)
t0: fallocate(f0, PUNCH_HOLE, 0, 0)
t0: fallocate(f0, COLLAPSE_RANGE, 0, 100)
t0: fallocate(f0, COLLAPSE_RANGE, 12K, 4K)
t0: fallocate(f0, INSERT_RANGE, 16K, 4K)
t0: fallocate(f0, UNSHARE_RANGE, 0, 4K)
t0: ficlone(f0, f0)
t0: ficlonerange(f0, 8K, f0, 0, 4K)
t0: ftruncate(f1, 0)
"#
    );
    results(&text)[3..].to_vec()
}

#[test]
fn a_segment_of_no_bytes_is_not_looked_at() {
    for image in ["xfs", "xfs-dax"] {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: f1 = open("b", RDWR|CREAT)
t0: m0 = mmap(f1, 0, 4K, RW, SHARED)
t0: preadv(f0, 0, [m0+0 0, anon 4K])
t0: pwritev(f0, 0, [m0+0 0, anon 4K])
t0: preadv(f0, 0, [m0+0 8, anon 4K])
"#
        );
        assert_eq!(results(&text)[4..], [Some(Ok(4096)), Some(Ok(4096)), Some(Err(14))], "{image}");
    }
}

#[test]
fn layout_calls_are_refused_in_the_order_of_the_vfs() {
    let common = [
        Err(95), // PUNCH_HOLE without KEEP_SIZE
        Err(95), // the mode is looked at before the descriptor
        Err(9),
        Err(22),
        Err(22),
        Err(22),
        Err(22),
    ];
    for (image, last) in [
        ("ext4", [Err(95), Err(95), Err(95), Err(22)]),
        ("ext4-dax", [Err(95), Err(95), Err(95), Err(22)]),
        ("xfs", [Ok(0), Err(22), Ok(0), Err(22)]),
        ("xfs-dax", [Ok(0), Err(22), Ok(0), Err(22)]),
    ] {
        let expected: Vec<_> = common.iter().chain(&last).map(|r| Some(*r)).collect();
        assert_eq!(fallocates(image), expected, "{image}");
    }
}

#[test]
fn files_of_different_mounts_share_nothing() {
    let text = r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("ext4:a", RDWR|CREAT)
t0: f2 = open("xfs-dax:a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 4K)
t0: ficlone(f1, f0)
t0: ficlone(f2, f0)
t0: copy_file_range(f0, 0, f1, 0, 4K)
t0: copy_file_range(f0, 0, f2, 0, 4K)
t0: sendfile(f1, f0, 0, 4K)
t0: rename("a", "ext4:b")
t0: link("a", "ext4:a")
t0: link("a", "ext4:b")
"#;
    let expected = [18, 18, 18, 18].map(|e| Some(Err(e)));
    assert_eq!(results(text)[4..8], expected);
    assert_eq!(results(text)[8..], [Some(Ok(4096)), Some(Err(18)), Some(Err(17)), Some(Err(18))]);
}

#[test]
fn access_past_the_last_page_is_sigbus_at_the_byte() {
    for image in ["ext4", "xfs-dax"] {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 5000)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: load(m0+0, 12K)
t0: store(m0+8180, 100)
t0: mprotect(m0, R)
t0: store(m0+8, 8)
t0: munmap(m0)
t0: load(m0+0, 8)
"#
        );
        let events = events(&text);
        let (data, fault) = read(&events, 3);
        assert_eq!(data.len(), 8192);
        assert!(data[5000..].iter().all(|b| *b == 0));
        assert_eq!(fault, Some(FaultSignal { signo: 7, code: 2, addr: 8192 }));
        let Payload::Store { fault } = payload(&events, 4) else { panic!("a store reports") };
        assert_eq!(*fault, Some(FaultSignal { signo: 7, code: 2, addr: 8192 }));
        let Payload::Store { fault } = payload(&events, 6) else { panic!("a store reports") };
        assert_eq!(*fault, Some(FaultSignal { signo: 11, code: 2, addr: 8 }));
        let skipped = |e: &Event| {
            let (at, why) = (CallId(8), SkipReason::EmptySlot);
            matches!(e, Event::Skipped { call, reason, .. } if *call == at && *reason == why)
        };
        assert!(events.iter().any(skipped));
    }
}

#[test]
fn truncate_takes_private_copies_and_punch_leaves_them() {
    let text = r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, PRIVATE)
t0: store(m0+0, 8)
t0: store(m0+4096, 8)
t0: fallocate(f0, PUNCH_HOLE, 0, 8K)
t0: load(m0+0, 16)
t0: ftruncate(f0, 4K)
t0: ftruncate(f0, 8K)
t0: load(m0+4096, 8)
"#;
    let events = events(text);
    let kept = read(&events, 6).0;
    assert_ne!(kept[..8], [0; 8]);
    assert_ne!(kept[8..], [0; 8], "the rest of the copied page is what the file held");
    assert_eq!(read(&events, 9).0, [0; 8]);
}

#[test]
fn a_pipe_shows_the_page_cache_and_keeps_dax_bytes() {
    for (image, follows) in [("ext4", true), ("xfs", true), ("ext4-dax", false), ("xfs-dax", false)]
    {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("b", RDWR|CREAT)
t0: p0 = pipe()
t0: pwrite(f0, 0, anon, 4K)
t0: splice(f0, 0, p0, 4K)
t0: pread(f0, 0, anon, 4K)
t0: pwrite(f0, 0, anon, 4K)
t0: pread(f0, 0, anon, 4K)
t0: splice(p0, f1, 0, 64K)
t0: pread(f1, 0, anon, 4K)
"#
        );
        let events = events(&text);
        let seen = read(&events, 9).0;
        assert_eq!(seen == read(&events, 7).0, follows, "{image}");
        assert_eq!(seen == read(&events, 5).0, !follows, "{image}");
    }
}

#[test]
fn whoever_waits_for_a_pipe_is_seen_and_helped() {
    let text = r#"image xfs
t0: f0 = open("a", RDWR|CREAT)
t0: p0 = pipe()
t1: splice(p0, f0, 0, 4K)
t1: fsync(f0)
t0: p1 = pipe()
t0: pwrite(f0, 0, anon, 128K)
t0: splice(f0, 0, p1, 512K)
t2: splice(f0, 0, p1, 4K)
"#;
    let events = events(text);
    let blocked: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Blocked { call, wchan, .. } => Some((call.0, wchan.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(blocked, [(2, "pipe_wait_readable"), (7, "pipe_wait_writable")]);
    let end = events.iter().find_map(|e| match e {
        Event::End { stuck, helped, .. } => Some((stuck.clone(), helped.clone())),
        _ => None,
    });
    assert_eq!(end, Some((vec![], vec![CallId(2), CallId(7)])));
    let results = results(text);
    assert_eq!(results[2], Some(Ok(0)), "an empty pipe without writers is at its end");
    assert_eq!(results[3], None, "the lane was stuck until the end");
    assert_eq!(results[6], Some(Ok(64 << 10)), "a pipe has sixteen buffers");
    assert_eq!(results[7], Some(Ok(4096)));
}

#[test]
fn a_short_read_breaks_a_chain_and_a_failed_flush_does_not() {
    let text = r#"image ext4
t0: f0 = open("a", RDWR|CREAT)
t0: f1 = open("a", RDONLY)
t0: r0 = io_uring_setup(8)
t0: pwrite(f0, 0, anon, 100)
t0: pread(f0, 0, anon, 4K) (r0, link)
t0: fsync(f0) (r0, link)
t0: fsync(f0) (r0)
t0: pread(f0, 0, anon, 4K) (r0, hardlink)
t0: fsync(f0) (r0)
t0: fallocate(f0, COLLAPSE_RANGE, 0, 1) (r0, link)
t0: fsync(f0) (r0)
"#;
    let expected = [Ok(100), Err(125), Err(125), Ok(100), Ok(0), Err(22), Ok(0)].map(Some);
    assert_eq!(results(text)[4..], expected);
}

#[test]
fn direct_io_wants_sectors_where_there_is_a_page_cache() {
    let of = |image: &str| {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT|DIRECT)
t0: pwrite(f0, 0, anon, 4K)
t0: pwrite(f0, 1, anon, 512)
t0: pwrite(f0, 0, anon+8, 512)
t0: pread(f0, 0, anon, 100)
t0: pread(f0, 8K, anon, 100)
"#
        );
        results(&text)[2..].to_vec()
    };
    for image in ["ext4", "xfs"] {
        assert_eq!(of(image), [Err(22), Err(22), Err(22), Ok(0)].map(Some), "{image}");
    }
    for image in ["ext4-dax", "xfs-dax"] {
        assert_eq!(of(image), [Ok(512), Ok(512), Ok(100), Ok(0)].map(Some), "{image}");
    }
}

/// One file as a plain array of bytes.
struct Array {
    bytes: Vec<u8>,
    lines: Vec<String>,
    /// Lines that read, with what they must see.
    expected: Vec<(u16, Vec<u8>)>,
}

impl Array {
    fn line(&mut self, text: String) -> u16 {
        self.lines.push(format!("t0: {text}"));
        (self.lines.len() - 1) as u16
    }

    fn grow(&mut self, size: usize) {
        self.bytes.resize(self.bytes.len().max(size), 0);
    }

    fn write(&mut self, call: u16, at: usize, len: usize) {
        self.grow(at + len);
        history::stamp::sign(&mut self.bytes[at..at + len], 1, call, at as u64);
    }

    /// Adds a random call; `draw(n)` is below `n`.
    fn step(&mut self, draw: &mut dyn FnMut(usize) -> usize) {
        let size = self.bytes.len();
        let at = if draw(2) == 0 { draw(40 << 10) } else { draw(10) << 12 };
        let len = 1 + if draw(2) == 0 { draw(12 << 10) } else { ((1 + draw(3)) << 12) - 1 };
        let (first, block) = (at / 4096 * 4096, 4096);
        match draw(12) {
            0 | 1 => {
                let call = self.line(format!("pwrite(f0, {at}, anon, {len})"));
                self.write(call, at, len);
            }
            2 => {
                let call = self.line(format!("pwrite(f1, {first}, anon, {block})"));
                self.write(call, first, block);
            }
            3 => {
                self.line(format!("ftruncate(f0, {at})"));
                self.bytes.resize(at, 0);
            }
            4 | 5 => {
                let mode = if draw(2) == 0 { "PUNCH_HOLE" } else { "ZERO_RANGE|KEEP_SIZE" };
                self.line(format!("fallocate(f0, {mode}, {at}, {len})"));
                let (from, to) = (at.min(size), (at + len).min(size));
                self.bytes[from..to].fill(0);
            }
            6 if first + block < size => {
                self.line(format!("fallocate(f0, COLLAPSE_RANGE, {first}, {block})"));
                self.bytes.drain(first..first + block);
            }
            7 if first < size => {
                self.line(format!("fallocate(f0, INSERT_RANGE, {first}, {block})"));
                self.bytes.splice(first..first, vec![0; block]);
            }
            8 if at + len <= size && at + len <= 64 << 10 => {
                let call = self.line(format!("store(m0+{at}, {len})"));
                self.write(call, at, len);
            }
            9 => {
                let call = ["drop_caches()", "fsync(f0)", "syncfs(f0)"][draw(3)];
                self.line(call.into());
            }
            10 => {
                let file = ["f0", "f1"][draw(2)];
                let (at, len) = if file == "f1" { (first, block) } else { (at, len) };
                let call = self.line(format!("pread({file}, {at}, anon, {len})"));
                let (from, to) = (at.min(size), (at + len).min(size));
                self.expected.push((call, self.bytes[from..to].to_vec()));
            }
            _ if at + len <= size && at + len <= 64 << 10 => {
                let call = self.line(format!("load(m0+{at}, {len})"));
                self.expected.push((call, self.bytes[at..at + len].to_vec()));
            }
            _ => {}
        }
    }
}

#[test]
fn a_sequential_program_sees_a_plain_array_of_bytes() {
    for seed in 0..400u64 {
        let mut state = seed;
        let mut draw = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut array = Array { bytes: vec![], lines: vec![], expected: vec![] };
        array.line("f0 = open(\"a\", RDWR|CREAT)".into());
        array.line("f1 = open(\"a\", RDWR|DIRECT)".into());
        array.line("m0 = mmap(f0, 0, 64K, RW, SHARED)".into());
        while array.lines.len() < 50 {
            array.step(&mut draw);
        }
        let image = Mount::ALL[seed as usize % 4].name();
        let text = format!("image {image}\n{}\n", array.lines.join("\n"));
        let events = events(&text);
        for (line, expected) in &array.expected {
            assert!(read(&events, *line).0 == *expected, "seed {seed}, line {line}:\n{text}");
        }
        let mut paths = 0;
        for event in &events {
            if let Event::Final { by, data, .. } = event {
                assert!(*data.expand().unwrap() == array.bytes, "seed {seed}, {by:?}:\n{text}");
                paths += 1;
            }
        }
        assert_eq!(paths, 6, "read, direct, mapping, after drop_caches, media, after remount");
    }
}

#[test]
fn racing_writes_leave_each_page_to_one_of_them_under_the_lock() {
    let text = r#"pinfuzz 1
image xfs
t0: f0 = open("a", RDWR|CREAT)
t1: pwrite(f0, 0, anon, 64K) &
t2: pwrite(f0, 0, anon, 64K) &
t0: wait(t1)
t0: wait(t2)
"#;
    let program = Program::parse(text).unwrap();
    let mut last = [0; 3];
    for seed in 0..50 {
        let history = target(seed).execute(&program).unwrap().history;
        let data = history.events.iter().find_map(|e| match e {
            Event::Final { by: ReadPath::Read, data, .. } => Some(data.clone()),
            _ => None,
        });
        let runs = data.unwrap_or_default().runs;
        let [history::Run::Signed { call, .. }] = runs[..] else { panic!("torn: {runs:?}") };
        last[usize::from(call)] += 1;
    }
    assert!(last[1] > 0 && last[2] > 0, "both orders come up: {last:?}");
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    let mut differ = 0;
    for seed in 0..100 {
        let program = Program::from_seed(seed, Mount::Xfs);
        let run = |seed| target(seed).execute(&program).unwrap().history;
        assert_eq!(run(1), run(1));
        differ += usize::from(run(1) != run(2));
    }
    assert!(differ > 5, "{differ}");
}

#[test]
fn thousands_of_generated_programs_run_to_their_end() {
    let mut seeds = 0..3000u64;
    let mut honest = FakeTarget::new(FakeConfig::default());
    let mut next = || seeds.next().map(|s| Program::from_seed(s, Mount::ALL[s as usize % 4]));
    let mut seen = 0;
    loop {
        let over = honest.run_batch(&mut next, &mut |done| {
            seen += 1;
            let ends =
                done.history.events.iter().filter(|e| matches!(e, Event::End { .. })).count();
            assert_eq!(ends, 1, "{}", done.program);
            for event in &done.history.events {
                // gup_test says that the page of zeros is not pinned.
                let told =
                    matches!(event, Event::Console(splat) if splat.title.contains("gup_test"));
                let bad = matches!(event, Event::Fsck { .. } | Event::Console(_) | Event::Down(_));
                assert!(told || !bad, "{event:?}\n{}", done.program);
                if let Event::End { stuck, .. } = event {
                    assert!(stuck.is_empty(), "{}", done.program);
                }
            }
            every_line_is_accounted_for(&done.program, &done.history.events);
        });
        if over.expect("the fake has no trouble") {
            break;
        }
    }
    assert_eq!(seen, 3000);
}

fn every_line_is_accounted_for(program: &Program, events: &[Event]) {
    let mut invoked = vec![0; program.lines.len()];
    let mut closed = vec![0; program.lines.len()];
    let mut cut_off = Vec::new();
    let mut last = 0;
    for event in events {
        let (seq, call) = match event {
            Event::Invoke { seq, call, .. } => {
                invoked[usize::from(call.0)] += 1;
                (*seq, *call)
            }
            Event::Return { seq, call, .. } => {
                closed[usize::from(call.0)] += 1;
                (*seq, *call)
            }
            Event::Skipped { seq, call, .. } => {
                invoked[usize::from(call.0)] += 1;
                closed[usize::from(call.0)] += 1;
                (*seq, *call)
            }
            Event::End { helped, stuck, .. } => {
                cut_off.extend(helped.iter().chain(stuck).map(|call| usize::from(call.0)));
                continue;
            }
            _ => continue,
        };
        assert!(seq > last, "{call:?}");
        last = seq;
    }
    // A call that was cut off with its child never returns, nor does anybody learn of a request whose child has gone.
    for (index, (line, closed)) in program.lines.iter().zip(&mut closed).enumerate() {
        let cut = |other: &program::Line| match other.call {
            Call::Kill { lane } => lane == line.lane,
            Call::Exit => other.lane == line.lane && line.via.is_some(),
            _ => false,
        };
        if *closed == 0 && (cut_off.contains(&index) || program.lines.iter().any(cut)) {
            *closed = 1;
        }
    }
    let all = vec![1; program.lines.len()];
    assert_eq!((invoked, closed), (all.clone(), all), "{program}");
    for event in events {
        if let Event::Return { call, payload: Payload::Read { data, .. }, result: Ok(n), .. } =
            event
        {
            let line = &program.lines[usize::from(call.0)];
            // The kernel does not say how much it brings out of pinned pages.
            if matches!(line.call, Call::PinLongtermTestRead) {
                assert_eq!((*n, Bytes::len(data) % 4096), (0, 0), "{call:?}\n{program}");
                continue;
            }
            let whole = !line.call.buffers().any(is_mapping);
            let load = matches!(line.call, Call::Load { .. });
            assert!(!(whole || load) || Bytes::len(data) == *n, "{call:?}\n{program}");
        }
    }
}

fn is_mapping((buf, _): (program::Buf, u64)) -> bool {
    matches!(buf, program::Buf::Map(..))
}

#[test]
fn a_copy_within_a_file_reads_what_it_has_just_written() {
    // As measured on ext4 through the page cache.
    for image in ["ext4", "xfs-dax"] {
        let text = format!(
            r#"image {image}
t0: f0 = open("a", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 8K)
t0: m0 = mmap(f0, 0, 8K, RW, SHARED)
t0: load(m0+0, 8K)
t0: pread(f0, 0, m0+64, 4K)
t0: load(m0+0, 8K)
t0: pwrite(f0, 1024, m0+0, 2K)
t0: load(m0+0, 8K)
"#
        );
        let events = events(&text);
        let mut model = read(&events, 3).0;
        (0..4096).for_each(|i| model[64 + i] = model[i]);
        assert!(read(&events, 5).0 == model, "{image}: read");
        (0..2048).for_each(|i| model[1024 + i] = model[i]);
        assert!(read(&events, 7).0 == model, "{image}: write");
    }
}

#[test]
fn a_direct_read_at_the_end_of_file_zeroes_the_rest_of_its_buffer() {
    // As measured on ext4: the whole buffer is transferred, and only the count is cut at the size.
    let text = r#"image ext4
t0: f0 = open("a", RDWR|CREAT|DIRECT)
t0: pwrite(f0, 0, anon, 4K)
t0: f1 = open("b", RDWR|CREAT)
t0: pwrite(f1, 0, anon, 8K)
t0: m1 = mmap(f1, 0, 8K, RW, SHARED)
t0: pread(f0, 2K, m1+0, 8K)
t0: load(m1+2K, 6K)
t0: pread(f0, 2K, anon, 8K)
"#;
    let events = events(text);
    assert!(read(&events, 6).0 == [0; 6144]);
    let Payload::Read { data, tail_intact, .. } = payload(&events, 7) else { panic!("it reads") };
    assert_eq!((data.len(), *tail_intact), (2048, false));
}
