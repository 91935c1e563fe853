//! The copy of a source that is compiled: made once, then changed only where it must, so that make rebuilds what differs and no more.
//!
//! Unchanged files share their blocks with the cache's entries (hard links): nothing is ever written in place here, only replaced.

use super::source::Origin;
use crate::machine::cache::MARKER;
use crate::machine::file_trouble;
use crate::target::TargetError;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What patches make of files, by their path in the tree: content and mode, or nothing where they are deleted.
pub type Overlay = BTreeMap<PathBuf, Option<Changed>>;

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What it holds.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// Under this name files are written before they are renamed; no source has it, so a leftover goes with the next sync.
const TEMPORARY: &str = ".pinfuzz-new";

/// The entries of a directory in order. At the top, git's own and the cache's mark are none.
pub fn entries(dir: &Path, top: bool) -> Result<Vec<(OsString, PathBuf)>, TargetError> {
    let read = fs::read_dir(dir).map_err(file_trouble("reading", dir))?;
    let mut names = read
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<io::Result<Vec<OsString>>>()
        .map_err(file_trouble("reading", dir))?;
    names.retain(|name| !(top && (name == ".git" || name == MARKER)));
    names.sort();
    Ok(names.into_iter().map(|name| (name.clone(), dir.join(name))).collect())
}

/// Makes `tree` what the origin is under its overlay.
///
/// What changes gets the time of now, also when it goes back to an older content: objects may have been made of what was there before.
pub fn sync(origin: &Origin, overlay: &Overlay, tree: &Path) -> Result<(), TargetError> {
    let fresh = !tree.exists();
    // A first copy keeps the times and is renamed when it is whole.
    let target = if fresh { tree.with_extension("new") } else { tree.to_path_buf() };
    if fresh && target.exists() {
        fs::remove_dir_all(&target).map_err(file_trouble("clearing", &target))?;
    }
    fs::create_dir_all(&target).map_err(file_trouble("creating", &target))?;
    let sync = Sync { origin, overlay, tree: &target, fresh };
    sync.folder(Path::new(""))?;
    sync.overlaid()?;
    if fresh {
        fs::rename(&target, tree).map_err(file_trouble("renaming", &target))?;
    }
    Ok(())
}

struct Sync<'a> {
    origin: &'a Origin,
    overlay: &'a Overlay,
    tree: &'a Path,
    fresh: bool,
}

impl Sync<'_> {
    fn folder(&self, relative: &Path) -> Result<(), TargetError> {
        let top = relative.as_os_str().is_empty();
        let wanted = entries(&self.origin.dir.join(relative), top)?;
        let here = self.tree.join(relative);
        if !self.fresh {
            let names: Vec<&OsStr> = wanted.iter().map(|(name, _)| name.as_os_str()).collect();
            for (name, path) in entries(&here, false)? {
                let there = relative.join(&name);
                // Files and folders that patches add are the overlay's business.
                let added = self.overlay.iter().any(|(p, c)| c.is_some() && p.starts_with(&there));
                if names.binary_search(&name.as_os_str()).is_err() && !added {
                    remove(&path)?;
                }
            }
        }
        for (name, from) in wanted {
            let relative = relative.join(name);
            if self.overlay.contains_key(&relative) {
                continue;
            }
            let meta = fs::symlink_metadata(&from).map_err(file_trouble("reading", &from))?;
            let to = self.tree.join(&relative);
            if meta.is_dir() {
                if !is_dir(&to) {
                    remove(&to)?;
                    fs::create_dir(&to).map_err(file_trouble("creating", &to))?;
                }
                self.folder(&relative)?;
            } else if meta.is_symlink() {
                let points = fs::read_link(&from).map_err(file_trouble("reading", &from))?;
                if fs::read_link(&to).ok().as_deref() != Some(&points) {
                    remove(&to)?;
                    symlink(&points, &to).map_err(file_trouble("creating", &to))?;
                }
            } else if meta.is_file() {
                self.file(&from, &meta, &to)?;
            }
        }
        Ok(())
    }

    fn file(&self, from: &Path, meta: &Metadata, to: &Path) -> Result<(), TargetError> {
        if self.fresh {
            // What may change under us is copied; a link would change with it.
            if self.origin.kept && fs::hard_link(from, to).is_ok() {
                return Ok(());
            }
            fs::copy(from, to).map_err(file_trouble("writing", to))?;
            return touch(to, meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        }
        if let Ok(now) = fs::symlink_metadata(to)
            && now.is_file()
            && self.same(from, meta, to, &now)?
        {
            return Ok(());
        }
        if is_dir(to) {
            remove(to)?;
        }
        let content = fs::read(from).map_err(file_trouble("reading", from))?;
        replace(to, &content, meta.mode())
    }

    fn same(
        &self,
        from: &Path,
        a: &Metadata,
        to: &Path,
        b: &Metadata,
    ) -> Result<bool, TargetError> {
        if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
            return Ok(true);
        }
        if a.size() != b.size() || a.mode() & 0o111 != b.mode() & 0o111 {
            return Ok(false);
        }
        // The user's own files have times to the nanosecond; all files of an archive have one and the same.
        let times = |m: &Metadata| (m.mtime(), m.mtime_nsec());
        if !self.origin.kept && times(a) == times(b) {
            return Ok(true);
        }
        holds(to, &fs::read(from).map_err(file_trouble("reading", from))?)
    }

    fn overlaid(&self) -> Result<(), TargetError> {
        for (relative, changed) in self.overlay {
            let to = self.tree.join(relative);
            let Some(changed) = changed else {
                remove(&to)?;
                continue;
            };
            let mode = fs::symlink_metadata(&to).ok().filter(Metadata::is_file).map(|m| m.mode());
            if mode.is_some_and(|mode| mode & 0o111 == changed.mode & 0o111)
                && holds(&to, &changed.content)?
            {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(file_trouble("creating", parent))?;
            }
            replace(&to, &changed.content, changed.mode)?;
        }
        Ok(())
    }
}

fn holds(path: &Path, content: &[u8]) -> Result<bool, TargetError> {
    let meta = fs::metadata(path).map_err(file_trouble("reading", path))?;
    Ok(meta.len() == content.len() as u64
        && fs::read(path).map_err(file_trouble("reading", path))? == content)
}

/// Another file takes the place of this one: whoever shares the old one keeps it.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), TargetError> {
    let temporary = path.with_file_name(TEMPORARY);
    fs::write(&temporary, content).map_err(file_trouble("writing", &temporary))?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o777 | 0o200);
    fs::set_permissions(&temporary, permissions).map_err(file_trouble("writing", &temporary))?;
    fs::rename(&temporary, path).map_err(file_trouble("writing", path))
}

fn touch(path: &Path, time: SystemTime) -> Result<(), TargetError> {
    let file = File::open(path).map_err(file_trouble("opening", path))?;
    file.set_modified(time).map_err(file_trouble("writing", path))
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// Removes whatever lies there, if anything does.
fn remove(path: &Path) -> Result<(), TargetError> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(file_trouble("clearing", path))
}

/// The same tree once more at `to`, an empty directory, without copying a file.
pub fn link(from: &Path, to: &Path) -> Result<(), TargetError> {
    for (name, path) in entries(from, false)? {
        let target = to.join(name);
        let meta = fs::symlink_metadata(&path).map_err(file_trouble("reading", &path))?;
        if meta.is_dir() {
            fs::create_dir(&target).map_err(file_trouble("creating", &target))?;
            link(&path, &target)?;
        } else if fs::hard_link(&path, &target).is_err() {
            // File systems limit the links of a file.
            fs::copy(&path, &target).map_err(file_trouble("writing", &target))?;
        }
    }
    Ok(())
}

/// How many objects lie in a build tree.
pub fn objects(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => objects(&entry.path()),
        Ok(_) => u64::from(Path::new(&entry.file_name()).extension() == Some(OsStr::new("o"))),
        Err(_) => 0,
    };
    entries.flatten().map(count).sum()
}

/// Removes the files that were written since `time`: nobody knows whether they are whole.
pub fn distrust(dir: &Path, time: SystemTime) -> Result<(), TargetError> {
    for (_, path) in entries(dir, false)? {
        let meta = fs::symlink_metadata(&path).map_err(file_trouble("reading", &path))?;
        if meta.is_dir() {
            distrust(&path, time)?;
        } else if meta.is_file() && meta.modified().is_ok_and(|modified| modified >= time) {
            remove(&path)?;
        }
    }
    Ok(())
}
