//! `pinfuzz`: the command line.
//!
//! Parses the words, runs one subcommand and turns what came of it into an exit code. Does no work of its own.

mod cmd;

use clap::Parser;
use clap::error::ErrorKind;
use harness::exit::{Error, Exit};
use std::io::Write;
use std::process::ExitCode;

/// Fuzz real Linux kernels where pinned pages, DAX, leases and layout changes meet, and judge every byte
#[derive(Parser)]
#[command(name = "pinfuzz", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes (as `git bisect run` wants them):
  0    explained: nothing wrong was found
  1    anomalous: the kernel did something that no rule explains
  125  untestable: no boot, no guest, no room to report, or nothing conclusive
  129  the command line, or a file that it names, is wrong
  134  a bug of pinfuzz";

#[derive(clap::Subcommand)]
enum Command {
    Campaign(cmd::campaign::Args),
    Run(cmd::run::Args),
    Repro(cmd::repro::Args),
    Check(cmd::check::Args),
    Show(cmd::show::Args),
    Coverage(cmd::coverage::Args),
    Generate(cmd::generate::Args),
    Bench(cmd::bench::Args),
    Kernel(cmd::kernel::Args),
    Doctor(cmd::doctor::Args),
}

impl Command {
    fn run(self) -> Result<Exit, Error> {
        match self {
            Command::Campaign(args) => cmd::campaign::run(&args),
            Command::Run(args) => cmd::run::run(&args),
            Command::Repro(args) => cmd::repro::run(&args),
            Command::Check(args) => cmd::check::run(&args),
            Command::Show(args) => cmd::show::run(&args),
            Command::Coverage(args) => cmd::coverage::run(&args),
            Command::Generate(args) => cmd::generate::run(&args),
            Command::Bench(args) => cmd::bench::run(&args),
            Command::Kernel(args) => cmd::kernel::run(&args),
            Command::Doctor(args) => cmd::doctor::run(&args),
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Explained.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    // A panic is a bug of ours and has a code of its own; the 101 of the standard library would make bisect blame a commit.
    let result = std::panic::catch_unwind(|| cli.command.run()).unwrap_or_else(|_| {
        Err(Error::Internal("an invariant broke; the panic message above says which".into()))
    });
    let exit = result.unwrap_or_else(|error| {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "error: {error}");
        let _ = writeln!(stderr, "  hint: {}", error.hint());
        error.exit()
    });
    exit.into()
}
