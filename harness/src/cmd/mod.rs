//! The subcommands, one file each, and what they share: reading programs and choosing targets.
//!
//! Only these files know a terminal, the environment and the command line; the library knows none of them.

pub mod bench;
pub mod campaign;
pub mod check;
pub mod coverage;
pub mod doctor;
pub mod generate;
pub mod kernel;
mod live;
pub mod repro;
pub mod run;
pub mod show;
mod target;
mod values;

pub use target::TargetArgs;

use harness::exit::Error;
use harness::report::Provenance;
use history::Record;
use program::{Mount, Program};
use serde::Deserialize;
use std::io::Write;
use std::path::Path;

/// Largest program or history file that is read: far beyond any that we write, and small enough not to hurt.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a text file of the user's.
fn read_text(path: &Path) -> Result<String, Error> {
    let read = || {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| Error::Read { path: path.into(), source })
}

/// Reads and parses a program file.
fn read_program(path: &Path) -> Result<Program, Error> {
    let text = read_text(path)?;
    Program::parse(&text)
        .map_err(|error| Error::Program { path: path.into(), what: error.to_string() })
}

/// Reads a saved run.
fn read_record(path: &Path) -> Result<Record, Error> {
    let text = read_text(path)?;
    history::record::parse(&text)
        .map_err(|error| Error::Record { path: path.into(), what: error.to_string() })
}

/// What matters of `target.json`; the rest is for people.
#[derive(Deserialize)]
struct TargetFile {
    /// The options that choose the target again.
    select: Provenance,
    /// `uname -r` in the guest.
    release: String,
}

/// On which kernel a find was made, if it is the folder of one and says so.
fn release_of(find: &Path) -> Result<Option<String>, Error> {
    Ok(target_file(find)?.map(|file| file.release))
}

/// What a find says of its target, if it is the folder of one and does.
fn target_file(folder: &Path) -> Result<Option<TargetFile>, Error> {
    let path = folder.join("target.json");
    if !path.exists() {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&read_text(&path)?);
    parsed.map(Some).map_err(|error| Error::Record { path, what: error.to_string() })
}

/// The same program with another home: names without a mount follow it.
fn with_home(program: &Program, home: Mount) -> Result<Program, Error> {
    let text = program.to_string();
    let old = format!("image {}", program.home.name());
    let moved = text.replacen(&old, &format!("image {}", home.name()), 1);
    Program::parse(&moved)
        .map_err(|error| Error::Internal(format!("a printed program does not parse: {error}")))
}

/// Prints to standard output. A reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
