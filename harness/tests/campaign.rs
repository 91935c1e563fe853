//! Campaigns on targets that misbehave: trouble with machinery is survived or told, and never looks like a finding.
//!
//! The targets here are doubles of a few lines; what a kernel does is not their matter.

use harness::campaign::{self, Config, End, Note, Observer, Outcome, Saved, Snapshot};
use harness::fuzz_target::FuzzTarget;
use harness::report::Provenance;
use harness::target::{Done, Target, TargetError, TargetInfo, TargetStats};
use history::History;
use program::{Mount, Program};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Programs a batch of the doubles.
const BATCH: usize = 10;

type Next<'a> = &'a mut dyn FnMut() -> Option<Program>;
type Deliver<'a> = &'a mut dyn FnMut(Done);
type Batch = dyn FnMut(Next<'_>, Deliver<'_>) -> Result<bool, TargetError> + Send;

/// A target whose batches are a closure.
struct Double(Box<Batch>);

impl Target for Double {
    fn info(&self) -> TargetInfo {
        TargetInfo { release: "6.12.0-double".into(), ..TargetInfo::default() }
    }

    fn stats(&self) -> TargetStats {
        TargetStats { resets: 1, ..TargetStats::default() }
    }

    fn run_batch(&mut self, next: Next<'_>, done: Deliver<'_>) -> Result<bool, TargetError> {
        (self.0)(next, done)
    }
}

/// A batch that says nothing about any program.
fn silent(next: Next<'_>, done: Deliver<'_>) -> Result<bool, TargetError> {
    for _ in 0..BATCH {
        let Some(program) = next() else { return Ok(true) };
        let history = History { run: 1, events: Vec::new() };
        done(Done { program, history, console: String::new(), reached: vec![] });
    }
    Ok(false)
}

/// Remembers the notes.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, note: &Note) {
        self.0.push(format!("{note:?}"));
    }

    fn tick(&mut self, _: &Snapshot) {}
}

fn config(programs: u64, workers: usize) -> Config {
    Config {
        seed: 1,
        homes: vec![Mount::Ext4],
        time: None,
        programs: Some(programs),
        guided: true,
        fuzz_target: FuzzTarget::named("mixed").unwrap(),
        seeds: Vec::new(),
        corpus: None,
        workers: vec![Provenance::default(); workers],
    }
}

fn run(
    config: Config,
    interrupted: &AtomicBool,
    make: impl Fn(usize) -> Result<Double, TargetError> + Send + Sync + 'static,
) -> (Outcome, Notes) {
    let reports = tempfile::tempdir().unwrap();
    let mut notes = Notes::default();
    let factory = Box::new(move |worker: usize, progress: &(dyn Fn(&str) + Sync)| {
        progress("making a double");
        make(worker).map(|double| Box::new(double) as Box<dyn Target>)
    });
    let saved = Saved::create(reports.path(), &config).unwrap();
    let outcome = campaign::run(config, factory, saved, interrupted, &mut notes).unwrap();
    (outcome, notes)
}

#[test]
fn workers_share_the_programs_of_the_seed() {
    let (outcome, _) =
        run(config(95, 3), &AtomicBool::new(false), |_| Ok(Double(Box::new(silent))));
    let totals = &outcome.report.totals;
    assert!(matches!(outcome.end, End::Programs));
    assert_eq!((totals.drawn, totals.judged, totals.lost), (95, 95, 0));
    let judged: u64 = outcome.report.targets.iter().map(|target| target.judged).sum();
    assert_eq!(judged, 95);
}

#[test]
fn a_target_that_breaks_is_replaced_and_its_programs_are_lost() {
    let made = AtomicU32::new(0);
    let (outcome, notes) = run(config(50, 1), &AtomicBool::new(false), move |_| {
        let first = made.fetch_add(1, Ordering::SeqCst) == 0;
        Ok(Double(Box::new(move |next, done| {
            if !first {
                return silent(next, done);
            }
            for _ in 0..3 {
                let _ = next();
            }
            Err(TargetError::Infra("the socket was closed".into()))
        })))
    });
    let report = &outcome.report;
    assert!(matches!(outcome.end, End::Programs), "{:?}", outcome.end);
    assert_eq!((report.totals.judged, report.totals.lost, report.totals.retries), (47, 3, 1));
    assert_eq!(report.lost, [0, 1, 2]);
    assert_eq!(report.totals.anomalous, 0);
    assert_eq!(report.targets[0].stats.resets, 2, "both targets count");
    assert!(notes.0.iter().any(|note| note.contains("the socket was closed")), "{:?}", notes.0);
}

#[test]
fn a_kernel_that_never_boots_is_told_at_once() {
    let begun = Instant::now();
    let (outcome, _) = run(config(50, 1), &AtomicBool::new(false), |_| {
        Err(TargetError::Boot { kernel: "mine".into(), what: "silence".into() })
    });
    assert!(matches!(outcome.end, End::Target(TargetError::Boot { .. })), "{:?}", outcome.end);
    assert!(outcome.report.trouble);
    assert_eq!(outcome.report.totals.judged, 0);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_target_that_panics_is_a_bug_of_ours() {
    let (outcome, _) = run(config(50, 1), &AtomicBool::new(false), |_| {
        Ok(Double(Box::new(|_, _| panic!("an invariant"))))
    });
    assert!(matches!(&outcome.end, End::Internal(what) if what.contains("an invariant")));
}

#[test]
fn an_impatient_user_does_not_wait_for_a_batch_that_is_stuck() {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let begun = Instant::now();
    let (outcome, _) = run(config(50, 1), &interrupted, move |_| {
        let flag = Arc::clone(&flag);
        Ok(Double(Box::new(move |next, done| {
            let program = next().expect("the first program");
            let history = History { run: 1, events: Vec::new() };
            done(Done { program, history, console: String::new(), reached: vec![] });
            let _ = next();
            flag.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(60));
            Ok(true)
        })))
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(outcome.end, End::Interrupted));
    let totals = &outcome.report.totals;
    assert_eq!((totals.drawn, totals.judged, totals.lost), (2, 1, 1), "what came is judged");
}
