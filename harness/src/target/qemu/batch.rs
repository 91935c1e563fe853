//! How programs go through guests: many in one life (fast), or one in each (exact).
//!
//! Fast mode keeps the ring full. When the batch is over, the media are unmounted and looked at. A guest that a run has damaged
//! (a splat, a stuck call, a crash) is given up at once, and what it had taken in behind that run is run again elsewhere.

use super::super::{Done, TargetError};
use super::guest::{self, Guest, Log, Step};
use super::media::Media;
use super::{Mode, QemuTarget};
use crate::machine::infra;
use crate::target::console;
use history::wire::{Job, Note, RunOptions};
use history::{Down, Event, History};
use program::Program;
use std::collections::VecDeque;

/// Programs in a batch: at 60 a second under TCG, one unmount, check and mount (some 0.3 s) for a second of work.
const BATCH: usize = 64;
/// Batches in a guest's life: what a run leaves behind unseen (leaked pages, fragmented media) does not pile up for longer.
const BATCHES: u32 = 8;
/// A program that made trouble for the machinery is tried again once in a fresh guest.
const TRIES: u32 = 2;
/// When a line has not returned after this, the agent looks at it: a few times what a slow call takes. Guest milliseconds.
const BLOCK_AFTER_KVM: u32 = 20;
/// See `BLOCK_AFTER_KVM`; right after a restore TCG translates everything anew.
const BLOCK_AFTER_TCG: u32 = 50;
/// Most bytes of a run's console that are handed out. A WARN with its stack has some 5 KiB.
const CONSOLE_MAX: usize = 64 << 10;

/// A program that waits for its turn.
#[derive(Debug)]
pub(super) struct Item {
    program: Program,
    tries: u32,
}

/// A program that a guest has taken in.
#[derive(Debug)]
struct Flying {
    item: Item,
    run: u32,
    keep: bool,
}

/// A run that is over, but for the media.
#[derive(Debug)]
struct Kept {
    program: Program,
    run: u32,
    events: Vec<Event>,
    console: String,
    reached: Vec<u32>,
}

impl Kept {
    fn done(self) -> Done {
        let console = crate::machine::tail(&self.console, CONSOLE_MAX).to_string();
        Done {
            program: self.program,
            history: History { run: self.run, events: self.events },
            console,
            reached: self.reached,
        }
    }

    /// What the kernel said while only the media were worked on.
    fn add_console(&mut self, text: &str) -> bool {
        let splats = console::splats(text);
        let any = !splats.is_empty();
        self.events.extend(splats.into_iter().map(Event::Console));
        self.console.push_str(text);
        any
    }
}

/// What is under way.
#[derive(Default)]
struct Batch {
    fed: usize,
    ended: bool,
    flying: VecDeque<Flying>,
    kept: Vec<Kept>,
}

impl QemuTarget {
    /// Runs one batch.
    pub(super) fn batch(
        &mut self,
        next: &mut dyn FnMut() -> Option<Program>,
        done: &mut dyn FnMut(Done),
    ) -> Result<bool, TargetError> {
        let mut batch = Batch::default();
        let result = self.drive(&mut batch, next, done);
        if result.is_err() {
            // No program and no history is lost.
            self.give_up(&mut batch, done);
        }
        // What was taken back from a lost guest comes first in the next batch.
        result.map(|()| batch.ended && self.queue.is_empty())
    }

    fn drive(
        &mut self,
        batch: &mut Batch,
        next: &mut dyn FnMut() -> Option<Program>,
        done: &mut dyn FnMut(Done),
    ) -> Result<(), TargetError> {
        let most = if self.recipe.mode == Mode::Exact { 1 } else { BATCH };
        loop {
            while batch.fed < most {
                if self.guest.as_ref().is_some_and(|g| !g.vm.shm.has_room()) {
                    break;
                }
                let mut item = self.queue.pop_front();
                if item.is_none() && !batch.ended {
                    item = next().map(|program| Item { program, tries: 0 });
                    batch.ended = item.is_none();
                }
                match item {
                    Some(item) => self.submit(batch, item)?,
                    None => break,
                }
            }
            if batch.flying.is_empty() {
                return if batch.kept.is_empty() {
                    Ok(())
                } else {
                    self.look_at_media(batch, done)
                };
            }
            if self.recipe.mode == Mode::Exact {
                // The whole input is in place before the guest begins.
                let guest = self.guest()?;
                guest.vm.shm.submit(&Job::Unmount)?;
                guest.vm.run()?;
            }
            match self.guest()?.wait() {
                Ok(step) => self.take(batch, step, done)?,
                Err(error) => self.retry(batch, error, done)?,
            }
        }
    }

    /// Hands a program to the guest; starts one if there is none.
    fn submit(&mut self, batch: &mut Batch, item: Item) -> Result<(), TargetError> {
        if let Err(error) = self.start() {
            self.queue.push_front(item);
            return Err(error);
        }
        let exact = self.recipe.mode == Mode::Exact;
        let block_after_ms = if self.recipe.kvm { BLOCK_AFTER_KVM } else { BLOCK_AFTER_TCG };
        let (record, cover, keep_every) = (self.record, self.cover, self.keep_every);
        let guest = self.guest()?;
        guest.runs += 1;
        let run = guest.runs;
        let keep = exact || (record && (run - 1).is_multiple_of(keep_every));
        let options = RunOptions { keep, record, cover, block_after_ms };
        let job = Job::Run { run, program: item.program.clone(), options };
        batch.fed += 1;
        batch.flying.push_back(Flying { item, run, keep });
        self.guest()?.vm.shm.submit(&job)
    }

    /// Takes what the guest has to say of the oldest run.
    fn take(
        &mut self,
        batch: &mut Batch,
        step: Step,
        done: &mut dyn FnMut(Done),
    ) -> Result<(), TargetError> {
        self.account()?;
        let flying =
            batch.flying.pop_front().ok_or_else(|| infra("a run ended that was not begun"))?;
        let text = self.guest()?.vm.console.take(flying.run);
        let (notes, down) = match step {
            Step::Done(notes) => (notes, None),
            Step::Down(down, notes) => (notes, Some(down)),
        };
        let Log { events, trouble, reached } = match guest::read(notes) {
            Ok(found) => found,
            Err(error) => {
                batch.flying.push_front(flying);
                return self.retry(batch, error, done);
            }
        };
        // Once; a kernel that overwrites its own stacks shows such dumps as well, and does it again.
        let first = flying.item.tries + 1 < TRIES && !self.recipe.kvm;
        if let Some(flags) = console::impossible_flags(&text).filter(|_| first) {
            batch.flying.push_front(flying);
            let what = format!("the emulator lost the state of a processor (EFLAGS {flags:#x})");
            return self.retry(batch, infra(what), done);
        }
        let run = flying.run;
        let program = flying.item.program;
        let mut kept = Kept { program, run, events, console: String::new(), reached };
        let splat = kept.add_console(&text);
        if let (Some(what), None, false) = (&trouble, down, splat) {
            let item = Item { program: kept.program, tries: flying.item.tries };
            batch.flying.push_front(Flying { item, run, keep: flying.keep });
            return self.retry(batch, infra(format!("the agent cannot work: {what}")), done);
        }
        kept.events.extend(down.map(Event::Down));
        self.stats.programs += 1;
        let stuck = |e: &Event| matches!(e, Event::End { stuck, .. } if !stuck.is_empty());
        if down.is_some() || splat || trouble.is_some() || kept.events.iter().any(stuck) {
            self.stats.resets_down += u64::from(down.is_some());
            done(kept.done());
            self.give_up(batch, done);
        } else if flying.keep {
            batch.kept.push(kept);
        } else {
            done(kept.done());
        }
        Ok(())
    }

    /// After trouble of the machinery: gives the guest up and tries the oldest run once more elsewhere.
    fn retry(
        &mut self,
        batch: &mut Batch,
        error: TargetError,
        done: &mut dyn FnMut(Done),
    ) -> Result<(), TargetError> {
        if let Some(first) = batch.flying.front_mut() {
            first.item.tries += 1;
            if first.item.tries >= TRIES {
                batch.flying.pop_front();
                return Err(error);
            }
        }
        self.give_up(batch, done);
        Ok(())
    }

    /// Ends the guest. What it had taken in goes back to the queue; what it had finished is handed out without a look at the media.
    fn give_up(&mut self, batch: &mut Batch, done: &mut dyn FnMut(Done)) {
        self.guest = None;
        while let Some(flying) = batch.flying.pop_back() {
            batch.fed -= 1;
            self.queue.push_front(flying.item);
        }
        for kept in batch.kept.drain(..) {
            done(kept.done());
        }
    }

    /// The end of a batch: unmount, copy the media, check them while the guest mounts again, read back what was kept.
    fn look_at_media(
        &mut self,
        batch: &mut Batch,
        done: &mut dyn FnMut(Done),
    ) -> Result<(), TargetError> {
        let mut healthy = true;
        match self.media_step(&mut batch.kept) {
            Ok(whole) => healthy = whole,
            // The runs themselves are complete: only the look at their media is lost, and counted as such.
            Err(TargetError::Infra(what)) => {
                self.guest = None;
                let last = batch.kept.last_mut();
                last.into_iter()
                    .for_each(|k| k.console.push_str(&format!("\nmedia not checked: {what}\n")));
            }
            Err(other) => return Err(other),
        }
        for kept in batch.kept.drain(..) {
            done(kept.done());
        }
        let worn = self.guest.as_ref().is_some_and(|g| g.batches >= BATCHES);
        if !healthy || worn || self.recipe.mode == Mode::Exact {
            self.guest = None;
        }
        Ok(())
    }

    /// Returns whether the guest can go on.
    fn media_step(&mut self, kept: &mut [Kept]) -> Result<bool, TargetError> {
        let exact = self.recipe.mode == Mode::Exact;
        let Some(guest) = &mut self.guest else {
            return Err(infra("the guest is gone"));
        };
        let Some(last) = kept.len().checked_sub(1) else {
            return Ok(true);
        };
        // In exact mode the job is in flight already.
        let step = if exact { guest.wait()? } else { guest.run(&Job::Unmount)? };
        if !phase(guest, step, &mut kept[last], |notes| notes.contains(&Note::Unmounted))? {
            self.stats.resets_down += 1;
            return Ok(false);
        }
        if exact {
            guest.vm.stop()?;
        }
        let media = Media::copy(&self.recipe.image, &guest.vm.media, &self.scratch)?;
        let runs: Vec<u32> = kept.iter().map(|k| k.run).collect();
        guest.vm.shm.submit(&Job::Mount { kept: runs.clone() })?;
        if exact {
            guest.vm.run()?;
        }
        let (fsck, step) = std::thread::scope(|scope| {
            let fsck = scope.spawn(|| media.fsck());
            for kept in kept.iter_mut() {
                kept.events.extend(media.finals(&kept.events));
            }
            let step = guest.wait();
            (fsck.join().expect("fsck does not panic"), step)
        });
        let findings = fsck?;
        self.stats.media_checks += 1;
        guest.batches += 1;
        let mut healthy = findings.is_empty();
        for finding in findings {
            kept[last].events.push(told(finding, &runs));
        }
        let mut read_back = Vec::new();
        healthy &= phase(guest, step?, &mut kept[last], |notes| {
            read_back = notes.to_vec();
            true
        })?;
        attribute(read_back, kept)?;
        Ok(healthy)
    }
}

/// Takes the end of a job on the media. What the console says, and how the guest went down, goes to `last`: the run is not to blame
/// alone, but the report has to stand somewhere. Returns whether the guest can go on.
fn phase(
    guest: &mut Guest,
    step: Step,
    last: &mut Kept,
    mut accept: impl FnMut(&[Note]) -> bool,
) -> Result<bool, TargetError> {
    let splat = last.add_console(&guest.vm.console.take(u32::MAX));
    let (notes, down): (_, Option<Down>) = match step {
        Step::Done(notes) => (notes, None),
        Step::Down(down, notes) => (notes, Some(down)),
    };
    last.events.extend(down.map(Event::Down));
    let trouble = notes.iter().find_map(|n| match n {
        Note::Trouble(what) => Some(what.clone()),
        _ => None,
    });
    let accepted = accept(&notes);
    if down.is_some() || splat {
        return Ok(false);
    }
    match trouble {
        Some(what) => Err(infra(format!("the agent cannot work: {what}"))),
        None if !accepted => Err(infra("the agent did not do what it was asked")),
        None => Ok(true),
    }
}

/// Gives each run what was read back of it.
fn attribute(notes: Vec<Note>, kept: &mut [Kept]) -> Result<(), TargetError> {
    let mut at = None;
    for note in notes {
        match note {
            Note::Run(run) => {
                at = kept.iter().position(|k| k.run == run);
                if at.is_none() {
                    return Err(infra(format!(
                        "the guest's log names run {run}, which was not kept"
                    )));
                }
            }
            Note::Event(event) => match at {
                Some(n) => kept[n].events.push(event),
                None => return Err(infra("the guest's log holds an event of no run")),
            },
            Note::Unmounted | Note::Trouble(_) | Note::Reached(_) => {}
        }
    }
    Ok(())
}

/// A finding of fsck belongs to the batch; it stands in the history of its last run.
fn told(event: Event, runs: &[u32]) -> Event {
    match (event, runs) {
        (Event::Fsck { mount, text }, [first, .., last]) => Event::Fsck {
            mount,
            text: format!(
                "found after a batch: any of the runs {first} to {last} may have caused it\n{text}"
            ),
        },
        (event, _) => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::Mount;

    fn kept(run: u32) -> Kept {
        Kept {
            program: Program { home: Mount::Xfs, lines: vec![] },
            run,
            events: vec![],
            console: String::new(),
            reached: vec![],
        }
    }

    #[test]
    fn what_is_read_back_goes_to_its_run() {
        let mut all = [kept(1), kept(3)];
        let notes = vec![
            Note::Run(3),
            Note::Event(Event::LogFull),
            Note::Run(1),
            Note::Event(Event::Down(Down::Hang)),
        ];
        attribute(notes, &mut all).unwrap();
        assert_eq!(all[0].events, [Event::Down(Down::Hang)]);
        assert_eq!(all[1].events, [Event::LogFull]);
        assert!(attribute(vec![Note::Run(2)], &mut all).is_err());
        assert!(attribute(vec![Note::Event(Event::LogFull)], &mut all).is_err());
    }

    #[test]
    fn a_finding_of_a_batch_names_its_runs() {
        let fsck = || Event::Fsck { mount: Mount::Xfs, text: "bad".into() };
        let Event::Fsck { text, .. } = told(fsck(), &[1, 3, 5]) else { panic!("not fsck") };
        assert!(text.starts_with("found after a batch: any of the runs 1 to 5"));
        assert_eq!(told(fsck(), &[1]), fsck());
    }
}
