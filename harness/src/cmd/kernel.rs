//! `pinfuzz kernel`: builds kernels of our own, and lists them.

use crate::cmd;
use harness::exit::{Error, Exit};
use harness::machine::build::{self, Built, Request, Source, Watch};
use harness::machine::cache::Cache;
use harness::report::clock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a plain line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Times a second that the bar is drawn.
const DRAWS_PER_S: u8 = 5;

/// Build kernels with coverage, lockdep, KASAN, fault injection or your patches, and list them
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Build(BuildArgs),
    List,
}

/// Build a kernel into the cache; `--kernel NAME` then runs it
///
/// The tree is never touched: it is copied, patched and compiled in the cache, and only what changed is compiled again the next
/// time. A wish of a profile that the configuration does not fulfil is an error.
#[derive(clap::Args)]
struct BuildArgs {
    /// debian:6.12, debian:6.1 (Debian's sources), or the top of a kernel tree
    source: String,
    /// Take this revision of the git tree, not what lies in it
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// fault, gup_test, kasan, kcov or lockdep; may be repeated. `base` is always there
    #[arg(long = "profile", value_name = "NAME", value_delimiter = ',')]
    profiles: Vec<String>,
    /// A configuration fragment of your own; may be repeated
    #[arg(long = "fragment", value_name = "FILE")]
    fragments: Vec<PathBuf>,
    /// A patch or an mbox, applied in the order given; may be repeated
    #[arg(long = "patch", value_name = "FILE")]
    patches: Vec<PathBuf>,
    /// What to call it [default: by source, profiles and, where these do not tell, a digest]
    #[arg(long)]
    name: Option<String>,
    /// Compilers at a time [default: one a processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let cache = Cache::open()?;
    match &args.what {
        What::Build(args) => build(args, &cache),
        What::List => {
            cmd::print(&table(&build::list(&cache)));
            Ok(Exit::Explained)
        }
    }
}

fn build(args: &BuildArgs, cache: &Cache) -> Result<Exit, Error> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let request = Request {
        source: Source::new(&args.source, args.revision.as_deref())?,
        profiles: args.profiles.clone(),
        fragments: args.fragments.clone(),
        patches: args.patches.clone(),
        name: args.name.clone(),
        jobs: args.jobs.map_or(processors, usize::from),
    };
    let stop = cmd::campaign::catch_signals()?;
    // What a killed build left half-made is nobody's.
    cache.sweep();
    let progress = Progress::new();
    let begun = Instant::now();
    let built = build::build(&request, cache, &progress, &stop);
    progress.bar.finish_and_clear();
    cmd::print(&summary(&built?, begun.elapsed()));
    Ok(Exit::Explained)
}

fn summary(built: &Built, took: Duration) -> String {
    let record = &built.record;
    format!(
        "{} is built: {} ({} MiB, {} objects compiled in {}; now after {})\n{}\n\
         next: add `--kernel {}` to `pinfuzz run` or `pinfuzz campaign`\n",
        built.name,
        record.release,
        built.size() >> 20,
        record.compiled,
        clock::duration(Duration::from_secs_f64(record.seconds.max(0.0))),
        clock::duration(took),
        built.dir.display(),
        built.name
    )
}

/// The kernels that were built, aligned.
fn table(list: &[Built]) -> String {
    if list.is_empty() {
        return "no kernel was built yet; `pinfuzz kernel build debian:6.12 --profile kcov` builds one\n".into();
    }
    let width = |of: fn(&Built) -> usize| list.iter().map(of).max().unwrap_or(0);
    let (names, releases) = (width(|b| b.name.len()), width(|b| b.record.release.len()));
    let mut text = String::new();
    for built in list {
        let _ = writeln!(
            text,
            "{:names$}  {:releases$}  {:>4} MiB  {}  {}",
            built.name,
            built.record.release,
            built.size() >> 20,
            built.record.when,
            built.dir.display()
        );
    }
    text
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    state: Mutex<State>,
}

struct State {
    step: String,
    begun: Instant,
    written: Instant,
}

impl Progress {
    fn new() -> Progress {
        let plain = !std::io::stderr().is_terminal();
        let target = match plain {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_secs(1));
        let now = Instant::now();
        let state = State { step: String::new(), begun: now, written: now };
        let progress = Progress { bar, plain, state: Mutex::new(state) };
        progress.style("{msg} {elapsed}");
        progress
    }

    fn style(&self, template: &str) {
        self.bar
            .set_style(ProgressStyle::with_template(template).expect("the template is constant"));
    }
}

impl Watch for Progress {
    fn step(&self, what: &str) {
        if self.plain {
            eprintln!("{what}");
        }
        self.style("{msg} {elapsed}");
        self.bar.reset();
        self.bar.set_message(what.to_string());
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        *state = State { step: what.to_string(), begun: now, written: now };
    }

    fn compiled(&self, done: u64, of: Option<u64>) {
        // A guess that was too low must not stop the count.
        let of = of.map(|of| of.max(done));
        if self.bar.length() != of {
            match of {
                Some(of) => self.bar.set_length(of),
                None => self.bar.unset_length(),
            }
        }
        if done == 0 || self.bar.position() == 0 {
            self.style(match of {
                Some(_) => {
                    "{msg} [{wide_bar}] {pos} of about {len} objects, {elapsed} ({eta} to go)"
                }
                None => "{msg}: {pos} objects, {elapsed}",
            });
        }
        self.bar.set_position(done);
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if self.plain && state.written.elapsed() >= LINE_EVERY {
            state.written = Instant::now();
            let of = of.map(|of| format!(" of about {of}")).unwrap_or_default();
            let time = clock::duration(state.begun.elapsed());
            eprintln!("{}: {done}{of} objects after {time}", state.step);
        }
    }
}
