//! Writes a run's folder: `reports/<utc date and time>-<seed>/`.
//!
//! A file or find is written under a temporary name, made durable and renamed, so that a reader, or the next run after a crash,
//! never meets half of it. Does not delete anything that it did not make itself.

use crate::report::{Find, Report, ReportError, clock, slug};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// Runs of one seed that may begin within one second, before we stop looking for a free name.
const SAME_NAME_MAX: u32 = 100;

/// A run's folder. It is locked while somebody has it: two processes would overwrite what the other counts.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: Arc<File>,
}

/// Why the folder of an earlier run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, or it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another pinfuzz", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
}

impl Store {
    /// Makes the folder of a new run.
    pub fn create(reports: &Path, seed: u64, now: SystemTime) -> Result<Store, ReportError> {
        fs::create_dir_all(reports).map_err(|e| ReportError::new(reports, e))?;
        let name = format!("{}-{seed:x}", clock::for_folder(now));
        let mut dir = reports.join(&name);
        for again in 2..SAME_NAME_MAX {
            match fs::create_dir(&dir) {
                Ok(()) => break,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    dir = reports.join(format!("{name}-{again}"));
                }
                Err(e) => return Err(ReportError::new(dir, e)),
            }
        }
        let anomalies = dir.join("anomalies");
        fs::create_dir(&anomalies).map_err(|e| ReportError::new(anomalies, e))?;
        let lock = File::open(&dir).map_err(|e| ReportError::new(&dir, e))?;
        // Nobody else knows it yet. A file system that has no locks is no reason not to work.
        let _ = lock.try_lock();
        Ok(Store { dir, _lock: Arc::new(lock) })
    }

    /// Takes the folder of an earlier run.
    pub fn open(dir: &Path) -> Result<Store, OpenError> {
        let lock =
            File::open(dir).map_err(|source| OpenError::Read { path: dir.into(), source })?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(OpenError::InUse { dir: dir.into() });
        }
        Ok(Store { dir: dir.into(), _lock: Arc::new(lock) })
    }

    /// The folders of all finds.
    pub fn finds(&self) -> Result<Vec<PathBuf>, OpenError> {
        let path = self.dir.join("anomalies");
        let list = || {
            let mut finds = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                // Hidden ones are halves that a killed process has left.
                let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if !hidden && entry.file_type()?.is_dir() {
                    finds.push(entry.path());
                }
            }
            finds.sort();
            Ok(finds)
        };
        list().map_err(|source| OpenError::Read { path: path.clone(), source })
    }

    /// Where the run is saved.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Saves a find in full and returns its folder; a find that is there already is left alone.
    pub fn save(&self, find: &Find) -> Result<PathBuf, ReportError> {
        let kind = find.anomalies.first().map_or("checker-panic".into(), |a| slug(a.kind));
        let name = format!("{kind}-{:010x}", hash(find.program.to_string().as_bytes()) >> 24);
        let target = self.dir.join("anomalies").join(&name);
        if target.exists() {
            return Ok(target);
        }
        let parts = find.files(&target);
        let temporary = self.dir.join("anomalies").join(format!(".{name}.tmp"));
        let written = write_folder(&temporary, &parts).and_then(|()| {
            fs::rename(&temporary, &target).map_err(|e| ReportError::new(&target, e))
        });
        if let Err(error) = written {
            // The disk may be full: what is half written is worth less than the room that it takes.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        sync_dir(&self.dir.join("anomalies"));
        Ok(target)
    }

    /// Rewrites `report.json`, `report.txt` and, once there is anything to say, `exercised.txt` and `meetings.txt`.
    pub fn write(&self, report: &Report) -> Result<(), ReportError> {
        write_atomically(&self.dir.join("report.json"), report.to_json().as_bytes())?;
        write_atomically(&self.dir.join("report.txt"), report.to_text().as_bytes())?;
        if !report.exercised.is_empty() {
            let text = report.exercised.to_markdown();
            write_atomically(&self.dir.join("exercised.txt"), text.as_bytes())?;
        }
        if report.meetings.is_empty() {
            return Ok(());
        }
        write_atomically(&self.dir.join("meetings.txt"), report.meetings.to_markdown().as_bytes())
    }
}

/// Replaces a file as a whole: a reader sees the old content or the new one.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), ReportError> {
    /// Other threads and processes may be writing the same file.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{process}-{count}.tmp"));
    let temporary = path.with_file_name(name);
    let written = write_file(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| ReportError::new(path, e)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_folder(dir: &Path, parts: &[(&'static str, Vec<u8>)]) -> Result<(), ReportError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ReportError::new(dir, e)),
        _ => fs::create_dir(dir).map_err(|e| ReportError::new(dir, e))?,
    }
    for (name, content) in parts {
        let path = dir.join(name);
        write_file(&path, content)?;
        if name.ends_with(".sh") {
            make_executable(&path)?;
        }
    }
    sync_dir(dir);
    Ok(())
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), ReportError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        // Without this, a full disk may be told only to the next program that looks at the file.
        file.sync_all()
    };
    write().map_err(|e| ReportError::new(path, e))
}

fn make_executable(path: &Path) -> Result<(), ReportError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|e| ReportError::new(path, e))
}

/// Makes names durable where the file system can; one that cannot is no reason to lose the find.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

/// FNV-1a with 64 bits: names folders and compares histories, the same in every version and on every machine.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
