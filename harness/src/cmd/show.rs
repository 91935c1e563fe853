//! `pinfuzz show`: prints a program in its canonical form, a saved history as a timeline, or what met what in a campaign.

use crate::cmd;
use harness::exit::{Error, Exit};
use harness::report::timeline::{self, Marks};
use harness::report::{Meetings, SCHEMA};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Print a program in its canonical form, a saved history as a timeline, or the meetings of a campaign
#[derive(clap::Args)]
pub struct Args {
    /// A program; with `--history` a find's `history.jsonl`; with `--meetings` a run's `report.json`; or their folders
    file: PathBuf,
    /// Print what happened, call by call
    #[arg(long)]
    history: bool,
    /// Print how often which change met a page that was held by what, and which call a lease, in Markdown
    #[arg(long, conflicts_with = "history")]
    meetings: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let file = |name: &str| match args.file.is_dir() {
        true => args.file.join(name),
        false => args.file.clone(),
    };
    if args.history {
        let record = cmd::read_record(&file("history.jsonl"))?;
        cmd::print(&timeline::program(&record.program, &Marks::default()));
        cmd::print("\n");
        let release = cmd::release_of(&args.file)?.unwrap_or_default();
        let policy = checker::Policy::for_release(&release);
        let waits = checker::waits(&record.program, &record.history, &policy);
        cmd::print(&timeline::history(&record.program, &record.history, &waits));
    } else if args.meetings {
        cmd::print(&read_meetings(&file("report.json"))?.to_markdown());
    } else {
        cmd::print(&cmd::read_program(&file("program.prog"))?.to_string());
    }
    Ok(Exit::Explained)
}

/// The version of a report, whatever else it has.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// The part of a report that is shown.
#[derive(Deserialize)]
struct Report {
    meetings: Meetings,
}

/// The first schema that has meetings; they are the same since.
const MEETINGS_SINCE: u32 = 2;

/// Reads the meetings of a `report.json`.
fn read_meetings(path: &Path) -> Result<Meetings, Error> {
    let text = cmd::read_text(path)?;
    let wrong = |what: String| {
        let what = format!("{}: {what}", path.display());
        Error::usage(
            what,
            "`pinfuzz show --meetings` wants the `report.json` of a campaign's folder",
        )
    };
    let no_report = |error: serde_json::Error| wrong(format!("no report of a campaign: {error}"));
    let Version { schema } = serde_json::from_str(&text).map_err(no_report)?;
    if !(MEETINGS_SINCE..=SCHEMA).contains(&schema) {
        return Err(wrong(format!(
            "a report of schema {schema}; this is about {MEETINGS_SINCE} to {SCHEMA}"
        )));
    }
    let report: Report = serde_json::from_str(&text).map_err(no_report)?;
    Ok(report.meetings)
}
