//! The world of one run: the mounts, the processes with their slots, the gates, leases and held pages, and the log of events.
//!
//! It holds state and the small steps on it; what a system call does with them is written in the modules named after the calls.

use super::bug::Bug;
use super::gate::Gates;
use super::hold::Hold;
use super::inode::Fs;
use super::lease::{Lease, Owner, Pending};
use super::mapping::Vma;
use super::pipe::Pipe;
use super::sched::{LANES, LaneState, Rng};
use checker::Regime;
use history::{Errno, Event, FileFacts, FileId, SkipReason};
use program::{
    Access, Call, CallId, FILES_MAX, GateSlot, Line, MAPS_MAX, Mount, Notice, OpenFlags, PIPES_MAX,
    REGIONS_MAX, RINGS_MAX, Slot as Uses,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// Error numbers of asm-generic/errno.h, as far as this kernel uses them.
pub(super) mod errno {
    use history::Errno;
    /// Operation not permitted: the layout regimes ask for a lease.
    pub const EPERM: Errno = Errno(1);
    /// No such file or directory.
    pub const ENOENT: Errno = Errno(2);
    /// Interrupted by a signal.
    pub const EINTR: Errno = Errno(4);
    /// Input/output error.
    pub const EIO: Errno = Errno(5);
    /// No such device or address: SEEK_DATA past the last data.
    pub const ENXIO: Errno = Errno(6);
    /// Bad file descriptor: not open in the mode that the call needs.
    pub const EBADF: Errno = Errno(9);
    /// Try again: it would wait.
    pub const EAGAIN: Errno = Errno(11);
    /// Out of memory: the address range is not all mapped.
    pub const ENOMEM: Errno = Errno(12);
    /// Permission denied.
    pub const EACCES: Errno = Errno(13);
    /// Bad address.
    pub const EFAULT: Errno = Errno(14);
    /// Busy: there is something in the place already.
    pub const EBUSY: Errno = Errno(16);
    /// File exists.
    pub const EEXIST: Errno = Errno(17);
    /// Cross-device link.
    pub const EXDEV: Errno = Errno(18);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(22);
    /// A file that is in use in a way that forbids it: the layout regimes say so of pinned pages.
    pub const ETXTBSY: Errno = Errno(26);
    /// No space left: the end of a device.
    pub const ENOSPC: Errno = Errno(28);
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
    /// The gate whose block device it is; mount and inode then mean nothing.
    pub gate: Option<GateSlot>,
    /// F_SETOWN_EX, or whoever took a lease first.
    pub owner: Cell<Option<Owner>>,
    /// F_SETSIG
    pub notice: Cell<Notice>,
    /// Keeps the inode alive.
    _mark: Arc<()>,
    /// One of the inode's readers or writers.
    _mode: Arc<()>,
}

impl OpenFile {
    /// The same file for a call that still means it, where nothing keeps it open any more: no lease sees it.
    pub fn left_behind(&self) -> OpenFile {
        OpenFile {
            mount: self.mount,
            ino: self.ino,
            access: self.access,
            flags: self.flags,
            pos: Cell::new(self.pos.get()),
            pos_locked: Cell::new(false),
            gate: self.gate,
            owner: Cell::new(None),
            notice: Cell::new(Notice::Default),
            _mark: self._mark.clone(),
            _mode: Arc::new(()),
        }
    }
}

/// A descriptor: an open file under a number.
#[derive(Clone, Debug)]
pub(super) struct Fd {
    /// What is open.
    pub file: Rc<OpenFile>,
    /// The number in its process.
    pub number: i32,
}

impl Deref for Fd {
    type Target = OpenFile;
    fn deref(&self) -> &OpenFile {
        &self.file
    }
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
            owner: Cell::new(self.owner.get()),
            notice: Cell::new(self.notice.get()),
            _mark: self._mark.clone(),
            _mode: self._mode.clone(),
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
    /// What is registered with it.
    pub buffer: RefCell<Option<Registered>>,
    /// Requests that use the registered buffer now, or one that it had before.
    pub fixed: Cell<u32>,
    /// An unregister waits for them: until then no new one finds the buffer.
    pub emptied: Cell<bool>,
}

/// A registered buffer.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    /// Where it begins in the address space.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its pages.
    pub parts: Vec<super::hold::Part>,
}

/// An RDMA memory region.
#[derive(Debug)]
pub(super) struct Region {
    /// Its pages.
    pub parts: Vec<super::hold::Part>,
    /// Where they were found, for bugs that look there again. The region keeps no file open.
    pub map: Option<super::mapping::MapRef>,
    /// At which offset of that.
    pub offset: u64,
    /// What the device may do to them.
    pub access: program::RegionAccess,
}

impl Region {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len as u64).sum()
    }
}

/// What a process owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    /// Open files.
    pub files: [Slot<Fd>; FILES_MAX as usize],
    /// Mappings.
    pub maps: [Slot<Rc<RefCell<Vma>>>; MAPS_MAX as usize],
    /// Pipes, both ends of each.
    pub pipes: [Slot<Rc<Pipe>>; PIPES_MAX as usize],
    /// Rings.
    pub rings: [Slot<Rc<Ring>>; RINGS_MAX as usize],
    /// RDMA memory regions: their pages.
    pub regions: [Slot<Rc<Region>>; REGIONS_MAX as usize],
    /// What its signal handler answers to the break of a lease.
    pub answer: Option<program::Lease>,
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
    /// How layout changes meet held pages.
    pub regime: Regime,
    /// What is held and released.
    pub gates: Gates,
    /// References to pages that may still be alive.
    pub holds: Vec<Rc<Hold>>,
    /// The pages that gup_test has pinned.
    pub tested: Option<Vec<super::hold::Part>>,
    /// Pins that were forgotten: a bug.
    pub leaked: i64,
    /// Leases, in the order in which they were taken.
    pub leases: Vec<Lease>,
    /// Seconds until a lease that is not given back is taken away; 0 is never.
    pub lease_break_time: u8,
    /// Signals on their way.
    pub signals: VecDeque<Pending>,
    /// Files that a process left open when it ended: a bug.
    pub kept: Vec<Rc<OpenFile>>,
    /// Descriptors on their way through the socket pair.
    pub socket: VecDeque<Rc<OpenFile>>,
    /// Lanes whose thread has a signal pending that ends interruptible waits.
    pub interrupted: [bool; LANES],
    /// Lanes whose thread has handled a signal since its call began: only waits that cannot be restarted mind.
    pub poked: [bool; LANES],
    /// Lanes whose process was killed and that are still in a call.
    pub killed: [bool; LANES],
    /// The program's process was killed, and with it go its rings and their workers.
    pub rings_cancelled: bool,
    /// When a waiting lane looks again at the latest.
    pub deadlines: BTreeMap<usize, u64>,
    /// Next mapping address.
    pub next_address: u64,
    /// Next descriptor number, for the reader's benefit.
    pub next_fd: i32,
}

impl World {
    /// The world at the start of a run.
    pub fn new(fs: Vec<Fs>, bug: Option<Bug>, regime: Regime, run: u32, seed: u64) -> World {
        World {
            fs,
            bug,
            run,
            rng: Rng(seed ^ (u64::from(run) << 32)),
            procs: [Some(Process::default()), None, None],
            forked: [false; program::CHILDREN_MAX as usize],
            lanes: vec![LaneState::Ready; LANES + 1],
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
            regime,
            gates: Gates::new(run),
            holds: Vec::new(),
            tested: None,
            leaked: 0,
            leases: Vec::new(),
            lease_break_time: super::lease::BREAK_TIME,
            signals: VecDeque::new(),
            kept: Vec::new(),
            socket: VecDeque::new(),
            interrupted: [false; LANES],
            poked: [false; LANES],
            killed: [false; LANES],
            rings_cancelled: false,
            deadlines: BTreeMap::new(),
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
        let inode = self.fs[mount].ino(ino);
        let mode = if access == Access::ReadOnly { &inode.readers } else { &inode.writers };
        OpenFile {
            mount,
            ino,
            access,
            flags,
            pos: Cell::new(0),
            pos_locked: Cell::new(false),
            gate: None,
            owner: Cell::new(None),
            notice: Cell::new(Notice::Default),
            _mark: inode.mark.clone(),
            _mode: mode.clone(),
        }
    }

    /// Opens the block device of a gate.
    pub fn open_gate(&self, gate: GateSlot, access: Access, flags: OpenFlags) -> OpenFile {
        OpenFile {
            mount: 0,
            ino: 0,
            access,
            flags,
            pos: Cell::new(0),
            pos_locked: Cell::new(false),
            gate: Some(gate),
            owner: Cell::new(None),
            notice: Cell::new(Notice::Default),
            _mark: Arc::new(()),
            _mode: Arc::new(()),
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
        self.drop_leases();
        self.let_go();
        for fs in &mut self.fs {
            fs.reap();
        }
    }

    /// Ends a process: its slots are emptied.
    pub fn end_process(&mut self, index: usize) {
        if let Some(process) = self.procs[index].take() {
            if index == 0 {
                // The last close of gup_test; children have the same open file.
                self.tested = None;
            }
            if self.has(Bug::RegionOutlivesProcess) {
                process.regions.iter().flatten().for_each(|(region, _)| self.leak(&region.parts));
            }
            for (pipe, _) in process.pipes.iter().flatten() {
                pipe.put();
            }
            if self.has(Bug::KillLeavesLease) && index > 0 {
                let files = process.files.iter().flatten().map(|(fd, _)| fd.file.clone());
                self.kept.extend(files);
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
                copy.copies = Rc::new(RefCell::new(self.split_copies(&copy)));
            }
            *vma = Rc::new(RefCell::new(copy));
        }
        for (pipe, _) in child.pipes.iter().flatten() {
            pipe.get();
        }
        // A child leaves its parent's rings and memory regions alone.
        child.rings = Default::default();
        child.regions = Default::default();
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
    pub files: Vec<Fd>,
    /// Mappings with the address they had.
    pub maps: Vec<super::mapping::MapRef>,
    /// Pipes.
    pub pipes: Vec<Rc<Pipe>>,
    /// Rings.
    pub rings: Vec<Rc<Ring>>,
    /// Memory regions.
    pub regions: Vec<Rc<Region>>,
    /// Who filled them.
    pub filled: Vec<CallId>,
    /// The pages of a registered buffer, for a fixed request.
    pub fixed: Option<Result<Vec<super::hold::Part>, Errno>>,
}

/// Resolves the slots of a call for a lane; `None` if one is empty.
pub(super) fn resolve(w: &World, lane: usize, call: &Call) -> Option<Needs> {
    let process = w.process(lane)?;
    let mut needs = Needs::default();
    for slot in call.uses() {
        let by = match slot {
            Uses::File(f) => {
                let (file, by) = process.files[usize::from(f.0)].as_ref()?;
                needs.files.push(file.clone());
                by
            }
            Uses::Map(m) => {
                let (vma, by) = process.maps[usize::from(m.0)].as_ref()?;
                needs.maps.push(super::mapping::MapRef::new(vma));
                by
            }
            Uses::Pipe(p) => {
                let (pipe, by) = process.pipes[usize::from(p.0)].as_ref()?;
                needs.pipes.push(pipe.clone());
                by
            }
            Uses::Region(x) => {
                let (region, by) = process.regions[usize::from(x.0)].as_ref()?;
                needs.regions.push(region.clone());
                by
            }
            Uses::Ring(r) => {
                let (ring, by) = process.rings[usize::from(r.0)].as_ref()?;
                needs.rings.push(ring.clone());
                by
            }
        };
        needs.filled.push(*by);
    }
    Some(needs)
}
