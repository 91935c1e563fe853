//! Inodes of one mount: block maps, the page cache, and how bytes travel between them.
//!
//! Everything here is one atomic step; locks, races and system calls are the callers' matter. DAX mounts have no page cache: their
//! pages are the device's blocks.

use super::block::{Device, PAGE, Page, is_zero_page, zero_page};
use super::bug::Bug;
use history::Extent;
use program::Mount;
use std::collections::BTreeMap;
use std::sync::Arc;

/// FIEMAP_EXTENT_LAST
const EXTENT_LAST: u32 = 0x1;
/// FIEMAP_EXTENT_UNWRITTEN
const EXTENT_UNWRITTEN: u32 = 0x800;
/// FIEMAP_EXTENT_SHARED
const EXTENT_SHARED: u32 = 0x2000;

/// How bytes reach a page: bugs differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// write(2) and its kin.
    Write,
    /// A store through a mapping.
    Store,
    /// O_DIRECT past the page cache.
    Direct,
    /// The kernel zeroes on its own account.
    Zero,
}

/// One block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Which block of the device.
    pub block: u32,
    /// Whether its bytes are the file's; an unwritten one reads as zeros.
    pub written: bool,
}

/// One page of the page cache.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// Its bytes.
    pub data: Page,
    /// Whether the media lack them.
    pub dirty: bool,
    /// Who dirtied it last.
    how: How,
    /// Identity for pipes that hold it.
    pub id: u64,
    /// Whether a pipe holds it.
    pub piped: bool,
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    /// FS_IOC_GETVERSION.
    pub generation: u32,
    /// Names.
    pub nlink: u32,
    /// i_size.
    pub size: u64,
    /// Blocks by file page.
    pub map: BTreeMap<u64, Mapped>,
    /// The page cache by file page.
    pub cache: BTreeMap<u64, Cached>,
    /// Whether blocks were ever shared (XFS then bounces unaligned O_DIRECT writes to the page cache).
    pub reflinked: bool,
    /// Whether FALLOC_FL_PUNCH_HOLE was ever used.
    pub punched: bool,
    /// Who holds the inode's lock.
    pub lock: super::sched::LockState,
    /// One count for the inode and one for each open file.
    pub mark: Arc<()>,
    /// One more than the files open to read only (i_readcount).
    pub readers: Arc<()>,
    /// One more than the files open to write (i_writecount).
    pub writers: Arc<()>,
}

/// One mounted file system.
#[derive(Clone, Debug)]
pub(super) struct Fs {
    /// Which.
    pub mount: Mount,
    /// The planted bug.
    pub bug: Option<Bug>,
    /// The media.
    pub dev: Device,
    /// Inodes by number.
    pub inodes: BTreeMap<u64, Inode>,
    /// Names by run.
    pub dirs: BTreeMap<u32, [Option<u64>; program::NAMES_MAX as usize]>,
    /// Pages that left the page cache while a pipe held them.
    pub orphans: BTreeMap<u64, Page>,
    generation: u32,
    page_id: u64,
}

/// The file page that holds a byte.
pub(super) const fn page_of(at: u64) -> u64 {
    at / PAGE
}

/// The first page past `size` bytes.
pub(super) const fn pages_up(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

impl Fs {
    /// A fresh file system.
    pub fn new(mount: Mount, bug: Option<Bug>) -> Fs {
        Fs {
            mount,
            bug,
            dev: Device::default(),
            inodes: BTreeMap::new(),
            dirs: BTreeMap::new(),
            orphans: BTreeMap::new(),
            generation: 0,
            page_id: 0,
        }
    }

    /// Whether this bug is planted.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The inode.
    pub fn ino(&self, ino: u64) -> &Inode {
        &self.inodes[&ino]
    }

    /// The inode, to be changed.
    pub fn ino_mut(&mut self, ino: u64) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("an open file's inode exists")
    }

    /// A new file without a name; numbers of dead inodes come back with a new generation.
    pub fn create(&mut self) -> u64 {
        let ino = (131..).find(|i| !self.inodes.contains_key(i)).expect("numbers are endless");
        self.generation += 1;
        let inode = Inode {
            generation: self.generation,
            nlink: 1,
            size: 0,
            map: BTreeMap::new(),
            cache: BTreeMap::new(),
            reflinked: false,
            punched: false,
            lock: Default::default(),
            mark: Arc::new(()),
            readers: Arc::new(()),
            writers: Arc::new(()),
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// Frees inodes that have neither a name nor an opener.
    pub fn reap(&mut self) {
        let dead = |i: &Inode| i.nlink == 0 && Arc::strong_count(&i.mark) == 1;
        if !self.inodes.values().any(dead) {
            return;
        }
        let inos: Vec<u64> = self.inodes.iter().filter(|(_, i)| dead(i)).map(|(n, _)| *n).collect();
        for ino in inos {
            self.drop_cache(ino, 0, u64::MAX);
            self.free(ino, 0, u64::MAX);
            self.inodes.remove(&ino);
        }
    }

    /// What the media hold for a page of a file.
    pub fn media_page(&self, ino: u64, page: u64) -> Page {
        match self.ino(ino).map.get(&page) {
            Some(m) if m.written || self.has(Bug::UnwrittenShowsBlock) => self.dev.read(m.block),
            _ => zero_page(),
        }
    }

    /// The page as every coherent path sees it; the page cache keeps what was read.
    pub fn page(&mut self, ino: u64, page: u64) -> Page {
        if self.mount.is_dax() {
            return self.media_page(ino, page);
        }
        self.cached(ino, page).data.clone()
    }

    /// The page in the page cache, read in if need be.
    pub fn cached(&mut self, ino: u64, page: u64) -> &mut Cached {
        if !self.ino(ino).cache.contains_key(&page) {
            let data = self.media_page(ino, page);
            self.page_id += 1;
            let fresh =
                Cached { data, dirty: false, how: How::Write, id: self.page_id, piped: false };
            self.ino_mut(ino).cache.insert(page, fresh);
        }
        self.ino_mut(ino).cache.get_mut(&page).expect("inserted above")
    }

    /// Lays bytes into one page of a file, through the page cache or, with DAX, into the block.
    pub fn lay(&mut self, ino: u64, at: u64, bytes: &[u8], how: How) {
        if self.mount.is_dax() {
            return self.lay_media(ino, at, bytes, how);
        }
        let from = (at % PAGE) as usize;
        let cached = self.cached(ino, page_of(at));
        Arc::make_mut(&mut cached.data)[from..from + bytes.len()].copy_from_slice(bytes);
        cached.dirty = true;
        cached.how = how;
    }

    /// Lays bytes into the block of a page, past the page cache.
    pub fn lay_media(&mut self, ino: u64, at: u64, bytes: &[u8], how: How) {
        let from = (at % PAGE) as usize;
        let block = self.own_block(ino, page_of(at), how);
        self.dev.bytes_mut(block)[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// A block of the file's own for a page, with the page's bytes in it.
    fn own_block(&mut self, ino: u64, page: u64, how: How) -> u32 {
        match self.ino(ino).map.get(&page).copied() {
            Some(m) if m.written => {
                if !self.dev.is_shared(m.block) || self.forgets_to_copy(how) {
                    return m.block;
                }
                let bytes = self.dev.read(m.block);
                let block = self.dev.alloc();
                self.dev.write(block, bytes);
                self.dev.release(m.block);
                self.ino_mut(ino).map.insert(page, Mapped { block, written: true });
                block
            }
            other => {
                let block = other.map_or_else(|| self.dev.alloc(), |m| m.block);
                if !self.has(Bug::NewBlockNotZeroed) {
                    self.dev.write(block, zero_page());
                }
                self.ino_mut(ino).map.insert(page, Mapped { block, written: true });
                block
            }
        }
    }

    fn forgets_to_copy(&self, how: How) -> bool {
        match how {
            How::Write => self.has(Bug::CloneSharesWrites),
            How::Store => self.has(Bug::CloneSharesStores),
            How::Direct => self.has(Bug::CloneSharesDirect),
            How::Zero => false,
        }
    }

    /// Whether reading the page takes more than the page of zeros.
    fn has_bytes(&self, ino: u64, page: u64) -> bool {
        let inode = self.ino(ino);
        inode.cache.contains_key(&page) || inode.map.get(&page).is_some_and(|m| m.written)
    }

    /// Zeroes bytes that lie in one page, where there are any.
    pub fn zero(&mut self, ino: u64, from: u64, to: u64) {
        if from < to && self.has_bytes(ino, page_of(from)) {
            const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
            self.lay(ino, from, &ZEROS[..(to - from) as usize], How::Zero);
        }
    }

    /// Zeroes what lies behind `size` in its page, up to `limit` at most: it is about to be exposed.
    pub fn zero_tail(&mut self, ino: u64, size: u64, limit: u64) {
        if !size.is_multiple_of(PAGE) {
            self.zero(ino, size, limit.min(pages_up(size) * PAGE));
        }
    }

    /// Writes dirty pages of `[from, to)` (in pages) to the media. Pages past the end of file are dropped, and the rest of the last
    /// one is zeroed, as ext4 and XFS do.
    pub fn write_back(&mut self, ino: u64, from: u64, to: u64) {
        let size = self.ino(ino).size;
        let dirty: Vec<u64> =
            self.ino(ino).cache.range(from..to).filter(|(_, c)| c.dirty).map(|(p, _)| *p).collect();
        for page in dirty {
            let at = page * PAGE;
            if at < size && size < at + PAGE {
                let cached = self.cached(ino, page);
                Arc::make_mut(&mut cached.data)[(size - at) as usize..].fill(0);
            }
            let cached = self.cached(ino, page);
            cached.dirty = false;
            let (data, how) = (cached.data.clone(), cached.how);
            if at < size {
                let mut block = self.own_block(ino, page, how);
                if self.has(Bug::WritebackMisplaced) {
                    block = self.misplace(ino, page, block);
                }
                self.dev.write(block, data);
            }
        }
    }

    /// The block of the page before, if the two do not lie side by side.
    fn misplace(&self, ino: u64, page: u64, block: u32) -> u32 {
        match page.checked_sub(1).and_then(|p| self.ino(ino).map.get(&p)) {
            Some(m) if m.written && m.block + 1 != block => m.block,
            _ => block,
        }
    }

    /// Throws pages `[from, to)` out of the page cache, dirty or not.
    pub fn drop_cache(&mut self, ino: u64, from: u64, to: u64) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if inode.cache.is_empty() {
            return;
        }
        let pages: Vec<u64> = inode.cache.range(from..to).map(|(p, _)| *p).collect();
        for page in pages {
            if let Some(cached) = inode.cache.remove(&page)
                && cached.piped
            {
                self.orphans.insert(cached.id, cached.data);
            }
        }
    }

    /// The cached page for somebody who keeps it: its identity.
    pub fn hold_cached(&mut self, ino: u64, page: u64, write: bool) -> u64 {
        let cached = self.cached(ino, page);
        cached.piped = true;
        if write {
            cached.dirty = true;
            cached.how = How::Store;
        }
        cached.id
    }

    /// Takes a held page for clean: a bug.
    pub fn forget_dirt(&mut self, ino: u64, page: u64, id: u64) {
        let cached = self.inodes.get_mut(&ino).and_then(|i| i.cache.get_mut(&page));
        if let Some(cached) = cached.filter(|c| c.id == id) {
            cached.dirty = false;
            cached.piped = false;
        }
    }

    /// Another block with the same bytes in place of one that somebody holds.
    pub fn replace_block(&mut self, ino: u64, page: u64) {
        let Some(old) = self.ino(ino).map.get(&page).copied() else { return };
        let bytes = self.dev.read(old.block);
        let block = self.dev.alloc();
        self.dev.write(block, bytes);
        self.dev.release(old.block);
        self.ino_mut(ino).map.insert(page, Mapped { block, ..old });
    }

    /// A page that is held, wherever it is by now.
    pub fn held_page(&self, ino: u64, page: u64, id: u64) -> Page {
        let cached = self.inodes.get(&ino).and_then(|i| i.cache.get(&page));
        match cached.filter(|c| c.id == id) {
            Some(cached) => cached.data.clone(),
            None => self.orphans.get(&id).cloned().unwrap_or_else(zero_page),
        }
    }

    /// Lays bytes into a page that is held: what has left the page cache is nobody's any more.
    pub fn lay_held(&mut self, ino: u64, page: u64, id: u64, from: usize, bytes: &[u8]) {
        let cached = self.inodes.get_mut(&ino).and_then(|i| i.cache.get_mut(&page));
        let data = match cached.filter(|c| c.id == id) {
            Some(cached) => {
                cached.dirty = true;
                cached.how = How::Store;
                &mut cached.data
            }
            None => self.orphans.entry(id).or_insert_with(zero_page),
        };
        Arc::make_mut(data)[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// A block for a DAX page that somebody will write to, with the page's bytes in it.
    pub fn block_to_store(&mut self, ino: u64, page: u64) -> u32 {
        self.own_block(ino, page, How::Store)
    }

    /// Throws clean pages out of the page cache.
    pub fn drop_clean(&mut self, ino: u64) {
        self.ino_mut(ino).cache.retain(|_, c| c.dirty || c.piped);
    }

    /// Gives the blocks of pages `[from, to)` back.
    pub fn free(&mut self, ino: u64, from: u64, to: u64) {
        let pages: Vec<u64> = self.ino(ino).map.range(from..to).map(|(p, _)| *p).collect();
        // The first file page goes last, so that it is the first to be found by the next owner.
        for page in pages.into_iter().rev() {
            if let Some(m) = self.ino_mut(ino).map.remove(&page) {
                self.dev.release(m.block);
            }
        }
    }

    /// Allocates unwritten blocks for the holes of pages `[from, to)`.
    pub fn preallocate(&mut self, ino: u64, from: u64, to: u64) {
        for page in from..to {
            if self.ino(ino).map.contains_key(&page) {
                continue;
            }
            let block = match self.block_of_another(ino) {
                Some(block) => block,
                None => self.dev.alloc(),
            };
            self.ino_mut(ino).map.insert(page, Mapped { block, written: false });
        }
    }

    fn block_of_another(&self, ino: u64) -> Option<u32> {
        if !self.has(Bug::DoubleAllocation) {
            return None;
        }
        let others = self.inodes.iter().filter(|(n, _)| **n != ino);
        others.filter_map(|(_, i)| i.map.values().find(|m| m.written)).map(|m| m.block).next()
    }

    /// FS_IOC_FIEMAP of the whole file; dirty pages must have been written back (FIEMAP_FLAG_SYNC).
    pub fn extents(&self, ino: u64) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for (&page, m) in &self.ino(ino).map {
            let shared = if self.dev.is_shared(m.block) { EXTENT_SHARED } else { 0 };
            let flags = shared | if m.written { 0 } else { EXTENT_UNWRITTEN };
            let (logical, physical) = (page * PAGE, Device::physical(m.block));
            match extents.last_mut() {
                Some(e)
                    if e.logical + e.length == logical
                        && e.physical + e.length == physical
                        && e.flags == flags =>
                {
                    e.length += PAGE;
                }
                _ => extents.push(Extent { logical, physical, length: PAGE, flags }),
            }
        }
        if let Some(last) = extents.last_mut() {
            last.flags |= EXTENT_LAST;
        }
        extents
    }

    /// Whether SEEK_DATA sees data in a page: written blocks, and cached pages over unwritten ones or waiting for a block.
    pub fn is_data(&self, ino: u64, page: u64) -> bool {
        let inode = self.ino(ino);
        match (inode.map.get(&page), inode.cache.get(&page)) {
            (Some(m), cached) => m.written || cached.is_some(),
            (None, Some(cached)) => cached.dirty,
            (None, None) => false,
        }
    }

    /// stx_blocks: what is mapped and what waits for a block.
    pub fn blocks_512(&self, ino: u64) -> u64 {
        let inode = self.ino(ino);
        let waiting =
            inode.cache.iter().filter(|(p, c)| c.dirty && !inode.map.contains_key(p)).count();
        (inode.map.len() + waiting) as u64 * (PAGE / 512)
    }

    /// What fsck would say of the blocks and link counts; puts right what it finds.
    pub fn check(&mut self) -> Vec<String> {
        let mut owners: Vec<u32> = Vec::new();
        for m in self.inodes.values().flat_map(|i| i.map.values()) {
            let at = m.block as usize;
            if owners.len() <= at {
                owners.resize(at + 1, 0);
            }
            owners[at] += 1;
        }
        let mut complaints = self.dev.check(&owners);
        let mut names: BTreeMap<u64, u32> = BTreeMap::new();
        for ino in self.dirs.values().flatten().flatten() {
            *names.entry(*ino).or_default() += 1;
        }
        for (ino, inode) in &mut self.inodes {
            let links = names.get(ino).copied().unwrap_or(0);
            if inode.nlink != links {
                complaints.push(format!("inode {ino} has {links} names, not {}", inode.nlink));
                inode.nlink = links;
            }
        }
        complaints
    }

    /// Makes whatever a failed write has left past the end of file unreadable.
    pub fn hide_past(&mut self, ino: u64, size: u64) {
        for (_, m) in self.ino_mut(ino).map.range_mut(pages_up(size)..) {
            m.written = false;
        }
        self.zero_tail(ino, size, u64::MAX);
    }

    /// The page for a load from a hole.
    pub fn hole_page(&self, page: Page) -> Page {
        match self.dev.next_free() {
            Some(block) if self.has(Bug::HoleLoadShowsBlock) && is_zero_page(&page) => {
                self.dev.read(block)
            }
            _ => page,
        }
    }
}
