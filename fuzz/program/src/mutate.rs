//! Changes programs: small steps on their structure and their arguments, and crosses between two of them.
//!
//! Everything ends in `fixup`, so a step may leave a mess behind. Which programs are worth changing is the search's matter.

mod holding;

use crate::generate::{Dice, change};
use crate::{
    CHILDREN_MAX, Call, CallKind, DELAY_US_MAX, LINES_MAX, Lane, Line, Mount, Program, RINGS_MAX,
    RingSlot, SqeFlags, THREADS_MAX, Via, Vocabulary,
};
use arbitrary::Unstructured;

/// Most steps of one mutation. One alone is the most useful; more get out of a dead end.
const STEPS_MAX: u64 = 4;

impl Program {
    /// Changes the program in one or a few places. The result is fixed already.
    pub fn mutate(&mut self, u: &mut Unstructured<'_>) {
        self.mutate_with(u, &Vocabulary::USUAL);
    }

    /// As `mutate`, within a vocabulary: lines that are added are of it, and the result fits it, whether the program did or not.
    pub fn mutate_with(&mut self, u: &mut Unstructured<'_>, vocabulary: &Vocabulary) {
        self.fixup();
        let steps = 1 + Dice(u).weighted(&[60, 25, 10, 5]) as u64;
        for _ in 0..steps.min(STEPS_MAX) {
            self.step(u, vocabulary);
            self.fixup();
        }
        self.confine(vocabulary);
    }

    /// As `crossover`, within a vocabulary.
    #[must_use]
    pub fn crossover_with(
        &self,
        other: &Program,
        u: &mut Unstructured<'_>,
        vocabulary: &Vocabulary,
    ) -> Program {
        let mut program = self.crossover(other, u);
        program.confine(vocabulary);
        program
    }

    /// A program made of parts of both, at home where this one is. The result is fixed already.
    #[must_use]
    pub fn crossover(&self, other: &Program, u: &mut Unstructured<'_>) -> Program {
        let mut dice = Dice(u);
        let mut other = other.clone();
        other.move_home(self.home);
        let (mine, theirs) = (&self.lines, &other.lines);
        let lines = match dice.below(3) {
            // The beginning of one, the end of the other.
            0 => {
                let (cut, from) = (cut(mine, &mut dice), cut(theirs, &mut dice));
                mine[..cut].iter().chain(&theirs[from..]).cloned().collect()
            }
            // A piece of the other in the middle.
            1 => {
                let at = cut(mine, &mut dice);
                let from = cut(theirs, &mut dice);
                let until = dice.between(from as u64, theirs.len() as u64) as usize;
                mine[..at].iter().chain(&theirs[from..until]).chain(&mine[at..]).cloned().collect()
            }
            // Both at once, each in its own order.
            _ => {
                let (mut mine, mut theirs) = (mine.iter().peekable(), theirs.iter().peekable());
                let mut lines = Vec::new();
                while lines.len() < LINES_MAX && (mine.peek().is_some() || theirs.peek().is_some())
                {
                    let (first, second) = if dice.chance(50) {
                        (&mut theirs, &mut mine)
                    } else {
                        (&mut mine, &mut theirs)
                    };
                    lines.extend(first.next().or_else(|| second.next()).cloned());
                }
                lines
            }
        };
        let mut program = Program { home: self.home, lines };
        program.fixup();
        program
    }

    fn step(&mut self, u: &mut Unstructured<'_>, vocabulary: &Vocabulary) {
        let count = self.lines.len() as u64;
        let kind = Dice(u).weighted(&[22, 27, 9, 6, 5, 6, 6, 5, 5, 3, 3, 2, 10]);
        if kind == 1 || count == 0 {
            return self.insert(u, vocabulary);
        }
        let mut dice = Dice(u);
        let at = dice.below(count) as usize;
        match kind {
            0 => tweak(&mut self.lines[at].call, &mut dice),
            2 => drop(self.lines.remove(at)),
            3 => {
                let to = dice.below(count) as usize;
                let line = self.lines[at].clone();
                self.lines.insert(to, line);
            }
            4 => self.lines.swap(at, dice.below(count) as usize),
            5 => {
                let line = self.lines.remove(at);
                self.lines.insert(dice.below(count) as usize, line);
            }
            6 => self.lines[at].detached ^= true,
            7 => self.lines[at].lane = self.any_lane(&mut dice),
            8 => self.change_via(at, &mut dice),
            9 => {
                let delays = [0, 1, 10, 100, 1000, DELAY_US_MAX];
                self.lines[at].delay_us = dice.pick(&delays);
            }
            // A run of lines moves to another lane, and races with those that stay.
            10 => {
                let until = (at + dice.between(2, 6) as usize).min(self.lines.len());
                let lane = self.any_lane(&mut dice);
                let detached = dice.chance(60);
                for line in &mut self.lines[at..until] {
                    (line.lane, line.detached) = (lane, line.detached || detached);
                }
            }
            11 => self.move_home(dice.pick(vocabulary.homes)),
            _ => self.move_holding(&mut dice),
        }
    }

    fn insert(&mut self, u: &mut Unstructured<'_>, vocabulary: &Vocabulary) {
        let mut at = Dice(u).below(self.lines.len() as u64 + 1) as usize;
        if self.lines.len() >= LINES_MAX {
            // Make room, or fixup would cut off the end.
            at = at.min(LINES_MAX - 1);
            self.lines.remove(at);
        }
        let line = self.line_at(at, u, vocabulary);
        self.lines.insert(at, line);
    }

    /// A lane, and the fork of it if it is a child that does not exist yet.
    fn any_lane(&mut self, dice: &mut Dice<'_, '_>) -> Lane {
        if !dice.chance(15) {
            return Lane::Thread(dice.below(u64::from(THREADS_MAX)) as u8);
        }
        let child = dice.below(u64::from(CHILDREN_MAX)) as u8;
        let forked = |line: &Line| line.call == Call::Fork { child };
        if !self.lines.iter().any(forked) && self.lines.len() < LINES_MAX {
            let at = dice.below(self.lines.len() as u64) as usize;
            self.lines.insert(at, Line::new(Lane::Thread(0), Call::Fork { child }));
        }
        Lane::Child(child)
    }

    /// Makes a line a request of io_submit(2) or a plain call, puts it on a ring, takes it off, or changes how it is queued.
    fn change_via(&mut self, at: usize, dice: &mut Dice<'_, '_>) {
        let line = &mut self.lines[at];
        if line.call.kind().has_aio_form() && dice.chance(20) {
            line.aio ^= true;
            line.via = None;
            return;
        }
        match &mut self.lines[at].via {
            via @ Some(_) if dice.chance(25) => *via = None,
            Some(via) if dice.chance(15) => via.ring = RingSlot(dice.below(RINGS_MAX.into()) as u8),
            Some(via) => via.flags.0 ^= dice.pick(SqeFlags::NAMES).1.0,
            none => {
                let flags =
                    dice.pick(&[SqeFlags(0), SqeFlags::LINK, SqeFlags::ASYNC, SqeFlags::DRAIN]);
                *none = Some(Via { ring: RingSlot(0), flags });
                let ring = |line: &Line| line.call.kind() == CallKind::IoUringSetup;
                if !self.lines.iter().any(ring) && self.lines.len() < LINES_MAX {
                    let setup = CallKind::IoUringSetup.template();
                    self.lines.insert(0, Line::new(Lane::Thread(0), setup));
                }
            }
        }
    }

    /// Moves the program to another home: files there and files at home change places, so that calls between two file systems
    /// remain such.
    pub(crate) fn move_home(&mut self, home: Mount) {
        let old = std::mem::replace(&mut self.home, home);
        for line in &mut self.lines {
            line.call.visit(&mut |arg| {
                if let crate::args::Arg::Path(path) = arg {
                    path.mount = match path.mount {
                        mount if mount == old => home,
                        mount if mount == home => old,
                        mount => mount,
                    };
                }
            });
        }
    }
}

/// Changes one argument of the call, if it has any.
pub(crate) fn tweak(call: &mut Call, dice: &mut Dice<'_, '_>) {
    let mut count = 0;
    call.visit(&mut |_| count += 1);
    let chosen = dice.below(count);
    let mut index = 0;
    call.visit(&mut |arg| {
        if index == chosen {
            change(arg, dice);
        }
        index += 1;
    });
}

/// A place between two lines, or at either end.
fn cut(lines: &[Line], dice: &mut Dice<'_, '_>) -> usize {
    dice.below(lines.len() as u64 + 1) as usize
}
