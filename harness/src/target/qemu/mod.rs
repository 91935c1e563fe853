//! The `qemu` target: real Linux kernels in QEMU guests that are started from a snapshot.
//!
//! Does not judge anything, and knows no command line: `Config` is what it is told.

use super::{Done, Target, TargetError, TargetInfo, TargetStats};
use program::Program;
use std::path::PathBuf;

/// How a guest is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// For campaigns: a guest that lives through many programs, two CPUs, KVM where it truly works.
    #[default]
    Fast,
    /// For confirming and minimising: one program per guest, one CPU, TCG with an instruction clock. The same program gives
    /// the same history, bit for bit.
    Exact,
}

/// Which accelerator is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM if a guest boots with it, else TCG.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// What a `QemuTarget` is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// `debian:6.12`, `debian:6.1`, or `BZIMAGE[:MODULES]`.
    pub kernel: String,
    /// An image's name (`xfs-dax`) or the path of its TOML file.
    pub image: String,
    /// Fast or exact.
    pub mode: Mode,
    /// The accelerator. Exact mode always uses TCG.
    pub accel: Accel,
    /// Which worker this is; names its files, so that workers do not meet.
    pub worker: usize,
    /// The QEMU program; `qemu-system-x86_64` from `PATH` otherwise.
    pub qemu: Option<PathBuf>,
    /// Words appended to the kernel command line.
    pub append: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            kernel: "debian:6.12".into(),
            image: "xfs-dax".into(),
            mode: Mode::Fast,
            accel: Accel::Auto,
            worker: 0,
            qemu: None,
            append: String::new(),
        }
    }
}

/// A target whose programs run in QEMU guests.
#[derive(Debug)]
pub struct QemuTarget {
    info: TargetInfo,
    stats: TargetStats,
}

impl QemuTarget {
    /// Makes sure that everything is there (packages, kernel, images, snapshot) and starts a guest. The first call for a
    /// kernel takes a while; `progress` is told what is being done, one line each, without a full stop.
    pub fn new(
        config: &Config,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<QemuTarget, TargetError> {
        progress("starting");
        Err(TargetError::Infra(format!("no guest for {} yet", config.kernel)))
    }
}

impl Target for QemuTarget {
    fn info(&self) -> TargetInfo {
        self.info.clone()
    }

    fn stats(&self) -> TargetStats {
        self.stats
    }

    fn run_batch(
        &mut self,
        _next: &mut dyn FnMut() -> Option<Program>,
        _done: &mut dyn FnMut(Done),
    ) -> Result<bool, TargetError> {
        Err(TargetError::Infra("no guest yet".into()))
    }
}
