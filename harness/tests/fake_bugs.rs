//! Every planted bug is live: some program's history differs from the honest fake's, which a checker could notice.
//!
//! It does not ask whether a checker does notice.

mod triggers;

use harness::target::Target;
use harness::target::fake::{Bug, FakeConfig, FakeTarget};
use program::{Mount, Program};
use triggers::{SCHEDULES, TRIGGERS, trigger};

/// Seeds tried per bug; most are met far sooner.
const SEEDS: u64 = 20_000;

/// Where the program's history under the bug first differs from the honest one: the schedule or generator seed.
fn differs(programs: impl Iterator<Item = (u64, Program)>, bug: Bug) -> Option<u64> {
    let (mut seeds, regime) = (programs.peekable(), bug.regime());
    let target = |bug, seed| FakeTarget::new(FakeConfig { seed, bug, batch: 1, regime });
    let (mut honest, mut wrong) = (target(None, 1), target(Some(bug), 1));
    let fixed = trigger(bug).is_some();
    seeds.find_map(|(seed, program)| {
        if fixed {
            (honest, wrong) = (target(None, seed), target(Some(bug), seed));
        }
        let a = honest.execute(&program).expect("the fake has no trouble").history;
        let b = wrong.execute(&program).expect("the fake has no trouble").history;
        (a.events != b.events).then_some(seed)
    })
}

#[test]
fn every_bug_is_live() {
    for &bug in Bug::ALL {
        let found = match trigger(bug) {
            Some(program) => differs((0..SCHEDULES).map(|seed| (seed, program.clone())), bug),
            None => {
                let draw = |seed| (seed, Program::from_seed(seed, Mount::ALL[seed as usize % 4]));
                differs((0..SEEDS).map(draw), bug)
            }
        };
        assert!(found.is_some(), "{} shows in no program", bug.name());
    }
}

#[test]
fn triggers_are_sequential_or_say_why_not() {
    for (bug, text) in TRIGGERS {
        let races = text.contains(" &\n");
        let allowed = matches!(bug, Bug::TruncateRace | Bug::DrainIgnored);
        assert_eq!(races, allowed, "{}", bug.name());
    }
}
