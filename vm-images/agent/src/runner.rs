//! The runner: the process that runs programs for PID 1, one job after the other, until it dies or must be killed.
//!
//! It is forked off PID 1, so that a program's worst deeds hit a process that can be replaced.

use crate::conductor::Conductor;
use crate::control::{Control, command, outcome};
use crate::mounts::Mounts;
use crate::readback::Reader;
use crate::record::{Recorder, learn_pid, now};
use crate::run::{Environment, Place, Run, gates_of, mounts_of};
use crate::sys::{Pool, notice};
use history::memory::Memory;
use history::wire::{Job, Note, RunOptions, header};
use program::{Lease, Mount, Program};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seconds that the kernel waits for the answer to the break of a lease, unless a program says otherwise: its own default.
const LEASE_BREAK_TIME: u8 = 45;

/// The runner's belongings.
pub struct Runner {
    control: &'static Control,
    memory: Memory<'static>,
    environment: Arc<Environment>,
    mounts: Mounts,
    conductor: Conductor,
    reader: Reader,
    pool: Pool,
}

impl Runner {
    /// Starts the lanes.
    pub fn new(
        control: &'static Control,
        memory: Memory<'static>,
        environment: Arc<Environment>,
        mounts: Mounts,
    ) -> std::io::Result<Runner> {
        learn_pid();
        environment.gates.serve_memory(control)?;
        let conductor = Conductor::new(control)?;
        let (reader, pool) = (Reader::default(), Pool::default());
        Ok(Runner { control, memory, environment, mounts, conductor, reader, pool })
    }

    /// Serves commands for ever.
    pub fn serve(mut self) -> ! {
        let mut seen = self.control.answered.get();
        loop {
            self.control.asked.wait_while(seen, None);
            if self.control.asked.get() == seen {
                continue;
            }
            seen = self.control.asked.get();
            self.control.outcome.store(outcome::DONE, Ordering::Release);
            let slot = self.control.slot.load(Ordering::Acquire).into();
            let began = now();
            self.job(slot, self.control.command.load(Ordering::Acquire) == command::FINISH);
            let memory = self.memory;
            memory.store_u64(
                header::BUSY_NS,
                memory.load_u64(header::BUSY_NS) + now().saturating_sub(began),
            );
            memory.store_u64(header::KERNEL_NS, self.control.kernel_ns.load(Ordering::Relaxed));
            memory.store_u64(header::CALLS, self.control.calls.load(Ordering::Relaxed));
            self.control.answered.bump();
        }
    }

    /// Does the job of a slot, or what is left of it.
    fn job(&mut self, slot: u64, finish_only: bool) {
        let recorder = Recorder::new(self.control, self.memory, slot, true);
        match self.memory.job(slot) {
            Err(error) => recorder.trouble(format!("the job is malformed: {}", error.what)),
            Ok(Job::Run { run, program, options }) if finish_only => {
                let recorder = recorder.recording(options.record);
                self.finish(recorder, run, &program, options);
            }
            Ok(Job::Run { run, program, options }) => {
                let recorder = recorder.recording(options.record);
                self.run(recorder, run, program, options);
            }
            Ok(Job::Unmount) => match self.mounts.unmount_all() {
                Ok(()) => recorder.note(&Note::Unmounted),
                Err(error) => recorder.trouble(error),
            },
            Ok(Job::Mount { kept }) => self.mount(&recorder, &kept),
        }
    }

    /// Runs a program in this process. Public for tests, which have no PID 1.
    pub fn run(&mut self, recorder: Recorder, number: u32, program: Program, options: RunOptions) {
        self.environment.announce(number);
        for gate in gates_of(&program) {
            if let Err(error) = self.environment.gates.reset(gate, number, &mut self.pool) {
                return recorder.trouble(format!("no content for {gate}: errno {}", error.0));
            }
        }
        let pinned = if program.may_pin() { self.environment.pinned() } else { None };
        self.control.pins_watched.store(pinned.is_some().into(), Ordering::Release);
        self.control.pins_before.store(pinned.unwrap_or(0), Ordering::Release);
        self.environment.gates.reset_memory();
        if let Some(reached) = self.environment.reached {
            reached.begin(options.cover);
        }
        self.control.reset();
        notice::answer_with(Lease::Layout);
        if self.control.break_time_set.swap(0, Ordering::AcqRel) != 0
            && let Some(Err(error)) = self.environment.set_lease_break_time(LEASE_BREAK_TIME)
        {
            return recorder.trouble(format!("lease-break-time: {error}"));
        }
        self.control.in_program.store(1, Ordering::Release);
        let run =
            match Run::new(&self.environment, number, program, recorder, options.block_after_ms) {
                Ok(run) => Arc::new(run),
                Err(error) => {
                    self.control.in_program.store(0, Ordering::Release);
                    return recorder.trouble(format!("no directories for run {number}: {error}"));
                }
            };
        if !self.conductor.conduct(&run) {
            // The outcome asks PID 1 for the rest.
            return;
        }
        self.finish(recorder, number, &run.program, options);
    }

    /// Reads back and removes.
    fn finish(&mut self, recorder: Recorder, number: u32, program: &Program, options: RunOptions) {
        let places =
            mounts_of(program).into_iter().map(|m| Place::existing(&self.environment, m, number));
        let places = places.collect::<Result<Vec<Place>, _>>();
        let read = places.and_then(|places| {
            let refs: Vec<&Place> = places.iter().collect();
            self.reader.read(&self.environment, &recorder, &refs)?;
            Ok(places)
        });
        let removed = read.and_then(|places| match options.keep {
            true => Ok(()),
            false => places.into_iter().try_for_each(|place| place.remove(number)),
        });
        if let Err(error) = removed {
            recorder.trouble(format!("read-back of run {number}: {error}"));
        }
        if let Some(reached) = self.environment.reached.filter(|reached| reached.is_on()) {
            recorder.note(&Note::Reached(reached.encoded()));
        }
    }

    fn mount(&mut self, recorder: &Recorder, kept: &[u32]) {
        if let Err(error) = self.mounts.mount_all() {
            return recorder.trouble(error);
        }
        for run in kept {
            recorder.note(&Note::Run(*run));
            for mount in Mount::ALL {
                let read = match Place::existing(&self.environment, mount, *run) {
                    // The run did not use this mount.
                    Err(rustix::io::Errno::NOENT) => Ok(()),
                    Err(error) => Err(error),
                    Ok(place) => self.reader.read_after_remount(recorder, &place),
                };
                if let Err(error) = read {
                    recorder
                        .trouble(format!("read-back of run {run} on {}: {error}", mount.name()));
                }
            }
            recorder.memory.progress();
        }
        for mount in Mount::ALL {
            if let Err(error) = self.remove_all(mount) {
                recorder.trouble(format!("clearing {}: {error}", mount.name()));
            }
        }
    }

    /// Removes all directories of runs on a mount.
    fn remove_all(&self, mount: Mount) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.environment.root.join(mount.name()))? {
            let name = entry?.file_name();
            let run = name.to_str().and_then(|n| n.strip_prefix('r')).and_then(|n| n.parse().ok());
            if let Some(run) = run {
                Place::existing(&self.environment, mount, run)?.remove(run)?;
            }
        }
        Ok(())
    }
}
