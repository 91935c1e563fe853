//! Short-lived files of a run: guest memory, media, sockets. In `/dev/shm` if there is room, else in the cache.
//!
//! A scratch directory holds a lock while its owner lives; whoever comes later sweeps those whose lock is free.

use super::cache::Cache;
use super::{file_trouble, infra};
use crate::target::TargetError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where memory lies.
const SHM: &str = "/dev/shm";
/// Prefix of our directories' names.
const PREFIX: &str = "pinfuzz-";
/// The file in a scratch directory whose lock says that the owner lives.
const LOCK: &str = "lock";
/// A directory without a lock file is being made just now, unless it is older than this.
const YOUNG: Duration = Duration::from_secs(60);

/// A directory that goes away with its owner, even if he is killed (then the next one sweeps it).
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a directory in a place with at least `need` free bytes.
    pub fn new(cache: &Cache, need: u64) -> Result<Scratch, TargetError> {
        let base = place(cache, need)?;
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&base)
            .map_err(file_trouble("creating a directory in", &base))?
            .keep();
        let path = dir.join(LOCK);
        let lock = File::create(&path).map_err(file_trouble("creating", &path))?;
        lock.lock().map_err(file_trouble("locking", &path))?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next run sweeps.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The directory for scratch: `/dev/shm` if it has the room, else one in the cache.
pub fn place(cache: &Cache, need: u64) -> Result<PathBuf, TargetError> {
    if free(Path::new(SHM)).is_some_and(|bytes| bytes >= need) && writable(Path::new(SHM)) {
        return Ok(SHM.into());
    }
    let own = cache.root().join("scratch");
    fs::create_dir_all(&own).map_err(file_trouble("creating", &own))?;
    match free(&own) {
        Some(bytes) if bytes < need => Err(infra(format!(
            "no space: a guest needs {} MiB, {SHM} has {} and {} has {}",
            need >> 20,
            free(Path::new(SHM)).unwrap_or(0) >> 20,
            own.display(),
            bytes >> 20
        ))),
        _ => Ok(own),
    }
}

/// Makes sure that the cache has room for something, rather than failing in the middle of it.
pub fn expect_room(cache: &Cache, need: u64, what: &str) -> Result<(), TargetError> {
    match free(cache.root()) {
        Some(bytes) if bytes < need => Err(infra(format!(
            "no space: {what} needs {} MiB, {} has {}: free some, or point XDG_CACHE_HOME elsewhere",
            need >> 20,
            cache.root().display(),
            bytes >> 20
        ))),
        _ => Ok(()),
    }
}

/// Free bytes of the file system at `path`.
pub fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Removes the scratch directories of runs that were killed.
pub fn sweep(cache: &Cache) {
    for base in [PathBuf::from(SHM), cache.root().join("scratch")] {
        let Ok(entries) = fs::read_dir(&base) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) && abandoned(&entry.path()) {
                // A directory of another user stays: the failure is what we want.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn abandoned(dir: &Path) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(_) => fs::metadata(dir)
            .and_then(|m| m.modified())
            .is_ok_and(|t| t.elapsed().is_ok_and(|age| age > YOUNG)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_stay_and_the_dead_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let scratch = Scratch::new(&cache, 0).unwrap();
        let dead = scratch
            .path()
            .parent()
            .unwrap()
            .join(format!("{PREFIX}test-dead-{}", std::process::id()));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        sweep(&cache);
        assert!(scratch.path().exists());
        assert!(!dead.exists());
        let path = scratch.path().to_path_buf();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn too_little_room_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let error = Scratch::new(&cache, u64::MAX).unwrap_err().to_string();
        assert!(error.starts_with("no space: a guest needs"), "{error}");
        expect_room(&cache, 0, "nothing").unwrap();
        let error = expect_room(&cache, u64::MAX, "everything").unwrap_err().to_string();
        assert!(error.starts_with("no space: everything needs"), "{error}");
    }
}
