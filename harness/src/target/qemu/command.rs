//! QEMU's command line, and the kernel's.
//!
//! A guest that is restored must have the machine that was saved: both are described here once.

use super::Mode;
use crate::machine::image::{Image, Pmem};
use history::wire;
use std::ffi::OsString;
use std::path::Path;

/// Memory above the legacy pmem regions: QEMU puts the initramfs and the ACPI tables at the top of the guest's memory, and
/// they must not lie on a medium. The initramfs has some 16 MiB.
pub const TAIL: u64 = 48 << 20;
/// PCI slot of the shared memory, far from those that QEMU hands out by itself.
pub const SHM_SLOT: u32 = 16;

/// What the kernel is told.
pub fn kernel_line(image: &Image, append: &str) -> String {
    let mut words: Vec<String> = [
        "console=ttyS0",
        // INFO and above: mounts and the agent's marks are INFO.
        "loglevel=7",
        "printk.devkmsg=on",
        // An oops ends the guest, and QEMU ends with it: what comes after an oops proves nothing. A WARN goes on.
        "oops=panic",
        "panic=-1",
        // Addresses on the console say the same in every run.
        "nokaslr",
        // Boot is faster, and no program of ours attacks the processor.
        "mitigations=off",
        // Threads that share one CPU preempt each other inside the kernel as well.
        "preempt=full",
        // The memory nodes are a trick of ours to give each medium its own file (see `machine`).
        "numa=off",
        // The clock of an emulated machine passes no calibration when the host is busy.
        "tsc=reliable",
        "no_timer_check",
        // Lease breaks may rightly take 45 s (fs.lease-break-time); whoever stands longer than this is stuck.
        "sysctl.kernel.hung_task_timeout_secs=90",
        // A busy host starves the guest: these would report the host.
        "nosoftlockup",
        "rcupdate.rcu_cpu_stall_timeout=120",
        // A hung guest is asked for the stacks of its tasks.
        "sysrq_always_enabled",
    ]
    .map(String::from)
    .into();
    if image.pmem == Pmem::E820 {
        let mut start = image.memory;
        for medium in &image.media {
            words.push(format!("memmap={}M!{}M", medium.size >> 20, start >> 20));
            start += medium.size;
        }
    }
    words.extend(append.split_whitespace().map(String::from));
    words.join(" ")
}

/// The files behind a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Main memory and its tail.
    pub memory: &'a Path,
    /// Whether writes to memory go to the file. A restored guest keeps them to itself, so many can start from one file.
    pub share: bool,
    /// Directory with `shm`, `media0` to `media3` and `console`.
    pub dir: &'a Path,
}

/// The arguments that describe the machine.
pub fn machine(image: &Image, mode: Mode, kvm: bool, files: Files<'_>) -> Vec<OsString> {
    let mut args = Args::default();
    args.add("-nodefaults -no-user-config -nic none -display none -no-reboot");
    let cpus = if mode == Mode::Exact { 1 } else { image.cpus };
    let accel = if kvm { "kvm" } else { "tcg" };
    let nvdimm = if image.pmem == Pmem::Nvdimm { ",nvdimm=on" } else { "" };
    args.add(&format!("-machine pc,accel={accel},vmport=off{nvdimm}"));
    match (mode, kvm) {
        // QEMU_FACTS.md, "Determinism": the instruction clock, no host time, no host randomness.
        (Mode::Exact, _) => args.add(
            "-icount shift=3,sleep=off -rtc clock=vm,base=2020-01-01 -cpu max,rdrand=off,rdseed=off",
        ),
        (Mode::Fast, true) => args.add("-cpu host"),
        (Mode::Fast, false) => args.add("-cpu max"),
    }
    args.add(&format!("-smp {cpus}"));

    let share = if files.share { "on" } else { "off" };
    args.memory("ram", &files.memory.join("ram"), image.memory, share);
    for (n, medium) in image.media.iter().enumerate() {
        let path = files.dir.join(format!("media{n}"));
        args.memory(&format!("media{n}"), &path, image.file_size(medium), "on");
    }
    match image.pmem {
        Pmem::E820 => {
            // One NUMA node for each file lays them behind one another in guest memory: media can be shared with us while
            // main memory is private. The guest does not hear of nodes (numa=off).
            let media: u64 = image.media.iter().map(|m| m.size).sum();
            args.memory("tail", &files.memory.join("tail"), TAIL, share);
            args.add(&format!("-m {}M", (image.memory + media + TAIL) >> 20));
            args.add(&format!("-numa node,memdev=ram,cpus=0-{}", cpus - 1));
            for n in 0..image.media.len() {
                args.add(&format!("-numa node,memdev=media{n}"));
            }
            args.add("-numa node,memdev=tail");
        }
        Pmem::VirtioPmem | Pmem::Nvdimm => {
            let memory = image.memory >> 20;
            args.add(&format!("-m {memory}M,slots=8,maxmem=8G"));
            args.add("-machine memory-backend=ram");
            let device = if image.pmem == Pmem::Nvdimm { "nvdimm" } else { "virtio-pmem-pci" };
            for n in 0..image.media.len() {
                // QEMU lists NVDIMMs for the guest in the order of a hash table over their names (glib: hash * 11 % 7 in a small
                // table), so that consecutive names come out mixed and these in order.
                args.add(&format!("-device {device},id=pmem{},memdev=media{n}", 2 * n));
            }
        }
    }
    args.memory("shm", &files.dir.join("shm"), wire::SHM_SIZE, "on");
    // `master` makes the memory part of the machine's state, without which QEMU refuses to save it.
    args.add(&format!("-device ivshmem-plain,memdev=shm,master=on,addr={SHM_SLOT:#x}"));
    args.option("-chardev", "file,id=console,path=", &files.dir.join("console"), "");
    args.add("-serial chardev:console");
    // The control socket is our side of a pair, on QEMU's standard input.
    args.add("-chardev socket,id=qmp,fd=0 -mon chardev=qmp,mode=control");
    args.0
}

/// The arguments that boot a kernel.
pub fn boot(kernel: &Path, initramfs: &Path, line: &str) -> Vec<OsString> {
    vec![
        "-kernel".into(),
        kernel.into(),
        "-initrd".into(),
        initramfs.into(),
        "-append".into(),
        line.into(),
    ]
}

/// The arguments that wait for a saved state.
pub fn restore() -> Vec<OsString> {
    ["-S", "-incoming", "defer"].map(OsString::from).into()
}

/// A command line as a shell would take it.
pub fn quoted(program: &Path, args: &[OsString]) -> String {
    let quote = |word: &OsString| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    let mut words = vec![quote(&program.as_os_str().into())];
    words.extend(args.iter().map(quote));
    words.join(" ")
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn add(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    /// An option with a path in it. QEMU splits options at commas; a doubled one stands for itself.
    fn option(&mut self, option: &str, before: &str, path: &Path, after: &str) {
        let path = path.to_string_lossy().replace(',', ",,");
        self.0.extend([option.into(), format!("{before}{path}{after}").into()]);
    }

    fn memory(&mut self, id: &str, path: &Path, size: u64, share: &str) {
        let before = format!("memory-backend-file,id={id},mem-path=");
        self.option("-object", &before, path, &format!(",size={}M,share={share}", size >> 20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::image;

    #[test]
    fn media_lie_behind_main_memory_in_order() {
        let image = image::load("xfs-dax").unwrap();
        let line = kernel_line(&image, "quiet  x=1");
        let regions =
            "memmap=128M!512M memmap=304M!640M memmap=128M!944M memmap=304M!1072M quiet x=1";
        assert!(line.ends_with(regions), "{line}");
        assert!(!kernel_line(&image::load("xfs-dax-nvdimm").unwrap(), "").contains("memmap"));
    }

    #[test]
    fn exact_mode_has_one_cpu_and_no_host_time() {
        let image = image::load("xfs-dax").unwrap();
        let files = Files { memory: Path::new("/m"), share: false, dir: Path::new("/a,b") };
        let args = machine(&image, Mode::Exact, false, files);
        let text = quoted(Path::new("qemu"), &args);
        for part in
            ["-smp 1", "sleep=off", "clock=vm", "rdrand=off", "accel=tcg", "path=/a,,b/console"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        let args = ["a b".into(), "it's".into(), "x=1".into()];
        assert_eq!(quoted(Path::new("/q"), &args), r"/q 'a b' 'it'\''s' x=1");
    }
}
