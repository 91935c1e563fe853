//! `pinfuzz show`: prints a program in its canonical form, a saved history as a timeline, or what a campaign exercised and what met what in it.

use crate::cmd;
use harness::exit::{Error, Exit};
use harness::report::timeline::{self, Marks};
use harness::report::{Exercised, Meetings, SCHEMA};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Print a program in its canonical form, a saved history as a timeline, or the tables of a campaign
#[derive(clap::Args)]
pub struct Args {
    /// A program; with `--history` a find's `history.jsonl`; with `--meetings` or `--exercised` a run's `report.json`; or their folders
    file: PathBuf,
    /// Print what happened, call by call
    #[arg(long)]
    history: bool,
    /// Print how often which change met a page that was held by what, and which call a lease, in Markdown
    #[arg(long, conflicts_with = "history")]
    meetings: bool,
    /// Print which forms of calls a campaign issued, how they ended, and which it never did, in Markdown
    #[arg(long, conflicts_with_all = ["history", "meetings"])]
    exercised: bool,
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
        cmd::print(
            &read_report::<WithMeetings>(&file("report.json"), "--meetings", MEETINGS_SINCE)?
                .meetings
                .to_markdown(),
        );
    } else if args.exercised {
        let report: WithExercised =
            read_report(&file("report.json"), "--exercised", EXERCISED_SINCE)?;
        cmd::print(&report.exercised.to_markdown());
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

/// The part of a report that `--meetings` shows.
#[derive(Deserialize)]
struct WithMeetings {
    meetings: Meetings,
}

/// The part of a report that `--exercised` shows.
#[derive(Deserialize)]
struct WithExercised {
    exercised: Exercised,
}

/// The first schemas that have these parts; they are the same since.
const MEETINGS_SINCE: u32 = 2;
const EXERCISED_SINCE: u32 = 3;

/// Reads a part of a `report.json` for that option.
fn read_report<T: DeserializeOwned>(path: &Path, option: &str, since: u32) -> Result<T, Error> {
    let text = cmd::read_text(path)?;
    let wrong = |what: String| {
        let what = format!("{}: {what}", path.display());
        let hint =
            format!("`pinfuzz show {option}` wants the `report.json` of a campaign's folder");
        Error::usage(what, hint)
    };
    let no_report = |error: serde_json::Error| wrong(format!("no report of a campaign: {error}"));
    let Version { schema } = serde_json::from_str(&text).map_err(no_report)?;
    if !(since..=SCHEMA).contains(&schema) {
        return Err(wrong(format!(
            "a report of schema {schema}; this is about {since} to {SCHEMA}"
        )));
    }
    serde_json::from_str(&text).map_err(no_report)
}
