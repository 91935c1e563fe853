//! What is probably true after some lines of a program: which slots are in use, how large the files are, what pipes and gates hold, who has a
//! lease, and which lanes wait.
//!
//! The generator asks it in order to make calls that mostly succeed, and `pairs` what met whom. It is a guess: racing lines are taken in the
//! order of the text, most calls are taken to succeed, time never passes, and no verdict may ever rest on it.

mod effects;
mod leases;
mod meetings;
mod references;
mod waits;

pub(crate) use leases::HeldLease;
pub(crate) use references::Hold;

use crate::{
    Access, CHILDREN_MAX, Call, CallId, FILES_MAX, FileSlot, GATES_MAX, GateSlot, HeldPair, Lane,
    Lease, LeasePair, Line, MAPS_MAX, MapSlot, Mount, NAMES_MAX, OpenFlags, PAGE, PIPES_MAX, Path,
    PinSource, PipeSlot, Prot, REGIONS_MAX, RINGS_MAX, RegionSlot, RingSlot, Sharing,
};
use std::collections::VecDeque;

/// Buffers of a pipe, each for a page or a part of one: PIPE_DEF_BUFFERS of the kernel.
pub(crate) const PIPE_BUFFERS: u64 = 16;

/// A file, whatever names lead to it.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    /// Where it lives. Of a gate's device: a file system that is not DAX, as the device is not.
    pub mount: Mount,
    pub size: u64,
    /// Whether it is the device of a gate.
    pub gate: Option<GateSlot>,
}

impl Inode {
    /// Whether it is a DAX file.
    pub fn is_dax(&self) -> bool {
        self.gate.is_none() && self.mount.is_dax()
    }
}

/// A use of a file slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFile {
    pub inode: usize,
    pub access: Access,
    pub flags: OpenFlags,
    /// The open file description, which dup, fork and a socket share: an index of [`Outline::descriptions`].
    pub description: usize,
}

impl OpenFile {
    pub fn can_read(&self) -> bool {
        self.access != Access::WriteOnly
    }
    pub fn can_write(&self) -> bool {
        self.access != Access::ReadOnly
    }
}

/// An open file description.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub inode: usize,
    pub access: Access,
    pub lease: Option<HeldLease>,
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
    /// The open file description, which the mapping keeps open.
    pub description: usize,
}

/// Bytes in a pipe that came by one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub bytes: u64,
    /// The file whose pages these are, if they are no copy.
    pub of: Option<(usize, PinSource)>,
    pub taken: CallId,
    /// The process that put them there.
    pub space: usize,
}

/// What a pipe holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct PipeFill {
    pub bytes: u64,
    pub buffers: u64,
    pub pieces: VecDeque<Piece>,
}

/// What a ring has registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub map: MapSlot,
    pub offset: u64,
    pub len: u64,
}

/// A use of a ring slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    pub registered: Option<Registered>,
}

/// The slots of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    pub files: [Option<OpenFile>; FILES_MAX as usize],
    pub maps: [Option<Mapping>; MAPS_MAX as usize],
    /// Indices of pipes: parent and child share what a pipe holds.
    pub pipes: [Option<usize>; PIPES_MAX as usize],
    pub rings: [Option<Ring>; RINGS_MAX as usize],
    /// The memory regions that there are: their length, and whether they may be written to.
    pub regions: [Option<(u64, bool)>; REGIONS_MAX as usize],
    /// How its handler answers the break of a lease; none is never.
    pub answer: Option<Lease>,
}

/// Address spaces: that of the threads, then one for each child.
const SPACES: usize = 1 + CHILDREN_MAX as usize;

/// What is probably true after some lines.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub inodes: Vec<Inode>,
    pub descriptions: Vec<Description>,
    names: [[Option<usize>; NAMES_MAX as usize]; Mount::ALL.len()],
    spaces: [Space; SPACES],
    pub pipes: Vec<PipeFill>,
    pub forked: [bool; CHILDREN_MAX as usize],
    pub alive: [bool; CHILDREN_MAX as usize],
    /// Which gates are held.
    pub held: [bool; GATES_MAX as usize],
    /// Whether gup_test has pins.
    pub tested: bool,
    /// References to pages that are not in pipes.
    holds: Vec<Hold>,
    /// Descriptors on their way through the socket.
    pub socket: VecDeque<OpenFile>,
    /// Seconds until the break of a lease has its way; 0 is never.
    pub break_time: u8,
    /// Lines that wait, in the order in which they came.
    waiting: Vec<waits::Waiting>,
    /// Lines seen.
    seen: u16,
    pub held_pairs: Vec<HeldPair>,
    pub lease_pairs: Vec<LeasePair>,
}

impl Default for Outline {
    fn default() -> Outline {
        Outline {
            inodes: Vec::new(),
            descriptions: Vec::new(),
            names: Default::default(),
            spaces: Default::default(),
            pipes: Vec::new(),
            forked: Default::default(),
            alive: Default::default(),
            held: Default::default(),
            tested: false,
            holds: Vec::new(),
            socket: VecDeque::new(),
            // What every program starts with.
            break_time: 45,
            waiting: Vec::new(),
            seen: 0,
            held_pairs: Vec::new(),
            lease_pairs: Vec::new(),
        }
    }
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

    /// A name that leads to the file.
    pub fn name_of(&self, inode: usize) -> Option<Path> {
        let paths = Mount::ALL
            .into_iter()
            .flat_map(|mount| (0..NAMES_MAX).map(move |name| Path { mount, name }));
        paths.into_iter().find(|path| self.lookup(*path) == Some(inode))
    }

    /// How large the file in a slot probably is.
    pub fn size_of(&self, file: &OpenFile) -> u64 {
        self.inodes[file.inode].size
    }

    /// How many buffers of a pipe a range of a file takes: one for each page that it touches.
    pub fn buffers_for(offset: u64, len: u64) -> u64 {
        if len == 0 { 0 } else { (offset.saturating_add(len) - 1) / PAGE - offset / PAGE + 1 }
    }

    /// Takes note of one more line.
    pub fn apply(&mut self, line: &Line) {
        let id = CallId(self.seen);
        self.seen += 1;
        self.synced(line);
        if self.is_stuck(line.lane) && !matches!(line.call, Call::Wait { .. }) {
            self.queue_behind(id, line);
        } else {
            self.issue(id, line);
        }
        self.proceed();
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

    pub fn file(&self, lane: Lane, slot: FileSlot) -> Option<OpenFile> {
        self.space(lane).files[usize::from(slot.0 % FILES_MAX)]
    }

    fn file_mut(&mut self, lane: Lane, slot: FileSlot) -> &mut Option<OpenFile> {
        &mut self.spaces[Outline::space_index(lane)].files[usize::from(slot.0 % FILES_MAX)]
    }

    pub fn map(&self, lane: Lane, slot: MapSlot) -> Option<Mapping> {
        self.space(lane).maps[usize::from(slot.0 % MAPS_MAX)]
    }

    fn map_mut(&mut self, lane: Lane, slot: MapSlot) -> &mut Option<Mapping> {
        &mut self.spaces[Outline::space_index(lane)].maps[usize::from(slot.0 % MAPS_MAX)]
    }

    fn pipe_index(&self, lane: Lane, slot: PipeSlot) -> Option<usize> {
        self.space(lane).pipes[usize::from(slot.0 % PIPES_MAX)]
    }

    fn ring_mut(&mut self, lane: Lane, slot: RingSlot) -> &mut Option<Ring> {
        &mut self.spaces[Outline::space_index(lane)].rings[usize::from(slot.0 % RINGS_MAX)]
    }

    fn region_mut(&mut self, lane: Lane, slot: RegionSlot) -> &mut Option<(u64, bool)> {
        let space = &mut self.spaces[Outline::space_index(lane)];
        &mut space.regions[usize::from(slot.0 % REGIONS_MAX)]
    }

    fn is_held(&self, gate: GateSlot) -> bool {
        self.held[usize::from(gate.0 % GATES_MAX)]
    }

    fn grow(&mut self, file: Option<OpenFile>, end: u64) {
        if let Some(file) = file.filter(OpenFile::can_write)
            && self.inodes[file.inode].gate.is_none()
        {
            let size = &mut self.inodes[file.inode].size;
            *size = (*size).max(end);
        }
    }

    /// How many of `len` bytes at `offset` the file has.
    fn available(&self, file: Option<OpenFile>, offset: u64, len: u64) -> u64 {
        file.filter(OpenFile::can_read)
            .map_or(0, |file| self.size_of(&file).saturating_sub(offset).min(len))
    }
}
