//! Makes programs out of entropy: first a shape, then a prologue of files with contents, then calls that the state of the
//! program makes likely to succeed, alone or in bursts that race.
//!
//! It never panics and needs no minimum of bytes. It does not know what a kernel does with a program, and its idea of the state is
//! only a guess (see `outline`).

mod calls;
mod dice;
mod held;
mod leases;
mod pieces;
mod pins;
mod shape;

pub(crate) use dice::Dice;
pub(crate) use pieces::change;

use shape::{Shape, Story};

use crate::outline::Outline;
use crate::{
    Access, Always, Buf, CHILDREN_MAX, Call, CallKind, FILES_MAX, FallocateMode, FileSlot,
    GateSlot, LINES_MAX, Lane, Line, MAPS_MAX, MapSlot, Mount, OpenFlags, PAGE, Path, Program,
    Prot, RING_ENTRIES_MAX, RingSlot, Settle, Sharing, SqeFlags, Via, Vocabulary,
};
use arbitrary::Unstructured;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bytes of entropy behind [`Program::from_seed`]. Programs drew fewer than 1000 when this was measured, so no part of
/// one is made without entropy.
const SEED_BYTES: usize = 4 << 10;
/// In how many of 100 calls one argument is deliberate nonsense.
const NONSENSE_PERCENT: u64 = 5;
/// In how many of 100 calls that nonsense may hit a splice, which can then wait for a pipe for ever, or what holds and leases.
const PIPE_NONSENSE_PERCENT: u64 = 1;
/// In how many of 100 calls that were to go beside a ring they go through it after all, where programs are about rings; and how many of
/// their children have a ring of their own.
const AFTER_ALL_PERCENT: u64 = 80;
/// In how many of 100 reads, writes and syncs without a ring io_submit(2) is used.
const AIO_PERCENT: u64 = 8;

impl Program {
    /// Makes a program out of entropy. The result is fixed already.
    pub fn generate(u: &mut Unstructured<'_>, home: Mount) -> Program {
        Program::generate_with(u, home, &Vocabulary::USUAL)
    }

    /// Makes a program of that vocabulary. It is at home on that mount, or on one of the same file system if that one may not be.
    pub fn generate_with(
        u: &mut Unstructured<'_>,
        home: Mount,
        vocabulary: &Vocabulary,
    ) -> Program {
        let mut dice = Dice(u);
        let home = vocabulary.home(home);
        let shape = Shape::draw(&mut dice, home, vocabulary);
        let mut writer = Writer::new(dice, shape, Outline::default());
        writer.program();
        let mut program = Program { home, lines: writer.lines };
        program.fixup();
        program.confine(vocabulary);
        program
    }

    /// The program of that seed: the same on every machine, for one version of this crate.
    pub fn from_seed(seed: u64, home: Mount) -> Program {
        Program::from_seed_with(seed, home, &Vocabulary::USUAL)
    }

    /// The program of that seed and vocabulary.
    pub fn from_seed_with(seed: u64, home: Mount, vocabulary: &Vocabulary) -> Program {
        let mut bytes = [0; SEED_BYTES];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        Program::generate_with(&mut Unstructured::new(&bytes), home, vocabulary)
    }

    /// Makes a line that fits after the first `at` lines of the program.
    pub(crate) fn line_at(
        &self,
        at: usize,
        u: &mut Unstructured<'_>,
        vocabulary: &Vocabulary,
    ) -> Line {
        let mut dice = Dice(u);
        let shape = Shape::of(self, &mut dice, vocabulary);
        let mut outline = Outline::default();
        self.lines.iter().take(at).for_each(|line| outline.apply(line));
        let races = shape.threads > 1;
        let mut writer = Writer::new(dice, shape, outline);
        let lane = writer.any_lane();
        // A line may need another one first, such as an open: that one is the useful one to insert then.
        writer.line(lane);
        let mut line = match writer.lines.into_iter().next() {
            Some(line) => line,
            None => Line::new(lane, Call::DropCaches),
        };
        line.detached = races && writer.dice.chance(30) && line.call.kind().can_detach();
        line
    }
}

/// A file and a place in it that the calls of a burst have in common.
#[derive(Clone, Copy)]
struct Focus {
    inode: usize,
    offset: u64,
}

/// Writes lines one after the other, and keeps track of what they have probably done.
struct Writer<'a, 'b> {
    dice: Dice<'a, 'b>,
    shape: Shape,
    outline: Outline,
    lines: Vec<Line>,
    focus: Option<Focus>,
    /// Whether lines that may wait mostly run beside the next ones.
    racing: bool,
}

impl<'a, 'b> Writer<'a, 'b> {
    fn new(dice: Dice<'a, 'b>, shape: Shape, outline: Outline) -> Self {
        Writer { dice, shape, outline, lines: Vec::new(), focus: None, racing: false }
    }

    fn push(&mut self, mut line: Line) {
        // What comes next relies on the line as it will be, nonsense or not.
        crate::fixup::bound_line(&mut line);
        self.shape.vocabulary.confine_line(&mut line);
        let about_rings = self.shape.vocabulary.always == Always::Ring;
        if about_rings {
            self.prefer_ring(&mut line);
        }
        self.outline.apply(&line);
        let forks = if let Call::Fork { child } = line.call { Some(child) } else { None };
        self.lines.push(line);
        if let Some(child) = forks.filter(|_| about_rings && self.dice.chance(AFTER_ALL_PERCENT)) {
            self.setup_ring(Lane::Child(child));
        }
    }

    /// A call that could go through a ring mostly does, be it a part of a story.
    fn prefer_ring(&mut self, line: &mut Line) {
        let kind = line.call.kind();
        if line.via.is_some() || line.aio || !self.dice.chance(AFTER_ALL_PERCENT) {
            return;
        }
        // No drain: it would wait for what a gate holds.
        let via = self.always_via(kind, line.lane);
        line.via = via.map(|via| Via { flags: via.flags.without(SqeFlags::DRAIN), ..via });
    }

    fn call(&mut self, lane: Lane, call: Call) {
        self.push(Line::new(lane, call));
    }

    fn program(&mut self) {
        if self.shape.vocabulary.always == Always::Ring {
            self.setup_ring(Lane::Thread(0));
        }
        match self.shape.story {
            Story::Plain => self.plain_program(),
            Story::Held => self.held_program(false),
            Story::Leased => self.leased_program(),
            Story::Both => self.held_program(true),
        }
    }

    fn plain_program(&mut self) {
        let target = match self.dice.weighted(&[60, 30, 10]) {
            0 => self.dice.between(8, 20),
            1 => self.dice.between(16, 40),
            _ => self.dice.between(30, LINES_MAX as u64),
        } as usize;
        self.prologue();
        let fork_at = if self.shape.forks {
            self.lines.len() + self.dice.below(6) as usize
        } else {
            usize::MAX
        };
        while self.lines.len() < target {
            if self.lines.len() >= fork_at {
                self.fork();
            }
            if self.shape.threads > 1 && self.dice.chance(40) {
                self.burst();
            } else if self.shape.ring_percent > 0 && self.dice.chance(15) {
                self.chain();
            } else {
                let lane = self.any_lane();
                self.line(lane);
            }
        }
        self.farewell();
    }

    /// Opens one to three files, gives them contents and maps them, in most programs.
    fn prologue(&mut self) {
        let lane = Lane::Thread(0);
        for index in 0..self.dice.between(1, 3) {
            // The second file is where data can come from another file system, if the program has one.
            let away = self.shape.mounts[self.shape.mounts.len() - 1];
            let mount = match index {
                0 => self.shape.home,
                1 if self.dice.chance(70) => away,
                _ => self.dice.pick(&self.shape.mounts),
            };
            let path = Path { mount, name: (index % self.shape.names) as u8 };
            let mut flags = OpenFlags::CREAT;
            if self.dice.chance(if mount.is_dax() { 20 } else { 35 }) {
                flags = flags.with(OpenFlags::DIRECT);
            }
            let slot = FileSlot(index as u8);
            self.call(lane, Call::Open { slot, path, access: Access::ReadWrite, flags });
            let pages = self.dice.between(1, (self.shape.extent / PAGE).min(32));
            let tail = if self.dice.chance(25) && !flags.has(OpenFlags::DIRECT) {
                self.dice.below(PAGE)
            } else {
                0
            };
            let len = pages * PAGE - tail;
            match self.dice.below(8) {
                0..=4 => {
                    self.call(lane, Call::Pwrite { file: slot, offset: 0, buf: Buf::Anon(0), len });
                }
                5 => self.call(
                    lane,
                    Call::Fallocate { file: slot, mode: FallocateMode::Allocate, offset: 0, len },
                ),
                6 => self.call(lane, Call::Ftruncate { file: slot, len }),
                _ => {}
            }
            if self.dice.chance(70) {
                let slot = MapSlot(index as u8);
                let file = FileSlot(index as u8);
                let call = self.mmap_of(slot, file, lane);
                self.call(lane, call);
            }
        }
        if self.shape.ring_percent > 0 {
            self.setup_ring(lane);
        }
    }

    fn setup_ring(&mut self, lane: Lane) {
        let entries = match self.dice.below(4) {
            0 | 1 => 8,
            2 => 4,
            _ => self.dice.between(1, u64::from(RING_ENTRIES_MAX)) as u8,
        };
        let slot = RingSlot(self.dice.below(u64::from(RingSlot::MAX)) as u8);
        self.call(lane, Call::IoUringSetup { slot, entries });
    }

    fn fork(&mut self) {
        let Some(child) = (0..CHILDREN_MAX).find(|n| !self.outline.forked[usize::from(*n)]) else {
            return;
        };
        let lane = Lane::Thread(self.dice.below(u64::from(self.shape.threads)) as u8);
        self.call(lane, Call::Fork { child });
        if self.shape.ring_percent > 0 && self.dice.chance(40) {
            self.setup_ring(Lane::Child(child));
        }
        // The second child is rarer than the first.
        self.shape.forks = self.dice.chance(20);
    }

    /// Ends: what gates hold is let go, in most programs; children exit and are waited for, contents are made durable, in some.
    fn farewell(&mut self) {
        for gate in [GateSlot::DM, GateSlot::UBLK, GateSlot::MEMORY] {
            if self.outline.held[usize::from(gate.0)] && self.dice.chance(90) {
                let settle = Settle::Complete;
                self.call(Lane::Thread(0), Call::Release { gate, settle });
            }
        }
        for child in 0..CHILDREN_MAX {
            if self.outline.alive[usize::from(child)] && self.dice.chance(50) {
                self.call(Lane::Child(child), Call::Exit);
                if self.dice.chance(50) {
                    self.call(Lane::Thread(0), Call::Wait { lane: Lane::Child(child) });
                }
            }
        }
        if self.dice.chance(20) {
            let lane = Lane::Thread(0);
            let call = self.call_of(CallKind::Fsync, lane);
            self.call(lane, call);
        }
    }

    /// A lane to go on with: mostly `t0`, so that the others have something to race with.
    fn any_lane(&mut self) -> Lane {
        let lanes = self.free_lanes();
        if self.dice.chance(50) { self.dice.pick(&lanes) } else { lanes[0] }
    }

    /// The lanes that do not wait, or all if there are no such.
    fn free_lanes(&self) -> Vec<Lane> {
        let mut lanes = self.shape.lanes(&self.outline.alive);
        if lanes.iter().any(|lane| !self.outline.is_stuck(*lane)) {
            lanes.retain(|lane| !self.outline.is_stuck(*lane));
        }
        lanes
    }

    /// Writes one call, and what it needs before it.
    fn line(&mut self, lane: Lane) {
        // Without entropy, or with all kinds off in the swarm draw, these are what most programs are about.
        let plain = [CallKind::Pwrite, CallKind::Load, CallKind::Store, CallKind::Pread];
        let drawn = !self.dice.0.is_empty() && self.shape.weights.iter().any(|weight| *weight > 0);
        let kind = if drawn {
            CallKind::ALL[self.dice.weighted(&self.shape.weights)]
        } else {
            plain[self.lines.len() % plain.len()]
        };
        self.line_of(kind, lane);
    }

    fn line_of(&mut self, kind: CallKind, lane: Lane) {
        let kind = self.settle(kind, lane);
        let mut call = self.call_of(kind, lane);
        let waits_on_pipe = matches!(kind, CallKind::SpliceToPipe | CallKind::SpliceFromPipe);
        let percent = if waits_on_pipe || shape::is_pin(kind) {
            PIPE_NONSENSE_PERCENT
        } else {
            NONSENSE_PERCENT
        };
        if self.dice.chance(percent) {
            crate::mutate::tweak(&mut call, &mut self.dice);
        }
        let via = self.via(kind, lane);
        let mut line = Line { via, ..Line::new(lane, call) };
        line.aio = self.aio(&line);
        self.go_through_registered(&mut line);
        if self.outline.would_wait(&line) {
            self.tame(&mut line);
        }
        self.push(line);
    }

    /// A request that takes a buffer goes through what its ring has registered, if it has.
    fn go_through_registered(&mut self, line: &mut Line) {
        let Some(via) = line.via.filter(|_| self.dice.chance(60)) else { return };
        let Some(fixed) = self.fixed_buf(line.lane, via.ring) else { return };
        if let Call::Pread { buf, len, .. } | Call::Pwrite { buf, len, .. } = &mut line.call {
            (*buf, *len) = fixed;
            line.via = Some(Via { flags: via.flags.with(SqeFlags::FIXED), ..via });
        }
    }

    /// A line that will wait for a gate, a lease or somebody's pages goes to a lane that has nothing else to do, or does not wait: the rest of its
    /// lane would not be heard of again.
    fn tame(&mut self, line: &mut Line) {
        if self.shape.threads > 1 && line.lane != Lane::Thread(0) && self.dice.chance(50) {
            line.detached = line.call.kind().can_detach();
            return;
        }
        match &mut line.call {
            Call::Open { flags, .. } => *flags = flags.with(OpenFlags::NONBLOCK),
            _ if self.dice.chance(10) => {}
            _ => {
                let (file, _) = self.file(line.lane, calls::Use::Any);
                *line = Line::new(line.lane, Call::Getlease { file });
            }
        }
    }

    /// A ring for the call, if the program likes rings.
    fn via(&mut self, kind: CallKind, lane: Lane) -> Option<Via> {
        if !kind.has_ring_form() || !self.dice.chance(self.shape.ring_percent) {
            return None;
        }
        let rings = self.outline.space(lane).rings.map(|ring| ring.is_some());
        let rings: Vec<RingSlot> =
            (0..).zip(rings).filter(|(_, full)| *full).map(|(n, _)| RingSlot(n)).collect();
        let ring = self.dice.pick_some(&rings)?;
        let mut flags = SqeFlags(0);
        if self.dice.chance(20) {
            flags = flags.with(SqeFlags::ASYNC);
        }
        if self.dice.chance(15) {
            flags = flags.with(SqeFlags::DRAIN);
        }
        Some(Via { ring, flags })
    }

    /// Whether a line that could be a request of io_submit(2) is one.
    fn aio(&mut self, line: &Line) -> bool {
        line.via.is_none() && line.call.kind().has_aio_form() && self.dice.chance(AIO_PERCENT)
    }

    /// Several requests of one ring, linked: such as a write and the fsync that shall follow it.
    fn chain(&mut self) {
        let lane = self.any_lane();
        let link = if self.dice.chance(35) { SqeFlags::HARDLINK } else { SqeFlags::LINK };
        let detached = self.shape.threads > 1 && self.dice.chance(50);
        self.take_focus(lane);
        let length = self.dice.between(2, 4);
        let start = self.lines.len();
        for index in 0..length {
            let ring_kinds: Vec<CallKind> =
                CallKind::ALL.iter().copied().filter(|kind| kind.has_ring_form()).collect();
            let kind = self.dice.pick(&ring_kinds);
            let kind = self.settle(kind, lane);
            if !kind.has_ring_form() {
                continue;
            }
            let call = self.call_of(kind, lane);
            let Some(mut via) = self.always_via(kind, lane) else { break };
            if index + 1 < length {
                via.flags = via.flags.with(link);
            }
            self.push(Line { via: Some(via), detached, ..Line::new(lane, call) });
        }
        // The requests of a chain belong to one ring.
        let ring = self.lines.get(start).and_then(|line| line.via).map(|via| via.ring);
        for line in &mut self.lines[start..] {
            if let (Some(via), Some(ring)) = (&mut line.via, ring) {
                via.ring = ring;
            }
        }
        self.focus = None;
    }

    fn always_via(&mut self, kind: CallKind, lane: Lane) -> Option<Via> {
        let usual = std::mem::replace(&mut self.shape.ring_percent, 100);
        let via = self.via(kind, lane);
        self.shape.ring_percent = usual;
        via
    }

    /// Two to five lines that run at the same time on the same place, then one that waits.
    fn burst(&mut self) {
        let lanes = self.free_lanes();
        self.take_focus(lanes[0]);
        let first = self.dice.below(lanes.len() as u64) as usize;
        let count = self.dice.between(2, 5) as usize;
        let start = self.lines.len();
        for index in 0..count {
            let lane = lanes[(first + index) % lanes.len()];
            self.line(lane);
            if let Some(line) = self.lines.last_mut() {
                line.detached = line.call.kind().can_detach();
                if self.dice.chance(25) {
                    line.delay_us = self.dice.pick(&[1, 5, 20, 100, 500, 2000]);
                }
            }
        }
        self.focus = None;
        if self.dice.chance(40) {
            // The last one is waited for, and so are those before it on its lane.
            if let Some(line) = self.lines.last_mut() {
                line.detached = false;
            }
        } else {
            let conductor = Lane::Thread(0);
            let busy: Vec<Lane> = lanes
                .iter()
                .copied()
                .filter(|lane| self.lines[start..].iter().any(|line| line.lane == *lane))
                .filter(|lane| *lane != conductor)
                .collect();
            for lane in busy {
                self.call(conductor, Call::Wait { lane });
            }
        }
    }

    /// Picks the place where the next calls meet.
    fn take_focus(&mut self, lane: Lane) {
        let space = self.outline.space(lane);
        let inodes: Vec<usize> = space.files.iter().flatten().map(|file| file.inode).collect();
        let offset = self.dice.pick(&self.shape.hot);
        self.focus = self.dice.pick_some(&inodes).map(|inode| Focus { inode, offset });
    }

    /// The kind itself, or the kind that must come before it.
    fn settle(&mut self, kind: CallKind, lane: Lane) -> CallKind {
        use CallKind as K;
        let space = self.outline.space(lane);
        let has_file = space.files.iter().any(Option::is_some);
        let has_map = space.maps.iter().any(Option::is_some);
        let pipes: Vec<usize> = space.pipes.iter().flatten().copied().collect();
        match kind {
            K::Load | K::Store | K::Munmap | K::Mremap | K::Mprotect | K::Msync | K::Madvise
                if !has_map =>
            {
                if has_file {
                    K::Mmap
                } else {
                    K::Open
                }
            }
            K::SpliceToPipe | K::SpliceFromPipe => {
                if !has_file {
                    return K::Open;
                }
                if pipes.is_empty() {
                    return K::Pipe;
                }
                let fills = pipes.iter().map(|pipe| &self.outline.pipes[*pipe]);
                let any_full = fills.clone().any(|fill| fill.bytes > 0);
                let any_room =
                    fills.clone().any(|fill| fill.buffers < crate::outline::PIPE_BUFFERS / 2);
                match kind {
                    K::SpliceFromPipe if any_full => kind,
                    _ if !any_room => K::SpliceFromPipe,
                    _ => K::SpliceToPipe,
                }
            }
            K::Open | K::Unlink | K::Rename | K::Link | K::Truncate | K::DropCaches | K::Pipe => {
                kind
            }
            K::Load | K::Store | K::Munmap | K::Mremap | K::Mprotect | K::Msync | K::Madvise => {
                kind
            }
            K::Fork | K::Exit | K::IoUringSetup | K::Wait => kind,
            _ if shape::is_pin(kind) => self.settle_pin(kind, lane),
            _ if !has_file => K::Open,
            _ => kind,
        }
    }

    /// A mapping of the whole or a part of the file, mostly shared.
    fn mmap_of(&mut self, slot: MapSlot, file: FileSlot, lane: Lane) -> Call {
        let open = self.outline.space(lane).files[usize::from(file.0 % FILES_MAX)];
        let size = open.map_or(PAGE, |open| self.outline.size_of(&open));
        let (offset, len) = self.map_range(size);
        let sharing = if self.dice.chance(25) { Sharing::Private } else { Sharing::Shared };
        let both = Prot::READ.with(Prot::WRITE);
        let may_write = sharing == Sharing::Private || open.is_none_or(|open| open.can_write());
        let prot = match self.dice.below(10) {
            0 => Prot::READ,
            1 if self.dice.chance(30) => Prot(0),
            1 if may_write => Prot::WRITE,
            _ if may_write => both,
            _ => Prot::READ,
        };
        let dax = open.is_some_and(|open| self.outline.inodes[open.inode].mount.is_dax());
        let flags = self.map_flags(dax);
        Call::Mmap { slot: MapSlot(slot.0 % MAPS_MAX), file, offset, len, prot, sharing, flags }
    }
}
