//! Kernel modules: which ones a guest needs, in which order, and their bytes.
//!
//! Reads `.modinfo` itself, since a Debian package carries no `modules.dep`. Loads nothing: that is the agent's work.

use super::{file_trouble, infra};
use crate::target::TargetError;
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of one module. Debian's xfs.ko has 5 MB without debug information, and tens of MB with.
const MODULE_MAX: u64 = 256 << 20;
/// Directories below which modules are looked for are not nested deeper than this in any kernel.
const DEPTH_MAX: usize = 16;

/// A module that is wanted, and whether a guest can do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, with underscores.
    pub name: &'static str,
    /// Whether the guest cannot be used without it.
    pub required: bool,
}

const fn need(name: &'static str) -> Wanted {
    Wanted { name, required: true }
}

const fn like(name: &'static str) -> Wanted {
    Wanted { name, required: false }
}

/// What every guest needs. The checksum comes first: libcrc32c looks for its algorithm when it is loaded.
pub const BASE: &[Wanted] =
    &[like("crc32c_generic"), need("libnvdimm"), need("nd_pmem"), need("ext4"), need("xfs")];
/// Legacy pmem, from `memmap=`.
pub const E820: &[Wanted] = &[need("nd_e820")];
/// pmem on virtio.
pub const VIRTIO: &[Wanted] = &[need("virtio_pci"), need("virtio_pmem")];
/// pmem on an NVDIMM described by ACPI.
pub const NFIT: &[Wanted] = &[need("nfit")];
/// Modules that programs may use if they are there: the devices behind gates, what the first of them stands on, and soft-RoCE, which looks for
/// its checksum when a device is made (drivers/infiniband/sw/rxe/rxe_icrc.c:rxe_icrc_init, 6.12).
pub const EXTRA: &[Wanted] = &[
    like("dm_mod"),
    like("brd"),
    like("ublk_drv"),
    like("crc32_generic"),
    like("ib_uverbs"),
    like("rdma_rxe"),
];

/// All modules that any guest may want: what is kept of a kernel package.
pub fn everything() -> Vec<Wanted> {
    let mut all: Vec<Wanted> = [BASE, E820, VIRTIO, NFIT, EXTRA].concat();
    // What is kept need not be complete: a kernel without virtio_pmem still serves the other images.
    all.iter_mut().for_each(|w| w.required = false);
    all
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    /// By name, with underscores.
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    /// Whether `modules.builtin` was there to be asked.
    complete: bool,
}

impl Modules {
    /// The modules under `lib/modules/RELEASE`; none if the kernel has no such directory.
    pub fn open(dir: Option<&Path>) -> Result<Modules, TargetError> {
        let mut modules =
            Modules { files: BTreeMap::new(), builtin: BTreeSet::new(), complete: false };
        let Some(dir) = dir else {
            return Ok(modules);
        };
        modules.walk(dir, DEPTH_MAX)?;
        if let Ok(list) = fs::read_to_string(dir.join("modules.builtin")) {
            modules.complete = true;
            modules.builtin = list.lines().filter_map(|l| name_of(Path::new(l))).collect();
        }
        Ok(modules)
    }

    fn walk(&mut self, dir: &Path, depth: usize) -> Result<(), TargetError> {
        let entries = fs::read_dir(dir).map_err(file_trouble("reading modules in", dir))?;
        for entry in entries.flatten() {
            let path = entry.path();
            // Links (`build`, `source`) lead out of the tree and are not followed.
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && depth > 0 {
                self.walk(&path, depth - 1)?;
            } else if kind.is_file()
                && let Some(name) = name_of(&path)
            {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }

    /// The files of the wanted modules and of all that they depend on, in the order in which they have to be loaded.
    pub fn closure(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, TargetError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for module in wanted {
            if self.complete && module.required && !self.has(module.name) {
                return Err(infra(format!("the kernel has no module {}", module.name)));
            }
            self.visit(module.name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.builtin.contains(name)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<PathBuf>,
    ) -> Result<(), TargetError> {
        // A name without a file is built in, or an alias whose bearer we list ourselves.
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        if !seen.insert(name.to_string()) {
            return Ok(());
        }
        for other in needs(&load(path)?, path)? {
            self.visit(&other, seen, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// `kernel/fs/xfs/xfs.ko.xz` is `xfs`; a file that is no module has no name.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".gz" | ".zst").then(|| stem.replace('-', "_"))
}

/// The bytes of a module, decompressed: the guest's kernel may not know how.
pub fn load(path: &Path) -> Result<Vec<u8>, TargetError> {
    let bytes = fs::read(path).map_err(file_trouble("reading module", path))?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            let mut plain = Vec::new();
            liblzma::read::XzDecoder::new(&bytes[..])
                .take(MODULE_MAX)
                .read_to_end(&mut plain)
                .map_err(file_trouble("decompressing module", path))?;
            Ok(plain)
        }
        // zstd and gzip have programs on every machine that installs such modules.
        Some("zst") => plain_by("zstd", path),
        Some("gz") => plain_by("gzip", path),
        _ => Ok(bytes),
    }
}

fn plain_by(program: &str, path: &Path) -> Result<Vec<u8>, TargetError> {
    let output = super::output(std::process::Command::new(program).arg("-dcq").arg(path))?;
    if !output.status.success() {
        let why = super::quote(&output);
        return Err(infra(format!("{program} cannot decompress {}: {why}", path.display())));
    }
    Ok(output.stdout)
}

/// The modules that have to be loaded before this one.
fn needs(bytes: &[u8], path: &Path) -> Result<Vec<String>, TargetError> {
    let broken = |why: String| infra(format!("{} is not a module: {why}", path.display()));
    let file = object::File::parse(bytes).map_err(|e| broken(e.to_string()))?;
    let section =
        file.section_by_name(".modinfo").ok_or_else(|| broken("no .modinfo section".into()))?;
    let data = section.data().map_err(|e| broken(e.to_string()))?;
    let mut names = Vec::new();
    for field in data.split(|b| *b == 0).filter_map(|f| std::str::from_utf8(f).ok()) {
        if let Some(list) = field.strip_prefix("depends=") {
            names.extend(list.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")));
        } else if let Some(soft) = field.strip_prefix("softdep=") {
            // `pre: a b post: c`: only what comes before matters.
            let pre = soft.split_once("pre:").map_or("", |(_, rest)| rest);
            let pre = pre.split("post:").next().unwrap_or_default();
            names.extend(pre.split_whitespace().map(|n| n.replace('-', "_")));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file that has nothing but a `.modinfo` section.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        const HEADER: usize = 64;
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0u8; HEADER];
        elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0");
        elf[20] = 1;
        let table = HEADER + modinfo.len() + names.len();
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[52..54].copy_from_slice(&64u16.to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3u16.to_le_bytes());
        elf[62..64].copy_from_slice(&2u16.to_le_bytes());
        elf.extend(modinfo);
        elf.extend(names);
        elf.extend([0; 64]);
        for (name, kind, at, size) in
            [(1u32, 1u32, HEADER, modinfo.len()), (10, 3, HEADER + modinfo.len(), names.len())]
        {
            let mut section = [0u8; 64];
            section[..4].copy_from_slice(&name.to_le_bytes());
            section[4..8].copy_from_slice(&kind.to_le_bytes());
            section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            section[48] = 1;
            elf.extend(section);
        }
        elf
    }

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, modinfo) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, module(modinfo)).unwrap();
        }
        dir
    }

    #[test]
    fn what_is_depended_on_comes_first_and_once() {
        let dir = tree(&[
            ("kernel/fs/ext4.ko", b"license=GPL\0depends=jbd2,mb-cache\0softdep=pre: crc32c\0"),
            ("kernel/fs/jbd2.ko", b"depends=crc16\0"),
            ("kernel/fs/mb-cache.ko", b"depends=\0"),
            ("kernel/lib/crc16.ko", b"depends=\0"),
            ("kernel/lib/crc32c.ko", b"depends=crc16\0softdep=post: ext4\0"),
            ("kernel/fs/other.ko", b"depends=ext4\0"),
        ]);
        let modules = Modules::open(Some(dir.path())).unwrap();
        let order = modules.closure(&[need("ext4"), like("jbd2")]).unwrap();
        let names: Vec<String> = order.iter().map(|p| name_of(p).unwrap()).collect();
        assert_eq!(names, ["crc16", "jbd2", "mb_cache", "crc32c", "ext4"]);
    }

    #[test]
    fn circles_end_and_builtin_modules_are_left_out() {
        let dir = tree(&[("a.ko", b"depends=b\0"), ("b.ko", b"depends=a,c\0")]);
        fs::write(dir.path().join("modules.builtin"), "kernel/fs/c.ko\n").unwrap();
        let modules = Modules::open(Some(dir.path())).unwrap();
        assert_eq!(modules.closure(&[need("a"), need("c")]).unwrap().len(), 2);
        let error = modules.closure(&[need("xfs")]).unwrap_err().to_string();
        assert_eq!(error, "the kernel has no module xfs");
        assert!(modules.closure(&[like("xfs")]).unwrap().is_empty());
    }

    #[test]
    fn a_kernel_without_modules_needs_none() {
        assert!(Modules::open(None).unwrap().closure(BASE).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.ko"), "hello").unwrap();
        let error = Modules::open(Some(dir.path())).unwrap().closure(&[need("a")]).unwrap_err();
        assert!(error.to_string().contains("a.ko is not a module"), "{error}");
    }
}
