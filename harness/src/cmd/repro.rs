//! `pinfuzz repro`: runs a find again and says how often it happens.

use crate::cmd::target::{Choice, ModeArg};
use crate::cmd::{self, TargetArgs};
use checker::{Anomaly, AnomalyKind, Oracle, Policy, Verdict};
use harness::exit::{Error, Exit};
use harness::report::{explain, hash, headline, timeline};
use harness::target::{Done, Target};
use history::History;
use program::Program;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Run a program again and again and say how often it misbehaves
///
/// Given the folder of a find, runs its program on the kernel that is named there, unless the options say otherwise, and counts how
/// often the same kind of anomaly comes back. Given a program, counts any anomaly.
#[derive(clap::Args)]
pub struct Args {
    /// A program, or the folder of a find
    #[arg(value_name = "FILE|FIND-DIR")]
    file: PathBuf,
    /// How many times to run it
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Run in the exact mode and compare the histories of the runs
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// An anomaly's kind and oracle: what makes it the same one in another run.
type Kinds = BTreeSet<(AnomalyKind, Oracle)>;

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let is_find = args.file.is_dir();
    let path = if is_find { args.file.join("program.prog") } else { args.file.clone() };
    let program = args.target.rehome(cmd::read_program(&path)?)?;
    let saved = cmd::target_file(&args.file)?;
    let release = saved.as_ref().map_or(String::new(), |file| file.release.clone());
    let choice = choice(args, saved)?;
    let expected = if is_find { expected(&args.file, &release)? } else { None };
    if let Some(expected) = &expected
        && expected.is_empty()
    {
        eprintln!("today's checker explains the saved history; looking for any anomaly");
    }
    let expected = expected.unwrap_or_default();

    let mut runs = Runs::new(expected, args.exact);
    let mut target = None;
    for number in 1..=args.runs {
        // QEMU's exact mode starts every program from the snapshot; the fake numbers its runs, so it must be made anew.
        if args.exact && choice.is_fake() {
            target = None;
        }
        let target = match &mut target {
            Some(target) => target,
            slot => slot.insert(choice.open(&|line| eprintln!("{line}"))?),
        };
        runs.one(number, args.runs, &program, &mut **target)?;
    }
    Ok(runs.conclude(&choice))
}

/// The find's own target, changed by the options that were given.
fn choice(args: &Args, saved: Option<cmd::TargetFile>) -> Result<Choice, Error> {
    let mut wanted = args.target.clone();
    if args.exact {
        wanted.mode = ModeArg::Exact;
    }
    let typed = wanted.choice(0)?;
    let Some(cmd::TargetFile { select: mut saved, .. }) = saved else { return Ok(typed) };
    let typed = typed.provenance;
    let defaults = TargetArgs::defaults();
    // An option that differs from its default was given by the user and wins over what was saved.
    if typed.target != defaults.target {
        saved.target = typed.target;
        saved.kernel = typed.kernel;
    } else if typed.kernel != defaults.kernel {
        saved.target = typed.target;
        saved.kernel = typed.kernel;
        saved.bug = None;
    }
    if typed.image != defaults.image {
        saved.image = typed.image;
    }
    if typed.mode != defaults.mode {
        saved.mode = typed.mode;
    }
    if typed.accel != defaults.accel {
        saved.accel = typed.accel;
    }
    if typed.bug.is_some() {
        saved.bug = typed.bug;
    }
    Choice::new(saved, 0)
}

/// What today's checker says of the saved history, if one was saved.
fn expected(folder: &Path, release: &str) -> Result<Option<Kinds>, Error> {
    let path = folder.join("history.jsonl");
    if !path.exists() {
        return Ok(None);
    }
    let record = cmd::read_record(&path)?;
    let policy = Policy::for_release(release);
    Ok(Some(match checker::check(&record.program, &record.history, &policy) {
        Verdict::Anomalous(anomalies) => kinds(&anomalies),
        Verdict::Explained | Verdict::Inconclusive(_) => Kinds::new(),
    }))
}

fn kinds(anomalies: &[Anomaly]) -> Kinds {
    anomalies.iter().map(|anomaly| (anomaly.kind, anomaly.oracle)).collect()
}

/// What the runs so far have shown.
struct Runs {
    expected: Kinds,
    exact: bool,
    total: u32,
    same: u32,
    other: u32,
    inconclusive: u32,
    seen: BTreeMap<(AnomalyKind, Oracle), u32>,
    /// The first history, and how many later ones were equal to it.
    first: Option<(u64, History)>,
    identical: u32,
    explained_once: bool,
}

impl Runs {
    fn new(expected: Kinds, exact: bool) -> Runs {
        Runs {
            expected,
            exact,
            total: 0,
            same: 0,
            other: 0,
            inconclusive: 0,
            seen: BTreeMap::new(),
            first: None,
            identical: 0,
            explained_once: false,
        }
    }

    fn one(
        &mut self,
        number: u32,
        of: u32,
        program: &Program,
        target: &mut dyn Target,
    ) -> Result<(), Error> {
        let done = target.execute(program)?;
        let policy = Policy::for_release(&target.info().release);
        let verdict = checker::check(&done.program, &done.history, &policy);
        cmd::print(&format!("run {number} of {of}: {}\n", headline(&verdict)));
        self.total += 1;
        match &verdict {
            Verdict::Explained => {}
            Verdict::Inconclusive(_) => self.inconclusive += 1,
            Verdict::Anomalous(anomalies) => {
                let seen = kinds(anomalies);
                if self.expected.is_empty() || !self.expected.is_disjoint(&seen) {
                    self.same += 1;
                } else {
                    self.other += 1;
                }
                for kind in seen {
                    *self.seen.entry(kind).or_default() += 1;
                }
                if !self.explained_once {
                    self.explained_once = true;
                    let waits = checker::waits(&done.program, &done.history, &policy);
                    let text = explain(&done.program, &done.history, &verdict, &waits);
                    cmd::print(&format!("\n{text}\n"));
                }
            }
        }
        if self.exact {
            self.compare(number, &done);
        }
        Ok(())
    }

    /// Compares a history with the first one, byte for byte of their serialized forms.
    fn compare(&mut self, number: u32, done: &Done) {
        let text = serde_json::to_vec(&done.history).expect("plain data serializes");
        let now = hash(&text);
        let Some((then, first)) = &self.first else {
            self.first = Some((now, done.history.clone()));
            self.identical = 1;
            cmd::print(&format!("  history {now:016x}\n"));
            return;
        };
        if *then == now {
            self.identical += 1;
            cmd::print(&format!("  history {now:016x}, identical\n"));
            return;
        }
        let pairs = first.events.iter().zip(&done.history.events);
        let same = pairs.take_while(|(a, b)| a == b).count();
        let show = |history: &History| match history.events.get(same) {
            Some(event) => timeline::event(&done.program, history, event),
            None => "             (no more events)".into(),
        };
        cmd::print(&format!(
            "  history {now:016x}, differs from the first at event {same}\n  run 1\n{}\n  run {number}\n{}\n",
            show(first),
            show(&done.history)
        ));
    }

    /// Says what came of it all.
    fn conclude(&self, choice: &Choice) -> Exit {
        let what = if self.expected.is_empty() { "an anomaly" } else { "the same anomaly" };
        let mut text = format!(
            "{what} in {} of {} runs (reliability {:.2}) on {}",
            self.same,
            self.total,
            f64::from(self.same) / f64::from(self.total.max(1)),
            choice.provenance.kernel
        );
        if self.other > 0 {
            text.push_str(&format!("; another one in {}", self.other));
        }
        if self.inconclusive > 0 {
            text.push_str(&format!("; inconclusive in {}", self.inconclusive));
        }
        text.push('\n');
        for ((kind, oracle), count) in &self.seen {
            let oracle = harness::report::oracle_name(*oracle);
            text.push_str(&format!("{count:>6} x {kind:?} ({oracle})\n"));
        }
        if self.exact {
            text.push_str(&format!("identical histories: {} of {}\n", self.identical, self.total));
        }
        cmd::print(&text);
        if self.same + self.other > 0 {
            Exit::Anomalous
        } else if self.inconclusive == self.total {
            Exit::Untestable
        } else {
            Exit::Explained
        }
    }
}
