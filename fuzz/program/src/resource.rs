//! The things a program's calls act on: lanes, slots, mounts, paths and buffers.
//!
//! Slots are small indices resolved by `fixup`; a program never holds a raw descriptor or address.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Threads a program may use: `t0` to `t3`. Four are enough for the races of this field (a holder, a
/// changer, a faulting reader and a bystander).
pub const THREADS_MAX: u8 = 4;
/// Forked children a program may use: `c0` and `c1`.
pub const CHILDREN_MAX: u8 = 2;
/// Open file slots, `f0` to `f7`.
pub const FILES_MAX: u8 = 8;
/// Mapping slots, `m0` to `m7`.
pub const MAPS_MAX: u8 = 8;
/// Pipe slots, `p0` to `p3`.
pub const PIPES_MAX: u8 = 4;
/// io_uring slots, `r0` and `r1`.
pub const RINGS_MAX: u8 = 2;
/// Memory region slots, `x0` and `x1`.
pub const REGIONS_MAX: u8 = 2;
/// Gates, `g0` to `g2`; see [`GateSlot`].
pub const GATES_MAX: u8 = 3;
/// File names per mount, `a` to `d`.
pub const NAMES_MAX: u8 = 4;

/// Where a call runs: a thread of the program's first process, or a child made by `fork`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// `t0` to `t3`.
    Thread(u8),
    /// `c0` and `c1`: a single-threaded child. Slots are as they were when it was forked.
    Child(u8),
}

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident, $letter:literal, $max:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u8);
        impl $name {
            /// How many slots of this kind there are.
            pub const MAX: u8 = $max;
            /// The letter that names the kind in the text form.
            pub const LETTER: char = $letter;
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $letter, self.0)
            }
        }
    )*};
}

slots! {
    /// An open file (a descriptor), `f0` to `f7`.
    FileSlot, 'f', FILES_MAX;
    /// A mapping, `m0` to `m7`.
    MapSlot, 'm', MAPS_MAX;
    /// A pipe, `p0` to `p3`.
    PipeSlot, 'p', PIPES_MAX;
    /// An io_uring, `r0` and `r1`.
    RingSlot, 'r', RINGS_MAX;
    /// A gate: whatever goes through it is held while the gate is, and goes on when it is released. `g0` is a block device that is suspended by
    /// the device mapper, `g1` a block device served by the agent (ublk), `g2` memory whose page faults the agent answers (userfaultfd).
    GateSlot, 'g', GATES_MAX;
    /// An RDMA memory region, `x0` and `x1`: pages of a mapping that a (software) device may read or write until it is deregistered.
    RegionSlot, 'x', REGIONS_MAX;
}

impl GateSlot {
    /// The block device suspended by the device mapper.
    pub const DM: GateSlot = GateSlot(0);
    /// The block device served by the agent through ublk.
    pub const UBLK: GateSlot = GateSlot(1);
    /// The memory behind a userfaultfd.
    pub const MEMORY: GateSlot = GateSlot(2);

    /// Whether it can be opened as a block device.
    pub const fn is_device(self) -> bool {
        self.0 < GateSlot::MEMORY.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lane::Thread(n) => write!(f, "t{n}"),
            Lane::Child(n) => write!(f, "c{n}"),
        }
    }
}

/// One of the four file systems that every guest mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mount {
    /// ext4 with `-o dax=always`.
    Ext4Dax,
    /// XFS (reflink=1) with `-o dax=always`.
    XfsDax,
    /// ext4 through the page cache.
    Ext4,
    /// XFS (reflink=1) through the page cache.
    Xfs,
}

impl Mount {
    /// All mounts, in the order of the guest's pmem regions.
    pub const ALL: [Mount; 4] = [Mount::Ext4Dax, Mount::XfsDax, Mount::Ext4, Mount::Xfs];

    /// The name in programs, images and reports, and of the directory under `/mnt`.
    pub const fn name(self) -> &'static str {
        match self {
            Mount::Ext4Dax => "ext4-dax",
            Mount::XfsDax => "xfs-dax",
            Mount::Ext4 => "ext4",
            Mount::Xfs => "xfs",
        }
    }

    /// The mount of that name.
    pub fn from_name(name: &str) -> Option<Mount> {
        Mount::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether files on it are DAX.
    pub const fn is_dax(self) -> bool {
        matches!(self, Mount::Ext4Dax | Mount::XfsDax)
    }

    /// Whether it is XFS (otherwise ext4).
    pub const fn is_xfs(self) -> bool {
        matches!(self, Mount::XfsDax | Mount::Xfs)
    }
}

/// A file name on a mount. In the text form `"a"` is on the program's home mount and `"ext4:a"` on a named one;
/// parsing resolves the first to the second, printing abbreviates it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    /// The mount.
    pub mount: Mount,
    /// 0 is `a`, 1 is `b`, ...
    pub name: u8,
}

impl Path {
    /// The one-letter file name.
    pub fn file_name(self) -> char {
        (b'a' + self.name % NAMES_MAX) as char
    }
}

/// Where the bytes of an I/O call come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Buf {
    /// Fresh anonymous memory of the call's own, at this byte offset from a page boundary (`anon`, `anon+8`).
    /// A write signs it first; a read poisons it first and reports what arrived.
    Anon(u16),
    /// A mapping, at this byte offset from its start (`m0+512`).
    Map(MapSlot, u64),
}
