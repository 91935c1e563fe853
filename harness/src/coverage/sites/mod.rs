//! The call sites of a kernel that KCOV can report, and the source lines that they stand for.
//!
//! gcc's `-fsanitize-coverage=trace-pc` puts a call of `__sanitizer_cov_trace_pc` into every basic block, and KCOV reports its return address
//! (kernel/kcov.c:__sanitizer_cov_trace_pc, 6.12: `canonicalize_ip(_RET_IP_)`, without the offset of KASLR). So the calls in a `vmlinux` are all
//! that can ever be reported. Looking up their lines takes seconds; it is done once for a build, and the result is kept in the cache.
//!
//! ```text
//! calls   where the calls are         lines   what stands there in the source
//! ```
//! Does not know what was reached, and nothing about modules: what is to be covered is built in.

mod calls;
mod lines;
#[cfg(test)]
mod tests;

use crate::machine::cache::Cache;
use crate::machine::{file_trouble, infra};
use crate::target::TargetError;
use object::ReadCache;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;

/// Kind of the cache entries that hold tables of call sites. Count on when `Table` changes.
const KIND: &str = "sites-1";
/// The only file of an entry.
const FILE: &str = "sites.bin";

/// One function at one line: where a call site is, or where what holds it was inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame<'a> {
    /// The function, as the source names it.
    pub function: &'a str,
    /// The file, relative to the kernel's tree; empty without debug information.
    pub file: &'a str,
    /// The line; 0 if the compiler names none.
    pub line: u32,
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            "" => f.write_str(self.function),
            file => write!(f, "{} {file}:{}", self.function, self.line),
        }
    }
}

/// The call sites of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sites(Table);

/// `Sites` as saved. A site's index is that of its return address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    /// What all return addresses have above their low 32 bits.
    high: u64,
    /// The low 32 bits, ascending.
    pcs: Vec<u32>,
    /// The ELF symbol around each site.
    symbols: Vec<u32>,
    /// Where each site's frames begin in `frames`; one more than there are sites.
    starts: Vec<u32>,
    frames: Vec<Place>,
    /// What the numbers above mean.
    strings: Vec<String>,
}

/// A `Frame` by the numbers of its strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    function: u32,
    file: u32,
    line: u32,
}

impl Sites {
    /// The call sites of a `vmlinux`; from the cache if this build was seen before.
    pub fn open(vmlinux: &Path) -> Result<Sites, TargetError> {
        Sites::with_cache(vmlinux, &Cache::open()?)
    }

    /// As `open`, with a given cache.
    pub fn with_cache(vmlinux: &Path, cache: &Cache) -> Result<Sites, TargetError> {
        // A build without an id has no name in the cache.
        let Some(id) = build_id(vmlinux)? else {
            return Sites::read(vmlinux);
        };
        // `make` makes an entry, and someone else may have made it meanwhile: it is read back in either case.
        let dir = cache.entry(KIND, &id, |dir| {
            let table = postcard::to_stdvec(&Sites::read(vmlinux)?.0).map_err(infra)?;
            let file = dir.join(FILE);
            fs::write(&file, table).map_err(file_trouble("writing", &file))
        })?;
        let file = dir.join(FILE);
        let bytes = fs::read(&file).map_err(file_trouble("reading", &file))?;
        postcard::from_bytes(&bytes).ok().and_then(Table::sound).map(Sites).ok_or_else(|| {
            infra(format!("{} is damaged: remove {}, it is made anew", FILE, dir.display()))
        })
    }

    /// The call sites of a `vmlinux`, without a cache.
    pub fn read(vmlinux: &Path) -> Result<Sites, TargetError> {
        with_elf(vmlinux, |elf| {
            let calls = calls::find(elf)?;
            let mut table = Strings::default();
            lines::look_up(elf, &calls, &mut table)?;
            let found = Table { high: calls.high, strings: table.all, ..table.table };
            found.sound().map(Sites).ok_or_else(|| "its addresses make no sense".into())
        })
    }

    /// The return addresses (low 32 bits, as `Done::reached` has them), ascending.
    pub fn all(&self) -> &[u32] {
        &self.0.pcs
    }

    /// The number of the site with this return address.
    pub fn index_of(&self, pc: u32) -> Option<usize> {
        self.0.pcs.binary_search(&pc).ok()
    }

    /// The whole address of which `pc` is the low half.
    pub fn address(&self, pc: u32) -> u64 {
        self.0.high | u64::from(pc)
    }

    /// What stands at a site in the source: the innermost function first, then those that it was inlined into. Empty for what is no site.
    pub fn lines(&self, pc: u32) -> Vec<Frame<'_>> {
        self.index_of(pc).map(|index| self.frames(index).collect()).unwrap_or_default()
    }

    /// The ELF symbol around a site: the function as it was compiled, perhaps a part of one (`.cold`, `.isra.0`).
    pub fn symbol(&self, pc: u32) -> Option<&str> {
        self.index_of(pc).map(|index| self.text(self.0.symbols[index]))
    }

    /// Whether the site is the first one of its function: whoever calls the function passes it.
    pub fn is_entry(&self, pc: u32) -> bool {
        self.index_of(pc).is_some_and(|index| {
            let symbol = self.0.symbols[index];
            let first = index == 0 || self.0.symbols[index - 1] != symbol;
            // gcc moves unlikely blocks away; nobody calls them.
            first && !self.text(symbol).ends_with(".cold")
        })
    }

    /// The sites of source files, given as prefixes relative to the kernel's tree (`fs/dax.c`, `fs/ext4/`). A site that was inlined belongs
    /// to the file that it comes from and to those that it went into.
    pub fn in_files(&self, prefixes: &[&str]) -> Vec<u32> {
        self.filtered(|frame| prefixes.iter().any(|p| frame.file.starts_with(p)))
    }

    /// The sites one of whose frames is wanted.
    pub fn filtered(&self, wanted: impl Fn(Frame<'_>) -> bool) -> Vec<u32> {
        let hits = (0..self.all().len()).filter(|index| self.frames(*index).any(&wanted));
        hits.map(|index| self.0.pcs[index]).collect()
    }

    /// Every line that can be reported, with the functions as the source names them: what could be reached at all.
    pub fn every_line(&self) -> BTreeSet<Frame<'_>> {
        (0..self.all().len()).flat_map(|index| self.frames(index)).collect()
    }

    fn frames(&self, index: usize) -> impl Iterator<Item = Frame<'_>> {
        let [start, end] = [self.0.starts[index], self.0.starts[index + 1]];
        self.0.frames[start as usize..end as usize].iter().map(|place| Frame {
            function: self.text(place.function),
            file: self.text(place.file),
            line: place.line,
        })
    }

    fn text(&self, number: u32) -> &str {
        &self.0.strings[number as usize]
    }
}

impl Table {
    /// The table if it is one: every number in it means something. Files may hold anything.
    fn sound(self) -> Option<Table> {
        let known = |number: u32| (number as usize) < self.strings.len();
        let sites = self.pcs.len();
        let sound = self.symbols.len() == sites
            && self.starts.len() == sites + 1
            && self.pcs.is_sorted_by(|a, b| a < b)
            && self.starts.is_sorted()
            && self.starts.first() == Some(&0)
            && self.starts.last().is_some_and(|end| *end as usize == self.frames.len())
            && self.symbols.iter().all(|n| known(*n))
            && self.frames.iter().all(|f| known(f.function) && known(f.file));
        sound.then_some(self)
    }
}

/// A table that is being made, each of its strings once.
#[derive(Default)]
struct Strings {
    table: Table,
    all: Vec<String>,
    numbers: BTreeMap<String, u32>,
}

impl Strings {
    fn number(&mut self, text: &str) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        let number = u32::try_from(self.all.len()).map_err(|_| "it has too many names")?;
        self.all.push(text.into());
        self.numbers.insert(text.into(), number);
        Ok(number)
    }
}

/// An ELF file that is read piece by piece: of some 300 MB, a third is wanted.
type Elf<'a> = object::File<'a, &'a ReadCache<File>>;

/// Reads something out of an ELF file. A reason why that is not possible becomes one line with the file's name.
fn with_elf<T>(
    path: &Path,
    read: impl FnOnce(&Elf<'_>) -> Result<T, String>,
) -> Result<T, TargetError> {
    let file = File::open(path).map_err(file_trouble("opening", path))?;
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache)
        .map_err(|e| infra(format!("{} is not a vmlinux: {e}", path.display())))?;
    read(&elf).map_err(|why| infra(format!("{}: {why}", path.display())))
}

/// The id that the linker gave to the build, in hexadecimal.
fn build_id(vmlinux: &Path) -> Result<Option<String>, TargetError> {
    with_elf(vmlinux, |elf| {
        let id = object::Object::build_id(elf).map_err(|e| e.to_string())?;
        // The linker's are 20 bytes; an absurd one makes no file name.
        let id = id.filter(|id| (8..=64).contains(&id.len()));
        Ok(id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()))
    })
}
