//! What a target observed: the events of one run of one program.

use crate::bytes::Bytes;
use program::{CallId, Lane, Lease, Mount, Path, Program};
use serde::{Deserialize, Serialize};

/// A raw Linux error number. An errno is an observation, never an `Err`; one that we have not heard of is still a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Errno(pub i32);

/// What a system call returned.
pub type CallResult = Result<u64, Errno>;

/// Identity of an in-core inode: unlink and create again gives another `generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Which file system.
    pub mount: Mount,
    /// st_ino.
    pub ino: u64,
    /// FS_IOC_GETVERSION.
    pub generation: u32,
}

/// Facts about a file that `open` and `statx` report beside their result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Which file the descriptor refers to. The call itself was not atomic with this look, but a descriptor never changes its inode.
    pub id: FileId,
    /// stx_size at the look (for `open`, the look comes after the open returned, within the call's interval).
    pub size: u64,
    /// stx_blocks, in units of 512 bytes.
    pub blocks: u64,
    /// stx_nlink.
    pub nlink: u32,
    /// STATX_ATTR_DAX.
    pub dax: bool,
    /// stx_dio_mem_align and stx_dio_offset_align; 0 where O_DIRECT is not supported or not reported (DAX files).
    pub dio_mem_align: u32,
    /// See `dio_mem_align`.
    pub dio_offset_align: u32,
}

/// One extent of FS_IOC_FIEMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Byte offset in the file.
    pub logical: u64,
    /// Byte offset on the device.
    pub physical: u64,
    /// Length in bytes.
    pub length: u64,
    /// FIEMAP_EXTENT_ flags.
    pub flags: u32,
}

/// A synchronous fault of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSignal {
    /// SIGBUS (7) or SIGSEGV (11).
    pub signo: i32,
    /// si_code.
    pub code: i32,
    /// si_addr minus the start of the mapping; negative or past the end if the kernel named a foreign address.
    pub addr: i64,
}

/// What a call reported beside its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing.
    None,
    /// `open`, `dup` never, `statx`: facts about the file.
    File(FileFacts),
    /// A read into anonymous memory: one `Bytes` of the returned count (all anonymous segments of an iovec in turn; segments that are
    /// mappings are left out). Also `load`: the bytes before the first fault.
    Read {
        /// The bytes that arrived.
        data: Bytes,
        /// Whether bytes of the anonymous buffer past the returned count still hold the poison laid there before the call.
        tail_intact: bool,
        /// Set when a load ended at a fault. The result is then the number of bytes before it.
        fault: Option<FaultSignal>,
    },
    /// `store`: a fault ended it after the number of bytes in the result.
    Store {
        /// Set when the store ended at a fault.
        fault: Option<FaultSignal>,
    },
    /// `fiemap`.
    Extents(Vec<Extent>),
    /// `fideduperange`: status of the one destination (0 same, 1 differs, negative errno); the result is bytes_deduped.
    Dedupe {
        /// file_dedupe_range_info.status
        status: i32,
    },
    /// `mmap`, `mremap`: where it lies, for the reader's benefit.
    Address(u64),
}

/// The path by which a file's final content was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReadPath {
    /// read(2).
    Read,
    /// read(2) with O_DIRECT.
    Direct,
    /// Loads through a fresh MAP_SHARED mapping.
    Mapping,
    /// read(2) after syncfs and drop_caches.
    AfterDropCaches,
    /// read(2) after unmount and mount.
    AfterRemount,
    /// The host read the media behind the extents, after a clean unmount.
    Media,
}

/// A kernel complaint found on the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// One line that names it, free of addresses, such as `WARNING in dax_insert_entry`.
    pub title: String,
    /// The console text, bounded.
    pub text: String,
}

/// What happened, and when. `seq` orders all Invoke and Return events of a run: a call's effects lie in its closed interval
/// [Invoke.seq, Return.seq]. Events are sorted by `seq`; those that carry none keep their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A lane is about to issue the call.
    Invoke {
        /// Order.
        seq: u64,
        /// Which line.
        call: CallId,
        /// Guest CLOCK_MONOTONIC, nanoseconds since the run began.
        time_ns: u64,
        /// For each slot that the call uses (not the one that it fills), in the order of the text form: the call that had
        /// filled it (open, dup, mmap, pipe, io_uring_setup; mremap keeps the mmap's) when this call looked it up. The ring of an
        /// attribute comes last. So a slot that racing lanes fill and use never leaves a doubt about which file or mapping was meant.
        slots: Vec<CallId>,
    },
    /// The call returned.
    Return {
        /// Order.
        seq: u64,
        /// Which line.
        call: CallId,
        /// As above.
        time_ns: u64,
        /// What it returned.
        result: CallResult,
        /// What it reported beside.
        payload: Payload,
    },
    /// The call has not returned, and its thread stood still over several looks (a request of a ring: it is with the kernel, and whoever works for the
    /// ring stands still). Lines with `&` are looked at by a `wait` for their lane and at the end of the program.
    Blocked {
        /// Order.
        seq: u64,
        /// Which line.
        call: CallId,
        /// As above.
        time_ns: u64,
        /// State letter of /proc/PID/task/TID/stat.
        state: char,
        /// /proc/PID/task/TID/wchan.
        wchan: String,
    },
    /// The agent did not issue the line: its slot was empty, its lane gone, the kernel lacks the operation.
    Skipped {
        /// Order.
        seq: u64,
        /// Which line.
        call: CallId,
        /// Why.
        reason: SkipReason,
    },
    /// A signal was handled: one that tells of the break of a lease (SIGIO or a real-time signal). Its place in the order is that of the handler's start.
    Signal {
        /// Order.
        seq: u64,
        /// As above.
        time_ns: u64,
        /// The lane whose thread ran the handler; none if it was a thread of the agent's own.
        lane: Option<Lane>,
        /// Signal number.
        signo: i32,
        /// si_code.
        code: i32,
        /// si_fd.
        fd: i32,
        /// si_band.
        band: i64,
        /// What the handler did about it (`on_break`) and what fcntl returned.
        answer: Option<(Lease, CallResult)>,
    },
    /// All lines were given out, and what still waits was seen to wait: from here on every gate is released, as by `release`.
    GatesReleased {
        /// Order.
        seq: u64,
    },
    /// Pages that the kernel counts as pinned (nr_foll_pin_acquired - nr_foll_pin_released of /proc/vmstat after stat_refresh) before the first line and, when
    /// all lanes were idle, rings and pipes closed and the counters given time to settle, after the last one.
    Pins {
        /// Before.
        before: i64,
        /// After.
        after: i64,
    },
    /// The program is over for the agent: from here on only read-back follows. Before this event, calls that were still blocked were
    /// helped to end: gates released, children killed, pipes drained and closed, then their threads interrupted by a signal (EINTR), then the
    /// process killed.
    End {
        /// Order.
        seq: u64,
        /// Lines that never returned, even after the process that ran them was killed.
        stuck: Vec<CallId>,
        /// Lines that ended only because the agent helped. Their Return events come before; a line without one was cut off when
        /// its process was killed, and may have had any part of its effect until this event.
        helped: Vec<CallId>,
    },
    /// A name that existed in the program's directory at the end, and what one path of reading gives.
    Final {
        /// The name.
        path: Path,
        /// By which path it was read.
        by: ReadPath,
        /// What it is and how large.
        file: FileFacts,
        /// Whether every byte up to `size` could be read: the errno otherwise.
        result: CallResult,
        /// The bytes from offset 0.
        data: Bytes,
    },
    /// The names found in the program's directory at the end (readdir), with their identity. Complete: what is not here is absent.
    Names {
        /// At which point: AfterDropCaches, AfterRemount or Read.
        by: ReadPath,
        /// The mount.
        mount: Mount,
        /// Names (0 is `a`) with identity, in ascending order.
        names: Vec<(u8, FileId)>,
    },
    /// Extents of a final file, for the overlap and media oracles.
    FinalExtents {
        /// The name.
        path: Path,
        /// Which file.
        id: FileId,
        /// Its extents.
        extents: Vec<Extent>,
    },
    /// fsck found something on the unmounted media.
    Fsck {
        /// Which file system.
        mount: Mount,
        /// The command and its output, bounded.
        text: String,
    },
    /// The console complained while the program ran.
    Console(Splat),
    /// The kernel died or stood still: what the watchdog saw.
    Down(Down),
    /// The log area was full; later events of the run are missing.
    LogFull,
}

impl Event {
    /// Its place in the order of calls, if it has one.
    pub fn seq(&self) -> Option<u64> {
        match self {
            Event::Invoke { seq, .. }
            | Event::Return { seq, .. }
            | Event::Blocked { seq, .. }
            | Event::Skipped { seq, .. }
            | Event::Signal { seq, .. }
            | Event::GatesReleased { seq }
            | Event::End { seq, .. } => Some(*seq),
            _ => None,
        }
    }
}

/// Why the agent left out a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SkipReason {
    /// A slot that the call needs is empty.
    EmptySlot,
    /// The lane's child was not forked, or has ended.
    NoLane,
    /// The kernel does not know the operation (an io_uring opcode, say), or nobody is left who could issue the request.
    Unsupported,
    /// An earlier call of the same lane never returned.
    LaneStuck,
    /// A load or store whose range leaves the mapping as it is now (after mremap shrank it).
    OutOfRange,
}

/// How the guest went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Down {
    /// Kernel panic or a fatal oops.
    Panic,
    /// The agent made no progress for longer than the watchdog allows.
    Hang,
    /// The console flooded.
    Flood,
}

/// One run of one program, as observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Number of the run in its guest's life: part of every stamp the run wrote. Never 0.
    pub run: u32,
    /// What happened.
    pub events: Vec<Event>,
}

/// A run with its program, as saved in a find's folder (`history.jsonl`) and in the checker's golden histories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was run.
    pub program: Program,
    /// What was seen.
    pub history: History,
}
