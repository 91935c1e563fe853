//! Do SEEK_HOLE, SEEK_DATA, FIEMAP and dedupe tell the truth about the content?
//!
//! Verifies: SEEK_DATA skips no data, SEEK_HOLE names a hole or the end; FIEMAP (which syncs first) leaves no data without an extent and its
//! extents do not overlap; dedupe says "same" only of what may be the same and "differs" only of what may differ.
//! Assumes: a byte with a nonzero writer is data wherever it surely is.
//! Does not verify: that zeros are holes (a file system may keep them as data).

use super::{Findings, file_name, who};
use crate::model::content::ObjId;
use crate::model::order::Span;
use crate::model::value::{Cand, Val};
use crate::model::{World, partition};
use crate::{AnomalyKind, Oracle};
use history::{Extent, Payload};
use program::{Call, Whence};

/// FIEMAP_EXTENT_UNWRITTEN
pub const UNWRITTEN: u32 = 0x800;
/// FIEMAP_EXTENT_SHARED
pub const SHARED: u32 = 0x2000;
/// FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC
pub const NO_PLACE: u32 = 0x2 | 0x4;

/// Looks at a call that returned.
pub fn look(world: &World, call: u16, findings: &mut Findings) {
    let seen = &world.seen[call as usize];
    match (world.call_of(call), seen.result, seen.payload) {
        (Call::Lseek { offset, whence, .. }, Some(result), _) if *whence != Whence::Set => {
            seek(world, call, *offset, *whence, result, findings);
        }
        (Call::Fiemap { .. }, Some(Ok(_)), Some(Payload::Extents(extents))) => {
            let Some(open) = world.open_in(call, 0) else { return };
            let file = world.opens[open].file;
            let name = who(world, call);
            fiemap(world, Some(call), file, world.span(call), extents, &name, findings);
        }
        (
            Call::Fideduperange { src_offset, dst_offset, .. },
            Some(Ok(n)),
            Some(Payload::Dedupe { status }),
        ) => dedupe(world, call, *src_offset, *dst_offset, n, *status, findings),
        _ => {}
    }
}

/// The first range within [start, end) that surely holds nonzero data, by every candidate.
fn sure_data(world: &World, obj: ObjId, start: u64, end: u64, span: Span) -> Option<(u64, u64)> {
    let cands = world.cands(obj, start, end, span);
    partition(&cands, start, end)
        .into_iter()
        // A signed byte is zero once in 256; eight of them in a row are not.
        .filter(|(a, b, _)| b - a >= 8)
        .find(|(_, _, vals)| vals.iter().all(|v| matches!(v, Val::Signed { .. })))
        .map(|(a, b, _)| (a, b))
}

fn seek(
    world: &World,
    call: u16,
    offset: u64,
    whence: Whence,
    result: history::CallResult,
    findings: &mut Findings,
) {
    let Some(open) = world.open_in(call, 0) else { return };
    let file = world.opens[open].file;
    let obj = world.files[file].obj;
    let span = world.span(call);
    if world.size_in_motion(file, span) {
        // A seek takes no lock against a change of the layout (fs/xfs/xfs_file.c:xfs_file_llseek, 6.1): it may see a collapse half done.
        return;
    }
    let (min, max) = world.sizes(file, span, None);
    let (from, to) = match (whence, result) {
        (Whence::Data, Ok(at)) => (offset, at.min(min)),
        (Whence::Data, Err(history::Errno(6))) => (offset, min),
        (Whence::Hole, Ok(at)) => {
            let hole_end = (at + 1).next_multiple_of(8).min(min);
            (at, if at < min { hole_end.max(at + 8) } else { at })
        }
        _ => return,
    };
    if let Ok(at) = result {
        let limit = if whence == Whence::Data { max.saturating_sub(1) } else { max };
        if at < offset || at > limit {
            findings.call(
                AnomalyKind::WrongResult,
                Oracle::Bytes,
                call,
                format!("{} returned {at}, outside {offset} to {limit}.", who(world, call)),
            );
            return;
        }
    }
    if from < to
        && let Some((a, b)) = sure_data(world, obj, from, to, span)
    {
        let what = if whence == Whence::Data { "skips" } else { "calls a hole" };
        findings.call(
            AnomalyKind::WrongResult,
            Oracle::Bytes,
            call,
            format!(
                "{} {what} {:#x} to {:#x} of {}, which surely holds data.",
                who(world, call),
                a,
                b,
                file_name(world, file)
            ),
        );
    }
}

/// Looks at a file's extents.
pub fn fiemap(
    world: &World,
    call: Option<u16>,
    file: usize,
    span: Span,
    extents: &[Extent],
    reader: &str,
    findings: &mut Findings,
) {
    let name = file_name(world, file);
    let mut report = |kind, sentence: String| {
        findings.push(crate::Anomaly {
            kind,
            oracle: Oracle::Media,
            call: call.map(program::CallId),
            path: Some(world.files[file].path),
            mount: Some(world.files[file].id.mount),
            sentence,
        });
    };
    for pair in extents.windows(2) {
        if pair[0].logical.saturating_add(pair[0].length) > pair[1].logical {
            report(
                AnomalyKind::WrongResult,
                format!("{reader}: extents of {name} overlap at {:#x}.", pair[1].logical),
            );
            return;
        }
    }
    let (min, _) = world.sizes(file, span, None);
    let mut at = 0;
    let obj = world.files[file].obj;
    let ends = extents
        .iter()
        .filter(|e| e.flags & UNWRITTEN == 0)
        .map(|e| (e.logical, e.logical.saturating_add(e.length)))
        .chain([(min, min)]);
    for (start, end) in ends {
        if at < start.min(min)
            && let Some((a, b)) = sure_data(world, obj, at, start.min(min), span)
        {
            report(
                AnomalyKind::LostByte,
                format!(
                    "{reader}: {a:#x} to {b:#x} of {name} surely holds data and has no written extent."
                ),
            );
            return;
        }
        at = at.max(end);
    }
}

fn dedupe(
    world: &World,
    call: u16,
    src_offset: u64,
    dst_offset: u64,
    n: u64,
    status: i32,
    findings: &mut Findings,
) {
    let (Some(src), Some(dst)) = (world.open_in(call, 0), world.open_in(call, 1)) else { return };
    let Call::Fideduperange { len, .. } = world.call_of(call) else { return };
    let span = world.span(call);
    // A length that is not whole blocks is shortened, and reported whole all the same (fs/remap_range.c:vfs_dedupe_file_range, 6.12).
    let range = if status == 0 { n / 4096 * 4096 } else { *len };
    if range == 0 || status < 0 {
        return;
    }
    let side = |open: usize, offset: u64| {
        let obj = world.files[world.opens[open].file].obj;
        let mut cands = world.cands(obj, offset, offset.saturating_add(range), span);
        for c in &mut cands {
            *c = Cand {
                start: c.start - offset,
                end: c.end - offset,
                val: c.val.shifted(-(offset as i64)),
            };
        }
        cands
    };
    let (a, b) = (side(src, src_offset), side(dst, dst_offset));
    let mut cuts: Vec<u64> = a.iter().chain(&b).flat_map(|c| [c.start, c.end]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut surely_same = true;
    let mut surely_differs = None;
    for w in cuts.windows(2) {
        let of = |cands: &[Cand]| -> Vec<Val> {
            cands.iter().filter(|c| c.start <= w[0] && w[1] <= c.end).map(|c| c.val).collect()
        };
        let (x, y) = (of(&a), of(&b));
        let any = x.contains(&Val::Any) || y.contains(&Val::Any);
        surely_same &= !any && x.len() == 1 && x == y;
        // Bytes of different writers agree by chance once in 256: eight do not.
        if !any
            && !x.is_empty()
            && !y.is_empty()
            && w[1] - w[0] >= 8
            && !x.iter().any(|v| y.contains(v))
        {
            surely_differs.get_or_insert(w[0]);
        }
    }
    // Known: on DAX what lies behind holes and unwritten extents is compared instead of the zeros they stand for.
    let mount = world.files[world.opens[src].file].id.mount;
    if mount.is_dax()
        && world.policy.knows(crate::Known::DaxDedupeMedia)
        && a.iter().chain(&b).any(|c| c.val == Val::Zero)
    {
        return;
    }
    let wrong = match (status, surely_differs) {
        (0, Some(at)) => format!("says the ranges are the same, but they differ from {at:#x} on"),
        (1, _) if surely_same => "says the ranges differ, but they are the same".to_owned(),
        _ => return,
    };
    findings.call(
        AnomalyKind::WrongResult,
        Oracle::Bytes,
        call,
        format!("{} {wrong}.", who(world, call)),
    );
}
