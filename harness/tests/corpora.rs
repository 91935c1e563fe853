//! Every program of the corpus says what it asks and what each policy answers, in words that can be checked.
//!
//! The fake keeps every promise, under the regime of each policy. Whether real kernels do is the matter of `vm_corpora`.

mod expect;

use checker::{Policy, Regime, Verdict, check};
use expect::{Fact, Outcome, Seed, comments, seeds};
use harness::target::Target;
use harness::target::fake::{FakeConfig, FakeTarget};
use history::{Errno, Event, History, Payload};
use program::{CallId, Lane, Mount, Program};
use std::collections::BTreeMap;

/// The families of questions, and the programs that each has at least.
const FAMILIES: u32 = 15;
const PROGRAMS_EACH: usize = 3;

fn family(seed: &Seed) -> Option<u32> {
    let folder = seed.name.split('/').next()?;
    folder.strip_prefix('f')?.split('-').next()?.parse().ok()
}

#[test]
fn every_family_has_programs() {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for seed in seeds() {
        *counts.entry(family(&seed).unwrap_or(0)).or_default() += 1;
    }
    for number in 1..=FAMILIES {
        let count = counts.get(&number).copied().unwrap_or(0);
        assert!(count >= PROGRAMS_EACH, "family {number} has {count} programs");
    }
}

#[test]
fn every_program_says_what_it_asks_and_what_is_expected() {
    for seed in seeds().iter().filter(|seed| family(seed).is_some_and(|f| f <= FAMILIES)) {
        let asks = seed.text.lines().any(|line| line.starts_with("# F"));
        assert!(asks, "{} does not say which family it belongs to", seed.name);
        for home in &seed.homes {
            let kernels = ["mainline-6.1", "mainline-6.12"];
            let models = Regime::NAMES.iter().map(|(name, _)| *name).filter(|n| *n != "mainline");
            for policy in kernels.into_iter().chain(models) {
                for gup_test in [true, false] {
                    let facts = seed.facts(policy, *home, gup_test);
                    let name = &seed.name;
                    assert!(!facts.is_empty(), "{name} promises nothing of {policy} on {home}");
                }
            }
        }
    }
}

/// Schedules under which the fake runs each program.
const SCHEDULES: u64 = 8;

/// Whose promises a fake under that regime keeps: it imitates 6.12 where it imitates a kernel that exists.
fn policy_of(regime: Regime) -> &'static str {
    if regime == Regime::Mainline { "mainline-6.12" } else { regime.name() }
}

/// Runs the corpus under a regime, and says what was not as promised.
fn broken_under(regime: Regime) -> Vec<String> {
    let policy = Policy::named(regime.name()).expect("every regime has a policy");
    let mut wrong = Vec::new();
    for seed in seeds().iter().filter(|seed| !seed.promises.is_empty()) {
        for home in &seed.homes {
            // The fake has gup_test.
            let facts = seed.facts(policy_of(regime), *home, true);
            for schedule in 0..SCHEDULES {
                let config = FakeConfig { seed: schedule, bug: None, batch: 1, regime };
                let done = FakeTarget::new(config).execute(&seed.at(*home));
                let done = done.expect("the fake has no trouble of its own");
                let place = format!("{} on {home}, schedule {schedule}", seed.name);
                for (at, fact) in &facts {
                    if let Some(broken) = fact.broken(&done.history) {
                        wrong.push(format!("{place}: line {at}: {broken}"));
                    }
                }
                let verdict = check(&done.program, &done.history, &policy);
                if verdict != Verdict::Explained {
                    wrong.push(format!("{place}: {verdict:?}"));
                }
            }
        }
    }
    wrong
}

#[test]
fn the_fake_keeps_what_is_promised_of_each_regime() {
    for (name, regime) in Regime::NAMES {
        let wrong = broken_under(*regime);
        assert!(wrong.is_empty(), "{} under {name}:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn what_is_expected_names_lines_that_exist() {
    for seed in seeds() {
        for promise in &seed.promises {
            for call in promise.facts.iter().flat_map(Fact::calls) {
                let lines = seed.program.lines.len();
                assert!(usize::from(call.0) < lines, "{}:{}: #{}", seed.name, promise.at, call.0);
            }
        }
    }
}

#[test]
fn every_program_is_its_own_repair_at_every_home() {
    for seed in seeds() {
        assert!(seed.homes.contains(&seed.program.home), "{} is not at home", seed.name);
        for home in &seed.homes {
            let program = seed.at(*home);
            let mut fixed = program.clone();
            fixed.fixup();
            assert_eq!(fixed.to_string(), program.to_string(), "{} on {home}", seed.name);
            assert_eq!(program.home, *home);
        }
    }
}

#[test]
fn promises_have_one_spelling() {
    for (line, error) in [
        ("# expect mainline", "no `:` after the policies"),
        ("# expect nobody: #0 ok", "`nobody` is no policy"),
        ("# expect mainline on mars: #0 ok", "`mars` is no place"),
        ("# expect mainline with luck: #0 ok", "`with luck` is nothing to ask of a kernel"),
        ("# expect mainline: 0 ok", "`0` is no line"),
        ("# expect mainline: #0 fine", "`fine` is no outcome"),
        ("# expect mainline: #0 ok later #1", "`ok later #1` is no fact"),
        ("# expect mainline: signals 1, SIGFOO", "`SIGFOO` names no signal"),
        ("# finding all-is-lost", "no place"),
    ] {
        let told = comments(line).err().map(|(_, told)| told);
        assert_eq!(told.as_deref(), Some(error), "{line}");
    }
    let line = "# expect mainline revoke on dax ext4: #3 blocked, ok=4K|EINTR after #5; signals 1, RT1 to t1 after #2";
    let all = comments(line).expect("it is a promise").promises;
    assert_eq!(all[0].policies, ["mainline", "revoke"]);
    assert_eq!(all[0].gup_test, None);
    let line = "# expect mainline without gup_test on dax: #3 skipped";
    let without = comments(line).expect("it is a promise").promises;
    assert_eq!((without[0].policies.len(), without[0].gup_test), (1, Some(false)));
    assert_eq!(all[0].homes, [Mount::Ext4Dax, Mount::XfsDax, Mount::Ext4]);
    let ended = vec![Outcome::Value(4096), Outcome::Error(Errno(4))];
    assert_eq!(
        all[0].facts,
        [
            Fact::Blocked(CallId(3), true),
            Fact::Returned(CallId(3), ended),
            Fact::After(CallId(3), CallId(5)),
            Fact::Signals(1),
            Fact::Signal {
                signo: 35,
                lane: Some(Lane::Thread(1)),
                after: Some(CallId(2)),
                before: None
            },
        ]
    );
}

#[test]
fn promises_that_are_broken_are_told() {
    let line = "# expect all: #0 not blocked, ok before #1; #1 EINTR; signals 0";
    let all = comments(line).expect("it is a promise").promises;
    let call = |n| CallId(n);
    let invoke = |seq, n| Event::Invoke { seq, call: call(n), time_ns: 0, slots: vec![] };
    let returned = |seq, n, result| Event::Return {
        seq,
        call: call(n),
        time_ns: 0,
        result,
        payload: Payload::None,
    };
    let blocked =
        Event::Blocked { seq: 2, call: call(0), time_ns: 0, state: 'S', wchan: String::new() };
    let good =
        vec![invoke(1, 0), returned(3, 0, Ok(0)), invoke(4, 1), returned(5, 1, Err(Errno(4)))];
    let bad = vec![
        invoke(1, 0),
        blocked,
        invoke(3, 1),
        returned(4, 0, Err(Errno(22))),
        returned(5, 1, Ok(0)),
    ];
    let broken = |events: Vec<Event>| -> Vec<String> {
        let history = History { run: 1, events };
        all[0].facts.iter().filter_map(|fact| fact.broken(&history)).collect()
    };
    assert_eq!(broken(good), [""; 0]);
    assert_eq!(
        broken(bad),
        ["#0 was seen to wait", "#0 returned EINVAL", "#0 returned after #1", "#1 returned 0"]
    );
}

#[test]
fn a_program_moves_with_all_its_names() {
    let text = "pinfuzz 1\nimage xfs-dax\nt0: f0 = open(\"a\", RDWR|CREAT)\n";
    let program = Program::parse(text).expect("the program parses");
    let said = comments(text).expect("there are no promises");
    let seed = Seed {
        name: "it".into(),
        text: text.into(),
        program,
        homes: said.homes,
        promises: said.promises,
        findings: said.findings,
    };
    let paths: Vec<String> =
        seed.at(Mount::Ext4).lines[0].call.paths().map(|p| p.to_string()).collect();
    assert_eq!(paths, ["\"ext4:a\""]);
}
