//! PID 1: sets the guest up, hands jobs to the runner, and replaces a runner that died or must be killed.
//!
//! It touches no file of any program itself, so whatever blocks there blocks the runner. It never exits.

use crate::control::{Control, command, outcome, stage};
use crate::look::is_dead;
use crate::record::{Recorder, learn_pid};
use crate::run::Environment;
use crate::runner::Runner;
use crate::{mounts::Mounts, setup, sys};
use history::SkipReason;
use history::memory::Memory;
use history::wire::{
    AGENT_FAILED, AGENT_READY, Job, SLOTS, STATE_DONE, STATE_READY, STATE_RUNNING, header, slot,
    slot_offset,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause between looks at an empty ring.
const IDLE: Duration = Duration::from_micros(200);
/// Pause between looks at a runner at work.
const WATCH: Duration = Duration::from_millis(20);
/// A runner that shows no progress for this long is killed; the host's watchdog is usually faster.
const STALL: Duration = Duration::from_secs(60);
/// How long a killed runner may take to die. A thread in an uninterruptible wait never does.
const DEATH: Duration = Duration::from_secs(1);

/// PID 1 at work.
pub(crate) struct Supervisor {
    pub(crate) control: &'static Control,
    pub(crate) memory: Memory<'static>,
    environment: Arc<Environment>,
    mounts: Mounts,
    pub(crate) runner: Pid,
}

/// Runs the guest. Does not return.
pub fn main() -> ! {
    learn_pid();
    let memory = setup::pseudo_file_systems()
        .and_then(|()| setup::load_modules(&read("/modules.list")))
        .and_then(|()| setup::host_memory());
    let memory = match memory {
        Ok(memory) => memory,
        // Without the host's memory the console is all there is; modules may have brought it, or not.
        Err(error) => match setup::host_memory() {
            Ok(memory) => fail(Some(memory), &error),
            Err(_) => fail(None, &error),
        },
    };
    let supervisor = Supervisor::new(memory).unwrap_or_else(|error| fail(Some(memory), &error));
    memory.word(header::AGENT).store(AGENT_READY, Ordering::Release);
    supervisor.serve()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Says why and idles for ever.
fn fail(memory: Option<Memory<'static>>, error: &str) -> ! {
    let _ = std::fs::write("/dev/kmsg", format!("<3>pinfuzz: agent: {error}\n"));
    if let Some(memory) = memory {
        memory.put_text(header::ERROR, error);
        memory.word(header::AGENT).store(AGENT_FAILED, Ordering::Release);
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

impl Supervisor {
    fn new(memory: Memory<'static>) -> Result<Supervisor, String> {
        let (mounts, hello) = setup::mounts(&read("/mounts.list"))?;
        memory.put_text(header::HELLO, &serde_json::to_string(&hello).map_err(|e| e.to_string())?);
        Supervisor::with(memory, setup::environment(hello)?, mounts)
    }

    /// With a first runner.
    pub(crate) fn with(
        memory: Memory<'static>,
        environment: Arc<Environment>,
        mounts: Mounts,
    ) -> Result<Supervisor, String> {
        let control = sys::shared().map_err(|e| format!("control page: {e}"))?;
        let runner = spawn(control, memory, &environment, &mounts)?;
        Ok(Supervisor { control, memory, environment, mounts, runner })
    }

    /// Takes slots in ring order, for ever.
    fn serve(mut self) -> ! {
        for slot in (0..SLOTS).cycle() {
            let state = self.memory.state(slot);
            while state.load(Ordering::Acquire) != STATE_READY {
                std::thread::sleep(IDLE);
            }
            self.memory.word(slot_offset(slot) + slot::LOG_LEN).store(0, Ordering::Relaxed);
            state.store(STATE_RUNNING, Ordering::Release);
            self.job(slot);
            state.store(STATE_DONE, Ordering::Release);
        }
        unreachable!("a cycle has no end")
    }

    /// Has the job of a slot done, whatever becomes of the runner.
    pub(crate) fn job(&mut self, slot: u64) {
        if self.ask(slot, command::JOB) {
            return;
        }
        let record = match self.memory.job(slot) {
            Ok(Job::Run { options, .. }) => options.record,
            _ => true,
        };
        let recorder = Recorder::new(self.control, self.memory, slot, record);
        let asked_for = self.control.outcome.load(Ordering::Acquire) == outcome::KILL_ME;
        let in_program = self.control.in_program.load(Ordering::Acquire) != 0;
        let released = (in_program && self.control.any_held()).then(|| recorder.moment());
        let status = self.kill();
        recorder.forget(self.runner.as_raw_nonzero().get() as u32);
        if let Some(moment) = released {
            recorder.gates_released(moment);
        }
        if !asked_for {
            recorder.trouble(match status {
                Some(status) => format!("the runner died: wait status {status:#x}"),
                None => "the runner stalled".into(),
            });
        }
        let mut finish = false;
        if in_program {
            finish = self.end(&recorder, status.is_some());
        } else if !asked_for && status.is_none() {
            recorder.trouble("the runner cannot be killed");
        }
        match spawn(self.control, self.memory, &self.environment, &self.mounts) {
            Ok(runner) => self.runner = runner,
            Err(error) => fail(Some(self.memory), &error),
        }
        if finish && !self.ask(slot, command::FINISH) {
            recorder.trouble("the runner died while it read back");
            self.kill();
            recorder.forget(self.runner.as_raw_nonzero().get() as u32);
            match spawn(self.control, self.memory, &self.environment, &self.mounts) {
                Ok(runner) => self.runner = runner,
                Err(error) => fail(Some(self.memory), &error),
            }
        }
    }

    /// Asks the runner and waits. False: it has died, stalls, or asks to be killed.
    fn ask(&self, slot: u64, what: u32) -> bool {
        let seen = self.control.answered.get();
        self.control.slot.store(slot as u32, Ordering::Release);
        self.control.command.store(what, Ordering::Release);
        self.control.outcome.store(outcome::DONE, Ordering::Release);
        self.control.asked.bump();
        let (mut progress, mut moved) = (0, Instant::now());
        while self.control.answered.get() == seen {
            self.control.answered.wait_while(seen, Some(WATCH));
            if self.control.answered.get() == seen && is_dead(self.runner) {
                return false;
            }
            let now = self.memory.load_u64(header::PROGRESS);
            if now != progress {
                (progress, moved) = (now, Instant::now());
            } else if moved.elapsed() > STALL {
                return false;
            }
        }
        self.control.outcome.load(Ordering::Acquire) == outcome::DONE
    }

    /// Kills the runner and reaps all who died. The wait status, or nothing if it does not die. Gates are released first: nobody dies who
    /// waits for I/O that is held.
    fn kill(&self) -> Option<i32> {
        self.environment.gates.release_all(self.control);
        let _ = kill_process(self.runner, Signal::KILL);
        let until = Instant::now() + DEATH;
        while Instant::now() < until {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if pid == self.runner {
                    return Some(status.as_raw());
                }
            }
            self.memory.progress();
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Records the End in the dead runner's place. Returns whether files can be read back: nobody stands in a call for ever.
    fn end(&self, recorder: &Recorder, dead: bool) -> bool {
        let lines = match self.control.lines_at(stage::INVOKED).collect::<Vec<_>>() {
            lines if dead => (vec![], lines),
            lines => (lines, vec![]),
        };
        let (stuck, mut helped) = lines;
        let bits = self.control.helped.load(Ordering::Acquire);
        helped.extend((0..64).filter(|line| bits >> line & 1 != 0 && !stuck.contains(line)));
        helped.sort_unstable();
        helped.dedup();
        self.control.write_signals(recorder);
        for line in self.control.lines_at(stage::QUEUED) {
            recorder.skipped(line, SkipReason::LaneStuck);
        }
        if stuck.is_empty() {
            recorder.pins(|before| self.environment.pinned_at_rest(before));
        }
        recorder.end(&stuck, &helped);
        stuck.is_empty()
    }
}

/// `fork()` — A fresh runner.
fn spawn(
    control: &'static Control,
    memory: Memory<'static>,
    environment: &Arc<Environment>,
    mounts: &Mounts,
) -> Result<Pid, String> {
    use std::os::fd::AsRawFd;
    // What was asked before is not for the new one.
    control.answered.set(control.asked.get());
    match sys::fork() {
        Ok(0) => {
            sys::die_with_parent();
            // A signal to the group of a program's processes is not for PID 1.
            let _ = rustix::process::setpgid(None, None);
            sys::notice::install(control);
            sys::fault::install(environment.kmsg.as_ref().map_or(2, AsRawFd::as_raw_fd));
            let kmsg = environment.clone();
            std::panic::set_hook(Box::new(move |panic| {
                if let Some(file) = &kmsg.kmsg {
                    let _ =
                        rustix::io::write(file, format!("<3>pinfuzz: agent: {panic}\n").as_bytes());
                }
                sys::exit(99)
            }));
            match Runner::new(control, memory, environment.clone(), mounts.clone()) {
                Ok(runner) => runner.serve(),
                Err(_) => sys::exit(97),
            }
        }
        Ok(pid) => Pid::from_raw(pid as i32).ok_or_else(|| "fork returned no process".into()),
        Err(error) => Err(format!("fork: errno {}", error.0)),
    }
}
