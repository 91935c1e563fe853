//! The console file of a running guest: read as it grows, cut into the parts of single runs.
//!
//! What the text means is `target::console`'s business.

use crate::target::console;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Most bytes that a run may leave on the console before the guest counts as flooded. A WARN with its stack has some 5 KiB.
pub const FLOOD: u64 = 4 << 20;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// A console that is being read.
#[derive(Debug)]
pub struct Console {
    file: File,
    /// Bytes read so far.
    at: u64,
    /// Text that belongs to no run yet.
    pending: Vec<u8>,
}

impl Console {
    /// Reads from the beginning of `file`.
    pub fn new(file: File) -> Console {
        Console { file, at: 0, pending: Vec::new() }
    }

    /// Reads what is new. Past the flood mark nothing is kept: the guest is given up then.
    pub fn poll(&mut self) {
        let mut chunk = [0u8; CHUNK];
        // A console that cannot be read says nothing; the guest is judged by its other signs of life.
        while let Ok(got @ 1..) = self.file.read_at(&mut chunk, self.at) {
            self.at += got as u64;
            if !self.is_flooded() {
                self.pending.extend(&chunk[..got]);
            }
            if got < CHUNK || self.is_flooded() {
                break;
            }
        }
    }

    /// Bytes that the guest has written by now.
    pub fn length(&self) -> u64 {
        self.at
    }

    /// Whether the current run has said too much.
    pub fn is_flooded(&self) -> bool {
        self.pending.len() as u64 > FLOOD
    }

    /// Everything that was said and not taken.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// Takes the text of a run: up to the mark of the next one, which may have begun already.
    pub fn take(&mut self, run: u32) -> String {
        self.poll();
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        let end = console::mark_after(&text, run).unwrap_or(text.len());
        let taken = text[..end].to_string();
        self.pending = text.into_bytes().split_off(end);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_the_marks_of_runs() {
        let file = tempfile::tempfile().unwrap();
        let text = "boot\n[ 1.0] pinfuzz: run 1\none\n[ 1.1] pinfuzz: run 2\ntwo\n[ 1.2] pinfuzz: run 30\nx\n";
        file.write_all_at(text.as_bytes(), 0).unwrap();
        let mut console = Console::new(file);
        assert_eq!(console.take(1), "boot\n[ 1.0] pinfuzz: run 1\none\n");
        assert_eq!(console.take(2), "[ 1.1] pinfuzz: run 2\ntwo\n");
        assert_eq!(console.take(30), "[ 1.2] pinfuzz: run 30\nx\n");
        assert_eq!(console.take(31), "");
    }

    #[test]
    fn a_flood_is_seen_and_not_kept() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * FLOOD).unwrap();
        let mut console = Console::new(file);
        for _ in 0..1000 {
            console.poll();
        }
        assert!(console.is_flooded());
        assert!(console.text().len() as u64 <= FLOOD + CHUNK as u64);
    }
}
