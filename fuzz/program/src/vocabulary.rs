//! What programs may be about: where they live, which stories they tell, and what must be in each.
//!
//! The usual vocabulary is everything; a fuzz target has a smaller one. Generation and mutation draw from it, and `confine` makes any program
//! fit, so that no step of a search leads out of it.

use crate::fixup::{SPACES, space_of};
use crate::{
    Access, Call, CallKind, FileSlot, LINES_MAX, Lane, Lease, Line, Mount, OpenFlags, Path,
    PinSource, Program, RINGS_MAX, RingSlot, SqeFlags, Via,
};

/// What is beside the usual draws of a kind that a vocabulary favours: about as much as twenty plain calls weigh after the swarm draw.
const FAVOUR: u32 = 40;

/// What programs may say, and how likely it is. [`Vocabulary::default`] is the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// The mounts that may be home. Not empty.
    pub homes: &'static [Mount],
    /// The mounts that paths may name. Every home is one.
    pub mounts: &'static [Mount],
    /// In how many of 100 programs which story is told: plain calls, pages held while they are changed, leases, pages held beside a lease.
    pub stories: [u32; 4],
    /// By which means stories hold pages. Not empty.
    pub sources: &'static [PinSource],
    /// Kinds of calls that come up more often than they usually do.
    pub favoured: &'static [CallKind],
    /// What every program has.
    pub always: Always,
}

/// What every program of a vocabulary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Always {
    /// Nothing in particular.
    Nothing,
    /// A lease that is asked for.
    Lease,
    /// A ring, through which most of the calls go that can.
    Ring,
}

impl Vocabulary {
    /// Everything, as likely as it usually is.
    pub const USUAL: Vocabulary = Vocabulary {
        homes: &Mount::ALL,
        mounts: &Mount::ALL,
        stories: [52, 33, 11, 4],
        sources: PinSource::ALL,
        favoured: &[],
        always: Always::Nothing,
    };

    /// Whether the program fits: its home and its files are where they may be, and what every program has is there.
    pub fn admits(&self, program: &Program) -> bool {
        let has_it = match self.always {
            Always::Nothing => true,
            Always::Lease => program.lines.iter().any(asks_for_lease),
            Always::Ring => program.lines.iter().any(|line| sets_up_ring(&line.call)),
        };
        let mut paths = program.lines.iter().flat_map(|line| line.call.paths());
        has_it
            && self.homes.contains(&program.home)
            && paths.all(|path| self.mounts.contains(&path.mount))
    }

    /// How much a kind weighs beside its usual draw.
    pub(crate) fn favour(&self, kind: CallKind) -> u32 {
        if self.favoured.contains(&kind) { FAVOUR } else { 0 }
    }

    /// One of these mounts, as far as they may be named; none of them may.
    pub(crate) fn among(&self, mounts: &[Mount]) -> Vec<Mount> {
        mounts.iter().copied().filter(|mount| self.mounts.contains(mount)).collect()
    }

    /// The home itself, or one that may be.
    pub(crate) fn home(&self, home: Mount) -> Mount {
        like(home, self.homes)
    }

    /// Moves the paths of a line to mounts that may be named.
    pub(crate) fn confine_line(&self, line: &mut Line) {
        if self.mounts.len() == Mount::ALL.len() {
            return;
        }
        line.call.visit(&mut |arg| {
            if let crate::args::Arg::Path(path) = arg {
                path.mount = like(path.mount, self.mounts);
            }
        });
    }
}

impl Default for Vocabulary {
    fn default() -> Self {
        Vocabulary::USUAL
    }
}

/// The mount itself, or one of the same file system, or the first.
fn like(mount: Mount, among: &[Mount]) -> Mount {
    let fits = |wanted: &dyn Fn(Mount) -> bool| among.iter().copied().find(|m| wanted(*m));
    fits(&|m| m == mount)
        .or_else(|| fits(&|m| m.is_xfs() == mount.is_xfs()))
        .unwrap_or_else(|| among.first().copied().unwrap_or(mount))
}

fn asks_for_lease(line: &Line) -> bool {
    matches!(line.call, Call::Setlease { lease: Lease::Read | Lease::Write | Lease::Layout, .. })
}

fn sets_up_ring(call: &Call) -> bool {
    matches!(call, Call::IoUringSetup { .. })
}

impl Program {
    /// Makes the program fit the vocabulary. Total, and leaves one that fits as it is, but that most of what can go through a ring does, where
    /// every program has one. The result is fixed.
    pub fn confine(&mut self, vocabulary: &Vocabulary) {
        self.move_home(vocabulary.home(self.home));
        self.lines.iter_mut().for_each(|line| vocabulary.confine_line(line));
        self.fixup();
        match vocabulary.always {
            Always::Nothing => return,
            Always::Lease => self.have_lease(),
            Always::Ring => self.have_ring(),
        }
        self.fixup();
    }

    /// Asks for a lease on the first file that is opened, if nobody asks for any.
    fn have_lease(&mut self) {
        if self.lines.iter().any(asks_for_lease) {
            return;
        }
        self.lines.truncate(LINES_MAX - 2);
        let opened = self.lines.iter().enumerate().find_map(|(at, line)| match line.call {
            Call::Open { slot, access, .. } => Some((at, line.lane, slot, access)),
            _ => None,
        });
        let (at, lane, slot, access) = opened.unwrap_or_else(|| {
            let (lane, slot, access) = (Lane::Thread(0), FileSlot(0), Access::ReadOnly);
            let path = Path { mount: self.home, name: 0 };
            let call = Call::Open { slot, path, access, flags: OpenFlags::CREAT };
            self.lines.insert(0, Line::new(lane, call));
            (0, lane, slot, access)
        });
        let lease = if access == Access::ReadOnly { Lease::Read } else { Lease::Write };
        // After the open has returned.
        self.lines[at].detached = false;
        self.lines.insert(at + 1, Line::new(lane, Call::Setlease { file: slot, lease }));
    }

    /// Sets up a ring, if nobody does or nothing could go through it, and puts what can on it until at least half of that goes through one.
    fn have_ring(&mut self) {
        let (mut through, mut beside) = self.requests();
        let could =
            |line: &Line| matches!(line.lane, Lane::Thread(_)) && line.call.kind().has_ring_form();
        let of_use = through > 0 || !beside.is_empty() || !self.lines.iter().any(could);
        if !of_use || !self.lines.iter().any(|line| sets_up_ring(&line.call)) {
            self.lines.truncate(LINES_MAX - 1);
            let call = CallKind::IoUringSetup.template();
            self.lines.insert(0, Line::new(Lane::Thread(0), call));
            (through, beside) = self.requests();
        }
        let missing = beside.len().saturating_sub(through).div_ceil(2);
        for (index, ring) in beside.into_iter().take(missing) {
            let line = &mut self.lines[index];
            (line.via, line.aio) = (Some(Via { ring, flags: SqeFlags(0) }), false);
        }
    }

    /// How many lines go through a ring, and which could but do not, each with a ring that its lane has by then.
    fn requests(&self) -> (usize, Vec<(usize, RingSlot)>) {
        let mut rings = [[false; RINGS_MAX as usize]; SPACES];
        let (mut through, mut beside) = (0, Vec::new());
        for (index, line) in self.lines.iter().enumerate() {
            let space = &mut rings[space_of(line.lane)];
            if let Call::IoUringSetup { slot, .. } = line.call {
                space[usize::from(slot.0 % RINGS_MAX)] = true;
            }
            let ring = (0..).zip(space.iter()).find(|(_, there)| **there).map(|(n, _)| RingSlot(n));
            match (line.via, ring) {
                (Some(_), _) => through += 1,
                (None, Some(ring)) if line.call.kind().has_ring_form() => {
                    beside.push((index, ring))
                }
                _ => {}
            }
        }
        (through, beside)
    }
}
