//! The calls of a run in the order in which they were issued: when each ran, on which files, and how it ended.
//!
//! Each line counts once: what a lying guest says about it a second time is not heard.

use super::ending::Ending;
use super::files::{File, Files, Place, Use};
use history::{Event, History};
use program::{Buf, Call, CallId, PAGE, Program};
use std::ops::Range;

/// A file that a call has to do with, and the part of it.
#[derive(Clone, Debug)]
pub struct Touch {
    pub(super) file: usize,
    pub(super) range: Range<u64>,
}

/// A call that was issued.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Which line.
    pub id: CallId,
    /// When it was issued.
    pub begun: u64,
    /// When it returned, and how.
    pub ended: Option<(u64, Ending)>,
    /// Where it was seen to wait.
    pub blocked: Option<&'a str>,
    /// Where.
    pub place: Place,
    /// The file that it is about, as it was when the call began; none if it did not exist, or there is none.
    pub file: Option<File>,
    /// Whether its descriptor is an O_DIRECT one.
    pub direct: bool,
    /// The files that it has to do with, the one that it is about first.
    pub touches: Vec<Touch>,
}

/// The issued calls of a run, in the order of their lines.
pub fn of<'a>(program: &Program, history: &'a History) -> Vec<Seen<'a>> {
    let mut files = Files::default();
    let mut seen: Vec<Option<Seen<'a>>> = vec![None; program.lines.len()];
    let mut used: Vec<(Vec<Use>, &'a [CallId])> = vec![(Vec::new(), &[]); program.lines.len()];
    for event in &history.events {
        match event {
            Event::Invoke { seq, call, slots, .. } => {
                let at = usize::from(call.0);
                let Some(line) = program.lines.get(at) else { continue };
                if seen[at].is_none() {
                    let mut uses = files.uses(&line.call, slots);
                    about_first(&line.call, &mut uses);
                    seen[at] = Some(invoked(*call, *seq, &line.call, &uses, &files));
                    used[at] = (uses, slots);
                }
            }
            Event::Return { seq, call, result, payload, .. } => {
                let at = usize::from(call.0);
                let Some(Some(it)) = seen.get_mut(at) else { continue };
                if it.ended.is_some() {
                    continue;
                }
                let call = &program.lines[at].call;
                it.ended = Some((*seq, Ending::of(call, *result, payload)));
                if let Ok(moved) = result {
                    let (uses, slots) = &used[at];
                    files.returned(it.id, call, *moved, payload, slots, uses);
                }
            }
            Event::Blocked { call, wchan, .. } => {
                if let Some(Some(it)) = seen.get_mut(usize::from(call.0)) {
                    it.blocked.get_or_insert(wchan);
                }
            }
            _ => {}
        }
    }
    seen.into_iter().flatten().collect()
}

/// Puts the file that the call is about first: what is written, not what it comes from.
fn about_first(call: &Call, uses: &mut [Use]) {
    if matches!(call, Call::Fideduperange { .. } | Call::CopyFileRange { .. }) && uses.len() == 2 {
        uses.swap(0, 1);
    }
}

fn invoked<'a>(id: CallId, begun: u64, call: &Call, uses: &[Use], files: &Files) -> Seen<'a> {
    // Nothing but its buffer leads from a read of a pipe to a file.
    let about = uses.first().filter(|_| call.kind().has_file());
    let file = about.and_then(|about| files.get(about.file)).copied();
    let place = match (file, call.paths().next()) {
        (Some(file), _) => file.place,
        (None, Some(path)) => Place::On(path.mount),
        (None, None) => Place::Elsewhere,
    };
    let ranges = ranges(call);
    let whole = 0..u64::MAX;
    let touches = uses
        .iter()
        .enumerate()
        .map(|(index, used)| {
            let range = ranges.get(index).unwrap_or(&whole);
            let from = used.mapped_at.unwrap_or(0);
            let range = range.start.saturating_add(from)..range.end.saturating_add(from);
            Touch { file: used.file, range }
        })
        .collect();
    Seen {
        id,
        begun,
        ended: None,
        blocked: None,
        place,
        file,
        direct: about.is_some_and(|about| about.direct),
        touches,
    }
}

/// The parts of the files that a call uses, each in its file or mapping, the file that it is about first. What is not there is the whole.
pub fn ranges(call: &Call) -> Vec<Range<u64>> {
    let part = |offset: u64, len: u64| offset..offset.saturating_add(len);
    match call {
        Call::Pread { offset, len, .. } | Call::Pwrite { offset, len, .. } => {
            with_buffers(Some(part(*offset, *len)), call)
        }
        Call::Preadv { offset, iov, .. } | Call::Pwritev { offset, iov, .. } => {
            let len = iov.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
            with_buffers(Some(part(*offset, len)), call)
        }
        Call::Readv { .. } | Call::Writev { .. } => with_buffers(Some(0..u64::MAX), call),
        Call::ReadPipe { .. } => with_buffers(None, call),
        Call::SpliceToPipe { offset, len, .. }
        | Call::SpliceFromPipe { offset, len, .. }
        | Call::SyncFileRange { offset, len, .. }
        | Call::Load { offset, len, .. }
        | Call::Store { offset, len, .. }
        | Call::Msync { offset, len, .. }
        | Call::Madvise { offset, len, .. }
        | Call::Vmsplice { offset, len, .. }
        | Call::ProcessVmReadv { offset, len, .. }
        | Call::ProcessVmWritev { offset, len, .. }
        | Call::ProcMemPread { offset, len, .. }
        | Call::ProcMemPwrite { offset, len, .. }
        | Call::RegisterBuffers { offset, len, .. }
        | Call::UpdateBuffers { offset, len, .. }
        | Call::RegMr { offset, len, .. }
        | Call::PinBasicTest { offset, len, .. }
        | Call::PinLongtermTestStart { buf: Buf::Map(_, offset), len, .. }
        | Call::Mmap { offset, len, .. } => vec![part(*offset, *len)],
        Call::Fallocate { mode, offset, len, .. } => {
            use program::FallocateMode as M;
            let moves = matches!(mode, M::CollapseRange | M::InsertRange);
            vec![if moves { *offset..u64::MAX } else { part(*offset, *len) }]
        }
        Call::Truncate { len, .. } | Call::Ftruncate { len, .. } => vec![part(*len, u64::MAX)],
        Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
            let len = if *len == 0 { u64::MAX } else { *len };
            vec![part(*dst_offset, len), part(*src_offset, len)]
        }
        Call::Fideduperange { dst_offset, src_offset, len, .. }
        | Call::CopyFileRange { dst_offset, src_offset, len, .. } => {
            vec![part(*dst_offset, *len), part(*src_offset, *len)]
        }
        Call::Sendfile { src_offset, len, .. } => vec![0..u64::MAX, part(*src_offset, *len)],
        _ => Vec::new(),
    }
}

fn with_buffers(first: Option<Range<u64>>, call: &Call) -> Vec<Range<u64>> {
    let buffers = call.buffers().filter_map(|(buf, len)| match buf {
        Buf::Map(_, offset) => Some(offset..offset.saturating_add(len)),
        Buf::Anon(_) => None,
    });
    first.into_iter().chain(buffers).collect()
}

/// Whether two parts have a page in common.
pub fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    let page = |range: &Range<u64>| range.start / PAGE..range.end.div_ceil(PAGE);
    let (one, other) = (page(one), page(other));
    one.start < other.end && other.start < one.end
}
