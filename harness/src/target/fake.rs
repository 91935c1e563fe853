//! An in-memory kernel that runs programs and yields the events that a real guest would, with bugs to plant.
//!
//! It is written from the kernel's rules and not from the checker's model, so that each tests the other. What it does not do: page
//! tables, huge pages, quotas, full media, signals to waiting calls, power cuts. Where a real kernel is free it takes one way, or draws it
//! from the seed; the honest fake never does what no kernel may do.
//!
//! Media outlive programs: freed blocks keep their bytes and are handed out again soonest, so stale bytes exist for real.

mod block;
mod buf;
mod bug;
mod copy;
mod exec;
mod files;
mod gate;
mod gup;
mod hold;
mod inode;
mod layout;
mod lease;
mod mapping;
mod memory;
mod pipe;
mod range;
mod rdma;
mod readback;
mod remote;
mod ring;
mod run;
mod rw;
mod sched;
mod world;

pub use bug::Bug;

use super::{Done, Target, TargetError, TargetInfo, TargetStats};
use checker::Regime;
use history::{Event, History};
use inode::Fs;
use program::{Mount, Program};
use readback::Seen;

/// What kind of fake kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeConfig {
    /// Draws the schedule of racing lanes: another seed, another order of steps.
    pub seed: u64,
    /// The one bug that is planted, if any.
    pub bug: Option<Bug>,
    /// What layout changes do about held pages of DAX files.
    pub regime: Regime,
    /// Programs between two unmounts. Each sees what the ones before it in the guest's life left on the media.
    pub batch: usize,
}

impl Default for FakeConfig {
    fn default() -> FakeConfig {
        // Four runs, as many as the smallest real media hold.
        FakeConfig { seed: 1, bug: None, regime: Regime::Mainline, batch: 4 }
    }
}

/// The fake target.
pub struct FakeTarget {
    config: FakeConfig,
    mounts: Vec<Fs>,
    run: u32,
    stats: TargetStats,
}

/// A run whose media have not been looked at.
struct Kept {
    program: Program,
    history: History,
    console: String,
    seen: Seen,
}

impl FakeTarget {
    /// A freshly booted fake.
    pub fn new(config: FakeConfig) -> FakeTarget {
        let stats = TargetStats { boots: 1, ..TargetStats::default() };
        FakeTarget { config, mounts: fresh(config.bug), run: 0, stats }
    }

    /// Runs a program up to its unmount; `None` with its history if the kernel went down.
    fn run(&mut self, program: &Program) -> (History, Option<Seen>) {
        self.run = self.run % history::stamp::RUN_MAX + 1;
        let mounts = std::mem::take(&mut self.mounts);
        let ran = run::run(mounts, &self.config, self.run, program);
        let (mut events, run) = (ran.events, self.run);
        self.stats.programs += 1;
        self.stats.calls += ran.calls;
        self.stats.kernel_ns += ran.clock;
        self.stats.busy_ns += ran.clock;
        if ran.down {
            self.mounts = fresh(self.config.bug);
            self.run = 0;
            self.stats.resets += 1;
            self.stats.resets_down += 1;
            return (History { run, events }, None);
        }
        self.mounts = ran.fs;
        let seen = readback::after_end(&mut self.mounts, run, &mut events);
        (History { run, events }, Some(seen))
    }

    /// Unmounts, looks at the media, mounts again, removes what the runs left, and hands the histories out.
    fn end_batch(&mut self, kept: Vec<Kept>, done: &mut dyn FnMut(Done)) {
        if kept.is_empty() {
            return;
        }
        readback::unmount(&mut self.mounts);
        self.stats.media_checks += 1;
        let runs: Vec<u32> = kept.iter().map(|k| k.history.run).collect();
        for Kept { program, mut history, console, seen } in kept {
            readback::after_unmount(&mut self.mounts, history.run, seen, &mut history.events);
            done(Done { program, history, console, reached: vec![] });
        }
        for run in runs {
            readback::remove(&mut self.mounts, run);
        }
        for fs in &mut self.mounts {
            // What a planted bug has left behind must not show in the next batch.
            fs.check();
        }
    }
}

fn fresh(bug: Option<Bug>) -> Vec<Fs> {
    Mount::ALL.into_iter().map(|mount| Fs::new(mount, bug)).collect()
}

fn console(events: &[Event]) -> String {
    let splats = events.iter().filter_map(|e| match e {
        Event::Console(splat) => Some(splat.text.as_str()),
        _ => None,
    });
    splats.collect()
}

impl Target for FakeTarget {
    fn info(&self) -> TargetInfo {
        let version = self.config.bug.map_or("honest", Bug::name);
        TargetInfo {
            release: "fake".into(),
            version: version.into(),
            kernel: "fake".into(),
            accel: "none".into(),
            mode: "exact".into(),
            image: "fake".into(),
            ..TargetInfo::default()
        }
    }

    fn stats(&self) -> TargetStats {
        self.stats
    }

    fn run_batch(
        &mut self,
        next: &mut dyn FnMut() -> Option<Program>,
        done: &mut dyn FnMut(Done),
    ) -> Result<bool, TargetError> {
        let mut kept = Vec::new();
        while kept.len() < self.config.batch.max(1) {
            let Some(program) = next() else {
                self.end_batch(kept, done);
                return Ok(true);
            };
            let (history, seen) = self.run(&program);
            let console = console(&history.events);
            match seen {
                Some(seen) => kept.push(Kept { program, history, console, seen }),
                None => {
                    // The guest is gone, and with it what earlier runs had on the media.
                    for Kept { program, history, console, .. } in kept.drain(..) {
                        done(Done { program, history, console, reached: vec![] });
                    }
                    done(Done { program, history, console, reached: vec![] });
                }
            }
        }
        self.end_batch(kept, done);
        Ok(false)
    }
}
