//! Behaviour: how calls ended in which state of their file, and what they met, as features that any kernel shows.
//!
//! Classes are few, so that a search saturates them slowly and never drowns in them: no feature has an address, a time, a run's number or an offset in
//! it. What overlaps and who waits is a matter of luck; the search runs a program again before it believes such a feature.

mod ending;
mod files;
mod trace;

pub use ending::{Ending, Failure};
pub use files::{File, Place};
pub use trace::{Seen, of as trace};

use super::Feature;
use crate::report::Meetings;
use history::{Event, History};
use program::{Form, PAGE, Program};

/// Size of a huge page, where the mappings of DAX files change from base pages, in bytes.
const HUGE_PAGE: u64 = 2 << 20;
/// The unit of O_DIRECT on the devices under test, in bytes.
const SECTOR: u64 = 512;

/// Families of features. The number is a part of the hash: two families never share a feature but by accident.
#[derive(Clone, Copy)]
enum Family {
    /// How a form of a call ended where.
    Ended = 1,
    /// How a call ended in which part of its file.
    Range,
    /// How a call ended on a file in which state.
    State,
    /// Where a call was seen to wait.
    Waited,
    /// Calls at the same time on one file.
    Overlap,
    /// A change against a hold.
    Held,
    /// A call against a lease.
    Leased,
    /// A signal that told of a break.
    Signal,
}

/// The features of behaviour of a run, in no order, some more than once.
pub fn features(program: &Program, history: &History) -> Vec<Feature> {
    let seen = trace(program, history);
    let mut all = Vec::new();
    for it in &seen {
        of_call(&mut all, program, it);
    }
    overlaps(&mut all, program, &seen);
    meetings(&mut all, program, history);
    signals(&mut all, history);
    all
}

/// A feature from what it is made of: FNV-1a over the words, which no release of a crate changes.
fn feature(family: Family, words: &[u64]) -> Feature {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [family as u64].iter().chain(words).flat_map(|word| word.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Feature::behaviour(hash)
}

/// Stands for the end of a call that never returned.
const NEVER: u64 = 255;

fn of_call(all: &mut Vec<Feature>, program: &Program, it: &Seen<'_>) {
    let line = &program.lines[usize::from(it.id.0)];
    let kind = line.call.kind() as u64;
    let (end, class) = match it.ended {
        Some((_, ending)) => (ending.number(), ending.class()),
        None => (NEVER, NEVER),
    };
    for form in Form::of(line) {
        all.push(feature(Family::Ended, &[form.number(), it.place.number(), end]));
    }
    if let Some(wchan) = it.blocked {
        let mut words = vec![kind, it.place.number()];
        words.extend(wchan.bytes().map(u64::from));
        all.push(feature(Family::Waited, &words));
    }
    let Some(file) = &it.file else { return };
    if let Some(range) = trace::ranges(&line.call).first() {
        let class_of_range = range_class(range.start, range.end, file.size);
        let dax = u64::from(file.place.is_dax());
        all.push(feature(Family::Range, &[kind, dax, class_of_range, class]));
    }
    let state = file.links()
        | u64::from(it.direct) << 3
        | u64::from(file.leased) << 4
        | u64::from(file.cloned) << 5
        | u64::from(file.sparse) << 6;
    let words = [kind, file.place.number(), size_class(file.size), state, class];
    all.push(feature(Family::State, &words));
}

/// Sizes: empty, within a page, whole pages, odd, and whether a huge page fits.
fn size_class(size: u64) -> u64 {
    match size {
        0 => 0,
        HUGE_PAGE.. => 4,
        1..PAGE => 1,
        _ if size.is_multiple_of(PAGE) => 2,
        _ => 3,
    }
}

/// A part of a file: how it is aligned, about how long it is, and where it lies against the end of the file.
fn range_class(start: u64, end: u64, size: u64) -> u64 {
    let align = |n: u64| match n {
        _ if n.is_multiple_of(PAGE) => 0,
        _ if n.is_multiple_of(SECTOR) => 1,
        _ => 2,
    };
    let len = end.saturating_sub(start);
    let length = match len {
        0 => 0,
        1..PAGE => 1,
        PAGE => 2,
        _ if len < HUGE_PAGE => 3,
        u64::MAX => 4,
        _ => 5,
    };
    let end_of_file = match () {
        () if start >= size => 2,
        () if end > size => 1,
        () => 0,
    };
    ((align(start) * 3 + align(len)) * 6 + length) * 3 + end_of_file
}

/// Calls whose intervals overlap, on one file.
fn overlaps(all: &mut Vec<Feature>, program: &Program, seen: &[Seen<'_>]) {
    let over =
        |it: &Seen<'_>, other: &Seen<'_>| it.ended.is_some_and(|(ended, _)| ended < other.begun);
    for (index, one) in seen.iter().enumerate() {
        for other in &seen[index + 1..] {
            if !over(one, other) && !over(other, one) {
                overlap(all, program, one, other);
            }
        }
    }
}

fn overlap(all: &mut Vec<Feature>, program: &Program, one: &Seen<'_>, other: &Seen<'_>) {
    for (role, touch) in one.touches.iter().enumerate() {
        for (other_role, other_touch) in other.touches.iter().enumerate() {
            if touch.file != other_touch.file {
                continue;
            }
            let kind = |it: &Seen<'_>, role: usize| {
                let kind = program.lines[usize::from(it.id.0)].call.kind() as u64;
                // What the call is about, or what its bytes come from or go to.
                kind << 1 | u64::from(role > 0)
            };
            let (a, b) = (kind(one, role), kind(other, other_role));
            let meets = u64::from(trace::meet(&touch.range, &other_touch.range));
            let place = if role == 0 { one.place } else { other.place };
            let dax = u64::from(place.is_dax());
            all.push(feature(Family::Overlap, &[a.min(b), a.max(b), meets, dax]));
        }
    }
}

/// What met held pages and leases, and how that ended.
fn meetings(all: &mut Vec<Feature>, program: &Program, history: &History) {
    let meetings = Meetings::of(program, history);
    for (mount, source, change, outcomes) in meetings.held.iter() {
        let pair = [mount as u64, source as u64, change as u64];
        push_met(all, Family::Held, pair, outcomes);
    }
    for (mount, state, breaker, outcomes) in meetings.leases.iter() {
        let pair = [mount as u64, state as u64, breaker as u64];
        push_met(all, Family::Leased, pair, outcomes);
    }
}

fn push_met(
    all: &mut Vec<Feature>,
    family: Family,
    pair: [u64; 3],
    outcomes: crate::report::Outcomes,
) {
    let ways = [outcomes.completed, outcomes.refused, outcomes.blocked];
    for (way, _) in ways.iter().enumerate().filter(|(_, count)| **count > 0) {
        all.push(feature(family, &[pair[0], pair[1], pair[2], way as u64]));
    }
}

/// Which signals came, and how they were answered.
fn signals(all: &mut Vec<Feature>, history: &History) {
    for event in &history.events {
        let Event::Signal { signo, code, answer, .. } = event else { continue };
        let answer = match answer {
            None => 0,
            Some((lease, Ok(_))) => 1 + (*lease as u64) * 256,
            Some((lease, Err(errno))) => {
                2 + (*lease as u64) * 256 + (u64::from(errno.0.unsigned_abs()) << 16)
            }
        };
        let number = |n: i32| u64::from(n.unsigned_abs());
        all.push(feature(Family::Signal, &[number(*signo), number(*code), answer]));
    }
}
