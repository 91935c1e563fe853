//! Calls that move bytes between files without a user buffer: sharing blocks, copy_file_range, sendfile and splice.
//!
//! The order of argument checks is that of fs/remap_range.c, fs/read_write.c and fs/splice.c (6.12).

use super::block::PAGE;
use super::buf::{Memory, Seg};
use super::bug::Bug;
use super::inode::{page_of, pages_up};
use super::layout::{Change, break_layouts};
use super::pipe::{self, BUFFERS, Held, Piece, Pipe};
use super::rw;
use super::sched::{Cx, Guard};
use super::world::errno::{EBADF, EINTR, EINVAL, EOPNOTSUPP, EXDEV};
use super::world::{Answer, OpenFile, World, plain};
use history::{Errno, Payload};
use program::{Mount, OpenFlags};
use std::sync::Arc;

type Outcome = Result<u64, Errno>;

/// The two places of a remap or copy.
#[derive(Clone, Copy)]
pub(super) struct Places<'f> {
    pub src: &'f OpenFile,
    pub from: u64,
    pub dst: &'f OpenFile,
    pub to: u64,
}

impl Places<'_> {
    fn same_file(&self) -> bool {
        self.src.mount == self.dst.mount && self.src.ino == self.dst.ino
    }

    /// generic_file_rw_checks
    fn modes_fit(&self) -> bool {
        self.src.can_read() && self.dst.can_write() && !self.dst.flags.has(OpenFlags::APPEND)
    }
}

/// What a remap is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remap {
    Clone,
    Copy,
    Dedupe,
}

/// Locks both files, in the order of their numbers.
async fn lock_both<'a>(cx: Cx<'a>, p: &Places<'_>) -> (Guard<'a>, Option<Guard<'a>>) {
    let (a, b) = (p.src.ino.min(p.dst.ino), p.src.ino.max(p.dst.ino));
    let first = cx.lock(p.src.mount, a, true).await;
    let second = if a == b { None } else { Some(cx.lock(p.src.mount, b, true).await) };
    (first, second)
}

/// What the sharing of blocks does to the layouts of both files.
async fn break_both(cx: Cx<'_>, p: &Places<'_>, len: u64) -> Result<(), Errno> {
    let size = cx.look().fs[p.src.mount].ino(p.src.ino).size;
    let len = if len == 0 { size.saturating_sub(p.from) } else { len };
    let dst = Change::share(p.dst.mount, p.dst.ino, p.to, len);
    break_layouts(cx, &[dst, Change::source(p.src.mount, p.src.ino)]).await
}

/// The length that generic_remap_file_range_prep lets through.
fn remap_len(w: &World, p: &Places<'_>, len: u64, kind: Remap) -> Result<u64, Errno> {
    let sizes = |f: &OpenFile| w.fs[f.mount].ino(f.ino).size;
    let (size_in, size_out) = (sizes(p.src), sizes(p.dst));
    let mut len = len;
    if len == 0 {
        if kind == Remap::Dedupe || p.from == size_in {
            return Ok(0);
        }
        len = size_in.checked_sub(p.from).ok_or(EINVAL)?;
    }
    if !p.from.is_multiple_of(PAGE) || !p.to.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    let leaves = |at: u64, size: u64| at >= size || at + len > size;
    if kind == Remap::Dedupe && (leaves(p.from, size_in) || leaves(p.to, size_out)) {
        return Err(EINVAL);
    }
    if p.from >= size_in {
        return Err(EINVAL);
    }
    let mut count = len.min(size_in - p.from);
    let to_end = p.from + count == size_in && (kind != Remap::Dedupe || p.to + count == size_out);
    let blocks = if to_end {
        pages_up(size_in) * PAGE - p.from
    } else {
        count -= count % PAGE;
        count
    };
    if p.same_file() && p.to + blocks > p.from && p.to < p.from + blocks {
        return Err(EINVAL);
    }
    if count != len && kind == Remap::Clone {
        return Err(EINVAL);
    }
    Ok(count)
}

/// generic_remap_check_len: no part of a block in the middle of the destination.
fn remap_end(w: &World, p: &Places<'_>, len: u64, kind: Remap) -> Result<u64, Errno> {
    let size_out = w.fs[p.dst.mount].ino(p.dst.ino).size;
    if len.is_multiple_of(PAGE) || p.to + len >= size_out {
        return Ok(len);
    }
    if kind == Remap::Clone { Err(EINVAL) } else { Ok(len - len % PAGE) }
}

/// FICLONE and FICLONERANGE
pub(super) async fn clone(cx: Cx<'_>, p: Places<'_>, len: u64) -> Outcome {
    if p.src.mount != p.dst.mount {
        return Err(EXDEV);
    }
    if !p.modes_fit() {
        return Err(EBADF);
    }
    if !Mount::ALL[p.src.mount].is_xfs() {
        return Err(EOPNOTSUPP);
    }
    let _guards = lock_both(cx, &p).await;
    break_both(cx, &p, len).await?;
    let mut w = cx.w();
    let checked = remap_len(&w, &p, len, Remap::Clone)?;
    if checked == 0 {
        return Ok(0);
    }
    let checked = remap_end(&w, &p, checked, Remap::Clone)?;
    w.revoke(&Change::share(p.dst.mount, p.dst.ino, p.to, checked));
    w.fs[p.src.mount].remap(p.src.ino, p.from, p.dst.ino, p.to, checked);
    w.unshare_held(p.dst.mount, p.dst.ino);
    Ok(0)
}

/// FIDEDUPERANGE with one destination
pub(super) async fn dedupe(cx: Cx<'_>, p: Places<'_>, len: u64) -> Answer {
    if !p.src.can_read() {
        return plain(Err(EINVAL));
    }
    if !Mount::ALL[p.src.mount].is_xfs() {
        return plain(Err(EOPNOTSUPP));
    }
    if p.from + len > cx.look().fs[p.src.mount].ino(p.src.ino).size {
        return plain(Err(EINVAL));
    }
    match dedupe_one(cx, p, len).await {
        // The whole length is reported even where it was rounded down to blocks.
        Ok(true) => (Ok(len), Payload::Dedupe { status: 0 }),
        Ok(false) => (Ok(0), Payload::Dedupe { status: 1 }),
        Err(Errno(e)) => (Ok(0), Payload::Dedupe { status: -e }),
    }
}

async fn dedupe_one(cx: Cx<'_>, p: Places<'_>, len: u64) -> Result<bool, Errno> {
    if p.src.mount != p.dst.mount {
        return Err(EXDEV);
    }
    if len == 0 {
        return Ok(true);
    }
    let _guards = lock_both(cx, &p).await;
    break_both(cx, &p, len).await?;
    let mut w = cx.w();
    let checked = remap_len(&w, &p, len, Remap::Dedupe)?;
    if checked == 0 {
        return Ok(true);
    }
    let fs = &mut w.fs[p.src.mount];
    if !fs.same_bytes(p.src.ino, p.from, p.dst.ino, p.to, checked) {
        return Ok(false);
    }
    let checked = remap_end(&w, &p, checked, Remap::Dedupe)?;
    if checked > 0 {
        w.revoke(&Change::share(p.dst.mount, p.dst.ino, p.to, checked));
        w.fs[p.src.mount].dedupe(p.src.ino, p.from, p.dst.ino, p.to, checked);
        w.unshare_held(p.dst.mount, p.dst.ino);
    }
    Ok(true)
}

/// copy_file_range(2)
pub(super) async fn copy_file_range(cx: Cx<'_>, mut p: Places<'_>, len: u64) -> Outcome {
    if !p.modes_fit() {
        return Err(EBADF);
    }
    // Neither ext4 nor XFS copies between superblocks.
    if p.src.mount != p.dst.mount {
        return Err(EXDEV);
    }
    let size = cx.look().fs[p.src.mount].ino(p.src.ino).size;
    let len = len.min(size.saturating_sub(p.from));
    if p.same_file() && p.to + len > p.from && p.to < p.from + len {
        return Err(EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    if cx.look().has(Bug::CopyRangeOffset) {
        p.from -= p.from % PAGE;
    }
    if Mount::ALL[p.src.mount].is_xfs() {
        let _guards = lock_both(cx, &p).await;
        // Whatever keeps it from sharing blocks, it copies then.
        if break_both(cx, &p, len).await.is_ok() {
            let mut w = cx.w();
            let checked = remap_len(&w, &p, len, Remap::Copy)
                .and_then(|n| if n == 0 { Ok(0) } else { remap_end(&w, &p, n, Remap::Copy) });
            if let Ok(n @ 1..) = checked {
                w.revoke(&Change::share(p.dst.mount, p.dst.ino, p.to, n));
                w.fs[p.src.mount].remap(p.src.ino, p.from, p.dst.ino, p.to, n);
                w.unshare_held(p.dst.mount, p.dst.ino);
                return Ok(n);
            }
        }
    }
    direct(cx, p, len).await.map(|(n, _)| n)
}

/// sendfile(2)
pub(super) async fn sendfile(
    cx: Cx<'_>,
    dst: &OpenFile,
    src: &OpenFile,
    from: u64,
    len: u64,
) -> Outcome {
    if !src.can_read() || !dst.can_write() {
        return Err(EBADF);
    }
    if dst.flags.has(OpenFlags::APPEND) {
        return Err(EINVAL);
    }
    let (n, end) = direct(cx, Places { src, from, dst, to: dst.pos.get() }, len).await?;
    if n > 0 {
        dst.pos.set(end);
    }
    Ok(n)
}

/// splice_direct_to_actor: through a pipe of the kernel's own, sixteen pages at a time.
async fn direct(cx: Cx<'_>, p: Places<'_>, len: u64) -> Result<(u64, u64), Errno> {
    let (mut done, mut from, mut to) = (0, p.from, p.to);
    while done < len {
        let read = read_pieces(cx, p.src, from, len - done, BUFFERS).await;
        let mut pieces = match read {
            Ok(pieces) if pieces.is_empty() => break,
            Ok(pieces) => pieces,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        if cx.look().has(Bug::SendfileRepeatsPage) && pieces.len() > 1 {
            let len = pieces[1].len;
            if pieces[0].len >= len {
                pieces[1] = Piece { len, ..pieces[0].clone() };
            }
        }
        let total: u64 = pieces.iter().map(|p| p.len as u64).sum();
        let mut memory = Memory::new(pieces.into_iter().map(Seg::Piece).collect());
        match rw::write(cx, p.dst, to, &mut memory).await {
            Ok((n, end)) => {
                (done, from, to) = (done + n, from + n, end);
                if n < total {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok((done, to))
}

/// splice_read: references to cached pages, or copies where there is no page cache to refer to.
async fn read_pieces(
    cx: Cx<'_>,
    f: &OpenFile,
    pos: u64,
    len: u64,
    room: usize,
) -> Result<Vec<Piece>, Errno> {
    let len = len.min(room as u64 * PAGE);
    let dax = Mount::ALL[f.mount].is_dax();
    if dax || f.is_direct() {
        return copy_pieces(cx, f, pos, len).await;
    }
    let _guard = match Mount::ALL[f.mount].is_xfs() {
        true => Some(cx.lock(f.mount, f.ino, false).await),
        false => None,
    };
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < len && pieces.len() < room {
        let mut w = cx.w();
        let fs = &mut w.fs[f.mount];
        let (at, size) = (pos + done, fs.ino(f.ino).size);
        if at >= size {
            break;
        }
        let from = at % PAGE;
        let n = (PAGE - from).min(len - done).min(size - at);
        let cached = fs.cached(f.ino, page_of(at));
        cached.piped = true;
        let id = cached.id;
        let held = Held::Cache { mount: f.mount, ino: f.ino, page: page_of(at), id };
        pieces.push(Piece { held, from: from as usize, len: n as usize });
        done += n;
    }
    Ok(pieces)
}

async fn copy_pieces(cx: Cx<'_>, f: &OpenFile, pos: u64, len: u64) -> Result<Vec<Piece>, Errno> {
    let data = vec![0; len as usize];
    let mut memory = Memory::new(vec![Seg::Anon { data, align: 0, touched: 0 }]);
    let n = rw::read(cx, f, pos, &mut memory).await? as usize;
    let replaced =
        cx.look().has(Bug::SplicePageReplaced) && pos.is_multiple_of(PAGE) && !f.is_direct();
    let Some(Seg::Anon { data, .. }) = memory.segs.first() else { return Ok(Vec::new()) };
    let pieces = data[..n].chunks(PAGE as usize).enumerate().map(|(i, chunk)| {
        let mut page = [0; PAGE as usize];
        page[..chunk.len()].copy_from_slice(chunk);
        let last = Arc::new(page);
        let page = page_of(pos) + i as u64;
        let held = match replaced {
            true => Held::File { mount: f.mount, ino: f.ino, page, last },
            false => Held::Copy(last),
        };
        Piece { held, from: 0, len: chunk.len() }
    });
    Ok(pieces.collect())
}

/// splice(2) from a file into a pipe
pub(super) async fn splice_to_pipe(
    cx: Cx<'_>,
    f: &OpenFile,
    pos: u64,
    pipe: &Pipe,
    len: u64,
) -> Outcome {
    if len == 0 {
        return Ok(0);
    }
    if !f.can_read() {
        return Err(EBADF);
    }
    pipe::lock_with_room(cx, pipe).await?;
    let room = BUFFERS - pipe.pieces.borrow().len();
    let read = read_pieces(cx, f, pos, len, room).await;
    let result = read.map(|pieces| {
        let n = pieces.iter().map(|p| p.len as u64).sum();
        pipe.pieces.borrow_mut().extend(pieces);
        n
    });
    pipe::unlock(cx, pipe);
    result
}

/// splice(2) from a pipe into a file
pub(super) async fn splice_from_pipe(
    cx: Cx<'_>,
    pipe: &Pipe,
    f: &OpenFile,
    pos: u64,
    len: u64,
) -> Outcome {
    if len == 0 {
        return Ok(0);
    }
    if !f.can_write() {
        return Err(EBADF);
    }
    if f.flags.has(OpenFlags::APPEND) {
        return Err(EINVAL);
    }
    let (mut done, mut at) = (0, pos);
    while done < len {
        if done == 0 && pipe.pieces.borrow().is_empty() {
            let deaf = cx.look().has(Bug::SpliceNotWoken);
            let woken = cx.wait("pipe_wait_readable", |w| {
                let arrived = !pipe.pieces.borrow().is_empty() && !deaf;
                arrived || pipe.holders.get() == 0 || (deaf && w.helping)
            });
            if !woken.await {
                return Err(EINTR);
            }
        }
        pipe::lock(cx, pipe).await;
        if pipe.pieces.borrow().is_empty() {
            pipe::unlock(cx, pipe);
            if done > 0 || pipe.holders.get() == 0 || cx.look().helping {
                break;
            }
            continue;
        }
        let mut left = (len - done) as usize;
        let mut segs = Vec::new();
        for piece in pipe.pieces.borrow().iter() {
            let n = piece.len.min(left);
            if n == 0 {
                break;
            }
            segs.push(Seg::Piece(Piece { len: n, ..piece.clone() }));
            left -= n;
        }
        let mut memory = Memory::new(segs);
        let wrote = rw::write(cx, f, at, &mut memory).await;
        if let Ok((n, end)) = wrote {
            pipe.consume(n as usize);
            (done, at) = (done + n, end);
        }
        pipe::unlock(cx, pipe);
        match wrote {
            Err(e) if done == 0 => return Err(e),
            Err(_) | Ok((0, _)) => break,
            Ok(_) => {}
        }
    }
    Ok(done)
}
