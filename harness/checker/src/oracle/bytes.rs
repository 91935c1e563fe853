//! Does every byte that was read have a writer, a hole or a zeroing that was allowed then?
//!
//! Verifies: each byte that `pread`, `load` and their like delivered is a value that the place may have held during the call.
//! Assumes: the history's order of invocations and returns.
//! Does not verify: that neighbouring bytes come from one moment (reads are not atomic, KERNEL facts 8d).
//!
//! This is also where a byte that must not be here is named: of another run, file or mount (the leak oracle's finding), out of a broken
//! link (the order oracle's), or simply stale, lost, misplaced or torn.

use super::{Findings, file_name, who};
use crate::model::World;
use crate::model::content::ObjId;
use crate::model::order::Span;
use crate::model::value::{Cand, Mismatch, Val, compare};
use crate::{AnomalyKind, Oracle};
use history::{Payload, Run, stamp};

/// Looks at what a call read into anonymous memory, or loaded.
pub fn look(world: &mut World, call: u16, findings: &mut Findings) {
    let Some(Payload::Read { data, tail_intact, .. }) = world.seen[call as usize].payload else {
        return;
    };
    let reads = world.pending[call as usize].reads.clone();
    let span = world.span(call);
    let total: u64 = reads.iter().map(|r| r.len).sum();
    let got: u64 = data.runs.iter().map(Run::len).fold(0, u64::saturating_add);
    if got != total {
        world.malformed = true;
        return;
    }
    let places = crate::oracle::counts::read_places(world, call);
    let mut rest: &[Run] = &data.runs;
    let mut held: Option<Run> = None;
    for read in &reads {
        let runs = take(&mut rest, &mut held, read.len);
        let mut wrong = None;
        let starts: Vec<u64> = match &places {
            Some(places) => places.iter().map(|p| p + read.skip).collect(),
            None => vec![read.start],
        };
        // What was seen may have come from any of several positions: that it fits one says nothing about what lies there.
        let sure = starts.len() == 1;
        for start in starts {
            let mut cands = world.cands(read.obj, start, start + read.len, span);
            if let Some(val) = read.mapped.and_then(|f| world.files[f].behind_mappings) {
                cands.push(Cand { start, end: start + read.len, val });
            }
            wrong = compare(&cands, world.run, start, &runs);
            if wrong.is_some() {
                continue;
            }
            let odd = read.mapped.is_some_and(|f| world.files[f].behind_mappings.is_some());
            // A page in hand may differ from what the file has by now.
            let in_hand = || world.zeroed_in_place(read.obj, start, start + read.len, span);
            if sure && !odd && in_hand().is_empty() {
                world.learn(read.obj, start, &runs, span);
            }
            break;
        }
        if let Some(wrong) = wrong {
            report(world, findings, Some(call), read.obj, span, &wrong, &who(world, call));
            return;
        }
    }
    if !tail_intact && !is_direct(world, call) {
        findings.call(
            AnomalyKind::MisplacedByte,
            Oracle::Bytes,
            call,
            format!("{} changed bytes of its buffer past the count it returned.", who(world, call)),
        );
    }
}

/// O_DIRECT reads fill the buffer past the end of file too (fs/iomap/direct-io.c:__iomap_dio_rw trims the count only, 6.12).
fn is_direct(world: &World, call: u16) -> bool {
    world.open_in(call, 0).is_some_and(|open| world.is_direct(open))
}

/// Takes the next `len` bytes off a list of runs.
fn take(rest: &mut &[Run], held: &mut Option<Run>, mut len: u64) -> Vec<Run> {
    let mut out = Vec::new();
    while len > 0 {
        let run = match held.take() {
            Some(run) => run,
            None => match rest.split_first() {
                Some((run, more)) => {
                    *rest = more;
                    run.clone()
                }
                None => break,
            },
        };
        if run.len() <= len {
            len -= run.len();
            out.push(run);
            continue;
        }
        let (a, b) = split(run, len);
        out.push(a);
        *held = Some(b);
        len = 0;
    }
    out
}

fn split(run: Run, at: u64) -> (Run, Run) {
    match run {
        Run::Zero { len } => (Run::Zero { len: at }, Run::Zero { len: len - at }),
        Run::Signed { run, call, offset, len } => (
            Run::Signed { run, call, offset, len: at },
            Run::Signed { run, call, offset: offset.wrapping_add(at), len: len - at },
        ),
        Run::Raw(mut bytes) => {
            let tail = bytes.split_off((at as usize).min(bytes.len()));
            (Run::Raw(bytes), Run::Raw(tail))
        }
    }
}

/// Names the kind of a mismatch and reports it.
pub fn report(
    world: &mut World,
    findings: &mut Findings,
    call: Option<u16>,
    obj: ObjId,
    span: Span,
    wrong: &Mismatch,
    reader: &str,
) {
    let cands = world.cands(obj, wrong.at, wrong.at + wrong.len, span);
    world.order.real_time_only = true;
    let racing = world.cands(obj, wrong.at, wrong.at + wrong.len, span);
    world.order.real_time_only = false;
    let explained_by_race =
        compare(&racing, world.run, wrong.at, std::slice::from_ref(&wrong.seen)).is_none();
    let owner = world.owner[obj.0 as usize];
    let place = match owner {
        Some(file) if world.shown.contains_key(&obj) => {
            format!("{:#x} in the pinned pages of {}", wrong.at, file_name(world, file))
        }
        Some(file) if world.files[file].obj == obj => {
            format!("{}+{:#x}", file_name(world, file), wrong.at)
        }
        Some(file) => {
            format!("offset {:#x} of a private mapping of {}", wrong.at, file_name(world, file))
        }
        None if world.pipes.values().any(|pipe| pipe.obj == obj) => {
            format!("byte {:#x} of the pipe's stream", wrong.at)
        }
        None => format!("byte {:#x} of the pinned memory", wrong.at),
    };
    let (kind, oracle, whose) = if explained_by_race {
        let whose = describe(world, &wrong.seen);
        (AnomalyKind::BrokenOrder, Oracle::Order, format!("{whose}, in spite of the ring's order"))
    } else {
        classify(world, obj, wrong)
    };
    let sentence = format!(
        "{reader} saw {} wrong byte{} at {place}: {whose}; allowed there: {}.",
        wrong.len,
        if wrong.len == 1 { "" } else { "s" },
        allowed(world, &cands, wrong.at),
    );
    findings.push(crate::Anomaly {
        kind,
        oracle,
        call: call.map(program::CallId),
        path: owner.filter(|f| world.files[*f].gate.is_none()).map(|f| world.files[f].path),
        mount: owner.and_then(|f| world.files[f].mount()),
        sentence,
    });
}

fn describe(world: &World, seen: &Run) -> String {
    let gate = |call: u16| (0..2).find(|n| stamp::call_gate(*n) == call);
    match seen {
        Run::Signed { run, call, offset, .. } if *run == world.run && gate(*call).is_some() => {
            let gate = gate(*call).unwrap_or_default();
            format!("what lay on the device of g{gate} at {offset:#x} when the program began")
        }
        Run::Zero { .. } => "zeros".to_owned(),
        Run::Signed { run, call, offset, .. }
            if *run == world.run && *call == stamp::CALL_POISON =>
        {
            format!("the poison that was laid there before the read (offset {offset:#x})")
        }
        Run::Signed { run, call, offset, .. } if *run == world.run => {
            format!("bytes that {} meant for offset {offset:#x}", who(world, *call))
        }
        Run::Signed { run, call, offset, .. } => {
            format!(
                "bytes of run {run}, call #{call}, meant for offset {offset:#x} (this is run {})",
                world.run
            )
        }
        Run::Raw(bytes) => {
            let shown: Vec<String> = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
            let dots = if bytes.len() > 16 { " ..." } else { "" };
            format!("{}{dots}, which no call wrote whole", shown.join(" "))
        }
    }
}

/// What kind of wrong it is, whose question that answers, and whose bytes they are.
fn classify(world: &World, obj: ObjId, wrong: &Mismatch) -> (AnomalyKind, Oracle, String) {
    let whose = describe(world, &wrong.seen);
    match &wrong.seen {
        Run::Zero { .. } => (AnomalyKind::LostByte, Oracle::Bytes, whose),
        Run::Raw(_) => (AnomalyKind::TornByte, Oracle::Bytes, whose),
        Run::Signed { call, .. } if *call == stamp::CALL_POISON => {
            (AnomalyKind::TornByte, Oracle::Bytes, whose)
        }
        Run::Signed { run, .. } if *run != world.run => {
            (AnomalyKind::ForeignByte, Oracle::Leak, format!("{whose}: from another run"))
        }
        Run::Signed { call, offset, .. } => {
            let ever = &world.ever[world.behind(obj).0 as usize];
            let val =
                Val::Signed { call: *call, delta: (*offset as i64).wrapping_sub(wrong.at as i64) };
            let by_call = |c: &&Cand| matches!(c.val, Val::Signed { call: by, .. } if by == *call);
            if of_another_file(world, obj, *call) {
                let what = format!("{whose}: of a file that the page never was of");
                (AnomalyKind::ForeignByte, Oracle::Leak, what)
            } else if ever.iter().any(|c| c.start <= wrong.at && wrong.at < c.end && c.val == val) {
                let why = match world.shown.contains_key(&obj) {
                    true => "which the file had at another time",
                    false => "since replaced",
                };
                (AnomalyKind::StaleByte, Oracle::Bytes, format!("{whose}, {why}"))
            } else if ever.iter().any(|c| by_call(&c)) || world.owner[obj.0 as usize].is_none() {
                (AnomalyKind::MisplacedByte, Oracle::Bytes, whose)
            } else {
                (AnomalyKind::ForeignByte, Oracle::Leak, format!("{whose}, but never here"))
            }
        }
    }
}

/// Whether a pipe shows what a call wrote to other files only than those whose pages it refers to.
fn of_another_file(world: &World, obj: ObjId, call: u16) -> bool {
    let Some(pipe) = world.pipes.values().find(|p| p.obj == obj) else { return false };
    let wrote = |file: usize| {
        let ever = &world.ever[world.files[file].obj.0 as usize];
        ever.iter().any(|c| matches!(c.val, Val::Signed { call: by, .. } if by == call))
    };
    let referred = |file: usize| pipe.refs.iter().any(|r| r.file == file);
    !pipe.refs.is_empty()
        && (0..world.files.len()).any(|f| !referred(f) && wrote(f))
        && !(0..world.files.len()).any(|f| referred(f) && wrote(f))
}

/// The candidates in words.
fn allowed(world: &World, cands: &[Cand], at: u64) -> String {
    let mut words: Vec<String> = cands
        .iter()
        .filter(|c| c.start <= at && at < c.end)
        .map(|c| match c.val {
            Val::Zero => "zero".to_owned(),
            Val::Any => "anything".to_owned(),
            Val::Signed { call, delta } => {
                format!("{} (meant for {:#x})", who(world, call), at.wrapping_add_signed(delta))
            }
        })
        .collect();
    words.sort();
    words.dedup();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
