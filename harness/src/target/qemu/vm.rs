//! One QEMU process: started, watched, ended. It never outlives its `Vm`.
//!
//! Knows jobs and logs as bytes only; what they mean is `life`'s business.

use super::super::TargetError;
use super::console::Console;
use super::qmp::{Qmp, QmpError};
use super::shm::Shm;
use super::spawn::spawn;
use super::{command, snapshot::Snapshot};
use crate::machine::{file_trouble, infra, packages, tail};
use history::Down;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A saved state is read in some ms. On a machine that is badly overloaded, in seconds.
const MIGRATE_PATIENCE: Duration = Duration::from_secs(60);
/// How often a migration is asked whether it is over.
const MIGRATE_POLL: Duration = Duration::from_millis(1);
/// QEMU closes its files after its last word on the console; it is gone soon after.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of QEMU's complaints that an error quotes.
const STDERR_MAX: u64 = 4096;

/// A guest's process with everything that we hold of it.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    qmp: Qmp,
    /// The ring of jobs.
    pub shm: Shm,
    /// What the kernel says.
    pub console: Console,
    /// The files behind the media.
    pub media: Vec<File>,
    /// The files behind main memory, of a guest that was booted.
    pub memory: Vec<File>,
    stderr: File,
    /// How it ended, once that is known.
    death: Option<Death>,
}

/// How a process ended that was not told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// The guest brought itself down.
    Guest(Down),
    /// QEMU failed.
    Qemu(String),
}

/// What to start.
pub struct Start<'a> {
    /// The QEMU program.
    pub qemu: &'a Path,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The directory with the guest's files. They are opened by us and by QEMU, and removed before this returns.
    pub dir: &'a Path,
    /// How many media there are.
    pub media: usize,
    /// Names of the files behind main memory, if they lie in `dir` as well.
    pub memory: &'a [&'a str],
    /// Shared memory, opened already.
    pub shm: Shm,
    /// The file on QEMU's standard output: the state that `load` will read.
    pub state: Option<File>,
}

impl Vm {
    /// Starts a process and waits until it answers.
    pub fn start(start: Start<'_>) -> Result<Vm, TargetError> {
        let open = |name: &str| {
            let path = start.dir.join(name);
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            file.map_err(|e| file_trouble("opening", &path)(e))
        };
        let console = open("console")?;
        let stderr = open("stderr")?;
        let media =
            (0..start.media).map(|n| open(&format!("media{n}"))).collect::<Result<_, _>>()?;
        let (ours, theirs) = UnixStream::pair().map_err(infra)?;
        let memory = start.memory.iter().map(|name| open(name)).collect::<Result<_, _>>()?;
        let mut command = Command::new(packages::expect("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(start.qemu).args(&start.args);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(start.state.map_or_else(Stdio::null, Stdio::from));
        command.stderr(Stdio::from(stderr.try_clone().map_err(infra)?));
        let mut child = spawn(command)?;
        let qmp = match Qmp::new(ours) {
            Ok(qmp) => qmp,
            Err(error) => {
                // Dead or deaf: it has to go either way.
                let _ = child.kill();
                let _ = child.wait();
                return Err(infra(format!(
                    "{} did not start: {}",
                    start.qemu.display(),
                    why(&error, &stderr)
                )));
            }
        };
        let vm = Vm {
            child,
            qmp,
            shm: start.shm,
            console: Console::new(console),
            media,
            memory,
            stderr,
            death: None,
        };
        // Both sides have them open: from here on nothing is left behind, whoever is killed.
        fs::remove_dir_all(start.dir).map_err(file_trouble("clearing", start.dir))?;
        Ok(vm)
    }

    /// Runs a QMP command.
    pub fn command(
        &mut self,
        name: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, TargetError> {
        self.qmp.command(name, arguments).map_err(|e| infra(why(&e, &self.stderr)))
    }

    /// Lets the guest run.
    pub fn run(&mut self) -> Result<(), TargetError> {
        self.command("cont", json!({})).map(drop)
    }

    /// Makes the guest stand still.
    pub fn stop(&mut self) -> Result<(), TargetError> {
        self.command("stop", json!({})).map(drop)
    }

    /// Kills the process and tells nobody.
    pub fn kill(&mut self) -> Result<(), TargetError> {
        self.child.kill().map_err(infra)
    }

    /// How long QEMU's threads have waited for a processor so far, all together (/proc/PID/task/TID/schedstat, second field); zero where the host
    /// does not count it.
    pub fn starved(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let waited = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').nth(1)?.parse::<u64>().ok()
        });
        Duration::from_nanos(waited.sum())
    }

    /// Presses keys, such as `alt-sysrq-w`.
    pub fn press(&mut self, keys: &str) -> Result<(), TargetError> {
        self.human(&format!("sendkey {keys}")).map(drop)
    }

    /// `running`, `paused`, `internal-error`, ...
    pub fn status(&mut self) -> Result<String, TargetError> {
        let status = self.command("query-status", json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_string())
    }

    /// The PCI address of the shared memory.
    pub fn shm_address(&mut self) -> Result<u64, TargetError> {
        let low = self.pci_read(BAR2)?;
        let high = self.pci_read(BAR2 + 4)?;
        Ok(u64::from(high) << 32 | u64::from(low & !0xf))
    }

    /// Writes the machine's state, without the memory that lies in files.
    pub fn save(&mut self, path: &Path) -> Result<(), TargetError> {
        self.ignore_shared()?;
        // QEMU 7.2 saves to no file and to no descriptor that it was born with, but through a shell.
        let path =
            path.to_str().ok_or_else(|| infra(format!("{} is not UTF-8", path.display())))?;
        let uri = format!("exec:cat > '{}'", path.replace('\'', "'\\''"));
        self.command("migrate", json!({ "uri": uri }))?;
        let deadline = Instant::now() + MIGRATE_PATIENCE;
        loop {
            let state = self.command("query-migrate", json!({}))?;
            match state["status"].as_str().unwrap_or_default() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    return Err(infra(format!("qemu cannot save its state: {state}")));
                }
                _ if Instant::now() > deadline => {
                    return Err(infra("qemu does not finish saving its state"));
                }
                _ => std::thread::sleep(MIGRATE_POLL),
            }
        }
    }

    /// Reads the state on standard output, and is paused then.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.ignore_shared()?;
        // QEMU wants memory that is not in the state to lie where it lay (ram_load, migration/ram.c, 7.2). For the shared memory that
        // is its BAR, which firmware programmed in the guest that was saved and nobody has in this one.
        self.pci_write(BAR2, snapshot.facts.shm_address as u32)?;
        self.pci_write(BAR2 + 4, (snapshot.facts.shm_address >> 32) as u32)?;
        self.pci_write(COMMAND, COMMAND_MEMORY)?;
        self.command("migrate-incoming", json!({ "uri": "fd:1" }))?;
        let deadline = Instant::now() + MIGRATE_PATIENCE;
        loop {
            match self.status()?.as_str() {
                "inmigrate" if Instant::now() > deadline => {
                    return Err(infra("qemu does not finish reading the snapshot"));
                }
                "inmigrate" => std::thread::sleep(MIGRATE_POLL),
                _ => return Ok(()),
            }
        }
    }

    fn ignore_shared(&mut self) -> Result<(), TargetError> {
        let capability = json!([{ "capability": "x-ignore-shared", "state": true }]);
        self.command("migrate-set-capabilities", json!({ "capabilities": capability })).map(drop)
    }

    /// Whether the process still runs; how it ended otherwise.
    pub fn death(&mut self) -> Result<Option<Death>, TargetError> {
        if self.death.is_some() {
            return Ok(self.death.clone());
        }
        let Some(exit) = self.child.try_wait().map_err(infra)? else {
            return Ok(None);
        };
        // With -no-reboot a guest that resets or powers off ends QEMU, and QEMU says so. (A triple fault says nothing on the
        // console.) A QEMU that was killed or that failed says nothing.
        let mut by_guest = false;
        while let Some(event) = self.qmp.event() {
            by_guest |= event["event"] == "SHUTDOWN" && event["data"]["guest"] == true;
        }
        self.death = Some(if by_guest {
            Death::Guest(Down::Panic)
        } else {
            Death::Qemu(format!("qemu ended ({exit}): {}", complaint(&self.stderr)))
        });
        Ok(self.death.clone())
    }

    /// Waits a little for a process that is about to end.
    pub fn await_death(&mut self) -> Result<Option<Death>, TargetError> {
        let deadline = Instant::now() + EXIT_PATIENCE;
        loop {
            let death = self.death()?;
            if death.is_some() || Instant::now() > deadline {
                return Ok(death);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// QEMU's own words.
    pub fn complaint(&self) -> String {
        complaint(&self.stderr)
    }

    fn pci_read(&mut self, register: u32) -> Result<u32, TargetError> {
        self.pci_select(register)?;
        let text = self.human("i /w 0xcfc")?;
        // `portl[0x0cfc] = 0xfd000000`
        let value = text.rsplit("= 0x").next().and_then(|v| u32::from_str_radix(v.trim(), 16).ok());
        value.ok_or_else(|| infra(format!("qemu said something odd: {text}")))
    }

    fn pci_write(&mut self, register: u32, value: u32) -> Result<(), TargetError> {
        self.pci_select(register)?;
        self.human(&format!("o /w 0xcfc {value:#x}")).map(drop)
    }

    /// Selects a configuration register of the shared memory's device (PCI configuration mechanism 1).
    fn pci_select(&mut self, register: u32) -> Result<(), TargetError> {
        let address = 1 << 31 | command::SHM_SLOT << 11 | register;
        self.human(&format!("o /w 0xcf8 {address:#x}")).map(drop)
    }

    fn human(&mut self, line: &str) -> Result<String, TargetError> {
        self.qmp.human(line).map_err(|e| infra(why(&e, &self.stderr)))
    }
}

/// Configuration registers: the 64-bit BAR 2, and the command word with its bit "answers to memory accesses".
const BAR2: u32 = 0x18;
const COMMAND: u32 = 0x04;
const COMMAND_MEMORY: u32 = 2;

impl Drop for Vm {
    fn drop(&mut self) {
        // An error here means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn why(error: &QmpError, stderr: &File) -> String {
    match complaint(stderr) {
        text if text.is_empty() => error.to_string(),
        text => format!("{error}: {text}"),
    }
}

fn complaint(stderr: &File) -> String {
    let mut bytes = Vec::new();
    let length = stderr.metadata().map_or(0, |m| m.len());
    let mut chunk = vec![0; length.min(STDERR_MAX) as usize];
    let start = length.saturating_sub(STDERR_MAX);
    if std::os::unix::fs::FileExt::read_exact_at(stderr, &mut chunk, start).is_ok() {
        bytes = chunk;
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    tail(&lines.join("; "), STDERR_MAX as usize).to_string()
}

/// The version of a QEMU program, in one line.
pub fn version(qemu: &Path) -> Result<String, TargetError> {
    let mut child = Command::new(qemu)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| infra(format!("cannot start {}: {e}", qemu.display())))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(STDERR_MAX).read_to_string(&mut text).map_err(infra)?;
    }
    let status = child.wait().map_err(infra)?;
    let line = text.lines().next().unwrap_or_default();
    if !status.success() || line.is_empty() {
        return Err(infra(format!("{} --version failed ({status})", qemu.display())));
    }
    Ok(line.strip_prefix("QEMU emulator version ").unwrap_or(line).to_string())
}
