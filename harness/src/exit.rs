//! How `pinfuzz` ends: every error, its exit code and what to do about it.
//!
//! The codes obey `git bisect run`, which reads 1 as bad, 125 as "cannot tell" and everything above 127 as "stop". Does not
//! print: an error is a value until `main` shows it.

use crate::machine::build::BuildError;
use crate::report::ReportError;
use crate::target::TargetError;
use std::path::PathBuf;

/// The exit codes, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was judged has an explanation.
    Explained = 0,
    /// At least one anomaly.
    Anomalous = 1,
    /// Nothing can be said: no boot, no guest, no disk, or nothing conclusive.
    Untestable = 125,
    /// The command line, or a file that it names, is wrong.
    Usage = 129,
    /// An invariant of pinfuzz broke: a bug of ours.
    Internal = 134,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that does not exist or make sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// A file of the user's could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program file does not parse.
    #[error("{}: {what}", path.display())]
    Program {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        what: String,
    },
    /// A saved history does not parse.
    #[error("{}: {what}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        what: String,
    },
    /// The target failed; nothing is known about the kernel.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No kernel was built.
    #[error(transparent)]
    Build(BuildError),
    /// A report could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Our own invariant broke.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// A usage error with its remedy.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Usage { what: what.into(), hint: hint.into() }
    }

    /// The code to leave with: exhaustive, so that a new error cannot forget its code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage { .. }
            | Error::Read { .. }
            | Error::Program { .. }
            | Error::Record { .. }
            | Error::Build(BuildError::Wrong { .. }) => Exit::Usage,
            Error::Target(
                TargetError::Boot { .. } | TargetError::Missing { .. } | TargetError::Infra(_),
            )
            | Error::Build(
                BuildError::Failed { .. } | BuildError::Interrupted | BuildError::Machine(_),
            )
            | Error::Report(_) => Exit::Untestable,
            Error::Internal(_) => Exit::Internal,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Error::Usage { hint, .. }
            | Error::Build(BuildError::Wrong { hint, .. } | BuildError::Failed { hint, .. }) => {
                hint.clone()
            }
            Error::Build(BuildError::Interrupted | BuildError::Machine(_)) => {
                "what was compiled is kept: the same command goes on from there".into()
            }
            Error::Read { .. } => "check the path and its permissions".into(),
            Error::Program { .. } => {
                "`pinfuzz generate --count 1` prints a well-formed program to compare with".into()
            }
            Error::Record { .. } => {
                "`pinfuzz check` wants the `history.jsonl` of a find's folder".into()
            }
            Error::Target(TargetError::Boot { .. }) => {
                "`pinfuzz doctor` checks this machine; try `--kernel debian:6.12` to tell the kernel from the machine".into()
            }
            Error::Target(TargetError::Missing { line, .. }) => {
                format!("run `{line}`, then the same command again")
            }
            Error::Target(TargetError::Infra(_)) => {
                "`pinfuzz doctor` checks this machine and says what is missing".into()
            }
            Error::Report(_) => {
                "free some space, then go on with `--resume RUN-DIR`, or choose another folder with `--reports DIR` or `--corpus DIR`; what was saved before is intact".into()
            }
            Error::Internal(_) => {
                "this is a bug of pinfuzz, not of the kernel: please report it with the output above".into()
            }
        }
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Error {
        match error {
            // Trouble of the machine is told as everywhere.
            BuildError::Machine(error) => Error::Target(error),
            error => Error::Build(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infrastructure_never_looks_like_a_finding() {
        for error in [
            TargetError::Infra("socket".into()),
            TargetError::Boot { kernel: "k".into(), what: "nothing".into() },
        ] {
            assert_eq!(Error::Target(error).exit(), Exit::Untestable);
        }
    }

    #[test]
    fn every_code_is_what_git_bisect_wants() {
        let codes =
            [Exit::Explained, Exit::Anomalous, Exit::Untestable, Exit::Usage, Exit::Internal];
        assert_eq!(codes.map(|code| code as u8), [0, 1, 125, 129, 134]);
    }
}
