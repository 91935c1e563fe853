//! The corpus on real kernels: each program on both stock kernels and at every home that it can be moved to keeps what its comments promise,
//! and the checker can explain all of it.
//!
//! Needs QEMU, and the network once for the kernels. What is missing is an error, never a reason to skip.

mod expect;

use checker::{Policy, Verdict, check};
use expect::{Fact, Seed, seeds};
use harness::target::qemu::{Config, QemuTarget};
use harness::target::{Done, Target};
use program::{Mount, Program};

/// One run that is wanted.
struct Want {
    seed: usize,
    home: Mount,
    program: Program,
}

/// Names a part of the corpus to run, for a person who works on it: a part of a program's name.
const ONLY: &str = "PINFUZZ_CORPUS";

fn wanted(seeds: &[Seed]) -> Vec<Want> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut all = Vec::new();
    for (index, seed) in seeds.iter().enumerate() {
        if seed.promises.is_empty() || !seed.name.contains(&only) {
            continue;
        }
        for home in &seed.homes {
            all.push(Want { seed: index, home: *home, program: seed.at(*home) });
        }
    }
    all
}

/// Runs of a program in which a call was seen to wait that must not: what really waits does so in each, while a call that only runs looks
/// the same to the agent for a moment where the machine is slow.
const HOLD_UPS: usize = 3;

/// Runs every program. Which run answers which wish is told by the program, since a guest that goes down gives its queue to another.
fn run(kernel: &str, wants: &[&Want]) -> (String, Vec<Done>) {
    let config = Config { kernel: kernel.into(), ..Config::default() };
    let target = QemuTarget::new(&config, &|line| eprintln!("{line}"));
    let mut target = target.unwrap_or_else(|error| panic!("{error}"));
    let mut programs = wants.iter().map(|want| want.program.clone());
    let mut all = Vec::new();
    while !target.run_batch(&mut || programs.next(), &mut |done| all.push(done)).unwrap() {}
    (target.hello().release.clone(), all)
}

fn keeps_its_promises(kernel: &str) {
    let seeds = seeds();
    let all = wanted(&seeds);
    let mut wrong = Vec::new();
    let mut held_up = judge(kernel, &seeds, &all.iter().collect::<Vec<_>>(), &mut wrong);
    for _ in 1..HOLD_UPS {
        if held_up.is_empty() {
            break;
        }
        let again: Vec<&Want> = held_up.iter().map(|(want, _)| *want).collect();
        held_up = judge(kernel, &seeds, &again, &mut wrong);
    }
    wrong.extend(held_up.into_iter().flat_map(|(_, broken)| broken));
    assert!(wrong.is_empty(), "{} of {kernel}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs the programs and says what is wrong with them. Those of which a call was seen to wait that must not come back with what was seen.
fn judge<'a>(
    kernel: &str,
    seeds: &[Seed],
    wants: &[&'a Want],
    wrong: &mut Vec<String>,
) -> Vec<(&'a Want, Vec<String>)> {
    let (release, all) = run(kernel, wants);
    let gup_test = kernel.split('+').any(|profile| profile == "gup_test");
    let policy = Policy::for_release(&release);
    assert_eq!(all.len(), wants.len(), "every program comes back");
    let mut held_up = Vec::new();
    for want in wants {
        let (seed, home) = (&seeds[want.seed], want.home);
        let done = all.iter().find(|done| done.program == want.program);
        let done = done.unwrap_or_else(|| panic!("{} on {home} did not come back", seed.name));
        let mut waits = Vec::new();
        for (at, fact) in seed.facts(policy.name, home, gup_test) {
            let Some(broken) = fact.broken(&done.history) else { continue };
            let broken = format!("{}:{at} on {home}: {broken}", seed.name);
            match fact {
                Fact::Blocked(_, false) => waits.push(broken),
                _ => wrong.push(broken),
            }
        }
        if !waits.is_empty() {
            held_up.push((*want, waits));
        }
        let is_wrong = seed.findings.contains(&home);
        match check(&done.program, &done.history, &policy) {
            Verdict::Explained if is_wrong => {
                wrong.push(format!("{} on {home}: what was found is not there", seed.name));
            }
            Verdict::Explained => {}
            Verdict::Anomalous(_) if is_wrong => {}
            Verdict::Anomalous(anomalies) => wrong.extend(
                anomalies.iter().map(|anomaly| format!("{} on {home}: {anomaly}", seed.name)),
            ),
            Verdict::Inconclusive(reason) => {
                wrong.push(format!("{} on {home}: {reason:?}", seed.name));
            }
        }
    }
    held_up
}

#[test]
fn the_corpus_on_debian_6_12() {
    keeps_its_promises("debian:6.12");
}

#[test]
fn the_corpus_on_debian_6_1() {
    keeps_its_promises("debian:6.1");
}

#[test]
#[ignore = "wants `pinfuzz kernel build debian:6.12 --profile gup_test` first, some 20 minutes of processor time"]
fn the_corpus_on_debian_6_12_with_gup_test() {
    keeps_its_promises("debian:6.12+gup_test");
}
