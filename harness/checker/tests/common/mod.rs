//! Writes histories by hand: a program text, and what each line is to have returned.

#![allow(dead_code, reason = "each test file uses its part of it")]

use checker::{Anomaly, AnomalyKind, Oracle, Policy, Verdict, check};
use history::{
    Bytes, CallResult, Errno, Event, FaultSignal, FileFacts, FileId, History, Payload, ReadPath,
    Run,
};
use program::{CallId, Lane, Lease, Mount, Path, Program};

/// The run that all hand-written histories are.
pub const RUN: u32 = 9;
/// The kernel that most of them are of.
const RELEASE: &str = "6.12.117";

/// A history under construction.
pub struct Script {
    program: Program,
    events: Vec<Event>,
    seq: u64,
    /// Nanoseconds since the run began; each event takes a microsecond.
    now: u64,
    policy: Policy,
}

/// Facts of the n-th file of a mount.
pub fn facts(mount: Mount, ino: u64, size: u64) -> FileFacts {
    FileFacts {
        id: FileId { mount, ino, generation: 1 },
        size,
        blocks: 0,
        nlink: 1,
        dax: mount.is_dax(),
        dio_mem_align: if mount.is_dax() { 0 } else { 512 },
        dio_offset_align: if mount.is_dax() { 0 } else { 512 },
    }
}

/// `len` bytes that `call` signed for `offset`.
pub fn signed(call: u16, offset: u64, len: u64) -> Run {
    Run::Signed { run: RUN, call, offset, len }
}

/// `len` zeros.
pub fn zeros(len: u64) -> Run {
    Run::Zero { len }
}

/// The payload of a read.
pub fn read(runs: Vec<Run>) -> Payload {
    Payload::Read { data: Bytes { runs }, tail_intact: true, fault: None }
}

/// The payload of a load that faulted.
pub fn fault(runs: Vec<Run>, signo: i32, code: i32, addr: i64) -> Payload {
    let fault = Some(FaultSignal { signo, code, addr });
    Payload::Read { data: Bytes { runs }, tail_intact: true, fault }
}

impl Script {
    /// Begins with a program of the given home mount; lines in the text form.
    pub fn new(home: &str, lines: &str) -> Script {
        let text = format!("pinfuzz 1\nimage {home}\n{lines}\n");
        let program = Program::parse(&text).expect("the test's program parses");
        Script { program, events: Vec::new(), seq: 0, now: 0, policy: Policy::for_release(RELEASE) }
    }

    fn next(&mut self) -> u64 {
        self.seq += 1;
        self.now += 1000;
        self.seq
    }

    /// Judged by the policy of that name.
    pub fn by(mut self, policy: &str) -> Script {
        self.policy = Policy::named(policy).expect("a policy of that name");
        self
    }

    /// Nothing happens for so many milliseconds.
    pub fn pause(mut self, ms: u64) -> Script {
        self.now += ms * 1_000_000;
        self
    }

    /// A line is seen to stand still.
    pub fn stands(mut self, call: u16, state: char, wchan: &str) -> Script {
        let seq = self.next();
        let (call, wchan) = (CallId(call), wchan.to_owned());
        self.events.push(Event::Blocked { seq, call, time_ns: self.now, state, wchan });
        self
    }

    /// A lane handles a signal; real-time signals and SIGIO with a descriptor come as POLL_MSG.
    pub fn signal(self, lane: Lane, signo: i32, fd: i32) -> Script {
        self.signal_as(lane, signo, fd, if fd == 0 { 128 } else { 3 })
    }

    /// A signal with this si_code.
    pub fn signal_as(mut self, lane: Lane, signo: i32, fd: i32, code: i32) -> Script {
        let seq = self.next();
        let band = if fd == 0 { 0 } else { 0x441 };
        let (time_ns, lane) = (self.now, Some(lane));
        self.events.push(Event::Signal { seq, time_ns, lane, signo, code, fd, band, answer: None });
        self
    }

    /// What the handler of the signal before did.
    pub fn answered(mut self, lease: Lease, result: CallResult) -> Script {
        if let Some(Event::Signal { answer, .. }) = self.events.last_mut() {
            *answer = Some((lease, result));
        }
        self
    }

    /// The agent releases all gates.
    pub fn gates(mut self) -> Script {
        let seq = self.next();
        self.event(Event::GatesReleased { seq })
    }

    /// What each call that stood still waits for.
    pub fn waits(self) -> Vec<String> {
        let history = History { run: RUN, events: self.events };
        let all = checker::waits(&self.program, &history, &self.policy);
        all.into_iter().map(|wait| wait.sentence).collect()
    }

    /// A line begins.
    pub fn inv(mut self, call: u16, slots: &[u16]) -> Script {
        let seq = self.next();
        let slots = slots.iter().map(|s| CallId(*s)).collect();
        self.events.push(Event::Invoke { seq, call: CallId(call), time_ns: self.now, slots });
        self
    }

    /// A line ends.
    pub fn ret(mut self, call: u16, result: CallResult, payload: Payload) -> Script {
        let seq = self.next();
        let (call, time_ns) = (CallId(call), self.now);
        self.events.push(Event::Return { seq, call, time_ns, result, payload });
        self
    }

    /// A line from begin to end.
    pub fn call(self, call: u16, slots: &[u16], result: u64, payload: Payload) -> Script {
        self.inv(call, slots).ret(call, Ok(result), payload)
    }

    /// A line that fails.
    pub fn fails(self, call: u16, slots: &[u16], errno: i32) -> Script {
        self.inv(call, slots).ret(call, Err(Errno(errno)), Payload::None)
    }

    /// A line that gives nothing but a number.
    pub fn ok(self, call: u16, slots: &[u16], result: u64) -> Script {
        self.call(call, slots, result, Payload::None)
    }

    /// An open of file `ino` on the home mount.
    pub fn open(self, call: u16, ino: u64) -> Script {
        let facts = facts(self.program.home, ino, 0);
        self.call(call, &[], 3, Payload::File(facts))
    }

    /// Any other event.
    pub fn event(mut self, event: Event) -> Script {
        self.events.push(event);
        self
    }

    /// The end of the program.
    pub fn end(mut self, helped: &[u16]) -> Script {
        let seq = self.next();
        let helped = helped.iter().map(|h| CallId(*h)).collect();
        self.event(Event::End { seq, stuck: Vec::new(), helped })
    }

    /// Final content of file `ino`, named `a`, on the home mount.
    pub fn last(self, by: ReadPath, ino: u64, runs: Vec<Run>) -> Script {
        let size = runs.iter().map(Run::len).sum();
        let mount = self.program.home;
        let file = facts(mount, ino, size);
        let path = Path { mount, name: 0 };
        self.event(Event::Final { path, by, file, result: Ok(size), data: Bytes { runs } })
    }

    /// The verdict on a kernel of that release.
    pub fn verdict(mut self, release: &str) -> Verdict {
        if release != RELEASE {
            self.policy = Policy::for_release(release);
        }
        let history = History { run: RUN, events: self.events };
        check(&self.program, &history, &self.policy)
    }

    /// Expects an explanation.
    #[track_caller]
    pub fn explained(self) {
        assert_eq!(self.verdict(RELEASE), Verdict::Explained);
    }

    /// Expects an anomaly of that kind and oracle to come first.
    #[track_caller]
    pub fn anomalous(self, kind: AnomalyKind, oracle: Oracle) -> Anomaly {
        self.anomalous_on(RELEASE, kind, oracle)
    }

    /// As `anomalous`, on a kernel of another release.
    #[track_caller]
    pub fn anomalous_on(self, release: &str, kind: AnomalyKind, oracle: Oracle) -> Anomaly {
        match self.verdict(release) {
            Verdict::Anomalous(list) => {
                assert_eq!((list[0].kind, list[0].oracle), (kind, oracle), "{}", list[0]);
                list[0].clone()
            }
            other => panic!("expected {kind:?} by {oracle:?}, got {other:?}"),
        }
    }
}
