//! `pinfuzz show`: prints a program in its canonical form, or a saved history as a timeline.

use crate::cmd;
use harness::exit::{Error, Exit};
use harness::report::timeline::{self, Marks};
use std::path::PathBuf;

/// Print a program in its canonical form, or a saved history as a timeline
#[derive(clap::Args)]
pub struct Args {
    /// A program, or with `--history` a find's `history.jsonl`
    file: PathBuf,
    /// Print what happened, call by call
    #[arg(long)]
    history: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let is_find = args.file.is_dir();
    if args.history {
        let path = if is_find { args.file.join("history.jsonl") } else { args.file.clone() };
        let record = cmd::read_record(&path)?;
        cmd::print(&timeline::program(&record.program, &Marks::default()));
        cmd::print("\n");
        let policy = checker::Policy::for_release("");
        let waits = checker::waits(&record.program, &record.history, &policy);
        cmd::print(&timeline::history(&record.program, &record.history, &waits));
    } else {
        let path = if is_find { args.file.join("program.prog") } else { args.file.clone() };
        cmd::print(&cmd::read_program(&path)?.to_string());
    }
    Ok(Exit::Explained)
}
