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

use crate::{Event, Payload};
use program::{CallId, LINES_MAX, Program};
use serde::{Deserialize, Serialize};

/// First word of the header page, set by the host before the guest starts.
pub const MAGIC: u64 = 0x0031_5a5a_464e_4950; // "PINFZZ1"
/// Version of this layout and of the postcard encoding of jobs and events. Bump on any change of `Program`, `Job` or `Event`.
pub const VERSION: u32 = 4;
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
    /// Whether the kernel tells threads which of its call sites they pass (KCOV).
    pub kcov: bool,
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
    /// Collect the call sites that the program's calls pass, where the kernel has KCOV.
    pub cover: bool,
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
    /// The call sites that the program's calls passed, see `reached`.
    Reached(Vec<u8>),
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

/// The bytes of a job.
pub fn encode_job(job: &Job) -> Vec<u8> {
    postcard::to_stdvec(job).expect("jobs have no form that postcard refuses")
}

/// The job in `bytes`. Total: what is not a job is an error.
pub fn decode_job(bytes: &[u8]) -> Result<Job, WireError> {
    let (job, rest) =
        postcard::take_from_bytes(bytes).map_err(|_| WireError { at: 0, what: "not a job" })?;
    let at = bytes.len() - rest.len();
    if !rest.is_empty() {
        return Err(WireError { at, what: "bytes after the job" });
    }
    if let Job::Run { program, .. } = &job
        && program.lines.len() > LINES_MAX
    {
        return Err(WireError { at, what: "a program with too many lines" });
    }
    Ok(job)
}

/// The notes of a log, in the order in which they were written. Total: a hostile log is an error, never a panic; memory stays within a
/// small multiple of its length. Events that carry a `seq` are not sorted here (see `sort_events`).
pub fn read_log(log: &[u8]) -> Result<Vec<Note>, WireError> {
    let mut notes = Vec::new();
    let mut at = 0;
    while let Some(rest) = log.get(at..).filter(|rest| !rest.is_empty()) {
        let fail = |what| WireError { at, what };
        let len = rest.first_chunk().ok_or(fail("a record without a length"))?;
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            // Filler, up to the end, after the log was full.
            break;
        }
        let record = rest[4..].get(..len).ok_or(fail("a record longer than the log"))?;
        // Lengths inside are bounded by the record: serde reserves at most 1 MiB on the word of a length, and each element takes a byte.
        let (note, after) = postcard::take_from_bytes(record).map_err(|_| fail("not a note"))?;
        if !after.is_empty() {
            return Err(fail("bytes after the note"));
        }
        check(&note).map_err(fail)?;
        notes.push(note);
        at = at.saturating_add((4 + len).next_multiple_of(8));
    }
    Ok(notes)
}

/// Refuses what no agent writes and every reader would have to guard against.
fn check(note: &Note) -> Result<(), &'static str> {
    let Note::Event(event) = note else { return Ok(()) };
    let known = |call: &CallId| (call.0 as usize) < LINES_MAX;
    let calls = match event {
        Event::Invoke { call, slots, .. } => known(call) && slots.iter().all(known),
        Event::Return { call, .. } | Event::Blocked { call, .. } | Event::Skipped { call, .. } => {
            known(call)
        }
        Event::End { stuck, helped, .. } => stuck.iter().chain(helped).all(known),
        _ => true,
    };
    if !calls {
        return Err("a call that no program has");
    }
    match event {
        Event::Return { payload: Payload::Read { data, .. }, .. } | Event::Final { data, .. }
            if !data.is_valid() =>
        {
            Err("bytes that are too many")
        }
        _ => Ok(()),
    }
}

/// Sorts the events that carry a `seq`; those that carry none keep their places. Stable, so equal numbers keep their order.
pub fn sort_events(events: &mut [Event]) {
    let places: Vec<usize> = (0..events.len()).filter(|i| events[*i].seq().is_some()).collect();
    let mut ordered: Vec<Event> = places.iter().map(|i| events[*i].clone()).collect();
    ordered.sort_by_key(Event::seq);
    for (place, event) in places.into_iter().zip(ordered) {
        events[place] = event;
    }
}
