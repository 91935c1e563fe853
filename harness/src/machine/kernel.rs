//! Kernels under test: Debian's stock ones, fetched into the cache, those that were built, or any bzImage with its modules.
//!
//! Builds no kernel: that is `build`.

use super::apt::{Apt, Lists};
use super::cache::Cache;
use super::modules::{self, Modules};
use super::{build, file_trouble, infra, packages, run, scratch};
use crate::target::TargetError;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's kernels that are known by a short name: the name, the meta package, and what the kernel's release begins with
/// (a meta package may move on to the next series).
pub const DEBIAN: [(&str, &str, &str); 2] = [
    ("debian:6.12", "linux-image-6.12-amd64", "6.12."),
    ("debian:6.1", "linux-image-amd64", "6.1."),
];

/// Kind of the cache entries that hold kernels. An entry keeps `modules::everything` of its package and nothing else: count on when that list
/// grows, so that an older entry is not taken for a whole one.
pub const KIND: &str = "kernels-3";
/// Free bytes that fetching needs: the package (some 100 MB), and all of it unpacked (some 450 MB where modules are not compressed).
const ROOM: u64 = 700 << 20;
/// Most bytes of a kernel's version string; the real ones have about a hundred.
const VERSION_MAX: usize = 256;

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What the user called it.
    pub name: String,
    /// `uname -r`, as the image says.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// `lib/modules/RELEASE`, if there is one.
    pub modules: Option<PathBuf>,
    /// The image before it was packed, with its symbols and lines, if it lies beside.
    pub vmlinux: Option<PathBuf>,
}

/// Finds the kernel of that name; fetches it if it is one of Debian's and not in the cache.
pub fn find(
    name: &str,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Kernel, TargetError> {
    if let Some((_, meta, series)) = DEBIAN.iter().find(|(short, ..)| *short == name) {
        let dir = debian(name, meta, series, cache, progress)?;
        return unpacked(name, &dir);
    }
    if let Some(built) = build::find(name, cache) {
        return build::kernel(&built);
    }
    if name.starts_with("debian:") {
        return Err(infra(no_such(name)));
    }
    let (image, given) = split(name);
    let release = release(&image)?;
    let modules = match given {
        Some(dir) if !dir.is_dir() => {
            return Err(infra(format!("no such directory of modules: {}", dir.display())));
        }
        Some(dir) => Some(dir),
        None => beside(&image, &release),
    };
    let vmlinux = vmlinux_beside(&image);
    Ok(Kernel { name: name.into(), release, image, modules, vmlinux })
}

/// What to say of a kernel of Debian's that is neither known nor built.
pub fn no_such(name: &str) -> String {
    if let Some((source, profiles)) = name.split_once('+')
        && DEBIAN.iter().any(|(short, ..)| *short == source)
    {
        let known = |p: &&str| build::PROFILES.iter().any(|(name, _)| name == p);
        let profiles: Vec<&str> = profiles.split('+').collect();
        if profiles.iter().all(known) {
            let options: String = profiles.iter().map(|p| format!(" --profile {p}")).collect();
            return format!(
                "kernel {name} is not built: run `pinfuzz kernel build {source}{options}`"
            );
        }
    }
    let known: Vec<&str> = DEBIAN.iter().map(|(short, ..)| *short).collect();
    let name = name.escape_debug();
    format!(
        "no such kernel: {name} (known: {}; `pinfuzz kernel list` names those that were built)",
        known.join(", ")
    )
}

/// The `vmlinux` beside an image, or at the top of the build tree that the image lies in.
pub fn vmlinux_beside(image: &Path) -> Option<PathBuf> {
    let image = fs::canonicalize(image).ok()?;
    let folder = image.parent()?;
    let top = folder.ends_with("arch/x86/boot").then(|| folder.ancestors().nth(3)).flatten();
    [Some(folder), top].into_iter().flatten().map(|dir| dir.join("vmlinux")).find(|p| p.is_file())
}

/// `BZIMAGE[:MODULES]`; a colon that belongs to the image's own path stays with it.
fn split(name: &str) -> (PathBuf, Option<PathBuf>) {
    match name.rsplit_once(':') {
        Some((image, modules)) if !Path::new(name).exists() => (image.into(), Some(modules.into())),
        _ => (name.into(), None),
    }
}

/// Modules where an unpacked package, a build tree with installed modules, or this machine has them.
fn beside(image: &Path, release: &str) -> Option<PathBuf> {
    let image = fs::canonicalize(image).ok()?;
    let roots = image.ancestors().skip(1).take(2).map(Path::to_path_buf);
    roots
        .chain([PathBuf::from("/")])
        .map(|root| root.join("lib/modules").join(release))
        .find(|dir| dir.is_dir())
}

/// Reads the release out of a bzImage, and so makes sure that it is one.
pub fn release(image: &Path) -> Result<String, TargetError> {
    let not = |why: &str| {
        infra(format!("{} is not a kernel image (bzImage, vmlinuz): {why}", image.display()))
    };
    let file = File::open(image).map_err(file_trouble("opening kernel", image))?;
    // Offsets: the x86 boot protocol, Documentation/arch/x86/boot.rst (6.12).
    let mut header = [0u8; 0x210];
    file.read_exact_at(&mut header, 0).map_err(|_| not("it is too short"))?;
    if header[0x1fe..0x200] != [0x55, 0xaa] || &header[0x202..0x206] != b"HdrS" {
        return Err(not("the boot header is missing"));
    }
    let at = u64::from(u16::from_le_bytes([header[0x20e], header[0x20f]]));
    let mut text = [0u8; VERSION_MAX];
    let got = file.read_at(&mut text, at + 0x200).map_err(|_| not("it names no version"))?;
    let text = text[..got].split(|b| *b == 0).next().unwrap_or_default();
    let word = std::str::from_utf8(text).ok().and_then(|t| t.split_whitespace().next());
    word.filter(|_| at != 0).map(str::to_string).ok_or_else(|| not("it names no version"))
}

/// The cache entry of a Debian kernel. A kernel that was fetched once is used again, also without a network.
fn debian(
    name: &str,
    meta: &str,
    series: &str,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf, TargetError> {
    let fact = fact(name);
    if let Some(dir) = fetched(&fact, cache) {
        return Ok(dir);
    }
    packages::ensure(cache, &packages::DEBIAN, progress)?;
    let _lock = cache.lock(&fact)?;
    if let Some(dir) = fetched(&fact, cache) {
        return Ok(dir);
    }
    scratch::expect_room(cache, ROOM, &format!("fetching kernel {name}"))?;
    progress(&format!("fetching kernel {name} from Debian"));
    let fetch = |lists| {
        let apt = Apt::new(cache, lists)?;
        let package = apt.kernel_of(meta)?;
        if !package.starts_with(&format!("linux-image-{series}")) {
            return Err(infra(format!(
                "{meta} is {package} on this machine, not a {series}x kernel"
            )));
        }
        let dir = cache.entry(KIND, &package, |dir| unpack(&apt, &package, dir))?;
        Ok((package, dir))
    };
    // The machine's lists may be missing or behind the archive: ours are fetched for the second try.
    let (package, dir) = fetch(Lists::System).or_else(|first| {
        fetch(Lists::Own).map_err(|second| infra(format!("{second} (and before: {first})")))
    })?;
    cache.remember(&fact, &package)?;
    Ok(dir)
}

/// The package of a Debian kernel that was fetched, if it was.
pub fn cached(name: &str, cache: &Cache) -> Option<String> {
    let dir = fetched(&fact(name), cache)?;
    dir.file_name().map(|n| n.to_string_lossy().into_owned())
}

/// Which package a short name stood for when it was last fetched is remembered under this name.
fn fact(name: &str) -> String {
    format!("kernel-{}", name.replace(':', "-"))
}

fn fetched(fact: &str, cache: &Cache) -> Option<PathBuf> {
    cache.find(KIND, cache.recall(fact)?.trim())
}

/// Fills a cache entry with what is needed of a kernel package.
fn unpack(apt: &Apt, package: &str, dir: &Path) -> Result<(), TargetError> {
    let whole = dir.join("whole");
    fs::create_dir(&whole).map_err(file_trouble("creating", &whole))?;
    let deb = apt.download(package, dir)?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&whole))?;
    // The kernel is some 100 MB with all modules, and some 20 MB with ours.
    let full = unpacked(package, &whole)?;
    let boot = dir.join("boot");
    fs::rename(whole.join("boot"), &boot).map_err(file_trouble("keeping", &boot))?;
    let from = full.modules.ok_or_else(|| infra(format!("{package} holds no modules")))?;
    let to = dir.join("lib/modules").join(&full.release);
    let index = Modules::open(Some(&from))?;
    let mut keep: Vec<PathBuf> = index.closure(&modules::everything())?;
    keep.push(from.join("modules.builtin"));
    for file in keep {
        let relative = file.strip_prefix(&from).map_err(infra)?;
        let target = to.join(relative);
        let parent = target.parent().ok_or_else(|| infra("a module without a folder"))?;
        fs::create_dir_all(parent).map_err(file_trouble("creating", parent))?;
        fs::rename(&file, &target).map_err(file_trouble("keeping", &target))?;
    }
    fs::remove_dir_all(&whole).map_err(file_trouble("clearing", &whole))?;
    fs::remove_file(&deb).map_err(file_trouble("clearing", &deb))
}

/// The kernel in an unpacked package.
fn unpacked(name: &str, dir: &Path) -> Result<Kernel, TargetError> {
    let boot = dir.join("boot");
    let entries = fs::read_dir(&boot).map_err(file_trouble("reading", &boot))?;
    let image = entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .ok_or_else(|| infra(format!("no kernel in {}", boot.display())))?;
    let release = release(&image)?;
    // Debian's modules lie under /lib or, since the merge of /usr, under /usr/lib.
    let modules = ["lib", "usr/lib"]
        .map(|lib| dir.join(lib).join("modules").join(&release))
        .into_iter()
        .find(|dir| dir.is_dir());
    Ok(Kernel { name: name.into(), release, image, modules, vmlinux: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a bzImage with a version.
    fn image(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x800];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        bytes[0x500..0x500 + version.len()].copy_from_slice(version.as_bytes());
        bytes
    }

    #[test]
    fn a_kernel_image_names_its_release_and_others_are_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bzImage");
        fs::write(&path, image("6.12.1-x (me@here) #1 SMP")).unwrap();
        assert_eq!(release(&path).unwrap(), "6.12.1-x");
        for (bytes, why) in [
            (b"short".to_vec(), "it is too short"),
            (vec![0; 4096], "the boot header is missing"),
            (image("")[..0x500].to_vec(), "it names no version"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = release(&path).unwrap_err().to_string();
            assert!(error.ends_with(why) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn modules_are_named_or_found_beside() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let modules = dir.path().join("lib/modules/6.9.0-test");
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        fs::create_dir_all(&modules).unwrap();
        let path = dir.path().join("boot/vmlinuz");
        fs::write(&path, image("6.9.0-test #1")).unwrap();
        let quiet: &(dyn Fn(&str) + Sync) = &|_| {};
        let found = find(path.to_str().unwrap(), &cache, quiet).unwrap();
        assert_eq!(found.modules.unwrap(), fs::canonicalize(&modules).unwrap());
        let name = format!("{}:{}", path.display(), dir.path().display());
        assert_eq!(find(&name, &cache, quiet).unwrap().modules.unwrap(), dir.path());
        let name = format!("{}:/no/where", path.display());
        let error = find(&name, &cache, quiet).unwrap_err().to_string();
        assert_eq!(error, "no such directory of modules: /no/where");
        let error = find("debian:2.6", &cache, quiet).unwrap_err().to_string();
        assert_eq!(
            error,
            "no such kernel: debian:2.6 (known: debian:6.12, debian:6.1; `pinfuzz kernel list` names those that were built)"
        );
    }
}
