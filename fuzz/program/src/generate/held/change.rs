//! The changes of a file whose pages are held.

use super::{CONDUCTOR, Victim};
use crate::generate::Writer;
use crate::outline::OpenFile;
use crate::{
    Access, Advice, Buf, Call, FILE_MAX, FallocateMode, FileSlot, GATE_MEMORY, Lane, LayoutChange,
    MsyncFlags, OpenFlags, PAGE, Path, RingSlot, Sharing, SqeFlags, Via,
};

impl Writer<'_, '_> {
    /// Makes the change of the file, by that lane.
    pub(super) fn change(
        &mut self,
        change: LayoutChange,
        victim: Victim,
        lane: Lane,
        holder: Lane,
    ) {
        use LayoutChange as C;
        let inode = victim.inode;
        let Some(path) = self.outline.name_of(inode) else {
            return self.change_unnamed(change, victim, lane, holder);
        };
        let size = self.outline.inodes[inode].size;
        match change {
            C::TruncateDown => {
                let len = self.smaller(size);
                self.may_wait(lane, Call::Truncate { path, len });
            }
            C::TruncateUp => {
                let len = size + self.dice.below(4) * PAGE;
                self.may_wait(lane, Call::Truncate { path, len: len.min(FILE_MAX) });
            }
            C::OpenTruncate => {
                let slot = self.free_file(lane);
                let access =
                    self.dice.pick(&[Access::ReadWrite, Access::ReadWrite, Access::ReadOnly]);
                let flags = OpenFlags::TRUNC;
                self.may_wait(lane, Call::Open { slot, path, access, flags });
            }
            C::Unlink => {
                self.may_wait(lane, Call::Unlink { path });
                if self.dice.chance(50)
                    && let Some(file) = self.file_of(lane, inode, false)
                {
                    self.may_wait(lane, Call::Close { file });
                }
            }
            C::CloseUnlinked => {
                self.call(lane, Call::Unlink { path });
                if let Some(file) = self.file_of(lane, inode, false) {
                    self.may_wait(lane, Call::Close { file });
                }
            }
            C::RenameOver => {
                let from = match self.outline.name_of(victim.other) {
                    Some(from) => from,
                    None => {
                        let slot = self.free_file(lane);
                        let path = Path { mount: path.mount, name: 2 };
                        let flags = OpenFlags::CREAT;
                        self.call(
                            lane,
                            Call::Open { slot, path, access: Access::ReadWrite, flags },
                        );
                        path
                    }
                };
                self.may_wait(lane, Call::Rename { from, to: path });
            }
            _ => self.change_unnamed(change, victim, lane, holder),
        }
    }

    /// As `change`, where no name is needed.
    fn change_unnamed(&mut self, change: LayoutChange, victim: Victim, lane: Lane, holder: Lane) {
        use LayoutChange as C;
        let inode = victim.inode;
        let size = self.outline.inodes[inode].size;
        match change {
            C::Fork => {
                let fresh =
                    (0..crate::CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)]);
                if let Some(child) = fresh {
                    self.call(CONDUCTOR, Call::Fork { child });
                    if self.dice.chance(50)
                        && let Some((map, _)) =
                            self.map_of(Lane::Child(child), inode, Sharing::Shared)
                    {
                        let call = Call::Store { map, offset: 0, len: 8 };
                        self.may_wait(Lane::Child(child), call);
                    }
                }
                return;
            }
            C::HolderExit => {
                if let Lane::Child(_) = holder {
                    self.call(holder, Call::Exit);
                }
                return;
            }
            C::HolderKill => {
                if let Lane::Child(_) = holder {
                    self.call(CONDUCTOR, Call::Kill { lane: holder });
                }
                return;
            }
            C::DropCaches => return self.may_wait(lane, Call::DropCaches),
            C::Munmap => {
                if let Some((map, _)) = self.map_of(lane, inode, Sharing::Shared) {
                    self.may_wait(lane, Call::Munmap { map });
                }
                return;
            }
            C::MadviseRemove => {
                if let Some((map, len)) = self.map_of(lane, inode, Sharing::Shared) {
                    let (offset, len) = self.aligned_part(len);
                    let advice = Advice::Remove;
                    self.may_wait(lane, Call::Madvise { map, offset, len, advice });
                }
                return;
            }
            _ => {}
        }
        if change == C::DirectWrite && !self.outline.inodes[inode].is_dax() {
            return self.direct_write(victim, lane);
        }
        let Some(file) = self.file_of(lane, inode, true) else { return };
        match change {
            C::FtruncateUp => {
                let len = (size + self.dice.below(4) * PAGE).min(FILE_MAX);
                self.may_wait_maybe_ring(lane, Call::Ftruncate { file, len });
            }
            C::CloneOver
            | C::CloneRangeOver
            | C::DedupeOver
            | C::CopyOver
            | C::CloneFrom
            | C::CloneRangeFrom
            | C::DedupeFrom => self.share(change, victim, lane, file),
            C::Write | C::DirectWrite => {
                let (offset, len) = self.part(size.max(PAGE), GATE_MEMORY);
                let call = Call::Pwrite { file, offset, buf: Buf::Anon(0), len };
                self.may_wait_maybe_ring(lane, call);
            }
            C::Sync => {
                let map = self.map_of(lane, inode, Sharing::Shared);
                let call = match (self.dice.below(5), map) {
                    (0, Some((map, len))) => {
                        Call::Msync { map, offset: 0, len, flags: MsyncFlags::SYNC }
                    }
                    (1, _) => Call::Syncfs { file },
                    (2, _) => Call::Fdatasync { file },
                    _ => Call::Fsync { file },
                };
                self.may_wait(lane, call);
            }
            _ => match FallocateMode::NAMES.iter().find(|(_, m)| C::of_mode(*m) == change) {
                Some((_, mode)) => self.fallocate_victim(*mode, size, lane, file),
                None => {
                    let len = self.smaller(size);
                    self.may_wait_maybe_ring(lane, Call::Ftruncate { file, len });
                }
            },
        }
    }

    /// Most requests of a ring behave as their system call does, but for what a signal does to them.
    fn may_wait_maybe_ring(&mut self, lane: Lane, call: Call) {
        let rings = self.outline.space(lane).rings;
        let ring = rings.iter().position(Option::is_some);
        let via = ring
            .filter(|_| self.dice.chance(20))
            .map(|ring| Via { ring: RingSlot(ring as u8), flags: SqeFlags(0) });
        self.may_wait_in(lane, call, via);
    }

    fn smaller(&mut self, size: u64) -> u64 {
        match self.dice.below(4) {
            0 => size / 2 / PAGE * PAGE,
            1 => size.saturating_sub(1),
            _ => 0,
        }
    }

    fn aligned_part(&mut self, len: u64) -> (u64, u64) {
        let pages = (len / PAGE).max(1);
        let first = if self.dice.chance(40) { self.dice.below(pages) } else { 0 };
        (first * PAGE, self.dice.between(1, pages - first) * PAGE)
    }

    fn fallocate_victim(&mut self, mode: FallocateMode, size: u64, lane: Lane, file: FileSlot) {
        use FallocateMode as M;
        let inside = (size / PAGE).max(1);
        let (mut offset, mut len) = self.aligned_part(inside * PAGE);
        match mode {
            M::CollapseRange => {
                // Before the end of the file, or the kernel says EINVAL.
                offset = offset.min(inside.saturating_sub(2) * PAGE);
                len = len.min((inside * PAGE).saturating_sub(offset + PAGE)).max(PAGE);
            }
            M::InsertRange => offset = offset.min(inside.saturating_sub(1) * PAGE),
            M::Allocate | M::KeepSize | M::ZeroRange if self.dice.chance(40) => {
                offset = size / PAGE * PAGE;
            }
            _ if self.dice.chance(15) => {
                offset += 512;
                len -= 512;
            }
            _ => {}
        }
        self.may_wait_maybe_ring(lane, Call::Fallocate { file, mode, offset, len });
    }

    /// Two-file operations between the victim and the file beside it.
    fn share(&mut self, change: LayoutChange, victim: Victim, lane: Lane, file: FileSlot) {
        use LayoutChange as C;
        let Some(other) = self.file_of(lane, victim.other, true) else { return };
        let over = matches!(change, C::CloneOver | C::CloneRangeOver | C::DedupeOver | C::CopyOver);
        let (dst, src) = if over { (file, other) } else { (other, file) };
        let from = if over { victim.other } else { victim.inode };
        let size = self.outline.inodes[from].size;
        let (offset, len) = self.aligned_part(size.max(PAGE));
        let same = self.dice.chance(50);
        let dst_offset = if same { offset } else { self.dice.below(4) * PAGE };
        let call = match change {
            C::CloneOver | C::CloneFrom => Call::Ficlone { dst, src },
            C::DedupeOver | C::DedupeFrom => {
                Call::Fideduperange { src, src_offset: offset, len, dst, dst_offset }
            }
            C::CopyOver => Call::CopyFileRange { src, src_offset: offset, dst, dst_offset, len },
            _ => Call::Ficlonerange { dst, dst_offset, src, src_offset: offset, len },
        };
        self.may_wait(lane, call);
    }

    /// A write past the page cache, by a descriptor opened for it if need be.
    fn direct_write(&mut self, victim: Victim, lane: Lane) {
        let files = self.outline.space(lane).files;
        let suits = |file: &OpenFile| {
            file.inode == victim.inode && file.can_write() && file.flags.has(OpenFlags::DIRECT)
        };
        let found = (0..).zip(files).find(|(_, file)| file.as_ref().is_some_and(suits));
        let file = match (found, self.outline.name_of(victim.inode)) {
            (Some((slot, _)), _) => FileSlot(slot),
            (None, Some(path)) => {
                let slot = self.free_file(lane);
                let flags = OpenFlags::DIRECT;
                self.call(lane, Call::Open { slot, path, access: Access::ReadWrite, flags });
                slot
            }
            (None, None) => return,
        };
        let size = self.outline.inodes[victim.inode].size;
        let (offset, len) = self.part(size.max(PAGE), GATE_MEMORY);
        self.may_wait_maybe_ring(lane, Call::Pwrite { file, offset, buf: Buf::Anon(0), len });
    }
}
