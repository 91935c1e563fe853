//! Recording events of a run: order, time and the log.
//!
//! An Invoke is in the log before its call is issued, so that a panic leaves it behind. A Return takes its place in the order at once
//! after the call, and its payload is encoded only then.

use crate::control::{Control, stage};
use history::memory::{Log, Memory};
use history::wire::Note;
use history::{CallResult, Event, Payload, SkipReason};
use program::CallId;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU32, Ordering};

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Process number of whoever records; a forked child sets it anew.
static PID: AtomicU32 = AtomicU32::new(0);

/// Learns the process number, after start and fork.
pub fn learn_pid() -> u32 {
    let pid = rustix::process::getpid().as_raw_nonzero().get() as u32;
    PID.store(pid, Ordering::Relaxed);
    pid
}

/// The process number.
pub fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => learn_pid(),
        pid => pid,
    }
}

/// A place in the order and a time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    seq: u64,
    time_ns: u64,
}

/// Records one run's events into one slot.
#[derive(Clone, Copy, Debug)]
pub struct Recorder {
    /// What the processes share.
    pub control: &'static Control,
    /// What guest and host share.
    pub memory: Memory<'static>,
    log: Log<'static>,
    /// Whether events are recorded at all.
    pub on: bool,
}

impl Recorder {
    /// Into the log of `slot`.
    pub fn new(
        control: &'static Control,
        memory: Memory<'static>,
        slot: u64,
        on: bool,
    ) -> Recorder {
        Recorder { control, memory, log: memory.log(slot, &control.log_lock), on }
    }

    /// Takes the next place in the order.
    pub fn moment(&self) -> Moment {
        let time_ns = now().saturating_sub(self.control.began.load(Ordering::Relaxed));
        Moment { seq: self.control.seq.fetch_add(1, Ordering::AcqRel), time_ns }
    }

    /// The same, with recording on or off.
    pub fn recording(self, on: bool) -> Recorder {
        Recorder { on, ..self }
    }

    /// Writes a note if recording is on.
    pub fn note(&self, note: &Note) {
        if self.on {
            self.log.append(note, pid());
        }
    }

    /// Writes an event if recording is on.
    pub fn event(&self, event: Event) {
        if self.on {
            self.log.append(&Note::Event(event), pid());
        }
    }

    /// Says that the agent could not do its work, whether recording is on or not.
    pub fn trouble(&self, what: impl Into<String>) {
        self.log.append(&Note::Trouble(what.into()), pid());
    }

    /// Frees the log from a dead process.
    pub fn forget(&self, pid: u32) {
        self.log.forget(pid);
    }

    /// The call is about to be issued. Returns the time just before it.
    pub fn invoke(&self, line: usize, slots: Vec<CallId>) -> u64 {
        let Moment { seq, time_ns } = self.moment();
        self.event(Event::Invoke { seq, call: CallId(line as u16), time_ns, slots });
        self.control.set_stage(line, stage::INVOKED);
        self.control.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.progress();
        now()
    }

    /// The call has returned, at `end`; the payload is made only if it is recorded.
    pub fn returned(
        &self,
        line: usize,
        end: Moment,
        result: CallResult,
        payload: impl FnOnce() -> Payload,
    ) {
        if self.on {
            let Moment { seq, time_ns } = end;
            self.event(Event::Return {
                seq,
                call: CallId(line as u16),
                time_ns,
                result,
                payload: payload(),
            });
        }
        self.control.set_stage(line, stage::OVER);
        self.memory.progress();
    }

    /// The line is left out.
    pub fn skipped(&self, line: usize, reason: SkipReason) {
        let seq = self.moment().seq;
        self.event(Event::Skipped { seq, call: CallId(line as u16), reason });
        self.control.set_stage(line, stage::OVER);
    }

    /// The line was seen to be blocked.
    pub fn blocked(&self, line: usize, state: char, wchan: String) {
        let Moment { seq, time_ns } = self.moment();
        self.event(Event::Blocked { seq, call: CallId(line as u16), time_ns, state, wchan });
    }

    /// From here on every gate is released.
    pub fn gates_released(&self, Moment { seq, .. }: Moment) {
        self.event(Event::GatesReleased { seq });
        self.control.gates_over.store(1, Ordering::Release);
    }

    /// Pages that are pinned when all is over, beside those that were before.
    pub fn pins(&self, pinned_at_rest: impl FnOnce(i64) -> Option<i64>) {
        if self.control.pins_watched.load(Ordering::Acquire) == 0 {
            return;
        }
        let before = self.control.pins_before.load(Ordering::Acquire);
        if let Some(after) = pinned_at_rest(before) {
            self.event(Event::Pins { before, after });
        }
    }

    /// The program is over.
    pub fn end(&self, stuck: &[usize], helped: &[usize]) {
        let ids = |lines: &[usize]| lines.iter().map(|l| CallId(*l as u16)).collect();
        let seq = self.moment().seq;
        self.event(Event::End { seq, stuck: ids(stuck), helped: ids(helped) });
        self.control.in_program.store(0, Ordering::Release);
    }
}
