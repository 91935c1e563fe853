//! Programs that hold pages on purpose: a file with contents and a mapping, a reference to its pages by one of the sources, changes of the
//! file meanwhile, the end of the reference, and a look at what became of it all.
//!
//! Each pair of a source and a change is about as likely as any other; which of them wait is the kernel's matter.

use super::Writer;
use crate::outline::OpenFile;
use crate::{
    Access, Advice, Buf, Call, FILE_MAX, FallocateMode, FileSlot, GATE_MEMORY, GATE_SIZE, GateSlot,
    Lane, LayoutChange, Lease, Line, MapFlags, MapSlot, Mount, MsyncFlags, OpenFlags, PAGE, Path,
    PinSource, PipeSlot, Prot, RegionSlot, RingSlot, Settle, Sharing, SqeFlags, THREADS_MAX, Via,
};

/// The lane that gives the others their work, releases gates and looks: it never makes a call that may wait.
const CONDUCTOR: Lane = Lane::Thread(0);
/// Lanes that wait because of what they were told to do; the conductor is not one of them.
const WORKERS: [Lane; 3] = [Lane::Thread(1), Lane::Thread(2), Lane::Thread(3)];
/// Pages of the file whose pages are held, at most. Few, so that changes and references meet.
const VICTIM_PAGES: u64 = 16;
/// Most pages that one reference takes.
const HELD_PAGES: u64 = 8;

/// The file that a program is about.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub path: Path,
    pub inode: usize,
    /// A file on the same mount, with a name of its own.
    pub other: usize,
}

/// A reference that was taken.
struct Taken {
    /// Who took it.
    lane: Lane,
    /// Who has the pipes.
    keeper: Lane,
    gate: Option<GateSlot>,
    pipes: Vec<PipeSlot>,
    ring: Option<RingSlot>,
    region: Option<RegionSlot>,
}

impl Writer<'_, '_> {
    /// Writes a whole program.
    pub(super) fn held_program(&mut self, with_leases: bool) {
        self.shape.threads = THREADS_MAX;
        // Exact: each line is issued when the one before has returned or stands still.
        self.racing = self.dice.chance(45);
        let victim = self.victim();
        if with_leases {
            self.lease_beside(victim);
        }
        for _ in 0..=self.dice.weighted(&[50, 38, 12]) {
            if self.lines.len() + 24 > crate::LINES_MAX {
                break;
            }
            self.held_round(victim);
        }
        for _ in 0..self.dice.below(5) {
            let lane = self.any_lane();
            self.line(lane);
        }
        self.farewell();
    }

    /// Opens the file, gives it contents, maps it, and opens another one beside it.
    pub(super) fn victim(&mut self) -> Victim {
        let home = self.shape.home;
        let mount = match self.dice.below(10) {
            0..=6 => home,
            7 => self.dice.pick(&[Mount::Ext4Dax, Mount::XfsDax]),
            _ => self.dice.pick(&self.shape.mounts),
        };
        let path = Path { mount, name: 0 };
        let mut flags = OpenFlags::CREAT;
        if self.dice.chance(15) {
            flags = flags.with(OpenFlags::DIRECT);
        }
        let pages = self.dice.between(2, VICTIM_PAGES);
        self.call(
            CONDUCTOR,
            Call::Open { slot: FileSlot(0), path, access: Access::ReadWrite, flags },
        );
        let len = pages * PAGE - if self.dice.chance(10) { 512 } else { 0 };
        let fill = match self.dice.below(10) {
            0 => {
                Call::Fallocate { file: FileSlot(0), mode: FallocateMode::Allocate, offset: 0, len }
            }
            1 => Call::Ftruncate { file: FileSlot(0), len },
            _ => Call::Pwrite { file: FileSlot(0), offset: 0, buf: Buf::Anon(0), len },
        };
        self.call(CONDUCTOR, fill);
        let both = Prot::READ.with(Prot::WRITE);
        let prot = if self.dice.chance(6) { Prot::READ } else { both };
        let sharing = if self.dice.chance(8) { Sharing::Private } else { Sharing::Shared };
        let map_flags = self.map_flags(mount.is_dax());
        self.call(
            CONDUCTOR,
            Call::Mmap {
                slot: MapSlot(0),
                file: FileSlot(0),
                offset: 0,
                len: pages * PAGE,
                prot,
                sharing,
                flags: map_flags,
            },
        );
        let beside = Path { mount, name: 1 };
        self.call(
            CONDUCTOR,
            Call::Open {
                slot: FileSlot(1),
                path: beside,
                access: Access::ReadWrite,
                flags: OpenFlags::CREAT,
            },
        );
        if self.dice.chance(75) {
            let len = self.dice.between(1, pages) * PAGE;
            self.call(
                CONDUCTOR,
                Call::Pwrite { file: FileSlot(1), offset: 0, buf: Buf::Anon(0), len },
            );
        }
        let inode = self.outline.lookup(path).unwrap_or(0);
        Victim { path, inode, other: self.outline.lookup(beside).unwrap_or(inode) }
    }

    /// A lease on the file beside the references to its pages: what calls then wait for has two answers.
    fn lease_beside(&mut self, victim: Victim) {
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

    /// A reference is taken, the file is changed, the reference goes, and all is looked at.
    fn held_round(&mut self, victim: Victim) {
        let source = self.dice.pick(PinSource::ALL);
        let ends = [LayoutChange::HolderExit, LayoutChange::HolderKill];
        let change = if self.dice.chance(5) {
            self.dice.pick(&ends)
        } else {
            self.dice.pick(LayoutChange::ALL)
        };
        // Children have no memory gate.
        let of_threads = needs_first_process(source);
        let change =
            if of_threads && ends.contains(&change) { LayoutChange::FtruncateDown } else { change };
        let holder_ends = ends.contains(&change);
        if holder_ends && source == PinSource::PipeElsewhere {
            // Before the fork, so that both have it.
            self.pipe(CONDUCTOR, &[]);
        }
        let lane = if holder_ends { self.child() } else { None };
        let lane = match lane {
            Some(child) => child,
            None if of_threads => self.worker_among(&WORKERS, CONDUCTOR).unwrap_or(CONDUCTOR),
            None => self.worker().unwrap_or(CONDUCTOR),
        };
        let racing = self.racing;
        // Who waits for its own request does not exit meanwhile.
        self.racing |= change == LayoutChange::HolderExit;
        let taken = self.take(source, victim, lane);
        self.racing = racing;
        let Some(taken) = taken else { return };
        if self.dice.chance(20) {
            self.bystander(victim);
        }
        let mut issued = Vec::new();
        for index in 0..=self.dice.weighted(&[20, 40, 40]) {
            let change = if index == 0 { change } else { self.dice.pick(LayoutChange::ALL) };
            let by = match change {
                LayoutChange::HolderExit => Some(taken.lane),
                LayoutChange::HolderKill | LayoutChange::Fork => Some(CONDUCTOR),
                // Not the holder: what it has in flight would be over by then.
                _ => self.worker_but(taken.lane),
            };
            let Some(by) = by else { break };
            self.change(change, victim, by, taken.lane);
            issued.push(by);
            if self.dice.chance(25) {
                self.allocate_elsewhere(victim);
            }
            if self.dice.chance(15) {
                self.bystander(victim);
            }
        }
        if self.dice.chance(10)
            && let Some(lane) = issued.iter().find(|lane| self.outline.is_stuck(**lane))
            && let Lane::Thread(_) = lane
        {
            self.call(CONDUCTOR, Call::Interrupt { lane: *lane });
        }
        self.let_go(&taken);
        let child = Some(taken.lane).filter(|lane| matches!(lane, Lane::Child(_)));
        for lane in WORKERS.into_iter().chain(child) {
            let used = self.lines.iter().any(|line| line.lane == lane);
            if used && self.dice.chance(85) {
                self.call(CONDUCTOR, Call::Wait { lane });
            }
        }
        self.look(victim, &taken);
    }

    /// A lane that is free to wait.
    pub(super) fn worker(&mut self) -> Option<Lane> {
        self.worker_but(CONDUCTOR)
    }

    fn worker_but(&mut self, but: Lane) -> Option<Lane> {
        let children = (0..crate::CHILDREN_MAX)
            .filter(|n| self.outline.alive[usize::from(*n)])
            .map(Lane::Child);
        let lanes: Vec<Lane> = WORKERS.into_iter().chain(children).collect();
        self.worker_among(&lanes, but)
    }

    fn worker_among(&mut self, lanes: &[Lane], but: Lane) -> Option<Lane> {
        let free = lanes.iter().copied();
        let free: Vec<Lane> =
            free.filter(|lane| *lane != but && !self.outline.is_stuck(*lane)).collect();
        self.dice.pick_some(&free)
    }

    /// A living child, forked for this if need be.
    pub(super) fn child(&mut self) -> Option<Lane> {
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

    /// Writes a line that may wait: on its own in an exact program, beside the next ones in one that races.
    pub(super) fn may_wait(&mut self, lane: Lane, call: Call) {
        self.may_wait_in(lane, call, None);
    }

    fn may_wait_in(&mut self, lane: Lane, call: Call, via: Option<Via>) {
        self.line_may_wait(Line { via, ..Line::new(lane, call) });
    }

    /// As `may_wait_in`, for a line that is made already.
    fn line_may_wait(&mut self, line: Line) {
        let detached = self.racing && self.dice.chance(80) && line.call.kind().can_detach();
        let delay_us =
            if detached && self.dice.chance(25) { self.dice.pick(&[1, 20, 100, 500]) } else { 0 };
        self.push(Line { detached, delay_us, ..line });
    }

    /// A slot of that lane's process in which the file is open.
    pub(super) fn file_of(&mut self, lane: Lane, inode: usize, write: bool) -> Option<FileSlot> {
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
    fn map_of(&mut self, lane: Lane, inode: usize, sharing: Sharing) -> Option<(MapSlot, u64)> {
        let maps = self.outline.space(lane).maps;
        let fit: Vec<(u8, u64)> = (0..)
            .zip(maps)
            .filter_map(|(n, map)| Some((n, map?)))
            .filter(|(_, map)| map.inode == inode && map.sharing == sharing)
            .map(|(n, map)| (n, map.len))
            .collect();
        self.dice.pick_some(&fit).map(|(n, len)| (MapSlot(n), len))
    }

    pub(super) fn free_file(&self, lane: Lane) -> FileSlot {
        let files = self.outline.space(lane).files;
        FileSlot(files.iter().position(Option::is_none).unwrap_or(7) as u8)
    }

    fn free_map(&self, lane: Lane) -> MapSlot {
        let maps = self.outline.space(lane).maps;
        MapSlot(maps.iter().position(Option::is_none).unwrap_or(7) as u8)
    }

    /// A part of a mapping: whole pages mostly, whole sectors always.
    fn part(&mut self, len: u64, most: u64) -> (u64, u64) {
        let pages = (len / PAGE).max(1);
        let first = if self.dice.chance(40) { self.dice.below(pages) } else { 0 };
        let count = self.dice.between(1, HELD_PAGES).min(pages - first);
        let (mut offset, mut part) = (first * PAGE, count * PAGE);
        if self.dice.chance(15) {
            offset += 512;
            part -= 512 * self.dice.between(1, 7);
        }
        (offset, part.min(most))
    }

    /// A device gate that the lane's process has open, opened for this if need be.
    fn device(&mut self, lane: Lane) -> (GateSlot, FileSlot) {
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
    fn ring(&mut self, lane: Lane, fresh: bool) -> RingSlot {
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

    fn pipe(&mut self, lane: Lane, busy: &[PipeSlot]) -> PipeSlot {
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

    /// Takes a reference to pages of the file.
    fn take(&mut self, source: PinSource, victim: Victim, lane: Lane) -> Option<Taken> {
        use PinSource as S;
        let (gate, ring, region) = (None, None, None);
        let mut taken = Taken { lane, keeper: lane, gate, pipes: Vec::new(), ring, region };
        let private = matches!(
            source,
            S::RegisteredPrivate
                | S::FixedRead
                | S::FixedWrite
                | S::Replaced
                | S::Cloned
                | S::RegionPrivate
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

    fn gate_io(&mut self, file: FileSlot, into: bool, buf: Buf, len: u64, fixed: bool) -> Call {
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

    /// A private mapping of the file whose pages are its own already.
    fn private_map(&mut self, victim: Victim, lane: Lane) -> Option<(MapSlot, u64)> {
        let (map, len) = match self.map_of(lane, victim.inode, Sharing::Private) {
            Some(found) => found,
            None => self.map_again(victim, lane, Sharing::Private)?,
        };
        if !self.dice.chance(10) {
            self.call(lane, Call::Store { map, offset: 0, len });
        }
        Some((map, len))
    }

    fn shared_map(&mut self, victim: Victim, lane: Lane) -> Option<(MapSlot, u64)> {
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
    fn direct_file(&mut self, victim: Victim, lane: Lane) -> FileSlot {
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
        let mount = self.dice.pick(&[Mount::Ext4, Mount::Xfs]);
        let slot = self.free_file(lane);
        let path = Path { mount, name: 2 };
        let flags = OpenFlags::CREAT.with(OpenFlags::DIRECT);
        self.call(lane, Call::Open { slot, path, access: Access::ReadWrite, flags });
        let len = HELD_PAGES * PAGE;
        self.call(lane, Call::Pwrite { file: slot, offset: 0, buf: Buf::Anon(0), len });
        slot
    }

    /// Ends the reference: in most programs, and by the way that its source has.
    fn let_go(&mut self, taken: &Taken) {
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
            && self.dice.chance(60)
        {
            self.call(taken.lane, Call::DeregMr { region });
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
    fn look(&mut self, victim: Victim, taken: &Taken) {
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

    /// Somebody else takes blocks of the same mount, perhaps those that were just freed.
    pub(super) fn allocate_elsewhere(&mut self, victim: Victim) {
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
    fn bystander(&mut self, victim: Victim) {
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

/// Whether the source is one that only the threads have.
fn needs_first_process(source: PinSource) -> bool {
    use PinSource as S;
    matches!(source, S::ProcessVmRead | S::ProcessVmWrite)
}

/// The changes.
impl Writer<'_, '_> {
    /// Makes the change of the file, by that lane.
    fn change(&mut self, change: LayoutChange, victim: Victim, lane: Lane, holder: Lane) {
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
