//! Reading and writing files: through the page cache, past it (O_DIRECT), and straight to DAX media.
//!
//! A call goes page by page, and other lanes may run between two pages. The locks are ext4's and XFS's: both write exclusively, XFS
//! reads under the shared lock, and an ext4 read through the page cache takes none.

use super::block::PAGE;
use super::buf::Memory;
use super::bug::Bug;
use super::inode::{How, page_of, pages_up};
use super::sched::Cx;
use super::world::errno::{EBADF, EFAULT, EINVAL};
use super::world::{OpenFile, World};
use history::Errno;
use program::{Mount, OpenFlags};

/// Alignment that O_DIRECT asks of offsets, lengths and memory: the logical sector of a pmem device.
pub(super) const SECTOR: u64 = 512;

/// pread and its kin: how many bytes arrived.
pub(super) async fn read(
    cx: Cx<'_>,
    f: &OpenFile,
    pos: u64,
    to: &mut Memory,
) -> Result<u64, Errno> {
    if !f.can_read() {
        return Err(EBADF);
    }
    let len = to.len();
    if len == 0 {
        return Ok(0);
    }
    let mount = Mount::ALL[f.mount];
    let locks = mount.is_xfs() || mount.is_dax() || f.is_direct();
    let _guard = if locks { Some(cx.lock(f.mount, f.ino, false).await) } else { None };
    if f.is_direct() {
        return read_direct(cx, f, pos, to).await;
    }
    read_pages(cx, f, pos, to, len).await
}

async fn read_pages(
    cx: Cx<'_>,
    f: &OpenFile,
    start: u64,
    to: &mut Memory,
    len: u64,
) -> Result<u64, Errno> {
    let mut done = 0;
    while done < len {
        {
            let mut guard = cx.w();
            let w = &mut *guard;
            let pos = start + done;
            let size = w.fs[f.mount].ino(f.ino).size;
            if pos >= size {
                if done == 0 && w.has(Bug::ReadPastEnd) {
                    return Ok(len);
                }
                break;
            }
            let from = pos % PAGE;
            let n = (PAGE - from).min(len - done).min(size - pos);
            let page = w.fs[f.mount].page(f.ino, page_of(pos));
            if w.has(Bug::ReadSkipsPage) && done > 0 && done + n == len {
                to.pass(n as usize);
                return Ok(len);
            }
            let copied = match to.aliases(f.mount, f.ino) {
                true => fill_from_itself(w, f, pos, to, n),
                false => to.fill(w, &page[from as usize..(from + n) as usize]) as u64,
            };
            done += copied;
            if copied < n {
                if done == 0 {
                    return Err(EFAULT);
                }
                break;
            }
            if w.has(Bug::ReadWritesTail) && pos + n == size {
                to.fill(w, &page[(from + n) as usize..]);
            }
            if w.has(Bug::ShortRead)
                && !start.is_multiple_of(PAGE)
                && (pos + n).is_multiple_of(PAGE)
            {
                break;
            }
        }
        cx.step().await;
    }
    Ok(done)
}

/// Bytes that a copy within one page moves at once: where source and target overlap, it sees what it has just written.
const WORD: usize = 8;

/// Copies part of a page to memory that may show the same page.
fn fill_from_itself(w: &mut World, f: &OpenFile, pos: u64, to: &mut Memory, n: u64) -> u64 {
    let mut done = 0;
    while done < n {
        let mut word = [0; WORD];
        let k = (n - done).min(WORD as u64) as usize;
        let from = ((pos + done) % PAGE) as usize;
        let page = w.fs[f.mount].page(f.ino, page_of(pos));
        word[..k].copy_from_slice(&page[from..from + k]);
        drop(page);
        let copied = to.fill(w, &word[..k]);
        done += copied as u64;
        if copied < k {
            break;
        }
    }
    done
}

/// Copies memory that may show the same page into part of a page.
fn fetch_into_itself(w: &mut World, f: &OpenFile, pos: u64, from: &mut Memory, n: usize) -> usize {
    let mut done = 0;
    while done < n {
        let mut word = [0; WORD];
        let k = (n - done).min(WORD);
        let got = from.fetch(w, &mut word[..k]);
        w.fs[f.mount].write_at(f.ino, pos + done as u64, &word[..got]);
        done += got;
        if got < k {
            break;
        }
    }
    done
}

/// O_DIRECT: dirty pages are written back first, then the media are read, whole sectors past the end of file included.
async fn read_direct(cx: Cx<'_>, f: &OpenFile, pos: u64, to: &mut Memory) -> Result<u64, Errno> {
    let len = to.len();
    let size = {
        let mut w = cx.w();
        let fs = &mut w.fs[f.mount];
        let size = fs.ino(f.ino).size;
        if pos >= size {
            return Ok(0);
        }
        let (first, last) = (page_of(pos), pages_up(pos + len));
        if !fs.has(Bug::DirectReadSkipsFlush) {
            fs.write_back(f.ino, first, last);
        }
        // Holes and unwritten extents are zeroed by the CPU, which asks for no alignment.
        let from_media = fs.ino(f.ino).map.range(first..last).any(|(_, m)| m.written);
        if from_media
            && (!pos.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) || to.is_misaligned())
        {
            return Err(EINVAL);
        }
        size
    };
    let mut done = 0;
    while done < len {
        {
            let mut guard = cx.w();
            let w = &mut *guard;
            let from = (pos + done) % PAGE;
            let n = (PAGE - from).min(len - done);
            let page = w.fs[f.mount].media_page(f.ino, page_of(pos + done));
            let copied = to.fill(w, &page[from as usize..(from + n) as usize]) as u64;
            if copied < n {
                return Err(EFAULT);
            }
            done += n;
        }
        cx.step().await;
    }
    Ok(done.min(size - pos))
}

/// pwrite and its kin: how many bytes were taken, and where the last one ended.
pub(super) async fn write(
    cx: Cx<'_>,
    f: &OpenFile,
    pos: u64,
    from: &mut Memory,
) -> Result<(u64, u64), Errno> {
    let len = from.len();
    if !f.can_write() {
        let lies = cx.look().has(Bug::WriteReadOnlySucceeds);
        return if lies { Ok((len, pos + len)) } else { Err(EBADF) };
    }
    if len == 0 {
        return Ok((0, pos));
    }
    let append = f.flags.has(OpenFlags::APPEND);
    let aligned = pos.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
    let inside = pos + len <= cx.look().fs[f.mount].ino(f.ino).size;
    let exclusive = !f.is_direct() || append || !aligned || !inside;
    let _guard = cx.lock(f.mount, f.ino, exclusive).await;
    let (pos, bounces) = {
        let w = cx.look();
        let inode = w.fs[f.mount].ino(f.ino);
        let at = if append && !w.has(Bug::AppendIgnored) { inode.size } else { pos };
        // XFS cannot copy part of a shared block past the page cache.
        let part = at % PAGE != 0 || !len.is_multiple_of(PAGE);
        (at, Mount::ALL[f.mount].is_xfs() && inode.reflinked && part)
    };
    let result = if f.is_direct() {
        if pos % SECTOR != 0 || !len.is_multiple_of(SECTOR) {
            return Err(EINVAL);
        }
        match bounces {
            true => write_pages(cx, f, pos, from, len).await,
            false => write_direct(cx, f, pos, from, len).await,
        }
    } else {
        write_pages(cx, f, pos, from, len).await
    };
    let done = result?;
    if f.is_sync() || (f.is_direct() && bounces) {
        cx.w().fs[f.mount].write_back(f.ino, page_of(pos), pages_up(pos + done));
    }
    Ok((done, pos + done))
}

async fn write_pages(
    cx: Cx<'_>,
    f: &OpenFile,
    start: u64,
    from: &mut Memory,
    len: u64,
) -> Result<u64, Errno> {
    let mut done = 0;
    let mut bytes = [0; PAGE as usize];
    while done < len {
        {
            let mut guard = cx.w();
            let w = &mut *guard;
            let pos = start + done;
            let n = (PAGE - pos % PAGE).min(len - done) as usize;
            let got = if from.aliases(f.mount, f.ino) {
                fetch_into_itself(w, f, pos, from, n)
            } else {
                let got = from.fetch(w, &mut bytes[..n]);
                w.fs[f.mount].write_at(f.ino, pos, &bytes[..got]);
                got
            };
            done += got as u64;
            if got < n {
                if done == 0 {
                    return Err(EFAULT);
                }
                break;
            }
        }
        cx.step().await;
    }
    Ok(done)
}

/// O_DIRECT: pages leave the page cache, the media are written, pages that came back meanwhile leave again; the size grows last.
async fn write_direct(
    cx: Cx<'_>,
    f: &OpenFile,
    start: u64,
    from: &mut Memory,
    len: u64,
) -> Result<u64, Errno> {
    if from.is_misaligned() {
        return Err(EINVAL);
    }
    let end = start + len;
    let size = {
        let mut w = cx.w();
        let fs = &mut w.fs[f.mount];
        let size = fs.ino(f.ino).size;
        if start > size {
            fs.zero_tail(f.ino, size, start);
        }
        fs.write_back(f.ino, page_of(start.min(size)), pages_up(end));
        size
    };
    forget(&mut cx.w(), f, start, end);
    let mut done = 0;
    let mut bytes = [0; PAGE as usize];
    while done < len {
        {
            let mut guard = cx.w();
            let w = &mut *guard;
            let pos = start + done;
            let n = (PAGE - pos % PAGE).min(len - done) as usize;
            let got = from.fetch(w, &mut bytes[..n]);
            if got < n {
                // The good prefix is on the media, but nothing that lies past the end of file may be seen later.
                forget(w, f, start, end);
                w.fs[f.mount].hide_past(f.ino, size);
                return Err(EFAULT);
            }
            w.fs[f.mount].lay_media(f.ino, pos, &bytes[..n], How::Direct);
            done += n as u64;
        }
        cx.step().await;
    }
    let mut w = cx.w();
    forget(&mut w, f, start, end);
    let inode = w.fs[f.mount].ino_mut(f.ino);
    inode.size = inode.size.max(end);
    Ok(done)
}

fn forget(w: &mut World, f: &OpenFile, start: u64, end: u64) {
    let fs = &mut w.fs[f.mount];
    if !fs.has(Bug::DirectWriteKeepsCache) {
        fs.drop_cache(f.ino, page_of(start), pages_up(end));
    }
}
