//! Which call was surely over before which other began.
//!
//! Two sources: real time (an interval ended before the other began) and what a ring promises (links and drains). Everything else
//! is a race.

use history::Event;
use program::{Call, Line, Program, SqeFlags};

/// Sequence number of what has not happened yet, and never may.
pub const NEVER: u64 = u64::MAX;
/// Stands for "no call": the state before the first one.
pub const NOBODY: u16 = u16::MAX;

/// When something happened, and by whose doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Invoke.
    pub inv: u64,
    /// Return, or `NEVER`.
    pub ret: u64,
    /// The line, or `NOBODY`.
    pub call: u16,
}

impl Span {
    /// The time before the first call.
    pub const START: Span = Span { inv: 0, ret: 0, call: NOBODY };
}

/// The partial order that rings add to real time.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// For each line, a bit for each line that completes before it starts. `LINES_MAX` is 64, so a word holds them all.
    earlier: Vec<u64>,
    /// With this set, only real time counts: used to tell a broken link from stale data.
    pub real_time_only: bool,
}

impl Order {
    /// Reads links and drains off the program. A chain is a run of linked lines of one lane and ring with the line after them; a drained
    /// request, and what is submitted after it, starts after all earlier submissions of its lane and ring.
    pub fn of(program: &Program, events: &[Event]) -> Order {
        let lines = &program.lines;
        let mut earlier = vec![0u64; lines.len()];
        let mut invoked = vec![false; lines.len()];
        // Which ring a request went to: a slot's name may have got another ring meanwhile, so it is the line that made it which counts.
        let mut rings = vec![None; lines.len()];
        for event in events {
            if let Event::Invoke { call, slots, .. } = event
                && let Some(line) = lines.get(call.0 as usize)
            {
                invoked[call.0 as usize] = true;
                rings[call.0 as usize] = line.via.and(slots.last().copied());
            }
        }
        let one_ring = |a: usize, b: usize| {
            lines[a].lane == lines[b].lane && rings[a].is_some() && rings[a] == rings[b]
        };
        let linked = |l: &Line| {
            l.via.is_some_and(|v| v.flags.0 & (SqeFlags::LINK.0 | SqeFlags::HARDLINK.0) != 0)
        };
        // Links: each member waits for the one before it.
        for (i, line) in lines.iter().enumerate() {
            if !linked(line) {
                continue;
            }
            // A line that was left out does not end a chain: what is queued goes with the next request.
            if let Some(next) = (i + 1..lines.len()).find(|k| one_ring(i, *k)) {
                earlier[next] |= bit(i);
            }
        }
        // Drains, among requests of one lane (another lane's submissions may interleave in any order). A later request waits with the
        // drain until all earlier ones are complete, but not for the drain itself: the kernel holds back what is queued behind a
        // deferred request, and lets it all go at once (io_uring/io_uring.c:io_drain_req, req_need_defer, 6.12), whatever
        // io_uring_enter(2) says of later requests.
        for (i, line) in lines.iter().enumerate() {
            let Some(via) = line.via else { continue };
            if !via.flags.has(SqeFlags::DRAIN) || !invoked[i] {
                continue;
            }
            let same = |k: usize| k != i && one_ring(i, k);
            let before: u64 = (0..i).filter(|k| same(*k)).map(bit).sum();
            for (k, earlier) in earlier.iter_mut().enumerate().skip(i) {
                if k == i || same(k) {
                    *earlier |= before;
                }
            }
        }
        // Closure, so that a chain of three orders its ends as well.
        for _ in 0..lines.len() {
            let mut changed = false;
            for i in 0..earlier.len() {
                let mut all = earlier[i];
                for (k, e) in earlier.iter().enumerate() {
                    if earlier[i] & bit(k) != 0 {
                        all |= e;
                    }
                }
                changed |= all != earlier[i];
                earlier[i] = all;
            }
            if !changed {
                break;
            }
        }
        Order { earlier, real_time_only: false }
    }

    /// Whether `a` was surely over before `b` began.
    pub fn before(&self, a: Span, b: Span) -> bool {
        a.ret < b.inv || self.ordered(a.call, b.call)
    }

    /// Whether one of the two was surely over before the other began: they did not race.
    pub fn apart(&self, a: Span, b: Span) -> bool {
        self.before(a, b) || self.before(b, a)
    }

    /// Whether a ring orders line `a` before line `b`.
    pub fn ordered(&self, a: u16, b: u16) -> bool {
        !self.real_time_only
            && a != NOBODY
            && self.earlier.get(b as usize).is_some_and(|e| e & bit(a as usize) != 0)
    }

    /// Lines that a ring orders before `line`.
    pub fn predecessors(&self, line: u16) -> impl Iterator<Item = u16> + '_ {
        let mask = self.earlier.get(line as usize).copied().unwrap_or(0);
        (0..64u16).filter(move |k| mask & bit(*k as usize) != 0)
    }
}

fn bit(line: usize) -> u64 {
    1u64.checked_shl(line as u32).unwrap_or(0)
}

/// The line before this one in its linked chain, and whether the link is a hard one. Lines that were left out (`issued` says no) are not in it.
pub fn link_predecessor(
    program: &Program,
    line: usize,
    issued: impl Fn(usize) -> bool,
) -> Option<(usize, bool)> {
    let this = program.lines.get(line)?;
    let ring = this.via?.ring;
    let in_ring = |l: &Line| l.lane == this.lane && l.via.is_some_and(|v| v.ring == ring);
    let previous = (0..line).rev().find(|k| in_ring(&program.lines[*k]) && issued(*k))?;
    let flags = program.lines[previous].via?.flags;
    if flags.has(SqeFlags::HARDLINK) {
        Some((previous, true))
    } else if flags.has(SqeFlags::LINK) {
        Some((previous, false))
    } else {
        None
    }
}

/// Whether a request leaves its chain whole. Reads, writes and splices break it by an error or a short transfer; fsync, fallocate, ftruncate and
/// madvise do not break it even by an error, for they never mark the request as failed (io_uring/sync.c, truncate.c, advise.c against
/// io_uring/splice.c:io_splice and rw.c:io_complete_rw, 6.12 and 6.1).
pub fn completes_link(call: &Call, result: &history::CallResult) -> bool {
    let wanted = match call {
        Call::Pread { len, .. }
        | Call::Pwrite { len, .. }
        | Call::SpliceToPipe { len, .. }
        | Call::SpliceFromPipe { len, .. } => *len,
        Call::Preadv { iov, .. } | Call::Pwritev { iov, .. } => iov.iter().map(|(_, l)| *l).sum(),
        _ => return true,
    };
    result.is_ok_and(|n| n >= wanted)
}
