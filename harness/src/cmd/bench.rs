//! `pinfuzz bench`: measures what recording, judging and the collection of coverage cost, against a plain replay of the same programs in the
//! same guest.
//!
//! Verdicts are counted and not reported: that is the campaign's job.

use crate::cmd::{self, TargetArgs, values};
use checker::{Policy, Verdict};
use harness::campaign::seeds;
use harness::exit::{Error, Exit};
use harness::report::share;
use harness::target::{Done, Target, TargetStats};
use program::Program;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Resets that are timed; each takes a tenth of a second or more.
const RESETS: usize = 5;
/// Runs that wait for the judge, as in a campaign.
const QUEUE_MAX: usize = 256;

/// Measure what recording, judging and collecting coverage cost
///
/// Runs the same programs in the same guest in rounds of batches: as in a campaign; the same without coverage, if the kernel has any; and as a
/// plain replay without recording. The order changes from round to round; the medians and their ratios are reported.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of batches
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Programs a batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    programs: u32,
    /// Seed of the programs
    #[arg(long, value_name = "S", default_value = "1", value_parser = values::seed)]
    seed: u64,
    #[command(flatten)]
    target: TargetArgs,
}

/// How a batch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// As in a campaign.
    Campaign,
    /// Recorded and judged, without coverage.
    Uncovered,
    /// Without recording.
    Plain,
}

/// What was measured.
type Batches = BTreeMap<Turn, Vec<Batch>>;

/// One batch, measured.
struct Batch {
    seconds: f64,
    calls: u64,
    stats: TargetStats,
}

/// What the judge did, over all recorded batches.
#[derive(Default)]
struct Judged {
    events: u64,
    time: Duration,
    explained: u64,
    inconclusive: u64,
    anomalous: u64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let homes = cmd::campaign::homes(&args.target.images);
    let mut target = args.target.choice(0)?.open(&|line| eprintln!("{line}"))?;
    let info = target.info();
    let policy = Policy::for_release(&info.release);
    let mut turns = vec![Turn::Campaign];
    if target.set_recording(false) {
        turns.push(Turn::Plain);
    }
    target.set_recording(true);
    if target.set_covering(true) {
        turns.push(Turn::Uncovered);
    }
    let mut judged = Judged::default();
    let mut batches = Batches::default();

    // The first batch warms caches and, under TCG, the translation of the kernel; it is not counted.
    let programs = |pair: u32| -> Vec<Program> {
        let first = u64::from(pair) * u64::from(args.programs);
        let numbers = first..first + u64::from(args.programs);
        numbers.map(|number| seeds::program(args.seed, number, &homes)).collect()
    };
    batch(&mut *target, &programs(0), Some((&policy, &mut Judged::default())))?;
    for pair in 0..args.pairs {
        eprintln!("round {} of {}", pair + 1, args.pairs);
        let programs = programs(pair);
        for turn in &turns {
            target.set_recording(*turn != Turn::Plain);
            target.set_covering(*turn == Turn::Campaign);
            let judge = (*turn != Turn::Plain).then_some((&policy, &mut judged));
            let measured = batch(&mut *target, &programs, judge)?;
            batches.entry(*turn).or_default().push(measured);
        }
        // Who goes first changes, so that what a batch leaves behind slows all alike.
        turns.rotate_left(1);
    }
    target.set_recording(true);
    target.set_covering(true);
    let resets = (0..RESETS).map(|_| time_reset(&mut *target)).collect::<Result<Vec<_>, _>>()?;
    let title = format!("{} ({}, {}, {})", info.release, info.kernel, info.accel, info.mode);
    cmd::print(&table(&title, args, &batches, &judged, resets));
    Ok(Exit::Explained)
}

/// Runs programs once; with a judge, it works beside the guest as in a campaign, and its last verdict counts as the end.
fn batch(
    target: &mut dyn Target,
    programs: &[Program],
    judge: Option<(&Policy, &mut Judged)>,
) -> Result<Batch, Error> {
    let before = target.stats();
    let begun = Instant::now();
    let mut programs = programs.iter().cloned();
    std::thread::scope(|scope| {
        let (queue, done) = sync_channel::<Done>(QUEUE_MAX);
        let judge = judge.map(|(policy, judged)| {
            scope.spawn(move || {
                for done in done {
                    judged.one(&done, policy);
                }
            })
        });
        let judging = judge.is_some();
        let mut deliver = |done: Done| {
            if judging {
                let _ = queue.send(done);
            }
        };
        while !target.run_batch(&mut || programs.next(), &mut deliver)? {}
        drop(queue);
        if let Some(judge) = judge {
            judge.join().map_err(|_| Error::Internal("the checker panicked".into()))?;
        }
        Ok::<(), Error>(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = target.stats();
    let stats = TargetStats {
        kernel_ns: after.kernel_ns - before.kernel_ns,
        busy_ns: after.busy_ns - before.busy_ns,
        ..TargetStats::default()
    };
    Ok(Batch { seconds, calls: after.calls - before.calls, stats })
}

impl Judged {
    fn one(&mut self, done: &Done, policy: &Policy) {
        let begun = Instant::now();
        let verdict = checker::check(&done.program, &done.history, policy);
        self.time += begun.elapsed();
        self.events += done.history.events.len() as u64;
        match verdict {
            Verdict::Explained => self.explained += 1,
            Verdict::Inconclusive(_) => self.inconclusive += 1,
            Verdict::Anomalous(_) => self.anomalous += 1,
        }
    }
}

fn time_reset(target: &mut dyn Target) -> Result<f64, Error> {
    let begun = Instant::now();
    target.reset()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn table(title: &str, args: &Args, batches: &Batches, judged: &Judged, resets: Vec<f64>) -> String {
    let mut text = format!(
        "{title}: {} rounds of {} programs, seed {:#x}, medians\n",
        args.pairs, args.programs, args.seed
    );
    let programs = f64::from(args.programs);
    let campaign = batches.get(&Turn::Campaign).map_or(&[][..], Vec::as_slice);
    for (turn, name) in [
        (Turn::Campaign, "as in a campaign"),
        (Turn::Uncovered, "without coverage"),
        (Turn::Plain, "plain replay"),
    ] {
        let Some(measured) = batches.get(&turn) else {
            let why = match turn {
                Turn::Uncovered => "this kernel has no KCOV, so none of the batches had coverage",
                _ => "this target cannot run without recording",
            };
            let _ = writeln!(text, "  {name:<20} {why}");
            continue;
        };
        let speed = median(measured.iter().map(|b| programs / b.seconds).collect());
        let calls = median(measured.iter().map(|b| b.calls as f64 / b.seconds).collect());
        let mut stats = TargetStats::default();
        for batch in measured {
            stats.kernel_ns += batch.stats.kernel_ns;
            stats.busy_ns += batch.stats.busy_ns;
        }
        let _ = write!(
            text,
            "  {name:<20} {speed:>8.1} programs/s {calls:>9.0} calls/s, {} of guest time in kernel calls",
            share(&stats)
        );
        if turn != Turn::Campaign {
            let ratios = campaign.iter().zip(measured).map(|(c, m)| m.seconds / c.seconds);
            let _ = write!(text, "; a campaign has {:.2} of this speed", median(ratios.collect()));
        }
        text.push('\n');
    }
    let rate = judged.events as f64 / judged.time.as_secs_f64().max(1e-9);
    let _ = writeln!(
        text,
        "  checker              {rate:>8.0} events/s ({} explained, {} inconclusive, {} anomalous)",
        judged.explained, judged.inconclusive, judged.anomalous
    );
    let _ = writeln!(text, "  reset                {:>8.3} s", median(resets));
    text
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
