//! A worker: keeps one target alive and busy.
//!
//! Infrastructure trouble is answered by a new target after a pause, a limited number of times; it never reaches a verdict.

use crate::campaign::judge::Job;
use crate::campaign::{End, Note, Shared};
use crate::target::{Target, TargetError, TargetStats};
use program::Program;
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
    let mut earlier = TargetStats::default();
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
    loop {
        // Programs that are in the guest, with their numbers: histories may come back in any order.
        let running = std::cell::RefCell::new(Vec::<(u64, Program)>::new());
        let mut next = || {
            let (number, program) = shared.draw()?;
            running.borrow_mut().push((number, program.clone()));
            Some(program)
        };
        let info = target.info();
        let mut done = |done: crate::target::Done| {
            let mut running = running.borrow_mut();
            let at = running.iter().position(|(_, program)| *program == done.program);
            let number = at.map(|at| running.remove(at).0);
            // A judge that is gone has already ended the campaign with its reason.
            let _ = queue.send(Job { number, done, info: info.clone() });
        };
        let result = target.run_batch(&mut next, &mut done);
        let total = add(earlier, &target.stats());
        {
            let mut ledger = shared.ledger();
            ledger.targets[id].stats = total;
            ledger.lose(running.borrow().iter().map(|(number, _)| *number));
        }
        match result {
            Ok(false) => *failures = 0,
            Ok(true) => return Ok(()),
            Err(error) => {
                *earlier = total;
                return Err(error);
            }
        }
    }
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
