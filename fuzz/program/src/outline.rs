//! What is probably true after some lines of a program: which slots are in use, how large the files are, what the pipes hold.
//!
//! The generator asks it in order to make calls that mostly succeed. It is a guess: racing lines are taken in the order of the
//! text, most calls are taken to succeed, and no verdict may ever rest on it.

use crate::{
    Access, CHILDREN_MAX, Call, FILES_MAX, FallocateMode, FileSlot, Lane, Line, MAPS_MAX, MapSlot,
    Mount, NAMES_MAX, OpenFlags, PAGE, PIPES_MAX, Path, PipeSlot, Prot, RINGS_MAX, Sharing,
};

/// Buffers of a pipe, each for a page or a part of one: PIPE_DEF_BUFFERS of the kernel.
pub(crate) const PIPE_BUFFERS: u64 = 16;

/// A file, whatever names lead to it.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub mount: Mount,
    pub size: u64,
}

/// A use of a file slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFile {
    pub inode: usize,
    pub access: Access,
    pub flags: OpenFlags,
}

impl OpenFile {
    pub fn can_read(&self) -> bool {
        self.access != Access::WriteOnly
    }
    pub fn can_write(&self) -> bool {
        self.access != Access::ReadOnly
    }
}

/// A use of a mapping slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub inode: usize,
    pub offset: u64,
    pub len: u64,
    pub prot: Prot,
    pub sharing: Sharing,
    /// Whether the descriptor allows the pages of a shared mapping to be made writable.
    pub writable_file: bool,
}

/// What a pipe holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PipeFill {
    pub bytes: u64,
    pub buffers: u64,
}

/// The slots of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    pub files: [Option<OpenFile>; FILES_MAX as usize],
    pub maps: [Option<Mapping>; MAPS_MAX as usize],
    /// Indices of pipes: parent and child share what a pipe holds.
    pub pipes: [Option<usize>; PIPES_MAX as usize],
    /// Whether there is a ring.
    pub rings: [bool; RINGS_MAX as usize],
}

/// What is probably true after some lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub inodes: Vec<Inode>,
    names: [[Option<usize>; NAMES_MAX as usize]; Mount::ALL.len()],
    spaces: [Space; 1 + CHILDREN_MAX as usize],
    pub pipes: Vec<PipeFill>,
    pub forked: [bool; CHILDREN_MAX as usize],
    pub alive: [bool; CHILDREN_MAX as usize],
}

impl Outline {
    /// The slots that a lane sees.
    pub fn space(&self, lane: Lane) -> &Space {
        &self.spaces[Outline::space_index(lane)]
    }

    /// The file of that name.
    pub fn lookup(&self, path: Path) -> Option<usize> {
        self.names[path.mount as usize][usize::from(path.name % NAMES_MAX)]
    }

    /// How large the file in a slot probably is.
    pub fn size_of(&self, file: &OpenFile) -> u64 {
        self.inodes[file.inode].size
    }

    /// How many buffers of a pipe a range of a file takes: one for each page that it touches.
    pub fn buffers_for(offset: u64, len: u64) -> u64 {
        if len == 0 { 0 } else { (offset.saturating_add(len) - 1) / PAGE - offset / PAGE + 1 }
    }

    fn space_index(lane: Lane) -> usize {
        match lane {
            Lane::Thread(_) => 0,
            Lane::Child(n) => 1 + usize::from(n % CHILDREN_MAX),
        }
    }

    fn name_mut(&mut self, path: Path) -> &mut Option<usize> {
        &mut self.names[path.mount as usize][usize::from(path.name % NAMES_MAX)]
    }

    fn file(&self, lane: Lane, slot: FileSlot) -> Option<OpenFile> {
        self.space(lane).files[usize::from(slot.0 % FILES_MAX)]
    }

    fn file_mut(&mut self, lane: Lane, slot: FileSlot) -> &mut Option<OpenFile> {
        &mut self.spaces[Outline::space_index(lane)].files[usize::from(slot.0 % FILES_MAX)]
    }

    fn map_mut(&mut self, lane: Lane, slot: MapSlot) -> &mut Option<Mapping> {
        &mut self.spaces[Outline::space_index(lane)].maps[usize::from(slot.0 % MAPS_MAX)]
    }

    fn pipe_mut(&mut self, lane: Lane, slot: PipeSlot) -> Option<&mut PipeFill> {
        let index = self.space(lane).pipes[usize::from(slot.0 % PIPES_MAX)]?;
        self.pipes.get_mut(index)
    }

    fn grow(&mut self, file: Option<OpenFile>, end: u64) {
        if let Some(file) = file.filter(OpenFile::can_write) {
            let size = &mut self.inodes[file.inode].size;
            *size = (*size).max(end);
        }
    }

    /// How many of `len` bytes at `offset` the file has.
    fn available(&self, file: Option<OpenFile>, offset: u64, len: u64) -> u64 {
        file.filter(OpenFile::can_read)
            .map_or(0, |file| self.size_of(&file).saturating_sub(offset).min(len))
    }

    /// Takes note of one more line.
    pub fn apply(&mut self, line: &Line) {
        let lane = line.lane;
        match &line.call {
            Call::Open { slot, path, access, flags } => {
                self.open(lane, *slot, *path, *access, *flags)
            }
            Call::Close { file } => *self.file_mut(lane, *file) = None,
            Call::Dup { slot, file } => {
                if let Some(file) = self.file(lane, *file) {
                    *self.file_mut(lane, *slot) = Some(file);
                }
            }
            Call::Unlink { path } => *self.name_mut(*path) = None,
            Call::Rename { from, to } if from.mount == to.mount && from != to => {
                if let Some(inode) = self.name_mut(*from).take() {
                    *self.name_mut(*to) = Some(inode);
                }
            }
            Call::Link { from, to } if from.mount == to.mount => {
                let inode = self.lookup(*from);
                let name = self.name_mut(*to);
                *name = name.or(inode);
            }
            Call::Pwrite { file, offset, len, .. } => {
                self.grow(self.file(lane, *file), offset.saturating_add(*len));
            }
            Call::Pwritev { file, offset, iov } => {
                let len = iov.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
                self.grow(self.file(lane, *file), offset.saturating_add(len));
            }
            Call::Writev { file, iov } => {
                let len = iov.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
                self.grow(self.file(lane, *file), len);
            }
            Call::Mmap { slot, file, offset, len, prot, sharing, .. } => {
                if let Some(file) = self.file(lane, *file) {
                    *self.map_mut(lane, *slot) = Some(Mapping {
                        inode: file.inode,
                        offset: *offset,
                        len: *len,
                        prot: *prot,
                        sharing: *sharing,
                        writable_file: file.can_write(),
                    });
                }
            }
            Call::Munmap { map } => *self.map_mut(lane, *map) = None,
            Call::Mremap { map, len } => {
                if let Some(mapping) = self.map_mut(lane, *map) {
                    mapping.len = *len;
                }
            }
            Call::Mprotect { map, prot } => {
                if let Some(mapping) = self.map_mut(lane, *map) {
                    mapping.prot = *prot;
                }
            }
            Call::Truncate { path, len } => {
                if let Some(inode) = self.lookup(*path) {
                    self.inodes[inode].size = *len;
                }
            }
            Call::Ftruncate { file, len } => {
                if let Some(file) = self.file(lane, *file).filter(OpenFile::can_write) {
                    self.inodes[file.inode].size = *len;
                }
            }
            Call::Fallocate { file, mode, offset, len } => {
                let file = self.file(lane, *file);
                self.fallocate(file, *mode, *offset, *len);
            }
            Call::Ficlone { dst, src } => {
                if let Some(src) = self.file(lane, *src) {
                    let size = self.size_of(&src);
                    self.grow(self.file(lane, *dst), size);
                }
            }
            Call::Ficlonerange { dst, dst_offset, src, src_offset, len } => {
                let wanted = if *len == 0 { u64::MAX } else { *len };
                let len = self.available(self.file(lane, *src), *src_offset, wanted);
                self.grow(self.file(lane, *dst), dst_offset.saturating_add(len));
            }
            Call::CopyFileRange { src, src_offset, dst, dst_offset, len } => {
                let len = self.available(self.file(lane, *src), *src_offset, *len);
                self.grow(self.file(lane, *dst), dst_offset.saturating_add(len));
            }
            Call::Sendfile { dst, src, src_offset, len } => {
                let len = self.available(self.file(lane, *src), *src_offset, *len);
                self.grow(self.file(lane, *dst), len);
            }
            Call::Pipe { slot } => {
                self.pipes.push(PipeFill::default());
                let index = self.pipes.len() - 1;
                self.spaces[Outline::space_index(lane)].pipes[usize::from(slot.0 % PIPES_MAX)] =
                    Some(index);
            }
            Call::SpliceToPipe { file, offset, pipe, len } => {
                let len = self.available(self.file(lane, *file), *offset, *len);
                if let Some(fill) = self.pipe_mut(lane, *pipe) {
                    let room = PIPE_BUFFERS.saturating_sub(fill.buffers) * PAGE;
                    let len = len.min(room);
                    fill.bytes = fill.bytes.saturating_add(len);
                    fill.buffers =
                        (fill.buffers + Outline::buffers_for(*offset, len)).min(PIPE_BUFFERS);
                }
            }
            Call::SpliceFromPipe { pipe, file, offset, len } => {
                let file = self.file(lane, *file).filter(|file| file.can_write());
                if let (Some(file), Some(fill)) = (file, self.pipe_mut(lane, *pipe)) {
                    let len = (*len).min(fill.bytes);
                    fill.bytes -= len;
                    // A buffer that still holds a byte stays taken.
                    fill.buffers =
                        fill.buffers.saturating_sub(len / PAGE).max(fill.bytes.div_ceil(PAGE));
                    if fill.bytes == 0 {
                        fill.buffers = 0;
                    }
                    self.grow(Some(file), offset.saturating_add(len));
                }
            }
            Call::Fork { child } => {
                let child = usize::from(child % CHILDREN_MAX);
                let mut space = self.space(lane).clone();
                space.rings = Default::default();
                self.spaces[1 + child] = space;
                (self.forked[child], self.alive[child]) = (true, true);
            }
            Call::Exit => {
                if let Lane::Child(child) = lane {
                    self.alive[usize::from(child % CHILDREN_MAX)] = false;
                }
            }
            Call::IoUringSetup { slot, .. } => {
                self.spaces[Outline::space_index(lane)].rings[usize::from(slot.0 % RINGS_MAX)] =
                    true;
            }
            _ => {}
        }
    }

    fn open(&mut self, lane: Lane, slot: FileSlot, path: Path, access: Access, flags: OpenFlags) {
        let inode = match self.lookup(path) {
            Some(_) if flags.has(OpenFlags::CREAT) && flags.has(OpenFlags::EXCL) => return,
            Some(inode) => inode,
            None if flags.has(OpenFlags::CREAT) => {
                self.inodes.push(Inode { mount: path.mount, size: 0 });
                self.inodes.len() - 1
            }
            None => return,
        };
        *self.name_mut(path) = Some(inode);
        if flags.has(OpenFlags::TRUNC) && access != Access::ReadOnly {
            self.inodes[inode].size = 0;
        }
        *self.file_mut(lane, slot) = Some(OpenFile { inode, access, flags });
    }

    fn fallocate(&mut self, file: Option<OpenFile>, mode: FallocateMode, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let Some(file) = file.filter(OpenFile::can_write) else { return };
        let size = &mut self.inodes[file.inode].size;
        let whole_pages = offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        match mode {
            FallocateMode::Allocate | FallocateMode::ZeroRange => *size = (*size).max(end),
            FallocateMode::CollapseRange if whole_pages && end < *size => *size -= len,
            FallocateMode::InsertRange if whole_pages && offset < *size => {
                *size = size.saturating_add(len);
            }
            _ => {}
        }
    }
}
