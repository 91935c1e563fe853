//! Calls on names and on whole files: open, link counts, sizes, layouts, positions and flushes.
//!
//! The order of argument checks is that of the VFS, then ext4 and XFS (6.12).

use super::block::PAGE;
use super::bug::Bug;
use super::inode::{page_of, pages_up};
use super::layout::{Change, break_layouts};
use super::lease::break_lease;
use super::sched::Cx;
use super::world::errno::{EBADF, EEXIST, EINVAL, EIO, ENOENT, ENXIO, EOPNOTSUPP, EXDEV};
use super::world::{OpenFile, World};
use history::Errno;
use program::{Access, FallocateMode, OpenFlags, Path, SyncFileRangeFlags, Whence};
use std::rc::Rc;

type Outcome = Result<u64, Errno>;

fn mount_of(path: Path) -> usize {
    program::Mount::ALL.iter().position(|m| *m == path.mount).expect("every mount is listed")
}

fn name_of(path: Path) -> usize {
    usize::from(path.name % program::NAMES_MAX)
}

impl World {
    fn find(&self, path: Path) -> Option<u64> {
        let dir = self.fs[mount_of(path)].dirs.get(&self.run)?;
        dir[name_of(path)]
    }

    fn set_name(&mut self, path: Path, ino: Option<u64>) {
        let run = self.run;
        self.fs[mount_of(path)].dirs.entry(run).or_default()[name_of(path)] = ino;
    }

    /// A name is gone.
    fn drop_link(&mut self, mount: usize, ino: u64) {
        let stuck = self.has(Bug::LinkCountStuck);
        let eager = self.has(Bug::UnlinkFreesOpen);
        let fs = &mut self.fs[mount];
        let inode = fs.ino_mut(ino);
        if !(stuck && inode.nlink > 1) {
            inode.nlink = inode.nlink.saturating_sub(1);
        }
        if inode.nlink == 0 && eager {
            // The map keeps pointing at blocks that anybody may now be given.
            for m in fs.ino(ino).map.values().copied().collect::<Vec<_>>() {
                fs.dev.release(m.block);
            }
        }
    }
}

/// Opens a file; the caller fills the slot.
pub(super) async fn open(
    cx: Cx<'_>,
    path: Path,
    access: Access,
    flags: OpenFlags,
) -> Result<Rc<OpenFile>, Errno> {
    let mount = mount_of(path);
    let (ino, file) = {
        let mut w = cx.w();
        let ino = match w.find(path) {
            Some(ino) => {
                let excl = flags.has(OpenFlags::CREAT) && flags.has(OpenFlags::EXCL);
                if excl && !w.has(Bug::ExclIgnored) {
                    return Err(EEXIST);
                }
                ino
            }
            None if flags.has(OpenFlags::CREAT) => {
                let ino = w.fs[mount].create();
                w.set_name(path, Some(ino));
                ino
            }
            None => return Err(ENOENT),
        };
        (ino, Rc::new(w.open_inode(mount, ino, access, flags)))
    };
    let writes = access != Access::ReadOnly;
    break_lease(cx, (mount, ino), writes, flags.has(OpenFlags::NONBLOCK)).await?;
    if flags.has(OpenFlags::TRUNC) && cx.look().fs[mount].ino(ino).size > 0 {
        let _guard = cx.lock(mount, ino, true).await;
        let change = Change::size(mount, ino, 0);
        break_layouts(cx, &[change]).await?;
        cx.w().revoke(&change);
        let keeps = cx.look().has(Bug::OpenTruncKeepsData);
        if keeps {
            cx.w().fs[mount].ino_mut(ino).size = 0;
        } else {
            resize(cx, mount, ino, 0).await;
        }
    }
    Ok(file)
}

/// unlink(2)
pub(super) fn unlink(w: &mut World, path: Path) -> Outcome {
    let ino = w.find(path).ok_or(ENOENT)?;
    w.set_name(path, None);
    w.drop_link(mount_of(path), ino);
    Ok(0)
}

/// rename(2)
pub(super) fn rename(w: &mut World, from: Path, to: Path) -> Outcome {
    if from.mount != to.mount {
        return Err(EXDEV);
    }
    let ino = w.find(from).ok_or(ENOENT)?;
    let target = w.find(to);
    if target == Some(ino) {
        return Ok(0);
    }
    if let Some(target) = target {
        w.drop_link(mount_of(to), target);
    }
    let loses = target.is_some() && w.has(Bug::RenameLosesTarget);
    w.set_name(to, (!loses).then_some(ino));
    if w.has(Bug::RenameKeepsOldName) {
        w.fs[mount_of(from)].ino_mut(ino).nlink += 1;
    } else {
        w.set_name(from, None);
    }
    Ok(0)
}

/// link(2)
pub(super) fn link(w: &mut World, from: Path, to: Path) -> Outcome {
    let ino = w.find(from).ok_or(ENOENT)?;
    if w.find(to).is_some() {
        return Err(EEXIST);
    }
    if from.mount != to.mount {
        return Err(EXDEV);
    }
    w.fs[mount_of(from)].ino_mut(ino).nlink += 1;
    w.set_name(to, Some(ino));
    Ok(0)
}

/// Changes the size under the inode's lock: first what readers see, then the blocks.
async fn resize(cx: Cx<'_>, mount: usize, ino: u64, len: u64) {
    let shrinks = {
        let mut w = cx.w();
        let fs = &mut w.fs[mount];
        let size = fs.ino(ino).size;
        if len > size {
            fs.grow(ino, len);
            false
        } else {
            // The same size again is no exception: what was stored behind it is zeroed, and blocks preallocated there go.
            let unmap = fs.shrink(ino, len);
            if let Some(first) = unmap {
                w.unmap_copies(mount, ino, first, u64::MAX);
            }
            true
        }
    };
    if shrinks {
        cx.step().await;
        cx.w().fs[mount].shrink_blocks(ino);
    }
}

async fn set_size(cx: Cx<'_>, mount: usize, ino: u64, len: u64) -> Outcome {
    let (measured, hasty) = {
        let w = cx.look();
        (w.fs[mount].ino(ino).size, w.has(Bug::TruncateRace))
    };
    if hasty {
        cx.step().await;
    }
    let _guard = cx.lock(mount, ino, true).await;
    let change = Change::size(mount, ino, len);
    break_layouts(cx, &[change]).await?;
    cx.w().revoke(&change);
    let now = cx.look().fs[mount].ino(ino).size;
    if hasty && now > measured && len > measured {
        let mut w = cx.w();
        w.fs[mount].zero_tail(ino, measured, u64::MAX);
    }
    resize(cx, mount, ino, len).await;
    Ok(0)
}

/// truncate(2)
pub(super) async fn truncate(cx: Cx<'_>, path: Path, len: u64) -> Outcome {
    let (ino, _open) = {
        let w = cx.look();
        let ino = w.find(path).ok_or(ENOENT)?;
        let inode = w.fs[mount_of(path)].ino(ino);
        (ino, (inode.mark.clone(), inode.writers.clone()))
    };
    break_lease(cx, (mount_of(path), ino), true, false).await?;
    set_size(cx, mount_of(path), ino, len).await
}

/// ftruncate(2)
pub(super) async fn ftruncate(cx: Cx<'_>, f: &OpenFile, len: u64) -> Outcome {
    if !f.can_write() {
        return Err(EINVAL);
    }
    set_size(cx, f.mount, f.ino, len).await
}

/// fallocate(2)
pub(super) async fn fallocate(
    cx: Cx<'_>,
    f: &OpenFile,
    mode: FallocateMode,
    at: u64,
    len: u64,
) -> Outcome {
    use FallocateMode as M;
    let xfs = cx.look().fs[f.mount].mount.is_xfs();
    if len == 0 {
        return Err(EINVAL);
    }
    if mode == M::PunchHoleBare {
        return Err(if cx.look().has(Bug::UnshareInvalid) { EINVAL } else { EOPNOTSUPP });
    }
    if !f.can_write() {
        return Err(EBADF);
    }
    if mode == M::UnshareRange && !xfs {
        return Err(if cx.look().has(Bug::UnshareInvalid) { EINVAL } else { EOPNOTSUPP });
    }
    let _guard = cx.lock(f.mount, f.ino, true).await;
    let change = Change::fallocate((f.mount, f.ino), mode, at, len);
    if let Some(change) = change {
        break_layouts(cx, &[change]).await?;
    }
    let mut guard = cx.w();
    let w = &mut *guard;
    let mapped = w.is_mapped(f.mount, f.ino);
    let size = w.fs[f.mount].ino(f.ino).size;
    let end = at + len;
    let shifts = matches!(mode, M::CollapseRange | M::InsertRange);
    if shifts && (!at.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE)) {
        return Err(EINVAL);
    }
    let outside = match mode {
        M::CollapseRange => end >= size,
        M::InsertRange => at >= size,
        _ => false,
    };
    if outside {
        return Err(EINVAL);
    }
    if let Some(change) = change {
        w.revoke(&change);
    }
    let fs = &mut w.fs[f.mount];
    let mut unmap = None;
    match mode {
        M::Allocate | M::KeepSize => fs.preallocate(f.ino, page_of(at), pages_up(end)),
        M::ZeroRange | M::ZeroRangeKeepSize => fs.zero_range(f.ino, at, len),
        M::UnshareRange => fs.unshare(f.ino, at, len),
        M::PunchHole => fs.punch(f.ino, at, len),
        M::CollapseRange => unmap = fs.collapse(f.ino, at, len),
        M::InsertRange => unmap = fs.insert(f.ino, at, len),
        M::PunchHoleBare => {}
    }
    let keeps = matches!(mode, M::KeepSize | M::ZeroRangeKeepSize) && !fs.has(Bug::KeepSizeGrows);
    if end > size && !keeps && !shifts && mode != M::PunchHole {
        fs.grow(f.ino, end);
    }
    let punches = mode == M::PunchHole && w.has(Bug::PunchDropsPrivate);
    if let Some(first) = unmap {
        w.unmap_copies(f.mount, f.ino, first, u64::MAX);
    } else if punches {
        w.unmap_copies(f.mount, f.ino, pages_up(at), page_of(end).max(pages_up(at)));
    }
    if mapped && mode == M::CollapseRange && w.has(Bug::WarnOnCollapse) {
        w.complain("WARNING in truncate_pagecache_range");
    }
    w.panicked |= mapped && mode == M::InsertRange && w.has(Bug::PanicOnInsert);
    Ok(0)
}

/// lseek(2)
pub(super) async fn lseek(cx: Cx<'_>, f: &OpenFile, offset: u64, whence: Whence) -> Outcome {
    lock_position(cx, f).await;
    let result = seek(&mut cx.w(), f, offset, whence);
    if let Ok(pos) = result {
        f.pos.set(pos);
    }
    unlock_position(cx, f);
    result
}

fn seek(w: &mut World, f: &OpenFile, offset: u64, whence: Whence) -> Outcome {
    if f.gate.is_some() {
        // A device ends where it ends, for positions too, and has neither holes nor data.
        let known = whence == Whence::Set && offset <= program::GATE_SIZE;
        return if known { Ok(offset) } else { Err(EINVAL) };
    }
    let fs = &w.fs[f.mount];
    let size = fs.ino(f.ino).size;
    if whence == Whence::Set {
        return Ok(offset);
    }
    if offset >= size {
        return Err(ENXIO);
    }
    let wanted = whence == Whence::Data;
    let pages = page_of(offset)..pages_up(size);
    let found = pages.into_iter().find(|page| fs.is_data(f.ino, *page) == wanted);
    match found {
        Some(page) => {
            // Both bugs need more than one block between here and there.
            let (at, far) = (page * PAGE, page > page_of(offset) + 1);
            let at = if wanted && far && fs.has(Bug::SeekDataLate) { at + PAGE } else { at };
            let at = if !wanted && far && fs.has(Bug::SeekHoleEarly) { at - PAGE } else { at };
            Ok(at.max(offset).min(size))
        }
        None if wanted => Err(ENXIO),
        // Behind the end of file lies a hole.
        None => Ok(size),
    }
}

/// Takes the lock of the file position, as calls that use it do.
pub(super) async fn lock_position(cx: Cx<'_>, f: &OpenFile) {
    cx.until("__fdget_pos", |_| !f.pos_locked.get()).await;
    f.pos_locked.set(true);
}

/// Gives the position's lock back.
pub(super) fn unlock_position(cx: Cx<'_>, f: &OpenFile) {
    f.pos_locked.set(false);
    cx.w().progress += 1;
}

/// fsync(2)
pub(super) fn fsync(w: &mut World, f: &OpenFile) -> Outcome {
    let fs = &mut w.fs[f.mount];
    if fs.has(Bug::FsyncDropsDirty)
        && let Some(last) = fs.ino_mut(f.ino).cache.values_mut().rev().find(|c| c.dirty)
    {
        last.dirty = false;
    }
    fs.write_back(f.ino, 0, u64::MAX);
    if fs.ino(f.ino).punched && fs.has(Bug::FsyncFails) {
        return Err(EIO);
    }
    Ok(0)
}

/// fdatasync(2)
pub(super) async fn fdatasync(cx: Cx<'_>, f: &OpenFile) -> Outcome {
    let hangs = {
        let mut w = cx.w();
        let fs = &mut w.fs[f.mount];
        fs.write_back(f.ino, 0, u64::MAX);
        fs.has(Bug::FdatasyncHangs) && fs.ino(f.ino).map.values().any(|m| !m.written)
    };
    if hangs {
        cx.hang().await;
    }
    Ok(0)
}

/// sync_file_range(2)
pub(super) fn sync_file_range(
    w: &mut World,
    f: &OpenFile,
    at: u64,
    len: u64,
    flags: SyncFileRangeFlags,
) -> Outcome {
    if flags.has(SyncFileRangeFlags::WRITE) {
        let end = if len == 0 { u64::MAX } else { pages_up(at + len) };
        w.fs[f.mount].write_back(f.ino, page_of(at), end);
    }
    Ok(0)
}

/// syncfs(2)
pub(super) fn syncfs(w: &mut World, mount: usize) {
    let inos: Vec<u64> = w.fs[mount].inodes.keys().copied().collect();
    for ino in inos {
        w.fs[mount].write_back(ino, 0, u64::MAX);
    }
}

/// 3 to /proc/sys/vm/drop_caches
pub(super) fn drop_caches(w: &mut World) {
    for fs in &mut w.fs {
        let inos: Vec<u64> = fs.inodes.keys().copied().collect();
        for ino in inos {
            fs.drop_clean(ino);
        }
    }
}
