//! A judge: takes complete runs from its worker's queue, asks the checker and hands finds to the store.
//!
//! Runs beside the guest, so that judging costs the guest nothing as long as the queue has room. Does not judge by itself.

use crate::campaign::search::Way;
use crate::campaign::shared::Shared;
use crate::campaign::{End, Note, words};
use crate::report::{
    Exercised, Find, Meetings, Origin, ReportError, Signature, headline, timeline,
};
use crate::target::{Done, TargetInfo};
use checker::{Anomaly, Policy, Verdict};
use history::{Event, History};
use program::Program;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::time::Instant;

/// Runs that wait for a judge: some batches, so that the many histories at the end of one do not stop the next.
const QUEUE_MAX: usize = 256;

/// A run to be judged.
pub struct Job {
    /// Its number in the campaign, and how it was made.
    pub origin: Option<(u64, Way)>,
    /// The run.
    pub done: Done,
    /// Who ran it.
    pub info: TargetInfo,
    /// What enters the corpus because of this run, and its name there.
    pub admitted: Option<(Program, u64)>,
}

/// The queue between a worker and its judge.
pub fn queue() -> (SyncSender<Job>, Receiver<Job>) {
    sync_channel(QUEUE_MAX)
}

/// Judges until the worker has ended and the queue is empty.
pub fn run(shared: &Shared, notes: &Sender<Note>, id: usize, queue: &Receiver<Job>) {
    for job in queue {
        let policy = Policy::for_release(&job.info.release);
        let begun = Instant::now();
        let check =
            AssertUnwindSafe(|| checker::check(&job.done.program, &job.done.history, &policy));
        let verdict = match catch_unwind(check) {
            Ok(verdict) => verdict,
            Err(panic) => {
                // What broke the checker is worth more than anything else in this campaign.
                let find = find(shared, id, &job, policy.name, Vec::new());
                let place = match shared.store.save(&find) {
                    Ok(folder) => format!("the history is in {}", folder.display()),
                    Err(error) => {
                        unsaved(notes, "what broke the checker", &job.done, error).to_string()
                    }
                };
                let what = format!("the checker panicked: {}; {place}", words(&*panic));
                return shared.end(End::Internal(what));
            }
        };
        let judge_ns = begun.elapsed().as_nanos() as u64;
        if !count(shared, notes, id, &job, &policy, verdict, judge_ns) {
            return;
        }
        if let Some((program, name)) = &job.admitted
            && let Err(error) = shared.save_program(program, *name)
        {
            let _ =
                notes.send(Note::Unsaved("a program of the corpus".into(), program.to_string()));
            return shared.end(End::Report(error));
        }
    }
}

/// Counts a verdict and saves what is new; returns whether the campaign can go on.
fn count(
    shared: &Shared,
    notes: &Sender<Note>,
    id: usize,
    job: &Job,
    policy: &Policy,
    verdict: Verdict,
    judge_ns: u64,
) -> bool {
    let events = &job.done.history.events;
    let calls = events.iter().filter(|e| matches!(e, Event::Invoke { .. })).count() as u64;
    let meetings = Meetings::of(&job.done.program, &job.done.history);
    let exercised = Exercised::of(&job.done.program, &job.done.history);
    let mut ledger = shared.ledger();
    ledger.judged(id, calls, events.len() as u64, judge_ns, &verdict);
    ledger.met(&meetings, &exercised);
    let headline = headline(&verdict);
    let Verdict::Anomalous(anomalies) = verdict else { return true };

    let seen = signatures(&anomalies, &job.done.program, &job.done.history);
    if !ledger.wanted(&seen) {
        return true;
    }
    // Saving is rare and bounded; the lock is given back, so that the display goes on meanwhile.
    drop(ledger);
    let find = find(shared, id, job, policy.name, anomalies);
    match shared.store.save(&find) {
        Ok(folder) => {
            let relative = folder.strip_prefix(shared.store.dir()).unwrap_or(&folder);
            shared.ledger().kept(&seen, relative);
            let _ = notes.send(Note::Found(headline, folder));
            true
        }
        Err(error) => {
            shared.end(End::Report(unsaved(notes, &headline, &job.done, error)));
            false
        }
    }
}

/// The signatures of a run, each with the sentence that it was first told in.
pub fn signatures(
    anomalies: &[Anomaly],
    program: &Program,
    history: &History,
) -> BTreeMap<Signature, String> {
    let mut seen = BTreeMap::new();
    for anomaly in anomalies {
        let signature = Signature::new(anomaly, program, history);
        seen.entry(signature).or_insert_with(|| timeline::printable(&anomaly.to_string()));
    }
    seen
}

/// Hands out the program of a find that could not be saved: the disk does not have it, so somebody else must.
fn unsaved(notes: &Sender<Note>, what: &str, done: &Done, error: ReportError) -> ReportError {
    let _ = notes.send(Note::Unsaved(what.into(), done.program.to_string()));
    error
}

fn find(
    shared: &Shared,
    id: usize,
    job: &Job,
    policy: &str,
    anomalies: Vec<checker::Anomaly>,
) -> Find {
    Find {
        program: job.done.program.clone(),
        history: job.done.history.clone(),
        anomalies,
        console: job.done.console.clone(),
        info: job.info.clone(),
        provenance: shared.config.workers[id].clone(),
        origin: match job.origin.clone() {
            Some((number, Way::Generated)) => {
                Origin::Generated { seed: shared.config.seed, number }
            }
            Some((number, way)) => {
                Origin::Searched { seed: shared.config.seed, number, way: way.to_string() }
            }
            None => Origin::File("a program that the target changed".into()),
        },
        policy: policy.to_string(),
    }
}
