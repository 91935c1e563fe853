//! The cache outside the tree: kernels, images and snapshots, each made once.
//!
//! An entry is made in a directory beside its place, gets a completion marker and is renamed. Whatever lacks the marker
//! was left by a run that was killed, and counts for nothing. Does not limit its size: `pinfuzz doctor` says what lies there.

use super::{file_trouble, infra};
use crate::target::TargetError;
use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file that says that an entry is whole. Its content is the version of the cache's form.
pub(crate) const MARKER: &str = ".complete";
/// Bump when entries of old runs must not be used any more.
const FORM: &str = "pinfuzz cache 1\n";
/// Prefix of directories in which entries are being made.
const TEMPORARY: &str = ".tmp-";

/// The cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// How often somebody who waits for an entry looks for it: making one takes seconds.
const AGAIN: Duration = Duration::from_millis(50);
/// How many entries of a family are kept. Each change of the agent makes another snapshot of some 120 MB; a bisection goes to and
/// fro between a few.
const FAMILY: usize = 6;

/// A lock that is held until it is dropped, also against other processes.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Cache {
    /// Opens `$XDG_CACHE_HOME/pinfuzz`, by default `~/.cache/pinfuzz`.
    pub fn open() -> Result<Cache, TargetError> {
        let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            // The XDG specification says that relative paths are to be ignored.
            (Some(cache), _) if Path::new(&cache).is_absolute() => PathBuf::from(cache),
            (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
            _ => return Err(infra("neither XDG_CACHE_HOME nor HOME is set")),
        };
        Cache::at(&base.join("pinfuzz"))
    }

    /// Opens a cache at `root`.
    pub fn at(root: &Path) -> Result<Cache, TargetError> {
        fs::create_dir_all(root.join("locks")).map_err(file_trouble("creating cache", root))?;
        Ok(Cache { root: root.to_path_buf() })
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for the lock of that name.
    pub fn lock(&self, name: &str) -> Result<Lock, TargetError> {
        let (path, file) = self.lock_file(name)?;
        file.lock().map_err(file_trouble("locking", &path))?;
        Ok(Lock { _file: file })
    }

    /// The file behind the lock of that name, made if there is none.
    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), TargetError> {
        let path = self.root.join("locks").join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(file_trouble("opening lock", &path))?;
        Ok((path, file))
    }

    /// The lock of that name, unless somebody has it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, TargetError> {
        let (path, file) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(file_trouble("locking", &path)(error)),
        }
    }

    /// The place of an entry, if it is there and whole.
    pub fn find(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let path = self.root.join(kind).join(key);
        let marker = fs::read_to_string(path.join(MARKER)).ok()?;
        (marker == FORM).then_some(path)
    }

    /// The place of an entry; `make` fills a fresh directory if there is none. Others who want the same wait meanwhile.
    pub fn entry(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), TargetError>,
    ) -> Result<PathBuf, TargetError> {
        let name = format!("{kind}-{key}");
        // Asked for again and again: who made the entry holds it from then on, for as long as a campaign lasts, and a lock that is waited for
        // would come only after that.
        let _lock = loop {
            if let Some(path) = self.find(kind, key) {
                return Ok(path);
            }
            match self.try_lock(&name)? {
                Some(lock) => break lock,
                None => std::thread::sleep(AGAIN),
            }
        };
        if let Some(path) = self.find(kind, key) {
            return Ok(path);
        }
        let folder = self.root.join(kind);
        let path = folder.join(key);
        let temporary = folder.join(format!("{TEMPORARY}{key}"));
        // We hold the lock: what lies in either place was left by a run that was killed.
        for leftover in [&path, &temporary] {
            if leftover.exists() {
                fs::remove_dir_all(leftover).map_err(file_trouble("clearing", leftover))?;
            }
        }
        fs::create_dir_all(&temporary).map_err(file_trouble("creating", &temporary))?;
        let made = make(&temporary).and_then(|()| {
            let marker = temporary.join(MARKER);
            fs::write(&marker, FORM).map_err(file_trouble("writing", &marker))?;
            // A marker must never reach the disk before what it vouches for.
            let dir = File::open(&temporary).map_err(file_trouble("opening", &temporary))?;
            rustix::fs::syncfs(&dir).map_err(|e| file_trouble("syncing", &temporary)(e.into()))?;
            fs::rename(&temporary, &path).map_err(file_trouble("renaming", &temporary))
        });
        if made.is_err() {
            // Best effort: the next run sweeps what cannot be removed now.
            let _ = fs::remove_dir_all(&temporary);
        }
        made.map(|()| path)
    }

    /// Keeps others from pruning an entry while the result lives, or nothing if it is gone already. Marks it as used just now.
    pub fn hold(&self, kind: &str, key: &str) -> Result<Option<Lock>, TargetError> {
        let path = self.root.join("locks").join(format!("{kind}-{key}"));
        let file = File::open(&path).map_err(file_trouble("opening lock", &path))?;
        file.lock_shared().map_err(file_trouble("locking", &path))?;
        let Some(entry) = self.find(kind, key) else {
            return Ok(None);
        };
        // Only the order of pruning depends on it.
        let marker = OpenOptions::new().append(true).open(entry.join(MARKER));
        let _ = marker.and_then(|m| m.set_modified(SystemTime::now()));
        Ok(Some(Lock { _file: file }))
    }

    /// Removes the entries of a family (keys that begin with `prefix`) that were used longest ago, but for those that are held.
    pub fn prune(&self, kind: &str, prefix: &str) {
        let used = |key: &String| {
            let marker = self.root.join(kind).join(key).join(MARKER);
            fs::metadata(marker).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let mut keys = self.keys(kind);
        keys.retain(|key| key.starts_with(prefix));
        keys.sort_by_key(used);
        let spare = keys.len().saturating_sub(FAMILY);
        for key in &keys[..spare] {
            let Ok(lock) = File::open(self.root.join("locks").join(format!("{kind}-{key}"))) else {
                continue;
            };
            if lock.try_lock().is_ok() {
                let dir = self.root.join(kind).join(key);
                // Without its marker a half-removed entry counts for nothing.
                let _ = fs::remove_file(dir.join(MARKER)).and_then(|()| fs::remove_dir_all(dir));
            }
        }
    }

    /// Keys of the whole entries of a kind, in order.
    pub fn keys(&self, kind: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(kind)) else {
            return Vec::new();
        };
        let mut keys: Vec<String> =
            entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        keys.retain(|key| self.find(kind, key).is_some());
        keys.sort();
        keys
    }

    /// Removes what killed runs left half-made. Entries that someone is making are left alone.
    pub fn sweep(&self) {
        let Ok(kinds) = fs::read_dir(&self.root) else {
            return;
        };
        for kind in kinds.flatten() {
            let Ok(entries) = fs::read_dir(kind.path()) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let Some(key) = name.strip_prefix(TEMPORARY) else {
                    continue;
                };
                let lock = format!("{}-{key}", kind.file_name().to_string_lossy());
                let Ok(file) = File::open(self.root.join("locks").join(lock)) else {
                    continue;
                };
                match file.try_lock() {
                    Ok(()) => drop(fs::remove_dir_all(entry.path())),
                    Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
                }
            }
        }
    }

    /// A small fact that is remembered: replaced as a whole.
    pub fn remember(&self, name: &str, text: &str) -> Result<(), TargetError> {
        let folder = self.root.join("facts");
        fs::create_dir_all(&folder).map_err(file_trouble("creating", &folder))?;
        let temporary = folder.join(format!("{TEMPORARY}{name}-{}", std::process::id()));
        fs::write(&temporary, text).map_err(file_trouble("writing", &temporary))?;
        let path = folder.join(name);
        fs::rename(&temporary, &path).map_err(file_trouble("writing", &path))
    }

    /// What follows `prefix` in the names of facts, in order.
    pub fn facts(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("facts")).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix(prefix)?.to_string())).collect();
        names.sort();
        names
    }

    /// A fact, if it was remembered.
    pub fn recall(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.join("facts").join(name)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        (dir, cache)
    }

    fn put(dir: &Path, name: &str, text: &str) -> Result<(), TargetError> {
        fs::write(dir.join(name), text).map_err(infra)
    }

    #[test]
    fn an_entry_is_made_once() {
        let (_dir, cache) = cache();
        let made = cache.entry("k", "x", |p| put(p, "f", "1")).unwrap();
        let again = cache.entry("k", "x", |_| panic!("made twice")).unwrap();
        assert_eq!(made, again);
        assert_eq!(fs::read_to_string(again.join("f")).unwrap(), "1");
        assert_eq!(cache.keys("k"), ["x"]);
    }

    #[test]
    fn who_waits_for_an_entry_does_not_wait_for_those_who_use_it() {
        let (_dir, cache) = cache();
        let (making, made) = std::sync::mpsc::channel();
        let (done, all) = std::sync::mpsc::channel();
        let cache = &cache;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let make = |path: &Path| {
                    making.send(()).map_err(infra)?;
                    // The other one arrives meanwhile.
                    std::thread::sleep(4 * AGAIN);
                    put(path, "f", "1")
                };
                cache.entry("k", "x", make).unwrap();
                let hold = cache.hold("k", "x").unwrap().unwrap();
                // As long as a campaign: until the other one has it as well.
                all.recv().unwrap();
                drop(hold);
            });
            made.recv().unwrap();
            let entry = cache.entry("k", "x", |_| panic!("made twice")).unwrap();
            done.send(()).unwrap();
            assert!(entry.join("f").exists());
        });
    }

    #[test]
    fn an_entry_without_its_marker_counts_for_nothing() {
        let (dir, cache) = cache();
        let half = dir.path().join("k/x");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("f"), "half").unwrap();
        assert_eq!(cache.find("k", "x"), None);
        let made = cache.entry("k", "x", |p| put(p, "g", "whole")).unwrap();
        assert!(!made.join("f").exists() && made.join("g").exists());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let (dir, cache) = cache();
        assert!(cache.entry("k", "x", |_| Err(infra("no"))).is_err());
        assert_eq!(fs::read_dir(dir.path().join("k")).unwrap().count(), 0);
    }

    #[test]
    fn old_entries_are_pruned_and_held_ones_are_not() {
        let (_dir, cache) = cache();
        for n in 0..FAMILY + 3 {
            cache.entry("k", &format!("a-{n:02}"), |p| put(p, "f", "")).unwrap();
            // File systems keep times in steps of some milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        cache.entry("k", "b-0", |p| put(p, "f", "")).unwrap();
        let held = cache.hold("k", "a-01").unwrap();
        assert!(held.is_some());
        cache.prune("k", "a-");
        let keys = cache.keys("k");
        assert!(keys.contains(&"a-01".into()) && keys.contains(&"b-0".into()), "{keys:?}");
        assert!(!keys.contains(&"a-00".into()), "{keys:?}");
        assert_eq!(keys.len(), FAMILY + 1);
        assert!(cache.hold("k", "a-00").unwrap().is_none());
    }

    #[test]
    fn facts_are_found_by_how_they_begin_and_locks_by_nobody_else() {
        let (_dir, cache) = cache();
        for name in ["b-2", "a-1", "b-1"] {
            cache.remember(name, "x").unwrap();
        }
        assert_eq!(cache.facts("b-"), ["1", "2"]);
        let held = cache.try_lock("l").unwrap();
        assert!(held.is_some() && cache.try_lock("l").unwrap().is_none());
        drop(held);
        assert!(cache.try_lock("l").unwrap().is_some());
    }

    #[test]
    fn leftovers_of_killed_runs_are_swept_and_living_ones_are_not() {
        let (dir, cache) = cache();
        let left = dir.path().join("k/.tmp-x");
        fs::create_dir_all(&left).unwrap();
        let held = cache.lock("k-x").unwrap();
        cache.sweep();
        assert!(left.exists());
        drop(held);
        cache.sweep();
        assert!(!left.exists());
    }
}
