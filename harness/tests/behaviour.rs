//! Features of behaviour: what tells runs apart does so, what must not does not, and there are as many as a search can use.

use harness::coverage::{Feature, behaviour};
use harness::target::Target;
use harness::target::fake::{FakeConfig, FakeTarget};
use history::{Bytes, Errno, Event, FaultSignal, FileFacts, FileId, History, Payload};
use program::{CallId, Lane, Mount, Program};
use std::collections::BTreeSet;

/// Two threads, a file, and a mapping of it.
const TWO: &str = "pinfuzz 1
image xfs-dax
t0: f0 = open(\"a\", RDWR|CREAT)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t1: pwrite(f0, 0, anon, 8K) &
t2: fallocate(f0, PUNCH_HOLE, 4K, 4K) &
";

/// A pipe holds a page (#4) that is punched (#5).
const HELD: &str = "pinfuzz 1
image xfs-dax
t0: f0 = open(\"a\", RDWR|CREAT)
t0: pwrite(f0, 0, anon, 16K)
t0: m0 = mmap(f0, 0, 16K, RW, SHARED)
t0: p0 = pipe()
t0: vmsplice(m0+0, p0, 8K)
t1: fallocate(f0, PUNCH_HOLE, 0, 4K) &
";

/// One observation; its place in the list is its place in time.
#[derive(Clone)]
enum Saw {
    Begins(u16, &'static [u16]),
    Opened(u16, u64),
    Returns(u16, u64),
    Fails(u16, i32),
    Waits(u16, &'static str),
}
use Saw::{Begins, Fails, Opened, Returns, Waits};

fn facts(size: u64) -> Payload {
    let id = FileId { mount: Mount::XfsDax, ino: 131, generation: 7 };
    let (blocks, nlink, dio_mem_align, dio_offset_align) = (8, 1, 0, 0);
    Payload::File(FileFacts { id, size, blocks, nlink, dax: true, dio_mem_align, dio_offset_align })
}

fn history(run: u32, tick: u64, saw: &[Saw]) -> History {
    let events = saw.iter().enumerate().map(|(index, saw)| {
        let (seq, time_ns) = (index as u64 + 1, index as u64 * tick);
        let returns = |call, result, payload| Event::Return {
            seq,
            call: CallId(call),
            time_ns,
            result,
            payload,
        };
        match saw {
            Begins(call, slots) => {
                let slots = slots.iter().map(|slot| CallId(*slot)).collect();
                Event::Invoke { seq, call: CallId(*call), time_ns, slots }
            }
            Opened(call, size) => returns(*call, Ok(3), facts(*size)),
            Returns(call, moved) => returns(*call, Ok(*moved), Payload::None),
            Fails(call, errno) => returns(*call, Err(Errno(*errno)), Payload::None),
            Waits(call, wchan) => {
                let (call, wchan) = (CallId(*call), wchan.to_string());
                Event::Blocked { seq, call, time_ns, state: 'D', wchan }
            }
        }
    });
    History { run, events: events.collect() }
}

fn features_of(text: &str, history: &History) -> BTreeSet<Feature> {
    let program = Program::parse(text).expect("the program parses");
    behaviour::features(&program, history).into_iter().collect()
}

fn seen(text: &str, saw: &[Saw]) -> BTreeSet<Feature> {
    features_of(text, &history(1, 1000, saw))
}

/// The prologue of [`TWO`], and what follows it.
fn two(size: u64, then: &[Saw]) -> BTreeSet<Feature> {
    let prologue = [Begins(0, &[]), Opened(0, size), Begins(1, &[0]), Returns(1, 0x7f00_0000)];
    seen(TWO, &[&prologue, then].concat())
}

const AFTER: [Saw; 4] = [Begins(2, &[0]), Returns(2, 8192), Begins(3, &[0]), Returns(3, 0)];

#[test]
fn runs_that_differ_in_time_number_and_place_alone_are_the_same() {
    let saw = [Begins(0, &[]), Opened(0, 8192), Begins(1, &[0]), Returns(1, 0x7f00_0000)];
    let one = features_of(TWO, &history(1, 1000, &saw));
    let mut later = history(4711, 77_777, &saw);
    for event in &mut later.events {
        if let Event::Return { result: Ok(at), payload, call, .. } = event {
            if let Payload::File(facts) = payload {
                (facts.id.ino, facts.id.generation, facts.blocks) = (999, 3, 80);
            }
            // Where a mapping lies, and which number a descriptor has, is luck.
            *at += if *call == CallId(1) { 0x1000 } else { 5 };
        }
    }
    assert_eq!(one, features_of(TWO, &later));
    assert!(!one.is_empty() && one.iter().all(|feature| feature.as_site().is_none()));
}

#[test]
fn every_errno_and_signal_is_another_feature() {
    let with = |last: Saw| two(8192, &[Begins(2, &[0]), last]);
    let all = [
        with(Returns(2, 8192)),
        with(Returns(2, 4096)),
        with(Returns(2, 0)),
        with(Fails(2, 5)),
        with(Fails(2, 28)),
        with(Waits(2, "folio_wait_bit_common")),
        with(Waits(2, "dax_layout_busy_page")),
    ];
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            assert!(!one.is_subset(other) && !other.is_subset(one), "{index}");
        }
    }
    // What a guest makes up is one more way to fail, and no more.
    assert_eq!(with(Fails(2, 4095)), with(Fails(2, i32::MIN)));

    let load = TWO.replace("pwrite(f0, 0, anon, 8K)", "load(m0+0, 8K)");
    let faulted = |signo| {
        let fault = Some(FaultSignal { signo, code: 2, addr: 4096 });
        let data = Bytes::encode(&[]);
        let payload = Payload::Read { data, tail_intact: true, fault };
        let mut history = history(1, 10, &[Begins(0, &[]), Opened(0, 0), Begins(2, &[1])]);
        let (seq, call, time_ns, result) = (4, CallId(2), 40, Ok(0));
        history.events.push(Event::Return { seq, call, time_ns, result, payload });
        features_of(&load, &history)
    };
    assert_ne!(faulted(7), faulted(11));
}

#[test]
fn calls_at_the_same_time_differ_from_one_after_the_other() {
    let one_by_one = two(8192, &AFTER);
    let together = two(8192, &[Begins(2, &[0]), Begins(3, &[0]), Returns(2, 8192), Returns(3, 0)]);
    assert!(one_by_one.is_subset(&together) && one_by_one != together);
    // The punched page is another one than that which is written.
    let apart = TWO.replace("PUNCH_HOLE, 4K", "PUNCH_HOLE, 12K");
    let saw = [Begins(0, &[]), Opened(0, 8192), Begins(2, &[0]), Begins(3, &[0]), Returns(2, 8192)];
    assert_ne!(seen(TWO, &saw), seen(&apart, &saw));
}

#[test]
fn the_state_of_a_file_tells_runs_apart() {
    let call = [Begins(2, &[0]), Returns(2, 8192)];
    let sizes: Vec<_> = [0, 100, 8192, 9000, 2 << 20].map(|size| two(size, &call)).into();
    for (index, one) in sizes.iter().enumerate() {
        assert!(sizes[index + 1..].iter().all(|other| one != other), "{index}");
    }
    let mapped = two(8192, &call);
    let bare = seen(TWO, &[&[Begins(0, &[]), Opened(0, 8192)], &call[..]].concat());
    assert!(!bare.is_subset(&mapped), "a write to a file that nobody maps is another one");
}

#[test]
fn a_change_against_a_hold_is_a_feature_of_its_own() {
    let until = |taken: Saw| {
        let saw = [
            Begins(0, &[]),
            Opened(0, 16384),
            Begins(2, &[0]),
            Returns(2, 0x7f00_0000),
            Begins(3, &[]),
            Returns(3, 0),
            Begins(4, &[2, 3]),
            taken,
            Begins(5, &[0]),
            Returns(5, 0),
        ];
        seen(HELD, &saw)
    };
    let (held, refused) = (until(Returns(4, 8192)), until(Fails(4, 22)));
    // All that both show is the same: the pipe, the change. The pair is what the refusal lacks.
    let more: Vec<_> = held.difference(&refused).collect();
    let less: Vec<_> = refused.difference(&held).collect();
    assert!(more.len() > less.len(), "{more:?} {less:?}");
    let blocked = seen(
        HELD,
        &[
            Begins(0, &[]),
            Opened(0, 16384),
            Begins(4, &[2, 3]),
            Returns(4, 8192),
            Begins(5, &[0]),
            Waits(5, "dax_layout_busy_page"),
            Returns(5, 0),
        ],
    );
    assert!(!blocked.is_subset(&held));
}

#[test]
fn a_signal_and_its_answer_are_features() {
    let signal = |answer| {
        let (seq, time_ns, lane) = (1, 5, Some(Lane::Thread(0)));
        let (signo, code, fd, band) = (34, 1, 9, 0);
        let event = Event::Signal { seq, time_ns, lane, signo, code, fd, band, answer };
        features_of(TWO, &History { run: 1, events: vec![event] })
    };
    let all = [
        signal(None),
        signal(Some((program::Lease::Unlock, Ok(0)))),
        signal(Some((program::Lease::Read, Err(Errno(11))))),
    ];
    assert!(all[0] != all[1] && all[1] != all[2] && all.iter().all(|it| it.len() == 1));
}

/// Programs of which the features are counted.
const PROGRAMS: u64 = 2_000;

#[test]
fn features_are_few_enough_to_saturate_and_many_enough_to_guide() {
    let mut target = FakeTarget::new(FakeConfig { batch: 200, ..FakeConfig::default() });
    let mut seeds = 0..PROGRAMS;
    let mut next =
        || seeds.next().map(|seed| Program::from_seed(seed, Mount::ALL[seed as usize % 4]));
    let (mut all, mut each, mut halfway) = (BTreeSet::new(), Vec::new(), 0);
    let mut done = |done: harness::target::Done| {
        let one: BTreeSet<Feature> =
            behaviour::features(&done.program, &done.history).into_iter().collect();
        each.push(one.len());
        all.extend(one);
        if each.len() as u64 == PROGRAMS / 2 {
            halfway = all.len();
        }
    };
    while !target.run_batch(&mut next, &mut done).expect("the fake has no trouble") {}
    each.sort_unstable();
    let middle = each[each.len() / 2];
    assert!((20..=120).contains(&middle), "a program in the middle shows {middle}");
    assert!((2_000..=30_000).contains(&all.len()), "{} in all", all.len());
    let late = all.len() - halfway;
    assert!(late * 3 < all.len() && late > 100, "{late} of {} came in the second half", all.len());
}
