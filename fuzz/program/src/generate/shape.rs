//! What a program draws once, before its first call: which calls it favours, on how many lanes it runs, where in its files it
//! likes to be.
//!
//! This is swarm testing: many programs, each with most of its attention in a few places, find what uniform ones do not.

use super::dice::Dice;
use crate::{
    Always, Buf, CHILDREN_MAX, Call, CallKind, FILE_MAX, Lane, Mount, PAGE, Program, THREADS_MAX,
    Vocabulary,
};

/// In how many of 100 calls that have a ring form it is taken, where programs are about rings.
const RING_PERCENT: u64 = 90;
/// Size of a huge page, where the mappings of DAX files change from base pages.
const HUGE_PAGE: u64 = 2 << 20;

/// The draws of one program.
pub(crate) struct Shape {
    pub vocabulary: Vocabulary,
    pub story: Story,
    pub home: Mount,
    /// Home, and at most one other mount.
    pub mounts: Vec<Mount>,
    /// How many names of each mount are used.
    pub names: u64,
    /// The threads in use: only `t0` in a sequential program.
    pub threads: u8,
    /// Whether a child may be forked.
    pub forks: bool,
    /// In how many of 100 calls that have a ring form it is taken.
    pub ring_percent: u64,
    /// What offsets and lengths are multiples of; 1 is "odd".
    pub align: u64,
    /// Offsets at which the calls of the program meet.
    pub hot: Vec<u64>,
    /// Largest usual offset in a file.
    pub extent: u64,
    /// Weight of each kind, indexed as [`CallKind::ALL`].
    pub weights: Vec<u32>,
}

/// What a program is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Any calls.
    Plain,
    /// Pages that are held while their file changes.
    Held,
    /// Leases, and what breaks them.
    Leased,
    /// Pages that are held in a file with a lease.
    Both,
}

/// Whether the kind belongs to holding and leasing.
pub(crate) fn is_pin(kind: CallKind) -> bool {
    kind >= CallKind::OpenGate
}

/// How much each kind is worth before the swarm draw. Kinds that only the structure of a program places weigh nothing.
fn base_weight(kind: CallKind) -> u32 {
    use CallKind as K;
    match kind {
        K::Pread | K::Pwrite => 12,
        K::Load | K::Store => 16,
        K::Fallocate => 10,
        K::Mmap | K::Ftruncate => 5,
        K::Preadv | K::Pwritev | K::Readv | K::Writev | K::Madvise | K::CopyFileRange => 4,
        K::SpliceToPipe | K::SpliceFromPipe | K::Ficlonerange | K::Msync | K::Fsync => 4,
        K::Open | K::Truncate | K::Fdatasync => 3,
        K::Ficlone | K::Fideduperange | K::Sendfile | K::SyncFileRange => 3,
        K::Munmap
        | K::Mremap
        | K::Mprotect
        | K::Unlink
        | K::Rename
        | K::Link
        | K::Lseek
        | K::DropCaches
        | K::Close
        | K::Dup => 2,
        K::Syncfs | K::Statx | K::Fiemap => 1,
        K::Pipe | K::Fork | K::Exit | K::IoUringSetup | K::Wait => 0,
        // Here and there, wherever there is what they need; programs of their own are about them.
        K::OpenGate
        | K::Hold
        | K::Vmsplice
        | K::Tee
        | K::ReadPipe
        | K::ClosePipe
        | K::ProcessVmReadv
        | K::ProcessVmWritev
        | K::ProcMemPread
        | K::ProcMemPwrite
        | K::RegisterBuffers
        | K::UpdateBuffers
        | K::CloneBuffers
        | K::UnregisterBuffers
        | K::CloseRing
        | K::Setlease
        | K::Getlease
        | K::Setsig
        | K::SetownEx
        | K::OnBreak
        | K::LeaseBreakTime
        | K::Kill
        | K::Interrupt
        | K::SendFd
        | K::RecvFd
        | K::PinLongtermTestStart
        | K::PinLongtermTestRead
        | K::PinLongtermTestStop
        | K::PinBasicTest => 1,
        K::RdmaWrite | K::RdmaRead => 2,
        K::Release | K::RegMr | K::DeregMr => 2,
    }
}

impl Shape {
    /// Draws the shape of a new program.
    pub fn draw(dice: &mut Dice<'_, '_>, home: Mount, vocabulary: &Vocabulary) -> Shape {
        let stories = [Story::Plain, Story::Held, Story::Leased, Story::Both];
        let story = stories[dice.weighted(&vocabulary.stories)];
        let mut mounts = vec![home];
        if dice.chance(50) {
            let mut others = vocabulary.mounts.to_vec();
            others.retain(|mount| *mount != home);
            mounts.extend(dice.pick_some(&others));
        }
        let threads =
            if dice.chance(54) { dice.between(2, u64::from(THREADS_MAX)) as u8 } else { 1 };
        let align = dice.pick(&[PAGE, PAGE, 512, 8, 1]);
        let extent = dice.pick(&[64 << 10, 64 << 10, 16 << 10, 256 << 10]);
        let extent = if dice.chance(3) { FILE_MAX } else { extent };
        let hot = (0..dice.between(2, 4)).map(|_| hot_offset(dice, extent)).collect();
        let mut weight =
            |kind: &CallKind| base_weight(*kind) * swarm(dice) + vocabulary.favour(*kind);
        let weights = CallKind::ALL.iter().map(&mut weight).collect();
        Shape {
            vocabulary: *vocabulary,
            story,
            home,
            mounts,
            names: dice.between(1, 3),
            threads,
            forks: dice.chance(15),
            ring_percent: match vocabulary.always {
                Always::Ring => RING_PERCENT,
                _ if dice.chance(25) => dice.pick(&[30, 60, 90]),
                _ => 0,
            },
            align,
            hot,
            extent,
            weights,
        }
    }

    /// A shape for calls that join an existing program: where its calls meet, they meet too.
    pub fn of(program: &Program, dice: &mut Dice<'_, '_>, vocabulary: &Vocabulary) -> Shape {
        let mut shape = Shape::draw(dice, program.home, vocabulary);
        let mut threads = 1;
        for line in &program.lines {
            if let Lane::Thread(n) = line.lane {
                threads = threads.max(n % THREADS_MAX + 1);
            }
            for path in line.call.paths() {
                if !shape.mounts.contains(&path.mount) {
                    shape.mounts.push(path.mount);
                }
            }
            match line.call {
                Call::Pread { offset, buf: Buf::Anon(_), .. }
                | Call::Pwrite { offset, .. }
                | Call::Fallocate { offset, .. }
                | Call::Mmap { offset, .. } => shape.hot.push(offset),
                _ => {}
            }
        }
        shape.threads = threads;
        // Only a program that races already races more.
        shape.forks &= shape.threads > 1;
        shape
    }

    /// The lanes that run at all, given which children live.
    pub fn lanes(&self, alive: &[bool; CHILDREN_MAX as usize]) -> Vec<Lane> {
        let threads = (0..self.threads).map(Lane::Thread);
        let children = (0..CHILDREN_MAX).filter(|n| alive[usize::from(*n)]).map(Lane::Child);
        threads.chain(children).collect()
    }
}

/// The factor of one kind: many off, some heavy. 0 entropy gives the usual weight.
fn swarm(dice: &mut Dice<'_, '_>) -> u32 {
    dice.pick(&[2, 2, 2, 2, 0, 0, 0, 0, 8, 24])
}

fn hot_offset(dice: &mut Dice<'_, '_>, extent: u64) -> u64 {
    match dice.below(20) {
        0..=4 => 0,
        5..=8 => PAGE,
        9..=12 => dice.below(extent / PAGE) * PAGE,
        13 => PAGE - 8,
        14 => dice.below(extent / 512) * 512,
        15 => dice.below(extent),
        16 => dice.below(extent / 8) * 8,
        17 => extent - PAGE,
        18 if dice.chance(30) => HUGE_PAGE,
        19 if dice.chance(15) => FILE_MAX - PAGE,
        _ => 2 * PAGE,
    }
}
