//! The shared memory between host and guest (ivshmem), and what travels through it.
//!
//! ```text
//! 0         header page: magic, version, guest life signs
//! 4096      slot 0: slot header (64 bytes), job (up to JOB_MAX bytes), log (up to LOG_MAX bytes)
//! 4096+S    slot 1 ...
//! ```
//! The host fills free slots in ring order and sets them `READY`; the agent takes them in the same order, appends events to the
//! slot's log while it runs, and sets `DONE`. The host reads the log and sets `FREE`. All integers are little-endian; a state word is written
//! last and read first. The log is a sequence of records `u32 length, postcard(Note)`, padded to 8 bytes; `log_len` in the slot header
//! is advanced after a record is complete, so that the log of a guest that died is readable up to the last whole record.

use crate::Event;
use program::Program;
use serde::{Deserialize, Serialize};

/// First word of the header page, set by the host before the guest starts.
pub const MAGIC: u64 = 0x315a_5a46_4e49_50; // "PINFZZ1"
/// Version of this layout and of the postcard encoding of jobs and events. Bump on any change of `Program`, `Job` or `Event`.
pub const VERSION: u32 = 1;
/// Size of the header page.
pub const HEADER_SIZE: u64 = 4096;
/// Slots in the ring: enough that the guest never waits for the host's checker on average.
pub const SLOTS: u64 = 8;
/// Most bytes of an encoded job (a program of 64 lines takes some 2 KiB).
pub const JOB_MAX: u64 = 64 << 10;
/// Most bytes of a log: compact events of a usual program take some 10 KiB; raw bytes of torn data may take far more.
pub const LOG_MAX: u64 = 1 << 20;
/// Size of a slot header.
pub const SLOT_HEADER: u64 = 64;
/// Distance of two slots.
pub const SLOT_STRIDE: u64 = SLOT_HEADER + JOB_MAX + LOG_MAX;
/// Size of the whole memory: ivshmem wants a power of two.
pub const SHM_SIZE: u64 = 16 << 20;
const _: () = assert!(HEADER_SIZE + SLOTS * SLOT_STRIDE <= SHM_SIZE);

/// Byte offsets in the header page.
pub mod header {
    /// u64: `MAGIC`.
    pub const MAGIC: u64 = 0;
    /// u32: `VERSION`, written by the host.
    pub const VERSION: u64 = 8;
    /// u32: agent state, see `AGENT_*`.
    pub const AGENT: u64 = 12;
    /// u64: incremented by the agent whenever a call is invoked or returns, and while it waits on purpose: the watchdog's food.
    pub const PROGRESS: u64 = 16;
    /// u64: nanoseconds of guest time spent inside system calls and mapping accesses of programs.
    pub const KERNEL_NS: u64 = 24;
    /// u64: nanoseconds of guest time spent on programs in all.
    pub const BUSY_NS: u64 = 32;
    /// u64: calls issued.
    pub const CALLS: u64 = 40;
    /// u32 length and up to 1,000 bytes of UTF-8: why the agent gave up during set-up.
    pub const ERROR: u64 = 1024;
    /// u32 length and up to 1,000 bytes of UTF-8: `Hello` (kernel release, mounts), as JSON, once the agent is ready.
    pub const HELLO: u64 = 2048;
}

/// The agent has not written yet.
pub const AGENT_NONE: u32 = 0;
/// File systems are mounted, jobs are welcome.
pub const AGENT_READY: u32 = 1;
/// Set-up failed; `header::ERROR` says why.
pub const AGENT_FAILED: u32 = 2;

/// Byte offsets in a slot header.
pub mod slot {
    /// u32: state.
    pub const STATE: u64 = 0;
    /// u32: bytes of the job.
    pub const JOB_LEN: u64 = 4;
    /// u32: bytes of complete log records.
    pub const LOG_LEN: u64 = 8;
    /// u32: job number, given by the host, counted up from 1.
    pub const NUMBER: u64 = 12;
}

/// The slot belongs to the host.
pub const STATE_FREE: u32 = 0;
/// The slot holds a job for the agent.
pub const STATE_READY: u32 = 1;
/// The agent is at work on it.
pub const STATE_RUNNING: u32 = 2;
/// The job is done, the log is complete.
pub const STATE_DONE: u32 = 3;

/// Byte offset of slot `index`.
pub const fn slot_offset(index: u64) -> u64 {
    HEADER_SIZE + (index % SLOTS) * SLOT_STRIDE
}

/// What the agent says of itself once it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// uname -r
    pub release: String,
    /// uname -v
    pub version: String,
    /// Mounts in the order of `Mount::ALL`: the line of /proc/mounts.
    pub mounts: Vec<String>,
    /// Whether a file on each mount is DAX (STATX_ATTR_DAX), in the same order.
    pub dax: Vec<bool>,
    /// io_uring opcodes that the kernel has (IORING_REGISTER_PROBE), by number.
    pub uring_ops: Vec<u8>,
}

/// What the host asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Run a program in a fresh directory on every mount.
    Run {
        /// Number of the run (see `History::run`).
        run: u32,
        /// The program.
        program: Program,
        /// How.
        options: RunOptions,
    },
    /// Write everything back, unmount all four file systems and mount none: the media are at rest until `Mount`. The log says
    /// nothing but `Unmounted`.
    Unmount,
    /// Mount again; then read back (`ReadPath::AfterRemount`) the directories of these runs, one `Note::Run` before each; then remove
    /// all directories of runs.
    Mount {
        /// The runs whose directories were kept.
        kept: Vec<u32>,
    },
}

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Keep the run's files for a later `Unmount` and `Mount`; otherwise they are removed at the end.
    pub keep: bool,
    /// Record events. Off only to measure what recording costs.
    pub record: bool,
    /// A line without `&` that has not returned after this many milliseconds is looked at, to see whether it is blocked.
    pub block_after_ms: u32,
}

/// One record of a slot's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// An event of the run at hand.
    Event(Event),
    /// Following events belong to this run (in a `Mount` job).
    Run(u32),
    /// All file systems are unmounted.
    Unmounted,
    /// The agent could not do its work (a mount failed, memory ran out): infrastructure, not a finding, unless the console says more.
    Trouble(String),
}

/// A log that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest log is malformed at byte {at}: {what}")]
pub struct WireError {
    /// Offset in the log.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}
