//! One run of one program: the conductor that hands lines to lanes, and the end, when blocked calls are helped out.
//!
//! Read-back is in `finish`.

use super::FakeConfig;
use super::exec::index_of;
use super::inode::Fs;
use super::pipe::Pipe;
use super::sched::{LANES, LaneState, Tasks, state_of};
use super::world::World;
use history::{Down, Event, SkipReason};
use program::{Call, CallId, Line, Program, THREADS_MAX};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a run leaves.
pub(super) struct Ran {
    /// The mounts afterwards.
    pub fs: Vec<Fs>,
    /// Its events up to `End`.
    pub events: Vec<Event>,
    /// Calls issued.
    pub calls: u64,
    /// Guest nanoseconds.
    pub clock: u64,
    /// Whether the kernel went down.
    pub down: bool,
}

fn is_idle(w: &World, lane: usize) -> bool {
    let requests = w.in_flight.iter().any(|(_, by)| *by == lane);
    w.current[lane].is_none() && w.queues[lane].is_empty() && !requests
}

/// Whether nothing more happens by itself.
fn is_over(w: &World) -> bool {
    (0..LANES).all(|lane| is_idle(w, lane)) && !w.has_signals() && !w.gates.has_work()
}

/// Idle time after which whoever waits is seen to stand still.
const LOOK_NS: u64 = 150_000_000;
/// What such a look takes.
const SEEN_NS: u64 = 60_000_000;

/// Runs a program up to its `End`.
pub(super) fn run(fs: Vec<Fs>, config: &FakeConfig, run: u32, program: &Program) -> Ran {
    let world = RefCell::new(World::new(fs, config.bug, config.regime, run, config.seed));
    {
        let tasks = Tasks::new(&world);
        let mut conductor = Conductor { world: &world, tasks, reported: BTreeSet::new() };
        for (i, line) in program.lines.iter().enumerate() {
            if world.borrow().procs[0].is_none() {
                // With the program's process its threads and the conductor have gone.
                world.borrow_mut().skip(CallId(i as u16), SkipReason::LaneStuck);
                continue;
            }
            conductor.line(CallId(i as u16), line);
            if world.borrow().panicked {
                break;
            }
        }
        if !world.borrow().panicked {
            conductor.end(program.may_pin());
        }
    }
    let mut w = world.into_inner();
    if w.panicked {
        w.complain("Kernel panic - not syncing: Fatal exception");
        w.events.push(Event::Down(Down::Panic));
    }
    for index in 0..w.procs.len() {
        w.end_process(index);
    }
    w.leases.clear();
    w.socket.clear();
    w.kept.clear();
    w.reap();
    for fs in &mut w.fs {
        fs.orphans.clear();
    }
    Ran { fs: w.fs, events: w.events, calls: w.calls, clock: w.clock, down: w.panicked }
}

struct Conductor<'a> {
    world: &'a RefCell<World>,
    tasks: Tasks<'a>,
    /// Lines that were seen to stand still.
    reported: BTreeSet<CallId>,
}

impl Conductor<'_> {
    /// Hands a line to its lane, and waits for it unless it is detached.
    fn line(&mut self, id: CallId, line: &Line) {
        let lane = index_of(line.lane);
        if let Call::Wait { lane: other } = line.call {
            return self.wait(id, index_of(other));
        }
        if lane >= usize::from(THREADS_MAX) {
            // A child's lines begin once it is forked.
            let child = (lane - usize::from(THREADS_MAX)) as u8;
            let forks = |w: &World| {
                let mut queued = w.queues.iter().flatten().map(|(_, line)| &line.call);
                queued.any(|c| *c == Call::Fork { child })
            };
            self.drive(LOOK_NS, |w| !forks(w));
        }
        {
            let mut w = self.world.borrow_mut();
            w.queues[lane].push_back((id, line.clone()));
            if w.lanes[lane] == LaneState::Parked {
                w.lanes[lane] = LaneState::Ready;
            }
        }
        if line.detached {
            return;
        }
        let pending = |w: &World| {
            w.current[lane] == Some(id) || w.queues[lane].iter().any(|(other, _)| *other == id)
        };
        if !self.drive(LOOK_NS, |w| !pending(w)) {
            self.note_blocked(|by, call| by == lane && call == id);
        }
    }

    fn drive(&mut self, patience_ns: u64, done: impl Fn(&World) -> bool) -> bool {
        self.tasks.drive(patience_ns, |w| w.panicked || done(w))
    }

    /// How long the agent looks on before it does something: short, long enough for some leases to run out, or for all.
    fn patience(&self) -> u64 {
        let choice = self.world.borrow_mut().rng.below(4);
        [LOOK_NS, LOOK_NS, 3_000_000_000, 70_000_000_000][choice]
    }

    /// `wait(t1)`: until that lane has nothing more to do, or can do nothing.
    fn wait(&mut self, id: CallId, lane: usize) {
        {
            let mut w = self.world.borrow_mut();
            let (seq, time_ns) = w.tick();
            w.events.push(Event::Invoke { seq, call: id, time_ns, slots: Vec::new() });
        }
        let patience = self.patience();
        let idle = self.drive(patience, |w| is_idle(w, lane));
        if !idle {
            self.note_blocked(|by, _| by == lane);
        }
        let mut w = self.world.borrow_mut();
        let (seq, time_ns) = w.tick();
        let (result, payload) = (Ok(u64::from(!idle)), history::Payload::None);
        w.events.push(Event::Return { seq, call: id, time_ns, result, payload });
    }

    /// Says which calls stand still, each once.
    fn note_blocked(&mut self, which: impl Fn(usize, CallId) -> bool) {
        let mut w = self.world.borrow_mut();
        w.clock += SEEN_NS;
        for (call, lane) in w.in_flight.clone() {
            if !which(lane, call) || !self.reported.insert(call) {
                continue;
            }
            let own = w.current.get(lane).is_some_and(|c| *c == Some(call));
            let wchan = match w.lanes[lane] {
                LaneState::Waiting(wchan) if own => wchan,
                _ if own => {
                    self.reported.remove(&call);
                    continue;
                }
                // A request is with the kernel, and whoever asked waits for completions.
                _ => "io_cqring_wait",
            };
            let (seq, time_ns) = w.tick();
            let state = state_of(wchan);
            w.events.push(Event::Blocked { seq, call, time_ns, state, wchan: wchan.into() });
        }
    }

    fn in_flight(&self) -> Vec<CallId> {
        self.world.borrow().in_flight.iter().map(|(id, _)| *id).collect()
    }

    /// Lets everything run out, helps blocked calls to end, and says so.
    fn end(&mut self, pins: bool) {
        let patience = self.patience();
        if !self.drive(patience, is_over) {
            self.note_blocked(|_, _| true);
        }
        let mut blocked = self.in_flight();
        if self.world.borrow().gates.any_held() {
            {
                let mut w = self.world.borrow_mut();
                let (seq, _) = w.tick();
                w.events.push(Event::GatesReleased { seq });
                w.gates.end();
                w.wake();
            }
            if !self.drive(LOOK_NS, is_over) {
                self.note_blocked(|_, _| true);
            }
            blocked.extend(self.in_flight());
        }
        self.world.borrow_mut().helping = true;
        if !self.in_flight().is_empty() {
            self.help();
        }
        let mut w = self.world.borrow_mut();
        if w.panicked {
            return;
        }
        let stuck: Vec<CallId> = w.in_flight.iter().map(|(id, _)| *id).collect();
        let mut helped: Vec<CallId> = blocked.into_iter().filter(|c| !stuck.contains(c)).collect();
        helped.sort_unstable();
        helped.dedup();
        for lane in 0..LANES {
            let left: Vec<CallId> = w.queues[lane].drain(..).map(|(id, _)| id).collect();
            left.into_iter().for_each(|id| w.skip(id, SkipReason::LaneStuck));
            // Chains without an end were never submitted.
            let left: Vec<CallId> = w.chains[lane].drain(..).map(|r| r.id).collect();
            left.into_iter().for_each(|id| w.skip(id, SkipReason::Unsupported));
        }
        if stuck.is_empty() {
            for index in 0..w.procs.len() {
                w.end_process(index);
            }
        }
        if pins {
            let after = w.pins();
            w.events.push(Event::Pins { before: 0, after });
        }
        let (seq, _) = w.tick();
        w.events.push(Event::End { seq, stuck, helped });
    }

    /// Children are killed, pipes drained and closed, threads interrupted, and at last the program's process is killed.
    fn help(&mut self) {
        {
            let mut w = self.world.borrow_mut();
            (1..w.procs.len()).for_each(|process| w.kill_process(process));
        }
        self.again();
        // First the pipes are drained, for as long as that lets somebody go on; then they are closed.
        while !self.in_flight().is_empty() {
            let pipes = self.pipes();
            let drained = pipes.iter().any(|p| !p.pieces.borrow().is_empty());
            if drained {
                pipes.iter().for_each(|p| p.pieces.borrow_mut().clear());
            } else {
                pipes.iter().for_each(|p| p.holders.set(0));
            }
            self.again();
            if !drained {
                break;
            }
        }
        if !self.in_flight().is_empty() {
            let mut w = self.world.borrow_mut();
            for lane in 0..usize::from(THREADS_MAX) {
                w.interrupted[lane] = w.current[lane].is_some();
            }
        }
        self.again();
        if !self.in_flight().is_empty() {
            {
                let mut w = self.world.borrow_mut();
                w.kill_process(0);
                w.rings_cancelled = true;
            }
            self.again();
        }
    }

    /// Everybody looks again.
    fn again(&mut self) {
        {
            let mut w = self.world.borrow_mut();
            w.let_go();
            w.wake();
        }
        self.drive(LOOK_NS, is_over);
    }

    fn pipes(&self) -> Vec<Rc<Pipe>> {
        let w = self.world.borrow();
        let slots = w.procs.iter().flatten().flat_map(|p| p.pipes.iter().flatten());
        slots.map(|(pipe, _)| pipe.clone()).collect()
    }
}
