//! The verdict: explained, anomalous, or honestly unknown.

use program::{CallId, Mount, Path};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The question that an anomaly answers with "no". One file in `oracle/` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oracle {
    /// Does every byte have a writer, a hole or a zeroing that was allowed then?
    Bytes,
    /// Is no byte from another file, mount, run or from an earlier life of its block?
    Leak,
    /// Could each call return what it returned?
    Errnos,
    /// Does every synchronous signal have a cause and the right address, and every death of a process a reason?
    Signals,
    /// Was each lease granted, refused and kept as its file's other users call for?
    Leases,
    /// Was every signal that tells of a lease due, and did every due one come, once, to the right place?
    Notices,
    /// Is every page that was pinned given back, and none pinned that must not be?
    Pins,
    /// Did links, drains and real time hold?
    Order,
    /// Did whoever waits wait for a reason, and return once it was gone?
    Liveness,
    /// Are the media what fsck and a clean unmount promise?
    Media,
    /// Did the kernel complain?
    Console,
}

impl Oracle {
    /// All oracles.
    pub const ALL: [Oracle; 11] = [
        Oracle::Bytes,
        Oracle::Leak,
        Oracle::Errnos,
        Oracle::Signals,
        Oracle::Leases,
        Oracle::Notices,
        Oracle::Pins,
        Oracle::Order,
        Oracle::Liveness,
        Oracle::Media,
        Oracle::Console,
    ];
}

/// What kind of wrong was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnomalyKind {
    /// An older version of this very place, which a later write had surely replaced.
    StaleByte,
    /// Zero where data must be.
    LostByte,
    /// A byte of another file, mount or run.
    ForeignByte,
    /// A byte of the right file that belongs to another offset or was never put here.
    MisplacedByte,
    /// Neither zero nor any writer's byte.
    TornByte,
    /// A size, count, position, extent or name that no order of the calls explains.
    WrongResult,
    /// A signal that was due did not come.
    MissingSignal,
    /// A signal without a cause, or with the wrong code or address.
    UnexplainedSignal,
    /// An errno (or a success) that no allowed state explains.
    UnexplainedErrno,
    /// An effect before its cause.
    BrokenOrder,
    /// A call never returned, or the guest stood still.
    Hang,
    /// A call waited with nobody to wait for.
    UnexplainedWait,
    /// A call went ahead although what it must wait for was there all the time.
    MissingWait,
    /// A call waited deaf to signals where the kernel promises that one ends the wait.
    UnkillableWait,
    /// Pages stayed pinned when nothing was left to hold them, or were given back twice.
    UnbalancedPins,
    /// The kernel complained or died.
    Splat,
    /// fsck found damage, or two files own one block.
    FsckError,
}

/// One thing that the kernel did and that no rule explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What kind.
    pub kind: AnomalyKind,
    /// Whose question it answers with "no".
    pub oracle: Oracle,
    /// The call that saw it, if one did.
    pub call: Option<CallId>,
    /// The file, where one is meant.
    pub path: Option<Path>,
    /// The mount, where one is meant.
    pub mount: Option<Mount>,
    /// What was seen, by which call or path, whose bytes they are, and what would have been allowed: whole sentences.
    pub sentence: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.sentence)
    }
}

/// Why a history, or part of it, could not be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The guest went down for a reason that another event already accounts for, or the log is incomplete.
    Truncated,
    /// The set of allowed outcomes grew beyond its bound.
    TooManyOutcomes,
    /// The history contradicts itself (an event of a call that the program does not have): a lying guest.
    Malformed,
}

/// A call that was seen to wait, and what for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Which.
    pub call: CallId,
    /// The place in the order of the event that saw it.
    pub seq: u64,
    /// Such as `ftruncate#9 waits for page 3 of xfs-dax:a, held by the pipe of vmsplice#4`.
    pub sentence: String,
}

/// The checker's answer. Dropping it is a mistake.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every byte, errno, signal and wait has an explanation.
    Explained,
    /// At least one has none.
    Anomalous(Vec<Anomaly>),
    /// No anomaly, but something could not be judged.
    Inconclusive(Reason),
}
