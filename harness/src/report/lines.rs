//! A file of lines that only grows: what is in it stays, whatever happens to the process or the disk.
//!
//! Does not know what the lines say.

use crate::report::ReportError;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Such a file, open at its end.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Lines {
    /// Opens or makes the file, and cuts off a last line that was not written in full. Returns what it holds.
    pub fn open(path: &Path) -> Result<(Lines, String), ReportError> {
        let open = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.read(true).write(true).create(true).truncate(false).open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < bytes.len() {
                bytes.truncate(whole);
                file.set_len(whole as u64)?;
                file.seek(SeekFrom::End(0))?;
            }
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|e| ReportError::new(path, e))?;
        let len = bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok((Lines { path: path.into(), file, len }, text))
    }

    /// Adds lines, all of them or none.
    pub fn append(&mut self, lines: &str) -> Result<(), ReportError> {
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // The disk may be full: back to where the last whole line ends.
            let _ = self.file.set_len(self.len);
            let _ = self.file.seek(SeekFrom::End(0));
            return Err(ReportError::new(&self.path, error));
        }
        self.len += lines.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_goes_and_whole_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        let (mut lines, text) = Lines::open(&path).unwrap();
        assert_eq!(text, "one\ntwo\n");
        lines.append("three\n").unwrap();
        lines.append("four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
        assert_eq!(Lines::open(&path).unwrap().1.lines().count(), 4);
    }

    #[test]
    fn a_full_disk_leaves_no_half_line() {
        // As a disk that is full, this one takes nothing.
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut lines = Lines { path: "/dev/full".into(), file, len: 0 };
        let error = lines.append("line\n").unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert_eq!(lines.len, 0);
    }
}
