//! The search alone, against kernels of a few lines: what it draws, what it takes in, what it leaves out.

use super::*;
use program::CallKind;
use std::collections::BTreeMap;

fn settings(guided: bool) -> Settings {
    let homes = vec![Mount::Xfs, Mount::Ext4Dax];
    Settings { seed: 7, homes, vocabulary: Vocabulary::USUAL, guided, first: 0 }
}

fn run(features: &[Feature]) -> Run<'_> {
    Run { features, spoiled: false, cost: Cost { lines: 10, ns: 100_000_000 } }
}

fn behaviour(number: u64) -> Feature {
    Feature::behaviour(number)
}

/// Draws a program and answers with these features at once.
fn step(search: &mut Search, number: u64, features: &[Feature]) -> (Way, Option<(Program, u64)>) {
    let kernel = search.kernel("a");
    search.credit = RERUN_PRICE;
    let (program, way) = search.next(number, kernel);
    (way, search.done(number, kernel, &program, run(features)))
}

#[test]
fn unguided_programs_are_those_of_the_seed_and_count_all_the_same() {
    let mut search = Search::new(settings(false));
    let kernel = search.kernel("a");
    for number in 0..50 {
        let (program, way) = search.next(number, kernel);
        assert_eq!(program, seeds::program(7, number, &[Mount::Xfs, Mount::Ext4Dax]));
        assert_eq!(way, Way::Generated);
        let features = [Feature::site(number as u32 / 2), behaviour(number / 5)];
        assert_eq!(search.done(number, kernel, &program, run(&features)), None);
    }
    assert!(!search.offer("seed", Program::from_seed(1, Mount::Xfs)));
    let counts = Counts { sites: 25, behaviour: 10, ..Counts::default() };
    assert_eq!(search.counts(), counts);
}

#[test]
fn what_comes_again_enters_the_corpus_and_what_does_not_stays_out() {
    let mut search = Search::new(settings(true));
    // The first run shows 1 and 2; 2 was chance.
    assert_eq!(step(&mut search, 0, &[behaviour(1), behaviour(2)]), (Way::Generated, None));
    let (way, admitted) = step(&mut search, 1, &[behaviour(1)]);
    assert_eq!((way, admitted), (Way::Rerun, None), "2 may still come");
    let mut number = 2;
    let mut entered = None;
    while search.counts().triages == 0 {
        let (way, admitted) = step(&mut search, number, &[behaviour(1)]);
        if admitted.is_some() {
            assert_eq!(way, Way::Rerun);
            entered = admitted;
        }
        number += 1;
        assert!(number < 20, "the triage comes to its end");
    }
    let (program, name) = entered.expect("1 came again");
    assert_eq!(name, super::name(&program));
    let counts = search.counts();
    assert_eq!((counts.corpus, counts.unstable, counts.triages), (1, 1, 1));
    assert_eq!(counts.reruns, 3);

    // It was chance once, and is no reason for a triage again.
    for number in 100..200 {
        let (way, _) = step(&mut search, number, &[behaviour(1), behaviour(2)]);
        assert_ne!(way, Way::Rerun);
    }
    // In the triage of something else it may prove itself.
    let mut number = 200;
    while search.counts().triages == 1 {
        step(&mut search, number, &[behaviour(2), behaviour(3)]);
        number += 1;
        assert!(number < 220, "3 is new and comes again");
    }
    let counts = search.counts();
    assert_eq!((counts.corpus, counts.unstable), (2, 0));
}

#[test]
fn a_site_is_another_one_on_another_kernel_and_reruns_stay_on_theirs() {
    let mut search = Search::new(settings(true));
    let (a, b) = (search.kernel("a"), search.kernel("b"));
    assert_eq!(search.kernel("a"), a);
    let features = [Feature::site(5), behaviour(5)];
    for (number, kernel) in [(0, a), (1, b)] {
        let (program, _) = search.next(number, kernel);
        search.done(number, kernel, &program, run(&features));
    }
    let counts = search.counts();
    assert_eq!((counts.sites, counts.behaviour), (2, 1));
    search.credit = 2 * RERUN_PRICE;
    let (first, way) = search.next(2, b);
    assert_eq!((first, way), (seeds::program(7, 1, &settings(true).homes), Way::Rerun));
    let (first, way) = search.next(3, a);
    assert_eq!((first, way), (seeds::program(7, 0, &settings(true).homes), Way::Rerun));
}

/// What a kernel of a few lines shows: how far a program gets up three stairs, each a series of calls that have to come in their order.
/// The top of a stair is out of reach for chance, and a step from the one below it.
fn shown(program: &Program) -> Vec<Feature> {
    let mut all = Vec::new();
    for stair in 0..3 {
        let mut steps = CallKind::ALL.iter().skip(stair * 7).step_by(5).enumerate().peekable();
        for line in &program.lines {
            if let Some((step, _)) = steps.next_if(|(_, kind)| **kind == line.call.kind()) {
                all.push(behaviour((stair << 8 | step) as u64));
            }
        }
    }
    all
}

/// Runs so many programs, each of whose results comes `late` programs after it was drawn, and says what was drawn.
fn drive(search: &mut Search, programs: u64, late: u64) -> Vec<(String, Way)> {
    let kernel = search.kernel("a");
    let mut flying = BTreeMap::new();
    let mut all = Vec::new();
    for number in 0..programs {
        let (program, way) = search.next(number, kernel);
        all.push((program.to_string(), way));
        flying.insert(number, program);
        if let Some(landed) = number.checked_sub(late) {
            let program = flying.remove(&landed).unwrap();
            search.done(landed, kernel, &program, run(&shown(&program)));
        }
    }
    all
}

#[test]
fn the_same_seed_and_results_give_the_same_programs() {
    let mut searches = [(); 2].map(|()| Search::new(settings(true)));
    let [first, second] = searches.each_mut().map(|search| drive(search, 400, 5));
    assert_eq!(first, second);
    let mut later = Search::new(Settings { first: 4096, ..settings(true) });
    let later = drive(&mut later, 400, 5);
    let changed = |all: &[(String, Way)]| {
        let changed = all.iter().filter(|(_, way)| matches!(way, Way::Mutated(_)));
        changed.map(|(text, _)| text.clone()).collect::<BTreeSet<_>>()
    };
    let (early, late) = (changed(&first), changed(&later));
    assert!(
        !early.is_empty() && early.is_disjoint(&late),
        "a run that goes on does not repeat itself"
    );
}

#[test]
fn guided_reaches_more_with_the_same_number_of_programs() {
    for late in [0, 64] {
        let [guided, unguided] = [true, false].map(|guided| {
            let mut search = Search::new(settings(guided));
            drive(&mut search, 1500, late);
            search.counts()
        });
        assert!(guided.behaviour > unguided.behaviour, "{guided:?} {unguided:?}");
        assert!(guided.corpus > 0 && guided.unstable == 0, "{guided:?}");
    }
}

#[test]
fn every_way_keeps_its_share_and_stays_at_home() {
    let mut search = Search::new(settings(true));
    let all = drive(&mut search, 1500, 8);
    let share =
        |of: fn(&Way) -> bool| all.iter().filter(|(_, way)| of(way)).count() * 100 / all.len();
    assert!(share(|way| *way == Way::Rerun) <= 100 / RERUN_PRICE as usize);
    assert!(share(|way| *way == Way::Generated) >= 10);
    assert!(share(|way| matches!(way, Way::Mutated(_))) >= 10);
    assert!(share(|way| matches!(way, Way::Crossed(..))) >= 3);
    for (text, way) in &all {
        let home = Program::parse(text).unwrap().home;
        assert!(settings(true).homes.contains(&home), "{way}: {text}");
    }
}

#[test]
fn seeds_come_first_and_a_lost_one_comes_again_once() {
    let mut search = Search::new(settings(true));
    let kernel = search.kernel("a");
    let seed = Program::from_seed(1, Mount::Xfs);
    assert!(search.offer("one.prog", seed.clone()));
    assert!(!search.offer("two.prog", seed.clone()), "the same program");
    for number in 0..2 {
        let (program, way) = search.next(number, kernel);
        assert_eq!((program, way), (seed.clone(), Way::Seed("one.prog".into())));
        search.lost(number);
    }
    assert_eq!(search.next(2, kernel).1, Way::Generated);
    search.lost(77);
}

#[test]
fn a_candidate_whose_reruns_are_lost_is_given_up_and_another_one_is_tried() {
    let mut search = Search::new(settings(true));
    let kernel = search.kernel("a");
    step(&mut search, 0, &[behaviour(1)]);
    for number in 1..20 {
        search.credit = RERUN_PRICE;
        let (program, way) = search.next(number, kernel);
        if way == Way::Rerun {
            search.lost(number);
        } else {
            search.done(number, kernel, &program, run(&[]));
        }
    }
    assert_eq!((search.counts().triages, search.counts().reruns), (1, 2));
    step(&mut search, 20, &[behaviour(1)]);
    search.credit = RERUN_PRICE;
    assert_eq!(search.next(21, kernel).1, Way::Rerun, "somebody else shows it");
}

#[test]
fn a_program_that_takes_its_guest_with_it_has_no_offspring() {
    let mut search = Search::new(settings(true));
    let kernel = search.kernel("a");
    let features = [behaviour(1)];
    let spoiled = Run { spoiled: true, ..run(&features) };
    let (program, _) = search.next(0, kernel);
    search.done(0, kernel, &program, spoiled);
    let (_, way) = search.next(1, kernel);
    assert_eq!((way, search.counts().behaviour), (Way::Generated, 1));
    // In its rerun, too.
    search.done(1, kernel, &program, run(&features));
    search.credit = RERUN_PRICE;
    let (_, way) = search.next(2, kernel);
    assert_eq!(way, Way::Rerun);
    search.done(2, kernel, &program, spoiled);
    assert_eq!((search.counts().corpus, search.counts().triages), (0, 1));
}

#[test]
fn what_was_reached_before_counts_and_has_to_be_shown_again() {
    let mut search = Search::new(settings(true));
    step(&mut search, 0, &[behaviour(1), Feature::site(9)]);
    let news = search.news();
    assert_eq!(news, [Reached::Behaviour(behaviour(1).number()), Reached::Site("a".into(), 9)]);
    assert_eq!(search.news(), []);

    let mut later = Search::new(Settings { first: 1, ..settings(true) });
    later.remember(news);
    assert_eq!((later.counts().sites, later.counts().behaviour), (1, 1));
    assert_eq!(later.news(), []);
    step(&mut later, 1, &[behaviour(1), Feature::site(9)]);
    assert_eq!((later.counts().sites, later.counts().behaviour), (1, 1));
    let kernel = later.kernel("a");
    later.credit = RERUN_PRICE;
    assert_eq!(later.next(2, kernel).1, Way::Rerun, "the corpus of this process is empty");
}
