//! Inputs are programs in their text form: read, changed and crossed as programs, never as bytes.
//!
//! Does not keep what is no program: libFuzzer is told to reject it.

use harness::fuzz_target::FuzzTarget;
use libfuzzer_sys::arbitrary::Unstructured;
use program::{Always, Program, Vocabulary};

/// Bytes of chance for one change: more than a few steps can use.
const CHANCE: usize = 512;
/// Tries at a change whose text fits where libFuzzer wants it.
const TRIES: u64 = 4;

/// The program that an input stands for, fixed, if it is one that the target may run. What every program of the target is to have is where to
/// search, not what may run: a find may be smaller without it.
pub fn read(target: &FuzzTarget, bytes: &[u8]) -> Option<Program> {
    let mut program = Program::parse_bytes(bytes).ok()?;
    program.fixup();
    let anything = Vocabulary { always: Always::Nothing, ..target.vocabulary };
    anything.admits(&program).then_some(program)
}

/// libFuzzer's custom mutator: changes the first `size` bytes of `data` and returns how many there are then. Where libFuzzer wants the input
/// shorter than it is, to minimise it, lines go.
pub fn mutate(
    target: &FuzzTarget,
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
) -> usize {
    let old = read(target, &data[..size]);
    let minimise = size > max_size;
    for attempt in 0..TRIES {
        let chance = chance(u64::from(seed) << 8 | attempt);
        let mut u = Unstructured::new(&chance);
        let mut new = match &old {
            Some(program) => program.clone(),
            None if minimise => break,
            None => fresh(target, seed.wrapping_add(attempt as u32)),
        };
        if minimise {
            shorten(&mut new, &mut u, max_size);
        } else if old.is_some() {
            new.mutate_with(&mut u, &target.vocabulary);
        }
        let text = new.to_string();
        if text.len() <= max_size {
            data[..text.len()].copy_from_slice(text.as_bytes());
            // libFuzzer gives what it minimises several times, always as long as it was at first (FuzzerLoop.cpp:MinimizeCrashLoop).
            data[text.len()..size.max(text.len())].fill(b'\n');
            return text.len();
        }
    }
    // As it is, if that is short enough; half a text is none.
    size
}

/// libFuzzer's custom crossover: a program made of both, or nothing.
pub fn cross(target: &FuzzTarget, a: &[u8], b: &[u8], out: &mut [u8], seed: u32) -> usize {
    let (Some(a), Some(b)) = (read(target, a), read(target, b)) else { return 0 };
    let chance = chance(seed.into());
    let crossed = a.crossover_with(&b, &mut Unstructured::new(&chance), &target.vocabulary);
    let text = crossed.to_string();
    let Some(place) = out.get_mut(..text.len()) else { return 0 };
    place.copy_from_slice(text.as_bytes());
    text.len()
}

/// A new program, for where there is none to change.
fn fresh(target: &FuzzTarget, seed: u32) -> Program {
    let home = target.homes[seed as usize % target.homes.len()];
    Program::from_seed_with(seed.into(), home, &target.vocabulary)
}

/// Drops a few lines, or one, and goes on until the text fits. What would fit without its comments may stay whole.
fn shorten(program: &mut Program, u: &mut Unstructured<'_>, max_size: usize) {
    let fits = |program: &Program| program.to_string().len() <= max_size;
    if fits(program) && u.ratio(1, 8).unwrap_or(false) {
        return;
    }
    while !program.lines.is_empty() {
        let at = u.choose_index(program.lines.len()).unwrap_or(0);
        let most = (program.lines.len() - at).min(4);
        let count = u.int_in_range(1..=most).unwrap_or(1);
        program.lines.drain(at..at + count);
        program.fixup();
        if fits(program) {
            return;
        }
    }
}

/// Bytes that follow from a seed (SplitMix64).
fn chance(seed: u64) -> [u8; CHANCE] {
    let mut state = seed;
    let mut bytes = [0; CHANCE];
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::fuzz_target::ALL;

    /// A buffer as libFuzzer gives it.
    fn buffer(text: &str, max_size: usize) -> Vec<u8> {
        let mut data = vec![0; text.len().max(max_size)];
        data[..text.len()].copy_from_slice(text.as_bytes());
        data
    }

    #[test]
    fn what_mutation_and_crossing_make_are_programs_of_the_target() {
        for target in &ALL {
            let mut text = fresh(target, 1).to_string();
            let mut changed = 0;
            for seed in 0..200 {
                let mut data = buffer(&text, 16 << 10);
                let size = mutate(target, &mut data, text.len(), 16 << 10, seed);
                let program = read(target, &data[..size]).expect("a program of the target");
                assert!(target.admits(&program), "{}: {program}", target.name);
                let other = fresh(target, seed + 1000).to_string();
                let mut out = vec![0; 16 << 10];
                let size = cross(target, &data[..size], other.as_bytes(), &mut out, seed);
                assert!(size > 0 && read(target, &out[..size]).is_some());
                changed += usize::from(program.to_string() != text);
                text = program.to_string();
            }
            assert!(changed > 150, "{} changed {changed} of 200", target.name);
        }
    }

    #[test]
    fn what_is_no_program_becomes_one() {
        let target = &ALL[2];
        for garbage in ["", "\n", "pinfuzz 1\nimage nowhere\n"] {
            let mut data = buffer(garbage, 16 << 10);
            let size = mutate(target, &mut data, garbage.len(), 16 << 10, 7);
            assert!(read(target, &data[..size]).is_some());
        }
        // In no room there is none, and what was there stays whole.
        let mut data = buffer("\n", 4);
        assert_eq!((mutate(target, &mut data, 1, 4, 7), data[0]), (1, b'\n'));
    }

    #[test]
    fn an_input_is_shortened_by_lines() {
        let target = &ALL[2];
        let long = (0..).map(|seed| fresh(target, seed)).find(|p| p.lines.len() > 12).unwrap();
        let long = long.to_string();
        for seed in 0..50 {
            let mut data = buffer(&long, 0);
            let size = mutate(target, &mut data, long.len(), long.len() - 1, seed);
            let program = read(target, &data[..size]).expect("a program");
            assert!(size < long.len() && program.to_string().len() == size);
            // As libFuzzer goes on with it.
            let (text, whole) = (data.clone(), data.len());
            let size = mutate(target, &mut data, whole, whole - 1, seed + 1);
            let smaller = read(target, &data[..size]).expect("a program");
            assert!(read(target, &text).unwrap().lines.len() >= smaller.lines.len());
        }
        let mut out = vec![0; 8];
        assert_eq!(cross(target, long.as_bytes(), long.as_bytes(), &mut out, 1), 0);
    }

    #[test]
    fn programs_of_other_mounts_are_not_run() {
        let target = FuzzTarget::named("pagecache").unwrap();
        let dax = b"pinfuzz 1\nimage ext4-dax\nt0: f0 = open(\"a\", RDWR|CREAT)\n";
        assert_eq!(read(target, dax), None);
        assert!(read(FuzzTarget::named("leases").unwrap(), dax).is_some());
    }
}
