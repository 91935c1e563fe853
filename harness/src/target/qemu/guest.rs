//! A running guest: jobs go in, logs come out, and a watchdog tells when none will come any more.
//!
//! Does not know what a batch is, and judges nothing.

use super::super::TargetError;
use super::vm::{Death, Vm};
use crate::machine::infra;
use history::wire::{Job, Note, STATE_DONE};
use history::{Down, Event, reached};
use std::time::{Duration, Instant};

/// A guest whose agent shows no sign of life for this long is hung. The agent counts every call and every look at a waiting
/// one; under TCG on a busy host the slowest of these takes some 0.3 s.
const STILL: Duration = Duration::from_secs(10);
/// A job that is not done after this is hung even if the agent lives: programs end within a second of guest time, and the agent
/// gives up on stuck calls after some seconds more.
const JOB: Duration = Duration::from_secs(120);
/// Once a guest has been still for this long, time in which its threads waited for a processor does not count: a busy host is no hang.
const DOUBT: Duration = Duration::from_secs(1);
/// But this part of it does, so that a guest that spins on a busy host comes to an end.
const COUNTS_ANYWAY: u32 = 10;
/// Time between two looks counts no more than this towards both limits: when the host does not let us run, it does not let the guest
/// run either.
const LOOK: Duration = Duration::from_millis(50);
/// A job takes from some 2 ms (KVM) to 20 ms (TCG): looking this often costs 1 % of a CPU and delays nothing that matters.
const SHORTEST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_micros(300);
/// The console and the process are looked at less often than the ring.
const SLOW: Duration = Duration::from_millis(10);
/// What a hung kernel says about its tasks comes within this.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The agent finished it.
    Done(Vec<Note>),
    /// The guest went down; the log as far as it was written.
    Down(Down, Vec<Note>),
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// Its process.
    pub vm: Vm,
    /// Runs so far in its life; the next is numbered one higher. A stamp never holds 0.
    pub runs: u32,
    /// Batches so far.
    pub batches: u32,
}

impl Guest {
    /// A guest that was just restored.
    pub fn new(vm: Vm) -> Guest {
        Guest { vm, runs: 0, batches: 0 }
    }

    /// Waits until the oldest job in flight has ended, and gives its slot back.
    pub fn wait(&mut self) -> Result<Step, TargetError> {
        let mut watch = Watch::new(self.vm.shm.progress()?);
        let mut pause = SHORTEST;
        let mut slow = Instant::now();
        loop {
            if self.vm.shm.state()? == STATE_DONE {
                let notes = self.vm.shm.log()?;
                self.vm.shm.free()?;
                return Ok(Step::Done(notes));
            }
            let mut down = watch.look(self.vm.shm.progress()?, || self.vm.starved());
            if slow.elapsed() > SLOW {
                slow = Instant::now();
                self.vm.console.poll();
                if self.vm.console.is_flooded() {
                    down = Some(Down::Flood);
                } else if let Some(death) = self.vm.death()? {
                    // It may have finished the job before it died.
                    if self.vm.shm.state()? == STATE_DONE {
                        continue;
                    }
                    match death {
                        Death::Guest(how) => down = Some(how),
                        Death::Qemu(what) => return Err(infra(what)),
                    }
                } else if down.is_some() {
                    self.last_words();
                }
                if let Some(down) = down {
                    self.vm.console.poll();
                    return Ok(Step::Down(down, self.vm.shm.log()?));
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Submits a job and waits for it; no other may be in flight.
    pub fn run(&mut self, job: &Job) -> Result<Step, TargetError> {
        assert_eq!(self.vm.shm.in_flight(), 0, "another job is in flight");
        self.vm.shm.submit(job)?;
        self.wait()
    }

    /// Asks a hung kernel for the stacks of tasks that stand (SysRq w), for the report. It may be past answering.
    fn last_words(&mut self) {
        let asked = self.vm.press("alt-sysrq-w");
        let deadline = Instant::now() + LAST_WORDS;
        while asked.is_ok() && Instant::now() < deadline {
            self.vm.console.poll();
            std::thread::sleep(SLOW);
        }
    }
}

/// Counts the time in which nothing happened.
#[derive(Debug)]
struct Watch {
    progress: u64,
    still: Duration,
    whole: Duration,
    last: Instant,
    /// What had been waited for a processor at the last look, once that is asked.
    starved: Option<Duration>,
}

impl Watch {
    fn new(progress: u64) -> Watch {
        let (still, whole) = (Duration::ZERO, Duration::ZERO);
        Watch { progress, still, whole, last: Instant::now(), starved: None }
    }

    fn look(&mut self, progress: u64, starved: impl FnOnce() -> Duration) -> Option<Down> {
        if self.still > DOUBT && self.last.elapsed() < SLOW && progress == self.progress {
            return None;
        }
        let mut passed = self.last.elapsed().min(LOOK);
        self.last = Instant::now();
        if self.still > DOUBT {
            let now = starved();
            let waited =
                self.starved.replace(now).map_or(Duration::ZERO, |was| now.saturating_sub(was));
            passed = passed.saturating_sub(waited).max(passed / COUNTS_ANYWAY);
        }
        self.whole += passed;
        self.still += passed;
        if progress != self.progress {
            self.progress = progress;
            self.still = Duration::ZERO;
            self.starved = None;
        }
        (self.still > STILL || self.whole > JOB).then_some(Down::Hang)
    }
}

/// What the log of a run says.
#[derive(Debug, Default)]
pub struct Log {
    /// The events, in order.
    pub events: Vec<Event>,
    /// What kept the agent from its work.
    pub trouble: Option<String>,
    /// See `Done::reached`.
    pub reached: Vec<u32>,
}

/// Reads the log of a run.
pub fn read(notes: Vec<Note>) -> Result<Log, TargetError> {
    let mut log = Log::default();
    for note in notes {
        match note {
            Note::Event(event) => log.events.push(event),
            Note::Trouble(what) => log.trouble = Some(what),
            Note::Reached(bytes) => {
                log.reached = reached::decode(&bytes)
                    .ok_or_else(|| infra("the guest's coverage is malformed"))?;
            }
            Note::Run(_) | Note::Unmounted => {
                return Err(infra("the guest's log holds a note of another job"));
            }
        }
    }
    history::wire::sort_events(&mut log.events);
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_a_bit() {
        std::thread::sleep(SLOW + Duration::from_millis(1));
    }

    #[test]
    fn the_watchdog_counts_looks_and_not_the_hosts_delays() {
        let never = || Duration::ZERO;
        let mut watch = Watch::new(1);
        watch.last = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        assert_eq!(watch.look(1, never), None);
        assert!(watch.still <= LOOK);
        watch.still = STILL;
        wait_a_bit();
        assert_eq!(watch.look(1, never), Some(Down::Hang));
        assert_eq!(watch.look(2, never), None);
        assert_eq!(watch.still, Duration::ZERO);
        watch.whole = JOB;
        wait_a_bit();
        assert_eq!(watch.look(3, never), Some(Down::Hang));
    }

    #[test]
    fn a_starved_guest_is_given_more_time_but_not_for_ever() {
        let mut watch = Watch::new(1);
        watch.still = DOUBT * 2;
        wait_a_bit();
        assert_eq!(watch.look(1, || Duration::ZERO), None);
        watch.still = STILL - LOOK;
        let mut waited = Duration::ZERO;
        let mut looks = 0;
        loop {
            wait_a_bit();
            looks += 1;
            waited += Duration::from_secs(3600);
            if let Some(down) = watch.look(1, || waited) {
                assert_eq!(down, Down::Hang);
                break;
            }
        }
        // A look that came late counts for LOOK, of which a tenth is counted.
        assert!(looks > 9, "ended after {looks} looks");
    }
}
