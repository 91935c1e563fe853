//! Snapshots: a guest is booted once, saved with its file systems mounted, and every later start begins there.
//!
//! Memory is not copied: a restored guest maps the saved memory privately. Only the media and the ring of jobs, a few MiB of
//! data, are copied for each start, because we read them while the guest runs.

use super::super::TargetError;
use super::command::{self, Files, TAIL};
use super::shm::Shm;
use super::vm::{Death, Start, Vm};
use super::{Config, Mode};
use crate::machine::cache::{Cache, Lock};
use crate::machine::digest::Digest;
use crate::machine::image::{Image, Pmem};
use crate::machine::kernel::Kernel;
use crate::machine::scratch::{self, Scratch};
use crate::machine::{agent, file_trouble, infra, initramfs, sparse, tail};
use history::wire::{self, Hello};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Kind of the cache entries that hold snapshots.
pub const KIND: &str = "snapshots";
/// Bump when snapshots are made in another way.
const FORM: &str = "snapshot 1";
/// A stock kernel is up in 5 s under TCG on an idle machine, in 60 s where six builds run beside it.
pub const BOOT_PATIENCE: Duration = Duration::from_secs(240);
/// How often an emulated kernel may die while it boots before it is the kernel's doing. Under load, QEMU's TCG with two processors was seen to
/// run code that the other one was patching (a static branch in sched_clock_cpu), about once in a hundred boots.
const BOOT_TRIES: u32 = 3;
/// How the report of a boot begins that ended in the guest's death.
const WENT_DOWN: &str = "it went down";
/// Free bytes that a snapshot needs: what a booted guest has touched of its memory, with some air.
const ROOM: u64 = 256 << 20;
/// Guest time for what the kernel does behind a mount (log workers, deferred frees), so that no program meets it.
const SETTLE: Duration = Duration::from_millis(1500);
/// Most bytes of the console that an error quotes.
const CONSOLE_MAX: usize = 2000;
/// How often a booting guest is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What is known about a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// What the agent said of itself.
    pub hello: Hello,
    /// The kernel's command line.
    pub line: String,
    /// PCI address of the shared memory.
    pub shm_address: u64,
    /// Seconds from power-on to a ready agent.
    pub boot_seconds: f64,
}

/// A snapshot in the cache.
#[derive(Debug)]
pub struct Snapshot {
    /// Where it lies.
    pub dir: PathBuf,
    /// What is known about it.
    pub facts: Facts,
    /// Keeps it in the cache.
    _hold: Lock,
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Its version.
    pub version: String,
    /// The kernel.
    pub kernel: Kernel,
    /// The image.
    pub image: Image,
    /// Fast or exact.
    pub mode: Mode,
    /// KVM or TCG.
    pub kvm: bool,
    /// The kernel's command line.
    pub line: String,
    /// The initramfs.
    pub initramfs: Vec<u8>,
}

impl Recipe {
    /// Puts a recipe together.
    pub fn new(
        config: &Config,
        qemu: PathBuf,
        version: String,
        kernel: Kernel,
        image: Image,
    ) -> Result<Recipe, TargetError> {
        let line = command::kernel_line(&image, &config.append);
        let initramfs = initramfs::build(&kernel, &image)?;
        // It has to fit into the memory behind the media, with room for the ACPI tables and page borders.
        if image.pmem == Pmem::E820 && initramfs.len() as u64 > TAIL - (4 << 20) {
            return Err(infra(format!(
                "the initramfs of {} has {} MiB, more than fit: strip the modules of debug information",
                kernel.name,
                initramfs.len() >> 20
            )));
        }
        Ok(Recipe { qemu, version, kernel, image, mode: config.mode, kvm: false, line, initramfs })
    }

    /// The name of the snapshot: everything that shapes the guest.
    fn key(&self) -> Result<String, TargetError> {
        let kernel =
            fs::read(&self.kernel.image).map_err(file_trouble("reading", &self.kernel.image))?;
        let digest = Digest::default()
            .with(FORM.as_bytes())
            .with(&kernel)
            .with(&self.initramfs)
            .with(agent::ELF)
            .with(self.image.layout().as_bytes())
            .with(format!("{:?} {}", self.mode, self.kvm).as_bytes())
            .with(self.version.as_bytes())
            .with(self.line.as_bytes());
        let mode = if self.mode == Mode::Exact { "exact" } else { "fast" };
        let accel = if self.kvm { "kvm" } else { "tcg" };
        Ok(format!("{}-{mode}-{accel}-{digest}", self.kernel.release))
    }

    /// Bytes of scratch that a booting guest needs, if all of its memory were used.
    fn need(&self) -> u64 {
        let media: u64 = self.image.media.iter().map(|m| self.image.file_size(m)).sum();
        self.image.memory + TAIL + media + wire::SHM_SIZE
    }

    /// Whether guests of this kind can be saved: QEMU 7.2 does not save the queues of virtio-pmem, and a restored guest waits for
    /// its first flush for ever.
    pub fn can_be_saved(&self) -> bool {
        self.image.pmem != Pmem::VirtioPmem
    }

    /// Boots a guest for use, without a snapshot.
    pub fn boot_only(&self, scratch: &Scratch) -> Result<(Vm, Facts), TargetError> {
        let (vm, boot_seconds) = self.boot(scratch, BOOT_PATIENCE)?;
        let hello = self.hello(&vm)?;
        Ok((vm, Facts { hello, line: self.line.clone(), shm_address: 0, boot_seconds }))
    }

    /// Bytes of scratch that a target's guests need.
    pub fn need_running(&self) -> u64 {
        if !self.can_be_saved() {
            return self.need();
        }
        // Media hold a few MiB when they are fresh and some 100 MiB after a batch; all of it twice would be a waste to ask for.
        (256 << 20) + wire::SHM_SIZE
    }

    /// Boots a guest in `scratch` and returns it when the agent is ready, with the seconds that took. A kernel is given up when it dies
    /// every time.
    pub fn boot(&self, scratch: &Scratch, patience: Duration) -> Result<(Vm, f64), TargetError> {
        let tries = if self.kvm { 1 } else { BOOT_TRIES };
        for _ in 1..tries {
            match self.boot_once(scratch, patience) {
                Err(TargetError::Boot { what, .. }) if what.starts_with(WENT_DOWN) => {}
                other => return other,
            }
        }
        self.boot_once(scratch, patience)
    }

    fn boot_once(&self, scratch: &Scratch, patience: Duration) -> Result<(Vm, f64), TargetError> {
        let dir = fresh(scratch)?;
        for index in 0..self.image.media.len() {
            self.image.make(index, &dir.join(format!("media{index}")))?;
        }
        let initramfs = dir.join("initramfs");
        fs::write(&initramfs, &self.initramfs).map_err(file_trouble("writing", &initramfs))?;
        let shm = Shm::create(&dir.join("shm"))?;
        let args = self.boot_args(&dir);
        let media = self.image.media.len();
        let begin = Instant::now();
        let memory = self.memory();
        let mut vm = Vm::start(Start {
            qemu: &self.qemu,
            args,
            dir: &dir,
            media,
            memory,
            shm,
            state: None,
        })?;
        self.await_agent(&mut vm, begin + patience)?;
        Ok((vm, begin.elapsed().as_secs_f64()))
    }

    /// The arguments of a guest that is booted.
    pub fn boot_args(&self, dir: &Path) -> Vec<std::ffi::OsString> {
        let files = Files { memory: dir, share: true, dir };
        let mut args = command::machine(&self.image, self.mode, self.kvm, files);
        args.extend(command::boot(&self.kernel.image, &dir.join("initramfs"), &self.line));
        args
    }

    fn await_agent(&self, vm: &mut Vm, deadline: Instant) -> Result<(), TargetError> {
        let fail = |vm: &mut Vm, what: &str| {
            vm.console.poll();
            let text = vm.console.text();
            let words = tail(text.trim(), CONSOLE_MAX);
            let what = if words.is_empty() {
                format!("{what}; its console is empty; qemu says: {}", vm.complaint())
            } else {
                format!("{what}; last words:\n{words}")
            };
            Err(TargetError::Boot { kernel: self.kernel.name.clone(), what })
        };
        loop {
            match vm.shm.agent()? {
                wire::AGENT_READY => return Ok(()),
                wire::AGENT_FAILED => {
                    let what = format!("the agent gave up: {}", vm.shm.error()?);
                    return fail(vm, &what);
                }
                _ => {}
            }
            match vm.death()? {
                None => {}
                Some(Death::Guest(_)) => return fail(vm, WENT_DOWN),
                Some(Death::Qemu(what)) => return Err(infra(what)),
            }
            // A broken KVM leaves the guest standing like this.
            match vm.status() {
                Ok(status) if status == "internal-error" => {
                    return fail(vm, "qemu met an internal error");
                }
                Ok(_) => {}
                // It ended between the two looks: the next one says how, if it ended at all.
                Err(error) => match vm.await_death()? {
                    Some(_) => continue,
                    None => return Err(error),
                },
            }
            if Instant::now() > deadline {
                return fail(vm, "the agent did not become ready in time");
            }
            vm.console.poll();
            if vm.console.is_flooded() {
                return fail(vm, "the console is flooded");
            }
            std::thread::sleep(POLL);
        }
    }

    /// The snapshot, made now if it is not in the cache. Tells whether a boot was needed.
    pub fn snapshot(
        &self,
        cache: &Cache,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<(Snapshot, bool), TargetError> {
        let key = self.key()?;
        let mut booted = false;
        // Whoever prunes may be faster than our hold: then it is made again.
        let (dir, hold) = loop {
            let dir = cache.entry(KIND, &key, |dir| {
                booted = true;
                let accel = if self.kvm { "KVM" } else { "TCG" };
                progress(&format!("booting {} with {accel} for a snapshot", self.kernel.name));
                self.make(cache, dir)
            })?;
            if let Some(hold) = cache.hold(KIND, &key)? {
                break (dir, hold);
            }
        };
        if booted && let Some((family, _)) = key.rsplit_once('-') {
            cache.prune(KIND, family);
        }
        let path = dir.join("facts.json");
        let text = fs::read_to_string(&path).map_err(file_trouble("reading", &path))?;
        let facts = serde_json::from_str(&text).map_err(infra)?;
        Ok((Snapshot { dir, facts, _hold: hold }, booted))
    }

    fn make(&self, cache: &Cache, dir: &Path) -> Result<(), TargetError> {
        scratch::expect_room(cache, ROOM, "a snapshot")?;
        let scratch = Scratch::new(cache, self.need())?;
        let (mut vm, boot_seconds) = self.boot(&scratch, BOOT_PATIENCE)?;
        let hello = self.hello(&vm)?;
        std::thread::sleep(SETTLE);
        vm.stop()?;
        let shm_address = vm.shm_address()?;
        vm.save(&dir.join("state"))?;
        let facts = Facts { hello, line: self.line.clone(), shm_address, boot_seconds };
        let keep = |name: &str, file: &File| {
            let path = dir.join(name);
            let copy = || {
                let to = File::create(&path)?;
                let length = file.metadata()?.len();
                to.set_len(length)?;
                sparse::copy(file, 0, length, &to, 0)
            };
            copy().map_err(|e| file_trouble("writing snapshot", &path)(e))
        };
        for (n, media) in vm.media.iter().enumerate() {
            keep(&format!("media{n}"), media)?;
        }
        keep("shm", vm.shm.file())?;
        for (name, file) in self.memory().iter().zip(&vm.memory) {
            keep(name, file)?;
        }
        let path = dir.join("facts.json");
        let text = serde_json::to_string_pretty(&facts).map_err(infra)?;
        fs::write(&path, text).map_err(file_trouble("writing", &path))
    }

    /// Names of the files behind main memory.
    fn memory(&self) -> &'static [&'static str] {
        if self.image.pmem == Pmem::E820 { &["ram", "tail"] } else { &["ram"] }
    }

    /// What the agent of a booted guest says of itself, which has to be what the image asked for: DAX may be off without any mount
    /// having failed (XFS does that).
    fn hello(&self, vm: &Vm) -> Result<Hello, TargetError> {
        let hello = vm.shm.hello()?;
        let fail = |what: String| Err(TargetError::Boot { kernel: self.kernel.name.clone(), what });
        if hello.dax.len() != self.image.media.len() {
            return fail(format!("the agent reports {} mounts", hello.dax.len()));
        }
        for (medium, dax) in self.image.media.iter().zip(&hello.dax) {
            if medium.mount.is_dax() != *dax {
                let (name, is) = (medium.mount.name(), if *dax { "on" } else { "off" });
                return fail(format!("DAX is {is} on {name}: {}", hello.mounts.join("; ")));
            }
        }
        Ok(hello)
    }

    /// The arguments of a restored guest.
    pub fn restore_args(&self, snapshot: &Snapshot, dir: &Path) -> Vec<std::ffi::OsString> {
        let files = Files { memory: &snapshot.dir, share: false, dir };
        let mut args = command::machine(&self.image, self.mode, self.kvm, files);
        args.extend(command::restore());
        args
    }

    /// Starts a guest from a snapshot. It is paused.
    pub fn restore(&self, snapshot: &Snapshot, scratch: &Scratch) -> Result<Vm, TargetError> {
        let dir = fresh(scratch)?;
        let copy = |name: &str| {
            let path = snapshot.dir.join(name);
            let copy = || {
                let from = File::open(&path)?;
                let length = from.metadata()?.len();
                let to = File::create(dir.join(name))?;
                to.set_len(length)?;
                sparse::copy(&from, 0, length, &to, 0)
            };
            copy().map_err(|e| file_trouble("copying snapshot", &path)(e))
        };
        let media = self.image.media.len();
        for n in 0..media {
            copy(&format!("media{n}"))?;
        }
        copy("shm")?;
        let path = snapshot.dir.join("state");
        let state = Some(File::open(&path).map_err(file_trouble("reading", &path))?);
        let shm = Shm::open(&dir.join("shm"))?;
        let args = self.restore_args(snapshot, &dir);
        let memory = &[];
        let mut vm =
            Vm::start(Start { qemu: &self.qemu, args, dir: &dir, media, memory, shm, state })?;
        vm.load(snapshot)?;
        Ok(vm)
    }
}

/// An empty directory for one guest's files.
fn fresh(scratch: &Scratch) -> Result<PathBuf, TargetError> {
    let dir = scratch.path().join("guest");
    if dir.exists() {
        // Of a guest that did not start.
        fs::remove_dir_all(&dir).map_err(file_trouble("clearing", &dir))?;
    }
    fs::create_dir(&dir).map_err(file_trouble("creating", &dir))?;
    Ok(dir)
}
