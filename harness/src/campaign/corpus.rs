//! A corpus on disk: a folder of programs, one file each, named by their content. Several campaigns may share one.
//!
//! Files appear under their names when they are complete, and none is ever changed or removed. What lies there and is no program is
//! named once and left alone: the folder is the user's.

use crate::report::{ReportError, write_atomically};
use program::Program;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most files that are looked at: twice what a search keeps, several times over.
const FILES_MAX: usize = 32 << 10;
/// Largest file that is read: no program is longer.
const BYTES_MAX: u64 = 1 << 20;
/// Most files that one complaint names.
const NAMED_MAX: usize = 3;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// Files that were looked at.
    read: BTreeSet<OsString>,
}

/// What a look at the folder brought.
#[derive(Debug, Default)]
pub(super) struct Haul {
    /// Programs with their file names, the shortest first: of two that show the same, the shorter one is kept.
    pub programs: Vec<(String, Program)>,
    /// One line about what is no program, if anything is.
    pub complaint: Option<String>,
}

impl Folder {
    /// The folder, which is made if there is none.
    pub fn open(dir: &Path) -> Result<Folder, ReportError> {
        fs::create_dir_all(dir).map_err(|e| ReportError::new(dir, e))?;
        Ok(Folder { dir: dir.into(), read: BTreeSet::new() })
    }

    /// Reads what is new since the last look, and what has a name that is not `known`.
    pub fn look(&mut self, known: impl Fn(u64) -> bool) -> Haul {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => {
                let complaint = Some(format!("cannot look at {}: {error}", self.dir.display()));
                return Haul { complaint, ..Haul::default() };
            }
        };
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let file = entry.file_name();
            // Hidden files are those that somebody is writing just now.
            let hidden = file.as_encoded_bytes().starts_with(b".");
            if hidden || self.read.len() >= FILES_MAX || !self.read.insert(file.clone()) {
                continue;
            }
            if number(&file).is_some_and(&known) {
                continue;
            }
            let shown = crate::report::timeline::printable(&file.to_string_lossy());
            match read(&entry.path()) {
                Ok((program, bytes)) => found.push((bytes, shown, program)),
                Err(what) => bad.push(format!("{shown} ({what})")),
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        bad.sort();
        let programs = found.into_iter().map(|(_, file, program)| (file, program)).collect();
        Haul { programs, complaint: self.complaint(&bad) }
    }

    fn complaint(&self, bad: &[String]) -> Option<String> {
        let first = bad.get(..NAMED_MAX.min(bad.len())).filter(|first| !first.is_empty())?;
        let more = match bad.len() - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (dir, first) = (self.dir.display(), first.join(", "));
        Some(format!("not programs, and left alone in {dir}: {first}{more}"))
    }
}

/// Saves a program; one that is there already is left alone.
pub(super) fn save(dir: &Path, program: &Program, name: u64) -> Result<(), ReportError> {
    let path = dir.join(format!("{name:016x}.prog"));
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    let mut text = program.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    write_atomically(&path, text.as_bytes())
}

/// The name of a file as a search knows it.
fn number(file: &OsString) -> Option<u64> {
    let stem = file.to_str()?.strip_suffix(".prog")?;
    (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok())?
}

/// Reads a program and says how long it is. Whoever may write to the folder may put anything there.
fn read(path: &Path) -> Result<(Program, usize), String> {
    let kind = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    if !kind.is_file() {
        return Err("no plain file".into());
    }
    // It may be another one by now.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags as i32).open(path);
    let file = file.map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("longer than {} KiB", BYTES_MAX >> 10));
    }
    let program = Program::parse_bytes(&bytes);
    program.map(|program| (program, bytes.len())).map_err(|error| error.to_string())
}
