//! Debian's kernels, by apt-get and dpkg-deb, without root.
//!
//! Installs nothing on this machine: packages are unpacked into the cache.

use super::cache::Cache;
use super::{file_trouble, infra, output, quote, run};
use crate::target::TargetError;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which package lists are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// The machine's. A fresh machine may have none, and they may be older than the archive.
    System,
    /// Our own, in the cache, which an ordinary user may fetch.
    Own,
}

/// apt, told where to keep its things.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// An apt that reads those lists and writes nothing outside the cache. Own lists are fetched now.
    pub fn new(cache: &Cache, lists: Lists) -> Result<Apt, TargetError> {
        let root = cache.root().join("apt");
        for folder in ["cache/archives/partial", "lists/partial"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(file_trouble("creating", &path))?;
        }
        let mut options = vec![format!("Dir::Cache={}", root.join("cache").display())];
        if rustix::process::geteuid().is_root() {
            // apt's own user may not be able to write here.
            options.push("APT::Sandbox::User=root".into());
        }
        if lists == Lists::Own {
            options.push(format!("Dir::State::lists={}", root.join("lists").display()));
        }
        let apt = Apt { options };
        if lists == Lists::Own {
            run(apt.command("apt-get").args(["-q", "update"]))?;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The kernel package that a meta package stands for, such as `linux-image-6.12.117+deb12-amd64`.
    pub fn kernel_of(&self, meta: &str) -> Result<String, TargetError> {
        let output = output(self.command("apt-cache").args(["depends", "--no-recommends", meta]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        kernel_in(&text).ok_or_else(|| {
            infra(format!("apt knows no kernel for {meta}: {}", quote(&output).replace('\n', " ")))
        })
    }

    /// The version of a package that would be downloaded.
    pub fn version_of(&self, package: &str) -> Result<String, TargetError> {
        let mut command = self.command("apt-cache");
        let output = output(command.args(["show", "--no-all-versions", package]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        // It becomes the name of a folder.
        let fine = |c: char| c.is_ascii_alphanumeric() || ".+~-:".contains(c);
        version.filter(|v| v.chars().all(fine)).map(str::to_string).ok_or_else(|| {
            infra(format!("apt knows no {package}: {}", quote(&output).replace('\n', " ")))
        })
    }

    /// Downloads a package into `dir`.
    pub fn download(&self, package: &str, dir: &Path) -> Result<PathBuf, TargetError> {
        run(self.command("apt-get").args(["-q", "download", package]).current_dir(dir))?;
        let entries = fs::read_dir(dir).map_err(file_trouble("reading", dir))?;
        let found =
            entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
        found.ok_or_else(|| infra(format!("apt-get download {package} brought no package")))
    }
}

/// The first dependency that is a kernel with a version.
fn kernel_in(depends: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .find(|name| {
            let version = name.strip_prefix("linux-image-");
            version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_dependency_with_a_version() {
        let text = "linux-image-amd64\n  Depends: libc6\n |Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(kernel_in(text), Some("linux-image-6.1.0-56-amd64".into()));
        assert_eq!(kernel_in("linux-image-amd64\n"), None);
        assert_eq!(kernel_in("x\n  Depends: linux-image-amd64\n"), None);
    }
}
