//! Vocabularies: the usual one changes nothing, and each other one says what it claims and nothing that it excludes.

use super::{entropy, home};
use crate::{Always, CallKind, LINES_MAX, LeaseState, Mount, PinSource, Program, Vocabulary};
use arbitrary::Unstructured;
use std::collections::BTreeSet;

/// FNV-1a of texts: a hash that no release of a crate changes.
fn hash(texts: impl Iterator<Item = String>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in texts.flat_map(String::into_bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// Recorded before there were vocabularies. Whoever changes what seeds mean changes these on purpose.
#[test]
fn the_programs_of_seeds_are_what_they_were() {
    let programs = hash((0..400).map(|seed| Program::from_seed(seed, home(seed)).to_string()));
    let mutants = hash((0..400).map(|seed| {
        let mut program = Program::from_seed(seed, home(seed));
        program.mutate(&mut Unstructured::new(&entropy(seed + 77, 1024)));
        program.to_string()
    }));
    assert_eq!((programs, mutants), (0x0fcd_2d32_5ad3_ffa8, 0x2da8_2129_2b1c_ac6c));
}

const PAGE_CACHE: &[Mount] = &[Mount::Ext4, Mount::Xfs];
const SOURCES: &[PinSource] =
    &[PinSource::RingRead, PinSource::FixedWrite, PinSource::Replaced, PinSource::Cloned];

/// Small vocabularies of each sort, and the usual one.
fn vocabularies() -> [Vocabulary; 5] {
    let usual = Vocabulary::default();
    [
        usual,
        Vocabulary { homes: &[Mount::XfsDax], ..usual },
        Vocabulary { homes: PAGE_CACHE, mounts: PAGE_CACHE, ..usual },
        Vocabulary {
            stories: [0, 0, 60, 40],
            favoured: &[CallKind::Setlease],
            always: Always::Lease,
            ..usual
        },
        Vocabulary {
            stories: [50, 50, 0, 0],
            sources: SOURCES,
            favoured: &[CallKind::RegisterBuffers, CallKind::CloneBuffers],
            always: Always::Ring,
            ..usual
        },
    ]
}

/// A program of the vocabulary after many mutations.
fn mutant(seed: u64, vocabulary: &Vocabulary, times: u64) -> Program {
    let mut program = Program::from_seed_with(seed, home(seed), vocabulary);
    for round in 0..times {
        let bytes = entropy(seed.wrapping_mul(31) + round * 1_000_003, 512);
        program.mutate_with(&mut Unstructured::new(&bytes), vocabulary);
        assert!(vocabulary.admits(&program), "seed {seed}, mutation {round}: {program}");
    }
    program
}

#[test]
fn what_is_excluded_never_comes_up() {
    for vocabulary in vocabularies() {
        for seed in 0..2_000 {
            let program = Program::from_seed_with(seed, home(seed), &vocabulary);
            assert!(vocabulary.admits(&program), "seed {seed}: {program}");
        }
        for seed in 0..4 {
            mutant(seed, &vocabulary, 1_000);
        }
    }
}

#[test]
fn homes_are_those_that_may_be() {
    for vocabulary in vocabularies() {
        let homes: BTreeSet<Mount> = (0..200)
            .map(|seed| Program::from_seed_with(seed, home(seed), &vocabulary).home)
            .collect();
        assert_eq!(homes, vocabulary.homes.iter().copied().collect());
    }
}

#[test]
fn a_program_that_fits_stays_and_any_other_is_made_to_fit() {
    for vocabulary in vocabularies() {
        for seed in 0..1_000 {
            let mut program = super::hostile(seed);
            program.confine(&vocabulary);
            assert!(vocabulary.admits(&program), "seed {seed}: {program}");
            assert!(program.lines.len() <= LINES_MAX, "seed {seed}");
            let mut again = program.clone();
            again.fixup();
            assert_eq!(again, program, "seed {seed}: not fixed");
            again.confine(&vocabulary);
            assert_eq!(again, program, "seed {seed}: not settled");
        }
        let mut nothing = Program { home: Mount::Ext4Dax, lines: Vec::new() };
        nothing.confine(&vocabulary);
        assert!(vocabulary.admits(&nothing));
    }
}

#[test]
fn crosses_stay_within() {
    for vocabulary in vocabularies() {
        for seed in 0..500 {
            let [one, other] =
                [seed, seed + 1].map(|s| Program::from_seed_with(s, home(s), &vocabulary));
            let bytes = entropy(seed, 256);
            let cross = one.crossover_with(&other, &mut Unstructured::new(&bytes), &vocabulary);
            assert!(vocabulary.admits(&cross), "seed {seed}: {cross}");
        }
    }
}

#[test]
fn where_every_program_asks_for_a_lease_most_leases_are_met() {
    let vocabulary = vocabularies()[3];
    let (mut met, mut states) = (0, BTreeSet::new());
    for seed in 0..1_000 {
        let pairs = Program::from_seed_with(seed, home(seed), &vocabulary).lease_pairs();
        met += u32::from(!pairs.is_empty());
        states.extend(pairs.iter().map(|pair| pair.state));
    }
    assert!(met > 850, "{met} of 1000 programs have a lease that something meets");
    assert_eq!(states.len(), LeaseState::ALL.len(), "{states:?}");
}

/// How many calls that have a form as a request go through a ring, and how many do not.
fn through_rings(programs: impl Iterator<Item = Program>) -> (usize, usize) {
    let lines = programs.flat_map(|program| program.lines);
    let could: Vec<bool> = lines
        .filter(|line| line.call.kind().has_ring_form())
        .map(|line| line.via.is_some())
        .collect();
    let through = could.iter().filter(|through| **through).count();
    (through, could.len() - through)
}

#[test]
fn where_programs_are_about_rings_most_calls_that_can_go_through_one() {
    let vocabulary = vocabularies()[4];
    let fresh = || (0..1_000).map(|seed| Program::from_seed_with(seed, home(seed), &vocabulary));
    let (through, beside) = through_rings(fresh());
    assert!(through > 2 * beside, "{through} through rings, {beside} beside");
    let (through, beside) = through_rings((0..40).map(|seed| mutant(seed, &vocabulary, 50)));
    assert!(through > beside, "after mutation {through} through rings, {beside} beside");

    let mut sources = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for program in fresh() {
        sources.extend(program.held_pairs().iter().map(|pair| pair.source));
        kinds.extend(program.lines.iter().map(|line| line.call.kind()));
    }
    for source in SOURCES {
        assert!(sources.contains(source), "{source:?} is missing in {sources:?}");
    }
    use CallKind as K;
    for kind in [K::RegisterBuffers, K::UpdateBuffers, K::CloneBuffers, K::UnregisterBuffers] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}
