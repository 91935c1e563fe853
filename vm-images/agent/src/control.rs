//! What PID 1, the runner and its forked children know of each other: a page of atomics that all of them share.
//!
//! It outlives the runner, so that PID 1 can say what was in flight when the runner died. Results do not go through here, but
//! straight into the log.

use crate::signals::{SIGNALS_MAX, SignalSlot};
use program::{CHILDREN_MAX, GATES_MAX, GateSlot, LINES_MAX, Lane, THREADS_MAX};
use rustix::process::Pid;
use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Lanes of a program: threads, then children.
pub const LANES: usize = (THREADS_MAX + CHILDREN_MAX) as usize;

/// Gates of a guest.
pub const GATES: usize = GATES_MAX as usize;

/// Index of a lane, if a program may have it.
pub fn lane_index(lane: Lane) -> Option<usize> {
    match lane {
        Lane::Thread(n) if n < THREADS_MAX => Some(n.into()),
        Lane::Child(n) if n < CHILDREN_MAX => Some((THREADS_MAX + n).into()),
        _ => None,
    }
}

/// The lane of that index.
pub fn lane_at(index: usize) -> Option<Lane> {
    (index < LANES).then(|| match (index as u8).checked_sub(THREADS_MAX) {
        Some(child) => Lane::Child(child),
        None => Lane::Thread(index as u8),
    })
}

/// How far a line has come.
pub mod stage {
    /// Not given to a lane yet.
    pub const NEW: u32 = 0;
    /// Waits in its lane's queue, or with a chain of a ring.
    pub const QUEUED: u32 = 1;
    /// Its Invoke is in the log.
    pub const INVOKED: u32 = 2;
    /// Its Return is in the log, or it was skipped.
    pub const OVER: u32 = 3;
}

/// What the runner is asked to do.
pub mod command {
    /// The job of a slot.
    pub const JOB: u32 = 1;
    /// The rest of a run whose first runner was killed: reading back.
    pub const FINISH: u32 = 2;
}

/// How the runner's command ended.
pub mod outcome {
    /// All done.
    pub const DONE: u32 = 1;
    /// Calls are still blocked: the runner must be killed.
    pub const KILL_ME: u32 = 2;
}

/// A futex that counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU32);

impl Counter {
    /// The count.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the count, when nobody waits.
    pub fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// Counts one and wakes who waits.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
        let _ = futex::wake(&self.0, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Waits until the count is no longer `seen`, a signal comes or the time is over.
    pub fn wait_while(&self, seen: u32, timeout: Option<Duration>) {
        if self.get() != seen {
            return;
        }
        let timeout = timeout
            .map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let _ = futex::wait(&self.0, futex::Flags::empty(), seen, timeout.as_ref());
    }
}

/// A lane's queue and life.
#[derive(Debug)]
pub struct LaneControl {
    /// Commands given so far.
    pub posted: Counter,
    /// Commands finished so far.
    pub finished: Counter,
    /// Line of command `n`, at `n % LINES_MAX`: a program has no more lines than that.
    pub lines: [AtomicU32; LINES_MAX],
    /// Process and thread that serve the lane; 0 if none does.
    pub pid: AtomicU32,
    /// See `pid`.
    pub tid: AtomicU32,
    /// The lane waits for the completion of a ring's request: look at the ring's workers rather than at it.
    pub in_ring: AtomicU32,
    /// The lane's child has left what is not its own.
    pub ready: AtomicU32,
    /// The program killed the lane's child.
    pub killed: AtomicU32,
    /// The lane waits for something of the agent's own: it is not blocked, however still it stands.
    pub own_wait: AtomicU32,
}

impl LaneControl {
    /// Somebody new is about to serve the lane: what the one before was in the middle of when it was killed is not its.
    pub fn renew(&self) {
        for word in [&self.in_ring, &self.ready, &self.killed, &self.own_wait] {
            word.store(0, Ordering::Release);
        }
    }

    /// Process and thread that serve the lane, if any do.
    pub fn server(&self) -> Option<(Pid, Pid)> {
        let id = |id: &AtomicU32| Pid::from_raw(id.load(Ordering::Acquire) as i32);
        id(&self.pid).zip(id(&self.tid))
    }
}

/// The page.
#[derive(Debug)]
pub struct Control {
    /// Lock of the log: the process that writes, or 0.
    pub log_lock: AtomicU32,
    /// Order of events in this run.
    pub seq: AtomicU64,
    /// When the run began, CLOCK_MONOTONIC in nanoseconds.
    pub began: AtomicU64,
    /// See `history::wire::header`.
    pub kernel_ns: AtomicU64,
    /// See `history::wire::header`.
    pub calls: AtomicU64,
    /// Commands to the runner.
    pub asked: Counter,
    /// Commands done.
    pub answered: Counter,
    /// What is asked, see `command`.
    pub command: AtomicU32,
    /// Slot of the job.
    pub slot: AtomicU32,
    /// Answer, see `outcome`.
    pub outcome: AtomicU32,
    /// A program is under way, and its End is not in the log.
    pub in_program: AtomicU32,
    /// The program is over: lanes skip what is still queued, and no longer wait for rings.
    pub ending: AtomicU32,
    /// Lines that the runner helped to end, as a bit set.
    pub helped: AtomicU64,
    /// Whether each gate holds what goes through it.
    pub held: [AtomicU32; GATES],
    /// Every gate was released for the end of the program: none is held any more.
    pub gates_over: AtomicU32,
    /// Lines that were issued through each gate's device, as bit sets.
    pub through: [AtomicU64; GATES],
    /// Whether the pages that are pinned before and after the program are of interest.
    pub pins_watched: AtomicU32,
    /// Those that were before.
    pub pins_before: AtomicI64,
    /// Lines that never return because their ring was closed, as a bit set.
    pub cut_off: AtomicU64,
    /// A program has changed how long the kernel waits for the break of a lease.
    pub break_time_set: AtomicU32,
    /// Signals that handlers have kept so far.
    pub signals_kept: AtomicU32,
    /// The first of them.
    pub signals: [SignalSlot; SIGNALS_MAX],
    /// Stages of the lines.
    pub stages: [AtomicU32; LINES_MAX],
    /// The lanes.
    pub lanes: [LaneControl; LANES],
}

impl Control {
    /// Stage of a line.
    pub fn stage(&self, line: usize) -> u32 {
        self.stages[line].load(Ordering::Acquire)
    }

    /// Sets the stage of a line.
    pub fn set_stage(&self, line: usize, stage: u32) {
        self.stages[line].store(stage, Ordering::Release);
    }

    /// Lines at a stage.
    pub fn lines_at(&self, stage: u32) -> impl Iterator<Item = usize> + '_ {
        (0..LINES_MAX).filter(move |line| self.stage(*line) == stage)
    }

    /// Before a run.
    pub fn reset(&self) {
        self.seq.store(0, Ordering::Relaxed);
        self.began.store(crate::record::now(), Ordering::Relaxed);
        self.ending.store(0, Ordering::Relaxed);
        self.helped.store(0, Ordering::Relaxed);
        self.forget_signals();
        self.cut_off.store(0, Ordering::Relaxed);
        self.gates_over.store(0, Ordering::Relaxed);
        self.through.iter().for_each(|lines| lines.store(0, Ordering::Relaxed));
        self.stages.iter().for_each(|s| s.store(stage::NEW, Ordering::Relaxed));
    }

    /// Whether any gate does.
    pub fn any_held(&self) -> bool {
        self.held.iter().any(|held| held.load(Ordering::Acquire) != 0)
    }

    /// A line is about to be issued through a gate's device.
    pub fn goes_through(&self, gate: GateSlot, line: usize) {
        self.through[usize::from(gate.0)].fetch_or(1 << line, Ordering::AcqRel);
    }

    /// The process that had issued a line is gone, and what the line had under way with it.
    pub fn forget_line(&self, line: usize) {
        self.through.iter().for_each(|lines| {
            lines.fetch_and(!(1 << line), Ordering::AcqRel);
        });
    }

    /// Whether a line that was issued through a gate's device has not returned.
    pub fn is_in_flight(&self, gate: GateSlot) -> bool {
        let lines = self.through[usize::from(gate.0)].load(Ordering::Acquire);
        self.lines_at(stage::INVOKED).any(|line| lines >> line & 1 != 0)
    }

    /// Whether the program is over for lanes.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire) != 0
    }

    /// The line that a lane works on, if any.
    pub fn current(&self, lane: usize) -> Option<usize> {
        let lane = &self.lanes[lane];
        let finished = lane.finished.get();
        (lane.posted.get() != finished)
            .then(|| lane.lines[finished as usize % LINES_MAX].load(Ordering::Acquire) as usize)
    }

    /// Gives a line to a lane.
    pub fn post(&self, lane: usize, line: usize) {
        self.set_stage(line, stage::QUEUED);
        let lane = &self.lanes[lane];
        lane.lines[lane.posted.get() as usize % LINES_MAX].store(line as u32, Ordering::Release);
        lane.posted.bump();
    }
}
