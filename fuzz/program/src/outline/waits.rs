//! Which lines wait for what, and go on when it is gone.

use super::Outline;
use crate::{Call, CallId, FallocateMode, FileSlot, GateSlot, Lane, Line, OpenFlags};

/// A line that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    id: CallId,
    line: Line,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// A gate holds its I/O, or its memory.
    Gate(GateSlot),
    /// A lease is being broken.
    Lease { inode: usize, to_write: bool },
    /// Pages of DAX files are held.
    Layout([Option<usize>; 2]),
    /// Somebody who waits for pages has the file locked.
    Lock(usize),
    /// An earlier line of its lane waits.
    Behind,
}

impl Outline {
    /// Whether a line of the lane waits, so that its later lines do too.
    pub fn is_stuck(&self, lane: Lane) -> bool {
        self.waiting.iter().any(|waiting| waiting.line.lane == lane && waiting.line.occupies_lane())
    }

    /// Whether the line would wait if it were issued now, for something that does not end by itself.
    pub fn would_wait(&self, line: &Line) -> bool {
        self.obstacle(line).is_some()
    }

    /// Whether anybody waits for a lease.
    pub fn waits_for_lease(&self) -> bool {
        self.waiting.iter().any(|waiting| matches!(waiting.why, Why::Lease { .. }))
    }

    pub(super) fn queue_behind(&mut self, id: CallId, line: &Line) {
        self.waiting.push(Waiting { id, line: line.clone(), why: Why::Behind });
    }

    /// Issues the line: what meets it is noted, and it takes effect or waits.
    pub(super) fn issue(&mut self, id: CallId, line: &Line) {
        self.note_meetings(id, line);
        self.take(id, line);
        self.start_break(id, line);
        match self.obstacle(line) {
            Some(why) => self.waiting.push(Waiting { id, line: line.clone(), why }),
            None => self.take_effect(id, line),
        }
    }

    /// Lets everybody go on who can.
    pub(super) fn proceed(&mut self) {
        while let Some(index) = (0..self.waiting.len()).find(|index| self.may_go_on(*index)) {
            let Waiting { id, line, why } = self.waiting.remove(index);
            match why {
                Why::Behind => self.issue(id, &line),
                Why::Gate(_) | Why::Lease { .. } => self.take_effect(id, &line),
                Why::Layout(_) | Why::Lock(_) => match self.obstacle(&line) {
                    Some(why) => self.waiting.insert(index, Waiting { id, line, why }),
                    None => self.take_effect(id, &line),
                },
            }
        }
    }

    fn may_go_on(&self, index: usize) -> bool {
        let waiting = &self.waiting[index];
        match waiting.why {
            Why::Gate(gate) => !self.is_held(gate),
            Why::Lease { inode, to_write } => !self.conflicts(inode, to_write),
            Why::Layout(inodes) => !inodes.into_iter().flatten().any(|inode| self.is_busy(inode)),
            Why::Lock(inode) => !self.is_locked(inode),
            Why::Behind => !self.waiting[..index].iter().any(|earlier| {
                earlier.line.lane == waiting.line.lane && earlier.line.occupies_lane()
            }),
        }
    }

    /// Whether somebody who waits for pages of the file has it locked meanwhile.
    pub fn is_locked(&self, inode: usize) -> bool {
        self.waiting.iter().any(
            |waiting| matches!(waiting.why, Why::Layout(inodes) if inodes.contains(&Some(inode))),
        )
    }

    /// The lines of a lane that was killed are never heard of again. A request that a device has stays with it.
    pub(super) fn forget_lane(&mut self, lane: Lane) {
        self.waiting.retain(|waiting| waiting.line.lane != lane);
    }

    /// What a line waits for.
    fn obstacle(&self, line: &Line) -> Option<Why> {
        let lane = line.lane;
        match &line.call {
            Call::Open { path, access, flags, .. } if !flags.has(OpenFlags::NONBLOCK) => {
                let inode = self.lookup(*path)?;
                let to_write = *access != crate::Access::ReadOnly;
                if self.conflicts(inode, to_write) {
                    return Some(Why::Lease { inode, to_write });
                }
                if flags.has(OpenFlags::TRUNC) { self.layout(&[inode]) } else { None }
            }
            Call::Truncate { path, .. } => {
                let inode = self.lookup(*path)?;
                if self.conflicts(inode, true) {
                    return Some(Why::Lease { inode, to_write: true });
                }
                self.layout(&[inode])
            }
            Call::Ftruncate { file, .. } => self.layout(&[self.file(lane, *file)?.inode]),
            Call::Fallocate { file, mode, .. } => {
                let inode = self.file(lane, *file)?.inode;
                let plain = matches!(mode, FallocateMode::Allocate | FallocateMode::KeepSize);
                let waits = self.inodes[inode].mount.is_xfs() || !plain;
                if waits { self.layout(&[inode]) } else { self.lock(inode) }
            }
            Call::Madvise { map, advice: crate::Advice::Remove, .. } => {
                self.layout(&[self.map(lane, *map)?.inode])
            }
            Call::Ficlone { dst, src }
            | Call::Ficlonerange { dst, src, .. }
            | Call::Fideduperange { dst, src, .. }
            | Call::CopyFileRange { dst, src, .. } => {
                let both = [self.file(lane, *dst)?.inode, self.file(lane, *src)?.inode];
                let shares =
                    both.iter().all(|i| self.inodes[*i].is_dax() && self.inodes[*i].mount.is_xfs());
                if shares {
                    self.layout(&both)
                } else {
                    both.into_iter().find_map(|i| self.lock(i))
                }
            }
            Call::Pread { file, .. }
            | Call::Pwrite { file, .. }
            | Call::Preadv { file, .. }
            | Call::Pwritev { file, .. }
            | Call::Readv { file, .. }
            | Call::Writev { file, .. } => self.file_io(lane, *file),
            Call::Fsync { file } | Call::Fdatasync { file } => {
                let gate = self.inodes[self.file(lane, *file)?.inode].gate?;
                self.is_held(gate).then_some(Why::Gate(gate))
            }
            Call::ProcessVmReadv { map, gate, len, .. }
            | Call::ProcessVmWritev { map, gate, len, .. }
                if matches!(lane, Lane::Thread(_)) =>
            {
                self.map(lane, *map)?;
                (self.is_held(*gate) && *len > 0).then_some(Why::Gate(*gate))
            }
            _ => None,
        }
    }

    fn file_io(&self, lane: Lane, file: FileSlot) -> Option<Why> {
        let inode = self.file(lane, file)?.inode;
        match self.inodes[inode].gate {
            Some(gate) => self.is_held(gate).then_some(Why::Gate(gate)),
            None => self.lock(inode),
        }
    }

    fn lock(&self, inode: usize) -> Option<Why> {
        self.is_locked(inode).then_some(Why::Lock(inode))
    }

    /// Whether a change of these files waits for somebody who holds pages of one that is DAX, or for somebody who waits so.
    fn layout(&self, inodes: &[usize]) -> Option<Why> {
        if let Some(locked) = inodes.iter().find_map(|inode| self.lock(*inode)) {
            return Some(locked);
        }
        let busy = |inode: &&usize| self.inodes[**inode].is_dax() && self.is_busy(**inode);
        inodes
            .iter()
            .any(|inode| busy(&inode))
            .then(|| Why::Layout([inodes.first().copied(), inodes.get(1).copied()]))
    }

    /// An open or a truncate starts the break of leases even if it does not wait.
    fn start_break(&mut self, id: CallId, line: &Line) {
        match line.call {
            Call::Open { path, access, flags, .. } => {
                let refused = flags.has(OpenFlags::CREAT.with(OpenFlags::EXCL));
                if let Some(inode) = self.lookup(path).filter(|_| !refused) {
                    self.break_leases(id, inode, access != crate::Access::ReadOnly);
                }
            }
            Call::Truncate { path, .. } => {
                if let Some(inode) = self.lookup(path) {
                    self.break_leases(id, inode, true);
                }
            }
            _ => {}
        }
    }
}

impl Line {
    /// Whether the lane waits for the line itself: not where a ring has it and nobody waits.
    fn occupies_lane(&self) -> bool {
        self.via.is_none() || !self.detached
    }
}
