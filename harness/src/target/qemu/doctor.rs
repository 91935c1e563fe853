//! What this machine has for running guests, and what it lacks.
//!
//! Looks only: installs nothing, and fetches a kernel only when told to. The one thing that it starts is a guest, to find out
//! whether KVM works.

use super::super::TargetError;
use super::snapshot::{self, Recipe};
use super::{Accel, Config, accel, vm};
use crate::machine::cache::Cache;
use crate::machine::{build, image, kernel, packages, scratch};
use std::fs;
use std::path::Path;

/// Free bytes that a first start needs in the cache: a kernel package, unpacked, and some snapshots.
const CACHE_NEED: u64 = 2 << 30;
/// Free bytes for the memory of one booting guest.
const SCRATCH_NEED: u64 = 1500 << 20;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Guests cannot run.
    Bad,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub text: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// In the order in which things are needed.
    pub list: Vec<Finding>,
    /// The one command that installs what is missing.
    pub install: Option<String>,
}

impl Findings {
    /// Whether guests can run.
    pub fn is_ready(&self) -> bool {
        self.list.iter().all(|f| f.state != State::Bad)
    }

    fn add(&mut self, subject: &str, state: State, text: impl Into<String>) {
        self.list.push(Finding { subject: subject.into(), state, text: text.into() });
    }
}

/// Looks at this machine. `fetch` allows fetching the kernel if it is not there.
pub fn examine(
    config: &Config,
    fetch: bool,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Findings, TargetError> {
    let mut findings = Findings::default();
    programs(&mut findings);
    let cache = match Cache::open() {
        Ok(cache) => cache,
        Err(error) => {
            findings.add("cache", State::Bad, error.to_string());
            return Ok(findings);
        }
    };
    space(&cache, &mut findings);
    let qemu = config.qemu.clone().or_else(|| packages::find("qemu-system-x86_64"));
    let name = &config.kernel;
    let known = !name.starts_with("debian:")
        || kernel::cached(name, &cache).is_some()
        || build::find(name, &cache).is_some();
    let before = findings.list.len();
    match qemu {
        None => findings.add("accelerator", State::Note, "unknown until qemu is installed"),
        Some(_) if !known && !fetch => findings.add(
            "accelerator",
            State::Note,
            format!("unknown until {name} is there; --fetch gets it (some 100 MB) and finds out"),
        ),
        Some(qemu) => {
            let chosen = choose(config, &qemu, &cache, progress);
            match chosen {
                Ok(choice) => {
                    let name = if choice.kvm { "KVM" } else { "TCG (emulation)" };
                    findings.add("accelerator", State::Good, format!("{name}: {}", choice.reason));
                }
                Err(error) => findings.add("accelerator", State::Bad, error.to_string()),
            }
        }
    }
    // A kernel may have been fetched just now; still it stands before what it serves for.
    let accelerator = findings.list.split_off(before);
    kernels(&cache, &mut findings);
    findings.list.extend(accelerator);
    snapshots(&cache, &mut findings);
    Ok(findings)
}

fn programs(findings: &mut Findings) {
    let mut names: Vec<&str> = packages::GUEST.iter().chain(&packages::DEBIAN).copied().collect();
    names.dedup();
    for name in names {
        match packages::find(name) {
            Some(path) if name.starts_with("qemu") => match vm::version(&path) {
                Ok(version) => {
                    findings.add(name, State::Good, format!("{} ({version})", path.display()))
                }
                Err(error) => findings.add(name, State::Bad, error.to_string()),
            },
            Some(path) => findings.add(name, State::Good, path.display().to_string()),
            None => {
                let package = packages::missing_packages(&[name]);
                let package = package.first().copied().unwrap_or_default();
                // Other kernels than Debian's can be used without apt.
                let state = if packages::DEBIAN.contains(&name) { State::Note } else { State::Bad };
                findings.add(name, state, format!("missing (package {package})"));
            }
        }
    }
    let missing = packages::missing_packages(&packages::GUEST);
    findings.install = (!missing.is_empty()).then(|| packages::line(&missing));
}

fn space(cache: &Cache, findings: &mut Findings) {
    let free = scratch::free(cache.root()).unwrap_or(0);
    let state = if free < CACHE_NEED { State::Note } else { State::Good };
    let text = format!(
        "{} ({} MiB used, {} MiB free)",
        cache.root().display(),
        used(cache.root()) >> 20,
        free >> 20
    );
    findings.add("cache", state, text);
    match scratch::place(cache, SCRATCH_NEED) {
        Ok(place) => {
            let free = scratch::free(&place).unwrap_or(0) >> 20;
            findings.add(
                "guest memory",
                State::Good,
                format!("{} ({free} MiB free)", place.display()),
            );
        }
        Err(error) => findings.add("guest memory", State::Bad, error.to_string()),
    }
}

fn kernels(cache: &Cache, findings: &mut Findings) {
    for (name, ..) in kernel::DEBIAN {
        match kernel::cached(name, cache) {
            Some(package) => {
                findings.add(name, State::Good, package);
            }
            None => {
                findings.add(name, State::Note, "not fetched yet; the first run that wants it does")
            }
        }
    }
    for built in build::list(cache) {
        let text = format!("built {}, {}", built.record.when, built.record.release);
        findings.add(&built.name, State::Good, text);
    }
}

fn choose(
    config: &Config,
    qemu: &Path,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<accel::Choice, TargetError> {
    let kernel = kernel::find(&config.kernel, cache, progress)?;
    let image = image::load(&config.image)?;
    let recipe = Recipe::new(config, qemu.into(), vm::version(qemu)?, kernel, image)?;
    accel::choose(Accel::Auto, &recipe, cache, progress)
}

fn snapshots(cache: &Cache, findings: &mut Findings) {
    let keys = cache.keys(snapshot::KIND);
    if keys.is_empty() {
        findings.add("snapshots", State::Note, "none; the first run boots a guest and makes one");
    }
    for key in keys {
        let size = used(&cache.root().join(snapshot::KIND).join(&key)) >> 20;
        // The digest behind the last dash says nothing to a reader.
        let name = key.rsplit_once('-').map_or(key.as_str(), |(name, _)| name);
        findings.add("snapshot", State::Good, format!("{name} ({size} MiB)"));
    }
}

/// Bytes that a directory takes.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => used(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
