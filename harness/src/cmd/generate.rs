//! `pinfuzz generate`: prints the programs of a campaign without running them.

use crate::cmd::{self, values};
use harness::campaign::seeds;
use harness::exit::{Error, Exit};

/// Print the programs of a campaign without running them
///
/// Program number N of a campaign depends on the campaign's seed and images alone, so this prints exactly what
/// `pinfuzz campaign` with the same `--seed` and `--image` runs.
#[derive(clap::Args)]
pub struct Args {
    /// The campaign's seed
    #[arg(long, value_name = "S", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// How many programs to print
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// The number of the first one
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// Home mount; may be repeated, and programs take turns [default: all four]
    #[arg(long = "image", value_name = "NAME", value_parser = values::image)]
    images: Vec<values::Image>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let homes = cmd::campaign::homes(&args.images);
    for number in args.first..args.first.saturating_add(args.count) {
        let program = seeds::program(args.seed, number, &homes);
        // A single program is printed bare, so that it can go straight into a file.
        if args.count > 1 {
            cmd::print(&format!("# seed {:#x}, program {number}\n", args.seed));
        }
        let text = program.to_string();
        cmd::print(text.trim_end());
        cmd::print(if args.count > 1 { "\n\n" } else { "\n" });
    }
    Ok(Exit::Explained)
}
