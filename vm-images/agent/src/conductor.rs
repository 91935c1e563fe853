//! Conducting a program: gives lines to lanes in order, waits where the program says so, notices who is blocked, and ends it all.
//!
//! A lane on which a line is blocked keeps its later lines queued. At the end of the program whoever is still blocked is helped: gates are
//! released, children killed, pipes closed and drained, threads interrupted. If that does not suffice, the runner asks to be killed.

use crate::control::{Control, LANES, lane_index, outcome, stage};
use crate::exec::{LaneState, run_line, serve};
use crate::look::{Look, ring_standing, standing};
use crate::record::{now, pid};
use crate::ring::Leaving;
use crate::run::Run;
use crate::sys::fault::INTERRUPT;
use crate::sys::{self, Pool};
use history::SkipReason;
use program::{Call, LINES_MAX, THREADS_MAX};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A lane that was found blocked is looked at again after this time, when something waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often a waiting conductor serves rings and children.
const POLL: Duration = Duration::from_millis(1);
/// A call that runs, rather than waits, for longer than this is called blocked as well (state R).
const RUNNING_MAX: Duration = Duration::from_secs(10);
/// How long each way of helping may take.
const HELP_MAX: Duration = Duration::from_millis(500);
/// Stack of a lane: its calls keep their bytes elsewhere.
const STACK: usize = 256 << 10;

/// How long a line is given that was found blocked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// A moment: another line is to go behind it.
    Short,
    /// As long as at first: what it waited for may be gone meanwhile.
    Full,
}

/// The run that the lanes serve.
type Current = Arc<Mutex<Option<Arc<Run>>>>;

/// Directs the lanes of one runner.
pub struct Conductor {
    control: &'static Control,
    current: Current,
    pool: Pool,
    /// Lines reported as blocked.
    reported: BTreeSet<usize>,
    /// Those of them that ran for too long.
    running: BTreeSet<usize>,
    /// Lines cut off when their child was killed, and when it died on its own.
    killed: Vec<usize>,
    died: Vec<usize>,
}

impl Conductor {
    /// Starts the lanes' threads.
    pub fn new(control: &'static Control) -> std::io::Result<Conductor> {
        let current = Current::default();
        for index in 0..usize::from(THREADS_MAX) {
            let current = current.clone();
            // What a lane of an earlier runner left does not concern this one.
            control.lanes[index].finished.set(control.lanes[index].posted.get());
            control.lanes[index].pid.store(0, Ordering::Release);
            control.lanes[index].renew();
            std::thread::Builder::new().name(format!("t{index}")).stack_size(STACK).spawn(
                move || {
                    let mine = &control.lanes[index];
                    mine.tid.store(
                        rustix::thread::gettid().as_raw_nonzero().get() as u32,
                        Ordering::Release,
                    );
                    mine.pid.store(pid(), Ordering::Release);
                    let run = |lane: &mut LaneState, line: usize| {
                        let run = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        if let Some(run) = run {
                            run_line(&run, lane, line);
                        }
                    };
                    // The conductor reaps for the threads.
                    serve(control, &mut LaneState::new(index), |_| false, run)
                },
            )?;
        }
        for lane in &control.lanes[..THREADS_MAX.into()] {
            while lane.pid.load(Ordering::Acquire) == 0 {
                std::thread::sleep(POLL);
            }
        }
        Ok(Conductor {
            control,
            current,
            pool: Pool::default(),
            reported: BTreeSet::new(),
            running: BTreeSet::new(),
            killed: vec![],
            died: vec![],
        })
    }

    /// Runs the program to its End, and removes what it left open. False: the runner must be killed, and the End is not recorded.
    pub fn conduct(&mut self, run: &Arc<Run>) -> bool {
        self.reported.clear();
        self.running.clear();
        self.killed.clear();
        self.died.clear();
        for lane in &self.control.lanes[THREADS_MAX.into()..] {
            lane.pid.store(0, Ordering::Release);
            lane.finished.set(lane.posted.get());
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.clone());
        for (line, text) in run.program.lines.iter().enumerate() {
            self.serve_others(run);
            if let Call::Wait { lane } = text.call {
                run.recorder.invoke(line, vec![]);
                let idle = lane_index(lane).is_none_or(|lane| self.wait_idle(run, lane));
                let result = Ok(u64::from(!idle));
                run.recorder
                    .returned(line, run.recorder.moment(), result, || history::Payload::None);
                continue;
            }
            let Some(lane) = lane_index(text.lane).filter(|lane| self.is_served(run, *lane)) else {
                run.recorder.skipped(line, SkipReason::NoLane);
                continue;
            };
            self.control.post(lane, line);
            if !text.detached {
                self.wait_posted(run, lane, Patience::Short);
            }
        }
        if !self.finish(run) {
            return false;
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }

    /// Whether somebody serves the lane. A fork that is under way is waited for.
    fn is_served(&mut self, run: &Run, lane: usize) -> bool {
        let served = |c: &Control| c.lanes[lane].pid.load(Ordering::Acquire) != 0;
        if !served(self.control) {
            let forks = |line: &usize| match run.program.lines[*line].call {
                Call::Fork { child } => lane_index(program::Lane::Child(child)) == Some(lane),
                _ => false,
            };
            let under_way =
                |line: &usize| matches!(self.control.stage(*line), stage::QUEUED | stage::INVOKED);
            let line = (0..run.program.lines.len()).find(|l| forks(l) && under_way(l));
            if let Some(parent) = line.and_then(|line| lane_index(run.program.lines[line].lane)) {
                self.wait_posted(run, parent, Patience::Short);
            }
        }
        served(self.control)
    }

    /// Reaps the completions of all rings and the children that have ended.
    fn serve_others(&mut self, run: &Run) {
        let rings = run.table.lock().all_rings.clone();
        for ring in rings {
            ring.try_reap(&run.recorder, &mut self.pool);
        }
        for lane in THREADS_MAX.into()..LANES {
            self.reap_child(run, lane);
        }
        self.control.write_signals(&run.recorder);
    }

    /// Whether a lane's child has ended, or there is none.
    fn reap_child(&mut self, run: &Run, lane: usize) -> bool {
        let mine = &self.control.lanes[lane];
        let child = mine.pid.load(Ordering::Acquire);
        let Some(child) = Pid::from_raw(child as i32) else { return true };
        // An error means that there is no such child any more.
        if let Ok(None) = waitpid(Some(child), WaitOptions::NOHANG) {
            return false;
        }
        run.recorder.forget(child.as_raw_nonzero().get() as u32);
        mine.pid.store(0, Ordering::Release);
        if let Some(line) =
            self.control.current(lane).filter(|line| self.control.stage(*line) == stage::INVOKED)
        {
            self.control.forget_line(line);
            if matches!(run.program.lines[line].call, Call::Exit) {
                run.recorder
                    .returned(line, run.recorder.moment(), Ok(0), || history::Payload::None);
            } else if self.control.is_ending() || mine.killed.load(Ordering::Acquire) != 0 {
                self.killed.push(line);
            } else {
                self.died.push(line);
            }
        }
        while let Some(line) = self.control.current(lane) {
            if self.control.stage(line) == stage::QUEUED {
                let reason = if self.control.is_ending() {
                    SkipReason::LaneStuck
                } else {
                    SkipReason::NoLane
                };
                run.recorder.skipped(line, reason);
            }
            mine.finished.bump();
        }
        // Its rings have gone with it, and what nobody can hear of any more.
        for line in self.requests_of(run, lane, stage::QUEUED) {
            run.recorder.skipped(line, SkipReason::Unsupported);
        }
        for line in self.requests_of(run, lane, stage::INVOKED) {
            self.control.forget_line(line);
            if !self.killed.contains(&line) && !self.died.contains(&line) {
                self.killed.push(line);
            }
        }
        true
    }

    /// Lines of a lane that are requests of rings, and stand at that stage.
    fn requests_of(&self, run: &Run, lane: usize, stage: u32) -> Vec<usize> {
        let lines = run.program.lines.iter().enumerate();
        let mine = lines.filter(|(_, l)| l.via.is_some() && lane_index(l.lane) == Some(lane));
        mine.map(|(line, _)| line).filter(|l| self.control.stage(*l) == stage).collect()
    }

    /// The requests of a lane that the kernel has. Those of a ring that was closed nobody waits for.
    fn requests(&self, run: &Run, lane: usize) -> Vec<usize> {
        let gone =
            lane >= THREADS_MAX.into() && self.control.lanes[lane].pid.load(Ordering::Acquire) == 0;
        let cut_off = self.control.cut_off.load(Ordering::Acquire);
        let mut all = if gone { vec![] } else { self.requests_of(run, lane, stage::INVOKED) };
        all.retain(|line| cut_off >> line & 1 == 0);
        all
    }

    /// Waits for the requests that the kernel has, of lanes of one process. False if some stand still, which is recorded. What a child has in its
    /// rings only the child itself can reap, and one that is blocked reaps nothing.
    fn wait_requests(&mut self, run: &Run, lanes: std::ops::Range<usize>) -> bool {
        let child = lanes.start >= THREADS_MAX.into();
        let mut look_at = now() + run.block_after.as_nanos() as u64;
        let give_up = look_at + RUNNING_MAX.as_nanos() as u64;
        loop {
            self.serve_others(run);
            // A lane that stands still while it submits was looked at already (`wait_posted`).
            let submits = |lane: usize, line: usize| {
                self.control.current(lane) == Some(line)
                    && self.control.lanes[lane].in_ring.load(Ordering::Acquire) == 0
            };
            let of = |lane| self.requests(run, lane).into_iter().map(move |line| (lane, line));
            let left = lanes.clone().flat_map(of).filter(|(lane, line)| !submits(*lane, *line));
            let left: Vec<usize> = left.map(|(_, line)| line).collect();
            if left.is_empty() {
                return true;
            }
            if child && self.control.current(lanes.start).is_some() {
                return false;
            }
            run.recorder.memory.progress();
            if now() > look_at {
                let pid = if child {
                    self.control.lanes[lanes.start].pid.load(Ordering::Acquire)
                } else {
                    pid()
                };
                let look =
                    ring_standing(pid, || false).or_else(|| (now() > give_up).then(Look::running));
                if let Some(look) = look {
                    self.serve_others(run);
                    for line in left {
                        self.found_blocked(run, line, look.clone(), Patience::Full);
                    }
                    return false;
                }
                look_at = now() + LOOK_AGAIN.as_nanos() as u64;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the lane has nothing more to do, its requests in rings included. False if it is blocked.
    fn wait_idle(&mut self, run: &Run, lane: usize) -> bool {
        self.wait_posted(run, lane, Patience::Full) && self.wait_requests(run, lane..lane + 1)
    }

    /// Waits until the lane has done all that it was given. False if it is blocked, which is recorded.
    fn wait_posted(&mut self, run: &Run, lane: usize, patience: Patience) -> bool {
        let mine = &self.control.lanes[lane];
        let (mut line, mut give_up, mut look_at) = (usize::MAX, 0, 0);
        loop {
            let finished = mine.finished.get();
            let Some(current) = self.control.current(lane) else { return true };
            if current != line {
                line = current;
                // A line that was found blocked before is not given as long again, each time that something waits for its lane.
                let look = match patience {
                    Patience::Short if self.reported.contains(&line) => LOOK_AGAIN,
                    _ => run.block_after,
                };
                let running = if self.running.contains(&line) { look } else { RUNNING_MAX };
                look_at = now() + look.as_nanos() as u64;
                give_up = now() + running.as_nanos() as u64;
            }
            let alone = lane < THREADS_MAX.into() && run.table.lock().all_rings.is_empty();
            let left = Duration::from_nanos(look_at.saturating_sub(now()));
            mine.finished.wait_while(finished, Some(if alone { left } else { left.min(POLL) }));
            self.serve_others(run);
            if now() < look_at || mine.finished.get() != finished {
                continue;
            }
            run.recorder.memory.progress();
            let over = || mine.finished.get() != finished;
            if let Some(look) = self.look_at(lane, over) {
                return self.found_blocked(run, line, look, patience);
            }
            if !over() && now() > give_up {
                self.running.insert(line);
                return self.found_blocked(run, line, Look::running(), patience);
            }
            look_at = now() + LOOK_AGAIN.as_nanos() as u64;
        }
    }

    fn look_at(&self, lane: usize, over: impl Fn() -> bool) -> Option<Look> {
        let mine = &self.control.lanes[lane];
        if mine.own_wait.load(Ordering::Acquire) != 0 {
            return None;
        }
        let (pid, tid) = (mine.pid.load(Ordering::Acquire), mine.tid.load(Ordering::Acquire));
        if mine.in_ring.load(Ordering::Acquire) != 0 {
            ring_standing(pid, over)
        } else {
            standing(pid, tid, over)
        }
    }

    /// A line that has not been issued stands behind another lane's call (a ring's lock): that one is reported, not this. With full
    /// patience it is told again: what held the line at first may be gone.
    fn found_blocked(&mut self, run: &Run, line: usize, look: Look, patience: Patience) -> bool {
        if self.control.stage(line) == stage::INVOKED
            && (self.reported.insert(line) || patience == Patience::Full)
        {
            run.recorder.blocked(line, look.state, look.wchan);
        }
        false
    }

    fn all_idle(&self, run: &Run) -> bool {
        (0..LANES).all(|lane| self.control.current(lane).is_none())
            && (0..LANES).all(|lane| self.requests(run, lane).is_empty())
    }

    /// Waits until nobody has anything to do any more. False if some are blocked, which is recorded.
    fn wait_all(&mut self, run: &Run, patience: Patience) -> bool {
        let mut idle = true;
        for lane in 0..LANES {
            idle &= self.wait_posted(run, lane, patience);
        }
        for lane in THREADS_MAX.into()..LANES {
            idle &= self.wait_requests(run, lane..lane + 1);
        }
        idle & self.wait_requests(run, 0..THREADS_MAX.into())
    }

    /// Brings the program to its End; false if only a kill will.
    fn finish(&mut self, run: &Arc<Run>) -> bool {
        let unfinished = |it: &Self| it.control.lines_at(stage::INVOKED).collect();
        let holds = run.program.lines.iter().any(|line| matches!(line.call, Call::Hold { .. }));
        let mut idle = self.wait_all(run, if holds { Patience::Full } else { Patience::Short });
        let mut blocked: BTreeSet<usize> = if idle { BTreeSet::new() } else { unfinished(self) };
        if self.control.any_held() {
            run.recorder.gates_released(run.recorder.moment());
            run.gates().release_all(self.control);
            idle = self.wait_all(run, Patience::Full);
            if !idle {
                blocked.append(&mut unfinished(self));
            }
        }
        self.control.ending.store(1, Ordering::Release);
        idle = self.end_children(run) && self.all_idle(run);
        if !idle {
            let pipes = self.close_pipes(run);
            idle = self.interrupt(run);
            idle &= self.within(run, |_| pipes.as_ref().is_none_or(JoinHandle::is_finished));
        }
        let helped = blocked.into_iter().filter(|line| self.control.stage(*line) == stage::OVER);
        let mut helped: BTreeSet<usize> = helped.chain(self.killed.iter().copied()).collect();
        let cut_off = self.control.cut_off.load(Ordering::Acquire);
        helped.extend((0..LINES_MAX).filter(|line| cut_off >> line & 1 != 0));
        let helped: Vec<usize> = helped.into_iter().collect();
        self.control.write_signals(&run.recorder);
        if idle {
            for ring in run.table.lock().all_rings.clone() {
                ring.skip_chains(&run.recorder);
            }
            self.leave(run);
            run.recorder.pins(|before| run.pinned_at_rest(before));
            run.recorder.end(&self.died, &helped);
        } else {
            let bits = helped.iter().fold(0, |bits, line| bits | 1 << line);
            self.control.helped.store(bits, Ordering::Release);
            self.control.outcome.store(outcome::KILL_ME, Ordering::Release);
        }
        idle
    }

    /// Removes what the program left open, and waits until the kernel has done with the rings that it closed.
    fn leave(&mut self, run: &Run) {
        let leaving = std::mem::take(&mut run.table.lock().leaving);
        self.within(run, |_| leaving.iter().all(Leaving::is_gone));
        run.table.clear();
    }

    /// Kills the children and waits a while for their end.
    fn end_children(&mut self, run: &Run) -> bool {
        let children = THREADS_MAX.into()..LANES;
        for lane in children.clone() {
            if let Some(child) =
                Pid::from_raw(self.control.lanes[lane].pid.load(Ordering::Acquire) as i32)
            {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        self.within(run, |it| {
            children.clone().filter(|lane| !it.reap_child(run, *lane)).count() == 0
        })
    }

    /// Closes the ends to write to, which ends readers; then drains for writers, and closes the ends to read from. A thread of its own does it: a
    /// splice has the pipe's lock while it waits for its file, uninterruptibly, and so has to wait whoever wants the pipe (fs/splice.c:iter_file_splice_write, 6.12).
    fn close_pipes(&mut self, run: &Arc<Run>) -> Option<JoinHandle<()>> {
        let over = Arc::new(AtomicBool::new(false));
        let (its_run, its_over) = (run.clone(), over.clone());
        let drain = move || {
            let pipes = its_run.table.lock().pipes();
            for pipe in &pipes {
                let _ = its_run.table.close(pipe.write.clone());
                let _ = rustix::fs::fcntl_setfl(&pipe.read, rustix::fs::OFlags::NONBLOCK);
            }
            let mut bytes = vec![0; 64 << 10];
            while !its_over.load(Ordering::Acquire) {
                for pipe in &pipes {
                    while rustix::io::read(&pipe.read, &mut bytes[..]).is_ok_and(|n| n > 0) {}
                }
                std::thread::sleep(POLL);
            }
            for pipe in pipes {
                let _ = its_run.table.close(pipe.read);
            }
        };
        let thread = std::thread::Builder::new().name("pipes".into()).stack_size(STACK);
        let thread = thread.spawn(drain).ok();
        self.within(run, |it| it.all_idle(run));
        over.store(true, Ordering::Release);
        thread
    }

    /// Interrupts the threads that are in a call.
    fn interrupt(&mut self, run: &Run) -> bool {
        self.within(run, |it| {
            for lane in 0..usize::from(THREADS_MAX) {
                if it.control.current(lane).is_some()
                    && let Some((pid, tid)) = it.control.lanes[lane].server()
                {
                    let _ = sys::signal_thread(pid, tid, INTERRUPT);
                }
            }
            std::thread::sleep(POLL);
            it.all_idle(run)
        })
    }

    /// Repeats `done` until it says so, for as long as helping may take.
    fn within(&mut self, run: &Run, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let until = now() + HELP_MAX.as_nanos() as u64;
        loop {
            if done(self) {
                return true;
            }
            if now() > until {
                return false;
            }
            self.serve_others(run);
            run.recorder.memory.progress();
            std::thread::sleep(POLL);
        }
    }
}
