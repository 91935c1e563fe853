//! The map: which files, functions and lines of a kernel's source the programs of a survey reach, and which programs they are.
//!
//! A line counts if code for it can report at all. Code that was inlined counts where it comes from, and each line that it was inlined into counts
//! with it. Tracepoints do not count: nobody traces a guest, so their code is never run.

use super::sites::Sites;
use super::survey::Survey;
use std::collections::BTreeMap;

/// How the inline function of a tracepoint begins (include/linux/tracepoint.h:__DECLARE_TRACE, 6.12).
const TRACEPOINT: &str = "trace_";

/// The map of a kernel.
#[derive(Debug, Default)]
pub struct Map {
    /// By path in the kernel's tree.
    pub files: BTreeMap<String, FileMap>,
    /// Call sites in all, and those that were reached.
    pub sites: Part,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Those that were reached.
    pub reached: usize,
    /// All.
    pub all: usize,
}

/// One source file.
#[derive(Debug, Default)]
pub struct FileMap {
    /// Lines for which there is code.
    pub lines: BTreeMap<u32, LineMap>,
    /// Functions, by name.
    pub functions: BTreeMap<String, FunctionMap>,
}

/// One line.
#[derive(Debug, Default)]
pub struct LineMap {
    /// Call sites in code of this line.
    pub sites: Part,
    /// Who reaches any of them.
    pub programs: Set,
}

/// One function of the source.
#[derive(Debug, Default)]
pub struct FunctionMap {
    /// Its lines with code.
    pub lines: BTreeMap<u32, bool>,
    /// Who reaches any of it.
    pub programs: Set,
}

/// A set of programs, by their numbers in the survey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<u64>);

impl Set {
    /// Adds one.
    pub fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn extend(&mut self, other: &Set) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Their numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |(n, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| n * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

impl Part {
    /// Counts one.
    pub fn count(&mut self, reached: bool) {
        self.all += 1;
        self.reached += usize::from(reached);
    }

    /// In percent, rounded down: 100 means all.
    pub fn percent(self) -> usize {
        (self.reached * 100).checked_div(self.all).unwrap_or(100)
    }
}

impl Map {
    /// Of the files whose path begins with one of the prefixes; of all if there are none.
    pub fn new(sites: &Sites, survey: &Survey, prefixes: &[String]) -> Map {
        let mut by_site = vec![Set::default(); sites.all().len()];
        for (number, program) in survey.programs.iter().enumerate() {
            for index in program.reached.iter().filter_map(|pc| sites.index_of(*pc)) {
                by_site[index].insert(number);
            }
        }
        let mut map = Map::default();
        for (pc, programs) in sites.all().iter().zip(&by_site) {
            let reached = !programs.is_empty();
            let frames = sites.lines(*pc);
            if frames.iter().any(|frame| frame.function.starts_with(TRACEPOINT)) {
                continue;
            }
            let mut counted = false;
            for frame in frames {
                let wanted =
                    prefixes.is_empty() || prefixes.iter().any(|p| frame.file.starts_with(p));
                if !wanted || frame.file.is_empty() || frame.line == 0 {
                    continue;
                }
                if !counted {
                    map.sites.count(reached);
                    counted = true;
                }
                let file = map.files.entry(frame.file.to_string()).or_default();
                let line = file.lines.entry(frame.line).or_default();
                line.sites.count(reached);
                line.programs.extend(programs);
                let function = file.functions.entry(frame.function.to_string()).or_default();
                *function.lines.entry(frame.line).or_default() |= reached;
                function.programs.extend(programs);
            }
        }
        map
    }

    /// The files in the order in which people look for them: code before headers, each by path.
    pub fn in_order(&self) -> Vec<(&str, &FileMap)> {
        let mut all: Vec<_> = self.files.iter().map(|(path, file)| (path.as_str(), file)).collect();
        all.sort_by_key(|(path, _)| (path.ends_with(".h"), *path));
        all
    }

    /// Lines of all files.
    pub fn lines(&self) -> Part {
        sum(self.files.values().map(FileMap::lines_part))
    }

    /// Functions of all files.
    pub fn functions(&self) -> Part {
        sum(self.files.values().map(FileMap::functions_part))
    }
}

fn sum(parts: impl Iterator<Item = Part>) -> Part {
    parts.fold(Part::default(), |a, b| Part { reached: a.reached + b.reached, all: a.all + b.all })
}

impl FileMap {
    /// Its lines.
    pub fn lines_part(&self) -> Part {
        let reached = self.lines.values().filter(|line| line.sites.reached > 0).count();
        Part { reached, all: self.lines.len() }
    }

    /// Its functions.
    pub fn functions_part(&self) -> Part {
        let reached = self.functions.values().filter(|f| !f.programs.is_empty()).count();
        Part { reached, all: self.functions.len() }
    }
}

impl FunctionMap {
    /// Its lines.
    pub fn lines_part(&self) -> Part {
        Part { reached: self.lines.values().filter(|r| **r).count(), all: self.lines.len() }
    }

    /// Its first line with code.
    pub fn first_line(&self) -> u32 {
        self.lines.keys().next().copied().unwrap_or(0)
    }
}
