//! `pinfuzz campaign`: the main job.

use crate::cmd::live::Live;
use crate::cmd::target::Choice;
use crate::cmd::{self, TargetArgs, values};
use harness::campaign::{self, Config, End, Outcome, seeds};
use harness::exit::{Error, Exit};
use program::Mount;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a campaign runs if nobody says.
const TIME_DEFAULT: Duration = Duration::from_secs(120);
/// Most workers: each is a guest with memory of its own.
const WORKERS_MAX: usize = 256;

/// Run generated programs on a kernel, judge them, and keep what has no explanation
///
/// Ends after `--time` (counted from the moment when the first guest is ready) or `--programs`, whichever comes first, or with Ctrl-C,
/// which keeps everything. A second Ctrl-C leaves at once.
#[derive(clap::Args)]
pub struct Args {
    /// How long to run, such as 90s, 2m or 1h [default: 2m unless --programs is given]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    time: Option<Duration>,
    /// How many programs to run
    #[arg(long, value_name = "N")]
    programs: Option<u64>,
    /// Seed: the same seed gives the same programs [default: a fresh one]
    #[arg(long, value_name = "S", value_parser = values::seed)]
    seed: Option<u64>,
    /// How many guests run side by side [default: one a kernel, and one for every four processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX as i64))]
    workers: Option<u16>,
    /// Folder under which the run's folder is made
    #[arg(long, value_name = "DIR", default_value = "reports")]
    reports: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
}

/// Home mounts: those that were asked for, or all four, the DAX ones first.
pub fn homes(images: &[values::Image]) -> Vec<Mount> {
    match images {
        [] => Mount::ALL.to_vec(),
        images => images.iter().map(|image| image.home).collect(),
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let workers = args.workers.map_or_else(|| workers(args.target.kernels.len()), usize::from);
    let choices: Vec<Choice> =
        (0..workers).map(|worker| args.target.choice(worker)).collect::<Result<_, Error>>()?;
    let config = Config {
        seed: args.seed.unwrap_or_else(seeds::fresh),
        homes: homes(&args.target.images),
        time: args.time.or(args.programs.is_none().then_some(TIME_DEFAULT)),
        programs: args.programs,
        workers: choices.iter().map(|choice| choice.provenance.clone()).collect(),
    };
    let interrupted = catch_signals()?;
    let mut live = Live::new(&config);
    let factory = Box::new(move |worker: usize, progress: &(dyn Fn(&str) + Sync)| {
        choices[worker].open(progress)
    });
    let outcome = campaign::run(config, factory, &args.reports, &interrupted, &mut live)?;
    live.finish();
    cmd::print(&outcome.report.to_text());
    exit(outcome)
}

/// One worker a kernel, and more where there is room: a guest keeps two processors busy and its judge half of one.
fn workers(kernels: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    kernels.max(processors / 4).clamp(1, WORKERS_MAX)
}

/// A flag that the first Ctrl-C (or SIGTERM) sets; the second one leaves at once.
pub fn catch_signals() -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first handler acts only on a flag that an earlier signal has set.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            Exit::Untestable as i32,
            Arc::clone(&flag),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
        .map_err(|error| Error::Internal(format!("cannot catch signals: {error}")))?;
    }
    Ok(flag)
}

/// The exit code. A find counts even if the campaign ended in trouble; silence counts only if something was explained.
fn exit(outcome: Outcome) -> Result<Exit, Error> {
    let totals = &outcome.report.totals;
    match outcome.end {
        End::Internal(what) => Err(Error::Internal(what)),
        _ if totals.anomalous > 0 => Ok(Exit::Anomalous),
        End::Target(error) => Err(error.into()),
        End::Report(error) => Err(error.into()),
        End::Time | End::Programs | End::Interrupted if totals.explained == 0 => {
            Ok(Exit::Untestable)
        }
        End::Time | End::Programs | End::Interrupted => Ok(Exit::Explained),
    }
}
