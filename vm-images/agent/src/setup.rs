//! What PID 1 does once: pseudo file systems, modules, the host's memory, the mounts.

use crate::exec::open_gup_test;
use crate::gates::Gates;
use crate::mounts::Mounts;
use crate::rdma;
use crate::run::Environment;
use crate::sys::{self, kcov};
use history::memory::Memory;
use history::wire::{Hello, MAGIC, SHM_SIZE, VERSION, header};
use rustix::mount::{MountFlags, mount};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// PCI ids of ivshmem-plain.
const IVSHMEM: (&str, &str) = ("0x1af4", "0x1110");

/// Mounts proc, sysfs, devtmpfs and debugfs, and /mnt.
pub fn pseudo_file_systems() -> Result<(), String> {
    let all = [
        ("proc", "/proc", true),
        ("sysfs", "/sys", true),
        ("devtmpfs", "/dev", true),
        ("debugfs", "/sys/kernel/debug", false),
        ("tmpfs", "/mnt", true),
    ];
    for (kind, target, needed) in all {
        let _ = std::fs::create_dir_all(target);
        match mount(kind, target, kind, MountFlags::empty(), None) {
            // The kernel may have mounted devtmpfs itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) if needed => return Err(format!("mount {target}: {error}")),
            Err(_) => {}
        }
    }
    Ok(())
}

/// One RAM disk for the gate that stands on it, instead of the sixteen that nobody asked for.
fn parameters(module: &str) -> &'static CStr {
    const { assert!(program::GATE_SIZE <= 1 << 20) };
    match Path::new(module).file_stem().and_then(|name| name.to_str()) {
        Some("brd") => c"rd_nr=1 rd_size=1024",
        _ => c"",
    }
}

/// `finit_module(fd, parameters, 0)` — Loads the modules that `/modules.list` names, one path a line, in order. A line that starts with `-`
/// may fail. The files are removed: pages that the root holds for ever are visited, one by one, by every drop of caches.
pub fn load_modules(list: &str) -> Result<(), String> {
    for line in list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (path, optional) =
            line.strip_prefix('-').map_or((line, false), |path| (path.trim(), true));
        let loaded = File::open(path).map_err(|e| e.to_string()).and_then(|file| {
            match rustix::system::finit_module(&file, parameters(path), 0) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        let _ = std::fs::remove_file(path);
        if let Err(error) = loaded
            && !optional
        {
            return Err(format!("module {path}: {error}"));
        }
    }
    Ok(())
}

/// Finds the ivshmem device, switches it on and maps its memory.
pub fn host_memory() -> Result<Memory<'static>, String> {
    let is = |device: &Path, file: &str, id: &str| {
        std::fs::read_to_string(device.join(file)).is_ok_and(|text| text.trim() == id)
    };
    let devices = std::fs::read_dir("/sys/bus/pci/devices").map_err(|e| format!("no PCI: {e}"))?;
    let device: PathBuf = devices
        .flatten()
        .map(|entry| entry.path())
        .find(|d| is(d, "vendor", IVSHMEM.0) && is(d, "device", IVSHMEM.1))
        .ok_or("there is no ivshmem device")?;
    std::fs::write(device.join("enable"), "1").map_err(|e| format!("enabling ivshmem: {e}"))?;
    let file = OpenOptions::new().read(true).write(true).open(device.join("resource2"));
    let file = file.map_err(|e| format!("ivshmem memory: {e}"))?;
    let size = file.metadata().map_err(|e| format!("ivshmem memory: {e}"))?.len();
    if size < SHM_SIZE {
        return Err(format!("ivshmem memory has {size} bytes, not {SHM_SIZE}"));
    }
    let words =
        sys::map_words(&file, SHM_SIZE as usize).map_err(|e| format!("ivshmem memory: {e}"))?;
    let memory = Memory::new(words).ok_or("ivshmem memory is too small")?;
    let (magic, version) =
        (memory.load_u64(header::MAGIC), memory.load_u64(header::VERSION) as u32);
    match (magic, version) {
        (MAGIC, VERSION) => Ok(memory),
        _ => Err(format!(
            "host speaks {magic:#x} version {version}, agent {MAGIC:#x} version {VERSION}"
        )),
    }
}

/// Mounts all file systems and looks at them.
pub fn mounts(list: &str) -> Result<(Mounts, Hello), String> {
    let mounts = Mounts::parse(list, Path::new("/mnt"))?;
    mounts.await_devices()?;
    mounts.mount_all()?;
    let dax = mounts.dax()?;
    mounts.verify(&dax)?;
    let uname = rustix::system::uname();
    let hello = Hello {
        release: uname.release().to_string_lossy().into_owned(),
        version: uname.version().to_string_lossy().into_owned(),
        mounts: mounts.lines(),
        dax,
        uring_ops: sys::supported_ops(),
        kcov: kcov::exists(),
    };
    Ok((mounts, hello))
}

/// The files that every run wants, opened once.
pub fn environment(hello: Hello) -> Result<Arc<Environment>, String> {
    let open = |path: &str| OpenOptions::new().write(true).open(path).ok();
    let environment = Environment {
        root: "/mnt".into(),
        drop_caches: open("/proc/sys/vm/drop_caches"),
        stat_refresh: open("/proc/sys/vm/stat_refresh"),
        lease_break_time: open("/proc/sys/fs/lease-break-time"),
        clear_warn_once: open("/sys/kernel/debug/clear_warn_once"),
        kmsg: open("/dev/kmsg"),
        ring_ops: Arc::new(hello.uring_ops),
        gates: Gates::new(),
        // A kernel without soft-RoCE has no device: its programs' lines are left out, and say so.
        rdma: rdma::make_device().is_ok(),
        gup_test: open_gup_test().is_some(),
        reached: match hello.kcov {
            true => Some(sys::shared().map_err(|e| format!("memory for coverage: {e}"))?),
            false => None,
        },
    };
    environment.silence_drop_caches();
    Ok(Arc::new(environment))
}
