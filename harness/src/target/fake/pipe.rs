//! Pipes: sixteen buffers, each a piece of a page.
//!
//! A buffer spliced from the page cache is the cached page itself: it shows what is written to the file later, until the page leaves
//! the cache. One that came by vmsplice is the mapped page. Everything else is a copy.

use super::block::Page;
use super::buf::Memory;
use super::bug::Bug;
use super::hold::{Ask, Part};
use super::inode::Fs;
use super::mapping::MapRef;
use super::sched::Cx;
use super::world::World;
use super::world::errno::{EFAULT, EINTR, EINVAL, EPIPE};
use history::Errno;
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
    /// A page that a mapping shows.
    Page(Part),
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
            Held::Page(part) => part.page(w),
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
        if self.holders.get() == 0 {
            self.pieces.borrow_mut().clear();
        }
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

/// Takes the pipe's mutex.
pub(super) async fn lock(cx: Cx<'_>, pipe: &Pipe) {
    cx.until("__mutex_lock", |_| !pipe.locked.get()).await;
    pipe.locked.set(true);
}

/// Gives it back.
pub(super) fn unlock(cx: Cx<'_>, pipe: &Pipe) {
    pipe.locked.set(false);
    cx.w().progress += 1;
}

/// Waits for room, and takes the mutex.
pub(super) async fn lock_with_room(cx: Cx<'_>, pipe: &Pipe) -> Result<(), Errno> {
    loop {
        let room = |_: &World| pipe.holders.get() == 0 || !pipe.is_full();
        if !cx.wait("pipe_wait_writable", room).await {
            return Err(EINTR);
        }
        lock(cx, pipe).await;
        if pipe.holders.get() == 0 {
            unlock(cx, pipe);
            return Err(EPIPE);
        }
        if !pipe.is_full() {
            return Ok(());
        }
        unlock(cx, pipe);
    }
}

/// Waits for something to read, and takes the mutex; false at the end.
async fn lock_with_data(cx: Cx<'_>, pipe: &Pipe) -> Result<bool, Errno> {
    loop {
        let data = |_: &World| pipe.holders.get() == 0 || !pipe.pieces.borrow().is_empty();
        if !cx.wait("pipe_wait_readable", data).await {
            return Err(EINTR);
        }
        lock(cx, pipe).await;
        if !pipe.pieces.borrow().is_empty() {
            return Ok(true);
        }
        let over = pipe.holders.get() == 0 || cx.look().helping;
        unlock(cx, pipe);
        if over {
            return Ok(false);
        }
    }
}

/// vmsplice(2) into a pipe: as many pages as there is room for.
pub(super) async fn vmsplice(
    cx: Cx<'_>,
    map: &MapRef,
    offset: u64,
    pipe: &Pipe,
    len: u64,
) -> Result<u64, Errno> {
    if len == 0 {
        return Ok(0);
    }
    lock_with_room(cx, pipe).await?;
    let result = {
        let mut w = cx.w();
        let room = (BUFFERS - pipe.pieces.borrow().len()) as u64;
        let most = room * super::block::PAGE - offset % super::block::PAGE;
        let (parts, why) = w.grab(map, offset, len.min(most), Ask::default());
        let n: u64 = parts.iter().map(|p| p.len as u64).sum();
        let copies = w.has(Bug::VmspliceCopies);
        for part in parts {
            let (from, len) = (part.from, part.len);
            let held = if copies { Held::Copy(part.page(&w)) } else { Held::Page(part) };
            pipe.pieces.borrow_mut().push_back(Piece { held, from, len });
        }
        if n > 0 { Ok(n) } else { Err(why.err().unwrap_or(EFAULT)) }
    };
    unlock(cx, pipe);
    result
}

/// tee(2)
pub(super) async fn tee(cx: Cx<'_>, src: &Pipe, dst: &Pipe, len: u64) -> Result<u64, Errno> {
    if len == 0 {
        return Ok(0);
    }
    if std::ptr::eq(src, dst) {
        return Err(EINVAL);
    }
    if !lock_with_data(cx, src).await? {
        return Ok(0);
    }
    unlock(cx, src);
    lock_with_room(cx, dst).await?;
    let (mut left, mut done) = (len as usize, 0);
    let loses = cx.look().has(Bug::TeeLosesReference);
    for piece in src.pieces.borrow().iter() {
        if left == 0 || dst.is_full() {
            break;
        }
        let n = piece.len.min(left);
        let held = match &piece.held {
            // Planted: the page is not kept, what it holds now is all that the second pipe has.
            Held::Page(part) if loses => Held::Copy(part.page(&cx.look())),
            held => held.clone(),
        };
        dst.pieces.borrow_mut().push_back(Piece { held, from: piece.from, len: n });
        left -= n;
        done += n as u64;
    }
    unlock(cx, dst);
    Ok(done)
}

/// read(2) from a pipe
pub(super) async fn read(cx: Cx<'_>, pipe: &Pipe, to: &mut Memory) -> Result<u64, Errno> {
    let len = to.len() as usize;
    if len == 0 || !lock_with_data(cx, pipe).await? {
        return Ok(0);
    }
    let (mut done, mut fault) = (0, false);
    while done < len {
        let front = pipe.pieces.borrow().front().cloned();
        let Some(piece) = front else { break };
        let n = piece.len.min(len - done);
        let copied = {
            let mut w = cx.w();
            let page = piece.page(&w);
            to.fill(&mut w, &page[piece.from..piece.from + n])
        };
        if copied < n {
            // A buffer that could not be copied whole stays in the pipe.
            fault = done == 0;
            break;
        }
        pipe.consume(n);
        done += n;
    }
    unlock(cx, pipe);
    if fault { Err(EFAULT) } else { Ok(done as u64) }
}
