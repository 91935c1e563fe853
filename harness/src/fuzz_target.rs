//! What cargo-fuzz and campaigns can be pointed at: each target has its homes, its vocabulary, and seeds of the corpus.
//!
//! Does not run anything: the libFuzzer targets and campaigns do. The targets without a guest (decode, judge, canary) have no programs of their own
//! and are not here.

use crate::exit::Error;
use program::{Always, CallKind, Mount, PinSource, Program, Vocabulary};
use std::path::{Path, PathBuf};

/// The folder of the corpora whose programs are seeds. Regressions are none: they show again what a kernel is known to do wrong, at the price of a
/// guest for those that hang it, and libFuzzer would stop at the first.
const FOLDER: &str = "seeds";

/// A target of the search that runs programs in guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuzzTarget {
    /// The name, as cargo-fuzz and `--fuzz-target` have it.
    pub name: &'static str,
    /// The homes of its programs, which take turns.
    pub homes: &'static [Mount],
    /// What its programs say.
    pub vocabulary: Vocabulary,
    /// What it is for.
    pub about: &'static str,
}

const USUAL: Vocabulary = Vocabulary::USUAL;
const PAGE_CACHE: &[Mount] = &[Mount::Ext4, Mount::Xfs];
/// Means of holding pages that a ring has.
const RING_SOURCES: &[PinSource] = &[
    PinSource::RingRead,
    PinSource::RingWrite,
    PinSource::FixedRead,
    PinSource::FixedWrite,
    PinSource::Registered,
    PinSource::RegisteredPrivate,
    PinSource::Replaced,
    PinSource::Cloned,
];
/// What makes leases and ends them.
const OF_LEASES: &[CallKind] = &[
    CallKind::Open,
    CallKind::Truncate,
    CallKind::Setlease,
    CallKind::Getlease,
    CallKind::Setsig,
    CallKind::SetownEx,
    CallKind::OnBreak,
    CallKind::SendFd,
    CallKind::RecvFd,
];
/// What rings have of their own.
const OF_RINGS: &[CallKind] = &[
    CallKind::RegisterBuffers,
    CallKind::UpdateBuffers,
    CallKind::CloneBuffers,
    CallKind::UnregisterBuffers,
    CallKind::CloseRing,
];

/// The targets, in the order in which they are listed.
pub const ALL: [FuzzTarget; 6] = [
    target("ext4_dax", "programs at home on ext4 with DAX", USUAL, &[Mount::Ext4Dax]),
    target("xfs_dax", "programs at home on XFS with DAX", USUAL, &[Mount::XfsDax]),
    target("mixed", "programs on all four mounts", USUAL, &Mount::ALL),
    target(
        "pagecache",
        "programs on ext4 and XFS through the page cache, with no DAX file anywhere",
        Vocabulary { mounts: PAGE_CACHE, ..USUAL },
        PAGE_CACHE,
    ),
    target(
        "leases",
        "programs about leases and what breaks them",
        Vocabulary { stories: [0, 0, 70, 30], favoured: OF_LEASES, always: Always::Lease, ..USUAL },
        &Mount::ALL,
    ),
    target(
        "uring",
        "programs whose calls go through io_uring, with registered buffers",
        Vocabulary {
            stories: [45, 45, 0, 10],
            sources: RING_SOURCES,
            favoured: OF_RINGS,
            always: Always::Ring,
            ..USUAL
        },
        &Mount::ALL,
    ),
];

const fn target(
    name: &'static str,
    about: &'static str,
    vocabulary: Vocabulary,
    homes: &'static [Mount],
) -> FuzzTarget {
    FuzzTarget { name, homes, vocabulary: Vocabulary { homes, ..vocabulary }, about }
}

impl FuzzTarget {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static FuzzTarget> {
        ALL.iter().find(|target| target.name == name)
    }

    /// Whether the program is one of this target's.
    pub fn admits(&self, program: &Program) -> bool {
        self.vocabulary.admits(program)
    }

    /// The programs of the corpora that are this target's, by path. Those that show what a stock kernel does wrong are none: libFuzzer stops at
    /// the first find, and a search would vary what is known.
    ///
    /// # Errors
    /// A folder or file that cannot be read, or a program that does not parse.
    pub fn seeds(&self, corpora: &Path) -> Result<Vec<(PathBuf, Program)>, Error> {
        let mut seeds = Vec::new();
        for path in programs_below(&corpora.join(FOLDER))? {
            let bytes = std::fs::read(&path).map_err(|source| unread(&path, source))?;
            let program = Program::parse_bytes(&bytes)
                .map_err(|error| Error::Program { path: path.clone(), what: error.to_string() })?;
            if self.admits(&program) && !shows_finding(&bytes) {
                seeds.push((path, program));
            }
        }
        Ok(seeds)
    }
}

/// Whether the comments of a program name what a kernel does wrong in it.
fn shows_finding(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"# finding "))
}

fn unread(path: &Path, source: std::io::Error) -> Error {
    Error::Read { path: path.to_path_buf(), source }
}

/// Whether a file is a program by its name: ours end in `.prog`, libFuzzer's are 40 digits.
fn is_program_file(path: &Path) -> bool {
    let digits = |name: &str| name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    path.extension().is_some_and(|name| name == "prog")
        || path.file_name().and_then(|name| name.to_str()).is_some_and(digits)
}

/// The program files below a folder, in the order of their names. Links are not followed.
pub fn programs_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| unread(folder, source))? {
        let entry = entry.map_err(|source| unread(folder, source))?;
        let kind = entry.file_type().map_err(|source| unread(&entry.path(), source))?;
        let path = entry.path();
        if kind.is_dir() {
            found.extend(programs_below(&path)?);
        } else if kind.is_file() && is_program_file(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbitrary::Unstructured;
    use std::collections::BTreeSet;

    fn corpora() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpora")
    }

    fn fresh(target: &FuzzTarget, seeds: u64) -> impl Iterator<Item = Program> {
        let (homes, vocabulary) = (target.homes, target.vocabulary);
        (0..seeds).map(move |seed| {
            let home = homes[(seed % homes.len() as u64) as usize];
            Program::from_seed_with(seed, home, &vocabulary)
        })
    }

    /// Programs of the target after mutations, a thousand in all.
    fn mutants(target: &FuzzTarget) -> Vec<Program> {
        let mut programs: Vec<Program> = fresh(target, 10).collect();
        for program in &mut programs {
            for round in 0..100_u64 {
                let word = (round ^ program.lines.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let bytes: Vec<u8> =
                    (0..512_u64).map(|n| (word.wrapping_mul(n * 2 + 1) >> 56) as u8).collect();
                program.mutate_with(&mut Unstructured::new(&bytes), &target.vocabulary);
                assert!(target.admits(program), "{} after {round}: {program}", target.name);
            }
        }
        programs
    }

    fn mounts(programs: impl IntoIterator<Item = Program>) -> BTreeSet<Mount> {
        let lines = programs.into_iter().flat_map(|program| program.lines);
        lines.flat_map(|line| line.call.paths().collect::<Vec<_>>()).map(|p| p.mount).collect()
    }

    #[test]
    fn names_are_found_and_homes_agree() {
        for target in &ALL {
            assert_eq!(FuzzTarget::named(target.name), Some(target));
            assert_eq!(target.homes, target.vocabulary.homes, "{}", target.name);
        }
        assert_eq!(FuzzTarget::named("decode"), None);
    }

    #[test]
    fn every_program_is_its_targets_and_reaches_its_mounts() {
        for target in &ALL {
            assert!(fresh(target, 500).all(|program| target.admits(&program)), "{}", target.name);
            let wanted: BTreeSet<Mount> = target.vocabulary.mounts.iter().copied().collect();
            assert_eq!(mounts(fresh(target, 500)), wanted, "{}", target.name);
            let beyond = &mounts(mutants(target)) - &wanted;
            assert!(beyond.is_empty(), "{} went to {beyond:?}", target.name);
        }
    }

    #[test]
    fn every_kind_of_call_remains_within_reach() {
        for target in &ALL {
            let said: BTreeSet<CallKind> = fresh(target, 4_000)
                .flat_map(|program| program.lines)
                .map(|line| line.call.kind())
                .collect();
            let missing: Vec<_> = CallKind::ALL.iter().filter(|k| !said.contains(k)).collect();
            assert!(missing.is_empty(), "{} never says {missing:?}", target.name);
        }
    }

    #[test]
    fn rings_hold_pages_by_all_their_means_and_share_buffers() {
        let uring = FuzzTarget::named("uring").unwrap();
        let sources: BTreeSet<PinSource> = fresh(uring, 2_000)
            .flat_map(|program| program.held_pairs())
            .map(|pair| pair.source)
            .collect();
        let missing: Vec<_> = RING_SOURCES.iter().filter(|s| !sources.contains(s)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_target_has_seeds_and_they_are_its_own() {
        let all = FuzzTarget::named("mixed").unwrap().seeds(&corpora()).unwrap();
        assert!(all.len() > 70, "{}", all.len());
        let is_seed = |path: &Path| path.starts_with(corpora().join(FOLDER));
        assert!(all.iter().all(|(path, _)| is_seed(path)), "a regression is a seed");
        for target in &ALL {
            let seeds = target.seeds(&corpora()).unwrap();
            assert!(seeds.len() >= 5, "{} has {} seeds", target.name, seeds.len());
            assert!(seeds.iter().all(|(_, program)| target.admits(program)), "{}", target.name);
            let other = all.iter().filter(|seed| !seeds.contains(seed));
            assert!(other.clone().all(|(_, program)| !target.admits(program)), "{}", target.name);
        }
    }

    #[test]
    fn programs_are_known_by_their_names() {
        let is = |name: &str| is_program_file(Path::new(name));
        assert!(is("a/punch.prog") && is("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
        assert!(!is("README.md") && !is("da39a3ee") && !is("history.jsonl"));
    }

    #[test]
    fn what_shows_a_finding_is_no_seed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(FOLDER)).unwrap();
        let write = |name: &str, comment: &str| {
            let text = format!(
                "pinfuzz 1\nimage xfs-dax\n# {comment}\nt0: f0 = open(\"a\", RDWR|CREAT)\n"
            );
            std::fs::write(folder.path().join(FOLDER).join(name), text).unwrap();
        };
        write("known.prog", "finding dax-unmapped-file-is-never-busy on dax");
        write("good.prog", "expect all: #0 ok");
        let seeds = FuzzTarget::named("mixed").unwrap().seeds(folder.path()).unwrap();
        let names: Vec<_> = seeds.iter().filter_map(|(path, _)| path.file_name()).collect();
        assert_eq!(names, ["good.prog"]);
    }

    #[test]
    fn a_seed_that_does_not_parse_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("seeds/family")).unwrap();
        let broken = folder.path().join("seeds/family/broken.prog");
        std::fs::write(&broken, "pinfuzz 1\nimage nowhere\n").unwrap();
        let error = ALL[0].seeds(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::Program { path, .. } if *path == broken), "{error}");
        let gone = folder.path().join("gone");
        assert!(matches!(ALL[0].seeds(&gone), Err(Error::Read { .. })));
    }
}
