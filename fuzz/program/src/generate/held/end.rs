//! Ends the references, and looks at what became of the file.

use super::{CONDUCTOR, HELD_PAGES, Taken, VICTIM_PAGES, Victim};
use crate::generate::Writer;
use crate::{
    Buf, Call, FileSlot, GateSlot, Lane, Line, MapSlot, PAGE, PipeSlot, Prot, RegionAccess,
    RegionSlot, RingSlot, Settle, Sharing, SqeFlags, Via,
};

impl Writer<'_, '_> {
    /// Ends the reference: in most programs, and by the way that its source has.
    pub(super) fn let_go(&mut self, taken: &Taken) {
        if let Some(gate) = taken.gate
            && self.dice.chance(95)
        {
            let settle = match gate {
                GateSlot::MEMORY => Settle::Complete,
                GateSlot::DM => self.dice.pick(&[Settle::Complete, Settle::Complete, Settle::Fail]),
                _ => self.dice.pick(&[
                    Settle::Complete,
                    Settle::Complete,
                    Settle::Fail,
                    Settle::Reverse,
                    Settle::Partial,
                ]),
            };
            self.call(CONDUCTOR, Call::Release { gate, settle });
        }
        let gone = |it: &Self, lane: Lane| {
            matches!(lane, Lane::Child(n) if !it.outline.alive[usize::from(n)])
                || it.outline.is_stuck(lane)
        };
        let keeper = taken.keeper;
        if !gone(self, keeper) {
            if matches!(keeper, Lane::Child(_)) && taken.gate.is_none() && self.dice.chance(25) {
                let kill = self.dice.chance(50);
                let (by, call) = if kill {
                    (CONDUCTOR, Call::Kill { lane: keeper })
                } else {
                    (keeper, Call::Exit)
                };
                self.call(by, call);
            } else {
                for pipe in &taken.pipes {
                    self.empty_pipe(*pipe, keeper);
                }
            }
        }
        if let Some(ring) = taken.ring.filter(|_| !gone(self, taken.lane)) {
            if self.dice.chance(40) {
                self.use_buffer(taken.lane, ring);
            }
            match self.dice.below(4) {
                0 => self.call(taken.lane, Call::UnregisterBuffers { ring }),
                1 => self.call(taken.lane, Call::CloseRing { ring }),
                _ => {}
            }
        }
        if let Some(region) = taken.region.filter(|_| !gone(self, taken.lane))
            && self.dice.chance(50)
        {
            self.use_region(taken.lane, region);
        }
        if let Some(region) = taken.region.filter(|_| !gone(self, taken.lane))
            && self.dice.chance(60)
        {
            self.call(taken.lane, Call::DeregMr { region });
        }
        if taken.test {
            // What the pages hold now that their file is another; anybody may ask.
            if self.dice.chance(80) {
                self.call(CONDUCTOR, Call::PinLongtermTestRead);
            }
            if self.dice.chance(60) {
                self.call(CONDUCTOR, Call::PinLongtermTestStop);
            }
        }
    }

    /// Bytes go out of a region or into it, whatever its file and mapping are by now; to another one, made for that.
    fn use_region(&mut self, lane: Lane, region: RegionSlot) {
        let other = RegionSlot(1 - region.0 % crate::REGIONS_MAX);
        let maps = self.outline.space(lane).maps;
        let private = (0..).zip(maps).find(|(_, map)| {
            map.is_some_and(|map| {
                map.sharing == Sharing::Private && map.prot.has(Prot::READ.with(Prot::WRITE))
            })
        });
        if self.outline.space(lane).regions[usize::from(other.0)].is_none()
            && let Some((map, Some(mapping))) = private
        {
            let map = MapSlot(map);
            self.call(lane, Call::Store { map, offset: 0, len: mapping.len });
            let access = RegionAccess::Write;
            let len = mapping.len;
            self.call(lane, Call::RegMr { slot: other, map, offset: 0, len, access });
        }
        if self.outline.space(lane).regions.iter().all(Option::is_some) {
            let call = self.rdma(lane);
            self.call(lane, call);
            if let Some((map, Some(mapping))) = private {
                let len = mapping.len;
                self.call(lane, Call::Load { map: MapSlot(map), offset: 0, len });
            }
        }
    }

    /// A transfer through what a ring has registered by now, if that does not wait for a gate.
    fn use_buffer(&mut self, lane: Lane, ring: RingSlot) {
        let Some((buf, len)) = self.fixed_buf(lane, ring) else { return };
        let (gate, file) = self.device(lane);
        if !self.outline.held[usize::from(gate.0)] {
            let into = self.dice.chance(60);
            let call = self.gate_io(file, into, buf, len, true);
            self.push(Line {
                via: Some(Via { ring, flags: SqeFlags::FIXED }),
                ..Line::new(lane, call)
            });
        }
    }

    fn empty_pipe(&mut self, pipe: PipeSlot, lane: Lane) {
        let index = self.outline.space(lane).pipes[usize::from(pipe.0)];
        let Some(bytes) = index.map(|index| self.outline.pipes[index].bytes) else { return };
        if bytes == 0 {
            return;
        }
        match self.dice.below(10) {
            0..=5 => {
                self.call(lane, Call::ReadPipe { pipe, buf: Buf::Anon(0), len: bytes });
            }
            6 | 7 => {
                let inodes = self.outline.inodes.len();
                let inode = self.dice.below(inodes as u64) as usize;
                match self.file_of(lane, inode, true) {
                    Some(file) if self.outline.inodes[inode].gate.is_none() => {
                        let call = Call::SpliceFromPipe { pipe, file, offset: 0, len: bytes };
                        self.call(lane, call);
                    }
                    _ => self.call(lane, Call::ClosePipe { pipe }),
                }
            }
            _ => self.call(lane, Call::ClosePipe { pipe }),
        }
    }

    /// What is there to see: the mapping, the file, what the device got.
    pub(super) fn look(&mut self, victim: Victim, taken: &Taken) {
        let lane = CONDUCTOR;
        if let Some((map, len)) = self.map_of(lane, victim.inode, Sharing::Shared)
            && self.dice.chance(80)
        {
            self.call(lane, Call::Load { map, offset: 0, len: len.min(HELD_PAGES * PAGE) });
        }
        for inode in [victim.inode, victim.other] {
            if let Some(file) = self.file_of(lane, inode, false)
                && self.dice.chance(70)
            {
                let len = VICTIM_PAGES * PAGE;
                self.call(lane, Call::Pread { file, offset: 0, buf: Buf::Anon(0), len });
            }
        }
        let held = taken.gate.is_some_and(|gate| self.outline.held[usize::from(gate.0)]);
        if let Some(gate) = taken.gate.filter(|gate| gate.is_device() && !held) {
            let files = self.outline.space(lane).files;
            let open = (0..).zip(files).find(|(_, file)| {
                file.is_some_and(|file| self.outline.inodes[file.inode].gate == Some(gate))
            });
            if let Some((slot, _)) = open
                && self.dice.chance(50)
            {
                let (file, len) = (FileSlot(slot), HELD_PAGES * PAGE);
                self.call(lane, Call::Pread { file, offset: 0, buf: Buf::Anon(0), len });
            }
        }
    }
}
