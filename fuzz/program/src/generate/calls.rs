//! Makes one call of a wanted kind, with arguments that the state makes likely to succeed.
//!
//! Which kind is wanted, and what must come before, is decided elsewhere; so is deliberate nonsense.

use super::Writer;
use crate::outline::{Mapping, OpenFile, Outline, PIPE_BUFFERS};
use crate::{
    Access, Advice, Buf, Call, CallKind, Direction, FILE_MAX, FallocateMode, FileSlot, IO_MAX,
    IOV_MAX, Lane, MapFlags, MapSlot, Mount, MsyncFlags, OpenFlags, PAGE, Path, PipeSlot, Prot,
    Sharing, SyncFileRangeFlags, Whence,
};

/// Alignment that O_DIRECT asks of offsets, lengths and memory on the devices under test, in bytes.
const DIRECT_ALIGN: u64 = 512;

/// What a call does with a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Any,
    Read,
    Write,
}

impl Writer<'_, '_> {
    /// A call of that kind. If a slot that it needs is empty, it names the empty slot.
    pub(super) fn call_of(&mut self, kind: CallKind, lane: Lane) -> Call {
        use CallKind as K;
        match kind {
            K::Open => self.open(lane),
            K::Close => {
                // The last file of a program is more useful open.
                let spare = self.outline.space(lane).files.iter().flatten().count() > 1;
                let (file, _) = self.file(lane, Use::Any);
                if spare { Call::Close { file } } else { Call::Statx { file } }
            }
            K::Dup => Call::Dup { slot: self.new_file(lane), file: self.file(lane, Use::Any).0 },
            K::Unlink => Call::Unlink { path: self.known_path() },
            K::Rename | K::Link => {
                let from = self.known_path();
                let mut to = self.path();
                // Both must be on one file system, or the kernel says EXDEV.
                if !self.dice.chance(5) {
                    to.mount = from.mount;
                }
                if kind == K::Link {
                    to.name = self.free_name(to);
                    Call::Link { from, to }
                } else {
                    Call::Rename { from, to }
                }
            }
            K::Pread | K::Pwrite | K::Preadv | K::Pwritev | K::Readv | K::Writev => {
                self.io(kind, lane)
            }
            K::Lseek => {
                let (file, open) = self.file(lane, Use::Any);
                let whence = self.dice.pick(&[Whence::Set, Whence::Hole, Whence::Data]);
                Call::Lseek { file, offset: self.offset(open, 1), whence }
            }
            K::Mmap => {
                let file = self.file(lane, Use::Read).0;
                let slot = self.new_map(lane);
                self.mmap_of(slot, file, lane)
            }
            K::Munmap => Call::Munmap { map: self.map(lane, Prot(0)).0 },
            K::Mremap => {
                let (map, _) = self.map(lane, Prot(0));
                Call::Mremap { map, len: self.dice.between(1, 32) * PAGE }
            }
            K::Mprotect => {
                let (map, mapping) = self.map(lane, Prot(0));
                let both = Prot::READ.with(Prot::WRITE);
                let writable =
                    mapping.is_none_or(|m| m.sharing == Sharing::Private || m.writable_file);
                let wide = if writable { both } else { Prot::READ };
                Call::Mprotect {
                    map,
                    prot: self.dice.pick(&[wide, wide, Prot::READ, Prot::WRITE, Prot(0)]),
                }
            }
            K::Load | K::Store => {
                let load = kind == K::Load;
                let (map, mapping) = self.map(lane, if load { Prot::READ } else { Prot::WRITE });
                let (offset, len) = self.map_access(mapping);
                if load {
                    Call::Load { map, offset, len }
                } else {
                    Call::Store { map, offset, len }
                }
            }
            K::Msync | K::Madvise => {
                let (map, mapping) = self.map(lane, Prot(0));
                let (offset, len) = self.map_pages(mapping);
                if kind == K::Madvise {
                    let (_, advice) = self.dice.pick(Advice::NAMES);
                    return Call::Madvise { map, offset, len, advice };
                }
                let mut flags =
                    self.dice.pick(&[MsyncFlags::SYNC, MsyncFlags::SYNC, MsyncFlags::ASYNC]);
                if self.dice.chance(15) {
                    flags = flags.with(MsyncFlags::INVALIDATE);
                }
                Call::Msync { map, offset, len, flags }
            }
            K::Truncate => {
                let path = self.known_path();
                let size = self.outline.lookup(path).map(|inode| self.outline.inodes[inode].size);
                Call::Truncate { path, len: self.new_size(size.unwrap_or(0)) }
            }
            K::Ftruncate => {
                let (file, open) = self.file(lane, Use::Write);
                let size = open.map_or(0, |open| self.outline.size_of(&open));
                Call::Ftruncate { file, len: self.new_size(size) }
            }
            K::Fallocate => self.fallocate(lane),
            K::Ficlone | K::Ficlonerange | K::Fideduperange => self.reflink(kind, lane),
            K::CopyFileRange | K::Sendfile => {
                let (src, from) = self.file(lane, Use::Read);
                let (dst, to) = self.file(lane, Use::Write);
                let src_offset = self.offset(from, self.direct_align(from));
                let dst_offset = self.offset(to, self.direct_align(to));
                let len = self.len(self.direct_align(from).max(self.direct_align(to)));
                if kind == K::Sendfile {
                    Call::Sendfile { dst, src, src_offset, len }
                } else {
                    Call::CopyFileRange { src, src_offset, dst, dst_offset, len }
                }
            }
            K::Pipe => {
                let free = self.outline.space(lane).pipes.iter().position(Option::is_none);
                let any = self.dice.below(u64::from(PipeSlot::MAX)) as u8;
                Call::Pipe { slot: PipeSlot(free.map_or(any, |free| free as u8)) }
            }
            K::SpliceToPipe => self.splice_to(lane),
            K::SpliceFromPipe => self.splice_from(lane),
            K::Fsync => Call::Fsync { file: self.file(lane, Use::Any).0 },
            K::Fdatasync => Call::Fdatasync { file: self.file(lane, Use::Any).0 },
            K::SyncFileRange => {
                let (file, open) = self.file(lane, Use::Any);
                let flags = SyncFileRangeFlags(self.dice.below(8) as u8);
                Call::SyncFileRange { file, offset: self.offset(open, 1), len: self.len(1), flags }
            }
            K::Syncfs => Call::Syncfs { file: self.file(lane, Use::Any).0 },
            K::Statx => Call::Statx { file: self.file(lane, Use::Any).0 },
            K::Fiemap => Call::Fiemap { file: self.file(lane, Use::Any).0 },
            // The structure of the program places these; a plain one is as good as any.
            K::Fork | K::Exit | K::IoUringSetup | K::Wait => kind.template(),
            _ => self.pin_call(kind, lane),
        }
    }

    fn open(&mut self, lane: Lane) -> Call {
        let path = self.path();
        let exists = self.outline.lookup(path).is_some();
        let access = match self.dice.below(10) {
            0 => Access::ReadOnly,
            1 => Access::WriteOnly,
            _ => Access::ReadWrite,
        };
        let mut flags = OpenFlags(0);
        if !exists || self.dice.chance(30) {
            flags = flags.with(OpenFlags::CREAT);
        }
        if !exists && self.dice.chance(15) {
            flags = flags.with(OpenFlags::EXCL);
        }
        let percents = [
            (OpenFlags::DIRECT, if path.mount.is_dax() { 20 } else { 35 }),
            (OpenFlags::TRUNC, 6),
            (OpenFlags::APPEND, 6),
            (OpenFlags::DSYNC, 6),
            (OpenFlags::SYNC, 5),
            (OpenFlags::NONBLOCK, 2),
        ];
        for (flag, percent) in percents {
            if self.dice.chance(percent) {
                flags = flags.with(flag);
            }
        }
        Call::Open { slot: self.new_file(lane), path, access, flags }
    }

    fn io(&mut self, kind: CallKind, lane: Lane) -> Call {
        use CallKind as K;
        let into = kind.direction() == Some(Direction::IntoBuffer);
        let (file, open) = self.io_file(lane, if into { Use::Read } else { Use::Write });
        let align = self.direct_align(open);
        let offset = self.offset(open, align);
        let len = self.len(align);
        if matches!(kind, K::Pread | K::Pwrite) {
            let (buf, len) = self.buf(lane, into, align, len);
            return if into {
                Call::Pread { file, offset, buf, len }
            } else {
                Call::Pwrite { file, offset, buf, len }
            };
        }
        let count = self.dice.between(1, IOV_MAX as u64);
        let mut iov = vec![self.buf(lane, into, align, len)];
        for _ in 1..count {
            let len = self.len(align).min(64 << 10);
            iov.push(self.buf(lane, into, align, len));
        }
        match kind {
            K::Preadv => Call::Preadv { file, offset, iov },
            K::Pwritev => Call::Pwritev { file, offset, iov },
            K::Readv => Call::Readv { file, iov },
            _ => Call::Writev { file, iov },
        }
    }

    /// A buffer for an I/O of about that length: fresh memory, or a part of a mapping.
    pub(super) fn buf(&mut self, lane: Lane, into: bool, align: u64, len: u64) -> (Buf, u64) {
        if self.dice.chance(40) {
            let prot = if into { Prot::WRITE } else { Prot::READ };
            // Away from the focus, the bytes travel between two files.
            let focus = self.focus;
            if self.dice.chance(50) {
                self.focus = None;
            }
            let found = self.map(lane, prot);
            self.focus = focus;
            if let (map, Some(mapping)) = found {
                let offset = match self.dice.below(4) {
                    0 => 0,
                    1 => self.dice.below(mapping.len / PAGE) * PAGE,
                    2 => self.dice.below(mapping.len / DIRECT_ALIGN) * DIRECT_ALIGN,
                    _ => self.dice.below(mapping.len),
                };
                let offset = if align > 1 { offset / align * align } else { offset };
                return (Buf::Map(map, offset), len.min(mapping.len - offset));
            }
        }
        let offset = match self.dice.below(6) {
            4 => DIRECT_ALIGN,
            5 if align == 1 => self.dice.below(PAGE),
            _ => 0,
        };
        (Buf::Anon(offset as u16), len)
    }

    fn fallocate(&mut self, lane: Lane) -> Call {
        use FallocateMode as M;
        let (file, open) = self.file(lane, Use::Write);
        let size = open.map_or(0, |open| self.outline.size_of(&open));
        let weights = [8, 4, 20, 8, 8, 14, 12, 4, 1];
        let (_, mode) = M::NAMES[self.dice.weighted(&weights)];
        let (mut offset, mut len) = (self.offset(open, 1), self.len(1));
        if matches!(mode, M::CollapseRange | M::InsertRange) {
            // Whole blocks inside the file, or the kernel says EINVAL.
            let pages = (size / PAGE).max(1);
            offset = (offset / PAGE).min(pages - 1) * PAGE;
            len =
                (len / PAGE).clamp(1, (size.saturating_sub(offset + 1) / PAGE).clamp(1, 16)) * PAGE;
        }
        Call::Fallocate { file, mode, offset, len }
    }

    fn reflink(&mut self, kind: CallKind, lane: Lane) -> Call {
        let (src, from) = self.file(lane, Use::Read);
        let (dst, to) = self.file(lane, Use::Write);
        // Whole blocks, or the kernel says EINVAL.
        let src_offset = self.offset(from, PAGE);
        let size = from.map_or(0, |open| self.outline.size_of(&open));
        // Dedupe succeeds only where the bytes agree, so mostly ask it of the same place.
        let same = kind == CallKind::Fideduperange && self.dice.chance(60);
        let dst_offset = if same { src_offset } else { self.offset(to, PAGE) };
        let len = self.len(PAGE).min(size.saturating_sub(src_offset) / PAGE * PAGE);
        match kind {
            CallKind::Ficlone => Call::Ficlone { dst, src },
            CallKind::Fideduperange => {
                Call::Fideduperange { src, src_offset, len: len.max(PAGE), dst, dst_offset }
            }
            _ => Call::Ficlonerange { dst, dst_offset, src, src_offset, len },
        }
    }

    fn splice_to(&mut self, lane: Lane) -> Call {
        let (file, open) = self.file(lane, Use::Read);
        let size = open.map_or(0, |open| self.outline.size_of(&open));
        let mut offset = self.offset(open, 1);
        if offset >= size && !self.dice.chance(5) {
            offset = 0;
        }
        let pipes = self.outline.space(lane).pipes;
        let fits = |pipe: &(u8, usize)| self.outline.pipes[pipe.1].buffers < PIPE_BUFFERS / 2;
        let known: Vec<(u8, usize)> = (0..).zip(pipes).filter_map(|(n, p)| Some((n, p?))).collect();
        let roomy: Vec<(u8, usize)> = known.iter().copied().filter(fits).collect();
        let Some((pipe, index)) =
            self.dice.pick_some(if roomy.is_empty() { &known } else { &roomy })
        else {
            return Call::SpliceToPipe { file, offset, pipe: PipeSlot(0), len: PAGE };
        };
        // Half of what is left, so that a race of two of them still fits.
        let room = (PIPE_BUFFERS - self.outline.pipes[index].buffers).div_ceil(2);
        let mut len = self.len(1).clamp(1, 64 << 10);
        while Outline::buffers_for(offset, len) > room && len > 1 {
            len /= 2;
        }
        Call::SpliceToPipe { file, offset, pipe: PipeSlot(pipe), len }
    }

    fn splice_from(&mut self, lane: Lane) -> Call {
        let (file, open) = self.file(lane, Use::Write);
        let offset = self.offset(open, 1);
        let pipes = self.outline.space(lane).pipes;
        let full: Vec<(u8, u64)> = (0..)
            .zip(pipes)
            .filter_map(|(n, pipe)| Some((n, self.outline.pipes[pipe?].bytes)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let (pipe, bytes) = self.dice.pick_some(&full).unwrap_or((0, PAGE));
        let len = if self.dice.chance(50) { self.len(1).clamp(1, bytes) } else { bytes };
        Call::SpliceFromPipe { pipe: PipeSlot(pipe), file, offset, len }
    }

    /// A file in use that allows it, preferably the one in focus. Never the device of a gate, with which little can be done.
    pub(super) fn file(&mut self, lane: Lane, wanted: Use) -> (FileSlot, Option<OpenFile>) {
        let mut files = self.outline.space(lane).files;
        for file in &mut files {
            *file = file.filter(|file| self.outline.inodes[file.inode].gate.is_none());
        }
        self.file_among(files, wanted)
    }

    /// A file for direct I/O: sometimes the device of a gate, and then mostly of one that is open.
    fn io_file(&mut self, lane: Lane, wanted: Use) -> (FileSlot, Option<OpenFile>) {
        if !self.dice.chance(25) {
            return self.file(lane, wanted);
        }
        let waits = self.shape.threads > 1 && lane != Lane::Thread(0) && self.dice.chance(40);
        let mut files = self.outline.space(lane).files;
        for file in &mut files {
            *file = file.filter(|file| {
                let gate = self.outline.inodes[file.inode].gate;
                gate.is_some_and(|gate| waits || !self.outline.held[usize::from(gate.0)])
            });
        }
        if files.iter().any(Option::is_some) {
            self.file_among(files, wanted)
        } else {
            self.file(lane, wanted)
        }
    }

    fn file_among(
        &mut self,
        files: [Option<OpenFile>; crate::FILES_MAX as usize],
        wanted: Use,
    ) -> (FileSlot, Option<OpenFile>) {
        let suits = |open: &OpenFile| match wanted {
            Use::Any => true,
            Use::Read => open.can_read(),
            Use::Write => open.can_write(),
        };
        let full: Vec<(u8, OpenFile)> =
            (0..).zip(files).filter_map(|(n, f)| Some((n, f?))).collect();
        let fit: Vec<(u8, OpenFile)> = full.iter().copied().filter(|(_, f)| suits(f)).collect();
        let fit = if fit.is_empty() || self.dice.chance(2) { full } else { fit };
        let near: Vec<(u8, OpenFile)> = match self.focus {
            Some(focus) => fit.iter().copied().filter(|(_, f)| f.inode == focus.inode).collect(),
            None => Vec::new(),
        };
        let from = if near.is_empty() || self.dice.chance(20) { fit } else { near };
        match self.dice.pick_some(&from) {
            Some((slot, open)) => (FileSlot(slot), Some(open)),
            None => (FileSlot(0), None),
        }
    }

    /// A mapping in use that allows it, preferably of the file in focus.
    pub(super) fn map(&mut self, lane: Lane, prot: Prot) -> (MapSlot, Option<Mapping>) {
        let maps = self.outline.space(lane).maps;
        let full: Vec<(u8, Mapping)> = (0..).zip(maps).filter_map(|(n, m)| Some((n, m?))).collect();
        let fit: Vec<(u8, Mapping)> =
            full.iter().copied().filter(|(_, m)| m.prot.has(prot)).collect();
        let fit = if fit.is_empty() || self.dice.chance(2) { full } else { fit };
        let near: Vec<(u8, Mapping)> = match self.focus {
            Some(focus) => fit.iter().copied().filter(|(_, m)| m.inode == focus.inode).collect(),
            None => Vec::new(),
        };
        let from = if near.is_empty() || self.dice.chance(20) { fit } else { near };
        match self.dice.pick_some(&from) {
            Some((slot, mapping)) => (MapSlot(slot), Some(mapping)),
            None => (MapSlot(0), None),
        }
    }

    /// The slot for a new file: an empty one, or rarely one in use.
    pub(super) fn new_file(&mut self, lane: Lane) -> FileSlot {
        let free = self.outline.space(lane).files.iter().position(Option::is_none);
        let any = self.dice.below(u64::from(FileSlot::MAX)) as u8;
        let reuse = self.dice.chance(15);
        FileSlot(free.filter(|_| !reuse).map_or(any, |free| free as u8))
    }

    fn new_map(&mut self, lane: Lane) -> MapSlot {
        let free = self.outline.space(lane).maps.iter().position(Option::is_none);
        let any = self.dice.below(u64::from(MapSlot::MAX)) as u8;
        let reuse = self.dice.chance(15);
        MapSlot(free.filter(|_| !reuse).map_or(any, |free| free as u8))
    }

    fn path(&mut self) -> Path {
        let mount = self.dice.pick(&self.shape.mounts);
        let usual = self.shape.names + 1;
        let names = if self.dice.chance(5) { u64::from(crate::NAMES_MAX) } else { usual };
        let name = self.dice.below(names);
        Path { mount, name: name as u8 }
    }

    /// A path that probably leads to a file.
    fn known_path(&mut self) -> Path {
        let mut known = Vec::new();
        for mount in Mount::ALL {
            let paths = (0..crate::NAMES_MAX).map(|name| Path { mount, name });
            known.extend(paths.filter(|path| self.outline.lookup(*path).is_some()));
        }
        match self.dice.pick_some(&known) {
            Some(path) if !self.dice.chance(5) => path,
            _ => self.path(),
        }
    }

    /// A name that is not taken on that mount, if there is one.
    fn free_name(&self, like: Path) -> u8 {
        let free = (0..crate::NAMES_MAX)
            .find(|name| self.outline.lookup(Path { name: *name, ..like }).is_none());
        free.unwrap_or(like.name)
    }

    /// What O_DIRECT asks for on this file; 1 where it asks nothing. DAX files ignore the flag.
    fn direct_align(&self, open: Option<OpenFile>) -> u64 {
        let direct = open.is_some_and(|open| {
            open.flags.has(OpenFlags::DIRECT) && !self.outline.inodes[open.inode].mount.is_dax()
        });
        if direct { DIRECT_ALIGN } else { 1 }
    }

    /// An offset in a file: where others meet, near its end, or anywhere in it.
    fn offset(&mut self, open: Option<OpenFile>, align: u64) -> u64 {
        let size = open.map_or(0, |open| self.outline.size_of(&open));
        let own = self.shape.align;
        let offset = match (self.focus, self.dice.below(10)) {
            (Some(focus), 0..=6) => focus.offset,
            (_, 0..=4) => {
                let hot = self.dice.pick(&self.shape.hot);
                if self.dice.chance(25) { hot + own } else { hot }
            }
            (_, 5 | 6) => {
                let back = self.dice.pick(&[0, 1, 8, 512, PAGE, 2 * PAGE]);
                size.saturating_sub(back)
            }
            (_, 7) => self.dice.below(self.shape.extent) / own * own,
            _ => self.dice.below(size.max(1)) / own * own,
        };
        offset.min(FILE_MAX) / align * align
    }

    /// The length of an I/O or a range: mostly small.
    pub(super) fn len(&mut self, align: u64) -> u64 {
        let own = self.shape.align;
        let len = match self.dice.weighted(&[25, 20, 15, 15, 12, 3, 9, 1]) {
            0 => PAGE,
            1 => self.dice.between(1, 4) * PAGE,
            2 => own.max(8),
            3 => self.dice.between(1, 8) * 512,
            4 => self.dice.between(1, 64 << 10) / own * own,
            5 => self.dice.between(1, IO_MAX) / own * own,
            6 => self.dice.between(1, 16) * PAGE,
            _ => IO_MAX,
        };
        len.max(own).max(align) / align * align
    }

    /// A size to truncate to: down and up, at and beside page boundaries.
    fn new_size(&mut self, size: u64) -> u64 {
        let len = match self.dice.below(10) {
            0 | 1 => 0,
            2 => size / 2,
            3 => size.saturating_sub(1),
            4 => size / 2 / PAGE * PAGE,
            5 => size + self.dice.between(1, 4) * PAGE,
            6 | 7 => self.dice.pick(&self.shape.hot),
            8 => self.dice.below(self.shape.extent),
            _ => self.dice.below(self.shape.extent / PAGE) * PAGE + PAGE / 2,
        };
        len.min(FILE_MAX)
    }

    /// Offset and length for a new mapping of a file of that size. Mostly the whole of it, sometimes reaching past its end.
    pub(super) fn map_range(&mut self, size: u64) -> (u64, u64) {
        let pages = size.div_ceil(PAGE).max(1);
        let first = if self.dice.chance(25) { self.dice.below(pages) } else { 0 };
        let past = if self.dice.chance(20) { self.dice.between(1, 4) } else { 0 };
        let len = match self.dice.below(4) {
            3 => self.dice.between(1, pages - first),
            _ => pages - first,
        };
        ((first * PAGE).min(FILE_MAX - PAGE), ((len + past) * PAGE).min(IO_MAX))
    }

    pub(super) fn map_flags(&mut self, dax: bool) -> MapFlags {
        let mut flags = MapFlags(0);
        if self.dice.chance(if dax { 15 } else { 2 }) {
            flags = flags.with(MapFlags::SYNC);
        }
        if self.dice.chance(12) {
            flags = flags.with(MapFlags::POPULATE);
        }
        flags
    }

    /// Where and how much to load or store, mostly words, and mostly below the end of the file.
    pub(super) fn map_access(&mut self, mapping: Option<Mapping>) -> (u64, u64) {
        let Some(mapping) = mapping else { return (0, 8) };
        let size = self.outline.inodes[mapping.inode].size;
        let inside = size.saturating_sub(mapping.offset).clamp(1, mapping.len);
        let offset = match (self.focus, self.dice.below(8)) {
            (Some(focus), 0..=4) => focus.offset.saturating_sub(mapping.offset),
            (_, 0 | 1) => self.dice.pick(&self.shape.hot).saturating_sub(mapping.offset),
            (_, 2) => inside.saturating_sub(self.dice.pick(&[1, 4, 8, 16])),
            (_, 3) => self.dice.below(mapping.len),
            (_, 4) => self.dice.below(inside.div_ceil(PAGE)) * PAGE,
            _ => self.dice.below(inside) / 8 * 8,
        };
        let offset = offset.min(mapping.len - 1);
        let len = match self.dice.below(8) {
            0..=3 => 8,
            4 => self.dice.between(1, 64),
            5 => 512,
            6 => PAGE,
            _ => self.dice.between(1, 4) * PAGE,
        };
        (offset, len.min(mapping.len - offset))
    }

    /// Whole pages of a mapping.
    pub(super) fn map_pages(&mut self, mapping: Option<Mapping>) -> (u64, u64) {
        let Some(mapping) = mapping else { return (0, PAGE) };
        let pages = mapping.len / PAGE;
        if pages == 0 || self.dice.chance(50) {
            return (0, mapping.len);
        }
        let first = self.dice.below(pages);
        (first * PAGE, self.dice.between(1, pages - first) * PAGE)
    }
}
