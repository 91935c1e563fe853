//! A QEMU that fails: every failure of the machinery is a `TargetError` of one kind, and leaves nothing behind.
//!
//! QEMU is a shell script here, and the kernel a file that only looks like one. What happens inside real guests is `vm_guest`'s.

use harness::machine::cache::Cache;
use harness::target::TargetError;
use harness::target::qemu::{Accel, Config, QemuTarget};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Answers every QMP command that needs no more, after doing what the test says.
const ANSWER: &str = r#"
while read -r line <&0; do echo '{"return": {"status": "running"}}' >&0; done
"#;

/// Finds the directory of the guest's files in the arguments.
const DIR: &str = r#"
for word in "$@"; do case "$word" in file,id=console,path=*) console="${word#file,id=console,path=}";; esac; done
dir="${console%/console}"
"#;

struct Broken {
    dir: tempfile::TempDir,
}

impl Broken {
    fn new() -> Broken {
        Broken { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What comes of a target whose QEMU does this after its start.
    fn error(&self, script: &str) -> TargetError {
        let qemu = self.path("qemu");
        let version =
            r#"[ "$1" = --version ] && { echo "QEMU emulator version 0.0 (fake)"; exit; }"#;
        fs::write(&qemu, format!("#!/bin/bash\n{version}\n{DIR}\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = self.path("bzImage");
        fs::write(&kernel, bz_image()).unwrap();
        let config = Config {
            kernel: kernel.display().to_string(),
            accel: Accel::Tcg,
            qemu: Some(qemu),
            ..Config::default()
        };
        let cache = Cache::at(&self.path("cache")).unwrap();
        let error = QemuTarget::with_cache(&config, &cache, &|_| {}).unwrap_err();
        assert!(cache.keys("snapshots").is_empty(), "a broken guest was saved");
        let left = fs::read_dir(cache.root().join("snapshots")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "something half-made was left");
        error
    }
}

fn bz_image() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    bytes[0x500..0x50a].copy_from_slice(b"0.0-fake x");
    bytes
}

fn infra(error: TargetError) -> String {
    match error {
        TargetError::Infra(what) => what,
        other => panic!("not trouble of the machinery: {other}"),
    }
}

fn boot(error: TargetError) -> String {
    match error {
        TargetError::Boot { what, .. } => what,
        other => panic!("not a failed boot: {other}"),
    }
}

#[test]
fn a_qemu_that_ends_at_once_is_quoted() {
    let what = infra(Broken::new().error("echo 'qemu: no such machine' >&2; exit 1"));
    assert!(what.contains("did not start") && what.contains("no such machine"), "{what}");
}

#[test]
fn a_qemu_that_speaks_garbage_is_trouble() {
    let what = infra(Broken::new().error("echo garbage >&0; sleep 60"));
    assert!(what.contains("qemu said something odd: garbage"), "{what}");
}

#[test]
fn a_guest_that_dies_while_booting_is_told_from_a_qemu_that_dies() {
    let greeting = r#"echo '{"QMP": {}}' >&0; read -r line <&0; echo '{"return": {}}' >&0"#;
    let what = infra(Broken::new().error(&format!("{greeting}; sleep 0.2; kill -9 $$")));
    assert!(what.contains("qemu ended (signal: 9"), "{what}");
    let shutdown = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
    let script = format!(
        "exec 3>>\"$console\"; {greeting}; echo 'Kernel panic - not syncing: no root' >&3; sleep 0.2; echo '{shutdown}' >&0"
    );
    let what = boot(Broken::new().error(&script));
    assert!(what.contains("went down") && what.contains("not syncing: no root"), "{what}");
}

#[test]
fn a_console_that_floods_ends_the_boot() {
    let script = format!(
        "exec 3>>\"$console\"; echo '{{\"QMP\": {{}}}}' >&0; yes flood | head -c 9000000 >&3 & {ANSWER}"
    );
    let what = boot(Broken::new().error(&script));
    assert!(what.starts_with("the console is flooded"), "{what}");
}

#[test]
fn an_agent_that_lies_is_trouble() {
    // AGENT = READY, and a greeting of 4 GiB that is no JSON.
    let script = format!(
        "exec 3<>\"$dir/shm\"; echo '{{\"QMP\": {{}}}}' >&0
         printf '\\xff\\xff\\xff\\xff' | dd of=/proc/self/fd/3 bs=1 seek=2048 conv=notrunc status=none
         printf '\\x01' | dd of=/proc/self/fd/3 bs=1 seek=12 conv=notrunc status=none
         {ANSWER}"
    );
    let what = infra(Broken::new().error(&script));
    assert!(what.contains("the agent's greeting is odd"), "{what}");
}

#[test]
fn an_agent_that_gives_up_says_why() {
    let script = format!(
        "exec 3<>\"$dir/shm\"; echo '{{\"QMP\": {{}}}}' >&0
         printf '\\x03\\x00\\x00\\x00why' | dd of=/proc/self/fd/3 bs=1 seek=1024 conv=notrunc status=none
         printf '\\x02' | dd of=/proc/self/fd/3 bs=1 seek=12 conv=notrunc status=none
         {ANSWER}"
    );
    let what = boot(Broken::new().error(&script));
    assert!(what.starts_with("the agent gave up: why"), "{what}");
}

#[test]
fn a_file_that_is_no_kernel_is_refused_before_anything_starts() {
    let broken = Broken::new();
    let path = broken.path("file");
    fs::write(&path, "hello").unwrap();
    let config = Config {
        kernel: path.display().to_string(),
        qemu: Some(Path::new("/bin/false").into()),
        ..Config::default()
    };
    let cache = Cache::at(&broken.path("cache")).unwrap();
    // `false --version` is a QEMU that does not even know its version.
    let what = infra(QemuTarget::with_cache(&config, &cache, &|_| {}).unwrap_err());
    assert!(what.contains("/bin/false --version failed"), "{what}");
    let config = Config { qemu: Some("/no/where".into()), ..config };
    let what = infra(QemuTarget::with_cache(&config, &cache, &|_| {}).unwrap_err());
    assert!(what.starts_with("cannot start /no/where"), "{what}");
    let error = harness::machine::kernel::find(&config.kernel, &cache, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("is not a kernel image"), "{error}");
}
