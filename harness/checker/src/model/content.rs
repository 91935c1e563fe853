//! The bytes of one object (a file, the private pages of a mapping, a pipe's stream) as intervals of versions.
//!
//! A version says: in [inv, ret] this range was assigned these values. A reader may see every version that had begun by the time it was
//! done, unless a later one had surely replaced it before the reader began. Versions of one place race byte by byte; no order is
//! assumed between neighbouring bytes.

use super::order::{Order, Span};
use super::value::{Cand, Val, Vals};
use smallvec::{SmallVec, smallvec};

/// Names an object of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjId(pub u32);

/// Where a version's bytes come from. Source offset = place + delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Src {
    /// Known values.
    Vals(Vals),
    /// A copy that is under way: what `obj` held during the version's own interval.
    Copy {
        /// Source object.
        obj: ObjId,
        /// Source offset minus place.
        delta: i64,
        /// The source is as it was before this very call (collapse and insert move all at once); otherwise a copy that reads where
        /// it has already written may hand its own bytes on.
        before: bool,
    },
    /// A view: whatever `obj` holds at the moment of reading (the untouched page of a private mapping).
    Through {
        /// Viewed object.
        obj: ObjId,
        /// Viewed offset minus place.
        delta: i64,
    },
    /// A reference to a page: whatever `obj` held at any moment from `since` until it is read (a page-cache page in a pipe may
    /// still be written, or be cut off from its file and keep what it had).
    Since {
        /// Referenced object.
        obj: ObjId,
        /// Referenced offset minus place.
        delta: i64,
        /// When the reference was taken.
        since: u64,
        /// From when on the page surely is not the object's any more.
        until: u64,
    },
}

/// One assignment.
#[derive(Clone, Debug)]
pub struct Version {
    /// When, and by which call.
    pub span: Span,
    /// Whether it surely happened and surely replaced what was there.
    pub sure: bool,
    /// The bytes.
    pub src: Src,
}

#[derive(Clone, Debug)]
struct Seg {
    start: u64,
    versions: SmallVec<[Version; 2]>,
}

/// All bytes of an object, from 0 to infinity.
#[derive(Clone, Debug)]
pub struct Content {
    segs: Vec<Seg>,
}

impl Content {
    /// An object that holds `src` everywhere.
    pub fn new(src: Src) -> Content {
        Content {
            segs: vec![Seg {
                start: 0,
                versions: smallvec![Version { span: Span::START, sure: true, src }],
            }],
        }
    }

    /// Index of the segment that holds `at`.
    fn index(&self, at: u64) -> usize {
        self.segs.partition_point(|s| s.start <= at) - 1
    }

    /// Makes `at` a segment boundary; returns the index of the segment that starts there.
    fn split(&mut self, at: u64) -> usize {
        if at == u64::MAX {
            return self.segs.len();
        }
        let i = self.index(at);
        if self.segs[i].start == at {
            return i;
        }
        let versions = self.segs[i].versions.clone();
        self.segs.insert(i + 1, Seg { start: at, versions });
        i + 1
    }

    /// Assigns a range. `settled`: no call that began before it is in flight, so what was replaced before it is forgotten.
    pub fn assign(&mut self, start: u64, end: u64, version: &Version, settled: u64, order: &Order) {
        if start >= end {
            return;
        }
        let first = self.split(start);
        let last = self.split(end);
        for seg in &mut self.segs[first..last] {
            forget(&mut seg.versions, settled, order);
            seg.versions.push(version.clone());
        }
    }

    /// Changes the versions of `call` within a range.
    pub fn amend(&mut self, start: u64, end: u64, call: u16, mut change: impl FnMut(&mut Version)) {
        if start >= end {
            return;
        }
        let first = self.split(start);
        let last = self.split(end);
        for seg in &mut self.segs[first..last] {
            for version in seg.versions.iter_mut().filter(|v| v.span.call == call) {
                change(version);
            }
        }
    }

    /// Changes every version.
    pub fn amend_all(&mut self, mut change: impl FnMut(&mut Version)) {
        for seg in &mut self.segs {
            seg.versions.iter_mut().for_each(&mut change);
        }
    }

    /// Replaces everything in a range by one sure version.
    pub fn settle(&mut self, start: u64, end: u64, version: &Version) {
        if start >= end {
            return;
        }
        let first = self.split(start);
        let last = self.split(end);
        self.segs[first].versions = smallvec![version.clone()];
        self.segs.drain(first + 1..last);
    }

    /// The versions that a reader in `span` may see, piece by piece.
    pub fn visible<'a>(
        &'a self,
        start: u64,
        end: u64,
        span: Span,
        order: &'a Order,
    ) -> impl Iterator<Item = (u64, u64, &'a Version)> {
        let first = self.index(start);
        self.segs[first..]
            .iter()
            .enumerate()
            .map_while(move |(k, seg)| {
                if seg.start >= end {
                    return None;
                }
                let stop = self.segs.get(first + k + 1).map_or(u64::MAX, |s| s.start);
                Some((seg, seg.start.max(start), stop.min(end)))
            })
            .flat_map(move |(seg, from, to)| {
                seg.versions.iter().filter_map(move |v| {
                    let begun = v.span.inv <= span.ret && !order.ordered(span.call, v.span.call);
                    let replaced = seg.versions.iter().any(|w| {
                        w.sure && order.before(v.span, w.span) && order.before(w.span, span)
                    });
                    (begun && !replaced).then_some((from, to, v))
                })
            })
    }

    /// Whether a page-sized or other range holds only known values (no view of another object).
    pub fn is_opaque(&self, start: u64, end: u64) -> bool {
        let first = self.index(start);
        self.segs[first..]
            .iter()
            .take_while(|s| s.start < end)
            .all(|s| s.versions.iter().all(|v| !matches!(v.src, Src::Through { .. })))
    }
}

/// Drops versions that nobody can see any more.
fn forget(versions: &mut SmallVec<[Version; 2]>, settled: u64, order: &Order) {
    if versions.len() < 2 {
        return;
    }
    let dead: SmallVec<[bool; 8]> = versions
        .iter()
        .map(|v| {
            versions.iter().any(|w| w.sure && w.span.ret < settled && order.before(v.span, w.span))
        })
        .collect();
    let mut index = 0;
    versions.retain(|_| {
        index += 1;
        !dead[index - 1]
    });
}

/// Deepest chain of copies under way that is followed; beyond it a byte may be anything. Copies that read from each other while both
/// run are rare, and each level is another call in flight.
const DEPTH_MAX: u32 = 6;
/// Most versions that one question may look at, copies followed; beyond it a byte may be anything. Each copy may have as many sources as
/// its place has versions, so without a bound a few overlapping copies that a pipe keeps from being forgotten cost gigabytes.
const STEPS_MAX: u32 = 1 << 16;

/// What a reader in `span` may see of `obj` in a range, leaving out what the call `without` assigned.
pub fn candidates(
    objects: &[Content],
    obj: ObjId,
    range: (u64, u64),
    span: Span,
    without: u16,
    order: &Order,
) -> Vec<Cand> {
    let (mut out, mut steps) = (Vec::new(), STEPS_MAX);
    let skip = Skip { call: without, in_place: false };
    collect(objects, obj, range, span, skip, order, 0, &mut steps, &mut out);
    out
}

/// Versions that are passed over.
#[derive(Clone, Copy, Debug)]
struct Skip {
    /// Those of this call.
    call: u16,
    /// Copies onto the place that they are read from.
    in_place: bool,
}

#[expect(clippy::too_many_arguments, reason = "a recursion's state, spelled out")]
fn collect(
    objects: &[Content],
    obj: ObjId,
    (start, end): (u64, u64),
    span: Span,
    Skip { call: without, in_place }: Skip,
    order: &Order,
    depth: u32,
    steps: &mut u32,
    out: &mut Vec<Cand>,
) {
    if start >= end {
        return;
    }
    if depth > DEPTH_MAX {
        out.push(Cand { start, end, val: Val::Any });
        return;
    }
    for (from, to, version) in objects[obj.0 as usize].visible(start, end, span, order) {
        if version.span.call == without && without != super::order::NOBODY {
            continue;
        }
        let Some(left) = steps.checked_sub(1) else {
            out.push(Cand { start, end, val: Val::Any });
            return;
        };
        *steps = left;
        let mut follow = |source: ObjId, delta: i64, span: Span, without: u16, in_place: bool| {
            let (Some(a), Some(b)) = (from.checked_add_signed(delta), to.checked_add_signed(delta))
            else {
                out.push(Cand { start: from, end: to, val: Val::Any });
                return;
            };
            let begin = out.len();
            let skip = Skip { call: without, in_place };
            collect(objects, source, (a, b), span, skip, order, depth + 1, steps, out);
            for cand in &mut out[begin..] {
                cand.start = cand.start.wrapping_add_signed(-delta);
                cand.end = cand.end.wrapping_add_signed(-delta);
                cand.val = cand.val.shifted(-delta);
            }
        };
        match &version.src {
            Src::Vals(vals) => {
                out.extend(vals.iter().map(|val| Cand { start: from, end: to, val: *val }));
            }
            Src::Copy { obj: source, delta, before } => {
                let window = Span { ret: version.span.ret.min(span.ret), ..version.span };
                if *source == obj && *delta == 0 {
                    // A copy onto the very same place brings back what was there in its time: it may have read before another write, and put
                    // down after it. Of two such, each shows by itself what it brings.
                    if !in_place {
                        follow(obj, 0, window, version.span.call, true);
                    }
                    continue;
                }
                let without = if *before { version.span.call } else { without };
                follow(*source, *delta, window, without, false);
            }
            Src::Through { obj: source, delta } => follow(*source, *delta, span, without, false),
            Src::Since { obj: source, delta, since, until } => {
                let ret = span.ret.min(*until);
                let window = Span { inv: *since, ret, call: super::order::NOBODY };
                follow(*source, *delta, window, without, false);
            }
        }
    }
}
