//! The `qemu` target: real Linux kernels in QEMU guests that are started from a snapshot.
//!
//! ```text
//! command   what QEMU and the kernel are told         snapshot  boot once, save, restore
//! spawn     a process that cannot outlive us          accel     does KVM work? boot and see
//! qmp       its control socket                        guest     jobs in, logs out, a watchdog
//! shm       the ring of jobs                          media     fsck and bytes behind extents
//! console   what the kernel says, run by run          batch     programs through guests
//! vm        all of these for one process
//! ```
//! Does not judge anything, and knows no command line of ours: `Config` is what it is told.

pub mod accel;
mod batch;
mod command;
mod console;
pub mod doctor;
mod guest;
mod media;
mod qmp;
mod shm;
pub mod snapshot;
mod spawn;
mod vm;

use super::{Done, Target, TargetError, TargetInfo, TargetStats};
use crate::machine::cache::Cache;
use crate::machine::image::{self, Pmem};
use crate::machine::scratch::{self, Scratch};
use crate::machine::{infra, kernel, packages};
use guest::Guest;
use program::Program;
use shm::Counters;
use snapshot::{Facts, Recipe, Snapshot};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

pub use vm::version;

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
    /// Every which run of a guest is kept until the media are looked at, in fast mode. The others are complete at once: for searches that
    /// wait for each run, since a look costs some 0.3 s.
    pub keep_every: u32,
}

/// Half of the runs are kept; the others make room, as files are removed in real life.
const KEEP_EVERY: u32 = 2;

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
            keep_every: KEEP_EVERY,
        }
    }
}

/// A target whose programs run in QEMU guests.
#[derive(Debug)]
pub struct QemuTarget {
    recipe: Recipe,
    facts: Facts,
    /// Where guests start; each is booted if there is none.
    snapshot: Option<Snapshot>,
    scratch: Scratch,
    info: TargetInfo,
    stats: TargetStats,
    /// The guest, if one lives.
    guest: Option<Guest>,
    /// Its counters when they were last added to `stats`.
    seen: Counters,
    /// Programs that a lost guest had taken in.
    queue: VecDeque<batch::Item>,
    record: bool,
    cover: bool,
    keep_every: u32,
}

impl QemuTarget {
    /// Makes sure that everything is there (packages, kernel, images, snapshot) and starts a guest. The first call for a
    /// kernel takes a while; `progress` is told what is being done, one line each, without a full stop.
    pub fn new(
        config: &Config,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<QemuTarget, TargetError> {
        let cache = Cache::open()?;
        QemuTarget::with_cache(config, &cache, progress)
    }

    /// As `new`, with a given cache.
    pub fn with_cache(
        config: &Config,
        cache: &Cache,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<QemuTarget, TargetError> {
        // Mistakes in names come before any work.
        let image = image::load(&config.image)?;
        if config.mode == Mode::Exact && image.pmem == Pmem::VirtioPmem {
            return Err(infra(format!(
                "image {} has no exact mode: virtio-pmem flushes on a thread of the host",
                image.name
            )));
        }
        cache.sweep();
        scratch::sweep(cache);
        let qemu = program(config, cache, progress)?;
        let version = version(&qemu)?;
        let kernel = kernel::find(&config.kernel, cache, progress)?;
        let mut recipe = Recipe::new(config, qemu, version, kernel, image)?;
        if config.mode == Mode::Fast {
            recipe.kvm = accel::choose(config.accel, &recipe, cache, progress)?.kvm;
        }
        let scratch = Scratch::new(cache, recipe.need_running())?;
        let (facts, snapshot, guest, booted) = if recipe.can_be_saved() {
            let (snapshot, booted) = recipe.snapshot(cache, progress)?;
            (snapshot.facts.clone(), Some(snapshot), None, booted)
        } else {
            progress(&format!("booting {}; this kind of image has no snapshots", config.kernel));
            let (vm, facts) = recipe.boot_only(&scratch)?;
            (facts, None, Some(Guest::new(vm)), true)
        };
        let args = snapshot.as_ref().map(|s| recipe.restore_args(s, Path::new(".")));
        let info = TargetInfo {
            release: facts.hello.release.clone(),
            version: facts.hello.version.clone(),
            kernel: config.kernel.clone(),
            cmdline: facts.line.clone(),
            accel: if recipe.kvm { "kvm" } else { "tcg" }.into(),
            mode: if config.mode == Mode::Exact { "exact" } else { "fast" }.into(),
            image: recipe.image.name.clone(),
            qemu: command::quoted(
                &recipe.qemu,
                &args.unwrap_or_else(|| recipe.boot_args(Path::new("."))),
            ),
        };
        let mut target = QemuTarget {
            recipe,
            facts,
            snapshot,
            scratch,
            info,
            stats: TargetStats { boots: u64::from(booted), ..TargetStats::default() },
            guest,
            seen: Counters::default(),
            queue: VecDeque::new(),
            record: true,
            cover: true,
            keep_every: config.keep_every.max(1),
        };
        // Trouble shows here rather than in the first batch.
        target.start()?;
        target.stats.resets = 0;
        Ok(target)
    }

    /// What the agent found in the guest: mounts, DAX, operations of io_uring.
    pub fn hello(&self) -> &history::wire::Hello {
        &self.facts.hello
    }

    /// Seconds that the snapshot's boot took.
    pub fn boot_seconds(&self) -> f64 {
        self.facts.boot_seconds
    }

    /// Runs a QMP command without arguments on the living guest, for tests of what becomes of a guest that is stopped or shaken.
    pub fn qmp(&mut self, command: &str) -> Result<(), TargetError> {
        self.guest()?.vm.command(command, serde_json::json!({})).map(drop)
    }

    /// Kills the living guest's QEMU behind our own back, for tests.
    pub fn kill(&mut self) -> Result<(), TargetError> {
        self.guest()?.vm.kill()
    }

    /// Starts a guest if none lives. In exact mode it stands still until its input is in place.
    fn start(&mut self) -> Result<(), TargetError> {
        if self.guest.is_some() {
            return Ok(());
        }
        let restore = |target: &QemuTarget| {
            let Some(snapshot) = &target.snapshot else {
                return Ok(target.recipe.boot_only(&target.scratch)?.0);
            };
            let mut vm = target.recipe.restore(snapshot, &target.scratch)?;
            if target.recipe.mode == Mode::Fast {
                vm.run()?;
            }
            Ok::<_, TargetError>(vm)
        };
        // A machine that is out of memory for a moment, say: once more, and then it is an error.
        let vm = restore(self).or_else(|_| restore(self))?;
        self.seen = vm.shm.counters()?;
        self.guest = Some(Guest::new(vm));
        self.stats.resets += 1;
        self.stats.boots += u64::from(self.snapshot.is_none());
        Ok(())
    }

    fn guest(&mut self) -> Result<&mut Guest, TargetError> {
        self.guest.as_mut().ok_or_else(|| infra("the guest is gone"))
    }

    /// Adds what the guest's counters have gained.
    fn account(&mut self) -> Result<(), TargetError> {
        let now = self.guest()?.vm.shm.counters()?;
        // They are the guest's word: they may go backwards in a broken one.
        self.stats.calls += now.calls.saturating_sub(self.seen.calls);
        self.stats.kernel_ns += now.kernel_ns.saturating_sub(self.seen.kernel_ns);
        self.stats.busy_ns += now.busy_ns.saturating_sub(self.seen.busy_ns);
        self.seen = now;
        Ok(())
    }
}

/// The QEMU program, and whatever else a guest needs.
fn program(
    config: &Config,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf, TargetError> {
    let needs = packages::GUEST.iter().copied();
    let needs: Vec<&str> =
        needs.filter(|p| config.qemu.is_none() || !p.starts_with("qemu")).collect();
    packages::ensure(cache, &needs, progress)?;
    config.qemu.clone().map_or_else(|| packages::expect("qemu-system-x86_64"), Ok)
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
        next: &mut dyn FnMut() -> Option<Program>,
        done: &mut dyn FnMut(Done),
    ) -> Result<bool, TargetError> {
        self.batch(next, done)
    }

    fn set_recording(&mut self, on: bool) -> bool {
        self.record = on;
        true
    }

    fn set_covering(&mut self, on: bool) -> bool {
        self.cover = on;
        self.facts.hello.kcov
    }

    fn reset(&mut self) -> Result<(), TargetError> {
        self.guest = None;
        self.start()
    }
}
