//! Programs about leases: one is taken, by whom and in whatever state; something meets it; it is answered, or not; and it is looked at.
//!
//! Each pair of a state and a breaker is about as likely as any other.

use super::Writer;
use super::held::Victim;
use crate::{
    Access, Breaker, Buf, Call, FallocateMode, FileSlot, Lane, Lease, LeaseState, Line, Mount,
    Notice, OpenFlags, OwnerKind, PAGE, Path, THREADS_MAX,
};

const CONDUCTOR: Lane = Lane::Thread(0);

/// Who has the lease.
#[derive(Clone, Copy)]
struct Holder {
    lane: Lane,
    file: FileSlot,
    /// Whether the handler answers.
    answers: bool,
}

impl Writer<'_, '_> {
    /// Writes a whole program.
    pub(super) fn leased_program(&mut self) {
        self.shape.threads = THREADS_MAX;
        self.racing = self.dice.chance(45);
        let victim = self.lease_victim();
        for _ in 0..=self.dice.weighted(&[70, 25, 5]) {
            if self.lines.len() + 20 > crate::LINES_MAX {
                break;
            }
            self.lease_round(victim);
        }
        for _ in 0..self.dice.below(3) {
            let lane = self.any_lane();
            self.line(lane);
        }
        self.farewell();
    }

    /// A file with contents and nobody who has it open, and another one beside it.
    fn lease_victim(&mut self) -> Victim {
        let mount =
            if self.dice.chance(75) { self.shape.home } else { self.mount_among(&Mount::ALL) };
        let access = Access::ReadWrite;
        let mut inodes = [0; 2];
        for (name, inode) in inodes.iter_mut().enumerate() {
            let path = Path { mount, name: name as u8 };
            let slot = FileSlot(name as u8);
            let flags = OpenFlags::CREAT;
            self.call(CONDUCTOR, Call::Open { slot, path, access, flags });
            if name == 0 || self.dice.chance(60) {
                let len = self.dice.between(1, 4) * PAGE;
                let buf = Buf::Anon(0);
                self.call(CONDUCTOR, Call::Pwrite { file: slot, offset: 0, buf, len });
            }
            *inode = self.outline.lookup(path).unwrap_or(0);
        }
        Victim { path: Path { mount, name: 0 }, inode: inodes[0], other: inodes[1] }
    }

    fn lease_round(&mut self, victim: Victim) {
        let state = self.dice.pick(LeaseState::ALL);
        let breaker = if self.dice.chance(10) {
            self.dice.pick(&[Breaker::ExitHolder, Breaker::KillHolder])
        } else {
            self.dice.pick(Breaker::ALL)
        };
        let ends = matches!(breaker, Breaker::ExitHolder | Breaker::KillHolder);
        let returns = state == LeaseState::Elsewhere && breaker == Breaker::Fork;
        let Some(holder) = self.lease_in(state, victim, ends || returns) else { return };
        self.meet(breaker, victim, holder);
        for _ in 0..self.dice.weighted(&[50, 35, 15]) {
            let breaker = self.dice.pick(Breaker::ALL);
            let ends = matches!(breaker, Breaker::ExitHolder | Breaker::KillHolder);
            if !ends || matches!(holder.lane, Lane::Child(_)) {
                self.meet(breaker, victim, holder);
            }
        }
        let stuck: Vec<Lane> =
            (1..THREADS_MAX).map(Lane::Thread).filter(|l| self.outline.is_stuck(*l)).collect();
        if let Some(lane) = self.dice.pick_some(&stuck)
            && self.dice.chance(12)
        {
            self.call(CONDUCTOR, Call::Interrupt { lane });
        }
        if self.dice.chance(50) {
            self.call(CONDUCTOR, Call::Getlease { file: holder.file });
        }
        self.answer(victim, holder);
        if self.outline.waits_for_lease() && !(1..=2).contains(&self.outline.break_time) {
            // Nobody waits that long.
            self.unlock(victim);
        }
        for lane in (1..THREADS_MAX).map(Lane::Thread) {
            if self.lines.iter().any(|line| line.lane == lane) && self.dice.chance(85) {
                self.call(CONDUCTOR, Call::Wait { lane });
            }
        }
        if self.dice.chance(40) {
            let file = self.file_of(CONDUCTOR, victim.inode, false).unwrap_or(holder.file);
            self.call(CONDUCTOR, Call::Getlease { file });
        }
        if self.dice.chance(25)
            && let Some(file) = self.file_of(CONDUCTOR, victim.inode, false)
        {
            let lease = self.dice.pick(&[Lease::Read, Lease::Write]);
            self.call(CONDUCTOR, Call::Setlease { file, lease });
        }
        self.clear(victim);
    }

    /// Gives back every lease that somebody who does not wait has.
    fn unlock(&mut self, victim: Victim) {
        for lane in [CONDUCTOR, Lane::Child(0), Lane::Child(1)] {
            let files = self.outline.space(lane).files;
            let leased = |file: &crate::outline::OpenFile| {
                file.inode == victim.inode
                    && self.outline.descriptions[file.description].lease.is_some()
            };
            let leased: Vec<u8> = (0..)
                .zip(files)
                .filter(|(_, file)| file.as_ref().is_some_and(leased))
                .map(|(slot, _)| slot)
                .collect();
            for slot in leased {
                if !self.outline.is_stuck(lane) {
                    let (file, lease) = (FileSlot(slot), Lease::Unlock);
                    self.call(lane, Call::Setlease { file, lease });
                }
            }
        }
    }

    pub(super) fn notice(&mut self) -> Notice {
        self.dice.pick(&[Notice::Io, Notice::Rt1, Notice::Rt2, Notice::Default])
    }

    /// Closes what is in the way of a lease.
    fn clear(&mut self, victim: Victim) {
        for lane in [CONDUCTOR, Lane::Child(0), Lane::Child(1)] {
            if let Lane::Child(n) = lane
                && !self.outline.alive[usize::from(n)]
            {
                continue;
            }
            if self.outline.is_stuck(lane) {
                continue;
            }
            while let Some(file) = self.file_of(lane, victim.inode, false) {
                self.call(lane, Call::Close { file });
            }
        }
    }

    /// Brings a lease into that state.
    fn lease_in(&mut self, state: LeaseState, victim: Victim, by_child: bool) -> Option<Holder> {
        use LeaseState as S;
        let reads = match state {
            S::Read | S::TwoReaders | S::ReadBreaking => true,
            S::Write | S::WriteDowngrading | S::WriteBreaking => false,
            S::Elsewhere | S::Layout => self.dice.chance(40),
        };
        // Only the holder may have it open, or nobody who writes.
        self.clear(victim);
        let lane = if by_child || self.dice.chance(20) { self.child() } else { None };
        let lane = lane.unwrap_or(CONDUCTOR);
        let path = self.outline.name_of(victim.inode)?;
        let slot = self.free_file(lane);
        let access =
            if reads || self.dice.chance(20) { Access::ReadOnly } else { Access::ReadWrite };
        self.call(lane, Call::Open { slot, path, access, flags: OpenFlags(0) });
        let breaks = matches!(state, S::ReadBreaking | S::WriteDowngrading | S::WriteBreaking);
        let mut holder = Holder { lane, file: slot, answers: !breaks && self.dice.chance(40) };
        self.lease_terms(&mut holder, reads);
        let lease = match state {
            S::Layout => Lease::Layout,
            _ if reads => Lease::Read,
            _ => Lease::Write,
        };
        let owner_first = self.dice.chance(50);
        if owner_first {
            self.owner(holder);
        }
        self.call(lane, Call::Setlease { file: slot, lease });
        if !owner_first {
            self.owner(holder);
        }
        match state {
            S::TwoReaders => {
                let by = if self.dice.chance(30) { self.child() } else { None }.unwrap_or(lane);
                let second = self.free_file(by);
                let access = Access::ReadOnly;
                self.call(by, Call::Open { slot: second, path, access, flags: OpenFlags(0) });
                self.call(by, Call::Setlease { file: second, lease });
            }
            S::Layout if self.dice.chance(40) => {
                // One that is exclusive is refused to a second open file.
                let second = self.free_file(lane);
                let access = self.dice.pick(&[Access::ReadOnly, Access::ReadWrite]);
                self.call(lane, Call::Open { slot: second, path, access, flags: OpenFlags(0) });
                self.call(lane, Call::Setlease { file: second, lease });
            }
            S::ReadBreaking | S::WriteBreaking => self.start_break(path, true),
            S::WriteDowngrading => self.start_break(path, false),
            S::Elsewhere => holder = self.pass_on(holder)?,
            _ => {}
        }
        Some(holder)
    }

    /// How long a break may take, and what the handler does.
    fn lease_terms(&mut self, holder: &mut Holder, reads: bool) {
        // With 0 a break has no end, so somebody must answer; and whoever waits to read polls all the while.
        let seconds = match self.dice.below(10) {
            0..=4 => 1,
            5 | 6 if reads || holder.answers => 2,
            7 | 8 if reads || holder.answers => 0,
            9 if reads || holder.answers => 45,
            _ => 1,
        };
        self.call(CONDUCTOR, Call::LeaseBreakTime { seconds });
        if holder.answers {
            let answer = if reads || self.dice.chance(60) { Lease::Unlock } else { Lease::Read };
            self.call(holder.lane, Call::OnBreak { answer });
        }
    }

    /// Who is told, and how. Without a signal that names the descriptor the handler cannot answer.
    fn owner(&mut self, holder: Holder) {
        let (lane, file) = (holder.lane, holder.file);
        if holder.answers || self.dice.chance(70) {
            let notice = match self.notice() {
                Notice::Default if holder.answers => Notice::Rt1,
                notice => notice,
            };
            self.call(lane, Call::Setsig { file, notice });
        }
        if self.dice.chance(50) {
            let (_, kind) = self.dice.pick(OwnerKind::NAMES);
            let to = match holder.lane {
                Lane::Thread(_) => Lane::Thread(self.dice.below(4) as u8),
                child => child,
            };
            self.call(lane, Call::SetownEx { file, kind, lane: to });
        }
    }

    /// Begins a break that nobody answers for the time being.
    fn start_break(&mut self, path: Path, to_write: bool) {
        let Some(lane) = self.lease_breaker() else { return };
        let slot = self.free_file(lane);
        let access = if to_write { Access::ReadWrite } else { Access::ReadOnly };
        if self.dice.chance(50) {
            let flags = OpenFlags::NONBLOCK;
            return self.call(lane, Call::Open { slot, path, access, flags });
        }
        self.break_by(lane, Call::Open { slot, path, access, flags: OpenFlags(0) });
    }

    /// A thread that may wait: children would take the lease along.
    fn lease_breaker(&mut self) -> Option<Lane> {
        let free: Vec<Lane> =
            (1..THREADS_MAX).map(Lane::Thread).filter(|l| !self.outline.is_stuck(*l)).collect();
        self.dice.pick_some(&free)
    }

    /// Issues what may wait for a lease. Who waits for a downgrade, or without an end, polls and is never seen to stand still, so the next line
    /// does not wait for it.
    fn break_by(&mut self, lane: Lane, call: Call) {
        let met = match call {
            Call::Open { path, access, .. } => Some((path, access != Access::ReadOnly)),
            Call::Truncate { path, .. } => Some((path, true)),
            _ => None,
        };
        let polls = met.is_some_and(|(path, to_write)| {
            let inode = self.outline.lookup(path);
            inode.is_some_and(|inode| self.outline.conflicts(inode, to_write))
                && (!to_write || self.outline.break_time == 0)
        });
        if polls {
            self.push(Line { detached: true, ..Line::new(lane, call) });
        } else {
            self.may_wait(lane, call);
        }
    }

    /// The descriptor goes to another process, or only on its way.
    fn pass_on(&mut self, holder: Holder) -> Option<Holder> {
        let Holder { lane, file, answers } = holder;
        let fresh = (0..crate::CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)]);
        match (lane, fresh) {
            (Lane::Child(_), _) if self.dice.chance(50) => {
                self.call(lane, Call::SendFd { file });
                self.call(lane, Call::Close { file });
                let slot = self.free_file(CONDUCTOR);
                self.call(CONDUCTOR, Call::RecvFd { slot });
                Some(Holder { lane: CONDUCTOR, file: slot, answers })
            }
            (Lane::Thread(_), Some(child)) if self.dice.chance(60) => {
                self.call(CONDUCTOR, Call::Fork { child });
                self.call(lane, Call::Close { file });
                Some(Holder { lane: Lane::Child(child), file, answers })
            }
            _ => {
                self.call(lane, Call::SendFd { file });
                self.call(lane, Call::Close { file });
                if self.dice.chance(40)
                    && let Some(child) = self.child().filter(|child| *child != lane)
                {
                    let slot = self.free_file(child);
                    self.call(child, Call::RecvFd { slot });
                    return Some(Holder { lane: child, file: slot, answers });
                }
                Some(holder)
            }
        }
    }

    /// Lets something meet the lease.
    fn meet(&mut self, breaker: Breaker, victim: Victim, holder: Holder) {
        use Breaker as B;
        let Some(path) = self.outline.name_of(victim.inode) else { return };
        let Some(lane) = self.lease_breaker() else { return };
        let slot = self.free_file(lane);
        let open = |access, flags| Call::Open { slot, path, access, flags };
        let (read, write) = (Access::ReadOnly, Access::ReadWrite);
        let write = if self.dice.chance(20) { Access::WriteOnly } else { write };
        match breaker {
            B::OpenRead => self.break_by(lane, open(read, OpenFlags(0))),
            B::OpenWrite => self.break_by(lane, open(write, OpenFlags(0))),
            B::OpenReadTruncate => self.break_by(lane, open(read, OpenFlags::TRUNC)),
            B::OpenWriteTruncate => self.break_by(lane, open(write, OpenFlags::TRUNC)),
            B::OpenReadNonblock => self.call(lane, open(read, OpenFlags::NONBLOCK)),
            B::OpenWriteNonblock => self.call(lane, open(write, OpenFlags::NONBLOCK)),
            B::Truncate => {
                let len = self.dice.below(3) * PAGE;
                self.break_by(lane, Call::Truncate { path, len });
            }
            B::Rename => {
                let other = self.outline.name_of(victim.other);
                let to = other.unwrap_or(Path { mount: path.mount, name: 2 });
                let (from, to) = if self.dice.chance(50) { (path, to) } else { (to, path) };
                self.may_wait(lane, Call::Rename { from, to });
            }
            B::Unlink => self.may_wait(lane, Call::Unlink { path }),
            B::Link => {
                let to = Path { mount: path.mount, name: self.dice.between(2, 3) as u8 };
                self.may_wait(lane, Call::Link { from: path, to });
            }
            B::SetleaseRead | B::SetleaseWrite => {
                let lease = if breaker == B::SetleaseRead { Lease::Read } else { Lease::Write };
                let (by, file) = self.descriptor(victim, holder, false);
                self.call(by, Call::Setlease { file, lease });
            }
            B::Ftruncate | B::Write | B::Fallocate | B::CloneOver => {
                self.change_leased(breaker, victim, holder);
            }
            B::CloseHolder => {
                let Holder { lane, file, .. } = holder;
                if self.dice.chance(30) {
                    let slot = self.free_file(lane);
                    self.call(lane, Call::Dup { slot, file });
                }
                self.call(lane, Call::Close { file });
            }
            B::Fork => {
                let fresh =
                    (0..crate::CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)]);
                if let Some(child) = fresh {
                    self.call(CONDUCTOR, Call::Fork { child });
                }
            }
            B::ExitHolder if matches!(holder.lane, Lane::Child(_)) => {
                self.call(holder.lane, Call::Exit);
            }
            B::KillHolder if matches!(holder.lane, Lane::Child(_)) => {
                self.call(CONDUCTOR, Call::Kill { lane: holder.lane });
            }
            B::ExitHolder | B::KillHolder => {}
        }
    }

    /// A descriptor of the file and a lane that has it: another one than the holder's, if there is one.
    fn descriptor(&mut self, victim: Victim, holder: Holder, write: bool) -> (Lane, FileSlot) {
        for lane in [CONDUCTOR, Lane::Child(0), Lane::Child(1)] {
            if let Some(file) = self.file_of(lane, victim.inode, write)
                && (lane, file) != (holder.lane, holder.file)
                && !self.outline.is_stuck(lane)
            {
                return (lane, file);
            }
        }
        (holder.lane, holder.file)
    }

    /// Changes through a descriptor, which no lease is in the way of.
    fn change_leased(&mut self, breaker: Breaker, victim: Victim, holder: Holder) {
        let (lane, file) = self.descriptor(victim, holder, true);
        let offset = self.dice.below(3) * PAGE;
        let call = match breaker {
            Breaker::Ftruncate => Call::Ftruncate { file, len: offset },
            Breaker::Write => Call::Pwrite { file, offset, buf: Buf::Anon(0), len: PAGE },
            Breaker::Fallocate => {
                let (_, mode) = self.dice.pick(FallocateMode::NAMES);
                Call::Fallocate { file, mode, offset, len: PAGE }
            }
            _ => match self.file_of(lane, victim.other, false) {
                Some(src) if self.dice.chance(60) => Call::Ficlone { dst: file, src },
                Some(src) => Call::CopyFileRange {
                    src,
                    src_offset: 0,
                    dst: file,
                    dst_offset: offset,
                    len: PAGE,
                },
                None => Call::Ftruncate { file, len: offset },
            },
        };
        self.call(lane, call);
    }

    /// The break is answered, by whom and how ever, or never.
    fn answer(&mut self, victim: Victim, holder: Holder) {
        if !self.outline.waits_for_lease() && self.dice.chance(50) {
            return;
        }
        let Holder { lane, file, .. } = holder;
        let gone = matches!(lane, Lane::Child(n) if !self.outline.alive[usize::from(n)]);
        if gone || self.outline.is_stuck(lane) {
            return;
        }
        match self.dice.below(10) {
            0..=3 => self.call(lane, Call::Setlease { file, lease: Lease::Unlock }),
            4 | 5 => {
                self.call(lane, Call::Setlease { file, lease: Lease::Read });
                if self.outline.waits_for_lease() && self.dice.chance(60) {
                    self.call(lane, Call::Setlease { file, lease: Lease::Unlock });
                }
            }
            6 | 7 => self.call(lane, Call::Close { file }),
            8 if matches!(lane, Lane::Child(_)) => self.call(CONDUCTOR, Call::Kill { lane }),
            8 => {
                if let Some(file) = self.file_of(CONDUCTOR, victim.inode, false) {
                    self.call(CONDUCTOR, Call::Setlease { file, lease: Lease::Unlock });
                }
            }
            _ => {}
        }
    }
}
