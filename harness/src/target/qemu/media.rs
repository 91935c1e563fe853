//! The media at rest, after a clean unmount: what fsck says, and which bytes lie behind the extents of files.
//!
//! Reads copies only, so that the guest can mount again meanwhile. Judges no byte.

use super::super::TargetError;
use crate::machine::image::Image;
use crate::machine::scratch::Scratch;
use crate::machine::{infra, output, packages, sparse, tail};
use history::{Bytes, Event, Extent, FileFacts, ReadPath};
use program::{Mount, Path};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Most bytes of fsck's output that an event carries.
const FSCK_MAX: usize = 16 << 10;
/// Largest file whose media bytes are read: programs make files of a few MiB.
const FILE_MAX: u64 = 64 << 20;
/// Extents that hold no bytes of their own yet: FIEMAP_EXTENT_UNWRITTEN reads as zeros (include/uapi/linux/fiemap.h).
const UNWRITTEN: u32 = 0x800;
/// Extents whose bytes are elsewhere or in another form: UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL.
const ELSEWHERE: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;

/// Copies of the four media, in the order of `Mount::ALL`.
#[derive(Debug)]
pub struct Media {
    files: Vec<File>,
}

impl Media {
    /// Copies the block devices out of the files behind the guest's media.
    pub fn copy(image: &Image, from: &[File], scratch: &Scratch) -> Result<Media, TargetError> {
        let copy = |(medium, file): (&crate::machine::image::Medium, &File)| {
            let to = tempfile::tempfile_in(scratch.path())?;
            to.set_len(medium.size)?;
            sparse::copy(file, image.pmem.data_offset(), medium.size, &to, 0)?;
            Ok(to)
        };
        let files: Result<Vec<File>, std::io::Error> =
            image.media.iter().zip(from).map(copy).collect();
        Ok(Media { files: files.map_err(|e| infra(format!("copying media: {e}")))? })
    }

    /// Runs fsck on all of them at once; an event for each that is not clean.
    pub fn fsck(&self) -> Result<Vec<Event>, TargetError> {
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = Mount::ALL
                .iter()
                .zip(&self.files)
                .map(|(mount, file)| scope.spawn(move || fsck(*mount, file)))
                .collect();
            threads.into_iter().map(|t| t.join().expect("fsck does not panic")).collect::<Vec<_>>()
        });
        let mut events = Vec::new();
        for (mount, result) in Mount::ALL.into_iter().zip(results) {
            events.extend(result?.map(|text| Event::Fsck { mount, text }));
        }
        Ok(events)
    }

    /// The media's view of the files that a run left: one `Final` for each whose extents say where its bytes are.
    pub fn finals(&self, events: &[Event]) -> Vec<Event> {
        let mut files: BTreeMap<Path, &FileFacts> = BTreeMap::new();
        for event in events {
            if let Event::Final { path, by: ReadPath::AfterDropCaches, file, .. } = event {
                files.insert(*path, file);
            }
        }
        let mut finals = Vec::new();
        for event in events {
            if let Event::FinalExtents { path, id, extents } = event
                && let Some(file) = files.get(path).filter(|f| f.id == *id)
                && let Some(bytes) = self.read(path.mount, file.size, extents)
            {
                finals.push(Event::Final {
                    path: *path,
                    by: ReadPath::Media,
                    file: **file,
                    result: Ok(bytes.len() as u64),
                    data: Bytes::encode(&bytes),
                });
            }
        }
        finals
    }

    /// The bytes of a file, or nothing if its extents do not say.
    fn read(&self, mount: Mount, size: u64, extents: &[Extent]) -> Option<Vec<u8>> {
        let file = Mount::ALL.iter().position(|m| *m == mount).map(|n| &self.files[n])?;
        let device = file.metadata().ok()?.len();
        if size > FILE_MAX || extents.iter().any(|e| e.flags & ELSEWHERE != 0) {
            return None;
        }
        let mut bytes = vec![0u8; size as usize];
        for extent in extents.iter().filter(|e| e.flags & UNWRITTEN == 0 && e.logical < size) {
            // The guest's numbers are believed only within the device.
            let length = extent.length.min(size - extent.logical);
            if extent.physical.checked_add(length)? > device {
                return None;
            }
            let place = &mut bytes[extent.logical as usize..][..length as usize];
            file.read_exact_at(place, extent.physical).ok()?;
        }
        Some(bytes)
    }
}

/// Runs fsck on one medium; its words if it is not clean.
fn fsck(mount: Mount, file: &File) -> Result<Option<String>, TargetError> {
    // The copy has no name; the child finds it through our process.
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let (program, args) =
        if mount.is_xfs() { ("xfs_repair", ["-n", "-f"]) } else { ("e2fsck", ["-f", "-n"]) };
    let output =
        output(Command::new(packages::expect(program)?).args(args).arg(path).env("LC_ALL", "C"))?;
    // e2fsck(8): 4, errors left uncorrected. xfs_repair(8) -n: 1, corruption; 2, a dirty log, which no clean unmount leaves.
    match output.status.code() {
        Some(0) => Ok(None),
        Some(1 | 2) if mount.is_xfs() => Ok(Some(words(program, args, &output))),
        Some(1..=7) if !mount.is_xfs() => Ok(Some(words(program, args, &output))),
        _ => Err(infra(format!(
            "{program} failed ({}): {}",
            output.status,
            crate::machine::quote(&output)
        ))),
    }
}

fn words(program: &str, args: [&str; 2], output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    format!("{program} {}\n{}", args.join(" "), tail(&text, FSCK_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(bytes: &[u8]) -> Media {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let empty = || tempfile::tempfile().unwrap();
        Media { files: vec![file, empty(), empty(), empty()] }
    }

    fn extent(logical: u64, physical: u64, length: u64, flags: u32) -> Extent {
        Extent { logical, physical, length, flags }
    }

    #[test]
    fn bytes_come_from_extents_and_holes_are_zeros() {
        let media = media(b"abcdefgh");
        let read = |size, extents: &[Extent]| media.read(Mount::Ext4Dax, size, extents);
        let two = [extent(0, 4, 2, 0), extent(4, 0, 4, 1)];
        assert_eq!(read(7, &two).unwrap(), b"ef\0\0abc");
        assert_eq!(read(2, &[extent(0, 0, 2, UNWRITTEN)]).unwrap(), b"\0\0");
        assert_eq!(read(2, &[extent(4, 0, 2, 0)]).unwrap(), b"\0\0", "past the end of file");
    }

    #[test]
    fn extents_that_lie_are_not_believed() {
        let media = media(b"abcdefgh");
        let read = |size, extents: &[Extent]| media.read(Mount::Ext4Dax, size, extents);
        assert_eq!(read(4, &[extent(0, 6, 4, 0)]), None);
        assert_eq!(read(4, &[extent(0, u64::MAX, 4, 0)]), None);
        assert_eq!(read(4, &[extent(0, 0, 4, 0x4)]), None, "delayed allocation");
        assert_eq!(read(u64::MAX, &[]), None);
    }
}
