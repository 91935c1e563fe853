//! Kernels of our own: built from Debian's sources, a directory or a git revision, with profiles and patches, into the cache.
//!
//! source    where a tree comes from            profile   fragments of a configuration
//! patches   what is changed in it              verify    why a symbol did not stick (kconfig, expression)
//! tree      the copy that is compiled          make      the kernel's own build, watched
//! built     what is kept of it
//!
//! The copy of a source line (`kernel-trees/LINE/source`) stays where it is and changes only where it must, so that make's objects beside it
//! serve the next build. What is built goes into a content-addressed entry that never changes. Boots nothing.

mod built;
mod expression;
mod kconfig;
mod make;
mod patches;
mod profile;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

pub use built::{Built, Record, find, kernel, list};
pub use patches::Patch;
pub use profile::{PROFILES, objects};
pub use source::Source;

use super::cache::{Cache, Lock};
use super::digest::Digest;
use super::{file_trouble, infra, packages, scratch};
use crate::target::TargetError;
use make::Make;
use profile::Fragment;
use source::Origin;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tree::Overlay;

/// Bump when kernels are built in another way (make's arguments, the form of an entry).
const RECIPE: &str = "kernel build 1";
/// Where source lines are compiled. Nothing in it is an entry: it is only ever a head start.
const TREES: &str = "kernel-trees";
/// Free bytes that a first build needs: its objects (820 MB for base and kcov on 6.12, half as much again with KASAN) and what is kept.
const ROOM_FIRST: u64 = 2 << 30;
/// Free bytes that a build over old objects needs: what is kept (some 120 MB), and the objects that grow.
const ROOM_AGAIN: u64 = 512 << 20;
/// Objects of a build of whose kind none was finished yet: base and kcov on 6.12 have 2100.
const OBJECTS_GUESS: u64 = 2100;
/// How often a build that waits for another one looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What is compiled for.
const ARCH: &str = "ARCH=x86_64";
/// The configuration under all fragments.
const DEFCONFIG: &str = "x86_64_defconfig";

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tree.
    pub source: Source,
    /// Profiles by name; `base` is always one of them.
    pub profiles: Vec<String>,
    /// Further fragments: files of the user's.
    pub fragments: Vec<PathBuf>,
    /// Patch files and mboxes, in order.
    pub patches: Vec<PathBuf>,
    /// What it is to be called, if not by what it is made of.
    pub name: Option<String>,
    /// How many compilers run at a time.
    pub jobs: usize,
}

/// Why no kernel was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What the user named is not there or not right.
    #[error("{what}")]
    Wrong {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// This tree with these fragments and patches gives no kernel.
    #[error("{what}")]
    Failed {
        /// What came in between.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The user said stop.
    #[error("interrupted: no kernel was built")]
    Interrupted,
    /// Packages, disk, cache.
    #[error(transparent)]
    Machine(#[from] TargetError),
}

impl BuildError {
    fn wrong(what: impl Into<String>, hint: impl Into<String>) -> BuildError {
        BuildError::Wrong { what: what.into(), hint: hint.into() }
    }

    fn failed(what: impl Into<String>, hint: impl Into<String>) -> BuildError {
        BuildError::Failed { what: what.into(), hint: hint.into() }
    }
}

/// Follows a build.
pub trait Watch: Sync {
    /// What is being done now, one line without a full stop.
    fn step(&self, what: &str);
    /// So many objects are compiled, of about so many, if that can be told.
    fn compiled(&self, done: u64, of: Option<u64>);
}

/// Builds a kernel, or finds it built.
pub fn build(
    request: &Request,
    cache: &Cache,
    watch: &dyn Watch,
    stop: &AtomicBool,
) -> Result<Built, BuildError> {
    // A typing error is told before anything is installed or fetched.
    let words = Words::read(request, cache)?;
    packages::ensure(cache, &packages::KERNEL, &|line| watch.step(line))?;
    with_tools(request, words, cache, watch, stop)
}

/// What the command line names, read and found well-formed.
struct Words {
    profiles: Vec<String>,
    fragments: Vec<Fragment>,
    patches: Vec<Patch>,
}

impl Words {
    fn read(request: &Request, cache: &Cache) -> Result<Words, BuildError> {
        sound(cache)?;
        let profiles = profile::sorted(&request.profiles)?;
        let mut fragments = profile::embedded(&profiles)?;
        for path in &request.fragments {
            fragments.push(profile::read(path)?);
        }
        let patches = patches::read(&request.patches)?;
        if let Some(name) = &request.name {
            built::check_name(name)?;
        }
        source::check(&request.source)?;
        Ok(Words { profiles, fragments, patches })
    }
}

/// Builds where everything is installed that a build needs.
fn with_tools(
    request: &Request,
    words: Words,
    cache: &Cache,
    watch: &dyn Watch,
    stop: &AtomicBool,
) -> Result<Built, BuildError> {
    let begun = Instant::now();
    let Words { profiles, mut fragments, patches } = words;
    let origin = source::origin(&request.source, cache, &|line| watch.step(line))?;
    stopped(stop)?;
    let series = source::series(&origin.dir)?;
    for fragment in &mut fragments {
        fragment.settle(series)?;
    }
    let overlay = patches::overlay(&patches, &origin.dir)?;
    let plan = Plan {
        compiler: make::compiler()?,
        name: request.name.clone().unwrap_or_else(|| {
            let own = !matches!(request.source, Source::Debian(_))
                || !patches.is_empty()
                || !request.fragments.is_empty();
            built::name(&origin, &profiles, own.then(|| content(&origin, &patches, &fragments)))
        }),
        request,
        profiles,
        fragments,
        patches,
        origin,
        overlay,
    };
    let key = plan.key();
    if cache.find(built::KIND, &key).is_none() {
        plan.make(&key, cache, watch, stop, begun)?;
    }
    built::remember(cache, &plan.name, &key)?;
    Ok(built::open(cache, &plan.name, &key)?)
}

/// Everything that a build is made of.
struct Plan<'a> {
    request: &'a Request,
    name: String,
    profiles: Vec<String>,
    fragments: Vec<Fragment>,
    patches: Vec<Patch>,
    origin: Origin,
    overlay: Overlay,
    compiler: String,
}

impl Plan<'_> {
    /// The entry's key: a digest of all that the kernel depends on.
    fn key(&self) -> String {
        let content = content(&self.origin, &self.patches, &self.fragments);
        let digest = Digest::default()
            .with(content.to_string().as_bytes())
            .with(self.compiler.as_bytes())
            .with(self.objects().unwrap_or_default().as_bytes());
        format!("{}-{}-{digest}", self.origin.line, self.profiles.join("+"))
    }

    /// Make's words for the objects that report coverage, if any do.
    fn objects(&self) -> Option<String> {
        self.profiles.iter().any(|p| p == "kcov").then(|| {
            let patterns: Vec<&str> = objects().collect();
            // scripts/Makefile.lib asks for each object whether this is empty, and `$@` is that object then: no line of the tree changes.
            format!("KCOV_INSTRUMENT=$(if $(filter {},$@),y)", patterns.join(" "))
        })
    }

    fn make(
        &self,
        key: &str,
        cache: &Cache,
        watch: &dyn Watch,
        stop: &AtomicBool,
        begun: Instant,
    ) -> Result<(), BuildError> {
        let place = cache.root().join(TREES).join(&self.origin.line);
        let _lock = wait(cache, &format!("{TREES}-{}", self.origin.line), watch, stop)?;
        if cache.find(built::KIND, key).is_some() {
            return Ok(());
        }
        let profiles = self.profiles.join("+");
        let objects = place.join("objects").join(&profiles);
        let first = !objects.exists();
        let room = if first { ROOM_FIRST } else { ROOM_AGAIN };
        scratch::expect_room(cache, room, &format!("building {}", self.name))?;
        watch.step(&format!("preparing the source of {}", self.name));
        let source = place.join("source");
        tree::sync(&self.origin, &self.overlay, &source)?;
        self.origin.unchanged()?;
        stopped(stop)?;
        fs::create_dir_all(&objects).map_err(file_trouble("creating", &objects))?;
        let make = Make {
            source: &source,
            objects: &objects,
            log: place.join(format!("{profiles}.log")),
            jobs: self.request.jobs,
            stop,
        };
        make.begin()?;
        watch.step(&format!("configuring {}", self.name));
        self.configure(&make)?;
        let fact = format!("kernel-objects-{}-{profiles}", self.origin.line);
        let finished = cache.recall(&fact).and_then(|text| text.trim().parse::<u64>().ok());
        watch.step(&format!("compiling {}", self.name));
        // Old objects that were never finished count as done; which of finished ones are done again, only make knows.
        let (there, of) = match (finished, first) {
            (Some(_), false) => (0, None),
            (last, _) => (tree::objects(&objects), Some(last.unwrap_or(OBJECTS_GUESS))),
        };
        let mut done = there;
        watch.compiled(done, of);
        let mut variables = vec![];
        variables.extend(self.objects());
        make.run("bzImage", &variables, &mut |_| {
            done += 1;
            watch.compiled(done, of);
        })
        .map_err(|error| self.explain(error, &make))?;
        watch.step(&format!("keeping {}", self.name));
        let kept = self.keep_source(cache, &source)?;
        let record = Record {
            name: self.name.clone(),
            source: self.origin.words.clone(),
            tree: source.clone(),
            source_dir: kept,
            release: make.release()?,
            profiles: self.profiles.clone(),
            fragments: self.fragments.iter().map(Fragment::digested).collect(),
            patches: self.patches.iter().map(Patch::digested).collect(),
            config: Digest::default().with(&read(&objects.join(".config"))?).to_string(),
            compiler: self.compiler.clone(),
            compiled: done - there,
            seconds: begun.elapsed().as_secs_f64(),
            when: crate::report::clock::rfc3339(SystemTime::now()),
        };
        cache.entry(built::KIND, key, |dir| built::fill(dir, &objects, &record))?;
        make.end()?;
        let all = tree::objects(&objects);
        Ok(cache.remember(&fact, &all.to_string())?)
    }

    /// Defconfig, fragments, olddefconfig; then every wish is looked up in what came of it.
    fn configure(&self, make: &Make) -> Result<(), BuildError> {
        let mut names = vec![".config".to_string()];
        for (number, fragment) in self.fragments.iter().enumerate() {
            // Names of our own: a user's file may be called anything, and the script splits names at blanks.
            let name = format!(".fragment-{number}.config");
            let path = make.objects.join(&name);
            fs::write(&path, fragment.text()).map_err(file_trouble("writing", &path))?;
            names.push(name);
        }
        let tree = |error| self.explain(error, make);
        make.run(DEFCONFIG, &[], &mut |_| ()).map_err(tree)?;
        make.merge(&names).map_err(tree)?;
        make.run("olddefconfig", &[], &mut |_| ()).map_err(tree)?;
        let config = read(&make.objects.join(".config"))?;
        verify::stuck(make.source, &String::from_utf8_lossy(&config), &self.fragments)
    }

    /// What make had to say, as one error, with the patches that touched the files it names.
    fn explain(&self, error: make::Failure, make: &Make) -> BuildError {
        let failed = match error {
            make::Failure::Error(error) => return error,
            make::Failure::Make(failed) => failed,
        };
        let log = make.log.display();
        if failed.full {
            return infra(format!(
                "no space left while compiling {}: free some, or point XDG_CACHE_HOME elsewhere (log: {log})",
                self.name
            ))
            .into();
        }
        let mut what = format!("{} of {} failed", failed.target, self.name);
        let mut told = None;
        for line in &failed.lines {
            what.push_str(&format!("\n  {line}"));
            let file = line.split(':').next();
            // Once for the lines of a file that stand together.
            if told != file {
                for patch in self.patches.iter().filter(|patch| patch.names(line)) {
                    what.push_str(&format!("\n    changed by {patch}"));
                }
                told = file;
            }
        }
        if failed.more > 0 {
            what.push_str(&format!("\n  and {} more", failed.more));
        }
        BuildError::failed(
            what,
            format!("make's whole output is in {log}; what did compile is kept for the next build"),
        )
    }

    /// A tree that stays as it was compiled, for whoever shows lines of it later.
    fn keep_source(&self, cache: &Cache, source: &Path) -> Result<PathBuf, BuildError> {
        if self.patches.is_empty() && self.origin.kept {
            return Ok(self.origin.dir.clone());
        }
        let digest = digest_of_source(&self.origin, &self.patches);
        let key = format!("{}-{digest}", self.origin.line);
        Ok(cache.entry(source::KIND, &key, |dir| tree::link(source, dir))?)
    }
}

fn digest_of_source(origin: &Origin, patches: &[Patch]) -> Digest {
    let start = Digest::default().with(origin.key.as_bytes());
    patches.iter().fold(start, |digest, patch| digest.with(&patch.text))
}

/// What a kernel is made of, whoever compiles it.
fn content(origin: &Origin, patches: &[Patch], fragments: &[Fragment]) -> Digest {
    let start = digest_of_source(origin, patches).with(RECIPE.as_bytes());
    fragments.iter().fold(start, |digest, fragment| digest.with(fragment.text().as_bytes()))
}

/// The kernel's Makefiles split names at blanks and refuse colons.
fn sound(cache: &Cache) -> Result<(), BuildError> {
    let root = cache.root().to_string_lossy();
    match root.chars().find(|c| c.is_whitespace() || ":'\"$#%\\".contains(*c)) {
        None => Ok(()),
        Some(bad) => Err(BuildError::wrong(
            format!(
                "no kernel can be built in {}: make cannot bear {bad:?} in a path",
                root.escape_debug()
            ),
            "point XDG_CACHE_HOME to a path without it",
        )),
    }
}

fn stopped(stop: &AtomicBool) -> Result<(), BuildError> {
    if stop.load(Ordering::Relaxed) { Err(BuildError::Interrupted) } else { Ok(()) }
}

/// The lock of a source line, however long it takes, but not past a Ctrl-C.
fn wait(
    cache: &Cache,
    name: &str,
    watch: &dyn Watch,
    stop: &AtomicBool,
) -> Result<Lock, BuildError> {
    let mut told = false;
    loop {
        if let Some(lock) = cache.try_lock(name)? {
            return Ok(lock);
        }
        if !told {
            watch.step("waiting for another build of this source");
            told = true;
        }
        stopped(stop)?;
        thread::sleep(LOOK_EVERY);
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TargetError> {
    fs::read(path).map_err(file_trouble("reading", path))
}
