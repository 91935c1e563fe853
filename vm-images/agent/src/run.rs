//! One run: its program, its slots and its directories, one on each mount that the program names.

use crate::cover::Reached;
use crate::descriptors::Sockets;
use crate::exec::open_gup_test;
use crate::gates::Gates;
use crate::record::Recorder;
use crate::slots::Table;
use program::{Call, GateSlot, Line, Mount, Path as FilePath, Program};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, openat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// What runs share: the guest's files, or a test's.
#[derive(Debug)]
pub struct Environment {
    /// Where the mounts are: `/mnt`.
    pub root: PathBuf,
    /// /proc/sys/vm/drop_caches
    pub drop_caches: Option<File>,
    /// /proc/sys/vm/stat_refresh
    pub stat_refresh: Option<File>,
    /// /proc/sys/fs/lease-break-time
    pub lease_break_time: Option<File>,
    /// /sys/kernel/debug/clear_warn_once
    pub clear_warn_once: Option<File>,
    /// /dev/kmsg
    pub kmsg: Option<File>,
    /// Opcodes of io_uring that the kernel has.
    pub ring_ops: Arc<Vec<u8>>,
    /// The gates that the kernel can have.
    pub gates: Gates,
    /// Whether it has an RDMA device.
    pub rdma: bool,
    /// Whether it has gup_test with its long-term tests.
    pub gup_test: bool,
    /// The call sites that a program passes, if the kernel tells.
    pub reached: Option<&'static Reached>,
}

impl Environment {
    /// `pwrite(drop_caches, "3", 0)` — Drops clean pages, entries and inodes. (At any other position the kernel ignores the digit and
    /// does what the last one said.)
    pub fn drop_caches(&self) -> rustix::io::Result<()> {
        let file = self.drop_caches.as_ref().ok_or(Errno::NOENT)?;
        rustix::io::pwrite(file, b"3", 0).map(drop)
    }

    /// `pwrite(drop_caches, "4", 0)` — Drops nothing, but stops the kernel from reporting each later use on the console.
    pub fn silence_drop_caches(&self) {
        if let Some(file) = &self.drop_caches {
            let _ = rustix::io::pwrite(file, b"4", 0);
        }
    }

    /// `pwrite(lease-break-time, seconds, 0)` — How long the kernel waits for the answer to the break of a lease.
    pub fn set_lease_break_time(&self, seconds: u8) -> Option<rustix::io::Result<()>> {
        let file = self.lease_break_time.as_ref()?;
        Some(rustix::io::pwrite(file, seconds.to_string().as_bytes(), 0).map(drop))
    }

    /// Lets one-time warnings speak again, and says on the console which run begins.
    pub fn announce(&self, run: u32) {
        if let Some(file) = &self.clear_warn_once {
            let _ = rustix::io::write(file, b"1");
        }
        if let Some(file) = &self.kmsg {
            let _ = rustix::io::write(file, format!("<6>pinfuzz: run {run}\n").as_bytes());
        }
    }
}

/// The run's directory on one mount.
#[derive(Debug)]
pub struct Place {
    /// Which mount.
    pub mount: Mount,
    /// The directory.
    pub dir: OwnedFd,
    root: OwnedFd,
    path: String,
}

impl Place {
    fn name(run: u32) -> String {
        format!("r{run}")
    }

    /// The directory of a run that exists already.
    pub fn existing(
        environment: &Environment,
        mount: Mount,
        run: u32,
    ) -> rustix::io::Result<Place> {
        let base = environment.root.join(mount.name());
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&base, flags, Mode::empty())?;
        let name = Place::name(run);
        let dir = openat(&root, &name, flags, Mode::empty())?;
        let path = base.join(name).to_string_lossy().into_owned();
        Ok(Place { mount, dir, root, path })
    }

    /// A fresh directory.
    pub fn new(environment: &Environment, mount: Mount, run: u32) -> rustix::io::Result<Place> {
        match Place::existing(environment, mount, run) {
            Ok(old) => old.remove(run)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let base = environment.root.join(mount.name());
        rustix::fs::mkdir(base.join(Place::name(run)), Mode::from_raw_mode(0o755))?;
        Place::existing(environment, mount, run)
    }

    /// The whole path of a file, for calls that take no directory.
    pub fn path_of(&self, name: u8) -> CString {
        let letter = FilePath { mount: self.mount, name }.file_name();
        CString::new(format!("{}/{letter}", self.path)).unwrap_or_default()
    }

    /// Names in the directory, sorted: 0 is `a`.
    pub fn names(&self) -> rustix::io::Result<Vec<u8>> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&self.dir)? {
            if let [letter @ b'a'..=b'z'] = entry?.file_name().to_bytes() {
                names.insert(letter - b'a');
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Removes the files and the directory.
    pub fn remove(self, run: u32) -> rustix::io::Result<()> {
        for name in self.names()? {
            unlinkat(&self.dir, &[b'a' + name][..], AtFlags::empty())?;
        }
        unlinkat(&self.root, Place::name(run), AtFlags::REMOVEDIR)
    }
}

/// One run.
#[derive(Debug)]
pub struct Run {
    /// Its number.
    pub number: u32,
    /// Its program.
    pub program: Program,
    /// Records it.
    pub recorder: Recorder,
    /// Its slots.
    pub table: Table,
    /// See `Environment::ring_ops`.
    pub ring_ops: Arc<Vec<u8>>,
    /// After how long without return a line is looked at.
    pub block_after: std::time::Duration,
    environment: Arc<Environment>,
    places: Vec<Place>,
}

impl Run {
    /// Makes the directories.
    pub fn new(
        environment: &Arc<Environment>,
        number: u32,
        program: Program,
        recorder: Recorder,
        block_after_ms: u32,
    ) -> rustix::io::Result<Run> {
        let places = mounts_of(&program).into_iter().map(|m| Place::new(environment, m, number));
        let table = Table::new()?;
        if program.lines.iter().any(|l| matches!(l.call, Call::SendFd { .. } | Call::RecvFd { .. }))
        {
            table.lock().sockets = Some(Arc::new(Sockets::new()?));
        }
        if environment.gup_test && program.uses_gup_test() {
            table.lock().gup_test = open_gup_test().map(Arc::new);
        }
        Ok(Run {
            number,
            places: places.collect::<Result<_, _>>()?,
            program,
            recorder,
            table,
            ring_ops: environment.ring_ops.clone(),
            block_after: std::time::Duration::from_millis(block_after_ms.into()),
            environment: environment.clone(),
        })
    }

    /// The run's directory on a mount that its program names.
    pub fn place(&self, mount: Mount) -> Option<&Place> {
        self.places.iter().find(|p| p.mount == mount)
    }

    /// See `Environment::gates`.
    pub fn gates(&self) -> &Gates {
        &self.environment.gates
    }

    /// See `Environment::rdma`.
    pub fn has_rdma(&self) -> bool {
        self.environment.rdma
    }

    /// See `Environment::reached`. None if this program is not covered.
    pub fn reached(&self) -> Option<&'static Reached> {
        self.environment.reached.filter(|reached| reached.is_on())
    }

    /// See `Environment::pinned_at_rest`.
    pub fn pinned_at_rest(&self, before: i64) -> Option<i64> {
        self.environment.pinned_at_rest(before)
    }

    /// See `Environment::set_lease_break_time`.
    pub fn set_lease_break_time(&self, seconds: u8) -> Option<rustix::io::Result<()>> {
        self.environment.set_lease_break_time(seconds)
    }

    /// See `Environment::drop_caches`.
    pub fn drop_caches(&self) -> rustix::io::Result<()> {
        self.environment.drop_caches()
    }
}

/// The gates whose devices a program opens.
pub fn gates_of(program: &Program) -> BTreeSet<GateSlot> {
    let gate = |line: &Line| match line.call {
        Call::OpenGate { gate, .. } => Some(gate),
        _ => None,
    };
    program.lines.iter().filter_map(gate).collect()
}

/// The mounts that a program names.
pub fn mounts_of(program: &Program) -> BTreeSet<Mount> {
    let mut mounts = BTreeSet::new();
    for line in &program.lines {
        match &line.call {
            Call::Open { path, .. } | Call::Unlink { path } | Call::Truncate { path, .. } => {
                mounts.insert(path.mount);
            }
            Call::Rename { from, to } | Call::Link { from, to } => {
                mounts.extend([from.mount, to.mount]);
            }
            _ => {}
        }
    }
    mounts
}
