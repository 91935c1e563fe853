//! Could each call move as many bytes, and say the size or position, that it did?
//!
//! Verifies: counts of reads against the sizes that the file may have had; counts of writes, copies and splices; statx size, link count and DAX
//! state; lseek's SEEK_SET; bytes deduped.
//! Assumes: nothing beyond the model.
//! Does not verify: short counts that a fault in the buffer explains, beyond their bounds; stx_blocks (preallocation is the file system's own).

use super::errnos::buffer_faults;
use super::{Findings, file_name, who};
use crate::model::World;
use crate::model::order::Span;
use crate::{AnomalyKind, Known, Oracle, Policy};
use history::Payload;
use program::{Buf, Call, Whence};

/// What O_DIRECT moves, in bytes: logical blocks of the devices.
const SECTOR: u64 = 512;
/// What the pipe inside of sendfile holds, in bytes.
const PIPE: u64 = 64 << 10;

/// The offsets at which a positional read may have begun, if it is one.
pub fn read_places(world: &World, call: u16) -> Option<Vec<u64>> {
    match world.call_of(call) {
        Call::Readv { .. } => {
            let open = world.open_in(call, 0)?;
            Some(world.opens[open].pos.before_op(world.span(call), &world.order))
        }
        _ => None,
    }
}

/// Looks at a call that returned.
pub fn look(world: &mut World, policy: &Policy, call: u16, findings: &mut Findings) {
    let Some(Ok(n)) = world.seen[call as usize].result else { return };
    match world.call_of(call) {
        Call::Pread { offset, buf, len, .. } => {
            read(world, policy, call, &[*offset], &[(*buf, *len)], n, findings);
        }
        Call::Preadv { offset, iov, .. } => read(world, policy, call, &[*offset], iov, n, findings),
        Call::Readv { iov, .. } => {
            if let Some(places) = read_places(world, call) {
                read(world, policy, call, &places, iov, n, findings);
            }
        }
        Call::Pwrite { buf, len, .. } => write(world, policy, call, &[(*buf, *len)], n, findings),
        Call::Pwritev { iov, .. } | Call::Writev { iov, .. } => {
            write(world, policy, call, iov, n, findings);
        }
        Call::Sendfile { src_offset, len, .. } => {
            copied(world, call, 1, *src_offset, *len, n, true, findings);
        }
        Call::CopyFileRange { src_offset, len, .. } => {
            copied(world, call, 0, *src_offset, *len, n, false, findings);
        }
        Call::SpliceToPipe { offset, len, .. } => {
            copied(world, call, 0, *offset, *len, n, false, findings);
        }
        Call::SpliceFromPipe { len, .. } => {
            let pipe = world.seen[call as usize].slots.first().and_then(|s| world.pipes.get(&s.0));
            let beyond = pipe.is_some_and(|p| !p.confused && p.tail > p.head);
            if n > *len || beyond {
                wrong(
                    world,
                    call,
                    n,
                    findings,
                    format!("at most {len}, and no more than was put in"),
                );
            }
        }
        Call::Vmsplice { .. }
        | Call::Tee { .. }
        | Call::ReadPipe { .. }
        | Call::ProcessVmReadv { .. }
        | Call::ProcessVmWritev { .. }
        | Call::ProcMemPread { .. }
        | Call::ProcMemPwrite { .. }
        | Call::PinBasicTest { .. }
        | Call::RdmaWrite { .. }
        | Call::RdmaRead { .. }
        | Call::UpdateBuffers { .. } => super::sources::counts(world, call, n, findings),
        Call::Lseek { offset, whence: Whence::Set, .. } if n != *offset => {
            wrong(world, call, n, findings, format!("{offset}"));
        }
        Call::Fideduperange { len, .. } if n > *len => {
            wrong(world, call, n, findings, format!("at most {len}"));
        }
        Call::PinLongtermTestRead => shown(world, call, findings),
        Call::Open { .. } | Call::Statx { .. } => facts(world, call, findings),
        _ => {}
    }
}

/// How much came out of pinned pages: all that is in them.
fn shown(world: &World, call: u16, findings: &mut Findings) {
    let Some(Payload::Read { data, .. }) = world.seen[call as usize].payload else { return };
    let got = data.runs.iter().map(history::Run::len).fold(0, u64::saturating_add);
    if let Some(len) = world.tested_len(call).filter(|len| *len != got) {
        wrong(world, call, got, findings, format!("{len} bytes, which are pinned"));
    }
}

pub(super) fn wrong(world: &World, call: u16, n: u64, findings: &mut Findings, allowed: String) {
    findings.call(
        AnomalyKind::WrongResult,
        Oracle::Bytes,
        call,
        format!("{} returned {n}; allowed: {allowed}.", who(world, call)),
    );
}

fn read(
    world: &World,
    policy: &Policy,
    call: u16,
    places: &[u64],
    iov: &[(Buf, u64)],
    n: u64,
    findings: &mut Findings,
) {
    let Some(open) = world.open_in(call, 0) else { return };
    let file = world.opens[open].file;
    let span = world.span(call);
    let total: u64 = iov.iter().map(|(_, l)| *l).sum();
    let (may_fault, _) = buffer_faults(world, call, iov, true);
    let moving = world.size_in_motion(file, span);
    let sizes = world.files[file].size.during(span, None, &world.order);
    let expected = |size: u64, place: u64| size.saturating_sub(place).min(total);
    let counts: Vec<u64> = places
        .iter()
        .flat_map(|p| sizes.iter().map(move |s| (s, p)))
        .map(|(s, p)| expected(*s, *p))
        .collect();
    let (low, high) =
        (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(total));
    // Known: a hole of a DAX file read into a buffer that faults.
    let hole =
        n == 0 && may_fault && world.files[file].is_dax() && policy.knows(Known::DaxHoleReadFault);
    let fine = hole
        || counts.contains(&n)
        || moving && (low..=high).contains(&n)
        || may_fault && n <= high && n > 0;
    if !fine {
        let range = if low == high { format!("{low}") } else { format!("{low} to {high}") };
        let name = file_name(world, file);
        wrong(world, call, n, findings, format!("{range}, by the size of {name} then"));
    }
}

fn write(
    world: &World,
    policy: &Policy,
    call: u16,
    iov: &[(Buf, u64)],
    n: u64,
    findings: &mut Findings,
) {
    let total: u64 = iov.iter().map(|(_, l)| *l).sum();
    let (may_fault, gup) = buffer_faults(world, call, iov, false);
    // Known: an O_DIRECT write that met a fault at once says 0.
    let zero = policy.knows(Known::DirectWriteFault)
        && world.open_in(call, 0).is_some_and(|open| world.is_direct(open));
    let may_fault = may_fault || gup && zero;
    // A device ends where it ends.
    let total = match (world.open_in(call, 0), world.call_of(call)) {
        (Some(open), Call::Pwrite { offset, .. } | Call::Pwritev { offset, .. })
            if world.gate_of(open).is_some() =>
        {
            total.min(program::GATE_SIZE.saturating_sub(*offset))
        }
        (Some(open), Call::Writev { .. }) if world.gate_of(open).is_some() && n < total => n,
        _ => total,
    };
    if n != total && !(may_fault && n < total && (n > 0 || zero)) {
        wrong(world, call, n, findings, format!("{total}, for no part of its buffer can fault"));
    }
}

#[expect(clippy::too_many_arguments, reason = "the arguments of one table row")]
fn copied(
    world: &World,
    call: u16,
    slot: usize,
    offset: u64,
    len: u64,
    n: u64,
    whole: bool,
    findings: &mut Findings,
) {
    let Some(open) = world.open_in(call, slot) else { return };
    let file = world.opens[open].file;
    let span = world.span(call);
    // A copy onto its own source may make the source longer while it runs.
    let (min, max) = world.sizes(file, span, None);
    let (low, high) = (min.saturating_sub(offset).min(len), max.saturating_sub(offset).min(len));
    // What goes to an O_DIRECT file goes in pieces as large as a pipe. One that is no whole number of sectors is refused, and those before it count
    // (fs/splice.c:splice_direct_to_actor, 6.12 and 6.1).
    let odd_rest = world.open_in(call, 0).is_some_and(|dst| world.is_direct(dst))
        && [low, high].iter().any(|end| {
            (1..=PIPE).contains(&end.saturating_sub(n)) && !(end - n).is_multiple_of(SECTOR)
        });
    let short = !whole || world.size_in_motion(file, span) || odd_rest;
    let fine = n <= high && (n >= low || short && n > 0) || n == 0 && low == 0;
    if !fine {
        let name = file_name(world, file);
        wrong(world, call, n, findings, format!("{low} to {high}, by the size of {name} then"));
    }
}

/// What open and statx say of a file: size, links, DAX.
fn facts(world: &mut World, call: u16, findings: &mut Findings) {
    let Some(Payload::File(facts)) = world.seen[call as usize].payload else { return };
    let Some(file) = world.known_file(facts.id) else { return };
    let span = world.span(call);
    let sizes = world.files[file].size.during(span, None, &world.order);
    let (min, max) =
        (sizes.first().copied().unwrap_or(0), sizes.last().copied().unwrap_or(u64::MAX));
    let moving = world.size_in_motion(file, span) && (min..=max).contains(&facts.size);
    let name = file_name(world, file);
    if !sizes.contains(&facts.size) && !moving {
        let list: Vec<String> = sizes.iter().map(u64::to_string).collect();
        wrong(world, call, facts.size, findings, format!("size {} for {name}", list.join(" or ")));
    }
    if facts.dax != facts.id.mount.is_dax() {
        let which = if facts.dax { "is DAX" } else { "is not DAX" };
        findings.call(
            AnomalyKind::WrongResult,
            Oracle::Bytes,
            call,
            format!("{name} {which}, against its mount's dax= option."),
        );
    }
    links(world, call, span, file, facts.nlink, findings);
}

fn links(world: &World, call: u16, span: Span, file: usize, seen: u32, findings: &mut Findings) {
    let mount = world.files[file].id.mount;
    let states = world.name_states(mount, span, None);
    let counts: Vec<u32> = states
        .iter()
        .map(|s| s.iter().filter(|n| **n == Some(file as u32)).count() as u32)
        .collect();
    if !counts.is_empty() && !counts.contains(&seen) {
        let name = file_name(world, file);
        findings.call(
            AnomalyKind::WrongResult,
            Oracle::Bytes,
            call,
            format!("{} says {name} has {seen} links; allowed: {counts:?}.", who(world, call)),
        );
    }
}
