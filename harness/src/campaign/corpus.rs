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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::search::name;
    use program::Mount;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    fn programs(haul: &Haul) -> Vec<&str> {
        haul.programs.iter().map(|(file, _)| file.as_str()).collect()
    }

    #[test]
    fn what_is_saved_is_read_and_read_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("queue/mixed");
        let mut folder = Folder::open(&dir).unwrap();
        let all = [1, 2, 3].map(|seed| Program::from_seed(seed, Mount::Xfs));
        for program in &all {
            save(&dir, program, name(program)).unwrap();
            save(&dir, program, name(program)).unwrap();
        }
        let haul = folder.look(|known| known == name(&all[1]));
        let expected = [&all[0], &all[2]].map(name).map(|name| format!("{name:016x}.prog"));
        let mut found = programs(&haul);
        found.sort_unstable();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(haul.programs.iter().all(|(_, program)| all.contains(program)));
        assert_eq!(haul.complaint, None);
        // Another campaign adds one by hand.
        std::fs::write(dir.join("mine"), Program::from_seed(4, Mount::Ext4).to_string()).unwrap();
        assert_eq!(programs(&folder.look(|_| false)), ["mine"]);
        assert_eq!(programs(&folder.look(|_| false)), [""; 0]);
    }

    #[test]
    fn what_is_no_program_is_named_once_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let program = Program::from_seed(1, Mount::Xfs);
        save(dir, &program, name(&program)).unwrap();
        std::fs::write(dir.join("binary"), [0, 255, 1, 2]).unwrap();
        std::fs::write(dir.join("huge"), vec![b'#'; BYTES_MAX as usize + 10]).unwrap();
        std::fs::write(dir.join("newer.prog"), "pinfuzz 1\nimage xfs\nt0: teleport()\n").unwrap();
        std::fs::write(dir.join(".half.tmp"), "pinf").unwrap();
        std::fs::write(dir.join("\u{1b}[31m"), "x").unwrap();
        std::fs::create_dir(dir.join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
        mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let before = std::fs::read_dir(dir).unwrap().count();

        let mut folder = Folder::open(dir).unwrap();
        let haul = folder.look(|_| false);
        assert_eq!(haul.programs.len(), 1);
        let complaint = haul.complaint.unwrap();
        assert!(complaint.contains("binary (") && complaint.contains("and 4 more"), "{complaint}");
        assert!(!complaint.contains('\u{1b}') && !complaint.contains('\n'), "{complaint}");
        assert_eq!(folder.look(|_| false).complaint, None, "it is said once");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), before);
    }

    #[test]
    fn a_folder_that_cannot_be_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = Folder::open(&root.path().join("file/queue")).unwrap_err();
        assert!(error.to_string().contains("file/queue"), "{error}");
        let error = save(Path::new("/proc/none"), &Program::from_seed(1, Mount::Xfs), 1);
        assert!(error.unwrap_err().to_string().contains("/proc/none"));
    }
}
