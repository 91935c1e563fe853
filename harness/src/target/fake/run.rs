//! One run of one program: the conductor that hands lines to lanes, and the end, when blocked calls are helped out.
//!
//! Read-back is in `finish`.

use super::bug::Bug;
use super::inode::Fs;
use super::pipe::Pipe;
use super::sched::{LANES, LaneState, Tasks};
use super::world::World;
use history::{Down, Event, SkipReason};
use program::{Call, CallId, Lane, Line, Program, THREADS_MAX};
use std::cell::RefCell;
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

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Thread(n) => (n % THREADS_MAX) as usize,
        Lane::Child(n) => (THREADS_MAX + n % program::CHILDREN_MAX) as usize,
    }
}

fn is_idle(w: &World, lane: usize) -> bool {
    let requests = w.in_flight.iter().any(|(_, by)| *by == lane);
    w.current[lane].is_none() && w.queues[lane].is_empty() && !requests
}

/// Runs a program up to its `End`.
pub(super) fn run(fs: Vec<Fs>, bug: Option<Bug>, run: u32, seed: u64, program: &Program) -> Ran {
    let world = RefCell::new(World::new(fs, bug, run, seed));
    {
        let mut conductor = Conductor { world: &world, tasks: Tasks::new(&world) };
        for (i, line) in program.lines.iter().enumerate() {
            conductor.line(CallId(i as u16), line);
            if world.borrow().panicked {
                break;
            }
        }
        if !world.borrow().panicked {
            conductor.end();
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
    for fs in &mut w.fs {
        fs.orphans.clear();
    }
    Ran { fs: w.fs, events: w.events, calls: w.calls, clock: w.clock, down: w.panicked }
}

struct Conductor<'a> {
    world: &'a RefCell<World>,
    tasks: Tasks<'a>,
}

impl Conductor<'_> {
    /// Hands a line to its lane, and waits for it unless it is detached.
    fn line(&mut self, id: CallId, line: &Line) {
        let lane = index(line.lane);
        if let Call::Wait { lane: other } = line.call {
            return self.wait(id, index(other));
        }
        if lane >= usize::from(THREADS_MAX) {
            // A child's lines begin once it is forked.
            let child = (lane - usize::from(THREADS_MAX)) as u8;
            let forks = |w: &World| {
                let mut queued = w.queues.iter().flatten().map(|(_, line)| &line.call);
                queued.any(|c| *c == Call::Fork { child })
            };
            self.drive(|w| !forks(w));
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
        if !self.drive(|w| !pending(w)) {
            self.note_blocked(lane, id);
        }
    }

    fn drive(&mut self, done: impl Fn(&World) -> bool) -> bool {
        self.tasks.drive(|w| w.panicked || done(w))
    }

    /// `wait(t1)`: until that lane has nothing more to do, or can do nothing.
    fn wait(&mut self, id: CallId, lane: usize) {
        {
            let mut w = self.world.borrow_mut();
            let (seq, time_ns) = w.tick();
            w.events.push(Event::Invoke { seq, call: id, time_ns, slots: Vec::new() });
        }
        self.drive(|w| is_idle(w, lane));
        let mut w = self.world.borrow_mut();
        let (seq, time_ns) = w.tick();
        let payload = history::Payload::None;
        w.events.push(Event::Return { seq, call: id, time_ns, result: Ok(0), payload });
    }

    /// The line's call stands still.
    fn note_blocked(&mut self, lane: usize, id: CallId) {
        let mut w = self.world.borrow_mut();
        let LaneState::Waiting(wchan) = w.lanes[lane] else { return };
        if w.current[lane] != Some(id) {
            return;
        }
        let (seq, time_ns) = w.tick();
        let state = if wchan.starts_with("pipe_wait") { 'S' } else { 'D' };
        w.events.push(Event::Blocked { seq, call: id, time_ns, state, wchan: wchan.into() });
    }

    /// Lets everything run out, helps blocked calls to end, and says so.
    fn end(&mut self) {
        let idle = |w: &World| (0..LANES).all(|lane| is_idle(w, lane));
        self.drive(idle);
        let blocked: Vec<CallId> =
            self.world.borrow().in_flight.iter().map(|(id, _)| *id).collect();
        self.world.borrow_mut().helping = true;
        // First the pipes are drained, for as long as that lets somebody go on; then they are closed.
        while !self.world.borrow().in_flight.is_empty() {
            let pipes = self.pipes();
            let drained = pipes.iter().any(|p| !p.pieces.borrow().is_empty());
            if drained {
                pipes.iter().for_each(|p| p.pieces.borrow_mut().clear());
            } else {
                pipes.iter().for_each(|p| p.holders.set(0));
            }
            self.world.borrow_mut().wake();
            self.drive(idle);
            if !drained {
                break;
            }
        }
        let mut w = self.world.borrow_mut();
        if w.panicked {
            return;
        }
        let stuck: Vec<CallId> = w.in_flight.iter().map(|(id, _)| *id).collect();
        let helped = blocked.into_iter().filter(|c| !stuck.contains(c)).collect();
        for lane in 0..LANES {
            let left: Vec<CallId> = w.queues[lane].drain(..).map(|(id, _)| id).collect();
            left.into_iter().for_each(|id| w.skip(id, SkipReason::LaneStuck));
            // Chains without an end were never submitted.
            let left: Vec<CallId> = w.chains[lane].drain(..).map(|r| r.id).collect();
            left.into_iter().for_each(|id| w.skip(id, SkipReason::Unsupported));
        }
        let (seq, _) = w.tick();
        w.events.push(Event::End { seq, stuck, helped });
    }

    fn pipes(&self) -> Vec<Rc<Pipe>> {
        let w = self.world.borrow();
        let slots = w.procs.iter().flatten().flat_map(|p| p.pipes.iter().flatten());
        slots.map(|(pipe, _)| pipe.clone()).collect()
    }
}
