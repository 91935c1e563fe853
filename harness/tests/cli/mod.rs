//! Drives the real `pinfuzz` binary, as a user would.
//!
//! Not a test by itself.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a command said, and how it ended.
pub struct Output {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The command with its words, without a terminal.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinfuzz"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A campaign keeps its corpus where it stands: that of another test, or of an earlier run, would change what it does.
    let reports = words.iter().position(|word| *word == "--reports");
    let reports = reports.and_then(|at| words.get(at + 1)).map(Path::new);
    // One that shall not be there has a folder above it that is.
    if let Some(dir) = reports.and_then(|dir| dir.ancestors().find(|dir| dir.is_dir())) {
        command.current_dir(dir);
    }
    command
}

/// Runs it to its end.
pub fn pinfuzz(words: &[&str]) -> Output {
    output(command(words).output().expect("the binary starts"))
}

/// A finished process in words.
pub fn output(output: std::process::Output) -> Output {
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder that is removed with the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}
