//! A campaign: programs from a search, run by workers, judged beside them, every find saved at once.
//!
//! ```text
//! search ─▶ worker 0: target ─▶ bounded queue ─▶ judge 0 ─┐
//!   ▲  ├──▶ worker 1: target ─▶ bounded queue ─▶ judge 1 ─┴▶ ledger ─▶ store
//!   └──┴─ features
//! ```
//! The thread that calls `run` watches: it tells the `Observer`, writes down where the campaign is and ends it. Does not know a terminal,
//! a command line or a kind of target.

mod corpus;
mod journal;
mod judge;
mod ledger;
mod progress;
mod reached;
mod saved;
pub mod search;
pub mod seeds;
mod shared;
mod state;
mod worker;

pub use ledger::Snapshot;
pub use saved::{ResumeError, Saved};

use crate::fuzz_target::FuzzTarget;
use crate::report::{Provenance, Report, ReportError};
use crate::target::{Target, TargetError, TargetInfo};
use corpus::Folder;
use journal::Journal;
use program::{Mount, Program};
use search::{Search, Settings};
use shared::Shared;
use state::Numbers;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the watching thread looks: often enough for a lively display, too rarely to cost anything.
const TICK: Duration = Duration::from_millis(100);
/// How often `report.json` is rewritten while the campaign runs.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often the folder of the corpus is looked at for what other campaigns found.
const CORPUS_EVERY: Duration = Duration::from_secs(60);
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
    /// The seed that every new program follows from.
    pub seed: u64,
    /// Home mounts; programs take turns.
    pub homes: Vec<Mount>,
    /// How long to run with a guest, in all processes that go on with the run together.
    pub time: Option<Duration>,
    /// How many programs to draw, in all processes.
    pub programs: Option<u64>,
    /// Whether results have a say in what runs next.
    pub guided: bool,
    /// What programs are about.
    pub fuzz_target: &'static FuzzTarget,
    /// Programs to begin with, and where they come from.
    pub seeds: Vec<(String, Program)>,
    /// The folder of the corpus, if it is to be kept.
    pub corpus: Option<PathBuf>,
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
    Found(String, PathBuf),
    /// A find or a program of the corpus could not be saved: what it is, and the program's text, which nobody else has.
    Unsaved(String, String),
    /// Something about the folder of the corpus.
    Corpus(String),
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

/// Runs a campaign until its time, its programs, the user (`interrupted`) or its machinery ends it.
///
/// If a batch does not end in time, its thread is left behind and its programs are counted as lost: the caller is expected to
/// leave the process soon.
pub fn run(
    config: Config,
    factory: Box<Factory>,
    saved: Saved,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, ReportError> {
    let mut search = Search::new(Settings {
        seed: config.seed,
        homes: config.homes.clone(),
        vocabulary: config.fuzz_target.vocabulary,
        guided: config.guided,
        first: saved.next,
    });
    search.remember(saved.reached);
    for (file, program) in &config.seeds {
        search.offer(file, program.clone());
    }
    let folder = match config.corpus.as_deref().filter(|_| config.guided) {
        Some(dir) => Some(Folder::open(dir)?),
        None => None,
    };
    let numbers = Numbers::new(saved.store.dir(), &config, saved.next)?;
    let shared = Arc::new(Shared {
        config,
        factory,
        stop: AtomicBool::new(false),
        ready: OnceLock::new(),
        earlier: saved.seconds,
        numbers: Mutex::new(numbers),
        search: Mutex::new(search),
        ledger: Mutex::new(saved.ledger),
        store: saved.store,
        end: Mutex::new(None),
    });
    let mut journal = Journal::new(saved.progress, saved.reached_lines, folder);
    journal.look_at_corpus(&shared, observer);
    journal.write(&shared, &shared.report("running", false))?;

    let (notes, inbox) = channel();
    let mut workers = Vec::new();
    let mut judges = Vec::new();
    for id in 0..shared.config.workers.len() {
        let (queue, done) = judge::queue();
        workers.push(spawn(&shared, &notes, id, move |s, n| worker::run(s, n, id, &queue)));
        judges.push(spawn(&shared, &notes, id, move |s, n| judge::run(s, n, id, &done)));
    }
    drop(notes);

    watch(&shared, &inbox, interrupted, observer, &workers, &mut journal);
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
    let mut last = shared.report(&end.words(), end.is_trouble());
    let written = shared.numbers().close().and_then(|()| journal.write(&shared, &last));
    if let Err(error) = written
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
    journal: &mut Journal,
) {
    let (mut written, mut looked) = (Instant::now(), Instant::now());
    loop {
        look(shared, inbox, observer);
        if interrupted.load(Ordering::SeqCst) {
            shared.end(End::Interrupted);
        } else if shared.out_of_time() {
            shared.end(End::Time);
        }
        if written.elapsed() >= REPORT_EVERY {
            written = Instant::now();
            if let Err(error) = journal.write(shared, &shared.report("running", false)) {
                shared.end(End::Report(error));
            }
        }
        if looked.elapsed() >= CORPUS_EVERY {
            looked = Instant::now();
            journal.look_at_corpus(shared, observer);
        }
        if shared.stopping() {
            observer.note(&Note::Ending(shared.ending()));
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
    observer.tick(&shared.snapshot());
}
