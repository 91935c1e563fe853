//! Finds what a lane's process has, or makes it: descriptors, mappings, devices, rings, pipes, the process itself.

use super::{CONDUCTOR, HELD_PAGES, VICTIM_PAGES, Victim};
use crate::generate::Writer;
use crate::outline::OpenFile;
use crate::{
    Access, Buf, Call, FileSlot, GateSlot, Lane, MapFlags, MapSlot, Mount, OpenFlags, PAGE, Path,
    PipeSlot, Prot, RingSlot, Sharing,
};

impl Writer<'_, '_> {
    /// One of these mounts, or home if none of them may be named.
    pub(in crate::generate) fn mount_among(&mut self, mounts: &[Mount]) -> Mount {
        let mounts = self.shape.vocabulary.among(mounts);
        self.dice.pick_some(&mounts).unwrap_or(self.shape.home)
    }

    /// A living child, forked for this if need be.
    pub(in crate::generate) fn child(&mut self) -> Option<Lane> {
        let living = (0..crate::CHILDREN_MAX).find(|n| self.outline.alive[usize::from(*n)]);
        let fresh = || (0..crate::CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)]);
        let child = match living {
            Some(child) => child,
            None => {
                let child = fresh()?;
                self.call(CONDUCTOR, Call::Fork { child });
                child
            }
        };
        Some(Lane::Child(child)).filter(|lane| !self.outline.is_stuck(*lane))
    }

    /// A slot of that lane's process in which the file is open.
    pub(in crate::generate) fn file_of(
        &mut self,
        lane: Lane,
        inode: usize,
        write: bool,
    ) -> Option<FileSlot> {
        let suits = |open: &OpenFile| open.inode == inode && (!write || open.can_write());
        let files = self.outline.space(lane).files;
        let fit: Vec<u8> = (0..)
            .zip(files)
            .filter(|(_, f)| f.as_ref().is_some_and(suits))
            .map(|(n, _)| n)
            .collect();
        self.dice.pick_some(&fit).map(FileSlot)
    }

    /// A mapping of the file in that lane's process: its slot and length.
    pub(super) fn map_of(
        &mut self,
        lane: Lane,
        inode: usize,
        sharing: Sharing,
    ) -> Option<(MapSlot, u64)> {
        let maps = self.outline.space(lane).maps;
        let fit: Vec<(u8, u64)> = (0..)
            .zip(maps)
            .filter_map(|(n, map)| Some((n, map?)))
            .filter(|(_, map)| map.inode == inode && map.sharing == sharing)
            .map(|(n, map)| (n, map.len))
            .collect();
        self.dice.pick_some(&fit).map(|(n, len)| (MapSlot(n), len))
    }

    pub(in crate::generate) fn free_file(&self, lane: Lane) -> FileSlot {
        let files = self.outline.space(lane).files;
        FileSlot(files.iter().position(Option::is_none).unwrap_or(7) as u8)
    }

    pub(super) fn free_map(&self, lane: Lane) -> MapSlot {
        let maps = self.outline.space(lane).maps;
        MapSlot(maps.iter().position(Option::is_none).unwrap_or(7) as u8)
    }

    /// A device gate that the lane's process has open, opened for this if need be.
    pub(super) fn device(&mut self, lane: Lane) -> (GateSlot, FileSlot) {
        let gate = self.dice.pick(&[GateSlot::DM, GateSlot::UBLK]);
        let files = self.outline.space(lane).files;
        let open = (0..).zip(files).find(|(_, file)| {
            file.is_some_and(|file| {
                self.outline.inodes[file.inode].gate == Some(gate)
                    && file.access == Access::ReadWrite
            })
        });
        if let Some((slot, _)) = open {
            return (gate, FileSlot(slot));
        }
        let slot = self.free_file(lane);
        let by = if let Lane::Child(_) = lane { lane } else { CONDUCTOR };
        let (access, flags) = (Access::ReadWrite, OpenFlags::DIRECT);
        self.call(by, Call::OpenGate { slot, gate, access, flags });
        (gate, slot)
    }

    /// A ring of the lane's process, with nothing registered if `fresh`.
    pub(super) fn ring(&mut self, lane: Lane, fresh: bool) -> RingSlot {
        let rings = self.outline.space(lane).rings;
        let suits = |ring: &crate::outline::Ring| !fresh || ring.registered.is_none();
        let found = (0..).zip(rings).find(|(_, ring)| ring.as_ref().is_some_and(suits));
        if let Some((slot, _)) = found {
            return RingSlot(slot);
        }
        let slot = RingSlot(rings.iter().position(Option::is_none).unwrap_or(0) as u8);
        let by = if let Lane::Child(_) = lane { lane } else { CONDUCTOR };
        self.call(by, Call::IoUringSetup { slot, entries: 8 });
        slot
    }

    pub(super) fn pipe(&mut self, lane: Lane, busy: &[PipeSlot]) -> PipeSlot {
        let pipes = self.outline.space(lane).pipes;
        let found = (0..).zip(pipes).find(|(n, pipe)| {
            !busy.contains(&PipeSlot(*n))
                && pipe.is_some_and(|pipe| self.outline.pipes[pipe].bytes == 0)
        });
        if let Some((slot, _)) = found {
            return PipeSlot(slot);
        }
        let free = pipes.iter().position(Option::is_none).unwrap_or(3);
        let by = if let Lane::Child(_) = lane { lane } else { CONDUCTOR };
        self.call(by, Call::Pipe { slot: PipeSlot(free as u8) });
        PipeSlot(free as u8)
    }

    /// A private mapping of the file whose pages are its own already.
    pub(super) fn private_map(&mut self, victim: Victim, lane: Lane) -> Option<(MapSlot, u64)> {
        let (map, len) = match self.map_of(lane, victim.inode, Sharing::Private) {
            Some(found) => found,
            None => self.map_again(victim, lane, Sharing::Private)?,
        };
        if !self.dice.chance(10) {
            self.call(lane, Call::Store { map, offset: 0, len });
        }
        Some((map, len))
    }

    pub(super) fn shared_map(&mut self, victim: Victim, lane: Lane) -> Option<(MapSlot, u64)> {
        self.map_again(victim, lane, Sharing::Shared)
    }

    fn map_again(
        &mut self,
        victim: Victim,
        lane: Lane,
        sharing: Sharing,
    ) -> Option<(MapSlot, u64)> {
        let file = self.file_of(lane, victim.inode, true)?;
        let size = self.outline.inodes[victim.inode].size;
        let len = size.next_multiple_of(PAGE).clamp(PAGE, VICTIM_PAGES * PAGE);
        let slot = self.free_map(lane);
        let prot = Prot::READ.with(Prot::WRITE);
        self.call(
            lane,
            Call::Mmap { slot, file, offset: 0, len, prot, sharing, flags: MapFlags(0) },
        );
        Some((slot, len))
    }

    /// An O_DIRECT descriptor of a page-cache file with contents, opened for this if need be.
    pub(super) fn direct_file(&mut self, victim: Victim, lane: Lane) -> FileSlot {
        let files = self.outline.space(lane).files;
        let suits = |file: &OpenFile| {
            let inode = &self.outline.inodes[file.inode];
            file.flags.has(OpenFlags::DIRECT)
                && inode.gate.is_none()
                && !inode.is_dax()
                && file.inode != victim.inode
                && inode.size > 0
        };
        let found = (0..).zip(files).find(|(_, file)| file.as_ref().is_some_and(suits));
        if let Some((slot, _)) = found {
            return FileSlot(slot);
        }
        let mount = self.mount_among(&[Mount::Ext4, Mount::Xfs]);
        let slot = self.free_file(lane);
        let path = Path { mount, name: 2 };
        let flags = OpenFlags::CREAT.with(OpenFlags::DIRECT);
        self.call(lane, Call::Open { slot, path, access: Access::ReadWrite, flags });
        let len = HELD_PAGES * PAGE;
        self.call(lane, Call::Pwrite { file: slot, offset: 0, buf: Buf::Anon(0), len });
        slot
    }
}
