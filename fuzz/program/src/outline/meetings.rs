//! What a line meets when it is issued: pages that somebody holds, and leases.

use super::leases::Breaking;
use super::{HeldLease, Outline};
use crate::{
    Access, Advice, Breaker, Call, CallId, HeldPair, Lane, LayoutChange, Lease, LeasePair,
    LeaseState, Line, Mount, OpenFlags,
};

impl Outline {
    pub(super) fn note_meetings(&mut self, id: CallId, line: &Line) {
        let mut pairs = Vec::new();
        for (change, inode) in self.changes(line) {
            // A device has pages, and no layout.
            if self.inodes[inode].gate.is_some() {
                continue;
            }
            let mount = self.inodes[inode].mount;
            for (source, taken, space) in self.references(inode) {
                let ends = match (change, line) {
                    (LayoutChange::HolderExit, _) => space == Outline::space_index(line.lane),
                    (LayoutChange::HolderKill, Line { call: Call::Kill { lane }, .. }) => {
                        space == Outline::space_index(*lane)
                    }
                    _ => true,
                };
                if ends {
                    pairs.push(HeldPair { source, mount, taken, change, issued: id });
                }
            }
        }
        pairs.sort_unstable_by_key(|pair| (pair.source, pair.mount, pair.change, pair.taken));
        pairs.dedup_by_key(|pair| (pair.source, pair.mount, pair.change));
        self.held_pairs.extend(pairs);
        for (breaker, inode) in self.breakers(line) {
            // Where there is a read lease no descriptor may write: such a call is refused before it could meet the lease.
            if let Some((state, taken)) = self.lease_state(inode)
                && state.can_meet(breaker)
            {
                let mount = self.inodes[inode].mount;
                self.lease_pairs.push(LeasePair { state, mount, taken, breaker, issued: id });
            }
        }
    }

    /// What the line does to which files, as far as it may meet somebody who holds their pages.
    fn changes(&self, line: &Line) -> Vec<(LayoutChange, usize)> {
        use LayoutChange as C;
        let lane = line.lane;
        let file = |slot| self.file(lane, slot).map(|open| open.inode);
        let all = |change, inodes: Vec<usize>| inodes.into_iter().map(|i| (change, i)).collect();
        let two = |over: C, dst, from: C, src| -> Vec<(C, usize)> {
            let dst = file(dst).map(|inode| (over, inode));
            dst.into_iter().chain(file(src).map(|inode| (from, inode))).collect()
        };
        let one = match &line.call {
            Call::Truncate { path, len } => self.lookup(*path).map(|inode| {
                let down = *len < self.inodes[inode].size;
                (if down { C::TruncateDown } else { C::TruncateUp }, inode)
            }),
            Call::Ftruncate { file: slot, len } => file(*slot).map(|inode| {
                let down = *len < self.inodes[inode].size;
                (if down { C::FtruncateDown } else { C::FtruncateUp }, inode)
            }),
            Call::Open { path, flags, .. } if flags.has(OpenFlags::TRUNC) => {
                self.lookup(*path).map(|inode| (C::OpenTruncate, inode))
            }
            Call::Fallocate { file: slot, mode, .. } => {
                file(*slot).map(|inode| (C::of_mode(*mode), inode))
            }
            Call::Unlink { path } => self.lookup(*path).map(|inode| (C::Unlink, inode)),
            Call::Close { file: slot } => file(*slot)
                .filter(|inode| self.name_of(*inode).is_none())
                .map(|inode| (C::CloseUnlinked, inode)),
            Call::Rename { from, to } if from != to && self.lookup(*from).is_some() => {
                self.lookup(*to).map(|inode| (C::RenameOver, inode))
            }
            Call::Ficlone { dst, src } => return two(C::CloneOver, *dst, C::CloneFrom, *src),
            Call::Ficlonerange { dst, src, .. } => {
                return two(C::CloneRangeOver, *dst, C::CloneRangeFrom, *src);
            }
            Call::Fideduperange { dst, src, .. } => {
                return two(C::DedupeOver, *dst, C::DedupeFrom, *src);
            }
            Call::CopyFileRange { dst, .. } => file(*dst).map(|inode| (C::CopyOver, inode)),
            Call::Madvise { map, advice: Advice::Remove, .. } => {
                self.map(lane, *map).map(|mapping| (C::MadviseRemove, mapping.inode))
            }
            Call::Pwrite { file: slot, .. }
            | Call::Pwritev { file: slot, .. }
            | Call::Writev { file: slot, .. } => self.file(lane, *slot).map(|open| {
                let inode = &self.inodes[open.inode];
                let direct = open.flags.has(OpenFlags::DIRECT) && !inode.is_dax();
                (if direct { C::DirectWrite } else { C::Write }, open.inode)
            }),
            Call::Fsync { file: slot }
            | Call::Fdatasync { file: slot }
            | Call::SyncFileRange { file: slot, .. } => file(*slot).map(|inode| (C::Sync, inode)),
            Call::Syncfs { file: slot } => {
                let Some(open) = self.file(lane, *slot) else { return vec![] };
                let mount: Mount = self.inodes[open.inode].mount;
                let there = (0..self.inodes.len()).filter(|i| self.inodes[*i].mount == mount);
                return all(C::Sync, there.collect());
            }
            Call::Msync { map, .. } => self.map(lane, *map).map(|mapping| (C::Sync, mapping.inode)),
            Call::DropCaches => return all(C::DropCaches, (0..self.inodes.len()).collect()),
            Call::Munmap { map } => self.map(lane, *map).map(|mapping| (C::Munmap, mapping.inode)),
            Call::Fork { .. } => return all(C::Fork, self.mapped_by(lane)),
            Call::Exit => return all(C::HolderExit, (0..self.inodes.len()).collect()),
            Call::Kill { .. } => return all(C::HolderKill, (0..self.inodes.len()).collect()),
            _ => None,
        };
        one.into_iter().collect()
    }

    fn mapped_by(&self, lane: Lane) -> Vec<usize> {
        let mut inodes: Vec<usize> =
            self.space(lane).maps.iter().flatten().map(|mapping| mapping.inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    /// What the line does to which files, as far as it may meet a lease.
    fn breakers(&self, line: &Line) -> Vec<(Breaker, usize)> {
        use Breaker as B;
        let lane = line.lane;
        let file = |slot| self.file(lane, slot).map(|open| open.inode);
        let one = match &line.call {
            Call::Open { path, access, flags, .. } => {
                let truncates = flags.has(OpenFlags::TRUNC);
                let breaker = match (*access, flags.has(OpenFlags::NONBLOCK)) {
                    (Access::ReadOnly, true) => B::OpenReadNonblock,
                    (_, true) => B::OpenWriteNonblock,
                    (Access::ReadOnly, _) if truncates => B::OpenReadTruncate,
                    (Access::ReadOnly, _) => B::OpenRead,
                    _ if truncates => B::OpenWriteTruncate,
                    _ => B::OpenWrite,
                };
                self.lookup(*path).map(|inode| (breaker, inode))
            }
            Call::Truncate { path, .. } => self.lookup(*path).map(|inode| (B::Truncate, inode)),
            Call::Ftruncate { file: slot, .. } => file(*slot).map(|inode| (B::Ftruncate, inode)),
            Call::Pwrite { file: slot, .. }
            | Call::Pwritev { file: slot, .. }
            | Call::Writev { file: slot, .. } => file(*slot).map(|inode| (B::Write, inode)),
            Call::Fallocate { file: slot, .. } => file(*slot).map(|inode| (B::Fallocate, inode)),
            Call::Ficlone { dst, .. }
            | Call::Ficlonerange { dst, .. }
            | Call::Fideduperange { dst, .. }
            | Call::CopyFileRange { dst, .. } => file(*dst).map(|inode| (B::CloneOver, inode)),
            Call::Rename { from, to } => {
                let met = [self.lookup(*from), self.lookup(*to)];
                return met.into_iter().flatten().map(|inode| (B::Rename, inode)).collect();
            }
            Call::Unlink { path } => self.lookup(*path).map(|inode| (B::Unlink, inode)),
            Call::Link { from, .. } => self.lookup(*from).map(|inode| (B::Link, inode)),
            Call::Setlease { file: slot, lease: Lease::Read } => {
                file(*slot).map(|inode| (B::SetleaseRead, inode))
            }
            Call::Setlease { file: slot, lease: Lease::Write } => {
                file(*slot).map(|inode| (B::SetleaseWrite, inode))
            }
            Call::Close { file: slot } => self
                .file(lane, *slot)
                .filter(|open| self.descriptions[open.description].lease.is_some())
                .map(|open| (B::CloseHolder, open.inode)),
            Call::Fork { .. } => return self.held_by(lane, B::Fork),
            Call::Exit => return self.held_by(lane, B::ExitHolder),
            Call::Kill { lane } => return self.held_by(*lane, B::KillHolder),
            _ => None,
        };
        one.into_iter().collect()
    }

    /// The files of which the lane's process has a leased descriptor.
    fn held_by(&self, lane: Lane, breaker: Breaker) -> Vec<(Breaker, usize)> {
        let files = self.space(lane).files.iter().flatten();
        let leased = files.filter(|open| self.descriptions[open.description].lease.is_some());
        let mut inodes: Vec<usize> = leased.map(|open| open.inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes.into_iter().map(|inode| (breaker, inode)).collect()
    }

    /// The state of the leases of a file, with the line that took the first of them.
    pub fn lease_state(&self, inode: usize) -> Option<(LeaseState, CallId)> {
        let leases: Vec<(usize, HeldLease)> = self.leases(inode).collect();
        let (description, first) = *leases.first()?;
        let keeps = |open: &super::OpenFile| open.description == description;
        let kept = self.spaces[first.space].files.iter().flatten().any(keeps);
        let state = match (first.kind, first.breaking) {
            (Lease::Layout | Lease::Unlock, _) => LeaseState::Layout,
            _ if !kept => LeaseState::Elsewhere,
            (Lease::Read, _) if leases.iter().any(|(_, l)| l.breaking != Breaking::No) => {
                LeaseState::ReadBreaking
            }
            (Lease::Read, _) if leases.len() > 1 => LeaseState::TwoReaders,
            (Lease::Read, _) => LeaseState::Read,
            (Lease::Write, Breaking::No) => LeaseState::Write,
            (Lease::Write, Breaking::Downgrade) => LeaseState::WriteDowngrading,
            (Lease::Write, Breaking::Unlock) => LeaseState::WriteBreaking,
        };
        Some((state, first.taken))
    }
}
