//! The guest's file systems, as `/mounts.list` in the initramfs names them: one a line, `NAME DEVICE FSTYPE [OPTIONS]`.

use program::Mount;
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a device may take to appear: modules find theirs in the background.
const DEVICE_WAIT: Duration = Duration::from_secs(20);
/// How long an unmount may meet EBUSY: the kernel lets go of the last references in the background.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mount: Mount,
    device: String,
    kind: String,
    options: String,
}

/// All of them, and where they go.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    entries: Vec<Entry>,
    root: PathBuf,
}

impl Mounts {
    /// Reads the list.
    pub fn parse(list: &str, root: &Path) -> Result<Mounts, String> {
        let mut entries = Vec::new();
        for line in list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (Some(name), Some(device), Some(kind)) = (words.next(), words.next(), words.next())
            else {
                return Err(format!("mounts.list: {line:?} is not NAME DEVICE FSTYPE [OPTIONS]"));
            };
            let mount = Mount::from_name(&name)
                .ok_or_else(|| format!("mounts.list: there is no mount {name:?}"))?;
            let options = words.next().filter(|o| o != "-" && o != "defaults").unwrap_or_default();
            entries.push(Entry { mount, device, kind, options });
        }
        entries.sort_by_key(|e| e.mount);
        Ok(Mounts { entries, root: root.to_owned() })
    }

    fn target(&self, mount: Mount) -> PathBuf {
        self.root.join(mount.name())
    }

    /// Waits for the devices.
    pub fn await_devices(&self) -> Result<(), String> {
        let until = Instant::now() + DEVICE_WAIT;
        for entry in &self.entries {
            while !Path::new(&entry.device).exists() {
                if Instant::now() > until {
                    return Err(format!("{} did not appear", entry.device));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// `mount(device, target, type, flags, options)` — Mounts all.
    pub fn mount_all(&self) -> Result<(), String> {
        for entry in &self.entries {
            let target = self.target(entry.mount);
            std::fs::create_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
            let options = CString::new(entry.options.as_str()).unwrap_or_default();
            mount(&entry.device, &target, &entry.kind, MountFlags::empty(), options.as_c_str())
                .map_err(|e| format!("mount {} on {}: {e}", entry.device, target.display()))?;
        }
        Ok(())
    }

    /// `umount(target)` — Unmounts all, which writes everything back.
    pub fn unmount_all(&self) -> Result<(), String> {
        rustix::fs::sync();
        let until = Instant::now() + BUSY_WAIT;
        for entry in self.entries.iter().rev() {
            let target = self.target(entry.mount);
            while let Err(error) = unmount(&target, UnmountFlags::empty()) {
                if error != rustix::io::Errno::BUSY || Instant::now() > until {
                    return Err(format!("umount {}: {error}", target.display()));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Whether a file on each mount is DAX, in the order of `Mount::ALL`.
    pub fn dax(&self) -> Result<Vec<bool>, String> {
        let probe = |entry: &Entry| {
            let path = self.target(entry.mount).join("dax-probe");
            let fd = open(&path, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o644))?;
            let facts = crate::facts::facts(&fd, entry.mount)?;
            rustix::fs::unlink(&path)?;
            Ok(facts.dax)
        };
        let failed = |entry: &Entry, e: rustix::io::Errno| {
            format!("{}: no probe file: {e}", entry.mount.name())
        };
        self.entries.iter().map(|entry| probe(entry).map_err(|e| failed(entry, e))).collect()
    }

    /// The lines of /proc/mounts, in the order of `Mount::ALL`.
    pub fn lines(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let line = |entry: &Entry| {
            let target = self.target(entry.mount);
            let found = table.lines().find(|l| l.split(' ').nth(1) == target.to_str());
            found.unwrap_or_default().to_owned()
        };
        self.entries.iter().map(line).collect()
    }

    /// What is wrong with the mounts, if they are not all there or DAX is not as their names say.
    pub fn verify(&self, dax: &[bool]) -> Result<(), String> {
        if self.entries.iter().map(|e| e.mount).ne(Mount::ALL) {
            return Err("mounts.list does not name each mount once".into());
        }
        match self.entries.iter().zip(dax).find(|(entry, dax)| entry.mount.is_dax() != **dax) {
            Some((entry, dax)) => {
                Err(format!("{}: a file on it has DAX {dax}", entry.mount.name()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let list = "# four\nxfs /dev/pmem3 xfs -\next4-dax /dev/pmem0 ext4 dax=always\n\nxfs-dax /dev/pmem1 xfs dax=always\next4 /dev/pmem2 ext4\n";
        let mounts = Mounts::parse(list, Path::new("/mnt")).expect("well formed");
        assert_eq!(mounts.entries[0].options, "dax=always");
        assert_eq!(mounts.entries[3].device, "/dev/pmem3");
        assert_eq!(mounts.entries[3].options, "");
        assert_eq!(mounts.verify(&[true, true, false, false]), Ok(()));
        assert!(mounts.verify(&[true, false, false, false]).is_err());
        assert!(Mounts::parse("ext4", Path::new("/mnt")).is_err());
        assert!(Mounts::parse("btrfs /dev/x btrfs", Path::new("/mnt")).is_err());
    }
}
