//! Takes references to pages of a file, by each of the sources.

use super::{CONDUCTOR, Taken, Victim};
use crate::generate::Writer;
use crate::{
    Buf, Call, FileSlot, GATE_MEMORY, GATE_SIZE, GateSlot, Lane, Lease, Line, MapSlot, PAGE,
    PinSource, PipeSlot, RingSlot, Sharing, SqeFlags, Via,
};

/// Whether the source is one that only the threads have.
pub(super) fn needs_first_process(source: PinSource) -> bool {
    use PinSource as S;
    matches!(source, S::ProcessVmRead | S::ProcessVmWrite)
}

impl Writer<'_, '_> {
    /// Takes a reference to pages of the file.
    pub(super) fn take(&mut self, source: PinSource, victim: Victim, lane: Lane) -> Option<Taken> {
        use PinSource as S;
        let (gate, ring, region) = (None, None, None);
        let mut taken =
            Taken { lane, keeper: lane, gate, pipes: Vec::new(), ring, region, test: false };
        let private = matches!(
            source,
            S::RegisteredPrivate
                | S::FixedRead
                | S::FixedWrite
                | S::Replaced
                | S::Cloned
                | S::RegionPrivate
                | S::LongtermTestPrivate
        );
        let (map, map_len) = match private {
            true => self.private_map(victim, lane)?,
            false => self
                .map_of(lane, victim.inode, Sharing::Shared)
                .or_else(|| self.shared_map(victim, lane))?,
        };
        let (at, len) = self.part(map_len, GATE_MEMORY);
        match source {
            S::DirectRead | S::DirectWrite => {
                let file = self.direct_file(victim, lane);
                let offset = 0;
                let buf = Buf::Map(map, at);
                let call = match source {
                    S::DirectRead => Call::Pread { file, offset, buf, len },
                    _ => Call::Pwrite { file, offset, buf, len },
                };
                self.push(Line { detached: true, ..Line::new(lane, call) });
            }
            S::GateRead
            | S::GateWrite
            | S::AioRead
            | S::AioWrite
            | S::RingRead
            | S::RingWrite
            | S::FixedRead
            | S::FixedWrite
            | S::Replaced => {
                let (gate, file) = self.device(lane);
                let fixed = matches!(source, S::FixedRead | S::FixedWrite | S::Replaced);
                let via = (fixed || matches!(source, S::RingRead | S::RingWrite))
                    .then(|| Via { ring: self.ring(lane, fixed), flags: SqeFlags(0) });
                if let Some(via) = via.filter(|_| fixed) {
                    let buffers = Call::RegisterBuffers { ring: via.ring, map, offset: at, len };
                    self.call(lane, buffers);
                }
                if !self.outline.held[usize::from(gate.0)] {
                    self.call(CONDUCTOR, Call::Hold { gate });
                }
                taken.gate = Some(gate);
                let into = match source {
                    S::Replaced => self.dice.chance(50),
                    _ => matches!(source, S::GateRead | S::AioRead | S::RingRead | S::FixedRead),
                };
                let call = self.gate_io(file, into, Buf::Map(map, at), len, fixed);
                let via = via.map(|mut via| {
                    taken.ring = Some(via.ring);
                    via.flags = if fixed { SqeFlags::FIXED } else { SqeFlags(0) };
                    if self.dice.chance(20) {
                        via.flags = via.flags.with(SqeFlags::ASYNC);
                    }
                    via
                });
                let aio = matches!(source, S::AioRead | S::AioWrite);
                self.line_may_wait(Line { via, aio, ..Line::new(lane, call) });
                if let Some(ring) = taken.ring.filter(|_| source == S::Replaced) {
                    // The request may keep its own lane busy, and another process has not the ring.
                    let by = if let Lane::Child(_) = lane { lane } else { CONDUCTOR };
                    let (offset, len) = self.part(map_len, GATE_MEMORY);
                    self.call(by, Call::UpdateBuffers { ring, map, offset, len });
                }
            }
            S::Vmsplice | S::Tee | S::PipeElsewhere => {
                let pipe = self.pipe(lane, &[]);
                taken.pipes.push(pipe);
                if source == S::PipeElsewhere {
                    taken.keeper = self.pass_pipe(map, at, len, pipe, lane)?;
                    return Some(taken);
                }
                self.call(lane, Call::Vmsplice { map, offset: at, pipe, len });
                if source == S::Tee {
                    let second = self.pipe(lane, &[pipe]);
                    taken.pipes.push(second);
                    self.call(lane, Call::Tee { src: pipe, dst: second, len });
                    if self.dice.chance(50) {
                        self.call(lane, Call::ReadPipe { pipe, buf: Buf::Anon(0), len });
                    }
                }
            }
            S::Splice => {
                let pipe = self.pipe(lane, &[]);
                taken.pipes.push(pipe);
                let file = self.file_of(lane, victim.inode, false)?;
                self.call(lane, Call::SpliceToPipe { file, offset: at, pipe, len });
            }
            S::ProcessVmRead | S::ProcessVmWrite => {
                let gate = GateSlot::MEMORY;
                if !self.outline.held[usize::from(gate.0)] {
                    self.call(CONDUCTOR, Call::Hold { gate });
                }
                taken.gate = Some(gate);
                let call = match source {
                    S::ProcessVmRead => Call::ProcessVmReadv { map, offset: at, gate, len },
                    _ => Call::ProcessVmWritev { map, offset: at, gate, len },
                };
                self.may_wait(lane, call);
            }
            S::ProcMemRead | S::ProcMemWrite => {
                let call = match source {
                    S::ProcMemRead => Call::ProcMemPread { map, offset: at, len },
                    _ => Call::ProcMemPwrite { map, offset: at, len },
                };
                self.push(Line { detached: true, ..Line::new(lane, call) });
            }
            S::Cloned => {
                let ring = self.ring(lane, true);
                self.call(lane, Call::RegisterBuffers { ring, map, offset: at, len });
                let second = match self.ring(lane, true) {
                    // No slot is free.
                    same if same == ring => RingSlot(1 - ring.0),
                    other => other,
                };
                self.may_wait(lane, Call::CloneBuffers { ring: second, src: ring });
                match self.dice.below(3) {
                    0 => self.call(lane, Call::UnregisterBuffers { ring }),
                    1 => self.call(lane, Call::CloseRing { ring }),
                    _ => {}
                }
                taken.ring = Some(second);
            }
            S::Registered | S::RegisteredPrivate => {
                let mut leased = None;
                if source == S::Registered && self.dice.chance(40) {
                    // What the proposals ask for first.
                    leased = self.file_of(lane, victim.inode, false);
                    if let Some(file) = leased {
                        self.call(lane, Call::Setlease { file, lease: Lease::Layout });
                    }
                }
                let ring = self.ring(lane, true);
                taken.ring = Some(ring);
                self.call(lane, Call::RegisterBuffers { ring, map, offset: at, len });
                if let Some(file) = leased
                    && self.dice.chance(30)
                {
                    // And what they must not let go of before the pins.
                    match self.dice.below(3) {
                        0 => self.call(lane, Call::Close { file }),
                        _ => self.may_wait(lane, Call::Setlease { file, lease: Lease::Unlock }),
                    }
                }
            }
            S::Region | S::RegionPrivate => {
                let (slot, access) = (self.new_region(lane), self.region_access());
                taken.region = Some(slot);
                self.call(lane, Call::RegMr { slot, map, offset: at, len, access });
            }
            S::LongtermTest | S::LongtermTestPrivate => {
                if self.outline.tested {
                    self.call(CONDUCTOR, Call::PinLongtermTestStop);
                }
                taken.test = true;
                let (buf, flags) = (Buf::Map(map, at / PAGE * PAGE), self.pin_flags());
                let len = len.next_multiple_of(PAGE).min(map_len - at / PAGE * PAGE);
                self.call(lane, Call::PinLongtermTestStart { buf, len, flags });
            }
        }
        Some(taken)
    }

    /// Puts references into a pipe of which only another process keeps ends: which lane that is.
    fn pass_pipe(
        &mut self,
        map: MapSlot,
        offset: u64,
        len: u64,
        pipe: PipeSlot,
        lane: Lane,
    ) -> Option<Lane> {
        self.call(lane, Call::Vmsplice { map, offset, pipe, len });
        let keeper = match lane {
            Lane::Child(_) => CONDUCTOR,
            Lane::Thread(_) => {
                let fresh =
                    (0..crate::CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)])?;
                self.call(CONDUCTOR, Call::Fork { child: fresh });
                Lane::Child(fresh)
            }
        };
        self.call(lane, Call::ClosePipe { pipe });
        Some(keeper)
    }

    pub(super) fn gate_io(
        &mut self,
        file: FileSlot,
        into: bool,
        buf: Buf,
        len: u64,
        fixed: bool,
    ) -> Call {
        let room = GATE_SIZE - len;
        let offset = self.dice.pick(&[0, 0, 4096, 8192, 65536]).min(room) / 512 * 512;
        if !fixed && self.dice.chance(20) {
            let iov = vec![(buf, len / 1024 * 512), (Buf::Anon(0), PAGE)];
            let iov = if len >= 1024 { iov } else { vec![(buf, len)] };
            return if into {
                Call::Preadv { file, offset, iov }
            } else {
                Call::Pwritev { file, offset, iov }
            };
        }
        if into {
            Call::Pread { file, offset, buf, len }
        } else {
            Call::Pwrite { file, offset, buf, len }
        }
    }
}
