//! Where programs run: a real kernel in QEMU, or the in-memory fake.
//!
//! A target turns programs into histories. Its own trouble is a `TargetError` and never looks like a finding.

pub mod console;
pub mod fake;
pub mod qemu;

use history::History;
use program::Program;
use serde::{Deserialize, Serialize};

/// What a target is, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// `uname -r` of the kernel under test, or `fake`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `debian:6.12`, or the path of the bzImage.
    pub kernel: String,
    /// The kernel command line.
    pub cmdline: String,
    /// `tcg`, `kvm`, or `none` for the fake.
    pub accel: String,
    /// `fast` or `exact`.
    pub mode: String,
    /// The image's name.
    pub image: String,
    /// The QEMU command line, shell-quoted.
    pub qemu: String,
}

/// Running totals of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStats {
    /// Programs whose history was delivered.
    pub programs: u64,
    /// Calls issued.
    pub calls: u64,
    /// Guest nanoseconds spent inside calls of programs.
    pub kernel_ns: u64,
    /// Guest nanoseconds spent on programs in all.
    pub busy_ns: u64,
    /// Fresh starts from the snapshot.
    pub resets: u64,
    /// Of these, after the guest went down.
    pub resets_down: u64,
    /// Full boots.
    pub boots: u64,
    /// Clean unmounts whose media were checked by fsck.
    pub media_checks: u64,
}

/// A run that is complete.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was run.
    pub program: Program,
    /// What was seen.
    pub history: History,
    /// The console text of the run, bounded.
    pub console: String,
    /// Call sites of the kernel that the run passed: low 32 bits of their return addresses, ascending, each once. Empty without KCOV.
    pub reached: Vec<u32>,
}

/// Trouble that is not the kernel's doing, or that cannot be told from it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The kernel did not come up: the kernel's doing as far as is known.
    #[error("kernel {kernel} did not boot: {what}")]
    Boot {
        /// Which kernel.
        kernel: String,
        /// The last words on the console, or what was waited for.
        what: String,
    },
    /// Programs that a guest needs are not installed, and we may not install them.
    #[error("missing on this machine: {}; to install: {line}", packages.join(", "))]
    Missing {
        /// The Debian packages.
        packages: Vec<String>,
        /// The one command that installs them.
        line: String,
    },
    /// QEMU, image, disk or socket failed.
    #[error("{0}")]
    Infra(String),
}

/// Something that runs programs.
pub trait Target: Send {
    /// What it is.
    fn info(&self) -> TargetInfo;

    /// Totals so far.
    fn stats(&self) -> TargetStats;

    /// Runs one batch: draws programs from `next` until it returns `None` or the batch is full, and hands every
    /// complete history to `done` (in any order, possibly only at the end of the batch, when the media have been checked).
    /// A guest that goes down does so inside a history; the batch goes on in a fresh guest. Returns whether `next` returned `None`.
    fn run_batch(
        &mut self,
        next: &mut dyn FnMut() -> Option<Program>,
        done: &mut dyn FnMut(Done),
    ) -> Result<bool, TargetError>;

    /// Switches the recording of events on or off and returns whether the target can do that. Without it, histories come back empty:
    /// only to measure what recording costs.
    fn set_recording(&mut self, on: bool) -> bool {
        on
    }

    /// Switches the collection of coverage (`Done::reached`) on or off, on at first, and returns whether the target has any.
    fn set_covering(&mut self, _on: bool) -> bool {
        false
    }

    /// Goes back to the fresh state now, as it does by itself between batches: only to measure what that costs.
    fn reset(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    /// Runs one program with everything that is looked at after it.
    fn execute(&mut self, program: &Program) -> Result<Done, TargetError> {
        let mut once = Some(program.clone());
        let mut result = None;
        while !self.run_batch(&mut || once.take(), &mut |done| result = Some(done))? {}
        result.ok_or_else(|| TargetError::Infra("the target lost the program's history".into()))
    }
}
