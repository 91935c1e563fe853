//! `pinfuzz check`: judges saved histories again, without any machine.

use crate::cmd;
use checker::{Policy, Verdict};
use harness::exit::{Error, Exit};
use harness::report::{explain, headline};
use std::path::PathBuf;

/// Whose rules hold where nothing says so.
const DEFAULT_RELEASE: &str = "6.12";

/// Judge saved histories again, without a guest
///
/// Useful after a change of the checker: a history that was anomalous may now be explained, or the other way round. The exit code is that of
/// the worst verdict.
#[derive(clap::Args)]
pub struct Args {
    /// Saved runs: `history.jsonl` files of finds, or the folders of finds
    #[arg(required = true, value_name = "RECORD.jsonl")]
    records: Vec<PathBuf>,
    /// Judge by the rules of this kernel release [default: that of the find, or 6.12]
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// Print one line a history
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let mut worst = Exit::Explained;
    for path in &args.records {
        let release = args.release.clone().or(cmd::release_of(path)?);
        let policy = Policy::for_release(release.as_deref().unwrap_or(DEFAULT_RELEASE));
        let path = if path.is_dir() { path.join("history.jsonl") } else { path.clone() };
        let record = cmd::read_record(&path)?;
        let verdict = checker::check(&record.program, &record.history, &policy);
        if args.quiet {
            cmd::print(&format!("{}: {}\n", path.display(), headline(&verdict)));
        } else {
            let waits = checker::waits(&record.program, &record.history, &policy);
            cmd::print(&explain(&record.program, &record.history, &verdict, &waits));
        }
        worst = cmd::run::worse(worst, cmd::run::exit(&verdict));
        debug_assert!(!matches!(verdict, Verdict::Anomalous(ref list) if list.is_empty()));
    }
    Ok(worst)
}
