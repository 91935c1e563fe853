//! What the threads of a campaign share, and how a program is drawn.

use crate::campaign::corpus::{self, Folder};
use crate::campaign::ledger::Ledger;
use crate::campaign::search::{Kernel, Search, Way};
use crate::campaign::state::Numbers;
use crate::campaign::{Config, End, Factory, Snapshot};
use crate::report::{Report, ReportError, SearchReport, Store};
use program::Program;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// A program that was drawn.
pub struct Drawn {
    /// Its number in the campaign.
    pub number: u64,
    /// What is run.
    pub program: Program,
    /// Where it came from.
    pub way: Way,
}

/// What the threads of a campaign share. Whoever takes several of its locks takes them in the order in which they stand here.
pub struct Shared {
    pub config: Config,
    pub factory: Box<Factory>,
    /// Set once: no program is drawn any more.
    pub stop: AtomicBool,
    /// When the first target was ready.
    pub ready: OnceLock<Instant>,
    /// How long the run had gone on before this process.
    pub earlier: f64,
    pub numbers: Mutex<Numbers>,
    pub search: Mutex<Search>,
    pub ledger: Mutex<Ledger>,
    pub store: Store,
    /// The first reason to end that a thread found.
    pub end: Mutex<Option<End>>,
}

/// What a mutex guards. A panic elsewhere cannot leave it half changed in a way that matters more than losing it all.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub fn search(&self) -> MutexGuard<'_, Search> {
        lock(&self.search)
    }

    pub fn numbers(&self) -> MutexGuard<'_, Numbers> {
        lock(&self.numbers)
    }

    pub fn end(&self, end: End) {
        lock(&self.end).get_or_insert(end);
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Why the campaign ends, in words; empty while nobody has said.
    pub fn ending(&self) -> String {
        lock(&self.end).as_ref().map_or(String::new(), End::words)
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn out_of_time(&self) -> bool {
        match (self.config.time, self.ready.get()) {
            (Some(time), Some(_)) => self.seconds() >= time.as_secs_f64(),
            _ => false,
        }
    }

    /// Time with a guest, of this process and those before it.
    pub fn seconds(&self) -> f64 {
        self.earlier + self.ready.get().map_or(0.0, |ready| ready.elapsed().as_secs_f64())
    }

    /// Draws the next program, for a guest with this kernel.
    pub fn draw(&self, kernel: Kernel) -> Option<Drawn> {
        if self.stopping() || self.out_of_time() {
            return None;
        }
        let number = {
            let mut numbers = self.numbers();
            let mut ledger = self.ledger();
            if self.config.programs.is_some_and(|max| ledger.totals.drawn >= max) {
                return None;
            }
            match numbers.draw() {
                Ok(number) => {
                    ledger.totals.drawn = ledger.totals.drawn.saturating_add(1);
                    number
                }
                Err(error) => {
                    drop((numbers, ledger));
                    self.end(End::Report(error));
                    return None;
                }
            }
        };
        let (program, way) = self.search().next(number, kernel);
        Some(Drawn { number, program, way })
    }

    /// Notes programs whose histories will not come.
    pub fn lose(&self, numbers: &[u64]) {
        let mut search = self.search();
        numbers.iter().for_each(|number| search.lost(*number));
        drop(search);
        self.ledger().lose(numbers.iter().copied());
    }

    /// Offers the search what is new in the folder of the corpus; returns a line about what is no program there.
    pub fn look_at_corpus(&self, folder: &mut Folder) -> Option<String> {
        let haul = folder.look(|name| self.search().knows(name));
        let mut search = self.search();
        for (file, program) in haul.programs {
            search.offer(&file, program);
        }
        haul.complaint
    }

    /// Saves what entered the corpus.
    pub fn save_program(&self, program: &Program, name: u64) -> Result<(), ReportError> {
        let dir = self.config.corpus.as_deref().filter(|_| self.config.guided);
        dir.map_or(Ok(()), |dir| corpus::save(dir, program, name))
    }

    pub fn snapshot(&self) -> Snapshot {
        let search = self.reach();
        let ready = self.ready.get().is_some();
        Snapshot { ready, search, ..self.ledger().snapshot(self.seconds()) }
    }

    pub fn report(&self, state: &str, trouble: bool) -> Report {
        let search = self.reach();
        self.ledger().report(&self.config, &self.store, self.seconds(), search, state, trouble)
    }

    fn reach(&self) -> SearchReport {
        let counts = self.search().counts();
        SearchReport {
            guided: self.config.guided,
            fuzz_target: self.config.fuzz_target.name.into(),
            sites: counts.sites,
            behaviour: counts.behaviour,
            unstable: counts.unstable,
            corpus: counts.corpus,
            triages: counts.triages,
            reruns: counts.reruns,
            waiting: counts.waiting,
        }
    }
}
