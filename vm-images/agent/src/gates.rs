//! Gates: devices and memory whose traffic a program holds and lets go.
//!
//! They are made once, before the first program. Whether a gate is held is in `Control`, so that whoever is left can release it when a process
//! has died: an I/O that a gate holds cannot be killed.

use crate::control::Control;
use crate::record::{now, pid};
use crate::sys::{self, Pool, dm, uffd};
use crate::ublk::Ublk;
use history::{CallResult, Errno, stamp};
use program::{Access, GATE_SIZE, GateSlot, Settle};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Size of a sector, in which block devices count.
const SECTOR: u64 = 512;
/// How long a release waits for failed I/O to be over: some microseconds suffice, if a processor is free.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// Stack of the thread that serves the memory gate.
const STACK: usize = 64 << 10;
/// How often it looks.
const POLL: Duration = Duration::from_millis(1);

/// The gates of a guest: those that its kernel can have.
#[derive(Debug, Default)]
pub struct Gates {
    dm: Option<Dm>,
    /// Each runner has its own; its forked children have none.
    memory: OnceLock<(u32, Arc<uffd::Memory>)>,
    ublk: Option<Ublk>,
}

/// A linear device of the device mapper over a RAM disk.
#[derive(Debug)]
struct Dm {
    control: OwnedFd,
    device: OwnedFd,
    path: String,
}

impl Gates {
    /// Makes all that this kernel can have.
    pub fn new() -> Gates {
        // A kernel without the module has no device: its programs' lines are left out, and say so.
        Gates { dm: Dm::new().ok(), ublk: Ublk::start().ok(), memory: OnceLock::new() }
    }

    /// Whether the kernel can have the gate.
    pub fn has(&self, gate: GateSlot) -> bool {
        match gate {
            GateSlot::DM => self.dm.is_some(),
            GateSlot::MEMORY => self.memory().is_some(),
            GateSlot::UBLK => self.ublk.is_some(),
            _ => false,
        }
    }

    /// Makes this process's memory gate and serves it. A kernel without userfaultfd has none.
    pub fn serve_memory(&self, control: &'static Control) -> std::io::Result<()> {
        let Ok(memory) = uffd::Memory::new() else { return Ok(()) };
        let memory = Arc::new(memory);
        if self.memory.set((pid(), memory.clone())).is_ok() {
            let held = &control.held[usize::from(GateSlot::MEMORY.0)];
            let serve = move || memory.serve(|| held.load(Ordering::Acquire) != 0);
            std::thread::Builder::new().name("g2".into()).stack_size(STACK).spawn(serve)?;
        }
        Ok(())
    }

    /// The memory gate, if it is this process's.
    pub fn memory(&self) -> Option<&uffd::Memory> {
        self.memory.get().filter(|(owner, _)| *owner == pid()).map(|(_, memory)| &**memory)
    }

    /// Before a program: none of the memory gate's pages is there.
    pub fn reset_memory(&self) {
        if let Some(memory) = self.memory() {
            // That memory of our own is given back does not fail.
            let _ = memory.reset();
        }
    }

    /// `open(device, access | O_DIRECT | O_CLOEXEC)` — The block device of a gate.
    pub fn open(&self, gate: GateSlot, access: Access) -> Option<rustix::io::Result<OwnedFd>> {
        let path = match gate {
            GateSlot::DM => self.dm.as_ref()?.path.as_str(),
            GateSlot::UBLK => self.ublk.as_ref().map(|_| Ublk::PATH)?,
            _ => return None,
        };
        let access = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::WriteOnly => OFlags::WRONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        Some(open(path, access | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()))
    }

    /// Lays down what a program finds on the device when it begins. The gate is not held.
    pub fn reset(&self, gate: GateSlot, run: u32, pool: &mut Pool) -> Result<(), Errno> {
        if let (GateSlot::UBLK, Some(ublk)) = (gate, &self.ublk) {
            return ublk.reset(run);
        }
        let (GateSlot::DM, Some(dm)) = (gate, &self.dm) else { return Ok(()) };
        let device = dm.device.as_fd();
        let mut buffer = pool.take(GATE_SIZE as usize).map_err(sys::errno)?;
        let bytes = &mut buffer.bytes_mut()[..GATE_SIZE as usize];
        stamp::sign(bytes, run, stamp::call_gate(gate.0), 0);
        let written = sys::pwrite(device, buffer.span(0, GATE_SIZE as usize), 0);
        pool.put(buffer);
        match written {
            Ok(GATE_SIZE) => Ok(()),
            Ok(_) => Err(Errno(libc::EIO)),
            Err(error) => Err(error),
        }
    }

    /// From now on, what goes through the gate is accepted and does not complete.
    pub fn hold(&self, control: &Control, gate: GateSlot) -> CallResult {
        if control.held[usize::from(gate.0)].swap(1, Ordering::AcqRel) != 0 {
            return Ok(0);
        }
        let held = match (gate, &self.dm, &self.ublk) {
            (GateSlot::DM, Some(dm), _) => dm.command(dm::Command::Suspend).map(drop),
            (GateSlot::UBLK, _, Some(ublk)) => ublk.hold(),
            _ => Ok(()),
        };
        if held.is_err() {
            control.held[usize::from(gate.0)].store(0, Ordering::Release);
        }
        held.map(|_| 0)
    }

    /// Settles what the gate holds, and lets everything through.
    pub fn release(&self, control: &Control, gate: GateSlot, settle: Settle) -> CallResult {
        if control.held[usize::from(gate.0)].swap(0, Ordering::AcqRel) == 0 {
            return Ok(0);
        }
        match (gate, &self.dm, &self.ublk) {
            (GateSlot::DM, Some(dm), _) if settle == Settle::Fail => dm.fail(control).map(drop),
            (GateSlot::DM, Some(dm), _) => dm.command(dm::Command::Resume).map(drop),
            (GateSlot::UBLK, _, Some(ublk)) => ublk.release(settle),
            (GateSlot::MEMORY, ..) => {
                self.memory().inspect(|memory| memory.release());
                Ok(())
            }
            _ => Ok(()),
        }
        .map(|()| 0)
    }

    /// Releases every gate. Anybody may do so, PID 1 included.
    pub fn release_all(&self, control: &Control) {
        for gate in 0..GateSlot::MAX {
            // A gate that cannot be released shows by what stays blocked.
            let _ = self.release(control, GateSlot(gate), Settle::Complete);
        }
    }
}

impl Dm {
    const NAME: &str = "pinfuzz-g0";

    fn new() -> Result<Dm, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = open("/dev/mapper/control", flags, Mode::empty()).map_err(sys::errno)?;
        let command = |command| dm::command(control.as_fd(), Dm::NAME, command);
        let number = command(dm::Command::Create)?;
        command(Dm::linear())?;
        command(dm::Command::Resume)?;
        // huge_encode_dev: the low eight bits of the minor number, and the others above the major number.
        let path = format!("/dev/dm-{}", number & 0xff | number >> 12 & 0xf_ff00);
        let device =
            open(path.as_str(), flags | OFlags::DIRECT, Mode::empty()).map_err(sys::errno)?;
        Ok(Dm { control, device, path })
    }

    fn linear() -> dm::Command<'static> {
        dm::Command::Load(GATE_SIZE / SECTOR, "linear", "/dev/ram0 0")
    }

    fn command(&self, command: dm::Command<'_>) -> CallResult {
        dm::command(self.control.as_fd(), Dm::NAME, command)
    }

    /// Resumes onto a table of errors, and lays the other one back when all that was held is over. (Held I/O is issued anew by a
    /// worker after the resume; nothing but its end says that it was.)
    fn fail(&self, control: &Control) -> CallResult {
        self.command(dm::Command::Load(GATE_SIZE / SECTOR, "error", ""))?;
        self.command(dm::Command::Resume)?;
        let until = now() + SETTLE_MAX.as_nanos() as u64;
        while control.is_in_flight(GateSlot::DM) && now() < until {
            std::thread::sleep(POLL);
        }
        self.command(dm::Command::Suspend)?;
        self.command(Dm::linear())?;
        self.command(dm::Command::Resume)
    }
}
