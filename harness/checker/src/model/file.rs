//! Files, open files, mappings, pipes and names: what the calls act on, and the small registers among them.

use super::content::ObjId;
use super::lin::{Lin, Step};
use super::order::Span;
use super::value::Val;
use history::{FileFacts, FileId};
use program::{Access, GateSlot, Mount, OpenFlags, Path, Sharing};

/// How a call changes a file's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeOp {
    /// truncate, O_TRUNC.
    Set(u64),
    /// A write or allocation that ends there, if beyond; one of these ends.
    Max(Vec<u64>),
    /// O_APPEND write of that many bytes.
    Append(u64),
    /// collapse: shorter by that much.
    Shrink(u64),
    /// insert: longer by that much.
    Grow(u64),
    /// May or may not have happened.
    Maybe(Box<SizeOp>),
}

impl Step<u64> for SizeOp {
    fn step(&self, size: &u64) -> Vec<u64> {
        match self {
            SizeOp::Set(to) => vec![*to],
            SizeOp::Max(ends) => ends.iter().map(|e| *size.max(e)).collect(),
            SizeOp::Append(n) => vec![size.saturating_add(*n)],
            SizeOp::Shrink(n) => size.checked_sub(*n).into_iter().collect(),
            SizeOp::Grow(n) => vec![size.saturating_add(*n)],
            SizeOp::Maybe(op) => {
                let mut all = op.step(size);
                all.push(*size);
                all
            }
        }
    }
}

/// How a call changes a file position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PosOp {
    /// lseek.
    Set(u64),
    /// A transfer of that many bytes at the position.
    Add(u64),
    /// An O_APPEND write leaves the position at one of these ends.
    OneOf(Vec<u64>),
    /// sendfile reads and writes the position without the position's lock (fs/read_write.c:do_sendfile, 6.12): it may take back what
    /// racing calls did to it, or they what it did. The ends that it may have set, and its count.
    Racy(Vec<u64>, u64),
}

impl Step<u64> for PosOp {
    fn step(&self, pos: &u64) -> Vec<u64> {
        match self {
            PosOp::Set(to) => vec![*to],
            PosOp::Add(n) => vec![pos.saturating_add(*n)],
            PosOp::OneOf(ends) => ends.clone(),
            PosOp::Racy(ends, n) => {
                let mut all = ends.clone();
                all.extend([*pos, pos.saturating_add(*n)]);
                all
            }
        }
    }
}

/// Names of one mount's directory: name index to file index.
pub type NameState = [Option<u32>; program::NAMES_MAX as usize];

/// How a call read or changed the names (by index in the directory).
#[expect(missing_docs, reason = "fields are the call's own arguments")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameOp {
    /// open gave this file.
    Open { name: usize, file: u32, create: bool, exclusive: bool },
    /// Something succeeded through a name that must exist.
    Present { name: usize },
    /// Something failed with ENOENT.
    Absent { name: usize },
    /// unlink succeeded.
    Unlink { name: usize },
    /// rename succeeded.
    Rename { from: usize, to: usize },
    /// link succeeded.
    Link { from: usize, to: usize },
    /// The call never returned: it may have happened.
    Maybe(Box<NameOp>),
}

impl Step<NameState> for NameOp {
    fn step(&self, names: &NameState) -> Vec<NameState> {
        let mut next = *names;
        match *self {
            NameOp::Open { name, file, create, exclusive } => match names[name] {
                Some(there) if there == file && !(create && exclusive) => vec![next],
                None if create => {
                    // A file that still has a name, or had one, is not created again.
                    if names.contains(&Some(file)) {
                        return Vec::new();
                    }
                    next[name] = Some(file);
                    vec![next]
                }
                _ => Vec::new(),
            },
            NameOp::Present { name } => names[name].map(|_| next).into_iter().collect(),
            NameOp::Absent { name } => {
                if names[name].is_none() {
                    vec![next]
                } else {
                    Vec::new()
                }
            }
            NameOp::Unlink { name } => {
                next[name] = None;
                if names[name].is_some() { vec![next] } else { Vec::new() }
            }
            NameOp::Rename { from, to } => {
                if names[from].is_none() {
                    return Vec::new();
                }
                // Two links of one file: rename does nothing (rename(2)).
                if names[from] != names[to] {
                    next[to] = names[from];
                    next[from] = None;
                }
                vec![next]
            }
            NameOp::Link { from, to } => {
                if names[from].is_none() || names[to].is_some() {
                    return Vec::new();
                }
                next[to] = names[from];
                vec![next]
            }
            NameOp::Maybe(ref op) => {
                let mut all = op.step(names);
                all.push(*names);
                all
            }
        }
    }
}

/// How a call changes a mapping's protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetProt {
    /// PROT_ bits from here on.
    pub to: u8,
    /// Whether it surely did: mprotect changes what it meets before it comes to a place that is not mapped, and fails (ENOMEM).
    pub sure: bool,
}

impl Step<u8> for SetProt {
    fn step(&self, prot: &u8) -> Vec<u8> {
        if self.sure { vec![self.to] } else { vec![self.to, *prot] }
    }
}

/// What a call does to a file's content, as far as races between the page cache and the device go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When, by whom.
    pub span: Span,
    /// The range, in bytes of the file.
    pub range: (u64, u64),
    /// It may make page-cache pages dirty.
    pub dirties: bool,
    /// It is an O_DIRECT write to a file in the page cache.
    pub direct_write: bool,
    /// It drops pages out of the page cache (truncate, punch, shift, O_DIRECT write).
    pub drops: bool,
    /// It writes into pages that it has pinned (an O_DIRECT read whose buffer is a mapping of this file).
    pub pinned: bool,
}

/// An inode.
#[derive(Debug)]
pub struct File {
    /// Identity. That of a gate's device is made up, and no file of a mount has it.
    pub id: FileId,
    /// The gate whose block device it is, unless it is a file of a mount.
    pub gate: Option<GateSlot>,
    /// Its bytes.
    pub obj: ObjId,
    /// Its size.
    pub size: Lin<u64, SizeOp>,
    /// The name by which it was first seen.
    pub path: Path,
    /// DIO alignment and DAX state as reported.
    pub facts: Option<FileFacts>,
    /// What calls did to it.
    pub touches: Vec<Touch>,
    /// Ranges where page cache and device may disagree, because an O_DIRECT write raced with something that dirtied pages.
    pub incoherent: Vec<(u64, u64)>,
    /// Bytes beyond the end of file may have been written through a mapping of the last page.
    pub tail_stored: bool,
    /// It may have shared blocks with another file or another place of its own.
    pub shared: bool,
    /// A known defect of the kernel may have left its newest bytes in the page cache alone, for ever.
    pub never_written: bool,
    /// A known defect of the kernel may change its blocks when pages of another file are written back.
    pub late_dma: bool,
    /// A known defect of the kernel leaves its content in doubt: sizes and errnos are judged, bytes are not.
    pub unjudged: bool,
    /// What else a known defect of the kernel may show through its mappings.
    pub behind_mappings: Option<Val>,
}

impl File {
    /// Whether it is a file of that mount.
    pub fn on(&self, mount: Mount) -> bool {
        self.gate.is_none() && self.id.mount == mount
    }

    /// The mount it lives on; a gate's device lives on none.
    pub fn mount(&self) -> Option<Mount> {
        self.gate.is_none().then_some(self.id.mount)
    }

    /// Whether it is a DAX file.
    pub fn is_dax(&self) -> bool {
        self.mount().is_some_and(Mount::is_dax)
    }

    /// Whether it is a file of an XFS.
    pub fn is_xfs(&self) -> bool {
        self.mount().is_some_and(Mount::is_xfs)
    }
}

impl File {
    /// Whether all ways of reading show the same, so that one look settles what the others see.
    pub fn one_look_settles(&self) -> bool {
        self.incoherent.is_empty() && !self.never_written && !self.late_dma
    }
}

/// A struct file.
#[derive(Debug)]
pub struct Open {
    /// Which file.
    pub file: usize,
    /// Access mode.
    pub access: Access,
    /// Flags.
    pub flags: OpenFlags,
    /// Its position.
    pub pos: Lin<u64, PosOp>,
}

impl Open {
    /// Whether reads are allowed.
    pub fn readable(&self) -> bool {
        self.access != Access::WriteOnly
    }

    /// Whether writes are allowed.
    pub fn writable(&self) -> bool {
        self.access != Access::ReadOnly
    }
}

/// A mapping in one process.
#[derive(Clone, Debug)]
pub struct Map {
    /// The call that made it.
    pub filler: u16,
    /// The open file that was mapped.
    pub open: usize,
    /// The file.
    pub file: usize,
    /// File offset of its first byte.
    pub offset: u64,
    /// Shortest and longest length in bytes that it may have now: racing mremaps leave a doubt.
    pub len: (u64, u64),
    /// Shared or private.
    pub sharing: Sharing,
    /// PROT_ bits.
    pub prot: Lin<u8, SetProt>,
    /// The private pages, in offsets of the mapping.
    pub private: Option<ObjId>,
}

/// A pipe: a stream of bytes with two ends.
#[derive(Clone, Debug)]
pub struct Pipe {
    /// The stream.
    pub obj: ObjId,
    /// Bytes put in so far.
    pub head: u64,
    /// Bytes taken out so far.
    pub tail: u64,
    /// The latest call on the out side.
    pub last_out: Option<Span>,
    /// Racing calls on one side: which bytes went where is unknown from here on.
    pub confused: bool,
    /// References to pages that calls put in, in the order of the stream.
    pub refs: Vec<PipeRef>,
    /// Calls that took something out, and how far the stream was read then.
    pub taken: Vec<(u16, u64)>,
}

/// A reference to a page, or to a part of it, in a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeRef {
    /// The call that put it in.
    pub call: u16,
    /// Its place in the stream.
    pub place: (u64, u64),
    /// The file that the page was of.
    pub file: usize,
    /// Where in the file the page begins.
    pub page: u64,
    /// Whether it surely was a page of the file: not a private copy, and not the zero page that stands for a hole.
    pub real: bool,
}
