//! Kernels that were built: what is kept of each, and their names.
//!
//! An entry never changes; a name is moved to the entry that was built last under it.

use super::source::Origin;
use super::{BuildError, profile};
use crate::machine::cache::Cache;
use crate::machine::digest::Digest;
use crate::machine::kernel::Kernel;
use crate::machine::{file_trouble, infra, kernel};
use crate::target::TargetError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Kind of the cache entries that hold them.
pub const KIND: &str = "kernels-built";
/// Which entry a name stands for is remembered under this and the name.
const FACT: &str = "kernel-built-";
/// The record's file in an entry.
const RECORD: &str = "build.json";
/// Most characters of a name: with what the cache puts around it, it is a file's name.
const NAME_MAX: usize = 120;
/// Digits of a digest in a name.
const SHORT: usize = 8;

/// How a kernel was built: `build.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it was called first.
    pub name: String,
    /// Where the source came from, in words.
    pub source: String,
    /// Where the source lay while it was compiled: the debug lines of `vmlinux` name files under it. It changes with the next build.
    pub tree: PathBuf,
    /// Where the same source lies for good.
    pub source_dir: PathBuf,
    /// `uname -r`.
    pub release: String,
    /// Profiles, `base` first.
    pub profiles: Vec<String>,
    /// Fragments by name, with digests.
    pub fragments: Vec<(String, String)>,
    /// Patches by file and subject, with digests.
    pub patches: Vec<(String, String)>,
    /// Digest of the configuration.
    pub config: String,
    /// Compiler and linker.
    pub compiler: String,
    /// Objects that were compiled for it.
    pub compiled: u64,
    /// How long it took.
    pub seconds: f64,
    /// When it was done (UTC).
    pub when: String,
}

/// A kernel that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its name, for `--kernel`.
    pub name: String,
    /// The entry: `bzImage`, `vmlinux`, `config`, `build.json`.
    pub dir: PathBuf,
    /// How it was built.
    pub record: Record,
}

impl Built {
    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    }
}

/// What a kernel is called if nobody says otherwise; `own` tells apart what the words do not.
pub fn name(origin: &Origin, profiles: &[String], own: Option<Digest>) -> String {
    let words = with_profiles(&origin.stem, profiles);
    let digest = own.map(|digest| format!("-{}", &digest.to_string()[..SHORT])).unwrap_or_default();
    words + &digest
}

/// Whether a text can be the name of a kernel that was built: one word, and no path.
pub fn is_name(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-+:@".contains(c);
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fine)
}

/// A name of Debian's with its profiles in their order; `+kcov+gup_test` is `+gup_test+kcov`.
fn ordered(name: &str) -> String {
    let mut words = name.split('+');
    let stem = words.next().unwrap_or_default();
    let words: Vec<String> = words.map(str::to_string).collect();
    match profile::sorted(&words) {
        Ok(profiles) if stem.starts_with("debian:") && !words.is_empty() => {
            with_profiles(stem, &profiles)
        }
        _ => name.into(),
    }
}

/// A stem and its profiles; `base` is said only where it is alone.
fn with_profiles(stem: &str, profiles: &[String]) -> String {
    let added: Vec<&str> = profiles.iter().map(String::as_str).filter(|p| *p != "base").collect();
    format!("{stem}+{}", if added.is_empty() { "base".into() } else { added.join("+") })
}

/// A name that a user may give.
pub fn check_name(name: &str) -> Result<(), BuildError> {
    let wrong = |what: String| {
        BuildError::wrong(what, "choose a word of letters, digits and .-_+@, such as my-fix+kcov")
    };
    if !is_name(name) {
        return Err(wrong(format!("`{}` is no name for a kernel", name.escape_debug())));
    }
    if name.contains(':') {
        return Err(wrong(format!(
            "`{name}` would be taken for one of Debian's kernels, or for a path with modules"
        )));
    }
    Ok(())
}

/// Lets the name stand for that entry.
pub fn remember(cache: &Cache, name: &str, key: &str) -> Result<(), TargetError> {
    if cache.recall(&format!("{FACT}{name}")).as_deref() == Some(key) {
        return Ok(());
    }
    cache.remember(&format!("{FACT}{name}"), key)
}

/// The kernel of that name, if it was built.
pub fn find(name: &str, cache: &Cache) -> Option<Built> {
    if !is_name(name) {
        return None;
    }
    let name = &ordered(name);
    open(cache, name, cache.recall(&format!("{FACT}{name}"))?.trim()).ok()
}

/// All kernels that have a name, by name.
pub fn list(cache: &Cache) -> Vec<Built> {
    let named = cache.facts(FACT);
    named.iter().filter_map(|name| find(name, cache)).collect()
}

/// The entry under that key.
pub fn open(cache: &Cache, name: &str, key: &str) -> Result<Built, TargetError> {
    let dir =
        cache.find(KIND, key).ok_or_else(|| infra(format!("kernel {name} left the cache")))?;
    let path = dir.join(RECORD);
    let text = fs::read_to_string(&path).map_err(file_trouble("reading", &path))?;
    let record = serde_json::from_str(&text)
        .map_err(|error| infra(format!("{} is broken: {error}", path.display())))?;
    Ok(Built { name: name.into(), dir, record })
}

/// Fills an entry from a build tree.
pub fn fill(dir: &Path, objects: &Path, record: &Record) -> Result<(), TargetError> {
    for (from, to) in
        [("arch/x86/boot/bzImage", "bzImage"), ("vmlinux", "vmlinux"), (".config", "config")]
    {
        let (from, to) = (objects.join(from), dir.join(to));
        // A copy: make writes over its own.
        fs::copy(&from, &to).map_err(file_trouble("keeping", &from))?;
    }
    let text = serde_json::to_string_pretty(record).map_err(infra)? + "\n";
    let path = dir.join(RECORD);
    fs::write(&path, text).map_err(file_trouble("writing", &path))
}

/// As a kernel under test.
pub fn kernel(built: &Built) -> Result<Kernel, TargetError> {
    let image = built.dir.join("bzImage");
    Ok(Kernel {
        name: built.name.clone(),
        release: kernel::release(&image)?,
        vmlinux: kernel::vmlinux_beside(&image),
        modules: None,
        image,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_may_be_named_in_any_order() {
        for (name, stands_for) in [
            ("debian:6.12+kcov+gup_test", "debian:6.12+gup_test+kcov"),
            ("debian:6.1+base+kcov", "debian:6.1+kcov"),
            ("debian:6.1+base", "debian:6.1+base"),
            ("debian:6.12", "debian:6.12"),
            ("debian:6.12+x+a", "debian:6.12+x+a"),
            ("linux+kcov+gup_test", "linux+kcov+gup_test"),
        ] {
            assert_eq!(ordered(name), stands_for);
        }
    }
}
