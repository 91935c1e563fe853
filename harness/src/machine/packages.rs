//! The programs that a guest needs, and the Debian packages that hold them: found, installed if we may, else named.
//!
//! Installs nothing that is there already, and never removes a package.

use super::cache::Cache;
use super::{infra, output, quote};
use crate::target::TargetError;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every program that we start, with its package, and the headers that kernels are built with.
const HOMES: [(&str, &str); 23] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("setpriv", "util-linux"),
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("ld", "binutils"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("patch", "patch"),
    ("git", "git"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/include/openssl/opensslv.h", "libssl-dev"),
];

/// What every guest needs.
pub const GUEST: [&str; 6] =
    ["qemu-system-x86_64", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "setpriv"];

/// What getting Debian's kernels needs.
pub const DEBIAN: [&str; 3] = ["apt-get", "apt-cache", "dpkg-deb"];

/// What building a kernel needs.
pub const KERNEL: [&str; 12] = [
    "gcc",
    "ld",
    "make",
    "flex",
    "bison",
    "bc",
    "tar",
    "xz",
    "patch",
    "/usr/include/stdio.h",
    "/usr/include/libelf.h",
    "/usr/include/openssl/opensslv.h",
];

/// What building the fuzz targets needs beside Rust: libFuzzer is C++.
pub const FUZZ: [&str; 1] = ["g++"];

/// Where system programs lie that an ordinary user's PATH leaves out.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Seconds that apt waits for another apt on this machine.
const APT_LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// Finds a program in PATH and in the system's directories.
pub fn find(program: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH").unwrap_or_default(), program)
}

fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .chain(SYSTEM.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| {
            file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
        })
}

/// Finds a program that `ensure` has made sure of.
pub fn expect(program: &str) -> Result<PathBuf, TargetError> {
    find(program).ok_or_else(|| missing(&[package(program)].into()))
}

/// The packages of those programs that are missing.
pub fn missing_packages(programs: &[&str]) -> BTreeSet<&'static str> {
    let there = |name: &str| match name.starts_with('/') {
        true => Path::new(name).exists(),
        false => find(name).is_some(),
    };
    programs.iter().filter(|p| !there(p)).map(|p| package(p)).collect()
}

/// The line that a user is to type.
pub fn line(packages: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = packages.iter().copied().collect();
    format!("sudo apt-get install --no-install-recommends {}", names.join(" "))
}

/// Makes sure that the programs are there: installs their packages if we are root or `sudo` asks for no password.
pub fn ensure(
    cache: &Cache,
    programs: &[&str],
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), TargetError> {
    if missing_packages(programs).is_empty() {
        return Ok(());
    }
    let _lock = cache.lock("apt-install")?;
    // Another process may have installed them while we waited.
    let packages = missing_packages(programs);
    if packages.is_empty() {
        return Ok(());
    }
    let Some(apt) = Apt::new() else {
        return Err(missing(&packages));
    };
    let names: Vec<&str> = packages.iter().copied().collect();
    progress(&format!("installing {} with apt-get", names.join(", ")));
    apt.install(&names)?;
    match missing_packages(programs) {
        left if left.is_empty() => Ok(()),
        left => Err(missing(&left)),
    }
}

fn package(program: &str) -> &'static str {
    let home = HOMES.iter().find(|(name, _)| *name == program);
    home.map(|(_, package)| *package).unwrap_or_else(|| panic!("no package known for {program}"))
}

fn missing(packages: &BTreeSet<&'static str>) -> TargetError {
    TargetError::Missing {
        packages: packages.iter().map(|p| (*p).to_string()).collect(),
        line: line(packages),
    }
}

/// An apt-get that may install.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn new() -> Option<Apt> {
        find("apt-get")?;
        if rustix::process::geteuid().is_root() {
            return Some(Apt { sudo: false });
        }
        find("sudo")?;
        let allowed = output(Command::new("sudo").args(["-n", "true"])).ok()?.status.success();
        allowed.then_some(Apt { sudo: true })
    }

    fn get(&self, args: &[&str]) -> Result<Output, TargetError> {
        // sudo drops the environment, so it is set behind it.
        let mut command = Command::new(if self.sudo { "sudo" } else { "env" });
        if self.sudo {
            command.args(["-n", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get"]);
        output(command.args(["-o", APT_LOCK_TIMEOUT]).args(args))
    }

    fn install(&self, names: &[&str]) -> Result<(), TargetError> {
        let mut last = self.try_install(names)?;
        if !last.status.success() {
            // Lists that are missing or old: fetch them once.
            self.get(&["update"])?;
            last = self.try_install(names)?;
        }
        if last.status.success() {
            return Ok(());
        }
        Err(infra(format!("{} failed: {}", line(&names.iter().copied().collect()), quote(&last))))
    }

    fn try_install(&self, names: &[&str]) -> Result<Output, TargetError> {
        let base = ["install", "-y", "--no-install-recommends"];
        let plan = self.get(&[&base[..], &["-s"], names].concat())?;
        if !plan.status.success() {
            return Ok(plan);
        }
        let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
        let companion = companion(&plan);
        let mut args = [&base[..], names].concat();
        if let Some(companion) = &companion {
            args.extend(["--allow-downgrades", companion]);
        } else if let Some(removed) = plan.lines().find(|l| l.starts_with("Remv ")) {
            return Err(infra(format!(
                "apt-get would remove a package ({removed}); install by hand: {}",
                line(&names.iter().copied().collect())
            )));
        }
        self.get(&args)
    }
}

/// A newer qemu-utils from elsewhere conflicts with Debian's qemu-system-x86, and apt would remove it. Naming it at the same
/// version keeps it.
fn companion(plan: &str) -> Option<String> {
    plan.lines().find(|l| l.starts_with("Remv qemu-utils "))?;
    let line = plan.lines().find_map(|l| l.strip_prefix("Inst qemu-system-x86 "))?;
    let version = line.split('(').nth(1)?.split_whitespace().next()?;
    Some(format!("qemu-utils={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_package() {
        for program in GUEST.iter().chain(&DEBIAN).chain(&KERNEL).chain(&["git"]) {
            assert!(!package(program).is_empty());
        }
    }

    #[test]
    fn the_line_is_one_line_in_a_fixed_order() {
        let packages = BTreeSet::from(["xfsprogs", "e2fsprogs"]);
        assert_eq!(
            line(&packages),
            "sudo apt-get install --no-install-recommends e2fsprogs xfsprogs"
        );
        let error = missing(&packages).to_string();
        assert_eq!(
            error,
            "missing on this machine: e2fsprogs, xfsprogs; to install: sudo apt-get install \
             --no-install-recommends e2fsprogs xfsprogs"
        );
    }

    #[test]
    fn qemu_utils_is_kept_by_name() {
        let plan =
            "Remv qemu-utils [1:10.0]\nInst qemu-system-x86 (1:7.2+dfsg-7 Debian:12 [amd64])\n";
        assert_eq!(companion(plan), Some("qemu-utils=1:7.2+dfsg-7".into()));
        assert_eq!(companion("Inst qemu-system-x86 (1:7.2 Debian [amd64])\n"), None);
    }

    #[test]
    fn programs_are_found_in_the_given_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mkfs.made-up");
        std::fs::write(&file, "").unwrap();
        assert_eq!(find_in(dir.path().as_os_str(), "mkfs.made-up"), None, "not executable");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        assert_eq!(find_in(dir.path().as_os_str(), "mkfs.made-up"), Some(file));
    }
}
