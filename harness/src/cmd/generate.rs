//! `pinfuzz generate`: prints the programs of a campaign without running them.

use crate::cmd::{self, values};
use harness::campaign::seeds;
use harness::exit::{Error, Exit};
use harness::fuzz_target::FuzzTarget;
use program::{Mount, Vocabulary};

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
    /// The programs of a fuzz target: at home on its mounts (or those of `--image`), of its vocabulary
    #[arg(long, value_name = "NAME", value_parser = values::fuzz_target)]
    fuzz_target: Option<&'static FuzzTarget>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let (homes, vocabulary) = match args.fuzz_target {
        Some(target) => (homes_of(target, &args.images)?, target.vocabulary),
        None => (cmd::campaign::homes(&args.images), Vocabulary::USUAL),
    };
    for number in args.first..args.first.saturating_add(args.count) {
        let program = seeds::program_with(args.seed, number, &homes, &vocabulary);
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

/// The homes that were asked for, all of which the target must have; or all of its own.
pub fn homes_of(target: &FuzzTarget, images: &[values::Image]) -> Result<Vec<Mount>, Error> {
    if images.is_empty() {
        return Ok(target.homes.to_vec());
    }
    let homes = cmd::campaign::homes(images);
    if let Some(home) = homes.iter().find(|home| !target.homes.contains(home)) {
        let names: Vec<&str> = target.homes.iter().map(|home| home.name()).collect();
        return Err(Error::usage(
            format!("no program of {} is at home on {home}", target.name),
            format!("leave `--image` away, or choose among {}", names.join(", ")),
        ));
    }
    Ok(homes)
}
