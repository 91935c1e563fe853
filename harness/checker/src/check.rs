//! Walks a history event by event: the model takes it in, the oracles look at it.

use crate::model::World;
use crate::oracle::{self, Findings, finals};
use crate::{Policy, Reason, Verdict, Wait};
use history::{Event, History};
use program::Program;

/// Judges one run. Pure and total: whatever the history says, it returns.
pub fn check(program: &Program, history: &History, policy: &Policy) -> Verdict {
    walk(program, history, policy, &mut Vec::new())
}

/// What each call that was seen to stand still waited for, in the order in which they were seen.
pub fn waits(program: &Program, history: &History, policy: &Policy) -> Vec<Wait> {
    let mut waits = Vec::new();
    // Whatever else is wrong with the history is not asked here.
    let _verdict = walk(program, history, policy, &mut waits);
    waits
}

fn walk(program: &Program, history: &History, policy: &Policy, waits: &mut Vec<Wait>) -> Verdict {
    if program.lines.len() > program::LINES_MAX {
        return Verdict::Inconclusive(Reason::Malformed);
    }
    let mut world = World::new(program, history, policy);
    if world.malformed {
        return Verdict::Inconclusive(Reason::Malformed);
    }
    let mut findings = Findings::default();
    let mut media = finals::Media::default();
    let (mut truncated, mut last) = (false, 0);
    let mut pins = None;
    for event in &history.events {
        let about_calls = !matches!(
            event,
            Event::Console(_) | Event::Down(_) | Event::Fsck { .. } | Event::LogFull
        );
        if world.overflow && about_calls {
            // What follows would be judged by a model that has lost count.
            continue;
        }
        match event {
            Event::Invoke { seq, call, .. } => {
                world.malformed |= *seq < last || world.seen[call.0 as usize].inv != Some(*seq);
                last = *seq;
                world.invoke(call.0);
            }
            Event::Return { seq, call, .. } => {
                world.malformed |= *seq < last;
                last = *seq;
                returned(&mut world, policy, call.0, &mut findings);
            }
            Event::Blocked { seq, call, .. } => {
                let stand = world.watch.stands.iter().find(|s| s.seq == *seq && s.call == call.0);
                if let Some(stand) = stand.cloned() {
                    waits.extend(oracle::waits::blocked(&mut world, &stand, &mut findings));
                }
            }
            Event::Signal { seq, .. } => {
                let notice = world.watch.notices.iter().find(|n| n.seq == *seq).copied();
                if let Some(notice) = notice {
                    world.handled(&notice);
                }
            }
            Event::Skipped { .. } | Event::GatesReleased { .. } => {}
            Event::Pins { before, after } => pins = Some((*before, *after)),
            Event::End { stuck, helped, .. } => {
                oracle::waits::end(&world, stuck, helped, &mut findings);
                oracle::notices::end(&world, &mut findings);
                oracle::deaths::end(&world, &mut findings);
                // What never returned may hold what it holds.
                if let Some((before, after)) = pins.filter(|_| stuck.is_empty()) {
                    oracle::pins::balance(&world, before, after, &mut findings);
                }
                world.end(stuck);
            }
            Event::Final { path, by, file, result, data } => {
                finals::file(&mut world, *path, *by, file, *result, data, &mut findings);
            }
            Event::Names { by, mount, names } => {
                finals::names(&mut world, *by, *mount, names, &mut findings);
            }
            Event::FinalExtents { path, id, extents } => {
                finals::extents(&world, &mut media, *path, *id, extents, &mut findings);
            }
            Event::Fsck { mount, text } => finals::fsck(&world, *mount, text, &mut findings),
            Event::Console(splat) => oracle::console::splat(&world, splat, &mut findings),
            Event::Down(down) => {
                truncated = true;
                oracle::console::down(&world, *down, &mut findings);
            }
            Event::LogFull => truncated = true,
        }
        if world.malformed {
            break;
        }
    }
    if !findings.is_empty() {
        return Verdict::Anomalous(findings.into_list());
    }
    let reasons = [
        (world.malformed, Reason::Malformed),
        (world.overflow, Reason::TooManyOutcomes),
        (truncated, Reason::Truncated),
    ];
    match reasons.into_iter().find(|(holds, _)| *holds) {
        Some((_, reason)) => Verdict::Inconclusive(reason),
        None => Verdict::Explained,
    }
}

fn returned(world: &mut World, policy: &Policy, call: u16, findings: &mut Findings) {
    world.returned(call);
    oracle::errnos::look(world, policy, call, findings);
    oracle::names::look(world, call, findings);
    oracle::counts::look(world, policy, call, findings);
    oracle::signals::look(world, call, findings);
    oracle::seeks::look(world, call, findings);
    oracle::bytes::look(world, call, findings);
    oracle::leases::look(world, call, findings);
    oracle::waits::returned(world, call, findings);
    world.leave(call);
}
