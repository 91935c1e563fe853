//! What changes a file's layout: truncate, the modes of fallocate, and sharing blocks between files.
//!
//! Each function is one atomic step on one mount, after all checks. Private pages of mappings are not touched here: the functions say which
//! ones the kernel would unmap.

use super::block::PAGE;
use super::bug::Bug;
use super::inode::{Fs, How, Mapped, page_of, pages_up};

/// Private pages, from this file page on, that the kernel takes away from mappings.
pub(super) type Unmap = Option<u64>;

impl Fs {
    /// Makes a file shorter, first half: the size changes, the rest of its page is zeroed, pages leave the page cache.
    pub fn shrink(&mut self, ino: u64, len: u64) -> Unmap {
        let off_by_one = self.has(Bug::TruncateSizeOffByOne) && !len.is_multiple_of(PAGE);
        if !self.has(Bug::TruncateKeepsTail) {
            self.zero_tail(ino, len, u64::MAX);
        }
        self.ino_mut(ino).size = len + u64::from(off_by_one);
        self.drop_cache(ino, pages_up(len), u64::MAX);
        (!self.has(Bug::TruncateKeepsPrivate)).then_some(pages_up(len))
    }

    /// Makes a file shorter, second half: blocks past the end go back.
    pub fn shrink_blocks(&mut self, ino: u64) {
        let end = pages_up(self.ino(ino).size);
        if self.has(Bug::BlockLeak) && self.ino(ino).map.range(end..).count() > 1 {
            self.ino_mut(ino).map.remove(&end);
        }
        self.free(ino, end, u64::MAX);
    }

    /// Makes a file longer without writing.
    pub fn grow(&mut self, ino: u64, len: u64) {
        let size = self.ino(ino).size;
        if len <= size {
            return;
        }
        if !self.has(Bug::TruncateKeepsTail) {
            self.zero_tail(ino, size, u64::MAX);
        }
        let off_by_one = self.has(Bug::TruncateSizeOffByOne) && !len.is_multiple_of(PAGE);
        self.ino_mut(ino).size = len + u64::from(off_by_one);
    }

    /// The whole pages inside a range, and the bytes of partly covered pages around them.
    fn split(at: u64, end: u64) -> ((u64, u64), [(u64, u64); 2]) {
        let (first, last) = (pages_up(at), page_of(end));
        if first > last {
            // Both ends lie inside one page.
            return ((0, 0), [(at, end), (0, 0)]);
        }
        ((first, last), [(at, first * PAGE), (last * PAGE, end)])
    }

    /// FALLOC_FL_PUNCH_HOLE
    pub fn punch(&mut self, ino: u64, at: u64, len: u64) {
        let size = self.ino(ino).size;
        let mut end = at + len;
        if !self.mount.is_xfs() {
            // ext4 leaves what lies past the end of file alone.
            if at >= size {
                return;
            }
            if end > size {
                end = pages_up(size) * PAGE;
            }
        }
        self.ino_mut(ino).punched = true;
        let ((first, last), edges) = Fs::split(at, end);
        if !self.has(Bug::PunchSkipsEdges) {
            for (from, to) in edges {
                self.zero(ino, from, to);
            }
        }
        self.drop_cache(ino, first, last);
        if self.has(Bug::PunchKeepsMapping) {
            let kept: Vec<Mapped> = self.ino(ino).map.range(first..last).map(|(_, m)| *m).collect();
            for m in kept {
                self.dev.release(m.block);
            }
        } else {
            self.free(ino, first, last);
        }
    }

    /// FALLOC_FL_ZERO_RANGE, without the change of size.
    pub fn zero_range(&mut self, ino: u64, at: u64, len: u64) {
        let end = at + len;
        let ((first, mut last), edges) = Fs::split(at, end);
        for (from, to) in edges {
            self.zero(ino, from, to);
        }
        if self.has(Bug::ZeroRangeKeepsLast) && last > first {
            last -= 1;
        }
        if !self.has(Bug::ZeroRangeKeepsCache) {
            self.drop_cache(ino, first, last);
        }
        if self.mount.is_xfs() {
            self.free(ino, first, last);
        } else {
            for (page, m) in
                self.ino(ino).map.range(first..last).map(|(p, m)| (*p, *m)).collect::<Vec<_>>()
            {
                self.ino_mut(ino).map.insert(page, Mapped { written: false, ..m });
            }
        }
        self.preallocate(ino, page_of(at), pages_up(end));
    }

    /// FALLOC_FL_COLLAPSE_RANGE
    pub fn collapse(&mut self, ino: u64, at: u64, len: u64) -> Unmap {
        let (start, count) = (page_of(at), page_of(len));
        self.write_back(ino, 0, u64::MAX);
        self.drop_cache(ino, start, u64::MAX);
        self.free(ino, start, start + count);
        let mut tail = self.ino_mut(ino).map.split_off(&(start + count));
        let last = tail.keys().next_back().copied();
        let mut shifted = std::mem::take(&mut tail);
        let late = self.has(Bug::CollapseShift) && count > 1;
        if late && let Some(m) = last.and_then(|p| shifted.remove(&p)) {
            self.ino_mut(ino).map.insert(last.expect("it held a block") - count + 1, m);
        }
        for (page, m) in shifted {
            self.ino_mut(ino).map.insert(page - count, m);
        }
        self.ino_mut(ino).size -= len;
        let size = self.ino(ino).size;
        Some(if self.mount.is_xfs() { pages_up(size) } else { start })
    }

    /// FALLOC_FL_INSERT_RANGE
    pub fn insert(&mut self, ino: u64, at: u64, len: u64) -> Unmap {
        let (start, count) = (page_of(at), page_of(len));
        self.write_back(ino, 0, u64::MAX);
        self.drop_cache(ino, start, u64::MAX);
        let tail = self.ino_mut(ino).map.split_off(&start);
        let last = tail.keys().next_back().copied();
        let short = self.has(Bug::InsertShift) && count > 1;
        for (page, m) in tail {
            let less = u64::from(short && Some(page) == last);
            self.ino_mut(ino).map.insert(page + count - less, m);
        }
        self.ino_mut(ino).size += len;
        let size = self.ino(ino).size;
        Some(if self.mount.is_xfs() { pages_up(size) } else { start })
    }

    /// FALLOC_FL_UNSHARE_RANGE, without the change of size.
    pub fn unshare(&mut self, ino: u64, at: u64, len: u64) {
        let (from, to) = (page_of(at), pages_up(at + len));
        self.write_back(ino, from, to);
        let shared: Vec<(u64, Mapped)> = self
            .ino(ino)
            .map
            .range(from..to)
            .filter(|(_, m)| self.dev.is_shared(m.block))
            .map(|(p, m)| (*p, *m))
            .collect();
        for (page, m) in shared {
            let bytes = self.dev.read(m.block);
            let block = self.dev.alloc();
            self.dev.write(block, bytes);
            self.dev.release(m.block);
            self.ino_mut(ino).map.insert(page, Mapped { block, ..m });
        }
        self.preallocate(ino, from, to);
    }

    /// Shares the blocks of `len` bytes at `from` of `src` with `dst` at `to`: FICLONE and its kin.
    pub fn remap(&mut self, src: u64, from: u64, dst: u64, to: u64, len: u64) {
        self.write_back(src, 0, u64::MAX);
        let size = self.ino(dst).size;
        if to > size {
            self.zero_tail(dst, size, to);
        }
        self.write_back(dst, 0, u64::MAX);
        let (first, target) = (page_of(from), page_of(to));
        let mut count = pages_up(len);
        if self.has(Bug::CloneShort) && count > 1 {
            count -= 1;
        }
        self.drop_cache(dst, target, target + count);
        self.free(dst, target, target + count);
        for i in 0..count {
            if let Some(m) = self.ino(src).map.get(&(first + i)).copied().filter(|m| m.written) {
                self.dev.share(m.block);
                self.ino_mut(dst).map.insert(target + i, m);
            }
        }
        self.ino_mut(src).reflinked = true;
        let dst = self.ino_mut(dst);
        dst.reflinked = true;
        dst.size = dst.size.max(to + len);
    }

    /// Shares the blocks of equal data; every place gets the first block if that bug is planted.
    pub fn dedupe(&mut self, src: u64, from: u64, dst: u64, to: u64, len: u64) {
        if !self.has(Bug::DedupeWrongBlock) || len <= PAGE {
            return self.remap(src, from, dst, to, len);
        }
        for i in 0..pages_up(len) {
            self.remap(src, from, dst, to + i * PAGE, PAGE.min(len - i * PAGE));
        }
    }

    /// Whether two ranges hold the same bytes.
    pub fn same_bytes(&mut self, src: u64, from: u64, dst: u64, to: u64, len: u64) -> bool {
        let len = if self.has(Bug::DedupeIgnoresDifference) { len.min(PAGE) } else { len };
        let mut done = 0;
        while done < len {
            // Both offsets are aligned to blocks.
            let n = PAGE.min(len - done) as usize;
            let (a, b) = (self.page(src, page_of(from + done)), self.page(dst, page_of(to + done)));
            if a[..n] != b[..n] {
                return false;
            }
            done += PAGE;
        }
        true
    }

    /// Bytes that a write leaves at `at`, and the new size.
    pub fn write_at(&mut self, ino: u64, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let size = self.ino(ino).size;
        if at > size && !self.has(Bug::ExtendingWriteKeepsTail) {
            self.zero_tail(ino, size, at);
        }
        let torn = self.has(Bug::TornCopy) && !(at + bytes.len() as u64).is_multiple_of(PAGE);
        let kept = if torn && bytes.len() > 8 { bytes.len() - 4 } else { bytes.len() };
        self.lay(ino, at, &bytes[..kept], How::Write);
        let inode = self.ino_mut(ino);
        inode.size = inode.size.max(at + bytes.len() as u64);
    }
}
