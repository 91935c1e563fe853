//! Where a kernel's source comes from: Debian's source package, a directory, or a revision of a git tree.
//!
//! Changes no tree of the user's.

use super::BuildError;
use crate::machine::apt::{Apt, Lists};
use crate::machine::cache::Cache;
use crate::machine::digest::Digest;
use crate::machine::{file_trouble, infra, output, packages, quote, run, scratch};
use crate::target::TargetError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Kind of the cache entries that hold source trees.
pub const KIND: &str = "kernel-sources";
/// Free bytes that fetching and unpacking a source takes: 150 MB of package, the archive in it, 1.7 GB unpacked.
const ROOM: u64 = 2200 << 20;
/// Where an installed source package has its archive.
const INSTALLED: &str = "/usr/src";
/// What only a tree has that was configured or built in place; the kernel's own Makefile asks for the same before it builds elsewhere.
const BUILT_IN_PLACE: [&str; 3] = [".config", "include/config", "include/generated"];
/// What the C library makes of ENOSPC.
pub const NO_SPACE: &str = "No space left on device";
/// Characters of a revision in a name.
const SHORT: usize = 12;

/// A kernel's source as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Debian's package `linux-source-SERIES`.
    Debian(String),
    /// A directory as it is now.
    Directory(PathBuf),
    /// A revision of the git tree there.
    Git(PathBuf, String),
}

impl Source {
    /// `debian:6.12`, or a directory and perhaps a revision.
    pub fn new(text: &str, revision: Option<&str>) -> Result<Source, BuildError> {
        match (text.strip_prefix("debian:"), revision) {
            (Some(series), None) if version(series).is_some() => Ok(Source::Debian(series.into())),
            (Some(series), None) => Err(BuildError::wrong(
                format!("`{}` is no series of kernels", series.escape_debug()),
                "name one as debian:6.12 or debian:6.1, without profiles: these go into --profile",
            )),
            (Some(_), Some(_)) => Err(BuildError::wrong(
                "--revision is for a git tree",
                "Debian's sources have none: leave it out, or name a directory",
            )),
            (None, None) => Ok(Source::Directory(text.into())),
            (None, Some(revision)) => Ok(Source::Git(text.into(), revision.into())),
        }
    }
}

/// A source that lies on this machine.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The tree.
    pub dir: PathBuf,
    /// Names the content.
    pub key: String,
    /// Names what is built again and again: its versions share objects. One word, fit for a path.
    pub line: String,
    /// What kernels from it are called.
    pub stem: String,
    /// For people.
    pub words: String,
    /// Whether it stays as it is: an entry of the cache.
    pub kept: bool,
}

impl Origin {
    /// Fails if somebody changed the directory since it was looked at: nobody knows what was copied then.
    pub fn unchanged(&self) -> Result<(), BuildError> {
        if self.kept || state(&self.dir, Digest::default(), true)?.to_string() == self.key {
            return Ok(());
        }
        let what = format!("{} changed while it was read", self.dir.display());
        Err(BuildError::failed(
            what,
            "let it rest for the few seconds that reading takes, and build again",
        ))
    }
}

/// Two numbers with a dot.
pub fn version(text: &str) -> Option<(u64, u64)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() < 6 && text.chars().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (major, minor) = text.split_once('.')?;
    Some((number(major)?, number(minor)?))
}

/// The series of a tree, by its Makefile.
pub fn series(dir: &Path) -> Result<(u64, u64), BuildError> {
    let path = dir.join("Makefile");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let number = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let needed = ["Kconfig", "scripts/kconfig/merge_config.sh"];
    let missing = needed.iter().find(|name| !dir.join(name).is_file());
    match (number("VERSION"), number("PATCHLEVEL"), missing) {
        (Some(major), Some(minor), None) => Ok((major, minor)),
        (.., missing) => {
            let lacks = match missing {
                Some(name) => format!("it has no {name}"),
                None => "its Makefile names no VERSION and PATCHLEVEL".into(),
            };
            let what = format!("{} is not the source of a kernel: {lacks}", dir.display());
            Err(BuildError::wrong(
                what,
                "name debian:6.12, debian:6.1, or the top of a kernel tree",
            ))
        }
    }
}

/// Whether a directory is a kernel's source; nothing is fetched for it.
pub fn check(source: &Source) -> Result<(), BuildError> {
    match source {
        Source::Debian(_) => Ok(()),
        Source::Directory(dir) => series(&canonical(dir)?).map(drop),
        // What a revision holds is seen when it is taken out.
        Source::Git(dir, _) => canonical(dir).map(drop),
    }
}

/// Makes sure that the source is there.
pub fn origin(
    source: &Source,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Origin, BuildError> {
    match source {
        Source::Debian(series) => Ok(debian(series, cache, progress)?),
        Source::Directory(dir) => directory(dir),
        Source::Git(dir, revision) => git(dir, revision, cache, progress),
    }
}

/// Debian's source. One that was fetched once is used again, also without a network.
fn debian(
    series: &str,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Origin, TargetError> {
    let fact = format!("kernel-source-{series}");
    let package = format!("linux-source-{series}");
    let origin = |dir: PathBuf, key: String| Origin {
        dir,
        words: key.replace('_', " "),
        key,
        line: format!("debian-{series}"),
        stem: format!("debian:{series}"),
        kept: true,
    };
    let there = || {
        let key = cache.recall(&fact)?.trim().to_string();
        Some(origin(cache.find(KIND, &key)?, key))
    };
    if let Some(found) = there() {
        return Ok(found);
    }
    packages::ensure(cache, &packages::DEBIAN, progress)?;
    let _lock = cache.lock(&fact)?;
    if let Some(found) = there() {
        return Ok(found);
    }
    scratch::expect_room(cache, ROOM, &format!("fetching the source of debian:{series}"))?;
    let (dir, key) = match installed(&package) {
        Some((version, archive)) => {
            let key = format!("{package}_{version}");
            progress(&format!("unpacking {}", archive.display()));
            (cache.entry(KIND, &key, |dir| unpack(&archive, dir))?, key)
        }
        None => {
            progress(&format!("fetching {package} from Debian (some 150 MB)"));
            let fetch = |lists| {
                let apt = Apt::new(cache, lists)?;
                let key = format!("{package}_{}", apt.version_of(&package)?);
                let dir = cache.entry(KIND, &key, |dir| fetched(&apt, &package, dir))?;
                Ok((dir, key))
            };
            // The machine's lists may be missing or behind the archive: ours are fetched for the second try.
            fetch(Lists::System).or_else(|first: TargetError| {
                fetch(Lists::Own).map_err(|second| infra(format!("{second} (and before: {first})")))
            })?
        }
    };
    cache.remember(&fact, &key)?;
    Ok(origin(dir, key))
}

/// Version and archive of a source package that this machine has installed.
fn installed(package: &str) -> Option<(String, PathBuf)> {
    let archive = Path::new(INSTALLED).join(format!("{package}.tar.xz"));
    let query = packages::find("dpkg-query").filter(|_| archive.is_file())?;
    let form = "-f=${db:Status-Status} ${Version}";
    let text = run(Command::new(query).args(["-W", form, package])).ok()?;
    Some((text.strip_prefix("installed ")?.trim().to_string(), archive))
}

fn fetched(apt: &Apt, package: &str, dir: &Path) -> Result<(), TargetError> {
    let whole = dir.join(".package");
    fs::create_dir(&whole).map_err(file_trouble("creating", &whole))?;
    let deb = apt.download(package, &whole)?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&whole))?;
    unpack(&whole.join(format!("usr/src/{package}.tar.xz")), dir)?;
    fs::remove_dir_all(&whole).map_err(file_trouble("clearing", &whole))
}

/// The archive's one folder becomes `dir`.
fn unpack(archive: &Path, dir: &Path) -> Result<(), TargetError> {
    let mut command = Command::new("tar");
    command.env("LC_ALL", "C").arg("-xJf").arg(archive).arg("-C").arg(dir);
    untarred(&output(command.arg("--strip-components=1"))?)
}

/// What became of tar. It says the same of every file that found no room.
fn untarred(output: &Output) -> Result<(), TargetError> {
    if output.status.success() {
        return Ok(());
    }
    let said = quote(output);
    if said.contains(NO_SPACE) {
        return Err(infra(
            "no space left while unpacking a kernel's source: free some, or point XDG_CACHE_HOME elsewhere",
        ));
    }
    Err(infra(format!("tar failed ({}): {}", output.status, said.replace('\n', " "))))
}

/// The tree at `dir`, if it is one.
fn canonical(dir: &Path) -> Result<PathBuf, BuildError> {
    fs::canonicalize(dir).ok().filter(|dir| dir.is_dir()).ok_or_else(|| {
        BuildError::wrong(
            format!("there is no directory {}", dir.to_string_lossy().escape_debug()),
            "name debian:6.12, debian:6.1, or the top of a kernel tree",
        )
    })
}

/// Line and stem of a directory: its name for people, a digest of its path against others of that name.
fn names(dir: &Path) -> (String, String) {
    let last = dir.file_name().unwrap_or_default().to_string_lossy();
    let fine = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let word: String = last.trim_start_matches('.').chars().map(fine).take(40).collect();
    let word = if word.is_empty() { "tree".to_string() } else { word };
    let digest = Digest::default().with(dir.as_os_str().as_encoded_bytes()).to_string();
    (format!("{word}-{}", &digest[..SHORT]), word)
}

fn directory(dir: &Path) -> Result<Origin, BuildError> {
    let dir = canonical(dir)?;
    series(&dir)?;
    if let Some(name) = BUILT_IN_PLACE.iter().find(|name| dir.join(name).exists()) {
        return Err(BuildError::wrong(
            format!("{} was configured or built in place (it has {name})", dir.display()),
            format!(
                "run `make -C {} mrproper`, or name a --revision, which is taken from git",
                dir.display()
            ),
        ));
    }
    let (line, stem) = names(&dir);
    let key = state(&dir, Digest::default(), true)?.to_string();
    let words = dir.display().to_string();
    Ok(Origin { dir, key, line, stem, words, kept: false })
}

/// Names the state of a directory by names, sizes, times and inodes of its files; reading 1.5 GB each time would take longer than a build.
fn state(dir: &Path, mut digest: Digest, top: bool) -> Result<Digest, TargetError> {
    for (name, path) in super::tree::entries(dir, top)? {
        let meta = fs::symlink_metadata(&path).map_err(file_trouble("reading", &path))?;
        digest = digest.with(name.as_encoded_bytes());
        if meta.is_dir() {
            digest = state(&path, digest, false)?.with(b"end");
        } else {
            let numbers = [meta.size(), meta.ino(), u64::from(meta.mode())];
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            digest = digest.with(format!("{numbers:?} {times:?}").as_bytes());
        }
    }
    Ok(digest)
}

/// A revision, taken out of git without touching the tree that lies there.
fn git(
    dir: &Path,
    revision: &str,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Origin, BuildError> {
    let dir = canonical(dir)?;
    packages::ensure(cache, &["git"], progress)?;
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&dir).args(words);
        command
    };
    // A revision that begins with a dash stays one.
    let asked = format!("{revision}^{{commit}}");
    let parsed =
        output(&mut git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &asked]))?;
    let commit = String::from_utf8_lossy(&parsed.stdout).trim().to_string();
    if !parsed.status.success() || commit.is_empty() {
        let why =
            quote(&parsed).lines().next().map(|line| format!(" ({line})")).unwrap_or_default();
        return Err(BuildError::wrong(
            format!("{} has no git revision `{}`{why}", dir.display(), revision.escape_debug()),
            "`git log` and `git branch` in it show what there is",
        ));
    }
    let (line, stem) = names(&dir);
    let short: String = commit.chars().take(SHORT).collect();
    let key = format!("{line}-git-{commit}");
    let out = |to: &Path| {
        let mut archive = git(&["archive", "--format=tar", &commit])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| infra(format!("cannot run git: {e}")))?;
        let tar = archive.stdout.take().ok_or_else(|| infra("git has no output"))?;
        let mut untar = Command::new("tar");
        let unpacked = untar.env("LC_ALL", "C").arg("-xf-").arg("-C").arg(to).stdin(tar).output();
        drop(untar);
        let status = archive.wait().map_err(infra)?;
        let unpacked = unpacked.map_err(|e| infra(format!("cannot run tar: {e}")))?;
        match (status.success(), unpacked.status.success()) {
            (_, false) => untarred(&unpacked),
            (true, true) => Ok(()),
            (false, true) => Err(infra(format!("git archive failed ({status})"))),
        }
    };
    if cache.find(KIND, &key).is_none() {
        scratch::expect_room(cache, ROOM, &format!("taking out {short}"))?;
        progress(&format!("taking {short} out of {}", dir.display()));
    }
    let taken = cache.entry(KIND, &key, out)?;
    let words = format!("{} {commit}", dir.display());
    Ok(Origin { dir: taken, key, line, stem: format!("{stem}@{short}"), words, kept: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let source = |text, revision| Source::new(text, revision).map_err(|e| e.to_string());
        assert_eq!(source("debian:6.12", None), Ok(Source::Debian("6.12".into())));
        assert_eq!(source("linux", None), Ok(Source::Directory("linux".into())));
        assert_eq!(source("linux", Some("v6.9")), Ok(Source::Git("linux".into(), "v6.9".into())));
        for wrong in
            ["debian:", "debian:6", "debian:6.12+kcov", "debian:../../x.1", "debian:6.1\n2"]
        {
            assert!(
                source(wrong, None).unwrap_err().ends_with("is no series of kernels"),
                "{wrong}"
            );
        }
        assert_eq!(source("debian:6.1", Some("x")), Err("--revision is for a git tree".into()));
    }

    #[test]
    fn a_line_is_one_word_for_a_path_whatever_the_directory_is_called() {
        for hostile in ["/a/..", "/a/b c", "/a/x\ny", "/a/-rf", "/a/$(x)", "/"] {
            let (line, stem) = names(Path::new(hostile));
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            assert!(line.chars().all(fine) && !line.starts_with('.') && !stem.is_empty(), "{line}");
        }
        assert_ne!(names(Path::new("/a/linux")).0, names(Path::new("/b/linux")).0);
    }
}
