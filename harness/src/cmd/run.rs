//! `pinfuzz run`: runs program files once each and prints what came of it.

use crate::cmd::{self, TargetArgs};
use checker::{Policy, Verdict};
use harness::exit::{Error, Exit};
use harness::report::{explain, headline};
use std::path::PathBuf;

/// Run programs once each and print their verdicts
///
/// The exit code is that of the worst verdict: anomalous before inconclusive before explained.
#[derive(clap::Args)]
pub struct Args {
    /// Program files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Print one line a program
    #[arg(short, long)]
    quiet: bool,
    /// Save what was seen here, for `check` and `show --history`
    #[arg(long, value_name = "RECORD.jsonl")]
    save: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    // All files are parsed first: a typing error in the last one should not cost a boot.
    let programs = args
        .files
        .iter()
        .map(|path| Ok((path, args.target.rehome(cmd::read_program(path)?)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let save_one = args.save.as_ref().filter(|_| programs.len() > 1);
    if save_one.is_some() {
        return Err(Error::usage("--save takes one program", "name a single FILE with --save"));
    }
    let mut target = args.target.choice(0)?.open(&|line| eprintln!("{line}"))?;
    let mut worst = Exit::Explained;
    for (path, program) in &programs {
        let done = target.execute(program)?;
        let policy = Policy::for_release(&target.info().release);
        let verdict = checker::check(&done.program, &done.history, &policy);
        if let Some(save) = &args.save {
            let record =
                history::Record { program: done.program.clone(), history: done.history.clone() };
            harness::report::write_atomically(save, history::record::write(&record).as_bytes())?;
        }
        if args.quiet {
            cmd::print(&format!("{}: {}\n", path.display(), headline(&verdict)));
        } else {
            let waits = checker::waits(&done.program, &done.history, &policy);
            cmd::print(&explain(&done.program, &done.history, &verdict, &waits));
        }
        worst = worse(worst, exit(&verdict));
    }
    Ok(worst)
}

/// The exit code of a single verdict.
pub fn exit(verdict: &Verdict) -> Exit {
    match verdict {
        Verdict::Explained => Exit::Explained,
        Verdict::Anomalous(_) => Exit::Anomalous,
        Verdict::Inconclusive(_) => Exit::Untestable,
    }
}

/// The worse of two codes.
pub fn worse(a: Exit, b: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Explained => 0,
        Exit::Untestable => 1,
        Exit::Anomalous => 2,
        Exit::Usage => 3,
        Exit::Internal => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}
