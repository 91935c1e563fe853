//! A campaign: programs from a seed, run by workers, judged beside them, every find saved at once.
//!
//! ```text
//! seed ─▶ worker 0: target ─▶ bounded queue ─▶ judge 0 ─┐
//!         worker 1: target ─▶ bounded queue ─▶ judge 1 ─┴▶ ledger ─▶ store
//! ```
//! The thread that calls `run` watches: it tells the `Observer`, rewrites the report and ends the campaign. Does not know a terminal,
//! a command line or a kind of target.

mod judge;
mod ledger;
pub mod seeds;
mod worker;

pub use ledger::Snapshot;

use crate::report::{Provenance, Report, ReportError, Store};
use crate::target::{Target, TargetError, TargetInfo};
use ledger::Ledger;
use program::Mount;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How often the watching thread looks: often enough for a lively display, too rarely to cost anything.
const TICK: Duration = Duration::from_millis(100);
/// How often `report.json` is rewritten while the campaign runs.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long a batch may take to end once it was interrupted by the user, who is waiting.
const GRACE_INTERRUPTED: Duration = Duration::from_millis(1500);
/// How long a batch may take to end when its time is over: it still unmounts, runs fsck, mounts and reads back (some seconds
/// under TCG), and a hang on the way is noticed only by a watchdog.
const GRACE_TIME: Duration = Duration::from_secs(90);
/// How long the judges may take for what is in their queues, once no worker is left: thousands of times what a queue needs.
const GRACE_JUDGES: Duration = Duration::from_secs(30);

/// What a campaign is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed that every program follows from.
    pub seed: u64,
    /// Home mounts; programs take turns.
    pub homes: Vec<Mount>,
    /// How long to run once the first guest is ready.
    pub time: Option<Duration>,
    /// How many programs to draw.
    pub programs: Option<u64>,
    /// How each worker's target is made, one entry a worker.
    pub workers: Vec<Provenance>,
}

/// Makes the target of a worker; told again after the target broke. The last argument takes lines of progress.
pub type Factory =
    dyn Fn(usize, &(dyn Fn(&str) + Sync)) -> Result<Box<dyn Target>, TargetError> + Send + Sync;

/// Something worth a line.
#[derive(Clone, Debug)]
pub enum Note {
    /// What a worker is doing to get its target ready.
    Progress(usize, String),
    /// A worker's target is ready.
    Ready(usize, TargetInfo),
    /// A target broke and is started again after a pause.
    Retry(usize, String, Duration),
    /// A find was saved; the text is its headline and its folder.
    Found(String, std::path::PathBuf),
    /// The campaign is ending, for this reason, and waits for the batches at hand.
    Ending(String),
}

/// Whoever shows a campaign to a person.
pub trait Observer {
    /// Something happened.
    fn note(&mut self, note: &Note);
    /// Time has passed.
    fn tick(&mut self, snapshot: &Snapshot);
}

/// Why a campaign ended.
#[derive(Debug)]
pub enum End {
    /// The time was over.
    Time,
    /// All programs were drawn.
    Programs,
    /// The user interrupted it.
    Interrupted,
    /// A target failed for good.
    Target(TargetError),
    /// A report could not be written.
    Report(ReportError),
    /// An invariant of ours broke.
    Internal(String),
}

impl End {
    fn words(&self) -> String {
        match self {
            End::Time => "the time is over".into(),
            End::Programs => "all programs were run".into(),
            End::Interrupted => "interrupted".into(),
            End::Target(error) => format!("the target failed: {error}"),
            End::Report(error) => error.to_string(),
            End::Internal(what) => format!("a bug of pinfuzz: {what}"),
        }
    }

    fn is_trouble(&self) -> bool {
        matches!(self, End::Target(_) | End::Report(_) | End::Internal(_))
    }
}

/// A campaign that is over.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// Everything that was counted.
    pub report: Report,
}

/// What the threads of a campaign share.
struct Shared {
    config: Config,
    factory: Box<Factory>,
    /// The number of the next program.
    next: AtomicU64,
    /// Set once: no program is drawn any more.
    stop: AtomicBool,
    /// When the first target was ready.
    ready: OnceLock<Instant>,
    ledger: Mutex<Ledger>,
    store: Store,
    /// The first reason to end that a thread found.
    end: Mutex<Option<End>>,
}

impl Shared {
    /// The ledger. A panic elsewhere cannot leave it half changed in a way that matters more than losing it all.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        self.stop.store(true, Ordering::SeqCst);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn out_of_time(&self) -> bool {
        match (self.config.time, self.ready.get()) {
            (Some(time), Some(ready)) => ready.elapsed() >= time,
            _ => false,
        }
    }

    /// Draws the next program and its number.
    fn draw(&self) -> Option<(u64, program::Program)> {
        if self.stopping() || self.out_of_time() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if self.config.programs.is_some_and(|max| number >= max) {
            return None;
        }
        self.ledger().totals.drawn += 1;
        Some((number, seeds::program(self.config.seed, number, &self.config.homes)))
    }

    fn seconds(&self) -> f64 {
        self.ready.get().map_or(0.0, |ready| ready.elapsed().as_secs_f64())
    }
}

/// Runs a campaign until its time, its programs, the user (`interrupted`) or its machinery ends it.
///
/// If a batch does not end in time, its thread is left behind and its programs are counted as lost: the caller is expected to
/// leave the process soon.
pub fn run(
    config: Config,
    factory: Box<Factory>,
    reports: &std::path::Path,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, ReportError> {
    let now = SystemTime::now();
    let store = Store::create(reports, config.seed, now)?;
    let ledger = Ledger::new(now, config.workers.len());
    let shared = Arc::new(Shared {
        config,
        factory,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        ready: OnceLock::new(),
        ledger: Mutex::new(ledger),
        store,
        end: Mutex::new(None),
    });
    shared.store.write(&report(&shared, "running", false))?;

    let (notes, inbox) = channel();
    let mut workers = Vec::new();
    let mut judges = Vec::new();
    for id in 0..shared.config.workers.len() {
        let (queue, done) = judge::queue();
        workers.push(spawn(&shared, &notes, id, move |s, n| worker::run(s, n, id, &queue)));
        judges.push(spawn(&shared, &notes, id, move |s, n| judge::run(s, n, id, &done)));
    }
    drop(notes);

    watch(&shared, &inbox, interrupted, observer, &workers);
    let interrupted_now = interrupted.load(Ordering::SeqCst);
    let grace = if interrupted_now { GRACE_INTERRUPTED } else { GRACE_TIME };
    let ended = wait(&shared, &inbox, observer, &workers, grace, interrupted);
    // A worker that was left behind keeps its judge's queue open: then the queue is emptied as far as possible.
    let grace = if ended { GRACE_JUDGES } else { Duration::from_millis(300) };
    wait(&shared, &inbox, observer, &judges, grace, &AtomicBool::new(false));

    let end = shared.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut end = end.unwrap_or(End::Programs);
    {
        let mut ledger = shared.ledger();
        ledger.totals.lost = ledger.totals.drawn.saturating_sub(ledger.totals.judged);
    }
    let mut last = report(&shared, &end.words(), end.is_trouble());
    if let Err(error) = shared.store.write(&last)
        && !end.is_trouble()
    {
        last.state = error.to_string();
        last.trouble = true;
        end = End::Report(error);
    }
    Ok(Outcome { end, report: last })
}

/// Starts a thread of the campaign; if it panics, the campaign ends with that.
fn spawn(
    shared: &Arc<Shared>,
    notes: &Sender<Note>,
    id: usize,
    work: impl FnOnce(&Shared, &Sender<Note>) + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let notes = notes.clone();
    std::thread::spawn(move || {
        let work = std::panic::AssertUnwindSafe(|| work(&shared, &notes));
        if let Err(panic) = std::panic::catch_unwind(work) {
            shared.end(End::Internal(format!("worker {id} panicked: {}", words(&*panic))));
        }
    })
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Watches until there is a reason to end.
fn watch(
    shared: &Shared,
    inbox: &Receiver<Note>,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
    workers: &[JoinHandle<()>],
) {
    let mut written = Instant::now();
    loop {
        look(shared, inbox, observer);
        if interrupted.load(Ordering::SeqCst) {
            shared.end(End::Interrupted);
        } else if shared.out_of_time() {
            shared.end(End::Time);
        }
        if written.elapsed() >= REPORT_EVERY {
            written = Instant::now();
            if let Err(error) = shared.store.write(&report(shared, "running", false)) {
                shared.end(End::Report(error));
            }
        }
        if shared.stopping() {
            let end = shared.end.lock().unwrap_or_else(PoisonError::into_inner);
            let words = end.as_ref().map_or(String::new(), End::words);
            drop(end);
            observer.note(&Note::Ending(words));
            return;
        }
        if workers.iter().all(JoinHandle::is_finished) {
            return;
        }
        std::thread::sleep(TICK);
    }
}

/// Waits for threads to end, shorter if the user loses patience; returns whether all did.
fn wait(
    shared: &Shared,
    inbox: &Receiver<Note>,
    observer: &mut dyn Observer,
    threads: &[JoinHandle<()>],
    grace: Duration,
    interrupted: &AtomicBool,
) -> bool {
    let mut deadline = Instant::now() + grace;
    let mut hurried = false;
    while !threads.iter().all(JoinHandle::is_finished) {
        if !hurried && interrupted.load(Ordering::SeqCst) {
            hurried = true;
            deadline = deadline.min(Instant::now() + GRACE_INTERRUPTED);
        }
        if Instant::now() >= deadline {
            return false;
        }
        look(shared, inbox, observer);
        std::thread::sleep(TICK / 10);
    }
    look(shared, inbox, observer);
    true
}

fn look(shared: &Shared, inbox: &Receiver<Note>, observer: &mut dyn Observer) {
    for note in inbox.try_iter() {
        observer.note(&note);
    }
    let snapshot = shared.ledger().snapshot(shared.seconds());
    observer.tick(&snapshot);
}

fn report(shared: &Shared, state: &str, trouble: bool) -> Report {
    shared.ledger().report(&shared.config, &shared.store, shared.seconds(), state, trouble)
}
