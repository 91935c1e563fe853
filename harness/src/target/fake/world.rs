//! The world of one run: the mounts, the processes with their slots, and the log of events.
//!
//! It holds state and the small steps on it; what a system call does with them is written in the modules named after the calls.

use super::bug::Bug;
use super::inode::Fs;
use super::mapping::Vma;
use super::pipe::Pipe;
use super::sched::{LANES, LaneState, Rng};
use history::{Errno, Event, FileFacts, FileId, SkipReason};
use program::{
    Access, Call, CallId, FILES_MAX, Line, MAPS_MAX, Mount, OpenFlags, PIPES_MAX, RINGS_MAX,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Error numbers of asm-generic/errno.h, as far as this kernel uses them.
pub(super) mod errno {
    use history::Errno;
    /// No such file or directory.
    pub const ENOENT: Errno = Errno(2);
    /// Input/output error.
    pub const EIO: Errno = Errno(5);
    /// No such device or address: SEEK_DATA past the last data.
    pub const ENXIO: Errno = Errno(6);
    /// Bad file descriptor: not open in the mode that the call needs.
    pub const EBADF: Errno = Errno(9);
    /// Out of memory: the address range is not all mapped.
    pub const ENOMEM: Errno = Errno(12);
    /// Permission denied.
    pub const EACCES: Errno = Errno(13);
    /// Bad address.
    pub const EFAULT: Errno = Errno(14);
    /// File exists.
    pub const EEXIST: Errno = Errno(17);
    /// Cross-device link.
    pub const EXDEV: Errno = Errno(18);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(22);
    /// Broken pipe.
    pub const EPIPE: Errno = Errno(32);
    /// Operation not supported.
    pub const EOPNOTSUPP: Errno = Errno(95);
    /// Operation cancelled.
    pub const ECANCELED: Errno = Errno(125);
}

/// An open file description, shared by dup and fork.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Which mount, as an index of `Mount::ALL`.
    pub mount: usize,
    /// Which inode.
    pub ino: u64,
    /// Access mode.
    pub access: Access,
    /// Flags that stay in force.
    pub flags: OpenFlags,
    /// The file position.
    pub pos: Cell<u64>,
    /// Whether a call holds the position's lock.
    pub pos_locked: Cell<bool>,
    /// Keeps the inode alive.
    _mark: Arc<()>,
}

impl OpenFile {
    /// FMODE_READ
    pub fn can_read(&self) -> bool {
        self.access != Access::WriteOnly
    }

    /// FMODE_WRITE
    pub fn can_write(&self) -> bool {
        self.access != Access::ReadOnly
    }

    /// O_DIRECT on a file that has a page cache to go past; with DAX it changes nothing.
    pub fn is_direct(&self) -> bool {
        self.flags.has(OpenFlags::DIRECT) && !Mount::ALL[self.mount].is_dax()
    }

    /// Whether every write is followed by a flush.
    pub fn is_sync(&self) -> bool {
        self.flags.has(OpenFlags::DSYNC) || self.flags.has(OpenFlags::SYNC)
    }

    /// The same file with a position of its own.
    pub fn reopened(&self) -> OpenFile {
        OpenFile {
            pos: Cell::new(self.pos.get()),
            pos_locked: Cell::new(false),
            _mark: self._mark.clone(),
            ..*self
        }
    }
}

/// A slot's content, and the call that filled it.
pub(super) type Slot<T> = Option<(T, CallId)>;

/// An io_uring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Requests that it takes at once.
    pub entries: usize,
    /// Requests handed in so far.
    pub submitted: Cell<u64>,
    /// Requests not completed yet, by number.
    pub running: RefCell<Vec<u64>>,
    /// Chains that are held back, by the number of their first request, in the order of submission.
    pub deferred: RefCell<VecDeque<u64>>,
    /// The next chain drains as well.
    pub drain_next: Cell<bool>,
}

/// What a process owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    /// Open files.
    pub files: [Slot<Rc<OpenFile>>; FILES_MAX as usize],
    /// Mappings.
    pub maps: [Slot<Rc<RefCell<Vma>>>; MAPS_MAX as usize],
    /// Pipes, both ends of each.
    pub pipes: [Slot<Rc<Pipe>>; PIPES_MAX as usize],
    /// Rings.
    pub rings: [Slot<Rc<Ring>>; RINGS_MAX as usize],
}

/// A line that a lane has still to issue.
pub(super) type Queued = (CallId, Line);

/// Everything that lives while one program runs.
pub(super) struct World {
    /// The mounts, in the order of `Mount::ALL`.
    pub fs: Vec<Fs>,
    /// The planted bug.
    pub bug: Option<Bug>,
    /// The run's number.
    pub run: u32,
    /// Draws the schedule.
    pub rng: Rng,
    /// Process 0 is the threads', 1 and 2 are the children's.
    pub procs: [Option<Process>; 3],
    /// Children that were forked.
    pub forked: [bool; program::CHILDREN_MAX as usize],
    /// What each lane, and each io_uring request after them, is doing.
    pub lanes: Vec<LaneState>,
    /// What each lane has to do.
    pub queues: [VecDeque<Queued>; LANES],
    /// io_uring requests that wait for the end of their link chain.
    pub chains: [Vec<super::ring::Request>; LANES],
    /// Chains that are submitted and not begun.
    pub jobs: Vec<super::ring::Job>,
    /// Lines that a lane has taken and not finished.
    pub current: [Option<CallId>; LANES],
    /// Calls invoked and not returned, with the lane that issued them.
    pub in_flight: Vec<(CallId, usize)>,
    /// Counts whatever may let a waiting lane go on.
    pub progress: u64,
    /// CLOCK_MONOTONIC since the run began.
    pub clock: u64,
    /// Events so far.
    pub events: Vec<Event>,
    /// Order of the next event.
    pub seq: u64,
    /// Calls issued.
    pub calls: u64,
    /// The agent helps blocked calls to end: pipes are drained and closed.
    pub helping: bool,
    /// The kernel panicked.
    pub panicked: bool,
    /// Next mapping address.
    pub next_address: u64,
    /// Next descriptor number, for the reader's benefit.
    pub next_fd: u64,
}

impl World {
    /// The world at the start of a run.
    pub fn new(fs: Vec<Fs>, bug: Option<Bug>, run: u32, seed: u64) -> World {
        World {
            fs,
            bug,
            run,
            rng: Rng(seed ^ (u64::from(run) << 32)),
            procs: [Some(Process::default()), None, None],
            forked: [false; program::CHILDREN_MAX as usize],
            lanes: vec![LaneState::Ready; LANES],
            queues: Default::default(),
            chains: Default::default(),
            jobs: Vec::new(),
            current: [None; LANES],
            in_flight: Vec::new(),
            progress: 0,
            clock: 1000,
            events: Vec::with_capacity(160),
            seq: 0,
            calls: 0,
            helping: false,
            panicked: false,
            next_address: 0x7f00_0000_0000,
            next_fd: 5,
        }
    }

    /// Whether this bug is planted.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Lets every waiting lane look at its condition again.
    pub fn wake(&mut self) {
        for lane in &mut self.lanes {
            if matches!(lane, LaneState::Waiting(_)) {
                *lane = LaneState::Ready;
            }
        }
    }

    /// Order and time of the next event.
    pub fn tick(&mut self) -> (u64, u64) {
        self.seq += 1;
        self.clock += 300;
        (self.seq, self.clock)
    }

    /// Logs that a line is left out.
    pub fn skip(&mut self, call: CallId, reason: SkipReason) {
        let (seq, _) = self.tick();
        self.events.push(Event::Skipped { seq, call, reason });
    }

    /// The process that a lane belongs to.
    pub fn process(&self, lane: usize) -> Option<&Process> {
        self.procs[process_of(lane)].as_ref()
    }

    /// The process that a lane belongs to, to be changed.
    pub fn process_mut(&mut self, lane: usize) -> &mut Process {
        self.procs[process_of(lane)].as_mut().expect("a running lane has a process")
    }

    /// Opens an inode.
    pub fn open_inode(&self, mount: usize, ino: u64, access: Access, flags: OpenFlags) -> OpenFile {
        OpenFile {
            mount,
            ino,
            access,
            flags,
            pos: Cell::new(0),
            pos_locked: Cell::new(false),
            _mark: self.fs[mount].ino(ino).mark.clone(),
        }
    }

    /// What statx says.
    pub fn facts(&self, mount: usize, ino: u64) -> FileFacts {
        let fs = &self.fs[mount];
        let inode = fs.ino(ino);
        let align = if fs.mount.is_dax() { 0 } else { super::rw::SECTOR as u32 };
        FileFacts {
            id: FileId { mount: fs.mount, ino, generation: inode.generation },
            size: inode.size,
            blocks: fs.blocks_512(ino),
            nlink: inode.nlink,
            dax: fs.mount.is_dax(),
            dio_mem_align: align,
            dio_offset_align: align,
        }
    }

    /// Frees files that nobody can reach any more.
    pub fn reap(&mut self) {
        for fs in &mut self.fs {
            fs.reap();
        }
    }

    /// Ends a process: its slots are emptied.
    pub fn end_process(&mut self, index: usize) {
        if let Some(process) = self.procs[index].take() {
            for (pipe, _) in process.pipes.iter().flatten() {
                pipe.put();
            }
        }
        self.progress += 1;
        self.reap();
    }

    /// A copy of a process, as fork makes it.
    pub fn fork(&self, process: &Process) -> Process {
        let mut child = process.clone();
        for (vma, _) in child.maps.iter_mut().flatten() {
            let mut copy = vma.borrow().clone();
            if !self.has(Bug::ForkSharesPrivate) {
                let pages = copy.copies.borrow().clone();
                copy.copies = Rc::new(RefCell::new(pages));
            }
            *vma = Rc::new(RefCell::new(copy));
        }
        for (pipe, _) in child.pipes.iter().flatten() {
            pipe.get();
        }
        // A child leaves its parent's rings alone.
        child.rings = Default::default();
        child
    }
}

/// The process of a lane.
pub(super) const fn process_of(lane: usize) -> usize {
    if lane < program::THREADS_MAX as usize { 0 } else { lane - program::THREADS_MAX as usize + 1 }
}

/// What a call gives: its result, and what it reports beside.
pub(super) type Answer = (Result<u64, Errno>, history::Payload);

/// An answer without a report.
pub(super) fn plain(result: Result<u64, Errno>) -> Answer {
    (result, history::Payload::None)
}

/// The slots that a call needs, resolved when it is issued.
#[derive(Clone, Default)]
pub(super) struct Needs {
    /// Files, in the order of the text form.
    pub files: Vec<Rc<OpenFile>>,
    /// Mappings with the address they had.
    pub maps: Vec<super::mapping::MapRef>,
    /// Pipes.
    pub pipes: Vec<Rc<Pipe>>,
    /// Who filled them.
    pub filled: Vec<CallId>,
}

/// Resolves the slots of a call for a lane; `None` if one is empty.
pub(super) fn resolve(w: &World, lane: usize, call: &Call) -> Option<Needs> {
    let process = w.process(lane)?;
    let mut needs = Needs::default();
    for slot in super::slots::used(call) {
        let by = match slot {
            super::slots::Used::File(f) => {
                let (file, by) = process.files[usize::from(f.0)].as_ref()?;
                needs.files.push(file.clone());
                by
            }
            super::slots::Used::Map(m) => {
                let (vma, by) = process.maps[usize::from(m.0)].as_ref()?;
                needs.maps.push(super::mapping::MapRef::new(vma));
                by
            }
            super::slots::Used::Pipe(p) => {
                let (pipe, by) = process.pipes[usize::from(p.0)].as_ref()?;
                needs.pipes.push(pipe.clone());
                by
            }
        };
        needs.filled.push(*by);
    }
    Some(needs)
}
