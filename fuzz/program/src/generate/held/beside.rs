//! What others do beside the references: they lease, take blocks, and use the file.

use super::{CONDUCTOR, VICTIM_PAGES, Victim};
use crate::generate::Writer;
use crate::{Access, Buf, Call, FILE_MAX, Lease, OpenFlags, PAGE, Path, Sharing};

impl Writer<'_, '_> {
    /// A lease on the file beside the references to its pages: what calls then wait for has two answers.
    pub(super) fn lease_beside(&mut self, victim: Victim) {
        let Some(file) = self.file_of(CONDUCTOR, victim.inode, false) else { return };
        let seconds = self.dice.pick(&[1, 1, 2]);
        self.call(CONDUCTOR, Call::LeaseBreakTime { seconds });
        if self.dice.chance(70) {
            let answer = self.dice.pick(&[Lease::Unlock, Lease::Unlock, Lease::Read]);
            self.call(CONDUCTOR, Call::OnBreak { answer });
            let notice = self.notice();
            self.call(CONDUCTOR, Call::Setsig { file, notice });
        }
        let lease = self.dice.pick(&[Lease::Layout, Lease::Write, Lease::Layout]);
        self.call(CONDUCTOR, Call::Setlease { file, lease });
    }

    /// Somebody else takes blocks of the same mount, perhaps those that were just freed.
    pub(in crate::generate) fn allocate_elsewhere(&mut self, victim: Victim) {
        let lane = match self.worker() {
            Some(lane) if self.dice.chance(50) => lane,
            _ => CONDUCTOR,
        };
        let len = self.dice.between(1, VICTIM_PAGES) * PAGE;
        let buf = Buf::Anon(0);
        match self.file_of(lane, victim.other, true) {
            Some(file) if self.dice.chance(60) && !self.outline.is_locked(victim.other) => {
                let offset = self.outline.inodes[victim.other].size.min(FILE_MAX / 2);
                let offset = if self.dice.chance(50) { offset } else { 0 };
                self.call(lane, Call::Pwrite { file, offset, buf, len });
            }
            _ => {
                let slot = self.free_file(lane);
                let path = Path { mount: victim.path.mount, name: 3 };
                let flags = OpenFlags::CREAT;
                self.call(lane, Call::Open { slot, path, access: Access::ReadWrite, flags });
                self.call(lane, Call::Pwrite { file: slot, offset: 0, buf, len });
            }
        }
    }

    /// Another use of the file that meets the reference by the way.
    pub(super) fn bystander(&mut self, victim: Victim) {
        let Some(lane) = self.worker() else { return };
        let map = self.map_of(lane, victim.inode, Sharing::Shared);
        let locked = self.outline.is_locked(victim.inode);
        match (self.dice.below(4), map) {
            (0, Some((map, len))) => self.may_wait(lane, Call::Load { map, offset: 0, len }),
            (1, Some((map, _))) => self.may_wait(lane, Call::Store { map, offset: 0, len: 8 }),
            (2, _) if !locked => {
                if let Some(file) = self.file_of(lane, victim.inode, false) {
                    let call = Call::Pread { file, offset: 0, buf: Buf::Anon(0), len: PAGE };
                    self.may_wait(lane, call);
                }
            }
            _ => self.line(lane),
        }
    }
}
