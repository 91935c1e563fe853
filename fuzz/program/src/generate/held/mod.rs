//! Programs that hold pages on purpose: a file with contents and a mapping, a reference to its pages by one of the sources, changes of the
//! file meanwhile, the end of the reference, and a look at what became of it all.
//!
//! Each pair of a source and a change is about as likely as any other; which of them wait is the kernel's matter.

mod beside;
mod change;
mod end;
mod slots;
mod take;

use super::Writer;
use crate::{
    Access, Buf, Call, FallocateMode, FileSlot, GateSlot, Lane, LayoutChange, Line, MapSlot, Mount,
    OpenFlags, PAGE, Path, PinSource, PipeSlot, Prot, RegionSlot, RingSlot, Sharing, THREADS_MAX,
    Via,
};

use take::needs_first_process;

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
    /// By gup_test.
    test: bool,
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
            7 => self.mount_among(&[Mount::Ext4Dax, Mount::XfsDax]),
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

    /// A reference is taken, the file is changed, the reference goes, and all is looked at.
    fn held_round(&mut self, victim: Victim) {
        let source = self.dice.pick(self.shape.vocabulary.sources);
        let ends = [LayoutChange::HolderExit, LayoutChange::HolderKill];
        let change = if self.dice.chance(9) {
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
}
