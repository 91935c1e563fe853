//! Reading back what a run left behind, by every path there is.
//!
//! This is most of what a run costs, so nothing is done twice: a file is opened once for all paths before caches are dropped, and bytes
//! that equal the first path's are not encoded again. A mount on which nothing is left is only listed.

use crate::facts::facts;
use crate::record::Recorder;
use crate::run::{Environment, Place};
use crate::sys::arena::{self, Mapping, READBACK};
use crate::sys::{self, Buffer, Pool, fault};
use history::{Bytes, CallResult, Errno, Event, FileFacts, ReadPath};
use program::{MapFlags, Mount, Path, Prot, Sharing};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fcntl_setfl, openat, syncfs};

/// Largest file that is read back: collapse and insert cannot make one as large.
const SIZE_MAX: u64 = 24 << 20;

/// Reads back, with buffers that live on.
#[derive(Default)]
pub struct Reader {
    pool: Pool,
}

struct Found {
    name: u8,
    fd: OwnedFd,
    file: FileFacts,
}

/// What the first path gave, to compare with.
struct First {
    bytes: Buffer,
    len: usize,
    coded: Bytes,
}

impl Reader {
    /// Everything that a run left on its places, by all paths. Nothing here is retried.
    pub fn read(
        &mut self,
        environment: &Environment,
        recorder: &Recorder,
        places: &[&Place],
    ) -> rustix::io::Result<()> {
        let mut left = Vec::new();
        for place in places {
            let found = list(recorder, place, ReadPath::Read)?;
            if found.is_empty() {
                continue;
            }
            let mut firsts = Vec::with_capacity(found.len());
            for Found { name, fd, file } in found {
                firsts.push(self.before(recorder, place.mount, name, fd, file)?);
                recorder.memory.progress();
            }
            syncfs(&place.dir)?;
            recorder.memory.progress();
            left.push((place, firsts));
        }
        if left.is_empty() {
            return Ok(());
        }
        let _ = environment.drop_caches();
        recorder.memory.progress();
        for (place, firsts) in left {
            let mut firsts = firsts.into_iter();
            for Found { name, fd, file } in list(recorder, place, ReadPath::AfterDropCaches)? {
                let path = Path { mount: place.mount, name };
                let first = firsts.next();
                self.by(recorder, path, ReadPath::AfterDropCaches, &fd, file, first.as_ref())?;
                first.into_iter().for_each(|first| self.pool.put(first.bytes));
            }
        }
        Ok(())
    }

    /// What a run left, after unmount and mount.
    pub fn read_after_remount(
        &mut self,
        recorder: &Recorder,
        place: &Place,
    ) -> rustix::io::Result<()> {
        for Found { name, fd, file } in list(recorder, place, ReadPath::AfterRemount)? {
            let path = Path { mount: place.mount, name };
            let first = self.by(recorder, path, ReadPath::AfterRemount, &fd, file, None)?;
            self.pool.put(first.bytes);
        }
        Ok(())
    }

    /// The paths before caches are dropped, on one descriptor.
    fn before(
        &mut self,
        recorder: &Recorder,
        mount: Mount,
        name: u8,
        fd: OwnedFd,
        file: FileFacts,
    ) -> rustix::io::Result<First> {
        let path = Path { mount, name };
        let first = self.by(recorder, path, ReadPath::Read, &fd, file, None)?;
        if file.size > 0 {
            for by in [ReadPath::Mapping, ReadPath::Direct] {
                let again = self.by(recorder, path, by, &fd, file, Some(&first))?;
                self.pool.put(again.bytes);
            }
        }
        if let (Ok(_), extents) = sys::fiemap(fd.as_fd())
            && recorder.on
        {
            recorder.event(Event::FinalExtents { path, id: file.id, extents });
        }
        Ok(first)
    }

    /// One file by one path.
    fn by(
        &mut self,
        recorder: &Recorder,
        path: Path,
        by: ReadPath,
        fd: &OwnedFd,
        file: FileFacts,
        first: Option<&First>,
    ) -> rustix::io::Result<First> {
        let size = file.size.min(SIZE_MAX) as usize;
        let mut bytes = self.pool.take(size.next_multiple_of(4096))?;
        let (mut result, len) = match by {
            ReadPath::Mapping => load(&mut bytes, size, fd),
            ReadPath::Direct => match fcntl_setfl(fd, OFlags::DIRECT) {
                Ok(()) => pread(&bytes, size, size.next_multiple_of(4096), fd),
                Err(error) => (Err(sys::errno(error)), 0),
            },
            _ => pread(&bytes, size, size, fd),
        };
        if file.size > SIZE_MAX && result.is_ok() {
            result = Err(Errno(libc::EFBIG));
        }
        let mut coded = Bytes::default();
        if recorder.on {
            let new = &bytes.bytes()[..len];
            coded = match first {
                Some(first) if first.bytes.bytes()[..first.len] == *new => first.coded.clone(),
                _ => Bytes::encode(new),
            };
            recorder.event(Event::Final { path, by, file, result, data: coded.clone() });
        }
        Ok(First { bytes, len, coded })
    }
}

/// Lists a directory, opens what is there and records the names.
fn list(recorder: &Recorder, place: &Place, by: ReadPath) -> rustix::io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in place.names()? {
        let fd = openat(
            &place.dir,
            &[b'a' + name][..],
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let file = facts(&fd, place.mount)?;
        found.push(Found { name, fd, file });
    }
    let names = found.iter().map(|f| (f.name, f.file.id)).collect();
    recorder.event(Event::Names { by, mount: place.mount, names });
    Ok(found)
}

/// `pread(fd, buffer, len, 0)` until `size` bytes are there or no more come.
fn pread(buffer: &Buffer, size: usize, len: usize, fd: &OwnedFd) -> (CallResult, usize) {
    let mut at = 0;
    while at < size {
        match sys::pread(fd.as_fd(), buffer.span(at, len - at), at as u64) {
            Ok(0) => break,
            Ok(n) => at += n as usize,
            Err(error) => return (Err(error), at),
        }
    }
    // A direct read asks for whole blocks; the file may have been longer than its size said, which is for others to find.
    (Ok(at.min(size) as u64), at.min(size))
}

/// Loads through a fresh mapping.
fn load(buffer: &mut Buffer, size: usize, fd: &OwnedFd) -> (CallResult, usize) {
    let how = Mapping { prot: Prot::READ, sharing: Sharing::Shared, flags: MapFlags::default() };
    let (result, area) = arena::map(READBACK, fd.as_fd(), 0, size as u64, how);
    let Some(area) = area else { return (result, 0) };
    let (done, fault) = fault::load(&mut buffer.bytes_mut()[..size], area.whole());
    let _ = arena::unmap(area);
    match fault.signo {
        0 => (Ok(done as u64), done),
        _ => (Err(Errno(libc::EFAULT)), done),
    }
}
