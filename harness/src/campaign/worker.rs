//! A worker: keeps one target alive and busy.
//!
//! Infrastructure trouble is answered by a new target after a pause, a limited number of times; it never reaches a verdict.

use crate::campaign::judge::Job;
use crate::campaign::search::{Cost, Kernel, Run};
use crate::campaign::shared::{Drawn, Shared};
use crate::campaign::{End, Note};
use crate::coverage;
use crate::target::{Done, Target, TargetError, TargetInfo, TargetStats};
use history::{Event, History};
use program::Program;
use std::cell::RefCell;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant};

/// Failures in a row, without a batch between them, after which a worker gives up: with the pauses below, half a minute.
const FAILURES_MAX: u32 = 5;
/// The first pause after a failure; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a pausing worker looks whether the campaign is over.
const PAUSE_LOOK: Duration = Duration::from_millis(100);

/// Runs until no program is left to draw.
pub fn run(shared: &Shared, notes: &Sender<Note>, id: usize, queue: &SyncSender<Job>) {
    let mut failures = 0;
    // A run that goes on has had targets before.
    let mut earlier = shared.ledger().targets[id].stats;
    while !shared.stopping() {
        let progress = |line: &str| {
            let _ = notes.send(Note::Progress(id, line.to_string()));
        };
        let error = match (shared.factory)(id, &progress) {
            Ok(mut target) => {
                ready(shared, notes, id, &*target);
                match batches(shared, id, &mut *target, queue, &mut earlier, &mut failures) {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            // A kernel that never came up will not come up next time; neither will missing packages appear.
            Err(error @ (TargetError::Boot { .. } | TargetError::Missing { .. }))
                if !shared.ledger().was_ready(id) =>
            {
                return shared.end(End::Target(error));
            }
            Err(error) => error,
        };
        failures += 1;
        if failures > FAILURES_MAX {
            return shared.end(End::Target(error));
        }
        shared.ledger().totals.retries += 1;
        let pause = PAUSE * (1 << (failures - 1));
        let _ = notes.send(Note::Retry(id, error.to_string(), pause));
        let until = Instant::now() + pause;
        while Instant::now() < until && !shared.stopping() && !shared.out_of_time() {
            std::thread::sleep(PAUSE_LOOK);
        }
    }
}

fn ready(shared: &Shared, notes: &Sender<Note>, id: usize, target: &dyn Target) {
    shared.ready.get_or_init(Instant::now);
    shared.ledger().ready(id, target.info());
    let _ = notes.send(Note::Ready(id, target.info()));
}

/// Runs batches on one target until the programs run out (`Ok`) or the target breaks.
fn batches(
    shared: &Shared,
    id: usize,
    target: &mut dyn Target,
    queue: &SyncSender<Job>,
    earlier: &mut TargetStats,
    failures: &mut u32,
) -> Result<(), TargetError> {
    let info = target.info();
    let kernel = shared.search().kernel(&kernel_name(&info));
    // Programs that the target has: histories may come back in any order, and after the next batch has begun.
    let running = RefCell::new(Vec::<Drawn>::new());
    loop {
        let mut next = || {
            let drawn = shared.draw(kernel)?;
            let program = drawn.program.clone();
            running.borrow_mut().push(drawn);
            Some(program)
        };
        let mut done = |done: Done| {
            let mut running = running.borrow_mut();
            let at = running.iter().position(|drawn| drawn.program == done.program);
            let drawn = at.map(|at| running.remove(at));
            let admitted = drawn.as_ref().and_then(|d| tell(shared, d.number, kernel, &done));
            let origin = drawn.map(|drawn| (drawn.number, drawn.way));
            // A judge that is gone has already ended the campaign with its reason.
            let _ = queue.send(Job { origin, done, info: info.clone(), admitted });
        };
        let result = target.run_batch(&mut next, &mut done);
        let total = add(earlier, &target.stats());
        shared.ledger().targets[id].stats = total;
        match result {
            Ok(false) => *failures = 0,
            ended => {
                let numbers: Vec<u64> = running.borrow().iter().map(|d| d.number).collect();
                shared.lose(&numbers);
                *earlier = total;
                return ended.map(drop);
            }
        }
    }
}

/// What tells kernels apart whose call sites differ.
fn kernel_name(info: &TargetInfo) -> String {
    format!("{} {}", info.release, info.version)
}

/// Tells the search what came of a run, at once: a judge may be many runs behind, and the next program is better for knowing.
fn tell(shared: &Shared, number: u64, kernel: Kernel, done: &Done) -> Option<(Program, u64)> {
    let features = coverage::features(done);
    let run = Run {
        features: &features,
        spoiled: spoiled(&done.history),
        cost: cost(&done.program, &done.history),
    };
    shared.search().done(number, kernel, &done.program, run)
}

/// Whether a guest has to be given up after such a run.
fn spoiled(history: &History) -> bool {
    history.events.iter().any(|event| match event {
        Event::Down(_) | Event::Console(_) => true,
        Event::End { stuck, .. } => !stuck.is_empty(),
        _ => false,
    })
}

/// What a run cost: its lines, and the time from its first event to its last.
fn cost(program: &Program, history: &History) -> Cost {
    let times = || {
        history.events.iter().filter_map(|event| match event {
            Event::Invoke { time_ns, .. } | Event::Return { time_ns, .. } => Some(*time_ns),
            _ => None,
        })
    };
    let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    Cost { lines: u32::try_from(program.lines.len()).unwrap_or(u32::MAX), ns: last - first }
}

/// The totals of a worker's earlier targets and its present one.
fn add(a: &TargetStats, b: &TargetStats) -> TargetStats {
    TargetStats {
        programs: a.programs + b.programs,
        calls: a.calls + b.calls,
        kernel_ns: a.kernel_ns + b.kernel_ns,
        busy_ns: a.busy_ns + b.busy_ns,
        resets: a.resets + b.resets,
        resets_down: a.resets_down + b.resets_down,
        boots: a.boots + b.boots,
        media_checks: a.media_checks + b.media_checks,
    }
}
