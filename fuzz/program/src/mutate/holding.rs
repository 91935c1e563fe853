//! Steps on what holds pages and leases: when it begins and ends, by which means, and what meets it.

use crate::generate::Dice;
use crate::{
    Access, Advice, Buf, Call, FallocateMode, GATE_MEMORY, GateSlot, Lease, Line, OpenFlags,
    Program, Settle,
};

impl Program {
    /// One step on a line that holds, lets go, or changes what is held. Without such a line, one of another kind.
    pub(super) fn move_holding(&mut self, dice: &mut Dice<'_, '_>) {
        let kind = dice.below(4);
        let suits = |line: &Line| match kind {
            0 => ends(&line.call),
            1 => begins(&line.call),
            2 => changes(&line.call),
            _ => takes(&line.call),
        };
        let fit: Vec<usize> =
            (0..self.lines.len()).filter(|index| suits(&self.lines[*index])).collect();
        let Some(at) = dice.pick_some(&fit) else { return self.add_hold(dice) };
        match kind {
            // The reference, the gate or the lease begins or ends at another time.
            0 | 1 => {
                let line = self.lines.remove(at);
                let near = [at.saturating_sub(1), at + 1, at.saturating_sub(3), at + 3];
                let anywhere = dice.below(self.lines.len() as u64 + 1) as usize;
                let to = if dice.chance(70) { dice.pick(&near) } else { anywhere };
                self.lines.insert(to.min(self.lines.len()), line);
            }
            2 => swap_change(&mut self.lines[at].call, dice),
            _ => self.swap_source(at, dice),
        }
    }

    /// A gate is held before a line and released after another one.
    fn add_hold(&mut self, dice: &mut Dice<'_, '_>) {
        if self.lines.len() + 2 > crate::LINES_MAX {
            return;
        }
        let gate = dice.pick(&[GateSlot::MEMORY, GateSlot::DM, GateSlot::UBLK]);
        let from = dice.below(self.lines.len() as u64 + 1) as usize;
        let until = dice.between(from as u64, self.lines.len() as u64) as usize;
        let lane = crate::Lane::Thread(0);
        let release = Call::Release { gate, settle: Settle::Complete };
        self.lines.insert(until, Line::new(lane, release));
        self.lines.insert(from, Line::new(lane, Call::Hold { gate }));
    }

    /// The same pages by another means. What the means needs beside, such as a pipe, is for other steps to add.
    fn swap_source(&mut self, at: usize, dice: &mut Dice<'_, '_>) {
        let line = &self.lines[at];
        let Some((map, offset, len)) = place(&line.call) else { return };
        let find = |pick: fn(&Call) -> Option<u8>| {
            self.lines[..at].iter().rev().find_map(|line| pick(&line.call))
        };
        let pipe = find(|call| match call {
            Call::Pipe { slot } => Some(slot.0),
            _ => None,
        });
        let ring = find(|call| match call {
            Call::IoUringSetup { slot, .. } => Some(slot.0),
            _ => None,
        });
        let device = find(|call| match call {
            Call::OpenGate { slot, .. } => Some(slot.0),
            _ => None,
        });
        let gate = GateSlot::MEMORY;
        let short = len.min(GATE_MEMORY);
        let mut choices = vec![
            Call::ProcessVmReadv { map, offset, gate, len: short },
            Call::ProcessVmWritev { map, offset, gate, len: short },
            Call::RegMr {
                slot: crate::RegionSlot(0),
                map,
                offset,
                len,
                access: crate::RegionAccess::Read,
            },
            Call::PinLongtermTestStart {
                buf: Buf::Map(map, offset),
                len,
                flags: crate::PinFlags::FAST,
            },
            Call::PinBasicTest { map, offset, len, flags: crate::PinFlags::WRITE },
        ];
        if let Some(pipe) = pipe {
            choices.push(Call::Vmsplice { map, offset, pipe: crate::PipeSlot(pipe), len });
        }
        if let Some(ring) = ring {
            let ring = crate::RingSlot(ring);
            choices.push(Call::RegisterBuffers { ring, map, offset, len });
            choices.push(Call::UpdateBuffers { ring, map, offset, len });
        }
        if let Some(file) = device.map(crate::FileSlot) {
            let buf = Buf::Map(map, offset);
            choices.push(Call::Pread { file, offset: 0, buf, len });
            choices.push(Call::Pwrite { file, offset: 0, buf, len });
        }
        let index = dice.below(choices.len() as u64) as usize;
        self.lines[at].call = choices.swap_remove(index);
        if let Call::RegMr { slot, access, .. } = &mut self.lines[at].call {
            slot.0 = dice.below(u64::from(crate::REGIONS_MAX)) as u8;
            *access = dice.pick(crate::RegionAccess::NAMES).1;
        }
        if !self.lines[at].call.kind().has_ring_form() {
            self.lines[at].via = None;
        }
    }
}

/// Whether the call begins to hold something.
fn begins(call: &Call) -> bool {
    takes(call)
        || matches!(call, Call::Hold { .. } | Call::Setlease { .. } | Call::CloneBuffers { .. })
}

/// Whether the call takes references to pages of a mapping.
fn takes(call: &Call) -> bool {
    matches!(
        call,
        Call::Vmsplice { .. }
            | Call::ProcessVmReadv { .. }
            | Call::ProcessVmWritev { .. }
            | Call::RegisterBuffers { .. }
            | Call::RegMr { .. }
            | Call::UpdateBuffers { .. }
            | Call::PinLongtermTestStart { buf: Buf::Map(..), .. }
            | Call::PinBasicTest { .. }
            | Call::Pread { buf: Buf::Map(..), .. }
            | Call::Pwrite { buf: Buf::Map(..), .. }
    )
}

/// Whether the call may end what is held.
fn ends(call: &Call) -> bool {
    matches!(
        call,
        Call::Release { .. }
            | Call::ReadPipe { .. }
            | Call::ClosePipe { .. }
            | Call::UpdateBuffers { .. }
            | Call::UnregisterBuffers { .. }
            | Call::DeregMr { .. }
            | Call::PinLongtermTestStop
            | Call::CloseRing { .. }
            | Call::Kill { .. }
            | Call::Exit
            | Call::Close { .. }
            | Call::Setlease { lease: Lease::Unlock, .. }
    )
}

/// Whether the call changes what pages a file has, or breaks leases.
fn changes(call: &Call) -> bool {
    matches!(
        call,
        Call::Truncate { .. }
            | Call::Ftruncate { .. }
            | Call::Fallocate { .. }
            | Call::Open { .. }
            | Call::Ficlone { .. }
            | Call::Ficlonerange { .. }
            | Call::Fideduperange { .. }
            | Call::Madvise { advice: Advice::Remove, .. }
    )
}

/// What pages of a mapping the call refers to.
fn place(call: &Call) -> Option<(crate::MapSlot, u64, u64)> {
    match *call {
        Call::Vmsplice { map, offset, len, .. }
        | Call::ProcessVmReadv { map, offset, len, .. }
        | Call::ProcessVmWritev { map, offset, len, .. }
        | Call::RegisterBuffers { map, offset, len, .. }
        | Call::RegMr { map, offset, len, .. }
        | Call::UpdateBuffers { map, offset, len, .. }
        | Call::PinBasicTest { map, offset, len, .. }
        | Call::PinLongtermTestStart { buf: Buf::Map(map, offset), len, .. }
        | Call::Pread { buf: Buf::Map(map, offset), len, .. }
        | Call::Pwrite { buf: Buf::Map(map, offset), len, .. } => Some((map, offset, len)),
        _ => None,
    }
}

/// Another change of the same file, or another way to break its lease.
fn swap_change(call: &mut Call, dice: &mut Dice<'_, '_>) {
    let any_mode = dice.pick(FallocateMode::NAMES).1;
    *call = match call.clone() {
        Call::Ftruncate { file, len } if dice.chance(70) => {
            let len = if len == 0 { crate::PAGE } else { len };
            Call::Fallocate { file, mode: any_mode, offset: 0, len }
        }
        Call::Ftruncate { file, .. } => Call::Ftruncate { file, len: 0 },
        Call::Fallocate { file, offset, len, .. } if dice.chance(70) => {
            Call::Fallocate { file, mode: any_mode, offset, len }
        }
        Call::Fallocate { file, offset, .. } => Call::Ftruncate { file, len: offset },
        Call::Truncate { path, .. } => Call::Open {
            slot: crate::FileSlot(dice.below(u64::from(crate::FILES_MAX)) as u8),
            path,
            access: dice.pick(Access::NAMES).1,
            flags: dice.pick(&[OpenFlags(0), OpenFlags::TRUNC, OpenFlags::NONBLOCK]),
        },
        Call::Open { path, .. } if dice.chance(30) => Call::Truncate { path, len: 0 },
        Call::Open { slot, path, access, flags } => {
            let flag = dice.pick(&[OpenFlags::TRUNC, OpenFlags::NONBLOCK]);
            Call::Open { slot, path, access, flags: OpenFlags(flags.0 ^ flag.0) }
        }
        Call::Ficlone { dst, src } => Call::Ficlone { dst: src, src: dst },
        Call::Ficlonerange { dst, dst_offset, src, src_offset, len } => {
            Call::Fideduperange { src, src_offset, len, dst, dst_offset }
        }
        Call::Fideduperange { src, src_offset, len, dst, dst_offset } => {
            Call::Ficlonerange { dst, dst_offset, src, src_offset, len }
        }
        Call::Madvise { map, offset, len, .. } => {
            let advice = dice.pick(&[Advice::DontNeed, Advice::PageOut, Advice::Remove]);
            Call::Madvise { map, offset, len, advice }
        }
        other => other,
    };
}
