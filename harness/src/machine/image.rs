//! Images: the TOML files that say what a guest's media are, and the file systems made from them.
//!
//! Media are made by the real mkfs on plain files, as an ordinary user. Does not start guests.

use super::modules::{self, Wanted};
use super::{file_trouble, infra, packages, pfn, run, sparse};
use crate::target::TargetError;
use program::Mount;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// The images that come along.
const BUILTIN: [(&str, &str); 6] = [
    ("ext4-dax", include_str!("../../../vm-images/images/ext4-dax.toml")),
    ("xfs-dax", include_str!("../../../vm-images/images/xfs-dax.toml")),
    ("ext4", include_str!("../../../vm-images/images/ext4.toml")),
    ("xfs", include_str!("../../../vm-images/images/xfs.toml")),
    ("xfs-dax-virtio", include_str!("../../../vm-images/images/xfs-dax-virtio.toml")),
    ("xfs-dax-nvdimm", include_str!("../../../vm-images/images/xfs-dax-nvdimm.toml")),
];

/// Sizes are multiples of this: what the kernel asks of the borders of a pmem region, and what a PMD maps.
pub const ALIGN: u64 = 2 << 20;
/// Guest memory beside the media. Below, the kernel and the page cache of a batch do not fit; above, snapshots get slow.
const MEMORY: (u64, u64) = (256 << 20, 1536 << 20);
/// Sizes of media: mkfs.xfs 6.1 refuses less than 300 MiB, ext4 needs room for its journal. fsck reads all of it after every batch.
const XFS: (u64, u64) = (300 << 20, 1 << 30);
const EXT4: (u64, u64) = (32 << 20, 1 << 30);
/// All of a guest's memory lies below the hole for devices, where a media's offset is its physical address.
pub const TOTAL_MAX: u64 = 3 << 30;
/// CPUs in fast mode. More than a program has lanes bring nothing.
const CPUS: (u32, u32) = (1, 8);
/// mkfs stamps this time where it can be told to (2020-01-01), and draws identities from these.
const EPOCH: &str = "1577836800";
const UUID: &str = "70696e66-757a-4a00-8000-0000000000";

/// How media are shown to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pmem {
    /// Legacy pmem: memory that `memmap=` declares persistent. Synchronous and deterministic.
    E820,
    /// virtio-pmem: flushes are asynchronous.
    VirtioPmem,
    /// An NVDIMM described by ACPI.
    Nvdimm,
}

impl Pmem {
    /// The modules that this kind needs beside those of every guest.
    pub fn modules(self) -> &'static [Wanted] {
        match self {
            Pmem::E820 => modules::E820,
            Pmem::VirtioPmem => modules::VIRTIO,
            Pmem::Nvdimm => modules::NFIT,
        }
    }

    /// Bytes of the media file before the block device begins.
    pub fn data_offset(self) -> u64 {
        match self {
            Pmem::E820 | Pmem::VirtioPmem => 0,
            Pmem::Nvdimm => pfn::DATA_OFFSET,
        }
    }
}

/// One file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Which.
    pub mount: Mount,
    /// Bytes of the block device.
    pub size: u64,
    /// Options of mkfs.
    pub mkfs: Vec<String>,
    /// Mount options.
    pub options: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// The mount that unprefixed names of a program are on.
    pub home: Mount,
    /// How media are shown.
    pub pmem: Pmem,
    /// CPUs in fast mode.
    pub cpus: u32,
    /// Bytes of memory beside the media.
    pub memory: u64,
    /// The file systems, in the order of `Mount::ALL`.
    pub media: Vec<Medium>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    home: String,
    pmem: Pmem,
    cpus: u32,
    memory: Size,
    mount: Vec<MountText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MountText {
    name: String,
    fs: String,
    size: Size,
    mkfs: Vec<String>,
    options: String,
}

/// `304M`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Size(u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Size, String> {
        let number = text.strip_suffix('M').and_then(|n| n.parse::<u32>().ok());
        number
            .map(|n| Size(u64::from(n) << 20))
            .ok_or_else(|| format!("size `{text}` is not like 128M"))
    }
}

/// The names of the images that come along.
pub fn names() -> Vec<&'static str> {
    BUILTIN.iter().map(|(name, _)| *name).collect()
}

/// Loads an image by its name, or from a TOML file if it is a path.
pub fn load(name: &str) -> Result<Image, TargetError> {
    if let Some((_, text)) = BUILTIN.iter().find(|(builtin, _)| *builtin == name) {
        return parse(name, name, text);
    }
    if !name.ends_with(".toml") {
        return Err(infra(format!("no such image: {name} (known: {})", names().join(", "))));
    }
    let path = Path::new(name);
    let text = fs::read_to_string(path).map_err(file_trouble("reading image", path))?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    parse(name, &stem, &text)
}

fn parse(file: &str, name: &str, text: &str) -> Result<Image, TargetError> {
    let wrong = |what: String| infra(format!("image {file}: {what}"));
    let raw: Text = toml::from_str(text).map_err(|e| {
        let line =
            e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        let what = e.message().replace('\n', " ");
        wrong(format!("line {line}: {what}"))
    })?;
    let within = |key: &str, value: u64, (low, high): (u64, u64)| {
        if value < low || value > high || !value.is_multiple_of(ALIGN) {
            let text = format!(
                "{key} = {}M: has to be even, {}M to {}M",
                value >> 20,
                low >> 20,
                high >> 20
            );
            return Err(wrong(text));
        }
        Ok(value)
    };
    let mount = |name: &str, key: &str| {
        let known = Mount::ALL.map(Mount::name).join(", ");
        Mount::from_name(name)
            .ok_or_else(|| wrong(format!("{key} = \"{name}\": known are {known}")))
    };
    if raw.cpus < CPUS.0 || raw.cpus > CPUS.1 {
        return Err(wrong(format!("cpus = {}: has to be {} to {}", raw.cpus, CPUS.0, CPUS.1)));
    }
    let home = mount(&raw.home, "home")?;
    let memory = within("memory", raw.memory.0, MEMORY)?;
    let mut media = BTreeMap::new();
    for text in raw.mount {
        let mount = mount(&text.name, "mount.name")?;
        let (fs, limits) = if mount.is_xfs() { ("xfs", XFS) } else { ("ext4", EXT4) };
        if text.fs != fs {
            return Err(wrong(format!("mount.fs = \"{}\": {} is {fs}", text.fs, text.name)));
        }
        // The agent's list is one line a mount, split at blanks.
        if text.options.is_empty()
            || text.options.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(wrong(format!("mount.options of {} is empty or holds blanks", text.name)));
        }
        let size = within("mount.size", text.size.0, limits)?;
        let medium = Medium { mount, size, mkfs: text.mkfs, options: text.options };
        if media.insert(mount, medium).is_some() {
            return Err(wrong(format!("mount.name = \"{}\" stands twice", text.name)));
        }
    }
    if let Some(absent) = Mount::ALL.into_iter().find(|m| !media.contains_key(m)) {
        return Err(wrong(format!("mount \"{}\" is missing: a guest has all four", absent.name())));
    }
    let media: Vec<Medium> = Mount::ALL.into_iter().filter_map(|m| media.remove(&m)).collect();
    let total = memory + media.iter().map(|m| m.size).sum::<u64>();
    if total > TOTAL_MAX {
        return Err(wrong(format!(
            "memory and media make {}M, more than {}M",
            total >> 20,
            TOTAL_MAX >> 20
        )));
    }
    Ok(Image { name: name.into(), home, pmem: raw.pmem, cpus: raw.cpus, memory, media })
}

impl Image {
    /// `NAME DEVICE FSTYPE OPTIONS`, one line a mount, for the agent. Regions are numbered in the order in which they lie.
    pub fn mounts_list(&self) -> String {
        let line = |(n, m): (usize, &Medium)| {
            let fs = if m.mount.is_xfs() { "xfs" } else { "ext4" };
            format!("{} /dev/pmem{n} {fs} {}\n", m.mount.name(), m.options)
        };
        self.media.iter().enumerate().map(line).collect()
    }

    /// Everything that shapes the guest, and so names its snapshot. `home` does not: it only says how programs are read.
    pub fn layout(&self) -> String {
        format!("{:?} {} {} {:?}", self.pmem, self.cpus, self.memory, self.media)
    }

    /// Bytes of the file behind a medium.
    pub fn file_size(&self, medium: &Medium) -> u64 {
        medium.size + self.pmem.data_offset()
    }

    /// Makes the file behind medium `index` with a fresh file system on it.
    pub fn make(&self, index: usize, path: &Path) -> Result<(), TargetError> {
        let medium = &self.media[index];
        let raw = path.with_extension("mkfs");
        let trouble = file_trouble("making image", path);
        File::create(&raw).and_then(|f| f.set_len(medium.size)).map_err(&trouble)?;
        run(self.mkfs(medium, index)?.arg(&raw))?;
        // mkfs.xfs writes a log of zeros; in the copy it is a hole.
        let copy = || {
            let file = File::create(path)?;
            file.set_len(self.file_size(medium))?;
            sparse::copy(&File::open(&raw)?, 0, medium.size, &file, self.pmem.data_offset())?;
            if self.pmem == Pmem::Nvdimm {
                pfn::write(&file, self.file_size(medium), index as u8)?;
            }
            fs::remove_file(&raw)
        };
        copy().map_err(&trouble)
    }

    fn mkfs(&self, medium: &Medium, index: usize) -> Result<Command, TargetError> {
        let xfs = medium.mount.is_xfs();
        let mut mkfs = Command::new(packages::expect(if xfs { "mkfs.xfs" } else { "mkfs.ext4" })?);
        // xfsprogs 6.1 heeds the epoch in part, e2fsprogs has a name of its own for it.
        mkfs.envs([("SOURCE_DATE_EPOCH", EPOCH), ("E2FSPROGS_FAKE_TIME", EPOCH), ("LC_ALL", "C")]);
        if xfs {
            mkfs.args(["-q", "-f", "-m", &format!("uuid={UUID}{index:02x}")]);
        } else {
            // Tables that are initialised later would have a kernel thread write into our runs.
            let seed = format!(
                "hash_seed={UUID}{:02x},lazy_itable_init=0,lazy_journal_init=0",
                index + 16
            );
            mkfs.args(["-q", "-F", "-U", &format!("{UUID}{index:02x}"), "-E", &seed]);
        }
        mkfs.args(&medium.mkfs);
        Ok(mkfs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_that_come_along_are_right() {
        for name in names() {
            let image = load(name).unwrap();
            assert_eq!(image.name, name);
            assert!(name.starts_with(image.home.name()), "{name}");
            assert_eq!(image.media.iter().map(|m| m.mount).collect::<Vec<_>>(), Mount::ALL);
        }
    }

    #[test]
    fn the_standard_images_share_a_snapshot() {
        let layouts = ["ext4-dax", "xfs-dax", "ext4", "xfs"].map(|n| load(n).unwrap().layout());
        assert!(layouts.iter().all(|l| *l == layouts[0]));
        assert_ne!(load("xfs-dax-nvdimm").unwrap().layout(), layouts[0]);
    }

    #[test]
    fn the_agents_list_names_devices_in_order() {
        let list = load("xfs").unwrap().mounts_list();
        assert_eq!(
            list,
            "ext4-dax /dev/pmem0 ext4 dax=always\nxfs-dax /dev/pmem1 xfs dax=always\n\
             ext4 /dev/pmem2 ext4 dax=never\nxfs /dev/pmem3 xfs dax=never\n"
        );
    }

    #[test]
    fn mistakes_are_told_in_one_line_with_file_and_key() {
        let good = BUILTIN[1].1;
        for (from, to, want) in [
            ("cpus = 2", "cpus = 0", "image x: cpus = 0: has to be 1 to 8"),
            ("cpus = 2", "cpu = 2", "image x: line 9: unknown field `cpu`, expected one of"),
            (
                "= \"e820\"",
                "= \"e821\"",
                "image x: line 6: unknown variant `e821`, expected one of",
            ),
            (
                "home = \"xfs-dax\"",
                "home = \"btrfs\"",
                "image x: home = \"btrfs\": known are ext4-dax",
            ),
            ("\"304M\"", "\"64M\"", "image x: mount.size = 64M: has to be even, 300M to 1024M"),
            ("\"304M\"", "\"303M\"", "image x: mount.size = 303M: has to be even"),
            ("\"304M\"", "304", "image x: line 26: invalid type: integer `304`, expected a string"),
            ("\"512M\"", "\"lots\"", "image x: line 12: size `lots` is not like 128M"),
            ("fs = \"xfs\"", "fs = \"ext4\"", "image x: mount.fs = \"ext4\": xfs-dax is xfs"),
            ("name = \"ext4\"", "name = \"xfs\"", "image x: mount.fs = \"ext4\": xfs is xfs"),
            ("dax=always", "dax=always ro", "image x: mount.options of ext4-dax is empty or holds"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = parse("x", "x", &good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with(want) && error.lines().count() == 1, "{error}");
        }
        let error = load("nope").unwrap_err().to_string();
        assert!(error.starts_with("no such image: nope (known: ext4-dax, "), "{error}");
    }
}
