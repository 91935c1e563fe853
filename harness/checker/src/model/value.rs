//! What a byte may be, and whether what was read is among it.

use history::{Run, stamp};
use smallvec::SmallVec;

/// What a byte at object offset `o` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Val {
    /// Zero.
    Zero,
    /// Signed by a call of this run for offset `o + delta`.
    Signed {
        /// The writer.
        call: u16,
        /// Meant offset minus place.
        delta: i64,
    },
    /// Anything: we cannot say.
    Any,
}

impl Val {
    /// The same byte seen at another place: `o' = o + by`.
    pub fn shifted(self, by: i64) -> Val {
        match self {
            Val::Signed { call, delta } => Val::Signed { call, delta: delta - by },
            other => other,
        }
    }

    /// The byte at `o`, unless it is anything.
    pub fn byte(self, run: u32, o: u64) -> Option<u8> {
        match self {
            Val::Zero => Some(0),
            Val::Signed { call, delta } => {
                Some(stamp::byte(run, call, o.wrapping_add_signed(delta)))
            }
            Val::Any => None,
        }
    }
}

/// A set of values for one place; nearly always one.
pub type Vals = SmallVec<[Val; 2]>;

/// A value that a range of places may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cand {
    /// First place.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// The value.
    pub val: Val,
}

/// A place where something was seen that is not among the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// First wrong place, in the object's offsets.
    pub at: u64,
    /// How many places in a row are wrong (at least; counting stops at the end of the run read).
    pub len: u64,
    /// What was seen there: a run that begins at `at`.
    pub seen: Run,
}

/// Compares what was read at `start..` with the candidates.
///
/// Word-wise identity first, byte by byte only where that fails: a torn word is a mixture of allowed bytes.
pub fn compare(cands: &[Cand], run: u32, start: u64, runs: &[Run]) -> Option<Mismatch> {
    let mut at = start;
    for seen in runs {
        let len = seen.len();
        let end = at + len;
        let same = |val: Val| match (val, seen) {
            (Val::Any, _) => true,
            (Val::Zero, Run::Zero { .. }) => true,
            (Val::Signed { call, delta }, Run::Signed { run: r, call: c, offset, .. }) => {
                *r == run && *c == call && at.wrapping_add_signed(delta) == *offset
            }
            _ => false,
        };
        let mut place = at;
        while place < end {
            // The farthest end of an equal candidate that covers this place.
            let reach = cands
                .iter()
                .filter(|c| c.start <= place && place < c.end && same(c.val))
                .map(|c| c.end)
                .max();
            if let Some(reach) = reach {
                place = reach.min(end);
                continue;
            }
            let byte = byte_of(seen, place - at);
            let allowed = cands
                .iter()
                .filter(|c| c.start <= place && place < c.end)
                .any(|c| c.val.byte(run, place).is_none_or(|b| b == byte));
            if !allowed {
                return Some(mismatch(cands, run, at, seen, place));
            }
            place += 1;
        }
        at = end;
    }
    None
}

/// Byte `index` of a run.
fn byte_of(seen: &Run, index: u64) -> u8 {
    match seen {
        Run::Zero { .. } => 0,
        Run::Signed { run, call, offset, .. } => stamp::byte(*run, *call, offset + index),
        Run::Raw(bytes) => bytes.get(index as usize).copied().unwrap_or(0),
    }
}

fn mismatch(cands: &[Cand], run: u32, at: u64, seen: &Run, place: u64) -> Mismatch {
    // How far the wrong goes on, looking at each byte; bounded by the run's length.
    let end = at + seen.len();
    let mut last = place;
    while last < end {
        let byte = byte_of(seen, last - at);
        let covering = cands.iter().filter(|c| c.start <= last && last < c.end);
        if covering.into_iter().any(|c| c.val.byte(run, last).is_none_or(|b| b == byte)) {
            // A lone byte of a wrong run may agree by chance (1/256): look at the next as well.
            let next = last + 1;
            let agrees = next < end && {
                let byte = byte_of(seen, next - at);
                cands
                    .iter()
                    .filter(|c| c.start <= next && next < c.end)
                    .any(|c| c.val.byte(run, next).is_none_or(|b| b == byte))
            };
            if agrees || next >= end {
                break;
            }
        }
        last += 1;
    }
    let skip = place - at;
    let len = (last - place).max(1);
    let part = match seen {
        Run::Zero { .. } => Run::Zero { len },
        Run::Signed { run, call, offset, .. } => {
            Run::Signed { run: *run, call: *call, offset: offset + skip, len }
        }
        Run::Raw(bytes) => {
            let from = (skip as usize).min(bytes.len());
            let to = (from + (len as usize).min(64)).min(bytes.len());
            Run::Raw(bytes[from..to].to_vec())
        }
    };
    Mismatch { at: place, len, seen: part }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 3;

    fn signed(call: u16, offset: u64, len: u64) -> Run {
        Run::Signed { run: RUN, call, offset, len }
    }

    #[test]
    fn a_run_may_be_covered_by_several_candidates() {
        let cands = [
            Cand { start: 0, end: 8, val: Val::Signed { call: 1, delta: 0 } },
            Cand { start: 8, end: 32, val: Val::Signed { call: 1, delta: 0 } },
            Cand { start: 8, end: 32, val: Val::Zero },
        ];
        assert_eq!(compare(&cands, RUN, 0, &[signed(1, 0, 32)]), None);
        assert_eq!(compare(&cands, RUN, 0, &[signed(1, 0, 8), Run::Zero { len: 24 }]), None);
    }

    #[test]
    fn a_torn_word_of_allowed_bytes_is_allowed_and_its_neighbour_is_not() {
        let cands = [
            Cand { start: 0, end: 8, val: Val::Signed { call: 1, delta: 0 } },
            Cand { start: 0, end: 8, val: Val::Zero },
        ];
        let mut bytes: Vec<u8> = (0..8).map(|o| stamp::byte(RUN, 1, o)).collect();
        bytes[..3].fill(0);
        assert_eq!(compare(&cands, RUN, 0, &[Run::Raw(bytes.clone())]), None);
        bytes[5] ^= 1;
        let wrong = compare(&cands, RUN, 0, &[Run::Raw(bytes)]).expect("a flipped bit is wrong");
        assert_eq!((wrong.at, wrong.len), (5, 1));
    }

    #[test]
    fn the_right_stamp_in_the_wrong_place_is_wrong() {
        let cands = [Cand { start: 0, end: 64, val: Val::Signed { call: 1, delta: 0 } }];
        let wrong = compare(&cands, RUN, 0, &[signed(1, 8, 64)]).expect("shifted by a word");
        assert_eq!(wrong.at, 0);
        let foreign = Run::Signed { run: RUN + 1, call: 1, offset: 0, len: 8 };
        assert!(compare(&cands, RUN, 0, &[foreign]).is_some());
    }
}
