//! A writer of cpio archives in the `newc` form, the form of an initramfs.
//!
//! The same entries give the same bytes: inode numbers count up and times are zero. Writes directories, files and character devices only.

/// Longest path: the kernel refuses longer ones (PATH_MAX, include/uapi/linux/limits.h).
const PATH_MAX: usize = 4095;
/// Type bits of a directory, of a file and of a character device.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.entry(path, REGULAR | (mode & 0o777), (0, 0), data);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER | 0o600, (major, minor), &[]);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        assert!(path.len() <= PATH_MAX && !path.starts_with('/'), "bad path in archive: {path}");
        self.entries += 1;
        let size = u32::try_from(data.len()).expect("a file in the initramfs is below 4 GiB");
        // Fields: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check.
        let name = path.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte what GNU cpio 2.13 writes with `-H newc --reproducible`, apart from times and inode numbers.
    #[test]
    fn the_form_is_newc() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.file("init", 0o755, b"hello");
        archive.device("dev/console", 5, 1);
        let bytes = archive.finish();
        let want = concat!(
            "07070100000001000041ED000000000000000000000001000000000000000000000000000000000000000000000000",
            "0000000400000000dev\0\0\0",
            "07070100000002000081ED000000000000000000000001000000000000000500000000000000000000000000000000",
            "0000000500000000init\0\0hello\0\0\0",
            "070701000000030000218000000000000000000000000100000000000000000000000000000000000000050000000",
            "10000000C00000000dev/console\0\0\0",
            "070701000000040000000000000000000000000000000100000000000000000000000000000000000000000000000",
            "00000000B00000000TRAILER!!!\0\0\0\0"
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
    }
}
