//! The files of a run as its history tells: which file a slot leads to, how large it probably is, and who maps, leases or shares it.
//!
//! Only returns are believed, in their order. It is a cheap guess for classes of behaviour; the checker's model is the one that verdicts rest on.

use history::{FileId, Payload};
use program::{
    Access, Call, CallId, FallocateMode, GATE_SIZE, GateSlot, Lease, Mount, OpenFlags, PAGE, Path,
    Sharing, Slot,
};
use std::collections::{BTreeMap, VecDeque};

/// Where a call takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// On a file of that mount.
    On(Mount),
    /// On no file, or on the device of a gate.
    Elsewhere,
}

impl Place {
    /// The mounts, then everything else.
    pub const ALL: [Place; 5] = [
        Place::On(Mount::Ext4Dax),
        Place::On(Mount::XfsDax),
        Place::On(Mount::Ext4),
        Place::On(Mount::Xfs),
        Place::Elsewhere,
    ];

    /// The name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Place::On(mount) => mount.name(),
            Place::Elsewhere => "elsewhere",
        }
    }

    /// As a number below 8.
    pub fn number(self) -> u64 {
        match self {
            Place::On(mount) => mount as u64,
            Place::Elsewhere => 4,
        }
    }

    /// Whether files there are DAX.
    pub fn is_dax(self) -> bool {
        matches!(self, Place::On(mount) if mount.is_dax())
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    id: Option<FileId>,
    gate: Option<GateSlot>,
    /// Where it lives.
    pub place: Place,
    /// How large it probably is.
    pub size: u64,
    shared_maps: u16,
    private_maps: u16,
    /// Whether somebody has a lease on it.
    pub leased: bool,
    /// Whether it was a part of a clone or a dedupe.
    pub cloned: bool,
    /// Whether there may be holes or unwritten extents.
    pub sparse: bool,
    names: u16,
}

impl File {
    /// As a number below 8: not mapped, shared, private, both; and whether a name leads to it.
    pub fn links(&self) -> u64 {
        let maps = u64::from(self.shared_maps > 0) | u64::from(self.private_maps > 0) << 1;
        maps | u64::from(self.names > 0) << 2
    }
}

/// What a call filled a slot with.
#[derive(Clone, Copy, Debug)]
struct Filled {
    file: usize,
    flags: OpenFlags,
    /// Of a mapping: where in the file it begins, and whether its stores reach the file.
    map: Option<(u64, Sharing)>,
}

/// A use of a file by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub file: usize,
    pub direct: bool,
    /// Where the mapping begins in the file, if it is used by one.
    pub mapped_at: Option<u64>,
}

/// All files of a run.
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<File>,
    filled: BTreeMap<CallId, Filled>,
    names: BTreeMap<Path, usize>,
    socket: VecDeque<Filled>,
}

impl Files {
    pub fn get(&self, file: usize) -> Option<&File> {
        self.files.get(file)
    }

    /// The files that a call uses, in the order of its text: by the slots that it looked up, then by name.
    pub fn uses(&self, call: &Call, slots: &[CallId]) -> Vec<Use> {
        let wanted = call.uses();
        let by_slot = wanted.iter().zip(slots).filter_map(|(slot, filler)| {
            if !matches!(slot, Slot::File(_) | Slot::Map(_)) {
                return None;
            }
            let filled = self.filled.get(filler)?;
            let direct = filled.flags.has(OpenFlags::DIRECT);
            Some(Use { file: filled.file, direct, mapped_at: filled.map.map(|(at, _)| at) })
        });
        let by_name = call.paths().filter_map(|path| {
            Some(Use { file: *self.names.get(&path)?, direct: false, mapped_at: None })
        });
        by_slot.chain(by_name).collect()
    }

    /// Takes note of what a call did that returned without an error. `uses` is what it used when it was invoked.
    pub fn returned(
        &mut self,
        id: CallId,
        call: &Call,
        moved: u64,
        payload: &Payload,
        slots: &[CallId],
        uses: &[Use],
    ) {
        if let (Payload::File(facts), Some(used)) = (payload, uses.first())
            && let Some(file) =
                self.files.get_mut(used.file).filter(|_| matches!(call, Call::Statx { .. }))
        {
            file.size = facts.size;
        }
        let first = uses.first().map(|used| used.file);
        let second = uses.get(1).map(|used| used.file);
        let filled = slots.first().and_then(|filler| self.filled.get(filler)).copied();
        match *call {
            Call::Open { path, access, flags, .. } => self.opened(id, path, access, flags, payload),
            Call::OpenGate { gate, .. } => {
                let known = self.files.iter().position(|file| file.gate == Some(gate));
                let file = known.unwrap_or_else(|| self.new_file(None, Place::Elsewhere));
                self.change(Some(file), |file| {
                    (file.gate, file.size) = (Some(gate), GATE_SIZE);
                });
                let flags = OpenFlags::DIRECT;
                self.filled.insert(id, Filled { file, flags, map: None });
            }
            Call::Dup { .. } => {
                self.filled.extend(filled.map(|filled| (id, filled)));
            }
            Call::SendFd { .. } => self.socket.extend(filled),
            Call::RecvFd { .. } => {
                let filled = self.socket.pop_front();
                self.filled.extend(filled.map(|filled| (id, filled)));
            }
            Call::Mmap { offset, sharing, .. } => {
                if let Some(filled) = filled {
                    self.filled.insert(id, Filled { map: Some((offset, sharing)), ..filled });
                    self.map_count(filled.file, sharing, 1);
                }
            }
            Call::Munmap { .. } => {
                if let Some(Filled { file, map: Some((_, sharing)), .. }) = filled {
                    self.map_count(file, sharing, -1);
                }
            }
            Call::Unlink { path } => {
                if let Some(file) = self.names.remove(&path) {
                    self.name_count(file, -1);
                }
            }
            Call::Rename { from, to } if from != to => {
                if let Some(file) = self.names.remove(&from)
                    && let Some(over) = self.names.insert(to, file)
                {
                    self.name_count(over, -1);
                }
            }
            Call::Link { from, to } => {
                if let Some(file) = self.names.get(&from).copied() {
                    self.names.insert(to, file);
                    self.name_count(file, 1);
                }
            }
            Call::Setlease { lease, .. } => {
                self.change(first, |file| file.leased = lease != Lease::Unlock);
            }
            Call::Truncate { len, .. } | Call::Ftruncate { len, .. } => {
                self.change(first, |file| {
                    file.sparse |= len > file.size;
                    file.size = len;
                })
            }
            Call::Pwrite { offset, .. } | Call::Pwritev { offset, .. } => {
                self.change(first, |file| file.grow(offset, moved));
            }
            Call::SpliceFromPipe { offset, .. } => {
                self.change(first, |file| file.grow(offset, moved));
            }
            Call::Writev { .. } => self.change(first, |file| file.grow(0, moved)),
            Call::CopyFileRange { dst_offset, .. } => {
                self.change(second, |file| file.grow(dst_offset, moved));
            }
            Call::Fallocate { mode, offset, len, .. } => {
                self.change(first, |file| file.fallocate(mode, offset, len));
            }
            Call::Ficlone { .. } | Call::Ficlonerange { .. } | Call::Fideduperange { .. } => {
                let from = second.and_then(|src| self.files.get(src)).map_or(0, |src| src.size);
                self.change(second, |file| file.cloned = true);
                self.change(first, |file| {
                    file.cloned = true;
                    if matches!(call, Call::Ficlone { .. }) {
                        file.grow(0, from);
                    }
                });
            }
            _ => {}
        }
    }

    fn opened(
        &mut self,
        id: CallId,
        path: Path,
        access: Access,
        flags: OpenFlags,
        payload: &Payload,
    ) {
        let facts = match payload {
            Payload::File(facts) => Some(facts),
            _ => None,
        };
        let known = match facts {
            Some(facts) => self.files.iter().position(|file| file.id == Some(facts.id)),
            None => self.names.get(&path).copied(),
        };
        let file = known
            .unwrap_or_else(|| self.new_file(facts.map(|facts| facts.id), Place::On(path.mount)));
        if flags.has(OpenFlags::TRUNC) && access != Access::ReadOnly {
            self.change(Some(file), |file| file.size = 0);
        }
        if let Some(facts) = facts {
            self.change(Some(file), |file| file.size = facts.size);
        }
        let before = self.names.insert(path, file);
        if before != Some(file) {
            self.name_count(file, 1);
            if let Some(before) = before {
                self.name_count(before, -1);
            }
        }
        self.filled.insert(id, Filled { file, flags, map: None });
    }

    fn new_file(&mut self, id: Option<FileId>, place: Place) -> usize {
        self.files.push(File {
            id,
            gate: None,
            place,
            size: 0,
            shared_maps: 0,
            private_maps: 0,
            leased: false,
            cloned: false,
            sparse: false,
            names: 0,
        });
        self.files.len() - 1
    }

    fn change(&mut self, file: Option<usize>, change: impl FnOnce(&mut File)) {
        if let Some(file) = file.and_then(|file| self.files.get_mut(file)) {
            change(file);
        }
    }

    fn map_count(&mut self, file: usize, sharing: Sharing, by: i16) {
        self.change(Some(file), |file| {
            let count = match sharing {
                Sharing::Shared => &mut file.shared_maps,
                Sharing::Private => &mut file.private_maps,
            };
            *count = count.saturating_add_signed(by);
        });
    }

    fn name_count(&mut self, file: usize, by: i16) {
        self.change(Some(file), |file| file.names = file.names.saturating_add_signed(by));
    }
}

impl File {
    fn grow(&mut self, offset: u64, len: u64) {
        self.sparse |= offset > self.size;
        self.size = self.size.max(offset.saturating_add(len));
    }

    fn fallocate(&mut self, mode: FallocateMode, offset: u64, len: u64) {
        self.sparse = true;
        let whole = offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        match mode {
            FallocateMode::Allocate | FallocateMode::ZeroRange => {
                self.size = self.size.max(offset.saturating_add(len));
            }
            FallocateMode::CollapseRange if whole => self.size = self.size.saturating_sub(len),
            FallocateMode::InsertRange if whole => self.size = self.size.saturating_add(len),
            _ => {}
        }
    }
}
