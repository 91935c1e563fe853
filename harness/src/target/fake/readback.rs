//! What the agent and the host look at after a program: names, contents by every path, extents, and the media after a clean unmount.
//!
//! Paths of reading that give the very same pages share one encoding, which is what makes the fake fast.

use super::block::{PAGE, Page, is_zero_page};
use super::bug::Bug;
use super::inode::{Fs, page_of, pages_up};
use super::rw::SECTOR;
use history::{Bytes, Event, FileFacts, FileId, ReadPath, Run};
use program::{Mount, Path};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file's content: its pages that may hold something.
#[derive(Default)]
struct Image {
    size: u64,
    pages: Vec<(u64, Page)>,
    bytes: Bytes,
}

impl Image {
    fn is_same(&self, size: u64, pages: &[(u64, Page)]) -> bool {
        let same = |((a, p), (b, q)): (&(u64, Page), &(u64, Page))| a == b && Arc::ptr_eq(p, q);
        self.size == size
            && self.pages.len() == pages.len()
            && self.pages.iter().zip(pages).all(same)
    }
}

/// What is kept of a run until its media have been looked at.
#[derive(Default)]
pub(super) struct Seen {
    images: BTreeMap<Path, Image>,
    /// Complaints of fsck to come, by mount.
    complaints: Vec<(Mount, String)>,
}

fn facts(fs: &Fs, ino: u64) -> FileFacts {
    let inode = fs.ino(ino);
    let align = if fs.mount.is_dax() { 0 } else { SECTOR as u32 };
    FileFacts {
        id: FileId { mount: fs.mount, ino, generation: inode.generation },
        size: inode.size,
        blocks: fs.blocks_512(ino),
        nlink: inode.nlink,
        dax: fs.mount.is_dax(),
        dio_mem_align: align,
        dio_offset_align: align,
    }
}

/// Names of a run on a mount.
fn names(fs: &Fs, run: u32) -> Vec<(u8, u64)> {
    let dir = fs.dirs.get(&run).copied().unwrap_or_default();
    (0..).zip(dir).filter_map(|(name, ino)| ino.map(|ino| (name, ino))).collect()
}

fn list(fs: &Fs, run: u32, by: ReadPath) -> Event {
    let id = |ino| FileId { mount: fs.mount, ino, generation: fs.ino(ino).generation };
    let names = names(fs, run).into_iter().map(|(name, ino)| (name, id(ino))).collect();
    Event::Names { by, mount: fs.mount, names }
}

/// The pages of a file by a path of reading.
fn pages(fs: &mut Fs, ino: u64, by: ReadPath) -> Vec<(u64, Page)> {
    let end = pages_up(fs.ino(ino).size);
    if by == ReadPath::Direct && !fs.has(Bug::DirectReadSkipsFlush) {
        fs.write_back(ino, 0, end);
    }
    let media = matches!(by, ReadPath::Direct | ReadPath::Media);
    let inode = fs.ino(ino);
    let mut known: Vec<u64> = inode.map.range(..end).map(|(page, _)| *page).collect();
    if !media {
        known.extend(inode.cache.range(..end).map(|(page, _)| *page));
        known.sort_unstable();
        known.dedup();
    }
    let read = |page| (page, if media { fs.media_page(ino, page) } else { fs.page(ino, page) });
    known.into_iter().map(read).filter(|(_, page)| !is_zero_page(page)).collect()
}

/// Adds a run of zeros, as one with the run before if that is zeros too.
fn push_zeros(bytes: &mut Bytes, len: u64) {
    match bytes.runs.last_mut() {
        _ if len == 0 => {}
        Some(Run::Zero { len: before }) => *before += len,
        _ => bytes.runs.push(Run::Zero { len }),
    }
}

fn encode(size: u64, pages: &[(u64, Page)]) -> Bytes {
    let mut bytes = Bytes::default();
    let mut at = 0;
    let mut rest = pages;
    while let Some((first, _)) = rest.first() {
        let count = (0..).zip(rest).take_while(|(i, (page, _))| *page == first + i).count();
        let mut chunk: Vec<u8> = Vec::with_capacity(count * PAGE as usize);
        rest[..count].iter().for_each(|(_, page)| chunk.extend_from_slice(&page[..]));
        let start = first * PAGE;
        chunk.truncate((size - start) as usize);
        push_zeros(&mut bytes, start - at);
        for run in Bytes::encode(&chunk).runs {
            match run {
                Run::Zero { len } => push_zeros(&mut bytes, len),
                run => bytes.runs.push(run),
            }
        }
        at = start + chunk.len() as u64;
        rest = &rest[count..];
    }
    push_zeros(&mut bytes, size - at);
    bytes
}

impl Seen {
    fn read(&mut self, fs: &mut Fs, name: u8, ino: u64, by: ReadPath) -> Event {
        let path = Path { mount: fs.mount, name };
        let pages = pages(fs, ino, by);
        let file = facts(fs, ino);
        let image = self.images.entry(path).or_default();
        if image.bytes.is_empty() || !image.is_same(file.size, &pages) {
            let bytes = encode(file.size, &pages);
            *image = Image { size: file.size, pages, bytes };
        }
        Event::Final { path, by, file, result: Ok(file.size), data: image.bytes.clone() }
    }

    fn read_all(&mut self, fs: &mut Fs, run: u32, by: ReadPath, events: &mut Vec<Event>) {
        for (name, ino) in names(fs, run) {
            events.push(self.read(fs, name, ino, by));
        }
    }
}

/// What the agent does after `End`.
pub(super) fn after_end(mounts: &mut [Fs], run: u32, events: &mut Vec<Event>) -> Seen {
    let mut seen = Seen::default();
    for fs in mounts.iter_mut() {
        events.push(list(fs, run, ReadPath::Read));
        for by in [ReadPath::Read, ReadPath::Direct, ReadPath::Mapping] {
            seen.read_all(fs, run, by, events);
        }
        for (name, ino) in names(fs, run) {
            fs.write_back(ino, 0, u64::MAX);
            let path = Path { mount: fs.mount, name };
            let id = facts(fs, ino).id;
            events.push(Event::FinalExtents { path, id, extents: fs.extents(ino) });
        }
    }
    for fs in mounts.iter_mut() {
        for (_, ino) in names(fs, run) {
            fs.write_back(ino, 0, u64::MAX);
            fs.drop_clean(ino);
        }
        events.push(list(fs, run, ReadPath::AfterDropCaches));
        seen.read_all(fs, run, ReadPath::AfterDropCaches, events);
        let mount = fs.mount;
        seen.complaints.extend(fs.check().into_iter().map(|text| (mount, text)));
    }
    seen
}

/// A clean unmount.
pub(super) fn unmount(mounts: &mut [Fs]) {
    for fs in mounts {
        let inos: Vec<u64> = fs.inodes.keys().copied().collect();
        for ino in inos {
            fs.write_back(ino, 0, u64::MAX);
            fs.drop_cache(ino, 0, u64::MAX);
            let end = page_of(fs.ino(ino).size);
            if fs.has(Bug::RemountLosesWrite) && fs.ino(ino).map.range(..end).count() > 1 {
                let last = fs.ino(ino).map.range(..end).next_back().map_or(0, |(page, _)| *page);
                fs.free(ino, last, last + 1);
            }
        }
    }
}

/// What the host sees on the media of a kept run, and the agent after the next mount.
pub(super) fn after_unmount(mounts: &mut [Fs], run: u32, mut seen: Seen, events: &mut Vec<Event>) {
    for fs in mounts.iter_mut() {
        seen.read_all(fs, run, ReadPath::Media, events);
    }
    for (mount, complaint) in std::mem::take(&mut seen.complaints) {
        let tool = if mount.is_xfs() { "xfs_repair -n" } else { "e2fsck -fn" };
        events.push(Event::Fsck { mount, text: format!("{tool}: {complaint}\n") });
    }
    for fs in mounts {
        events.push(list(fs, run, ReadPath::AfterRemount));
        seen.read_all(fs, run, ReadPath::AfterRemount, events);
    }
}

/// Removes a run's directory from every mount.
pub(super) fn remove(mounts: &mut [Fs], run: u32) {
    for fs in mounts {
        for (_, ino) in names(fs, run) {
            let inode = fs.ino_mut(ino);
            inode.nlink = inode.nlink.saturating_sub(1);
        }
        fs.dirs.remove(&run);
        fs.reap();
    }
}
