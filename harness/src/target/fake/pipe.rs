//! Pipes: sixteen buffers, each a piece of a page.
//!
//! A buffer spliced from the page cache is the cached page itself: it shows what is written to the file later, until the page leaves
//! the cache. Everything else is a copy.

use super::block::Page;
use super::inode::Fs;
use super::world::World;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Buffers of a pipe of default size.
pub(super) const BUFFERS: usize = 16;

/// Where a buffer's bytes lie.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// A page of the pipe's own.
    Copy(Page),
    /// A page of the page cache.
    Cache {
        /// Which mount.
        mount: usize,
        /// Which file, when it was spliced.
        ino: u64,
        /// Which page of it.
        page: u64,
        /// Identity of the cached page.
        id: u64,
    },
    /// What a file's page holds when it is looked at: a bug.
    File {
        /// Which mount.
        mount: usize,
        /// Which file.
        ino: u64,
        /// Which page of it.
        page: u64,
        /// If the file is gone.
        last: Page,
    },
}

/// One buffer.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The page.
    pub held: Held,
    /// First byte in it.
    pub from: usize,
    /// Bytes.
    pub len: usize,
}

impl Piece {
    /// The page as it is now.
    pub fn page(&self, w: &World) -> Page {
        match &self.held {
            Held::Copy(page) => page.clone(),
            Held::Cache { mount, ino, page, id } => {
                let fs = &w.fs[*mount];
                let cached = fs.inodes.get(ino).and_then(|i| i.cache.get(page));
                match cached.filter(|c| c.id == *id) {
                    Some(cached) => cached.data.clone(),
                    None => fs.orphans[id].clone(),
                }
            }
            Held::File { mount, ino, page, last } => {
                let fs: &Fs = &w.fs[*mount];
                match fs.inodes.contains_key(ino) {
                    true => fs.media_page(*ino, *page),
                    false => last.clone(),
                }
            }
        }
    }
}

/// A pipe; a slot holds both its ends.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// What is in it.
    pub pieces: RefCell<VecDeque<Piece>>,
    /// Slots that hold it: without any, readers see the end and writers a broken pipe.
    pub holders: Cell<u32>,
    /// The pipe's mutex.
    pub locked: Cell<bool>,
}

impl Pipe {
    /// One more slot holds it.
    pub fn get(&self) {
        self.holders.set(self.holders.get() + 1);
    }

    /// One slot less holds it.
    pub fn put(&self) {
        self.holders.set(self.holders.get().saturating_sub(1));
    }

    /// Whether no buffer is free.
    pub fn is_full(&self) -> bool {
        self.pieces.borrow().len() >= BUFFERS
    }

    /// Takes `len` bytes off the front.
    pub fn consume(&self, mut len: usize) {
        let mut pieces = self.pieces.borrow_mut();
        while len > 0
            && let Some(front) = pieces.front_mut()
        {
            let n = front.len.min(len);
            front.from += n;
            front.len -= n;
            len -= n;
            if front.len == 0 {
                pieces.pop_front();
            }
        }
    }
}
