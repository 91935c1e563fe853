//! `pinfuzz campaign`: the main job.

use crate::cmd::live::Live;
use crate::cmd::target::Choice;
use crate::cmd::{self, TargetArgs, generate, values};
use harness::campaign::{self, Config, End, Outcome, ResumeError, Saved, seeds};
use harness::exit::{Error, Exit};
use harness::fuzz_target::FuzzTarget;
use harness::report::OpenError;
use program::{Mount, Program};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a campaign runs if nobody says.
const TIME_DEFAULT: Duration = Duration::from_secs(120);
/// Most workers: each is a guest with memory of its own.
const WORKERS_MAX: usize = 256;
/// Longest time that a run can have had, in seconds: a century.
const TIME_MAX_S: f64 = 100.0 * 366.0 * 86_400.0;

/// The fuzz target if nobody names another.
const FUZZ_TARGET: &str = "mixed";
/// Where corpora are, a folder for each fuzz target.
const QUEUE: &str = "corpora/queue";
/// Where the seeds are, if pinfuzz is started in its repository.
const CORPORA: &str = "corpora";

/// Run generated programs on a kernel, judge them, and keep what has no explanation
///
/// Programs that reach something new are run again, and kept to be changed and crossed if they do it again; about every fifth
/// program at least is a new one. `--unguided` draws all programs from the seed alone. Ends after `--time` (counted from the
/// moment when the first guest is ready) or `--programs`, whichever comes first, or with Ctrl-C, which keeps everything. A second
/// Ctrl-C leaves at once.
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
    /// What programs are about: ext4_dax, xfs_dax, mixed, pagecache, leases or uring
    #[arg(long, value_name = "NAME", default_value = FUZZ_TARGET, value_parser = values::fuzz_target)]
    fuzz_target: &'static FuzzTarget,
    /// Draw every program from the seed alone, as `pinfuzz generate` prints them, whatever the others reached
    #[arg(long)]
    unguided: bool,
    /// Folder of programs that reached something: read and added to, and shared by campaigns
    /// [default: corpora/queue/FUZZ-TARGET]
    #[arg(long, value_name = "DIR", conflicts_with = "unguided")]
    corpus: Option<PathBuf>,
    /// Go on with the run in this folder, as it was told then; for the rest of its time, or for `--time` or `--programs` more
    #[arg(long, value_name = "RUN-DIR", conflicts_with_all = ["seed", "workers", "reports", "fuzz_target", "unguided", "corpus", "target", "kernels", "images", "mode", "accel", "bug"])]
    resume: Option<PathBuf>,
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
    let (saved, config) = match &args.resume {
        Some(dir) => resume(args, dir)?,
        None => {
            let config = config(args)?;
            (Saved::create(&args.reports, &config)?, config)
        }
    };
    let workers = config.workers.iter().enumerate();
    let choices: Vec<Choice> = workers
        .map(|(worker, provenance)| Choice::new(provenance.clone(), worker))
        .collect::<Result<_, Error>>()?;
    let interrupted = catch_signals()?;
    let mut live = Live::new(&config, &saved);
    let factory = Box::new(move |worker: usize, progress: &(dyn Fn(&str) + Sync)| {
        choices[worker].open(progress)
    });
    let outcome = campaign::run(config, factory, saved, &interrupted, &mut live)?;
    live.finish();
    cmd::print(&outcome.report.to_text());
    exit(outcome)
}

/// What a new campaign is told.
fn config(args: &Args) -> Result<Config, Error> {
    let workers = args.workers.map_or_else(|| workers(args.target.kernels.len()), usize::from);
    let choices: Vec<Choice> =
        (0..workers).map(|worker| args.target.choice(worker)).collect::<Result<_, Error>>()?;
    let corpus =
        args.corpus.clone().unwrap_or_else(|| PathBuf::from(QUEUE).join(args.fuzz_target.name));
    Ok(Config {
        seed: args.seed.unwrap_or_else(seeds::fresh),
        homes: generate::homes_of(args.fuzz_target, &args.target.images)?,
        time: args.time.or(args.programs.is_none().then_some(TIME_DEFAULT)),
        programs: args.programs,
        guided: !args.unguided,
        fuzz_target: args.fuzz_target,
        seeds: if args.unguided { Vec::new() } else { first_programs(args.fuzz_target)? },
        // Whoever resumes it may be elsewhere.
        corpus: (!args.unguided).then(|| std::path::absolute(&corpus).unwrap_or(corpus)),
        workers: choices.into_iter().map(|choice| choice.provenance).collect(),
    })
}

/// The seeds of a fuzz target, with their files.
fn first_programs(target: &FuzzTarget) -> Result<Vec<(String, Program)>, Error> {
    let corpora = Path::new(CORPORA);
    if !corpora.join("seeds").is_dir() {
        eprintln!(
            "no seeds: there is no {CORPORA}/seeds here; start pinfuzz in its repository to have them"
        );
        return Ok(Vec::new());
    }
    let seeds = target.seeds(corpora)?.into_iter();
    Ok(seeds.map(|(path, program)| (path.display().to_string(), program)).collect())
}

/// A run that goes on: with the rest of its time and programs, or with what is given on top of what it had.
fn resume(args: &Args, dir: &Path) -> Result<(Saved, Config), Error> {
    let (saved, mut config) = Saved::open(dir).map_err(|error| match error {
        ResumeError::Write(error) => Error::Report(error),
        ResumeError::Open(OpenError::InUse { .. }) => {
            Error::usage(error.to_string(), "wait until it is over, or end it with Ctrl-C")
        }
        _ => Error::usage(
            error.to_string(),
            "`--resume` wants a campaign's folder, such as reports/2026-11-21-105711-1",
        ),
    })?;
    if config.guided {
        config.seeds = first_programs(config.fuzz_target)?;
    }
    let (seconds, drawn) = saved.so_far();
    if args.time.is_some() || args.programs.is_some() {
        config.time = args.time.map(|time| time + Duration::from_secs_f64(seconds.min(TIME_MAX_S)));
        config.programs = args.programs.map(|programs| programs.saturating_add(drawn));
    }
    let over = config.time.is_some_and(|time| time.as_secs_f64() <= seconds)
        || config.programs.is_some_and(|programs| programs <= drawn);
    if over {
        return Err(Error::usage(
            format!("the run in {} has had all its time or programs", dir.display()),
            "give it more with `--time 10m` or `--programs 1000`",
        ));
    }
    Ok((saved, config))
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
