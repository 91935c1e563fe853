//! Signals on their way from a handler into the log: the handler may not take locks, so it leaves them in the shared page.

use crate::control::{Control, LANES, lane_at};
use crate::record::Recorder;
use history::{CallResult, Errno, Event};
use program::Lease;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Most signals that one program's handlers may leave; a program of 64 lines breaks fewer leases.
pub const SIGNALS_MAX: usize = 256;
/// No lane.
const NOBODY: u32 = u32::MAX;
/// No answer.
const NONE: u32 = u32::MAX;

/// One signal.
#[derive(Debug, Default)]
pub struct SignalSlot {
    ready: AtomicU32,
    lane: AtomicU32,
    seq: AtomicU64,
    time_ns: AtomicU64,
    signo: AtomicI32,
    code: AtomicI32,
    fd: AtomicI32,
    answer: AtomicU32,
    band: AtomicI64,
    /// What the answer's fcntl returned; an errno is negative.
    result: AtomicI64,
}

impl SignalSlot {
    /// With these contents.
    pub fn of(
        seq: u64,
        time_ns: u64,
        lane: Option<usize>,
        (signo, code, fd, band): (i32, i32, i32, i64),
        answered: Option<(Lease, CallResult)>,
    ) -> SignalSlot {
        let index = |lease| Lease::NAMES.iter().position(|(_, l)| *l == lease);
        let answer = answered.and_then(|(lease, _)| index(lease));
        let result = answered.map_or(0, |(_, result)| match result {
            Ok(value) => value as i64,
            Err(Errno(errno)) => -i64::from(errno),
        });
        SignalSlot {
            ready: AtomicU32::new(1),
            lane: AtomicU32::new(lane.map_or(NOBODY, |lane| lane as u32)),
            seq: AtomicU64::new(seq),
            time_ns: AtomicU64::new(time_ns),
            signo: AtomicI32::new(signo),
            code: AtomicI32::new(code),
            fd: AtomicI32::new(fd),
            answer: AtomicU32::new(answer.map_or(NONE, |index| index as u32)),
            band: AtomicI64::new(band),
            result: AtomicI64::new(result),
        }
    }

    fn copy(&self, from: &SignalSlot) {
        let order = Ordering::Relaxed;
        self.lane.store(from.lane.load(order), order);
        self.seq.store(from.seq.load(order), order);
        self.time_ns.store(from.time_ns.load(order), order);
        self.signo.store(from.signo.load(order), order);
        self.code.store(from.code.load(order), order);
        self.fd.store(from.fd.load(order), order);
        self.answer.store(from.answer.load(order), order);
        self.band.store(from.band.load(order), order);
        self.result.store(from.result.load(order), order);
        self.ready.store(1, Ordering::Release);
    }

    fn event(&self) -> Event {
        let order = Ordering::Relaxed;
        let result = match self.result.load(order) {
            errno if errno < 0 => Err(Errno(-errno as i32)),
            value => Ok(value as u64),
        };
        let answer = Lease::NAMES.get(self.answer.load(order) as usize);
        Event::Signal {
            seq: self.seq.load(order),
            time_ns: self.time_ns.load(order),
            lane: lane_at(self.lane.load(order) as usize),
            signo: self.signo.load(order),
            code: self.code.load(order),
            fd: self.fd.load(order),
            band: self.band.load(order),
            answer: answer.map(|(_, lease)| (*lease, result)),
        }
    }
}

impl Control {
    /// The lane that a thread serves. May be called from a signal handler.
    pub fn lane_of(&self, tid: u32) -> Option<usize> {
        (0..LANES).find(|lane| {
            let lane = &self.lanes[*lane];
            lane.pid.load(Ordering::Acquire) != 0 && lane.tid.load(Ordering::Acquire) == tid
        })
    }

    /// Keeps a signal for the log. May be called from a signal handler.
    pub fn keep_signal(&self, signal: &SignalSlot) {
        let place = self.signals_kept.fetch_add(1, Ordering::AcqRel) as usize;
        if let Some(slot) = self.signals.get(place) {
            slot.copy(signal);
        }
    }

    /// Before a run: forgets all.
    pub fn forget_signals(&self) {
        self.signals.iter().for_each(|slot| slot.ready.store(0, Ordering::Relaxed));
        self.signals_kept.store(0, Ordering::Release);
    }

    /// Writes what has arrived into the log. One at a time does so: the conductor, or PID 1 when it is dead.
    pub fn write_signals(&self, recorder: &Recorder) {
        // In most programs there is none.
        let kept = (self.signals_kept.load(Ordering::Acquire) as usize).min(SIGNALS_MAX);
        for slot in &self.signals[..kept] {
            // Written ones are marked, since a handler may still be at work on one before others.
            if slot.ready.compare_exchange(1, 2, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                recorder.event(slot.event());
            }
        }
    }
}
